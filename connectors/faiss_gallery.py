"""The searchable templates of one model pack in memory: every one is compared, none is skipped.

The gallery is a handful of immutable segments (`connectors/gallery_segment.py`) and, for each, which rows have been
withdrawn. New templates become a small segment at once; a thread in the background makes large ones of small ones and
leaves out what was withdrawn. All of it is one frozen state that is replaced as a whole, so a search takes the state
of its moment and waits for nobody: not for a change, not for a merge. How a search decides:
`connectors/gallery_search.py`; how several captures of a person count as one: `connectors/gallery_fusion.py`.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections import defaultdict
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from connectors import gallery_snapshot
from connectors.gallery_fusion import shortlist_for, with_fused_scores
from connectors.gallery_search import READ_ALL, Crew, Piece, Searcher
from connectors.gallery_segment import merge, segment_of
from connectors.gallery_snapshot import GalleryState
from processors.candidates import SearchResult, best_of_persons, consolidate
from processors.quantiser import codebook_for
from processors.template_rows import by_hash, check_directions, rows_of, together
from schemas.errors import ContractError
from schemas.events import Consolidation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from processors.candidates import GalleryChange
    from processors.quantiser import Codebook
    from processors.template_rows import TemplateRows

LONGEST_LIST = 1000
_FAN = 4
"""So many segments of about one size become one."""
_BACKGROUND_NICENESS = 10
_ALONE = Crew(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large segments are; a test makes them tiny. No list depends on a segment's size."""

    small_rows: int = 2048
    """Segments up to this size are merged at once, by whoever adds."""
    largest_rows: int = 1 << 19
    """A segment does not grow beyond this."""
    withdrawn_share: float = 0.2
    """A segment that lost this share of its rows is made anew."""
    read_all: int = READ_ALL
    """A gallery of up to so many templates is compared without codes; on this one number lists do depend."""


class FaissGallery:
    """A gallery of one model pack: any thread may search while others apply changes.

    Args:
        dimension: length of a template, a multiple of four.
        model_digest: digest of the pack and recipe whose templates it holds.
        codebook: of the pack's statistics; without one, that of templates of no known direction.
        threads: how many threads a search uses, the caller's among them.
        sizes: of its segments.

    Raises:
        ContractError: templates of this dimension cannot be coded.
    """

    def __init__(
        self,
        *,
        dimension: int,
        model_digest: str,
        codebook: Codebook | None = None,
        threads: int = 1,
        sizes: Sizes | None = None,
    ) -> None:
        self.model_digest = model_digest
        self._codebook = codebook or codebook_for(dimension=dimension)
        self._sizes = sizes or Sizes()
        self._crew = Crew(threads)
        self._searcher = Searcher(self._codebook, read_all=self._sizes.read_all)
        self._state = GalleryState(pieces=(), watermark=MappingProxyType({}), templates=0, persons=0)
        # Held by whoever makes the next state, never by a search.
        self._changing = threading.Lock()
        self._merging = threading.Lock()
        self._merger: threading.Thread | None = None
        self._merge_failure: BaseException | None = None

    @property
    def state(self) -> GalleryState:
        """What is searchable now."""
        return self._state

    @property
    def templates(self) -> int:
        """How many templates can be found."""
        return self._state.templates

    @property
    def persons(self) -> int:
        """How many persons can be found."""
        return self._state.persons

    @property
    def nbytes(self) -> int:
        """How many bytes the searchable templates take, codes, identities and withdrawn rows included."""
        return sum(
            piece.segment.nbytes + (0 if piece.withdrawn is None else piece.withdrawn.nbytes)
            for piece in self._state.pieces
        )

    def search(
        self,
        template: NDArray[np.float32],
        length: int,
        consolidation: Consolidation = Consolidation.BEST_CAPTURE,
    ) -> SearchResult:
        """Compare (dimension,) float32 with every template; return the best persons and the watermark it was at.

        Args:
            template: the probe.
            length: how many persons.
            consolidation: score a person by the best capture, or by all together, weighted by their quality.

        Raises:
            ContractError: the template is none, or the length is not 1 to LONGEST_LIST.
        """
        self._check_probes(template[np.newaxis] if template.ndim == 1 else template, [length])
        return self._search(self._state, template, length, consolidation, self._crew)

    def search_batch(
        self,
        templates: NDArray[np.float32],
        lengths: Sequence[int],
        consolidation: Consolidation = Consolidation.BEST_CAPTURE,
    ) -> list[SearchResult]:
        """Search with (n, dimension) float32 at one state of the gallery; each result is what `search` returns.

        Raises:
            ContractError: a template is none, or a length is not 1 to LONGEST_LIST.
        """
        self._check_probes(templates, lengths)
        state = self._state
        return self._crew.each(
            # One thread a probe: threads that help each other cost more than they bring while there is other work.
            lambda each: self._search(state, *each, consolidation, _ALONE if len(lengths) > 1 else self._crew),
            list(zip(templates, lengths, strict=True)),
            state.templates * len(lengths),
        )

    def apply(
        self, changes: Sequence[GalleryChange], watermark: Mapping[int, int], rows: TemplateRows | None = None
    ) -> None:
        """Apply changes, and note per partition the next offset to apply; one step for whoever searches.

        Args:
            changes: applied in order.
            watermark: partition -> offset.
            rows: more changes, of other bookings.

        Raises:
            ContractError: a template cannot be searched, or belongs to another booking than its change, or a booking
                is changed by both; nothing was applied.
        """
        dimension = self._codebook.dimension
        changed = rows_of(changes, dimension=dimension)
        added = changed if rows is None else together([changed, rows], dimension=dimension)
        if len(set(added.bookings)) != len(added.bookings):
            raise ContractError("A booking is changed twice in one step.")
        sids = set(added.sids) - {b""}
        if self._merge_failure is not None:
            raise self._merge_failure
        with self._changing:
            before = self._state
            pieces, removed = _without_bookings(before.pieces, *by_hash(added.bookings, added.hashes))
            for start in range(0, len(added), self._sizes.largest_rows):
                part = np.arange(start, min(start + self._sizes.largest_rows, len(added)))
                whole = added if len(part) == len(added) else added.part(part)
                pieces.append(Piece(segment=segment_of(whole, self._codebook)))
            came = sids - removed.sids - _live_sids(before.pieces, sids - removed.sids)
            left = removed.sids - sids - _live_sids(pieces, removed.sids - sids)
            came_alone = {owner for owner, sid in zip(added.owners.tolist(), added.sids, strict=True) if not sid}
            persons = len(came) - len(left) + len(came_alone) - len(removed.bookings_alone)
            self._state = GalleryState(
                pieces=self._with_small_ones_merged(pieces),
                watermark=MappingProxyType(dict(sorted({**before.watermark, **watermark}.items()))),
                templates=before.templates + len(added) - removed.rows,
                persons=before.persons + persons,
            )
        self._merge_in_background()

    def settle(self) -> None:
        """Wait until no merge is under way or due.

        Raises:
            BaseException: whatever ended a merge.
        """
        while (merger := self._merger) is not None and merger.is_alive():
            merger.join()
        if self._merge_failure is not None:
            raise self._merge_failure

    def merge(self) -> None:
        """Make as few segments as sizes allow, in the caller's thread; for whoever has just filled a gallery."""
        with self._merging:
            while len(chosen := self._together(sorted(self._state.pieces, key=lambda piece: len(piece.segment)))) > 1:
                self._replace(chosen)
        _give_memory_back()

    def compact(self) -> None:
        """Make every segment anew that holds a withdrawn template, so that none is left in memory."""
        with self._merging:
            for piece in self._state.pieces:
                if piece.gone:
                    self._replace([piece])
        _give_memory_back()

    def save(self, folder: Path, state: GalleryState | None = None, beside: Mapping[str, bytes] | None = None) -> None:
        """Make the folder a snapshot of a state, of the one of this moment by default; searches and changes go on.

        Args:
            folder: belongs to this gallery alone.
            state: one that `state` gave.
            beside: what else has to be known at that watermark, by name.

        Raises:
            OSError: the disk is full or away; the snapshot before is still whole.
        """
        gallery_snapshot.save(
            folder,
            state or self._state,
            model_digest=self.model_digest,
            codebook=self._codebook,
            beside=beside,
        )

    def load(
        self, folder: Path, accept: Callable[[Mapping[str, bytes]], None] = lambda _: None
    ) -> Mapping[str, bytes] | None:
        """Become what a snapshot holds; return what was saved beside it, or None where there is no snapshot.

        Args:
            folder: where it was saved.
            accept: given what was saved beside it; what it raises leaves the gallery as before.

        Raises:
            ContractError: it is of another model, codebook or format; the gallery is as before.
            IntegrityError: it is damaged; the gallery is as before.
        """
        found = gallery_snapshot.load(
            folder,
            model_digest=self.model_digest,
            codebook=self._codebook,
            crew=self._crew,
        )
        if found is None:
            return None
        accept(found.beside)
        with self._merging, self._changing:
            self._state = found.state
        return found.beside

    def _search(
        self,
        state: GalleryState,
        template: NDArray[np.float32],
        length: int,
        consolidation: Consolidation,
        crew: Crew,
    ) -> SearchResult:
        fuses = consolidation is Consolidation.FUSED_CAPTURES
        wanted = shortlist_for(length) if fuses else length
        captures = self._searcher.best_captures(state.pieces, state.templates, template, wanted, crew)
        if fuses:
            captures = with_fused_scores(state.pieces, template, best_of_persons(captures, wanted))
        return SearchResult(
            candidates=consolidate(captures, length),
            watermark=state.watermark,
            templates=state.templates,
            persons=state.persons,
            consolidation=consolidation,
        )

    def _check_probes(self, templates: NDArray[np.float32], lengths: Sequence[int]) -> None:
        if templates.shape != (len(lengths), self._codebook.dimension):
            raise ContractError(
                f"{len(lengths)} probes have shape {templates.shape}, the gallery's templates have "
                f"{self._codebook.dimension} numbers.",
            )
        if not all(1 <= length <= LONGEST_LIST for length in lengths):
            raise ContractError(f"A candidate list has 1 to {LONGEST_LIST} places.")
        check_directions(templates)

    def _with_small_ones_merged(self, pieces: list[Piece]) -> tuple[Piece, ...]:
        """Merge the newest pieces while they are small, so that there are few of them however small changes are."""
        pieces = [piece for piece in pieces if piece.withdrawn is None or piece.gone < len(piece.segment)]
        while len(pieces) > 1:
            newest, other = len(pieces[-1].segment), len(pieces[-2].segment)
            if 2 * max(newest, other) > self._sizes.small_rows or other > _FAN * newest:
                break
            pieces[-2:] = [self._merged(pieces[-2:])]
        return tuple(pieces)

    def _merged(self, pieces: Sequence[Piece]) -> Piece:
        live = [(piece.segment, rows) for piece in pieces if len(rows := piece.live_rows())]
        segment, _ = merge(live, self._codebook)
        return Piece(segment=segment)

    def _merge_in_background(self) -> None:
        if not self._due(self._state.pieces):
            return
        if self._merger is not None and self._merger.is_alive():
            return
        self._merger = threading.Thread(target=self._merge_while_due, name="gallery merge")
        self._merger.start()

    def _merge_while_due(self) -> None:
        if sys.platform == "linux":
            # One thread's own niceness: searches come first.
            thread = threading.get_native_id()
            niceness = max(_BACKGROUND_NICENESS, os.getpriority(os.PRIO_PROCESS, thread))
            os.setpriority(os.PRIO_PROCESS, thread, niceness)
        try:
            with self._merging:
                while due := self._due(self._state.pieces):
                    self._replace(due)
            _give_memory_back()
        except BaseException as error:  # noqa: BLE001 - raised where it is seen: by the next change
            self._merge_failure = error

    def _due(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Return the pieces to merge next, or none."""
        for piece in pieces:
            if piece.withdrawn is not None and piece.gone >= self._sizes.withdrawn_share * len(piece.segment):
                return [piece]
        tiers: dict[int, list[Piece]] = defaultdict(list)
        for piece in pieces:
            rows = len(piece.segment)
            if self._sizes.small_rows <= 2 * rows and 2 * rows <= self._sizes.largest_rows:
                tier = max(0, (rows // self._sizes.small_rows).bit_length() - 1) // (_FAN.bit_length() - 1)
                tiers[tier].append(piece)
        for tier in sorted(tiers):
            if len(tiers[tier]) >= _FAN:
                return self._together(tiers[tier])
        return []

    def _together(self, pieces: Iterable[Piece]) -> list[Piece]:
        """Return those of some pieces, from the first on, that one segment can hold."""
        chosen, rows = [], 0
        for piece in pieces:
            if rows + len(piece.segment) > self._sizes.largest_rows:
                break
            chosen.append(piece)
            rows += len(piece.segment)
        return chosen

    def _replace(self, pieces: Sequence[Piece]) -> None:
        """Put one new segment in the place of some; what is withdrawn meanwhile is withdrawn from it too."""
        taken = [(piece, piece.live_rows()) for piece in pieces]
        kept = [(piece.segment, rows) for piece, rows in taken if len(rows)]
        segment, order = merge(kept, self._codebook) if kept else (None, None)
        with self._changing:
            now = {id(piece.segment): piece for piece in self._state.pieces}
            gone = [_gone_meanwhile(now.get(id(piece.segment)), rows) for piece, rows in taken]
            merged: list[Piece] = []
            if segment is not None and order is not None:
                lost = np.flatnonzero(np.concatenate(gone)[order]).tolist()
                merged = [Piece(segment=segment).without(lost) if lost else Piece(segment=segment)]
            replaced = {id(piece.segment) for piece in pieces}
            # In front, where the large ones are; changes merge the small ones at the end.
            left = [piece for piece in self._state.pieces if id(piece.segment) not in replaced]
            self._state = replace(self._state, pieces=(*merged, *left))


def _gone_meanwhile(piece: Piece | None, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Tell which rows can no longer be found; a piece that lost all its rows is no longer there."""
    return np.ones(len(rows), dtype=np.bool_) if piece is None else ~piece.is_live(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Removed:
    """What a change takes out."""

    rows: int
    sids: frozenset[bytes]
    bookings_alone: frozenset[bytes]
    """Bookings without a SID, which are persons of their own."""


def _without_bookings(
    pieces: Iterable[Piece], bookings: Sequence[bytes], hashes: NDArray[np.uint32]
) -> tuple[list[Piece], _Removed]:
    left: list[Piece] = []
    sids: set[bytes] = set()
    alone: set[bytes] = set()
    removed = 0
    for piece in pieces:
        found = list(piece.segment.ids.rows_of_bookings(bookings, hashes))
        live = piece.is_live(np.array([row for _, row in found], dtype=np.int64)).tolist()
        rows = [row for (_, row), is_live in zip(found, live, strict=True) if is_live]
        for row in rows:
            identity = piece.segment.ids[row]
            if identity.sid:
                sids.add(identity.sid.encode())
            else:
                alone.add(identity.booking.encode())
        left.append(piece.without(rows) if rows else piece)
        removed += len(rows)
    return left, _Removed(rows=removed, sids=frozenset(sids), bookings_alone=frozenset(alone))


def _live_sids(pieces: Iterable[Piece], sids: Iterable[bytes]) -> set[bytes]:
    """Return which of some SIDs can be found."""
    wanted, hashes = by_hash(list(sids))
    live: set[bytes] = set()
    for piece in pieces:
        found = list(piece.segment.ids.rows_of_sids(wanted, hashes))
        states = piece.is_live(np.array([row for _, row in found], dtype=np.int64)).tolist()
        live.update(sid for (sid, _), is_live in zip(found, states, strict=True) if is_live)
    return live


def _give_memory_back() -> None:
    """Let the operating system have what a merge no longer needs; glibc would keep it for the next one."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
