"""Whatever happens to a gallery, in whatever order, it answers like a plain NumPy gallery, and like any other replica.

One state machine: enrol, enrol again, withdraw, merge, compact, save and load, refuse, search alone and in a batch,
with segments so small that merges happen all the time (G5, G7).
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from builders import ORI, uuid_named
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from connectors.faiss_gallery import FaissGallery, Sizes
from processors.candidates import EnrolledTemplate, GalleryChange, ScoredCapture, SearchResult, consolidate
from processors.fusion import fused_template, quality_steps
from processors.templates import to_template
from schemas.errors import ContractError
from schemas.events import Consolidation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from schemas.events import Candidate

DIMENSION = 8
MODEL = "ab" * 32
ORIS = (ORI, "CA0370000")
FACES = [to_template(vector) for vector in np.random.default_rng(11).normal(size=(40, DIMENSION))]
# Faces that differ in the last place only, and the very same face once more: ties and near ties at every cut.
FACES += [to_template(FACES[0] + np.float32(2**-11) * np.eye(DIMENSION)[axis]) for axis in range(4)]
FACES += [FACES[0], -FACES[0]]
BOOKINGS = [f"B-{number}" for number in range(30)] + ["ü" * 64]
QUALITIES = [0.0, 1.0, 0.3, 0.9]
SIDS = ["", "", "", "1", "2", "A0" * 40]

faces = st.integers(0, len(FACES) - 1)
enrolments = st.tuples(
    st.sampled_from(ORIS),
    st.sampled_from(BOOKINGS),
    st.sampled_from(SIDS),
    st.lists(faces, max_size=4),
    st.booleans(),
)


def change(ori: str, number: str, sid: str, shown: Sequence[int], *, synthetic: bool) -> GalleryChange:
    booking = f"{ori}/{number}"
    return GalleryChange(
        booking=booking,
        templates=tuple(
            EnrolledTemplate(
                person=f"sid:{sid}" if sid else f"booking:{booking}",
                ori=ori,
                booking_number=number,
                capture_id=uuid_named(f"{booking} {place}"),
                synthetic=synthetic,
                template=FACES[face],
                quality=QUALITIES[face % len(QUALITIES)],
            )
            for place, face in enumerate(shown)
        ),
    )


class PlainGallery:
    """What a gallery means: a dictionary, and a loop over all of it."""

    def __init__(self) -> None:
        self.bookings: dict[str, tuple[EnrolledTemplate, ...]] = {}

    def apply(self, changes: Sequence[GalleryChange]) -> None:
        self.bookings.update({each.booking: each.templates for each in changes})

    @property
    def held(self) -> list[EnrolledTemplate]:
        return [template for templates in self.bookings.values() for template in templates]

    def search(self, probe: npt.NDArray[np.float32], length: int) -> tuple[Candidate, ...]:
        one = probe.astype(np.float64)
        scored = []
        for each in self.held:
            other = each.template.astype(np.float64)
            exact = float(np.dot(one, other) / math.sqrt(np.dot(one, one) * np.dot(other, other)))
            scored.append(
                ScoredCapture(
                    person=each.person,
                    ori=each.ori,
                    booking_number=each.booking_number,
                    capture_id=each.capture_id,
                    synthetic=each.synthetic,
                    score=round(exact, 6),
                ),
            )
        return consolidate(scored, length)

    def search_fused(self, probe: npt.NDArray[np.float32], length: int) -> tuple[Candidate, ...]:
        """As the option means it where the gallery is no larger than a shortlist."""
        persons: dict[str, list[EnrolledTemplate]] = {}
        for each in self.held:
            persons.setdefault(each.person, []).append(each)
        best = {one.person: one for one in self.search(probe, len(persons))} if persons else {}
        scored = [
            ScoredCapture(
                person=person,
                ori=best[person].ori,
                booking_number=best[person].booking_number,
                capture_id=best[person].capture_id,
                synthetic=best[person].synthetic,
                score=fused_score(probe, templates) if len(templates) > 1 else best[person].score,
            )
            for person, templates in persons.items()
        ]
        return consolidate(scored, length)


def fused_score(probe: npt.NDArray[np.float32], captures: Sequence[EnrolledTemplate]) -> float:
    halves = np.stack([each.template for each in captures]).astype(np.float16)
    other = fused_template(halves, np.array([quality_steps(each.quality) for each in captures])).astype(np.float64)
    one = probe.astype(np.float64)
    return round(float(np.dot(one, other) / math.sqrt(np.dot(one, one) * np.dot(other, other))), 6)


def new_gallery(sizes: Sizes, threads: int = 1) -> FaissGallery:
    return FaissGallery(dimension=DIMENSION, model_digest=MODEL, sizes=sizes, threads=threads)


class History(RuleBasedStateMachine):
    """One gallery that reads everything, one that trusts its codes early, and the plain one."""

    @initialize(small=st.integers(2, 9), largest=st.integers(10, 60))
    def begin(self, small: int, largest: int) -> None:
        self.sizes = Sizes(small_rows=small, largest_rows=largest)
        self.coded_sizes = Sizes(small_rows=small, largest_rows=largest, read_all=0)
        self.folder = tempfile.TemporaryDirectory()
        self.plain = PlainGallery()
        self.gallery = new_gallery(self.sizes)
        self.coded = new_gallery(self.coded_sizes)
        self.watermark: dict[int, int] = {}
        self.offset = 0

    @rule(batch=st.lists(enrolments, max_size=8))
    def apply(self, batch: list[tuple[str, str, str, list[int], bool]]) -> None:
        changes = [change(ori, number, sid, shown, synthetic=made) for ori, number, sid, shown, made in batch]
        self.offset += 1
        moved = {self.offset % 3: self.offset}
        self.watermark |= moved
        for gallery in (self.gallery, self.coded):
            gallery.apply(changes, moved)
        self.plain.apply(changes)

    @rule(ori=st.sampled_from(ORIS), numbers=st.lists(st.sampled_from([*BOOKINGS, "never booked"]), min_size=1))
    def withdraw(self, ori: str, numbers: list[str]) -> None:
        changes = [GalleryChange(booking=f"{ori}/{number}", templates=()) for number in numbers]
        for gallery in (self.gallery, self.coded):
            gallery.apply(changes, {})
        self.plain.apply(changes)

    @rule()
    def wait_for_merges(self) -> None:
        self.gallery.settle()
        self.coded.settle()

    @rule()
    def compact(self) -> None:
        for gallery in (self.gallery, self.coded):
            gallery.settle()
            gallery.compact()
            assert all(piece.gone == 0 for piece in gallery.state.pieces)
            assert sum(len(piece.segment) for piece in gallery.state.pieces) == len(self.plain.held)

    @rule()
    def save_and_start_again(self) -> None:
        folders = [Path(self.folder.name) / name for name in ("all", "coded")]
        for folder, gallery in zip(folders, (self.gallery, self.coded), strict=True):
            gallery.save(folder, beside={"ledger": b"\x00what counts"})
            gallery.settle()
        self.gallery, self.coded = new_gallery(self.sizes), new_gallery(self.coded_sizes)
        for folder, gallery in zip(folders, (self.gallery, self.coded), strict=True):
            assert gallery.load(folder) == {"ledger": b"\x00what counts"}

    @rule(damage=st.sampled_from(["nan", "infinite", "long", "other booking", "dimension", "person", "fine"]))
    def refuse_what_is_wrong_and_apply_nothing_of_it(self, damage: str) -> None:
        good = change(ORI, "B-1", "", [3], synthetic=False)
        (one,) = good.templates
        template = {
            "nan": np.full(DIMENSION, np.nan, dtype=np.float32),
            "infinite": np.full(DIMENSION, np.inf, dtype=np.float32),
            "long": FACES[3] * np.float32(2),
            "dimension": to_template(np.ones(DIMENSION + 4)),
            "fine": np.nextafter(FACES[3], np.float32(2)),
        }.get(damage, one.template)
        wrong = EnrolledTemplate(
            person="somebody" if damage == "person" else one.person,
            ori=ORI,
            booking_number="B-2" if damage == "other booking" else "B-1",
            capture_id=one.capture_id,
            synthetic=False,
            template=template,
        )
        bad = GalleryChange(booking=good.booking, templates=(wrong,))
        for gallery in (self.gallery, self.coded):
            with pytest.raises(ContractError):
                gallery.apply([GalleryChange(booking=f"{ORI}/B-0", templates=()), bad], {0: 10**6})

    @rule(probes=st.lists(st.tuples(faces, st.integers(1, 12)), min_size=1, max_size=3))
    def search_like_the_plain_gallery(self, probes: list[tuple[int, int]]) -> None:
        templates, lengths = np.stack([FACES[face] for face, _ in probes]), [length for _, length in probes]
        batch = self.gallery.search_batch(templates, lengths)
        for (face, length), result in zip(probes, batch, strict=True):
            self._is_what_is_there(result)
            assert result.candidates == self.plain.search(FACES[face], length)
            assert repr(self.gallery.search(FACES[face], length)) == repr(result)

    @rule(face=faces, length=st.integers(1, 12), largest=st.integers(10, 200))
    def fuse_like_the_plain_gallery_and_like_a_replica_that_lived_otherwise(
        self, face: int, length: int, largest: int
    ) -> None:
        expected = self.plain.search_fused(FACES[face], length)
        folder = Path(self.folder.name) / "fused"
        self.coded.save(folder)
        fused = Consolidation.FUSED_CAPTURES
        one = new_gallery(self.coded_sizes)
        assert one.load(folder) == {}
        other = new_gallery(Sizes(small_rows=3, largest_rows=largest))
        held = [GalleryChange(booking=key, templates=self.plain.bookings[key]) for key in sorted(self.plain.bookings)]
        other.apply(held[1::2], {})
        other.apply(held[0::2], self.watermark)
        for gallery in (one, other):
            found = gallery.search(FACES[face], length, fused)
            assert (found.candidates, found.consolidation) == (expected, fused)
            (again,) = gallery.search_batch(FACES[face][np.newaxis], [length], fused)
            assert again.candidates == expected
        other.settle()
        other.merge()
        assert other.search(FACES[face], length, fused).candidates == expected

    @rule(face=faces, length=st.integers(1, 3), largest=st.integers(10, 200))
    def search_like_a_replica_that_lived_otherwise(self, face: int, length: int, largest: int) -> None:
        other = new_gallery(Sizes(small_rows=3, largest_rows=largest, read_all=0))
        held = [GalleryChange(booking=key, templates=self.plain.bookings[key]) for key in sorted(self.plain.bookings)]
        other.apply(held[1::2], {})
        other.apply(held[0::2], self.watermark)
        ours, theirs = self.coded.search(FACES[face], length), other.search(FACES[face], length)
        other.settle()
        assert repr(ours) == repr(theirs)
        (again,) = other.search_batch(FACES[face][np.newaxis], [length])
        assert repr(again) == repr(theirs)

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        if not hasattr(self, "plain"):
            return
        held = self.plain.held
        for gallery in (self.gallery, self.coded):
            assert gallery.templates == len(held)
            assert gallery.persons == len({each.person for each in held})
            assert gallery.state.watermark == self.watermark

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.gallery.settle()
            self.coded.settle()
            self.folder.cleanup()

    def _is_what_is_there(self, result: SearchResult) -> None:
        expected: Mapping[int, int] = self.watermark
        assert (result.watermark, result.templates) == (expected, len(self.plain.held))
        assert result.persons == len({each.person for each in self.plain.held})


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
