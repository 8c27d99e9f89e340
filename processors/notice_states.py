"""Which notices a user has received, and whether they were acknowledged (G6)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from schemas.events import LeadWithdrawnNotice, NoticeAnswered, NoticeReminder, SealedRecordNotice

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from uuid import UUID

Notice = SealedRecordNotice | LeadWithdrawnNotice
NoticeEvent = Notice | NoticeReminder | NoticeAnswered


class NoticeState(StrEnum):
    """Whether a notice has been acknowledged."""

    OPEN = "OPEN"
    OVERDUE = "OVERDUE"
    ACKNOWLEDGED = "ACKNOWLEDGED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedNotice:
    """A notice and what became of it."""

    notice: Notice
    reminders: int = 0
    acknowledged: NoticeAnswered | None = None
    """The clerk's answer to the acknowledgement that counts."""
    last_answer: NoticeAnswered | None = None
    """To the last acknowledgement, whether it counts or not."""

    def state(self, at: datetime) -> NoticeState:
        """Return the state at an instant; a notice is overdue from `due_at` on."""
        if self.acknowledged is not None:
            return NoticeState.ACKNOWLEDGED
        return NoticeState.OVERDUE if at >= self.notice.due_at else NoticeState.OPEN


def received_notices(events: Iterable[NoticeEvent], user_id: str) -> tuple[ReceivedNotice, ...]:
    """Return the notices of a user in the order in which they were sent, each once (G11)."""
    received: dict[UUID, ReceivedNotice] = {}
    answered: set[UUID] = set()
    for event in events:
        if event.user_id != user_id:
            continue
        if isinstance(event, (SealedRecordNotice, LeadWithdrawnNotice)):
            received.setdefault(event.event_id, ReceivedNotice(notice=event))
        elif (notice := received.get(event.notice_id)) is None:
            continue
        elif isinstance(event, NoticeReminder):
            received[event.notice_id] = replace(notice, reminders=max(notice.reminders, event.number))
        elif event.event_id not in answered:
            answered.add(event.event_id)
            counts = notice.acknowledged or (event if event.accepted else None)
            received[event.notice_id] = replace(notice, acknowledged=counts, last_answer=event)
    return tuple(received.values())
