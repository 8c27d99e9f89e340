"""Measure recovery: writing and reading a snapshot, a restart from it, and the replay of the gallery topic from Kafka.

Nothing here is a model of the system: the worker's own replica, snapshots and follower run on a real broker, started
for this. Two things are left out: Faust, which hands batches of thousands from the follower to the replica, and photos.

What is compared is measured in turn, in one run. A snapshot is loaded and its files are read with all of them in the
page cache, and again (`cold_`) with none of them. The clocks of a replay and of a bare consumer start at their first
records, so that neither is charged for making a connection.
"""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connectors.faiss_gallery import FaissGallery
from connectors.kafka_log import KafkaLog
from connectors.signing_keys import SigningKey
from connectors.topic_admin import TopicAdmin
from infra import bench_population
from infra.brokers import make_broker
from processors.access import Directory
from processors.gallery import GalleryLedger
from processors.quantiser import codebook_for
from schemas.codec import encode
from schemas.errors import IntegrityError, TransientError
from schemas.events import EnrolledCapture, TemplatesEnrolled
from schemas.instants import to_micros
from schemas.keys import key_of, partition_of
from schemas.positions import SourcePosition, derived_id
from schemas.topics import ACCESS, BOOKING_EVENTS, GALLERY, TOPICS, spec_of
from streams.follower import Follower
from streams.generation import Generation
from streams.replica import Replica
from streams.snapshots import Snapshots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from infra.bench_population import Population
    from infra.bench_search import Report, Tell
    from infra.brokers import Kind
    from processors.extraction import Extraction
    from processors.model_card import StatisticsCard
    from schemas.records import LogRecord
    from streams.ports import Log

_SEED = 20_261_124
_MODEL = "be" * 32
_AT = datetime(2026, 11, 24, tzinfo=UTC)
_BOOKING_PARTITIONS = spec_of(BOOKING_EVENTS).partitions
_BATCH = 2000
_TURNS = 3
_TAIL_RECORDS = 1000
_BUFFER_BYTES = 1 << 24
_BYTES_PER_MB = 1e6
_LIMIT_S = 600.0
_POLL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryBench:
    """What to measure."""

    population: Population
    card: StatisticsCard
    size: int
    """Templates, one a booking."""
    replay_size: int
    """How many of them stand in the gallery topic; at most all."""
    threads: int
    broker: Kind
    jars: Path | None
    """Where Apache Kafka's jars are kept."""

    def run(self, progress: Tell) -> Report:
        """Measure everything."""
        with tempfile.TemporaryDirectory(prefix="leadstream-bench-") as name:
            folder = Path(name)
            with make_broker(self.broker, folder / "kafka", jars=self.jars) as broker:
                TopicAdmin(broker.bootstrap).apply([TOPICS[GALLERY], TOPICS[ACCESS]])
                gc.freeze()  # as a worker does
                return asyncio.run(self._measured({"bootstrap.servers": broker.bootstrap}, folder, progress))

    async def _measured(self, config: Mapping[str, str], folder: Path, progress: Tell) -> Report:
        progress("templates", 0, self.size)
        rows = bench_population.templates(self.population, self.size + _TAIL_RECORDS, _SEED)
        progress("templates", self.size, self.size)
        log = KafkaLog(config)
        _publish(config, rows, 0, self.replay_size, progress)
        report: Report = {
            "size": self.size,
            "dimension": rows.shape[1],
            "threads": self.threads,
            "statistics": self.population.described,
            "broker": self.broker,
            "replay_size": self.replay_size,
        }
        replica, replay = await self._replayed(config, log, progress)
        await self._filled_up(replica, rows, progress)
        report |= await self._snapshot(replica, log, folder / "snapshots", progress)
        del replica
        gc.collect()
        _publish(config, rows, self.size, self.size + _TAIL_RECORDS, progress)
        return report | await self._restarted(config, folder / "snapshots", progress) | replay

    def _gallery(self) -> FaissGallery:
        dimension = len(self.population.mean)
        own = self.card if dimension == len(self.card.mean_template) else None
        return FaissGallery(
            dimension=dimension,
            model_digest=_MODEL,
            codebook=codebook_for(dimension=dimension, statistics=own),
            threads=self.threads,
        )

    def _replica(self, log: Log) -> Replica:
        generation = Generation(
            topic=GALLERY,
            gallery=self._gallery(),
            extractor=_NoExtractor(),
            dimension=len(self.population.mean),
            threshold_of=lambda _: 0.0,
        )
        directory = Directory(SigningKey(Ed25519PrivateKey.generate()).public_key)
        return Replica(generations=[generation], directory=directory, kafka=log)

    async def _replayed(self, config: Mapping[str, str], log: Log, progress: Tell) -> tuple[Replica, Report]:
        """Read the topic by a bare consumer and by the follower, in turn; return the last replica and the rates."""
        ends = {place: end for place, end in log.end_offsets([GALLERY]).items() if end}
        bare, ours = [], []
        for turn in range(_TURNS):
            progress("replaying", turn, _TURNS)
            bare.append(await asyncio.to_thread(_bare_rate, config, ends))
            replica = self._replica(log)
            started, channel = time.perf_counter(), _Straight(replica)
            await _until_current(replica, log, channel, ends)
            ours.append(self.replay_size / (time.perf_counter() - (channel.began_at or started)))
        progress("replaying", _TURNS, _TURNS)
        if replica.active.gallery.templates != self.replay_size:
            raise IntegrityError("The replay did not bring every template.")
        return replica, {
            "bare_consumer_records_s": _rounded(median(bare)),
            "replay_records_s": _rounded(median(ours)),
            "replay_over_bare": _rounded(median(ours) / median(bare)),
        }

    async def _filled_up(self, replica: Replica, rows: NDArray[Any], progress: Tell) -> None:
        """Put what does not stand in the topic into the gallery and the ledger, as if it had stood before the rest."""
        generation = replica.active
        for start in range(self.replay_size, self.size, _BATCH):
            progress("enrolling", start, self.size)
            part = rows[start : min(start + _BATCH, self.size)].astype(np.float32)
            changes = [bench_population.enrolment(start + number, template) for number, template in enumerate(part)]
            for number, change in enumerate(changes, start):
                generation.ledger.judge_as(
                    change.booking,
                    source_offset=number // _BOOKING_PARTITIONS,
                    position=(partition_of(GALLERY, change.booking.encode()), 0),
                    withdrawn=None,
                    said_at_us=to_micros(_AT),
                )
            await asyncio.to_thread(generation.gallery.apply, changes, {})
        gallery = cast("FaissGallery", replica.active.gallery)
        await asyncio.to_thread(gallery.settle)
        progress("enrolling", self.size, self.size)

    async def _snapshot(self, replica: Replica, log: Log, folder: Path, progress: Tell) -> Report:
        """Write a snapshot, then read its files and load it, in turn."""
        progress("snapshot", 0, _TURNS + 1)
        snapshots = Snapshots(replica, log, folder, every_s=3600.0, withdrawn_kept_s=3600.0)
        snapshots.restore()
        writing = await _timed(snapshots.save)
        files, total = _files(folder)
        spent: dict[str, list[float]] = defaultdict(list)
        for turn in range(_TURNS):
            progress("snapshot", turn + 1, _TURNS + 1)
            spent["file_read_mb_s"].append(_time(_read, files))
            spent["file_skim_mb_s"].append(_time(_skim, files))
            spent["snapshot_load_mb_s"].append(_time(self._load, folder / GALLERY))
            for name, work, place in (("read", _skim, files), ("load", self._load, folder / GALLERY)):
                _drop_from_page_cache(files)
                spent[f"cold_{name}_mb_s"].append(_time(work, place))
        progress("snapshot", _TURNS + 1, _TURNS + 1)
        rates = {name: total / _BYTES_PER_MB / median(seconds) for name, seconds in spent.items()}
        load = rates["snapshot_load_mb_s"]
        return {
            "snapshot_bytes_per_template": _rounded(total / self.size),
            "snapshot_write_mb_s": _rounded(total / _BYTES_PER_MB / writing),
            **{name: _rounded(rate) for name, rate in rates.items()},
            "load_over_read": _rounded(load / rates["file_read_mb_s"]),
            "load_over_skim": _rounded(load / rates["file_skim_mb_s"]),
            "cold_load_over_read": _rounded(rates["cold_load_mb_s"] / rates["cold_read_mb_s"]),
        }

    def _load(self, folder: Path) -> None:
        gallery = self._gallery()
        gallery.load(folder, _load_ledger)
        if gallery.templates != self.size:
            raise IntegrityError("The snapshot did not bring every template.")

    async def _restarted(self, config: Mapping[str, str], folder: Path, progress: Tell) -> Report:
        """Begin with the snapshot as a worker does, and follow Kafka until the replica is current."""
        progress("restart", 0, 1)
        started = time.perf_counter()
        log = KafkaLog(config)
        replica = self._replica(log)
        await asyncio.to_thread(Snapshots(replica, log, folder, every_s=3600.0, withdrawn_kept_s=3600.0).restore)
        restored = time.perf_counter() - started
        await _until_current(replica, log, _Straight(replica))
        current = time.perf_counter() - started
        progress("restart", 1, 1)
        if replica.active.gallery.templates != self.size + _TAIL_RECORDS:
            raise IntegrityError("The restart did not bring every template.")
        return {
            "restart_from_snapshot_s": _rounded(current),
            "restart_reading_the_snapshot_s": _rounded(restored),
            "restart_tail_records": _TAIL_RECORDS,
        }


class _NoExtractor:
    """A replica extracts nothing."""

    def extract(self, photo: bytes, /) -> Extraction:
        """Refuse: nobody asks."""
        raise NotImplementedError


class _Straight:
    """Stands where a worker has Faust's channels: what the follower read is applied, nothing between."""

    subscriber_count = 1

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.began_at: float | None = None

    async def put(self, records: Sequence[LogRecord]) -> None:
        """Apply records of one topic; nobody writes to the access topic here."""
        if self.began_at is None:
            self.began_at = time.perf_counter()
        await self._replica.apply_gallery(records[0].topic, records)


async def _until_current(
    replica: Replica, log: Log, channel: _Straight, ends: Mapping[tuple[str, int], int] | None = None
) -> None:
    """Follow Kafka until everything before these offsets was applied, or else everything that stands there now.

    Raises:
        TransientError: that takes too long.
    """
    follower = Follower(log, replica, cast("Any", dict.fromkeys(replica.followed, channel)))
    await follower.start()
    try:
        async with asyncio.timeout(_LIMIT_S):
            if ends is None:
                await replica.read_barrier(_LIMIT_S)
            else:
                await replica.reached(ends)
    except TimeoutError:
        raise TransientError(f"The replica was not current in {_LIMIT_S:g} s.") from None
    finally:
        await follower.stop()


def _bare_rate(config: Mapping[str, str], ends: Mapping[tuple[str, int], int]) -> float:
    """Return how many records a second a consumer takes that does nothing with them."""
    consumer = Consumer({**config, "group.id": "leadstream-bench", "enable.auto.commit": False, "log_level": 0})
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for topic, partition in ends])
        deadline, left = time.perf_counter() + _LIMIT_S, sum(ends.values())
        while not consumer.consume(1, _POLL_S):
            _check(deadline)
        started, left = time.perf_counter(), left - 1
        counted = left
        while left:
            # The last batch is asked for by its size, since the client waits for a full one.
            left -= len(consumer.consume(min(_BATCH, left), _POLL_S))
            _check(deadline)
        return counted / (time.perf_counter() - started)
    finally:
        consumer.close()


def _check(deadline: float) -> None:
    if time.perf_counter() > deadline:
        raise TransientError(f"Kafka did not deliver everything in {_LIMIT_S:g} s.")


def _publish(config: Mapping[str, str], rows: NDArray[Any], start: int, stop: int, progress: Tell) -> None:
    """Write enrolments to the gallery topic, as workers do: not compressed, acknowledged by all replicas."""
    producer = Producer({**config, "acks": "all", "linger.ms": 5, "log_level": 0})
    failed: list[str] = []

    def acknowledged(error: Any, _message: Any) -> None:
        if error is not None:
            failed.append(error.str())

    for first in range(start, stop, _BATCH):
        progress("publishing", first - start, stop - start)
        for key, value in _encoded(rows, first, min(first + _BATCH, stop)):
            partition = partition_of(GALLERY, key)
            producer.produce(GALLERY, key=key, value=value, partition=partition, on_delivery=acknowledged)
        producer.poll(0)
        producer.flush(_LIMIT_S)
    progress("publishing", stop - start, stop - start)
    if failed:
        raise TransientError(f"Kafka did not take {len(failed)} records: {failed[0]}")


def _encoded(rows: NDArray[Any], start: int, stop: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value of the enrolment of each row."""
    for row in range(start, stop):
        source = SourcePosition(
            topic=BOOKING_EVENTS, partition=row % _BOOKING_PARTITIONS, offset=row // _BOOKING_PARTITIONS
        )
        event = TemplatesEnrolled(
            event_id=derived_id(source, "templates"),
            occurred_at=_AT,
            actor="system:worker",
            ori=bench_population.ORI,
            booking_number=bench_population.booking_number(row),
            sid=f"A{row:08d}",
            model_digest=_MODEL,
            captures=(
                EnrolledCapture(
                    capture_id=UUID(int=row * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128),
                    template=rows[row].tobytes(),
                    quality=0.8,
                ),
            ),
            source=source,
            source_said_at=_AT,
            synthetic=True,
        )
        yield key_of(event), encode(event)


def _load_ledger(beside: Mapping[str, bytes]) -> None:
    GalleryLedger.load({name.removeprefix("ledger-"): data for name, data in beside.items()})


def _files(folder: Path) -> tuple[list[Path], int]:
    """Return the files below a folder and how many bytes they hold.

    Raises:
        TransientError: the snapshot was not written.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    if not files:
        raise TransientError(f"The snapshot could not be written to {folder}: make room there.")
    return files, sum(path.stat().st_size for path in files)


def _read(files: Sequence[Path]) -> None:
    """Read files, one after the other, each into memory of its own, as whoever needs what is in them must."""
    for path in files:
        path.read_bytes()


def _skim(files: Sequence[Path]) -> None:
    """Read files into one buffer, over and over: as fast as the files can be had, and nothing is kept."""
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                continue


def _drop_from_page_cache(files: Sequence[Path]) -> None:
    for path in files:
        file = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


def _time(work: Callable[..., object], *arguments: object) -> float:
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


async def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


def _rounded(value: float) -> float:
    """Leave the digits that mean something; a small value stays what it is and becomes no zero."""
    return float(f"{value:.6g}")
