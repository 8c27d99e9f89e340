"""`retention`: what has been kept for long enough, what is kept nevertheless, and its deletion by command."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from connectors.kafka_log import KafkaLog
from infra import wiring
from infra.commands.administration import Actor, acting
from infra.commands.common import Data, Json, out, print_json, say, table
from infra.settings import load_settings
from processors.access import ROOT_ADMINISTRATOR
from schemas.codec import decode_for
from schemas.errors import ContractError, TransientError
from schemas.events import RetainedDataDestroyed
from schemas.topics import REVIEW_OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime
    from uuid import UUID

    from infra.settings import Settings
    from processors.casebook import CaseBook, Retained

retention = typer.Typer(help="What is kept of searches, and its deletion.", no_args_is_help=True)

CLERK_LIMIT_S = 60.0
POLL_S = 0.2

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")]


@retention.command("list")
def list_retained(as_json: Json = False, data: Data = None) -> None:
    """Show what has been kept for long enough: what is due, and what a review or a lead keeps nevertheless."""
    _show(wiring.casebook_as_published(load_settings(data)), wiring.now(), as_json=as_json)


@retention.command("run")
def run(dry_run: DryRun = False, as_json: Json = False, data: Data = None, actor: Actor = ROOT_ADMINISTRATOR) -> None:
    """Have the clerk delete now what is due; it does so by itself within the hour."""
    settings, at = load_settings(data), wiring.now()
    book = wiring.casebook_as_published(settings)
    if dry_run:
        _show(book, at, as_json=as_json)
        return
    due = {event.event_id for event in book.due_by_retention(at)}
    if due:
        before = KafkaLog(wiring.kafka_config(settings)).end_offsets([REVIEW_OUTCOMES])
        with acting(data, actor) as (acts, _):
            acts.request_retention_run(due_by=at)
        _await_deletion(settings, due, before)
    if as_json:
        print_json({"deleted": len(due)})
    else:
        say(f"{len(due)} deleted.")


def _await_deletion(settings: Settings, due: Collection[UUID], before: Mapping[tuple[str, int], int]) -> None:
    """Return once the clerk has said that all of it is deleted."""
    log, left, deadline = KafkaLog(wiring.kafka_config(settings)), set(due), time.monotonic() + CLERK_LIMIT_S
    while left:
        ends = log.end_offsets([REVIEW_OUTCOMES])
        for record in log.read_all(before, ends):
            try:
                event = decode_for(REVIEW_OUTCOMES, record.value)
            except ContractError:
                continue  # Nothing that the clerk wrote.
            if isinstance(event, RetainedDataDestroyed):
                left.discard(event.event_id)
        before = ends
        if left and time.monotonic() > deadline:
            raise TransientError(
                f"{len(due) - len(left)} of {len(due)} were deleted in {CLERK_LIMIT_S:g} s. See that the clerk runs, "
                "then run `leadstream retention list`: a review that was opened meanwhile keeps what it rests on."
            )
        if left:
            time.sleep(POLL_S)


def _show(book: CaseBook, at: datetime, *, as_json: bool) -> None:
    retained = sorted(book.retained(book.policy_at(at)), key=lambda each: (each.due_at, each.probe_id, each.item))
    ripe, later = [each for each in retained if each.due_at <= at], [each for each in retained if each.due_at > at]
    next_at = min((each.due_at for each in later if not each.kept_by), default=None)
    if as_json:
        print_json(
            {
                "due": [_facts(each) for each in ripe if not each.kept_by],
                "kept": [_facts(each) for each in ripe if each.kept_by],
                "not_due_yet": len(later),
                "next_due_at": next_at.isoformat() if next_at else None,
            }
        )
        return
    rows = [(each.probe_id, each.item, f"{each.due_at:%Y-%m-%d %H:%M}", each.kept_by or "") for each in ripe]
    out.print(table("Kept for long enough", ("probe", "what", "due since (UTC)", "kept by"), rows))
    then = f"; the next falls due {next_at:%Y-%m-%d %H:%M} UTC" if next_at else ""
    say(f"{sum(not each.kept_by for each in ripe)} due; {len(later)} not due yet{then}.")


def _facts(each: Retained) -> dict[str, Any]:
    return {
        "probe_id": str(each.probe_id),
        "item": each.item,
        "due_at": each.due_at.isoformat(),
        "kept_by": each.kept_by or None,
    }
