"""Exhaustive search over the segments of a gallery in two stages: every code is compared, then the promising templates.

What a list depends on (G7). A list is made of the exact scores, rounded and in a fixed order
(`processors/candidates.py`), of every template whose code says that it may score as much as the last place of that
very list (`Codebook.worth_reading`); where several lists fit this rule, it is the one of the fewest templates. The rule
knows the probe, the searchable templates and the codebook, and nothing of segments, batches, merges or replicas.

Guaranteed: the same probe and the same searchable templates give the same list, byte for byte; a gallery of at most
READ_ALL templates is compared exactly. Measured and not guaranteed: that the list is the one of an exact scan, because
a code may underrate a template by more than is allowed for (docs/performance.md has the recall).

How many rows are fetched from a segment at first is a guess from earlier searches. A wrong one costs time and changes
nothing: more are fetched until every row that the rule wants is there.
"""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from processors.candidates import SCORE_DECIMALS, ScoredCapture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from connectors.gallery_ids import Identity
    from connectors.gallery_segment import Segment
    from processors.quantiser import Codebook

READ_ALL = 512
"""A gallery of up to so many templates is compared without codes."""
SLACK = 2e-3
"""How far an inner product may lie from the exact cosine: the probe's length is off by at most 2**-11, an enrolled
template's by 1e-3 (`processors/templates.py`); float32 summation adds below 1e-6."""
_GROWTH = 4
_BESIDE_THE_LIST = 20
"""How many more rows than places are scored exactly at first."""
_MORE_THAN_NEEDED = 1.25
_FIRST_GUESS = 0.01
_WORTH_A_THREAD_ROWS = 1 << 14
"""So many codes are compared in the time that it takes to wake a thread, and more."""

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
    """The live rows of a piece that codes rate best, best first, and the best of them by their templates."""

    piece: Piece
    codes: NDArray[np.float32]
    """Scores by codes."""
    rows: NDArray[np.int64]
    count: int
    """How many rows were asked for."""
    unseen: float
    """No row that is not here scores more by its code."""
    scores: NDArray[np.float32]
    """Inner products of the best rows, best first; at most one for each row."""
    places: NDArray[np.int64]
    """Where in `rows` each of them stands."""


class _Read(NamedTuple):
    """A row that was compared exactly."""

    identity: Identity
    person: str
    by_code: float
    score: float
    """Rounded."""


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

    def __init__(self, codebook: Codebook, *, read_all: int = READ_ALL) -> None:
        self._codebook = codebook
        self._read_all = read_all
        self._needed: dict[int, float] = {}

    def best_captures(
        self,
        pieces: Sequence[Piece],
        live: int,
        template: NDArray[np.float32],
        length: int,
        crew: Crew,
    ) -> list[ScoredCapture]:
        """Return the best captures, enough of them for a list of `length` persons, by the rule above.

        Args:
            pieces: what is searched.
            live: how many rows of them can be found.
            template: (d,) float32.
            length: of the list.
            crew: the threads that may be used.
        """
        if not live:
            return []
        search = _Search(self._codebook, crew, template, length)
        share = self._needed.get(length, _FIRST_GUESS) if live > self._read_all else 1.0
        search.fetch([(piece, _guess(len(piece.segment), share)) for piece in pieces])
        read = search.best()
        if live > self._read_all:
            read = search.decided(read)
            self._remember(length, search.needed(read) / live)
        return [_capture(row) for row in read]

    def _remember(self, length: int, share: float) -> None:
        before = self._needed.get(length)
        wanted = share * _MORE_THAN_NEEDED
        self._needed[length] = wanted if before is None else before + (wanted - before) / 8


class _Search:
    """One search under way."""

    def __init__(self, codebook: Codebook, crew: Crew, template: NDArray[np.float32], length: int) -> None:
        self._codebook = codebook
        self._crew = crew
        self._probe = np.ascontiguousarray(template, dtype=np.float32)
        self._by_code = codebook.probe(self._probe)
        self._length = length
        self._fetched: list[_Fetched] = []

    def fetch(self, wanted: Sequence[tuple[Piece, int]]) -> None:
        """Fetch so many rows of each piece, the best by their codes, and read their templates."""
        self._fetched = self._crew.each(self._fetch, wanted, sum(len(piece.segment) for piece, _ in wanted))

    def decided(self, read: list[_Read]) -> list[_Read]:
        """Fetch and read until the rule is kept; return the rows of its list. `read` are the best of what is there."""
        worth = self._worth(read)
        while self._fetched_down_to(worth):
            read = self.best()
            worth = self._worth(read)
        if all(row.by_code >= worth for row in read):
            return read
        # A row was read by luck: the rule would have reached it only if others of the list were better. Go down from
        # here, row by row, to the first list that keeps the rule.
        while True:
            read = self.best(at_least=worth)
            asks = self._worth(read)
            if asks >= worth:
                return read
            if self._fetched_down_to(asks):
                return self.decided(self.best())
            below = [float(codes[0]) for each in self._fetched if len(codes := each.codes[each.codes < worth])]
            worth = max([asks, *below])

    def needed(self, read: list[_Read]) -> int:
        """Return how many rows the rule wants for a list."""
        worth = self._worth(read)
        return sum(int(np.searchsorted(-each.codes, -worth, side="right")) for each in self._fetched)

    def best(self, at_least: float = -math.inf) -> list[_Read]:
        """Return exactly scored rows, best first, with all that may enter the list, of rows of a score by code."""
        count = self._length + _BESIDE_THE_LIST
        fetched = self._fetched
        if at_least > -math.inf:
            fetched = [self._reread(each, at_least, count) for each in fetched]
        while True:
            scores = np.concatenate([each.scores for each in fetched])
            order = np.argsort(-scores, kind="stable")[:count]
            numbers = np.repeat(np.arange(len(fetched)), [len(each.scores) for each in fetched])[order]
            places = np.concatenate([each.places for each in fetched])[order]
            # Whatever is not among these has at most this inner product; it must be too little to enter the list.
            total = sum(int(np.searchsorted(-each.codes, -at_least, side="right")) for each in fetched)
            left_out = float(scores[order[-1]]) if total > len(order) else -math.inf
            read = self._walked(fetched, numbers, places)
            last = _last_score(read, self._length)
            if left_out == -math.inf or (last is not None and last > left_out + SLACK):
                return read
            count *= _GROWTH
            fetched = [self._reread(each, at_least, count) for each in fetched]

    def _fetch(self, wanted: tuple[Piece, int]) -> _Fetched:
        piece, count = wanted
        codes, rows = piece.segment.by_codes(self._by_code, count)
        unseen = float(codes[-1]) if count < len(piece.segment) else -math.inf
        if piece.withdrawn is not None:
            live = piece.is_live(rows)
            codes, rows = codes[live], rows[live]
        best = min(self._length + _BESIDE_THE_LIST, len(rows))
        scores, places = piece.segment.best_of(self._probe, rows, best)
        return _Fetched(piece=piece, codes=codes, rows=rows, count=count, unseen=unseen, scores=scores, places=places)

    def _reread(self, each: _Fetched, at_least: float, count: int) -> _Fetched:
        rows = each.rows[: int(np.searchsorted(-each.codes, -at_least, side="right"))]
        scores, places = each.piece.segment.best_of(self._probe, rows, min(count, len(rows)))
        return replace(each, scores=scores, places=places)

    def _fetched_down_to(self, score: float) -> bool:
        """Fetch more where a row may be missing whose code gives at least `score`; tell whether that was so."""
        short = [each.unseen >= score and each.unseen > -math.inf for each in self._fetched]
        if not any(short):
            return False
        wanted = [
            (each.piece, min(_GROWTH * each.count, len(each.piece.segment)))
            for each, is_short in zip(self._fetched, short, strict=True)
            if is_short
        ]
        again = iter(self._crew.each(self._fetch, wanted, sum(len(piece.segment) for piece, _ in wanted)))
        self._fetched = [next(again) if is_short else each for each, is_short in zip(self._fetched, short, strict=True)]
        return True

    def _worth(self, read: Sequence[_Read]) -> float:
        """Return the score by code from which on the rule wants rows, for a list."""
        last = _last_score(read, self._length)
        return -math.inf if last is None else self._codebook.worth_reading(last)

    def _walked(
        self, fetched: Sequence[_Fetched], numbers: NDArray[np.int64], places: NDArray[np.int64]
    ) -> list[_Read]:
        """Score rows exactly, best first, until the list is full and everything level with its last place is there."""
        halves = np.empty((len(places), len(self._probe)), dtype=np.float16)
        for number in set(numbers.tolist()):
            mine = np.flatnonzero(numbers == number)
            each = fetched[number]
            halves[mine] = each.piece.segment.templates.take(each.rows[places[mine]], axis=0)
        exact = exact_scores(self._probe, halves)
        walked: list[_Read] = []
        persons: set[str] = set()
        for which in np.argsort(-exact, kind="stable").tolist():
            score = round(float(exact[which]), SCORE_DECIMALS)
            if len(persons) >= self._length and score < walked[-1].score:
                break
            each, place = fetched[numbers[which]], places[which]
            identity = each.piece.segment.ids[int(each.rows[place])]
            person = identity.person
            walked.append(_Read(identity, person, float(each.codes[place]), score))
            persons.add(person)
        return walked


def _guess(rows: int, share: float) -> int:
    """Return how many rows of a segment to fetch when this share of all is needed."""
    mean = rows * share
    return min(rows, math.ceil(mean + 4 * math.sqrt(mean)) + 16)


def _capture(read: _Read) -> ScoredCapture:
    return ScoredCapture(
        person=read.person,
        ori=read.identity.ori,
        booking_number=read.identity.booking_number,
        capture_id=read.identity.capture_id,
        synthetic=read.identity.synthetic,
        score=read.score,
    )


def exact_scores(probe: NDArray[np.float32], templates: NDArray[np.float16]) -> NDArray[np.float64]:
    """Return the cosines of a probe with (n, d) templates.

    Half precision leaves templates a little off unit length, which would give cosines above 1. Products of half
    precision numbers and their sums are exact in double precision, so every machine comes to the same scores.
    """
    one, others = probe.astype(np.float64), templates.astype(np.float64)
    squares = np.einsum("ij,ij->i", others, others)
    cosines: NDArray[np.float64] = (others @ one) / np.sqrt(np.dot(one, one) * squares)
    return cosines


def _last_score(listed: Sequence[_Read], length: int) -> float | None:
    """Return the score of the last place of a full list, or None where fewer persons are there."""
    best: dict[str, float] = {}
    for read in listed:
        best.setdefault(read.person, read.score)
    return list(best.values())[length - 1] if len(best) >= length else None
