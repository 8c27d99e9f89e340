"""Many gallery records at once: those that are usual enrolments become columns, the others are named.

What a gallery record says is decided by `schemas/codec.py` and `processors/templates.py`, one record at a time. This
reads only what they would read without a fault, and to the same values; a record that is not among what it returns may
be anything.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from processors.template_rows import TemplateRows, hashes_of, together
from processors.templates import are_templates
from schemas.avro_schemas import ALL_VERSIONS
from schemas.codec import SINGLE_OBJECT
from schemas.events import TemplatesEnrolled
from schemas.instants import FIRST_MICROS, LAST_MICROS
from schemas.keys import booking_keys
from schemas.layouts import layout_of, numbers_at

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from schemas.layouts import Layout

FEWEST_ALIKE = 12
"""Fewer records of one layout are quicker read one by one."""
_MOST_LAYOUTS_OF_A_LENGTH = 8
_SCHEMAS = {
    SINGLE_OBJECT + version.fingerprint: version.schema
    for version in ALL_VERSIONS
    if version.name == TemplatesEnrolled.AVRO_NAME
}
_HEADER_BYTES = len(next(iter(_SCHEMAS)))
_UUID_TEXT = 36
_HYPHENS = (8, 13, 18, 23)
_0, _A = np.frombuffer(b"0a", dtype=np.uint8)
_DECIMALS, _LETTERS = 10, 6
_DIGITS = np.array([at for at in range(_UUID_TEXT) if at not in _HYPHENS])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Enrolments:
    """What m usual enrolments say."""

    rows: TemplateRows
    """With a booking for each enrolment; that each stands there once is for `of_their_own` to see to."""
    records: NDArray[np.intp]
    """(m,) for each booking of `rows`, which of the records that were read enrols it."""
    source_offsets: NDArray[np.int64]
    """(m,)."""
    said_at_us: NDArray[np.int64]
    """(m,) when the publisher said it, microseconds since the epoch."""

    def __len__(self) -> int:
        return len(self.records)

    def of_their_own(self, others: Collection[bytes]) -> NDArray[np.bool_]:
        """Tell which of the bookings are enrolled here once, and are none of some others: their order is no matter."""
        bookings = self.rows.bookings
        if len(set(bookings)) == len(bookings) and not others:
            return np.ones(len(bookings), dtype=np.bool_)
        times = Counter(bookings)
        return np.array([times[booking] == 1 and booking not in others for booking in bookings], dtype=np.bool_)

    def only(self, wanted: NDArray[np.bool_]) -> Enrolments:
        """Return some of them."""
        if wanted.all():
            return self
        return Enrolments(
            rows=self.rows.of_bookings(wanted),
            records=self.records[wanted],
            source_offsets=self.source_offsets[wanted],
            said_at_us=self.said_at_us[wanted],
        )


def read_enrolments(
    values: Sequence[bytes | None], *, model_digest: str, dimension: int, fewest: int = FEWEST_ALIKE
) -> Enrolments:
    """Return what usual enrolments of one model among some records say.

    Args:
        values: of the records.
        model_digest: of the gallery.
        dimension: of its templates.
        fewest: a layout that fewer records have is not read.
    """
    texts = [value or b"" for value in values]
    sizes = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    by_size = np.argsort(sizes, kind="stable")
    found = []
    for numbers in np.split(by_size, np.flatnonzero(np.diff(sizes[by_size])) + 1):
        for layout, alike, which in _alike([texts[number] for number in numbers.tolist()], numbers, fewest):
            usual = _usual(layout, alike, model_digest.encode(), dimension)
            if usual.all():
                found.append(_read(layout, alike, which))
            elif usual.any():
                found.append(_read(layout, alike[usual], which[usual]))
    return Enrolments(
        rows=together([each.rows for each in found], dimension=dimension),
        records=np.concatenate([np.empty(0, dtype=np.intp), *(each.records for each in found)]),
        source_offsets=np.concatenate([np.empty(0, dtype=np.int64), *(each.source_offsets for each in found)]),
        said_at_us=np.concatenate([np.empty(0, dtype=np.int64), *(each.said_at_us for each in found)]),
    )


def _alike(
    values: Sequence[bytes], which: NDArray[np.intp], fewest: int
) -> Iterator[tuple[Layout, NDArray[np.uint8], NDArray[np.intp]]]:
    """Yield layouts, the records that have each, `(n, size)`, and which they are; all have one size."""
    if not values or not values[0]:
        return
    records = np.frombuffer(b"".join(values), dtype=np.uint8).reshape(len(values), -1)
    for _ in range(_MOST_LAYOUTS_OF_A_LENGTH):
        if len(which) < fewest:
            return
        first = records[0].tobytes()
        schema = _SCHEMAS.get(first[:_HEADER_BYTES])
        layout = None if schema is None else layout_of(first, schema, start=_HEADER_BYTES)
        if layout is None:
            records, which = records[1:], which[1:]
            continue
        fits = layout.fits(records)
        if fits.all():
            yield layout, records, which
            return
        if np.count_nonzero(fits) >= fewest:
            yield layout, records[fits], which[fits]
        records, which = records[~fits], which[~fits]


def _usual(layout: Layout, alike: NDArray[np.uint8], model_digest: bytes, dimension: int) -> NDArray[np.bool_]:
    """Tell which records say nothing that has to be looked at one by one."""
    places = layout.places
    captures = [f"captures.{number}" for number in range(layout.counts["captures"])]
    ids = [places["event_id"], *(places[f"{capture}.capture_id"] for capture in captures)]
    templates = [places[f"{capture}.template"] for capture in captures]
    texts = [places[name] for name in ("ori", "booking_number", "sid") if name in places]
    usual = np.zeros(len(alike), dtype=np.bool_)
    if not (
        captures
        and _size(places["model_digest"]) == len(model_digest)
        and all(_size(place) == _UUID_TEXT for place in ids)
        and all(_size(place) == 2 * dimension for place in templates)
        and all(map(_size, texts[:2]))
    ):
        return usual
    usual[:] = _every(alike[:, places["model_digest"]] == np.frombuffer(model_digest, dtype=np.uint8))
    for place in ids:
        usual &= _are_uuids(alike[:, place])
    for place in texts:
        usual &= _every(alike[:, place] != 0)  # NumPy drops a NUL at the end of a text.
    for name in ("occurred_at", "source_said_at"):
        at_us = numbers_at(alike, places[name])
        usual &= (at_us >= FIRST_MICROS) & (at_us <= LAST_MICROS)
    for place in templates:
        usual &= are_templates(_halves(alike[:, place]))
    return usual


def _read(layout: Layout, alike: NDArray[np.uint8], which: NDArray[np.intp]) -> Enrolments:
    places, count, captures = layout.places, len(alike), range(layout.counts["captures"])
    ori, number = alike[:, places["ori"]], alike[:, places["booking_number"]]
    sid = alike[:, places["sid"]] if "sid" in places else alike[:, :0]
    bookings = _texts(booking_keys(ori, number))
    return Enrolments(
        rows=TemplateRows(
            bookings=bookings,
            hashes=hashes_of(bookings),
            owners=np.tile(np.arange(count), len(captures)),
            oris=_texts(ori) * len(captures),
            numbers=_texts(number) * len(captures),
            sids=_texts(sid) * len(captures),
            captures=np.concatenate([_uuids(alike[:, places[f"captures.{one}.capture_id"]]) for one in captures]),
            synthetic=np.tile(alike[:, places["synthetic"]].ravel() == 1, len(captures)),
            quality=np.concatenate(
                [_as(alike[:, places[f"captures.{one}.quality"]], "<f8") for one in captures]
            ).ravel(),
            templates=np.concatenate([_halves(alike[:, places[f"captures.{one}.template"]]) for one in captures]),
        ),
        records=which,
        source_offsets=numbers_at(alike, places["source.offset"]),
        said_at_us=numbers_at(alike, places["source_said_at"]),
    )


def _size(place: slice) -> int:
    return int(place.stop - place.start)


def _texts(columns: NDArray[np.uint8]) -> list[bytes]:
    """Return (n, size) as n texts."""
    count, size = columns.shape
    return np.ascontiguousarray(columns).view(f"S{size}").ravel().tolist() if size else [b""] * count


def _every(truths: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell for which of (n, size) everything is true; that it is for all is told at once."""
    return np.ones(len(truths), dtype=np.bool_) if truths.all() else np.logical_and.reduce(truths, axis=1)


def _are_uuids(columns: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell which of (n, 36) are UUIDs in lower case."""
    digits = columns[:, _DIGITS]
    # Numbers below the first one wrap round and are large.
    is_digit = (digits - _0 < _DECIMALS) | (digits - _A < _LETTERS)
    return _every(is_digit) & _every(columns[:, _HYPHENS] == ord("-"))


def _uuids(columns: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the bytes of (n, 36) UUIDs in lower case, `(n, 16)`."""
    digits = columns[:, _DIGITS]
    values = np.where(digits < _A, digits - _0, digits - _A + np.uint8(_DECIMALS))
    return np.asarray(values[:, 0::2] << 4 | values[:, 1::2])


def _halves(columns: NDArray[np.uint8]) -> NDArray[np.float16]:
    return np.asarray(_as(columns, "<f2"), dtype=np.float16)


def _as(columns: NDArray[np.uint8], kind: str) -> Any:
    return np.ascontiguousarray(columns).view(kind)
