"""Which record of a booking counts (G5), whatever a restart repeats and in whatever order it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from builders import MICROSECOND, NOW, ORI, uuid_named
from hypothesis import example, given, settings
from hypothesis import strategies as st

from processors.gallery import BARRING, Entry, GalleryLedger, Verdict
from processors.template_rows import hashes_of
from schemas.errors import ContractError
from schemas.events import TemplatesEnrolled, TemplatesWithdrawn, WithdrawalCause
from schemas.instants import to_micros
from schemas.positions import SourcePosition
from schemas.topics import BOOKING_EVENTS, GALLERY

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

BOOKINGS = ("B-1", "B-2", "B-3")
KEYS = {booking: f"{ORI}/{booking}" for booking in BOOKINGS}
ENROLLED = None


def said_at(source_offset: int) -> datetime:
    """The latest time at which a publisher said something that counted, up to this offset of the booking topic."""
    return NOW + source_offset * MICROSECOND


def record(
    source_offset: int,
    cause: WithdrawalCause | None = ENROLLED,
    booking: str = "B-1",
    said: datetime | None = None,
) -> TemplatesEnrolled | TemplatesWithdrawn:
    source = SourcePosition(topic=BOOKING_EVENTS, partition=0, offset=source_offset)
    said = said or said_at(source_offset)
    if cause is None:
        return TemplatesEnrolled(
            event_id=uuid_named(f"{booking} {source}"),
            occurred_at=NOW,
            actor="system:worker",
            ori=ORI,
            booking_number=booking,
            model_digest="ab" * 32,
            captures=(),
            source=source,
            source_said_at=said,
        )
    return TemplatesWithdrawn(
        event_id=uuid_named(f"{booking} {source}"),
        occurred_at=NOW,
        actor="system:worker",
        ori=ORI,
        booking_number=booking,
        cause=cause,
        source=source,
        source_said_at=said,
    )


def read(records: Iterable[TemplatesEnrolled | TemplatesWithdrawn]) -> tuple[GalleryLedger, list[Verdict]]:
    ledger = GalleryLedger()
    verdicts = [
        ledger.judge(event, SourcePosition(topic=GALLERY, partition=0, offset=offset))
        for offset, event in enumerate(records)
    ]
    return ledger, verdicts


def cause_of(source_offset: int) -> WithdrawalCause | None:
    """What the event at this offset of the booking topic meant: the same for every repeat of it."""
    return (ENROLLED, WithdrawalCause.SEALED, WithdrawalCause.ORDER_LIFTED, WithdrawalCause.EXPUNGED)[source_offset % 4]


logs = st.lists(st.tuples(st.sampled_from(BOOKINGS), st.integers(0, 9)), max_size=40)


def records_of(log: list[tuple[str, int]]) -> list[TemplatesEnrolled | TemplatesWithdrawn]:
    return [record(offset, cause_of(offset), booking) for booking, offset in log]


@settings(max_examples=60, deadline=None)
@given(logs)
@example([("B-1", 5), ("B-1", 4), ("B-1", 5)])
def test_the_highest_source_offset_is_in_force_whatever_repeats_stand_behind_it(log: list[tuple[str, int]]) -> None:
    ledger, _ = read(records_of(log))
    for booking, key in KEYS.items():
        offsets = [offset for name, offset in log if name == booking]
        highest = max(offsets, default=None)
        in_force = cause_of(highest) if highest is not None else None
        assert ledger.barred_by(key) == (in_force if in_force in BARRING else None)
        assert ledger.is_superseded(key, 0) == (highest is not None and highest > 0)
        if highest is not None:
            assert not ledger.is_superseded(key, highest)
            assert ledger.is_superseded(key, highest - 1)
    assert len(ledger) == len({booking for booking, _ in log})


@settings(max_examples=60, deadline=None)
@given(logs)
@example([("B-1", 5), ("B-1", 4), ("B-1", 5), ("B-1", 3)])
def test_what_is_known_of_a_booking_is_what_its_counting_record_says(log: list[tuple[str, int]]) -> None:
    ledger, _ = read(records_of(log))
    for booking, key in KEYS.items():
        own = [(offset, position) for position, (name, offset) in enumerate(log) if name == booking]
        highest, position = max(own, default=(None, None))
        if highest is None or position is None:
            assert ledger.entry(key) is None
        else:
            assert ledger.entry(key) == Entry(highest, (0, position), cause_of(highest), said_at(highest))


@settings(max_examples=60, deadline=None)
@given(logs)
def test_what_a_late_repeat_says_never_turns_back_the_time_before_which_events_are_stale(
    log: list[tuple[str, int]],
) -> None:
    ledger, said = GalleryLedger(), dict.fromkeys(KEYS.values(), NOW)
    for offset, event in enumerate(records_of(log)):
        ledger.judge(event, SourcePosition(topic=GALLERY, partition=0, offset=offset))
        for key, before in said.items():
            entry = ledger.entry(key)
            said[key] = entry.said_at if entry else before
            assert said[key] >= before


@settings(max_examples=60, deadline=None)
@given(logs)
def test_exactly_the_records_that_count_are_applied(log: list[tuple[str, int]]) -> None:
    _, verdicts = read(records_of(log))
    highest: dict[str, int] = {}
    for (booking, offset), verdict in zip(log, verdicts, strict=True):
        assert verdict is (Verdict.LATE if offset < highest.get(booking, -1) else Verdict.COUNTS)
        highest[booking] = max(offset, highest.get(booking, -1))


@settings(max_examples=60, deadline=None)
@given(logs)
def test_exactly_the_bookings_whose_last_record_does_not_count_are_put_at_the_end_again(
    log: list[tuple[str, int]],
) -> None:
    # Compaction keeps the last record of a key; behind a late repeat it would erase the withdrawal that counts.
    ledger, _ = read(records_of(log))
    expected = {}
    for booking, key in KEYS.items():
        own = [(offset, position) for position, (name, offset) in enumerate(log) if name == booking]
        if own and own[-1][0] != max(own)[0]:
            expected[key] = (0, max(own)[1])
    assert ledger.to_put_at_the_end_again() == expected


@settings(max_examples=60, deadline=None)
@given(logs)
def test_putting_them_at_the_end_leaves_nothing_to_put_and_changes_nothing_that_counts(
    log: list[tuple[str, int]],
) -> None:
    before, _ = read(records_of(log))
    again = [log[offset] for _, offset in before.to_put_at_the_end_again().values()]
    after, verdicts = read(records_of(log + again))
    assert after.to_put_at_the_end_again() == {}
    assert set(verdicts[len(log) :]) <= {Verdict.COUNTS}
    assert [after.barred_by(key) for key in KEYS.values()] == [before.barred_by(key) for key in KEYS.values()]


@settings(max_examples=60, deadline=None)
@given(logs)
def test_a_healed_log_means_the_same_after_compaction(log: list[tuple[str, int]]) -> None:
    before, _ = read(records_of(log))
    healed = log + [log[offset] for _, offset in before.to_put_at_the_end_again().values()]
    compacted = list(dict(healed).items())
    after, _ = read(records_of(compacted))
    assert [after.barred_by(key) for key in KEYS.values()] == [before.barred_by(key) for key in KEYS.values()]
    for key in KEYS.values():
        assert [after.is_superseded(key, offset) for offset in range(10)] == [
            before.is_superseded(key, offset) for offset in range(10)
        ]
        assert meaning(after.entry(key)) == meaning(before.entry(key))


def meaning(entry: Entry | None) -> tuple[int, WithdrawalCause | None, datetime] | None:
    """Everything about the record that counts but where it stands."""
    return entry and (entry.source_offset, entry.withdrawn, entry.said_at)


def test_of_two_records_of_one_event_the_last_counts_as_it_is_the_one_that_compaction_keeps() -> None:
    # A repeat may differ: the photo that was missing the first time has come, or a worker has another policy. A replica
    # that holds the first of them would differ for ever from one that was started after compaction (G7).
    first, last = record(5, WithdrawalCause.NO_USABLE_CAPTURE), record(5, ENROLLED, said=NOW)
    ledger, verdicts = read([first, last])
    compacted, _ = read([last])
    assert verdicts == [Verdict.COUNTS, Verdict.COUNTS]
    assert ledger.to_put_at_the_end_again() == {}
    assert meaning(ledger.entry(KEYS["B-1"])) == meaning(compacted.entry(KEYS["B-1"])) == (5, ENROLLED, NOW)


@pytest.mark.parametrize("cause", sorted(BARRING))
def test_a_seal_and_an_expungement_bar_the_booking_until_something_newer_is_said(cause: WithdrawalCause) -> None:
    ledger, _ = read([record(1), record(2, cause)])
    assert ledger.barred_by(KEYS["B-1"]) is cause
    ledger, _ = read([record(1), record(2, cause), record(1), record(1)])
    assert ledger.barred_by(KEYS["B-1"]) is cause
    ledger, _ = read([record(1), record(2, cause), record(3, WithdrawalCause.ORDER_LIFTED)])
    assert ledger.barred_by(KEYS["B-1"]) is None


@pytest.mark.parametrize("cause", sorted(set(WithdrawalCause) - BARRING))
def test_other_withdrawals_bar_nothing(cause: WithdrawalCause) -> None:
    ledger, _ = read([record(1), record(2, cause)])
    assert ledger.barred_by(KEYS["B-1"]) is None


def test_an_unknown_booking_is_neither_barred_nor_superseded() -> None:
    ledger = GalleryLedger()
    assert ledger.entry("CA0190000/B-9") is None
    assert ledger.barred_by("CA0190000/B-9") is None
    assert not ledger.is_superseded("CA0190000/B-9", 0)
    assert ledger.to_put_at_the_end_again() == {}


def test_the_order_on_one_booking_bars_no_other() -> None:
    ledger, _ = read([record(1, WithdrawalCause.SEALED, "B-1"), record(1, ENROLLED, "B-2")])
    assert ledger.barred_by(KEYS["B-2"]) is None


@settings(max_examples=100, deadline=None)
@given(logs, st.lists(st.integers(1, 6), max_size=40))
def test_enrolments_that_are_judged_together_count_as_they_would_one_by_one(
    log: list[tuple[str, int]], sizes: list[int]
) -> None:
    """G5, G7: whatever comes before, between and behind them."""
    records = records_of(log)
    alone, verdicts = read(records)
    ledger, counting, start = GalleryLedger(), [], 0
    for size in [*sizes, *[1] * len(records)]:
        part = records[start : start + size]
        if all(map(is_enrolment, part)) and len({event.booking_number for event in part}) == len(part):
            keys = [KEYS[event.booking_number].encode() for event in part]
            counting += ledger.judge_all(
                keys,
                hashes_of(keys),
                source_offsets=np.array([event.source.offset for event in part], dtype=np.int64),
                partitions=np.zeros(len(part), dtype=np.int64),
                offsets=np.arange(start, start + len(part)),
                said_at_us=np.array([to_micros(event.source_said_at) for event in part], dtype=np.int64),
            ).tolist()
        else:
            counting += [
                ledger.judge(event, SourcePosition(topic=GALLERY, partition=0, offset=start + place)) is Verdict.COUNTS
                for place, event in enumerate(part)
            ]
        start += len(part)
    assert counting == [verdict is Verdict.COUNTS for verdict in verdicts]
    assert list(ledger.entries()) == list(alone.entries())
    assert ledger.to_put_at_the_end_again() == alone.to_put_at_the_end_again()


def is_enrolment(event: TemplatesEnrolled | TemplatesWithdrawn) -> bool:
    return isinstance(event, TemplatesEnrolled)


@settings(max_examples=60, deadline=None)
@given(logs)
def test_a_ledger_that_was_dumped_and_loaded_is_the_same(log: list[tuple[str, int]]) -> None:
    ledger, _ = read(records_of(log))
    again = GalleryLedger.load(ledger.dump())
    assert dict(again.entries()) == dict(ledger.entries())
    assert again.to_put_at_the_end_again() == ledger.to_put_at_the_end_again()
    assert again.dump() == ledger.dump()


def test_a_dump_of_another_kind_or_with_a_part_missing_is_refused() -> None:
    ledger, _ = read(records_of([("B-1", 3)]))
    good = ledger.dump()
    for name in good:
        with pytest.raises(ContractError):
            GalleryLedger.load({other: data for other, data in good.items() if other != name})
    with pytest.raises(ContractError):
        GalleryLedger.load({**good, "offsets": good["offsets"] * 2})
    with pytest.raises(ContractError):
        GalleryLedger.load({**good, "other": good["other"].replace(b"SEALED", b"SEAL")})
