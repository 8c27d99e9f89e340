"""`order`: court orders: sent as a jail booking system does, and what became of them."""

from __future__ import annotations

from datetime import datetime, time
from typing import Annotated

import typer

from connectors.bookings import BookingPublisher
from infra import wiring
from infra.commands.common import Data, Json, load_key, only_publisher, out, print_json, say, signed, table
from infra.data_folder import DataFolder
from infra.settings import load_settings
from schemas.codec import decode_as_written, encode, stored_payload
from schemas.events import BookingOutcome, OrderKind

OUTCOME_LIMIT_S = 60.0
DONE, REFUSED = 0, 1
_LISTED = """
SELECT court, order_number, kind, statute, ori, booking_number, effect, outcome, code, received_at, seconds, parked
FROM audit.orders
WHERE parked OR NOT {parked:Bool}
ORDER BY received_at
"""

order = typer.Typer(help="Court orders: seal, expunge, unseal.", no_args_is_help=True)


def _order_command(kind: OrderKind, what_for: str) -> None:
    """Add the command that sends orders of a kind."""

    def command(
        ori: Annotated[str, typer.Option(help="ORI of the agency.")],
        booking_number: Annotated[str, typer.Option(help="The agency's number of the arrest.")],
        statute: Annotated[str, typer.Option(help='Legal ground as the policy writes it, e.g. "CA PC 851.91".')],
        court: Annotated[str, typer.Option(help="Court that made the order.")],
        number: Annotated[str, typer.Option(help="The court's number of the order.")],
        effect: Annotated[str | None, typer.Option(help="Default: what protects the person most.")] = None,
        ordered_at: Annotated[datetime | None, typer.Option(help="Date of the order, UTC; default: today.")] = None,
        publisher: Annotated[str | None, typer.Option(help="Who sends; default: the only one on this machine.")] = None,
        as_json: Json = False,
        data: Data = None,
    ) -> int:
        settings = load_settings(data)
        folder = DataFolder(settings.data)
        name = publisher or only_publisher(folder)
        key = load_key(folder.publisher_key(name), f"publisher {name}", "Register it: leadstream publisher register.")
        # A day and not a moment: the same order typed twice is the same event.
        at = wiring.as_utc(ordered_at or datetime.combine(wiring.now().date(), time()))
        with signed(settings, key) as connection:
            client = BookingPublisher(connection, wiring.object_store(settings), name, ori)
            published = client.publish_order(
                booking_number=booking_number,
                order=kind,
                statute=statute,
                court=court,
                order_number=number,
                ordered_at=at,
                effect=effect,
            )
            answer = client.await_outcome(published, OUTCOME_LIMIT_S)
        if as_json:
            print_json(stored_payload(decode_as_written(encode(answer))))
        else:
            rows = [(ori, booking_number, kind, number, answer.outcome, answer.effect)]
            out.print(table("", ("ori", "booking", "order", "number", "outcome", "effect"), rows))
        if answer.code:
            say(f"{answer.code}: {answer.message}")
        return REFUSED if answer.outcome is BookingOutcome.REFUSED else DONE

    order.command(kind.lower(), help=what_for)(command)


_order_command(
    OrderKind.SEAL,
    "Take a booking out of the gallery until an unseal. Effects: withdraw-and-mask (default), withdraw.",
)
_order_command(
    OrderKind.EXPUNGE,
    "Take a booking out for ever and destroy the key of its images. It cannot be undone.",
)
_order_command(
    OrderKind.UNSEAL,
    "Lift a seal. Effects: lift (default; the booking is to be sent again), lift-and-re-enrol.",
)


@order.command("list")
def list_orders(
    parked: Annotated[bool, typer.Option("--parked", help="Only orders whose booking has not come.")] = False,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Show the orders in the audit trail, what became of each, and the seconds until it was obeyed."""
    with wiring.audit_reader(load_settings(data)) as reader:
        columns, rows = reader.query(_LISTED, {"parked": parked})
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    shown = [(*row[:-1], "no booking yet" if row[-1] else "") for row in rows]
    out.print(table("Court orders", columns, shown))
