"""Measure template extraction: each recipe by the extractor that enrols and searches, beside what others would write.

Beside the recipes run two loops that know nothing of that extractor. `opencv` is what a user would write with OpenCV's
own FaceDetectorYN and FaceRecognizerSF. `findings` is the float32 recipe that the project began with: the same two
models in onnxruntime, the detector at side 320, one crop. It is written out here, so that it stays what it was while
the extractor gets faster.

All take turns at the same photos in the same processes, one a core, so that whatever else the machine does meets them
alike. Two clocks: seconds, and seconds of processor time, which on a busy machine say more.
"""

from __future__ import annotations

import cProfile
import io
import multiprocessing
import pstats
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

from connectors.face_extractor import FaceExtractor
from infra.assets import DEFAULT_CARD, load_card
from processors.alignment import similarity
from processors.detection import decode_faces
from processors.refusals import Refusal
from schemas.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from infra.bench_search import Report, Tell
    from processors.model_card import ModelCard

OPENCV, FINDINGS = "opencv", "findings"
PARTS = {
    "decode": "decode_photo",
    "detect": "_detect",
    "align": "_cut",
    "measure": "measure_face",
    "embed": "_embed",
}
"""What a part is called, and the function of the extractor that it is."""

_FACE_SHARE = 0.42  # of the width of a cut photo: about that of a booking photo
_JPEG_QUALITY = 90
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
_DETECTOR_SIDE_PX = 320
_OPENCV_MIN_SCORE, _OPENCV_OVERLAP, _OPENCV_TOP = 0.8, 0.3, 5000
_MS = 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractBench:
    """What to measure."""

    photos: Sequence[bytes]
    recipes: Mapping[str, ModelCard]
    """By the names they are reported under."""
    pack_dir: Path
    originals_dir: Path
    """The model files as they were published, which OpenCV may run too."""
    processes: int
    turns: int
    """How often each contender goes through all photos."""

    def run(self, progress: Tell) -> Report:
        """Measure everything.

        Raises:
            UsageError: a recipe refuses one of the photos.
        """
        opencv_files = _files_for_opencv(self.photos, self.pack_dir, self.originals_dir)
        self._check_photos()
        contenders = (self.recipes, self.pack_dir, opencv_files)
        spent: dict[str, list[tuple[float, float]]] = {}
        pool = ProcessPoolExecutor(
            self.processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(self.photos, *contenders),
        )
        with pool:
            progress("extracting", 0, self.turns)
            for done, turn in enumerate(pool.map(_take_turn, range(self.turns)), start=1):
                for name, times in turn.items():
                    spent.setdefault(name, []).extend(times)
                progress("extracting", done, self.turns)
        report: Report = {
            "photos": len(self.photos),
            "photo_bytes_mean": round(float(np.mean([len(photo) for photo in self.photos]))),
            "processes": self.processes,
            "extractions_each": self.turns * len(self.photos),
            "opencv_models": opencv_files.described,
        }
        for name, times in spent.items():
            seconds, processor_seconds = np.array(times).T
            report |= {
                f"{name}_templates_per_s_core": _rounded(1.0 / seconds.mean()),
                f"{name}_templates_per_processor_s": _rounded(1.0 / processor_seconds.mean()),
                f"{name}_p50_ms": _rounded(float(np.median(seconds)) * _MS),
                f"{name}_p99_ms": _rounded(float(np.percentile(seconds, 99)) * _MS),
            }
        for name in self.recipes:
            for other in (OPENCV, FINDINGS):
                rate = "templates_per_processor_s"
                report[f"{name}_over_{other}"] = _rounded(
                    float(report[f"{name}_{rate}"] or 0.0) / float(report[f"{other}_{rate}"] or 1.0)
                )
        for name, card in self.recipes.items():
            progress(f"parts of {name}", 0, 1)
            report |= {f"{name}_{part}_ms": value for part, value in self._parts(card).items()}
            progress(f"parts of {name}", 1, 1)
        return report

    def _check_photos(self) -> None:
        for name, card in self.recipes.items():
            extractor = FaceExtractor(card, self.pack_dir)
            for number, photo in enumerate(self.photos):
                found = extractor.extract(photo)
                if isinstance(found, Refusal):
                    raise UsageError(f"Recipe {name} refuses photo {number + 1} ({found.code}): take it out.")

    def _parts(self, card: ModelCard) -> dict[str, float]:
        """Return milliseconds of processor time a photo in each part, and in all that is none of them."""
        cv2.setNumThreads(1)
        extractor = FaceExtractor(card, self.pack_dir)
        profile = cProfile.Profile(time.thread_time)
        for _ in range(self.turns):
            for photo in self.photos:
                profile.runcall(extractor.extract, photo)
        stats: dict[tuple[str, int, str], tuple[int, int, float, float, Any]] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
        within: dict[str, float] = {}
        for (_, _, function), (_, _, _, cumulative, _) in stats.items():
            within[function] = within.get(function, 0.0) + cumulative
        count = self.turns * len(self.photos)
        parts = {part: within[function] / count * _MS for part, function in PARTS.items()}
        parts["rest"] = within["extract"] / count * _MS - sum(parts.values())
        return {part: _rounded(value) for part, value in parts.items()}


def photos_in(folder: Path) -> list[Path]:
    """Return the JPEG and PNG files of a folder, in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)


def cut_photos(photos: Sequence[bytes], size: tuple[int, int] | None, pack_dir: Path) -> list[bytes]:
    """Return the photos as they are or, with `size` (width, height), cut round their face and written as JPEG.

    Raises:
        UsageError: a photo to be cut shows no face, or there are no photos.
    """
    if not photos:
        raise UsageError("There is no JPEG or PNG photo in that folder.")
    if size is None:
        return list(photos)
    extractor = FaceExtractor(load_card(DEFAULT_CARD), pack_dir)
    return [_cut_round_face(photo, size, extractor) for photo in photos]


def _cut_round_face(photo: bytes, size: tuple[int, int], extractor: FaceExtractor) -> bytes:
    found = extractor.extract(photo)
    if isinstance(found, Refusal):
        raise UsageError(f"A photo is refused ({found.code}) and cannot be cut round its face: take it out.")
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(photo))).convert("RGB")
    left, top, width, height = found.box_px
    shape = size[0] / size[1]
    wide = min(image.width, image.height * shape, width / _FACE_SHARE)
    high = wide / shape
    x = min(max(left + (width - wide) / 2.0, 0.0), image.width - wide)
    y = min(max(top + (height - high) / 2.0, 0.0), image.height - high)
    target = io.BytesIO()
    cut = image.resize(size, Image.Resampling.LANCZOS, box=(x, y, x + wide, y + high))
    cut.save(target, "JPEG", quality=_JPEG_QUALITY)
    return target.getvalue()


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenCVFiles:
    """The files that OpenCV runs fastest, and what was tried."""

    detector: Path
    recogniser: Path
    described: str


def _files_for_opencv(photos: Sequence[bytes], pack_dir: Path, originals_dir: Path) -> _OpenCVFiles:
    """Try the published int8 files and the float32 ones on one photo; take the faster pair that runs."""
    card = load_card(DEFAULT_CARD)
    float32 = (pack_dir / card.detector.file, pack_dir / card.recogniser.file)
    published = tuple(originals_dir / f"{path.stem}_int8bq.onnx" for path in float32)
    times: dict[str, float] = {}
    cv2.setNumThreads(1)
    for kind, (detector, recogniser) in (("float32", float32), ("int8bq", published)):
        try:
            loop = _opencv_loop(detector, recogniser)
            loop(photos[0])
            times[kind] = min(_clocked(loop, photos[0])[1] for _ in range(3))
        except cv2.error:
            times[kind] = float("inf")
    fastest = min(times, key=lambda kind: times[kind])
    tried = [
        f"{kind} {'does not run' if value == float('inf') else f'{value * _MS:.1f} ms'}"
        for kind, value in times.items()
    ]
    chosen = published if fastest == "int8bq" else float32
    return _OpenCVFiles(
        detector=chosen[0],
        recogniser=chosen[1],
        described=f"{fastest} of OpenCV {cv2.__version__} ({', '.join(tried)})",
    )


def _opencv_loop(detector_file: Path, recogniser_file: Path) -> Callable[[bytes], object]:
    """Return what a user of OpenCV writes: detect in the whole photo, align, feature."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # it warns of targets that nobody asked for
    detector = cv2.FaceDetectorYN.create(
        str(detector_file), "", (1, 1), _OPENCV_MIN_SCORE, _OPENCV_OVERLAP, _OPENCV_TOP
    )
    recogniser = cv2.FaceRecognizerSF.create(str(recogniser_file), "")

    def extract(photo: bytes) -> object:
        image: Any = cv2.imdecode(np.frombuffer(photo, dtype=np.uint8), cv2.IMREAD_COLOR)
        detector.setInputSize((image.shape[1], image.shape[0]))
        _, faces = detector.detect(image)
        return None if faces is None else recogniser.feature(recogniser.alignCrop(image, faces[0]))

    return extract


def _findings_loop(card: ModelCard, pack_dir: Path) -> Callable[[bytes], object]:
    """Return the first float32 recipe, written down plainly; it takes any photo to hold one face."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    open_ = onnxruntime.InferenceSession
    detector = open_(pack_dir / card.detector.file, options, providers=["CPUExecutionProvider"])
    recogniser = open_(pack_dir / card.recogniser.file, options, providers=["CPUExecutionProvider"])
    outputs = [value.name for value in detector.get_outputs()]
    target = np.array(card.alignment.points_px)
    side = card.alignment.crop_side_px

    def extract(photo: bytes) -> object:
        opened = Image.open(io.BytesIO(photo)).convert("RGB")
        image = np.ascontiguousarray(np.asarray(opened)[:, :, ::-1])
        scale = _DETECTOR_SIDE_PX / max(image.shape[:2])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        square = np.zeros((_DETECTOR_SIDE_PX, _DETECTOR_SIDE_PX, 3), dtype=np.uint8)
        square[: small.shape[0], : small.shape[1]] = small
        answers = detector.run(outputs, {"input": square.astype(np.float32).transpose(2, 0, 1)[None]})
        named = dict(zip(outputs, answers, strict=True))
        faces = decode_faces(named, card.detector, side_px=_DETECTOR_SIDE_PX, scale=scale)
        matrix = similarity(faces[0].points_px, target) if faces else None
        if matrix is None:
            return None
        crop = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR)
        vector = recogniser.run(["fc1"], {"data": crop[:, :, ::-1].astype(np.float32).transpose(2, 0, 1)[None]})[0]
        return vector / np.linalg.norm(vector)

    return extract


_photos: Sequence[bytes] = ()
_loops: dict[str, Callable[[bytes], object]] = {}


def _begin(
    photos: Sequence[bytes], recipes: Mapping[str, ModelCard], pack_dir: Path, opencv_files: _OpenCVFiles
) -> None:
    """Begin a process of the pool: one core, everything opened and run once; Ctrl-C is for the one that asked."""
    global _photos  # noqa: PLW0603 - a process of a pool has no other place to keep what it opened
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    _photos = photos
    for name, card in recipes.items():
        _loops[name] = FaceExtractor(card, pack_dir).extract
    _loops[FINDINGS] = _findings_loop(load_card(DEFAULT_CARD), pack_dir)
    _loops[OPENCV] = _opencv_loop(opencv_files.detector, opencv_files.recogniser)
    for loop in _loops.values():
        loop(photos[0])


def _take_turn(number: int) -> dict[str, list[tuple[float, float]]]:
    """Let every contender go through the photos, photo by photo; another one is first in each turn."""
    names = list(_loops)
    first = number % len(names)
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for photo in _photos:
        for name in names[first:] + names[:first]:
            spent[name].append(_clocked(_loops[name], photo))
    return spent


def _clocked(work: Callable[[bytes], object], photo: bytes) -> tuple[float, float]:
    """Return seconds and seconds of processor time, those of helping threads included."""
    began, began_processor = time.perf_counter(), time.process_time()
    work(photo)
    return time.perf_counter() - began, time.process_time() - began_processor


def _rounded(value: float) -> float:
    return round(float(value), 3)


COLUMNS = ("loop", "per s", "per cpu s", "p50", "p99", *PARTS, "rest")
"""Templates a second, and a second of processor time, of one core; then milliseconds."""


def rows_for_people(report: Report, recipes: Sequence[str]) -> list[tuple[object, ...]]:
    """Return a line a contender, under `COLUMNS`."""
    measured = ("templates_per_s_core", "templates_per_processor_s", "p50_ms", "p99_ms")
    names = (*measured, *(f"{part}_ms" for part in (*PARTS, "rest")))
    return [
        (contender, *(report.get(f"{contender}_{name}", "") for name in names))
        for contender in (*recipes, FINDINGS, OPENCV)
    ]
