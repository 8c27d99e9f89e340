"""A Kafka broker on this machine, as a child process: the one interface for the embedded one and for Apache Kafka.

Loopback only, no TLS: for the quick start, tests, benchmarks and a pilot on one machine. Production runs a cluster that
Leadstream does not start.

In the data folder: `broker.pid` (also the lock), `console.log` (what the process printed), for Apache `broker.log` and
`server.properties`, and the records in a folder named after the kind.
"""

from __future__ import annotations

import logging
import socket
import time
from typing import TYPE_CHECKING, Literal, Protocol, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.brokers.process import LOOPBACK, ChildProcess, free_port, is_free, keep_small, locked_folder, tail, write_pid
from schemas.errors import TransientError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

Kind = Literal["embedded", "apache"]
KINDS: tuple[Kind, ...] = ("embedded", "apache")

_PORT_ATTEMPTS = 5
_LOCK_TIMEOUT_S = 30.0
"""As long as a broker whose owner was killed may take to save and end."""
_log = logging.getLogger(__name__)


class Recipe(Protocol):
    """What differs between one broker program and another."""

    @property
    def kind(self) -> Kind:
        """Which one it is."""

    @property
    def start_timeout_s(self) -> float:
        """How long a start may take on a slow machine."""

    @property
    def stop_timeout_s(self) -> float:
        """How long it may take to save and end before it is forced."""

    @property
    def advice(self) -> str:
        """What to look at when it does not start."""

    def prepare(self, data: Path) -> None:
        """Make ready what a start needs; called with the data folder locked."""

    def command(self, data: Path, port: int) -> Sequence[str]:
        """Return the program and its arguments to listen on `port`."""


class Broker:
    """A broker process with a lifetime: `start`, use `bootstrap`, `stop`; or a `with` block.

    `data` is kept: a second start on it, by this object or a later one, has the same records. Without `port` a free one
    is chosen at the first start and kept for this object's life, so that clients find it again after `restart`.
    Start and stop from one thread.
    """

    def __init__(self, recipe: Recipe, data: Path, *, port: int | None = None) -> None:
        self._recipe = recipe
        self._data = data.resolve()
        self._port = port
        self._child: ChildProcess | None = None

    @property
    def kind(self) -> Kind:
        """Which broker it is."""
        return self._recipe.kind

    @property
    def bootstrap(self) -> str:
        """`host:port` for clients.

        Raises:
            UsageError: no port was chosen yet.
        """
        if self._port is None:
            raise UsageError("the broker was not started: it has no port yet")
        return f"{LOOPBACK}:{self._port}"

    @property
    def pid(self) -> int:
        """Process id of the broker itself.

        Raises:
            UsageError: it was not started.
        """
        return self._running_or_ended().pid

    @property
    def log_files(self) -> tuple[Path, ...]:
        """Where the process writes what it says; a broker need not use both."""
        return self._data / "console.log", self._data / "broker.log"

    def start(self) -> None:
        """Start and return when clients are served.

        Raises:
            UsageError: already started, port or data folder in use, data folder of the other kind, a program missing.
            TransientError: the broker ended or was not ready in time; the message has the end of its log.
        """
        if self._child is not None and self._child.poll() is None:
            raise UsageError("the broker runs already")
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        for other in KINDS:
            if other != self.kind and (self._data / other).exists():
                raise UsageError(
                    f"{self._data} holds the records of the {other} broker: start that one, or name another folder",
                )
        with locked_folder(self._data / "broker.pid", timeout_s=_LOCK_TIMEOUT_S) as lock:
            if self._port is not None and not is_free(self._port):
                raise UsageError(f"port {self._port} is in use: stop what listens there, or choose another port")
            self._recipe.prepare(self._data)
            self._start_on_a_port(lock)

    def _start_on_a_port(self, lock: int) -> None:
        for _ in range(_PORT_ATTEMPTS):
            port = self._port if self._port is not None else free_port()
            keep_small(self.log_files[0])
            sizes = {file: file.stat().st_size if file.exists() else 0 for file in self.log_files}
            child = ChildProcess(
                self._recipe.command(self._data, port),
                folder=self._data,
                console=self.log_files[0],
                inherit=(lock,),
            )
            try:
                child.start()
                write_pid(lock, child.pid)
                ready = _wait_until_ready(child, port, self._recipe.start_timeout_s)
            except BaseException:  # also Ctrl-C while waiting: never leave it behind
                child.kill()
                raise
            if ready:
                self._child, self._port = child, port
                return
            exit_code = child.poll()
            child.kill()
            said = "\n".join(filter(None, (tail(file, since=size) for file, size in sizes.items())))
            if "already in use" in said and (self._port is None or is_free(self._port)):
                continue  # somebody took a port that was free, the controller's perhaps, between looking and listening
            what = "was not ready in time" if exit_code is None else f"ended with exit code {exit_code}"
            raise TransientError(
                f"the {self.kind} broker {what}. {self._recipe.advice} Its log is in {self._data}; it ends:\n{said}",
            )
        raise TransientError("no free port was left for the broker: stop other servers and try again")

    def stop(self) -> None:
        """Let it save and end; force it after a deadline. Does nothing if it has ended already."""
        if self._child is not None and not self._child.stop(self._recipe.stop_timeout_s):
            _log.warning("the %s broker did not stop in %s s and was killed", self.kind, self._recipe.stop_timeout_s)

    def kill(self) -> None:
        """End it without warning (SIGKILL), as a crash would; for failure tests."""
        self._running_or_ended().kill()

    def restart(self) -> None:
        """Stop it if it runs, then start it on the same port and data."""
        self.stop()
        self.start()

    def poll(self) -> int | None:
        """Return None while the broker runs, else its exit code (negative: the signal that ended it).

        Raises:
            UsageError: it was never started.
        """
        return self._running_or_ended().poll()

    def _running_or_ended(self) -> ChildProcess:
        if self._child is None:
            raise UsageError("the broker was not started")
        return self._child

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _wait_until_ready(child: ChildProcess, port: int, timeout_s: float) -> bool:
    """Wait for a broker that names itself in its metadata (Kafka does once it serves); False if it ends or is late."""
    deadline = time.monotonic() + timeout_s
    while not child.wait(0.02):
        if _serves(port):
            return child.poll() is None  # else something else answered while ours was losing the port
        if time.monotonic() > deadline:
            return False
    return False


def _serves(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
        # log_level 0: that a starting broker refuses connections is no news for the terminal.
        admin = AdminClient({"bootstrap.servers": f"{LOOPBACK}:{port}", "log_level": 0})
        return bool(admin.list_topics(timeout=1).brokers)
    except (OSError, KafkaException):
        return False
