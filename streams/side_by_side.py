"""Works on several events of a stream at once and acknowledges each partition's in their order.

Faust keeps the set of acknowledged offsets and commits past one that is missing, if it is the first since the last
commit: acknowledged out of order, a request could be lost in a kill (G1). So an event is acknowledged only when every
earlier one of its partition was dealt with.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable

    from faust.types import TP


MOST_UNACKNOWLEDGED = 1000
"""Behind one that cannot end no more than these are worked on: the backlog waits in Kafka."""


class InOrder:
    """Acknowledges events partition by partition, each after those before it."""

    def __init__(self) -> None:
        self._begun: defaultdict[TP, deque[Any]] = defaultdict(deque)
        self._done: set[int] = set()

    @property
    def unacknowledged(self) -> int:
        """How many events were begun and not acknowledged."""
        return sum(map(len, self._begun.values()))

    def begin(self, event: Any) -> None:
        """Take note of an event, in the order of its partition."""
        self._begun[event.message.tp].append(event)

    def end(self, event: Any) -> None:
        """Take note that an event was dealt with; acknowledge it when nothing before it is still under way."""
        self._done.add(id(event))
        begun = self._begun[event.message.tp]
        while begun and id(begun[0]) in self._done:
            first = begun.popleft()
            self._done.discard(id(first))
            first.ack()


async def work_through(
    events: AsyncIterable[Any], deal_with: Callable[[Any], Awaitable[bool]], *, at_once: int
) -> None:
    """Deal with events, several at once, until one says that the worker stops.

    Args:
        events: a stream's events that it does not acknowledge by itself.
        deal_with: deals with one event; False: it was not dealt with, because the worker stops.
        at_once: how many at most.
    """
    order, free, stopping, moved = InOrder(), asyncio.Semaphore(at_once), asyncio.Event(), asyncio.Event()
    under_way: set[asyncio.Task[None]] = set()

    async def run(event: Any) -> None:
        stops = True
        try:
            if await deal_with(event):
                order.end(event)
                stops = False
        finally:
            if stops:
                stopping.set()
            moved.set()
            free.release()

    try:
        async for event in events:
            await free.acquire()
            while order.unacknowledged >= MOST_UNACKNOWLEDGED and not stopping.is_set():
                moved.clear()
                await moved.wait()
            if stopping.is_set():
                return
            order.begin(event)
            task = asyncio.create_task(run(event))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
    finally:
        # What is cancelled here is not acknowledged, and whoever comes next decides it.
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
