"""`probe`: a trained investigator asks for a candidate list, signed with the investigator's own key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from connectors.access import AccessAdministration
from connectors.probes import ProbeClient
from infra import wiring
from infra.commands.common import Data, Json, load_key, out, print_json, read_file, say, signed, table
from infra.data_folder import DataFolder
from infra.settings import load_settings
from processors.quality import in_words
from schemas.codec import decode_as_written, encode, stored_payload
from schemas.errors import UsageError
from schemas.events import ProbeRefused

OUTCOME_LIMIT_S = 60.0


def probe(
    image: Annotated[Path, typer.Argument(help="The probe image.")],
    user: Annotated[str, typer.Option(help="Who asks; signs with the own key on this machine.")],
    reason: Annotated[str, typer.Option(help="Reason code of the policy, e.g. FELONY_INVESTIGATION.")],
    text: Annotated[str, typer.Option(help="The reason in your own words; auditors read it.")],
    case: Annotated[str, typer.Option(help="Case number.")],
    basis: Annotated[str, typer.Option(help="Legal basis, e.g. CRIMINAL_INVESTIGATION.")],
    source: Annotated[str, typer.Option(help="Where the image comes from, e.g. WITNESS_PHOTO.")],
    candidates: Annotated[int, typer.Option(help="Length of the list, 2 to 50.")] = 20,
    as_json: Json = False,
    data: Data = None,
) -> int:
    """Ask for a candidate list: an investigative lead, never an identification. Exit code 1 when refused."""
    settings = load_settings(data)
    folder = DataFolder(settings.data)
    key = load_key(folder.user_key(user), f"user {user}", "Register the user: leadstream user register.")
    photo = read_file(image)
    known = wiring.directory_as_published(settings).users.get(user)
    if known is None:
        raise UsageError(f"User {user} is not registered; an administrator registers users.")
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
            requested_candidates=candidates,
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
