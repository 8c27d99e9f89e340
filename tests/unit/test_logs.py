"""What the libraries say is written once a period, however often they say it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from infra import logs
from infra.logs import OncePeriod

if TYPE_CHECKING:
    import pytest


def line(text: str, *values: object, name: str = "aiokafka", level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord(name, level, __file__, 1, text, values, None)


def test_a_line_that_is_repeated_is_written_once_and_then_with_its_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    period = OncePeriod(period_s=30.0)
    assert period.filter(line("no node %s", 1))
    for _ in range(500):
        now[0] += 0.05
        assert not period.filter(line("no node %s", 2)), "other values are no other line"
    assert period.filter(line("no metadata")), "another line is"
    assert period.filter(line("no node %s", 1, name="another library"))
    now[0] += 30.0
    again = line("no node %s", 3)
    assert period.filter(again)
    assert again.getMessage() == "no node 3 (and 500 times more before)"
    now[0] += 30.0
    assert period.filter(last := line("no node %s", 4))
    assert last.getMessage() == "no node 4"


def test_an_error_with_other_values_is_another_line_and_a_graver_one_is_never_held_back_by_a_milder() -> None:
    period = OncePeriod()
    assert period.filter(line("crashed: %s", "a", level=logging.WARNING))
    assert period.filter(line("crashed: %s", "a", level=logging.ERROR))
    assert period.filter(line("crashed: %s", "b", level=logging.ERROR))
    assert not period.filter(line("crashed: %s", "b", level=logging.ERROR))


def test_lines_that_are_all_different_do_not_fill_the_memory() -> None:
    period = OncePeriod()
    for number in range(3 * logs.REMEMBERED_LINES):
        assert period.filter(line(f"text made by hand {number}"))
    assert len(period._let_through) <= logs.REMEMBERED_LINES
