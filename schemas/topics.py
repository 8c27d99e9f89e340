"""The topics as `topics.toml` describes them: the one list of what exists, who writes it and who reads it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING

from schemas.events import RECORDS

if TYPE_CHECKING:
    from collections.abc import Mapping

BOOKING_EVENTS = "booking.events.v1"
BOOKING_OUTCOMES = "booking.outcomes.v1"
GALLERY = "gallery.templates.v1"
PROBE_REQUESTS = "probe.requests.v1"
PROBE_OUTCOMES = "probe.outcomes.v1"
REVIEW_EVENTS = "review.events.v1"
REVIEW_OUTCOMES = "review.outcomes.v1"
NOTICES = "notices.v1"
NOTICE_ACKNOWLEDGEMENTS = "notice.acknowledgements.v1"
ACCESS = "access.events.v1"
DEAD_LETTERS = "dead.letters.v1"


GENERATION_DIGEST_CHARACTERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """One topic."""

    name: str
    key: str
    """What the key is, in words."""
    partitions: int
    """Fixed for the life of the topic: keys decide order."""
    records: tuple[str, ...]
    """Names of the records it may carry, e.g. BookingRecorded."""
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    signed: bool
    """True where records come from outside and must carry their publisher's signature."""
    config: Mapping[str, str]
    """Broker settings, complete: nothing is left to a broker's defaults."""


def _load() -> Mapping[str, TopicSpec]:
    document = tomllib.loads(files("schemas").joinpath("topics.toml").read_text(encoding="utf-8"))
    defaults = document.pop("defaults")["config"]
    known = {name.rpartition(".")[2] for name in RECORDS}
    topics = {}
    for name, table in document["topics"].items():
        if unknown := set(table["records"]) - known:
            raise ValueError(f"schemas/topics.toml: {name} lists records that no schema defines: {sorted(unknown)}")
        topics[name] = TopicSpec(
            name=name,
            key=table["key"],
            partitions=table["partitions"],
            records=tuple(table["records"]),
            producers=tuple(table["producers"]),
            consumers=tuple(table["consumers"]),
            signed=table["signed"],
            config=MappingProxyType({**defaults, **table.get("config", {})}),
        )
    return MappingProxyType(topics)


TOPICS: Mapping[str, TopicSpec] = _load()
"""Topic name -> description."""

TOPIC_OF_RECORD: Mapping[str, str] = MappingProxyType(
    {record: topic.name for topic in TOPICS.values() for record in topic.records},
)
"""Record name, e.g. BookingRecorded -> the one topic that carries it."""


def generation_topic(model_digest: str) -> str:
    """Return the topic of a gallery generation that is not the first: that of the first, and part of its digest."""
    return f"{GALLERY}.{model_digest[:GENERATION_DIGEST_CHARACTERS]}"


def spec_of(topic: str) -> TopicSpec:
    """Return what a topic is like; that of a further gallery generation is like the first one's.

    Raises:
        KeyError: it is no topic of ours.
    """
    if is_further_generation(topic):
        return replace(TOPICS[GALLERY], name=topic)
    return TOPICS[topic]


def is_gallery(topic: str) -> bool:
    """Tell whether a topic is that of a gallery generation."""
    return topic == GALLERY or is_further_generation(topic)


def is_further_generation(topic: str) -> bool:
    """Tell whether a topic is that of a gallery generation other than the first."""
    return topic.startswith(f"{GALLERY}.")
