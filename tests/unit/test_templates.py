from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from processors.templates import template_from_bytes, template_to_bytes, to_template
from schemas.errors import ContractError

if TYPE_CHECKING:
    from numpy.typing import NDArray

vectors = hnp.arrays(np.float32, st.integers(2, 512), elements=st.floats(-100, 100, width=32)).filter(
    lambda vector: float(np.linalg.norm(vector)) > 1e-3
)


@given(vectors)
def test_a_template_survives_the_wire_unchanged(vector: NDArray[Any]) -> None:
    template = to_template(vector)
    data = template_to_bytes(template)
    assert len(data) == 2 * len(vector)
    assert np.array_equal(template_from_bytes(data, dimension=len(vector)), template)


@given(vectors)
def test_rounding_keeps_length_and_direction(vector: NDArray[Any]) -> None:
    template = to_template(vector).astype(np.float64)
    assert np.linalg.norm(template) == pytest.approx(1.0, abs=2e-3)
    assert template @ vector / np.linalg.norm(vector) == pytest.approx(1.0, abs=2e-3)


@given(vectors)
def test_every_number_is_exact_in_half_precision(vector: NDArray[Any]) -> None:
    template = to_template(vector)
    assert np.array_equal(template.astype(np.float16).astype(np.float32), template)


def test_the_wire_form_is_little_endian_half_floats() -> None:
    assert template_to_bytes(to_template(np.array([1.0, 0.0], dtype=np.float32))) == b"\x00\x3c\x00\x00"


def test_a_template_cannot_be_changed_by_accident() -> None:
    template = to_template(np.ones(4, dtype=np.float32))
    for one in (template, template_from_bytes(template_to_bytes(template), dimension=4)):
        with pytest.raises(ValueError, match="read-only"):
            one[0] = 0.0


@pytest.mark.parametrize("vector", [np.zeros(4), np.array([np.nan, 1.0]), np.array([np.inf, 1.0])])
def test_a_vector_without_direction_is_no_template(vector: NDArray[Any]) -> None:
    with pytest.raises(ContractError, match="without a direction"):
        to_template(vector)


@given(st.binary(max_size=600))
def test_bytes_are_a_template_or_a_contract_error(data: bytes) -> None:
    try:
        template = template_from_bytes(data, dimension=128)
    except ContractError:
        return
    assert np.linalg.norm(template.astype(np.float64)) == pytest.approx(1.0, abs=0.005)


def test_bytes_of_another_dimension_are_refused() -> None:
    with pytest.raises(ContractError, match="takes 256 bytes, not 4"):
        template_from_bytes(b"\x00\x3c\x00\x00", dimension=128)
