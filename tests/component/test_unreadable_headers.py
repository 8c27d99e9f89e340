"""A header name that is not UTF-8 is read as "unreadable", and every other batch as aiokafka reads it (G12)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from schemas.records import UNREADABLE_HEADERS
from streams import unreadable_headers
from streams.unreadable_headers import Batches

if TYPE_CHECKING:
    from collections.abc import Sequence

UNCOMPRESSED, GZIP, SNAPPY, LZ4, ZSTD, UNKNOWN = 0, 1, 2, 3, 4, 5
BASE_OFFSET = 40
Headers = list[tuple[str, bytes | None]]


class NotUtf8(str):
    """A name that clients refuse to send; the pure-Python one is talked into it."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe" + str.encode(str(self))


def batch(
    *records: tuple[bytes | None, bytes | None, Headers],
    compression: int = UNCOMPRESSED,
    timestamp_ms: int = 1,
) -> bytes:
    """A batch as a broker keeps it, its first offset BASE_OFFSET."""
    builder = _DefaultRecordBatchBuilderPy(2, compression, 0, -1, -1, -1, 1_000_000)
    for offset, (key, value, headers) in enumerate(records):
        assert builder.append(offset, timestamp_ms, key, value, headers)
    made = builder.build()
    made[:8] = BASE_OFFSET.to_bytes(8, "big")
    return bytes(made)


def fetched(data: bytes, reader: Any = Batches, *, start: int = BASE_OFFSET) -> list[tuple[Any, ...]]:
    """What aiokafka's consumer makes of fetched bytes."""
    here = TopicPartition("t", 0)
    records = fetcher.PartitionRecords(here, reader(data), [], start, None, None, check_crcs=True, isolation_level=0)
    return [(each.offset, each.timestamp, each.key, each.value, each.headers) for each in records]


MIXED = (
    (b"k0", b"v0", [("good", b"1")]),
    (b"k1", b"v1", [("ls-key-id", b"2"), (NotUtf8("name"), b"3"), ("ls-signature", None)]),
    (None, None, []),
    (b"k3", b"v3", [("gr\u00fc\u00df", None), ("\ufffd", b"")]),
)


@pytest.mark.parametrize("compression", [UNCOMPRESSED, GZIP, SNAPPY, LZ4, ZSTD])
def test_only_the_record_with_the_unreadable_name_loses_its_headers(compression: int) -> None:
    good = batch((b"k", b"v", []))
    found = fetched(batch(*MIXED, compression=compression) + good[:-1])
    assert found == [
        (40, 1, b"k0", b"v0", (("good", b"1"),)),
        (41, 1, b"k1", b"v1", UNREADABLE_HEADERS),
        (42, 1, None, None, ()),
        (43, 1, b"k3", b"v3", (("gr\u00fc\u00df", None), ("\ufffd", b""))),
    ]


def test_reading_again_from_within_a_batch_hands_out_the_rest_of_it() -> None:
    assert [offset for offset, *_ in fetched(batch(*MIXED), start=42)] == [42, 43]


@pytest.mark.parametrize("reader", [MemoryRecords, _MemoryRecordsPy])
def test_without_the_stand_in_the_pinned_client_cannot_read_on(reader: Any) -> None:
    """When this fails, aiokafka has learned it: take `streams/unreadable_headers.py` away."""
    with pytest.raises((UnicodeDecodeError, CorruptRecordException)):
        fetched(batch(*MIXED), reader)


_BYTES = st.none() | st.binary(max_size=50)
_RECORDS = st.lists(
    st.tuples(_BYTES, _BYTES, st.lists(st.tuples(st.text(max_size=5), _BYTES), max_size=3)), min_size=1, max_size=4
)


@given(
    batches=st.lists(st.tuples(_RECORDS, st.sampled_from([UNCOMPRESSED, GZIP])), max_size=3),
    timestamp_ms=st.integers(-(2**62), 2**62),
    cut=st.integers(0, 30),
)
def test_what_the_client_can_read_is_read_as_the_client_reads_it(
    batches: list[tuple[Sequence[Any], int]], timestamp_ms: int, cut: int
) -> None:
    """Whatever is cut off at the end, and for times of any year."""
    data = b"".join(batch(*records, compression=kind, timestamp_ms=timestamp_ms) for records, kind in batches)
    data = data[: max(0, len(data) - cut)]
    ours, theirs = Batches(data), MemoryRecords(data)
    assert (ours.has_next(), ours.size_in_bytes()) == (theirs.has_next(), theirs.size_in_bytes())
    assert fetched(data) == fetched(data, MemoryRecords)


def test_a_batch_that_is_broken_otherwise_is_still_an_error() -> None:
    data = bytearray(batch(*MIXED))
    data[-1] ^= 1
    with pytest.raises(CorruptRecordException, match="CRC"):
        fetched(bytes(data))


def test_a_batch_of_the_format_before_headers_is_left_to_the_client() -> None:
    from aiokafka.record.legacy_records import LegacyRecordBatchBuilder  # noqa: PLC0415 - of another age

    builder = LegacyRecordBatchBuilder(1, 0, 1000)
    builder.append(0, 1, b"k", b"v")
    assert fetched(bytes(builder.build()), start=0) == fetched(bytes(builder.build()), MemoryRecords, start=0) != []


def test_the_client_reads_by_it_once_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "MemoryRecords", MemoryRecords)
    unreadable_headers.install()
    assert fetcher.MemoryRecords is Batches
