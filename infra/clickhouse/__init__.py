"""The tables and views of the audit trail, as numbered SQL files beside this one."""

from __future__ import annotations

import re
from importlib.resources import files


def load_schema() -> tuple[str, ...]:
    """Return the statements in order; applying them again changes nothing."""
    folder = files(__name__)
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    text = "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)
    bare = re.sub(r"^\s*--.*$", "", text, flags=re.MULTILINE)
    return tuple(statement.strip() for statement in bare.split(";\n") if statement.strip())
