"""The watch over court orders on a broker: it finds them among bookings, and drops what the workers committed."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from builders import booking_recorded, record_order
from confluent_kafka import Consumer, Producer, TopicPartition

from connectors import group_progress
from connectors.group_progress import GroupProgress
from connectors.kafka_log import KafkaLog
from connectors.topic_admin import TopicAdmin
from infra.wiring import now
from processors.gallery import GalleryLedger
from schemas.codec import encode
from schemas.events import OrderKind
from schemas.keys import key_of, partition_of
from schemas.topics import BOOKING_EVENTS, TOPICS
from streams.order_watch import OrderWatch

if TYPE_CHECKING:
    import pytest

LIMIT_S = 60.0
BOOKINGS = 100


def test_an_order_is_found_among_bookings_and_waits_until_the_workers_have_committed(
    bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G5."""
    # The first group of a broker waits until the topic of all groups is made.
    monkeypatch.setattr(group_progress, "REQUEST_TIMEOUT_S", LIMIT_S)
    TopicAdmin(bootstrap).apply(TOPICS.values())
    config: dict[str, str | int | bool] = {"bootstrap.servers": bootstrap}
    log, group = KafkaLog(config), f"orders-{uuid4()}"
    progress = GroupProgress(config, group)
    replica: Any = SimpleNamespace(active=SimpleNamespace(ledger=GalleryLedger()))

    def look() -> tuple[dict[tuple[str, int], int], dict[tuple[str, int], int]]:
        committed = progress.committed([BOOKING_EVENTS])
        return committed, log.end_offsets([BOOKING_EVENTS])

    consumer = Consumer({**config, "group.id": group, "enable.auto.commit": False})

    def commit() -> dict[tuple[str, int], int]:
        ends = log.end_offsets([BOOKING_EVENTS])
        consumer.commit(offsets=[TopicPartition(*place, end) for place, end in ends.items()], asynchronous=False)
        return ends

    before = commit()
    events = [booking_recorded(f"W-{number}") for number in range(BOOKINGS)]
    order = record_order(OrderKind.SEAL, "W-7")
    producer = Producer(config)
    for event in (*events, order):
        producer.produce(
            BOOKING_EVENTS, encode(event), key_of(event), partition=partition_of(BOOKING_EVENTS, key_of(event))
        )
    producer.flush()
    appended_s = time.time()

    obeyed: list[tuple[int, int]] = []

    async def obey(partition: int, offset: int) -> None:
        obeyed.append((partition, offset))

    async def run() -> None:
        watch = OrderWatch(look, log, replica, now, obey=obey, settle_s=LIMIT_S)
        await watch._look()
        assert 0.0 <= watch._waiting_s() <= time.time() - appended_s + 1.0
        (waiting,) = watch._lag._waiting
        assert waiting.booking.encode() == key_of(order)
        assert waiting.offset >= before[BOOKING_EVENTS, waiting.partition]
        assert await watch.is_within(LIMIT_S)
        await watch._take_over()
        assert obeyed == [(waiting.partition, waiting.offset)]
        commit()
        await watch._look()
        assert (watch._waiting_s(), await watch.is_within(LIMIT_S)) == (0.0, True)

    asyncio.run(run())
    consumer.close()
