"""Reading what the bureau answered: the first outcome of each request, once, and after a restart from where it was.

A worker that dies between its answer and its commit answers again, with the same event id; the first answer in the
topic is the one that counts (G1), and a repeated one changes no count (G11). `OutcomeConsumer` is for a system that
takes every outcome; `first_outcomes` for one that waits for the answers to what it has just sent. The consumers that
outside systems import are in `connectors/bookings.py` and `connectors/probes.py`.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from connectors.kafka_log import KafkaLog
from connectors.log_reader import EVERY_RECORD, as_record
from schemas.codec import NO_REGISTRY, decode_for
from schemas.errors import ContractError, IntegrityError, TransientError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from types import TracebackType
    from uuid import UUID

    from confluent_kafka import Message

    from schemas.avro_schemas import SchemaVersion
    from schemas.events import Event
    from schemas.positions import SourcePosition
    from schemas.records import LogRecord

E = TypeVar("E", bound="Event")
K = TypeVar("K")

_POLL_S = 0.2
_READ_BACK_PATIENCE_S = 30.0
_MAX_HANDLING_S = 900
_HANDED_OUT_ANEW = frozenset(
    {KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS, KafkaError.UNKNOWN_MEMBER_ID},
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Generic[E]):
    """One outcome and where it stands."""

    outcome: E
    position: SourcePosition

    @property
    def next_offset(self) -> int:
        """What a tool that keeps positions of its own stores for this partition, in the transaction of the outcome."""
        return self.position.offset + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeKind(Generic[E]):
    """What a consumer looks for in a topic."""

    topic: str
    read: Callable[[LogRecord], E]
    """Raises ContractError where the record is no outcome."""
    identity: Callable[[E], UUID]
    """What of several outcomes only the first counts."""
    may_be_wanted: Callable[[bytes | None], bool] = lambda _key: True
    """By the Kafka key alone; what is not wanted is not even decoded."""
    is_wanted: Callable[[E], bool] = lambda _outcome: True


class FirstOnes:
    """Which identities came earlier in each partition, so that each counts once (G11).

    Args:
        read_back: (partition, offset) -> the identities of all outcomes before that offset.
    """

    def __init__(self, read_back: Callable[[int, int], Iterable[UUID]]) -> None:
        self._read_back = read_back
        self._seen: dict[int, set[bytes]] = {}

    def is_first(self, partition: int, offset: int, identity: UUID) -> bool:
        """Take note of an identity at an offset and tell whether none before it was the same."""
        if partition not in self._seen:
            self._seen[partition] = {earlier.bytes for earlier in self._read_back(partition, offset)}
        before = len(self._seen[partition])
        self._seen[partition].add(identity.bytes)
        return len(self._seen[partition]) > before

    def forget(self, partitions: Iterable[int]) -> None:
        """Drop what is known of partitions; it is read back when they are needed again."""
        for partition in partitions:
            self._seen.pop(partition, None)


class OutcomeConsumer(Generic[E]):
    """Delivers each outcome once, in the order of each partition; a `with` block closes it. For one thread.

    In a group, what was handled is committed to Kafka, and several instances share the work; an outcome is delivered
    again only if the instance died, or lost its partitions, before Kafka had noted the handling. A tool that may not
    see even that keeps the positions in its own database, in the transaction of the outcome, and starts at them; and so
    does one that may be away for longer than Kafka keeps the offsets of a group (seven days, unless set otherwise).

    Before the first outcome of a partition, the identities of all earlier ones are read back, so a repeat is known as
    one, however long ago the first came.

    Args:
        config: settings of the Kafka client, at least `bootstrap.servers`.
        kind: what to look for.
        group: name of the consumer group; one a tool.
        start_at: partition -> next offset to read, instead of a group; a partition that is not named is read from the
            beginning. Nothing is committed.
    """

    def __init__(
        self,
        config: Mapping[str, str | int | bool],
        kind: OutcomeKind[E],
        *,
        group: str | None = None,
        start_at: Mapping[int, int] | None = None,
    ) -> None:
        if (group is None) == (start_at is None):
            raise UsageError("Give the name of a consumer group, or the positions to start at; not both.")
        self._kind = kind
        # What goes wrong is told by the exceptions; the client would print it as well.
        config = {"log_level": 0, **config}
        self._log = KafkaLog(config)
        self._commits = group is not None
        self._first_ones = FirstOnes(self._identities_before)
        self._done: dict[int, int] = {}
        """Partition -> next offset after what this process has dealt with."""
        self._to_commit: dict[int, int] = {}
        """The same, for what Kafka has not been told yet."""
        self._delivered: Delivery[E] | None = None
        """What the handler has not returned from."""
        self.unreadable = 0
        """Records that were passed over because their bytes are no outcome; the audit trail keeps them."""
        self._consumer = Consumer(
            {
                "max.poll.interval.ms": _MAX_HANDLING_S * 1000,
                **config,
                # The first outcome in the topic is the outcome, for everybody (G1).
                **EVERY_RECORD,
                # The client wants a group id even when it never joins one.
                "group.id": group or "leadstream-outcomes",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            },
        )
        if start_at is None:
            self._consumer.subscribe([kind.topic], on_assign=self._on_change, on_revoke=self._on_change)
        else:
            self._consumer.assign(self._checked(start_at))

    def deliveries(self, *, idle_s: float | None = None) -> Iterator[Delivery[E]]:
        """Yield outcomes as they come; each counts as handled when the next one is asked for.

        What was not handled, because the loop was left or its body raised, is delivered again: by the next call, or
        after a restart.

        Args:
            idle_s: end when nothing new came for so long; None: never.

        Raises:
            TransientError: Kafka answers with an error; call again to go on.
        """
        self._give_back()
        idle_since = time.monotonic()
        while idle_s is None or time.monotonic() - idle_since < idle_s:
            record = self._poll()
            if record is None:
                self._commit()
                continue
            delivery = self._first_outcome(record)
            if delivery is not None:
                self._delivered = delivery
                yield delivery
                self._delivered = None
            self._done[record.partition] = self._to_commit[record.partition] = record.offset + 1
            if delivery is not None:
                self._commit()
            idle_since = time.monotonic()
        self._commit()

    def close(self) -> None:
        """Leave the group and let go of the connection."""
        self._consumer.close()

    def _poll(self) -> LogRecord | None:
        message: Message | None = self._consumer.poll(_POLL_S)
        if message is None:
            return None
        error = message.error()
        if error is not None:
            raise TransientError(f"Kafka: {error.str()}")
        return as_record(message)

    def _first_outcome(self, record: LogRecord) -> Delivery[E] | None:
        if record.offset < self._done.get(record.partition, 0):
            return None  # Kafka was not told in time, before the partition was handed out anew.
        outcome = self._outcome(record, tell=True)
        if outcome is None:
            return None
        if not self._first_ones.is_first(record.partition, record.offset, self._kind.identity(outcome)):
            return None
        return Delivery(outcome=outcome, position=record.position) if self._kind.is_wanted(outcome) else None

    def _outcome(self, record: LogRecord, *, tell: bool) -> E | None:
        if not self._kind.may_be_wanted(record.key):
            return None
        try:
            return self._kind.read(record)
        except ContractError as error:
            if tell:
                self.unreadable += 1
                log.warning("passed over a record that is no outcome", position=str(record.position), reason=str(error))
            return None

    def _identities_before(self, partition: int, offset: int) -> Iterator[UUID]:
        for record in read_range(self._log, self._kind.topic, partition, offset):
            outcome = self._outcome(record, tell=False)
            if outcome is not None:
                yield self._kind.identity(outcome)

    def _give_back(self) -> None:
        """Go back to what was delivered and not handled."""
        if self._delivered is None:
            return
        position, self._delivered = self._delivered.position, None
        self._first_ones.forget([position.partition])
        assigned = {here.partition for here in self._consumer.assignment()}
        # A partition that went to another instance starts there at what was committed, which lies before.
        if position.partition in assigned:
            self._consumer.seek(TopicPartition(position.topic, position.partition, position.offset))

    def _commit(self) -> None:
        if not self._commits or not self._to_commit:
            return
        offsets = [TopicPartition(self._kind.topic, partition, at) for partition, at in self._to_commit.items()]
        self._to_commit.clear()
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.code() not in _HANDED_OUT_ANEW:
                raise TransientError(f"Kafka did not note what was handled: {reason.str()}.") from None
            log.warning("partitions were handed out anew before Kafka noted what was handled", reason=reason.str())

    def _on_change(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        changed = [here.partition for here in partitions]
        self._first_ones.forget(changed)
        for partition in changed:
            self._to_commit.pop(partition, None)

    def _checked(self, start_at: Mapping[int, int]) -> list[TopicPartition]:
        """Return where to start in every partition.

        Raises:
            IntegrityError: Kafka ends before a position.
        """
        topic = self._kind.topic
        ends = self._log.end_offsets([topic])
        if unknown := set(start_at) - {partition for _, partition in ends}:
            raise UsageError(f"{topic} has no partition {min(unknown)}; it has {len(ends)}.")
        for partition, offset in start_at.items():
            if offset > ends[topic, partition]:
                raise IntegrityError(
                    f"{topic}/{partition} ends at {ends[topic, partition]}, before {offset} where it was left: this is "
                    "another Kafka, or it lost records. Do not go on before you know which.",
                )
        return [TopicPartition(topic, partition, start_at.get(partition, 0)) for _, partition in sorted(ends)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def reader_of(
    topic: str, expected: type[E] | tuple[type[E], ...], registry: Mapping[int, SchemaVersion] = NO_REGISTRY
) -> Callable[[LogRecord], E]:
    """Return a function from a record to the outcome it holds; it raises ContractError where there is none."""

    def read(record: LogRecord) -> E:
        event = decode_for(topic, record.value, registry=registry)
        if not isinstance(event, expected):
            raise ContractError(f"{type(event).__name__} is not an outcome.")
        return event

    return read


def first_outcomes(
    kafka: KafkaLog,
    kind: OutcomeKind[E],
    wanted: Collection[K],
    request_of: Callable[[E], K],
    start: Mapping[int, int],
    timeout_s: float,
) -> Iterator[E]:
    """Yield the first outcome of each wanted request, as it comes; end when all are there or the time is over.

    Args:
        kafka: where to read.
        kind: what to look for.
        wanted: the requests.
        request_of: outcome -> the request that it answers.
        start: partition -> offset; every outcome of a wanted request stands at or after it.
        timeout_s: how long to wait for all of them.

    Raises:
        TransientError: Kafka answers with an error.
    """
    missing = set(wanted)
    deadline = time.monotonic() + timeout_s
    tail = kafka.tail({(kind.topic, partition): offset for partition, offset in start.items()})
    with closing(tail):
        while missing and (left_s := deadline - time.monotonic()) > 0:
            for record in tail.read(min(left_s, _POLL_S)):
                if not kind.may_be_wanted(record.key):
                    continue
                try:
                    outcome = kind.read(record)
                except ContractError:
                    continue
                if request_of(outcome) in missing:
                    missing.remove(request_of(outcome))
                    yield outcome


def read_range(kafka: KafkaLog, topic: str, partition: int, stop: int) -> Iterator[LogRecord]:
    """Yield the records of a partition before an offset.

    Raises:
        TransientError: Kafka does not deliver them.
    """
    if stop == 0:
        return
    patience_ends = time.monotonic() + _READ_BACK_PATIENCE_S
    with closing(kafka.tail({(topic, partition): 0})) as tail:
        while True:
            for record in tail.read(_POLL_S):
                if record.offset < stop:
                    yield record
                if record.offset + 1 >= stop:
                    return
                patience_ends = time.monotonic() + _READ_BACK_PATIENCE_S
            if tail.passed().get((topic, partition), 0) >= stop:
                return
            if time.monotonic() > patience_ends:
                raise TransientError(f"Kafka does not deliver {topic}/{partition} up to {stop}.")


def ends_of(kafka: KafkaLog, topic: str) -> dict[int, int]:
    """Return partition -> end of a topic: whatever is caused from now on stands at or after it.

    Raises:
        TransientError: Kafka cannot be asked.
    """
    return {partition: end for (_, partition), end in kafka.end_offsets([topic]).items()}
