"""The schemas as a contract: documented, compatible between versions, without what must never be recorded."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import avro.schema
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from schemas.avro_schemas import ALL_VERSIONS, SchemaVersion, named_types
from schemas.keys import partition_of
from schemas.topics import (
    BOOKING_EVENTS,
    BOOKING_OUTCOMES,
    GALLERY,
    PROBE_OUTCOMES,
    PROBE_REQUESTS,
    REVIEW_EVENTS,
    REVIEW_OUTCOMES,
    TOPIC_OF_RECORD,
    TOPICS,
)

versions = pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda v: f"{v.name}.v{v.version}")
INSIDE_AN_OBJECT = {"OriginalRecord"}
"""Lives in the object store, never in a topic."""


def parsed(schema: dict[str, Any]) -> avro.schema.Schema:
    return avro.schema.parse(json.dumps(schema))


def compatible(reader: dict[str, Any], writer: dict[str, Any]) -> bool:
    result = ReaderWriterCompatibilityChecker().get_compatibility(parsed(reader), parsed(writer))
    return bool(result.compatibility == SchemaCompatibilityType.compatible)


@versions
def test_the_avro_package_accepts_every_schema(version: SchemaVersion) -> None:
    assert parsed(version.schema).fullname == version.name


def test_each_version_reads_its_neighbours_both_ways() -> None:
    by_name: dict[str, list[SchemaVersion]] = {}
    for version in sorted(ALL_VERSIONS, key=lambda v: v.version):
        by_name.setdefault(version.name, []).append(version)
    for line in by_name.values():
        assert [version.version for version in line] == list(range(1, len(line) + 1))
        for older, newer in pairwise(line):
            assert compatible(newer.schema, older.schema), f"{newer.name}: the new version cannot read old events"
            assert compatible(older.schema, newer.schema), f"{newer.name}: old readers cannot read new events"


@versions
def test_the_compatibility_check_catches_a_field_without_default(version: SchemaVersion) -> None:
    changed = json.loads(json.dumps(version.schema))
    changed["fields"].append({"name": "added", "type": "string", "doc": "no default"})
    assert not compatible(changed, version.schema)


@versions
def test_every_record_and_field_says_what_it_is(version: SchemaVersion) -> None:
    for name, definition in named_types(version.schema).items():
        assert definition["doc"].strip(), name
        for field in definition.get("fields", ()):
            assert field["doc"].strip(), f"{name}.{field['name']}"


@versions
def test_no_record_carries_gender_age_race_or_citizenship(version: SchemaVersion) -> None:
    forbidden = {"gender", "sex", "age", "race", "ethnicity", "citizenship", "nationality", "birth", "dob", "skin"}
    for definition in named_types(version.schema).values():
        for field in definition.get("fields", ()):
            assert not forbidden & set(field["name"].split("_")), field["name"]


@versions
def test_every_event_says_which_it_is_when_it_happened_and_who_caused_it(version: SchemaVersion) -> None:
    if version.schema["name"] not in INSIDE_AN_OBJECT:
        assert [field["name"] for field in version.schema["fields"][:3]] == ["event_id", "occurred_at", "actor"]
        assert version.schema["name"] in TOPIC_OF_RECORD


@versions
def test_named_types_are_spelled_in_place_so_that_a_payload_can_be_walked(version: SchemaVersion) -> None:
    names = set(named_types(version.schema))

    def references(schema: Any) -> bool:
        if isinstance(schema, str):
            return schema in names
        if isinstance(schema, list):
            return any(references(part) for part in schema)
        parts = [field["type"] for field in schema.get("fields", ())]
        parts += [schema[inner] for inner in ("type", "items", "values") if inner in schema]
        return any(references(part) for part in parts)

    assert not references(version.schema)


def test_template_bytes_are_the_only_biometric_field_and_are_marked() -> None:
    marked = {
        f"{name}.{field['name']}"
        for version in ALL_VERSIONS
        for name, definition in named_types(version.schema).items()
        for field in definition.get("fields", ())
        if isinstance(field["type"], dict) and field["type"].get("biometric")
    }
    assert marked == {"EnrolledCapture.template"}


def test_a_record_is_carried_by_one_topic_and_nothing_is_left_to_the_broker() -> None:
    for topic in TOPICS.values():
        assert {"cleanup.policy", "retention.ms", "retention.bytes", "message.timestamp.type"} <= set(topic.config)
        if "compact" in topic.config["cleanup.policy"]:
            assert {"min.compaction.lag.ms", "max.compaction.lag.ms"} <= set(topic.config)
    carried = [record for topic in TOPICS.values() for record in topic.records]
    assert len(carried) == len(set(carried))


@pytest.mark.parametrize(("key", "murmur2"), [(b"21", -973_932_308), (b"foobar", -790_332_482)])
def test_a_key_stands_where_kafkas_own_partitioner_puts_it(key: bytes, murmur2: int) -> None:
    """Hash values as Kafka's Java client computes them."""
    for name, topic in TOPICS.items():
        assert partition_of(name, key) == (murmur2 & 0x7FFFFFFF) % topic.partitions


def test_what_follows_from_a_record_stands_in_the_partition_of_the_same_number() -> None:
    # Workers put right, make anew and read back by partition number.
    for cause, effects in (
        (BOOKING_EVENTS, (GALLERY, BOOKING_OUTCOMES)),
        (PROBE_REQUESTS, (PROBE_OUTCOMES,)),
        (REVIEW_EVENTS, (REVIEW_OUTCOMES,)),
    ):
        assert {TOPICS[effect].partitions for effect in effects} == {TOPICS[cause].partitions}
