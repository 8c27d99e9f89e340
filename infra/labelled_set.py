"""Read a labelled set of photos: a folder, in it one folder a person, and perhaps groups of persons in `groups.csv`."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

GROUPS_FILE = "groups.csv"
NO_GROUP = "(not given)"
_PERSON_COLUMN = "person"
_PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".jp2", ".j2k", ".jpx"})
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPhoto:
    """One photo and whose it is."""

    person: str
    name: str
    """Path within the person's folder."""
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSet:
    """The photos in order of person and name, and what was noticed while they were read."""

    photos: tuple[LabelledPhoto, ...]
    groups: Mapping[str, Mapping[str, str]]
    """Column of `groups.csv` -> person -> group."""
    warnings: tuple[str, ...]


def read_labelled_set(folder: Path, *, pattern: str | None, groups: Path | None) -> LabelledSet:
    """Read which photos there are; none is opened yet.

    Without a pattern every photo below a person's folder counts, known by the end of its name. Without `groups`, the
    file `groups.csv` in the folder is taken if there is one. A link counts as what it leads to.

    Raises:
        UsageError: there is no such folder, nothing in it, one person twice, or a table of groups that cannot be read.
    """
    if pattern is not None and (not pattern or pattern.startswith("/") or ".." in pattern.split("/")):
        raise UsageError(f"--glob {pattern!r} is no pattern of paths within a person's folder.")
    warnings: list[str] = []
    photos: list[LabelledPhoto] = []
    for person in _person_folders(folder, warnings):
        photos += _photos_of(person, pattern, warnings)
    if not photos:
        wanted = f"match {pattern!r}" if pattern else "end in .jpg, .png or .jp2"
        raise UsageError(
            f"There is no photo in {folder}: it has to hold one folder a person, with photos that {wanted}."
        )
    photos.sort(key=lambda photo: (photo.person, photo.name))
    table = groups if groups is not None else folder / GROUPS_FILE
    found = _read_groups(table, {photo.person for photo in photos}, warnings) if groups or table.is_file() else {}
    return LabelledSet(photos=tuple(photos), groups=found, warnings=tuple(warnings))


def _person_folders(folder: Path, warnings: list[str]) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except NotADirectoryError:
        raise UsageError(f"{folder} is a file: name the folder that holds one folder a person.") from None
    except OSError as error:
        raise UsageError(f"The folder {folder} cannot be read: {error.strerror}.") from None
    visible = [entry for entry in entries if not entry.name.startswith(".")]
    folders = [entry for entry in visible if entry.is_dir()]
    aside = [entry.name for entry in visible if not entry.is_dir() and entry.name != GROUPS_FILE]
    if aside:
        warnings.append(f"{_counted(aside, 'file')} beside the folders of persons, left out: {_some(aside)}.")
    real: dict[Path, str] = {}
    for entry in folders:
        target = entry.resolve()
        if target in real:
            raise UsageError(
                f"{real[target]} and {entry.name} in {folder} are one folder: one person must not count as two."
            )
        real[target] = entry.name
    return folders


def _photos_of(person: Path, pattern: str | None, warnings: list[str]) -> list[LabelledPhoto]:
    """Return a person's photos; a link to a photo that the person has already counts once."""
    try:
        matching = sorted(person.glob(pattern or "**/*"))
    except (ValueError, NotImplementedError, IndexError) as error:
        raise UsageError(f"--glob {pattern!r} is no pattern of paths within a person's folder: {error}.") from None
    except OSError as error:
        warnings.append(f"The folder of {person.name} cannot be read: {error.strerror}.")
        return []
    photos: dict[Path, LabelledPhoto] = {}
    for path in matching:
        name = path.relative_to(person)
        if any(part.startswith(".") for part in name.parts) or (path.exists() and not path.is_file()):
            continue
        if pattern is None and path.suffix.lower() not in _PHOTO_SUFFIXES:
            continue
        photos.setdefault(path.resolve(), LabelledPhoto(person=person.name, name=str(name), path=path))
    if not photos:
        warnings.append(f"{person.name} has no photo and is left out.")
    return list(photos.values())


def _read_groups(table: Path, persons: set[str], warnings: list[str]) -> dict[str, dict[str, str]]:
    """Read `person,group...`: column -> person -> group, a group for every person of the set."""
    kinds, rows = _read_table(table)
    given: dict[str, dict[str, str]] = {}
    for row in rows:
        person = row[_PERSON_COLUMN]
        if person in given:
            raise UsageError(f"{table} has {person!r} twice: one row a person.")
        given[person] = row
    unknown, missing = sorted(given.keys() - persons), sorted(persons - given.keys())
    if given and len(unknown) == len(given):
        raise UsageError(f"No person of {table} has a folder with photos: column `person` has the names of folders.")
    if unknown:
        warnings.append(f"{_counted(unknown, 'person')} of {table.name} without photos, left out: {_some(unknown)}.")
    if missing:
        shown = f"shown as {NO_GROUP}: {_some(missing)}"
        warnings.append(f"{_counted(missing, 'person')} without a row in {table.name}, {shown}.")
    return {
        kind: {person: given.get(person, {}).get(kind, "").strip() or NO_GROUP for person in sorted(persons)}
        for kind in kinds
    }


def _read_table(table: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the groupings and the rows, each with as many columns as the first line."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or [])
            rows = list(reader)
    except OSError as error:
        raise UsageError(f"The table of groups {table} cannot be read: {error.strerror}.") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"The table of groups {table} is no CSV in UTF-8: {error}.") from None
    kinds = [column for column in columns if column != _PERSON_COLUMN]
    if _PERSON_COLUMN not in columns or not kinds or len(set(columns)) != len(columns) or not all(columns):
        raise UsageError(f"The first line of {table} has to be `person,` and then the name of each grouping.")
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise UsageError(f"Row {number} of {table} has not as many columns as the first line.")
    return kinds, rows


def _counted(items: list[str], what: str) -> str:
    return f"{len(items)} {what}{'' if len(items) == 1 else 's'}"


def _some(names: list[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
