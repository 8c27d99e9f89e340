"""Past searches with what was known when they were decided: read from Kafka, for questions about a policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from connectors.kafka_log import KafkaLog
from connectors.outcomes import reader_of
from infra import wiring
from schemas.codec import decode_for
from schemas.errors import ContractError, IntegrityError, UsageError
from schemas.events import CandidateListIssued, ProbeRefused, ProbeSubmitted
from schemas.keys import partition_of
from schemas.topics import ACCESS, PROBE_OUTCOMES, PROBE_REQUESTS, spec_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from uuid import UUID

    from infra.settings import Settings
    from processors.access import Directory
    from schemas.records import LogRecord

    Outcome = CandidateListIssued | ProbeRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class PastSearch:
    """A request and its effective outcome, the first in the topic (G1)."""

    record: LogRecord
    request: ProbeSubmitted
    outcome: Outcome


def past_search(settings: Settings, probe_id: UUID) -> PastSearch:
    """Return one decided search.

    Raises:
        UsageError: there is no outcome of this probe.
        TransientError: Kafka does not answer.
    """
    log = KafkaLog(wiring.kafka_config(settings))
    partition = partition_of(PROBE_OUTCOMES, str(probe_id).encode())
    for outcome in _outcomes(log, partition):
        if outcome.probe_id == probe_id:
            record = log.record_at(PROBE_REQUESTS, outcome.request.partition, outcome.request.offset)
            return _search(record, outcome)
    raise UsageError(f"There is no outcome of a probe {probe_id}; take its id from the outcome or from `audit query`.")


def past_searches(settings: Settings, since: datetime) -> list[PastSearch]:
    """Return every search that was decided since an instant, in the order of the access events that it had seen.

    Raises:
        TransientError: Kafka does not answer.
    """
    log, found = KafkaLog(wiring.kafka_config(settings)), []
    for partition in range(spec_of(PROBE_OUTCOMES).partitions):
        decided: dict[UUID, Outcome] = {}
        for outcome in _outcomes(log, partition):
            decided.setdefault(outcome.probe_id, outcome)
        wanted = {each.request.offset: each for each in decided.values() if each.occurred_at >= since}
        if wanted:
            # A request stands in the partition of its outcome: both have the probe id for key.
            requests = log.read(PROBE_REQUESTS, partition, min(wanted), max(wanted) + 1)
            found += [_search(record, wanted[record.offset]) for record in requests if record.offset in wanted]
    return sorted(found, key=_seen)


def with_directory(settings: Settings, searches: list[PastSearch]) -> Iterator[tuple[PastSearch, Directory]]:
    """Yield each search with the directory as it stood when it was decided; it is the same one, which moves on.

    Args:
        settings: of this machine.
        searches: in the order of the access events that they had seen.

    Raises:
        TransientError: Kafka does not answer.
    """
    known, last = wiring.directory(settings), _seen(searches[-1]) if searches else 0
    records = list(KafkaLog(wiring.kafka_config(settings)).read(ACCESS, 0, 0, last))
    records.reverse()
    for search in searches:
        while records and records[-1].offset < _seen(search):
            record = records.pop()
            try:
                known.apply(record, decode_for(ACCESS, record.value))
            except ContractError:
                continue  # It changed nothing for the workers either.
        yield search, known


def _seen(search: PastSearch) -> int:
    return next(iter(search.outcome.access_watermark), 0)


def _outcomes(log: KafkaLog, partition: int) -> Iterator[Outcome]:
    read: Callable[[LogRecord], Outcome] = reader_of(PROBE_OUTCOMES, (CandidateListIssued, ProbeRefused))
    stop = log.end_offsets([PROBE_OUTCOMES])[PROBE_OUTCOMES, partition]
    for record in log.read(PROBE_OUTCOMES, partition, 0, stop):
        try:
            yield read(record)
        except ContractError:
            continue  # Not an outcome, whoever wrote it; the sink keeps it as evidence.


def _search(record: LogRecord, outcome: Outcome) -> PastSearch:
    request = decode_for(PROBE_REQUESTS, record.value)
    if not isinstance(request, ProbeSubmitted) or request.probe_id != outcome.probe_id:
        raise IntegrityError(
            f"The outcome of probe {outcome.probe_id} names {record.position}, which is another record."
        )
    return PastSearch(record=record, request=request, outcome=outcome)
