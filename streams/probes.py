"""Agent `probes`: one request, one outcome: a candidate list or a refusal (G1, G3, G4)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, cast

import structlog

from processors import enrolment, searching
from processors.quality_rules import judge_by_policy
from processors.refusals import Refusal, RefusalCode
from processors.search_rules import refusal_of_late_audit, refusal_of_search
from schemas.codec import decode_for
from schemas.errors import ContractError, TransientError
from schemas.events import CandidateListIssued, ProbeRefused
from schemas.keys import probe_scope
from schemas.topics import ACCESS, PROBE_REQUESTS
from streams.bookings import StoredImage, extract_stored

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

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
            await self._answer(record, self._refuse(request, record, enrolment.failed(reason)))

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
        if not await self._context.replica.read_barrier(self._context.barrier_limit_s):
            behind = Refusal(
                code=RefusalCode.REPLICA_BEHIND,
                message="The worker could not bring its gallery and access state up to date in time; send it again.",
            )
            return self._refuse(request, record, behind)
        # Asked before who asks is judged, because it may wait: nothing may change between that and the watermark.
        policy = self._context.policy
        is_audited = await self._context.is_audited_within(policy.audit.maximum_lag_s)
        refusal = self._context.replica.directory.refusal_of(record, request) or refusal_of_search(
            request,
            self._context.replica.directory,
            self._context.policy,
            self._context.clock(),
        )
        if refusal is None and not is_audited:
            refusal = refusal_of_late_audit(policy)
        if refusal is not None:
            return self._refuse(request, record, refusal)
        access_watermark = self._context.replica.watermark(ACCESS)
        # One generation from here on: the same pack extracts and is searched, whatever is activated meanwhile.
        active = self._context.replica.active
        scope = probe_scope(request.probe_id)
        extraction = await extract_stored(
            self._context,
            active.extractor,
            StoredImage(reference=request.image_reference, sha256=request.image_sha256, scope=scope),
            (record.position, 0),
        )
        extraction = judge_by_policy(extraction, policy.probe_quality, policy.version)
        if isinstance(extraction, Refusal):
            return self._refuse(request, record, extraction)
        if active is not self._context.replica.active:
            raise TransientError("Another gallery generation was activated meanwhile; the probe is decided anew.")
        searches = self._context.searches
        result = await searches.search(active.gallery, extraction.template, request.requested_candidates)
        partitions = range(len(self._context.replica.watermark(active.topic)))
        return searching.issue(
            request,
            record.position,
            result,
            extraction.measurements,
            searching.DecidedUnder(
                policy_version=self._context.policy.version,
                gallery_watermark=[result.watermark.get(partition, 0) for partition in partitions],
                access_watermark=access_watermark,
            ),
            model_digest=active.model_digest,
            threshold=active.threshold_of(result.templates),
            expected_of=active.expected_of,
            at=self._context.clock(),
        )

    def _refuse(self, request: ProbeSubmitted, record: LogRecord, refusal: Refusal) -> ProbeRefused:
        under = searching.DecidedUnder(
            policy_version=self._context.policy.version,
            gallery_watermark=self._context.replica.watermark(self._context.replica.active.topic),
            access_watermark=self._context.replica.watermark(ACCESS),
        )
        return searching.refuse(request, record.position, refusal, under, self._context.clock())
