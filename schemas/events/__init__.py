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
    GenerationActivated,
    GenerationRemoved,
    LoggedOn,
    PolicyActivated,
    PublisherRegistered,
    TrainingCompleted,
    UserRegistered,
)
from schemas.events.booking import (
    BookingOutcome,
    BookingProcessed,
    BookingRecorded,
    Capture,
    CaptureDisposition,
    CaptureKind,
    CaptureOutcome,
    OrderKind,
    Pose,
    RecordOrderReceived,
)
from schemas.events.dead_letter import DeadLetter, DeadLetterReplayed, Header, OriginalRecord
from schemas.events.gallery import EnrolledCapture, TemplatesEnrolled, TemplatesWithdrawn, WithdrawalCause
from schemas.events.probe import (
    Candidate,
    CandidateListIssued,
    Consolidation,
    ImageEdit,
    Logon,
    ProbeRefused,
    ProbeSubmitted,
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
    | DeadLetter
    | DeadLetterReplayed
    | GenerationActivated
    | GenerationRemoved
    | LoggedOn
    | PolicyActivated
    | ProbeRefused
    | ProbeSubmitted
    | PublisherRegistered
    | RecordOrderReceived
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
        DeadLetter,
        DeadLetterReplayed,
        GenerationActivated,
        GenerationRemoved,
        LoggedOn,
        OriginalRecord,
        PolicyActivated,
        ProbeRefused,
        ProbeSubmitted,
        PublisherRegistered,
        RecordOrderReceived,
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
    "Candidate",
    "CandidateListIssued",
    "Capture",
    "CaptureDisposition",
    "CaptureKind",
    "CaptureOutcome",
    "Consolidation",
    "DeadLetter",
    "DeadLetterReplayed",
    "EnrolledCapture",
    "GenerationActivated",
    "GenerationRemoved",
    "Header",
    "ImageEdit",
    "LoggedOn",
    "Logon",
    "OrderKind",
    "OriginalRecord",
    "PolicyActivated",
    "Pose",
    "ProbeRefused",
    "ProbeSubmitted",
    "PublisherRegistered",
    "RecordOrderReceived",
    "TemplatesEnrolled",
    "TemplatesWithdrawn",
    "TrainingCompleted",
    "UserRegistered",
    "WithdrawalCause",
]
