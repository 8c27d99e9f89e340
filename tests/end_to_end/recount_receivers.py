"""Who has to be told that a record is under a court order, counted anew from the raw events (G6).

    python recount_receivers.py HOST:PORT     one JSON document: [[order event id, receiver, probe id], ...]

It shares nothing with Leadstream but the schema files: a plain consumer, and the `avro` package as the reader. An order
counts where a worker answered it with WITHDRAWN; everyone counts who asked for a list with the record on it, or was
shown the record in a review that counts, unless that was after the order had been lifted.
"""

from __future__ import annotations

import io
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import avro.io
import avro.schema
import fastavro.schema
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

AVRO = Path(__file__).parents[2] / "schemas" / "avro"
TOPICS = (
    "booking.events.v1",
    "booking.outcomes.v1",
    "probe.outcomes.v1",
    "review.events.v1",
    "review.outcomes.v1",
)
PATIENCE_S = 30.0

Read = tuple[str, dict[str, Any], Any]
"""Name of the record, its fields, the message."""


def readers() -> dict[bytes, tuple[str, avro.io.DatumReader]]:
    """Return, by the fingerprint in front of a record, the reader of every version of every schema."""
    found = {}
    for path in AVRO.rglob("*.avsc"):
        schema = json.loads(path.read_text())
        canonical = fastavro.schema.to_parsing_canonical_form(schema)
        fingerprint = bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
        found[fingerprint] = schema["name"], avro.io.DatumReader(avro.schema.parse(json.dumps(schema)))
    return found


def everything(bootstrap: str) -> list[Read]:
    """Return every readable record of the topics, in the order of each partition."""
    known, found = readers(), []
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "recount", "enable.partition.eof": True})
    try:
        topics = consumer.list_topics(timeout=PATIENCE_S).topics
        places = [
            TopicPartition(name, number, OFFSET_BEGINNING) for name in TOPICS for number in topics[name].partitions
        ]
        consumer.assign(places)
        open_places = {(place.topic, place.partition) for place in places}
        while open_places:
            message = consumer.poll(PATIENCE_S)
            if message is None:
                raise SystemExit(f"Kafka does not deliver {sorted(open_places)}.")
            if message.error() is not None:
                open_places.discard((message.topic(), message.partition()))
                continue
            value = message.value() or b""
            if value[:2] == b"\xc3\x01" and value[2:10] in known:
                name, reader = known[value[2:10]]
                found.append((name, reader.read(avro.io.BinaryDecoder(io.BytesIO(value[10:]))), message))
    finally:
        consumer.close()
    return found


def recount(records: list[Read]) -> set[tuple[str, str, str]]:
    """Return (order event id, receiver, probe id) of every notice that is due."""
    answers: dict[tuple[str, str], dict[int, tuple[str, str, int]]] = defaultdict(dict)
    for name, fields, message in records:
        if name == "BookingProcessed" and fields["outcome"] in {"WITHDRAWN", "ORDER_LIFTED"}:
            booking = (fields["ori"], fields["booking_number"])
            said = (fields["outcome"], str(fields["source_event_id"]), message.timestamp()[1])
            answers[booking].setdefault(fields["source"]["offset"], said)
    lists: dict[str, tuple[dict[str, Any], int]] = {}
    outcome_seen = set()
    for name, fields, message in records:
        if name in {"CandidateListIssued", "ProbeRefused"} and str(fields["probe_id"]) not in outcome_seen:
            outcome_seen.add(str(fields["probe_id"]))
            if name == "CandidateListIssued":
                lists[str(fields["probe_id"])] = fields, message.timestamp()[1]
    viewers = _viewers(records)
    due = set()
    for probe, (issued, decided_ms) in lists.items():
        for candidate in issued["candidates"]:
            said = answers.get((candidate["ori"], candidate["booking_number"]), {})
            received = dict(viewers.get((probe, str(candidate["capture_id"])), {}))
            received[issued["user_id"]] = min(decided_ms, received.get(issued["user_id"], decided_ms))
            for offset, (outcome, event_id, _) in said.items():
                lifted = [ms for at, (what, _, ms) in said.items() if at > offset and what == "ORDER_LIFTED"]
                if outcome == "WITHDRAWN":
                    due |= {(event_id, user, probe) for user, ms in received.items() if not lifted or ms < min(lifted)}
    return due


def _viewers(records: list[Read]) -> dict[tuple[str, str], dict[str, int]]:
    """Return (probe id, capture id) -> who was shown it in a review that counts, and when first."""
    judged: dict[tuple[int, int], bool] = {}
    for name, fields, _ in records:
        if name == "ReviewAnswered":
            judged.setdefault((fields["source"]["partition"], fields["source"]["offset"]), fields["accepted"])
    found: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for name, fields, message in records:
        if name == "ImageViewed" and judged.get((message.partition(), message.offset())):
            for capture in fields["shown"]:
                found[str(fields["probe_id"]), str(capture)].setdefault(fields["user_id"], message.timestamp()[1])
    return found


if __name__ == "__main__":
    json.dump(sorted(recount(everything(sys.argv[1]))), sys.stdout)
