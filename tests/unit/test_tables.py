"""What a command prints for people can be read in a terminal of usual width: no word is cut into pieces."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from infra.commands.common import table

LEAD = ("2026-11-24 15:00", "RECORD_SEALED", "26-04711", "sid:A00000001", "2026-000481")
IDS = ("7a9fc444-ecd7-4e1c-94d4-02c51a5e94b9", "02f66e8a-1a77-5cb0-9b3e-453f9e2ecfa8")
COLUMNS = ("issued (UTC)", "state", "case", "person", "booking", "probe", "lead")


def printed(*, width: int, columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table("Title", columns, rows, width=width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_no_cell_is_cut_into_pieces_whatever_the_width(width: int) -> None:
    shown = printed(width=width, columns=COLUMNS, rows=[(*LEAD, *IDS), (*LEAD, *IDS)])
    assert all(shown.count(cell) == 2 for cell in {*LEAD, *IDS})
    assert all(column in shown for column in COLUMNS)
    assert max(map(len, shown.splitlines())) <= width


def test_a_table_that_fits_has_a_line_for_each_row_and_wraps_texts_between_words() -> None:
    text = "A court order covers this record. Do not use it and acknowledge that this was done."
    shown = printed(
        width=60, columns=("notice", "due in h", "what to do"), rows=[("first", 24, text), ("second", 3, "")]
    )
    assert [line.split()[1:4:2] for line in shown.splitlines() if "first" in line or "second" in line] == [
        ["first", "24"],
        ["second", "3"],
    ]
    assert set(text.split()) <= set(shown.split())


def test_a_table_without_rows_shows_its_columns() -> None:
    shown = printed(width=120, columns=("user", "agency"), rows=[])
    assert "user" in shown
    assert "agency" in shown
