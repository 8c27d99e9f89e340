"""Who may do what.

Generated from schemas/avro/access/ by `python -m infra.codegen`; do not edit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Self
from uuid import UUID

from schemas.instants import utc


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessDenied:
    """A publisher turned a user away before anything was asked of the bureau."""

    AVRO_NAME: ClassVar[str] = "leadstream.access.AccessDenied"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. The publisher that denied it."""
    user_id: str
    """The user."""
    code: str
    """Stable refusal code."""
    message: str
    """In words."""
    attempted: str
    """What the user tried."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "user_id": self.user_id,
            "code": self.code,
            "message": self.message,
            "attempted": self.attempted,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            user_id=record["user_id"],
            code=record["code"],
            message=record["message"],
            attempted=record["attempted"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessGranted:
    """The user may use the system, as far as training, agreements and policy allow."""

    AVRO_NAME: ClassVar[str] = "leadstream.access.AccessGranted"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. An administrator."""
    user_id: str
    """The user."""
    reason: str
    """Why, in words."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "user_id": self.user_id,
            "reason": self.reason,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            user_id=record["user_id"],
            reason=record["reason"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRestricted:
    """The user may not search until access is granted again."""

    AVRO_NAME: ClassVar[str] = "leadstream.access.AccessRestricted"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. An administrator."""
    user_id: str
    """The user."""
    reason: str
    """Why, in words."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "user_id": self.user_id,
            "reason": self.reason,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            user_id=record["user_id"],
            reason=record["reason"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRevoked:
    """The user's access has ended."""

    AVRO_NAME: ClassVar[str] = "leadstream.access.AccessRevoked"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. An administrator."""
    user_id: str
    """The user."""
    reason: str
    """Why, in words."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "user_id": self.user_id,
            "reason": self.reason,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            user_id=record["user_id"],
            reason=record["reason"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AgencyRegistered:
    """An agency takes part."""

    AVRO_NAME: ClassVar[str] = "leadstream.access.AgencyRegistered"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. An administrator."""
    ori: str
    """ORI of the agency: nine characters, A-Z and 0-9."""
    name: str
    """Name of the agency."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "ori": self.ori,
            "name": self.name,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            ori=record["ori"],
            name=record["name"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementAccepted:
    """A user accepted a policy or agreement."""

    AVRO_NAME: ClassVar[str] = "leadstream.access.AgreementAccepted"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. The user, or an administrator who holds the signed paper."""
    user_id: str
    """The user."""
    agreement: str
    """Which, e.g. BUREAU_POLICY."""
    agreement_version: str
    """Version accepted."""
    document_sha256: str
    """SHA-256 of the document shown, 64 lower-case hexadecimal digits."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "user_id": self.user_id,
            "agreement": self.agreement,
            "agreement_version": self.agreement_version,
            "document_sha256": self.document_sha256,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            user_id=record["user_id"],
            agreement=record["agreement"],
            agreement_version=record["agreement_version"],
            document_sha256=record["document_sha256"],
        )


class CorrectiveOutcome(StrEnum):
    """What was found."""

    SUSTAINED = "SUSTAINED"
    NOT_SUSTAINED = "NOT_SUSTAINED"
    WITHDRAWN = "WITHDRAWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectiveActionClosed:
    """A corrective case has its outcome."""

    AVRO_NAME: ClassVar[str] = "leadstream.access.CorrectiveActionClosed"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. An administrator."""
    user_id: str
    """Whom it concerned."""
    corrective_case_id: UUID
    """Identity of the case."""
    outcome: CorrectiveOutcome
    """What was found."""
    findings: str
    """What was found, in words."""
    restores_access: bool
    """Whether the access that the opening took away is granted again."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "user_id": self.user_id,
            "corrective_case_id": self.corrective_case_id,
            "outcome": self.outcome.value,
            "findings": self.findings,
            "restores_access": self.restores_access,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            user_id=record["user_id"],
            corrective_case_id=record["corrective_case_id"],
            outcome=CorrectiveOutcome(record["outcome"]),
            findings=record["findings"],
            restores_access=record["restores_access"],
        )


class CorrectiveEffect(StrEnum):
    """What happens to the user's access at once."""

    NONE = "NONE"
    RESTRICT = "RESTRICT"
    REVOKE = "REVOKE"


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectiveActionOpened:
    """A violation by a user is looked into; its effect on the user's access is immediate."""

    AVRO_NAME: ClassVar[str] = "leadstream.access.CorrectiveActionOpened"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. An administrator."""
    user_id: str
    """Whom it concerns."""
    corrective_case_id: UUID
    """Identity of the case."""
    section: str
    """The section of the law, policy or agreement that applies."""
    facts: str
    """What happened, in words."""
    effect: CorrectiveEffect
    """What happens to the user's access at once."""
    probe_id: UUID | None = None
    """The search that it is about, if it is about one."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "user_id": self.user_id,
            "corrective_case_id": self.corrective_case_id,
            "section": self.section,
            "facts": self.facts,
            "effect": self.effect.value,
            "probe_id": self.probe_id,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            user_id=record["user_id"],
            corrective_case_id=record["corrective_case_id"],
            section=record["section"],
            facts=record["facts"],
            effect=CorrectiveEffect(record["effect"]),
            probe_id=record["probe_id"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationActivated:
    """Searches use this gallery generation from here on."""

    AVRO_NAME: ClassVar[str] = "leadstream.access.GenerationActivated"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. An administrator."""
    model_digest: str
    """Digest of the model pack and recipe of the generation."""
    gallery_topic: str
    """Topic that holds its templates."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "model_digest": self.model_digest,
            "gallery_topic": self.gallery_topic,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            model_digest=record["model_digest"],
            gallery_topic=record["gallery_topic"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRemoved:
    """The templates of this gallery generation are erased from Kafka; it is written and searched no more."""

    AVRO_NAME: ClassVar[str] = "leadstream.access.GenerationRemoved"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. An administrator."""
    model_digest: str
    """Digest of the model pack and recipe of the generation."""
    gallery_topic: str
    """Topic that held its templates."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "model_digest": self.model_digest,
            "gallery_topic": self.gallery_topic,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            model_digest=record["model_digest"],
            gallery_topic=record["gallery_topic"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedOn:
    """A user logged on."""

    AVRO_NAME: ClassVar[str] = "leadstream.access.LoggedOn"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. The publisher that saw it, or the user."""
    user_id: str
    """The user."""
    method: str
    """How, e.g. OWN_KEY or OIDC."""
    publisher_id: str | None = None
    """The publisher that saw the logon; absent when the user's own key signs."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "user_id": self.user_id,
            "method": self.method,
            "publisher_id": self.publisher_id,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            user_id=record["user_id"],
            method=record["method"],
            publisher_id=record["publisher_id"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyActivated:
    """A policy version takes effect."""

    AVRO_NAME: ClassVar[str] = "leadstream.access.PolicyActivated"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. An administrator."""
    policy_version: str
    """Version of the policy."""
    policy_sha256: str
    """SHA-256 of the policy file, 64 lower-case hexadecimal digits."""
    effective_from: datetime
    """First instant at which it counts, UTC, microseconds."""
    document: str | None = None
    """The policy file itself, TOML, at most 64 KiB; its SHA-256 is policy_sha256. Null in records of version 1, which only announce a version."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "policy_version": self.policy_version,
            "policy_sha256": self.policy_sha256,
            "effective_from": utc(self.effective_from),
            "document": self.document,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            policy_version=record["policy_version"],
            policy_sha256=record["policy_sha256"],
            effective_from=record["effective_from"],
            document=record["document"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherRegistered:
    """A system may publish the named records for one agency, signed with this key; replaces an earlier registration of the same publisher."""

    AVRO_NAME: ClassVar[str] = "leadstream.access.PublisherRegistered"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. An administrator."""
    publisher_id: str
    """Identity of the booking system, case tool or gateway."""
    ori: str
    """ORI of the agency: nine characters, A-Z and 0-9."""
    public_key: bytes
    """Ed25519 public key, 32 bytes."""
    may_publish: tuple[str, ...]
    """Names of the records it may publish, e.g. BookingRecorded."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "publisher_id": self.publisher_id,
            "ori": self.ori,
            "public_key": self.public_key,
            "may_publish": list(self.may_publish),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            publisher_id=record["publisher_id"],
            ori=record["ori"],
            public_key=record["public_key"],
            may_publish=tuple(record["may_publish"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityOverrideGranted:
    """A supervisor lets one image be searched in one case although the policy finds its quality too poor."""

    AVRO_NAME: ClassVar[str] = "leadstream.access.QualityOverrideGranted"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. A supervisor of the agency."""
    user_id: str
    """The supervisor; never the one who searches."""
    ori: str
    """ORI of the agency."""
    case_number: str
    """The case that it is for."""
    image_sha256: str
    """SHA-256 of the image that is searched, 64 lower-case hexadecimal digits."""
    reason: str
    """Why, in words."""
    expires_at: datetime
    """First instant at which it no longer counts, UTC, microseconds."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "user_id": self.user_id,
            "ori": self.ori,
            "case_number": self.case_number,
            "image_sha256": self.image_sha256,
            "reason": self.reason,
            "expires_at": utc(self.expires_at),
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
            case_number=record["case_number"],
            image_sha256=record["image_sha256"],
            reason=record["reason"],
            expires_at=record["expires_at"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRunRequested:
    """What is due is to be deleted now and not at the next scheduled time."""

    AVRO_NAME: ClassVar[str] = "leadstream.access.RetentionRunRequested"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. An administrator."""
    user_id: str
    """The administrator."""
    due_by: datetime
    """Only what is due at this instant, UTC, microseconds; never later than now."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "user_id": self.user_id,
            "due_by": utc(self.due_by),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            user_id=record["user_id"],
            due_by=record["due_by"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCompleted:
    """A user completed a course."""

    AVRO_NAME: ClassVar[str] = "leadstream.access.TrainingCompleted"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. An administrator."""
    user_id: str
    """The user."""
    course: str
    """Identity of the course."""
    course_version: str
    """Version of the course."""
    material_sha256: str
    """SHA-256 of the training material, 64 lower-case hexadecimal digits."""
    approved_by: str
    """User id of who approved it; never the user."""
    completed_at: datetime
    """When, UTC, microseconds."""
    expires_at: datetime
    """First instant at which it no longer counts, UTC, microseconds."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "user_id": self.user_id,
            "course": self.course,
            "course_version": self.course_version,
            "material_sha256": self.material_sha256,
            "approved_by": self.approved_by,
            "completed_at": utc(self.completed_at),
            "expires_at": utc(self.expires_at),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            user_id=record["user_id"],
            course=record["course"],
            course_version=record["course_version"],
            material_sha256=record["material_sha256"],
            approved_by=record["approved_by"],
            completed_at=record["completed_at"],
            expires_at=record["expires_at"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRegistered:
    """A person is known to the bureau; being known allows nothing yet. Replaces an earlier registration of the same user."""

    AVRO_NAME: ClassVar[str] = "leadstream.access.UserRegistered"

    event_id: UUID
    """Identity of this event; derived from its cause where there is one, so that a replay gives the same id."""
    occurred_at: datetime
    """When it happened, UTC, microseconds since the epoch, by the clock of whoever says it."""
    actor: str
    """Who caused it: `user:<user id>`, `publisher:<publisher id>` or `system:<role>`. An administrator."""
    user_id: str
    """The user."""
    display_name: str
    """Name as the agency writes it."""
    ori: str
    """ORI of the agency: nine characters, A-Z and 0-9."""
    roles: tuple[str, ...]
    """SUBMITTER, EXAMINER, SUPERVISOR, AUDITOR or ADMINISTRATOR."""
    public_key: bytes | None = None
    """Ed25519 public key of the person, 32 bytes; absent when only publishers sign for the person."""

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {
            "event_id": self.event_id,
            "occurred_at": utc(self.occurred_at),
            "actor": self.actor,
            "user_id": self.user_id,
            "display_name": self.display_name,
            "ori": self.ori,
            "roles": list(self.roles),
            "public_key": self.public_key,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(
            event_id=record["event_id"],
            occurred_at=record["occurred_at"],
            actor=record["actor"],
            user_id=record["user_id"],
            display_name=record["display_name"],
            ori=record["ori"],
            roles=tuple(record["roles"]),
            public_key=record["public_key"],
        )
