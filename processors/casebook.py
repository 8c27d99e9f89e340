"""What the clerk knows, folded from what was said and decided, and what is due: answers, leads, notices (G6, G8).

What is due is a function of the state and the time alone. An event that was written is part of the state once it was
read back, so a restart, a second clerk or a repeated delivery makes nothing due twice. Ids of what is due are derived
from their cause; of several events of one id the first in its topic counts. Topics are folded side by side, and what is
in one may be read before what it follows from in another; nothing is asked of the state before all of them were read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

from processors.candidates import LEAD_NOTICE
from processors.refusals import Refusal, RefusalCode
from processors.reviews import (
    CaseFile,
    ListedCandidate,
    Opening,
    Outcome,
    Review,
    Said,
    Sitting,
    refusal_of_review,
    results_of,
)
from schemas.codec import decode_for, record_name
from schemas.errors import ContractError
from schemas.events import (
    BookingOutcome,
    BookingProcessed,
    CandidateListIssued,
    CandidateReviewed,
    DeadLetter,
    ImageViewed,
    LeadIssued,
    LeadWithdrawalCause,
    LeadWithdrawn,
    LeadWithdrawnNotice,
    NoticeAcknowledged,
    NoticeAnswered,
    NoticeReminder,
    OrderKind,
    ProbeRefused,
    RecordOrderReceived,
    RetainedDataDestroyed,
    ReviewAnswered,
    ReviewCompleted,
    ReviewResult,
    ReviewReversed,
    SealedRecordNotice,
)
from schemas.keys import booking_key, partition_of
from schemas.positions import SourcePosition, derived_id
from schemas.topics import (
    ACCESS,
    BOOKING_EVENTS,
    BOOKING_OUTCOMES,
    DEAD_LETTERS,
    NOTICE_ACKNOWLEDGEMENTS,
    NOTICES,
    PROBE_OUTCOMES,
    REVIEW_EVENTS,
    REVIEW_OUTCOMES,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from uuid import UUID

    from processors.access import Directory, RetentionRequest
    from processors.policy import Policy
    from schemas.events import Event, ReviewConclusion
    from schemas.records import LogRecord

ACTOR = "system:clerk"
FOLLOWED = (
    ACCESS,
    BOOKING_EVENTS,
    BOOKING_OUTCOMES,
    PROBE_OUTCOMES,
    REVIEW_EVENTS,
    REVIEW_OUTCOMES,
    NOTICES,
    NOTICE_ACKNOWLEDGEMENTS,
    DEAD_LETTERS,
)
"""Topics that the state is folded from, each from its beginning."""
SAID_TO_THE_CLERK = (REVIEW_EVENTS, NOTICE_ACKNOWLEDGEMENTS)
"""Topics each record of which gets an answer of the clerk, or becomes a dead letter."""
PROBE_IMAGE = "PROBE_IMAGE"
REVIEW_SHEETS = "REVIEW_SHEETS"
OPEN_REVIEW, LEAD = "OPEN_REVIEW", "LEAD"
AS_LISTED, AS_REVIEWED, AS_LEAD = "LIST", "REVIEW", "LEAD"

CONTRACT, WRONG_PARTITION = "CONTRACT", "WRONG_PARTITION"
_NOT_THEIRS = frozenset({RefusalCode.UNAUTHENTICATED, RefusalCode.NOT_ALLOWED})
"""Answers to what others said in somebody's name."""

Notice = SealedRecordNotice | LeadWithdrawnNotice
_Name = tuple["UUID | None", str, "UUID"]
"""(probe, or None for an acknowledgement; user; event id): the same thing said again has the same."""


@dataclass(slots=True, kw_only=True)
class ObeyedOrder:
    """A seal or an expungement that a worker has obeyed."""

    position: tuple[int, int]
    """(partition, offset) of the order in the booking topic."""
    lifted_at: datetime | None = None
    """When an unseal after it was answered; None while it holds."""


@dataclass(slots=True, kw_only=True)
class OpenNotice:
    """A notice that was sent."""

    notice: Notice
    reminders: int = 0
    reminded_at: datetime | None = None
    is_acknowledged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswerable:
    """A record that somebody sent to the clerk and that becomes a dead letter."""

    record: LogRecord
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retained:
    """Something that is kept of a probe."""

    probe_id: UUID
    item: str
    """PROBE_IMAGE or REVIEW_SHEETS."""
    due_at: datetime
    """When it has been kept long enough."""
    kept_by: str
    """What keeps it beyond that: OPEN_REVIEW, LEAD or nothing."""


class _Waiting:
    """What was said and has no answer yet; the answer to it may be read before it, since it stands in another topic."""

    def __init__(self) -> None:
        self._records: dict[SourcePosition, tuple[LogRecord, Said | NoticeAcknowledged]] = {}
        self._answers: dict[SourcePosition, bool] = {}
        """Position -> whether what was said there counts. The first answer holds."""

    def say(
        self, record: LogRecord, event: Said | NoticeAcknowledged
    ) -> tuple[LogRecord, Said | NoticeAcknowledged] | None:
        """Take note of something said; return it if it is known to count."""
        accepted = self._answers.get(record.position)
        if accepted is None:
            self._records[record.position] = (record, event)
        return (record, event) if accepted else None

    def answer(self, position: SourcePosition, *, accepted: bool) -> tuple[LogRecord, Said | NoticeAcknowledged] | None:
        """Take note of an answer; return what was said there, if it counts by this answer and was read."""
        if position in self._answers:
            return None
        self._answers[position] = accepted
        said = self._records.pop(position, None)
        return said if accepted else None

    def waiting(self) -> Iterable[tuple[LogRecord, Said | NoticeAcknowledged]]:
        """Return what has no answer, in the order in which it was read."""
        return self._records.values()


class CaseBook:
    """Lists, reviews, leads, orders and notices as of the records applied.

    Args:
        directory: that follows the access topic; it is folded here.
        policy: of the operator, as long as no activated one holds.
    """

    def __init__(self, directory: Directory, policy: Policy) -> None:
        self.directory = directory
        self._policy = policy
        self.cases: dict[UUID, CaseFile] = {}
        """By probe."""
        self.notices: dict[UUID, OpenNotice] = {}
        """By event id."""
        self.unanswerable: dict[SourcePosition, Unanswerable] = {}
        """What was sent to the clerk, can have no answer and is no dead letter yet."""
        self._buried: set[SourcePosition] = set()
        self._access_applied = 0
        self._orders: dict[str, dict[int, ObeyedOrder]] = {}
        """Booking -> source offset -> order."""
        self._order_events: dict[tuple[int, int], RecordOrderReceived] = {}
        self._listing: dict[str, list[UUID]] = {}
        """Booking -> probes whose list has it."""
        self._reviews, self._acknowledgements = _Waiting(), _Waiting()
        self._verdicts: dict[_Name, ReviewAnswered | NoticeAnswered] = {}
        """What was said -> its first answer. A signed record that is sent again must not undo what was said after
        it, nor count where it was refused before."""
        self._touched: set[UUID] = set()
        """Probes of which something may be due."""
        self._judged_by = policy
        """The policy under which the others were looked at last."""

    def policy_at(self, at: datetime) -> Policy:
        """Return the policy that holds at an instant."""
        return self.directory.policy_at(at) or self._policy

    def apply(self, record: LogRecord) -> None:
        """Fold one record of a followed topic; what cannot be read there changes nothing."""
        # Of bookings only orders matter here, and there are many bookings.
        if record.topic == BOOKING_EVENTS and record_name(record.value) != RecordOrderReceived.AVRO_NAME:
            return
        if record.topic in SAID_TO_THE_CLERK and not _stands_where_its_key_belongs(record):
            self._bury(record, WRONG_PARTITION, "Publish with the murmur2 partitioner: keys decide order.")
            return
        try:
            event = decode_for(record.topic, record.value)
        except ContractError as error:
            self._bury(record, CONTRACT, str(error))
            return
        self._apply(record, event)

    def _bury(self, record: LogRecord, code: str, reason: str) -> None:
        if record.topic in SAID_TO_THE_CLERK and record.position not in self._buried:
            self.unanswerable[record.position] = Unanswerable(record=record, code=code, reason=reason)

    def _apply(self, record: LogRecord, event: Event) -> None:
        at = _appended_at(record)
        if record.topic == ACCESS:
            self._access_applied = record.offset + 1
            self._fold_access(record, event)
        elif isinstance(event, RecordOrderReceived):
            self._order_events[record.partition, record.offset] = event
            self._touched.update(self._listing.get(booking_key(event.ori, event.booking_number), ()))
        elif isinstance(event, BookingProcessed):
            self._fold_answer_to_order(event, at)
        elif isinstance(event, (CandidateListIssued, ProbeRefused)):
            self._fold_outcome(event, at)
        elif record.topic == REVIEW_EVENTS:
            self._hear(record, cast("Said", event))
        elif record.topic == REVIEW_OUTCOMES:
            self._fold_decision(event, at)
        elif isinstance(event, DeadLetter):
            self._buried.add(event.source)
            self.unanswerable.pop(event.source, None)
        elif isinstance(event, NoticeAcknowledged):
            self._acknowledgements.say(record, event)
        else:
            self._fold_notice(event)

    def _fold_access(self, record: LogRecord, event: Event) -> None:
        try:
            self.directory.apply(record, event)
        except ContractError:
            return  # The workers make it a dead letter.

    def _fold_answer_to_order(self, answer: BookingProcessed, at: datetime) -> None:
        key, offset = booking_key(answer.ori, answer.booking_number), answer.source.offset
        if answer.outcome is BookingOutcome.WITHDRAWN:
            orders = self._orders.setdefault(key, {})
            orders.setdefault(offset, ObeyedOrder(position=(answer.source.partition, offset)))
        elif answer.outcome is BookingOutcome.ORDER_LIFTED:
            for earlier, order in self._orders.get(key, {}).items():
                if earlier < offset and order.lifted_at is None:
                    order.lifted_at = at
        else:
            return
        self._touched.update(self._listing.get(key, ()))

    def _fold_outcome(self, outcome: CandidateListIssued | ProbeRefused, at: datetime) -> None:
        case = self._case(outcome.probe_id)
        if case.outcome is not None:
            return  # The first outcome of a probe is its outcome (G1).
        case.outcome = Outcome(
            user_id=outcome.user_id,
            ori=outcome.ori,
            case_number=outcome.case_number,
            decided_at=at,
            candidates=tuple(
                ListedCandidate(
                    rank=each.rank,
                    capture_id=each.capture_id,
                    person=each.person,
                    ori=each.ori,
                    booking_number=each.booking_number,
                )
                for each in (outcome.candidates if isinstance(outcome, CandidateListIssued) else ())
            ),
        )
        self._touched.add(case.probe_id)
        for candidate in case.candidates:
            self._listing.setdefault(_booking_of(candidate), []).append(case.probe_id)

    def _fold_decision(self, event: Event, at: datetime) -> None:
        if isinstance(event, ReviewAnswered):
            self._note_verdict(event)
            said = self._reviews.answer(event.source, accepted=event.accepted)
            if said is not None:
                self._fold_said(*said)
            return
        if not isinstance(event, (ReviewCompleted, LeadIssued, LeadWithdrawn, RetainedDataDestroyed)):
            return
        case = self._case(event.probe_id)
        if isinstance(event, ReviewCompleted):
            case.completed = case.completed or event
        elif isinstance(event, LeadIssued):
            case.leads.setdefault(event.capture_id, event)
            case.leads_at.setdefault(event.lead_id, at)
        elif isinstance(event, LeadWithdrawn):
            case.withdrawn_leads.setdefault(event.lead_id, event)
        else:
            case.destroyed.update(event.items)
        self._touched.add(case.probe_id)

    def _note_verdict(self, answer: ReviewAnswered | NoticeAnswered) -> None:
        if answer.code not in _NOT_THEIRS:
            self._verdicts.setdefault(_name_of(answer, answer.source_event_id), answer)

    def _hear(self, record: LogRecord, event: Said) -> None:
        said = self._reviews.say(record, event)
        if said is not None:
            self._fold_said(*said)

    def _fold_said(self, record: LogRecord, event: Said | NoticeAcknowledged) -> None:
        """Fold something that an examiner said and that counts."""
        if isinstance(event, NoticeAcknowledged):
            return
        case, at = self._case(event.probe_id), _appended_at(record)
        if (event.user_id, event.event_id) in case.counted:
            return
        case.counted.add((event.user_id, event.event_id))
        self._touched.add(case.probe_id)
        if isinstance(event, ReviewReversed):
            case.reversed.setdefault(event.capture_id, event.event_id)
            return
        if isinstance(event, ImageViewed):
            review = case.reviews.setdefault(event.user_id, Review(user_id=event.user_id, ori=event.ori, opened_at=at))
            review.opened_at = max(review.opened_at, at)
            review.openings[event.review_id] = Opening(shown=event.shown, expires_at=event.expires_at)
            review.orders.add(event.shown)
            for capture_id in event.shown:
                review.received_at.setdefault(capture_id, at)
            return
        opened = case.reviews.get(event.user_id)
        if opened is None or event.review_id not in opened.openings:
            return  # Whoever answered that it counts: what was not looked at was not compared (G8).
        if isinstance(event, CandidateReviewed):
            opened.dispositions[event.capture_id] = event
        elif not opened.is_concluded:
            opened.is_concluded = True
            case.concluded.append(event.user_id)

    def _fold_notice(self, event: Event) -> None:
        if isinstance(event, NoticeAnswered):
            self._note_verdict(event)
            self._acknowledgements.answer(event.source, accepted=event.accepted)
            notice = self.notices.get(event.notice_id)
            if notice is not None and event.accepted:
                notice.is_acknowledged = True
        elif isinstance(event, NoticeReminder):
            notice = self.notices.get(event.notice_id)
            if notice is not None and event.number > notice.reminders:
                notice.reminders, notice.reminded_at = event.number, event.occurred_at
        elif isinstance(event, (SealedRecordNotice, LeadWithdrawnNotice)):
            # An answer to a notice stands behind it in the same partition: both have its receiver's key.
            self.notices.setdefault(event.event_id, OpenNotice(notice=event))

    def _case(self, probe_id: UUID) -> CaseFile:
        return self.cases.setdefault(probe_id, CaseFile(probe_id=probe_id))

    def orders_on(self, candidate: ListedCandidate) -> Iterator[tuple[RecordOrderReceived, ObeyedOrder]]:
        """Yield the seals and expungements of the record of a candidate that were obeyed, in their order."""
        obeyed = self._orders.get(_booking_of(candidate), {})
        for offset in sorted(obeyed):
            event = self._order_events.get(obeyed[offset].position)
            if event is not None:
                yield event, obeyed[offset]

    def is_barred(self, candidate: ListedCandidate) -> bool:
        """Tell whether a court order keeps the record of a candidate from being used."""
        return any(order.lifted_at is None for order in self._orders.get(_booking_of(candidate), {}).values())

    def due(self, at: datetime) -> list[Event]:
        """Return what has to be written now, in this order, and has not been read back; not what retention asks for."""
        policy = self.policy_at(at)
        if policy is not self._judged_by:
            self._judged_by = policy
            self._touched.update(self.cases)
        decided: list[Event] = [*self._due_answers(policy, at), *self._due_acknowledgements(at)]
        for probe_id in sorted(self._touched):
            of_case = list(self._due_of_case(self.cases[probe_id], policy, at))
            if not of_case:
                self._touched.discard(probe_id)
            decided += of_case
        return [*decided, *self._due_reminders(policy, at)]

    def _due_answers(self, policy: Policy, at: datetime) -> Iterator[ReviewAnswered]:
        answered: set[UUID] = set()
        for record, event in self._reviews.waiting():
            said = cast("Said", event)
            # One at a time of each probe: what is said next is judged by what came of this.
            if said.probe_id in answered:
                continue
            answered.add(said.probe_id)
            sitting = Sitting(
                directory=self.directory,
                policy=policy,
                at=at,
                said_at=_appended_at(record),
                is_barred=self.is_barred,
            )
            refusal = self.directory.refusal_of(record, said)
            if refusal is None:
                verdict = self._verdicts.get(_name_of(said, said.event_id))
                refusal = (
                    _refusal_in(verdict) if verdict else refusal_of_review(said, self.cases.get(said.probe_id), sitting)
                )
            yield ReviewAnswered(
                event_id=derived_id(record.position, "answered"),
                occurred_at=at,
                actor=ACTOR,
                probe_id=said.probe_id,
                user_id=said.user_id,
                source=record.position,
                source_event_id=said.event_id,
                accepted=refusal is None,
                code=refusal.code if refusal else None,
                message=refusal.message if refusal else None,
                rule=refusal.rule if refusal else "",
                policy_version=policy.version,
                access_watermark=(self._access_applied,),
            )

    def _due_acknowledgements(self, at: datetime) -> Iterator[NoticeAnswered]:
        answered: set[_Name] = set()
        for record, event in self._acknowledgements.waiting():
            said = cast("NoticeAcknowledged", event)
            name = _name_of(said, said.event_id)
            if name in answered:
                continue  # Said again before it was answered; it has the same answer, which is not there yet.
            answered.add(name)
            refusal = self.directory.refusal_of(record, said)
            if refusal is None:
                verdict = self._verdicts.get(name)
                refusal = _refusal_in(verdict) if verdict else self._refusal_of_acknowledgement(said)
            yield NoticeAnswered(
                event_id=derived_id(record.position, "answered"),
                occurred_at=at,
                actor=ACTOR,
                user_id=said.user_id,
                notice_id=said.notice_id,
                source=record.position,
                source_event_id=said.event_id,
                accepted=refusal is None,
                code=refusal.code if refusal else None,
                message=refusal.message if refusal else None,
            )

    def _refusal_of_acknowledgement(self, said: NoticeAcknowledged) -> Refusal | None:
        notice = self.notices.get(said.notice_id)
        if notice is None or notice.notice.user_id != said.user_id:
            return Refusal(
                code=RefusalCode.NOTICE_UNKNOWN, message=f"No notice {said.notice_id} was sent to {said.user_id}."
            )
        if not said.statement.strip():
            return Refusal(code=RefusalCode.STATEMENT_MISSING, message="State what was done with the copies.")
        return None

    def _due_of_case(self, case: CaseFile, policy: Policy, at: datetime) -> Iterator[Event]:
        if case.outcome is None:
            return
        yield from self._due_completion(case, policy, at)
        yield from self._due_leads(case, case.outcome, policy, at)
        yield from self._due_withdrawals(case, case.outcome, policy, at)
        yield from self._due_notices(case, case.outcome, policy, at)

    def _due_completion(self, case: CaseFile, policy: Policy, at: datetime) -> Iterator[ReviewCompleted]:
        examiners = case.concluded[: policy.reviews.examiners]
        if case.completed is None and len(examiners) == policy.reviews.examiners:
            barred = {each.capture_id: self.is_barred(each) for each in case.candidates}
            yield ReviewCompleted(
                event_id=derived_id(case.probe_id, "review completed"),
                occurred_at=at,
                actor=ACTOR,
                probe_id=case.probe_id,
                examiners=tuple(examiners),
                results=results_of(case, examiners, policy.reviews, barred),
                policy_version=policy.version,
            )

    def _due_leads(self, case: CaseFile, outcome: Outcome, policy: Policy, at: datetime) -> Iterator[LeadIssued]:
        completed = case.completed
        for result in completed.results if completed else ():
            candidate = case.candidate(result.capture_id)
            if (
                completed is None
                or candidate is None
                or result.result is not ReviewResult.SUPPORTED
                or result.capture_id in case.leads
                or result.capture_id in case.reversed
                or self.is_barred(candidate)
            ):
                continue
            conclusions = _conclusions_of(case, completed, candidate)
            # Of what a completed review says, only what its examiners said is believed: forging one makes no lead.
            if len(conclusions) < policy.reviews.examiners or not set(conclusions) <= policy.reviews.supports:
                continue
            yield LeadIssued(
                event_id=derived_id(_lead_id(case, candidate), "lead"),
                occurred_at=at,
                actor=ACTOR,
                lead_id=_lead_id(case, candidate),
                probe_id=case.probe_id,
                user_id=outcome.user_id,
                ori=outcome.ori,
                case_number=outcome.case_number,
                capture_id=candidate.capture_id,
                person=candidate.person,
                booking_ori=candidate.ori,
                booking_number=candidate.booking_number,
                examiners=completed.examiners,
                conclusions=tuple(str(conclusion) for conclusion in conclusions),
                lead_notice=LEAD_NOTICE,
                corroboration_reminder=policy.reviews.corroboration_reminder,
                policy_version=policy.version,
            )

    def _due_withdrawals(self, case: CaseFile, outcome: Outcome, policy: Policy, at: datetime) -> Iterator[Event]:
        receivers = (outcome.user_id,)
        for capture_id, lead in case.leads.items():
            withdrawn = case.withdrawn_leads.get(lead.lead_id)
            if withdrawn is None and (why := self._why_withdrawn(case, lead)) is not None:
                cause, cause_event_id = why
                yield LeadWithdrawn(
                    event_id=derived_id(lead.lead_id, "withdrawn"),
                    occurred_at=at,
                    actor=ACTOR,
                    lead_id=lead.lead_id,
                    probe_id=case.probe_id,
                    capture_id=capture_id,
                    cause=cause,
                    cause_event_id=cause_event_id,
                    receivers=receivers,
                )
            for receiver in withdrawn.receivers if withdrawn else ():
                notice_id = derived_id(lead.lead_id, f"withdrawn: {receiver}")
                if withdrawn is not None and notice_id not in self.notices:
                    yield LeadWithdrawnNotice(
                        event_id=notice_id,
                        occurred_at=at,
                        actor=ACTOR,
                        user_id=receiver,
                        ori=outcome.ori,
                        lead_id=lead.lead_id,
                        probe_id=case.probe_id,
                        case_number=outcome.case_number,
                        cause=str(withdrawn.cause),
                        message="This lead no longer stands. Do not act on it, tell whoever was told of it, and "
                        "note in the case that it was withdrawn.",
                        due_at=at + timedelta(hours=policy.notices.acknowledge_within_hours),
                    )

    def _why_withdrawn(self, case: CaseFile, lead: LeadIssued) -> tuple[LeadWithdrawalCause, UUID] | None:
        candidate = case.candidate(lead.capture_id)
        issued_at = case.leads_at[lead.lead_id]
        for event, order in self.orders_on(candidate) if candidate else ():
            if order.lifted_at is None or issued_at < order.lifted_at:
                return _CAUSE_OF[event.order], event.event_id
        reversal = case.reversed.get(lead.capture_id)
        return (LeadWithdrawalCause.REVIEW_REVERSED, reversal) if reversal else None

    def _due_notices(
        self, case: CaseFile, outcome: Outcome, policy: Policy, at: datetime
    ) -> Iterator[SealedRecordNotice]:
        """Yield what receivers have to be told: also of a list that was on its way when its record was sealed (G6)."""
        for candidate in case.candidates:
            for event, order in self.orders_on(candidate):
                for receiver, (ori, ways) in _receivers(case, outcome, candidate, order.lifted_at).items():
                    notice_id = _notice_id(event, case, receiver)
                    if notice_id in self.notices:
                        continue
                    partition, offset = order.position
                    yield SealedRecordNotice(
                        event_id=notice_id,
                        occurred_at=at,
                        actor=ACTOR,
                        user_id=receiver,
                        ori=ori,
                        probe_id=case.probe_id,
                        case_number=outcome.case_number,
                        rank=candidate.rank,
                        capture_id=candidate.capture_id,
                        booking_ori=candidate.ori,
                        booking_number=candidate.booking_number,
                        source=SourcePosition(topic=BOOKING_EVENTS, partition=partition, offset=offset),
                        order_event_id=event.event_id,
                        order=str(event.order),
                        statute=event.statute,
                        received_as=tuple(ways),
                        message="A court order covers this record. Do not use it, destroy every copy of the list, the "
                        "images and what was derived from them, and acknowledge that this was done.",
                        due_at=at + timedelta(hours=policy.notices.acknowledge_within_hours),
                    )

    def _due_reminders(self, policy: Policy, at: datetime) -> Iterator[NoticeReminder]:
        every = timedelta(hours=policy.notices.remind_every_hours)
        for notice_id, sent in self.notices.items():
            next_at = sent.notice.due_at if sent.reminded_at is None else sent.reminded_at + every
            if sent.is_acknowledged or sent.reminders >= policy.notices.maximum_reminders or at < next_at:
                continue
            number = sent.reminders + 1
            yield NoticeReminder(
                event_id=derived_id(notice_id, f"reminder {number}"),
                occurred_at=at,
                actor=ACTOR,
                user_id=sent.notice.user_id,
                notice_id=notice_id,
                number=number,
                due_at=sent.notice.due_at,
            )

    def retained(self, policy: Policy) -> Iterator[Retained]:
        """Yield what is kept of each probe; an open review or a lead that stands keeps what it rests on."""
        rules = policy.retention
        for case in self.cases.values():
            if case.outcome is None:
                continue
            ends = {PROBE_IMAGE: case.outcome.decided_at + timedelta(days=rules.probe_image_days)}
            if case.reviews:
                last_opened = max(review.opened_at for review in case.reviews.values())
                ends[REVIEW_SHEETS] = last_opened + timedelta(days=rules.review_sheet_days)
            kept_by = OPEN_REVIEW if case.is_under_review else LEAD if case.has_standing_lead else ""
            for item in sorted(ends.keys() - case.destroyed):
                yield Retained(probe_id=case.probe_id, item=item, due_at=ends[item], kept_by=kept_by)

    def due_by_retention(
        self, at: datetime, request: RetentionRequest | None = None
    ) -> Iterator[RetainedDataDestroyed]:
        """Yield the deletion of what has been kept long enough by now, or by the instant that a request names."""
        policy = self.policy_at(at)
        until = min(at, request.due_by) if request else at
        for kept in self.retained(policy):
            if kept.kept_by or until < kept.due_at:
                continue
            yield RetainedDataDestroyed(
                event_id=derived_id(kept.probe_id, f"destroyed: {kept.item}"),
                occurred_at=at,
                actor=ACTOR,
                probe_id=kept.probe_id,
                items=(kept.item,),
                rule=f"retention.{kept.item.lower()}",
                due_at=kept.due_at,
                requested_by=request.user_id if request else None,
                policy_version=policy.version,
            )


_CAUSE_OF = {
    OrderKind.SEAL: LeadWithdrawalCause.RECORD_SEALED,
    OrderKind.EXPUNGE: LeadWithdrawalCause.RECORD_EXPUNGED,
}


def _receivers(
    case: CaseFile, outcome: Outcome, candidate: ListedCandidate, lifted_at: datetime | None
) -> dict[str, tuple[str, list[str]]]:
    """Return everyone who received a candidate before an order on it was lifted, with the agency and the ways."""
    lead = case.leads.get(candidate.capture_id)
    receipts = [
        (outcome.user_id, outcome.ori, AS_LISTED, outcome.decided_at),
        *(
            (review.user_id, review.ori, AS_REVIEWED, review.received_at[candidate.capture_id])
            for review in case.reviews.values()
            if candidate.capture_id in review.received_at
        ),
        *([(outcome.user_id, outcome.ori, AS_LEAD, case.leads_at[lead.lead_id])] if lead else []),
    ]
    receivers: dict[str, tuple[str, list[str]]] = {}
    for user_id, ori, way, received_at in receipts:
        if lifted_at is None or received_at < lifted_at:
            receivers.setdefault(user_id, (ori, []))[1].append(way)
    return receivers


def _conclusions_of(
    case: CaseFile, completed: ReviewCompleted, candidate: ListedCandidate
) -> tuple[ReviewConclusion, ...]:
    """Return what each examiner of a completed review concluded of a candidate; nothing unless all of them did."""
    reviews = [case.reviews.get(examiner) for examiner in dict.fromkeys(completed.examiners)]
    said = [
        review.dispositions.get(candidate.capture_id) if review is not None and review.is_concluded else None
        for review in reviews
    ]
    conclusions = tuple(each.conclusion for each in said if each is not None)
    return conclusions if len(conclusions) == len(completed.examiners) else ()


def _name_of(event: Said | NoticeAcknowledged | ReviewAnswered | NoticeAnswered, event_id: UUID) -> _Name:
    probe_id = None if isinstance(event, (NoticeAcknowledged, NoticeAnswered)) else event.probe_id
    return probe_id, event.user_id, event_id


def _refusal_in(answer: ReviewAnswered | NoticeAnswered) -> Refusal | None:
    if answer.accepted or answer.code is None:
        return None
    rule = answer.rule if isinstance(answer, ReviewAnswered) else ""
    return Refusal(code=RefusalCode(answer.code), message=answer.message or "", rule=rule)


def _stands_where_its_key_belongs(record: LogRecord) -> bool:
    return record.key is not None and partition_of(record.topic, record.key) == record.partition


def _notice_id(order: RecordOrderReceived, case: CaseFile, receiver: str) -> UUID:
    # A booking system chooses the ids of its orders, and may give one id to two orders.
    ordered = derived_id(order.event_id, f"{order.order}: {booking_key(order.ori, order.booking_number)}")
    return derived_id(ordered, f"notice: {case.probe_id}: {receiver}")


def _lead_id(case: CaseFile, candidate: ListedCandidate) -> UUID:
    return derived_id(case.probe_id, f"lead: {candidate.capture_id}")


def _booking_of(candidate: ListedCandidate) -> str:
    return booking_key(candidate.ori, candidate.booking_number)


def _appended_at(record: LogRecord) -> datetime:
    return datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
