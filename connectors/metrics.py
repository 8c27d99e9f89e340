"""What an operator measures, as Prometheus metrics: one registry a role, nothing global.

Labels hold names of ours only: stages, outcomes, reason codes, topics, partitions. No id, user, case or value of a
record is ever a label (G10), so the number of series is bounded as well.

Source: Prometheus naming (base units, `_total`, `_seconds`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from connectors.group_progress import Progress

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
AGE_BUCKETS_S = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200)
WAIT_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)

GALLERY_TEMPLATES = "leadstream_gallery_templates"
GALLERY_PERSONS = "leadstream_gallery_persons"
ORDERS_BEHIND = "leadstream_orders_behind_seconds"


class RoleMetrics:
    """What every role has: whether it is ready, its own process, and the page that Prometheus reads."""

    def __init__(self, role: str) -> None:
        self.registry = CollectorRegistry()
        self._ready = Gauge("leadstream_ready", "1 while the role serves.", ["role"], registry=self.registry).labels(
            role
        )
        ProcessCollector(registry=self.registry)

    def watch_ready(self, is_ready: Callable[[], bool]) -> None:
        """Ask whether the role serves whenever somebody looks."""
        self._ready.set_function(is_ready)

    def page(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class WorkerMetrics(RoleMetrics):
    """A worker's: what it decides, what it waits for, and how far its replica is."""

    def __init__(self, role: str) -> None:
        super().__init__(role)
        registry = self.registry
        self._decided = Counter(
            "leadstream_decided",
            "Answers that the broker acknowledged; code is empty where nothing was refused.",
            ["stage", "outcome", "code"],
            registry=registry,
        )
        self._age = Histogram(
            "leadstream_answer_age_seconds",
            "From the broker's append of a request to the acknowledgement of its answer.",
            ["stage"],
            buckets=AGE_BUCKETS_S,
            registry=registry,
        )
        self._set_aside = Counter(
            "leadstream_dead_letters", "Records set aside as dead letters.", ["stage", "code"], registry=registry
        )
        self._waiting = Gauge(
            "leadstream_waiting", "1 while a stage waits for something that is away.", ["stage"], registry=registry
        )
        self._barrier = Histogram(
            "leadstream_barrier_wait_seconds",
            "Time at the read barrier.",
            buckets=WAIT_BUCKETS_S,
            registry=registry,
        )
        self._barrier_missed = Counter(
            "leadstream_barrier_missed", "Read barriers that were not reached within the limit.", registry=registry
        )
        self._audit_behind = Gauge(
            "leadstream_audit_behind_seconds",
            "How far the audit trail is behind, at most; past the policy's limit the worker refuses probes.",
            registry=registry,
        )
        self._audit_behind.set(math.inf)
        self._orders_behind = Gauge(
            ORDERS_BEHIND,
            "For how long a court order has waited to be obeyed, at most; past the policy's limit the worker refuses "
            "probes.",
            registry=registry,
        )
        self._orders_behind.set(math.inf)
        self._obeyed = Histogram(
            "leadstream_order_withdrawal_seconds",
            "From the broker's append of a court order to the acknowledgement of its withdrawal.",
            buckets=AGE_BUCKETS_S,
            registry=registry,
        )
        self._applied = Gauge(
            "leadstream_applied_offset",
            "Watermark of the replica: the next offset to apply.",
            ["topic", "partition"],
            registry=registry,
        )

    def decided(self, stage: str, outcome: str, code: str, age_s: float) -> None:
        """Count one answer and how old its request was."""
        self._decided.labels(stage, str(outcome), str(code)).inc()
        # Two clocks: the broker's may be a little ahead of ours.
        self._age.labels(stage).observe(max(age_s, 0.0))

    def set_aside(self, stage: str, code: str) -> None:
        """Count one dead letter."""
        self._set_aside.labels(stage, str(code)).inc()

    def waiting(self, stage: str, *, is_waiting: bool) -> None:
        """Say whether a stage waits for something that is away."""
        self._waiting.labels(stage).set(is_waiting)

    def barrier(self, waited_s: float, *, reached: bool) -> None:
        """Count one passage of the read barrier."""
        self._barrier.observe(waited_s)
        if not reached:
            self._barrier_missed.inc()

    def applied(self, topic: str, ends: Mapping[int, int]) -> None:
        """Note the watermark of the replica."""
        for partition, offset in ends.items():
            self._applied.labels(topic, str(partition)).set(offset)

    def audit_behind(self, behind_s: float) -> None:
        """Note how far the audit trail is behind, at most."""
        self._audit_behind.set(behind_s)

    def orders_behind(self, behind_s: float) -> None:
        """Note for how long a court order has waited, at most."""
        self._orders_behind.set(behind_s)

    def obeyed(self, age_s: float) -> None:
        """Note how old a court order was when its withdrawal was acknowledged."""
        self._obeyed.observe(max(age_s, 0.0))

    def watch_gallery(self, templates: Callable[[], int], persons: Callable[[], int]) -> None:
        """Ask for the size of the gallery whenever somebody looks."""
        for name, text, ask in (
            (GALLERY_TEMPLATES, "Templates that can be found.", templates),
            (GALLERY_PERSONS, "Persons that can be found.", persons),
        ):
            Gauge(name, text, registry=self.registry).set_function(ask)

    def watch_lag(self, progress: Callable[[], Progress | None]) -> None:
        """Show the newest look at Kafka whenever somebody looks here."""
        self.registry.register(_Lag(progress))


class SinkMetrics(RoleMetrics):
    """The audit sink's.

    Args:
        role: its name.
        rows: rows appended since the start.
        lag_records: offsets that Kafka has and the trail has not; None while that is not known.
        is_waiting: whether something is away.
    """

    def __init__(
        self,
        role: str,
        *,
        rows: Callable[[], int],
        lag_records: Callable[[], int | None],
        is_waiting: Callable[[], bool],
    ) -> None:
        super().__init__(role)
        self.registry.register(_Audit(rows, lag_records, is_waiting))


class _Audit(Collector):
    def __init__(
        self, rows: Callable[[], int], lag_records: Callable[[], int | None], is_waiting: Callable[[], bool]
    ) -> None:
        self._rows = rows
        self._lag_records = lag_records
        self._is_waiting = is_waiting

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "leadstream_audit_rows", "Rows appended to the audit trail since the start.", value=self._rows()
        )
        yield GaugeMetricFamily(
            "leadstream_audit_waiting", "1 while the sink waits for Kafka or ClickHouse.", value=self._is_waiting()
        )
        lag = self._lag_records()
        if lag is not None:
            yield GaugeMetricFamily(
                "leadstream_audit_lag_records", "Records that Kafka has and the audit trail has not.", value=lag
            )


class ClerkMetrics(RoleMetrics):
    """The clerk's.

    Args:
        role: its name.
        progress: how far it is; None before it began.
    """

    def __init__(self, role: str, *, progress: Callable[[], RoleProgress | None]) -> None:
        super().__init__(role)
        self.registry.register(_Clerk(progress))


class RoleProgress(Protocol):
    """What the clerk says of itself."""

    @property
    def written(self) -> int:
        """Events written since the start."""
        ...

    @property
    def lag_records(self) -> int | None:
        """Records that Kafka had at its last look and it had not applied."""
        ...

    @property
    def waiting_for(self) -> str:
        """What is away; empty while all goes well."""
        ...


class _Clerk(Collector):
    def __init__(self, progress: Callable[[], RoleProgress | None]) -> None:
        self._progress = progress

    def collect(self) -> Iterator[Metric]:
        seen = self._progress()
        if seen is None:
            return
        yield CounterMetricFamily("leadstream_clerk_written", "Events written since the start.", value=seen.written)
        yield GaugeMetricFamily("leadstream_clerk_waiting", "1 while it waits for Kafka.", value=bool(seen.waiting_for))
        if seen.lag_records is not None:
            yield GaugeMetricFamily(
                "leadstream_clerk_lag_records",
                "Records that Kafka had at its last look and the clerk had not applied.",
                value=seen.lag_records,
            )


class _Lag(Collector):
    def __init__(self, progress: Callable[[], Progress | None]) -> None:
        self._progress = progress

    def collect(self) -> Iterator[Metric]:
        seen = self._progress()
        yield GaugeMetricFamily(
            "leadstream_kafka_reachable", "1 when the last look at Kafka was answered.", value=seen is not None
        )
        if seen is None:
            return
        lag = GaugeMetricFamily(
            "leadstream_group_lag_records",
            "Records of a topic that the workers together have not committed; every worker shows the same.",
            labels=["topic"],
        )
        for topic, records in seen.group_lag.items():
            lag.add_metric([topic], records)
        yield lag
        replica = GaugeMetricFamily(
            "leadstream_replica_lag_records",
            "Records of a topic that this worker's replica has not applied.",
            labels=["topic"],
        )
        for topic, records in seen.replica_lag.items():
            replica.add_metric([topic], records)
        yield replica
