"""`demo`: everything in a temporary folder; exit code 0 only if it came back right."""

from __future__ import annotations

import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from connectors.key_custody import FileMasterKey
from connectors.object_store import ObjectStore
from infra.commands.common import err, out, say, table
from infra.data_folder import DataFolder, initialise
from infra.demo import Demo, DemoResult, shown_name
from infra.demo_accountability import SecondAct
from infra.settings import load_settings
from processors.candidates import LEAD_NOTICE
from schemas.events import ReviewResult

DEFAULT_SHEET = Path("leadstream-demo.png")
SHOWN_CANDIDATES = 3


def demo(
    as_json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the result there, and the contact sheet beside it."),
    ] = None,
) -> int:
    """Book, probe, list, refuse, review, seal, audit: the whole road on sample photos, in a temporary folder."""
    started = time.monotonic()
    sheet = as_json.parent / "contact-sheet.png" if as_json else DEFAULT_SHEET
    with tempfile.TemporaryDirectory(prefix="leadstream-demo-") as place:
        settings = load_settings(Path(place) / "data")
        folder = DataFolder(settings.data)
        initialise(folder)
        ObjectStore(folder.objects, FileMasterKey.load(folder.master_key))
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=err, transient=True) as bars:
            tasks = {}

            def progress(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = bars.add_task(what, total=total)
                bars.update(tasks[what], completed=done)

            run = Demo(settings, say, progress)
            result = run.run()
        run.draw(result, sheet)
    review_sheet = sheet.with_name("review-sheet.html")
    review_sheet.write_bytes(result.second_act.reviewed.sheets[0])
    if as_json:
        as_json.parent.mkdir(parents=True, exist_ok=True)
        as_json.write_text(json.dumps(result.document(), indent=2) + "\n", encoding="utf-8")
    _show(result)
    say(f"contact sheet: {sheet}, review sheet: {review_sheet}" + (f", result: {as_json}" if as_json else ""))
    say(f"done in {time.monotonic() - started:.0f} s")
    return 0 if result.ok else 1


def _show(result: DemoResult) -> None:
    out.print(
        table(
            "Bookings",
            ("published", "enrolled", "refused", "templates in the gallery"),
            [(result.published, result.enrolled, result.refused, result.gallery_size)],
        ),
    )
    rows = []
    for probe in result.probes:
        for candidate in probe.outcome.candidates[:SHOWN_CANDIDATES]:
            first = candidate.rank == 1
            above = candidate.score >= probe.outcome.threshold
            rows.append(
                (
                    f"subject {probe.subject}" if first else "",
                    ("enrolled" if probe.mate else "not enrolled") if first else "",
                    f"{probe.latency_ms:.0f} ms" if first else "",
                    candidate.rank,
                    shown_name(candidate),
                    f"{candidate.score:.3f}",
                    "above" if above else "below",
                ),
            )
    threshold = result.probes[0].outcome.threshold
    out.print(
        table(
            f"Probes and their best candidates (published threshold {threshold})",
            ("probe shows", "who is", "answered in", "rank", "candidate", "cosine", "threshold"),
            rows,
        ),
    )
    out.print(Panel(LEAD_NOTICE, style="bold"))
    out.print(
        table(
            "Refused",
            ("probe", "code", "as it must be"),
            [(p, c, "yes" if c == d else d) for p, c, d in result.refusals],
        ),
    )
    _show_second_act(result.second_act)
    out.print(
        table(
            "Who searched, how often and why (ClickHouse)",
            ("user", "reason", "searches", "lists", "refused", "not proven", "in the user's words"),
            [
                (
                    each.user,
                    each.reason,
                    each.count,
                    each.issued,
                    each.refused,
                    each.unproven,
                    " | ".join(each.reason_texts),
                )
                for each in result.searches
            ],
        ),
    )
    out.print(
        table(
            "Audit (G2)",
            ("records counted by an independent Kafka consumer", "rows in ClickHouse", "same set of digests"),
            [(result.kafka_records, result.audit_rows, "yes" if result.audit_equals_kafka else "NO")],
        ),
    )
    verdict = "Everything came back as it must." if result.ok else f"Wrong: {'; '.join(result.faults)}."
    out.print(verdict, style="bold green" if result.ok else "bold red")


def _show_second_act(act: SecondAct) -> None:
    of_rank = dict(act.reviewed.results)
    out.print(
        table(
            "Review: one to one, by two examiners who do not know of each other's result",
            ("examiners", "candidates", "supported", "not supported", "lead"),
            [
                (
                    ", ".join(act.reviewed.examiners),
                    len(of_rank),
                    sum(result is ReviewResult.SUPPORTED for result in of_rank.values()),
                    sum(result is ReviewResult.NOT_SUPPORTED for result in of_rank.values()),
                    ", ".join(lead.issued.person for lead in act.leads),
                )
            ],
        ),
    )
    for lead in act.leads:
        out.print(Panel(lead.issued.corroboration_reminder, style="bold"))
    out.print(
        table(
            f"A court order on {act.sealed}: who is told",
            ("receiver", "list of probe", "notice"),
            [
                (each.notice.user_id, str(each.notice.probe_id), each.state(datetime.now(UTC)).value.lower())
                for each in act.notices
            ],
        ),
    )
