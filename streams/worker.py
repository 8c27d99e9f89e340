"""The Faust app of a worker: three agents on Kafka topics, two on the follower's channels, and nothing that decides.

booking.events.v1  -> bookings -> gallery.templates.v1, booking.outcomes.v1
probe.requests.v1  -> probes   -> probe.outcomes.v1
access.events.v1   -> access   -> dead.letters.v1 (what nobody was allowed to say)
follower           -> channels -> replica (gallery.templates.v1, access.events.v1)
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import faust
import structlog
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordTooLargeError
from faust.exceptions import FaustError

from processors import orders
from processors.refusals import Refusal
from schemas.codec import encode, topic_of
from schemas.errors import ContractError, DomainFault, IntegrityError, TransientError
from schemas.keys import key_of
from schemas.records import LogRecord
from schemas.topics import ACCESS, BOOKING_EVENTS, PROBE_REQUESTS, spec_of
from streams import unreadable_headers
from streams.audit_watch import AuditWatch
from streams.bookings import Bookings
from streams.context import Context
from streams.follower import Follower, SteadyChannel
from streams.guard import Guard, require_its_partition, safe_text_of
from streams.order_watch import OrderWatch
from streams.ports import NO_TELEMETRY
from streams.probes import Probes
from streams.replica import Replica
from streams.search_queue import SearchQueue
from streams.side_by_side import work_through
from streams.snapshots import Snapshots

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from faust import Stream
    from faust.types import TP, Message, StreamT

    from processors.access import Directory
    from processors.policy import Policy
    from schemas.events import Event
    from streams.generation import Generation
    from streams.ports import Attempts, AuditProgress, BookingProgress, Clock, Log, Objects, Telemetry

GROUP = "leadstream-worker"
CONSUMED = (BOOKING_EVENTS, PROBE_REQUESTS, ACCESS)
"""What the group works through; each record once, by one of its workers."""
HEAL_EVERY_S = 30.0
CLOSE_SEGMENTS_EVERY_S = 3600.0
"""As long as Kafka writes to one segment of the gallery: `segment.ms` in topics.toml."""
PROGRESS_EVERY_S = 5.0
PROBES_AT_ONCE = 16
"""Requests that a worker has under way: enough to keep extraction and search busy."""
BOOKINGS_AN_EXTRACTION = 16
"""Booking events under way for each image that is extracted: enough that extraction never waits for Kafka."""
POLL_RECORDS = 16
STREAM_BUFFER = 10 * POLL_RECORDS * spec_of(BOOKING_EVENTS).partitions
"""Records of a topic that a worker has in memory, about, and did not begin; the others wait in Kafka."""
FETCHED_AHEAD = 1
"""Images that are fetched while others are extracted."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What an operator decides about a worker."""

    name: str
    """Unique among the workers; its static membership in the group."""
    brokers: str
    """Comma-separated host:port."""
    data: Path
    """A folder of its own."""
    extractions_at_once: int
    barrier_limit_s: float
    dead_letter_limit: int
    snapshot_every_s: float
    withdrawn_kept_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerParts:
    """What a worker is made of; `infra/wiring.py` makes it."""

    kafka: Log
    generations: tuple[Generation, ...]
    """The gallery generations that it keeps; the first is searched until one is activated."""
    directory: Directory
    policy: Policy
    """The operator's file; it holds while no policy is activated."""
    attempts: Attempts
    objects: Objects
    clock: Clock
    audit: AuditProgress
    orders: BookingProgress
    telemetry: Telemetry = NO_TELEMETRY


class Worker:
    """A worker from start to stop.

    Args:
        settings: what an operator decides.
        parts: what it is made of.
    """

    def __init__(self, settings: WorkerSettings, parts: WorkerParts) -> None:
        self._settings = settings
        self._parts = parts
        self.app = _make_app(settings)
        self.replica = Replica(
            generations=parts.generations,
            directory=parts.directory,
            kafka=parts.kafka,
            telemetry=parts.telemetry,
        )
        self._snapshots = Snapshots(
            self.replica,
            parts.kafka,
            settings.data / "snapshots",
            every_s=settings.snapshot_every_s,
            withdrawn_kept_s=settings.withdrawn_kept_s,
        )
        self._audit = AuditWatch(parts.audit, settle_s=settings.barrier_limit_s, telemetry=parts.telemetry)
        captures_at_once = settings.extractions_at_once + FETCHED_AHEAD
        # As many again for probes.
        self._pool = ThreadPoolExecutor(2 * captures_at_once, thread_name_prefix="extraction")
        self._search_pool = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._topics: dict[str, Any] = {}
        self._caught_up = asyncio.Event()
        self._assigned = asyncio.Event()
        self._read_back: dict[int, int] = {}
        """Request partition -> the offset from which on outcomes were read back since it was assigned."""
        self._reading_back = asyncio.Lock()
        self._own_bookings: set[int] = set()
        self._last_orders: dict[tuple[str, int], tuple[str, int, bool]] = {}
        """Gallery topic and partition -> the last order there: booking, source offset, whether it was said again."""
        context = Context(
            replica=self.replica,
            own_policy=parts.policy,
            attempts=parts.attempts,
            pool=self._pool,
            searches=SearchQueue(self._search_pool),
            objects=parts.objects,
            publish=self._publish,
            clock=parts.clock,
            barrier_limit_s=settings.barrier_limit_s,
            is_audited_within=self._audit.is_within,
            are_orders_obeyed_within=self._are_orders_obeyed_within,
            captures_at_once=captures_at_once,
            many_bookings=BOOKINGS_AN_EXTRACTION * settings.extractions_at_once // 2,
            telemetry=parts.telemetry,
        )
        self._bookings = Bookings(context)
        self._orders = OrderWatch(
            parts.orders,
            parts.kafka,
            self.replica,
            parts.clock,
            obey=self._bookings.take_over,
            settle_s=settings.barrier_limit_s,
            telemetry=parts.telemetry,
        )
        self._probes = Probes(context)
        self._attach()

    async def run(self, stop: asyncio.Event, on_ready: Callable[[], None]) -> None:
        """Work until `stop` is set; `on_ready` is called when the replica has caught up and partitions are assigned.

        Raises:
            BaseException: whatever made the worker stop by itself.
        """
        await self._restore(stop)
        self.app.finalize()
        await self.app.start()
        await self.app.add_runtime_dependency(self._follower)
        await self.app.add_runtime_dependency(self._audit)
        await self.app.add_runtime_dependency(self._orders)
        await self.app.add_runtime_dependency(self._snapshots)
        stopping = asyncio.create_task(stop.wait())
        crashed = asyncio.create_task(self.app.wait_until_stopped())
        ready = asyncio.create_task(self._become_ready(on_ready))
        try:
            await asyncio.wait({stopping, crashed, ready}, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                ready.result()  # A worker that can never be ready must not look as if it were on its way.
                await asyncio.wait({stopping, crashed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stopping, crashed, ready):
                task.cancel()
            await self.app.stop()
            if stop.is_set() and not self.app.crashed:
                await self._snapshots.save()
            for pool in (self._pool, self._search_pool):
                pool.shutdown(wait=True, cancel_futures=True)
        if self.app.crashed and self.app.crash_reason is not None:
            raise self.app.crash_reason

    async def _are_orders_obeyed_within(self, limit_s: float) -> bool:
        return await self._orders.is_within(limit_s)

    async def _restore(self, stop: asyncio.Event) -> None:
        """Read the snapshots, and wait for Kafka if it is away."""
        while not stop.is_set():
            try:
                await asyncio.to_thread(self._snapshots.restore)
            except TransientError as error:
                log.warning("waiting for Kafka", reason=str(error))
                await asyncio.sleep(1)
            else:
                return

    def _attach(self) -> None:
        self._listen(
            BOOKING_EVENTS,
            "bookings",
            self._bookings.handle,
            self._bookings.give_up,
            at_once=BOOKINGS_AN_EXTRACTION * self._settings.extractions_at_once,
            chain_of=booking_of,
        )
        self._listen(PROBE_REQUESTS, "probes", self._decide_probe, self._probes.give_up, at_once=PROBES_AT_ONCE)
        self._listen(ACCESS, "access", self._report_access_refusal, _nobody_waits)
        channels = {topic: SteadyChannel(self.app) for topic in self.replica.followed}
        for topic in self.replica.generations:
            self._apply_from(channels[topic], topic, partial(self.replica.apply_gallery, topic))
        self._apply_from(channels[ACCESS], ACCESS, self.replica.apply_access)
        self._follower = Follower(self._parts.kafka, self.replica, channels)
        self.app.on_partitions_assigned.connect(cast("Any", self._on_assigned))
        self.app.on_partitions_revoked.connect(cast("Any", self._on_revoked))
        self.app.timer(HEAL_EVERY_S)(self._put_at_the_end_again)
        self.app.timer(CLOSE_SEGMENTS_EVERY_S)(self._close_segments)

    def _listen(
        self,
        topic: str,
        stage: str,
        handle: Callable[[LogRecord], Awaitable[None]],
        give_up: Callable[[LogRecord, str], Awaitable[None]],
        *,
        at_once: int = 1,
        chain_of: Callable[[Any], bytes | None] | None = None,
    ) -> None:
        guard = Guard(
            stage=stage,
            publish=self._publish,
            objects=self._parts.objects,
            clock=self._parts.clock,
            give_up=give_up,
            stop_worker=self._stop_worker,
            is_known_signer=self._is_known_signer,
            dead_letter_limit=self._settings.dead_letter_limit,
            telemetry=self._parts.telemetry,
        )

        async def handle_in_its_place(record: LogRecord) -> None:
            require_its_partition(record)
            await handle(record)

        async def deal_with(event: Any) -> bool:
            return await guard.run(handle_in_its_place, _as_record(event.message))

        async def agent(stream: StreamT[Any]) -> None:
            await self._caught_up.wait()
            # Acknowledged by hand: Faust would also acknowledge what was cancelled half-way (G1).
            events = cast("Stream[Any]", stream).noack().events()
            await work_through(events, deal_with, at_once=at_once, chain_of=chain_of)

        self.app.agent(self._topic(topic), name=stage)(agent)

    def _is_known_signer(self, record: LogRecord) -> bool:
        return not isinstance(self._parts.directory.signer_of(record), Refusal)

    def _apply_from(
        self, channel: SteadyChannel, topic: str, apply: Callable[[list[LogRecord]], Awaitable[None]]
    ) -> None:
        async def agent(stream: StreamT[Any]) -> None:
            async for batch in stream:
                try:
                    await apply(batch)
                except Exception as error:  # noqa: BLE001 - a batch that is not applied must not be passed over
                    reason = f"{topic} could not be applied: {safe_text_of(error)}"
                else:
                    continue
                # Out of the handler, because whoever logs a crash logs the exception in hand with its text (G10).
                log.error("worker stops", stage=f"apply {topic}", reason=reason)
                await self._stop_worker(IntegrityError(reason))
                return

        self.app.agent(channel, name=f"apply.{topic}")(agent)

    def _topic(self, name: str) -> Any:
        if name not in self._topics:
            self._topics[name] = self.app.topic(
                name,
                key_type=bytes,
                value_type=bytes,
                key_serializer="raw",
                value_serializer="raw",
                partitions=spec_of(name).partitions,
            )
        return self._topics[name]

    async def _publish(self, event: Event, /, *, topic: str | None = None) -> None:
        """Send an event and return when the broker has acknowledged it; see `streams/ports.py`."""
        try:
            acknowledged = await self._topic(topic or topic_of(event)).send(key=key_of(event), value=encode(event))
            await acknowledged
        except (MessageSizeTooLargeError, RecordTooLargeError):
            raise ContractError(f"{type(event).__name__} is too long for Kafka; send less in one record.") from None
        except (KafkaError, FaustError) as error:
            raise TransientError(f"Kafka did not take {type(event).__name__}: {type(error).__name__}") from None

    async def _stop_worker(self, error: BaseException) -> None:
        await self.app.crash(error)

    async def _become_ready(self, on_ready: Callable[[], None]) -> None:
        telling = asyncio.create_task(self._tell_how_far())
        try:
            await self._become_current()
        finally:
            telling.cancel()
        self._caught_up.set()
        await self._assigned.wait()
        on_ready()

    async def _tell_how_far(self) -> None:
        """Say every few seconds how far the replica is, how fast it gets on, and how long it will take."""
        began_at, began = asyncio.get_running_loop().time(), sum(self.replica.applied.values())
        while True:
            await asyncio.sleep(PROGRESS_EVERY_S)
            try:
                end = sum((await asyncio.to_thread(self._parts.kafka.end_offsets, self.replica.followed)).values())
            except TransientError:
                continue  # That Kafka is away is said elsewhere.
            done = sum(self.replica.applied.values())
            rate = (done - began) / (asyncio.get_running_loop().time() - began_at)
            left_s = round((end - done) / rate) if rate else None
            log.info("catching up", applied=done, end=end, records_a_second=round(rate), left_s=left_s)

    async def _become_current(self) -> None:
        while not await self._catch_up():
            continue
        active = self.replica.active.topic
        beginnings = await asyncio.to_thread(self._parts.kafka.beginnings, active)
        if any(beginnings.values()):
            raise IntegrityError(
                f"{active} begins at {dict(beginnings)}: records of the searched gallery were deleted. Find out by "
                "whom and why; a generation that is built anew has them all.",
            )
        log.info("caught up", generation=active)

    async def _catch_up(self) -> bool:
        try:
            return await self.replica.read_barrier(self._settings.barrier_limit_s)
        except TransientError as error:
            log.warning("waiting for Kafka", reason=str(error))
            await asyncio.sleep(1)
            return False

    async def _decide_probe(self, record: LogRecord) -> None:
        read_back = self._read_back
        async with self._reading_back:
            if record.offset < read_back.get(record.partition, record.offset + 1):
                # The first request after an assignment is the first that was not committed; it and what follows may
                # have been decided by whoever had the partition before.
                decided = await asyncio.to_thread(self._parts.kafka.decided_since, record.partition, record.offset)
                self._probes.remember(decided)
                read_back[record.partition] = record.offset
        await self._probes.handle(record)

    async def _report_access_refusal(self, record: LogRecord) -> None:
        await self.replica.reached({(ACCESS, record.partition): record.offset + 1})
        self.replica.forget_access_refusals(record.offset)
        refusal = self.replica.access_refusals.get(record.offset)
        if isinstance(refusal, Refusal):
            raise DomainFault(refusal.code, refusal.message)
        if refusal is not None:
            raise refusal

    async def _on_assigned(self, _app: Any, *args: Any, **_: Any) -> None:
        assigned: set[TP] = args[0]
        self._own_bookings = {tp.partition for tp in assigned if tp.topic == BOOKING_EVENTS}
        # A request that was still held when its partition was revoked may have marked it since.
        self._forget_read_back({tp.partition for tp in assigned if tp.topic == PROBE_REQUESTS})
        self._assigned.set()

    async def _on_revoked(self, _app: Any, *args: Any, **_: Any) -> None:
        revoked: set[TP] = args[0]
        self._forget_read_back({tp.partition for tp in revoked if tp.topic == PROBE_REQUESTS})

    def _forget_read_back(self, partitions: set[int]) -> None:
        # A new dictionary: a read-back that is under way now was begun for the assignment that just ended.
        self._read_back = {place: offset for place, offset in self._read_back.items() if place not in partitions}

    async def _put_at_the_end_again(self) -> None:
        """Put records that count behind late repeats of older ones, before compaction would erase them (ADR 2)."""
        if not self._caught_up.is_set():
            return
        for generation in self.replica.kept:
            for key, (partition, offset) in generation.ledger.to_put_at_the_end_again().items():
                if partition not in self._own_bookings:
                    continue
                try:
                    await self._put_again(generation, key, partition, offset)
                except (TransientError, KafkaError, FaustError) as error:
                    log.warning("not put at the end yet", booking=key, reason=type(error).__name__)
                    return  # The timer comes again.
                log.warning("put at the end again, behind a late repeat", booking=key, topic=generation.topic)

    async def _close_segments(self) -> None:
        """Say the last court order of each partition once more, when it is an hour old.

        Kafka compacts no segment that it still writes to, and begins the next one only when something is written. Where
        nothing is booked for a day, what an order took out would stay in Kafka for longer than it may.
        """
        if not self._caught_up.is_set():
            return
        for generation in self.replica.kept:
            for partition, (key, entry) in generation.ledger.last_orders().items():
                place = (generation.topic, partition)
                known = self._last_orders.get(place)
                is_old = known is not None and known[:2] == (key, entry.source_offset)
                if known is not None and is_old and not known[2] and partition in self._own_bookings:
                    try:
                        await self._put_again(generation, key, *entry.position)
                    except (TransientError, KafkaError, FaustError) as error:
                        log.warning("segment not closed yet", topic=generation.topic, reason=type(error).__name__)
                        return  # The timer comes again.
                    self._last_orders[place] = (*known[:2], True)
                elif not is_old:
                    self._last_orders[place] = (key, entry.source_offset, False)

    async def _put_again(self, generation: Generation, key: str, partition: int, offset: int) -> None:
        try:
            record = await asyncio.to_thread(self._parts.kafka.record_at, generation.topic, partition, offset)
        except IntegrityError:
            # Compaction was quicker; a withdrawal can still be said anew, and must be (G5).
            entry = generation.ledger.entry(key)
            ori, _, booking_number = key.partition("/")
            again = orders.withdrawal_again(ori, booking_number, entry, self._parts.clock()) if entry else None
            if again is None:
                raise
            await self._publish(again, topic=generation.topic)
        else:
            await (await self._topic(generation.topic).send(key=record.key, value=record.value))


def booking_of(event: Any) -> bytes | None:
    """Return which booking a record says something about; one whose key is another's is refused."""
    key: bytes | None = event.message.key
    return key


async def _nobody_waits(_record: LogRecord, _reason: str) -> None:
    """Give up an access event: its dead letter is all there is to say."""


def _make_app(settings: WorkerSettings) -> faust.App:
    unreadable_headers.install()
    return faust.App(
        GROUP,
        broker=[f"kafka://{address}" for address in settings.brokers.split(",")],
        datadir=str(settings.data),
        consumer_group_instance_id=settings.name,
        consumer_auto_offset_reset="earliest",
        key_serializer="raw",
        value_serializer="raw",
        store="memory://",
        processing_guarantee="at_least_once",
        producer_acks=-1,
        # Faust's twenty minutes would hide a broker that is away: past this the guard says so, and sends again.
        producer_request_timeout=30.0,
        broker_commit_interval=1.0,
        broker_heartbeat_interval=1.0,
        broker_session_timeout=10.0,
        broker_request_timeout=30.0,
        stream_wait_empty=False,
        # Faust hands out records of all topics one after the other and waits where a buffer is full: a backlog of
        # bookings would hold up probes. At four fifths it stops fetching a partition, after one more poll of it; so
        # the last fifth has room for a poll of every partition.
        stream_buffer_maxsize=STREAM_BUFFER,
        broker_max_poll_records=POLL_RECORDS,
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_replication_factor=1,
        web_enabled=False,
        loghandlers=[],
        logging_config=None,
    )


def _as_record(message: Message) -> LogRecord:
    headers = cast("list[tuple[str, bytes | None]]", message.headers or [])
    return LogRecord(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp_ms=int((message.timestamp or 0) * 1000),
        key=message.key,
        value=message.value,
        headers=tuple(headers),
    )
