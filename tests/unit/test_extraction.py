"""What one process says to another of a photo comes back as it was; anything else is no extraction (G7, G12)."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.assets import recipe_card, recipe_names
from processors.extraction import ExtractedFace, extraction_from_bytes, extraction_to_bytes
from processors.model_card import card_to_json, model_digest, parse_model_card
from processors.refusals import Refusal, RefusalCode
from processors.templates import to_template
from schemas.errors import ContractError

DIMENSION = 8
finite = st.floats(allow_nan=False, allow_infinity=False)
measurements = st.dictionaries(st.text(max_size=8), finite, max_size=4)


@given(
    st.lists(st.floats(-1, 1), min_size=DIMENSION, max_size=DIMENSION).filter(lambda row: np.linalg.norm(row) > 1e-3),
    measurements,
    st.tuples(finite, finite, finite, finite),
)
def test_a_face_comes_back_byte_for_byte(
    vector: list[float], found: dict[str, float], box: tuple[float, float, float, float]
) -> None:
    face = ExtractedFace(template=to_template(np.array(vector)), model_digest="ab" * 32, measurements=found, box_px=box)
    back = extraction_from_bytes(extraction_to_bytes(face), dimension=DIMENSION)
    assert isinstance(back, ExtractedFace)
    assert back.template.tobytes() == face.template.tobytes()
    assert not back.template.flags.writeable
    assert (back.model_digest, back.measurements, back.box_px) == (face.model_digest, found, box)


@given(st.sampled_from(RefusalCode), st.text(max_size=30), measurements)
def test_a_refusal_comes_back_as_it_was(code: RefusalCode, message: str, found: dict[str, float]) -> None:
    refusal = Refusal(code=code, message=message, measurements=found)
    assert extraction_from_bytes(extraction_to_bytes(refusal), dimension=DIMENSION) == refusal


GOOD = json.loads(
    extraction_to_bytes(
        ExtractedFace(
            template=to_template(np.ones(DIMENSION)), model_digest="ab" * 32, measurements={}, box_px=(0, 0, 1, 1)
        )
    )
)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        [],
        None,
        7,
        GOOD | {"template": "zz"},
        GOOD | {"template": "00" * 2 * DIMENSION},
        GOOD | {"template": GOOD["template"][:-4]},
        GOOD | {"box_px": [1, 2, 3]},
        GOOD | {"box_px": None},
        GOOD | {"measurements": [1]},
        GOOD | {"measurements": {"x": "y"}},
        {"code": "NO_SUCH_CODE", "message": "", "measurements": {}},
    ],
)
def test_what_is_no_extraction_is_refused(facts: object) -> None:
    with pytest.raises(ContractError):
        extraction_from_bytes(json.dumps(facts).encode(), dimension=DIMENSION)


@given(st.binary(max_size=60))
def test_bytes_of_any_kind_are_refused(data: bytes) -> None:
    with pytest.raises(ContractError):
        extraction_from_bytes(data, dimension=DIMENSION)


@pytest.mark.parametrize("name", recipe_names())
def test_a_card_reaches_another_process_as_it_is(name: str) -> None:
    card = recipe_card(name)
    there = parse_model_card(json.loads(card_to_json(card)))
    assert there == card
    assert model_digest(there) == model_digest(card)
