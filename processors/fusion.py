"""Several captures of one person as one template: the mean of theirs, weighted by the quality of each.

What it is for: a person who was booked five times is known better by five photos than by the best of them. What it is
not: a new kind of score. A fused template is a direction like any other, so its cosines have the scale of single ones,
and whoever has one capture keeps its score.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUALITY_STEPS = 127
"""Weights are whole numbers, so that sums are exact in any order (G7)."""


def quality_steps(quality: float) -> int:
    """Return a quality of 0 to 1 in steps of 1 / 127; outside it the nearer end counts, and no number is none."""
    if math.isnan(quality):
        return 0
    return round(min(max(quality, 0.0), 1.0) * QUALITY_STEPS)


def fused_template(templates: NDArray[np.float16], steps: NDArray[np.integer]) -> NDArray[np.float16]:
    """Return the one template of a person's captures.

    Whole multiples of half-precision numbers and their sums are exact in double precision, and the length is rounded
    once; so neither the order of the captures nor the machine can change the result (G7).

    Args:
        templates: (n, d) float16, L2-normalised up to that rounding; n >= 1.
        steps: (n,) qualities in steps of 1 / 127. A capture of quality 0 counts as one of a single step.

    Returns:
        (d,) float16, L2-normalised up to that rounding; the first template where they cancel each other out.
    """
    weights = np.maximum(steps, 1).astype(np.float64)
    total = (templates.astype(np.float64) * weights[:, np.newaxis]).sum(axis=0)
    length = math.sqrt(math.fsum((total * total).tolist()))
    if length <= np.finfo(np.float16).eps * float(weights.sum()):
        first: NDArray[np.float16] = templates[0]
        return first
    fused: NDArray[np.float16] = (total / length).astype(np.float16)
    return fused
