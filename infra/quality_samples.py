"""Photos with known persons, as taken and spoiled on purpose, through the production extraction.

What `infra/quality_calibration.py` fits the unified score to. The spoiling is fixed and the same for every pack: sizes
are in eye distances, so that a small photo is spoiled as much as a large one.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from connectors.face_extractor import FaceExtractor
from processors.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from processors.model_card import ModelCard

FRONTAL, OTHER = "frontal", "other"
SPOILED_A_PERSON = 2
_QUALITY = 95  # of the JPEG that a spoiled photo is written as
_NO_FLOOR = 1e-9
Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One photo that has a template. `kind` is frontal, other, or how a frontal photo was spoiled."""

    person: str
    photo: str
    kind: str
    template: NDArray[np.float32] = field(repr=False)
    face_score: float
    face_share_percent: float
    vector_length: float


def collect(
    folder: Path, frontal: str, card: ModelCard, pack_dir: Path, *, threads: int, tell: Callable[[int, int], None]
) -> tuple[list[Sample], int]:
    """Return what the pack makes of a folder with one folder a person, and how many photos gave no template.

    Photos that match `frontal` are what others are compared with; two of each person are spoiled. The card's floors
    are lifted, because a score that is to tell bad from good must have seen both.
    """
    quality = replace(card.quality, min_inter_eye_px=_NO_FLOOR, min_sharpness=_NO_FLOOR)
    extractor = FaceExtractor(replace(card, quality=quality), pack_dir)
    work = list(_photos(folder, frontal))
    done: list[Sample | None] = []
    with ThreadPoolExecutor(threads) as pool:
        for samples in pool.map(lambda job: _extract(extractor, *job), work):
            done += samples
            tell(len(done), sum(len(SPOILED) * spoiled + 1 for _, _, spoiled in work))
    found = [sample for sample in done if sample is not None]
    return found, len(done) - len(found)


def _photos(folder: Path, frontal: str) -> Iterator[tuple[Path, str, bool]]:
    for person in sorted(path for path in folder.iterdir() if path.is_dir()):
        wanted = {path.name for path in person.glob(frontal)}
        names = sorted(path.name for path in person.iterdir() if path.is_file())
        spoiled = set([name for name in names if name in wanted][3::4][:SPOILED_A_PERSON])
        for name in names:
            yield person / name, FRONTAL if name in wanted else OTHER, name in spoiled


def _extract(extractor: FaceExtractor, path: Path, kind: str, spoiled: bool) -> Sequence[Sample | None]:  # noqa: FBT001 - a row of a list of work
    photo = path.read_bytes()
    first = _sample(extractor, photo, path, kind)
    if not spoiled:
        return [first[0]]
    if first[1] <= 0.0:
        return [first[0], *[None] * len(SPOILED)]
    image = np.asarray(cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR), dtype=np.uint8)
    return [first[0], *(_sample(extractor, spoil(image, first[1]), path, name)[0] for name, spoil in SPOILED.items())]


def _sample(extractor: FaceExtractor, photo: bytes, path: Path, kind: str) -> tuple[Sample | None, float]:
    found = extractor.extract(photo)
    if isinstance(found, Refusal):
        return None, 0.0
    return Sample(
        person=path.parent.name,
        photo=path.name,
        kind=kind,
        template=found.template,
        face_score=found.measurements["face_score"],
        face_share_percent=found.measurements["face_share_percent"],
        vector_length=found.measurements["vector_length"],
    ), found.measurements["inter_eye_px"]


def _written(image: NDArray[Any], quality: int = _QUALITY) -> bytes:
    written, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not written:
        raise ValueError("A spoiled photo could not be written as JPEG.")
    return data.tobytes()


def _blurred(eye_distances: float) -> Callable[[Image, float], bytes]:
    return lambda image, eyes_px: _written(cv2.GaussianBlur(image, (0, 0), eye_distances * eyes_px))


def _moved(eye_distances: float) -> Callable[[Image, float], bytes]:
    def spoil(image: Image, eyes_px: float) -> bytes:
        length = max(3, int(eye_distances * eyes_px) | 1)
        return _written(cv2.filter2D(image, -1, np.full((1, length), 1.0 / length, dtype=np.float32)))

    return spoil


def _shrunk(to_eyes_px: float) -> Callable[[Image, float], bytes]:
    def spoil(image: Image, eyes_px: float) -> bytes:
        scale = min(to_eyes_px / eyes_px, 1.0)
        return _written(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))

    return spoil


def _lit(gain: float) -> Callable[[Image, float], bytes]:
    return lambda image, _: _written(np.clip(image.astype(np.float32) * gain, 0, 255).astype(np.uint8))


def _flattened(contrast: float) -> Callable[[Image, float], bytes]:
    return lambda image, _: _written(((image.astype(np.float32) - 128.0) * contrast + 128.0).astype(np.uint8))


def _turned(angle_deg: float) -> Callable[[Image, float], bytes]:
    def spoil(image: Image, _: float) -> bytes:
        height, width = image.shape[:2]
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle_deg, 1.0)
        return _written(cv2.warpAffine(image, turn, (width, height)))

    return spoil


def _framed(times: float) -> Callable[[Image, float], bytes]:
    def spoil(image: Image, _: float) -> bytes:
        height, width = (round(side * times) for side in image.shape[:2])
        grey = cv2.BORDER_CONSTANT
        return _written(cv2.copyMakeBorder(image, height, height, width, width, grey, value=(128, 128, 128)))

    return spoil


FRAMED = ("border x 1", "border x 2")
"""A border spoils nothing: what it changes is framing."""
SPOILED: dict[str, Callable[[Image, float], bytes]] = {
    "blur .06": _blurred(0.06),
    "blur .10": _blurred(0.10),
    "blur .15": _blurred(0.15),
    "motion .3": _moved(0.3),
    "eyes 20 px": _shrunk(20.0),
    "eyes 14 px": _shrunk(14.0),
    "light x 0.2": _lit(0.2),
    "light x 0.07": _lit(0.07),
    "light x 2": _lit(2.0),
    "light x 3.5": _lit(3.5),
    "contrast x 0.25": _flattened(0.25),
    "JPEG 20": lambda image, _: _written(image, 20),
    "JPEG 8": lambda image, _: _written(image, 8),
    "turned 25 deg": _turned(25.0),
    "border x 1": _framed(1.0),
    "border x 2": _framed(2.0),
}
"""How a photo is spoiled: by name, from the image and the distance of its eyes in pixels."""
