"""What tests build their cases from: signed records, and the people and systems of one bureau.

Nothing here is random: keys and identities follow from names, so a failing case is the same case tomorrow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connectors.signing_keys import SigningKey
from processors.access import ROOT_ADMINISTRATOR, Directory
from processors.policy import (
    AgencyRules,
    AuditRules,
    CourseRule,
    EnrolmentRules,
    NoticeRules,
    OrderRules,
    Policy,
    ProbeRules,
    ProhibitedSource,
    ReasonRule,
    RetentionRules,
    ReviewRules,
    StatuteRule,
    UserRules,
)
from processors.quality_rules import QualityRules, Use
from schemas.codec import encode, topic_of
from schemas.events import (
    AccessGranted,
    AccessRestricted,
    AccessRevoked,
    AgencyRegistered,
    AgreementAccepted,
    BookingOutcome,
    BookingProcessed,
    BookingRecorded,
    Candidate,
    CandidateListIssued,
    CandidateReviewed,
    Capture,
    CaptureKind,
    Consolidation,
    CorrectiveActionClosed,
    CorrectiveActionOpened,
    CorrectiveEffect,
    CorrectiveOutcome,
    FeatureComparison,
    FeatureFinding,
    ImageViewed,
    LoggedOn,
    Logon,
    NoticeAcknowledged,
    OrderEffect,
    OrderKind,
    Pose,
    ProbeSubmitted,
    PublisherRegistered,
    QualityOverrideGranted,
    RecordOrderReceived,
    ReviewConcluded,
    ReviewConclusion,
    ReviewReversed,
    TrainingCompleted,
    UserRegistered,
)
from schemas.keys import key_of
from schemas.positions import SourcePosition
from schemas.records import LogRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from processors.refusals import Refusal
    from schemas.events import Event

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
YEAR = timedelta(days=365)
ORI = "CA0190000"
OTHER_ORI = "CA0370000"
PERIOD = NOW - YEAR, NOW + YEAR
OVERRIDDEN_UNTIL = NOW + timedelta(hours=1)
DIGEST = sha256(b"as collected").hexdigest()
LOGON = Logon(at=NOW, method="OIDC")
_NAMESPACE = UUID("9d1a7f6e-52e0-4b56-8d0b-5a3d4f1c2b10")

POLICY = Policy(
    version="2026.1",
    users=UserRules(
        roles=frozenset({"SUBMITTER", "EXAMINER"}),
        courses={"FACE-101": CourseRule(versions=frozenset({"1"}), maximum_days=1000)},
        agreements={"BUREAU_POLICY": "2026.1"},
    ),
    agencies={"DEFAULT": AgencyRules(case_number=".*")},
    probes=ProbeRules(
        reasons={
            "FELONY_INVESTIGATION": ReasonRule(
                legal_bases=frozenset({"CRIMINAL_INVESTIGATION"}), minimum_text_characters=10
            )
        },
        empty_reason_words=frozenset({"test"}),
        sources=frozenset({"WITNESS_PHOTO"}),
        prohibited_sources={
            "SURVEILLANCE_VIDEO": ProhibitedSource(
                message="The system is not connected to surveillance.", authority="bureau policy"
            )
        },
        collection_bases=frozenset({"CONSENT"}),
        edit_operations=frozenset({"CROP"}),
        prohibited_edit_operations={"FACE_REPLACEMENT": "Parts of a face were taken from another image."},
        minimum_candidates=2,
        maximum_candidates=50,
        default_candidates=20,
        consolidation=Consolidation.BEST_CAPTURE,
    ),
    enrolment=EnrolmentRules(
        sources=frozenset({"BOOKING_CAPTURE"}), bulk_load_sources=frozenset({"LEGACY_BOOKING_CAPTURE"})
    ),
    audit=AuditRules(maximum_lag_s=60),
    orders=OrderRules(
        maximum_lag_s=60,
        statutes={
            "CA PC 851.91": StatuteRule(
                orders=frozenset({OrderKind.SEAL, OrderKind.UNSEAL}),
                effects=frozenset({OrderEffect.LIFT_AND_RE_ENROL}),
            )
        },
    ),
    reviews=ReviewRules(
        roles=frozenset({"EXAMINER"}),
        examiners=2,
        shows_scores=False,
        shuffles=True,
        sheet_hours=8,
        features=("EYES", "NOSE", "EARS"),
        supports=frozenset({ReviewConclusion.STRONG_SUPPORT, ReviewConclusion.SUPPORT}),
        corroboration_reminder="Establish by other evidence that the person was involved.",
    ),
    notices=NoticeRules(acknowledge_within_hours=24, remind_every_hours=24, maximum_reminders=10),
    retention=RetentionRules(probe_image_days=365, review_sheet_days=30),
    enrolment_quality=QualityRules(use=Use.ENROLMENT, minimum={"unified_quality": 20.0}, maximum={}),
    probe_quality=QualityRules(use=Use.PROBE, minimum={"unified_quality": 5.0}, maximum={}),
)


def key_named(name: str) -> SigningKey:
    """Return the signing key that belongs to a name."""
    return SigningKey(Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest()))


def uuid_named(name: str) -> UUID:
    """Return the identity that belongs to a name."""
    return uuid5(_NAMESPACE, name)


ROOT = key_named("root")
ALICE = key_named("alice")
BOB = key_named("bob")
JAIL = key_named("jail")
CASE_TOOL = key_named("case tool")
STRANGER = key_named("stranger")


def signed(
    event: Event,
    key: SigningKey,
    *,
    partition: int = 0,
    offset: int = 0,
    topic: str | None = None,
    kafka_key: bytes | None = None,
) -> LogRecord:
    """Return the record by which the owner of a key says this event."""
    topic = topic or topic_of(event)
    kafka_key = key_of(event) if kafka_key is None else kafka_key
    value = encode(event)
    return LogRecord(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp_ms=0,
        key=kafka_key,
        value=value,
        headers=tuple(key.sign(topic, kafka_key, value)),
    )


def unsigned(event: Event, *, partition: int = 0, offset: int = 0) -> LogRecord:
    """Return a record of an event that nobody signed, as workers write them."""
    return LogRecord(
        topic=topic_of(event),
        partition=partition,
        offset=offset,
        timestamp_ms=0,
        key=key_of(event),
        value=encode(event),
    )


def _facts(actor: str, changes: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"occurred_at": NOW, "actor": actor, **defaults, **changes}
    # Two different events never share an identity by accident; a repeat of the same one does.
    facts.setdefault("event_id", uuid_named(repr(sorted(facts.items(), key=lambda item: item[0]))))
    return facts


def by_root(**changes: Any) -> dict[str, Any]:
    """Return what every act of the first administrator has in common."""
    return _facts(f"user:{ROOT_ADMINISTRATOR}", changes)


def agency_registered(ori: str = ORI, **changes: Any) -> AgencyRegistered:
    """Return the registration of an agency by the first administrator."""
    return AgencyRegistered(**by_root(ori=ori, name="County of Somewhere", **changes))


def user_registered(user_id: str, public_key: bytes | None = None, **changes: Any) -> UserRegistered:
    """Return the registration of a user by the first administrator."""
    defaults = {"display_name": user_id.title(), "ori": ORI, "roles": ("SUBMITTER",)}
    return UserRegistered(**by_root(user_id=user_id, public_key=public_key, **{**defaults, **changes}))


def publisher_registered(publisher_id: str, public_key: bytes, *records: str, **changes: Any) -> PublisherRegistered:
    """Return the registration of a publisher by the first administrator."""
    return PublisherRegistered(
        **by_root(publisher_id=publisher_id, public_key=public_key, may_publish=records, **{"ori": ORI, **changes})
    )


def training_completed(user_id: str, **changes: Any) -> TrainingCompleted:
    """Return a training from a year ago that lasts another year."""
    defaults = {
        "course": "FACE-101",
        "course_version": "1",
        "material_sha256": DIGEST,
        "approved_by": ROOT_ADMINISTRATOR,
        "completed_at": PERIOD[0],
        "expires_at": PERIOD[1],
    }
    return TrainingCompleted(**by_root(user_id=user_id, **{**defaults, **changes}))


def agreement_accepted(user_id: str, **changes: Any) -> AgreementAccepted:
    """Return the user's own acceptance of the policy's agreement."""
    return AgreementAccepted(
        **_facts(
            f"user:{user_id}",
            changes,
            user_id=user_id,
            agreement="BUREAU_POLICY",
            agreement_version="2026.1",
            document_sha256=DIGEST,
        )
    )


def access_granted(user_id: str, **changes: Any) -> AccessGranted:
    """Return a grant by the first administrator."""
    return AccessGranted(**by_root(user_id=user_id, **{"reason": "trained", **changes}))


def access_revoked(user_id: str, **changes: Any) -> AccessRevoked:
    """Return a revocation by the first administrator."""
    return AccessRevoked(**by_root(user_id=user_id, **{"reason": "left the agency", **changes}))


def access_restricted(user_id: str, **changes: Any) -> AccessRestricted:
    """Return a restriction by the first administrator."""
    return AccessRestricted(**by_root(user_id=user_id, **{"reason": "under review", **changes}))


def corrective_action_opened(user_id: str, **changes: Any) -> CorrectiveActionOpened:
    """Return the opening of a corrective case by the first administrator; it restricts access."""
    defaults = {
        "corrective_case_id": uuid_named("corrective case"),
        "section": "Bureau policy, section 4",
        "facts": "searched for a neighbour",
        "effect": CorrectiveEffect.RESTRICT,
    }
    return CorrectiveActionOpened(**by_root(user_id=user_id, **{**defaults, **changes}))


def corrective_action_closed(user_id: str, **changes: Any) -> CorrectiveActionClosed:
    """Return the closing of that case by the first administrator; it restores access."""
    defaults = {
        "corrective_case_id": uuid_named("corrective case"),
        "outcome": CorrectiveOutcome.NOT_SUSTAINED,
        "findings": "the search was for the case",
        "restores_access": True,
    }
    return CorrectiveActionClosed(**by_root(user_id=user_id, **{**defaults, **changes}))


def quality_override(**changes: Any) -> QualityOverrideGranted:
    """Return an override by the supervisor Bob for the request of `probe_submitted`."""
    return QualityOverrideGranted(
        **_facts(
            "user:bob",
            changes,
            user_id="bob",
            ori=ORI,
            case_number="2026-4711",
            image_sha256=DIGEST,
            reason="The only image there is",
            expires_at=OVERRIDDEN_UNTIL,
        )
    )


def logged_on(user_id: str, **changes: Any) -> LoggedOn:
    """Return a logon stated by the case tool."""
    return LoggedOn(**_facts("publisher:case-tool", changes, user_id=user_id, method="OIDC", publisher_id="case-tool"))


def probe_submitted(name: str = "probe", **changes: Any) -> ProbeSubmitted:
    """Return a request by Alice, with her own key, that keeps every rule."""
    return ProbeSubmitted(
        **_facts(
            "user:alice",
            changes,
            probe_id=uuid_named(name),
            user_id="alice",
            ori=ORI,
            reason_code="FELONY_INVESTIGATION",
            reason_text="Burglary on Main Street",
            case_number="2026-4711",
            legal_basis="CRIMINAL_INVESTIGATION",
            source_type="WITNESS_PHOTO",
            image_reference="object:v1:none:none",
            image_sha256=DIGEST,
            original_sha256=DIGEST,
            collected_by="alice",
            collected_at=NOW,
            collection_basis="CONSENT",
            edits=(),
            requested_candidates=5,
        )
    )


def capture(name: str = "capture", **changes: Any) -> Capture:
    """Return a frontal photo taken at booking."""
    facts: dict[str, Any] = {
        "capture_id": uuid_named(name),
        "kind": CaptureKind.FACE,
        "pose": Pose.FRONTAL,
        "source": "BOOKING_CAPTURE",
        "reference": "object:v1:none:none",
        "sha256": DIGEST,
        "size_bytes": 1,
        "media_type": "image/png",
        **changes,
    }
    return Capture(**facts)


def booking_recorded(booking_number: str = "B-1", **changes: Any) -> BookingRecorded:
    """Return a booking as the jail publishes it, without captures."""
    return BookingRecorded(
        **_facts("publisher:jail", changes, ori=ORI, booking_number=booking_number, booked_at=NOW, captures=())
    )


def record_order(order: OrderKind, booking_number: str = "B-1", **changes: Any) -> RecordOrderReceived:
    """Return a court order on a booking as the jail publishes it."""
    return RecordOrderReceived(
        **_facts(
            "publisher:jail",
            changes,
            ori=ORI,
            booking_number=booking_number,
            order=order,
            statute="CA PC 851.91",
            court="Superior Court",
            order_number="17",
            ordered_at=NOW,
        )
    )


PROBE = uuid_named("probe")
SOMEWHERE = SourcePosition(topic="probe.requests.v1", partition=0, offset=0)


def candidate(name: str, rank: int = 1, **changes: Any) -> Candidate:
    """Return the person of a booking of that name on a list."""
    facts = {"person": f"booking:{ORI}/{name}", "ori": ORI, "booking_number": name, **changes}
    return Candidate(rank=rank, capture_id=uuid_named(name), score=round(1 - rank / 100, 6), **facts)


def list_issued(*bookings: str, **changes: Any) -> CandidateListIssued:
    """Return the list of a probe of Alice's with the persons of these bookings, by rank."""
    return CandidateListIssued(
        **_facts(
            "system:worker-1",
            changes,
            probe_id=PROBE,
            user_id="alice",
            ori=ORI,
            reason_code="FELONY_INVESTIGATION",
            case_number="2026-4711",
            request=SOMEWHERE,
            requested=20,
            returned=len(bookings),
            candidates=tuple(candidate(name, rank) for rank, name in enumerate(bookings, 1)),
            threshold=0.363,
            model_digest="ab" * 32,
            policy_version=POLICY.version,
            gallery_watermark=(0,) * 8,
            access_watermark=(0,),
            gallery_templates=1000,
            gallery_persons=1000,
            measurements={},
            lead_notice="Investigative lead only.",
        )
    )


def order_answered(
    order: OrderKind, source: SourcePosition, booking_number: str = "B-1", **changes: Any
) -> BookingProcessed:
    """Return a worker's word that an order was obeyed."""
    lifted = order is OrderKind.UNSEAL
    return BookingProcessed(
        **_facts(
            "system:worker-1",
            changes,
            ori=ORI,
            booking_number=booking_number,
            source=source,
            outcome=BookingOutcome.ORDER_LIFTED if lifted else BookingOutcome.WITHDRAWN,
            captures=(),
        )
    )


def review_id_of(user_id: str) -> UUID:
    """Return the identity of a user's review of the probe."""
    return uuid_named(f"review of {user_id}")


def image_viewed(user_id: str, shown: Sequence[str], **changes: Any) -> ImageViewed:
    """Return a user's opening of a review that shows the persons of these bookings in this order."""
    return ImageViewed(
        **_facts(
            f"user:{user_id}",
            changes,
            probe_id=PROBE,
            user_id=user_id,
            ori=ORI,
            review_id=review_id_of(user_id),
            shown=tuple(uuid_named(name) for name in shown),
            shows_scores=False,
            sheet_sha256=DIGEST,
            expires_at=NOW + timedelta(hours=8),
        )
    )


def compared(**findings: FeatureFinding) -> tuple[FeatureComparison, ...]:
    """Return a comparison of every feature of the policy, similar but for those that are named."""
    return tuple(
        FeatureComparison(feature=name, finding=findings.get(name, FeatureFinding.SIMILAR), note="")
        for name in POLICY.reviews.features
    )


def candidate_reviewed(
    user_id: str, name: str, conclusion: ReviewConclusion = ReviewConclusion.SUPPORT, **changes: Any
) -> CandidateReviewed:
    """Return what a user says of the person of a booking; the features bear any conclusion."""
    return CandidateReviewed(
        **_facts(
            f"user:{user_id}",
            changes,
            probe_id=PROBE,
            user_id=user_id,
            review_id=review_id_of(user_id),
            capture_id=uuid_named(name),
            features=compared(EARS=FeatureFinding.DISSIMILAR),
            limitations="The probe is small.",
            conclusion=conclusion,
            note="",
        )
    )


def review_concluded(user_id: str, **changes: Any) -> ReviewConcluded:
    """Return the end of a user's review."""
    return ReviewConcluded(
        **_facts(
            f"user:{user_id}", changes, probe_id=PROBE, user_id=user_id, review_id=review_id_of(user_id), summary=""
        )
    )


def review_reversed(user_id: str, name: str, **changes: Any) -> ReviewReversed:
    """Return a user's word that a conclusion on the person of a booking no longer stands."""
    return ReviewReversed(
        **_facts(
            f"user:{user_id}",
            changes,
            probe_id=PROBE,
            user_id=user_id,
            capture_id=uuid_named(name),
            reason="A scar was overlooked.",
        )
    )


def notice_acknowledged(user_id: str, notice_id: UUID, **changes: Any) -> NoticeAcknowledged:
    """Return a user's word that what a notice asks for was done."""
    return NoticeAcknowledged(
        **_facts(
            f"user:{user_id}",
            changes,
            user_id=user_id,
            notice_id=notice_id,
            statement="The list and the sheet were destroyed.",
        )
    )


FOUNDING: tuple[tuple[Event, SigningKey], ...] = (
    (agency_registered(), ROOT),
    (user_registered("alice", ALICE.public_key), ROOT),
    (training_completed("alice"), ROOT),
    (agreement_accepted("alice"), ALICE),
    (access_granted("alice"), ROOT),
    (publisher_registered("jail", JAIL.public_key, "BookingRecorded", "RecordOrderReceived"), ROOT),
    (publisher_registered("case-tool", CASE_TOOL.public_key, "ProbeSubmitted", "LoggedOn", "AgreementAccepted"), ROOT),
)
"""One agency with a trained user, a jail and a case tool: everything in it is allowed."""


@dataclass(kw_only=True)
class Registry:
    """A directory and the signed access records that made it."""

    directory: Directory = field(default_factory=lambda: Directory(ROOT.public_key))
    records: list[LogRecord] = field(default_factory=list)

    def say(self, event: Event, key: SigningKey = ROOT) -> Refusal | None:
        """Sign an access event, put it at the end and apply it."""
        record = signed(event, key, offset=len(self.records))
        self.records.append(record)
        return self.directory.apply(record, event)


def founded() -> Registry:
    """Return the registry after the founding events."""
    registry = Registry()
    for event, key in FOUNDING:
        refusal = registry.say(event, key)
        assert refusal is None, refusal
    return registry


ERIN, FINN, SUE, OTTO = key_named("erin"), key_named("finn"), key_named("sue"), key_named("otto")


def with_examiners() -> Registry:
    """Return that registry with Erin and Finn, who examine, Sue, who supervises, and Otto, an examiner of elsewhere."""
    registry = founded()
    registry.say(agency_registered(OTHER_ORI))
    for name, key, role, ori in (
        ("erin", ERIN, "EXAMINER", ORI),
        ("finn", FINN, "EXAMINER", ORI),
        ("sue", SUE, "SUPERVISOR", ORI),
        ("otto", OTTO, "EXAMINER", OTHER_ORI),
    ):
        registry.say(user_registered(name, key.public_key, roles=(role,), ori=ori))
        registry.say(training_completed(name))
        registry.say(agreement_accepted(name), key)
        registry.say(access_granted(name))
    return registry
