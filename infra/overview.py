"""How a system is, at one look (`leadstream status`): every part is asked, and none that is away hides another."""

from __future__ import annotations

import http.client
import json
import math
import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from prometheus_client.parser import text_string_to_metric_families

from connectors.dead_letters import read_cases
from connectors.group_progress import GroupProgress
from connectors.kafka_log import KafkaLog
from connectors.metrics import GALLERY_PERSONS, GALLERY_TEMPLATES, ORDERS_BEHIND
from infra import wiring
from infra.data_folder import DataFolder
from infra.observation import LOOPBACK
from infra.roles import CLERK, SINK
from processors.dead_letters import State
from schemas.errors import LeadstreamError, TransientError
from schemas.topics import TOPICS
from streams.worker import CONSUMED, GROUP

if TYPE_CHECKING:
    from collections.abc import Callable

    from infra.settings import Settings

ASK_TIMEOUT_S = 3.0
BROKER = "broker"
_AUDITED = "SELECT topic, partition, max(offset) + 1 FROM audit.events GROUP BY topic, partition"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleState:
    """One process of this machine."""

    name: str
    pid: int
    state: str
    """ready, not ready, not answering or gone."""
    why: str
    """Why it is not ready, in words."""
    metrics_port: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicState:
    """How far the workers are with a topic; sums over its partitions."""

    topic: str
    committed: int
    end: int
    lag_records: int


@dataclass(slots=True, kw_only=True)
class Overview:
    """The whole system; what could not be asked is None, and `away` says why."""

    kafka: str | None = None
    kafka_reachable: bool = False
    roles: list[RoleState] = field(default_factory=list)
    topics: list[TopicState] = field(default_factory=list)
    audit_lag_records: int | None = None
    dead_letters_open: int | None = None
    dead_letters_by_code: dict[str, int] = field(default_factory=dict)
    gallery_templates: int | None = None
    gallery_persons: int | None = None
    orders_behind_s: float | None = None
    """For how long a court order has waited to be obeyed, at most."""
    away: list[str] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Whether everything that should be there is there; a backlog or a dead letter is no outage."""
        return not self.away

    def to_json(self) -> dict[str, Any]:
        """Return what `status --json` prints."""
        return {"well": self.well, **asdict(self)}


def look(settings: Settings) -> Overview:
    """Ask every part once."""
    seen = Overview()
    folder = DataFolder(settings.data)
    if not settings.kafka_bootstrap and folder.announced(BROKER) is None:
        seen.away.append(f"Nothing runs on {settings.data}: start `leadstream up --data {settings.data}`.")
        return seen
    seen.roles = [_role(folder, name) for name in _names(folder)]
    seen.away += [f"{role.name}: {role.why}" for role in seen.roles if role.state != "ready"]
    if not settings.kafka_bootstrap:
        # `up` starts a sink, a clerk and workers; elsewhere they may run on other machines.
        names = {role.name for role in seen.roles}
        seen.away += [f"{SINK}: does not run here; see its log in {folder.logs}."] if SINK not in names else []
        seen.away += [f"{CLERK}: does not run here; see its log in {folder.logs}."] if CLERK not in names else []
        seen.away += [f"worker: none runs here; see the logs in {folder.logs}."] if not names - {SINK, CLERK} else []
    _try(seen, "gallery", lambda: _look_at_gallery(seen))
    _try(seen, "Kafka", lambda: _look_at_kafka(seen, settings))
    if seen.kafka_reachable:
        _try(seen, "workers' progress", lambda: _look_at_topics(seen, settings))
        _try(seen, "dead letters", lambda: _look_at_dead_letters(seen, settings))
        _try(seen, "audit trail", lambda: _look_at_audit(seen, settings))
    return seen


def _try(seen: Overview, what: str, ask: Callable[[], None]) -> None:
    try:
        ask()
    except LeadstreamError as error:
        seen.away.append(f"{what}: {error}")


def _names(folder: DataFolder) -> list[str]:
    return sorted(path.stem for path in folder.run.glob("*.json") if path.stem != BROKER)


def _role(folder: DataFolder, name: str) -> RoleState:
    facts = folder.announced(name) or {}
    pid, port = int(facts.get("pid", 0)), facts.get("metrics_port")
    port = None if port is None else int(port)
    state, why = "ready" if facts.get("ready") else "not ready", "" if facts.get("ready") else "still starting"
    if not _runs(pid):
        state, why = "gone", f"its process {pid} ended without a word; see {folder.logs / name}.log and start it again"
    elif port is not None:
        try:
            health = json.loads(_get(port, "/readyz"))
            state, why = "ready" if health["live"] and health["ready"] else "not ready", str(health["why"])
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            state, why = "not answering", f"nothing answers on {LOOPBACK}:{port}; see {folder.logs / name}.log"
    return RoleState(name=name, pid=pid, state=state, why=why, metrics_port=port)


def _runs(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _get(port: int, path: str) -> str:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=ASK_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def _look_at_gallery(seen: Overview) -> None:
    """Ask the first ready worker that has a metrics page; each has the whole gallery, and watches over all orders."""
    for role in seen.roles:
        if role.name in {CLERK, SINK} or role.state != "ready" or role.metrics_port is None:
            continue
        try:
            page = _get(role.metrics_port, "/metrics")
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(f"{role.name} does not answer ({type(error).__name__}).") from None
        sizes = {
            sample.name: sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name in (GALLERY_TEMPLATES, GALLERY_PERSONS, ORDERS_BEHIND)
        }
        seen.gallery_templates, seen.gallery_persons = (
            None if (size := sizes.get(name)) is None else int(size) for name in (GALLERY_TEMPLATES, GALLERY_PERSONS)
        )
        behind_s = sizes.get(ORDERS_BEHIND, math.inf)
        seen.orders_behind_s = None if math.isinf(behind_s) else round(behind_s, 1)
        return


def _look_at_kafka(seen: Overview, settings: Settings) -> None:
    config = wiring.kafka_config(settings)
    seen.kafka = str(config["bootstrap.servers"])
    try:
        AdminClient({"log_level": 0, **config}).list_topics(timeout=ASK_TIMEOUT_S)
    except KafkaException as error:
        raise TransientError(f"{seen.kafka} does not answer: {error.args[0].str()}") from None
    seen.kafka_reachable = True


def _look_at_topics(seen: Overview, settings: Settings) -> None:
    config = wiring.kafka_config(settings)
    committed = GroupProgress(config, GROUP).committed(CONSUMED)
    ends = KafkaLog(config).end_offsets(CONSUMED)
    for topic in CONSUMED:
        places = [place for place in ends if place[0] == topic]
        seen.topics.append(
            TopicState(
                topic=topic,
                committed=sum(committed[place] for place in places),
                end=sum(ends[place] for place in places),
                lag_records=sum(max(0, ends[place] - committed[place]) for place in places),
            ),
        )


def _look_at_dead_letters(seen: Overview, settings: Settings) -> None:
    cases = read_cases(KafkaLog(wiring.kafka_config(settings)))
    codes = Counter(case.letter.code for case in cases if case.state is State.OPEN)
    seen.dead_letters_open, seen.dead_letters_by_code = codes.total(), dict(codes.most_common())


def _look_at_audit(seen: Overview, settings: Settings) -> None:
    ends = KafkaLog(wiring.kafka_config(settings)).end_offsets(list(TOPICS))
    with wiring.audit_reader(settings) as reader:
        audited = {(topic, partition): offset for topic, partition, offset in reader.query(_AUDITED)[1]}
    seen.audit_lag_records = sum(max(0, end - audited.get(place, 0)) for place, end in ends.items())
