"""Every event, by name.

Generated from schemas/avro/ by `python -m infra.codegen`; do not edit.
"""

from __future__ import annotations

from schemas.events.access import (
    AccessDenied,
    AccessGranted,
    AccessRestricted,
    AccessRevoked,
    AgencyRegistered,
    AgreementAccepted,
    CorrectiveActionClosed,
    CorrectiveActionOpened,
    CorrectiveEffect,
    CorrectiveOutcome,
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
from schemas.events.booking import (
    BookingOutcome,
    BookingProcessed,
    BookingRecorded,
    BulkLoadProvenance,
    Capture,
    CaptureDisposition,
    CaptureKind,
    CaptureOutcome,
    OrderEffect,
    OrderKind,
    Pose,
    RecordOrderReceived,
)
from schemas.events.dead_letter import DeadLetter, DeadLetterReplayed, Header, OriginalRecord
from schemas.events.gallery import EnrolledCapture, TemplatesEnrolled, TemplatesWithdrawn, WithdrawalCause
from schemas.events.notice import (
    LeadWithdrawnNotice,
    NoticeAcknowledged,
    NoticeAnswered,
    NoticeReminder,
    SealedRecordNotice,
)
from schemas.events.probe import (
    Candidate,
    CandidateListIssued,
    Consolidation,
    ImageEdit,
    Logon,
    ProbeRefused,
    ProbeSubmitted,
)
from schemas.events.review import (
    CandidateResult,
    CandidateReviewed,
    FeatureComparison,
    FeatureFinding,
    ImageViewed,
    LeadIssued,
    LeadWithdrawalCause,
    LeadWithdrawn,
    RetainedDataDestroyed,
    ReviewAnswered,
    ReviewCompleted,
    ReviewConcluded,
    ReviewConclusion,
    ReviewResult,
    ReviewReversed,
)

Event = (
    AccessDenied
    | AccessGranted
    | AccessRestricted
    | AccessRevoked
    | AgencyRegistered
    | AgreementAccepted
    | BookingProcessed
    | BookingRecorded
    | CandidateListIssued
    | CandidateReviewed
    | CorrectiveActionClosed
    | CorrectiveActionOpened
    | DeadLetter
    | DeadLetterReplayed
    | GenerationActivated
    | GenerationRemoved
    | ImageViewed
    | LeadIssued
    | LeadWithdrawn
    | LeadWithdrawnNotice
    | LoggedOn
    | NoticeAcknowledged
    | NoticeAnswered
    | NoticeReminder
    | PolicyActivated
    | ProbeRefused
    | ProbeSubmitted
    | PublisherRegistered
    | QualityOverrideGranted
    | RecordOrderReceived
    | RetainedDataDestroyed
    | RetentionRunRequested
    | ReviewAnswered
    | ReviewCompleted
    | ReviewConcluded
    | ReviewReversed
    | SealedRecordNotice
    | TemplatesEnrolled
    | TemplatesWithdrawn
    | TrainingCompleted
    | UserRegistered
)
"""What a topic carries."""

Record = Event | OriginalRecord
"""What Avro carries: events, and what is kept in the object store."""

RECORDS: dict[str, type[Record]] = {
    cls.AVRO_NAME: cls
    for cls in (
        AccessDenied,
        AccessGranted,
        AccessRestricted,
        AccessRevoked,
        AgencyRegistered,
        AgreementAccepted,
        BookingProcessed,
        BookingRecorded,
        CandidateListIssued,
        CandidateReviewed,
        CorrectiveActionClosed,
        CorrectiveActionOpened,
        DeadLetter,
        DeadLetterReplayed,
        GenerationActivated,
        GenerationRemoved,
        ImageViewed,
        LeadIssued,
        LeadWithdrawn,
        LeadWithdrawnNotice,
        LoggedOn,
        NoticeAcknowledged,
        NoticeAnswered,
        NoticeReminder,
        OriginalRecord,
        PolicyActivated,
        ProbeRefused,
        ProbeSubmitted,
        PublisherRegistered,
        QualityOverrideGranted,
        RecordOrderReceived,
        RetainedDataDestroyed,
        RetentionRunRequested,
        ReviewAnswered,
        ReviewCompleted,
        ReviewConcluded,
        ReviewReversed,
        SealedRecordNotice,
        TemplatesEnrolled,
        TemplatesWithdrawn,
        TrainingCompleted,
        UserRegistered,
    )
}
"""Full Avro name -> class."""

__all__ = [
    "RECORDS",
    "Event",
    "Record",
    "AccessDenied",
    "AccessGranted",
    "AccessRestricted",
    "AccessRevoked",
    "AgencyRegistered",
    "AgreementAccepted",
    "BookingOutcome",
    "BookingProcessed",
    "BookingRecorded",
    "BulkLoadProvenance",
    "Candidate",
    "CandidateListIssued",
    "CandidateResult",
    "CandidateReviewed",
    "Capture",
    "CaptureDisposition",
    "CaptureKind",
    "CaptureOutcome",
    "Consolidation",
    "CorrectiveActionClosed",
    "CorrectiveActionOpened",
    "CorrectiveEffect",
    "CorrectiveOutcome",
    "DeadLetter",
    "DeadLetterReplayed",
    "EnrolledCapture",
    "FeatureComparison",
    "FeatureFinding",
    "GenerationActivated",
    "GenerationRemoved",
    "Header",
    "ImageEdit",
    "ImageViewed",
    "LeadIssued",
    "LeadWithdrawalCause",
    "LeadWithdrawn",
    "LeadWithdrawnNotice",
    "LoggedOn",
    "Logon",
    "NoticeAcknowledged",
    "NoticeAnswered",
    "NoticeReminder",
    "OrderEffect",
    "OrderKind",
    "OriginalRecord",
    "PolicyActivated",
    "Pose",
    "ProbeRefused",
    "ProbeSubmitted",
    "PublisherRegistered",
    "QualityOverrideGranted",
    "RecordOrderReceived",
    "RetainedDataDestroyed",
    "RetentionRunRequested",
    "ReviewAnswered",
    "ReviewCompleted",
    "ReviewConcluded",
    "ReviewConclusion",
    "ReviewResult",
    "ReviewReversed",
    "SealedRecordNotice",
    "TemplatesEnrolled",
    "TemplatesWithdrawn",
    "TrainingCompleted",
    "UserRegistered",
    "WithdrawalCause",
]
