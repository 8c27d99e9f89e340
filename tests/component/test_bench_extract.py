"""The extraction benchmark measures what it says, on few photos; no test asserts a time."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from infra import bench_extract
from infra.assets import Assets, recipe_card, recipe_names
from infra.cli import run
from processors.model_card import model_digest
from schemas.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

EACH = ("templates_per_s_core", "templates_per_processor_s", "p50_ms", "p99_ms")


@pytest.fixture
def folder(photos: dict[str, bytes], tmp_path: Path) -> Path:
    for name in ("A1", "D1"):
        (tmp_path / f"{name}.jpg").write_bytes(photos[name])
    (tmp_path / "notes.txt").write_text("no photo", encoding="utf-8")
    return tmp_path


def test_one_document_with_every_loop_its_parts_and_the_ratios(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "extract", "--photos", str(folder), "--size", "480x600", "--turns", "1", "--processes", "1"]
    assert run([*command, "--recipe", "sface-yunet", "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert (report["photos"], report["processes"], report["extractions_each"]) == (2, 1, 2)
    assert report.keys() >= {f"{loop}_{name}" for loop in ("sface_yunet", "findings", "opencv") for name in EACH}
    assert report.keys() >= {"sface_yunet_over_findings", "sface_yunet_over_opencv", "opencv_models"}
    parts = [report[f"sface_yunet_{part}_ms"] for part in (*bench_extract.PARTS, "rest")]
    assert all(part > 0.0 for part in parts)


def test_photos_are_cut_round_the_face_to_the_asked_size(photos: dict[str, bytes], assets: Assets) -> None:
    (cut,) = bench_extract.cut_photos([photos["C2"]], (480, 600), assets.pack_dir)
    opened = Image.open(io.BytesIO(cut))
    assert (opened.format, opened.size) == ("JPEG", (480, 600))
    assert bench_extract.cut_photos([photos["C2"]], None, assets.pack_dir) == [photos["C2"]]


def test_what_cannot_be_measured_is_said_before_anything_is(
    folder: Path, photos: dict[str, bytes], assets: Assets, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", "extract", "--photos", str(folder), "--size", "480", "--json"]) == 2
    assert run(["bench", "extract", "--photos", str(folder), "--recipe", "fastest", "--json"]) == 2
    assert "name one of sface-yunet" in capfd.readouterr().err
    with pytest.raises(UsageError, match="no JPEG or PNG"):
        bench_extract.cut_photos([], None, assets.pack_dir)
    blank = io.BytesIO()
    Image.new("RGB", (300, 300), "grey").save(blank, "PNG")
    with pytest.raises(UsageError, match="NO_FACE"):
        bench_extract.cut_photos([photos["A1"], blank.getvalue()], (480, 600), assets.pack_dir)


def test_every_shipped_recipe_has_a_digest_of_its_own() -> None:
    names = recipe_names()
    assert names[0] == "sface-yunet"
    assert len({model_digest(recipe_card(name)) for name in names}) == len(names)
