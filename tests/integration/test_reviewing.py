"""`leadstream review` and `leadstream notice` against a broker and the real clerk; the tests play the worker.

The broker is shared, so that booking numbers and probes are of each test's own.
"""

from __future__ import annotations

import io
import json
import logging
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
import structlog
from bureaus import INVESTIGATOR, ORI, REQUEST, new_bureau, until
from confluent_kafka import Producer
from PIL import Image

from connectors.bookings import Photo
from connectors.kafka_log import KafkaLog
from connectors.reviews import read_course
from connectors.topic_admin import TopicAdmin
from infra import cli, wiring
from infra.cli import DONE, REFUSED, USAGE
from schemas.codec import encode, topic_of
from schemas.events import (
    BookingOutcome,
    BookingProcessed,
    Candidate,
    CandidateListIssued,
    CaptureDisposition,
    CaptureOutcome,
)
from schemas.keys import key_of
from schemas.positions import derived_id
from schemas.topics import TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bureaus import Bureau

    from schemas.events import Event
    from schemas.positions import SourcePosition

pytestmark = pytest.mark.any_broker

AT = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
ALICE, BOB, UNTRAINED = "alice", "bob", "eve"
PHOTOS = 4


def photo(shade: int) -> bytes:
    coded = io.BytesIO()
    Image.new("L", (60, 80), shade).save(coded, "PNG")
    return coded.getvalue()


class WorkersPart:
    """Answers like a worker: unsigned, in the partition of the key."""

    def __init__(self, config: dict[str, str | int | bool]) -> None:
        self._producer = Producer({**config, "partitioner": "murmur2_random", "linger.ms": 0})

    def say(self, event: Event) -> None:
        self._producer.produce(topic_of(event), key=key_of(event), value=encode(event))
        assert self._producer.flush(60.0) == 0

    def answer(
        self, number: str, source: SourcePosition, outcome: BookingOutcome, captures: tuple[UUID, ...] = ()
    ) -> None:
        self.say(
            BookingProcessed(
                event_id=derived_id(source, "processed"),
                occurred_at=AT,
                actor="system:worker",
                ori=ORI,
                booking_number=number,
                source=source,
                outcome=outcome,
                captures=tuple(
                    CaptureOutcome(capture_id=each, disposition=CaptureDisposition.ENROLLED, measurements={})
                    for each in captures
                ),
            )
        )


@dataclass(frozen=True, slots=True)
class Listed:
    """A probe with a list of photos that were booked, and a synthetic template at its end."""

    probe_id: UUID
    captures: tuple[UUID, ...]
    bookings: tuple[str, ...]


@pytest.fixture(scope="module")
def bureau(bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bureau]:
    """A bureau whose clerk runs."""
    TopicAdmin(bootstrap).apply(TOPICS.values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEADSTREAM_KAFKA_BOOTSTRAP", bootstrap)
        # Landmarks are left out: these photos show no face.
        patch.setenv("LEADSTREAM_ASSETS", str(tmp_path_factory.mktemp("no-assets")))
        made = new_bureau(tmp_path_factory.mktemp("bureau") / "data")
        made.found()
        made.enlist(ALICE, "EXAMINER")
        made.enlist(BOB, "EXAMINER")
        made.enlist(UNTRAINED, "SUBMITTER")
        # The clerk runs in this process; what it logs is not what the commands print.
        configured = structlog.get_config()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        stop, clerk = threading.Event(), wiring.clerk(made.settings)
        running = threading.Thread(target=clerk.run, args=(stop,))
        running.start()
        yield made
        stop.set()
        running.join(60.0)
        structlog.configure(**configured)


@pytest.fixture
def worker(bureau: Bureau) -> WorkersPart:
    return WorkersPart(bureau.config)


@pytest.fixture
def listed(bureau: Bureau, worker: WorkersPart) -> Listed:
    """Book some photos, search with another, and answer as a worker does."""
    bookings, captures = [f"R-{uuid4()}" for _ in range(PHOTOS)], []
    with bureau.jail() as jail:
        for number, booking in enumerate(bookings):
            booked = jail.publish_booking(booking_number=booking, booked_at=AT, photos=[Photo(data=photo(number * 40))])
            worker.answer(booking, booked.position, BookingOutcome.ENROLLED, booked.capture_ids)
            captures += booked.capture_ids
    with bureau.investigator() as investigator:
        submitted = investigator.submit(photo(250), **REQUEST)
    synthetic = uuid4()
    candidates = [(number, capture) for number, capture in zip(bookings, captures, strict=True)]
    worker.say(
        CandidateListIssued(
            event_id=derived_id(submitted.probe_id, "outcome"),
            occurred_at=AT,
            actor="system:worker",
            probe_id=submitted.probe_id,
            user_id=INVESTIGATOR,
            ori=ORI,
            reason_code="FELONY_INVESTIGATION",
            case_number="26-04711",
            request=submitted.position,
            requested=20,
            returned=PHOTOS + 1,
            candidates=tuple(
                Candidate(
                    rank=rank,
                    person=f"booking:{ORI}/{number}",
                    ori=ORI,
                    booking_number=number,
                    capture_id=capture,
                    score=0.9 - rank / 100,
                    synthetic=capture == synthetic,
                )
                for rank, (number, capture) in enumerate([*candidates, ("SYNTHETIC", synthetic)], start=1)
            ),
            threshold=0.5,
            model_digest="digest",
            policy_version="1",
            gallery_watermark=(),
            access_watermark=(),
            gallery_templates=9,
            gallery_persons=9,
            measurements={},
            lead_notice="A lead, not an identification.",
        )
    )
    return Listed(submitted.probe_id, (*captures, synthetic), tuple(bookings))


class Terminal:
    """Runs commands of the bureau and keeps what they print."""

    def __init__(self, bureau: Bureau, capfd: pytest.CaptureFixture[str]) -> None:
        self._data, self._capfd = str(bureau.settings.data), capfd
        self.said = ""

    def run(self, *words: str) -> int:
        self._capfd.readouterr()
        code = cli.run([*words, "--data", self._data])
        printed = self._capfd.readouterr()
        self.said = printed.out + printed.err
        assert "Traceback" not in self.said
        assert "UNEXPECTED" not in self.said
        return code

    def json(self, *words: str) -> Any:
        self._capfd.readouterr()
        code = cli.run([*words, "--json", "--data", self._data])
        printed = self._capfd.readouterr()
        assert code == DONE, printed.err
        return json.loads(printed.out)


@pytest.fixture
def terminal(bureau: Bureau, capfd: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(bureau, capfd)


def decisions(bureau: Bureau, opened: dict[str, Any], examiner: str, supported: UUID, captures: list[UUID]) -> str:
    """Return a file as the sheet saves it: support for one candidate, the others excluded."""
    features = wiring.policy(bureau.settings).reviews.features

    def finding(capture: UUID, feature: str) -> str:
        if feature != features[0]:
            return "NOT_COMPARABLE"
        return "SIMILAR" if capture == supported else "DISSIMILAR"

    file = {
        "format": "leadstream-review-1",
        "probe_id": opened["probe_id"],
        "review_id": opened["review_id"],
        "examiner": examiner,
        "decisions": [
            {
                "capture_id": str(capture),
                "features": [{"feature": each, "finding": finding(capture, each), "note": ""} for each in features],
                "limitations": "none",
                "conclusion": "SUPPORT" if capture == supported else "EXCLUSION",
                "note": "",
            }
            for capture in captures
        ],
    }
    path = bureau.settings.data / f"decisions-{examiner}-{opened['probe_id']}.json"
    path.write_text(json.dumps(file), encoding="utf-8")
    return str(path)


def shown_to(bureau: Bureau, probe_id: UUID, examiner: str) -> tuple[UUID, ...]:
    return read_course(KafkaLog(bureau.config), probe_id).opened_by(examiner)[-1].shown


def compare(terminal: Terminal, bureau: Bureau, listed: Listed, examiner: str, supported: UUID) -> None:
    """Do a whole review as one examiner."""
    probe = str(listed.probe_id)
    opened = terminal.json("review", "open", probe, "--as", examiner)
    file = decisions(bureau, opened, examiner, supported, list(shown_to(bureau, listed.probe_id, examiner)))
    assert terminal.run("review", "decide", probe, "--as", examiner, "--from", file) == DONE, terminal.said
    assert terminal.run("review", "conclude", probe, "--as", examiner) == DONE, terminal.said


def test_a_sheet_is_for_one_examiner_in_an_order_of_its_own_and_its_digest_is_audited(
    bureau: Bureau, terminal: Terminal, listed: Listed
) -> None:
    """G8."""
    opened = terminal.json("review", "open", str(listed.probe_id), "--as", ALICE)
    path = bureau.folder.sheet(ALICE, UUID(opened["review_id"]))
    assert (opened["sheet"], opened["candidates"], opened["left_out"]) == (str(path), PHOTOS + 1, 0)
    assert path.stat().st_mode & 0o777 == 0o600
    assert {folder.stat().st_mode & 0o777 for folder in (path.parent, bureau.folder.sheets)} == {0o700}
    (said,) = read_course(KafkaLog(bureau.config), listed.probe_id).opened_by(ALICE)
    assert said.sheet_sha256 == sha256(path.read_bytes()).hexdigest()
    assert sorted(said.shown) == sorted(listed.captures)
    assert said.shown != listed.captures
    page = path.read_text(encoding="utf-8")
    assert page.count("<img") == 2 * PHOTOS + 1
    assert page.count("A synthetic template") == 1
    assert not [booking for booking in listed.bookings if booking in page]
    # Opened again it is another sheet of the same review, in the same order.
    assert terminal.json("review", "open", str(listed.probe_id), "--as", ALICE)["review_id"] == opened["review_id"]
    assert shown_to(bureau, listed.probe_id, ALICE) == said.shown


def test_who_may_not_compare_gets_no_sheet(bureau: Bureau, terminal: Terminal, listed: Listed) -> None:
    assert terminal.run("review", "open", str(listed.probe_id), "--as", UNTRAINED) == REFUSED
    assert "ROLE_MISSING" in terminal.said
    assert not (bureau.folder.sheets / UNTRAINED).exists()


def test_two_examiners_make_a_lead_the_second_one_blind_and_a_reversal_withdraws_it(
    bureau: Bureau, terminal: Terminal, listed: Listed
) -> None:
    """G8: what is refused can be mended and said again; and G6, who received the lead is told."""
    probe, supported = str(listed.probe_id), listed.captures[1]
    opened = terminal.json("review", "open", probe, "--as", ALICE)
    shown = list(shown_to(bureau, listed.probe_id, ALICE))
    file = decisions(bureau, opened, ALICE, supported, shown[1:])
    assert terminal.run("review", "decide", probe, "--as", ALICE, "--from", file) == DONE, terminal.said
    assert terminal.run("review", "conclude", probe, "--as", ALICE) == REFUSED
    assert "DISPOSITION_MISSING" in terminal.said
    one = ("review", "decide", probe, "--as", ALICE, "--candidate", "1", "--limitations", "none")
    says = ("--conclusion", "SUPPORT" if shown[0] == supported else "EXCLUSION")
    named = ("--feature", "EYES=SIMILAR" if shown[0] == supported else "EYES=DISSIMILAR:folds differ")
    assert terminal.run(*one, *says, *named) == REFUSED
    assert "FEATURES_INCOMPLETE" in terminal.said
    assert terminal.run(*one, *says, *named, "--rest", "NOT_COMPARABLE") == DONE, terminal.said
    assert terminal.json("review", "decide", probe, "--as", ALICE, "--from", file)["unchanged"] == PHOTOS
    assert terminal.run("review", "conclude", probe, "--as", ALICE) == DONE, terminal.said

    blind = terminal.json("review", "show", probe, "--as", BOB)
    assert (blind["opened"], blind["concluded"], blind["shows_all"]) == (1, 1, False)
    assert (blind["said"], blind["completed"], blind["leads"]) == ([], None, [])
    assert ALICE not in json.dumps(blind)
    assert terminal.run("review", "show", probe) == DONE
    assert "EXCLUSION" not in terminal.said
    compare(terminal, bureau, listed, BOB, supported)
    assert shown_to(bureau, listed.probe_id, BOB) not in {listed.captures, tuple(shown)}

    def leads() -> list[Any]:
        found = terminal.json("review", "leads", "--ori", ORI)["leads"]
        return [each for each in found if each["lead"]["probe_id"] == probe]

    (lead,) = until(leads, "the lead of two examiners")
    assert (lead["is_withdrawn"], lead["lead"]["capture_id"]) == (False, str(supported))
    seen = terminal.json("review", "show", probe)
    assert (seen["shows_all"], seen["is_completed"]) == (True, True)
    reverse = ("review", "reverse", probe, "--as", ALICE, "--candidate", str(supported), "--reason", "the ear differs")
    assert terminal.run(*reverse) == DONE, terminal.said
    until(lambda: leads()[0]["is_withdrawn"], "the lead is withdrawn")

    def notices() -> list[Any]:
        found = terminal.json("notice", "list", "--user", INVESTIGATOR)["notices"]
        return [each for each in found if each["notice"]["probe_id"] == probe]

    (notice,) = until(notices, "the notice")
    assert (notice["record"], notice["state"]) == ("LeadWithdrawnNotice", "OPEN")
    ident = notice["notice"]["event_id"]
    acknowledge = ("notice", "acknowledge", ident, "--as", INVESTIGATOR, "--statement")
    assert terminal.run(*acknowledge, " ") == REFUSED
    assert "STATEMENT_MISSING" in terminal.said
    assert terminal.run(*acknowledge, "Printout shredded.") == DONE, terminal.said
    assert notices()[0]["state"] == "ACKNOWLEDGED"
    assert terminal.run("notice", "acknowledge", str(uuid4()), "--as", BOB, "--statement", "x") == REFUSED
    assert "NOTICE_UNKNOWN" in terminal.said


def test_a_candidate_under_a_court_order_is_on_no_sheet_and_its_photo_is_not_read(
    bureau: Bureau, terminal: Terminal, listed: Listed, worker: WorkersPart
) -> None:
    """G5."""
    sealed = listed.bookings[0]
    with bureau.jail() as jail:
        order = jail.publish_order(
            booking_number=sealed,
            order="seal",
            statute="CA PC 851.91",
            court="Superior Court",
            order_number="S-1",
            ordered_at=AT,
        )
    worker.answer(sealed, order.position, BookingOutcome.WITHDRAWN)
    opened = terminal.json("review", "open", str(listed.probe_id), "--as", ALICE)
    assert (opened["candidates"], opened["left_out"]) == (PHOTOS, 1)
    assert listed.captures[0] not in shown_to(bureau, listed.probe_id, ALICE)
    page = bureau.folder.sheet(ALICE, UUID(opened["review_id"])).read_text(encoding="utf-8")
    assert str(listed.captures[0]) not in page


def test_a_photo_that_a_correction_took_away_is_not_shown(
    bureau: Bureau, terminal: Terminal, listed: Listed, worker: WorkersPart, tmp_path: Path
) -> None:
    with bureau.jail() as jail:
        corrected = jail.publish_booking(booking_number=listed.bookings[0], booked_at=AT, photos=[])
    worker.answer(listed.bookings[0], corrected.position, BookingOutcome.NOT_ENROLLED)
    sheet = tmp_path / "mine" / "sheet.html"
    assert terminal.run("review", "open", str(listed.probe_id), "--as", ALICE, "--out", str(sheet)) == DONE
    page = sheet.read_text(encoding="utf-8")
    assert page.count("The booking has this photo no longer.") == 1
    assert str(listed.captures[0]) in page


@pytest.mark.parametrize(
    "words",
    [
        ("review", "decide", "PROBE", "--as", ALICE),
        ("review", "decide", "PROBE", "--as", ALICE, "--candidate", "1"),
        ("review", "decide", "PROBE", "--as", ALICE, "--candidate", "99", "--conclusion", "EXCLUSION"),
        ("review", "decide", "PROBE", "--as", ALICE, "--candidate", "x", "--conclusion", "EXCLUSION"),
        ("review", "decide", "PROBE", "--as", ALICE, "--candidate", "1", "--conclusion", "IDENTIFIED"),
        ("review", "decide", "PROBE", "--as", ALICE, "--from", "/nowhere.json"),
        ("review", "open", "no-probe", "--as", ALICE),
        ("review", "open", "PROBE", "--as", "nobody"),
        ("review", "show", "PROBE", "--as", "nobody"),
        ("notice", "acknowledge", "no-notice", "--as", ALICE, "--statement", "x"),
    ],
)
def test_wrong_words_are_a_usage_error(terminal: Terminal, words: tuple[str, ...]) -> None:
    assert terminal.run(*(str(uuid4()) if word == "PROBE" else word for word in words)) == USAGE


def test_the_decisions_of_another_examiner_are_not_taken(bureau: Bureau, terminal: Terminal, listed: Listed) -> None:
    probe = str(listed.probe_id)
    opened = terminal.json("review", "open", probe, "--as", ALICE)
    file = decisions(bureau, opened, ALICE, listed.captures[0], list(listed.captures))
    assert terminal.run("review", "decide", probe, "--as", BOB, "--from", file) == USAGE
    assert "another review" in terminal.said


def test_a_probe_without_a_list_cannot_be_reviewed(terminal: Terminal) -> None:
    assert terminal.run("review", "open", str(uuid4()), "--as", ALICE) == REFUSED
    assert "LIST_UNKNOWN" in terminal.said
