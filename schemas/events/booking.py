"""What jail booking systems say, and what became of it.

Generated from schemas/avro/booking/ by `python -m infra.codegen`; do not edit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar, Self
from uuid import UUID

from schemas.instants import utc
from schemas.positions import SourcePosition


class BookingOutcome(StrEnum):
    """Effect on the gallery: ENROLLED at least one capture; NOT_ENROLLED no capture was usable; WITHDRAWN by an order; ORDER_LIFTED the record may be enrolled again; REFUSED the event had no effect."""

    ENROLLED = "ENROLLED"
    NOT_ENROLLED = "NOT_ENROLLED"
    WITHDRAWN = "WITHDRAWN"
    ORDER_LIFTED = "ORDER_LIFTED"
    REFUSED = "REFUSED"


class CaptureDisposition(StrEnum):
    """ENROLLED is searchable; STORED is kept and not looked at; REFUSED could not be used."""

    ENROLLED = "ENROLLED"
    STORED = "STORED"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureOutcome:
    """What became of one capture."""

    capture_id: UUID
    """The capture."""
    disposition: CaptureDisposition
    """What became of it."""
    code: str | None = None
    """Stable reason code of a refusal."""
    message: str | None = None
    """In words, what to fix."""
    measurements: Mapping[str, float]
    """Quality measurements by name, units in the names; docs/quality.md lists them. unified_quality: 0 to 100, higher is better."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "capture_id": self.capture_id,
            "disposition": self.disposition.value,
            "code": self.code,
            "message": self.message,
            "measurements": dict(self.measurements),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            capture_id=record["capture_id"],
            disposition=CaptureDisposition(record["disposition"]),
            code=record["code"],
            message=record["message"],
            measurements=MappingProxyType(record["measurements"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingProcessed:
    """What became of a booking event: what the booking system reads back."""

    AVRO_NAME: ClassVar[str] = "leadstream.booking.BookingProcessed"

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
    source: SourcePosition
    """The booking event this answers."""
    source_event_id: UUID | None = None
    """event_id of the booking event; absent when it could not be trusted."""
    outcome: BookingOutcome
    """Effect on the gallery."""
    code: str | None = None
    """Stable reason code when outcome is NOT_ENROLLED or REFUSED, or when not all was done that an order says, or something about it is to be checked."""
    message: str | None = None
    """In words, what to fix."""
    captures: tuple[CaptureOutcome, ...]
    """One entry a capture, in the order of the booking event."""
    model_digest: str | None = None
    """Digest of the model pack and recipe that made the templates."""
    synthetic: bool = False
    """True for made-up data (demonstration, load tests); no real person stands behind it."""
    effect: str | None = None
    """The OrderEffect that was given to an order that was obeyed; null for a booking and for an order that was refused."""
    rule: str = ""
    """The rule of docs/policy.md by which it was refused or an order was given less effect; empty where no rule of the policy did."""
    policy_version: str = ""
    """The policy in force at the decision; empty in records of version 1."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "ori": self.ori,
            "booking_number": self.booking_number,
            "source": self.source.to_record(),
            "source_event_id": self.source_event_id,
            "outcome": self.outcome.value,
            "code": self.code,
            "message": self.message,
            "captures": [item.to_record() for item in self.captures],
            "model_digest": self.model_digest,
            "synthetic": self.synthetic,
            "effect": self.effect,
            "rule": self.rule,
            "policy_version": self.policy_version,
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
            source=SourcePosition.from_record(record["source"]),
            source_event_id=record["source_event_id"],
            outcome=BookingOutcome(record["outcome"]),
            code=record["code"],
            message=record["message"],
            captures=tuple(CaptureOutcome.from_record(item) for item in record["captures"]),
            model_digest=record["model_digest"],
            synthetic=record["synthetic"],
            effect=record["effect"],
            rule=record["rule"],
            policy_version=record["policy_version"],
        )


class CaptureKind(StrEnum):
    """What the image shows; only FACE is looked at for enrolment."""

    FACE = "FACE"
    FINGERPRINT = "FINGERPRINT"
    ORIGINAL_FILE = "ORIGINAL_FILE"
    OTHER = "OTHER"


class Pose(StrEnum):
    """Pose of a face capture; only FRONTAL is enrolled."""

    FRONTAL = "FRONTAL"
    LEFT_PROFILE = "LEFT_PROFILE"
    RIGHT_PROFILE = "RIGHT_PROFILE"
    OTHER = "OTHER"
    NOT_APPLICABLE = "NOT_APPLICABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """One image of a booking and its facts; the bytes are in the object store."""

    capture_id: UUID
    """Identity of the capture, given by the publisher."""
    kind: CaptureKind
    """What the object is."""
    pose: Pose
    """Pose, NOT_APPLICABLE unless kind is FACE."""
    source: str
    """How the image came to be, e.g. BOOKING_CAPTURE; anything else is stored and never enrolled."""
    reference: str
    """Address in the object store."""
    sha256: str
    """SHA-256 of the original bytes, 64 lower-case hexadecimal digits."""
    size_bytes: int
    """Length of the original bytes."""
    media_type: str
    """IANA media type as stated by the publisher, e.g. image/jpeg; never trusted."""
    captured_at: datetime | None = None
    """When the image was taken, UTC, microseconds."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "capture_id": self.capture_id,
            "kind": self.kind.value,
            "pose": self.pose.value,
            "source": self.source,
            "reference": self.reference,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "media_type": self.media_type,
            "captured_at": None if self.captured_at is None else utc(self.captured_at),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            capture_id=record["capture_id"],
            kind=CaptureKind(record["kind"]),
            pose=Pose(record["pose"]),
            source=record["source"],
            reference=record["reference"],
            sha256=record["sha256"],
            size_bytes=record["size_bytes"],
            media_type=record["media_type"],
            captured_at=record["captured_at"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkLoadProvenance:
    """Where the bookings of a bulk load come from; signed with the event."""

    load_id: UUID
    """Identity of the load; the same for all its bookings."""
    origin: str
    """System or archive that the photos come from."""
    stated_by: str
    """Who answers for the statement."""
    statement: str
    """How the photos came to be, in words."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "load_id": self.load_id,
            "origin": self.origin,
            "stated_by": self.stated_by,
            "statement": self.statement,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            load_id=record["load_id"],
            origin=record["origin"],
            stated_by=record["stated_by"],
            statement=record["statement"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingRecorded:
    """The whole state of one booking as its agency knows it, with all captures; a correction is a new BookingRecorded."""

    AVRO_NAME: ClassVar[str] = "leadstream.booking.BookingRecorded"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. A publisher of this ORI."""
    ori: str
    """ORI of the agency: nine characters, A-Z and 0-9."""
    booking_number: str
    """The agency's number of this arrest, 1 to 64 characters."""
    sid: str | None = None
    """State identification number (CII number in California) of the person; absent when the state has none."""
    booked_at: datetime
    """When the person was booked, UTC, microseconds."""
    captures: tuple[Capture, ...]
    """All captures of the booking; an empty list is allowed and withdraws what was enrolled before."""
    synthetic: bool = False
    """True for made-up data (demonstration, load tests); no real person stands behind it."""
    provenance: BulkLoadProvenance | None = None
    """Required where a capture comes from a bulk load of older bookings; null for a booking made now."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "ori": self.ori,
            "booking_number": self.booking_number,
            "sid": self.sid,
            "booked_at": utc(self.booked_at),
            "captures": [item.to_record() for item in self.captures],
            "synthetic": self.synthetic,
            "provenance": None if self.provenance is None else self.provenance.to_record(),
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
            booked_at=record["booked_at"],
            captures=tuple(Capture.from_record(item) for item in record["captures"]),
            synthetic=record["synthetic"],
            provenance=None if record["provenance"] is None else BulkLoadProvenance.from_record(record["provenance"]),
        )


class OrderKind(StrEnum):
    """What the court ordered."""

    SEAL = "SEAL"
    EXPUNGE = "EXPUNGE"
    UNSEAL = "UNSEAL"


class OrderEffect(StrEnum):
    """What an order does to the record beyond its kind; the first of each pair protects the person more."""

    WITHDRAW_AND_MASK = "WITHDRAW_AND_MASK"
    WITHDRAW = "WITHDRAW"
    LIFT = "LIFT"
    LIFT_AND_RE_ENROL = "LIFT_AND_RE_ENROL"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOrderReceived:
    """A court order on one booking: seal, expunge or unseal."""

    AVRO_NAME: ClassVar[str] = "leadstream.booking.RecordOrderReceived"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. A publisher of this ORI."""
    ori: str
    """ORI of the agency: nine characters, A-Z and 0-9."""
    booking_number: str
    """The agency's number of this arrest, 1 to 64 characters."""
    order: OrderKind
    """What the court ordered."""
    statute: str
    """Legal ground, e.g. CA PC 851.91; its effect follows from it."""
    court: str
    """Court that made the order."""
    order_number: str
    """The court's number of the order."""
    ordered_at: datetime
    """Date of the order, UTC, microseconds."""
    effect: OrderEffect | None = None
    """What the court ordered done; null is the more protective effect of the kind of order. One that protects less holds only where the policy lets the statute have it."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "ori": self.ori,
            "booking_number": self.booking_number,
            "order": self.order.value,
            "statute": self.statute,
            "court": self.court,
            "order_number": self.order_number,
            "ordered_at": utc(self.ordered_at),
            "effect": None if self.effect is None else self.effect.value,
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
            order=OrderKind(record["order"]),
            statute=record["statute"],
            court=record["court"],
            order_number=record["order_number"],
            ordered_at=record["ordered_at"],
            effect=None if record["effect"] is None else OrderEffect(record["effect"]),
        )
