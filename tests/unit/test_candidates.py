"""One row a person, in an order that only scores decide, whatever the order in which captures were found (G7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from builders import ORI, uuid_named
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.candidates import LEAD_NOTICE, ScoredCapture, consolidate, person_of

if TYPE_CHECKING:
    import random

captures = st.lists(
    st.builds(
        lambda person, booking, name, score: ScoredCapture(
            person=person,
            ori=ORI,
            booking_number=booking,
            capture_id=uuid_named(name),
            synthetic=False,
            score=score,
        ),
        st.sampled_from(["sid:1", "sid:2", "sid:3", "booking:CA0190000/B-1"]),
        st.sampled_from(["B-1", "B-2"]),
        st.sampled_from("abcdef"),
        st.sampled_from([-0.25, 0.0, 0.5, 0.500001, 1.0]),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(captures, st.integers(0, 6))
def test_each_person_stands_once_by_the_best_capture(found: list[ScoredCapture], length: int) -> None:
    listed = consolidate(found, length)
    assert len({row.person for row in listed}) == len(listed) == min(length, len({c.person for c in found}))
    for row in listed:
        assert row.score == max(c.score for c in found if c.person == row.person)


@settings(max_examples=60, deadline=None)
@given(captures, st.integers(0, 6))
def test_ranks_count_from_one_and_scores_never_rise(found: list[ScoredCapture], length: int) -> None:
    listed = consolidate(found, length)
    assert [row.rank for row in listed] == list(range(1, len(listed) + 1))
    assert [row.score for row in listed] == sorted((row.score for row in listed), reverse=True)
    left_out = {c.person for c in found} - {row.person for row in listed}
    assert all(c.score <= listed[-1].score for c in found if c.person in left_out and listed)


@settings(max_examples=60, deadline=None)
@given(captures, st.randoms(use_true_random=False), st.integers(0, 6))
def test_the_list_does_not_depend_on_the_order_in_which_captures_were_found(
    found: list[ScoredCapture], order: random.Random, length: int
) -> None:
    shuffled = list(found)
    order.shuffle(shuffled)
    assert consolidate(shuffled, length) == consolidate(found, length)


@settings(max_examples=60, deadline=None)
@given(captures)
def test_a_longer_list_begins_with_the_shorter_one(found: list[ScoredCapture]) -> None:
    for length in range(5):
        assert consolidate(found, 5)[:length] == consolidate(found, length)


def test_nobody_found_is_an_empty_list() -> None:
    assert consolidate([], 20) == ()


@pytest.mark.parametrize(
    ("sid", "person"), [("A1", "sid:A1"), (None, "booking:CA0190000/B-1"), ("", "booking:CA0190000/B-1")]
)
def test_a_booking_belongs_to_the_states_person_where_there_is_one(sid: str | None, person: str) -> None:
    assert person_of(sid, "CA0190000/B-1") == person


def test_the_notice_says_that_a_list_is_no_identification() -> None:
    assert "not an identification" in LEAD_NOTICE
    assert "not probable cause" in LEAD_NOTICE
