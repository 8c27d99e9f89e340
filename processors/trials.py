"""Draw trials from a labelled set: who is enrolled with which photos, and what is then searched with.

The same set, seed and number of enrolled photos give the same trials, in whatever order the photos are listed and
whichever recipe is measured on them, so that two recipes can be compared photo by photo. docs/evaluation.md says it in
words. A draw depends on labels only, never on whether a template came out of a photo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """One gallery and the searches in it; every number is the row of a photo in the labelled set."""

    enrolled: Rows
    """(persons in the gallery, photos a person)."""
    mated: Rows
    """(m,) further photos of enrolled persons."""
    mates: Rows
    """(m,) row of `enrolled` that is the person of each."""
    non_mated: Rows
    """(k,) photos of persons who are not enrolled."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draw:
    """One drawing of lots: the trial where half of the persons are enrolled, and the one where all are."""

    open_set: Trial
    closed_set: Trial


def number_persons(persons: Sequence[str]) -> tuple[list[str], Rows]:
    """Return the persons in order of their names, and for each photo the number of its person."""
    names, numbers = np.unique(np.array(persons, dtype=np.str_), return_inverse=True)
    return [str(name) for name in names], numbers.astype(np.int64)


def draw_trials(persons: Sequence[str], photos: Sequence[str], *, enrol: int, count: int, seed: int) -> list[Draw]:
    """Draw `count` times from photos that are labelled with their person and a name of their own, unique for a person.

    A person with more than `enrol` photos can be enrolled. In the open set half of these are (rounded up), each with
    `enrol` photos drawn by lot; the other photos of theirs are mated probes, and all photos of everybody else are
    non-mated ones. In the closed set all of these are enrolled with the photos that the lot would give them, and there
    are no non-mated probes.
    """
    names, person = number_persons(persons)
    by_name = np.lexsort((np.array(photos, dtype=np.str_), person))
    counts = np.bincount(person, minlength=len(names))
    eligible = np.flatnonzero(counts > enrol)
    half = -(-len(eligible) // 2)
    drawn = []
    for number in range(count):
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number])))
        lots = np.empty(len(person))
        lots[by_name] = generator.random(len(person))
        by_lot = np.lexsort((lots, person))
        order = generator.permutation(eligible)
        drawn.append(
            Draw(
                open_set=_trial(person, by_lot, counts, order[:half], enrol),
                closed_set=_trial(person, by_lot, counts, eligible, enrol, searched=eligible),
            )
        )
    return drawn


def _trial(
    person: Rows, by_lot: Rows, counts: Rows, chosen: Rows, enrol: int, *, searched: Rows | None = None
) -> Trial:
    """Enrol the chosen persons; `by_lot` has the photos person by person, those that the lot prefers first."""
    chosen = np.sort(chosen)
    starts = np.cumsum(counts) - counts
    enrolled = by_lot[starts[chosen][:, np.newaxis] + np.arange(enrol)].astype(np.int64)
    place = np.full(len(counts), -1, dtype=np.int64)
    place[chosen] = np.arange(len(chosen))
    probes = np.ones(len(person), dtype=np.bool_)
    probes[enrolled] = False
    if searched is not None:
        probes &= np.isin(person, searched)
    mates = place[person]
    mated = np.flatnonzero(probes & (mates >= 0))
    return Trial(enrolled=enrolled, mated=mated, mates=mates[mated], non_mated=np.flatnonzero(probes & (mates < 0)))
