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
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from processors.access import Role, Standing
from processors.enrolment import CLOCK_TOLERANCE
from processors.refusals import Refusal, RefusalCode
from processors.search_rules import USER_RULES, refusal_of_user
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
    from schemas.events import LeadIssued, LeadWithdrawn, ReviewCompleted

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
    orders: set[tuple[UUID, ...]] = field(default_factory=set)
    """In which candidates were shown, by whatever sheet: also by one that a later one of the same review replaces."""
    opened_at: datetime
    """Last."""
    received_at: dict[UUID, datetime] = field(default_factory=dict)
    """Capture -> when a sheet first showed it, which stays true whatever a later sheet shows."""
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
    counted: set[tuple[str, UUID]] = field(default_factory=set)
    """(user id, event id) of what was said and counts: said again, it counts no second time."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of what an examiner says."""

    name: str
    """By which docs/policy.md explains it and every refusal names it."""
    codes: tuple[RefusalCode, ...]
    """Every code that its refusals may have."""
    judge: Callable[[Any, CaseFile, Sitting], Refusal | None]


def refusal_of_review(event: Said, case: CaseFile | None, sitting: Sitting) -> Refusal | None:
    """Return why something that an examiner says does not count, or None; the first rule that refuses says it."""
    case = case or CaseFile(probe_id=event.probe_id)
    for rule in RULES[type(event)]:
        refusal = rule.judge(event, case, sitting)
        if refusal is not None:
            return replace(refusal, rule=refusal.rule or rule.name)
    return None


def _refuse(code: RefusalCode, message: str) -> Refusal:
    return Refusal(code=code, message=message)


# Who says it comes before what is said: whoever has no access learns nothing of lists and reviews.


def _access(event: Said, _case: CaseFile, sitting: Sitting) -> Refusal | None:
    """Judge by the rules of who may search, with the roles of a review."""
    user, policy = sitting.directory.users.get(event.user_id), sitting.policy
    asking = _Asking(event.user_id, user.ori if user else "")
    for_reviews = replace(policy, users=replace(policy.users, roles=policy.reviews.roles))
    refusal = refusal_of_user(asking, sitting.directory, for_reviews, sitting.at)
    if refusal is not None and refusal.code is RefusalCode.ROLE_MISSING:
        return replace(refusal, rule="reviews.roles")
    return refusal


def _agency(event: Said, case: CaseFile, sitting: Sitting) -> Refusal | None:
    user = sitting.directory.users.get(event.user_id)
    if case.outcome is None or user is None:
        return None
    if user.ori in {case.outcome.ori, *sitting.policy.reviews.from_agencies}:
        return None
    return _refuse(RefusalCode.AGENCY_MISMATCH, f"{event.user_id} does not belong to the agency of the probe.")


def _list(event: Said, case: CaseFile, _sitting: Sitting) -> Refusal | None:
    if case.candidates:
        return None
    return _refuse(RefusalCode.LIST_UNKNOWN, f"There is no list of candidates of probe {event.probe_id}.")


# Opening a review.


def _own_agency(view: ImageViewed, _case: CaseFile, sitting: Sitting) -> Refusal | None:
    user = sitting.directory.users.get(view.user_id)
    if user is None or user.ori == view.ori:
        return None
    return _refuse(RefusalCode.AGENCY_MISMATCH, f"{view.user_id} does not belong to agency {view.ori}.")


def _still_open(
    event: ImageViewed | CandidateReviewed | ReviewConcluded, case: CaseFile, sitting: Sitting
) -> Refusal | None:
    review = case.reviews.get(event.user_id)
    # Also before the completed review is written: whoever concludes after enough have is not heard in it.
    enough = case.completed is not None or len(case.concluded) >= sitting.policy.reviews.examiners
    if not enough and not (review is not None and review.is_concluded):
        return None
    return _refuse(RefusalCode.REVIEW_CLOSED, "The review is concluded; what was said stands, or is reversed.")


def _all_candidates(view: ImageViewed, case: CaseFile, sitting: Sitting) -> Refusal | None:
    captures = [each.capture_id for each in case.candidates]
    if len(set(captures)) < len(captures):
        return _refuse(
            RefusalCode.CANDIDATES_DIFFER,
            "Two candidates of the list have one capture id, so nobody could say which of them was compared. Tell the "
            "operator; search again when the bookings are corrected.",
        )
    if sorted(view.shown) == sorted(each.capture_id for each in case.candidates if not sitting.is_barred(each)):
        return None
    return _refuse(
        RefusalCode.CANDIDATES_DIFFER,
        "A sheet shows every candidate of the list once, but for those whose record is under a court order. Open the "
        "review again.",
    )


def _scores(view: ImageViewed, _case: CaseFile, sitting: Sitting) -> Refusal | None:
    if sitting.policy.reviews.shows_scores or not view.shows_scores:
        return None
    return _refuse(RefusalCode.SCORES_SHOWN, "Scores are not shown before a decision.")


def _order_shown(view: ImageViewed, case: CaseFile, sitting: Sitting) -> Refusal | None:
    """Judge whether the order shown betrays that of the list or, to a further examiner, that of an earlier one."""
    if len(view.shown) <= 2:  # noqa: PLR2004 - two can stand in two orders only
        return None
    shown = set(view.shown)
    others = [review for review in case.reviews.values() if review.user_id != view.user_id]
    orders = {tuple(each for each in order if each in shown) for review in others for order in review.orders}
    if sitting.policy.reviews.shuffles or others:
        orders.add(tuple(each.capture_id for each in case.candidates if each.capture_id in shown))
    if view.shown not in orders:
        return None
    return _refuse(
        RefusalCode.ORDER_NOT_SHUFFLED,
        "The candidates stand in an order that another examiner was shown, or in that of the list.",
    )


def _sheet_end(view: ImageViewed, _case: CaseFile, sitting: Sitting) -> Refusal | None:
    hours = sitting.policy.reviews.sheet_hours
    if sitting.said_at < view.expires_at <= sitting.said_at + timedelta(hours=hours) + CLOCK_TOLERANCE:
        return None
    return _refuse(
        RefusalCode.SHEET_EXPIRED,
        f"A sheet may be shown for {hours} hours; its end is not within them. Check the clock.",
    )


# Comparing a candidate, and concluding.


def _opened(event: CandidateReviewed | ReviewConcluded, case: CaseFile, _sitting: Sitting) -> Refusal | None:
    review = case.reviews.get(event.user_id)
    if review is not None and event.review_id in review.openings:
        return None
    return _refuse(
        RefusalCode.REVIEW_NOT_OPENED,
        "The review was not opened: open it, so that the images are looked at, before anything is said of them.",
    )


def _shown(said: CandidateReviewed, case: CaseFile, _sitting: Sitting) -> Refusal | None:
    opening = _opening(said, case)
    if opening is not None and said.capture_id in opening.shown:
        return None
    return _refuse(RefusalCode.CANDIDATE_UNKNOWN, "That candidate was not on the sheet of this review.")


def _not_sealed(said: CandidateReviewed, case: CaseFile, sitting: Sitting) -> Refusal | None:
    candidate = case.candidate(said.capture_id)
    if candidate is None or not sitting.is_barred(candidate):
        return None
    return _refuse(
        RefusalCode.RECORD_SEALED, "The record of this candidate is under a court order; it is not compared."
    )


def _sheet_valid(said: CandidateReviewed, case: CaseFile, sitting: Sitting) -> Refusal | None:
    opening = _opening(said, case)
    if opening is None or sitting.said_at < opening.expires_at:
        return None
    return _refuse(RefusalCode.SHEET_EXPIRED, "The sheet has expired; open the review again.")


def _opening(said: CandidateReviewed, case: CaseFile) -> Opening | None:
    review = case.reviews.get(said.user_id)
    return review.openings.get(said.review_id) if review else None


def _features(said: CandidateReviewed, _case: CaseFile, sitting: Sitting) -> Refusal | None:
    asked = sitting.policy.reviews.features
    if Counter(comparison.feature for comparison in said.features) == Counter(asked):
        return None
    return _refuse(
        RefusalCode.FEATURES_INCOMPLETE, f"State of each feature, once, how it compares: {', '.join(asked)}."
    )


def _limitations(said: CandidateReviewed, _case: CaseFile, _sitting: Sitting) -> Refusal | None:
    if said.limitations.strip():
        return None
    return _refuse(
        RefusalCode.LIMITATIONS_MISSING,
        "State what limits the comparison, such as resolution, pose or light; or that nothing does.",
    )


def _founded(said: CandidateReviewed, _case: CaseFile, _sitting: Sitting) -> Refusal | None:
    needed = _MUST_BE_FOUND.get(said.conclusion)
    if needed is None or any(comparison.finding is needed for comparison in said.features):
        return None
    return _refuse(RefusalCode.CONCLUSION_UNFOUNDED, f"{said.conclusion} needs at least one feature that is {needed}.")


def _dispositions(event: ReviewConcluded, case: CaseFile, sitting: Sitting) -> Refusal | None:
    review = case.reviews.get(event.user_id)
    said = review.dispositions if review else {}
    missing = sum(each.capture_id not in said for each in case.candidates if not sitting.is_barred(each))
    if not missing:
        return None
    return _refuse(
        RefusalCode.DISPOSITION_MISSING,
        f"{missing} candidates have no disposition yet; each is compared before the review closes.",
    )


# Taking a conclusion back.


def _reversible(event: ReviewReversed, case: CaseFile, sitting: Sitting) -> Refusal | None:
    user = sitting.directory.users.get(event.user_id)
    drawn_by = {
        review.user_id
        for review in case.reviews.values()
        if review.is_concluded and event.capture_id in review.dispositions
    }
    supervises = (
        user is not None
        and Role.SUPERVISOR in user.roles
        and case.outcome is not None
        and user.ori == case.outcome.ori
        and bool(drawn_by)
    )
    # Nobody whose access was taken away has a say in what stands.
    if user is not None and user.standing is Standing.GRANTED and (event.user_id in drawn_by or supervises):
        return None
    return _refuse(
        RefusalCode.NOT_REVERSIBLE,
        "A conclusion is reversed by the examiner who drew it or by a supervisor of the agency, after the review.",
    )


def _reversal_reason(event: ReviewReversed, _case: CaseFile, _sitting: Sitting) -> Refusal | None:
    if event.reason.strip():
        return None
    return _refuse(RefusalCode.REASON_TEXT_MISSING, "State why the conclusion is taken back.")


R = RefusalCode
_BY_AN_EXAMINER = (
    Rule(
        name="users",
        codes=tuple(code for rule in USER_RULES for code in rule.codes),
        judge=_access,
    ),
    Rule(name="reviews.agency", codes=(R.AGENCY_MISMATCH,), judge=_agency),
    Rule(name="reviews.list", codes=(R.LIST_UNKNOWN,), judge=_list),
)
_CLOSED = Rule(name="reviews.closed", codes=(R.REVIEW_CLOSED,), judge=_still_open)
_OPENED = Rule(name="reviews.opened", codes=(R.REVIEW_NOT_OPENED,), judge=_opened)
RULES: Mapping[type[Said], tuple[Rule, ...]] = MappingProxyType(
    {
        ImageViewed: (
            *_BY_AN_EXAMINER,
            Rule(name="reviews.own_agency", codes=(R.AGENCY_MISMATCH,), judge=_own_agency),
            _CLOSED,
            Rule(name="reviews.candidates", codes=(R.CANDIDATES_DIFFER,), judge=_all_candidates),
            Rule(name="reviews.shows_scores", codes=(R.SCORES_SHOWN,), judge=_scores),
            Rule(name="reviews.shuffles", codes=(R.ORDER_NOT_SHUFFLED,), judge=_order_shown),
            Rule(name="reviews.sheet_hours", codes=(R.SHEET_EXPIRED,), judge=_sheet_end),
        ),
        CandidateReviewed: (
            *_BY_AN_EXAMINER,
            _OPENED,
            _CLOSED,
            Rule(name="reviews.shown", codes=(R.CANDIDATE_UNKNOWN,), judge=_shown),
            Rule(name="reviews.sealed", codes=(R.RECORD_SEALED,), judge=_not_sealed),
            Rule(name="reviews.sheet_valid", codes=(R.SHEET_EXPIRED,), judge=_sheet_valid),
            Rule(name="reviews.features", codes=(R.FEATURES_INCOMPLETE,), judge=_features),
            Rule(name="reviews.limitations", codes=(R.LIMITATIONS_MISSING,), judge=_limitations),
            Rule(name="reviews.conclusion", codes=(R.CONCLUSION_UNFOUNDED,), judge=_founded),
        ),
        ReviewConcluded: (
            *_BY_AN_EXAMINER,
            _OPENED,
            _CLOSED,
            Rule(name="reviews.dispositions", codes=(R.DISPOSITION_MISSING,), judge=_dispositions),
        ),
        ReviewReversed: (
            Rule(name="reviews.reversal", codes=(R.NOT_REVERSIBLE,), judge=_reversible),
            Rule(name="reviews.reversal_reason", codes=(R.REASON_TEXT_MISSING,), judge=_reversal_reason),
        ),
    }
)
"""What is asked of each thing that an examiner says, in this order."""


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
