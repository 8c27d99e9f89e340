"""Templates: the vector of one capture by one model, and its exact form on the wire.

A template is L2-normalised and then rounded to half precision, so that every replica holds the very same numbers and
re-ranking is exact (G7). On the wire it is IEEE 754 binary16, little-endian, `dimension * 2` bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from schemas.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def templates_from_bytes(data: Sequence[bytes], *, dimension: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read many templates at once: `(n, dimension)` float32, read-only, and `(n,)` which of them are templates."""
    size = dimension * _WIRE.itemsize
    fits = np.fromiter((len(each) == size for each in data), dtype=np.bool_, count=len(data))
    nothing = bytes(size)
    joined = b"".join(data) if fits.all() else b"".join(each if len(each) == size else nothing for each in data)
    templates = np.frombuffer(joined, dtype=_WIRE).reshape(-1, dimension).astype(np.float32)
    exact = templates.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", exact, exact))
    templates.setflags(write=False)
    return templates, np.abs(lengths - 1.0) <= UNIT_TOLERANCE
