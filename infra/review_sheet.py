"""One file that shows an examiner a probe and its candidates one to one, and needs nothing beside it.

The page asks the network for nothing: its Content-Security-Policy admits its own style and its own script, by their
digests, and images that stand in it. It holds no name, no booking number and no personal attribute, and scores only
where the policy shows them. Images are coded anew from their pixels, so that no metadata of theirs is in it. What the
examiner decides leaves the browser only as a file that the examiner saves.

A page cannot keep anybody from what it holds: that it blanks its images when its time is over is a courtesy, and the
file is deleted by retention.
"""

from __future__ import annotations

import base64
import html
import io
import json
import string
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

import infra
from connectors.image_decoder import DecodeLimits, decode_image
from processors.candidates import LEAD_NOTICE
from processors.refusals import Refusal
from schemas.events import FeatureFinding, ReviewConclusion

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from numpy.typing import NDArray

LONGEST_SIDE_PX = 1600
_QUALITY = 95
_MARK_SHARE = 0.006
_PROBE = "probe"

FINDINGS = {
    FeatureFinding.SIMILAR: "Similar",
    FeatureFinding.DISSIMILAR: "Dissimilar",
    FeatureFinding.NOT_COMPARABLE: "Not comp.",
}
CONCLUSIONS = {
    ReviewConclusion.STRONG_SUPPORT: "Strong support that both images show the same person",
    ReviewConclusion.SUPPORT: "Support that both images show the same person",
    ReviewConclusion.LIMITED_SUPPORT: "Limited support that both images show the same person",
    ReviewConclusion.INCONCLUSIVE: "Inconclusive: the images support neither",
    ReviewConclusion.EXCLUSION: "Exclusion: the images show different persons",
}
"""What a conclusion means, in words; in the order of the scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An image as the sheet shows it."""

    jpeg: bytes = field(repr=False)
    width_px: int
    """Of the image as it came, like the height."""
    height_px: int
    landmarks: tuple[tuple[float, float], ...] = ()
    """(x, y) of eyes, nose and corners of the mouth as shares of width and height; empty where they are not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetCandidate:
    """One candidate as the sheet shows it."""

    capture_id: UUID
    picture: Picture | None
    why_none: str = ""
    """Why there is no picture, in words."""
    taken_at: datetime | None = None
    rank: int
    """On the list; shown only with the score."""
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What one examiner is shown of one probe."""

    probe_id: UUID
    review_id: UUID
    examiner: str
    case_number: str
    expires_at: datetime
    probe: Picture
    candidates: tuple[SheetCandidate, ...]
    """In the order shown."""
    features: Sequence[str]
    """What is compared, in this order."""
    shows_scores: bool


def picture_of(photo: bytes, landmarks: NDArray[np.float64] | None = None) -> Picture | Refusal:
    """Code a photo anew, upright, its longer side at most 1600 px. `landmarks`: `(5, 2)`, shares of its sides."""
    pixels = decode_image(photo, DecodeLimits())
    if isinstance(pixels, Refusal):
        return pixels
    height_px, width_px = pixels.shape[:2]
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1]))
    image.thumbnail((LONGEST_SIDE_PX, LONGEST_SIDE_PX), Image.Resampling.LANCZOS)
    coded = io.BytesIO()
    # Colours at full resolution: what is compared is marks of the skin.
    image.save(coded, "JPEG", quality=_QUALITY, subsampling=0)
    points = () if landmarks is None else tuple((float(x), float(y)) for x, y in landmarks)
    return Picture(jpeg=coded.getvalue(), width_px=width_px, height_px=height_px, landmarks=points)


def render(sheet: Sheet) -> bytes:
    """Return the page; the same sheet gives the same bytes."""
    style, script = _resource("review_sheet.css"), _resource("review_sheet.js")
    pictures = {_PROBE: sheet.probe} | {
        str(each.capture_id): each.picture for each in sheet.candidates if each.picture is not None
    }
    page = string.Template(_resource("review_sheet.html")).substitute(
        policy=_content_security_policy(style, script),
        style=style,
        script=script,
        probe_short=str(sheet.probe_id)[:8],
        probe_id=sheet.probe_id,
        review_id=sheet.review_id,
        examiner=html.escape(sheet.examiner),
        case_number=html.escape(sheet.case_number),
        expires_at=sheet.expires_at.isoformat(),
        expires_text=f"{sheet.expires_at:%Y-%m-%d %H:%M} UTC",
        sections="\n".join(_section(sheet, number, each) for number, each in enumerate(sheet.candidates, start=1)),
        progress="".join(
            f'<li><button type="button" aria-label="Candidate {number}">{number}</button></li>'
            for number in range(1, len(sheet.candidates) + 1)
        ),
        pictures=json.dumps(
            {name: base64.b64encode(each.jpeg).decode("ascii") for name, each in pictures.items()}, indent=0
        ),
    )
    return page.encode()


def _resource(name: str) -> str:
    return files(infra).joinpath(name).read_text(encoding="utf-8")


def _content_security_policy(style: str, script: str) -> str:
    own = {
        name: f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode('ascii')}'"
        for name, text in (("style", style), ("script", script))
    }
    return (
        f"default-src 'none'; img-src data:; style-src {own['style']}; script-src {own['script']}; "
        "base-uri 'none'; form-action 'none'"
    )


def _section(sheet: Sheet, number: int, candidate: SheetCandidate) -> str:
    count = len(sheet.candidates)
    facts = [f"taken {candidate.taken_at:%Y-%m-%d}"] if candidate.taken_at else []
    if sheet.shows_scores:
        facts.append(f"rank {candidate.rank}, score {candidate.score:g}")
    of_sheet = html.escape(
        f"Probe {sheet.probe_id} · case {sheet.case_number} · examiner {sheet.examiner} · "
        f"sheet expires {sheet.expires_at:%Y-%m-%d %H:%M} UTC · capture {candidate.capture_id}"
    )
    has_landmarks = bool(sheet.probe.landmarks or (candidate.picture and candidate.picture.landmarks))
    return f"""<section class="candidate" data-capture="{candidate.capture_id}" aria-labelledby="h{number}">
<p class="notice" role="note">{html.escape(LEAD_NOTICE)}</p>
<p class="facts">{of_sheet}</p>
<div class="viewer">
<h2 id="h{number}">Candidate {number} of {count}<small>{html.escape(", ".join(facts))}</small></h2>
<div class="compare" tabindex="0" role="group" aria-label="Probe and candidate {number} side by side">
{_pane("Probe", _PROBE, sheet.probe, "")}
{_pane(f"Candidate {number}", str(candidate.capture_id), candidate.picture, candidate.why_none)}
</div>
{_tools(has_landmarks=has_landmarks)}
</div>
{_form(sheet.features, number)}
</section>"""


def _pane(title: str, name: str, picture: Picture | None, why_none: str) -> str:
    size = "" if picture is None else f" · {picture.width_px} × {picture.height_px} px"  # noqa: RUF001 - as sizes are written
    shown = (
        f'<p class="gone">{html.escape(why_none)}</p>'
        if picture is None
        else f'<div class="layer"><img data-picture="{html.escape(name)}" alt="{title}" draggable="false">'
        f"{_marks(picture)}</div>"
    )
    return (
        f'<figure class="pane"><figcaption><span><b>{title}</b>{size}</span>'
        f'<button type="button" data-do="flip" aria-pressed="false" aria-label="Mirror {title.lower()}">Mirror</button>'
        f'</figcaption><div class="frame">{shown}</div></figure>'
    )


def _marks(picture: Picture) -> str:
    if not picture.landmarks:
        return ""
    width, height = picture.width_px, picture.height_px
    radius = max(width, height) * _MARK_SHARE
    circles = "".join(
        f'<circle cx="{x * width:.1f}" cy="{y * height:.1f}" r="{radius:.1f}"/>' * 2 for x, y in picture.landmarks
    )
    return f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">{circles}</svg>'


def _tools(*, has_landmarks: bool) -> str:
    unavailable = "" if has_landmarks else " disabled"
    return f"""<div class="tools" role="toolbar" aria-label="View">
<button type="button" data-do="in" aria-label="Zoom in">Zoom +</button>
<button type="button" data-do="out" aria-label="Zoom out">Zoom &#8722;</button>
<button type="button" data-do="reset">Whole image</button>
<button type="button" data-do="together" aria-pressed="true">Move together</button>
<button type="button" data-do="landmarks" aria-pressed="false"{unavailable}>Landmarks</button>
<p class="keys">Wheel zooms, dragging moves. With the images in focus: <kbd>+</kbd> <kbd>-</kbd> <kbd>0</kbd> zoom,
arrows move, <kbd>p</kbd> <kbd>c</kbd> mirror probe or candidate, <kbd>s</kbd> together, <kbd>l</kbd> landmarks,
<kbd>,</kbd> <kbd>.</kbd> previous and next.</p>
</div>"""


def _form(features: Sequence[str], number: int) -> str:
    rows = "\n".join(_feature(feature, f"c{number}f{index}") for index, feature in enumerate(features))
    scale = "\n".join(
        f'<label><input type="radio" name="c{number}conclusion" value="{value}">{html.escape(text)}</label>'
        for value, text in CONCLUSIONS.items()
    )
    return f"""<form class="findings" autocomplete="off" aria-label="Findings on candidate {number}">
<fieldset><legend class="hint">Not comp.: the feature cannot be compared in these images.</legend>
<div class="first"><span class="label">Features</span>
<button type="button" data-do="rest">Rest: not comparable</button></div>
{rows}</fieldset>
<div><label class="label" for="c{number}limitations">Limitations</label>
<p class="hint">What limits the comparison: resolution, pose, light, expression, time between the images; or that
nothing does.</p>
<textarea id="c{number}limitations" name="limitations" rows="2" spellcheck="false" maxlength="4000"></textarea></div>
<fieldset class="conclusion"><legend>Conclusion</legend>
<p class="hint">An opinion on two images. It is not an identification and no ground for action by itself.</p>
{scale}</fieldset>
<div><label class="label" for="c{number}note">Remark</label>
<textarea id="c{number}note" name="note" rows="1" spellcheck="false" maxlength="4000"></textarea></div>
<p class="state" role="status"></p>
</form>"""


def _feature(feature: str, group: str) -> str:
    title = html.escape(in_words(feature))
    choices = "".join(
        f'<label><input type="radio" name="{group}" value="{value}" aria-label="{title}: {in_words(value).lower()}">'
        f"{text}</label>"
        for value, text in FINDINGS.items()
    )
    return (
        f'<div class="feature" data-feature="{html.escape(feature)}"><span>{title}</span>'
        f'<span class="choice" role="radiogroup" aria-label="{title}">{choices}</span>'
        f'<input type="text" aria-label="Note on {title}" placeholder="note" spellcheck="false" maxlength="1000"></div>'
    )


def in_words(name: str) -> str:
    """Return a name of the contract as people write it."""
    return name.replace("_", " ").capitalize()
