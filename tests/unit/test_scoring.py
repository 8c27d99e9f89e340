"""Scores of many templates at once are those of a search, and a person's captures become one score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from connectors.gallery_search import exact_scores
from processors.scoring import Fusion, joined_captures, person_scores, score_matrix
from processors.templates import to_template

if TYPE_CHECKING:
    from numpy.typing import NDArray

AXES = np.eye(4, dtype=np.float32)


def _templates(count: int, seed: int) -> NDArray[np.float32]:
    return to_template(np.random.default_rng(seed).normal(size=(count, 128)))


def test_scores_are_those_of_a_search_bit_for_bit_g7() -> None:
    probes, enrolled = _templates(5, 1), _templates(40, 2)
    found = score_matrix(probes, enrolled)
    for probe, row in zip(probes, found, strict=True):
        assert row == pytest.approx(exact_scores(probe, enrolled.astype(np.float16)), abs=1e-15)


def _scored(
    probes: NDArray[np.float32],
    captures: NDArray[np.float32],
    usable: NDArray[np.bool_],
    fusion: Fusion,
    qualities: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    even = np.ones(usable.shape) if qualities is None else qualities
    return person_scores(probes, *joined_captures(captures, usable, even, fusion))


def test_the_best_capture_speaks_for_a_person() -> None:
    captures = to_template(np.array([[[1, 0, 0, 0], [1, 1, 0, 0]], [[0, 0, 1, 0], [0, 0, 0, 1]]], dtype=np.float64))
    found = _scored(AXES, captures, np.ones((2, 2), dtype=np.bool_), Fusion.BEST)
    half = float(np.sqrt(0.5))
    assert found == pytest.approx(np.array([[1, 0], [half, 0], [0, 1], [0, 1]]), abs=1e-3)


@pytest.mark.parametrize("fusion", [Fusion.MEAN, Fusion.FUSED])
def test_a_mean_is_one_template_of_the_captures_that_there_are(fusion: Fusion) -> None:
    captures = to_template(np.array([[[1, 0, 0, 0], [0, 1, 0, 0]], [[0, 0, 1, 0], [0, 0, 1, 0]]], dtype=np.float64))
    found = _scored(AXES, captures, np.array([[True, True], [True, False]]), fusion)
    half = float(np.sqrt(0.5))
    assert found == pytest.approx(np.array([[half, 0], [half, 0], [0, 1], [0, 0]]), abs=1e-3)


def test_a_capture_of_high_quality_counts_for_more_and_only_when_fused() -> None:
    captures = to_template(np.array([[[1, 0, 0, 0], [0, 1, 0, 0]]], dtype=np.float64))
    both, qualities = np.ones((1, 2), dtype=np.bool_), np.array([[0.9, 0.3]])
    fused, mean = (_scored(AXES, captures, both, fusion, qualities) for fusion in (Fusion.FUSED, Fusion.MEAN))
    assert fused[0, 0] / fused[1, 0] == pytest.approx(3.0, abs=0.02)
    assert mean[0, 0] == mean[1, 0]


@pytest.mark.parametrize("fusion", list(Fusion))
def test_of_one_capture_every_way_makes_the_same(fusion: Fusion) -> None:
    probes, captures = _templates(3, 3), _templates(6, 4)[:, np.newaxis]
    found = _scored(probes, captures, np.ones((6, 1), dtype=np.bool_), fusion)
    assert found == pytest.approx(score_matrix(probes, captures[:, 0]), abs=1e-3)


@pytest.mark.parametrize("fusion", list(Fusion))
def test_a_person_without_a_template_is_as_one_who_is_not_enrolled(fusion: Fusion) -> None:
    probes, captures = _templates(3, 3), _templates(6, 4).reshape(3, 2, 128)
    usable = np.array([[True, False], [False, False], [True, True]])
    assert np.isneginf(_scored(probes, captures, usable, fusion)).tolist() == [[False, True, False]] * 3
    assert np.isneginf(_scored(probes, captures, usable & False, fusion)).all()
