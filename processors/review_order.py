"""The order in which an examiner sees the candidates of a list: it says neither who ranked first nor what others saw.

A rank is an opinion of the machine and another examiner's order is a trace of a person; whoever compares knows neither
until the own decision is made (G8). Source: Dror, "Cognitive and Human Factors in Expert Decision Making" (2020).
"""

from __future__ import annotations

from hashlib import sha256
from itertools import permutations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID


def order_shown(
    probe_id: UUID, user_id: str, listed: Sequence[UUID], *, shuffles: bool, shown_to_others: Iterable[Sequence[UUID]]
) -> tuple[UUID, ...]:
    """Return the candidates in the order in which this examiner sees them; the same question has the same answer.

    Args:
        probe_id: the probe.
        user_id: the examiner.
        listed: captures of the candidates that may be shown, by rank.
        shuffles: whether the first examiner, too, sees another order than the list's.
        shown_to_others: orders in which other examiners saw the list; captures that are not in `listed` do not count.
    """
    by_rank = tuple(listed)
    others = {tuple(each for each in order if each in by_rank) for order in shown_to_others}
    if not shuffles and not others:
        return by_rank
    shuffled = tuple(sorted(by_rank, key=lambda capture: _draw(probe_id, user_id, capture)))
    # Two candidates have two orders; then one has to be shown that somebody knows.
    return next((order for order in permutations(shuffled) if order not in {by_rank, *others}), shuffled)


def _draw(probe_id: UUID, user_id: str, capture: UUID) -> bytes:
    return sha256(f"{probe_id}/{capture}/{user_id}".encode()).digest()
