"""Each kind of exception leads to its one action (DESIGN 7), nothing is lost (G12) and nothing is quoted (G10)."""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from builders import JAIL, NOW, booking_recorded, signed

from connectors.key_custody import FileMasterKey
from connectors.metrics import WorkerMetrics
from connectors.object_store import ObjectStore
from processors.dead_letters import headers_to_replay
from schemas.codec import decode, encode
from schemas.errors import ContractError, DomainFault, IntegrityError, TransientError
from schemas.events import DeadLetter, Header, OriginalRecord
from streams import guard as guard_module
from streams.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from schemas.events import Event
    from schemas.records import LogRecord

    Handler = Callable[[LogRecord], Awaitable[None]]

QUOTED = "the-bytes-of-a-face"
RECORD = signed(booking_recorded(), JAIL, partition=3, offset=17)


class Bench:
    """A guard with a real object store, and what came out of it."""

    def __init__(self, folder: Path, *, limit: int = 100) -> None:
        self.published: list[Event] = []
        self.stopped: list[BaseException] = []
        self.in_hand_when_stopped: list[BaseException | None] = []
        self.objects = ObjectStore(folder / "objects", FileMasterKey(bytes(range(32))))
        self.broker_is_away_for = 0
        self.given_up: list[tuple[LogRecord, str]] = []
        self.cannot_be_answered: list[BaseException] = []
        self.guard = Guard(
            stage="bookings",
            publish=self._publish,
            objects=self.objects,
            clock=lambda: NOW,
            give_up=self._give_up,
            stop_worker=self._stop,
            is_known_signer=lambda record: bool(record.headers),
            dead_letter_limit=limit,
        )

    async def _publish(self, event: Event) -> None:
        if self.broker_is_away_for:
            self.broker_is_away_for -= 1
            raise TransientError("Kafka is away.")
        self.published.append(event)

    async def _give_up(self, record: LogRecord, reason: str) -> None:
        if self.cannot_be_answered:
            raise self.cannot_be_answered.pop(0)
        assert self.published, "the dead letter comes first"
        self.given_up.append((record, reason))

    async def _stop(self, error: BaseException) -> None:
        self.stopped.append(error)
        self.in_hand_when_stopped.append(sys.exc_info()[1])

    def run(self, handle: Handler, record: LogRecord = RECORD) -> bool:
        return asyncio.run(self.guard.run(handle, record))

    def dead_letter(self) -> DeadLetter:
        (letter,) = self.published
        assert isinstance(letter, DeadLetter)
        return letter

    def original(self, letter: DeadLetter) -> OriginalRecord:
        scope = f"dead-letter/{letter.event_id}"
        assert letter.reference is not None
        # The store answers for the digest of what it gives; a dead letter names the digest of the value alone.
        original = OriginalRecord(
            key=RECORD.key,
            value=RECORD.value,
            headers=tuple(Header(name=name, value=value) for name, value in RECORD.headers),
        )
        found = decode(self.objects.get(letter.reference, sha256(encode(original)).hexdigest(), scope=scope))
        assert isinstance(found, OriginalRecord)
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "FIRST_WAIT_S", 0.0)


def raising(*errors: BaseException) -> Handler:
    """A handler that raises these, one a call, and then succeeds."""
    left = list(errors)

    async def handle(_: LogRecord) -> None:
        if left:
            raise left.pop(0)

    return handle


def test_what_was_handled_is_acknowledged_and_leaves_nothing_behind(bench: Bench) -> None:
    assert bench.run(raising())
    assert (bench.published, bench.stopped, bench.given_up) == ([], [], [])


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ContractError("The record has no value."), "CONTRACT", "The record has no value."),
        (DomainFault("WRONG_PARTITION", "Use murmur2."), "WRONG_PARTITION", "Use murmur2."),
    ],
)
def test_a_broken_contract_or_rule_becomes_a_dead_letter_with_its_reason(
    bench: Bench, error: Exception, code: str, message: str
) -> None:
    assert bench.run(raising(error))
    letter = bench.dead_letter()
    assert (letter.code, letter.message, letter.stage) == (code, message, "bookings")
    assert letter.source == RECORD.position
    assert letter.value_sha256 == sha256(RECORD.value or b"").hexdigest()
    assert letter.value_size_bytes == len(RECORD.value or b"")
    assert (letter.first_seen_at, letter.replay_count) == (NOW, 0)
    assert bench.stopped == []


def test_the_original_of_a_dead_letter_can_be_had_again_byte_for_byte(bench: Bench) -> None:
    bench.run(raising(ContractError("Not Avro.")))
    original = bench.original(bench.dead_letter())
    assert (original.key, original.value) == (RECORD.key, RECORD.value)
    assert tuple((header.name, header.value) for header in original.headers) == RECORD.headers


def test_the_original_lies_encrypted_in_the_store_and_not_in_kafka(bench: Bench, tmp_path: Path) -> None:
    bench.run(raising(ContractError("Not Avro.")))
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for part in (RECORD.value, RECORD.key):
        assert part is not None
        assert part not in stored
        assert part not in encode(bench.dead_letter())


def test_while_the_world_is_away_the_record_is_retried_in_place_and_then_done(bench: Bench) -> None:
    assert bench.run(raising(*[TransientError("Kafka is away.")] * 7))
    assert (bench.published, bench.stopped) == ([], [])


def test_a_record_that_is_wrong_once_the_world_is_back_is_a_dead_letter_then(bench: Bench) -> None:
    assert bench.run(raising(TransientError("Kafka is away."), ContractError("Not Avro.")))
    assert bench.dead_letter().code == "CONTRACT"


def test_a_dead_letter_waits_for_the_broker_and_its_repeat_is_the_same(bench: Bench) -> None:
    always = raising(*[ContractError("Not Avro.")] * 4)
    bench.broker_is_away_for = 3
    assert bench.run(always)
    assert len(bench.published) == 1
    bench.run(raising(ContractError("Not Avro.")))
    assert bench.published[0] == bench.published[1]


def test_wrong_evidence_stops_the_worker_and_is_not_acknowledged(bench: Bench) -> None:
    error = IntegrityError("The stored bytes were altered.")
    assert not bench.run(raising(error))
    assert (bench.stopped, bench.published) == ([error], [])


def test_an_unforeseen_exception_is_a_dead_letter_that_names_only_its_kind_and_place(bench: Bench) -> None:
    with structlog.testing.capture_logs() as logs:
        assert bench.run(raising(KeyError(QUOTED)))
    letter = bench.dead_letter()
    assert letter.code == "UNEXPECTED"
    assert letter.message.startswith("KeyError at raising.<locals>.handle:")
    assert QUOTED not in repr(letter)
    assert QUOTED not in repr(logs)


def test_no_text_of_an_unforeseen_exception_reaches_whoever_logs_the_crash(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def put(*_: Any) -> None:
        raise ValueError(QUOTED)

    monkeypatch.setattr(bench.objects, "put", put)
    with structlog.testing.capture_logs() as logs, caplog.at_level(logging.DEBUG):
        assert not bench.run(raising(ContractError("Not Avro.")))
    (error,) = bench.stopped
    assert isinstance(error, IntegrityError)
    assert "ValueError" in str(error)
    for text in (repr(error), repr(error.__cause__), repr(error.__context__), repr(logs), caplog.text):
        assert QUOTED not in text
    # A service that crashes logs the exception in hand with its text.
    assert bench.in_hand_when_stopped == [None]


def test_a_dead_letter_whose_original_cannot_be_kept_any_more_is_sent_without_it(bench: Bench) -> None:
    bench.run(raising(ContractError("Not Avro.")))
    first = bench.published.pop()
    bench.objects.destroy_key(f"dead-letter/{first.event_id}")
    assert bench.run(raising(ContractError("Not Avro.")))
    assert bench.dead_letter().reference is None
    assert bench.stopped == []


def test_past_the_limit_of_dead_letters_the_worker_stops_and_nothing_more_is_acknowledged(tmp_path: Path) -> None:
    bench = Bench(tmp_path, limit=2)
    for offset in range(2):
        assert bench.run(raising(ContractError("Not Avro.")), signed(booking_recorded(), JAIL, offset=offset))
    for offset in range(2, 4):
        assert not bench.run(raising(ContractError("Not Avro.")), signed(booking_recorded(), JAIL, offset=offset))
    assert len(bench.published) == 2
    assert all(isinstance(error, IntegrityError) for error in bench.stopped)
    assert "2 dead letters" in str(bench.stopped[0])


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "NOT_ALLOWED"])
def test_a_stranger_cannot_stop_a_stream_by_what_nobody_believes(tmp_path: Path, code: str) -> None:
    bench = Bench(tmp_path, limit=1)
    assert bench.run(raising(ContractError("Not Avro.")), signed(booking_recorded(), JAIL, offset=0))
    for offset in range(1, 5):
        assert bench.run(raising(DomainFault(code, "Sign it.")), signed(booking_recorded(), JAIL, offset=offset))
    assert (len(bench.published), bench.stopped) == (5, [])
    assert not bench.run(raising(ContractError("Not Avro.")), signed(booking_recorded(), JAIL, offset=5))


def test_a_stranger_cannot_stop_a_stream_by_garbage_either(tmp_path: Path) -> None:
    """G12: what cannot be read and nobody registered signed is set aside, as often as it comes."""
    bench = Bench(tmp_path, limit=1)
    for offset in range(5):
        garbage = replace(RECORD, headers=(), value=b"garbage", offset=offset)
        assert bench.run(raising(ContractError("Not Avro.")), garbage)
    assert (len(bench.published), bench.stopped) == (5, [])


# What its sender is told.


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ContractError("Not Avro."), "CONTRACT. Not Avro."),
        (DomainFault("WRONG_PARTITION", "Use murmur2."), "WRONG_PARTITION. Use murmur2."),
        (DomainFault("UNAUTHENTICATED", "Sign it."), "UNAUTHENTICATED. Sign it."),
    ],
)
def test_a_dead_letter_still_answers_and_says_why(bench: Bench, error: Exception, reason: str) -> None:
    """G1, G12."""
    assert bench.run(raising(error))
    assert bench.given_up == [(RECORD, f"The record was set aside as a dead letter: {reason}")]


def test_the_answer_quotes_no_unforeseen_exception(bench: Bench) -> None:
    """G10."""
    assert bench.run(raising(KeyError(QUOTED)))
    ((_, reason),) = bench.given_up
    assert "UNEXPECTED. KeyError at" in reason
    assert QUOTED not in reason


def test_an_answer_waits_for_the_broker_behind_one_dead_letter(bench: Bench) -> None:
    bench.cannot_be_answered = [TransientError("Kafka is away.")] * 3
    assert bench.run(raising(ContractError("Not Avro.")))
    assert bench.dead_letter().code == "CONTRACT"
    assert len(bench.given_up) == 1


def test_a_record_that_cannot_be_answered_stays_a_dead_letter_and_stops_nothing(bench: Bench) -> None:
    """G10, G12: what breaks the handler may well break the answer."""
    bench.cannot_be_answered = [KeyError(QUOTED)]
    with structlog.testing.capture_logs() as logs:
        assert bench.run(raising(KeyError(QUOTED)))
    assert bench.dead_letter().code == "UNEXPECTED"
    assert (bench.given_up, bench.stopped) == ([], [])
    assert "dead letter not answered" in [entry["event"] for entry in logs]
    assert QUOTED not in repr(logs)


def test_wrong_evidence_found_while_answering_stops_the_worker(bench: Bench) -> None:
    error = IntegrityError("The stored bytes were altered.")
    bench.cannot_be_answered = [error]
    assert not bench.run(raising(ContractError("Not Avro.")))
    assert bench.stopped == [error]


def test_what_was_handled_well_does_not_count_towards_the_limit(tmp_path: Path) -> None:
    bench = Bench(tmp_path, limit=1)
    assert all(bench.run(raising()) for _ in range(5))
    assert bench.run(raising(DomainFault("X", "y")))


def test_a_cancelled_handler_is_neither_acknowledged_nor_buried(bench: Bench) -> None:
    async def cancel_half_way() -> bool:
        started = asyncio.Event()

        async def handle(_: LogRecord) -> None:
            started.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(bench.guard.run(handle, RECORD))
        await started.wait()
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled()

    assert asyncio.run(cancel_half_way())
    assert (bench.published, bench.stopped) == ([], [])


def test_waiting_for_the_world_can_be_cancelled(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "FIRST_WAIT_S", 3600.0)

    async def cancel_while_waiting() -> bool:
        tried = asyncio.Event()

        async def handle(_: LogRecord) -> None:
            tried.set()
            raise TransientError("Kafka is away.")

        task = asyncio.create_task(bench.guard.run(handle, RECORD))
        await tried.wait()
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled()

    assert asyncio.run(cancel_while_waiting())


def test_an_operator_is_told_of_waiting_of_its_end_and_of_each_dead_letter(bench: Bench) -> None:
    metrics = WorkerMetrics("worker-1")
    bench.guard._telemetry = metrics
    seen: list[bytes] = []

    async def handle(_: LogRecord) -> None:
        seen.append(metrics.page())
        if len(seen) == 1:
            raise TransientError("Kafka is away.")
        raise ContractError(QUOTED)

    assert bench.run(handle)
    assert b'leadstream_waiting{stage="bookings"} 1.0' in seen[1]
    assert b'leadstream_waiting{stage="bookings"} 0.0' in metrics.page()
    assert b'leadstream_dead_letters_total{code="CONTRACT",stage="bookings"} 1.0' in metrics.page()
    assert QUOTED.encode() not in metrics.page()


def test_a_record_that_was_replayed_and_dies_again_says_how_often_and_since_when(bench: Bench) -> None:
    bench.run(raising(ContractError("Not Avro.")))
    first = bench.dead_letter()
    bench.published.clear()
    assert (first.replay_count, first.first_seen_at) == (0, NOW)
    headers = headers_to_replay(replace(first, first_seen_at=NOW - timedelta(days=3)), RECORD.headers)
    bench.run(raising(ContractError("Not Avro.")), replace(RECORD, offset=99, headers=headers))
    again = bench.dead_letter()
    assert (again.replay_count, again.first_seen_at) == (1, NOW - timedelta(days=3))
    assert again.event_id != first.event_id
