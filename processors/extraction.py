"""What comes out of a photo: a template with its measurements, or the reason why there is none."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from processors.refusals import Refusal, RefusalCode
from processors.templates import template_from_bytes, template_to_bytes
from schemas.errors import ContractError

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

    @property
    def quality(self) -> float:
        """How good the capture is, 0 to 1, higher is better; what it is enrolled with and weighs in a fusion."""
        return self.measurements["unified_quality"] / 100.0


Extraction = ExtractedFace | Refusal


def extraction_to_bytes(extraction: Extraction) -> bytes:
    """Write an extraction for another process to read; floats come back as they were."""
    if isinstance(extraction, Refusal):
        facts: dict[str, object] = {"code": extraction.code, "message": extraction.message}
    else:
        facts = {
            "template": template_to_bytes(extraction.template).hex(),
            "model_digest": extraction.model_digest,
            "box_px": extraction.box_px,
        }
    return json.dumps({**facts, "measurements": dict(extraction.measurements)}).encode()


def extraction_from_bytes(data: bytes, *, dimension: int) -> Extraction:
    """Read an extraction that another process wrote, which an image may have made its own: nothing in it is executed.

    Raises:
        ContractError: it is none.
    """
    try:
        facts = json.loads(data)
        measurements = {str(name): float(value) for name, value in facts["measurements"].items()}
        if "code" in facts:
            return Refusal(code=RefusalCode(facts["code"]), message=str(facts["message"]), measurements=measurements)
        left, top, width, height = map(float, facts["box_px"])
        return ExtractedFace(
            template=template_from_bytes(bytes.fromhex(facts["template"]), dimension=dimension),
            model_digest=str(facts["model_digest"]),
            measurements=measurements,
            box_px=(left, top, width, height),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ContractError("This is no extraction.") from None
