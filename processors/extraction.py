"""What comes out of a photo: a template with its measurements, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from processors.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExtractedFace:
    """The one face of a photo.

    `template` is `(d,)` float32, L2-normalised, exact in half precision and read-only; neither it nor the measurements
    depend on what was extracted before. The template never shows in a repr (G10). `box_px`: left, top, width, height.
    """

    template: NDArray[np.float32] = field(repr=False)
    model_digest: str
    measurements: Mapping[str, float]
    box_px: tuple[float, float, float, float]


Extraction = ExtractedFace | Refusal
