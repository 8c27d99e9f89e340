"""`status`: how everything is, on one screen."""

from __future__ import annotations

from infra import overview
from infra.commands.common import Data, Json, out, print_json, say, table
from infra.settings import load_settings

WELL, AWAY = 0, 3


def status(data: Data = None, as_json: Json = False) -> int:
    """Show roles, lags, dead letters and the gallery; exit code 3 when something is away."""
    seen = overview.look(load_settings(data))
    if as_json:
        print_json(seen.to_json())
        return WELL if seen.well else AWAY
    if seen.kafka is not None:
        out.print(table("leadstream status", ("part", "state", "detail"), _rows(seen)))
    for line in seen.away:
        say(f"AWAY: {line}")
    if seen.well:
        say("All is well.")
    return WELL if seen.well else AWAY


def _rows(seen: overview.Overview) -> list[tuple[str, str, str]]:
    rows = [("Kafka", "answers" if seen.kafka_reachable else "away", str(seen.kafka))]
    for role in seen.roles:
        port = "" if role.metrics_port is None else f", metrics on port {role.metrics_port}"
        rows.append((role.name, role.state, f"process {role.pid}{port}"))
    rows += [(each.topic, f"{each.lag_records} behind", f"{each.committed} of {each.end} done") for each in seen.topics]
    codes = ", ".join(f"{code} {count}" for code, count in seen.dead_letters_by_code.items())
    rows.append(("audit trail", _known(seen.audit_lag_records, "behind"), ""))
    waited = "not known" if seen.orders_behind_s is None else f"at most {seen.orders_behind_s:g} s old"
    rows.append(("waiting orders", waited, ""))
    rows.append(("dead letters", _known(seen.dead_letters_open, "open"), codes))
    rows.append(("gallery", _known(seen.gallery_templates, "templates"), _known(seen.gallery_persons, "persons")))
    return rows


def _known(count: int | None, of: str) -> str:
    return "not known" if count is None else f"{count} {of}"
