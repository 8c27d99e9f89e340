"""The one place that turns exceptions into actions (DESIGN 7): dead letter, wait and retry, or stop the worker.

Faust counts an event as done even when its agent raised, and when an agent is cancelled; so agents here acknowledge by
hand, after the guard says that the event was dealt with (G1, G12).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from processors.dead_letters import letter_id, letter_of, original_of
from processors.refusals import RefusalCode
from schemas.codec import encode
from schemas.errors import ContractError, DomainFault, IntegrityError, LeadstreamError, TransientError, place_of
from schemas.keys import partition_of
from streams.ports import NO_TELEMETRY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from schemas.records import LogRecord
    from streams.ports import Clock, Objects, Publish, Telemetry

CONTRACT = "CONTRACT"
UNEXPECTED = "UNEXPECTED"
NOT_BELIEVED = frozenset({RefusalCode.UNAUTHENTICATED, RefusalCode.NOT_ALLOWED})
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0
WARN_EVERY_S = 30.0

log = structlog.get_logger()


class Guard:
    """Deals with every exception of a handler.

    Args:
        stage: name of the agent, for dead letters and logs.
        publish: sends an event and returns when the broker has acknowledged it.
        objects: where the original bytes of dead letters are kept.
        clock: for the times of dead letters.
        give_up: told of a record that became a dead letter and why, so that its sender still has an answer.
        stop_worker: called with the error when going on would hide it.
        is_known_signer: tells whether somebody registered signed a record; what strangers send counts toward no limit.
        dead_letter_limit: dead letters of this stage since the start; past it the worker stops and the backlog grows.
        telemetry: told of dead letters and of waiting.
    """

    def __init__(
        self,
        *,
        stage: str,
        publish: Publish,
        objects: Objects,
        clock: Clock,
        give_up: Callable[[LogRecord, str], Awaitable[None]],
        stop_worker: Callable[[BaseException], Awaitable[None]],
        is_known_signer: Callable[[LogRecord], bool],
        dead_letter_limit: int,
        telemetry: Telemetry = NO_TELEMETRY,
    ) -> None:
        self._stage = stage
        self._publish = publish
        self._objects = objects
        self._clock = clock
        self._give_up = give_up
        self._stop_worker = stop_worker
        self._is_known_signer = is_known_signer
        self._limit = dead_letter_limit
        self._telemetry = telemetry
        self._dead_letters = 0

    async def run(self, handle: Callable[[LogRecord], Awaitable[None]], record: LogRecord) -> bool:
        """Deal with one record: return True when it may be acknowledged, False when the worker is stopping."""
        try:
            await self._patiently(lambda: self._handle(handle, record), record)
        except IntegrityError as error:
            reason: LeadstreamError = error
        except Exception as error:  # noqa: BLE001 - a dead letter that could not be kept
            reason = IntegrityError(f"A dead letter could not be kept: {type(error).__name__} at {place_of(error)}.")
        else:
            return True
        # Out of the handlers, because whoever logs a crash logs the exception in hand, and its text may quote a record.
        log.error("worker stops", stage=self._stage, position=str(record.position), reason=str(reason))
        await self._stop_worker(reason)
        return False

    async def _patiently(self, act: Callable[[], Awaitable[None]], record: LogRecord) -> None:
        """Repeat an act while the world is away: in place, so that order is kept and nothing is lost."""
        loop = asyncio.get_running_loop()
        wait_s, warned_at = FIRST_WAIT_S, -WARN_EVERY_S
        waited = False
        try:
            while True:
                try:
                    await act()
                except TransientError as error:
                    waited = True
                    self._telemetry.waiting(self._stage, is_waiting=True)
                    if loop.time() - warned_at >= WARN_EVERY_S:
                        warned_at = loop.time()
                        log.warning("waiting", stage=self._stage, position=str(record.position), reason=str(error))
                    await asyncio.sleep(wait_s)
                    wait_s = min(2 * wait_s, LONGEST_WAIT_S)
                else:
                    break
        finally:
            if waited:
                self._telemetry.waiting(self._stage, is_waiting=False)
        if waited:
            log.info("going on", stage=self._stage, position=str(record.position))

    async def _handle(self, handle: Callable[[LogRecord], Awaitable[None]], record: LogRecord) -> None:
        try:
            await handle(record)
        except (TransientError, IntegrityError):
            raise
        except ContractError as error:
            await self._bury(record, CONTRACT, str(error))
        except DomainFault as error:
            await self._bury(record, error.code, str(error))
        except Exception as error:  # noqa: BLE001 - no agent may let one escape (G12)
            # The text of an unforeseen exception may quote a record, so only its kind and place are kept (G10).
            await self._bury(record, UNEXPECTED, f"{type(error).__name__} at {place_of(error)}.")

    async def _bury(self, record: LogRecord, code: str, message: str) -> None:
        """Keep the original bytes encrypted, then say so in the dead letter topic."""
        # A stranger must not be able to stop a stream by what nobody believes anyway, readable or not.
        counts = code not in NOT_BELIEVED and self._is_known_signer(record)
        if counts and self._dead_letters >= self._limit:
            raise IntegrityError(
                f"{self._dead_letters} dead letters in stage {self._stage}: the stream looks broken. Find the cause "
                "with the dead letter topic, mend it, and start the worker again; the backlog is kept.",
            )
        event_id = letter_id(record)
        try:
            stored = await asyncio.to_thread(
                self._objects.put, f"dead-letter/{event_id}", "original", encode(original_of(record))
            )
            reference = stored.reference
        except DomainFault as fault:
            # Its key was destroyed in time, or Kafka lost the record that stood here before.
            log.warning("original not kept", stage=self._stage, position=str(record.position), code=fault.code)
            reference = None
        letter = letter_of(
            record,
            actor="system:worker",
            stage=self._stage,
            code=code,
            message=message,
            reference=reference,
            at=self._clock(),
        )
        await self._publish(letter)
        self._dead_letters += counts
        self._telemetry.set_aside(self._stage, code)
        log.warning(
            "dead letter",
            stage=self._stage,
            dead_letter=str(event_id),
            position=str(record.position),
            code=code,
            reason=message,
            replay_count=letter.replay_count,
        )
        await self._answer(record, f"The record was set aside as a dead letter: {code}. {message}")

    async def _answer(self, record: LogRecord, reason: str) -> None:
        """Let the sender of a dead letter have an answer; the dead letter stands even where there can be none."""
        try:
            await self._patiently(lambda: self._give_up(record, reason), record)
        except IntegrityError:
            raise
        except Exception as error:  # noqa: BLE001 - what cannot be answered must not stop the stream (G12)
            what = f"{type(error).__name__} at {place_of(error)}"
            log.warning("dead letter not answered", stage=self._stage, position=str(record.position), reason=what)


def safe_text_of(error: BaseException) -> str:
    """Return what an exception says, if it is one of ours; of any other only its kind and place (G10)."""
    return str(error) if isinstance(error, LeadstreamError) else f"{type(error).__name__} at {place_of(error)}"


def require_its_partition(record: LogRecord) -> None:
    """Refuse a record that its publisher's partitioner put where its key does not belong.

    Raises:
        DomainFault: two partitions would hold events of one key, and their order would be lost.
    """
    if record.key is None or partition_of(record.topic, record.key) != record.partition:
        raise DomainFault(
            "WRONG_PARTITION",
            "The record is not in the partition of its key; publish with the murmur2 partitioner "
            "(librdkafka: partitioner=murmur2_random).",
        )
