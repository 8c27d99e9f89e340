"""An evaluation as tables, for the terminal and for the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra.evaluation import FARS, FPIRS, RANKS
from processors.evaluation import CONFIDENCE, FEW_EVENTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FEW = f"fewer than {FEW_EVENTS} events"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A table of texts."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def listings(report: dict[str, Any]) -> Iterator[Listing]:
    """Yield the tables of a report, in the order in which they are read."""
    for part in report["recipes"]:
        yield _rates(part, report)
        if part["failures"]:
            rows = [(code, str(count)) for code, count in part["failures"].items()]
            yield Listing(title=f"{part['recipe']}: failures to enrol", columns=("code", "photos"), rows=rows)
        refused = [
            (use, code, str(count)) for use, codes in part["refused_by_policy"].items() for code, count in codes.items()
        ]
        if refused:
            counted = "counted as failures" if report["policy_applies"] else "not counted as failures here"
            title = f"{part['recipe']}: refused by policy {report['policy_version']}, {counted}"
            yield Listing(title=title, columns=("for", "code", "photos"), rows=refused)
        for kind, rows in part["groups"].items():
            yield _groups(part["recipe"], kind, rows)
    for comparison in report["comparisons"]:
        yield _comparison(comparison)


def _rates(part: dict[str, Any], report: dict[str, Any]) -> Listing:
    closed, opened, inquiry, pairs = (
        part[name] for name in ("closed_set", "open_set", "investigation", "verification")
    )
    rows = []
    for rank in RANKS:
        key = f"rank_{rank}"
        rows.append(
            _row(part, key, f"closed set, mate within rank {rank}", part[key], (closed["gallery_persons"], rank, ""))
        )
    for name in FPIRS:
        key, point = f"fnir_at_fpir_{name}", opened["at_fpir"].get(name)
        where = (opened["gallery_persons"], opened["list_length"], _threshold(point))
        rows.append(_row(part, key, f"open set, FNIR at FPIR {float(name):.1%}", part[key], where))
    for rank in (1, inquiry["list_length"]):
        key, where = f"investigation_fnir_rank_{rank}", (inquiry["gallery_persons"], inquiry["list_length"], "none")
        rows.append(_row(part, key, f"investigation, FNIR at rank {rank}", inquiry[f"fnir_rank_{rank}"], where))
    for name in FARS:
        key, where = f"tar_at_far_{name}", ("", "", _threshold(pairs["at_far"].get(name)))
        rows.append(_row(part, key, f"verification, TAR at FAR {name}", part[key], where))
    rows.append(_row(part, "failure_to_enrol", "failure to enrol", part["failure_to_enrol"], ("", "", "")))
    title = (
        f"{part['recipe']}: {report['persons']} persons, {report['images']} photos, "
        f"{report['enrol']} enrolled a person ({part['fusion']}), {report['draws']} draws"
    )
    interval = f"{CONFIDENCE:.0%} interval"
    return Listing(
        title=title, columns=("measure", "rate", interval, "gallery", "list", "threshold", "note"), rows=rows
    )


def _row(
    part: dict[str, Any], key: str, what: str, rate: float | None, where: tuple[object, object, str]
) -> tuple[str, ...]:
    note = f"{FEW}: {_events(part['events'][key])}" if key in part["few_events"] else ""
    return (what, _rate(rate), _interval(part["intervals"].get(key)), *(str(each) for each in where), note)


def _groups(recipe: str, kind: str, rows: Sequence[dict[str, Any]]) -> Listing:
    table = []
    for row in rows:
        counts = (row["group"], str(row["persons"]), str(row["images"]))
        for name, point in row["at_fpir"].items():
            at = f"at FPIR {float(name):.1%} of all"
            table.append((*counts, f"FNIR {at}", *_cells(point["fnir"])))
            table.append((*counts, f"FPIR {at}", *_cells(point["fpir"])))
        table.append((*counts, "failure to enrol", *_cells(row["failure_to_enrol"])))
    columns = ("group", "persons", "photos", "measure", "rate", f"{CONFIDENCE:.0%} interval", "events")
    title = f"{recipe} by {kind}, at the thresholds that hold for all (* {FEW})"
    return Listing(title=title, columns=columns, rows=table)


def _cells(cell: dict[str, Any]) -> tuple[str, str, str]:
    return _rate(cell["rate"]), _interval(cell["interval"]), f"{cell['photos']}{_star(cell)}"


def _star(cell: dict[str, Any]) -> str:
    return " *" if cell["few_events"] else ""


def _comparison(comparison: dict[str, Any]) -> Listing:
    rows = []
    for name, error in comparison["errors"].items():
        ratio = "" if error["ratio"] is None else f"{error['ratio']:.3f}"
        rows.append(
            (
                name.replace("_", " ") + _star(error),
                _rate(error["baseline"]),
                _rate(error["recipe"]),
                ratio,
                _interval(error["ratio_interval"]),
                f"{error['difference']:+.4f}",
                _interval(error["difference_interval"]),
            )
        )
    columns = ("error rate", "baseline", "recipe", "ratio", "interval", "difference", "interval")
    title = f"{comparison['recipe']} against {comparison['baseline']}, the same persons in every resampling (* {FEW})"
    return Listing(title=title, columns=columns, rows=rows)


def _events(events: dict[str, int]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in events.items())


def _rate(rate: float | None) -> str:
    return "unknown" if rate is None else f"{rate:.4f}"


def _threshold(point: dict[str, Any] | None) -> str:
    if point is None:
        return ""
    return "none" if point["threshold"] is None else f"{point['threshold']:.3f}"


def _interval(interval: Sequence[float | None] | None) -> str:
    if interval is None:
        return ""
    return " to ".join("unbounded" if bound is None else f"{bound:.4f}" for bound in interval)
