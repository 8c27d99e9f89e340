"""One role, one process: run it until it is told to stop, say when it is ready, and return an exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import structlog

from infra import logs, wiring
from infra.data_folder import DataFolder

if TYPE_CHECKING:
    from infra.settings import Settings
    from streams.sink import Sink

DEFAULT_WORKER = "worker-1"
SINK = "sink"
POLL_S = 0.05

log = structlog.get_logger()


def run_worker(settings: Settings, name: str) -> None:
    """Be a worker until SIGTERM or SIGINT.

    Raises:
        LeadstreamError: why it stopped by itself.
    """
    logs.configure(settings.log_level, name)
    folder = DataFolder(settings.data)
    folder.withdraw(name)

    def ready() -> None:
        folder.announce(name, {"pid": os.getpid()})
        log.info("ready")

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await wiring.worker(settings, name).run(stop, ready)

    try:
        asyncio.run(main())
    finally:
        folder.withdraw(name)
        log.info("stopped")


def run_sink(settings: Settings) -> None:
    """Be the audit sink until SIGTERM or SIGINT.

    Raises:
        LeadstreamError: why it stopped by itself.
    """
    logs.configure(settings.log_level, SINK)
    folder = DataFolder(settings.data)
    folder.withdraw(SINK)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with closing(wiring.audit_store(settings)) as trail:
            sink = wiring.sink(settings, trail)
            threading.Thread(target=_announce_when_reading, args=(sink, folder, stop), daemon=True).start()
            sink.run(stop)
    finally:
        stop.set()
        folder.withdraw(SINK)
        log.info("stopped")


def _announce_when_reading(sink: Sink, folder: DataFolder, stop: threading.Event) -> None:
    while sink.progress.lag_records is None:
        if stop.wait(POLL_S):
            return
    folder.announce(SINK, {"pid": os.getpid()})
    log.info("ready")
