"""Who is who: publishers, users and administrators as the access events say, and who may say what.

The directory is folded from `access.events.v1` by every worker's follower and asked at the moment of a decision, behind
the read barrier, so that what was granted or revoked before is honoured (G3). Nobody is trusted by position: each event
must be signed by someone whom the directory, as it stood then, allowed to say it. The first administrator's public key
is pinned by the operator (`leadstream init`) and is the root of that trust.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
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
    CorrectiveEffect,
    GenerationActivated,
    GenerationRemoved,
    ImageViewed,
    LoggedOn,
    Logon,
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
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from uuid import UUID

    from processors.policy import CourseRule, Policy
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
CHANGING = (*BY_ADMINISTRATORS, AgreementAccepted, QualityOverrideGranted)
"""What the directory folds once; a logon may be folded any number of times, and the others are only said."""

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
    """Whether a user's access is open; each one takes away more than the one before."""

    GRANTED = "GRANTED"
    NOT_GRANTED = "NOT_GRANTED"
    RESTRICTED = "RESTRICTED"
    REVOKED = "REVOKED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One completed course."""

    course: str
    version: str
    material_sha256: str
    approved_by: str
    """User id."""
    completed_at: datetime
    expires_at: datetime
    """First instant at which it no longer counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectiveCase:
    """A violation that is being looked into."""

    case_id: UUID
    section: str
    """What it is said to violate."""
    effect: CorrectiveEffect
    opened_at: datetime
    opened_by: str
    """Actor."""
    probe_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One person."""

    user_id: str
    ori: str
    roles: frozenset[str]
    public_key: bytes | None
    decided: Standing = Standing.NOT_GRANTED
    """What grants, restrictions, revocations and closed cases left; open cases may take away more."""
    trainings: tuple[Training, ...] = ()
    agreements: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(agreement, version) accepted -> SHA-256 of the document shown, 64 lower-case hexadecimal digits."""
    open_cases: tuple[CorrectiveCase, ...] = ()
    last_logon: Logon | None = None
    """None for who never logged on."""

    @property
    def standing(self) -> Standing:
        """Whether access is open: as decided, or less while an open corrective case takes more away."""
        return max((self.decided, *map(_standing_under, self.open_cases)), key=_HOW_MUCH_IS_TAKEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityOverride:
    """A supervisor's word that an image may be searched in a case although its quality is too poor."""

    event_id: UUID
    supervisor: str
    """User id."""
    expires_at: datetime
    """First instant at which it no longer counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRequest:
    """An administrator's word that what is due at an instant is to be deleted now."""

    event_id: UUID
    user_id: str
    due_by: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """One system that publishes for one agency."""

    publisher_id: str
    ori: str
    public_key: bytes
    may_publish: frozenset[str]
    """Names of records."""


Signer = User | Publisher


def counts_until(training: Training, courses: Mapping[str, CourseRule]) -> datetime | None:
    """Return when a training ceases to count under a policy's courses, or None where it never counts."""
    rule = courses.get(training.course)
    if rule is None or training.version not in rule.versions:
        return None
    return min(training.expires_at, training.completed_at + timedelta(days=rule.maximum_days))


def identity(signer: Signer) -> str:
    """Return what the `actor` of an event by this signer says."""
    return f"user:{signer.user_id}" if isinstance(signer, User) else f"publisher:{signer.publisher_id}"


_HOW_MUCH_IS_TAKEN = list(Standing).index


def _standing_under(case: CorrectiveCase) -> Standing:
    return {
        CorrectiveEffect.NONE: Standing.GRANTED,
        CorrectiveEffect.RESTRICT: Standing.RESTRICTED,
        CorrectiveEffect.REVOKE: Standing.REVOKED,
    }[case.effect]


def _not_allowed(message: str) -> Refusal:
    return Refusal(code=RefusalCode.NOT_ALLOWED, message=message)


def _refused(code: RefusalCode, message: str) -> Refusal:
    return Refusal(code=code, message=message)


def _refusal_of_identity(record: LogRecord, event: Event, signer: Signer) -> Refusal | None:
    if record.key != key_of(event):
        return _not_allowed("The Kafka key is not the key of this event; keys decide order.")
    if event.actor != identity(signer):
        return _not_allowed(f"The event says it was caused by another than its signer {identity(signer)}.")
    return None


def _refusal_of_grant(user: User) -> Refusal | None:
    """Return which open corrective case stands against a grant: it would have no effect until the case is closed."""
    for case in user.open_cases:
        if case.effect is not CorrectiveEffect.NONE:
            return _refused(
                RefusalCode.CORRECTIVE_CASE_OPEN,
                f"The corrective case {case.case_id} holds the access of {user.user_id}; close the case first.",
            )
    return None


def _refusal_of_retention_run(event: RetentionRunRequested, signer: User) -> Refusal | None:
    if event.user_id != signer.user_id:
        return _not_allowed("A retention run is requested by the administrator who signs.")
    if event.due_by > event.occurred_at:
        return _refused(RefusalCode.TIME_IN_FUTURE, "Only what is due by now can be deleted; name no later instant.")
    return None


def _training_of(event: TrainingCompleted) -> Training:
    return Training(
        course=event.course,
        version=event.course_version,
        material_sha256=event.material_sha256,
        approved_by=event.approved_by,
        completed_at=event.completed_at,
        expires_at=event.expires_at,
    )


def _case_of(event: CorrectiveActionOpened) -> CorrectiveCase:
    return CorrectiveCase(
        case_id=event.corrective_case_id,
        section=event.section,
        effect=event.effect,
        opened_at=event.occurred_at,
        opened_by=event.actor,
        probe_id=event.probe_id,
    )


def _after(user: User, event: Event) -> User:
    """Return a user after what was said about them."""
    match event:
        case AccessGranted():
            user = replace(user, decided=Standing.GRANTED)
        case AccessRestricted():
            user = replace(user, decided=Standing.RESTRICTED)
        case AccessRevoked():
            user = replace(user, decided=Standing.REVOKED)
        case TrainingCompleted():
            # The same course said in several events must not grow the list without end.
            user = replace(user, trainings=tuple(dict.fromkeys((*user.trainings, _training_of(event)))))
        case AgreementAccepted():
            shown = {(event.agreement, event.agreement_version): event.document_sha256}
            user = replace(user, agreements={**user.agreements, **shown})
        case LoggedOn() if user.last_logon is None or user.last_logon.at < event.occurred_at:
            user = replace(user, last_logon=Logon(at=event.occurred_at, method=event.method))
        case CorrectiveActionOpened():
            user = replace(user, open_cases=(*user.open_cases, _case_of(event)))
        case CorrectiveActionClosed():
            user = _after_closing(user, event)
    return user


def _after_closing(user: User, event: CorrectiveActionClosed) -> User:
    """Return the user without a case; what it took away is kept where the closing does not give it back."""
    (closed,) = (case for case in user.open_cases if case.case_id == event.corrective_case_id)
    others = tuple(case for case in user.open_cases if case is not closed)
    kept = Standing.GRANTED if event.restores_access else _standing_under(closed)
    return replace(user, open_cases=others, decided=max(user.decided, kept, key=_HOW_MUCH_IS_TAKEN))


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
            decided=Standing.GRANTED,
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
        self.retention_requests: tuple[RetentionRequest, ...] = ()
        """Those that asked for more than all before them, the latest instant last."""
        self._overrides: dict[tuple[str, str, str], list[QualityOverride]] = {}
        """(SHA-256 of the image, case number, ORI) -> overrides, in the order in which they were granted."""
        self._closed_cases: set[UUID] = set()
        self._owner_of_key: dict[str, str] = {signing.key_id(root_public_key): identity(root)}
        self._verdicts: dict[tuple[str, UUID], Refusal | ContractError | None] = {}
        """(actor, event id) -> what the first of them did. A signed record that is sent again must not undo what came
        after, nor have the effect that it was refused when its signer could not say it."""

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
        if isinstance(signer, Refusal):
            return signer
        return _refusal_of_identity(record, event, signer) or self._refusal_of_event(event, signer)

    def _refusal_of_event(self, event: Event, signer: Signer) -> Refusal | None:
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

        An event that may not be said changes nothing. One that was decided before changes nothing either, and has the
        answer that it had: whoever can write to Kafka can send a signed grant again after it was revoked.

        Raises:
            ContractError: the event has a value that no directory can hold, such as an unusable public key.
        """
        signer = self.signer_of(record)
        if isinstance(signer, Refusal):
            return signer
        if (refusal := _refusal_of_identity(record, event, signer)) is not None:
            return refusal
        if not isinstance(event, CHANGING):
            refusal = self._refusal_of_event(event, signer)
            if refusal is None and isinstance(event, LoggedOn):
                self._change(event.user_id, lambda user: _after(user, event))
            return refusal
        said = (event.actor, event.event_id)
        if said not in self._verdicts:
            self._verdicts[said] = self._decide(event, signer)
        verdict = self._verdicts[said]
        if isinstance(verdict, ContractError):
            raise ContractError(*verdict.args)
        return verdict

    def quality_override(self, request: ProbeSubmitted, at: datetime) -> UUID | None:
        """Return the event id of the override under which an image of poor quality may be searched, or None.

        It is the first that holds at this instant: for this image in this case of this agency, not expired, and by
        another than who asks, who still is a supervisor of the agency whose access is granted.
        """
        granted = self._overrides.get((request.image_sha256, request.case_number, request.ori), ())
        for override in granted:
            supervisor = self.users.get(override.supervisor)
            if (
                at < override.expires_at
                and supervisor is not None
                and supervisor.user_id != request.user_id
                and supervisor.standing is Standing.GRANTED
                and Role.SUPERVISOR in supervisor.roles
                and supervisor.ori == request.ori
            ):
                return override.event_id
        return None

    def policy_at(self, at: datetime) -> Policy | None:
        """Return the activated policy that holds at an instant, or None while none does.

        It is the one that took effect last; of two that take effect at the same instant, the one activated later.
        """
        in_effect = [(since, number) for number, (since, _) in enumerate(self._policies) if since <= at]
        return self._policies[max(in_effect)[1]][1] if in_effect else None

    @property
    def policies(self) -> tuple[tuple[datetime, Policy], ...]:
        """Every activated policy with the first instant at which it counts, in the order of their activation."""
        return tuple(self._policies)

    def _decide(self, event: Event, signer: Signer) -> Refusal | ContractError | None:
        refusal = self._refusal_of_event(event, signer)
        if refusal is None:
            try:
                self._fold(event)
            except ContractError as error:
                return error.with_traceback(None)
        return refusal

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
        if isinstance(event, UserRegistered) and event.user_id == ROOT_ADMINISTRATOR:
            return _not_allowed("The first administrator is pinned by the operator and cannot be registered again.")
        if isinstance(event, OF_A_GENERATION):
            return self._refusal_of_generation(event)
        if isinstance(event, RetentionRunRequested):
            return _refusal_of_retention_run(event, signer)
        return self._refusal_about_a_user(event, signer) if isinstance(event, ABOUT_A_USER) else None

    def _refusal_about_a_user(
        self,
        event: TrainingCompleted
        | AccessGranted
        | AccessRestricted
        | AccessRevoked
        | CorrectiveActionOpened
        | CorrectiveActionClosed,
        signer: User,
    ) -> Refusal | None:
        user = self.users.get(event.user_id)
        if user is None:
            return _refused(
                RefusalCode.USER_UNKNOWN, f"User {event.user_id} is not registered; register the user first."
            )
        if isinstance(event, TrainingCompleted) and event.user_id in (event.approved_by, signer.user_id):
            return _not_allowed("Nobody approves their own training.")
        if isinstance(event, AccessGranted):
            return _refusal_of_grant(user)
        if isinstance(event, (CorrectiveActionOpened, CorrectiveActionClosed)):
            return self._refusal_of_case(event, signer)
        return None

    def _refusal_of_case(self, event: CorrectiveActionOpened | CorrectiveActionClosed, signer: User) -> Refusal | None:
        if event.user_id == signer.user_id:
            return _not_allowed("Nobody opens or closes a case about themselves; ask another administrator.")
        if isinstance(event, CorrectiveActionOpened):
            return self._refusal_of_opening(event)
        return self._refusal_of_closing(event)

    def _refusal_of_opening(self, event: CorrectiveActionOpened) -> Refusal | None:
        if not event.section.strip():
            return _refused(
                RefusalCode.SECTION_MISSING, "Cite the section of the law, policy or agreement that applies."
            )
        if not event.facts.strip():
            return _refused(RefusalCode.FACTS_MISSING, "State in words what happened.")
        known = {case.case_id for user in self.users.values() for case in user.open_cases}
        if event.corrective_case_id in known | self._closed_cases:
            return _refused(
                RefusalCode.CORRECTIVE_CASE_REPEATED,
                f"There is a corrective case {event.corrective_case_id} already; give a new case an id of its own.",
            )
        return None

    def _refusal_of_closing(self, event: CorrectiveActionClosed) -> Refusal | None:
        if not event.findings.strip():
            return _refused(RefusalCode.FINDINGS_MISSING, "State in words what was found.")
        case_id = event.corrective_case_id
        if case_id in {case.case_id for case in self.users[event.user_id].open_cases}:
            return None
        if case_id in self._closed_cases:
            return _refused(RefusalCode.CORRECTIVE_CASE_CLOSED, f"The corrective case {case_id} is closed already.")
        return _refused(
            RefusalCode.CORRECTIVE_CASE_UNKNOWN,
            f"There is no corrective case {case_id} about {event.user_id}; see `leadstream user show`.",
        )

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
        if event.ori != signer.ori:
            return _not_allowed("A supervisor grants overrides for the own agency.")
        if not event.reason.strip():
            return _refused(
                RefusalCode.REASON_TEXT_MISSING, "State in words why the image may be searched nevertheless."
            )
        if event.expires_at <= event.occurred_at:
            return _refused(RefusalCode.OVERRIDE_EXPIRED, "The override ends before it begins; check its expiry.")
        return None

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
        if isinstance(event, OF_AN_AGENCY):
            self._fold_registration(event)
        elif isinstance(event, FOR_EVERYBODY):
            self._fold_for_everybody(event)
        elif isinstance(event, QualityOverrideGranted):
            place = (event.image_sha256, event.case_number, event.ori)
            override = QualityOverride(event_id=event.event_id, supervisor=event.user_id, expires_at=event.expires_at)
            self._overrides.setdefault(place, []).append(override)
        elif isinstance(event, RetentionRunRequested):
            self._fold_retention_run(event)
        elif isinstance(event, (*ABOUT_A_USER, AgreementAccepted)):
            if isinstance(event, CorrectiveActionClosed):
                self._closed_cases.add(event.corrective_case_id)
            self._change(event.user_id, lambda user: _after(user, event))

    def _fold_registration(self, event: AgencyRegistered | PublisherRegistered | UserRegistered) -> None:
        if not _ORI.fullmatch(event.ori):
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
        else:
            user = User(
                user_id=event.user_id,
                ori=event.ori,
                roles=frozenset(event.roles),
                public_key=event.public_key,
            )
            before = self.users.get(event.user_id)
            # A registration says who somebody is, and gives and takes nothing else.
            self._register(
                replace(before, ori=user.ori, roles=user.roles, public_key=user.public_key) if before else user
            )

    def _fold_retention_run(self, event: RetentionRunRequested) -> None:
        asked = RetentionRequest(event_id=event.event_id, user_id=event.user_id, due_by=event.due_by)
        if not self.retention_requests or asked.due_by > self.retention_requests[-1].due_by:
            self.retention_requests = (*self.retention_requests, asked)

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
