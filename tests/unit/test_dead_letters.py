"""What became of a dead letter, and what a record may say about its own past."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from builders import NOW, uuid_named
from hypothesis import given
from hypothesis import strategies as st

from processors.dead_letters import (
    HEADER_FIRST_SEEN,
    HEADER_REPLAY_COUNT,
    MAX_REPLAY_COUNT,
    Headers,
    State,
    fold,
    headers_to_replay,
    past_of,
    require_replayable,
)
from schemas.errors import DomainFault
from schemas.events import DeadLetter, DeadLetterReplayed
from schemas.positions import SourcePosition, derived_id
from schemas.topics import ACCESS, BOOKING_EVENTS, GALLERY

SIGNED: Headers = (("ls-key-id", b"0" * 32), ("ls-signature", bytes(64)))


def at(offset: int, topic: str = BOOKING_EVENTS) -> SourcePosition:
    return SourcePosition(topic=topic, partition=0, offset=offset)


def letter(
    offset: int,
    *,
    topic: str = BOOKING_EVENTS,
    replay_count: int = 0,
    reference: str | None = "object:v1:a:b",
    first_seen_at: datetime = NOW,
) -> DeadLetter:
    source = at(offset, topic)
    return DeadLetter(
        event_id=derived_id(source, "dead-letter"),
        occurred_at=NOW,
        actor="system:worker",
        source=source,
        stage="bookings",
        code="CONTRACT",
        message="No schema reads it.",
        value_sha256="0" * 64,
        value_size_bytes=7,
        reference=reference,
        first_seen_at=first_seen_at,
        replay_count=replay_count,
    )


def replayed(dead: DeadLetter, offset: int) -> DeadLetterReplayed:
    return DeadLetterReplayed(
        event_id=uuid_named(f"replay {offset}"),
        occurred_at=NOW,
        actor="system:operator",
        dead_letter_id=dead.event_id,
        replayed_as=at(offset),
        replay_count=dead.replay_count + 1,
    )


def test_a_dead_letter_is_open_until_its_original_was_put_back() -> None:
    first, second = letter(1), letter(2)
    states = [case.state for case in fold([first, second, replayed(first, 9)])]
    assert states == [State.REPLAYED, State.OPEN]


def test_a_record_that_dies_again_is_an_open_dead_letter_of_its_own_and_the_first_names_it() -> None:
    first, again = letter(1), letter(9, replay_count=1)
    before, after = fold([first, replayed(first, 9), again])
    assert (before.state, before.next_letter_id) == (State.DEAD_AGAIN, again.event_id)
    assert (after.state, after.letter.replay_count) == (State.OPEN, 1)


def test_a_dead_letter_that_is_reported_twice_counts_once_and_the_first_report_holds() -> None:
    """G11: a worker that was killed before it committed reports again."""
    (case,) = fold([letter(1), letter(1, first_seen_at=NOW + timedelta(hours=1))])
    assert case.letter.first_seen_at == NOW


def test_of_two_operators_who_replay_the_same_at_once_neither_hides_that_it_died_again() -> None:
    first, again = letter(1), letter(8)
    case, _ = fold([first, replayed(first, 8), replayed(first, 9), again])
    assert (case.state, case.replayed_as) == (State.DEAD_AGAIN, at(8))


@pytest.mark.parametrize(
    ("events", "code"),
    [
        ([letter(1), replayed(letter(1), 9)], "NOT_OPEN"),
        ([letter(1), replayed(letter(1), 9), letter(9)], "NOT_OPEN"),
        ([letter(1, reference=None)], "ORIGINAL_GONE"),
        # G3: a grant from before a revocation must not come after it.
        ([letter(1, topic=ACCESS)], "ORDER_MATTERS"),
        ([letter(1, topic=GALLERY)], "ORDER_MATTERS"),
        ([letter(1, topic="of.another.system")], "ORDER_MATTERS"),
    ],
)
def test_what_can_do_no_good_is_not_put_back(events: list[DeadLetter | DeadLetterReplayed], code: str) -> None:
    with pytest.raises(DomainFault) as refused:
        require_replayable(fold(events)[0])
    assert refused.value.code == code


def test_an_open_dead_letter_with_its_original_may_be_put_back() -> None:
    require_replayable(fold([letter(1)])[0])


def test_a_record_that_was_never_replayed_has_no_past() -> None:
    past = past_of(SIGNED, NOW)
    assert (past.first_seen_at, past.replay_count) == (NOW, 0)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2026, 11, 23), timezones=st.just(UTC)), st.integers(0, 1000))  # noqa: DTZ001
def test_what_a_replay_writes_is_what_the_next_death_reads(first_seen_at: datetime, count: int) -> None:
    dead = letter(1, replay_count=count, first_seen_at=first_seen_at)
    past = past_of(headers_to_replay(dead, SIGNED), NOW)
    assert (past.first_seen_at, past.replay_count) == (first_seen_at, count + 1)


def test_a_replay_keeps_every_header_of_the_original_and_replaces_its_own() -> None:
    once = headers_to_replay(letter(1), (*SIGNED, ("case-tool", None), ("case-tool", b"2")))
    twice = headers_to_replay(letter(9, replay_count=1), once)
    assert once[:4] == twice[:4] == (*SIGNED, ("case-tool", None), ("case-tool", b"2"))
    assert [name for name, _ in twice[4:]] == [HEADER_REPLAY_COUNT, HEADER_FIRST_SEEN]
    assert past_of(twice, NOW).replay_count == 2


headers = st.lists(
    st.tuples(
        st.sampled_from([HEADER_REPLAY_COUNT, HEADER_FIRST_SEEN, "other"]),
        st.none() | st.binary(max_size=30) | st.integers(-(10**20), 10**20).map(lambda n: str(n).encode()),
    ),
    max_size=4,
).map(tuple)


@given(headers)
def test_whatever_a_stranger_writes_about_the_past_can_be_recorded(said: Headers) -> None:
    """G12: anybody can write these headers; none of them may stop a dead letter."""
    past = past_of(said, NOW)
    assert 0 <= past.replay_count <= MAX_REPLAY_COUNT
    assert past.first_seen_at <= NOW
