"""A generation built from another: what counts is made anew, once, whatever was written beside it (G5)."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from builders import JAIL, NOW, ORI, POLICY, booking_recorded, capture, record_order, signed, unsigned, uuid_named

from processors.extraction import ExtractedFace
from processors.refusals import Refusal, RefusalCode
from processors.templates import template_to_bytes, to_template
from schemas.codec import decode, encode
from schemas.errors import DomainFault, IntegrityError, TransientError
from schemas.events import EnrolledCapture, OrderKind, TemplatesEnrolled, TemplatesWithdrawn, WithdrawalCause
from schemas.keys import key_of, partition_of
from schemas.positions import SourcePosition
from schemas.topics import BOOKING_EVENTS, GALLERY, TOPICS
from streams.rebuild import Rebuild, RebuildParts, Tally

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from contextlib import AbstractContextManager
    from uuid import UUID

    from processors.extraction import Extraction
    from schemas.records import LogRecord
    from streams.ports import LogTail

OLD, NEW = "aa" * 32, "bb" * 32
TARGET = f"{GALLERY}.{NEW[:16]}"
FACE = np.random.default_rng(2).normal(size=8)


class World:
    """Kafka, the object store and the new pack in memory."""

    def __init__(self) -> None:
        self.topics: dict[str, list[list[LogRecord]]] = {
            topic: [[] for _ in range(TOPICS[GALLERY].partitions)] for topic in (BOOKING_EVENTS, GALLERY, TARGET)
        }
        self.extracted: list[bytes] = []
        self.fault: DomainFault | TransientError | None = None

    # Kafka.

    def put(self, topic: str, record: LogRecord) -> SourcePosition:
        partition = partition_of(topic, record.key or b"")
        log = self.topics[topic][partition]
        log.append(replace(record, topic=topic, partition=partition, offset=len(log)))
        return log[-1].position

    def end_offsets(self, topics: Collection[str]) -> Mapping[tuple[str, int], int]:
        return {(topic, number): len(log) for topic in topics for number, log in enumerate(self.topics[topic])}

    def read(self, topic: str, partition: int, start: int, stop: int) -> Iterator[LogRecord]:
        yield from self.topics[topic][partition][start:stop]

    def record_at(self, topic: str, partition: int, offset: int) -> LogRecord:
        log = self.topics[topic][partition]
        if offset >= len(log):
            raise IntegrityError("not in Kafka any more")
        return log[offset]

    def tail(self, start: Mapping[tuple[str, int], int]) -> LogTail:
        raise NotImplementedError

    def decided_since(self, partition: int, request_offset: int) -> Collection[UUID]:
        raise NotImplementedError

    # Object store and pack.

    def get(self, reference: str, expected_sha256: str, *, scope: str | None = None) -> bytes:
        assert expected_sha256
        assert scope
        if self.fault is not None:
            raise self.fault
        return reference.encode()

    def destroy_key(self, scope: str) -> None:
        raise NotImplementedError

    def extract(self, photo: bytes, /) -> Extraction:
        self.extracted.append(photo)
        if b"nobody" in photo:
            return Refusal(code=RefusalCode.NO_FACE, message="No face.")
        return ExtractedFace(
            template=to_template(FACE),
            model_digest=NEW,
            measurements={"unified_quality": 80.0},
            box_px=(0.0, 0.0, 1.0, 1.0),
        )

    def attempt(self, position: SourcePosition, number: int, /) -> AbstractContextManager[None]:
        assert position.topic == BOOKING_EVENTS
        assert number >= 0
        return nullcontext()

    # What was booked.

    def enrolled(self, number: str, photo: str = "somebody") -> SourcePosition:
        booking = booking_recorded(number, captures=(capture("a", reference=photo),))
        source = self.put(BOOKING_EVENTS, signed(booking, JAIL, offset=0))
        self.put(GALLERY, unsigned(templates(number, source), offset=0))
        return source

    def withdrawn(self, number: str, cause: WithdrawalCause) -> None:
        source = self.put(BOOKING_EVENTS, signed(booking_recorded(number), JAIL, offset=0))
        self.put(GALLERY, unsigned(TemplatesWithdrawn(**facts(number, source), cause=cause), offset=0))

    def rebuild(self) -> Rebuild:
        anything: Any = self
        parts = RebuildParts(
            kafka=anything,
            objects=anything,
            extractor=self,
            attempts=self,
            policy=POLICY,
            clock=lambda: NOW,
            send=self._sent,
        )
        return Rebuild(GALLERY, TARGET, NEW, parts, threads=2)

    def _sent(self, topic: str, record: TemplatesEnrolled | TemplatesWithdrawn) -> None:
        self.put(topic, unsigned(record, offset=0))


def facts(number: str, source: SourcePosition) -> dict[str, Any]:
    return {
        "event_id": uuid_named(number),
        "occurred_at": NOW,
        "actor": "system:worker",
        "ori": ORI,
        "booking_number": number,
        "source": source,
        "source_said_at": NOW,
    }


def templates(number: str, source: SourcePosition, model: str = OLD) -> TemplatesEnrolled:
    taken = EnrolledCapture(capture_id=uuid_named("a"), template=template_to_bytes(to_template(FACE)), quality=0.9)
    return TemplatesEnrolled(**facts(number, source), model_digest=model, captures=(taken,))


def built(world: World) -> Tally:
    rebuild = world.rebuild()
    told: list[int] = []
    tally = rebuild.run(rebuild.missing(), lambda tally: told.append(tally.done))
    assert told == list(range(1, tally.done + 1))
    return tally


@pytest.fixture
def world() -> World:
    return World()


def test_enrolled_bookings_are_extracted_anew_and_withdrawals_said_again(world: World) -> None:
    for number in ("B-1", "B-2", "B-3"):
        world.enrolled(number)
    world.enrolled("B-4", "nobody to this pack")
    world.withdrawn("B-5", WithdrawalCause.SEALED)
    tally = built(world)
    assert (tally.enrolled, tally.not_enrolled, tally.withdrawn) == (3, 1, 1)
    assert world.rebuild().missing() == {}
    assert built(world).done == 0, "what is there is not made again"


def test_a_booking_without_a_usable_photo_gets_its_chance_with_the_new_pack(world: World) -> None:
    world.withdrawn("B-1", WithdrawalCause.NO_USABLE_CAPTURE)
    assert built(world).done == 1


def test_only_what_counts_is_made(world: World) -> None:
    """G5: a booking that was enrolled, then sealed, is extracted no more."""
    world.enrolled("B-1")
    world.withdrawn("B-1", WithdrawalCause.SEALED)
    tally = built(world)
    assert (tally.enrolled, tally.withdrawn, world.extracted) == (0, 1, [])


def test_what_an_unseal_enrolled_again_is_made_from_the_booking_behind_it(world: World) -> None:
    """And a seal carries on which booking that is, for the unseal that comes after the change of packs."""
    for number in ("B-1", "B-2"):
        booked = world.enrolled(number, f"photo of {number}")
        unseal = world.put(BOOKING_EVENTS, signed(record_order(OrderKind.UNSEAL, number), JAIL, offset=0))
        again = replace(templates(number, unseal), booking_offset=booked.offset)
        world.put(GALLERY, unsigned(again, offset=0))
    seal = world.put(BOOKING_EVENTS, signed(record_order(OrderKind.SEAL, "B-2"), JAIL, offset=0))
    sealed = TemplatesWithdrawn(**facts("B-2", seal), cause=WithdrawalCause.SEALED, booking_offset=booked.offset)
    world.put(GALLERY, unsigned(sealed, offset=0))
    tally = built(world)
    assert (tally.enrolled, tally.withdrawn, world.extracted) == (1, 1, [b"photo of B-1"])
    made: list[Any] = [decode(record.value) for log in world.topics[TARGET] for record in log]
    assert all(event.booking_offset < event.source.offset for event in made)
    assert {event.booking_number: event.booking_offset for event in made}["B-2"] == booked.offset


def test_what_workers_wrote_beside_it_and_is_newer_stays_in_force(world: World) -> None:
    world.enrolled("B-1")
    rebuild = world.rebuild()
    missing = rebuild.missing()
    later = SourcePosition(topic=BOOKING_EVENTS, partition=0, offset=99)
    sealed = TemplatesWithdrawn(**facts("B-1", later), cause=WithdrawalCause.SEALED)
    for topic in (GALLERY, TARGET):
        world.put(topic, unsigned(sealed, offset=0))
    rebuild.run(missing, lambda _: None)
    key = key_of(sealed).decode()
    partition = partition_of(TARGET, key.encode())
    assert len(world.topics[TARGET][partition]) == 2, "the late enrolment came after the seal"
    assert rebuild.missing() == {}
    entry = rebuild._target.catch_up().entry(key)
    assert entry is not None
    assert entry.withdrawn is WithdrawalCause.SEALED


def test_a_template_that_no_booking_in_kafka_explains_is_not_taken_over(world: World) -> None:
    world.put(
        GALLERY, unsigned(templates("S-1", SourcePosition(topic=BOOKING_EVENTS, partition=0, offset=7)), offset=0)
    )
    tally = built(world)
    assert (tally.not_enrolled, world.extracted) == (1, [])


def test_a_photo_that_is_gone_or_fails_is_refused_and_the_build_goes_on(world: World) -> None:
    world.enrolled("B-1")
    for code in ("REFERENCE_UNRESOLVED", "POISON"):
        world.fault = DomainFault(code, "It cannot be had.")
        tally = built(world)
        assert (tally.enrolled, tally.not_enrolled) == (0, 1)
        world.topics[TARGET] = [[] for _ in world.topics[TARGET]]


def test_a_store_that_is_away_stops_the_build_and_nothing_is_made_of_it(world: World) -> None:
    world.enrolled("B-1")
    world.fault = TransientError("The store is away.")
    rebuild = world.rebuild()
    with pytest.raises(TransientError):
        rebuild.run(rebuild.missing(), lambda _: None)
    world.fault = None
    assert built(world).enrolled == 1


def test_a_record_made_anew_says_whose_it_is_and_when_its_publisher_spoke(world: World) -> None:
    world.enrolled("B-1")
    built(world)
    (record,) = [record for log in world.topics[TARGET] for record in log]
    (source,) = [record.position for log in world.topics[BOOKING_EVENTS] for record in log]
    expected = templates("B-1", source, NEW)
    assert record.key == key_of(expected)
    made = decode(record.value)
    assert isinstance(made, TemplatesEnrolled)
    assert (made.source, made.source_said_at, made.model_digest) == (source, NOW, NEW)
    assert encode(made) == record.value
