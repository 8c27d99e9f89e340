"""Kafka, the audit trail and threads in memory, for tests that want any order of events and no waiting.

Of Kafka only the log itself is made here; asking and reading it goes through the product's `KafkaLog`.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from builders import NOW
from hypothesis import settings

from connectors.kafka_log import KafkaLog
from processors.audit import Bounds, Tip
from schemas.errors import IntegrityError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from processors.audit import AuditRow
    from schemas.events import Event
    from schemas.records import LogRecord

Place = tuple[str, int]


class Killed(Exception):
    """The process is gone at this point."""


class MemoryKafka(KafkaLog):
    """Partitions as lists; a second goes by with every record, and no two are written at once."""

    def __init__(self, places: Iterable[Place]) -> None:
        self.everything: dict[Place, list[LogRecord]] = {place: [] for place in places}
        """All that was ever written."""
        self.events: dict[Place, list[Event | None]] = {place: [] for place in self.everything}
        """The same, as what it means; None for what means nothing."""
        self.digests: dict[Place, list[tuple[int, str]]] = {place: [] for place in self.everything}
        """The same, as (offset, SHA-256): what an independent consumer reads."""
        self.kept: dict[Place, list[LogRecord]] = {place: [] for place in self.everything}
        """What compaction has left of it."""
        self.seconds = 0

    @property
    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    def append(self, record: LogRecord, event: Event | None) -> LogRecord:
        """Put a record at the end of its partition."""
        self.seconds += 1
        place = (record.topic, record.partition)
        offset = len(self.everything[place])
        written = replace(record, offset=offset, timestamp_ms=int(self.now.timestamp() * 1000))
        self.everything[place].append(written)
        self.kept[place].append(written)
        self.events[place].append(event)
        self.digests[place].append((offset, sha256(record.value or b"").hexdigest()))
        return written

    def compact(self, place: Place, up_to: int, spare: Collection[str]) -> None:
        """Keep of the records before an offset only the last of each key; of some keys, all."""
        last = {record.key: record.offset for record in self.kept[place] if record.offset < up_to}
        self.kept[place] = [
            record
            for record in self.kept[place]
            if record.offset >= up_to or record.offset == last[record.key] or (record.key or b"").decode() in spare
        ]

    def rewritten(self, place: Place, records: list[LogRecord] | None) -> MemoryKafka:
        """Return a Kafka that differs in one partition, or lacks it."""
        other = MemoryKafka(())
        other.kept = {here: kept for here, kept in self.kept.items() if here != place}
        other.everything = {here: kept for here, kept in self.everything.items() if here != place}
        if records is not None:
            other.kept[place] = other.everything[place] = records
        return other

    def tail(self, start: Mapping[Place, int]) -> MemoryReader:
        reader = MemoryReader(self)
        reader.start(start)
        return reader

    def _bounds(self, topic: str, partition: int) -> tuple[int, int]:
        return 0, len(self.everything.get((topic, partition), ()))

    def _ends_at_once(self, places: Sequence[Place]) -> dict[Place, int]:
        return {place: self._bounds(*place)[1] for place in places}


class MemoryReader:
    """Reads on from chosen offsets, for a follower or for the sink; tells when there is nothing more."""

    def __init__(self, kafka: MemoryKafka, *, at_once: int = 1_000_000, drained: Callable[[], None] = int) -> None:
        self._kafka = kafka
        self._at_once = at_once
        self._drained = drained
        self._at: dict[Place, int] = {}
        self.told: dict[Place, int] = {}

    def bounds(self, topics: Collection[str]) -> dict[Place, Bounds]:
        return {
            place: Bounds(low=0, high=len(written))
            for place, written in self._kafka.everything.items()
            if place[0] in topics
        }

    def generations(self) -> list[str]:
        return []

    def start(self, offsets: Mapping[Place, int]) -> None:
        self._at = dict(offsets)

    def read(self, _timeout_s: float) -> list[LogRecord]:
        found = [
            record
            for place, at in self._at.items()
            if at < len(self._kafka.everything.get(place, ()))
            for record in self._kafka.kept[place]
            if record.offset >= at
        ][: self._at_once]
        for record in found:
            self._at[record.topic, record.partition] = record.offset + 1
        if not found:
            self._drained()
        return found

    def passed(self) -> dict[Place, int]:
        return {place: at for place, at in self._at.items() if at >= len(self._kafka.everything.get(place, ()))}

    def tell(self, appended: Mapping[Place, int]) -> None:
        self.told = dict(appended)

    def ends(self) -> dict[Place, int]:
        return {place: len(self._kafka.everything[place]) for place in self._at}

    def close(self) -> None:
        """Nothing is held."""


DONE, AWAY, UNKNOWN, KILLED_BEFORE, KILLED_AFTER = "done", "away", "unknown", "killed before", "killed after"


class MemoryTrail:
    """A trail as `connectors/audit_store.py` keeps it, whose next appends have chosen fates."""

    def __init__(self) -> None:
        self.rows: dict[Place, list[AuditRow]] = {}
        self.fates: list[str] = []
        self._inserts: dict[tuple[str, int, int, int], list[AuditRow]] = {}

    def tips(self) -> dict[Place, Tip]:
        return {
            place: Tip(offset=rows[-1].offset, wire_sha256=rows[-1].wire_sha256) for place, rows in self.rows.items()
        }

    def has(self, place: Place, end: int) -> bool:
        """Tell whether the last row is the last record before an offset; none is needed where nothing was written."""
        rows = self.rows.get(place, [])
        return rows[-1].offset >= end - 1 if rows else end == 0

    def append(self, topic: str, partition: int, rows: Sequence[AuditRow]) -> None:
        fate = self.fates.pop(0) if self.fates else DONE
        if fate == AWAY:
            raise TransientError("ClickHouse is away.")
        if fate == KILLED_BEFORE:
            raise Killed
        self._insert((topic, partition), list(rows))
        if fate == UNKNOWN:
            raise TransientError("The INSERT was made; its answer was lost.")
        if fate == KILLED_AFTER:
            raise Killed

    def _insert(self, place: Place, rows: list[AuditRow]) -> None:
        token = (*place, rows[0].offset, rows[-1].offset)
        if self._inserts.setdefault(token, rows) != rows:
            raise IntegrityError("Other rows under the token of an INSERT.")
        held = self.rows.setdefault(place, [])
        if not held or held[-1].offset < rows[0].offset:
            held += rows
        elif held[-len(rows) :] != rows:
            raise IntegrityError("The trail has these offsets with other rows.")


class AtOnce(ThreadPoolExecutor):
    """Does what it is given before it answers: no thread, the same order every time."""

    def __init__(self) -> None:
        super().__init__(1)

    def submit(self, work: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(work(*args, **named))
        except Exception as error:  # noqa: BLE001 - as a thread would
            done.set_exception(error)
        return done


def sequences() -> int:
    """Return how many sequences a state machine draws: the same few in ordinary runs, many new ones in long runs."""
    return 150 if settings.default.derandomize else 500
