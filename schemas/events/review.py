"""One-to-one comparisons, and the leads that come of them.

Generated from schemas/avro/review/ by `python -m infra.codegen`; do not edit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Self
from uuid import UUID

from schemas.instants import utc
from schemas.positions import SourcePosition


class FeatureFinding(StrEnum):
    """How one feature of the two faces compares."""

    SIMILAR = "SIMILAR"
    DISSIMILAR = "DISSIMILAR"
    NOT_COMPARABLE = "NOT_COMPARABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureComparison:
    """One feature of the morphological comparison."""

    feature: str
    """Name of the feature, from the FISWG feature list."""
    finding: FeatureFinding
    """How it compares."""
    note: str
    """What was seen, in words; may be empty."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "feature": self.feature,
            "finding": self.finding.value,
            "note": self.note,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            feature=record["feature"],
            finding=FeatureFinding(record["finding"]),
            note=record["note"],
        )


class ReviewConclusion(StrEnum):
    """What the comparison supports; never an identification."""

    STRONG_SUPPORT = "STRONG_SUPPORT"
    SUPPORT = "SUPPORT"
    LIMITED_SUPPORT = "LIMITED_SUPPORT"
    INCONCLUSIVE = "INCONCLUSIVE"
    EXCLUSION = "EXCLUSION"


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateReviewed:
    """One candidate was compared with the probe one to one, feature by feature."""

    AVRO_NAME: ClassVar[str] = "leadstream.review.CandidateReviewed"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. The examiner, or a publisher who speaks for the examiner."""
    probe_id: UUID
    """The probe; the key of everything about it."""
    user_id: str
    """The examiner."""
    review_id: UUID
    """The review, as ImageViewed opened it."""
    capture_id: UUID
    """The candidate, by the capture on the list."""
    features: tuple[FeatureComparison, ...]
    """Every feature of the list, once each."""
    limitations: str
    """What limits the comparison: resolution, pose, light, time between the photos."""
    conclusion: ReviewConclusion
    """What the comparison supports."""
    note: str
    """Remark of the examiner; may be empty."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "probe_id": self.probe_id,
            "user_id": self.user_id,
            "review_id": self.review_id,
            "capture_id": self.capture_id,
            "features": [item.to_record() for item in self.features],
            "limitations": self.limitations,
            "conclusion": self.conclusion.value,
            "note": self.note,
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
            review_id=record["review_id"],
            capture_id=record["capture_id"],
            features=tuple(FeatureComparison.from_record(item) for item in record["features"]),
            limitations=record["limitations"],
            conclusion=ReviewConclusion(record["conclusion"]),
            note=record["note"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageViewed:
    """An examiner opens a review: the probe and its candidates are shown side by side to this examiner."""

    AVRO_NAME: ClassVar[str] = "leadstream.review.ImageViewed"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. The examiner, or a publisher who speaks for the examiner."""
    probe_id: UUID
    """The probe; the key of everything about it."""
    user_id: str
    """The examiner."""
    ori: str
    """ORI of the examiner's agency."""
    review_id: UUID
    """Identity of this examiner's review of this probe."""
    shown: tuple[UUID, ...]
    """capture_id of each candidate, in the order shown; a second examiner's order is another than the first one's."""
    shows_scores: bool
    """Whether scores and ranks were shown."""
    sheet_sha256: str
    """SHA-256 of the sheet, 64 lower-case hexadecimal digits."""
    expires_at: datetime
    """When the sheet may no longer be shown, UTC, microseconds."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "probe_id": self.probe_id,
            "user_id": self.user_id,
            "ori": self.ori,
            "review_id": self.review_id,
            "shown": list(self.shown),
            "shows_scores": self.shows_scores,
            "sheet_sha256": self.sheet_sha256,
            "expires_at": utc(self.expires_at),
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
            review_id=record["review_id"],
            shown=tuple(record["shown"]),
            shows_scores=record["shows_scores"],
            sheet_sha256=record["sheet_sha256"],
            expires_at=record["expires_at"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadIssued:
    """An investigative lead: examiners found support by one-to-one comparison. Not an identification."""

    AVRO_NAME: ClassVar[str] = "leadstream.review.LeadIssued"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. The clerk."""
    lead_id: UUID
    """Identity of the lead."""
    probe_id: UUID
    """The probe."""
    user_id: str
    """Who asked for the list and receives the lead."""
    ori: str
    """ORI of that user's agency."""
    case_number: str
    """The case that the search belongs to."""
    capture_id: UUID
    """The candidate, by the capture on the list."""
    person: str
    """`sid:<SID>` or `booking:<ORI>/<booking number>`."""
    booking_ori: str
    """ORI of the candidate's booking."""
    booking_number: str
    """Booking number of the candidate's booking."""
    examiners: tuple[str, ...]
    """Who compared one to one."""
    conclusions: tuple[str, ...]
    """A ReviewConclusion of each, in the same order."""
    lead_notice: str
    """The notice that goes with every view of it."""
    corroboration_reminder: str
    """What has to be found out besides before anybody acts on it."""
    policy_version: str
    """The policy in force."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "lead_id": self.lead_id,
            "probe_id": self.probe_id,
            "user_id": self.user_id,
            "ori": self.ori,
            "case_number": self.case_number,
            "capture_id": self.capture_id,
            "person": self.person,
            "booking_ori": self.booking_ori,
            "booking_number": self.booking_number,
            "examiners": list(self.examiners),
            "conclusions": list(self.conclusions),
            "lead_notice": self.lead_notice,
            "corroboration_reminder": self.corroboration_reminder,
            "policy_version": self.policy_version,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            lead_id=record["lead_id"],
            probe_id=record["probe_id"],
            user_id=record["user_id"],
            ori=record["ori"],
            case_number=record["case_number"],
            capture_id=record["capture_id"],
            person=record["person"],
            booking_ori=record["booking_ori"],
            booking_number=record["booking_number"],
            examiners=tuple(record["examiners"]),
            conclusions=tuple(record["conclusions"]),
            lead_notice=record["lead_notice"],
            corroboration_reminder=record["corroboration_reminder"],
            policy_version=record["policy_version"],
        )


class LeadWithdrawalCause(StrEnum):
    """Why it no longer stands."""

    RECORD_SEALED = "RECORD_SEALED"
    RECORD_EXPUNGED = "RECORD_EXPUNGED"
    REVIEW_REVERSED = "REVIEW_REVERSED"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadWithdrawn:
    """A lead no longer stands; whoever received it is told."""

    AVRO_NAME: ClassVar[str] = "leadstream.review.LeadWithdrawn"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. The clerk."""
    lead_id: UUID
    """Identity of the lead."""
    probe_id: UUID
    """The probe."""
    capture_id: UUID
    """The candidate, by the capture on the list."""
    cause: LeadWithdrawalCause
    """Why."""
    cause_event_id: UUID
    """event_id of the order or of the reversal."""
    receivers: tuple[str, ...]
    """User ids of all who received the lead."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "lead_id": self.lead_id,
            "probe_id": self.probe_id,
            "capture_id": self.capture_id,
            "cause": self.cause.value,
            "cause_event_id": self.cause_event_id,
            "receivers": list(self.receivers),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            lead_id=record["lead_id"],
            probe_id=record["probe_id"],
            capture_id=record["capture_id"],
            cause=LeadWithdrawalCause(record["cause"]),
            cause_event_id=record["cause_event_id"],
            receivers=tuple(record["receivers"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetainedDataDestroyed:
    """What was kept of a probe has been deleted because its time had come."""

    AVRO_NAME: ClassVar[str] = "leadstream.review.RetainedDataDestroyed"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. The clerk."""
    probe_id: UUID
    """The probe."""
    items: tuple[str, ...]
    """What was deleted: PROBE_IMAGE, REVIEW_SHEETS."""
    rule: str
    """The rule of docs/policy.md that says when."""
    due_at: datetime
    """Since when it was due, UTC, microseconds."""
    requested_by: str | None = None
    """Who asked for it by command; null on schedule."""
    policy_version: str
    """The policy in force."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "probe_id": self.probe_id,
            "items": list(self.items),
            "rule": self.rule,
            "due_at": utc(self.due_at),
            "requested_by": self.requested_by,
            "policy_version": self.policy_version,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            probe_id=record["probe_id"],
            items=tuple(record["items"]),
            rule=record["rule"],
            due_at=record["due_at"],
            requested_by=record["requested_by"],
            policy_version=record["policy_version"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewAnswered:
    """What became of one thing that an examiner said about a probe."""

    AVRO_NAME: ClassVar[str] = "leadstream.review.ReviewAnswered"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. The clerk."""
    probe_id: UUID
    """The probe; the key of everything about it."""
    user_id: str
    """The examiner."""
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
    rule: str = ""
    """The rule of docs/policy.md by which it was refused; empty if it counts."""
    policy_version: str
    """The policy in force at the decision."""
    access_watermark: tuple[int, ...]
    """Next access offset to apply, by partition, at the decision."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "probe_id": self.probe_id,
            "user_id": self.user_id,
            "source": self.source.to_record(),
            "source_event_id": self.source_event_id,
            "accepted": self.accepted,
            "code": self.code,
            "message": self.message,
            "rule": self.rule,
            "policy_version": self.policy_version,
            "access_watermark": list(self.access_watermark),
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
            source=SourcePosition.from_record(record["source"]),
            source_event_id=record["source_event_id"],
            accepted=record["accepted"],
            code=record["code"],
            message=record["message"],
            rule=record["rule"],
            policy_version=record["policy_version"],
            access_watermark=tuple(record["access_watermark"]),
        )


class ReviewResult(StrEnum):
    """Whether a lead may be made of it."""

    SUPPORTED = "SUPPORTED"
    NOT_SUPPORTED = "NOT_SUPPORTED"
    DISAGREEMENT = "DISAGREEMENT"
    WITHDRAWN = "WITHDRAWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateResult:
    """What all examiners together say of one candidate."""

    capture_id: UUID
    """The candidate, by the capture on the list."""
    rank: int
    """Rank on the list, 1 is the first."""
    conclusions: tuple[str, ...]
    """A ReviewConclusion of each examiner, in the order of `examiners`."""
    result: ReviewResult
    """SUPPORTED where every examiner finds support; DISAGREEMENT where one does and another does not; WITHDRAWN where the record was sealed meanwhile."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "capture_id": self.capture_id,
            "rank": self.rank,
            "conclusions": list(self.conclusions),
            "result": self.result.value,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            capture_id=record["capture_id"],
            rank=record["rank"],
            conclusions=tuple(record["conclusions"]),
            result=ReviewResult(record["result"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewCompleted:
    """As many examiners as the policy asks for have compared every candidate."""

    AVRO_NAME: ClassVar[str] = "leadstream.review.ReviewCompleted"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. The clerk."""
    probe_id: UUID
    """The probe."""
    examiners: tuple[str, ...]
    """Who compared, in the order in which they concluded."""
    results: tuple[CandidateResult, ...]
    """One for each candidate, by rank."""
    policy_version: str
    """The policy in force."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "probe_id": self.probe_id,
            "examiners": list(self.examiners),
            "results": [item.to_record() for item in self.results],
            "policy_version": self.policy_version,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            probe_id=record["probe_id"],
            examiners=tuple(record["examiners"]),
            results=tuple(CandidateResult.from_record(item) for item in record["results"]),
            policy_version=record["policy_version"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewConcluded:
    """An examiner closes a review; every candidate has a disposition."""

    AVRO_NAME: ClassVar[str] = "leadstream.review.ReviewConcluded"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. The examiner, or a publisher who speaks for the examiner."""
    probe_id: UUID
    """The probe; the key of everything about it."""
    user_id: str
    """The examiner."""
    review_id: UUID
    """The review, as ImageViewed opened it."""
    summary: str
    """Remark on the whole list; may be empty."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "probe_id": self.probe_id,
            "user_id": self.user_id,
            "review_id": self.review_id,
            "summary": self.summary,
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
            review_id=record["review_id"],
            summary=record["summary"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewReversed:
    """A conclusion on one candidate is taken back."""

    AVRO_NAME: ClassVar[str] = "leadstream.review.ReviewReversed"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. The examiner, or a supervisor."""
    probe_id: UUID
    """The probe; the key of everything about it."""
    user_id: str
    """The examiner."""
    capture_id: UUID
    """The candidate, by the capture on the list."""
    reason: str
    """Why, in words."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "probe_id": self.probe_id,
            "user_id": self.user_id,
            "capture_id": self.capture_id,
            "reason": self.reason,
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
            capture_id=record["capture_id"],
            reason=record["reason"],
        )
