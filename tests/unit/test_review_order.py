"""An examiner sees neither the machine's ranking nor another examiner's trace in the order of the candidates (G8)."""

from __future__ import annotations

from uuid import UUID

from builders import uuid_named
from hypothesis import given
from hypothesis import strategies as st

from processors.review_order import order_shown

PROBE = uuid_named("probe")
captures = st.lists(st.integers(0, 10_000).map(lambda number: UUID(int=number)), unique=True, max_size=50)
names = st.text(min_size=1, max_size=8)


def listed(count: int) -> tuple[UUID, ...]:
    return tuple(uuid_named(f"capture {number}") for number in range(count))


@given(candidates=captures, examiner=names)
def test_the_first_examiner_sees_the_list_where_the_policy_does_not_shuffle(
    candidates: list[UUID], examiner: str
) -> None:
    assert order_shown(PROBE, examiner, candidates, shuffles=False, shown_to_others=[]) == tuple(candidates)


@given(candidates=captures, examiner=names, others=st.lists(names, max_size=3))
def test_every_order_has_each_candidate_once_and_is_the_same_when_asked_again(
    candidates: list[UUID], examiner: str, others: list[str]
) -> None:
    orders = [order_shown(PROBE, other, candidates, shuffles=True, shown_to_others=[]) for other in others]
    shown = order_shown(PROBE, examiner, candidates, shuffles=True, shown_to_others=orders)
    assert sorted(shown) == sorted(candidates)
    assert shown == order_shown(PROBE, examiner, candidates, shuffles=True, shown_to_others=orders)


@given(candidates=captures.filter(lambda each: len(each) > 2), examiners=st.lists(names, min_size=2, max_size=4))
def test_nobody_after_the_first_sees_the_list_or_an_order_that_somebody_saw(
    candidates: list[UUID], examiners: list[str]
) -> None:
    seen = [tuple(candidates)]
    for examiner in examiners:
        shown = order_shown(PROBE, examiner, candidates, shuffles=False, shown_to_others=seen)
        assert shown not in seen
        seen.append(shown)


def test_three_candidates_have_six_orders_and_five_examiners_see_five_of_them() -> None:
    """The draw alone would repeat one."""
    seen = [listed(3)]
    for number in range(5):
        seen.append(order_shown(PROBE, f"examiner {number}", listed(3), shuffles=True, shown_to_others=seen))
    assert len(set(seen)) == 6
    assert len(order_shown(PROBE, "a seventh", listed(3), shuffles=True, shown_to_others=seen)) == 3


def test_a_policy_that_shuffles_hides_the_ranking_from_the_first_examiner_too() -> None:
    shown = {
        order_shown(PROBE, f"examiner {number}", listed(3), shuffles=True, shown_to_others=[]) for number in range(40)
    }
    assert len(shown) == 5
    assert listed(3) not in shown


def test_the_order_depends_on_examiner_and_probe() -> None:
    orders = {
        order_shown(uuid_named(probe), examiner, listed(12), shuffles=True, shown_to_others=[])
        for probe in ("one", "two")
        for examiner in ("alice", "bob")
    }
    assert len(orders) == 4


def test_an_order_counts_as_seen_though_a_candidate_has_been_sealed_since() -> None:
    """What is left of another examiner's order is not shown either."""
    drawn = order_shown(PROBE, "bob", listed(4), shuffles=True, shown_to_others=[])
    before = (uuid_named("sealed since"), *drawn)
    assert order_shown(PROBE, "bob", listed(4), shuffles=True, shown_to_others=[before]) != drawn
