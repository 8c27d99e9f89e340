"""The Kafka key of each event: keys decide order, so there is one place that makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.events import (
    AgencyRegistered,
    BookingProcessed,
    BookingRecorded,
    CandidateListIssued,
    DeadLetter,
    GenerationActivated,
    PolicyActivated,
    ProbeRefused,
    ProbeSubmitted,
    PublisherRegistered,
    RecordOrderReceived,
    TemplatesEnrolled,
    TemplatesWithdrawn,
)

if TYPE_CHECKING:
    from schemas.events import Event

_OF_A_BOOKING = (BookingRecorded, RecordOrderReceived, BookingProcessed, TemplatesEnrolled, TemplatesWithdrawn)
_OF_A_PROBE = (ProbeSubmitted, CandidateListIssued, ProbeRefused)


def booking_key(ori: str, booking_number: str) -> str:
    """Return the key of everything about one booking. An ORI has no slash, so the first one parts the two."""
    return f"{ori}/{booking_number}"


def key_of(event: Event) -> bytes:
    """Return the Kafka key of an event."""
    if isinstance(event, _OF_A_BOOKING):
        key = booking_key(event.ori, event.booking_number)
    elif isinstance(event, _OF_A_PROBE):
        key = str(event.probe_id)
    elif isinstance(event, DeadLetter):
        key = event.source.topic
    elif isinstance(event, PublisherRegistered):
        key = event.publisher_id
    elif isinstance(event, AgencyRegistered):
        key = event.ori
    elif isinstance(event, (PolicyActivated, GenerationActivated)):
        key = type(event).__name__
    else:
        key = event.user_id
    return key.encode()
