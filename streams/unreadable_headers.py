"""Let Faust's Kafka client survive a header name that is not UTF-8.

Kafka takes any bytes as the name of a header. aiokafka decodes names as strict UTF-8 while it walks through a fetched
batch: one such record, from whoever may write to a topic, raises inside Faust's fetcher, stops the worker, and stops it
again at every start (G12). So the fetcher gets a reader of record batches that differs in one thing: of a batch that
cannot be read for this reason, each such record is handed out with `UNREADABLE_HEADERS`, as `connectors/log_reader.py`
does, and so counts as unsigned. A batch that is broken in any other way raises what it always did.

aiokafka has no hook for this, so its module attribute is replaced and its pure-Python reader is used, whose names are
private. Its version is pinned, and `tests/component/test_unreadable_headers.py` fails for one that no longer fits.

Source: Kafka protocol guide, "Record Batch" and "Record Header".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.memory_records import MemoryRecords

from schemas.records import UNREADABLE_HEADERS

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of every batch: base offset (8 bytes), length of what follows (4), leader epoch (4), version (1).
_LENGTH_AT = 8
_LENGTH = struct.Struct(">i")
_BEFORE_BATCH_BYTES = _LENGTH_AT + _LENGTH.size
_VERSION_AT = 16
_VERSION_WITH_HEADERS = 2


def install() -> None:
    """Let every consumer of this process read by `Batches`; again is fine."""
    fetcher.MemoryRecords = Batches


class Batches:
    """Stands in for aiokafka's `MemoryRecords`: the batches of one fetched partition, the last one perhaps cut off."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def size_in_bytes(self) -> int:
        """Return how much was fetched."""
        return len(self._data)

    def has_next(self) -> bool:
        """Tell whether another whole batch is there."""
        return self._end() <= len(self._data)

    def next_batch(self) -> Any:
        """Return the next batch, or None."""
        if not self.has_next():
            return None
        data = self._data[self._at : self._end()]
        self._at += len(data)
        batch = MemoryRecords(data).next_batch()
        return Batch(batch, data) if data[_VERSION_AT] >= _VERSION_WITH_HEADERS else batch

    def _end(self) -> int:
        start = self._at + _BEFORE_BATCH_BYTES
        if start > len(self._data):
            return start
        return start + int(_LENGTH.unpack_from(self._data, self._at + _LENGTH_AT)[0])


class Batch:
    """A batch as aiokafka reads it, except for header names."""

    def __init__(self, batch: Any, data: bytes) -> None:
        self._batch = batch
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        # The fetcher's way to look into a control batch, which only brokers write.
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        # As a whole, since after an error the records before it would be read twice.
        try:
            return iter(list(self._batch))
        except (UnicodeDecodeError, CorruptRecordException):  # by aiokafka's compiled reader, and by the other
            return iter(list(_read_leniently(self._data)))


class _Lenient(bytearray):
    """Bytes that decode whatever they are, and so do their slices."""

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        return _Lenient(found) if isinstance(found, bytearray) else found

    def decode(self, encoding: str = "utf-8", _errors: str = "") -> str:
        return super().decode(encoding, "surrogateescape")


def _read_leniently(data: bytes) -> Iterator[Any]:
    """Yield the records of a batch; CorruptRecordException if more is wrong with it than names."""
    batch = iter(_DefaultRecordBatchPy(data))  # which decompresses
    batch._buffer = _Lenient(batch._buffer)  # noqa: SLF001 - see the docstring of the module
    for record in batch:
        if all(_is_utf8(name) for name, _ in record.headers):
            yield record
        else:
            yield _DefaultRecordPy(
                record.offset,
                record.timestamp,
                record.timestamp_type,
                record.key,
                record.value,
                list(UNREADABLE_HEADERS),
            )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # A surrogate, which stands for a byte that could not be decoded.
        return False
    return True
