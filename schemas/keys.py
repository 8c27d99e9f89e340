"""The Kafka key of each event, and the scopes of stored objects: keys decide order, so one place makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from aiokafka.partitioner import murmur2

from schemas.events import (
    AgencyRegistered,
    BookingProcessed,
    BookingRecorded,
    CandidateListIssued,
    CandidateReviewed,
    DeadLetter,
    DeadLetterReplayed,
    GenerationActivated,
    GenerationRemoved,
    ImageViewed,
    LeadIssued,
    LeadWithdrawn,
    PolicyActivated,
    ProbeRefused,
    ProbeSubmitted,
    PublisherRegistered,
    RecordOrderReceived,
    RetainedDataDestroyed,
    ReviewAnswered,
    ReviewCompleted,
    ReviewConcluded,
    ReviewReversed,
    TemplatesEnrolled,
    TemplatesWithdrawn,
)
from schemas.topics import spec_of

if TYPE_CHECKING:
    from uuid import UUID

    from numpy.typing import NDArray

    from schemas.events import Event

_OF_A_BOOKING = (BookingRecorded, RecordOrderReceived, BookingProcessed, TemplatesEnrolled, TemplatesWithdrawn)
_OF_A_PROBE = (
    ProbeSubmitted,
    CandidateListIssued,
    ProbeRefused,
    ImageViewed,
    CandidateReviewed,
    ReviewConcluded,
    ReviewReversed,
    ReviewAnswered,
    ReviewCompleted,
    LeadIssued,
    LeadWithdrawn,
    RetainedDataDestroyed,
)


def booking_key(ori: str, booking_number: str) -> str:
    """Return the key of everything about one booking. An ORI has no slash, so the first one parts the two."""
    return f"{ori}/{booking_number}"


def booking_keys(oris: NDArray[np.uint8], booking_numbers: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the keys of many bookings as `booking_key` makes them; all are (n, bytes) of ASCII text."""
    count = len(oris)
    example = booking_key("", "").encode()
    between = np.broadcast_to(np.frombuffer(example, dtype=np.uint8), (count, len(example)))
    return np.hstack([oris, between, booking_numbers])


def booking_scope(ori: str, booking_number: str) -> str:
    """Return the scope of a booking's stored objects; they share one data key, destroyed on expungement."""
    return f"booking/{booking_key(ori, booking_number)}"


def probe_scope(probe_id: UUID) -> str:
    """Return the scope of a probe's image in the object store."""
    return f"probe/{probe_id}"


def partition_of(topic: str, key: bytes) -> int:
    """Return the partition where every client puts this key: Kafka's murmur2, which librdkafka calls murmur2_random."""
    return int(murmur2(key) & 0x7FFFFFFF) % spec_of(topic).partitions


def key_of(event: Event) -> bytes:
    """Return the Kafka key of an event."""
    if isinstance(event, _OF_A_BOOKING):
        key = booking_key(event.ori, event.booking_number)
    elif isinstance(event, _OF_A_PROBE):
        key = str(event.probe_id)
    elif isinstance(event, DeadLetter):
        key = event.source.topic
    elif isinstance(event, DeadLetterReplayed):
        key = event.replayed_as.topic
    elif isinstance(event, PublisherRegistered):
        key = event.publisher_id
    elif isinstance(event, AgencyRegistered):
        key = event.ori
    elif isinstance(event, (PolicyActivated, GenerationActivated, GenerationRemoved)):
        key = type(event).__name__
    else:
        key = event.user_id
    return key.encode()
