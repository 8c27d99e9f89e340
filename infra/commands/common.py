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


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Return a table; numbers are set right, and only the last column and long texts wrap."""
    made = Table(title=title, title_justify="left", header_style="bold")
    listed = [tuple(row) for row in rows]
    for index, column in enumerate(columns):
        numeric = bool(listed) and all(isinstance(row[index], (int, float)) for row in listed)
        wide = max((len(str(row[index])) for row in listed), default=0) > WRAPPED_CHARACTERS
        wraps = wide or index == len(columns) - 1
        made.add_column(column, justify="right" if numeric else "left", no_wrap=not wraps, overflow="fold")
    for row in listed:
        made.add_row(*("" if cell is None else str(cell) for cell in row))
    return made


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
        found = f"several ({', '.join(names)})" if names else "none"
        raise UsageError(f"Name the publisher with --publisher; on this machine there is {found}.")
    return names[0]


@contextmanager
def signed(settings: Settings, key: SigningKey) -> Iterator[SignedPublisher]:
    """Open a publisher that signs with a key, and close it."""
    publisher = SignedPublisher(wiring.kafka_config(settings), key)
    try:
        yield publisher
    finally:
        publisher.close()
