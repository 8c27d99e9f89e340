"""The rules of a search, pure: who may search, for what, with which image (G3, G4).

What it asks of the quality of a photo is in `processors/quality_rules.py`; the policy itself in `processors/policy.py`.

Gender, age, race and citizenship are not factors: no request carries them and no rule can name them; an unknown key in
a policy file is refused, so that a rule nobody evaluates cannot look as if it held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from processors.access import Standing
from processors.refusals import Refusal, RefusalCode

if TYPE_CHECKING:
    from datetime import datetime

    from processors.access import Directory, User
    from processors.policy import Policy
    from schemas.events import ProbeSubmitted


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
    if user.roles & policy.users.roles:
        return None
    needed = ", ".join(sorted(policy.users.roles))
    return Refusal(code=RefusalCode.ROLE_MISSING, message=f"{user.user_id} has none of the roles {needed}.")


def _refusal_of_training(user: User, policy: Policy, at: datetime) -> Refusal | None:
    for course in sorted(policy.users.courses):
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
    for agreement, version in sorted(policy.users.agreements.items()):
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
    elif request.reason_code not in policy.probes.reasons:
        found = RefusalCode.REASON_CODE_UNKNOWN, f"Use one of the reasons {', '.join(sorted(policy.probes.reasons))}."
    elif len(request.reason_text.strip()) < policy.probes.reasons[request.reason_code].minimum_text_characters:
        found = RefusalCode.REASON_TEXT_MISSING, "State in words why the search is made."
    elif not request.case_number.strip():
        found = RefusalCode.CASE_NUMBER_MISSING, "State the case number the search belongs to."
    elif not request.legal_basis.strip():
        found = RefusalCode.LEGAL_BASIS_MISSING, "State the legal basis of the search."
    elif request.legal_basis not in policy.probes.reasons[request.reason_code].legal_bases:
        found = (
            RefusalCode.LEGAL_BASIS_UNKNOWN,
            f"Use one of the bases {', '.join(sorted(policy.probes.reasons[request.reason_code].legal_bases))}.",
        )
    return Refusal(code=found[0], message=found[1]) if found else None


def _refusal_of_source(source_type: str, policy: Policy) -> Refusal | None:
    if source_type in policy.probes.prohibited_sources:
        return Refusal(
            code=RefusalCode.SOURCE_PROHIBITED, message=policy.probes.prohibited_sources[source_type].message
        )
    if source_type not in policy.probes.sources:
        return Refusal(
            code=RefusalCode.SOURCE_UNKNOWN,
            message=f"Say where the image comes from: one of {', '.join(sorted(policy.probes.sources))}.",
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
    if policy.probes.minimum_candidates <= requested <= policy.probes.maximum_candidates:
        return None
    return Refusal(
        code=RefusalCode.CANDIDATE_COUNT_OUT_OF_RANGE,
        message=f"Ask for {policy.probes.minimum_candidates} to {policy.probes.maximum_candidates} candidates.",
    )


def refusal_of_late_audit(policy: Policy) -> Refusal:
    """Return why no search is made while the audit trail is further behind than the policy allows."""
    return Refusal(
        code=RefusalCode.AUDIT_BEHIND,
        rule="audit.lag",
        message=f"The audit trail is more than {policy.audit.maximum_lag_s} s behind, and what is not audited is not "
        "searched. Tell the operator, and send the request again when the trail has caught up.",
    )


def refusal_of_late_orders(policy: Policy) -> Refusal:
    """Return why no search is made while a court order waits for longer than the policy allows (G5)."""
    return Refusal(
        code=RefusalCode.ORDER_BEHIND,
        rule="orders.lag",
        message=f"A court order may have waited to be obeyed for more than {policy.orders.maximum_lag_s} s, and no "
        "list may show whom it protects. Tell the operator, and send the request again when it is obeyed.",
    )
