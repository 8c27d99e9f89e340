"""What an administrator's tool imports: who takes part, who is trained, who may search.

Each method publishes one access event, signed by the key of the publisher that is handed in. Whether the signer may say
so is for every worker's directory to decide (`processors/access.py`).
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING
from uuid import uuid4

from connectors.bookings import require_ori
from connectors.clock import now
from processors.policy import read_policy
from schemas.errors import UsageError
from schemas.events import (
    AccessGranted,
    AccessRestricted,
    AccessRevoked,
    AgencyRegistered,
    AgreementAccepted,
    CorrectiveActionClosed,
    CorrectiveActionOpened,
    GenerationActivated,
    GenerationRemoved,
    LoggedOn,
    PolicyActivated,
    PublisherRegistered,
    QualityOverrideGranted,
    RetentionRunRequested,
    TrainingCompleted,
    UserRegistered,
)
from schemas.signing import is_usable_public_key
from schemas.topics import TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from uuid import UUID

    from connectors.clock import Clock
    from connectors.publishing import EventPublisher
    from schemas.events import CorrectiveEffect, CorrectiveOutcome
    from schemas.positions import SourcePosition

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_FROM_OUTSIDE = frozenset(record for topic in TOPICS.values() if topic.signed for record in topic.records)


class AccessAdministration:
    """Publishes access events; each method returns where its event stands.

    Every method raises UsageError where a value cannot be meant, and what the publisher raises.

    Args:
        publisher: signs with the key of the actor.
        actor: `user:<user id>` or `publisher:<publisher id>`, the owner of that key.
        clock: for the times of events.
    """

    def __init__(self, publisher: EventPublisher, actor: str, *, clock: Clock = now) -> None:
        self._publisher = publisher
        self._actor = actor
        self._clock = clock

    def register_agency(self, *, ori: str, name: str) -> SourcePosition:
        """Let an agency take part."""
        return self._publisher.publish(
            AgencyRegistered(
                event_id=uuid4(),
                occurred_at=self._clock(),
                actor=self._actor,
                ori=require_ori(ori),
                name=_named(name, "name of the agency"),
            ),
        )

    def register_publisher(
        self,
        *,
        publisher_id: str,
        ori: str,
        public_key: bytes,
        may_publish: Iterable[str],
    ) -> SourcePosition:
        """Let a system publish the named records for an agency, signed with a key (32 bytes, Ed25519)."""
        records = tuple(may_publish)
        if unknown := sorted(set(records) - _FROM_OUTSIDE):
            raise UsageError(f"Nobody outside publishes {', '.join(unknown)}; use {', '.join(sorted(_FROM_OUTSIDE))}.")
        return self._publisher.publish(
            PublisherRegistered(
                event_id=uuid4(),
                occurred_at=self._clock(),
                actor=self._actor,
                publisher_id=_named(publisher_id, "publisher id"),
                ori=require_ori(ori),
                public_key=_usable(public_key),
                may_publish=records,
            ),
        )

    def register_user(
        self,
        *,
        user_id: str,
        display_name: str,
        ori: str,
        roles: Iterable[str],
        public_key: bytes | None = None,
    ) -> SourcePosition:
        """Register a person of an agency, with a key of their own (32 bytes, Ed25519) or without."""
        return self._publisher.publish(
            UserRegistered(
                event_id=uuid4(),
                occurred_at=self._clock(),
                actor=self._actor,
                user_id=_named(user_id, "user id"),
                display_name=_named(display_name, "name of the user"),
                ori=require_ori(ori),
                roles=tuple(roles),
                public_key=None if public_key is None else _usable(public_key),
            ),
        )

    def record_training(
        self,
        *,
        user_id: str,
        course: str,
        course_version: str,
        material_sha256: str,
        approved_by: str,
        completed_at: datetime,
        expires_at: datetime,
    ) -> SourcePosition:
        """Record that a user completed a course."""
        if completed_at >= expires_at:
            raise UsageError("The training expires before it was completed; check the two dates.")
        return self._publisher.publish(
            TrainingCompleted(
                event_id=uuid4(),
                occurred_at=self._clock(),
                actor=self._actor,
                user_id=_named(user_id, "user id"),
                course=_named(course, "course"),
                course_version=_named(course_version, "version of the course"),
                material_sha256=_digest(material_sha256),
                approved_by=_named(approved_by, "approver"),
                completed_at=completed_at,
                expires_at=expires_at,
            ),
        )

    def record_agreement(
        self,
        *,
        user_id: str,
        agreement: str,
        agreement_version: str,
        document_sha256: str,
    ) -> SourcePosition:
        """Record that a user accepted a policy or agreement."""
        return self._publisher.publish(
            AgreementAccepted(
                event_id=uuid4(),
                occurred_at=self._clock(),
                actor=self._actor,
                user_id=_named(user_id, "user id"),
                agreement=_named(agreement, "agreement"),
                agreement_version=_named(agreement_version, "version of the agreement"),
                document_sha256=_digest(document_sha256),
            ),
        )

    def grant(self, *, user_id: str, reason: str) -> SourcePosition:
        """Open the access of a user."""
        return self._change(AccessGranted, user_id, reason)

    def restrict(self, *, user_id: str, reason: str) -> SourcePosition:
        """Close the access of a user until it is granted again."""
        return self._change(AccessRestricted, user_id, reason)

    def revoke(self, *, user_id: str, reason: str) -> SourcePosition:
        """End the access of a user."""
        return self._change(AccessRevoked, user_id, reason)

    def open_corrective_action(
        self,
        *,
        corrective_case_id: UUID,
        user_id: str,
        section: str,
        facts: str,
        effect: CorrectiveEffect,
        probe_id: UUID | None = None,
    ) -> SourcePosition:
        """Look into a violation; its effect on the user's access is immediate.

        Args:
            corrective_case_id: a new id; closing names it.
            user_id: whom it concerns, never the actor.
            section: the section of the law, policy or agreement that applies.
            facts: what happened, in words.
            effect: what happens to the user's access until the case is closed.
            probe_id: the search that it is about, if it is about one.
        """
        return self._publisher.publish(
            CorrectiveActionOpened(
                event_id=uuid4(),
                occurred_at=self._clock(),
                actor=self._actor,
                user_id=_named(user_id, "user id"),
                corrective_case_id=corrective_case_id,
                section=_named(section, "section that applies"),
                facts=_named(facts, "facts"),
                effect=effect,
                probe_id=probe_id,
            ),
        )

    def close_corrective_action(
        self,
        *,
        corrective_case_id: UUID,
        user_id: str,
        outcome: CorrectiveOutcome,
        findings: str,
        restores_access: bool,
    ) -> SourcePosition:
        """Close a corrective case; access is given back only if so said, and only what this case took."""
        return self._publisher.publish(
            CorrectiveActionClosed(
                event_id=uuid4(),
                occurred_at=self._clock(),
                actor=self._actor,
                user_id=_named(user_id, "user id"),
                corrective_case_id=corrective_case_id,
                outcome=outcome,
                findings=_named(findings, "findings"),
                restores_access=restores_access,
            ),
        )

    def grant_quality_override(
        self, *, ori: str, case_number: str, image_sha256: str, reason: str, expires_at: datetime
    ) -> SourcePosition:
        """Let one image be searched in one case although it is too poor; the actor is a supervisor of the agency."""
        granted_at = self._clock()
        if expires_at <= granted_at:
            raise UsageError("The override expires before it is granted; give it a later end.")
        return self._publisher.publish(
            QualityOverrideGranted(
                event_id=uuid4(),
                occurred_at=granted_at,
                actor=self._actor,
                user_id=self._own_user_id(),
                ori=require_ori(ori),
                case_number=_named(case_number, "case number"),
                image_sha256=_digest(image_sha256),
                reason=_named(reason, "reason"),
                expires_at=expires_at,
            ),
        )

    def request_retention_run(self, *, due_by: datetime | None = None) -> SourcePosition:
        """Have what is due deleted now; with `due_by` only what was due at that instant."""
        asked_at = self._clock()
        if due_by is not None and due_by > asked_at:
            raise UsageError("Only what is due by now can be deleted; name no later instant.")
        return self._publisher.publish(
            RetentionRunRequested(
                event_id=uuid4(),
                occurred_at=asked_at,
                actor=self._actor,
                user_id=self._own_user_id(),
                due_by=due_by or asked_at,
            ),
        )

    def logged_on(self, *, user_id: str, method: str, publisher_id: str | None = None) -> SourcePosition:
        """Record that a user logged on, to a publisher or with a key of their own."""
        return self._publisher.publish(
            LoggedOn(
                event_id=uuid4(),
                occurred_at=self._clock(),
                actor=self._actor,
                user_id=_named(user_id, "user id"),
                method=_named(method, "method"),
                publisher_id=publisher_id,
            ),
        )

    def activate_generation(self, *, model_digest: str, gallery_topic: str) -> SourcePosition:
        """Let searches use a gallery generation from here on."""
        return self._publisher.publish(
            GenerationActivated(
                event_id=uuid4(),
                occurred_at=self._clock(),
                actor=self._actor,
                model_digest=_digest(model_digest),
                gallery_topic=_named(gallery_topic, "gallery topic"),
            ),
        )

    def remove_generation(self, *, model_digest: str, gallery_topic: str) -> SourcePosition:
        """Say that the templates of a gallery generation are erased; erasing them is another step."""
        return self._publisher.publish(
            GenerationRemoved(
                event_id=uuid4(),
                occurred_at=self._clock(),
                actor=self._actor,
                model_digest=_digest(model_digest),
                gallery_topic=_named(gallery_topic, "gallery topic"),
            ),
        )

    def activate_policy(self, *, document: str, effective_from: datetime | None = None) -> SourcePosition:
        """Let a policy file (TOML) hold for every decision from an instant on; from now on unless one is given.

        Raises:
            ContractError: the file is no policy; the text says why.
        """
        policy, at = read_policy(document), self._clock()
        if effective_from is not None and effective_from < at:
            raise UsageError("A policy cannot take effect before it is activated: what was decided stays decided.")
        return self._publisher.publish(
            PolicyActivated(
                event_id=uuid4(),
                occurred_at=at,
                actor=self._actor,
                policy_version=policy.version,
                policy_sha256=sha256(document.encode()).hexdigest(),
                effective_from=effective_from or at,
                document=document,
            ),
        )

    def _own_user_id(self) -> str:
        kind, _, user_id = self._actor.partition(":")
        if kind != "user":
            raise UsageError(f"A person says that with a key of their own; {self._actor} is none.")
        return user_id

    def _change(
        self, kind: type[AccessGranted | AccessRestricted | AccessRevoked], user_id: str, reason: str
    ) -> SourcePosition:
        return self._publisher.publish(
            kind(
                event_id=uuid4(),
                occurred_at=self._clock(),
                actor=self._actor,
                user_id=_named(user_id, "user id"),
                reason=_named(reason, "reason"),
            ),
        )


def _named(text: str, what: str) -> str:
    if not text.strip() or not text.isprintable():
        raise UsageError(f"Give the {what} in printable characters; it is empty or has others.")
    return text


def _usable(public_key: bytes) -> bytes:
    if not is_usable_public_key(public_key):
        raise UsageError("The public key is no usable Ed25519 key of 32 bytes; register the public half of a new key.")
    return public_key


def _digest(sha256: str) -> str:
    if not _SHA256.fullmatch(sha256):
        raise UsageError("A SHA-256 has 64 lower-case hexadecimal digits.")
    return sha256
