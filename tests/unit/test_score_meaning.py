"""What stands beside a cosine: how many other persons' templates would score as much in a gallery of that size."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.model_card import StatisticsCard, parse_model_card
from processors.score_meaning import expected_non_mates
from processors.synthetic import synthetic_templates

CARD_FILE = Path(__file__).parents[2] / "infra" / "models" / "sface-yunet.toml"
STATISTICS: StatisticsCard = parse_model_card(tomllib.loads(CARD_FILE.read_text(encoding="utf-8"))).statistics


def _expected(score: float, templates: int = 1_000_000) -> float:
    expected = expected_non_mates(score, templates=templates, statistics=STATISTICS)
    assert expected is not None
    return expected


@given(st.floats(-1.0, 1.0), st.floats(-1.0, 1.0), st.integers(0, 10**8), st.integers(0, 10**8))
def test_fewer_are_expected_higher_up_and_more_in_a_larger_gallery(
    one: float, other: float, few: int, many: int
) -> None:
    low, high = sorted((one, other))
    few, many = sorted((few, many))
    assert 0.0 <= _expected(high, few) <= _expected(low, few) <= few
    assert _expected(low, few) <= _expected(low, many)


def test_half_of_all_are_expected_at_the_mean_and_nobody_in_an_empty_gallery() -> None:
    assert _expected(STATISTICS.non_mated_mean) == 500_000
    assert _expected(0.1, templates=0) == 0.0


def test_as_many_are_expected_at_the_measured_quantile_as_were_counted_there() -> None:
    # infra/models/sface-yunet.toml states the score that one in 100,000 pairs of different persons reached.
    assert _expected(0.4364) == pytest.approx(10.0, rel=0.05)


def test_templates_with_the_cards_statistics_are_counted_as_expected_or_fewer() -> None:
    # Synthetic templates have the card's mean and deviation without its heavier tail: the number has to lie above the
    # count, increasingly so further out, and never far above.
    templates = synthetic_templates(STATISTICS, count=3000, seed=11).astype(np.float64)
    scores = (templates @ templates.T)[np.triu_indices(len(templates), 1)]
    for score, at_most in ((0.15, 1.3), (0.25, 2.0), (0.35, 4.0)):
        counted = int((scores >= score).sum())
        assert counted > 500
        assert counted <= _expected(score, len(scores)) <= at_most * counted


def test_a_pack_whose_tail_nobody_measured_makes_no_claim() -> None:
    unknown = dataclasses.replace(STATISTICS, tail_sd=None)
    assert expected_non_mates(0.5, templates=1000, statistics=unknown) is None
