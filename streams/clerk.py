"""The clerk: reads what examiners, courts and receivers of lists are concerned with, and writes what is due (ADR 13).

    access, orders and their answers, lists, reviews, notices
        -> processors/casebook.py -> review.outcomes.v1, notices.v1

One thread, no consumer group, nothing kept: the state is folded from the beginning of the topics, and what the clerk
wrote counts once it was read back. Before it decides anything it asks where the topics end and applies everything up to
there, so a revocation or a court order is honoured by what is decided after it (G3, G6, G8); and so is what the clerk
wrote itself, which therefore is not due again.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from processors.casebook import ACTOR, FOLLOWED, PROBE_IMAGE, REVIEW_SHEETS
from processors.dead_letters import letter_id, letter_of, original_of
from schemas.codec import encode
from schemas.errors import DomainFault, TransientError
from schemas.events import RetainedDataDestroyed, SealedRecordNotice
from schemas.keys import probe_scope
from schemas.topics import TOPICS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from threading import Event as Flag
    from uuid import UUID

    from processors.access import RetentionRequest
    from processors.casebook import CaseBook, Unanswerable
    from schemas.events import DeadLetter, Event
    from streams.ports import Clock, Objects, RecordLog, TopicPartition

GROUP = "leadstream-clerk"
"""Names the client to the broker; the clerk joins no group and commits nothing."""
STAGE = "clerk"
READ_S = 0.2
WRITTEN_AT_ONCE = 500
LOOK_EVERY_S = 1.0
"""How often it is asked what has become due by the clock alone."""
RETENTION_EVERY_S = 3600.0
RETRY_AFTER_S = 0.5
WARN_EVERY_S = 30.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClerkProgress:
    """How far the clerk is, for logs and metrics."""

    written: int
    """Events written since the start."""
    lag_records: int | None
    """Offsets that Kafka had at the last look and that are not applied; None until it has looked."""
    waiting_for: str
    """What is away, in words; empty while all goes well."""
    turned_at: float
    """When it last began to do something, by its own clock."""


class Clerk:
    """Folds and writes; `run` it in a thread or process of its own.

    Args:
        log_reader: Kafka, for reading.
        end_offsets: topics -> where their partitions end, asked of Kafka; raises TransientError.
        publish: sends events and returns when the broker has acknowledged all of them; raises TransientError.
        objects: where probe images and the originals of dead letters are.
        destroy_sheets: deletes the sheets of some reviews, where they are on this machine.
        casebook: the state, empty.
        clock: the time.
        monotonic: seconds that only ever rise.
    """

    def __init__(
        self,
        *,
        log_reader: RecordLog,
        end_offsets: Callable[[Collection[str]], Mapping[TopicPartition, int]],
        publish: Callable[[Sequence[Event]], None],
        objects: Objects,
        destroy_sheets: Callable[[Collection[UUID]], None],
        casebook: CaseBook,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log_reader = log_reader
        self._end_offsets = end_offsets
        self._publish = publish
        self._objects = objects
        self._destroy_sheets = destroy_sheets
        self._casebook = casebook
        self._clock = clock
        self._monotonic = monotonic
        self._applied: dict[TopicPartition, int] = {}
        self._written = 0
        self._has_news = True
        self._ends: Mapping[TopicPartition, int] | None = None
        """Up to where everything has to be applied before the next decision; None while none is wanted."""
        self._looked_at = self._retention_at = -math.inf
        self._retention_met: RetentionRequest | None = None
        """The last request for deletion that was met."""
        self._lag: int | None = None
        self._waiting_for = ""
        self._warned_at: float | None = None
        self._turned_at = monotonic()

    @property
    def progress(self) -> ClerkProgress:
        """How far it is; may be asked from another thread."""
        return ClerkProgress(
            written=self._written, lag_records=self._lag, waiting_for=self._waiting_for, turned_at=self._turned_at
        )

    def run(self, stop: Flag) -> None:
        """Work until stopped.

        Raises:
            IntegrityError: Kafka lost records.
        """
        places = [(topic, partition) for topic in FOLLOWED for partition in range(TOPICS[topic].partitions)]
        self._applied = dict.fromkeys(places, 0)
        self._log_reader.start(self._applied)
        while not stop.is_set():
            self._turned_at = self._monotonic()
            try:
                self._turn()
            except TransientError as error:
                self._say_waiting(str(error))
                stop.wait(RETRY_AFTER_S)
            else:
                if self._waiting_for:
                    log.info("clerk goes on")
                self._waiting_for, self._warned_at = "", None

    def _turn(self) -> None:
        for record in self._log_reader.read(READ_S):
            self._casebook.apply(record)
            self._applied[record.topic, record.partition] = record.offset + 1
            self._has_news = True
        for place, end in self._log_reader.passed().items():
            self._applied[place] = max(self._applied[place], end)
        due_to_look = self._monotonic() - self._looked_at >= LOOK_EVERY_S
        if self._ends is None and (self._has_news or due_to_look):
            self._ends = self._end_offsets(FOLLOWED)
            self._looked_at, self._has_news = self._monotonic(), False
        # What comes after the question is not waited for: there may always be something more.
        if self._ends is not None:
            self._lag = sum(max(0, end - self._applied[place]) for place, end in self._ends.items())
            if self._lag == 0:
                self._ends = None
                self._write_due()

    def _write_due(self) -> None:
        self._write([self._letter(each) for each in self._casebook.unanswerable.values()])
        self._write(self._casebook.due(self._clock()))
        self._write_retention()

    def _write_retention(self) -> None:
        """Delete what is due, now and then or when an administrator asks for it."""
        requests = self._casebook.directory.retention_requests
        asked = requests[-1] if requests and requests[-1] != self._retention_met else None
        if asked is None and self._monotonic() - self._retention_at < RETENTION_EVERY_S:
            return
        due = list(self._casebook.due_by_retention(self._clock(), asked))
        self._write(due)
        self._retention_at, self._retention_met = self._monotonic(), asked or self._retention_met
        log.info("retention", destroyed=len(due), requested_by=asked.user_id if asked else None)

    def _write(self, events: Sequence[Event]) -> None:
        """Delete what is to be deleted, then say so: after a kill in between it is deleted again, and then said."""
        for start in range(0, len(events), WRITTEN_AT_ONCE):
            part = events[start : start + WRITTEN_AT_ONCE]
            self._turned_at = self._monotonic()
            for event in part:
                self._delete(event)
            self._publish(part)
            self._written += len(part)
        if events:
            log.info("written", **Counter(type(event).__name__ for event in events))

    def _delete(self, event: Event) -> None:
        """Delete what an event says is deleted, and the sheets that show what a court has sealed."""
        if isinstance(event, RetainedDataDestroyed):
            if PROBE_IMAGE in event.items:
                self._objects.destroy_key(probe_scope(event.probe_id))
            if REVIEW_SHEETS in event.items:
                self._destroy_sheets(self._reviews_of(event.probe_id))
        elif isinstance(event, SealedRecordNotice):
            try:
                self._destroy_sheets(self._reviews_of(event.probe_id))
            except TransientError as error:
                # Whoever has it is told to destroy it; that must not wait (G6).
                log.warning("sheet not deleted", reason=str(error))

    def _reviews_of(self, probe_id: UUID) -> list[UUID]:
        return [review_id for each in self._casebook.cases[probe_id].reviews.values() for review_id in each.openings]

    def _letter(self, unanswerable: Unanswerable) -> DeadLetter:
        """Keep the original bytes encrypted and return what says so (G12)."""
        record = unanswerable.record
        log.warning("dead letter", position=str(record.position), code=unanswerable.code, reason=unanswerable.reason)
        try:
            reference = self._objects.put(
                f"dead-letter/{letter_id(record)}", "original", encode(original_of(record))
            ).reference
        except DomainFault as fault:
            log.warning("original not kept", position=str(record.position), code=fault.code)
            reference = None
        return letter_of(
            record,
            actor=ACTOR,
            stage=STAGE,
            code=unanswerable.code,
            message=unanswerable.reason,
            reference=reference,
            at=self._clock(),
        )

    def _say_waiting(self, reason: str) -> None:
        now = self._monotonic()
        if self._warned_at is None or now - self._warned_at >= WARN_EVERY_S:
            log.warning("clerk waits", reason=reason)
            self._warned_at = now
        self._waiting_for = reason
