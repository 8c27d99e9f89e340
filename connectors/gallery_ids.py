"""Whose each row of a gallery segment is, in flat arrays: about 35 bytes beside the texts, and no Python object a row.

Rows are sorted by the hash of their booking, so that a booking is found by bisection. A second, sorted list of the rows
that have a SID finds a person's rows. Both hashes are CRC-32, which is quick and the same in every process; what a hash
finds is compared with the text, so a collision costs time and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

from processors.fusion import QUALITY_STEPS
from processors.template_rows import BOOKING_PERSON, SID_PERSON, hashes_of
from schemas.keys import booking_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from processors.template_rows import TemplateRows

# A row's text is booking number, END_OF_NUMBER, SID, END_OF_ROW. No byte of UTF-8 is one of the two ends.
_END_OF_NUMBER, _END_OF_ROW = b"\xff", b"\xfe"
_ROWS_A_BLOCK = 16
_TEXT_CHUNK_ROWS = 1 << 16
_SYNTHETIC = 0x80


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whose one row is."""

    ori: str
    booking_number: str
    sid: str
    """Empty where the state has no number for the person."""
    capture_id: UUID
    synthetic: bool
    quality: float

    @property
    def booking(self) -> str:
        """Key of the booking."""
        return booking_key(self.ori, self.booking_number)

    @property
    def person(self) -> str:
        """The state's person, else the booking itself."""
        return SID_PERSON + self.sid if self.sid else BOOKING_PERSON + self.booking


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Identities:
    """The identities of n rows, never changed."""

    captures: NDArray[np.uint8]
    """(n, 16) the bytes of the capture id."""
    agency: NDArray[np.unsignedinteger]
    """(n,) index in `agencies`, in the smallest type that holds it."""
    facts: NDArray[np.uint8]
    """(n,) bit 7: synthetic; bits 0 to 6: quality in steps of 1 / 127."""
    booking_hashes: NDArray[np.uint32]
    """(n,) ascending."""
    sid_hashes: NDArray[np.uint32]
    """(m,) ascending; of the rows that have a SID."""
    sid_rows: NDArray[np.uint32]
    """(m,) the row of each."""
    texts: NDArray[np.uint8]
    """Booking number and SID of every row, one after the other."""
    blocks: NDArray[np.uint32]
    """Where the text of every 16th row begins, and the end."""
    agencies: tuple[str, ...]
    """ORIs."""

    def __len__(self) -> int:
        return len(self.captures)

    def __getitem__(self, row: int) -> Identity:
        number, sid = (text.decode() for text in self._text(row))
        facts = int(self.facts[row])
        return Identity(
            ori=self.agencies[self.agency[row]],
            booking_number=number,
            sid=sid,
            capture_id=UUID(bytes=self.captures[row].tobytes()),
            synthetic=facts >= _SYNTHETIC,
            quality=(facts & QUALITY_STEPS) / QUALITY_STEPS,
        )

    def quality_steps(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the qualities of some rows in steps of 1 / 127."""
        steps: NDArray[np.uint8] = self.facts[rows] & np.uint8(QUALITY_STEPS)
        return steps

    def rows_of_bookings(self, bookings: Sequence[bytes], hashes: NDArray[np.uint32]) -> Iterator[tuple[bytes, int]]:
        """Yield the rows of some bookings, each with its booking; `hashes` are theirs, ascending."""
        for which, row in _equal(self.booking_hashes, hashes):
            if self._booking(row) == bookings[which]:
                yield bookings[which], row

    def rows_of_sids(self, sids: Sequence[bytes], hashes: NDArray[np.uint32]) -> Iterator[tuple[bytes, int]]:
        """Yield the rows of some SIDs, each with its SID; `hashes` are theirs, ascending."""
        for which, place in _equal(self.sid_hashes, hashes):
            row = int(self.sid_rows[place])
            if self._text(row)[1] == sids[which]:
                yield sids[which], row

    @property
    def nbytes(self) -> int:
        """How many bytes the arrays take."""
        return sum(getattr(self, each.name).nbytes for each in fields(self) if each.name != "agencies")

    def _booking(self, row: int) -> bytes:
        return booking_key(self.agencies[self.agency[row]], self._text(row)[0].decode()).encode()

    def _text(self, row: int) -> tuple[bytes, bytes]:
        block, place = divmod(row, _ROWS_A_BLOCK)
        texts = self.texts[self.blocks[block] : self.blocks[block + 1]].tobytes()
        number, _, sid = texts.split(_END_OF_ROW, place + 1)[place].partition(_END_OF_NUMBER)
        return number, sid


def identities_of(rows: TemplateRows) -> tuple[Identities, NDArray[np.intp]]:
    """Return the identities of new templates, sorted, and which template each row is."""
    agencies = tuple(dict.fromkeys(rows.oris))
    index = {ori: number for number, ori in enumerate(agencies)}
    texts = list(map(_END_OF_NUMBER.join, zip(rows.numbers, rows.sids, strict=True)))
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)) + len(_END_OF_ROW)
    return _sorted(
        captures=rows.captures,
        agency=np.fromiter(map(index.__getitem__, rows.oris), dtype=np.uint32, count=len(rows)),
        facts=_facts(rows),
        booking_hashes=rows.hashes[rows.owners],
        sid_hashes=hashes_of(rows.sids),
        has_sid=np.fromiter(map(bool, rows.sids), dtype=np.bool_, count=len(rows)),
        texts=np.frombuffer(_END_OF_ROW.join([*texts, b""]), dtype=np.uint8),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        agencies=tuple(ori.decode() for ori in agencies),
    )


def merged(parts: Sequence[tuple[Identities, NDArray[np.intp]]]) -> tuple[Identities, NDArray[np.intp]]:
    """Return some rows of several segments as one, sorted, and which of the rows, one after the other, each is."""
    agencies = tuple(dict.fromkeys(ori for ids, _ in parts for ori in ids.agencies))
    index = {ori: number for number, ori in enumerate(agencies)}
    starts, lengths, sid_hashes, has_sid, base = [], [], [], [], 0
    for ids, rows in parts:
        ends = np.flatnonzero(ids.texts == _END_OF_ROW[0]) + 1
        begins = np.concatenate([np.zeros(1, dtype=np.int64), ends[:-1]]) if len(ends) else ends
        starts.append(begins[rows] + base)
        lengths.append((ends - begins)[rows])
        base += len(ids.texts)
        hashes, has = np.zeros(len(ids), dtype=np.uint32), np.zeros(len(ids), dtype=np.bool_)
        hashes[ids.sid_rows], has[ids.sid_rows] = ids.sid_hashes, True
        sid_hashes.append(hashes[rows])
        has_sid.append(has[rows])
    return _sorted(
        captures=np.concatenate([ids.captures[rows] for ids, rows in parts]),
        agency=np.concatenate(
            [np.array([index[ori] for ori in ids.agencies], dtype=np.uint32)[ids.agency[rows]] for ids, rows in parts],
        ),
        facts=np.concatenate([ids.facts[rows] for ids, rows in parts]),
        booking_hashes=np.concatenate([ids.booking_hashes[rows] for ids, rows in parts]),
        sid_hashes=np.concatenate(sid_hashes),
        has_sid=np.concatenate(has_sid),
        texts=np.concatenate([ids.texts for ids, _ in parts]),
        starts=np.concatenate(starts),
        lengths=np.concatenate(lengths),
        agencies=agencies,
    )


def _sorted(
    *,
    captures: NDArray[np.uint8],
    agency: NDArray[np.uint32],
    facts: NDArray[np.uint8],
    booking_hashes: NDArray[np.uint32],
    sid_hashes: NDArray[np.uint32],
    has_sid: NDArray[np.bool_],
    texts: NDArray[np.uint8],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    agencies: tuple[str, ...],
) -> tuple[Identities, NDArray[np.intp]]:
    order = np.argsort(booking_hashes, kind="stable")
    sid_rows = np.flatnonzero(has_sid[order])
    found = sid_hashes[order][sid_rows]
    by_sid = np.argsort(found, kind="stable")
    ends = np.cumsum(lengths[order])
    blocks = np.concatenate([np.zeros(1, dtype=np.int64), ends[_ROWS_A_BLOCK - 1 :: _ROWS_A_BLOCK], ends[-1:]])
    if len(ends) % _ROWS_A_BLOCK == 0:
        blocks = blocks[:-1]
    return (
        Identities(
            captures=captures[order],
            agency=agency[order].astype(np.min_scalar_type(max(len(agencies) - 1, 0))),
            facts=facts[order],
            booking_hashes=booking_hashes[order],
            sid_hashes=found[by_sid],
            sid_rows=sid_rows[by_sid].astype(np.uint32),
            texts=_gathered(texts, starts[order], lengths[order]),
            blocks=blocks.astype(np.uint32),
            agencies=agencies,
        ),
        order,
    )


def _gathered(texts: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return pieces of a text, one after the other."""
    gathered = np.empty(int(lengths.sum()), dtype=np.uint8)
    done = 0
    for first in range(0, len(starts), _TEXT_CHUNK_ROWS):
        begins, sizes = starts[first : first + _TEXT_CHUNK_ROWS], lengths[first : first + _TEXT_CHUNK_ROWS]
        total = int(sizes.sum())
        shift = np.repeat(begins - (np.cumsum(sizes) - sizes), sizes)
        gathered[done : done + total] = texts[np.arange(total) + shift]
        done += total
    return gathered


def _equal(ascending: NDArray[np.uint32], wanted: NDArray[np.uint32]) -> Iterator[tuple[int, int]]:
    """Yield (which of the wanted, where) for every place of an ascending array that holds a wanted number.

    The wanted ones ascend too: neighbours are then found in a part of the array that is at hand, five times as quickly.
    """
    if not len(ascending):
        return
    lefts = np.searchsorted(ascending, wanted, side="left")
    there = np.flatnonzero(ascending.take(lefts, mode="clip") == wanted)
    rights = np.searchsorted(ascending, wanted[there], side="right")
    for which, left, right in zip(there.tolist(), lefts[there].tolist(), rights.tolist(), strict=True):
        for place in range(left, right):
            yield which, place


def _facts(rows: TemplateRows) -> NDArray[np.uint8]:
    quality = np.clip(np.nan_to_num(rows.quality), 0.0, 1.0)
    steps = np.rint(quality * QUALITY_STEPS).astype(np.uint8)
    return np.where(rows.synthetic, steps | np.uint8(_SYNTHETIC), steps)
