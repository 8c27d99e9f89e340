"""What commands share: options, tables, JSON, and the signed connection of whoever works at this terminal."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from connectors.publishing import SignedPublisher
from connectors.signing_keys import SigningKey
from infra import wiring
from infra.settings import PREFIX
from schemas.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rich.progress import ProgressColumn

    from infra.data_folder import DataFolder
    from infra.settings import Settings

Data = Annotated[
    Path | None,
    typer.Option("--data", help=f"Data folder; default: {PREFIX}DATA, else ./leadstream-data.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

PIPED_WIDTH_CHARACTERS = 120
WRAPPED_CHARACTERS = 40
LEAST_WRAPPED_CHARACTERS = 24

out = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH_CHARACTERS)
err = Console(stderr=True)


def say(text: str) -> None:
    """Tell the person at the terminal what is going on, on standard error."""
    err.print(text, markup=False, highlight=False)


@contextmanager
def progress_bars(*columns: ProgressColumn) -> Iterator[Callable[[str, int, int], None]]:
    """Show on standard error what is being done and how far it is; yield what is told that.

    `columns` stand behind each bar. What is yielded takes what is being done, how much of it is done, and of how much.
    """
    with Progress(TextColumn("  {task.description}"), BarColumn(), *columns, console=err, transient=True) as bars:
        tasks = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield progress


def print_json(document: Any) -> None:
    """Print one JSON document on standard output."""
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, width: int | None = None) -> Table:
    """Return a table that can be read at a width in characters, that of `out` where none is given.

    Numbers are set right, and only the last column and long texts wrap, between words. What is too wide for that stands
    upright: a line for each cell, its column before it, and a rule between the rows.
    """
    given = [tuple(row) for row in rows]
    listed = [tuple("" if cell is None else str(cell) for cell in row) for row in given]
    cells = [[column, *(row[index] for row in listed)] for index, column in enumerate(columns)]
    wraps = [
        index == len(columns) - 1 or max(map(len, column)) > WRAPPED_CHARACTERS for index, column in enumerate(cells)
    ]
    least = [
        _least_width(column) if wrapping else max(map(_longest_line, column))
        for column, wrapping in zip(cells, wraps, strict=True)
    ]
    if listed and sum(least) + 3 * len(columns) + 1 > (width or out.width):
        return _upright(title, columns, listed)
    made = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(given) and all(isinstance(row[index], (int, float)) for row in given)
        made.add_column(
            column,
            justify="right" if numeric else "left",
            no_wrap=not wraps[index],
            min_width=least[index],
            overflow="fold",
        )
    for row in listed:
        made.add_row(*row)
    return made


def _upright(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    made = Table(title=title, title_justify="left", show_header=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for row in rows:
        for column, cell in zip(columns, row, strict=True):
            made.add_row(column, cell)
        made.add_section()
    return made


def _least_width(cells: Sequence[str]) -> int:
    """Return the characters in which wrapped cells can be read: no word is broken but an endless one."""
    longest_word = max((len(word) for cell in cells for word in cell.split()), default=0)
    return max(min(longest_word, WRAPPED_CHARACTERS), min(max(map(_longest_line, cells)), LEAST_WRAPPED_CHARACTERS))


def _longest_line(cell: str) -> int:
    return max(map(len, cell.splitlines()), default=0)


def load_key(path: Path, owner: str, how: str) -> SigningKey:
    """Load a private key of this machine.

    Raises:
        UsageError: it is not here; the text says how to make it.
    """
    if not path.is_file():
        raise UsageError(f"There is no key of {owner} on this machine ({path}). {how}")
    return SigningKey.load(path)


def read_file(path: Path) -> bytes:
    """Read a file that the person at the terminal named.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None


def only_publisher(folder: DataFolder) -> str:
    """Return the one publisher whose key is on this machine.

    Raises:
        UsageError: there is none, or there are several.
    """
    names = sorted(path.stem for path in folder.publisher_key("any").parent.glob("*.key"))
    if len(names) != 1:
        found = f"are several ({', '.join(names)})" if names else "is none"
        raise UsageError(f"Name the publisher with --publisher; on this machine there {found}.")
    return names[0]


@contextmanager
def signed(settings: Settings, key: SigningKey) -> Iterator[SignedPublisher]:
    """Open a publisher that signs with a key, and close it."""
    publisher = SignedPublisher(wiring.kafka_config(settings), key)
    try:
        yield publisher
    finally:
        publisher.close()
