"""The embedded broker: the program inside the `noida-db` package, one small binary that speaks Kafka's protocol.

For the quick start, demos and functional tests. What it does not do, as measured with 0.2.3:

* a group member killed with -9 is never expired (reuse its `group.instance.id`, or restart the broker);
* acknowledged records of the last seconds are lost if the broker itself is killed with -9 (a stop saves them);
* unknown topics are created when a client asks for them, with one partition: apply `topics.toml` first;
* keep what is unread below about 50 MB; it is slow above 100 MB.

Kill, rebalance, durability and volume belong on Apache Kafka.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import UsageError

if TYPE_CHECKING:
    from infra.brokers.broker import Kind


class EmbeddedKafka:
    """Recipe for the embedded broker."""

    kind: Kind = "embedded"
    start_timeout_s = 60.0
    stop_timeout_s = 30.0
    advice = "Check that the disk is not full and that the noida-db package is whole (pip install --force-reinstall)."

    def prepare(self, data: Path) -> None:
        """Do nothing: the binary makes what it needs."""

    def command(self, data: Path, port: int) -> list[str]:
        """Run the binary itself: SIGTERM to the package's Python script would leave the broker behind."""
        # It binds 127.0.0.1 unless told otherwise; said all the same, since everything here trusts in it.
        options = ["--only", "kafka", "--host", "127.0.0.1", "--kafka-port", str(port)]
        return [str(_binary()), "start", *options, "--data-dir", str(data / self.kind)]


def _binary() -> Path:
    binary = Path(str(files("noida_db"))) / "noida-db"
    if not os.access(binary, os.X_OK):
        raise UsageError(f"{binary} is missing or may not be run: install the noida-db package again")
    return binary
