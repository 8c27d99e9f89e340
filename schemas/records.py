"""A Kafka record as a value: what readers hand to the core."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.positions import SourcePosition

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
