"""What may lie in a folder of labelled photos: a clear line for whoever put it there, never a person twice."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from infra.labelled_set import LabelledSet, read_labelled_set
from schemas.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/2.jpg", "b/1.jpg", "a/frontal/1.JPG", "a/profile/1.png", "a/notes.txt", "a/.hidden.jpg"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "set"


def _read(folder: Path, *, pattern: str | None = None, groups: Path | None = None) -> LabelledSet:
    return read_labelled_set(folder, pattern=pattern, groups=groups)


def _names(found: LabelledSet) -> list[tuple[str, str]]:
    return [(photo.person, photo.name) for photo in found.photos]


def test_every_photo_below_a_persons_folder_counts_in_order(folder: Path) -> None:
    found = _read(folder)
    assert _names(found) == [("a", "frontal/1.JPG"), ("a", "profile/1.png"), ("b", "1.jpg"), ("b", "2.jpg")]
    assert found.warnings == ()
    assert found.groups == {}


def test_a_pattern_chooses_and_who_has_no_photo_is_told(folder: Path) -> None:
    found = _read(folder, pattern="frontal/*")
    assert _names(found) == [("a", "frontal/1.JPG")]
    assert found.warnings == ("b has no photo and is left out.",)


@pytest.mark.parametrize("pattern", ["/etc/*", "", "**x"])
def test_a_pattern_that_is_none_is_said_so(folder: Path, pattern: str) -> None:
    with pytest.raises(UsageError, match="--glob"):
        _read(folder, pattern=pattern)


def test_a_pattern_does_not_leave_the_persons_folder(folder: Path) -> None:
    with pytest.raises(UsageError, match="--glob"):
        _read(folder, pattern="../b/*")


@pytest.mark.parametrize("missing", ["none", "empty", "file"])
def test_no_folder_an_empty_one_and_a_file_are_told_what_is_expected(tmp_path: Path, missing: str) -> None:
    if missing == "empty":
        (tmp_path / "empty").mkdir()
    if missing == "file":
        (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="folder"):
        _read(tmp_path / missing)


def test_photos_without_folders_are_told_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match="one folder a person"):
        _read(tmp_path)


def test_a_file_at_the_top_is_left_out_with_a_line(folder: Path) -> None:
    (folder / "README.txt").write_bytes(b"")
    assert _read(folder).warnings == ("1 file beside the folders of persons, left out: README.txt.",)


def test_one_folder_under_two_names_is_refused(folder: Path) -> None:
    (folder / "c").symlink_to(folder / "a")
    with pytest.raises(UsageError, match=r"a and c in .* are one folder"):
        _read(folder)


def test_a_link_counts_as_what_it_leads_to_and_once(folder: Path, tmp_path: Path) -> None:
    away = tmp_path / "away"
    away.mkdir()
    (away / "9.jpg").write_bytes(b"")
    (folder / "d").symlink_to(away)
    (folder / "b" / "3.jpg").symlink_to(folder / "b" / "1.jpg")
    (folder / "b" / "4.jpg").symlink_to(tmp_path / "gone.jpg")
    assert [each for each in _names(_read(folder)) if each[0] != "a"] == [
        ("b", "1.jpg"),
        ("b", "2.jpg"),
        ("b", "4.jpg"),
        ("d", "9.jpg"),
    ]


def test_what_is_no_file_is_no_photo(folder: Path) -> None:
    os.mkfifo(folder / "b" / "pipe.jpg")
    (folder / "b" / "folder.jpg").mkdir()
    assert [name for person, name in _names(_read(folder)) if person == "b"] == ["1.jpg", "2.jpg"]


def test_groups_are_read_for_every_person(folder: Path) -> None:
    (folder / "groups.csv").write_text("person,decade,camera\na,1980s,new\nb,1990s,\n")
    assert _read(folder).groups == {
        "decade": {"a": "1980s", "b": "1990s"},
        "camera": {"a": "new", "b": "(not given)"},
    }
    assert _read(folder).warnings == ()


def test_groups_of_nobody_and_persons_without_one_are_told(folder: Path) -> None:
    (folder / "groups.csv").write_text("person,decade\nb,1990s\nx,1970s\ny,1970s\n")
    found = _read(folder)
    assert found.groups == {"decade": {"a": "(not given)", "b": "1990s"}}
    assert found.warnings == (
        "2 persons of groups.csv without photos, left out: x, y.",
        "1 person without a row in groups.csv, shown as (not given): a.",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "first line"),
        ("name,decade\na,1980s\n", "first line"),
        ("person\na\n", "first line"),
        ("person,decade,decade\na,1,2\n", "first line"),
        ("person,decade\na,1980s,x\n", "Row 1"),
        ("person,decade\na\n", "Row 1"),
        ("person,decade\na,1980s\na,1990s\n", "twice"),
        ("person,decade\nx,1980s\n", "No person"),
        ('person,decade\n"a,1980s\n', "no CSV"),
        ("person,decade\n\udcff,1\n", "no CSV"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(folder: Path, text: str, expected: str) -> None:
    (folder / "groups.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=expected):
        _read(folder)


def test_a_table_that_was_named_and_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        _read(folder, groups=folder / "none.csv")
