"""The follower: reads the gallery and access topics, all partitions, no group, and feeds the replica's channels.

A service of the Faust app with a Kafka reader of its own in a thread: every worker needs every partition, which a
consumer group would not give it, and the reader must go on while the group rebalances.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import faust
import structlog
from faust.channels import Channel
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from schemas.errors import TransientError
from schemas.records import RecordBatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from schemas.records import LogRecord
    from streams.ports import Log, LogTail, TopicPartition
    from streams.replica import Replica

    _Read = tuple[Sequence[LogRecord], Mapping[TopicPartition, int]]

POLL_S = 0.2
RETRY_S = 1.0
WARN_EVERY_S = 30.0

log = structlog.get_logger()


class SteadyChannel(Channel[Any]):
    """A Faust channel that a rebalance neither empties nor suspends.

    Faust clears the queues of all channels when partitions are revoked, because the records will be fetched again. What
    the follower read is not fetched again by anyone: a cleared batch would be missing from the replica for ever.
    """

    @property
    def queue(self) -> Any:
        """The buffer behind the channel."""
        if self._queue is None:
            self._queue = ThrowableQueue(maxsize=1, flow_control=FlowControlEvent(initially_suspended=False))
        return self._queue


class Follower(faust.Service):
    """Reads on from where the replica stands and hands each topic's records, in order, to its channel.

    Args:
        kafka: opens the reader.
        replica: what the channels' agents apply to.
        channels: topic -> the channel whose agent applies its records.
    """

    def __init__(self, kafka: Log, replica: Replica, channels: Mapping[str, SteadyChannel]) -> None:
        super().__init__()
        self._kafka = kafka
        self._replica = replica
        self._channels = channels
        # One thread of its own: the reader is not thread-safe, and a busy pool must not delay it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="follower")

    @faust.Service.task
    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        tail: LogTail | None = None
        reading: asyncio.Future[_Read] | None = None
        warned_at = -WARN_EVERY_S
        try:
            while not self.should_stop:
                try:
                    if tail is None:
                        tail = await loop.run_in_executor(self._thread, self._kafka.tail, dict(self._replica.applied))
                    records, passed = await (reading or self._read_on(tail))
                except TransientError as error:
                    reading = None
                    if loop.time() - warned_at >= WARN_EVERY_S:
                        warned_at = loop.time()
                        log.warning("follower waits for Kafka", reason=str(error))
                    # Whatever the reader had taken and not handed over is read again from what was applied.
                    if tail is not None:
                        await loop.run_in_executor(self._thread, tail.close)
                        tail = None
                    await self.sleep(RETRY_S)
                    continue
                # The next records are read while these are applied.
                reading = self._read_on(tail)
                await self._hand_over(records)
                if not self.should_stop:  # or else what was read last may not have been taken
                    await self._replica.pass_over(passed)
        finally:
            # Not awaited, because a second cancellation would leave it open; it takes no longer than a read.
            if tail is not None:
                self._thread.submit(tail.close)
            self._thread.shutdown(wait=True)

    def _read_on(self, tail: LogTail) -> asyncio.Future[_Read]:
        """Read the next records, and how far the reader has come with them, off the event loop."""
        reading = asyncio.get_running_loop().run_in_executor(self._thread, lambda: (tail.read(POLL_S), tail.passed()))
        # Whoever asked may have stopped; what nobody takes is read again, and is no fault.
        reading.add_done_callback(lambda done: done.cancelled() or done.exception())
        return reading

    async def _hand_over(self, records: Sequence[LogRecord]) -> None:
        for topic, batch in RecordBatch.of(records).by_topic().items():
            channel = self._channels[topic]
            while not channel.subscriber_count:
                if self.should_stop:
                    return
                await self.sleep(POLL_S)
            # Faust's types know events only; in memory a channel carries any value.
            await channel.put(cast("Any", batch))
            # Reading on only when it is applied keeps what is buffered bounded.
            await self._replica.reached({(topic, partition): end for partition, end in batch.ends.items()})
