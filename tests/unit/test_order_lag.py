"""How long a court order waits: a bound that is never too small, and nothing is read while the workers keep up (G5)."""

from __future__ import annotations

import math
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from processors.order_lag import OrderLag, WaitingOrder

PLACES = (0, 1)
ORDER, BOOKING = "order", "booking"


def nothing_obeyed(_booking: str, _offset: int) -> bool:
    return False


def look(lag: OrderLag, at_s: float, committed: dict[int, int], ends: dict[int, int], *found: WaitingOrder) -> None:
    unread = lag.unread(at_s, committed, ends)
    lag.note(at_s, ends, unread, [each for each in found if each.partition in unread])


def test_before_the_first_look_nothing_is_known() -> None:
    assert OrderLag().unknown_s(10.0) == math.inf


def test_workers_that_keep_up_leave_nothing_to_read() -> None:
    lag = OrderLag()
    look(lag, 0.0, {0: 5}, {0: 5})
    assert lag.unread(2.0, {0: 5}, {0: 9}) == {}, "none of it stood there at the look before"
    lag.note(2.0, {0: 9}, (), ())
    assert lag.unread(4.0, {0: 9}, {0: 20}) == {}
    lag.note(4.0, {0: 20}, (), ())
    assert (lag.waiting_s(5.0, nothing_obeyed), lag.unknown_s(5.0)) == (0.0, 3.0)


def test_what_the_workers_have_not_come_to_is_read_once() -> None:
    lag = OrderLag()
    assert lag.unread(0.0, {0: 5}, {0: 9}) == {0: (5, 9)}, "at the first look, how long it has stood is not known"
    lag.note(0.0, {0: 9}, [0], [WaitingOrder(-7.0, 0, 6, "one")])
    assert lag.unread(2.0, {0: 5}, {0: 12}) == {}
    lag.note(2.0, {0: 12}, (), ())
    assert lag.unread(4.0, {0: 6}, {0: 12}) == {0: (9, 12)}
    lag.note(4.0, {0: 12}, [0], ())
    assert (lag.waiting_s(4.0, nothing_obeyed), lag.unknown_s(4.0)) == (11.0, 0.0)


def test_an_order_waits_until_it_is_obeyed_or_the_workers_have_passed_it() -> None:
    lag = OrderLag()
    orders = [WaitingOrder(float(number), 0, number, f"B-{number}") for number in range(3)]
    look(lag, 3.0, {0: 0}, {0: 3}, *orders)
    assert lag.waiting_s(3.0, lambda booking, offset: (booking, offset) == ("B-1", 1)) == 3.0
    look(lag, 4.0, {0: 1}, {0: 3})
    assert lag.waiting_s(4.0, lambda booking, _: booking == "B-1") == 2.0, "one was refused, the next was obeyed"
    look(lag, 5.0, {0: 3}, {0: 3})
    assert lag.waiting_s(5.0, nothing_obeyed) == 0.0


class Written(NamedTuple):
    at_s: float
    kind: str


WRITES = st.tuples(st.just("write"), st.sampled_from(PLACES), st.sampled_from([ORDER, ORDER, BOOKING]))
LOOKS = st.tuples(st.sampled_from(["look", "look", "look and fail to read", "wait"]), st.just(0), st.just(0))
STEPS = st.one_of(
    WRITES,
    LOOKS,
    st.one_of(
        st.tuples(st.just("commit"), st.sampled_from(PLACES), st.integers(1, 3)),
        st.tuples(st.just("obey"), st.sampled_from(PLACES), st.integers(0, 5)),
    ),
    WRITES,
    LOOKS,
)


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(STEPS, min_size=5, max_size=40))
def test_no_order_waits_for_longer_than_is_said_and_the_bound_is_close(
    steps: list[tuple[str, int, str | int]],
) -> None:
    lag, now_s, looked_at_s = OrderLag(), 100.0, [-math.inf, -math.inf]
    topic: dict[int, list[Written]] = {place: [] for place in PLACES}
    committed = dict.fromkeys(PLACES, 0)
    told = dict(committed)
    obeyed: set[tuple[str, int]] = set()
    for step, place, what in steps:
        now_s += 1.0
        ends = {each: len(topic[each]) for each in PLACES}
        if step == "write":
            topic[place].append(Written(now_s, str(what)))
        elif step == "commit":
            committed[place] = min(ends[place], committed[place] + int(what))
        elif step == "obey":
            obeyed.add((f"{place}", int(what)))
        elif step != "wait":
            told = dict(committed)
            unread = lag.unread(now_s, committed, ends)
            if not unread or step == "look":
                found = [
                    WaitingOrder(topic[part][offset].at_s, part, offset, f"{part}")
                    for part, (start, stop) in unread.items()
                    for offset in range(start, stop)
                    if topic[part][offset].kind == ORDER
                ]
                lag.note(now_s, ends, unread, found)
                looked_at_s.append(now_s)

        def oldest_s(reached: dict[int, int]) -> float:
            waiting = (
                now_s - written.at_s  # noqa: B023 - called at once
                for part, records in topic.items()
                for offset, written in enumerate(records)
                if written.kind == ORDER and offset >= reached[part] and (f"{part}", offset) not in obeyed
            )
            return max(waiting, default=0.0)

        said = lag.waiting_s(now_s, lambda booking, offset: (booking, offset) in obeyed)
        assert oldest_s(committed) <= max(said, lag.unknown_s(now_s))
        assert said <= oldest_s(told), "nobody is said to wait who does not"
        assert lag.unknown_s(now_s) <= now_s - looked_at_s[-2]
