"""Decode a photo that anybody may have made: bytes in, pixels or a refusal out, never an exception for bad input (G12).

Accepted: JPEG, PNG and JPEG 2000, recognised by their first bytes. Byte and pixel limits hold before a decoder
allocates. The EXIF orientation is applied; grey, palette, CMYK, 16-bit and transparent photos (over white) become 8-bit
BGR; colour profiles are not applied. Of a JPEG with further pictures behind it (a preview, a gain map) the first is the
photo; animations are refused.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from processors.image_header import ImageFormat, ImageHeader, read_header
from processors.refusals import Refusal, RefusalCode

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_WORK_UNITS = {ImageFormat.JPEG: 256, ImageFormat.PNG: 1, ImageFormat.JPEG_2000: 4096}
_JPEG_REDUCTIONS = (8, 4, 2)
_SIXTEEN_TO_EIGHT_BITS = 257
_MAX_SIXTEEN_BITS = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """What is decoded at all."""

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodedPhoto:
    """A photo, upright: `(height, width, 3)` uint8 BGR, read-only, `reduced` times smaller than it was taken."""

    pixels: NDArray[np.uint8]
    reduced: int


def decode_image(data: bytes, limits: DecodeLimits) -> NDArray[np.uint8] | Refusal:
    """Return the photo upright as `(height, width, 3)` uint8 BGR, read-only, or why it is refused."""
    decoded = decode_photo(data, limits, enough_px=None)
    return decoded if isinstance(decoded, Refusal) else decoded.pixels


def decode_photo(data: bytes, limits: DecodeLimits, *, enough_px: int | None) -> DecodedPhoto | Refusal:
    """Decode a photo; a JPEG whose longer side keeps `enough_px` at a half, quarter or eighth of its size at that size.

    A JPEG so decoded takes a third of the time or less, and is as if the pixels had been averaged: the coefficients of
    its finest waves are never used (ITU-T T.81 A.3.3, in libjpeg "DCT scaling").
    """
    found = {"image_bytes": float(len(data))}
    if len(data) > limits.max_bytes:
        return Refusal(
            code=RefusalCode.IMAGE_TOO_LARGE,
            message=f"The file is larger than {limits.max_bytes} bytes: send a smaller one.",
            measurements=found,
        )
    header = read_header(data)
    if header is None:
        return _undecodable("The file is no JPEG, PNG or JPEG 2000 photo: convert it and send it again.", found)
    found |= {"width_px": float(header.width_px), "height_px": float(header.height_px)}
    if header.width_px * header.height_px > limits.max_pixels:
        return Refusal(
            code=RefusalCode.IMAGE_TOO_LARGE,
            message=f"The photo has more than {limits.max_pixels} pixels: scale it down and send it again.",
            measurements=found,
        )
    if header.work_units > _MAX_WORK_UNITS[header.format]:
        return _undecodable("The photo is coded in far more parts than any camera writes: save it anew.", found)
    try:
        return _decode(data, header, enough_px)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - Pillow raises a dozen kinds of errors for hostile bytes; all mean the same here
        return _undecodable("The photo is damaged or incomplete: send the original file again.", found)


def _undecodable(message: str, found: dict[str, float]) -> Refusal:
    return Refusal(code=RefusalCode.UNDECODABLE, message=message, measurements=found)


def _decode(data: bytes, header: ImageHeader, enough_px: int | None) -> DecodedPhoto:
    """Let Pillow decode. Whatever it raises means that the photo is bad."""
    with Image.open(io.BytesIO(data), formats=[header.format.value]) as opened:
        if opened.size != (header.width_px, header.height_px):
            raise ValueError("two places of the file state different sizes")
        if header.format is not ImageFormat.JPEG and getattr(opened, "n_frames", 1) > 1:
            raise ValueError("an animation is no photo")
        longer, reduced = max(opened.size), 1
        if header.format is ImageFormat.JPEG and enough_px is not None:
            reduced = next((times for times in _JPEG_REDUCTIONS if longer // times >= enough_px), 1)
        if reduced > 1:
            opened.draft(None, (max(1, header.width_px // reduced), max(1, header.height_px // reduced)))
            if max(opened.size) != -(-longer // reduced):
                raise ValueError("the decoder took another size than it was asked for")
        opened.load()
        ImageOps.exif_transpose(opened, in_place=True)
        rgb = _as_rgb(opened)
        # Pillow turns the colours round while it packs them: a third of the time of an array that is turned afterwards
        pixels = np.frombuffer(rgb.tobytes("raw", "BGR"), dtype=np.uint8).reshape(rgb.height, rgb.width, 3)
    return DecodedPhoto(pixels=pixels, reduced=reduced)


def _as_rgb(image: Image.Image) -> Image.Image:
    """Bring any mode to 8-bit RGB."""
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip everything above 255
        wide = np.clip(np.asarray(image).astype(np.int64), 0, _MAX_SIXTEEN_BITS)
        return Image.fromarray((wide // _SIXTEEN_TO_EIGHT_BITS).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
