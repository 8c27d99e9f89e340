"""The signed publisher without a broker: what it refuses by itself, and that it never waits for ever."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from connectors.outcomes import FirstOnes
from connectors.publishing import SignedPublisher
from connectors.signing_keys import SigningKey
from schemas.avro_schemas import CURRENT_VERSIONS
from schemas.errors import ContractError, TransientError, UsageError
from schemas.events import AccessGranted, TemplatesWithdrawn, WithdrawalCause
from schemas.positions import SourcePosition

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY_LISTENS = {"bootstrap.servers": "127.0.0.1:1"}
AT = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
BOUND_S = 60.0
"""Far above what the publisher is given; a busy machine takes its time."""


def granted(reason: str = "appointed") -> AccessGranted:
    return AccessGranted(event_id=uuid4(), occurred_at=AT, actor="user:administrator", user_id="jdoe", reason=reason)


@pytest.fixture
def publisher() -> Iterator[SignedPublisher]:
    with SignedPublisher(NOBODY_LISTENS, SigningKey(Ed25519PrivateKey.generate()), timeout_s=0.5) as publisher:
        yield publisher


def test_a_broker_that_is_away_is_a_transient_error_in_bounded_time(publisher: SignedPublisher) -> None:
    started = time.monotonic()
    with pytest.raises(TransientError, match="send it again"):
        publisher.publish(granted())
    assert time.monotonic() - started < BOUND_S


def test_a_value_that_the_contract_does_not_allow_is_refused_before_anything_is_sent(
    publisher: SignedPublisher,
) -> None:
    with pytest.raises(ContractError, match="AccessGranted"):
        publisher.publish(granted(reason=cast("str", 7)))


def test_what_the_worker_says_cannot_be_published_from_outside(publisher: SignedPublisher) -> None:
    withdrawn = TemplatesWithdrawn(
        event_id=uuid4(),
        occurred_at=AT,
        actor="system:worker",
        ori="CA0190000",
        booking_number="B-1",
        cause=WithdrawalCause.SEALED,
        order_event_id=None,
        source=SourcePosition(topic="booking.events.v1", partition=0, offset=0),
        source_said_at=AT,
    )
    with pytest.raises(UsageError, match="not published from outside"):
        publisher.publish(withdrawn)


def test_a_closed_publisher_says_so(publisher: SignedPublisher) -> None:
    publisher.close()
    with pytest.raises(UsageError, match="closed"):
        publisher.publish(granted())


def test_a_registry_without_the_schema_is_an_operators_task() -> None:
    registry = {7: CURRENT_VERSIONS["leadstream.probe.ProbeSubmitted"]}
    key = SigningKey(Ed25519PrivateKey.generate())
    with (
        SignedPublisher(NOBODY_LISTENS, key, registry=registry) as publisher,
        pytest.raises(UsageError, match="AccessGranted version 1; register it"),
    ):
        publisher.publish(granted())


identities = st.lists(st.integers(0, 6).map(lambda number: UUID(int=number)), max_size=30)


@given(log=identities, restarts=st.sets(st.integers(0, 30)))
def test_each_identity_counts_once_whatever_repeats_and_whenever_the_reader_restarts(
    log: list[UUID], restarts: set[int]
) -> None:
    """G11: a reader that restarts anywhere knows what came before."""

    def read_back(partition: int, offset: int) -> list[UUID]:
        assert partition == 0
        return log[:offset]

    first_ones = FirstOnes(read_back)
    counted = []
    for offset, identity in enumerate(log):
        if offset in restarts:
            first_ones = FirstOnes(read_back)
        if first_ones.is_first(0, offset, identity):
            counted.append(identity)
    assert counted == list(dict.fromkeys(log))


@given(logs=st.tuples(identities, identities), offset=st.integers(0, 30))
def test_a_partition_that_was_taken_away_is_read_back_when_it_returns(
    logs: tuple[list[UUID], list[UUID]], offset: int
) -> None:
    first_ones = FirstOnes(lambda partition, stop: logs[partition][:stop])
    for partition in (0, 1):
        for place, identity in enumerate(logs[partition][:offset]):
            first_ones.is_first(partition, place, identity)
    first_ones.forget([1])
    for place, identity in enumerate(logs[1]):
        if place >= offset:
            assert first_ones.is_first(1, place, identity) == (identity not in logs[1][:place])
