"""`leadstream bench pipeline` measures the road of bookings and of probes, and prints one JSON document."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from infra.brokers import Kind

MEASURED = {
    "bare_templates_s",
    "bare_templates_s_core",
    "road_templates_s",
    "road_templates_s_core",
    "road_over_bare",
    "hostile_over_clean",
    "peak_mb_of_queue",
    "bare_sum_p50_ms",
    *(f"probe_p{percentile}_ms_at_{load}" for percentile in (50, 99) for load in (10, 50, 80)),
    *(f"probe_p{percentile}_over_bare_at_{load}" for percentile in (50, 99) for load in (10, 50, 80)),
}


@pytest.mark.kafka  # A minute and more on the embedded broker, which leaves little of two cores to those who use it.
@pytest.mark.timeout(600)
def test_bookings_and_probes_are_measured_on_a_real_broker_and_told_in_one_json_document(broker_kind: Kind) -> None:
    """That every good booking is enrolled the command checks itself; each hostile one has its refusal (G12)."""
    small = ["--bookings", "20", "--turns", "1", "--queue", "0", "--probes", "10", "--bare-s", "0.2"]
    one_process = {**os.environ, "LEADSTREAM_EXTRACTION_PROCESSES": "1"}
    command = [sys.executable, "-m", "infra.cli", "bench", "pipeline", "--json", *small, "--broker", broker_kind]
    said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=540, env=one_process)
    assert said.returncode == 0, said.stderr
    report = json.loads(said.stdout)
    assert {name for name in MEASURED if report[name] > 0} == MEASURED
    assert (report["hostile_sent"], report["hostile_refused"]) == (2, 2)
