"""The searchable templates of one model pack in memory: exact and exhaustive, by FAISS.

Every template is compared with every probe; nothing is skipped. FAISS finds the best ones quickly, in float32 and in an
order of summation of its own; their scores are then computed again from the half-precision templates in one fixed order
and rounded, so that a list depends neither on batch nor on replica (G7).
"""

from __future__ import annotations

import math
import threading
from types import MappingProxyType
from typing import TYPE_CHECKING

import faiss
import numpy as np

from processors.candidates import SCORE_DECIMALS, ScoredCapture, SearchResult, consolidate
from schemas.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from processors.candidates import EnrolledTemplate, GalleryChange

_SLACK = 2e-3
"""How far FAISS's inner product may lie from the exact cosine: the probe's length is off by at most 2**-11, an enrolled
template's by 1e-3 (`processors/templates.py`); float32 summation adds below 1e-6."""


class FaissGallery:
    """An exact gallery of one model pack, safe to search in threads while one other applies changes.

    Args:
        dimension: length of a template.
        model_digest: digest of the pack and recipe whose templates it holds.
    """

    def __init__(self, *, dimension: int, model_digest: str) -> None:
        self.model_digest = model_digest
        self._dimension = dimension
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))
        self._rows: dict[int, EnrolledTemplate] = {}
        self._rows_of_booking: dict[str, list[int]] = {}
        self._captures_of_person: dict[str, int] = {}
        self._next_row = 0
        self._watermark: dict[int, int] = {}
        # FAISS does not allow adding while another thread searches.
        self._lock = threading.Lock()

    def apply(self, changes: Sequence[GalleryChange], watermark: Mapping[int, int]) -> None:
        """Apply changes in order, and note per partition the next offset to apply; one step for whoever searches.

        Raises:
            ContractError: a template has another dimension; nothing was applied.
        """
        final = {change.booking: change.templates for change in changes}
        for templates in final.values():
            for enrolled in templates:
                if enrolled.template.shape != (self._dimension,):
                    raise ContractError(
                        f"A template has shape {enrolled.template.shape}, the gallery ({self._dimension},).",
                    )
        with self._lock:
            self._remove([row for booking in final for row in self._rows_of_booking.pop(booking, ())])
            self._add({booking: templates for booking, templates in final.items() if templates})
            self._watermark.update(watermark)

    def search(self, template: npt.NDArray[np.float32], length: int) -> SearchResult:
        """Compare (dimension,) float32 with every template; return the best persons and the watermark it was at."""
        with self._lock:
            scored = self._best_captures(template, length)
            return SearchResult(
                candidates=consolidate(scored, length),
                watermark=MappingProxyType(dict(self._watermark)),
                templates=len(self._rows),
                persons=len(self._captures_of_person),
            )

    def search_batch(self, templates: npt.NDArray[np.float32], lengths: Sequence[int], /) -> list[SearchResult]:
        """Compare (n, dimension) float32 with every template; return a result for each."""
        return [self.search(template, length) for template, length in zip(templates, lengths, strict=True)]

    @property
    def templates(self) -> int:
        """How many templates can be found."""
        return len(self._rows)

    @property
    def persons(self) -> int:
        """How many persons can be found."""
        return len(self._captures_of_person)

    def _best_captures(self, template: npt.NDArray[np.float32], length: int) -> list[ScoredCapture]:
        """Return the best captures, enough of them that no other capture can belong into the list."""
        probe = np.ascontiguousarray(template, dtype=np.float32)
        fetch = 4 * length
        while True:
            fetched = min(fetch, len(self._rows))
            if fetched == 0:
                return []
            approximate, found = self._index.search(probe[np.newaxis], fetched)
            scored = [self._score(probe, self._rows[int(row)]) for row in found[0]]
            listed = consolidate(scored, length)
            if fetched == len(self._rows):
                return scored
            # Whatever was not fetched scores at most this much; it must be too little to enter the list.
            if len(listed) == length and listed[-1].score > float(approximate[0][-1]) + _SLACK:
                return scored
            fetch *= 4

    @staticmethod
    def _score(probe: npt.NDArray[np.float32], enrolled: EnrolledTemplate) -> ScoredCapture:
        # Half precision leaves templates a little off unit length, which would give cosines above 1. Products of half
        # precision numbers and their sums are exact in double precision, so every machine comes to the same score.
        one, other = probe.astype(np.float64), enrolled.template.astype(np.float64)
        exact = float(np.dot(one, other) / math.sqrt(np.dot(one, one) * np.dot(other, other)))
        return ScoredCapture(
            person=enrolled.person,
            ori=enrolled.ori,
            booking_number=enrolled.booking_number,
            capture_id=enrolled.capture_id,
            synthetic=enrolled.synthetic,
            score=round(exact, SCORE_DECIMALS),
        )

    def _remove(self, rows: list[int]) -> None:
        if not rows:
            return
        self._index.remove_ids(faiss.IDSelectorBatch(np.array(rows, dtype=np.int64)))
        for row in rows:
            person = self._rows.pop(row).person
            self._captures_of_person[person] -= 1
            if not self._captures_of_person[person]:
                del self._captures_of_person[person]

    def _add(self, bookings: Mapping[str, Sequence[EnrolledTemplate]]) -> None:
        added: list[EnrolledTemplate] = []
        for booking, templates in bookings.items():
            first = self._next_row + len(added)
            self._rows_of_booking[booking] = list(range(first, first + len(templates)))
            added += templates
        if not added:
            return
        rows = range(self._next_row, self._next_row + len(added))
        self._next_row = rows.stop
        self._index.add_with_ids(np.stack([enrolled.template for enrolled in added]), np.array(rows, dtype=np.int64))
        for row, enrolled in zip(rows, added, strict=True):
            self._rows[row] = enrolled
            self._captures_of_person[enrolled.person] = self._captures_of_person.get(enrolled.person, 0) + 1
