"""Whatever anybody puts into a topic becomes a typed refusal or a dead letter, and the road stays open (G10, G12).

One system for the module. All records are sent first; behind them a good booking and a good probe in every partition,
which must be processed; then each test looks at what the audit trail says of its own record. Images:
`test_hostile_images.py`.
"""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import builders
import fastavro
import pytest
from bureaus import INVESTIGATOR, JAIL, LIMIT_S, ORI, REQUEST, Bureau, new_bureau, until
from confluent_kafka import Producer

from connectors.bookings import Photo
from connectors.kafka_log import KafkaLog
from connectors.probes import ProbeClient
from connectors.publishing import SignedPublisher
from connectors.signing_keys import SigningKey
from infra import wiring
from infra.local_system import LocalSystem
from schemas.avro_schemas import CURRENT_VERSIONS
from schemas.codec import MAX_SIGNED_VALUE_BYTES, SINGLE_OBJECT, decode, encode
from schemas.events import (
    BookingOutcome,
    BookingRecorded,
    CandidateListIssued,
    Logon,
    OriginalRecord,
    ProbeRefused,
    ProbeSubmitted,
)
from schemas.keys import key_of, partition_of
from schemas.signing import HEADER_SIGNATURE
from schemas.topics import (
    ACCESS,
    BOOKING_EVENTS,
    BOOKING_OUTCOMES,
    DEAD_LETTERS,
    GALLERY,
    NOTICE_ACKNOWLEDGEMENTS,
    PROBE_OUTCOMES,
    PROBE_REQUESTS,
    REVIEW_EVENTS,
    TOPICS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from uuid import UUID

    from confluent_kafka import KafkaError, Message

    from infra.brokers import Kind
    from schemas.events import Event

Headers = list[tuple[str | bytes, bytes | None]]
Place = tuple[str, int, int]
Answers = list[tuple[str, str | None]]

FROM_OUTSIDE = (BOOKING_EVENTS, PROBE_REQUESTS, ACCESS, REVIEW_EVENTS, NOTICE_ACKNOWLEDGEMENTS)
ANSWERS = (DEAD_LETTERS, BOOKING_OUTCOMES, PROBE_OUTCOMES)
SENDER_LIMIT_S = 300
NOT_UTF8 = b"\xff\xfe"

# What librdkafka refuses to send is sent by the pure-Python client: header names of any bytes, times of any year.
SEND_ANYTHING = """
import asyncio, base64, json, sys
from aiokafka import AIOKafkaProducer

class Name(str):
    def encode(self, *_):
        return base64.b64decode(str(self))

def plain(text):
    return None if text is None else base64.b64decode(text)

async def send(bootstrap, records):
    producers, places = {}, []
    for topic, key, value, headers, timestamp_ms, partition, compression in records:
        if compression not in producers:
            kind = None if compression == "none" else compression
            made = AIOKafkaProducer(bootstrap_servers=bootstrap, compression_type=kind, max_request_size=4_000_000)
            producers[compression] = made
            await made.start()
        headers = [(Name(name), plain(content)) for name, content in headers]
        sent = await producers[compression].send_and_wait(
            topic, plain(value), plain(key), partition, timestamp_ms, headers
        )
        places.append((topic, sent.partition, sent.offset))
    for producer in producers.values():
        await producer.stop()
    print(json.dumps(places))

asyncio.run(send(sys.argv[1], json.load(sys.stdin)))
"""


@dataclass(frozen=True, slots=True)
class Signers:
    """Who can sign; the stranger is registered nowhere."""

    jail: SigningKey
    investigator: SigningKey
    stranger: SigningKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """A record and every answer to it, as (record, code)."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = field(default_factory=list)
    partition: int | None = None
    """None: where the key belongs."""
    timestamp_ms: int | None = None
    compression: str = "none"
    answers: Answers

    @property
    def place(self) -> int:
        """The partition it is sent to."""
        if self.partition is not None:
            return self.partition
        return 0 if self.key is None else partition_of(self.topic, self.key)


FACE = b"\x89PNG\r\n\x1a\n" + b"".join(sha256(bytes([n])).digest() for n in range(64))
"""Stands for the bytes of an image: none of them is in anything else."""
UNREADABLE: Answers = [("DeadLetter", "CONTRACT")]
MISPLACED: Answers = [("DeadLetter", "WRONG_PARTITION")]


def booking(number: str, **changes: Any) -> BookingRecorded:
    return builders.booking_recorded(number, **{"actor": f"publisher:{JAIL}", **changes})


def probe(name: str, **changes: Any) -> ProbeSubmitted:
    facts = {"actor": f"user:{INVESTIGATOR}", "user_id": INVESTIGATOR, "ori": ORI, **REQUEST, **changes}
    return builders.probe_submitted(name, **facts)


def signed(event: Event, key: SigningKey, answers: Answers, **changes: Any) -> Hostile:
    record = builders.signed(event, key)
    facts = {"topic": record.topic, "key": record.key, "value": record.value, "headers": [*record.headers], **changes}
    return Hostile(**facts, answers=answers)


def resigned(value: bytes, event: Event, key: SigningKey, answers: Answers) -> Hostile:
    """Sign other bytes in place of an event's."""
    topic = BOOKING_EVENTS if isinstance(event, BookingRecorded) else PROBE_REQUESTS
    kafka_key = key_of(event)
    return Hostile(
        topic=topic, key=kafka_key, value=value, headers=[*key.sign(topic, kafka_key, value)], answers=answers
    )


def with_time(event: Event, name: str, microseconds: int) -> bytes:
    """Write an event with a time that Python cannot say."""
    version = CURRENT_VERSIONS[event.AVRO_NAME]
    out = io.BytesIO()
    fastavro.schemaless_writer(out, version.parsed, {**event.to_record(), name: microseconds})
    return SINGLE_OBJECT + version.fingerprint + out.getvalue()


def refused_booking(code: str) -> Answers:
    return [("BookingProcessed", code)]


def refused_probe(code: str) -> Answers:
    return [("ProbeRefused", code)]


def altered(good: Hostile) -> Hostile:
    """Flip one bit of the signature."""
    return replace(
        good,
        headers=[
            (name, bytes([content[0] ^ 1]) + content[1:] if name == HEADER_SIGNATURE and content else content)
            for name, content in good.headers
        ],
    )


def with_header(name: str | bytes, good: Hostile, compression: str = "none") -> Hostile:
    return replace(good, headers=[*good.headers, (name, b"1")], compression=compression)


def misplaced(good: Hostile) -> Hostile:
    return replace(good, partition=(good.place + 1) % TOPICS[good.topic].partitions)


def replayed(event: Event, key: SigningKey, onto: bytes, answers: Answers) -> Hostile:
    """Send what somebody once signed, under another key."""
    return replace(signed(event, key, answers), key=onto)


_FINGERPRINT = CURRENT_VERSIONS["leadstream.booking.BookingRecorded"].fingerprint
_HUGE_LENGTH = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"  # 2**62 - 1 or so, zigzag

VALUES: dict[str, bytes | None] = {
    "garbage": b"\x01garbage" * 5,
    "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "an empty value": b"",
    "no value": None,
    "an unknown schema fingerprint": SINGLE_OBJECT + b"\x01\x02\x03\x04\x05\x06\x07\x08" + bytes(40),
    "a schema id of no registry": b"\x00\x00\x00\x00\x07" + bytes(40),
    "Avro cut short": encode(booking("CUT"))[:-3],
    "Avro with bytes behind it": encode(booking("LONG")) + b"x",
    "a string that claims to be endless": SINGLE_OBJECT + _FINGERPRINT + bytes(24) + _HUGE_LENGTH + b"abc",
    "a value longer than a record may be": bytes(MAX_SIGNED_VALUE_BYTES + 1),
    "a value of three megabytes": SINGLE_OBJECT + bytes(3_000_000),
    "a record that belongs elsewhere": encode(builders.user_registered("elsewhere")),
}

RECORDS: dict[str, Callable[[Signers], Hostile]] = {
    # Signatures.
    "booking: unsigned": lambda by: signed(
        booking("UNSIGNED"), by.jail, refused_booking("UNAUTHENTICATED"), headers=[]
    ),
    "probe: unsigned": lambda by: signed(
        probe("unsigned"), by.investigator, refused_probe("UNAUTHENTICATED"), headers=[]
    ),
    "access: unsigned": lambda by: signed(
        builders.access_granted("mallory"), by.stranger, [("DeadLetter", "UNAUTHENTICATED")], headers=[]
    ),
    "booking: altered signature": lambda by: altered(
        signed(booking("ALTERED"), by.jail, refused_booking("UNAUTHENTICATED"))
    ),
    "booking: signed by a stranger": lambda by: signed(
        booking("STRANGER"), by.stranger, refused_booking("UNAUTHENTICATED")
    ),
    "probe: signed by a stranger": lambda by: signed(probe("stranger"), by.stranger, refused_probe("UNAUTHENTICATED")),
    "access: signed by a stranger": lambda by: signed(
        builders.access_granted("stranger"), by.stranger, [("DeadLetter", "UNAUTHENTICATED")]
    ),
    "booking: signed by one who may not": lambda by: signed(
        booking("NOT-ALLOWED"), by.investigator, refused_booking("NOT_ALLOWED")
    ),
    "access: signed by one who may not": lambda by: signed(
        builders.access_granted("friend", actor=f"user:{INVESTIGATOR}"),
        by.investigator,
        [("DeadLetter", "NOT_ALLOWED")],
    ),
    "booking: a signature replayed on another key": lambda by: replayed(
        booking("REPLAYED"), by.jail, b"CA0190000/OTHER", refused_booking("UNAUTHENTICATED")
    ),
    "probe: a signature replayed on another key": lambda by: replayed(
        probe("replayed"), by.investigator, b"another probe", refused_probe("UNAUTHENTICATED")
    ),
    "booking: a signature replayed on another topic": lambda by: replace(
        signed(booking("TOPIC"), by.jail, UNREADABLE), topic=PROBE_REQUESTS
    ),
    # What Kafka lets through and clients do not expect.
    "booking: a header name that is not UTF-8": lambda by: with_header(
        NOT_UTF8, signed(booking("BAD-HEADER"), by.jail, refused_booking("UNAUTHENTICATED"))
    ),
    "probe: a header name that is not UTF-8, compressed": lambda by: with_header(
        NOT_UTF8, signed(probe("bad header"), by.investigator, refused_probe("UNAUTHENTICATED")), "gzip"
    ),
    "access: a header name that is not UTF-8": lambda by: signed(
        builders.access_granted("bad header"),
        by.stranger,
        [("DeadLetter", "UNAUTHENTICATED")],
        headers=[(NOT_UTF8, b"")],
    ),
    "gallery: a header name that is not UTF-8": lambda _: Hostile(
        topic=GALLERY, key=b"k", value=b"v", headers=[(NOT_UTF8, b"1")], answers=[]
    ),
    "booking: ten thousand headers": lambda _: Hostile(
        topic=BOOKING_EVENTS, key=b"k", value=b"v", headers=[("h", b"1")] * 10_000, answers=UNREADABLE
    ),
    **{
        f"{topic}: no key": lambda _, topic=topic: Hostile(  # type: ignore[misc]  # a default binds the loop's value
            topic=topic, key=None, value=b"v", partition=0, answers=MISPLACED
        )
        for topic in FROM_OUTSIDE
    },
    **{
        f"{topic}: a key of a megabyte": lambda _, topic=topic: Hostile(  # type: ignore[misc]
            topic=topic, key=b"\xff" * 1_000_000, value=b"v", answers=UNREADABLE
        )
        for topic in FROM_OUTSIDE
    },
    "booking: a key of a megabyte on a signed event": lambda by: replayed(
        booking("MEGABYTE"), by.jail, b"k" * 1_000_000, refused_booking("UNAUTHENTICATED")
    ),
    "booking: in the partition of another key": lambda by: misplaced(
        signed(
            booking("MISPLACED"),
            by.jail,
            [("BookingProcessed", "PROCESSING_FAILED"), ("DeadLetter", "WRONG_PARTITION")],
        )
    ),
    **{
        f"booking: {kind} compression": lambda _, kind=kind: Hostile(  # type: ignore[misc]
            topic=BOOKING_EVENTS, key=b"k", value=b"v" * 1000, compression=kind, answers=UNREADABLE
        )
        for kind in ("gzip", "snappy", "lz4", "zstd")
    },
    **{
        f"{topic}: sent at {at} ms": lambda _, topic=topic, at=at: Hostile(  # type: ignore[misc]
            topic=topic, key=b"k", value=b"v", timestamp_ms=at, answers=UNREADABLE
        )
        for topic in FROM_OUTSIDE
        for at in (-(2**62), -2, 0, 2**62)
    },
    **{
        f"{topic}: an image as value, key and header": lambda _, topic=topic: Hostile(  # type: ignore[misc]
            topic=topic, key=FACE, value=FACE, headers=[("photo", FACE), (FACE[:20].hex(), None)], answers=UNREADABLE
        )
        for topic in FROM_OUTSIDE
    },
    # Clocks of publishers.
    "booking: it happened in the year 1": lambda by: signed(
        booking("YEAR-1", occurred_at=datetime.min.replace(tzinfo=UTC), booked_at=datetime.min.replace(tzinfo=UTC)),
        by.jail,
        [("BookingProcessed", "NO_USABLE_CAPTURE")],
    ),
    "booking: it happens in the year 9999": lambda by: signed(
        booking("YEAR-9999", occurred_at=datetime.max.replace(tzinfo=UTC)), by.jail, refused_booking("TIME_IN_FUTURE")
    ),
    "booking: a time that no calendar has": lambda by: resigned(
        with_time(booking("NO-TIME"), "occurred_at", 2**63 - 1), booking("NO-TIME"), by.jail, UNREADABLE
    ),
    "probe: a time that no calendar has": lambda by: resigned(
        with_time(probe("no time"), "occurred_at", -(2**63)), probe("no time"), by.investigator, UNREADABLE
    ),
    "access: a grant from the year 9999": lambda by: signed(
        builders.access_granted("future", occurred_at=datetime.max.replace(tzinfo=UTC)),
        by.stranger,
        [("DeadLetter", "UNAUTHENTICATED")],
    ),
    **{
        f"{topic}: {name}": lambda _, topic=topic, value=value: Hostile(  # type: ignore[misc]
            topic=topic, key=b"CA0190000/VALUE", value=value, answers=UNREADABLE
        )
        for topic in (BOOKING_EVENTS, PROBE_REQUESTS)
        for name, value in VALUES.items()
    },
    **{
        f"{topic}: garbage": lambda _, topic=topic: Hostile(  # type: ignore[misc]
            topic=topic, key=b"k", value=b"garbage", answers=UNREADABLE if topic == ACCESS else []
        )
        for topic in (ACCESS, GALLERY, BOOKING_OUTCOMES, PROBE_OUTCOMES, DEAD_LETTERS)
    },
}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, broker_kind: Kind) -> Iterator[tuple[Bureau, LocalSystem]]:
    made = new_bureau(tmp_path_factory.mktemp("hostile") / "data")
    with LocalSystem(made.settings, broker=broker_kind, say=print) as running:
        made.found()
        yield made, running


@pytest.fixture(scope="module")
def bureau(system: tuple[Bureau, LocalSystem]) -> Bureau:
    return system[0]


def signers(bureau: Bureau) -> Signers:
    return Signers(
        jail=SigningKey.load(bureau.folder.publisher_key(JAIL)),
        investigator=SigningKey.load(bureau.folder.user_key(INVESTIGATOR)),
        stranger=builders.STRANGER,
    )


def send(bureau: Bureau, records: Sequence[Hostile]) -> list[Place]:
    """Send records as no client of ours would, and say where they stand."""

    def text(content: bytes | None) -> str | None:
        return None if content is None else base64.b64encode(content).decode()

    wire = [
        (
            each.topic,
            text(each.key),
            text(each.value),
            [(text(n if isinstance(n, bytes) else n.encode()), text(content)) for n, content in each.headers],
            each.timestamp_ms,
            each.place,
            each.compression,
        )
        for each in records
    ]
    sent = subprocess.run(
        [sys.executable, "-c", SEND_ANYTHING, str(bureau.config["bootstrap.servers"])],
        env={**os.environ, "AIOKAFKA_NO_EXTENSIONS": "1"},
        input=json.dumps(wire).encode(),
        stdout=subprocess.PIPE,
        check=True,
        timeout=SENDER_LIMIT_S,
    )
    return [(topic, partition, offset) for topic, partition, offset in json.loads(sent.stdout)]


def end_transactions_everywhere(bureau: Bureau) -> list[Place]:
    """Let every topic end with the mark of a committed and of an aborted transaction; return what was in them."""
    places: list[Place] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        assert error is None
        places.append((str(message.topic()), int(message.partition() or 0), int(message.offset() or 0)))

    producer = Producer({**bureau.config, "transactional.id": "mallory"})
    producer.init_transactions(LIMIT_S)
    for end in (producer.commit_transaction, producer.abort_transaction):
        producer.begin_transaction()
        for topic in TOPICS:
            key = b"k" if topic == GALLERY else None  # which a compacted topic must have
            producer.produce(topic, b"v", key, 0, on_delivery=delivered)
        assert producer.flush(LIMIT_S) == 0
        end(LIMIT_S)
    return places


def numbers_by_partition(prefix: str) -> dict[int, str]:
    """Return a booking number for every partition."""
    found: dict[int, str] = {}
    for n in range(1000):
        found.setdefault(partition_of(BOOKING_EVENTS, f"{ORI}/{prefix}-{n}".encode()), f"{prefix}-{n}")
    return found


def probe_id_in(partition: int) -> UUID:
    return next(one for one in iter(uuid4, None) if partition_of(PROBE_REQUESTS, str(one).encode()) == partition)


def process_good_ones(
    bureau: Bureau, prefix: str, photos: dict[str, bytes], bookings: Iterable[int], probes: Iterable[int]
) -> None:
    """Book and search in some partitions: whatever stands before it there has been dealt with."""
    numbers = numbers_by_partition(prefix)
    with bureau.jail() as jail, bureau.investigator() as investigator:
        booked = [
            jail.publish_booking(
                booking_number=numbers[partition],
                booked_at=wiring.now(),
                photos=[Photo(data=photos["A1"])],
                sid="GOOD",
            )
            for partition in bookings
        ]
        assert {answer.outcome for answer in jail.await_outcomes(booked, LIMIT_S)} == {BookingOutcome.ENROLLED}
        submitted = [
            investigator.submit(photos["A2"], **REQUEST, probe_id=probe_id_in(partition)) for partition in probes
        ]
        for each in submitted:
            outcome = investigator.await_outcome(each, LIMIT_S)
            assert isinstance(outcome, CandidateListIssued)
            assert outcome.candidates[0].person == "sid:GOOD"


def dead_letters(bureau: Bureau) -> list[dict[str, Any]]:
    rows = bureau.audit("SELECT payload FROM audit.events WHERE event_type = 'DeadLetter'")
    return [json.loads(payload) for (payload,) in rows]


def answers_in_the_audit(bureau: Bureau) -> dict[Place, Answers]:
    """Return place of a record -> (record, code) of what was said about it."""
    found: dict[Place, Answers] = {}
    for (payload,) in bureau.audit(
        "SELECT payload FROM audit.events WHERE topic IN {topics:Array(String)}", topics=list(ANSWERS)
    ):
        answer = json.loads(payload)
        about = answer.get("source") or answer.get("request")
        if about is not None:
            place = (about["topic"], about["partition"], about["offset"])
            found.setdefault(place, []).append((answer["record"], answer.get("code")))
    return found


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What is known once everything has been dealt with."""

    places: dict[str, Place]
    in_transactions: list[Place]
    answers: dict[Place, Answers]
    records: set[Place]
    """In the audit trail."""


@pytest.fixture(scope="module")
def aftermath(system: tuple[Bureau, LocalSystem], photos: dict[str, bytes]) -> Aftermath:
    """Send everything hostile, then process good events in every partition, with the same worker as before."""
    bureau, running = system
    by = signers(bureau)
    places = dict(zip(RECORDS, send(bureau, [make(by) for make in RECORDS.values()]), strict=True))
    in_transactions = end_transactions_everywhere(bureau)
    everywhere = range(TOPICS[BOOKING_EVENTS].partitions)
    process_good_ones(bureau, "GOOD", photos, everywhere, everywhere)
    running.wait(0)
    due = {place: len(RECORDS[name](by).answers) for name, place in places.items()}
    due |= {place: len(MISPLACED) for place in in_transactions if place[0] in FROM_OUTSIDE}

    def all_are_answered() -> bool:
        found = answers_in_the_audit(bureau)
        return all(len(found.get(place, [])) >= count for place, count in due.items())

    # A good probe overtakes a bad one that is still being set aside, and no good access event was sent at all.
    until(all_are_answered, "every hostile record has as many answers as it should")
    records = {(topic, partition, offset) for topic, partition, offset, _ in bureau.audited()}
    return Aftermath(places, in_transactions, answers_in_the_audit(bureau), records)


@pytest.mark.parametrize("name", RECORDS)
def test_a_hostile_record_gets_its_answer_and_is_audited(name: str, aftermath: Aftermath, bureau: Bureau) -> None:
    """G2, G12: exactly the answers it should have, once each."""
    place = aftermath.places[name]
    assert sorted(aftermath.answers.get(place, [])) == sorted(RECORDS[name](signers(bureau)).answers)
    assert place in aftermath.records


def test_what_stood_in_a_transaction_is_audited_and_answered_whatever_became_of_it(aftermath: Aftermath) -> None:
    """G2, G12: workers decide it, so it is evidence; and its end mark, the last in the topic, stopped no search."""
    assert len(aftermath.in_transactions) == 2 * len(TOPICS)
    for place in aftermath.in_transactions:
        assert place in aftermath.records
        assert aftermath.answers.get(place, []) == (MISPLACED if place[0] in FROM_OUTSIDE else [])


@pytest.mark.usefixtures("aftermath")
def test_the_original_of_every_dead_letter_is_kept(bureau: Bureau) -> None:
    """G12; header names that are not UTF-8 excepted, which no client hands out."""
    letters = dead_letters(bureau)
    assert len(letters) >= sum(RECORDS[name](signers(bureau)).answers in (UNREADABLE, MISPLACED) for name in RECORDS)
    objects = wiring.object_store(bureau.settings)
    log = KafkaLog(bureau.config)
    for letter in letters:
        original = decode(objects.fetch(letter["reference"], scope=f"dead-letter/{letter['event_id']}"))
        record = log.record_at(*(letter["source"][part] for part in ("topic", "partition", "offset")))
        assert isinstance(original, OriginalRecord)
        assert (original.key, original.value) == (record.key, record.value)
        assert tuple((header.name, header.value) for header in original.headers) == record.headers
        assert letter["value_sha256"] == sha256(record.value or b"").hexdigest()


def test_no_byte_of_an_image_or_template_is_in_logs_dead_letters_or_the_audit(
    aftermath: Aftermath, bureau: Bureau
) -> None:
    """G10: a photo was sent as value, as key and as header, where no photo belongs."""
    assert aftermath.places
    texts = [str(row) for row in bureau.audit("SELECT * FROM audit.events")]
    texts += [path.read_text(errors="replace") for path in bureau.folder.logs.iterdir()]
    for said in (FACE[100:150], FACE[99:150], FACE[98:150]):
        for form in (said.hex(), base64.b64encode(said).decode()[4:-4], repr(said)[2:-1]):
            assert not any(form in text for text in texts)


def test_a_probe_by_an_unknown_user_is_refused(bureau: Bureau, photos: dict[str, bytes]) -> None:
    """G3: by the user's own word, and by a case tool's."""
    tool = SigningKey.create(bureau.folder.publisher_key("case-tool"))
    with bureau.administration() as acts:
        acts.register_publisher(
            publisher_id="case-tool", ori=ORI, public_key=tool.public_key, may_publish=("ProbeSubmitted",)
        )
    logon = Logon(at=wiring.now(), method="OIDC")
    for key, stated, code in (
        (builders.STRANGER, {}, "UNAUTHENTICATED"),
        (tool, {"logon": logon, "publisher_id": "case-tool"}, "USER_UNKNOWN"),
    ):
        with SignedPublisher(bureau.config, key) as publisher:
            client = ProbeClient(publisher, wiring.object_store(bureau.settings), "nobody", ORI, **stated)
            outcome = client.await_outcome(client.submit(photos["A2"], **REQUEST), LIMIT_S)
        assert isinstance(outcome, ProbeRefused)
        assert outcome.code == code
        sql = "SELECT user_id, code FROM audit.searches WHERE probe_id = {probe:UUID} AND outcome = 'REFUSED'"
        found = until(lambda sql=sql, at=outcome.probe_id: bureau.audit(sql, probe=str(at)), "audited")
        assert found == [("nobody", code)]


@pytest.mark.usefixtures("aftermath")
def test_the_same_bytes_delivered_again_change_no_count(bureau: Bureau, photos: dict[str, bytes]) -> None:
    """G1, G11: a booking and a probe, byte for byte, signature and all."""
    log = KafkaLog(bureau.config)
    with bureau.jail() as jail, bureau.investigator() as investigator:
        booked = jail.publish_booking(
            booking_number="AGAIN", booked_at=wiring.now(), photos=[Photo(data=photos["B1"])], sid="AGAIN"
        )
        assert jail.await_outcome(booked, LIMIT_S).outcome is BookingOutcome.ENROLLED
        submitted = investigator.submit(photos["B2"], **REQUEST)
        before = investigator.await_outcome(submitted, LIMIT_S)
        assert isinstance(before, CandidateListIssued)
        for position in (booked.position, submitted.position):
            record = log.record_at(position.topic, position.partition, position.offset)
            again = Hostile(
                topic=record.topic, key=record.key, value=record.value, headers=[*record.headers], answers=[]
            )
            (place,) = send(bureau, [again])
            assert place[:2] == (position.topic, position.partition)
            assert place[2] > position.offset
        process_good_ones(bureau, "BEHIND", photos, [booked.position.partition], [submitted.position.partition])
        after = investigator.await_outcome(investigator.submit(photos["B2"], **REQUEST), LIMIT_S)
    assert isinstance(after, CandidateListIssued)
    persons = [candidate.person for candidate in after.candidates]
    assert persons.count("sid:AGAIN") == 1
    assert after.gallery_persons == before.gallery_persons
    bureau.audited()
    sql = (
        "SELECT countIf(event_type = 'CandidateListIssued') FROM audit.events WHERE probe_id = {probe:UUID} "
        "UNION ALL SELECT count() FROM audit.searches WHERE probe_id = {probe:UUID}"
    )
    assert bureau.audit(sql, probe=str(submitted.probe_id)) == [(1,), (1,)]


def test_the_worker_is_still_the_one_that_was_started(system: tuple[Bureau, LocalSystem], aftermath: Aftermath) -> None:
    """G12: nothing crashed, and nothing is being waited for."""
    assert aftermath.places
    bureau, running = system
    running.wait(0)
    log = (bureau.folder.logs / "worker-1.log").read_text()
    assert log.count('"event": "ready"') == 1
    assert "worker stops" not in log
    assert "UNEXPECTED" not in log
