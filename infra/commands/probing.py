"""`probe`: a trained investigator asks for a candidate list, signed with the investigator's own key."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from connectors.access import AccessAdministration
from connectors.probes import ProbeClient
from infra import wiring
from infra.commands.common import Data, Json, load_key, out, print_json, read_file, say, signed, table
from infra.data_folder import DataFolder
from infra.settings import load_settings
from processors.quality import in_words
from schemas.codec import decode_as_written, encode, stored_payload
from schemas.errors import UsageError
from schemas.events import ImageEdit, ProbeRefused

OUTCOME_LIMIT_S = 60.0
_EDITS = TypeAdapter(tuple[ImageEdit, ...])


def probe(
    image: Annotated[Path, typer.Argument(help="The probe image.")],
    user: Annotated[str, typer.Option(help="Who asks; signs with the own key on this machine.")],
    reason: Annotated[str, typer.Option(help="Reason code of the policy, e.g. FELONY_INVESTIGATION.")],
    case: Annotated[str, typer.Option(help="Case number.")],
    basis: Annotated[str, typer.Option(help="Legal basis, e.g. CRIMINAL_INVESTIGATION.")],
    source: Annotated[str, typer.Option(help="Where the image comes from, e.g. WITNESS_PHOTO.")],
    text: Annotated[str, typer.Option(help="The reason in your own words, as the policy asks; auditors read it.")] = "",
    candidates: Annotated[int | None, typer.Option(help="Length of the list; default: as the policy says.")] = None,
    collected_by: Annotated[str | None, typer.Option(help="Who collected the image; default: who asks.")] = None,
    collected_at: Annotated[
        datetime | None, typer.Option(help="When it was collected, UTC; default: the time of the original's file.")
    ] = None,
    collection_basis: Annotated[
        str | None, typer.Option(help="On what basis, e.g. CONSENT; default: the policy's usual one for the source.")
    ] = None,
    original: Annotated[
        Path | None, typer.Option(help="The image as collected, where IMAGE was edited; only its SHA-256 is sent.")
    ] = None,
    edits: Annotated[
        Path | None,
        typer.Option(
            help="JSON list of the edits that lead from the original to IMAGE, each with tool, operator, performed_at, "
            "operation, description, before_sha256 and after_sha256."
        ),
    ] = None,
    as_json: Json = False,
    data: Data = None,
) -> int:
    """Ask for a candidate list: an investigative lead, never an identification. Exit code 1 when refused.

    What is stated about the image for you, because you did not state it, is shown before it is signed.
    """
    settings = load_settings(data)
    folder = DataFolder(settings.data)
    key = load_key(folder.user_key(user), f"user {user}", "Register the user: leadstream user register.")
    photo = read_file(image)
    steps = _read_edits(edits)
    directory = wiring.directory_as_published(settings)
    known = directory.users.get(user)
    if known is None:
        raise UsageError(f"User {user} is not registered; an administrator registers users.")
    rules = wiring.policy_in_force(settings, directory, wiring.now()).probes
    at = wiring.as_utc(collected_at) if collected_at else _time_of_file(image, original, steps)
    by, on = collected_by or user, collection_basis or rules.usual_collection_basis.get(source)
    if None in (collected_by, collected_at, collection_basis):
        when = f"at {at.isoformat(timespec='seconds')}" if at else "at no stated time"
        ground = f"the basis {on}" if on else "no stated basis"
        say(
            f"You state that the image was collected by {by}, {when}, on {ground}. "
            "Where that is not so: --collected-by, --collected-at, --collection-basis."
        )
    with signed(settings, key) as connection:
        AccessAdministration(connection, f"user:{user}").logged_on(user_id=user, method="OWN_KEY")
        client = ProbeClient(connection, wiring.object_store(settings), user, known.ori)
        submitted = client.submit(
            photo,
            reason_code=reason,
            reason_text=text,
            case_number=case,
            legal_basis=basis,
            source_type=source,
            requested_candidates=rules.default_candidates if candidates is None else candidates,
            edits=steps,
            original_sha256=sha256(read_file(original)).hexdigest() if original else None,
            collected_by=by,
            collected_at=at,
            collection_basis=on,
        )
        outcome = client.await_outcome(submitted, OUTCOME_LIMIT_S)
    if as_json:
        print_json(stored_payload(decode_as_written(encode(outcome))))
    if isinstance(outcome, ProbeRefused):
        say(f"{outcome.code}: {outcome.message}")
        if outcome.measurements:
            say(f"Measured: {in_words(outcome.measurements)}")
        return 1
    if not as_json:
        rows = [
            (
                each.rank,
                each.person,
                each.booking_number,
                each.score,
                "unknown" if each.expected_non_mates is None else f"{each.expected_non_mates:g}",
                "synthetic" if each.synthetic else "",
            )
            for each in outcome.candidates
        ]
        title = f"Probe {outcome.probe_id}: {outcome.returned} candidates among {outcome.gallery_templates} templates"
        out.print(table(title, ("rank", "person", "booking", "score", "by chance", ""), rows))
        out.print(
            "By chance: so many templates of other persons are expected to score at least this much in a gallery of "
            "this size. It is no probability that the candidate is the person."
        )
        out.print(f"The probe: {in_words(outcome.measurements)}", markup=False)
        out.print(f"Published threshold for a gallery of this size: {outcome.threshold}")
        out.print(outcome.lead_notice, style="bold", markup=False)
    return 0


def _time_of_file(image: Path, original: Path | None, edits: tuple[ImageEdit, ...]) -> datetime | None:
    """Return when the original was written; None where it is not here: an edited file says nothing of its original."""
    file = original or (None if edits else image)
    if file is None:
        return None
    try:
        return datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from None


def _read_edits(path: Path | None) -> tuple[ImageEdit, ...]:
    """Return the chain of edits of a file; a time without a zone is UTC.

    Raises:
        UsageError: it cannot be read, or is no such list; the text says what is wrong.
    """
    if path is None:
        return ()
    try:
        edits = _EDITS.validate_json(read_file(path))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'file'}: {each['msg']}" for each in error.errors())
        raise UsageError(f"{path} is no JSON list of edits: {problems}") from None
    return tuple(replace(edit, performed_at=wiring.as_utc(edit.performed_at)) for edit in edits)
