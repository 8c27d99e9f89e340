"""`audit`: what an auditor asks; read only, while everything runs or while nothing does."""

from __future__ import annotations

import csv
import sys
from typing import Annotated

import typer

from infra import wiring
from infra.commands.common import Data, Json, out, print_json, table
from infra.settings import load_settings
from schemas.errors import UsageError

audit = typer.Typer(help="The audit trail in ClickHouse.", no_args_is_help=True)


@audit.command("query")
def query(
    sql: Annotated[str, typer.Argument(help="One SELECT, SHOW or DESCRIBE; the views are in the database `audit`.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", help="name=value for {name:Type} in the text; repeat."),
    ] = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    data: Data = None,
) -> None:
    """Ask the audit trail, e.g. "SELECT * FROM audit.searches_per_user"."""
    with wiring.audit_reader(load_settings(data)) as reader:
        columns, rows = reader.query(sql, dict(_pair(each) for each in parameter or ()))
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(columns)
        writer.writerows(rows)
    else:
        out.print(table("", columns, rows))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"A parameter is written name=value, not {text!r}.")
    return name, value
