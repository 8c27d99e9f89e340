"""The operator's port: metrics that count right and name nobody, health that says why not, and only on this machine."""

from __future__ import annotations

import http.client
import json
import math
import socket
import time
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from connectors.group_progress import GroupProgress, Progress, lag_by_topic
from connectors.kafka_log import KafkaLog
from connectors.metrics import RoleMetrics, SinkMetrics, WorkerMetrics
from connectors.topic_admin import TopicAdmin
from infra import observation
from infra.observation import Health, Lookout, OperatorPort, Pulse
from schemas.errors import TransientError, UsageError
from schemas.topics import ACCESS, BOOKING_EVENTS, PROBE_REQUESTS, TOPICS

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.ports import Telemetry

LIMIT_S = 60.0
WELL = Health(role="worker-1", live=True, ready=True)


def values(metrics: RoleMetrics) -> dict[tuple[str, ...], float]:
    """Return (name, label values in the order of their names) -> value."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(metrics.page().decode())
        for sample in family.samples
    }


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_what_the_streams_say_is_counted_by_stage_outcome_and_code() -> None:
    metrics = WorkerMetrics("worker-1")
    telemetry: Telemetry = metrics
    telemetry.decided("probes", "CandidateListIssued", "", 0.3)
    telemetry.decided("probes", "ProbeRefused", "NO_FACE", 0.1)
    telemetry.decided("probes", "ProbeRefused", "NO_FACE", -0.1)  # the broker's clock is ahead
    telemetry.set_aside("bookings", "CONTRACT")
    telemetry.waiting("bookings", is_waiting=True)
    telemetry.barrier(0.004, reached=True)
    telemetry.barrier(10.0, reached=False)
    telemetry.applied("gallery.templates.v1", {3: 17})
    assert values(metrics)["leadstream_orders_behind_seconds",] == math.inf, "not known is not none"
    telemetry.orders_behind(2.5)
    telemetry.obeyed(0.4)
    seen = values(metrics)
    assert seen["leadstream_decided_total", "", "CandidateListIssued", "probes"] == 1
    assert seen["leadstream_decided_total", "NO_FACE", "ProbeRefused", "probes"] == 2
    assert seen["leadstream_answer_age_seconds_count", "probes"] == 3
    assert seen["leadstream_dead_letters_total", "CONTRACT", "bookings"] == 1
    assert seen["leadstream_waiting", "bookings"] == 1
    assert (seen["leadstream_barrier_wait_seconds_count",], seen["leadstream_barrier_missed_total",]) == (2, 1)
    assert seen["leadstream_applied_offset", "3", "gallery.templates.v1"] == 17
    assert seen["leadstream_orders_behind_seconds",] == 2.5
    assert seen["leadstream_order_withdrawal_seconds_bucket", "0.5"] == 1


def test_a_worker_shows_its_gallery_and_lags_as_of_the_moment_somebody_looks() -> None:
    metrics = WorkerMetrics("worker-1")
    size, newest = [5], [Progress(group_lag={PROBE_REQUESTS: 7}, replica_lag={ACCESS: 2}), None]
    metrics.watch_gallery(templates=lambda: size[0], persons=lambda: 3)
    metrics.watch_lag(lambda: newest[0])
    seen = values(metrics)
    assert (seen["leadstream_gallery_templates",], seen["leadstream_gallery_persons",]) == (5, 3)
    assert seen["leadstream_kafka_reachable",] == 1
    assert seen["leadstream_group_lag_records", PROBE_REQUESTS] == 7
    assert seen["leadstream_replica_lag_records", ACCESS] == 2
    size[0] = 6
    newest.pop(0)
    seen = values(metrics)
    assert (seen["leadstream_gallery_templates",], seen["leadstream_kafka_reachable",]) == (6, 0)
    assert not [name for name, *_ in seen if "lag" in name], "an old lag must not look like a new one"


def test_the_sinks_lag_is_not_shown_before_it_is_known() -> None:
    lag: list[int | None] = [None]
    metrics = SinkMetrics("sink", rows=lambda: 9, lag_records=lambda: lag[0], is_waiting=lambda: True)
    seen = values(metrics)
    assert (seen["leadstream_audit_rows_total",], seen["leadstream_audit_waiting",]) == (9, 1)
    assert ("leadstream_audit_lag_records",) not in seen
    lag[0] = 0
    assert values(metrics)["leadstream_audit_lag_records",] == 0


@pytest.mark.parametrize(
    ("health", "healthz", "readyz"),
    [
        (WELL, 200, 200),
        (Health(role="worker-1", live=True, ready=False, why="catching up"), 200, 503),
        (Health(role="worker-1", live=False, ready=True), 503, 503),
    ],
)
def test_health_and_readiness_are_two_answers_and_say_why_not(health: Health, healthz: int, readyz: int) -> None:
    with OperatorPort(0, RoleMetrics("worker-1"), lambda: health) as server:
        assert get(server.port, "/healthz")[0] == healthz
        status, body = get(server.port, "/readyz")
        assert (status, json.loads(body)["why"]) == (readyz, health.why)
        assert get(server.port, "/metrics/../etc")[0] == 404


def test_the_port_is_open_on_this_machine_only() -> None:
    with OperatorPort(0, RoleMetrics("worker-1"), lambda: WELL) as server:
        assert server._server.server_address[0] == "127.0.0.1"
        with socket.socket() as other, pytest.raises(OSError, match="refused"):
            other.connect(("127.0.0.2", server.port))


def test_a_port_that_is_taken_is_said_to_be() -> None:
    with (
        OperatorPort(0, RoleMetrics("worker-1"), lambda: WELL) as first,
        pytest.raises(UsageError, match="metrics_port"),
    ):
        OperatorPort(first.port, RoleMetrics("worker-2"), lambda: WELL)


def test_a_role_that_does_not_turn_is_not_live(monkeypatch: pytest.MonkeyPatch) -> None:
    pulse = Pulse()
    assert pulse.is_fresh
    monkeypatch.setattr(observation, "FROZEN_AFTER_S", 0.0)
    assert not pulse.is_fresh


def until(found: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if found():
            return True
        time.sleep(0.01)
    return False


def test_the_lookout_forgets_what_it_saw_once_kafka_is_away_and_goes_on_looking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(observation, "LOOK_EVERY_S", 0.001)
    seen = Progress(group_lag={}, replica_lag={})
    away = [False]

    def look() -> Progress:
        if away[0]:
            raise TransientError("Kafka is away.")
        return seen

    with Lookout(look) as lookout:
        assert until(lambda: lookout.newest is seen)
        away[0] = True
        assert until(lambda: lookout.newest is None)
        away[0] = False
        assert until(lambda: lookout.newest is seen)


def test_lag_is_what_lies_between_what_was_reached_and_the_end() -> None:
    ends = {("a", 0): 10, ("a", 1): 5, ("b", 0): 3}
    assert lag_by_topic(ends, {("a", 0): 8, ("a", 1): 5, ("b", 0): 4}) == {"a": 2, "b": 0}


def test_a_group_that_never_committed_is_behind_by_all_there_is(
    bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.group_progress.REQUEST_TIMEOUT_S", LIMIT_S)
    TopicAdmin(bootstrap).apply(TOPICS.values())
    config: dict[str, str | int | bool] = {"bootstrap.servers": bootstrap}
    committed = GroupProgress(config, "a-group-that-never-was").committed([BOOKING_EVENTS])
    assert set(committed) == set(KafkaLog(config).end_offsets([BOOKING_EVENTS]))
    assert set(committed.values()) == {0}


def test_while_kafka_is_away_what_was_committed_cannot_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.group_progress.REQUEST_TIMEOUT_S", 0.5)
    with pytest.raises(TransientError, match="committed"):
        GroupProgress({"bootstrap.servers": "127.0.0.1:9"}, "g").committed([BOOKING_EVENTS])
