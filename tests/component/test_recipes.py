"""A pack is any pair of models that a card describes, and a recipe any card: no code changes for either."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from connectors.faiss_gallery import FaissGallery
from infra import wiring
from infra.assets import DEFAULT_CARD, load_card, recipe_names
from infra.settings import Settings
from processors.candidates import EnrolledTemplate, GalleryChange
from processors.extraction import ExtractedFace
from processors.model_card import model_digest
from processors.quantiser import codebook_for
from schemas.errors import IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

    from connectors.face_extractor import FaceExtractor
    from infra.assets import Assets

DIMENSION = 512
SIDE = 96


def _recogniser() -> bytes:
    """Return a model that nothing ships: fed rows first, 96 pixels a side, another scale, 512 numbers.

    It projects a face, each channel averaged over squares of eight pixels, onto fixed random directions.
    """
    cells = 3 * (SIDE // 8) ** 2
    directions = np.random.default_rng(5).standard_normal((cells, DIMENSION)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["picture"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("AveragePool", ["planes"], ["coarse"], kernel_shape=[8, 8], strides=[8, 8]),
            helper.make_node("Flatten", ["coarse"], ["flat"]),
            helper.make_node("MatMul", ["flat", "directions"], ["numbers"]),
        ],
        "another",
        [helper.make_tensor_value_info("picture", onnx.TensorProto.FLOAT, [1, SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("numbers", onnx.TensorProto.FLOAT, [1, DIMENSION])],
        [numpy_helper.from_array(directions, "directions")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString(deterministic=True))


def _card(recogniser_sha256: str) -> str:
    text = DEFAULT_CARD.with_name("plain.toml").read_text(encoding="utf-8")
    before, rest = text.split("[alignment]")
    statistics = rest.split("[quality]")[1].split("[statistics]")
    thresholds = statistics[1].split("[thresholds]")[1]
    points = [[x * SIDE / 112, y * SIDE / 112] for x, y in load_card(DEFAULT_CARD).alignment.points_px]
    return f"""{before}
[alignment]
crop_side_px = {SIDE}
points_px = {points}

[recogniser]
file = "another.onnx"
sha256 = "{recogniser_sha256}"
output_name = "numbers"
dimension = {DIMENSION}
normalisation = "l2"
metric = "cosine"

[recogniser.input]
name = "picture"
layout = "NHWC"
colour_order = "BGR"
mean = [127.0, 127.0, 127.0]
scale = 0.0078125

[recipe]
mirrored = true
second_look_px = 256

[quality]{statistics[0]}
[statistics]
measured_on = "nothing: made by a test"
non_mated_mean = 0.0
non_mated_sd = 0.1
mated_mean = 0.5
mated_sd = 0.1
mean_template = {[0.0] * DIMENSION}

[thresholds]{thresholds}"""


@pytest.fixture
def another_pack(tmp_path: Path, assets: Assets) -> Path:
    """The card of a pack of somebody's own, its two files beside it."""
    shutil.copy(assets.pack_dir / assets.card.detector.file, tmp_path)
    model = _recogniser()
    (tmp_path / "another.onnx").write_bytes(model)
    card = tmp_path / "card.toml"
    card.write_text(_card(hashlib.sha256(model).hexdigest()), encoding="utf-8")
    return card


def _found(extractor: FaceExtractor, photo: bytes) -> ExtractedFace:
    extraction = extractor.extract(photo)
    assert isinstance(extraction, ExtractedFace), extraction
    return extraction


def test_another_pack_extracts_and_is_searched_by_its_card_alone(another_pack: Path, photos: dict[str, bytes]) -> None:
    extractor = wiring.extractor(Settings(model_card=another_pack))
    assert extractor.model_digest == model_digest(load_card(another_pack)) != model_digest(load_card(DEFAULT_CARD))
    templates = {name: _found(extractor, photos[name]).template for name in ("A1", "B1", "D1", "F1")}
    assert {template.shape for template in templates.values()} == {(DIMENSION,)}
    gallery = FaissGallery(
        dimension=DIMENSION,
        model_digest=extractor.model_digest,
        codebook=codebook_for(dimension=DIMENSION, statistics=extractor.card.statistics),
    )
    for number, (name, template) in enumerate(templates.items()):
        enrolled = EnrolledTemplate(
            person=f"sid:{name}",
            ori="CA0190000",
            booking_number=name,
            capture_id=UUID(int=number),
            synthetic=False,
            template=template,
        )
        gallery.apply([GalleryChange(booking=f"CA0190000/{name}", templates=(enrolled,))], {0: number + 1})
    for name, template in templates.items():
        best = gallery.search(template, 4).candidates[0]
        assert (best.person, best.score) == (f"sid:{name}", pytest.approx(1.0, abs=1e-3))


@pytest.mark.parametrize("name", ["sface-yunet", "fast"])
def test_the_shipped_centre_is_the_mean_that_the_model_itself_carries(name: str, assets: Assets) -> None:
    model = onnx.load(assets.pack_dir / assets.card.recogniser.file)
    (beta,) = (numpy_helper.to_array(one) for one in model.graph.initializer if one.name == "fc1_beta")
    centre = np.array(load_card(DEFAULT_CARD.with_name(f"{name}.toml")).recipe.centre)
    np.testing.assert_allclose(centre, 0.22 * beta / np.linalg.norm(beta), atol=6e-5)


@pytest.mark.parametrize("name", sorted(set(recipe_names()) - {DEFAULT_CARD.stem}))
def test_a_worker_takes_a_shipped_recipe_by_its_name(name: str, assets: Assets, photos: dict[str, bytes]) -> None:
    extractor = wiring.extractor(Settings.model_validate({"model_card": name}))
    assert extractor.card == load_card(DEFAULT_CARD.with_name(f"{name}.toml"))
    assert _found(extractor, photos["A1"]).model_digest != model_digest(assets.card)


def test_a_model_that_is_missing_beside_its_card_is_looked_for_nowhere_else(another_pack: Path) -> None:
    (another_pack.parent / "another.onnx").unlink()
    with pytest.raises(IntegrityError, match=str(another_pack.parent)):
        wiring.extractor(Settings(model_card=another_pack))
