"""The sink's loop: waits in place, repeats exactly, stops on contradictions (G2, G12)."""

from __future__ import annotations

from hashlib import sha256
from threading import Event
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from processors.audit import AuditRow, Bounds, Tip
from schemas.errors import IntegrityError, TransientError
from schemas.records import LogRecord
from schemas.topics import GALLERY, generation_topic
from streams import sink as sink_module
from streams.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

PLACE = (GALLERY, 0)


class ScriptedLog:
    """Records of one partition; says stop when all were read."""

    def __init__(self, values: Sequence[bytes], stop: Event, *, away: int = 0, first: int = 0, marks: int = 0) -> None:
        self.records = [
            LogRecord(topic=GALLERY, partition=0, offset=first + n, timestamp_ms=n, key=None, value=value)
            for n, value in enumerate(values)
        ]
        self.high = first + len(values) + marks
        self.stop = stop
        self.away = away
        self.told: list[Mapping[tuple[str, int], int]] = []

    def bounds(self, topics: Collection[str]) -> Mapping[tuple[str, int], Bounds]:
        assert set(topics) == {GALLERY}
        if self.away > 0:
            self.away -= 1
            raise TransientError("Kafka does not answer.")
        return {PLACE: Bounds(low=0, high=self.high)}

    def generations(self) -> Collection[str]:
        return []

    def start(self, offsets: Mapping[tuple[str, int], int]) -> None:
        self.records = [record for record in self.records if record.offset >= offsets[PLACE]]

    def read(self, timeout_s: float) -> Sequence[LogRecord]:
        assert timeout_s <= sink_module.FLUSH_AFTER_S
        found, self.records = self.records[:2], self.records[2:]
        if not self.records:
            self.stop.set()
        return found

    def passed(self) -> Mapping[tuple[str, int], int]:
        return {} if self.records else {PLACE: self.high}

    def tell(self, appended: Mapping[tuple[str, int], int]) -> None:
        self.told.append(dict(appended))

    def ends(self) -> Mapping[tuple[str, int], int]:
        return {PLACE: self.high}


class MemoryTrail:
    """A trail whose first appends fail."""

    def __init__(self, tips: Mapping[tuple[str, int], Tip] | None = None, *, away: int = 0) -> None:
        self._tips = dict(tips or {})
        self.away = away
        self.attempts: list[Sequence[AuditRow]] = []
        self.rows: list[AuditRow] = []

    def tips(self) -> Mapping[tuple[str, int], Tip]:
        return self._tips

    def append(self, topic: str, partition: int, rows: Sequence[AuditRow]) -> None:
        assert (topic, partition) == PLACE
        self.attempts.append(rows)
        if len(self.attempts) <= self.away:
            raise TransientError("the disk is full.")
        self.rows.extend(rows)


def run(log_reader: ScriptedLog, trail: MemoryTrail, stop: Event) -> Sink:
    sink = Sink(log_reader=log_reader, trail=trail, topics=[GALLERY])
    sink.run(stop)
    return sink


def offsets(trail: MemoryTrail) -> list[int]:
    return [row.offset for row in trail.rows]


def tip(offset: int, value: bytes) -> dict[tuple[str, int], Tip]:
    return {PLACE: Tip(offset=offset, wire_sha256=sha256(value).hexdigest())}


def test_the_end_of_a_transaction_is_no_record_that_is_missing() -> None:
    stop = Event()
    sink = run(ScriptedLog([b"a", b"b"], stop, marks=1), MemoryTrail(), stop)
    assert (sink.progress.rows, sink.progress.lag_records) == (2, 0)


def test_what_was_read_before_a_stop_is_appended() -> None:
    stop, trail = Event(), MemoryTrail()
    sink = run(ScriptedLog([b"a", b"b", b"c"], stop), trail, stop)
    assert offsets(trail) == [0, 1, 2]
    assert (sink.progress.rows, sink.progress.lag_records, sink.progress.waiting_for) == (3, 0, "")


def test_a_restart_goes_on_after_the_last_row_and_appends_nothing_twice() -> None:
    stop, trail = Event(), MemoryTrail(tip(1, b"b"))
    run(ScriptedLog([b"a", b"b", b"c"], stop), trail, stop)
    assert offsets(trail) == [2]


def test_a_last_row_that_compaction_has_removed_from_kafka_is_no_contradiction() -> None:
    stop, trail = Event(), MemoryTrail(tip(1, b"b"))
    log_reader = ScriptedLog([b"a", b"b", b"c"], stop)
    del log_reader.records[1]
    run(log_reader, trail, stop)
    assert offsets(trail) == [2]


def test_another_record_under_an_audited_offset_stops_the_sink() -> None:
    stop, trail = Event(), MemoryTrail(tip(1, b"what Kafka once said"))
    with pytest.raises(IntegrityError, match=f"another record at {GALLERY}/0/1"):
        run(ScriptedLog([b"a", b"b", b"c"], stop), trail, stop)
    assert trail.rows == []


def test_an_offset_that_comes_again_stops_the_sink() -> None:
    stop, trail = Event(), MemoryTrail()
    log_reader = ScriptedLog([b"a", b"b", b"c"], stop)
    log_reader.records[2] = log_reader.records[0]
    with pytest.raises(IntegrityError, match="another record"):
        run(log_reader, trail, stop)


def test_while_clickhouse_is_away_the_very_same_rows_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "RETRY_AFTER_S", 0)
    monkeypatch.setattr(sink_module, "FLUSH_ROWS", 2)
    stop, trail = Event(), MemoryTrail(away=3)
    log_reader = ScriptedLog([b"a", b"b", b"c", b"d"], stop)
    with capture_logs() as logs:
        run(log_reader, trail, stop)
    assert all(attempt is trail.attempts[0] for attempt in trail.attempts[:4])
    assert offsets(trail) == [0, 1, 2, 3]
    waits = [entry for entry in logs if entry["event"] == "audit sink waits"]
    assert [entry["reason"] for entry in waits] == ["the disk is full."], "said once a period, not at every try"


def test_a_stop_while_clickhouse_is_away_is_obeyed_and_leaves_the_rows_to_the_next_start() -> None:
    stop, trail = Event(), MemoryTrail(away=1_000_000)
    sink = run(ScriptedLog([b"a", b"b"], stop), trail, stop)
    assert trail.rows == []
    assert (sink.progress.lag_records, sink.progress.waiting_for) == (2, "the disk is full.")


def test_a_kafka_that_is_not_up_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "RETRY_AFTER_S", 0)
    stop, trail = Event(), MemoryTrail()
    run(ScriptedLog([b"a"], stop, away=5), trail, stop)
    assert offsets(trail) == [0]


def test_a_kafka_that_ends_before_the_trail_stops_the_sink() -> None:
    stop = Event()
    with pytest.raises(IntegrityError, match="Kafka ends at 1"):
        run(ScriptedLog([b"a"], stop), MemoryTrail(tip(4, b"e")), stop)


def test_its_progress_is_told_only_for_what_is_in_the_trail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches stop when the trail falls behind, so it must not be said to be further than it is."""
    monkeypatch.setattr(sink_module, "RETRY_AFTER_S", 0)
    monkeypatch.setattr(sink_module, "FLUSH_ROWS", 2)
    monkeypatch.setattr(sink_module, "TELL_EVERY_S", 0)

    class WatchedTrail(MemoryTrail):
        def append(self, topic: str, partition: int, rows: Sequence[AuditRow]) -> None:
            assert all(told[PLACE] <= len(self.rows) for told in log_reader.told)
            super().append(topic, partition, rows)

    stop, trail = Event(), WatchedTrail(away=3)
    log_reader = ScriptedLog([b"a", b"b", b"c", b"d"], stop)
    run(log_reader, trail, stop)
    assert [told[PLACE] for told in log_reader.told] == [2, 4]


def test_its_progress_is_told_again_though_nothing_happens() -> None:
    # A broker forgets what a silent group committed, and searches would stop in a quiet week.
    now = [0.0]

    class IdleLog(ScriptedLog):
        def read(self, timeout_s: float) -> Sequence[LogRecord]:
            assert timeout_s == sink_module.FLUSH_AFTER_S
            now[0] += sink_module.TELL_AGAIN_S / 2
            if len(self.told) == 3:
                self.stop.set()
            return []

    stop, trail = Event(), MemoryTrail(tip(0, b"a"))
    log_reader = IdleLog([b"a"], stop)
    Sink(log_reader=log_reader, trail=trail, topics=[GALLERY], monotonic=lambda: now[0]).run(stop)
    assert [told[PLACE] for told in log_reader.told] == [1, 1, 1]
    assert now[0] >= 2 * sink_module.TELL_AGAIN_S


def test_a_generation_that_is_found_and_cannot_be_started_yet_is_looked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """G2: a topic that was made a moment ago may have no leader; it must not be taken for audited."""
    monkeypatch.setattr(sink_module, "RETRY_AFTER_S", 0)
    now, other = [0.0], (generation_topic("ab" * 32), 0)

    class GrowingLog(ScriptedLog):
        found, failures, starts = False, 3, 0

        def generations(self) -> Collection[str]:
            return [other[0]] if self.found else []

        def bounds(self, topics: Collection[str]) -> Mapping[tuple[str, int], Bounds]:
            if other[0] in topics and self.failures:
                self.failures -= 1
                raise TransientError("It has no leader yet.")
            return {PLACE: Bounds(low=0, high=1)} | ({other: Bounds(low=0, high=0)} if other[0] in topics else {})

        def start(self, offsets: Mapping[tuple[str, int], int]) -> None:
            self.starts += 1
            if other in offsets:
                self.stop.set()
            self.records = [record for record in self.records if record.offset >= offsets[PLACE]]

        def read(self, timeout_s: float) -> Sequence[LogRecord]:
            assert timeout_s >= 0
            now[0] += sink_module.LOOK_EVERY_S
            self.found = True
            assert now[0] < 100 * sink_module.LOOK_EVERY_S, "it is never started"
            found, self.records = self.records, []
            return found

    stop, trail = Event(), MemoryTrail()
    log_reader = GrowingLog([b"a"], stop)
    Sink(log_reader=log_reader, trail=trail, monotonic=lambda: now[0]).run(stop)
    assert (log_reader.starts, log_reader.failures, offsets(trail)) == (2, 0, [0])
