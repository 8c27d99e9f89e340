"""What is measured of a face, on faces made of points and crops made of noise: each measure moves with its cause."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.detection import Face
from processors.model_card import AlignmentCard, QualityCard, UnifiedQualityCard
from processors.quality import in_words, judge_face_count, judge_measurements, measure_face, unified_quality
from processors.refusals import RefusalCode

if TYPE_CHECKING:
    from numpy.typing import NDArray

CARD = QualityCard(min_inter_eye_px=18.0, min_sharpness=0.02, second_face_min_ratio=0.5)
POINTS = np.array([[40.0, 50.0], [80.0, 50.0], [60.0, 70.0], [45.0, 90.0], [75.0, 90.0]])
GOOD = {"inter_eye_px": 40.0, "sharpness": 0.5}
UNIFIED = UnifiedQualityCard(bias=-35.0, per_face_score=30.0, face_score_per_halving=0.017, per_vector_length=0.8)
TARGET = ((38.3, 51.7), (73.5, 51.5), (56.0, 71.7), (41.5, 92.4), (70.7, 92.2))
ALIGNMENT = AlignmentCard(crop_side_px=112, points_px=TARGET)
PHOTO = (480, 600)


def _face(width: float = 100.0, points: NDArray[np.float64] = POINTS) -> Face:
    return Face(box_px=(0.0, 0.0, width, width * 1.2), points_px=points, score=0.95)


def _noise(seed: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (112, 112, 3)).astype(np.uint8)


def _measured(face: Face, crop: NDArray[np.uint8], *, photo: tuple[int, int] = PHOTO) -> dict[str, float]:
    return measure_face([face], crop, ALIGNMENT, photo)


def _smooth(crop: NDArray[Any], times: int) -> NDArray[np.uint8]:
    soft = crop.astype(np.float64)
    for _ in range(times):
        soft = (soft + np.roll(soft, 1, 0) + np.roll(soft, 1, 1) + np.roll(soft, -1, 0) + np.roll(soft, -1, 1)) / 5
    low, high = soft.min(), soft.max()
    stretched: NDArray[np.uint8] = ((soft - low) / (high - low) * 255).astype(np.uint8)
    return stretched


def test_no_face_is_refused_with_advice() -> None:
    refusal = judge_face_count([], CARD)
    assert refusal is not None
    assert refusal.code is RefusalCode.NO_FACE
    assert "frontal photo" in refusal.message


def test_one_face_is_accepted() -> None:
    assert judge_face_count([_face()], CARD) is None


@pytest.mark.parametrize(("second_width", "refused"), [(100.0, True), (50.0, True), (49.0, False), (5.0, False)])
def test_a_second_person_is_refused_and_a_face_in_the_background_is_not(second_width: float, *, refused: bool) -> None:
    refusal = judge_face_count([_face(100.0), _face(second_width)], CARD)
    assert (refusal is not None) is refused
    if refusal is not None:
        assert refusal.code is RefusalCode.SEVERAL_FACES
        assert refusal.measurements["face_count"] == 2.0


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (GOOD, None),
        (GOOD | {"inter_eye_px": 17.9}, RefusalCode.FACE_TOO_SMALL),
        (GOOD | {"inter_eye_px": 18.0}, None),
        (GOOD | {"sharpness": 0.019}, RefusalCode.FACE_TOO_BLURRED),
        (GOOD | {"sharpness": 0.02}, None),
        (GOOD | {"inter_eye_px": 3.0, "sharpness": 0.0}, RefusalCode.FACE_TOO_SMALL),
    ],
)
def test_the_bounds_of_the_card_decide(found: dict[str, float], code: RefusalCode | None) -> None:
    refusal = judge_measurements(found, CARD)
    assert (refusal.code if refusal else None) == code
    if refusal is not None:
        assert refusal.measurements == found


def test_blur_lowers_sharpness_step_by_step() -> None:
    steps = [_measured(_face(), _smooth(_noise(), times))["sharpness"] for times in (1, 3, 9, 27, 81)]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] < 0.02 < steps[0]


@settings(deadline=None)
@given(factor=st.floats(0.3, 0.9))
def test_a_flat_photo_is_not_called_blurred(factor: float) -> None:
    crop = _smooth(_noise(), 2)
    flat = (crop * factor).astype(np.uint8)
    full, faint = (_measured(_face(), one) for one in (crop, flat))
    assert faint["sharpness"] == pytest.approx(full["sharpness"], rel=0.05)
    assert faint["contrast"] < full["contrast"]


def test_a_crop_of_one_colour_is_as_unsharp_as_can_be() -> None:
    found = _measured(_face(), np.full((112, 112, 3), 90, dtype=np.uint8))
    assert found["sharpness"] == pytest.approx(0.0, abs=1e-9)
    assert found["brightness"] == pytest.approx(90.0)


def test_an_upright_frontal_face_has_no_roll_and_no_yaw() -> None:
    found = _measured(_face(), _noise())
    assert found["inter_eye_px"] == 40.0
    assert found["roll_deg"] == pytest.approx(0.0)
    assert found["yaw_deg"] == pytest.approx(0.0)


@settings(deadline=None)
@given(st.floats(-60, 60))
def test_turning_the_photo_turns_the_roll_alone(angle_deg: float) -> None:
    angle = np.radians(angle_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found = _measured(_face(points=POINTS @ turn.T), _noise())
    assert found["roll_deg"] == pytest.approx(angle_deg, abs=1e-6)
    assert found["yaw_deg"] == pytest.approx(0.0, abs=1e-6)


def test_a_nose_to_image_right_is_a_positive_yaw() -> None:
    turned = POINTS.copy()
    turned[2, 0] += 8.0
    assert _measured(_face(points=turned), _noise())["yaw_deg"] > 10.0


def test_a_nose_that_sinks_towards_the_mouth_is_a_positive_pitch() -> None:
    level = _measured(_face(), _noise())["pitch_deg"]
    bowed = POINTS.copy()
    bowed[2, 1] += 6.0
    raised = POINTS.copy()
    raised[2, 1] -= 6.0
    pitches = [_measured(_face(points=points), _noise())["pitch_deg"] for points in (raised, bowed)]
    assert pitches[0] < level - 10.0 < level + 10.0 < pitches[1]


@settings(deadline=None)
@given(angle_deg=st.floats(-60, 60), size=st.floats(0.2, 20.0))
def test_neither_turn_nor_size_of_the_photo_changes_yaw_and_pitch(angle_deg: float, size: float) -> None:
    angle = np.radians(angle_deg)
    turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    as_taken, turned = (_measured(_face(points=points), _noise()) for points in (POINTS, POINTS @ turn.T))
    for name in ("yaw_deg", "pitch_deg"):
        assert turned[name] == pytest.approx(as_taken[name], abs=1e-6)


def test_motion_along_any_direction_lowers_the_least_sharpness() -> None:
    crop = _smooth(_noise(), 2)
    still = _measured(_face(), crop)["least_sharpness"]
    for step in ((0, 1), (1, 0), (1, 1), (1, -1)):
        smear = np.mean([np.roll(crop, (step[0] * k, step[1] * k), (0, 1)) for k in range(-5, 6)], axis=0)
        assert _measured(_face(), smear.astype(np.uint8))["least_sharpness"] < still / 2.0, step


def test_darkening_moves_under_exposure_and_range_and_not_over_exposure() -> None:
    steps = [_measured(_face(), (_noise() * gain).astype(np.uint8)) for gain in (1.0, 0.5, 0.2, 0.08)]
    dark = [found["underexposed_percent"] for found in steps]
    bits = [found["dynamic_range_bits"] for found in steps]
    assert dark == sorted(dark)
    assert dark[0] < 5.0
    assert dark[-1] > 95.0
    assert bits == sorted(bits, reverse=True)
    assert {found["overexposed_percent"] for found in steps[1:]} == {0.0}
    qualities = [found["under_exposure_prevention_quality"] for found in steps]
    assert qualities == sorted(qualities, reverse=True)


def test_brightening_moves_over_exposure_and_not_under_exposure() -> None:
    soft = _smooth(_noise(), 2)
    steps = [_measured(_face(), np.clip(soft * gain, 0, 255).astype(np.uint8)) for gain in (1.0, 1.5, 2.5, 4.0)]
    bright = [found["overexposed_percent"] for found in steps]
    assert bright == sorted(bright)
    assert bright[-1] > 50.0 > bright[0]
    dark = [found["underexposed_percent"] for found in steps]
    assert dark == sorted(dark, reverse=True)


def test_a_photo_of_two_grey_levels_has_one_bit_and_of_one_level_none() -> None:
    halves = np.zeros((112, 112, 3), dtype=np.uint8)
    halves[:, 56:] = 200
    assert _measured(_face(), halves)["dynamic_range_bits"] == pytest.approx(1.0, abs=0.01)
    assert _measured(_face(), np.zeros_like(halves))["dynamic_range_bits"] == 0.0


def test_a_face_that_runs_out_of_the_photo_is_cropped_more_and_more() -> None:
    steps = []
    for left in (0.0, 25.0, 35.0, 45.0):
        shifted = POINTS - [left, 0.0]
        steps.append(_measured(_face(points=shifted), _noise()))
    cropped = [found["cropped_percent"] for found in steps]
    assert cropped[0] == 0.0
    assert cropped[1:] == sorted(set(cropped[1:]))
    assert cropped[-1] > 20.0
    sides = [found["leftward_crop_quality"] for found in steps]
    assert sides == sorted(sides, reverse=True)


def test_what_lies_beyond_the_photo_is_not_called_dark() -> None:
    crop = np.full((112, 112, 3), 120, dtype=np.uint8)
    whole = _measured(_face(), crop)
    beyond = _measured(_face(points=POINTS - [45.0, 0.0]), np.where(np.arange(112)[None, :, None] < 56, 0, crop))
    assert beyond["cropped_percent"] > 20.0
    assert beyond["underexposed_percent"] < 40.0
    assert whole["underexposed_percent"] == 0.0


def test_margins_are_counted_in_eye_distances_from_the_eyes_to_the_edges() -> None:
    found = _measured(_face(), _noise(), photo=(200, 210))
    assert (found["margin_left_ied"], found["margin_right_ied"]) == (1.0, 3.0)
    assert (found["margin_above_ied"], found["margin_below_ied"]) == (1.25, 4.0)


def test_a_second_face_lowers_single_face_present_by_its_area() -> None:
    found = measure_face([_face(100.0), _face(30.0)], _noise(), ALIGNMENT, PHOTO)
    assert (found["face_count"], found["second_face_ratio"]) == (2.0, 0.3)
    assert found["single_face_present_quality"] == pytest.approx(91.0)
    alone = _measured(_face(100.0), _noise())
    assert (alone["face_count"], alone["single_face_present_quality"]) == (1.0, 100.0)


def test_more_pixels_than_the_model_looks_at_are_no_better() -> None:
    sizes = [
        _measured(_face(points=POINTS * size), _noise())["inter_eye_distance_quality"] for size in (0.2, 0.6, 1.0, 9.0)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < 25.0
    assert sizes[2:] == [100.0, 100.0]


COORDINATE = st.floats(-1e9, 1e9)


@settings(deadline=None)
@given(
    points=st.lists(st.tuples(COORDINATE, COORDINATE), min_size=5, max_size=5),
    widths=st.lists(st.floats(0.0, 1e9), min_size=1, max_size=3),
    score=st.floats(0.0, 1.0),
    length=st.floats(0.0, 1e30),
    grey=st.integers(0, 255),
    photo=st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)),
)
def test_whatever_the_detector_says_is_finite_and_components_are_0_to_100_g12(
    points: list[tuple[float, float]],
    widths: list[float],
    score: float,
    length: float,
    grey: int,
    photo: tuple[int, int],
) -> None:
    faces = [
        Face(box_px=(0.0, 0.0, width, width), points_px=np.array(points), score=score)
        for width in sorted(widths, reverse=True)
    ]
    found = measure_face(faces, np.full((112, 112, 3), grey, dtype=np.uint8), ALIGNMENT, photo)
    found["unified_quality"] = unified_quality(found | {"vector_length": length}, UNIFIED)
    assert all(math.isfinite(value) for value in found.values())
    for name, value in found.items():
        if name.endswith(("_quality", "_percent")):
            assert 0.0 <= value <= 100.0, name


def _unified(*, score: float = 0.9, length: float = 12.0, share: float = 100.0) -> float:
    return unified_quality({"face_score": score, "vector_length": length, "face_share_percent": share}, UNIFIED)


def test_the_unified_score_rises_with_what_either_model_says() -> None:
    lengths = [_unified(length=length) for length in (5.0, 10.0, 15.0)]
    scores = [_unified(score=score) for score in (0.8, 0.9, 0.95)]
    for steps in (lengths, scores):
        assert steps == sorted(set(steps))
        assert 0.0 <= steps[0] < 50.0 < steps[-1] <= 100.0


def test_a_wider_frame_does_not_make_a_photo_worse() -> None:
    framed = [_unified(score=0.95 - 0.017 * halved, share=100.0 / 2.0**halved) for halved in (0, 1, 2, 3)]
    assert framed == pytest.approx([framed[0]] * 4)
    assert _unified(share=1.0) == _unified(share=12.5) > _unified(share=25.0)


def test_a_pack_without_calibration_has_the_detectors_score() -> None:
    assert unified_quality({"face_score": 0.93}, None) == pytest.approx(93.0)


def test_no_measurement_is_a_pixel_or_a_template_g10() -> None:
    found = _measured(_face(), _noise())
    assert all(type(value) is float for value in found.values())
    assert len(found) < 40


def test_measurements_are_told_in_words_and_what_is_missing_is_left_out() -> None:
    found = _measured(_face(), _noise()) | {"unified_quality": 92.3}
    assert in_words(found).startswith("quality 92 of 100, eyes 40 px apart, head turned 0 degrees, bowed ")
    assert in_words({"inter_eye_px": 12.4}) == "eyes 12 px apart"
    assert in_words({"face_count": 0.0}) == ""
