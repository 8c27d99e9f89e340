"""What a booking system can send, and that sending it again changes nothing; without a broker."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.bookings import BookingPublisher, Fingerprint, OriginalFile, Photo
from connectors.key_custody import FileMasterKey
from connectors.object_store import ObjectStore
from connectors.probes import ProbeClient
from connectors.publishing import SignedPublisher
from connectors.signing_keys import SigningKey
from schemas.errors import DomainFault, UsageError
from schemas.events import BulkLoadProvenance, CaptureKind, Logon, Pose
from schemas.keys import booking_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ORI = "CA0190000"
GIVEN_ID = UUID("4aeb9802-f911-53c8-a63d-adf95309482d")
AT = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
LATER = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)
BOOKING: dict[str, Any] = {
    "booking_number": "2026-000123",
    "booked_at": AT,
    "photos": [Photo(data=b"frontal"), Photo(data=b"profile", pose=Pose.LEFT_PROFILE)],
    "fingerprints": [Fingerprint(data=b"right thumb"), Fingerprint(data=b"right index")],
    "originals": [OriginalFile(data=b"1.001:...", media_type="application/x-nist-itl")],
    "sid": "A12345678",
}


@pytest.fixture(scope="module")
def publisher() -> Iterator[SignedPublisher]:
    """Never asked to send anything here."""
    with SignedPublisher({"bootstrap.servers": "127.0.0.1:1"}, SigningKey(Ed25519PrivateKey.generate())) as publisher:
        yield publisher


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    return ObjectStore(tmp_path_factory.mktemp("objects"), FileMasterKey(bytes(range(32))))


@pytest.fixture(scope="module")
def bookings(publisher: SignedPublisher, objects: ObjectStore) -> BookingPublisher:
    clock = iter([AT] + [LATER] * 100_000)
    return BookingPublisher(publisher, objects, "jail-1", ORI, clock=lambda: next(clock), max_image_bytes=1000)


def test_every_image_is_stored_under_the_key_of_its_booking(bookings: BookingPublisher, objects: ObjectStore) -> None:
    booking = bookings.store_booking(**BOOKING)
    images = [image.data for image in (*BOOKING["photos"], *BOOKING["fingerprints"], *BOOKING["originals"])]
    assert [objects.get(capture.reference, capture.sha256) for capture in booking.captures] == images
    assert [capture.kind for capture in booking.captures] == [
        CaptureKind.FACE,
        CaptureKind.FACE,
        CaptureKind.FINGERPRINT,
        CaptureKind.FINGERPRINT,
        CaptureKind.ORIGINAL_FILE,
    ]
    assert [capture.size_bytes for capture in booking.captures] == [len(image) for image in images]
    assert booking.actor == "publisher:jail-1"
    objects.destroy_key(f"booking/{booking_key(ORI, booking.booking_number)}")
    assert not any(objects.exists(capture.reference) for capture in booking.captures)


def test_an_expunged_booking_cannot_be_stored_again(bookings: BookingPublisher, objects: ObjectStore) -> None:
    objects.destroy_key(f"booking/{booking_key(ORI, 'expunged')}")
    with pytest.raises(DomainFault) as fault:
        bookings.store_booking(booking_number="expunged", booked_at=AT, photos=[Photo(data=b"photo")])
    assert fault.value.code == "KEY_DESTROYED"


photos = st.lists(
    st.builds(Photo, data=st.binary(min_size=1, max_size=3), pose=st.sampled_from(Pose)), min_size=1, max_size=5
)
booking_numbers = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=64).filter(
    lambda number: number == number.strip()
)


@settings(max_examples=40, deadline=None)
@given(photos=photos, number=booking_numbers, data=st.data())
def test_the_same_booking_sent_again_is_the_same_event_with_the_same_captures(
    bookings: BookingPublisher, photos: list[Photo], number: str, data: st.DataObject
) -> None:
    """G11: a retry makes neither a second capture nor a second object, whatever the clock says by then."""
    first = bookings.store_booking(booking_number=number, booked_at=AT, photos=photos)
    again = bookings.store_booking(booking_number=number, booked_at=AT, photos=photos)
    assert replace(again, occurred_at=first.occurred_at) == first
    assert len({capture.capture_id for capture in first.captures}) == len(photos)
    shuffled = data.draw(st.permutations(photos))
    reordered = bookings.store_booking(booking_number=number, booked_at=AT, photos=shuffled)
    assert {capture.capture_id for capture in reordered.captures} == {capture.capture_id for capture in first.captures}


@settings(max_examples=20, deadline=None)
@given(photos=photos, numbers=st.lists(booking_numbers, min_size=2, max_size=3, unique=True))
def test_two_bookings_with_the_same_photo_have_different_captures(
    bookings: BookingPublisher, photos: list[Photo], numbers: list[str]
) -> None:
    recorded = [bookings.store_booking(booking_number=number, booked_at=AT, photos=photos) for number in numbers]
    captures = [capture for booking in recorded for capture in booking.captures]
    assert len({capture.capture_id for capture in captures}) == len(captures)
    assert len({capture.reference for capture in captures}) == len(captures)
    assert len({booking.event_id for booking in recorded}) == len(recorded)


def test_a_correction_is_another_event_and_leaves_the_other_captures_what_they_are(bookings: BookingPublisher) -> None:
    first = bookings.store_booking(booking_number="C-1", booked_at=AT, photos=[Photo(data=b"a")])
    corrected = bookings.store_booking(booking_number="C-1", booked_at=AT, photos=[Photo(data=b"b"), Photo(data=b"a")])
    assert corrected.event_id != first.event_id
    assert corrected.captures[1].capture_id == first.captures[0].capture_id
    other_sid = bookings.store_booking(booking_number="C-1", booked_at=AT, photos=[Photo(data=b"a")], sid="A1")
    assert other_sid.event_id != first.event_id


def test_where_the_photos_of_a_bulk_load_come_from_is_part_of_what_is_signed(bookings: BookingPublisher) -> None:
    stated = BulkLoadProvenance(load_id=GIVEN_ID, origin="Old jail system", stated_by="Records", statement="Scans")
    facts = {**BOOKING, "booking_number": "of a bulk load"}
    booking, plain = bookings.store_booking(**facts, provenance=stated), bookings.store_booking(**facts)
    assert (booking.provenance, plain.provenance) == (stated, None)
    assert booking.event_id != plain.event_id


def test_ids_that_the_caller_gives_are_kept(bookings: BookingPublisher) -> None:
    event_id, capture_id = uuid4(), uuid4()
    booking = bookings.store_booking(
        booking_number="G-1", booked_at=AT, photos=[Photo(data=b"a", capture_id=capture_id)], event_id=event_id
    )
    assert (booking.event_id, booking.captures[0].capture_id) == (event_id, capture_id)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"booking_number": ""}, "1 to 64"),
        ({"booking_number": "x" * 65}, "1 to 64"),
        ({"booking_number": "line\nbreak"}, "printable"),
        ({"booking_number": " 7"}, "no space at either end"),
        ({"booking_number": "\N{OLD ITALIC LETTER A}" * 64}, "UTF-8"),
        ({"photos": [Photo(data=b"")]}, "Photo: the file is empty"),
        ({"fingerprints": [Fingerprint(data=b"x" * 1001)]}, "Fingerprint: 1001 bytes are too many; 1000"),
        ({"booked_at": AT.replace(tzinfo=None)}, "booked_at needs a time zone"),
        ({"photos": [Photo(data=b"x", captured_at=AT.replace(tzinfo=None))]}, "captured_at needs a time zone"),
        ({"photos": [Photo(data=bytes([n]), capture_id=GIVEN_ID) for n in (1, 2)]}, "same capture id"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_stored(
    publisher: SignedPublisher, tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    objects = ObjectStore(tmp_path, FileMasterKey(bytes(32)))
    bookings = BookingPublisher(publisher, objects, "jail-1", ORI, max_image_bytes=1000)
    with pytest.raises(UsageError, match=says):
        bookings.publish_booking(**{**BOOKING, **changed})
    assert not (tmp_path / "objects").exists()
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("ori", ["", "CA019000", "ca0190000", "CA0190000 ", "CA019/000", "CÄ0190000"])
def test_an_ori_has_nine_characters(publisher: SignedPublisher, objects: ObjectStore, ori: str) -> None:
    with pytest.raises(UsageError, match="nine characters"):
        BookingPublisher(publisher, objects, "jail-1", ori)


ORDER: dict[str, Any] = {
    "booking_number": "2026-000123",
    "order": "seal",
    "statute": "CA PC 851.91",
    "court": "Superior Court",
    "order_number": "S-1",
    "ordered_at": AT,
}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"order": "shred"}, "seal, expunge, unseal"),
        ({"effect": "forget"}, "withdraw-and-mask, withdraw, lift, lift-and-re-enrol"),
        ({"statute": " "}, "statute"),
        ({"court": ""}, "court"),
        ({"order_number": ""}, "order_number"),
        ({"ordered_at": AT.replace(tzinfo=None)}, "ordered_at needs a time zone"),
        ({"booking_number": ""}, "1 to 64"),
    ],
)
def test_a_court_order_is_whole_or_not_sent(bookings: BookingPublisher, changed: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        bookings.publish_order(**{**ORDER, **changed})


def test_no_image_is_in_the_text_of_a_value() -> None:
    """G10."""
    for image in (Photo(data=b"SECRET"), Fingerprint(data=b"SECRET"), OriginalFile(data=b"SECRET")):
        assert "SECRET" not in repr(image)


def test_a_photo_that_a_booking_holds_twice_is_two_captures(bookings: BookingPublisher) -> None:
    booking = bookings.store_booking(booking_number="T-1", booked_at=AT, photos=[Photo(data=b"a"), Photo(data=b"a")])
    assert booking.captures[0].sha256 == booking.captures[1].sha256 == hashlib.sha256(b"a").hexdigest()
    assert booking.captures[0].reference != booking.captures[1].reference


def test_a_case_tool_says_who_it_is_and_how_the_user_logged_on(
    publisher: SignedPublisher, objects: ObjectStore
) -> None:
    with pytest.raises(UsageError, match="both"):
        ProbeClient(publisher, objects, "jdoe", ORI, logon=Logon(at=AT, method="OIDC"))
    with pytest.raises(UsageError, match="both"):
        ProbeClient(publisher, objects, "jdoe", ORI, publisher_id="case-tool")
