"""The demonstration judges what came back: each thing that may be wrong makes it say so."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from infra.demo import BOOKED, SYNTHETIC, DemoResult, ProbeResult, Searches
from infra.demo_accountability import Reviewed, SecondAct
from processors.notice_states import ReceivedNotice
from processors.review_course import Lead
from schemas.events import (
    Candidate,
    CandidateListIssued,
    LeadIssued,
    NoticeAnswered,
    ReviewResult,
    SealedRecordNotice,
)
from schemas.positions import SourcePosition

SOME_ID = UUID(int=1)


def candidate(person: str, score: float) -> Candidate:
    return Candidate(rank=1, person=person, ori="CADEMO001", booking_number="DEMO-A", capture_id=SOME_ID, score=score)


def probe(mate: str | None, rank: int | None, score: float) -> ProbeResult:
    outcome = CandidateListIssued(
        event_id=SOME_ID,
        occurred_at=datetime(2026, 11, 23, tzinfo=UTC),
        actor="system:worker",
        probe_id=SOME_ID,
        user_id="e.example",
        ori="CADEMO001",
        reason_code="FELONY_INVESTIGATION",
        case_number="1",
        request=SourcePosition(topic="probe.requests.v1", partition=0, offset=0),
        requested=20,
        returned=1,
        candidates=(candidate(mate or "booking:CADEMO001/SYNTHETIC-00001", score),),
        threshold=0.55,
        model_digest="d",
        policy_version="1",
        gallery_watermark=(0,),
        access_watermark=(0,),
        gallery_templates=SYNTHETIC + len(BOOKED),
        gallery_persons=SYNTHETIC + len(BOOKED),
        measurements={},
        lead_notice="lead",
    )
    return ProbeResult(
        probe_id=SOME_ID, subject="A", mate=mate, rank_of_mate=rank, outcome=outcome, latency_ms=1.0, photo=b""
    )


OTHER_ID = UUID(int=2)
LEAD = LeadIssued(
    event_id=SOME_ID,
    occurred_at=datetime(2026, 11, 23, tzinfo=UTC),
    actor="system:clerk",
    lead_id=SOME_ID,
    probe_id=SOME_ID,
    user_id="e.example",
    ori="CADEMO001",
    case_number="1",
    capture_id=SOME_ID,
    person="sid:DEMO-B",
    booking_ori="CADEMO001",
    booking_number="DEMO-B",
    examiners=("e.example", "s.second"),
    conclusions=("SUPPORT", "SUPPORT"),
    lead_notice="lead",
    corroboration_reminder="other evidence",
    policy_version="1",
)
NOTICE = SealedRecordNotice(
    event_id=SOME_ID,
    occurred_at=datetime(2026, 11, 23, tzinfo=UTC),
    actor="system:clerk",
    user_id="e.example",
    ori="CADEMO001",
    probe_id=SOME_ID,
    case_number="1",
    rank=1,
    capture_id=SOME_ID,
    booking_ori="CADEMO001",
    booking_number="DEMO-A",
    source=SourcePosition(topic="booking.events.v1", partition=0, offset=0),
    order_event_id=SOME_ID,
    order="SEAL",
    statute="CA PC 851.91",
    received_as=("LIST",),
    message="destroy",
    due_at=datetime(2026, 11, 24, tzinfo=UTC),
)
ANSWER = NoticeAnswered(
    event_id=SOME_ID,
    occurred_at=datetime(2026, 11, 23, tzinfo=UTC),
    actor="system:clerk",
    user_id="e.example",
    notice_id=SOME_ID,
    source=SourcePosition(topic="notice.acknowledgements.v1", partition=0, offset=0),
    source_event_id=SOME_ID,
    accepted=True,
)
ACT = SecondAct(
    reviewed=Reviewed(
        probe_id=SOME_ID,
        examiners=("e.example", "s.second"),
        results=((1, ReviewResult.SUPPORTED), (2, ReviewResult.NOT_SUPPORTED)),
        mate_rank=1,
        sheets=(b"one", b"other"),
        orders=((SOME_ID, OTHER_ID), (OTHER_ID, SOME_ID)),
    ),
    leads=(Lead(issued=LEAD),),
    mate="sid:DEMO-B",
    notices=(ReceivedNotice(notice=NOTICE, acknowledged=ANSWER),),
    notices_due=frozenset({("e.example", SOME_ID)}),
    acknowledged=SOME_ID,
    sealed="sid:DEMO-A",
    list_after=probe(None, None, 0.3).outcome,
)

GOOD = DemoResult(
    published=6,
    enrolled=5,
    refused=1,
    gallery_size=SYNTHETIC + len(BOOKED),
    probes=(probe("sid:DEMO-A", 1, 0.7), probe("sid:DEMO-B", 1, 0.7), probe(None, None, 0.3)),
    refusals=((SOME_ID, "CASE_NUMBER_MISSING", "CASE_NUMBER_MISSING"),),
    kafka_records=10,
    audit_rows=10,
    audit_equals_kafka=True,
    searches=(Searches(user="e", reason="R", count=2, issued=1, refused=1, unproven=0, reason_texts=("because",)),),
    searches_sent=Counter({("e", "R"): 2}),
    second_act=ACT,
)


def test_a_run_that_came_back_right_is_ok() -> None:
    assert GOOD.faults == []
    assert GOOD.document()["ok"] is True


@pytest.mark.parametrize(
    "wrong",
    [
        {"published": 7},
        {"enrolled": 4},
        {"refused": 0, "published": 5},
        {"gallery_size": SYNTHETIC},
        {"probes": (probe("sid:DEMO-A", 2, 0.7), *GOOD.probes[1:])},
        {"probes": (probe("sid:DEMO-A", None, 0.7), *GOOD.probes[1:])},
        {"probes": (*GOOD.probes[:2], probe(None, None, 0.55))},
        {"probes": GOOD.probes[:2]},
        {"refusals": ((SOME_ID, "ISSUED", "CASE_NUMBER_MISSING"),)},
        {"audit_equals_kafka": False},
        {"searches": ()},
        {"searches_sent": Counter({("e", "R"): 3})},
    ],
)
def test_anything_that_came_back_wrong_makes_it_fail(wrong: dict[str, Any]) -> None:
    result = replace(GOOD, **wrong)
    assert result.faults
    assert result.document()["ok"] is False


@pytest.mark.parametrize(
    "wrong",
    [
        {"reviewed": replace(ACT.reviewed, examiners=("e.example",))},
        {"reviewed": replace(ACT.reviewed, examiners=("e.example", "e.example"))},
        {"reviewed": replace(ACT.reviewed, orders=((SOME_ID, OTHER_ID), (SOME_ID, OTHER_ID)))},
        {"reviewed": replace(ACT.reviewed, results=((1, ReviewResult.DISAGREEMENT),))},
        {"reviewed": replace(ACT.reviewed, results=((1, ReviewResult.SUPPORTED), (2, ReviewResult.SUPPORTED)))},
        {"leads": ()},
        {"leads": (*ACT.leads, *ACT.leads)},
        {"leads": (Lead(issued=replace(LEAD, person="sid:DEMO-C")),)},
        {"notices": ()},
        {"notices": (*ACT.notices, *ACT.notices)},
        {"notices_due": frozenset({("e.example", SOME_ID), ("s.second", SOME_ID)})},
        {"notices": (ReceivedNotice(notice=NOTICE),)},
        {"list_after": probe("sid:DEMO-A", 1, 0.7).outcome},
    ],
)
def test_anything_wrong_with_reviews_leads_and_notices_makes_it_fail(wrong: dict[str, Any]) -> None:
    """G5, G6, G8."""
    result = replace(GOOD, second_act=replace(ACT, **wrong))
    assert result.faults
    assert result.document()["ok"] is False
