"""Measure the booking path: bare models beside the whole road from booking event to template event, and probes on it.

The road is the real one: a broker, a worker and, while probes are measured, the audit sink, each a process of its own.
Bare loop and road take turns on the same images, so that whatever else the machine does meets them alike. The queue of
bookings stands in Kafka before the worker is started, so that who publishes takes nothing from who works; rates are
from the times that Kafka's records carry.

Probes come at random moments whatever becomes of those before them (an open loop), and their time runs from the moment
at which they were due, so that a stall is not left out. Their images are in the object store before.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import struct
import tempfile
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Self, cast
from uuid import UUID, uuid4

import numpy as np
from confluent_kafka import Consumer, TopicPartition
from PIL import Image, ImageOps

from connectors.access import AccessAdministration
from connectors.bookings import BookingPublisher, Photo
from connectors.face_extractor import FaceExtractor
from connectors.faiss_gallery import FaissGallery
from connectors.kafka_log import KafkaLog
from connectors.key_custody import FileMasterKey
from connectors.object_store import ObjectStore
from connectors.publishing import SignedPublisher
from connectors.signing_keys import SigningKey
from infra import assets, bench_population, roles, wiring
from infra.data_folder import DataFolder, initialise
from infra.extracting import find_recipe
from infra.local_system import LocalSystem
from infra.settings import SETTINGS_FILE
from processors.access import ROOT_ADMINISTRATOR, Role
from processors.extraction import ExtractedFace
from processors.model_card import model_digest
from processors.quantiser import codebook_for
from processors.synthetic import synthetic_templates
from schemas.codec import decode
from schemas.errors import IntegrityError, TransientError, UsageError
from schemas.events import BookingOutcome, BookingProcessed, CandidateListIssued, ProbeSubmitted, TemplatesEnrolled
from schemas.keys import probe_scope
from schemas.positions import derived_id
from schemas.topics import BOOKING_OUTCOMES, GALLERY, PROBE_OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from multiprocessing.synchronize import Barrier

    from infra.bench_search import Report, Tell
    from infra.brokers import Kind
    from infra.settings import Settings
    from processors.model_card import ModelCard
    from schemas.events import BookingRecorded, ProbeRefused

    Spoil = Callable[[BookingRecorded], BookingRecorded]

WIDTH_PX, HEIGHT_PX = 480, 600
LOADS = (10, 50, 80)
"""Shares of what the road can answer at most, in per cent."""
_JAIL, _AGENCY, _USER, _WORKER = "bench-jail", "CABENCH01", "b.bench", roles.DEFAULT_WORKER
_QUALITY = 92
_MOST_PHOTOS = 200
_BOMB_SIDE_PX = 30_000
_HOSTILE_EVERY = 10
_WARM_UP = 100
_UPLOADS_AT_ONCE = 8
_PROBES_AT_ONCE = 16
_SEED = 20_261_124
_LIMIT_S = 900.0
_ANSWER_LIMIT_S = 60.0
_POLL_S = 0.1
_MS = 1e3
_BYTES_PER_MB = 1e6
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineBench:
    """What to measure."""

    settings: Settings
    """Of which only the model pack, the limits and the number of processes are used."""
    broker: Kind
    photos: Path | None
    """Folder of photos; None: the sample photos."""
    bookings: int
    """In the queue of each turn, one photo each."""
    turns: int
    queue: int
    """A longer queue, for its memory; 0: none."""
    probes: int
    """At each load; 0: none."""
    bare_s: float
    """How long the bare loop runs in each turn."""

    def run(self, progress: Tell) -> Report:
        """Measure everything."""
        recipe = find_recipe(None, self.settings)
        card, pack_dir = recipe.card, recipe.pack_dir
        faces = FaceExtractor(card, pack_dir)
        images = _good_images(faces, self.photos, self.settings)
        with tempfile.TemporaryDirectory(prefix="leadstream-bench-") as name:
            settings = self.settings.model_copy(update={"data": Path(name) / "data"})
            initialise(DataFolder(settings.data))
            folder = DataFolder(settings.data)
            ObjectStore(folder.objects, FileMasterKey.load(folder.master_key))
            (settings.data / SETTINGS_FILE).write_text(_as_toml(settings), encoding="utf-8")
            with LocalSystem(settings, broker=self.broker) as system:
                bureau = _Bureau(settings, system)
                bureau.found()
                report: Report = {
                    "broker": self.broker,
                    "processes": settings.extraction_processes,
                    "images": len(images),
                    "image_bytes_mean": round(sum(map(len, images)) / len(images)),
                }
                with bureau.backlog(images, min(_WARM_UP, self.bookings)):
                    pass  # Everything was done once, and somebody is in the gallery.
                report |= self._probed(bureau, faces, images, progress)
                # The trail is not on the road of a booking.
                bureau.stop(roles.SINK)
                bureau.stop(_WORKER)
                return report | self._worked(bureau, card, pack_dir, images, progress)

    def _worked(
        self, bureau: _Bureau, card: ModelCard, pack_dir: Path, images: Sequence[bytes], progress: Tell
    ) -> Report:
        """Bare loop and road in turn, the stream with hostile images before the last of them; then the long queue."""
        bare: list[float] = []
        clean: list[_Turn] = []
        for turn in range(self.turns):
            if turn == self.turns - 1:
                hostile = bureau.work_through(bureau.booked(images, self.bookings, hostile_every=_HOSTILE_EVERY))
            progress("bare loop and road", turn, self.turns)
            bare.append(_bare_rate(card, pack_dir, images, self.settings.extraction_processes, self.bare_s))
            clean.append(bureau.work_through(bureau.booked(images, self.bookings)))
        bare.append(_bare_rate(card, pack_dir, images, self.settings.extraction_processes, self.bare_s))
        progress("bare loop and road", self.turns, self.turns)
        processes = self.settings.extraction_processes
        # Each turn of the road lies between two of the bare loop.
        ratios = [
            turn.templates_s / ((before + after) / 2)
            for turn, before, after in zip(clean, bare[:-1], bare[1:], strict=True)
        ]
        rate = median(turn.templates_s for turn in clean)
        report: Report = {
            "bookings": self.bookings,
            "turns": self.turns,
            "bare_templates_s": _rounded(median(bare)),
            "bare_templates_s_core": _rounded(median(bare) / processes),
            "road_templates_s": _rounded(rate),
            "road_templates_s_core": _rounded(rate / processes),
            "road_over_bare": _rounded(median(ratios)),
            "road_over_bare_least": _rounded(min(ratios)),
            "road_over_bare_most": _rounded(max(ratios)),
            **{f"cpu_ms_a_booking_{who}": _rounded(median(t.cpu_ms[who] for t in clean)) for who in clean[0].cpu_ms},
        }
        report |= {
            "hostile_share": _rounded(hostile.hostile / hostile.bookings),
            "hostile_refused": hostile.refused,
            "hostile_sent": hostile.hostile,
            "hostile_good_templates_s": _rounded(hostile.templates_s),
            "hostile_over_clean": _rounded(hostile.templates_s / clean[-1].templates_s),
            "peak_mb_of_queue": _rounded(median(turn.peak_mb for turn in clean)),
        }
        if self.queue:
            progress("long queue", 0, 1)
            long = bureau.work_through(bureau.booked(images, self.queue))
            progress("long queue", 1, 1)
            report |= {
                "long_queue": self.queue,
                "long_queue_templates_s": _rounded(long.templates_s),
                "peak_mb_of_long_queue": _rounded(long.peak_mb),
            }
        return report

    def _probed(self, bureau: _Bureau, faces: FaceExtractor, images: Sequence[bytes], progress: Tell) -> Report:
        if not self.probes:
            return {}
        extraction, search = _bare_times(faces, images, bureau.templates())
        bare = extraction + search
        report: Report = {
            "bare_extraction_p50_ms": _rounded(extraction * _MS),
            "bare_search_p50_ms": _rounded(search * _MS),
            "bare_sum_p50_ms": _rounded(bare * _MS),
        }
        steps = len(LOADS) + 2
        progress("probes", 0, steps)
        with _Probing(bureau) as probing:
            capacity = probing.capacity(images, self.probes)
            report["probes_s_at_most"] = _rounded(capacity)
            for number, load in enumerate(LOADS, 1):
                progress("probes", number, steps)
                latencies = probing.latencies(images, self.probes, capacity * load / 100)
                for percentile in (50, 99):
                    value = float(np.percentile(latencies, percentile))
                    report[f"probe_p{percentile}_ms_at_{load}"] = _rounded(value * _MS)
                    report[f"probe_p{percentile}_over_bare_at_{load}"] = _rounded(value / bare)
            progress("probes", steps - 1, steps)
            with bureau.backlog(images, self.bookings):
                latencies = probing.latencies(images, max(1, self.probes // 10), capacity / 10)
            report |= {
                f"probe_p{percentile}_ms_in_a_backlog": _rounded(float(np.percentile(latencies, percentile)) * _MS)
                for percentile in (50, 99)
            }
        progress("probes", steps, steps)
        return report


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """What came of one queue."""

    bookings: int
    hostile: int
    refused: int
    """Hostile ones that have a refusal with a code."""
    templates_s: float
    peak_mb: float
    """Largest memory of the worker and of each of its extraction processes, together."""
    cpu_ms: Mapping[str, float]
    """Processor time a booking: of the worker, of its extraction processes, of the broker."""


@dataclass(frozen=True, slots=True)
class _Queue:
    events: Sequence[BookingRecorded]
    hostile: frozenset[UUID]
    """Event ids."""


class _Bureau:
    """An agency with a jail and an investigator, on a running system."""

    def __init__(self, settings: Settings, system: LocalSystem) -> None:
        self._settings = settings
        self._system = system
        self._folder = DataFolder(settings.data)
        self.config = {**wiring.kafka_config(settings), "linger.ms": 0}
        self.objects = wiring.object_store(settings)
        self.log = KafkaLog(self.config)
        self._numbers = iter(range(1_000_000_000))

    def found(self) -> None:
        """Register everybody."""
        administrator = SigningKey.load(self._folder.user_key(ROOT_ADMINISTRATOR))
        jail = SigningKey.create(self._folder.publisher_key(_JAIL))
        person = SigningKey.create(self._folder.user_key(_USER))
        policy, at = wiring.policy(self._settings), wiring.now()
        with SignedPublisher(self.config, administrator) as publisher:
            acts = AccessAdministration(publisher, f"user:{ROOT_ADMINISTRATOR}")
            acts.register_agency(ori=_AGENCY, name="Agency of a measurement")
            acts.register_publisher(
                publisher_id=_JAIL, ori=_AGENCY, public_key=jail.public_key, may_publish=("BookingRecorded",)
            )
            acts.register_user(
                user_id=_USER, display_name=_USER, ori=_AGENCY, roles=(Role.SUBMITTER,), public_key=person.public_key
            )
            acts.grant(user_id=_USER, reason="measurement")
            for course in policy.users.courses:
                acts.record_training(
                    user_id=_USER,
                    course=course,
                    course_version="1",
                    material_sha256="0" * 64,
                    approved_by=ROOT_ADMINISTRATOR,
                    completed_at=at - timedelta(days=1),
                    expires_at=at + timedelta(days=1),
                )
        with SignedPublisher(self.config, person) as publisher:
            acts = AccessAdministration(publisher, f"user:{_USER}")
            for agreement, version in policy.users.agreements.items():
                acts.record_agreement(
                    user_id=_USER, agreement=agreement, agreement_version=version, document_sha256="0" * 64
                )

    @contextmanager
    def speaking(self, key: Path) -> Iterator[SignedPublisher]:
        """Publish with somebody's key."""
        with SignedPublisher(self.config, SigningKey.load(key)) as publisher:
            yield publisher

    @property
    def person(self) -> Path:
        """The investigator's key."""
        return self._folder.user_key(_USER)

    def stop(self, role: str) -> None:
        """Stop a role, as an operator does."""
        self._system.children.pop(role).stop(_ANSWER_LIMIT_S)

    def booked(self, images: Sequence[bytes], count: int, *, hostile_every: int = 0) -> _Queue:
        """Store photos and return the bookings that name them; every so many are hostile."""
        wrong = list(_hostile_images(images)) if hostile_every else []

        def one(place: int) -> tuple[BookingRecorded, bool]:
            number = f"BENCH-{next(self._numbers)}"
            is_hostile = bool(wrong) and place % hostile_every == 0
            image, spoil = images[place % len(images)], None
            if is_hostile:
                image, spoil = wrong[place // hostile_every % len(wrong)]
            stored = jail.store_booking(
                booking_number=number, booked_at=wiring.now(), photos=[Photo(data=image)], synthetic=True
            )
            return spoil(stored) if spoil else stored, is_hostile

        with self.speaking(self._folder.publisher_key(_JAIL)) as publisher:
            jail = BookingPublisher(publisher, self.objects, _JAIL, _AGENCY)
            with ThreadPoolExecutor(_UPLOADS_AT_ONCE) as threads:
                made = list(threads.map(one, range(count)))
        return _Queue([event for event, _ in made], frozenset(event.event_id for event, hostile in made if hostile))

    @contextmanager
    def backlog(self, images: Sequence[bytes], count: int) -> Iterator[None]:
        """Give the worker so many bookings; wait afterwards until they are answered."""
        queue, before = self.booked(images, count), self._ends(BOOKING_OUTCOMES)
        self._publish(queue)
        yield
        self._await_outcomes(sum(before.values()) + count)

    def templates(self) -> int:
        """Return how many gallery records there are."""
        return sum(self._ends(GALLERY).values())

    def work_through(self, queue: _Queue) -> _Turn:
        """Put a queue in Kafka, start the worker, wait until everything is answered, and stop it again.

        Raises:
            IntegrityError: a booking was not answered as it should be.
        """
        gallery, outcomes = self._ends(GALLERY), self._ends(BOOKING_OUTCOMES)
        self._publish(queue)
        self._system.start_role(_WORKER, "worker", "--name", _WORKER)
        self._system.wait_until_ready(_WORKER)
        pid = self._system.children[_WORKER].pid
        who = {"worker": [pid], "extraction": _children(pid), "broker": [self._system.broker.pid]}
        spent = {name: sum(map(_cpu_s, pids)) for name, pids in who.items()}
        self._await_outcomes(sum(outcomes.values()) + len(queue.events))
        spent = {name: sum(map(_cpu_s, pids)) - spent[name] for name, pids in who.items()}
        peak = sum(map(_peak_bytes, [*who["worker"], *who["extraction"]]))
        self.stop(_WORKER)
        times = [
            record.timestamp_ms
            for record in self._since(GALLERY, gallery)
            if isinstance(decode(record.value), TemplatesEnrolled)
        ]
        answers = [cast("BookingProcessed", decode(record.value)) for record in self._since(BOOKING_OUTCOMES, outcomes)]
        refused = sum(_is_refused(each) for each in answers if each.source_event_id in queue.hostile)
        good = len(queue.events) - len(queue.hostile)
        enrolled = sum(each.outcome is BookingOutcome.ENROLLED for each in answers)
        if len(times) != good or enrolled != good:
            raise IntegrityError(
                f"Of {good} good bookings {enrolled} were enrolled, with {len(times)} gallery records."
            )
        return _Turn(
            bookings=len(queue.events),
            hostile=len(queue.hostile),
            refused=refused,
            templates_s=(good - 1) / (max(times) - min(times)) * _MS,
            peak_mb=peak / _BYTES_PER_MB,
            cpu_ms={name: seconds / len(queue.events) * _MS for name, seconds in spent.items()},
        )

    def _publish(self, queue: _Queue) -> None:
        with self.speaking(self._folder.publisher_key(_JAIL)) as publisher:
            for event in queue.events:
                publisher.send(event)
            publisher.flush()

    def _ends(self, topic: str) -> dict[int, int]:
        return {partition: end for (_, partition), end in self.log.end_offsets([topic]).items()}

    def _await_outcomes(self, count: int) -> None:
        deadline = time.monotonic() + _LIMIT_S
        while sum(self._ends(BOOKING_OUTCOMES).values()) < count:
            self._system.wait(_POLL_S)
            if time.monotonic() > deadline:
                raise TransientError(f"Not all bookings were answered in {_LIMIT_S:g} s.")

    def _since(self, topic: str, start: Mapping[int, int]) -> Iterator[Any]:
        ends = self._ends(topic)
        for partition, first in start.items():
            yield from self.log.read(topic, partition, first, ends[partition])


class _Probing:
    """Sends probes and notes when each was answered."""

    def __init__(self, bureau: _Bureau) -> None:
        self._bureau = bureau
        self._answered: dict[UUID, float] = {}
        self._refused = 0
        self._moved = threading.Condition()
        self._over = threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self._listener.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._listener.join()

    def capacity(self, images: Sequence[bytes], count: int) -> float:
        """Return how many probes a second are answered when there are always some that wait."""
        requests = self._stored(images, count)
        with self._bureau.speaking(self._bureau.person) as publisher:
            started = time.perf_counter()
            for number, request in enumerate(requests):
                self._await(number - _PROBES_AT_ONCE, requests)
                publisher.send(request)
            self._await(len(requests), requests)
        return count / (time.perf_counter() - started)

    def latencies(self, images: Sequence[bytes], count: int, per_s: float) -> list[float]:
        """Return seconds from the moment at which each probe was due until its answer could be read."""
        requests = self._stored(images, count)
        moments = random.Random(_SEED)  # noqa: S311 - no secret
        due: list[float] = []
        with self._bureau.speaking(self._bureau.person) as publisher:
            at = time.perf_counter()
            for request in requests:
                at += moments.expovariate(per_s)
                time.sleep(max(0.0, at - time.perf_counter()))
                due.append(at)
                publisher.send(request)
            self._await(len(requests), requests)
        return [self._answered[request.probe_id] - at for request, at in zip(requests, due, strict=True)]

    def _await(self, answers: int, requests: Sequence[ProbeSubmitted]) -> None:
        """Wait until the first so many are answered.

        Raises:
            TransientError: they are not in time, or one was refused.
        """
        with self._moved:
            for request in requests[: max(answers, 0)]:
                if not self._moved.wait_for(lambda asked=request: asked.probe_id in self._answered, _ANSWER_LIMIT_S):  # type: ignore[misc]
                    raise TransientError(f"Probes were not answered in {_ANSWER_LIMIT_S:g} s.")
        if self._refused:
            raise TransientError(f"{self._refused} probes were refused; a measurement of refusals means nothing.")

    def _stored(self, images: Sequence[bytes], count: int) -> list[ProbeSubmitted]:
        def one(number: int) -> ProbeSubmitted:
            probe_id = uuid4()
            stored = self._bureau.objects.put(probe_scope(probe_id), "image", images[number % len(images)])
            return ProbeSubmitted(
                event_id=derived_id(probe_id, "submitted"),
                occurred_at=wiring.now(),
                actor=f"user:{_USER}",
                probe_id=probe_id,
                user_id=_USER,
                ori=_AGENCY,
                reason_code="FELONY_INVESTIGATION",
                reason_text="A measurement of the system.",
                case_number="BENCH-1",
                legal_basis="CRIMINAL_INVESTIGATION",
                source_type="WITNESS_PHOTO",
                image_reference=stored.reference,
                image_sha256=stored.sha256,
                original_sha256=stored.sha256,
                collected_by=_USER,
                collected_at=wiring.now(),
                edits=(),
                requested_candidates=20,
                logon=None,
                collection_basis="CONSENT",
            )

        with ThreadPoolExecutor(_UPLOADS_AT_ONCE) as threads:
            return list(threads.map(one, range(count)))

    def _listen(self) -> None:
        consumer = Consumer(
            {**self._bureau.config, "group.id": "leadstream-bench", "enable.auto.commit": False, "log_level": 0}
        )
        ends = self._bureau.log.end_offsets([PROBE_OUTCOMES])
        consumer.assign([TopicPartition(topic, partition, end) for (topic, partition), end in ends.items()])
        self._ready.set()
        while not self._over.is_set():
            message = consumer.poll(_POLL_S)
            if message is None or message.error() is not None:
                continue
            at, outcome = time.perf_counter(), cast("CandidateListIssued | ProbeRefused", decode(message.value()))
            with self._moved:
                self._answered.setdefault(outcome.probe_id, at)
                self._refused += not isinstance(outcome, CandidateListIssued)
                self._moved.notify_all()
        consumer.close()


def _is_refused(answer: BookingProcessed) -> bool:
    """Tell whether a booking of one hostile image has an answer that names what is wrong with it."""
    codes = [answer.code, *(capture.code for capture in answer.captures)]
    return answer.outcome is not BookingOutcome.ENROLLED and all(codes)


def _good_images(faces: FaceExtractor, folder: Path | None, settings: Settings) -> list[bytes]:
    """Return photos as JPEG of 480 x 600 from which the pack makes a template.

    Raises:
        UsageError: there are none.
    """
    if folder is None:
        paths = [photo.path for photo in assets.fetch(settings.assets, lambda _: None).photos]
    else:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    step = max(1, len(paths) // _MOST_PHOTOS)
    images = [_as_jpeg(ImageOps.exif_transpose(Image.open(path))) for path in paths[::step][:_MOST_PHOTOS]]
    good = [image for image in images if isinstance(faces.extract(image), ExtractedFace)]
    if not good:
        raise UsageError(f"No photo in {folder} gives a template: name a folder of frontal photos of one face each.")
    return good


def _as_jpeg(image: Image.Image) -> bytes:
    return _written(ImageOps.fit(image.convert("RGB"), (WIDTH_PX, HEIGHT_PX)), "JPEG", quality=_QUALITY)


def _written(image: Image.Image, image_format: str, **how: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, image_format, **how)
    return target.getvalue()


def _hostile_images(images: Sequence[bytes]) -> Iterator[tuple[bytes, Spoil | None]]:
    """Yield images that must be refused, and what is done to the booking of those that are good in themselves."""
    face = Image.open(io.BytesIO(images[0]))
    other = Image.open(io.BytesIO(images[-1]))
    both = Image.new("RGB", (2 * WIDTH_PX, HEIGHT_PX))
    both.paste(face)
    both.paste(other, (WIDTH_PX, 0))
    yield b"I am no photo, whatever my name says.\n", None
    yield images[0][: len(images[0]) // 2], None
    yield _written(face, "GIF"), None
    yield _written(face, "PNG", save_all=True, append_images=[other]), None
    yield _bomb(), None
    yield _written(Image.new("RGB", face.size, "grey"), "JPEG"), None
    yield _written(both, "JPEG"), None
    yield images[0], lambda booking: _spoilt(booking, reference=f"{booking.captures[0].reference}-not-there")
    yield images[0], lambda booking: _spoilt(booking, reference="file:///etc/passwd")
    yield images[0], lambda booking: _spoilt(booking, sha256="0" * 64)


def _spoilt(booking: BookingRecorded, **changes: str) -> BookingRecorded:
    (capture,) = booking.captures
    return replace(booking, captures=(replace(capture, **changes),))  # type: ignore[arg-type]


def _bomb() -> bytes:
    """Return a true PNG of 30,000 x 30,000 black pixels in a hundred kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = bytes(1 + _BOMB_SIDE_PX // 8)
    packer = zlib.compressobj(1)
    rows = b"".join([packer.compress(row) for _ in range(_BOMB_SIDE_PX)]) + packer.flush()
    header = struct.pack(">IIBBBBB", _BOMB_SIDE_PX, _BOMB_SIDE_PX, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _bare_rate(card: ModelCard, pack_dir: Path, images: Sequence[bytes], processes: int, seconds: float) -> float:
    """Return templates a second of the bare models: one process a core, each with a loop over the images."""
    context = multiprocessing.get_context("spawn")
    start, counts = context.Barrier(processes), context.SimpleQueue()
    running = [
        context.Process(target=_loop, args=(card, pack_dir, list(images), seconds, start, counts))
        for _ in range(processes)
    ]
    for process in running:
        process.start()
    total: float = sum(counts.get() for _ in running)
    for process in running:
        process.join()
    return total


def _loop(card: ModelCard, pack_dir: Path, images: list[bytes], seconds: float, start: Barrier, counts: Any) -> None:
    faces = FaceExtractor(card, pack_dir)
    for image in images[:_WARM_UP]:
        faces.extract(image)
    start.wait()
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        faces.extract(images[done % len(images)])
        done += 1
    counts.put(done / (time.perf_counter() - started))


def _bare_times(faces: FaceExtractor, images: Sequence[bytes], templates: int) -> tuple[float, float]:
    """Return the medians of extraction and of search in a gallery of this size, nothing beside them, in seconds."""
    gallery = FaissGallery(
        dimension=faces.card.recogniser.dimension,
        model_digest=model_digest(faces.card),
        codebook=codebook_for(dimension=faces.card.recogniser.dimension, statistics=faces.card.statistics),
    )
    rows = synthetic_templates(faces.card.statistics, count=templates, seed=_SEED)
    gallery.apply([bench_population.enrolment(number, row) for number, row in enumerate(rows)], {})
    extraction, search = [], []
    for _ in range(max(1, _WARM_UP // len(images))):
        for image in images:
            started = time.perf_counter()
            face = faces.extract(image)
            extracted = time.perf_counter()
            if isinstance(face, ExtractedFace):
                gallery.search(face.template, 20)
            search.append(time.perf_counter() - extracted)
            extraction.append(extracted - started)
    return median(extraction), median(search)


def _as_toml(settings: Settings) -> str:
    """Write what a worker of the measurement must know of the settings here."""
    lines = [f"extraction_processes = {settings.extraction_processes}", f'assets = "{settings.assets}"']
    if settings.model_card is not None:
        lines.append(f'model_card = "{settings.model_card.resolve()}"')
    return "\n".join([*lines, ""])


def _children(pid: int) -> list[int]:
    found = [(task / "children").read_text().split() for task in Path(f"/proc/{pid}/task").iterdir()]
    return [int(child) for children in found for child in children]


def _cpu_s(pid: int) -> float:
    """Return the processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _rounded(value: float) -> float:
    return round(value, 3)
