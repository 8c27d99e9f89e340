"""What is searchable.

Generated from schemas/avro/gallery/ by `python -m infra.codegen`; do not edit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Self
from uuid import UUID

from schemas.instants import utc
from schemas.positions import SourcePosition


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledCapture:
    """One template."""

    capture_id: UUID
    """The capture it was extracted from."""
    template: bytes = field(repr=False)
    """(dimension,) float16 little-endian, L2-normalised before rounding to half precision."""
    quality: float
    """Unified quality of the capture by the pack named in model_digest, 0 to 1, higher is better; docs/quality.md."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "capture_id": self.capture_id,
            "template": self.template,
            "quality": self.quality,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            capture_id=record["capture_id"],
            template=record["template"],
            quality=record["quality"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplatesEnrolled:
    """All searchable templates of one booking; replaces whatever was enrolled for it from a lower source offset."""

    AVRO_NAME: ClassVar[str] = "leadstream.gallery.TemplatesEnrolled"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`."""
    ori: str
    """ORI of the agency: nine characters, A-Z and 0-9."""
    booking_number: str
    """The agency's number of this arrest, 1 to 64 characters."""
    sid: str | None = None
    """State identification number (CII number in California) of the person; absent when the state has none."""
    model_digest: str
    """Digest of the model pack and recipe; templates of different digests are never compared."""
    captures: tuple[EnrolledCapture, ...]
    """At least one."""
    source: SourcePosition
    """The booking event it comes from; the highest source offset wins."""
    source_said_at: datetime
    """The latest time at which a publisher said something that counted for this booking, UTC, microseconds; what was said earlier and comes again, such as an old unseal with its valid signature, is stale."""
    synthetic: bool = False
    """True for made-up data (demonstration, load tests); no real person stands behind it."""
    booking_offset: int | None = None
    """Offset, in the topic and partition of `source`, of the BookingRecorded whose photos these are, where an unseal enrolled it again; null where `source` is that record."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "ori": self.ori,
            "booking_number": self.booking_number,
            "sid": self.sid,
            "model_digest": self.model_digest,
            "captures": [item.to_record() for item in self.captures],
            "source": self.source.to_record(),
            "source_said_at": utc(self.source_said_at),
            "synthetic": self.synthetic,
            "booking_offset": self.booking_offset,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            ori=record["ori"],
            booking_number=record["booking_number"],
            sid=record["sid"],
            model_digest=record["model_digest"],
            captures=tuple(EnrolledCapture.from_record(item) for item in record["captures"]),
            source=SourcePosition.from_record(record["source"]),
            source_said_at=record["source_said_at"],
            synthetic=record["synthetic"],
            booking_offset=record["booking_offset"],
        )


class WithdrawalCause(StrEnum):
    """SEALED and EXPUNGED bar enrolment until an unseal; ORDER_LIFTED and NO_USABLE_CAPTURE do not."""

    SEALED = "SEALED"
    EXPUNGED = "EXPUNGED"
    ORDER_LIFTED = "ORDER_LIFTED"
    NO_USABLE_CAPTURE = "NO_USABLE_CAPTURE"


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplatesWithdrawn:
    """Nothing of this booking is searchable any more; never a null tombstone, so that compaction keeps it and no old snapshot brings anyone back."""

    AVRO_NAME: ClassVar[str] = "leadstream.gallery.TemplatesWithdrawn"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`."""
    ori: str
    """ORI of the agency: nine characters, A-Z and 0-9."""
    booking_number: str
    """The agency's number of this arrest, 1 to 64 characters."""
    cause: WithdrawalCause
    """Why."""
    order_event_id: UUID | None = None
    """event_id of the court order in force, if an order is the cause."""
    source: SourcePosition
    """The booking event it comes from; the highest source offset wins."""
    source_said_at: datetime
    """The latest time at which a publisher said something that counted for this booking, UTC, microseconds; what was said earlier and comes again, such as an old unseal with its valid signature, is stale."""
    booking_offset: int | None = None
    """Offset, in the topic and partition of `source`, of the last BookingRecorded that counted before the order, enrolled or not; an unseal whose effect allows it enrols that one again. Null where none is known, and where `source` is that record."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "ori": self.ori,
            "booking_number": self.booking_number,
            "cause": self.cause.value,
            "order_event_id": self.order_event_id,
            "source": self.source.to_record(),
            "source_said_at": utc(self.source_said_at),
            "booking_offset": self.booking_offset,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            ori=record["ori"],
            booking_number=record["booking_number"],
            cause=WithdrawalCause(record["cause"]),
            order_event_id=record["order_event_id"],
            source=SourcePosition.from_record(record["source"]),
            source_said_at=record["source_said_at"],
            booking_offset=record["booking_offset"],
        )
