"""Kafka read by hand: no group is joined, partitions from chosen offsets, and nothing skipped.

What the sink commits by `tell` is word of its progress for the workers (docs/adr/0009); nobody resumes from it.

It differs from a plain consumer in what it refuses: an offset that Kafka no longer has is an IntegrityError, where a
consumer would quietly start elsewhere. And it reads what somebody wrote in a transaction whatever became of it, as the
workers do: nothing may be decided that is not audited, and nobody may stop a reader by a transaction left open (G12).
The sink and every worker's follower read by it. `read_everything` is the auditors' independent second look (G2): a
plain consumer that shares nothing with them but the client library.
"""

from __future__ import annotations

import time
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, cast

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from processors.audit import Bounds
from schemas.errors import IntegrityError, TransientError
from schemas.records import UNREADABLE_HEADERS, LogRecord, RecordBatch
from schemas.topics import TOPICS, is_further_generation, spec_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from confluent_kafka import Message


log = structlog.get_logger()

ASK_TIMEOUT_S = 10.0
DELIVERY_TIMEOUT_S = 60.0
"""For so long nothing may come of what Kafka says it has, when everything is read."""
EVERY_RECORD = {"isolation.level": "read_uncommitted"}
"""What a client needs to see records of open and aborted transactions, and partition ends behind them."""
READ_RECORDS = 2000
SILENCE_S = 5.0
"""After so long without a record Kafka is asked whether it is there: one that is gone is as silent as an idle one."""

_LOST = frozenset({KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET})  # noqa: SLF001 - librdkafka's name for it


def as_record(message: Message) -> LogRecord:
    """Return a message of the client as a value, though its headers be such that the client cannot hand them out."""
    try:
        return _as_the_client_gives_it(message)
    except (SystemError, UnicodeDecodeError):  # What the client raises for a header name that is not UTF-8 (G12).
        message.set_headers([])
        return replace(_as_the_client_gives_it(message), headers=UNREADABLE_HEADERS)


def _as_batch(messages: list[Message]) -> RecordBatch:
    return RecordBatch(
        cast("list[str]", [message.topic() for message in messages]),
        cast("list[int]", [message.partition() for message in messages]),
        cast("list[int]", [message.offset() for message in messages]),
        cast("list[bytes | None]", [message.value() for message in messages]),
        lambda number: as_record(messages[number]),
    )


def _as_the_client_gives_it(message: Message) -> LogRecord:
    headers = cast("list[tuple[str, str | bytes | None]]", message.headers() or [])
    _, timestamp_ms = message.timestamp()
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


class LogReader:
    """Reads partitions from given offsets on.

    Args:
        config: settings of the Kafka client, at least `bootstrap.servers`.
        group: under which `tell` commits; none is ever joined.
        most: how many records `read` returns at most.
    """

    def __init__(
        self, config: Mapping[str, Any], *, group: str = "leadstream-reader", most: int = READ_RECORDS
    ) -> None:
        self._most = most
        self._consumer = Consumer(
            {
                **config,
                **EVERY_RECORD,
                # The end is said in offsets, which also count what is no record.
                "enable.partition.eof": True,
                # The client wants a group id even when it never joins one.
                "group.id": group,
                # What goes wrong is told by exceptions; the client would also print it.
                "log_level": 0,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "fetch.error.backoff.ms": 50,
                # A backlog waits in Kafka, not in memory.
                "queued.max.messages.kbytes": 65536,
            },
        )
        self._reading: list[tuple[str, int]] = []
        self._passed: dict[tuple[str, int], int] = {}
        self._heard_at = time.monotonic()

    def bounds(self, topics: Collection[str]) -> dict[tuple[str, int], Bounds]:
        """Return what Kafka holds of every partition that it has of some topics.

        Raises:
            TransientError: Kafka does not answer, or a topic is not there yet.
        """
        try:
            return _ask_bounds(self._consumer, topics)
        except KafkaException as error:
            raise TransientError(f"Kafka does not answer: {error.args[0].str()}") from None

    def generations(self) -> list[str]:
        """Return the topics of further gallery generations that Kafka has.

        Raises:
            TransientError: Kafka does not answer.
        """
        try:
            return sorted(filter(is_further_generation, self._consumer.list_topics(timeout=ASK_TIMEOUT_S).topics))
        except KafkaException as error:
            raise TransientError(f"Kafka does not answer: {error.args[0].str()}") from None

    def start(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Read these partitions from these offsets on."""
        self._reading = list(offsets)
        self._passed = {}
        self._consumer.assign(
            [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()],
        )

    def read(self, timeout_s: float) -> Sequence[LogRecord]:
        """Return the next records, in order within each partition, or none when nothing came in time.

        Raises:
            TransientError: Kafka is away; nothing was skipped, the next call goes on.
            IntegrityError: Kafka no longer has the next offset of a partition.
        """
        # `consume` waits for a full batch; so wait for one, then take what is already here.
        first = self._consumer.poll(timeout_s)
        if first is None:
            self._ask_after_silence()
            return []
        self._heard_at = time.monotonic()
        messages = [first]
        # In parts, because the client lets nobody else run while it makes messages.
        while (room := min(self._most - len(messages), READ_RECORDS)) and (more := self._consumer.consume(room, 0)):
            messages += more
        away = None
        if any(message.error() is not None for message in messages):
            messages, away = self._without_errors(messages)
        # The client keeps trying by itself: an error beside records is no reason to lose these.
        if away is not None and not messages:
            raise TransientError(f"Kafka: {away.str()}")
        return _as_batch(messages) if messages else []

    def _without_errors(self, messages: list[Message]) -> tuple[list[Message], KafkaError | None]:
        """Return the messages that are records, and the last error that says that Kafka is away."""
        records, away = [], None
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's name for it
                self._passed[str(message.topic()), int(message.partition() or 0)] = int(message.offset() or 0)
            elif error.code() in _LOST:
                raise IntegrityError(
                    f"Kafka no longer has the next record of {message.topic()}/{message.partition()} "
                    f"({error.str()}): it lost records. Do not go on before you know why.",
                )
            else:
                away = error
        return records, away

    def _ask_after_silence(self) -> None:
        if time.monotonic() - self._heard_at < SILENCE_S:
            return
        try:
            self._consumer.list_topics(timeout=SILENCE_S)
        except KafkaException as error:
            raise TransientError(f"Kafka does not answer: {error.args[0].str()}") from None
        self._heard_at = time.monotonic()

    def passed(self) -> dict[tuple[str, int], int]:
        """Return the ends that were reached: every record before these offsets was handed out by `read`.

        An end may lie behind the last record: Kafka ends a transaction by a mark that has an offset and is no record.
        """
        return dict(self._passed)

    def tell(self, appended: Mapping[tuple[str, int], int]) -> None:
        """Commit these offsets under the group; never waits, and what is lost is told better the next time."""
        places = [TopicPartition(topic, partition, offset) for (topic, partition), offset in appended.items()]
        try:
            self._consumer.commit(offsets=places, asynchronous=True)
        except KafkaException as error:
            log.debug("audit progress not told", reason=error.args[0].str())

    def ends(self) -> dict[tuple[str, int], int]:
        """Return the ends of the partitions being read, as last heard from Kafka; does not ask."""
        found = {}
        for topic, partition in self._reading:
            _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
            if high >= 0:
                found[topic, partition] = high
        return found

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()


def read_everything(config: Mapping[str, Any], topics: Collection[str]) -> Iterator[tuple[str, int, int, str]]:
    """Yield (topic, partition, offset, SHA-256 of the value) of every record that Kafka holds at the time of the call.

    Raises:
        TransientError: Kafka does not answer, or a topic is not there.
    """
    plain = {"group.id": "leadstream-recount", "enable.auto.commit": False, "enable.partition.eof": True}
    consumer = Consumer({**config, **plain, **EVERY_RECORD})
    try:
        ends = {place: held.high for place, held in _ask_bounds(consumer, topics).items()}
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for topic, partition in ends])
        while ends:
            message = consumer.poll(DELIVERY_TIMEOUT_S)
            if message is None:
                raise TransientError(f"Kafka did not deliver all of {', '.join(sorted({topic for topic, _ in ends}))}.")
            error = message.error()
            place, offset = (str(message.topic()), int(message.partition() or 0)), int(message.offset() or 0)
            if error is None and offset < ends.get(place, 0):
                yield *place, offset, sha256(message.value() or b"").hexdigest()
            elif error is None or error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's name for it
                # An end before the one that Kafka told at first is none.
                if offset >= ends.get(place, 0):
                    ends.pop(place, None)
            else:
                raise TransientError(f"Kafka: {error.str()}")
    except KafkaException as error:
        raise TransientError(f"Kafka does not answer: {error.args[0].str()}") from None
    finally:
        consumer.close()


def _ask_bounds(consumer: Consumer, topics: Collection[str]) -> dict[tuple[str, int], Bounds]:
    # All topics are listed, since asking for one by name can make it.
    known = consumer.list_topics(timeout=ASK_TIMEOUT_S).topics
    if missing := sorted(set(topics) - known.keys()):
        raise TransientError(f"Kafka has no topic {', '.join(missing)} yet: run `leadstream topics apply`.")
    bounds = {}
    for topic in topics:
        if topic in TOPICS or is_further_generation(topic):
            found, wanted = len(known[topic].partitions), spec_of(topic).partitions
            if found < wanted:  # As of a topic that was made a moment ago.
                raise TransientError(f"Kafka names {found} of {wanted} partitions of {topic}.")
        for partition in known[topic].partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ASK_TIMEOUT_S)
            bounds[topic, partition] = Bounds(low=low, high=high)
    return bounds
