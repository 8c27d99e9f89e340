"""What a bureau asks of a photo: each bound at its edge, the words of a refusal, and what is no rule."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.extraction import ExtractedFace
from processors.policy import parse_policy
from processors.quality_rules import QualityRules, Use, judge_by_policy, parse_quality_rules
from processors.refusals import Refusal, RefusalCode
from processors.templates import to_template
from schemas.errors import ContractError

DEFAULT: dict[str, Any] = tomllib.loads(
    (Path(__file__).parents[2] / "infra" / "policy" / "default.toml").read_text(encoding="utf-8")
)
POLICY = parse_policy(DEFAULT)
GOOD = {
    "inter_eye_px": 70.0,
    "cropped_percent": 0.0,
    "yaw_deg": -3.0,
    "pitch_deg": 4.0,
    "roll_deg": -2.0,
    "sharpness": 0.6,
    "least_sharpness": 0.14,
    "underexposed_percent": 1.0,
    "overexposed_percent": 0.0,
    "dynamic_range_bits": 7.1,
    "unified_quality": 92.0,
}


def photo(**changes: float) -> ExtractedFace:
    return ExtractedFace(
        template=to_template(np.array([1.0, 0.0])),
        model_digest="ab" * 32,
        measurements=GOOD | changes,
        box_px=(0.0, 0.0, 1.0, 1.0),
    )


def refusal(rules: QualityRules, **changes: float) -> Refusal | None:
    judged = judge_by_policy(photo(**changes), rules, "2026.9")
    return judged if isinstance(judged, Refusal) else None


def test_a_good_photo_passes_as_it_is() -> None:
    good = photo()
    for rules in (POLICY.enrolment_quality, POLICY.probe_quality):
        assert judge_by_policy(good, rules, "2026.9") is good


@pytest.mark.parametrize(
    ("name", "allowed", "refused", "code", "advice"),
    [
        ("inter_eye_px", 20.0, 19.9, RefusalCode.FACE_TOO_SMALL, "closer"),
        ("cropped_percent", 5.0, 5.1, RefusalCode.FACE_CROPPED, "whole head"),
        ("yaw_deg", 30.0, 30.1, RefusalCode.POSE_TOO_FAR, "straight into the camera"),
        ("yaw_deg", -30.0, -30.1, RefusalCode.POSE_TOO_FAR, "straight into the camera"),
        ("pitch_deg", -30.0, -30.1, RefusalCode.POSE_TOO_FAR, "straight into the camera"),
        ("roll_deg", -30.0, -30.1, RefusalCode.POSE_TOO_FAR, "upright"),
        ("sharpness", 0.03, 0.029, RefusalCode.FACE_TOO_BLURRED, "in focus"),
        ("least_sharpness", 0.006, 0.0059, RefusalCode.FACE_TOO_BLURRED, "without motion"),
        ("underexposed_percent", 80.0, 80.1, RefusalCode.FACE_TOO_DARK, "more light"),
        ("overexposed_percent", 50.0, 50.1, RefusalCode.FACE_TOO_BRIGHT, "shorter exposure"),
        ("dynamic_range_bits", 4.0, 3.99, RefusalCode.CONTRAST_TOO_LOW, "even light"),
        ("unified_quality", 20.0, 19.9, RefusalCode.QUALITY_TOO_LOW, "another photo"),
    ],
)
def test_each_bound_of_an_enrolment_decides_at_its_edge_and_says_what_to_mend(
    name: str, allowed: float, refused: float, code: RefusalCode, advice: str
) -> None:
    assert refusal(POLICY.enrolment_quality, **{name: allowed}) is None
    found = refusal(POLICY.enrolment_quality, **{name: refused})
    assert found is not None
    assert found.code is code
    assert advice in found.message
    side = "minimum" if name in POLICY.enrolment_quality.minimum else "maximum"
    assert found.message.endswith(f"(Policy 2026.9: quality.enrolment.{side}.{name}.)")
    assert found.measurements[name] == refused


def test_a_refusal_says_what_was_measured_and_what_is_asked() -> None:
    found = refusal(POLICY.enrolment_quality, yaw_deg=-52.3)
    assert found is not None
    assert found.message == (
        "The head is turned about 52 degrees to the side, at most 30 are allowed: let the person look straight into "
        "the camera. (Policy 2026.9: quality.enrolment.maximum.yaw_deg.)"
    )


def test_measured_and_asked_are_told_apart_however_close_they_are() -> None:
    for yaw, words in ((30.4, "about 30.4 degrees to the side, at most 30.0"), (31.0, "about 31 degrees")):
        found = refusal(POLICY.enrolment_quality, yaw_deg=yaw)
        assert found is not None
        assert words in found.message


def test_everything_that_is_to_be_mended_is_said_at_once() -> None:
    found = refusal(POLICY.enrolment_quality, unified_quality=3.0, yaw_deg=60.0, sharpness=0.01)
    assert found is not None
    assert found.code is RefusalCode.POSE_TOO_FAR
    for words in (
        "60 degrees",
        "too blurred",
        "quality 3, 20 of 100 are needed",
        "maximum.yaw_deg, quality.enrolment.minimum.sharpness",
    ):
        assert words in found.message


@pytest.mark.parametrize(
    "changes", [{"yaw_deg": 60.0}, {"inter_eye_px": 18.0}, {"overexposed_percent": 90.0}, {"unified_quality": 5.0}]
)
def test_a_probe_may_be_worse_than_an_enrolment(changes: dict[str, float]) -> None:
    assert refusal(POLICY.enrolment_quality, **changes) is not None
    assert refusal(POLICY.probe_quality, **changes) is None


def test_a_probe_that_would_return_strangers_is_refused() -> None:
    found = refusal(POLICY.probe_quality, unified_quality=4.9)
    assert found is not None
    assert found.code is RefusalCode.QUALITY_TOO_LOW
    assert "quality.probe.minimum.unified_quality" in found.message


def test_what_was_refused_before_stays_refused_for_its_own_reason() -> None:
    before = Refusal(code=RefusalCode.NO_FACE, message="No face.")
    assert judge_by_policy(before, POLICY.enrolment_quality, "2026.9") is before


@settings(deadline=None)
@given(
    st.fixed_dictionaries({name: st.floats(0.0, 100.0) for name in GOOD}),
    st.sampled_from(sorted(GOOD)),
    st.floats(0.0, 100.0),
)
def test_a_better_photo_is_never_refused_where_a_worse_one_passes(
    found: dict[str, float], name: str, other: float
) -> None:
    rules = POLICY.enrolment_quality
    low, high = sorted([found[name], other])
    worse, better = (low, high) if name in rules.minimum else (high, low)
    if refusal(rules, **(found | {name: worse})) is None:
        assert refusal(rules, **(found | {name: better})) is None


def test_no_rule_at_all_is_a_rule_set_that_refuses_nothing() -> None:
    rules = parse_quality_rules({"minimum": {}, "maximum": {}}, Use.PROBE)
    assert refusal(rules, **dict.fromkeys(GOOD, 0.0)) is None


@pytest.mark.parametrize(
    ("side", "table"),
    [
        ("minimum", {"gender": 1.0}),
        ("minimum", {"yaw_deg": 30.0}),
        ("maximum", {"unified_quality": 30.0}),
        ("maximum", {"yaw_deg": -30.0}),
        ("maximum", {"yaw_deg": True}),
        ("maximum", {"yaw_deg": "30"}),
        ("maximum", {"yaw_deg": float("nan")}),
        ("maximum", {"yaw_deg": float("inf")}),
        ("maximum", []),
        ("maximum", None),
    ],
)
def test_a_bound_that_nobody_evaluates_or_that_is_no_number_is_no_policy(side: str, table: Any) -> None:
    document = copy.deepcopy(DEFAULT)
    document["quality"]["enrolment"][side] = table
    with pytest.raises(ContractError, match=r"quality\.enrolment"):
        parse_policy(document)


@pytest.mark.parametrize("use", ["enrolment", "probe"])
def test_both_sides_are_written_down_even_when_they_are_empty(use: str) -> None:
    document = copy.deepcopy(DEFAULT)
    del document["quality"][use]["maximum"]
    with pytest.raises(ContractError, match="must hold exactly"):
        parse_policy(document)
