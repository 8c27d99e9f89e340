"""The audit trail in ClickHouse, for the one who writes it: append, and say where to go on (G2).

Nothing here can change or remove a row: the engine grants SELECT and INSERT and nothing else. Exactly once comes from
three things: one INSERT is one topic-partition and is there whole or not at all; its token makes a repetition of the
same INSERT one INSERT; and on a start the trail itself, not Kafka, says which offsets come next.

Only one sink writes. Embedded, that is a lock on the audit folder. On a server it is a lease: the newest epoch wins, an
older sink sees it before and after each append and stops. What it was appending just then, the newer one sees: it
looks again before its first append to each topic-partition. An older INSERT that reaches the server later still, or
runs there for longer, could double rows; the comparison with Kafka (G2) would show it.

    <folder>/clickhouse/   the engine's own files
    <folder>/sink.lock     held by the sink that writes
"""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import ExitStack
from dataclasses import fields
from itertools import pairwise
from typing import TYPE_CHECKING
from uuid import uuid4

from connectors.clickhouse_client import ClickHouseServer, connect_embedded, connect_server, translated
from processors.audit import AuditRow, Tip
from schemas.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from clickhouse_connect.driver import Client

TopicPartition = tuple[str, int]

ENGINE_FOLDER = "clickhouse"
LOCK_FILE = "sink.lock"
WRITER_RIGHTS = ("SELECT, INSERT ON audit.*",)

_COLUMNS = tuple(field.name for field in fields(AuditRow))
_COLUMN_TYPES = {
    "topic": "LowCardinality(String)",
    "partition": "Int32",
    "offset": "Int64",
    "appended_ms": "Int64",
    "key_size": "Int64",
    "wire_size": "Int64",
    "signature_key_id": "LowCardinality(String)",
}
# One INSERT must stay one block, whatever its size: the sink bounds it far below these.
_ONE_BLOCK = {"min_insert_block_size_rows": 10**9, "min_insert_block_size_bytes": 2**32, "max_insert_block_size": 10**9}

_TIPS = """
SELECT topic, partition, offset, wire_sha256 FROM audit.events
WHERE (topic, partition, offset) IN (SELECT topic, partition, max(offset) FROM audit.events GROUP BY topic, partition)
"""
_TIP = """
SELECT offset, wire_sha256 FROM audit.events WHERE topic = {topic:String} AND partition = {partition:Int32}
ORDER BY topic DESC, partition DESC, offset DESC LIMIT 1
"""
_LEAVES = """
SELECT offset, leaf_hash FROM audit.events
WHERE topic = {topic:String} AND partition = {partition:Int32} AND offset BETWEEN {first:Int64} AND {last:Int64}
"""
_NEWEST_LEASE = "SELECT epoch, holder FROM audit.leases ORDER BY epoch DESC, holder DESC LIMIT 1"


def apply_schema(client: Client, schema: Sequence[str]) -> None:
    """Make the tables and views that are missing, and the views new; needs every right.

    Raises:
        TransientError, IntegrityError: ClickHouse is away, or refuses.
    """
    with translated("make the audit tables"):
        for statement in schema:
            client.command(statement)


def open_store(place: Path | ClickHouseServer, schema: Sequence[str]) -> AuditStore:
    """Open the trail for writing: a folder for the embedded engine, or a server.

    Embedded, the tables are made first and the rights to do so given up. On a server the operator makes them once
    (`apply_schema`) and gives the sink a user that may only SELECT and INSERT on `audit`.

    Raises:
        UsageError: another sink writes there, or this process has another folder open.
        TransientError: ClickHouse is away.
        IntegrityError: ClickHouse refuses.
    """
    with ExitStack() as undo:
        if isinstance(place, ClickHouseServer):
            client = connect_server(place)
            undo.callback(client.close)
            lease = Lease(client)
        else:
            with translated(f"open the audit folder {place}"):
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
                undo.callback(os.close, _lock(place))
            with connect_embedded(place / ENGINE_FOLDER) as owner:
                apply_schema(owner, schema)
            client = connect_embedded(place / ENGINE_FOLDER, rights=WRITER_RIGHTS)
            undo.callback(client.close)
            lease = None
        store = AuditStore(client, lease=lease)
        store.on_close(undo.pop_all())
        return store


class Lease:
    """The right to write, taken by the newest sink of a server."""

    def __init__(self, client: Client) -> None:
        self._client = client
        with translated("take the audit lease"):
            newest = client.query(_NEWEST_LEASE).result_rows
            self._mine = (newest[0][0] + 1 if newest else 1, f"{socket.gethostname()}/{os.getpid()}/{uuid4()}")
            client.insert("leases", [self._mine], column_names=["epoch", "holder"], database="audit")

    def check(self) -> None:
        """Do nothing while the lease is held.

        Raises:
            IntegrityError: a newer sink took it.
        """
        with translated("check the audit lease"):
            newest = self._client.query(_NEWEST_LEASE).result_rows
        if not newest:
            raise IntegrityError("the lease of the audit trail is gone: was another state restored? This sink stops.")
        epoch, holder = newest[0]
        if (epoch, holder) != self._mine:
            raise IntegrityError(f"a newer sink ({holder}, epoch {epoch}) writes the audit trail; this one stops.")


class AuditStore:
    """The trail, open for appending; from one thread.

    Args:
        client: a connection that may SELECT and INSERT on `audit`.
        lease: what keeps a second sink out, where no lock does.
    """

    def __init__(self, client: Client, *, lease: Lease | None) -> None:
        self._client = client
        self._lease = lease
        self._on_close = ExitStack()
        self._certain: set[TopicPartition] = set()
        with translated("read the end of the audit trail"):
            rows = client.query(_TIPS).result_rows
        self._tips = {
            (topic, partition): Tip(offset=offset, wire_sha256=digest) for topic, partition, offset, digest in rows
        }

    def tips(self) -> Mapping[TopicPartition, Tip]:
        """Return the last row of every topic-partition that has any."""
        return dict(self._tips)

    def resume_offsets(self) -> dict[TopicPartition, int]:
        """Return the next offset of every topic-partition that has rows."""
        return {place: tip.offset + 1 for place, tip in self._tips.items()}

    def append(self, topic: str, partition: int, rows: Sequence[AuditRow]) -> None:
        """Append rows of one topic-partition, offsets rising; all of them are durable on return, or none is there.

        The same rows again do nothing. After a TransientError, append exactly the same rows again.

        Raises:
            TransientError: ClickHouse is away or its disk is full.
            IntegrityError: an offset is there already with another record, or a newer sink writes.
        """
        if not rows:
            return
        first, last = rows[0].offset, rows[-1].offset
        if any((row.topic, row.partition) != (topic, partition) for row in rows) or any(
            earlier.offset >= later.offset for earlier, later in pairwise(rows)
        ):
            raise IntegrityError(f"rows for {topic}/{partition} are not of one topic-partition with rising offsets.")
        if self._lease:
            self._lease.check()
            if (topic, partition) not in self._certain:
                self._look_again(topic, partition)
        tip = self._tips.get((topic, partition))
        if tip and first <= tip.offset:
            self._check_already_there(topic, partition, rows)
            return
        self._certain.discard((topic, partition))
        with translated(f"append {topic}/{partition}/{first}..{last}"):
            self._client.insert(
                "events",
                [[getattr(row, column) for row in rows] for column in _COLUMNS],
                database="audit",
                column_names=_COLUMNS,
                column_type_names=[_COLUMN_TYPES.get(column, "String") for column in _COLUMNS],
                column_oriented=True,
                settings={**_ONE_BLOCK, "insert_deduplication_token": f"{topic}-{partition}-{first}-{last}"},
            )
        self._certain.add((topic, partition))
        self._tips[topic, partition] = Tip(offset=last, wire_sha256=rows[-1].wire_sha256)
        if self._lease:
            self._lease.check()

    def _look_again(self, topic: str, partition: int) -> None:
        """See what an INSERT of unknown fate did: one of ours, or one that an older sink had under way at our start."""
        with translated(f"read the end of {topic}/{partition}"):
            found = self._client.query(_TIP, parameters={"topic": topic, "partition": partition}).result_rows
        for offset, digest in found:
            self._tips[topic, partition] = Tip(offset=offset, wire_sha256=digest)
        self._certain.add((topic, partition))

    def _check_already_there(self, topic: str, partition: int, rows: Sequence[AuditRow]) -> None:
        first, last = rows[0].offset, rows[-1].offset
        place = {"topic": topic, "partition": partition, "first": first, "last": last}
        with translated(f"read {topic}/{partition}/{first}..{last}"):
            held = {tuple(row) for row in self._client.query(_LEAVES, parameters=place).result_rows}
        if held != {(row.offset, row.leaf_hash) for row in rows}:
            raise IntegrityError(
                f"the audit trail already has offsets of {topic}/{partition}/{first}..{last} with other records: "
                "Kafka was changed or replaced, or two sinks write. Nothing was appended.",
            )

    def on_close(self, undo: ExitStack) -> None:
        """Say what to let go of when this is closed."""
        self._on_close = undo

    def close(self) -> None:
        """Let go of the engine and of the right to write."""
        self._on_close.close()


class AwaitedStore:
    """The trail, opened when it is first used: whoever is patient with that waits for a ClickHouse that is not up yet.

    Args:
        open_it: opens the trail; tried again at the next use while ClickHouse is away.
    """

    def __init__(self, open_it: Callable[[], AuditStore]) -> None:
        self._open = open_it
        self._store: AuditStore | None = None

    def tips(self) -> Mapping[TopicPartition, Tip]:
        """Return the last row of every topic-partition that has any; raises what opening raises, too."""
        return self._opened().tips()

    def append(self, topic: str, partition: int, rows: Sequence[AuditRow]) -> None:
        """Append as `AuditStore` does."""
        self._opened().append(topic, partition, rows)

    def _opened(self) -> AuditStore:
        if self._store is None:
            self._store = self._open()
        return self._store

    def close(self) -> None:
        """Let go of the trail, if it was ever opened."""
        if self._store is not None:
            self._store.close()


def _lock(folder: Path) -> int:
    """Return an open file that holds the lock until it is closed, or this process ends in whatever way."""
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UsageError(f"another sink writes the audit trail in {folder}: stop it, or name another folder.") from None
    return descriptor
