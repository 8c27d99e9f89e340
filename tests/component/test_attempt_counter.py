"""What crashes the process twice is not tried a third time, and nothing else is blamed for it (G12)."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from threading import Event, Thread
from typing import TYPE_CHECKING

import pytest

from connectors.attempt_counter import AttemptCounter
from schemas.errors import DomainFault, TransientError
from schemas.positions import SourcePosition
from schemas.topics import BOOKING_EVENTS, PROBE_REQUESTS

if TYPE_CHECKING:
    from pathlib import Path

BOOKING = SourcePosition(topic=BOOKING_EVENTS, partition=3, offset=17)
PROBE = SourcePosition(topic=PROBE_REQUESTS, partition=3, offset=17)
LIMIT_S = 30

ABORT_WITHIN = """
import os, resource, sys
from pathlib import Path
from connectors.attempt_counter import AttemptCounter
from schemas.positions import SourcePosition

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
folder, topic, partition, offset, number = sys.argv[1:]
position = SourcePosition(topic=topic, partition=int(partition), offset=int(offset))
with AttemptCounter(Path(folder)).attempt(position, int(number)):
    os.abort()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "attempts"


def crash(folder: Path, position: SourcePosition, number: int = 0) -> None:
    facts = [str(folder), position.topic, str(position.partition), str(position.offset), str(number)]
    assert subprocess.run([sys.executable, "-c", ABORT_WITHIN, *facts], check=False, timeout=LIMIT_S).returncode < 0


def work(folder: Path, position: SourcePosition, number: int = 0) -> None:
    with AttemptCounter(folder).attempt(position, number):
        pass


def test_work_that_ends_leaves_nothing_behind(folder: Path) -> None:
    for _ in range(5):
        work(folder, BOOKING)
    assert list(folder.iterdir()) == []


def test_an_exception_is_an_end_too(folder: Path) -> None:
    counter = AttemptCounter(folder)
    for _ in range(5):
        with pytest.raises(ValueError, match="bad photo"), counter.attempt(BOOKING, 0):
            raise ValueError("bad photo")
    assert list(folder.iterdir()) == []


def test_what_crashed_the_process_twice_is_poison_from_then_on_and_nothing_else_is(folder: Path) -> None:
    crash(folder, BOOKING, 1)
    crash(folder, BOOKING, 1)
    for _ in range(3):
        with pytest.raises(DomainFault, match="image 2 of the record") as fault:
            work(folder, BOOKING, 1)
        assert fault.value.code == "POISON"
    for position, number in ((BOOKING, 0), (PROBE, 1)):
        work(folder, position, number)


def test_one_crash_is_forgiven_when_the_next_attempt_ends(folder: Path) -> None:
    for _ in range(3):
        crash(folder, BOOKING)
        work(folder, BOOKING)
    assert list(folder.iterdir()) == []


def test_a_suspect_is_worked_on_alone_so_that_no_other_is_blamed_again(folder: Path) -> None:
    crash(folder, BOOKING)
    counter, entered, left = AttemptCounter(folder), Event(), Event()

    def suspect() -> None:
        with counter.attempt(BOOKING, 0):
            entered.set()
            assert left.wait(LIMIT_S)

    def innocent() -> None:
        with counter.attempt(PROBE, 0):
            assert left.is_set(), "worked beside the suspect"

    others = ExitStack()
    others.enter_context(counter.attempt(PROBE, 1))
    threads = [Thread(target=suspect), Thread(target=innocent)]
    threads[0].start()
    assert not entered.wait(0.05), "the suspect did not wait for the others"
    others.close()
    assert entered.wait(LIMIT_S)
    threads[1].start()
    assert [mark.name.split("-")[0] for mark in folder.iterdir()] == [BOOKING_EVENTS]
    left.set()
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    assert list(folder.iterdir()) == []


def test_others_work_side_by_side(folder: Path) -> None:
    counter = AttemptCounter(folder)
    with counter.attempt(BOOKING, 0), counter.attempt(PROBE, 0):
        assert len(list(folder.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_waited_for(folder: Path) -> None:
    counter = AttemptCounter(folder)
    folder.rmdir()
    with pytest.raises(TransientError, match="mend the disk"), counter.attempt(BOOKING, 0):
        pytest.fail("worked without a mark")
    folder.mkdir()
    with counter.attempt(BOOKING, 0):
        pass
