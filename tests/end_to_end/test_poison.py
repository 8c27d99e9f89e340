"""A photo that crashes native code twice is set aside, and everything behind it is processed (G12).

So is one that ends the whole worker, whatever did that; one that never comes to an end is refused.
"""

from __future__ import annotations

import json
import signal
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import hostile_child
import pytest
from bureaus import LIMIT_S, ORI, REQUEST, Bureau, new_bureau

from connectors.bookings import Photo
from infra import wiring
from infra.brokers.process import ChildProcess
from infra.local_system import LocalSystem
from infra.settings import SETTINGS_FILE
from schemas.events import BookingOutcome, CandidateListIssued, ProbeRefused
from schemas.keys import booking_key, partition_of
from schemas.topics import BOOKING_EVENTS, DEAD_LETTERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.bookings import Published
    from infra.brokers import Kind

# Starts systems of its own: on the embedded broker, which keeps two cores busy by itself, that takes minutes.
pytestmark = pytest.mark.kafka
NAME = "worker-1"


@pytest.fixture
def system(tmp_path: Path, broker_kind: Kind) -> Iterator[tuple[Bureau, LocalSystem]]:
    bureau = new_bureau(tmp_path / "data")
    with LocalSystem(bureau.settings, broker=broker_kind, workers=0, say=print) as running:
        bureau.found()
        yield bureau, running


def start(bureau: Bureau, system: LocalSystem, build: str, *arguments: str) -> ChildProcess:
    """Start a test build of a worker."""
    bureau.folder.withdraw(NAME)
    script = Path(__file__).with_name(build)
    child = ChildProcess(
        [sys.executable, str(script), str(bureau.folder.root.resolve()), NAME, *arguments],
        folder=Path.cwd(),
        console=bureau.folder.logs / f"{NAME}.log",
    )
    child.start()
    system.children[NAME] = child
    return child


def partition(number: str) -> int:
    return partition_of(BOOKING_EVENTS, booking_key(ORI, number).encode())


def behind(number: str) -> str:
    """Return a booking number in the same partition."""
    others = (f"BEHIND-{n}" for n in range(1000))
    return next(other for other in others if partition(other) == partition(number))


def dead_letters(bureau: Bureau) -> list[dict[str, object]]:
    rows = bureau.audit("SELECT payload FROM audit.events WHERE topic = {topic:String}", topic=DEAD_LETTERS)
    return [json.loads(payload) for (payload,) in rows]


def test_a_photo_that_ends_the_worker_is_a_dead_letter_after_two_crashes_and_no_more(
    system: tuple[Bureau, LocalSystem], photos: dict[str, bytes]
) -> None:
    """Crash, restart, crash, restart, dead letter, next event; whoever was being worked on beside it is not blamed."""
    bureau, running = system
    poison = photos["E1"]
    with bureau.jail() as jail, bureau.investigator() as investigator:
        poisoned = jail.publish_booking(
            booking_number="POISON",
            booked_at=wiring.now(),
            photos=[Photo(data=photos["A1"]), Photo(data=poison)],
        )
        good = jail.publish_booking(
            booking_number=behind("POISON"), booked_at=wiring.now(), photos=[Photo(data=photos["B1"])]
        )
        probes = [investigator.submit(photos["A2"], **REQUEST) for _ in range(5)]
        for _ in range(2):
            child = start(bureau, running, "crashing_worker.py", sha256(poison).hexdigest())
            assert child.wait(LIMIT_S)
            assert child.poll() == -signal.SIGABRT
        alive = start(bureau, running, "crashing_worker.py", sha256(poison).hexdigest())

        refused = jail.await_outcome(poisoned, LIMIT_S)
        assert (refused.outcome, refused.code) == (BookingOutcome.REFUSED, "PROCESSING_FAILED")
        assert jail.await_outcome(good, LIMIT_S).outcome is BookingOutcome.ENROLLED
        for probe in probes:
            assert isinstance(investigator.await_outcome(probe, LIMIT_S), CandidateListIssued)
    assert alive.poll() is None
    bureau.audited()
    (letter,) = dead_letters(bureau)
    assert (letter["stage"], letter["code"]) == ("bookings", "POISON")
    assert "image 2" in str(letter["message"])


def test_a_photo_that_aborts_the_decoder_or_never_returns_harms_nobody(
    system: tuple[Bureau, LocalSystem], photos: dict[str, bytes]
) -> None:
    """The worker does not end for it: one is a dead letter, the other a refusal, and all others have their answers."""
    bureau, running = system
    (bureau.folder.root / SETTINGS_FILE).write_text("extraction_limit_s = 2.0\n", encoding="utf-8")
    worker = start(bureau, running, "hostile_worker.py")
    with bureau.jail() as jail, bureau.investigator() as investigator:

        def book(number: str, *data: bytes) -> Published:
            photos = [Photo(data=each) for each in data]
            return jail.publish_booking(booking_number=number, booked_at=wiring.now(), photos=photos)

        aborts = book("ABORTS", photos["A1"], hostile_child.ABORTS)
        never = book("NEVER", photos["C1"], hostile_child.NEVER_RETURNS)
        good = [book(behind(number), photos["B1"]) for number in ("ABORTS", "NEVER")]
        probes = [investigator.submit(photos["A2"], **REQUEST) for _ in range(5)]
        hostile = investigator.submit(hostile_child.NEVER_RETURNS, **REQUEST)

        set_aside = jail.await_outcome(aborts, LIMIT_S)
        assert (set_aside.outcome, set_aside.code) == (BookingOutcome.REFUSED, "PROCESSING_FAILED")
        enrolled = jail.await_outcome(never, LIMIT_S)
        assert enrolled.outcome is BookingOutcome.ENROLLED
        assert [capture.code for capture in enrolled.captures] == [None, "UNDECODABLE"]
        for published in good:
            assert jail.await_outcome(published, LIMIT_S).outcome is BookingOutcome.ENROLLED
        for probe in probes:
            assert isinstance(investigator.await_outcome(probe, LIMIT_S), CandidateListIssued)
        refused = investigator.await_outcome(hostile, LIMIT_S)
        assert isinstance(refused, ProbeRefused)
        assert refused.code == "UNDECODABLE"
    assert worker.poll() is None
    bureau.audited()
    (letter,) = dead_letters(bureau)
    assert (letter["stage"], letter["code"]) == ("bookings", "POISON")
    assert "Image 2" in str(letter["message"])
