"""Which templates a search reads is decided by probe, templates and codebook, however much is fetched at first (G7)."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from builders import ORI, uuid_named
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.faiss_gallery import FaissGallery, Sizes
from processors.candidates import EnrolledTemplate, GalleryChange
from processors.quantiser import Codebook
from processors.templates import to_template
from schemas.errors import ContractError

DIMENSION = 16
ROWS = 1500
FACES = to_template(np.random.default_rng(4).normal(size=(ROWS, DIMENSION)) + 0.2)
PROBES = to_template(np.random.default_rng(5).normal(size=(200, DIMENSION)) + 0.2)
# Far too narrow for these faces, so that codes underrate often, and what is read by luck must not count.
POOR = Codebook(centre=np.zeros(DIMENSION), spread=0.15)


@functools.cache
def gallery(largest_rows: int, *, fetches: float, read_all: int = 0) -> FaissGallery:
    """A gallery with segments of that size whose searches guess that they need this share of all rows."""
    sizes = Sizes(small_rows=64, largest_rows=largest_rows, read_all=read_all)
    made = FaissGallery(dimension=DIMENSION, model_digest="ab" * 32, codebook=POOR, sizes=sizes, threads=2)
    made.apply([enrolled(number) for number in range(ROWS + 100)], {0: 1})
    made.apply([GalleryChange(booking=f"{ORI}/B-{number}", templates=()) for number in range(ROWS, ROWS + 100)], {0: 2})
    made.settle()
    made._searcher._remember = lambda *_: None  # type: ignore[method-assign, assignment]
    made._searcher._needed = dict.fromkeys(range(1, 100), fetches)
    return made


def enrolled(number: int) -> GalleryChange:
    one = EnrolledTemplate(
        person=f"sid:{number % 400}",
        ori=ORI,
        booking_number=f"B-{number}",
        capture_id=uuid_named(str(number)),
        synthetic=False,
        template=FACES[number % ROWS],
    )
    return GalleryChange(booking=f"{ORI}/B-{number}", templates=(one,))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(PROBES) - 1), st.integers(1, 12))
def test_a_list_does_not_depend_on_how_much_was_fetched_or_on_where_it_lay(probe: int, length: int) -> None:
    lists = {
        repr(gallery(largest, fetches=fetches).search(PROBES[probe], length))
        for largest, fetches in [(4096, 1e-9), (4096, 1.0), (100, 1e-9), (333, 0.05)]
    }
    assert len(lists) == 1


def test_what_was_read_by_luck_is_in_a_list_only_if_the_rule_wants_it() -> None:
    # Or else the test above would prove nothing: with this codebook many lists differ from the exact ones.
    coded = gallery(4096, fetches=1.0)
    exact = gallery(4096, fetches=1.0, read_all=10**9)
    differing = sum(coded.search(probe, 5).candidates != exact.search(probe, 5).candidates for probe in PROBES)
    assert 5 < differing < len(PROBES)


def test_a_batch_gives_what_each_probe_gives_alone() -> None:
    held = gallery(333, fetches=0.05)
    lengths = [1 + number % 9 for number in range(len(PROBES))]
    batch = held.search_batch(PROBES, lengths)
    assert [repr(result) for result in batch] == [
        repr(held.search(probe, length)) for probe, length in zip(PROBES, lengths, strict=True)
    ]


@pytest.mark.parametrize("length", [0, -1, 1001])
def test_a_list_has_one_to_a_thousand_places(length: int) -> None:
    with pytest.raises(ContractError, match="1 to 1000"):
        gallery(4096, fetches=1.0).search(PROBES[0], length)


@pytest.mark.parametrize(
    "probe",
    [
        np.full(DIMENSION, np.nan, dtype=np.float32),
        np.zeros(DIMENSION, dtype=np.float32),
        PROBES[0] * np.float32(1.01),
        np.full(DIMENSION, np.inf, dtype=np.float32),
        to_template(np.ones(DIMENSION + 4)),
        PROBES[:2],
    ],
)
def test_what_is_no_template_is_not_searched_with(probe: np.ndarray) -> None:
    with pytest.raises(ContractError):
        gallery(4096, fetches=1.0).search(probe, 5)
    with pytest.raises(ContractError):
        gallery(4096, fetches=1.0).search_batch(np.atleast_2d(probe), [5])
