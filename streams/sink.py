"""The audit sink: every record of every topic becomes one row of the audit trail, exactly once (G2).

The trail holds the offsets: on a start it says which record comes next, so that a kill at any instant loses nothing and
doubles nothing. Nothing stops it but wrong evidence: bytes that no schema reads become rows (G12), and while Kafka or
ClickHouse are away it waits in place. One thread, no consumer group; who may write is the trail's affair.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog

from processors.audit import row_of, start_offsets
from schemas.codec import NO_REGISTRY
from schemas.errors import IntegrityError, TransientError
from schemas.topics import TOPICS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from threading import Event

    from processors.audit import AuditRow, Tip
    from schemas.avro_schemas import SchemaVersion
    from schemas.records import LogRecord
    from streams.audit_ports import AuditLog, AuditTrail
    from streams.ports import TopicPartition

GROUP = "leadstream-audit"
"""Under which the sink tells its progress. It joins no group and resumes from the trail, never from here."""
FLUSH_AFTER_S = 0.5
FLUSH_ROWS = 10_000
FLUSH_PAYLOAD_CHARS = 32_000_000
RETRY_AFTER_S = 0.5
WARN_EVERY_S = 30.0
LOOK_EVERY_S = 5.0
TELL_EVERY_S = 1.0
TELL_AGAIN_S = 15.0
"""Said again though nothing happened: one may have been lost, and brokers forget a group that is silent for long."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkProgress:
    """How far the sink is, for logs and metrics."""

    rows: int
    """Rows appended since the start."""
    lag_records: int | None
    """Offsets that Kafka has and the trail has not, as last heard; None until the sink has found where to start."""
    waiting_for: str
    """What is away, in words; empty while all goes well."""
    turned_at: float
    """When it last began to do something, by its own clock."""


@dataclass(slots=True)
class _Batch:
    """Rows read and not yet appended."""

    rows: dict[TopicPartition, list[AuditRow]] = field(default_factory=dict)
    count: int = 0
    payload_chars: int = 0
    due_at: float = 0.0


class Sink:
    """Reads all topics and appends to the trail; `run` it in a thread or process of its own.

    Args:
        log_reader: Kafka.
        trail: the audit trail, open for appending.
        registry: schema ids of Confluent framing.
        topics: names of the topics to audit; without, those of topics.toml and of every further gallery generation.
        monotonic: seconds that only ever rise.
    """

    def __init__(
        self,
        *,
        log_reader: AuditLog,
        trail: AuditTrail,
        registry: Mapping[int, SchemaVersion] = NO_REGISTRY,
        topics: Collection[str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log_reader = log_reader
        self._trail = trail
        self._registry = registry
        self._topics = topics
        self._monotonic = monotonic
        self._reading: frozenset[str] = frozenset()
        self._looked_at = monotonic()
        self._next: dict[TopicPartition, int] = {}
        self._appended: dict[TopicPartition, int] = {}
        self._unchecked: dict[TopicPartition, Tip] = {}
        self._batch = _Batch()
        self._ends: dict[TopicPartition, int] = {}
        self._rows = 0
        self._waiting_for = ""
        self._turned_at = monotonic()
        self._warned_at: float | None = None
        self._told: dict[TopicPartition, int] = {}
        self._told_at = -math.inf

    @property
    def progress(self) -> SinkProgress:
        """How far it is; may be asked from another thread."""
        ends = self._ends
        behind = [max(0, ends[place] - offset) for place, offset in dict(self._appended).items() if place in ends]
        return SinkProgress(
            rows=self._rows,
            lag_records=sum(behind) if ends else None,
            waiting_for=self._waiting_for,
            turned_at=self._turned_at,
        )

    def run(self, stop: Event) -> None:
        """Append until stopped; on a stop, what was read is appended first.

        Raises:
            IntegrityError: Kafka and the audit trail contradict each other, or another sink writes.
        """
        self._patiently(self._find_start, stop)
        while not stop.is_set():
            self._patiently(self._read, stop)
            if self._batch.count and (self._is_full() or self._monotonic() >= self._batch.due_at):
                self._append_all(stop)
            self._tell()
            self._patiently(partial(self._begin_new_generations, stop), stop)
        self._append_all(stop)

    def _find_start(self) -> None:
        wanted = frozenset(self._wanted())
        tips = self._trail.tips()
        bounds = self._log_reader.bounds(wanted)
        starts = start_offsets(tips, bounds)
        # The last audited record is read once more: Kafka must still say what the trail says.
        self._unchecked = dict(tips)
        self._log_reader.start(
            {place: max(bounds[place].low, start - (place in tips)) for place, start in starts.items()}
        )
        # Only now: what could not be started must be looked for again.
        self._reading, self._looked_at = wanted, self._monotonic()
        self._next, self._appended = dict(starts), dict(starts)
        self._ends = {place: held.high for place, held in bounds.items()}
        log.info("audit sink starts", partitions=len(starts), resumed=len(tips))

    def _wanted(self) -> Collection[str]:
        return self._topics if self._topics is not None else (*TOPICS, *self._log_reader.generations())

    def _begin_new_generations(self, stop: Event) -> None:
        """Look now and then for gallery generations that were made meanwhile, and audit these too."""
        if self._topics is not None or self._monotonic() - self._looked_at < LOOK_EVERY_S:
            return
        if self._reading.issuperset(self._wanted()):
            self._looked_at = self._monotonic()
            return
        # As after a start: once all that was read is appended, the trail says where to go on.
        self._append_all(stop)
        self._find_start()

    def _read(self) -> None:
        wait_s = max(0.0, self._batch.due_at - self._monotonic()) if self._batch.count else FLUSH_AFTER_S
        for record in self._log_reader.read(wait_s):
            self._take(record)
        self._note_what_is_no_record()
        # Kept for whoever asks from another thread: the Kafka client lets only one thread in at a time.
        self._ends = {**self._ends, **self._log_reader.ends()}

    def _take(self, record: LogRecord) -> None:
        place = (record.topic, record.partition)
        expected = self._next[place]
        row = row_of(record, registry=self._registry)
        if record.offset < expected:
            self._check_audited(row)
            return
        self._next[place] = record.offset + 1  # Compaction leaves holes, so it may be higher than expected.
        if not self._batch.count:
            self._batch.due_at = self._monotonic() + FLUSH_AFTER_S
        self._batch.rows.setdefault(place, []).append(row)
        self._batch.count += 1
        self._batch.payload_chars += len(row.payload)

    def _check_audited(self, row: AuditRow) -> None:
        tip = self._unchecked.pop((row.topic, row.partition), None)
        if tip is None or (tip.offset, tip.wire_sha256) != (row.offset, row.wire_sha256):
            raise IntegrityError(
                f"Kafka has another record at {row.topic}/{row.partition}/{row.offset} than the audit trail: "
                "it was changed or replaced. Do not go on before you know which is right.",
            )

    def _tell(self) -> None:
        """Let the workers know how far the trail is; they stop searching when it falls behind."""
        since = self._monotonic() - self._told_at
        if since >= (TELL_EVERY_S if self._told != self._appended else TELL_AGAIN_S):
            self._log_reader.tell(self._appended)
            self._told, self._told_at = dict(self._appended), self._monotonic()

    def _is_full(self) -> bool:
        return self._batch.count >= FLUSH_ROWS or self._batch.payload_chars >= FLUSH_PAYLOAD_CHARS

    def _append_all(self, stop: Event) -> None:
        batch, self._batch = self._batch, _Batch()
        for (topic, partition), rows in batch.rows.items():
            # The very same rows each time: their token makes an INSERT of unknown fate, repeated, one INSERT.
            if not self._patiently(partial(self._trail.append, topic, partition, rows), stop):
                return  # Told to stop while ClickHouse is away; the rows are in Kafka, and the trail knows what it has.
            self._appended[topic, partition] = rows[-1].offset + 1
            self._rows += len(rows)
        self._note_what_is_no_record()

    def _note_what_is_no_record(self) -> None:
        """Where nothing waits to be appended, count the end of a transaction as done: an offset without a record."""
        for place, offset in self._log_reader.passed().items():
            if place not in self._batch.rows:
                self._appended[place] = max(self._appended[place], offset)

    def _patiently(self, attempt: Callable[[], None], stop: Event) -> bool:
        """Try until it works; False when told to stop while the world is away. One try is made in any case."""
        while True:
            self._turned_at = self._monotonic()
            try:
                attempt()
            except TransientError as error:
                self._say_waiting(str(error))
                if stop.wait(RETRY_AFTER_S):
                    return False
            else:
                if self._waiting_for:
                    log.info("audit sink goes on")
                self._waiting_for, self._warned_at = "", None
                return True

    def _say_waiting(self, reason: str) -> None:
        now = self._monotonic()
        if self._warned_at is None or now - self._warned_at >= WARN_EVERY_S:
            log.warning("audit sink waits", reason=reason)
            self._warned_at = now
        self._waiting_for = reason
