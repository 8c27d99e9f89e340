"""Usual enrolments read as columns say what they say when each is decoded; whatever is unusual is left to that (G7)."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import fastavro
import numpy as np
import pytest
from builders import uuid_named
from hypothesis import example, given, settings
from hypothesis import strategies as st

import schemas
from processors.enrolments import Enrolments, read_enrolments
from processors.templates import UNIT_TOLERANCE, are_templates, template_from_bytes, template_to_bytes, to_template
from schemas.avro_schemas import ALL_VERSIONS, CURRENT_VERSIONS, SchemaVersion
from schemas.codec import SINGLE_OBJECT, decode, decode_as_written, encode
from schemas.errors import ContractError
from schemas.events import EnrolledCapture, TemplatesEnrolled
from schemas.instants import to_micros
from schemas.keys import booking_key
from schemas.layouts import layout_of, numbers_at
from schemas.positions import SourcePosition
from schemas.topics import BOOKING_EVENTS

PAYLOADS = {
    path.name: bytes.fromhex(json.loads(path.read_text())["single_object_hex"])
    for path in sorted((Path(schemas.__file__).parent / "examples").glob("*.json"))
}
DIMENSION = 8
MODEL = "ab" * 32
FACES = [to_template(vector) for vector in np.random.default_rng(3).normal(size=(5, DIMENSION))]
HEADER_BYTES = 10
SCHEMA = CURRENT_VERSIONS[TemplatesEnrolled.AVRO_NAME].schema

texts = st.one_of(
    st.text("AB01-/", max_size=4), st.text(max_size=3), st.sampled_from(["26-000001", "26-000002", "a\0"])
)
vectors = st.one_of(
    st.sampled_from([template_to_bytes(face) for face in FACES]),
    st.sampled_from([b"", b"short", bytes(2 * DIMENSION), b"\xff" * 2 * DIMENSION]),
    st.binary(min_size=2 * DIMENSION, max_size=2 * DIMENSION),
)
instants = st.datetimes(timezones=st.just(UTC))
enrolments = st.builds(
    TemplatesEnrolled,
    event_id=st.uuids(),
    occurred_at=instants,
    actor=st.one_of(st.just("system:worker"), texts),
    ori=st.one_of(st.sampled_from(["CA0190000", "CA0370000"]), texts),
    booking_number=texts,
    sid=st.one_of(st.none(), st.sampled_from(["A1", "A2"]), texts),
    model_digest=st.one_of(st.just(MODEL), st.sampled_from(["cd" * 32, "", "é" * 32])),
    captures=st.lists(
        st.builds(EnrolledCapture, capture_id=st.uuids(), template=vectors, quality=st.floats()), max_size=3
    ).map(tuple),
    source=st.builds(
        SourcePosition,
        topic=st.one_of(st.just(BOOKING_EVENTS), texts),
        partition=st.integers(0, 2**31 - 1),
        offset=st.integers(0, 2**63 - 1),
    ),
    source_said_at=instants,
    synthetic=st.booleans(),
    booking_offset=st.one_of(st.none(), st.integers(0, 2**63 - 1)),
)


def usual(number: int = 0, **changes: Any) -> TemplatesEnrolled:
    facts: dict[str, Any] = {
        "event_id": uuid_named(str(number)),
        "occurred_at": datetime(2026, 11, 24, tzinfo=UTC),
        "actor": "system:worker",
        "ori": "CA0190000",
        "booking_number": f"26-{number:06d}",
        "sid": f"A{number:08d}",
        "model_digest": MODEL,
        "captures": (
            EnrolledCapture(
                capture_id=uuid_named(f"capture {number}"),
                template=template_to_bytes(FACES[number % len(FACES)]),
                quality=0.25 * (number % 5),
            ),
        ),
        "source": SourcePosition(topic=BOOKING_EVENTS, partition=number % 3, offset=number),
        "source_said_at": datetime(2026, 11, 23, tzinfo=UTC),
    }
    return TemplatesEnrolled(**facts | changes)


def read(values: list[bytes | None], fewest: int = 1) -> Enrolments:
    return read_enrolments(values, model_digest=MODEL, dimension=DIMENSION, fewest=fewest)


def said_by(found: Enrolments) -> dict[int, tuple[Any, ...]]:
    """What the columns say, by the number of the record, as `said_by_decoding` has it."""
    said = {}
    for place, record in enumerate(found.records.tolist()):
        rows = np.flatnonzero(found.rows.owners == place).tolist()
        assert len({(found.rows.oris[row], found.rows.numbers[row], found.rows.sids[row]) for row in rows}) == 1
        said[record] = (
            found.rows.bookings[place].decode(),
            found.rows.oris[rows[0]].decode(),
            found.rows.numbers[rows[0]].decode(),
            found.rows.sids[rows[0]].decode(),
            int(found.source_offsets[place]),
            int(found.said_at_us[place]),
            [
                (
                    UUID(bytes=found.rows.captures[row].tobytes()),
                    bool(found.rows.synthetic[row]),
                    repr(float(found.rows.quality[row])),
                    found.rows.templates[row].astype("<f2").tobytes(),
                )
                for row in rows
            ],
        )
    return said


def said_by_decoding(value: bytes | None) -> tuple[Any, ...]:
    event = decode(value)
    assert isinstance(event, TemplatesEnrolled)
    assert event.model_digest == MODEL
    return (
        booking_key(event.ori, event.booking_number),
        event.ori,
        event.booking_number,
        event.sid or "",
        event.source.offset,
        to_micros(event.source_said_at),
        [
            (
                capture.capture_id,
                event.synthetic,
                repr(capture.quality),
                template_to_bytes(template_from_bytes(capture.template, dimension=DIMENSION)),
            )
            for capture in event.captures
        ],
    )


@settings(max_examples=150, deadline=None)
@given(
    st.lists(enrolments, max_size=8),
    st.lists(st.sampled_from(sorted(PAYLOADS.values())), max_size=3),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 2**16), st.integers(0, 255)), max_size=6),
    st.integers(1, 3),
)
def test_the_columns_say_what_decoding_says_or_nothing(
    events: list[TemplatesEnrolled], payloads: list[bytes], damage: list[tuple[int, int, int]], fewest: int
) -> None:
    values: list[bytes | None] = [None, b"", *payloads, *map(encode, events), *map(encode, map(usual, range(6)))]
    for which, where, byte in damage:
        value = values[which % len(values)] or b"\0"
        at = where % len(value)
        values[which % len(values)] = value[:at] + bytes([byte]) + value[at + 1 :]
    for record, said in said_by(read(values, fewest)).items():
        assert said == said_by_decoding(values[record])


@settings(max_examples=150, deadline=None)
@given(st.integers(HEADER_BYTES, 2**16), st.integers(0, 255), st.integers(0, 5))
def test_a_record_with_any_byte_altered_says_what_decoding_says_or_nothing(at: int, byte: int, which: int) -> None:
    values: list[bytes | None] = [encode(usual(number)) for number in range(6)]
    value = values[which] or b""
    at = HEADER_BYTES + at % (len(value) - HEADER_BYTES)
    values[which] = value[:at] + bytes([byte]) + value[at + 1 :]
    found = said_by(read(values))
    assert set(found) >= set(range(6)) - {which}
    for record, said in found.items():
        assert said == said_by_decoding(values[record])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sid": None},
        {"sid": ""},
        {"synthetic": True},
        {"booking_offset": 42},
        {"booking_number": "a/b"},
        {"occurred_at": datetime.min.replace(tzinfo=UTC), "source_said_at": datetime.max.replace(tzinfo=UTC)},
        {"source": SourcePosition(topic=BOOKING_EVENTS, partition=2**31 - 1, offset=2**62 - 1)},
        {"captures": usual(1).captures + usual(2).captures + usual(3).captures},
        {"captures": (replace(usual().captures[0], quality=float("nan")),)},
    ],
    ids=str,
)
def test_what_workers_write_is_read_as_columns(changes: dict[str, Any]) -> None:
    value = encode(usual(1, **changes))
    assert said_by(read([value])) == {0: said_by_decoding(value)}


@pytest.mark.parametrize(
    "changes",
    [
        {"model_digest": "cd" * 32},
        {"captures": ()},
        {"captures": (replace(usual().captures[0], template=b"short"),)},
        {"captures": (*usual().captures, replace(usual().captures[0], template=b"\xff" * 2 * DIMENSION))},
        {"captures": (replace(usual().captures[0], template=bytes(2 * DIMENSION)),)},
        {"booking_number": "ü"},
        {"booking_number": "1\0"},
        {"booking_number": ""},
        {"ori": ""},
        {"actor": "é"},
        {"source": SourcePosition(topic=BOOKING_EVENTS, partition=0, offset=2**63 - 1)},
    ],
    ids=str,
)
def test_what_is_unusual_is_left_to_decoding_and_so_is_nothing_else(changes: dict[str, Any]) -> None:
    values: list[bytes | None] = [encode(usual(0)), encode(usual(1, **changes)), encode(usual(2))]
    assert set(said_by(read(values))) == {0, 2}


@pytest.mark.parametrize("version", [each for each in ALL_VERSIONS if each.name == TemplatesEnrolled.AVRO_NAME])
def test_what_workers_of_an_older_version_wrote_is_read_as_columns(version: SchemaVersion) -> None:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, version.parsed, usual(1).to_record())
    value = SINGLE_OBJECT + version.fingerprint + body.getvalue()
    assert said_by(read([value])) == {0: said_by_decoding(value)}


def test_a_number_that_is_written_longer_than_need_be_is_the_same_number() -> None:
    value = encode(usual(5, source=SourcePosition(topic=BOOKING_EVENTS, partition=0, offset=3)))
    layout = layout_of(value, SCHEMA, start=HEADER_BYTES)
    assert layout is not None
    at = layout.places["source.offset"].start
    longer = value[:at] + b"\x86\x80\x00" + value[at + 1 :]
    assert decode(longer) == decode(value)
    assert said_by(read([longer])) == {0: said_by_decoding(value)}
    for wrong in (value[:at] + b"\x86" * 9 + value[at:], value[:at] + b"\xff" * 30 + value[at:]):
        assert said_by(read([wrong])) == {}


def test_a_layout_that_few_records_have_is_not_read() -> None:
    values: list[bytes | None] = [encode(usual(number)) for number in range(5)]
    assert len(read(values, fewest=6)) == 0
    assert len(read(values, fewest=5)) == 5


def test_records_of_one_length_and_many_layouts_are_read_or_left_and_never_mixed_up() -> None:
    values: list[bytes | None] = [
        encode(usual(1, sid="A" * size, booking_number="B" * (20 - size))) for size in range(1, 20) for _ in range(3)
    ]
    assert len(set(map(len, map(bytes, filter(None, values))))) == 1
    found = said_by(read(values, fewest=2))
    assert 0 < len(found) < len(values)
    for record, said in found.items():
        assert said == said_by_decoding(values[record])


# Layouts.


@pytest.mark.parametrize("name", sorted(PAYLOADS))
def test_a_layout_has_every_value_where_the_codec_reads_it(name: str) -> None:
    payload = PAYLOADS[name]
    written = decode_as_written(payload)
    layout = layout_of(payload, written.version.schema, start=HEADER_BYTES)
    if layout is None:
        # Maps, fixed values and names that stand for what was said before are read by the codec alone.
        assert not name.startswith("TemplatesEnrolled")
        return
    record = np.frombuffer(payload, dtype=np.uint8)[np.newaxis]
    assert layout.fits(record).all()
    for path, place in layout.places.items():
        value: Any = written.fields
        for step in path.split("."):
            value = value[int(step)] if isinstance(value, list) else value[step]
        found = payload[place]
        if isinstance(value, bool):
            assert found == bytes([value])
        elif isinstance(value, (int, datetime)):
            wanted = to_micros(value) if isinstance(value, datetime) else value
            assert numbers_at(record, place).tolist() == [wanted]
        elif isinstance(value, float):
            assert np.frombuffer(found, dtype="<f8")[0] == value
        else:
            assert found == (value if isinstance(value, bytes) else str(value).encode())


@pytest.mark.parametrize("name", [name for name in PAYLOADS if name.startswith("TemplatesEnrolled")])
def test_the_golden_enrolment_of_every_version_is_a_usual_one(name: str) -> None:
    payload = PAYLOADS[name]
    event = decode(payload)
    assert isinstance(event, TemplatesEnrolled)
    dimension = len(event.captures[0].template) // 2
    layout = layout_of(payload, decode_as_written(payload).version.schema, start=HEADER_BYTES)
    assert layout is not None
    assert layout.counts == {"captures": len(event.captures)}
    found = read_enrolments([payload], model_digest=event.model_digest, dimension=dimension, fewest=1)
    try:
        template_from_bytes(event.captures[0].template, dimension=dimension)
    except ContractError:
        assert len(found) == 0
    else:
        assert len(found) == 1


# Templates and bookings.


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=2 * DIMENSION, max_size=2 * DIMENSION), st.floats(0.99, 1.01))
@example(b"\xff" * 2 * DIMENSION, 1.0)
@example(b"\x00\x7c" * DIMENSION, 1.0)
def test_what_is_a_template_beyond_doubt_is_one(data: bytes, length: float) -> None:
    scaled = (FACES[0].astype(np.float64) * length).astype("<f2").tobytes()
    for one in (data, scaled, template_to_bytes(FACES[1])):
        if are_templates(np.frombuffer(one, dtype="<f2")[np.newaxis])[0]:
            template_from_bytes(one, dimension=DIMENSION)
    assert are_templates(np.stack(FACES).astype(np.float16)).all()
    assert not are_templates(np.float16([[1.0 + 3 * UNIT_TOLERANCE] + [0.0] * (DIMENSION - 1)]))[0]


@given(st.lists(st.integers(0, 5), max_size=8), st.sets(st.integers(0, 5)))
def test_bookings_of_their_own_are_in_no_other_record(bookings: list[int], others: set[int]) -> None:
    found = read([encode(usual(number)) for number in bookings])
    own = found.of_their_own({f"CA0190000/26-{number:06d}".encode() for number in others})
    times = Counter(bookings)
    wanted = {at for at, number in enumerate(bookings) if times[number] == 1 and number not in others}
    assert set(found.records[own].tolist()) == wanted
    kept = said_by(found.only(own))
    assert set(kept) == wanted
    for record, said in kept.items():
        assert said == said_by_decoding(encode(usual(bookings[record])))
