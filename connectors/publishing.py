"""Publishing what outsiders may say: encoded, keyed, signed, and acknowledged by every replica of the broker.

Every client that speaks to Leadstream from outside sends through `SignedPublisher`. It decides nothing: whether the key
may publish a record is for the worker to say, by the registry of publishers. The worker's own records are not signed
and do not pass here.

Source: Kafka's default partitioner (murmur2), which librdkafka calls `murmur2_random`.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol, Self

from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.avro_schemas import CURRENT_VERSIONS
from schemas.codec import NO_REGISTRY, encode, topic_of
from schemas.errors import ContractError, LeadstreamError, TransientError, UsageError
from schemas.keys import key_of
from schemas.positions import SourcePosition
from schemas.topics import TOPICS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from confluent_kafka import Message

    from connectors.signing_keys import SigningKey
    from schemas.avro_schemas import SchemaVersion
    from schemas.events import Event

DELIVERY_TIMEOUT_S = 30.0
MAX_IN_FLIGHT = 10_000

_MARGIN_S = 30.0
"""How much later than the client's own deadline this one is, so that the client's reason is the one that is told."""
_POLL_S = 0.1
_REFUSED_BY_BROKER = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,  # noqa: SLF001 - librdkafka's name for it
    },
)
_NEVER_TAKEN = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD})


class EventPublisher(Protocol):
    """Sends one event; what the clients need of a publisher."""

    def publish(self, event: Event) -> SourcePosition:
        """Return where the event stands, once the broker has acknowledged it.

        Raises:
            ContractError: a field has a value that its schema does not allow.
            TransientError: no acknowledgement came; the same event may be sent again.
        """
        ...


class SignedPublisher:
    """A connection that signs and publishes; safe to use from several threads; a `with` block closes it.

    Args:
        config: settings of the Kafka client, at least `bootstrap.servers`.
        signing_key: the private key of a registered publisher or user.
        registry: schemas by their id in a schema registry; when given, records are written in Confluent framing.
        timeout_s: how long the broker has to acknowledge a record.
        max_in_flight: how many records may wait for their acknowledgement; `send` waits beyond that.

    `config` is kept for those who read the answers from the same Kafka.
    """

    def __init__(
        self,
        config: Mapping[str, str | int | bool],
        signing_key: SigningKey,
        *,
        registry: Mapping[int, SchemaVersion] = NO_REGISTRY,
        timeout_s: float = DELIVERY_TIMEOUT_S,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        # What goes wrong is told by the exceptions; the client would print it as well.
        self.config: Mapping[str, str | int | bool] = {"log_level": 0, **config}
        self._signing_key = signing_key
        self._schema_ids = {version.fingerprint: schema_id for schema_id, version in registry.items()}
        self._timeout_s = timeout_s
        self._max_in_flight = max_in_flight
        self._found_topics: set[str] = set()
        self._in_flight = 0
        self._settled = threading.Condition()
        self._failures: list[LeadstreamError] = []
        self._last_trouble = ""
        self._closed = threading.Event()
        self._producer = Producer(
            {
                "enable.idempotence": True,
                "linger.ms": 2,
                "compression.type": "lz4",
                **self.config,
                "acks": "all",
                "partitioner": "murmur2_random",
                "message.timeout.ms": int(timeout_s * 1000),
                "message.max.bytes": max(int(topic.config["max.message.bytes"]) for topic in TOPICS.values()),
                "error_cb": self._note_trouble,
            },
        )
        # Acknowledgements are told only to who polls; so that a Future is always settled, somebody does.
        self._poller = threading.Thread(target=self._poll, name="signed-publisher", daemon=True)
        self._poller.start()

    @property
    def key_id(self) -> str:
        """The name of the key that signs."""
        return self._signing_key.key_id

    def publish(self, event: Event) -> SourcePosition:
        """Return where the event stands, once the broker has acknowledged it.

        Raises:
            ContractError: a field has a value that its schema does not allow, or the record is too large.
            TransientError: no acknowledgement came. The record may or may not be in the topic: send the same event
                again, with the same event id.
            UsageError: this kind of event is not published from outside, the topics are not set up, the broker does not
                let this client write, or the publisher is closed.
        """
        acknowledged = self._send(event, kept=False)
        try:
            return acknowledged.result(self._timeout_s + _MARGIN_S)
        except TimeoutError:
            name = f"{type(event).__name__} {event.event_id}"
            raise TransientError(f"{name} is not acknowledged yet; send it again. {self._why()}".strip()) from None

    def send(self, event: Event) -> Future[SourcePosition]:
        """Send an event without waiting for its acknowledgement, for bulk loads; `flush` tells what failed.

        Waits only while `max_in_flight` records are under way. The Future holds what `publish` returns or raises.

        Raises:
            ContractError: as `publish`.
            TransientError: too many records are under way for too long, or Kafka is away.
            UsageError: as `publish`.
        """
        return self._send(event, kept=True)

    def flush(self) -> None:
        """Wait until everything that was sent is settled.

        Raises:
            LeadstreamError: the first failure of a `send` since the last `flush`, with how many there were.
        """
        with self._settled:
            if not self._settled.wait_for(lambda: self._in_flight == 0, self._timeout_s + _MARGIN_S):
                raise TransientError(f"{self._in_flight} records are not acknowledged yet; flush again. {self._why()}")
            failures, self._failures = self._failures, []
        if failures:
            first = failures[0]
            raise type(first)(f"{len(failures)} records were not published; the first: {first}") from first

    def close(self) -> None:
        """Settle what is under way and let go of the connection; again is fine.

        Raises:
            LeadstreamError: as `flush`.
        """
        try:
            self.flush()
        finally:
            self._closed.set()
            self._poller.join()

    def _send(self, event: Event, *, kept: bool) -> Future[SourcePosition]:
        if self._closed.is_set():
            raise UsageError("The publisher is closed; make a new one.")
        topic = topic_of(event)
        name = f"{type(event).__name__} {event.event_id}"
        if not TOPICS[topic].signed:
            raise UsageError(f"{type(event).__name__} is not published from outside; {topic} takes no signed records.")
        key = key_of(event)
        value = encode(event, schema_id=self._schema_id_of(event))
        headers: list[tuple[str, str | bytes | None]] = [*self._signing_key.sign(topic, key, value)]
        self._require(topic)
        with self._settled:
            if not self._settled.wait_for(lambda: self._in_flight < self._max_in_flight, self._timeout_s + _MARGIN_S):
                raise TransientError(f"{name} waits behind {self._in_flight} others; send it again. {self._why()}")
            self._in_flight += 1
        acknowledged: Future[SourcePosition] = Future()
        acknowledged.set_running_or_notify_cancel()

        def settle(error: KafkaError | None, message: Message) -> None:
            failure = None if error is None else self._failure(error, name)
            if failure is not None:
                acknowledged.set_exception(failure)
            else:
                self._last_trouble = ""
                acknowledged.set_result(_position(message))
            # Last, so that after a `flush` every Future is settled.
            with self._settled:
                self._in_flight -= 1
                if failure is not None and kept:
                    self._failures.append(failure)
                self._settled.notify_all()

        try:
            self._producer.produce(topic, key=key, value=value, headers=headers, on_delivery=settle)
        except (KafkaException, BufferError) as error:
            with self._settled:
                self._in_flight -= 1
                self._settled.notify_all()
            if isinstance(error, BufferError):
                raise TransientError(f"{name} waits behind too many others; send it again. {self._why()}") from None
            raise self._failure(error.args[0], name) from None
        return acknowledged

    def _schema_id_of(self, event: Event) -> int | None:
        if not self._schema_ids:
            return None
        version = CURRENT_VERSIONS[event.AVRO_NAME]
        schema_id = self._schema_ids.get(version.fingerprint)
        if schema_id is None:
            raise UsageError(f"The schema registry lacks {version.name} version {version.version}; register it first.")
        return schema_id

    def _require(self, topic: str) -> None:
        """Look once whether a topic has its partitions; with others the order of a key would be lost."""
        if topic in self._found_topics:
            return
        try:
            # All topics are listed, since asking for one by name can make it.
            found = self._producer.list_topics(timeout=self._timeout_s).topics
        except KafkaException as error:
            raise self._failure(error.args[0], topic) from None
        partitions = len(found[topic].partitions) if topic in found else 0
        if partitions != TOPICS[topic].partitions:
            raise UsageError(
                f"Topic {topic} has {partitions} partitions, not {TOPICS[topic].partitions}; "
                "the operator sets the topics up with `leadstream topics apply`.",
            )
        self._found_topics.add(topic)

    def _failure(self, error: KafkaError, name: str) -> LeadstreamError:
        if error.code() in _REFUSED_BY_BROKER:
            return UsageError(f"Kafka refused {name}: {error.str()}. Check this client's credentials and its ACLs.")
        if error.code() in _NEVER_TAKEN:
            return ContractError(f"Kafka does not take {name}: {error.str()}.")
        return TransientError(f"Kafka did not acknowledge {name}: {error.str()}; send it again. {self._why()}".strip())

    def _why(self) -> str:
        return f"Last heard: {self._last_trouble}." if self._last_trouble else ""

    def _note_trouble(self, error: KafkaError) -> None:
        self._last_trouble = error.str()

    def _poll(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(_POLL_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _position(message: Message) -> SourcePosition:
    return SourcePosition(
        topic=str(message.topic()),
        partition=int(message.partition() or 0),
        offset=int(message.offset() or 0),
    )
