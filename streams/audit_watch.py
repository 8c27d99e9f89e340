"""Watches how far the audit trail is behind: no search is made that could not be audited within the policy's limit.

The sink tells Kafka how far it is by committing offsets under a group of its own (docs/adr/0009). That is word of
progress and no evidence: what the sink resumes from, and what an auditor compares, is the trail itself.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import faust
import structlog

from processors.audit_lag import AuditLag
from schemas.errors import TransientError
from streams.ports import NO_TELEMETRY

if TYPE_CHECKING:
    from streams.ports import AuditProgress, Telemetry

LOOK_EVERY_S = 2.0
WARN_EVERY_S = 30.0

log = structlog.get_logger()


class AuditWatch(faust.Service):
    """Looks at the trail's progress every few seconds.

    Args:
        progress: asks how far Kafka and the trail are.
        settle_s: for how long, after the start and after a time in which Kafka could not be asked, what is not known
            yet is waited for and not held against the trail.
        telemetry: told after every look.
    """

    def __init__(self, progress: AuditProgress, *, settle_s: float, telemetry: Telemetry = NO_TELEMETRY) -> None:
        super().__init__()
        self._progress = progress
        self._settle_s = settle_s
        self._telemetry = telemetry
        self._lag = AuditLag()
        self._in_doubt_until = math.inf
        self._looked = asyncio.Condition()

    async def is_within(self, limit_s: float) -> bool:
        """Tell whether everything older than this is known to be in the audit trail."""
        # Judged once: by a second look at the clock, what was found to be within the limit may have passed it.
        async with self._looked:
            while not (within := self._behind_s() <= limit_s) and _now() <= self._in_doubt_until:
                await self._looked.wait()
        return within

    @faust.Service.task
    async def _watch(self) -> None:
        self._in_doubt_until = _now() + self._settle_s
        warned_at = -math.inf
        while not self.should_stop:
            asked_at = _now()
            try:
                audited, ends = await asyncio.to_thread(self._progress)
            except TransientError as error:
                self._in_doubt_until = _now() + self._settle_s
                if _now() - warned_at >= WARN_EVERY_S:
                    warned_at = _now()
                    log.warning("audit progress not known", reason=str(error))
            else:
                self._lag.note(asked_at, audited, ends)
            self._telemetry.audit_behind(self._behind_s())
            async with self._looked:
                self._looked.notify_all()
            await self.sleep(LOOK_EVERY_S)

    def _behind_s(self) -> float:
        return self._lag.behind_s(_now())


def _now() -> float:
    return asyncio.get_running_loop().time()
