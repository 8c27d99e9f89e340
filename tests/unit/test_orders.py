"""What a court order does: the effect that it has, what it takes out, what it lifts, and what it enrols again (G5)."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from builders import MICROSECOND, NOW, ORI, POLICY, YEAR, booking_recorded, capture, record_order, uuid_named

from processors import orders
from processors.enrolment import ACTOR
from processors.extraction import ExtractedFace
from processors.gallery import BARRING, Entry, GalleryLedger
from processors.policy import OrderRules, StatuteRule
from processors.refusals import Refusal, RefusalCode
from processors.templates import to_template
from schemas.codec import decode, encode
from schemas.events import (
    BookingOutcome,
    CaptureDisposition,
    OrderEffect,
    OrderKind,
    TemplatesEnrolled,
    TemplatesWithdrawn,
    WithdrawalCause,
)
from schemas.positions import SourcePosition, derived_id
from schemas.topics import BOOKING_EVENTS, GALLERY

if TYPE_CHECKING:
    from processors.orders import Decision

AT = SourcePosition(topic=BOOKING_EVENTS, partition=3, offset=17)
BOOKED = 9
"""Offset of the BookingRecorded."""
MODEL = "ab" * 32
NONE = None
SEALED, EXPUNGED = WithdrawalCause.SEALED, WithdrawalCause.EXPUNGED
LIFTED = WithdrawalCause.ORDER_LIFTED
SEAL, EXPUNGE, UNSEAL = OrderKind
MASK, WITHDRAW, LIFT, RE_ENROL = OrderEffect
STATUTES = {
    "everything": StatuteRule(orders=frozenset(OrderKind), effects=frozenset(OrderEffect)),
    "no less": StatuteRule(orders=frozenset(OrderKind)),
    "seals only": StatuteRule(orders=frozenset({SEAL}), effects=frozenset(OrderEffect)),
}
RULES = replace(POLICY, orders=OrderRules(maximum_lag_s=60, statutes=STATUTES))
FACE = ExtractedFace(
    template=to_template(np.ones(2)),
    model_digest=MODEL,
    measurements={"unified_quality": 90.0},
    box_px=(0.0, 0.0, 1.0, 1.0),
)


def counting(withdrawn: WithdrawalCause | None, offset: int = AT.offset - 1) -> Entry:
    """The gallery record of the booking that counts so far."""
    return Entry(source_offset=offset, position=(3, 5), withdrawn=withdrawn, said_at=NOW)


def obeyed(
    kind: OrderKind, before: Entry | None = None, booking_offset: int | None = BOOKED, **changes: Any
) -> Decision:
    order = record_order(kind, **{"statute": "everything", **changes})
    return orders.obey(order, AT, counting=before, booking_offset=booking_offset, policy=RULES, at=NOW + MICROSECOND)


# The effect.


@pytest.mark.parametrize(
    ("kind", "statute", "ordered", "applied"),
    [
        (SEAL, "everything", None, MASK),
        (SEAL, "everything", MASK, MASK),
        (SEAL, "everything", WITHDRAW, WITHDRAW),
        (SEAL, "seals only", WITHDRAW, WITHDRAW),
        (EXPUNGE, "everything", None, MASK),
        (EXPUNGE, "everything", MASK, MASK),
        (UNSEAL, "everything", None, LIFT),
        (UNSEAL, "everything", LIFT, LIFT),
        (UNSEAL, "everything", RE_ENROL, RE_ENROL),
        (SEAL, "unheard of", None, MASK),
        (SEAL, "unheard of", MASK, MASK),
        (UNSEAL, "no less", LIFT, LIFT),
    ],
)
def test_an_order_has_the_effect_that_its_statute_lets_it_have(
    kind: OrderKind, statute: str, ordered: OrderEffect | None, applied: OrderEffect
) -> None:
    order = record_order(kind, statute=statute, effect=ordered)
    assert orders.effect_of(order, RULES) == (applied, None)


@pytest.mark.parametrize(
    ("kind", "statute", "ordered", "applied"),
    [
        (SEAL, "no less", WITHDRAW, MASK),
        (SEAL, "unheard of", WITHDRAW, MASK),
        (UNSEAL, "no less", RE_ENROL, LIFT),
        (UNSEAL, "seals only", RE_ENROL, LIFT),
        # What is expunged is masked, whatever a statute allows.
        (EXPUNGE, "everything", WITHDRAW, MASK),
        # An effect of another kind of order.
        (SEAL, "everything", LIFT, MASK),
        (SEAL, "everything", RE_ENROL, MASK),
        (EXPUNGE, "everything", LIFT, MASK),
        (UNSEAL, "everything", WITHDRAW, LIFT),
        (UNSEAL, "everything", MASK, LIFT),
    ],
)
def test_an_effect_that_protects_less_than_it_may_is_reduced_and_the_answer_says_so(
    kind: OrderKind, statute: str, ordered: OrderEffect, applied: OrderEffect
) -> None:
    order = record_order(kind, statute=statute, effect=ordered)
    effect, reduced = orders.effect_of(order, RULES)
    assert effect is applied
    assert reduced is not None
    assert (reduced.code, reduced.rule) == (RefusalCode.EFFECT_REDUCED, "orders.effect")
    assert str(applied) in reduced.message


def test_the_answer_of_an_order_names_effect_rule_and_policy() -> None:
    answer = obeyed(SEAL, counting(NONE), statute="no less", effect=WITHDRAW).answer
    assert (answer.outcome, answer.effect, answer.code) == (BookingOutcome.WITHDRAWN, MASK, "EFFECT_REDUCED")
    assert (answer.rule, answer.policy_version) == ("orders.effect", RULES.version)
    assert decode(encode(answer)) == answer


@pytest.mark.parametrize("statute", ["unheard of", "", "no less", "seals only"])
@pytest.mark.parametrize("kind", [SEAL, EXPUNGE])
def test_a_seal_and_an_expungement_are_obeyed_whatever_their_statute(kind: OrderKind, statute: str) -> None:
    """G5: to withdraw too much harms nobody."""
    decision = obeyed(kind, counting(NONE), statute=statute)
    assert decision.withdrawal is not None
    assert (decision.answer.outcome, decision.answer.code) == (BookingOutcome.WITHDRAWN, None)


@pytest.mark.parametrize("statute", ["unheard of", "seals only"])
def test_a_seal_is_lifted_only_on_a_ground_that_the_policy_lets_lift_it(statute: str) -> None:
    decision = obeyed(UNSEAL, counting(SEALED), statute=statute)
    assert decision.withdrawal is None
    answer = decision.answer
    assert (answer.outcome, answer.code) == (BookingOutcome.REFUSED, "STATUTE_NOT_ALLOWED")
    assert (answer.effect, answer.rule, answer.policy_version) == (None, "orders.statutes", RULES.version)
    # What was lifted before the policy changed, by a worker that died before it answered, is lifted.
    again = obeyed(UNSEAL, counting(LIFTED, AT.offset), statute=statute)
    assert again.withdrawal is not None
    assert again.answer.outcome is BookingOutcome.ORDER_LIFTED


# What it takes out, and what it lifts.


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
    decision = orders.obey(event, AT, counting=counting(barred_by), booking_offset=BOOKED, policy=POLICY, at=NOW)
    withdrawal, answer = decision.withdrawal, decision.answer
    assert (withdrawal.cause if withdrawal else None) is cause
    assert (answer.outcome, answer.code) == (outcome, code)
    if withdrawal:
        assert (withdrawal.order_event_id, withdrawal.source) == (event.event_id, AT)
        assert withdrawal.booking_offset == BOOKED


@pytest.mark.parametrize("before", [None, *(counting(cause) for cause in sorted(set(WithdrawalCause) - BARRING))])
def test_only_a_seal_and_an_expungement_bar_anything(before: Entry | None) -> None:
    decision = obeyed(UNSEAL, before)
    assert (decision.withdrawal, decision.answer.outcome) == (None, BookingOutcome.ORDER_LIFTED)
    decision = obeyed(SEAL, before)
    assert decision.withdrawal is not None
    assert (decision.withdrawal.cause, decision.answer.outcome) == (SEALED, BookingOutcome.WITHDRAWN)


def test_every_order_under_every_bar_is_answered() -> None:
    for order, barred_by in product(OrderKind, (None, SEALED, EXPUNGED)):
        answer = obeyed(order, counting(barred_by)).answer
        assert (answer.source, answer.occurred_at) == (AT, NOW + MICROSECOND)


@pytest.mark.parametrize("kind", OrderKind)
@pytest.mark.parametrize("own", [False, True], ids=["first", "sent again by a worker that died"])
def test_an_order_for_a_booking_that_nobody_has_sent_says_to_check_the_number(kind: OrderKind, *, own: bool) -> None:
    cause = {SEAL: SEALED, EXPUNGE: EXPUNGED, UNSEAL: None}[kind]
    before = counting(cause, AT.offset) if own and cause else None
    answer = obeyed(kind, before, booking_offset=None).answer
    assert (answer.outcome is BookingOutcome.ORDER_LIFTED) == (kind is UNSEAL)
    assert answer.code == "BOOKING_UNKNOWN"
    assert answer.message is not None
    assert "check the booking number" in answer.message


def test_an_answer_that_has_two_things_to_say_says_both() -> None:
    answer = obeyed(SEAL, None, booking_offset=None, statute="no less", effect=WITHDRAW).answer
    assert (answer.code, answer.rule) == ("BOOKING_UNKNOWN", "orders.effect")
    assert answer.message is not None
    assert "has the effect WITHDRAW_AND_MASK" in answer.message


# What an unseal enrols again.


@pytest.mark.parametrize(
    ("before", "effect", "enrols_again"),
    [
        (counting(SEALED), RE_ENROL, True),
        (counting(SEALED), LIFT, False),
        (counting(SEALED), None, False),
        # Lifted by an earlier order, and enrolled by none.
        (counting(LIFTED), RE_ENROL, True),
        (counting(NONE), RE_ENROL, False),
        (counting(WithdrawalCause.NO_USABLE_CAPTURE), RE_ENROL, False),
        (None, RE_ENROL, False),
        # The same order again, of a worker that died before its answer: it may not be in every generation yet.
        (counting(NONE, AT.offset), RE_ENROL, True),
        (counting(LIFTED, AT.offset), RE_ENROL, True),
    ],
)
def test_an_unseal_enrols_again_only_what_is_sealed_or_lifted_and_only_by_its_effect(
    before: Entry | None, effect: OrderEffect | None, *, enrols_again: bool
) -> None:
    assert obeyed(UNSEAL, before, effect=effect).enrols_again is enrols_again


def test_a_repeat_whose_policy_has_changed_takes_out_again_what_it_had_enrolled() -> None:
    """The last record of a source offset counts, so the answer and the gallery say the same."""
    decision = obeyed(UNSEAL, counting(NONE, AT.offset), statute="no less", effect=RE_ENROL)
    assert decision.withdrawal is not None
    assert (decision.withdrawal.cause, decision.enrols_again) == (LIFTED, False)
    assert (decision.answer.effect, decision.answer.code) == (LIFT, "EFFECT_REDUCED")


def enrolled_again(*names: str, **extractions: Any) -> tuple[Any, Any]:
    decision = obeyed(UNSEAL, counting(SEALED), effect=RE_ENROL)
    assert decision.withdrawal is not None
    booking = booking_recorded(captures=tuple(capture(name) for name in names), sid="A1", synthetic=True)
    made = {uuid_named(name): extraction for name, extraction in extractions.items()}
    return orders.enrol_again(decision.withdrawal, decision.answer, booking, made, policy=RULES, model_digest=MODEL)


def test_what_is_enrolled_again_comes_from_the_unseal_and_names_the_booking_behind_it() -> None:
    blurred = Refusal(code=RefusalCode.FACE_TOO_BLURRED, message="Take a sharper photo.")
    record, answer = enrolled_again("a", "b", a=FACE, b=blurred)
    assert isinstance(record, TemplatesEnrolled)
    assert (record.source, record.booking_offset, record.event_id) == (AT, BOOKED, derived_id(AT, "templates"))
    assert record.source_said_at == NOW, "what the unseal said, and not what the booking had said"
    assert (record.sid, record.synthetic) == ("A1", True)
    assert orders.booking_offset_of(record) == BOOKED
    assert (answer.outcome, answer.effect, answer.code) == (BookingOutcome.ORDER_LIFTED, RE_ENROL, None)
    assert [each.disposition for each in answer.captures] == [
        CaptureDisposition.ENROLLED,
        CaptureDisposition.REFUSED,
    ]
    assert (answer.model_digest, answer.synthetic) == (MODEL, True)
    assert answer.source_event_id == record_order(UNSEAL, statute="everything", effect=RE_ENROL).event_id
    for event in (record, answer):
        assert decode(encode(event)) == event


def test_a_booking_whose_photos_are_gone_is_lifted_and_is_to_be_sent_again() -> None:
    gone = Refusal(code=RefusalCode.KEY_DESTROYED, message="It cannot be read.")
    record, answer = enrolled_again("a", a=gone)
    assert isinstance(record, TemplatesWithdrawn)
    assert (record.cause, record.source, record.booking_offset) == (LIFTED, AT, BOOKED)
    assert (answer.outcome, answer.code) == (BookingOutcome.ORDER_LIFTED, "NOT_ENROLLED_AGAIN")
    assert [each.code for each in answer.captures] == ["KEY_DESTROYED"]
    assert "Send the booking again" in answer.message
    assert orders.not_found_again(obeyed(UNSEAL, counting(SEALED)).answer).code == "NOT_ENROLLED_AGAIN"


@pytest.mark.parametrize(
    ("cause", "named", "expected"),
    [
        (WithdrawalCause.NO_USABLE_CAPTURE, None, AT.offset),
        (SEALED, BOOKED, BOOKED),
        (SEALED, None, None),
        (LIFTED, BOOKED, BOOKED),
        (EXPUNGED, None, None),
    ],
)
def test_an_order_carries_on_which_booking_it_was_about(
    cause: WithdrawalCause, named: int | None, expected: int | None
) -> None:
    said = obeyed(SEAL, counting(NONE)).withdrawal
    assert said is not None
    assert orders.booking_offset_of(replace(said, cause=cause, booking_offset=named)) == expected


# What compaction took.


@pytest.mark.parametrize("cause", WithdrawalCause)
def test_a_withdrawal_that_is_made_anew_says_what_the_lost_one_said(cause: WithdrawalCause) -> None:
    """G5."""
    position = SourcePosition(topic=GALLERY, partition=3, offset=5)
    lost = TemplatesWithdrawn(
        event_id=derived_id(AT, "templates"),
        occurred_at=NOW,
        actor=ACTOR,
        ori=ORI,
        booking_number="B-1",
        cause=cause,
        source=AT,
        source_said_at=NOW - MICROSECOND,
    )
    ledger = GalleryLedger()
    ledger.judge(lost, position)
    entry = ledger.entry(f"{ORI}/B-1")
    assert entry is not None
    again = orders.withdrawal_again(ORI, "B-1", entry, NOW + YEAR)
    assert again == replace(lost, occurred_at=NOW + YEAR)
    assert decode(encode(again)) == again


def test_templates_that_are_lost_cannot_be_made_anew() -> None:
    assert orders.withdrawal_again(ORI, "B-1", counting(None), NOW) is None
