"""What every handler of a worker works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.ports import NO_TELEMETRY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from concurrent.futures import Executor
    from datetime import datetime

    from processors.policy import Policy
    from schemas.records import LogRecord
    from streams.ports import Attempts, Clock, Objects, Publish, Telemetry
    from streams.replica import Replica
    from streams.search_queue import SearchQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The state, the rules and the ways out."""

    replica: Replica
    """Directory and gallery, behind the read barrier."""
    own_policy: Policy
    """The operator's file; it holds while no policy is activated."""
    attempts: Attempts
    """Around every use of an extractor: what crashes it twice is not tried again."""
    pool: Executor
    """Threads in which images are fetched and extracted, off the event loop."""
    searches: SearchQueue
    objects: Objects
    """Where the photos are."""
    publish: Publish
    """Sends an event and returns when the broker has acknowledged it."""
    clock: Clock
    barrier_limit_s: float
    """How long to wait at the read barrier before the replica counts as behind."""
    is_audited_within: Callable[[float], Awaitable[bool]]
    """Seconds -> whether everything older than that is known to be in the audit trail."""
    are_orders_obeyed_within: Callable[[float], Awaitable[bool]]
    """Seconds -> whether no court order is known to have waited, or may have waited, for longer than that (G5)."""
    captures_at_once: int = 2
    """How many captures of bookings are in the pool at a time, at most; the others leave it to probes."""
    many_bookings: int = 16
    """So many under way are enough to let their records wait for one another."""
    telemetry: Telemetry = NO_TELEMETRY

    def policy_at(self, at: datetime) -> Policy:
        """Return the policy that holds at an instant; ask once a decision, behind the read barrier."""
        return self.replica.directory.policy_at(at) or self.own_policy

    def age_s(self, record: LogRecord) -> float:
        """Return for how long a record has stood in Kafka."""
        return self.clock().timestamp() - record.timestamp_ms / 1000
