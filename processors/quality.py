"""Is a photo good enough to be enrolled or searched: measurements first, then the judgements.

Two judges read the measurements. The model card keeps out what its models cannot do (a face of a few pixels, a smear),
before a template is made. The policy (`processors/policy.py`) says what the bureau enrols and what it searches, after.
Neither promises that what passes will be found.

Names and meaning follow ISO/IEC 29794-5 and its reference implementation OFIQ where they have such a component;
`docs/quality.md` has the table, and says what each is not. OFIQ has networks for what five points and the pixels of a
crop cannot tell (occlusion, expression, eyes open): that is left out here, not guessed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from processors.alignment import scale_of, similarity
from processors.refusals import Refusal, RefusalCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from processors.detection import Face
    from processors.model_card import AlignmentCard, QualityCard, UnifiedQualityCard

_LUMA_BGR = np.array([0.114, 0.587, 0.299])  # ITU-R BT.601
_FACE_INTERIOR = (
    (0.35, 0.9),
    (0.2, 0.8),
)  # rows and columns of the crop from brow to mouth: no hair, no edge of the photo
# The shape of a frontal face in eye distances: means over 1,500 frontal photos as the default detector sees them.
_NOSE_BELOW_EYES = 0.569
_MOUTH_BELOW_EYES = 1.028
_NOSE_DEPTH = 0.5  # how far the nose tip stands before the eyes, in eye distances: an average, good to some degrees
_DARKEST = 25.0  # luma up to here is called under-exposed,
_BRIGHTEST = 247.0  # and from here over-exposed, as in OFIQ
_LEVELS = 256
_MAX_BITS = 8.0
# How far the head reaches beyond the outer eye centre to the side, and beyond the eyes up and down, in eye distances.
_HEAD_BESIDE_EYE = 0.65
_HEAD_ABOVE_EYES = 1.9
_HEAD_BELOW_EYES = 1.9
_MAX_HALVINGS = 3.0  # nothing smaller was measured
_HALF_SHARP = 0.1  # sharpness whose quality is 50
_TINY = 1e-9

_WORDS = {
    "unified_quality": "quality {:.0f} of 100",
    "inter_eye_px": "eyes {:.0f} px apart",
    "yaw_deg": "head turned {:.0f} degrees",
    "pitch_deg": "bowed {:.0f}",
    "roll_deg": "tilted {:.0f}",
    "sharpness": "sharpness {:.2f}",
    "underexposed_percent": "{:.0f} % too dark",
    "overexposed_percent": "{:.0f} % too bright",
    "cropped_percent": "{:.0f} % beyond the edge",
}


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
    ratios = [_width_ratio(face, faces[0]) for face in faces]
    counted = sum(ratio >= card.second_face_min_ratio for ratio in ratios)
    if counted > 1:
        return Refusal(
            code=RefusalCode.SEVERAL_FACES,
            message="More than one face was found: crop the photo to the one person it is about.",
            measurements={"face_count": float(counted), "second_face_ratio": ratios[1]},
        )
    return None


def measure_face(
    faces: Sequence[Face], crop: NDArray[np.uint8], alignment: AlignmentCard, photo_size_px: tuple[int, int]
) -> dict[str, float]:
    """Measure the largest face and its aligned crop `(side, side, 3)` uint8 BGR; `docs/quality.md` explains each.

    `faces` are all that were found, largest first; `photo_size_px` is width, height. Native measures have their unit in
    the name; what ends in `_quality` is a component value, 0 (worst) to 100. All are finite for any finite points.
    Angles are estimates from five points: positive roll when the image-right eye is lower, positive yaw when the nose
    points to image right, positive pitch when it points down.
    """
    found = {
        "face_count": float(len(faces)),
        "second_face_ratio": _width_ratio(faces[1], faces[0]) if len(faces) > 1 else 0.0,
        "face_score": faces[0].score,
        "face_share_percent": _percent(max(faces[0].box_px[2:]) / max(photo_size_px)),
        "inter_eye_px": faces[0].inter_eye_px,
    }
    inside = _interior(_shown(len(crop), faces[0].points_px, np.array(alignment.points_px), photo_size_px))
    found |= _pose(faces[0].points_px)
    found |= _light(_interior(crop).astype(np.float64) @ _LUMA_BGR, inside)
    found |= _margins(faces[0].points_px, photo_size_px)
    found["cropped_percent"] = 100.0 * (1.0 - float(inside.mean()))
    seen_by_model = float(np.hypot(*np.subtract(alignment.points_px[1], alignment.points_px[0])))
    return found | _components(found, seen_by_model)


def unified_quality(found: Mapping[str, float], card: UnifiedQualityCard | None) -> float:
    """Return how likely the photo is to be told to be its person's, 0 to 100: the one score that predicts errors.

    100 times a logistic of the detector's score, for the size at which it saw the face, and of the length of the
    recogniser's answer before normalisation. Without a calibration in the card it is the detector's score alone, whose
    scale promises nothing.
    """
    if card is None:
        return 100.0 * min(max(found["face_score"], 0.0), 1.0)
    score = found["face_score"] + card.face_score_per_halving * halvings(found["face_share_percent"])
    drive = card.bias + card.per_face_score * score + card.per_vector_length * found["vector_length"]
    return 50.0 * (1.0 + math.tanh(drive / 2.0))  # the logistic, in a form that cannot overflow


def halvings(face_share_percent: float) -> float:
    """Return how often a face that fills the photo has to be halved to have its share of it; 3 at most.

    Detectors score a face lower the smaller it is in the photo, which is a matter of framing and not of quality.
    """
    return min(math.log2(100.0 / max(face_share_percent, _TINY)), _MAX_HALVINGS)


def in_words(found: Mapping[str, float]) -> str:
    """Return the measurements that a sender can do something about, in one line; empty if nothing was measured."""
    return ", ".join(text.format(found[name]) for name, text in _WORDS.items() if name in found)


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


def _width_ratio(face: Face, largest: Face) -> float:
    return face.box_px[2] / max(largest.box_px[2], _TINY)


def _pose(points: NDArray[np.float64]) -> dict[str, float]:
    left_eye, right_eye, nose = points[:3]
    across, eyes = right_eye - left_eye, (left_eye + right_eye) / 2.0
    distance = max(float(np.hypot(*across)), _TINY)
    down = np.array([-across[1], across[0]]) / distance
    height = max(abs(float((points[3:].mean(axis=0) - eyes) @ down)), _TINY)
    nose_across = float((nose - eyes) @ across) / distance**2
    nose_down = float((nose - eyes) @ down) * (_MOUTH_BELOW_EYES / height) - _NOSE_BELOW_EYES
    return {
        "roll_deg": math.degrees(math.atan2(across[1], across[0])),
        "yaw_deg": math.degrees(math.atan(nose_across / _NOSE_DEPTH)),
        "pitch_deg": math.degrees(math.atan(nose_down / _NOSE_DEPTH)),
    }


def _shown(
    side: int, points: NDArray[np.float64], target: NDArray[np.float64], photo_size_px: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return which pixels `(side, side)` of the crop show the photo and not the black beyond its edge."""
    matrix = similarity(points, target)
    if matrix is None or scale_of(matrix) < _TINY:
        return np.zeros((side, side), dtype=np.bool_)
    back = np.linalg.inv(matrix[:, :2])
    start = -back @ matrix[:, 2]
    steps = np.arange(side)
    width, height = photo_size_px  # a pixel reaches half a pixel beyond its centre
    x = (start[0] + back[0, 0] * steps)[None, :] + (back[0, 1] * steps)[:, None]
    y = (start[1] + back[1, 0] * steps)[None, :] + (back[1, 1] * steps)[:, None]
    shown: NDArray[np.bool_] = (np.abs(x - (width - 1) / 2.0) <= width / 2.0) & (
        np.abs(y - (height - 1) / 2.0) <= height / 2.0
    )
    return shown


def _interior(crop: NDArray[Any]) -> NDArray[Any]:
    """Return the part of a crop, or of what belongs to its pixels, from brow to mouth."""
    rows, columns = (slice(round(len(crop) * low), round(len(crop) * high)) for low, high in _FACE_INTERIOR)
    return crop[rows, columns]


def _light(luma: NDArray[np.float64], inside: NDArray[np.bool_]) -> dict[str, float]:
    """Measure sharpness, brightness and contrast; exposure and range only where the photo is.

    Sharpness is the variance of the Laplacian over that of the luma, so that a dark or flat photo is not called
    blurred; the least one is that of the second difference along the direction in which it is smallest: motion blurs
    one direction and leaves the others sharp.
    """
    middle = luma[1:-1, 1:-1]
    across = luma[1:-1, :-2] + luma[1:-1, 2:]
    down = luma[:-2, 1:-1] + luma[2:, 1:-1]
    falling = luma[:-2, :-2] + luma[2:, 2:]
    rising = luma[2:, :-2] + luma[:-2, 2:]
    spread = max(float(luma.var()), 1.0)
    shown = luma[inside]
    counts = np.bincount(np.rint(shown).astype(np.int64), minlength=_LEVELS)
    shares = counts[counts > 0] / max(shown.size, 1)
    return {
        "sharpness": float((across + down - 4.0 * middle).var()) / spread,
        "least_sharpness": min(float((pair - 2.0 * middle).var()) for pair in (across, down, falling, rising)) / spread,
        "brightness": float(luma.mean()),
        "contrast": float(luma.std()),
        "underexposed_percent": 100.0 * float((shown <= _DARKEST).sum()) / max(shown.size, 1),
        "overexposed_percent": 100.0 * float((shown >= _BRIGHTEST).sum()) / max(shown.size, 1),
        "dynamic_range_bits": abs(float((shares * np.log2(shares)).sum())),
    }


def _margins(points: NDArray[np.float64], photo_size_px: tuple[int, int]) -> dict[str, float]:
    width, height = photo_size_px
    (left_x, left_y), (right_x, right_y) = points[0], points[1]
    distance = max(math.hypot(right_x - left_x, right_y - left_y), _TINY)
    return {
        "margin_left_ied": float(left_x) / distance,
        "margin_right_ied": (width - float(right_x)) / distance,
        "margin_above_ied": float(left_y + right_y) / 2.0 / distance,
        "margin_below_ied": (height - float(left_y + right_y) / 2.0) / distance,
    }


def _components(found: Mapping[str, float], model_eye_px: float) -> dict[str, float]:
    """Return the component values, 0 (worst) to 100, each a monotone reading of one native measure."""
    return {
        "inter_eye_distance_quality": _percent(found["inter_eye_px"] / model_eye_px),
        "head_pose_yaw_quality": _upright(found["yaw_deg"]),
        "head_pose_pitch_quality": _upright(found["pitch_deg"]),
        "head_pose_roll_quality": _upright(found["roll_deg"]),
        "sharpness_quality": _percent(found["sharpness"] / (found["sharpness"] + _HALF_SHARP)),
        "under_exposure_prevention_quality": 100.0 - found["underexposed_percent"],
        "over_exposure_prevention_quality": 100.0 - found["overexposed_percent"],
        "dynamic_range_quality": _percent(found["dynamic_range_bits"] / _MAX_BITS),
        "single_face_present_quality": _percent(1.0 - found["second_face_ratio"] ** 2),
        "leftward_crop_quality": _percent(found["margin_left_ied"] / _HEAD_BESIDE_EYE),
        "rightward_crop_quality": _percent(found["margin_right_ied"] / _HEAD_BESIDE_EYE),
        "margin_above_quality": _percent(found["margin_above_ied"] / _HEAD_ABOVE_EYES),
        "margin_below_quality": _percent(found["margin_below_ied"] / _HEAD_BELOW_EYES),
    }


def _percent(share: float) -> float:
    return 100.0 * min(max(share, 0.0), 1.0)


def _upright(angle_deg: float) -> float:
    return 100.0 * max(math.cos(math.radians(angle_deg)), 0.0) ** 2
