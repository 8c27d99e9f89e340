"""The watch over the audit trail: what it answers while the trail keeps up, stands still, or cannot be asked about."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from structlog.testing import capture_logs

from schemas.errors import TransientError
from streams import audit_watch
from streams.audit_watch import AuditWatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest

PLACE = ("t", 0)
LIMIT_S = 30.0


class Scripted:
    """Kafka and a trail, as a test sets them."""

    def __init__(self, audited: int) -> None:
        self.end, self.audited, self.away = 5, audited, False
        self._looks = 0
        self._looked = threading.Condition()

    def __call__(self) -> tuple[dict[tuple[str, int], int], dict[tuple[str, int], int]]:
        with self._looked:
            self._looks += 1
            self._looked.notify_all()
        if self.away:
            raise TransientError("Kafka is away.")
        return {PLACE: self.audited}, {PLACE: self.end}

    async def look_again(self) -> None:
        """Return when a look that began after this call has ended."""

        def wait() -> bool:
            with self._looked:
                begun = self._looks
                return self._looked.wait_for(lambda: self._looks >= begun + 2, LIMIT_S)

        assert await asyncio.to_thread(wait)


def watched(
    test: Callable[[AuditWatch, Scripted], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
    *,
    settle_s: float,
    audited: int = 5,
) -> None:
    monkeypatch.setattr(audit_watch, "LOOK_EVERY_S", 0.001)

    async def run() -> None:
        scripted = Scripted(audited)
        watch: Any = AuditWatch(scripted, settle_s=settle_s)
        await watch.start()
        try:
            await test(watch, scripted)
        finally:
            await watch.stop()

    asyncio.run(run())


def test_a_trail_that_keeps_up_is_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(watch: AuditWatch, _: Scripted) -> None:
        assert await watch.is_within(LIMIT_S)

    watched(test, monkeypatch, settle_s=LIMIT_S)


def test_a_trail_that_stands_still_is_told_at_once_when_kafka_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(watch: AuditWatch, scripted: Scripted) -> None:
        scripted.end = 6
        await scripted.look_again()
        while await watch.is_within(0.0):  # The last complete look grows old.
            await scripted.look_again()
        scripted.audited = 6
        await scripted.look_again()
        assert await watch.is_within(LIMIT_S)

    watched(test, monkeypatch, settle_s=0.0)


def test_a_trail_that_never_was_complete_is_too_late_for_any_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(watch: AuditWatch, scripted: Scripted) -> None:
        await scripted.look_again()
        assert not await watch.is_within(1e9)

    watched(test, monkeypatch, settle_s=0.0, audited=4)


def test_after_a_start_what_is_not_known_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(watch: AuditWatch, scripted: Scripted) -> None:
        asking = asyncio.ensure_future(watch.is_within(LIMIT_S))
        await scripted.look_again()
        assert not asking.done(), "the sink may not have had its turn"
        scripted.audited = 5
        assert await asking

    watched(test, monkeypatch, settle_s=1e6, audited=4)


def test_after_an_outage_of_kafka_the_trail_has_time_to_catch_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody could ask about is not held against the trail; what it then does not reach is."""

    async def test(watch: AuditWatch, scripted: Scripted) -> None:
        await scripted.look_again()
        scripted.away = True
        with capture_logs() as said:
            await scripted.look_again()
            await scripted.look_again()
        assert [line["reason"] for line in said] == ["Kafka is away."], "said once a period, not at every look"
        scripted.away, scripted.end = False, 9
        asking = asyncio.ensure_future(watch.is_within(0.05))
        await scripted.look_again()
        scripted.audited = 9
        assert await asking

    watched(test, monkeypatch, settle_s=1e6)
