"""The whole road on real parts: bookings become searchable, probes get one outcome, the audit has every record."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from bureaus import INVESTIGATOR, LIMIT_S, ORI, REQUEST, until
from confluent_kafka import Producer

from connectors.bookings import Fingerprint, Photo
from connectors.kafka_log import KafkaLog
from connectors.signing_keys import SigningKey
from infra import cli, wiring
from schemas.codec import decode, encode
from schemas.events import BookingOutcome, CandidateListIssued, DeadLetter, ProbeRefused, ProbeSubmitted
from schemas.keys import booking_key, key_of, partition_of
from schemas.topics import BOOKING_EVENTS, BOOKING_OUTCOMES, DEAD_LETTERS, GALLERY, PROBE_REQUESTS, TOPICS

if TYPE_CHECKING:
    from pathlib import Path

    from bureaus import Bureau

    from connectors.bookings import Published
    from connectors.probes import ProbeClient


def book(bureau: Bureau, number: str, photo: bytes, sid: str | None = None) -> None:
    with bureau.jail() as jail:
        published = jail.publish_booking(
            booking_number=number,
            booked_at=wiring.now(),
            photos=[Photo(data=photo)],
            fingerprints=[Fingerprint(data=b"not looked at")],
            sid=sid,
        )
        answer = jail.await_outcome(published, LIMIT_S)
    assert answer.outcome is BookingOutcome.ENROLLED
    assert [capture.disposition for capture in answer.captures] == ["ENROLLED", "STORED"]


def search(client: ProbeClient, photo: bytes, **changes: object) -> CandidateListIssued | ProbeRefused:
    return client.await_outcome(client.submit(photo, **{**REQUEST, **changes}), LIMIT_S)


def issued(client: ProbeClient, photo: bytes) -> CandidateListIssued:
    outcome = search(client, photo)
    assert isinstance(outcome, CandidateListIssued), outcome
    return outcome


def test_a_booked_person_is_the_first_candidate_for_another_photo(bureau: Bureau, photos: dict[str, bytes]) -> None:
    book(bureau, "ROAD-A", photos["A1"], sid="ROAD-A")
    book(bureau, "ROAD-D", photos["D1"])
    with bureau.investigator() as investigator:
        outcome = issued(investigator, photos["A2"])
    assert outcome.candidates[0].person == "sid:ROAD-A"
    assert outcome.candidates[0].score >= outcome.threshold
    expected = [candidate.expected_non_mates for candidate in outcome.candidates]
    assert expected[0] is not None
    assert expected[0] < 0.003
    assert expected == sorted(each for each in expected if each is not None)
    assert f"booking:{ORI}/ROAD-D" in {candidate.person for candidate in outcome.candidates}
    assert "not an identification" in outcome.lead_notice
    assert sum(outcome.gallery_watermark) >= 2
    assert outcome.gallery_templates >= outcome.gallery_persons >= 2


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"case_number": ""}, "CASE_NUMBER_MISSING"),
        ({"reason_code": ""}, "REASON_CODE_MISSING"),
        ({"legal_basis": ""}, "LEGAL_BASIS_MISSING"),
        ({"source_type": "BODY_WORN_CAMERA"}, "SOURCE_PROHIBITED"),
        ({"source_type": "DRIVER_LICENCE_PHOTO"}, "SOURCE_PROHIBITED"),
        ({"requested_candidates": 51}, "CANDIDATE_COUNT_OUT_OF_RANGE"),
    ],
)
def test_a_probe_without_purpose_or_from_a_prohibited_source_is_refused_and_audited(
    bureau: Bureau, photos: dict[str, bytes], changes: dict[str, object], code: str
) -> None:
    """G4."""
    with bureau.investigator() as investigator:
        outcome = search(investigator, photos["A2"], **changes)
    assert isinstance(outcome, ProbeRefused)
    assert outcome.code == code
    sql = "SELECT outcome, code FROM audit.searches WHERE probe_id = {probe:UUID} AND outcome != 'PENDING'"
    assert until(lambda: bureau.audit(sql, probe=str(outcome.probe_id)), "audited") == [("REFUSED", code)]


def test_a_probe_that_its_user_did_not_sign_is_refused(
    bureau: Bureau, photos: dict[str, bytes], tmp_path: Path
) -> None:
    with bureau.investigator(SigningKey.create(tmp_path / "unknown.key")) as impostor:
        outcome = search(impostor, photos["A2"])
    assert isinstance(outcome, ProbeRefused)
    assert outcome.code == "UNAUTHENTICATED"


def test_a_revoked_user_searches_no_more_until_granted_again(bureau: Bureau, photos: dict[str, bytes]) -> None:
    """G3: what was revoked before the search is honoured, without any waiting in between."""
    with bureau.administration() as acts, bureau.investigator() as investigator:
        acts.revoke(user_id=INVESTIGATOR, reason="test")
        refused = search(investigator, photos["A2"])
        acts.grant(user_id=INVESTIGATOR, reason="test over")
        assert isinstance(search(investigator, photos["A2"]), CandidateListIssued)
    assert isinstance(refused, ProbeRefused)
    assert refused.code == "ACCESS_REVOKED"


def test_a_sealed_booking_never_appears_in_a_later_list_whatever_its_agency_sends(
    bureau: Bureau, photos: dict[str, bytes]
) -> None:
    """G5."""
    book(bureau, "SEAL-B", photos["B1"])
    person = f"booking:{ORI}/SEAL-B"
    with bureau.jail() as jail, bureau.investigator() as investigator:
        assert issued(investigator, photos["B2"]).candidates[0].person == person
        order = jail.publish_order(
            booking_number="SEAL-B",
            order="SEAL",
            statute="CA PC 851.91",
            court="Superior Court",
            order_number="1",
            ordered_at=wiring.now(),
        )
        assert jail.await_outcome(order, LIMIT_S).outcome is BookingOutcome.WITHDRAWN
        assert person not in {each.person for each in issued(investigator, photos["B2"]).candidates}
        again = jail.publish_booking(
            booking_number="SEAL-B", booked_at=wiring.now(), photos=[Photo(data=photos["B1"])], event_id=uuid4()
        )
        answer = jail.await_outcome(again, LIMIT_S)
        assert (answer.outcome, answer.code) == (BookingOutcome.REFUSED, "RECORD_SEALED")
        assert person not in {each.person for each in issued(investigator, photos["B2"]).candidates}


def test_an_unseal_that_somebody_kept_and_sends_again_lifts_no_later_seal(
    bureau: Bureau, photos: dict[str, bytes]
) -> None:
    """G5: the very record, with its valid signature."""
    book(bureau, "REPLAY-B", photos["B1"])
    with bureau.jail() as jail, bureau.investigator() as investigator:

        def order(kind: str, number: str) -> Published:
            published = jail.publish_order(
                booking_number="REPLAY-B",
                order=kind,
                statute="CA PC 851.91",
                court="Superior Court",
                order_number=number,
                ordered_at=wiring.now(),
            )
            assert jail.await_outcome(published, LIMIT_S).outcome is not BookingOutcome.REFUSED
            return published

        order("SEAL", "1")
        unsealed = order("UNSEAL", "2")
        order("SEAL", "3")
        kept = KafkaLog(bureau.config).record_at(BOOKING_EVENTS, unsealed.position.partition, unsealed.position.offset)
        producer = Producer({**bureau.config, "partitioner": "murmur2_random"})
        producer.produce(BOOKING_EVENTS, kept.value, kept.key, headers=list(kept.headers))
        assert producer.flush(LIMIT_S) == 0
        again = jail.publish_booking(
            booking_number="REPLAY-B", booked_at=wiring.now(), photos=[Photo(data=photos["B1"])], event_id=uuid4()
        )
        assert jail.await_outcome(again, LIMIT_S).code == "RECORD_SEALED"
        persons = {each.person for each in issued(investigator, photos["B2"]).candidates}
    assert f"booking:{ORI}/REPLAY-B" not in persons
    sql = "SELECT count() FROM audit.events WHERE topic = {topic:String} AND payload LIKE '%STALE_EVENT%'"
    bureau.audited()
    assert bureau.audit(sql, topic=BOOKING_OUTCOMES) == [(1,)]


def test_a_clerk_of_the_jail_seals_unseals_and_lists_at_the_terminal(
    bureau: Bureau, photos: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    """G5: an unseal enrols again where its effect and its statute say so; an order without a booking is told apart."""
    book(bureau, "TYPED-C", photos["C1"], sid="TYPED-C")
    data = ["--data", str(bureau.settings.data), "--json"]

    def types(kind: str, *words: str, booking: str = "TYPED-C", statute: str = "CA PC 851.91") -> tuple[int, Any]:
        capsys.readouterr()
        order = ["--ori", ORI, "--booking-number", booking, "--statute", statute, "--court", "Superior Court"]
        code = cli.run(["order", kind, *order, "--number", f"{booking} {kind}", *words, *data])
        return code, json.loads(capsys.readouterr().out or "null")

    code, answer = types("seal", "--effect", "withdraw")
    assert (code, answer["outcome"], answer["effect"]) == (0, "WITHDRAWN", "WITHDRAW_AND_MASK")
    assert (answer["code"], answer["rule"]) == ("EFFECT_REDUCED", "orders.effect")
    with bureau.investigator() as investigator:
        assert "sid:TYPED-C" not in {each.person for each in issued(investigator, photos["C2"]).candidates}
        code, answer = types("unseal", "--effect", "lift-and-re-enrol", statute="CA PC 851.8")
        assert (code, answer["code"]) == (1, "STATUTE_NOT_ALLOWED")
        code, answer = types("unseal", "--effect", "lift-and-re-enrol")
        assert (code, answer["outcome"], answer["code"]) == (0, "ORDER_LIFTED", None)
        assert [capture["disposition"] for capture in answer["captures"]] == ["ENROLLED", "STORED"]
        assert issued(investigator, photos["C2"]).candidates[0].person == "sid:TYPED-C"
    code, answer = types("seal", booking="TYPED-NOBODY")
    assert (code, answer["outcome"], answer["code"]) == (0, "WITHDRAWN", "BOOKING_UNKNOWN")
    assert types("seal", "--effect", "forget") == (2, None)

    def listed(*words: str) -> dict[str, Any]:
        capsys.readouterr()
        assert cli.run(["order", "list", *words, *data]) == 0
        return {each["order_number"]: each for each in json.loads(capsys.readouterr().out)}

    until(lambda: "TYPED-NOBODY seal" in listed("--parked"), "the order without a booking is listed")
    assert "TYPED-C seal" not in listed("--parked")
    orders = listed()
    assert 0 <= orders["TYPED-C seal"]["seconds"] < LIMIT_S
    assert orders["TYPED-C unseal"]["booking_number"] == "TYPED-C", "shown again since the unseal"


def test_an_expunged_bookings_photo_cannot_be_read_again(bureau: Bureau, photos: dict[str, bytes]) -> None:
    book(bureau, "EXPUNGE-E", photos["E1"])
    objects = wiring.object_store(bureau.settings)
    stored = objects.put(f"booking/{booking_key(ORI, 'EXPUNGE-E')}", "witness", b"beside the photo")
    with bureau.jail() as jail:
        order = jail.publish_order(
            booking_number="EXPUNGE-E",
            order="EXPUNGE",
            statute="CA PC 851.8",
            court="Superior Court",
            order_number="2",
            ordered_at=wiring.now(),
        )
        assert jail.await_outcome(order, LIMIT_S).outcome is BookingOutcome.WITHDRAWN
    assert not objects.exists(stored.reference)


def test_a_probe_that_is_delivered_twice_has_one_outcome_and_counts_once(
    bureau: Bureau, photos: dict[str, bytes]
) -> None:
    """G1, G11."""
    with bureau.investigator() as investigator:
        submitted = investigator.submit(photos["D1"], **REQUEST)
        first = investigator.await_outcome(submitted, LIMIT_S)
        again = investigator.submit(photos["D1"], **REQUEST, probe_id=submitted.probe_id)
        assert again.position.offset > submitted.position.offset
        assert investigator.await_outcome(again, LIMIT_S) == first
        # Whatever the worker does with the second delivery has been done once a later probe is decided.
        issued(investigator, photos["D1"])
    bureau.audited()
    sql = "SELECT count() FROM audit.searches WHERE probe_id = {probe:UUID}"
    assert bureau.audit(sql, probe=str(submitted.probe_id)) == [(1,)]


def test_garbage_becomes_dead_letters_and_the_next_good_event_is_processed(
    bureau: Bureau, photos: dict[str, bytes]
) -> None:
    """G12: nothing is dropped, nothing crashes; the original bytes are kept, encrypted."""
    key = b"CA0190000/GARBAGE"
    garbage = [b"garbage", b"\xc3\x01" + bytes(12), b"\x00" * 5, b"\x89PNG", None]
    producer = Producer({**bureau.config, "partitioner": "murmur2_random"})
    for value in garbage:
        producer.produce(BOOKING_EVENTS, value, key)
        producer.produce(PROBE_REQUESTS, value, key)
    producer.flush()
    book(bureau, "AFTER-GARBAGE", photos["C1"])
    with bureau.investigator() as investigator:
        assert issued(investigator, photos["C2"]).candidates[0].person == f"booking:{ORI}/AFTER-GARBAGE"
    sql = "SELECT payload FROM audit.events WHERE topic = {topic:String}"

    def letters() -> list[dict[str, object]]:
        found = [json.loads(payload) for (payload,) in bureau.audit(sql, topic=DEAD_LETTERS)]
        return found if len(found) >= 2 * len(garbage) else []

    for letter in until(letters, "every bad record is a dead letter"):
        kept = wiring.object_store(bureau.settings).exists(str(letter["reference"]))
        assert kept
        assert letter["code"] == "CONTRACT"
    bureau.audited()


def test_a_probe_that_becomes_a_dead_letter_has_its_outcome_all_the_same(
    bureau: Bureau, photos: dict[str, bytes]
) -> None:
    """G1: here one that its publisher's partitioner put in a wrong partition."""
    key = SigningKey.load(bureau.folder.user_key(INVESTIGATOR))
    with bureau.investigator(key) as investigator:
        sent = investigator.submit(photos["C2"], **REQUEST)
        at = sent.position
        submitted = decode(KafkaLog(bureau.config).record_at(at.topic, at.partition, at.offset).value)
        assert isinstance(submitted, ProbeSubmitted)
        stray = replace(submitted, event_id=uuid4(), probe_id=uuid4())
        wrong = (partition_of(PROBE_REQUESTS, key_of(stray)) + 1) % TOPICS[PROBE_REQUESTS].partitions
        headers = key.sign(PROBE_REQUESTS, key_of(stray), encode(stray))
        producer = Producer(bureau.config)
        producer.produce(PROBE_REQUESTS, encode(stray), key_of(stray), partition=wrong, headers=list(headers))
        assert producer.flush(LIMIT_S) == 0
        outcome = until(lambda: investigator.find_outcome(stray.probe_id), "the probe has an outcome")
        investigator.await_outcome(sent, LIMIT_S)
    assert isinstance(outcome, ProbeRefused)
    assert outcome.code == "PROCESSING_FAILED"
    assert "WRONG_PARTITION" in outcome.message
    bureau.audited()
    sql = "SELECT outcome, code FROM audit.searches WHERE probe_id = {probe:UUID}"
    assert bureau.audit(sql, probe=str(stray.probe_id)) == [("REFUSED", "PROCESSING_FAILED")]


def test_no_template_is_in_the_audit_trail_the_logs_or_the_dead_letters(bureau: Bureau) -> None:
    """G10, against the very templates that this system enrolled."""
    log = KafkaLog(bureau.config)
    ends = log.end_offsets([GALLERY])
    templates = []
    for (topic, partition), end in ends.items():
        for record in log.read(topic, partition, 0, end):
            event = decode(record.value)
            templates += [capture.template for capture in getattr(event, "captures", ())]
    assert templates
    texts = [str(row) for row in bureau.audit("SELECT * FROM audit.events")]
    texts += [path.read_text(errors="replace") for path in bureau.folder.logs.iterdir()]
    for template in templates:
        for text in texts:
            assert template.hex() not in text
            assert repr(template)[2:40] not in text


def test_the_audit_trail_is_exactly_what_an_independent_consumer_reads(bureau: Bureau) -> None:
    """G2."""
    records = bureau.audited()
    assert {topic for topic, *_ in records} >= {BOOKING_EVENTS, PROBE_REQUESTS, GALLERY}
    assert bureau.audit("SELECT count(), uniqExact(topic, partition, offset) FROM audit.events")[0] == (
        len(records),
        len(records),
    )


def test_a_dead_letter_and_a_probe_round_trip_through_the_codec(bureau: Bureau) -> None:
    """The records of a real run are what the schemas say, key included."""
    log = KafkaLog(bureau.config)
    seen = set()
    for (topic, partition), end in log.end_offsets([PROBE_REQUESTS, DEAD_LETTERS]).items():
        for record in log.read(topic, partition, 0, end):
            if not (record.value or b"").startswith(b"\xc3\x01") or len(record.value or b"") < 40:
                continue
            event = decode(record.value)
            assert encode(event) == record.value
            assert isinstance(event, (ProbeSubmitted, DeadLetter))
            assert key_of(event) == record.key
            seen.add(type(event))
    assert seen == {ProbeSubmitted, DeadLetter}
