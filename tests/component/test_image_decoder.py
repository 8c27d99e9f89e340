"""Hostile and odd photos: pixels or a refusal, never an exception, nothing allocated on a header's word (G12)."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from connectors.image_decoder import DecodedPhoto, DecodeLimits, decode_image, decode_photo
from processors.refusals import Refusal, RefusalCode

if TYPE_CHECKING:
    from numpy.typing import NDArray

LIMITS = DecodeLimits()
FORMATS = ["JPEG", "PNG", "JPEG2000"]
STARTS = [
    b"",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR",
    b"\xff\x4f\xff\x51",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n",
]


def _written(image: Image.Image, image_format: str, **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, format=image_format, **options)
    return target.getvalue()


def _scene(width: int = 48, height: int = 32) -> Image.Image:
    """Red above left, blue below right, so that turns and swapped colours show."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[height // 2 :, width // 2 :] = (0, 0, 255)
    return Image.fromarray(pixels)


def _decoded(data: bytes) -> NDArray[np.uint8]:
    image = decode_image(data, LIMITS)
    assert not isinstance(image, Refusal), image
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    return image


def _refused(data: bytes, limits: DecodeLimits = LIMITS) -> Refusal:
    refusal = decode_image(data, limits)
    assert isinstance(refusal, Refusal)
    return refusal


def _png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("image_format", FORMATS)
def test_accepted_formats_become_bgr(image_format: str) -> None:
    image = _decoded(_written(_scene(), image_format))
    assert image.shape == (32, 48, 3)
    np.testing.assert_allclose(image[4, 4], (0, 0, 255), atol=12)
    np.testing.assert_allclose(image[-4, -4], (255, 0, 0), atol=12)


@pytest.mark.parametrize("image_format", ["BMP", "GIF", "TIFF", "WEBP", "ICO", "PPM"])
def test_other_formats_are_refused_by_their_first_bytes(image_format: str) -> None:
    refusal = _refused(_written(_scene(), image_format))
    assert refusal.code is RefusalCode.UNDECODABLE
    assert "JPEG, PNG or JPEG 2000" in refusal.message


def test_a_file_above_the_byte_limit_is_not_looked_at() -> None:
    refusal = _refused(b"\xff" * 1001, DecodeLimits(max_bytes=1000))
    assert refusal.code is RefusalCode.IMAGE_TOO_LARGE
    assert refusal.measurements == {"image_bytes": 1001.0}


@pytest.mark.parametrize("image_format", FORMATS)
def test_the_pixel_limit_is_exact(image_format: str) -> None:
    data = _written(_scene(48, 32), image_format)
    assert not isinstance(decode_image(data, DecodeLimits(max_pixels=48 * 32)), Refusal)
    refusal = _refused(data, DecodeLimits(max_pixels=48 * 32 - 1))
    assert refusal.code is RefusalCode.IMAGE_TOO_LARGE
    assert (refusal.measurements["width_px"], refusal.measurements["height_px"]) == (48.0, 32.0)


def _claiming_60000_square(image_format: str) -> bytes:
    small = _written(_scene(), image_format)
    if image_format == "PNG":
        return _png(60_000, 60_000, b"")
    if image_format == "JPEG":
        frame = small.index(b"\xff\xc0")
        return small[: frame + 5] + struct.pack(">HH", 60_000, 60_000) + small[frame + 9 :]
    size = small.index(b"\xff\x4f\xff\x51")
    return small[: size + 8] + struct.pack(">II", 60_000, 60_000) + small[size + 16 :]


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_small_file_that_claims_gigabytes_allocates_nothing(image_format: str) -> None:
    bomb = _claiming_60000_square(image_format)
    tracemalloc.start()
    refusal = _refused(bomb)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refusal.code is RefusalCode.IMAGE_TOO_LARGE
    assert peak_bytes < 1_000_000


def test_a_jp2_box_that_contradicts_its_codestream_is_refused() -> None:
    data = _written(_scene(), "JPEG2000")
    header = data.index(b"ihdr")
    assert _refused(data[: header + 4] + struct.pack(">II", 9, 9) + data[header + 12 :]).code is RefusalCode.UNDECODABLE


def test_a_jpeg_of_a_thousand_scans_is_refused_before_it_costs_time() -> None:
    data = _written(_scene(), "JPEG", progressive=True)
    scan = data.index(b"\xff\xda")
    assert not isinstance(decode_image(data, LIMITS), Refusal)
    end = data.index(b"\xff", scan + 2)
    assert "far more parts" in _refused(data[:scan] + data[scan:end] * 1000 + data[scan:]).message


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_photo_is_refused(image_format: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(5).integers(0, 256, (200, 200, 3)).astype(np.uint8))
    data = _written(noise, image_format)
    assert _refused(data[: int(len(data) * share)]).code is RefusalCode.UNDECODABLE


def test_an_animation_is_refused() -> None:
    frames = [_scene(), Image.new("RGB", (48, 32), "green")]
    data = _written(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert _refused(data).code is RefusalCode.UNDECODABLE


@pytest.mark.parametrize(("orientation", "red_corner"), [(1, (4, 4)), (3, (-4, -4)), (6, (4, -4)), (8, (-4, 4))])
def test_the_exif_orientation_is_applied(orientation: int, red_corner: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = _decoded(_written(_scene(), "JPEG", exif=exif, quality=95))
    assert image.shape[:2] == ((48, 32) if orientation in {6, 8} else (32, 48))
    np.testing.assert_allclose(image[red_corner], (0, 0, 255), atol=12)


def test_nonsense_in_exif_does_no_harm() -> None:
    data = _written(_scene(), "JPEG")
    junk = b"Exif\x00\x00" + b"II*\x00\xff\xff\xff\xff"
    found = decode_image(data[:2] + b"\xff\xe1" + struct.pack(">H", len(junk) + 2) + junk + data[2:], LIMITS)
    assert isinstance(found, Refusal) or found.shape == (32, 48, 3)


@pytest.mark.parametrize(
    ("image", "image_format", "bgr"),
    [
        (Image.new("L", (8, 8), 100), "PNG", (100, 100, 100)),
        (Image.new("1", (8, 8), 1), "PNG", (255, 255, 255)),
        (Image.new("RGB", (8, 8), (10, 20, 30)).quantize(4), "PNG", (30, 20, 10)),
        (Image.new("LA", (8, 8), (0, 0)), "PNG", (255, 255, 255)),
        (Image.new("RGBA", (8, 8), (10, 20, 30, 255)), "PNG", (30, 20, 10)),
        (Image.new("RGBA", (8, 8), (10, 20, 30, 0)), "PNG", (255, 255, 255)),
        (Image.fromarray(np.full((8, 8), 257 * 77, dtype=np.uint16)), "PNG", (77, 77, 77)),
        (Image.fromarray(np.full((8, 8), 257 * 77, dtype=np.uint16)), "JPEG2000", (77, 77, 77)),
        (Image.new("L", (8, 8), 100), "JPEG", (100, 100, 100)),
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", (0, 0, 255)),
    ],
    ids=[
        "grey",
        "1 bit",
        "palette",
        "clear grey",
        "opaque",
        "clear",
        "16 bit",
        "16 bit JPEG 2000",
        "grey JPEG",
        "CMYK",
    ],
)
def test_every_kind_of_pixel_becomes_eight_bit_bgr(
    image: Image.Image, image_format: str, bgr: tuple[int, int, int]
) -> None:
    np.testing.assert_allclose(_decoded(_written(image, image_format))[4, 4], bgr, atol=3)


def test_pixels_are_missing_from_a_png_of_the_right_size() -> None:
    assert _refused(_png(40, 40, b"\x00" * 50)).code is RefusalCode.UNDECODABLE


@given(st.binary(max_size=400))
def test_any_bytes_are_pixels_or_a_refusal(data: bytes) -> None:
    for start in STARTS:
        found = decode_image(start + data, LIMITS)
        assert isinstance(found, Refusal) or found.dtype == np.uint8


@settings(max_examples=200)
@given(
    image_format=st.sampled_from(FORMATS), damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8)
)
def test_a_photo_damaged_anywhere_is_pixels_or_a_refusal(image_format: str, damage: list[tuple[float, int]]) -> None:
    data = bytearray(_written(_scene(), image_format))
    for place, value in damage:
        data[int(place * (len(data) - 1))] = value
    found = decode_image(bytes(data), DecodeLimits(max_pixels=1_000_000))
    assert isinstance(found, Refusal) or found.size <= 3_000_000


def _smooth(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(6)
    return Image.fromarray(rng.integers(0, 256, (9, 7, 3)).astype(np.uint8)).resize((width, height))


@pytest.mark.parametrize(("longer_px", "reduced"), [(1279, 1), (1280, 2), (2559, 2), (2560, 4), (5120, 8), (11_000, 8)])
def test_a_jpeg_is_decoded_as_small_as_is_enough_and_no_smaller(longer_px: int, reduced: int) -> None:
    data = _written(_smooth(300, longer_px), "JPEG", quality=95)
    decoded = decode_photo(data, LIMITS, enough_px=640)
    assert isinstance(decoded, DecodedPhoto)
    assert decoded.reduced == reduced
    assert decoded.pixels.shape == (-(-longer_px // reduced), -(-300 // reduced), 3)
    whole = Image.fromarray(_decoded(data))
    averaged = np.asarray(whole.reduce(reduced), dtype=float)
    assert np.abs(decoded.pixels - averaged).mean() < 2.0


def test_only_a_jpeg_that_may_be_is_decoded_smaller() -> None:
    for data, enough_px in ((_written(_smooth(1400, 100), "PNG"), 640), (_written(_smooth(1400, 100), "JPEG"), None)):
        decoded = decode_photo(data, LIMITS, enough_px=enough_px)
        assert isinstance(decoded, DecodedPhoto)
        assert (decoded.reduced, decoded.pixels.shape) == (1, (100, 1400, 3))


def test_a_photo_that_is_decoded_smaller_is_upright_and_its_faults_are_found() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    data = _written(_smooth(2600, 1000), "JPEG", exif=turned, quality=95)
    decoded = decode_photo(data, LIMITS, enough_px=640)
    assert isinstance(decoded, DecodedPhoto)
    assert decoded.pixels.shape == (650, 250, 3)
    for share in (0.1, 0.5, 0.9):
        assert isinstance(decode_photo(data[: int(len(data) * share)], LIMITS, enough_px=640), Refusal)
