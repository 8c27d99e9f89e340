"""From the bytes of a photo to a template, on the default pack and the sample photos."""

from __future__ import annotations

import dataclasses
import io
import itertools
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter

from connectors.face_extractor import FaceExtractor, _as_input, _cut, _fitted
from connectors.image_decoder import DecodeLimits
from infra.assets import recipe_card
from infra.bench_extract import cut_photos
from processors.extraction import ExtractedFace
from processors.model_card import PLAIN, ColourOrder, Layout, ModelInput, RecipeCard, model_digest, published_threshold
from processors.refusals import Refusal, RefusalCode
from processors.templates import template_to_bytes
from schemas.errors import ContractError, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

    from infra.assets import Assets

Photos = dict[str, bytes]


@pytest.fixture(scope="module")
def found(extractor: FaceExtractor, photos: Photos) -> dict[str, ExtractedFace]:
    extractions = {name: extractor.extract(photo) for name, photo in photos.items()}
    assert not [name for name, extraction in extractions.items() if isinstance(extraction, Refusal)]
    return {name: one for name, one in extractions.items() if isinstance(one, ExtractedFace)}


def _cosine(one: ExtractedFace, two: ExtractedFace) -> float:
    return float(one.template.astype(np.float64) @ two.template.astype(np.float64))


def _written(image: Image.Image) -> bytes:
    target = io.BytesIO()
    image.save(target, format="PNG")
    return target.getvalue()


def _opened(photo: bytes) -> Image.Image:
    return Image.open(io.BytesIO(photo)).convert("RGB")


def _too_bright(value: int) -> int:
    return min(value * 3, 255)


def _code(extractor: FaceExtractor, photo: bytes) -> RefusalCode | None:
    extraction = extractor.extract(photo)
    return extraction.code if isinstance(extraction, Refusal) else None


def test_photos_of_one_person_score_above_the_threshold_and_of_two_persons_far_below(
    found: dict[str, ExtractedFace], assets: Assets
) -> None:
    threshold = published_threshold(assets.card, gallery_size=10_000).cosine
    for one, two in itertools.combinations(found, 2):
        score = _cosine(found[one], found[two])
        if one[0] == two[0]:
            assert score > threshold, (one, two)
        else:
            assert score < threshold - 0.2, (one, two)


def test_every_template_is_whole_and_names_its_model(found: dict[str, ExtractedFace], assets: Assets) -> None:
    for one in found.values():
        assert one.template.shape == (128,)
        assert len(template_to_bytes(one.template)) == 256
        assert one.model_digest == model_digest(assets.card)
        assert one.measurements["inter_eye_px"] >= assets.card.quality.min_inter_eye_px


def test_the_same_bytes_give_the_same_template_whatever_ran_before_and_beside_g7(
    extractor: FaceExtractor, photos: Photos, found: dict[str, ExtractedFace], assets: Assets
) -> None:
    names = list(photos) * 3
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda name: extractor.extract(photos[name]), names))
    fresh = FaceExtractor(assets.card, assets.pack_dir)
    for name, extraction in [*zip(names, again, strict=True), ("F1", fresh.extract(photos["F1"]))]:
        assert isinstance(extraction, ExtractedFace)
        assert template_to_bytes(extraction.template) == template_to_bytes(found[name].template)
        assert extraction.measurements == found[name].measurements


def _with(assets: Assets, **recipe: object) -> FaceExtractor:
    return FaceExtractor(dataclasses.replace(assets.card, recipe=RecipeCard(**recipe)), assets.pack_dir)  # type: ignore[arg-type]


def _template(extractor: FaceExtractor, photo: bytes) -> ExtractedFace:
    extraction = extractor.extract(photo)
    assert isinstance(extraction, ExtractedFace)
    return extraction


def test_a_recipe_with_mirrored_crops_hardly_tells_a_face_from_its_mirror_image(assets: Assets, photos: Photos) -> None:
    plain, both = _with(assets), _with(assets, mirrored=True)
    for name in ("A1", "B1", "D1"):
        mirror_image = _written(_opened(photos[name]).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        alike = _cosine(_template(both, photos[name]), _template(both, mirror_image))
        assert alike > 0.9  # the detector does not see a face and its mirror image quite alike
        assert alike > _cosine(_template(plain, photos[name]), _template(plain, mirror_image))


def test_a_second_look_finds_the_same_face_and_is_another_recipe(assets: Assets, photos: Photos) -> None:
    once, twice = _with(assets), _with(assets, second_look_px=256)
    for name in ("A1", "B1", "D1", "F1"):
        one, two = _template(once, photos[name]), _template(twice, photos[name])
        assert 0.9 < _cosine(one, two) < 1.0
        assert one.model_digest != two.model_digest
        assert one.measurements == two.measurements


def test_the_centre_is_taken_from_the_vector_at_unit_length(assets: Assets, photos: Photos) -> None:
    plain = _template(_with(assets), photos["B1"])
    nothing = _template(_with(assets, centre=(0.0,) * 128), photos["B1"])
    assert template_to_bytes(nothing.template) == template_to_bytes(plain.template)
    shift = np.linspace(-0.05, 0.05, 128)
    shifted = _template(_with(assets, centre=tuple(float(each) for each in shift)), photos["B1"])
    expected = plain.template - shift
    np.testing.assert_allclose(shifted.template, expected / np.linalg.norm(expected), atol=2e-4)


def test_size_and_turn_of_the_photo_hardly_matter(
    extractor: FaceExtractor, photos: Photos, found: dict[str, ExtractedFace]
) -> None:
    image = _opened(photos["B1"])
    for changed in (image.resize((image.width // 3, image.height // 3)), image.resize((2000, 2514)), image.rotate(12)):
        extraction = extractor.extract(_written(changed))
        assert isinstance(extraction, ExtractedFace)
        assert _cosine(extraction, found["B1"]) > 0.9


def test_a_photo_without_a_face_is_refused(extractor: FaceExtractor) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    for image in (Image.new("RGB", (400, 500), "grey"), Image.new("RGB", (1, 1)), Image.fromarray(noise)):
        assert _code(extractor, _written(image)) is RefusalCode.NO_FACE


@pytest.mark.parametrize("size", [(5000, 2), (2, 5000), (1, 1), (3000, 1)])
def test_the_oddest_shapes_are_refused_and_harm_nothing(extractor: FaceExtractor, size: tuple[int, int]) -> None:
    assert _code(extractor, _written(Image.new("RGB", size))) is RefusalCode.NO_FACE


def test_two_persons_are_refused_and_a_small_face_behind_is_not(extractor: FaceExtractor, photos: Photos) -> None:
    left, right = (_opened(photos[name]).resize((500, 625)) for name in ("B1", "D1"))
    both = Image.new("RGB", (1000, 625))
    both.paste(left, (0, 0))
    both.paste(right, (500, 0))
    assert _code(extractor, _written(both)) is RefusalCode.SEVERAL_FACES
    behind = Image.new("RGB", (700, 625))
    behind.paste(left, (0, 0))
    behind.paste(right.resize((150, 187)), (530, 0))
    assert _code(extractor, _written(behind)) is None


def test_a_face_of_a_few_pixels_is_refused_with_its_size(extractor: FaceExtractor, photos: Photos) -> None:
    image = _opened(photos["B1"])
    extraction = extractor.extract(_written(image.resize((image.width // 10, image.height // 10))))
    assert isinstance(extraction, Refusal)
    assert extraction.code is RefusalCode.FACE_TOO_SMALL
    assert 10 < extraction.measurements["inter_eye_px"] < 18
    assert "18 are needed" in extraction.message


@pytest.mark.parametrize("name", ["A2", "B1", "D1", "E1"])
def test_a_smeared_face_is_refused_with_its_sharpness(extractor: FaceExtractor, photos: Photos, name: str) -> None:
    extraction = extractor.extract(_written(_opened(photos[name]).filter(ImageFilter.GaussianBlur(11))))
    assert isinstance(extraction, Refusal)
    assert extraction.code is RefusalCode.FACE_TOO_BLURRED
    assert extraction.measurements["sharpness"] < 0.02


@pytest.mark.parametrize("name", ["A1", "B2", "C3", "D1", "E1", "F1"])
def test_a_good_portrait_has_a_high_unified_quality_and_its_ruin_a_low_one(
    extractor: FaceExtractor, photos: Photos, found: dict[str, ExtractedFace], name: str
) -> None:
    ruined = extractor.extract(_written(_opened(photos[name]).resize((120, 150)).resize((480, 600)).point(_too_bright)))
    assert found[name].measurements["unified_quality"] > 60.0
    if isinstance(ruined, ExtractedFace):
        assert ruined.measurements["unified_quality"] < found[name].measurements["unified_quality"] - 10.0
    else:
        assert ruined.code in {RefusalCode.NO_FACE, RefusalCode.FACE_TOO_BLURRED}


def test_landmarks_lie_on_the_face_as_shares_of_the_photo(
    extractor: FaceExtractor, photos: Photos, found: dict[str, ExtractedFace]
) -> None:
    landmarks = extractor.landmarks(photos["A1"])
    assert not isinstance(landmarks, Refusal)
    assert landmarks.shape == (5, 2)
    left, top, width, height = found["A1"].box_px
    inside = (landmarks * _opened(photos["A1"]).size - (left, top)) / (width, height)
    assert ((inside > 0.0) & (inside < 1.0)).all()
    assert extractor.landmarks(b"no photo") == extractor.portrait(b"no photo", side_px=240)


def test_limits_and_broken_files_are_refused_before_any_model_runs(assets: Assets, photos: Photos) -> None:
    strict = FaceExtractor(assets.card, assets.pack_dir, limits=DecodeLimits(max_pixels=10_000))
    assert _code(strict, photos["A1"]) is RefusalCode.IMAGE_TOO_LARGE
    assert _code(strict, b"no photo") is RefusalCode.UNDECODABLE


@pytest.mark.parametrize("name", ["A1", "B1", "C4", "F1"])
def test_a_portrait_shows_the_same_face_in_its_middle(
    extractor: FaceExtractor, photos: Photos, found: dict[str, ExtractedFace], name: str
) -> None:
    portrait = extractor.portrait(photos[name], side_px=240)
    assert not isinstance(portrait, Refusal)
    assert portrait.shape == (240, 240, 3)
    again = extractor.extract(_written(Image.fromarray(portrait)))
    assert isinstance(again, ExtractedFace)
    assert _cosine(again, found[name]) > 0.8
    left, top, width, height = again.box_px
    assert abs(left + width / 2 - 120) < 25
    assert abs(top + height / 2 - 120) < 25


def test_there_is_no_portrait_without_a_face(extractor: FaceExtractor) -> None:
    refusal = extractor.portrait(_written(Image.new("RGB", (300, 300))), side_px=240)
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.NO_FACE


def test_a_template_shows_in_no_repr_g10(found: dict[str, ExtractedFace]) -> None:
    assert "template" not in repr(found["A1"])
    assert "array" not in repr(found["A1"])


def test_a_pack_that_is_not_the_cards_is_not_run(assets: Assets, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="cannot be read"):
        FaceExtractor(assets.card, tmp_path)
    pack = shutil.copytree(assets.pack_dir, tmp_path / "pack")
    model = pack / assets.card.recogniser.file
    model.write_bytes(model.read_bytes() + b"\x00")
    with pytest.raises(IntegrityError, match="not the one in the model card"):
        FaceExtractor(assets.card, pack)


def test_a_card_with_a_wrong_name_or_size_is_told_so(assets: Assets, photos: Photos) -> None:
    recogniser = dataclasses.replace(assets.card.recogniser, output_name="fc2")
    with pytest.raises(ContractError, match="has no fc2"):
        FaceExtractor(dataclasses.replace(assets.card, recogniser=recogniser), assets.pack_dir)
    recogniser = dataclasses.replace(assets.card.recogniser, dimension=512)
    wrong = FaceExtractor(dataclasses.replace(assets.card, recogniser=recogniser), assets.pack_dir)
    with pytest.raises(ContractError, match="returned 128 numbers, the card says 512"):
        wrong.extract(photos["A1"])


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("order", ColourOrder)
@pytest.mark.parametrize(("mean", "scale"), [((0.0, 0.0, 0.0), 1.0), ((104.0, 0.0, 123.5), 1 / 127.5)])
def test_a_model_is_fed_to_the_last_bit_as_its_card_says(
    layout: Layout, order: ColourOrder, mean: tuple[float, float, float], scale: float
) -> None:
    image = np.random.default_rng(3).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    card = ModelInput(name="data", layout=layout, colour_order=order, mean=mean, scale=scale)
    fed = _as_input(image, card)
    in_order = image if order is ColourOrder.BGR else image[:, :, ::-1]
    expected = (in_order.astype(np.float32) - np.array(mean, dtype=np.float32)) * np.float32(scale)
    assert fed.dtype == np.float32
    np.testing.assert_array_equal(fed[0], expected.transpose(2, 0, 1) if layout is Layout.NCHW else expected)


def test_the_pack_in_whole_numbers_sees_the_same_faces_and_is_never_compared_with_the_plain_one(
    photos: Photos, assets: Assets
) -> None:
    plain = FaceExtractor(recipe_card("plain"), assets.pack_dir)
    one_crop_as_it_is = dataclasses.replace(recipe_card("fast"), recipe=PLAIN)
    extractor = FaceExtractor(one_crop_as_it_is, assets.pack_dir)
    for name in photos:
        one, other = plain.extract(photos[name]), extractor.extract(photos[name])
        assert isinstance(one, ExtractedFace)
        assert isinstance(other, ExtractedFace)
        assert other.model_digest != one.model_digest
        assert (other.box_px, other.measurements["sharpness"]) == (one.box_px, one.measurements["sharpness"])
        assert _cosine(other, one) > 0.99
        again = extractor.extract(photos[name])
        assert isinstance(again, ExtractedFace)
        assert template_to_bytes(again.template) == template_to_bytes(other.template)


def test_a_crop_costs_no_more_than_the_photo_wherever_the_points_are_said_to_lie() -> None:
    photo = np.full((2000, 3, 3), 200, dtype=np.uint8)
    target = np.array([[38.0, 51.0], [73.0, 51.0], [56.0, 71.0], [41.0, 92.0], [70.0, 92.0]])
    for spread in (1.0, 100.0, 1e6):
        crop = _cut(photo, target * spread, target, 112)
        assert crop is not None
        assert crop.shape == (112, 112, 3)


@pytest.mark.parametrize("times", [1, 2, 3, 5, 8])
def test_a_photo_with_more_pixels_gives_the_same_crop(times: int) -> None:
    rng = np.random.default_rng(4)
    small = cv2.resize(rng.integers(0, 256, (40, 30, 3)).astype(np.uint8), (240, 320), interpolation=cv2.INTER_CUBIC)
    large = np.repeat(np.repeat(small, times, axis=0), times, axis=1)
    target = np.array([[38.0, 51.0], [73.0, 51.0], [56.0, 71.0], [41.0, 92.0], [70.0, 92.0]])
    points = np.add(target, [60.0, 90.0])
    expected = _cut(small, points, target, 112)
    found = _cut(large, (points + 0.5) * times - 0.5, target, 112)
    assert expected is not None
    assert found is not None
    np.testing.assert_allclose(found.astype(float), expected.astype(float), atol=2.0)


@pytest.mark.parametrize("size", [(1, 1), (3, 5000), (5000, 2), (320, 320), (640, 480), (961, 700), (2400, 3000)])
def test_what_the_detector_sees_lies_where_its_scale_says(size: tuple[int, int]) -> None:
    width, height = size
    photo = np.zeros((height, width, 3), dtype=np.uint8)
    photo[height // 2 :, width // 2 :] = 255
    square, scale = _fitted(photo, 320)
    assert square.shape == (320, 320, 3)
    assert scale == 320 / max(size)
    rows, columns = (np.flatnonzero(square[..., 0].max(axis=axis) > 127) for axis in (1, 0))
    if min(size) * scale >= 1:
        assert abs(rows[0] - height // 2 * scale) <= 1.0
        assert abs(columns[0] - width // 2 * scale) <= 1.0
        assert abs(rows[-1] + 1 - height * scale) <= 1.0
        assert abs(columns[-1] + 1 - width * scale) <= 1.0


def test_a_large_jpeg_gives_nearly_the_template_of_a_small_one_in_its_own_pixels(
    extractor: FaceExtractor, photos: Photos, assets: Assets
) -> None:
    small, large = (cut_photos([photos["B2"]], size, assets.pack_dir)[0] for size in ((480, 600), (1920, 2400)))
    one, other = extractor.extract(small), extractor.extract(large)
    assert isinstance(one, ExtractedFace)
    assert isinstance(other, ExtractedFace)
    assert _cosine(one, other) > 0.97
    assert other.measurements["inter_eye_px"] == pytest.approx(4 * one.measurements["inter_eye_px"], rel=0.1)
    np.testing.assert_allclose(np.array(other.box_px), 4 * np.array(one.box_px), atol=100)


def test_a_small_face_in_a_large_jpeg_is_cut_from_all_its_pixels(extractor: FaceExtractor, photos: Photos) -> None:
    scene = Image.new("RGB", (2400, 3000), "grey")
    scene.paste(_opened(photos["B1"]).resize((400, 503)), (900, 900))
    jpeg = io.BytesIO()
    scene.save(jpeg, "JPEG", quality=98)
    written, exact = extractor.extract(jpeg.getvalue()), extractor.extract(_written(scene))
    assert isinstance(written, ExtractedFace)
    assert isinstance(exact, ExtractedFace)
    assert _cosine(written, exact) > 0.98
