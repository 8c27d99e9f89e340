"""The sink between a real broker and the real engine: what an independent consumer reads is what the trail has (G2)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

import schemas
from connectors.audit_reader import AuditReader
from connectors.audit_store import open_store
from connectors.log_reader import LogReader, read_everything
from infra.clickhouse import load_schema
from processors.audit import row_of
from schemas.errors import IntegrityError, TransientError
from schemas.records import LogRecord
from schemas.signing import HEADER_KEY_ID, HEADER_SIGNATURE
from streams.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = load_schema()
PARTITIONS = 3
DEADLINE_S = 60.0
GOLDEN = [
    bytes.fromhex(json.loads(path.read_text())["single_object_hex"])
    for path in sorted((Path(schemas.__file__).parent / "examples").iterdir())
]
# Garbage, framed garbage, a record cut short, one too long, an empty value, none at all, one of a megabyte.
HOSTILE = [b"\xff" * 40, b"\xc3\x01" + b"\x00" * 40, GOLDEN[0][:-3], GOLDEN[0] + b"x", b"", None, b"\x00" * 1_000_000]

# The parts of the sink's role with small batches, and a line for each append, so that a test can kill in mid-work.
SINK = """
import signal, sys, threading
from pathlib import Path
from connectors.audit_store import open_store
from connectors.log_reader import LogReader
from infra.clickhouse import load_schema
from streams import sink

class Telling:
    def __init__(self, trail):
        self.tips, self.trail = trail.tips, trail
    def append(self, topic, partition, rows):
        print("appending", flush=True)
        self.trail.append(topic, partition, rows)
        print("appended", flush=True)

bootstrap, folder, *topics = sys.argv[1:]
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
sink.FLUSH_ROWS, sink.FLUSH_AFTER_S = 40, 0.05
trail = open_store(Path(folder), load_schema())
log_reader = LogReader({"bootstrap.servers": bootstrap})
sink.Sink(log_reader=log_reader, trail=Telling(trail), topics=topics).run(stop)
log_reader.close()
trail.close()
print("stopped", flush=True)
"""

# A header name that is not UTF-8: clients refuse to send it, so the pure-Python one is talked into it.
SEND_BAD_HEADER = """
import asyncio, sys
from aiokafka import AIOKafkaProducer

class NotUtf8(str):
    def encode(self, *_):
        return b"\\xff\\xfe"

async def send(bootstrap, topic):
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        await producer.send_and_wait(topic, b"v", partition=0, headers=[(NotUtf8("name"), b"1")])

asyncio.run(send(*sys.argv[1:]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def topics(bootstrap: str) -> list[str]:
    return make_topics(bootstrap, [f"audited.{uuid4()}", f"audited.{uuid4()}"])


def make_topics(bootstrap: str, names: list[str]) -> list[str]:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for made in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
        made.result(timeout=30)
    return names


def publish(bootstrap: str, topics: list[str], count: int) -> None:
    """Send a mixture: golden and hostile values, with and without keys and signatures."""
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 4_000_000})
    signed: list[tuple[str, str | bytes | None]] = [
        (HEADER_KEY_ID, b"0123456789abcdef" * 2),
        (HEADER_SIGNATURE, b"\x07" * 64),
    ]
    other: list[tuple[str, str | bytes | None]] = [("other", None)]
    # What is hostile comes first, so that each of it keeps its key whatever golden payloads there are.
    pile = [*HOSTILE, *GOLDEN] if count > len(GOLDEN) + len(HOSTILE) else GOLDEN
    delivered: list[str | None] = []
    for n in range(count):
        value = pile[n] if n < len(pile) else GOLDEN[n % len(GOLDEN)]
        producer.produce(
            topics[n % len(topics)],
            value=value,
            key=[f"CA0190000/{n}", b"\xff\xfe", None, b"k" * 100_000][n % 4 if n < 40 else 0],
            partition=n % PARTITIONS,
            headers=(signed, other, [])[n % 3],
            on_delivery=lambda error, _: delivered.append(error and error.str()),
        )
        producer.poll(0)
    assert producer.flush(30) == 0
    assert delivered == [None] * count


def in_kafka(bootstrap: str, topics: list[str]) -> list[tuple[str, int, int, str]]:
    return sorted(read_everything({"bootstrap.servers": bootstrap}, topics))


def in_trail(folder: Path) -> list[tuple[str, int, int, str]]:
    with AuditReader(folder, SCHEMA) as reader:
        assert reader.query("SELECT * FROM audit.altered_rows")[1] == []
        return reader.wire_digests()


def start_sink(bootstrap: str, folder: Path, topics: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SINK, bootstrap, str(folder), *topics]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for_append(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert any(line.startswith("append") for line in process.stdout), "the sink ended before it appended"


def wait_until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not met():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def run_until_level(bootstrap: str, folder: Path, topics: list[str]) -> None:
    """Run a sink in this process until the trail is level with Kafka, then stop it."""
    stop = Event()
    with closing(open_store(folder, SCHEMA)) as trail, closing(LogReader({"bootstrap.servers": bootstrap})) as log:
        sink = Sink(log_reader=log, trail=trail, topics=topics)
        thread = Thread(target=sink.run, args=(stop,))
        thread.start()
        try:
            wait_until(lambda: not thread.is_alive() or sink.progress.lag_records == 0)
        finally:
            stop.set()
            thread.join(DEADLINE_S)
        assert sink.progress.lag_records == 0


def test_through_kills_the_trail_is_what_an_independent_consumer_reads(
    bootstrap: str, folder: Path, topics: list[str]
) -> None:
    """G2, G12: garbage, empty and missing values included; kill -9 before, during and after an append."""
    publish(bootstrap, topics, 400)
    bad_header = [sys.executable, "-c", SEND_BAD_HEADER, bootstrap, topics[0]]
    subprocess.run(bad_header, env={**os.environ, "AIOKAFKA_NO_EXTENSIONS": "1"}, check=True, timeout=DEADLINE_S)
    for lines_before_kill in (1, 4, 9):
        with start_sink(bootstrap, folder, topics) as process:
            for _ in range(lines_before_kill):
                wait_for_append(process)
            process.kill()
        publish(bootstrap, topics, 60)
    run_until_level(bootstrap, folder, topics)

    expected = in_kafka(bootstrap, topics)
    assert len(expected) == 400 + 1 + 3 * 60
    assert in_trail(folder) == expected


def test_a_clean_stop_appends_what_was_read_and_ends_by_itself(bootstrap: str, folder: Path, topics: list[str]) -> None:
    publish(bootstrap, topics, 30)
    with start_sink(bootstrap, folder, topics) as process:
        assert process.stdout is not None
        wait_for_append(process)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read().splitlines()[-1] == "stopped"
        assert process.wait(DEADLINE_S) == 0
    run_until_level(bootstrap, folder, topics)
    assert in_trail(folder) == in_kafka(bootstrap, topics)


def test_a_sink_waits_for_topics_that_are_not_made_yet(bootstrap: str, folder: Path) -> None:
    names = [f"audited.{uuid4()}"]
    with (
        pytest.raises(TransientError, match="topics apply"),
        closing(LogReader({"bootstrap.servers": bootstrap})) as log,
    ):
        log.bounds(names)
    with start_sink(bootstrap, folder, names) as process:
        assert process.stdout is not None
        wait_until((folder / "clickhouse" / "data" / "audit" / "events").is_symlink)
        make_topics(bootstrap, names)
        publish(bootstrap, names, 6)
        wait_for_append(process)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read().splitlines()[-1] == "stopped"


def one_row(topic: str, offset: int, value: bytes) -> LogRecord:
    return LogRecord(topic=topic, partition=0, offset=offset, timestamp_ms=0, key=None, value=value)


@pytest.mark.parametrize(
    ("offset", "says"), [(1_000, "Kafka ends at"), (0, "another record")], ids=["ahead of Kafka", "not what Kafka has"]
)
def test_a_trail_that_contradicts_kafka_stops_the_sink(
    bootstrap: str, folder: Path, topics: list[str], offset: int, says: str
) -> None:
    publish(bootstrap, topics, 30)
    with closing(open_store(folder, SCHEMA)) as trail, closing(LogReader({"bootstrap.servers": bootstrap})) as log:
        trail.append(topics[0], 0, [row_of(one_row(topics[0], offset, b"never in this Kafka"))])
        with pytest.raises(IntegrityError, match=says):
            Sink(log_reader=log, trail=trail, topics=topics).run(Event())


def test_an_independent_consumer_reads_exactly_what_was_sent(bootstrap: str, topics: list[str]) -> None:
    """The yardstick itself: digests of the sent bytes, by a sum that knows nothing of the trail."""
    publish(bootstrap, topics, 2)
    sent = sorted(sha256(value).hexdigest() for value in GOLDEN[:2])
    assert sorted(digest for *_, digest in in_kafka(bootstrap, topics)) == sent
