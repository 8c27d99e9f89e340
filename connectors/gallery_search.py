"""Exhaustive search over the segments of a gallery in two stages: every code is compared, then the promising templates.

What a list depends on (G7). Which templates are read is decided by the probe, by scores from codes and by exact scores,
none of which knows of segments, batches, merges or replicas:

1. the SEEDS templates that codes rate best, ties included, are read; the last place of the list of these has the exact
   score s;
2. every template is read whose code says that its exact score may be s or more (`Codebook.worth_reading`);
3. the list is made of exact scores of what was read, rounded, in a fixed order (`processors/candidates.py`).

Guaranteed: the same probe and the same searchable templates give the same list, byte for byte; a gallery of at most
SEEDS templates is compared exactly. Measured and not guaranteed: that the list is the one of an exact scan, because a
code may underrate a template by more than is allowed for (docs/performance.md has the recall).

How many rows are fetched from a segment at first is a guess from earlier searches. A wrong one costs time and changes
nothing: more are fetched until every row that the rule wants is there.
"""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from processors.candidates import SCORE_DECIMALS, ScoredCapture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from connectors.gallery_segment import Segment
    from processors.quantiser import Codebook

SEEDS = 512
"""How many templates are read whatever their codes say."""
SLACK = 2e-3
"""How far an inner product may lie from the exact cosine: the probe's length is off by at most 2**-11, an enrolled
template's by 1e-3 (`processors/templates.py`); float32 summation adds below 1e-6."""
_GROWTH = 4
_MORE_THAN_GUESSED = 1.6
_FIRST_GUESS = 0.01
_WORTH_A_THREAD_ROWS = 1 << 14
"""So many codes are compared in the time that it takes to wake a thread, and more."""
_CODES_A_READING = 16
"""To read a template costs as much as to compare so many codes."""

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """A segment and what of it has been withdrawn."""

    segment: Segment
    withdrawn: NDArray[np.uint8] | None = None
    """A bit a row, lowest first; None where nothing was withdrawn."""

    def is_live(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which of some rows can be found."""
        if self.withdrawn is None:
            return np.ones(len(rows), dtype=np.bool_)
        live: NDArray[np.bool_] = (self.withdrawn[rows >> 3] >> (rows & 7).astype(np.uint8)) & 1 == 0
        return live

    def live_rows(self) -> NDArray[np.intp]:
        """Return every row that can be found."""
        rows = np.arange(len(self.segment))
        return rows if self.withdrawn is None else rows[self.is_live(rows)]

    def without(self, rows: Sequence[int]) -> Piece:
        """Return the piece with more rows withdrawn; this one stays as it is for whoever searches it."""
        before = self.withdrawn
        bits = np.zeros(-(-len(self.segment) // 8), dtype=np.uint8) if before is None else before.copy()
        which = np.array(rows, dtype=np.int64)
        np.bitwise_or.at(bits, which >> 3, np.left_shift(1, which & 7).astype(np.uint8))
        return Piece(segment=self.segment, withdrawn=bits)

    @property
    def gone(self) -> int:
        """How many rows have been withdrawn."""
        return 0 if self.withdrawn is None else int(np.bitwise_count(self.withdrawn).sum())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fetched:
    """The live rows of a piece that codes rate best, best first."""

    piece: Piece
    scores: NDArray[np.float32]
    rows: NDArray[np.int64]
    fetched: int
    unseen: float
    """No row that is not here scores more by its code."""

    def at_least(self, score: float) -> NDArray[np.int64]:
        return self.rows[: int(np.searchsorted(-self.scores, -score, side="right"))]


class Crew:
    """Threads that search segments side by side; whoever asks works too."""

    def __init__(self, threads: int) -> None:
        self._helpers = ThreadPoolExecutor(threads - 1, thread_name_prefix="gallery") if threads > 1 else None
        self._count = threads - 1

    def each(self, work: Callable[[S], T], items: Sequence[S], rows: int) -> list[T]:
        """Return the result of each item; `rows` says how much there is to do."""
        if self._helpers is None or len(items) <= 1 or rows < _WORTH_A_THREAD_ROWS:
            return [work(item) for item in items]
        todo, done = deque(enumerate(items)), dict[int, T]()

        def take() -> None:
            while todo:
                try:
                    number, item = todo.popleft()
                except IndexError:
                    return
                done[number] = work(item)

        helping = [self._helpers.submit(take) for _ in range(min(self._count, len(items) - 1))]
        take()
        for help_ in helping:
            if not help_.cancel():
                help_.result()
        return [done[number] for number in range(len(items))]


class Searcher:
    """Searches pieces; remembers only how many rows searches of a length needed."""

    def __init__(self, codebook: Codebook, crew: Crew, *, seeds: int = SEEDS) -> None:
        self._codebook = codebook
        self._crew = crew
        self._seeds = seeds
        self._needed: dict[int, float] = {}

    def best_captures(
        self,
        pieces: Sequence[Piece],
        live: int,
        template: NDArray[np.float32],
        length: int,
    ) -> list[ScoredCapture]:
        """Return the best captures, enough of them for a list of `length` persons, by the rule above.

        Args:
            pieces: what is searched.
            live: how many rows of them can be found.
            template: (d,) float32.
            length: of the list.
        """
        if not live:
            return []
        probe = np.ascontiguousarray(template, dtype=np.float32)
        by_code = self._codebook.probe(probe)
        share = self._needed.get(length, _FIRST_GUESS)
        fetched = self._fetch(pieces, by_code, [_guess(len(piece.segment), share) for piece in pieces])
        seeds = max(self._seeds, 8 * length)
        while seeds < live:
            fetched, lowest = self._with_best(fetched, by_code, seeds)
            listed = self._read(fetched, lowest, probe, length)
            last = _last_score(listed, length)
            if last is not None:
                worth = min(lowest, self._codebook.worth_reading(last))
                fetched = self._fetched_down_to(fetched, by_code, worth)
                self._remember(length, sum(len(each.at_least(worth)) for each in fetched) / live)
                return self._read(fetched, worth, probe, length)
            # One person's captures fill the seeds.
            seeds *= _GROWTH
        return self._read(self._fetched_down_to(fetched, by_code, -math.inf), -math.inf, probe, length)

    def _fetch(self, pieces: Sequence[Piece], probe: NDArray[np.float32], counts: Sequence[int]) -> list[_Fetched]:
        def fetch(each: tuple[Piece, int]) -> _Fetched:
            piece, count = each
            scores, rows = piece.segment.by_codes(probe, count)
            unseen = float(scores[-1]) if count < len(piece.segment) else -math.inf
            if piece.withdrawn is not None:
                live = piece.is_live(rows)
                scores, rows = scores[live], rows[live]
            return _Fetched(piece=piece, scores=scores, rows=rows, fetched=count, unseen=unseen)

        return self._crew.each(
            fetch,
            list(zip(pieces, counts, strict=True)),
            sum(len(piece.segment) for piece in pieces),
        )

    def _with_best(
        self, fetched: list[_Fetched], probe: NDArray[np.float32], count: int
    ) -> tuple[list[_Fetched], float]:
        """Fetch until the `count` best rows of all are there; return the score by code of the last of them."""
        while True:
            scores = np.concatenate([each.scores for each in fetched])
            unseen = max(each.unseen for each in fetched)
            lowest = -math.inf
            if len(scores) >= count:
                lowest = float(-np.partition(-scores, count - 1)[count - 1])
            if lowest > unseen or unseen == -math.inf:
                return fetched, lowest
            fetched = self._refetched(fetched, probe, lowest)

    def _fetched_down_to(self, fetched: list[_Fetched], probe: NDArray[np.float32], score: float) -> list[_Fetched]:
        """Fetch until every row is there whose code gives at least `score`."""
        while any(each.unseen >= score and each.unseen > -math.inf for each in fetched):
            fetched = self._refetched(fetched, probe, score)
        return fetched

    def _refetched(self, fetched: list[_Fetched], probe: NDArray[np.float32], score: float) -> list[_Fetched]:
        """Fetch more of the pieces that may hide a row with at least `score`."""
        short = [each.unseen >= score and each.unseen > -math.inf for each in fetched]
        again = iter(
            self._fetch(
                [each.piece for each, is_short in zip(fetched, short, strict=True) if is_short],
                probe,
                [
                    min(_GROWTH * each.fetched, len(each.piece.segment))
                    for each, is_short in zip(fetched, short, strict=True)
                    if is_short
                ],
            ),
        )
        return [next(again) if is_short else each for each, is_short in zip(fetched, short, strict=True)]

    def _read(
        self, fetched: Sequence[_Fetched], worth: float, probe: NDArray[np.float32], length: int
    ) -> list[ScoredCapture]:
        """Compare the probe with every row whose code gives at least `worth`; return what may enter the list."""
        wanted = [(each.piece.segment, rows) for each in fetched if len(rows := each.at_least(worth))]
        total = sum(len(rows) for _, rows in wanted)
        count = 2 * length + 16
        while True:
            found = self._crew.each(
                lambda each: each[0].best_of(probe, *each[1:]),
                [(segment, rows, min(count, len(rows))) for segment, rows in wanted],
                _CODES_A_READING * total,
            )
            scores = np.concatenate([scores for scores, _ in found])
            order = np.argsort(-scores, kind="stable")[:count]
            numbers = np.repeat(np.arange(len(found)), [len(scores) for scores, _ in found])[order]
            rows = np.concatenate([rows for _, rows in found])[order]
            # Whatever is not among these has at most this inner product; it must be too little to enter the list.
            left_out = float(scores[order[-1]]) if total > len(order) else -math.inf
            listed = _walked([segment for segment, _ in wanted], numbers, rows, probe, length)
            last = _last_score(listed, length)
            if left_out == -math.inf or (last is not None and last > left_out + SLACK):
                return listed
            count *= _GROWTH

    def _remember(self, length: int, share: float) -> None:
        before = self._needed.get(length)
        wanted = share * _MORE_THAN_GUESSED
        self._needed[length] = wanted if before is None else before + (wanted - before) / 8


def _guess(rows: int, share: float) -> int:
    """Return how many rows of a segment to fetch when this share of all is needed."""
    mean = rows * share
    return min(rows, math.ceil(mean + 4 * math.sqrt(mean)) + 16)


def _walked(
    segments: Sequence[Segment],
    numbers: NDArray[np.int64],
    rows: NDArray[np.int64],
    probe: NDArray[np.float32],
    length: int,
) -> list[ScoredCapture]:
    """Score rows exactly, best first, until `length` persons and everything level with the last of them are there."""
    exact = np.empty(len(rows))
    for number in np.unique(numbers):
        mine = numbers == number
        exact[mine] = exact_scores(probe, segments[number].templates[rows[mine]])
    walked: list[ScoredCapture] = []
    persons: set[str] = set()
    for place in np.argsort(-exact, kind="stable").tolist():
        score = round(float(exact[place]), SCORE_DECIMALS)
        if len(persons) >= length and score < walked[-1].score:
            break
        identity = segments[int(numbers[place])].ids[int(rows[place])]
        walked.append(
            ScoredCapture(
                person=identity.person,
                ori=identity.ori,
                booking_number=identity.booking_number,
                capture_id=identity.capture_id,
                synthetic=identity.synthetic,
                score=score,
            ),
        )
        persons.add(identity.person)
    return walked


def exact_scores(probe: NDArray[np.float32], templates: NDArray[np.float16]) -> NDArray[np.float64]:
    """Return the cosines of a probe with (n, d) templates.

    Half precision leaves templates a little off unit length, which would give cosines above 1. Products of half
    precision numbers and their sums are exact in double precision, so every machine comes to the same scores.
    """
    one, others = probe.astype(np.float64), templates.astype(np.float64)
    squares = np.einsum("ij,ij->i", others, others)
    cosines: NDArray[np.float64] = (others @ one) / np.sqrt(np.dot(one, one) * squares)
    return cosines


def _last_score(listed: Sequence[ScoredCapture], length: int) -> float | None:
    """Return the score of the last place of a full list, or None where fewer persons are there."""
    best: dict[str, float] = {}
    for capture in listed:
        best.setdefault(capture.person, capture.score)
    return list(best.values())[length - 1] if len(best) >= length else None
