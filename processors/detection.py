"""Read a detector's answer: anchor grids to faces, overlapping boxes to one.

Pure arithmetic on the outputs of one image; how the outputs are named and encoded stands in the model card. The YuNet
encoding is the one of OpenCV's FaceDetectorYN; edge distances are those of FCOS (Tian et al., 2019) and SCRFD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from processors.model_card import FACE_POINTS, BoxEncoding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from processors.model_card import DetectorCard

_SAME_FACE_OVERLAP = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Face:
    """One detected face in pixels of the decoded photo: box (left, top, width, height), points `(5, 2)`, score 0..1."""

    box_px: tuple[float, float, float, float]
    points_px: NDArray[np.float64]
    score: float

    @property
    def inter_eye_px(self) -> float:
        """Return the distance between the two eye centres."""
        return float(np.linalg.norm(self.points_px[1] - self.points_px[0]))

    def enlarged(self, times: int) -> Face:
        """Return the face as it lies in the photo with `times` as many pixels each way."""
        if times == 1:
            return self
        left, top, width, height = (edge * times for edge in self.box_px)
        points = (self.points_px + 0.5) * times - 0.5  # positions are those of the middles of pixels
        return Face(box_px=(left, top, width, height), points_px=points, score=self.score)


def decode_faces(
    outputs: Mapping[str, NDArray[Any]], card: DetectorCard, *, side_px: int, scale: float
) -> tuple[Face, ...]:
    """Return the faces of one image, largest box first.

    `outputs` are the detector's, of a batch of one square of `side_px`; `scale` is how many of its pixels one pixel of
    the photo became.
    """
    boxes, points, scores = (np.concatenate(parts) for parts in zip(*_per_stride(outputs, card, side_px), strict=True))
    sound = np.isfinite(boxes).all(axis=1) & np.isfinite(points).all(axis=(1, 2))
    boxes, points, scores = boxes[sound], points[sound], scores[sound]
    faces = [
        Face(
            box_px=(float(left), float(top), float(right - left), float(bottom - top)),
            points_px=_agreed_points(index, boxes, points, scores) / scale,
            score=float(scores[index]),
        )
        for index in suppress(boxes, scores, max_overlap=card.max_overlap)
        for left, top, right, bottom in [boxes[index] / scale]
    ]
    return tuple(sorted(faces, key=lambda face: -face.box_px[2] * face.box_px[3]))


def suppress(boxes: NDArray[np.float64], scores: NDArray[np.float64], *, max_overlap: float) -> list[int]:
    """Return the indices of the boxes to keep, best score first: none overlaps a better one by more than `max_overlap`.

    `boxes` are `(n, 4)` left, top, right, bottom; overlap is intersection over union.
    """
    waiting = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while waiting.size:
        best, others = int(waiting[0]), waiting[1:]
        kept.append(best)
        waiting = others[_overlaps(boxes[best], boxes[others]) <= max_overlap]
    return kept


def _overlaps(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return intersection over union of a box `(4,)` with each of the others `(n, 4)`."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared: NDArray[np.float64] = np.clip(high - low, 0.0, None).prod(axis=1)
    area, areas = (box[2:] - box[:2]).prod(), (others[:, 2:] - others[:, :2]).prod(axis=1)
    union = np.maximum(area + areas - shared, np.finfo(np.float64).tiny)
    overlaps: NDArray[np.float64] = shared / union
    return overlaps


def _agreed_points(
    index: int, boxes: NDArray[np.float64], points: NDArray[np.float64], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the points of a face as the mean of all anchors that see that face, weighted by their scores.

    The best anchor is hardly better than the next ones, and its points are often a good deal off.
    """
    same = _overlaps(boxes[index], boxes) >= _SAME_FACE_OVERLAP
    same[index] = True
    agreed: NDArray[np.float64] = np.average(points[same], axis=0, weights=scores[same])
    return agreed


def _per_stride(
    outputs: Mapping[str, NDArray[Any]], card: DetectorCard, side_px: int
) -> list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]:
    """Return boxes `(n, 4)` as edges, points `(n, 5, 2)` and scores `(n,)` of each stride, in pixels of the square.

    Only of the anchors with a sufficient score: of thousands a handful, and the arithmetic is for them alone.
    """
    parts = []
    for stride in card.strides:
        cells = side_px // stride
        rows = cells * cells * card.anchors_per_cell

        def output(name: str, width: int, stride: int = stride, rows: int = rows) -> NDArray[Any]:
            return outputs[name.format(stride=stride)].reshape(rows, width)

        confidences = [np.clip(output(name, 1)[:, 0].astype(np.float64), 0.0, 1.0) for name in card.score_outputs]
        every_score = np.prod(confidences, axis=0) ** (1.0 / len(confidences))
        kept = np.flatnonzero(every_score >= card.min_score)
        cell_rows, cell_columns = np.divmod(kept // card.anchors_per_cell, cells)
        anchors = np.stack([cell_columns, cell_rows], axis=1).astype(np.float64)
        raw = output(card.box_output, 4)[kept].astype(np.float64)
        if card.box_encoding is BoxEncoding.CENTRE_LOG_SIZE:
            centres, halves = anchors + raw[:, :2], np.exp(np.minimum(raw[:, 2:], 20.0)) / 2.0
            edges = np.concatenate([centres - halves, centres + halves], axis=1)
        else:
            edges = np.concatenate([anchors - raw[:, :2], anchors + raw[:, 2:]], axis=1)
        offsets = output(card.points_output, FACE_POINTS * 2)[kept].astype(np.float64).reshape(-1, FACE_POINTS, 2)
        parts.append((edges * stride, (offsets + anchors[:, None, :]) * stride, every_score[kept]))
    return parts
