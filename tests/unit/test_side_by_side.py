"""Several events at once, each partition's acknowledged in their order (G1)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.side_by_side import InOrder, work_through

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass
class Message:
    tp: str


@dataclass(eq=False)
class Event:
    """One record of a partition; notes its acknowledgement."""

    message: Message
    offset: int
    acknowledged: list[tuple[str, int]] = field(repr=False)

    def ack(self) -> None:
        self.acknowledged.append((self.message.tp, self.offset))


@settings(deadline=None)
@given(st.permutations(range(8)), st.integers(0, 8))
def test_an_event_is_acknowledged_when_all_before_it_were_dealt_with(order: list[int], ended: int) -> None:
    acknowledged: list[tuple[str, int]] = []
    events = [Event(Message("even" if n % 2 == 0 else "odd"), n, acknowledged) for n in range(8)]
    in_order = InOrder()
    for event in events:
        in_order.begin(event)
    for number in order[:ended]:
        in_order.end(events[number])
    for tp in ("even", "odd"):
        own = [n for n in range(8) if events[n].message.tp == tp]
        done = set(order[:ended])
        leading = own[: next((i for i, n in enumerate(own) if n not in done), len(own))]
        assert [offset for name, offset in acknowledged if name == tp] == leading


class Work:
    """Events that end when the test says so."""

    def __init__(self, count: int, refused: int | None = None) -> None:
        self.acknowledged: list[tuple[str, int]] = []
        self.events = [Event(Message("tp"), offset, self.acknowledged) for offset in range(count)]
        self.may_end = [asyncio.Event() for _ in range(count)]
        self.begun: list[int] = []
        self.refused = refused

    async def stream(self) -> AsyncIterator[Any]:
        for event in self.events:
            yield event

    async def deal_with(self, event: Event) -> bool:
        self.begun.append(event.offset)
        await self.may_end[event.offset].wait()
        return event.offset != self.refused


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_no_more_than_allowed_are_under_way_and_none_is_lost() -> None:
    async def run() -> None:
        work = Work(5)
        working = asyncio.create_task(work_through(work.stream(), work.deal_with, at_once=3))
        await turns()
        assert work.begun == [0, 1, 2]
        work.may_end[1].set()
        await turns()
        assert (work.begun, work.acknowledged) == ([0, 1, 2, 3], [])
        work.may_end[0].set()
        await turns()
        assert work.acknowledged == [("tp", 0), ("tp", 1)]
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        assert work.acknowledged == [("tp", 0), ("tp", 1)], "what was cancelled is not acknowledged"

    asyncio.run(run())


def test_when_one_cannot_be_dealt_with_it_and_what_comes_after_is_not_acknowledged() -> None:
    async def run() -> None:
        work = Work(5, refused=1)
        for event in work.may_end:
            event.set()
        await work_through(work.stream(), work.deal_with, at_once=2)
        assert work.acknowledged == [("tp", 0)]
        assert len(work.begun) < 5

    asyncio.run(run())
