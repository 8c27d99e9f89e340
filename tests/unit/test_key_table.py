"""Keys keep their numbers, however many come, and through a dump."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.key_table import KeyTable
from schemas.errors import ContractError


@given(st.lists(st.text(max_size=6), max_size=200))
def test_it_is_a_dictionary_that_counts(keys: list[str]) -> None:
    table, plain = KeyTable(), dict[str, int]()
    for key in keys:
        assert table.find(key) == plain.get(key)
        assert table.add(key) == plain.setdefault(key, len(plain))
    again = KeyTable.load(table.dump())
    for one in (table, again):
        assert len(one) == len(plain)
        assert {key: one.find(key) for key in plain} == plain
        assert list(one) == list(plain)


def test_many_keys_take_little_room_each() -> None:
    table = KeyTable()
    for number in range(50_000):
        table.add(f"CA0190000/2026-{number:06d}")
    assert table.find("CA0190000/2026-049999") == 49_999
    assert table.find("CA0190000/2026-050000") is None
    assert table.nbytes < 50_000 * 45
    assert table.add("one more") == len(table) - 1


def test_a_dump_that_does_not_fit_together_is_refused() -> None:
    table = KeyTable()
    for number in range(100):
        table.add(str(number))
    good = table.dump()
    for name in good:
        with pytest.raises((ContractError, ValueError)):
            KeyTable.load({**good, name: good[name][:-8]})
