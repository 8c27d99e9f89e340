"""Measure search in the gallery: time, recall, memory and adding, beside FAISS's flat indexes in the same run.

Recall is against an exact scan of the same half-precision templates, scored and ordered as lists are. Flat indexes and
the gallery are timed in turn, a few searches each, so that whatever else the machine does meets them alike.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from connectors.faiss_gallery import FaissGallery
from connectors.gallery_search import exact_scores
from infra import bench_population
from processors.candidates import SCORE_DECIMALS
from processors.quantiser import codebook_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from infra.bench_population import Population, Probes
    from processors.candidates import SearchResult
    from processors.model_card import StatisticsCard

LENGTHS = (20, 50)
_SEED = 20_261_124
_BATCH = 10_000
_TURN = 25
_FLAT_IN_A_TURN = 5
_REFERENCE_ROWS = 1 << 17
_BESIDE_THE_LIST = 30
_ADDS_PER_S = 2000
_ADDS_TOGETHER = 100
_BYTES_PER_GB = 1e9
_MS = 1e3

Report = dict[str, int | float | str | None]
Tell = Callable[[str, int, int], None]
"""Is told what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchBench:
    """What to measure."""

    population: Population
    card: StatisticsCard
    size: int
    threads: int
    probes: int
    adding_s: float
    """For how long to search while others add."""
    flat: bool
    """Whether to measure FAISS's flat indexes too; they take 6 bytes a number more."""

    def run(self, progress: Tell) -> Report:
        """Measure everything."""
        dimension = len(self.population.mean)
        progress("templates", 0, self.size)
        rows = bench_population.templates(self.population, self.size, _SEED)
        progress("templates", self.size, self.size)
        probes = bench_population.probes(self.population, rows, self.probes, _SEED + 1)
        report: Report = {
            "size": self.size,
            "dimension": dimension,
            "threads": self.threads,
            "probes": self.probes,
            "statistics": self.population.described,
            "mates_below_035": int((probes.cosines < 0.35).sum()),  # noqa: PLR2004 - as the key says
            "memory_read_gb_s": self._memory_read_rate(rows),
        }
        gallery = self._filled(rows, report, progress)
        quiet = self._timed(gallery, rows, probes, report, progress)
        self._recall(gallery, rows, probes, report, progress)
        started = time.perf_counter()
        gallery.search_batch(probes.templates, [LENGTHS[0]] * self.probes)
        report["batch_per_query_ms"] = _rounded((time.perf_counter() - started) / self.probes * _MS)
        self._while_adding(gallery, probes, report, progress)
        report["search_p99_during_adds_over_quiet"] = _rounded(
            float(report["search_p99_during_adds_ms"] or 0.0) / float(np.percentile(quiet, 99)),
        )
        return report

    def _gallery(self) -> FaissGallery:
        dimension = len(self.population.mean)
        own = self.card if dimension == len(self.card.mean_template) else None
        return FaissGallery(
            dimension=dimension,
            model_digest="bench",
            codebook=codebook_for(dimension=dimension, statistics=own),
            threads=self.threads,
        )

    def _memory_read_rate(self, rows: NDArray[np.float16]) -> float:
        words = rows.reshape(-1).view(np.uint64)
        parts = np.array_split(words, self.threads)
        with ThreadPoolExecutor(self.threads) as pool:
            best = min(_time(lambda: list(pool.map(np.sum, parts))) for _ in range(5))
        return _rounded(words.nbytes / best / _BYTES_PER_GB)

    def _filled(self, rows: NDArray[np.float16], report: Report, progress: Tell) -> FaissGallery:
        # Once for nothing, so that what a process takes for good is not counted as the gallery's.
        self._gallery().apply(_enrolments(rows, 0, min(_BATCH, self.size)), {})
        gc.collect()
        before, spent = _resident_bytes(), 0.0
        gallery = self._gallery()
        for start in range(0, self.size, _BATCH):
            progress("enrolling", start, self.size)
            changes = _enrolments(rows, start, min(start + _BATCH, self.size))
            started = time.perf_counter()
            gallery.apply(changes, {0: start})
            spent += time.perf_counter() - started
        del changes
        started = time.perf_counter()
        gallery.settle()
        gallery.merge()
        settling = time.perf_counter() - started
        progress("enrolling", self.size, self.size)
        gc.collect()
        counted, resident = gallery.nbytes / self.size, (_resident_bytes() - before) / self.size
        report |= {
            "apply_templates_per_s": round(self.size / spent),
            "apply_and_merge_templates_per_s": round(self.size / (spent + settling)),
            "segments": len(gallery.state.pieces),
            "bytes_per_template": _rounded(max(counted, resident)),
            "bytes_per_template_counted": _rounded(counted),
            "bytes_per_template_resident": _rounded(resident),
        }
        return gallery

    def _timed(
        self,
        gallery: FaissGallery,
        rows: NDArray[np.float16],
        probes: Probes,
        report: Report,
        progress: Tell,
    ) -> list[float]:
        """Time single searches; return those of the gallery in seconds."""
        flat = _flat_indexes(rows, progress) if self.flat else {}
        spent: dict[str, list[float]] = {name: [] for name in ("gallery", *flat)}
        for probe in probes.templates[:_TURN]:
            gallery.search(probe, LENGTHS[0])
        for start in range(0, self.probes, _TURN):
            progress("searching", start, self.probes)
            turn = probes.templates[start : start + _TURN]
            spent["gallery"] += [_time(gallery.search, probe, LENGTHS[0]) for probe in turn]
            faiss.omp_set_num_threads(self.threads)
            for name, index in flat.items():
                spent[name] += [_time(index.search, probe[np.newaxis], LENGTHS[0]) for probe in turn[:_FLAT_IN_A_TURN]]
            faiss.omp_set_num_threads(1)
        progress("searching", self.probes, self.probes)
        ours = float(np.median(spent["gallery"])) * _MS
        report |= {
            "search_p50_ms": _rounded(ours),
            "search_p99_ms": _rounded(float(np.percentile(spent["gallery"], 99)) * _MS),
        }
        for name in ("flat_ip", "fp16_flat"):
            median = float(np.median(spent[name])) * _MS if name in spent else None
            report[f"{name}_p50_ms"] = None if median is None else _rounded(median)
            report[f"speedup_over_{name}"] = None if median is None else _rounded(median / ours)
        return [seconds * _MS for seconds in spent["gallery"]]

    def _recall(
        self,
        gallery: FaissGallery,
        rows: NDArray[np.float16],
        probes: Probes,
        report: Report,
        progress: Tell,
    ) -> None:
        exact = _exact_lists(rows, probes.templates, max(LENGTHS), progress)
        found = [_rows_of(result) for result in gallery.search_batch(probes.templates, [max(LENGTHS)] * self.probes)]
        for length in LENGTHS:
            shorter = gallery.search_batch(probes.templates, [length] * self.probes)
            both = sum(
                len({*_rows_of(result)} & {*wanted[:length]}) for result, wanted in zip(shorter, exact, strict=True)
            )
            report[f"recall_at_{length}"] = both / (length * self.probes)
            report[f"places_lost_at_{length}"] = length * self.probes - both
        mates = [int(mate) for mate in probes.mates]
        report["mates_found_by_exact_scan"] = sum(mate in wanted for mate, wanted in zip(mates, exact, strict=True))
        report["mate_loss"] = sum(
            mate in wanted and mate not in listed for mate, wanted, listed in zip(mates, exact, found, strict=True)
        )

    def _while_adding(self, gallery: FaissGallery, probes: Probes, report: Report, progress: Tell) -> None:
        total = int(self.adding_s * _ADDS_PER_S)
        rows = bench_population.templates(self.population, total, _SEED + 9)
        changes = _enrolments(rows, 0, total, first_number=self.size)
        added, done, failed = 0, threading.Event(), []
        began = time.perf_counter()

        def add() -> None:
            nonlocal added
            try:
                while added < total:
                    gallery.apply(changes[added : added + _ADDS_TOGETHER], {0: self.size + added})
                    added += _ADDS_TOGETHER
                    time.sleep(max(0.0, began + added / _ADDS_PER_S - time.perf_counter()))
            except BaseException as error:  # noqa: BLE001 - raised below, in the thread that waits
                failed.append(error)
            finally:
                done.set()

        adder = threading.Thread(target=add)
        adder.start()
        spent: list[float] = []
        while not spent or not done.is_set():
            probe = probes.templates[len(spent) % self.probes]
            spent.append(_time(gallery.search, probe, LENGTHS[0]))
            progress("searching while adding", added, total)
        adder.join()
        rate = added / (time.perf_counter() - began)
        gallery.settle()
        if failed:
            raise failed[0]
        report |= {
            "added_per_s": round(rate),
            "search_p50_during_adds_ms": _rounded(float(np.median(spent)) * _MS),
            "search_p99_during_adds_ms": _rounded(float(np.percentile(spent, 99)) * _MS),
        }


def _enrolments(rows: NDArray[np.float16], start: int, end: int, first_number: int = 0) -> list[Any]:
    part = rows[start:end].astype(np.float32)
    return [bench_population.enrolment(first_number + start + number, template) for number, template in enumerate(part)]


def _flat_indexes(rows: NDArray[np.float16], progress: Tell) -> dict[str, Any]:
    dimension = rows.shape[1]
    halves = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    halves.is_trained = True
    whole = faiss.IndexFlatIP(dimension)
    for start in range(0, len(rows), _REFERENCE_ROWS):
        progress("flat indexes", start, len(rows))
        part = rows[start : start + _REFERENCE_ROWS]
        halves.add_sa_codes(part.view(np.uint8))
        whole.add(part.astype(np.float32))
    progress("flat indexes", len(rows), len(rows))
    return {"fp16_flat": halves, "flat_ip": whole}


def _exact_lists(
    rows: NDArray[np.float16],
    probes: NDArray[np.float32],
    length: int,
    progress: Tell,
) -> list[list[int]]:
    """Return for each probe the best rows of all, by exact scores in the order of a list."""
    keep = length + _BESIDE_THE_LIST
    best_scores = np.empty((len(probes), 0), dtype=np.float32)
    best_rows = np.empty((len(probes), 0), dtype=np.int64)
    for start in range(0, len(rows), _REFERENCE_ROWS):
        progress("exact scan", start, len(rows))
        part = rows[start : start + _REFERENCE_ROWS].astype(np.float32)
        scores, found = faiss.knn(probes, part, min(keep, len(part)), metric=faiss.METRIC_INNER_PRODUCT)
        best_scores, best_rows = np.hstack([best_scores, scores]), np.hstack([best_rows, found + start])
        order = np.argsort(-best_scores, axis=1, kind="stable")[:, :keep]
        best_scores = np.take_along_axis(best_scores, order, axis=1)
        best_rows = np.take_along_axis(best_rows, order, axis=1)
    progress("exact scan", len(rows), len(rows))
    lists = []
    for probe, found in zip(probes, best_rows, strict=True):
        exact = exact_scores(probe, rows[found])
        rounded = [(-round(float(score), SCORE_DECIMALS), int(row)) for score, row in zip(exact, found, strict=True)]
        lists.append([row for _, row in sorted(rounded)[:length]])
    return lists


def _rows_of(result: SearchResult) -> list[int]:
    return [int(candidate.booking_number.partition("-")[2]) for candidate in result.candidates]


def _time(work: Callable[..., object], *arguments: object) -> float:
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _rounded(value: float) -> float:
    return round(value, 3)


def rows_for_people(report: Report) -> Sequence[tuple[str, object]]:
    """Return the report as lines of a table."""
    return [(name.replace("_", " "), value) for name, value in report.items()]
