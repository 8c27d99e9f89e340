"""Watches court orders that wait: they are obeyed ahead of their turn, and past a bound no search is made (G5).

It looks at all partitions of the booking topic, whichever worker has them: each has every template in memory, and so
would list whom the order protects. What an order waits for is told by what the group of workers has committed and by
this worker's own gallery. `processors/order_lag.py` says what is read, and when nothing is.

An order waits behind a backlog of bookings, or for a worker that died and is not back yet. Any worker may take out what
it protects: whichever does so first, and however often, what stands later in the topic counts (docs/adr/0015).
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

import faust
import structlog

from processors.order_lag import OrderLag, WaitingOrder
from schemas.codec import decode_for, record_name
from schemas.errors import ContractError, IntegrityError, TransientError
from schemas.events import OrderKind, RecordOrderReceived
from schemas.records import RecordBatch
from schemas.topics import BOOKING_EVENTS
from streams.guard import safe_text_of
from streams.ports import NO_TELEMETRY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from streams.ports import BookingProgress, Clock, Log, Telemetry
    from streams.replica import Replica

LOOK_EVERY_S = 1.0
WARN_EVERY_S = 30.0
READ_WAIT_S = 0.5
DELIVERY_TIMEOUT_S = 30.0
"""For so long no record may come of what Kafka says it has."""

log = structlog.get_logger()


class OrderWatch(faust.Service):
    """Looks for orders that wait, every second, and obeys them.

    Args:
        progress: asks how far the workers and Kafka are with the booking topic.
        kafka: for reading what the workers have not come to.
        replica: knows what was obeyed.
        clock: for the age of an order when it is found.
        obey: takes out of the gallery what the order at an offset of a partition protects; where it cannot, the order
            is left to the worker whose turn it is.
        settle_s: for how long a search waits for a look while too little is known; then it is not made.
        telemetry: told after every look.
    """

    def __init__(
        self,
        progress: BookingProgress,
        kafka: Log,
        replica: Replica,
        clock: Clock,
        *,
        obey: Callable[[int, int], Awaitable[None]],
        settle_s: float,
        telemetry: Telemetry = NO_TELEMETRY,
    ) -> None:
        super().__init__()
        self._progress = progress
        self._kafka = kafka
        self._replica = replica
        self._clock = clock
        self._obey = obey
        self._taken_over: set[tuple[int, int]] = set()
        """(partition, offset) of orders that wait and were obeyed here, or left to the worker whose turn it is."""
        self._settle_s = settle_s
        self._telemetry = telemetry
        self._lag = OrderLag()
        self._looked = asyncio.Condition()

    async def is_within(self, limit_s: float) -> bool:
        """Tell whether no order waits, or may wait, for longer than this."""
        deadline = _now() + self._settle_s
        async with self._looked:
            while self._waiting_s() <= limit_s:
                if self._lag.unknown_s(_now()) <= limit_s:
                    return True
                if _now() >= deadline:
                    return False
                await self._looked.wait()
        return False

    @faust.Service.task
    async def _watch(self) -> None:
        warned_at = -math.inf
        while not self.should_stop:
            try:
                await self._look()
                await self._take_over()
            except TransientError as error:
                if _now() - warned_at >= WARN_EVERY_S:
                    warned_at = _now()
                    log.warning("waiting orders not known", reason=str(error))
            self._telemetry.orders_behind(max(self._waiting_s(), self._lag.unknown_s(_now())))
            async with self._looked:
                self._looked.notify_all()
            await self.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        asked_at = _now()
        committed, ends = (_by_partition(offsets) for offsets in await asyncio.to_thread(self._progress))
        unread = self._lag.unread(asked_at, committed, ends)
        found = await asyncio.to_thread(self._find, unread, _now()) if unread else []
        self._lag.note(asked_at, ends, unread, found)

    async def _take_over(self) -> None:
        """Obey what has waited since an earlier look, in the order of each partition."""
        waiting = self._lag.waiting(self._is_obeyed)
        self._taken_over &= {(order.partition, order.offset) for order in waiting}
        for order in sorted(waiting, key=lambda each: (each.partition, each.offset)):
            place = (order.partition, order.offset)
            if place in self._taken_over:
                continue
            try:
                await self._obey(*place)
            except (TransientError, IntegrityError):
                raise
            except Exception as error:  # noqa: BLE001 - the guard deals with it when its turn comes (G12)
                reason = safe_text_of(error)
                log.info("waiting order left to its worker", place=f"{place[0]}/{place[1]}", reason=reason)
            self._taken_over.add(place)

    def _find(self, unread: Mapping[int, tuple[int, int]], now_s: float) -> list[WaitingOrder]:
        """Return the orders in parts of the booking topic.

        Raises:
            TransientError: Kafka does not deliver.
        """
        found = []
        stops = {partition: stop for partition, (_, stop) in unread.items()}
        tail = self._kafka.tail({(BOOKING_EVENTS, partition): start for partition, (start, _) in unread.items()})
        heard_at = time.monotonic()
        try:
            while stops:
                records = RecordBatch.of(tail.read(READ_WAIT_S))
                for number, value in enumerate(records.values):
                    if record_name(value) == RecordOrderReceived.AVRO_NAME:
                        order = records[number]
                        if _is_unseal(order.value):
                            continue  # It protects nobody; it has its turn.
                        age_s = max(0.0, self._clock().timestamp() - order.timestamp_ms / 1000)
                        booking = (order.key or b"").decode(errors="replace")
                        found.append(WaitingOrder(now_s - age_s, order.partition, order.offset, booking))
                passed = {**_by_partition(tail.passed()), **records.ends}
                stops = {place: stop for place, stop in stops.items() if passed.get(place, 0) < stop}
                if records:
                    heard_at = time.monotonic()
                elif self.should_stop or time.monotonic() - heard_at > DELIVERY_TIMEOUT_S:
                    raise TransientError(f"Kafka does not deliver {BOOKING_EVENTS}.")
        finally:
            tail.close()
        return found

    def _waiting_s(self) -> float:
        return self._lag.waiting_s(_now(), self._is_obeyed)

    def _is_obeyed(self, booking: str, offset: int) -> bool:
        # By the generation that is searched at this moment, and not by the one of the look.
        return self._replica.active.ledger.has_reached(booking, offset)


def _is_unseal(value: bytes | None) -> bool:
    try:
        event = decode_for(BOOKING_EVENTS, value)
    except ContractError:
        return False
    return isinstance(event, RecordOrderReceived) and event.order is OrderKind.UNSEAL


def _by_partition(offsets: Mapping[tuple[str, int], int]) -> dict[int, int]:
    return {partition: offset for (_, partition), offset in offsets.items()}


def _now() -> float:
    return asyncio.get_running_loop().time()
