"""Records of bookings wait for one another only while many bookings are under way."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from streams.bookings import Gate


def passing(gate: Gate, count: int) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(gate.passed()) for _ in range(count)]


def test_few_pass_without_waiting() -> None:
    async def run() -> None:
        gate = Gate(many=3)
        with gate.under_way(), gate.under_way():
            (task,) = passing(gate, 1)
            await asyncio.sleep(0)
            assert task.done()

    asyncio.run(run())


def test_many_pass_together_and_whoever_is_cancelled_holds_up_nobody() -> None:
    async def run() -> None:
        gate = Gate(many=3)
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(gate.under_way())
            first, second, third = passing(gate, 3)
            await asyncio.sleep(0)
            assert not any(task.done() for task in (first, second, third))
            first.cancel()
            await second
            await asyncio.sleep(0)
            assert third.done()
            assert first.cancelled()
            (later,) = passing(gate, 1)
            await asyncio.sleep(0)
            assert not later.done(), "the gate is closed again for those who come later"
            await later

    asyncio.run(run())
