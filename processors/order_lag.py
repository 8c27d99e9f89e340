"""How long the oldest court order waits to be obeyed, in seconds, from looks at Kafka (G5).

The workers commit what they have dealt with, so an order waits only in what they have not come to. That is read only
where it has stood since an earlier look: while the workers keep up, nothing is read, and nothing older than two looks
waits. Ages are counted by one clock that only ever rises; Kafka's is asked once, when an order is found.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


class WaitingOrder(NamedTuple):
    """An order that is not known to be obeyed or refused; they are sorted by age."""

    since_s: float
    """Since when it stands in Kafka."""
    partition: int
    offset: int
    booking: str
    """Key of the booking."""


class OrderLag:
    """Folds looks at the booking topic into what waits there; partition -> offset throughout."""

    def __init__(self) -> None:
        self._waiting: list[WaitingOrder] = []
        self._committed: dict[int, int] = {}
        self._read: dict[int, int] = {}
        """The next offset to read."""
        self._looked: tuple[float, Mapping[int, int]] | None = None
        self._known_at_s = -math.inf
        """Every order that stood in Kafka then has been dealt with or is among those that wait."""

    def unread(self, at_s: float, committed: Mapping[int, int], ends: Mapping[int, int]) -> dict[int, tuple[int, int]]:
        """Take note of a look, and return what has to be read before `note`: partition -> from, up to.

        Args:
            at_s: when Kafka was asked, or earlier.
            committed: the next offset that the workers deal with; asked for before `ends`.
            ends: the next offset that Kafka will write.
        """
        _, earlier = self._looked or (at_s, ends)
        self._committed = dict(committed)
        self._read = {place: max(self._read.get(place, 0), at) for place, at in committed.items()}
        return {place: (at, ends[place]) for place, at in self._read.items() if at < earlier.get(place, 0)}

    def note(self, at_s: float, ends: Mapping[int, int], read: Iterable[int], found: Iterable[WaitingOrder]) -> None:
        """Take note of what was found where `unread` said.

        Args:
            at_s: as to `unread`.
            ends: as to `unread`.
            read: partitions that were read up to these ends.
            found: orders there.
        """
        self._read |= {place: ends[place] for place in read}
        self._waiting = sorted([*self._waiting, *found])
        is_all = all(self._read.get(place, 0) >= end for place, end in ends.items())
        self._known_at_s = at_s if is_all or self._looked is None else self._looked[0]
        self._looked = at_s, dict(ends)

    def waiting(self, is_obeyed: Callable[[str, int], bool]) -> list[WaitingOrder]:
        """Return the orders that wait, the oldest first.

        Args:
            is_obeyed: whether the gallery of this worker has come, for a booking, to an offset of the booking topic.
        """
        # What was obeyed or refused once stays so.
        self._waiting = [
            order
            for order in self._waiting
            if order.offset >= self._committed.get(order.partition, 0) and not is_obeyed(order.booking, order.offset)
        ]
        return list(self._waiting)

    def waiting_s(self, now_s: float, is_obeyed: Callable[[str, int], bool]) -> float:
        """Return the age of the oldest order that waits; 0 where none is known to.

        Args:
            now_s: now.
            is_obeyed: as to `waiting`.
        """
        return max((now_s - order.since_s for order in self.waiting(is_obeyed)[:1]), default=0.0)

    def unknown_s(self, now_s: float) -> float:
        """Return how old an order may be of which nothing is known yet; infinite before the first look."""
        return now_s - self._known_at_s
