"""Who is who: publishers, users and administrators as the access events say, and who may say what.

The directory is folded from `access.events.v1` by every worker's follower and asked at the moment of a decision, behind
the read barrier, so that what was granted or revoked before is honoured (G3). Nobody is trusted by position: each event
must be signed by someone whom the directory, as it stood then, allowed to say it. The first administrator's public key
is pinned by the operator (`leadstream init`) and is the root of that trust.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING

from processors.policy import read_policy
from processors.refusals import Refusal, RefusalCode
from schemas import signing
from schemas.errors import ContractError
from schemas.events import (
    AccessDenied,
    AccessGranted,
    AccessRestricted,
    AccessRevoked,
    AgencyRegistered,
    AgreementAccepted,
    BookingRecorded,
    CandidateReviewed,
    CorrectiveActionClosed,
    CorrectiveActionOpened,
    GenerationActivated,
    GenerationRemoved,
    ImageViewed,
    LoggedOn,
    NoticeAcknowledged,
    PolicyActivated,
    ProbeSubmitted,
    PublisherRegistered,
    QualityOverrideGranted,
    RecordOrderReceived,
    RetentionRunRequested,
    ReviewConcluded,
    ReviewReversed,
    TrainingCompleted,
    UserRegistered,
)
from schemas.keys import key_of
from schemas.topics import GALLERY

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from uuid import UUID

    from processors.policy import Policy
    from schemas.events import Event
    from schemas.records import LogRecord

ROOT_ADMINISTRATOR = "administrator"
"""User id of the first administrator, whose key the operator pins."""

BY_ADMINISTRATORS = (
    AgencyRegistered,
    PublisherRegistered,
    UserRegistered,
    TrainingCompleted,
    AccessGranted,
    AccessRestricted,
    AccessRevoked,
    PolicyActivated,
    GenerationActivated,
    GenerationRemoved,
    CorrectiveActionOpened,
    CorrectiveActionClosed,
    RetentionRunRequested,
)
ABOUT_A_USER = (
    TrainingCompleted,
    AccessGranted,
    AccessRestricted,
    AccessRevoked,
    CorrectiveActionOpened,
    CorrectiveActionClosed,
)
BY_A_USER = (
    ProbeSubmitted,
    LoggedOn,
    AgreementAccepted,
    AccessDenied,
    ImageViewed,
    CandidateReviewed,
    ReviewConcluded,
    ReviewReversed,
    NoticeAcknowledged,
)
"""Said by a person with the own key, or by a publisher who speaks for that person."""
OF_AN_AGENCY = (AgencyRegistered, PublisherRegistered, UserRegistered)
OF_A_GENERATION = (GenerationActivated, GenerationRemoved)
FOR_EVERYBODY = (*OF_A_GENERATION, PolicyActivated)
CHANGING = (*BY_ADMINISTRATORS, AgreementAccepted)
"""What the directory folds; the others are only said."""

# A slash would let one agency's ORI be taken for another's ORI and booking number (`schemas/keys.py`).
_ORI = re.compile("[A-Z0-9]{9}", re.ASCII)


class Role(StrEnum):
    """What a user is there for."""

    SUBMITTER = "SUBMITTER"
    EXAMINER = "EXAMINER"
    SUPERVISOR = "SUPERVISOR"
    AUDITOR = "AUDITOR"
    ADMINISTRATOR = "ADMINISTRATOR"


class Standing(StrEnum):
    """Whether a user's access is open."""

    NOT_GRANTED = "NOT_GRANTED"
    GRANTED = "GRANTED"
    RESTRICTED = "RESTRICTED"
    REVOKED = "REVOKED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One completed course."""

    course: str
    version: str
    completed_at: datetime
    expires_at: datetime
    """First instant at which it no longer counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One person."""

    user_id: str
    ori: str
    roles: frozenset[str]
    public_key: bytes | None
    standing: Standing = Standing.NOT_GRANTED
    trainings: tuple[Training, ...] = ()
    agreements: frozenset[tuple[str, str]] = frozenset()
    """(agreement, version) accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """One system that publishes for one agency."""

    publisher_id: str
    ori: str
    public_key: bytes
    may_publish: frozenset[str]
    """Names of records."""


Signer = User | Publisher


def identity(signer: Signer) -> str:
    """Return what the `actor` of an event by this signer says."""
    return f"user:{signer.user_id}" if isinstance(signer, User) else f"publisher:{signer.publisher_id}"


def _not_allowed(message: str) -> Refusal:
    return Refusal(code=RefusalCode.NOT_ALLOWED, message=message)


def _refusal_of_identity(record: LogRecord, event: Event, signer: Signer) -> Refusal | None:
    if record.key != key_of(event):
        return _not_allowed("The Kafka key is not the key of this event; keys decide order.")
    if event.actor != identity(signer):
        return _not_allowed(f"The event says it was caused by another than its signer {identity(signer)}.")
    return None


class Directory:
    """The registry as of the last applied access event.

    Args:
        root_public_key: Ed25519 public key of the first administrator, 32 bytes.
    """

    def __init__(self, root_public_key: bytes) -> None:
        root = User(
            user_id=ROOT_ADMINISTRATOR,
            ori="",
            roles=frozenset({Role.ADMINISTRATOR}),
            public_key=root_public_key,
            standing=Standing.GRANTED,
        )
        self.agencies: dict[str, str] = {}
        self.users: dict[str, User] = {root.user_id: root}
        self.publishers: dict[str, Publisher] = {}
        self.active_generation: tuple[str, str] | None = None
        """(model digest, topic) of the gallery generation that was activated last; None while the first one is."""
        self._policies: list[tuple[datetime, Policy]] = []
        """(effective from, policy), in the order in which they were activated."""
        self.removed_generations: set[str] = set()
        """Topics of generations whose templates are to be erased, or are."""
        self._owner_of_key: dict[str, str] = {signing.key_id(root_public_key): identity(root)}
        self._applied: set[tuple[str, UUID]] = set()
        """(actor, event id) of what was folded: a signed record that is sent again must not undo what came after."""

    def signer_of(self, record: LogRecord) -> Signer | Refusal:
        """Return who signed a record, or UNAUTHENTICATED when nobody registered did."""
        headers = signing.read_headers(record.headers)
        if headers is None:
            return Refusal(
                code=RefusalCode.UNAUTHENTICATED,
                message="The record carries no well-formed signature; sign it with a registered key.",
            )
        signer = self._find(self._owner_of_key.get(headers.key_id, ""))
        if signer is None or signer.public_key is None:
            return Refusal(
                code=RefusalCode.UNAUTHENTICATED,
                message=f"No publisher or user is registered for key {headers.key_id}; ask an administrator.",
            )
        key, value = record.key or b"", record.value or b""
        if not signing.verify(signer.public_key, record.topic, key, value, headers.signature):
            return Refusal(
                code=RefusalCode.UNAUTHENTICATED,
                message="The signature does not fit topic, key and value of the record.",
            )
        return signer

    def refusal_of(self, record: LogRecord, event: Event) -> Refusal | None:
        """Return why this event may not be said by whoever signed it, or None when it may."""
        signer = self.signer_of(record)
        return signer if isinstance(signer, Refusal) else self._refusal_of_event(record, event, signer)

    def _refusal_of_event(self, record: LogRecord, event: Event, signer: Signer) -> Refusal | None:
        if (refusal := _refusal_of_identity(record, event, signer)) is not None:
            return refusal
        if isinstance(event, BY_ADMINISTRATORS):
            return self._refusal_of_administration(event, signer)
        if isinstance(event, (BookingRecorded, RecordOrderReceived)):
            return self._refusal_of_publication(event, signer, event.ori)
        if isinstance(event, QualityOverrideGranted):
            return self._refusal_of_override(event, signer)
        if isinstance(event, BY_A_USER):
            return self._refusal_of_speaking_for(event, signer)
        return _not_allowed(f"Nobody outside may publish {type(event).__name__}.")

    def apply(self, record: LogRecord, event: Event) -> Refusal | None:
        """Fold one access event into the directory.

        An event that may not be said changes nothing, and neither does one that was folded before: whoever can write
        to Kafka can send a signed grant again after it was revoked.

        Raises:
            ContractError: the event has a value that no directory can hold, such as an unusable public key.
        """
        refusal = self.refusal_of(record, event)
        said = (event.actor, event.event_id)
        if refusal is None and isinstance(event, CHANGING) and said not in self._applied:
            self._fold(event)
            self._applied.add(said)
        return refusal

    def policy_at(self, at: datetime) -> Policy | None:
        """Return the activated policy that holds at an instant, or None while none does.

        It is the one that took effect last; of two that take effect at the same instant, the one activated later.
        """
        in_effect = [(since, number) for number, (since, _) in enumerate(self._policies) if since <= at]
        return self._policies[max(in_effect)[1]][1] if in_effect else None

    def _refusal_of_generation(self, event: GenerationActivated | GenerationRemoved) -> Refusal | None:
        active_topic = self.active_generation[1] if self.active_generation else GALLERY
        if isinstance(event, GenerationRemoved):
            is_active = event.gallery_topic == active_topic
            return _not_allowed("The generation is active; activate another one first.") if is_active else None
        if event.gallery_topic in self.removed_generations:
            return _not_allowed("The generation was removed, and its templates with it.")
        return None

    def _find(self, name: str) -> Signer | None:
        kind, _, ident = name.partition(":")
        return self.users.get(ident) if kind == "user" else self.publishers.get(ident)

    def _refusal_of_administration(self, event: Event, signer: Signer) -> Refusal | None:
        if not isinstance(signer, User) or Role.ADMINISTRATOR not in signer.roles:
            return _not_allowed(f"{type(event).__name__} must be signed by an administrator.")
        if signer.standing is not Standing.GRANTED:
            return _not_allowed("The administrator's access is not granted.")
        if isinstance(event, TrainingCompleted) and event.user_id in (event.approved_by, signer.user_id):
            return _not_allowed("Nobody approves their own training.")
        if isinstance(event, UserRegistered) and event.user_id == ROOT_ADMINISTRATOR:
            return _not_allowed("The first administrator is pinned by the operator and cannot be registered again.")
        if isinstance(event, ABOUT_A_USER) and event.user_id not in self.users:
            return Refusal(
                code=RefusalCode.USER_UNKNOWN,
                message=f"User {event.user_id} is not registered; register the user first.",
            )
        return self._refusal_of_generation(event) if isinstance(event, OF_A_GENERATION) else None

    @staticmethod
    def _refusal_of_publication(event: Event, signer: Signer, ori: str) -> Refusal | None:
        name = type(event).__name__
        if not isinstance(signer, Publisher) or name not in signer.may_publish:
            return _not_allowed(f"{identity(signer)} is not registered to publish {name}.")
        if ori != signer.ori:
            return _not_allowed(f"{identity(signer)} may not publish for agency {ori}.")
        return None

    @staticmethod
    def _refusal_of_override(event: QualityOverrideGranted, signer: Signer) -> Refusal | None:
        if not isinstance(signer, User) or signer.user_id != event.user_id or Role.SUPERVISOR not in signer.roles:
            return _not_allowed("A quality override must be signed by the supervisor who grants it.")
        if signer.standing is not Standing.GRANTED:
            return _not_allowed("The supervisor's access is not granted.")
        return None if event.ori == signer.ori else _not_allowed("A supervisor grants overrides for the own agency.")

    def _refusal_of_speaking_for(
        self,
        event: ProbeSubmitted
        | LoggedOn
        | AgreementAccepted
        | AccessDenied
        | ImageViewed
        | CandidateReviewed
        | ReviewConcluded
        | ReviewReversed
        | NoticeAcknowledged,
        signer: Signer,
    ) -> Refusal | None:
        if isinstance(signer, User):
            if isinstance(event, AgreementAccepted) and Role.ADMINISTRATOR in signer.roles:
                return None
            if isinstance(event, AccessDenied) or signer.user_id != event.user_id:
                return _not_allowed(f"{identity(signer)} may not speak for user {event.user_id}.")
            return None
        user = self.users.get(event.user_id)
        ori = event.ori if isinstance(event, ProbeSubmitted) else user.ori if user else signer.ori
        if isinstance(event, ProbeSubmitted) and event.logon is None:
            return _not_allowed("A publisher that signs for a user must say how and when the user logged on.")
        return self._refusal_of_publication(event, signer, ori)

    def _fold(self, event: Event) -> None:
        if isinstance(event, OF_AN_AGENCY) and not _ORI.fullmatch(event.ori):
            raise ContractError("An ORI has nine characters, A to Z and 0 to 9; register the agency by its own.")
        if isinstance(event, AgencyRegistered):
            self.agencies[event.ori] = event.name
        elif isinstance(event, PublisherRegistered):
            self._register(
                Publisher(
                    publisher_id=event.publisher_id,
                    ori=event.ori,
                    public_key=event.public_key,
                    may_publish=frozenset(event.may_publish),
                ),
            )
        elif isinstance(event, UserRegistered):
            before = self.users.get(event.user_id)
            user = User(
                user_id=event.user_id,
                ori=event.ori,
                roles=frozenset(event.roles),
                public_key=event.public_key,
            )
            if before:
                user = replace(
                    user,
                    standing=before.standing,
                    trainings=before.trainings,
                    agreements=before.agreements,
                )
            self._register(user)
        elif isinstance(event, (AccessGranted, AccessRestricted, AccessRevoked)):
            standing = {
                AccessGranted: Standing.GRANTED,
                AccessRestricted: Standing.RESTRICTED,
                AccessRevoked: Standing.REVOKED,
            }[type(event)]
            self._change(event.user_id, lambda user: replace(user, standing=standing))
        elif isinstance(event, TrainingCompleted):
            training = Training(
                course=event.course,
                version=event.course_version,
                completed_at=event.completed_at,
                expires_at=event.expires_at,
            )
            self._change(
                event.user_id,
                # A repeated delivery must not grow the list without end.
                lambda user: replace(user, trainings=tuple(dict.fromkeys((*user.trainings, training)))),
            )
        elif isinstance(event, FOR_EVERYBODY):
            self._fold_for_everybody(event)
        elif isinstance(event, AgreementAccepted):
            accepted = (event.agreement, event.agreement_version)
            self._change(event.user_id, lambda user: replace(user, agreements=user.agreements | {accepted}))

    def _fold_policy(self, event: PolicyActivated) -> None:
        if event.document is None:
            return  # An announcement of version 1 of the record; the operator's file goes on.
        if sha256(event.document.encode()).hexdigest() != event.policy_sha256:
            raise ContractError("The policy file is not the one whose SHA-256 the activation names.")
        policy = read_policy(event.document)
        if policy.version != event.policy_version:
            raise ContractError(f"The policy file is version {policy.version}, not {event.policy_version}.")
        self._policies.append((event.effective_from, policy))

    def _fold_for_everybody(self, event: GenerationActivated | GenerationRemoved | PolicyActivated) -> None:
        if isinstance(event, PolicyActivated):
            self._fold_policy(event)
        elif isinstance(event, GenerationRemoved):
            self.removed_generations.add(event.gallery_topic)
        else:
            self.active_generation = (event.model_digest, event.gallery_topic)

    def _change(self, user_id: str, change: Callable[[User], User]) -> None:
        user = self.users.get(user_id)
        if user is not None:
            self.users[user_id] = change(user)

    def _register(self, signer: Signer) -> None:
        name, key = identity(signer), signer.public_key
        if key is not None:
            if not signing.is_usable_public_key(key):
                raise ContractError(f"The public key of {name} is not a usable Ed25519 key of 32 bytes.")
            owner = self._owner_of_key.get(signing.key_id(key), name)
            if owner != name:
                raise ContractError(f"The public key of {name} already belongs to {owner}; make a key of its own.")
        before = self._find(name)
        if before is not None and before.public_key is not None:
            self._owner_of_key.pop(signing.key_id(before.public_key), None)
        if key is not None:
            self._owner_of_key[signing.key_id(key)] = name
        if isinstance(signer, User):
            self.users[signer.user_id] = signer
        else:
            self.publishers[signer.publisher_id] = signer
