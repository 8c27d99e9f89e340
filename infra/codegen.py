"""Write `schemas/events/` from `schemas/avro/`: one frozen dataclass a record, committed, and checked for drift in CI.

The .avsc files are the only definition of an event; this turns them into Python that a reader, mypy and an editor
understand. Run `python -m infra.codegen` after a change, `python -m infra.codegen --check` to see whether one is due.
A released version never changes: `released.json` beside the schemas holds the fingerprint of each, and altering a
schema without raising its `version` (and moving the old file to `history/`) is refused here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from schemas import avro_schemas

ROOT = Path(__file__).resolve().parent.parent / "schemas"
HEADER = '"""{doc}\n\nGenerated from schemas/avro/{subject}/ by `python -m infra.codegen`; do not edit.\n"""\n'
TYPES = {
    "string": "str",
    "int": "int",
    "long": "int",
    "double": "float",
    "boolean": "bool",
    "bytes": "bytes",
    "uuid": "UUID",
    "timestamp-micros": "datetime",
}
SHARED = "SourcePosition"
"""Stands in several records and is one class, in `schemas/positions.py`."""
SUBJECTS = {
    "booking": "What jail booking systems say, and what became of it.",
    "gallery": "What is searchable.",
    "probe": "Searches and their outcomes.",
    "access": "Who may do what.",
    "review": "One-to-one comparisons, and the leads that come of them.",
    "notice": "What receivers of a record or a lead have to be told.",
    "dead_letter": "What could not be processed.",
}


def annotation(kind: Any) -> str:
    """Return the Python annotation of an Avro type."""
    if isinstance(kind, list):
        (inner,) = [part for part in kind if part != "null"]
        return f"{annotation(inner)} | None"
    if isinstance(kind, str):
        return TYPES.get(kind, kind)
    name = kind.get("logicalType", kind["type"])
    if name == "array":
        return f"tuple[{annotation(kind['items'])}, ...]"
    if name == "map":
        return f"Mapping[str, {annotation(kind['values'])}]"
    if name in ("record", "enum"):
        return str(kind["name"])
    return TYPES[name]


def named_types(schema: dict[str, Any]) -> dict[str, str]:
    """Return name -> "record" | "enum" of every named type in a schema."""
    return {name: definition["type"] for name, definition in avro_schemas.named_types(schema).items()}


def outward(kind: Any, value: str, named: dict[str, str]) -> str:
    """Return the expression that turns a field into what the Avro writer takes."""
    if isinstance(kind, list):
        (inner,) = [part for part in kind if part != "null"]
        expression = outward(inner, value, named)
        return value if expression == value else f"None if {value} is None else {expression}"
    if isinstance(kind, dict):
        logical = kind.get("logicalType", kind["type"])
        if logical == "timestamp-micros":
            return f"utc({value})"
        if logical == "array":
            item = outward(kind["items"], "item", named)
            return f"list({value})" if item == "item" else f"[{item} for item in {value}]"
        if logical == "map":
            return f"dict({value})"
        kind = kind["name"] if logical in ("record", "enum") else logical
    if named.get(kind) == "record":
        return f"{value}.to_record()"
    return f"{value}.value" if named.get(kind) == "enum" else value


def inward(kind: Any, value: str, named: dict[str, str]) -> str:
    """Return the expression that turns what the Avro reader gives into a field."""
    if isinstance(kind, list):
        (inner,) = [part for part in kind if part != "null"]
        expression = inward(inner, value, named)
        return value if expression == value else f"None if {value} is None else {expression}"
    if isinstance(kind, dict):
        logical = kind.get("logicalType", kind["type"])
        if logical == "array":
            item = inward(kind["items"], "item", named)
            return f"tuple({value})" if item == "item" else f"tuple({item} for item in {value})"
        if logical == "map":
            return f"MappingProxyType({value})"
        kind = kind["name"] if logical in ("record", "enum") else logical
    if named.get(kind) == "record":
        return f"{kind}.from_record({value})"
    return f"{kind}({value})" if named.get(kind) == "enum" else value


def class_of(definition: dict[str, Any], named: dict[str, str], qualified: str | None) -> str:
    """Return the source of one class."""
    doc = definition["doc"]
    if definition["type"] == "enum":
        members = "\n".join(f'    {symbol} = "{symbol}"' for symbol in definition["symbols"])
        return f'class {definition["name"]}(StrEnum):\n    """{doc}"""\n\n{members}\n'
    lines = ["@dataclass(frozen=True, slots=True, kw_only=True)"]
    lines += [f"class {definition['name']}:", f'    """{doc}"""', ""]
    if qualified:
        lines += [f'    AVRO_NAME: ClassVar[str] = "{qualified}"', ""]
    for field in definition["fields"]:
        default = ""
        if "default" in field:
            kind = annotation(field["type"])
            is_enum = named.get(kind) == "enum"
            default = f" = {kind}.{field['default']}" if is_enum else f" = {field['default']!r}"
        secret = isinstance(field["type"], dict) and field["type"].get("biometric")
        if secret:
            default = " = field(repr=False)"
        lines += [f"    {field['name']}: {annotation(field['type'])}{default}", f'    """{field["doc"]}"""']
    lines += ["", "    def to_record(self) -> dict[str, Any]:"]
    lines += ['        """Return the mapping that the Avro writer takes."""', "        return {"]
    for f in definition["fields"]:
        lines.append(f'            "{f["name"]}": {outward(f["type"], "self." + f["name"], named)},')
    lines += ["        }", "", "    @classmethod", "    def from_record(cls, record: Mapping[str, Any]) -> Self:"]
    lines += ['        """Return the value of a mapping that the Avro reader gave."""', "        return cls("]
    for f in definition["fields"]:
        source = 'record["' + f["name"] + '"]'
        lines.append(f"            {f['name']}={inward(f['type'], source, named)},")
    return "\n".join([*lines, "        )", ""])


def module_of(subject: str, schemas: list[dict[str, Any]]) -> str:
    """Return the source of the module of one subject."""
    classes: dict[str, str] = {}
    for schema in schemas:
        named = named_types(schema)
        for name, definition in avro_schemas.named_types(schema).items():
            top = definition is schema
            source = class_of(definition, named, avro_schemas.qualified_name(schema) if top else None)
            if name in classes and name != SHARED:
                raise SystemExit(f"schemas/avro/{subject}: {name} is defined twice; give one another name.")
            classes.setdefault(name, source)
    body = "\n\n".join(classes.values())
    imports = [
        "from __future__ import annotations\n",
        "from collections.abc import Mapping",
        "from dataclasses import dataclass, field",
        "from datetime import datetime",
        "from enum import StrEnum",
        "from types import MappingProxyType",
        "from typing import Any, ClassVar, Self",
        "from uuid import UUID\n",
        "from schemas.instants import utc",
    ]
    if SHARED in classes:
        del classes[SHARED]
        body = "\n\n".join(classes.values())
        imports.append("from schemas.positions import SourcePosition")
    return HEADER.format(doc=SUBJECTS[subject], subject=subject) + "\n" + "\n".join(imports) + "\n\n\n" + body


def formatted(source: str, name: str) -> str:
    """Return the source as ruff would leave it: unused imports gone, sorted, formatted."""
    for command in (["check", "--fix-only", "--quiet", "--select", "F401,I,TC"], ["format", "--quiet"]):
        source = subprocess.run(  # noqa: S603 - our own interpreter's ruff on our own text
            [sys.executable, "-m", "ruff", *command, "--stdin-filename", name, "-"],
            input=source,
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT.parent,
        ).stdout
    return source


def generate() -> dict[Path, str]:
    """Return every generated file and its text."""
    current = avro_schemas.CURRENT
    files: dict[Path, str] = {}
    exports: set[tuple[str, str]] = set()
    for subject in SUBJECTS:
        schemas = [schema for name, schema in current.items() if avro_schemas.subject_of(name) == subject]
        path = ROOT / "events" / f"{subject}.py"
        files[path] = formatted(module_of(subject, schemas), f"schemas/events/{subject}.py")
        exports |= {(subject, name) for schema in schemas for name in named_types(schema) if name != SHARED}
    by_name = {schema["name"]: schema for schema in current.values()}
    by_subject = "\n".join(
        f"from schemas.events.{subject} import {', '.join(sorted(n for s, n in exports if s == subject))}"
        for subject in sorted(SUBJECTS)
    )
    names = sorted(schema["name"] for schema in current.values())
    events = [name for name in names if any(f["name"] == "event_id" for f in by_name[name]["fields"])]
    public = sorted(name for _, name in exports)
    union = " | ".join(events)
    others = " | ".join(["Event", *(name for name in names if name not in events)])
    text = (
        '"""Every event, by name.\n\nGenerated from schemas/avro/ by `python -m infra.codegen`; do not edit.\n"""\n\n'
        f"from __future__ import annotations\n\n{by_subject}\n\nEvent = {union}\n"
        '"""What a topic carries."""\n\n'
        f"Record = {others}\n"
        '"""What Avro carries: events, and what is kept in the object store."""\n\n'
        "RECORDS: dict[str, type[Record]] = {cls.AVRO_NAME: cls for cls in (" + ", ".join(names) + ",)}\n"
        '"""Full Avro name -> class."""\n\n'
        "__all__ = [" + ", ".join(f'"{name}"' for name in ["RECORDS", "Event", "Record", *public]) + "]\n"
    )
    files[ROOT / "events" / "__init__.py"] = formatted(text, "schemas/events/__init__.py")
    return files


def released() -> dict[str, dict[str, str]]:
    """Return the fingerprints of all versions as they stand; raise SystemExit where a released one was altered."""
    path = ROOT / "avro" / "released.json"
    known: dict[str, dict[str, str]] = json.loads(path.read_text()) if path.exists() else {}
    for version in avro_schemas.ALL_VERSIONS:
        versions = known.setdefault(version.name, {})
        before = versions.setdefault(str(version.version), version.fingerprint_hex)
        if before != version.fingerprint_hex:
            raise SystemExit(
                f"{version.name} version {version.version} was released with another schema. Put the old file under "
                f"schemas/avro/<subject>/history/ and raise `version` in the new one.",
            )
    present = {(version.name, str(version.version)) for version in avro_schemas.ALL_VERSIONS}
    missing = {(name, version) for name, versions in known.items() for version in versions} - present
    if missing:
        raise SystemExit(f"Released schemas are gone: {sorted(missing)}. Old events could not be read; put them back.")
    return known


def main() -> None:
    """Write what is out of date, or with --check say what is and exit 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when something is out of date")
    check = parser.parse_args().check
    files = generate()
    files[ROOT / "avro" / "released.json"] = json.dumps(released(), indent=2, sort_keys=True) + "\n"
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(files[path])
        sys.stderr.write(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT.parent)}\n")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
