"""What another policy says otherwise, and what it would have decided on past searches."""

from __future__ import annotations

import copy
import tomllib
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from builders import MICROSECOND, NOW, POLICY, access_revoked, founded, probe_submitted, uuid_named

from processors.access import Directory
from processors.policy import parse_policy
from processors.policy_changes import Effect, changes_between, document_of, entries_of
from processors.policy_replay import IMAGE_NOT_JUDGED, ISSUED, Decision, decide_anew
from processors.quality_rules import QualityRules, Use
from processors.refusals import Refusal, RefusalCode
from processors.search_rules import refusal_of_search
from processors.searching import DecidedUnder, refuse
from schemas.events import CandidateListIssued, Consolidation, ProbeRefused
from schemas.positions import SourcePosition
from schemas.topics import PROBE_REQUESTS

DEFAULT: dict[str, Any] = tomllib.loads(
    (Path(__file__).parents[2] / "infra" / "policy" / "default.toml").read_text(encoding="utf-8")
)
STRICTER, LOOSER, OTHER = Effect.STRICTER, Effect.LOOSER, Effect.OTHER


def test_a_policy_written_out_is_the_policy_that_was_read() -> None:
    policy = parse_policy(DEFAULT)
    document = document_of(policy)
    for source in document["probes"]["prohibited_sources"].values():
        for name in ("since", "until"):
            source[name] = date.fromisoformat(source[name]) if source[name] else None
    assert parse_policy(document) == policy
    assert changes_between(policy, policy) == []
    assert ("users.courses.FACE-101.maximum_days", 730) in list(entries_of(document))


@pytest.mark.parametrize(
    ("entry", "value", "effects"),
    [
        ("version", "2027.1", [OTHER]),
        ("users.roles", ["EXAMINER"], [STRICTER]),
        ("users.roles", ["EXAMINER", "SUBMITTER", "AUDITOR"], [LOOSER]),
        ("users.courses.FACE-102", {"versions": ["1"], "maximum_days": 9}, [STRICTER]),
        ("users.courses.FACE-101.versions", ["2", "3"], [STRICTER, LOOSER]),
        ("users.courses.FACE-101.maximum_days", 365, [STRICTER]),
        ("users.agreements.OATH", "1", [STRICTER]),
        ("users.agreements.PENALTIES_NOTICE", None, [LOOSER]),
        ("users.agreements.PENALTIES_NOTICE", "2", [OTHER]),
        ("agencies.CA0190000", {"case_number": ".*"}, [OTHER]),
        ("agencies.DEFAULT.case_number", ".*", [OTHER]),
        ("probes.reasons.THREAT_TO_LIFE", None, [STRICTER]),
        ("probes.reasons.THREAT_TO_LIFE.minimum_text_characters", 5, [LOOSER]),
        ("probes.prohibited_sources.SKETCH", None, [LOOSER]),
        ("probes.prohibited_sources.SKETCH.message", "No sketches.", [OTHER]),
        ("probes.prohibited_sources.SKETCH.since", date(2026, 1, 1), [LOOSER]),
        ("probes.prohibited_sources.SKETCH.until", date(2026, 1, 1), [LOOSER]),
        ("probes.prohibited_sources.BODY_WORN_CAMERA.since", None, [STRICTER]),
        ("probes.prohibited_sources.BODY_WORN_CAMERA.since", date(2019, 12, 31), [STRICTER]),
        ("probes.prohibited_edit_operations.EYES_OPENED", None, [LOOSER]),
        ("probes.minimum_candidates", 3, [STRICTER]),
        ("probes.maximum_candidates", 60, [LOOSER]),
        ("probes.default_candidates", 30, [OTHER]),
        ("audit.maximum_lag_s", 30, [STRICTER]),
        ("reviews.shows_scores", True, [LOOSER]),
        ("reviews.shuffles", False, [LOOSER]),
        ("reviews.examiners", 3, [STRICTER]),
        ("retention.probe_image_days", 30, [STRICTER]),
        ("quality.probe.minimum.unified_quality", None, [LOOSER]),
        ("quality.probe.minimum.unified_quality", 6, [STRICTER]),
        ("quality.probe.maximum.yaw_deg", 45, [STRICTER]),
        ("quality.enrolment.maximum.yaw_deg", 45, [LOOSER]),
    ],
)
def test_a_change_is_said_to_be_stricter_looser_or_for_a_person_to_judge(
    entry: str, value: Any, effects: list[Effect]
) -> None:
    document = copy.deepcopy(DEFAULT)
    *path, key = entry.split(".")
    table = document
    for step in path:
        table = table[step]
    if value is None:
        del table[key]
    else:
        table[key] = value
    changes = changes_between(parse_policy(DEFAULT), parse_policy(document))
    assert [(change.path, change.effect) for change in changes] == [(entry, effect) for effect in effects]


# What would have been decided.

AT = SourcePosition(topic=PROBE_REQUESTS, partition=0, offset=1)
UNDER = DecidedUnder(policy_version="2026.1", gallery_watermark=[0], access_watermark=[7])
MEASURED = {"unified_quality": 40.0}
STRICT = replace(POLICY, version="2027.1", probes=replace(POLICY.probes, maximum_candidates=4))
DEMANDING = replace(POLICY, probe_quality=QualityRules(use=Use.PROBE, minimum={"unified_quality": 50.0}, maximum={}))
NOT_MEASURED_THEN = replace(POLICY, probe_quality=QualityRules(use=Use.PROBE, minimum={"sharpness": 1.0}, maximum={}))


def issued(**changes: Any) -> CandidateListIssued:
    request = probe_submitted()
    facts = {
        **{name: getattr(request, name) for name in ("probe_id", "user_id", "ori", "reason_code", "case_number")},
        "event_id": uuid_named("outcome"),
        "occurred_at": NOW,
        "actor": "system:worker",
        "request": AT,
        "candidates": (),
        "requested": 5,
        "returned": 0,
        "model_digest": "0" * 64,
        "threshold": 0.3,
        "policy_version": "2026.1",
        "gallery_watermark": (0,),
        "access_watermark": (7,),
        "gallery_templates": 0,
        "gallery_persons": 0,
        "measurements": MEASURED,
        "lead_notice": "-",
        "consolidation": Consolidation.BEST_CAPTURE,
    }
    return CandidateListIssued(**{**facts, **changes})


def refused_with(code: RefusalCode, rule: str = "", measurements: dict[str, float] | None = None) -> ProbeRefused:
    refusal = Refusal(code=code, message="-", rule=rule, measurements=measurements or {})
    return refuse(probe_submitted(), AT, refusal, UNDER, NOW)


@pytest.mark.parametrize(
    ("outcome", "policy", "decision"),
    [
        (issued(), POLICY, Decision(code=ISSUED)),
        (issued(), STRICT, Decision(code=RefusalCode.CANDIDATE_COUNT_OUT_OF_RANGE, rule="probes.candidates")),
        (
            issued(),
            DEMANDING,
            Decision(code=RefusalCode.QUALITY_TOO_LOW, rule="quality.probe.minimum.unified_quality"),
        ),
        (issued(quality_override=uuid_named("override")), DEMANDING, Decision(code=ISSUED)),
        (issued(), NOT_MEASURED_THEN, Decision(code=ISSUED)),
        (
            refused_with(RefusalCode.REASON_TEXT_SAYS_NOTHING, "probes.empty_reason_words"),
            POLICY,
            Decision(code=IMAGE_NOT_JUDGED),
        ),
        (
            refused_with(
                RefusalCode.QUALITY_TOO_LOW, "quality.probe.minimum.unified_quality", {"unified_quality": 7.0}
            ),
            POLICY,
            Decision(code=ISSUED),
        ),
        (refused_with(RefusalCode.NO_FACE), POLICY, Decision(code=RefusalCode.NO_FACE)),
        (
            refused_with(RefusalCode.NO_FACE),
            STRICT,
            Decision(code=RefusalCode.CANDIDATE_COUNT_OUT_OF_RANGE, rule="probes.candidates"),
        ),
        (refused_with(RefusalCode.AUDIT_BEHIND, "audit.lag"), POLICY, Decision(code="AUDIT_BEHIND", rule="audit.lag")),
        (refused_with(RefusalCode.UNAUTHENTICATED), STRICT, Decision(code=RefusalCode.UNAUTHENTICATED)),
    ],
)
def test_a_past_search_is_judged_by_what_is_known_of_it(
    outcome: CandidateListIssued | ProbeRefused, policy: Any, decision: Decision
) -> None:
    assert decide_anew(probe_submitted(), outcome, founded().directory, policy) == decision


def test_a_past_search_is_judged_by_who_could_search_then() -> None:
    registry = founded()
    then = registry.directory
    assert decide_anew(probe_submitted(), issued(), then, POLICY).code == ISSUED
    registry.say(access_revoked("alice", occurred_at=NOW + MICROSECOND))
    assert isinstance(registry.directory, Directory)
    assert decide_anew(probe_submitted(), issued(), registry.directory, POLICY).code == RefusalCode.ACCESS_REVOKED
    assert refusal_of_search(probe_submitted(), registry.directory, POLICY, NOW) is not None
