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

from processors import enrolment, orders
from processors.refusals import Refusal, RefusalCode
from schemas.codec import decode_for
from schemas.errors import ContractError, DomainFault, IntegrityError, TransientError
from schemas.events import BookingRecorded, OrderKind, RecordOrderReceived
from schemas.keys import booking_key, booking_scope, key_of
from schemas.topics import BOOKING_EVENTS, GALLERY
from streams.guard import require_its_partition, safe_text_of
from streams.replica import until_reached

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

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
        counting, barred_by = ledger.entry(key), ledger.barred_by(key)
        if ledger.is_superseded(key, record.offset) and barred_by is None:
            # A partition is worked through in order, so what came later was decided after this and its answer. Only an
            # order is obeyed ahead of its turn: what it overtook is still to be answered, again if need be.
            log.info("booking event repeated after a later one", booking=key, position=str(record.position))
            return
        policy = self._context.policy_at(self._context.clock())
        refusal = (
            self._context.replica.directory.refusal_of(record, event)
            or enrolment.refusal_of_booking(event)
            or enrolment.refusal_of_time(event, counting, self._context.clock())
            or enrolment.refusal_of_overtaken(event, record.position, counting)
        )
        if refusal is not None:
            refused = enrolment.refuse(event, record.position, refusal, self._context.clock())
            await self._answer(record, refused, policy)
        elif isinstance(event, RecordOrderReceived):
            await self._answer(record, await self._obey(event, record, counting, policy), policy)
        elif barred_by is not None:
            barred = enrolment.refusal_of_barred(barred_by)
            refused = enrolment.refuse(event, record.position, barred, self._context.clock())
            await self._answer(record, refused, policy)
        else:
            await self._enrol(event, record, counting, policy)

    async def take_over(self, partition: int, offset: int) -> None:
        """Obey a seal or an expungement ahead of its turn; the worker whose turn it is answers it, and obeys it again.

        Raises:
            ContractError: it is no order.
            DomainFault: it is one that is not obeyed.
            TransientError: the world is away.
        """
        record = await self._context.replica.record_at(BOOKING_EVENTS, partition, offset)
        order = decode_for(BOOKING_EVENTS, record.value)
        if not isinstance(order, RecordOrderReceived) or order.order is OrderKind.UNSEAL:
            raise ContractError("Only a seal or an expungement is obeyed ahead of its turn.")
        require_its_partition(record)
        await until_reached(self._context.replica, self._context.barrier_limit_s)
        ledger = self._context.replica.active.ledger
        key = booking_key(order.ori, order.booking_number)
        if ledger.has_reached(key, offset):
            return
        refusal = self._context.replica.directory.refusal_of(record, order) or enrolment.refusal_of_booking(order)
        if refusal is not None:
            raise DomainFault(refusal.code, refusal.message)
        await self._obey(order, record, ledger.entry(key), self._context.policy_at(self._context.clock()))
        log.info("order obeyed ahead of its turn", booking=key[:SHOWN_CHARACTERS], position=str(record.position))

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

    async def _obey(
        self, order: RecordOrderReceived, record: LogRecord, counting: Entry | None, policy: Policy
    ) -> BookingProcessed:
        """Obey a court order in every generation and return the answer: no switch may bring the booking back (G5)."""
        context, active = self._context, self._context.replica.active
        decision = orders.obey(
            order,
            record.position,
            counting=counting,
            booking_offset=await self._booking_offset(active, counting),
            policy=policy,
            at=context.clock(),
        )
        answer, withdrawal = decision.answer, decision.withdrawal
        if withdrawal is not None and counting is not None and counting.source_offset > record.offset:
            withdrawal = orders.overtaken(withdrawal, counting)
        booking = await self._booking_of(withdrawal) if withdrawal is not None and decision.enrols_again else None
        if withdrawal is not None:
            for generation in context.replica.kept:
                gallery_record: TemplatesEnrolled | TemplatesWithdrawn = withdrawal
                if booking is not None:
                    extractions = await self._extractions(generation, booking, record, policy, may_fail=True)
                    gallery_record, its_answer = orders.enrol_again(
                        withdrawal,
                        decision.answer,
                        booking,
                        extractions,
                        policy=policy,
                        model_digest=generation.model_digest,
                    )
                    answer = its_answer if generation is active else answer
                await context.publish(gallery_record, topic=generation.topic)
            if counting is None or counting.source_offset < record.offset:
                context.telemetry.obeyed(context.age_s(record))
        if decision.enrols_again and withdrawal is not None and booking is None:
            answer = orders.not_found_again(answer)
        if order.order is OrderKind.EXPUNGE:
            await asyncio.to_thread(context.objects.destroy_key, booking_scope(order.ori, order.booking_number))
        return answer

    async def _booking_offset(self, generation: Generation, counting: Entry | None) -> int | None:
        """Return where the BookingRecorded stands that the counting gallery record goes back to, if that is known."""
        if counting is None:
            return None
        try:
            said = await self._context.replica.record_at(generation.topic, *counting.position)
            return orders.booking_offset_of(
                cast("TemplatesEnrolled | TemplatesWithdrawn", decode_for(GALLERY, said.value))
            )
        except (IntegrityError, ContractError):
            return None

    async def _booking_of(self, lifted: TemplatesWithdrawn) -> BookingRecorded | None:
        """Return the booking that an unseal is to enrol again, if Kafka has it."""
        if lifted.booking_offset is None:
            return None
        source = lifted.source
        try:
            record = await self._context.replica.record_at(source.topic, source.partition, lifted.booking_offset)
            event = decode_for(BOOKING_EVENTS, record.value)
        except (IntegrityError, ContractError):
            return None
        is_its_own = isinstance(event, BookingRecorded) and key_of(event) == key_of(lifted)
        return cast("BookingRecorded", event) if is_its_own else None

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
        # What only the other generation's pack cannot do must not keep a booking out of this one.
        extractions = await self._extractions(generation, booking, record, policy, may_fail=not is_active)
        return enrolment.enrol(
            booking,
            record.position,
            extractions,
            counting=counting,
            policy=policy,
            model_digest=generation.model_digest,
            at=self._context.clock(),
        )

    async def _extractions(
        self,
        generation: Generation,
        booking: BookingRecorded,
        record: LogRecord,
        policy: Policy,
        *,
        may_fail: bool,
    ) -> dict[UUID, Extraction]:
        """Return what comes of each capture to extract.

        Args:
            generation: for which.
            booking: whose captures.
            record: the record that is decided.
            policy: the one in force.
            may_fail: whether an image that would set the record aside counts as refused instead.
        """
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
            if not (may_fail and _sets_aside(error)):
                raise error
        return {
            capture.capture_id: enrolment.failed(safe_text_of(each)) if isinstance(each, BaseException) else each
            for capture, each in zip(captures, found, strict=True)
        }

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
