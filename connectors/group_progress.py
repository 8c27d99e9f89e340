"""How far the workers are: what their group has committed, against where the topics end. It joins no group."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaException, TopicPartition

from schemas.errors import TransientError
from schemas.topics import spec_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

REQUEST_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One look at Kafka; lags in records, by topic."""

    group_lag: Mapping[str, int]
    replica_lag: Mapping[str, int]


class GroupProgress:
    """Asks for the committed offsets of one consumer group.

    Args:
        config: settings of the Kafka client, at least `bootstrap.servers`.
        group: id of the group.
    """

    def __init__(self, config: Mapping[str, str | int | bool], group: str) -> None:
        # A consumer that never subscribes, and so never joins. Not the admin client: librdkafka 2.16 aborts the process
        # in it while a broker is away, and a worker must outlive its broker.
        self._asker = Consumer({"log_level": 0, **config, "group.id": group, "enable.auto.commit": False})

    def committed(self, topics: Collection[str]) -> dict[tuple[str, int], int]:
        """Return the next offset to work on of every partition; 0 where nothing was ever committed.

        Raises:
            TransientError: Kafka does not answer.
        """
        partitions = [TopicPartition(topic, number) for topic in topics for number in range(spec_of(topic).partitions)]
        try:
            found = self._asker.committed(partitions, timeout=REQUEST_TIMEOUT_S)
        except KafkaException as error:
            raise TransientError(f"Kafka does not say what was committed: {error.args[0].str()}") from None
        return {(at.topic, at.partition): max(at.offset, 0) for at in found}


def lag_by_topic(ends: Mapping[tuple[str, int], int], reached: Mapping[tuple[str, int], int]) -> dict[str, int]:
    """Return how many offsets of each topic in `reached` lie between it and the end."""
    lag: Counter[str] = Counter()
    for (topic, partition), offset in reached.items():
        lag[topic] += max(0, ends.get((topic, partition), offset) - offset)
    return dict(lag)
