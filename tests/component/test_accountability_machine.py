"""Whatever is said by whom, sent again, forged, sealed, killed and restarted, reviews and notices come out right.

G3, G6, G8, G11, G12 of the clerk: several examiners, a jail, a worker and two clerks at once, on a Kafka in memory
whose bytes are encoded, and signed where they must be. What must hold is said a second time in `tests/review_law.py`.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import cache
from hashlib import sha256
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import structlog
from builders import (
    CASE_TOOL,
    DIGEST,
    FOUNDING,
    JAIL,
    NOW,
    ORI,
    OTHER_ORI,
    POLICY,
    ROOT,
    STRANGER,
    access_granted,
    access_revoked,
    agency_registered,
    agreement_accepted,
    by_root,
    key_named,
    publisher_registered,
    record_order,
    signed,
    training_completed,
    unsigned,
    user_registered,
    uuid_named,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from memory import AWAY, DONE, KILLED_AFTER, KILLED_BEFORE, UNKNOWN, Killed, MemoryKafka, MemoryReader, sequences
from review_law import Law

from processors import access, casebook
from processors.access import Directory
from processors.casebook import FOLLOWED, CaseBook
from schemas import signing
from schemas.codec import topic_of
from schemas.errors import TransientError
from schemas.events import (
    AccessRestricted,
    BookingOutcome,
    BookingProcessed,
    Candidate,
    CandidateListIssued,
    CandidateReviewed,
    FeatureComparison,
    FeatureFinding,
    ImageViewed,
    NoticeAcknowledged,
    OrderKind,
    PolicyActivated,
    ProbeRefused,
    RetainedDataDestroyed,
    RetentionRunRequested,
    ReviewCompleted,
    ReviewConcluded,
    ReviewConclusion,
    ReviewReversed,
    SealedRecordNotice,
)
from schemas.keys import key_of, partition_of, probe_scope
from schemas.positions import SourcePosition
from schemas.topics import (
    BOOKING_EVENTS,
    NOTICE_ACKNOWLEDGEMENTS,
    PROBE_REQUESTS,
    REVIEW_EVENTS,
    TOPICS,
)
from streams.clerk import Clerk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from connectors.signing_keys import SigningKey
    from processors.policy import Policy
    from schemas.events import Event
    from schemas.records import LogRecord

PLACES = [(topic, partition) for topic in FOLLOWED for partition in range(TOPICS[topic].partitions)]
PROBES = tuple(uuid_named(name) for name in ("P-2", "P-5", "P-3"))
"""Two of them in one partition."""
BOOKINGS = ("B-1", "B-4", "B-2", "B-3")
"""Two of them in one partition."""
CAPTURES = {booking: uuid_named(f"photo of {booking}") for booking in BOOKINGS}
HOMES = {"alice": ORI, "bob": ORI, "carol": ORI, "dave": OTHER_ORI, "sue": ORI}
"""Alice also asks for lists. Dave belongs to another agency; Sue supervises."""
ROLES = {"alice": ("SUBMITTER", "EXAMINER"), "sue": ("SUPERVISOR",)}
EXAMINERS = ("alice", "bob", "carol", "dave")
USERS = tuple(HOMES)
OWN_KEYS = {user: (key_named(user), key_named(f"{user}'s next")) for user in USERS}


LONG = replace(POLICY, retention=replace(POLICY.retention, probe_image_days=60))


def policy_like(version: str, **rules: Any) -> Policy:
    return replace(LONG, version=version, reviews=replace(LONG.reviews, **rules))


POLICIES = {
    each.version: each
    for each in (
        LONG,
        policy_like("one examiner", examiners=1),
        policy_like("open", shows_scores=True, shuffles=False, from_agencies=frozenset({OTHER_ORI})),
        replace(policy_like("brief", sheet_hours=1), retention=replace(POLICY.retention, probe_image_days=20)),
    )
}


def registration(user: str, key: SigningKey, **changes: Any) -> Event:
    facts = {"ori": HOMES[user], "roles": ROLES.get(user, ("EXAMINER",)), **changes}
    return user_registered(user, key.public_key, **facts)


PEOPLE: tuple[tuple[Event, SigningKey], ...] = (
    *FOUNDING,
    (agency_registered(OTHER_ORI), ROOT),
    (
        publisher_registered(
            "case-tool", CASE_TOOL.public_key, "ImageViewed", "CandidateReviewed", "ReviewConcluded", "ReviewReversed",
            "NoticeAcknowledged",
        ),
        ROOT,
    ),
    *(
        said
        for user in USERS
        for said in (
            (registration(user, OWN_KEYS[user][0]), ROOT),
            # Bob's runs out amid a sequence.
            (training_completed(user, **({"expires_at": NOW + timedelta(hours=60)} if user == "bob" else {})), ROOT),
            (agreement_accepted(user), OWN_KEYS[user][0]),
            (access_granted(user), ROOT),
        )
    ),
)  # fmt: skip
ACTS = (
    "revoke",
    "restrict",
    "grant",
    "grant",
    "train",
    "another key",
    "first key",
    "no examiner",
    "as before",
    "moved",
)
WORDS = ("seal", "seal", "seal", "unseal", "unseal", "expunge")
HOURS = (0.01, 0.01, 0.01, 2, 5, 9, 26, 26, 24 * 31)
OPENINGS = (
    *["right"] * 9,
    "one less",
    "one more",
    "one twice",
    "scores",
    "expired",
    "too long",
    "other ori",
    "by rank",
)
SAYINGS = (*["right"] * 9, "features", "limitations", "unfounded", "another review", "unknown", "of another's sheet")
FORGERIES = ("unsigned", "own key", "stranger", "wrong key", "wrong partition", "new words", "nonsense", "no value")
BETWEEN = "something happens between decision and append"
PARTLY, KILLED_PARTLY = "partly written", "killed partly"
FATES = (*[DONE] * 12, AWAY, UNKNOWN, KILLED_BEFORE, KILLED_AFTER, PARTLY, KILLED_PARTLY, KILLED_PARTLY, *[BETWEEN] * 4)

picks = st.integers(0, 2**16)
probes = st.sampled_from((*PROBES[:2], *PROBES[:2], PROBES[2]))
"""Most often those that have a list from the beginning."""
examiners = st.sampled_from(("alice", "bob", "carol", "alice", "bob", "carol", "dave"))
groups = st.sampled_from((("alice", "bob"), ("carol", "alice"), ("bob", "carol"), ("carol", "bob", "alice"), ("dave",)))


class ScatteredReader(MemoryReader):
    """Reads each partition in order, and the partitions in any order."""

    def __init__(self, kafka: MemoryKafka, seed: int) -> None:
        super().__init__(kafka)
        self._random = Random(seed)  # noqa: S311 - the order of reading, repeatable

    def read(self, _timeout_s: float) -> list[LogRecord]:
        found = []
        pending = [place for place, at in self._at.items() if at < len(self._kafka.everything[place])]
        self._random.shuffle(pending)
        for place in pending[: self._random.randint(1, 6)]:
            start = self._at[place]
            records = self._kafka.everything[place][start : start + self._random.randint(1, 30)]
            self._at[place] = start + len(records)
            found += records
        return found


class World(RuleBasedStateMachine):
    """Everybody who says something, and one or two clerks."""

    def __init__(self) -> None:
        super().__init__()
        self.kafka = MemoryKafka(PLACES)
        self.law = Law(POLICIES, CASE_TOOL.public_key)
        self.everything: list[tuple[LogRecord, Event | None, bytes | None, datetime]] = []
        """In the order in which it was appended, with the key that really signed it."""
        self.said: list[tuple[LogRecord, Event | None, bytes | None]] = []
        """What stands in signed topics, and whose key signed it."""
        self.number = 0
        self.handled = dict.fromkeys(range(TOPICS[BOOKING_EVENTS].partitions), 0)
        self.orders: dict[str, str] = {}
        """Booking -> what a worker last obeyed."""
        self.fates: list[str] = []
        self.random = Random(0)  # noqa: S311 - what of a batch is written, repeatable
        self.on_its_way: list[Event] = []
        """What killed clerks had given to their Kafka clients; it may still be written, or never."""
        self.is_judged = True
        self.dies_at_completion = False
        """Whether a clerk dies when it has written that a review is completed, and no lead yet."""
        self.ticks = 0
        self.keys_destroyed: set[str] = set()
        self.sheets_destroyed: set[UUID] = set()
        for event, key in PEOPLE:
            self.say(event, key)
        for probe, bookings in zip(PROBES, (BOOKINGS[:3], BOOKINGS), strict=False):
            self.a_worker_issues_a_list(probe, "alice", bookings, "once")
        self.clerks = [self.new_clerk(0), self.new_clerk(1)]

    # What a court, an administrator and a worker say.

    @rule(
        words=st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(BOOKINGS)), min_size=1, max_size=3),
        one_id=st.integers(0, 9).map(lambda n: n == 0),
        at_once=st.booleans(),
    )
    def a_court_orders(self, words: list[tuple[str, str]], *, one_id: bool, at_once: bool) -> None:
        for word, booking in words:
            # A careless publisher gives two orders one id.
            event_id = uuid_named("careless") if one_id else self.new_id()
            self.say(
                record_order(OrderKind[word.upper()], booking, event_id=event_id, occurred_at=self.kafka.now), JAIL
            )
        if at_once:
            self.a_worker_answers_orders()

    @rule()
    def a_worker_answers_orders(self) -> None:
        for partition, start in self.handled.items():
            for record in self.kafka.everything[BOOKING_EVENTS, partition][start:]:
                self.write(self.answer_to(record))
            self.handled[partition] = len(self.kafka.everything[BOOKING_EVENTS, partition])

    @rule(pick=picks)
    def a_worker_answers_an_order_again(self, pick: int) -> None:
        answered = [
            event
            for partition in range(TOPICS[BOOKING_EVENTS].partitions)
            for event in self.kafka.events["booking.outcomes.v1", partition]
        ]
        if answered:
            self.write(answered[pick % len(answered)])

    @rule(
        probe=st.sampled_from((PROBES[2], PROBES[2], *PROBES)),
        user=st.sampled_from(("alice", "alice", "bob", "dave")),
        bookings=st.lists(st.sampled_from(BOOKINGS), max_size=4, unique=True),
        listed=st.sampled_from(("once", "once", "once", "twice", "refused")),
    )
    def a_worker_issues_a_list(self, probe: UUID, user: str, bookings: Sequence[str], listed: str) -> None:
        """Also of records under an order: the list may have been on its way. A second one does not count (G1)."""
        facts: dict[str, Any] = {
            "event_id": self.new_id(), "occurred_at": self.kafka.now, "actor": "system:worker", "probe_id": probe,
            "user_id": user, "ori": HOMES[user], "reason_code": "X", "case_number": f"of {user}",
            "request": SourcePosition(topic=PROBE_REQUESTS, partition=0, offset=0), "policy_version": "2026.1",
            "access_watermark": (0,), "gallery_watermark": (0,), "measurements": {},
        }  # fmt: skip
        if listed == "refused":
            self.write(ProbeRefused(**facts, code="X", message="X"))
            return
        captures = [CAPTURES[booking] for booking in bookings]
        if listed == "twice":
            captures = [*captures[:-1], *captures[:1]]
        rows = tuple(
            Candidate(
                rank=rank, person=f"booking:{ORI}/{booking}", ori=ORI, booking_number=booking,
                capture_id=captures[rank - 1], score=0.9 - rank / 10,
            )
            for rank, booking in enumerate(bookings, 1)
        )  # fmt: skip
        self.write(
            CandidateListIssued(
                **facts, requested=5, returned=len(rows), candidates=rows, threshold=0.5, model_digest="0" * 64,
                gallery_templates=9, gallery_persons=9, lead_notice="X",
            )
        )  # fmt: skip

    @rule(user=st.sampled_from(USERS), act=st.sampled_from(ACTS))
    def an_administrator_acts(self, user: str, act: str) -> None:
        now = self.kafka.now
        said_by = {"event_id": self.new_id(), "occurred_at": now}
        event = {
            "revoke": lambda: access_revoked(user, **said_by),
            "restrict": lambda: AccessRestricted(**by_root(user_id=user, reason="under review", **said_by)),
            "grant": lambda: access_granted(user, **said_by),
            "train": lambda: training_completed(user, completed_at=now, expires_at=now + timedelta(days=40), **said_by),
            "another key": lambda: registration(user, OWN_KEYS[user][1], **said_by),
            "first key": lambda: registration(user, OWN_KEYS[user][0], **said_by),
            "no examiner": lambda: registration(user, self.key(user), roles=("SUBMITTER",), **said_by),
            "as before": lambda: registration(user, self.key(user), **said_by),
            "moved": lambda: registration(user, self.key(user), ori=OTHER_ORI, **said_by),
        }[act]()
        self.say(event, ROOT)

    @rule(version=st.sampled_from(sorted(POLICIES)), in_hours=st.sampled_from((0, 0, 3)))
    def a_policy_is_activated(self, version: str, in_hours: int) -> None:
        self.say(
            PolicyActivated(
                **by_root(event_id=self.new_id(), occurred_at=self.kafka.now),
                policy_version=version,
                policy_sha256=sha256(version.encode()).hexdigest(),
                effective_from=self.kafka.now + timedelta(hours=in_hours),
                document=version,
            ),
            ROOT,
        )

    @rule(days=st.integers(0, 40))
    def an_administrator_asks_for_deletion(self, days: int) -> None:
        at = self.kafka.now
        facts = by_root(event_id=self.new_id(), occurred_at=at, user_id="administrator")
        self.say(RetentionRunRequested(**facts, due_by=at - timedelta(days=days)), ROOT)

    @rule(hours=st.sampled_from(HOURS))
    def time_passes(self, hours: float) -> None:
        self.kafka.seconds += int(hours * 3600)

    # What examiners and receivers say.

    @rule(probe=probes, user=examiners, how=st.sampled_from(OPENINGS), seed=picks, by_tool=st.booleans())
    def a_review_is_opened(self, probe: UUID, user: str, how: str, seed: int, *, by_tool: bool) -> None:
        self.say_for(user, self.view(probe, user, how, seed), by_tool=by_tool)

    @rule(
        probe=probes,
        user=examiners,
        conclusion=st.sampled_from(ReviewConclusion),
        how=st.sampled_from(SAYINGS),
        pick=picks,
        by_tool=st.booleans(),
    )
    def a_candidate_is_compared(
        self, probe: UUID, user: str, conclusion: ReviewConclusion, how: str, pick: int, *, by_tool: bool
    ) -> None:
        captures = sorted(CAPTURES.values())
        comparison = self.comparison(probe, user, captures[pick % len(captures)], conclusion, how)
        self.say_for(user, comparison, by_tool=by_tool)

    @rule(probe=probes, user=examiners)
    def a_review_is_concluded(self, probe: UUID, user: str) -> None:
        self.say_for(user, self.conclusion(probe, user))

    @rule(
        probe=probes,
        users=groups,
        against=st.sampled_from((None, None, None, *BOOKINGS)),
        seed=picks,
        read=st.sampled_from(("not", "to the end", "until the review is completed")),
        order=st.sampled_from(("one after the other", "side by side")),
    )
    def whole_reviews_are_made(
        self, probe: UUID, users: tuple[str, ...], against: str | None, seed: int, read: str, order: str
    ) -> None:
        """What most reviews are: opened, every candidate compared, concluded; by several, perhaps side by side."""
        chance = Random(seed)  # noqa: S311 - repeatable
        queues = []
        for user in users:
            view = self.view(probe, user, "right", chance.randrange(1000))
            compared = [
                self.comparison(
                    probe,
                    user,
                    capture,
                    ReviewConclusion.EXCLUSION if capture == CAPTURES.get(against or "") else ReviewConclusion.SUPPORT,
                    "right",
                )
                for capture in view.shown
            ]
            queues.append([(user, each) for each in (view, *compared, self.conclusion(probe, user))])
        while any(queues):
            queue = queues[0] if order == "one after the other" else chance.choice(queues)
            if queue:
                self.say_for(*queue.pop(0))
            queues = [each for each in queues if each]
        if read != "not":
            self.dies_at_completion = read == "until the review is completed"
            self.settle(self.clerks[0])
            self.dies_at_completion = False

    @rule(
        probe=probes,
        user=st.sampled_from(("alice", "bob", "carol", "sue", "sue", "sue")),
        booking=st.sampled_from(BOOKINGS),
        reason=st.sampled_from(("The ear was misread.", "The ear was misread.", " ")),
    )
    def a_conclusion_is_reversed(self, probe: UUID, user: str, booking: str, reason: str) -> None:
        facts = self.facts(user)
        self.say_for(user, ReviewReversed(**facts, probe_id=probe, capture_id=CAPTURES[booking], reason=reason))

    @rule(
        picked=st.lists(picks, min_size=1, max_size=3),
        by=st.sampled_from(("receiver", "receiver", "receiver", "sue", "bob")),
        statements=st.sampled_from((("Destroyed.",), ("Destroyed.",), ("",), ("", "Destroyed."))),
        read=st.booleans(),
    )
    def notices_are_acknowledged(self, picked: list[int], by: str, statements: tuple[str, ...], *, read: bool) -> None:
        """Second thoughts under the same event id are no other event."""
        notices = list(self.law.notices.values())
        for pick in picked:
            notice = notices[pick % len(notices)] if notices else None
            user = notice.user_id if notice and by == "receiver" else "bob" if by == "receiver" else by
            notice_id = notice.event_id if notice else self.new_id()
            facts = self.facts(user)
            for statement in statements:
                self.say_for(user, NoticeAcknowledged(**facts, notice_id=notice_id, statement=statement))
                if read:
                    self.settle(self.clerks[0])

    @precondition(lambda self: len(self.said) > len(PEOPLE))
    @rule(picked=st.lists(st.tuples(picks, st.integers(1, 8)), min_size=1, max_size=3))
    def signed_records_are_sent_again(self, picked: list[tuple[int, int]]) -> None:
        """A signature stays valid for ever; several in a row, as by a client that replays an old queue (G11)."""
        said = list(self.said)
        for pick, many in picked:
            start = pick % len(said)
            for record, event, key in said[start : start + many]:
                self.append(record, event, key)

    @precondition(lambda self: len(self.said) > len(PEOPLE))
    @rule(pick=picks, how=st.sampled_from(FORGERIES), user=examiners)
    def a_record_is_forged(self, pick: int, how: str, user: str) -> None:
        """With the words, and the event id, of a genuine one."""
        ours = [each for each in self.said if each[0].topic in (REVIEW_EVENTS, NOTICE_ACKNOWLEDGEMENTS)]
        if not ours:
            return
        record, event, key = ours[-1 - pick % len(ours)]
        if how in {"nonsense", "no value"} or event is None:
            self.append(replace(record, value=None if how == "no value" else b"\x07nonsense"), None, None)
        elif how == "unsigned":
            self.append(replace(record, headers=()), event, None)
        elif how == "wrong partition":
            partition = (record.partition + 1 + pick % 3) % TOPICS[record.topic].partitions
            self.append(replace(record, partition=partition), event, key)
        elif how == "wrong key":
            # In the partition of that key, or of the right one.
            partition = record.partition if pick % 2 else partition_of(record.topic, b"?")
            self.append(signed(event, self.key(user), partition=partition, kafka_key=b"?"), event, None)
        elif how == "new words":
            # By the same person: another event with the id of one that was said.
            changed = {
                CandidateReviewed: {"conclusion": ReviewConclusion.STRONG_SUPPORT},
                ImageViewed: {"shown": tuple(reversed(getattr(event, "shown", ())))},
                NoticeAcknowledged: {"statement": "Burnt."},
            }.get(type(event), {"occurred_at": self.kafka.now})
            self.say_for(event.user_id, replace(event, **changed, actor=f"user:{event.user_id}"))
        else:
            self.say(event, STRANGER if how == "stranger" else self.key(user))

    # What clerks do, and what is left of them when they die.

    @rule(
        number=st.integers(0, 1),
        turns=st.sampled_from((1, 2, 4, 40)),
        fates=st.lists(st.sampled_from(FATES), max_size=8),
        seed=picks,
    )
    def a_clerk_works(self, number: int, turns: int, fates: list[str], seed: int) -> None:
        self.fates, self.random = fates, Random(seed)  # noqa: S311 - repeatable
        for _ in range(turns):
            if not self.turn(self.clerks[number]):
                self.clerks[number] = self.new_clerk(seed)
        self.fates = []

    @rule()
    def a_clerk_comes_to_its_end(self) -> None:
        """One that has run for long, too, does all that is due; but for retention, which it looks at once an hour."""
        self.settle(self.clerks[0])
        self.law.is_kept_at_rest(self.kafka.now)

    @rule(number=st.integers(0, 1), seed=picks)
    def a_clerk_starts_anew(self, number: int, seed: int) -> None:
        self.clerks[number] = self.new_clerk(seed)

    @precondition(lambda self: self.on_its_way)
    @rule(pick=picks, many=st.integers(1, 5))
    def what_a_killed_clerk_had_sent_arrives_late(self, pick: int, many: int) -> None:
        for _ in range(many):
            if self.on_its_way:
                place = place_of(self.on_its_way[pick % len(self.on_its_way)])
                first = next(each for each in self.on_its_way if place_of(each) == place)
                self.on_its_way.remove(first)
                self.write(first)

    def teardown(self) -> None:
        """Let everybody come to an end; then all agree."""
        self.a_worker_answers_orders()
        last = self.new_clerk(self.number)
        self.settle(last)
        self.kafka.seconds += 3601  # Retention is looked at once an hour.
        for clerk in (last, *self.clerks, last):
            self.settle(clerk)
        self.law.is_kept_at_rest(self.kafka.now)
        self.law.nothing_is_kept_too_long(self.kafka.now)
        for probe_id, case in self.law.cases.items():
            assert "PROBE_IMAGE" not in case.destroyed or probe_scope(probe_id) in self.keys_destroyed
        at_rest, another = self.kafka.seconds, self.new_clerk(self.number + 1)
        for clerk in (another, *self.clerks):
            self.settle(clerk)
            assert state_of(clerk._casebook) == state_of(last._casebook)
        assert self.kafka.seconds == at_rest, "written again after all was written"

    # What is said, in full.

    def new_id(self) -> UUID:
        self.number += 1
        return UUID(int=self.number)

    def key(self, user: str) -> SigningKey:
        """Return the key that this user has now."""
        first, second = OWN_KEYS[user]
        return second if self.law.people[user].key == second.public_key else first

    def facts(self, user: str) -> dict[str, Any]:
        return {
            "event_id": self.new_id(),
            "occurred_at": self.kafka.now,
            "actor": f"user:{user}",
            "user_id": user,
        }

    def view(self, probe: UUID, user: str, how: str, seed: int) -> ImageViewed:
        case, chance = self.law.case(probe), Random(seed)  # noqa: S311 - repeatable
        shown = [row.capture_id for row in case.rows if not self.law.is_barred(row)]
        if how != "by rank":
            chance.shuffle(shown)
        if how == "one less":
            shown = shown[1:]
        elif how == "one more":
            shown.append(sorted(CAPTURES.values())[seed % len(CAPTURES)])
        elif how == "one twice":
            shown += shown[:1]
        hours = {"expired": 0, "too long": 11}.get(how, 1)
        return ImageViewed(
            **self.facts(user),
            probe_id=probe,
            ori=OTHER_ORI if how == "other ori" else self.law.people[user].ori,
            review_id=review_of(probe, user),
            shown=tuple(shown),
            shows_scores=how == "scores",
            sheet_sha256=DIGEST,
            expires_at=self.kafka.now + timedelta(hours=hours),
        )

    def comparison(
        self, probe: UUID, user: str, capture: UUID, conclusion: ReviewConclusion, how: str
    ) -> CandidateReviewed:
        finding = FeatureFinding.DISSIMILAR if conclusion is ReviewConclusion.EXCLUSION else FeatureFinding.SIMILAR
        if how == "unfounded":
            finding = FeatureFinding.NOT_COMPARABLE
        features = POLICY.reviews.features[1:] if how == "features" else POLICY.reviews.features
        other = {"another review": UUID(int=0), "of another's sheet": review_of(probe, "carol")}
        return CandidateReviewed(
            **self.facts(user),
            probe_id=probe,
            review_id=other.get(how) or review_of(probe, user),
            capture_id=self.new_id() if how == "unknown" else capture,
            features=tuple(FeatureComparison(feature=each, finding=finding, note="") for each in features),
            limitations=" " if how == "limitations" else "pose",
            conclusion=conclusion,
            note="",
        )

    def conclusion(self, probe: UUID, user: str) -> ReviewConcluded:
        return ReviewConcluded(**self.facts(user), probe_id=probe, review_id=review_of(probe, user), summary="")

    def answer_to(self, record: LogRecord) -> BookingProcessed:
        """Answer an order as a worker does: an expungement stands for ever."""
        order: Any = self.kafka.events[record.topic, record.partition][record.offset]
        before, booking = self.orders.get(order.booking_number), order.booking_number
        outcome = BookingOutcome.REFUSED
        if order.order is OrderKind.UNSEAL and before == "SEAL":
            outcome = BookingOutcome.ORDER_LIFTED
            del self.orders[booking]
        elif order.order is not OrderKind.UNSEAL and before != "EXPUNGE":
            outcome = BookingOutcome.WITHDRAWN
            self.orders[booking] = str(order.order)
        return BookingProcessed(
            event_id=self.new_id(), occurred_at=self.kafka.now, actor="system:worker", ori=ORI, booking_number=booking,
            source=record.position, source_event_id=order.event_id, outcome=outcome, captures=(),
        )  # fmt: skip

    # The world.

    def say(self, event: Event, key: SigningKey) -> None:
        partition = partition_of(topic_of(event), key_of(event))
        self.append(signed(event, key, partition=partition), event, key.public_key)

    def say_for(self, user: str, event: Any, *, by_tool: bool = False) -> None:
        if by_tool:
            self.say(replace(event, actor="publisher:case-tool"), CASE_TOOL)
        else:
            self.say(event, self.key(user))

    def write(self, event: Event) -> None:
        """Write what a worker or a clerk says: not signed."""
        self.append(unsigned(event, partition=partition_of(topic_of(event), key_of(event))), event, None)

    def append(self, record: LogRecord, event: Event | None, key: bytes | None) -> None:
        written = self.kafka.append(record, event)
        self.everything.append((written, event, key, self.kafka.now))
        self.law.fold(*self.everything[-1])
        if TOPICS[record.topic].signed:
            self.said.append((written, event, key))

    def new_clerk(self, seed: int) -> Clerk:
        reader = ScatteredReader(self.kafka, seed)
        clerk: Clerk = Clerk(
            log_reader=reader,
            end_offsets=self.kafka.end_offsets,
            publish=lambda events: self.publish(clerk, events),
            objects=SimpleNamespace(
                put=lambda *_: SimpleNamespace(reference="object:v1:none:none"), destroy_key=self.keys_destroyed.add
            ),
            destroy_sheets=self.sheets_destroyed.update,
            casebook=CaseBook(Directory(ROOT.public_key), LONG),
            clock=lambda: self.kafka.now,
            monotonic=lambda: self.kafka.seconds + self.ticks,
        )
        clerk._applied = dict.fromkeys(PLACES, 0)
        reader.start(clerk._applied)
        return clerk

    def turn(self, clerk: Clerk) -> bool:
        """Let a clerk do one turn; return whether it lives."""
        self.ticks += 1
        before, self.is_judged = self.is_judged, True
        try:
            with suppress(TransientError):
                clerk._turn()
        except Killed:
            return False
        finally:
            self.is_judged = before
        return True

    def settle(self, clerk: Clerk) -> None:
        """Let a clerk work until there is nothing to do."""
        for _ in range(2000):
            before = self.kafka.seconds
            if not self.turn(clerk):
                self.clerks[self.clerks.index(clerk)] = self.new_clerk(before)
                return
            if self.kafka.seconds == before and clerk._ends is None and not clerk._has_news:
                return
        pytest.fail("The clerk does not come to an end.")

    def publish(self, clerk: Clerk, events: Sequence[Event]) -> None:
        """Take what a clerk writes; what becomes of it was drawn."""
        if self.is_judged and events:
            law = self.law_read_by(clerk)
            for event in events:
                law.judge(event, self.kafka.now)
                self.judge_deletion(event, law)
        fate = self.fates.pop(0) if events and self.fates else DONE
        if fate == AWAY:
            raise TransientError("Kafka is away.")
        if fate == BETWEEN:
            self.is_judged = False  # What else is decided in this turn was decided before.
            self.something_happens(clerk)
        written, rest = self.parted(events, fate)
        for event in written:
            self.write(event)
        completes = any(isinstance(event, ReviewCompleted) for event in written)
        if fate in (KILLED_BEFORE, KILLED_PARTLY, KILLED_AFTER) or (completes and self.dies_at_completion):
            self.on_its_way += rest
            raise Killed
        if fate in (UNKNOWN, PARTLY):
            raise TransientError("Not everything was acknowledged.")

    def parted(self, events: Sequence[Event], fate: str) -> tuple[list[Event], list[Event]]:
        """Return what of a batch is written, and what is not."""
        if fate == KILLED_BEFORE:
            return [], list(events)
        if fate not in (PARTLY, KILLED_PARTLY):
            return list(events), []
        # Each partition up to some point: a client keeps the order within a partition only.
        reached = {place: self.random.randint(0, 2) for place in dict.fromkeys(map(place_of, events))}
        written, rest = [], []
        for event in events:
            reached[place_of(event)] -= 1
            (written if reached[place_of(event)] >= 0 else rest).append(event)
        return written, rest

    def law_read_by(self, clerk: Clerk) -> Law:
        """Return what holds by what a clerk has applied: it need not wait for what came after it had asked."""
        applied = clerk._applied
        if all(applied[place] == len(records) for place, records in self.kafka.everything.items()):
            return self.law
        law = Law(POLICIES, CASE_TOOL.public_key)
        for record, event, key, at in self.everything:
            if record.offset < applied[record.topic, record.partition]:
                law.fold(record, event, key, at)
        return law

    def judge_deletion(self, event: Event, law: Law) -> None:
        """What is said to be deleted was deleted before, and the sheets that show a sealed record with it."""
        if isinstance(event, RetainedDataDestroyed) and "PROBE_IMAGE" in event.items:
            assert probe_scope(event.probe_id) in self.keys_destroyed
        if isinstance(event, SealedRecordNotice):
            comparisons = law.case(event.probe_id).comparisons.values()
            assert self.sheets_destroyed >= {review for each in comparisons for review in each.sheets}

    def something_happens(self, clerk: Clerk) -> None:
        fates, self.fates = self.fates, []
        happening = self.random.randint(0, 3)
        if happening == 0:
            others = [each for each in self.clerks if each is not clerk]
            self.settle(others[0])
        elif happening == 1:
            self.a_court_orders([("seal", BOOKINGS[self.random.randint(0, 3)])], one_id=False, at_once=True)
        elif happening == 2:
            self.an_administrator_acts(EXAMINERS[self.random.randint(0, 3)], "revoke")
        else:
            self.a_policy_is_activated(("one examiner", "2026.1")[self.random.randint(0, 1)], 0)
        self.fates = fates


def place_of(event: Event) -> tuple[str, int]:
    topic = topic_of(event)
    return topic, partition_of(topic, key_of(event))


def review_of(probe: UUID, user: str) -> UUID:
    """Return the id of a review; that of Alice and Bob is the same, as a careless client would have it."""
    return uuid_named(f"{probe} by {'alice' if user == 'bob' else user}")


def state_of(book: CaseBook) -> tuple[Any, ...]:
    return (
        book.cases,
        book.notices,
        book.unanswerable,
        book._orders,
        book._order_events,
        {booking: sorted(probes) for booking, probes in book._listing.items()},
        dict(book._reviews.waiting()),
        dict(book._acknowledgements.waiting()),
        book.directory.users,
    )


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is verified or decoded twice, nothing is logged; a policy's name stands for its file."""
    monkeypatch.setattr(signing, "verify", cache(signing.verify))
    monkeypatch.setattr(casebook, "decode_for", cache(casebook.decode_for))
    monkeypatch.setattr(access, "read_policy", POLICIES.__getitem__)
    configured = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**configured)


@pytest.mark.usefixtures("_quick")
def test_in_any_order_of_reviews_orders_forgeries_and_kills_leads_and_notices_come_out_right() -> None:
    """G3, G6, G8, G11, G12."""
    run_state_machine_as_test(World, settings=settings(max_examples=sequences(), stateful_step_count=50, deadline=None))
