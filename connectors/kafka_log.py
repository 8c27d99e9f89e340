"""Kafka as a log: read partitions by hand, ask where they end, fetch one record; no group, nothing committed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from connectors.log_reader import EVERY_RECORD, LogReader
from schemas.codec import decode_for
from schemas.errors import ContractError, IntegrityError, TransientError
from schemas.events import CandidateListIssued, ProbeRefused
from schemas.topics import PROBE_OUTCOMES, is_gallery, spec_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from uuid import UUID

    from schemas.records import LogRecord

REQUEST_TIMEOUT_S = 10.0
DELIVERY_TIMEOUT_S = 30.0
"""For so long no record may come of what Kafka says it has."""
SETTLE_POLL_S = 0.1
_SETTLING = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})
"""What a cluster answers for a moment after a broker came or went."""
REPLAY_RECORDS = 8192
"""How many records a follower takes at a time when there are so many: what is done once a batch is then worth it."""
READ_BACK_RECORDS = 1000
"""How many outcomes in a row must lie before the first open request until the read-back has gone far enough."""


class KafkaLog:
    """What can be asked of Kafka beside consuming in a group.

    Args:
        config: settings of the Kafka client, at least `bootstrap.servers`.
    """

    def __init__(self, config: Mapping[str, str | int | bool]) -> None:
        self._config = dict(config)
        # Not the admin client's question for many partitions at once: librdkafka 2.16 aborts the process where a
        # partition has no leader, as after a restart of the broker.
        self._asker = Consumer({"log_level": 0, **self._config, **EVERY_RECORD, "group.id": "leadstream-asker"})

    def end_offsets(self, topics: Collection[str]) -> dict[tuple[str, int], int]:
        """Return the next offset to be written of every partition of some topics.

        Raises:
            TransientError: Kafka cannot be asked.
        """
        places = [(topic, partition) for topic in topics for partition in range(spec_of(topic).partitions)]
        ends = self._ends_at_once(places)
        return {place: ends[place] if place in ends else self._bounds(*place)[1] for place in places}

    def cluster_id(self) -> str:
        """Return which Kafka this is; empty where it does not say.

        Raises:
            TransientError: Kafka cannot be asked.
        """
        try:
            return str(self._asker.list_topics(timeout=REQUEST_TIMEOUT_S).cluster_id or "")
        except KafkaException as failure:
            raise TransientError(f"Kafka does not say which it is: {failure.args[0].str()}") from None

    def tail(self, start: Mapping[tuple[str, int], int]) -> LogReader:
        """Return a reader that starts at these offsets."""
        # The records of a removed generation are gone; who reads such a topic from its beginning begins where it does.
        # Nowhere else is a record missed in silence. Kafka's own word for that, OFFSET_BEGINNING, takes half a second.
        there = {
            (topic, partition): offset or (self._bounds(topic, partition)[0] if is_gallery(topic) else 0)
            for (topic, partition), offset in start.items()
        }
        reader = LogReader(self._config, most=REPLAY_RECORDS)
        reader.start(there)
        return reader

    def beginnings(self, topic: str) -> dict[int, int]:
        """Return, by partition, the first offset that a topic still has; above 0 where records were deleted.

        Raises:
            TransientError: Kafka cannot be asked.
        """
        return {partition: self._bounds(topic, partition)[0] for partition in range(spec_of(topic).partitions)}

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

    def _ends_at_once(self, places: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Return where partitions end, asked in one question a broker; what is not answered is left out.

        Asked one by one, nine partitions took twenty times as long.
        """
        try:
            # By the time "latest", which is the end.
            answers = self._asker.offsets_for_times(
                [TopicPartition(*place, OFFSET_END) for place in places], timeout=REQUEST_TIMEOUT_S
            )
        except KafkaException:
            return {}
        return {
            (answer.topic, answer.partition): answer.offset
            for answer in answers
            if answer.error is None and answer.offset >= 0
        }

    def _bounds(self, topic: str, partition: int) -> tuple[int, int]:
        here = TopicPartition(topic, partition)
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        while True:
            try:
                low, high = self._asker.get_watermark_offsets(here, timeout=REQUEST_TIMEOUT_S)
                if high >= 0:
                    return low, high
                reason = "it has no leader yet"
            except KafkaException as failure:
                error: KafkaError = failure.args[0]
                reason = error.str()
                if error.code() not in _SETTLING:
                    deadline = 0.0
            if time.monotonic() > deadline:
                raise TransientError(f"Kafka does not say where {topic}/{partition} ends: {reason}.")
            time.sleep(SETTLE_POLL_S)

    def read(self, topic: str, partition: int, start: int, stop: int) -> Iterator[LogRecord]:
        """Yield the records of [start, stop); offsets have holes where a topic is compacted or a transaction ended.

        Raises:
            TransientError: Kafka does not deliver.
        """
        return self.read_all({(topic, partition): start}, {(topic, partition): stop})

    def read_all(
        self, start: Mapping[tuple[str, int], int], stop: Mapping[tuple[str, int], int]
    ) -> Iterator[LogRecord]:
        """Yield the records of [start, stop) of several partitions, side by side.

        Raises:
            TransientError: Kafka does not deliver.
        """
        left = {place: position for place, position in start.items() if position < stop[place]}
        if not left:
            return
        tail = self.tail(left)
        deadline = time.monotonic() + DELIVERY_TIMEOUT_S
        try:
            while left:
                if time.monotonic() > deadline:
                    (topic, partition), position = next(iter(left.items()))
                    raise TransientError(f"Kafka does not deliver {topic}/{partition} from {position} on.")
                records: Sequence[LogRecord] = tail.read(1.0)
                for record in records:
                    place = (record.topic, record.partition)
                    if place in left:
                        left[place] = record.offset + 1
                        if record.offset < stop[place]:
                            yield record
                for place, end in tail.passed().items():
                    if place in left:
                        left[place] = max(left[place], end)
                left = {place: position for place, position in left.items() if position < stop[place]}
                if records:
                    deadline = time.monotonic() + DELIVERY_TIMEOUT_S
        finally:
            tail.close()
