"""What a tool of examiners imports: open a review, say how candidates compare, conclude, take back; read what follows.

A client checks nothing that the bureau decides: what is incomplete or not allowed goes out as it is, so that its
refusal is audited (G8). A lead is a pointer that examiners support, never an identification.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar, cast, get_args

from connectors.bookings import require_ori
from connectors.clock import now
from connectors.kafka_log import KafkaLog
from connectors.outcomes import OutcomeConsumer, OutcomeKind, ends_of, first_outcomes, read_range, reader_of
from processors.review_course import ReviewCourse, ReviewEvent, ReviewOutcome, course_of, leads_of
from schemas.codec import NO_REGISTRY
from schemas.errors import ContractError, TransientError
from schemas.events import (
    CandidateReviewed,
    ImageViewed,
    LeadIssued,
    LeadWithdrawn,
    ReviewAnswered,
    ReviewConcluded,
    ReviewReversed,
)
from schemas.keys import partition_of
from schemas.positions import SourcePosition, derived_id
from schemas.topics import REVIEW_EVENTS, REVIEW_OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from connectors.clock import Clock
    from connectors.publishing import EventPublisher, SignedPublisher
    from processors.review_course import Lead
    from schemas.avro_schemas import SchemaVersion
    from schemas.events import FeatureComparison, ReviewConclusion
    from schemas.records import LogRecord

E = TypeVar("E")


def review_id_of(probe_id: UUID, user_id: str) -> UUID:
    """Return the identity of one examiner's review of one probe, however often it is opened."""
    return derived_id(probe_id, f"reviewed by {user_id}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedReview:
    """Something said about a probe that the broker has acknowledged."""

    probe_id: UUID
    event_id: UUID
    position: SourcePosition


class ReviewClient:
    """Says what one examiner has to say.

    The same call again is the same event. To say the same again after it was refused, give as `after` the event id of
    the answer: what is said after an answer is another thing.

    Args:
        publisher: signs with the examiner's own key, or with that of a case tool that speaks for the examiner.
        user_id: the examiner.
        ori: the examiner's agency.
        publisher_id: as the administrator registered the case tool; absent when the examiner's own key signs.
        clock: for the times of events.
        registry: schemas by their id in a schema registry, where there is one.

    Raises:
        UsageError: the ORI is none.
    """

    def __init__(
        self,
        publisher: SignedPublisher,
        user_id: str,
        ori: str,
        *,
        publisher_id: str | None = None,
        clock: Clock = now,
        registry: Mapping[int, SchemaVersion] = NO_REGISTRY,
    ) -> None:
        self._publisher: EventPublisher = publisher
        self._user_id = user_id
        self._ori = require_ori(ori)
        self._actor = f"user:{user_id}" if publisher_id is None else f"publisher:{publisher_id}"
        self._clock = clock
        self._registry = registry
        self._log = KafkaLog(publisher.config)

    def open(
        self, probe_id: UUID, *, shown: Sequence[UUID], shows_scores: bool, sheet_sha256: str, expires_at: datetime
    ) -> PublishedReview:
        """Say that the probe and these candidates, in this order, are shown to the examiner.

        Nothing is shown before this was accepted.

        Raises:
            ContractError: a value that the contract does not allow.
            TransientError: Kafka is away; the same call may be made again.
        """
        review_id = review_id_of(probe_id, self._user_id)
        return self._publish(
            ImageViewed(
                event_id=derived_id(review_id, f"viewed {sheet_sha256}"),
                occurred_at=self._clock(),
                actor=self._actor,
                probe_id=probe_id,
                user_id=self._user_id,
                ori=self._ori,
                review_id=review_id,
                shown=tuple(shown),
                shows_scores=shows_scores,
                sheet_sha256=sheet_sha256,
                expires_at=expires_at,
            )
        )

    def decide(
        self,
        probe_id: UUID,
        capture_id: UUID,
        *,
        features: Sequence[FeatureComparison],
        limitations: str,
        conclusion: ReviewConclusion,
        note: str = "",
        after: UUID | None = None,
    ) -> PublishedReview:
        """Say how one candidate compares with the probe; until the review is concluded the last word counts.

        Raises:
            ContractError: a value that the contract does not allow.
            TransientError: Kafka is away; the same call may be made again.
        """
        review_id = review_id_of(probe_id, self._user_id)
        said = [[each.feature, each.finding, each.note] for each in features]
        words = _digest(str(capture_id), said, limitations, conclusion, note)
        return self._publish(
            CandidateReviewed(
                event_id=derived_id(after or review_id, f"decided {words}"),
                occurred_at=self._clock(),
                actor=self._actor,
                probe_id=probe_id,
                user_id=self._user_id,
                review_id=review_id,
                capture_id=capture_id,
                features=tuple(features),
                limitations=limitations,
                conclusion=conclusion,
                note=note,
            )
        )

    def conclude(self, probe_id: UUID, *, summary: str = "", after: UUID | None = None) -> PublishedReview:
        """Close the review; every candidate must have been decided.

        Raises:
            TransientError: Kafka is away; the same call may be made again.
        """
        review_id = review_id_of(probe_id, self._user_id)
        return self._publish(
            ReviewConcluded(
                event_id=derived_id(after or review_id, f"concluded {_digest(summary)}"),
                occurred_at=self._clock(),
                actor=self._actor,
                probe_id=probe_id,
                user_id=self._user_id,
                review_id=review_id,
                summary=summary,
            )
        )

    def reverse(self, probe_id: UUID, capture_id: UUID, *, reason: str, after: UUID | None = None) -> PublishedReview:
        """Take back the conclusion on one candidate.

        Raises:
            TransientError: Kafka is away; the same call may be made again.
        """
        review_id = review_id_of(probe_id, self._user_id)
        return self._publish(
            ReviewReversed(
                event_id=derived_id(after or review_id, f"reversed {_digest(str(capture_id), reason)}"),
                occurred_at=self._clock(),
                actor=self._actor,
                probe_id=probe_id,
                user_id=self._user_id,
                capture_id=capture_id,
                reason=reason,
            )
        )

    def await_answer(self, published: PublishedReview, timeout_s: float) -> ReviewAnswered:
        """Return what became of something that was said: the first answer to it in the topic.

        Raises:
            TransientError: none came in time, or Kafka answers with an error; ask again, nothing is lost.
        """
        return next(self.await_answers([published], timeout_s))

    def await_answers(self, published: Sequence[PublishedReview], timeout_s: float) -> Iterator[ReviewAnswered]:
        """Yield what became of several things said about one probe, as the answers come.

        Raises:
            TransientError: not all came in time, or Kafka answers with an error; ask again, nothing is lost.
        """
        if not published:
            return
        key = str(published[0].probe_id).encode()
        kind = OutcomeKind(
            topic=REVIEW_OUTCOMES,
            read=reader_of(REVIEW_OUTCOMES, ReviewAnswered, self._registry),
            identity=lambda answer: answer.source_event_id,
            may_be_wanted=lambda other: other == key,
        )
        missing = {(self._user_id, each.event_id) for each in published}
        # From the beginning: what is said again was perhaps answered the first time.
        start = {published[0].position.partition: 0}
        for answer in first_outcomes(
            self._log, kind, set(missing), lambda answer: (answer.user_id, answer.source_event_id), start, timeout_s
        ):
            missing.discard((answer.user_id, answer.source_event_id))
            yield answer
        if missing:
            raise TransientError(
                f"{len(missing)} of {len(published)} answers did not come within {timeout_s:g} s. What was said is "
                "kept and will be answered when the clerk gets to it: see that it runs, then say the same again."
            )

    def _publish(self, event: ReviewEvent) -> PublishedReview:
        position = self._publisher.publish(event)
        return PublishedReview(probe_id=event.probe_id, event_id=event.event_id, position=position)


def read_course(log: KafkaLog, probe_id: UUID, registry: Mapping[int, SchemaVersion] = NO_REGISTRY) -> ReviewCourse:
    """Return all that was said and decided of one probe's candidates so far.

    Raises:
        TransientError: Kafka does not answer.
    """
    key = str(probe_id).encode()
    partition = partition_of(REVIEW_EVENTS, key)
    # Answers first: what is answered stands before its answer, so none is read without what it answers.
    outcomes = list(_read(log, REVIEW_OUTCOMES, partition, _outcome_reader(registry), key))
    said: Callable[[LogRecord], ReviewEvent] = reader_of(REVIEW_EVENTS, get_args(ReviewEvent), registry)
    events = list(_read(log, REVIEW_EVENTS, partition, said, key))
    return course_of(
        probe_id,
        [(record.position, event) for record, event in events],
        [outcome for _, outcome in outcomes],
    )


def read_leads(log: KafkaLog, registry: Mapping[int, SchemaVersion] = NO_REGISTRY) -> tuple[Lead, ...]:
    """Return every lead, and whether it still stands; those of one probe in the order in which they were issued.

    Raises:
        TransientError: Kafka does not answer.
    """
    return tuple(
        lead
        for partition in sorted(ends_of(log, REVIEW_OUTCOMES))
        for lead in leads_of(
            outcome for _, outcome in _read(log, REVIEW_OUTCOMES, partition, _outcome_reader(registry))
        )
    )


class ReviewOutcomeConsumer(OutcomeConsumer["ReviewOutcome"]):
    """Every answer, completed review, lead, withdrawal and deletion of kept data, once (G11); see `OutcomeConsumer`.

    Args:
        config: settings of the Kafka client, at least `bootstrap.servers`.
        group: name of the consumer group; one a tool.
        start_at: partition -> next offset to read, instead of a group.
        registry: schemas by their id in a schema registry, where there is one.
    """

    def __init__(
        self,
        config: Mapping[str, str | int | bool],
        group: str | None = None,
        *,
        start_at: Mapping[int, int] | None = None,
        registry: Mapping[int, SchemaVersion] = NO_REGISTRY,
    ) -> None:
        super().__init__(config, _kind(registry), group=group, start_at=start_at)


class LeadConsumer(OutcomeConsumer["LeadIssued | LeadWithdrawn"]):
    """Every lead and every withdrawal of one, once (G11); see `OutcomeConsumer`.

    A withdrawal stands behind its lead in the same partition. It names no agency, so that all are delivered: a tool
    passes over those of leads that it does not hold.

    Args:
        config: settings of the Kafka client, at least `bootstrap.servers`.
        group: name of the consumer group; one a tool.
        ori: only leads of this agency's probes; None: of all.
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
        wanted = None if ori is None else require_ori(ori)

        def is_wanted(outcome: ReviewOutcome) -> bool:
            if isinstance(outcome, LeadIssued):
                return wanted is None or outcome.ori == wanted
            return isinstance(outcome, LeadWithdrawn)

        kind = cast("OutcomeKind[LeadIssued | LeadWithdrawn]", _kind(registry, is_wanted))
        super().__init__(config, kind, group=group, start_at=start_at)


def _kind(
    registry: Mapping[int, SchemaVersion], is_wanted: Callable[[ReviewOutcome], bool] = lambda _outcome: True
) -> OutcomeKind[ReviewOutcome]:
    return OutcomeKind(
        topic=REVIEW_OUTCOMES,
        read=_outcome_reader(registry),
        identity=lambda outcome: outcome.event_id,
        is_wanted=is_wanted,
    )


def _outcome_reader(registry: Mapping[int, SchemaVersion]) -> Callable[[LogRecord], ReviewOutcome]:
    return reader_of(REVIEW_OUTCOMES, get_args(ReviewOutcome), registry)


def _read(
    log: KafkaLog, topic: str, partition: int, read: Callable[[LogRecord], E], key: bytes | None = None
) -> Iterator[tuple[LogRecord, E]]:
    """Yield what stands in a partition now, of one key or of all."""
    for record in read_range(log, topic, partition, ends_of(log, topic)[partition]):
        if key is not None and record.key != key:
            continue
        try:
            yield record, read(record)
        except ContractError:
            continue  # Nothing of ours, whoever wrote it; the audit trail keeps it.


def _digest(*words: object) -> str:
    return sha256(json.dumps(words).encode()).hexdigest()
