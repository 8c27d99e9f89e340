"""How far the audit trail is behind Kafka, in seconds, from looks at both: what is not audited must not go on for long.

Offsets alone do not say how old the oldest record is that nobody audited, and clocks of several machines do not agree.
So this keeps where Kafka ended at one look and waits until the trail has reached that: the trail is then at most as far
behind as that look is old. Only one clock is read, and it only ever rises.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from processors.audit import TopicPartition


class AuditLag:
    """Folds looks at Kafka and at the audit trail into one number."""

    def __init__(self) -> None:
        self._complete_at = -math.inf
        self._awaited: tuple[float, Mapping[TopicPartition, int]] | None = None

    def note(self, at_s: float, audited: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> None:
        """Take note of one look.

        Args:
            at_s: when Kafka was asked for its ends, or earlier; by a clock that only ever rises.
            audited: the next offset that the trail needs, by partition; asked for before `ends`.
            ends: the next offset that Kafka will write, by partition.
        """
        if _reaches(audited, ends):
            self._complete_at, self._awaited = at_s, None
            return
        if self._awaited is not None and _reaches(audited, self._awaited[1]):
            self._complete_at, self._awaited = self._awaited[0], None
        if self._awaited is None:
            self._awaited = (at_s, dict(ends))

    def behind_s(self, now_s: float) -> float:
        """Return a bound: everything older than this is in the trail. Infinite while that is not known.

        While records keep coming it is at most twice the true lag, plus the time between two looks.
        """
        return now_s - self._complete_at


def _reaches(audited: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> bool:
    return all(audited.get(place, 0) >= end for place, end in ends.items())
