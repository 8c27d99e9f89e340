"""Kafka as a log: read partitions by hand, ask where they end, fetch one record; no group, nothing committed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from confluent_kafka import Consumer, KafkaException, TopicPartition

from schemas.codec import decode_for
from schemas.errors import ContractError, IntegrityError, TransientError
from schemas.events import CandidateListIssued, ProbeRefused
from schemas.records import LogRecord
from schemas.topics import PROBE_OUTCOMES, TOPICS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from uuid import UUID

    from confluent_kafka import Message

REQUEST_TIMEOUT_S = 10.0
BATCH_RECORDS = 1000
READ_BACK_RECORDS = 1000
"""How many outcomes in a row must lie before the first open request until the read-back has gone far enough."""


def as_record(message: Message) -> LogRecord:
    """Return a message of the client as a value."""
    _, timestamp_ms = message.timestamp()
    headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
    return LogRecord(
        topic=str(message.topic()),
        partition=int(message.partition() or 0),
        offset=int(message.offset() or 0),
        timestamp_ms=timestamp_ms,
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        headers=tuple((name, _bytes(value)) for name, value in headers),
    )


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


class KafkaTail:
    """Records of some partitions from given offsets on.

    Args:
        config: settings of the Kafka client.
        start: (topic, partition) -> first offset to read.
    """

    def __init__(self, config: Mapping[str, str | int | bool], start: Mapping[tuple[str, int], int]) -> None:
        self._consumer = Consumer(
            {
                **config,
                # The client wants a group id even when it never joins one.
                "group.id": "leadstream-tail",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.error.backoff.ms": 50,
            },
        )
        self._consumer.assign(
            [TopicPartition(topic, partition, offset) for (topic, partition), offset in start.items()]
        )

    def read(self, timeout_s: float) -> list[LogRecord]:
        """Return the next records in the order of their partitions, or none when nothing came in time.

        Raises:
            TransientError: the broker answers with an error.
        """
        # `consume` waits for a full batch; so wait for one, then take what is already here.
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        messages = [first, *self._consumer.consume(BATCH_RECORDS - 1, 0)]
        # An error among records must not take them along: they have been consumed and would not come again (G5).
        errors = [error for message in messages if (error := message.error()) is not None]
        if len(errors) == len(messages):
            raise TransientError(f"Kafka: {errors[0].str()}")
        return [as_record(message) for message in messages if message.error() is None]

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()


class KafkaLog:
    """What can be asked of Kafka beside consuming in a group.

    Args:
        config: settings of the Kafka client, at least `bootstrap.servers`.
    """

    def __init__(self, config: Mapping[str, str | int | bool]) -> None:
        self._config = dict(config)
        self._asker = Consumer({**self._config, "group.id": "leadstream-tail", "enable.auto.commit": False})

    def end_offsets(self, topics: Collection[str]) -> dict[tuple[str, int], int]:
        """Return the next offset to be written of every partition of some topics.

        Raises:
            TransientError: Kafka cannot be asked.
        """
        return {
            (topic, partition): self._bounds(topic, partition)[1]
            for topic in topics
            for partition in range(TOPICS[topic].partitions)
        }

    def tail(self, start: Mapping[tuple[str, int], int]) -> KafkaTail:
        """Return a reader that starts at these offsets."""
        return KafkaTail(self._config, start)

    def record_at(self, topic: str, partition: int, offset: int) -> LogRecord:
        """Return one record.

        Raises:
            TransientError: it did not come in time.
            IntegrityError: it is not there any more.
        """
        for record in self.read(topic, partition, offset, offset + 1):
            if record.offset == offset:
                return record
        raise IntegrityError(f"{topic}/{partition}/{offset} is not in Kafka any more.")

    def decided_since(self, partition: int, request_offset: int) -> set[UUID]:
        """Return the probes of a request partition, at or after an offset, that already have an outcome.

        Outcomes stand in the partition of their requests and nearly in their order; so this reads back from the end
        until a long row of outcomes belongs to earlier requests.

        Raises:
            TransientError: Kafka does not answer.
        """
        low, stop = self._bounds(PROBE_OUTCOMES, partition)
        decided: set[UUID] = set()
        while stop > low:
            start = max(low, stop - READ_BACK_RECORDS)
            found = set(self._decided(self.read(PROBE_OUTCOMES, partition, start, stop), request_offset))
            decided |= found
            if not found:
                break
            stop = start
        return decided

    @staticmethod
    def _decided(records: Iterator[LogRecord], request_offset: int) -> Iterator[UUID]:
        for record in records:
            try:
                outcome = decode_for(PROBE_OUTCOMES, record.value)
            except ContractError:
                continue  # Not an outcome, whoever wrote it; the sink keeps it as evidence.
            if isinstance(outcome, (CandidateListIssued, ProbeRefused)) and outcome.request.offset >= request_offset:
                yield outcome.probe_id

    def _bounds(self, topic: str, partition: int) -> tuple[int, int]:
        try:
            low, high = self._asker.get_watermark_offsets(TopicPartition(topic, partition), timeout=REQUEST_TIMEOUT_S)
        except KafkaException as error:
            raise TransientError(f"Kafka does not say where {topic}/{partition} ends: {error.args[0].str()}") from None
        return low, high

    def read(self, topic: str, partition: int, start: int, stop: int) -> Iterator[LogRecord]:
        """Yield the records of [start, stop); offsets may have holes where a topic is compacted.

        Raises:
            TransientError: Kafka does not deliver.
        """
        tail = self.tail({(topic, partition): start})
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        try:
            position = start
            while position < stop:
                if time.monotonic() > deadline:
                    raise TransientError(f"Kafka does not deliver {topic}/{partition} from {position} on.")
                records: Sequence[LogRecord] = tail.read(1.0)
                for record in records:
                    position = record.offset + 1
                    if record.offset < stop:
                        yield record
                if records:
                    deadline = time.monotonic() + REQUEST_TIMEOUT_S
        finally:
            tail.close()
