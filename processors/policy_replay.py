"""What another policy would have said of a search that was made or refused. Pure.

Judged is what the trail keeps of it: the request, who asked as the directory stood then, and the measurements of the
image. Where the image was never looked at, nobody can say what its quality would have been.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from processors.quality_rules import refusal_by_policy
from processors.refusals import RefusalCode
from processors.search_rules import REQUEST_RULES, USER_RULES, refusal_of_search
from schemas.events import CandidateListIssued

if TYPE_CHECKING:
    from processors.access import Directory
    from processors.policy import Policy
    from schemas.events import ProbeRefused, ProbeSubmitted

ISSUED = "ISSUED"
"""A candidate list."""
IMAGE_NOT_JUDGED = "IMAGE_NOT_JUDGED"
"""No rule refuses the search; what would have come of the image, nobody knows."""
_OF_A_RULE = frozenset(code for rule in (*USER_RULES, *REQUEST_RULES) for code in rule.codes)
_BEFORE_EVERY_RULE = frozenset({RefusalCode.UNAUTHENTICATED, RefusalCode.NOT_ALLOWED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What came of a search, or would have."""

    code: str
    """ISSUED, IMAGE_NOT_JUDGED or a refusal code."""
    rule: str = ""


def decided(outcome: CandidateListIssued | ProbeRefused) -> Decision:
    """Return what came of a search."""
    if isinstance(outcome, CandidateListIssued):
        return Decision(code=ISSUED)
    return Decision(code=outcome.code, rule=outcome.rule)


def decide_anew(
    request: ProbeSubmitted, outcome: CandidateListIssued | ProbeRefused, directory: Directory, policy: Policy
) -> Decision:
    """Return what a policy would have said of a search at the time of its outcome.

    Args:
        request: what was asked.
        outcome: what came of it.
        directory: as it stood then.
        policy: the other policy.
    """
    was = decided(outcome)
    if was.code in _BEFORE_EVERY_RULE:
        return was
    if refusal := refusal_of_search(request, directory, policy, outcome.occurred_at):
        return Decision(code=refusal.code, rule=refusal.rule)
    if isinstance(outcome, CandidateListIssued) and outcome.quality_override is not None:
        return was
    asked = policy.probe_quality.minimum.keys() | policy.probe_quality.maximum.keys()
    if outcome.measurements and asked <= outcome.measurements.keys():
        poor = refusal_by_policy(outcome.measurements, policy.probe_quality, policy.version)
        if poor:
            return Decision(code=poor.code, rule=poor.rule)
        if was.rule.startswith("quality."):
            return Decision(code=ISSUED)
    return Decision(code=IMAGE_NOT_JUDGED) if was.code in _OF_A_RULE else was
