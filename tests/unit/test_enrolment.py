"""What a booking event means for the gallery and what its booking system reads back (G5, G12)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from builders import MICROSECOND, NOW, ORI, POLICY, YEAR, booking_recorded, capture, record_order, uuid_named
from hypothesis import given, settings
from hypothesis import strategies as st

from processors import enrolment, orders
from processors.enrolment import CLOCK_TOLERANCE
from processors.extraction import ExtractedFace
from processors.gallery import BARRING, Entry, GalleryLedger
from processors.refusals import Refusal, RefusalCode
from processors.templates import template_from_bytes, to_template
from schemas.codec import decode, encode
from schemas.events import (
    BookingOutcome,
    CaptureDisposition,
    CaptureKind,
    OrderKind,
    Pose,
    RecordOrderReceived,
    TemplatesEnrolled,
    TemplatesWithdrawn,
    WithdrawalCause,
)
from schemas.positions import SourcePosition, derived_id
from schemas.topics import BOOKING_EVENTS, GALLERY

if TYPE_CHECKING:
    from datetime import datetime

    from schemas.events import BookingProcessed, BookingRecorded

AT = SourcePosition(topic=BOOKING_EVENTS, partition=3, offset=17)
MODEL = "ab" * 32
BLURRED = Refusal(code=RefusalCode.FACE_TOO_BLURRED, message="Take a sharper photo.", measurements={"sharpness": 0.1})


def face(*components: float) -> ExtractedFace:
    return ExtractedFace(
        template=to_template(np.array(components)),
        model_digest=MODEL,
        measurements={"unified_quality": 90.0},
        box_px=(0.0, 0.0, 1.0, 1.0),
    )


def poor(quality: float) -> ExtractedFace:
    return replace(face(1, 0), measurements={"unified_quality": quality})


def counting(withdrawn: WithdrawalCause | None, said_at: datetime = NOW) -> Entry:
    """The gallery record of the booking that counts so far."""
    return Entry(source_offset=AT.offset - 1, position=(3, 5), withdrawn=withdrawn, said_at=said_at)


def enrolled(*names: str, **extractions: Any) -> tuple[Any, Any]:
    booking = booking_recorded(captures=tuple(capture(name) for name in names), sid="A1")
    made = {uuid_named(name): extraction for name, extraction in extractions.items()}
    return enrolment.enrol(booking, AT, made, counting=None, policy=POLICY, model_digest=MODEL, at=NOW)


def test_every_usable_capture_of_a_booking_is_enrolled_in_one_record() -> None:
    record, answer = enrolled("a", "b", a=face(1, 0), b=face(0, 1))
    assert isinstance(record, TemplatesEnrolled)
    assert [entry.capture_id for entry in record.captures] == [uuid_named("a"), uuid_named("b")]
    np.testing.assert_array_equal(template_from_bytes(record.captures[1].template, dimension=2), [0, 1])
    assert (record.ori, record.booking_number, record.sid) == (ORI, "B-1", "A1")
    assert (record.model_digest, record.source) == (MODEL, AT)
    assert answer.outcome is BookingOutcome.ENROLLED
    assert (answer.code, answer.model_digest) == (None, MODEL)


def test_a_capture_that_could_not_be_used_says_why_beside_those_that_could() -> None:
    record, answer = enrolled("a", "b", a=BLURRED, b=face(0, 1))
    assert [entry.capture_id for entry in record.captures] == [uuid_named("b")]
    assert [(one.disposition, one.code) for one in answer.captures] == [
        (CaptureDisposition.REFUSED, RefusalCode.FACE_TOO_BLURRED),
        (CaptureDisposition.ENROLLED, None),
    ]
    assert answer.captures[0].measurements == {"sharpness": 0.1}


def test_a_capture_that_the_policy_finds_too_poor_is_refused_and_the_others_count() -> None:
    record, answer = enrolled("a", "b", a=poor(19.9), b=poor(20.0))
    assert [(entry.capture_id, entry.quality) for entry in record.captures] == [(uuid_named("b"), 0.2)]
    refused = answer.captures[0]
    assert (refused.disposition, refused.code) == (CaptureDisposition.REFUSED, RefusalCode.QUALITY_TOO_LOW)
    assert refused.measurements == {"unified_quality": 19.9}
    assert refused.message is not None
    assert "Policy 2026.1: quality.enrolment.minimum.unified_quality" in refused.message


def test_the_quality_of_a_template_is_the_unified_score_between_0_and_1() -> None:
    record, _ = enrolled("a", "b", a=poor(100.0), b=face(0, 1))
    assert [entry.quality for entry in record.captures] == [1.0, 0.9]


@pytest.mark.parametrize("names", [(), ("a",)], ids=["no captures", "only refused ones"])
def test_a_booking_without_a_usable_capture_takes_out_what_was_enrolled_before(names: tuple[str, ...]) -> None:
    record, answer = enrolled(*names, a=BLURRED)
    assert isinstance(record, TemplatesWithdrawn)
    assert (record.cause, record.source) == (WithdrawalCause.NO_USABLE_CAPTURE, AT)
    assert (answer.outcome, answer.code) == (BookingOutcome.NOT_ENROLLED, RefusalCode.NO_USABLE_CAPTURE)


@pytest.mark.parametrize(
    ("changes", "disposition", "code"),
    [
        ({}, None, None),
        ({"pose": Pose.LEFT_PROFILE}, CaptureDisposition.STORED, None),
        ({"kind": CaptureKind.FINGERPRINT, "pose": Pose.NOT_APPLICABLE}, CaptureDisposition.STORED, None),
        ({"kind": CaptureKind.ORIGINAL_FILE, "source": "NIST_FILE"}, CaptureDisposition.STORED, None),
        ({"source": "INTERNET_SCRAPE"}, CaptureDisposition.REFUSED, RefusalCode.NOT_A_BOOKING_CAPTURE),
        ({"source": "booking_capture"}, CaptureDisposition.REFUSED, RefusalCode.NOT_A_BOOKING_CAPTURE),
        ({"source": "WITNESS_PHOTO"}, CaptureDisposition.REFUSED, RefusalCode.NOT_A_BOOKING_CAPTURE),
    ],
)
def test_only_frontal_faces_taken_at_booking_are_looked_at(
    changes: dict[str, Any], disposition: CaptureDisposition | None, code: RefusalCode | None
) -> None:
    booking = booking_recorded(captures=(capture("a", **changes),))
    to_extract = enrolment.captures_to_extract(booking, POLICY)
    assert [one.capture_id for one in to_extract] == ([uuid_named("a")] if disposition is None else [])
    if disposition is not None:
        record, answer = enrolment.enrol(booking, AT, {}, None, POLICY, MODEL, NOW)
        assert isinstance(record, TemplatesWithdrawn)
        assert [(one.disposition, one.code) for one in answer.captures] == [(disposition, code)]


def test_what_is_derived_from_an_event_has_the_same_identity_however_often_it_is_repeated() -> None:
    first, later = enrolled("a", a=face(1, 0)), enrolled("a", a=BLURRED)
    assert first[0].event_id == later[0].event_id == derived_id(AT, "templates")
    assert first[1].event_id == later[1].event_id == derived_id(AT, "processed")
    assert first[0].event_id != first[1].event_id


def test_every_answer_can_be_written_and_read_back() -> None:
    for event in (*enrolled("a", "b", a=face(1, 0), b=BLURRED), *enrolled("a", a=BLURRED)):
        assert decode(encode(event)) == event


# Court orders; what follows from one is in test_orders.py.

SEALED, EXPUNGED = WithdrawalCause.SEALED, WithdrawalCause.EXPUNGED
LIFTED = WithdrawalCause.ORDER_LIFTED


def obey(
    order: RecordOrderReceived, position: SourcePosition, before: Entry | None, at: datetime
) -> tuple[TemplatesWithdrawn | None, BookingProcessed]:
    decision = orders.obey(order, position, counting=before, booking_offset=7, policy=POLICY, at=at)
    return decision.withdrawal, decision.answer


def test_every_bar_has_its_words() -> None:
    assert set(enrolment._REFUSAL_OF_CAUSE) == BARRING


@pytest.mark.parametrize("cause", [SEALED, EXPUNGED])
def test_a_barred_booking_is_told_which_order_bars_it(cause: WithdrawalCause) -> None:
    answer = enrolment.refuse(booking_recorded(), AT, enrolment.refusal_of_barred(cause), NOW)
    assert (answer.outcome, answer.code) == (BookingOutcome.REFUSED, f"RECORD_{cause.value}")


# What is wrong with the event itself.


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("", RefusalCode.BOOKING_NUMBER_INVALID),
        ("7", None),
        ("7" * 64, None),
        ("7" * 65, RefusalCode.BOOKING_NUMBER_INVALID),
    ],
)
def test_a_booking_number_has_1_to_64_characters(number: str, expected: RefusalCode | None) -> None:
    for event in (booking_recorded(number), record_order(OrderKind.EXPUNGE, number)):
        refusal = enrolment.refusal_of_booking(event)
        assert (refusal.code if refusal else None) is expected


def test_two_captures_under_one_identity_are_refused_because_a_candidate_could_mean_either() -> None:
    twice = booking_recorded(captures=(capture("a"), capture("a", sha256="cd" * 32)))
    refusal = enrolment.refusal_of_booking(twice)
    assert refusal is not None
    assert refusal.code is RefusalCode.CAPTURE_REPEATED
    assert enrolment.refusal_of_booking(booking_recorded(captures=(capture("a"), capture("b")))) is None


# What comes at the wrong time. A signature is valid for ever; so whoever kept an old record can send it again.


def refusal_code(
    event: BookingRecorded | RecordOrderReceived, before: Entry | None, at: datetime = NOW
) -> RefusalCode | None:
    refusal = enrolment.refusal_of_time(event, before, at)
    return refusal.code if refusal else None


@pytest.mark.parametrize("withdrawn", [None, *WithdrawalCause])
@pytest.mark.parametrize("event", [booking_recorded(), record_order(OrderKind.UNSEAL)], ids=["booking", "unseal"])
def test_an_old_booking_or_unseal_is_stale_once_something_later_was_said(
    event: BookingRecorded | RecordOrderReceived, withdrawn: WithdrawalCause | None
) -> None:
    """G5."""
    at = NOW + YEAR
    assert refusal_code(event, None, at) is None
    assert refusal_code(event, counting(withdrawn, NOW - MICROSECOND), at) is None
    assert refusal_code(event, counting(withdrawn, NOW + MICROSECOND), at) is RefusalCode.STALE_EVENT


@pytest.mark.parametrize("withdrawn", [None, *WithdrawalCause])
def test_a_retry_says_nothing_earlier_and_is_no_stale_event(withdrawn: WithdrawalCause | None) -> None:
    assert refusal_code(booking_recorded(), counting(withdrawn, NOW)) is None


@pytest.mark.parametrize("order", [OrderKind.SEAL, OrderKind.EXPUNGE])
@pytest.mark.parametrize("said", [NOW - 50 * YEAR, NOW, NOW + 50 * YEAR], ids=["old", "now", "in the future"])
def test_a_seal_is_obeyed_however_old_or_new_its_time_is(order: OrderKind, said: datetime) -> None:
    """G5: to withdraw too much harms nobody."""
    event, before = record_order(order, occurred_at=said), counting(None, NOW)
    assert refusal_code(event, before) is None
    withdrawal, answer = obey(event, AT, before, NOW)
    assert withdrawal is not None
    assert (withdrawal.cause in BARRING, answer.outcome) == (True, BookingOutcome.WITHDRAWN)
    # Neither does its time open the way for what was said before, nor close it for what will be said after.
    assert withdrawal.source_said_at == NOW


@pytest.mark.parametrize("event", [booking_recorded(), record_order(OrderKind.UNSEAL)], ids=["booking", "unseal"])
def test_a_clock_that_is_more_than_an_hour_ahead_is_to_be_set(event: BookingRecorded | RecordOrderReceived) -> None:
    assert timedelta(hours=1) == CLOCK_TOLERANCE
    ahead = replace(event, occurred_at=NOW + CLOCK_TOLERANCE)
    assert refusal_code(ahead, None) is None
    assert refusal_code(replace(event, occurred_at=ahead.occurred_at + MICROSECOND), None) is RefusalCode.TIME_IN_FUTURE


def test_a_publisher_with_a_fast_clock_cannot_make_later_corrections_stale() -> None:
    fast = booking_recorded(captures=(capture("a"),), occurred_at=NOW + CLOCK_TOLERANCE)
    faces = {uuid_named("a"): face(1, 0)}
    for extractions in (faces, {}):
        record, _ = enrolment.enrol(fast, AT, extractions, None, POLICY, MODEL, NOW)
        assert record.source_said_at == NOW
        corrected = booking_recorded(occurred_at=NOW + MICROSECOND)
        assert refusal_code(corrected, counting(None, record.source_said_at), NOW + MICROSECOND) is None


@pytest.mark.parametrize("ahead", [timedelta(0), MICROSECOND, CLOCK_TOLERANCE], ids=["right", "just ahead", "an hour"])
@pytest.mark.parametrize("sealed_after", [-YEAR, timedelta(0), MICROSECOND], ids=["back-dated", "same", "later"])
def test_an_unseal_lifts_no_later_seal_whatever_the_clocks_of_both_said(
    ahead: timedelta, sealed_after: timedelta
) -> None:
    """G5: else whoever kept the unseal could lift the second seal as soon as the unseal's time is past."""
    unseal = record_order(OrderKind.UNSEAL, occurred_at=NOW + ahead)
    lifted, _ = obey(unseal, AT, counting(SEALED, NOW - MICROSECOND), NOW)
    assert lifted is not None
    at = NOW + max(sealed_after, timedelta(0))
    second = record_order(OrderKind.SEAL, occurred_at=NOW + sealed_after)
    sealed, _ = obey(second, AT, counting(LIFTED, lifted.source_said_at), at)
    assert sealed is not None
    before = counting(SEALED, sealed.source_said_at)
    for later in (at, at + CLOCK_TOLERANCE, at + YEAR):
        assert refusal_code(unseal, before, later) is RefusalCode.STALE_EVENT
    said_anew = record_order(OrderKind.UNSEAL, occurred_at=before.said_at + MICROSECOND)
    assert refusal_code(said_anew, before, at + YEAR) is None


MINUTES = st.integers(-90, 90).map(lambda minutes: timedelta(minutes=minutes))
KINDS = st.sampled_from([None, *OrderKind])
SAID = st.lists(st.tuples(KINDS, MINUTES), min_size=1, max_size=6)
SENT = st.lists(st.integers(0, 5), max_size=20)


@settings(max_examples=300, deadline=None)
@given(SAID, SENT)
def test_nothing_that_is_sent_again_lifts_a_second_seal_and_the_time_said_never_goes_back(
    said: list[tuple[OrderKind | None, timedelta]], sent: list[int]
) -> None:
    """G5: each event once or many times, in any order, by wrong clocks; a minute lies between two records."""
    events: list[BookingRecorded | RecordOrderReceived] = [
        booking_recorded(captures=(capture("a"),), occurred_at=NOW + clock)
        if kind is None
        else record_order(kind, occurred_at=NOW + clock)
        for kind, clock in said
    ]
    ledger, lifted, key = GalleryLedger(), set[int](), f"{ORI}/B-1"
    for offset, number in enumerate((*range(len(events)), *(number % len(events) for number in sent))):
        event, at = events[number], NOW + timedelta(minutes=offset)
        position, before = SourcePosition(topic=BOOKING_EVENTS, partition=3, offset=offset), ledger.entry(key)
        if enrolment.refusal_of_time(event, before, at) is not None:
            continue
        record: TemplatesEnrolled | TemplatesWithdrawn | None
        if isinstance(event, RecordOrderReceived):
            record, _ = obey(event, position, before, at)
        elif ledger.barred_by(key):
            continue
        else:
            record, _ = enrolment.enrol(event, position, {}, before, POLICY, MODEL, at)
        if record is None:
            continue
        if isinstance(record, TemplatesWithdrawn) and record.cause is LIFTED:
            assert number not in lifted
            lifted.add(number)
        assert before is None or record.source_said_at >= before.said_at
        assert record.source_said_at <= at + CLOCK_TOLERANCE
        ledger.judge(record, SourcePosition(topic=GALLERY, partition=3, offset=offset))


def test_what_became_a_dead_letter_is_answered_with_the_reason() -> None:
    """G12."""
    answer = enrolment.refuse(booking_recorded(), AT, enrolment.failed("It is Tuesday."), NOW)
    assert (answer.outcome, answer.code, answer.message) == (
        BookingOutcome.REFUSED,
        RefusalCode.PROCESSING_FAILED,
        "It is Tuesday.",
    )
