"""Codes are a pure function of card and template (G7), and nearly as good as sixteen points for two numbers can be."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors import quantiser
from processors.model_card import StatisticsCard, parse_model_card
from processors.quantiser import Codebook, codebook_for
from processors.synthetic import synthetic_templates
from processors.templates import to_template
from schemas.errors import ContractError

CARD_FILE = Path(__file__).parents[2] / "infra" / "models" / "sface-yunet.toml"
STATISTICS: StatisticsCard = parse_model_card(tomllib.loads(CARD_FILE.read_text(encoding="utf-8"))).statistics
CODEBOOK = codebook_for(dimension=128, statistics=STATISTICS)
TEMPLATES = synthetic_templates(STATISTICS, count=4000, seed=5).astype(np.float16)


def decoded(codes: np.ndarray, codebook: Codebook) -> np.ndarray:
    points = np.stack([codes & 15, codes >> 4], axis=2).reshape(len(codes), -1)
    return codebook.centroids[np.arange(points.shape[1]), points].reshape(len(codes), -1).astype(np.float64)


def test_a_code_stands_for_the_nearest_point_but_for_the_width_of_a_cell() -> None:
    pairs = TEMPLATES[:500].astype(np.float64).reshape(500, -1, 1, 2)
    nearest = ((pairs - CODEBOOK.centroids[np.newaxis]) ** 2).sum(axis=3).min(axis=2).sum(axis=1)
    coded = ((TEMPLATES[:500].astype(np.float64) - decoded(CODEBOOK.encode(TEMPLATES[:500]), CODEBOOK)) ** 2).sum(
        axis=1
    )
    assert np.all(coded >= nearest - 1e-12)
    assert coded.mean() < nearest.mean() * 1.01


def test_the_points_are_the_means_of_what_they_stand_for() -> None:
    # Lloyd's condition, on a fine grid under two independent normal numbers: no point can be moved to advantage.
    side = np.linspace(-5, 5, 401)
    grid = np.stack(np.meshgrid(side, side), axis=2).reshape(-1, 2)
    weight = np.exp(-0.5 * (grid**2).sum(axis=1))
    points = np.array(quantiser._POINTS)
    nearest = ((grid[:, np.newaxis] - points[np.newaxis]) ** 2).sum(axis=2).argmin(axis=1)
    mass = np.bincount(nearest, weight, 16)
    means = np.stack([np.bincount(nearest, weight * grid[:, axis], 16) / mass for axis in (0, 1)], axis=1)
    assert means == pytest.approx(points, abs=0.02)
    missed = (weight * ((grid - points[nearest]) ** 2).sum(axis=1)).sum() / weight.sum() / 2
    assert missed == pytest.approx(quantiser._DISTORTION, abs=5e-4)


def test_templates_of_the_card_are_missed_by_about_what_the_codebook_says() -> None:
    # Synthetic templates spread a little more in every other direction, which the codebook does not know.
    missed = ((TEMPLATES.astype(np.float64) - decoded(CODEBOOK.encode(TEMPLATES), CODEBOOK)) ** 2).sum(axis=1).mean()
    assert missed <= quantiser._DISTORTION * CODEBOOK.spread**2 * 128 * 1.1


@pytest.mark.parametrize("score", [0.2, 0.45, 0.7])
def test_hardly_any_template_is_rated_below_what_is_worth_reading(score: float) -> None:
    probes = synthetic_templates(STATISTICS, count=4000, seed=6).astype(np.float64)
    across = synthetic_templates(STATISTICS, count=4000, seed=7).astype(np.float64)
    across -= (across * probes).sum(axis=1, keepdims=True) * probes
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    found = to_template(score * probes + np.sqrt(1 - score**2) * across).astype(np.float16)
    by_code = (decoded(CODEBOOK.encode(found), CODEBOOK) * probes).sum(axis=1)
    exact = (found.astype(np.float64) * probes).sum(axis=1)
    underrated = by_code < [CODEBOOK.worth_reading(each) for each in exact]
    assert underrated.sum() <= 4


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3999), min_size=1, max_size=50), st.integers(0, 49))
def test_a_code_depends_on_nothing_but_its_template_g7(rows: list[int], which: int) -> None:
    which %= len(rows)
    assert np.array_equal(
        CODEBOOK.encode(TEMPLATES[rows])[which], CODEBOOK.encode(TEMPLATES[rows[which]][np.newaxis])[0]
    )


def test_products_of_probe_and_centroids_are_exact_so_no_machine_rates_otherwise_g7() -> None:
    probe = CODEBOOK.probe(TEMPLATES[0].astype(np.float32))
    single = probe.reshape(-1, 1, 2) * CODEBOOK.centroids
    exact = probe.astype(np.float64).reshape(-1, 1, 2) * CODEBOOK.centroids.astype(np.float64)
    assert np.array_equal(single.astype(np.float64), exact)
    assert np.array_equal((single[..., 0] + single[..., 1]).astype(np.float64), exact.sum(axis=2))


def test_equal_cards_have_equal_codebooks_and_others_have_other_digests() -> None:
    assert codebook_for(dimension=128, statistics=STATISTICS).digest == CODEBOOK.digest
    assert codebook_for(dimension=128).digest != CODEBOOK.digest


@pytest.mark.parametrize("dimension", [0, 2, 126, 129])
def test_templates_that_do_not_fill_whole_bytes_of_codes_are_refused(dimension: int) -> None:
    with pytest.raises(ContractError):
        codebook_for(dimension=dimension)


def test_a_card_of_other_templates_is_refused() -> None:
    with pytest.raises(ContractError, match="mean template"):
        codebook_for(dimension=64, statistics=STATISTICS)
