"""A probe does not wait behind a queue of bookings, whose records wait in Kafka and not in the worker (G1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bureaus import JAIL, LIMIT_S, ORI, REQUEST, Bureau, new_bureau, until

from connectors.bookings import BookingPublisher
from connectors.kafka_log import KafkaLog
from connectors.publishing import SignedPublisher
from connectors.signing_keys import SigningKey
from infra import wiring
from infra.local_system import LocalSystem
from schemas.events import CandidateListIssued
from schemas.topics import BOOKING_OUTCOMES, PROBE_OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from infra.brokers import Kind
    from schemas.records import LogRecord

NAME = "worker-1"
BOOKINGS = 1500


@pytest.fixture
def system(tmp_path: Path, broker_kind: Kind) -> Iterator[tuple[Bureau, LocalSystem]]:
    bureau = new_bureau(tmp_path / "data")
    with LocalSystem(bureau.settings, broker=broker_kind, workers=0, say=print) as running:
        bureau.found()
        yield bureau, running


def read(log: KafkaLog, topic: str) -> list[LogRecord]:
    return [record for (_, place), end in log.end_offsets([topic]).items() for record in log.read(topic, place, 0, end)]


def test_a_probe_is_answered_long_before_the_bookings_that_were_there_first(
    system: tuple[Bureau, LocalSystem], photos: dict[str, bytes]
) -> None:
    bureau, running = system
    log = KafkaLog(bureau.config)
    with SignedPublisher(bureau.config, SigningKey.load(bureau.folder.publisher_key(JAIL))) as publisher:
        jail = BookingPublisher(publisher, wiring.object_store(bureau.settings), JAIL, ORI)
        for number in range(BOOKINGS):
            publisher.send(jail.store_booking(booking_number=f"Q-{number}", booked_at=wiring.now(), photos=[]))

    def answers() -> int:
        return sum(log.end_offsets([BOOKING_OUTCOMES]).values())

    with bureau.investigator() as investigator:
        running.start_role(NAME, "worker", "--name", NAME)
        until(answers, "the worker is at work on the bookings")
        submitted = investigator.submit(photos["A1"], **REQUEST)
        assert isinstance(investigator.await_outcome(submitted, LIMIT_S), CandidateListIssued)
        (probe,) = read(log, PROBE_OUTCOMES)
    until(lambda: answers() == BOOKINGS, "every booking is answered")
    # Handed on one after the other, all but a hundred bookings would have been answered before it.
    assert sum(answer.timestamp_ms > probe.timestamp_ms for answer in read(log, BOOKING_OUTCOMES)) > BOOKINGS / 10
