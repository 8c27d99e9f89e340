"""Bytes <-> events: Avro, in the two framings that exist.

Single-object encoding (Avro specification, "Single-object encoding": C3 01, CRC-64-AVRO of the writer's schema
little-endian, body) needs no registry and is the default. Confluent's wire format (00, schema id big-endian, body)
is written when a schema registry is configured. Readers accept both, by the first bytes. `fastavro` moves the bytes;
that the result is Avro is judged by the `avro` package in the tests.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import UUID

import fastavro

from schemas.avro_schemas import BY_FINGERPRINT, CURRENT_VERSIONS
from schemas.errors import ContractError
from schemas.events import RECORDS, Event
from schemas.instants import iso
from schemas.topics import TOPIC_OF_RECORD, TOPICS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from schemas.avro_schemas import SchemaVersion
    from schemas.events import Record

SINGLE_OBJECT = b"\xc3\x01"
CONFLUENT = b"\x00"
MAX_SIGNED_VALUE_BYTES = 131_072
"""Longest record from outside: what it causes echoes parts of it and must still fit in a Kafka message."""
MAX_PLAIN_BYTES = 32
"""Bytes of a field without biometric content that a stored payload shows, e.g. a public key."""
_HEADER_BYTES = 10
_CONFLUENT_HEADER_BYTES = 5

_SIGNED_TOPICS = frozenset(topic.name for topic in TOPICS.values() if topic.signed)

NO_REGISTRY: Mapping[int, SchemaVersion] = MappingProxyType({})
"""For systems without a schema registry: every record in Confluent framing is a ContractError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenRecord:
    """A record as its writer's schema reads it, with nothing resolved away: what the audit trail keeps."""

    version: SchemaVersion
    fields: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the record without its namespace, e.g. BookingRecorded."""
        return self.version.name.rpartition(".")[2]


def encode(event: Record, *, schema_id: int | None = None) -> bytes:
    """Return the event in single-object encoding, or in Confluent framing when its schema id is given.

    Raises:
        ContractError: a field has a value that its schema does not allow.
    """
    version = CURRENT_VERSIONS[event.AVRO_NAME]
    out = io.BytesIO()
    out.write(SINGLE_OBJECT + version.fingerprint if schema_id is None else CONFLUENT + struct.pack(">I", schema_id))
    try:
        fastavro.schemaless_writer(out, version.parsed, event.to_record(), strict=True)
    except (ValueError, TypeError, OverflowError, struct.error, AttributeError) as error:
        raise ContractError(f"{version.name} cannot be written: {_without_values(error)}") from None
    return out.getvalue()


def decode(data: bytes | None, *, registry: Mapping[int, SchemaVersion] = NO_REGISTRY) -> Record:
    """Return the record that the bytes hold, read as the current version of its schema.

    Raises:
        ContractError: no value, unknown framing or schema, bytes too short or too long, a value out of range.
    """
    version, body = _unframe(data, registry)
    current = CURRENT_VERSIONS[version.name]
    # Told to read a schema as itself, fastavro first compares the two, which takes a fifth of the time.
    record = _read(body, version, None if current is version else current.parsed)
    try:
        return RECORDS[version.name].from_record(record)
    except (KeyError, ValueError, TypeError) as error:
        raise ContractError(f"{version.name} has an unusable value: {_without_values(error)}") from None


def decode_for(topic: str, data: bytes | None, *, registry: Mapping[int, SchemaVersion] = NO_REGISTRY) -> Event:
    """Return the event, if it belongs in this topic.

    Raises:
        ContractError: as `decode`, or the record belongs in another topic, or is longer than anybody outside may write.
    """
    if data is not None and len(data) > MAX_SIGNED_VALUE_BYTES and topic in _SIGNED_TOPICS:
        raise ContractError(f"The record has {len(data)} bytes; {topic} takes at most {MAX_SIGNED_VALUE_BYTES}.")
    event = decode(data, registry=registry)
    if not isinstance(event, Event) or topic_of(event) != topic:
        raise ContractError(f"{type(event).__name__} does not belong in {topic}.")
    return event


def record_name(data: bytes | None, *, registry: Mapping[int, SchemaVersion] = NO_REGISTRY) -> str | None:
    """Return the full Avro name of what the bytes are said to hold, unread; None where they name no schema."""
    try:
        return _unframe(data, registry)[0].name
    except ContractError:
        return None


def decode_as_written(data: bytes | None, *, registry: Mapping[int, SchemaVersion] = NO_REGISTRY) -> WrittenRecord:
    """Return the record exactly as written, read by its writer's schema alone.

    Raises:
        ContractError: as `decode`.
    """
    version, body = _unframe(data, registry)
    return WrittenRecord(version=version, fields=_read(body, version, None))


def topic_of(event: Event) -> str:
    """Return the topic that carries this kind of event.

    Raises:
        ContractError: no topic carries it.
    """
    name = type(event).__name__
    if name not in TOPIC_OF_RECORD:
        raise ContractError(f"{name} is not carried by any topic.")
    return TOPIC_OF_RECORD[name]


def stored_payload(record: WrittenRecord) -> dict[str, Any]:
    """Return the record as plain JSON values, each biometric field replaced by its SHA-256 (G10)."""
    return {
        "record": record.name,
        "version": record.version.version,
        **_plain(record.version.schema, record.fields),
    }


def _unframe(data: bytes | None, registry: Mapping[int, SchemaVersion]) -> tuple[SchemaVersion, bytes]:
    if not data:
        raise ContractError("The record has no value; a withdrawal is a record of its own, never a null.")
    if data.startswith(SINGLE_OBJECT):
        version = BY_FINGERPRINT.get(data[2:_HEADER_BYTES])
        if version is None:
            raise ContractError(f"No schema has the fingerprint {data[2:_HEADER_BYTES][::-1].hex()}.")
        return version, data[_HEADER_BYTES:]
    if data.startswith(CONFLUENT) and len(data) >= _CONFLUENT_HEADER_BYTES:
        (schema_id,) = struct.unpack(">I", data[1:_CONFLUENT_HEADER_BYTES])
        version = registry.get(schema_id)
        if version is None:
            raise ContractError(f"The schema registry knows no schema {schema_id} of ours.")
        return version, data[_CONFLUENT_HEADER_BYTES:]
    raise ContractError("The bytes are neither single-object encoding nor Confluent wire format.")


def _read(body: bytes, version: SchemaVersion, reader: Any) -> dict[str, Any]:
    source = io.BytesIO(body)
    try:
        record = fastavro.schemaless_reader(source, version.parsed, reader)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, EOFError, MemoryError, struct.error) as error:
        raise ContractError(f"{version.name} cannot be read: {_without_values(error)}") from None
    except fastavro.read.SchemaResolutionError:
        raise ContractError(f"{version.name} version {version.version} cannot be read as the current one.") from None
    if source.tell() != len(body):
        raise ContractError(f"{version.name} has {len(body) - source.tell()} bytes too many.")
    if not isinstance(record, dict):
        raise ContractError(f"{version.name} is not a record.")
    return record


def _without_values(error: Exception) -> str:
    """Name the kind of an error without its text, which may quote biometric bytes (G10)."""
    return type(error).__name__


def _plain(schema: Any, value: Any) -> Any:
    if isinstance(schema, list):
        return None if value is None else _plain(next(part for part in schema if part != "null"), value)
    if isinstance(value, bytes) and len(value) > MAX_PLAIN_BYTES:
        # Longer than any key: whatever it is called, it may be a template that somebody put there (G10).
        return {"sha256": sha256(value).hexdigest(), "size_bytes": len(value)}
    if isinstance(schema, str):
        return value.hex() if isinstance(value, bytes) else value
    if schema.get("biometric"):
        return {"sha256": sha256(value).hexdigest(), "size_bytes": len(value)}
    match schema["type"]:
        case "record":
            plain: Any = {field["name"]: _plain(field["type"], value[field["name"]]) for field in schema["fields"]}
        case "array":
            plain = [_plain(schema["items"], item) for item in value]
        case "map":
            plain = {name: _plain(schema["values"], item) for name, item in value.items()}
        case _:
            plain = str(value) if isinstance(value, UUID) else iso(value) if isinstance(value, datetime) else value
    return plain
