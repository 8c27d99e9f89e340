"""What was said and decided of one probe's candidates, in order, and who may see how much of it.

Said is what an examiner signed; it counts once the clerk accepted it. A further examiner works blind: until the own
review is concluded, or all are, only counts of what others did are shown (G8).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from processors.access import Role
from schemas.events import (
    CandidateReviewed,
    ImageViewed,
    LeadIssued,
    LeadWithdrawalCause,
    LeadWithdrawn,
    RetainedDataDestroyed,
    ReviewAnswered,
    ReviewCompleted,
    ReviewConcluded,
    ReviewReversed,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from uuid import UUID

    from schemas.positions import SourcePosition

ReviewEvent = ImageViewed | CandidateReviewed | ReviewConcluded | ReviewReversed
ReviewOutcome = ReviewAnswered | ReviewCompleted | LeadIssued | LeadWithdrawn | RetainedDataDestroyed

E = TypeVar("E", bound=ReviewEvent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One thing that somebody said, and what the clerk answered."""

    event: ReviewEvent
    answer: ReviewAnswered | None
    """None while there is none."""

    @property
    def is_accepted(self) -> bool:
        """Whether it counts."""
        return self.answer is not None and self.answer.accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """A lead and, where it no longer stands, its withdrawal."""

    issued: LeadIssued
    withdrawn: LeadWithdrawn | None = None

    @property
    def is_masked(self) -> bool:
        """Whether a court order withdrew it: then the command line does not show whom it named."""
        return self.withdrawn is not None and self.withdrawn.cause is not LeadWithdrawalCause.REVIEW_REVERSED


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewCourse:
    """All that was said and decided of one probe."""

    probe_id: UUID
    said: tuple[Said, ...] = ()
    completed: ReviewCompleted | None = None
    leads: tuple[Lead, ...] = ()

    def opened_by(self, user_id: str) -> tuple[ImageViewed, ...]:
        """Return the accepted openings of one examiner, the last one last."""
        return tuple(each for each in self._accepted(ImageViewed) if each.user_id == user_id)

    def opened_by_others(self, user_id: str) -> tuple[ImageViewed, ...]:
        """Return the accepted openings of everybody else."""
        return tuple(each for each in self._accepted(ImageViewed) if each.user_id != user_id)

    def dispositions(self, user_id: str) -> dict[UUID, CandidateReviewed]:
        """Return, by capture, what one examiner said last of each candidate."""
        return {each.capture_id: each for each in self._accepted(CandidateReviewed) if each.user_id == user_id}

    @property
    def examiners(self) -> tuple[str, ...]:
        """Who opened a review, in that order."""
        return tuple(dict.fromkeys(each.user_id for each in self._accepted(ImageViewed)))

    @property
    def concluded(self) -> tuple[str, ...]:
        """Who concluded a review, in that order."""
        return tuple(dict.fromkeys(each.user_id for each in self._accepted(ReviewConcluded)))

    def last_answer_to(self, user_id: str) -> ReviewAnswered | None:
        """Return the last answer that one examiner got; what is said anew after it is another thing (G11)."""
        answers = [each.answer for each in self.said if each.answer is not None and each.event.user_id == user_id]
        return answers[-1] if answers else None

    def _accepted(self, kind: type[E]) -> list[E]:
        return [each.event for each in self.said if each.is_accepted and isinstance(each.event, kind)]


def course_of(
    probe_id: UUID, events: Iterable[tuple[SourcePosition, ReviewEvent]], outcomes: Iterable[ReviewOutcome]
) -> ReviewCourse:
    """Return the course of one probe's reviews from what stands in the two topics, each in its order.

    The first answer to a place counts, and of an event that was sent twice the first that was accepted (G11).
    """
    answers: dict[SourcePosition, ReviewAnswered] = {}
    completed: ReviewCompleted | None = None
    decided = [each for each in outcomes if each.probe_id == probe_id]
    for outcome in decided:
        if isinstance(outcome, ReviewAnswered):
            answers.setdefault(outcome.source, outcome)
        elif isinstance(outcome, ReviewCompleted):
            completed = completed or outcome
    said: dict[tuple[str, UUID], Said] = {}
    for position, event in events:
        if event.probe_id != probe_id:
            continue
        now = Said(event=event, answer=answers.get(position))
        before = said.get((event.actor, event.event_id))
        if before is None or (now.is_accepted and not before.is_accepted):
            said[event.actor, event.event_id] = now
    return ReviewCourse(probe_id=probe_id, said=tuple(said.values()), completed=completed, leads=leads_of(decided))


def leads_of(outcomes: Iterable[ReviewOutcome]) -> tuple[Lead, ...]:
    """Return the leads among outcomes in the order in which they were issued, each once, and whether it stands."""
    issued: dict[UUID, LeadIssued] = {}
    withdrawn: dict[UUID, LeadWithdrawn] = {}
    for outcome in outcomes:
        if isinstance(outcome, LeadIssued):
            issued.setdefault(outcome.lead_id, outcome)
        elif isinstance(outcome, LeadWithdrawn):
            withdrawn.setdefault(outcome.lead_id, outcome)
    return tuple(Lead(issued=lead, withdrawn=withdrawn.get(lead_id)) for lead_id, lead in issued.items())


def may_see_results(
    course: ReviewCourse, viewer: str | None, roles: Collection[str], examiners_roles: Collection[str]
) -> bool:
    """Tell whether a person may see what examiners said of a list.

    Args:
        course: of the probe.
        viewer: who looks; None is somebody who does not say.
        roles: of that person.
        examiners_roles: with which one may compare; who has one might still be asked to.
    """
    if course.completed is not None or viewer in course.concluded:
        return True
    return (
        viewer is not None
        and bool({Role.SUPERVISOR, Role.AUDITOR} & set(roles))
        and not set(roles) & set(examiners_roles)
    )
