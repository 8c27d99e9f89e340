"""What is a policy file and what is none: nothing missing, nothing unknown, nothing that contradicts itself."""

from __future__ import annotations

import copy
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.policy import MAX_POLICY_BYTES, parse_policy, read_policy
from processors.search_rules import MAX_CASE_NUMBER_CHARACTERS
from schemas.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT: dict[str, Any] = tomllib.loads(
    (Path(__file__).parents[2] / "infra" / "policy" / "default.toml").read_text(encoding="utf-8")
)
OPTIONAL = {"usual_collection_basis", "from_agencies"}


def changed(table: str, key: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(DEFAULT)
    (document[table] if table else document)[key] = value
    return document


def test_the_policy_that_is_shipped_is_one() -> None:
    policy = parse_policy(DEFAULT)
    assert policy.version == "2026.3"
    assert (policy.probes.minimum_candidates, policy.probes.maximum_candidates) == (2, 50)
    assert not policy.probes.sources & set(policy.probes.prohibited_sources)


def tables(document: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for key, value in document.items():
        if isinstance(value, dict):
            yield from tables(value, (*path, key))


def at(document: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for step in path:
        document = document[step]
    return document


@pytest.mark.parametrize("path", list(tables(DEFAULT)), ids=lambda path: ".".join(path) or "file")
@pytest.mark.parametrize("key", ["gender", "race", "maximum_age", "citizenship"])
def test_no_rule_can_mention_who_somebody_is(path: tuple[str, ...], key: str) -> None:
    # Gender, age, race and citizenship are not factors; a key that looks like such a rule must not be passed over.
    document = copy.deepcopy(DEFAULT)
    at(document, path)[key] = ["anything"]
    with pytest.raises(ContractError, match=f"{key}|exactly|only"):
        parse_policy(document)


@pytest.mark.parametrize("path", [path for path in tables(DEFAULT) if len(path) < 2], ids=".".join)
def test_a_missing_rule_is_refused(path: tuple[str, ...]) -> None:
    for key in at(DEFAULT, path).keys() - OPTIONAL:
        document = copy.deepcopy(DEFAULT)
        del at(document, path)[key]
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


@pytest.mark.parametrize("name", ["default", "CA019000", "CA01900000", "ca0190000", "Sheriff", ""])
def test_rules_for_an_agency_that_cannot_be_are_refused(name: str) -> None:
    with pytest.raises(ContractError, match="agencies"):
        parse_policy(changed("agencies", name, {"case_number": ".*"}))


def test_every_agency_has_rules() -> None:
    with pytest.raises(ContractError, match="DEFAULT"):
        parse_policy(changed("", "agencies", {"CA0190000": {"case_number": ".*"}}))


@pytest.mark.parametrize("word", ["n/a", "TEST", "two words", "-"])
def test_an_empty_word_that_no_text_can_have_is_refused(word: str) -> None:
    with pytest.raises(ContractError, match="word"):
        parse_policy(changed("probes", "empty_reason_words", [word]))


@pytest.mark.parametrize(
    ("table", "value"),
    [
        ("usual_collection_basis", {"WITNESS_PHOTO": "HEARSAY"}),
        ("usual_collection_basis", {"SKETCH": "CONSENT"}),
        ("prohibited_edit_operations", {"CROP": "Both allowed and prohibited."}),
        ("edit_operations", ["CROP", "EYES_OPENED"]),
        ("maximum_candidates", 10_000_000),
    ],
)
def test_what_contradicts_itself_or_cannot_be_reckoned_with_is_refused(table: str, value: Any) -> None:
    with pytest.raises(ContractError):
        parse_policy(changed("probes", table, value))


def test_a_prohibition_that_ends_before_it_begins_is_refused() -> None:
    document = copy.deepcopy(DEFAULT)
    source = document["probes"]["prohibited_sources"]["BODY_WORN_CAMERA"]
    source["until"] = source["since"]
    with pytest.raises(ContractError, match="before it begins"):
        parse_policy(document)


def test_a_file_is_bounded_and_is_toml() -> None:
    for text in ("#" * (MAX_POLICY_BYTES + 1), "version = ", "version = 1\nversion = 2"):
        with pytest.raises(ContractError, match="Policy: "):
            read_policy(text)


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "(a+)+b",
            "(a|a)*b",
            "(a)",
            "a++",
            "a*?",
            "a**",
            r"\1",
            r"\b",
            "[a",
            "[]a]",
            "[z-a]",
            "a{2,1}",
            "^a$",
            "a||b",
            "",
        ),
        *("a*a*a*a*", "a" * 201),
    ],
)
def test_a_pattern_that_could_keep_a_worker_busy_or_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(ContractError, match="case_number"):
        parse_policy(changed("agencies", "DEFAULT", {"case_number": pattern}))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["a", "[a-c]", r"\d", ".", "a{2}", "|", r"\|"]), min_size=1, max_size=8), st.data())
def test_whatever_pattern_is_allowed_is_one_and_is_done_with_any_case_number(parts: list[str], data: Any) -> None:
    choices = data.draw(st.lists(st.sampled_from(["a*", "a+", "[a-c]{0,60}", "a?"]), max_size=3))
    pattern = "".join(data.draw(st.permutations([*parts, *choices])))
    try:
        parse_policy(changed("agencies", "DEFAULT", {"case_number": pattern}))
    except ContractError:
        return
    # A pattern that tries every way would not end before the test does.
    re.fullmatch(pattern, "a" * (MAX_CASE_NUMBER_CHARACTERS - 1) + "!", re.ASCII)
