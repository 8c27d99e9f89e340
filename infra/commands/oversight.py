"""Who may what, and what is done about a violation.

`user list`, `user show`, `user corrective-action`, `user override` and `publisher list`; the rest of `user` and
`publisher` is in `infra/commands/administration.py`.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID, uuid4

import typer

from infra import wiring
from infra.commands.administration import Actor, acting
from infra.commands.common import Data, Json, out, print_json, read_file, say, table
from infra.settings import load_settings
from processors.access import ROOT_ADMINISTRATOR, counts_until
from schemas.errors import UsageError
from schemas.events import CorrectiveEffect, CorrectiveOutcome
from schemas.signing import key_id

if TYPE_CHECKING:
    from datetime import datetime

    from processors.access import Training, User
    from processors.policy import Policy

corrective_action = typer.Typer(help="What is done about a violation.", no_args_is_help=True)

UserId = Annotated[str, typer.Argument(help="Username.")]
OfAgency = Annotated[str | None, typer.Option("--ori", help="Only those of this agency.")]


def list_users(ori: OfAgency = None, as_json: Json = False, data: Data = None) -> None:
    """List users: standing, training, agreements, last logon and open corrective cases, as of now."""
    listed = [facts for facts in _users(data) if ori in (None, facts["ori"])]
    if as_json:
        print_json(listed)
        return
    columns = ("user", "agency", "roles", "access", "training", "not accepted", "last logon", "open cases")
    out.print(table("Users", columns, [_row(facts) for facts in listed]))


def show_user(user_id: UserId, as_json: Json = False, data: Data = None) -> None:
    """Show all that is known of a user."""
    found = [facts for facts in _users(data) if facts["user_id"] == user_id]
    if not found:
        raise UsageError(f"User {user_id} is not registered; `leadstream user list` shows who is.")
    (facts,) = found
    if as_json:
        print_json(facts)
        return
    said = {
        "agency": facts["ori"],
        "roles": ", ".join(facts["roles"]),
        "access": facts["standing"],
        "key": facts["key_id"] or "none; a publisher signs for the user",
        "last logon": _logon(facts),
    }
    rows = [*said.items()]
    rows += [
        ("training", f"{_training(each)}, approved by {each['approved_by']}, SHA-256 {each['material_sha256']}")
        for each in facts["trainings"]
    ]
    rows += [("course missing", course) for course in facts["courses_missing"]]
    rows += [("accepted", f"{_agreement(each)}, SHA-256 {each['document_sha256']}") for each in facts["agreements"]]
    rows += [("not accepted", _agreement(each)) for each in facts["agreements_missing"]]
    rows += [("open case", _case(each)) for each in facts["open_corrective_actions"]]
    out.print(table(f"User {user_id}", ("", ""), rows))


def list_publishers(ori: OfAgency = None, as_json: Json = False, data: Data = None) -> None:
    """List the systems that may publish, for which agency and what."""
    known = wiring.directory_as_published(load_settings(data)).publishers
    listed = [
        {
            "publisher_id": each.publisher_id,
            "ori": each.ori,
            "may_publish": sorted(each.may_publish),
            "key_id": key_id(each.public_key),
        }
        for _, each in sorted(known.items())
        if ori in (None, each.ori)
    ]
    if as_json:
        print_json(listed)
        return
    rows = [(each["publisher_id"], each["ori"], each["key_id"], ", ".join(each["may_publish"])) for each in listed]
    out.print(table("Publishers", ("publisher", "agency", "key", "may publish"), rows))


@corrective_action.command("open")
def open_corrective_action(
    user_id: UserId,
    section: Annotated[str, typer.Option(help="The section of the law, policy or agreement that applies.")],
    facts: Annotated[str, typer.Option(help="What happened, in words; it is audited.")],
    effect: Annotated[CorrectiveEffect, typer.Option(help="What happens to the user's access until it is closed.")],
    probe: Annotated[UUID | None, typer.Option(help="The search that it is about.")] = None,
    actor: Actor = ROOT_ADMINISTRATOR,
    data: Data = None,
) -> None:
    """Open a case about a violation; searches of the user that wait are refused as well."""
    case_id = uuid4()
    with acting(data, actor) as (administration, _):
        administration.open_corrective_action(
            corrective_case_id=case_id, user_id=user_id, section=section, facts=facts, effect=effect, probe_id=probe
        )
    say(f"Corrective case {case_id} about {user_id} is open; its effect on access is {effect}.")


@corrective_action.command("close")
def close_corrective_action(
    user_id: UserId,
    case_id: Annotated[UUID, typer.Argument(help="The case; `user show` shows it.")],
    outcome: Annotated[CorrectiveOutcome, typer.Option(help="What was found.")],
    findings: Annotated[str, typer.Option(help="What was found, in words; it is audited.")],
    restore: Annotated[bool, typer.Option("--restore-access", help="Give back what the opening took away.")] = False,
    actor: Actor = ROOT_ADMINISTRATOR,
    data: Data = None,
) -> None:
    """Close a case with its outcome."""
    with acting(data, actor) as (administration, _):
        administration.close_corrective_action(
            corrective_case_id=case_id, user_id=user_id, outcome=outcome, findings=findings, restores_access=restore
        )
    say(f"Corrective case {case_id} about {user_id} is closed: {outcome}.")


def override(
    supervisor: Annotated[str, typer.Option("--as", help="User id of the supervisor who grants it.")],
    image: Annotated[Path, typer.Option(help="The image, exactly as it will be searched.")],
    case: Annotated[str, typer.Option(help="Case number, exactly as in the request.")],
    reason: Annotated[str, typer.Option(help="Why, in words; it is audited.")],
    hours: Annotated[int, typer.Option(min=1, help="For how long it counts.")] = 24,
    data: Data = None,
) -> None:
    """Let an image of poor quality be searched in one case, as a supervisor of the agency."""
    digest = hashlib.sha256(read_file(image)).hexdigest()
    known = wiring.directory_as_published(load_settings(data)).users.get(supervisor)
    if known is None:
        raise UsageError(f"User {supervisor} is not registered; an administrator registers users.")
    with acting(data, supervisor) as (administration, _):
        administration.grant_quality_override(
            ori=known.ori,
            case_number=case,
            image_sha256=digest,
            reason=reason,
            expires_at=wiring.now() + timedelta(hours=hours),
        )
    say(f"The image may be searched in case {case} for {hours} h; others than {supervisor} ask for it.")


def _users(data: Path | None) -> list[dict[str, Any]]:
    settings = load_settings(data)
    known = wiring.directory_as_published(settings)
    at = wiring.now()
    policy = wiring.policy_in_force(settings, known, at)
    return [_facts(user, policy, at) for _, user in sorted(known.users.items())]


def _facts(user: User, policy: Policy, at: datetime) -> dict[str, Any]:
    trainings = [_training_facts(each, policy, at) for each in user.trainings]
    asked = {**policy.users.agreements, **policy.agency(user.ori).agreements}
    return {
        "user_id": user.user_id,
        "ori": user.ori,
        "roles": sorted(user.roles),
        "standing": user.standing.value,
        "key_id": key_id(user.public_key) if user.public_key else None,
        "trainings": trainings,
        "courses_missing": sorted(
            policy.users.courses.keys() - {each["course"] for each in trainings if each["valid"]}
        ),
        "agreements": [
            {"agreement": agreement, "version": version, "document_sha256": digest}
            for (agreement, version), digest in sorted(user.agreements.items())
        ],
        "agreements_missing": [
            {"agreement": agreement, "version": version}
            for agreement, version in sorted(asked.items())
            if (agreement, version) not in user.agreements
        ],
        "last_logon": user.last_logon and {"at": user.last_logon.at.isoformat(), "method": user.last_logon.method},
        "open_corrective_actions": [
            {
                "corrective_case_id": str(case.case_id),
                "section": case.section,
                "effect": case.effect.value,
                "opened_at": case.opened_at.isoformat(),
                "opened_by": case.opened_by,
                "probe_id": case.probe_id and str(case.probe_id),
            }
            for case in user.open_cases
        ],
    }


def _training_facts(training: Training, policy: Policy, at: datetime) -> dict[str, Any]:
    until = counts_until(training, policy.users.courses)
    return {
        "course": training.course,
        "version": training.version,
        "material_sha256": training.material_sha256,
        "approved_by": training.approved_by,
        "completed_at": training.completed_at.isoformat(),
        "expires_at": (until or training.expires_at).isoformat(),
        "valid": until is not None and training.completed_at <= at < until,
    }


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    return (
        facts["user_id"],
        facts["ori"],
        "\n".join(facts["roles"]),
        facts["standing"],
        "\n".join([*map(_training, facts["trainings"]), *(f"{each} missing" for each in facts["courses_missing"])]),
        "\n".join(each["agreement"] for each in facts["agreements_missing"]),
        _logon(facts),
        "\n".join(f"{each['effect']} {each['section']}" for each in facts["open_corrective_actions"]),
    )


def _training(facts: dict[str, Any]) -> str:
    said = f"{facts['course']} {facts['version']} to {facts['expires_at'][:10]}"
    return said if facts["valid"] else f"{said}, not valid"


def _case(facts: dict[str, Any]) -> str:
    opened = f"opened {facts['opened_at'][:19]}Z by {facts['opened_by']}"
    return f"{facts['corrective_case_id']}: {facts['effect']}, {facts['section']}, {opened}"


def _agreement(facts: dict[str, Any]) -> str:
    return f"{facts['agreement']} {facts['version']}"


def _logon(facts: dict[str, Any]) -> str:
    logon = facts["last_logon"]
    return f"{logon['at'][:16]}Z {logon['method']}" if logon else "never"
