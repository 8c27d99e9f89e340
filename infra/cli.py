"""The command `leadstream`: parses, calls, and turns errors into exit codes.

0 done, 1 refused or evidence wrong (a code is printed), 2 usage, 3 something is away. No stack trace reaches a user;
LEADSTREAM_DEBUG=1 shows it to a developer.
"""

from __future__ import annotations

import os
import sys
from typing import Any, cast

import typer
from typer.exceptions import TyperException

from infra.commands import (
    administration,
    auditing,
    benchmarking,
    booking,
    dead_letters,
    demonstrating,
    evaluating,
    generations,
    noticing,
    observing,
    operating,
    ordering,
    oversight,
    policies,
    probing,
    retaining,
    reviewing,
    running,
)
from infra.commands.common import err
from schemas.errors import ContractError, DomainFault, IntegrityError, LeadstreamError, TransientError, UsageError

DONE, REFUSED, USAGE, AWAY = 0, 1, 2, 3
INTERRUPTED = 130

app = typer.Typer(
    name="leadstream",
    help="Facial recognition for a regional identification bureau. A candidate list is an investigative lead, never an "
    "identification.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    running.init,
    running.up,
    running.worker,
    running.sink,
    running.clerk,
    observing.status,
    booking.book,
    probing.probe,
    demonstrating.demo,
    evaluating.evaluate,
):
    app.command()(command)
for group in ("agency", "user", "publisher"):
    app.add_typer(getattr(administration, group), name=group)
app.add_typer(reviewing.review, name="review")
app.add_typer(noticing.notice, name="notice")
for name, seen in (("list", oversight.list_users), ("show", oversight.show_user), ("override", oversight.override)):
    administration.user.command(name)(seen)
administration.user.add_typer(oversight.corrective_action, name="corrective-action")
administration.publisher.command("list")(oversight.list_publishers)
app.add_typer(ordering.order, name="order")
app.add_typer(generations.generation, name="generation")
app.add_typer(policies.policy, name="policy")
app.add_typer(auditing.audit, name="audit")
app.add_typer(benchmarking.bench, name="bench")
app.add_typer(dead_letters.dead_letters, name="dead-letters")
app.add_typer(retaining.retention, name="retention")
for group in ("topics", "config", "assets"):
    app.add_typer(getattr(operating, group), name=group)


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line; return its exit code."""
    try:
        result = app(arguments, standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except TyperException as error:
        # Wrong words on the command line; typer knows how to show them, with the command's usage.
        cast("Any", error).show()
        return USAGE
    except LeadstreamError as error:
        if os.environ.get("LEADSTREAM_DEBUG") == "1":
            raise
        return _report(error)
    except Exception as error:
        if os.environ.get("LEADSTREAM_DEBUG") == "1":
            raise
        err.print(
            f"UNEXPECTED: {type(error).__name__}. This is a fault of Leadstream; run again with LEADSTREAM_DEBUG=1 and "
            "report what it prints.",
            markup=False,
        )
        return REFUSED
    return result if isinstance(result, int) else DONE


def _report(error: LeadstreamError) -> int:
    code, status = {
        UsageError: ("USAGE", USAGE),
        TransientError: ("AWAY", AWAY),
        ContractError: ("CONTRACT", REFUSED),
        IntegrityError: ("INTEGRITY", REFUSED),
    }.get(type(error), ("REFUSED", REFUSED))
    if isinstance(error, DomainFault):
        code = error.code
    err.print(f"{code}: {error}", markup=False, highlight=False)
    return status


if __name__ == "__main__":
    main()
