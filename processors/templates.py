"""Templates: the vector of one capture by one model, and its exact form on the wire.

A template is L2-normalised and then rounded to half precision, so that every replica holds the very same numbers and
re-ranking is exact (G7). On the wire it is IEEE 754 binary16, little-endian, `dimension * 2` bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from schemas.errors import ContractError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WIRE = np.dtype("<f2")
# Rounding to half precision moves a length by at most 2**-11. A looser bound would let templates in that a search by
# inner product ranks below where their cosine belongs (`connectors/gallery_search.py`).
UNIT_TOLERANCE = 0.001


def to_template(vector: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float32]:
    """Normalise and round: `(..., d)` any length -> `(..., d)` float32, each value exact in half precision, read-only.

    Raises:
        ContractError: a vector has no direction (zero or not finite).
    """
    template: NDArray[np.float32] = unit(vector).astype(_WIRE).astype(np.float32)
    template.setflags(write=False)
    return template


def unit(vector: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Give each vector of `(..., d)` the length 1, in double precision.

    Raises:
        ContractError: a vector has no direction (zero or not finite).
    """
    exact = np.asarray(vector, dtype=np.float64)
    length = np.linalg.norm(exact, axis=-1, keepdims=True)
    if not np.all(np.isfinite(length)) or np.any(length <= 0.0):
        raise ContractError("The recogniser returned a vector without a direction: check the model pack.")
    scaled: NDArray[np.float64] = exact / length
    return scaled


def template_to_bytes(template: NDArray[np.float32]) -> bytes:
    """Write one template `(d,)` as little-endian half floats."""
    return template.astype(_WIRE).tobytes()


def template_from_bytes(data: bytes, *, dimension: int) -> NDArray[np.float32]:
    """Read one template `(dimension,)` float32, read-only.

    Raises:
        ContractError: the bytes are no template of that dimension.
    """
    if len(data) != dimension * _WIRE.itemsize:
        raise ContractError(f"A template of dimension {dimension} takes {dimension * 2} bytes, not {len(data)}.")
    template = np.frombuffer(data, dtype=_WIRE).astype(np.float32)
    length = float(np.linalg.norm(template.astype(np.float64)))
    if not abs(length - 1.0) <= UNIT_TOLERANCE:
        raise ContractError("The bytes are no template: their length as a vector is not 1.")
    template.setflags(write=False)
    return template


def are_templates(halves: NDArray[np.float16]) -> NDArray[np.bool_]:
    """Tell which of (n, d) are templates beyond doubt; of others, `template_from_bytes` decides."""
    with np.errstate(invalid="ignore", over="ignore"):
        numbers = halves.astype(np.float32)
        squares = np.einsum("ij,ij->i", numbers, numbers)
        # A length within the tolerance has its square within twice that; less for rounding in single precision.
        return np.asarray(np.abs(squares - 1.0) <= 1.9 * UNIT_TOLERANCE)
