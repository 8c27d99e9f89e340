"""`leadstream bench recovery` measures the road that a worker takes, and prints one JSON document and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.brokers import Kind

RATES = {
    "snapshot_write_mb_s",
    "snapshot_load_mb_s",
    "file_read_mb_s",
    "load_over_read",
    "restart_from_snapshot_s",
    "snapshot_bytes_per_template",
    "bare_consumer_records_s",
    "replay_records_s",
    "replay_over_bare",
}


def test_recovery_is_measured_on_a_real_broker_and_told_in_one_json_document(broker_kind: Kind) -> None:
    """That every template came back, by the replay and by the restart, is checked by the command itself (G5)."""
    small = ["--size", "1500", "--replay-size", "1000", "--dimension", "16", "--threads", "1"]
    command = [sys.executable, "-m", "infra.cli", "bench", "recovery", "--json", *small, "--broker", broker_kind]
    said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert said.returncode == 0, said.stderr
    report = json.loads(said.stdout)
    assert (report["size"], report["replay_size"], report["dimension"]) == (1500, 1000, 16)
    assert {name for name in RATES if report[name] > 0} == RATES
