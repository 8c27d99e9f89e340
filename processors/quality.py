"""Is a photo good enough to be enrolled or searched: measurements first, then one judgement.

The bounds stand in the model card, because what is good enough depends on the models. They keep out what cannot work (a
face of a few pixels, a smear); they do not promise that what passes will be found.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from processors.refusals import Refusal, RefusalCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from processors.detection import Face
    from processors.model_card import QualityCard

_LUMA_BGR = np.array([0.114, 0.587, 0.299])  # ITU-R BT.601
_FACE_INTERIOR = (
    (0.35, 0.9),
    (0.2, 0.8),
)  # rows and columns of the crop from brow to mouth: no hair, no edge of the photo
_NOSE_DEPTH_PER_EYE_DISTANCE = 0.5  # how far the nose tip stands before the eyes: an average, good to some degrees


def judge_face_count(faces: Sequence[Face], card: QualityCard) -> Refusal | None:
    """Refuse unless exactly one person is in the photo.

    `faces` are sorted largest first. A second face counts when its box is at least `second_face_min_ratio` times as
    wide as the largest: a poster or a passer-by far behind is no reason to refuse.
    """
    if not faces:
        return Refusal(
            code=RefusalCode.NO_FACE,
            message="No face was found: send a frontal photo with the whole face in it, upright and well lit.",
            measurements={"face_count": 0.0},
        )
    ratios = [face.box_px[2] / max(faces[0].box_px[2], 1e-9) for face in faces]
    counted = sum(ratio >= card.second_face_min_ratio for ratio in ratios)
    if counted > 1:
        return Refusal(
            code=RefusalCode.SEVERAL_FACES,
            message="More than one face was found: crop the photo to the one person it is about.",
            measurements={"face_count": float(counted), "second_face_ratio": ratios[1]},
        )
    return None


def measure_face(face: Face, crop: NDArray[np.uint8]) -> dict[str, float]:
    """Measure a face and its aligned crop `(side, side, 3)` uint8 BGR.

    Taken from brow to mouth: `sharpness`, the variance of the Laplacian over that of the luma (so that a dark or
    flat photo is not called blurred); `brightness` and `contrast`, mean and standard deviation of the luma, 0..255.
    Angles are estimates from five points: positive roll when the image-right eye is lower, positive yaw when the nose
    points to image right.
    """
    side = len(crop)
    rows, columns = (slice(round(side * low), round(side * high)) for low, high in _FACE_INTERIOR)
    luma = crop[rows, columns].astype(np.float64) @ _LUMA_BGR
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4.0 * luma[1:-1, 1:-1]
    left_eye, right_eye, nose = face.points_px[:3]
    across = right_eye - left_eye
    distance = max(face.inter_eye_px, 1e-9)
    nose_offset = float((nose - (left_eye + right_eye) / 2.0) @ across) / distance**2
    return {
        "face_score": face.score,
        "inter_eye_px": face.inter_eye_px,
        "sharpness": float(laplacian.var() / max(luma.var(), 1.0)),
        "brightness": float(luma.mean()),
        "contrast": float(luma.std()),
        "roll_deg": math.degrees(math.atan2(across[1], across[0])),
        "yaw_deg": math.degrees(math.atan(nose_offset / _NOSE_DEPTH_PER_EYE_DISTANCE)),
    }


def judge_measurements(found: Mapping[str, float], card: QualityCard) -> Refusal | None:
    """Refuse a face that is too small or too blurred to be told from others."""
    if found["inter_eye_px"] < card.min_inter_eye_px:
        return Refusal(
            code=RefusalCode.FACE_TOO_SMALL,
            message=(
                f"The eyes are {found['inter_eye_px']:.0f} pixels apart, {card.min_inter_eye_px:.0f} are needed: "
                "send the photo in its original size or one taken closer."
            ),
            measurements=found,
        )
    if found["sharpness"] < card.min_sharpness:
        return Refusal(
            code=RefusalCode.FACE_TOO_BLURRED,
            message="The face is too blurred: send a sharper photo, in focus and without motion.",
            measurements=found,
        )
    return None
