"""`notice`: what receivers of a record or a lead have to be told, and that they have done what it asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from connectors.kafka_log import KafkaLog
from connectors.notices import NoticeClient, read_notices
from infra import wiring
from infra.commands.common import Data, Json, load_key, out, print_json, say, signed, table
from infra.data_folder import DataFolder
from infra.settings import load_settings
from processors.notice_states import NoticeState
from schemas.codec import decode_as_written, encode, stored_payload
from schemas.errors import UsageError
from schemas.events import SealedRecordNotice

if TYPE_CHECKING:
    from datetime import datetime

    from processors.notice_states import ReceivedNotice

notice = typer.Typer(help="Notices to those who received a sealed record or a withdrawn lead.", no_args_is_help=True)

ANSWER_LIMIT_S = 60.0


@notice.command("list")
def list_notices(
    user: Annotated[str, typer.Option(help="Whose notices.")],
    as_json: Json = False,
    data: Data = None,
) -> None:
    """List the notices of a user and whether they are open, overdue or acknowledged."""
    settings = load_settings(data)
    now = wiring.now()
    if user not in wiring.directory_as_published(settings).users:
        raise UsageError(f"User {user} is not registered; `leadstream user list` shows who is.")
    found = read_notices(KafkaLog(wiring.kafka_config(settings)), user)
    waiting = sum(each.acknowledged is None for each in found)
    if as_json:
        print_json({"user_id": user, "not_acknowledged": waiting, "notices": [_facts(each, now) for each in found]})
        return
    rows = [
        (
            str(each.notice.event_id),
            each.state(now).value,
            f"{each.notice.due_at:%Y-%m-%d %H:%M}",
            each.notice.case_number,
            _what(each),
            each.notice.message,
        )
        for each in found
    ]
    if rows:
        out.print(table(f"Notices of {user}", ("notice", "state", "due (UTC)", "case", "about", "what to do"), rows))
    overdue = sum(each.state(now) is NoticeState.OVERDUE for each in found)
    say(f"{waiting} of {len(found)} notices are not acknowledged, {overdue} overdue.")


@notice.command("acknowledge")
def acknowledge(
    notice_id: Annotated[UUID, typer.Argument(metavar="NOTICE_ID", help="As `leadstream notice list` shows it.")],
    user: Annotated[str, typer.Option("--as", help="Who acknowledges; signs with the own key on this machine.")],
    statement: Annotated[str, typer.Option(help="What was done with the copies, in words; it is audited.")],
    as_json: Json = False,
    data: Data = None,
) -> int:
    """Say that what a notice asks for is done. Exit code 1 when it does not count."""
    settings = load_settings(data)
    key = load_key(
        DataFolder(settings.data).user_key(user), f"user {user}", "Register the user: leadstream user register."
    )
    with signed(settings, key) as connection:
        client = NoticeClient(connection, user)
        earlier = {each.notice.event_id: each for each in client.notices()}.get(notice_id)
        answer = earlier.acknowledged if earlier else None
        if answer is None:
            after = earlier.last_answer.event_id if earlier and earlier.last_answer else None
            said = client.acknowledge(notice_id, statement=statement, after=after)
            answer = client.await_answer(said, ANSWER_LIMIT_S)
    if as_json:
        print_json(
            {
                "notice_id": str(notice_id),
                "accepted": answer.accepted,
                "code": answer.code,
                "message": answer.message,
            }
        )
    if not answer.accepted:
        say(f"{answer.code}: {answer.message}")
        return 1
    if not as_json:
        say(f"Notice {notice_id} is acknowledged.")
    return 0


def _what(received: ReceivedNotice) -> str:
    told = received.notice
    if isinstance(told, SealedRecordNotice):
        received_as = ", ".join(told.received_as).lower()
        return f"{told.order}: booking {told.booking_ori}/{told.booking_number}, received as {received_as}"
    return f"{told.cause}: lead {told.lead_id}"


def _facts(received: ReceivedNotice, now: datetime) -> dict[str, Any]:
    return {
        "record": type(received.notice).__name__,
        "state": received.state(now).value,
        "reminders": received.reminders,
        "acknowledged_at": received.acknowledged.occurred_at.isoformat() if received.acknowledged else None,
        "notice": stored_payload(decode_as_written(encode(received.notice))),
    }
