"""What a case tool or an investigator imports: submit a probe, await its outcome, take every candidate list.

A candidate list is an investigative lead, never an identification. A client checks nothing that the bureau decides: a
probe without a reason or a case number goes out as it is, so that its refusal is audited (G4).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from connectors.bookings import require_ori
from connectors.clock import now
from connectors.kafka_log import KafkaLog
from connectors.object_store import MAX_OBJECT_BYTES
from connectors.outcomes import OutcomeConsumer, OutcomeKind, ends_of, first_outcomes, read_range, reader_of
from schemas.codec import NO_REGISTRY
from schemas.errors import ContractError, TransientError, UsageError
from schemas.events import CandidateListIssued, ProbeRefused, ProbeSubmitted
from schemas.keys import partition_of, probe_scope
from schemas.positions import SourcePosition, derived_id
from schemas.topics import PROBE_OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from connectors.clock import Clock
    from connectors.object_store import ObjectStore
    from connectors.publishing import SignedPublisher
    from schemas.avro_schemas import SchemaVersion
    from schemas.events import ImageEdit, Logon

    ProbeOutcome = CandidateListIssued | ProbeRefused

DEFAULT_CANDIDATES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedProbe:
    """A probe request that the broker has acknowledged."""

    probe_id: UUID
    position: SourcePosition
    outcomes_from: int
    """Offset in the same partition of the outcome topic, at or after which the outcome stands."""


class ProbeClient:
    """Submits the probes of one user.

    Args:
        publisher: signs with the user's own key, or with that of a case tool that speaks for the user.
        objects: where probe images are kept.
        user_id: the investigator.
        ori: the investigator's agency.
        logon: how and when the user logged on to the case tool; absent when the user's own key signs.
        publisher_id: as the administrator registered the case tool; goes with `logon`.
        clock: for the times of events.
        max_image_bytes: largest image that is taken.
        registry: schemas by their id in a schema registry, where there is one.

    Raises:
        UsageError: the ORI is none; `logon` without `publisher_id` or the other way round.
    """

    def __init__(
        self,
        publisher: SignedPublisher,
        objects: ObjectStore,
        user_id: str,
        ori: str,
        *,
        logon: Logon | None = None,
        publisher_id: str | None = None,
        clock: Clock = now,
        max_image_bytes: int = MAX_OBJECT_BYTES,
        registry: Mapping[int, SchemaVersion] = NO_REGISTRY,
    ) -> None:
        if (logon is None) != (publisher_id is None):
            raise UsageError("A case tool that signs for a user gives both its publisher id and the user's logon.")
        self._publisher = publisher
        self._objects = objects
        self._user_id = user_id
        self._ori = require_ori(ori)
        self._logon = logon
        self._actor = f"user:{user_id}" if publisher_id is None else f"publisher:{publisher_id}"
        self._clock = clock
        self._max_image_bytes = max_image_bytes
        self._kind = _kind(registry)
        self._log = KafkaLog(publisher.config)

    def submit(
        self,
        image: bytes,
        *,
        reason_code: str,
        reason_text: str,
        case_number: str,
        legal_basis: str,
        source_type: str,
        requested_candidates: int = DEFAULT_CANDIDATES,
        edits: Sequence[ImageEdit] = (),
        original_sha256: str | None = None,
        collected_by: str | None = None,
        collected_at: datetime | None = None,
        collection_basis: str | None = None,
        probe_id: UUID | None = None,
    ) -> SubmittedProbe:
        """Store a probe image and ask for a candidate list.

        Args:
            image: the encoded image that is searched.
            reason_code: why, from the policy's list.
            reason_text: why, in the investigator's own words.
            case_number: the agency's case.
            legal_basis: what allows it, from the policy's list.
            source_type: where the image comes from, from the policy's list.
            requested_candidates: length of the list.
            edits: the steps from the original to the image, in order.
            original_sha256: of the image as collected; unless it is given, what the first edit started from, or the
                image itself.
            collected_by: who collected the original.
            collected_at: when.
            collection_basis: on what basis, from the policy's list.
            probe_id: give one to be able to submit again after a TransientError: the same probe is decided once.

        Raises:
            UsageError: the image is empty or too large; nothing was sent.
            ContractError: a value that the contract does not allow.
            DomainFault: OBJECT_EXISTS: another image was submitted under this probe id.
            TransientError: Kafka or the object store is away; the text names the probe id to submit again.
        """
        if not image:
            raise UsageError("The probe image is empty.")
        if len(image) > self._max_image_bytes:
            raise UsageError(f"The probe image has {len(image)} bytes; {self._max_image_bytes} are allowed.")
        # An earlier attempt may have got through and been decided; then its outcome stands before the end.
        attempted_before = probe_id is not None
        probe_id = probe_id or uuid4()
        digest = sha256(image).hexdigest()
        original = original_sha256 or (edits[0].before_sha256 if edits else digest)
        try:
            stored = self._objects.put(probe_scope(probe_id), "image", image)
            request = ProbeSubmitted(
                event_id=derived_id(probe_id, "submitted"),
                occurred_at=self._clock(),
                actor=self._actor,
                probe_id=probe_id,
                user_id=self._user_id,
                ori=self._ori,
                reason_code=reason_code,
                reason_text=reason_text,
                case_number=case_number,
                legal_basis=legal_basis,
                source_type=source_type,
                image_reference=stored.reference,
                image_sha256=digest,
                original_sha256=original,
                collected_by=collected_by,
                collected_at=collected_at,
                edits=tuple(edits),
                requested_candidates=requested_candidates,
                logon=self._logon,
                collection_basis=collection_basis,
            )
            # Asked before publishing: the outcome cannot stand before it, however quick the worker is.
            ends = {} if attempted_before else ends_of(self._log, PROBE_OUTCOMES)
            position = self._publisher.publish(request)
        except TransientError as error:
            raise TransientError(
                f"{error} To submit it again without a second search, use probe id {probe_id}."
            ) from None
        return SubmittedProbe(
            probe_id=probe_id,
            position=position,
            outcomes_from=ends.get(position.partition, 0),
        )

    def await_outcome(self, submitted: SubmittedProbe, timeout_s: float) -> ProbeOutcome:
        """Return the outcome of a probe: the first one in the topic (G1).

        Raises:
            TransientError: none came in time, or Kafka answers with an error; ask again, the request is not lost.
        """
        start = {submitted.position.partition: submitted.outcomes_from}
        kind = _kind_of_one(self._kind, submitted.probe_id)
        for outcome in first_outcomes(
            self._log, kind, [submitted.probe_id], lambda outcome: outcome.probe_id, start, timeout_s
        ):
            return outcome
        raise TransientError(
            f"No outcome of probe {submitted.probe_id} within {timeout_s:g} s. The request is kept and will be decided "
            "when a worker gets to it: see that one runs, and look for the outcome by this probe id. A new probe would "
            "be a second search.",
        )

    def find_outcome(self, probe_id: UUID) -> ProbeOutcome | None:
        """Return the outcome of a probe, or None when there is none yet; reads the partition from its beginning.

        Raises:
            TransientError: Kafka does not answer.
        """
        partition = partition_of(PROBE_OUTCOMES, str(probe_id).encode())
        kind = _kind_of_one(self._kind, probe_id)
        stop = ends_of(self._log, PROBE_OUTCOMES)[partition]
        for record in read_range(self._log, PROBE_OUTCOMES, partition, stop):
            if not kind.may_be_wanted(record.key):
                continue
            try:
                outcome = kind.read(record)
            except ContractError:
                continue  # Not an outcome, whoever wrote it; the sink keeps it as evidence.
            if outcome.probe_id == probe_id:
                return outcome
        return None


class CandidateListConsumer(OutcomeConsumer["CandidateListIssued | ProbeRefused"]):
    """Every candidate list and refusal, the first of each probe, once (G1, G11); see `OutcomeConsumer`.

    Args:
        config: settings of the Kafka client, at least `bootstrap.servers`.
        group: name of the consumer group; one a tool.
        ori: only outcomes of this agency's probes; None: of all.
        start_at: partition -> next offset to read, instead of a group.
        registry: schemas by their id in a schema registry, where there is one.
    """

    def __init__(
        self,
        config: Mapping[str, str | int | bool],
        group: str | None = None,
        *,
        ori: str | None = None,
        start_at: Mapping[int, int] | None = None,
        registry: Mapping[int, SchemaVersion] = NO_REGISTRY,
    ) -> None:
        kind = _kind(registry, None if ori is None else require_ori(ori))
        super().__init__(config, kind, group=group, start_at=start_at)


def _kind(registry: Mapping[int, SchemaVersion], ori: str | None = None) -> OutcomeKind[ProbeOutcome]:
    return OutcomeKind(
        topic=PROBE_OUTCOMES,
        read=reader_of(PROBE_OUTCOMES, (CandidateListIssued, ProbeRefused), registry),
        identity=lambda outcome: outcome.probe_id,
        is_wanted=lambda outcome: ori is None or outcome.ori == ori,
    )


def _kind_of_one(kind: OutcomeKind[ProbeOutcome], probe_id: UUID) -> OutcomeKind[ProbeOutcome]:
    key = str(probe_id).encode()
    return OutcomeKind(
        topic=kind.topic, read=kind.read, identity=kind.identity, may_be_wanted=lambda other: other == key
    )
