"""After an expungement: its images cannot be read again, and no byte of them or of its templates is left on any disk.

What a day has room for in production happens in seconds here: the gallery topic is told to compact at once, and the
worker to keep nothing that was withdrawn.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bureaus import LIMIT_S, ORI, REQUEST, Bureau, new_bureau, until
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from connectors.bookings import Fingerprint, OriginalFile, Photo
from connectors.kafka_log import KafkaLog
from infra import cli, wiring
from infra.local_system import LocalSystem
from schemas.codec import decode
from schemas.errors import DomainFault
from schemas.events import BookingOutcome, BookingRecorded, CandidateListIssued, TemplatesEnrolled
from schemas.keys import booking_key, booking_scope, partition_of
from schemas.topics import GALLERY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.bookings import Published
    from infra.brokers import Kind

pytestmark = pytest.mark.kafka
NUMBER = "ERASE-A"
OTHERS = [f"KEEP-B{number}" for number in range(7)]
"""So many that a worker makes no new segment for the sake of one that is gone."""
AT_ONCE = {
    "segment.ms": "50",
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "100",
    "min.cleanable.dirty.ratio": "0.01",
    "file.delete.delay.ms": "0",
}
CLEANER = {"log.cleaner.backoff.ms": "200"}
PIECE_BYTES = 32
FINGERPRINT, ORIGINAL = os.urandom(3000), os.urandom(3000)


def configure(bureau: Bureau, kind: ResourceType, name: str, config: dict[str, str]) -> None:
    entries = [ConfigEntry(each, value, incremental_operation=AlterConfigOpType.SET) for each, value in config.items()]
    resource = ConfigResource(kind, name, incremental_configs=entries)
    admin = AdminClient(bureau.config)
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(LIMIT_S)


def pieces(*secrets: bytes) -> list[bytes]:
    """Cut what must be nowhere into pieces, so that a part of it that lies anywhere is found too."""
    return [secret[at : at + PIECE_BYTES] for secret in secrets for at in range(0, len(secret) - PIECE_BYTES, 1024)]


def written(path: Path) -> Iterator[bytes]:
    """Yield what was written to a file, without the holes; Kafka's indexes are nearly nothing else."""
    with path.open("rb") as file:
        at, end = 0, file.seek(0, os.SEEK_END)
        while at < end:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return  # Nothing but a hole.
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            file.seek(start)
            yield file.read(at - start)


def files_with(folder: Path, wanted: list[bytes]) -> list[Path]:
    """Return the files below a folder that hold any of these."""
    found = []
    # Folders come and go meanwhile; os.walk takes that, and pathlib does not.
    for path in (Path(root, name) for root, _, names in os.walk(folder) for name in names):
        try:
            if any(piece in content for content in written(path) for piece in wanted):
                found.append(path.relative_to(folder))
        except FileNotFoundError:
            continue  # Removed while we looked.
    return found


def book(bureau: Bureau, photos: dict[str, bytes]) -> Published:
    """Book everybody; return where the booking stands that will be expunged."""
    with bureau.jail() as jail:
        published = jail.publish_booking(
            booking_number=NUMBER,
            booked_at=wiring.now(),
            photos=[Photo(data=photos["A1"])],
            fingerprints=[Fingerprint(data=FINGERPRINT)],
            originals=[OriginalFile(data=ORIGINAL)],
        )
        others = [
            jail.publish_booking(booking_number=number, booked_at=wiring.now(), photos=[Photo(data=photos["B1"])])
            for number in OTHERS
        ]
        answers = list(jail.await_outcomes([published, *others], LIMIT_S))
    assert [answer.outcome for answer in answers] == [BookingOutcome.ENROLLED] * (1 + len(OTHERS))
    return published


def template_of(bureau: Bureau, number: str) -> bytes:
    partition = partition_of(GALLERY, booking_key(ORI, number).encode())
    log = KafkaLog(bureau.config)
    for record in log.read(GALLERY, partition, 0, log.end_offsets([GALLERY])[GALLERY, partition]):
        event = decode(record.value)
        if isinstance(event, TemplatesEnrolled) and event.booking_number == number:
            return event.captures[0].template
    raise AssertionError(number)


def persons(bureau: Bureau, photo: bytes) -> list[str]:
    with bureau.investigator() as investigator:
        outcome = investigator.await_outcome(investigator.submit(photo, **REQUEST), LIMIT_S)
    assert isinstance(outcome, CandidateListIssued)
    return [candidate.booking_number for candidate in outcome.candidates]


def test_nothing_of_an_expunged_booking_is_left_on_any_disk(
    tmp_path: Path,
    photos: dict[str, bytes],
    broker_kind: Kind,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """G5, G10: Kafka, snapshots, object store, audit trail and logs, with everything running."""
    monkeypatch.setenv("LEADSTREAM_SNAPSHOT_EVERY_S", "0.5")
    monkeypatch.setenv("LEADSTREAM_WITHDRAWN_KEPT_S", "0.5")
    bureau = new_bureau(tmp_path / "data")
    data = bureau.settings.data
    with LocalSystem(bureau.settings, broker=broker_kind):
        configure(bureau, ResourceType.TOPIC, GALLERY, AT_ONCE)
        configure(bureau, ResourceType.BROKER, "1", CLEANER)
        bureau.found()
        published = book(bureau, photos)
        assert persons(bureau, photos["A2"])[0] == NUMBER
        secret = template_of(bureau, NUMBER)
        template = [secret[at : at + PIECE_BYTES] for at in range(0, len(secret), PIECE_BYTES)]
        template += [piece.hex().encode() for piece in template]
        images = pieces(photos["A1"], FINGERPRINT, ORIGINAL)

        def places() -> set[str]:
            return {path.parts[0] for path in files_with(data, template)}

        until(lambda: places() == {"kafka", "workers"}, "the scan finds the template in Kafka and in a snapshot")
        (control := data / "control").write_bytes(b"..." + photos["A1"])
        assert list(map(str, files_with(data, images))) == ["control"], (
            "the scan finds a photo that is not encrypted, and no other"
        )
        control.unlink()

        order = ["--ori", ORI, "--booking-number", NUMBER, "--statute", "CA PC 851.8", "--court", "Superior Court"]
        capsys.readouterr()
        assert cli.run(["order", "expunge", *order, "--number", "E-1", "--json", "--data", str(data)]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert (answer["outcome"], answer["effect"], answer["code"]) == ("WITHDRAWN", "WITHDRAW_AND_MASK", None)

        booking = decode(KafkaLog(bureau.config).record_at(*_place(published)).value)
        assert isinstance(booking, BookingRecorded)
        assert len(booking.captures) == 3
        objects = wiring.object_store(bureau.settings)
        for capture in booking.captures:
            with pytest.raises(DomainFault) as fault:
                objects.get(capture.reference, capture.sha256, scope=booking_scope(ORI, NUMBER))
            assert fault.value.code == "KEY_DESTROYED"

        producer = Producer(bureau.config)
        partition = partition_of(GALLERY, booking_key(ORI, NUMBER).encode())

        def gone() -> bool:
            # Kafka compacts no segment that it still writes to. A day of work closes it; here, a record nobody reads.
            producer.produce(GALLERY, b"-", b"-", partition=partition)
            assert producer.flush(LIMIT_S) == 0
            return not files_with(data, template)

        until(gone, "no file holds a piece of the template")
        assert files_with(data, template + images) == []
        assert sorted(persons(bureau, photos["B2"])) == OTHERS, "and the others are still there"


def _place(published: Published) -> tuple[str, int, int]:
    return published.position.topic, published.position.partition, published.position.offset
