"""Each version of each record has a golden payload; `fastavro` and `avro` read it alike, and so do we, for ever."""

from __future__ import annotations

import io
import json
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import avro.io
import avro.schema
import pytest

import schemas
from schemas.avro_schemas import ALL_VERSIONS, CURRENT_VERSIONS, SchemaVersion
from schemas.codec import decode, decode_as_written, encode
from schemas.events import RECORDS

EXAMPLES = Path(schemas.__file__).parent / "examples"
versions = pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda v: f"{v.name}.v{v.version}")


def example(version: SchemaVersion) -> tuple[bytes, dict[str, Any]]:
    document = json.loads((EXAMPLES / f"{version.schema['name']}.v{version.version}.json").read_text())
    assert (document["record"], document["version"]) == (version.name, version.version)
    return bytes.fromhex(document["single_object_hex"]), document["fields"]


def comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: comparable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [comparable(item) for item in value]
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value.hex() if isinstance(value, bytes) else str(value) if isinstance(value, UUID) else value


@versions
def test_a_golden_payload_reads_as_its_fields_say(version: SchemaVersion) -> None:
    data, fields = example(version)
    assert comparable(decode_as_written(data).fields) == fields


@versions
def test_the_avro_package_reads_the_same_from_the_same_bytes(version: SchemaVersion) -> None:
    data, fields = example(version)
    schema = avro.schema.parse(json.dumps(version.schema))
    read = avro.io.DatumReader(schema).read(avro.io.BinaryDecoder(io.BytesIO(data[10:])))
    assert comparable(read) == fields


@pytest.mark.parametrize("version", CURRENT_VERSIONS.values(), ids=lambda v: v.name)
def test_a_golden_payload_of_a_current_version_is_what_we_write(version: SchemaVersion) -> None:
    data, _ = example(version)
    assert encode(decode(data)) == data


@pytest.mark.parametrize("version", CURRENT_VERSIONS.values(), ids=lambda v: v.name)
def test_the_avro_package_writes_what_we_write(version: SchemaVersion) -> None:
    data, _ = example(version)
    out = io.BytesIO()
    schema = avro.schema.parse(json.dumps(version.schema))
    record = avro.io.DatumReader(schema).read(avro.io.BinaryDecoder(io.BytesIO(data[10:])))
    avro.io.DatumWriter(schema).write(record, avro.io.BinaryEncoder(out))
    assert out.getvalue() == data[10:]


def test_there_is_no_example_without_a_schema_and_no_event_without_an_example() -> None:
    expected = {f"{version.schema['name']}.v{version.version}.json" for version in ALL_VERSIONS}
    assert {path.name for path in EXAMPLES.glob("*.json")} == expected
    assert set(RECORDS) == set(CURRENT_VERSIONS)
