"""The clients of reviews and notices on a broker; the tests play the clerk and answer, twice where it may.

The broker is shared, so every test has an examiner and a consumer group of its own.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from confluent_kafka import Producer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connectors.kafka_log import KafkaLog
from connectors.notices import NoticeClient, NoticeConsumer
from connectors.outcomes import ends_of
from connectors.publishing import SignedPublisher
from connectors.reviews import LeadConsumer, ReviewClient, ReviewOutcomeConsumer, read_course, read_leads
from connectors.signing_keys import SigningKey
from connectors.topic_admin import TopicAdmin
from schemas.codec import decode_for, encode, topic_of
from schemas.errors import TransientError
from schemas.events import (
    CandidateReviewed,
    FeatureComparison,
    FeatureFinding,
    ImageViewed,
    LeadIssued,
    LeadWithdrawalCause,
    LeadWithdrawn,
    LeadWithdrawnNotice,
    NoticeAcknowledged,
    NoticeAnswered,
    NoticeReminder,
    ReviewAnswered,
    ReviewConclusion,
)
from schemas.keys import key_of
from schemas.topics import NOTICE_ACKNOWLEDGEMENTS, NOTICES, REVIEW_EVENTS, REVIEW_OUTCOMES, TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.notices import PublishedAcknowledgement
    from connectors.outcomes import OutcomeConsumer
    from connectors.reviews import PublishedReview
    from schemas.events import Event

pytestmark = pytest.mark.any_broker

AT = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
DEADLINE_S = 60.0
JUNK = b"\xc3\x01 these bytes are no answer"


class ClerksPart:
    """Writes like the clerk: unsigned, in the partition of the key, as often as it is told to."""

    def __init__(self, config: dict[str, str | int | bool]) -> None:
        self._producer = Producer({**config, "partitioner": "murmur2_random", "linger.ms": 0})

    def say(self, *events: Event) -> None:
        for event in events:
            self._producer.produce(topic_of(event), key=key_of(event), value=encode(event))
        assert self._producer.flush(DEADLINE_S) == 0

    def garble(self, topic: str, key: bytes) -> None:
        self._producer.produce(topic, key=key, value=JUNK)
        assert self._producer.flush(DEADLINE_S) == 0


@pytest.fixture(scope="module")
def config(bootstrap: str) -> dict[str, str | int | bool]:
    TopicAdmin(bootstrap).apply(TOPICS.values())
    return {"bootstrap.servers": bootstrap, "log_level": 0}


@pytest.fixture(scope="module")
def clerk(config: dict[str, str | int | bool]) -> ClerksPart:
    return ClerksPart(config)


@pytest.fixture(scope="module")
def kafka(config: dict[str, str | int | bool]) -> KafkaLog:
    return KafkaLog(config)


@pytest.fixture(scope="module")
def publisher(config: dict[str, str | int | bool]) -> Iterator[SignedPublisher]:
    with SignedPublisher(config, SigningKey(Ed25519PrivateKey.generate())) as publisher:
        yield publisher


@pytest.fixture
def user() -> str:
    return f"user-{uuid4()}"


@pytest.fixture
def ori() -> str:
    return uuid4().hex[:9].upper()


@pytest.fixture
def reviews(publisher: SignedPublisher, user: str, ori: str) -> ReviewClient:
    return ReviewClient(publisher, user, ori, clock=lambda: AT)


def opened(reviews: ReviewClient, probe_id: UUID, sheet: str = "0") -> PublishedReview:
    return reviews.open(probe_id, shown=[uuid4()], shows_scores=False, sheet_sha256=sheet * 64, expires_at=AT)


def answer(said: PublishedReview, user: str, code: str | None = None) -> ReviewAnswered:
    return ReviewAnswered(
        event_id=uuid4(),
        occurred_at=AT,
        actor="system:clerk",
        probe_id=said.probe_id,
        user_id=user,
        source=said.position,
        source_event_id=said.event_id,
        accepted=code is None,
        code=code,
        policy_version="1",
        access_watermark=(),
    )


def lead(ori: str) -> LeadIssued:
    return LeadIssued(
        event_id=uuid4(),
        occurred_at=AT,
        actor="system:clerk",
        lead_id=uuid4(),
        probe_id=uuid4(),
        user_id="carol",
        ori=ori,
        case_number="1",
        capture_id=uuid4(),
        person="sid:A1",
        booking_ori=ori,
        booking_number="B-1",
        examiners=("alice", "bob"),
        conclusions=("SUPPORT", "SUPPORT"),
        lead_notice="A lead.",
        corroboration_reminder="Corroborate.",
        policy_version="1",
    )


def withdrawn(of: LeadIssued) -> LeadWithdrawn:
    return LeadWithdrawn(
        event_id=uuid4(),
        occurred_at=AT,
        actor="system:clerk",
        lead_id=of.lead_id,
        probe_id=of.probe_id,
        capture_id=of.capture_id,
        cause=LeadWithdrawalCause.REVIEW_REVERSED,
        cause_event_id=uuid4(),
        receivers=("carol",),
    )


def notice(user: str) -> LeadWithdrawnNotice:
    return LeadWithdrawnNotice(
        event_id=uuid4(),
        occurred_at=AT,
        actor="system:clerk",
        user_id=user,
        ori="CA0190000",
        lead_id=uuid4(),
        probe_id=uuid4(),
        case_number="1",
        cause="REVIEW_REVERSED",
        message="Destroy it.",
        due_at=AT,
    )


def answered(said: PublishedAcknowledgement, of: LeadWithdrawnNotice, code: str | None = None) -> NoticeAnswered:
    return NoticeAnswered(
        event_id=uuid4(),
        occurred_at=AT,
        actor="system:clerk",
        user_id=of.user_id,
        notice_id=of.event_id,
        source=said.position,
        source_event_id=said.event_id,
        accepted=code is None,
        code=code,
    )


def take(consumer: OutcomeConsumer[Any], count: int, *, of: set[UUID]) -> list[Any]:
    """Handle outcomes until so many of these events came and no more do."""
    taken: list[Any] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(taken) < count and time.monotonic() < deadline:
        came = (delivery.outcome for delivery in consumer.deliveries(idle_s=0.3))
        taken += [outcome for outcome in came if outcome.event_id in of]
    return taken


# Reviews


def test_what_is_said_twice_is_one_event_and_what_is_said_after_an_answer_is_another(
    reviews: ReviewClient, kafka: KafkaLog, user: str, ori: str
) -> None:
    """G11."""
    probe_id, capture_id = uuid4(), uuid4()
    said: dict[str, Any] = {
        "features": [FeatureComparison(feature="EYES", finding=FeatureFinding.SIMILAR, note="")],
        "limitations": "none",
        "conclusion": ReviewConclusion.SUPPORT,
    }
    first, again = reviews.decide(probe_id, capture_id, **said), reviews.decide(probe_id, capture_id, **said)
    other = reviews.decide(probe_id, capture_id, **{**said, "limitations": "light"})
    later = reviews.decide(probe_id, capture_id, **said, after=uuid4())
    assert first.event_id == again.event_id
    assert len({first.event_id, other.event_id, later.event_id}) == 3
    assert opened(reviews, probe_id, "0").event_id != opened(reviews, probe_id, "1").event_id
    records = [
        decode_for(REVIEW_EVENTS, kafka.record_at(REVIEW_EVENTS, each.position.partition, each.position.offset).value)
        for each in (first, opened(reviews, probe_id))
    ]
    decided, view = records
    assert isinstance(decided, CandidateReviewed)
    assert isinstance(view, ImageViewed)
    assert (decided.actor, decided.user_id, view.ori) == (f"user:{user}", user, ori)
    assert decided.review_id == view.review_id


def test_the_first_answer_counts_and_that_to_another_examiner_is_not_taken_for_it(
    reviews: ReviewClient, clerk: ClerksPart, kafka: KafkaLog, user: str
) -> None:
    said = opened(reviews, uuid4())
    clerk.garble(REVIEW_OUTCOMES, str(said.probe_id).encode())
    copied = replace(said, position=replace(said.position, offset=said.position.offset + 1_000_000))
    clerk.say(answer(copied, "mallory"), answer(said, user, "ROLE_MISSING"), answer(said, user))
    assert reviews.await_answer(said, DEADLINE_S).code == "ROLE_MISSING"
    (found,) = read_course(kafka, said.probe_id).said
    assert not found.is_accepted


def test_an_answer_that_came_to_an_earlier_attempt_is_found(
    reviews: ReviewClient, clerk: ClerksPart, user: str
) -> None:
    probe_id = uuid4()
    first = reviews.conclude(probe_id)
    clerk.say(answer(first, user))
    assert reviews.await_answer(reviews.conclude(probe_id), DEADLINE_S).accepted


def test_a_missing_answer_is_told_in_time_with_what_to_do(reviews: ReviewClient) -> None:
    with pytest.raises(TransientError, match="say the same again"):
        reviews.await_answer(reviews.reverse(uuid4(), uuid4(), reason="the ear differs"), 0.3)


# Leads


def test_a_case_tool_takes_each_lead_and_withdrawal_once_and_resumes_where_it_stopped(
    config: dict[str, str | int | bool], reviews: ReviewClient, clerk: ClerksPart, kafka: KafkaLog, user: str, ori: str
) -> None:
    """G11."""
    first, second, elsewhere = lead(ori), lead(ori), lead("OTHER0000")
    back, of_elsewhere = withdrawn(first), withdrawn(elsewhere)
    ours = {each.event_id for each in (first, second, elsewhere, back, of_elsewhere)}
    ends = ends_of(kafka, REVIEW_OUTCOMES)
    clerk.say(first, elsewhere, first, answer(opened(reviews, uuid4()), user))
    group = f"tool-{uuid4()}"
    with LeadConsumer(config, group, ori=ori) as consumer:
        assert take(consumer, 1, of=ours) == [first]
    clerk.say(second, back, first, back, of_elsewhere)
    with LeadConsumer(config, group, ori=ori) as consumer:
        taken = take(consumer, 3, of=ours)
    assert sorted(each.event_id for each in taken) == sorted(each.event_id for each in (second, back, of_elsewhere))
    standing = {each.issued.lead_id: each.withdrawn for each in read_leads(kafka) if each.issued.ori == ori}
    assert standing == {first.lead_id: back, second.lead_id: None}
    with LeadConsumer(config, ori=ori, start_at=ends) as leads, ReviewOutcomeConsumer(config, start_at=ends) as every:
        assert (len(take(leads, 4, of=ours)), len(take(every, 5, of=ours))) == (4, 5)
        # What is no lead is passed over without a word.
        assert (leads.unreadable, every.unreadable) == (0, 0)


# Notices


def test_a_user_sees_notices_and_acknowledges_them_after_a_refusal_too(
    publisher: SignedPublisher, clerk: ClerksPart, kafka: KafkaLog, user: str
) -> None:
    """G6."""
    client, told = NoticeClient(publisher, user, clock=lambda: AT), notice(user)
    clerk.say(told, notice(f"{user}-other"), told)
    clerk.garble(NOTICES, user.encode())
    said = client.acknowledge(told.event_id, statement=" ")
    clerk.say(answered(said, told, "STATEMENT_MISSING"))
    assert client.await_answer(said, DEADLINE_S).code == "STATEMENT_MISSING"
    (refused,) = client.notices()
    assert (refused.notice, refused.acknowledged) == (told, None)
    assert refused.last_answer is not None
    again = client.acknowledge(told.event_id, statement=" ", after=refused.last_answer.event_id)
    assert again.event_id != said.event_id
    assert client.acknowledge(told.event_id, statement=" ").event_id == said.event_id
    record = kafka.record_at(NOTICE_ACKNOWLEDGEMENTS, again.position.partition, again.position.offset)
    event = decode_for(NOTICE_ACKNOWLEDGEMENTS, record.value)
    assert isinstance(event, NoticeAcknowledged)
    assert (event.user_id, event.notice_id, event.actor) == (user, told.event_id, f"user:{user}")
    clerk.say(answered(again, told))
    assert client.await_answer(again, DEADLINE_S).accepted
    assert client.notices()[0].acknowledged is not None


def test_a_case_tool_takes_the_notices_of_its_users_once(
    config: dict[str, str | int | bool], clerk: ClerksPart, user: str
) -> None:
    """G6, G11."""
    told, other = notice(user), notice(f"{user}-other")
    reminder = NoticeReminder(
        event_id=uuid4(),
        occurred_at=AT,
        actor="system:clerk",
        user_id=user,
        notice_id=told.event_id,
        number=1,
        due_at=AT,
    )
    clerk.say(told, other, told, reminder)
    ours = {each.event_id for each in (told, other, reminder)}
    with NoticeConsumer(config, f"tool-{uuid4()}", user_ids=[user]) as consumer:
        assert take(consumer, 2, of=ours) == [told, reminder]
