"""Agent `probes`: one request, one outcome: a candidate list or a refusal (G1, G3, G4)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import structlog

from processors import enrolment, searching
from processors.quality_rules import judge_by_policy
from processors.refusals import Refusal, RefusalCode
from processors.search_rules import refusal_of_late_audit, refusal_of_late_orders, refusal_of_search
from schemas.codec import decode_for
from schemas.errors import ContractError, TransientError
from schemas.events import CandidateListIssued, ProbeRefused
from schemas.keys import probe_scope
from schemas.topics import ACCESS, PROBE_REQUESTS
from streams.bookings import StoredImage, extract_stored

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from uuid import UUID

    from processors.policy import Policy
    from schemas.events import ProbeSubmitted
    from schemas.records import LogRecord
    from streams.context import Context

Outcome = CandidateListIssued | ProbeRefused
STAGE = "probes"
REMEMBERED_PROBES = 100_000
"""How many decided probes a worker remembers, so that a second delivery of a request is not decided again."""

log = structlog.get_logger()


class Probes:
    """What the agent does with one record."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._decided: OrderedDict[UUID, None] = OrderedDict()
        self._deciding: dict[UUID, asyncio.Event] = {}

    def remember(self, probes: Iterable[UUID]) -> None:
        """Take note of probes that have an outcome in the topic; they are not decided again."""
        for probe in probes:
            self._decided[probe] = None
            self._decided.move_to_end(probe)
        while len(self._decided) > REMEMBERED_PROBES:
            self._decided.popitem(last=False)

    async def handle(self, record: LogRecord) -> None:
        """Decide one request, unless it has been decided."""
        request = cast("ProbeSubmitted", decode_for(PROBE_REQUESTS, record.value))
        # Several requests are worked on at once, and two of them may be the same probe, delivered twice.
        while (under_way := self._deciding.get(request.probe_id)) is not None:
            await under_way.wait()
        if request.probe_id in self._decided:
            log.info("probe has its outcome already", probe=str(request.probe_id))
            return
        self._deciding[request.probe_id] = asyncio.Event()
        try:
            await self._answer(record, await self._decide(request, record))
        finally:
            self._deciding.pop(request.probe_id).set()

    async def give_up(self, record: LogRecord, reason: str) -> None:
        """Give a request that became a dead letter its outcome, if it says which probe it is (G1)."""
        try:
            request = cast("ProbeSubmitted", decode_for(PROBE_REQUESTS, record.value))
        except ContractError:
            return
        if request.probe_id not in self._decided:
            policy = self._context.policy_at(self._context.clock())
            await self._answer(record, self._refuse(request, record, enrolment.failed(reason), self._under(policy)))

    async def _answer(self, record: LogRecord, outcome: Outcome) -> None:
        await self._context.publish(outcome)
        # Only what the broker acknowledged is an outcome.
        self.remember([outcome.probe_id])
        kind, code = type(outcome).__name__, outcome.code if isinstance(outcome, ProbeRefused) else ""
        self._context.telemetry.decided(STAGE, kind, code, self._context.age_s(record))
        log.info(
            "probe decided",
            probe=str(outcome.probe_id),
            position=str(record.position),
            outcome=kind,
            code=code or None,
        )

    async def _decide(self, request: ProbeSubmitted, record: LogRecord) -> Outcome:
        context, replica = self._context, self._context.replica
        if not await replica.read_barrier(context.barrier_limit_s):
            behind = Refusal(
                code=RefusalCode.REPLICA_BEHIND,
                message="The worker could not bring its gallery and access state up to date in time; send it again.",
            )
            return self._refuse(request, record, behind, self._under(context.policy_at(context.clock())))
        # Asked before who asks is judged, because it may wait: nothing may change between that and the watermark.
        at, policy, late = await self._late()
        under = self._under(policy)
        refusal = (
            replica.directory.refusal_of(record, request)
            or refusal_of_search(request, replica.directory, policy, at)
            or late
        )
        if refusal is not None:
            return self._refuse(request, record, refusal, under)
        override = replica.directory.quality_override(request, at)
        # One generation from here on: the same pack extracts and is searched, whatever is activated meanwhile.
        active = replica.active
        extraction = await extract_stored(
            context,
            active.extractor,
            StoredImage(
                reference=request.image_reference,
                sha256=request.image_sha256,
                scope=probe_scope(request.probe_id),
            ),
            (record.position, 0),
        )
        if isinstance(extraction, Refusal):
            # What the models cannot use, nobody can let them use.
            return self._refuse(request, record, extraction, under)
        judged = judge_by_policy(extraction, policy.probe_quality, policy.version)
        if isinstance(judged, Refusal) and override is None:
            return self._refuse(request, record, judged, under)
        if active is not replica.active:
            raise TransientError("Another gallery generation was activated meanwhile; the probe is decided anew.")
        result = await context.searches.search(
            active.gallery, extraction.template, request.requested_candidates, policy.probes.consolidation
        )
        partitions = range(len(replica.watermark(active.topic)))
        return searching.issue(
            request,
            record.position,
            result,
            extraction.measurements,
            replace(
                under,
                gallery_watermark=[result.watermark.get(partition, 0) for partition in partitions],
                quality_override=override if isinstance(judged, Refusal) else None,
            ),
            model_digest=active.model_digest,
            threshold=active.threshold_of(result.templates),
            expected_of=active.expected_of,
            at=context.clock(),
        )

    async def _late(self) -> tuple[datetime, Policy, Refusal | None]:
        """Return now, the policy that holds now, and why it lets nobody search while something is late.

        Asking may wait, and another policy that takes effect meanwhile has other limits.
        """
        context = self._context
        while True:
            policy = context.policy_at(context.clock())
            late = None
            if not await context.is_audited_within(policy.audit.maximum_lag_s):
                late = refusal_of_late_audit(policy)
            elif not await context.are_orders_obeyed_within(policy.orders.maximum_lag_s):
                late = refusal_of_late_orders(policy)
            at = context.clock()
            if policy is context.policy_at(at):
                return at, policy, late

    def _under(self, policy: Policy) -> searching.DecidedUnder:
        """Return what a decision of this moment rests on."""
        replica = self._context.replica
        return searching.DecidedUnder(
            policy_version=policy.version,
            gallery_watermark=replica.watermark(replica.active.topic),
            access_watermark=replica.watermark(ACCESS),
        )

    def _refuse(
        self, request: ProbeSubmitted, record: LogRecord, refusal: Refusal, under: searching.DecidedUnder
    ) -> ProbeRefused:
        return searching.refuse(request, record.position, refusal, under, self._context.clock())
