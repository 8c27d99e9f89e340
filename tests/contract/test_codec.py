"""The codec: what is written is read back, in both framings; what is not ours is refused and never crashes (G12)."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import schemas
from schemas.avro_schemas import CURRENT_VERSIONS
from schemas.codec import (
    MAX_PLAIN_BYTES,
    decode,
    decode_as_written,
    decode_for,
    encode,
    stored_payload,
)
from schemas.errors import ContractError
from schemas.events import EnrolledCapture, Header, OriginalRecord, TemplatesEnrolled, UserRegistered
from schemas.topics import GALLERY, PROBE_REQUESTS

PAYLOADS = {
    path.name: bytes.fromhex(json.loads(path.read_text())["single_object_hex"])
    for path in sorted((Path(schemas.__file__).parent / "examples").glob("*.json"))
}
any_payload = st.sampled_from(sorted(PAYLOADS.values()))


def enrolment() -> TemplatesEnrolled:
    event = decode(PAYLOADS["TemplatesEnrolled.v1.json"])
    assert isinstance(event, TemplatesEnrolled)
    return event


@given(any_payload, st.integers(0, 2**32 - 1))
def test_confluent_framing_carries_the_same_event(payload: bytes, schema_id: int) -> None:
    event = decode(payload)
    registry = {schema_id: CURRENT_VERSIONS[event.AVRO_NAME]}
    framed = encode(event, schema_id=schema_id)
    assert framed[:5] == b"\x00" + struct.pack(">I", schema_id)
    assert decode(framed, registry=registry) == event
    assert decode(payload, registry=registry) == event


@given(st.binary(max_size=4096))
def test_any_bytes_are_an_event_or_a_contract_error(data: bytes) -> None:
    for framed in (data, b"\x00" + data, b"\xc3\x01" + data):
        try:
            decode(framed)
        except ContractError:
            continue


@given(any_payload, st.data())
def test_a_truncated_record_is_refused(payload: bytes, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(ContractError):
        decode(payload[:length])


@given(any_payload, st.binary(min_size=1, max_size=64))
def test_bytes_after_the_record_are_refused(payload: bytes, tail: bytes) -> None:
    with pytest.raises(ContractError):
        decode(payload + tail)


@given(any_payload, st.data())
def test_a_damaged_record_is_an_event_or_a_contract_error(payload: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(10, len(payload) - 1))
    damaged = payload[:at] + bytes([data.draw(st.integers(0, 255))]) + payload[at + 1 :]
    try:
        event = decode(damaged)
    except ContractError:
        return
    assert decode(encode(event)) == event


def test_an_unknown_fingerprint_and_a_null_value_are_refused() -> None:
    for data in (b"\xc3\x01" + bytes(8) + b"rest", None, b"", b"\xc3", b"\x00\x00", b"{}"):
        with pytest.raises(ContractError):
            decode(data)


def test_a_record_in_the_wrong_topic_is_refused() -> None:
    payload = PAYLOADS["TemplatesEnrolled.v1.json"]
    assert isinstance(decode_for(GALLERY, payload), TemplatesEnrolled)
    with pytest.raises(ContractError, match="does not belong"):
        decode_for(PROBE_REQUESTS, payload)


def test_a_time_without_a_zone_is_refused_and_not_guessed() -> None:
    naive = datetime(2026, 11, 23)  # noqa: DTZ001 - the point of the test
    with pytest.raises(ContractError, match="time zone"):
        encode(replace(enrolment(), occurred_at=naive))


def test_the_audit_keeps_the_digest_of_a_template_and_never_the_template() -> None:
    """G10."""
    template = bytes(range(256))
    capture = replace(enrolment().captures[0], template=template)
    event = replace(enrolment(), captures=(capture,))
    payload = stored_payload(decode_as_written(encode(event)))
    assert payload["captures"][0]["template"] == {"sha256": sha256(template).hexdigest(), "size_bytes": 256}
    assert template.hex() not in json.dumps(payload)
    assert "template" not in repr(EnrolledCapture(capture_id=capture.capture_id, template=template, quality=1.0))


@given(st.binary(max_size=4 * MAX_PLAIN_BYTES))
def test_the_audit_shows_a_public_key_and_never_what_is_longer_than_one(public_key: bytes) -> None:
    """G10: whoever may register somebody could put a template where a key belongs."""
    event = decode(PAYLOADS["UserRegistered.v1.json"])
    assert isinstance(event, UserRegistered)
    shown = stored_payload(decode_as_written(encode(replace(event, public_key=public_key))))["public_key"]
    if len(public_key) <= MAX_PLAIN_BYTES:
        assert shown == public_key.hex()
    else:
        assert shown == {"sha256": sha256(public_key).hexdigest(), "size_bytes": len(public_key)}


def test_long_bytes_are_a_digest_wherever_they_stand() -> None:
    """G10."""
    long = bytes(range(MAX_PLAIN_BYTES + 1))
    original = OriginalRecord(key=long, value=long, headers=(Header(name="x", value=long),))
    payload = stored_payload(decode_as_written(encode(original)))
    digest = {"sha256": sha256(long).hexdigest(), "size_bytes": len(long)}
    assert [payload["key"], payload["value"], payload["headers"][0]["value"]] == [digest] * 3
    assert long.hex() not in json.dumps(payload)


def test_an_error_never_quotes_the_bytes_it_could_not_read() -> None:
    """G10."""
    payload = PAYLOADS["TemplatesEnrolled.v1.json"]
    with pytest.raises(ContractError) as caught:
        decode(payload[:-20] + b"\xff" * 20)
    assert caught.value.__cause__ is None
    assert "\\x" not in str(caught.value)
