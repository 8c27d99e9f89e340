"""What of the reviews of a probe counts, and how much of it may be seen by who may still have to compare (G8, G11)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from builders import NOW, ORI, uuid_named

from processors.review_course import Lead, ReviewCourse, course_of, leads_of, may_see_results
from schemas.events import (
    CandidateReviewed,
    ImageViewed,
    LeadIssued,
    LeadWithdrawalCause,
    LeadWithdrawn,
    ReviewAnswered,
    ReviewCompleted,
    ReviewConcluded,
    ReviewConclusion,
)
from schemas.positions import SourcePosition
from schemas.topics import REVIEW_EVENTS

if TYPE_CHECKING:
    from processors.review_course import ReviewEvent, ReviewOutcome

PROBE, CAPTURE = uuid_named("probe"), uuid_named("capture")
EXAMINERS = {"EXAMINER"}


def facts(user: str, name: str) -> dict[str, Any]:
    return {
        "event_id": uuid_named(f"{user} {name}"),
        "occurred_at": NOW,
        "actor": f"user:{user}",
        "probe_id": PROBE,
        "user_id": user,
        "review_id": uuid_named(f"review of {user}"),
    }


def opened(user: str) -> ImageViewed:
    return ImageViewed(
        **facts(user, "opened"), ori=ORI, shown=(CAPTURE,), shows_scores=False, sheet_sha256="0" * 64, expires_at=NOW
    )


def decided(user: str, conclusion: ReviewConclusion, name: str = "decided") -> CandidateReviewed:
    return CandidateReviewed(
        **facts(user, name), capture_id=CAPTURE, features=(), limitations="none", conclusion=conclusion, note=""
    )


def concluded(user: str) -> ReviewConcluded:
    return ReviewConcluded(**facts(user, "concluded"), summary="")


def at(offset: int) -> SourcePosition:
    return SourcePosition(topic=REVIEW_EVENTS, partition=0, offset=offset)


def answer(event: ReviewEvent, offset: int, *, accepted: bool = True) -> ReviewAnswered:
    return ReviewAnswered(
        event_id=uuid_named(f"answer {offset}"),
        occurred_at=NOW,
        actor="system:clerk",
        probe_id=PROBE,
        user_id=event.user_id,
        source=at(offset),
        source_event_id=event.event_id,
        accepted=accepted,
        code=None if accepted else "NOT_ALLOWED",
        policy_version="1",
        access_watermark=(1,),
    )


def course(*events: ReviewEvent, outcomes: tuple[ReviewOutcome, ...] = ()) -> ReviewCourse:
    """Return the course of a probe where the clerk accepted everything."""
    answers = tuple(answer(event, offset) for offset, event in enumerate(events))
    return course_of(PROBE, [(at(offset), event) for offset, event in enumerate(events)], (*answers, *outcomes))


COMPLETED = ReviewCompleted(
    event_id=uuid_named("completed"),
    occurred_at=NOW,
    actor="system:clerk",
    probe_id=PROBE,
    examiners=("alice", "bob"),
    results=(),
    policy_version="1",
)
LEAD = LeadIssued(
    event_id=uuid_named("lead"),
    occurred_at=NOW,
    actor="system:clerk",
    lead_id=uuid_named("lead id"),
    probe_id=PROBE,
    user_id="carol",
    ori=ORI,
    case_number="1",
    capture_id=CAPTURE,
    person="sid:A1",
    booking_ori=ORI,
    booking_number="B-1",
    examiners=("alice", "bob"),
    conclusions=("SUPPORT", "SUPPORT"),
    lead_notice="A lead.",
    corroboration_reminder="Corroborate.",
    policy_version="1",
)
WITHDRAWN = LeadWithdrawn(
    event_id=uuid_named("withdrawn"),
    occurred_at=NOW,
    actor="system:clerk",
    lead_id=LEAD.lead_id,
    probe_id=PROBE,
    capture_id=CAPTURE,
    cause=LeadWithdrawalCause.RECORD_SEALED,
    cause_event_id=uuid_named("order"),
    receivers=("carol",),
)


def test_the_last_accepted_word_on_a_candidate_counts_and_what_was_refused_or_not_answered_does_not() -> None:
    first, last = decided("alice", ReviewConclusion.SUPPORT), decided("alice", ReviewConclusion.EXCLUSION, "again")
    refused, waiting = decided("alice", ReviewConclusion.STRONG_SUPPORT, "late"), concluded("alice")
    found = course_of(
        PROBE,
        [(at(0), opened("alice")), (at(1), first), (at(2), last), (at(3), refused), (at(4), waiting)],
        [answer(opened("alice"), 0), answer(first, 1), answer(last, 2), answer(refused, 3, accepted=False)],
    )
    assert found.dispositions("alice")[CAPTURE].conclusion is ReviewConclusion.EXCLUSION
    assert found.concluded == ()
    assert found.examiners == ("alice",)
    last_answer = found.last_answer_to("alice")
    assert last_answer is not None
    assert last_answer.code == "NOT_ALLOWED"


def test_an_event_sent_twice_counts_once_and_the_first_answer_to_it_is_its_answer() -> None:
    """G11."""
    said = opened("alice")
    found = course_of(
        PROBE,
        [(at(0), said), (at(1), said)],
        [answer(said, 0), answer(said, 0, accepted=False), answer(said, 1, accepted=False)],
    )
    assert [each.is_accepted for each in found.said] == [True]


def test_a_forgery_under_the_id_of_an_accepted_event_is_not_accepted_by_it() -> None:
    """Whoever can write to Kafka can copy an id; the answer names the place."""
    true, forged = opened("alice"), replace(opened("alice"), actor="user:mallory", user_id="mallory")
    found = course_of(PROBE, [(at(0), true), (at(1), forged)], [answer(true, 0)])
    assert found.examiners == ("alice",)


def test_a_lead_stands_until_it_is_withdrawn_and_both_count_once() -> None:
    assert [each.withdrawn for each in leads_of([LEAD, LEAD])] == [None]
    assert [each.withdrawn for each in leads_of([LEAD, WITHDRAWN, LEAD, WITHDRAWN])] == [WITHDRAWN]


@pytest.mark.parametrize(
    ("viewer", "roles", "sees"),
    [
        ("bob", {"EXAMINER"}, False),
        ("carol", {"SUBMITTER"}, False),
        (None, set[str](), False),
        ("sam", {"SUPERVISOR", "EXAMINER"}, False),
        ("alice", {"EXAMINER"}, True),
        ("sam", {"SUPERVISOR"}, True),
        ("ada", {"AUDITOR"}, True),
    ],
)
def test_until_all_have_concluded_results_are_seen_by_those_alone_who_have_or_who_never_compare(
    viewer: str | None,
    roles: set[str],
    sees: bool,  # noqa: FBT001 - a row of a table
) -> None:
    one_of_two = course(opened("alice"), decided("alice", ReviewConclusion.SUPPORT), concluded("alice"), opened("bob"))
    assert may_see_results(one_of_two, viewer, roles, EXAMINERS) is sees
    assert may_see_results(replace(one_of_two, completed=COMPLETED), viewer, roles, EXAMINERS)


def test_a_lead_that_a_court_order_withdrew_is_masked_and_one_that_an_examiner_took_back_is_not() -> None:
    """G5."""
    masked = {
        cause for cause in LeadWithdrawalCause if Lead(issued=LEAD, withdrawn=replace(WITHDRAWN, cause=cause)).is_masked
    }
    assert masked == {LeadWithdrawalCause.RECORD_SEALED, LeadWithdrawalCause.RECORD_EXPUNGED}
    assert not Lead(issued=LEAD).is_masked
