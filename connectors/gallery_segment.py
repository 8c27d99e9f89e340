"""One immutable piece of the gallery: codes that FAISS compares, the templates themselves, and whose each row is.

A segment is built aside and never changed, because FAISS does not allow adding while another thread searches. Which of
its rows have been withdrawn is not its matter; whoever searches says so. Scores by codes are sums of whole numbers that
depend on the probe, the template and the codebook alone, never on the segment (G7).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from connectors.gallery_ids import Identities, identities_of, merged
from processors.quantiser import NUMBERS_PER_BYTE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from processors.quantiser import Codebook
    from processors.template_rows import TemplateRows

ROWS_A_BLOCK = 32
"""FAISS lays codes out in blocks of so many rows."""
_ROWS_OF_BYTES = np.array([0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15])
_BITS_A_CODE = 4
_COLLECT_IN_A_RESERVOIR = 13
"""FAISS's own choice for up to 20 results, a heap, reads memory that nothing has written (valgrind shows it in 1.15.1)
and now and then returns no row at all; the reservoir that it uses for more does not."""
_readers = threading.local()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """n rows of a gallery, at least one."""

    ids: Identities
    templates: NDArray[np.float16] = field(repr=False)
    """(n, d) float16."""
    codes: Any = field(repr=False)
    """The faiss.IndexPQFastScan over the rows."""

    def __len__(self) -> int:
        return len(self.templates)

    def by_codes(self, probe: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return scores and rows of the `count` rows that codes rate best, best first.

        Every row that is not returned scores at most as much as the last one.

        Args:
            probe: (d,) float32, as `Codebook.probe` gives it.
            count: at most the number of rows.
        """
        scores, rows = (found[0] for found in self.codes.search(probe[np.newaxis], count))
        if rows[-1] < 0:
            # FAISS leaves out rows that have the least score there is, and gives their places that score.
            found = rows[rows >= 0]
            left_out = np.setdiff1d(np.arange(len(self)), found)[: count - len(found)]
            rows = np.concatenate([found, left_out])
        return scores, rows

    def best_of(
        self, probe: NDArray[np.float32], rows: NDArray[np.int64], count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Compare the probe with the templates of some rows in float32; return the best scores and where they stand.

        Every one of the rows that is not returned scores at most as much as the last one.

        Args:
            probe: (d,) float32.
            rows: rows of this segment.
            count: at most the number of `rows`.

        Returns:
            Scores, best first, and for each its place in `rows`.
        """
        if not count:
            return np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
        halves = self.templates.take(rows, axis=0)
        reader = _reader(self.templates.shape[1])
        reader.reset()
        reader.add_sa_codes(halves.view(np.uint8))
        scores, places = (found[0] for found in reader.search(probe[np.newaxis], count))
        return scores, places

    @property
    def nbytes(self) -> int:
        """How many bytes the rows take in memory, codes and identities included."""
        return int(self.ids.nbytes + self.templates.nbytes + self.codes.codes.size())


def segment_of(rows: TemplateRows, codebook: Codebook) -> Segment:
    """Make a segment of new templates, at least one."""
    ids, order = identities_of(rows)
    templates = rows.templates[order]
    return Segment(ids=ids, templates=templates, codes=fast_codes(codebook.encode(templates), codebook))


def merge(parts: Sequence[tuple[Segment, NDArray[np.intp]]], codebook: Codebook) -> tuple[Segment, NDArray[np.intp]]:
    """Make one segment of some rows of several, at least one row.

    Returns:
        The segment and, for each of its rows, its place among the rows of the parts, one part after the other.
    """
    ids, order = merged([(segment.ids, rows) for segment, rows in parts])
    templates = np.empty((len(order), codebook.dimension), dtype=np.float16)
    codes = np.empty((len(order), codebook.dimension // NUMBERS_PER_BYTE), dtype=np.uint8)
    where = np.empty(len(order), dtype=np.intp)
    where[order] = np.arange(len(order))
    done = 0
    for segment, rows in parts:
        there = where[done : done + len(rows)]
        templates[there] = segment.templates[rows]
        codes[there] = plain_codes(segment.codes, codebook)[rows]
        done += len(rows)
    return Segment(ids=ids, templates=templates, codes=fast_codes(codes, codebook)), order


def fast_codes(codes: NDArray[np.uint8], codebook: Codebook) -> Any:
    """Lay (n, d / 4) codes out as FAISS compares them fastest."""
    plain = faiss.IndexPQ(codebook.dimension, codebook.dimension // 2, _BITS_A_CODE, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(codebook.centroids.ravel(), plain.pq.centroids)
    plain.is_trained = True
    plain.add_sa_codes(codes)
    laid_out: Any = faiss.IndexPQFastScan
    made = laid_out(plain)
    made.implem = _COLLECT_IN_A_RESERVOIR
    return made


def plain_codes(codes: Any, codebook: Codebook) -> NDArray[np.uint8]:
    """Return `(n, d / 4)` codes as `fast_codes` was given them; three times as quick as coding the templates again."""
    # A block holds, for every two codes of a row, 16 bytes of the first ones and 16 of the second ones; the low halves
    # of the bytes are of the first 16 rows, the high halves of the others.
    blocks = block_bytes(codes).reshape(-1, codebook.dimension // NUMBERS_PER_BYTE, 2, len(_ROWS_OF_BYTES))
    first, second = blocks[:, :, 0], blocks[:, :, 1]
    plain = np.empty((len(blocks), ROWS_A_BLOCK, blocks.shape[1]), dtype=np.uint8)
    plain[:, _ROWS_OF_BYTES] = (first & 0x0F | second << 4).transpose(0, 2, 1)
    plain[:, _ROWS_OF_BYTES + len(_ROWS_OF_BYTES)] = (first >> 4 | second & 0xF0).transpose(0, 2, 1)
    return plain.reshape(-1, plain.shape[2])[: codes.ntotal]


def block_bytes(codes: Any) -> NDArray[np.uint8]:
    """Return the codes as FAISS lays them out, `(bytes,)`, a view."""
    size = codes.codes.size()
    view: NDArray[np.uint8] = faiss.rev_swig_ptr(codes.codes.get(), size) if size else np.empty(0, dtype=np.uint8)
    return view


def room_for_codes(rows: int, codebook: Codebook) -> Any:
    """Return what `fast_codes` returns for so many rows, with the codes still to be filled in."""
    codes = fast_codes(np.empty((0, codebook.dimension // NUMBERS_PER_BYTE), dtype=np.uint8), codebook)
    blocks = -(-rows // ROWS_A_BLOCK)
    codes.codes.resize(blocks * ROWS_A_BLOCK * codebook.dimension // NUMBERS_PER_BYTE)
    codes.ntotal, codes.ntotal2 = rows, blocks * ROWS_A_BLOCK
    return codes


def _reader(dimension: int) -> Any:
    """Return this thread's comparer of half-precision templates: FAISS has the quick one."""
    held: dict[int, Any] = _readers.__dict__.setdefault("by_dimension", {})
    if dimension not in held:
        reader = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        reader.is_trained = True
        held[dimension] = reader
        # Searches are spread over threads of our own; FAISS's would come on top of them.
        faiss.omp_set_num_threads(1)
    return held[dimension]
