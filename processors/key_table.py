"""Numbers for keys, compactly: the n-th new key is number n, for ever. About 40 bytes a key of twenty characters.

A Python dictionary of ten million booking keys takes two gigabytes. Here the texts stand one behind the other in one
array, and an open hash table in small parts finds them: a part that is full grows by itself, so that no key waits
for the whole table. Keys that come by the thousand are looked for together.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from schemas.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

PARTS = 256
FIRST_SLOTS = 8
_FULLEST = 0.7
_MOST_ROOM = 1.25
"""Slots of parts that grew and moved away are kept up to this share of those in use."""


class KeyTable:
    """Keys and their numbers; a key is never removed."""

    def __init__(self) -> None:
        self._texts = bytearray()
        self._ends = array("Q")
        self._hashes = array("I")
        # Slots hold numbers, one higher than they are; 0 is empty. Each part's slots stand somewhere in `_slots`.
        self._slots = array("I", bytes(PARTS * FIRST_SLOTS * 4))
        self._sizes = np.full(PARTS, FIRST_SLOTS, dtype=np.int64)
        self._starts = np.arange(PARTS, dtype=np.int64) * FIRST_SLOTS
        self._used = np.zeros(PARTS, dtype=np.int64)

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
        number = self._slots[self._slot(crc32(text), text)]
        return number - 1 if number else None

    def add(self, key: str) -> int:
        """Return the number of a key, the next one if it has none yet."""
        text = key.encode()
        hashed = crc32(text)
        slot = self._slot(hashed, text)
        if number := self._slots[slot]:
            return number - 1
        part = hashed % PARTS
        if self._used[part] + 1 > _FULLEST * self._sizes[part]:
            self._grow(part)
            slot = self._slot(hashed, text)
        self._texts += text
        self._ends.append(len(self._texts))
        self._hashes.append(hashed)
        self._slots[slot] = len(self._ends)
        self._used[part] += 1
        return len(self._ends) - 1

    def add_all(self, keys: Sequence[bytes], hashes: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Return the number of each key, as `add` would one after the other, in a fraction of the time.

        Args:
            keys: UTF-8, each once.
            hashes: the CRC-32 of each.
        """
        parts = (hashes % PARTS).astype(np.int64)
        coming = np.bincount(parts, minlength=PARTS)
        for part in np.flatnonzero(self._used + coming > _FULLEST * self._sizes).tolist():
            while self._used[part] + coming[part] > _FULLEST * self._sizes[part]:
                self._grow(part)
        numbers, slots = self._find_all(keys, hashes, parts)
        new = np.flatnonzero(numbers < 0)
        numbers[new] = len(self) + np.arange(len(new))
        self._occupy(numbers[new], slots[new], parts[new])
        self._used += np.bincount(parts[new], minlength=PARTS)
        texts = [keys[number] for number in new.tolist()]
        ends = len(self._texts) + np.cumsum(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)))
        self._texts += b"".join(texts)
        self._ends.frombytes(ends.astype(np.uint64).tobytes())
        self._hashes.frombytes(hashes[new].tobytes())
        return numbers

    @property
    def nbytes(self) -> int:
        """Bytes that it holds, room to grow not counted."""
        slots = int(self._sizes.sum()) * self._slots.itemsize
        return len(self._texts) + len(self) * (self._ends.itemsize + self._hashes.itemsize) + slots

    def dump(self) -> dict[str, bytes]:
        """Return everything as named bytes, a copy as of now."""
        return {
            "texts": bytes(self._texts),
            "ends": self._ends.tobytes(),
            "hashes": self._hashes.tobytes(),
            "slots": self._parts_together().tobytes(),
            "sizes": self._sizes.astype(np.uint32).tobytes(),
        }

    @classmethod
    def load(cls, dumped: Mapping[str, bytes]) -> KeyTable:
        """Return the table that was dumped.

        Raises:
            ContractError: the parts do not belong together.
        """
        table = cls()
        sizes = np.frombuffer(dumped["sizes"], dtype=np.uint32).astype(np.int64)
        table._slots = array("I", dumped["slots"])
        table._texts = bytearray(dumped["texts"])
        table._ends, table._hashes = array("Q", dumped["ends"]), array("I", dumped["hashes"])
        last = table._ends[-1] if table._ends else 0
        if len(sizes) != PARTS or sizes.min() < 1 or sizes.sum() != len(table._slots) or last != len(table._texts):
            raise ContractError("The table of bookings does not fit together.")
        table._sizes, table._starts = sizes, np.cumsum(sizes) - sizes
        table._used = np.add.reduceat(np.asarray(table._slots) != 0, table._starts, dtype=np.int64)
        if table._used.sum() != len(table) or len(table._hashes) != len(table):
            raise ContractError("The table of bookings does not fit together.")
        return table

    def _text(self, number: int) -> bytearray:
        return self._texts[self._ends[number - 1] if number else 0 : self._ends[number]]

    def _slot(self, hashed: int, text: bytes) -> int:
        """Return where a key stands, or the empty slot where it belongs."""
        part = hashed % PARTS
        start, size, slots = int(self._starts[part]), int(self._sizes[part]), self._slots
        slot = hashed // PARTS % size
        while (number := slots[start + slot]) and self._text(number - 1) != text:
            slot = (slot + 1) % size
        return start + slot

    def _find_all(
        self, keys: Sequence[bytes], hashes: NDArray[np.uint32], parts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the number of each key, -1 where it has none, and its slot, or the empty one where it belongs."""
        slots, known = np.asarray(self._slots), np.asarray(self._hashes)
        starts, sizes = self._starts[parts], self._sizes[parts]
        at = starts + hashes // PARTS % sizes
        numbers, sought = np.full(len(keys), -1, dtype=np.int64), np.arange(len(keys))
        while True:
            found = slots[at[sought]].astype(np.int64) - 1
            sought, found = sought[found >= 0], found[found >= 0]
            if not len(sought):
                return numbers, at
            same = known[found] == hashes[sought]
            for place in np.flatnonzero(same).tolist():
                same[place] = self._text(int(found[place])) == keys[sought[place]]
            numbers[sought[same]] = found[same]
            sought = sought[~same]
            at[sought] = _next(at[sought], starts[sought], sizes[sought])

    def _grow(self, part: int) -> None:
        begin, size = int(self._starts[part]), int(self._sizes[part])
        numbers = np.asarray(self._slots)[begin : begin + size].astype(np.int64) - 1
        numbers = numbers[numbers >= 0]
        hashes = np.asarray(self._hashes)[numbers]
        self._starts[part], self._sizes[part] = len(self._slots), 2 * size
        self._slots.frombytes(bytes(2 * size * self._slots.itemsize))
        self._occupy(numbers, self._starts[part] + hashes // PARTS % (2 * size), np.full(len(numbers), part))
        if len(self._slots) > _MOST_ROOM * self._sizes.sum():
            self._slots = array("I", self._parts_together().tobytes())
            self._starts = np.cumsum(self._sizes) - self._sizes

    def _occupy(self, numbers: NDArray[np.int64], at: NDArray[np.int64], parts: NDArray[np.int64]) -> None:
        """Put numbers of keys that stand nowhere yet into the first empty slots from some slots on."""
        slots, starts, sizes = np.asarray(self._slots), self._starts[parts], self._sizes[parts]
        left = np.arange(len(numbers))
        while len(left):
            empty = left[slots[at[left]] == 0]
            slots[at[empty]] = numbers[empty] + 1
            # Of several that came to one slot, one has it now.
            left = left[slots[at[left]] != numbers[left] + 1]
            at[left] = _next(at[left], starts[left], sizes[left])

    def _parts_together(self) -> NDArray[np.uint32]:
        slots = np.asarray(self._slots)
        return np.concatenate(
            [
                slots[start : start + size]
                for start, size in zip(self._starts.tolist(), self._sizes.tolist(), strict=True)
            ],
        )


def _next(at: NDArray[np.int64], starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return starts + (at - starts + 1) % sizes
