"""The one place that turns a probe template and enrolled templates into scores, outside the gallery's own search.

What it is for: measuring accuracy on many templates at once. The scores are those that a candidate list would carry
before rounding (`connectors/gallery_search.py` computes the same for one probe).
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from processors.fusion import fused_template, quality_steps
from processors.templates import to_template

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]


class Fusion(StrEnum):
    """How the captures of one enrolled person become one score."""

    BEST = "best"
    """The capture that scores highest."""
    MEAN = "mean"
    """One template: the mean of the captures', at unit length again."""
    FUSED = "fused"
    """One template: the mean weighted by the quality of each capture (`processors/fusion.py`)."""


def score_matrix(probes: NDArray[np.float32], enrolled: NDArray[np.float32]) -> Scores:
    """Return `(p, m)` float64 scores of `(p, d)` probes with `(m, d)` enrolled templates, higher is more alike.

    They are cosines. Products of half-precision numbers and their sums are exact in double precision, so they do not
    depend on the order in which a machine adds.
    """
    one, other = probes.astype(np.float64), enrolled.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", one, one))[:, np.newaxis] * np.sqrt(np.einsum("ij,ij->i", other, other))
    cosines: Scores = (one @ other.T) / lengths
    return cosines


def person_scores(
    probes: NDArray[np.float32],
    captures: NDArray[np.float32],
    usable: NDArray[np.bool_],
) -> Scores:
    """Return `(p, g)` scores of `(p, d)` probes with g persons by the best of n captures each.

    `captures` is `(g, n, d)`, `usable` `(g, n)`: where it is false there is no template, and a person without any
    scores -inf, as somebody who is not in the gallery.
    """
    persons, each, dimension = captures.shape
    flat = usable.reshape(-1)
    scores = np.full((len(probes), persons * each), -np.inf)
    if flat.any():
        scores[:, flat] = score_matrix(probes, captures.reshape(-1, dimension)[flat])
    best: Scores = scores.reshape(len(probes), persons, each).max(axis=2)
    return best


def joined_captures(
    captures: NDArray[np.float32], usable: NDArray[np.bool_], qualities: Scores, fusion: Fusion
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the captures that speak for each person: all of them, or the one template that they become.

    `captures` is `(g, n, d)`, `usable` and `qualities` `(g, n)`; what comes back goes into `person_scores`.
    """
    if fusion is Fusion.BEST:
        return captures, usable
    there: NDArray[np.bool_] = np.asarray(usable.any(axis=1))
    joined = np.zeros((len(captures), 1, captures.shape[2]), dtype=np.float32)
    for person in np.flatnonzero(there).tolist():
        own = np.flatnonzero(usable[person])
        if fusion is Fusion.MEAN:
            joined[person] = to_template(captures[person, own].astype(np.float64).mean(axis=0))
        else:
            steps = np.array([quality_steps(quality) for quality in qualities[person, own].tolist()])
            joined[person] = fused_template(captures[person, own].astype(np.float16), steps)
    return joined, there[:, np.newaxis]
