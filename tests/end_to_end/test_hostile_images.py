"""Every kind of image on the real road, as a capture of a booking and as a probe: enrolled and found, or refused (G12).

One booking holds all of them. What the decoder does with each in detail: `tests/component/test_image_decoder.py`.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import builders
import cv2
import numpy as np
import pytest
from bureaus import INVESTIGATOR, JAIL, LIMIT_S, ORI, REQUEST, Bureau, until
from PIL import Image, ImageOps

from connectors.bookings import Published
from connectors.kafka_log import KafkaLog
from connectors.publishing import SignedPublisher
from connectors.signing_keys import SigningKey
from infra import wiring
from schemas.codec import decode
from schemas.events import (
    BookingOutcome,
    BookingProcessed,
    CandidateListIssued,
    Capture,
    CaptureKind,
    Pose,
    ProbeRefused,
    TemplatesEnrolled,
)
from schemas.keys import booking_key, booking_scope, partition_of, probe_scope
from schemas.topics import GALLERY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from schemas.events import BookingRecorded

NUMBER = "IMAGES"
BOMB_SIDE_PX = 30_000
MAX_GROWTH_BYTES = 300_000_000
"""Far below the 2.7 GB that the bomb would take as pixels; decoding all the others beside it takes some."""
ORIENTATION = 0x0112
# How to turn an upright picture so that a reader who obeys the tag sees it upright (Exif 2.32, 4.6.4 Orientation).
TURNED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def written(image: Image.Image, image_format: str, **how: object) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **how)
    return out.getvalue()


def turned(face: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    how = TURNED[orientation]
    return written(face if how is None else face.transpose(how), "PNG", exif=exif)


def deep_colour_png(face: Image.Image) -> bytes:
    wide = np.asarray(face)[:, :, ::-1].astype(np.uint16) * 257
    return cv2.imencode(".png", wide)[1].tobytes()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb() -> bytes:
    """A true PNG of 30,000 x 30,000 black pixels in a hundred kilobytes."""
    row = bytes(1 + BOMB_SIDE_PX // 8)
    packer = zlib.compressobj(1)
    rows = b"".join([packer.compress(row * 1000) for _ in range(BOMB_SIDE_PX // 1000)]) + packer.flush()
    header = struct.pack(">IIBBBBB", BOMB_SIDE_PX, BOMB_SIDE_PX, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def beside(face: Image.Image, other: Image.Image) -> bytes:
    both = Image.new("RGB", (2 * face.width, face.height))
    both.paste(face)
    both.paste(other.resize(face.size), (face.width, 0))
    return written(both, "JPEG", quality=95)


def truncated(face: Image.Image, _: Image.Image) -> bytes:
    whole = written(face, "JPEG", quality=95)
    return whole[: len(whole) // 2]


GOOD: dict[str, Callable[[Image.Image, Image.Image], bytes]] = {
    "CMYK JPEG": lambda face, _: written(face.convert("CMYK"), "JPEG", quality=95),
    "16-bit colour PNG": lambda face, _: deep_colour_png(face),
    "16-bit grey PNG": lambda face, _: written(
        Image.fromarray(np.asarray(face.convert("L")).astype(np.uint16) * 257), "PNG"
    ),
    "several pictures in one JPEG (MPO)": lambda face, other: written(
        face, "MPO", save_all=True, append_images=[other], quality=95
    ),
    "transparent PNG": lambda face, _: written(face.convert("RGBA"), "PNG"),
    "JPEG 2000": lambda face, _: written(face, "JPEG2000"),
    **{
        f"EXIF orientation {orientation}": lambda face, _, orientation=orientation: turned(face, orientation)  # type: ignore[misc]  # a default binds the loop's value
        for orientation in TURNED
    },
}
BAD: dict[str, tuple[str, Callable[[Image.Image, Image.Image], bytes]]] = {
    "empty file": ("UNDECODABLE", lambda *_: b""),
    "text named .jpg": ("UNDECODABLE", lambda *_: b"I am no photo, whatever my name says.\n"),
    "truncated JPEG": ("UNDECODABLE", truncated),
    "GIF": ("UNDECODABLE", lambda face, _: written(face, "GIF")),
    "animated PNG": (
        "UNDECODABLE",
        lambda face, other: written(face, "PNG", save_all=True, append_images=[other.resize(face.size)]),
    ),
    "PNG of 30,000 x 30,000": ("IMAGE_TOO_LARGE", lambda *_: bomb()),
    "no face": ("NO_FACE", lambda face, _: written(Image.new("RGB", face.size, "grey"), "JPEG")),
    "two faces": ("SEVERAL_FACES", beside),
}
STORED: dict[str, str] = {
    "a reference to nothing": "REFERENCE_UNRESOLVED",
    "a reference into another booking": "REFERENCE_UNRESOLVED",
    "a reference that is a path": "REFERENCE_UNRESOLVED",
    "another digest": "DIGEST_MISMATCH",
}


@dataclass(frozen=True, slots=True)
class Book:
    """The one booking, what was in it and what came of it."""

    images: dict[str, bytes]
    captures: dict[str, UUID]
    answer: BookingProcessed
    enrolled: TemplatesEnrolled
    grown_bytes: int
    """By how much the worker's largest memory grew."""

    def code(self, name: str) -> tuple[str, str | None]:
        (outcome,) = (each for each in self.answer.captures if each.capture_id == self.captures[name])
        return outcome.disposition, outcome.code

    def template(self, name: str) -> bytes:
        (capture,) = (each for each in self.enrolled.captures if each.capture_id == self.captures[name])
        return capture.template


def largest_memory_bytes(bureau: Bureau) -> int:
    """Return the largest memory of the worker and of each of its extraction processes, together."""
    facts = bureau.folder.announced("worker-1")
    assert facts is not None
    tasks = Path(f"/proc/{facts['pid']}/task").iterdir()
    children = [child for task in tasks for child in (task / "children").read_text().split()]
    assert len(children) == bureau.settings.extraction_processes
    return sum(map(largest_memory_of_process, [str(facts["pid"]), *children]))


def largest_memory_of_process(pid: str) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as status:  # noqa: PTH123 - not a file of ours
        (line,) = (line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def stored_capture(bureau: Bureau, data: bytes) -> Capture:
    """Store what the SDK would not take."""
    capture_id = uuid4()
    stored = wiring.object_store(bureau.settings).put(booking_scope(ORI, NUMBER), str(capture_id), data)
    return Capture(
        capture_id=capture_id,
        kind=CaptureKind.FACE,
        pose=Pose.FRONTAL,
        source="BOOKING_CAPTURE",
        reference=stored.reference,
        sha256=stored.sha256,
        size_bytes=len(data),
        media_type="image/jpeg",
    )


def publish(bureau: Bureau, booking: BookingRecorded) -> BookingProcessed:
    key = SigningKey.load(bureau.folder.publisher_key(JAIL))
    with SignedPublisher(bureau.config, key) as publisher, bureau.jail() as jail:
        position = publisher.publish(booking)
        return jail.await_outcome(Published(position=position, event_id=booking.event_id, answers_from=0), LIMIT_S)


def templates_of(bureau: Bureau, number: str) -> TemplatesEnrolled:
    log = KafkaLog(bureau.config)
    partition = partition_of(GALLERY, booking_key(ORI, number).encode())
    end = log.end_offsets([GALLERY])[GALLERY, partition]
    events = [decode(record.value) for record in log.read(GALLERY, partition, 0, end)]
    return [event for event in events if isinstance(event, TemplatesEnrolled) and event.booking_number == number][-1]


@pytest.fixture(scope="module")
def book(bureau: Bureau, photos: dict[str, bytes]) -> Iterator[Book]:
    """Book every image at once; take it out of the gallery afterwards, which others share."""
    face, other = (
        ImageOps.exif_transpose(Image.open(io.BytesIO(photos[name]))).convert("RGB") for name in ("A1", "B1")
    )
    images = {name: make(face, other) for name, make in GOOD.items()}
    images |= {name: make(face, other) for name, (_, make) in BAD.items()}
    captures = {name: stored_capture(bureau, data) for name, data in images.items()}
    plain = stored_capture(bureau, photos["A1"])
    elsewhere = wiring.object_store(bureau.settings).put("booking/CA0190000/NOT-MINE", "photo", photos["A1"])
    captures |= {
        "a reference to nothing": replace(plain, capture_id=uuid4(), reference=f"{plain.reference}-not-there"),
        "a reference into another booking": replace(plain, capture_id=uuid4(), reference=elsewhere.reference),
        "a reference that is a path": replace(plain, capture_id=uuid4(), reference="file:///etc/passwd"),
        "another digest": replace(plain, capture_id=uuid4(), sha256=sha256(b"another").hexdigest()),
    }
    with bureau.jail() as jail:
        empty = jail.store_booking(booking_number=NUMBER, booked_at=wiring.now(), photos=[], sid=NUMBER)
    before = largest_memory_bytes(bureau)
    answer = publish(bureau, replace(empty, captures=tuple(captures.values())))
    yield Book(
        images,
        {name: capture.capture_id for name, capture in captures.items()},
        answer,
        templates_of(bureau, NUMBER),
        largest_memory_bytes(bureau) - before,
    )
    with bureau.jail() as jail:
        published = jail.publish_booking(booking_number=NUMBER, booked_at=wiring.now(), photos=[], sid=NUMBER)
        assert jail.await_outcome(published, LIMIT_S).outcome is BookingOutcome.NOT_ENROLLED


def search(bureau: Bureau, image: bytes) -> CandidateListIssued | ProbeRefused:
    with bureau.investigator() as investigator:
        return investigator.await_outcome(investigator.submit(image, **REQUEST), LIMIT_S)


def test_a_booking_with_bad_images_is_enrolled_with_its_good_ones(book: Book) -> None:
    assert book.answer.outcome is BookingOutcome.ENROLLED
    assert len(book.answer.captures) == len(GOOD) + len(BAD) + len(STORED)
    assert len(book.enrolled.captures) == len(GOOD)


@pytest.mark.parametrize("name", GOOD)
def test_an_unusual_image_is_enrolled_and_searched_with(name: str, book: Book, bureau: Bureau) -> None:
    assert book.code(name) == ("ENROLLED", None)
    outcome = search(bureau, book.images[name])
    assert isinstance(outcome, CandidateListIssued)
    assert outcome.candidates[0].person == f"sid:{NUMBER}"


@pytest.mark.parametrize("orientation", TURNED)
def test_a_turned_photo_gives_the_very_template_of_the_upright_one(orientation: int, book: Book) -> None:
    """G7: the pixels are the same once the tag is obeyed, so the template is, byte for byte."""
    assert book.template(f"EXIF orientation {orientation}") == book.template("EXIF orientation 1")


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_refused_with_its_code(name: str, book: Book, bureau: Bureau) -> None:
    code = BAD[name][0]
    assert book.code(name) == ("REFUSED", code)
    if not book.images[name]:
        return  # Nobody can submit nothing as a probe: the client says so.
    outcome = search(bureau, book.images[name])
    assert isinstance(outcome, ProbeRefused)
    assert outcome.code == code


@pytest.mark.parametrize("name", STORED)
def test_a_photo_that_cannot_be_had_as_described_is_refused(name: str, book: Book) -> None:
    assert book.code(name) == ("REFUSED", STORED[name])


def test_a_huge_image_is_refused_before_anything_is_allocated_for_it(book: Book) -> None:
    assert book.grown_bytes < MAX_GROWTH_BYTES


def test_a_probe_whose_image_is_not_the_one_it_describes_is_refused(bureau: Bureau, photos: dict[str, bytes]) -> None:
    facts = {"actor": f"user:{INVESTIGATOR}", "user_id": INVESTIGATOR, "ori": ORI, **REQUEST}
    objects = wiring.object_store(bureau.settings)
    key = SigningKey.load(bureau.folder.user_key(INVESTIGATOR))
    with SignedPublisher(bureau.config, key) as publisher, bureau.investigator() as investigator:
        for name, code in (("nothing", "REFERENCE_UNRESOLVED"), ("other", "DIGEST_MISMATCH")):
            probe_id = uuid4()
            stored = objects.put(probe_scope(probe_id), "image", photos["A2"])
            reference = stored.reference if name == "other" else f"{stored.reference}-not-there"
            request = builders.probe_submitted(
                name,
                **facts,
                probe_id=probe_id,
                image_reference=reference,
                image_sha256=sha256(b"another").hexdigest(),
                original_sha256=sha256(b"another").hexdigest(),
            )
            publisher.publish(request)

            outcome = until(lambda asked=probe_id: investigator.find_outcome(asked), "the probe has its outcome")
            assert isinstance(outcome, ProbeRefused)
            assert outcome.code == code
