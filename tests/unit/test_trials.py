"""Who is enrolled and what is searched with: the same lots for whoever asks, and nobody on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.trials import Draw, draw_trials, number_persons

if TYPE_CHECKING:
    import random

Labels = list[tuple[str, str]]
SETS = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 5), min_size=1, max_size=8).map(
    lambda counts: [(person, f"{number}.jpg") for person, count in counts.items() for number in range(count)]
)


def _drawn(labels: Labels, *, enrol: int = 1, count: int = 3, seed: int = 0) -> list[Draw]:
    return draw_trials([p for p, _ in labels], [n for _, n in labels], enrol=enrol, count=count, seed=seed)


def _named(labels: Labels, draws: list[Draw]) -> list[object]:
    """Say a draw by names of photos, so that two listings of one set can be compared."""
    return [
        (
            sorted(sorted(labels[row] for row in rows) for rows in trial.enrolled.tolist()),
            sorted(labels[row] for row in trial.mated.tolist()),
            sorted(labels[row] for row in trial.non_mated.tolist()),
        )
        for draw in draws
        for trial in (draw.open_set, draw.closed_set)
    ]


def test_persons_are_numbered_by_name() -> None:
    names, numbers = number_persons(["b", "a", "b"])
    assert names == ["a", "b"]
    assert numbers.tolist() == [1, 0, 1]


def test_half_of_those_with_photos_to_spare_are_enrolled_and_everybody_else_is_searched_for_in_vain() -> None:
    labels = [(person, str(n)) for person, count in (("a", 3), ("b", 3), ("c", 3), ("d", 2)) for n in range(count)]
    for draw in _drawn(labels, enrol=2):
        enrolled = {labels[row][0] for row in draw.open_set.enrolled.ravel().tolist()}
        assert len(enrolled) == 2
        assert "d" not in enrolled
        assert draw.open_set.enrolled.shape == (2, 2)
        assert len(draw.open_set.mated) == 2
        assert {labels[row][0] for row in draw.open_set.non_mated.tolist()} == {"a", "b", "c", "d"} - enrolled
        assert draw.closed_set.enrolled.shape == (3, 2)
        assert len(draw.closed_set.mated) == 3
        assert len(draw.closed_set.non_mated) == 0


@settings(deadline=None, max_examples=50)
@given(labels=SETS, enrol=st.integers(1, 3), seed=st.integers(0, 5))
def test_no_photo_is_enrolled_and_searched_with_and_no_person_is_on_both_sides(
    labels: Labels, enrol: int, seed: int
) -> None:
    for draw in _drawn(labels, enrol=enrol, seed=seed):
        for trial in (draw.open_set, draw.closed_set):
            enrolled = trial.enrolled.ravel().tolist()
            rows = [*enrolled, *trial.mated.tolist(), *trial.non_mated.tolist()]
            assert len(rows) == len(set(rows))
            persons = [labels[row[0]][0] for row in trial.enrolled.tolist()]
            assert len(set(persons)) == len(persons)
            for rows_of_one, person in zip(trial.enrolled.tolist(), persons, strict=True):
                assert {labels[row][0] for row in rows_of_one} == {person}
            assert [labels[row][0] for row in trial.mated.tolist()] == [
                persons[place] for place in trial.mates.tolist()
            ]
            assert not {labels[row][0] for row in trial.non_mated.tolist()} & set(persons)
        assert len(draw.open_set.mated) + len(draw.open_set.non_mated) + draw.open_set.enrolled.size == len(labels)


@settings(deadline=None, max_examples=50)
@given(labels=SETS, shuffle=st.randoms(use_true_random=False))
def test_the_order_of_persons_and_photos_changes_no_draw(labels: Labels, shuffle: random.Random) -> None:
    other = labels.copy()
    shuffle.shuffle(other)
    assert _named(labels, _drawn(labels)) == _named(other, _drawn(other))


def test_a_seed_gives_its_draws_again_and_another_seed_gives_others() -> None:
    labels = [(f"p{n}", str(m)) for n in range(20) for m in range(4)]
    assert _named(labels, _drawn(labels, seed=4)) == _named(labels, _drawn(labels, seed=4))
    assert _named(labels, _drawn(labels, seed=4)) != _named(labels, _drawn(labels, seed=5))
    first, second, _ = _drawn(labels, seed=4)
    assert _named(labels, [first]) != _named(labels, [second])


@pytest.mark.parametrize("count", [1, 2])
def test_more_draws_leave_the_first_ones_as_they_are(count: int) -> None:
    labels = [(f"p{n}", str(m)) for n in range(6) for m in range(3)]
    assert _named(labels, _drawn(labels, count=count)) == _named(labels, _drawn(labels, count=3)[:count])


def test_everybody_is_enrolled_now_and_then() -> None:
    labels = [(f"p{n}", str(m)) for n in range(6) for m in range(3)]
    enrolled = np.concatenate([draw.open_set.enrolled.ravel() for draw in _drawn(labels, count=50)])
    assert set(enrolled.tolist()) == set(range(len(labels)))
