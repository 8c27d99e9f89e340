"""A replica that begins with its snapshot is as one that read everything; no other snapshot is taken (G5, G7)."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from builders import ROOT
from structlog.testing import capture_logs
from test_replica import DIMENSION, FACES, MODEL, SEALED, LogInMemory, NoExtractor, gallery_record

from connectors.faiss_gallery import FaissGallery, Sizes
from processors.access import Directory
from schemas.codec import decode
from schemas.errors import IntegrityError, TransientError
from schemas.keys import booking_key
from schemas.topics import GALLERY
from streams.generation import Generation
from streams.replica import Replica
from streams.snapshots import Snapshots

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from schemas.records import LogRecord

RECORDS = [
    gallery_record(0, 10, 0),
    gallery_record(1, 11, 1, "B-2"),
    gallery_record(2, 12, SEALED),
    gallery_record(3, 10, 0),
    gallery_record(4, 13, 2, "B-3"),
]
"""Two are enrolled, one is sealed and repeated late."""


class Worker:
    """A replica and its snapshots, as a start of a worker makes them."""

    def __init__(
        self,
        folder: Path,
        *,
        model: str = MODEL,
        cluster_id: str = "this one",
        end: int = 5,
        begins: int = 0,
        every_s: float = 3600.0,
        sizes: Sizes | None = None,
    ) -> None:
        self.log: Any = LogInMemory()
        self.compacted: set[int] = set()
        self.log.cluster_id = lambda: cluster_id
        self.log.beginnings = lambda _topic: {0: begins}
        self.log.record_at = self.record_at
        self.log.ends[GALLERY, 0] = end
        self.generation = Generation(
            topic=GALLERY,
            gallery=FaissGallery(dimension=DIMENSION, model_digest=model, sizes=sizes),
            extractor=NoExtractor(),
            dimension=DIMENSION,
            threshold_of=lambda _: 0.5,
        )
        self.replica = Replica(generations=[self.generation], directory=Directory(ROOT.public_key), kafka=self.log)
        self.snapshots: Any = Snapshots(self.replica, self.log, folder, every_s=every_s, withdrawn_kept_s=every_s)

    def record_at(self, topic: str, partition: int, offset: int) -> LogRecord:
        assert (topic, partition) == (GALLERY, 0)
        if offset in self.compacted:
            raise IntegrityError("not in Kafka any more")
        return RECORDS[offset]

    @property
    def begun_at(self) -> int:
        return self.replica.applied[GALLERY, 0]

    @classmethod
    def that_starts(cls, folder: Path) -> Worker:
        worker = cls(folder)
        assert worker.starts() == []
        return worker

    def starts(self) -> list[str]:
        """Restore, and return why a snapshot was refused."""
        with capture_logs() as said:
            self.snapshots.restore()
        return [line["reason"] for line in said if line["event"] == "snapshot refused"]

    def applies(self, records: Sequence[LogRecord]) -> None:
        asyncio.run(self.replica.apply_gallery(GALLERY, records))

    def saves(self) -> None:
        asyncio.run(self.snapshots.save())

    def known(self) -> tuple[Any, ...]:
        """Return everything that a later list or decision can depend on."""
        lists = [self.generation.gallery.search_batch(face[None], [5])[0] for face in FACES]
        key = booking_key("CA0190000", "B-1")
        ledger = self.generation.ledger
        return (
            [(found.candidates, dict(found.watermark), found.templates, found.persons) for found in lists],
            dict(ledger.entries()),
            ledger.to_put_at_the_end_again(),
            ledger.barred_by(key),
            self.replica.applied,
        )


@pytest.mark.parametrize("until", range(len(RECORDS) + 1))
def test_a_snapshot_and_the_tail_make_the_replica_that_read_everything(tmp_path: Path, until: int) -> None:
    whole, first = Worker.that_starts(tmp_path / "never"), Worker.that_starts(tmp_path)
    whole.applies(RECORDS)
    if until:
        first.applies(RECORDS[:until])
    first.saves()
    second = Worker(tmp_path)
    assert second.starts() == []
    assert second.begun_at == until
    second.applies(RECORDS[until:] or RECORDS[-1:])
    assert second.known() == whole.known()


def test_a_worker_without_a_snapshot_begins_at_the_beginning(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    assert (worker.starts(), worker.begun_at) == ([], 0)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"model": "cd" * 32}, "of model"),
        ({"cluster_id": "another one"}, "not of this one"),
        ({"end": 4}, "ahead of Kafka"),
        ({"end": 9, "begins": 6}, "not in Kafka any more"),
    ],
)
def test_a_foreign_snapshot_is_refused_and_nothing_of_it_is_known(
    tmp_path: Path, other: dict[str, Any], why: str
) -> None:
    first = Worker.that_starts(tmp_path)
    first.applies(RECORDS)
    first.saves()
    second = Worker(tmp_path, **other)
    (reason,) = second.starts()
    assert why in reason
    assert "read from Kafka" in reason
    assert (second.begun_at, second.generation.gallery.templates, len(second.generation.ledger)) == (0, 0, 0)


def test_a_damaged_snapshot_is_refused_whichever_bit_is_wrong(tmp_path: Path) -> None:
    first = Worker.that_starts(tmp_path)
    first.applies(RECORDS)
    first.saves()
    files = sorted(path for path in (tmp_path / GALLERY).iterdir())
    assert {path.suffix for path in files} == {".json", ".segment", ".beside"}
    for path in files:
        good = path.read_bytes()
        flipped = bytearray(good)
        flipped[len(good) // 2] ^= 1
        for damaged in (good[:-2], bytes(flipped)):
            path.write_bytes(damaged)
            second = Worker(tmp_path)
            assert len(second.starts()) == 1, f"{path.name} is damaged"
            assert (second.begun_at, second.generation.gallery.templates) == (0, 0)
        path.write_bytes(good)
    assert Worker(tmp_path).starts() == []


def test_what_stands_beside_the_gallery_must_say_what_it_is_of(tmp_path: Path) -> None:
    first = Worker.that_starts(tmp_path)
    first.applies(RECORDS)
    for beside in ({}, {"about": b"no JSON"}, {"about": json.dumps({"topic": GALLERY}).encode()}):
        first.generation.gallery.save(tmp_path / GALLERY, first.generation.gallery.state, beside)
        assert len(Worker(tmp_path).starts()) == 1


def test_a_snapshot_is_only_written_when_something_was_applied(tmp_path: Path) -> None:
    worker = Worker.that_starts(tmp_path)
    worker.applies(RECORDS)
    with capture_logs() as said:
        worker.saves()
        worker.saves()
    assert [line["event"] for line in said].count("snapshot written") == 1


def test_a_disk_that_is_full_costs_a_snapshot_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker.that_starts(tmp_path)
    worker.applies(RECORDS[:2])
    worker.saves()
    worker.applies(RECORDS[2:])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, capture_logs() as said:
        patched.setattr(worker.generation.gallery, "save", full)
        worker.saves()
    assert [line["reason"] for line in said if line["event"] == "snapshot not written"] == ["No space left on device"]
    assert Worker(tmp_path).starts() == []
    second = Worker(tmp_path)
    second.starts()
    assert second.begun_at == 2, "the snapshot before is whole"


def test_while_kafka_is_away_no_snapshot_is_believed_or_refused(tmp_path: Path) -> None:
    first = Worker.that_starts(tmp_path)
    first.applies(RECORDS)
    first.saves()
    second = Worker(tmp_path)
    second.log.is_away = True
    with pytest.raises(TransientError):
        second.starts()


def test_a_snapshot_whose_counting_record_was_erased_by_compaction_is_refused(tmp_path: Path) -> None:
    """G5: it was to be put at the end again, behind a late repeat, and compaction was quicker."""
    first = Worker.that_starts(tmp_path)
    first.applies(RECORDS[:4])
    first.saves()
    second = Worker(tmp_path)
    second.compacted = {2}
    (reason,) = second.starts()
    assert "not in Kafka any more" in reason


def test_the_snapshot_of_a_generation_that_is_kept_no_more_is_removed(tmp_path: Path) -> None:
    """What was withdrawn since would stay in it for ever."""
    first = Worker.that_starts(tmp_path)
    first.applies(RECORDS)
    first.saves()
    (tmp_path / GALLERY).rename(tmp_path / f"{GALLERY}.another")
    Worker.that_starts(tmp_path)
    assert list(tmp_path.iterdir()) == []
    second = Worker.that_starts(tmp_path)
    second.applies(RECORDS)
    second.saves()
    second.replica.directory.removed_generations.add(GALLERY)
    second.saves()
    assert list(tmp_path.iterdir()) == []


def test_what_was_withdrawn_leaves_the_snapshots_of_a_worker_that_runs(tmp_path: Path) -> None:
    """In every file: the segment that held it is made anew, and the old one is removed."""
    worker = Worker(tmp_path, every_s=0.01, sizes=Sizes(withdrawn_share=1.1))
    worker.starts()
    worker.applies(RECORDS[:2])
    worker.saves()
    enrolled: Any = decode(RECORDS[0].value)
    template = enrolled.captures[0].template

    def is_there() -> bool:
        try:
            return any(template in path.read_bytes() for path in (tmp_path / GALLERY).iterdir())
        except FileNotFoundError:
            return True  # It was removed while they were read; look again.

    assert is_there()
    worker.applies(RECORDS[2:3])
    worker.saves()
    assert is_there(), "it is only filtered out"

    async def run_until_gone() -> None:
        async with asyncio.timeout(60), worker.snapshots:
            while is_there():  # noqa: ASYNC110 - a folder sends no events
                await asyncio.sleep(0.01)

    asyncio.run(run_until_gone())
    second = Worker(tmp_path)
    assert (second.starts(), second.begun_at, second.generation.gallery.templates) == ([], 3, 1)
