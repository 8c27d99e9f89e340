"""Agent `bookings`: a booking becomes searchable, a court order takes it out again.

Several events are handled at once, those of one booking one after the other: the barrier before a decision shows what
was decided, and published, for every earlier event of the same booking (G5).
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import structlog

from processors import enrolment
from processors.refusals import Refusal, RefusalCode
from schemas.codec import decode_for
from schemas.errors import ContractError, DomainFault, IntegrityError, TransientError
from schemas.events import BookingRecorded, OrderKind, RecordOrderReceived
from schemas.keys import booking_key, booking_scope
from schemas.topics import BOOKING_EVENTS
from streams.guard import safe_text_of
from streams.replica import until_reached

if TYPE_CHECKING:
    from collections.abc import Iterator

    from processors.extraction import Extraction
    from processors.gallery import Entry
    from processors.policy import Policy
    from schemas.events import BookingProcessed, Capture, TemplatesEnrolled, TemplatesWithdrawn
    from schemas.positions import SourcePosition
    from schemas.records import LogRecord
    from streams.context import Context
    from streams.generation import Generation
    from streams.ports import Extractor

STAGE = "bookings"
GATHER_S = 0.1
"""For how long records wait to be sent with those of other bookings, while many are under way."""
SHOWN_CHARACTERS = 80
STORED_IMAGE_CODES = frozenset({"REFERENCE_UNRESOLVED", "DIGEST_MISMATCH", "KEY_DESTROYED", "OBJECT_TOO_LARGE"})
"""Codes by which the object store says that an image cannot be had; the sender's to mend, so a refusal."""

log = structlog.get_logger()


class Gate:
    """Lets those who come within a moment go on together, while so many are under way that nobody waits for it.

    A request to Kafka costs worker and broker nearly the same with one record in it as with ten.

    Args:
        many: how many under way are many.
    """

    def __init__(self, many: int) -> None:
        self._many = many
        self._under_way = 0
        self._opens: asyncio.Future[None] | None = None

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Count as one that is under way."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def passed(self) -> None:
        """Wait for others, if many are under way."""
        if self._under_way < self._many:
            return
        if self._opens is None:
            loop = asyncio.get_running_loop()
            self._opens = loop.create_future()
            loop.call_later(GATHER_S, self._open)
        # One that is cancelled must not close it for the others.
        await asyncio.shield(self._opens)

    def _open(self) -> None:
        if self._opens is not None:
            self._opens.set_result(None)
            self._opens = None


class Bookings:
    """What the agent does with one record."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._gate = Gate(context.many_bookings)
        # Few wait for a thread, so that a probe does not wait behind a queue of bookings.
        self._extracting = asyncio.Semaphore(context.captures_at_once)

    async def handle(self, record: LogRecord) -> None:
        """Decide one booking event: first the gallery record, then the answer that acknowledges it (G5)."""
        with self._gate.under_way():
            await self._decide(record)

    async def _decide(self, record: LogRecord) -> None:
        event = cast("BookingRecorded | RecordOrderReceived", decode_for(BOOKING_EVENTS, record.value))
        # The barrier makes the directory current, and shows every order that was obeyed for this booking by whomever.
        await until_reached(self._context.replica, self._context.barrier_limit_s)
        key = booking_key(event.ori, event.booking_number)
        ledger = self._context.replica.active.ledger
        if ledger.is_superseded(key, record.offset):
            # A partition is worked through in order, so what came later was decided after this and its answer.
            log.info("booking event repeated after a later one", booking=key, position=str(record.position))
            return
        counting, barred_by = ledger.entry(key), ledger.barred_by(key)
        policy = self._context.policy_at(self._context.clock())
        refusal = (
            self._context.replica.directory.refusal_of(record, event)
            or enrolment.refusal_of_booking(event)
            or enrolment.refusal_of_time(event, counting, self._context.clock())
        )
        if refusal is not None:
            refused = enrolment.refuse(event, record.position, refusal, self._context.clock())
            await self._answer(record, refused, policy)
        elif isinstance(event, RecordOrderReceived):
            withdrawal, answer = enrolment.obey(event, record.position, counting, self._context.clock())
            if withdrawal is None and counting is not None and counting.source_offset == record.offset:
                # Obeyed before by a worker that died: perhaps not yet in every generation.
                withdrawal = enrolment.withdrawal_again(
                    event.ori, event.booking_number, counting, self._context.clock()
                )
            if withdrawal is not None:
                # Out of every generation before the answer: no switch may bring it back (G5).
                for generation in self._context.replica.kept:
                    await self._context.publish(withdrawal, topic=generation.topic)
                self._context.telemetry.obeyed(self._context.age_s(record))
            if event.order is OrderKind.EXPUNGE:
                scope = booking_scope(event.ori, event.booking_number)
                await asyncio.to_thread(self._context.objects.destroy_key, scope)
            await self._answer(record, answer, policy)
        elif barred_by is not None:
            barred = enrolment.refusal_of_barred(barred_by)
            refused = enrolment.refuse(event, record.position, barred, self._context.clock())
            await self._answer(record, refused, policy)
        else:
            await self._enrol(event, record, counting, policy)

    async def give_up(self, record: LogRecord, reason: str) -> None:
        """Answer an event that became a dead letter, if it says which booking it is about."""
        try:
            event = cast("BookingRecorded | RecordOrderReceived", decode_for(BOOKING_EVENTS, record.value))
        except ContractError:
            return
        now = self._context.clock()
        failed = enrolment.refuse(event, record.position, enrolment.failed(reason), now)
        await self._answer(record, failed, self._context.policy_at(now))

    async def _enrol(self, booking: BookingRecorded, record: LogRecord, counting: Entry | None, policy: Policy) -> None:
        """Enrol a booking in every generation; the answer is that of the active one."""
        active = self._context.replica.active
        gallery_record, answer = await self._extract(active, booking, record, counting, policy)
        await self._gate.passed()
        await self._context.publish(gallery_record, topic=active.topic)
        for generation in self._context.replica.kept:
            if generation is not active:
                gallery_record, _ = await self._extract(generation, booking, record, counting, policy, is_active=False)
                await self._context.publish(gallery_record, topic=generation.topic)
        await self._answer(record, answer, policy)

    async def _extract(
        self,
        generation: Generation,
        booking: BookingRecorded,
        record: LogRecord,
        counting: Entry | None,
        policy: Policy,
        *,
        is_active: bool = True,
    ) -> tuple[TemplatesEnrolled | TemplatesWithdrawn, BookingProcessed]:
        context = self._context
        scope = booking_scope(booking.ori, booking.booking_number)
        captures = enrolment.captures_to_extract(booking, policy)
        # The same photo in another generation is another attempt.
        first = len(captures) * list(context.replica.generations).index(generation.topic)

        async def extract(number: int, capture: Capture) -> Extraction:
            image = StoredImage(reference=capture.reference, sha256=capture.sha256, scope=scope)
            async with self._extracting:
                return await extract_stored(context, generation.extractor, image, (record.position, first + number))

        found = await asyncio.gather(
            *(extract(number, capture) for number, capture in enumerate(captures)),
            # None is under way any more when the booking is tried again: no image is worked on twice at a time.
            return_exceptions=True,
        )
        errors = [each for each in found if isinstance(each, BaseException)]
        # What makes the worker wait or stop goes before what sets the booking aside.
        for error in sorted(errors, key=_sets_aside):
            if is_active or not _sets_aside(error):
                raise error
        extractions = {
            # What only the other generation's pack cannot do must not keep a booking out of this one.
            capture.capture_id: enrolment.failed(safe_text_of(each)) if isinstance(each, BaseException) else each
            for capture, each in zip(captures, found, strict=True)
        }
        return enrolment.enrol(
            booking,
            record.position,
            extractions,
            counting=counting,
            policy=policy,
            model_digest=generation.model_digest,
            at=context.clock(),
        )

    async def _answer(self, record: LogRecord, answer: BookingProcessed, policy: Policy) -> None:
        await self._context.publish(replace(answer, policy_version=policy.version))
        self._context.telemetry.decided(STAGE, answer.outcome, answer.code or "", self._context.age_s(record))
        log.info(
            "booking event decided",
            # Before anybody believes it, it may be of any length.
            booking=booking_key(answer.ori, answer.booking_number)[:SHOWN_CHARACTERS],
            event_id=str(answer.source_event_id),
            position=str(record.position),
            outcome=str(answer.outcome),
            code=answer.code,
        )


def _sets_aside(error: BaseException) -> bool:
    """Tell whether an error is about the image; the others say that the worker waits, stops or is cancelled."""
    return isinstance(error, Exception) and not isinstance(error, (TransientError, IntegrityError))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image in the object store, as its sender describes it."""

    reference: str
    sha256: str
    scope: str
    """What the reference must belong to."""


async def extract_stored(
    context: Context, extractor: Extractor, image: StoredImage, place: tuple[SourcePosition, int]
) -> Extraction:
    """Fetch an image from the object store and extract its template, off the event loop.

    Args:
        context: the way to the store.
        extractor: of the generation that the template is for.
        image: which image.
        place: the record that names the image, and which of its images it is.

    Raises:
        DomainFault: POISON, the image has crashed this worker before.
    """

    def fetch_and_extract() -> Extraction:
        try:
            photo = context.objects.get(image.reference, image.sha256, scope=image.scope)
        except DomainFault as fault:
            if fault.code not in STORED_IMAGE_CODES:
                raise
            return Refusal(code=RefusalCode(fault.code), message=str(fault))
        with context.attempts.attempt(*place):
            try:
                return extractor.extract(photo)
            except DomainFault as fault:
                raise DomainFault(fault.code, f"Image {place[1] + 1} of the record: {fault}") from None

    return await asyncio.get_running_loop().run_in_executor(context.pool, fetch_and_extract)
