"""What must hold of reviews, leads and notices, said a second time: folded in the one order in which all was appended.

The product reads topics side by side and writes what is due; here is one list of everything, and what must follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from builders import ORI

from schemas.events import (
    AccessGranted,
    AccessRestricted,
    AccessRevoked,
    AgreementAccepted,
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
    PolicyActivated,
    ProbeRefused,
    RecordOrderReceived,
    RetainedDataDestroyed,
    ReviewAnswered,
    ReviewCompleted,
    ReviewConcluded,
    ReviewResult,
    ReviewReversed,
    SealedRecordNotice,
    TrainingCompleted,
    UserRegistered,
)
from schemas.keys import booking_key, key_of, partition_of
from schemas.topics import ACCESS, BOOKING_EVENTS, NOTICE_ACKNOWLEDGEMENTS, REVIEW_EVENTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from typing import Any
    from uuid import UUID

    from processors.policy import Policy
    from schemas.events import Event
    from schemas.positions import SourcePosition
    from schemas.records import LogRecord

UNHEARD = ("UNAUTHENTICATED", "NOT_ALLOWED")
MUST_SHOW = {"EXCLUSION": "DISSIMILAR", "LIMITED_SUPPORT": "SIMILAR", "SUPPORT": "SIMILAR", "STRONG_SUPPORT": "SIMILAR"}
WITHDRAWN_BY = {
    OrderKind.SEAL: LeadWithdrawalCause.RECORD_SEALED,
    OrderKind.EXPUNGE: LeadWithdrawalCause.RECORD_EXPUNGED,
}


@dataclass
class Person:
    """What holds for a user."""

    key: bytes
    ori: str
    roles: tuple[str, ...]
    access: str = "NOT_GRANTED"
    trained: list[tuple[datetime, datetime]] = field(default_factory=list)
    agreed: bool = False

    def is_fit(self, at: datetime) -> bool:
        """Standing, training and agreement at an instant (G3)."""
        return self.access == "GRANTED" and self.agreed and any(start <= at < end for start, end in self.trained)


@dataclass(frozen=True)
class Said:
    """A record of an examiner or of a receiver, and whose key really signed these bytes."""

    record: LogRecord
    event: Any
    key: bytes | None
    at: datetime


@dataclass
class Comparison:
    """What one examiner said of one probe, as far as it counts."""

    sheets: dict[UUID, ImageViewed] = field(default_factory=dict)
    seen: list[tuple[datetime, tuple[UUID, ...]]] = field(default_factory=list)
    said: dict[UUID, CandidateReviewed] = field(default_factory=dict)
    concluded: bool = False


@dataclass
class Case:
    """A probe: its first outcome, and what followed."""

    outcome: Any = None
    at: Any = None
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    concluded: list[str] = field(default_factory=list)
    reversed: set[UUID] = field(default_factory=set)
    completed: ReviewCompleted | None = None
    leads: dict[UUID, tuple[LeadIssued, datetime]] = field(default_factory=dict)
    withdrawn: dict[UUID, LeadWithdrawn] = field(default_factory=dict)
    destroyed: set[str] = field(default_factory=set)

    @property
    def rows(self) -> tuple[Any, ...]:
        return self.outcome.candidates if isinstance(self.outcome, CandidateListIssued) else ()

    @property
    def names_each_capture_once(self) -> bool:
        return len({row.capture_id for row in self.rows}) == len(self.rows)


class Law:
    """Everything that was appended, folded once."""

    def __init__(self, policies: Mapping[str, Policy], tool: bytes) -> None:
        self.policies, self.tool = policies, tool
        self.first_policy = next(iter(policies.values()))
        self.people: dict[str, Person] = {}
        self.activated: list[tuple[datetime, int, Policy]] = []
        self.decided_access: set[UUID] = set()
        self.orders: dict[tuple[int, int], RecordOrderReceived] = {}
        self.obeyed: dict[str, list[int]] = {}
        self.lifted: dict[tuple[str, int], datetime] = {}
        self.cases: dict[UUID, Case] = {}
        self.said: dict[SourcePosition, Said] = {}
        self.unanswerable: set[SourcePosition] = set()
        self.letters: set[SourcePosition] = set()
        self.answers: dict[SourcePosition, ReviewAnswered | NoticeAnswered] = {}
        self.verdicts: dict[tuple[Any, str, UUID], bool] = {}
        self.notices: dict[UUID, SealedRecordNotice | LeadWithdrawnNotice] = {}
        self.acknowledged: set[UUID] = set()
        self.reminders: dict[UUID, list[datetime]] = {}

    # Folding.

    def fold(self, record: LogRecord, event: Event | None, key: bytes | None, at: datetime) -> None:
        """Take note of what was appended; `key` is the public key that really signed it."""
        if record.topic in (REVIEW_EVENTS, NOTICE_ACKNOWLEDGEMENTS):
            self._hear(record, event, key, at)
        elif record.topic == ACCESS and event is not None:
            self._fold_access(event)
        elif isinstance(event, RecordOrderReceived):
            self.orders[record.partition, record.offset] = event
        elif isinstance(event, BookingProcessed):
            self._fold_processed(event, at)
        elif isinstance(event, (CandidateListIssued, ProbeRefused)):
            case = self.case(event.probe_id)
            if case.outcome is None:
                case.outcome, case.at = event, at
        elif isinstance(event, DeadLetter):
            self.letters.add(event.source)
        elif event is not None:
            self._fold_decision(event, at)

    def _hear(self, record: LogRecord, event: Event | None, key: bytes | None, at: datetime) -> None:
        if event is None or record.key is None or partition_of(record.topic, record.key) != record.partition:
            self.unanswerable.add(record.position)
        else:
            self.said[record.position] = Said(record, event, key, at)

    def _fold_access(self, event: Event) -> None:
        if event.event_id in self.decided_access:
            return
        self.decided_access.add(event.event_id)
        if isinstance(event, PolicyActivated):
            self.activated.append((event.effective_from, len(self.activated), self.policies[event.policy_version]))
        if isinstance(event, UserRegistered) and event.public_key is not None:
            person = self.people.setdefault(event.user_id, Person(event.public_key, event.ori, event.roles))
            person.key, person.ori, person.roles = event.public_key, event.ori, event.roles
        person = self.people.get(getattr(event, "user_id", ""), None)
        if person is None:
            return
        if isinstance(event, AccessGranted):
            person.access = "GRANTED"
        elif isinstance(event, (AccessRestricted, AccessRevoked)):
            person.access = type(event).__name__
        elif isinstance(event, TrainingCompleted):
            person.trained.append((event.completed_at, event.expires_at))
        elif isinstance(event, AgreementAccepted):
            person.agreed = True

    def _fold_processed(self, answer: BookingProcessed, at: datetime) -> None:
        key, offset = booking_key(answer.ori, answer.booking_number), answer.source.offset
        if answer.outcome is BookingOutcome.WITHDRAWN and offset not in self.obeyed.setdefault(key, []):
            self.obeyed[key].append(offset)
        elif answer.outcome is BookingOutcome.ORDER_LIFTED:
            for earlier in self.obeyed.get(key, []):
                if earlier < offset:
                    self.lifted.setdefault((key, earlier), at)

    def _fold_decision(self, event: Event, at: datetime) -> None:
        if isinstance(event, (ReviewAnswered, NoticeAnswered)):
            if event.source not in self.answers:
                self.answers[event.source] = event
                self._fold_answer(event)
        elif isinstance(event, NoticeReminder):
            sent = self.reminders.setdefault(event.notice_id, [])
            if event.number == len(sent) + 1:
                sent.append(event.occurred_at)
        elif isinstance(event, (SealedRecordNotice, LeadWithdrawnNotice)):
            self.notices.setdefault(event.event_id, event)
        elif isinstance(event, ReviewCompleted):
            self.case(event.probe_id).completed = self.case(event.probe_id).completed or event
        elif isinstance(event, LeadIssued):
            self.case(event.probe_id).leads.setdefault(event.capture_id, (event, at))
        elif isinstance(event, LeadWithdrawn):
            self.case(event.probe_id).withdrawn.setdefault(event.lead_id, event)
        elif isinstance(event, RetainedDataDestroyed):
            self.case(event.probe_id).destroyed.update(event.items)

    def _fold_answer(self, answer: ReviewAnswered | NoticeAnswered) -> None:
        name = getattr(answer, "probe_id", None), answer.user_id, answer.source_event_id
        is_repeat = name in self.verdicts
        if answer.code not in UNHEARD:
            self.verdicts.setdefault(name, answer.accepted)
        if not answer.accepted or is_repeat or answer.source not in self.said:
            return
        said = self.said[answer.source]
        event = said.event
        if isinstance(event, NoticeAcknowledged):
            self.acknowledged.add(event.notice_id)
            return
        case = self.case(event.probe_id)
        if isinstance(event, ReviewReversed):
            case.reversed.add(event.capture_id)
            return
        comparison = case.comparisons.setdefault(event.user_id, Comparison())
        if isinstance(event, ImageViewed):
            comparison.sheets[event.review_id] = event
            comparison.seen.append((said.at, event.shown))
        elif isinstance(event, CandidateReviewed):
            comparison.said[event.capture_id] = event
        elif isinstance(event, ReviewConcluded):
            comparison.concluded = True
            case.concluded.append(event.user_id)

    @staticmethod
    def name_of(said: Said) -> tuple[Any, str, UUID]:
        """Return what makes two records the same thing said by the same person of the same probe or notice."""
        return getattr(said.event, "probe_id", None), said.event.user_id, said.event.event_id

    def case(self, probe_id: UUID) -> Case:
        return self.cases.setdefault(probe_id, Case())

    # What holds now.

    def policy(self, at: datetime) -> Policy:
        in_force = [each for each in self.activated if each[0] <= at]
        return max(in_force, key=lambda each: each[:2])[2] if in_force else self.first_policy

    def orders_on(self, row: Any) -> Iterator[tuple[RecordOrderReceived, datetime | None]]:
        """Yield each order on the record of a candidate that a worker obeyed, and when it was lifted."""
        key = booking_key(row.ori, row.booking_number)
        for offset in self.obeyed.get(key, []):
            order = self.orders.get((partition_of(BOOKING_EVENTS, key.encode()), offset))
            if order is not None:
                yield order, self.lifted.get((key, offset))

    def is_barred(self, row: Any) -> bool:
        key = booking_key(row.ori, row.booking_number)
        return any((key, offset) not in self.lifted for offset in self.obeyed.get(key, []))

    # Who may say what (G3, G8).

    def may_speak(self, said: Said) -> bool:
        """Tell whether the record was signed by the person, or by the case tool for a person of its agency."""
        event, record = said.event, said.record
        if record.key != key_of(event):
            return False
        person = self.people.get(event.user_id)
        if person is not None and said.key == person.key:
            return bool(event.actor == f"user:{event.user_id}")
        of_the_tool = person is None or person.ori == ORI
        return said.key == self.tool and event.actor == "publisher:case-tool" and of_the_tool

    def counts(self, said: Said, at: datetime) -> bool:
        """Tell whether something that was said has to be accepted now; said again, it has the answer that it had."""
        before = self.verdicts.get(self.name_of(said))
        if before is not None or not self.may_speak(said):
            return bool(before) and self.may_speak(said)
        event = said.event
        if isinstance(event, NoticeAcknowledged):
            notice = self.notices.get(event.notice_id)
            return notice is not None and notice.user_id == event.user_id and bool(event.statement.strip())
        case, person, policy = self.case(event.probe_id), self.people[event.user_id], self.policy(at)
        if isinstance(event, ReviewReversed):
            return self._may_reverse(event, case, person)
        mine = case.comparisons.get(event.user_id, Comparison())
        may_compare = (
            person.is_fit(at)
            and "EXAMINER" in person.roles
            and bool(case.rows)
            and person.ori in {case.outcome.ori, *policy.reviews.from_agencies}
            and not (case.completed or mine.concluded or len(case.concluded) >= policy.reviews.examiners)
        )
        if isinstance(event, ImageViewed):
            return may_compare and event.ori == person.ori and self._may_view(event, said, case, policy)
        sheet = mine.sheets.get(event.review_id)
        return may_compare and sheet is not None and self._may_enter(said, sheet, mine, case, policy)

    def _may_enter(self, said: Said, sheet: ImageViewed, mine: Comparison, case: Case, policy: Policy) -> bool:
        if isinstance(said.event, ReviewConcluded):
            return all(self.is_barred(row) or row.capture_id in mine.said for row in case.rows)
        return said.at < sheet.expires_at and self._is_comparison(said.event, sheet, case, policy)

    def _is_comparison(self, event: CandidateReviewed, sheet: ImageViewed, case: Case, policy: Policy) -> bool:
        return (
            any(row.capture_id == event.capture_id and not self.is_barred(row) for row in case.rows)
            and event.capture_id in sheet.shown
            and sorted(each.feature for each in event.features) == sorted(policy.reviews.features)
            and bool(event.limitations.strip())
            and MUST_SHOW.get(event.conclusion, "") in {"", *(str(each.finding) for each in event.features)}
        )

    def _may_view(self, view: ImageViewed, said: Said, case: Case, policy: Policy) -> bool:
        shown = [row.capture_id for row in case.rows if not self.is_barred(row)]
        others = [each for user, each in case.comparisons.items() if user != view.user_id]
        known = {tuple(capture for capture in order if capture in shown) for each in others for _, order in each.seen}
        if policy.reviews.shuffles or others:
            known.add(tuple(shown))
        hours = timedelta(hours=policy.reviews.sheet_hours + 1)  # One hour for clocks that differ.
        return (
            sorted(view.shown) == sorted(shown)
            and case.names_each_capture_once
            and (policy.reviews.shows_scores or not view.shows_scores)
            and (len(shown) <= 2 or view.shown not in known)
            and said.at < view.expires_at <= said.at + hours
        )

    @staticmethod
    def _may_reverse(event: ReviewReversed, case: Case, person: Person) -> bool:
        if person.access != "GRANTED" or not event.reason.strip():
            return False
        drawn_by = {user for user, each in case.comparisons.items() if each.concluded and event.capture_id in each.said}
        supervises = case.outcome is not None and person.ori == case.outcome.ori and "SUPERVISOR" in person.roles
        return event.user_id in drawn_by or bool(drawn_by and supervises)

    # What a clerk decides, judged at that moment.

    def judge(self, event: Event, at: datetime) -> None:
        """G3, G6, G8, G11: what a clerk that has read everything gives to its Kafka client is due now."""
        if isinstance(event, (ReviewAnswered, NoticeAnswered)):
            said = self.said[event.source]
            assert event.source not in self.answers, "answered again by a clerk that knew better"
            assert event.accepted == self.counts(said, at), (event, said)
            assert (event.code in UNHEARD) != self.may_speak(said)
            return
        if isinstance(event, DeadLetter):
            assert event.source in self.unanswerable - self.letters
            return
        if isinstance(event, NoticeReminder):
            assert event.number == len(self.reminders.get(event.notice_id, ())) + 1
            assert self.next_reminder(event.notice_id, at) <= at
            return
        case = self.case(event.probe_id)
        if isinstance(event, SealedRecordNotice):
            assert self.is_noticed(event) in self.due_notices()
        elif isinstance(event, ReviewCompleted):
            assert case.completed is None
            assert list(event.examiners) == case.concluded[: self.policy(at).reviews.examiners]
            assert len(event.examiners) == self.policy(at).reviews.examiners
            assert [each.result for each in event.results] == [
                self._result_of(case, row, event.examiners, self.policy(at)) for row in case.rows
            ]
        elif isinstance(event, LeadIssued):
            self._judge_lead(event, case)
        elif isinstance(event, LeadWithdrawn):
            assert (event.cause, event.cause_event_id) in self.causes(case, *case.leads[event.capture_id])
            assert event.receivers == (case.outcome.user_id,)
        elif isinstance(event, RetainedDataDestroyed):
            assert set(event.items) <= self.kept_too_long(case, at)

    def _result_of(self, case: Case, row: Any, examiners: tuple[str, ...], policy: Policy) -> ReviewResult:
        said = [case.comparisons[user].said.get(row.capture_id) for user in examiners]
        if None in said or self.is_barred(row) or row.capture_id in case.reversed:
            return ReviewResult.WITHDRAWN
        support = {each is not None and each.conclusion in policy.reviews.supports for each in said}
        if len(support) > 1:
            return ReviewResult.DISAGREEMENT
        return ReviewResult.SUPPORTED if support == {True} else ReviewResult.NOT_SUPPORTED

    def _judge_lead(self, lead: LeadIssued, case: Case) -> None:
        """G8: as many persons as the policy asks for were shown the candidate, found support and concluded."""
        (row,) = (row for row in case.rows if row.capture_id == lead.capture_id)
        rules = self.policies[lead.policy_version].reviews
        assert len(set(lead.examiners)) == len(lead.examiners) >= rules.examiners
        for user in lead.examiners:
            comparison = case.comparisons[user]
            assert any(lead.capture_id in shown for _, shown in comparison.seen)
            assert comparison.said[lead.capture_id].conclusion in rules.supports
            assert comparison.concluded
        assert not self.is_barred(row)
        assert lead.capture_id not in case.reversed
        assert lead.capture_id not in case.leads
        assert (lead.booking_ori, lead.booking_number, lead.person) == (row.ori, row.booking_number, row.person)

    def causes(self, case: Case, lead: LeadIssued, at: datetime) -> set[tuple[LeadWithdrawalCause, Any]]:
        """Return why a lead may not stand."""
        found: set[tuple[LeadWithdrawalCause, Any]] = {
            (WITHDRAWN_BY[order.order], order.event_id)
            for row in case.rows
            if row.capture_id == lead.capture_id
            for order, lifted in self.orders_on(row)
            if lifted is None or at < lifted
        }
        if lead.capture_id in case.reversed:
            found |= {
                (LeadWithdrawalCause.REVIEW_REVERSED, said.event.event_id)
                for position, said in self.said.items()
                if isinstance(said.event, ReviewReversed)
                and said.event.capture_id == lead.capture_id
                and position in self.answers
                and self.answers[position].accepted
            }
        return found

    def next_reminder(self, notice_id: UUID, at: datetime) -> datetime:
        """Return when the next reminder is due; never, once it was acknowledged or often enough."""
        sent, rules = self.reminders.get(notice_id, []), self.policy(at).notices
        if notice_id in self.acknowledged or len(sent) >= rules.maximum_reminders:
            return at + timedelta(days=1)
        return sent[-1] + timedelta(hours=rules.remind_every_hours) if sent else self.notices[notice_id].due_at

    def kept_too_long(self, case: Case, at: datetime) -> set[str]:
        """Return what of a probe has to be deleted now."""
        under_review = bool(case.comparisons) and case.completed is None
        standing = any(lead.lead_id not in case.withdrawn for lead, _ in case.leads.values())
        if case.outcome is None or under_review or standing:
            return set()
        rules = self.policy(at).retention
        opened = [when for each in case.comparisons.values() for when, _ in each.seen]
        found = {"PROBE_IMAGE"} if case.at + timedelta(days=rules.probe_image_days) <= at else set()
        if opened and max(opened) + timedelta(days=rules.review_sheet_days) <= at:
            found.add("REVIEW_SHEETS")
        return found - case.destroyed

    @staticmethod
    def is_noticed(notice: SealedRecordNotice) -> tuple[Any, ...]:
        booking = booking_key(notice.booking_ori, notice.booking_number)
        return notice.order_event_id, notice.order, booking, notice.probe_id, notice.user_id

    def due_notices(self) -> set[tuple[Any, ...]]:
        """G6: who was given a record before the court's order on it was lifted, by list or by sheet."""
        return {
            (order.event_id, str(order.order), booking_key(row.ori, row.booking_number), probe_id, user)
            for probe_id, case in self.cases.items()
            for row in case.rows
            for order, lifted in self.orders_on(row)
            for user, when in [
                (case.outcome.user_id, case.at),
                *(
                    (examiner, seen_at)
                    for examiner, each in case.comparisons.items()
                    for seen_at, shown in each.seen
                    if row.capture_id in shown
                ),
            ]
            if lifted is None or when < lifted
        }

    # When all has come to rest.

    def is_kept_at_rest(self, at: datetime) -> None:
        """G3, G6, G8, G11, G12: everything is answered once, and what has to follow from it stands there."""
        assert self.answers.keys() == self.said.keys()
        assert self.letters == self.unanswerable
        sealed = [each for each in self.notices.values() if isinstance(each, SealedRecordNotice)]
        assert len(sealed) == len({self.is_noticed(each) for each in sealed})
        assert {self.is_noticed(each) for each in sealed} == self.due_notices()
        told = {(each.lead_id, each.user_id) for each in self.notices.values() if isinstance(each, LeadWithdrawnNotice)}
        assert told == {
            (withdrawn.lead_id, user)
            for case in self.cases.values()
            for withdrawn in case.withdrawn.values()
            for user in withdrawn.receivers
        }
        for notice_id in self.notices:
            assert self.next_reminder(notice_id, at) > at
        for case in self.cases.values():
            self._is_case_at_rest(case, at)

    def _is_case_at_rest(self, case: Case, at: datetime) -> None:
        assert case.completed is not None or len(case.concluded) < self.policy(at).reviews.examiners
        results = {each.capture_id: each.result for each in case.completed.results} if case.completed else {}
        for capture_id in case.leads:
            assert results[capture_id] is ReviewResult.SUPPORTED
        for row in case.rows:
            if results.get(row.capture_id) is ReviewResult.SUPPORTED and row.capture_id not in case.reversed:
                # A policy that asked for more before the lead was written is honoured.
                too_few = case.completed and len(case.completed.examiners) < self.policy(at).reviews.examiners
                assert row.capture_id in case.leads or self.is_barred(row) or too_few
        assert {lead.lead_id for lead, when in case.leads.values() if self.causes(case, lead, when)} == set(
            case.withdrawn
        )

    def nothing_is_kept_too_long(self, at: datetime) -> None:
        """What has been kept long enough was deleted."""
        for case in self.cases.values():
            assert not self.kept_too_long(case, at)
