"""What a worker knows: the gallery and the directory, each as of the offsets applied, and the read barrier over both.

One follower feeds both; agents on its channels call `apply_gallery` and `apply_access`. Everything here runs on the
event loop, except the search itself, reading what gallery records say, and putting that in the gallery.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import structlog

from processors.candidates import EnrolledTemplate, GalleryChange, person_of
from processors.enrolments import read_enrolments
from processors.gallery import Verdict
from processors.templates import template_from_bytes
from schemas.codec import decode_for
from schemas.errors import ContractError, IntegrityError, TransientError
from schemas.events import TemplatesEnrolled
from schemas.instants import to_micros
from schemas.keys import booking_key
from schemas.records import RecordBatch
from schemas.topics import ACCESS, GALLERY, spec_of
from streams.ports import NO_TELEMETRY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from processors.access import Directory
    from processors.enrolments import Enrolments
    from processors.gallery import GalleryLedger
    from processors.refusals import Refusal
    from schemas.events import TemplatesWithdrawn, WithdrawalCause
    from schemas.records import LogRecord
    from streams.generation import Generation
    from streams.ports import Log, Telemetry, TopicPartition

log = structlog.get_logger()

JUDGED_AT_ONCE = 1000
"""So many records are judged before the event loop turns to others."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frozen:
    """A generation at one moment."""

    generation: Generation
    state: Any
    """Of the gallery."""
    ledger: Mapping[str, bytes]
    applied: tuple[int, ...]
    """Next offset to apply, by partition."""


class Replica:
    """The state that bookings and probes are decided on.

    Args:
        generations: every gallery generation that this worker keeps; the first is searched until one is activated.
        directory: publishers and users.
        kafka: for the end offsets of the barrier.
        telemetry: told of barriers and watermarks.
    """

    def __init__(
        self,
        *,
        generations: Sequence[Generation],
        directory: Directory,
        kafka: Log,
        telemetry: Telemetry = NO_TELEMETRY,
    ) -> None:
        self.generations = {generation.topic: generation for generation in generations}
        self.directory = directory
        self.followed = (*self.generations, ACCESS)
        self.applied: dict[TopicPartition, int] = {
            (topic, partition): 0 for topic in self.followed for partition in range(spec_of(topic).partitions)
        }
        self.access_refusals: dict[int, Refusal | ContractError] = {}
        """Offset in the access topic -> why the event there changed nothing; the agent `access` reports it."""
        self._kafka = kafka
        self._telemetry = telemetry
        self._moved = asyncio.Condition()
        self._changing = asyncio.Lock()
        """Held while a record is in the ledger and not yet in the gallery, or in both and not yet counted."""
        self._asking = asyncio.Lock()
        self._next_ends: asyncio.Task[Mapping[TopicPartition, int]] | None = None

    @property
    def active(self) -> Generation:
        """The generation that is searched.

        Raises:
            IntegrityError: it is one that this worker does not keep.
        """
        activated = self.directory.active_generation
        if activated is None:
            return next(iter(self.generations.values()))
        model_digest, topic = activated
        generation = self.generations.get(topic)
        if generation is None or generation.model_digest != model_digest:
            raise IntegrityError(
                f"Gallery generation {model_digest[:12]} in {topic} is active, and this worker does not keep it: set "
                "model_card and gallery_topic, or next_model_card, and start it again.",
            )
        return generation

    @property
    def kept(self) -> list[Generation]:
        """The generations that bookings and orders go into: all but those that an administrator removed."""
        removed = self.directory.removed_generations
        return [generation for generation in self.generations.values() if generation.topic not in removed]

    def watermark(self, topic: str) -> list[int]:
        """Return the next offset to apply, by partition."""
        return [self.applied[topic, partition] for partition in range(spec_of(topic).partitions)]

    async def read_barrier(self, limit_s: float) -> bool:
        """Wait until everything that stood in the followed topics at this moment has been applied.

        Returns:
            Whether that was reached within the limit.

        Raises:
            TransientError: Kafka cannot be asked where the topics end.
            IntegrityError: a topic ends before what was applied; "everything is applied" would mean nothing.
        """
        applied = dict(self.applied)
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        try:
            async with asyncio.timeout(limit_s):
                ends = await self._ends_from_now_on()
                for (topic, partition), end in ends.items():
                    if end < applied[topic, partition]:
                        raise IntegrityError(
                            f"{topic}/{partition} ends at {end}, but {applied[topic, partition]} was applied: Kafka "
                            "lost records or the topic was made anew. Find out which, then start the worker again.",
                        )
                await self.reached(ends)
        except TimeoutError:
            self._telemetry.barrier(loop.time() - began_at, reached=False)
            return False
        self._telemetry.barrier(loop.time() - began_at, reached=True)
        return True

    async def _ends_from_now_on(self) -> Mapping[TopicPartition, int]:
        """Return where the topics end, asked after this call; all who call while another asks share the next answer."""
        if self._next_ends is None:
            self._next_ends = asyncio.create_task(self._ask_for_ends())
            # Whoever asked may have given up; an answer that nobody takes is no fault.
            self._next_ends.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
        # One that gives up must not take the answer from the others.
        return await asyncio.shield(self._next_ends)

    async def _ask_for_ends(self) -> Mapping[TopicPartition, int]:
        async with self._asking:
            self._next_ends = None
            return await asyncio.to_thread(self._kafka.end_offsets, self.followed)

    async def record_at(self, topic: str, partition: int, offset: int) -> LogRecord:
        """Return one record of Kafka.

        Raises:
            TransientError: it did not come in time.
            IntegrityError: it is not there any more.
        """
        return await asyncio.to_thread(self._kafka.record_at, topic, partition, offset)

    async def reached(self, targets: Mapping[TopicPartition, int]) -> None:
        """Wait until the offsets before these have been applied."""
        async with self._moved:
            await self._moved.wait_for(lambda: all(self.applied[tp] >= offset for tp, offset in targets.items()))

    async def freeze(self, generation: Generation) -> Frozen:
        """Return a generation as it is between two changes."""
        async with self._changing:
            return Frozen(
                generation=generation,
                state=generation.gallery.state,
                ledger=generation.ledger.dump(),
                applied=tuple(self.watermark(generation.topic)),
            )

    def begin_at(self, generation: Generation, ledger: GalleryLedger, applied: Sequence[int]) -> None:
        """Begin with what a snapshot knew; the gallery of the generation holds it already."""
        generation.ledger = ledger
        self.applied.update({(generation.topic, partition): offset for partition, offset in enumerate(applied)})
        self._telemetry.applied(generation.topic, dict(enumerate(applied)))

    async def apply_gallery(self, topic: str, records: Sequence[LogRecord]) -> None:
        """Apply records of the topic of a generation, in the order of their partitions."""
        generation, batch = self.generations[topic], RecordBatch.of(records)
        async with self._changing:
            usual, others = await asyncio.to_thread(_read, generation, batch)
            # On the event loop, where decisions look into the ledger.
            counts = np.ones(len(usual), dtype=np.bool_)
            for start in range(0, len(usual), JUDGED_AT_ONCE):
                part = slice(start, start + JUDGED_AT_ONCE)
                counts[part] = _count_part(generation, usual, batch, part)
                await asyncio.sleep(0)
            changes = []
            for done, said in enumerate(others, start=1):
                if _counts(generation, said):
                    changes.append(said.change)
                if done % JUDGED_AT_ONCE == 0:
                    await asyncio.sleep(0)
            counting = await asyncio.to_thread(usual.only, counts)
            await asyncio.to_thread(generation.gallery.apply, changes, batch.ends, counting.rows)
            await self._advance(topic, batch.ends)

    async def apply_access(self, records: Sequence[LogRecord]) -> None:
        """Fold records of the access topic; what may not be said changes nothing and is remembered for reporting."""
        for record in records:
            try:
                outcome: Refusal | ContractError | None = self.directory.apply(record, decode_for(ACCESS, record.value))
            except ContractError as error:
                outcome = error
            if outcome is not None:
                self.access_refusals[record.offset] = outcome
        await self._advance(ACCESS, {record.partition: record.offset + 1 for record in records})

    async def pass_over(self, ends: Mapping[TopicPartition, int]) -> None:
        """Count as applied what is no record: the end of a transaction has an offset, which nothing would ever reach.

        Args:
            ends: offsets, every record before which has been applied.
        """
        for topic in self.followed:
            ahead = {
                partition: end
                for (name, partition), end in ends.items()
                if name == topic and end > self.applied[name, partition]
            }
            async with self._changing:
                if ahead and topic in self.generations:
                    await asyncio.to_thread(self.generations[topic].gallery.apply, (), ahead)
                if ahead:
                    await self._advance(topic, ahead)

    def forget_access_refusals(self, before: int) -> None:
        """Let go of what has been reported: the agent `access` works through its topic in order."""
        for offset in [offset for offset in self.access_refusals if offset < before]:
            del self.access_refusals[offset]

    async def _advance(self, topic: str, ends: Mapping[int, int]) -> None:
        # Before anything is awaited: a decision in between must not name an older watermark than the state it saw.
        self.applied.update({(topic, partition): offset for partition, offset in ends.items()})
        self._telemetry.applied(topic, ends)
        async with self._moved:
            self._moved.notify_all()


async def until_reached(replica: Replica, limit_s: float) -> None:
    """Wait at the read barrier for a decision that can wait.

    Raises:
        TransientError: not reached within the limit; ask again.
    """
    if not await replica.read_barrier(limit_s):
        raise TransientError(f"The replica did not catch up within {limit_s:g} s.")


class _Said(NamedTuple):
    """What a gallery record says that is read by itself."""

    position: tuple[int, int]
    source_offset: int
    said_at_us: int
    withdrawn: WithdrawalCause | None
    change: GalleryChange
    fault: str | None
    """Why its templates cannot be searched."""


def _counts(generation: Generation, said: _Said) -> bool:
    """Take note of what a record says and tell whether it changes the gallery."""
    verdict = generation.ledger.judge_as(
        said.change.booking,
        source_offset=said.source_offset,
        position=said.position,
        withdrawn=said.withdrawn,
        said_at_us=said.said_at_us,
    )
    if verdict is Verdict.LATE:
        return False
    if said.fault is not None:
        # It counts all the same: what it replaces may not stay searchable here and be gone after compaction (G7).
        partition, offset = said.position
        log.error(
            "templates cannot be searched", position=f"{generation.topic}/{partition}/{offset}", reason=said.fault
        )
    return True


def _count_part(generation: Generation, usual: Enrolments, batch: RecordBatch, part: slice) -> NDArray[np.bool_]:
    """Take note of what some usual enrolments say and tell which of them change the gallery."""
    records = usual.records[part]
    return generation.ledger.judge_all(
        usual.rows.bookings[part],
        usual.rows.hashes[part],
        source_offsets=usual.source_offsets[part],
        partitions=np.array([batch.partitions[number] for number in records.tolist()], dtype=np.int64),
        offsets=np.array([batch.offsets[number] for number in records.tolist()], dtype=np.int64),
        said_at_us=usual.said_at_us[part],
    )


def _read(generation: Generation, batch: RecordBatch) -> tuple[Enrolments, list[_Said]]:
    """Return what records say: usual enrolments as columns, and the others in their order.

    All records of a booking are among the one or the other. Those that say nothing are left out, and that is said in
    the log.
    """
    usual = read_enrolments(batch.values, model_digest=generation.model_digest, dimension=generation.dimension)
    unusual = np.ones(len(batch), dtype=np.bool_)
    unusual[usual.records] = False
    said = {number: _read_by_itself(generation, batch[number]) for number in np.flatnonzero(unusual).tolist()}
    alone = usual.of_their_own({each.change.booking.encode() for each in said.values() if each is not None})
    for number in usual.records[~alone].tolist():
        said[number] = _read_by_itself(generation, batch[number])
    return usual.only(alone), [each for _, each in sorted(said.items()) if each is not None]


def _read_by_itself(generation: Generation, record: LogRecord) -> _Said | None:
    """Return what a record says that is not a usual enrolment."""
    try:
        event = cast("TemplatesEnrolled | TemplatesWithdrawn", decode_for(GALLERY, record.value))
    except ContractError as error:
        # Only workers write here, so this is a fault of ours or an intruder's; the sink keeps it as evidence.
        log.error("gallery record ignored", position=str(record.position), reason=str(error))
        return None
    templates: tuple[EnrolledTemplate, ...] = ()
    fault: str | None = None
    try:
        templates = _templates(generation, event) if isinstance(event, TemplatesEnrolled) else ()
    except ContractError as error:
        fault = str(error)
    return _Said(
        (record.partition, record.offset),
        event.source.offset,
        to_micros(event.source_said_at),
        None if isinstance(event, TemplatesEnrolled) else event.cause,
        GalleryChange(booking=booking_key(event.ori, event.booking_number), templates=templates),
        fault,
    )


def _templates(generation: Generation, event: TemplatesEnrolled) -> tuple[EnrolledTemplate, ...]:
    if event.model_digest != generation.model_digest:
        raise ContractError(
            f"The templates are of model {event.model_digest[:12]}, the gallery of "
            f"{generation.model_digest[:12]}; start a new gallery generation.",
        )
    person = person_of(event.sid, booking_key(event.ori, event.booking_number))
    return tuple(
        EnrolledTemplate(
            person=person,
            ori=event.ori,
            booking_number=event.booking_number,
            capture_id=capture.capture_id,
            synthetic=event.synthetic,
            template=template_from_bytes(capture.template, dimension=generation.dimension),
            quality=capture.quality,
        )
        for capture in event.captures
    )
