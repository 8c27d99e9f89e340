from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.detection import Face
from processors.model_card import QualityCard
from processors.quality import judge_face_count, judge_measurements, measure_face
from processors.refusals import RefusalCode

if TYPE_CHECKING:
    from numpy.typing import NDArray

CARD = QualityCard(min_inter_eye_px=18.0, min_sharpness=0.02, second_face_min_ratio=0.5)
POINTS = np.array([[40.0, 50.0], [80.0, 50.0], [60.0, 70.0], [45.0, 90.0], [75.0, 90.0]])
GOOD = {"inter_eye_px": 40.0, "sharpness": 0.5}


def _face(width: float = 100.0, points: NDArray[np.float64] = POINTS) -> Face:
    return Face(box_px=(0.0, 0.0, width, width * 1.2), points_px=points, score=0.95)


def _noise(seed: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (112, 112, 3)).astype(np.uint8)


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
    steps = [measure_face(_face(), _smooth(_noise(), times))["sharpness"] for times in (1, 3, 9, 27, 81)]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] < 0.02 < steps[0]


@given(factor=st.floats(0.3, 0.9))
def test_a_flat_photo_is_not_called_blurred(factor: float) -> None:
    crop = _smooth(_noise(), 2)
    flat = (crop * factor).astype(np.uint8)
    full, faint = (measure_face(_face(), one) for one in (crop, flat))
    assert faint["sharpness"] == pytest.approx(full["sharpness"], rel=0.05)
    assert faint["contrast"] < full["contrast"]


def test_a_crop_of_one_colour_is_as_unsharp_as_can_be() -> None:
    found = measure_face(_face(), np.full((112, 112, 3), 90, dtype=np.uint8))
    assert found["sharpness"] == pytest.approx(0.0, abs=1e-9)
    assert found["brightness"] == pytest.approx(90.0)


def test_an_upright_frontal_face_has_no_roll_and_no_yaw() -> None:
    found = measure_face(_face(), _noise())
    assert found["inter_eye_px"] == 40.0
    assert found["roll_deg"] == pytest.approx(0.0)
    assert found["yaw_deg"] == pytest.approx(0.0)


@given(st.floats(-60, 60))
def test_turning_the_photo_turns_the_roll_alone(angle_deg: float) -> None:
    angle = np.radians(angle_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found = measure_face(_face(points=POINTS @ turn.T), _noise())
    assert found["roll_deg"] == pytest.approx(angle_deg, abs=1e-6)
    assert found["yaw_deg"] == pytest.approx(0.0, abs=1e-6)


def test_a_nose_to_image_right_is_a_positive_yaw() -> None:
    turned = POINTS.copy()
    turned[2, 0] += 8.0
    assert measure_face(_face(points=turned), _noise())["yaw_deg"] > 10.0
