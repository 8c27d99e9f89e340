"""The one place that turns a probe template and enrolled templates into scores, outside the gallery's own search.

What it is for: measuring accuracy on many templates at once. The scores are those that a candidate list would carry
before rounding (`connectors/gallery_search.py` computes the same for one probe).
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from processors.templates import to_template

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from processors.model_card import ModelCard

    Scores = NDArray[np.float64]


class Fusion(StrEnum):
    """How the captures of one enrolled person become one score."""

    BEST = "best"
    """The capture that scores highest."""
    MEAN = "mean"
    """One template: the mean of the captures', at unit length again."""


def score_matrix(probes: NDArray[np.float32], enrolled: NDArray[np.float32], card: ModelCard) -> Scores:
    """Return `(p, m)` float64 scores of `(p, d)` probes with `(m, d)` enrolled templates, higher is more alike.

    They are cosines. Products of half-precision numbers and their sums are exact in double precision, so they do not
    depend on the order in which a machine adds.
    """
    del card  # cosine needs no statistics
    one, other = probes.astype(np.float64), enrolled.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", one, one))[:, np.newaxis] * np.sqrt(np.einsum("ij,ij->i", other, other))
    cosines: Scores = (one @ other.T) / lengths
    return cosines


def person_scores(
    probes: NDArray[np.float32],
    captures: NDArray[np.float32],
    usable: NDArray[np.bool_],
    card: ModelCard,
    fusion: Fusion,
) -> Scores:
    """Return `(p, g)` scores of `(p, d)` probes with g persons of n captures each.

    `captures` is `(g, n, d)`, `usable` `(g, n)`: where it is false there is no template, and a person without any
    scores -inf, as somebody who is not in the gallery.
    """
    persons, each, dimension = captures.shape
    scores = np.full((len(probes), persons), -np.inf)
    there = usable.any(axis=1)
    if not there.any():
        return scores
    if fusion is Fusion.MEAN:
        summed = np.einsum("gnd,gn->gd", captures[there].astype(np.float64), usable[there].astype(np.float64))
        scores[:, there] = score_matrix(probes, to_template(summed), card)
        return scores
    flat = usable.reshape(-1)
    single = np.full((len(probes), persons * each), -np.inf)
    single[:, flat] = score_matrix(probes, captures.reshape(-1, dimension)[flat], card)
    best: Scores = single.reshape(len(probes), persons, each).max(axis=2)
    return best
