"""What an examiner may say of a list, as a table: every rule allowed and refused at its boundary, and that each counts.

A row is a scene, something said in it, and the code and the rule of the answer (G8).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from builders import (
    DIGEST,
    MICROSECOND,
    NOW,
    ORI,
    OTHER_ORI,
    POLICY,
    PROBE,
    access_granted,
    access_restricted,
    access_revoked,
    agreement_accepted,
    candidate_reviewed,
    compared,
    image_viewed,
    list_issued,
    review_concluded,
    review_id_of,
    review_reversed,
    training_completed,
    user_registered,
    uuid_named,
    with_examiners,
)

from processors import reviews
from processors.enrolment import CLOCK_TOLERANCE
from processors.refusals import RefusalCode as R
from processors.reviews import (
    RULES,
    CaseFile,
    ListedCandidate,
    Opening,
    Outcome,
    Review,
    Sitting,
    refusal_of_review,
    results_of,
)
from schemas.events import (
    FeatureFinding,
    ReviewCompleted,
    ReviewConclusion,
    ReviewResult,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from builders import Registry

    from processors.policy import Policy
    from processors.reviews import Said

C = ReviewConclusion
ON_THE_LIST = ("B-1", "B-2", "B-3")
SHUFFLED, AGAIN = ("B-3", "B-1", "B-2"), ("B-2", "B-3", "B-1")
SHEET_ENDS = NOW + timedelta(hours=8)
ALLOWED = (None, "")


# Scenes: the list, and what examiners did with it before.


def listed(*bookings: str, ori: str = ORI) -> CaseFile:
    return CaseFile(
        probe_id=PROBE,
        outcome=Outcome(
            user_id="alice",
            ori=ori,
            case_number="2026-4711",
            decided_at=NOW,
            candidates=tuple(
                ListedCandidate(
                    rank=each.rank,
                    capture_id=each.capture_id,
                    person=each.person,
                    ori=each.ori,
                    booking_number=each.booking_number,
                )
                for each in list_issued(*(bookings or ON_THE_LIST)).candidates
            ),
        ),
    )


def opened(case: CaseFile, by: str = "erin", shown: tuple[str, ...] = SHUFFLED) -> CaseFile:
    opening = Opening(shown=tuple(uuid_named(name) for name in shown), expires_at=SHEET_ENDS)
    case.reviews[by] = Review(
        user_id=by, ori=ORI, opened_at=NOW, openings={review_id_of(by): opening}, orders={opening.shown}
    )
    return case


def said(case: CaseFile, by: str = "erin", conclusion: C = C.SUPPORT, *, of: tuple[str, ...] = ON_THE_LIST) -> CaseFile:
    case = opened(case, by)
    case.reviews[by].dispositions = {uuid_named(name): candidate_reviewed(by, name, conclusion) for name in of}
    return case


def concluded(case: CaseFile, by: str = "erin", conclusion: C = C.SUPPORT) -> CaseFile:
    case = said(case, by, conclusion)
    case.reviews[by].is_concluded = True
    case.concluded.append(by)
    return case


def completed(case: CaseFile) -> CaseFile:
    case.completed = ReviewCompleted(
        event_id=PROBE,
        occurred_at=NOW,
        actor="system:clerk",
        probe_id=PROBE,
        examiners=(),
        results=(),
        policy_version="2026.1",
    )
    return case


def policy(**changes: Any) -> Policy:
    return replace(POLICY, reviews=replace(POLICY.reviews, **changes))


@dataclass(frozen=True)
class Row:
    what: str
    event: Said
    code: R | None = None
    rule: str = ""
    case: Callable[[], CaseFile | None] = listed
    before: tuple[Any, ...] = ()
    """Access events that came before."""
    policy: Policy = POLICY
    at: datetime = NOW
    said_at: datetime = NOW
    barred: tuple[str, ...] = ()
    registry: Callable[[], Registry] = field(default=with_examiners)

    def judged(self) -> tuple[R | None, str]:
        registry = self.registry()
        for event in self.before:
            registry.say(event)
        barred = {uuid_named(name) for name in self.barred}
        sitting = Sitting(
            directory=registry.directory,
            policy=self.policy,
            at=self.at,
            said_at=self.said_at,
            is_barred=lambda candidate: candidate.capture_id in barred,
        )
        refusal = refusal_of_review(self.event, self.case(), sitting)
        return (refusal.code, refusal.rule) if refusal else ALLOWED


def every_kind(by: str) -> tuple[tuple[str, Said], ...]:
    return (
        ("opens", image_viewed(by, SHUFFLED)),
        ("compares", candidate_reviewed(by, "B-1")),
        ("concludes", review_concluded(by)),
    )


def who() -> list[Row]:
    """Rows of who may say anything: the rules of a search, with the roles of a review."""
    rows = []
    expiry = NOW + timedelta(days=1)
    expiring = training_completed("grace", expires_at=expiry)
    for what, event in every_kind("erin"):
        rows += [
            Row(f"erin {what}", event, case=lambda: said(listed())),
            Row(
                f"erin {what}, restricted",
                event,
                R.ACCESS_RESTRICTED,
                "users.standing",
                before=(access_restricted("erin"),),
            ),
            Row(f"erin {what}, revoked", event, R.ACCESS_REVOKED, "users.standing", before=(access_revoked("erin"),)),
            Row(f"erin {what}, no list", event, R.LIST_UNKNOWN, "reviews.list", case=lambda: None),
            Row(
                f"erin {what}, refused probe",
                event,
                R.LIST_UNKNOWN,
                "reviews.list",
                case=lambda: replace(listed(), outcome=replace(listed().outcome, candidates=())),
            ),
            Row(
                f"erin {what} of another agency's list",
                event,
                R.AGENCY_MISMATCH,
                "reviews.agency",
                case=lambda: listed(ori=OTHER_ORI),
            ),
            Row(
                f"erin {what} of another agency's list, allowed",
                event,
                case=lambda: said(listed(ori=OTHER_ORI)),
                policy=policy(from_agencies=frozenset({ORI})),
            ),
        ]
    for what, event in every_kind("nobody"):
        rows.append(Row(f"nobody {what}", event, R.USER_UNKNOWN, "users.registered"))
    for what, event in every_kind("alice"):
        rows.append(Row(f"who may only search {what}", event, R.ROLE_MISSING, "reviews.roles"))
    for what, event in every_kind("grace"):
        new = (user_registered("grace", roles=("EXAMINER",)),)
        rows += [Row(f"who has no access yet {what}", event, R.ACCESS_NOT_GRANTED, "users.standing", before=new)]
    trained = with_grace
    rows += [
        Row(
            "training in its last microsecond",
            image_viewed("grace", SHUFFLED),
            at=expiry - MICROSECOND,
            before=(expiring,),
            registry=trained,
        ),
        Row(
            "training expired at that microsecond",
            image_viewed("grace", SHUFFLED),
            R.TRAINING_EXPIRED,
            "users.training",
            at=expiry,
            before=(expiring,),
            registry=trained,
        ),
        Row("no training", image_viewed("grace", SHUFFLED), R.TRAINING_MISSING, "users.training", registry=trained),
        Row(
            "the agreement was not accepted",
            image_viewed("erin", SHUFFLED),
            R.AGREEMENT_MISSING,
            "users.agreements",
            policy=replace(POLICY, users=replace(POLICY.users, agreements={"BUREAU_POLICY": "2027.1"})),
        ),
    ]
    return rows


def with_grace() -> Registry:
    """An examiner who has everything but training."""
    registry = with_examiners()
    registry.say(user_registered("grace", roles=("EXAMINER",)))
    registry.say(agreement_accepted("grace", actor="user:administrator", document_sha256=DIGEST))
    registry.say(access_granted("grace"))
    return registry


def viewing() -> list[Row]:
    latest = NOW + timedelta(hours=8) + CLOCK_TOLERANCE
    by_rank, two, again = ON_THE_LIST, ("B-1", "B-2"), image_viewed("erin", AGAIN)
    unshuffled = policy(shuffles=False)
    return [
        Row(
            "for another agency than the own",
            image_viewed("erin", SHUFFLED, ori=OTHER_ORI),
            R.AGENCY_MISMATCH,
            "reviews.own_agency",
        ),
        Row("again", image_viewed("erin", SHUFFLED), case=lambda: opened(listed())),
        Row("after the own review", again, R.REVIEW_CLOSED, "reviews.closed", lambda: concluded(listed())),
        Row("after all reviews", again, R.REVIEW_CLOSED, "reviews.closed", lambda: completed(listed())),
        Row("one left out", image_viewed("erin", ("B-2", "B-1")), R.CANDIDATES_DIFFER, "reviews.candidates"),
        Row("one twice", image_viewed("erin", (*SHUFFLED, "B-1")), R.CANDIDATES_DIFFER, "reviews.candidates"),
        Row("a stranger", image_viewed("erin", (*SHUFFLED, "B-9")), R.CANDIDATES_DIFFER, "reviews.candidates"),
        Row("a sealed one", image_viewed("erin", SHUFFLED), R.CANDIDATES_DIFFER, "reviews.candidates", barred=("B-1",)),
        Row("without the sealed one", image_viewed("erin", ("B-3", "B-2")), barred=("B-1",)),
        Row("scores", image_viewed("erin", SHUFFLED, shows_scores=True), R.SCORES_SHOWN, "reviews.shows_scores"),
        Row("scores, allowed", image_viewed("erin", SHUFFLED, shows_scores=True), policy=policy(shows_scores=True)),
        Row("in the order of the list", image_viewed("erin", by_rank), R.ORDER_NOT_SHUFFLED, "reviews.shuffles"),
        Row("in the order of the list, allowed to the first", image_viewed("erin", by_rank), policy=unshuffled),
        Row(
            "in the order of the list, to the second",
            image_viewed("finn", by_rank),
            R.ORDER_NOT_SHUFFLED,
            "reviews.shuffles",
            lambda: opened(listed()),
            policy=unshuffled,
        ),
        Row(
            "in the first one's order, to the second",
            image_viewed("finn", SHUFFLED),
            R.ORDER_NOT_SHUFFLED,
            "reviews.shuffles",
            lambda: opened(listed()),
        ),
        Row("in another order, to the second", image_viewed("finn", AGAIN), case=lambda: opened(listed())),
        Row(
            "in the first one's order but for one sealed since",
            image_viewed("finn", ("B-4", "B-1", "B-2")),
            R.ORDER_NOT_SHUFFLED,
            "reviews.shuffles",
            lambda: opened(listed(*ON_THE_LIST, "B-4"), shown=("B-4", "B-3", "B-1", "B-2")),
            barred=("B-3",),
        ),
        Row("two, in either order", image_viewed("erin", two), case=lambda: listed(*two)),
        Row(
            "a sheet that ended when it was said",
            image_viewed("erin", SHUFFLED, expires_at=NOW),
            R.SHEET_EXPIRED,
            "reviews.sheet_hours",
        ),
        Row("a sheet that ends a microsecond later", image_viewed("erin", SHUFFLED, expires_at=NOW + MICROSECOND)),
        Row("a sheet that ends as late as it may", image_viewed("erin", SHUFFLED, expires_at=latest)),
        Row(
            "a sheet that ends a microsecond too late",
            image_viewed("erin", SHUFFLED, expires_at=latest + MICROSECOND),
            R.SHEET_EXPIRED,
            "reviews.sheet_hours",
        ),
    ]


def comparing() -> list[Row]:
    def compares(**changes: Any) -> Said:
        return candidate_reviewed("erin", "B-1", **changes)

    def on_sheet() -> CaseFile:
        return opened(listed())

    alike, unlike = compared(), compared(**dict.fromkeys(POLICY.reviews.features, FeatureFinding.DISSIMILAR))
    nothing = compared(**dict.fromkeys(POLICY.reviews.features, FeatureFinding.NOT_COMPARABLE))
    incomplete = (R.FEATURES_INCOMPLETE, "reviews.features", on_sheet)
    unfounded = (R.CONCLUSION_UNFOUNDED, "reviews.conclusion", on_sheet)
    return [
        Row("a candidate on the sheet", compares(), case=on_sheet),
        Row("without having opened", compares(), R.REVIEW_NOT_OPENED, "reviews.opened"),
        Row(
            "by another's review",
            compares(review_id=review_id_of("finn")),
            R.REVIEW_NOT_OPENED,
            "reviews.opened",
            lambda: opened(opened(listed()), "finn", AGAIN),
        ),
        Row("after concluding", compares(), R.REVIEW_CLOSED, "reviews.closed", lambda: concluded(listed())),
        Row("after all reviews", compares(), R.REVIEW_CLOSED, "reviews.closed", lambda: completed(opened(listed()))),
        Row("a stranger", candidate_reviewed("erin", "B-9"), R.CANDIDATE_UNKNOWN, "reviews.shown", on_sheet),
        Row(
            "one that the sheet did not show",
            compares(),
            R.CANDIDATE_UNKNOWN,
            "reviews.shown",
            lambda: opened(listed(), shown=("B-3", "B-2")),
        ),
        Row("one sealed meanwhile", compares(), R.RECORD_SEALED, "reviews.sealed", on_sheet, barred=("B-1",)),
        Row("in the sheet's last microsecond", compares(), case=on_sheet, said_at=SHEET_ENDS - MICROSECOND),
        Row(
            "when the sheet has expired",
            compares(),
            R.SHEET_EXPIRED,
            "reviews.sheet_valid",
            on_sheet,
            said_at=SHEET_ENDS,
        ),
        Row("a feature left out", compares(features=alike[:-1]), *incomplete),
        Row("a feature twice", compares(features=(*alike, alike[0])), *incomplete),
        Row("a feature in place of another", compares(features=(*alike[:-1], alike[0])), *incomplete),
        Row("a feature that is none", compares(features=(*alike[:-1], replace(alike[0], feature="HAT"))), *incomplete),
        Row("features in any order", compares(features=alike[::-1]), case=on_sheet),
        Row("limitations blank", compares(limitations=" \t"), R.LIMITATIONS_MISSING, "reviews.limitations", on_sheet),
        Row("inconclusive, nothing comparable", compares(conclusion=C.INCONCLUSIVE, features=nothing), case=on_sheet),
        Row("support on nothing similar", compares(conclusion=C.SUPPORT, features=unlike), *unfounded),
        Row("strong support on nothing similar", compares(conclusion=C.STRONG_SUPPORT, features=nothing), *unfounded),
        Row("limited support on nothing similar", compares(conclusion=C.LIMITED_SUPPORT, features=unlike), *unfounded),
        Row("exclusion on nothing dissimilar", compares(conclusion=C.EXCLUSION, features=alike), *unfounded),
        Row("exclusion on something dissimilar", compares(conclusion=C.EXCLUSION, features=unlike), case=on_sheet),
        Row("support on something similar", compares(conclusion=C.STRONG_SUPPORT, features=alike), case=on_sheet),
    ]


def concluding() -> list[Row]:
    ends, but_one = review_concluded("erin"), ("B-1", "B-2")
    return [
        Row("without having opened", ends, R.REVIEW_NOT_OPENED, "reviews.opened"),
        Row("a second time", ends, R.REVIEW_CLOSED, "reviews.closed", lambda: concluded(listed())),
        Row("after all reviews", ends, R.REVIEW_CLOSED, "reviews.closed", lambda: completed(said(listed()))),
        Row(
            "one not compared", ends, R.DISPOSITION_MISSING, "reviews.dispositions", lambda: said(listed(), of=but_one)
        ),
        Row("one not compared and sealed", ends, case=lambda: said(listed(), of=but_one), barred=("B-3",)),
        Row("when the sheet has expired", ends, case=lambda: said(listed()), said_at=SHEET_ENDS),
    ]


def reversing() -> list[Row]:
    def reverses(who: str, **changes: Any) -> Said:
        return review_reversed(who, "B-1", **changes)

    def after_erin() -> CaseFile:
        return said(concluded(listed()), "finn")

    refused = (R.NOT_REVERSIBLE, "reviews.reversal")
    promoted = user_registered("otto", roles=("SUPERVISOR",), ori=OTHER_ORI)
    return [
        Row("the examiner who drew it", reverses("erin"), case=after_erin),
        Row("a supervisor of the agency", reverses("sue"), case=after_erin),
        Row("an examiner who has not concluded", reverses("finn"), *refused, after_erin),
        Row("who asked for the list", reverses("alice"), *refused, after_erin),
        Row("nobody", reverses("nobody"), *refused, after_erin),
        Row("a supervisor of another agency", reverses("otto"), *refused, after_erin, before=(promoted,)),
        Row("a supervisor without access", reverses("sue"), *refused, after_erin, before=(access_restricted("sue"),)),
        Row("its examiner without access", reverses("erin"), *refused, after_erin, before=(access_revoked("erin"),)),
        Row("a supervisor, nothing concluded", reverses("sue"), *refused, lambda: said(listed())),
        Row("no list", reverses("sue"), *refused, lambda: None),
        Row("a candidate that nobody compared", review_reversed("erin", "B-9"), *refused, after_erin),
        Row("no reason", reverses("sue", reason=" "), R.REASON_TEXT_MISSING, "reviews.reversal_reason", after_erin),
    ]


ROWS = [*who(), *viewing(), *comparing(), *concluding(), *reversing()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{type(row.event).__name__}: {row.what}")
def test_an_examiner_may_say_what_the_table_says(row: Row) -> None:
    # Who may compare is judged by the rules of who may search, and each of those gives its own name.
    assert row.judged() == (row.code, row.rule)


def test_refusals_have_the_codes_that_their_rules_state() -> None:
    for row in ROWS:
        if row.code is not None:
            stated = {code for rule in RULES[type(row.event)] for code in rule.codes}
            assert row.code in stated, row.what


@pytest.mark.parametrize(
    ("kind", "number"),
    [(kind, number) for kind, rules in RULES.items() for number in range(len(rules))],
    ids=lambda part: part.__name__ if isinstance(part, type) else str(part),
)
def test_without_any_one_rule_some_row_comes_out_differently(
    kind: type[Said], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tuple(rule for place, rule in enumerate(RULES[kind]) if place != number)
    monkeypatch.setattr(reviews, "RULES", MappingProxyType({**RULES, kind: left}))
    assert any(row.judged() != (row.code, row.rule) for row in ROWS if isinstance(row.event, kind))


def test_the_page_explains_every_rule_with_its_codes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
    lines = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `reviews.")}
    rules = {rule.name: rule for kind in RULES.values() for rule in kind if rule.name.startswith("reviews.")}
    assert lines.keys() == {"reviews.roles", *rules}
    for name, rule in rules.items():
        assert all(f"`{code}`" in lines[name] for code in rule.codes), name


@pytest.mark.parametrize(("first", "second"), list(product(C, C)))
def test_a_lead_needs_the_support_of_every_examiner(first: C, second: C) -> None:
    """G8: disagreement is said and not resolved."""
    case = concluded(concluded(listed("B-1"), "erin", first), "finn", second)
    (result,) = results_of(case, ["erin", "finn"], POLICY.reviews, {uuid_named("B-1"): False})
    support = {C.STRONG_SUPPORT, C.SUPPORT}
    expected = {
        2: ReviewResult.SUPPORTED,
        1: ReviewResult.DISAGREEMENT,
        0: ReviewResult.NOT_SUPPORTED,
    }[(first in support) + (second in support)]
    assert (result.result, result.conclusions) == (expected, (str(first), str(second)))


def test_what_was_sealed_reversed_or_not_compared_by_all_has_no_result() -> None:
    case = concluded(concluded(listed(*ON_THE_LIST, "B-4"), "erin"), "finn")
    del case.reviews["finn"].dispositions[uuid_named("B-2")]
    case.reversed[uuid_named("B-3")] = PROBE
    case.reviews["erin"].dispositions[uuid_named("B-4")] = candidate_reviewed("erin", "B-4")
    case.reviews["finn"].dispositions[uuid_named("B-4")] = candidate_reviewed("finn", "B-4")
    barred = {each.capture_id: each.booking_number == "B-1" for each in case.candidates}
    results = results_of(case, ["erin", "finn"], POLICY.reviews, barred)
    assert [(each.rank, each.result) for each in results] == [
        (1, ReviewResult.WITHDRAWN),
        (2, ReviewResult.WITHDRAWN),
        (3, ReviewResult.WITHDRAWN),
        (4, ReviewResult.SUPPORTED),
    ]
