"""What the audit sink needs from outside, as Protocols; `infra/wiring.py` joins them with the connectors.

Every method may block. The world being away is a `TransientError`, wrong evidence an `IntegrityError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from processors.audit import AuditRow, Bounds, Tip
    from schemas.records import LogRecord

TopicPartition = tuple[str, int]


class AuditLog(Protocol):
    """Kafka, read by hand from chosen offsets."""

    def bounds(self, topics: Collection[str]) -> Mapping[TopicPartition, Bounds]:
        """Return what Kafka holds of every partition of some topics.

        Raises:
            TransientError: Kafka does not answer, or a topic is not there yet.
        """
        ...

    def generations(self) -> Collection[str]:
        """Return the topics of further gallery generations that Kafka has.

        Raises:
            TransientError: Kafka does not answer.
        """
        ...

    def start(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read these partitions from these offsets on."""
        ...

    def read(self, timeout_s: float) -> Sequence[LogRecord]:
        """Return the next records, in order within each partition, or none when nothing came in time.

        Raises:
            TransientError: Kafka is away; nothing was skipped, the next call goes on.
            IntegrityError: Kafka no longer has the next offset.
        """
        ...

    def passed(self) -> Mapping[TopicPartition, int]:
        """Return the ends that were reached; every record before them was handed out. Does not ask."""
        ...

    def tell(self, appended: Mapping[TopicPartition, int]) -> None:
        """Tell whoever asks that the records before these offsets are in the trail; never waits and never raises."""
        ...

    def ends(self) -> Mapping[TopicPartition, int]:
        """Return the ends of the partitions being read, as last heard from Kafka; does not ask."""
        ...


class AuditTrail(Protocol):
    """The audit trail, open for appending."""

    def tips(self) -> Mapping[TopicPartition, Tip]:
        """Return the last row of every topic-partition that has any."""
        ...

    def append(self, topic: str, partition: int, rows: Sequence[AuditRow]) -> None:
        """Append rows of one topic-partition, durable on return.

        Raises:
            TransientError: nothing is known to be appended; call again with exactly the same rows.
            IntegrityError: the trail contradicts the rows.
        """
        ...
