"""The signed publisher on a broker: acknowledged, in the partition of its key, with a signature that holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connectors.kafka_log import KafkaLog
from connectors.publishing import SignedPublisher
from connectors.signing_keys import SigningKey
from connectors.topic_admin import TopicAdmin
from infra.brokers import make_broker
from schemas import signing
from schemas.avro_schemas import CURRENT_VERSIONS
from schemas.codec import CONFLUENT, decode
from schemas.errors import ContractError, TransientError, UsageError
from schemas.events import AccessGranted, OrderKind, RecordOrderReceived
from schemas.keys import key_of, partition_of
from schemas.topics import ACCESS, BOOKING_EVENTS, TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from schemas.positions import SourcePosition

AT = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
ORI = uuid4().hex[:9].upper()


@pytest.fixture(scope="module")
def config(bootstrap: str) -> dict[str, str | int | bool]:
    TopicAdmin(bootstrap).apply(TOPICS.values())
    return {"bootstrap.servers": bootstrap, "log_level": 0}


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.generate())


@pytest.fixture
def publisher(config: dict[str, str | int | bool], key: SigningKey) -> Iterator[SignedPublisher]:
    with SignedPublisher(config, key, max_in_flight=50) as publisher:
        yield publisher


def order(number: str, court: str = "Superior Court") -> RecordOrderReceived:
    return RecordOrderReceived(
        event_id=uuid4(),
        occurred_at=AT,
        actor="publisher:jail-1",
        ori=ORI,
        booking_number=number,
        order=OrderKind.SEAL,
        statute="CA PC 851.91",
        court=court,
        order_number="S-1",
        ordered_at=AT,
    )


def test_a_published_record_stands_where_the_publisher_says_and_its_signature_holds(
    config: dict[str, str | int | bool], publisher: SignedPublisher, key: SigningKey
) -> None:
    event = order("B-1")
    position = publisher.publish(event)
    record = KafkaLog(config).record_at(position.topic, position.partition, position.offset)
    assert decode(record.value) == event
    assert record.key == key_of(event)
    headers = signing.read_headers(record.headers)
    assert headers is not None
    assert headers.key_id == key.key_id
    assert signing.verify(key.public_key, record.topic, record.key or b"", record.value or b"", headers.signature)


def test_a_bulk_load_is_acknowledged_one_by_one_in_the_partitions_that_the_worker_expects(
    publisher: SignedPublisher,
) -> None:
    events = [order(f"bulk ä/{number}") for number in range(300)]
    sent = [publisher.send(event) for event in events]
    publisher.flush()
    positions = [future.result(0) for future in sent]
    assert [position.partition for position in positions] == [
        partition_of(BOOKING_EVENTS, key_of(event)) for event in events
    ]
    assert len(set(positions)) == len(events)
    assert len({position.partition for position in positions}) == TOPICS[BOOKING_EVENTS].partitions


def test_a_record_that_no_broker_takes_is_not_retried_and_not_lost_in_a_bulk_load(publisher: SignedPublisher) -> None:
    too_large = order("B-2", court="x" * 5_000_000)
    with pytest.raises(ContractError, match=str(too_large.event_id)):
        publisher.publish(too_large)
    with pytest.raises(ContractError):
        publisher.send(too_large)
    assert publisher.send(order("B-2")).result(60).topic == BOOKING_EVENTS
    publisher.flush()


def test_records_are_framed_for_a_schema_registry_where_there_is_one(
    config: dict[str, str | int | bool], key: SigningKey
) -> None:
    registry = {7: CURRENT_VERSIONS["leadstream.access.AccessGranted"]}
    event = AccessGranted(
        event_id=uuid4(), occurred_at=AT, actor="user:administrator", user_id="jdoe", reason="appointed"
    )
    with SignedPublisher(config, key, registry=registry) as publisher:
        position = publisher.publish(event)
    record = KafkaLog(config).record_at(ACCESS, position.partition, position.offset)
    assert (record.value or b"").startswith(CONFLUENT + b"\x00\x00\x00\x07")
    assert decode(record.value, registry=registry) == event


def test_topics_that_were_not_set_up_are_named_and_not_made(tmp_path: Path, key: SigningKey) -> None:
    """A broker that makes topics on demand would make them with one partition, and the order of keys would be lost."""
    with make_broker("embedded", tmp_path) as broker:
        with (
            SignedPublisher({"bootstrap.servers": broker.bootstrap}, key) as publisher,
            pytest.raises(UsageError, match="leadstream topics apply"),
        ):
            publisher.publish(order("B-3"))
        assert BOOKING_EVENTS not in AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=60).topics


def test_a_publisher_outlives_its_broker(tmp_path: Path, key: SigningKey) -> None:
    """What was not acknowledged is told, in a bulk load too; when the broker is back the same connection goes on."""
    with make_broker("embedded", tmp_path) as broker:
        TopicAdmin(broker.bootstrap).apply(TOPICS.values())
        with SignedPublisher({"bootstrap.servers": broker.bootstrap}, key, timeout_s=1) as publisher:
            before = publish_patiently(publisher)
            broker.stop()
            with pytest.raises(TransientError, match="send it again"):
                publisher.publish(order("B-4"))
            lost = [publisher.send(order("B-4")) for _ in range(3)]
            with pytest.raises(TransientError, match="3 records were not published"):
                publisher.flush()
            assert all(isinstance(future.exception(0), TransientError) for future in lost)
            publisher.flush()
            broker.start()
            after = publish_patiently(publisher)
            assert after.offset > before.offset


def publish_patiently(publisher: SignedPublisher) -> SourcePosition:
    """Send until it is acknowledged: a second is little for a first connection on a busy machine."""
    for _ in range(10):
        try:
            return publisher.publish(order("B-4"))
        except TransientError:
            continue
    return publisher.publish(order("B-4"))
