from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.detection import Face, decode_faces, suppress
from processors.model_card import BoxEncoding, DetectorCard, parse_model_card

if TYPE_CHECKING:
    from numpy.typing import NDArray

CARD_FILE = Path(__file__).parents[2] / "infra" / "models" / "sface-yunet.toml"
YUNET = parse_model_card(tomllib.loads(CARD_FILE.read_text(encoding="utf-8"))).detector
EDGES = dataclasses.replace(
    YUNET, box_encoding=BoxEncoding.EDGE_DISTANCES, score_outputs=("cls_{stride}",), anchors_per_cell=2
)
SIDE = 320


def _silence(card: DetectorCard) -> dict[str, NDArray[Any]]:
    outputs: dict[str, NDArray[Any]] = {}
    for stride in card.strides:
        rows = (SIDE // stride) ** 2 * card.anchors_per_cell
        widths = dict.fromkeys(card.score_outputs, 1) | {card.box_output: 4, card.points_output: 10}
        outputs |= {name.format(stride=stride): np.zeros((1, rows, width)) for name, width in widths.items()}
    return outputs


def _say(outputs: dict[str, NDArray[Any]], card: DetectorCard, face: dict[str, Any]) -> None:
    """Write a face the way a detector with this encoding would, at the cell of its centre."""
    stride, box, points = face["stride"], np.array(face["box"]) / face["stride"], face["points"] / face["stride"]
    centre = (box[:2] + box[2:]) / 2
    cell = np.floor(centre)
    row = int(cell[1] * (SIDE // stride) + cell[0]) * card.anchors_per_cell
    for name in card.score_outputs:
        outputs[name.format(stride=stride)][0, row] = face["score"]
    if card.box_encoding is BoxEncoding.CENTRE_LOG_SIZE:
        raw = np.concatenate([centre - cell, np.log(box[2:] - box[:2])])
    else:
        raw = np.concatenate([cell - box[:2], box[2:] - cell])
    outputs[card.box_output.format(stride=stride)][0, row] = raw
    outputs[card.points_output.format(stride=stride)][0, row] = (points - cell).reshape(-1)


@pytest.mark.parametrize("card", [YUNET, EDGES], ids=["centre and log size", "edge distances"])
@given(
    left=st.floats(0, 200), top=st.floats(0, 200), width=st.floats(8, 110), height=st.floats(8, 110),
    stride=st.sampled_from(YUNET.strides), score=st.floats(0.85, 1.0), scale=st.floats(0.05, 4.0),
)  # fmt: skip
def test_a_face_is_read_back_in_pixels_of_the_photo(
    card: DetectorCard, left: float, top: float, width: float, height: float, stride: int, score: float, scale: float
) -> None:
    points = np.array([[left, top]]) + np.linspace(0.2, 0.8, 10).reshape(5, 2) * [width, height]
    outputs = _silence(card)
    face = {"stride": stride, "box": (left, top, left + width, top + height), "points": points, "score": score}
    _say(outputs, card, face)
    (found,) = decode_faces(outputs, card, side_px=SIDE, scale=scale)
    np.testing.assert_allclose(np.array(found.box_px) * scale, [left, top, width, height], atol=1e-6)
    np.testing.assert_allclose(found.points_px * scale, points, atol=1e-6)
    assert found.score == pytest.approx(score)


def test_the_largest_face_comes_first_and_unlikely_ones_not_at_all() -> None:
    outputs = _silence(YUNET)
    for left, size, score in ((10, 30, 0.99), (100, 90, 0.9), (220, 50, 0.79)):
        box = (left, 100, left + size, 100 + size)
        _say(outputs, YUNET, {"stride": 8, "box": box, "points": np.full((5, 2), left + 5.0), "score": score})
    assert [face.box_px[2] for face in decode_faces(outputs, YUNET, side_px=SIDE, scale=1.0)] == pytest.approx([90, 30])


def test_numbers_that_are_none_are_no_face() -> None:
    outputs = _silence(YUNET)
    outputs["cls_8"][0, 3] = outputs["obj_8"][0, 3] = 1.0
    outputs["bbox_8"][0, 3, 0] = np.nan
    assert decode_faces(outputs, YUNET, side_px=SIDE, scale=1.0) == ()


boxes = st.lists(
    st.tuples(st.floats(0, 50), st.floats(0, 50), st.floats(1, 40), st.floats(1, 40), st.floats(0, 1)), max_size=30
)


@given(boxes)
def test_of_overlapping_boxes_the_best_remains(found: list[tuple[float, float, float, float, float]]) -> None:
    table = np.array(found, dtype=np.float64).reshape(-1, 5)
    edges = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
    scores = table[:, 4]
    kept = suppress(edges, scores, max_overlap=0.3)

    def overlap(one: int, two: int) -> float:
        low, high = np.maximum(edges[one, :2], edges[two, :2]), np.minimum(edges[one, 2:], edges[two, 2:])
        shared = float(np.clip(high - low, 0, None).prod())
        areas = [float((edges[index, 2:] - edges[index, :2]).prod()) for index in (one, two)]
        return shared / (sum(areas) - shared)

    assert list(scores[kept]) == sorted(scores[kept], reverse=True)
    for position, one in enumerate(kept):
        assert all(overlap(one, two) <= 0.3 + 1e-9 for two in kept[:position])
    for dropped in set(range(len(table))) - set(kept):
        assert any(overlap(dropped, one) > 0.3 - 1e-9 and scores[one] >= scores[dropped] for one in kept)


def test_the_points_of_a_face_are_the_mean_of_all_anchors_that_see_it_by_their_scores() -> None:
    outputs = _silence(YUNET)
    box = (40.0, 60.0, 140.0, 180.0)
    for stride, offset, score in ((8, 10.0, 0.9), (16, 40.0, 0.95), (32, 10.0, 0.81)):
        _say(outputs, YUNET, {"stride": stride, "box": box, "points": np.full((5, 2), offset), "score": score})
    elsewhere = {"stride": 8, "box": (200, 200, 260, 260), "points": np.full((5, 2), 230.0), "score": 0.9}
    _say(outputs, YUNET, elsewhere)
    one, other = decode_faces(outputs, YUNET, side_px=SIDE, scale=1.0)
    assert one.score == pytest.approx(0.95)
    expected = (0.9 * 10 + 0.95 * 40 + 0.81 * 10) / (0.9 + 0.95 + 0.81)
    np.testing.assert_allclose(one.points_px, np.full((5, 2), expected), atol=1e-6)
    np.testing.assert_allclose(other.points_px, np.full((5, 2), 230.0), atol=1e-6)


def test_a_face_lies_where_it_was_when_the_photo_is_seen_with_all_its_pixels() -> None:
    face = Face(box_px=(2.0, 3.0, 10.0, 12.0), points_px=np.array([[0.0, 1.0]] * 5), score=0.9)
    large = face.enlarged(4)
    assert large.box_px == (8.0, 12.0, 40.0, 48.0)
    np.testing.assert_array_equal(large.points_px, [[1.5, 5.5]] * 5)  # the middle of the four pixels that became one
    assert face.enlarged(1) is face
