"""What the agents `bookings` and `probes` do with one record: real gallery, object store, directory and keys.

The extractor reads the template off the "photo" (its models are tested elsewhere), and the log is in memory (the road
over Kafka is tested end to end). What a handler publishes to the gallery topic comes back to the replica, as there.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from importlib.resources import files
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from aiokafka.errors import MessageSizeTooLargeError
from builders import (
    ALICE,
    BOB,
    CASE_TOOL,
    JAIL,
    LOGON,
    MICROSECOND,
    NOW,
    ORI,
    OTHER_ORI,
    PERIOD,
    POLICY,
    ROOT,
    STRANGER,
    access_granted,
    access_revoked,
    agency_registered,
    agreement_accepted,
    booking_recorded,
    by_root,
    capture,
    founded,
    key_named,
    probe_submitted,
    record_order,
    signed,
    unsigned,
    user_registered,
    uuid_named,
)

from connectors.attempt_counter import AttemptCounter
from connectors.faiss_gallery import FaissGallery
from connectors.key_custody import FileMasterKey
from connectors.object_store import ObjectStore
from processors.candidates import LEAD_NOTICE
from processors.extraction import ExtractedFace
from processors.refusals import Refusal, RefusalCode
from processors.templates import to_template
from schemas.codec import MAX_SIGNED_VALUE_BYTES, decode, encode
from schemas.errors import ContractError, DomainFault, IntegrityError, TransientError
from schemas.events import (
    BookingOutcome,
    BookingProcessed,
    CandidateListIssued,
    CaptureDisposition,
    Consolidation,
    DeadLetter,
    OrderEffect,
    OrderKind,
    PolicyActivated,
    ProbeRefused,
    QualityOverrideGranted,
    TemplatesEnrolled,
    TemplatesWithdrawn,
    WithdrawalCause,
)
from schemas.keys import booking_scope, partition_of, probe_scope
from schemas.positions import derived_id
from schemas.topics import ACCESS, BOOKING_EVENTS, GALLERY, TOPICS
from streams import guard as guard_module
from streams import probes as probes_module
from streams.bookings import Bookings
from streams.context import Context
from streams.generation import Generation
from streams.guard import Guard
from streams.ports import NO_TELEMETRY
from streams.probes import Probes
from streams.replica import Replica
from streams.search_queue import SearchQueue
from streams.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path
    from uuid import UUID

    from connectors.signing_keys import SigningKey
    from processors.extraction import Extraction
    from schemas.events import BookingRecorded, Capture, Event, ProbeSubmitted, RecordOrderReceived
    from schemas.records import LogRecord
    from streams.ports import LogTail

LIMIT_S = 60.0
IN_ITS_PARTITION = next(
    f"B-{number}" for number in range(100) if partition_of(BOOKING_EVENTS, f"{ORI}/B-{number}".encode()) == 0
)
"""A booking whose key belongs into partition 0, where the tests put every booking."""
DIMENSION = 8
MODEL = "ab" * 32
FACES = np.random.default_rng(3).normal(size=(10, DIMENSION))


class ReadingExtractor:
    """Takes `face <number>` for the photo of that face, `face <number> <quality>` for a poor one, else for nobody's."""

    def __init__(self) -> None:
        self.photos: list[bytes] = []

    def extract(self, photo: bytes, /) -> Extraction:
        self.photos.append(photo)
        word, _, number = photo.partition(b" ")
        if word == b"broken":
            raise ContractError("The recogniser returned a vector without a direction.")
        if word != b"face":
            return Refusal(code=RefusalCode.NO_FACE, message="No face.", measurements={"face_score": 0.01})
        number, _, quality = number.partition(b" ")
        return ExtractedFace(
            template=to_template(FACES[int(number)]),
            model_digest=MODEL,
            measurements={"unified_quality": float(quality or 90.0)},
            box_px=(0.0, 0.0, 1.0, 1.0),
        )


class LogInMemory:
    """The followed topics, with what a worker publishes to the gallery topic."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], list[LogRecord]] = {
            (topic, part): [] for topic in (GALLERY, ACCESS) for part in range(TOPICS[topic].partitions)
        }
        self.asked = threading.Event()
        self.bookings: dict[int, LogRecord] = {}
        """Booking event by its offset."""
        self.hidden = 0
        """Records that the topics are said to hold beyond what the replica can read."""

    def end_offsets(self, topics: Collection[str]) -> Mapping[tuple[str, int], int]:
        self.asked.set()
        return {tp: len(records) + self.hidden for tp, records in self.records.items() if tp[0] in topics}

    def tail(self, start: Mapping[tuple[str, int], int]) -> LogTail:
        raise NotImplementedError

    def record_at(self, topic: str, partition: int, offset: int) -> LogRecord:
        found = self.bookings.get(offset) if topic == BOOKING_EVENTS else self.records[topic, partition][offset]
        if found is None:
            raise IntegrityError("It is not in Kafka any more.")
        return found

    def decided_since(self, partition: int, request_offset: int) -> Collection[UUID]:
        raise NotImplementedError


class AgesOfOrders(type(NO_TELEMETRY)):  # type: ignore[misc]
    """Measures how long orders took, and nothing else."""

    def __init__(self, ages_s: list[float]) -> None:
        self._ages_s = ages_s

    def obeyed(self, age_s: float) -> None:
        self._ages_s.append(age_s)


class Bench:
    """A worker without Faust: what is handled, what is published, what is then known."""

    def __init__(self, folder: Path) -> None:
        self.registry = founded()
        self.log = LogInMemory()
        self.objects = ObjectStore(folder / "objects", FileMasterKey(bytes(range(32))))
        self.extractor = ReadingExtractor()
        self.replica = self.new_replica()
        self.gallery = self.replica.active.gallery
        self.published: list[Event] = []
        self.fails_to_publish: list[type[Event]] = []
        self.now: datetime = NOW
        self.offset = 0
        self.audited_within_s = self.obeyed_within_s = 1.0
        self.meanwhile: list[Event] = []
        """What the administrator says while a request waits for word of the audit trail."""
        self.ages_of_orders: list[float] = []
        self.pool = ThreadPoolExecutor(2)
        self.context = Context(
            replica=self.replica,
            own_policy=POLICY,
            attempts=AttemptCounter(folder / "attempts"),
            pool=self.pool,
            searches=SearchQueue(self.pool),
            objects=self.objects,
            publish=self._publish,
            clock=lambda: self.now,
            barrier_limit_s=LIMIT_S,
            is_audited_within=self._is_audited_within,
            are_orders_obeyed_within=self._are_orders_obeyed_within,
            telemetry=AgesOfOrders(self.ages_of_orders),
        )
        self.be_patient(LIMIT_S)
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._follow_access())

    def be_patient(self, barrier_limit_s: float) -> None:
        """Take a worker that waits so long at the read barrier."""
        context = replace(self.context, barrier_limit_s=barrier_limit_s)
        self.bookings, self.probes = Bookings(context), Probes(context)

    def new_replica(self) -> Replica:
        gallery = FaissGallery(dimension=DIMENSION, model_digest=MODEL)
        generation = Generation(
            topic=GALLERY,
            gallery=gallery,
            extractor=self.extractor,
            dimension=DIMENSION,
            threshold_of=lambda templates: templates / 1000,
            expected_of=lambda score, templates: templates * (2.0 - score),
        )
        return Replica(generations=[generation], directory=self.registry.directory, kafka=self.log)

    def close(self) -> None:
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self.pool.shutdown()

    async def _is_audited_within(self, limit_s: float) -> bool:
        while self.meanwhile:
            assert self.registry.say(self.meanwhile.pop(), ROOT) is None
            await self._follow_access()
        return self.audited_within_s <= limit_s

    async def _are_orders_obeyed_within(self, limit_s: float) -> bool:
        return self.obeyed_within_s <= limit_s

    async def _publish(self, event: Event, /, *, topic: str | None = None) -> None:
        assert topic in (None, GALLERY)
        if type(event) in self.fails_to_publish:
            self.fails_to_publish.remove(type(event))
            raise TransientError("Kafka is away.")
        self.published.append(event)
        if isinstance(event, (TemplatesEnrolled, TemplatesWithdrawn)):
            partition = self.log.records[GALLERY, 0]
            partition.append(unsigned(event, offset=len(partition)))
            await self.replica.apply_gallery(GALLERY, partition[-1:])

    async def _follow_access(self) -> None:
        known = self.log.records[ACCESS, 0]
        for record in self.registry.records[len(known) :]:
            known.append(record)
        # The registry has folded them already; the directory takes a repeat for what it is.
        await self.replica.apply_access(known)

    def say(self, event: Event, key: SigningKey = ROOT) -> None:
        assert self.registry.say(event, key) is None
        self._loop.run_until_complete(self._follow_access())

    def photo(self, number: int | str, name: str, scope: str) -> dict[str, str]:
        content = f"face {number}".encode() if isinstance(number, int) else number.encode()
        stored = self.objects.put(scope, name, content)
        return {"reference": stored.reference, "sha256": stored.sha256}

    def capture(self, number: int | str, name: str, booking: str = "B-1", **changes: Any) -> Capture:
        return capture(name, **{**self.photo(number, name, booking_scope("CA0190000", booking)), **changes})

    def moment(self) -> datetime:
        """Let time go on: what is said later is said at a later time."""
        self.now += MICROSECOND
        return self.now

    def book(self, booking: str = "B-1", *captures: Capture, **changes: Any) -> list[Event]:
        facts = {"occurred_at": self.moment(), **changes}
        return self.handle_booking(booking_recorded(booking, captures=captures, **facts))

    def order(self, order: OrderKind, booking: str = "B-1", **changes: Any) -> list[Event]:
        return self.handle_booking(record_order(order, booking, **{"occurred_at": self.moment(), **changes}))

    def handle_booking(
        self, event: BookingRecorded | RecordOrderReceived, key: SigningKey = JAIL, offset: int | None = None
    ) -> list[Event]:
        if offset is None:
            self.offset += 1
            offset = self.offset
        self.log.bookings[offset] = signed(event, key, offset=offset)
        return self._handle(self.bookings.handle(self.log.bookings[offset]))

    def take_over(self, offset: int) -> list[Event]:
        return self._handle(self.bookings.take_over(0, offset))

    def request(self, face: int | str = 0, name: str = "probe", **changes: Any) -> ProbeSubmitted:
        facts = self.photo(face, "probe", probe_scope(uuid_named(name)))
        return probe_submitted(
            name,
            **{
                "image_reference": facts["reference"],
                "image_sha256": facts["sha256"],
                "original_sha256": facts["sha256"],
                **changes,
            },
        )

    def ask(self, request: ProbeSubmitted, key: SigningKey = ALICE, offset: int = 7) -> list[Event]:
        return self._handle(self.probes.handle(signed(request, key, partition=2, offset=offset)))

    def guarded(self, handler: Bookings | Probes, record: LogRecord) -> list[Event]:
        """Handle a record as a worker does, with the guard around the handler; it is acknowledged."""
        guard = Guard(
            stage="test",
            publish=self._publish,
            objects=self.objects,
            clock=lambda: self.now,
            give_up=handler.give_up,
            stop_worker=self._stop,
            is_known_signer=lambda _: True,
            dead_letter_limit=100,
        )
        before = len(self.published)
        assert self._loop.run_until_complete(guard.run(handler.handle, record)), "the worker stopped"
        return self.published[before:]

    async def _stop(self, error: BaseException) -> None:
        raise error

    def listed(self, request: ProbeSubmitted) -> list[str]:
        (issued,) = self.ask(request)
        assert isinstance(issued, CandidateListIssued), issued
        return [row.booking_number for row in issued.candidates]

    def ask_while_the_administrator_says(self, event: Event, request: ProbeSubmitted) -> Event:
        """Let a request wait at the barrier for what is said after it came; return its outcome."""

        async def run() -> None:
            self.log.hidden = 1
            self.log.asked.clear()
            waiting = asyncio.create_task(self.probes.handle(signed(request, ALICE, partition=2, offset=7)))
            assert await asyncio.to_thread(self.log.asked.wait, LIMIT_S)
            assert self.registry.say(event, ROOT) is None
            await self._follow_access()
            await self.replica.pass_over({place: len(there) + 1 for place, there in self.log.records.items()})
            await waiting

        (outcome,) = self._handle(run())
        return outcome

    def refused(self, request: ProbeSubmitted, key: SigningKey = ALICE) -> str:
        (refused,) = self.ask(request, key)
        assert isinstance(refused, ProbeRefused), refused
        return refused.code

    def _handle(self, handling: Any) -> list[Event]:
        before = len(self.published)
        self._loop.run_until_complete(handling)
        return self.published[before:]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def answer_of(events: list[Event]) -> BookingProcessed:
    answer = events[-1]
    assert isinstance(answer, BookingProcessed)
    return answer


def kinds(events: list[Event]) -> list[type[Event]]:
    return [type(event) for event in events]


# Bookings.


def test_a_booking_is_searchable_before_its_answer_says_so(bench: Bench) -> None:
    events = bench.book("B-1", bench.capture(0, "a"), bench.capture(1, "b"))
    assert kinds(events) == [TemplatesEnrolled, BookingProcessed]
    assert answer_of(events).outcome is BookingOutcome.ENROLLED
    assert bench.listed(bench.request(0)) == ["B-1"]


def test_a_court_order_takes_the_booking_out_before_its_answer_says_so(bench: Bench) -> None:
    bench.book("B-1", bench.capture(0, "a"))
    events = bench.order(OrderKind.SEAL)
    assert kinds(events) == [TemplatesWithdrawn, BookingProcessed]
    assert answer_of(events).outcome is BookingOutcome.WITHDRAWN
    assert bench.listed(bench.request(0)) == []


def test_a_withdrawal_without_an_acknowledgement_of_the_broker_is_not_answered(bench: Bench) -> None:
    bench.book("B-1", bench.capture(0, "a"))
    bench.fails_to_publish = [TemplatesWithdrawn]
    with pytest.raises(TransientError):
        bench.order(OrderKind.SEAL)
    assert kinds(bench.published) == [TemplatesEnrolled, BookingProcessed]


def test_a_sealed_booking_is_not_enrolled_again_by_a_later_booking_until_an_unseal(bench: Bench) -> None:
    photo = bench.capture(0, "a")
    bench.book("B-1", photo)
    bench.order(OrderKind.SEAL)
    for attempt in range(2):
        events = bench.book("B-1", photo, sid=f"A{attempt}")
        # The seal stands in the gallery topic as it was; a refused booking has only its answer.
        assert kinds(events) == [BookingProcessed]
        assert (answer_of(events).outcome, answer_of(events).code) == (BookingOutcome.REFUSED, "RECORD_SEALED")
        assert bench.listed(bench.request(0, f"probe {attempt}")) == []
    assert answer_of(bench.order(OrderKind.UNSEAL)).outcome is BookingOutcome.ORDER_LIFTED
    assert bench.listed(bench.request(0, "after the unseal")) == []
    assert answer_of(bench.book("B-1", photo, sid="B")).outcome is BookingOutcome.ENROLLED
    assert bench.listed(bench.request(0, "after the booking")) == ["B-1"]


def test_an_expunged_booking_is_never_enrolled_again_whatever_is_ordered_later(bench: Bench) -> None:
    photo = bench.capture(0, "a")
    bench.book("B-1", photo)
    assert answer_of(bench.order(OrderKind.EXPUNGE)).outcome is BookingOutcome.WITHDRAWN
    for order in (OrderKind.UNSEAL, OrderKind.SEAL, OrderKind.UNSEAL):
        assert answer_of(bench.order(order)).code == "RECORD_EXPUNGED"
        assert answer_of(bench.book("B-1", photo)).code == "RECORD_EXPUNGED"
    assert answer_of(bench.order(OrderKind.EXPUNGE)).outcome is BookingOutcome.WITHDRAWN
    assert bench.listed(bench.request(0)) == []


def test_after_an_expungement_is_answered_its_photos_cannot_be_read(bench: Bench) -> None:
    photo, other = bench.capture(0, "a"), bench.capture(1, "a", "B-2")
    bench.book("B-1", photo)
    bench.order(OrderKind.SEAL)
    assert bench.objects.get(photo.reference, photo.sha256)
    bench.order(OrderKind.EXPUNGE)
    with pytest.raises(DomainFault, match="destroyed"):
        bench.objects.get(photo.reference, photo.sha256)
    assert bench.objects.get(other.reference, other.sha256)


def test_an_order_ahead_of_its_booking_keeps_the_booking_out(bench: Bench) -> None:
    for _ in range(2):
        answer = answer_of(bench.order(OrderKind.SEAL))
        assert (answer.outcome, answer.code) == (BookingOutcome.WITHDRAWN, "BOOKING_UNKNOWN")
    assert answer_of(bench.book("B-1", bench.capture(0, "a"))).code == "RECORD_SEALED"


def test_an_unseal_that_is_sent_twice_takes_nothing_out(bench: Bench) -> None:
    photo = bench.capture(0, "a")
    bench.order(OrderKind.SEAL)
    bench.order(OrderKind.UNSEAL)
    bench.book("B-1", photo)
    assert kinds(bench.order(OrderKind.UNSEAL)) == [BookingProcessed]
    assert bench.listed(bench.request(0)) == ["B-1"]


def unseal_and_enrol(bench: Bench, **changes: Any) -> RecordOrderReceived:
    facts = {"effect": OrderEffect.LIFT_AND_RE_ENROL, "occurred_at": bench.moment(), **changes}
    return record_order(OrderKind.UNSEAL, **facts)


def test_an_unseal_enrols_the_last_booking_again_where_its_effect_says_so(bench: Bench) -> None:
    """However often it is sealed, and with no word of the jail in between."""
    bench.book("B-1", bench.capture(0, "a"))
    bench.book("B-1", bench.capture(1, "b"), sid="A7")
    for round_ in range(2):
        bench.order(OrderKind.SEAL)
        bench.order(OrderKind.SEAL)
        assert bench.listed(bench.request(1, f"sealed {round_}")) == []
        events = bench.handle_booking(unseal_and_enrol(bench))
        assert kinds(events) == [TemplatesEnrolled, BookingProcessed]
        answer = answer_of(events)
        assert (answer.outcome, answer.effect, answer.code) == (
            BookingOutcome.ORDER_LIFTED,
            OrderEffect.LIFT_AND_RE_ENROL,
            None,
        )
        assert [(each.capture_id, each.disposition) for each in answer.captures] == [
            (uuid_named("b"), CaptureDisposition.ENROLLED)
        ]
        (issued,) = bench.ask(bench.request(1, f"again {round_}"))
        assert isinstance(issued, CandidateListIssued)
        assert [(row.person, row.capture_id) for row in issued.candidates] == [("sid:A7", uuid_named("b"))]
    correction = bench.book("B-1", bench.capture(2, "c"))
    assert answer_of(correction).outcome is BookingOutcome.ENROLLED


def test_an_unseal_that_only_lifts_enrols_nothing_and_a_later_one_may(bench: Bench) -> None:
    bench.book("B-1", bench.capture(0, "a"))
    bench.order(OrderKind.SEAL)
    assert kinds(bench.order(OrderKind.UNSEAL, effect=OrderEffect.LIFT)) == [TemplatesWithdrawn, BookingProcessed]
    assert bench.listed(bench.request(0, "lifted")) == []
    assert kinds(bench.handle_booking(unseal_and_enrol(bench))) == [TemplatesEnrolled, BookingProcessed]
    assert bench.listed(bench.request(0, "enrolled")) == ["B-1"]


def test_an_unseal_that_cannot_enrol_again_lifts_the_bar_and_says_to_send_the_booking(bench: Bench) -> None:
    photo = bench.capture(0, "a")
    bench.order(OrderKind.SEAL, "B-2")  # Its booking is refused, so nothing is known to enrol.
    bench.book("B-2", bench.capture(0, "a", "B-2"))
    bench.book("B-1", photo)
    bench.order(OrderKind.SEAL)
    bench.objects.destroy_key(booking_scope("CA0190000", "B-1"))
    for number in ("B-1", "B-2"):
        events = bench.handle_booking(unseal_and_enrol(bench, booking_number=number))
        assert kinds(events) == [TemplatesWithdrawn, BookingProcessed]
        answer = answer_of(events)
        assert (answer.outcome, answer.code) == (BookingOutcome.ORDER_LIFTED, "NOT_ENROLLED_AGAIN")
        assert bench.replica.active.ledger.barred_by(f"CA0190000/{number}") is None
    assert answer_of(bench.book("B-2", bench.capture(0, "a", "B-2"))).outcome is BookingOutcome.ENROLLED


def test_an_unseal_enrols_no_other_booking_whatever_stands_at_the_offset(bench: Bench) -> None:
    bench.book("B-1", bench.capture(0, "a"))
    bench.order(OrderKind.SEAL)
    bench.log.bookings[1] = signed(booking_recorded("B-2", captures=(bench.capture(1, "b"),)), JAIL, offset=1)
    assert answer_of(bench.handle_booking(unseal_and_enrol(bench))).code == "NOT_ENROLLED_AGAIN"
    del bench.log.bookings[1]
    assert answer_of(bench.handle_booking(unseal_and_enrol(bench))).code == "NOT_ENROLLED_AGAIN"
    assert bench.listed(bench.request(0)) == []


@pytest.mark.parametrize("dies_before", [TemplatesEnrolled, BookingProcessed])
def test_an_unseal_that_was_cut_off_is_finished_by_the_repeat(bench: Bench, dies_before: type[Event]) -> None:
    bench.book("B-1", bench.capture(0, "a"))
    bench.order(OrderKind.SEAL)
    unseal, bench.offset = unseal_and_enrol(bench), bench.offset + 1
    bench.fails_to_publish = [dies_before]
    with pytest.raises(TransientError):
        bench.handle_booking(unseal, offset=bench.offset)
    events = bench.handle_booking(unseal, offset=bench.offset)
    assert kinds(events) == [TemplatesEnrolled, BookingProcessed]
    assert (answer_of(events).outcome, answer_of(events).code) == (BookingOutcome.ORDER_LIFTED, None)
    bench.order(OrderKind.SEAL)
    late = bench.handle_booking(unseal, offset=bench.offset - 1)
    assert (kinds(late), answer_of(late).code) == ([BookingProcessed], "STALE_EVENT"), "late, behind a later seal"
    assert answer_of(late).event_id == answer_of(events).event_id, "so the first answer stays the one that counts"
    assert bench.listed(bench.request(0)) == []


def test_an_old_unseal_sent_again_enrols_nobody_behind_a_later_seal(bench: Bench) -> None:
    """G5."""
    bench.book("B-1", bench.capture(0, "a"))
    bench.order(OrderKind.SEAL)
    unseal = unseal_and_enrol(bench)
    assert kinds(bench.handle_booking(unseal)) == [TemplatesEnrolled, BookingProcessed]
    assert kinds(bench.handle_booking(unseal)) == [BookingProcessed], "sent twice: it is enrolled"
    bench.order(OrderKind.SEAL)
    again = bench.handle_booking(unseal)
    assert (kinds(again), answer_of(again).code) == ([BookingProcessed], "STALE_EVENT")
    assert bench.listed(bench.request(0)) == []


def test_a_photo_that_crashes_the_worker_does_not_keep_the_seal_on(bench: Bench) -> None:
    bench.book("B-1", bench.capture(0, "a"))
    bench.order(OrderKind.SEAL)
    poisoned = booking_recorded("B-1", captures=(bench.capture("broken", "b"), bench.capture(1, "c")))
    bench.log.bookings[1] = signed(poisoned, JAIL, offset=1)
    answer = answer_of(bench.handle_booking(unseal_and_enrol(bench)))
    assert (answer.outcome, answer.code) == (BookingOutcome.ORDER_LIFTED, None)
    assert [each.code for each in answer.captures] == ["PROCESSING_FAILED", None]


def test_a_repeat_behind_a_later_event_is_skipped(bench: Bench) -> None:
    first = booking_recorded("B-1", captures=(bench.capture(0, "a"),))
    bench.handle_booking(first, offset=10)
    bench.handle_booking(
        booking_recorded("B-1", captures=(bench.capture(1, "b"),), occurred_at=bench.moment()), offset=11
    )
    assert bench.handle_booking(first, offset=10) == []


def test_a_repeat_behind_an_order_brings_nobody_back_and_its_first_answer_stays_the_one_that_counts(
    bench: Bench,
) -> None:
    """G5, G11: an order may have overtaken what stands before it, which then has no answer yet."""
    first = booking_recorded("B-1", captures=(bench.capture(0, "a"),))
    answered = answer_of(bench.handle_booking(first, offset=10))
    bench.handle_booking(record_order(OrderKind.SEAL), offset=11)
    again = bench.handle_booking(first, offset=10)
    assert kinds(again) == [BookingProcessed]
    assert answer_of(again).event_id == answered.event_id
    assert bench.listed(bench.request(0)) == []


# Orders that are obeyed ahead of their turn (G5).


def waiting(bench: Bench, order: OrderKind, offset: int, key: SigningKey = JAIL, **changes: Any) -> int:
    event = record_order(order, IN_ITS_PARTITION, **changes)
    bench.log.bookings[offset] = signed(event, key, offset=offset)
    return offset


def test_an_order_ahead_of_its_turn_takes_out_at_once_and_is_answered_when_its_turn_comes(bench: Bench) -> None:
    photo = bench.capture(0, "a", booking=IN_ITS_PARTITION)
    bench.handle_booking(booking_recorded(IN_ITS_PARTITION, captures=(photo,)), offset=10)
    assert bench.listed(bench.request(0, "before")) == [IN_ITS_PARTITION]
    at = waiting(bench, OrderKind.SEAL, 30)
    assert kinds(bench.take_over(at)) == [TemplatesWithdrawn]
    assert bench.listed(bench.request(0, "after")) == []
    # What stands between the two has its turn only now.
    overtaken = bench.handle_booking(
        booking_recorded(IN_ITS_PARTITION, captures=(photo,), occurred_at=bench.moment()), offset=20
    )
    assert (kinds(overtaken), answer_of(overtaken).outcome) == ([BookingProcessed], BookingOutcome.REFUSED)
    answered = bench._handle(bench.bookings.handle(bench.log.bookings[at]))
    assert answer_of(answered).outcome is BookingOutcome.WITHDRAWN
    assert bench.take_over(at) == [], "obeyed already"
    assert bench.listed(bench.request(0, "at the end")) == []


def test_an_expungement_that_a_seal_has_overtaken_expunges_all_the_same(bench: Bench) -> None:
    photo = bench.capture(0, "a", booking=IN_ITS_PARTITION)
    bench.handle_booking(booking_recorded(IN_ITS_PARTITION, captures=(photo,)), offset=10)
    bench.take_over(waiting(bench, OrderKind.SEAL, 30))
    expunged = bench._handle(bench.bookings.handle(bench.log.bookings[waiting(bench, OrderKind.EXPUNGE, 20)]))
    assert answer_of(expunged).outcome is BookingOutcome.WITHDRAWN
    with pytest.raises(DomainFault):
        bench.objects.get(photo.reference, photo.sha256)
    bench._handle(bench.bookings.handle(bench.log.bookings[30]))
    lifted = waiting(bench, OrderKind.UNSEAL, 40, occurred_at=bench.moment())
    unsealed = bench._handle(bench.bookings.handle(bench.log.bookings[lifted]))
    assert answer_of(unsealed).code == "RECORD_EXPUNGED"


def test_what_may_not_be_said_or_is_no_seal_is_not_obeyed_ahead_of_its_turn(bench: Bench) -> None:
    bench.handle_booking(
        booking_recorded(IN_ITS_PARTITION, captures=(bench.capture(0, "a", booking=IN_ITS_PARTITION),)), offset=10
    )
    for order, key, expected in (
        (OrderKind.SEAL, key_named("stranger"), DomainFault),
        (OrderKind.EXPUNGE, ALICE, DomainFault),
        (OrderKind.UNSEAL, JAIL, ContractError),
    ):
        with pytest.raises(expected):
            bench.take_over(waiting(bench, order, 30, key))
    assert bench.listed(bench.request(0)) == [IN_ITS_PARTITION]


def test_a_repeat_of_the_last_event_gives_the_same_records_again(bench: Bench) -> None:
    event = booking_recorded("B-1", captures=(bench.capture(0, "a"),))
    first = bench.handle_booking(event, offset=10)
    assert bench.handle_booking(event, offset=10) == first
    assert bench.listed(bench.request(0)) == ["B-1"]


def test_a_handling_that_was_cut_off_after_the_gallery_record_is_finished_by_the_repeat(bench: Bench) -> None:
    photo = bench.capture(0, "a")
    bench.book("B-1", photo)
    for order in (OrderKind.SEAL, OrderKind.UNSEAL, OrderKind.EXPUNGE):
        bench.offset += 1
        bench.fails_to_publish = [BookingProcessed]
        event = record_order(order, occurred_at=bench.moment())
        with pytest.raises(TransientError):
            bench.handle_booking(event, offset=bench.offset)
        answer = answer_of(bench.handle_booking(event, offset=bench.offset))
        assert answer.outcome in (BookingOutcome.WITHDRAWN, BookingOutcome.ORDER_LIFTED)
    with pytest.raises(DomainFault):
        bench.objects.get(photo.reference, photo.sha256)


def test_a_correction_replaces_the_earlier_state(bench: Bench) -> None:
    bench.book("B-1", bench.capture(0, "a"))
    bench.book("B-1", bench.capture(1, "b"))
    (issued,) = bench.ask(bench.request(1))
    assert isinstance(issued, CandidateListIssued)
    assert [row.capture_id for row in issued.candidates] == [uuid_named("b")]
    assert issued.gallery_templates == 1


def test_an_old_booking_sent_again_does_not_undo_a_correction(bench: Bench) -> None:
    # Its signature is valid for ever; whoever kept the record can send it again.
    wrong = booking_recorded("B-1", captures=(bench.capture(0, "a"),), occurred_at=bench.moment())
    bench.handle_booking(wrong)
    bench.book("B-1", bench.capture(1, "b"))
    bench.now += timedelta(days=300)
    again = bench.handle_booking(wrong)
    assert kinds(again) == [BookingProcessed]
    assert (answer_of(again).outcome, answer_of(again).code) == (BookingOutcome.REFUSED, "STALE_EVENT")
    (issued,) = bench.ask(bench.request(1))
    assert isinstance(issued, CandidateListIssued)
    assert [row.capture_id for row in issued.candidates] == [uuid_named("b")]


def test_an_old_unseal_sent_again_does_not_lift_a_later_seal(bench: Bench) -> None:
    """G5."""
    photo = bench.capture(0, "a")
    bench.book("B-1", photo)
    bench.order(OrderKind.SEAL)
    unseal = record_order(OrderKind.UNSEAL, occurred_at=bench.moment())
    assert answer_of(bench.handle_booking(unseal)).outcome is BookingOutcome.ORDER_LIFTED
    bench.book("B-1", photo)
    bench.order(OrderKind.SEAL)
    again = bench.handle_booking(unseal)
    assert kinds(again) == [BookingProcessed]
    assert (answer_of(again).outcome, answer_of(again).code) == (BookingOutcome.REFUSED, "STALE_EVENT")
    assert answer_of(bench.book("B-1", photo)).code == "RECORD_SEALED"
    assert bench.listed(bench.request(0)) == []


def test_a_withdrawn_booking_does_not_come_back_by_the_record_that_once_enrolled_it(bench: Bench) -> None:
    """G5: not behind the seal, nor behind the unseal that lifts it."""
    first = booking_recorded("B-1", captures=(bench.capture(0, "a"),), occurred_at=bench.moment())
    bench.handle_booking(first)
    for order in (OrderKind.SEAL, OrderKind.UNSEAL):
        bench.order(order)
        assert kinds(bench.handle_booking(first)) == [BookingProcessed]
        assert bench.listed(bench.request(0, order.value)) == []


@pytest.mark.parametrize("years", [-50, 50])
def test_a_seal_takes_a_booking_out_however_old_or_new_its_time_is(bench: Bench, years: int) -> None:
    """G5; afterwards its agency is heard as before."""
    photo = bench.capture(0, "a")
    bench.book("B-1", photo)
    events = bench.order(OrderKind.SEAL, occurred_at=NOW + timedelta(days=365 * years))
    assert kinds(events) == [TemplatesWithdrawn, BookingProcessed]
    assert bench.listed(bench.request(0, "sealed")) == []
    assert answer_of(bench.order(OrderKind.UNSEAL)).outcome is BookingOutcome.ORDER_LIFTED
    assert answer_of(bench.book("B-1", photo)).outcome is BookingOutcome.ENROLLED


def test_a_booking_by_a_clock_far_ahead_is_answered_and_has_no_effect(bench: Bench) -> None:
    bench.book("B-1", bench.capture(0, "a"))
    events = bench.book("B-1", bench.capture(1, "b"), occurred_at=NOW + timedelta(hours=2))
    assert kinds(events) == [BookingProcessed]
    assert (answer_of(events).outcome, answer_of(events).code) == (BookingOutcome.REFUSED, "TIME_IN_FUTURE")
    assert answer_of(bench.book("B-1", bench.capture(2, "c"))).outcome is BookingOutcome.ENROLLED


def test_a_retry_of_the_same_booking_is_enrolled_as_the_first_time(bench: Bench) -> None:
    booking = booking_recorded("B-1", captures=(bench.capture(0, "a"),), occurred_at=bench.moment())
    for _ in range(2):
        assert answer_of(bench.handle_booking(booking)).outcome is BookingOutcome.ENROLLED


def test_a_stranger_learns_nothing_of_the_time_of_what_was_said(bench: Bench) -> None:
    bench.book("B-1", bench.capture(0, "a"))
    old = booking_recorded(occurred_at=NOW - timedelta(days=1))
    assert answer_of(bench.handle_booking(old, STRANGER)).code == "UNAUTHENTICATED"


# Dead letters.


def test_a_decodable_probe_that_becomes_a_dead_letter_is_refused_and_not_left_open(bench: Bench) -> None:
    """G1, G12."""
    request = bench.request("broken photo")
    record = signed(request, ALICE, partition=2, offset=7)
    letter, refused = bench.guarded(bench.probes, record)
    assert isinstance(letter, DeadLetter)
    assert isinstance(refused, ProbeRefused)
    assert (refused.probe_id, refused.code) == (request.probe_id, "PROCESSING_FAILED")
    assert (refused.request, refused.event_id) == (record.position, derived_id(request.probe_id, "outcome"))
    assert "without a direction" in refused.message
    assert bench.guarded(bench.probes, record) == []


def test_a_probe_that_was_decided_is_not_refused_by_a_dead_letter_of_its_repeat(bench: Bench) -> None:
    """G1."""
    request = bench.request(0)
    bench.ask(request)
    before = len(bench.published)
    bench._handle(bench.probes.give_up(signed(request, ALICE, partition=2, offset=8), "It is in a wrong partition."))
    assert len(bench.published) == before


def test_a_refusal_by_dead_letter_that_the_broker_did_not_acknowledge_is_sent_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G1."""
    monkeypatch.setattr(guard_module, "FIRST_WAIT_S", 0.0)
    bench.fails_to_publish = [ProbeRefused] * 3
    record = signed(bench.request("broken photo"), ALICE, partition=2, offset=7)
    assert kinds(bench.guarded(bench.probes, record)) == [DeadLetter, ProbeRefused]


def test_a_decodable_booking_that_becomes_a_dead_letter_is_answered_and_has_no_effect(bench: Bench) -> None:
    """G12."""
    bench.book("B-1", bench.capture(0, "a"))
    correction = booking_recorded(captures=(bench.capture("broken photo", "b"),), occurred_at=bench.moment())
    letter, answer = bench.guarded(bench.bookings, signed(correction, JAIL, offset=9))
    assert isinstance(letter, DeadLetter)
    assert isinstance(answer, BookingProcessed)
    assert (answer.outcome, answer.code) == (BookingOutcome.REFUSED, "PROCESSING_FAILED")
    assert (answer.source_event_id, answer.source.offset) == (correction.event_id, 9)
    assert bench.listed(bench.request(0)) == ["B-1"]


@pytest.mark.parametrize("value", [None, b"", b"garbage", b"\xc3\x01" + bytes(40)])
def test_a_dead_letter_that_says_nothing_about_its_sender_is_left_at_that(bench: Bench, value: bytes | None) -> None:
    for handler, event in ((bench.bookings, booking_recorded()), (bench.probes, bench.request())):
        assert kinds(bench.guarded(handler, replace(signed(event, ALICE), value=value))) == [DeadLetter]


@pytest.mark.parametrize(
    ("key", "changes", "code"),
    [
        (STRANGER, {}, "UNAUTHENTICATED"),
        (CASE_TOOL, {"actor": "publisher:case-tool"}, "NOT_ALLOWED"),
        (JAIL, {"ori": OTHER_ORI}, "NOT_ALLOWED"),
        (JAIL, {"actor": "publisher:other"}, "NOT_ALLOWED"),
        (JAIL, {"captures": (capture("a"), capture("a"))}, "CAPTURE_REPEATED"),
        (JAIL, {"booking_number": "7" * 65}, "BOOKING_NUMBER_INVALID"),
    ],
)
def test_what_may_not_be_said_is_answered_and_has_no_effect(
    bench: Bench, key: SigningKey, changes: dict[str, Any], code: str
) -> None:
    bench.book("B-1", bench.capture(0, "a"))
    for event in (booking_recorded(), record_order(OrderKind.EXPUNGE)):
        if "captures" in changes and not hasattr(event, "captures"):
            continue
        (answer,) = bench.handle_booking(replace(event, **changes), key)
        assert isinstance(answer, BookingProcessed)
        assert (answer.outcome, answer.code) == (BookingOutcome.REFUSED, code)
    assert bench.listed(bench.request(0)) == ["B-1"]


def test_a_photo_that_cannot_be_had_is_a_refusal_of_the_capture_and_no_crash(bench: Bench) -> None:
    good = bench.capture(0, "good")
    destroyed = bench.capture(1, "destroyed", "B-9")
    bench.objects.destroy_key(booking_scope("CA0190000", "B-9"))
    bad = {
        "nowhere": bench.capture(2, "nowhere", reference="object:v1:booking/CA0190000/B-1:missing"),
        "nonsense": bench.capture(2, "nonsense", reference="../../etc/passwd"),
        "other record": replace(destroyed, capture_id=uuid_named("other record")),
        "altered": bench.capture(2, "altered", sha256="cd" * 32),
    }
    events = bench.book("B-1", *bad.values(), good)
    assert [one.code for one in answer_of(events).captures] == [
        "REFERENCE_UNRESOLVED",
        "REFERENCE_UNRESOLVED",
        "REFERENCE_UNRESOLVED",
        "DIGEST_MISMATCH",
        None,
    ]
    assert answer_of(events).outcome is BookingOutcome.ENROLLED


def test_a_photo_whose_key_was_destroyed_is_a_refusal(bench: Bench) -> None:
    photo = bench.capture(0, "a")
    bench.objects.destroy_key(booking_scope("CA0190000", "B-1"))
    answer = answer_of(bench.book("B-1", photo))
    assert (answer.outcome, answer.captures[0].code) == (BookingOutcome.NOT_ENROLLED, "KEY_DESTROYED")


def test_altered_evidence_is_no_refusal_but_stops_the_handling(bench: Bench, tmp_path: Path) -> None:
    photo = bench.capture(0, "a")
    for path in (tmp_path / "objects" / "objects").rglob("*"):
        if path.is_file():
            stored = path.read_bytes()
            path.write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
    with pytest.raises(IntegrityError):
        bench.book("B-1", photo)
    assert bench.published == []


def test_only_frontal_booking_photos_are_ever_fetched(bench: Bench) -> None:
    bench.book("B-1", bench.capture(0, "a", source="INTERNET_SCRAPE"), bench.capture(1, "b"))
    assert bench.extractor.photos == [b"face 1"]


@pytest.mark.parametrize("value", [None, b"", b"garbage", b"\xc3\x01" + bytes(40)])
def test_bytes_that_are_no_event_break_the_contract(bench: Bench, value: bytes | None) -> None:
    for handler, event, key in (
        (bench.bookings, booking_recorded(), JAIL),
        (bench.probes, bench.request(), ALICE),
    ):
        with pytest.raises(ContractError):
            bench._handle(handler.handle(replace(signed(event, key), value=value)))
    assert bench.published == []


def test_a_booking_waits_for_a_replica_that_is_behind(bench: Bench) -> None:
    bench.log.hidden = 1
    bench.be_patient(0.01)
    with pytest.raises(TransientError):
        bench.book("B-1", bench.capture(0, "a"))
    assert bench.published == []
    bench.log.hidden = 0
    bench.be_patient(LIMIT_S)
    assert answer_of(bench.book("B-1", bench.capture(0, "a"))).outcome is BookingOutcome.ENROLLED


@pytest.mark.parametrize("length", [MAX_SIGNED_VALUE_BYTES, 900_000])
def test_a_record_too_long_for_its_outcome_breaks_the_contract_whoever_sent_it(bench: Bench, length: int) -> None:
    # The outcome echoes who asked, twice; too long for Kafka it could never be published, and the partition would
    # stand still for ever at the record of a stranger (G12).
    long = "x" * length
    for handler, event in (
        (bench.probes, bench.request(user_id=long)),
        (bench.bookings, booking_recorded(long)),
        (bench.bookings, record_order(OrderKind.SEAL, long)),
    ):
        with pytest.raises(ContractError, match="at most"):
            bench._handle(handler.handle(signed(event, STRANGER)))
    assert bench.published == []


def test_the_longest_record_a_stranger_can_send_has_an_outcome_that_fits(bench: Bench) -> None:
    refusal = bench.ask(bench.request(user_id="x" * (MAX_SIGNED_VALUE_BYTES - 1000)), STRANGER)
    captures = tuple(
        capture(str(number), reference="", sha256="", media_type="", source="BOOKING_CAPTURE") for number in range(2150)
    )
    answer = bench.book("B-1", *captures)
    assert all(len(encode(event)) < 900_000 for event in (*refusal, *answer))


def test_what_kafka_will_never_take_is_not_tried_for_ever() -> None:
    class FullTopic:
        async def send(self, **_: object) -> None:
            raise MessageSizeTooLargeError

    worker = object.__new__(Worker)
    worker._topics = {BOOKING_EVENTS: FullTopic()}
    with pytest.raises(ContractError, match="too long"):
        asyncio.run(worker._publish(booking_recorded()))


class Healing:
    """A worker whose gallery topic was compacted before a counting record could be put behind its late repeat."""

    def __init__(self, bench: Bench, *, compacted: bool) -> None:
        self.sent: list[tuple[bytes | None, bytes | None]] = []
        self._records = {} if compacted else {record.offset: record for record in bench.log.records[GALLERY, 0]}
        self.worker: Any = object.__new__(Worker)
        self.worker.replica = bench.replica
        self.worker._parts = SimpleNamespace(kafka=self, clock=lambda: bench.now)
        self.worker._topics = {GALLERY: self}
        self.worker._caught_up = asyncio.Event()
        self.worker._caught_up.set()
        self.worker._own_bookings = {0}
        self.worker._last_orders = {}

    def record_at(self, topic: str, partition: int, offset: int) -> LogRecord:
        if offset not in self._records:
            raise IntegrityError(f"{topic}/{partition}/{offset} is not in Kafka any more.")
        return self._records[offset]

    async def send(self, *, key: bytes | None, value: bytes | None) -> Awaitable[None]:
        self.sent.append((key, value))
        return asyncio.sleep(0)

    def heal(self) -> list[tuple[bytes | None, bytes | None]]:
        asyncio.run(self.worker._put_at_the_end_again())
        return self.sent


def late_repeat(bench: Bench, number: int) -> LogRecord:
    """Put a repeat of an earlier gallery record at the end of the topic and apply it."""
    log = bench.log.records[GALLERY, 0]
    log.append(replace(log[number], offset=len(log)))
    bench._handle(bench.replica.apply_gallery(GALLERY, log[-1:]))
    return log[-1]


def test_an_order_is_said_once_more_after_an_hour_so_that_kafka_closes_its_segment(bench: Bench) -> None:
    """And compacts it in time, however little is booked."""
    bench.book("B-1", bench.capture(0, "a"))
    bench.book("B-2", bench.capture(0, "b", "B-2"))
    bench.order(OrderKind.SEAL)
    bench.order(OrderKind.SEAL, "B-3")
    bench.order(OrderKind.UNSEAL, "B-3")
    worker = Healing(bench, compacted=False)

    def an_hour_later() -> list[str]:
        worker.sent.clear()
        asyncio.run(worker.worker._close_segments())
        return [str(decode(value).event_id) for _, value in worker.sent]

    seal = str(decode(bench.log.records[GALLERY, 0][2].value).event_id)
    assert [an_hour_later() for _ in range(4)] == [[], [seal], [], []]
    bench.order(OrderKind.EXPUNGE, "B-2")
    worker._records = {record.offset: record for record in bench.log.records[GALLERY, 0]}
    expungement = str(decode(bench.log.records[GALLERY, 0][-1].value).event_id)
    assert [an_hour_later() for _ in range(3)] == [[], [expungement], []]
    worker.worker._own_bookings = set()
    bench.order(OrderKind.EXPUNGE, "B-4")
    assert [an_hour_later() for _ in range(3)] == [[], [], []], "another worker has the partition"


def test_a_withdrawal_behind_which_a_late_repeat_stands_is_put_at_the_end_byte_for_byte(bench: Bench) -> None:
    bench.book("B-1", bench.capture(0, "a"))
    bench.order(OrderKind.SEAL)
    late_repeat(bench, 0)
    counting = bench.log.records[GALLERY, 0][1]
    assert Healing(bench, compacted=False).heal() == [(counting.key, counting.value)]


@pytest.mark.parametrize("order", [OrderKind.SEAL, OrderKind.EXPUNGE])
@pytest.mark.parametrize("number", ["B-1", "B/1/"])
def test_a_withdrawal_lost_to_compaction_is_made_anew(bench: Bench, order: OrderKind, number: str) -> None:
    """G5: a replica that starts from what compaction left keeps the booking out all the same."""
    bench.book(number, bench.capture(0, "a", number))
    bench.order(order, number)
    repeat = late_repeat(bench, 0)
    ((key, value),) = Healing(bench, compacted=True).heal()
    assert key == repeat.key
    made = replace(repeat, offset=3, value=value)
    lost, again = decode(bench.log.records[GALLERY, 0][1].value), decode(value)
    assert isinstance(lost, TemplatesWithdrawn)
    assert again == replace(lost, occurred_at=bench.now, order_event_id=None, booking_offset=None)
    for replica in (bench.replica, bench.new_replica()):
        bench._handle(replica.apply_gallery(GALLERY, [repeat, made] if replica is not bench.replica else [made]))
        assert replica.active.ledger.barred_by(f"CA0190000/{number}") is lost.cause
        assert replica.active.ledger.to_put_at_the_end_again() == {}
        assert replica.active.gallery.search(to_template(FACES[0]), 5).templates == 0


def test_an_enrolment_lost_to_compaction_stops_the_worker(bench: Bench) -> None:
    # Its templates are nowhere else; the operator must know that a correction is gone.
    bench.book("B-1", bench.capture(0, "a"))
    bench.book("B-1", bench.capture(1, "b"))
    late_repeat(bench, 0)
    healing = Healing(bench, compacted=True)
    with pytest.raises(IntegrityError, match="not in Kafka any more"):
        healing.heal()
    assert healing.sent == []


def test_after_a_read_back_that_failed_the_earliest_open_request_is_read_back_from() -> None:
    """G1: several requests are under way, and the one whose read-back failed comes after the others."""
    asked: list[int] = []
    decided: list[int] = []

    def decided_since(_partition: int, offset: int) -> list[UUID]:
        asked.append(offset)
        if len(asked) == 1:
            raise TransientError("Kafka is away.")
        return []

    async def handle(record: LogRecord) -> None:
        decided.append(record.offset)

    worker: Any = object.__new__(Worker)
    worker._read_back, worker._reading_back = {}, asyncio.Lock()
    worker._parts = SimpleNamespace(kafka=SimpleNamespace(decided_since=decided_since))
    worker._probes = SimpleNamespace(remember=lambda _: None, handle=handle)
    records = [signed(probe_submitted("p"), ALICE, partition=3, offset=offset) for offset in (10, 11, 12)]

    async def work() -> None:
        await asyncio.gather(*map(worker._decide_probe, records), return_exceptions=True)
        await worker._decide_probe(records[0])

    asyncio.run(work())
    assert asked == [10, 11, 10]
    assert decided == [11, 12, 10]


def test_a_worker_that_can_never_be_ready_stops_and_says_why() -> None:
    class IdleApp:
        crashed = False

        def finalize(self) -> None:
            """Accept."""

        async def start(self) -> None:
            """Accept."""

        async def add_runtime_dependency(self, _: object) -> None:
            """Accept."""

        async def wait_until_stopped(self) -> None:
            await asyncio.Event().wait()

        async def stop(self) -> None:
            """Accept."""

    async def shortened() -> bool:
        raise IntegrityError("Kafka lost records.")

    worker: Any = object.__new__(Worker)
    worker.app, worker._follower, worker._audit, worker._orders = IdleApp(), None, None, None
    worker.replica = SimpleNamespace(applied={})
    worker._snapshots = SimpleNamespace(restore=lambda: None)
    worker._pool, worker._search_pool, worker._catch_up = ThreadPoolExecutor(1), ThreadPoolExecutor(1), shortened
    with pytest.raises(IntegrityError, match="lost records"):
        asyncio.run(asyncio.wait_for(worker.run(asyncio.Event(), lambda: None), timeout=30))


# Probes.


def test_a_candidate_list_says_what_it_rests_on(bench: Bench) -> None:
    bench.book("B-1", bench.capture(0, "a"), bench.capture(1, "b"), sid="A1")
    bench.book("B-2", bench.capture(2, "a", "B-2"))
    request = bench.request(0)
    (issued,) = bench.ask(request, offset=7)
    assert isinstance(issued, CandidateListIssued)
    assert [(row.rank, row.person) for row in issued.candidates] == [(1, "sid:A1"), (2, "booking:CA0190000/B-2")]
    assert issued.candidates[0].score == 1.0
    assert [row.expected_non_mates for row in issued.candidates] == [3 * (2 - row.score) for row in issued.candidates]
    assert (issued.requested, issued.returned) == (5, 2)
    assert (issued.gallery_templates, issued.gallery_persons) == (3, 2)
    assert issued.gallery_watermark == (2, 0, 0, 0, 0, 0, 0, 0)
    assert issued.access_watermark == (len(bench.registry.records),)
    assert (issued.policy_version, issued.model_digest, issued.threshold) == ("2026.1", MODEL, 0.003)
    assert (issued.probe_id, issued.user_id, issued.case_number) == (request.probe_id, "alice", request.case_number)
    assert (issued.request.partition, issued.request.offset) == (2, 7)
    assert issued.event_id == derived_id(request.probe_id, "outcome")
    assert issued.lead_notice == LEAD_NOTICE


def test_a_second_delivery_of_a_request_is_not_decided_again(bench: Bench) -> None:
    bench.book("B-1", bench.capture(0, "a"))
    request = bench.request(0)
    assert len(bench.ask(request)) == 1
    assert bench.ask(request) == []
    assert bench.ask(request, offset=8) == []
    assert bench.extractor.photos.count(b"face 0") == 2


def test_a_request_that_comes_again_while_it_is_decided_is_decided_once(bench: Bench) -> None:
    """G1: several requests are worked on at once."""
    bench.book("B-1", bench.capture(0, "a"))
    request = bench.request(0)
    record = signed(request, ALICE, partition=2, offset=7)

    async def both() -> None:
        await asyncio.gather(*(bench.probes.handle(replace(record, offset=offset)) for offset in (7, 8, 9)))

    (issued,) = bench._handle(both())
    assert isinstance(issued, CandidateListIssued)
    assert issued.request.offset == 7


def test_requests_that_are_decided_at_once_have_the_lists_of_requests_that_come_alone(bench: Bench) -> None:
    """G7."""
    for number in range(4):
        bench.book(f"B-{number}", bench.capture(number, "a", f"B-{number}"))
    alone = [bench.ask(bench.request(face, f"alone {face}"))[0] for face in range(4)]
    requests = [bench.request(face, f"together {face}") for face in range(4)]
    together = [signed(request, ALICE, partition=2, offset=9 + n) for n, request in enumerate(requests)]

    async def all_of_them() -> None:
        await asyncio.gather(*map(bench.probes.handle, together))

    lists = {event.probe_id: event.candidates for event in bench._handle(all_of_them())}
    assert [lists[uuid_named(f"together {face}")] for face in range(4)] == [event.candidates for event in alone]


def test_a_refused_request_is_not_decided_again_either(bench: Bench) -> None:
    request = bench.request(0, reason_code="CURIOSITY")
    assert bench.refused(request) == "REASON_CODE_UNKNOWN"
    assert bench.ask(replace(request, reason_code="FELONY_INVESTIGATION")) == []


def test_what_was_decided_before_a_restart_is_not_decided_again(bench: Bench) -> None:
    request = bench.request(0)
    bench.probes.remember([request.probe_id])
    assert bench.ask(request) == []


def test_an_outcome_that_the_broker_did_not_acknowledge_is_none_and_is_decided_again(bench: Bench) -> None:
    request = bench.request(0)
    bench.fails_to_publish = [CandidateListIssued]
    with pytest.raises(TransientError):
        bench.ask(request)
    assert kinds(bench.ask(request)) == [CandidateListIssued]


def test_the_memory_of_decided_probes_is_bounded_and_lets_the_oldest_go(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes_module, "REMEMBERED_PROBES", 3)
    bench.probes.remember(uuid_named(str(number)) for number in range(10))
    assert list(bench.probes._decided) == [uuid_named(str(number)) for number in (7, 8, 9)]


def test_a_replica_that_is_behind_answers_nothing_from_an_old_state(bench: Bench) -> None:
    bench.book("B-1", bench.capture(0, "a"))
    bench.log.hidden = 1
    bench.be_patient(0.01)
    assert bench.refused(bench.request(0)) == "REPLICA_BEHIND"
    assert bench.extractor.photos == [b"face 0"]


def test_while_the_audit_trail_is_behind_no_search_is_made_and_bookings_go_on(bench: Bench) -> None:
    bench.audited_within_s = POLICY.audit.maximum_lag_s + 1.0
    assert answer_of(bench.book("B-1", bench.capture(0, "a"))).outcome is BookingOutcome.ENROLLED
    assert bench.refused(bench.request(0, "late")) == "AUDIT_BEHIND"
    assert bench.refused(bench.request(0, "nobody", user_id="nobody", actor="user:nobody")) != "AUDIT_BEHIND"
    assert bench.extractor.photos == [b"face 0"], "no probe was looked at"
    bench.audited_within_s = float(POLICY.audit.maximum_lag_s)
    (issued,) = bench.ask(bench.request(0, "in time"))
    assert isinstance(issued, CandidateListIssued)


def test_while_a_court_order_waits_no_search_is_made_and_bookings_go_on(bench: Bench) -> None:
    """G5: past the bound, searches stop."""
    bench.obeyed_within_s = POLICY.orders.maximum_lag_s + 1.0
    assert answer_of(bench.book("B-1", bench.capture(0, "a"))).outcome is BookingOutcome.ENROLLED
    (refused,) = bench.ask(bench.request(0, "late"))
    assert isinstance(refused, ProbeRefused)
    assert (refused.code, refused.rule) == ("ORDER_BEHIND", "orders.lag")
    assert bench.refused(bench.request(0, "nobody", user_id="nobody", actor="user:nobody")) != "ORDER_BEHIND"
    assert bench.extractor.photos == [b"face 0"], "no probe was looked at"
    bench.obeyed_within_s = float(POLICY.orders.maximum_lag_s)
    assert bench.listed(bench.request(0, "in time")) == ["B-1"]


def test_how_long_an_order_took_to_be_obeyed_is_measured_at_the_acknowledged_withdrawal(bench: Bench) -> None:
    """G5: the time from order to withdrawal is measured."""
    bench.fails_to_publish = [TemplatesWithdrawn]
    with pytest.raises(TransientError):
        bench.order(OrderKind.SEAL)
    bench.order(OrderKind.UNSEAL)
    assert bench.ages_of_orders == [], "one was not acknowledged, the other took nothing out"
    bench.fails_to_publish = [BookingProcessed]
    with pytest.raises(TransientError):
        bench.order(OrderKind.SEAL)
    assert bench.ages_of_orders == [bench.now.timestamp()], "whatever becomes of the answer"


def policy_activated(version: str, since: datetime = NOW, *changes: tuple[str, str]) -> PolicyActivated:
    """Return the activation of the shipped policy with some lines changed."""
    document = files("infra").joinpath("policy", "default.toml").read_text(encoding="utf-8")
    for before, after in (('version = "2026.3"', f'version = "{version}"'), *changes):
        assert document.count(before) == 1, before
        document = document.replace(before, after)
    digest = sha256(document.encode()).hexdigest()
    return PolicyActivated(
        **by_root(policy_version=version, policy_sha256=digest, effective_from=since, document=document)
    )


def accept_what_the_shipped_policy_asks_for(bench: Bench) -> None:
    for agreement, version in (("STATE_USER_AGREEMENT", "2025"), ("PENALTIES_NOTICE", "1")):
        bench.say(agreement_accepted("alice", agreement=agreement, agreement_version=version), ALICE)


def test_a_policy_decides_from_its_first_instant_on_and_every_outcome_names_it(bench: Bench) -> None:
    accept_what_the_shipped_policy_asks_for(bench)
    fewer = ("maximum_candidates = 50", "maximum_candidates = 30")
    no_source = ('sources = ["BOOKING_CAPTURE"]', 'sources = ["ENROLMENT_STATION"]')
    bench.say(policy_activated("2027.1", NOW + timedelta(hours=1), fewer, no_source))
    bench.now = NOW + timedelta(hours=1) - 2 * MICROSECOND
    before = answer_of(bench.book("B-1", bench.capture(0, "a")))
    (issued,) = bench.ask(bench.request(0, "before", requested_candidates=40))
    assert isinstance(issued, CandidateListIssued)
    assert (issued.policy_version, issued.consolidation) == ("2026.1", Consolidation.BEST_CAPTURE)
    assert (before.outcome, before.policy_version) == (BookingOutcome.ENROLLED, "2026.1")
    bench.moment()
    (refused,) = bench.ask(bench.request(0, "since", requested_candidates=40))
    assert isinstance(refused, ProbeRefused)
    assert (refused.code, refused.policy_version) == ("CANDIDATE_COUNT_OUT_OF_RANGE", "2027.1")
    (issued,) = bench.ask(bench.request(0, "fewer", requested_candidates=30))
    assert isinstance(issued, CandidateListIssued)
    assert (issued.policy_version, issued.consolidation) == ("2027.1", Consolidation.FUSED_CAPTURES)
    since = answer_of(bench.book("B-2", bench.capture(0, "a", "B-2")))
    assert (since.captures[0].code, since.policy_version) == ("NOT_A_BOOKING_CAPTURE", "2027.1")
    assert answer_of(bench.order(OrderKind.SEAL)).policy_version == "2027.1"


def test_a_policy_that_is_activated_while_a_request_waits_decides_it(bench: Bench) -> None:
    few = ("maximum_candidates = 50", "maximum_candidates = 4"), ("default_candidates = 20", "default_candidates = 4")
    accept_what_the_shipped_policy_asks_for(bench)
    refused = bench.ask_while_the_administrator_says(policy_activated("2027.1", NOW, *few), bench.request(0))
    assert isinstance(refused, ProbeRefused)
    assert (refused.code, refused.policy_version) == ("CANDIDATE_COUNT_OUT_OF_RANGE", "2027.1")
    assert refused.access_watermark == (len(bench.registry.records) + 1,)


def test_a_revocation_stops_a_request_that_waits(bench: Bench) -> None:
    """G3: who may search is decided when it is searched, and not when it was asked for."""
    refused = bench.ask_while_the_administrator_says(access_revoked("alice"), bench.request(0))
    assert isinstance(refused, ProbeRefused)
    assert refused.code == "ACCESS_REVOKED"
    assert bench.extractor.photos == []


def test_what_is_said_while_the_audit_trail_is_asked_about_counts_too(bench: Bench) -> None:
    bench.meanwhile = [access_revoked("alice")]
    assert bench.refused(bench.request(0, "one")) == "ACCESS_REVOKED"
    bench.say(access_granted("alice", occurred_at=NOW + MICROSECOND))
    accept_what_the_shipped_policy_asks_for(bench)
    stricter = (
        "# Past this many seconds no search is made: what cannot be audited is not done.\nmaximum_lag_s = 60",
        "maximum_lag_s = 5",
    )
    bench.audited_within_s = 30.0
    assert bench.listed(bench.request(0, "two")) == []
    bench.meanwhile = [policy_activated("2027.1", NOW, stricter)]
    (refused,) = bench.ask(bench.request(0, "three"))
    assert isinstance(refused, ProbeRefused)
    assert (refused.code, refused.policy_version) == ("AUDIT_BEHIND", "2027.1")


def quality_override(request: ProbeSubmitted, **changes: Any) -> QualityOverrideGranted:
    facts: dict[str, Any] = {
        "event_id": uuid_named(request.image_sha256),
        "occurred_at": NOW,
        "actor": "user:bob",
        "user_id": "bob",
        "ori": request.ori,
        "case_number": request.case_number,
        "image_sha256": request.image_sha256,
        "reason": "There is no other photo of the victim.",
        "expires_at": NOW + timedelta(hours=1),
        **changes,
    }
    return QualityOverrideGranted(**facts)


def test_a_supervisor_can_let_a_poor_image_be_searched_and_the_list_says_so(bench: Bench) -> None:
    bench.say(user_registered("bob", BOB.public_key, roles=("SUPERVISOR",)))
    bench.say(access_granted("bob"))
    bench.book("B-1", bench.capture(0, "a"))
    poor, good = bench.request("face 0 4", "poor"), bench.request("face 0 9", "good")
    assert bench.refused(poor) == "QUALITY_TOO_LOW"
    bench.say(granted := quality_override(poor), BOB)
    (issued,) = bench.ask(bench.request("face 0 4", "again"))
    assert isinstance(issued, CandidateListIssued)
    assert (issued.quality_override, issued.measurements) == (granted.event_id, {"unified_quality": 4.0})
    assert bench.refused(bench.request("face 0 4", "elsewhere", case_number="2026-1")) == "QUALITY_TOO_LOW"
    assert bench.refused(bench.request("face 0 3", "another")) == "QUALITY_TOO_LOW"
    bench.say(quality_override(good), BOB)
    (issued,) = bench.ask(good)
    assert isinstance(issued, CandidateListIssued)
    assert issued.quality_override is None, "it was not needed"
    bench.now = granted.expires_at
    assert bench.refused(bench.request("face 0 4", "late")) == "QUALITY_TOO_LOW"


def test_what_the_models_cannot_use_no_supervisor_can_let_them_use(bench: Bench) -> None:
    bench.say(user_registered("bob", BOB.public_key, roles=("SUPERVISOR",)))
    bench.say(access_granted("bob"))
    request = bench.request("a house")
    bench.say(quality_override(request), BOB)
    assert bench.refused(request) == "NO_FACE"


def test_refusals_come_in_order_and_before_the_image_is_touched(bench: Bench) -> None:
    # Signature, then person, then purpose, then image: who may not ask learns nothing that comes later.
    bench.say(user_registered("bob", BOB.public_key, roles=("AUDITOR",)))
    wrong: dict[str, Any] = {"reason_code": "", "image_reference": "nonsense"}
    as_bob: dict[str, Any] = {"user_id": "bob", "actor": "user:bob", **wrong}
    steps = [
        (STRANGER, as_bob, "UNAUTHENTICATED"),
        (BOB, {**as_bob, "actor": "user:alice"}, "NOT_ALLOWED"),
        (CASE_TOOL, {**as_bob, "actor": "publisher:case-tool"}, "NOT_ALLOWED"),
        (CASE_TOOL, {**wrong, "actor": "publisher:case-tool", "logon": LOGON, "user_id": "nobody"}, "USER_UNKNOWN"),
        (BOB, as_bob, "ACCESS_NOT_GRANTED"),
        (ALICE, wrong, "REASON_CODE_MISSING"),
        (ALICE, {"image_reference": "nonsense", "requested_candidates": 51}, "CANDIDATE_COUNT_OUT_OF_RANGE"),
        (ALICE, {"image_reference": "nonsense"}, "REFERENCE_UNRESOLVED"),
    ]
    for number, (key, changes, code) in enumerate(steps):
        assert bench.refused(bench.request(0, f"probe {number}", **changes), key) == code
    assert bench.extractor.photos == []


def test_every_refusal_says_what_it_rests_on(bench: Bench) -> None:
    bench.book("B-1", bench.capture(0, "a"))
    (refused,) = bench.ask(bench.request(0, source_type="SURVEILLANCE_VIDEO"))
    assert isinstance(refused, ProbeRefused)
    assert refused.message == POLICY.probes.prohibited_sources["SURVEILLANCE_VIDEO"].message
    assert refused.gallery_watermark == (1, 0, 0, 0, 0, 0, 0, 0)
    assert refused.access_watermark == (len(bench.registry.records),)
    assert (refused.policy_version, refused.user_id) == ("2026.1", "alice")


def test_a_revocation_before_the_request_is_honoured_and_a_new_grant_too(bench: Bench) -> None:
    bench.say(access_revoked("alice"))
    assert bench.refused(bench.request(0, "one")) == "ACCESS_REVOKED"
    bench.say(access_granted("alice", occurred_at=NOW + MICROSECOND))
    assert bench.listed(bench.request(0, "two")) == []


def test_training_is_judged_at_the_moment_of_the_search(bench: Bench) -> None:
    bench.now = PERIOD[1] - MICROSECOND
    assert bench.listed(bench.request(0, "one")) == []
    bench.now = PERIOD[1]
    assert bench.refused(bench.request(0, "two")) == "TRAINING_EXPIRED"
    bench.now += timedelta(days=1)
    assert bench.refused(bench.request(0, "three")) == "TRAINING_EXPIRED"


def test_another_agencys_user_cannot_search_for_this_one(bench: Bench) -> None:
    bench.say(agency_registered(OTHER_ORI))
    assert bench.refused(bench.request(0, ori=OTHER_ORI)) == "AGENCY_MISMATCH"


def test_a_bad_image_is_a_refusal_with_its_measurements_and_no_crash(bench: Bench) -> None:
    assert bench.refused(bench.request(0, "a", image_reference="nonsense")) == "REFERENCE_UNRESOLVED"
    altered = {"image_sha256": "cd" * 32, "original_sha256": "cd" * 32}
    assert bench.refused(bench.request(0, "b", **altered)) == "DIGEST_MISMATCH"
    gone = bench.request(0, "c")
    bench.objects.destroy_key(probe_scope(gone.probe_id))
    assert bench.refused(gone) == "KEY_DESTROYED"
    (refused,) = bench.ask(bench.request("a house", "d"))
    assert isinstance(refused, ProbeRefused)
    assert (refused.code, refused.measurements) == ("NO_FACE", {"face_score": 0.01})


def test_a_photo_too_poor_to_be_enrolled_may_still_be_searched_with(bench: Bench) -> None:
    answer = answer_of(bench.book("B-1", bench.capture("face 0 10", "a")))
    assert (answer.outcome, answer.captures[0].code) == (BookingOutcome.NOT_ENROLLED, "QUALITY_TOO_LOW")
    assert answer.captures[0].measurements == {"unified_quality": 10.0}
    (issued,) = bench.ask(bench.request("face 0 10", "a"))
    assert isinstance(issued, CandidateListIssued)


def test_a_probe_that_the_policy_finds_too_poor_is_refused_with_rule_and_measurement(bench: Bench) -> None:
    (refused,) = bench.ask(bench.request("face 0 4", "a"))
    assert isinstance(refused, ProbeRefused)
    assert (refused.code, refused.measurements) == ("QUALITY_TOO_LOW", {"unified_quality": 4.0})
    assert "Policy 2026.1: quality.probe.minimum.unified_quality" in refused.message


def test_a_probe_cannot_search_with_the_photo_of_a_booking_or_of_another_probe(bench: Bench) -> None:
    # Else whoever knows a reference could search with a sealed record's photo.
    photo = bench.capture(0, "a")
    taken = {"image_reference": photo.reference, "image_sha256": photo.sha256, "original_sha256": photo.sha256}
    assert bench.refused(bench.request(0, "one", **taken)) == "REFERENCE_UNRESOLVED"
    other = bench.request(1, "two")
    assert bench.refused(bench.request(0, "three", image_reference=other.image_reference)) == "REFERENCE_UNRESOLVED"


def test_probes_are_never_enrolled(bench: Bench) -> None:
    bench.ask(bench.request(0))
    assert kinds(bench.published) == [CandidateListIssued]
    assert bench.gallery.search(to_template(FACES[0]), 5).templates == 0


def test_what_a_withdrawal_took_out_is_in_no_later_list_whatever_a_restart_repeats(bench: Bench) -> None:
    bench.book("B-1", bench.capture(0, "a"))
    enrolled = bench.log.records[GALLERY, 0][0]
    bench.order(OrderKind.SEAL)
    late = replace(enrolled, offset=2)
    bench.log.records[GALLERY, 0].append(late)
    bench._handle(bench.replica.apply_gallery(GALLERY, [late]))
    assert bench.listed(bench.request(0)) == []
    assert bench.replica.active.ledger.barred_by("CA0190000/B-1") is WithdrawalCause.SEALED
