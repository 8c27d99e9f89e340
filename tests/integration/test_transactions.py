"""Transactions of strangers: their records are read like all others, and their end marks stop nobody (G2, G12)."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from connectors.kafka_log import KafkaLog
from connectors.log_reader import LogReader, read_everything
from connectors.outcomes import read_range

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE_S = 60.0
RECORDS = [0, 2, 4]
"""Offsets: each ended transaction puts a mark behind its record."""
END = 5


@pytest.fixture
def topic(bootstrap: str) -> Iterator[str]:
    """A topic with a committed record, an aborted one, and one whose transaction is still open."""
    name = f"transactions.{uuid4()}"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for made in admin.create_topics([NewTopic(name, 1, 1)]).values():
        made.result(timeout=DEADLINE_S)
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": name})
    producer.init_transactions(DEADLINE_S)
    for end in (producer.commit_transaction, producer.abort_transaction, None):
        producer.begin_transaction()
        producer.produce(name, b"v", b"k")
        assert producer.flush(DEADLINE_S) == 0
        if end is not None:
            end(DEADLINE_S)
    yield name
    producer.abort_transaction(DEADLINE_S)


def test_every_record_is_read_and_the_end_is_known(bootstrap: str, topic: str) -> None:
    here = (topic, 0)
    found: list[int] = []
    with closing(LogReader({"bootstrap.servers": bootstrap})) as reader:
        assert reader.bounds([topic])[here].high == END
        reader.start({here: 0})
        deadline = time.monotonic() + DEADLINE_S
        while reader.passed() != {here: END}:
            assert time.monotonic() < deadline
            found += [record.offset for record in reader.read(0.2)]
    assert found == RECORDS


def test_the_independent_consumer_reads_them_too(bootstrap: str, topic: str) -> None:
    found = read_everything({"bootstrap.servers": bootstrap}, [topic])
    assert [offset for _, _, offset, _ in found] == RECORDS


def test_reading_up_to_a_mark_ends(bootstrap: str, topic: str) -> None:
    log = KafkaLog({"bootstrap.servers": bootstrap})
    for stop, offsets in ((2, [0]), (4, [0, 2]), (END, RECORDS)):
        assert [record.offset for record in log.read(topic, 0, 0, stop)] == offsets
        assert [record.offset for record in read_range(log, topic, 0, stop)] == offsets
