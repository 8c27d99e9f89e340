"""The watch over court orders: what it answers while they are obeyed, wait, or cannot be asked about (G5)."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from builders import booking_recorded, record_order, unsigned
from memory import MemoryKafka, MemoryReader
from structlog.testing import capture_logs

from processors.gallery import GalleryLedger
from schemas.codec import encode
from schemas.errors import ContractError, DomainFault, TransientError
from schemas.events import OrderKind, WithdrawalCause
from schemas.keys import key_of
from schemas.topics import BOOKING_EVENTS
from streams import order_watch
from streams.order_watch import OrderWatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from schemas.events import Event

PLACES = [(BOOKING_EVENTS, 0), (BOOKING_EVENTS, 5)]
LIMIT_S = 30.0


class Scripted(MemoryKafka):
    """The booking topic, and workers who deal with it as a test says."""

    def __init__(self) -> None:
        super().__init__(PLACES)
        self.committed = dict.fromkeys(PLACES, 0)
        self.ledger = GalleryLedger()
        self.away = False
        self.read: list[int] = []
        """How many records a look had to read."""
        self.taken_over: list[tuple[int, int]] = []
        self.refuses: Exception | None = None
        self._looks = 0
        self._looked = threading.Condition()

    def progress(self) -> tuple[dict[tuple[str, int], int], dict[tuple[str, int], int]]:
        with self._looked:
            self._looks += 1
            self._looked.notify_all()
        if self.away:
            raise TransientError("Kafka is away.")
        return dict(self.committed), {place: len(self.everything[place]) for place in PLACES}

    def tail(self, start: Mapping[tuple[str, int], int]) -> Any:
        self.read.append(sum(len(self.everything[place]) - at for place, at in start.items()))
        reader = MemoryReader(self, at_once=2, drained=lambda: None)
        reader.start(start)
        return reader

    def say(self, event: Event, partition: int = 5) -> int:
        """Write a record, and return its offset."""
        return self.append(replace(unsigned(event), partition=partition), event).offset

    def obey(self, event: Event, offset: int) -> None:
        """Let the gallery of this worker come to an order that was obeyed."""
        self.ledger.judge_as(
            key_of(event).decode(),
            source_offset=offset,
            position=(0, 0),
            withdrawn=WithdrawalCause.SEALED,
            said_at_us=0,
        )

    async def take_over(self, partition: int, offset: int) -> None:
        """Be asked to obey an order ahead of its turn."""
        self.taken_over.append((partition, offset))
        if self.refuses is not None:
            raise self.refuses

    def catch_up(self) -> None:
        """Let the workers commit everything."""
        self.committed = {place: len(self.everything[place]) for place in PLACES}

    async def look_again(self) -> None:
        """Return when a look that began after this call has ended."""

        def wait() -> bool:
            with self._looked:
                begun = self._looks
                return self._looked.wait_for(lambda: self._looks >= begun + 2, LIMIT_S)

        assert await asyncio.to_thread(wait)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setattr(order_watch, "LOOK_EVERY_S", 0.001)

    def run(test: Callable[[OrderWatch, Scripted], Awaitable[None]], scripted: Scripted, settle_s: float) -> None:
        async def watch_and_test() -> None:
            replica: Any = SimpleNamespace(active=SimpleNamespace(ledger=scripted.ledger))
            kafka: Any = scripted
            watch: Any = OrderWatch(
                scripted.progress,
                kafka,
                replica,
                lambda: scripted.now,
                obey=scripted.take_over,
                settle_s=settle_s,
            )
            await watch.start()
            try:
                await test(watch, scripted)
            finally:
                await watch.stop()

        asyncio.run(watch_and_test())

    return run


def test_while_the_workers_keep_up_searches_are_made_and_nothing_is_read(watched: Callable[..., None]) -> None:
    async def test(watch: OrderWatch, scripted: Scripted) -> None:
        assert await watch.is_within(LIMIT_S)
        for _ in range(3):
            scripted.say(record_order(OrderKind.SEAL))
            scripted.catch_up()
            await scripted.look_again()
        assert await watch.is_within(LIMIT_S)
        assert scripted.read == []

    watched(test, Scripted(), LIMIT_S)


def test_an_order_that_waits_for_too_long_stops_searches_until_it_is_obeyed(watched: Callable[..., None]) -> None:
    """Also where another worker has its partition: all partitions are looked at."""
    seal = record_order(OrderKind.SEAL)
    scripted = Scripted()
    scripted.say(booking_recorded("B-1"))
    offset = scripted.say(seal)
    scripted.seconds += 100

    async def test(watch: OrderWatch, scripted: Scripted) -> None:
        assert not await watch.is_within(99.0)
        assert await watch.is_within(200.0)
        scripted.obey(seal, offset)
        assert await watch.is_within(LIMIT_S), "its own gallery is asked, not the group, whose commits come later"

    watched(test, scripted, LIMIT_S)


@pytest.mark.parametrize("framing", ["single object", "confluent"])
def test_a_backlog_of_bookings_and_of_what_nobody_can_read_stops_no_search(
    watched: Callable[..., None], framing: str
) -> None:
    scripted = Scripted()
    for number in range(5):
        scripted.say(booking_recorded(f"B-{number}"), partition=5 * (number % 2))
    # Without a registry no worker can read it, so it is refused and nobody waits for it to be obeyed.
    other = encode(record_order(OrderKind.SEAL), schema_id=7) if framing == "confluent" else b"\xc3\x01" + bytes(8)
    scripted.append(replace(unsigned(record_order(OrderKind.SEAL)), value=other), None)
    scripted.seconds += 100

    async def test(watch: OrderWatch, scripted: Scripted) -> None:
        assert await watch.is_within(LIMIT_S)
        await scripted.look_again()
        assert scripted.read == [6], "once, though it stands there still"

    watched(test, scripted, LIMIT_S)


def test_a_refused_order_waits_no_longer_when_the_workers_have_passed_it(watched: Callable[..., None]) -> None:
    scripted = Scripted()
    scripted.say(record_order(OrderKind.EXPUNGE))
    scripted.refuses = DomainFault("UNAUTHENTICATED", "Nobody known signed it.")
    scripted.seconds += 100

    async def test(watch: OrderWatch, scripted: Scripted) -> None:
        assert not await watch.is_within(LIMIT_S)
        scripted.catch_up()
        await scripted.look_again()
        assert await watch.is_within(LIMIT_S)

    watched(test, scripted, LIMIT_S)


def test_a_waiting_seal_is_obeyed_once_ahead_of_its_turn_and_an_unseal_never(watched: Callable[..., None]) -> None:
    scripted = Scripted()
    scripted.say(booking_recorded("B-1"))
    first, _, second = (
        scripted.say(record_order(kind)) for kind in (OrderKind.SEAL, OrderKind.UNSEAL, OrderKind.EXPUNGE)
    )

    async def test(_watch: OrderWatch, scripted: Scripted) -> None:
        for _ in range(3):
            await scripted.look_again()
        assert scripted.taken_over == [(5, first), (5, second)], "in the order in which they stand"

    watched(test, scripted, LIMIT_S)


@pytest.mark.parametrize(
    ("refuses", "times"),
    [(DomainFault("UNAUTHENTICATED", "-"), "once"), (ContractError("-"), "once"), (TransientError("-"), "again")],
)
def test_an_order_that_cannot_be_obeyed_is_left_to_its_worker_and_tried_again_when_the_world_was_away(
    watched: Callable[..., None], refuses: Exception, times: str
) -> None:
    scripted = Scripted()
    scripted.refuses = refuses
    offset = scripted.say(record_order(OrderKind.SEAL))

    async def test(_watch: OrderWatch, scripted: Scripted) -> None:
        for _ in range(3):
            await scripted.look_again()
        assert set(scripted.taken_over) == {(5, offset)}
        assert (len(scripted.taken_over) > 1) is (times == "again")

    watched(test, scripted, LIMIT_S)


def test_before_the_first_look_a_search_waits(watched: Callable[..., None]) -> None:
    async def test(watch: OrderWatch, scripted: Scripted) -> None:
        asking = asyncio.ensure_future(watch.is_within(LIMIT_S))
        await scripted.look_again()
        assert not asking.done()
        scripted.away = False
        assert await asking

    scripted = Scripted()
    scripted.away = True
    watched(test, scripted, 1e6)


def test_a_watch_that_cannot_ask_says_so_now_and_then_and_searches_stop(watched: Callable[..., None]) -> None:
    async def test(watch: OrderWatch, scripted: Scripted) -> None:
        await scripted.look_again()
        assert await watch.is_within(LIMIT_S)
        scripted.away = True
        with capture_logs() as said:
            await scripted.look_again()
            while await watch.is_within(0.0):  # What is known grows old.
                await scripted.look_again()
        assert [line["reason"] for line in said] == ["Kafka is away."], "said once a period, not at every look"
        assert await watch.is_within(LIMIT_S), "what was known is good for as long as an order may wait"

    watched(test, Scripted(), 0.0)
