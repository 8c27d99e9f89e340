"""What every broker that Leadstream starts must do; one suite, run on the embedded one and on Apache Kafka."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from connectors.topic_admin import TopicAdmin
from infra.brokers import Broker, Kind, make_broker
from schemas.errors import TransientError, UsageError
from schemas.topics import GALLERY, TOPICS, TopicSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@pytest.fixture(scope="module", params=["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
def kind(request: pytest.FixtureRequest) -> Kind:
    return "apache" if request.param == "apache" else "embedded"


@pytest.fixture(scope="module")
def running(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for the tests of this file; each leaves it running."""
    with make_broker(kind, tmp_path_factory.mktemp(kind)) as broker:
        yield broker


def until(condition: Callable[[], bool], *, timeout_s: float = 60) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def alive(pid: int) -> bool:
    """Say whether a process runs; one that ended and waits to be reaped by its new parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def described(*, partitions: int = 3, **config: str) -> TopicSpec:
    """A topic of its own for a test, described as topics.toml would."""
    settings = {name.replace("_", "."): value for name, value in config.items()}
    return TopicSpec(
        name=f"test.{uuid.uuid4().hex[:12]}.v1",
        key="any",
        partitions=partitions,
        records=(),
        producers=(),
        consumers=(),
        signed=False,
        config={"retention.ms": "-1", "cleanup.policy": "delete", **settings},
    )


def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "acks": "all"})
    failures: list[object] = []
    for number, value in enumerate(values):
        producer.produce(
            topic,
            key=str(number),
            value=value,
            on_delivery=lambda error, _: failures.append(error) if error else None,
        )
    assert producer.flush(60) == 0
    assert failures == []


def read_all(bootstrap: str, topic: str) -> set[bytes]:
    ends = TopicAdmin(bootstrap).end_offsets([topic])
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(name, partition, 0) for name, partition in ends])
        values: list[bytes] = []

        def complete() -> bool:
            for message in consumer.consume(500, 0.2):
                assert message.error() is None
                value = message.value()
                assert isinstance(value, bytes)
                values.append(value)
            return len(values) >= sum(ends.values())

        assert until(complete), f"read {len(values)} of {sum(ends.values())}"
        return set(values)
    finally:
        consumer.close()


def test_what_is_produced_is_read_back(running: Broker) -> None:
    topic = described()
    TopicAdmin(running.bootstrap).apply([topic])
    values = [f"value {number}".encode() for number in range(500)]
    produce(running.bootstrap, topic.name, values)
    assert read_all(running.bootstrap, topic.name) == set(values)


def test_it_listens_on_loopback_only(running: Broker) -> None:
    inodes = set()
    for file in Path(f"/proc/{running.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            inodes.add(str(file.readlink()))
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:  # 0A: listening
                addresses.add(fields[1].rpartition(":")[0])
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, and the same as an IPv6 socket shows it
    assert addresses
    assert addresses <= loopback


def test_a_restart_keeps_the_records_and_the_address(running: Broker) -> None:
    topic = described()
    TopicAdmin(running.bootstrap).apply([topic])
    produce(running.bootstrap, topic.name, [b"kept"])
    address, pid = running.bootstrap, running.pid
    running.restart()
    assert running.bootstrap == address
    assert running.pid != pid
    assert not alive(pid)
    assert read_all(address, topic.name) == {b"kept"}
    assert TopicAdmin(address).diff([topic]) == []


def test_a_broker_that_dies_is_seen_and_can_come_back(running: Broker) -> None:
    assert running.poll() is None
    pid = running.pid
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: running.poll() is not None)
    assert running.poll() == -signal.SIGKILL
    assert not alive(pid)
    running.restart()
    assert running.poll() is None
    assert TopicAdmin(running.bootstrap).diff([]) == []


def test_stop_leaves_no_process_and_may_be_repeated(kind: Kind, tmp_path: Path) -> None:
    broker = make_broker(kind, tmp_path)
    with broker:
        pid = broker.pid
        assert (tmp_path / "broker.pid").read_text(encoding="ascii").strip() == str(pid)
    assert not alive(pid)
    assert broker.poll() != -signal.SIGKILL, "it was forced"
    broker.stop()


def test_no_orphan_is_left_when_the_owner_is_killed(kind: Kind, tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, str(HERE / "owner.py"), kind, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    assert owner.stdin is not None
    with owner.stdin, owner.stdout:
        pid, address = owner.stdout.readline().split()
        assert alive(int(pid))
        topic = described()
        TopicAdmin(address).apply([topic])
        produce(address, topic.name, [b"from before"])
        owner.kill()
        owner.wait()
    # No pause: a start right now waits until the old one has saved and let go of the folder.
    with make_broker(kind, tmp_path) as heir:
        assert not alive(int(pid))
        assert read_all(heir.bootstrap, topic.name) == {b"from before"}
        heir.kill()
        assert heir.poll() == -signal.SIGKILL


def test_a_port_in_use_is_a_usage_error_and_starts_nothing(kind: Kind, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        broker = make_broker(kind, tmp_path, port=other.getsockname()[1])
        with pytest.raises(UsageError, match="is in use"):
            broker.start()
    with pytest.raises(UsageError, match="not started"):
        broker.poll()


def test_a_free_port_taken_before_the_broker_listens_is_replaced_by_another(
    kind: Kind,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import infra.brokers.broker as module  # noqa: PLC0415 - only this test looks inside

    with socket.create_server(("127.0.0.1", 0)) as other:
        taken: int = other.getsockname()[1]
        offers = iter([taken])
        real = module.free_port
        monkeypatch.setattr(module, "free_port", lambda: next(offers, None) or real())
        with make_broker(kind, tmp_path) as broker:
            assert broker.bootstrap != f"127.0.0.1:{taken}"
            assert TopicAdmin(broker.bootstrap).diff([]) == []


def test_a_data_folder_in_use_is_refused(running: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.brokers.broker._LOCK_TIMEOUT_S", 0.2)
    second = make_broker(running.kind, running.log_files[0].parent)
    with pytest.raises(UsageError, match=f"process {running.pid}"):
        second.start()
    assert running.poll() is None


def test_a_data_folder_of_the_other_kind_is_refused(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / ("embedded" if kind == "apache" else "apache")).mkdir()
    with pytest.raises(UsageError, match="holds the records of the"):
        make_broker(kind, tmp_path).start()


def test_a_start_that_fails_says_what_to_do_and_how_the_log_ends(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / kind).mkdir()
    (tmp_path / kind / {"embedded": "kafka.json", "apache": "meta.properties"}[kind]).write_bytes(b"\xff damaged")
    with pytest.raises(TransientError, match=r"ended with exit code \d+(?s:.*)Its log is in(?s:.*)it ends:\n.+"):
        make_broker(kind, tmp_path).start()


def test_every_topic_of_the_contract_is_created_as_described(running: Broker) -> None:
    admin = TopicAdmin(running.bootstrap)
    made = admin.apply(TOPICS.values())
    assert {(change.topic, change.kind, change.wanted) for change in made} == {
        (topic.name, "create", str(topic.partitions)) for topic in TOPICS.values()
    }
    assert admin.diff(TOPICS.values()) == []
    assert admin.apply(TOPICS.values()) == []
    expected = {(topic.name, number): 0 for topic in TOPICS.values() for number in range(topic.partitions)}
    assert admin.end_offsets(list(TOPICS)) == expected


def test_settings_that_drifted_are_reported_and_put_right(running: Broker) -> None:
    admin = TopicAdmin(running.bootstrap)
    topic = described(max_message_bytes="100000")
    admin.apply([topic])
    drifted = replace(topic, config={"retention.ms": "1000", "cleanup.policy": "compact,delete", "segment.ms": "60000"})
    admin.apply([drifted])
    found = {(change.setting, change.wanted) for change in admin.diff([topic])}
    assert found == {
        ("retention.ms", "-1"),
        ("cleanup.policy", "delete"),
        ("max.message.bytes", "100000"),
        ("segment.ms", None),  # set on the topic, not in its description: back to the default
    }
    assert {(change.setting, change.wanted) for change in admin.apply([topic])} == found
    assert admin.diff([topic]) == []


def test_a_list_setting_in_another_order_is_no_difference(running: Broker) -> None:
    admin = TopicAdmin(running.bootstrap)
    topic = described(cleanup_policy="compact,delete")
    admin.apply([topic])
    assert admin.diff([replace(topic, config={**topic.config, "cleanup.policy": "delete,compact"})]) == []


def test_a_partition_count_is_never_changed_and_nothing_else_is_then(running: Broker) -> None:
    admin = TopicAdmin(running.bootstrap)
    topic, absent = described(partitions=3), described()
    admin.apply([topic])
    more = replace(topic, partitions=4, config={**topic.config, "retention.ms": "1000"})
    assert "partitions is 3, should be 4" in [str(change).partition(": ")[2] for change in admin.diff([more])]
    with pytest.raises(UsageError, match=r"keys decide order.*partitions is 3, should be 4.*Nothing was changed"):
        admin.apply([more, absent])
    assert admin.diff([topic]) == []
    assert [change.kind for change in admin.diff([absent])] == ["create"]


def test_a_partition_count_changed_behind_our_back_is_reported(running: Broker) -> None:
    admin = TopicAdmin(running.bootstrap)
    topic = described(partitions=1)
    admin.apply([topic])
    client = AdminClient({"bootstrap.servers": running.bootstrap})
    for future in client.create_partitions([NewPartitions(topic.name, 2)]).values():
        future.result(60)
    assert until(lambda: [change.kind for change in admin.diff([topic])] == ["partitions"])


def test_a_setting_that_the_broker_does_not_know_is_refused_with_its_words(running: Broker) -> None:
    topic = described(no_such_setting="1")
    with pytest.raises(UsageError, match=r"no\.such\.setting"):
        TopicAdmin(running.bootstrap).apply([topic])


def test_end_offsets_count_records_and_name_what_is_missing(running: Broker) -> None:
    admin = TopicAdmin(running.bootstrap)
    topic = described()
    admin.apply([topic])
    produce(running.bootstrap, topic.name, [b"x"] * 40)
    ends = admin.end_offsets([topic.name])
    assert set(ends) == {(topic.name, partition) for partition in range(3)}
    assert sum(ends.values()) == 40
    assert admin.end_offsets([]) == {}
    with pytest.raises(UsageError, match=r"test\.absent\.v1; run `leadstream topics apply`"):
        admin.end_offsets([topic.name, "test.absent.v1"])


def test_asking_does_not_create(running: Broker) -> None:
    admin = TopicAdmin(running.bootstrap)
    topic = described()
    for _ in range(2):
        assert [change.kind for change in admin.diff([topic])] == ["create"]


def test_a_broker_that_is_away_is_a_transient_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    admin = TopicAdmin(address, timeout_s=0.5)
    with pytest.raises(TransientError, match="is it running"):
        admin.diff([TOPICS[GALLERY]])


def test_a_faust_worker_reads_and_writes_every_record_once(running: Broker, tmp_path: Path) -> None:
    source, target = described(partitions=4), described(partitions=4)
    TopicAdmin(running.bootstrap).apply([source, target])
    values = [f"value {number}".encode() for number in range(300)]
    produce(running.bootstrap, source.name, values)
    log = tmp_path / "faust.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [
                *(sys.executable, str(HERE / "faust_echo.py")),
                *(running.bootstrap, source.name, target.name, str(tmp_path / "faust")),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        admin = TopicAdmin(running.bootstrap)
        complete = until(lambda: sum(admin.end_offsets([target.name]).values()) >= len(values), timeout_s=90)
        assert complete, log.read_text(encoding="utf-8")[-2000:]
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    finally:
        worker.kill()
        worker.wait()
    assert read_all(running.bootstrap, target.name) == {value.upper() for value in values}
    assert sum(admin.end_offsets([target.name]).values()) == len(values)
    committed = _committed(running.bootstrap, f"echo-{source.name}", source)
    assert committed == admin.end_offsets([source.name])


def _committed(bootstrap: str, group: str, topic: TopicSpec) -> dict[tuple[str, int], int]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    try:
        asked = [TopicPartition(topic.name, partition) for partition in range(topic.partitions)]
        return {(at.topic, at.partition): max(at.offset, 0) for at in consumer.committed(asked, timeout=60)}
    finally:
        consumer.close()


def test_the_shared_broker_of_the_session_serves(bootstrap: str) -> None:
    client = AdminClient({"bootstrap.servers": bootstrap})
    brokers = client.list_topics(timeout=60).brokers
    assert len(brokers) == 1
