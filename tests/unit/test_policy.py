"""Who may search, for what, with which image (G3, G4): every refusal at its boundary, and what is no policy at all."""

from __future__ import annotations

import copy
import tomllib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from builders import (
    ALICE,
    DIGEST,
    MICROSECOND,
    NOW,
    ORI,
    OTHER_ORI,
    PERIOD,
    POLICY,
    ROOT,
    Registry,
    access_granted,
    access_revoked,
    agency_registered,
    agreement_accepted,
    by_root,
    founded,
    probe_submitted,
    training_completed,
    user_registered,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.access import ROOT_ADMINISTRATOR
from processors.policy import parse_policy
from processors.refusals import RefusalCode
from processors.search_rules import refusal_of_request, refusal_of_search, refusal_of_user
from schemas.errors import ContractError
from schemas.events import AccessRestricted, ImageEdit, UserRegistered

if TYPE_CHECKING:
    from datetime import datetime

    from processors.policy import Policy

DEFAULT: dict[str, Any] = tomllib.loads(
    (Path(__file__).parents[2] / "infra" / "policy" / "default.toml").read_text(encoding="utf-8")
)


def asked(
    registry: Registry | None = None, *, at: datetime = NOW, policy: Policy = POLICY, **changes: Any
) -> RefusalCode | None:
    directory = (registry or founded()).directory
    refusal = refusal_of_search(probe_submitted(**changes), directory, policy, at)
    return refusal.code if refusal else None


def registry_without(unwanted: type) -> Registry:
    registry = Registry()
    for event, key in (
        (agency_registered(), ROOT),
        (user_registered("alice", ALICE.public_key), ROOT),
        (training_completed("alice"), ROOT),
        (agreement_accepted("alice"), ALICE),
        (access_granted("alice"), ROOT),
    ):
        if not isinstance(event, unwanted):
            registry.say(event, key)
    return registry


def trained(**changes: Any) -> Registry:
    registry = registry_without(type(training_completed("alice")))
    assert registry.say(training_completed("alice", **changes)) is None
    return registry


def test_a_trained_user_with_agreement_access_and_purpose_may_search() -> None:
    assert asked() is None


# Who asks (G3).


def test_an_unknown_user_may_not_search() -> None:
    assert asked(user_id="mallory") is RefusalCode.USER_UNKNOWN


def test_access_must_have_been_granted() -> None:
    assert asked(registry_without(type(access_granted("alice")))) is RefusalCode.ACCESS_NOT_GRANTED


def test_restricted_access_searches_nothing_until_it_is_granted_again() -> None:
    registry = founded()
    registry.say(AccessRestricted(**by_root(user_id="alice", reason="under review")))
    assert asked(registry) is RefusalCode.ACCESS_RESTRICTED
    registry.say(access_granted("alice", occurred_at=NOW + MICROSECOND))
    assert asked(registry) is None


def test_revoked_access_searches_nothing() -> None:
    registry = founded()
    registry.say(access_revoked("alice"))
    assert asked(registry) is RefusalCode.ACCESS_REVOKED


def test_nobody_searches_for_an_agency_they_do_not_belong_to() -> None:
    registry = founded()
    registry.say(agency_registered(OTHER_ORI))
    assert asked(registry, ori=OTHER_ORI) is RefusalCode.AGENCY_MISMATCH


def test_the_agency_must_be_registered() -> None:
    assert asked(registry_without(type(agency_registered()))) is RefusalCode.AGENCY_UNKNOWN


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ((), RefusalCode.ROLE_MISSING),
        (("AUDITOR", "SUPERVISOR", "ADMINISTRATOR"), RefusalCode.ROLE_MISSING),
        (("submitter",), RefusalCode.ROLE_MISSING),
        (("SUBMITTER",), None),
        (("AUDITOR", "EXAMINER"), None),
    ],
)
def test_only_the_roles_of_the_policy_search(roles: tuple[str, ...], expected: RefusalCode | None) -> None:
    registry = founded()
    registry.say(user_registered("alice", ALICE.public_key, roles=roles, display_name="Alice, again"))
    assert asked(registry) is expected


def test_the_course_of_the_policy_must_have_been_completed() -> None:
    assert asked(registry_without(type(training_completed("alice")))) is RefusalCode.TRAINING_MISSING
    assert asked(trained(course="FACE-100")) is RefusalCode.TRAINING_MISSING
    course = POLICY.users.courses["FACE-101"]
    both = replace(POLICY, users=replace(POLICY.users, courses={"FACE-101": course, "FACE-102": course}))
    assert asked(policy=both) is RefusalCode.TRAINING_MISSING


def test_training_counts_from_the_microsecond_it_was_completed() -> None:
    registry = trained(completed_at=NOW)
    assert asked(registry, at=NOW - MICROSECOND) is RefusalCode.TRAINING_EXPIRED
    assert asked(registry, at=NOW) is None


def test_training_stops_counting_at_the_very_microsecond_it_expires() -> None:
    registry = trained(expires_at=NOW)
    assert asked(registry, at=NOW - MICROSECOND) is None
    assert asked(registry, at=NOW) is RefusalCode.TRAINING_EXPIRED
    assert asked(registry, at=NOW + MICROSECOND) is RefusalCode.TRAINING_EXPIRED


def test_a_training_that_expires_before_it_was_completed_never_counts() -> None:
    registry = trained(completed_at=PERIOD[1], expires_at=PERIOD[0])
    assert {asked(registry, at=at) for at in (*PERIOD, NOW)} == {RefusalCode.TRAINING_EXPIRED}


def test_a_renewed_training_counts_beside_the_expired_one() -> None:
    registry = trained(expires_at=NOW)
    registry.say(training_completed("alice", completed_at=NOW, course_version="2"))
    assert asked(registry, at=NOW) is None


def test_the_agreement_must_have_been_accepted_in_the_version_in_force() -> None:
    without = registry_without(type(agreement_accepted("alice")))
    assert asked(without) is RefusalCode.AGREEMENT_MISSING
    without.say(agreement_accepted("alice", agreement_version="2025.1"), ALICE)
    without.say(agreement_accepted("alice", agreement="OTHER_POLICY"), ALICE)
    assert asked(without) is RefusalCode.AGREEMENT_MISSING
    without.say(agreement_accepted("alice"), ALICE)
    assert asked(without) is None


def test_administrators_get_no_exception() -> None:
    assert asked(user_id=ROOT_ADMINISTRATOR, ori="") is RefusalCode.AGENCY_UNKNOWN
    registry = founded()
    registry.say(
        UserRegistered(**by_root(user_id="bob", display_name="Bob", ori=ORI, roles=("ADMINISTRATOR", "SUBMITTER")))
    )
    assert asked(registry, user_id="bob") is RefusalCode.ACCESS_NOT_GRANTED
    registry.say(access_granted("bob"))
    assert asked(registry, user_id="bob") is RefusalCode.TRAINING_MISSING


def test_who_may_not_search_learns_nothing_about_the_rules_for_requests() -> None:
    registry = founded()
    registry.say(access_revoked("alice"))
    assert asked(registry, reason_code="", source_type="SURVEILLANCE_VIDEO") is RefusalCode.ACCESS_REVOKED


# What is asked, and why (G4).


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reason_code": ""}, RefusalCode.REASON_CODE_MISSING),
        ({"reason_code": " \t"}, RefusalCode.REASON_CODE_MISSING),
        ({"reason_code": "CURIOSITY"}, RefusalCode.REASON_CODE_UNKNOWN),
        ({"reason_code": "felony_investigation"}, RefusalCode.REASON_CODE_UNKNOWN),
        ({"reason_text": ""}, RefusalCode.REASON_TEXT_MISSING),
        ({"reason_text": "123456789"}, RefusalCode.REASON_TEXT_MISSING),
        ({"reason_text": " 123456789 \n"}, RefusalCode.REASON_TEXT_MISSING),
        ({"reason_text": "1234567890"}, None),
        ({"case_number": ""}, RefusalCode.CASE_NUMBER_MISSING),
        ({"case_number": "  "}, RefusalCode.CASE_NUMBER_MISSING),
        ({"legal_basis": ""}, RefusalCode.LEGAL_BASIS_MISSING),
        ({"legal_basis": "BECAUSE"}, RefusalCode.LEGAL_BASIS_UNKNOWN),
        ({"source_type": ""}, RefusalCode.SOURCE_UNKNOWN),
        ({"source_type": "witness_photo"}, RefusalCode.SOURCE_UNKNOWN),
        ({"source_type": "SURVEILLANCE_VIDEO"}, RefusalCode.SOURCE_PROHIBITED),
        ({"requested_candidates": 1}, RefusalCode.CANDIDATE_COUNT_OUT_OF_RANGE),
        ({"requested_candidates": 2}, None),
        ({"requested_candidates": 50}, None),
        ({"requested_candidates": 51}, RefusalCode.CANDIDATE_COUNT_OUT_OF_RANGE),
        ({"requested_candidates": 0}, RefusalCode.CANDIDATE_COUNT_OUT_OF_RANGE),
        ({"requested_candidates": -5}, RefusalCode.CANDIDATE_COUNT_OUT_OF_RANGE),
    ],
)
def test_a_request_without_purpose_or_from_a_wrong_source_is_refused(
    changes: dict[str, Any], expected: RefusalCode | None
) -> None:
    assert asked(**changes) is expected


@pytest.mark.parametrize("source", sorted(DEFAULT["probes"]["prohibited_sources"]))
def test_what_the_bureau_never_searches_is_refused_with_the_reason(source: str) -> None:
    refusal = refusal_of_request(
        probe_submitted(source_type=source, reason_text="Robbery at a shop on Main Street"), parse_policy(DEFAULT)
    )
    assert refusal is not None
    assert refusal.code is RefusalCode.SOURCE_PROHIBITED
    assert refusal.message == DEFAULT["probes"]["prohibited_sources"][source]["message"]


def edit(before: str, after: str) -> ImageEdit:
    return ImageEdit(
        tool="crop 1.0", operator="alice", performed_at=NOW, description="-", before_sha256=before, after_sha256=after
    )


A, B, C = "a" * 64, "b" * 64, "c" * 64


@pytest.mark.parametrize(
    ("original", "edits", "image", "whole"),
    [
        (A, (), A, True),
        (A, (), B, False),
        (A, (edit(A, B),), B, True),
        (A, (edit(A, B), edit(B, C)), C, True),
        (A, (edit(A, B), edit(B, A)), A, True),
        (A, (edit(B, C), edit(A, B)), C, False),
        (A, (edit(A, B), edit(C, B)), B, False),
        (A, (edit(A, B),), C, False),
        (A, (edit(B, A),), A, False),
        (A, (edit(A, B),), A, False),
    ],
)
def test_edits_must_lead_from_the_original_to_the_image_that_is_searched(
    original: str, edits: tuple[ImageEdit, ...], image: str, *, whole: bool
) -> None:
    found = asked(original_sha256=original, edits=edits, image_sha256=image)
    assert found is (None if whole else RefusalCode.EDIT_CHAIN_BROKEN)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=5))
def test_every_whole_chain_is_accepted_and_none_with_a_link_missing(digests: list[str]) -> None:
    edits = tuple(edit(one, other) for one, other in pairwise(digests))
    assert asked(original_sha256=digests[0], edits=edits, image_sha256=digests[-1]) is None
    assert asked(original_sha256=DIGEST, edits=edits, image_sha256=digests[-1]) is RefusalCode.EDIT_CHAIN_BROKEN


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.text(max_size=30)
            for name in ("reason_code", "reason_text", "case_number", "legal_basis", "source_type", "ori", "user_id")
        },
    )
)
def test_whatever_is_asked_is_answered_by_a_value_with_words(changes: dict[str, str]) -> None:
    registry = founded()
    refusal = refusal_of_search(probe_submitted(**changes), registry.directory, POLICY, NOW)
    assert refusal is None or refusal.message


def test_every_check_of_the_user_is_made_before_any_of_the_request() -> None:
    refusal = refusal_of_user(probe_submitted(user_id="mallory", ori=""), founded().directory, POLICY, NOW)
    assert refusal is not None
    assert refusal.code is RefusalCode.USER_UNKNOWN


# What is a policy.


def changed(table: str, key: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(DEFAULT)
    (document[table] if table else document)[key] = value
    return document


def test_the_policy_that_is_shipped_is_one() -> None:
    policy = parse_policy(DEFAULT)
    assert policy.version == "2026.3"
    assert (policy.probes.minimum_candidates, policy.probes.maximum_candidates) == (2, 50)
    assert not policy.probes.sources & set(policy.probes.prohibited_sources)


def test_a_rule_that_nobody_evaluates_is_refused() -> None:
    # Gender, age, race and citizenship are not factors; a key that looks like such a rule must not be passed over.
    for table in ("", "users", "probes", "enrolment", "audit", "quality"):
        for key in ("gender", "race", "maximum_age"):
            with pytest.raises(ContractError, match=f"{key}|exactly"):
                parse_policy(changed(table, key, "anything"))


def test_a_missing_rule_is_refused() -> None:
    for table in ("", "users", "probes", "enrolment", "audit", "quality"):
        for key in DEFAULT[table] if table else DEFAULT:
            document = copy.deepcopy(DEFAULT)
            del (document[table] if table else document)[key]
            with pytest.raises(ContractError):
                parse_policy(document)


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("users", "roles"),
        ("probes", "edit_operations"),
        ("probes", "sources"),
        ("enrolment", "sources"),
    ],
)
@pytest.mark.parametrize("value", ["FACE-101", "", [], [""], [1], ["X", None], {"X": "Y"}, 7, None])
def test_a_list_of_rules_that_is_empty_or_no_list_is_refused(table: str, key: str, value: Any) -> None:
    # `courses = []` would let everybody search untrained; `courses = "FACE-101"` would ask for courses F, A, C ...
    with pytest.raises(ContractError):
        parse_policy(changed(table, key, value))


@pytest.mark.parametrize(
    "value", [{}, [], "BUREAU_POLICY", ["BUREAU_POLICY"], {"BUREAU_POLICY": 2026.1}, {"X": ""}, None]
)
@pytest.mark.parametrize(
    ("table", "key"),
    [("users", "agreements"), ("users", "courses"), ("probes", "reasons"), ("probes", "prohibited_sources")],
)
def test_a_table_of_rules_that_is_empty_or_no_table_is_refused(table: str, key: str, value: Any) -> None:
    with pytest.raises(ContractError):
        parse_policy(changed(table, key, value))


@pytest.mark.parametrize("value", [0, -1, 2.0, "2", True, None, [2]])
@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("probes", "default_candidates"),
        ("probes", "minimum_candidates"),
        ("probes", "maximum_candidates"),
        ("probes", "consolidation"),
        ("audit", "maximum_lag_s"),
    ],
)
def test_a_number_of_another_kind_is_refused(table: str, key: str, value: Any) -> None:
    with pytest.raises(ContractError):
        parse_policy(changed(table, key, value))


@pytest.mark.parametrize("value", ["", "  ", 2026.1, None, ["2026.1"]])
def test_a_policy_without_a_version_is_refused(value: Any) -> None:
    with pytest.raises(ContractError):
        parse_policy(changed("", "version", value))


@pytest.mark.parametrize("value", ["users", 7, [], None])
@pytest.mark.parametrize("table", ["users", "probes", "enrolment", "audit", "quality"])
def test_a_table_of_another_kind_is_refused(table: str, value: Any) -> None:
    with pytest.raises(ContractError):
        parse_policy(changed("", table, value))


def test_a_source_is_not_both_allowed_and_prohibited() -> None:
    with pytest.raises(ContractError, match="both"):
        parse_policy(changed("probes", "sources", ["WITNESS_PHOTO", "COMPOSITE"]))


@pytest.mark.parametrize("source", ["WITNESS_PHOTO", "SURVEILLANCE_VIDEO"])
def test_no_policy_can_enrol_probes(source: str) -> None:
    with pytest.raises(ContractError, match="never"):
        parse_policy(changed("enrolment", "sources", ["BOOKING_CAPTURE", source]))


def test_a_list_cannot_be_shorter_at_most_than_at_least() -> None:
    with pytest.raises(ContractError, match="between"):
        parse_policy(changed("probes", "minimum_candidates", 51))
