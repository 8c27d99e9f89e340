"""From a booking event to what it means for the gallery and what the booking system reads back."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from processors.quality_rules import judge_by_policy
from processors.refusals import Refusal, RefusalCode
from processors.templates import template_to_bytes
from schemas.events import (
    BookingOutcome,
    BookingProcessed,
    BookingRecorded,
    CaptureDisposition,
    CaptureKind,
    CaptureOutcome,
    EnrolledCapture,
    OrderKind,
    Pose,
    RecordOrderReceived,
    TemplatesEnrolled,
    TemplatesWithdrawn,
    WithdrawalCause,
)
from schemas.positions import SourcePosition, derived_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from processors.extraction import Extraction
    from processors.gallery import Entry
    from processors.policy import Policy
    from schemas.events import Capture

ACTOR = "system:worker"
CLOCK_TOLERANCE = timedelta(hours=1)
"""How far a publisher's clock may be ahead of ours."""
MAX_BOOKING_NUMBER_CHARACTERS = 64
_REFUSAL_OF_CAUSE = {
    WithdrawalCause.SEALED: Refusal(
        code=RefusalCode.RECORD_SEALED,
        message="A court has sealed this record; it is enrolled again only after an unseal order.",
    ),
    WithdrawalCause.EXPUNGED: Refusal(
        code=RefusalCode.RECORD_EXPUNGED,
        message="A court has expunged this record; it is never enrolled again.",
    ),
}


def captures_to_extract(booking: BookingRecorded, policy: Policy) -> tuple[Capture, ...]:
    """Return the captures that may be enrolled, in order: frontal faces from a source that is allowed as stated."""
    return tuple(
        capture
        for capture in booking.captures
        if capture.kind is CaptureKind.FACE
        and capture.pose is Pose.FRONTAL
        and _refusal_of_source(capture, booking, policy) is None
    )


def refusal_of_booking(event: BookingRecorded | RecordOrderReceived) -> Refusal | None:
    """Return what is wrong with a booking event in itself, or None."""
    if not 1 <= len(event.booking_number) <= MAX_BOOKING_NUMBER_CHARACTERS:
        return Refusal(
            code=RefusalCode.BOOKING_NUMBER_INVALID,
            message=f"A booking number has 1 to {MAX_BOOKING_NUMBER_CHARACTERS} characters.",
        )
    captures = [capture.capture_id for capture in event.captures] if isinstance(event, BookingRecorded) else []
    if len(set(captures)) != len(captures):
        # A candidate names its capture by this id; two photos under one could not be told apart.
        return Refusal(
            code=RefusalCode.CAPTURE_REPEATED,
            message="Two captures of the booking have the same capture_id; give each its own.",
        )
    return None


def refusal_of_time(
    event: BookingRecorded | RecordOrderReceived,
    counting: Entry | None,
    at: datetime,
) -> Refusal | None:
    """Return why an event comes at the wrong time, or None.

    A signature stays valid for ever, so an old booking or unseal that is sent again must not undo what was said after
    it. A seal or expungement is obeyed whatever its time: to withdraw too much harms nobody.
    """
    if isinstance(event, RecordOrderReceived) and not is_unseal(event):
        return None
    if event.occurred_at > at + CLOCK_TOLERANCE:
        return Refusal(
            code=RefusalCode.TIME_IN_FUTURE,
            message="The event says that it happened in the future; set the clock of the publisher and send it again.",
        )
    if counting is None or event.occurred_at > counting.said_at:
        return None
    # A seal that gives an earlier time than the unseal before it leaves that unseal's time standing.
    lifts_again = is_unseal(event) and counting.withdrawn is WithdrawalCause.SEALED
    if event.occurred_at < counting.said_at or lifts_again:
        return Refusal(
            code=RefusalCode.STALE_EVENT,
            message="Something later was said about this booking; say it anew if it still holds.",
        )
    return None


def refusal_of_overtaken(
    event: BookingRecorded | RecordOrderReceived, position: SourcePosition, counting: Entry | None
) -> Refusal | None:
    """Return why an event has no effect that a later court order was obeyed ahead of, or None.

    A booking is barred by that order all the same, and a seal or an expungement takes out what is out already.
    """
    if counting is None or counting.source_offset <= position.offset or not is_unseal(event):
        return None
    return Refusal(
        code=RefusalCode.STALE_EVENT,
        message="A later court order on this booking was obeyed already; an unseal behind it has to be said anew.",
    )


def said_at(event: BookingRecorded | RecordOrderReceived, counting: Entry | None, at: datetime) -> datetime:
    """Return the time before which what comes again is stale; it never goes back.

    A clock that is ahead counts as now, so that it makes nothing stale that others say meanwhile. Only an unseal keeps
    its own time: it must not come again, once that time is past, behind the next seal.
    """
    said = event.occurred_at if is_unseal(event) else min(event.occurred_at, at)
    return max(said, counting.said_at) if counting is not None else said


def failed(message: str) -> Refusal:
    """Return the refusal of an event that was set aside as a dead letter, so that its sender has an answer."""
    return Refusal(code=RefusalCode.PROCESSING_FAILED, message=message)


def refuse(
    event: BookingRecorded | RecordOrderReceived,
    position: SourcePosition,
    refusal: Refusal,
    at: datetime,
) -> BookingProcessed:
    """Return the answer to a booking event that has no effect."""
    return answer_to(event, position, at, BookingOutcome.REFUSED, refusal=refusal)


def refusal_of_barred(cause: WithdrawalCause) -> Refusal:
    """Return why a booking under this order is not enrolled."""
    return _REFUSAL_OF_CAUSE[cause]


def enrol(
    booking: BookingRecorded,
    position: SourcePosition,
    extractions: Mapping[UUID, Extraction],
    counting: Entry | None,
    policy: Policy,
    model_digest: str,
    at: datetime,
) -> tuple[TemplatesEnrolled | TemplatesWithdrawn, BookingProcessed]:
    """Return the gallery record of a booking and the answer to its booking system.

    A photo that the policy finds too poor is refused like one that could not be extracted. A booking without a usable
    capture withdraws what an earlier state of it had enrolled.

    Args:
        booking: the booking, already allowed.
        position: where it stands.
        extractions: capture id -> what came of it, for `captures_to_extract`.
        counting: the gallery record of the booking that counts so far.
        policy: which sources may be enrolled, and how good a photo has to be.
        model_digest: digest of the pack that made the templates.
        at: now.
    """
    extractions = {
        capture_id: judge_by_policy(extraction, policy.enrolment_quality, policy.version)
        for capture_id, extraction in extractions.items()
    }
    captures = []
    for capture in booking.captures:
        extraction = extractions.get(capture.capture_id)
        if extraction is not None and not isinstance(extraction, Refusal):
            captures.append(
                EnrolledCapture(
                    capture_id=capture.capture_id,
                    template=template_to_bytes(extraction.template),
                    quality=extraction.quality,
                ),
            )
    outcomes = tuple(
        _outcome(capture, extractions.get(capture.capture_id), _refusal_of_source(capture, booking, policy))
        for capture in booking.captures
    )
    if not captures:
        refusal = Refusal(
            code=RefusalCode.NO_USABLE_CAPTURE,
            message="No capture could be enrolled; the captures say why. Send the booking again with a better photo.",
        )
        return (
            withdraw(booking, position, WithdrawalCause.NO_USABLE_CAPTURE, counting, at),
            answer_to(booking, position, at, BookingOutcome.NOT_ENROLLED, refusal=refusal, captures=outcomes),
        )
    return (
        TemplatesEnrolled(
            event_id=derived_id(position, "templates"),
            occurred_at=at,
            actor=ACTOR,
            ori=booking.ori,
            booking_number=booking.booking_number,
            sid=booking.sid,
            model_digest=model_digest,
            captures=tuple(captures),
            source=position,
            source_said_at=said_at(booking, counting, at),
            synthetic=booking.synthetic,
        ),
        answer_to(booking, position, at, BookingOutcome.ENROLLED, captures=outcomes, model_digest=model_digest),
    )


def is_unseal(event: BookingRecorded | RecordOrderReceived) -> bool:
    """Tell whether an event is an order that lifts another."""
    return isinstance(event, RecordOrderReceived) and event.order is OrderKind.UNSEAL


def withdraw(
    event: BookingRecorded | RecordOrderReceived,
    position: SourcePosition,
    cause: WithdrawalCause,
    counting: Entry | None,
    at: datetime,
    order_event_id: UUID | None = None,
    booking_offset: int | None = None,
) -> TemplatesWithdrawn:
    """Return the gallery record that takes a booking out."""
    return TemplatesWithdrawn(
        event_id=derived_id(position, "templates"),
        occurred_at=at,
        actor=ACTOR,
        ori=event.ori,
        booking_number=event.booking_number,
        cause=cause,
        order_event_id=order_event_id,
        source=position,
        source_said_at=said_at(event, counting, at),
        booking_offset=booking_offset,
    )


def answer_to(
    event: BookingRecorded | RecordOrderReceived,
    position: SourcePosition,
    at: datetime,
    outcome: BookingOutcome,
    *,
    refusal: Refusal | None = None,
    captures: tuple[CaptureOutcome, ...] = (),
    model_digest: str | None = None,
) -> BookingProcessed:
    """Return the answer to a booking event."""
    return BookingProcessed(
        event_id=derived_id(position, "processed"),
        occurred_at=at,
        actor=ACTOR,
        ori=event.ori,
        booking_number=event.booking_number,
        source=position,
        source_event_id=event.event_id,
        outcome=outcome,
        code=refusal.code if refusal else None,
        message=refusal.message if refusal else None,
        rule=refusal.rule if refusal else "",
        captures=captures,
        model_digest=model_digest,
        synthetic=isinstance(event, BookingRecorded) and event.synthetic,
    )


def _refusal_of_source(capture: Capture, booking: BookingRecorded, policy: Policy) -> Refusal | None:
    if capture.source in policy.enrolment.sources:
        return None
    if capture.source not in policy.enrolment.bulk_load_sources:
        return Refusal(
            code=RefusalCode.NOT_A_BOOKING_CAPTURE,
            rule="enrolment.sources",
            message="Only photos taken at booking are enrolled.",
        )
    stated = booking.provenance
    if stated and all(text.strip() for text in (stated.origin, stated.stated_by, stated.statement)):
        return None
    return Refusal(
        code=RefusalCode.PROVENANCE_MISSING,
        rule="enrolment.bulk_load_sources",
        message="A photo of a bulk load is enrolled where the booking states its origin, who answers for it and how "
        "the photos came to be.",
    )


def _outcome(capture: Capture, extraction: Extraction | None, unwanted: Refusal | None) -> CaptureOutcome:
    if extraction is None and capture.kind is CaptureKind.FACE:
        extraction = unwanted
    if extraction is None:
        return CaptureOutcome(
            capture_id=capture.capture_id,
            disposition=CaptureDisposition.STORED,
            measurements={},
        )
    refused = isinstance(extraction, Refusal)
    return CaptureOutcome(
        capture_id=capture.capture_id,
        disposition=CaptureDisposition.REFUSED if refused else CaptureDisposition.ENROLLED,
        code=extraction.code if isinstance(extraction, Refusal) else None,
        message=extraction.message if isinstance(extraction, Refusal) else None,
        measurements=extraction.measurements,
    )
