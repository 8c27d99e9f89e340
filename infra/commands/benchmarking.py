"""`bench`: measure a part of the system on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from infra import assets, bench_population
from infra.bench_search import SearchBench, rows_for_people
from infra.commands.common import Json, err, out, print_json, table

bench = typer.Typer(help="Measure a part of the system on this machine.", no_args_is_help=True)


@bench.command()
def search(
    size: Annotated[int, typer.Option(help="Templates in the gallery.", min=1000)] = 1_000_000,
    dimension: Annotated[
        int | None,
        typer.Option(help="Length of a template; default: that of the statistics.", min=4, show_default=False),
    ] = None,
    statistics: Annotated[
        Path | None,
        typer.Option(help="Statistics of templates, .npz; default: those of the default model card."),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads that one search uses.", min=1)] = 2,
    probes: Annotated[int, typer.Option(help="How many probes.", min=10)] = 1000,
    adding_s: Annotated[float, typer.Option(help="Seconds of searching while templates are added.", min=0.1)] = 12.0,
    flat: Annotated[bool, typer.Option(help="Measure FAISS's flat indexes beside the gallery.")] = True,
    as_json: Json = False,
) -> None:
    """Search in a gallery of persons who do not exist: time, recall, memory, and adding meanwhile."""
    card = assets.load_card(assets.DEFAULT_CARD).statistics
    population = (
        bench_population.of_file(statistics, dimension) if statistics else bench_population.of_card(card, dimension)
    )
    columns = (TextColumn("  {task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bars:
        tasks = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        report = SearchBench(
            population=population,
            card=card,
            size=size,
            threads=threads,
            probes=min(probes, size),
            adding_s=adding_s,
            flat=flat,
        ).run(progress)
    if as_json:
        print_json(report)
    else:
        out.print(table("leadstream bench search", ("measure", "value"), rows_for_people(report)))
