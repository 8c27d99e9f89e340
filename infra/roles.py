"""One role, one process: run it until it is told to stop, say when it is ready, and return an exit code."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

import structlog

from connectors.metrics import ClerkMetrics, SinkMetrics, WorkerMetrics
from infra import logs, wiring
from infra.data_folder import DataFolder
from infra.observation import FROZEN_AFTER_S, Health, Lookout, OperatorPort, Pulse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from connectors.metrics import RoleMetrics
    from infra.settings import Settings
    from streams.clerk import Clerk, ClerkProgress
    from streams.sink import Sink, SinkProgress

DEFAULT_WORKER = "worker-1"
SINK = "sink"
CLERK = "clerk"
POLL_S = 0.05
BEAT_EVERY_S = 1.0

log = structlog.get_logger()


def run_worker(settings: Settings, name: str) -> None:
    """Be a worker until SIGTERM or SIGINT.

    Raises:
        LeadstreamError: why it stopped by itself.
    """
    logs.configure(settings.log_level, name)
    metrics, pulse = WorkerMetrics(name), Pulse()
    serves = threading.Event()
    lookout: Lookout | None = None

    def health() -> Health:
        away = lookout is not None and lookout.newest is None
        why = (
            "catching up, or waiting for partitions" if not serves.is_set() else "Kafka does not answer" if away else ""
        )
        return Health(role=name, live=pulse.is_fresh, ready=not why, why=why)

    async def main(announce: Callable[[], None], stack: ExitStack) -> None:
        nonlocal lookout
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        worker = wiring.worker(settings, name, metrics)
        if settings.metrics_port is not None:
            lookout = stack.enter_context(Lookout(wiring.look_at_progress(settings, worker)))
            metrics.watch_lag(lambda: lookout.newest if lookout else None)
        # What stands now stands to the end. Going through it for garbage again and again is a sixth of a replay.
        gc.freeze()

        def ready() -> None:
            serves.set()
            announce()

        beating = asyncio.create_task(_beat(pulse))
        try:
            await worker.run(stop, ready)
        finally:
            beating.cancel()

    with _observed(settings, name, metrics, health) as announce, ExitStack() as stack:
        asyncio.run(main(announce, stack))


async def _beat(pulse: Pulse) -> None:
    while True:
        pulse.beat()
        await asyncio.sleep(BEAT_EVERY_S)


def run_sink(settings: Settings) -> None:
    """Be the audit sink until SIGTERM or SIGINT.

    Raises:
        LeadstreamError: why it stopped by itself.
    """
    logs.configure(settings.log_level, SINK)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    sink: Sink | None = None

    def progress() -> SinkProgress | None:
        return sink.progress if sink else None

    def health() -> Health:
        seen = progress()
        live = seen is None or time.monotonic() - seen.turned_at < FROZEN_AFTER_S
        away = seen.waiting_for if seen else ""
        why = away or ("not reading yet" if seen is None or seen.lag_records is None else "")
        return Health(role=SINK, live=live, ready=not why, why=why)

    metrics = SinkMetrics(
        SINK,
        rows=lambda: seen.rows if (seen := progress()) else 0,
        lag_records=lambda: seen.lag_records if (seen := progress()) else None,
        is_waiting=lambda: bool(seen.waiting_for) if (seen := progress()) else False,
    )
    with _observed(settings, SINK, metrics, health) as announce, closing(wiring.audit_store(settings)) as trail:
        sink = wiring.sink(settings, trail)
        threading.Thread(
            target=_announce_when, args=(lambda: sink.progress.lag_records is not None, announce, stop), daemon=True
        ).start()
        try:
            sink.run(stop)
        finally:
            stop.set()


def run_clerk(settings: Settings) -> None:
    """Be the clerk until SIGTERM or SIGINT.

    Raises:
        LeadstreamError: why it stopped by itself.
    """
    logs.configure(settings.log_level, CLERK)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    clerk: Clerk | None = None

    def progress() -> ClerkProgress | None:
        return clerk.progress if clerk else None

    def health() -> Health:
        seen = progress()
        live = seen is None or time.monotonic() - seen.turned_at < FROZEN_AFTER_S
        why = (seen.waiting_for if seen else "") or (
            "" if seen and seen.lag_records == 0 else "reading what was said and decided before"
        )
        return Health(role=CLERK, live=live, ready=not why, why=why)

    metrics = ClerkMetrics(CLERK, progress=progress)
    with _observed(settings, CLERK, metrics, health) as announce:
        clerk = wiring.clerk(settings)
        threading.Thread(
            target=_announce_when, args=(lambda: clerk.progress.lag_records == 0, announce, stop), daemon=True
        ).start()
        try:
            clerk.run(stop)
        finally:
            stop.set()


def _announce_when(is_ready: Callable[[], bool], announce: Callable[[], None], stop: threading.Event) -> None:
    while not is_ready():
        if stop.wait(POLL_S):
            return
    announce()


@contextmanager
def _observed(
    settings: Settings, name: str, metrics: RoleMetrics, health: Callable[[], Health]
) -> Iterator[Callable[[], None]]:
    """Say that a role is there and open its operator's port, if it is to have one; yield what says that it is ready."""
    folder = DataFolder(settings.data)
    facts: dict[str, str | int] = {"pid": os.getpid()}
    metrics.watch_ready(lambda: health().ready)
    with ExitStack() as stack:
        stack.callback(log.info, "stopped")
        stack.callback(folder.withdraw, name)
        if settings.metrics_port is not None:
            facts["metrics_port"] = stack.enter_context(OperatorPort(settings.metrics_port, metrics, health)).port
        folder.announce(name, {**facts, "ready": False})

        def announce() -> None:
            folder.announce(name, {**facts, "ready": True})
            log.info("ready", **facts)

        yield announce
