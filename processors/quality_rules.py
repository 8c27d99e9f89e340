"""What a bureau asks of the photos that it enrols and searches: bounds of its policy, and the words of a refusal.

Pure: measurements and bounds in, a refusal or None out. It judges a photo that already has its template, apart from the
extraction, so that whoever may overrule the policy finds everything there is. What the models cannot do at all is
refused before, by the model card (`processors/quality.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from processors.refusals import Refusal, RefusalCode
from schemas.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from processors.extraction import Extraction


class Use(StrEnum):
    """What a photo is wanted for, as the policy names it."""

    ENROLMENT = "enrolment"
    PROBE = "probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """One bound that a policy may set: the measurement, which side is bad, and what the sender is told."""

    is_minimum: bool
    code: RefusalCode
    complaint: str
    """With the measured and the asked value."""
    advice: str

    @property
    def side(self) -> str:
        return "minimum" if self.is_minimum else "maximum"


_MAX_DECIMALS = 6
_SHARPER = "send a sharper photo, in focus and without motion"
_LIGHTER = "take the photo in more light, from the front"
_STRAIGHT = "let the person look straight into the camera"
_RULES: dict[str, _Rule] = {
    "inter_eye_px": _Rule(
        is_minimum=True,
        code=RefusalCode.FACE_TOO_SMALL,
        complaint="The eyes are {found} pixels apart, at least {asked} are needed",
        advice="send the photo in its original size or one taken closer",
    ),
    "cropped_percent": _Rule(
        is_minimum=False,
        code=RefusalCode.FACE_CROPPED,
        complaint="{found} % of the face lie beyond the edge of the photo, at most {asked} % may",
        advice="send the uncropped photo or one with the whole head in it",
    ),
    "yaw_deg": _Rule(
        is_minimum=False,
        code=RefusalCode.POSE_TOO_FAR,
        complaint="The head is turned about {found} degrees to the side, at most {asked} are allowed",
        advice=_STRAIGHT,
    ),
    "pitch_deg": _Rule(
        is_minimum=False,
        code=RefusalCode.POSE_TOO_FAR,
        complaint="The head is bowed or raised by about {found} degrees, at most {asked} are allowed",
        advice=_STRAIGHT,
    ),
    "roll_deg": _Rule(
        is_minimum=False,
        code=RefusalCode.POSE_TOO_FAR,
        complaint="The head is tilted by about {found} degrees, at most {asked} are allowed",
        advice="turn the photo upright, or let the person hold the head straight",
    ),
    "sharpness": _Rule(
        is_minimum=True,
        code=RefusalCode.FACE_TOO_BLURRED,
        complaint="The face is too blurred (sharpness {found}, at least {asked} is needed)",
        advice=_SHARPER,
    ),
    "least_sharpness": _Rule(
        is_minimum=True,
        code=RefusalCode.FACE_TOO_BLURRED,
        complaint="The face is smeared in one direction (sharpness {found}, at least {asked} is needed)",
        advice=_SHARPER,
    ),
    "underexposed_percent": _Rule(
        is_minimum=False,
        code=RefusalCode.FACE_TOO_DARK,
        complaint="{found} % of the face are black or nearly so, at most {asked} % may be",
        advice=_LIGHTER,
    ),
    "overexposed_percent": _Rule(
        is_minimum=False,
        code=RefusalCode.FACE_TOO_BRIGHT,
        complaint="{found} % of the face are white or nearly so, at most {asked} % may be",
        advice="take the photo with less light or a shorter exposure",
    ),
    "dynamic_range_bits": _Rule(
        is_minimum=True,
        code=RefusalCode.CONTRAST_TOO_LOW,
        complaint="The face has too few shades ({found} bits, at least {asked} are needed)",
        advice="take the photo in even light, without haze or glare, and send it unprocessed",
    ),
    "unified_quality": _Rule(
        is_minimum=True,
        code=RefusalCode.QUALITY_TOO_LOW,
        complaint="The photo is too poor to tell the face from others (quality {found}, {asked} of 100 are needed)",
        advice="send another photo: frontal, sharp, well lit, nothing before the face",
    ),
}
"""In the order in which a sender should mend them: the first one broken gives the code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRules:
    """What one version of the policy asks of photos for one use: measurement -> bound; angles count by their size."""

    use: Use
    minimum: Mapping[str, float]
    maximum: Mapping[str, float]


def parse_quality_rules(table: Any, use: Use) -> QualityRules:
    """Return the rules of one table of a policy, `[quality.<use>.minimum]` and `[quality.<use>.maximum]`.

    Raises:
        ContractError: a bound is unknown, is on the wrong side or is no number.
    """
    if not isinstance(table, dict) or set(table) != {"minimum", "maximum"}:
        raise ContractError(f"Policy: table [quality.{use}] must hold exactly maximum, minimum.")
    return QualityRules(
        use=use,
        minimum=_bounds(table["minimum"], f"quality.{use}.minimum", is_minimum=True),
        maximum=_bounds(table["maximum"], f"quality.{use}.maximum", is_minimum=False),
    )


def judge_by_policy(extraction: Extraction, rules: QualityRules, policy_version: str) -> Extraction:
    """Return the extraction, or the refusal of a photo that does not keep the bureau's rules.

    The refusal says everything that is to be mended at once, with what was measured and what is asked, and names the
    version of the policy and the rules.
    """
    if isinstance(extraction, Refusal):
        return extraction
    return refusal_by_policy(extraction.measurements, rules, policy_version) or extraction


def refusal_by_policy(measurements: Mapping[str, float], rules: QualityRules, policy_version: str) -> Refusal | None:
    """Return the refusal of a photo that was measured so, or None where it keeps the bureau's rules."""
    broken: list[tuple[_Rule, str]] = []
    names = []
    for name, rule in _RULES.items():
        asked = (rules.minimum if rule.is_minimum else rules.maximum).get(name)
        if asked is None:
            continue
        found = measurements[name] if rule.is_minimum else abs(measurements[name])
        if (found < asked) if rule.is_minimum else (found > asked):
            found_text, asked_text = _told_apart(found, asked)
            broken.append((rule, f"{rule.complaint.format(found=found_text, asked=asked_text)}: {rule.advice}."))
            names.append(f"quality.{rules.use}.{rule.side}.{name}")
    if not broken:
        return None
    return Refusal(
        code=broken[0][0].code,
        rule=names[0],
        message=" ".join([*(text for _, text in broken), f"(Policy {policy_version}: {', '.join(names)}.)"]),
        measurements=measurements,
    )


def _told_apart(found: float, asked: float) -> tuple[str, str]:
    """Write both with the fewest decimals that show the difference: what is measured promises no more."""
    for decimals in range(_MAX_DECIMALS):
        texts = f"{found:.{decimals}f}", f"{asked:.{decimals}f}"
        if texts[0] != texts[1]:
            return texts
    return f"{found}", f"{asked}"


def _bounds(table: Any, path: str, *, is_minimum: bool) -> Mapping[str, float]:
    known = {name for name, rule in _RULES.items() if rule.is_minimum is is_minimum}
    if not isinstance(table, dict) or not set(table) <= known:
        raise ContractError(f"Policy: table [{path}] may hold only {', '.join(sorted(known))}.")
    for value in table.values():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise ContractError(f"Policy: a bound in [{path}] must be a number and not below 0.")
    return MappingProxyType({name: float(value) for name, value in table.items()})
