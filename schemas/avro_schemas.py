"""The Avro schemas as shipped in the package: current versions, older ones, their fingerprints.

The fingerprint is CRC-64-AVRO of the parsing canonical form as `fastavro` computes it (Avro specification, "Schema
Fingerprints"); the `avro` package keeps a wrapper round logical types and so computes another one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import fastavro
import fastavro.schema

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaVersion:
    """One version of one record."""

    name: str
    """Full Avro name, e.g. leadstream.booking.BookingRecorded."""
    version: int
    schema: Schema
    """The schema as written in the file."""
    parsed: Any
    """The same, parsed by fastavro."""
    fingerprint: bytes
    """CRC-64-AVRO, 8 bytes little-endian."""

    @property
    def fingerprint_hex(self) -> str:
        """The fingerprint, 16 hexadecimal digits, most significant first."""
        return self.fingerprint[::-1].hex()


def qualified_name(schema: Schema) -> str:
    """Return the full Avro name of a record."""
    return f"{schema['namespace']}.{schema['name']}"


def subject_of(name: str) -> str:
    """Return the folder of a record, e.g. booking for leadstream.booking.BookingRecorded."""
    return name.split(".")[1]


def named_types(schema: Any) -> dict[str, Schema]:
    """Return every record and enum of a schema by name, inner ones first."""
    found: dict[str, Schema] = {}
    if isinstance(schema, list):
        for part in schema:
            found |= named_types(part)
    elif isinstance(schema, dict):
        for field in schema.get("fields", ()):
            found |= named_types(field["type"])
        for inner in ("type", "items", "values"):
            if isinstance(schema.get(inner), (dict, list)):
                found |= named_types(schema[inner])
        if schema.get("type") in ("record", "enum"):
            found[schema["name"]] = schema
    return found


def _load(path: Traversable) -> SchemaVersion:
    schema = json.loads(path.read_text(encoding="utf-8"))
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    digits = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
    return SchemaVersion(
        name=qualified_name(schema),
        version=schema["version"],
        schema=schema,
        parsed=fastavro.parse_schema(schema),
        fingerprint=bytes.fromhex(digits),
    )


def _load_all() -> tuple[list[SchemaVersion], list[SchemaVersion]]:
    current, older = [], []
    for subject in sorted(files("schemas").joinpath("avro").iterdir(), key=lambda entry: entry.name):
        if not subject.is_dir():
            continue
        for entry in sorted(subject.iterdir(), key=lambda entry: entry.name):
            if entry.name.endswith(".avsc"):
                current.append(_load(entry))
            elif entry.name == "history":
                older += [_load(old) for old in sorted(entry.iterdir(), key=lambda old: old.name)]
    return current, older


_current, _older = _load_all()
CURRENT: dict[str, Schema] = {version.name: version.schema for version in _current}
"""Full name -> current schema."""
CURRENT_VERSIONS: dict[str, SchemaVersion] = {version.name: version for version in _current}
"""Full name -> current version."""
ALL_VERSIONS: tuple[SchemaVersion, ...] = (*_older, *_current)
"""Every version there ever was."""
BY_FINGERPRINT: dict[bytes, SchemaVersion] = {version.fingerprint: version for version in ALL_VERSIONS}
"""CRC-64-AVRO, little-endian -> version."""
