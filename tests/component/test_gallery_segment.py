"""A segment compares every code and loses no row, whatever FAISS makes of it (G7)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builders import ORI, uuid_named
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.gallery_segment import Segment, fast_codes, merge, plain_codes, segment_of
from processors.candidates import EnrolledTemplate, GalleryChange
from processors.quantiser import codebook_for
from processors.template_rows import rows_of
from processors.templates import to_template

DIMENSION = 16
CODEBOOK = codebook_for(dimension=DIMENSION)
FACES = to_template(np.random.default_rng(2).normal(size=(400, DIMENSION)))


def enrolled(number: int, face: np.ndarray) -> EnrolledTemplate:
    return EnrolledTemplate(
        person=f"sid:{number % 7}" if number % 2 else f"booking:{ORI}/B-{number}",
        ori=ORI,
        booking_number=f"B-{number}",
        capture_id=uuid_named(str(number)),
        synthetic=number % 5 == 0,
        template=face,
        quality=(number % 11) / 10,
    )


def segment(numbers: list[int], faces: np.ndarray = FACES) -> Segment:
    rows = rows_of(changes([enrolled(number, FACES[number]) for number in numbers]), dimension=DIMENSION)
    return segment_of(replace(rows, templates=faces[numbers].astype(np.float16)), CODEBOOK)


def changes(templates: list[EnrolledTemplate]) -> list[GalleryChange]:
    return [GalleryChange(booking=f"{each.ori}/{each.booking_number}", templates=(each,)) for each in templates]


def by_hand(which: Segment, probe: np.ndarray) -> np.ndarray:
    codes = CODEBOOK.encode(which.templates)
    points = np.stack([codes & 15, codes >> 4], axis=2).reshape(len(which), -1)
    return np.asarray(CODEBOOK.centroids[np.arange(DIMENSION // 2), points].reshape(len(which), -1) @ probe)


numbers = st.lists(st.integers(0, 399), min_size=1, max_size=90, unique=True)


@settings(max_examples=80, deadline=None)
@given(numbers, st.integers(0, 399), st.integers(1, 90))
def test_codes_find_the_rows_that_they_rate_best_however_few_are_asked_for(
    shown: list[int], face: int, count: int
) -> None:
    which, probe = segment(shown), CODEBOOK.probe(FACES[face])
    count = min(count, len(which))
    scores, rows = which.by_codes(probe, count)
    expected = by_hand(which, probe)
    # FAISS adds up whole numbers of eight bits for each pair.
    assert scores == pytest.approx(expected[rows], abs=0.05)
    assert len(set(rows.tolist())) == count
    assert np.sort(expected)[::-1][:count] == pytest.approx(expected[rows], abs=0.1)


@settings(max_examples=60, deadline=None)
@given(numbers, numbers, st.integers(0, 399))
def test_a_score_by_codes_is_the_same_in_every_segment_g7(some: list[int], others: list[int], face: int) -> None:
    probe = CODEBOOK.probe(FACES[face])
    scores: dict[str, float] = {}
    for which in (segment(some), segment(others), segment(sorted({*some, *others}))):
        found, rows = which.by_codes(probe, len(which))
        for score, row in zip(found.tolist(), rows.tolist(), strict=True):
            assert scores.setdefault(which.ids[row].booking, score) == score


@pytest.mark.parametrize("count", [1, 3, 30])
def test_a_template_that_codes_rate_worst_of_all_is_a_row_like_any_other(count: int) -> None:
    # The least sum there is: FAISS takes it for "nothing found".
    probe = FACES[0]
    products = np.einsum("pcx,px->pc", CODEBOOK.centroids, CODEBOOK.probe(probe).reshape(-1, 2))
    worst = CODEBOOK.centroids[np.arange(DIMENSION // 2), products.argmin(axis=1)].ravel()
    faces = np.stack([worst.astype(np.float16).astype(np.float32)] * count + [FACES[1]])
    which = segment(list(range(count + 1)), faces)
    scores, rows = which.by_codes(CODEBOOK.probe(probe), count + 1)
    assert sorted(rows.tolist()) == list(range(count + 1))
    assert np.all(scores[1:] == scores[-1])
    assert np.all(np.diff(scores) <= 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_a_merge_keeps_of_each_row_everything_and_tells_where_it_went(lots: list[list[int]], chance) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
    parts, told = [], []
    for lot in lots:
        which = segment(lot)
        rows = np.array([row for row in range(len(which)) if chance.random() < 0.7], dtype=np.intp)
        parts.append((which, rows))
        told += [(which.ids[int(row)], which.templates[row].tobytes()) for row in rows]
    if not told:
        return
    made, order = merge(parts, CODEBOOK)
    assert [(made.ids[row], made.templates[row].tobytes()) for row in range(len(made))] == [
        told[came] for came in order
    ]
    assert np.all(np.diff(made.ids.booking_hashes.astype(np.int64)) >= 0)


@given(st.integers(1, 200), st.sampled_from([4, 16, 128, 512]), st.integers(0, 2**32 - 1))
def test_codes_are_read_back_as_they_were_laid_out(count: int, dimension: int, seed: int) -> None:
    """G7: a merged segment has the codes that its templates would be given."""
    codes = np.random.default_rng(seed).integers(0, 256, (count, dimension // 4), dtype=np.uint8)
    codebook = codebook_for(dimension=dimension)
    assert np.array_equal(plain_codes(fast_codes(codes, codebook), codebook), codes)


@given(parts=st.lists(numbers, min_size=1, max_size=3))
def test_a_merged_segment_has_the_codes_that_its_templates_would_be_given(parts: list[list[int]]) -> None:
    made, _ = merge([(segment(rows), np.arange(len(rows))) for rows in parts], CODEBOOK)
    assert np.array_equal(plain_codes(made.codes, CODEBOOK), CODEBOOK.encode(made.templates))


def test_the_arrays_take_what_the_budget_of_a_template_allows() -> None:
    faces = to_template(np.random.default_rng(1).normal(size=(4096, 128)))
    templates = [
        EnrolledTemplate(
            person=f"sid:A{number:08d}",
            ori=ORI,
            booking_number=f"26-{number:07d}",
            capture_id=uuid_named(str(number)),
            synthetic=False,
            template=face,
        )
        for number, face in enumerate(faces)
    ]
    made = segment_of(rows_of(changes(templates), dimension=128), codebook_for(dimension=128))
    assert made.nbytes / len(made) <= 340
