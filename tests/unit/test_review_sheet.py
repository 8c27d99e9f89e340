"""A review sheet needs nothing beside it, shows nothing that sways the examiner and runs its own script alone."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest
from builders import uuid_named
from PIL import Image

from infra.review_sheet import CONCLUSIONS, LONGEST_SIDE_PX, Picture, Sheet, SheetCandidate, picture_of, render
from processors.candidates import LEAD_NOTICE
from processors.policy import read_policy
from processors.refusals import Refusal
from schemas.events import FeatureFinding, ReviewConclusion

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'&$style"
SECRETS = ("taken-by-gps", "Jane Roe")
POINTS = ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))
WITHOUT_END = {"meta", "img", "input", "br", "circle"}


def photo(width: int = 40, height: int = 60, *, turned: bool = False) -> bytes:
    """Return a JPEG whose upper half is white and which says in its metadata what is nobody's business."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[: height // 2] = 255
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = SECRETS
    exif[0x0112] = 3 if turned else 1
    coded = io.BytesIO()
    Image.fromarray(pixels).save(coded, "JPEG", exif=exif, comment=SECRETS[1].encode())
    return coded.getvalue()


def picture(data: bytes | None = None) -> Picture:
    made = picture_of(data or photo(), np.array(POINTS))
    assert isinstance(made, Picture)
    return made


DEFAULT = read_policy(files("infra").joinpath("policy", "default.toml").read_text(encoding="utf-8"))
SHEET = Sheet(
    probe_id=uuid_named("probe"),
    review_id=uuid_named("review"),
    examiner="j.doe",
    case_number="26-04711",
    expires_at=datetime(2026, 11, 24, 18, 0, tzinfo=UTC),
    probe=picture(),
    candidates=tuple(
        SheetCandidate(
            capture_id=uuid_named(f"capture {rank}"),
            picture=picture() if rank < 3 else None,
            why_none="" if rank < 3 else "No photo.",
            taken_at=datetime(2021, 3, 4, tzinfo=UTC),
            rank=rank + 770,
            score=0.987654 - rank / 1000,
        )
        for rank in (1, 2, 3)
    ),
    features=DEFAULT.reviews.features,
    shows_scores=False,
)


class Page(HTMLParser):
    """Every element with its attributes, its text, and the elements that it stands in."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str], list[int]]] = []
        self.texts: dict[int, str] = {}
        self._open: list[int] = []
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}, list(self._open)))
        if tag not in WITHOUT_END:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}, list(self._open)))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for number in self._open:
            self.texts[number] = self.texts.get(number, "") + data

    def found(self, tag: str, inside: int | None = None, **attributes: str) -> list[int]:
        """Return the elements of a kind, with these attributes, in another."""
        return [
            number
            for number, (name, has, around) in enumerate(self.elements)
            if name == tag
            and (inside is None or inside in around)
            and all(has.get(key.rstrip("_").replace("_", "-")) == value for key, value in attributes.items())
        ]

    def text(self, number: int) -> str:
        return self.texts.get(number, "")

    def attributes(self, number: int) -> dict[str, str]:
        return self.elements[number][1]

    @property
    def sections(self) -> list[int]:
        return self.found("section", class_="candidate")

    @property
    def policy(self) -> dict[str, list[str]]:
        (meta,) = self.found("meta", http_equiv="Content-Security-Policy")
        parts = [part.split() for part in self.attributes(meta)["content"].split(";")]
        return {part[0]: part[1:] for part in parts}


def digest_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"


def test_the_sheet_refers_to_nothing_beside_it() -> None:
    page = render(SHEET)
    found = Page(page)
    for tag, has, _ in found.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "audio", "video", "source", "a"}
        assert not {"src", "href", "srcset", "action", "formaction", "background", "ping", "style"} & set(has)
        assert not [name for name in has if name.startswith("on")]
    assert not re.search(rb"https?:|//[a-z0-9-]+\.[a-z]|url\(|@import", page)
    for way_out in (
        b"fetch(",
        b"XMLHttpRequest",
        b"WebSocket",
        b"sendBeacon",
        b"EventSource",
        b"localStorage",
        b"eval(",
    ):
        assert way_out not in page


def test_the_policy_of_the_page_admits_its_own_script_and_style_by_digest_and_images_that_stand_in_it() -> None:
    found = Page(render(SHEET))
    scripts = [each for each in found.found("script") if "type" not in found.attributes(each)]
    (script,), (style,) = scripts, found.found("style")
    assert found.policy == {
        "default-src": ["'none'"],
        "img-src": ["data:"],
        "style-src": [digest_of(found.text(style))],
        "script-src": [digest_of(found.text(script))],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }
    (meta,) = found.found("meta", http_equiv="Content-Security-Policy")
    assert meta < min(script, style)


def test_every_view_has_the_lead_notice_on_the_screen_and_on_paper() -> None:
    found = Page(render(SHEET))
    assert len(found.sections) == len(SHEET.candidates)
    for section in found.sections:
        (notice,) = found.found("p", inside=section, class_="notice")
        assert found.text(notice) == LEAD_NOTICE
    (style,) = found.found("style")
    hiding = re.findall(r"([^{}]+)\{[^{}]*(?:display: none|visibility: hidden|opacity: 0)[^{}]*\}", found.text(style))
    assert hiding
    assert not [selectors for selectors in hiding if "notice" in selectors or ".candidate:" in selectors]


def test_every_feature_of_the_policy_and_every_conclusion_can_be_chosen_for_every_candidate() -> None:
    found = Page(render(SHEET))
    assert set(CONCLUSIONS) == set(ReviewConclusion)
    for section, candidate in zip(found.sections, SHEET.candidates, strict=True):
        assert found.attributes(section)["data-capture"] == str(candidate.capture_id)
        rows = found.found("div", inside=section, class_="feature")
        assert [found.attributes(row)["data-feature"] for row in rows] == list(DEFAULT.reviews.features)
        for row in rows:
            choices = [found.attributes(each) for each in found.found("input", inside=row, type="radio")]
            assert [each["value"] for each in choices] == list(FeatureFinding)
            assert len({each["name"] for each in choices}) == 1
            assert all(each["aria-label"] for each in choices)
        (scale,) = found.found("fieldset", inside=section, class_="conclusion")
        values = [found.attributes(each)["value"] for each in found.found("input", inside=scale, type="radio")]
        assert values == list(ReviewConclusion)
        names = [found.attributes(each)["name"] for each in found.found("textarea", inside=section)]
        assert names == ["limitations", "note"]
    groups = [found.attributes(each)["name"] for each in found.found("input", type="radio")]
    assert len(set(groups)) == len(SHEET.candidates) * (len(DEFAULT.reviews.features) + 1)


def test_nothing_on_the_sheet_says_that_anybody_was_identified() -> None:
    assert not re.search(r"\bidentified|\bmatch(es|ed)?\b|\bhits?\b", render(SHEET).decode(), re.IGNORECASE)


def test_ranks_and_scores_are_on_the_sheet_only_where_the_policy_shows_them() -> None:
    """G8: what the machine thinks of a candidate sways the examiner."""
    assert not DEFAULT.reviews.shows_scores
    hidden, shown = render(SHEET).decode(), render(replace(SHEET, shows_scores=True)).decode()
    for candidate in SHEET.candidates:
        for said in (f"rank {candidate.rank}", f"{candidate.score:g}"):
            assert said not in hidden
            assert said in shown
    assert "score" not in hidden


@pytest.mark.parametrize("place", ["examiner", "case_number", "features", "why_none"])
def test_a_hostile_text_is_shown_and_not_run(place: str) -> None:
    """G12."""
    if place == "features":
        sheet = replace(SHEET, features=(HOSTILE, "EYES"))
    elif place == "why_none":
        sheet = replace(SHEET, candidates=(replace(SHEET.candidates[2], why_none=HOSTILE),))
    elif place == "examiner":
        sheet = replace(SHEET, examiner=HOSTILE)
    else:
        sheet = replace(SHEET, case_number=HOSTILE)
    found, usual = Page(render(sheet)), Page(render(SHEET))
    assert len(found.found("script")) == len(usual.found("script"))
    assert not [has for _, has, _ in found.elements if "onerror" in has]
    assert found.policy == usual.policy
    said = "".join(found.texts.values()) + "".join("".join(has.values()) for _, has, _ in found.elements)
    # A feature's name is written as people write it.
    assert HOSTILE.lower() in said.lower()


def test_images_are_coded_anew_upright_and_without_what_the_camera_wrote() -> None:
    data = photo(turned=True)
    assert all(secret.encode() in data for secret in SECRETS)
    made = picture(data)
    assert not any(secret.encode() in made.jpeg for secret in SECRETS)
    with Image.open(io.BytesIO(made.jpeg)) as opened:
        assert not opened.getexif()
        assert "comment" not in opened.info
        assert opened.getpixel((20, 5)) == (0, 0, 0)
        assert opened.size == (made.width_px, made.height_px) == (40, 60)


def test_a_large_image_is_shown_smaller_and_says_how_large_it_is() -> None:
    made = picture(photo(4000, 2000))
    with Image.open(io.BytesIO(made.jpeg)) as opened:
        assert opened.size == (LONGEST_SIDE_PX, LONGEST_SIDE_PX // 2)
    assert (made.width_px, made.height_px) == (4000, 2000)
    assert isinstance(picture_of(b"no image"), Refusal)


def test_images_appear_by_the_script_alone_so_that_it_can_take_them_away_again() -> None:
    found = Page(render(SHEET))
    (store,) = found.found("script", id="pictures")
    pictures = json.loads(found.text(store))
    shown = [found.attributes(each)["data-picture"] for each in found.found("img")]
    assert set(shown) == set(pictures) == {"probe", *(str(each.capture_id) for each in SHEET.candidates[:2])}
    assert base64.b64decode(pictures["probe"]) == SHEET.probe.jpeg
    (body,) = found.found("body")
    assert datetime.fromisoformat(found.attributes(body)["data-expires"]) == SHEET.expires_at
    assert "No photo." in found.text(found.sections[2])


def test_landmarks_are_off_and_can_be_shown_where_they_are_known() -> None:
    found = Page(render(SHEET))
    assert len(found.found("svg")) == 5
    assert not [has for _, has, _ in found.elements if "marked" in has.get("class", "").split()]
    without = replace(SHEET, probe=replace(SHEET.probe, landmarks=()), candidates=SHEET.candidates[2:])
    found = Page(render(without))
    (button,) = found.found("button", data_do="landmarks")
    assert "disabled" in found.attributes(button)
    assert not found.found("svg")


def test_the_same_sheet_has_the_same_bytes() -> None:
    """The digest of the sheet is in the audit trail."""
    assert render(SHEET) == render(replace(SHEET))
