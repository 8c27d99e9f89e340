"""Makes a broker's topics be what `topics.toml` says, and asks where they end.

It creates, and it corrects settings; it never deletes a topic and never changes a partition count, because keys decide
order and a new count would send a key's next record to another partition. What a broker accepts but does not show
afterwards is an error, not a hope.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the library does not mark what it re-exports
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewTopic,
    ResourceType,
)

from schemas.errors import TransientError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from concurrent.futures import Future

    from schemas.topics import TopicSpec

_T = TypeVar("_T")

_AWAY = {
    KafkaError._TRANSPORT,  # noqa: SLF001 - librdkafka's own error codes are named with an underscore
    KafkaError._TIMED_OUT,  # noqa: SLF001
    KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    KafkaError._RESOLVE,  # noqa: SLF001
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NOT_CONTROLLER,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    # A broker that has just started again does not know yet how far its partitions were led.
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
}
_SETTLE_S = 60.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicChange:
    """One difference between a topic and its description; `str` gives the line for an operator."""

    topic: str
    kind: Literal["create", "config", "partitions"]
    """`partitions` is never applied."""
    setting: str
    """`partitions`, or the name of the broker setting."""
    found: str | None
    """What the broker has; None: no such topic, or it does not know the setting."""
    wanted: str | None
    """What the description says; None: it says nothing, so the setting goes back to the broker's default."""

    def __str__(self) -> str:
        """Return the change in one line."""
        if self.kind == "create":
            return f"{self.topic}: create with {self.wanted} partitions"
        wanted = "the broker's default" if self.wanted is None else self.wanted
        return f"{self.topic}: {self.setting} is {self.found}, should be {wanted}"


class TopicAdmin:
    """Creates, compares and measures topics on one cluster.

    `options` are further librdkafka settings (TLS, SASL). A topic gets the cluster's default replication factor.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        options: Mapping[str, str | int | bool] | None = None,
        timeout_s: float = 15.0,
    ) -> None:
        self._bootstrap = bootstrap
        self._timeout_s = timeout_s
        # Kept for this object's life: the client's futures never resolve once it is gone. log_level 0: that a broker is
        # away is said once, by the TransientError, and not on the terminal ten times a second.
        self._options = {**(options or {}), "bootstrap.servers": bootstrap}
        self._client = AdminClient({"log_level": 0, **self._options})

    def diff(self, specs: Iterable[TopicSpec]) -> list[TopicChange]:
        """Return what differs from the descriptions, in their order; nothing is changed.

        A setting made on the topic itself that its description does not name is a difference too. Topics without a
        description are none of its business.

        Raises:
            TransientError: the broker cannot be reached.
        """
        wanted = list(specs)
        partitions = self._partitions()
        configs = self._configs([spec.name for spec in wanted if spec.name in partitions])
        return [change for spec in wanted for change in _differences(spec, partitions.get(spec.name), configs)]

    def apply(self, specs: Iterable[TopicSpec]) -> list[TopicChange]:
        """Create what is missing, correct settings that differ; return what was changed, once every topic can be used.

        Raises:
            UsageError: a topic exists with another partition count (nothing is changed then), or the broker refuses a
                setting or does not keep it.
            TransientError: the broker cannot be reached.
        """
        wanted = list(specs)
        changes = self.diff(wanted)
        if blocked := [str(change) for change in changes if change.kind == "partitions"]:
            raise UsageError(
                f"partition counts are fixed, because keys decide order: {'; '.join(blocked)}."
                " Nothing was changed. Keep the cluster's count, or make a topic of a new version and replay into it",
            )
        missing = {change.topic for change in changes if change.kind == "create"}
        self._create([spec for spec in wanted if spec.name in missing])
        self._correct([change for change in changes if change.kind == "config"])
        self._see_that_it_holds(wanted)
        return changes

    def erase(self, spec: TopicSpec) -> None:
        """Erase every record that stands in a topic; the topic stays, and its offsets go on.

        Raises:
            UsageError: the broker refuses.
            TransientError: the broker cannot be reached.
        """
        ends = [TopicPartition(*place, end) for place, end in self.end_offsets([spec.name]).items()]
        # Kafka deletes records only where a topic's policy allows deletion; it is allowed for this moment.
        kept = spec.config["cleanup.policy"]
        self._correct([_policy(spec.name, found=kept, wanted="compact,delete")])
        try:
            for future in self._client.delete_records(ends, request_timeout=self._timeout_s).values():
                self._result(future)
        finally:
            self._correct([_policy(spec.name, found="compact,delete", wanted=kept)])
        self._see_that_it_holds([spec])

    def end_offsets(self, topics: Collection[str]) -> dict[tuple[str, int], int]:
        """Return, for every partition of the topics, the offset that its next record will get.

        Raises:
            UsageError: a topic does not exist.
            TransientError: the broker cannot be reached or a partition has no leader now.
        """
        partitions = self._partitions()
        if missing := sorted(set(topics) - set(partitions)):
            raise UsageError(f"no such topic on {self._bootstrap}: {', '.join(missing)}; run `leadstream topics apply`")
        # Not `AdminClient.list_offsets`: librdkafka 2.16 aborts the process where a partition has no leader.
        asker = Consumer({"log_level": 0, **self._options, "group.id": "leadstream-asker"})
        try:
            return {
                (topic, partition): self._end(asker, topic, partition)
                for topic in topics
                for partition in range(partitions[topic])
            }
        finally:
            asker.close()

    def _end(self, asker: Consumer, topic: str, partition: int) -> int:
        try:
            _, end = asker.get_watermark_offsets(TopicPartition(topic, partition), timeout=self._timeout_s)
        except KafkaException as failure:
            raise self._explained(failure) from failure
        if end < 0:
            raise TransientError(f"{topic}/{partition} has no leader yet: is every broker running?")
        return end

    def _partitions(self) -> dict[str, int]:
        """Return topic -> partition count; asks for all topics, since asking for one may create it on some brokers."""
        try:
            topics = self._client.list_topics(timeout=self._timeout_s).topics
        except KafkaException as failure:
            raise self._explained(failure) from failure
        return {name: len(topic.partitions) for name, topic in topics.items() if topic.error is None}

    def _configs(self, topics: list[str]) -> dict[str, dict[str, ConfigEntry]]:
        if not topics:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
        answers = self._client.describe_configs(resources, request_timeout=self._timeout_s)
        return {resource.name: self._result(future) for resource, future in answers.items()}

    def _create(self, specs: list[TopicSpec]) -> None:
        if not specs:
            return
        topics = [NewTopic(spec.name, num_partitions=spec.partitions, config=dict(spec.config)) for spec in specs]
        for future in self._client.create_topics(topics, request_timeout=self._timeout_s).values():
            try:
                self._result(future)
            except _AlreadyThereError:
                continue  # somebody else applied the same list: what it became is compared below

    def _correct(self, changes: list[TopicChange]) -> None:
        if not changes:
            return
        resources = {change.topic: ConfigResource(ResourceType.TOPIC, change.topic) for change in changes}
        for change in changes:
            operation = AlterConfigOpType.DELETE if change.wanted is None else AlterConfigOpType.SET
            entry = ConfigEntry(change.setting, change.wanted or "", incremental_operation=operation)
            resources[change.topic].add_incremental_config(entry)
        answers = self._client.incremental_alter_configs(list(resources.values()), request_timeout=self._timeout_s)
        for future in answers.values():
            self._result(future)

    def _see_that_it_holds(self, specs: list[TopicSpec]) -> None:
        """Wait until the cluster shows what it accepted, and every partition has its leader; both take it a moment."""
        deadline = time.monotonic() + _SETTLE_S
        while remaining := self.diff(specs):
            if time.monotonic() > deadline:
                raise UsageError(
                    f"the broker at {self._bootstrap} accepted the topics but does not keep them as described:"
                    f" {'; '.join(map(str, remaining))}",
                )
            time.sleep(_POLL_S)
        while True:
            try:
                self.end_offsets([spec.name for spec in specs])
            except TransientError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)
            else:
                return

    def _result(self, future: Future[_T]) -> _T:
        try:
            # The request has its own deadline; this one is for a client that never answers.
            return future.result(self._timeout_s + 5)
        except KafkaException as failure:
            raise self._explained(failure) from failure
        except TimeoutError as failure:
            raise TransientError(f"the broker at {self._bootstrap} did not answer: is it running?") from failure

    def _explained(self, failure: KafkaException) -> TransientError | UsageError:
        error: KafkaError = failure.args[0]
        if error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return _AlreadyThereError(error.str())
        if error.code() in _AWAY or error.retriable():
            return TransientError(f"the broker at {self._bootstrap} cannot answer now: is it running? ({error.str()})")
        return UsageError(f"the broker at {self._bootstrap} refused: {error.str()}")


class _AlreadyThereError(UsageError):
    """The topic was created by somebody else in the meantime."""


def _policy(topic: str, *, found: str, wanted: str) -> TopicChange:
    return TopicChange(topic=topic, kind="config", setting="cleanup.policy", found=found, wanted=wanted)


def _differences(
    spec: TopicSpec,
    partitions: int | None,
    configs: Mapping[str, Mapping[str, ConfigEntry]],
) -> list[TopicChange]:
    count = str(spec.partitions)
    if partitions is None:
        return [TopicChange(topic=spec.name, kind="create", setting="partitions", found=None, wanted=count)]
    changes = []
    if partitions != spec.partitions:
        found = str(partitions)
        changes.append(
            TopicChange(topic=spec.name, kind="partitions", setting="partitions", found=found, wanted=count),
        )
    entries = configs[spec.name]
    own = {name for name, entry in entries.items() if ConfigSource(entry.source) is ConfigSource.DYNAMIC_TOPIC_CONFIG}
    for setting in sorted(own | set(spec.config)):
        value = entries[setting].value if setting in entries else None
        wanted = spec.config.get(setting)
        if wanted is None or _normal(value) != _normal(wanted):
            changes.append(TopicChange(topic=spec.name, kind="config", setting=setting, found=value, wanted=wanted))
    return changes


def _normal(value: str | None) -> frozenset[str] | None:
    """Read a setting as the set of its words: brokers give lists (`compact,delete`) in an order of their own."""
    return None if value is None else frozenset(word.strip() for word in value.split(","))
