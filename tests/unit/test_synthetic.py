from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.model_card import StatisticsCard, parse_model_card
from processors.synthetic import synthetic_templates

CARD_FILE = Path(__file__).parents[2] / "infra" / "models" / "sface-yunet.toml"
STATISTICS: StatisticsCard = parse_model_card(tomllib.loads(CARD_FILE.read_text(encoding="utf-8"))).statistics


@pytest.mark.parametrize("seed", [0, 1, 20_261_123])
def test_their_scores_are_those_of_different_persons(seed: int) -> None:
    templates = synthetic_templates(STATISTICS, count=3000, seed=seed).astype(np.float64)
    cosines = (templates @ templates.T)[np.triu_indices(len(templates), 1)]
    assert cosines.mean() == pytest.approx(STATISTICS.non_mated_mean, abs=0.002)
    assert cosines.std() == pytest.approx(STATISTICS.non_mated_sd, abs=0.002)


def test_they_lie_where_real_templates_lie() -> None:
    mean = np.array(STATISTICS.mean_template)
    found = synthetic_templates(STATISTICS, count=20_000, seed=1).mean(axis=0)
    assert found @ mean / np.linalg.norm(found) / np.linalg.norm(mean) > 0.98


@settings(max_examples=20)
@given(seed=st.integers(0, 2**63), count=st.integers(0, 50))
def test_the_same_seed_gives_the_same_templates(seed: int, count: int) -> None:
    one, two = (synthetic_templates(STATISTICS, count=count, seed=seed) for _ in range(2))
    assert one.shape == (count, 128)
    assert np.array_equal(one, two)
    assert np.array_equal(one.astype(np.float16).astype(np.float32), one)
