"""How templates become short codes, and how far a score computed from codes may lie from the exact one.

What this is for: a search compares the probe with a code of d / 4 bytes for every template and reads the templates
themselves only where the code says that they may belong in the list. What it is not: trained. The codebook is a closed
form of the model card's statistics, so every replica of a generation has the same one without data and without asking
anybody, and codes, and with them lists, are the same everywhere (G7).

Two neighbouring numbers of a template share a code of four bits: the nearest of sixteen points, laid out as the best
sixteen for two independent normal numbers (they distort least; J. Max 1960, S. Lloyd 1982). Everything is rounded to
small binary fractions: a product of a probe and a centroid is then exact in float32 and no instruction set differs.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from schemas.errors import ContractError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from processors.model_card import StatisticsCard

CODEBOOK_VERSION = 1
"""Raised whenever the same statistics give other codes; part of the codebook's digest."""

NUMBERS_PER_BYTE = 4
_POINTS = (
    (-0.9483, -0.1756), (-1.9634, -0.42), (1.8219, -0.3094), (0.859, 0.2079),
    (-1.162, -1.4476), (-1.6687, 0.8797), (0.6841, 1.8818), (1.5989, 0.9732),
    (-0.6172, 0.6858), (0.2814, 0.9258), (-0.0143, 0.0296), (-0.6429, 1.7681),
    (-0.2878, -0.8196), (0.6248, -0.6872), (1.3104, -1.4971), (0.0754, -1.8421),
)  # fmt: skip
_DISTORTION = 0.1076
"""Mean square that these points miss of a normal number of variance 1."""
_UNEVENNESS = 0.15
"""How unevenly templates are missed: d times the variance of the cosine of a template with what its code stands for."""
_CARE = 3.35
"""Standard deviations of the quantiser's error that a template may be underrated by and is still read; chosen by
measurement (docs/performance.md)."""
_FRACTION = 2.0**-12
"""Centroids and probes are multiples of this when codes are compared."""
_CELLS = 256
_CHUNK_ROWS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """The nearest point for each cell of a square grid over two numbers."""

    cell_of_half: NDArray[np.int16]
    """(65536,) bits of a half-precision number -> its cell, relative to zero."""
    first_cell: NDArray[np.int16]
    """(d,) the cell of each number that is the grid's cell 0."""
    nearest: NDArray[np.uint8]
    """(65536,) cell of the first number * 256 + cell of the second -> point, 0 to 15."""


@dataclass(frozen=True)
class Codebook:
    """The published codebook of one generation: a pure function of the card's statistics.

    Attributes:
        centre: (d,) float64, what templates scatter round; multiples of `step`.
        spread: standard deviation of a template's numbers round it.
    """

    centre: NDArray[np.float64] = field(repr=False)
    spread: float

    @property
    def dimension(self) -> int:
        """Length of a template."""
        return len(self.centre)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of what makes the codes; equal digests, and only they, give comparable codes."""
        facts = np.array([CODEBOOK_VERSION, self.spread, *self.centre], dtype="<f8").tobytes()
        return hashlib.sha256(facts + self.centroids.astype("<f4").tobytes()).hexdigest()

    @cached_property
    def centroids(self) -> NDArray[np.float32]:
        """(d / 2, 16, 2) float32: the numbers that a code stands for."""
        points = np.array(_POINTS) * self.spread
        return _rounded(self.centre.reshape(-1, 1, 2) + points[np.newaxis])

    def encode(self, templates: NDArray[np.float16]) -> NDArray[np.uint8]:
        """Return `(n, d)` float16 as `(n, d / 4)` codes; a template's code depends on nothing but the template."""
        codes = np.empty((len(templates), self.dimension // NUMBERS_PER_BYTE), dtype=np.uint8)
        grid = self._grid
        for start in range(0, len(templates), _CHUNK_ROWS):
            part = np.ascontiguousarray(templates[start : start + _CHUNK_ROWS])
            cells = grid.cell_of_half.take(part.view(np.uint16))
            np.clip(cells - grid.first_cell, 0, _CELLS - 1, out=cells)
            pairs = cells[:, 0::2].astype(np.uint16) * np.uint16(_CELLS) + cells[:, 1::2].astype(np.uint16)
            points = grid.nearest.take(pairs)
            codes[start : start + len(part)] = points[:, 0::2] | points[:, 1::2] << 4
        return codes

    def probe(self, template: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a `(d,)` probe as it is compared with codes."""
        return _rounded(template.astype(np.float64))

    def worth_reading(self, score: float) -> float:
        """Return the score by codes from which on a template may have an exact score of at least `score`.

        A code holds the part of a template that it could represent, so scores by codes are smaller by the share that
        was missed, and scatter round that: by what was missed across the probe, and along it by how unevenly templates
        are missed. This is measured to hold (recall in docs/performance.md), it is not a bound.
        """
        missed = _DISTORTION * self.spread**2 * self.dimension
        scatter = missed * (1.0 - min(score**2, 1.0)) + _UNEVENNESS * score**2
        return score * (1.0 - missed) - _CARE * math.sqrt(scatter / self.dimension)

    @cached_property
    def _grid(self) -> _Grid:
        step = _step(self.spread)
        halves = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float64)
        known = np.isfinite(halves)
        cell_of_half = np.zeros(2**16, dtype=np.int16)
        cell_of_half[known] = np.clip(np.floor(halves[known] / step), -(2**14), 2**14).astype(np.int16)
        middles = (np.arange(_CELLS) - _CELLS / 2 + 0.5) * step
        points = np.array(_POINTS) * self.spread
        squares = [(middles[:, np.newaxis] - points[:, axis]) ** 2 for axis in (0, 1)]
        nearest = (squares[0][:, np.newaxis] + squares[1][np.newaxis]).argmin(axis=2).astype(np.uint8)
        return _Grid(
            cell_of_half=cell_of_half,
            first_cell=(np.rint(self.centre / step) - _CELLS // 2).astype(np.int16),
            nearest=nearest.ravel(),
        )


def codebook_for(*, dimension: int, statistics: StatisticsCard | None = None) -> Codebook:
    """Return the codebook of a card's statistics, or the one for templates of no known direction.

    Raises:
        ContractError: templates of this dimension cannot be coded.
    """
    if dimension < NUMBERS_PER_BYTE or dimension % NUMBERS_PER_BYTE:
        raise ContractError(f"Templates have a multiple of {NUMBERS_PER_BYTE} numbers; {dimension} is none.")
    shared = min(max(statistics.non_mated_mean, 0.0), 0.99) if statistics else 0.0
    mean = np.array(statistics.mean_template, dtype=np.float64) if statistics else np.zeros(dimension)
    if len(mean) != dimension:
        raise ContractError(f"The card's mean template has {len(mean)} numbers, its templates have {dimension}.")
    # Two templates of different persons have the squared length of the mean as their mean cosine.
    length = float(np.linalg.norm(mean))
    centre = mean * (math.sqrt(shared) / length) if length > 0.0 else mean
    spread = math.sqrt((1.0 - shared) / dimension)
    step = _step(spread)
    return Codebook(centre=np.rint(centre / step) * step, spread=spread)


def _step(spread: float) -> float:
    """Return the side of a cell: a power of two, so that cells of half-precision numbers are exact."""
    return float(2.0 ** math.floor(math.log2(spread))) / 16.0


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return (np.rint(values / _FRACTION) * _FRACTION).astype(np.float32)
