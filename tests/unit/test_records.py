"""A batch of records is the records, in their order; only the way to their values is shorter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.records import LogRecord, RecordBatch

records = st.builds(
    LogRecord,
    topic=st.sampled_from(["a", "b", "c"]),
    partition=st.integers(0, 3),
    offset=st.integers(0, 2**63 - 2),
    timestamp_ms=st.integers(0, 2**40),
    key=st.none() | st.binary(max_size=3),
    value=st.none() | st.binary(max_size=3),
    headers=st.lists(st.tuples(st.text(max_size=3), st.none() | st.binary(max_size=3)), max_size=2).map(tuple),
)


@given(st.lists(records, max_size=12))
def test_a_batch_holds_the_records_in_their_order(given_ones: list[LogRecord]) -> None:
    batch = RecordBatch.of(given_ones)
    assert RecordBatch.of(batch) is batch
    assert list(batch) == given_ones
    assert batch[1:-1] == given_ones[1:-1]
    assert [batch[-number - 1] for number in range(len(batch))] == given_ones[::-1]
    assert list(batch.values) == [record.value for record in given_ones]


@given(st.lists(records, max_size=12))
def test_the_records_of_each_topic_keep_their_order_and_end_behind_the_last_one(given_ones: list[LogRecord]) -> None:
    parts = RecordBatch.of(given_ones).by_topic()
    assert set(parts) == {record.topic for record in given_ones}
    for topic, part in parts.items():
        own = [record for record in given_ones if record.topic == topic]
        assert list(part) == own
        assert list(part.values) == [record.value for record in own]
        assert part.ends == {record.partition: record.offset + 1 for record in own}
