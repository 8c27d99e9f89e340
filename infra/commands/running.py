"""`init`, `up`, `worker`, `sink`, `clerk`: the roles and the machine they run on."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connectors.key_custody import FileMasterKey
from connectors.object_store import ObjectStore
from infra import assets, roles
from infra.brokers import Kind
from infra.commands.common import Data, say
from infra.data_folder import DataFolder, initialise
from infra.local_system import LocalSystem
from infra.settings import Settings, load_settings

if TYPE_CHECKING:
    from types import FrameType


MetricsPort = Annotated[
    int | None,
    typer.Option(help="Port on 127.0.0.1 of /metrics, /healthz, /readyz; 0: a free one.", min=0, max=65535),
]


def init(data: Data = None) -> None:
    """Make a data folder: master key, object store and the first administrator's key, once."""
    settings = load_settings(data)
    folder = DataFolder(settings.data)
    public_key = initialise(folder)
    ObjectStore(settings.object_store or folder.objects, FileMasterKey.load(settings.master_key or folder.master_key))
    say(f"Data folder {folder.root} is ready; keep {folder.keys} secret and backed up.")
    say(f"The first administrator's public key is {public_key.hex()}.")
    say("Next: leadstream up")


def up(
    data: Data = None,
    broker: Annotated[
        Kind, typer.Option(help="embedded (pip only) or apache (Kafka's own jars, needs Java 17).")
    ] = "embedded",
    workers: Annotated[int, typer.Option(min=1, help="How many workers.")] = 1,
) -> None:
    """Run all roles on this machine until Ctrl-C."""
    settings = load_settings(data)
    DataFolder(settings.data).require()
    if settings.model_card is None:
        assets.fetch(settings.assets, say, samples=False)
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    try:
        with LocalSystem(settings, broker=broker, workers=workers, say=say) as system:
            for name, port in system.metrics_ports().items():
                say(f"{name}: http://127.0.0.1:{port}/metrics, /healthz, /readyz")
            say(f"ready: Kafka on {system.broker.bootstrap}, logs in {settings.data / 'logs'}; Ctrl-C stops")
            signal.signal(signal.SIGINT, on_signal)
            while not stop.is_set():
                system.wait(0.2)
            say("stopping")
    except KeyboardInterrupt:
        say("stopped before it was ready")
    say("stopped")


def worker(
    data: Data = None,
    name: Annotated[str, typer.Option(help="Unique among the workers of the group.")] = roles.DEFAULT_WORKER,
    metrics_port: MetricsPort = None,
) -> None:
    """Run one worker: bookings, probes, gallery replica."""
    roles.run_worker(_observable(data, metrics_port), name)


def sink(data: Data = None, metrics_port: MetricsPort = None) -> None:
    """Run the audit sink: every topic into ClickHouse."""
    roles.run_sink(_observable(data, metrics_port))


def clerk(data: Data = None, metrics_port: MetricsPort = None) -> None:
    """Run the clerk: reviews, leads, notices, retention."""
    roles.run_clerk(_observable(data, metrics_port))


def _observable(data: Path | None, metrics_port: int | None) -> Settings:
    settings = load_settings(data)
    return settings if metrics_port is None else settings.model_copy(update={"metrics_port": metrics_port})
