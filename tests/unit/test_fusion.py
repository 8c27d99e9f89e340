"""A person's captures become one template that no order and no machine can change, and that good photos decide (G7)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.fusion import QUALITY_STEPS, fused_template, quality_steps
from processors.templates import UNIT_TOLERANCE, to_template

DIMENSION = 16
SHOWN = [to_template(vector).astype(np.float16) for vector in np.random.default_rng(5).normal(size=(9, DIMENSION))]

captures = st.lists(
    st.tuples(st.integers(0, len(SHOWN) - 1), st.integers(0, QUALITY_STEPS)),
    min_size=1,
    max_size=12,
)


def fused(shown: list[tuple[int, int]]) -> np.ndarray:
    return fused_template(np.stack([SHOWN[face] for face, _ in shown]), np.array([steps for _, steps in shown]))


@given(captures, st.randoms(use_true_random=False))
def test_the_order_of_captures_does_not_change_a_bit(shown: list[tuple[int, int]], random: object) -> None:
    other = list(shown)
    random.shuffle(other)  # type: ignore[attr-defined]
    assert fused(shown).tobytes() == fused(other).tobytes()


@given(captures)
def test_a_fused_template_is_a_template(shown: list[tuple[int, int]]) -> None:
    exact = fused(shown).astype(np.float64)
    assert abs(np.sqrt(exact @ exact) - 1.0) <= UNIT_TOLERANCE


@given(captures)
def test_it_is_the_weighted_mean_of_the_captures(shown: list[tuple[int, int]]) -> None:
    mean = sum(max(steps, 1) * SHOWN[face].astype(np.float64) for face, steps in shown)
    assert np.allclose(fused(shown).astype(np.float64), mean / np.linalg.norm(mean), atol=1e-3)


@given(st.integers(0, len(SHOWN) - 1), st.integers(0, QUALITY_STEPS))
def test_one_capture_stays_what_it_is_up_to_its_rounding(face: int, steps: int) -> None:
    assert np.allclose(fused([(face, steps)]).astype(np.float64), SHOWN[face].astype(np.float64), atol=1e-3)


def test_the_better_photo_decides() -> None:
    good, bad = fused([(0, 120), (1, 7)]), fused([(0, 7), (1, 120)])
    assert good.astype(np.float64) @ SHOWN[0] > bad.astype(np.float64) @ SHOWN[0]
    assert good.astype(np.float64) @ SHOWN[1] < bad.astype(np.float64) @ SHOWN[1]


def test_captures_that_cancel_each_other_out_leave_the_first() -> None:
    opposite = np.stack([SHOWN[0], -SHOWN[0]])
    assert fused_template(opposite, np.array([9, 9])).tobytes() == SHOWN[0].tobytes()


@pytest.mark.parametrize(
    ("quality", "steps"),
    [(0.0, 0), (1.0, 127), (0.5, 64), (-3.0, 0), (7.0, 127), (float("nan"), 0), (float("inf"), 127)],
)
def test_a_quality_is_kept_in_whole_steps_and_nonsense_counts_as_none(quality: float, steps: int) -> None:
    assert quality_steps(quality) == steps
