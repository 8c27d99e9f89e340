"""Works on several events of a stream at once, on those of a chain in their order, and acknowledges in order.

Faust keeps the set of acknowledged offsets and commits past one that is missing, if it is the first since the last
commit: acknowledged out of order, a request could be lost in a kill (G1). So an event is acknowledged only when every
earlier one of its partition was dealt with.

Events of one chain, such as all that is said about one booking, are begun one after the other: the next one when the
one before was dealt with, and never if it was not (G5).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Hashable

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


class Chains:
    """Holds an event back until the one before it in its chain was dealt with.

    Args:
        chain_of: names the chain of an event; without it each event is one of its own.
    """

    def __init__(self, chain_of: Callable[[Any], Hashable] | None) -> None:
        self._chain_of = chain_of
        self._last: dict[Hashable, asyncio.Future[bool]] = {}

    async def run(self, event: Any, deal_with: Callable[[Any], Awaitable[bool]]) -> bool:
        """Deal with an event in its turn, and return whether it was; begin these in the order of the stream."""
        if self._chain_of is None:
            return await deal_with(event)
        chain = self._chain_of(event)
        before, own = self._last.get(chain), asyncio.get_running_loop().create_future()
        self._last[chain] = own
        is_dealt_with = False
        try:
            # Not after one that was not dealt with: that would be taken for a late repeat, and never be decided (G5).
            if before is None or await asyncio.shield(before):
                is_dealt_with = await deal_with(event)
        finally:
            own.set_result(is_dealt_with)
            # A chain that broke stays broken, for those too whose turn has not come yet.
            if is_dealt_with and self._last[chain] is own:
                del self._last[chain]
        return is_dealt_with


async def work_through(
    events: AsyncIterable[Any],
    deal_with: Callable[[Any], Awaitable[bool]],
    *,
    at_once: int,
    chain_of: Callable[[Any], Hashable] | None = None,
) -> None:
    """Deal with events, several at once, until one says that the worker stops.

    Args:
        events: a stream's events that it does not acknowledge by itself.
        deal_with: deals with one event; False: it was not dealt with, because the worker stops.
        at_once: how many at most; those that wait in their chain count.
        chain_of: names the chain of an event; without it each event is one of its own.
    """
    order, free, stopping, moved = InOrder(), asyncio.Semaphore(at_once), asyncio.Event(), asyncio.Event()
    under_way: set[asyncio.Task[None]] = set()
    chains = Chains(chain_of)

    async def run(event: Any) -> None:
        stops = True
        try:
            if await chains.run(event, deal_with):
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
            # Tasks take their first step in the order in which they were made, so a chain keeps that order.
            task = asyncio.create_task(run(event))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
    finally:
        # What is cancelled here is not acknowledged, and whoever comes next decides it.
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
