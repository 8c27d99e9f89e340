"""What a score means: how many persons other than the one searched for would score as much by chance.

A cosine alone says little: 0.45 is strong among a hundred templates and to be expected among ten million. The number
here sets it against the size of the gallery. What it is not: a probability that the candidate is the person (it knows
nothing of how likely it is that the person is enrolled at all), and no statement about relatives and look-alikes, who
score higher than persons taken at random. docs/scores.md says what it rests on and how well it held on real faces.

Scores of different persons are close to normally distributed; their highest ones are somewhat higher than the standard
deviation of all of them would have it. So the tail is that of a Gaussian with a deviation of its own, `tail_sd`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from processors.model_card import StatisticsCard

_DIGITS = 3
"""Significant digits: more would claim more than is known, and show the last bits of a machine's mathematics (G7)."""


def expected_non_mates(score: float, *, templates: int, statistics: StatisticsCard) -> float | None:
    """Return how many of so many templates of other persons are expected to score at least this much.

    An upper bound of the expected number of other persons, since one may have several templates. None where the card
    does not state a `tail_sd`.
    """
    if statistics.tail_sd is None:
        return None
    deviations = (score - statistics.non_mated_mean) / statistics.tail_sd
    share = math.erfc(deviations / math.sqrt(2.0)) / 2.0
    return min(float(f"{templates * share:.{_DIGITS}g}"), float(templates))
