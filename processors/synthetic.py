"""Make templates of persons who do not exist, with the score statistics of a model card.

What this is for: a demo or a measurement needs a gallery of realistic size, and real faces are not to be had for that.
What it is not: a source of faces, or of mated pairs; a synthetic template never leads to a person and every record that
carries one says so. The numbers are a pure function of card, seed and count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from processors.templates import to_template

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from processors.model_card import StatisticsCard


def synthetic_templates(statistics: StatisticsCard, *, count: int, seed: int) -> NDArray[np.float32]:
    """Return `(count, d)` float32 templates whose cosines with each other have the card's non-mated mean and sd.

    Each is the mean template plus Gaussian noise. Two independent ones then have the squared length of the mean as
    their mean cosine, so the mean is scaled to that; noise equal in all d directions would give a slightly too small
    sd, so every other direction gets more of it and the rest less, by the share that makes up the difference.
    """
    mean = np.array(statistics.mean_template, dtype=np.float64)
    dimension = len(mean)
    shared = min(max(statistics.non_mated_mean, 0.0), 1.0)
    length = float(np.linalg.norm(mean))
    centre = mean * (np.sqrt(shared) / length) if length > 0.0 else mean
    variance = (1.0 - shared) / dimension
    excess = (statistics.non_mated_sd**2 - 2.0 * shared * variance) / (dimension * variance**2) - 1.0
    unevenness = float(np.sqrt(np.clip(excess, 0.0, 1.0)))
    spread = np.sqrt(variance * (1.0 + unevenness * np.where(np.arange(dimension) % 2, -1.0, 1.0)))
    noise = np.random.Generator(np.random.PCG64(seed)).standard_normal((count, dimension))
    return to_template(centre + noise * spread)
