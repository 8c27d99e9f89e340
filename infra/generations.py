"""The gallery generations of the model cards that are set: how they are, what one lacks, how it is built."""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from connectors.attempt_counter import AttemptCounter
from connectors.group_progress import GroupProgress
from connectors.kafka_log import KafkaLog
from connectors.record_sender import RecordSender
from infra import wiring
from infra.data_folder import DataFolder
from processors.gallery import newer_in
from processors.refusals import RefusalCode
from schemas.codec import encode
from schemas.errors import DomainFault, TransientError, UsageError
from schemas.keys import key_of, partition_of
from streams.rebuild import LedgerReader, Rebuild, RebuildParts
from streams.sink import GROUP as AUDIT_GROUP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infra.settings import Settings
    from infra.wiring import GenerationName
    from schemas.events import TemplatesEnrolled, TemplatesWithdrawn

ACTIVE, KEPT, REMOVED = "active", "kept", "removed"
AUDIT_WAIT_S = 30.0
POLL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationState:
    """One generation as an operator sees it."""

    model_digest: str
    topic: str
    state: str
    """active, kept or removed."""
    bookings: int
    """Bookings of which it holds something, a withdrawal too."""
    missing: int
    """Bookings of which the active generation knows something newer."""
    audited: bool
    """Whether every record of its topic is in the audit trail."""

    def to_json(self) -> dict[str, Any]:
        """Return what `generation list --json` prints."""
        return asdict(self)


def next_of(settings: Settings) -> GenerationName:
    """Return the generation to change to.

    Raises:
        UsageError: no pack to change to is set.
    """
    if settings.next_model_card is None:
        raise UsageError("Set next_model_card (LEADSTREAM_NEXT_MODEL_CARD) to the card of the pack to change to.")
    return wiring.generation_names(settings)[-1]


def find(settings: Settings, which: str) -> GenerationName:
    """Return the generation whose model digest begins like this.

    Raises:
        UsageError: none or several do.
    """
    found = [name for name in wiring.generation_names(settings) if which and name.model_digest.startswith(which)]
    if len(found) != 1:
        raise UsageError(f"{len(found)} generations that are set begin with {which!r}; `generation list` shows them.")
    return found[0]


def look(settings: Settings) -> list[GenerationState]:
    """Return how each generation is.

    Raises:
        TransientError: Kafka does not answer.
    """
    kafka = KafkaLog(wiring.kafka_config(settings))
    known = wiring.directory_as_published(settings)
    active = wiring.active_generation(settings, known)
    counting = LedgerReader(kafka, active.topic).catch_up()
    states = []
    for name in wiring.generation_names(settings):
        ledger = LedgerReader(kafka, name.topic).catch_up()
        state = ACTIVE if name == active else REMOVED if name.topic in known.removed_generations else KEPT
        states.append(
            GenerationState(
                model_digest=name.model_digest,
                topic=name.topic,
                state=state,
                bookings=len(ledger),
                missing=len(newer_in(counting, ledger)),
                audited=_is_audited(settings, kafka, name.topic),
            )
        )
    return states


def require_complete(settings: Settings, name: GenerationName) -> None:
    """Return once a generation can be searched as well as the active one; the sink has a moment to catch up.

    Raises:
        DomainFault: GENERATION_INCOMPLETE; the text says what it lacks.
    """
    (state,) = [each for each in look(settings) if each.topic == name.topic]
    if state.missing:
        raise _incomplete(name, f"it lacks {state.missing} bookings; run `leadstream generation build`")
    if not _is_audited_soon(settings, name):
        raise _incomplete(name, "the sink does not audit it; see that it runs")


def require_nothing_missed(settings: Settings, former: GenerationName, name: GenerationName) -> None:
    """Return if nothing was decided, between the look before the switch and the switch, by a worker that keeps but one.

    Raises:
        DomainFault: GENERATION_INCOMPLETE; switch back.
    """
    kafka = KafkaLog(wiring.kafka_config(settings))
    ledgers = [LedgerReader(kafka, each.topic).catch_up() for each in (former, name)]
    if missed := newer_in(*ledgers):
        raise _incomplete(
            name,
            f"{len(missed)} bookings were decided meanwhile by a worker that does not keep it. Restart every worker "
            "with next_model_card, then build again",
        )


def require_audited(settings: Settings, name: GenerationName) -> None:
    """Return once every record of a generation is in the audit trail.

    Raises:
        TransientError: the sink has not caught up in half a minute.
    """
    if not _is_audited_soon(settings, name):
        raise TransientError(f"The sink has not audited all of {name.topic}: nothing was erased. See that it runs.")


def _incomplete(name: GenerationName, why: str) -> DomainFault:
    text = f"Generation {name.model_digest[:16]} cannot be searched: {why}."
    return DomainFault(RefusalCode.GENERATION_INCOMPLETE, text)


def _is_audited_soon(settings: Settings, name: GenerationName) -> bool:
    kafka = KafkaLog(wiring.kafka_config(settings))
    deadline = time.monotonic() + AUDIT_WAIT_S
    while not (audited := _is_audited(settings, kafka, name.topic)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return audited


@contextmanager
def rebuilding(settings: Settings) -> Iterator[Rebuild]:
    """Open everything that a build of the next generation needs."""
    target = next_of(settings)
    config = wiring.kafka_config(settings)
    folder = DataFolder(settings.data).worker("rebuild")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with closing(RecordSender(config)) as sender, closing(wiring.next_extraction_processes(settings)) as extractor:

        def send(topic: str, record: TemplatesEnrolled | TemplatesWithdrawn) -> None:
            key = key_of(record)
            sender.send(topic, partition_of(topic, key), key, encode(record))

        known = wiring.directory_as_published(settings)
        parts = RebuildParts(
            kafka=KafkaLog(config),
            objects=wiring.object_store(settings),
            extractor=extractor,
            attempts=AttemptCounter(folder / "attempts"),
            policy=wiring.policy_in_force(settings, known, wiring.now()),
            clock=wiring.now,
            send=send,
        )
        active = wiring.active_generation(settings, known)
        if active == target:
            raise UsageError(f"Generation {target.model_digest[:16]} is active already; there is nothing to build.")
        threads = settings.extraction_processes
        yield Rebuild(active.topic, target.topic, target.model_digest, parts, threads=threads)


def _is_audited(settings: Settings, kafka: KafkaLog, topic: str) -> bool:
    audited = GroupProgress(wiring.kafka_config(settings), AUDIT_GROUP).committed([topic])
    return all(audited[place] >= end for place, end in kafka.end_offsets([topic]).items())
