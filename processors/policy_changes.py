"""What one policy says otherwise than another, and whether that is stricter or looser. Pure.

Stricter is what refuses more, keeps less or asks more of whoever decides; where neither can be said of a change, it is
called other, and a person has to judge it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from processors.quality_rules import QualityRules, Use

if TYPE_CHECKING:
    from collections.abc import Iterator

    from processors.policy import Policy

Path = tuple[str, ...]


class Effect(StrEnum):
    """What a change does."""

    STRICTER = "stricter"
    LOOSER = "looser"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One entry that differs."""

    path: str
    """As in the policy file, with dots."""
    before: Any
    """None where there was none."""
    after: Any
    """None where there is none."""
    effect: Effect


_ANY = "*"
_MORE_IS_LOOSER: tuple[Path, ...] = (
    ("users", "roles"),
    ("users", "courses", _ANY, "versions"),
    ("users", "courses", _ANY, "maximum_days"),
    ("probes", "reasons"),
    ("probes", "reasons", _ANY, "legal_bases"),
    ("probes", "sources"),
    ("probes", "collection_bases"),
    ("probes", "edit_operations"),
    ("probes", "maximum_candidates"),
    ("probes", "prohibited_sources", _ANY, "since"),
    ("enrolment", "sources"),
    ("enrolment", "bulk_load_sources"),
    ("audit", "maximum_lag_s"),
    ("orders", "maximum_lag_s"),
    ("orders", "statutes", _ANY, "effects"),
    ("reviews", "roles"),
    ("reviews", "from_agencies"),
    ("reviews", "shows_scores"),
    ("reviews", "sheet_hours"),
    ("reviews", "supports"),
    ("notices", "acknowledge_within_hours"),
    ("notices", "remind_every_hours"),
    ("retention", _ANY),
    ("quality", _ANY, "maximum", _ANY),
)
_MORE_IS_STRICTER: tuple[Path, ...] = (
    ("users", "courses"),
    ("users", "agreements"),
    ("agencies", _ANY, "agreements"),
    ("probes", "reasons", _ANY, "minimum_text_characters"),
    ("probes", "empty_reason_words"),
    ("probes", "prohibited_sources"),
    ("probes", "prohibited_sources", _ANY, "until"),
    ("probes", "prohibited_edit_operations"),
    ("probes", "minimum_candidates"),
    ("reviews", "examiners"),
    ("reviews", "shuffles"),
    ("reviews", "features"),
    ("notices", "maximum_reminders"),
    ("quality", _ANY, "minimum", _ANY),
)
_NO_BOUND_IS_LOOSEST: tuple[Path, ...] = (("quality", _ANY, "minimum", _ANY), ("quality", _ANY, "maximum", _ANY))
_NO_DATE_IS_STRICTEST: tuple[Path, ...] = (
    ("probes", "prohibited_sources", _ANY, "since"),
    ("probes", "prohibited_sources", _ANY, "until"),
)


def document_of(policy: Policy) -> dict[str, Any]:
    """Return a policy as its file says it, in plain values: tables, sorted lists, texts, numbers and flags."""
    document = _table(policy)
    bounds = {Use.ENROLMENT: policy.enrolment_quality, Use.PROBE: policy.probe_quality}
    document["quality"] = {
        str(use): {"minimum": dict(rules.minimum), "maximum": dict(rules.maximum)} for use, rules in bounds.items()
    }
    return document


def entries_of(document: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[str, Any]]:
    """Yield each entry of a plain document that is no table, with its path."""
    for key, value in document.items():
        if isinstance(value, dict):
            yield from entries_of(value, (*path, key))
        else:
            yield ".".join((*path, key)), value


def changes_between(before: Policy, after: Policy) -> list[Change]:
    """Return what the second policy says otherwise, in the order of the file."""
    return list(_changes(document_of(before), document_of(after), ()))


def _plain(value: Any) -> Any:
    match value:
        case frozenset():
            plain: Any = sorted(map(str, value))
        case tuple():
            plain = list(map(str, value))
        case StrEnum():
            plain = str(value)
        case date():
            plain = value.isoformat()
        case Mapping():
            plain = {str(key): _plain(content) for key, content in value.items()}
        case _ if is_dataclass(value):
            plain = _table(value)
        case _:
            plain = value
    return plain


def _table(rules: Any) -> dict[str, Any]:
    contents = {each.name: getattr(rules, each.name) for each in fields(rules)}
    return {name: _plain(content) for name, content in contents.items() if not isinstance(content, QualityRules)}


def _changes(before: Any, after: Any, path: Path) -> Iterator[Change]:
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys((*before, *after)):
            yield from _changes(before.get(key), after.get(key), (*path, key))
    elif isinstance(before, list) and isinstance(after, list):
        both = set(before) & set(after)
        changed = [(each, None) for each in before if each not in both] + [
            (None, each) for each in after if each not in both
        ]
        for one, other in changed:
            yield _change(path, one, other, _effect(path, more=one is None))
        if not changed:
            yield _change(path, before, after, Effect.OTHER)
    elif isinstance(before, dict) or isinstance(after, dict):
        yield _change(path, before, after, _effect(path[:-1], more=before is None))
    else:
        yield _change(path, before, after, _effect_of_value(path, before, after))


def _change(path: Path, before: Any, after: Any, effect: Effect) -> Change:
    return Change(path=".".join(path), before=before, after=after, effect=effect)


def _effect(path: Path, *, more: bool) -> Effect:
    if _is_any_of(path, _MORE_IS_LOOSER):
        return Effect.LOOSER if more else Effect.STRICTER
    if _is_any_of(path, _MORE_IS_STRICTER):
        return Effect.STRICTER if more else Effect.LOOSER
    return Effect.OTHER


def _effect_of_value(path: Path, before: Any, after: Any) -> Effect:
    if before is None or after is None:
        if _is_any_of(path, _NO_BOUND_IS_LOOSEST):
            return Effect.STRICTER if before is None else Effect.LOOSER
        if _is_any_of(path, _NO_DATE_IS_STRICTEST):
            return Effect.LOOSER if before is None else Effect.STRICTER
        # An entry of a table, such as an agreement with its version.
        return _effect(path[:-1], more=before is None)
    if type(before) is type(after) and not (isinstance(before, str) and not _is_any_of(path, _NO_DATE_IS_STRICTEST)):
        return _effect(path, more=after > before)
    return Effect.OTHER


def _is_any_of(path: Path, patterns: tuple[Path, ...]) -> bool:
    return any(
        len(path) == len(pattern) and all(step in (_ANY, name) for step, name in zip(pattern, path, strict=True))
        for pattern in patterns
    )
