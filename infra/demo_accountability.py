"""The demonstration's second act: prohibited sources, a review by two examiners, a lead, a seal order and its notices.

No examiner sits here: what the two conclude is taken from what the sample photos are known to show, and every step goes
the way that an examiner's would go: sheet, opening, comparison, conclusion, each signed and answered.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from connectors.bookings import BookingPublisher
from connectors.kafka_log import KafkaLog
from connectors.notices import NoticeClient, read_notices
from connectors.publishing import SignedPublisher
from connectors.reviews import ReviewClient, read_course, read_leads
from connectors.signing_keys import SigningKey
from infra import wiring
from infra.data_folder import DataFolder
from infra.review_opening import SheetMaker
from infra.review_sheet import render
from processors.notice_states import NoticeState
from schemas.errors import TransientError
from schemas.events import (
    BookingOutcome,
    FeatureComparison,
    FeatureFinding,
    OrderEffect,
    OrderKind,
    ReviewConclusion,
    ReviewResult,
    SealedRecordNotice,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from connectors.object_store import ObjectStore
    from infra.settings import Settings
    from processors.notice_states import ReceivedNotice
    from processors.review_course import Lead
    from schemas.events import CandidateListIssued, ReviewAnswered

ANSWER_LIMIT_S = 120.0
POLL_S = 0.05
PROHIBITED = ("SURVEILLANCE_VIDEO", "BODY_WORN_CAMERA", "DRIVER_LICENCE_PHOTO", "SOCIAL_MEDIA", "SKETCH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """A list that two examiners compared."""

    probe_id: UUID
    examiners: tuple[str, ...]
    results: tuple[tuple[int, ReviewResult], ...]
    """(rank, result)."""
    mate_rank: int
    sheets: tuple[bytes, ...] = field(repr=False)
    """What each examiner was shown."""
    orders: tuple[tuple[UUID, ...], ...]
    """In which order each was shown the candidates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondAct:
    """What came back; `faults` is computed from it."""

    reviewed: Reviewed
    leads: tuple[Lead, ...]
    mate: str
    """The person for whom a lead is due."""
    notices: tuple[ReceivedNotice, ...]
    notices_due: frozenset[tuple[str, UUID]]
    """(receiver, probe) of everybody who had received the sealed record."""
    acknowledged: UUID
    """The notice that was acknowledged."""
    sealed: str
    """The person whose record was sealed."""
    list_after: CandidateListIssued
    """A list for another photo of that person, asked for after the order."""

    @property
    def faults(self) -> list[str]:
        """What is not as it must be, in words."""
        sent = [(each.notice.user_id, each.notice.probe_id) for each in self.notices]
        open_now = {each.notice.event_id for each in self.notices if each.acknowledged is None}
        supported = [rank for rank, result in self.reviewed.results if result is ReviewResult.SUPPORTED]
        return [
            text
            for wrong, text in (
                (len(set(self.reviewed.examiners)) != 2, "a review was not made by two examiners"),  # noqa: PLR2004
                (len(set(self.reviewed.orders)) != len(self.reviewed.orders), "two examiners saw one order"),
                (supported != [self.reviewed.mate_rank], "the review supports others than the mate"),
                (
                    [(lead.issued.person, lead.withdrawn) for lead in self.leads] != [(self.mate, None)],
                    "there is not exactly the one lead that the review supports (G8)",
                ),
                (
                    sorted(sent) != sorted(self.notices_due),
                    "others were told of the sealed record than had received it (G6)",
                ),
                (self.acknowledged in open_now, "an acknowledged notice is still open"),
                (
                    any(each.person == self.sealed for each in self.list_after.candidates),
                    "a sealed record is on a later list (G5)",
                ),
            )
            if wrong
        ]

    def document(self) -> dict[str, Any]:
        """Return the part of `leadstream demo --json`."""
        return {
            "reviews": [
                {
                    "probe_id": str(self.reviewed.probe_id),
                    "examiners": list(self.reviewed.examiners),
                    "sheets_sha256": [sha256(page).hexdigest() for page in self.reviewed.sheets],
                    "results": [{"rank": rank, "result": str(result)} for rank, result in self.reviewed.results],
                }
            ],
            "leads": [
                {
                    "lead_id": str(lead.issued.lead_id),
                    "probe_id": str(lead.issued.probe_id),
                    "person": lead.issued.person,
                    "examiners": list(lead.issued.examiners),
                    "conclusions": list(lead.issued.conclusions),
                    "withdrawn": lead.withdrawn is not None,
                }
                for lead in self.leads
            ],
            "notices": [
                {
                    "notice_id": str(each.notice.event_id),
                    "user": each.notice.user_id,
                    "probe_id": str(each.notice.probe_id),
                    "received_as": list(each.notice.received_as)
                    if isinstance(each.notice, SealedRecordNotice)
                    else ["LEAD"],
                    "state": str(each.state(wiring.now())),
                }
                for each in self.notices
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What the second act is played on.

    Attributes say who is who: the agency, the jail that publishes the order, the two examiners.
    """

    settings: Settings
    objects: ObjectStore
    agency: str
    jail: str
    examiners: Sequence[str]
    progress: Callable[[str, int, int], None]

    @property
    def _log(self) -> KafkaLog:
        return KafkaLog(wiring.kafka_config(self.settings))

    def _connection(self, user: str) -> SignedPublisher:
        key = SigningKey.load(DataFolder(self.settings.data).user_key(user))
        return SignedPublisher(wiring.kafka_config(self.settings), key)

    def review(self, listed: CandidateListIssued, mate: str) -> Reviewed:
        """Let every examiner compare all candidates of a list; return what came of it."""
        sheets, orders = [], []
        steps = len(self.examiners) * len(listed.candidates)
        for number, examiner in enumerate(self.examiners):
            page, shown = self._compare(examiner, listed, mate, done=number * len(listed.candidates), of=steps)
            sheets.append(page)
            orders.append(shown)
        log, deadline = self._log, time.monotonic() + ANSWER_LIMIT_S
        while (completed := read_course(log, listed.probe_id).completed) is None:
            if time.monotonic() > deadline:
                raise TransientError(f"The review was not completed in {ANSWER_LIMIT_S:g} s.")
            time.sleep(POLL_S)
        return Reviewed(
            probe_id=listed.probe_id,
            examiners=completed.examiners,
            results=tuple((each.rank, each.result) for each in completed.results),
            mate_rank=next(each.rank for each in listed.candidates if each.person == mate),
            sheets=tuple(sheets),
            orders=tuple(orders),
        )

    def _compare(
        self, examiner: str, listed: CandidateListIssued, mate: str, *, done: int, of: int
    ) -> tuple[bytes, tuple[UUID, ...]]:
        rules = wiring.policy(self.settings).reviews
        log = self._log
        maker = SheetMaker(log=log, objects=self.objects, rules=rules, landmarks_of=lambda _photo: None)
        sheet = maker.make(listed, read_course(log, listed.probe_id), examiner, wiring.now())
        page = render(sheet)
        shown = tuple(each.capture_id for each in sheet.candidates)
        person_of = {each.capture_id: each.person for each in listed.candidates}
        with self._connection(examiner) as connection:
            client = ReviewClient(connection, examiner, self.agency)
            opened = client.open(
                listed.probe_id,
                shown=shown,
                shows_scores=sheet.shows_scores,
                sheet_sha256=sha256(page).hexdigest(),
                expires_at=sheet.expires_at,
            )
            _require(client.await_answer(opened, ANSWER_LIMIT_S))
            decided = []
            for number, capture_id in enumerate(shown, start=1):
                decided.append(
                    client.decide(listed.probe_id, capture_id, **_said(person_of[capture_id] == mate, rules))
                )
                self.progress("comparisons", done + number, of)
            for answer in client.await_answers(decided, ANSWER_LIMIT_S):
                _require(answer)
            _require(client.await_answer(client.conclude(listed.probe_id), ANSWER_LIMIT_S))
        return page, shown

    def leads(self, due: int) -> tuple[Lead, ...]:
        """Return all leads, once there are as many as are due."""
        log, deadline = self._log, time.monotonic() + ANSWER_LIMIT_S
        while len(found := read_leads(log)) < due:
            if time.monotonic() > deadline:
                raise TransientError(f"{len(found)} of {due} leads were issued in {ANSWER_LIMIT_S:g} s.")
            time.sleep(POLL_S)
        return found

    def seal(self, booking_number: str) -> None:
        """Publish a seal order and wait until it is obeyed."""
        key = SigningKey.load(DataFolder(self.settings.data).publisher_key(self.jail))
        with SignedPublisher(wiring.kafka_config(self.settings), key) as publisher:
            client = BookingPublisher(publisher, self.objects, self.jail, self.agency)
            published = client.publish_order(
                booking_number=booking_number,
                order=OrderKind.SEAL,
                statute="CA PC 851.91",
                court="Superior Court of the demonstration",
                order_number="DEMO-1",
                ordered_at=wiring.now(),
                effect=OrderEffect.WITHDRAW_AND_MASK,
            )
            answer = client.await_outcome(published, ANSWER_LIMIT_S)
        if answer.outcome is not BookingOutcome.WITHDRAWN:
            raise TransientError(f"The seal was not obeyed: {answer.code}: {answer.message}")

    def notices(self, due: int) -> tuple[ReceivedNotice, ...]:
        """Return the notices of all users, once there are as many as are due."""
        log, deadline = self._log, time.monotonic() + ANSWER_LIMIT_S
        while len(found := [each for user in self.examiners for each in read_notices(log, user)]) < due:
            if time.monotonic() > deadline:
                raise TransientError(f"{len(found)} of {due} notices were sent in {ANSWER_LIMIT_S:g} s.")
            time.sleep(POLL_S)
        return tuple(found)

    def acknowledge(self, notice: ReceivedNotice) -> None:
        """Let its receiver acknowledge a notice."""
        if notice.state(wiring.now()) is NoticeState.ACKNOWLEDGED:
            return
        with self._connection(notice.notice.user_id) as connection:
            client = NoticeClient(connection, notice.notice.user_id)
            said = client.acknowledge(notice.notice.event_id, statement="The list and its copies were destroyed.")
            answer = client.await_answer(said, ANSWER_LIMIT_S)
        if not answer.accepted:
            raise TransientError(f"An acknowledgement was refused: {answer.code}: {answer.message}")


def _said(is_mate: bool, rules: Any) -> dict[str, Any]:  # noqa: FBT001 - one fact
    finding = FeatureFinding.SIMILAR if is_mate else FeatureFinding.DISSIMILAR
    return {
        "features": [FeatureComparison(feature=feature, finding=finding, note="") for feature in rules.features],
        "limitations": "Made by the demonstration from what the sample photos are known to show.",
        "conclusion": ReviewConclusion.SUPPORT if is_mate else ReviewConclusion.EXCLUSION,
    }


def _require(answer: ReviewAnswered) -> None:
    if not answer.accepted:
        raise TransientError(f"A step of the review was refused: {answer.code}: {answer.message}")
