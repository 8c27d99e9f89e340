"""The audit trail as values: one row a record, its leaf hash, and where to go on after a restart (G2, G10, G12).

A row keeps what proves a record without keeping its bytes: where it stood, when it came, digests of key, value and
headers, who signed, and the payload with biometric fields replaced by digests. Every other column of the table is
derived from these by ClickHouse (`infra/clickhouse/001_events.sql`), so a leaf hash covers everything there is.
Bytes that no schema reads become a row too: a digest and a reason, never the bytes.

Source: RFC 6962, section 2.1 (a leaf is hashed behind 0x00, so that no leaf can pass for an inner node).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from schemas.codec import NO_REGISTRY, decode_as_written, stored_payload
from schemas.errors import ContractError, IntegrityError
from schemas.signing import read_headers
from schemas.topics import TOPIC_OF_RECORD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from schemas.avro_schemas import SchemaVersion
    from schemas.records import LogRecord

TopicPartition = tuple[str, int]

KEY_TEXT_CHARS = 128
"""Longest key that is kept as text. Every key of ours is shorter; a template, however encoded, is longer (G10)."""
ABSENT = -1
"""Size of a key or value that is not there, as opposed to an empty one."""

_LEAF_PREFIX = b"\x00"
# Nothing else that is hashed behind 0x00 may begin like this; a new layout takes a new number.
_LEAF_DOMAIN = b"leadstream audit leaf v1\x00"
_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One record of Kafka as the audit trail keeps it. Digests are SHA-256, lower-case hexadecimal."""

    topic: str
    partition: int
    offset: int
    appended_ms: int
    """The broker's time of the append, milliseconds since the epoch."""
    key: str
    """The key, if it is text and not too long for a key of ours; else empty."""
    key_sha256: str
    key_size: int
    """Bytes; -1 when the record has no key."""
    wire_sha256: str
    """Of the value's exact bytes; of no bytes when there is no value."""
    wire_size: int
    """Bytes; -1 when the record has no value."""
    headers_sha256: str
    """Of all headers in order, as `headers_digest` joins them."""
    signature_key_id: str
    """Who is said to have signed; empty unless both headers are well formed. Whether it is true, the worker decides."""
    signature: str
    """Ed25519 signature, hexadecimal; empty as above."""
    payload: str
    """Canonical JSON: sorted names, no spaces, UTF-8."""
    leaf_hash: str


LEAF_COLUMNS = tuple(field.name for field in fields(AuditRow) if field.name != "leaf_hash")
"""What a leaf hash covers, in its order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tip:
    """The last row of a topic-partition."""

    offset: int
    wire_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What Kafka holds of a topic-partition: offsets in [low, high)."""

    low: int
    high: int


def row_of(record: LogRecord, *, registry: Mapping[int, SchemaVersion] = NO_REGISTRY) -> AuditRow:
    """Return the row of a record, whatever its bytes are."""
    signed = read_headers(record.headers)
    evidence: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "appended_ms": record.timestamp_ms,
        "key": _text(record.key),
        "key_sha256": _digest(record.key),
        "key_size": _size(record.key),
        "wire_sha256": _digest(record.value),
        "wire_size": _size(record.value),
        "headers_sha256": headers_digest(record.headers),
        "signature_key_id": signed.key_id if signed else "",
        "signature": signed.signature.hex() if signed else "",
        "payload": _payload(record.value, registry),
    }
    return AuditRow(**evidence, leaf_hash=leaf_hash(evidence))


def leaf_hash(evidence: Mapping[str, Any]) -> str:
    """Return the leaf hash over the columns of `LEAF_COLUMNS`.

    SHA-256 of 0x00, a fixed domain, then each column in order as UTF-8 text (numbers in decimal) behind its length in
    bytes (8 bytes, big-endian): no other row has the same input.
    """
    parts = (str(evidence[name]).encode() for name in LEAF_COLUMNS)
    return sha256(_LEAF_PREFIX + _LEAF_DOMAIN + b"".join(map(_prefixed, parts))).hexdigest()


def headers_digest(headers: Iterable[tuple[str, bytes | None]]) -> str:
    """Return SHA-256 over the headers in order: each name and value behind its length; no value is length 2^64 - 1."""
    digest = sha256()
    for name, value in headers:
        digest.update(_prefixed(name.encode(errors="surrogatepass")))
        digest.update(b"\xff" * _LENGTH_BYTES if value is None else _prefixed(value))
    return digest.hexdigest()


def start_offsets(
    tips: Mapping[TopicPartition, Tip], bounds: Mapping[TopicPartition, Bounds]
) -> dict[TopicPartition, int]:
    """Return the next offset that the audit trail needs of every topic-partition that Kafka has.

    Raises:
        IntegrityError: the audit trail is ahead of Kafka, or Kafka has let go of records that were never audited.
    """
    if lost := sorted(tips.keys() - bounds.keys()):
        topic, partition = lost[0]
        raise IntegrityError(
            f"the audit trail has records of {topic}/{partition}, which Kafka does not have: "
            "this is another Kafka, or the topic was removed. Do not go on before you know which.",
        )
    starts = {}
    for (topic, partition), held in bounds.items():
        tip = tips.get((topic, partition))
        start = tip.offset + 1 if tip else 0
        if start > held.high:
            raise IntegrityError(
                f"the audit trail has {topic}/{partition} up to offset {start - 1}, but Kafka ends at {held.high}: "
                "Kafka lost records, or is another one. Restore Kafka; never cut the audit trail to fit.",
            )
        if start < held.low:
            raise IntegrityError(
                f"Kafka no longer has {topic}/{partition} from offset {start} to {held.low - 1}, and the audit trail "
                "never had it: check the retention settings (`leadstream topics diff`).",
            )
        starts[topic, partition] = start
    return starts


def _payload(value: bytes | None, registry: Mapping[int, SchemaVersion]) -> str:
    try:
        written = decode_as_written(value, registry=registry)
    except ContractError as error:
        return _undecodable(str(error))
    # What no topic carries may hold anything in plain bytes fields: the original of a dead letter does (G10).
    if written.name not in TOPIC_OF_RECORD:
        return _undecodable(f"{written.name} is not carried by any topic.")
    return _canonical(stored_payload(written))


def _undecodable(reason: str) -> str:
    return _canonical({"record": "", "undecodable": reason})


def _canonical(payload: Any) -> str:
    try:
        return _dumps(payload)
    except ValueError:  # JSON has no word for what is not a finite number; Avro has.
        return _dumps(_finite(payload))


def _dumps(payload: Any) -> str:
    return json.dumps(payload, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _text(key: bytes | None) -> str:
    try:
        text = (key or b"").decode()
    except UnicodeDecodeError:
        return ""
    return text if len(text) <= KEY_TEXT_CHARS else ""


def _digest(data: bytes | None) -> str:
    return sha256(data or b"").hexdigest()


def _size(data: bytes | None) -> int:
    return ABSENT if data is None else len(data)


def _prefixed(part: bytes) -> bytes:
    return len(part).to_bytes(_LENGTH_BYTES, "big") + part
