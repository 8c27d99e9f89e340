"""Whatever anybody sends becomes a value, a refusal or a ContractError, for minutes on end (G12; `make test-long`).

The short tests of the decoder and of the codec try a few damages a run. Here are whole photos and records of every
format and kind, with blocks cut out, doubled and moved, and with numbers put where headers have their numbers.
"""

from __future__ import annotations

import io
import json
import resource
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import schemas
from connectors.image_decoder import DecodeLimits, decode_image
from processors.enrolments import read_enrolments
from processors.image_header import read_header
from processors.refusals import Refusal, RefusalCode
from schemas.codec import decode, decode_as_written, decode_for, encode
from schemas.errors import ContractError
from schemas.topics import TOPICS

if TYPE_CHECKING:
    from collections.abc import Callable

LIMITS = DecodeLimits(max_bytes=100_000, max_pixels=100_000)
SHORT, LONG = 300, 60_000
GOLDEN = Path(schemas.__file__).parent / "examples"
ENROLLED = json.loads((GOLDEN / "TemplatesEnrolled.v1.json").read_text())["fields"]
MODEL, DIMENSION = ENROLLED["model_digest"], len(bytes.fromhex(ENROLLED["captures"][0]["template"])) // 2
NUMBERS = [
    *(number.to_bytes(4, "big") for number in (0, 1, 2**31 - 1, 2**31, 2**32 - 1)),
    *(b"\x00", b"\xff"),
    # Avro's way to write the largest and the smallest number, and minus one.
    *(b"\xfe" + 8 * b"\xff" + b"\x01", 9 * b"\xff" + b"\x01", b"\x01"),
]
"""What stands where a header or a record has a size."""
MOST_MEMORY_BYTES = 400_000_000
"""How far the process may grow over all images: far more than a hundred thousand pixels, far less than a bomb."""


def written(image: Image.Image, image_format: str, **how: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, image_format, **how)
    return target.getvalue()


def photos() -> list[bytes]:
    """Return a small picture in every way in which the decoder takes one."""
    pixels = np.arange(24 * 16 * 3, dtype=np.uint32).reshape(24, 16, 3) * 37 % 256
    scene = Image.fromarray(pixels.astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray((pixels[:, :, 0] * 257).astype(np.uint16))
    return [
        written(scene, "JPEG"),
        written(scene, "JPEG", progressive=True, exif=exif),
        written(scene.convert("CMYK"), "JPEG"),
        written(scene.convert("L"), "JPEG", restart_marker_blocks=1),
        written(scene, "MPO", save_all=True, append_images=[scene]),
        written(scene, "PNG", exif=exif),
        written(scene.quantize(16), "PNG", transparency=3),
        written(scene.convert("RGBA"), "PNG"),
        written(deep, "PNG"),
        written(scene, "JPEG2000"),
        written(scene, "JPEG2000", no_jp2=True, tile_size=(8, 8)),
    ]


RECORDS = [bytes.fromhex(json.loads(path.read_text())["single_object_hex"]) for path in sorted(GOLDEN.glob("*.json"))]
PHOTOS = photos()


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """Return one of the originals after up to six damages, each anywhere."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 6))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 64))
        block = bytes(data[at : at + length])
        match draw(st.sampled_from(["set", "number", "cut", "double", "move", "splice", "end"])):
            case "set":
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case "number":
                number = draw(st.sampled_from(NUMBERS))
                data[at : at + len(number)] = number
            case "cut":
                del data[at : at + length]
            case "double":
                data[at:at] = block * draw(st.integers(1, 8))
            case "move":
                del data[at : at + length]
                to = draw(st.integers(0, len(data)))
                data[to:to] = block
            case "splice":
                other = draw(st.sampled_from(originals))
                begin = draw(st.integers(0, len(other)))
                data[at:] = other[begin:]
            case _:
                del data[at:]
    return bytes(data)


def check_photo(data: bytes) -> None:
    """Pixels within the limits, as the header said, or a refusal in words."""
    found = decode_image(data, LIMITS)
    if isinstance(found, Refusal):
        assert found.code in {RefusalCode.UNDECODABLE, RefusalCode.IMAGE_TOO_LARGE}
        assert found.message
        return
    header = read_header(data)
    assert header is not None
    assert found.dtype == np.uint8
    assert sorted(found.shape[:2]) == sorted((header.height_px, header.width_px))
    assert found.size <= 3 * LIMITS.max_pixels


def check_record(data: bytes) -> None:
    """An event that says the same when it is written again, or a ContractError; by every reader."""
    for read in (decode, decode_as_written, *(partial(decode_for, topic) for topic in TOPICS)):
        with suppress(ContractError):
            read(data)
    by_columns = read_enrolments([data], model_digest=MODEL, dimension=DIMENSION, fewest=1)
    try:
        event = decode(data)
    except ContractError:
        assert not len(by_columns.records), "the reader of columns took what the other one refuses"
        return
    again = encode(event)
    assert encode(decode(again)) == again


def fuzzed(check: Callable[[bytes], None], originals: list[bytes], examples: int) -> None:
    """Check so many damaged originals, and that this takes no memory to speak of."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(damaged(originals))
    def run(data: bytes) -> None:
        check(data)

    run()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < MOST_MEMORY_BYTES


def test_the_originals_are_what_they_should_be() -> None:
    assert not [data for data in PHOTOS if isinstance(decode_image(data, LIMITS), Refusal)]
    for data in RECORDS:
        decode(data)


def test_a_damaged_photo_is_pixels_or_a_refusal() -> None:
    fuzzed(check_photo, PHOTOS, SHORT)


def test_a_damaged_record_is_an_event_or_a_contract_error() -> None:
    fuzzed(check_record, RECORDS, SHORT)


@pytest.mark.long
def test_damaged_photos_for_minutes_are_pixels_or_refusals() -> None:
    fuzzed(check_photo, PHOTOS, LONG)


@pytest.mark.long
def test_damaged_records_for_minutes_are_events_or_contract_errors() -> None:
    fuzzed(check_record, RECORDS, LONG)
