"""Dead letters: what became of each, and what a record carries when it is put back.

A dead letter is open until its original is put back at the end of its topic. There it is processed anew, or dies again
as a dead letter of its own. The topic only grows, so the state of each is folded from all that was said. How often a
record was put back, and since when it is in trouble, it carries itself, in two headers that no signature covers: they
tell an operator something and decide nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING

from schemas.errors import DomainFault
from schemas.events import DeadLetter, DeadLetterReplayed, Header, OriginalRecord
from schemas.positions import derived_id
from schemas.topics import ACCESS, TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from schemas.positions import SourcePosition
    from schemas.records import LogRecord

HEADER_REPLAY_COUNT = "ls-replay-count"
HEADER_FIRST_SEEN = "ls-first-seen-us"
"""Microseconds since the epoch, UTC."""
MAX_REPLAY_COUNT = 1_000_000

_OURS = frozenset({HEADER_REPLAY_COUNT, HEADER_FIRST_SEEN})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_DIGITS = 18

Headers = tuple[tuple[str, bytes | None], ...]


class State(StrEnum):
    """What became of a dead letter."""

    OPEN = "OPEN"
    REPLAYED = "REPLAYED"
    DEAD_AGAIN = "DEAD_AGAIN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A dead letter and what became of it."""

    letter: DeadLetter
    state: State
    replayed_as: SourcePosition | None = None
    """Where its original was put back, last."""
    next_letter_id: UUID | None = None
    """The dead letter that the original became when it was put back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What a record says about its own past."""

    first_seen_at: datetime
    replay_count: int


def letter_of(
    record: LogRecord, *, actor: str, stage: str, code: str, message: str, reference: str | None, at: datetime
) -> DeadLetter:
    """Return the dead letter of a record that could not be processed.

    Args:
        record: which.
        actor: which role sets it aside.
        stage: which part of it.
        code: why.
        message: the same in words; never biometric data.
        reference: of the original bytes in the object store; None where they could not be kept.
        at: now.
    """
    value, past = record.value or b"", past_of(record.headers, at)
    return DeadLetter(
        event_id=letter_id(record),
        occurred_at=at,
        actor=actor,
        source=record.position,
        stage=stage,
        code=code,
        message=message,
        value_sha256=sha256(value).hexdigest(),
        value_size_bytes=len(value),
        reference=reference,
        first_seen_at=past.first_seen_at,
        replay_count=past.replay_count,
    )


def letter_id(record: LogRecord) -> UUID:
    """Return the identity of the dead letter of a record."""
    return derived_id(record.position, "dead-letter")


def original_of(record: LogRecord) -> OriginalRecord:
    """Return what is kept of a record that could not be processed."""
    headers = tuple(Header(name=name, value=content) for name, content in record.headers)
    return OriginalRecord(key=record.key, value=record.value, headers=headers)


def fold(events: Iterable[DeadLetter | DeadLetterReplayed]) -> tuple[Case, ...]:
    """Return the case of each dead letter, in the order of their first report; a repeated report changes nothing."""
    letters: dict[UUID, DeadLetter] = {}
    replays: dict[UUID, list[SourcePosition]] = {}
    for event in events:
        if isinstance(event, DeadLetter):
            letters.setdefault(event.event_id, event)
        else:
            replays.setdefault(event.dead_letter_id, []).append(event.replayed_as)
    died_at = {letter.source: letter.event_id for letter in letters.values()}
    return tuple(_case(letter, replays.get(letter.event_id, []), died_at) for letter in letters.values())


def _case(letter: DeadLetter, replays: list[SourcePosition], died_at: dict[SourcePosition, UUID]) -> Case:
    if not replays:
        return Case(letter=letter, state=State.OPEN)
    for position in reversed(replays):
        if position in died_at:
            return Case(letter=letter, state=State.DEAD_AGAIN, replayed_as=position, next_letter_id=died_at[position])
    return Case(letter=letter, state=State.REPLAYED, replayed_as=replays[-1])


def require_replayable(case: Case) -> None:
    """Make sure that putting the original back can do good.

    Raises:
        DomainFault: NOT_OPEN, ORDER_MATTERS or ORIGINAL_GONE; the text says what to do instead.
    """
    if case.state is State.DEAD_AGAIN:
        raise DomainFault("NOT_OPEN", f"It was replayed and died again; look at dead letter {case.next_letter_id}.")
    if case.state is State.REPLAYED:
        raise DomainFault("NOT_OPEN", f"It was replayed already, as {case.replayed_as}.")
    topic = case.letter.source.topic
    if topic == ACCESS:
        # A grant from before a revocation must not come after it (G3).
        raise DomainFault(
            "ORDER_MATTERS", "What administrators say holds in its order; have it said again instead of replaying it."
        )
    if topic not in TOPICS or not TOPICS[topic].signed:
        raise DomainFault("ORDER_MATTERS", f"Only what comes from outside is replayed; {topic} does not.")
    if case.letter.reference is None:
        raise original_gone("it could not be kept")


def original_gone(why: str) -> DomainFault:
    """Return why there is nothing to put back."""
    return DomainFault("ORIGINAL_GONE", f"The original cannot be replayed: {why}. Its sender has to send it again.")


def already_decided(probe_id: UUID) -> DomainFault:
    """Return why a probe is not put back: the first outcome of a probe in the topic is its outcome (G1)."""
    return DomainFault(
        "ALREADY_DECIDED",
        f"Probe {probe_id} has its outcome, and the first one stays; have it submitted anew.",
    )


def headers_to_replay(letter: DeadLetter, headers: Headers) -> Headers:
    """Return the original's headers, with what it says about its past brought up to date."""
    kept = tuple(header for header in headers if header[0] not in _OURS)
    first_seen_us = (letter.first_seen_at - _EPOCH) // timedelta(microseconds=1)
    return (
        *kept,
        (HEADER_REPLAY_COUNT, str(letter.replay_count + 1).encode()),
        (HEADER_FIRST_SEEN, str(first_seen_us).encode()),
    )


def past_of(headers: Headers, now: datetime) -> Past:
    """Return what a record says about its own past; what makes no sense counts as nothing said."""
    count = _number(headers, HEADER_REPLAY_COUNT)
    first_seen_us = _number(headers, HEADER_FIRST_SEEN)
    if count is None or first_seen_us is None or not 0 < count <= MAX_REPLAY_COUNT:
        return Past(first_seen_at=now, replay_count=0)
    try:
        first_seen_at = min(_EPOCH + timedelta(microseconds=first_seen_us), now)
    except OverflowError:
        first_seen_at = now
    return Past(first_seen_at=first_seen_at, replay_count=count)


def _number(headers: Headers, name: str) -> int | None:
    values = [value for header, value in headers if header == name]
    # Anybody can write these headers, so they may hold anything.
    if len(values) != 1 or not values[0] or len(values[0]) > _MAX_DIGITS or not values[0].isdigit():
        return None
    return int(values[0])
