"""The file of decisions that a sheet saves is read whole or refused, whoever made it (G12)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from builders import uuid_named

from processors.decision_file import MAX_FILE_BYTES, read_decision_file
from schemas.errors import ContractError
from schemas.events import FeatureComparison, FeatureFinding, ReviewConclusion

FILE: dict[str, Any] = {
    "format": "leadstream-review-1",
    "probe_id": str(uuid_named("probe")),
    "review_id": str(uuid_named("review")),
    "examiner": "j.doe",
    "decisions": [
        {
            "capture_id": str(uuid_named("capture")),
            "features": [{"feature": "EYES", "finding": "SIMILAR", "note": "folds"}],
            "limitations": "low resolution",
            "conclusion": "LIMITED_SUPPORT",
            "note": "",
        }
    ],
}


def test_a_saved_file_says_what_the_examiner_said() -> None:
    said = read_decision_file(json.dumps(FILE).encode())
    (decision,) = said.decisions
    assert (said.probe_id, said.examiner) == (uuid_named("probe"), "j.doe")
    assert (decision.conclusion, decision.limitations) == (ReviewConclusion.LIMITED_SUPPORT, "low resolution")
    assert decision.comparisons() == (FeatureComparison(feature="EYES", finding=FeatureFinding.SIMILAR, note="folds"),)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"format": "leadstream-review-2"}, "format"),
        ({"probe_id": "../../etc"}, "probe_id"),
        ({"race": "none of our business"}, "race"),
        ({"decisions": [{**FILE["decisions"][0], "conclusion": "IDENTIFIED"}]}, "conclusion"),
        ({"decisions": [{**FILE["decisions"][0], "gender": "x"}]}, "gender"),
        ({"decisions": "all"}, "decisions"),
    ],
)
def test_anything_else_is_refused_with_its_place(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(ContractError, match=named):
        read_decision_file(json.dumps({**FILE, **changed}).encode())


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[" * 100_000, b"{}", b" " * (MAX_FILE_BYTES + 1)])
def test_bytes_that_are_no_such_file_are_refused(data: bytes) -> None:
    with pytest.raises(ContractError):
        read_decision_file(data)
