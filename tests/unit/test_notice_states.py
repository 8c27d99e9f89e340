"""A notice stays open until an acknowledgement of it was accepted, and is overdue from its due time on (G6)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from builders import NOW, ORI, uuid_named

from processors.notice_states import NoticeState, received_notices
from schemas.events import LeadWithdrawnNotice, NoticeAnswered, NoticeReminder
from schemas.positions import SourcePosition
from schemas.topics import NOTICE_ACKNOWLEDGEMENTS

DUE = NOW + timedelta(hours=24)


def facts(name: str, user: str) -> dict[str, Any]:
    return {"event_id": uuid_named(name), "occurred_at": NOW, "actor": "system:clerk", "user_id": user}


def notice(name: str = "notice", user: str = "alice") -> LeadWithdrawnNotice:
    return LeadWithdrawnNotice(
        **facts(name, user),
        ori=ORI,
        lead_id=uuid_named("lead"),
        probe_id=uuid_named("probe"),
        case_number="1",
        cause="REVIEW_REVERSED",
        message="Destroy it.",
        due_at=DUE,
    )


def answer(name: str, *, accepted: bool, of: str = "notice", user: str = "alice") -> NoticeAnswered:
    return NoticeAnswered(
        **facts(name, user),
        notice_id=uuid_named(of),
        source=SourcePosition(topic=NOTICE_ACKNOWLEDGEMENTS, partition=0, offset=0),
        source_event_id=uuid_named(f"said {name}"),
        accepted=accepted,
    )


def reminder(number: int) -> NoticeReminder:
    return NoticeReminder(
        **facts(f"reminder {number}", "alice"), notice_id=uuid_named("notice"), number=number, due_at=DUE
    )


def test_a_notice_is_overdue_from_the_very_instant_at_which_it_is_due() -> None:
    (received,) = received_notices([notice()], "alice")
    assert received.state(DUE - timedelta(microseconds=1)) is NoticeState.OPEN
    assert received.state(DUE) is NoticeState.OVERDUE


def test_what_was_refused_acknowledges_nothing_and_what_was_accepted_is_not_undone() -> None:
    (received,) = received_notices([notice(), answer("first", accepted=False)], "alice")
    assert received.state(DUE) is NoticeState.OVERDUE
    assert received.last_answer == answer("first", accepted=False)
    said = [notice(), answer("second", accepted=True), answer("third", accepted=False)]
    (received,) = received_notices(said, "alice")
    assert received.state(DUE) is NoticeState.ACKNOWLEDGED
    assert received.acknowledged == answer("second", accepted=True)


def test_repeats_change_no_count_and_the_notices_of_others_are_not_shown() -> None:
    """G11."""
    events = [notice(), reminder(1), reminder(2), reminder(1), notice(), notice("other", "bob")]
    (received,) = received_notices([*events, answer("of bob", accepted=True, user="bob")], "alice")
    assert (received.notice, received.reminders, received.acknowledged) == (notice(), 2, None)


def test_an_answer_about_a_notice_that_was_never_sent_is_passed_over() -> None:
    assert received_notices([answer("stray", accepted=True)], "alice") == ()
