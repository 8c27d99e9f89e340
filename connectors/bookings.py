"""What a jail booking system imports: publish bookings and court orders, read what became of them.

Photos, fingerprint images and original files go to the object store, encrypted; the event carries references and
digests. Everything may be sent again: the same booking gives the same captures, objects and event id. Whether a photo
is good enough, and whether a court order bars the booking, is for the worker to say.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar, TypeVar
from uuid import UUID, uuid5

from connectors.clock import now
from connectors.kafka_log import KafkaLog
from connectors.object_store import MAX_NAME_BYTES, MAX_OBJECT_BYTES, format_reference
from connectors.outcomes import OutcomeConsumer, OutcomeKind, ends_of, first_outcomes, reader_of
from processors.enrolment import MAX_BOOKING_NUMBER_CHARACTERS
from schemas.codec import NO_REGISTRY, encode
from schemas.errors import TransientError, UsageError
from schemas.events import (
    BookingProcessed,
    BookingRecorded,
    Capture,
    CaptureKind,
    OrderEffect,
    OrderKind,
    Pose,
    RecordOrderReceived,
)
from schemas.keys import booking_key, booking_scope
from schemas.positions import NAMESPACE, SourcePosition
from schemas.topics import BOOKING_OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from connectors.clock import Clock
    from connectors.object_store import ObjectStore
    from connectors.publishing import SignedPublisher
    from schemas.avro_schemas import SchemaVersion
    from schemas.events import BulkLoadProvenance

BOOKING_CAPTURE = "BOOKING_CAPTURE"

_ORI = re.compile(r"[A-Z0-9]{9}", re.ASCII)
_NO_ID = UUID(int=0)

Word = TypeVar("Word", bound=StrEnum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """A photo of a face, encoded as the booking system has it.

    `source` says how it came to be; only booking captures are enrolled. `capture_id` is derived unless it is given.
    """

    KIND: ClassVar[CaptureKind] = CaptureKind.FACE

    data: bytes = field(repr=False)
    pose: Pose = Pose.FRONTAL
    media_type: str = "image/jpeg"
    source: str = BOOKING_CAPTURE
    captured_at: datetime | None = None
    capture_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """A fingerprint image; stored, not looked at."""

    KIND: ClassVar[CaptureKind] = CaptureKind.FINGERPRINT
    pose: ClassVar[Pose] = Pose.NOT_APPLICABLE

    data: bytes = field(repr=False)
    media_type: str = "image/x-wsq"
    source: str = BOOKING_CAPTURE
    captured_at: datetime | None = None
    capture_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginalFile:
    """The file as the booking system sent it; stored encrypted, never read."""

    KIND: ClassVar[CaptureKind] = CaptureKind.ORIGINAL_FILE
    pose: ClassVar[Pose] = Pose.NOT_APPLICABLE

    data: bytes = field(repr=False)
    media_type: str = "application/octet-stream"
    source: str = "BOOKING_SYSTEM"
    captured_at: datetime | None = None
    capture_id: UUID | None = None


Image = Photo | Fingerprint | OriginalFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A booking event that the broker has acknowledged."""

    position: SourcePosition
    event_id: UUID
    capture_ids: tuple[UUID, ...] = ()
    """Photos, fingerprints and original files, in the order given."""
    answers_from: int
    """Offset in the same partition of the outcome topic, at or after which the answer stands."""


class BookingPublisher:
    """Publishes the bookings of one agency.

    Args:
        publisher: signs with the key of the booking system.
        objects: where images are kept.
        publisher_id: as the administrator registered the booking system.
        ori: the agency.
        clock: for the times of events.
        max_image_bytes: largest image that is taken.

    Raises:
        UsageError: the ORI is none.
    """

    def __init__(
        self,
        publisher: SignedPublisher,
        objects: ObjectStore,
        publisher_id: str,
        ori: str,
        *,
        clock: Clock = now,
        max_image_bytes: int = MAX_OBJECT_BYTES,
    ) -> None:
        self._publisher = publisher
        self._objects = objects
        self._actor = f"publisher:{publisher_id}"
        self._ori = require_ori(ori)
        self._clock = clock
        self._max_image_bytes = max_image_bytes
        self._log = KafkaLog(publisher.config)

    def publish_booking(
        self,
        *,
        booking_number: str,
        booked_at: datetime,
        photos: Sequence[Photo],
        fingerprints: Sequence[Fingerprint] = (),
        originals: Sequence[OriginalFile] = (),
        sid: str | None = None,
        synthetic: bool = False,
        provenance: BulkLoadProvenance | None = None,
        event_id: UUID | None = None,
    ) -> Published:
        """Store the images of a booking, then publish its whole state; a correction is the same call with other facts.

        The same call again gives the same event id, captures and objects. To go back to an earlier state of a booking,
        give an `event_id`: the derived one would be that of the earlier event.

        Args:
            booking_number: the agency's number of this arrest, 1 to 64 printable characters.
            booked_at: when the person was booked.
            photos: photos of the face; none at all withdraws what was enrolled before.
            fingerprints: fingerprint images.
            originals: files as received.
            sid: state identification number, where there is one.
            synthetic: True for made-up data.
            provenance: where the photos of a bulk load come from; without it none of them is enrolled.
            event_id: derived from the content unless it is given.

        Raises:
            UsageError: a value is not allowed; nothing was stored or published.
            ContractError: a value is of the wrong type; nothing was stored or published.
            DomainFault: KEY_DESTROYED (the booking was expunged; nothing is ever stored for it again), OBJECT_EXISTS
                (other bytes are stored under a given capture id), OBJECT_TOO_LARGE.
            TransientError: Kafka or the object store is away; the same call may be made again.
        """
        booking = self.store_booking(
            booking_number=booking_number,
            booked_at=booked_at,
            photos=photos,
            fingerprints=fingerprints,
            originals=originals,
            sid=sid,
            synthetic=synthetic,
            provenance=provenance,
            event_id=event_id,
        )
        return self._publish(booking, tuple(capture.capture_id for capture in booking.captures))

    def store_booking(
        self,
        *,
        booking_number: str,
        booked_at: datetime,
        photos: Sequence[Photo],
        fingerprints: Sequence[Fingerprint] = (),
        originals: Sequence[OriginalFile] = (),
        sid: str | None = None,
        synthetic: bool = False,
        provenance: BulkLoadProvenance | None = None,
        event_id: UUID | None = None,
    ) -> BookingRecorded:
        """Do all of `publish_booking` but the last step; for bulk loads that hand the event to `SignedPublisher.send`.

        Raises:
            UsageError: as `publish_booking`.
            DomainFault: as `publish_booking`.
            TransientError: the object store is away.
        """
        scope = self._scope(booking_number)
        _require_zone(booked_at, "booked_at")
        images: list[Image] = [*photos, *fingerprints, *originals]
        for image in images:
            self._require_image(image)
        captures = _captures(images, scope)
        draft = BookingRecorded(
            event_id=_NO_ID,
            occurred_at=booked_at,
            actor=self._actor,
            ori=self._ori,
            booking_number=booking_number,
            sid=sid,
            booked_at=booked_at,
            captures=captures,
            synthetic=synthetic,
            provenance=provenance,
        )
        content_id = _content_id(draft)
        for image, capture in zip(images, captures, strict=True):
            self._objects.put(scope, str(capture.capture_id), image.data)
        return replace(draft, event_id=event_id or content_id, occurred_at=self._clock())

    def publish_order(
        self,
        *,
        booking_number: str,
        order: OrderKind | str,
        statute: str,
        court: str,
        order_number: str,
        ordered_at: datetime,
        effect: OrderEffect | str | None = None,
        event_id: UUID | None = None,
    ) -> Published:
        """Publish a court order on one booking; the same call again gives the same event id.

        Args:
            booking_number: the agency's number of this arrest.
            order: seal, expunge or unseal.
            statute: legal ground, e.g. CA PC 851.91.
            court: who made the order.
            order_number: the court's number of it.
            ordered_at: date of the order.
            effect: what the court ordered done; None is what protects the person most. One that protects less holds
                where the policy lets the statute have it; the answer names the effect that the order was given.
            event_id: derived from the content unless it is given.

        Raises:
            UsageError: a value is not allowed; nothing was published.
            TransientError: Kafka is away; the same call may be made again.
        """
        self._scope(booking_number)
        _require_zone(ordered_at, "ordered_at")
        for name, text in (("statute", statute), ("court", court), ("order_number", order_number)):
            if not text.strip():
                raise UsageError(f"A court order needs its {name}.")
        draft = RecordOrderReceived(
            event_id=_NO_ID,
            occurred_at=ordered_at,
            actor=self._actor,
            ori=self._ori,
            booking_number=booking_number,
            order=_one_of(OrderKind, order, "court order"),
            statute=statute,
            court=court,
            order_number=order_number,
            ordered_at=ordered_at,
            effect=None if effect is None else _one_of(OrderEffect, effect, "effect of a court order"),
        )
        received = replace(draft, event_id=event_id or _content_id(draft), occurred_at=self._clock())
        return self._publish(received, ())

    def await_outcome(self, published: Published, timeout_s: float) -> BookingProcessed:
        """Return what became of one booking event.

        Raises:
            TransientError: no answer in time, or Kafka answers with an error; ask again, the event is not lost.
        """
        for answer in self.await_outcomes([published], timeout_s):
            return answer
        raise TransientError(
            f"No answer to {published.position} within {timeout_s:g} s. The event is kept and will be answered when a "
            "worker gets to it: see that one runs, and wait for the answer again; do not send it again.",
        )

    def await_outcomes(self, published: Iterable[Published], timeout_s: float) -> Iterator[BookingProcessed]:
        """Yield what became of booking events as the answers come; end when all are there or the time is over.

        Raises:
            TransientError: Kafka answers with an error.
        """
        start: dict[int, int] = {}
        positions = set()
        for one in published:
            partition = one.position.partition
            start[partition] = min(one.answers_from, start.get(partition, one.answers_from))
            positions.add(one.position)
        return first_outcomes(self._log, _PROCESSED, positions, lambda answer: answer.source, start, timeout_s)

    def _publish(self, event: BookingRecorded | RecordOrderReceived, capture_ids: tuple[UUID, ...]) -> Published:
        # Asked before publishing: the answer cannot stand before it, however quick the worker is.
        ends = ends_of(self._log, BOOKING_OUTCOMES)
        position = self._publisher.publish(event)
        return Published(
            position=position,
            event_id=event.event_id,
            capture_ids=capture_ids,
            answers_from=ends[position.partition],
        )

    def _scope(self, booking_number: str) -> str:
        allowed = 0 < len(booking_number) <= MAX_BOOKING_NUMBER_CHARACTERS and booking_number.isprintable()
        if not allowed or booking_number != booking_number.strip():
            raise UsageError(
                f"A booking number has 1 to {MAX_BOOKING_NUMBER_CHARACTERS} printable characters, "
                "no space at either end.",
            )
        scope = booking_scope(self._ori, booking_number)
        if len(scope.encode()) > MAX_NAME_BYTES:
            raise UsageError("The booking number is too long in UTF-8; use fewer characters outside ASCII.")
        return scope

    def _require_image(self, image: Image) -> None:
        name = type(image).__name__
        if not image.data:
            raise UsageError(f"{name}: the file is empty.")
        if len(image.data) > self._max_image_bytes:
            raise UsageError(f"{name}: {len(image.data)} bytes are too many; {self._max_image_bytes} are allowed.")
        if image.captured_at is not None:
            _require_zone(image.captured_at, "captured_at")


class EnrolmentConsumer(OutcomeConsumer[BookingProcessed]):
    """What became of every booking event of an agency, or of all; see `OutcomeConsumer`.

    Args:
        config: settings of the Kafka client, at least `bootstrap.servers`.
        group: name of the consumer group; one a tool.
        ori: only answers to this agency; None: to all.
        start_at: partition -> next offset to read, instead of a group.
        registry: schemas by their id in a schema registry, where there is one.
    """

    def __init__(
        self,
        config: Mapping[str, str | int | bool],
        group: str | None = None,
        *,
        ori: str | None = None,
        start_at: Mapping[int, int] | None = None,
        registry: Mapping[int, SchemaVersion] = NO_REGISTRY,
    ) -> None:
        prefix = b"" if ori is None else booking_key(require_ori(ori), "").encode()
        kind = OutcomeKind(
            topic=BOOKING_OUTCOMES,
            read=reader_of(BOOKING_OUTCOMES, BookingProcessed, registry),
            # Derived from where the booking event stands, so a repeated answer to it has the same.
            identity=lambda answer: answer.event_id,
            may_be_wanted=lambda key: key is not None and key.startswith(prefix),
        )
        super().__init__(config, kind, group=group, start_at=start_at)


_PROCESSED = OutcomeKind(
    topic=BOOKING_OUTCOMES,
    read=reader_of(BOOKING_OUTCOMES, BookingProcessed),
    identity=lambda answer: answer.event_id,
)


def require_ori(ori: str) -> str:
    """Return the identifier of an agency as it is.

    Raises:
        UsageError: it is none.
    """
    if not _ORI.fullmatch(ori):
        raise UsageError(f"{ori!r} is no ORI: an agency identifier has nine characters, A-Z and 0-9.")
    return ori


def _captures(images: Sequence[Image], scope: str) -> tuple[Capture, ...]:
    captures = []
    copies: Counter[str] = Counter()
    for image in images:
        digest = sha256(image.data).hexdigest()
        what = f"{image.KIND}:{image.pose}:{digest}"
        # The scope comes last, since nobody knows what a booking number may hold. Two bookings with the same photo get
        # different captures; a booking that holds one twice, too. Order does not matter, so a correction that adds a
        # photo leaves the others what they are.
        capture_id = image.capture_id or uuid5(NAMESPACE, f"capture:{what}:{copies[what]}:{scope}")
        copies[what] += 1
        captures.append(
            Capture(
                capture_id=capture_id,
                kind=image.KIND,
                pose=image.pose,
                source=image.source,
                reference=format_reference(scope, str(capture_id)),
                sha256=digest,
                size_bytes=len(image.data),
                media_type=image.media_type,
                captured_at=image.captured_at,
            ),
        )
    if len({capture.capture_id for capture in captures}) < len(captures):
        raise UsageError("Two images of the booking have the same capture id.")
    return tuple(captures)


def _content_id(draft: BookingRecorded | RecordOrderReceived) -> UUID:
    """Return the event id of an event with this content, whenever it is sent.

    Raises:
        ContractError: a field has a value that its schema does not allow.
    """
    return uuid5(NAMESPACE, f"content:{sha256(encode(draft)).hexdigest()}")


def _one_of(names: type[Word], word: str, what: str) -> Word:
    try:
        return names(word.upper().replace("-", "_"))
    except ValueError:
        known = ", ".join(name.value.lower().replace("_", "-") for name in names)
        raise UsageError(f"{word!r} is no {what}; it is one of {known}.") from None


def _require_zone(instant: datetime, name: str) -> None:
    if instant.tzinfo is None:
        raise UsageError(f"{name} needs a time zone; give it in UTC, or with its offset.")
