"""A row proves a record without keeping its bytes, whatever they are (G2, G10, G12)."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import schemas
from processors.audit import (
    KEY_TEXT_CHARS,
    LEAF_COLUMNS,
    AuditRow,
    Bounds,
    Tip,
    headers_digest,
    leaf_hash,
    row_of,
    start_offsets,
)
from schemas.codec import decode, encode
from schemas.errors import IntegrityError
from schemas.events import CandidateListIssued, OriginalRecord, TemplatesEnrolled
from schemas.records import LogRecord
from schemas.signing import HEADER_KEY_ID, HEADER_SIGNATURE
from schemas.topics import GALLERY, PROBE_OUTCOMES, TOPICS

EXAMPLES = {
    path.name.split(".")[0]: bytes.fromhex(json.loads(path.read_text())["single_object_hex"])
    for path in (Path(schemas.__file__).parent / "examples").iterdir()
}
TEMPLATE = bytes(range(256))
EMPTY_SHA256 = sha256(b"").hexdigest()
SIGNED = ((HEADER_KEY_ID, b"0123456789abcdef" * 2), (HEADER_SIGNATURE, b"\x07" * 64))


def record(value: bytes | None, **changed: Any) -> LogRecord:
    plain = LogRecord(topic=GALLERY, partition=3, offset=41, timestamp_ms=1_790_000_000_123, key=b"CA0/1", value=value)
    return replace(plain, **changed)


def payload(row: AuditRow) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(row.payload)
    return found


def encodings(secret: bytes) -> list[str]:
    return [secret.hex(), base64.b64encode(secret).decode(), secret.decode("latin-1"), str(list(secret))[1:-1]]


values = st.one_of(
    st.none(),
    st.binary(max_size=200),
    st.binary(max_size=200).map(lambda tail: b"\xc3\x01" + tail),
    st.sampled_from(sorted(EXAMPLES.values())),
    st.builds(
        lambda value, at, new: value[: at % len(value)] + new + value[at % len(value) + len(new) :],
        st.sampled_from(sorted(EXAMPLES.values())),
        st.integers(0, 10_000),
        st.binary(min_size=1, max_size=8),
    ),
)
headers = st.lists(
    st.tuples(
        st.one_of(st.text(max_size=8), st.sampled_from([HEADER_KEY_ID, HEADER_SIGNATURE])),
        st.one_of(st.none(), st.binary(max_size=80)),
    ),
    max_size=4,
).map(tuple)
rows = st.builds(
    lambda value, key, found, time: row_of(record(value, key=key, headers=found, timestamp_ms=time)),
    values,
    st.one_of(st.none(), st.binary(max_size=300)),
    headers,
    st.integers(-(2**63), 2**63 - 1),
)


@given(rows)
def test_whatever_bytes_arrive_there_is_a_row_with_canonical_json(row: AuditRow) -> None:
    """G12: nothing crashes, nothing is dropped."""
    again = json.dumps(payload(row), ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    assert row.payload == again
    assert ("undecodable" in payload(row)) == (payload(row)["record"] == "")
    assert len(row.key) <= KEY_TEXT_CHARS


def test_a_template_is_in_no_column_only_its_digest() -> None:
    """G10."""
    event = decode(EXAMPLES["TemplatesEnrolled"])
    assert isinstance(event, TemplatesEnrolled)
    value = encode(replace(event, captures=(replace(event.captures[0], template=TEMPLATE),)))
    row = row_of(record(value))
    text = "\n".join(map(str, asdict(row).values()))
    assert not [form for form in encodings(TEMPLATE) if form in text]
    assert payload(row)["captures"][0]["template"] == {
        "sha256": sha256(TEMPLATE).hexdigest(),
        "size_bytes": len(TEMPLATE),
    }


@pytest.mark.parametrize(
    "changed",
    [
        {"value": TEMPLATE},
        {"value": b"\xc3\x01" + TEMPLATE},
        {"value": EXAMPLES["TemplatesEnrolled"] + TEMPLATE},
        {"value": encode(OriginalRecord(key=TEMPLATE, value=TEMPLATE, headers=()))},
        {"key": TEMPLATE},
        {"key": TEMPLATE.hex().encode()},
        {"headers": (("x", TEMPLATE), (HEADER_SIGNATURE, TEMPLATE))},
    ],
    ids=["bare", "framed", "behind a record", "inside an original", "as key", "as key in text", "as header"],
)
def test_a_template_where_none_belongs_is_in_no_column_either(changed: dict[str, Any]) -> None:
    """G10: a hostile or broken publisher cannot smuggle one in."""
    text = "\n".join(map(str, asdict(row_of(record(**{"value": b"x"} | changed))).values()))
    assert not [form for form in encodings(TEMPLATE) if form in text]


@given(rows, st.sampled_from(LEAF_COLUMNS), st.one_of(st.integers(), st.text(max_size=20)))
def test_changing_any_evidence_changes_the_leaf(row: AuditRow, column: str, changed: int | str) -> None:
    evidence = asdict(row)
    assert leaf_hash(evidence) == row.leaf_hash
    if str(evidence[column]) != str(changed):
        assert leaf_hash(evidence | {column: changed}) != row.leaf_hash


@given(rows, st.integers(0, len(LEAF_COLUMNS) - 2), st.integers(1, 5))
def test_text_moved_from_one_column_to_the_next_changes_the_leaf(row: AuditRow, place: int, length: int) -> None:
    evidence = asdict(row)
    here, there = LEAF_COLUMNS[place : place + 2]
    text = str(evidence[here])
    moved = {here: text[:-length], there: text[-length:] + str(evidence[there])}
    if text:
        assert leaf_hash(evidence | moved) != row.leaf_hash


def test_the_leaf_is_what_the_documentation_says() -> None:
    """Computed here a second time, from the words in 001_events.sql alone."""
    row = row_of(record(EXAMPLES["TemplatesEnrolled"], headers=SIGNED))
    columns = [
        row.topic, row.partition, row.offset, row.appended_ms, row.key, row.key_sha256, row.key_size, row.wire_sha256,
        row.wire_size, row.headers_sha256, row.signature_key_id, row.signature, row.payload,
    ]  # fmt: skip
    digest = sha256(b"\x00leadstream audit leaf v1\x00")
    for column in columns:
        text = str(column).encode()
        digest.update(len(text).to_bytes(8, "big") + text)
    assert row.leaf_hash == digest.hexdigest()


def test_no_value_and_an_empty_one_are_told_apart() -> None:
    nothing, empty = row_of(record(None)), row_of(record(b""))
    assert (nothing.wire_size, empty.wire_size) == (-1, 0)
    assert nothing.wire_sha256 == empty.wire_sha256 == EMPTY_SHA256
    assert nothing.leaf_hash != empty.leaf_hash
    assert row_of(record(b"x", key=None)).leaf_hash != row_of(record(b"x", key=b"")).leaf_hash


@given(headers, headers)
def test_different_headers_have_different_digests(
    one: tuple[tuple[str, bytes | None], ...], other: tuple[tuple[str, bytes | None], ...]
) -> None:
    assert (headers_digest(one) == headers_digest(other)) == (one == other)


def test_a_well_formed_signature_is_kept_and_half_a_one_is_not() -> None:
    row = row_of(record(b"x", headers=SIGNED))
    assert (row.signature_key_id, row.signature) == ("0123456789abcdef" * 2, "07" * 64)
    assert row_of(record(b"x", headers=SIGNED[:1])).signature_key_id == ""
    assert row_of(record(b"x", headers=(*SIGNED, SIGNED[0]))).signature_key_id == ""


def test_a_huge_key_is_proven_by_its_digest_and_not_kept() -> None:
    key = "é".encode() * 500_000
    row = row_of(record(b"x", key=key))
    assert (row.key, row.key_size) == ("", len(key))
    assert row.key_sha256 == sha256(key).hexdigest()


def test_a_score_that_is_not_a_number_is_still_json() -> None:
    """G12: Avro's doubles know values that JSON does not."""
    event = decode(EXAMPLES["CandidateListIssued"])
    assert isinstance(event, CandidateListIssued)
    value = encode(replace(event, threshold=float("nan"), measurements={"sharpness": float("-inf")}))
    found = payload(row_of(record(value, topic=PROBE_OUTCOMES)))
    assert (found["threshold"], found["measurements"]) == ("nan", {"sharpness": "-inf"})


PLACE = (GALLERY, 0)
TIP = Tip(offset=9, wire_sha256=EMPTY_SHA256)


@given(st.dictionaries(st.tuples(st.sampled_from(sorted(TOPICS)), st.integers(0, 7)), st.integers(0, 100), max_size=9))
def test_every_partition_is_read_from_after_its_last_row_else_from_the_start(last: dict[tuple[str, int], int]) -> None:
    bounds = {(topic, n): Bounds(low=0, high=101) for topic, spec in TOPICS.items() for n in range(8)}
    tips = {place: Tip(offset=offset, wire_sha256=EMPTY_SHA256) for place, offset in last.items()}
    starts = start_offsets(tips, bounds)
    assert starts == {place: last[place] + 1 if place in last else 0 for place in bounds}


def test_a_trail_that_is_just_level_with_kafka_goes_on() -> None:
    assert start_offsets({PLACE: TIP}, {PLACE: Bounds(low=10, high=10)}) == {PLACE: 10}


@pytest.mark.parametrize(
    ("bounds", "says"),
    [
        ({PLACE: Bounds(low=0, high=9)}, "Kafka ends at 9"),
        ({}, "which Kafka does not have"),
        ({PLACE: Bounds(low=11, high=20)}, "from offset 10 to 10"),
    ],
    ids=["Kafka ends earlier", "Kafka lacks the topic", "Kafka lost what was never audited"],
)
def test_a_contradiction_with_kafka_stops_the_sink(bounds: dict[tuple[str, int], Bounds], says: str) -> None:
    with pytest.raises(IntegrityError, match=says):
        start_offsets({PLACE: TIP}, bounds)


def test_records_that_kafka_lost_before_the_first_audit_stop_the_sink() -> None:
    with pytest.raises(IntegrityError, match="from offset 0 to 4"):
        start_offsets({}, {PLACE: Bounds(low=5, high=9)})
