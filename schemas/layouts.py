"""Many Avro records at once: where the values stand in one of them, and which others are built alike.

Records of one kind differ in what they say and seldom in where it stands. The schema and one record give a layout; a
record of the same length with the same layout holds every value in the same place, and one comparison of bytes tells.
So a million records are read by slicing arrays, and the schema file stays the only one that knows their fields.

It reads what is usual and refuses the rest, which says nothing about a record but: ask `schemas/codec.py`. Whatever has
a layout can be read by the codec too, with the same values: text is ASCII, a list is one block, numbers fit in 63 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_DOUBLE_BYTES = 8
_LONGEST_NUMBER_BYTES = 9
_ALL, _HIGHEST, _ALL_BUT_LOWEST = 0xFF, 0x80, 0xFE


class _UnusualError(Exception):
    """The record is not laid out as records usually are."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """Where the values of a record stand, for every record that is built like it."""

    places: Mapping[str, slice]
    """Path of a field, e.g. `captures.0.quality`, -> its bytes; of text and bytes, without their length."""
    counts: Mapping[str, int]
    """Path of a list -> how many items it has."""
    example: NDArray[np.uint8]
    """(size,) the record that it was taken from."""
    mask: NDArray[np.uint8]
    """(size,) the bits that decide where values stand, and that values are usual."""

    def fits(self, records: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Tell which of (n, size) records have this layout."""
        different = records ^ self.example
        different &= self.mask
        if not different.max(initial=0):  # Told at once, and nearly always so.
            return np.ones(len(records), dtype=np.bool_)
        return np.logical_not(different.any(axis=1))


def layout_of(record: bytes, schema: Any, *, start: int) -> Layout | None:
    """Return the layout of a record, or None where it is not a usual one.

    Args:
        record: framing and body.
        schema: of its writer, as the .avsc file has it.
        start: where the body begins; what is before must be the same in all records.
    """
    walk = _Walk(record, start)
    try:
        walk.value(schema, "")
    except (_UnusualError, IndexError):
        return None
    if walk.at != len(record):
        return None
    return Layout(
        places=walk.places,
        counts=walk.counts,
        example=np.frombuffer(record, dtype=np.uint8),
        mask=np.frombuffer(walk.mask, dtype=np.uint8),
    )


def numbers_at(records: NDArray[np.uint8], place: slice) -> NDArray[np.int64]:
    """Return the whole numbers (`int`, `long`) that stand in one place of (n, size) records of one layout."""
    raw = np.zeros(len(records), dtype=np.uint64)
    for shift, column in enumerate(records[:, place].T):
        raw |= (column & np.uint8(0x7F)).astype(np.uint64) << np.uint64(7 * shift)
    return (raw >> np.uint64(1)).astype(np.int64) ^ -(raw & np.uint64(1)).astype(np.int64)


class _Walk:
    """One way through one record."""

    def __init__(self, record: bytes, start: int) -> None:
        self.at = start
        self.places: dict[str, slice] = {}
        self.counts: dict[str, int] = {}
        self.mask = bytearray(len(record))
        self.mask[:start] = bytes([_ALL]) * start
        self._record = record

    def value(self, schema: Any, path: str) -> None:
        """Pass over a value."""
        if isinstance(schema, list):
            branch = self._structure()
            if not 0 <= branch < len(schema):
                raise _UnusualError
            self.value(schema[branch], path)
            return
        kind = schema["type"] if isinstance(schema, dict) else schema
        if kind == "record":
            for field in schema["fields"]:
                self.value(field["type"], f"{path}.{field['name']}" if path else field["name"])
        elif kind == "array":
            self._items(schema["items"], path)
        elif kind != "null":
            self._plain(kind, path)

    def _plain(self, kind: str, path: str) -> None:
        begin = self.at
        if kind in ("int", "long"):
            self._number(_HIGHEST)
            self.places[path] = slice(begin, self.at)
        elif kind == "boolean":
            if self._stretch(path, 1, _ALL_BUT_LOWEST)[0] > 1:
                raise _UnusualError
        elif kind == "string":
            if not self._stretch(path, self._structure(), _HIGHEST).isascii():
                raise _UnusualError
        elif kind == "bytes":
            self._stretch(path, self._structure(), 0)
        elif kind == "double":
            self._stretch(path, _DOUBLE_BYTES, 0)
        else:
            raise _UnusualError

    def _items(self, schema: Any, path: str) -> None:
        count = self._structure()
        if count < 0:
            raise _UnusualError
        for number in range(count):
            self.value(schema, f"{path}.{number}")
        if count and self._structure():
            raise _UnusualError
        self.counts[path] = count

    def _structure(self) -> int:
        """Read a number that decides where the rest stands."""
        return self._number(_ALL)

    def _number(self, mask: int) -> int:
        raw, begin = 0, self.at
        while True:
            byte = self._record[self.at]
            raw |= (byte & 0x7F) << 7 * (self.at - begin)
            self.mask[self.at] = mask
            self.at += 1
            if byte < _HIGHEST:
                return (raw >> 1) ^ -(raw & 1)
            if self.at - begin == _LONGEST_NUMBER_BYTES:
                raise _UnusualError

    def _stretch(self, path: str, size: int, mask: int) -> bytes:
        place = slice(self.at, self.at + size)
        if size < 0 or place.stop > len(self._record):
            raise _UnusualError
        self.places[path] = place
        self.mask[place] = bytes([mask]) * size
        self.at = place.stop
        return self._record[place]
