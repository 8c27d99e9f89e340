"""What a court order does to a booking: the effect that it has, and what follows for the gallery (G5).

A seal and an expungement are obeyed whatever their statute: to withdraw too much harms nobody. What protects the person
less, it needs a statute of the policy for: to lift a seal at all, and every effect but the more protective one of the
kind of order. What an unseal enrols again: docs/adr/0014-an-unseal-enrols-again-where-its-effect-says-so.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from processors import enrolment
from processors.enrolment import ACTOR, answer_to, is_unseal, refusal_of_barred, refuse, withdraw
from processors.gallery import BARRING
from processors.refusals import Refusal, RefusalCode
from schemas.events import (
    BookingOutcome,
    OrderEffect,
    OrderKind,
    TemplatesEnrolled,
    TemplatesWithdrawn,
    WithdrawalCause,
)
from schemas.positions import SourcePosition, derived_id
from schemas.topics import BOOKING_EVENTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from processors.extraction import Extraction
    from processors.gallery import Entry
    from processors.policy import Policy
    from schemas.events import BookingProcessed, BookingRecorded, RecordOrderReceived

_EFFECTS = {
    OrderKind.SEAL: (OrderEffect.WITHDRAW_AND_MASK, OrderEffect.WITHDRAW),
    OrderKind.EXPUNGE: (OrderEffect.WITHDRAW_AND_MASK,),
    OrderKind.UNSEAL: (OrderEffect.LIFT, OrderEffect.LIFT_AND_RE_ENROL),
}
"""What an order of a kind may do at all; the first protects the person most."""
_CAUSES = {
    OrderKind.SEAL: WithdrawalCause.SEALED,
    OrderKind.EXPUNGE: WithdrawalCause.EXPUNGED,
    OrderKind.UNSEAL: WithdrawalCause.ORDER_LIFTED,
}
_BOOKING_UNKNOWN = Refusal(
    code=RefusalCode.BOOKING_UNKNOWN,
    message="No booking with this number has been taken in: check the booking number. The order is kept, and holds for "
    "the booking when it arrives.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What follows from a court order."""

    answer: BookingProcessed
    withdrawal: TemplatesWithdrawn | None = None
    """What goes into every gallery generation, unless the booking is enrolled again."""
    enrols_again: bool = False
    """Whether the booking at `withdrawal.booking_offset` is to be enrolled again."""


def effect_of(order: RecordOrderReceived, policy: Policy) -> tuple[OrderEffect, Refusal | None]:
    """Return the effect that an order has, and why it is less than the one it names, if it is.

    An order that names no effect has the more protective one of its kind.
    """
    possible = _EFFECTS[order.order]
    protective = possible[0]
    if order.effect is None or order.effect is protective:
        return protective, None
    if order.effect not in possible:
        return protective, _reduced(
            f"An order of the kind {order.order} cannot have the effect {order.effect}", protective
        )
    statute = policy.orders.statutes.get(order.statute)
    if statute is None or order.order not in statute.orders or order.effect not in statute.effects:
        why = (
            f"The policy does not let {order.order} orders on the ground of this statute have the effect {order.effect}"
        )
        return protective, _reduced(why, protective)
    return order.effect, None


def refusal_of_statute(order: RecordOrderReceived, policy: Policy) -> Refusal | None:
    """Return why an order is not obeyed on its legal ground, or None; only an unseal needs one that the policy has."""
    statute = policy.orders.statutes.get(order.statute)
    if not is_unseal(order) or (statute is not None and order.order in statute.orders):
        return None
    return Refusal(
        code=RefusalCode.STATUTE_NOT_ALLOWED,
        message="The policy names no such statute, or does not let it lift a seal: check how it is written, or "
        "have the policy changed.",
        rule="orders.statutes",
    )


def booking_offset_of(said: TemplatesEnrolled | TemplatesWithdrawn) -> int | None:
    """Return the offset of the BookingRecorded that a gallery record goes back to, or None where none is known."""
    if said.booking_offset is not None:
        return said.booking_offset
    is_by_order = isinstance(said, TemplatesWithdrawn) and said.cause is not WithdrawalCause.NO_USABLE_CAPTURE
    return None if is_by_order else said.source.offset


def obey(
    order: RecordOrderReceived,
    position: SourcePosition,
    *,
    counting: Entry | None,
    booking_offset: int | None,
    policy: Policy,
    at: datetime,
) -> Decision:
    """Return what follows from a court order.

    An expungement cannot be undone: neither a seal nor an unseal weakens it. An unseal lets the next BookingRecorded of
    the booking enrol again, or enrols the last one itself where its effect is that; where nothing is sealed it takes
    nothing out, so that sending it twice does no harm.

    Args:
        order: the order, already allowed.
        position: where it stands.
        counting: the gallery record of the booking that counts so far.
        booking_offset: of the BookingRecorded that it goes back to, where that is known.
        policy: which statute may do what.
        at: now.
    """
    # Decided before by a worker that died: the same again, for the answer and every generation.
    is_repeat = counting is not None and counting.source_offset == position.offset
    barred_by = counting.withdrawn if counting and counting.withdrawn in BARRING else None
    refusal = None if is_repeat else refusal_of_statute(order, policy)
    if barred_by is WithdrawalCause.EXPUNGED and order.order is not OrderKind.EXPUNGE:
        refusal = refusal_of_barred(barred_by)
    if refusal is not None:
        return Decision(answer=replace(refuse(order, position, refusal, at), policy_version=policy.version))

    effect, reduced = effect_of(order, policy)
    answer = replace(
        answer_to(order, position, at, BookingOutcome.ORDER_LIFTED if is_unseal(order) else BookingOutcome.WITHDRAWN),
        effect=effect,
        policy_version=policy.version,
    )
    answer = _noted(answer, reduced, _BOOKING_UNKNOWN if _is_unknown(counting, booking_offset) else None)
    enrols_again = effect is OrderEffect.LIFT_AND_RE_ENROL
    lifted_before = counting is not None and counting.withdrawn is WithdrawalCause.ORDER_LIFTED
    if is_unseal(order) and not (barred_by or is_repeat or (enrols_again and lifted_before)):
        return Decision(answer=answer)
    withdrawal = withdraw(
        order,
        position,
        _CAUSES[order.order],
        counting,
        at,
        order_event_id=order.event_id,
        booking_offset=booking_offset,
    )
    return Decision(answer=answer, withdrawal=withdrawal, enrols_again=enrols_again)


def overtaken(withdrawal: TemplatesWithdrawn, counting: Entry) -> TemplatesWithdrawn | None:
    """Return the gallery record of an order that a later one was obeyed ahead of, or None where that says enough.

    An expungement behind a later seal still expunges: it counts from where the seal stands, since the highest source
    offset wins, and of several records from one offset the last.
    """
    if withdrawal.cause is not WithdrawalCause.EXPUNGED or counting.withdrawn is WithdrawalCause.EXPUNGED:
        return None
    position = replace(withdrawal.source, offset=counting.source_offset)
    return replace(withdrawal, event_id=derived_id(position, "templates"), source=position)


def enrol_again(
    lifted: TemplatesWithdrawn,
    answer: BookingProcessed,
    booking: BookingRecorded,
    extractions: Mapping[UUID, Extraction],
    *,
    policy: Policy,
    model_digest: str,
) -> tuple[TemplatesEnrolled | TemplatesWithdrawn, BookingProcessed]:
    """Return the gallery record and the answer of an unseal that enrols a booking again.

    Args:
        lifted: the gallery record of the unseal, if it enrolled nothing.
        answer: the answer, if that were so.
        booking: the BookingRecorded at `lifted.booking_offset`.
        extractions: capture id -> what came of it, for `captures_to_extract`.
        policy: which sources may be enrolled, and how good a photo has to be.
        model_digest: digest of the pack that made the templates.
    """
    record, found = enrolment.enrol(
        booking,
        lifted.source,
        extractions,
        counting=None,
        policy=policy,
        model_digest=model_digest,
        at=lifted.occurred_at,
    )
    answer = replace(answer, captures=found.captures, synthetic=booking.synthetic)
    if isinstance(record, TemplatesWithdrawn):
        return lifted, _noted(answer, _not_enrolled_again("none of its photos can be used; the captures say why"))
    enrolled = replace(record, source_said_at=lifted.source_said_at, booking_offset=lifted.booking_offset)
    return enrolled, replace(answer, model_digest=model_digest)


def not_found_again(answer: BookingProcessed) -> BookingProcessed:
    """Return the answer of an unseal whose booking is to be enrolled again and cannot be found."""
    return _noted(answer, _not_enrolled_again("its record is not known any more"))


def withdrawal_again(
    ori: str, booking_number: str, entry: Entry, at: datetime, booking_offset: int | None = None
) -> TemplatesWithdrawn | None:
    """Return the withdrawal that counts, made anew where Kafka has lost it to compaction; None while enrolled."""
    if entry.withdrawn is None:
        return None
    position = SourcePosition(topic=BOOKING_EVENTS, partition=entry.position[0], offset=entry.source_offset)
    return TemplatesWithdrawn(
        event_id=derived_id(position, "templates"),
        occurred_at=at,
        actor=ACTOR,
        ori=ori,
        booking_number=booking_number,
        cause=entry.withdrawn,
        source=position,
        source_said_at=entry.said_at,
        booking_offset=booking_offset,
    )


def _is_unknown(counting: Entry | None, booking_offset: int | None) -> bool:
    """Tell whether no booking has counted yet; an order that came ahead of it counts already."""
    return counting is None or (booking_offset is None and counting.withdrawn in BARRING)


def _reduced(why: str, effect: OrderEffect) -> Refusal:
    return Refusal(
        code=RefusalCode.EFFECT_REDUCED,
        message=f"{why}; it has the effect {effect}.",
        rule="orders.effect",
    )


def _not_enrolled_again(why: str) -> Refusal:
    return Refusal(
        code=RefusalCode.NOT_ENROLLED_AGAIN,
        message=f"The seal is lifted, but the booking could not be enrolled again: {why}. Send the booking again.",
    )


def _noted(answer: BookingProcessed, *notes: Refusal | None) -> BookingProcessed:
    """Return an answer that also says these; the code is that of the last, the words are those of all."""
    for note in notes:
        if note is not None:
            message = f"{note.message} {answer.message}" if answer.message else note.message
            answer = replace(answer, code=note.code, message=message, rule=answer.rule or note.rule)
    return answer
