"""The file of decisions that a review sheet saves and `leadstream review decide --from` takes: JSON, closed, bounded.

It is a means of transport: what counts is what the examiner then signs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal
from uuid import UUID

from pydantic import ConfigDict, TypeAdapter, ValidationError

from schemas.errors import ContractError
from schemas.events import FeatureComparison, FeatureFinding, ReviewConclusion

MAX_FILE_BYTES = 4_194_304


class _Closed:
    """What the file does not name may not stand in it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class FileFeature(_Closed):
    """How one feature compares."""

    feature: str
    finding: FeatureFinding
    note: str


@dataclass(frozen=True, kw_only=True)
class FileDecision(_Closed):
    """What the examiner says of one candidate."""

    capture_id: UUID
    features: tuple[FileFeature, ...]
    limitations: str
    conclusion: ReviewConclusion
    note: str

    def comparisons(self) -> tuple[FeatureComparison, ...]:
        """Return the features as the event has them."""
        return tuple(
            FeatureComparison(feature=each.feature, finding=each.finding, note=each.note) for each in self.features
        )


@dataclass(frozen=True, kw_only=True)
class DecisionFile(_Closed):
    """The decisions of one examiner about one probe."""

    format: Literal["leadstream-review-1"]
    probe_id: UUID
    review_id: UUID
    examiner: str
    decisions: tuple[FileDecision, ...]


_FILE = TypeAdapter(DecisionFile)


def read_decision_file(data: bytes) -> DecisionFile:
    """Return the decisions of a file.

    Raises:
        ContractError: it is none; the text names the place.
    """
    if len(data) > MAX_FILE_BYTES:
        raise ContractError(f"Decisions: a file has at most {MAX_FILE_BYTES} bytes.")
    try:
        return _FILE.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:200] or "file"
        raise ContractError(f"Decisions: {place}: {first['msg']}. Take the file as a review sheet saved it.") from None
