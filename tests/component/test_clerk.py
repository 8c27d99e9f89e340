"""The clerk at work: it waits and goes on, decides only what is current, deletes before it says so, repeats nothing.

Kafka is in memory, object store and folder of sheets are real. What is due is tested in `unit/test_casebook.py`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, cast

import pytest
from builders import (
    ERIN,
    FINN,
    JAIL,
    POLICY,
    PROBE,
    ROOT,
    access_revoked,
    by_root,
    candidate_reviewed,
    image_viewed,
    list_issued,
    order_answered,
    record_order,
    review_concluded,
    review_id_of,
    signed,
    unsigned,
    uuid_named,
    with_examiners,
)
from memory import Killed, MemoryKafka, MemoryReader
from structlog.testing import capture_logs

from connectors.key_custody import FileMasterKey
from connectors.object_store import ObjectStore
from infra.data_folder import DataFolder
from processors.access import ROOT_ADMINISTRATOR, Directory
from processors.casebook import FOLLOWED, CaseBook
from schemas.codec import decode, topic_of
from schemas.errors import DomainFault, TransientError
from schemas.events import (
    DeadLetter,
    LeadIssued,
    OrderKind,
    OriginalRecord,
    RetainedDataDestroyed,
    RetentionRunRequested,
    ReviewAnswered,
    SealedRecordNotice,
)
from schemas.keys import key_of, partition_of, probe_scope
from schemas.topics import ACCESS, DEAD_LETTERS, NOTICES, REVIEW_EVENTS, REVIEW_OUTCOMES, TOPICS
from streams.clerk import Clerk

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path
    from threading import Event as Flag

    from connectors.signing_keys import SigningKey
    from schemas.events import Event
    from schemas.records import LogRecord

PLACES = [(topic, partition) for topic in FOLLOWED for partition in range(TOPICS[topic].partitions)]
PHOTO = b"the image of a probe"
TURNS = 30


class Turns:
    """A flag that is raised after so many turns, and on which nobody waits."""

    def __init__(self, turns: int) -> None:
        self._left = turns

    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0

    def wait(self, _timeout_s: float) -> bool:
        return False


class Office:
    """One clerk after the other on a Kafka in memory; each question and each publication has a fate."""

    def __init__(self, folder: Path) -> None:
        self.kafka = MemoryKafka(PLACES)
        self.objects = ObjectStore(folder / "objects", FileMasterKey(bytes(range(32))))
        self.folder = DataFolder(folder)
        self.later = timedelta(0)
        self.seconds = 0.0
        self.away: list[str] = []
        """What is away the next times: "ends", "read" or "publish"."""
        self.dies_before: type[Event] | None = None
        self.dies_after: int | None = None
        """So many writes."""
        self.waited_for: set[str] = set()
        """What the clerk said it waits for, whenever it asked something."""
        self._at_work: Clerk | None = None
        for record in with_examiners().records:
            self.kafka.append(record, None)

    # What others say and write.

    def say(self, event: Event, key: SigningKey) -> LogRecord:
        return self.kafka.append(signed(event, key, partition=partition_of(topic_of(event), key_of(event))), event)

    def write(self, event: Event) -> LogRecord:
        return self.kafka.append(unsigned(event, partition=partition_of(topic_of(event), key_of(event))), event)

    def reviews(self, *users: str) -> None:
        for user, key in (("erin", ERIN), ("finn", FINN)):
            if user in users:
                self.say(image_viewed(user, ("B-1",)), key)
                self.say(candidate_reviewed(user, "B-1"), key)
                self.say(review_concluded(user), key)

    # The clerk.

    def clerk(self, reader: MemoryReader | None = None) -> Clerk:
        return Clerk(
            log_reader=cast("Any", Reading(self, reader or MemoryReader(self.kafka))),
            end_offsets=self._ends,
            publish=self._publish,
            objects=self.objects,
            destroy_sheets=self.folder.destroy_sheets,
            casebook=CaseBook(Directory(ROOT.public_key), POLICY),
            clock=self._clock,
            monotonic=self._monotonic,
        )

    def work(self, clerk: Clerk | None = None, turns: int = TURNS) -> Clerk:
        clerk = self._at_work = clerk or self.clerk()
        clerk.run(cast("Flag", Turns(turns)))
        return clerk

    def written(self, *topics: str) -> list[Event]:
        """Return what stands in topics that the clerk writes to."""
        return [
            event
            for place in PLACES
            if place[0] in (topics or (REVIEW_OUTCOMES, NOTICES, DEAD_LETTERS))
            for event in self.kafka.events[place]
            if event is not None
        ]

    def _clock(self) -> datetime:
        return self.kafka.now + self.later

    def _monotonic(self) -> float:
        self.seconds += 1.0
        return self.seconds

    def _ends(self, topics: Collection[str]) -> Mapping[tuple[str, int], int]:
        self.meet_fate("ends")
        return self.kafka.end_offsets(topics)

    def _publish(self, events: Sequence[Event]) -> None:
        for event in events:
            if self.dies_before is type(event) or self.dies_after == len(self.written()):
                raise Killed
            self.write(event)
            self.meet_fate("publish")

    def meet_fate(self, what: str) -> None:
        if self._at_work is not None:
            self.waited_for.add(self._at_work.progress.waiting_for)
        if self.away and self.away[0] == what:
            self.away.pop(0)
            raise TransientError(f"Kafka is away ({what}).")


class Reading:
    """Kafka for reading, which may be away."""

    def __init__(self, office: Office, reader: MemoryReader) -> None:
        self._office, self._reader = office, reader
        self.start, self.passed = reader.start, reader.passed

    def read(self, timeout_s: float) -> list[LogRecord]:
        self._office.meet_fate("read")
        return self._reader.read(timeout_s)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def kinds(events: Sequence[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_a_clerk_that_starts_anew_writes_nothing_a_second_time(office: Office) -> None:
    """G8, G11."""
    office.write(list_issued("B-1"))
    office.reviews("erin", "finn")
    first = office.work()
    written = office.written()
    assert kinds(written) == ["ReviewAnswered"] * 6 + ["ReviewCompleted", "LeadIssued"]
    assert first.progress.written == len(written)
    second = office.work()
    assert (second.progress.written, second.progress.lag_records, office.written()) == (0, 0, written)


@pytest.mark.parametrize("kill_at", range(8))
def test_a_clerk_that_is_killed_after_any_of_its_writes_goes_on_where_it_was(office: Office, kill_at: int) -> None:
    """G8, G11: the state is what was read back."""
    office.write(list_issued("B-1"))
    office.reviews("erin", "finn")
    office.dies_after = kill_at
    with pytest.raises(Killed):
        office.work()
    office.dies_after = None
    office.work()
    assert sorted(kinds(office.written())) == ["LeadIssued", *["ReviewAnswered"] * 6, "ReviewCompleted"]


@pytest.mark.parametrize("what", ["ends", "read", "publish"])
def test_while_kafka_is_away_it_waits_says_so_once_and_goes_on_by_itself(office: Office, what: str) -> None:
    office.write(list_issued("B-1"))
    office.reviews("erin", "finn")
    office.away = [what] * 3
    with capture_logs() as said:
        clerk = office.work()
    assert office.waited_for == {"", f"Kafka is away ({what})."}
    assert clerk.progress.waiting_for == ""
    assert [line["event"] for line in said if line["event"] in {"clerk waits", "clerk goes on"}] == [
        "clerk waits",
        "clerk goes on",
    ]
    leads = [event for event in office.written() if isinstance(event, LeadIssued)]
    assert len({lead.event_id for lead in leads}) == 1
    assert all(event.accepted for event in office.written() if isinstance(event, ReviewAnswered))


class OneByOne(MemoryReader):
    """Reads one record at a time, and the access topic last of all."""

    def __init__(self, kafka: MemoryKafka) -> None:
        super().__init__(kafka, at_once=1)

    def start(self, offsets: Mapping[tuple[str, int], int]) -> None:
        super().start(dict(sorted(offsets.items(), key=lambda item: item[0][0] == ACCESS)))


def test_it_decides_nothing_before_it_has_read_what_stood_in_kafka(office: Office) -> None:
    """G3, G8: the revocation is the last record that it reads."""
    office.write(list_issued("B-1"))
    office.say(image_viewed("erin", ("B-1",)), ERIN)
    office.say(access_revoked("erin"), ROOT)
    unread = sum(len(records) for records in office.kafka.everything.values())
    clerk = office.clerk(OneByOne(office.kafka))
    assert clerk.progress.lag_records is None
    office.work(clerk, turns=unread - 1)
    assert (clerk.progress.lag_records, office.written()) == (1, [])
    office.work(turns=unread + 5)
    (answer,) = office.written()
    assert isinstance(answer, ReviewAnswered)
    assert answer.code == "ACCESS_REVOKED"


class WhileOthersWrite(MemoryReader):
    """Whenever something is read, somebody has booked somebody else."""

    def __init__(self, office: Office) -> None:
        super().__init__(office.kafka)
        self._office = office

    def read(self, timeout_s: float) -> list[LogRecord]:
        found = super().read(timeout_s)
        self._office.say(record_order(OrderKind.SEAL, f"X-{self._office.kafka.seconds}"), JAIL)
        return found


def test_it_does_not_wait_for_a_moment_in_which_nobody_writes(office: Office) -> None:
    """In a busy bureau there is none."""
    office.write(list_issued("B-1"))
    office.reviews("erin", "finn")
    office.work(office.clerk(WhileOthersWrite(office)), turns=60)
    assert "LeadIssued" in kinds(office.written())


# What it deletes.


def probe_with_image(office: Office) -> str:
    reference = office.objects.put(probe_scope(PROBE), "image", PHOTO).reference
    office.write(list_issued("B-1"))
    office.later = timedelta(days=POLICY.retention.probe_image_days, minutes=1)
    return reference


def is_there(office: Office, reference: str) -> bool:
    try:
        return office.objects.get(reference, sha256(PHOTO).hexdigest()) == PHOTO
    except DomainFault:
        return False


def test_it_deletes_before_it_says_so(office: Office) -> None:
    reference = probe_with_image(office)
    office.dies_before = RetainedDataDestroyed
    with pytest.raises(Killed):
        office.work()
    assert (is_there(office, reference), office.written()) == (False, [])
    office.dies_before = None
    office.work()
    office.work()
    (said,) = office.written()
    assert isinstance(said, RetainedDataDestroyed)
    assert (said.items, said.probe_id, said.requested_by) == (("PROBE_IMAGE",), PROBE, None)


def test_what_it_could_not_delete_it_does_not_say_it_deleted(office: Office) -> None:
    reference = probe_with_image(office)
    store = office.folder.root / "objects"
    store.rename(store.with_name("unmounted"))
    clerk = office.work()
    assert clerk.progress.waiting_for
    assert office.written() == []
    store.with_name("unmounted").rename(store)
    office.work()
    assert (is_there(office, reference), kinds(office.written())) == (False, ["RetainedDataDestroyed"])


def test_an_administrator_has_it_delete_at_once_and_once(office: Office) -> None:
    office.write(list_issued("B-1"))
    clerk = office.work()
    assert office.written() == []
    office.later = timedelta(days=POLICY.retention.probe_image_days, minutes=1)
    asked = by_root(user_id=ROOT_ADMINISTRATOR, due_by=office._clock(), occurred_at=office._clock())
    office.say(RetentionRunRequested(**asked), ROOT)
    office.work(clerk)
    office.work()
    (said,) = office.written()
    assert isinstance(said, RetainedDataDestroyed)
    assert said.requested_by == ROOT_ADMINISTRATOR


def sealed_after_viewing(office: Office) -> Path:
    """Let Erin have a sheet of a record that is then sealed; return the sheet."""
    sheet = office.folder.sheet("erin", review_id_of("erin"))
    sheet.parent.mkdir(parents=True)
    sheet.write_text("two faces")
    office.write(list_issued("B-1"))
    office.say(image_viewed("erin", ("B-1",)), ERIN)
    office.work()
    order = office.say(record_order(OrderKind.SEAL), JAIL)
    office.write(order_answered(OrderKind.SEAL, order.position))
    return sheet


def test_sheets_that_show_what_a_court_has_sealed_are_deleted_before_the_notice(office: Office) -> None:
    """G6."""
    sheet = sealed_after_viewing(office)
    other = sheet.with_name(f"{uuid_named('another review')}.html")
    other.write_text("other faces")
    office.dies_before = SealedRecordNotice
    with pytest.raises(Killed):
        office.work()
    assert (sheet.exists(), other.exists()) == (False, True)
    office.dies_before = None
    office.work()
    assert kinds(office.written(NOTICES)) == ["SealedRecordNotice"] * 2


def test_a_sheet_that_cannot_be_deleted_holds_up_no_notice(office: Office) -> None:
    """G6."""
    sheet = sealed_after_viewing(office)
    sheet.unlink()
    sheet.mkdir()  # No file, so unlinking it fails.
    with capture_logs() as said:
        office.work()
    assert kinds(office.written(NOTICES)) == ["SealedRecordNotice"] * 2
    assert [line for line in said if line["event"] == "sheet not deleted"]


# What nobody can read.


def test_what_cannot_be_read_becomes_a_dead_letter_with_its_bytes_once(office: Office) -> None:
    """G10, G12."""
    good = signed(image_viewed("erin", ("B-1",)), ERIN, partition=partition_of(REVIEW_EVENTS, str(PROBE).encode()))
    garbage = b"\xff not a record \x00"
    office.kafka.append(replace(good, value=garbage), None)
    office.kafka.append(replace(good, value=None), None)
    office.write(list_issued("B-1"))
    office.say(image_viewed("erin", ("B-1",)), ERIN)
    office.work()
    office.work()
    letters = [event for event in office.written(DEAD_LETTERS) if isinstance(event, DeadLetter)]
    assert [(letter.code, letter.source.offset, letter.stage) for letter in letters] == [
        ("CONTRACT", 0, "clerk"),
        ("CONTRACT", 1, "clerk"),
    ]
    assert letters[0].value_sha256 == sha256(garbage).hexdigest()
    assert "not a record" not in letters[0].message
    scope = f"dead-letter/{letters[0].event_id}"
    original = decode(office.objects.fetch(str(letters[0].reference), scope=scope))
    assert isinstance(original, OriginalRecord)
    assert (original.key, original.value) == (good.key, garbage)
    assert [(header.name, header.value) for header in original.headers] == list(good.headers)
    # What came after it was answered.
    assert [event.accepted for event in office.written() if isinstance(event, ReviewAnswered)] == [True]
