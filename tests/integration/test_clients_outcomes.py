"""The clients on a broker: submit, await, resume; the tests play the worker and answer, twice where it may.

The broker is shared, so every test has an agency and a consumer group of its own.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from confluent_kafka import Producer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.bookings import BookingPublisher, EnrolmentConsumer, Fingerprint, Photo
from connectors.kafka_log import KafkaLog
from connectors.key_custody import FileMasterKey
from connectors.object_store import ObjectStore
from connectors.outcomes import ends_of
from connectors.probes import CandidateListConsumer, ProbeClient
from connectors.publishing import SignedPublisher
from connectors.signing_keys import SigningKey
from connectors.topic_admin import TopicAdmin
from schemas.codec import decode_for, encode, topic_of
from schemas.errors import IntegrityError, TransientError, UsageError
from schemas.events import (
    BookingOutcome,
    BookingProcessed,
    BookingRecorded,
    CandidateListIssued,
    Logon,
    OrderKind,
    ProbeRefused,
    ProbeSubmitted,
    RecordOrderReceived,
)
from schemas.keys import booking_key, key_of, partition_of
from schemas.positions import SourcePosition, derived_id
from schemas.topics import BOOKING_EVENTS, BOOKING_OUTCOMES, PROBE_OUTCOMES, PROBE_REQUESTS, TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from connectors.outcomes import OutcomeConsumer
    from schemas.events import Event

AT = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
SOMEWHERE = SourcePosition(topic=PROBE_REQUESTS, partition=0, offset=0)
JUNK = b"\xc3\x01 these bytes are no outcome"
DEADLINE_S = 60.0
PURPOSE: dict[str, Any] = {
    "reason_code": "FELONY_INVESTIGATION",
    "reason_text": "burglary in the night of 22 November",
    "case_number": "2026-4711",
    "legal_basis": "CRIMINAL_INVESTIGATION",
    "source_type": "WITNESS_PHOTO",
}


class WorkersPart:
    """Answers like a worker: unsigned, in the partition of the key, as often as it is told to."""

    def __init__(self, config: dict[str, str | int | bool]) -> None:
        self._producer = Producer({**config, "partitioner": "murmur2_random", "linger.ms": 0})

    def say(self, *events: Event) -> None:
        for event in events:
            self._producer.produce(topic_of(event), key=key_of(event), value=encode(event))
        assert self._producer.flush(DEADLINE_S) == 0

    def garble(self, topic: str, key: bytes) -> None:
        self._producer.produce(topic, key=key, value=JUNK)
        assert self._producer.flush(DEADLINE_S) == 0


@pytest.fixture(scope="module")
def config(bootstrap: str) -> dict[str, str | int | bool]:
    TopicAdmin(bootstrap).apply(TOPICS.values())
    return {"bootstrap.servers": bootstrap, "log_level": 0}


@pytest.fixture(scope="module")
def worker(config: dict[str, str | int | bool]) -> WorkersPart:
    return WorkersPart(config)


@pytest.fixture(scope="module")
def kafka(config: dict[str, str | int | bool]) -> KafkaLog:
    return KafkaLog(config)


@pytest.fixture(scope="module")
def publisher(config: dict[str, str | int | bool]) -> Iterator[SignedPublisher]:
    with SignedPublisher(config, SigningKey(Ed25519PrivateKey.generate())) as publisher:
        yield publisher


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path, FileMasterKey(bytes(range(32))))


@pytest.fixture
def ori() -> str:
    return uuid4().hex[:9].upper()


@pytest.fixture
def group() -> str:
    return f"tool-{uuid4()}"


@pytest.fixture
def bookings(publisher: SignedPublisher, objects: ObjectStore, ori: str) -> BookingPublisher:
    return BookingPublisher(publisher, objects, "jail-1", ori, clock=lambda: AT)


@pytest.fixture
def probes(publisher: SignedPublisher, objects: ObjectStore, ori: str) -> ProbeClient:
    return ProbeClient(publisher, objects, "jdoe", ori, clock=lambda: AT)


def processed(ori: str, number: str, source: SourcePosition, message: str = "") -> BookingProcessed:
    return BookingProcessed(
        event_id=derived_id(source, "processed"),
        occurred_at=AT,
        actor="system:worker",
        ori=ori,
        booking_number=number,
        source=source,
        outcome=BookingOutcome.ENROLLED,
        message=message,
        captures=(),
    )


def refused(probe_id: UUID, ori: str, message: str = "") -> ProbeRefused:
    return ProbeRefused(
        event_id=derived_id(probe_id, "outcome"),
        occurred_at=AT,
        actor="system:worker",
        probe_id=probe_id,
        user_id="jdoe",
        ori=ori,
        reason_code="FELONY_INVESTIGATION",
        case_number="2026-4711",
        request=SOMEWHERE,
        code="NO_FACE",
        message=message,
        policy_version="2026.1",
        gallery_watermark=(),
        access_watermark=(),
        measurements={},
    )


def listed(probe_id: UUID, ori: str, model_digest: str = "digest") -> CandidateListIssued:
    return CandidateListIssued(
        event_id=derived_id(probe_id, "outcome"),
        occurred_at=AT,
        actor="system:worker",
        probe_id=probe_id,
        user_id="jdoe",
        ori=ori,
        reason_code="FELONY_INVESTIGATION",
        case_number="2026-4711",
        request=SOMEWHERE,
        requested=20,
        returned=0,
        candidates=(),
        threshold=0.5,
        model_digest=model_digest,
        policy_version="2026.1",
        gallery_watermark=(),
        access_watermark=(),
        gallery_templates=0,
        gallery_persons=0,
        measurements={},
        lead_notice="A lead, not an identification.",
    )


def take(consumer: OutcomeConsumer[Any], count: int) -> list[Any]:
    """Handle outcomes until so many came and no more do."""
    taken: list[Any] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(taken) < count and time.monotonic() < deadline:
        taken += [delivery.outcome for delivery in consumer.deliveries(idle_s=0.3)]
    return taken


# Bookings


def test_a_booking_sent_twice_gives_one_event_id_one_set_of_captures_and_readable_images(
    bookings: BookingPublisher, objects: ObjectStore, kafka: KafkaLog, ori: str
) -> None:
    """G11."""
    booking: dict[str, Any] = {
        "booking_number": "B-1",
        "booked_at": AT,
        "photos": [Photo(data=b"photo")],
        "fingerprints": [Fingerprint(data=b"thumb")],
    }
    first, again = bookings.publish_booking(**booking), bookings.publish_booking(**booking)
    assert (again.event_id, again.capture_ids) == (first.event_id, first.capture_ids)
    assert again.position.offset > first.position.offset
    records = [kafka.record_at(BOOKING_EVENTS, at.position.partition, at.position.offset) for at in (first, again)]
    assert records[0].value == records[1].value
    event = decode_for(BOOKING_EVENTS, records[0].value)
    assert isinstance(event, BookingRecorded)
    assert event.event_id == first.event_id
    assert [objects.get(capture.reference, capture.sha256) for capture in event.captures] == [b"photo", b"thumb"]
    objects.destroy_key(f"booking/{booking_key(ori, 'B-1')}")
    assert not any(objects.exists(capture.reference) for capture in event.captures)


def test_a_court_order_is_published_as_the_court_made_it(bookings: BookingPublisher, kafka: KafkaLog) -> None:
    order: dict[str, Any] = {
        "booking_number": "B-1",
        "order": "expunge",
        "statute": "CA PC 851.8",
        "court": "Superior Court",
        "order_number": "S-1",
        "ordered_at": AT,
    }
    published, again = bookings.publish_order(**order), bookings.publish_order(**order)
    record = kafka.record_at(BOOKING_EVENTS, published.position.partition, published.position.offset)
    event = decode_for(BOOKING_EVENTS, record.value)
    assert isinstance(event, RecordOrderReceived)
    assert event.order is OrderKind.EXPUNGE
    assert (event.statute, event.order_number, event.event_id) == ("CA PC 851.8", "S-1", published.event_id)
    assert again.event_id == published.event_id


def test_an_answer_that_came_before_anyone_waited_for_it_is_found_and_the_first_counts(
    bookings: BookingPublisher, worker: WorkersPart, ori: str
) -> None:
    published = bookings.publish_booking(booking_number="B-1", booked_at=AT, photos=[Photo(data=b"a")])
    elsewhere = replace(published.position, offset=published.position.offset + 1_000_000)
    worker.garble(BOOKING_OUTCOMES, booking_key(ori, "B-1").encode())
    worker.say(
        processed(ori, "B-1", elsewhere, "to another event"),
        processed(ori, "B-1", published.position, "first"),
        processed(ori, "B-1", published.position, "repeated"),
    )
    assert bookings.await_outcome(published, DEADLINE_S).message == "first"


def test_the_answers_to_many_bookings_are_taken_as_they_come(
    bookings: BookingPublisher, worker: WorkersPart, ori: str
) -> None:
    published = [
        bookings.publish_booking(booking_number=f"B-{number}", booked_at=AT, photos=[]) for number in range(12)
    ]
    answers = bookings.await_outcomes(published, DEADLINE_S)
    for number, one in reversed(list(enumerate(published))):
        worker.say(processed(ori, f"B-{number}", one.position), processed(ori, f"B-{number}", one.position))
        assert next(answers).source == one.position
    assert list(answers) == []


def test_a_missing_answer_is_told_in_time_with_what_to_do(bookings: BookingPublisher) -> None:
    published = bookings.publish_booking(booking_number="B-1", booked_at=AT, photos=[])
    with pytest.raises(TransientError, match="do not send it again"):
        bookings.await_outcome(published, 0.3)


def test_a_booking_system_reads_its_own_answers_and_resumes_where_it_stopped(
    config: dict[str, str | int | bool], worker: WorkersPart, ori: str, group: str
) -> None:
    def answer(number: int, agency: str = ori) -> BookingProcessed:
        return processed(agency, f"B-{number}", SourcePosition(topic=BOOKING_EVENTS, partition=0, offset=number))

    worker.say(answer(1), answer(1), answer(2, "OTHER0000"), answer(3))
    with EnrolmentConsumer(config, group, ori=ori) as consumer:
        assert {outcome.booking_number for outcome in take(consumer, 2)} == {"B-1", "B-3"}
    worker.say(answer(3), answer(4), answer(1))
    with EnrolmentConsumer(config, group, ori=ori) as consumer:
        assert [outcome.booking_number for outcome in take(consumer, 1)] == ["B-4"]


# Probes


def test_a_probe_is_submitted_as_it_is_even_without_reason_case_and_basis(
    probes: ProbeClient, objects: ObjectStore, kafka: KafkaLog, ori: str
) -> None:
    """G4: the worker refuses and audits it; a client that kept it back would hide it."""
    submitted = probes.submit(
        b"image", reason_code="", reason_text="", case_number="", legal_basis="", source_type="", requested_candidates=0
    )
    record = kafka.record_at(PROBE_REQUESTS, submitted.position.partition, submitted.position.offset)
    request = decode_for(PROBE_REQUESTS, record.value)
    assert isinstance(request, ProbeSubmitted)
    assert (request.probe_id, request.actor, request.ori) == (submitted.probe_id, "user:jdoe", ori)
    assert (request.reason_code, request.case_number, request.legal_basis) == ("", "", "")
    assert request.original_sha256 == request.image_sha256
    assert objects.get(request.image_reference, request.image_sha256) == b"image"
    objects.destroy_key(f"probe/{submitted.probe_id}")
    assert not objects.exists(request.image_reference)


def test_a_case_tool_speaks_for_its_user(
    publisher: SignedPublisher, objects: ObjectStore, kafka: KafkaLog, ori: str
) -> None:
    logon = Logon(at=AT, method="OIDC")
    client = ProbeClient(publisher, objects, "jdoe", ori, logon=logon, publisher_id="case-tool", clock=lambda: AT)
    submitted = client.submit(b"image", **PURPOSE)
    record = kafka.record_at(PROBE_REQUESTS, submitted.position.partition, submitted.position.offset)
    request = decode_for(PROBE_REQUESTS, record.value)
    assert isinstance(request, ProbeSubmitted)
    assert (request.actor, request.user_id, request.logon) == ("publisher:case-tool", "jdoe", logon)


def test_the_first_outcome_of_a_probe_is_its_outcome_however_early_it_came(
    probes: ProbeClient, worker: WorkersPart, ori: str
) -> None:
    """G1."""
    submitted = probes.submit(b"image", **PURPOSE)
    assert probes.find_outcome(submitted.probe_id) is None
    worker.garble(PROBE_OUTCOMES, str(submitted.probe_id).encode())
    worker.say(refused(uuid4(), ori), listed(submitted.probe_id, ori), refused(submitted.probe_id, ori))
    outcome = probes.await_outcome(submitted, DEADLINE_S)
    assert isinstance(outcome, CandidateListIssued)
    assert probes.find_outcome(submitted.probe_id) == outcome


def test_a_probe_submitted_again_under_its_id_finds_the_outcome_of_the_first_attempt(
    probes: ProbeClient, worker: WorkersPart, kafka: KafkaLog, ori: str
) -> None:
    """G1: the worker decides a probe once, so the outcome may stand before the second attempt."""
    probe_id = uuid4()
    first = probes.submit(b"image", **PURPOSE, probe_id=probe_id)
    worker.say(listed(probe_id, ori))
    again = probes.submit(b"image", **PURPOSE, probe_id=probe_id)
    assert isinstance(probes.await_outcome(again, DEADLINE_S), CandidateListIssued)
    records = [kafka.record_at(PROBE_REQUESTS, at.position.partition, at.position.offset) for at in (first, again)]
    assert records[0].value == records[1].value


def test_a_missing_outcome_is_told_in_time_with_the_probe_id(probes: ProbeClient) -> None:
    submitted = probes.submit(b"image", **PURPOSE)
    with pytest.raises(TransientError, match=str(submitted.probe_id)):
        probes.await_outcome(submitted, 0.3)


def test_requests_and_outcomes_of_a_key_are_in_the_same_partition(probes: ProbeClient) -> None:
    assert TOPICS[PROBE_REQUESTS].partitions == TOPICS[PROBE_OUTCOMES].partitions
    assert TOPICS[BOOKING_EVENTS].partitions == TOPICS[BOOKING_OUTCOMES].partitions
    submitted = probes.submit(b"image", **PURPOSE)
    assert submitted.position.partition == partition_of(PROBE_OUTCOMES, str(submitted.probe_id).encode())


# Every candidate list


def test_a_tool_resumes_where_it_stopped_and_gets_again_what_it_did_not_handle(
    config: dict[str, str | int | bool], worker: WorkersPart, ori: str, group: str
) -> None:
    first, second = uuid4(), uuid4()
    worker.say(listed(first, ori), refused(uuid4(), "OTHER0000"))
    with CandidateListConsumer(config, group, ori=ori) as consumer:
        assert [outcome.probe_id for outcome in take(consumer, 1)] == [first]
    worker.say(listed(second, ori))
    with CandidateListConsumer(config, group, ori=ori) as consumer:
        # The loop is left before the handling is done, twice: in the same process, then by a crash.
        for _ in range(2):
            for delivery in consumer.deliveries(idle_s=DEADLINE_S):
                assert delivery.outcome.probe_id == second
                break
            else:
                pytest.fail("the unhandled outcome was not delivered again")
    with CandidateListConsumer(config, group, ori=ori) as consumer:
        assert [outcome.probe_id for outcome in take(consumer, 1)] == [second]
    worker.say(refused(second, ori), listed(first, ori), listed(third := uuid4(), ori))
    with CandidateListConsumer(config, group, ori=ori) as consumer:
        assert [outcome.probe_id for outcome in take(consumer, 1)] == [third]


@pytest.mark.kafka  # The embedded broker refuses commits of a group from the moment that a member asks to join it.
def test_two_instances_of_a_tool_share_the_work_and_hand_it_over(
    config: dict[str, str | int | bool], worker: WorkersPart, ori: str, group: str
) -> None:
    """G11: neither the second instance's coming nor the first one's leaving doubles or loses an outcome."""
    ids = [uuid4() for _ in range(90)]
    handled: list[tuple[str, UUID]] = []
    leaves = {"first": threading.Event(), "second": threading.Event()}

    def work(name: str) -> None:
        with CandidateListConsumer(config, group, ori=ori) as consumer:
            while not leaves[name].is_set():
                handled.extend((name, delivery.outcome.probe_id) for delivery in consumer.deliveries(idle_s=0.2))

    def until_handled(count: int, by: str) -> None:
        """Wait until so many are handled, and of the last thirty one at least by this instance."""
        deadline = time.monotonic() + DEADLINE_S
        while len(handled) < count or not any(name == by for name, _ in handled[-30:]):
            assert time.monotonic() < deadline, f"{len(handled)} of {count} handled, none lately by the {by} instance"
            time.sleep(0.05)

    with ThreadPoolExecutor(2) as pool:
        try:
            instances = [pool.submit(work, "first")]
            worker.say(*(listed(probe_id, ori) for probe_id in ids[:30]))
            until_handled(30, "first")
            instances.append(pool.submit(work, "second"))
            for probe_id in ids[30:60]:
                worker.say(listed(probe_id, ori), listed(probe_id, ori))
            until_handled(60, "first")
            leaves["first"].set()
            instances[0].result(DEADLINE_S)
            worker.say(*(listed(probe_id, ori) for probe_id in ids))
            until_handled(90, "second")
        finally:
            for leave in leaves.values():
                leave.set()
        for instance in instances:
            instance.result(DEADLINE_S)
    assert sorted(probe_id for _, probe_id in handled) == sorted(ids)


def test_what_was_handled_is_noted_before_the_next_outcome_is_delivered(
    config: dict[str, str | int | bool], worker: WorkersPart, ori: str, group: str
) -> None:
    worker.say(listed(uuid4(), ori), listed(uuid4(), ori))
    with CandidateListConsumer(config, group, ori=ori) as consumer:
        handled, unhandled = islice(consumer.deliveries(idle_s=DEADLINE_S), 2)
    with CandidateListConsumer(config, group, ori=ori) as consumer:
        assert take(consumer, 1) == [unhandled.outcome]
    assert handled.outcome != unhandled.outcome


def test_bytes_that_are_no_outcome_are_passed_over_and_counted(
    config: dict[str, str | int | bool], worker: WorkersPart, kafka: KafkaLog, ori: str
) -> None:
    """G12."""
    start = ends_of(kafka, PROBE_OUTCOMES)
    probe_id = uuid4()
    worker.garble(PROBE_OUTCOMES, str(probe_id).encode())
    worker.garble(PROBE_OUTCOMES, b"")
    worker.say(listed(probe_id, ori))
    with CandidateListConsumer(config, start_at=start) as consumer:
        assert [outcome.probe_id for outcome in take(consumer, 1)] == [probe_id]
        deadline = time.monotonic() + DEADLINE_S
        while consumer.unreadable < 2 and time.monotonic() < deadline:
            assert list(consumer.deliveries(idle_s=0.1)) == []
        assert consumer.unreadable == 2


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    said=st.lists(st.integers(0, 5), min_size=1, max_size=25),
    crashes=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=4),
)
def test_repeated_outcomes_are_delivered_once_each_whenever_the_tool_dies(
    config: dict[str, str | int | bool],
    worker: WorkersPart,
    kafka: KafkaLog,
    said: list[int],
    crashes: list[tuple[int, bool]],
) -> None:
    """G1, G11: with positions in the tool's own database, stored or not when it dies, nothing is missed or doubled."""
    ori = uuid4().hex[:9].upper()
    ids = [uuid4() for _ in range(6)]
    positions = ends_of(kafka, PROBE_OUTCOMES)
    worker.say(*(listed(ids[number], ori, f"answer {place}") for place, number in enumerate(said)))
    expected = {ids[number]: f"answer {said.index(number)}" for number in said}
    stored: list[CandidateListIssued] = []
    for handled, dies_in_its_transaction in [*crashes, (len(expected), False)]:
        missing = len(expected) - len(stored)
        with CandidateListConsumer(config, ori=ori, start_at=positions) as consumer:
            deliveries = consumer.deliveries(idle_s=DEADLINE_S)
            for delivery in islice(deliveries, min(handled, missing)):
                assert isinstance(delivery.outcome, CandidateListIssued)
                stored.append(delivery.outcome)
                positions[delivery.position.partition] = delivery.next_offset
            if dies_in_its_transaction and missing > handled:
                next(deliveries)
    with CandidateListConsumer(config, ori=ori, start_at=positions) as consumer:
        assert list(consumer.deliveries(idle_s=0.3)) == []
    assert [outcome.probe_id for outcome in stored] == list(dict.fromkeys(outcome.probe_id for outcome in stored))
    assert {outcome.probe_id: outcome.model_digest for outcome in stored} == expected


def test_positions_that_kafka_has_not_reached_are_evidence_of_another_kafka(
    config: dict[str, str | int | bool], kafka: KafkaLog
) -> None:
    ends = ends_of(kafka, PROBE_OUTCOMES)
    with pytest.raises(IntegrityError, match="another Kafka"):
        CandidateListConsumer(config, start_at={**ends, 3: ends[3] + 1})
    with pytest.raises(UsageError, match="no partition 8"):
        CandidateListConsumer(config, start_at={8: 0})


def test_a_consumer_wants_a_group_or_positions(config: dict[str, str | int | bool]) -> None:
    with pytest.raises(UsageError, match="not both"):
        CandidateListConsumer(config)
    with pytest.raises(UsageError, match="not both"):
        CandidateListConsumer(config, "group", start_at={})
