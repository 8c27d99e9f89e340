"""What a booking event means for the gallery and what its booking system reads back (G5, G12)."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from builders import MICROSECOND, NOW, ORI, POLICY, booking_recorded, capture, record_order, uuid_named

from processors import enrolment
from processors.extraction import ExtractedFace
from processors.refusals import Refusal, RefusalCode
from processors.templates import template_from_bytes, to_template
from schemas.codec import decode, encode
from schemas.events import (
    BookingOutcome,
    CaptureDisposition,
    CaptureKind,
    OrderKind,
    Pose,
    TemplatesEnrolled,
    TemplatesWithdrawn,
    WithdrawalCause,
)
from schemas.positions import SourcePosition, derived_id
from schemas.topics import BOOKING_EVENTS

AT = SourcePosition(topic=BOOKING_EVENTS, partition=3, offset=17)
MODEL = "ab" * 32
BLURRED = Refusal(code=RefusalCode.FACE_TOO_BLURRED, message="Take a sharper photo.", measurements={"sharpness": 0.1})


def face(*components: float) -> ExtractedFace:
    return ExtractedFace(
        template=to_template(np.array(components)),
        model_digest=MODEL,
        measurements={"face_score": 0.9},
        box_px=(0.0, 0.0, 1.0, 1.0),
    )


def enrolled(*names: str, **extractions: Any) -> tuple[Any, Any]:
    booking = booking_recorded(captures=tuple(capture(name) for name in names), sid="A1")
    return enrolment.enrol(
        booking, AT, {uuid_named(name): made for name, made in extractions.items()}, POLICY, MODEL, NOW
    )


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
        record, answer = enrolment.enrol(booking, AT, {}, POLICY, MODEL, NOW)
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


# Court orders.

NONE = None
SEALED, EXPUNGED = WithdrawalCause.SEALED, WithdrawalCause.EXPUNGED
LIFTED = WithdrawalCause.ORDER_LIFTED


@pytest.mark.parametrize(
    ("order", "barred_by", "cause", "outcome", "code"),
    [
        (OrderKind.SEAL, NONE, SEALED, BookingOutcome.WITHDRAWN, None),
        (OrderKind.SEAL, SEALED, SEALED, BookingOutcome.WITHDRAWN, None),
        (OrderKind.SEAL, EXPUNGED, None, BookingOutcome.REFUSED, RefusalCode.RECORD_EXPUNGED),
        (OrderKind.EXPUNGE, NONE, EXPUNGED, BookingOutcome.WITHDRAWN, None),
        (OrderKind.EXPUNGE, SEALED, EXPUNGED, BookingOutcome.WITHDRAWN, None),
        (OrderKind.EXPUNGE, EXPUNGED, EXPUNGED, BookingOutcome.WITHDRAWN, None),
        # An unseal that is sent twice, or of nothing, must not take an enrolled booking out of the gallery.
        (OrderKind.UNSEAL, NONE, None, BookingOutcome.ORDER_LIFTED, None),
        (OrderKind.UNSEAL, SEALED, LIFTED, BookingOutcome.ORDER_LIFTED, None),
        (OrderKind.UNSEAL, EXPUNGED, None, BookingOutcome.REFUSED, RefusalCode.RECORD_EXPUNGED),
    ],
)
def test_a_seal_can_be_lifted_and_an_expungement_never(
    order: OrderKind,
    barred_by: WithdrawalCause | None,
    cause: WithdrawalCause | None,
    outcome: BookingOutcome,
    code: RefusalCode | None,
) -> None:
    event = record_order(order)
    withdrawal, answer = enrolment.obey(event, AT, barred_by, NOW)
    assert (withdrawal.cause if withdrawal else None) is cause
    assert (answer.outcome, answer.code) == (outcome, code)
    if withdrawal:
        assert (withdrawal.order_event_id, withdrawal.source) == (event.event_id, AT)


def test_every_order_under_every_bar_is_answered() -> None:
    assert set(enrolment._REFUSAL_OF_CAUSE) == {SEALED, EXPUNGED}
    for order, barred_by in product(OrderKind, (None, SEALED, EXPUNGED)):
        _, answer = enrolment.obey(record_order(order), AT, barred_by, NOW + MICROSECOND)
        assert (answer.source, answer.occurred_at) == (AT, NOW + MICROSECOND)


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
