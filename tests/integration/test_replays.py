"""Dead letters on a broker: the original comes back as it was, once, where its key belongs (G12)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from builders import ALICE, JAIL, NOW, booking_recorded, probe_submitted
from confluent_kafka import Producer

from connectors.dead_letters import Replays, describe_original, read_cases
from connectors.kafka_log import KafkaLog
from connectors.key_custody import FileMasterKey
from connectors.object_store import ObjectStore
from connectors.topic_admin import TopicAdmin
from processors.dead_letters import Case, State
from processors.refusals import Refusal, RefusalCode
from processors.searching import DecidedUnder, refuse
from schemas import signing
from schemas.codec import encode, topic_of
from schemas.errors import ContractError, DomainFault, IntegrityError, TransientError
from schemas.events import DeadLetter
from schemas.keys import key_of, partition_of
from schemas.topics import BOOKING_EVENTS, DEAD_LETTERS, PROBE_REQUESTS, TOPICS
from streams.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from schemas.events import Event
    from schemas.records import LogRecord

VALUE = b"nothing that a schema reads"


@dataclass(frozen=True)
class Bench:
    """A worker's guard and an operator, on one broker and one object store."""

    config: dict[str, str | int | bool]
    log: KafkaLog
    objects: ObjectStore
    replays: Replays

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        *,
        partition: int | None = None,
        headers: tuple[tuple[str, bytes | None], ...] = (),
    ) -> LogRecord:
        """Write a record as an outsider would, and return it as a worker reads it."""
        placed: list[int] = []
        producer = Producer(self.config)
        number = partition if partition is not None else partition_of(topic, key or b"")
        producer.produce(
            topic,
            value,
            key,
            partition=number,
            headers=list(headers),
            on_delivery=lambda _, message: placed.append(message.offset()),
        )
        producer.flush()
        return self.log.record_at(topic, number, placed[0])

    async def _publish(self, event: Event) -> None:
        self.send(topic_of(event), key_of(event), encode(event))

    async def _nobody_waits(self, *_: object) -> None:
        return

    def die(self, record: LogRecord) -> Case:
        """Let a handler fail on a record; return what the operator then sees."""

        async def handle(_: LogRecord) -> None:
            raise ContractError("No schema reads it.")

        guard = Guard(
            stage="bookings",
            publish=self._publish,
            objects=self.objects,
            clock=lambda: NOW,
            give_up=self._nobody_waits,
            stop_worker=self._nobody_waits,
            is_known_signer=lambda _: True,
            dead_letter_limit=100,
        )
        assert asyncio.run(guard.run(handle, record))
        return self.case_of(record)

    def case_of(self, record: LogRecord) -> Case:
        (case,) = [case for case in read_cases(self.log) if case.letter.source == record.position]
        return case


@pytest.fixture
def bench(bootstrap: str, tmp_path: Path) -> Iterator[Bench]:
    TopicAdmin(bootstrap).apply(TOPICS.values())
    config: dict[str, str | int | bool] = {"bootstrap.servers": bootstrap, "log_level": 0}
    objects = ObjectStore(tmp_path / "objects", FileMasterKey(bytes(range(32))))
    log = KafkaLog(config)
    with Replays(config, log=log, store=objects, clock=lambda: NOW) as replays:
        yield Bench(config, log, objects, replays)


def own_key() -> bytes:
    return f"CA0190000/{uuid4()}".encode()


def test_a_replayed_record_is_the_original_again_at_the_end_of_its_topic(bench: Bench) -> None:
    key = own_key()
    headers = tuple(JAIL.sign(BOOKING_EVENTS, key, VALUE))
    before = bench.send(BOOKING_EVENTS, key, VALUE, headers=headers)
    case = bench.die(before)
    assert (case.state, case.letter.replay_count) == (State.OPEN, 0)
    position = bench.replays.replay(case)
    after = bench.log.record_at(position.topic, position.partition, position.offset)
    assert (after.topic, after.partition) == (before.topic, before.partition)
    assert after.offset > before.offset
    assert (after.key, after.value, after.headers[:2]) == (before.key, before.value, before.headers)
    found = signing.read_headers(after.headers)
    assert found is not None
    assert signing.verify(JAIL.public_key, after.topic, key, VALUE, found.signature)
    assert bench.case_of(before).state is State.REPLAYED


def test_a_replayed_record_that_dies_again_counts_its_replays_and_keeps_its_first_time(bench: Bench) -> None:
    case = bench.die(bench.send(BOOKING_EVENTS, own_key(), VALUE))
    source = case.letter.source
    for count in (1, 2):
        position = bench.replays.replay(case)
        again = bench.die(bench.log.record_at(position.topic, position.partition, position.offset))
        assert (again.state, again.letter.replay_count) == (State.OPEN, count)
        assert again.letter.first_seen_at == case.letter.first_seen_at
        assert again.letter.value_sha256 == case.letter.value_sha256
        case = again
    (first,) = [each for each in read_cases(bench.log) if each.letter.source == source]
    assert first.state is State.DEAD_AGAIN
    with pytest.raises(DomainFault, match=str(first.next_letter_id)):
        bench.replays.replay(first)


def test_a_record_from_the_wrong_partition_goes_to_that_of_its_key(bench: Bench) -> None:
    key = own_key()
    wrong = (partition_of(BOOKING_EVENTS, key) + 1) % TOPICS[BOOKING_EVENTS].partitions
    position = bench.replays.replay(bench.die(bench.send(BOOKING_EVENTS, key, VALUE, partition=wrong)))
    assert position.partition == partition_of(BOOKING_EVENTS, key)


@pytest.mark.parametrize(("key", "value"), [(None, VALUE), (b"", b""), (b"key", None)])
def test_a_record_without_key_or_value_comes_back_without(bench: Bench, key: bytes | None, value: bytes | None) -> None:
    position = bench.replays.replay(bench.die(bench.send(BOOKING_EVENTS, key, value, partition=5)))
    record = bench.log.record_at(position.topic, position.partition, position.offset)
    assert (record.key, record.value) == (key, value)


def test_what_was_destroyed_is_not_replayed_and_nothing_is_said_to_be(bench: Bench) -> None:
    case = bench.die(bench.send(BOOKING_EVENTS, own_key(), VALUE))
    bench.objects.destroy_key(f"dead-letter/{case.letter.event_id}")
    ends = bench.log.end_offsets([BOOKING_EVENTS, DEAD_LETTERS])
    with pytest.raises(DomainFault, match="send it again") as refused:
        bench.replays.replay(case)
    assert refused.value.code == "ORIGINAL_GONE"
    assert bench.log.end_offsets([BOOKING_EVENTS, DEAD_LETTERS]) == ends
    assert describe_original(case.letter, bench.objects).record is None


def test_another_record_in_the_place_of_the_original_is_wrong_evidence(bench: Bench) -> None:
    case = bench.die(bench.send(BOOKING_EVENTS, own_key(), VALUE))
    other = DeadLetter.from_record({**case.letter.to_record(), "value_sha256": "0" * 64})
    with pytest.raises(IntegrityError):
        bench.replays.replay(Case(letter=other, state=State.OPEN))


def test_a_probe_that_has_its_outcome_is_not_put_back(bench: Bench) -> None:
    """G1: the first outcome of a probe is its outcome, so a replay could only confuse."""
    request = probe_submitted(probe_id=uuid4())
    record = bench.send(PROBE_REQUESTS, key_of(request), encode(request))
    case = bench.die(record)
    refusal = Refusal(code=RefusalCode.PROCESSING_FAILED, message="set aside")
    under = DecidedUnder(policy_version="2026.1", gallery_watermark=[0] * 8, access_watermark=[0])
    outcome = refuse(request, record.position, refusal, under, NOW)
    bench.send(topic_of(outcome), key_of(outcome), encode(outcome))
    with pytest.raises(DomainFault) as refused:
        bench.replays.replay(case)
    assert refused.value.code == "ALREADY_DECIDED"


def test_a_probe_that_nobody_could_answer_is_put_back(bench: Bench) -> None:
    request = probe_submitted(probe_id=uuid4())
    case = bench.die(
        bench.send(PROBE_REQUESTS, key_of(request), encode(request), headers=tuple(ALICE.sign("t", b"k", b"v")))
    )
    assert bench.replays.replay(case).topic == PROBE_REQUESTS


def test_the_original_is_named_and_never_quoted(bench: Bench) -> None:
    """G10."""
    booking = booking_recorded()
    readable = bench.die(bench.send(BOOKING_EVENTS, own_key(), encode(booking)))
    original = describe_original(readable.letter, bench.objects)
    assert original.content == "BookingRecorded version 2"
    garbage = describe_original(bench.die(bench.send(BOOKING_EVENTS, own_key(), VALUE)).letter, bench.objects)
    assert garbage.content.startswith("no record of ours")
    assert booking.booking_number not in repr(original)
    assert VALUE.decode() not in repr(garbage)


def test_while_kafka_is_away_a_replay_says_so_and_says_nothing_was_replayed(bench: Bench) -> None:
    case = bench.die(bench.send(BOOKING_EVENTS, own_key(), VALUE))
    nowhere = {"bootstrap.servers": "127.0.0.1:9", "log_level": 0}
    with (
        Replays(nowhere, log=bench.log, store=bench.objects, clock=lambda: NOW, timeout_s=1) as replays,
        pytest.raises(TransientError, match="replay again"),
    ):
        replays.replay(case)
    assert next(each for each in read_cases(bench.log) if each.letter == case.letter).state is State.OPEN
