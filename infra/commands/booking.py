"""`book`: what a jail booking system does, by hand."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from connectors.bookings import BookingPublisher, Fingerprint, Photo
from infra import wiring
from infra.commands.common import Data, Json, load_key, only_publisher, out, print_json, read_file, say, signed, table
from infra.data_folder import DataFolder
from infra.settings import load_settings
from processors.quality import in_words
from schemas.codec import decode_as_written, encode, stored_payload
from schemas.events import BookingOutcome

OUTCOME_LIMIT_S = 60.0
MEDIA_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".jp2": "image/jp2"}


def book(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Frontal photos taken at booking.")],
    booking_number: Annotated[str, typer.Option(help="The agency's number of this arrest.")],
    ori: Annotated[str, typer.Option(help="ORI of the agency.")],
    sid: Annotated[str | None, typer.Option(help="State identification number, if the state has one.")] = None,
    fingerprint: Annotated[list[Path] | None, typer.Option(help="Fingerprint image; repeat. Stored only.")] = None,
    booked_at: Annotated[datetime | None, typer.Option(help="When, UTC; default: now.")] = None,
    publisher: Annotated[str | None, typer.Option(help="Who publishes; default: the only one on this machine.")] = None,
    as_json: Json = False,
    data: Data = None,
) -> int:
    """Publish a booking and wait for what becomes of it; exit code 1 when nothing was enrolled."""
    settings = load_settings(data)
    folder = DataFolder(settings.data)
    name = publisher or only_publisher(folder)
    key = load_key(folder.publisher_key(name), f"publisher {name}", "Register it: leadstream publisher register.")
    images = [Photo(data=read_file(path), media_type=_media_type(path)) for path in photos]
    prints = [Fingerprint(data=read_file(path), media_type=_media_type(path)) for path in fingerprint or ()]
    with signed(settings, key) as connection:
        client = BookingPublisher(connection, wiring.object_store(settings), name, ori)
        published = client.publish_booking(
            booking_number=booking_number,
            booked_at=wiring.as_utc(booked_at) if booked_at else wiring.now(),
            photos=images,
            fingerprints=prints,
            sid=sid,
        )
        answer = client.await_outcome(published, OUTCOME_LIMIT_S)
    if as_json:
        print_json(stored_payload(decode_as_written(encode(answer))))
    else:
        files = [*photos, *(fingerprint or ())]
        rows = [
            (path.name, capture.disposition, capture.code, capture.message)
            for path, capture in zip(files, answer.captures, strict=False)
        ]
        out.print(table(f"{ori} {booking_number}: {answer.outcome}", ("file", "became", "code", "what to do"), rows))
        for path, capture in zip(files, answer.captures, strict=False):
            if capture.measurements:
                out.print(f"{path.name}: {in_words(capture.measurements)}", markup=False)
    if answer.code:
        say(f"{answer.code}: {answer.message}")
    return 0 if answer.outcome is BookingOutcome.ENROLLED else 1


def _media_type(path: Path) -> str:
    return MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")
