"""Build the sheet of one examiner: which candidates, in which order, and their images out of the object store.

Nothing is written here: a sheet is shown to nobody before the clerk has accepted that it is opened (G8).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from connectors.listed_captures import listed_captures
from connectors.reviews import review_id_of
from infra.review_sheet import Sheet, SheetCandidate, picture_of
from processors.refusals import Refusal
from processors.review_order import order_shown
from schemas.codec import decode_for
from schemas.errors import DomainFault
from schemas.events import ProbeSubmitted
from schemas.keys import booking_scope, probe_scope
from schemas.topics import PROBE_REQUESTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray

    from connectors.kafka_log import KafkaLog
    from connectors.object_store import ObjectStore
    from infra.review_sheet import Picture
    from processors.policy import ReviewRules
    from processors.review_course import ReviewCourse
    from schemas.events import Candidate, CandidateListIssued, Capture

SYNTHETIC = "A synthetic template: no person and no photo stands behind it."
NO_PHOTO = "The booking has this photo no longer."
UNREADABLE = "The photo cannot be read any more."


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetMaker:
    """Makes sheets out of what stands in Kafka and in the object store."""

    log: KafkaLog
    objects: ObjectStore
    rules: ReviewRules
    landmarks_of: Callable[[bytes], NDArray[np.float64] | None]
    """Photo -> `(5, 2)` shares of width and height; None where they are not to be had."""

    def make(self, listed: CandidateListIssued, course: ReviewCourse, examiner: str, now: datetime) -> Sheet:
        """Return the sheet of an examiner as of now.

        Candidates whose record a court order bars are left out, with their images (G5).

        Raises:
            DomainFault: the probe image is not there any more, or cannot be decoded.
            TransientError: Kafka or the object store is away.
        """
        found = listed_captures(self.log, listed.candidates)
        by_capture = {each.capture_id: each for each in listed.candidates if not found[each.capture_id].is_withdrawn}
        others = course.opened_by_others(examiner)
        order = order_shown(
            listed.probe_id,
            examiner,
            tuple(by_capture),
            shuffles=self.rules.shuffles,
            shown_to_others=[opening.shown for opening in others],
        )
        return Sheet(
            probe_id=listed.probe_id,
            review_id=review_id_of(listed.probe_id, examiner),
            examiner=examiner,
            case_number=listed.case_number,
            expires_at=now + timedelta(hours=self.rules.sheet_hours),
            probe=self._probe(listed),
            candidates=tuple(self._candidate(by_capture[each], found[each].capture) for each in order),
            features=self.rules.features,
            # Whoever comes second works blind, whatever the policy shows to the first one.
            shows_scores=self.rules.shows_scores and not others,
        )

    def _probe(self, listed: CandidateListIssued) -> Picture:
        record = self.log.record_at(PROBE_REQUESTS, listed.request.partition, listed.request.offset)
        request = decode_for(PROBE_REQUESTS, record.value)
        if not isinstance(request, ProbeSubmitted):
            raise DomainFault("LIST_UNKNOWN", "The request of this list is no probe; report it.")
        image = self.objects.get(request.image_reference, request.image_sha256, scope=probe_scope(listed.probe_id))
        picture = picture_of(image, self.landmarks_of(image))
        if isinstance(picture, Refusal):
            raise DomainFault(picture.code, picture.message)
        return picture

    def _candidate(self, candidate: Candidate, capture: Capture | None) -> SheetCandidate:
        picture, why_none = self._picture(candidate, capture)
        return SheetCandidate(
            capture_id=candidate.capture_id,
            picture=picture,
            why_none=why_none,
            taken_at=capture.captured_at if capture else None,
            rank=candidate.rank,
            score=candidate.score,
        )

    def _picture(self, candidate: Candidate, capture: Capture | None) -> tuple[Picture | None, str]:
        if capture is None:
            return None, SYNTHETIC if candidate.synthetic else NO_PHOTO
        scope = booking_scope(candidate.ori, candidate.booking_number)
        try:
            photo = self.objects.get(capture.reference, capture.sha256, scope=scope)
        except DomainFault:
            return None, UNREADABLE
        picture = picture_of(photo, self.landmarks_of(photo))
        return (None, UNREADABLE) if isinstance(picture, Refusal) else (picture, "")
