"""The dead letter topic for an operator: what is in it, the originals, and the way back into their topics.

A replay is two records. First the original, unaltered (key, value, signature and so every identity in it), goes to the
end of its own topic, into the partition of its key; when the broker has acknowledged it, a DeadLetterReplayed says so.
Killed in between, the dead letter stays open, and what it brought back comes a second time: a repeat, as from any
sender that retries, and not a loss.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol, Self

from confluent_kafka import KafkaError

from connectors.publishing import DELIVERY_TIMEOUT_S
from connectors.record_sender import RecordSender
from processors.dead_letters import (
    Case,
    already_decided,
    fold,
    headers_to_replay,
    original_gone,
    require_replayable,
)
from schemas.codec import decode, decode_as_written, decode_for, encode
from schemas.errors import ContractError, DomainFault, IntegrityError
from schemas.events import DeadLetter, DeadLetterReplayed, OriginalRecord, ProbeSubmitted
from schemas.keys import key_of, partition_of
from schemas.positions import SourcePosition, derived_id
from schemas.topics import DEAD_LETTERS, PROBE_OUTCOMES, PROBE_REQUESTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime
    from types import TracebackType

    from connectors.kafka_log import KafkaLog

ACTOR = "system:operator"
_NEVER_TAKEN = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD})
_GONE = frozenset({"KEY_DESTROYED", "REFERENCE_UNRESOLVED", "OBJECT_TOO_LARGE"})


class Store(Protocol):
    """Where the originals are."""

    def fetch(self, reference: str, *, scope: str) -> bytes:
        """Return the bytes under a reference of this scope."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """What is known of the original of a dead letter; `record` is None when it cannot be had."""

    record: OriginalRecord | None = field(repr=False)
    content: str
    """What it is, or why it cannot be had; never its values (G10)."""


def read_cases(log: KafkaLog) -> tuple[Case, ...]:
    """Return every dead letter and what became of it.

    Raises:
        TransientError: Kafka does not answer.
    """
    return fold(_events(log))


def _events(log: KafkaLog) -> Iterator[DeadLetter | DeadLetterReplayed]:
    for (topic, partition), end in log.end_offsets([DEAD_LETTERS]).items():
        for record in log.read(topic, partition, 0, end):
            try:
                event = decode_for(DEAD_LETTERS, record.value)
            except ContractError:
                continue  # Not one of ours, whoever wrote it; the sink keeps it as evidence.
            if isinstance(event, (DeadLetter, DeadLetterReplayed)):
                yield event


def open_original(letter: DeadLetter, store: Store) -> OriginalRecord:
    """Return the record as it was received.

    Raises:
        DomainFault: ORIGINAL_GONE: it was not kept, or its key was destroyed.
        TransientError: the store is away.
        IntegrityError: what is stored is not what the dead letter describes.
    """
    if letter.reference is None:
        raise original_gone("it could not be kept")
    try:
        data = store.fetch(letter.reference, scope=f"dead-letter/{letter.event_id}")
    except DomainFault as fault:
        if fault.code not in _GONE:
            raise
        raise original_gone(str(fault)) from None
    try:
        record = decode(data)
    except ContractError as error:
        raise IntegrityError(
            f"The original of dead letter {letter.event_id} is not as we write them: {error}"
        ) from None
    if not isinstance(record, OriginalRecord) or sha256(record.value or b"").hexdigest() != letter.value_sha256:
        raise IntegrityError(f"What is stored for dead letter {letter.event_id} is not the record that it describes.")
    return record


def describe_original(letter: DeadLetter, store: Store) -> Original:
    """Say whether the original can be had and what it is.

    Raises:
        TransientError: the store is away.
        IntegrityError: what is stored is not what the dead letter describes.
    """
    try:
        record = open_original(letter, store)
    except DomainFault as fault:
        return Original(record=None, content=str(fault))
    try:
        written = decode_as_written(record.value)
    except ContractError as error:
        return Original(record=record, content=f"no record of ours: {error}")
    return Original(record=record, content=f"{written.name} version {written.version.version}")


class Replays:
    """Puts originals back; a `with` block closes the connection.

    Args:
        config: settings of the Kafka client, at least `bootstrap.servers`.
        log: the same Kafka, for what was decided.
        store: where the originals are.
        clock: for the time of the replay.
        timeout_s: how long the broker has to acknowledge a record.
    """

    def __init__(
        self,
        config: Mapping[str, str | int | bool],
        *,
        log: KafkaLog,
        store: Store,
        clock: Callable[[], datetime],
        timeout_s: float = DELIVERY_TIMEOUT_S,
    ) -> None:
        self._log = log
        self._store = store
        self._clock = clock
        self._sender = RecordSender(config, timeout_s=timeout_s, advice="replay again")

    def replay(self, case: Case) -> SourcePosition:
        """Put one original back and say so; return where it stands now.

        Raises:
            DomainFault: NOT_OPEN, ORDER_MATTERS, ORIGINAL_GONE or ALREADY_DECIDED; nothing was put back.
            TransientError: no acknowledgement came; it may or may not be in the topic.
            IntegrityError: what is stored is not what the dead letter describes.
        """
        require_replayable(case)
        letter = case.letter
        original = open_original(letter, self._store)
        self._require_undecided(letter, original)
        position = self._sender.send(
            letter.source.topic,
            # Without a key there is no partition of its own, and the worker will say so again.
            letter.source.partition if original.key is None else partition_of(letter.source.topic, original.key),
            original.key,
            original.value,
            headers_to_replay(letter, tuple((header.name, header.value) for header in original.headers)),
        )
        said = DeadLetterReplayed(
            event_id=derived_id(position, "replayed"),
            occurred_at=self._clock(),
            actor=ACTOR,
            dead_letter_id=letter.event_id,
            replayed_as=position,
            replay_count=letter.replay_count + 1,
        )
        key = key_of(said)
        self._sender.send(DEAD_LETTERS, partition_of(DEAD_LETTERS, key), key, encode(said), ())
        return position

    def close(self) -> None:
        """Let go of the connection; everything was acknowledged before."""
        self._sender.close()

    def _require_undecided(self, letter: DeadLetter, original: OriginalRecord) -> None:
        if letter.source.topic != PROBE_REQUESTS:
            return
        try:
            request = decode_for(PROBE_REQUESTS, original.value)
        except ContractError:
            return  # Nobody could give it an outcome.
        if not isinstance(request, ProbeSubmitted):
            return
        partition = partition_of(PROBE_OUTCOMES, key_of(request))
        # Elsewhere than where its key belongs, its offset says nothing about the outcomes there.
        since = letter.source.offset if partition == letter.source.partition else 0
        if request.probe_id in self._log.decided_since(partition, since):
            raise already_decided(request.probe_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
