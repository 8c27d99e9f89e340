"""Keys keep their numbers, however many come, and through a dump."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.key_table import KeyTable
from processors.template_rows import hashes_of
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


@settings(deadline=None)
@given(st.lists(st.one_of(st.text(max_size=6), st.lists(st.text(max_size=3), max_size=300, unique=True)), max_size=30))
def test_keys_that_come_together_get_the_numbers_that_they_would_get_one_by_one(coming: list[str | list[str]]) -> None:
    table, alone = KeyTable(), KeyTable()
    for keys in coming:
        if isinstance(keys, str):
            assert table.add(keys) == alone.add(keys)
        else:
            texts = [key.encode() for key in keys]
            assert table.add_all(texts, hashes_of(texts)).tolist() == [alone.add(key) for key in keys]
    again = KeyTable.load(table.dump())
    assert list(again) == list(table) == list(alone)
    for one in (table, again):
        assert all(one.find(key) == number for number, key in enumerate(alone))
        assert one.find("not one of them") is None


def test_keys_of_one_hash_are_told_apart_by_their_texts() -> None:
    keys = [b"plumless", b"buckeroo"]
    hashes = hashes_of(keys)
    assert hashes[0] == hashes[1]
    table = KeyTable()
    assert table.add_all(keys[1:], hashes[1:]).tolist() == [0]
    assert table.add_all(keys, hashes).tolist() == [1, 0]
    assert (table.find("buckeroo"), table.find("plumless")) == (0, 1)


def test_many_keys_that_come_together_are_found_and_take_as_little_room() -> None:
    table = KeyTable()
    for start in range(0, 50_000, 7_000):
        keys = [f"CA0190000/2026-{number:06d}".encode() for number in range(max(start - 500, 0), start + 7_000)]
        first = max(start - 500, 0)
        assert table.add_all(keys, hashes_of(keys)).tolist() == list(range(first, first + len(keys)))
    assert table.find("CA0190000/2026-049999") == 49_999
    assert table.nbytes < len(table) * 45
    assert len(table.dump()["slots"]) < len(table) * 16


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
