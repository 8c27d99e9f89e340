"""The texts of agreements: what is shown is what is recorded as accepted."""

from __future__ import annotations

from importlib.resources import files
from pathlib import PurePath
from typing import TYPE_CHECKING

from schemas.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def text_of(agreement: str, version: str, own: Path) -> bytes:
    """Return the text of an agreement, UTF-8: the bureau's own, else the shipped one.

    Args:
        agreement: as the policy names it.
        version: as the policy names it; a text of another version is another text.
        own: folder of the bureau's own texts.

    Raises:
        UsageError: there is none; the text says where to put it.
    """
    name = f"{agreement}-{version}.txt"
    if PurePath(name).name == name:
        for text in (own / name, files("infra").joinpath("policy", "agreements", name)):
            if text.is_file():
                return text.read_bytes()
    raise UsageError(
        f"There is no text of {agreement} version {version}, and what was not shown is not accepted: put the text at "
        f"{own / name}, or name its file with --document."
    )
