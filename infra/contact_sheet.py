"""A picture of probes and their candidates for people to look at; every sheet carries the lead notice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

SIDE_PX = 160
GAP_PX = 14
CAPTION_PX = 44
MARGIN_PX = 24
HEAD_PX = 76
FOOT_PX = 64
INK, PAPER, FAINT, ACCENT = (32, 36, 42), (250, 249, 246), (196, 196, 190), (150, 60, 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One face, or the place of one that has no photo."""

    portrait: NDArray[np.uint8] | None
    """(side, side, 3) uint8 RGB; None for a synthetic template."""
    caption: tuple[str, str]
    highlighted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A probe and its best candidates."""

    probe: Tile
    candidates: tuple[Tile, ...]


def draw(rows: Sequence[Row], *, title: str, notice: str, path: Path) -> None:
    """Write the sheet as PNG."""
    columns = 1 + max(len(row.candidates) for row in rows)
    width = 2 * MARGIN_PX + columns * SIDE_PX + columns * GAP_PX
    height = HEAD_PX + len(rows) * (SIDE_PX + CAPTION_PX + GAP_PX) + FOOT_PX
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN_PX, 16), title, INK, ImageFont.load_default(22))
    pen.text((MARGIN_PX, 50), "probe", ACCENT, ImageFont.load_default(14))
    first = MARGIN_PX + SIDE_PX + 2 * GAP_PX
    pen.text((first, 50), "candidates by score, to be compared one to one", ACCENT, ImageFont.load_default(14))
    for number, row in enumerate(rows):
        top = HEAD_PX + number * (SIDE_PX + CAPTION_PX + GAP_PX)
        _draw_tile(sheet, pen, row.probe, MARGIN_PX, top)
        for index, tile in enumerate(row.candidates):
            _draw_tile(sheet, pen, tile, first + index * (SIDE_PX + GAP_PX), top)
    font = ImageFont.load_default(13)
    for line, text in enumerate(_wrapped(notice, font, width - 2 * MARGIN_PX)):
        pen.text((MARGIN_PX, height - FOOT_PX + 8 + 18 * line), text, ACCENT, font)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "PNG")


def _draw_tile(sheet: Image.Image, pen: ImageDraw.ImageDraw, tile: Tile, left: int, top: int) -> None:
    frame = (left, top, left + SIDE_PX, top + SIDE_PX)
    if tile.portrait is None:
        pen.rectangle(frame, fill=(236, 235, 230))
        middle = (left + SIDE_PX // 2, top + SIDE_PX // 2)
        pen.text(middle, "synthetic\ntemplate", FAINT, ImageFont.load_default(16), anchor="mm", align="center")
    else:
        sheet.paste(Image.fromarray(tile.portrait).resize((SIDE_PX, SIDE_PX)), (left, top))
    pen.rectangle(frame, outline=ACCENT if tile.highlighted else FAINT, width=3 if tile.highlighted else 1)
    for line, text in enumerate(tile.caption):
        pen.text((left, top + SIDE_PX + 6 + 17 * line), text, INK, ImageFont.load_default(13))


def _wrapped(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width_px: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
