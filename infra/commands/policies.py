"""`policy`: check a policy file, let it take effect, show what holds, and explain or replay decisions by it."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from infra import wiring
from infra.commands.administration import Actor, acting
from infra.commands.common import Data, Json, out, print_json, read_file, say, table
from infra.policy_history import past_search, past_searches, with_directory
from infra.settings import load_settings
from processors.access import ROOT_ADMINISTRATOR
from processors.policy import read_policy
from processors.policy_changes import Effect, changes_between, document_of, entries_of
from processors.policy_replay import decide_anew, decided
from processors.quality_rules import refusal_by_policy
from processors.search_rules import RULES_OF_THE_SYSTEM, judgements
from schemas.errors import ContractError, UsageError
from schemas.events import CandidateListIssued, ProbeRefused
from schemas.instants import iso

if TYPE_CHECKING:
    from infra.policy_history import PastSearch
    from infra.settings import Settings
    from processors.access import Directory
    from processors.policy import Policy
    from processors.refusals import Refusal

policy = typer.Typer(help="The bureau's policy: what holds, what would change, and why.", no_args_is_help=True)
PolicyFile = Annotated[Path, typer.Argument(metavar="FILE", help="Policy file, TOML.")]
KEPT, REFUSED = "kept", "refused"


@policy.command("check")
def check(file: PolicyFile, as_json: Json = False, data: Data = None) -> None:
    """Say whether a file is a policy, and what it would change; exit code 1 where it is none."""
    settings = load_settings(data)
    new = _read(file)
    compared, current = _to_compare_with(settings)
    changes = changes_between(current, new)
    if as_json:
        listed = [
            {"entry": each.path, "before": each.before, "after": each.after, "effect": each.effect} for each in changes
        ]
        print_json({"version": new.version, "compared_with": current.version, "changes": listed})
        return
    if changes:
        rows = [(each.effect, each.path, _short(each.before), _short(each.after)) for each in changes]
        out.print(table(f"{new.version} against {current.version}", ("effect", "entry", "before", "after"), rows))
    counts = Counter(each.effect for each in changes)
    say(
        f"{file} is a policy, version {new.version}. Against {compared}, version {current.version}, it changes "
        f"{len(changes)} entries: {', '.join(f'{counts[effect]} {effect}' for effect in Effect)}."
    )
    if changes and new.version == current.version:
        say("Give it a version of its own before it is activated: an outcome names its policy by the version.")


@policy.command("activate")
def activate(
    file: PolicyFile,
    since: Annotated[datetime | None, typer.Option("--from", help="First instant, UTC; default: now.")] = None,
    actor: Actor = ROOT_ADMINISTRATOR,
    data: Data = None,
) -> None:
    """Let a policy hold for every decision from an instant on, on every worker."""
    settings = load_settings(data)
    new = _read(file)
    known = wiring.directory_as_published(settings)
    others = [wiring.policy(settings), *(other for _, other in known.policies)]
    if any(other.version == new.version and other != new for other in others):
        raise UsageError(f"Another policy has version {new.version} already; give this one a version of its own.")
    with acting(data, actor) as (acts, _):
        acts.activate_policy(document=_text(file), effective_from=wiring.as_utc(since) if since else None)
    say(f"Policy {new.version} holds from {iso(wiring.as_utc(since)) if since else 'now'} on.")


@policy.command("show")
def show(as_json: Json = False, data: Data = None) -> None:
    """Show the policy that holds now and the ones that are activated for later."""
    settings, at = load_settings(data), wiring.now()
    known = wiring.directory_as_published(settings)
    current = wiring.policy_in_force(settings, known, at)
    by = "an activation" if known.policy_at(at) is not None else "the operator's file"
    coming = [(since, other.version) for since, other in sorted(known.policies, key=lambda each: each[0]) if since > at]
    if as_json:
        print_json(
            {
                "version": current.version,
                "by": by,
                "policy": document_of(current),
                "coming": [{"version": version, "effective_from": iso(since)} for since, version in coming],
            }
        )
        return
    rows = [(entry, _short(value)) for entry, value in entries_of(document_of(current))]
    out.print(table(f"Policy {current.version}, by {by}", ("entry", "value"), rows))
    for since, version in coming:
        say(f"Policy {version} holds from {iso(since)} on.")


@policy.command("explain")
def explain(
    probe_id: Annotated[UUID, typer.Argument(help="The probe.")],
    file: Annotated[
        Path | None, typer.Option("--policy", help="The operator's policy file of then, where none was activated.")
    ] = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Show what every rule said of a search, as the policy and the directory were when it was decided."""
    settings = load_settings(data)
    ((search, known),) = with_directory(settings, [past_search(settings, probe_id)])
    outcome = search.outcome
    held = known.policy_at(outcome.occurred_at) or (_read(file) if file else wiring.policy(settings))
    if held.version != outcome.policy_version:
        raise UsageError(
            f"The probe was decided under policy {outcome.policy_version}; the one here is {held.version}. Give the "
            "operator's file of then: --policy FILE."
        )
    was = decided(outcome)
    verdicts = list(_verdicts(search, known, held))
    if as_json:
        rules = [
            {"rule": rule, "verdict": verdict, "code": code, "message": text} for rule, verdict, code, text in verdicts
        ]
        print_json(
            {
                "probe_id": str(probe_id),
                "decided_at": iso(outcome.occurred_at),
                "policy_version": held.version,
                "access_watermark": list(outcome.access_watermark),
                "outcome": {"code": was.code, "rule": was.rule},
                "rules": rules,
            }
        )
        return
    title = f"Probe {probe_id}: {was.code}, decided {iso(outcome.occurred_at)} under policy {held.version}"
    out.print(table(title, ("rule", "verdict", "code", "message"), verdicts))


@policy.command("replay")
def replay(
    file: PolicyFile,
    since: Annotated[datetime, typer.Option(help="Searches decided from this date on, UTC.")],
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Show what a policy would have decided on past searches, each as the directory stood then."""
    settings, begin = load_settings(data), wiring.as_utc(since)
    new = _read(file)
    counts: Counter[tuple[str, str]] = Counter()
    changed: list[dict[str, str]] = []
    for search, known in with_directory(settings, past_searches(settings, begin)):
        before, after = decided(search.outcome), decide_anew(search.request, search.outcome, known, new)
        counts[before.code, after.code] += 1
        if before.code != after.code:
            changed.append(
                {
                    "probe_id": str(search.request.probe_id),
                    "user_id": search.request.user_id,
                    "decided_at": iso(search.outcome.occurred_at),
                    "before": before.code,
                    "after": after.code,
                    "rule": after.rule or before.rule,
                }
            )
    if as_json:
        listed = [{"before": old, "after": now, "searches": count} for (old, now), count in sorted(counts.items())]
        document: dict[str, Any] = {"version": new.version, "since": iso(begin), "searches": counts.total()}
        print_json({**document, "counts": listed, "changed": changed})
        return
    rows = [(old, now, count) for (old, now), count in sorted(counts.items())]
    if rows:
        out.print(table(f"Searches since {iso(begin)}, by policy {new.version}", ("was", "would be", "searches"), rows))
    if changed:
        columns = ("probe", "user", "decided at", "was", "would be", "rule")
        out.print(table("Decided otherwise", columns, [tuple(each.values()) for each in changed]))
    say(f"{len(changed)} of {counts.total()} searches would have been decided otherwise.")


def _verdicts(search: PastSearch, known: Directory, held: Policy) -> list[tuple[str, str, str, str]]:
    """Return (rule, verdict, code, message) of the signature, every rule, and what the worker judged besides."""
    request, outcome = search.request, search.outcome
    rows = [_verdict("signature", known.refusal_of(search.record, request))]
    rows += [_verdict(rule.name, refusal) for rule, refusal in judgements(request, known, held, outcome.occurred_at)]
    for rule, code in RULES_OF_THE_SYSTEM.items():
        if isinstance(outcome, ProbeRefused) and outcome.code == code:
            rows.append((rule, REFUSED, code, outcome.message))
        else:
            rows.append((rule, "not the reason", "", ""))
    asked = held.probe_quality.minimum.keys() | held.probe_quality.maximum.keys()
    if not outcome.measurements:
        rows.append(("quality.probe", "not measured", "", "The image was not looked at, or no face was found in it."))
    elif isinstance(outcome, ProbeRefused) and not asked <= outcome.measurements.keys():
        rows.append(("model card", REFUSED, outcome.code, f"{outcome.message} No override lets it be searched."))
        rows.append(("quality.probe", "not measured", "", "The models cannot use the image."))
    elif isinstance(outcome, CandidateListIssued) and outcome.quality_override is not None:
        rows.append(("quality.probe", "overridden", "", f"By the supervisor's override {outcome.quality_override}."))
    else:
        poor = refusal_by_policy(outcome.measurements, held.probe_quality, held.version)
        rows.append(_verdict(poor.rule if poor else "quality.probe", poor))
    return rows


def _verdict(rule: str, refusal: Refusal | None) -> tuple[str, str, str, str]:
    return (rule, REFUSED, refusal.code, refusal.message) if refusal else (rule, KEPT, "", "")


def _text(file: Path) -> str:
    try:
        return read_file(file).decode()
    except UnicodeDecodeError:
        raise ContractError(f"{file} is no UTF-8 text.") from None


def _read(file: Path) -> Policy:
    return read_policy(_text(file))


def _to_compare_with(settings: Settings) -> tuple[str, Policy]:
    """Return the policy in force; where no system runs here, the operator's file."""
    try:
        wiring.kafka_config(settings)
        known = wiring.directory_as_published(settings)
    except UsageError:
        return "the operator's file (no system runs here)", wiring.policy(settings)
    return "the policy in force", wiring.policy_in_force(settings, known, wiring.now())


def _short(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return "; ".join(f"{entry} = {_short(content)}" for entry, content in entries_of(value))
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
