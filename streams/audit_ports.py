"""What the audit sink needs from outside, as Protocols; `infra/wiring.py` joins them with the connectors.

Every method may block. The world being away is a `TransientError`, wrong evidence an `IntegrityError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from streams.ports import RecordLog

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from processors.audit import AuditRow, Bounds, Tip
    from streams.ports import TopicPartition


class AuditLog(RecordLog, Protocol):
    """Kafka for the sink, which has to have everything."""

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
