"""Extract templates in child processes, so that no image can harm or hold up anything but the process that reads it.

An image that makes native code abort ends its own process; one that keeps it busy too long is ended by the kernel: the
child limits its own processor time before each image (SIGXCPU), and the time on the clock behind that (SIGALRM). The
other processes go on, and the one that ended is started again. What an image costs therefore never depends on how busy
the machine is.

As fast as threads on two cores (docs/performance.md): the time of an image is spent where Python's lock is free.

Source: setrlimit(2), alarm(2).
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Self

from connectors.attempt_counter import MAX_ATTEMPTS, POISON
from connectors.face_extractor import FaceExtractor
from processors.extraction import ExtractedFace, Extraction
from processors.refusals import Refusal, RefusalCode
from schemas.errors import ContractError, DomainFault, IntegrityError, LeadstreamError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from processors.model_card import ModelCard

UNEXPECTED = "UNEXPECTED"
CHILD = (sys.executable, "-c", "from connectors.extraction_processes import serve; serve()")
CLOCK_LIMIT_S = 300.0
"""After so long on the clock an image is ended that takes no processor time, because it waits for something."""
_STOP_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What a child is for; the first thing it is told."""

    card: ModelCard
    pack_dir: Path
    limit_s: float
    clock_limit_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """What went wrong in a child. Exceptions themselves may quote what they were raised for (G10)."""

    kind: type[LeadstreamError] | None
    """None: not one of ours."""
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
        job = _Job(card=card, pack_dir=pack_dir, limit_s=limit_s, clock_limit_s=clock_limit_s)
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
                answer = child.extract(photo)
                if answer is not None:
                    return _extraction_of(answer)
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Child:
    """One process and the connection to it; used by one thread at a time."""

    def __init__(self, job: _Job) -> None:
        self._job = job
        self._is_ready = False
        self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def extract(self, photo: bytes) -> Extraction | _Failure | None:
        """Return what came of a photo; None: the process ended."""
        self.await_ready()
        try:
            self._connection.send_bytes(photo)
            answer: Extraction | _Failure = self._connection.recv()
        except (EOFError, OSError):
            return None
        return answer

    def await_ready(self) -> None:
        """Wait until the models are loaded."""
        if self._is_ready:
            return
        try:
            failure: _Failure | None = self._connection.recv()
        except (EOFError, OSError):
            failure = _Failure(kind=IntegrityError, text=f"A process of extraction ended with {self._ended()}.")
        if failure is not None:
            raise _error_of(failure)
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
            self._connection.send(self._job)

    def _ended(self) -> int:
        self._connection.close()
        try:
            return self._process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _extraction_of(answer: Extraction | _Failure) -> Extraction:
    if isinstance(answer, _Failure):
        raise _error_of(answer)
    if isinstance(answer, ExtractedFace):
        answer.template.flags.writeable = False
    return answer


def _error_of(failure: _Failure) -> LeadstreamError:
    return DomainFault(UNEXPECTED, failure.text) if failure.kind is None else failure.kind(failure.text)


def serve() -> None:
    """Be a child on the connection that the last argument names: extract what comes, until it is closed."""
    connection: Connection[object, Any] = Connection(int(sys.argv[-1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # What it had in memory are photos (G10).
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        job: _Job = connection.recv()
        extractor = _opened(job)
        if isinstance(extractor, _Failure):
            connection.send(extractor)
            return
        connection.send(None)
        while True:
            photo = connection.recv_bytes()
            _limit(job)
            answer = _extracted(extractor, photo)
            signal.alarm(0)
            connection.send(answer)


def _opened(job: _Job) -> FaceExtractor | _Failure:
    try:
        return FaceExtractor(job.card, job.pack_dir)
    except (IntegrityError, ContractError) as error:
        return _Failure(kind=type(error), text=str(error))


def _limit(job: _Job) -> None:
    """Let the kernel end this process if the next image takes too long."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (ceil(time.process_time() + job.limit_s), hard))
    signal.alarm(ceil(job.clock_limit_s))


def _extracted(extractor: FaceExtractor, photo: bytes) -> Extraction | _Failure:
    try:
        extraction = extractor.extract(photo)
    except ContractError as error:
        return _Failure(kind=ContractError, text=str(error))
    except Exception as error:  # noqa: BLE001 - nobody foresaw it; told without its text, which may quote the image (G10)
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}" if trace else "an unknown place"
        return _Failure(kind=None, text=f"{type(error).__name__} at {place}.")
    return replace(extraction, measurements=dict(extraction.measurements))
