"""Builds a gallery generation for another model pack: what counts for each booking is extracted anew.

It reads the topic of the running generation for what counts for each booking, and writes to the topic of the new one.
An enrolled booking is read again from the booking topic and its photos are extracted by the new pack; a withdrawal is
said again. Each record keeps the offset of the booking event that it comes from, so that whatever workers write beside
it meanwhile, the newest counts (G5). What is there already is not made again: it can be stopped and started.
"""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, cast

from processors import enrolment, orders
from processors.gallery import GalleryLedger, newer_in
from processors.refusals import Refusal, RefusalCode
from schemas.codec import decode_for
from schemas.errors import ContractError, DomainFault, IntegrityError, TransientError
from schemas.events import BookingRecorded, RecordOrderReceived, TemplatesEnrolled, WithdrawalCause
from schemas.keys import booking_key, booking_scope
from schemas.positions import SourcePosition
from schemas.topics import BOOKING_EVENTS, GALLERY, spec_of
from streams.bookings import STORED_IMAGE_CODES
from streams.guard import safe_text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from uuid import UUID

    from processors.extraction import Extraction
    from processors.gallery import Entry
    from processors.policy import Policy
    from schemas.events import Event, TemplatesWithdrawn
    from streams.ports import Attempts, Clock, Extractor, Log, Objects

    GalleryRecord = TemplatesEnrolled | TemplatesWithdrawn

AHEAD = 4
"""Bookings under way for each thread: enough to keep it busy, few enough to hold in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildParts:
    """What a rebuild works with."""

    kafka: Log
    objects: Objects
    extractor: Extractor
    attempts: Attempts
    policy: Policy
    clock: Clock
    send: Callable[[str, GalleryRecord], None]
    """Topic, record: sends it and returns when the broker has acknowledged it."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of the bookings that were missing."""

    enrolled: int = 0
    not_enrolled: int = 0
    """The new pack found no usable photo."""
    withdrawn: int = 0

    @property
    def done(self) -> int:
        """How many bookings were made anew."""
        return self.enrolled + self.not_enrolled + self.withdrawn

    def add(self, other: Tally) -> None:
        """Count another round."""
        self.enrolled += other.enrolled
        self.not_enrolled += other.not_enrolled
        self.withdrawn += other.withdrawn


class LedgerReader:
    """Reads the topic of a generation for what counts for each booking; asks for more each time.

    Args:
        kafka: where to read.
        topic: of the generation.
    """

    def __init__(self, kafka: Log, topic: str) -> None:
        self._kafka = kafka
        self._topic = topic
        self._read = dict.fromkeys(range(spec_of(topic).partitions), 0)
        self._ledger = GalleryLedger()

    def catch_up(self) -> GalleryLedger:
        """Return the ledger as of now.

        Raises:
            TransientError: Kafka does not deliver.
        """
        for (_, partition), end in self._kafka.end_offsets([self._topic]).items():
            for record in self._kafka.read(self._topic, partition, self._read[partition], end):
                try:
                    event = cast("GalleryRecord", decode_for(GALLERY, record.value))
                except ContractError:
                    continue  # No worker applies it either.
                self._ledger.judge(event, record.position)
            self._read[partition] = max(end, self._read[partition])
        return self._ledger


class Rebuild:
    """One generation made from another.

    Args:
        source: topic of the generation that runs.
        target: topic of the generation to build.
        model_digest: digest of its pack.
        parts: what it works with.
        threads: how many photos to extract at once.
    """

    def __init__(self, source: str, target: str, model_digest: str, parts: RebuildParts, *, threads: int) -> None:
        self._source = LedgerReader(parts.kafka, source)
        self._target = LedgerReader(parts.kafka, target)
        self._from_topic = source
        self._topic = target
        self._model_digest = model_digest
        self._parts = parts
        self._threads = threads

    def missing(self) -> dict[str, Entry]:
        """Return, by booking, what counts in the source and has not come into the target.

        Raises:
            TransientError: Kafka does not deliver.
        """
        return newer_in(self._source.catch_up(), self._target.catch_up())

    def run(self, missing: dict[str, Entry], on_done: Callable[[Tally], None]) -> Tally:
        """Make what is missing; tell after each booking how far it is.

        Raises:
            TransientError: Kafka or the object store is away; what was made stands, run it again.
        """
        tally = Tally()
        work = iter(missing.items())
        with ThreadPoolExecutor(self._threads, thread_name_prefix="rebuild") as pool:
            under_way = {pool.submit(self._make, *each) for each in islice(work, AHEAD * self._threads)}
            try:
                while under_way:
                    finished, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    under_way |= {pool.submit(self._make, *each) for each in islice(work, len(finished))}
                    for record in _results(finished):
                        self._parts.send(self._topic, record)
                        _count(tally, record)
                        on_done(tally)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return tally

    def _make(self, key: str, entry: Entry) -> GalleryRecord:
        ori, _, booking_number = key.partition("/")
        at = self._parts.clock()
        if entry.withdrawn not in (None, WithdrawalCause.NO_USABLE_CAPTURE):
            again = orders.withdrawal_again(ori, booking_number, entry, at, self._booking_offset(entry))
            return cast("TemplatesWithdrawn", again)
        event, offset = self._event_at(entry, entry.source_offset), None
        if isinstance(event, RecordOrderReceived):
            # An unseal enrolled it again; its photos are those of an earlier event.
            offset = self._booking_offset(entry)
            event = None if offset is None else self._event_at(entry, offset)
        if not isinstance(event, BookingRecorded) or booking_key(event.ori, event.booking_number) != key:
            # Nothing to extract from, such as synthetic templates of a demo; so this generation has nothing of it.
            nothing = replace(entry, withdrawn=WithdrawalCause.NO_USABLE_CAPTURE)
            return cast("TemplatesWithdrawn", orders.withdrawal_again(ori, booking_number, nothing, at))
        record, _ = enrolment.enrol(
            event,
            _source_of(entry),
            self._extractions(event, entry),
            counting=entry,
            policy=self._parts.policy,
            model_digest=self._model_digest,
            at=at,
        )
        return replace(record, source_said_at=entry.said_at, booking_offset=offset)

    def _booking_offset(self, entry: Entry) -> int | None:
        """Return where the BookingRecorded stands that the counting record of the source names, if it names one."""
        try:
            said = decode_for(GALLERY, self._parts.kafka.record_at(self._from_topic, *entry.position).value)
        except (IntegrityError, ContractError):
            return None
        return cast("GalleryRecord", said).booking_offset

    def _event_at(self, entry: Entry, offset: int) -> Event | None:
        """Return the booking event at an offset in the partition of a booking, if Kafka has it."""
        try:
            record = self._parts.kafka.record_at(BOOKING_EVENTS, _source_of(entry).partition, offset)
            return decode_for(BOOKING_EVENTS, record.value)
        except (IntegrityError, ContractError):
            return None

    def _extractions(self, booking: BookingRecorded, entry: Entry) -> dict[UUID, Extraction]:
        scope = booking_scope(booking.ori, booking.booking_number)
        found: dict[UUID, Extraction] = {}
        for number, capture in enumerate(enrolment.captures_to_extract(booking, self._parts.policy)):
            try:
                photo = self._parts.objects.get(capture.reference, capture.sha256, scope=scope)
                with self._parts.attempts.attempt(_source_of(entry), number):
                    found[capture.capture_id] = self._parts.extractor.extract(photo)
            except DomainFault as fault:
                is_stored = fault.code in STORED_IMAGE_CODES
                found[capture.capture_id] = (
                    Refusal(code=RefusalCode(fault.code), message=str(fault))
                    if is_stored
                    else enrolment.failed(str(fault))
                )
            except (TransientError, IntegrityError):
                raise
            except Exception as error:  # noqa: BLE001 - one photo must not end the build
                found[capture.capture_id] = enrolment.failed(safe_text_of(error))
        return found


def _source_of(entry: Entry) -> SourcePosition:
    # A booking's events and its gallery records share a key, and so the number of their partition.
    return SourcePosition(topic=BOOKING_EVENTS, partition=entry.position[0], offset=entry.source_offset)


def _results(finished: set[Future[GalleryRecord]]) -> Iterator[GalleryRecord]:
    for future in finished:
        yield future.result()


def _count(tally: Tally, record: GalleryRecord) -> None:
    if isinstance(record, TemplatesEnrolled):
        tally.enrolled += 1
    elif record.cause is WithdrawalCause.NO_USABLE_CAPTURE:
        tally.not_enrolled += 1
    else:
        tally.withdrawn += 1
