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
    key: str = ""


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


class ChainedWork:
    """Events of several chains that each take some turns of the event loop."""

    def __init__(self, takes: list[tuple[str, int]], fails: int | None = None) -> None:
        self.acknowledged: list[tuple[str, int]] = []
        self.events = [Event(Message("tp", key), n, self.acknowledged) for n, (key, _) in enumerate(takes)]
        self.turns = [count for _, count in takes]
        self.fails = fails
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.at_once_in_a_chain = 0
        self.at_once = 0
        self.all_ended_or_one_failed = asyncio.Event()

    async def stream(self) -> AsyncIterator[Any]:
        for event in self.events:
            yield event
        await self.all_ended_or_one_failed.wait()
        await turns(5)

    async def deal_with(self, event: Event) -> bool:
        self.begun.append(event.offset)
        under_way = [self.events[n] for n in self.begun if n not in self.ended]
        self.at_once = max(self.at_once, len(under_way))
        self.at_once_in_a_chain = max(
            self.at_once_in_a_chain, sum(each.message.key == event.message.key for each in under_way)
        )
        await turns(self.turns[event.offset])
        self.ended.append(event.offset)
        if len(self.ended) == len(self.events) or event.offset == self.fails:
            self.all_ended_or_one_failed.set()
        return event.offset != self.fails

    def run(self, at_once: int) -> None:
        asyncio.run(
            work_through(self.stream(), self.deal_with, at_once=at_once, chain_of=lambda event: event.message.key)
        )

    def of_chain(self, key: str, of: list[int]) -> list[int]:
        return [n for n in of if self.events[n].message.key == key]


chained = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), min_size=1, max_size=12)


@settings(deadline=None)
@given(chained, st.integers(1, 6))
def test_events_of_a_chain_are_dealt_with_one_after_the_other_in_their_order(
    takes: list[tuple[str, int]], at_once: int
) -> None:
    """G5: of what is said about one booking the last word counts."""
    work = ChainedWork(takes)
    work.run(at_once)
    for key in "abc":
        assert work.of_chain(key, work.ended) == work.of_chain(key, list(range(len(takes))))
    assert work.at_once_in_a_chain == 1
    assert work.at_once <= at_once
    assert work.acknowledged == [("tp", n) for n in range(len(takes))]


def test_chains_go_on_beside_one_another() -> None:
    work = ChainedWork([("a", 9), ("a", 1), ("b", 1), ("c", 1)])
    work.run(4)
    assert work.at_once == 3
    assert work.ended == [2, 3, 0, 1]


@settings(deadline=None)
@given(chained, st.integers(1, 6), st.data())
def test_nothing_is_begun_behind_an_event_of_its_chain_that_was_not_dealt_with(
    takes: list[tuple[str, int]], at_once: int, data: st.DataObject
) -> None:
    """G5, G12: after a later event of its booking it would be taken for a late repeat, and never be answered."""
    fails = data.draw(st.integers(0, len(takes) - 1))
    work = ChainedWork(takes, fails)
    work.run(at_once)
    assert not [n for n in work.of_chain(takes[fails][0], work.begun) if n > fails]
    assert work.acknowledged == [("tp", n) for n in range(len(work.acknowledged))]
    assert len(work.acknowledged) <= fails
