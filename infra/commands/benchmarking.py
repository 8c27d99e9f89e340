"""`bench`: measure a part of the system on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import TimeElapsedColumn

from infra import assets, bench_extract, bench_population, logs
from infra.bench_extract import ExtractBench
from infra.bench_pipeline import PipelineBench
from infra.bench_recovery import RecoveryBench
from infra.bench_search import SearchBench, rows_for_people
from infra.brokers import Kind
from infra.brokers.apache import kafka_version
from infra.commands.common import Json, out, print_json, progress_bars, table
from infra.settings import load_settings
from schemas.errors import UsageError

if TYPE_CHECKING:
    from infra.bench_search import Report
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

_SAMPLE_SIZE = (480, 600)
_EXTRACT_FACTS = ("photos", "photo_bytes_mean", "processes", "extractions_each", "opencv_models")


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
    with progress_bars(TimeElapsedColumn()) as progress:
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
def extract(
    photos: Annotated[
        Path | None,
        typer.Option(
            help="Folder of JPEG and PNG photos of one person each; default: the sample photos.",
            exists=True,
            file_okay=False,
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Cut photos round the face to WxH pixels; default: 480x600 for sample photos, else as they are.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        list[str] | None, typer.Option(help="Recipe to measure, may be repeated; default: all.", show_default=False)
    ] = None,
    processes: Annotated[
        int | None, typer.Option(help="Processes at once; default: one a core.", min=1, show_default=False)
    ] = None,
    turns: Annotated[int, typer.Option(help="How often each loop goes through all photos.", min=1)] = 20,
    as_json: Json = False,
) -> None:
    """Templates a second and a core, by recipe, beside OpenCV's own classes and the recipe that was there first."""
    fetched = assets.fetch(load_settings().assets, lambda _: None, samples=photos is None)
    cards = {name.replace("-", "_"): assets.recipe_card(name) for name in recipe or assets.recipe_names()}
    files = [photo.path for photo in fetched.photos] if photos is None else bench_extract.photos_in(photos)
    read = [path.read_bytes() for path in files]
    wanted = _size(size) if size is not None else _SAMPLE_SIZE if photos is None else None
    with progress_bars(TimeElapsedColumn()) as progress:
        report = ExtractBench(
            photos=bench_extract.cut_photos(read, wanted, fetched.pack_dir),
            recipes=cards,
            pack_dir=fetched.pack_dir,
            originals_dir=fetched.pack_dir.parent / "originals",
            processes=processes or len(os.sched_getaffinity(0)),
            turns=turns,
        ).run(progress)
    if as_json:
        print_json(report)
        return
    rows = bench_extract.rows_for_people(report, list(cards))
    out.print(table("leadstream bench extract: templates a second and core, milliseconds", bench_extract.COLUMNS, rows))
    told = [(name, value) for name, value in report.items() if "_over_" in name or name in _EXTRACT_FACTS]
    out.print(table("", ("measure", "value"), told))


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
    with progress_bars(TimeElapsedColumn()) as progress:
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
    with progress_bars(TimeElapsedColumn()) as progress:
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


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UsageError(f"{text!r} is no size: write the width and the height in pixels, as in 480x600.")
    return int(width), int(height)


def _card_and_population(
    statistics: Path | None, dimension: int | None
) -> tuple[StatisticsCard, bench_population.Population]:
    card = assets.load_card(assets.DEFAULT_CARD).statistics
    if statistics is None:
        return card, bench_population.of_card(card, dimension)
    return card, bench_population.of_file(statistics, dimension)


def _show(report: Report, name: str, *, as_json: bool) -> None:
    if as_json:
        print_json(report)
    else:
        out.print(table(f"leadstream bench {name}", ("measure", "value"), rows_for_people(report)))
