"""Scores of many templates at once are those of a search, and a person's captures become one score."""

from __future__ import annotations

import numpy as np
import pytest

from connectors.gallery_search import exact_scores
from infra import assets
from processors.scoring import Fusion, person_scores, score_matrix
from processors.templates import to_template

CARD = assets.load_card(assets.DEFAULT_CARD)
AXES = np.eye(4, dtype=np.float32)


def _templates(count: int, seed: int) -> np.ndarray:
    return to_template(np.random.default_rng(seed).normal(size=(count, 128)))


def test_scores_are_those_of_a_search_bit_for_bit_g7() -> None:
    probes, enrolled = _templates(5, 1), _templates(40, 2)
    found = score_matrix(probes, enrolled, CARD)
    for probe, row in zip(probes, found, strict=True):
        assert row == pytest.approx(exact_scores(probe, enrolled.astype(np.float16)), abs=1e-15)


def test_the_best_capture_speaks_for_a_person() -> None:
    captures = to_template(np.array([[[1, 0, 0, 0], [1, 1, 0, 0]], [[0, 0, 1, 0], [0, 0, 0, 1]]], dtype=np.float64))
    usable = np.ones((2, 2), dtype=np.bool_)
    found = person_scores(AXES, captures, usable, CARD, Fusion.BEST)
    half = float(np.sqrt(0.5))
    assert found == pytest.approx(np.array([[1, 0], [half, 0], [0, 1], [0, 1]]), abs=1e-3)


def test_a_mean_is_one_template_of_the_captures_that_there_are() -> None:
    captures = to_template(np.array([[[1, 0, 0, 0], [0, 1, 0, 0]], [[0, 0, 1, 0], [0, 0, 1, 0]]], dtype=np.float64))
    usable = np.array([[True, True], [True, False]])
    found = person_scores(AXES, captures, usable, CARD, Fusion.MEAN)
    half = float(np.sqrt(0.5))
    assert found == pytest.approx(np.array([[half, 0], [half, 0], [0, 1], [0, 0]]), abs=1e-3)


@pytest.mark.parametrize("fusion", list(Fusion))
def test_of_one_capture_every_way_makes_the_same(fusion: Fusion) -> None:
    probes, captures = _templates(3, 3), _templates(6, 4)[:, np.newaxis]
    found = person_scores(probes, captures, np.ones((6, 1), dtype=np.bool_), CARD, fusion)
    assert found == pytest.approx(score_matrix(probes, captures[:, 0], CARD), abs=1e-3)


@pytest.mark.parametrize("fusion", list(Fusion))
def test_a_person_without_a_template_is_as_one_who_is_not_enrolled(fusion: Fusion) -> None:
    captures = _templates(6, 4).reshape(3, 2, 128)
    usable = np.array([[True, False], [False, False], [True, True]])
    found = person_scores(_templates(3, 3), captures, usable, CARD, fusion)
    assert np.isneginf(found).tolist() == [[False, True, False]] * 3
    assert np.isneginf(person_scores(_templates(3, 3), captures, usable & False, CARD, fusion)).all()
