"""The search benchmark measures what it says, on a small gallery; no test asserts a time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from infra import assets, bench_population
from infra.cli import run
from schemas.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

CARD = assets.load_card(assets.DEFAULT_CARD).statistics
KEYS = {
    "search_p50_ms", "search_p99_ms", "flat_ip_p50_ms", "fp16_flat_p50_ms", "speedup_over_flat_ip",
    "speedup_over_fp16_flat", "recall_at_20", "recall_at_50", "mate_loss", "bytes_per_template", "batch_per_query_ms",
    "memory_read_gb_s", "apply_templates_per_s", "search_p99_during_adds_ms",
}  # fmt: skip


@pytest.fixture
def statistics(tmp_path: Path) -> Path:
    path = tmp_path / "statistics.npz"
    spread = np.diag(np.linspace(0.5, 1.5, 32)) / 32
    np.savez(path, mean=np.full(32, 0.03), covariance=spread, mated_cosine_mean=0.7, mated_cosine_std=0.1)
    return path


def test_one_document_with_all_keys_and_a_recall_that_was_counted(
    statistics: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", "search", "--size", "3000", "--probes", "40", "--adding-s", "0.2", "--json"]
    assert run([*command, "--statistics", str(statistics)]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report.keys() >= KEYS
    assert (report["size"], report["dimension"], report["probes"]) == (3000, 32, 40)
    assert 0.9 < report["recall_at_20"] <= 1.0
    assert report["recall_at_50"] * 50 * 40 + report["places_lost_at_50"] == pytest.approx(50 * 40)
    assert report["mates_found_by_exact_scan"] > 30
    assert report["mate_loss"] == 0
    assert report["bytes_per_template"] >= report["bytes_per_template_counted"] > 64


def test_flat_indexes_can_be_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "search", "--size", "1000", "--probes", "10", "--adding-s", "0.1", "--no-flat", "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert (report["dimension"], report["flat_ip_p50_ms"], report["speedup_over_fp16_flat"]) == (128, None, None)
    assert report["recall_at_20"] == 1.0


def test_a_mate_is_as_like_its_probe_as_was_drawn_and_some_are_hardly_like_it() -> None:
    population = bench_population.of_card(CARD, None)
    rows = bench_population.templates(population, 2000, 1)
    probes = bench_population.probes(population, rows, 500, 2)
    found = np.einsum("ij,ij->i", probes.templates.astype(float), rows[probes.mates].astype(float))
    assert found == pytest.approx(probes.cosines, abs=2e-3)
    assert (probes.cosines < 0.35).sum() >= 10


@pytest.mark.parametrize("damage", ["missing", "no file of numpy", "other arrays", "other dimension"])
def test_a_file_that_holds_no_such_statistics_is_refused(damage: str, statistics: Path) -> None:
    if damage == "missing":
        statistics.unlink()
    if damage == "no file of numpy":
        statistics.write_bytes(b"mean")
    if damage == "other arrays":
        np.savez(statistics, average=np.zeros(4))
    with pytest.raises(UsageError, match="statistics"):
        bench_population.of_file(statistics, 64 if damage == "other dimension" else None)
