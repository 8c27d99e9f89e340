"""Write an evaluation as one page that needs nothing beside it, and its plots as PNG. No photo is in it."""

from __future__ import annotations

import base64
import html
import string
from importlib.resources import files
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

import infra
from infra.evaluation import DISCARD_FAR
from infra.evaluation_tables import listings
from processors.candidates import LEAD_NOTICE
from schemas.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from infra.evaluation import Curves, Outcome
    from infra.evaluation_tables import Listing

PAGE, DET, DISCARD = "report.html", "det.png", "error-versus-discard.png"
_TEMPLATE = "evaluation_report.html"
_SIZE_IN = (7.0, 4.6)
_DPI = 130


def make_folder(folder: Path) -> None:
    """Make the folder of a report.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The folder {folder} cannot be made: {error.strerror}.") from None


def write_report(outcome: Outcome, folder: Path) -> Path:
    """Write the page and the plots into a folder; return the path of the page.

    Raises:
        UsageError: the folder cannot be written.
    """
    report = outcome.report
    try:
        _draw_det(outcome.curves, f"{report['open_set']['gallery_persons']} persons enrolled", folder / DET)
        _draw_discard(outcome.curves, folder / DISCARD)
        page = string.Template(files(infra).joinpath(_TEMPLATE).read_text(encoding="utf-8")).substitute(
            notice=html.escape(LEAD_NOTICE),
            summary=html.escape(
                f"{report['persons']} persons, {report['images']} photos; {report['enrol']} enrolled a person, "
                f"{report['draws']} draws, seed {report['seed']}."
            ),
            warnings="".join(f"<li>{html.escape(warning)}</li>" for warning in report["warnings"]),
            tables="\n".join(_as_html(listing) for listing in listings(report)),
            det=_embedded(folder / DET),
            discard=_embedded(folder / DISCARD),
            far=DISCARD_FAR,
        )
        (folder / PAGE).write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"The report cannot be written to {folder}: {error.strerror}.") from None
    return folder / PAGE


def _draw_det(curves: Sequence[Curves], subtitle: str, path: Path) -> None:
    figure = Figure(figsize=_SIZE_IN, dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    for each in curves:
        axes.plot(each.fpir, each.fnir, label=each.recipe, drawstyle="steps-post")
    axes.set(xlabel="FPIR", ylabel="FNIR", title=f"Open-set identification error, {subtitle}")
    if any((each.fpir > 0.0).any() and (each.fnir > 0.0).any() for each in curves):
        axes.set(xscale="log", yscale="log")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path)


def _draw_discard(curves: Sequence[Curves], path: Path) -> None:
    figure = Figure(figsize=_SIZE_IN, dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    for each in curves:
        if len(each.false_non_match):
            (line,) = axes.plot(each.discarded, each.false_non_match, label=each.recipe)
            ideal = (each.false_non_match[0] - each.discarded).clip(0.0) / (1.0 - each.discarded)
            axes.plot(each.discarded, ideal, linestyle=":", color=line.get_color(), label=f"{each.recipe}, ideal")
    axes.set(
        xlabel="share of pairs discarded, lowest quality first",
        ylabel=f"false non-match rate at FAR {DISCARD_FAR}",
        title="Error versus discard",
        ylim=(0.0, None),
    )
    axes.grid(visible=True, alpha=0.3)
    if axes.lines:
        axes.legend()
    figure.savefig(path)


def _as_html(listing: Listing) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in listing.columns)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in listing.rows
    )
    title = html.escape(listing.title)
    return f"<h2>{title}</h2>\n<div class=wide><table>\n<tr>{head}</tr>\n{rows}\n</table></div>"


def _embedded(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")
