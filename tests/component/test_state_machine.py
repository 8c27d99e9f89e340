"""Whatever is repeated, reordered across topics, killed and restarted, the guarantees hold (G1, G2, G3, G5, G11).

One small world in one thread: a Kafka in memory whose bytes are encoded, and signed where they must be; on it the
product's own handlers, replica, healing, sink and readers of outcomes. What must hold is said a second time, in plain
Python, from what stands in the topics: `Law` for a booking, `Standing` for a user, the first of each for outcomes.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache, partial
from threading import Event as Flag
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import faiss
import numpy as np
import pytest
import structlog
from builders import (
    ALICE,
    BOB,
    FOUNDING,
    JAIL,
    NOW,
    ORI,
    POLICY,
    ROOT,
    access_granted,
    access_revoked,
    agreement_accepted,
    booking_recorded,
    by_root,
    capture,
    key_named,
    probe_submitted,
    record_order,
    signed,
    training_completed,
    unsigned,
    user_registered,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from memory import (
    AWAY,
    DONE,
    KILLED_AFTER,
    KILLED_BEFORE,
    UNKNOWN,
    AtOnce,
    Killed,
    MemoryKafka,
    MemoryReader,
    MemoryTrail,
    sequences,
)

from connectors import probes as probe_clients
from connectors.faiss_gallery import FaissGallery
from connectors.outcomes import FirstOnes, first_outcomes
from connectors.probes import CandidateListConsumer
from processors.access import Directory
from processors.extraction import ExtractedFace
from processors.gallery import Entry
from processors.templates import to_template
from schemas import signing
from schemas.codec import NO_REGISTRY, decode, topic_of
from schemas.errors import IntegrityError
from schemas.events import (
    AccessGranted,
    AccessRestricted,
    AccessRevoked,
    BookingOutcome,
    BookingProcessed,
    BookingRecorded,
    CandidateListIssued,
    OrderEffect,
    OrderKind,
    ProbeRefused,
    ProbeSubmitted,
    TemplatesEnrolled,
    TemplatesWithdrawn,
    TrainingCompleted,
    WithdrawalCause,
)
from schemas.keys import key_of, partition_of
from schemas.records import LogRecord
from schemas.topics import ACCESS, BOOKING_EVENTS, BOOKING_OUTCOMES, GALLERY, PROBE_OUTCOMES, PROBE_REQUESTS
from streams import sink as sink_module
from streams.bookings import Bookings
from streams.context import Context
from streams.generation import Generation
from streams.probes import Probes
from streams.replica import Replica
from streams.search_queue import SearchQueue
from streams.side_by_side import work_through
from streams.sink import Sink
from streams.worker import Worker, booking_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from datetime import datetime
    from uuid import UUID

    from connectors.signing_keys import SigningKey
    from processors.candidates import SearchResult
    from schemas.events import Event

PARTITIONS = (0, 4)
BOOKINGS = ("B-1", "B-4", "B-2")
PROBES = ("P-2", "P-5", "P-16", "P-20", "P-23", "P-32")
"""Their keys fall into these partitions, several into one."""
KEYS = {f"{ORI}/{booking}": booking for booking in BOOKINGS}
PLACES = [
    (ACCESS, 0),
    *(
        (topic, partition)
        for topic in (BOOKING_EVENTS, GALLERY, BOOKING_OUTCOMES, PROBE_REQUESTS, PROBE_OUTCOMES)
        for partition in PARTITIONS
    ),
]
CAROL = key_named("carol")
OWN_KEYS = {"alice": ALICE, "bob": BOB, "carol": CAROL}
USERS = ("alice", "bob", "carol")
CONSUMED = (BOOKING_EVENTS, PROBE_REQUESTS)
TRAINED = timedelta(seconds=25)
"""A course counts for so long: a third of a sequence, so that it also runs out."""
PEOPLE: tuple[tuple[Event, SigningKey], ...] = (
    *FOUNDING,
    (user_registered("bob", BOB.public_key), ROOT),
    (training_completed("bob", expires_at=NOW + 2 * TRAINED), ROOT),
    (agreement_accepted("bob"), BOB),
    (access_granted("bob"), ROOT),
    (user_registered("carol", CAROL.public_key, roles=("ADMINISTRATOR", "SUBMITTER")), ROOT),
)
ACTS = ("grant", "grant", "restrict", "revoke", "train", "train", "accept")
WORDS = (
    *["book"] * 8,
    *["book without a photo"] * 2,
    *["seal"] * 3,
    *["unseal"] * 4,
    *["unseal and enrol"] * 3,
    "expunge",
)
ORDERS = {
    "seal": (OrderKind.SEAL, None),
    "unseal": (OrderKind.UNSEAL, OrderEffect.LIFT),
    "unseal and enrol": (OrderKind.UNSEAL, OrderEffect.LIFT_AND_RE_ENROL),
    "expunge": (OrderKind.EXPUNGE, None),
}
BARRING = (WithdrawalCause.SEALED, WithdrawalCause.EXPUNGED)
FOLLOWED = (GALLERY, ACCESS)
MODEL = "ab" * 32
FACE = ExtractedFace(
    template=to_template(np.ones(8)),
    model_digest=MODEL,
    measurements={"unified_quality": 90.0},
    box_px=(0.0, 0.0, 1.0, 1.0),
)
PATIENCE_S = 30.0
EVERYTHING = 1_000_000
TURNS = 10
"""Of the event loop; enough for a handler to come from the barrier to its answer."""

picks = st.integers(0, 99)
"""One of what there is, by its number modulo how many there are."""
partitions = st.sampled_from(PARTITIONS)
some = st.lists(st.tuples(partitions, picks), min_size=1, max_size=4)
"""Several of them, from these partitions."""


async def always(_limit_s: float) -> bool:
    return True


class Law(NamedTuple):
    """What holds for a booking."""

    offset: int
    """Of the booking event that it comes from."""
    cause: WithdrawalCause | None
    said_at: datetime
    captures: tuple[UUID, ...]


@dataclass
class Standing:
    """What holds for a user."""

    access: str = "NOT_GRANTED"
    trained_until: list[datetime] = field(default_factory=list)
    agreed: bool = False


its_partition = cache(partition_of)
said = cache(signed)
"""The same event said by the same person is signed once in all sequences."""


@cache
def booking_event(word: str, booking: str, at: datetime) -> Event:
    if word in ORDERS:
        kind, effect = ORDERS[word]
        return record_order(kind, booking, occurred_at=at, effect=effect)
    photos = (capture(f"{booking} {at}"),) if word == "book" else ()
    return booking_recorded(booking, captures=photos, occurred_at=at)


@cache
def access_event(act: str, user: str, administrator: str, at: datetime) -> tuple[Event, SigningKey]:
    """Return what is said and who signs it; the first administrator approves all training."""
    said_by = {"actor": f"user:{administrator}", "occurred_at": at}
    key = CAROL if administrator == "carol" else ROOT
    if act == "train":
        return training_completed(user, completed_at=at, expires_at=at + TRAINED, occurred_at=at), ROOT
    if act == "accept":
        return agreement_accepted(user, occurred_at=at), OWN_KEYS[user]
    if act == "restrict":
        return AccessRestricted(**by_root(user_id=user, reason="under review", **said_by)), key
    return (access_granted if act == "grant" else access_revoked)(user, **said_by), key


class World(RuleBasedStateMachine):
    """Publishers, one worker at a time, a sink and a reader of outcomes, on one Kafka."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
        self.pool = AtOnce()
        self.kafka = MemoryKafka(PLACES)
        # What is said a second time, in plain Python.
        self.users = {user: Standing() for user in OWN_KEYS}
        self.decided: set[UUID] = set()
        self.effective: list[LogRecord] = []
        """The access records that changed something: the fold without the repeats."""
        self.counting: dict[str, Law] = {}
        """By the gallery topic: of each booking the record from the highest source offset, of several the last."""
        self.seen: dict[str, tuple[Law, tuple[int, int]]] = {}
        """The same, of what this replica has read, and where it stands."""
        self.late: set[str] = set()
        self.handled = {(topic, partition): 0 for topic in CONSUMED for partition in PARTITIONS}
        """Next offset after what was handled to its end at least once."""
        self.expunged: set[str] = set()
        self.objects_destroyed: set[str] = set()
        # The worker, and what Kafka knows of it.
        self.committed = dict(self.handled)
        self.on_its_way: list[Event] = []
        """What killed workers had given to their Kafka clients; it may still be written, or never."""
        self.writes_until_death: int | None = None
        self.pauses: list[int] = []
        """For how many turns of the event loop Kafka keeps each of the next words."""
        self.known: dict[int, set[UUID]] = {}
        """Probes of each partition that the worker must know to be decided."""
        for event, key in PEOPLE:
            self.publish(said(event, key), event)
        self.trail = MemoryTrail()
        self.start_reading_outcomes(dict.fromkeys(PARTITIONS, 0))
        self.start_replica()

    # What outsiders say.

    @rule(
        booking=st.sampled_from(BOOKINGS),
        words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=5),
        at_once=st.booleans(),
    )
    def the_jail_says(self, booking: str, words: list[str], *, at_once: bool) -> None:
        for word in words:
            event = booking_event(word, booking, self.kafka.now)
            self.publish(said(event, JAIL, partition=its_partition(BOOKING_EVENTS, key_of(event))), event)
        if at_once:
            self.handle_everything()

    @rule(
        user=st.sampled_from(USERS),
        acts=st.lists(st.sampled_from(ACTS), min_size=1, max_size=5),
        administrator=st.sampled_from(["administrator", "carol"]),
    )
    def an_administrator_acts(self, user: str, acts: list[str], administrator: str) -> None:
        for act in acts:
            event, key = access_event(act, user, administrator, self.kafka.now)
            self.publish(said(event, key), event)

    @rule(
        probes=st.lists(st.tuples(st.sampled_from(PROBES), st.sampled_from(USERS)), min_size=1, max_size=4),
        at_once=st.booleans(),
    )
    def probes_are_submitted(self, probes: list[tuple[str, str]], *, at_once: bool) -> None:
        for probe, user in probes:
            event = probe_submitted(probe, user_id=user, actor=f"user:{user}", occurred_at=self.kafka.now)
            self.publish(said(event, OWN_KEYS[user], partition=its_partition(PROBE_REQUESTS, key_of(event))), event)
        if at_once:
            self.handle_everything()

    @rule(topic=st.sampled_from([ACCESS, BOOKING_EVENTS, PROBE_REQUESTS]), again=some, at_once=st.booleans())
    def signed_records_are_sent_again(self, topic: str, again: list[tuple[int, int]], *, at_once: bool) -> None:
        """A signature stays valid for ever (docs/adr/0008-what-was-said-earlier-is-stale.md)."""
        for partition, pick in again:
            place = (topic, 0 if topic == ACCESS else partition)
            said_before = list(zip(self.kafka.everything[place], self.kafka.events[place], strict=True))
            start = pick % max(1, len(said_before))
            # Several in a row, as by a publisher that replays an old queue.
            for record, event in said_before[start : start + 5]:
                self.publish(record, event)
        if at_once:
            self.handle_everything()

    @rule(topic=st.sampled_from([ACCESS, GALLERY, PROBE_OUTCOMES]), partition=partitions)
    def a_stranger_writes_nonsense(self, topic: str, partition: int) -> None:
        partition = 0 if topic == ACCESS else partition
        self.publish(
            LogRecord(topic=topic, partition=partition, offset=0, timestamp_ms=0, key=b"?", value=b"\x07nonsense"), None
        )

    # What the worker does, and what is left of it when it dies.

    @rule(topic=st.sampled_from(FOLLOWED), partition=partitions, records=st.integers(1, 4))
    def the_replica_follows_one_topic(self, topic: str, partition: int, records: int) -> None:
        self.run(self.follow((topic, 0 if topic == ACCESS else partition), records))

    @rule(
        topic=st.sampled_from(CONSUMED),
        records=st.integers(1, 10),
        first=st.sampled_from(FOLLOWED),
        writes_until_death=st.one_of(st.none(), st.none(), st.integers(0, 6)),
    )
    def the_worker_handles(self, topic: str, records: int, first: str, writes_until_death: int | None) -> None:
        self.writes_until_death = writes_until_death
        try:
            for place in self.committed:
                if place[0] == topic:
                    self.handle_pending(place, records, first)
        except Killed:
            self.start_worker()
        self.writes_until_death = None

    @rule(
        partition=partitions,
        records=st.integers(2, 12),
        at_once=st.integers(2, 8),
        pauses=st.lists(st.integers(0, 12), max_size=16),
        first=st.sampled_from(FOLLOWED),
        writes_until_death=st.one_of(st.none(), st.none(), st.integers(0, 6)),
    )
    def the_worker_has_several_bookings_under_way(
        self,
        partition: int,
        records: int,
        at_once: int,
        pauses: list[int],
        first: str,
        writes_until_death: int | None,
    ) -> None:
        """G5: what is said of one booking is decided in its order, however long Kafka takes for each word beside it."""
        place = (BOOKING_EVENTS, partition)
        self.pauses, self.writes_until_death = pauses, writes_until_death
        pending = self.kafka.everything[place][self.committed[place] :][:records]
        if not self.run(self.handle_side_by_side(pending, at_once, first)):
            self.start_worker()
        self.pauses, self.writes_until_death = [], None

    @precondition(lambda self: not self.has_caught_up())
    @rule(partition=partitions)
    def a_worker_that_does_not_catch_up_is_asked(self, partition: int) -> None:
        """Never an answer from an old state (G3, G5)."""
        place = (PROBE_REQUESTS, partition)
        self.start_worker(barrier_limit_s=0.0)
        for record in self.kafka.everything[place][self.committed[place] :][:1]:
            self.note_assignment(record)
            self.run(self.worker._decide_probe(record))
            self.commit(record)
        self.start_worker()

    @rule(topic=st.sampled_from(CONSUMED), partition=partitions, records=st.integers(1, 6))
    def another_worker_takes_over_before_a_commit(self, topic: str, partition: int, records: int) -> None:
        self.committed[topic, partition] = max(0, self.committed[topic, partition] - records)
        self.start_worker()

    @precondition(lambda self: self.on_its_way)
    @rule(pick=picks)
    def what_a_killed_worker_had_sent_arrives_late(self, pick: int) -> None:
        self.write(self.on_its_way.pop(pick % len(self.on_its_way)))

    @rule(topic=st.sampled_from([GALLERY, GALLERY, PROBE_OUTCOMES]), again=some, followed=st.booleans())
    def what_a_worker_wrote_is_written_again(self, topic: str, again: list[tuple[int, int]], *, followed: bool) -> None:
        for partition, pick in again:
            written = [event for event in self.kafka.events[topic, partition] if event is not None]
            if written:
                self.write(written[pick % len(written)])
        if followed:
            self.run(self.catch_up(topic))

    @rule()
    def late_repeats_are_put_right(self) -> None:
        """See docs/adr/0002-late-repeats-and-compaction.md."""
        expected = [self.kafka.everything[GALLERY, place[0]][place[1]] for place in self.places_of_late_ones().values()]
        before = {partition: len(self.kafka.everything[GALLERY, partition]) for partition in PARTITIONS}
        self.run(self.worker._put_at_the_end_again())
        put = [record for p, at in before.items() for record in self.kafka.everything[GALLERY, p][at:]]
        if self.worker._caught_up.is_set():
            assert sorted((r.key, r.value) for r in put) == sorted((r.key, r.value) for r in expected)

    @rule(quiet=st.booleans())
    def the_cleaner_of_kafka_comes(self, *, quiet: bool) -> None:
        """It passes over six hours: what sink or follower has not read, and late repeats that are not put right."""
        if quiet:
            self.run(self.catch_up(GALLERY))
            self.late_repeats_are_put_right()
            self.run(self.catch_up(GALLERY))
            self.run_sink(self.kafka, at_once=1000, patient=True)
        for place in self.kafka.kept:
            if place[0] == GALLERY:
                up_to = min(len(self.trail.rows.get(place, ())), self.replica.applied[place])
                self.kafka.compact(place, up_to, self.ending_in_a_late_repeat(place, up_to))

    @rule()
    def the_replica_starts_anew(self) -> None:
        self.start_replica()

    # What outsiders read.

    @rule(partition=partitions, records=st.integers(1, 5), dies=st.booleans())
    def a_tool_reads_outcomes(self, partition: int, records: int, *, dies: bool) -> None:
        """G1 and G11: it is given the first outcome of each probe in the topic, and no other."""
        for record in self.kafka.everything[PROBE_OUTCOMES, partition][self.reading_at[partition] :][:records]:
            delivery = self.tool._first_outcome(record)
            outcome = self.kafka.events[PROBE_OUTCOMES, partition][record.offset]
            first = outcome is not None and self.first_outcomes(partition)[outcome.probe_id] == record.offset
            assert (delivery is not None) == first
            assert delivery is None or delivery.outcome == outcome
            if dies:
                self.tool._first_ones.forget([partition])
                return
            self.reading_at[partition] = self.tool._done[partition] = record.offset + 1

    @rule(at=st.tuples(picks, picks))
    def a_tool_starts_anew_at_its_own_positions(self, at: tuple[int, int]) -> None:
        ends = [len(self.kafka.everything[PROBE_OUTCOMES, partition]) for partition in PARTITIONS]
        offsets = (pick % (end + 1) for pick, end in zip(at, ends, strict=True))
        self.start_reading_outcomes(dict(zip(PARTITIONS, offsets, strict=True)))

    @rule(
        at_once=st.integers(1, 8),
        patient=st.booleans(),
        fates=st.lists(st.sampled_from([DONE, DONE, AWAY, UNKNOWN, KILLED_BEFORE, KILLED_AFTER]), max_size=6),
    )
    def the_sink_runs(self, *, at_once: int, patient: bool, fates: list[str]) -> None:
        """G2: whenever it dies, the trail is the beginning of every partition, each record once."""
        self.trail.fates = fates
        with suppress(Killed):
            self.run_sink(self.kafka, at_once=at_once, patient=patient)
        self.trail.fates = []
        self.audited_is_the_beginning_of_everything()

    @precondition(lambda self: self.trail.rows)
    @rule(pick=picks, lie=st.sampled_from(["rolled back", "replaced", "another Kafka"]))
    def kafka_contradicts_the_trail(self, pick: int, lie: str) -> None:
        """G2, G9: a sink that finds Kafka rolled back or a record replaced stops, and appends nothing behind it."""
        place = sorted(self.trail.rows)[pick % len(self.trail.rows)]
        last = self.trail.rows[place][-1].offset
        written = self.kafka.everything[place]
        lying = {
            "rolled back": written[:last],
            "replaced": [*written[:last], replace(written[last], value=b"another"), *written[last + 1 :]],
            "another Kafka": None,
        }[lie]
        with pytest.raises(IntegrityError):
            self.run_sink(self.kafka.rewritten(place, lying), at_once=1, patient=False)
        assert self.trail.rows[place][-1].offset == last
        self.audited_is_the_beginning_of_everything()

    # What holds at every step.

    @invariant()
    def the_highest_source_offset_counts_in_every_ledger(self) -> None:
        """G5."""
        ledger = self.replica.active.ledger
        for key in KEYS:
            law, place = self.seen.get(key, (None, None))
            entry = ledger.entry(key)
            assert entry == (law and Entry(law.offset, place, law.cause, law.said_at))
            assert ledger.barred_by(key) == (law.cause if law and law.cause in BARRING else None)
        assert ledger.to_put_at_the_end_again() == self.places_of_late_ones()
        if self.late:
            laws = {KEYS[key]: law.captures for key, (law, _) in self.seen.items() if law.captures}
            assert searched(self.replica) == laws

    @invariant()
    def the_gallery_topic_says_what_the_jail_said(self) -> None:
        """G5: no repeat, no killed worker and no old event sent again brings anyone back, or takes anyone out."""
        assert {key: self.counting.get(key) for key in KEYS} == {key: self.law(key) for key in KEYS}

    def teardown(self) -> None:
        """Let everybody come to an end; then all agree."""
        self.handle_everything()
        self.run(self.catch_up(ACCESS))
        self.late_repeats_are_put_right()
        self.run(self.catch_up(ACCESS))
        assert self.replica.active.ledger.to_put_at_the_end_again() == {}
        self.the_gallery_topic_says_what_the_jail_said()
        self.every_word_of_the_jail_is_answered()
        self.every_probe_has_one_outcome_for_everybody()
        self.run_sink(self.kafka, at_once=1000, patient=True)
        self.audited_is_the_beginning_of_everything()
        assert {place: len(rows) for place, rows in self.trail.rows.items()} == {
            place: len(written) for place, written in self.kafka.everything.items() if written
        }
        old, from_all = self.replica, self.read_by_a_new_replica()
        for partition in PARTITIONS:
            self.kafka.compact((GALLERY, partition), len(self.kafka.everything[GALLERY, partition]), ())
        without_repeats = Directory(ROOT.public_key)
        for record in self.effective:
            without_repeats.apply(record, decode(record.value))
        for replica in (old, from_all, self.read_by_a_new_replica()):
            assert {key: self.law_of_entry(replica, key) for key in KEYS} == {key: self.law(key) for key in KEYS}
            assert state_of(replica.directory) == state_of(without_repeats)
        assert self.objects_destroyed == self.expunged

    # G1 and G11, from the topics alone.

    def first_outcomes(self, partition: int) -> dict[UUID, int]:
        """Return probe -> offset of its first outcome."""
        firsts: dict[UUID, int] = {}
        for offset, outcome in enumerate(self.kafka.events[PROBE_OUTCOMES, partition]):
            if outcome is not None:
                firsts.setdefault(outcome.probe_id, offset)
        return firsts

    def every_word_of_the_jail_is_answered(self) -> None:
        """A worker may die between a gallery record and its answer; whoever handles the event again answers it."""
        for partition in PARTITIONS:
            answered = {answer.source.offset for answer in self.kafka.events[BOOKING_OUTCOMES, partition]}
            assert answered == set(range(len(self.kafka.events[BOOKING_EVENTS, partition])))

    def every_probe_has_one_outcome_for_everybody(self) -> None:
        for partition in PARTITIONS:
            firsts = self.first_outcomes(partition)
            outcomes = self.kafka.events[PROBE_OUTCOMES, partition]
            assert {request.probe_id for request in self.kafka.events[PROBE_REQUESTS, partition]} <= firsts.keys()
            kind = probe_clients._kind(NO_REGISTRY)
            found = first_outcomes(
                self.kafka, kind, firsts.keys(), kind.identity, dict.fromkeys(PARTITIONS, 0), PATIENCE_S
            )
            assert {outcome.probe_id: outcome for outcome in found} == {
                probe: outcomes[offset] for probe, offset in firsts.items()
            }

    # Law, from the booking topic alone: kills, repeats of workers and the order of other topics do not come into it.

    def law(self, key: str) -> Law | None:
        """Return what the jail said of a booking last, with effect, in what was handled so far."""
        partition = its_partition(BOOKING_EVENTS, key.encode())
        counting = self.counting.get(key)
        # A worker that died in between may have written what it had not handled to its end.
        stop = max(self.handled[BOOKING_EVENTS, partition], counting.offset + 1 if counting else 0)
        return self.law_before(key, partition, stop)

    def law_before(self, key: str, partition: int, stop: int) -> Law | None:
        law: Law | None = None
        booked: tuple[UUID, ...] = ()
        """The captures of the last BookingRecorded that counted."""
        for offset, event in enumerate(self.kafka.events[BOOKING_EVENTS, partition][:stop]):
            if key_of(event) == key.encode():
                law = _after(law, booked, offset, event)
                if law is not None and law.offset == offset and isinstance(event, BookingRecorded):
                    booked = law.captures
        return law

    def law_of_entry(self, replica: Replica, key: str) -> Law | None:
        entry = replica.active.ledger.entry(key)
        if entry is None:
            return None
        found = searched(replica).get(KEYS[key], ())
        return Law(entry.source_offset, entry.withdrawn, entry.said_at, found)

    # The access topic, in plain Python.

    def note_access(self, record: LogRecord, event: Event) -> None:
        # What was refused once is not said later by sending it again.
        if event.event_id in self.decided:
            return
        self.decided.add(event.event_id)
        if event.actor == "user:carol" and not hasattr(event, "agreement") and self.users["carol"].access != "GRANTED":
            return
        self.effective.append(record)
        user = self.users.get(getattr(event, "user_id", ""))
        if user is None:
            return
        if isinstance(event, AccessGranted):
            user.access = "GRANTED"
        elif isinstance(event, AccessRestricted):
            user.access = "RESTRICTED"
        elif isinstance(event, AccessRevoked):
            user.access = "REVOKED"
        elif isinstance(event, TrainingCompleted):
            user.trained_until.append(event.expires_at)
        elif hasattr(event, "agreement"):
            user.agreed = True

    def refusal_of(self, user_id: str) -> str | None:
        """Return why this user may not search now (G3)."""
        user = self.users[user_id]
        if user.access != "GRANTED":
            return f"ACCESS_{user.access}"
        if not user.trained_until:
            return "TRAINING_MISSING"
        if self.kafka.now >= max(user.trained_until):
            return "TRAINING_EXPIRED"
        return None if user.agreed else "AGREEMENT_MISSING"

    # What a worker writes is judged the moment it is decided.

    async def send_of_worker(self, event: Event, /, *, topic: str | None = None) -> None:
        assert topic in (None, GALLERY)
        if isinstance(event, (TemplatesEnrolled, TemplatesWithdrawn)):
            self.judge_gallery_record(event)
        elif isinstance(event, BookingProcessed):
            self.judge_answer(event)
        else:
            assert isinstance(event, (CandidateListIssued, ProbeRefused))
            self.judge_outcome(event)
        for _ in range(self.pauses.pop() if self.pauses else 0):
            await asyncio.sleep(0)
        if self.writes_until_death == 0:
            self.on_its_way.append(event)
            raise Killed
        if self.writes_until_death is not None:
            self.writes_until_death -= 1
        self.write(event)
        if isinstance(event, (CandidateListIssued, ProbeRefused)):
            self.known[its_partition(PROBE_OUTCOMES, key_of(event))].add(event.probe_id)

    def judge_gallery_record(self, event: TemplatesEnrolled | TemplatesWithdrawn) -> None:
        """G5: it says what the law says at its source, and no more."""
        key = key_of(event).decode()
        assert law_of(event) == self.law_before(key, event.source.partition, event.source.offset + 1)

    def judge_answer(self, event: BookingProcessed) -> None:
        """G5: what is acknowledged stands in the gallery topic already."""
        if event.outcome in (BookingOutcome.ENROLLED, BookingOutcome.WITHDRAWN):
            assert any(
                record is not None and record.source == event.source
                for record in self.kafka.events[GALLERY, event.source.partition]
            )

    def judge_outcome(self, event: CandidateListIssued | ProbeRefused) -> None:
        """G1, G3, G5."""
        partition = event.request.partition
        assert event.probe_id not in self.known[partition], "decided again by a worker that knew better"
        request = self.kafka.events[PROBE_REQUESTS, partition][event.request.offset]
        assert isinstance(request, ProbeSubmitted)
        refusal = self.refusal_of(request.user_id) if self.barrier_limit_s else "REPLICA_BEHIND"
        if isinstance(event, ProbeRefused):
            assert event.code == refusal
            return
        assert refusal is None
        laws = {booking: self.law(key) for key, booking in KEYS.items()}
        assert {row.booking_number: (row.capture_id,) for row in event.candidates} == {
            booking: law.captures for booking, law in laws.items() if law and law.captures
        }

    # The world.

    def run(self, doing: Any) -> Any:
        return self.loop.run_until_complete(doing)

    def publish(self, record: LogRecord, event: Event | None) -> None:
        written = self.kafka.append(record, event)
        if record.topic == ACCESS and event is not None:
            self.note_access(written, event)
        if isinstance(event, (TemplatesEnrolled, TemplatesWithdrawn)):
            key, law = key_of(event).decode(), law_of(event)
            if key not in self.counting or law.offset >= self.counting[key].offset:
                self.counting[key] = law

    def write(self, event: Event) -> None:
        """Write what a worker says: not signed."""
        self.publish(unsigned(event, partition=its_partition(topic_of(event), key_of(event))), event)

    def has_caught_up(self) -> bool:
        return all(
            self.replica.applied[place] == len(self.kafka.everything[place]) for place in PLACES if place[0] in FOLLOWED
        )

    def handle_everything(self) -> None:
        for place in self.committed:
            self.handle_pending(place, EVERYTHING, GALLERY)

    def handle_pending(self, place: tuple[str, int], records: int, first: str) -> None:
        for record in self.kafka.everything[place][self.committed[place] :][:records]:
            self.run(self.handle(record, first))
            self.commit(record)

    def commit(self, record: LogRecord) -> None:
        place = (record.topic, record.partition)
        self.committed[place] = record.offset + 1
        self.handled[place] = max(self.handled[place], self.committed[place])

    async def handle(self, record: LogRecord, first: str) -> None:
        """Handle a record while the follower goes on, one topic before the other."""
        if record.topic == BOOKING_EVENTS:
            handling = self.loop.create_task(self.worker._bookings.handle(record))
        else:
            self.note_assignment(record)
            handling = self.loop.create_task(self.worker._decide_probe(record))
        await asyncio.sleep(0)
        await self.catch_up(first)
        await handling
        self.note_handled(record)

    async def handle_side_by_side(self, pending: list[LogRecord], at_once: int, first: str) -> bool:
        """Handle bookings as the agent does, while the follower goes on; return whether the worker is still alive."""
        handled, is_alive, all_handled_or_dead = 0, True, asyncio.Event()
        if not pending:
            return True

        async def stream() -> AsyncIterator[Any]:
            for record in pending:
                message = SimpleNamespace(tp=record.partition, key=record.key)
                yield SimpleNamespace(message=message, record=record, ack=partial(self.commit, record))
            await all_handled_or_dead.wait()

        async def deal_with(event: Any) -> bool:
            nonlocal handled, is_alive
            try:
                await self.worker._bookings.handle(event.record)
            except Killed:
                is_alive = False
                all_handled_or_dead.set()
                return False
            self.note_handled(event.record)
            handled += 1
            if handled == len(pending):
                all_handled_or_dead.set()
            return True

        working = self.loop.create_task(work_through(stream(), deal_with, at_once=at_once, chain_of=booking_of))
        while not working.done():
            await asyncio.sleep(0)
            await self.catch_up(first)
        await working
        return is_alive

    def note_handled(self, record: LogRecord) -> None:
        event = self.kafka.events[record.topic, record.partition][record.offset]
        if getattr(event, "order", None) is OrderKind.EXPUNGE:
            self.expunged.add(f"booking/{key_of(event).decode()}")

    def note_assignment(self, record: LogRecord) -> None:
        """Before a worker's first probe of a partition it must learn what was decided at or after that."""
        if record.partition not in self.known:
            self.known[record.partition] = {
                outcome.probe_id
                for outcome in self.kafka.events[PROBE_OUTCOMES, record.partition]
                if isinstance(outcome, (CandidateListIssued, ProbeRefused)) and outcome.request.offset >= record.offset
            }

    async def catch_up(self, first: str) -> None:
        for place in sorted((place for place in PLACES if place[0] in FOLLOWED), key=lambda place: place[0] != first):
            if self.replica.applied[place] < len(self.kafka.everything[place]):
                for _ in range(TURNS):  # A barrier that does not wait for this place lets the handler go on now.
                    await asyncio.sleep(0)
                await self.follow(place, EVERYTHING)

    async def follow(self, place: tuple[str, int], records: int) -> None:
        with closing(self.kafka.tail({place: self.replica.applied[place]})) as tail:
            found = tail.read(0)[:records]
        if found and place[0] == GALLERY:
            for record in found:
                self.note_seen(record)
            await self.replica.apply_gallery(GALLERY, found)
        elif found:
            await self.replica.apply_access(found)
        if self.has_caught_up():
            self.caught_up = True
            self.worker._caught_up.set()

    def note_seen(self, record: LogRecord) -> None:
        event = self.kafka.events[record.topic, record.partition][record.offset]
        if event is None:
            return
        key, law = key_of(event).decode(), law_of(event)
        if key in self.seen and law.offset < self.seen[key][0].offset:
            self.late.add(key)
        else:
            self.late.discard(key)
            self.seen[key] = law, (record.partition, record.offset)

    def places_of_late_ones(self) -> dict[str, tuple[int, int]]:
        return {key: self.seen[key][1] for key in sorted(self.late)}

    def ending_in_a_late_repeat(self, place: tuple[str, int], up_to: int) -> set[str]:
        """Return the bookings whose last gallery record before an offset is not from the highest source offset."""
        sources: dict[str, list[int]] = {}
        for event in self.kafka.events[place][:up_to]:
            if event is not None:
                sources.setdefault(key_of(event).decode(), []).append(event.source.offset)
        return {key for key, offsets in sources.items() if offsets[-1] < max(offsets)}

    def new_replica(self) -> Replica:
        generation = Generation(
            topic=GALLERY,
            gallery=FaissGallery(dimension=8, model_digest=MODEL),
            extractor=SimpleNamespace(extract=lambda _photo: FACE),
            dimension=8,
            threshold_of=lambda _: 0.5,
        )
        return Replica(generations=[generation], directory=Directory(ROOT.public_key), kafka=self.kafka)

    def read_by_a_new_replica(self) -> Replica:
        self.start_replica()
        self.run(self.catch_up(GALLERY))
        return self.replica

    def start_replica(self) -> None:
        self.replica = self.new_replica()
        self.seen, self.late, self.caught_up = {}, set(), False
        self.start_worker()

    def start_worker(self, barrier_limit_s: float = PATIENCE_S) -> None:
        """Let a new worker take over: what it keeps is the replica, as if its own had been there all the while."""
        self.barrier_limit_s = barrier_limit_s
        worker: Any = object.__new__(Worker)
        worker.replica = self.replica
        worker._parts = SimpleNamespace(kafka=self.kafka, clock=lambda: self.kafka.now)
        worker._topic = lambda topic: SimpleNamespace(send=partial(self.send_again, topic))
        worker._caught_up = asyncio.Event()
        if self.caught_up:
            worker._caught_up.set()
        worker._own_bookings = set(PARTITIONS)
        worker._read_back, worker._reading_back = {}, asyncio.Lock()
        self.known = {}
        context = Context(
            replica=self.replica,
            own_policy=POLICY,
            attempts=SimpleNamespace(attempt=lambda _position, _number: nullcontext()),
            pool=self.pool,
            searches=SearchQueue(self.pool),
            objects=SimpleNamespace(get=lambda *_, **__: b"", destroy_key=self.objects_destroyed.add),
            publish=self.send_of_worker,
            clock=lambda: self.kafka.now,
            barrier_limit_s=barrier_limit_s,
            is_audited_within=always,
            are_orders_obeyed_within=always,
        )
        worker._bookings, worker._probes = Bookings(context), Probes(context)
        self.worker = worker

    async def send_again(self, topic: str, *, key: bytes, value: bytes) -> Any:
        place = (topic, its_partition(topic, key))
        number = max(r.offset for r in self.kafka.everything[place] if (r.key, r.value) == (key, value))
        self.publish(self.kafka.everything[place][number], self.kafka.events[place][number])
        return asyncio.sleep(0)

    def start_reading_outcomes(self, at: dict[int, int]) -> None:
        tool: Any = object.__new__(CandidateListConsumer)
        tool._kind, tool._log, tool.unreadable = probe_clients._kind(NO_REGISTRY), self.kafka, 0
        tool._first_ones, tool._done = FirstOnes(tool._identities_before), {}
        self.tool, self.reading_at = tool, at

    def run_sink(self, kafka: MemoryKafka, *, at_once: int, patient: bool) -> None:
        stop = Flag()
        seconds = iter(range(0, 1_000_000, 1 if patient else 1000))
        reader = MemoryReader(kafka, at_once=at_once, drained=stop.set)
        topics = {topic for topic, _ in PLACES}
        Sink(log_reader=reader, trail=self.trail, topics=topics, monotonic=lambda: next(seconds) / 1000).run(stop)
        assert all(self.trail.has(place, at) for place, at in reader.told.items()), "told of more than the trail has"

    def audited_is_the_beginning_of_everything(self) -> None:
        for place, rows in self.trail.rows.items():
            assert [(row.offset, row.wire_sha256) for row in rows] == self.kafka.digests[place][: len(rows)]


def _after(law: Law | None, booked: tuple[UUID, ...], offset: int, event: Event) -> Law | None:
    """Return what holds for a booking after one more word of the jail."""
    at = event.occurred_at
    cause, captures = None, ()
    if isinstance(event, BookingRecorded):
        if law and (law.cause in BARRING or at < law.said_at):
            return law
        captures = tuple(photo.capture_id for photo in event.captures)
        cause = None if captures else WithdrawalCause.NO_USABLE_CAPTURE
    elif event.order is OrderKind.UNSEAL:
        is_sealed = law is not None and law.cause is WithdrawalCause.SEALED and at > law.said_at
        enrols_again = event.effect is OrderEffect.LIFT_AND_RE_ENROL
        was_lifted = law is not None and law.cause is WithdrawalCause.ORDER_LIFTED and at >= law.said_at
        if not is_sealed and not (enrols_again and was_lifted):
            return law
        captures = booked if enrols_again else ()
        cause = None if captures else WithdrawalCause.ORDER_LIFTED
    elif law and law.cause is WithdrawalCause.EXPUNGED and event.order is OrderKind.SEAL:
        return law
    else:
        cause = WithdrawalCause.SEALED if event.order is OrderKind.SEAL else WithdrawalCause.EXPUNGED
    return Law(offset, cause, max(at, law.said_at) if law else at, captures)


def law_of(event: TemplatesEnrolled | TemplatesWithdrawn) -> Law:
    captures = event.captures if isinstance(event, TemplatesEnrolled) else ()
    cause = event.cause if isinstance(event, TemplatesWithdrawn) else None
    return Law(event.source.offset, cause, event.source_said_at, tuple(photo.capture_id for photo in captures))


def searched(replica: Replica) -> dict[str, tuple[UUID, ...]]:
    """Return booking -> its capture in the list of a search for everybody."""
    found: SearchResult = replica.active.gallery.search(FACE.template, 50)
    return {row.booking_number: (row.capture_id,) for row in found.candidates}


def state_of(directory: Directory) -> tuple[Any, ...]:
    return directory.agencies, directory.users, directory.publishers, directory._owner_of_key


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop without threads, and nothing that waits or logs half a million times."""
    monkeypatch.setattr(sink_module, "RETRY_AFTER_S", 0)
    monkeypatch.setattr(signing, "verify", cache(signing.verify))
    configured = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    loop = asyncio.new_event_loop()
    loop.set_default_executor(AtOnce())
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    faiss.omp_set_num_threads(threads)
    structlog.configure(**configured)


def test_in_any_order_of_duplicates_kills_and_restarts_the_guarantees_hold(loop: asyncio.AbstractEventLoop) -> None:
    """G1, G2, G3, G5, G11."""
    run_state_machine_as_test(
        lambda: World(loop), settings=settings(max_examples=sequences(), stateful_step_count=50, deadline=None)
    )
