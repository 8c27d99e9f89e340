"""The model card: everything that is needed to run a pack of models, as frozen values.

What it is for: an agency mounts its own detector and recogniser by writing a card, without a code change. The card says
how to feed each model, how to read its answer, which photos are good enough, and what its scores are worth. What it is
not: a reader of files; the TOML becomes a dictionary at the edge (`infra/assets.py`) and this module only judges it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from schemas.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Mapping

EXTRACTION_VERSION = 2
"""Raised whenever the code between photo and template changes what comes out: such templates must not be compared."""

FACE_POINTS = 5
_SHA256 = re.compile(r"[0-9a-f]{64}")

Choice = TypeVar("Choice", bound=StrEnum)
Point = tuple[float, float]


class ColourOrder(StrEnum):
    """In which order a model wants the three colour planes."""

    BGR = "BGR"
    RGB = "RGB"


class Layout(StrEnum):
    """Which axis of a model's input holds the colours."""

    NCHW = "NCHW"
    NHWC = "NHWC"


class BoxEncoding(StrEnum):
    """How a detector writes a box and its points, relative to the anchor at (column, row), in strides.

    CENTRE_LOG_SIZE: centre = anchor + (b0, b1), size = exp(b2, b3) (YuNet).
    EDGE_DISTANCES: left, top, right, bottom edges lie b0..b3 away from the anchor (FCOS, SCRFD).
    Points are offsets from the anchor in both.
    """

    CENTRE_LOG_SIZE = "centre_log_size"
    EDGE_DISTANCES = "edge_distances"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInput:
    """How to feed a model: `(pixel - mean) * scale`, a plane each in `colour_order`, float32."""

    name: str
    layout: Layout
    colour_order: ColourOrder
    mean: tuple[float, float, float]
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorCard:
    """How to run the detector and read its answer.

    `score_outputs`, `box_output` and `points_output` name the outputs with `{stride}` in place of the stride; a face's
    score is the geometric mean of its score outputs. `sides_px`: squares to try one after the other, until one shows a
    face.
    """

    file: str
    sha256: str
    input: ModelInput
    sides_px: tuple[int, ...]
    strides: tuple[int, ...]
    anchors_per_cell: int
    score_outputs: tuple[str, ...]
    box_output: str
    points_output: str
    box_encoding: BoxEncoding
    min_score: float
    max_overlap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignmentCard:
    """Where the five points (image-left eye, image-right eye, nose, mouth corners) land in the square crop."""

    crop_side_px: int
    points_px: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecogniserCard:
    """How to run the recogniser; its answer is L2-normalised and compared by cosine."""

    file: str
    sha256: str
    input: ModelInput
    output_name: str
    dimension: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeCard:
    """How one template comes out of one face: the sum of the recogniser's vectors of several crops, less a centre.

    docs/accuracy.md says what each part costs and buys. A card without a recipe has the plain one: one crop, nothing
    subtracted.
    """

    mirrored: bool = False
    """Each crop is also embedded mirrored."""
    second_look_px: int | None = None
    """Side of the square in which the face that was found is looked for again, for a second crop; None: one crop."""
    centre: tuple[float, ...] | None = None
    """(d,) subtracted from the sum once that has length 1, before the rest gets length 1 again."""


PLAIN = RecipeCard()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnifiedQualityCard:
    """How the one score that predicts errors follows from what the two models say of a photo (a logistic).

    `face_score_per_halving` is by how much the detector's score falls when a face takes half as much of the photo's
    side. `vector_length` is that of the recogniser's answer before it is normalised. Both coefficients are positive, so
    that a better answer never lowers the score.
    """

    bias: float
    per_face_score: float
    face_score_per_halving: float
    per_vector_length: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityCard:
    """What the models cannot do below; what a bureau asks beyond that is its policy.

    A second face counts as a second person when its box is at least `second_face_min_ratio` times as wide as the
    largest. `unified` is None where nobody has measured it for the pack.
    """

    min_inter_eye_px: float
    min_sharpness: float
    second_face_min_ratio: float
    unified: UnifiedQualityCard | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsCard:
    """What was measured with this pack: cosine of different persons and of the same person, and the mean template.

    `tail_sd`: the standard deviation that a Gaussian round `non_mated_mean` has to have to be right about the highest
    scores of different persons (`processors/score_meaning.py`); None where nobody measured it.
    """

    measured_on: str
    non_mated_mean: float
    non_mated_sd: float
    mated_mean: float
    mated_sd: float
    mean_template: tuple[float, ...]
    tail_sd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdCard:
    """The cosine that, in a gallery of that size, lets a person who is not enrolled through with probability `fpir`."""

    gallery_size: int
    fpir: float
    cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdsCard:
    """The published thresholds, how they were obtained, and the list length they were stated for."""

    obtained_by: str
    list_length: int
    at: tuple[ThresholdCard, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """A pack of models and all that is needed to run it."""

    name: str
    version: str
    description: str
    licence: str
    source: str
    detector: DetectorCard
    alignment: AlignmentCard
    recogniser: RecogniserCard
    recipe: RecipeCard
    quality: QualityCard
    statistics: StatisticsCard
    thresholds: ThresholdsCard


def parse_model_card(fields: Mapping[str, object]) -> ModelCard:
    """Judge a card as read from TOML.

    Raises:
        ContractError: a field is missing, unknown or wrong; the text names it and says what is expected.
    """
    root = _Table("", fields)
    detector = _parse_detector(root.table("detector"))
    recogniser = _parse_recogniser(root.table("recogniser"))
    recipe = _parse_recipe(root.table("recipe"), detector, recogniser) if root.has("recipe") else PLAIN
    card = ModelCard(
        name=root.text("name"),
        version=root.text("version"),
        description=root.text("description"),
        licence=root.text("licence"),
        source=root.text("source"),
        detector=detector,
        alignment=_parse_alignment(root.table("alignment")),
        recogniser=recogniser,
        recipe=recipe,
        quality=_parse_quality(root.table("quality")),
        statistics=_parse_statistics(root.table("statistics"), dimension=recogniser.dimension),
        thresholds=_parse_thresholds(root.table("thresholds")),
    )
    root.close()
    return card


def card_to_json(card: ModelCard) -> str:
    """Write a card so that `parse_model_card` makes the same of what `json.loads` gives."""
    fields = asdict(card)
    fields["recogniser"] |= {"normalisation": "l2", "metric": "cosine"}
    return json.dumps(_without_none(fields), allow_nan=False)


def _without_none(fields: dict[str, object]) -> dict[str, object]:
    return {
        name: _without_none(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if value is not None
    }


def model_digest(card: ModelCard) -> str:
    """Return the SHA-256 (hex) over the pack's files and the recipe: equal digests, and only they, are comparable.

    Names of files, quality bounds, statistics and thresholds do not change a template and are left out. So is the plain
    recipe: whether a card spells it out changes nothing.
    """
    parts: dict[str, object] = {
        "extraction_version": EXTRACTION_VERSION,
        "detector": _without_file(asdict(card.detector)),
        "alignment": asdict(card.alignment),
        "recogniser": _without_file(asdict(card.recogniser)),
    }
    if card.recipe != PLAIN:
        parts["recipe"] = asdict(card.recipe)
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _without_file(part: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in part.items() if name != "file"}


def published_threshold(card: ModelCard, *, gallery_size: int, fpir: float = 0.003) -> ThresholdCard:
    """Return the card's threshold for the smallest stated gallery at least as large as `gallery_size`.

    Raises:
        ContractError: the card states none for a gallery of that size.
    """
    fitting = [entry for entry in card.thresholds.at if entry.fpir == fpir and entry.gallery_size >= gallery_size]
    if not fitting:
        raise ContractError(
            f"Model card {card.name} states no threshold for FPIR {fpir} and {gallery_size} templates: "
            "measure one and add it to [thresholds]."
        )
    return min(fitting, key=lambda entry: entry.gallery_size)


def _parse_input(table: _Table) -> ModelInput:
    mean = table.numbers("mean", count=3)
    parsed = ModelInput(
        name=table.text("name"),
        layout=table.choice("layout", Layout),
        colour_order=table.choice("colour_order", ColourOrder),
        mean=(mean[0], mean[1], mean[2]),
        scale=table.number("scale", above=0.0),
    )
    table.close()
    return parsed


def _parse_detector(table: _Table) -> DetectorCard:
    detector = DetectorCard(
        file=table.file_name("file"),
        sha256=table.sha256("sha256"),
        input=_parse_input(table.table("input")),
        sides_px=table.integers("sides_px"),
        strides=table.integers("strides"),
        anchors_per_cell=table.integer("anchors_per_cell"),
        score_outputs=table.texts("score_outputs"),
        box_output=table.text("box_output"),
        points_output=table.text("points_output"),
        box_encoding=table.choice("box_encoding", BoxEncoding),
        min_score=table.number("min_score", above=0.0, up_to=1.0),
        max_overlap=table.number("max_overlap", above=0.0, up_to=1.0),
    )
    table.close()
    for side in detector.sides_px:
        _check_side("detector.sides_px", side, detector.strides)
    return detector


def _check_side(name: str, side: int, strides: tuple[int, ...]) -> None:
    for stride in strides:
        if side % stride:
            raise ContractError(f"Model card: {name} has {side}, which is no multiple of the stride {stride}.")


def _parse_alignment(table: _Table) -> AlignmentCard:
    flat = table.points("points_px", count=FACE_POINTS)
    alignment = AlignmentCard(crop_side_px=table.integer("crop_side_px"), points_px=flat)
    table.close()
    return alignment


def _parse_recogniser(table: _Table) -> RecogniserCard:
    recogniser = RecogniserCard(
        file=table.file_name("file"),
        sha256=table.sha256("sha256"),
        input=_parse_input(table.table("input")),
        output_name=table.text("output_name"),
        dimension=table.integer("dimension"),
    )
    if table.text("normalisation") != "l2" or table.text("metric") != "cosine":
        raise ContractError(
            'Model card: recogniser.normalisation has to be "l2" and recogniser.metric "cosine"; '
            "no other comparison is known."
        )
    table.close()
    return recogniser


def _parse_recipe(table: _Table, detector: DetectorCard, recogniser: RecogniserCard) -> RecipeCard:
    recipe = RecipeCard(
        mirrored=table.flag("mirrored") if table.has("mirrored") else PLAIN.mirrored,
        second_look_px=table.integer("second_look_px") if table.has("second_look_px") else PLAIN.second_look_px,
        centre=table.numbers("centre", count=recogniser.dimension) if table.has("centre") else PLAIN.centre,
    )
    table.close()
    if recipe.second_look_px is not None:
        _check_side("recipe.second_look_px", recipe.second_look_px, detector.strides)
    return recipe


def _parse_quality(table: _Table) -> QualityCard:
    quality = QualityCard(
        min_inter_eye_px=table.number("min_inter_eye_px", above=0.0),
        min_sharpness=table.number("min_sharpness", above=0.0),
        second_face_min_ratio=table.number("second_face_min_ratio", above=0.0, up_to=1.0),
        unified=_parse_unified(table.table("unified")) if table.has("unified") else None,
    )
    table.close()
    return quality


def _parse_unified(table: _Table) -> UnifiedQualityCard:
    unified = UnifiedQualityCard(
        bias=table.number("bias", above=-math.inf),
        per_face_score=table.number("per_face_score", above=0.0),
        face_score_per_halving=table.number("face_score_per_halving", above=-1.0, up_to=1.0),
        per_vector_length=table.number("per_vector_length", above=0.0),
    )
    table.close()
    return unified


def _parse_statistics(table: _Table, *, dimension: int) -> StatisticsCard:
    statistics = StatisticsCard(
        measured_on=table.text("measured_on"),
        non_mated_mean=table.number("non_mated_mean", above=-1.0, up_to=1.0),
        non_mated_sd=table.number("non_mated_sd", above=0.0, up_to=1.0),
        mated_mean=table.number("mated_mean", above=-1.0, up_to=1.0),
        mated_sd=table.number("mated_sd", above=0.0, up_to=1.0),
        mean_template=table.numbers("mean_template", count=dimension),
        tail_sd=table.number("tail_sd", above=0.0, up_to=1.0) if table.has("tail_sd") else None,
    )
    table.close()
    return statistics


def _parse_thresholds(table: _Table) -> ThresholdsCard:
    thresholds = ThresholdsCard(
        obtained_by=table.text("obtained_by"),
        list_length=table.integer("list_length"),
        at=tuple(_parse_threshold(entry) for entry in table.tables("at")),
    )
    table.close()
    return thresholds


def _parse_threshold(table: _Table) -> ThresholdCard:
    threshold = ThresholdCard(
        gallery_size=table.integer("gallery_size"),
        fpir=table.number("fpir", above=0.0, up_to=1.0),
        cosine=table.number("cosine", above=-1.0, up_to=1.0),
    )
    table.close()
    return threshold


class _Table:
    """A table of the card: hands out fields once, checked, and knows their full names for the error text."""

    def __init__(self, path: str, fields: Mapping[str, object]) -> None:
        self._path = path
        self._left = dict(fields)

    def close(self) -> None:
        if self._left:
            names = ", ".join(sorted(self._path + name for name in self._left))
            raise ContractError(f"Model card: unknown field(s) {names}; remove or correct them.")

    def has(self, name: str) -> bool:
        return name in self._left

    def table(self, name: str) -> _Table:
        value = self._take(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "a table")
        return _Table(f"{self._path}{name}.", value)

    def tables(self, name: str) -> list[_Table]:
        values = self._list(name, "a list of tables")
        if not all(isinstance(value, dict) for value in values):
            raise self._wrong(name, "a list of tables")
        return [
            _Table(f"{self._path}{name}[{index}].", value)
            for index, value in enumerate(values)
            if isinstance(value, dict)
        ]

    def text(self, name: str) -> str:
        value = self._take(name)
        if not isinstance(value, str) or not value.strip():
            raise self._wrong(name, "a text")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        values = self._list(name, "a list of texts")
        if not values or not all(isinstance(value, str) and value for value in values):
            raise self._wrong(name, "a list of texts")
        return tuple(str(value) for value in values)

    def file_name(self, name: str) -> str:
        value = self.text(name)
        if "/" in value or "\\" in value or value in {".", ".."}:
            raise self._wrong(name, "a file name without a folder")
        return value

    def sha256(self, name: str) -> str:
        value = self.text(name)
        if not _SHA256.fullmatch(value):
            raise self._wrong(name, "a SHA-256 in 64 lower-case hexadecimal digits")
        return value

    def choice(self, name: str, kind: type[Choice]) -> Choice:
        value = self.text(name)
        try:
            return kind(value)
        except ValueError:
            raise self._wrong(name, "one of " + ", ".join(kind)) from None

    def flag(self, name: str) -> bool:
        value = self._take(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def integer(self, name: str) -> int:
        value = self._take(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self._wrong(name, "a positive whole number")
        return value

    def integers(self, name: str) -> tuple[int, ...]:
        values = self._list(name, "a list of positive whole numbers")
        whole = [value for value in values if isinstance(value, int) and not isinstance(value, bool) and value > 0]
        if not values or len(whole) != len(values):
            raise self._wrong(name, "a list of positive whole numbers")
        return tuple(whole)

    def number(self, name: str, *, above: float, up_to: float = math.inf) -> float:
        value = _finite(self._take(name))
        if value is None or not above < value <= up_to:
            raise self._wrong(name, f"a number above {above:g}" + (f", at most {up_to:g}" if up_to < math.inf else ""))
        return value

    def numbers(self, name: str, *, count: int) -> tuple[float, ...]:
        values = [_finite(value) for value in self._list(name, f"a list of {count} numbers")]
        finite = tuple(value for value in values if value is not None)
        if len(values) != count or len(finite) != count:
            raise self._wrong(name, f"a list of {count} numbers")
        return finite

    def points(self, name: str, *, count: int) -> tuple[Point, ...]:
        expected = f"a list of {count} points [x, y]"
        points = []
        for pair in self._list(name, expected):
            numbers = [_finite(value) for value in pair] if isinstance(pair, list) else []
            match numbers:
                case [float(x), float(y)]:
                    points.append((x, y))
                case _:
                    raise self._wrong(name, expected)
        if len(points) != count:
            raise self._wrong(name, expected)
        return tuple(points)

    def _take(self, name: str) -> object:
        if name not in self._left:
            raise ContractError(f"Model card: {self._path}{name} is missing.")
        return self._left.pop(name)

    def _list(self, name: str, expected: str) -> list[object]:
        value = self._take(name)
        if not isinstance(value, list):
            raise self._wrong(name, expected)
        return value

    def _wrong(self, name: str, expected: str) -> ContractError:
        return ContractError(f"Model card: {self._path}{name} has to be {expected}.")


def _finite(value: object) -> float | None:
    """Return a number as a float, or None if it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
