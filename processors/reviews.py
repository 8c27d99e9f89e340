"""The rules of the one-to-one comparison, pure: no lead without it (G8).

An examiner opens a review (ImageViewed), says of each candidate how its features compare with the probe's and what that
supports (CandidateReviewed), and concludes (ReviewConcluded). A further examiner does the same without knowing what the
first one said. What all of them together support becomes a lead. Nothing here identifies anybody.

Source of the method: FISWG, "Facial Image Comparison Feature List for Morphological Analysis".
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, cast

from processors.access import Role, Standing
from processors.enrolment import CLOCK_TOLERANCE
from processors.refusals import Refusal, RefusalCode
from processors.search_rules import refusal_of_user
from schemas.events import (
    CandidateResult,
    CandidateReviewed,
    FeatureFinding,
    ImageViewed,
    ReviewConcluded,
    ReviewConclusion,
    ReviewResult,
    ReviewReversed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from processors.access import Directory
    from processors.policy import Policy, ReviewRules
    from schemas.events import LeadIssued, LeadWithdrawn, ProbeSubmitted, ReviewCompleted

Said = ImageViewed | CandidateReviewed | ReviewConcluded | ReviewReversed
"""What an examiner says."""

_MUST_BE_FOUND = {
    ReviewConclusion.STRONG_SUPPORT: FeatureFinding.SIMILAR,
    ReviewConclusion.SUPPORT: FeatureFinding.SIMILAR,
    ReviewConclusion.LIMITED_SUPPORT: FeatureFinding.SIMILAR,
    ReviewConclusion.EXCLUSION: FeatureFinding.DISSIMILAR,
}
"""A conclusion that rests on no feature is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedCandidate:
    """One candidate of a list."""

    rank: int
    capture_id: UUID
    person: str
    ori: str
    booking_number: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """One sheet that an examiner was shown."""

    shown: tuple[UUID, ...]
    expires_at: datetime


@dataclass(slots=True, kw_only=True)
class Review:
    """What one examiner said of one probe, as far as it counts."""

    user_id: str
    ori: str
    openings: dict[UUID, Opening] = field(default_factory=dict)
    """By review id."""
    opened_at: datetime
    """Last."""
    first_shown: dict[UUID, datetime] = field(default_factory=dict)
    """Capture -> when the broker appended the first opening that showed it."""
    dispositions: dict[UUID, CandidateReviewed] = field(default_factory=dict)
    """By capture; the last that was said before the review was concluded."""
    is_concluded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of a probe, as far as it matters for what follows."""

    user_id: str
    """Who asked."""
    ori: str
    case_number: str
    decided_at: datetime
    """Append by the broker."""
    candidates: tuple[ListedCandidate, ...]
    """None where the probe was refused."""


@dataclass(slots=True, kw_only=True)
class CaseFile:
    """A probe and everything that followed from it, as far as it was read: topics are read side by side."""

    probe_id: UUID
    outcome: Outcome | None = None
    reviews: dict[str, Review] = field(default_factory=dict)
    """By examiner, in the order in which they opened."""
    concluded: list[str] = field(default_factory=list)
    """Examiners, in the order in which they concluded."""
    reversed: dict[UUID, UUID] = field(default_factory=dict)
    """Capture -> event id of the reversal of a conclusion on it."""
    completed: ReviewCompleted | None = None
    leads: dict[UUID, LeadIssued] = field(default_factory=dict)
    """By capture."""
    leads_at: dict[UUID, datetime] = field(default_factory=dict)
    """Lead id -> append by the broker."""
    withdrawn_leads: dict[UUID, LeadWithdrawn] = field(default_factory=dict)
    """By lead id."""
    destroyed: set[str] = field(default_factory=set)
    """Of what was kept."""

    @property
    def candidates(self) -> tuple[ListedCandidate, ...]:
        """Who is on the list."""
        return self.outcome.candidates if self.outcome else ()

    @property
    def is_under_review(self) -> bool:
        """Whether a review was opened and not completed."""
        return bool(self.reviews) and self.completed is None

    @property
    def has_standing_lead(self) -> bool:
        """Whether a lead was made of it that was not withdrawn."""
        return any(lead.lead_id not in self.withdrawn_leads for lead in self.leads.values())

    def candidate(self, capture_id: UUID) -> ListedCandidate | None:
        """Return the candidate of a capture."""
        return next((each for each in self.candidates if each.capture_id == capture_id), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sitting:
    """What a decision on a review rests on."""

    directory: Directory
    policy: Policy
    at: datetime
    said_at: datetime
    """When the broker appended what is decided on."""
    is_barred: Callable[[ListedCandidate], bool]
    """Whether a court order bars the record of a candidate."""


@dataclass(frozen=True, slots=True)
class _Asking:
    """Who asks, as the rules of a search want it."""

    user_id: str
    ori: str


def refusal_of_review(event: Said, case: CaseFile | None, sitting: Sitting) -> Refusal | None:
    """Return why something that an examiner says does not count, or None. Who says it comes before what is said."""
    if isinstance(event, ReviewReversed):
        return _refusal_of_reversal(event, case, sitting)
    refusal = refusal_of_examiner(event.user_id, case, sitting)
    if refusal is None and (case is None or not case.candidates):
        refusal = _refuse(
            RefusalCode.LIST_UNKNOWN, "reviews.list", f"There is no list of candidates of probe {event.probe_id}."
        )
    if refusal is not None or case is None:
        return refusal
    if isinstance(event, ImageViewed):
        return _refusal_of_view(event, case, sitting)
    return _refusal_of_entry(event, case, sitting)


def refusal_of_examiner(user_id: str, case: CaseFile | None, sitting: Sitting) -> Refusal | None:
    """Return why this person may not compare at this instant, or None: access, training, agreements, role, agency."""
    rules, user = sitting.policy.reviews, sitting.directory.users.get(user_id)
    asking = cast("ProbeSubmitted", _Asking(user_id, user.ori if user else ""))
    # The rules of a search, with the roles of a review.
    for_reviews = replace(sitting.policy, users=replace(sitting.policy.users, roles=rules.roles))
    refusal = refusal_of_user(asking, sitting.directory, for_reviews, sitting.at)
    outcome = case.outcome if case else None
    if refusal is None and outcome and asking.ori not in {outcome.ori, *rules.from_agencies}:
        return _refuse(
            RefusalCode.AGENCY_MISMATCH, "reviews.agency", f"{user_id} does not belong to the agency of the probe."
        )
    return refusal


def _refusal_of_view(view: ImageViewed, case: CaseFile, sitting: Sitting) -> Refusal | None:
    rules = sitting.policy.reviews
    review = case.reviews.get(view.user_id)
    open_to_view = {each.capture_id for each in case.candidates if not sitting.is_barred(each)}
    if _is_closed(case, review, rules):
        return _CLOSED
    if view.ori != sitting.directory.users[view.user_id].ori:
        return _refuse(
            RefusalCode.AGENCY_MISMATCH, "reviews.agency", f"{view.user_id} does not belong to agency {view.ori}."
        )
    if len({each.capture_id for each in case.candidates}) < len(case.candidates):
        return _refuse(
            RefusalCode.CANDIDATES_DIFFER,
            "reviews.candidates",
            "Two candidates of the list are named by the same capture, so that nobody could say which was compared. "
            "Tell the operator; search again when the booking systems have put it right.",
        )
    if sorted(view.shown) != sorted(open_to_view):
        return _refuse(
            RefusalCode.CANDIDATES_DIFFER,
            "reviews.candidates",
            "A sheet shows every candidate of the list once, but for those whose record is under a court order. Open "
            "the review again.",
        )
    if view.shows_scores and not rules.shows_scores:
        return _refuse(RefusalCode.SCORES_SHOWN, "reviews.shows_scores", "Scores are not shown before a decision.")
    if not _is_blind(view, case, rules):
        return _refuse(
            RefusalCode.ORDER_NOT_SHUFFLED,
            "reviews.shuffles",
            "The candidates stand in an order that another examiner was shown, or in that of the list.",
        )
    latest = sitting.said_at + timedelta(hours=rules.sheet_hours) + CLOCK_TOLERANCE
    if not sitting.said_at < view.expires_at <= latest:
        return _refuse(
            RefusalCode.SHEET_EXPIRED,
            "reviews.sheet_hours",
            f"A sheet may be shown for {rules.sheet_hours} hours; its end is not within them. Check the clock.",
        )
    return None


def _is_closed(case: CaseFile, review: Review | None, rules: ReviewRules) -> bool:
    """Tell whether nothing more is said by this examiner, or by anybody once enough have concluded."""
    has_concluded = review is not None and review.is_concluded
    return has_concluded or case.completed is not None or len(case.concluded) >= rules.examiners


def _is_blind(view: ImageViewed, case: CaseFile, rules: ReviewRules) -> bool:
    """Tell whether the order shown betrays neither the list's nor, to a further examiner, an earlier one's."""
    if len(view.shown) <= 2:  # noqa: PLR2004 - two can stand in two orders only
        return True
    shown = set(view.shown)
    by_rank = tuple(each.capture_id for each in case.candidates if each.capture_id in shown)
    others = [review for review in case.reviews.values() if review.user_id != view.user_id]
    orders = {
        tuple(each for each in opening.shown if each in shown)
        for review in others
        for opening in review.openings.values()
    }
    if rules.shuffles or others:
        orders.add(by_rank)
    return view.shown not in orders


def _refusal_of_entry(event: CandidateReviewed | ReviewConcluded, case: CaseFile, sitting: Sitting) -> Refusal | None:
    review = case.reviews.get(event.user_id)
    if review is None or event.review_id not in review.openings:
        return _refuse(
            RefusalCode.REVIEW_NOT_OPENED,
            "reviews.opened",
            "The review was not opened: open it, so that the images are looked at, before anything is said of them.",
        )
    if _is_closed(case, review, sitting.policy.reviews):
        return _CLOSED
    if isinstance(event, CandidateReviewed):
        return _refusal_of_shown(event, case, review, sitting) or _refusal_of_comparison(event, sitting.policy.reviews)
    return _refusal_of_conclusion(case, review, sitting)


def _refusal_of_shown(said: CandidateReviewed, case: CaseFile, review: Review, sitting: Sitting) -> Refusal | None:
    """Return why the examiner cannot have compared this candidate by this sheet now, or None."""
    candidate, opening = case.candidate(said.capture_id), review.openings[said.review_id]
    if candidate is None or said.capture_id not in opening.shown:
        return _refuse(
            RefusalCode.CANDIDATE_UNKNOWN, "reviews.candidates", "That candidate was not on the sheet of this review."
        )
    if sitting.is_barred(candidate):
        return _refuse(
            RefusalCode.RECORD_SEALED,
            "reviews.sealed",
            "The record of this candidate is under a court order; it is not compared.",
        )
    if sitting.said_at >= opening.expires_at:
        return _refuse(
            RefusalCode.SHEET_EXPIRED, "reviews.sheet_hours", "The sheet has expired; open the review again."
        )
    return None


def _refusal_of_comparison(said: CandidateReviewed, rules: ReviewRules) -> Refusal | None:
    """Return what is missing in a comparison, or None."""
    if Counter(comparison.feature for comparison in said.features) != Counter(rules.features):
        return _refuse(
            RefusalCode.FEATURES_INCOMPLETE,
            "reviews.features",
            f"State of each feature, once, how it compares: {', '.join(rules.features)}.",
        )
    if not said.limitations.strip():
        return _refuse(
            RefusalCode.LIMITATIONS_MISSING,
            "reviews.limitations",
            "State what limits the comparison, such as resolution, pose or light; or that nothing does.",
        )
    needed = _MUST_BE_FOUND.get(said.conclusion)
    if needed is not None and all(comparison.finding is not needed for comparison in said.features):
        return _refuse(
            RefusalCode.CONCLUSION_UNFOUNDED,
            "reviews.conclusion",
            f"{said.conclusion} needs at least one feature that is {needed}.",
        )
    return None


def _refusal_of_conclusion(case: CaseFile, review: Review, sitting: Sitting) -> Refusal | None:
    missing = sum(each.capture_id not in review.dispositions for each in case.candidates if not sitting.is_barred(each))
    if not missing:
        return None
    return _refuse(
        RefusalCode.DISPOSITION_MISSING,
        "reviews.dispositions",
        f"{missing} candidates have no disposition yet; each is compared before the review closes.",
    )


def _refusal_of_reversal(event: ReviewReversed, case: CaseFile | None, sitting: Sitting) -> Refusal | None:
    review = case.reviews.get(event.user_id) if case else None
    user = sitting.directory.users.get(event.user_id)
    has_access = user is not None and user.standing is Standing.GRANTED
    said_it = review is not None and review.is_concluded and event.capture_id in review.dispositions
    supervises = (
        case is not None
        and case.outcome is not None
        and user is not None
        and Role.SUPERVISOR in user.roles
        and user.ori == case.outcome.ori
        and any(each.is_concluded and event.capture_id in each.dispositions for each in case.reviews.values())
    )
    if not has_access or not (said_it or supervises):
        return _refuse(
            RefusalCode.NOT_REVERSIBLE,
            "reviews.reversal",
            "A conclusion is reversed by the examiner who drew it or by a supervisor of the agency, with open access, "
            "after the review.",
        )
    if not event.reason.strip():
        return _refuse(RefusalCode.REASON_TEXT_MISSING, "reviews.reversal", "State why the conclusion is taken back.")
    return None


def results_of(
    case: CaseFile, examiners: Sequence[str], rules: ReviewRules, barred: Mapping[UUID, bool]
) -> tuple[CandidateResult, ...]:
    """Return what some examiners together say of each candidate, by rank.

    Args:
        case: with their dispositions.
        examiners: who concluded, in that order.
        rules: which conclusions are support.
        barred: capture -> whether its record is under a court order.
    """
    results = []
    for candidate in case.candidates:
        said = [case.reviews[examiner].dispositions.get(candidate.capture_id) for examiner in examiners]
        conclusions = tuple(each.conclusion for each in said if each is not None)
        support = [conclusion in rules.supports for conclusion in conclusions]
        # Who was not shown it could not compare it: it was under an order at that time.
        if barred[candidate.capture_id] or candidate.capture_id in case.reversed or len(support) < len(examiners):
            result = ReviewResult.WITHDRAWN
        elif all(support):
            result = ReviewResult.SUPPORTED
        else:
            result = ReviewResult.DISAGREEMENT if any(support) else ReviewResult.NOT_SUPPORTED
        results.append(
            CandidateResult(
                capture_id=candidate.capture_id,
                rank=candidate.rank,
                conclusions=tuple(str(each) for each in conclusions),
                result=result,
            )
        )
    return tuple(results)


def _refuse(code: RefusalCode, rule: str, message: str) -> Refusal:
    return Refusal(code=code, message=message, rule=rule)


_CLOSED = _refuse(
    RefusalCode.REVIEW_CLOSED, "reviews.closed", "The review is concluded; what was said stands, or is reversed."
)
