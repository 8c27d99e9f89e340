"""Searches and their outcomes.

Generated from schemas/avro/probe/ by `python -m infra.codegen`; do not edit.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One person; named is the capture that scored best."""

    rank: int
    """1 is the highest score."""
    person: str
    """`sid:<SID>` where the state has one, else `booking:<ORI>/<booking number>`."""
    ori: str
    """ORI of the booking of the best capture."""
    booking_number: str
    """Booking number of the best capture."""
    capture_id: UUID
    """The best capture."""
    score: float
    """Cosine similarity of the probe with what `consolidation` says, -1 to 1, rounded to six decimals."""
    synthetic: bool = False
    """True for made-up data."""
    expected_non_mates: float | None = None
    """Templates of other persons that are expected to score at least this much in a gallery of this size, three significant digits; no probability that the candidate is the person. Null where the model card does not state the tail of its scores."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "rank": self.rank,
            "person": self.person,
            "ori": self.ori,
            "booking_number": self.booking_number,
            "capture_id": self.capture_id,
            "score": self.score,
            "synthetic": self.synthetic,
            "expected_non_mates": self.expected_non_mates,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            rank=record["rank"],
            person=record["person"],
            ori=record["ori"],
            booking_number=record["booking_number"],
            capture_id=record["capture_id"],
            score=record["score"],
            synthetic=record["synthetic"],
            expected_non_mates=record["expected_non_mates"],
        )


class Consolidation(StrEnum):
    """What a person's place in a list rests on."""

    BEST_CAPTURE = "BEST_CAPTURE"
    FUSED_CAPTURES = "FUSED_CAPTURES"


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateListIssued:
    """A ranked list of persons to compare one to one: an investigative lead, never an identification."""

    AVRO_NAME: ClassVar[str] = "leadstream.probe.CandidateListIssued"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`."""
    probe_id: UUID
    """The probe."""
    user_id: str
    """Who asked."""
    ori: str
    """ORI of the agency on whose behalf."""
    reason_code: str
    """Reason code of the request."""
    case_number: str
    """Case number of the request."""
    request: SourcePosition
    """Where the request stands in Kafka."""
    requested: int
    """Length asked for."""
    returned: int
    """Length of the list."""
    candidates: tuple[Candidate, ...]
    """At most `requested`, each person once, by rank."""
    threshold: float
    """The pack's published cosine threshold, for orientation; the list is not cut at it."""
    model_digest: str
    """Digest of the model pack and recipe."""
    policy_version: str
    """Policy under which it was allowed."""
    gallery_watermark: tuple[int, ...]
    """Next gallery offset to apply, by partition, when it was decided."""
    access_watermark: tuple[int, ...]
    """Next access offset to apply, by partition, when it was decided."""
    gallery_templates: int
    """Templates compared; all of them, always."""
    gallery_persons: int
    """Persons among them."""
    measurements: Mapping[str, float]
    """Quality measurements of the probe by name, units in the names; docs/quality.md lists them. unified_quality: 0 to 100, higher is better."""
    lead_notice: str
    """The fixed notice that every view of the list must show."""
    consolidation: Consolidation = Consolidation.BEST_CAPTURE
    """What the scores are of: the best capture of each person, or all captures of the person together, weighted by their quality."""
    quality_override: UUID | None = None
    """event_id of the QualityOverrideGranted by which a supervisor let this image be searched although the policy finds it too poor."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "probe_id": self.probe_id,
            "user_id": self.user_id,
            "ori": self.ori,
            "reason_code": self.reason_code,
            "case_number": self.case_number,
            "request": self.request.to_record(),
            "requested": self.requested,
            "returned": self.returned,
            "candidates": [item.to_record() for item in self.candidates],
            "threshold": self.threshold,
            "model_digest": self.model_digest,
            "policy_version": self.policy_version,
            "gallery_watermark": list(self.gallery_watermark),
            "access_watermark": list(self.access_watermark),
            "gallery_templates": self.gallery_templates,
            "gallery_persons": self.gallery_persons,
            "measurements": dict(self.measurements),
            "lead_notice": self.lead_notice,
            "consolidation": self.consolidation.value,
            "quality_override": self.quality_override,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            probe_id=record["probe_id"],
            user_id=record["user_id"],
            ori=record["ori"],
            reason_code=record["reason_code"],
            case_number=record["case_number"],
            request=SourcePosition.from_record(record["request"]),
            requested=record["requested"],
            returned=record["returned"],
            candidates=tuple(Candidate.from_record(item) for item in record["candidates"]),
            threshold=record["threshold"],
            model_digest=record["model_digest"],
            policy_version=record["policy_version"],
            gallery_watermark=tuple(record["gallery_watermark"]),
            access_watermark=tuple(record["access_watermark"]),
            gallery_templates=record["gallery_templates"],
            gallery_persons=record["gallery_persons"],
            measurements=MappingProxyType(record["measurements"]),
            lead_notice=record["lead_notice"],
            consolidation=Consolidation(record["consolidation"]),
            quality_override=record["quality_override"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRefused:
    """The search was not made; nobody was compared with anybody."""

    AVRO_NAME: ClassVar[str] = "leadstream.probe.ProbeRefused"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`."""
    probe_id: UUID
    """The probe."""
    user_id: str
    """Who asked."""
    ori: str
    """ORI of the agency on whose behalf."""
    reason_code: str
    """Reason code of the request."""
    case_number: str
    """Case number of the request."""
    request: SourcePosition
    """Where the request stands in Kafka."""
    code: str
    """Stable refusal code."""
    message: str
    """In words, what to do."""
    policy_version: str
    """Policy under which it was refused."""
    gallery_watermark: tuple[int, ...]
    """Next gallery offset to apply, by partition, when it was decided."""
    access_watermark: tuple[int, ...]
    """Next access offset to apply, by partition, when it was decided."""
    measurements: Mapping[str, float]
    """Quality measurements of the probe by name where quality is the reason; docs/quality.md lists them."""
    rule: str = ""
    """The rule of docs/policy.md by which it was refused; empty where no rule of the policy did."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "probe_id": self.probe_id,
            "user_id": self.user_id,
            "ori": self.ori,
            "reason_code": self.reason_code,
            "case_number": self.case_number,
            "request": self.request.to_record(),
            "code": self.code,
            "message": self.message,
            "policy_version": self.policy_version,
            "gallery_watermark": list(self.gallery_watermark),
            "access_watermark": list(self.access_watermark),
            "measurements": dict(self.measurements),
            "rule": self.rule,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            probe_id=record["probe_id"],
            user_id=record["user_id"],
            ori=record["ori"],
            reason_code=record["reason_code"],
            case_number=record["case_number"],
            request=SourcePosition.from_record(record["request"]),
            code=record["code"],
            message=record["message"],
            policy_version=record["policy_version"],
            gallery_watermark=tuple(record["gallery_watermark"]),
            access_watermark=tuple(record["access_watermark"]),
            measurements=MappingProxyType(record["measurements"]),
            rule=record["rule"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEdit:
    """One step from the original to the image that is searched."""

    tool: str
    """Name and version of the tool."""
    operator: str
    """User id of who did it."""
    performed_at: datetime
    """When, UTC, microseconds."""
    description: str
    """What was changed, in words."""
    before_sha256: str
    """SHA-256 before the step."""
    after_sha256: str
    """SHA-256 after the step."""
    operation: str = ""
    """What kind of change, from the policy's list, e.g. CROP or ROTATE; empty in records of version 1."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "tool": self.tool,
            "operator": self.operator,
            "performed_at": utc(self.performed_at),
            "description": self.description,
            "before_sha256": self.before_sha256,
            "after_sha256": self.after_sha256,
            "operation": self.operation,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            tool=record["tool"],
            operator=record["operator"],
            performed_at=record["performed_at"],
            description=record["description"],
            before_sha256=record["before_sha256"],
            after_sha256=record["after_sha256"],
            operation=record["operation"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Logon:
    """How and when the user logged on to the publisher that signs for the user."""

    at: datetime
    """When, UTC, microseconds."""
    method: str
    """How, e.g. OIDC or PASSWORD_AND_TOKEN."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "at": utc(self.at),
            "method": self.method,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            at=record["at"],
            method=record["method"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSubmitted:
    """A trained investigator asks for a candidate list for one probe image."""

    AVRO_NAME: ClassVar[str] = "leadstream.probe.ProbeSubmitted"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`."""
    probe_id: UUID
    """Identity of the probe; the key of everything that follows."""
    user_id: str
    """The investigator who asks."""
    ori: str
    """ORI of the investigator's agency."""
    reason_code: str
    """Why, from the policy's list, e.g. FELONY_INVESTIGATION."""
    reason_text: str
    """Why, in the investigator's own words."""
    case_number: str
    """The agency's case the search belongs to."""
    legal_basis: str
    """What allows it, from the policy's list, e.g. CRIMINAL_INVESTIGATION."""
    source_type: str
    """Where the probe image comes from, from the policy's list; prohibited sources are refused."""
    image_reference: str
    """Address of the probe image in the object store."""
    image_sha256: str
    """SHA-256 of the image that is searched, 64 lower-case hexadecimal digits."""
    original_sha256: str
    """SHA-256 of the image as collected; equal to image_sha256 when nothing was edited."""
    collected_by: str | None = None
    """Who collected the original image."""
    collected_at: datetime | None = None
    """When the original image was collected, UTC, microseconds."""
    edits: tuple[ImageEdit, ...]
    """The chain of edits, in order; empty when nothing was edited."""
    requested_candidates: int = 20
    """Length of the list asked for, 2 to 50."""
    logon: Logon | None = None
    """Required when a publisher signs for the user; absent when the user's own key signs."""
    collection_basis: str | None = None
    """On what basis the original was collected, from the policy's list, e.g. SEARCH_WARRANT or CONSENT."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "probe_id": self.probe_id,
            "user_id": self.user_id,
            "ori": self.ori,
            "reason_code": self.reason_code,
            "reason_text": self.reason_text,
            "case_number": self.case_number,
            "legal_basis": self.legal_basis,
            "source_type": self.source_type,
            "image_reference": self.image_reference,
            "image_sha256": self.image_sha256,
            "original_sha256": self.original_sha256,
            "collected_by": self.collected_by,
            "collected_at": None if self.collected_at is None else utc(self.collected_at),
            "edits": [item.to_record() for item in self.edits],
            "requested_candidates": self.requested_candidates,
            "logon": None if self.logon is None else self.logon.to_record(),
            "collection_basis": self.collection_basis,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            probe_id=record["probe_id"],
            user_id=record["user_id"],
            ori=record["ori"],
            reason_code=record["reason_code"],
            reason_text=record["reason_text"],
            case_number=record["case_number"],
            legal_basis=record["legal_basis"],
            source_type=record["source_type"],
            image_reference=record["image_reference"],
            image_sha256=record["image_sha256"],
            original_sha256=record["original_sha256"],
            collected_by=record["collected_by"],
            collected_at=record["collected_at"],
            edits=tuple(ImageEdit.from_record(item) for item in record["edits"]),
            requested_candidates=record["requested_candidates"],
            logon=None if record["logon"] is None else Logon.from_record(record["logon"]),
            collection_basis=record["collection_basis"],
        )
