"""The reader of the sink and the followers: what it tells of its progress, and when Kafka is silent for good."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from typing import TYPE_CHECKING
from uuid import uuid4

from confluent_kafka import Producer

from connectors import group_progress, log_reader
from connectors.group_progress import GroupProgress
from connectors.log_reader import LogReader
from connectors.topic_admin import TopicAdmin
from infra.brokers import make_broker
from schemas.errors import TransientError
from schemas.topics import ACCESS, GALLERY, TOPICS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

LIMIT_S = 60.0


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not met():
        assert time.monotonic() < deadline, "it did not happen in time"


def test_what_the_sink_tells_is_what_the_workers_hear(bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first group of a broker waits until the topic of all groups is made.
    monkeypatch.setattr(group_progress, "REQUEST_TIMEOUT_S", LIMIT_S)
    TopicAdmin(bootstrap).apply(TOPICS.values())
    config, group = {"bootstrap.servers": bootstrap}, f"audit-{uuid4()}"
    told = {(GALLERY, 3): 17, (ACCESS, 0): 4}
    progress = GroupProgress(config, group)
    assert set(progress.committed([GALLERY, ACCESS]).values()) == {0}, "nothing was told yet"
    with closing(LogReader(config, group=group)) as reader:
        reader.tell(told)
        until(lambda: {place: at for place, at in progress.committed([GALLERY, ACCESS]).items() if at} == told)


def test_a_broker_that_is_frozen_is_noticed_and_reading_goes_on_when_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It closes no connection and says nothing, as if nothing had happened in its topics."""
    monkeypatch.setattr(log_reader, "SILENCE_S", 0.5)
    with make_broker("embedded", tmp_path) as broker:
        TopicAdmin(broker.bootstrap).apply(TOPICS.values())
        config = {"bootstrap.servers": broker.bootstrap}
        with closing(LogReader(config)) as reader:
            reader.start({(ACCESS, 0): 0})
            until(lambda: not is_away(reader))
            os.kill(broker.pid, signal.SIGSTOP)
            try:
                until(lambda: is_away(reader))
            finally:
                os.kill(broker.pid, signal.SIGCONT)
            until(lambda: not is_away(reader))
            producer = Producer(config)
            producer.produce(ACCESS, b"value", b"key", partition=0)
            assert producer.flush(LIMIT_S) == 0
            until(lambda: heard(reader) == [b"value"])


def heard(reader: LogReader) -> list[bytes | None] | None:
    """Return what the next records say, or None while the broker does not answer in half a second."""
    try:
        return [record.value for record in reader.read(0.6)]
    except TransientError:
        return None


def is_away(reader: LogReader) -> bool:
    return heard(reader) is None
