"""The prepared models are the published ones: same answers, same bytes every time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from connectors.face_extractor import FaceExtractor
from connectors.model_pack import prepare_model
from processors.refusals import Refusal
from schemas.errors import ContractError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from infra.assets import Assets

DETECTOR = "face_detection_yunet_2023mar"
RECOGNISER = "face_recognition_sface_2021dec"


def _run(model: bytes, name: str, image: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {name: image}), strict=True))


def _barely_runnable(original: Path) -> bytes:
    """Change only what keeps onnxruntime from loading: stale inputs and needless block sizes; it dequantises itself."""
    model = onnx.load(original)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    used = {name for node in model.graph.node for name in node.input}
    inputs = [value for value in model.graph.input if value.name in used and value.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and list(stored[node.input[1]].dims) == [1]:
            kept = [attribute for attribute in node.attribute if attribute.name != "block_size"]
            del node.attribute[:]
            node.attribute.extend(kept)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(("name", "input_name", "side"), [(DETECTOR, "input", 640), (RECOGNISER, "data", 112)])
def test_a_prepared_model_answers_as_the_published_one(
    name: str, input_name: str, side: int, assets: Assets, asset_cache: Path
) -> None:
    image = np.random.default_rng(7).uniform(0, 255, (1, 3, side, side)).astype(np.float32)
    expected = _run(_barely_runnable(asset_cache / "originals" / f"{name}_int8bq.onnx"), input_name, image)
    found = _run((assets.pack_dir / f"{name}.onnx").read_bytes(), input_name, image)
    assert found.keys() == expected.keys()
    for output, values in expected.items():
        np.testing.assert_allclose(found[output], values, atol=5e-6 * max(1.0, float(np.abs(values).max())))


def test_preparing_twice_gives_the_same_bytes(assets: Assets, asset_cache: Path) -> None:
    original = (asset_cache / "originals" / f"{RECOGNISER}_int8bq.onnx").read_bytes()
    prepared = [prepare_model(original, input_shape=("batch", 3, 112, 112)) for _ in range(2)]
    assert prepared[0] == prepared[1] == (assets.pack_dir / f"{RECOGNISER}.onnx").read_bytes()


def test_the_prepared_recogniser_takes_any_batch(assets: Assets) -> None:
    model = (assets.pack_dir / f"{RECOGNISER}.onnx").read_bytes()
    faces = np.random.default_rng(7).uniform(0, 255, (3, 3, 112, 112)).astype(np.float32)
    together = _run(model, "data", faces)["fc1"]
    alone = np.concatenate([_run(model, "data", faces[index : index + 1])["fc1"] for index in range(3)])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(ContractError, match="not ONNX"):
        prepare_model(b"\xff\xff\xff no model", input_shape=(1,))


@pytest.fixture(scope="module")
def integer_form(assets: Assets, asset_cache: Path) -> bytes:
    assert assets
    original = (asset_cache / "originals" / f"{RECOGNISER}_int8bq.onnx").read_bytes()
    return prepare_model(original, input_shape=("batch", 3, 112, 112), integer=True)


def test_products_of_integers_point_where_the_published_model_does(
    integer_form: bytes, assets: Assets, photos: dict[str, bytes]
) -> None:
    extractor = FaceExtractor(assets.card, assets.pack_dir)
    for photo in photos.values():
        face = extractor.portrait(photo, side_px=112)
        assert not isinstance(face, Refusal)
        fed = face.transpose(2, 0, 1)[None].astype(np.float32)
        exact = _run((assets.pack_dir / f"{RECOGNISER}.onnx").read_bytes(), "data", fed)["fc1"][0].astype(np.float64)
        found = _run(integer_form, "data", fed)["fc1"][0].astype(np.float64)
        assert found @ exact / np.linalg.norm(found) / np.linalg.norm(exact) > 0.98


def test_sums_of_integers_overflow_on_no_processor(integer_form: bytes) -> None:
    model = onnx.load_model_from_string(integer_form)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "DynamicQuantizeMatMul"]
    assert len(products) == 13
    for node in products:
        weights = stored[node.input[1]].astype(np.int64)
        assert np.abs(weights).max() == 63
        assert 2 * 255 * np.abs(weights).max() <= np.iinfo(np.int16).max


def test_a_slope_that_is_no_maximum_is_refused() -> None:
    weights = np.ones((1, 64, 1, 1), dtype=np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("PRelu", ["c", "slope"], ["y"])]
    constants = {"w": weights, "slope": np.full((1, 1, 1), 1.5, dtype=np.float32)}
    graph = helper.make_graph(
        nodes,
        "steep",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 64, 4, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 1, 4, 4])],
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    original = helper.make_model(graph).SerializeToString()
    assert prepare_model(original, input_shape=(1, 64, 4, 4))
    with pytest.raises(ContractError, match="slope above 1"):
        prepare_model(original, input_shape=(1, 64, 4, 4), integer=True)
