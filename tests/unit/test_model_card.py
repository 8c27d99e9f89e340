from __future__ import annotations

import copy
import dataclasses
import math
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.model_card import PLAIN, model_digest, parse_model_card, published_threshold
from processors.score_meaning import expected_non_mates
from schemas.errors import ContractError

CARD_FILE = Path(__file__).parents[2] / "infra" / "models" / "sface-yunet.toml"
SHIPPED = sorted(CARD_FILE.parent.glob("*.toml"))
FIELDS: dict[str, Any] = tomllib.loads(CARD_FILE.read_text(encoding="utf-8"))


def _changed(path: str, value: object) -> dict[str, Any]:
    fields = copy.deepcopy(FIELDS)
    *tables, name = path.split(".")
    table = fields
    for step in tables:
        table = table[step]
    if value is None:
        del table[name]
    else:
        table[name] = value
    return fields


def test_the_default_card_says_everything() -> None:
    card = parse_model_card(FIELDS)
    assert card.recogniser.dimension == len(card.statistics.mean_template) == 128
    assert len(model_digest(card)) == 64


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("detector.file", None, r"detector\.file is missing"),
        ("detector.file", "../elsewhere.onnx", r"detector\.file has to be a file name without a folder"),
        ("detector.sha256", "ABC", r"detector\.sha256 has to be a SHA-256"),
        ("detector.sides_px", [320, 100], "100, which is no multiple of the stride 8"),
        (
            "detector.box_encoding",
            "corners",
            r"detector\.box_encoding has to be one of centre_log_size, edge_distances",
        ),
        ("detector.min_score", True, r"detector\.min_score has to be a number"),
        ("detector.input.mean", [0.0, 0.0], r"detector\.input\.mean has to be a list of 3 numbers"),
        ("detector.input.scale", float("nan"), r"detector\.input\.scale has to be a number"),
        ("alignment.points_px", [[1, 2]] * 4, r"alignment\.points_px has to be a list of 5 points"),
        ("alignment.points_px", [[1, 2, 3]] * 5, r"alignment\.points_px has to be a list of 5 points"),
        ("recogniser.dimension", 0, r"recogniser\.dimension has to be a positive whole number"),
        ("recogniser.metric", "euclidean", r"recogniser\.metric"),
        ("recipe.mirrored", 1, r"recipe\.mirrored has to be true or false"),
        ("recipe.second_look_px", 100, "recipe.second_look_px has 100, which is no multiple of the stride 8"),
        ("recipe.centre", [0.0] * 127, r"recipe\.centre has to be a list of 128 numbers"),
        ("recipe.crops", 4, r"unknown field\(s\) recipe\.crops"),
        ("statistics.mean_template", [0.0] * 127, r"statistics\.mean_template has to be a list of 128 numbers"),
        ("thresholds.at", [1], r"thresholds\.at has to be a list of tables"),
        ("quality.min_sharpnes", 1.0, r"unknown field\(s\) quality\.min_sharpnes"),
        ("quality", 1, "quality has to be a table"),
        ("quality.unified.per_face_score", -1.0, r"quality\.unified\.per_face_score has to be a number above 0"),
        ("quality.unified.weight", 1.0, r"unknown field\(s\) quality\.unified\.weight"),
    ],
)
def test_a_bad_card_is_refused_with_the_name_of_the_field(path: str, value: object, complaint: str) -> None:
    with pytest.raises(ContractError, match=complaint):
        parse_model_card(_changed(path, value))


@given(
    path=st.sampled_from(
        [f"{table}.{name}" for table in ("detector", "recogniser", "recipe", "quality") for name in FIELDS[table]]
    ),
    value=st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.lists(st.integers()), st.dates()),
)
def test_any_value_is_either_taken_or_refused(path: str, value: object) -> None:
    try:
        parse_model_card(_changed(path, value))
    except ContractError as error:
        assert "Model card" in str(error)  # noqa: PT017 - both endings are right, a third is not


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("detector.sha256", "0" * 64),
        ("detector.min_score", 0.5),
        ("detector.sides_px", [640]),
        ("alignment.crop_side_px", 96),
        ("recogniser.sha256", "0" * 64),
        ("recogniser.input.colour_order", "BGR"),
        ("recipe.mirrored", False),
        ("recipe.second_look_px", 320),
        ("recipe.second_look_px", None),
        ("recipe.centre", [0.0] * 128),
        ("recipe.centre", None),
    ],
)
def test_whatever_changes_a_template_changes_the_digest(path: str, value: object) -> None:
    assert model_digest(parse_model_card(_changed(path, value))) != model_digest(parse_model_card(FIELDS))


@pytest.mark.parametrize(
    ("path", "value"),
    [("name", "renamed"), ("detector.file", "renamed.onnx"), ("quality.min_sharpness", 0.5), ("licence", "another")],
)
def test_what_changes_no_template_keeps_the_digest(path: str, value: object) -> None:
    assert model_digest(parse_model_card(_changed(path, value))) == model_digest(parse_model_card(FIELDS))


def test_a_card_without_a_recipe_is_that_of_the_plain_one() -> None:
    without, spelled_out = _changed("recipe", None), _changed("recipe", {"mirrored": False})
    assert parse_model_card(without).recipe == PLAIN
    assert model_digest(parse_model_card(without)) == model_digest(parse_model_card(spelled_out))
    plain = parse_model_card(tomllib.loads(CARD_FILE.with_name("plain.toml").read_text(encoding="utf-8")))
    assert model_digest(parse_model_card(without)) == model_digest(plain)


def test_the_shipped_recipes_name_the_same_models_but_for_whole_numbers_and_no_two_cards_may_be_compared() -> None:
    cards = {path.stem: parse_model_card(tomllib.loads(path.read_text(encoding="utf-8"))) for path in SHIPPED}
    assert len({model_digest(card) for card in cards.values()}) == len(cards)
    default = cards["sface-yunet"]
    for name in ("fast", "plain"):
        assert (cards[name].detector, cards[name].alignment) == (default.detector, default.alignment)
    assert cards["plain"].recogniser == default.recogniser
    in_whole_numbers = cards["fast"].recogniser
    as_it_is = {"file": default.recogniser.file, "sha256": default.recogniser.sha256}
    assert in_whole_numbers.sha256 != default.recogniser.sha256
    assert replace(in_whole_numbers, **as_it_is) == default.recogniser


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_threshold_is_where_so_few_persons_who_are_not_enrolled_reach_it(path: Path) -> None:
    card = parse_model_card(tomllib.loads(path.read_text(encoding="utf-8")))
    for entry in card.thresholds.at:
        expected = expected_non_mates(entry.cosine, templates=entry.gallery_size, statistics=card.statistics)
        assert expected == pytest.approx(-math.log1p(-entry.fpir), rel=0.04)  # cosines are stated to three decimals


def test_a_larger_gallery_has_a_higher_threshold() -> None:
    card = parse_model_card(FIELDS)
    for fpir in (0.003, 0.01):
        stated = sorted((entry for entry in card.thresholds.at if entry.fpir == fpir), key=lambda e: e.gallery_size)
        cosines = [entry.cosine for entry in stated]
        assert len(cosines) > 1
        assert cosines == sorted(set(cosines))


def test_the_threshold_is_that_of_the_next_larger_stated_gallery() -> None:
    card = parse_model_card(FIELDS)
    assert published_threshold(card, gallery_size=10_006).gallery_size == 20_000
    assert published_threshold(card, gallery_size=20_000).gallery_size == 20_000
    assert published_threshold(card, gallery_size=20_001).gallery_size == 100_000


def test_no_threshold_is_made_up_for_a_gallery_larger_than_any_stated() -> None:
    card = parse_model_card(FIELDS)
    with pytest.raises(ContractError, match="measure one"):
        published_threshold(card, gallery_size=10**9)
    with pytest.raises(ContractError, match="measure one"):
        published_threshold(dataclasses.replace(card), gallery_size=1, fpir=0.5)
