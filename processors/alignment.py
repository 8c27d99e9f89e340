"""Bring a face into the position the recogniser was trained on.

The least-squares similarity between two sets of points: S. Umeyama, "Least-squares estimation of transformation
parameters between two point patterns", IEEE PAMI 13(4), 1991.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIDES_CHANGED = [1, 0, 2, 4, 3]
"""Eyes and mouth corners change sides in a mirror."""


def similarity(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the `(2, 3)` matrix (rotation, one scale, shift; no mirroring) that best takes source onto target.

    Both are `(n, 2)` pixel positions, n >= 2. None if the source points coincide, so that no similarity exists.
    """
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    from_centre, to_centre = source - source_mean, target - target_mean
    spread = float((from_centre**2).sum() / len(source))
    if not np.isfinite(spread) or spread <= np.finfo(np.float64).eps:
        return None
    left, singular, right = np.linalg.svd(to_centre.T @ from_centre / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right)) or 1.0])
    rotation = left @ np.diag(signs) @ right
    scale = float((singular * signs).sum()) / spread
    shift = target_mean - scale * rotation @ source_mean
    return np.column_stack([scale * rotation, shift])


def mirrored(points: NDArray[np.float64], width_px: int) -> NDArray[np.float64]:
    """Return the five points of a face, in their order, as they lie in the picture once that is mirrored back."""
    return (points * [-1.0, 1.0] + [width_px - 1.0, 0.0])[_SIDES_CHANGED]


def scale_of(matrix: NDArray[np.float64]) -> float:
    """Return how many target pixels one source pixel becomes under a similarity `(2, 3)`."""
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))
