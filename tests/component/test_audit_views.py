"""The auditors' views on the real engine, over a few records and over a shuffled pile of duplicates (G1, G11)."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import pytest

import schemas
from connectors.audit_reader import AuditReader
from connectors.audit_store import open_store
from infra.clickhouse import load_schema
from processors.audit import row_of
from schemas.codec import decode, encode, topic_of
from schemas.events import (
    AccessDenied,
    BookingOutcome,
    BookingProcessed,
    CandidateListIssued,
    CorrectiveActionClosed,
    CorrectiveActionOpened,
    CorrectiveEffect,
    CorrectiveOutcome,
    DeadLetter,
    Event,
    LoggedOn,
    OrderKind,
    ProbeRefused,
    ProbeSubmitted,
    QualityOverrideGranted,
    RecordOrderReceived,
    UserRegistered,
)
from schemas.keys import key_of
from schemas.records import LogRecord
from schemas.signing import HEADER_KEY_ID, HEADER_SIGNATURE
from schemas.topics import ACCESS

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = load_schema()
KEY_ID = "0123456789abcdef" * 2
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
NOON_MS = 1_795_435_200_000
DAY_MS = 86_400_000
SPACE = UUID(int=7)


def golden(kind: str) -> Any:
    path = max((Path(schemas.__file__).parent / "examples").glob(f"{kind}.v?.json"))  # of the current version
    return decode(bytes.fromhex(json.loads(path.read_text())["single_object_hex"]))


def probe(number: int) -> UUID:
    return uuid5(SPACE, str(number))


def asked(number: int, *, user: str = "jdoe", reason: str = "HOMICIDE", text: str = "why") -> ProbeSubmitted:
    made: ProbeSubmitted = replace(
        golden("ProbeSubmitted"), probe_id=probe(number), user_id=user, reason_code=reason, reason_text=text
    )
    return made


def issued(number: int, *, returned: int = 1) -> CandidateListIssued:
    made: CandidateListIssued = replace(golden("CandidateListIssued"), probe_id=probe(number), returned=returned)
    return made


def refused(number: int, code: str) -> ProbeRefused:
    made: ProbeRefused = replace(golden("ProbeRefused"), probe_id=probe(number), code=code, message=f"because {code}")
    return made


class Kafka:
    """Gives events their places, as a broker would, and the trail the rows."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], list[LogRecord]] = defaultdict(list)

    def add(self, event: Event, *, at_ms: int = NOON_MS, signed: bool = True, topic: str = "") -> None:
        self.add_bytes(topic or topic_of(event), encode(event), key_of(event), at_ms=at_ms, signed=signed)

    def add_bytes(self, topic: str, value: bytes, key: bytes, *, at_ms: int = NOON_MS, signed: bool = False) -> None:
        place = (topic, sum(key) % 3)
        self.records[place].append(
            LogRecord(
                topic=topic,
                partition=place[1],
                offset=len(self.records[place]),
                timestamp_ms=at_ms,
                key=key,
                value=value,
                headers=((HEADER_KEY_ID, KEY_ID.encode()), (HEADER_SIGNATURE, b"\x07" * 64)) if signed else (),
            ),
        )

    def write(self, folder: Path) -> None:
        with closing(open_store(folder, SCHEMA)) as store:
            for (topic, partition), records in self.records.items():
                store.append(topic, partition, [row_of(record) for record in records])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kafka = Kafka()
    user: UserRegistered = golden("UserRegistered")
    kafka.add(replace(user, display_name="Old Name", roles=("SUBMITTER",)), at_ms=NOON_MS - 9)
    kafka.add(replace(user, display_name="J. Doe", roles=("SUBMITTER", "EXAMINER")), at_ms=NOON_MS - 8)
    kafka.add(replace(user, user_id="asmith", display_name="A. Smith"))
    kafka.add(replace(user, user_id="forged", display_name="Nobody"), signed=False)
    logon: LoggedOn = golden("LoggedOn")
    kafka.add(replace(logon, method="OIDC"), at_ms=NOON_MS + 1)
    kafka.add(replace(logon, method="OWN_KEY"), at_ms=NOON_MS + 2)
    kafka.add(replace(logon, method="FORGED"), at_ms=NOON_MS + 3, signed=False)
    kafka.add(replace(logon, user_id="asmith", method="MISPLACED"), topic="probe.requests.v1")

    kafka.add(asked(1, text="Robbery, face seen\n\"on\" a phone; 'quoted', ünïcode"), at_ms=NOON_MS)
    kafka.add(asked(1, text="a retry says something else"), at_ms=NOON_MS + 5)
    kafka.add(issued(1), at_ms=NOON_MS + 40)
    kafka.add(refused(1, "NO_FACE"), at_ms=NOON_MS + 50)
    kafka.add(asked(2, user="asmith", reason="THEFT"), at_ms=NOON_MS + DAY_MS)
    kafka.add(refused(2, "TRAINING_MISSING"), at_ms=NOON_MS + DAY_MS + 1)
    kafka.add(issued(2), at_ms=NOON_MS + DAY_MS + 2)
    kafka.add(asked(3), at_ms=NOON_MS + 60, signed=False)
    kafka.add(refused(3, "UNAUTHENTICATED"), at_ms=NOON_MS + 61)
    kafka.add(asked(4), at_ms=NOON_MS + 70)
    kafka.add(issued(99))

    denied: AccessDenied = golden("AccessDenied")
    kafka.add(replace(denied, user_id="asmith", code="ACCESS_REVOKED"))
    kafka.add(replace(denied, user_id="asmith", code="ACCESS_REVOKED"))
    processed: BookingProcessed = golden("BookingProcessed")
    kafka.add(processed)
    kafka.add(
        replace(
            processed,
            event_id=probe(50),
            booking_number="2026-9",
            outcome=BookingOutcome.REFUSED,
            code="NO_FACE",
            message="Send a face.",
        )
    )
    letter: DeadLetter = golden("DeadLetter")
    kafka.add(letter)
    kafka.add(letter)
    kafka.add_bytes(ACCESS, b"\x00\x01 garbage", b"k")

    folder = tmp_path_factory.mktemp("views") / "audit"
    kafka.write(folder)
    return folder


@pytest.fixture
def reader(written: Path) -> Iterator[AuditReader]:
    with AuditReader(written, SCHEMA) as opened:
        yield opened


def ask(reader: AuditReader, sql: str) -> list[tuple[Any, ...]]:
    _, found = reader.query(sql)
    return found


def test_a_probe_is_one_search_with_its_first_request_and_its_first_outcome(reader: AuditReader) -> None:
    """G1, G11."""
    columns, found = reader.query("SELECT * FROM audit.searches ORDER BY requested_at")
    searches = {row[0]: dict(zip(columns, row, strict=True)) for row in found}
    assert set(searches) == {probe(1), probe(2), probe(3), probe(4)}
    request: ProbeSubmitted = golden("ProbeSubmitted")
    answer: CandidateListIssued = golden("CandidateListIssued")
    assert searches[probe(1)] == {
        "probe_id": probe(1),
        "requested_at": NOON,
        "user_id": "jdoe",
        "ori": request.ori,
        "reason_code": "HOMICIDE",
        "reason_text": "Robbery, face seen\n\"on\" a phone; 'quoted', ünïcode",
        "case_number": request.case_number,
        "legal_basis": request.legal_basis,
        "source_type": request.source_type,
        "outcome": "ISSUED",
        "code": "",
        "message": "",
        "returned": 1,
        "model_digest": answer.model_digest,
        "policy_version": answer.policy_version,
        "decided_at": NOON.replace(microsecond=40_000),
        "signature_key_id": KEY_ID,
    }
    assert (searches[probe(2)]["outcome"], searches[probe(2)]["code"]) == ("REFUSED", "TRAINING_MISSING")
    assert (searches[probe(3)]["code"], searches[probe(3)]["signature_key_id"]) == ("UNAUTHENTICATED", "")
    assert (searches[probe(4)]["outcome"], searches[probe(4)]["decided_at"]) == ("PENDING", None)


def test_searches_are_counted_per_user_and_day_with_their_reasons(reader: AuditReader) -> None:
    found = ask(
        reader,
        "SELECT day, user_id, reason_code, searches, issued, refused, unproven, pending, length(reason_texts)"
        " FROM audit.searches_per_user ORDER BY day",
    )
    assert found == [
        (date(2026, 11, 23), "jdoe", "HOMICIDE", 3, 1, 0, 1, 1, 2),
        (date(2026, 11, 24), "asmith", "THEFT", 1, 0, 1, 0, 0, 1),
    ]


def test_candidates_are_those_of_lists_that_count(reader: AuditReader) -> None:
    found = ask(
        reader,
        "SELECT probe_id, rank, person, booking_number, score, synthetic, expected_non_mates FROM audit.candidates",
    )
    assert found == [(probe(1), 1, "sid:A12345678", "2026-000123", 0.654321, False, 0.00312)]


def test_users_have_a_name_and_their_last_logon_if_any(reader: AuditReader) -> None:
    found = ask(
        reader,
        "SELECT user_id, display_name, ori, roles, registered_under_key_id, last_logon_at, last_logon_method"
        " FROM audit.users ORDER BY user_id",
    )
    assert found == [
        ("asmith", "A. Smith", "CA0190000", ["SUBMITTER"], KEY_ID, None, ""),
        ("jdoe", "J. Doe", "CA0190000", ["SUBMITTER", "EXAMINER"], KEY_ID, NOON.replace(microsecond=2000), "OWN_KEY"),
    ]


def test_refusals_of_probes_users_and_bookings_are_listed_once_each(reader: AuditReader) -> None:
    found = ask(reader, "SELECT kind, user_id, subject, code FROM audit.refusals ORDER BY kind, code")
    assert found == [
        ("ACCESS", "asmith", "asmith", "ACCESS_REVOKED"),
        ("BOOKING", "", "CA0190000/2026-9", "NO_FACE"),
        ("PROBE", "asmith", str(probe(2)), "TRAINING_MISSING"),
        ("PROBE", "jdoe", str(probe(3)), "UNAUTHENTICATED"),
    ]


def test_a_dead_letter_is_listed_once_and_what_nobody_can_read_is_listed(reader: AuditReader) -> None:
    letters = ask(reader, "SELECT source_topic, source_partition, source_offset, code FROM audit.dead_letters")
    assert letters == [("booking.events.v1", 7, 7, "FACE_TOO_SMALL")]
    unread = ask(reader, "SELECT topic, wire_size, reason != '' FROM audit.undecodable")
    assert unread == [(ACCESS, 10, True)]


def test_no_row_was_altered(reader: AuditReader) -> None:
    """The engine computes every leaf hash a second time, from its own columns."""
    assert ask(reader, "SELECT * FROM audit.altered_rows") == []


def test_raw_records_show_their_derived_columns(reader: AuditReader) -> None:
    columns, _ = reader.query("SELECT * FROM audit.events LIMIT 1")
    assert {"payload", "leaf_hash", "event_type", "occurred_at", "actor"} <= set(columns)


class Court:
    """The jail's events and their answers, as Kafka and a worker would have them."""

    def __init__(self) -> None:
        self.kafka = Kafka()
        self._said = 0

    def say(
        self, event: Event, outcome: BookingOutcome | None, *, took_ms: int = 0, times: int = 1, **answer: Any
    ) -> None:
        self._said += 1
        at_ms = NOON_MS + 1000 * self._said
        for _ in range(times):
            self.kafka.add(event, at_ms=at_ms)
            records = self.kafka.records[topic_of(event), sum(key_of(event)) % 3]
            if outcome is not None:
                processed: BookingProcessed = replace(
                    golden("BookingProcessed"),
                    event_id=probe(1000 + self._said),
                    booking_number=event.booking_number,
                    source=records[-1].position,
                    outcome=outcome,
                    **{"code": None, "message": None, "effect": None, **answer},
                )
                self.kafka.add(processed, at_ms=at_ms + took_ms)

    def book(self, number: str, outcome: BookingOutcome = BookingOutcome.ENROLLED, **answer: Any) -> None:
        self.say(replace(golden("BookingRecorded"), booking_number=number), outcome, **answer)

    def order(self, number: str, kind: str, effect: str | None, outcome: BookingOutcome | None, **answer: Any) -> None:
        order: RecordOrderReceived = replace(
            golden("RecordOrderReceived"),
            event_id=probe(self._said),
            booking_number=number,
            order=OrderKind(kind),
            order_number=f"{number} {kind}",
            effect=None,
        )
        self.say(order, outcome, effect=effect, **answer)


WITHDRAWN, LIFTED, REFUSED = BookingOutcome.WITHDRAWN, BookingOutcome.ORDER_LIFTED, BookingOutcome.REFUSED
MASK = "WITHDRAW_AND_MASK"
LISTED = (
    "early",
    "sealed",
    "not masked",
    "as before",
    "lifted",
    "sealed again",
    "expunged",
    "refused",
    "fake",
    "free",
)
"""Booking numbers, in the order of a list."""


@pytest.fixture(scope="module")
def ordered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    court = Court()
    court.order("early", "SEAL", MASK, WITHDRAWN, code="BOOKING_UNKNOWN")
    court.order("nobody's", "EXPUNGE", MASK, WITHDRAWN, code="BOOKING_UNKNOWN")
    for number in (
        "free",
        "sealed",
        "not masked",
        "as before",
        "lifted",
        "sealed again",
        "expunged",
        "refused",
        "fake",
    ):
        court.book(number)
    court.book("early", REFUSED, code="RECORD_SEALED")
    court.book("nobody's", REFUSED, code="UNAUTHENTICATED")
    court.order("sealed", "SEAL", MASK, WITHDRAWN, took_ms=1500, times=2)
    court.order("not masked", "SEAL", "WITHDRAW", WITHDRAWN)
    court.order("as before", "SEAL", None, WITHDRAWN)  # Obeyed by a worker that knew of no effects.
    for number in ("lifted", "sealed again"):
        court.order(number, "SEAL", MASK, WITHDRAWN)
        court.order(number, "UNSEAL", "LIFT", LIFTED)
    court.order("sealed again", "SEAL", MASK, WITHDRAWN)
    court.order("sealed again", "SEAL", "WITHDRAW", WITHDRAWN)
    court.order("expunged", "EXPUNGE", MASK, WITHDRAWN)
    court.order("expunged", "UNSEAL", None, REFUSED, code="RECORD_EXPUNGED")
    court.order("refused", "SEAL", None, REFUSED, code="BOOKING_NUMBER_INVALID")
    court.order("fake", "SEAL", None, REFUSED, code="UNAUTHENTICATED")
    court.order("free", "SEAL", None, None)
    numbers = (
        "early",
        "sealed",
        "not masked",
        "as before",
        "lifted",
        "sealed again",
        "expunged",
        "refused",
        "fake",
        "free",
    )
    listed = golden("CandidateListIssued")
    rows = tuple(
        replace(listed.candidates[0], rank=rank, booking_number=number) for rank, number in enumerate(numbers, 1)
    )
    court.kafka.add(asked(1))
    court.kafka.add(replace(issued(1), candidates=rows))
    folder = tmp_path_factory.mktemp("court") / "audit"
    court.kafka.write(folder)
    return folder


@pytest.fixture
def court(ordered: Path) -> Iterator[AuditReader]:
    with AuditReader(ordered, SCHEMA) as opened:
        yield opened


def test_a_candidate_whose_record_a_court_had_masked_is_not_shown_until_an_unseal(court: AuditReader) -> None:
    shown = ask(court, "SELECT rank, booking_number FROM audit.candidates WHERE NOT masked ORDER BY rank")
    assert shown == [(3, "not masked"), (5, "lifted"), (8, "refused"), (9, "fake"), (10, "free")]
    masked = ask(
        court, "SELECT rank, person, booking_number, capture_id FROM audit.candidates WHERE masked ORDER BY rank"
    )
    assert masked == [(rank, "(sealed)", "(sealed)", None) for rank in (1, 2, 4, 6, 7)]


def test_an_order_is_one_row_with_the_time_until_it_was_obeyed(court: AuditReader) -> None:
    columns, (order,) = court.query("SELECT * FROM audit.orders WHERE order_number = 'sealed SEAL'")
    row = dict(zip(columns, order, strict=True))
    expected = {
        "ori": "CA0190000",
        "booking_number": "(sealed)",
        "kind": "SEAL",
        "statute": "CA PC 851.91",
        "court": "Superior Court",
        "effect": MASK,
        "outcome": "WITHDRAWN",
        "seconds": 1.5,
    }
    assert {name: row[name] for name in expected} == expected
    assert (row["obeyed_at"] - row["received_at"]).total_seconds() == 1.5
    assert (row["parked"], row["ordered_at"]) == (False, golden("RecordOrderReceived").ordered_at)


def test_orders_without_a_booking_are_told_from_those_that_wait_or_were_refused(court: AuditReader) -> None:
    found = ask(court, "SELECT order_number, booking_number, outcome FROM audit.orders WHERE parked")
    assert found == [("nobody's EXPUNGE", "nobody's", "WITHDRAWN")]
    not_obeyed = ask(court, "SELECT order_number, outcome, code, seconds FROM audit.orders WHERE obeyed_at IS NULL")
    assert sorted(not_obeyed) == [
        ("expunged UNSEAL", "REFUSED", "RECORD_EXPUNGED", None),
        ("free SEAL", "PENDING", "", None),
        ("refused SEAL", "REFUSED", "BOOKING_NUMBER_INVALID", None),
    ]
    assert ask(court, "SELECT count() FROM audit.orders WHERE order_number LIKE 'fake%'") == [(0,)]


def test_corrective_cases_and_overrides_are_those_that_had_effect(tmp_path: Path) -> None:
    kafka = Kafka()
    opening: CorrectiveActionOpened = golden("CorrectiveActionOpened")
    opening = replace(opening, corrective_case_id=probe(1), probe_id=None, actor="user:root")
    closing: CorrectiveActionClosed = golden("CorrectiveActionClosed")
    closing = replace(closing, corrective_case_id=probe(1), actor="user:other")
    override: QualityOverrideGranted = golden("QualityOverrideGranted")
    not_believed = (
        replace(closing, event_id=probe(7), outcome=CorrectiveOutcome.WITHDRAWN),
        replace(opening, event_id=probe(8), corrective_case_id=probe(9)),
        replace(override, event_id=probe(9)),
    )
    letter: DeadLetter = golden("DeadLetter")
    for number, event in enumerate(not_believed):
        kafka.add(event)
        said = next(records[-1] for (topic, _), records in kafka.records.items() if topic == ACCESS)
        kafka.add(replace(letter, event_id=probe(20 + number), source=said.position, stage="access"))
    kafka.add(opening)
    kafka.add(closing, at_ms=NOON_MS + 1, signed=False)
    kafka.add(closing, at_ms=NOON_MS + 2)
    kafka.add(opening, at_ms=NOON_MS + 3)
    kafka.add(closing, at_ms=NOON_MS + 4)
    kafka.add(replace(opening, corrective_case_id=probe(2), effect=CorrectiveEffect.REVOKE, probe_id=probe(4)))
    kafka.add(override)
    kafka.add(override)
    for number in (30, 31):
        kafka.add(asked(number))
    kafka.add(replace(issued(30), quality_override=override.event_id))
    kafka.add(replace(issued(31), quality_override=None))
    kafka.write(tmp_path / "audit")
    with AuditReader(tmp_path / "audit", SCHEMA) as reader:
        assert ask(
            reader,
            "SELECT corrective_case_id, user_id, section, effect, probe_id, opened_at, opened_by, closed_at, closed_by,"
            " outcome, findings, restores_access FROM audit.corrective_actions ORDER BY effect",
        ) == [
            (
                *(probe(1), "jdoe", "section", "NONE", None, NOON, "user:root"),
                *(NOON.replace(microsecond=2000), "user:other", "SUSTAINED", "findings", True),
            ),
            (
                *(probe(2), "jdoe", "section", "REVOKE", probe(4), NOON, "user:root"),
                *(None, "", "", "", False),
            ),
        ]
        assert ask(
            reader, "SELECT event_id, supervisor, case_number, reason, probe_ids FROM audit.quality_overrides"
        ) == [(override.event_id, "jdoe", "26-04711", "reason", [probe(30)])]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_recount_in_plain_python_gives_the_same_searches(tmp_path: Path, seed: int) -> None:
    """G11: over a shuffled pile of requests, outcomes and their duplicates."""
    dice = random.Random(seed)  # noqa: S311 - a reproducible pile, no secret
    pile: list[Event] = []
    for number in range(60):
        user, reason = dice.choice(["jdoe", "asmith"]), dice.choice(["HOMICIDE", "THEFT"])
        pile += [asked(number, user=user, reason=reason)] * dice.choice([0, 1, 1, 2, 5])
        pile += [issued(number)] * dice.choice([0, 1, 3])
        pile += [refused(number, dice.choice(["NO_FACE", "UNAUTHENTICATED"]))] * dice.choice([0, 1, 2])
    dice.shuffle(pile)
    kafka = Kafka()
    for minute, event in enumerate(pile):
        kafka.add(event, at_ms=NOON_MS + minute * 600_000)
    kafka.write(tmp_path / "audit")

    first_request: dict[UUID, tuple[date, ProbeSubmitted]] = {}
    first_outcome: dict[UUID, str] = {}
    for minute, event in enumerate(pile):
        if isinstance(event, ProbeSubmitted):
            day = datetime.fromtimestamp((NOON_MS + minute * 600_000) / 1000, UTC).date()
            first_request.setdefault(event.probe_id, (day, event))
        elif isinstance(event, CandidateListIssued):
            first_outcome.setdefault(event.probe_id, "ISSUED")
        elif isinstance(event, ProbeRefused):
            first_outcome.setdefault(event.probe_id, "UNPROVEN" if event.code == "UNAUTHENTICATED" else "REFUSED")
    expected = Counter(
        (day, request.user_id, request.reason_code, first_outcome.get(probe_id, "PENDING"))
        for probe_id, (day, request) in first_request.items()
    )

    with AuditReader(tmp_path / "audit", SCHEMA) as opened:
        found: Counter[tuple[date, str, str, str]] = Counter()
        for day, user, reason, searches, *apart in ask(
            opened,
            "SELECT day, user_id, reason_code, searches, issued, refused, unproven, pending"
            " FROM audit.searches_per_user",
        ):
            assert searches == sum(apart)
            for outcome, count in zip(("ISSUED", "REFUSED", "UNPROVEN", "PENDING"), apart, strict=True):
                found[day, user, reason, outcome] += count
    assert +found == expected
    assert sum(expected.values()) == len(first_request) > 0
