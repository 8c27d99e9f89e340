"""A Kafka record as a value, and many of them as columns: what readers hand to the core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, overload

from schemas.positions import SourcePosition

if TYPE_CHECKING:
    from collections.abc import Callable

UNREADABLE_HEADERS: tuple[tuple[str, None]] = (("unreadable", None),)
"""Stands for headers with a name that is not UTF-8; such a record counts as unsigned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """One record of a topic, exactly as the broker gave it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    """The broker's time of the append, milliseconds since the epoch, UTC."""
    key: bytes | None
    value: bytes | None = field(repr=False)
    headers: tuple[tuple[str, bytes | None], ...] = field(default=(), repr=False)

    @property
    def position(self) -> SourcePosition:
        """Where the record stands."""
        return SourcePosition(topic=self.topic, partition=self.partition, offset=self.offset)


class RecordBatch(Sequence[LogRecord]):
    """Records in the order they were read; one is made when it is asked for.

    A replay reads millions, and of most of them nobody wants more than the value and where it stands.

    Args:
        topics: of each record, like the others.
        partitions: where in the topic.
        offsets: where in the partition.
        values: what they say.
        record: makes one of them, by its number.
    """

    __slots__ = ("_record", "offsets", "partitions", "topics", "values")

    def __init__(
        self,
        topics: Sequence[str],
        partitions: Sequence[int],
        offsets: Sequence[int],
        values: Sequence[bytes | None],
        record: Callable[[int], LogRecord],
    ) -> None:
        self.topics = topics
        self.partitions = partitions
        self.offsets = offsets
        self.values = values
        self._record = record

    @classmethod
    def of(cls, records: Sequence[LogRecord]) -> RecordBatch:
        """Return records as a batch, which they may be already."""
        if isinstance(records, RecordBatch):
            return records
        return cls(
            [record.topic for record in records],
            [record.partition for record in records],
            [record.offset for record in records],
            [record.value for record in records],
            records.__getitem__,
        )

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, which: int) -> LogRecord: ...
    @overload
    def __getitem__(self, which: slice) -> list[LogRecord]: ...
    def __getitem__(self, which: int | slice) -> LogRecord | list[LogRecord]:
        if isinstance(which, slice):
            return [self._record(number) for number in range(len(self))[which]]
        return self._record(range(len(self))[which])

    @property
    def ends(self) -> dict[int, int]:
        """By partition the offset behind the last record; for a batch of one topic."""
        last = dict(zip(self.partitions, self.offsets, strict=True))
        return {partition: offset + 1 for partition, offset in last.items()}

    def by_topic(self) -> dict[str, RecordBatch]:
        """Return the records of each topic."""
        if self.topics and self.topics.count(self.topics[0]) == len(self):
            return {self.topics[0]: self}
        numbers: dict[str, list[int]] = {}
        for number, topic in enumerate(self.topics):
            numbers.setdefault(topic, []).append(number)
        return {topic: self._only(which) for topic, which in numbers.items()}

    def _only(self, which: Sequence[int]) -> RecordBatch:
        return RecordBatch(
            [self.topics[number] for number in which],
            [self.partitions[number] for number in which],
            [self.offsets[number] for number in which],
            [self.values[number] for number in which],
            lambda number: self._record(which[number]),
        )
