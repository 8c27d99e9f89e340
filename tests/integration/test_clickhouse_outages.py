"""The sink on a ClickHouse server that stops, hangs, refuses, or loses its answers: nothing lost, nothing doubled (G2).

The engine is the real one, behind a socket of ours: `tests/clickhouse_server.py` says what that shows and what not.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http.client import HTTPConnection
from threading import Event, Thread
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from bureaus import until
from clickhouse_server import INSERT, LEASE, ClickHouse
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from structlog.testing import capture_logs

from connectors.audit_reader import AuditReader
from connectors.audit_store import AwaitedStore, apply_schema, open_store
from connectors.clickhouse_client import ClickHouseServer, connect_server
from connectors.log_reader import LogReader, read_everything
from connectors.topic_admin import TopicAdmin
from infra.clickhouse import load_schema
from infra.data_folder import DataFolder, initialise
from processors.audit import AuditRow, row_of
from schemas.errors import IntegrityError, TransientError, UsageError
from schemas.records import LogRecord
from schemas.topics import GALLERY, TOPICS
from streams import sink as sink_module
from streams.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.any_broker

SCHEMA = load_schema()
PARTITIONS = 3
ANYTHING = ""


@pytest.fixture
def clickhouse(tmp_path: Path) -> Iterator[ClickHouse]:
    """A server with the operator's tables on it."""
    with ClickHouse(tmp_path / "server") as running:
        with closing(connect_server(ClickHouseServer(dsn=running.dsn))) as operator:
            apply_schema(operator, SCHEMA)
        yield running


@pytest.fixture
def place(clickhouse: ClickHouse) -> ClickHouseServer:
    """The server as the sink knows it."""
    return ClickHouseServer(dsn=clickhouse.dsn)


@pytest.fixture
def hasty(place: ClickHouseServer) -> ClickHouseServer:
    """The same, for a sink with less patience than in production."""
    return replace(place, answer_limit_s=1)


@pytest.fixture
def topic(bootstrap: str) -> str:
    name = f"audited.{uuid4()}"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result(timeout=30)
    return name


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "FLUSH_AFTER_S", 0.05)
    monkeypatch.setattr(sink_module, "RETRY_AFTER_S", 0.05)


@dataclass
class Running:
    """A sink in a thread, and what it ended with."""

    sink: Sink
    stop: Event = field(default_factory=Event)
    ended_with: list[Exception] = field(default_factory=list)

    def run(self) -> None:
        try:
            self.sink.run(self.stop)
        except IntegrityError as error:
            self.ended_with.append(error)

    def tries(self, count: int) -> None:
        """Wait until it has tried so many times more."""
        seen = {self.sink.progress.turned_at}

        def enough() -> bool:
            seen.add(self.sink.progress.turned_at)
            return len(seen) > count

        until(enough, f"the sink tries {count} times")

    def appends(self, count: int) -> None:
        """Wait until it has heard of so many rows since its start."""
        until(lambda: self.ended_with or self.sink.progress.rows == count, f"{count} rows")
        assert self.ended_with == []

    def waits(self) -> str:
        return str(until(lambda: self.sink.progress.waiting_for, "the sink says what it waits for"))


@contextmanager
def auditing(
    bootstrap: str, place: ClickHouseServer, topic: str, *, monotonic: Callable[[], float] = time.monotonic
) -> Iterator[Running]:
    """A sink as the role runs it, on one topic."""
    with (
        closing(AwaitedStore(partial(open_store, place, SCHEMA))) as trail,
        closing(LogReader({"bootstrap.servers": bootstrap})) as log,
    ):
        running = Running(Sink(log_reader=log, trail=trail, topics=[topic], monotonic=monotonic))
        thread = Thread(target=running.run)
        thread.start()
        try:
            yield running
        finally:
            running.stop.set()
            thread.join()


def publish(bootstrap: str, topic: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for n in range(count):
        producer.produce(topic, value=f"not Avro {uuid4()}".encode(), key=str(n), partition=n % PARTITIONS)
    assert producer.flush(30) == 0


def in_kafka(bootstrap: str, *topics: str) -> list[tuple[str, int, int, str]]:
    return sorted(read_everything({"bootstrap.servers": bootstrap}, topics))


def in_trail(place: ClickHouseServer) -> list[tuple[str, int, int, str]]:
    with AuditReader(place, SCHEMA) as reader:
        assert reader.query("SELECT * FROM audit.altered_rows")[1] == []
        return reader.wire_digests()


def assert_whole(bootstrap: str, place: ClickHouseServer, *topics: str, records: int) -> None:
    """G2: once the trail has so many rows, they are what an independent consumer reads."""
    until(lambda: len(in_trail(place)) >= records, "every record is in the trail")
    expected = in_kafka(bootstrap, *topics)
    assert len(expected) == records
    assert in_trail(place) == expected


def rows(first: int, last: int) -> list[AuditRow]:
    return [
        row_of(
            LogRecord(topic=GALLERY, partition=0, offset=n, timestamp_ms=n, key=b"k", value=f"not Avro {n}".encode())
        )
        for n in range(first, last + 1)
    ]


def counted(place: ClickHouseServer) -> list[int]:
    return [offset for _, _, offset, _ in in_trail(place)]


def test_over_a_server_every_record_lands_and_an_auditor_reads_it(
    bootstrap: str, clickhouse: ClickHouse, place: ClickHouseServer, topic: str
) -> None:
    publish(bootstrap, topic, 60)
    with auditing(bootstrap, place, topic):
        assert_whole(bootstrap, place, topic, records=60)
    with AuditReader(place, SCHEMA) as reader:
        columns, _ = reader.query("SELECT * FROM audit.events LIMIT 1")
        assert {"leaf_hash", "event_type", "appended_at"} <= set(columns)
        assert reader.query("SELECT count() FROM audit.undecodable WHERE topic = {topic:String}", {"topic": topic})[
            1
        ] == [(60,)]
        with pytest.raises(UsageError, match="can be read and nothing else"):
            reader.query("INSERT INTO audit.leases (epoch) VALUES (99)")
    with closing(connect_server(place)) as operator:
        apply_schema(operator, SCHEMA)
    assert len(in_trail(place)) == 60
    assert not any(token == "" for token in clickhouse.arrived(INSERT))


def test_a_clickhouse_that_is_killed_under_load_is_waited_for_and_that_is_said_once_a_period(
    bootstrap: str, clickhouse: ClickHouse, place: ClickHouseServer, topic: str
) -> None:
    """G2: Kafka keeps the backlog; on the same folder and address the sink goes on by itself."""
    later_s = 0.0
    publish(bootstrap, topic, 200)
    with (
        capture_logs() as logs,
        auditing(bootstrap, place, topic, monotonic=lambda: time.monotonic() + later_s) as running,
    ):

        def said(event: str) -> int:
            return sum(line["event"] == event for line in logs)

        until(lambda: clickhouse.arrived(INSERT), "the sink appends")
        clickhouse.kill()
        publish(bootstrap, topic, 100)
        assert "ClickHouse does not answer" in running.waits()
        appended = running.sink.progress.rows
        running.tries(5)
        assert said("audit sink waits") == 1
        later_s = sink_module.WARN_EVERY_S
        running.tries(5)
        assert said("audit sink waits") == 2
        assert running.sink.progress.rows == appended < 300
        assert running.sink.progress.lag_records
        assert said("audit sink goes on") == 0

        clickhouse.start()
        assert_whole(bootstrap, place, topic, records=300)
        running.appends(300)
        until(lambda: not running.sink.progress.lag_records, "the sink is level")
        assert (running.sink.progress.waiting_for, said("audit sink goes on")) == ("", 1)


def test_a_clickhouse_that_never_answers_does_not_hold_the_sink_for_ever(
    bootstrap: str, clickhouse: ClickHouse, place: ClickHouseServer, hasty: ClickHouseServer, topic: str
) -> None:
    """G2: silence is an outage, when the sink starts and while it runs."""
    publish(bootstrap, topic, 30)
    clickhouse.trouble("mute", ANYTHING)
    with auditing(bootstrap, hasty, topic) as running:
        assert "connect to the ClickHouse server for now: ClickHouse does not answer" in running.waits()
        clickhouse.heal()
        assert_whole(bootstrap, place, topic, records=30)
        clickhouse.trouble("mute", INSERT)
        publish(bootstrap, topic, 30)
        assert "append" in running.waits()
        running.tries(2)
        clickhouse.heal()
        assert_whole(bootstrap, place, topic, records=60)


def test_an_insert_whose_answer_is_lost_again_and_again_is_one_insert(
    bootstrap: str, clickhouse: ClickHouse, place: ClickHouseServer, topic: str
) -> None:
    """G2: the client repeats it by itself, under its token; the sink looks first, and so goes on unanswered."""
    clickhouse.trouble("unanswered", INSERT)
    publish(bootstrap, topic, 30)
    with auditing(bootstrap, place, topic) as running:
        running.appends(30)
        assert_whole(bootstrap, place, topic, records=30)
    tokens = clickhouse.run(INSERT)
    assert all(tokens.count(token) == 2 for token in tokens)


def test_an_insert_that_runs_after_its_own_repetition_is_one_insert(
    bootstrap: str, clickhouse: ClickHouse, place: ClickHouseServer, hasty: ClickHouseServer, topic: str
) -> None:
    """G2: given up by the sink, not by the server, which comes to it last."""
    clickhouse.trouble("late", INSERT, times=1)
    publish(bootstrap, topic, 30)
    with auditing(bootstrap, hasty, topic) as running:
        running.appends(30)
        [held_back] = set(clickhouse.arrived(INSERT)[:1])
        ran = clickhouse.run(INSERT).count(held_back)
        assert ran, "it was repeated, oftener where a busy machine kept the answer from the sink"
        clickhouse.heal()
        until(lambda: clickhouse.run(INSERT).count(held_back) > ran, "the first of them ran")
        assert_whole(bootstrap, place, topic, records=30)


def test_what_passes_is_waited_for_and_what_does_not_stops_the_sink(
    bootstrap: str, clickhouse: ClickHouse, place: ClickHouseServer, topic: str
) -> None:
    """G2: the disk of the server is full, then somebody takes the sink's right away; the next sink goes on."""
    no_space, access_denied = 243, 497
    clickhouse.trouble(no_space, INSERT)
    publish(bootstrap, topic, 30)
    with auditing(bootstrap, place, topic) as running:
        assert "ClickHouse error 243. Check it and its disk." in running.waits()
        clickhouse.heal()
        assert_whole(bootstrap, place, topic, records=30)
        clickhouse.trouble(access_denied, INSERT)
        publish(bootstrap, topic, 30)
        [refused] = until(lambda: running.ended_with, "the sink stops")
        assert "ClickHouse refused with error 497" in str(refused)
    clickhouse.heal()
    with auditing(bootstrap, place, topic):
        assert_whole(bootstrap, place, topic, records=60)


@pytest.mark.parametrize("on", [LEASE, INSERT], ids=["check", "insert"])
def test_each_trouble_of_a_server_or_of_the_way_to_it_is_told_from_a_refusal(
    clickhouse: ClickHouse, place: ClickHouseServer, on: str
) -> None:
    """The same statement may succeed later, or it never will."""
    with closing(open_store(place, SCHEMA)) as store:
        store.append(GALLERY, 0, rows(0, 4))
        # Memory, disk, too many parts, cancelled by a stop, overloaded; two ways to say that nobody is there.
        for passing in (241, 243, 252, 394, 745, -502, -503):
            clickhouse.trouble(passing, on)
            with pytest.raises(TransientError, match="for now"):
                store.append(GALLERY, 0, rows(5, 9))
            clickhouse.heal()
        # No such column, no such table, no such right, wrong password; something that is no ClickHouse.
        for refusing in (16, 60, 497, 516, -404):
            clickhouse.trouble(refusing, on)
            with pytest.raises(IntegrityError, match="refused"):
                store.append(GALLERY, 0, rows(5, 9))
            clickhouse.heal()
        store.append(GALLERY, 0, rows(5, 9))
    assert counted(place) == list(range(10))


def test_half_an_answer_is_no_answer(clickhouse: ClickHouse, place: ClickHouseServer) -> None:
    """G2: half of the ends of the trail would have the sink begin too early."""
    with closing(open_store(place, SCHEMA)) as store:
        store.append(GALLERY, 0, rows(0, 4))
        clickhouse.trouble("cut short", LEASE)
        with pytest.raises(TransientError):
            store.append(GALLERY, 0, rows(5, 9))
    clickhouse.heal()
    clickhouse.trouble("cut short", r"SELECT topic, partition, offset")
    with pytest.raises(TransientError):
        open_store(place, SCHEMA)


def test_of_two_sinks_on_a_server_the_newer_writes_and_the_older_stops(
    bootstrap: str, place: ClickHouseServer, topic: str
) -> None:
    """G2: and the two together double nothing."""
    publish(bootstrap, topic, 60)
    with auditing(bootstrap, place, topic) as older:
        older.appends(60)
        assert_whole(bootstrap, place, topic, records=60)
        with auditing(bootstrap, place, topic) as newer:
            until(lambda: newer.sink.progress.lag_records == 0, "the newer sink reads")
            publish(bootstrap, topic, 60)
            [stopped] = until(lambda: older.ended_with, "the older sink stops")
            assert "a newer sink" in str(stopped)
            assert_whole(bootstrap, place, topic, records=120)
            newer.appends(60)
            assert (older.sink.progress.rows, newer.sink.progress.rows) == (60, 60)
            assert newer.ended_with == []


def test_what_an_older_sink_appended_while_the_newer_one_started_is_not_doubled(
    clickhouse: ClickHouse, place: ClickHouseServer
) -> None:
    """G2: the older INSERT lands after the newer sink read where the trail ends."""
    outcome: list[Exception] = []

    def append_late() -> None:
        with (
            closing(open_store(ClickHouseServer(dsn=clickhouse.dsn), SCHEMA)) as older,
            pytest.raises(IntegrityError, match="a newer sink") as stopped,
        ):
            older.append(GALLERY, 0, rows(0, 4))
        outcome.append(stopped.value)

    clickhouse.trouble("late", INSERT, times=1)
    thread = Thread(target=append_late)
    thread.start()
    until(lambda: clickhouse.arrived(INSERT), "the older INSERT is under way")
    with closing(open_store(place, SCHEMA)) as newer:
        assert newer.tips() == {}
        clickhouse.heal()
        thread.join()
        assert outcome
        with pytest.raises(IntegrityError, match="two sinks write"):
            newer.append(GALLERY, 0, rows(0, 9))
    with closing(open_store(place, SCHEMA)) as newest:
        newest.append(GALLERY, 0, rows(5, 9))
    assert counted(place) == list(range(10))


def test_an_address_that_says_tls_is_never_spoken_to_in_the_clear(clickhouse: ClickHouse) -> None:
    before = len(clickhouse.arrived(ANYTHING))
    with pytest.raises(TransientError):
        connect_server(ClickHouseServer(dsn=clickhouse.dsn.replace("clickhouse://", "clickhouses://")))
    assert len(clickhouse.arrived(ANYTHING)) == before


def test_a_sink_that_is_started_while_clickhouse_is_away_waits_says_so_once_and_goes_on(
    bootstrap: str, clickhouse: ClickHouse, place: ClickHouseServer, tmp_path: Path
) -> None:
    """G2: the role itself, as an operator starts it."""
    TopicAdmin(bootstrap).apply(TOPICS.values())
    data = tmp_path / "data"
    initialise(DataFolder(data))
    clickhouse.stop()
    addresses = {"LEADSTREAM_KAFKA_BOOTSTRAP": bootstrap, "LEADSTREAM_CLICKHOUSE": clickhouse.dsn}
    command = [sys.executable, "-m", "infra.cli", "sink", "--data", str(data), "--metrics-port", "0"]
    log = tmp_path / "sink.log"

    def readiness() -> dict[str, Any]:
        connection = HTTPConnection("127.0.0.1", DataFolder(data).announced("sink")["metrics_port"], timeout=60)
        with closing(connection):
            connection.request("GET", "/readyz")
            return dict(json.loads(connection.getresponse().read()))

    with log.open("wb") as console, subprocess.Popen(command, stderr=console, env={**os.environ, **addresses}) as sink:
        try:
            until(lambda: DataFolder(data).announced("sink"), "the sink is there")
            until(lambda: "ClickHouse does not answer" in readiness()["why"], "it says what it waits for")
            assert sink.poll() is None
            clickhouse.start()
            until(lambda: readiness()["ready"], "it goes on")
            assert_whole(bootstrap, place, *TOPICS, records=len(in_kafka(bootstrap, *TOPICS)))
        finally:
            sink.send_signal(signal.SIGTERM)
            assert sink.wait(60) == 0
    said = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["event"] for line in said if line["level"] == "warning"] == ["audit sink waits"]
    assert "hunter2" not in log.read_text()
