"""What component tests share: the pinned assets, fetched once into the cache that every run of the tests uses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from connectors.face_extractor import FaceExtractor
from infra.assets import Assets, fetch


@pytest.fixture(scope="session")
def asset_cache() -> Path:
    return Path(os.environ.get("LEADSTREAM_ASSETS") or Path.home() / ".cache" / "leadstream")


@pytest.fixture(scope="session")
def assets(asset_cache: Path) -> Assets:
    return fetch(asset_cache, print)


@pytest.fixture(scope="session")
def photos(assets: Assets) -> dict[str, bytes]:
    """The sample photos by neutral name: "A1" is subject A's first."""
    return {f"{photo.subject}{photo.number}": photo.path.read_bytes() for photo in assets.photos}


@pytest.fixture(scope="session")
def extractor(assets: Assets) -> FaceExtractor:
    return FaceExtractor(assets.card, assets.pack_dir)
