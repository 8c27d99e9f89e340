"""A worker that extracts in its own process and aborts on one photo; the product does neither. For `test_poison.py`.

Arguments: data folder, worker's name, SHA-256 of the photo.
"""

from __future__ import annotations

import os
import resource
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from connectors import face_extractor
from infra import roles, wiring
from infra.settings import load_settings

if TYPE_CHECKING:
    from connectors.image_decoder import DecodedPhoto, DecodeLimits
    from infra.extracting import Recipe
    from infra.settings import Settings
    from processors.refusals import Refusal

DATA, NAME, POISON_SHA256 = sys.argv[1:]
decode_photo = face_extractor.decode_photo


def decode_or_abort(data: bytes, limits: DecodeLimits, *, enough_px: int | None) -> DecodedPhoto | Refusal:
    if sha256(data).hexdigest() == POISON_SHA256:
        os.abort()
    return decode_photo(data, limits, enough_px=enough_px)


def in_its_own_process(_: Settings, recipe: Recipe) -> face_extractor.FaceExtractor:
    return face_extractor.FaceExtractor(recipe.card, recipe.pack_dir)


resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
face_extractor.decode_photo = decode_or_abort
wiring.extraction_processes = in_its_own_process  # type: ignore[assignment]
roles.run_worker(load_settings(Path(DATA)), NAME)
