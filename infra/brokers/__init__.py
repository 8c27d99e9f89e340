"""Kafka brokers that Leadstream starts itself: the embedded one, and Apache Kafka on one machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.brokers.apache import ApacheKafka
from infra.brokers.broker import KINDS, Broker, Kind
from infra.brokers.embedded import EmbeddedKafka

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KINDS", "Broker", "Kind", "make_broker"]


def make_broker(kind: Kind, data: Path, *, port: int | None = None, jars: Path | None = None) -> Broker:
    """Make a broker that keeps its records in `data`; nothing is started yet.

    Without `port` a free loopback port is chosen at the start. `jars` is where Apache Kafka's jars are kept.
    """
    return Broker(EmbeddedKafka() if kind == "embedded" else ApacheKafka(jars), data, port=port)
