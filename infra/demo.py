"""The whole road in a temporary folder: book, probe, list, refuse, audit, and check what came back.

Nothing here is made up but the 10,000 synthetic templates that make the gallery large, and each record of those says
so. The persons of the sample photos carry neutral names; nobody in a sample photo was ever booked.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4, uuid5

import numpy as np
from confluent_kafka import Producer
from PIL import Image

from connectors.access import AccessAdministration
from connectors.bookings import BookingPublisher, Photo
from connectors.log_reader import read_everything
from connectors.probes import ProbeClient
from connectors.publishing import SignedPublisher
from connectors.signing_keys import SigningKey
from infra import assets, contact_sheet, wiring
from infra.agreements import text_of
from infra.data_folder import DataFolder
from infra.demo_accountability import PROHIBITED, SecondAct, Stage
from infra.local_system import LocalSystem
from processors.access import ROOT_ADMINISTRATOR, Role
from processors.candidates import LEAD_NOTICE
from processors.refusals import Refusal, RefusalCode
from processors.synthetic import synthetic_templates
from processors.templates import template_to_bytes
from schemas.codec import encode
from schemas.errors import TransientError
from schemas.events import (
    BookingOutcome,
    CandidateListIssued,
    EnrolledCapture,
    ProbeRefused,
    TemplatesEnrolled,
)
from schemas.keys import key_of, partition_of
from schemas.positions import NAMESPACE, SourcePosition
from schemas.topics import BOOKING_EVENTS, GALLERY, TOPICS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from uuid import UUID

    from connectors.face_extractor import FaceExtractor
    from infra.assets import SamplePhoto
    from infra.settings import Settings
    from schemas.events import Candidate

SYNTHETIC = 10_000
SEED = 20_261_123
JAIL, AGENCY = "demo-jail", "CADEMO001"
EXAMINER, SECOND, UNTRAINED = "e.example", "s.second", "u.untrained"
BOOKED, MATES, NOT_BOOKED = ("A", "B", "C", "D", "E"), ("A", "B"), "F"
OUTCOME_LIMIT_S = 180.0
AUDIT_LIMIT_S = 180.0
POLL_S = 0.2
SHOWN_CANDIDATES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """One probe that was answered with a list."""

    probe_id: UUID
    subject: str
    mate: str | None
    """The person whom the photo shows, if booked."""
    rank_of_mate: int | None
    outcome: CandidateListIssued
    latency_ms: float
    photo: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Searches:
    """How often a user searched for a reason; each distinct request counts once."""

    user: str
    reason: str
    count: int
    issued: int
    refused: int
    unproven: int
    """Refused because nothing proves that the request came from that user."""
    reason_texts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What came back; `ok` is computed from it."""

    published: int
    enrolled: int
    refused: int
    gallery_size: int
    probes: tuple[ProbeResult, ...]
    refusals: tuple[tuple[UUID, str, str], ...]
    """(probe id, code that came back, code that was due)."""
    kafka_records: int
    audit_rows: int
    audit_equals_kafka: bool
    searches: tuple[Searches, ...]
    """From ClickHouse."""
    searches_sent: Counter[tuple[str, str]]
    second_act: SecondAct

    @property
    def faults(self) -> list[str]:
        """What is not as it must be, in words."""
        counted = {(each.user, each.reason): each.count for each in self.searches}
        return [
            text
            for wrong, text in (
                (self.published - self.refused != self.enrolled, "a booking was lost"),
                (self.enrolled != len(BOOKED) or self.refused != 1, "bookings did not end as they should"),
                (self.gallery_size != SYNTHETIC + len(BOOKED), "the gallery does not hold every template once"),
                (
                    [result.rank_of_mate for result in self.probes if result.mate] != [1] * len(MATES),
                    "a mate is not at rank 1",
                ),
                ([result.mate for result in self.probes].count(None) != 1, "the person not booked was not searched"),
                (
                    any(
                        candidate.score >= result.outcome.threshold
                        for result in self.probes
                        if result.mate is None
                        for candidate in result.outcome.candidates
                    ),
                    "the person not booked has a candidate above the published threshold",
                ),
                (any(code != due for _, code, due in self.refusals), "a refusal has another code than was due"),
                (not self.audit_equals_kafka, "the audit trail is not what an independent consumer reads (G2)"),
                (counted != dict(self.searches_sent), "the audit counts other searches than were sent (G11)"),
            )
            if wrong
        ] + self.second_act.faults

    @property
    def ok(self) -> bool:
        """Whether everything came back as it must."""
        return not self.faults

    def document(self) -> dict[str, Any]:
        """Return what `leadstream demo --json` writes."""
        return {
            "ok": self.ok,
            "faults": self.faults,
            "bookings": {"published": self.published, "enrolled": self.enrolled, "refused": self.refused},
            "gallery_size": self.gallery_size,
            "probes": [
                {
                    "probe_id": str(result.probe_id),
                    "user": result.outcome.user_id,
                    "reason": result.outcome.reason_code,
                    "mate": result.mate,
                    "rank_of_mate": result.rank_of_mate,
                    "threshold": result.outcome.threshold,
                    "candidates": [
                        {"rank": each.rank, "person": each.person, "score": each.score, "synthetic": each.synthetic}
                        for each in result.outcome.candidates
                    ],
                    "latency_ms": round(result.latency_ms, 1),
                }
                for result in self.probes
            ],
            "refusals": [{"probe_id": str(probe_id), "code": code} for probe_id, code, _ in self.refusals],
            **self.second_act.document(),
            "audit": {
                "kafka_records": self.kafka_records,
                "audit_rows": self.audit_rows,
                "searches": [
                    {
                        "user": each.user,
                        "reason": each.reason,
                        "count": each.count,
                        "issued": each.issued,
                        "refused": each.refused,
                        "unproven": each.unproven,
                    }
                    for each in self.searches
                ],
            },
        }


class Demo:
    """One run of the demonstration on a data folder made by `initialise`.

    Args:
        settings: of that folder.
        say: told each step in words.
        progress: told (what, done, of how many) where there is much of it.
    """

    def __init__(
        self,
        settings: Settings,
        say: Callable[[str], None],
        progress: Callable[[str, int, int], None],
    ) -> None:
        self._settings = settings
        self._folder = DataFolder(settings.data)
        self._say = say
        self._progress = progress
        self._photos = {(photo.subject, photo.number): photo for photo in assets.fetch(settings.assets, say).photos}
        self._faces: FaceExtractor = wiring.extractor(settings)
        self._objects = wiring.object_store(settings)
        self._sent: Counter[tuple[str, str]] = Counter()

    def run(self) -> DemoResult:
        """Do everything on a running system and return what came back."""
        with LocalSystem(self._settings, say=self._say) as system:
            try:
                return self._drive()
            except TransientError:
                # Whatever did not answer: if a role died, that is the reason to tell.
                system.wait(0)
                raise

    def _drive(self) -> DemoResult:
        self._config = wiring.kafka_config(self._settings)
        self._say("registering the agency, the booking system and three users; training two of them")
        self._register()
        self._say(f"adding {SYNTHETIC:,} synthetic templates to the gallery")
        self._add_synthetic_templates()
        self._say(f"booking {len(BOOKED)} persons, and one photo without a face")
        enrolled, refused = self._book()
        self._say(
            "probing: two second photos, one person not booked, and requests that must be refused, also images of "
            f"{len(PROHIBITED)} prohibited sources"
        )
        probes = tuple(self._probe(subject, 2 if subject in MATES else 1) for subject in (*MATES, NOT_BOOKED))
        refusals = tuple(self._refused_probes())
        second_act = self._second_act(probes)
        self._say("asking ClickHouse who searched, how often and why; counting Kafka independently")
        kafka = self._await_audit()
        with wiring.audit_reader(self._settings) as reader:
            digests = reader.wire_digests()
            _, rows = reader.query(
                "SELECT user_id, reason_code, sum(searches), sum(issued), sum(refused), sum(unproven), "
                "arraySort(groupUniqArrayArray(reason_texts)) "
                "FROM audit.searches_per_user GROUP BY user_id, reason_code ORDER BY user_id, reason_code",
            )
        return DemoResult(
            published=enrolled + refused,
            enrolled=enrolled,
            refused=refused,
            gallery_size=probes[-1].outcome.gallery_templates,
            probes=probes,
            refusals=refusals,
            kafka_records=len(kafka),
            audit_rows=len(digests),
            audit_equals_kafka=sorted(kafka) == sorted(digests),
            searches=tuple(
                Searches(
                    user=user,
                    reason=reason,
                    count=count,
                    issued=issued,
                    refused=refused,
                    unproven=unproven,
                    reason_texts=tuple(texts),
                )
                for user, reason, count, issued, refused, unproven, texts in rows
            ),
            searches_sent=self._sent,
            second_act=second_act,
        )

    def _second_act(self, probes: tuple[ProbeResult, ...]) -> SecondAct:
        """Review the list of one person to a lead; seal the record of another, and see who is told."""
        stage = Stage(
            settings=self._settings,
            objects=self._objects,
            agency=AGENCY,
            jail=JAIL,
            examiners=(EXAMINER, SECOND),
            progress=self._progress,
        )
        sealed, reviewed = probes[0], probes[1]
        assert reviewed.mate is not None  # noqa: S101 - `_drive` probes the mates first
        self._say("reviewing a list: two examiners, one after the other, each on a sheet of their own")
        review = stage.review(reviewed.outcome, reviewed.mate)
        leads = stage.leads(1)
        self._say("sealing a record that is on these lists, and seeing who is told")
        booking_number = f"DEMO-{sealed.subject}"
        stage.seal(booking_number)
        due = frozenset(
            (receiver, result.probe_id)
            for result in probes
            if any(each.booking_number == booking_number for each in result.outcome.candidates)
            for receiver in ({EXAMINER, SECOND} if result is reviewed else {EXAMINER})
        )
        acknowledged = stage.notices(len(due))[0]
        stage.acknowledge(acknowledged)
        after = self._probe(sealed.subject, 2)
        return SecondAct(
            reviewed=review,
            leads=leads,
            mate=reviewed.mate,
            notices=stage.notices(len(due)),
            notices_due=due,
            acknowledged=acknowledged.notice.event_id,
            sealed=f"sid:{_sid(sealed.subject)}",
            list_after=after.outcome,
        )

    def draw(self, result: DemoResult, path: Path) -> None:
        """Write the contact sheet of probes and candidates."""
        rows = [
            contact_sheet.Row(
                probe=contact_sheet.Tile(
                    portrait=self._portrait(probe.photo),
                    caption=(f"subject {probe.subject}", "enrolled" if probe.mate else "not enrolled"),
                ),
                candidates=tuple(self._tile(each, probe) for each in probe.outcome.candidates[:SHOWN_CANDIDATES]),
            )
            for probe in result.probes
        ]
        contact_sheet.draw(rows, title="Leadstream: probes and candidates", notice=LEAD_NOTICE, path=path)

    def _register(self) -> None:
        administrator = SigningKey.load(self._folder.user_key(ROOT_ADMINISTRATOR))
        jail = SigningKey.create(self._folder.publisher_key(JAIL))
        people = {user: SigningKey.create(self._folder.user_key(user)) for user in (EXAMINER, SECOND, UNTRAINED)}
        at = wiring.now()
        agreements = wiring.policy(self._settings).users.agreements
        with SignedPublisher(self._config, administrator) as publisher:
            acts = AccessAdministration(publisher, f"user:{ROOT_ADMINISTRATOR}")
            acts.register_agency(ori=AGENCY, name="Demonstration agency")
            acts.register_publisher(
                publisher_id=JAIL,
                ori=AGENCY,
                public_key=jail.public_key,
                may_publish=("BookingRecorded", "RecordOrderReceived"),
            )
            for user, key in people.items():
                acts.register_user(
                    user_id=user,
                    display_name=user,
                    ori=AGENCY,
                    roles=(Role.SUBMITTER, Role.EXAMINER),
                    public_key=key.public_key,
                )
                acts.grant(user_id=user, reason="demonstration")
            for course in wiring.policy(self._settings).users.courses:
                for user in (EXAMINER, SECOND):
                    acts.record_training(
                        user_id=user,
                        course=course,
                        course_version="1",
                        material_sha256="0" * 64,
                        approved_by=ROOT_ADMINISTRATOR,
                        completed_at=at - timedelta(days=30),
                        expires_at=at + timedelta(days=335),
                    )
        for user, key in people.items():
            with SignedPublisher(self._config, key) as publisher:
                acts = AccessAdministration(publisher, f"user:{user}")
                for agreement, version in agreements.items():
                    acts.record_agreement(
                        user_id=user,
                        agreement=agreement,
                        agreement_version=version,
                        document_sha256=sha256(text_of(agreement, version, self._folder.agreements)).hexdigest(),
                    )
                acts.logged_on(user_id=user, method="OWN_KEY")

    def _add_synthetic_templates(self) -> None:
        """Publish gallery records as a worker does; there is no booking event behind them, so their offset is -1."""
        templates = synthetic_templates(self._faces.card.statistics, count=SYNTHETIC, seed=SEED)
        producer = Producer({**self._config, "partitioner": "murmur2_random", "linger.ms": 20, "log_level": 0})
        failures: list[str] = []
        for number, template in enumerate(templates):
            event = _synthetic_enrolment(number, template_to_bytes(template), self._faces.model_digest)
            producer.produce(
                GALLERY,
                encode(event),
                key_of(event),
                on_delivery=lambda error, _: failures.append(error.str()) if error else None,
            )
            if number % 500 == 0:
                producer.poll(0)
                self._progress("synthetic templates", number, SYNTHETIC)
        if producer.flush(OUTCOME_LIMIT_S) or failures:
            raise TransientError(f"Kafka did not take all synthetic templates: {failures[:1]}")
        self._progress("synthetic templates", SYNTHETIC, SYNTHETIC)

    def _book(self) -> tuple[int, int]:
        key = SigningKey.load(self._folder.publisher_key(JAIL))
        with SignedPublisher(self._config, key) as publisher:
            client = BookingPublisher(publisher, self._objects, JAIL, AGENCY)
            published = [
                client.publish_booking(
                    booking_number=f"DEMO-{subject}",
                    booked_at=wiring.now(),
                    photos=[Photo(data=self._photo(subject, 1).path.read_bytes())],
                    sid=_sid(subject),
                )
                for subject in BOOKED
            ]
            published.append(
                client.publish_booking(
                    booking_number="DEMO-NO-FACE",
                    booked_at=wiring.now(),
                    photos=[Photo(data=_photo_of_nothing(), media_type="image/png")],
                    synthetic=True,
                ),
            )
            answers = []
            for answer in client.await_outcomes(published, OUTCOME_LIMIT_S):
                answers.append(answer)
                self._progress("bookings", len(answers), len(published))
        enrolled = sum(answer.outcome is BookingOutcome.ENROLLED for answer in answers)
        return enrolled, len(answers) - enrolled

    def _probe(self, subject: str, number: int) -> ProbeResult:
        photo = self._photo(subject, number).path.read_bytes()
        with self._client(EXAMINER) as client:
            started = time.perf_counter()
            submitted = client.submit(photo, **self._request(EXAMINER, "MISSING_PERSON" if number == 1 else None))
            outcome = client.await_outcome(submitted, OUTCOME_LIMIT_S)
            latency_ms = (time.perf_counter() - started) * 1000
        if isinstance(outcome, ProbeRefused):
            raise TransientError(f"A probe that is allowed was refused: {outcome.code}: {outcome.message}")
        mate = f"sid:{_sid(subject)}" if subject in BOOKED else None
        return ProbeResult(
            probe_id=submitted.probe_id,
            subject=subject,
            mate=mate,
            rank_of_mate=next((each.rank for each in outcome.candidates if each.person == mate), None),
            outcome=outcome,
            latency_ms=latency_ms,
            photo=photo,
        )

    def _refused_probes(self) -> Iterator[tuple[UUID, str, str]]:
        photo = self._photo("A", 2).path.read_bytes()
        attempts: tuple[tuple[str, dict[str, str], bool, RefusalCode], ...] = (
            (EXAMINER, {"case_number": ""}, False, RefusalCode.CASE_NUMBER_MISSING),
            (UNTRAINED, {}, False, RefusalCode.TRAINING_MISSING),
            (EXAMINER, {}, True, RefusalCode.UNAUTHENTICATED),
            *((EXAMINER, {"source_type": source}, False, RefusalCode.SOURCE_PROHIBITED) for source in PROHIBITED),
        )
        for user, changed, forged, due in attempts:
            with self._client(user, forged=forged) as client:
                submitted = client.submit(photo, **{**self._request(user), **changed})
                outcome = client.await_outcome(submitted, OUTCOME_LIMIT_S)
            yield submitted.probe_id, outcome.code if isinstance(outcome, ProbeRefused) else "ISSUED", str(due)

    def _client(self, user: str, *, forged: bool = False) -> _Client:
        key = SigningKey.load(self._folder.user_key(user))
        return _Client(self._config, _Forger(key) if forged else key, self._objects, user)

    def _request(self, user: str, reason: str | None = None) -> dict[str, Any]:
        reason = reason or "FELONY_INVESTIGATION"
        self._sent[user, reason] += 1
        words = {
            "FELONY_INVESTIGATION": "Robbery of a shop; the face is on a photo that a witness took.",
            "MISSING_PERSON": "Person found confused at a station; the family is looked for.",
        }
        return {
            "reason_code": reason,
            "reason_text": words[reason],
            "case_number": "DEMO-26-00017",
            "legal_basis": "CRIMINAL_INVESTIGATION",
            "source_type": "WITNESS_PHOTO",
            "collected_by": user,
            "collected_at": wiring.now(),
            "collection_basis": "CONSENT",
        }

    def _await_audit(self) -> list[tuple[str, int, int, str]]:
        """Read all of Kafka independently, once the audit trail has caught up with it; return what was read."""
        kafka = list(read_everything(self._config, TOPICS))
        deadline = time.monotonic() + AUDIT_LIMIT_S
        rows = -1
        while time.monotonic() < deadline:
            with wiring.audit_reader(self._settings) as reader:
                rows = len(reader.wire_digests())
            if rows >= len(kafka):
                return kafka
            time.sleep(POLL_S)
        raise TransientError(f"The audit trail has {rows} of {len(kafka)} records after {AUDIT_LIMIT_S:g} s.")

    def _photo(self, subject: str, number: int) -> SamplePhoto:
        return self._photos[subject, number]

    def _tile(self, candidate: Candidate, probe: ProbeResult) -> contact_sheet.Tile:
        subject = candidate.booking_number.removeprefix("DEMO-")
        portrait = None if candidate.synthetic else self._portrait(self._photo(subject, 1).path.read_bytes())
        return contact_sheet.Tile(
            portrait=portrait,
            caption=(f"{candidate.rank}. {shown_name(candidate)}", f"cosine {candidate.score:.3f}"),
            highlighted=candidate.person == probe.mate,
        )

    def _portrait(self, photo: bytes) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
        portrait = self._faces.portrait(photo, side_px=contact_sheet.SIDE_PX)
        return None if isinstance(portrait, Refusal) else portrait


class _Client(ProbeClient):
    """A probe client with a connection of its own."""

    def __init__(self, config: wiring.KafkaConfig, key: SigningKey, objects: Any, user: str) -> None:
        self._connection = SignedPublisher(config, key)
        super().__init__(self._connection, objects, user, AGENCY)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


class _Forger(SigningKey):
    """Claims the name of a key that it does not have: signs with another one."""

    def __init__(self, victim: SigningKey) -> None:
        self._victim = victim

    @property
    def key_id(self) -> str:
        """The name of the key it claims to have."""
        return self._victim.key_id

    def sign(self, topic: str, key: bytes, value: bytes) -> list[tuple[str, bytes]]:
        """Sign something else than what is sent."""
        return self._victim.sign(topic, key, value + b"altered afterwards")


def _synthetic_enrolment(number: int, template: bytes, model_digest: str) -> TemplatesEnrolled:
    booking_number = f"SYNTHETIC-{number:05d}"
    draft = TemplatesEnrolled(
        event_id=uuid5(NAMESPACE, booking_number),
        occurred_at=wiring.now(),
        actor="system:demo",
        ori=AGENCY,
        booking_number=booking_number,
        model_digest=model_digest,
        captures=(EnrolledCapture(capture_id=uuid4(), template=template, quality=1.0),),
        source=SourcePosition(topic=BOOKING_EVENTS, partition=0, offset=-1),
        source_said_at=wiring.now(),
        synthetic=True,
    )
    partition = partition_of(GALLERY, key_of(draft))
    return TemplatesEnrolled.from_record(
        {**draft.to_record(), "source": {"topic": BOOKING_EVENTS, "partition": partition, "offset": -1}},
    )


def shown_name(candidate: Candidate) -> str:
    """Return the neutral name of a candidate of the demonstration."""
    if candidate.synthetic:
        return f"synthetic {candidate.booking_number.removeprefix('SYNTHETIC-')}"
    return f"subject {candidate.booking_number.removeprefix('DEMO-')}"


def _sid(subject: str) -> str:
    return f"DEMO-{subject}"


def _photo_of_nothing() -> bytes:
    """Return a photo-like image without a face: a grey gradient with noise."""
    noise = np.random.Generator(np.random.PCG64(SEED)).integers(0, 32, (480, 400), dtype=np.uint8)
    gradient = np.linspace(40, 200, 400, dtype=np.uint8)[np.newaxis] + noise
    out = BytesIO()
    Image.fromarray(gradient).convert("RGB").save(out, "PNG")
    return out.getvalue()
