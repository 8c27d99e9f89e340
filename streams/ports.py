"""What the streams need from outside, as Protocols; `infra/wiring.py` joins them with the connectors.

Every method here may block and is called off the event loop, except where it says otherwise. The world being away is a
`TransientError`, wrong evidence an `IntegrityError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path
    from uuid import UUID

    import numpy as np
    import numpy.typing as npt

    from processors.candidates import GalleryChange, SearchResult
    from processors.extraction import Extraction
    from processors.template_rows import TemplateRows
    from schemas.events import Consolidation, Event
    from schemas.positions import SourcePosition
    from schemas.records import LogRecord

TopicPartition = tuple[str, int]


class Clock(Protocol):
    """The time; injected, so that a test can choose it."""

    def __call__(self) -> datetime:
        """Return now, in UTC. Does not block."""
        ...


class Publish(Protocol):
    """Sends events. Does not block."""

    async def __call__(self, event: Event, /, *, topic: str | None = None) -> None:
        """Send an event to the topic of its kind, or to the given one; return when the broker has acknowledged it.

        Raises:
            TransientError: the broker did not acknowledge it; it may or may not be in the topic.
            ContractError: it is too long for Kafka; waiting would not make it shorter.
        """
        ...


class Extractor(Protocol):
    """Face images to templates by one model pack."""

    def extract(self, photo: bytes, /) -> Extraction:
        """Return the template of the one face in an encoded image, or why there is none. Safe in several threads."""
        ...


class Attempts(Protocol):
    """Remembers, across crashes of the process, what work was begun and never ended."""

    def attempt(self, position: SourcePosition, number: int, /) -> AbstractContextManager[None]:
        """Do native work on one image of a record inside the block.

        Args:
            position: where the record stands.
            number: which image of the record.

        Raises:
            DomainFault: POISON, this worker began it twice and never ended it.
        """
        ...


class Stored(Protocol):
    """An object that was stored."""

    @property
    def reference(self) -> str:
        """Its address."""
        ...


class Objects(Protocol):
    """The encrypted object store."""

    def get(self, reference: str, expected_sha256: str, *, scope: str | None = None) -> bytes:
        """Return the original bytes; a reference out of the record's own scope is not followed.

        Raises:
            DomainFault: REFERENCE_UNRESOLVED, DIGEST_MISMATCH, KEY_DESTROYED or OBJECT_TOO_LARGE.
        """
        ...

    def destroy_key(self, scope: str) -> None:
        """Make everything stored under a scope unreadable for ever; again is fine."""
        ...

    def put(self, scope: str, object_id: str, data: bytes) -> Stored:
        """Store bytes; the same again is fine."""
        ...


class Gallery(Protocol):
    """The searchable templates and the watermark up to which they were applied."""

    model_digest: str

    def apply(
        self, changes: Sequence[GalleryChange], watermark: Mapping[int, int], rows: TemplateRows | None = None, /
    ) -> None:
        """Apply changes in order, and rows of other bookings; note per partition the next offset to apply.

        One step for whoever searches.
        """
        ...

    @property
    def templates(self) -> int:
        """How many templates can be found. Does not block."""
        ...

    @property
    def persons(self) -> int:
        """How many persons can be found. Does not block."""
        ...

    def search_batch(
        self, templates: npt.NDArray[np.float32], lengths: Sequence[int], consolidation: Consolidation, /
    ) -> Sequence[SearchResult]:
        """Compare (n, dimension) float32 with every template; return for each the best persons, as many as it asks for.

        A person is scored as the consolidation says: by the best capture, or by all of them together.

        Each result names the watermark of the state that was searched, and is the same alone and in any batch (G7).
        """
        ...


class SnapshotGallery(Gallery, Protocol):
    """A gallery that can be written to disk and read again."""

    @property
    def state(self) -> Any:
        """What is searchable now; never changes. Does not block."""
        ...

    def save(self, folder: Path, state: Any, beside: Mapping[str, bytes], /) -> None:
        """Make the folder a snapshot of a state, and of what else has to be known at its watermark.

        Raises:
            OSError: the disk is full or away; the snapshot before is still whole.
        """
        ...

    def load(self, folder: Path, accept: Callable[[Mapping[str, bytes]], None], /) -> Mapping[str, bytes] | None:
        """Become what a snapshot holds, unless `accept` raises at what was saved beside it; None where there is none.

        Raises:
            ContractError: it is of another model or format; the gallery is as before.
            IntegrityError: it is damaged; the gallery is as before.
        """
        ...

    def compact(self) -> None:
        """Let go of templates that were withdrawn and are only filtered out."""
        ...


class LogTail(Protocol):
    """Records of some partitions from given offsets on, without a consumer group."""

    def read(self, timeout_s: float) -> Sequence[LogRecord]:
        """Return the next records, or none when nothing came in time."""
        ...

    def passed(self) -> Mapping[TopicPartition, int]:
        """Return the ends that were reached; every record before them was handed out. Does not block."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class Log(Protocol):
    """What can be asked of Kafka beside consuming in a group."""

    def end_offsets(self, topics: Collection[str]) -> Mapping[TopicPartition, int]:
        """Return the next offset to be written of every partition of some topics, all at one moment."""
        ...

    def tail(self, start: Mapping[TopicPartition, int]) -> LogTail:
        """Return a reader that starts at these offsets."""
        ...

    def read(self, topic: str, partition: int, start: int, stop: int) -> Iterator[LogRecord]:
        """Yield the records of [start, stop); offsets have holes where a topic is compacted."""
        ...

    def beginnings(self, topic: str) -> Mapping[int, int]:
        """Return, by partition, the first offset that a topic still has; above 0 where records were deleted."""
        ...

    def cluster_id(self) -> str:
        """Return which Kafka this is."""
        ...

    def record_at(self, topic: str, partition: int, offset: int) -> LogRecord:
        """Return one record."""
        ...

    def decided_since(self, partition: int, request_offset: int) -> Collection[UUID]:
        """Return the probes of a request partition, at or after an offset, that already have an outcome."""
        ...


class RecordLog(Protocol):
    """Kafka, read by hand from chosen offsets."""

    def start(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read these partitions from these offsets on."""
        ...

    def read(self, timeout_s: float) -> Sequence[LogRecord]:
        """Return the next records, in order within each partition, or none when nothing came in time.

        Raises:
            TransientError: Kafka is away; nothing was skipped, the next call goes on.
            IntegrityError: Kafka no longer has the next offset.
        """
        ...

    def passed(self) -> Mapping[TopicPartition, int]:
        """Return the ends that were reached; every record before them was handed out. Does not ask."""
        ...


class AuditProgress(Protocol):
    """Asks how far the audit trail is."""

    def __call__(self) -> tuple[Mapping[TopicPartition, int], Mapping[TopicPartition, int]]:
        """Return by partition the next offset that the trail needs, and then, asked later, where Kafka ends."""
        ...


class BookingProgress(Protocol):
    """Asks how far the workers together are with the booking topic."""

    def __call__(self) -> tuple[Mapping[TopicPartition, int], Mapping[TopicPartition, int]]:
        """Return by partition the next offset that they deal with, and then, asked later, where Kafka ends."""
        ...


class Telemetry(Protocol):
    """What an operator measures: counts, ages and offsets, never an id, a value or a text of a record (G10).

    Called on the event loop; does not block and never raises.
    """

    def decided(self, stage: str, outcome: str, code: str, age_s: float) -> None:
        """Count one answer that the broker has acknowledged.

        Args:
            stage: name of the agent.
            outcome: the kind of answer.
            code: why it was refused; empty where it was not.
            age_s: from the broker's append of the request to the acknowledgement of its answer.
        """
        ...

    def set_aside(self, stage: str, code: str) -> None:
        """Count one dead letter."""
        ...

    def waiting(self, stage: str, *, is_waiting: bool) -> None:
        """Say whether a stage waits for something that is away."""
        ...

    def barrier(self, waited_s: float, *, reached: bool) -> None:
        """Count one passage of the read barrier."""
        ...

    def applied(self, topic: str, ends: Mapping[int, int]) -> None:
        """Note the next offset to apply to the replica, by partition."""
        ...

    def audit_behind(self, behind_s: float) -> None:
        """Note how far the audit trail is behind, at most; infinite while that is not known."""
        ...

    def orders_behind(self, behind_s: float) -> None:
        """Note for how long a court order has waited, at most; infinite while that is not known."""
        ...

    def obeyed(self, age_s: float) -> None:
        """Note the age of a court order when the broker had acknowledged its withdrawal (G5)."""
        ...


class _NoTelemetry:
    """Measures nothing."""

    def decided(self, stage: str, outcome: str, code: str, age_s: float) -> None:
        """Ignore it."""

    def set_aside(self, stage: str, code: str) -> None:
        """Ignore it."""

    def waiting(self, stage: str, *, is_waiting: bool) -> None:
        """Ignore it."""

    def barrier(self, waited_s: float, *, reached: bool) -> None:
        """Ignore it."""

    def applied(self, topic: str, ends: Mapping[int, int]) -> None:
        """Ignore it."""

    def audit_behind(self, behind_s: float) -> None:
        """Ignore it."""

    def orders_behind(self, behind_s: float) -> None:
        """Ignore it."""

    def obeyed(self, age_s: float) -> None:
        """Ignore it."""


NO_TELEMETRY: Telemetry = _NoTelemetry()
"""For whoever does not look."""
