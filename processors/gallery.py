"""Which record of a booking counts: the one from the highest source offset, whatever a restart repeats (G5).

All events of a booking come from one partition of the booking topic, so their offsets are its order of truth. The log
of gallery records may repeat older ones behind newer ones (a worker killed before it committed, a worker that woke up
late); followers ignore those. But compaction keeps the *last* record of a key, not the one from the highest source
offset, so a late repeat would erase the withdrawal behind it from the log. The ledger therefore knows the bookings
whose last record is not the one that counts, so that a worker can put that one at the end again
(docs/adr/0002-late-repeats-and-compaction.md).
"""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from processors.key_table import KeyTable
from schemas.errors import ContractError
from schemas.events import TemplatesWithdrawn, WithdrawalCause
from schemas.instants import from_micros, to_micros
from schemas.keys import booking_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from schemas.events import TemplatesEnrolled
    from schemas.positions import SourcePosition

BARRING = frozenset({WithdrawalCause.SEALED, WithdrawalCause.EXPUNGED})
"""Causes that keep later bookings of the same number out until an unseal."""


_CAUSES = tuple(WithdrawalCause)
_ENROLLED = -1


class Verdict(Enum):
    """What a gallery record means for the replica."""

    COUNTS = "not older than any before: apply it"
    LATE = "older than the one that counts: ignore it, and put that one at the end again"


@dataclass(frozen=True, slots=True)
class Entry:
    """The record of a booking that counts."""

    source_offset: int
    """Offset in the booking topic of the event it comes from."""
    position: tuple[int, int]
    """(partition, offset) of the record in the gallery topic."""
    withdrawn: WithdrawalCause | None
    """None while enrolled."""
    said_at: datetime
    """The latest time at which a publisher said something that counted."""


class GalleryLedger:
    """For each booking the record that counts; knows nothing of templates. About 70 bytes a booking."""

    def __init__(self) -> None:
        self._keys = KeyTable()
        self._source_offsets = array("q")
        self._partitions = array("h")
        self._offsets = array("q")
        self._causes = array("b")
        self._said_at_us = array("q")
        self._superseded_by_late: set[str] = set()

    def judge(self, event: TemplatesEnrolled | TemplatesWithdrawn, position: SourcePosition) -> Verdict:
        """Take note of a gallery record at its position in the gallery topic and say what it means.

        Of several records from one source offset the last counts: a repeated decision may differ, and the last is the
        one that compaction keeps, so that an old replica and one made from the compacted log agree (G7).
        """
        return self.judge_as(
            booking_key(event.ori, event.booking_number),
            source_offset=event.source.offset,
            position=(position.partition, position.offset),
            withdrawn=event.cause if isinstance(event, TemplatesWithdrawn) else None,
            said_at_us=to_micros(event.source_said_at),
        )

    def judge_as(
        self,
        key: str,
        *,
        source_offset: int,
        position: tuple[int, int],
        withdrawn: WithdrawalCause | None,
        said_at_us: int,
    ) -> Verdict:
        """Do what `judge` does, for whoever has no event; what the arguments are, `Entry` says."""
        known = len(self._keys)
        number = self._keys.add(key)
        if number == known:
            self._source_offsets.append(0)
            self._partitions.append(0)
            self._offsets.append(0)
            self._causes.append(0)
            self._said_at_us.append(0)
        elif source_offset < self._source_offsets[number]:
            self._superseded_by_late.add(key)
            return Verdict.LATE
        self._superseded_by_late.discard(key)
        self._source_offsets[number] = source_offset
        self._partitions[number], self._offsets[number] = position
        self._causes[number] = _ENROLLED if withdrawn is None else _CAUSES.index(withdrawn)
        self._said_at_us[number] = said_at_us
        return Verdict.COUNTS

    def judge_all(
        self,
        keys: Sequence[bytes],
        hashes: NDArray[np.uint32],
        *,
        source_offsets: NDArray[np.int64],
        partitions: NDArray[np.int64],
        offsets: NDArray[np.int64],
        said_at_us: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """Do what `judge_as` does with enrolments of different bookings, and tell which of them count.

        Args:
            keys: UTF-8, each once.
            hashes: the CRC-32 of each.
            source_offsets: what this and the others are, `Entry` says.
            partitions: of the records in the gallery topic.
            offsets: of the records in the gallery topic.
            said_at_us: in microseconds since the epoch.
        """
        known = len(self._keys)
        numbers = self._keys.add_all(keys, hashes)
        for column in self._columns().values():
            column.frombytes(bytes((len(self._keys) - known) * column.itemsize))
        is_known = numbers < known
        counts = ~is_known | (source_offsets >= np.asarray(self._source_offsets)[numbers])
        self._superseded_by_late.difference_update(
            keys[at].decode() for at in np.flatnonzero(is_known & counts).tolist()
        )
        self._superseded_by_late.update(keys[at].decode() for at in np.flatnonzero(~counts).tolist())
        counting = numbers[counts]
        np.asarray(self._source_offsets)[counting] = source_offsets[counts]
        np.asarray(self._partitions)[counting] = partitions[counts]
        np.asarray(self._offsets)[counting] = offsets[counts]
        np.asarray(self._causes)[counting] = _ENROLLED
        np.asarray(self._said_at_us)[counting] = said_at_us[counts]
        return counts

    def barred_by(self, key: str) -> WithdrawalCause | None:
        """Return the order that keeps a booking out, or None."""
        entry = self.entry(key)
        return entry.withdrawn if entry and entry.withdrawn in BARRING else None

    def entry(self, key: str) -> Entry | None:
        """Return the record of a booking that counts, or None when there never was one."""
        number = self._keys.find(key)
        return None if number is None else self._entry(number)

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Yield every booking with the record of it that counts."""
        return ((key, self._entry(number)) for number, key in enumerate(self._keys))

    def is_superseded(self, key: str, source_offset: int) -> bool:
        """Tell whether a booking event of this offset has been followed by one that counts."""
        number = self._keys.find(key)
        return number is not None and self._source_offsets[number] > source_offset

    def has_reached(self, key: str, source_offset: int) -> bool:
        """Tell whether what counts for a booking comes from a booking event of this offset or a later one."""
        number = self._keys.find(key)
        return number is not None and self._source_offsets[number] >= source_offset

    def to_put_at_the_end_again(self) -> dict[str, tuple[int, int]]:
        """Return booking key -> (partition, offset) of the counting record, where a late repeat stands behind it."""
        found = ((key, self.entry(key)) for key in sorted(self._superseded_by_late))
        return {key: entry.position for key, entry in found if entry is not None}

    def last_orders(self) -> dict[int, tuple[str, Entry]]:
        """Return, by gallery partition, the last record there of a court order that bars a booking."""
        barring = np.flatnonzero(np.isin(np.asarray(self._causes), [_CAUSES.index(cause) for cause in BARRING]))
        in_order = barring[np.argsort(np.asarray(self._offsets)[barring])].tolist()
        last = {self._partitions[number]: number for number in in_order}
        return {partition: (self._keys.key(number), self._entry(number)) for partition, number in last.items()}

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds, room to grow not counted."""
        return self._keys.nbytes + sum(len(column) * column.itemsize for column in self._columns().values())

    def dump(self) -> dict[str, bytes]:
        """Return everything as named bytes, a copy as of now, for a snapshot."""
        columns = {name: column.tobytes() for name, column in self._columns().items()}
        keys = {f"key_{name}": data for name, data in self._keys.dump().items()}
        other = {"causes": _CAUSES, "late": sorted(self._superseded_by_late)}
        return {**keys, **columns, "other": json.dumps(other).encode()}

    @classmethod
    def load(cls, dumped: Mapping[str, bytes]) -> GalleryLedger:
        """Return the ledger that was dumped.

        Raises:
            ContractError: something is missing or does not belong together.
        """
        ledger = cls()
        try:
            ledger._keys = KeyTable.load({name[4:]: data for name, data in dumped.items() if name.startswith("key_")})
            for name, column in ledger._columns().items():
                column.frombytes(dumped[name])
            other = json.loads(dumped["other"])
            ledger._superseded_by_late = set(other["late"])
        except (KeyError, ValueError, TypeError) as error:
            raise ContractError(f"The ledger of a snapshot cannot be read: {type(error).__name__}.") from None
        if other["causes"] != list(_CAUSES) or any(len(column) != len(ledger) for column in ledger._columns().values()):
            raise ContractError("The ledger of a snapshot does not fit together.")
        return ledger

    def _columns(self) -> dict[str, array[int]]:
        return {
            "source_offsets": self._source_offsets,
            "partitions": self._partitions,
            "offsets": self._offsets,
            "causes": self._causes,
            "said_at_us": self._said_at_us,
        }

    def _entry(self, number: int) -> Entry:
        cause = self._causes[number]
        return Entry(
            self._source_offsets[number],
            (self._partitions[number], self._offsets[number]),
            None if cause == _ENROLLED else _CAUSES[cause],
            from_micros(self._said_at_us[number]),
        )


def newer_in(source: GalleryLedger, target: GalleryLedger) -> dict[str, Entry]:
    """Return, by booking, what counts in one generation and is not in another, or only in an older state."""
    return {
        key: entry
        for key, entry in source.entries()
        if not (there := target.entry(key)) or there.source_offset < entry.source_offset
    }
