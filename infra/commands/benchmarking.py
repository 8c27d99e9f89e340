"""`bench`: measure a part of the system on this machine."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from infra import assets, bench_population, logs
from infra.bench_pipeline import PipelineBench
from infra.bench_recovery import RecoveryBench
from infra.bench_search import SearchBench, rows_for_people
from infra.brokers import Kind
from infra.brokers.apache import kafka_version
from infra.commands.common import Json, err, out, print_json, table
from infra.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infra.bench_search import Report, Tell
    from processors.model_card import StatisticsCard

bench = typer.Typer(help="Measure a part of the system on this machine.", no_args_is_help=True)

Size = Annotated[int, typer.Option(help="Templates in the gallery.", min=1000)]
Dimension = Annotated[
    int | None,
    typer.Option(help="Length of a template; default: that of the statistics.", min=4, show_default=False),
]
Statistics = Annotated[
    Path | None,
    typer.Option(help="Statistics of templates, .npz; default: those of the default model card."),
]


@bench.command()
def search(
    size: Size = 1_000_000,
    dimension: Dimension = None,
    statistics: Statistics = None,
    threads: Annotated[int, typer.Option(help="Threads that one search uses.", min=1)] = 2,
    probes: Annotated[int, typer.Option(help="How many probes.", min=10)] = 1000,
    adding_s: Annotated[float, typer.Option(help="Seconds of searching while templates are added.", min=0.1)] = 12.0,
    flat: Annotated[bool, typer.Option(help="Measure FAISS's flat indexes beside the gallery.")] = True,
    as_json: Json = False,
) -> None:
    """Search in a gallery of persons who do not exist: time, recall, memory, and adding meanwhile."""
    card, population = _card_and_population(statistics, dimension)
    with _progress() as progress:
        report = SearchBench(
            population=population,
            card=card,
            size=size,
            threads=threads,
            probes=min(probes, size),
            adding_s=adding_s,
            flat=flat,
        ).run(progress)
    _show(report, "search", as_json=as_json)


@bench.command()
def recovery(
    size: Size = 1_000_000,
    dimension: Dimension = None,
    statistics: Statistics = None,
    threads: Annotated[int, typer.Option(help="Threads that load a snapshot.", min=1)] = 2,
    replay_size: Annotated[int, typer.Option(help="How many of them are read from Kafka.", min=1)] = 100_000,
    broker: Annotated[Kind, typer.Option(help="Which Kafka to start for it.")] = "apache",
    as_json: Json = False,
) -> None:
    """Snapshot, restart from it, and replay from Kafka beside a bare consumer, with persons who do not exist."""
    logs.configure("warning", "bench")
    card, population = _card_and_population(statistics, dimension)
    with _progress() as progress:
        report = RecoveryBench(
            population=population,
            card=card,
            size=size,
            replay_size=min(replay_size, size),
            threads=threads,
            broker=broker,
            jars=load_settings().assets / f"kafka-{kafka_version()}",
        ).run(progress)
    _show(report, "recovery", as_json=as_json)


@bench.command()
def pipeline(
    photos: Annotated[
        Path | None, typer.Option(help="Folder of photos, one face each; default: the sample photos.")
    ] = None,
    bookings: Annotated[int, typer.Option(help="Bookings in the queue of each turn.", min=20)] = 1500,
    turns: Annotated[int, typer.Option(help="How often bare loop and road take turns.", min=1)] = 3,
    queue: Annotated[int, typer.Option(help="Bookings in a longer queue, for its memory; 0: none.", min=0)] = 10_000,
    probes: Annotated[int, typer.Option(help="Probes at each load; 0: none.", min=0)] = 400,
    bare_s: Annotated[float, typer.Option(help="Seconds of the bare loop in each turn.", min=0.1)] = 15.0,
    broker: Annotated[Kind, typer.Option(help="Which Kafka to start for it.")] = "apache",
    as_json: Json = False,
) -> None:
    """Booking events to template events beside the bare models, probes under load, hostile images, memory."""
    logs.configure("warning", "bench")
    with _progress() as progress:
        report = PipelineBench(
            settings=load_settings(),
            broker=broker,
            photos=photos,
            bookings=bookings,
            turns=turns,
            queue=queue,
            probes=probes,
            bare_s=bare_s,
        ).run(progress)
    _show(report, "pipeline", as_json=as_json)


def _card_and_population(
    statistics: Path | None, dimension: int | None
) -> tuple[StatisticsCard, bench_population.Population]:
    card = assets.load_card(assets.DEFAULT_CARD).statistics
    if statistics is None:
        return card, bench_population.of_card(card, dimension)
    return card, bench_population.of_file(statistics, dimension)


@contextmanager
def _progress() -> Iterator[Tell]:
    """Show what is being done, on standard error."""
    columns = (TextColumn("  {task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bars:
        tasks = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield progress


def _show(report: Report, name: str, *, as_json: bool) -> None:
    if as_json:
        print_json(report)
    else:
        out.print(table(f"leadstream bench {name}", ("measure", "value"), rows_for_people(report)))
