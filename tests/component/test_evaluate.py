"""`leadstream evaluate` on the sample photos: the production code from a folder of photos to rates and a page."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from connectors.face_extractor import FaceExtractor
from infra.assets import DEFAULT_CARD, recipe_names
from infra.cli import DONE, REFUSED, USAGE, run
from infra.extracting import find_recipe
from infra.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from infra.assets import Assets

KEYS = {
    "rank_1", "rank_20", "rank_50", "fnir_at_fpir_0.01", "fnir_at_fpir_0.003", "fnir_at_fpir_0.001", "tar_at_far_1e-3",
    "tar_at_far_1e-4", "tar_at_far_1e-5", "failure_to_enrol", "persons", "images", "few_events", "intervals",
}  # fmt: skip


@pytest.fixture
def folder(assets: Assets, tmp_path: Path) -> Path:
    """One folder a person: three with several photos, three with one; one photo has no face."""
    for photo in assets.photos:
        target = tmp_path / "set" / photo.subject / f"{photo.number}{photo.path.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo.path, target)
    (tmp_path / "set" / "B" / "3.jpg").write_bytes(b"no photo")
    (tmp_path / "set" / "B" / "4.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "set" / "groups.csv").write_text("person,letters\nA,early\nB,early\nC,early\nD,late\nX,late\n")
    return tmp_path / "set"


def _unwrapped(text: str) -> str:
    """Undo what the width of the terminal does to a line."""
    return " ".join(text.split())


def test_one_document_and_one_page_with_two_recipes_and_groups(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [
        "evaluate",
        str(folder),
        "--draws",
        "5",
        "--resamples",
        "100",
        "--recipe",
        "sface-yunet",
        "--recipe",
        "sface-yunet",
    ]
    assert run([*command, "--report", str(tmp_path / "report"), "--json"]) == DONE
    said = capfd.readouterr()
    report = json.loads(said.out)
    assert report.keys() >= KEYS
    assert (report["persons"], report["images"], report["persons_never_enrolled"]) == (6, 13, 3)
    assert report["failures"] == {"UNDECODABLE": 1, "UNREADABLE": 1}
    assert report["failure_to_enrol"] == pytest.approx(2 / 13)
    assert 0.0 < report["rank_1"] < report["rank_20"] + 1e-9 < 1.0  # what has no template is a miss
    assert report["open_set"]["gallery_persons"] == 2
    assert report["fusion"] == "fused"  # as the default policy says
    assert {"fnir_at_fpir_0.01", "rank_1", "failure_to_enrol"} <= set(report["few_events"])
    (beside_itself,) = report["comparisons"]
    for error in beside_itself["errors"].values():
        assert (error["ratio"], error["ratio_interval"], error["difference_interval"]) == (1.0, [1.0, 1.0], [0.0, 0.0])
    assert [(row["group"], row["persons"]) for row in report["groups"]["letters"]] == [
        ("(not given)", 2),
        ("early", 3),
        ("late", 1),
    ]
    assert "1 person of groups.csv without photos, left out: X." in _unwrapped(said.err)
    assert "2 persons without a row in groups.csv" in _unwrapped(said.err)

    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "Investigative lead only." in page
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page
    assert (tmp_path / "report" / "det.png").stat().st_size > 0
    assert (tmp_path / "report" / "error-versus-discard.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--enrol", "9"], "Nobody has more than 9 photos"),
        (["--recipe", "nosuch"], "There is no recipe 'nosuch': name one of"),
        (["--glob", "*.gif"], "There is no photo"),
        (["--fusion", "sum"], "Usage"),
        (["--enrol", "0"], "Usage"),
    ],
)
def test_what_cannot_be_measured_is_a_usage_error_with_a_way_out(
    folder: Path, arguments: list[str], expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", str(folder), *arguments]) == USAGE
    said = capfd.readouterr()
    assert expected in _unwrapped(said.err)
    assert "Traceback" not in said.err
    assert said.out == ""


@pytest.mark.usefixtures("assets")
@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_finds_its_models(name: str) -> None:
    recipe = find_recipe(name, load_settings())
    assert FaceExtractor(recipe.card, recipe.pack_dir).card is recipe.card


def test_a_report_that_cannot_be_written_is_said_before_the_work(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report").write_bytes(b"")
    assert run(["evaluate", str(folder), "--report", str(tmp_path / "report")]) == USAGE
    assert "cannot be made" in _unwrapped(capfd.readouterr().err)


def test_a_card_of_ones_own_runs_with_the_default_models_and_a_broken_one_is_refused(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "strict.toml"
    shipped = DEFAULT_CARD.read_text(encoding="utf-8")
    card.write_text(shipped.replace("min_inter_eye_px = 18.0", "min_inter_eye_px = 1800.0"), encoding="utf-8")
    command = ["evaluate", str(folder), "--draws", "1", "--resamples", "100", "--recipe", str(card)]
    assert run([*command, "--fusion", "mean", "--fusion", "fused", "--json"]) == DONE
    report = json.loads(capfd.readouterr().out)
    assert [part["recipe"] for part in report["recipes"]] == [f"{card}, mean", f"{card}, fused"]
    assert report["failures"] == {"FACE_TOO_SMALL": 11, "UNDECODABLE": 1, "UNREADABLE": 1}
    assert (report["rank_1"], report["fnir_at_fpir_0.01"], report["tar_at_far_1e-3"]) == (0.0, 1.0, 0.0)
    card.write_text(shipped.replace("dimension = 128", "dimension = 12"), encoding="utf-8")
    assert run(command) == REFUSED
    assert "CONTRACT:" in capfd.readouterr().err
