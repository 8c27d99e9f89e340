"""What a worker knows: applied in order, never ahead of what it says, never behind what it was asked to wait for (G5).

The log is in memory here; the road over Kafka is tested end to end.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from builders import (
    ALICE,
    FOUNDING,
    NOW,
    ORI,
    ROOT,
    STRANGER,
    access_revoked,
    agency_registered,
    signed,
    unsigned,
    user_registered,
    uuid_named,
)
from confluent_kafka import KafkaError
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from connectors import log_reader
from connectors.faiss_gallery import FaissGallery
from connectors.log_reader import LogReader
from processors.access import Directory, Standing
from processors.enrolments import read_enrolments
from processors.refusals import Refusal, RefusalCode
from processors.templates import template_to_bytes, to_template
from schemas.errors import ContractError, IntegrityError, TransientError
from schemas.events import EnrolledCapture, TemplatesEnrolled, TemplatesWithdrawn, WithdrawalCause
from schemas.positions import SourcePosition
from schemas.topics import ACCESS, BOOKING_EVENTS, GALLERY, TOPICS
from streams import follower
from streams import replica as replica_module
from streams.generation import Generation
from streams.replica import Replica, until_reached

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from uuid import UUID

    from processors.extraction import Extraction
    from schemas.records import LogRecord
    from streams.ports import LogTail

DIMENSION = 8
MODEL = "ab" * 32
FACES = [to_template(vector) for vector in np.random.default_rng(5).normal(size=(6, DIMENSION))]
SEALED = WithdrawalCause.SEALED


class LogInMemory:
    """Where the followed topics end, as the test says."""

    def __init__(self) -> None:
        self.ends = {(topic, part): 0 for topic in (GALLERY, ACCESS) for part in range(TOPICS[topic].partitions)}
        self.is_away = False

    def end_offsets(self, topics: Collection[str]) -> Mapping[tuple[str, int], int]:
        if self.is_away:
            raise TransientError("Kafka is away.")
        return {tp: end for tp, end in self.ends.items() if tp[0] in topics}

    def tail(self, start: Mapping[tuple[str, int], int]) -> LogTail:
        raise NotImplementedError

    def record_at(self, topic: str, partition: int, offset: int) -> LogRecord:
        raise NotImplementedError

    def decided_since(self, partition: int, request_offset: int) -> Collection[UUID]:
        raise NotImplementedError


class NoExtractor:
    """A replica extracts nothing."""

    def extract(self, photo: bytes, /) -> Extraction:
        raise NotImplementedError


def replica_of(gallery: FaissGallery, directory: Directory, log: LogInMemory) -> Replica:
    generation = Generation(
        topic=GALLERY,
        gallery=gallery,
        extractor=NoExtractor(),
        dimension=DIMENSION,
        threshold_of=lambda _: 0.5,
    )
    return Replica(generations=[generation], directory=directory, kafka=log)


class Bench:
    def __init__(self) -> None:
        self.log = LogInMemory()
        self.gallery = FaissGallery(dimension=DIMENSION, model_digest=MODEL)
        self.directory = Directory(ROOT.public_key)
        self.replica = replica_of(self.gallery, self.directory, self.log)

    def apply(self, *records: LogRecord) -> None:
        asyncio.run(self.replica.apply_gallery(GALLERY, records))

    def searchable(self) -> dict[str, int]:
        """Booking number -> which face is found for it."""
        found = {}
        for face, template in enumerate(FACES):
            for row in self.gallery.search(template, 50).candidates:
                if row.score == 1.0:
                    found[row.booking_number] = face
        return found


@pytest.fixture
def bench() -> Bench:
    return Bench()


def gallery_record(
    offset: int, source_offset: int, what: int | WithdrawalCause, booking: str = "B-1", **changes: Any
) -> LogRecord:
    """Return a record of the gallery topic: a face by number, or why the booking was withdrawn."""
    source = SourcePosition(topic=BOOKING_EVENTS, partition=0, offset=source_offset)
    facts: dict[str, Any] = {
        "event_id": uuid_named(f"{booking} {source}"),
        "occurred_at": NOW,
        "actor": "system:worker",
        "ori": ORI,
        "booking_number": booking,
        "source": source,
        "source_said_at": NOW,
    }
    if isinstance(what, WithdrawalCause):
        return unsigned(TemplatesWithdrawn(**facts, cause=what), offset=offset)
    capture = EnrolledCapture(capture_id=uuid_named(booking), template=template_to_bytes(FACES[what]), quality=0.9)
    facts |= {"model_digest": MODEL, "captures": (capture,), **changes}
    return unsigned(TemplatesEnrolled(**facts), offset=offset)


# Gallery records.


def test_what_is_enrolled_can_be_found_and_what_is_withdrawn_cannot(bench: Bench) -> None:
    bench.apply(gallery_record(0, 10, 0), gallery_record(1, 10, 1, "B-2"))
    assert bench.searchable() == {"B-1": 0, "B-2": 1}
    bench.apply(gallery_record(2, 11, SEALED))
    assert bench.searchable() == {"B-2": 1}


@pytest.mark.parametrize("many", [1, 3])
def test_the_quality_of_a_capture_is_kept_for_the_fusion_of_its_person(bench: Bench, many: int) -> None:
    shown = tuple(
        EnrolledCapture(capture_id=uuid_named(str(n)), template=template_to_bytes(FACES[n]), quality=(0.0, 0.5, 1.0)[n])
        for n in range(many)
    )
    bench.apply(gallery_record(0, 10, 0, captures=shown))
    (piece,) = bench.gallery.state.pieces
    kept = {identity.capture_id: identity.quality for identity in map(piece.segment.ids.__getitem__, range(many))}
    assert kept == {each.capture_id: pytest.approx(each.quality, abs=0.5 / 127) for each in shown}


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_late_repeat_of_an_enrolment_never_brings_a_withdrawn_booking_back(bench: Bench, size: int) -> None:
    log = [
        gallery_record(0, 10, 0),
        gallery_record(1, 11, SEALED),
        gallery_record(2, 10, 0),
        gallery_record(3, 10, 0),
        gallery_record(4, 9, 1),
    ]
    for start in range(0, len(log), size):
        bench.apply(*log[start : start + size])
    assert bench.searchable() == {}
    assert bench.replica.active.ledger.to_put_at_the_end_again() == {f"{ORI}/B-1": (0, 1)}


def test_a_replica_made_from_the_compacted_log_holds_the_same(bench: Bench) -> None:
    # A repeated decision that differs from the first: the last counts on both (G7).
    first, repeat = gallery_record(0, 10, WithdrawalCause.NO_USABLE_CAPTURE), gallery_record(1, 10, 0)
    bench.apply(first, repeat)
    compacted = Bench()
    compacted.apply(repeat)
    assert bench.searchable() == compacted.searchable() == {"B-1": 0}


@pytest.mark.parametrize(
    "changes",
    [
        {"model_digest": "cd" * 32},
        {"captures": (EnrolledCapture(capture_id=uuid_named("x"), template=b"short", quality=0.9),)},
        {"captures": (EnrolledCapture(capture_id=uuid_named("x"), template=bytes(2 * DIMENSION), quality=0.9),)},
    ],
    ids=["another model", "another dimension", "no template"],
)
def test_templates_that_cannot_be_searched_still_replace_what_was_enrolled_before(
    bench: Bench, changes: dict[str, Any]
) -> None:
    # After compaction the earlier record is gone; a replica that went on with it would differ from a new one (G7).
    bench.apply(gallery_record(0, 10, 0))
    bench.apply(gallery_record(1, 11, 1, **changes))
    compacted = Bench()
    compacted.apply(gallery_record(1, 11, 1, **changes))
    assert bench.searchable() == compacted.searchable() == {}
    assert bench.replica.watermark(GALLERY)[0] == 2


TWO = tuple(
    EnrolledCapture(capture_id=uuid_named(str(face)), template=template_to_bytes(FACES[face]), quality=0.9)
    for face in (4, 5)
)
KINDS: list[tuple[int | WithdrawalCause, str, dict[str, Any]]] = [
    (0, "B-1", {}),
    (1, "B-1", {}),
    (SEALED, "B-1", {}),
    (1, "B-2", {"model_digest": "cd" * 32}),
    (2, "B-2", {"captures": TWO, "sid": "A1"}),
    (2, "B-3", {"captures": ()}),
    (3, "B-3", {"captures": (replace(TWO[0], template=b"short"), TWO[1])}),
    (3, "B-4", {"captures": (replace(TWO[0], template=bytes(2 * DIMENSION)),)}),
    (3, "B-4", {}),
    (0, "B-5", {"sid": "A1", "synthetic": True}),
    (1, "B-5", {"sid": "A2"}),
    (WithdrawalCause.NO_USABLE_CAPTURE, "B-5", {}),
    (2, "B-6", {"sid": "A1", "captures": (replace(TWO[0], quality=float("nan")),)}),
    (3, "ü-7", {"sid": "Å3"}),
    (4, "B-8", {"captures": (replace(TWO[0], template=b"\xff" * 2 * DIMENSION),)}),
    (4, "B-8", {"captures": TWO, "sid": "A2"}),
]
logs = st.lists(st.tuples(st.integers(0, len(KINDS) - 1), st.integers(0, 3)), max_size=25)
damages = st.lists(st.tuples(st.integers(0, 24), st.integers(0, 400), st.integers(0, 255)), max_size=4)


def log_of(said: list[tuple[int, int]], damage: list[tuple[int, int, int]]) -> list[LogRecord]:
    """Return records of every kind and partition, from any source offsets, some of them damaged."""
    log = [
        gallery_record(offset, 10 + source, KINDS[which][0], KINDS[which][1], **KINDS[which][2])
        for offset, (which, source) in enumerate(said)
    ]
    log = [replace(record, partition=record.offset % 3) for record in log]
    for which, at, byte in damage:
        if which < len(log):
            value = log[which].value or b""
            log[which] = replace(log[which], value=value[:at] + bytes([byte]) + value[at + 1 :])
    return log


def everything_told(bench: Bench) -> tuple[object, ...]:
    """Whatever anybody can learn from a replica, lists byte for byte."""
    ledger = bench.replica.active.ledger
    return (
        [repr(bench.gallery.search(template, length)) for template in FACES for length in (1, 3, 50)],
        sorted(
            (repr(identity), piece.segment.templates[row].tobytes())
            for piece in bench.gallery.state.pieces
            for row in piece.live_rows().tolist()
            for identity in (piece.segment.ids[row],)
        ),
        bench.replica.applied,
        dict(ledger.entries()),
        ledger.to_put_at_the_end_again(),
    )


@given(logs, damages, st.integers(1, 25), st.integers(1, 4))
@settings(max_examples=80, deadline=None)
def test_a_batch_means_what_its_records_mean_one_by_one(
    said: list[tuple[int, int]], damage: list[tuple[int, int, int]], size: int, fewest: int
) -> None:
    """G5, G7: a replica that reads a million records in batches, by columns where it can, and one that decodes each."""
    log = log_of(said, damage)
    alone, together = Bench(), Bench()
    with capture_logs() as faults_alone:
        for record in log:
            alone.apply(record)
    with capture_logs() as faults_together, pytest.MonkeyPatch.context() as patch:
        patch.setattr(replica_module, "read_enrolments", partial(read_enrolments, fewest=fewest))
        for start in range(0, len(log), size):
            together.apply(*log[start : start + size])
    assert everything_told(together) == everything_told(alone)
    assert sorted(map(repr, faults_together)) == sorted(map(repr, faults_alone))


def test_a_million_alike_would_be_read_by_columns(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("A usual enrolment was read by itself.")

    monkeypatch.setattr(replica_module, "_read_by_itself", refuse)
    bench.apply(*(gallery_record(number, 10, number % 6, f"B-{number:03d}") for number in range(100)))
    assert bench.gallery.templates == 100
    assert {row.booking_number for row in bench.gallery.search(FACES[2], 50).candidates[:17]} == {
        f"B-{number:03d}" for number in range(100) if number % 6 == 2
    }


@pytest.mark.parametrize("value", [None, b"", b"\xc3\x01garbage", b"\x00" * 64])
def test_a_record_that_is_no_event_is_passed_over(bench: Bench, value: bytes | None) -> None:
    bench.apply(gallery_record(0, 10, 0), replace(gallery_record(1, 11, 1), value=value), gallery_record(2, 12, 2))
    assert bench.searchable() == {"B-1": 2}
    assert bench.replica.watermark(GALLERY)[0] == 3


def test_an_event_of_another_topic_is_passed_over(bench: Bench) -> None:
    stray = replace(unsigned(agency_registered()), topic=GALLERY)
    bench.apply(stray, gallery_record(1, 10, 0))
    assert bench.searchable() == {"B-1": 0}


def test_the_list_names_the_watermark_of_the_gallery_that_was_searched(bench: Bench) -> None:
    bench.apply(gallery_record(0, 10, 0), gallery_record(4, 11, 1))
    assert bench.gallery.search(FACES[0], 5).watermark == {0: 5}
    assert bench.replica.watermark(GALLERY) == [5, 0, 0, 0, 0, 0, 0, 0]


# Access records.


def access_log() -> list[LogRecord]:
    return [signed(event, key, offset=offset) for offset, (event, key) in enumerate(FOUNDING)]


def test_access_events_are_folded_and_those_that_may_not_be_said_are_remembered_for_reporting(bench: Bench) -> None:
    log = access_log()
    unusable = signed(user_registered("eve", b"short"), ROOT, offset=len(log))
    unauthenticated = signed(access_revoked("alice"), STRANGER, offset=len(log) + 1)
    garbage = replace(unauthenticated, offset=len(log) + 2, value=b"garbage")
    asyncio.run(bench.replica.apply_access([*log, unusable, unauthenticated, garbage]))
    assert bench.directory.users["alice"].standing is Standing.GRANTED
    refusals = bench.replica.access_refusals
    assert list(refusals) == [len(log), len(log) + 1, len(log) + 2]
    assert isinstance(refusals[len(log)], ContractError)
    refused = refusals[len(log) + 1]
    assert isinstance(refused, Refusal)
    assert refused.code is RefusalCode.UNAUTHENTICATED
    assert isinstance(refusals[len(log) + 2], ContractError)
    assert bench.replica.watermark(ACCESS) == [len(log) + 3]


def test_what_was_reported_is_forgotten_and_what_was_not_is_kept(bench: Bench) -> None:
    records = [signed(access_revoked("alice"), STRANGER, offset=offset) for offset in range(5)]
    asyncio.run(bench.replica.apply_access(records))
    bench.replica.forget_access_refusals(before=3)
    assert list(bench.replica.access_refusals) == [3, 4]


def test_a_decision_never_names_an_older_access_watermark_than_the_state_it_saw(bench: Bench) -> None:
    async def decide_while_others_wake_up() -> None:
        async with bench.replica._moved:
            applying = asyncio.create_task(bench.replica.apply_access(access_log()))
            await asyncio.sleep(0)
            assert ("alice" in bench.directory.users) == (bench.replica.watermark(ACCESS) == [len(FOUNDING)])
        await applying

    asyncio.run(decide_while_others_wake_up())


# The read barrier.


def test_the_barrier_is_passed_at_once_when_nothing_is_missing(bench: Bench) -> None:
    assert asyncio.run(bench.replica.read_barrier(60))


def test_the_barrier_waits_for_everything_that_stood_in_both_topics(bench: Bench) -> None:
    async def passes() -> None:
        bench.log.ends[GALLERY, 0] = 2
        bench.log.ends[ACCESS, 0] = len(FOUNDING)
        barrier = asyncio.create_task(bench.replica.read_barrier(60))
        await bench.replica.apply_gallery(GALLERY, [gallery_record(0, 10, 0), gallery_record(1, 11, SEALED)])
        for _ in range(20):
            await asyncio.sleep(0)
        assert not barrier.done()
        await bench.replica.apply_access(access_log())
        assert await barrier
        assert bench.searchable() == {}
        assert bench.directory.users["alice"].public_key == ALICE.public_key

    asyncio.run(passes())


def test_what_is_written_after_the_question_is_not_waited_for(bench: Bench) -> None:
    async def passes() -> None:
        bench.log.ends[GALLERY, 0] = 1
        asked = asyncio.Event()
        loop, end_offsets = asyncio.get_running_loop(), bench.log.end_offsets

        def ask(topics: Collection[str]) -> Mapping[tuple[str, int], int]:
            ends = end_offsets(topics)
            bench.log.ends[GALLERY, 0] = 100
            loop.call_soon_threadsafe(asked.set)
            return ends

        bench.log.end_offsets = ask  # type: ignore[method-assign]  # what happens between question and answer
        barrier = asyncio.create_task(bench.replica.read_barrier(60))
        await asked.wait()
        await bench.replica.apply_gallery(GALLERY, [gallery_record(0, 10, 0)])
        assert await barrier

    asyncio.run(passes())


def test_a_barrier_that_cannot_be_reached_within_its_limit_says_so(bench: Bench) -> None:
    bench.log.ends[GALLERY, 7] = 1

    async def waits() -> None:
        assert not await bench.replica.read_barrier(0.01)
        with pytest.raises(TransientError):
            await until_reached(bench.replica, 0.01)

    asyncio.run(waits())


def test_kafka_away_is_not_the_same_as_behind(bench: Bench) -> None:
    bench.log.is_away = True
    with pytest.raises(TransientError):
        asyncio.run(bench.replica.read_barrier(60))


def test_a_topic_that_ends_before_what_was_applied_stops_the_worker(bench: Bench) -> None:
    # Lost records, or a topic made anew: "everything has been applied" would be true and mean nothing (G5).
    bench.apply(gallery_record(0, 10, 0), gallery_record(1, 11, SEALED))
    bench.log.ends[GALLERY, 0] = 1
    with pytest.raises(IntegrityError, match=GALLERY):
        asyncio.run(bench.replica.read_barrier(60))


# The follower and its reader.


class BrokenTail:
    """Gives the records from where it was opened on; at one offset, once, it takes a record and then fails."""

    def __init__(self, records: list[LogRecord], start: int, fails_at: list[int], marks: int = 0) -> None:
        self._records, self._position, self._fails_at = records, start, fails_at
        self.marks = marks
        """Offsets behind the records that hold none, as at the end of a transaction."""
        self.is_closed = False

    def read(self, _: float) -> list[LogRecord]:
        assert not self.is_closed
        if self._position in self._fails_at:
            self._fails_at.remove(self._position)
            self._position += 1
            raise TransientError("Kafka is away.")
        found = self._records[self._position : self._position + 1]
        self._position += len(found)
        return found

    def passed(self) -> dict[tuple[str, int], int]:
        return {(GALLERY, 0): len(self._records) + self.marks} if self._position >= len(self._records) else {}

    def close(self) -> None:
        self.is_closed = True


class ApplyingChannel:
    """A channel whose agent applies what is put in it, a little later."""

    subscriber_count = 1

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._tasks: set[asyncio.Task[None]] = set()

    async def put(self, batch: list[LogRecord]) -> None:
        task = asyncio.create_task(self._replica.apply_gallery(GALLERY, batch))
        self._tasks.add(task)


def test_what_a_failing_reader_had_taken_is_read_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "RETRY_S", 0.001)
    log = [gallery_record(0, 10, 0), gallery_record(1, 11, SEALED), gallery_record(2, 12, 1, "B-2")]
    fails_at, opened = [0, 1, 2], []

    def tail(start: Mapping[tuple[str, int], int]) -> LogTail:
        opened.append(BrokenTail(log, start[GALLERY, 0], fails_at))
        return opened[-1]

    monkeypatch.setattr(bench.log, "tail", tail)

    async def follow() -> None:
        channels: Any = {GALLERY: ApplyingChannel(bench.replica)}
        service = follower.Follower(bench.log, bench.replica, channels)
        await service.start()
        await asyncio.wait_for(bench.replica.reached({(GALLERY, 0): 3}), timeout=30)
        await service.stop()

    asyncio.run(follow())
    assert bench.searchable() == {"B-2": 1}
    assert len(opened) == 4
    assert all(one.is_closed for one in opened)


def test_the_barrier_is_passed_though_the_topic_ends_with_something_that_is_no_record(bench: Bench) -> None:
    """G12: one transaction of anybody's would otherwise stop every search until the next record."""
    log = [gallery_record(0, 10, 0)]
    bench.log.ends[GALLERY, 0] = 2
    bench.log.tail = lambda start: BrokenTail(log, start[GALLERY, 0], [], marks=1)  # type: ignore[method-assign]

    async def follow() -> bool:
        channels: Any = {GALLERY: ApplyingChannel(bench.replica)}
        service = follower.Follower(bench.log, bench.replica, channels)
        await service.start()
        passed = await bench.replica.read_barrier(30)
        await service.stop()
        return passed

    assert asyncio.run(follow())
    assert bench.replica.watermark(GALLERY)[0] == 2
    assert bench.gallery.search(FACES[0], 2).watermark == {0: 2}
    assert bench.searchable() == {"B-1": 0}


class ScriptedConsumer:
    """A Kafka client that gives what the script says."""

    def __init__(self, script: Iterable[object]) -> None:
        self._script = list(script)

    def assign(self, _: object) -> None:
        """Accept."""

    def poll(self, _: float) -> object:
        return self._script.pop(0) if self._script else None

    def consume(self, count: int, _: float) -> list[object]:
        taken, self._script = self._script[:count], self._script[count:]
        return taken


class Arrived:
    """A message of the client: a record at an offset, or an error."""

    def __init__(self, offset: int | None) -> None:
        self._offset = offset

    def error(self) -> KafkaError | None:
        return KafkaError(KafkaError._TRANSPORT, "broker is away") if self._offset is None else None

    def topic(self) -> str:
        return GALLERY

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        assert self._offset is not None
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, 0

    def key(self) -> bytes:
        return b"key"

    def value(self) -> bytes:
        return b"value"

    def headers(self) -> None:
        return None


@pytest.mark.parametrize("script", [(None, 0, 1), (0, None, 1), (0, 1, None), (0, None, None, 1)])
def test_an_error_among_records_takes_none_of_them_along(
    monkeypatch: pytest.MonkeyPatch, script: tuple[int | None, ...]
) -> None:
    # They have been consumed and would never come again: a replica would miss a withdrawal for ever (G5).
    monkeypatch.setattr(log_reader, "Consumer", lambda _: ScriptedConsumer(map(Arrived, script)))
    assert [record.offset for record in LogReader({}).read(0)] == [0, 1]


@pytest.mark.parametrize("most", [1, 2, 3, 100])
def test_a_reader_takes_as_many_as_it_may_and_no_record_twice(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    script = [0, None, 1, 2, 3, None, 4, 5]
    monkeypatch.setattr(log_reader, "Consumer", lambda _: ScriptedConsumer(map(Arrived, script)))
    reader, offsets = LogReader({}, most=most), []
    for _ in script:
        try:
            records = reader.read(0)
        except TransientError:
            continue
        assert len(records) <= most
        assert [(record.key, record.value) for record in records] == [(b"key", b"value")] * len(records)
        offsets += [record.offset for record in records]
    assert offsets == [0, 1, 2, 3, 4, 5]


def test_nothing_but_an_error_is_the_world_being_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader, "Consumer", lambda _: ScriptedConsumer(map(Arrived, (None,))))
    tail = LogReader({})
    with pytest.raises(TransientError, match="away"):
        tail.read(0)
    assert tail.read(0) == []
