"""Scores the persons of a list by all their captures together; the option beside the best capture.

A search lists more persons than asked for, by the best capture of each. For these every searchable capture is gathered,
fused (`processors/fusion.py`) and scored anew. A person whose best capture is not among so many is not found by the
others: that is the price of comparing single templates, and the list is long against it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from connectors.gallery_search import exact_scores
from processors.candidates import SCORE_DECIMALS
from processors.fusion import fused_template
from processors.template_rows import SID_PERSON, by_hash
from schemas.keys import booking_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from connectors.gallery_search import Piece
    from processors.candidates import ScoredCapture

_PERSONS_A_PLACE = 5
_SHORTEST = 100


def shortlist_for(length: int) -> int:
    """Return how many persons are scored by all their captures for a list of a length; a list depends on it (G7)."""
    return max(_PERSONS_A_PLACE * length, _SHORTEST)


def with_fused_scores(
    pieces: Sequence[Piece], template: NDArray[np.float32], best: Sequence[ScoredCapture]
) -> list[ScoredCapture]:
    """Return the best captures of persons, each with the score of all captures of its person together.

    Args:
        pieces: what is searched.
        template: (d,) float32, the probe.
        best: a capture a person.
    """
    fused: dict[str, NDArray[np.float16]] = {
        person: fused_template(np.concatenate(halves), np.concatenate(steps))
        for person, (halves, steps) in _captures_of(pieces, best).items()
        if sum(map(len, steps)) > 1
    }
    if not fused:
        return list(best)
    scores = dict(zip(fused, exact_scores(template, np.stack(list(fused.values()))).tolist(), strict=True))
    return [
        replace(one, score=round(scores[one.person], SCORE_DECIMALS)) if one.person in scores else one for one in best
    ]


def _captures_of(
    pieces: Sequence[Piece], best: Sequence[ScoredCapture]
) -> Mapping[str, tuple[list[NDArray[np.float16]], list[NDArray[np.uint8]]]]:
    """Return by person the templates and the qualities of all its captures that can be found, piece by piece."""
    by_sid = {one.person.removeprefix(SID_PERSON).encode(): one.person for one in best if _has_sid(one)}
    alone = {booking_key(one.ori, one.booking_number).encode(): one.person for one in best if not _has_sid(one)}
    sids, sid_hashes = by_hash(list(by_sid))
    bookings, booking_hashes = by_hash(list(alone))
    captures: defaultdict[str, tuple[list[NDArray[np.float16]], list[NDArray[np.uint8]]]]
    captures = defaultdict(lambda: ([], []))
    for piece in pieces:
        ids = piece.segment.ids
        rows_of: defaultdict[str, list[int]] = defaultdict(list)
        for sid, row in ids.rows_of_sids(sids, sid_hashes):
            rows_of[by_sid[sid]].append(row)
        for booking, row in ids.rows_of_bookings(bookings, booking_hashes):
            rows_of[alone[booking]].append(row)
        for person, found in rows_of.items():
            rows = np.array(found, dtype=np.int64)
            rows = rows[piece.is_live(rows)]
            halves, steps = captures[person]
            halves.append(piece.segment.templates[rows])
            steps.append(ids.quality_steps(rows))
    return captures


def _has_sid(one: ScoredCapture) -> bool:
    return one.person.startswith(SID_PERSON)
