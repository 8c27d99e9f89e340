"""Read format and size of a photo from its first bytes, before anything is allocated for it.

What this is for: a photo of a few hundred bytes may claim a size of gigabytes; the claim has to be judged before a
decoder believes it. What it is not: a validator; a header that passes here may still belong to a broken photo.
Sources: ITU-T T.81 annex B (JPEG), W3C PNG section 11.2.1, ITU-T T.800 annexes A and I (JPEG 2000).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum


class ImageFormat(StrEnum):
    """The formats that are accepted; the values are Pillow's names."""

    JPEG = "JPEG"
    PNG = "PNG"
    JPEG_2000 = "JPEG2000"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """What a photo claims to be. `work_units`: scans or tiles, whose number costs time whatever the size."""

    format: ImageFormat
    width_px: int
    height_px: int
    work_units: int


_JPEG_START = b"\xff\xd8\xff"
_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"
_JP2_START = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_CODESTREAM_START = b"\xff\x4f\xff\x51"  # SOC, SIZ

_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # DHT, JPG and DAC share the range
_MARKERS_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_EXTENDED_BOX_LENGTH = 1


def read_header(data: bytes) -> ImageHeader | None:
    """Return what the photo claims to be, or None if it is none of the accepted formats or states no size."""
    try:
        if data.startswith(_JPEG_START):
            return _jpeg(data)
        if data.startswith(_PNG_START):
            width, height = struct.unpack_from(">II", data, len(_PNG_START))
            return _header(ImageFormat.PNG, width, height, work_units=1)
        if data.startswith(_CODESTREAM_START):
            return _codestream(data, 0)
        if data.startswith(_JP2_START):
            start = _codestream_offset(data)
            return None if start is None else _codestream(data, start)
    except struct.error:  # the data end inside the header
        return None
    return None


def _header(image_format: ImageFormat, width: int, height: int, *, work_units: int) -> ImageHeader | None:
    if width < 1 or height < 1:
        return None
    return ImageHeader(format=image_format, width_px=width, height_px=height, work_units=work_units)


def _jpeg(data: bytes) -> ImageHeader | None:
    """Walk the marker segments up to the frame header."""
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:  # noqa: PLR2004 - every marker starts with this byte (T.81 B.1.1.2)
            return None
        marker = data[position + 1]
        if marker == 0xFF:  # noqa: PLR2004 - a fill byte
            position += 1
        elif marker in _FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", data, position + 5)
            # in entropy-coded data FF is always followed by 00 or a restart marker, so this counts scans
            scans = data.count(bytes((0xFF, _START_OF_SCAN)), position)
            return _header(ImageFormat.JPEG, width, height, work_units=scans)
        elif marker in _MARKERS_WITHOUT_LENGTH:
            position += 2
        elif marker in {_START_OF_SCAN, _END_OF_IMAGE}:
            return None
        else:
            position += 2 + max(int(struct.unpack_from(">H", data, position + 2)[0]), 2)
    return None


def _codestream_offset(data: bytes) -> int | None:
    """Find the first codestream among the boxes of a JP2 file."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        start = position + 8
        if length == _EXTENDED_BOX_LENGTH:
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        if kind == b"jp2c":
            return start
        if length < start - position:
            return None
        position += length
    return None


def _codestream(data: bytes, start: int) -> ImageHeader | None:
    """Read the SIZ segment of a JPEG 2000 codestream."""
    if not data.startswith(_CODESTREAM_START, start):
        return None
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top = struct.unpack_from(
        ">8I", data, start + len(_CODESTREAM_START) + 4
    )
    if tile_width < 1 or tile_height < 1:
        return None
    tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
    return _header(ImageFormat.JPEG_2000, right - left, bottom - top, work_units=max(tiles, 1))
