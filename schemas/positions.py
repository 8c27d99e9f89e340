"""Where a record stands in Kafka, and the identities that are derived from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID, uuid5

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMESPACE = UUID("5b0f9a0e-6c1d-5d0a-9f0c-2f0a7c9d1e43")
"""Namespace of every derived identity; a constant of the contract, drawn once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePosition:
    """Where the record that caused another stands in Kafka."""

    topic: str
    partition: int
    offset: int

    def to_record(self) -> dict[str, Any]:
        """Return the mapping that the Avro writer takes."""
        return {"topic": self.topic, "partition": self.partition, "offset": self.offset}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the value of a mapping that the Avro reader gave."""
        return cls(topic=record["topic"], partition=record["partition"], offset=record["offset"])

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


def derived_id(cause: SourcePosition | UUID, effect: str) -> UUID:
    """Return the event id of an effect of a cause: the same cause gives the same id, however often it is replayed."""
    return uuid5(NAMESPACE, f"{cause}#{effect}")
