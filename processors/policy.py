"""The policy as frozen values and pure rules: who may search, for what, with which image (G3, G4).

What it asks of the quality of a photo is in `processors/quality_rules.py`.

Gender, age, race and citizenship are not factors: no request carries them and no rule can name them; an unknown key in
a policy file is refused, so that a rule nobody evaluates cannot look as if it held.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from processors.access import Standing
from processors.quality_rules import QualityRules, Use, parse_quality_rules
from processors.refusals import Refusal, RefusalCode
from schemas.errors import ContractError
from schemas.events import Consolidation

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from processors.access import Directory, User
    from schemas.events import ProbeSubmitted


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One version of the bureau's policy."""

    version: str
    roles: frozenset[str]
    """Roles that may submit a probe."""
    courses: frozenset[str]
    agreements: Mapping[str, str]
    """Agreement -> version that must have been accepted."""
    reasons: frozenset[str]
    legal_bases: frozenset[str]
    sources: frozenset[str]
    prohibited_sources: Mapping[str, str]
    """Source type -> why it is prohibited."""
    enrolment_sources: frozenset[str]
    minimum_reason_text_characters: int
    minimum_candidates: int
    maximum_candidates: int
    consolidation: Consolidation
    maximum_audit_lag_s: int
    """How far the audit trail may be behind before searches stop."""
    enrolment_quality: QualityRules
    probe_quality: QualityRules


def parse_policy(document: Mapping[str, Any]) -> Policy:
    """Return the policy of a parsed TOML document.

    Raises:
        ContractError: a key is missing, unknown or of the wrong kind.
    """
    expected = {
        "": {"version", "users", "probes", "enrolment", "audit", "quality"},
        "users": {"roles", "courses", "agreements"},
        "probes": {
            "reasons",
            "legal_bases",
            "sources",
            "prohibited_sources",
            "minimum_reason_text_characters",
            "minimum_candidates",
            "maximum_candidates",
            "consolidation",
        },
        "enrolment": {"sources"},
        "audit": {"maximum_lag_s"},
        "quality": {str(use) for use in Use},
    }
    for table, keys in expected.items():
        found = document.get(table) if table else document
        if not isinstance(found, dict) or set(found) != keys:
            raise ContractError(f"Policy: table [{table}] must hold exactly {', '.join(sorted(keys))}.")
    users, probes = document["users"], document["probes"]
    policy = Policy(
        version=_word(document["version"]),
        roles=_words(users["roles"]),
        courses=_words(users["courses"]),
        agreements=_glossary(users["agreements"]),
        reasons=_words(probes["reasons"]),
        legal_bases=_words(probes["legal_bases"]),
        sources=_words(probes["sources"]),
        prohibited_sources=_glossary(probes["prohibited_sources"]),
        enrolment_sources=_words(document["enrolment"]["sources"]),
        minimum_reason_text_characters=_count(probes["minimum_reason_text_characters"]),
        minimum_candidates=_count(probes["minimum_candidates"]),
        maximum_candidates=_count(probes["maximum_candidates"]),
        consolidation=_consolidation(probes["consolidation"]),
        maximum_audit_lag_s=_count(document["audit"]["maximum_lag_s"]),
        enrolment_quality=parse_quality_rules(document["quality"][Use.ENROLMENT], Use.ENROLMENT),
        probe_quality=parse_quality_rules(document["quality"][Use.PROBE], Use.PROBE),
    )
    if policy.sources & set(policy.prohibited_sources):
        raise ContractError("Policy: a source type is both allowed and prohibited.")
    if policy.enrolment_sources & {*policy.sources, *policy.prohibited_sources}:
        raise ContractError("Policy: a source of probes may not be enrolled; probes never become part of the gallery.")
    if policy.minimum_candidates > policy.maximum_candidates:
        raise ContractError("Policy: minimum_candidates is above maximum_candidates.")
    return policy


def _word(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ContractError("Policy: a text is missing, empty or of another kind.")
    return value


def _words(value: Any) -> frozenset[str]:
    # A bare text would count as its letters, and an empty list as no rule at all (G3, G4).
    if not isinstance(value, list) or not value:
        raise ContractError("Policy: a list must hold at least one text; write it in square brackets.")
    return frozenset(map(_word, value))


def _glossary(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict) or not value:
        raise ContractError("Policy: a table must hold at least one entry.")
    return MappingProxyType({_word(name): _word(text) for name, text in value.items()})


def _consolidation(value: Any) -> Consolidation:
    if value not in list(Consolidation):
        raise ContractError(f"Policy: consolidation is one of {', '.join(Consolidation)}.")
    return Consolidation(value)


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ContractError("Policy: a number must be whole and at least 1.")
    return value


def refusal_of_search(request: ProbeSubmitted, directory: Directory, policy: Policy, at: datetime) -> Refusal | None:
    """Return why this search may not be made at this instant, or None when it may.

    Who asks comes before what is asked: a person without access learns nothing about the rules for requests.
    """
    return refusal_of_user(request, directory, policy, at) or refusal_of_request(request, policy)


def refusal_of_user(request: ProbeSubmitted, directory: Directory, policy: Policy, at: datetime) -> Refusal | None:
    """Return why this user may not search at this instant (G3), or None. Administrators get no exception."""
    user = directory.users.get(request.user_id)
    if user is None:
        return Refusal(code=RefusalCode.USER_UNKNOWN, message=f"User {request.user_id} is not registered.")
    checks = (
        _refusal_of_standing(user),
        _refusal_of_agency(user, request.ori, directory),
        _refusal_of_role(user, policy),
        _refusal_of_training(user, policy, at),
        _refusal_of_agreements(user, policy),
    )
    return next((refusal for refusal in checks if refusal), None)


def refusal_of_request(request: ProbeSubmitted, policy: Policy) -> Refusal | None:
    """Return what is missing or prohibited in a request (G4), or None."""
    checks = (
        _refusal_of_purpose(request, policy),
        _refusal_of_source(request.source_type, policy),
        _refusal_of_edits(request),
        _refusal_of_length(request.requested_candidates, policy),
    )
    return next((refusal for refusal in checks if refusal), None)


def refusal_of_late_audit(policy: Policy) -> Refusal:
    """Return why no search is made while the audit trail is further behind than the policy allows."""
    return Refusal(
        code=RefusalCode.AUDIT_BEHIND,
        message=f"The audit trail is more than {policy.maximum_audit_lag_s} s behind, and what is not audited is not "
        "searched. Tell the operator, and send the request again when the trail has caught up.",
    )


def _refusal_of_standing(user: User) -> Refusal | None:
    codes = {
        Standing.NOT_GRANTED: RefusalCode.ACCESS_NOT_GRANTED,
        Standing.RESTRICTED: RefusalCode.ACCESS_RESTRICTED,
        Standing.REVOKED: RefusalCode.ACCESS_REVOKED,
    }
    if user.standing is Standing.GRANTED:
        return None
    words = user.standing.value.lower().replace("_", " ")
    return Refusal(code=codes[user.standing], message=f"The access of {user.user_id} is {words}; ask an administrator.")


def _refusal_of_agency(user: User, ori: str, directory: Directory) -> Refusal | None:
    if user.ori != ori:
        return Refusal(
            code=RefusalCode.AGENCY_MISMATCH,
            message=f"{user.user_id} does not belong to agency {ori}; search on behalf of the own agency.",
        )
    if ori not in directory.agencies:
        return Refusal(code=RefusalCode.AGENCY_UNKNOWN, message=f"Agency {ori} is not registered.")
    return None


def _refusal_of_role(user: User, policy: Policy) -> Refusal | None:
    if user.roles & policy.roles:
        return None
    needed = ", ".join(sorted(policy.roles))
    return Refusal(code=RefusalCode.ROLE_MISSING, message=f"{user.user_id} has none of the roles {needed}.")


def _refusal_of_training(user: User, policy: Policy, at: datetime) -> Refusal | None:
    for course in sorted(policy.courses):
        completed = [training for training in user.trainings if training.course == course]
        if not completed:
            return Refusal(
                code=RefusalCode.TRAINING_MISSING,
                message=f"{user.user_id} has not completed the course {course}.",
            )
        if not any(training.completed_at <= at < training.expires_at for training in completed):
            return Refusal(
                code=RefusalCode.TRAINING_EXPIRED,
                message=f"The training of {user.user_id} in {course} is not valid now; take the course again.",
            )
    return None


def _refusal_of_agreements(user: User, policy: Policy) -> Refusal | None:
    for agreement, version in sorted(policy.agreements.items()):
        if (agreement, version) not in user.agreements:
            return Refusal(
                code=RefusalCode.AGREEMENT_MISSING,
                message=f"{user.user_id} has not accepted {agreement} version {version}.",
            )
    return None


def _refusal_of_purpose(request: ProbeSubmitted, policy: Policy) -> Refusal | None:
    found: tuple[RefusalCode, str] | None = None
    if not request.reason_code.strip():
        found = RefusalCode.REASON_CODE_MISSING, "State the reason code of the search."
    elif request.reason_code not in policy.reasons:
        found = RefusalCode.REASON_CODE_UNKNOWN, f"Use one of the reasons {', '.join(sorted(policy.reasons))}."
    elif len(request.reason_text.strip()) < policy.minimum_reason_text_characters:
        found = RefusalCode.REASON_TEXT_MISSING, "State in words why the search is made."
    elif not request.case_number.strip():
        found = RefusalCode.CASE_NUMBER_MISSING, "State the case number the search belongs to."
    elif not request.legal_basis.strip():
        found = RefusalCode.LEGAL_BASIS_MISSING, "State the legal basis of the search."
    elif request.legal_basis not in policy.legal_bases:
        found = RefusalCode.LEGAL_BASIS_UNKNOWN, f"Use one of the bases {', '.join(sorted(policy.legal_bases))}."
    return Refusal(code=found[0], message=found[1]) if found else None


def _refusal_of_source(source_type: str, policy: Policy) -> Refusal | None:
    if source_type in policy.prohibited_sources:
        return Refusal(code=RefusalCode.SOURCE_PROHIBITED, message=policy.prohibited_sources[source_type])
    if source_type not in policy.sources:
        return Refusal(
            code=RefusalCode.SOURCE_UNKNOWN,
            message=f"Say where the image comes from: one of {', '.join(sorted(policy.sources))}.",
        )
    return None


def _refusal_of_edits(request: ProbeSubmitted) -> Refusal | None:
    digest = request.original_sha256
    for edit in request.edits:
        if edit.before_sha256 != digest:
            break
        digest = edit.after_sha256
    else:
        if digest == request.image_sha256:
            return None
    return Refusal(
        code=RefusalCode.EDIT_CHAIN_BROKEN,
        message="The chain of edits does not lead from the original image to the image that is to be searched.",
    )


def _refusal_of_length(requested: int, policy: Policy) -> Refusal | None:
    if policy.minimum_candidates <= requested <= policy.maximum_candidates:
        return None
    return Refusal(
        code=RefusalCode.CANDIDATE_COUNT_OUT_OF_RANGE,
        message=f"Ask for {policy.minimum_candidates} to {policy.maximum_candidates} candidates.",
    )
