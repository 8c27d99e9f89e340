"""Extract templates in child processes, so that no image can harm or hold up anything but the process that reads it.

An image that makes native code abort ends its own process; one that keeps it busy too long is ended by the kernel: the
child limits its own processor time before each image (SIGXCPU), and the time on the clock behind that (SIGALRM). The
other processes go on, and the one that ended is started again. What an image costs therefore never depends on how busy
the machine is.

An image that takes over its process has that process and no more: what comes back is JSON of a few kilobytes that is
checked like anything from outside, never pickle.

As fast as threads on two cores (docs/performance.md): the time of an image is spent where Python's lock is free.

Source: setrlimit(2), alarm(2).
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import ceil
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import cv2

from connectors.attempt_counter import MAX_ATTEMPTS, POISON
from connectors.face_extractor import FaceExtractor
from processors.extraction import Extraction, extraction_from_bytes, extraction_to_bytes
from processors.model_card import card_to_json, parse_model_card
from processors.refusals import Refusal, RefusalCode
from schemas.errors import ContractError, DomainFault, IntegrityError, LeadstreamError, place_of

if TYPE_CHECKING:
    from processors.model_card import ModelCard

UNEXPECTED = "UNEXPECTED"
CHILD = (sys.executable, "-c", "from connectors.extraction_processes import serve; serve()")
CLOCK_LIMIT_S = 300.0
"""After so long on the clock an image is ended that takes no processor time, because it waits for something."""
_STOP_LIMIT_S = 5.0
_LONGEST_ANSWER = 1 << 20
_LONGEST_TEXT = 300
_READY = b"ready"
_FAILURES: dict[str, type[LeadstreamError]] = {each.__name__: each for each in (ContractError, IntegrityError)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What a child is for; the first thing it is told."""

    card: str
    """As `card_to_json` writes it."""
    pack_dir: str
    limit_s: float
    clock_limit_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """What went wrong in a child. Exceptions themselves may quote what they were raised for (G10)."""

    failure: str
    """Name of the exception; not one of `_FAILURES`: nobody foresaw it."""
    text: str


class ExtractionProcesses:
    """An extractor that works in processes of its own; safe to use from several threads, best from more than there are.

    They end when this process closes its connections to them, also by dying.

    Args:
        card: of the model pack.
        pack_dir: where its files are.
        processes: how many images are worked on at a time.
        limit_s: processor time that one image may take.
        clock_limit_s: time on the clock that it may take; far more, since it depends on what else the machine does.

    Raises (on construction):
        IntegrityError: a file of the pack is missing or its SHA-256 is not the card's.
        ContractError: the models are not as the card says.
    """

    def __init__(
        self,
        card: ModelCard,
        pack_dir: Path,
        *,
        processes: int,
        limit_s: float,
        clock_limit_s: float = CLOCK_LIMIT_S,
    ) -> None:
        self.card = card
        self._limit_s = limit_s
        job = _Job(card=card_to_json(card), pack_dir=str(pack_dir), limit_s=limit_s, clock_limit_s=clock_limit_s)
        self._children = [_Child(job) for _ in range(processes)]
        self._idle: SimpleQueue[_Child] = SimpleQueue()
        try:
            for child in self._children:
                child.await_ready()
                self._idle.put(child)
        except BaseException:
            self.close()
            raise

    def extract(self, photo: bytes, /) -> Extraction:
        """Return the template of the one person in the photo, or why there is none; wait for a process that is idle.

        Raises:
            DomainFault: POISON, the photo has ended two processes; UNEXPECTED, an exception that nobody foresaw.
            ContractError: the models answer otherwise than the card says.
        """
        child = self._idle.get()
        try:
            for _ in range(MAX_ATTEMPTS):
                answer = _understood(child.extract(photo), self.card.recogniser.dimension)
                if isinstance(answer, _Failure):
                    raise _error_of(answer)
                if answer is not None:
                    return answer
                ended_by = child.start_again()
                if ended_by == -signal.SIGXCPU:
                    return Refusal(
                        code=RefusalCode.UNDECODABLE,
                        message=f"Reading the photo takes more than {self._limit_s:g} s: save it anew and send that.",
                    )
        finally:
            self._idle.put(child)
        raise DomainFault(
            POISON,
            f"{MAX_ATTEMPTS} processes ended while they read it (the last with {ended_by}). Do not send it again; look "
            "at the original with care.",
        )

    @property
    def process_ids(self) -> list[int]:
        """The processes, for whoever measures them."""
        return [child.pid for child in self._children]

    def close(self) -> None:
        """End the processes."""
        for child in self._children:
            child.close()


class _Child:
    """One process and the connection to it; used by one thread at a time."""

    def __init__(self, job: _Job) -> None:
        self._job = job
        self._is_ready = False
        self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def extract(self, photo: bytes) -> bytes | None:
        """Return the answer to a photo; None: the process ended."""
        self.await_ready()
        try:
            self._connection.send_bytes(photo)
            # Later than the kernel would have ended it: only what has taken the process over is still there.
            if not self._connection.poll(self._job.clock_limit_s + _STOP_LIMIT_S):
                return None
            return self._connection.recv_bytes(_LONGEST_ANSWER)
        except (EOFError, OSError):
            return None

    def await_ready(self) -> None:
        """Wait until the models are loaded."""
        if self._is_ready:
            return
        try:
            answer = self._connection.recv_bytes(_LONGEST_ANSWER)
        except (EOFError, OSError):
            raise IntegrityError(f"A process of extraction ended with {self._ended()}.") from None
        if answer != _READY:
            raise _error_of(_failure_in(answer) or _Failure(failure="", text="A process of extraction did not start."))
        self._is_ready = True

    def start_again(self) -> int:
        """Start a new process in the place of the one that ended, and return with which code that was."""
        code = self._ended()
        self._start()
        return code

    def close(self) -> None:
        self._ended()

    def _start(self) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            # In a session of its own, so that what stops this process leaves the image under way to come to its end.
            self._process = subprocess.Popen(  # noqa: S603 - made of no outside text
                [*CHILD, str(theirs.fileno())], pass_fds=[theirs.fileno()], start_new_session=True
            )
        self._is_ready = False
        with suppress(OSError):  # it ended already; that is told to who waits for it
            self._connection.send_bytes(json.dumps(asdict(self._job)).encode())

    def _ended(self) -> int:
        self._connection.close()
        try:
            return self._process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _understood(answer: bytes | None, dimension: int) -> Extraction | _Failure | None:
    """Return what a child answered; None where it ended, or says what no child of ours would say."""
    if answer is None:
        return None
    failure = _failure_in(answer)
    if failure is not None:
        return failure
    try:
        return extraction_from_bytes(answer, dimension=dimension)
    except ContractError:
        return None


def _failure_in(answer: bytes) -> _Failure | None:
    try:
        facts = json.loads(answer)
        return _Failure(failure=str(facts["failure"]), text=str(facts["text"])[:_LONGEST_TEXT])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _error_of(failure: _Failure) -> LeadstreamError:
    kind = _FAILURES.get(failure.failure)
    return DomainFault(UNEXPECTED, failure.text) if kind is None else kind(failure.text)


def serve() -> None:
    """Be a child on the connection that the last argument names: extract what comes, until it is closed."""
    connection: Connection[bytes, bytes] = Connection(int(sys.argv[-1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)  # One core a process, whatever library is at work.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # What it had in memory are photos (G10).
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        job = _Job(**json.loads(connection.recv_bytes()))
        extractor = _opened(job)
        if isinstance(extractor, _Failure):
            connection.send_bytes(json.dumps(asdict(extractor)).encode())
            return
        connection.send_bytes(_READY)
        while True:
            photo = connection.recv_bytes()
            _limit(job)
            answer = _extracted(extractor, photo)
            signal.alarm(0)
            connection.send_bytes(answer)


def _opened(job: _Job) -> FaceExtractor | _Failure:
    try:
        return FaceExtractor(parse_model_card(json.loads(job.card)), Path(job.pack_dir))
    except (IntegrityError, ContractError) as error:
        return _Failure(failure=type(error).__name__, text=str(error))


def _limit(job: _Job) -> None:
    """Let the kernel end this process if the next image takes too long."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (ceil(time.process_time() + job.limit_s), hard))
    signal.alarm(ceil(job.clock_limit_s))


def _extracted(extractor: FaceExtractor, photo: bytes) -> bytes:
    try:
        return extraction_to_bytes(extractor.extract(photo))
    except ContractError as error:
        failure = _Failure(failure=ContractError.__name__, text=str(error))
    except Exception as error:  # noqa: BLE001 - nobody foresaw it; told without its text, which may quote the image (G10)
        failure = _Failure(failure=type(error).__name__, text=f"{type(error).__name__} at {place_of(error)}.")
    return json.dumps(asdict(failure)).encode()
