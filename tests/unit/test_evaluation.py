"""Rates by hand, and what must hold of them whatever the scores are."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors import evaluation as rates
from processors.evaluation import Interval, MatedSearches, NonMatedSearches, Templates
from processors.scoring import Fusion
from processors.templates import to_template
from processors.trials import Trial, draw_trials, number_persons

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from numpy.typing import NDArray

NEVER = -math.inf
GRID = st.integers(-10, 100).map(lambda number: number / 100)
MATED = st.lists(st.tuples(GRID, st.integers(1, 60), st.integers(0, 5)), min_size=1, max_size=40)
NON_MATED = st.lists(st.tuples(GRID, st.integers(0, 5)), min_size=1, max_size=60)


def _mated(scores: Sequence[float], ranks: Sequence[int], persons: Sequence[int] | None = None) -> MatedSearches:
    return MatedSearches(
        photos=np.arange(len(scores)),
        persons=np.array(persons if persons is not None else [0] * len(scores)),
        scores=np.array(scores, dtype=np.float64),
        ranks=np.array(ranks),
    )


def _non_mated(scores: Sequence[float], persons: Sequence[int] | None = None) -> NonMatedSearches:
    return NonMatedSearches(
        photos=np.arange(len(scores)),
        persons=np.array(persons if persons is not None else [0] * len(scores)),
        scores=np.array(scores, dtype=np.float64),
    )


def _templates(vectors: Sequence[Sequence[float]], *, without: Sequence[int] = ()) -> Templates:
    usable = np.ones(len(vectors), dtype=np.bool_)
    usable[list(without)] = False
    return _of(to_template(np.array(vectors, dtype=np.float64)), usable)


def _of(values: NDArray[np.float32], usable: NDArray[np.bool_]) -> Templates:
    return Templates(values=values, usable=usable, enrollable=usable, qualities=np.ones(len(values)))


def _threshold(scores: Sequence[float], rate: float) -> float:
    return rates.threshold_at(np.sort(np.array(scores))[::-1], rate=rate, total=len(scores))


# Thresholds


def test_a_threshold_lets_as_many_through_as_the_rate_allows_and_no_more() -> None:
    scores = [n / 100 for n in range(100)]
    assert _threshold(scores, 0.01) == 0.980001
    assert _threshold(scores, 0.03) == 0.960001
    assert _threshold(scores, 0.001) == 0.990001


def test_three_in_a_thousand_are_three_whatever_binary_fractions_say() -> None:
    scores = [n / 1000 for n in range(1000)]
    assert _threshold(scores, 0.003) == 0.996001


def test_of_equal_scores_all_or_none_pass() -> None:
    assert _threshold([0.9, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], 0.2) == 0.500001
    assert _threshold([0.5] * 10, 0.2) == 0.500001


def test_where_too_many_have_no_template_every_score_passes() -> None:
    assert _threshold([0.9, *[NEVER] * 9], 0.1) == NEVER
    point = rates.open_set_point(
        _mated([0.2, NEVER], [1, 0]), _non_mated([0.9, *[NEVER] * 9]), threshold=NEVER, list_length=20
    )
    assert (point.fpir, point.fnir) == (0.1, 0.5)


# Open set


def test_a_mate_is_missed_below_the_threshold_off_the_list_or_without_a_template() -> None:
    mated = _mated([0.9, 0.8, 0.4, 0.7, NEVER], [1, 21, 1, 20, 0])
    assert rates.is_missed(mated, 0.5, 20).tolist() == [False, True, True, False, True]
    assert rates.is_missed(mated, 0.4, 50).tolist() == [False, False, False, False, True]
    assert rates.is_missed(mated, NEVER, 20).tolist() == [False, True, False, False, True]


def test_rates_and_counts_at_a_threshold_by_hand() -> None:
    mated, non_mated = _mated([0.9, 0.6, 0.4, NEVER], [1, 1, 2, 0]), _non_mated([0.6, 0.5, 0.3, NEVER])
    point = rates.open_set_point(mated, non_mated, threshold=0.5, list_length=20)
    assert (point.fpir, point.fnir) == (0.5, 0.5)
    assert (point.false_positives, point.misses) == (2, 2)
    assert (point.photos_of_false_positives, point.photos_of_misses) == (2, 2)


def test_a_photo_that_misses_in_two_draws_is_one_event() -> None:
    one = _mated([0.1], [1])
    pooled = rates.pool_mated([one, one])
    point = rates.open_set_point(pooled, _non_mated([0.2]), threshold=0.5, list_length=20)
    assert (point.misses, point.photos_of_misses) == (2, 1)


@settings(deadline=None, max_examples=50)
@given(mated=MATED, thresholds=st.tuples(GRID, GRID))
def test_fnir_never_falls_when_the_threshold_rises(
    mated: list[tuple[float, int, int]], thresholds: tuple[float, float]
) -> None:
    searches = _mated([score for score, _, _ in mated], [rank for _, rank, _ in mated])
    low, high = sorted(thresholds)
    assert rates.is_missed(searches, low, 20).sum() <= rates.is_missed(searches, high, 20).sum()


@settings(deadline=None, max_examples=50)
@given(mated=MATED, ranks=st.tuples(st.integers(1, 60), st.integers(1, 60)))
def test_a_longer_list_never_misses_more(mated: list[tuple[float, int, int]], ranks: tuple[int, int]) -> None:
    searches = _mated([score for score, _, _ in mated], [rank for _, rank, _ in mated])
    short, long = sorted(ranks)
    assert rates.is_missed(searches, NEVER, long).sum() <= rates.is_missed(searches, NEVER, short).sum()


@settings(deadline=None, max_examples=50)
@given(non_mated=NON_MATED, rate=st.floats(0.001, 0.9))
def test_the_measured_fpir_is_at_most_the_one_asked_for_and_one_more_step_would_be_over(
    non_mated: list[tuple[float, int]], rate: float
) -> None:
    searches = _non_mated([score for score, _ in non_mated])
    threshold = _threshold([score for score, _ in non_mated], rate)
    assert rates.is_false_positive(searches, threshold).mean() <= rate + 1e-9
    assert rates.is_false_positive(searches, threshold - 1.5e-6).mean() > rate


@settings(deadline=None, max_examples=50)
@given(mated=MATED, non_mated=NON_MATED, order=st.randoms(use_true_random=False))
def test_the_order_of_searches_changes_nothing(
    mated: list[tuple[float, int, int]], non_mated: list[tuple[float, int]], order: random.Random
) -> None:
    def measured(ours: list[tuple[float, int, int]], others: list[tuple[float, int]]) -> list[list[float]]:
        own = _mated([s for s, _, _ in ours], [r for _, r, _ in ours], [p for _, _, p in ours])
        strange = _non_mated([s for s, _ in others], [p for _, p in others])
        weights = rates.person_weights(6, replicates=20, seed=3)
        found = rates.resampled_fnir(own, strange, weights, fpirs=(0.01, 0.3), list_length=20)
        return np.nan_to_num(found, nan=-1.0).tolist()

    shuffled, others = mated.copy(), non_mated.copy()
    order.shuffle(shuffled)
    order.shuffle(others)
    assert measured(mated, non_mated) == measured(shuffled, others)


@settings(deadline=None, max_examples=50)
@given(mated=MATED, non_mated=NON_MATED, rate=st.sampled_from([0.01, 0.1, 0.5]))
def test_a_resampling_that_draws_everybody_once_gives_the_rate_itself(
    mated: list[tuple[float, int, int]], non_mated: list[tuple[float, int]], rate: float
) -> None:
    ours = _mated([s for s, _, _ in mated], [r for _, r, _ in mated], [p for _, _, p in mated])
    others = _non_mated([s for s, _ in non_mated], [p for _, p in non_mated])
    found = rates.resampled_fnir(ours, others, np.ones((1, 6)), fpirs=[rate], list_length=20)
    point = rates.open_set_point(ours, others, threshold=_threshold([s for s, _ in non_mated], rate), list_length=20)
    assert found[0, 0] == pytest.approx(point.fnir)


def test_a_curve_runs_from_no_false_positive_to_all_of_them_and_never_rises() -> None:
    generator = np.random.default_rng(1)
    mated = _mated(np.round(generator.normal(0.6, 0.2, 300), 6).tolist(), [1] * 299 + [0])
    non_mated = _non_mated(np.round(generator.normal(0.2, 0.1, 500), 6).tolist())
    fpir, fnir = rates.det_curve(mated, non_mated, list_length=20)
    assert (fpir[0], fpir[-1]) == (0.0, pytest.approx(1.0, abs=0.01))
    assert (np.diff(fpir) >= 0).all()
    assert (np.diff(fnir) <= 0).all()
    assert fnir[-1] >= 1 / 300
    for rate, missed in zip(fpir.tolist(), fnir.tolist(), strict=True):
        threshold = _threshold(non_mated.scores.tolist(), rate)
        assert rates.is_missed(mated, threshold, 20).mean() == pytest.approx(missed)


# Searches


def test_searches_by_hand() -> None:
    # Photos: two of a, two of b, one of c that nobody enrolled, one of a without a template.
    vectors = [[1, 0, 0], [0.8, 0.6, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0], [1, 0, 0]]
    persons = np.array([0, 0, 1, 1, 2, 0])
    trial = Trial(
        enrolled=np.array([[0], [2]]), mated=np.array([1, 3, 5]), mates=np.array([0, 1, 0]), non_mated=np.array([4])
    )
    mated, non_mated = rates.search(trial, _templates(vectors, without=[5]), persons, Fusion.BEST)
    assert mated.scores == pytest.approx([0.8, 0.0, NEVER], abs=1e-3)
    assert mated.ranks.tolist() == [1, 2, 0]  # the second is no more like b than a: equal scores count against the mate
    assert mated.persons.tolist() == [0, 1, 0]
    assert non_mated.scores == pytest.approx([0.8], abs=1e-3)
    assert non_mated.photos.tolist() == [4]


def test_who_could_not_be_enrolled_is_missed_and_is_nobodys_candidate() -> None:
    vectors = [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]]
    trial = Trial(
        enrolled=np.array([[0], [2]]), mated=np.array([1, 3]), mates=np.array([0, 1]), non_mated=np.array([4])
    )
    persons = np.array([0, 0, 1, 1, 2])
    mated, non_mated = rates.search(trial, _templates(vectors, without=[0]), persons, Fusion.BEST)
    assert mated.ranks.tolist() == [0, 1]
    assert mated.scores[0] == NEVER
    assert non_mated.scores.tolist() == [0.0]


def test_a_photo_that_is_too_poor_to_be_enrolled_may_still_be_searched_with() -> None:
    templates = _templates([[1, 0, 0], [1, 0, 0]], without=[])
    poor = dataclasses.replace(templates, enrollable=np.array([True, False]))
    persons = np.array([0, 0])
    nobody = np.array([], dtype=np.int64)
    ranks = []
    for enrolled, probe in ((0, 1), (1, 0)):
        trial = Trial(enrolled=np.array([[enrolled]]), mated=np.array([probe]), mates=np.array([0]), non_mated=nobody)
        ranks.append(rates.search(trial, poor, persons, Fusion.BEST)[0].ranks.tolist())
    assert ranks == [[1], [0]]


def test_the_order_in_which_persons_stand_changes_no_rate() -> None:
    generator = np.random.default_rng(5)
    labels = [(f"p{n:02}", str(m)) for n in range(12) for m in range(4)]
    centres = generator.normal(size=(12, 16))
    values = to_template(np.repeat(centres, 4, axis=0) + generator.normal(size=(48, 16)) * 0.8)
    usable = generator.random(48) > 0.1

    def measured(order: list[int]) -> list[object]:
        chosen = [labels[row] for row in order]
        templates = _of(values[order], usable[order])
        names, persons = number_persons([person for person, _ in chosen])
        draws = draw_trials([p for p, _ in chosen], [n for _, n in chosen], enrol=2, count=3, seed=1)
        found = [rates.search(draw.open_set, templates, persons, Fusion.BEST) for draw in draws]
        mated, non_mated = rates.pool_mated([own for own, _ in found]), rates.pool_non_mated([o for _, o in found])
        weights = rates.person_weights(len(names), replicates=30, seed=2)
        return [
            np.sort(mated.scores).tolist(),
            np.sort(mated.ranks).tolist(),
            np.sort(non_mated.scores).tolist(),
            rates.resampled_fnir(mated, non_mated, weights, fpirs=[0.1], list_length=20).tolist(),
        ]

    assert measured(list(range(48))) == measured(generator.permutation(48).tolist())


# Intervals


def test_a_rate_is_resampled_by_persons_and_not_by_photos() -> None:
    weights = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    found = rates.resampled_rate(np.array([1.0, 0.0]), np.array([1.0, 3.0]), weights)
    assert found.tolist() == [1.0, 0.25, 0.0]
    assert np.isnan(rates.resampled_rate(np.array([0.0]), np.array([0.0]), np.ones((1, 1))))


def test_each_resampling_draws_as_many_persons_as_there_are_and_a_seed_gives_them_again() -> None:
    weights = rates.person_weights(7, replicates=40, seed=9)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == rates.person_weights(7, replicates=40, seed=9)).all()
    assert (weights != rates.person_weights(7, replicates=40, seed=8)).any()


def test_where_nothing_was_seen_the_bound_is_the_exact_one() -> None:
    assert rates.interval_of(np.zeros(100), rate=0.0, persons=30) == Interval(low=0.0, high=1 - 0.025 ** (1 / 30))
    assert rates.interval_of(np.ones(100), rate=1.0, persons=30) == Interval(low=0.025 ** (1 / 30), high=1.0)
    assert rates.interval_of(np.full(5, np.nan), rate=0.5, persons=30) is None
    middle = rates.interval_of(np.linspace(0, 1, 1001), rate=0.5, persons=30)
    assert middle is not None
    assert (middle.low, middle.high) == (pytest.approx(0.025), pytest.approx(0.975))


@settings(deadline=None, max_examples=50)
@given(mated=MATED, non_mated=NON_MATED)
def test_a_recipe_beside_itself_has_a_ratio_of_exactly_one(
    mated: list[tuple[float, int, int]], non_mated: list[tuple[float, int]]
) -> None:
    ours = _mated([s for s, _, _ in mated], [r for _, r, _ in mated], [p for _, _, p in mated])
    others = _non_mated([s for s, _ in non_mated], [p for _, p in non_mated])
    weights = rates.person_weights(6, replicates=50, seed=0)
    one, two = (rates.resampled_fnir(ours, others, weights, fpirs=[0.01], list_length=20)[:, 0] for _ in range(2))
    expected = Interval(low=1.0, high=1.0) if np.isfinite(one).any() else None
    assert rates.paired_ratio(two, one) == expected


def test_pairs_are_resampled_together() -> None:
    old, new = np.array([0.1, 0.2, 0.4, np.nan]), np.array([0.05, 0.1, 0.2, 0.3])
    assert rates.paired_ratio(new, old) == Interval(low=0.5, high=0.5)
    difference = rates.paired_difference(new, old)
    assert difference is not None
    assert -0.2 <= difference.low < difference.high <= -0.05


def test_against_no_error_at_all_a_ratio_is_without_bound() -> None:
    assert rates.ratio_of(0.0, 0.0) == 1.0
    assert rates.ratio_of(0.1, 0.0) == math.inf
    assert rates.ratio_of(0.0, 0.1) == 0.0
    found = rates.paired_ratio(np.full(100, 0.1), np.array([0.1] * 50 + [0.0] * 50))
    assert found == Interval(low=1.0, high=math.inf)


# Verification


def test_pairs_by_hand() -> None:
    vectors = [[1, 0, 0], [0.8, 0.6, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
    pairs = rates.verify_pairs(_templates(vectors, without=[4]), np.array([0, 0, 1, 1, 1]), highest_far=0.5)
    assert pairs.mated_pairs.tolist() == [1, 3]
    assert pairs.non_mated_pairs == 6
    assert pairs.mated_scores == pytest.approx([0.8, 0.0], abs=1e-3)
    assert pairs.highest_non_mated == pytest.approx([0.6, 0.0, 0.0, 0.0], abs=1e-3)
    point = rates.verification_point(pairs, far=0.17)  # one of six may pass
    assert (point.threshold, point.tar, point.false_accepts, point.misses) == (0.000001, 0.25, 1, 3)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 20), far=st.sampled_from([0.001, 0.01, 0.2]))
def test_pairs_compared_in_blocks_are_those_of_all_at_once(seed: int, far: float) -> None:
    generator = np.random.default_rng(seed)
    persons = np.sort(generator.integers(0, 9, 60))
    values = to_template(generator.normal(size=(60, 8)))
    templates = _of(values, np.ones(60, dtype=np.bool_))
    scores = np.round(
        (values.astype(np.float64) @ values.T.astype(np.float64))
        / np.outer(*[np.linalg.norm(values.astype(np.float64), axis=1)] * 2),
        6,
    )
    first, second = np.triu_indices(60, 1)
    same = persons[first] == persons[second]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rates, "_BLOCK", 7)
        pairs = rates.verify_pairs(templates, persons, highest_far=far)
    assert np.sort(pairs.mated_scores) == pytest.approx(np.sort(scores[first, second][same]))
    others = np.sort(scores[first, second][~same])[::-1]
    assert pairs.non_mated_pairs == len(others)
    assert pairs.highest_non_mated == pytest.approx(others[: len(pairs.highest_non_mated)])
    threshold = rates.threshold_at(others, rate=far, total=len(others))
    assert rates.verification_point(pairs, far=far).tar == pytest.approx(
        (scores[first, second][same] >= threshold).mean()
    )


# Quality


def test_errors_that_quality_foresees_go_first() -> None:
    quality, wrong = np.array([0.1, 0.2, 0.3, 0.4]), np.array([True, True, False, False])
    found = rates.error_versus_discard(quality, wrong, shares=np.array([0.0, 0.25, 0.5, 0.75]))
    assert found == pytest.approx([0.5, 1 / 3, 0.0, 0.0])
    backwards = rates.error_versus_discard(1.0 - quality, wrong, shares=np.array([0.0, 0.25, 0.5, 0.75, 1.0]))
    assert backwards == pytest.approx([0.5, 2 / 3, 1.0, 1.0, 0.0])


def test_a_quality_that_is_the_same_for_all_foresees_nothing() -> None:
    wrong = np.array([True, False, False, False])
    found = rates.error_versus_discard(np.ones(4), wrong, shares=np.array([0.0, 0.3, 0.6]))
    assert found == pytest.approx([0.25, 0.25, 0.25])
