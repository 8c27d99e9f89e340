from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.alignment import mirrored, scale_of, similarity

if TYPE_CHECKING:
    from numpy.typing import NDArray

FACE = np.array([[38.0, 52.0], [74.0, 51.0], [56.0, 72.0], [42.0, 92.0], [71.0, 92.0]])


@given(
    angle_deg=st.floats(-179, 179),
    scale=st.floats(0.05, 20),
    shift=st.tuples(st.floats(-2000, 2000), st.floats(-2000, 2000)),
)
def test_any_similarity_is_recovered(angle_deg: float, scale: float, shift: tuple[float, float]) -> None:
    angle = math.radians(angle_deg)
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = similarity(FACE, FACE @ turn.T + shift)
    assert matrix is not None
    np.testing.assert_allclose(matrix, np.column_stack([turn, shift]), atol=1e-6 * max(1.0, scale))
    assert scale_of(matrix) == pytest.approx(scale)


def test_a_mirrored_face_is_not_mirrored_back() -> None:
    matrix = similarity(FACE * [-1.0, 1.0], FACE)
    assert matrix is not None
    assert np.linalg.det(matrix[:, :2]) > 0


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=5, max_size=5))
def test_no_nearby_similarity_fits_better(noise: list[tuple[float, float]]) -> None:
    source = FACE + np.array(noise)
    best = similarity(source, FACE)
    assert best is not None

    def error(matrix: NDArray[Any]) -> float:
        return float(((source @ matrix[:, :2].T + matrix[:, 2] - FACE) ** 2).sum())

    a, b = best[0, 0], best[1, 0]
    for step in (1e-3, -1e-3):
        for changed in ([[a + step, -b], [b, a + step]], [[a, -b - step], [b + step, a]]):
            assert error(np.column_stack([changed, best[:, 2]])) >= error(best)
        assert error(best + np.array([[0, 0, step], [0, 0, 0]])) >= error(best)


def test_a_mirrored_face_keeps_its_left_eye_on_the_left() -> None:
    width = 112
    seen = np.array([[width - 1 - x, y] for x, y in FACE[[1, 0, 2, 4, 3]]])  # as a detector reports it, left to right
    np.testing.assert_array_equal(mirrored(seen, width), FACE)
    np.testing.assert_array_equal(mirrored(mirrored(FACE, width), width), FACE)


def test_points_on_one_spot_have_no_similarity() -> None:
    assert similarity(np.full((5, 2), 7.0), FACE) is None
