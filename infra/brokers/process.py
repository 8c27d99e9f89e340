"""One child process that cannot outlive its parent, one lock on its data folder, and free loopback ports.

Not a supervisor: it restarts nothing. Whoever started the child sees by `poll` that it died and decides.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import TransientError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LOOPBACK = "127.0.0.1"
_TETHER = Path(__file__).with_name("tether.py")
# Below the range that Linux hands to outgoing connections (32768 and up): a client that reconnects to a stopped
# broker's port could otherwise get that very port as its own, connect to itself, and keep the broker from coming back.
_PORTS = range(20_000, 32_000)
_CONSOLE_LIMIT_BYTES = 1_000_000


class ChildProcess:
    """A program in a session of its own, tied to this process: it gets SIGTERM when this process dies.

    Ctrl-C in a terminal does not reach it, so that the parent can stop things in their order.
    """

    def __init__(self, command: Sequence[str], *, folder: Path, console: Path, inherit: tuple[int, ...] = ()) -> None:
        self._command = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), *command]
        self._folder = folder
        self._console = console
        self._inherit = inherit
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: OSError | None = None
        self._started = threading.Event()
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the program; its standard output and error go to the console file.

        Raises:
            TransientError: the operating system refused (no memory, no processes left).
        """
        # Linux ties a child to the *thread* that forked it. This thread lives as long as the child, so that a caller
        # may start a broker from a short-lived thread and keep it.
        threading.Thread(target=self._keep, name="child-process-keeper", daemon=True).start()
        self._started.wait()
        if self._failure is not None:
            raise TransientError(f"cannot start {self._command[5]}: {self._failure}") from self._failure

    def _keep(self) -> None:
        try:
            with self._console.open("ab") as console:
                self._process = subprocess.Popen(  # noqa: S603 - the command is made by the recipes of this package
                    self._command,
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=self._inherit,
                )
        except OSError as failure:
            self._failure = failure
            self._ended.set()
            return
        finally:
            self._started.set()
        self._process.wait()
        self._ended.set()

    @property
    def pid(self) -> int:
        """Process id; the program's own, since the tether turns into it."""
        if self._process is None:
            raise UsageError("the process was not started")
        return self._process.pid

    def poll(self) -> int | None:
        """Return None while it runs, else its exit code (negative: the signal that ended it)."""
        return self._process.returncode if self._process is not None and self._ended.is_set() else None

    def wait(self, timeout_s: float) -> bool:
        """Wait until it has ended; False if it still runs after `timeout_s`."""
        return self._ended.wait(timeout_s)

    def stop(self, timeout_s: float) -> bool:
        """Ask it to end; after `timeout_s` force it. Return True if it ended by itself."""
        self._signal(signal.SIGTERM)
        clean = self.wait(timeout_s)
        if not clean:
            self.kill()
        return clean

    def kill(self) -> None:
        """End it at once and wait until it is gone."""
        self._signal(signal.SIGKILL)
        self._ended.wait()

    def _signal(self, number: signal.Signals) -> None:
        self._started.wait()
        if not self._ended.is_set():
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.killpg(self.pid, number)


@contextmanager
def locked_folder(pid_file: Path, *, timeout_s: float) -> Iterator[int]:
    """Hold the lock on a data folder; yields the file descriptor to pass to the child that is to keep it.

    The lock belongs to the open file, so that it lasts until the last process that inherited it is gone, and a stale
    process id in the file means nothing. Waits, because a broker whose parent was killed may still be saving.

    Raises:
        UsageError: another process keeps the lock.
    """
    descriptor = os.open(pid_file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
                    raise UsageError(
                        f"process {owner} uses {pid_file.parent} already: stop it, or name another folder",
                    ) from None
                time.sleep(0.05)
        yield descriptor
    finally:
        os.close(descriptor)


def write_pid(descriptor: int, pid: int) -> None:
    """Write a process id to the locked file, for whoever looks for the process."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{pid}\n".encode(), 0)


def is_free(port: int) -> bool:
    """Say whether a server could listen on this loopback port now."""
    with socket.socket() as server:
        # As servers do: connections of the one before, still closing, are no obstacle.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """Return a loopback port that is free now; it may be taken before it is used, so be ready to ask again."""
    while True:
        port = _PORTS[secrets.randbelow(len(_PORTS))]
        if is_free(port):
            return port


def keep_small(console: Path) -> None:
    """Set a console file aside when it has grown; at most one older one is kept."""
    if console.exists() and console.stat().st_size > _CONSOLE_LIMIT_BYTES:
        console.replace(console.with_name(console.name + ".1"))


def tail(file: Path, *, since: int = 0, lines: int = 15) -> str:
    """Return the last lines of a log that were written after byte `since`."""
    if not file.exists():
        return ""
    with file.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(since if since <= size else 0, size - 16_384))  # a smaller file was set aside: all of it is new
        text = log.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:])
