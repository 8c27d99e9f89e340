"""Events of ours on a broker: when `send_all` returns, all of them stand where their keys belong, in their order."""

from __future__ import annotations

from collections import Counter
from uuid import uuid4

import pytest
from builders import list_issued

from connectors.kafka_log import KafkaLog
from connectors.record_sender import RecordSender
from connectors.topic_admin import TopicAdmin
from schemas.codec import decode
from schemas.errors import TransientError, UsageError
from schemas.events import CandidateListIssued
from schemas.keys import key_of, partition_of
from schemas.topics import PROBE_OUTCOMES, TOPICS


def test_when_it_returns_every_event_stands_where_its_key_belongs_and_in_order(bootstrap: str) -> None:
    TopicAdmin(bootstrap).apply(TOPICS.values())
    config: dict[str, str | int | bool] = {"bootstrap.servers": bootstrap}
    log, probes = KafkaLog(config), [uuid4() for _ in range(20)]
    events = [list_issued(probe_id=probe, case_number=f"{turn}") for turn in range(3) for probe in probes]
    before = log.end_offsets([PROBE_OUTCOMES])
    sender = RecordSender(config)
    sender.send_all(events)
    sender.send_all([])
    after = log.end_offsets([PROBE_OUTCOMES])
    found = {
        record.position: decode(record.value)
        for (topic, partition), end in after.items()
        for record in log.read(topic, partition, before[topic, partition], end)
    }
    assert Counter(event.event_id for event in events) == Counter(event.event_id for event in found.values())
    for position, event in found.items():
        assert partition_of(PROBE_OUTCOMES, key_of(event)) == position.partition
    for probe in probes:
        said = [e.case_number for e in found.values() if isinstance(e, CandidateListIssued) and e.probe_id == probe]
        assert said == ["0", "1", "2"]
    sender.close()


def test_what_kafka_never_takes_is_told_apart_from_a_kafka_that_is_away(bootstrap: str) -> None:
    sender = RecordSender({"bootstrap.servers": bootstrap})
    with pytest.raises(UsageError, match="does not take"):
        sender.send_all([list_issued(case_number="9" * 5_000_000)])
    away = RecordSender({"bootstrap.servers": "127.0.0.1:9"}, timeout_s=0.5)
    with pytest.raises(TransientError, match="did not acknowledge"):
        away.send_all([list_issued()])
