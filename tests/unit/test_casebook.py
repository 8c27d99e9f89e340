"""What the clerk has to write, as of what was said, ordered and decided before: answers, leads, notices (G6, G8)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from builders import (
    ALICE,
    CASE_TOOL,
    ERIN,
    FINN,
    JAIL,
    MICROSECOND,
    OTHER_ORI,
    POLICY,
    PROBE,
    ROOT,
    STRANGER,
    SUE,
    access_revoked,
    by_root,
    candidate_reviewed,
    image_viewed,
    list_issued,
    notice_acknowledged,
    order_answered,
    record_order,
    review_concluded,
    review_id_of,
    review_reversed,
    signed,
    unsigned,
    uuid_named,
    with_examiners,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from memory import MemoryKafka

from processors.access import Directory, RetentionRequest
from processors.casebook import (
    FOLLOWED,
    LEAD,
    OPEN_REVIEW,
    PROBE_IMAGE,
    REVIEW_SHEETS,
    CaseBook,
)
from processors.refusals import RefusalCode
from schemas.codec import topic_of
from schemas.events import (
    CandidateResult,
    LeadIssued,
    LeadWithdrawalCause,
    LeadWithdrawn,
    LeadWithdrawnNotice,
    NoticeAnswered,
    NoticeReminder,
    OrderKind,
    ReviewAnswered,
    ReviewCompleted,
    ReviewConclusion,
    ReviewResult,
    SealedRecordNotice,
)
from schemas.keys import key_of, partition_of
from schemas.positions import derived_id
from schemas.topics import REVIEW_EVENTS, TOPICS

if TYPE_CHECKING:
    from datetime import datetime

    from connectors.signing_keys import SigningKey
    from processors.policy import Policy
    from schemas.events import Event
    from schemas.records import LogRecord

E = TypeVar("E")
C = ReviewConclusion
ON_THE_LIST = ("B-1", "B-2", "B-3")
SHUFFLED, AGAIN = ("B-3", "B-1", "B-2"), ("B-2", "B-3", "B-1")
PLACES = [(topic, partition) for topic in FOLLOWED for partition in range(TOPICS[topic].partitions)]
KEYS = {"erin": ERIN, "finn": FINN, "sue": SUE, "alice": ALICE}


class Desk:
    """A Kafka in memory and the clerk's state of it; what is due is written only where a test says so."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.kafka = MemoryKafka(PLACES)
        self.policy = policy
        self.book = CaseBook(Directory(ROOT.public_key), policy)
        for record in with_examiners().records:
            self._append(record, None)

    def _append(self, record: LogRecord, event: Event | None) -> LogRecord:
        written = self.kafka.append(record, event)
        self.book.apply(written)
        return written

    @property
    def now(self) -> datetime:
        return self.kafka.now

    def write(self, event: Event) -> LogRecord:
        """Append what a worker or the clerk writes."""
        return self._append(unsigned(event, partition=partition_of(topic_of(event), key_of(event))), event)

    def say(self, event: Event, key: SigningKey | None = None) -> LogRecord:
        """Append what a person or a system says, signed."""
        place = partition_of(topic_of(event), key_of(event))
        key = key or KEYS[str(getattr(event, "user_id", ""))]
        return self._append(signed(event, key, partition=place), event)

    def due(self, at: datetime | None = None) -> list[Event]:
        return self.book.due(at or self.now)

    def decide(self, at: datetime | None = None) -> list[Event]:
        """Write all that is due until nothing is; return it."""
        written: list[Event] = []
        while due := self.due(at):
            for event in due:
                self.write(event)
            written += due
        return written

    def order(self, order: OrderKind, booking: str = "B-1") -> None:
        """Append a court order, and that a worker has obeyed it."""
        event = record_order(order, booking, order_number=str(self.now))
        self.write(order_answered(order, self.say(event, JAIL).position, booking))

    def review(self, user: str, shown: tuple[str, ...], conclusion: C = C.SUPPORT) -> list[Event]:
        """Let an examiner review the list to its end; return what the clerk wrote of it."""
        self.say(image_viewed(user, shown, occurred_at=self.now, expires_at=self.now + timedelta(hours=8)))
        for name in shown:
            self.say(candidate_reviewed(user, name, conclusion, occurred_at=self.now))
        self.say(review_concluded(user, occurred_at=self.now))
        return self.decide()

    def lead(self) -> LeadIssued:
        """Let two examiners support the only candidate of a list; return the lead."""
        self.write(list_issued("B-1"))
        self.review("erin", ("B-1",))
        return only(LeadIssued, self.review("finn", ("B-1",)))

    def again(self) -> CaseBook:
        """Return the state as a clerk has it that starts now."""
        book = CaseBook(Directory(ROOT.public_key), self.policy)
        for place in PLACES:
            for record in self.kafka.everything[place]:
                book.apply(record)
        return book


def of_kind(kind: type[E], events: list[Event]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def only(kind: type[E], events: list[Event]) -> E:
    (event,) = of_kind(kind, events)
    return event


def policy(**tables: dict[str, Any]) -> Policy:
    return replace(POLICY, **{name: replace(getattr(POLICY, name), **changes) for name, changes in tables.items()})


# Answers, the end of a review, leads.


def test_each_thing_said_has_one_answer_that_names_it() -> None:
    desk = Desk()
    desk.write(list_issued(*ON_THE_LIST))
    record = desk.say(image_viewed("erin", SHUFFLED))
    (answer,) = desk.decide()
    assert isinstance(answer, ReviewAnswered)
    assert (answer.source, answer.accepted, answer.code) == (record.position, True, None)
    assert answer.event_id == derived_id(record.position, "answered")
    assert answer.access_watermark == (len(with_examiners().records),)
    assert desk.due() == []


def test_what_is_said_of_one_probe_is_judged_one_by_one_and_of_two_probes_at_once() -> None:
    """What is said next may be allowed only by what came of this."""
    desk, other = Desk(), uuid_named("another probe")
    desk.write(list_issued(*ON_THE_LIST))
    desk.write(list_issued(*ON_THE_LIST, probe_id=other))
    desk.say(image_viewed("erin", SHUFFLED))
    desk.say(candidate_reviewed("erin", "B-1"))
    desk.say(image_viewed("erin", SHUFFLED, probe_id=other))
    assert Counter(answer.probe_id for answer in of_kind(ReviewAnswered, desk.due())) == {PROBE: 1, other: 1}
    assert all(answer.accepted for answer in of_kind(ReviewAnswered, desk.decide()))
    assert len(desk.book.cases[PROBE].reviews["erin"].dispositions) == 1


def test_what_nobody_signed_or_another_signed_counts_for_nothing() -> None:
    desk = Desk()
    desk.write(list_issued(*ON_THE_LIST))
    desk.write(image_viewed("erin", SHUFFLED))
    desk.say(image_viewed("erin", SHUFFLED), FINN)
    desk.say(image_viewed("erin", SHUFFLED), CASE_TOOL)
    desk.say(image_viewed("erin", SHUFFLED), STRANGER)
    answers = of_kind(ReviewAnswered, desk.decide())
    assert [answer.code for answer in answers] == ["UNAUTHENTICATED", "NOT_ALLOWED", "NOT_ALLOWED", "UNAUTHENTICATED"]
    assert desk.book.cases[PROBE].reviews == {}
    # Nor does a stranger's use of her event's id keep Erin's own word from counting.
    desk.say(image_viewed("erin", SHUFFLED))
    assert only(ReviewAnswered, desk.decide()).accepted


def test_a_lead_comes_of_two_reviews_that_support_it_and_not_of_one() -> None:
    """G8."""
    desk = Desk()
    desk.write(list_issued("B-1", "B-2"))
    assert of_kind(ReviewCompleted, desk.review("erin", ("B-2", "B-1"))) == []
    written = desk.review("finn", ("B-1", "B-2"))
    completed = only(ReviewCompleted, written)
    assert completed.examiners == ("erin", "finn")
    assert [result.result for result in completed.results] == [ReviewResult.SUPPORTED] * 2
    leads = of_kind(LeadIssued, written)
    assert [(lead.booking_number, lead.user_id, lead.conclusions) for lead in leads] == [
        ("B-1", "alice", ("SUPPORT", "SUPPORT")),
        ("B-2", "alice", ("SUPPORT", "SUPPORT")),
    ]
    assert leads[0].lead_notice
    assert leads[0].corroboration_reminder == POLICY.reviews.corroboration_reminder


@pytest.mark.parametrize("second", [C.LIMITED_SUPPORT, C.INCONCLUSIVE, C.EXCLUSION])
def test_no_lead_comes_of_disagreement(second: C) -> None:
    """G8."""
    desk = Desk()
    desk.write(list_issued("B-1"))
    desk.review("erin", ("B-1",), C.STRONG_SUPPORT)
    written = desk.review("finn", ("B-1",), second)
    assert [result.result for result in only(ReviewCompleted, written).results] == [ReviewResult.DISAGREEMENT]
    assert of_kind(LeadIssued, written) == []


def test_a_third_examiner_comes_too_late_and_the_review_of_a_policy_of_one_ends_with_the_first() -> None:
    desk = Desk(policy(reviews={"examiners": 1}))
    desk.write(list_issued("B-1"))
    assert only(ReviewCompleted, desk.review("erin", ("B-1",))).examiners == ("erin",)
    assert {answer.code for answer in of_kind(ReviewAnswered, desk.review("finn", ("B-1",)))} == {
        "REVIEW_CLOSED",
        "REVIEW_NOT_OPENED",
    }


def test_whoever_concludes_after_enough_have_is_told_so_before_the_completed_review_is_written() -> None:
    """G8: no opinion counts as heard and is then left out of the result."""
    desk = Desk(policy(reviews={"examiners": 1}))
    desk.write(list_issued("B-1"))
    for user in ("erin", "finn"):
        desk.say(image_viewed(user, ("B-1",)))
        desk.say(candidate_reviewed(user, "B-1", C.SUPPORT if user == "erin" else C.EXCLUSION))
    for user in ("erin", "finn"):
        desk.say(review_concluded(user))
    written = desk.decide()
    assert [answer.code for answer in of_kind(ReviewAnswered, written)][-2:] == [None, "REVIEW_CLOSED"]
    assert only(ReviewCompleted, written).examiners == ("erin",)


def test_no_further_examiner_sees_an_order_that_an_earlier_one_saw_on_a_sheet_that_was_replaced() -> None:
    """G8: a second examiner is blind to the first."""
    desk = Desk()
    desk.write(list_issued(*ON_THE_LIST))
    desk.say(image_viewed("erin", SHUFFLED))
    desk.say(image_viewed("erin", AGAIN))
    desk.say(image_viewed("finn", SHUFFLED))
    codes = [answer.code for answer in of_kind(ReviewAnswered, desk.decide())]
    assert codes == [None, None, "ORDER_NOT_SHUFFLED"]


def test_a_list_with_one_capture_id_for_two_records_is_not_reviewed() -> None:
    """G8: a lead on the one could rest on a comparison of the other."""
    desk = Desk()
    listed = list_issued("B-1", "B-2")
    same = tuple(replace(row, capture_id=uuid_named("B-1")) for row in listed.candidates)
    desk.write(replace(listed, candidates=same))
    desk.say(image_viewed("erin", ("B-1", "B-1")))
    desk.say(image_viewed("erin", ("B-1",)))
    assert {answer.code for answer in of_kind(ReviewAnswered, desk.decide())} == {"CANDIDATES_DIFFER"}


@pytest.mark.parametrize("conclusion", [None, C.EXCLUSION, C.SUPPORT])
@pytest.mark.parametrize("examiners", [(), ("erin",), ("erin", "erin"), ("erin", "finn"), ("erin", "nobody")])
def test_a_forged_completed_review_makes_no_lead(examiners: tuple[str, ...], conclusion: C | None) -> None:
    """G8: whoever can write to the topic still needs examiners who compared; here one did at most."""
    desk = Desk()
    desk.write(list_issued("B-1"))
    if conclusion:
        desk.review("erin", ("B-1",), conclusion)
    desk.write(forged_completion(*examiners, conclusion=C.STRONG_SUPPORT))
    assert of_kind(LeadIssued, desk.decide()) == []


def forged_completion(*examiners: str, conclusion: C) -> ReviewCompleted:
    said = CandidateResult(
        capture_id=uuid_named("B-1"),
        rank=1,
        conclusions=(str(conclusion),) * len(examiners),
        result=ReviewResult.SUPPORTED,
    )
    return ReviewCompleted(**by_root(probe_id=PROBE), examiners=examiners, results=(said,), policy_version="2026.1")


@pytest.mark.parametrize(
    ("conclusion", "ends", "leads"), [(C.SUPPORT, ["erin"], 1), (C.EXCLUSION, ["erin"], 0), (C.SUPPORT, [], 0)]
)
def test_of_a_completed_review_only_what_its_examiners_said_is_believed(
    conclusion: C, ends: list[str], leads: int
) -> None:
    """G8."""
    desk = Desk(policy(reviews={"examiners": 1}))
    desk.write(list_issued("B-1"))
    desk.say(image_viewed("erin", ("B-1",)))
    desk.say(candidate_reviewed("erin", "B-1", conclusion))
    for user in ends:
        desk.say(review_concluded(user))
    while answers := of_kind(ReviewAnswered, desk.due()):
        desk.write(answers[0])
    desk.write(forged_completion("erin", conclusion=C.STRONG_SUPPORT))
    assert [lead.conclusions for lead in of_kind(LeadIssued, desk.decide())] == [("SUPPORT",)] * leads


@pytest.mark.parametrize("what", ["order", "reversal"])
def test_what_comes_between_the_end_of_the_reviews_and_the_lead_prevents_it(what: str) -> None:
    """G6, G8."""
    desk = Desk(policy(reviews={"examiners": 1}))
    desk.write(list_issued("B-1"))
    for said in (image_viewed("erin", ("B-1",)), candidate_reviewed("erin", "B-1"), review_concluded("erin")):
        desk.say(said)
        desk.write(only(ReviewAnswered, desk.due()))
    desk.write(only(ReviewCompleted, desk.due()))
    assert len(of_kind(LeadIssued, desk.due())) == 1
    if what == "order":
        desk.order(OrderKind.SEAL)
    else:
        desk.say(review_reversed("erin", "B-1"))
        desk.write(only(ReviewAnswered, desk.due()))
    assert of_kind(LeadIssued, desk.decide()) == []


def test_a_forged_answer_makes_no_comparison_of_what_was_never_opened() -> None:
    """G8; and whoever forges one does not stop the clerk."""
    desk = Desk()
    desk.write(list_issued("B-1"))
    desk.say(image_viewed("finn", ("B-1",)))
    desk.decide()
    others = review_id_of("erin")
    for said in (
        candidate_reviewed("erin", "B-1"),
        review_concluded("erin"),
        review_concluded("finn", review_id=others),
    ):
        record = desk.say(said)
        answered = by_root(probe_id=PROBE, user_id=said.user_id, source=record.position, source_event_id=said.event_id)
        desk.write(ReviewAnswered(**answered, accepted=True, policy_version="", access_watermark=()))
    assert [review.is_concluded for review in desk.book.cases[PROBE].reviews.values()] == [False]
    assert desk.due() == []


def test_a_word_that_is_sent_again_undoes_nothing_said_after_it() -> None:
    """G11: whoever can write to the topic can send a signed record again."""
    desk = Desk()
    desk.write(list_issued("B-1"))
    desk.say(image_viewed("erin", ("B-1",)))
    desk.say(candidate_reviewed("erin", "B-1", C.STRONG_SUPPORT))
    desk.say(candidate_reviewed("erin", "B-1", C.INCONCLUSIVE))
    desk.say(candidate_reviewed("erin", "B-1", C.STRONG_SUPPORT))
    assert all(answer.accepted for answer in of_kind(ReviewAnswered, desk.decide()))
    for book in (desk.book, desk.again()):
        assert book.cases[PROBE].reviews["erin"].dispositions[uuid_named("B-1")].conclusion is C.INCONCLUSIVE


def test_a_word_that_was_refused_has_the_same_answer_when_it_is_sent_again() -> None:
    """A conclusion said too early must not end the review later, when somebody else sends it again."""
    desk = Desk()
    desk.write(list_issued("B-1"))
    desk.say(image_viewed("erin", ("B-1",)))
    desk.say(review_concluded("erin"))
    desk.say(candidate_reviewed("erin", "B-1"))
    desk.say(review_concluded("erin"))
    codes = [answer.code for answer in of_kind(ReviewAnswered, desk.decide())]
    assert codes == [None, "DISPOSITION_MISSING", None, "DISPOSITION_MISSING"]
    desk.say(review_concluded("erin", occurred_at=desk.now))
    assert only(ReviewAnswered, desk.decide()).accepted


def test_a_revocation_that_stands_before_the_decision_is_honoured() -> None:
    """G3, G8."""
    desk = Desk()
    desk.write(list_issued("B-1"))
    desk.say(image_viewed("erin", ("B-1",)))
    desk.say(access_revoked("erin"), ROOT)
    assert only(ReviewAnswered, desk.decide()).code == "ACCESS_REVOKED"


def test_a_change_of_policy_is_looked_at_for_cases_where_nothing_else_happens() -> None:
    desk = Desk()
    desk.write(list_issued("B-1"))
    desk.review("erin", ("B-1",))
    assert desk.due() == []
    desk.book._policy = policy(reviews={"examiners": 1})
    assert only(LeadIssued, desk.decide()).examiners == ("erin",)


# What cannot be answered.


def test_bytes_that_no_schema_reads_and_records_in_a_wrong_partition_are_set_aside() -> None:
    """G12; a wrong partition would break the order in which one probe's words are read."""
    desk = Desk()
    desk.write(list_issued(*ON_THE_LIST))
    right = signed(image_viewed("erin", SHUFFLED), ERIN, partition=partition_of(REVIEW_EVENTS, str(PROBE).encode()))
    wrong = replace(right, partition=(right.partition + 1) % TOPICS[REVIEW_EVENTS].partitions)
    garbage = [replace(right, value=b"no record"), replace(right, value=None), wrong, replace(right, key=None)]
    for record in garbage:
        desk._append(record, None)
    desk.write(list_issued())
    codes = [each.code for each in desk.book.unanswerable.values()]
    assert codes == ["CONTRACT", "CONTRACT", "WRONG_PARTITION", "WRONG_PARTITION"]
    assert desk.due() == []


# Orders: leads fall, receivers are told.


@pytest.mark.parametrize(
    ("order", "cause"),
    [
        (OrderKind.SEAL, LeadWithdrawalCause.RECORD_SEALED),
        (OrderKind.EXPUNGE, LeadWithdrawalCause.RECORD_EXPUNGED),
    ],
)
def test_an_order_withdraws_the_lead_and_tells_everyone_who_received_the_record(
    order: OrderKind, cause: LeadWithdrawalCause
) -> None:
    """G6."""
    desk = Desk()
    lead = desk.lead()
    desk.order(order)
    written = desk.decide()
    withdrawn = only(LeadWithdrawn, written)
    assert (withdrawn.lead_id, withdrawn.cause, withdrawn.receivers) == (lead.lead_id, cause, ("alice",))
    notices = {notice.user_id: notice for notice in of_kind(SealedRecordNotice, written)}
    assert {user: notice.received_as for user, notice in notices.items()} == {
        "alice": ("LIST", "LEAD"),
        "erin": ("REVIEW",),
        "finn": ("REVIEW",),
    }
    assert {notice.order for notice in notices.values()} == {str(order)}
    told = only(LeadWithdrawnNotice, written)
    assert (told.user_id, told.lead_id, told.cause) == ("alice", lead.lead_id, str(cause))
    assert told.due_at - told.occurred_at == timedelta(hours=POLICY.notices.acknowledge_within_hours)


def test_two_orders_to_which_their_publisher_gave_one_event_id_are_both_told() -> None:
    """G6: what a booking system repeats by mistake keeps no receiver in the dark."""
    desk = Desk()
    desk.write(list_issued("B-1", "B-2"))
    for order, booking in ((OrderKind.SEAL, "B-1"), (OrderKind.EXPUNGE, "B-1"), (OrderKind.SEAL, "B-2")):
        record = desk.say(record_order(order, booking, event_id=uuid_named("careless")), JAIL)
        desk.write(order_answered(order, record.position, booking))
    told = [(notice.order, notice.booking_number) for notice in of_kind(SealedRecordNotice, desk.decide())]
    assert sorted(told) == [("EXPUNGE", "B-1"), ("SEAL", "B-1"), ("SEAL", "B-2")]


@pytest.mark.parametrize("by", ["erin", "sue"])
def test_a_reversal_withdraws_the_lead_and_tells_its_receiver(by: str) -> None:
    desk = Desk()
    lead = desk.lead()
    desk.say(review_reversed(by, "B-1"))
    written = desk.decide()
    assert only(LeadWithdrawn, written).cause is LeadWithdrawalCause.REVIEW_REVERSED
    assert only(LeadWithdrawnNotice, written).lead_id == lead.lead_id
    assert of_kind(SealedRecordNotice, written) == []


def test_a_conclusion_that_was_reversed_before_the_second_review_makes_no_lead() -> None:
    """G8."""
    desk = Desk()
    desk.write(list_issued("B-1"))
    desk.review("erin", ("B-1",))
    desk.say(review_reversed("erin", "B-1"))
    written = desk.review("finn", ("B-1",))
    assert [result.result for result in only(ReviewCompleted, written).results] == [ReviewResult.WITHDRAWN]
    assert of_kind(LeadIssued, written) == []


def test_a_list_that_was_on_its_way_when_its_record_was_sealed_is_found_as_well() -> None:
    """G6."""
    desk = Desk()
    desk.order(OrderKind.SEAL)
    assert desk.decide() == []
    desk.write(list_issued("B-1", "B-2"))
    notice = only(SealedRecordNotice, desk.decide())
    assert (notice.user_id, notice.booking_number, notice.rank) == ("alice", "B-1", 1)


def test_an_order_counts_from_when_a_worker_obeyed_it() -> None:
    desk = Desk()
    desk.write(list_issued("B-1"))
    order = desk.say(record_order(OrderKind.SEAL), JAIL)
    assert desk.decide() == []
    desk.write(order_answered(OrderKind.SEAL, order.position))
    assert len(of_kind(SealedRecordNotice, desk.decide())) == 1


def test_answers_that_a_worker_repeats_after_a_restart_neither_lift_nor_renew_an_order() -> None:
    """G5."""
    desk = Desk()
    desk.write(list_issued("B-1"))
    (candidate,) = desk.book.cases[PROBE].candidates
    orders = [OrderKind.SEAL, OrderKind.UNSEAL, OrderKind.SEAL]
    records = [desk.say(record_order(order, order_number=str(number)), JAIL) for number, order in enumerate(orders)]
    seal, unseal, second = (
        order_answered(order, record.position) for order, record in zip(orders, records, strict=True)
    )
    for answer in (seal, unseal, seal):
        desk.write(answer)
    assert not desk.book.is_barred(candidate)
    for answer in (second, unseal):
        desk.write(answer)
    assert desk.book.is_barred(candidate)


def test_only_the_first_outcome_of_a_probe_has_receivers() -> None:
    """G1, G6."""
    desk = Desk()
    desk.write(list_issued("B-1"))
    desk.write(list_issued("B-1", "B-2", event_id=uuid_named("a second outcome")))
    desk.order(OrderKind.SEAL, "B-2")
    assert desk.decide() == []


def test_an_order_that_was_lifted_concerns_whoever_received_the_record_before() -> None:
    """G6."""
    desk, later = Desk(), uuid_named("a later probe")
    desk.write(list_issued("B-1"))
    desk.order(OrderKind.SEAL)
    desk.order(OrderKind.UNSEAL)
    desk.write(list_issued("B-1", probe_id=later))
    desk.say(image_viewed("erin", ("B-1",), expires_at=desk.now + timedelta(hours=1)))
    notice = only(SealedRecordNotice, desk.decide())
    assert (notice.user_id, notice.probe_id) == ("alice", PROBE)
    desk.order(OrderKind.SEAL)
    again = of_kind(SealedRecordNotice, desk.decide())
    assert {(notice.user_id, notice.probe_id) for notice in again} == {
        ("alice", PROBE),
        ("erin", PROBE),
        ("alice", later),
    }


def test_a_lead_made_after_an_order_was_lifted_stands_and_one_made_before_does_not() -> None:
    desk = Desk()
    desk.order(OrderKind.SEAL)
    desk.order(OrderKind.UNSEAL)
    desk.lead()
    assert of_kind(LeadWithdrawn, desk.decide()) == []
    desk.order(OrderKind.SEAL)
    desk.order(OrderKind.UNSEAL)
    assert len(of_kind(LeadWithdrawn, desk.decide())) == 1


def test_an_examiner_received_what_a_former_sheet_showed_whatever_a_later_one_shows() -> None:
    """G6: also where the clerk was killed between the answer to the later sheet and the notice."""
    desk = Desk()
    desk.write(list_issued("B-1", "B-2"))
    desk.say(image_viewed("erin", ("B-1", "B-2")))
    desk.decide()
    desk.order(OrderKind.SEAL)
    desk.say(image_viewed("erin", ("B-2",)))
    desk.write(only(ReviewAnswered, desk.due()))
    assert {notice.user_id for notice in of_kind(SealedRecordNotice, desk.again().due(desk.now))} == {"alice", "erin"}


def test_a_record_sealed_during_the_reviews_is_compared_no_further_and_makes_no_lead() -> None:
    """G6, G8."""
    desk = Desk()
    desk.write(list_issued("B-1", "B-2"))
    desk.review("erin", ("B-2", "B-1"))
    desk.order(OrderKind.SEAL)
    desk.decide()
    written = desk.review("finn", ("B-2",))
    assert [result.result for result in only(ReviewCompleted, written).results] == [
        ReviewResult.WITHDRAWN,
        ReviewResult.SUPPORTED,
    ]
    assert only(LeadIssued, written).booking_number == "B-2"


# Acknowledgements and reminders.


def noticed() -> tuple[Desk, SealedRecordNotice]:
    desk = Desk()
    desk.write(list_issued("B-1"))
    desk.order(OrderKind.SEAL)
    return desk, only(SealedRecordNotice, desk.decide())


@pytest.mark.parametrize(
    ("user", "changes", "key", "code"),
    [
        ("alice", {}, None, None),
        ("alice", {"statement": " "}, None, RefusalCode.STATEMENT_MISSING),
        ("alice", {"notice_id": PROBE}, None, RefusalCode.NOTICE_UNKNOWN),
        ("erin", {}, None, RefusalCode.NOTICE_UNKNOWN),
        ("alice", {}, ERIN, RefusalCode.NOT_ALLOWED),
        ("alice", {}, STRANGER, RefusalCode.UNAUTHENTICATED),
    ],
)
def test_a_notice_is_acknowledged_by_who_received_it_and_says_what_was_done(
    user: str, changes: dict[str, Any], key: SigningKey | None, code: RefusalCode | None
) -> None:
    """G6."""
    desk, notice = noticed()
    desk.say(notice_acknowledged(user, **{"notice_id": notice.event_id, **changes}), key)
    answer = only(NoticeAnswered, desk.decide())
    assert (answer.accepted, answer.code) == (code is None, code)
    reminders = of_kind(NoticeReminder, desk.due(notice.due_at))
    assert [reminder.notice_id for reminder in reminders] == ([notice.event_id] if code else [])


def test_an_acknowledgement_that_was_refused_is_refused_when_it_is_sent_again() -> None:
    """G11: nor do other words under the event id of one that was refused count later."""
    desk, notice = noticed()
    said = notice_acknowledged("alice", notice.event_id, statement=" ")
    for _ in range(2):
        desk.say(said)
        desk.say(replace(said, statement="Destroyed."))
        codes = [answer.code for answer in of_kind(NoticeAnswered, desk.decide())]
        assert codes == ["STATEMENT_MISSING", "STATEMENT_MISSING"]
    desk.say(notice_acknowledged("alice", notice.event_id))
    assert only(NoticeAnswered, desk.decide()).accepted


def test_who_lost_access_can_still_acknowledge() -> None:
    desk, notice = noticed()
    desk.say(access_revoked("alice"), ROOT)
    desk.say(notice_acknowledged("alice", notice.event_id))
    assert only(NoticeAnswered, desk.decide()).accepted


def test_reminders_come_by_the_clock_and_end() -> None:
    desk, notice = noticed()
    rules = POLICY.notices
    assert desk.due(notice.due_at - MICROSECOND) == []
    at = notice.due_at
    for number in range(1, rules.maximum_reminders + 1):
        (reminder,) = desk.due(at)
        assert isinstance(reminder, NoticeReminder)
        assert (reminder.number, reminder.user_id, reminder.due_at) == (number, "alice", notice.due_at)
        desk.write(reminder)
        assert desk.due(at) == []
        at += timedelta(hours=rules.remind_every_hours)
        assert desk.due(at - MICROSECOND) == []
    assert desk.due(at + timedelta(days=1000)) == []


# Retention.


def kept(desk: Desk, days: float) -> list[tuple[str, str]]:
    """What is kept so long after now, and by what; what is due then is not in it."""
    due = {event.items[0] for event in desk.book.due_by_retention(desk.now + timedelta(days=days))}
    return [(each.item, each.kept_by) for each in desk.book.retained(POLICY) if each.item not in due]


def test_a_probe_image_is_kept_for_as_long_as_the_policy_says() -> None:
    desk = Desk()
    desk.write(list_issued("B-1"))
    at = desk.now + timedelta(days=POLICY.retention.probe_image_days)
    assert list(desk.book.due_by_retention(at - MICROSECOND)) == []
    (event,) = desk.book.due_by_retention(at)
    assert (event.items, event.due_at, event.rule) == ((PROBE_IMAGE,), at, "retention.probe_image")
    assert (event.occurred_at, event.requested_by) == (at, None)
    desk.write(event)
    assert list(desk.book.due_by_retention(at + timedelta(days=1))) == []
    assert list(desk.again().due_by_retention(at + timedelta(days=1))) == []


def test_sheets_are_kept_from_the_last_opening_on_and_an_open_review_or_a_lead_keeps_all() -> None:
    desk = Desk()
    desk.write(list_issued("B-1"))
    assert kept(desk, 364) == [(PROBE_IMAGE, "")]
    desk.say(image_viewed("erin", ("B-1",)))
    desk.decide()
    opened_at = desk.now
    desk.kafka.seconds += 20 * 86400
    desk.say(image_viewed("erin", ("B-1",), occurred_at=desk.now, expires_at=desk.now + timedelta(hours=8)))
    desk.decide()
    (sheets,) = (each for each in desk.book.retained(POLICY) if each.item == REVIEW_SHEETS)
    assert sheets.due_at > opened_at + timedelta(days=50)
    desk.review("erin", ("B-1",))
    assert kept(desk, 1000) == [(PROBE_IMAGE, OPEN_REVIEW), (REVIEW_SHEETS, OPEN_REVIEW)]
    desk.review("finn", ("B-1",))
    assert kept(desk, 1000) == [(PROBE_IMAGE, LEAD), (REVIEW_SHEETS, LEAD)]
    desk.say(review_reversed("sue", "B-1"))
    desk.decide()
    assert kept(desk, 29) == [(PROBE_IMAGE, ""), (REVIEW_SHEETS, "")]
    assert kept(desk, 31) == [(PROBE_IMAGE, "")]
    assert kept(desk, 366) == []


def test_a_command_deletes_what_was_due_by_the_instant_it_names_and_says_who_asked_and_when_it_was_done() -> None:
    desk = Desk()
    desk.write(list_issued("B-1"))
    due_at = desk.now + timedelta(days=POLICY.retention.probe_image_days)
    now = due_at + timedelta(days=7)
    before = RetentionRequest(event_id=PROBE, user_id="administrator", due_by=due_at - MICROSECOND)
    assert list(desk.book.due_by_retention(now, before)) == []
    (event,) = desk.book.due_by_retention(now, replace(before, due_by=due_at))
    assert (event.requested_by, event.occurred_at, event.due_at) == ("administrator", now, due_at)
    # Nobody can ask for what is not due yet.
    assert list(desk.book.due_by_retention(due_at - MICROSECOND, replace(before, due_by=now))) == []


# The same state, whatever the order of topics.


def eventful() -> Desk:
    """A course of everything: reviews by two, a lead, orders on two records, notices, an acknowledgement, refusals."""
    desk = Desk()
    desk.write(list_issued(*ON_THE_LIST))
    record = desk.say(image_viewed("otto", SHUFFLED, ori=OTHER_ORI), STRANGER)
    refused = only(ReviewAnswered, desk.decide())
    desk.write(replace(refused, accepted=True, code=None, message=None, source=record.position))
    desk.review("erin", SHUFFLED)
    desk.order(OrderKind.SEAL, "B-3")
    desk.review("finn", ("B-2", "B-1"))
    desk.order(OrderKind.UNSEAL, "B-3")
    desk.order(OrderKind.EXPUNGE, "B-1")
    written = desk.decide()
    notice = next(each for each in of_kind(SealedRecordNotice, written) if each.user_id == "alice")
    desk.say(notice_acknowledged("alice", notice.event_id))
    desk.say(review_reversed("sue", "B-2"))
    desk.decide()
    # What has no answer yet.
    desk.say(image_viewed("finn", ("B-3", "B-2"), occurred_at=desk.now))
    desk.order(OrderKind.SEAL, "B-2")
    return desk


COURSE = eventful()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_topics_read_in_any_order_give_the_same_state_and_the_same_dues(data: st.DataObject) -> None:
    """Kafka keeps order within a partition only."""
    expected, book = COURSE.again(), CaseBook(Directory(ROOT.public_key), POLICY)
    left = {place: list(records) for place, records in COURSE.kafka.everything.items() if records}
    while left:
        place = data.draw(st.sampled_from(sorted(left)))
        for _ in range(data.draw(st.integers(1, len(left[place])))):
            book.apply(left[place].pop(0))
        if not left[place]:
            del left[place]
    assert book.cases == expected.cases
    assert book.notices == expected.notices
    later = COURSE.now + timedelta(days=400)
    by_id = [sorted(each.due(later), key=lambda event: event.event_id) for each in (book, expected)]
    assert by_id[0] == by_id[1]
    assert len(by_id[0]) > 2
    assert list(book.due_by_retention(later)) == list(expected.due_by_retention(later))
