"""Searchable templates as columns: what the gallery takes, without an object a template.

A worker that starts without a snapshot reads millions of templates; as objects each costs more than everything that the
gallery does with it. Changes that come as objects (`processors/candidates.py`) are made rows here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from processors.templates import UNIT_TOLERANCE
from schemas.errors import ContractError
from schemas.keys import booking_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from processors.candidates import EnrolledTemplate, GalleryChange

SID_PERSON, BOOKING_PERSON = "sid:", "booking:"
"""What the names of persons begin with: a number of the state's, or the booking itself."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TemplateRows:
    """From here on exactly these n templates are searchable for these bookings."""

    bookings: Sequence[bytes]
    """Keys of the bookings, each once; one without a row was withdrawn. All texts are UTF-8."""
    hashes: NDArray[np.uint32]
    """Of each booking's key, as `hashes_of` makes them."""
    owners: NDArray[np.intp]
    """(n,) which of `bookings` a row is of."""
    oris: Sequence[bytes]
    """(n,)."""
    numbers: Sequence[bytes]
    """(n,) booking numbers."""
    sids: Sequence[bytes]
    """(n,) empty where the state has no number for the person."""
    captures: NDArray[np.uint8]
    """(n, 16) the bytes of the capture id."""
    synthetic: NDArray[np.bool_]
    """(n,)."""
    quality: NDArray[np.float64]
    """(n,) of the capture, 0 to 1 where all is well; a record may say anything."""
    templates: NDArray[np.float16]
    """(n, dimension), each of length 1: whoever makes rows has checked that."""

    def __len__(self) -> int:
        return len(self.owners)

    def of_bookings(self, wanted: NDArray[np.bool_]) -> TemplateRows:
        """Return some of the bookings with their rows."""
        if wanted.all():
            return self
        rows = np.flatnonzero(wanted[self.owners])
        kept = self.part(rows)
        return TemplateRows(
            bookings=[self.bookings[number] for number in np.flatnonzero(wanted).tolist()],
            hashes=self.hashes[wanted],
            owners=(np.cumsum(wanted) - 1)[kept.owners],
            oris=kept.oris,
            numbers=kept.numbers,
            sids=kept.sids,
            captures=kept.captures,
            synthetic=kept.synthetic,
            quality=kept.quality,
            templates=kept.templates,
        )

    def part(self, rows: NDArray[np.intp]) -> TemplateRows:
        """Return some of the rows, beside all of the bookings."""
        which = rows.tolist()
        return TemplateRows(
            bookings=self.bookings,
            hashes=self.hashes,
            owners=self.owners[rows],
            oris=[self.oris[row] for row in which],
            numbers=[self.numbers[row] for row in which],
            sids=[self.sids[row] for row in which],
            captures=self.captures[rows],
            synthetic=self.synthetic[rows],
            quality=self.quality[rows],
            templates=self.templates[rows],
        )


def hashes_of(texts: Iterable[bytes]) -> NDArray[np.uint32]:
    """Return the CRC-32 of each text: quick, and the same in every process."""
    return np.fromiter(map(crc32, texts), dtype=np.uint32)


def by_hash(texts: Sequence[bytes], hashes: NDArray[np.uint32] | None = None) -> tuple[list[bytes], NDArray[np.uint32]]:
    """Return texts and their hashes in the order of these."""
    known = hashes_of(texts) if hashes is None else hashes
    order = np.argsort(known)
    return [texts[number] for number in order.tolist()], known[order]


def together(parts: Sequence[TemplateRows], *, dimension: int) -> TemplateRows:
    """Return several as one; no booking may stand in two of them."""
    parts = [part for part in parts if part.bookings]
    if len(parts) == 1:
        return parts[0]
    bookings = [booking for part in parts for booking in part.bookings]
    base = np.cumsum([0, *(len(part.bookings) for part in parts)])
    nothing = np.empty(0, dtype=np.intp)
    return TemplateRows(
        bookings=bookings,
        hashes=np.concatenate([np.empty(0, dtype=np.uint32), *(part.hashes for part in parts)]),
        owners=np.concatenate([nothing, *(part.owners + first for part, first in zip(parts, base, strict=False))]),
        oris=[ori for part in parts for ori in part.oris],
        numbers=[number for part in parts for number in part.numbers],
        sids=[sid for part in parts for sid in part.sids],
        captures=np.concatenate([np.empty((0, 16), dtype=np.uint8), *(part.captures for part in parts)]),
        synthetic=np.concatenate([np.empty(0, dtype=np.bool_), *(part.synthetic for part in parts)]),
        quality=np.concatenate([np.empty(0, dtype=np.float64), *(part.quality for part in parts)]),
        templates=np.concatenate([np.empty((0, dimension), dtype=np.float16), *(part.templates for part in parts)]),
    )


def rows_of(changes: Sequence[GalleryChange], *, dimension: int) -> TemplateRows:
    """Return what is searchable after changes, applied in order, for the bookings that they change.

    Raises:
        ContractError: a template is none, or is of another dimension, booking or person than its change may bring.
    """
    final = {change.booking: change.templates for change in changes}
    added = [enrolled for templates in final.values() for enrolled in templates]
    for booking, templates in final.items():
        for enrolled in templates:
            if enrolled.template.shape != (dimension,):
                raise ContractError(f"A template has shape {enrolled.template.shape}, the gallery ({dimension},).")
            if booking_key(enrolled.ori, enrolled.booking_number) != booking:
                raise ContractError("A template is of another booking than the change that brings it.")
    bookings = [booking.encode() for booking in final]
    counts = [len(templates) for templates in final.values()]
    return TemplateRows(
        bookings=bookings,
        hashes=hashes_of(bookings),
        owners=np.repeat(np.arange(len(bookings)), counts),
        oris=[each.ori.encode() for each in added],
        numbers=[each.booking_number.encode() for each in added],
        sids=[sid_of(each).encode() for each in added],
        captures=np.frombuffer(b"".join(each.capture_id.bytes for each in added), dtype=np.uint8).reshape(-1, 16),
        synthetic=np.array([each.synthetic for each in added], dtype=np.bool_),
        quality=np.array([each.quality for each in added], dtype=np.float64),
        templates=_halves([each.template for each in added], dimension),
    )


def sid_of(enrolled: EnrolledTemplate) -> str:
    """Return the SID of a template's person, empty where the person is the booking itself.

    Raises:
        ContractError: the person is neither.
    """
    person = enrolled.person
    if person.startswith(SID_PERSON) and person != SID_PERSON:
        return person[len(SID_PERSON) :]
    if person == f"{BOOKING_PERSON}{booking_key(enrolled.ori, enrolled.booking_number)}":
        return ""
    raise ContractError("A template belongs to a SID or to its own booking; this one names another person.")


def check_directions(templates: NDArray[np.float32]) -> None:
    """Refuse (n, d) templates that are none.

    Raises:
        ContractError: a length as a vector is not 1.
    """
    exact = templates.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", exact, exact))
    if not np.all(np.abs(lengths - 1.0) <= UNIT_TOLERANCE):
        raise ContractError("A template is none: its length as a vector is not 1.")


def _halves(templates: Sequence[NDArray[np.float32]], dimension: int) -> NDArray[np.float16]:
    if not templates:
        return np.empty((0, dimension), dtype=np.float16)
    matrix = np.stack(templates)
    check_directions(matrix)
    halves = matrix.astype(np.float16)
    if not np.array_equal(halves, matrix):
        raise ContractError("A template has numbers that half precision cannot hold.")
    return halves
