"""What a case tool or an investigator imports: the notices of a user, and to say that what they ask is done (G6)."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, get_args

from connectors.clock import now
from connectors.kafka_log import KafkaLog
from connectors.outcomes import OutcomeConsumer, OutcomeKind, ends_of, first_outcomes, read_range, reader_of
from processors.notice_states import NoticeEvent, received_notices
from schemas.codec import NO_REGISTRY
from schemas.errors import ContractError, TransientError
from schemas.events import NoticeAcknowledged, NoticeAnswered
from schemas.keys import partition_of
from schemas.positions import SourcePosition, derived_id
from schemas.topics import NOTICES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from uuid import UUID

    from connectors.clock import Clock
    from connectors.publishing import EventPublisher, SignedPublisher
    from processors.notice_states import ReceivedNotice
    from schemas.avro_schemas import SchemaVersion
    from schemas.records import LogRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedAcknowledgement:
    """An acknowledgement that the broker has acknowledged."""

    event_id: UUID
    position: SourcePosition


class NoticeClient:
    """Reads and acknowledges the notices of one user.

    Args:
        publisher: signs with the user's own key, or with that of a case tool that speaks for the user.
        user_id: the user.
        publisher_id: as the administrator registered the case tool; absent when the user's own key signs.
        clock: for the times of events.
        registry: schemas by their id in a schema registry, where there is one.
    """

    def __init__(
        self,
        publisher: SignedPublisher,
        user_id: str,
        *,
        publisher_id: str | None = None,
        clock: Clock = now,
        registry: Mapping[int, SchemaVersion] = NO_REGISTRY,
    ) -> None:
        self._publisher: EventPublisher = publisher
        self._user_id = user_id
        self._actor = f"user:{user_id}" if publisher_id is None else f"publisher:{publisher_id}"
        self._clock = clock
        self._registry = registry
        self._log = KafkaLog(publisher.config)

    def notices(self) -> tuple[ReceivedNotice, ...]:
        """Return the notices of the user in the order in which they were sent.

        Raises:
            TransientError: Kafka does not answer.
        """
        return read_notices(self._log, self._user_id, self._registry)

    def acknowledge(self, notice_id: UUID, *, statement: str, after: UUID | None = None) -> PublishedAcknowledgement:
        """Say that what a notice asks for is done; the same call again is the same event.

        To say the same again after it was refused, give as `after` the event id of the answer.

        Raises:
            ContractError: a value that the contract does not allow.
            TransientError: Kafka is away; the same call may be made again.
        """
        words = sha256(f"{self._user_id}\n{statement}".encode()).hexdigest()
        event = NoticeAcknowledged(
            event_id=derived_id(after or notice_id, f"acknowledged {words}"),
            occurred_at=self._clock(),
            actor=self._actor,
            user_id=self._user_id,
            notice_id=notice_id,
            statement=statement,
        )
        return PublishedAcknowledgement(event_id=event.event_id, position=self._publisher.publish(event))

    def await_answer(self, published: PublishedAcknowledgement, timeout_s: float) -> NoticeAnswered:
        """Return what became of an acknowledgement: the first answer to it in the topic.

        Raises:
            TransientError: none came in time, or Kafka answers with an error; ask again, it is not lost.
        """
        key = self._user_id.encode()
        kind = OutcomeKind(
            topic=NOTICES,
            read=reader_of(NOTICES, NoticeAnswered, self._registry),
            identity=lambda answer: answer.source_event_id,
            may_be_wanted=lambda other: other == key,
        )
        start = {published.position.partition: 0}
        for answer in first_outcomes(
            self._log, kind, [published.event_id], lambda answer: answer.source_event_id, start, timeout_s
        ):
            return answer
        raise TransientError(
            f"No answer within {timeout_s:g} s. The acknowledgement is kept and will be answered when the clerk gets to"
            " it: see that it runs, then say the same again."
        )


def read_notices(
    log: KafkaLog, user_id: str, registry: Mapping[int, SchemaVersion] = NO_REGISTRY
) -> tuple[ReceivedNotice, ...]:
    """Return the notices of a user in the order in which they were sent, and what became of each.

    Raises:
        TransientError: Kafka does not answer.
    """
    key = user_id.encode()
    partition = partition_of(NOTICES, key)
    stop = ends_of(log, NOTICES)[partition]
    read = _reader(registry)

    def events() -> Iterator[NoticeEvent]:
        for record in read_range(log, NOTICES, partition, stop):
            if record.key != key:
                continue
            try:
                yield read(record)
            except ContractError:
                continue  # Nothing of the clerk's; the audit trail keeps it.

    return received_notices(events(), user_id)


class NoticeConsumer(OutcomeConsumer["NoticeEvent"]):
    """Every notice, reminder and answer to an acknowledgement, once (G6, G11); see `OutcomeConsumer`.

    Args:
        config: settings of the Kafka client, at least `bootstrap.servers`.
        group: name of the consumer group; one a tool.
        user_ids: only what is for these users; None: for all.
        start_at: partition -> next offset to read, instead of a group.
        registry: schemas by their id in a schema registry, where there is one.
    """

    def __init__(
        self,
        config: Mapping[str, str | int | bool],
        group: str | None = None,
        *,
        user_ids: Collection[str] | None = None,
        start_at: Mapping[int, int] | None = None,
        registry: Mapping[int, SchemaVersion] = NO_REGISTRY,
    ) -> None:
        keys = None if user_ids is None else frozenset(each.encode() for each in user_ids)
        kind: OutcomeKind[NoticeEvent] = OutcomeKind(
            topic=NOTICES,
            read=_reader(registry),
            identity=lambda event: event.event_id,
            may_be_wanted=lambda key: keys is None or key in keys,
        )
        super().__init__(config, kind, group=group, start_at=start_at)


def _reader(registry: Mapping[int, SchemaVersion]) -> Callable[[LogRecord], NoticeEvent]:
    return reader_of(NOTICES, get_args(NoticeEvent), registry)
