"""Who may search, for what, with which image (G3, G4): the default policy as a table, and that each part of it counts.

A row is a case and what the default policy says of it. Then the policy is changed: every rule of the registry is left
out, every entry of the policy file is removed or loosened, found by walking the file. Each change must make some row
come out differently, or the file be refused. So an entry or a rule that nobody tests fails here.
"""

from __future__ import annotations

import copy
import re
import tomllib
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache, cached_property
from hashlib import sha256
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
    POLICY,
    ROOT,
    Registry,
    access_granted,
    access_revoked,
    agency_registered,
    agreement_accepted,
    booking_recorded,
    by_root,
    capture,
    founded,
    probe_submitted,
    training_completed,
    user_registered,
    uuid_named,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from processors import search_rules
from processors.access import ROOT_ADMINISTRATOR
from processors.enrolment import CLOCK_TOLERANCE, captures_to_extract, enrol
from processors.policy import parse_policy
from processors.policy_changes import Effect, changes_between
from processors.quality_rules import refusal_by_policy
from processors.refusals import RefusalCode
from processors.search_rules import (
    REQUEST_RULES,
    RULES_OF_THE_SYSTEM,
    USER_RULES,
    judgements,
    refusal_of_late_audit,
    refusal_of_late_orders,
    refusal_of_search,
)
from schemas.errors import ContractError
from schemas.events import AccessRestricted, BulkLoadProvenance, ImageEdit, PolicyActivated, UserRegistered
from schemas.positions import SourcePosition
from schemas.topics import BOOKING_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from processors.policy import Policy
    from schemas.events import ProbeSubmitted

TEXT = (Path(__file__).parents[2] / "infra" / "policy" / "default.toml").read_text(encoding="utf-8")
DEFAULT: dict[str, Any] = tomllib.loads(TEXT)
# No rule, but what a person at the command line states who states nothing else.
USUAL_BASIS = DEFAULT["probes"].pop("usual_collection_basis")
DAY = timedelta(days=1)
A, B, C = "a" * 64, "b" * 64, "c" * 64
R = RefusalCode


# People, by what they have and lack.


@cache
def person(
    *,
    lacks: str = "",
    agreements: tuple[tuple[str, str], ...] = (
        ("BUREAU_POLICY", "2026.1"),
        ("STATE_USER_AGREEMENT", "2025"),
        ("PENALTIES_NOTICE", "1"),
    ),
    roles: tuple[str, ...] = ("SUBMITTER",),
    standing: str = "granted",
    **training: Any,
) -> Registry:
    """Return a registry with Alice, who has everything that the default policy asks for, except what is said."""
    registry = Registry()
    events = {
        "agency": (agency_registered(), ROOT),
        "user": (user_registered("alice", ALICE.public_key, roles=roles), ROOT),
        "training": (training_completed("alice", **training), ROOT),
        "grant": (access_granted("alice"), ROOT),
    }
    for name, (event, key) in events.items():
        if name != lacks:
            registry.say(event, key)
    for agreement, version in agreements:
        registry.say(agreement_accepted("alice", agreement=agreement, agreement_version=version), ALICE)
    if standing == "restricted":
        registry.say(AccessRestricted(**by_root(user_id="alice", reason="under review")))
    if standing == "revoked":
        registry.say(access_revoked("alice"))
    registry.say(agency_registered(OTHER_ORI))
    return registry


def without_agreement(name: str) -> Registry:
    everything = (("BUREAU_POLICY", "2026.1"), ("STATE_USER_AGREEMENT", "2025"), ("PENALTIES_NOTICE", "1"))
    return person(agreements=tuple(each for each in everything if each[0] != name))


def edit(before: str, after: str, **changes: Any) -> ImageEdit:
    facts = {"tool": "editor 1.0", "operator": "alice", "performed_at": NOW, "description": "-", "operation": "CROP"}
    return ImageEdit(before_sha256=before, after_sha256=after, **{**facts, **changes})


def edited(*edits: ImageEdit, original: str = A) -> dict[str, Any]:
    image = edits[-1].after_sha256 if edits else original
    return {"original_sha256": original, "edits": edits, "image_sha256": image}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A case and what comes of it; without a code the search may be made."""

    says: str
    code: RefusalCode | None = None
    rule: str = ""
    who: Registry = field(default_factory=person)
    asks: dict[str, Any] = field(default_factory=dict)
    at: datetime = NOW
    overlay: dict[str, Any] = field(default_factory=dict)
    """What the policy says besides, at the top level and one below."""

    @cached_property
    def request(self) -> ProbeSubmitted:
        return probe_submitted(**self.asks)

    def verdict(self, document: dict[str, Any]) -> tuple[str, str]:
        if self.overlay:
            tables = {name: {**document[name], **table} for name, table in self.overlay.items()}
            document = {**document, **tables}
        refusal = refusal_of_search(self.request, self.who.directory, policy_of(document), self.at)
        return (refusal.code, refusal.rule) if refusal else ("", "")


_parsed: dict[int, tuple[dict[str, Any], Policy]] = {}


def policy_of(document: dict[str, Any]) -> Policy:
    """Parse a document once as long as it is the same object."""
    known = _parsed.get(id(document))
    if known is None or known[0] is not document:
        _parsed.clear()
        _parsed[id(document)] = known = (document, parse_policy(document))
    return known[1]


OWN_AGENCY = {"agencies": {ORI: {"case_number": r"[A-Z]{2}-\d{2}-\d{4}", "agreements": {"OWN_POLICY": "7"}}}}
OWN_PATTERN = {"agencies": {ORI: {"case_number": r"[A-Z]{2}-\d{2}-\d{4}"}}}
UNTIL = {
    "probes": {
        "prohibited_sources": {"DRONE": {"message": "No.", "authority": "-", "until": date(2026, 11, 23)}},
    }
}
UNTIL_TOMORROW = {
    "probes": {
        "prohibited_sources": {"DRONE": {"message": "No.", "authority": "-", "until": date(2026, 11, 24)}},
    }
}
LONG = "Robbery of a shop on Main Street"
"""Long enough for every reason."""
REASONS = {
    "FELONY_INVESTIGATION": (10, ("CRIMINAL_INVESTIGATION", "ARREST", "COURT_ORDER")),
    "MISDEMEANOR_INVESTIGATION": (20, ("CRIMINAL_INVESTIGATION", "ARREST", "COURT_ORDER")),
    "MISSING_PERSON": (10, ("CRIMINAL_INVESTIGATION", "EMERGENCY", "COURT_ORDER")),
    "UNIDENTIFIED_PERSON": (10, ("CORONER_INQUIRY", "EMERGENCY", "COURT_ORDER")),
    "THREAT_TO_LIFE": (10, ("EMERGENCY", "CRIMINAL_INVESTIGATION", "COURT_ORDER")),
    "IDENTITY_OF_ARRESTEE": (10, ("ARREST", "COURT_ORDER")),
}
EMPTY_WORDS = (
    *("test", "testing", "investigation", "investigate", "case", "search", "check", "lookup", "suspect"),
    *("unknown", "none", "n", "na", "asdf", "xxx", "see", "report", "police"),
    *("crime", "the", "a", "an", "for", "of", "in", "this", "my"),
)
SOURCES = ("WITNESS_PHOTO", "VICTIM_PHOTO", "CASE_EVIDENCE", "BOOKING_PHOTO_OTHER_AGENCY", "CORONER_PHOTO")
PROHIBITED_SOURCES = (
    "SURVEILLANCE_VIDEO",
    "VIDEO_FRAME",
    "BODY_WORN_CAMERA",
    "DRIVER_LICENCE_PHOTO",
    "INTERNET_SCRAPE",
    "SOCIAL_MEDIA",
    "COMPOSITE",
    "SKETCH",
    "LOOK_ALIKE",
    "GENERATED",
)
COLLECTION_BASES = (
    "CONSENT",
    "SEARCH_WARRANT",
    "LAWFUL_SEIZURE",
    "COURT_ORDER",
    "EXIGENT_CIRCUMSTANCES",
    "CORONER_AUTHORITY",
    "AGENCY_RECORD",
)
EDIT_OPERATIONS = (
    "CROP",
    "ROTATE",
    "MIRROR_BACK",
    "RESIZE",
    "BRIGHTNESS",
    "CONTRAST",
    "COLOUR_BALANCE",
    "DEINTERLACE",
    "REDUCE_NOISE",
)
PROHIBITED_EDITS = (
    "FACE_REPLACEMENT",
    "EYES_OPENED",
    "MOUTH_CLOSED",
    "POSE_CORRECTED",
    "GENERATIVE_FILL",
    "GENERATIVE_UPSCALE",
)
NEW_YEAR_2020 = datetime(2020, 1, 1, tzinfo=UTC)


def rows_of_who() -> Iterator[Row]:
    yield Row(says="a trained user with agreements, access and purpose")
    yield Row(says="nobody knows", asks={"user_id": "mallory"}, code=R.USER_UNKNOWN, rule="users.registered")
    standing = "users.standing"
    yield Row(says="access not granted", who=person(lacks="grant"), code=R.ACCESS_NOT_GRANTED, rule=standing)
    yield Row(says="access restricted", who=person(standing="restricted"), code=R.ACCESS_RESTRICTED, rule=standing)
    yield Row(says="access revoked", who=person(standing="revoked"), code=R.ACCESS_REVOKED, rule=standing)
    yield Row(says="for another agency", asks={"ori": OTHER_ORI}, code=R.AGENCY_MISMATCH, rule="agencies.membership")
    yield Row(
        says="agency not registered", who=person(lacks="agency"), code=R.AGENCY_UNKNOWN, rule="agencies.registered"
    )
    for roles in (("SUBMITTER",), ("EXAMINER",), ("AUDITOR", "EXAMINER")):
        yield Row(says=f"as {roles}", who=person(roles=roles))
    for roles in ((), ("AUDITOR", "SUPERVISOR", "ADMINISTRATOR"), ("submitter",)):
        yield Row(says=f"as {roles}", who=person(roles=roles), code=R.ROLE_MISSING, rule="users.roles")
    yield from rows_of_training()
    for agreement in ("BUREAU_POLICY", "STATE_USER_AGREEMENT", "PENALTIES_NOTICE"):
        yield Row(
            says=f"without {agreement}",
            who=without_agreement(agreement),
            code=R.AGREEMENT_MISSING,
            rule="users.agreements",
        )
    yield Row(
        says="an agreement in an older version",
        who=person(
            agreements=(("BUREAU_POLICY", "2025.1"), ("STATE_USER_AGREEMENT", "2025"), ("PENALTIES_NOTICE", "1"))
        ),
        code=R.AGREEMENT_MISSING,
        rule="users.agreements",
    )
    yield Row(
        says="without the agreement of the own agency",
        overlay=OWN_AGENCY,
        asks={"case_number": "CR-26-4711"},
        code=R.AGREEMENT_MISSING,
        rule="agencies.agreements",
    )


def rows_of_training() -> Iterator[Row]:
    rule = "users.training"
    yield Row(says="no training", who=person(lacks="training"), code=R.TRAINING_MISSING, rule=rule)
    yield Row(says="another course", who=person(course="FACE-100"), code=R.TRAINING_MISSING, rule=rule)
    yield Row(says="version 2 of the course", who=person(course_version="2"))
    yield Row(says="version 0 of the course", who=person(course_version="0"), code=R.TRAINING_OUTDATED, rule=rule)
    late = person(completed_at=NOW)
    yield Row(says="training not yet completed", who=late, at=NOW - MICROSECOND, code=R.TRAINING_EXPIRED, rule=rule)
    yield Row(says="training completed this microsecond", who=late)
    expires = person(expires_at=NOW)
    yield Row(says="training in its last microsecond", who=expires, at=NOW - MICROSECOND)
    yield Row(says="training expired at the very microsecond", who=expires, code=R.TRAINING_EXPIRED, rule=rule)
    old = person(completed_at=NOW - 730 * DAY, expires_at=NOW + 9999 * DAY)
    yield Row(says="training of almost 730 days ago", who=old, at=NOW - MICROSECOND)
    yield Row(says="training of 730 days ago", who=old, code=R.TRAINING_EXPIRED, rule=rule)
    never = person(completed_at=NOW + DAY, expires_at=NOW - DAY)
    yield Row(says="training that expires before it was completed", who=never, code=R.TRAINING_EXPIRED, rule=rule)


def rows_of_purpose() -> Iterator[Row]:
    rule = "probes.reason"
    yield Row(says="no reason", asks={"reason_code": " \t"}, code=R.REASON_CODE_MISSING, rule=rule)
    yield Row(says="a reason of nobody", asks={"reason_code": "CURIOSITY"}, code=R.REASON_CODE_UNKNOWN, rule=rule)
    for reason, (characters, bases) in REASONS.items():
        asks = {"reason_code": reason, "reason_text": LONG}
        for basis in bases:
            yield Row(says=f"{reason} on {basis}", asks={**asks, "legal_basis": basis})
        unknown = {**asks, "legal_basis": "SUSPICION"}
        yield Row(says=f"{reason} on suspicion", asks=unknown, code=R.LEGAL_BASIS_UNKNOWN, rule="probes.legal_basis")
        just = {**asks, "legal_basis": bases[0], "reason_text": f" {LONG[:characters]} \n"}
        yield Row(says=f"{reason} in {characters} characters", asks=just)
        short = {**just, "reason_text": f" {LONG[: characters - 1]} \n"}
        yield Row(
            says=f"{reason} in {characters - 1}", asks=short, code=R.REASON_TEXT_MISSING, rule="probes.reason_text"
        )
    yield Row(
        says="blanks for a text",
        asks={"reason_text": "a" + 20 * " " + "b"},
        code=R.REASON_TEXT_MISSING,
        rule="probes.reason_text",
    )
    yield Row(says="no basis", asks={"legal_basis": " "}, code=R.LEGAL_BASIS_MISSING, rule="probes.legal_basis")
    wrong = {"reason_code": "IDENTITY_OF_ARRESTEE", "legal_basis": "CRIMINAL_INVESTIGATION", "reason_text": LONG}
    yield Row(says="a basis of other reasons", asks=wrong, code=R.LEGAL_BASIS_UNKNOWN, rule="probes.legal_basis")
    said = [f"{word} " * 10 if len(set(word)) > 1 else f"{word} police report" for word in EMPTY_WORDS]
    for text in said:
        yield Row(
            says=f"because {text!r}",
            # Codes that have none of the words.
            asks={"reason_text": text, "reason_code": "THREAT_TO_LIFE", "legal_basis": "EMERGENCY"},
            code=R.REASON_TEXT_SAYS_NOTHING,
            rule="probes.empty_reason_words",
        )
    for text in (
        "TEST, Test - (investigation)!",
        "2026-4711 2026-4711",
        "case 2026-4711",
        "20264711 20264711",
        "FELONY_INVESTIGATION",
        "felony investigation",
        "criminal investigation",
        "aaaaaaaaaaaaaaaa",
        "z z z z z z z z z z",
        "-----------------",
        "???? .... ,,,, !!!!",
    ):
        yield Row(
            says=f"because {text!r}",
            asks={"reason_text": text},
            code=R.REASON_TEXT_SAYS_NOTHING,
            rule="probes.empty_reason_words",
        )
    for text in ("a shop in Main Street", "Überfall am Bahnhof", "身元不明者の家族を探している", "4712 4711 2026"):
        yield Row(says=f"because {text!r}", asks={"reason_text": text})
    yield from rows_of_case_numbers()


def rows_of_case_numbers() -> Iterator[Row]:
    rule = "agencies.case_number"
    yield Row(says="no case", asks={"case_number": "  "}, code=R.CASE_NUMBER_MISSING, rule=rule)
    for number in ("26-", "A" * 32, "CR 26/0.17-B"):
        yield Row(says=f"case {number}", asks={"case_number": number})
    for number in ("26", "A" * 33, "A" * 65, "-26-1", "cr-26", "CR-26\n", "CR-٢٦"):
        yield Row(says=f"case {number!r}", asks={"case_number": number}, code=R.CASE_NUMBER_INVALID, rule=rule)
    yield Row(says="a case as the own agency writes it", overlay=OWN_PATTERN, asks={"case_number": "CR-26-4711"})
    for number in ("CR-26-47111", "XCR-26-4711", "2026-4711"):
        yield Row(
            says=f"case {number} at an agency with a pattern of its own",
            overlay=OWN_PATTERN,
            asks={"case_number": number},
            code=R.CASE_NUMBER_INVALID,
            rule=rule,
        )


def rows_of_sources() -> Iterator[Row]:
    for source in SOURCES:
        yield Row(says=source, asks={"source_type": source})
    for source in PROHIBITED_SOURCES:
        yield Row(says=source, asks={"source_type": source}, code=R.SOURCE_PROHIBITED, rule="probes.prohibited_source")
    for source in ("", "witness_photo", "A_FRIEND"):
        yield Row(says=f"from {source!r}", asks={"source_type": source}, code=R.SOURCE_UNKNOWN, rule="probes.source")
    worn = {"source_type": "BODY_WORN_CAMERA", "collected_at": NEW_YEAR_2020 - 9 * DAY}
    early = person(completed_at=NEW_YEAR_2020 - 9 * DAY)
    yield Row(
        says="a body-worn camera in the last microsecond of 2019",
        who=early,
        asks=worn,
        at=NEW_YEAR_2020 - MICROSECOND,
        code=R.SOURCE_UNKNOWN,
        rule="probes.source",
    )
    yield Row(
        says="a body-worn camera in the first microsecond of 2020",
        who=early,
        asks=worn,
        at=NEW_YEAR_2020,
        code=R.SOURCE_PROHIBITED,
        rule="probes.prohibited_source",
    )
    yield Row(
        says="a source on the day on which its prohibition ends",
        overlay=UNTIL,
        asks={"source_type": "DRONE"},
        code=R.SOURCE_UNKNOWN,
        rule="probes.source",
    )
    yield Row(
        says="a source on the day before its prohibition ends",
        overlay=UNTIL_TOMORROW,
        asks={"source_type": "DRONE"},
        code=R.SOURCE_PROHIBITED,
        rule="probes.prohibited_source",
    )


def rows_of_provenance() -> Iterator[Row]:
    for digest in ("", "A" * 64, "a" * 63, "a" * 64 + "\n"):
        yield Row(
            says=f"original {digest!r}",
            asks={"original_sha256": digest, "image_sha256": digest},
            code=R.ORIGINAL_DIGEST_INVALID,
            rule="probes.original",
        )
    for nobody in (None, "", " "):
        yield Row(
            says=f"collected by {nobody!r}",
            asks={"collected_by": nobody},
            code=R.COLLECTED_BY_MISSING,
            rule="probes.collected_by",
        )
    yield Row(
        says="collected at no time",
        asks={"collected_at": None},
        code=R.COLLECTED_AT_MISSING,
        rule="probes.collected_at",
    )
    yield Row(says="collected by a clock that is ahead", asks={"collected_at": NOW + CLOCK_TOLERANCE})
    yield Row(
        says="collected in the future",
        asks={"collected_at": NOW + CLOCK_TOLERANCE + MICROSECOND},
        code=R.COLLECTED_IN_FUTURE,
        rule="probes.collected_at",
    )
    for basis in COLLECTION_BASES:
        yield Row(says=f"collected on {basis}", asks={"collection_basis": basis})
    for basis in (None, "", " "):
        yield Row(
            says=f"collected on {basis!r}",
            asks={"collection_basis": basis},
            code=R.COLLECTION_BASIS_MISSING,
            rule="probes.collection_basis",
        )
    yield Row(
        says="collected by curiosity",
        asks={"collection_basis": "CURIOSITY"},
        code=R.COLLECTION_BASIS_UNKNOWN,
        rule="probes.collection_basis",
    )
    yield from rows_of_edits()


def rows_of_edits() -> Iterator[Row]:
    yield Row(says="one edit", asks=edited(edit(A, B)))
    yield Row(says="two edits", asks=edited(edit(A, B), edit(B, C)))
    yield Row(says="there and back", asks=edited(edit(A, B), edit(B, A)))
    for name, asks in {
        "another image than the original": {"original_sha256": A, "image_sha256": B},
        "edits in the wrong order": edited(edit(B, C), edit(A, B)),
        "a link that is missing": edited(edit(A, B), edit(C, B)),
        "a chain that ends elsewhere": {**edited(edit(A, B)), "image_sha256": C},
        "a chain that begins elsewhere": edited(edit(A, B), original=C),
        "an edit that changes nothing": edited(edit(A, A)),
        "an edit that changes nothing between others": edited(edit(A, B), edit(B, B), edit(B, C)),
        "a digest that is none": edited(edit(A, "b"), edit("b", C)),
    }.items():
        yield Row(says=name, asks=asks, code=R.EDIT_CHAIN_BROKEN, rule="probes.edits")
    for operation in EDIT_OPERATIONS:
        yield Row(says=f"edited: {operation}", asks=edited(edit(A, B, operation=operation)))
    for operation in PROHIBITED_EDITS:
        yield Row(
            says=f"edited: {operation}",
            asks=edited(edit(A, B), edit(B, C, operation=operation)),
            code=R.EDIT_OPERATION_PROHIBITED,
            rule="probes.prohibited_edit",
        )
    for operation in ("", "crop", "BEAUTIFY"):
        yield Row(
            says=f"edited: {operation!r}",
            asks=edited(edit(A, B, operation=operation)),
            code=R.EDIT_OPERATION_UNKNOWN,
            rule="probes.edit_operation",
        )
    for lack in ("tool", "operator"):
        yield Row(
            says=f"an edit without {lack}",
            asks=edited(edit(A, B, **{lack: " "})),
            code=R.EDIT_INCOMPLETE,
            rule="probes.edit_facts",
        )
    ahead = NOW + CLOCK_TOLERANCE
    yield Row(says="edits in the same instant", asks=edited(edit(A, B), edit(B, C)))
    yield Row(says="edited by a clock that is ahead", asks=edited(edit(A, B, performed_at=ahead)))
    for name, times in {
        "before it was collected": (NOW - MICROSECOND,),
        "in another order": (NOW + 2 * MICROSECOND, NOW + MICROSECOND),
        "in the future": (ahead + MICROSECOND,),
    }.items():
        chain = (edit(one, other, performed_at=at) for (one, other), at in zip(((A, B), (B, C)), times, strict=False))
        yield Row(says=f"edited {name}", asks=edited(*chain), code=R.EDIT_TIME_INVALID, rule="probes.edit_times")


def rows_of_length() -> Iterator[Row]:
    for count in (2, 20, 50):
        yield Row(says=f"{count} candidates", asks={"requested_candidates": count})
    for count in (-5, 0, 1, 51):
        yield Row(
            says=f"{count} candidates",
            asks={"requested_candidates": count},
            code=R.CANDIDATE_COUNT_OUT_OF_RANGE,
            rule="probes.candidates",
        )


TABLE = (
    *rows_of_who(),
    *rows_of_purpose(),
    *rows_of_sources(),
    *rows_of_provenance(),
    *rows_of_length(),
)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.says[:60])
def test_the_default_policy_says(row: Row) -> None:
    assert row.verdict(DEFAULT) == (row.code or "", row.rule)


# What the policy says beyond searches.

STATED = BulkLoadProvenance(
    load_id=uuid_named("load"), origin="Old jail system", stated_by="Records", statement="Scans"
)
ENROLMENTS: tuple[tuple[str, BulkLoadProvenance | None, RefusalCode | None], ...] = (
    ("BOOKING_CAPTURE", None, None),
    ("LEGACY_BOOKING_CAPTURE", STATED, None),
    ("LEGACY_BOOKING_CAPTURE", None, R.PROVENANCE_MISSING),
    ("LEGACY_BOOKING_CAPTURE", replace(STATED, origin=" "), R.PROVENANCE_MISSING),
    ("LEGACY_BOOKING_CAPTURE", replace(STATED, stated_by=""), R.PROVENANCE_MISSING),
    ("LEGACY_BOOKING_CAPTURE", replace(STATED, statement="\n"), R.PROVENANCE_MISSING),
    *((source, STATED, R.NOT_A_BOOKING_CAPTURE) for source in ("", *SOURCES, *PROHIBITED_SOURCES)),
)
QUALITY = (
    ("enrolment", "minimum", "inter_eye_px", 20.0),
    ("enrolment", "minimum", "sharpness", 0.03),
    ("enrolment", "minimum", "least_sharpness", 0.006),
    ("enrolment", "minimum", "dynamic_range_bits", 4.0),
    ("enrolment", "minimum", "unified_quality", 20.0),
    ("enrolment", "maximum", "cropped_percent", 5.0),
    ("enrolment", "maximum", "yaw_deg", 30.0),
    ("enrolment", "maximum", "pitch_deg", 30.0),
    ("enrolment", "maximum", "roll_deg", 30.0),
    ("enrolment", "maximum", "underexposed_percent", 80.0),
    ("enrolment", "maximum", "overexposed_percent", 50.0),
    ("probe", "minimum", "unified_quality", 5.0),
)
GOOD = {name: 0.0 if side == "maximum" else 1000.0 for _, side, name, _ in QUALITY}
STATED_BY_THE_COMMAND_LINE = {
    "WITNESS_PHOTO": "CONSENT",
    "VICTIM_PHOTO": "CONSENT",
    "CASE_EVIDENCE": "LAWFUL_SEIZURE",
    "BOOKING_PHOTO_OTHER_AGENCY": "AGENCY_RECORD",
    "CORONER_PHOTO": "CORONER_AUTHORITY",
}


def enrolled(source: str, provenance: BulkLoadProvenance | None, policy: Policy) -> tuple[bool, str | None]:
    booking = booking_recorded(captures=(capture(source=source),), provenance=provenance)
    position = SourcePosition(topic=BOOKING_EVENTS, partition=0, offset=1)
    _, answer = enrol(booking, position, {}, None, policy, DIGEST, NOW)
    return bool(captures_to_extract(booking, policy)), answer.captures[0].code


def test_only_booking_captures_are_enrolled_and_those_of_a_bulk_load_where_their_provenance_is_stated() -> None:
    policy = parse_policy(DEFAULT)
    for source, provenance, code in ENROLMENTS:
        assert enrolled(source, provenance, policy) == (code is None, code), (source, provenance)


def quality_verdicts(policy: Policy) -> Iterator[tuple[str, ...]]:
    by_use = {"enrolment": policy.enrolment_quality, "probe": policy.probe_quality}
    for use, side, name, bound in QUALITY:
        for value in (bound * 0.999, bound, bound * 1.001):
            refusal = refusal_by_policy({**GOOD, name: value}, by_use[use], policy.version)
            yield use, side, name, refusal.rule if refusal else ""


def test_each_bound_of_quality_holds_at_its_value_and_its_rule_is_named() -> None:
    expected = []
    for use, side, name, _ in QUALITY:
        rule = f"quality.{use}.{side}.{name}"
        verdicts = (rule, "", "") if side == "minimum" else ("", "", rule)
        expected += [(use, side, name, verdict) for verdict in verdicts]
    assert list(quality_verdicts(parse_policy(DEFAULT))) == expected


def beyond_searches(policy: Policy) -> tuple[object, ...]:
    """Return what the policy says beside the rows of the table."""
    return (
        [enrolled(source, provenance, policy) for source, provenance, _ in ENROLMENTS],
        list(quality_verdicts(policy)),
        refusal_of_late_audit(policy),
        refusal_of_late_orders(policy),
        policy.probes.default_candidates == 20,
    )


def test_what_the_command_line_states_for_who_states_nothing_is_written_in_the_policy() -> None:
    assert USUAL_BASIS == STATED_BY_THE_COMMAND_LINE
    assert parse_policy(tomllib.loads(TEXT)).probes.usual_collection_basis == USUAL_BASIS


# Every rule, and every entry of the policy file, counts.

ELSEWHERE = {
    "orders.statutes": "what an order may have for effects",
    "reviews": "the one-to-one comparison",
    "notices": "notices to receivers",
    "retention": "deletion",
}
"""Tables whose rules are proved by the tests of what they are about."""


@pytest.mark.parametrize("rule", [*USER_RULES, *REQUEST_RULES], ids=lambda rule: rule.name)
def test_without_any_one_rule_some_row_comes_out_differently(
    rule: search_rules.Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("USER_RULES", "REQUEST_RULES"):
        rules = getattr(search_rules, name)
        monkeypatch.setattr(search_rules, name, tuple(each for each in rules if each is not rule))
    assert any(row.verdict(DEFAULT) != (row.code or "", row.rule) for row in TABLE)


Mutation = tuple[str, dict[str, Any]]


def mutations() -> Iterator[Mutation]:
    """Walk the policy file and yield it with each entry removed, and each number, date, flag and pattern moved."""
    for path, parent in entries(DEFAULT, ()):
        key = path[-1]
        value = parent[key]
        changes: list[tuple[str, Callable[[Any], None]]] = [("removed", lambda table, key=key: table.pop(key))]
        if isinstance(value, list):
            changes += [
                (f"without {each!r}", lambda table, key=key, each=each: table[key].remove(each)) for each in value
            ]
        for name, moved in moves(str(key), value):
            changes.append((name, lambda table, key=key, moved=moved: table.update({key: moved})))
        for name, change in changes:
            document = copy.deepcopy(DEFAULT)
            table = document
            for step in path[:-1]:
                table = table[step]
            change(table)
            yield f"{'.'.join(path)} {name}", document


def entries(table: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    for key, value in table.items():
        here = (*path, key)
        if ".".join(here) in ELSEWHERE:
            continue
        yield here, table
        if isinstance(value, dict):
            yield from entries(value, here)


def moves(key: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, bool):
        yield "turned", not value
    elif isinstance(value, int):
        yield "one more", value + 1
        yield "one less", value - 1
    elif isinstance(value, float):
        yield "a little more", value * 1.01
        yield "a little less", value * 0.99
    elif isinstance(value, date):
        yield "a day later", value + DAY
        yield "a day earlier", value - DAY
    elif key == "case_number":
        yield "anything", ".*"


MUTATIONS = list(mutations())


def makes_a_difference(document: dict[str, Any]) -> bool:
    try:
        policy = parse_policy(document)
    except ContractError:
        return True
    if beyond_searches(policy) != beyond_searches(parse_policy(DEFAULT)):
        return True
    return any(row.verdict(document) != (row.code or "", row.rule) for row in TABLE)


def test_without_any_one_entry_of_the_policy_file_some_row_comes_out_differently_or_it_is_refused() -> None:
    assert len(MUTATIONS) > 200
    assert [name for name, document in MUTATIONS if not makes_a_difference(document)] == []


# Order, names, time.


def test_every_refusal_names_its_rule_and_has_a_code_of_it() -> None:
    codes = {rule.name: set(rule.codes) for rule in (*USER_RULES, *REQUEST_RULES)}
    seen: dict[str, set[str]] = {}
    for row in TABLE:
        if row.code:
            seen.setdefault(row.rule, set()).add(row.code)
    assert seen == codes, "and every code of every rule has a row"
    late = (refusal_of_late_audit(POLICY), refusal_of_late_orders(POLICY))
    assert {refusal.rule: refusal.code for refusal in late} == dict(RULES_OF_THE_SYSTEM)


def test_every_rule_speaks_for_itself_and_the_first_refusal_counts() -> None:
    request = probe_submitted(
        user_id="mallory", ori=OTHER_ORI, reason_code="", source_type="SKETCH", requested_candidates=0
    )
    directory, policy = founded().directory, parse_policy(DEFAULT)
    verdicts = {rule.name: refusal for rule, refusal in judgements(request, directory, policy, NOW)}
    assert list(verdicts) == [rule.name for rule in (*USER_RULES, *REQUEST_RULES)]
    assert [name for name, refusal in verdicts.items() if refusal] == [
        "users.registered",
        "users.standing",
        "agencies.membership",
        "agencies.registered",
        "users.roles",
        "users.training",
        "users.agreements",
        "probes.reason",
        "probes.prohibited_source",
        "probes.source",
        "probes.candidates",
    ]
    assert refusal_of_search(request, directory, policy, NOW) == verdicts["users.registered"]


def test_who_may_not_search_learns_nothing_about_the_rules_for_requests() -> None:
    assert [rule.name.split(".")[0] for rule in USER_RULES if rule.name.startswith("probes")] == []
    request = probe_submitted(reason_code="", source_type="SURVEILLANCE_VIDEO")
    refusal = refusal_of_search(request, person(standing="revoked").directory, parse_policy(DEFAULT), NOW)
    assert refusal is not None
    assert refusal.code is R.ACCESS_REVOKED


def test_restricted_access_searches_again_when_it_is_granted_again() -> None:
    registry = founded()
    registry.say(AccessRestricted(**by_root(user_id="alice", reason="under review")))
    assert refused(registry) is R.ACCESS_RESTRICTED
    registry.say(access_granted("alice", occurred_at=NOW + MICROSECOND))
    assert refused(registry) is None


def test_a_renewed_training_counts_beside_the_expired_one() -> None:
    registry = Registry()
    for event, key in (
        (agency_registered(), ROOT),
        (user_registered("alice", ALICE.public_key), ROOT),
        (training_completed("alice", expires_at=NOW), ROOT),
        (training_completed("alice", completed_at=NOW), ROOT),
        (agreement_accepted("alice"), ALICE),
        (access_granted("alice"), ROOT),
    ):
        registry.say(event, key)
    assert refused(registry) is None


def test_administrators_get_no_exception() -> None:
    assert refused(founded(), user_id=ROOT_ADMINISTRATOR, ori="") is R.AGENCY_UNKNOWN
    registry = founded()
    registry.say(
        UserRegistered(**by_root(user_id="bob", display_name="Bob", ori=ORI, roles=("ADMINISTRATOR", "SUBMITTER")))
    )
    assert refused(registry, user_id="bob") is R.ACCESS_NOT_GRANTED
    registry.say(access_granted("bob"))
    assert refused(registry, user_id="bob") is R.TRAINING_MISSING


def refused(registry: Registry, **asks: Any) -> RefusalCode | None:
    refusal = refusal_of_search(probe_submitted(**asks), registry.directory, POLICY, NOW)
    return refusal.code if refusal else None


def test_a_policy_holds_from_the_very_microsecond_on_that_it_takes_effect() -> None:
    registry = founded()
    strict = TEXT.replace('version = "2026.3"', 'version = "2027.1"', 1).replace(
        'legal_bases = ["CRIMINAL_INVESTIGATION", ', "legal_bases = [", 1
    )
    for text, version, since in ((TEXT, "2026.3", NOW - DAY), (strict, "2027.1", NOW)):
        activated = PolicyActivated(
            **by_root(
                policy_version=version,
                policy_sha256=sha256(text.encode()).hexdigest(),
                effective_from=since,
                document=text,
            )
        )
        assert registry.say(activated) is None
    alice = person().directory

    def asked(at: datetime) -> RefusalCode | None:
        policy = registry.directory.policy_at(at)
        assert policy is not None
        refusal = refusal_of_search(probe_submitted(), alice, policy, at)
        return refusal.code if refusal else None

    assert asked(NOW - MICROSECOND) is None
    assert asked(NOW) is R.LEGAL_BASIS_UNKNOWN
    assert registry.directory.policy_at(NOW - 2 * DAY) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=5))
def test_every_whole_chain_is_accepted_and_none_with_a_link_missing(digests: list[str]) -> None:
    edits = tuple(edit(one, other) for one, other in pairwise(digests))
    whole = all(one != other for one, other in pairwise(digests))
    asks = {"edits": edits, "image_sha256": digests[-1]}
    assert refused(founded(), **asks, original_sha256=digests[0]) is (None if whole else R.EDIT_CHAIN_BROKEN)
    assert refused(founded(), **asks, original_sha256=DIGEST) is R.EDIT_CHAIN_BROKEN


@settings(max_examples=100, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.text(max_size=30)
            for name in (
                *("reason_code", "reason_text", "case_number", "legal_basis", "source_type", "ori", "user_id"),
                *("original_sha256", "collected_by", "collection_basis"),
            )
        },
    )
)
def test_whatever_is_asked_is_answered_by_a_value_with_words_and_a_rule(asks: dict[str, str]) -> None:
    for _, refusal in judgements(probe_submitted(**asks), person().directory, parse_policy(DEFAULT), NOW):
        assert refusal is None or (refusal.message and refusal.rule)


# What is said to be stricter or looser.


def test_no_change_that_is_called_stricter_allows_more_and_none_that_is_called_looser_refuses_more() -> None:
    default = parse_policy(DEFAULT)
    for name, document in MUTATIONS:
        try:
            policy = parse_policy(document)
        except ContractError:
            continue
        effects = {change.effect for change in changes_between(default, policy)}
        if len(effects) != 1 or Effect.OTHER in effects:
            continue
        for row in TABLE:
            before, after = row.code is not None, row.verdict(document) != ("", "")
            assert after >= before or effects == {Effect.LOOSER}, (name, row.says)
            assert after <= before or effects == {Effect.STRICTER}, (name, row.says)


# The documentation.

DOCUMENT = (Path(__file__).parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")


def test_every_rule_is_explained_with_its_codes() -> None:
    codes = {rule.name: rule.codes for rule in (*USER_RULES, *REQUEST_RULES)}
    codes |= {name: (code,) for name, code in RULES_OF_THE_SYSTEM.items()}
    codes |= {"enrolment.sources": (R.NOT_A_BOOKING_CAPTURE,), "enrolment.bulk_load_sources": (R.PROVENANCE_MISSING,)}
    lines = {line.split("`")[1]: line for line in DOCUMENT.splitlines() if line.startswith("| `")}
    for rule, due in codes.items():
        assert [code for code in due if f"`{code}`" not in lines[rule]] == [], rule


def test_whatever_proves_a_rule_as_explained_is_there() -> None:
    root = Path(__file__).parents[2]
    here = Path(__file__).relative_to(root).as_posix()
    named = re.findall(r"`(tests/[\w/]+\.py)?(?:::(\w+))?`", DOCUMENT)
    proofs = {(file or here, name) for file, name in named if file or name}
    assert len(proofs) > 15
    for file, name in proofs:
        assert f"def {name}" in (root / file).read_text(encoding="utf-8"), (file, name)


@pytest.mark.parametrize("source", PROHIBITED_SOURCES)
def test_every_prohibited_source_has_its_authority_in_the_policy_and_in_its_explanation(source: str) -> None:
    assert f"`{source}`" in DOCUMENT
    stated = DEFAULT["probes"]["prohibited_sources"][source]
    refusal = refusal_of_search(probe_submitted(source_type=source), person().directory, parse_policy(DEFAULT), NOW)
    assert refusal is not None
    assert (refusal.message, bool(stated["authority"])) == (stated["message"], True)
