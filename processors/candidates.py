"""Changes of the gallery and results of a search, as values; one row a person, in an order that only scores decide."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from schemas.events import Candidate, Consolidation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    import numpy as np
    import numpy.typing as npt

LEAD_NOTICE = (
    "Investigative lead only. This list is not an identification and is not probable cause to arrest. "
    "A trained examiner must compare each candidate with the probe one to one, and other evidence must support any "
    "action."
)
"""Goes with every candidate list and must be shown on every view of it."""

SCORE_DECIMALS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledTemplate:
    """One searchable template and whose it is."""

    person: str
    """`sid:<SID>` or `booking:<ORI>/<booking number>`."""
    ori: str
    booking_number: str
    capture_id: UUID
    synthetic: bool
    template: npt.NDArray[np.float32] = field(repr=False)
    """(dimension,) float32, every value representable in half precision, L2 norm 1 up to that rounding."""
    quality: float = 1.0
    """Quality of the capture, 0 to 1, higher is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryChange:
    """From here on exactly these templates are searchable for this booking; none after a withdrawal."""

    booking: str
    """Key of the booking."""
    templates: tuple[EnrolledTemplate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredCapture:
    """One template and its score against a probe."""

    person: str
    ori: str
    booking_number: str
    capture_id: UUID
    synthetic: bool
    score: float
    """Cosine similarity rounded to six decimals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search found, and in which gallery."""

    candidates: tuple[Candidate, ...]
    watermark: Mapping[int, int]
    """Gallery partition -> next offset to apply, of the state that was searched."""
    templates: int
    persons: int
    consolidation: Consolidation
    """What the scores are of."""


def person_of(sid: str | None, booking: str) -> str:
    """Return whose a booking is: the state's person where it has a number for one, else the booking itself."""
    return f"sid:{sid}" if sid else f"booking:{booking}"


def best_of_persons(scored: Iterable[ScoredCapture], length: int) -> list[ScoredCapture]:
    """Return the best capture of each of the best persons.

    Equal scores are ordered by person, booking and capture, so that the list does not depend on the order in which
    templates were enrolled, on a merge or on a replica (G7).
    """
    best: dict[str, ScoredCapture] = {}
    for capture in sorted(scored, key=_order):
        best.setdefault(capture.person, capture)
    return list(best.values())[:length]


def consolidate(scored: Iterable[ScoredCapture], length: int) -> tuple[Candidate, ...]:
    """Return the best persons, each once by the capture that scores highest; in the order of `best_of_persons`."""
    return tuple(
        Candidate(
            rank=rank,
            person=capture.person,
            ori=capture.ori,
            booking_number=capture.booking_number,
            capture_id=capture.capture_id,
            score=capture.score,
            synthetic=capture.synthetic,
        )
        for rank, capture in enumerate(best_of_persons(scored, length), start=1)
    )


def _order(capture: ScoredCapture) -> tuple[float, str, str, str, str]:
    return (-capture.score, capture.person, capture.ori, capture.booking_number, str(capture.capture_id))
