"""Run a pack of face models: from the bytes of a photo to its template.

Decode, detect, judge, align, embed. The pack is any pair of ONNX files that a model card describes. One extractor may
be used from several threads at once; each call computes on the calling thread, so the caller decides how many cores it
takes and keeps it off the event loop. The same bytes give the same template whatever was extracted before (G7).
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnxruntime

from connectors.image_decoder import DecodedPhoto, DecodeLimits, decode_image, decode_photo
from processors.alignment import mirrored, scale_of, similarity
from processors.detection import Face, decode_faces
from processors.extraction import ExtractedFace, Extraction
from processors.model_card import ColourOrder, Layout, model_digest
from processors.quality import judge_face_count, judge_measurements, measure_face, unified_quality
from processors.refusals import Refusal, RefusalCode
from processors.templates import to_template, unit
from schemas.errors import ContractError, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from processors.model_card import ModelCard, ModelInput

_PORTRAIT_FACE_SHARE = 0.55  # of a portrait's side, taken by what the recogniser's crop shows
_SECOND_LOOK_BOXES = 2.2  # side of the square of a second look, in lengths of the longer side of the face's box
_ENOUGH_FINER = 2.0  # a photo that is decoded smaller still has this many pixels for one of the recogniser's crop
_DEFAULT_LIMITS = DecodeLimits()


class FaceExtractor:
    """The two sessions of a pack, opened once; construct it with the card and the folder that holds the card's files.

    Raises (on construction):
        IntegrityError: a file is missing or its SHA-256 is not the card's.
        ContractError: a file is no model that onnxruntime can run, or lacks an input or output that the card names.
    """

    def __init__(self, card: ModelCard, pack_dir: Path, *, limits: DecodeLimits = _DEFAULT_LIMITS) -> None:
        self.card = card
        self.model_digest = model_digest(card)
        self._limits = limits
        self._target = np.array(card.alignment.points_px, dtype=np.float64)
        centre = card.recipe.centre or (0.0,) * card.recogniser.dimension
        self._centre = np.array(centre, dtype=np.float64)
        detector, recogniser = card.detector, card.recogniser
        self._detector_outputs = [
            name.format(stride=stride)
            for stride in detector.strides
            for name in (*detector.score_outputs, detector.box_output, detector.points_output)
        ]
        self._detector = _open(pack_dir / detector.file, detector.sha256, detector.input.name, self._detector_outputs)
        self._recogniser = _open(
            pack_dir / recogniser.file, recogniser.sha256, recogniser.input.name, [recogniser.output_name]
        )

    def extract(self, photo: bytes) -> Extraction:
        """Return the template of the one person in the photo, or the refusal that tells what is wrong with it."""
        seen = self._look(photo)
        if isinstance(seen, Refusal):
            return seen
        decoded, faces = seen
        refusal = judge_face_count(faces, self.card.quality)
        if refusal is not None:
            return refusal
        image, times = decoded.pixels, decoded.reduced
        crop = _cut(image, faces[0].points_px, self._target, self.card.alignment.crop_side_px)
        if crop is None:
            return _no_position()
        in_photo = [face.enlarged(times) for face in faces]
        found = measure_face(in_photo, crop, self.card.alignment, (image.shape[1] * times, image.shape[0] * times))
        refusal = judge_measurements(found, self.card.quality)
        if refusal is not None:
            return refusal
        vectors = self._follow_recipe(image, faces[0], crop)
        found["vector_length"] = float(np.linalg.norm(vectors[0]))
        found["unified_quality"] = unified_quality(found, self.card.quality.unified)
        return ExtractedFace(
            template=to_template(unit(vectors.sum(axis=0)) - self._centre),
            model_digest=self.model_digest,
            measurements=found,
            box_px=in_photo[0].box_px,
        )

    def portrait(self, photo: bytes, *, side_px: int) -> NDArray[np.uint8] | Refusal:
        """Return the head of the one person, upright, `(side_px, side_px, 3)` uint8 RGB, for people to look at."""
        image = decode_image(photo, self._limits)
        if isinstance(image, Refusal):
            return image
        faces = self._faces(image)
        refusal = judge_face_count(faces, self.card.quality)
        if refusal is not None:
            return refusal
        inner = side_px * _PORTRAIT_FACE_SHARE
        target = self._target * (inner / self.card.alignment.crop_side_px) + (side_px - inner) / 2.0
        cut = _cut(image, faces[0].points_px, target, side_px)
        return _no_position() if cut is None else np.ascontiguousarray(cut[:, :, ::-1])

    def landmarks(self, photo: bytes) -> NDArray[np.float64] | Refusal:
        """Return the five points of the one face as shares of width and height, `(5, 2)` float64, to be shown."""
        image = decode_image(photo, self._limits)
        if isinstance(image, Refusal):
            return image
        faces = self._faces(image)
        refusal = judge_face_count(faces, self.card.quality)
        if refusal is not None:
            return refusal
        return (faces[0].points_px + 0.5) / np.array([image.shape[1], image.shape[0]], dtype=np.float64)

    def _look(self, photo: bytes) -> tuple[DecodedPhoto, tuple[Face, ...]] | Refusal:
        """Decode a photo as small as its face allows and find the faces, in pixels of what was decoded."""
        needed_px = _ENOUGH_FINER * float(np.linalg.norm(self._target[1] - self._target[0]))
        decoded = decode_photo(photo, self._limits, enough_px=max(self.card.detector.sides_px))
        if isinstance(decoded, Refusal):
            return decoded
        faces = self._faces(decoded.pixels)
        if decoded.reduced > 1 and not (faces and faces[0].inter_eye_px >= needed_px):
            decoded = decode_photo(photo, self._limits, enough_px=None)
            if isinstance(decoded, Refusal):
                return decoded
            faces = self._faces(decoded.pixels)
        return decoded, faces

    def _faces(self, image: NDArray[np.uint8]) -> tuple[Face, ...]:
        """Return the faces, largest first: the card's sides one after the other, the first that shows one decides."""
        faces: tuple[Face, ...] = ()
        for side in self.card.detector.sides_px:
            faces = self._detect(image, side)
            if faces:
                break
        return faces

    def _detect(self, image: NDArray[np.uint8], side: int) -> tuple[Face, ...]:
        """Fit the photo into the upper left of a black square and ask the detector."""
        square, scale = _fitted(image, side)
        fed = {self.card.detector.input.name: _as_input(square, self.card.detector.input)}
        answers = self._detector.run(self._detector_outputs, fed)
        outputs = dict(zip(self._detector_outputs, answers, strict=True))
        return decode_faces(outputs, self.card.detector, side_px=side, scale=scale)

    def _follow_recipe(self, image: NDArray[np.uint8], face: Face, crop: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the vectors `(n, d)` of the crops that the recipe wants; that of `crop` comes first."""
        recipe = self.card.recipe
        crops = [crop]
        if recipe.second_look_px is not None:
            points = self._look_again(image, face, recipe.second_look_px)
            again = None if points is None else _cut(image, points, self._target, len(crop))
            crops += [] if again is None else [again]
        if recipe.mirrored:
            crops += [np.ascontiguousarray(each[:, ::-1]) for each in crops]
        return np.stack([self._embed(each).astype(np.float64) for each in crops])

    def _look_again(self, image: NDArray[np.uint8], face: Face, side: int) -> NDArray[np.float64] | None:
        """Return the points `(5, 2)` of a face seen anew in a square round its box; None if it is not seen there.

        Every face then has the same size in the square, which detectors place more evenly; the mean of what is found
        upright and mirrored has no error that prefers a side.
        """
        left, top, width, height = face.box_px
        half = max(width, height) * _SECOND_LOOK_BOXES / 2.0
        corner = np.array([left + width / 2.0 - half, top + height / 2.0 - half])
        square = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        seen = _cut(image, corner + square * (2.0 * half), square * side, side)
        if seen is None:
            return None
        in_mirror = np.ascontiguousarray(seen[:, ::-1])
        found = [each.points_px for each in self._detect(seen, side)[:1]]
        found += [mirrored(each.points_px, side) for each in self._detect(in_mirror, side)[:1]]
        return corner + np.mean(found, axis=0) * (2.0 * half / side) if found else None

    def _embed(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the recogniser's raw vector `(d,)`; one face a call, so that no batch can change it (G7)."""
        recogniser = self.card.recogniser
        fed = {recogniser.input.name: _as_input(crop, recogniser.input)}
        vector = np.asarray(self._recogniser.run([recogniser.output_name], fed)[0], dtype=np.float32).reshape(-1)
        if vector.size != recogniser.dimension:
            raise ContractError(
                f"The recogniser returned {vector.size} numbers, the card says {recogniser.dimension}: correct it."
            )
        return vector


def _open(path: Path, sha256: str, input_name: str, output_names: list[str]) -> onnxruntime.InferenceSession:
    """Open a model whose bytes are the card's, for use by the calling thread alone."""
    try:
        model = path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"The model file {path} cannot be read: run `leadstream assets fetch`.") from error
    if hashlib.sha256(model).hexdigest() != sha256:
        raise IntegrityError(f"The model file {path} is not the one in the model card: run `leadstream assets fetch`.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise ContractError(f"onnxruntime cannot run {path}: give it a model that it can.") from error
    present = {value.name for value in (*session.get_inputs(), *session.get_outputs())}
    missing = {input_name, *output_names} - present
    if missing:
        raise ContractError(
            f"The model {path} has no {', '.join(sorted(missing))}: correct the names in the model card."
        )
    return session


def _as_input(image: NDArray[np.uint8], card: ModelInput) -> NDArray[np.float32]:
    """Turn `(h, w, 3)` uint8 BGR into the batch of one that the card describes."""
    height, width = image.shape[:2]
    planes_first = card.layout is Layout.NCHW
    batch = np.empty((1, 3, height, width) if planes_first else (1, height, width, 3), dtype=np.float32)
    planes = batch[0] if planes_first else batch[0].transpose(2, 0, 1)
    colours = cv2.split(image)
    ordered = colours if card.colour_order is ColourOrder.BGR else colours[::-1]
    for plane, colour, mean in zip(planes, ordered, card.mean, strict=True):
        plane[...] = colour  # a plane at a time stays in the cache
        if mean:
            np.subtract(plane, np.float32(mean), out=plane)
        if card.scale != 1.0:
            np.multiply(plane, np.float32(card.scale), out=plane)
    return batch


def _fitted(image: NDArray[np.uint8], side: int) -> tuple[NDArray[np.uint8], float]:
    """Fit a photo into the upper left of a black square; return that and by how much the photo was scaled.

    First by averaging whole pixels, which is fast, then by less than half with interpolation.
    """
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    together = min(int(1.0 / scale), height, width)
    if together > 1:  # the last pixels that fill no group are left out: a stretch of less than a pixel of the square
        rows, columns = height // together, width // together
        whole = image[: rows * together, : columns * together]
        image = np.asarray(cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    square = np.zeros((side, side, 3), dtype=np.uint8)
    square[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return square, scale


def _cut(
    image: NDArray[np.uint8], points: NDArray[np.float64], target: NDArray[np.float64], side: int
) -> NDArray[np.uint8] | None:
    """Cut the square in which the points come to lie on target, or None if they have no position."""
    matrix = similarity(points, target)
    if matrix is None:
        return None
    # Take as many samples as the photo has pixels there, and average them: what interpolation would skip over makes
    # the crop of a large photo grainy. Never more than the photo has, wherever the points are said to lie.
    height, width = image.shape[:2]
    samples = max(1, min(round(1.0 / scale_of(matrix)), int(math.sqrt(height * width) / side)))
    finer = matrix * samples
    finer[:, 2] += (samples - 1) / 2.0  # positions are those of the middles of pixels
    size = (side * samples, side * samples)
    warped: Any = cv2.warpAffine(image, finer, size, flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0))
    if samples > 1:
        warped = cv2.resize(warped, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(warped, dtype=np.uint8)


def _no_position() -> Refusal:
    return Refusal(
        code=RefusalCode.NO_FACE,
        message="The eyes, nose and mouth could not be located: send a frontal photo with the whole face in it.",
    )
