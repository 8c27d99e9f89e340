"""What a report says of templates whose rates are known: nothing that is not so, and nothing unsaid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from infra import assets
from infra.evaluation import _cleaned, _compared, _Measured, _Measuring, _repeated_photos
from infra.evaluation_tables import FEW, listings
from infra.extracting import Extracted, Recipe
from processors.evaluation import Templates, person_weights
from processors.quality_rules import Use
from processors.scoring import Fusion
from processors.templates import to_template
from processors.trials import draw_trials, number_persons

if TYPE_CHECKING:
    from numpy.typing import NDArray

RECIPE = Recipe(name="plain", card=assets.load_card(assets.DEFAULT_CARD), pack_dir=Path())


def _templates(persons: int, each: int, spread: float, *, seed: int = 0, failing: float = 0.0) -> Extracted:
    generator = np.random.default_rng(seed)
    centres = np.repeat(generator.normal(size=(persons, 32)), each, axis=0)
    count = persons * each
    usable = generator.random(count) >= failing
    return Extracted(
        templates=Templates(
            values=to_template(centres + generator.normal(size=(count, 32)) * spread),
            usable=usable,
            enrollable=usable,
            qualities=np.where(usable, generator.random(count), np.nan),
        ),
        failures={int(row): "NO_FACE" for row in np.flatnonzero(~usable)},
        refused={Use.ENROLMENT: {0: "FACE_TOO_BLURRED", 1: "FACE_CROPPED"}, Use.PROBE: {1: "FACE_CROPPED"}},
        digests=[bytes([row % 256, row // 256]) for row in range(count)],
    )


def _measured(
    extracted: Extracted,
    each: int,
    *,
    groups: dict[str, NDArray[np.str_]] | None = None,
    enrol: int = 1,
    policy_applies: bool = False,
) -> _Measured:
    count = len(extracted.digests)
    labels = [f"p{row // each:03}" for row in range(count)]
    names, persons = number_persons(labels)
    return _Measuring(
        recipe=RECIPE,
        fusion=Fusion.FUSED,
        name="plain",
        extracted=extracted,
        draws=draw_trials(labels, [str(row) for row in range(count)], enrol=enrol, count=4, seed=0),
        persons=persons,
        weights=person_weights(len(names), replicates=100, seed=0),
        groups=groups or {},
        policy_applies=policy_applies,
        progress=lambda *_: None,
    ).run()


def _whole(part: _Measured) -> dict[str, Any]:
    report: dict[str, Any] = _cleaned(
        {
            "persons": 1,
            "images": 1,
            "enrol": 1,
            "draws": 4,
            "policy_version": "1",
            "policy_applies": False,
            "recipes": [part.report],
        }
        | {"comparisons": [_compared(part, part)]}
    )
    json.dumps(report, allow_nan=False)
    return report


def test_persons_who_are_easily_told_apart_are_and_it_says_on_how_little_that_rests() -> None:
    part = _measured(_templates(30, 4, 0.1), 4)
    report = part.report
    assert (report["rank_1"], report["fnir_at_fpir_0.01"], report["tar_at_far_1e-4"]) == (1.0, 0.0, 1.0)
    assert report["failure_to_enrol"] == 0.0
    assert {"rank_1", "fnir_at_fpir_0.01", "tar_at_far_1e-4", "failure_to_enrol"} <= set(report["few_events"])
    assert report["intervals"]["fnir_at_fpir_0.01"].high > 0.0
    assert report["open_set"]["gallery_persons"] == 15
    assert report["open_set"]["non_mated_searches"] == 4 * 15 * 4
    assert report["open_set"]["mated_searches"] == 4 * 15 * 3
    assert report["closed_set"] == {"gallery_persons": 30, "searches": 4 * 30 * 3}
    rates, refused, comparison = listings(_whole(part))
    assert [row[0] for row in refused.rows] == ["enrolment", "enrolment", "probe"]
    assert any(FEW in row[-1] for row in rates.rows)
    assert {row[3] for row in comparison.rows} == {"1.000"}


def test_where_many_errors_are_nothing_is_said_of_few() -> None:
    report = _measured(_templates(60, 6, 1.6), 6).report
    assert 0.05 < report["fnir_at_fpir_0.01"] < 1.0
    assert not {"rank_1", "tar_at_far_1e-3"} & set(report["few_events"])
    low, high = report["intervals"]["rank_1"].low, report["intervals"]["rank_1"].high
    assert low < report["rank_1"] < high


def test_groups_at_the_common_threshold_make_up_the_whole() -> None:
    of = np.array(["first"] * 20 + ["second"] * 10)
    part = _measured(_templates(30, 6, 1.2, failing=0.1), 6, groups={"half": of})
    rows = part.report["groups"]["half"]
    assert [(row["group"], row["persons"], row["images"]) for row in rows] == [("first", 20, 120), ("second", 10, 60)]
    opened = part.report["open_set"]
    for name, point in opened["at_fpir"].items():
        for rate, searches in (("fnir", "mated_searches"), ("fpir", "non_mated_searches")):
            whole = sum(row["at_fpir"][name][rate]["rate"] * row[searches] for row in rows)
            assert whole / opened[searches] == pytest.approx(point[rate])
    assert sum(row["failure_to_enrol"]["photos"] for row in rows) == part.report["failures"]["NO_FACE"]
    assert sum(row["mated_searches"] for row in rows) == opened["mated_searches"]


def test_a_recipe_that_fails_on_more_photos_does_not_look_better() -> None:
    whole, failing = (_measured(_templates(30, 5, 0.8, failing=share), 5).report for share in (0.0, 0.3))
    assert failing["failure_to_enrol"] > 0.2
    assert failing["rank_1"] < whole["rank_1"]
    assert failing["tar_at_far_1e-3"] < whole["tar_at_far_1e-3"]
    assert failing["fnir_at_fpir_0.01"] > whole["fnir_at_fpir_0.01"]
    assert failing["investigation"]["fnir_rank_50"] > whole["investigation"]["fnir_rank_50"]


def test_what_the_policy_refuses_is_told_apart_and_counts_only_when_it_applies() -> None:
    aside, applied = (_measured(_templates(30, 4, 0.1), 4, policy_applies=applies).report for applies in (False, True))
    for report in (aside, applied):
        assert report["refused_by_policy"] == {
            "enrolment": {"FACE_CROPPED": 1, "FACE_TOO_BLURRED": 1},
            "probe": {"FACE_CROPPED": 1},
        }
    assert (aside["failure_to_enrol"], aside["failures"]) == (0.0, {})
    assert applied["failure_to_enrol"] == pytest.approx(2 / 120)
    assert applied["failures"] == {"FACE_CROPPED": 1, "FACE_TOO_BLURRED": 1}
    assert applied["rank_1"] < aside["rank_1"] == 1.0


def test_what_cannot_be_measured_is_unknown_and_not_zero() -> None:
    part = _measured(_templates(1, 3, 0.5), 3)
    report = _whole(part)["recipes"][0]
    assert (report["fnir_at_fpir_0.01"], report["tar_at_far_1e-4"]) == (None, None)
    assert {"fnir_at_fpir_0.01", "tar_at_far_1e-4"} <= set(report["few_events"])
    assert report["rank_1"] == 1.0
    assert any(row[1] == "unknown" for listing in listings(_whole(part)) for row in listing.rows)


def test_more_enrolled_photos_never_leave_less_to_compare_with() -> None:
    extracted = _templates(40, 6, 1.0)
    one, three = (_measured(extracted, 6, enrol=enrol).report for enrol in (1, 3))
    assert three["rank_1"] > one["rank_1"]
    assert three["fnir_at_fpir_0.01"] < one["fnir_at_fpir_0.01"]


def test_copies_of_a_photo_are_told_and_files_that_could_not_be_read_are_none() -> None:
    assert _repeated_photos([b"a", b"b", b"", b""], np.array([0, 0, 1, 1])) == []
    (within,) = _repeated_photos([b"a", b"a", b"a", b"b"], np.array([0, 0, 0, 1]))
    assert within.startswith("Copies of another photo of the same person: 2;")
    (across,) = _repeated_photos([b"a", b"b", b"a"], np.array([0, 0, 1]))
    assert across.startswith("Photos that stand in the folders of several persons: 1;")
