"""The photos behind the candidates of a list, found by what the workers answered to booking events.

Only events that a worker took count, and of a booking the last one: a photo that a correction took away is not shown,
and neither is one whose record a court order bars (G5).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from connectors.outcomes import ends_of, read_range
from schemas.codec import NO_REGISTRY, decode_for
from schemas.errors import ContractError
from schemas.events import BookingOutcome, BookingProcessed, BookingRecorded
from schemas.keys import booking_key, partition_of
from schemas.topics import BOOKING_EVENTS, BOOKING_OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from uuid import UUID

    from connectors.kafka_log import KafkaLog
    from schemas.avro_schemas import SchemaVersion
    from schemas.events import Candidate, Capture

_TAKEN = frozenset({BookingOutcome.ENROLLED, BookingOutcome.NOT_ENROLLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedCapture:
    """What is there of one candidate now."""

    is_withdrawn: bool
    """Whether a court order bars the record."""
    capture: Capture | None
    """The photo; None where the booking has it no longer, or never had one."""


def listed_captures(
    log: KafkaLog, candidates: Collection[Candidate], registry: Mapping[int, SchemaVersion] = NO_REGISTRY
) -> dict[UUID, ListedCapture]:
    """Return, by capture id, what is there of each candidate now.

    Raises:
        TransientError: Kafka does not answer.
    """
    answers = _answers(log, {booking_key(each.ori, each.booking_number) for each in candidates}, registry)
    found = {}
    for each in candidates:
        of_booking = answers[booking_key(each.ori, each.booking_number)]
        is_withdrawn = _is_withdrawn(of_booking)
        capture = None if is_withdrawn else _capture(log, of_booking, each.capture_id, registry)
        found[each.capture_id] = ListedCapture(is_withdrawn=is_withdrawn, capture=capture)
    return found


def _answers(
    log: KafkaLog, bookings: Collection[str], registry: Mapping[int, SchemaVersion]
) -> defaultdict[str, list[BookingProcessed]]:
    wanted = {booking.encode() for booking in bookings}
    answers: defaultdict[str, list[BookingProcessed]] = defaultdict(list)
    if not wanted:
        return answers
    ends = ends_of(log, BOOKING_OUTCOMES)
    for partition in sorted({partition_of(BOOKING_OUTCOMES, key) for key in wanted}):
        for record in read_range(log, BOOKING_OUTCOMES, partition, ends[partition]):
            if record.key not in wanted:
                continue
            try:
                answer = decode_for(BOOKING_OUTCOMES, record.value, registry=registry)
            except ContractError:
                continue  # No answer of a worker, whoever wrote it; the sink keeps it as evidence.
            if isinstance(answer, BookingProcessed):
                answers[booking_key(answer.ori, answer.booking_number)].append(answer)
    return answers


def _is_withdrawn(answers: Iterable[BookingProcessed]) -> bool:
    """Tell whether an order bars the record: one that no later unseal lifted."""
    orders = [each for each in answers if each.outcome in {BookingOutcome.WITHDRAWN, BookingOutcome.ORDER_LIFTED}]
    last = max(orders, key=lambda each: each.source.offset, default=None)
    return last is not None and last.outcome is BookingOutcome.WITHDRAWN


def _capture(
    log: KafkaLog, answers: Sequence[BookingProcessed], capture_id: UUID, registry: Mapping[int, SchemaVersion]
) -> Capture | None:
    taken = [each for each in answers if each.outcome in _TAKEN]
    last = max(taken, key=lambda each: each.source.offset, default=None)
    if last is None or all(each.capture_id != capture_id for each in last.captures):
        return None
    record = log.record_at(BOOKING_EVENTS, last.source.partition, last.source.offset)
    booking = decode_for(BOOKING_EVENTS, record.value, registry=registry)
    if not isinstance(booking, BookingRecorded):
        return None
    return next((each for each in booking.captures if each.capture_id == capture_id), None)
