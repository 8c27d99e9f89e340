"""The rules of a search, pure and in order: who may search, for what, with which image (G3, G4).

Each rule has a name, by which docs/policy.md explains it and every refusal says which one it was. Who asks is judged
before what is asked: a person without access learns nothing about the rules for requests. What is asked of the quality
of a photo is in `processors/quality_rules.py`; the policy itself in `processors/policy.py`.

Gender, age, race and citizenship are not factors: no request carries them and no rule can name them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from itertools import chain, pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from processors.access import Standing, User
from processors.enrolment import CLOCK_TOLERANCE
from processors.policy import says
from processors.refusals import Refusal, RefusalCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from processors.access import Directory
    from processors.policy import Policy, ReasonRule
    from schemas.events import ProbeSubmitted

MAX_CASE_NUMBER_CHARACTERS = 64
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of a search."""

    name: str
    codes: tuple[RefusalCode, ...]
    """Every code that its refusals may have."""
    judge: Callable[[Any, Directory, Policy, datetime], Refusal | None]
    """Of a request; where only who asks is judged, of anything that says so (`Asking`)."""


class Asking(Protocol):
    """Who asks for something, and for which agency."""

    @property
    def user_id(self) -> str:
        """The user."""
        ...

    @property
    def ori(self) -> str:
        """The agency."""
        ...


def refusal_of_search(request: ProbeSubmitted, directory: Directory, policy: Policy, at: datetime) -> Refusal | None:
    """Return why this search may not be made at this instant, or None when it may."""
    return _first(judgements(request, directory, policy, at))


def refusal_of_user(asking: Asking, directory: Directory, policy: Policy, at: datetime) -> Refusal | None:
    """Return why this user may not search at this instant (G3), or None. Administrators get no exception."""
    return _first(_judge(USER_RULES, asking, directory, policy, at))


def refusal_of_request(request: ProbeSubmitted, directory: Directory, policy: Policy, at: datetime) -> Refusal | None:
    """Return what is missing or prohibited in a request (G4), or None."""
    return _first(_judge(REQUEST_RULES, request, directory, policy, at))


def judgements(
    request: ProbeSubmitted, directory: Directory, policy: Policy, at: datetime
) -> Iterator[tuple[Rule, Refusal | None]]:
    """Yield what each rule says for itself, in order; the first refusal is that of the search."""
    return _judge((*USER_RULES, *REQUEST_RULES), request, directory, policy, at)


def refusal_of_late_audit(policy: Policy) -> Refusal:
    """Return why no search is made while the audit trail is further behind than the policy allows."""
    return Refusal(
        code=RefusalCode.AUDIT_BEHIND,
        rule=AUDIT_LAG,
        message=f"The audit trail is more than {policy.audit.maximum_lag_s} s behind, and what is not audited is not "
        "searched. Tell the operator, and send the request again when the trail has caught up.",
    )


def refusal_of_late_orders(policy: Policy) -> Refusal:
    """Return why no search is made while a court order waits for longer than the policy allows (G5)."""
    return Refusal(
        code=RefusalCode.ORDER_BEHIND,
        rule=ORDERS_LAG,
        message=f"A court order may have waited for more than {policy.orders.maximum_lag_s} s to be obeyed, and no "
        "list may show whom it protects. Tell the operator, and send the request again when workers have caught up.",
    )


def _judge(
    rules: Sequence[Rule], request: Asking, directory: Directory, policy: Policy, at: datetime
) -> Iterator[tuple[Rule, Refusal | None]]:
    for rule in rules:
        refusal = rule.judge(request, directory, policy, at)
        yield rule, refusal and replace(refusal, rule=rule.name)


def _first(judged: Iterator[tuple[Rule, Refusal | None]]) -> Refusal | None:
    return next((refusal for _, refusal in judged if refusal), None)


def _refuse(code: RefusalCode, message: str) -> Refusal:
    return Refusal(code=code, message=message)


# Who asks (G3).


def _user(asking: Asking, directory: Directory) -> User:
    """Return who asks; whoever is not registered has neither access nor anything else."""
    nobody = User(user_id=asking.user_id, ori="", roles=frozenset(), public_key=None)
    return directory.users.get(asking.user_id, nobody)


def _registered(asking: Asking, directory: Directory, _policy: Policy, _at: datetime) -> Refusal | None:
    if asking.user_id in directory.users:
        return None
    return _refuse(RefusalCode.USER_UNKNOWN, f"User {asking.user_id} is not registered.")


_CODE_OF_STANDING = {
    Standing.NOT_GRANTED: RefusalCode.ACCESS_NOT_GRANTED,
    Standing.RESTRICTED: RefusalCode.ACCESS_RESTRICTED,
    Standing.REVOKED: RefusalCode.ACCESS_REVOKED,
}


def _standing(asking: Asking, directory: Directory, _policy: Policy, _at: datetime) -> Refusal | None:
    user = _user(asking, directory)
    if user.standing is Standing.GRANTED:
        return None
    words = user.standing.value.lower().replace("_", " ")
    return _refuse(_CODE_OF_STANDING[user.standing], f"The access of {user.user_id} is {words}; ask an administrator.")


def _membership(asking: Asking, directory: Directory, _policy: Policy, _at: datetime) -> Refusal | None:
    user = _user(asking, directory)
    if user.ori == asking.ori:
        return None
    return _refuse(
        RefusalCode.AGENCY_MISMATCH,
        f"{user.user_id} does not belong to agency {asking.ori}; search on behalf of the own agency.",
    )


def _agency(asking: Asking, directory: Directory, _policy: Policy, _at: datetime) -> Refusal | None:
    if asking.ori in directory.agencies:
        return None
    return _refuse(RefusalCode.AGENCY_UNKNOWN, f"Agency {asking.ori} is not registered.")


def _roles(asking: Asking, directory: Directory, policy: Policy, _at: datetime) -> Refusal | None:
    user = _user(asking, directory)
    if user.roles & policy.users.roles:
        return None
    needed = ", ".join(sorted(policy.users.roles))
    return _refuse(RefusalCode.ROLE_MISSING, f"{user.user_id} has none of the roles {needed}.")


def _training(asking: Asking, directory: Directory, policy: Policy, at: datetime) -> Refusal | None:
    user = _user(asking, directory)
    for course, asked in sorted(policy.users.courses.items()):
        completed = [training for training in user.trainings if training.course == course]
        counting = [training for training in completed if training.version in asked.versions]
        if not completed:
            return _refuse(RefusalCode.TRAINING_MISSING, f"{user.user_id} has not completed the course {course}.")
        if not counting:
            return _refuse(
                RefusalCode.TRAINING_OUTDATED,
                f"{user.user_id} completed {course} in a version that does not count; take one of the versions "
                f"{', '.join(sorted(asked.versions))}.",
            )
        longest = timedelta(days=asked.maximum_days)
        if not any(
            training.completed_at <= at < training.expires_at and at - training.completed_at < longest
            for training in counting
        ):
            return _refuse(
                RefusalCode.TRAINING_EXPIRED,
                f"The training of {user.user_id} in {course} is not valid now; take the course again.",
            )
    return None


def _agreements(asking: Asking, directory: Directory, policy: Policy, _at: datetime) -> Refusal | None:
    return _not_accepted(_user(asking, directory), policy.users.agreements)


def _agency_agreements(asking: Asking, directory: Directory, policy: Policy, _at: datetime) -> Refusal | None:
    return _not_accepted(_user(asking, directory), policy.agency(asking.ori).agreements)


def _not_accepted(user: User, asked: Mapping[str, str]) -> Refusal | None:
    for agreement, version in sorted(asked.items()):
        if (agreement, version) not in user.agreements:
            return _refuse(
                RefusalCode.AGREEMENT_MISSING, f"{user.user_id} has not accepted {agreement} version {version}."
            )
    return None


# What is asked, and why (G4).


def _reason(request: ProbeSubmitted, _directory: Directory, policy: Policy, _at: datetime) -> Refusal | None:
    if not request.reason_code.strip():
        return _refuse(RefusalCode.REASON_CODE_MISSING, "State the reason code of the search.")
    if request.reason_code not in policy.probes.reasons:
        return _refuse(
            RefusalCode.REASON_CODE_UNKNOWN, f"Use one of the reasons {', '.join(sorted(policy.probes.reasons))}."
        )
    return None


def _reason_rule(request: ProbeSubmitted, policy: Policy) -> ReasonRule | None:
    return policy.probes.reasons.get(request.reason_code)


def _reason_length(request: ProbeSubmitted, _directory: Directory, policy: Policy, _at: datetime) -> Refusal | None:
    asked = _reason_rule(request, policy)
    if asked is None or len(" ".join(request.reason_text.split())) >= asked.minimum_text_characters:
        return None
    return _refuse(
        RefusalCode.REASON_TEXT_MISSING,
        f"State in words why the search is made, in at least {asked.minimum_text_characters} characters.",
    )


def _reason_words(request: ProbeSubmitted, _directory: Directory, policy: Policy, _at: datetime) -> Refusal | None:
    said = says(request.reason_text)
    copied = (request.case_number, request.reason_code, request.legal_basis)
    empty = policy.probes.empty_reason_words | set(chain.from_iterable(map(says, copied)))
    # A copy of a case number without its hyphens is one word.
    empty |= {"".join(says(each)) for each in copied}
    if set(said) - empty and len(set("".join(said))) > 1:
        return None
    return _refuse(
        RefusalCode.REASON_TEXT_SAYS_NOTHING,
        "The reason text says nothing that the codes and the case number do not say; state what happened and whom "
        "the search is to help find.",
    )


def _case_number(request: ProbeSubmitted, _directory: Directory, policy: Policy, _at: datetime) -> Refusal | None:
    number = request.case_number
    if not number.strip():
        return _refuse(RefusalCode.CASE_NUMBER_MISSING, "State the case number the search belongs to.")
    # The length first: whoever asks chooses the text that the pattern has to work on.
    pattern = policy.agency(request.ori).case_number
    if len(number) <= MAX_CASE_NUMBER_CHARACTERS and re.fullmatch(pattern, number, re.ASCII):
        return None
    return _refuse(
        RefusalCode.CASE_NUMBER_INVALID,
        f"This is no case number of the agency: it has at most {MAX_CASE_NUMBER_CHARACTERS} characters and looks like "
        f"{pattern}.",
    )


def _legal_basis(request: ProbeSubmitted, _directory: Directory, policy: Policy, _at: datetime) -> Refusal | None:
    if not request.legal_basis.strip():
        return _refuse(RefusalCode.LEGAL_BASIS_MISSING, "State the legal basis of the search.")
    asked = _reason_rule(request, policy)
    if asked is None or request.legal_basis in asked.legal_bases:
        return None
    return _refuse(RefusalCode.LEGAL_BASIS_UNKNOWN, f"Use one of the bases {', '.join(sorted(asked.legal_bases))}.")


def _prohibited_source(request: ProbeSubmitted, _directory: Directory, policy: Policy, at: datetime) -> Refusal | None:
    source, today = policy.probes.prohibited_sources.get(request.source_type), at.astimezone(UTC).date()
    if (
        source is None
        or (source.since is not None and today < source.since)
        or (source.until is not None and today >= source.until)
    ):
        return None
    return _refuse(RefusalCode.SOURCE_PROHIBITED, source.message)


def _source(request: ProbeSubmitted, _directory: Directory, policy: Policy, _at: datetime) -> Refusal | None:
    if request.source_type in policy.probes.sources:
        return None
    return _refuse(
        RefusalCode.SOURCE_UNKNOWN,
        f"Say where the image comes from: one of {', '.join(sorted(policy.probes.sources))}.",
    )


def _original(request: ProbeSubmitted, _directory: Directory, _policy: Policy, _at: datetime) -> Refusal | None:
    if _DIGEST.fullmatch(request.original_sha256):
        return None
    return _refuse(
        RefusalCode.ORIGINAL_DIGEST_INVALID,
        "State the SHA-256 of the image as it was collected: 64 lower-case hexadecimal digits.",
    )


def _collected_by(request: ProbeSubmitted, _directory: Directory, _policy: Policy, _at: datetime) -> Refusal | None:
    if request.collected_by and request.collected_by.strip():
        return None
    return _refuse(RefusalCode.COLLECTED_BY_MISSING, "State who collected the original image.")


def _collected_at(request: ProbeSubmitted, _directory: Directory, _policy: Policy, at: datetime) -> Refusal | None:
    if request.collected_at is None:
        return _refuse(RefusalCode.COLLECTED_AT_MISSING, "State when the original image was collected.")
    if request.collected_at > at + CLOCK_TOLERANCE:
        return _refuse(
            RefusalCode.COLLECTED_IN_FUTURE,
            "The original image is said to have been collected in the future; correct the time or set the clock.",
        )
    return None


def _collection_basis(request: ProbeSubmitted, _directory: Directory, policy: Policy, _at: datetime) -> Refusal | None:
    bases = f"one of {', '.join(sorted(policy.probes.collection_bases))}."
    if not (request.collection_basis and request.collection_basis.strip()):
        return _refuse(
            RefusalCode.COLLECTION_BASIS_MISSING, f"State on what basis the original image was collected: {bases}"
        )
    if request.collection_basis not in policy.probes.collection_bases:
        return _refuse(RefusalCode.COLLECTION_BASIS_UNKNOWN, f"An original image is collected on {bases}")
    return None


def _edit_chain(request: ProbeSubmitted, _directory: Directory, _policy: Policy, _at: datetime) -> Refusal | None:
    digest = request.original_sha256
    for edit in request.edits:
        if edit.before_sha256 != digest or not _DIGEST.fullmatch(edit.after_sha256) or edit.after_sha256 == digest:
            break
        digest = edit.after_sha256
    else:
        if digest == request.image_sha256:
            return None
    return _refuse(
        RefusalCode.EDIT_CHAIN_BROKEN,
        "The chain of edits does not lead from the original image to the image that is to be searched; state every "
        "step that changed it, with the SHA-256 before and after.",
    )


def _prohibited_edit(request: ProbeSubmitted, _directory: Directory, policy: Policy, _at: datetime) -> Refusal | None:
    prohibited = policy.probes.prohibited_edit_operations
    words = next((prohibited[edit.operation] for edit in request.edits if edit.operation in prohibited), None)
    if words is None:
        return None
    return _refuse(RefusalCode.EDIT_OPERATION_PROHIBITED, f"{words} Such an image is not searched; send the original.")


def _edit_operation(request: ProbeSubmitted, _directory: Directory, policy: Policy, _at: datetime) -> Refusal | None:
    known = policy.probes.edit_operations | policy.probes.prohibited_edit_operations.keys()
    if all(edit.operation in known for edit in request.edits):
        return None
    return _refuse(
        RefusalCode.EDIT_OPERATION_UNKNOWN,
        f"Name what each edit did: one of {', '.join(sorted(policy.probes.edit_operations))}.",
    )


def _edit_facts(request: ProbeSubmitted, _directory: Directory, _policy: Policy, _at: datetime) -> Refusal | None:
    if all(edit.tool.strip() and edit.operator.strip() for edit in request.edits):
        return None
    return _refuse(RefusalCode.EDIT_INCOMPLETE, "State the tool and the operator of each edit.")


def _edit_times(request: ProbeSubmitted, _directory: Directory, _policy: Policy, at: datetime) -> Refusal | None:
    times = [edit.performed_at for edit in request.edits]
    collected = [request.collected_at] if request.collected_at is not None and times else []
    if all(earlier <= later for earlier, later in pairwise((*collected, *times))) and all(
        time <= at + CLOCK_TOLERANCE for time in times
    ):
        return None
    return _refuse(
        RefusalCode.EDIT_TIME_INVALID,
        "The edits are not in the order of their times, or one is said to have been made before the image was "
        "collected or in the future; correct the times.",
    )


def _candidates(request: ProbeSubmitted, _directory: Directory, policy: Policy, _at: datetime) -> Refusal | None:
    if policy.probes.minimum_candidates <= request.requested_candidates <= policy.probes.maximum_candidates:
        return None
    return _refuse(
        RefusalCode.CANDIDATE_COUNT_OUT_OF_RANGE,
        f"Ask for {policy.probes.minimum_candidates} to {policy.probes.maximum_candidates} candidates.",
    )


USER_RULES: tuple[Rule, ...] = (
    Rule(name="users.registered", codes=(RefusalCode.USER_UNKNOWN,), judge=_registered),
    Rule(name="users.standing", codes=tuple(_CODE_OF_STANDING.values()), judge=_standing),
    Rule(name="agencies.membership", codes=(RefusalCode.AGENCY_MISMATCH,), judge=_membership),
    Rule(name="agencies.registered", codes=(RefusalCode.AGENCY_UNKNOWN,), judge=_agency),
    Rule(name="users.roles", codes=(RefusalCode.ROLE_MISSING,), judge=_roles),
    Rule(
        name="users.training",
        codes=(RefusalCode.TRAINING_MISSING, RefusalCode.TRAINING_OUTDATED, RefusalCode.TRAINING_EXPIRED),
        judge=_training,
    ),
    Rule(name="users.agreements", codes=(RefusalCode.AGREEMENT_MISSING,), judge=_agreements),
    Rule(name="agencies.agreements", codes=(RefusalCode.AGREEMENT_MISSING,), judge=_agency_agreements),
)
REQUEST_RULES: tuple[Rule, ...] = (
    Rule(
        name="probes.reason",
        codes=(RefusalCode.REASON_CODE_MISSING, RefusalCode.REASON_CODE_UNKNOWN),
        judge=_reason,
    ),
    Rule(name="probes.reason_text", codes=(RefusalCode.REASON_TEXT_MISSING,), judge=_reason_length),
    Rule(name="probes.empty_reason_words", codes=(RefusalCode.REASON_TEXT_SAYS_NOTHING,), judge=_reason_words),
    Rule(
        name="agencies.case_number",
        codes=(RefusalCode.CASE_NUMBER_MISSING, RefusalCode.CASE_NUMBER_INVALID),
        judge=_case_number,
    ),
    Rule(
        name="probes.legal_basis",
        codes=(RefusalCode.LEGAL_BASIS_MISSING, RefusalCode.LEGAL_BASIS_UNKNOWN),
        judge=_legal_basis,
    ),
    Rule(name="probes.prohibited_source", codes=(RefusalCode.SOURCE_PROHIBITED,), judge=_prohibited_source),
    Rule(name="probes.source", codes=(RefusalCode.SOURCE_UNKNOWN,), judge=_source),
    Rule(name="probes.original", codes=(RefusalCode.ORIGINAL_DIGEST_INVALID,), judge=_original),
    Rule(name="probes.collected_by", codes=(RefusalCode.COLLECTED_BY_MISSING,), judge=_collected_by),
    Rule(
        name="probes.collected_at",
        codes=(RefusalCode.COLLECTED_AT_MISSING, RefusalCode.COLLECTED_IN_FUTURE),
        judge=_collected_at,
    ),
    Rule(
        name="probes.collection_basis",
        codes=(RefusalCode.COLLECTION_BASIS_MISSING, RefusalCode.COLLECTION_BASIS_UNKNOWN),
        judge=_collection_basis,
    ),
    Rule(name="probes.edits", codes=(RefusalCode.EDIT_CHAIN_BROKEN,), judge=_edit_chain),
    Rule(name="probes.prohibited_edit", codes=(RefusalCode.EDIT_OPERATION_PROHIBITED,), judge=_prohibited_edit),
    Rule(name="probes.edit_operation", codes=(RefusalCode.EDIT_OPERATION_UNKNOWN,), judge=_edit_operation),
    Rule(name="probes.edit_facts", codes=(RefusalCode.EDIT_INCOMPLETE,), judge=_edit_facts),
    Rule(name="probes.edit_times", codes=(RefusalCode.EDIT_TIME_INVALID,), judge=_edit_times),
    Rule(name="probes.candidates", codes=(RefusalCode.CANDIDATE_COUNT_OUT_OF_RANGE,), judge=_candidates),
)
AUDIT_LAG, ORDERS_LAG = "audit.lag", "orders.lag"
RULES_OF_THE_SYSTEM: Mapping[str, RefusalCode] = MappingProxyType(
    {AUDIT_LAG: RefusalCode.AUDIT_BEHIND, ORDERS_LAG: RefusalCode.ORDER_BEHIND}
)
"""Rules that no request can keep or break: how far the system itself may be behind. The worker judges them."""
