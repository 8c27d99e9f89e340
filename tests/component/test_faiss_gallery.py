"""The FAISS gallery finds what a plain loop over all templates finds, byte for byte (G5, G7)."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from builders import ORI, uuid_named
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connectors.faiss_gallery import FaissGallery
from processors.candidates import EnrolledTemplate, GalleryChange, ScoredCapture, SearchResult, consolidate
from processors.templates import template_from_bytes, template_to_bytes, to_template
from schemas.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from schemas.events import Candidate

DIMENSION = 8
MODEL = "ab" * 32
FACES = [to_template(vector) for vector in np.random.default_rng(11).normal(size=(12, DIMENSION))]
# Faces that differ in the last place only, and the very same face once more: ties and near ties at every cut.
FACES += [to_template(FACES[0] + np.float32(2**-11) * np.eye(DIMENSION)[axis]) for axis in range(3)]
FACES += [FACES[0], -FACES[0]]


def gallery_of(*batches: Sequence[GalleryChange], dimension: int = DIMENSION) -> FaissGallery:
    gallery = FaissGallery(dimension=dimension, model_digest=MODEL)
    for offset, batch in enumerate(batches, start=1):
        gallery.apply(batch, {0: offset})
    return gallery


def enrolled(
    booking: str, faces: Iterable[npt.NDArray[np.float32]], person: str | None = None, *, synthetic: bool = False
) -> GalleryChange:
    return GalleryChange(
        booking=f"{ORI}/{booking}",
        templates=tuple(
            EnrolledTemplate(
                person=person or f"booking:{ORI}/{booking}",
                ori=ORI,
                booking_number=booking,
                capture_id=uuid_named(f"{booking} {number}"),
                synthetic=synthetic,
                template=face,
            )
            for number, face in enumerate(faces)
        ),
    )


def withdrawn(booking: str) -> GalleryChange:
    return enrolled(booking, ())


def exact_score(probe: npt.NDArray[np.float32], template: npt.NDArray[np.float32]) -> float:
    """The cosine by exact rational arithmetic: what every machine must come to."""
    one, other = ([Fraction(float(value)) for value in vector] for vector in (probe, template))
    product = sum((x * y for x, y in zip(one, other, strict=True)), Fraction())
    squares = sum((x * x for x in one), Fraction()) * sum((y * y for y in other), Fraction())
    return round(float(product) / math.sqrt(squares), 6)


def by_a_plain_loop(
    changes: Iterable[GalleryChange], probe: npt.NDArray[np.float32], length: int
) -> tuple[tuple[Candidate, ...], int, int]:
    bookings: dict[str, tuple[EnrolledTemplate, ...]] = {}
    for change in changes:
        bookings[change.booking] = change.templates
    held = [template for templates in bookings.values() for template in templates]
    scored = [
        ScoredCapture(
            person=one.person,
            ori=one.ori,
            booking_number=one.booking_number,
            capture_id=one.capture_id,
            synthetic=one.synthetic,
            score=exact_score(probe, one.template),
        )
        for one in held
    ]
    return consolidate(scored, length), len(held), len({one.person for one in held})


def found(result: SearchResult) -> tuple[tuple[Candidate, ...], int, int]:
    return result.candidates, result.templates, result.persons


changes = st.builds(
    lambda booking, faces, sid: enrolled(booking, [FACES[face] for face in faces], f"sid:{sid}" if sid else None),
    st.sampled_from([f"B-{number}" for number in range(9)]),
    st.lists(st.integers(0, len(FACES) - 1), max_size=4),
    st.sampled_from(["", "", "1", "2"]),
)
histories = st.lists(st.lists(changes, max_size=6), max_size=6)
probes = st.integers(0, len(FACES) - 1)


@settings(max_examples=60, deadline=None)
@given(histories, probes, st.integers(1, 12))
@example([[enrolled("B-1", FACES[:2])], [withdrawn("B-1")], [enrolled("B-1", FACES[1:2])]], 0, 2)
@example([[enrolled("B-1", FACES[:2]), withdrawn("B-1"), enrolled("B-1", FACES[2:3])]], 0, 2)
def test_after_any_history_a_search_finds_what_a_plain_loop_finds(
    history: list[list[GalleryChange]], probe: int, length: int
) -> None:
    gallery = FaissGallery(dimension=DIMENSION, model_digest=MODEL)
    done: list[GalleryChange] = []
    for offset, batch in enumerate(history, start=1):
        gallery.apply(batch, {offset % 3: offset})
        done += batch
        result = gallery.search(FACES[probe], length)
        assert found(result) == by_a_plain_loop(done, FACES[probe], length)
        assert result.watermark[offset % 3] == offset


@settings(max_examples=60, deadline=None)
@given(histories, st.permutations(range(9)), probes, st.integers(1, 12), st.integers(1, 9))
def test_the_list_depends_on_what_is_enrolled_and_not_on_how_it_got_there(
    history: list[list[GalleryChange]], order: list[int], probe: int, length: int, batch: int
) -> None:
    # One replica lived through it all; another was started later, in another order and in batches of another size (G7).
    final = {change.booking: change for changes in history for change in changes}
    later = [final[key] for number in order if (key := f"{ORI}/B-{number}") in final]
    one = gallery_of(*history).search(FACES[probe], length)
    other = gallery_of(*(later[start : start + batch] for start in range(0, len(later), batch))).search(
        FACES[probe], length
    )
    assert repr(one.candidates) == repr(other.candidates)


@given(st.lists(st.lists(st.floats(-1, 1, width=16), min_size=128, max_size=128).filter(any), min_size=2, max_size=2))
@settings(max_examples=30, deadline=None)
def test_a_score_is_the_exact_cosine_so_no_machine_can_come_to_another(vectors: list[list[float]]) -> None:
    # Products of half-precision numbers and their sums fit in double precision without rounding, in whatever order
    # an instruction set adds them up.
    one, other = (to_template(np.array(vector)) for vector in vectors)
    result = gallery_of([enrolled("B-1", [other])], dimension=128).search(one, 1)
    assert result.candidates[0].score == exact_score(one, other)
    assert -1 <= result.candidates[0].score <= 1


def test_an_empty_gallery_answers_with_an_empty_list() -> None:
    for gallery in (gallery_of(), gallery_of([enrolled("B-1", FACES[:3])], [withdrawn("B-1")])):
        assert found(gallery.search(FACES[0], 20)) == ((), 0, 0)


def test_a_list_longer_than_the_gallery_holds_everybody() -> None:
    result = gallery_of([enrolled(f"B-{number}", [face]) for number, face in enumerate(FACES)]).search(FACES[0], 50)
    assert len(result.candidates) == result.persons == result.templates == len(FACES)


def test_a_person_with_many_captures_does_not_push_others_out_of_the_list() -> None:
    crowd = [enrolled(f"B-{number}", [FACES[0]] * 5, "sid:1") for number in range(200)]
    others = [enrolled(f"C-{number}", [FACES[number]]) for number in range(1, 6)]
    result = gallery_of(crowd, others).search(FACES[0], 6)
    assert result.candidates[0].person == "sid:1"
    assert len({row.person for row in result.candidates}) == 6
    assert result.templates == 1005


def test_the_same_photo_under_many_bookings_is_cut_by_name_and_not_by_luck() -> None:
    # More equal scores than are fetched at first: which of them are listed must not depend on FAISS.
    bookings = [enrolled(f"B-{number:03d}", [FACES[0]]) for number in range(300)]
    for order in (bookings, bookings[::-1], bookings[150:] + bookings[:150]):
        result = gallery_of(order).search(FACES[0], 3)
        assert [row.booking_number for row in result.candidates] == ["B-000", "B-001", "B-002"]
        assert {row.score for row in result.candidates} == {1.0}


def test_scores_that_differ_in_the_last_place_are_not_confused_with_those_that_do_not() -> None:
    near = [to_template(FACES[0] + np.float32(2**-11) * np.eye(DIMENSION)[axis]) for axis in range(DIMENSION)]
    held = [enrolled(f"B-{number:03d}", [face]) for number, face in enumerate(near * 20)]
    result = gallery_of(held).search(FACES[0], 7)
    assert found(result) == by_a_plain_loop(held, FACES[0], 7)


def accepted_lengths() -> tuple[float, float]:
    """The shortest and the longest template that a replica takes from the log."""

    def accepts(length: float) -> bool:
        template = np.zeros(DIMENSION, dtype=np.float32)
        template[:2] = length * 0.6, length * 0.8
        try:
            template_from_bytes(template_to_bytes(template), dimension=DIMENSION)
        except ContractError:
            return False
        return True

    lengths = [length for length in np.arange(0.98, 1.02, 0.0001) if accepts(float(length))]
    return float(min(lengths)), float(max(lengths))


def test_no_template_that_a_replica_takes_is_too_short_to_be_found() -> None:
    # FAISS ranks by the inner product, the list by the cosine: a short template ranks below where it belongs.
    shortest, _ = accepted_lengths()
    probe = np.zeros(DIMENSION)
    probe[0] = 1.0

    def at(cosine: float, axis: int, length: float) -> npt.NDArray[np.float32]:
        vector = np.zeros(DIMENSION)
        vector[0], vector[axis] = cosine, math.sqrt(1 - cosine**2)
        return (vector * length).astype(np.float16).astype(np.float32)

    listed = [enrolled(f"B-{number}", [at(0.9030, 1, 1.0)]) for number in range(2)]
    fetched = [enrolled(f"C-{number}", [at(0.9000, 2, 1.0)]) for number in range(6)]
    best = [enrolled("A", [at(0.9040, 3, shortest)])]
    held = [*listed, *fetched, *best, *(enrolled(f"D-{number}", [at(0.1, 4, 1.0)]) for number in range(20))]
    result = gallery_of(held).search(to_template(probe), 2)
    assert found(result) == by_a_plain_loop(held, to_template(probe), 2)


def test_a_withdrawal_takes_out_all_captures_of_the_booking_and_nothing_else() -> None:
    gallery = gallery_of([enrolled("B-1", FACES[:3], "sid:1"), enrolled("B-2", FACES[3:5], "sid:1")])
    gallery.apply([withdrawn("B-1")], {0: 2})
    result = gallery.search(FACES[0], 5)
    assert {row.booking_number for row in result.candidates} == {"B-2"}
    assert (result.templates, result.persons) == (2, 1)
    gallery.apply([withdrawn("B-1"), withdrawn("B-unknown")], {0: 3})
    assert found(gallery.search(FACES[0], 5)) == found(result)


def test_a_new_state_of_a_booking_replaces_the_old_one() -> None:
    gallery = gallery_of([enrolled("B-1", FACES[:3])], [enrolled("B-1", FACES[5:6], "sid:7", synthetic=True)])
    result = gallery.search(FACES[5], 5)
    assert [(row.person, row.score, row.synthetic) for row in result.candidates] == [("sid:7", 1.0, True)]
    assert (result.templates, result.persons) == (1, 1)


def test_a_template_of_another_dimension_is_refused_and_nothing_of_its_batch_applied() -> None:
    gallery = gallery_of([enrolled("B-1", FACES[:1])])
    wrong = to_template(np.ones(DIMENSION + 1))
    with pytest.raises(ContractError, match="shape"):
        gallery.apply([withdrawn("B-1"), enrolled("B-2", [wrong])], {0: 9})
    result = gallery.search(FACES[0], 5)
    assert ([row.booking_number for row in result.candidates], result.watermark) == (["B-1"], {0: 1})


def test_a_result_does_not_change_when_the_gallery_does() -> None:
    gallery = gallery_of([enrolled("B-1", FACES[:1])])
    result = gallery.search(FACES[0], 5)
    before = replace(result, watermark=dict(result.watermark))
    gallery.apply([withdrawn("B-1")], {0: 7})
    assert result == before


def test_whoever_searches_sees_each_batch_wholly_or_not_at_all() -> None:
    # Batch n enrols two persons and brings the watermark to n; a search in between must find 2 n of them.
    gallery, done = FaissGallery(dimension=DIMENSION, model_digest=MODEL), threading.Event()
    seen: list[SearchResult] = []

    def search() -> None:
        while not done.is_set():
            seen.append(gallery.search(FACES[0], 1000))
        seen.append(gallery.search(FACES[0], 1000))

    searchers = [threading.Thread(target=search) for _ in range(2)]
    for thread in searchers:
        thread.start()
    for number in range(1, 60):
        gallery.apply([enrolled(f"B-{number}-{half}", [FACES[number % 12]]) for half in "ab"], {0: number})
    done.set()
    for thread in searchers:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert {result.watermark[0] for result in seen if result.watermark} >= {59}
    for result in seen:
        assert len(result.candidates) == result.persons == result.templates == 2 * result.watermark.get(0, 0)


def test_a_template_never_shows_in_a_repr() -> None:
    (one,) = enrolled("B-1", [FACES[0]]).templates
    assert "array" not in repr(one)
    assert str(FACES[0][0])[:6] not in repr(one)
