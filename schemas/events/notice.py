"""What receivers of a record or a lead have to be told.

Generated from schemas/avro/notice/ by `python -m infra.codegen`; do not edit.
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
class LeadWithdrawnNotice:
    """A lead that this user received no longer stands."""

    AVRO_NAME: ClassVar[str] = "leadstream.notice.LeadWithdrawnNotice"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. The clerk."""
    user_id: str
    """Who received it."""
    ori: str
    """ORI of that user's agency."""
    lead_id: UUID
    """The lead."""
    probe_id: UUID
    """The probe."""
    case_number: str
    """The case that the search belongs to."""
    cause: str
    """RECORD_SEALED, RECORD_EXPUNGED or REVIEW_REVERSED."""
    message: str
    """What to do, in words."""
    due_at: datetime
    """Until when it is to be acknowledged, UTC, microseconds."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "user_id": self.user_id,
            "ori": self.ori,
            "lead_id": self.lead_id,
            "probe_id": self.probe_id,
            "case_number": self.case_number,
            "cause": self.cause,
            "message": self.message,
            "due_at": utc(self.due_at),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            user_id=record["user_id"],
            ori=record["ori"],
            lead_id=record["lead_id"],
            probe_id=record["probe_id"],
            case_number=record["case_number"],
            cause=record["cause"],
            message=record["message"],
            due_at=record["due_at"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeAcknowledged:
    """A user has done what a notice asks for."""

    AVRO_NAME: ClassVar[str] = "leadstream.notice.NoticeAcknowledged"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. The user, or a publisher who speaks for the user."""
    user_id: str
    """Who acknowledges."""
    notice_id: UUID
    """event_id of the notice."""
    statement: str
    """What was done, in words."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "user_id": self.user_id,
            "notice_id": self.notice_id,
            "statement": self.statement,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            user_id=record["user_id"],
            notice_id=record["notice_id"],
            statement=record["statement"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeAnswered:
    """What became of one acknowledgement."""

    AVRO_NAME: ClassVar[str] = "leadstream.notice.NoticeAnswered"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. The clerk."""
    user_id: str
    """Who acknowledges."""
    notice_id: UUID
    """event_id of the notice."""
    source: SourcePosition
    """Where it was said."""
    source_event_id: UUID
    """event_id of what was said."""
    accepted: bool
    """Whether it counts."""
    code: str | None = None
    """Why not; null if it counts."""
    message: str | None = None
    """The same in words; null if it counts."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "user_id": self.user_id,
            "notice_id": self.notice_id,
            "source": self.source.to_record(),
            "source_event_id": self.source_event_id,
            "accepted": self.accepted,
            "code": self.code,
            "message": self.message,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            user_id=record["user_id"],
            notice_id=record["notice_id"],
            source=SourcePosition.from_record(record["source"]),
            source_event_id=record["source_event_id"],
            accepted=record["accepted"],
            code=record["code"],
            message=record["message"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeReminder:
    """A notice has not been acknowledged in time."""

    AVRO_NAME: ClassVar[str] = "leadstream.notice.NoticeReminder"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. The clerk."""
    user_id: str
    """Who has not acknowledged it."""
    notice_id: UUID
    """event_id of the notice."""
    number: int
    """Which reminder of this notice, from 1."""
    due_at: datetime
    """Until when the notice was to be acknowledged, UTC, microseconds."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "user_id": self.user_id,
            "notice_id": self.notice_id,
            "number": self.number,
            "due_at": utc(self.due_at),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            user_id=record["user_id"],
            notice_id=record["notice_id"],
            number=record["number"],
            due_at=record["due_at"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRecordNotice:
    """A record that this user received as a candidate is under a court order: it is not to be used, and copies are to be destroyed."""

    AVRO_NAME: ClassVar[str] = "leadstream.notice.SealedRecordNotice"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. The clerk."""
    user_id: str
    """Who received it."""
    ori: str
    """ORI of that user's agency."""
    probe_id: UUID
    """The probe whose list has it."""
    case_number: str
    """The case that the search belongs to."""
    rank: int
    """Rank on that list, 1 is the first."""
    capture_id: UUID
    """The capture on that list."""
    booking_ori: str
    """ORI of the booking under the order."""
    booking_number: str
    """The booking under the order."""
    source: SourcePosition
    """Where the order stands."""
    order_event_id: UUID
    """event_id of the order."""
    order: str
    """SEAL or EXPUNGE."""
    statute: str
    """Legal ground of the order."""
    received_as: tuple[str, ...]
    """How the user received it: LIST, REVIEW, LEAD."""
    message: str
    """What to do, in words."""
    due_at: datetime
    """Until when it is to be acknowledged, UTC, microseconds."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "user_id": self.user_id,
            "ori": self.ori,
            "probe_id": self.probe_id,
            "case_number": self.case_number,
            "rank": self.rank,
            "capture_id": self.capture_id,
            "booking_ori": self.booking_ori,
            "booking_number": self.booking_number,
            "source": self.source.to_record(),
            "order_event_id": self.order_event_id,
            "order": self.order,
            "statute": self.statute,
            "received_as": list(self.received_as),
            "message": self.message,
            "due_at": utc(self.due_at),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            user_id=record["user_id"],
            ori=record["ori"],
            probe_id=record["probe_id"],
            case_number=record["case_number"],
            rank=record["rank"],
            capture_id=record["capture_id"],
            booking_ori=record["booking_ori"],
            booking_number=record["booking_number"],
            source=SourcePosition.from_record(record["source"]),
            order_event_id=record["order_event_id"],
            order=record["order"],
            statute=record["statute"],
            received_as=tuple(record["received_as"]),
            message=record["message"],
            due_at=record["due_at"],
        )
