"""How far the audit trail is behind: a bound that is never too small, from looks at two growing logs."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from processors.audit_lag import AuditLag

PLACES = (("t", 0), ("t", 1))


def test_before_the_trail_was_ever_seen_complete_its_lag_is_not_known() -> None:
    lag = AuditLag()
    assert lag.behind_s(10.0) == math.inf
    lag.note(10.0, {}, {PLACES[0]: 1})
    assert lag.behind_s(11.0) == math.inf


def test_a_trail_that_has_everything_is_as_far_behind_as_the_look_is_old() -> None:
    lag = AuditLag()
    lag.note(10.0, {PLACES[0]: 3}, {PLACES[0]: 3})
    assert lag.behind_s(12.5) == 2.5


def test_a_trail_that_stands_still_falls_behind_and_one_that_catches_up_does_not_stay_so() -> None:
    lag = AuditLag()
    lag.note(0.0, {PLACES[0]: 3}, {PLACES[0]: 3})
    for at in range(1, 60):
        lag.note(float(at), {PLACES[0]: 3}, {PLACES[0]: 3 + at})
    assert lag.behind_s(60.0) == 60.0
    lag.note(60.0, {PLACES[0]: 4}, {PLACES[0]: 70})
    assert lag.behind_s(60.0) == 59.0, "what stood in Kafka at the first look that found it behind is audited now"
    lag.note(61.0, {PLACES[0]: 70}, {PLACES[0]: 70})
    assert lag.behind_s(61.0) == 0.0


def test_a_partition_that_is_never_audited_is_never_forgotten() -> None:
    lag = AuditLag()
    lag.note(0.0, {PLACES[0]: 5}, {PLACES[0]: 5, PLACES[1]: 1})
    lag.note(1.0, {PLACES[0]: 9}, {PLACES[0]: 9, PLACES[1]: 1})
    assert lag.behind_s(1.0) == math.inf


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["append", "audit", "look"]), st.sampled_from(PLACES), st.integers(min_value=0, max_value=3)
        ),
        max_size=60,
    )
)
def test_everything_older_than_the_bound_is_audited(steps: list[tuple[str, tuple[str, int], int]]) -> None:
    lag = AuditLag()
    appended_at: dict[tuple[str, int], list[float]] = {place: [] for place in PLACES}
    audited = dict.fromkeys(PLACES, 0)
    now = 0.0
    for what, place, count in steps:
        now += 1.0
        if what == "append":
            appended_at[place] += [now] * count
        elif what == "audit":
            audited[place] = min(len(appended_at[place]), audited[place] + count)
        else:
            lag.note(now, dict(audited), {where: len(times) for where, times in appended_at.items()})
        everything = all(audited[where] == len(times) for where, times in appended_at.items())
        if what == "look" and everything:
            assert lag.behind_s(now) == 0.0
        since = now - lag.behind_s(now)
        for where, times in appended_at.items():
            assert all(at > since for at in times[audited[where] :])
