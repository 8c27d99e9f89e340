"""All roles on one machine: broker, sink, clerk and workers as child processes that end with this one (`up`)."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from connectors.topic_admin import TopicAdmin
from infra import roles, wiring
from infra.brokers import make_broker
from infra.brokers.apache import kafka_version
from infra.brokers.process import ChildProcess, keep_small, locked_folder, tail, write_pid
from infra.data_folder import DataFolder
from infra.settings import PREFIX
from schemas.errors import TransientError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import TracebackType

    from infra.brokers import Broker, Kind
    from infra.settings import Settings

START_LIMIT_S = 120.0
STOP_LIMIT_S = 30.0
LOCK_LIMIT_S = 1.0
POLL_S = 0.05


class LocalSystem:
    """Every role on this machine, on one data folder.

    Args:
        settings: whose data folder, made by `leadstream init`.
        broker: which broker to run.
        workers: how many workers.
        say: told in words what is going on.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        broker: Kind = "embedded",
        workers: int = 1,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._folder = DataFolder(settings.data.resolve())
        self._say = say
        self.broker: Broker = make_broker(
            broker,
            self._folder.kafka,
            port=settings.kafka_port,
            jars=settings.assets / f"kafka-{kafka_version()}",
        )
        self.children: dict[str, ChildProcess] = {}
        self._workers = [f"worker-{number}" for number in range(1, workers + 1)]
        self._lock: AbstractContextManager[int] | None = None

    def start(self) -> None:
        """Start everything and return when bookings and probes are served.

        Raises:
            UsageError: the data folder was not made, or is in use.
            TransientError: something did not become ready in time; its log says why.
        """
        self._folder.require()
        if self._settings.kafka_bootstrap:
            raise UsageError(
                f"{PREFIX}KAFKA_BOOTSTRAP names a cluster, but `up` starts a broker of its own. Unset it, or start the "
                "roles one by one: `leadstream sink`, `leadstream clerk`, `leadstream worker`.",
            )
        self._folder.run.mkdir(mode=0o700, exist_ok=True)
        self._folder.logs.mkdir(mode=0o700, exist_ok=True)
        self._lock = locked_folder(self._folder.run / "system.pid", timeout_s=LOCK_LIMIT_S)
        write_pid(self._lock.__enter__(), os.getpid())
        try:
            self._say(f"starting the {self.broker.kind} broker")
            self.broker.start()
            self._folder.announce("broker", {"bootstrap": self.broker.bootstrap, "kind": self.broker.kind})
            TopicAdmin(self.broker.bootstrap, timeout_s=START_LIMIT_S).apply(wiring.topic_specs(self._settings))
            self._say("starting the sink, the clerk and the workers")
            self.start_role(roles.SINK, "sink")
            self.start_role(roles.CLERK, "clerk")
            for name in self._workers:
                self.start_role(name, "worker", "--name", name)
            for name in self.children:
                self.wait_until_ready(name)
        except BaseException:  # also Ctrl-C while waiting: leave nothing behind
            self.stop()
            raise

    def start_role(self, name: str, *arguments: str) -> None:
        """Start one role as a child process."""
        console = self._folder.logs / f"{name}.log"
        keep_small(console)
        self._folder.withdraw(name)
        child = ChildProcess(
            [sys.executable, "-m", "infra.cli", *arguments, "--data", str(self._folder.root), "--metrics-port", "0"],
            folder=Path.cwd(),
            console=console,
        )
        child.start()
        self.children[name] = child

    def wait_until_ready(self, name: str) -> None:
        """Wait until a role says that it is ready.

        Raises:
            TransientError: it ended or was not ready in time.
        """
        deadline = time.monotonic() + START_LIMIT_S
        child = self.children[name]
        while not child.wait(POLL_S):
            facts = self._folder.announced(name)
            if facts is not None and facts["pid"] == child.pid and facts["ready"]:
                return
            if time.monotonic() > deadline:
                raise TransientError(f"{name} was not ready in {START_LIMIT_S:g} s; {self._last_words(name)}")
        raise TransientError(f"{name} ended with exit code {child.poll()}; {self._last_words(name)}")

    def metrics_ports(self) -> dict[str, int]:
        """Return role -> port of its metrics page on this machine."""
        announced = {name: self._folder.announced(name) or {} for name in self.children}
        return {name: int(facts["metrics_port"]) for name, facts in announced.items() if "metrics_port" in facts}

    def wait(self, timeout_s: float) -> None:
        """Wait, and see that every process is still there.

        Raises:
            TransientError: one ended by itself.
        """
        time.sleep(timeout_s)
        if self.broker.poll() is not None:
            raise TransientError(f"the broker ended by itself; its log is in {self._folder.kafka}")
        for name, child in self.children.items():
            if child.poll() is not None:
                raise TransientError(f"{name} ended by itself with exit code {child.poll()}; {self._last_words(name)}")

    def stop(self) -> None:
        """Stop the workers and the clerk, then the sink, then the broker, so that each can still finish its work."""
        for name in reversed(list(self.children)):
            if not self.children[name].stop(STOP_LIMIT_S):
                self._say(f"{name} did not stop in {STOP_LIMIT_S:g} s and was killed")
            self._folder.withdraw(name)
        self.children.clear()
        self.broker.stop()
        self._folder.withdraw("broker")
        if self._lock is not None:
            self._lock.__exit__(None, None, None)
            self._lock = None

    def _last_words(self, name: str) -> str:
        console = self._folder.logs / f"{name}.log"
        return f"its log is {console} and ends:\n{tail(console)}"

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
