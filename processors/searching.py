"""From a probe request to its one outcome: a candidate list or a refusal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from processors.candidates import LEAD_NOTICE
from schemas.events import CandidateListIssued, ProbeRefused
from schemas.positions import SourcePosition, derived_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from processors.candidates import SearchResult
    from processors.refusals import Refusal
    from schemas.events import ProbeSubmitted

ACTOR = "system:worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidedUnder:
    """What a decision rests on; part of every outcome."""

    policy_version: str
    gallery_watermark: Sequence[int]
    """Next gallery offset to apply, by partition."""
    access_watermark: Sequence[int]
    """Next access offset to apply, by partition."""
    quality_override: UUID | None = None
    """event_id of the supervisor's override without which the quality of the image would have been refused."""


def issue(
    request: ProbeSubmitted,
    position: SourcePosition,
    result: SearchResult,
    measurements: Mapping[str, float],
    under: DecidedUnder,
    *,
    model_digest: str,
    threshold: float,
    expected_of: Callable[[float, int], float | None],
    at: datetime,
) -> CandidateListIssued:
    """Return the candidate list of a search that was allowed and made.

    `expected_of` tells for a score and a gallery size how many templates of other persons are expected to reach it.
    """
    candidates = tuple(
        replace(each, expected_non_mates=expected_of(each.score, result.templates)) for each in result.candidates
    )
    return CandidateListIssued(
        **_echo(request, position, at),
        requested=request.requested_candidates,
        returned=len(candidates),
        candidates=candidates,
        threshold=threshold,
        model_digest=model_digest,
        policy_version=under.policy_version,
        gallery_watermark=tuple(under.gallery_watermark),
        access_watermark=tuple(under.access_watermark),
        gallery_templates=result.templates,
        gallery_persons=result.persons,
        measurements=measurements,
        lead_notice=LEAD_NOTICE,
        consolidation=result.consolidation,
        quality_override=under.quality_override,
    )


def refuse(
    request: ProbeSubmitted,
    position: SourcePosition,
    refusal: Refusal,
    under: DecidedUnder,
    at: datetime,
) -> ProbeRefused:
    """Return the outcome of a search that was not made."""
    return ProbeRefused(
        **_echo(request, position, at),
        code=refusal.code,
        message=refusal.message,
        policy_version=under.policy_version,
        gallery_watermark=tuple(under.gallery_watermark),
        access_watermark=tuple(under.access_watermark),
        measurements=refusal.measurements,
        rule=refusal.rule,
    )


def _echo(request: ProbeSubmitted, position: SourcePosition, at: datetime) -> dict[str, Any]:
    return {
        "event_id": derived_id(request.probe_id, "outcome"),
        "occurred_at": at,
        "actor": ACTOR,
        "probe_id": request.probe_id,
        "user_id": request.user_id,
        "ori": request.ori,
        "reason_code": request.reason_code,
        "case_number": request.case_number,
        "request": position,
    }
