"""`dead-letters`: what could not be processed, why, and the way back once the cause is mended."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from connectors.dead_letters import Replays, describe_original, open_original, read_cases
from connectors.kafka_log import KafkaLog
from infra import wiring
from infra.commands.common import Data, Json, out, print_json, say, table
from infra.settings import load_settings
from processors.dead_letters import Case, State
from schemas.errors import DomainFault, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

dead_letters = typer.Typer(help="Records that could not be processed.", no_args_is_help=True)
NOT_ALL_REPLAYED = 1
UUID_CHARS = 36
SHOWN_ID_CHARS = 13


@dead_letters.command("list")
def list_dead_letters(
    every: Annotated[bool, typer.Option("--all", help="Also those that were replayed.")] = False,
    code: Annotated[str | None, typer.Option(help="Only those of this code.")] = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """List the open dead letters, oldest first, and count them by code."""
    now = wiring.now()
    cases = _cases(data)
    counts = Counter(case.letter.code for case in cases if case.state is State.OPEN)
    shown = [
        case for case in cases if (every or case.state is State.OPEN) and (code is None or case.letter.code == code)
    ]
    if as_json:
        print_json(
            {
                "open": counts.total(),
                "open_by_code": dict(counts.most_common()),
                "dead_letters": [_facts(case, now) for case in shown],
            },
        )
        return
    rows = [
        (
            str(case.letter.event_id)[:SHOWN_ID_CHARS],
            case.state.value,
            case.letter.code,
            str(case.letter.source),
            _age(case, now),
            case.letter.value_size_bytes,
            case.letter.replay_count,
            case.letter.message,
        )
        for case in shown
    ]
    columns = ("id begins", "state", "code", "source", "age", "bytes", "replays", "reason")
    if rows:
        out.print(table("Dead letters", columns, rows))
        out.print(table("Open", ("code", "count"), counts.most_common()))
    say(f"{counts.total()} open of {len(cases)}." if cases else "There are no dead letters.")


@dead_letters.command("show")
def show_dead_letter(
    ident: Annotated[str, typer.Argument(metavar="ID", help="Its id, or the first characters of it.")],
    save: Annotated[
        Path | None,
        typer.Option(help="Write the original value to this new file, readable by you only; it may be biometric."),
    ] = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Show all about one dead letter, and whether its original can be had; never its bytes."""
    settings = load_settings(data)
    case = _one(_cases(data), ident)
    store = wiring.object_store(settings)
    original = describe_original(case.letter, store)
    facts = {
        **_facts(case, wiring.now()),
        "occurred_at": case.letter.occurred_at.isoformat(),
        "actor": case.letter.actor,
        "value_sha256": case.letter.value_sha256,
        "reference": case.letter.reference,
        "original": {
            "readable": original.record is not None,
            "content": original.content,
            "key_size_bytes": len(original.record.key or b"") if original.record else None,
            "headers": len(original.record.headers) if original.record else None,
        },
    }
    if save is not None:
        _save(save, open_original(case.letter, store).value)
        say(f"The original value is in {save}; remove it when you are done with it.")
    if as_json:
        print_json(facts)
    else:
        out.print(table(f"Dead letter {case.letter.event_id}", ("fact", "value"), _lines(facts)))


@dead_letters.command("replay")
def replay_dead_letters(
    ident: Annotated[str | None, typer.Argument(metavar="[ID]", help="One dead letter.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every open one.")] = False,
    code: Annotated[str | None, typer.Option(help="Every open one of this code.")] = None,
    as_json: Json = False,
    data: Data = None,
) -> int:
    """Put originals back at the end of their topics, once the cause is mended; exit code 1 unless all were."""
    if (ident is not None) + every + (code is not None) != 1:
        raise UsageError("Name one dead letter, or --all, or --code CODE.")
    settings = load_settings(data)
    config = wiring.kafka_config(settings)
    log = KafkaLog(config)
    cases = read_cases(log)
    chosen = [_one(cases, ident)] if ident is not None else _open(cases, code)
    results: list[dict[str, Any]] = []
    with Replays(config, log=log, store=wiring.object_store(settings), clock=wiring.now) as replays:
        for case in chosen:
            letter = str(case.letter.event_id)
            try:
                position = replays.replay(case)
            except DomainFault as fault:
                say(f"{letter} {fault.code}: {fault}")
                results.append({"id": letter, "replayed_as": None, "code": fault.code, "message": str(fault)})
            else:
                say(f"{letter} is now {position}")
                results.append({"id": letter, "replayed_as": str(position), "code": None, "message": None})
    replayed = sum(result["code"] is None for result in results)
    if as_json:
        print_json({"replayed": replayed, "refused": len(results) - replayed, "dead_letters": results})
    else:
        say(f"{replayed} of {len(results)} replayed.")
    return 0 if replayed == len(results) else NOT_ALL_REPLAYED


def _cases(data: Path | None) -> tuple[Case, ...]:
    return read_cases(KafkaLog(wiring.kafka_config(load_settings(data))))


def _open(cases: Sequence[Case], code: str | None) -> list[Case]:
    """Return the open ones in the order in which their originals stood, which is what their keys are for."""
    chosen = [case for case in cases if case.state is State.OPEN and code in (None, case.letter.code)]
    return sorted(
        chosen, key=lambda case: (case.letter.source.topic, case.letter.source.partition, case.letter.source.offset)
    )


def _one(cases: Sequence[Case], ident: str) -> Case:
    found = [case for case in cases if str(case.letter.event_id).startswith(ident.lower())]
    if len(found) != 1:
        many = (
            f"{len(found)} dead letters begin so; give more characters." if found else "There is no such dead letter."
        )
        raise UsageError(f"{ident[:UUID_CHARS]!r}: {many} See `leadstream dead-letters list --all`.")
    return found[0]


def _facts(case: Case, now: datetime) -> dict[str, Any]:
    letter = case.letter
    return {
        "id": str(letter.event_id),
        "state": case.state.value,
        "code": letter.code,
        "message": letter.message,
        "stage": letter.stage,
        "source": letter.source.to_record(),
        "first_seen_at": letter.first_seen_at.isoformat(),
        "age_s": round((now - letter.first_seen_at).total_seconds(), 3),
        "value_size_bytes": letter.value_size_bytes,
        "replay_count": letter.replay_count,
        "replayed_as": case.replayed_as.to_record() if case.replayed_as else None,
        "next_id": _text(case.next_letter_id),
    }


def _text(ident: UUID | None) -> str | None:
    return None if ident is None else str(ident)


def _age(case: Case, now: datetime) -> str:
    age = str(now - case.letter.first_seen_at)
    return age.partition(".")[0]


def _lines(facts: dict[str, Any]) -> list[tuple[str, object]]:
    lines: list[tuple[str, object]] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [(f"{name} {inner}", content) for inner, content in value.items()]
        else:
            lines.append((name, value))
    return lines


def _save(path: Path, value: bytes | None) -> None:
    if value is None:
        raise UsageError("The original has no value; there is nothing to write.")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(value)
    except OSError as error:
        raise UsageError(f"{path} cannot be written anew: {error.strerror}.") from None
