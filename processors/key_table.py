"""Numbers for keys, compactly: the n-th new key is number n, for ever. About 35 bytes a key of twenty characters.

A Python dictionary of ten million booking keys takes two gigabytes. Here the texts stand one behind the other in one
array, and an open hash table in small parts finds them: a part that is full grows by itself, so that no key waits
for the whole table.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from schemas.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PARTS = 256
FIRST_SLOTS = 8
_FULLEST = 0.7


class KeyTable:
    """Keys and their numbers; a key is never removed."""

    def __init__(self) -> None:
        self._texts = bytearray()
        self._ends = array("Q")
        self._parts = [_Part() for _ in range(PARTS)]

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[str]:
        """Yield the keys in the order of their numbers."""
        return map(self.key, range(len(self)))

    def key(self, number: int) -> str:
        """Return the key of a number."""
        return self._text(number).decode()

    def find(self, key: str) -> int | None:
        """Return the number of a key, or None when it has none."""
        text = key.encode()
        part, hashed = self._part_of(text)
        slot = self._slot(part, hashed, text)
        number = part.slots[slot]
        return number - 1 if number else None

    def add(self, key: str) -> int:
        """Return the number of a key, the next one if it has none yet."""
        text = key.encode()
        part, hashed = self._part_of(text)
        slot = self._slot(part, hashed, text)
        if number := part.slots[slot]:
            return number - 1
        if part.used + 1 > _FULLEST * len(part.slots):
            self._grow(part)
            slot = self._slot(part, hashed, text)
        self._texts += text
        self._ends.append(len(self._texts))
        part.slots[slot] = len(self._ends)
        part.used += 1
        return len(self._ends) - 1

    @property
    def nbytes(self) -> int:
        """Bytes that it holds, room to grow not counted."""
        slots = sum(len(part.slots) * part.slots.itemsize for part in self._parts)
        return len(self._texts) + len(self._ends) * self._ends.itemsize + slots

    def dump(self) -> dict[str, bytes]:
        """Return everything as named bytes, a copy as of now."""
        slots = array("I")
        for part in self._parts:
            slots.extend(part.slots)
        sizes = array("I", [len(part.slots) for part in self._parts])
        return {
            "texts": bytes(self._texts),
            "ends": self._ends.tobytes(),
            "slots": slots.tobytes(),
            "sizes": sizes.tobytes(),
        }

    @classmethod
    def load(cls, dumped: Mapping[str, bytes]) -> KeyTable:
        """Return the table that was dumped.

        Raises:
            ContractError: the parts do not belong together.
        """
        table = cls()
        sizes, slots = array("I", dumped["sizes"]), array("I", dumped["slots"])
        table._texts = bytearray(dumped["texts"])
        table._ends = array("Q", dumped["ends"])
        last = table._ends[-1] if table._ends else 0
        if len(sizes) != PARTS or min(sizes) < 1 or sum(sizes) != len(slots) or last != len(table._texts):
            raise ContractError("The table of bookings does not fit together.")
        ends = np.cumsum(np.asarray(sizes), dtype=np.int64)
        used = np.add.reduceat(np.asarray(slots) != 0, ends - np.asarray(sizes), dtype=np.int64)
        for part, end, size, count in zip(table._parts, ends.tolist(), sizes, used.tolist(), strict=True):
            part.slots = slots[end - size : end]
            part.used = count
        if sum(part.used for part in table._parts) != len(table):
            raise ContractError("The table of bookings does not fit together.")
        return table

    def _text(self, number: int) -> bytearray:
        return self._texts[self._ends[number - 1] if number else 0 : self._ends[number]]

    def _part_of(self, text: bytes) -> tuple[_Part, int]:
        hashed = crc32(text)
        return self._parts[hashed % PARTS], hashed // PARTS

    def _slot(self, part: _Part, hashed: int, text: bytes) -> int:
        """Return where a key stands in its part, or the empty slot where it belongs."""
        slots = part.slots
        slot = hashed % len(slots)
        while (number := slots[slot]) and self._text(number - 1) != text:
            slot = (slot + 1) % len(slots)
        return slot

    def _grow(self, part: _Part) -> None:
        numbers = [number for number in part.slots if number]
        part.slots = array("I", bytes(2 * len(part.slots) * part.slots.itemsize))
        for number in numbers:
            text = self._text(number - 1)
            part.slots[self._slot(part, crc32(text) // PARTS, bytes(text))] = number


class _Part:
    """A part of the hash table: numbers behind their keys' hashes, one higher than they are; 0 is empty."""

    __slots__ = ("slots", "used")

    def __init__(self) -> None:
        self.slots = array("I", bytes(FIRST_SLOTS * 4))
        self.used = 0
