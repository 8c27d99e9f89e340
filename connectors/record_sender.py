"""Sends records as they are, unsigned, and waits for the broker: what was set aside and comes back, or is made anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException, Producer

from connectors.publishing import DELIVERY_TIMEOUT_S
from schemas.codec import encode, topic_of
from schemas.errors import TransientError, UsageError
from schemas.keys import key_of, partition_of
from schemas.positions import SourcePosition
from schemas.topics import TOPICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from confluent_kafka import Message

    from schemas.events import Event

_NEVER_TAKEN = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD})


class RecordSender:
    """One record after the other; from one thread.

    Args:
        config: settings of the Kafka client, at least `bootstrap.servers`.
        timeout_s: how long the broker has to acknowledge a record.
        advice: what to do when it does not, in words.
    """

    def __init__(
        self,
        config: Mapping[str, str | int | bool],
        *,
        timeout_s: float = DELIVERY_TIMEOUT_S,
        advice: str = "do it again",
    ) -> None:
        self._timeout_s = timeout_s
        self._advice = advice
        self._producer = Producer(
            {
                "log_level": 0,
                "enable.idempotence": True,
                **config,
                "acks": "all",
                "message.timeout.ms": int(timeout_s * 1000),
                "message.max.bytes": max(int(topic.config["max.message.bytes"]) for topic in TOPICS.values()),
            },
        )

    def send(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> SourcePosition:
        """Return where a record stands, once the broker has acknowledged it.

        Raises:
            TransientError: no acknowledgement came; it may or may not be in the topic.
            UsageError: Kafka does not take it.
        """
        settled: list[tuple[KafkaError | None, Message]] = []
        try:
            self._producer.produce(
                topic,
                partition=partition,
                key=key,
                value=value,
                headers=list(headers),
                on_delivery=lambda error, message: settled.append((error, message)),
            )
            self._producer.flush(self._timeout_s)
        except KafkaException as error:
            raise self._failure(error.args[0], topic) from None
        if not settled:
            raise TransientError(
                f"Kafka did not acknowledge a record for {topic} in {self._timeout_s:g} s; {self._advice}."
            )
        trouble, message = settled[0]
        if trouble is not None:
            raise self._failure(trouble, topic)
        return SourcePosition(topic=topic, partition=partition, offset=int(message.offset() or 0))

    def send_all(self, events: Sequence[Event]) -> None:
        """Return once the broker has acknowledged all of some events of ours, each in the topic of its kind.

        Raises:
            TransientError: not all were acknowledged; some may be in their topics.
            UsageError: Kafka does not take one.
        """
        settled: list[KafkaError | None] = []
        topic = ""
        try:
            for event in events:
                topic, key = topic_of(event), key_of(event)
                self._producer.produce(
                    topic,
                    partition=partition_of(topic, key),
                    key=key,
                    value=encode(event),
                    on_delivery=lambda error, _message: settled.append(error),
                )
            self._producer.flush(self._timeout_s)
        except (KafkaException, BufferError) as error:
            if isinstance(error, BufferError):
                raise TransientError(f"Too many records wait for Kafka; {self._advice}.") from None
            raise self._failure(error.args[0], topic) from None
        if trouble := next((error for error in settled if error is not None), None):
            raise self._failure(trouble, topic)
        if len(settled) < len(events):
            raise TransientError(f"Kafka did not acknowledge all records in {self._timeout_s:g} s; {self._advice}.")

    def _failure(self, error: KafkaError, topic: str) -> Exception:
        if error.code() in _NEVER_TAKEN:
            return UsageError(f"Kafka does not take the record into {topic}: {error.str()}.")
        return TransientError(f"Kafka did not acknowledge a record for {topic}: {error.str()}; {self._advice}.")

    def close(self) -> None:
        """Let go of the connection; everything was acknowledged before."""
        self._producer.flush(0)
