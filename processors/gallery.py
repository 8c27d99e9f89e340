"""Which record of a booking counts: the one from the highest source offset, whatever a restart repeats (G5).

All events of a booking come from one partition of the booking topic, so their offsets are its order of truth. The log
of gallery records may repeat older ones behind newer ones (a worker killed before it committed, a worker that woke up
late); followers ignore those. But compaction keeps the *last* record of a key, not the one from the highest source
offset, so a late repeat would erase the withdrawal behind it from the log. The ledger therefore knows the bookings
whose last record is not the one that counts, so that a worker can put that one at the end again
(docs/adr/0002-late-repeats-and-compaction.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from schemas.events import TemplatesWithdrawn, WithdrawalCause
from schemas.keys import booking_key

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from schemas.events import TemplatesEnrolled
    from schemas.positions import SourcePosition

BARRING = frozenset({WithdrawalCause.SEALED, WithdrawalCause.EXPUNGED})
"""Causes that keep later bookings of the same number out until an unseal."""


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
    """For each booking the record that counts; knows nothing of templates."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._superseded_by_late: set[str] = set()

    def judge(self, event: TemplatesEnrolled | TemplatesWithdrawn, position: SourcePosition) -> Verdict:
        """Take note of a gallery record at its position in the gallery topic and say what it means.

        Of several records from one source offset the last counts: a repeated decision may differ, and the last is the
        one that compaction keeps, so that an old replica and one made from the compacted log agree (G7).
        """
        key = booking_key(event.ori, event.booking_number)
        before = self._entries.get(key)
        if before is not None and event.source.offset < before.source_offset:
            self._superseded_by_late.add(key)
            return Verdict.LATE
        self._superseded_by_late.discard(key)
        self._entries[key] = Entry(
            event.source.offset,
            (position.partition, position.offset),
            event.cause if isinstance(event, TemplatesWithdrawn) else None,
            event.source_said_at,
        )
        return Verdict.COUNTS

    def barred_by(self, key: str) -> WithdrawalCause | None:
        """Return the order that keeps a booking out, or None."""
        entry = self._entries.get(key)
        return entry.withdrawn if entry and entry.withdrawn in BARRING else None

    def entry(self, key: str) -> Entry | None:
        """Return the record of a booking that counts, or None when there never was one."""
        return self._entries.get(key)

    def entries(self) -> Iterable[tuple[str, Entry]]:
        """Return every booking with the record of it that counts."""
        return self._entries.items()

    def is_superseded(self, key: str, source_offset: int) -> bool:
        """Tell whether a booking event of this offset has been followed by one that counts."""
        entry = self._entries.get(key)
        return entry is not None and entry.source_offset > source_offset

    def to_put_at_the_end_again(self) -> dict[str, tuple[int, int]]:
        """Return booking key -> (partition, offset) of the counting record, where a late repeat stands behind it."""
        return {key: self._entries[key].position for key in sorted(self._superseded_by_late)}

    def __len__(self) -> int:
        return len(self._entries)


def newer_in(source: GalleryLedger, target: GalleryLedger) -> dict[str, Entry]:
    """Return, by booking, what counts in one generation and is not in another, or only in an older state."""
    return {
        key: entry
        for key, entry in source.entries()
        if not (there := target.entry(key)) or there.source_offset < entry.source_offset
    }
