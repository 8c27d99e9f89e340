"""The bureau's policy as frozen values: one version of it, as its TOML file says. docs/policy.md explains each rule.

The rules that judge by it are in `processors/search_rules.py` (who may search, for what, with which image; G3, G4),
`processors/enrolment.py`, `processors/reviews.py` and `processors/quality_rules.py`.

Gender, age, race and citizenship are not factors: no request carries them and no rule can name them. An unknown key in
a policy file is refused, so that a rule nobody evaluates cannot look as if it held.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, ConfigDict, Field, InstanceOf, TypeAdapter, ValidationError

from processors.quality_rules import QualityRules, Use, parse_quality_rules
from schemas.errors import ContractError
from schemas.events import Consolidation, OrderEffect, OrderKind, ReviewConclusion

MAX_POLICY_BYTES = 65_536
EVERY_AGENCY = "DEFAULT"
"""Stands for agencies that have no rules of their own."""
_ORI = re.compile(r"[A-Z0-9]{9}", re.ASCII)


MAX_PATTERN_CHARACTERS = 200
MAX_CHOICES = 3
"""How many parts of variable length one alternative of a pattern may have."""
_ATOM = r"(?:[^\\\[\](){}.*+?|^$]|\\[dws]|\\[^\w\s]|\.|\[\^?(?:\\[^\s]|[^\]\\])+\])"
_FIXED, _VARIABLE = r"\{\d+\}", r"[*+?]|\{\d*,\d*\}"
_ALTERNATIVE = re.compile(f"(?:{_ATOM}(?:{_FIXED}|{_VARIABLE})?)+")
_CHOICE = re.compile(f"{_ATOM}(?:{_FIXED}|({_VARIABLE}))?")


def _pattern(text: str) -> str:
    """Return a regular expression that no text of some length can keep busy.

    Users choose the texts. Without groups and with few parts of variable length there are few ways to try.
    """
    if len(text) > MAX_PATTERN_CHARACTERS:
        raise ValueError(f"has more than {MAX_PATTERN_CHARACTERS} characters")
    for alternative in _alternatives(text):
        if not _ALTERNATIVE.fullmatch(alternative):
            raise ValueError("may have characters, [classes], \\d, repetitions and | between whole alternatives only")
        if sum(bool(each[1]) for each in _CHOICE.finditer(alternative)) > MAX_CHOICES:
            raise ValueError(f"has more than {MAX_CHOICES} parts of variable length")
    try:
        re.compile(text)
    except (re.error, OverflowError) as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return text


def _alternatives(text: str) -> list[str]:
    """Split at each `|` that stands neither in a class nor behind a backslash."""
    parts = re.findall(r"\\.|\[\^?(?:\\.|[^\]\\])+\]|\||.", text, re.DOTALL)
    found = [""]
    for part in parts:
        if part == "|":
            found.append("")
        else:
            found[-1] += part
    return found


def says(text: str) -> list[str]:
    """Return the words of a text as they are compared: letters and digits, no case."""
    return "".join(each if each.isalnum() else " " for each in text.casefold()).split()


def _wordy(words: frozenset[str]) -> frozenset[str]:
    if others := sorted(word for word in words if says(word) != [word]):
        raise ValueError(f"has what is no single word of small letters and digits: {', '.join(others)}")
    return words


def _each_once(words: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(words)) != len(words):
        raise ValueError("names something twice")
    return words


Word = Annotated[str, Field(strict=True, pattern=r"\S")]
# A bare text would count as its letters, and an empty list as no rule at all (G3, G4).
Words = Annotated[frozenset[Word], Field(min_length=1)]
# So much that no time can be reckoned with is a mistake of whoever wrote it.
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Flag = Annotated[bool, Field(strict=True)]
Pattern = Annotated[Word, AfterValidator(_pattern)]


class _Closed:
    """A table of the policy file: what it does not name may not stand in it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class CourseRule(_Closed):
    """A course that counts."""

    versions: Words
    maximum_days: Count
    """For how long a completed course counts at most, whatever expiry was recorded with it."""


@dataclass(frozen=True, kw_only=True)
class UserRules(_Closed):
    """Who may search (G3)."""

    roles: Words
    """Roles that may submit a probe."""
    courses: Annotated[Mapping[Word, CourseRule], Field(min_length=1)]
    """Every one must have been completed and be valid at the moment of the search."""
    agreements: Annotated[Mapping[Word, Word], Field(min_length=1)]
    """Agreement -> version that must have been accepted; the penalties notice is one of them."""


@dataclass(frozen=True, kw_only=True)
class AgencyRules(_Closed):
    """What one agency asks besides."""

    case_number: Pattern
    """Regular expression without groups that a case number matches as a whole; `\\d` and `\\w` are those of ASCII."""
    agreements: Mapping[Word, Word] = field(default_factory=dict)
    """Agreement of the agency's own -> version that its users must have accepted."""


@dataclass(frozen=True, kw_only=True)
class ReasonRule(_Closed):
    """A reason for which a search may be made, and what it demands."""

    legal_bases: Words
    minimum_text_characters: Count


@dataclass(frozen=True, kw_only=True)
class ProhibitedSource(_Closed):
    """Images that are not searched and not enrolled."""

    message: Word
    """For who asks."""
    authority: Word
    """The law or the rule that says so."""
    since: date | None = None
    """First day on which it holds, UTC; from ever where there is none."""
    until: date | None = None
    """First day on which it holds no longer, UTC; for ever where there is none."""


@dataclass(frozen=True, kw_only=True)
class ProbeRules(_Closed):
    """What may be searched, and what has to be said (G4)."""

    reasons: Annotated[Mapping[Word, ReasonRule], Field(min_length=1)]
    empty_reason_words: Annotated[Words, AfterValidator(_wordy)]
    """Words that say nothing: a reason text of these alone is refused."""
    sources: Words
    prohibited_sources: Annotated[Mapping[Word, ProhibitedSource], Field(min_length=1)]
    collection_bases: Words
    usual_collection_basis: Mapping[Word, Word] = field(default_factory=dict)
    """Source -> basis that the command line offers to who states none; what is searched states its own."""
    edit_operations: Words
    prohibited_edit_operations: Annotated[Mapping[Word, Word], Field(min_length=1)]
    """Operation -> why an image that went through it is not searched."""
    minimum_candidates: Count
    maximum_candidates: Count
    default_candidates: Count
    consolidation: Consolidation


@dataclass(frozen=True, kw_only=True)
class EnrolmentRules(_Closed):
    """What may be enrolled."""

    sources: Words
    """Sources of captures."""
    bulk_load_sources: Words
    """Sources of captures that may be enrolled where the booking states and signs the provenance of its bulk load."""


@dataclass(frozen=True, kw_only=True)
class AuditRules(_Closed):
    """How much of what happens may be unaudited."""

    maximum_lag_s: Count
    """How far the audit trail may be behind before searches stop."""


@dataclass(frozen=True, kw_only=True)
class StatuteRule(_Closed):
    """What a legal ground allows an order to do besides what protects the person most."""

    orders: Annotated[frozenset[OrderKind], Field(min_length=1)]
    effects: frozenset[OrderEffect] = frozenset()
    """Effects that protect less and that an order on this ground may have."""


@dataclass(frozen=True, kw_only=True)
class OrderRules(_Closed):
    """Court orders (G5)."""

    maximum_lag_s: Count
    """How long an order may wait to be obeyed before searches stop."""
    statutes: Annotated[Mapping[Word, StatuteRule], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class ReviewRules(_Closed):
    """The one-to-one comparison (G8)."""

    roles: Words
    """Roles that may compare."""
    from_agencies: frozenset[Word] = frozenset()
    """ORIs of agencies whose examiners may compare for every agency; each agency's own may in any case."""
    examiners: Count
    """How many different persons compare every candidate before a lead is issued."""
    shows_scores: Flag
    """Whether a sheet shows scores and ranks before the examiner has decided."""
    shuffles: Flag
    """Whether a sheet shows the candidates in another order than the list; a second examiner's is always shuffled."""
    sheet_hours: Count
    """For how long a sheet may be shown."""
    features: Annotated[tuple[Word, ...], Field(min_length=1), AfterValidator(_each_once)]
    """What is compared, in this order."""
    supports: Annotated[frozenset[ReviewConclusion], Field(min_length=1)]
    """Conclusions of which a lead may be made."""
    corroboration_reminder: Word
    """Goes with every lead."""


@dataclass(frozen=True, kw_only=True)
class NoticeRules(_Closed):
    """Notices to receivers of what was sealed or withdrawn (G6)."""

    acknowledge_within_hours: Count
    remind_every_hours: Count
    maximum_reminders: Count


@dataclass(frozen=True, kw_only=True)
class RetentionRules(_Closed):
    """For how long what was kept of a search is kept."""

    probe_image_days: Count
    """From the outcome of the probe on; an open review or lead keeps it."""
    review_sheet_days: Count
    """From the last opening of a sheet on."""


@dataclass(frozen=True, kw_only=True)
class Policy(_Closed):
    """One version of the bureau's policy."""

    version: Word
    users: UserRules
    agencies: Annotated[Mapping[Word, AgencyRules], Field(min_length=1)]
    """ORI -> rules; those of DEFAULT hold for every other agency."""
    probes: ProbeRules
    enrolment: EnrolmentRules
    audit: AuditRules
    orders: OrderRules
    reviews: ReviewRules
    notices: NoticeRules
    retention: RetentionRules
    enrolment_quality: InstanceOf[QualityRules]
    probe_quality: InstanceOf[QualityRules]

    def agency(self, ori: str) -> AgencyRules:
        """Return the rules that hold for the users of an agency."""
        return self.agencies.get(ori) or self.agencies[EVERY_AGENCY]


_POLICY = TypeAdapter(Policy)
_IN_WORDS = {
    "unexpected_keyword_argument": "unknown; a rule that nobody evaluates must not look as if it held",
    "missing_keyword_only_argument": "missing; every rule is said, none is taken for granted",
    "missing": "missing; every rule is said, none is taken for granted",
    "missing_argument": "missing; every rule is said, none is taken for granted",
}
"""Kind of error -> what a bureau is told, where the library speaks of arguments."""


def read_policy(text: str) -> Policy:
    """Return the policy of a TOML file.

    Raises:
        ContractError: it is too long or no TOML, or a key is missing, unknown or of the wrong kind; the text names it.
    """
    if len(text.encode()) > MAX_POLICY_BYTES:
        raise ContractError(f"Policy: a policy file has at most {MAX_POLICY_BYTES} bytes.")
    try:
        return parse_policy(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ContractError(f"Policy: no TOML: {error}") from None


def parse_policy(document: Mapping[str, Any]) -> Policy:
    """Return the policy of a parsed TOML document.

    Raises:
        ContractError: a key is missing, unknown or of the wrong kind; the text names it.
    """
    quality, uses = document.get("quality"), {str(use) for use in Use}
    if not isinstance(quality, dict) or set(quality) != uses:
        raise ContractError(f"Policy: table [quality] must hold exactly {', '.join(sorted(uses))}.")
    rules = {f"{use}_quality": parse_quality_rules(quality[use], use) for use in Use}
    given = {name: table for name, table in document.items() if name != "quality"}
    if unknown := rules.keys() & given.keys():
        raise ContractError(f"Policy: {', '.join(sorted(unknown))}: unknown; write [quality.*].")
    try:
        policy = _POLICY.validate_python({**given, **rules})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'file'}: {_IN_WORDS.get(each['type'], each['msg'])}"
            for each in error.errors()
        )
        raise ContractError(f"Policy: {problems}") from None
    if contradiction := _contradiction(policy):
        raise ContractError(f"Policy: {contradiction}")
    return policy


def _contradiction(policy: Policy) -> str | None:
    probes, enrolment = policy.probes, policy.enrolment
    from_outside = {*probes.sources, *probes.prohibited_sources}
    checks = (
        (EVERY_AGENCY not in policy.agencies, f"agencies.{EVERY_AGENCY} is missing: every agency has rules."),
        (
            not probes.sources.isdisjoint(probes.prohibited_sources),
            "a source type is both allowed and prohibited.",
        ),
        (
            any(ori != EVERY_AGENCY and not _ORI.fullmatch(ori) for ori in policy.agencies),
            f"agencies has a name that is neither {EVERY_AGENCY} nor an ORI of nine characters, A-Z and 0-9.",
        ),
        (
            not (
                probes.sources.issuperset(probes.usual_collection_basis)
                and probes.collection_bases.issuperset(probes.usual_collection_basis.values())
            ),
            "probes.usual_collection_basis names a source or a basis that is not allowed.",
        ),
        (
            not probes.edit_operations.isdisjoint(probes.prohibited_edit_operations),
            "an edit operation is both allowed and prohibited.",
        ),
        (
            not from_outside.isdisjoint(enrolment.sources | enrolment.bulk_load_sources),
            "a source of probes may not be enrolled; probes never become part of the gallery.",
        ),
        (
            not enrolment.sources.isdisjoint(enrolment.bulk_load_sources),
            "a source of enrolment either needs a statement of provenance or does not.",
        ),
        (
            not probes.minimum_candidates <= probes.default_candidates <= probes.maximum_candidates,
            "default_candidates is not between minimum_candidates and maximum_candidates.",
        ),
        (
            any(
                source.since and source.until and source.since >= source.until
                for source in probes.prohibited_sources.values()
            ),
            "a prohibited source ends before it begins.",
        ),
    )
    return next((text for wrong, text in checks if wrong), None)
