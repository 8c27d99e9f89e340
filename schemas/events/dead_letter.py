"""What could not be processed.

Generated from schemas/avro/dead_letter/ by `python -m infra.codegen`; do not edit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Self
from uuid import UUID

from schemas.instants import utc
from schemas.positions import SourcePosition


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A record that could not be processed; its original bytes are kept encrypted in the object store."""

    AVRO_NAME: ClassVar[str] = "leadstream.dead_letter.DeadLetter"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`."""
    source: SourcePosition
    """The record that could not be processed."""
    stage: str
    """Who gave it up, e.g. the name of the agent."""
    code: str
    """Stable reason code."""
    message: str
    """In words; never biometric data or bytes of the record."""
    value_sha256: str
    """SHA-256 of the value's exact bytes, 64 lower-case hexadecimal digits."""
    value_size_bytes: int
    """Length of the value."""
    reference: str | None = None
    """Address of the encrypted original (an OriginalRecord) in the object store; absent when it could not be stored."""
    first_seen_at: datetime
    """When it was first given up, UTC, microseconds."""
    replay_count: int
    """How often it was replayed before."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "source": self.source.to_record(),
            "stage": self.stage,
            "code": self.code,
            "message": self.message,
            "value_sha256": self.value_sha256,
            "value_size_bytes": self.value_size_bytes,
            "reference": self.reference,
            "first_seen_at": utc(self.first_seen_at),
            "replay_count": self.replay_count,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            source=SourcePosition.from_record(record["source"]),
            stage=record["stage"],
            code=record["code"],
            message=record["message"],
            value_sha256=record["value_sha256"],
            value_size_bytes=record["value_size_bytes"],
            reference=record["reference"],
            first_seen_at=record["first_seen_at"],
            replay_count=record["replay_count"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterReplayed:
    """The original of a dead letter was put back, unaltered, at the end of its topic; whoever reads there processes it anew."""

    AVRO_NAME: ClassVar[str] = "leadstream.dead_letter.DeadLetterReplayed"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`."""
    dead_letter_id: UUID
    """Event id of the dead letter."""
    replayed_as: SourcePosition
    """Where the original stands now."""
    replay_count: int
    """How often it was replayed, this time included."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "dead_letter_id": self.dead_letter_id,
            "replayed_as": self.replayed_as.to_record(),
            "replay_count": self.replay_count,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            dead_letter_id=record["dead_letter_id"],
            replayed_as=SourcePosition.from_record(record["replayed_as"]),
            replay_count=record["replay_count"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One Kafka header."""

    name: str
    """Name."""
    value: bytes | None
    """Value bytes."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "name": self.name,
            "value": self.value,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            name=record["name"],
            value=record["value"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginalRecord:
    """Key, value and headers of a dead letter exactly as received; lives encrypted in the object store, never in Kafka."""

    AVRO_NAME: ClassVar[str] = "leadstream.dead_letter.OriginalRecord"

    key: bytes | None
    """Key bytes."""
    value: bytes | None
    """Value bytes."""
    headers: tuple[Header, ...]
    """Headers in order, repeats kept."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "key": self.key,
            "value": self.value,
            "headers": [item.to_record() for item in self.headers],
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            key=record["key"],
            value=record["value"],
            headers=tuple(Header.from_record(item) for item in record["headers"]),
        )
