"""What component tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from connectors.face_extractor import FaceExtractor

if TYPE_CHECKING:
    from infra.assets import Assets


@pytest.fixture(scope="session")
def extractor(assets: Assets) -> FaceExtractor:
    return FaceExtractor(assets.card, assets.pack_dir)
