"""Snapshots of the replica on disk, so that a restart reads the tail of the gallery topics and not all of them.

A snapshot is the gallery, the ledger and the watermark of one moment. It is a cache and never evidence: one that is
damaged, of another model, of another Kafka or ahead of Kafka is refused with a line that says so, and the replica is
made from Kafka. The access topic is small and always read from its beginning.

What was withdrawn leaves the searches at once; it leaves the snapshots of a worker that runs when they are compacted,
well within the day that an expungement has. The snapshot of a generation that is kept no more is removed. A worker that
is switched off keeps what it has: its folder is the operator's to remove (docs/operations.md).
"""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from typing import TYPE_CHECKING

import faust
import structlog

from processors.gallery import GalleryLedger
from schemas.errors import ContractError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from streams.generation import Generation
    from streams.ports import Log
    from streams.replica import Frozen, Replica

_ABOUT = "about"
_LEDGER = "ledger-"

log = structlog.get_logger()


class Snapshots(faust.Service):
    """Takes a snapshot of every generation now and then.

    Args:
        replica: of which.
        kafka: which Kafka it follows.
        folder: of this worker's own; each generation has a folder below it.
        every_s: how often.
        withdrawn_kept_s: for how long templates that were withdrawn may stay in them, with up to `every_s` besides.
    """

    def __init__(self, replica: Replica, kafka: Log, folder: Path, *, every_s: float, withdrawn_kept_s: float) -> None:
        super().__init__()
        self._replica = replica
        self._kafka = kafka
        self._folder = folder
        self._every_s = every_s
        self._withdrawn_kept_s = withdrawn_kept_s
        self._cluster_id = ""
        self._saved: dict[str, tuple[int, ...]] = {}
        # A stop does not wait for a save that is under way in its thread.
        self._saving = threading.Lock()

    def restore(self) -> None:
        """Bring every generation to where its snapshot was taken; to be called before anything follows Kafka.

        Raises:
            TransientError: Kafka cannot be asked whether it is the one that the snapshots are of.
        """
        self._cluster_id = self._kafka.cluster_id()
        if self._folder.exists():
            self._remove({path.name for path in self._folder.iterdir()} - self._replica.generations.keys())
        for generation in self._replica.generations.values():
            self._restore(generation)

    async def save(self) -> None:
        """Take a snapshot of every generation that has changed; a disk that is full or away is said and waited out."""
        await asyncio.to_thread(self._remove, self._replica.directory.removed_generations)
        for generation in self._replica.kept:
            frozen = await self._replica.freeze(generation)
            if frozen.applied == self._saved.get(generation.topic):
                continue
            try:
                await asyncio.to_thread(self._save, frozen)
            except OSError as error:
                log.warning("snapshot not written", topic=generation.topic, reason=error.strerror)

    @faust.Service.task
    async def _take(self) -> None:
        loop = asyncio.get_running_loop()
        # At once after a start: else a worker that is restarted often would never get to it.
        compacted_at = -self._withdrawn_kept_s
        while True:
            await self.sleep(self._every_s)
            if self.should_stop:
                return
            if loop.time() - compacted_at >= self._withdrawn_kept_s:
                compacted_at = loop.time()
                for generation in self._replica.kept:
                    await asyncio.to_thread(generation.gallery.compact)
                self._saved.clear()
            await self.save()

    def _save(self, frozen: Frozen) -> None:
        topic = frozen.generation.topic
        about = {"topic": topic, "cluster_id": self._cluster_id, "applied": frozen.applied}
        ledger = {f"{_LEDGER}{name}": data for name, data in frozen.ledger.items()}
        with self._saving:
            frozen.generation.gallery.save(
                self._folder / topic, frozen.state, {_ABOUT: json.dumps(about).encode(), **ledger}
            )
            self._saved[topic] = frozen.applied
        log.info("snapshot written", topic=topic, applied=sum(frozen.applied))

    def _remove(self, topics: Collection[str]) -> None:
        for topic in topics:
            with self._saving:
                shutil.rmtree(self._folder / topic, ignore_errors=True)

    def _restore(self, generation: Generation) -> None:
        restored: list[tuple[GalleryLedger, tuple[int, ...]]] = []
        ends = self._kafka.end_offsets([generation.topic])

        def accept(beside: Mapping[str, bytes]) -> None:
            restored.append(self._accepted(generation, beside, ends))

        try:
            found = generation.gallery.load(self._folder / generation.topic, accept)
        except (ContractError, IntegrityError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            log.warning("snapshot refused", topic=generation.topic, reason=f"{why} The gallery is read from Kafka.")
            return
        if found is not None:
            ledger, applied = restored[-1]
            self._replica.begin_at(generation, ledger, applied)
            self._saved[generation.topic] = applied
            templates = generation.gallery.templates
            log.info("snapshot read", topic=generation.topic, applied=sum(applied), templates=templates)

    def _accepted(
        self, generation: Generation, beside: Mapping[str, bytes], ends: Mapping[tuple[str, int], int]
    ) -> tuple[GalleryLedger, tuple[int, ...]]:
        """Return what a snapshot says beside the gallery, if it is one of this generation and this Kafka.

        Raises:
            ContractError: it is not.
        """
        try:
            about = json.loads(beside[_ABOUT])
            topic, cluster_id, applied = about["topic"], about["cluster_id"], tuple(map(int, about["applied"]))
        except (KeyError, ValueError, TypeError) as error:
            raise ContractError(f"The snapshot does not say what it is of ({type(error).__name__}).") from None
        if (topic, cluster_id) != (generation.topic, self._cluster_id):
            raise ContractError(f"The snapshot is of {topic} in Kafka {cluster_id!r}, not of this one.")
        if len(applied) != len(ends) or any(applied[partition] > end for (_, partition), end in ends.items()):
            raise ContractError("The snapshot is ahead of Kafka, which lost records or was made anew.")
        beginnings = self._kafka.beginnings(topic)
        if any(applied[partition] < first for partition, first in beginnings.items()):
            raise ContractError("Records after the snapshot are not in Kafka any more.")
        ledger = GalleryLedger.load(
            {name.removeprefix(_LEDGER): data for name, data in beside.items() if name.startswith(_LEDGER)}
        )
        for partition, offset in ledger.to_put_at_the_end_again().values():
            # Compaction has erased it since: what is left is a late repeat, and only the topic says what it means.
            if not self._is_there(topic, partition, offset):
                raise ContractError("A record that counts in the snapshot is not in Kafka any more.")
        return ledger, applied

    def _is_there(self, topic: str, partition: int, offset: int) -> bool:
        try:
            self._kafka.record_at(topic, partition, offset)
        except IntegrityError:
            return False
        return True
