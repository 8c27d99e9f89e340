"""The trail on the real engine: append-only, exactly once through kills, readable while it is written (G2, G9)."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from connectors.audit_reader import AuditReader
from connectors.audit_store import AuditStore, Lease, apply_schema, open_store
from connectors.clickhouse_client import ClickHouseServer, connect_embedded
from infra.clickhouse import load_schema
from processors.audit import AuditRow, row_of
from schemas.errors import IntegrityError, TransientError, UsageError
from schemas.records import LogRecord
from schemas.topics import GALLERY, PROBE_REQUESTS

SCHEMA = load_schema()
COUNT = "SELECT count(), uniqExact(topic, partition, offset) FROM audit.events"


def rows(first: int, last: int, *, topic: str = GALLERY, partition: int = 0, note: str = "") -> list[AuditRow]:
    return [
        row_of(
            LogRecord(
                topic=topic,
                partition=partition,
                offset=offset,
                timestamp_ms=1_795_435_200_000 + offset,
                key=b"CA0190000/1",
                value=f"not Avro {note} {offset}".encode(),
            ),
        )
        for offset in range(first, last + 1)
    ]


def counted(store: AuditStore) -> tuple[int, int]:
    every, distinct = store._client.query(COUNT).result_rows[0]
    return every, distinct


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


def test_a_second_start_finds_every_row_and_where_to_go_on(folder: Path) -> None:
    with closing(open_store(folder, SCHEMA)) as store:
        store.append(GALLERY, 0, rows(0, 4))
        store.append(GALLERY, 7, rows(3, 3, partition=7))
    with closing(open_store(folder, SCHEMA)) as store:
        assert counted(store) == (6, 6)
        assert store.resume_offsets() == {(GALLERY, 0): 5, (GALLERY, 7): 4}
        assert store.tips()[GALLERY, 0].wire_sha256 == rows(4, 4)[0].wire_sha256


def test_the_engine_lets_the_sink_append_and_nothing_else(folder: Path) -> None:
    with closing(open_store(folder, SCHEMA)) as store:
        store.append(GALLERY, 0, rows(0, 4))
        for statement in (
            "DELETE FROM audit.events WHERE 1",
            "ALTER TABLE audit.events DELETE WHERE 1",
            "ALTER TABLE audit.events UPDATE payload = '' WHERE 1",
            "ALTER TABLE audit.events DROP COLUMN payload",
            "ALTER TABLE audit.events DROP PARTITION 'gallery.templates.v1'",
            "ALTER TABLE audit.events MODIFY TTL appended_at + INTERVAL 1 DAY",
            "TRUNCATE TABLE audit.events",
            "DROP TABLE audit.events",
            "DROP DATABASE audit",
            "RENAME TABLE audit.events TO audit.others",
            "DETACH TABLE audit.events",
            "OPTIMIZE TABLE audit.events FINAL",
            "CREATE OR REPLACE VIEW audit.searches AS SELECT 1",
            "CREATE TABLE audit.more (a Int8) ENGINE = Memory",
            "SELECT * FROM file('/etc/hostname', 'LineAsString')",
        ):
            with pytest.raises(DatabaseError, match="497"):
                store._client.command(statement)
        assert counted(store) == (5, 5)


def test_the_same_rows_again_change_nothing(folder: Path) -> None:
    """G2, G11."""
    with closing(open_store(folder, SCHEMA)) as store:
        store.append(GALLERY, 0, rows(0, 4))
        store.append(GALLERY, 0, rows(0, 4))
        assert counted(store) == (5, 5)


def test_an_insert_of_unknown_fate_repeated_is_one_insert(folder: Path) -> None:
    """G2: the engine itself drops the repetition, though the sink never heard of the first."""
    with closing(open_store(folder, SCHEMA)) as store:
        store.append(GALLERY, 0, rows(0, 4))
        store._tips.clear()
        store.append(GALLERY, 0, rows(0, 4))
        assert counted(store) == (5, 5)


@pytest.mark.parametrize(
    "contradiction",
    [rows(3, 6), rows(0, 4, note="forged"), rows(0, 3) + rows(4, 4, note="forged"), rows(2, 2, note="forged")],
    ids=["overlap", "all others", "one other", "one in the middle"],
)
def test_an_offset_that_is_there_with_another_record_is_refused(folder: Path, contradiction: list[AuditRow]) -> None:
    with closing(open_store(folder, SCHEMA)) as store:
        store.append(GALLERY, 0, rows(0, 4))
        with pytest.raises(IntegrityError, match="already has offsets"):
            store.append(GALLERY, 0, contradiction)
        assert counted(store) == (5, 5)


@pytest.mark.parametrize(
    "mixed",
    [rows(0, 1) + rows(2, 2, partition=1), rows(0, 1) + rows(2, 2, topic=PROBE_REQUESTS), rows(1, 2) + rows(0, 0)],
    ids=["partitions", "topics", "order"],
)
def test_one_append_is_one_topic_partition_in_order(folder: Path, mixed: list[AuditRow]) -> None:
    with closing(open_store(folder, SCHEMA)) as store:
        with pytest.raises(IntegrityError, match="rising offsets"):
            store.append(GALLERY, 0, mixed)
        assert counted(store) == (0, 0)


def test_a_large_append_is_one_part_and_so_there_whole_or_not_at_all(folder: Path) -> None:
    heavy = [replace(row, payload='{"text":"' + f"{row.offset:08}" * 1000 + '"}') for row in rows(0, 3999)]
    with closing(open_store(folder, SCHEMA)) as store:
        store.append(GALLERY, 0, heavy)
        written = "SELECT count(), sum(rows) FROM system.parts WHERE database = 'audit' AND table = 'events' AND active"
        assert store._client.query(written).result_rows == [(1, 4000)]


def test_impossible_times_are_kept_and_break_nothing(folder: Path) -> None:
    """G12: a publisher's clock, or a topic set to take a publisher's time, may say anything."""
    hostile = [
        replace(row, appended_ms=time, payload=f'{{"occurred_at":"{said}","record":"X"}}')
        for row, time, said in zip(
            rows(0, 3),
            (-(2**63), -1, 0, 2**63 - 1),
            ("0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999Z", "soon", ""),
            strict=True,
        )
    ]
    with closing(open_store(folder, SCHEMA)) as store:
        store.append(GALLERY, 0, hostile)
    with AuditReader(folder, SCHEMA) as reader:
        _, found = reader.query("SELECT appended_ms, toString(appended_at) FROM audit.events ORDER BY offset")
    assert found == [
        (-(2**63), "1900-01-01 00:00:00.000"),
        (-1, "1969-12-31 23:59:59.999"),
        (0, "1970-01-01 00:00:00.000"),
        (2**63 - 1, "2299-12-31 23:59:59.999"),
    ]


def test_a_second_sink_on_the_folder_is_refused_until_the_first_has_ended(folder: Path) -> None:
    with closing(open_store(folder, SCHEMA)), pytest.raises(UsageError, match="another sink writes"):
        open_store(folder, SCHEMA)
    open_store(folder, SCHEMA).close()


def test_on_a_server_the_newest_sink_writes_and_the_older_one_stops(folder: Path) -> None:
    """The lease itself, on the engine in this process; a server runs the same statements."""
    with closing(connect_embedded(folder)) as client:
        apply_schema(client, SCHEMA)
        older = AuditStore(client, lease=Lease(client))
        older.append(GALLERY, 0, rows(0, 4))
        newer = AuditStore(client, lease=Lease(client))
        with pytest.raises(IntegrityError, match="a newer sink"):
            older.append(GALLERY, 0, rows(5, 5))
        newer.append(GALLERY, 0, rows(5, 5, note="newer"))
        assert counted(newer) == (6, 6)


def test_a_server_that_does_not_answer_is_waited_for_and_its_password_is_not_shown() -> None:
    server = ClickHouseServer(dsn="clickhouse://sink:hunter2@127.0.0.1:1")
    with pytest.raises(TransientError) as caught:
        open_store(server, SCHEMA)
    assert "hunter2" not in f"{server!r} {caught.value}"


def test_a_row_altered_in_place_is_located(folder: Path) -> None:
    """G9, its simplest part: even who may change the table cannot change a row and keep its leaf hash."""
    with closing(open_store(folder, SCHEMA)) as store:
        store.append(GALLERY, 0, rows(0, 9))
    with closing(connect_embedded(folder / "clickhouse")) as owner:
        assert owner.query("SELECT * FROM audit.altered_rows").result_rows == []
        for column, offset in (("appended_ms", 2), ("payload", 5), ("signature_key_id", 8)):
            owner.command(
                f"ALTER TABLE audit.events UPDATE {column} = {column} || '1' WHERE offset = {offset}"
                if column != "appended_ms"
                else f"ALTER TABLE audit.events UPDATE appended_ms = appended_ms + 1 WHERE offset = {offset}",
                settings={"mutations_sync": 1},
            )
        found = owner.query("SELECT topic, partition, offset FROM audit.altered_rows ORDER BY offset").result_rows
    assert [tuple(row) for row in found] == [(GALLERY, 0, 2), (GALLERY, 0, 5), (GALLERY, 0, 8)]


def test_a_reader_says_so_when_there_is_no_trail_yet(folder: Path) -> None:
    with pytest.raises(UsageError, match="there is no audit trail"):
        AuditReader(folder, SCHEMA)
    folder.mkdir()
    with pytest.raises(UsageError, match="leadstream sink"):
        AuditReader(folder, SCHEMA)


def test_a_reader_finds_an_empty_trail_empty_and_a_moved_one_whole(folder: Path, tmp_path: Path) -> None:
    open_store(folder, SCHEMA).close()
    with AuditReader(folder, SCHEMA) as reader:
        assert reader.query("SELECT * FROM audit.searches")[1] == []
    with closing(open_store(folder, SCHEMA)) as store:
        store.append(GALLERY, 0, rows(0, 2))
    moved = folder.rename(tmp_path / "it's moved")
    with AuditReader(moved, SCHEMA) as reader:
        assert reader.wire_digests() == [(GALLERY, 0, row.offset, row.wire_sha256) for row in rows(0, 2)]


def test_a_reader_can_ask_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    with closing(open_store(folder, SCHEMA)) as store:
        store.append(GALLERY, 0, rows(0, 2))
    target = tmp_path / "stolen"
    with AuditReader(folder, SCHEMA) as reader:
        for statement in (
            "INSERT INTO audit.events (topic) VALUES ('x')",
            "DELETE FROM audit.events WHERE 1",
            "ALTER TABLE audit.events UPDATE payload = '' WHERE 1",
            "TRUNCATE TABLE audit.events",
            "DROP TABLE audit.events",
            "CREATE TABLE audit.more (a Int8) ENGINE = Memory",
            "CREATE TEMPORARY TABLE more (a Int8)",
            "SELECT * FROM file('/etc/hostname', 'LineAsString')",
            f"INSERT INTO FUNCTION file('{target}', 'CSV') SELECT 1",
        ):
            with pytest.raises(UsageError, match="can be read and nothing else"):
                reader.query(statement)
        for statement in (f"SELECT 1 INTO OUTFILE '{target}'", f"SELECT 1 iNtO/**/OutFile '{target}'"):
            with pytest.raises(UsageError, match="OUTFILE"):
                reader.query(statement)
        with pytest.raises(UsageError, match="does not take this query"):
            reader.query("SELECT nothing FROM audit.events")
        columns, found = reader.query(
            "SELECT offset, event_type FROM audit.events WHERE offset >= {least:Int64} ORDER BY offset", {"least": 1}
        )
    assert not target.exists()
    assert (columns, found) == (["offset", "event_type"], [(1, ""), (2, "")])


WRITER = """
from pathlib import Path
from connectors.audit_store import open_store
from infra.clickhouse import load_schema
from test_audit_trail import rows
store = open_store(Path(sys.argv[1]), load_schema())
last = int(sys.argv[2])
places = [("gallery.templates.v1", n) for n in range(3)]
resume = store.resume_offsets()
at = {place: resume.get(place, 0) for place in places}
while any(offset <= last for offset in at.values()):
    for (topic, partition), first in at.items():
        # Batches of changing length, so that a batch after a kill never has the bounds of one before it.
        end = min(last, first + 5 + (first * 7 + partition) % 11)
        if first <= end:
            store.append(topic, partition, rows(first, end, partition=partition))
            at[topic, partition] = end + 1
    print(sum(at.values()), flush=True)
store.close()
"""


def start_writer(folder: Path, last: int) -> subprocess.Popen[str]:
    # A process of its own, which never forks: the engine allows neither a second folder nor a fork.
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{WRITER}"
    return subprocess.Popen([sys.executable, "-c", program, str(folder), str(last)], stdout=subprocess.PIPE, text=True)


def test_five_kills_lose_nothing_and_double_nothing_while_a_reader_looks_on(folder: Path) -> None:
    """G2: kill -9 in mid-append, then go on where the trail ends; each look sees whole batches without holes."""
    last, kills = 150, 5
    open_store(folder, SCHEMA).close()
    whole = "SELECT partition, count(), max(offset) + 1, uniqExact(offset) FROM audit.events GROUP BY partition"
    looks = []
    with AuditReader(folder, SCHEMA) as reader:
        for kill in range(kills):
            with start_writer(folder, last) as writer:
                assert writer.stdout is not None
                for line in writer.stdout:
                    _, seen = reader.query(whole)
                    looks.append(sum(count for _, count, *_ in seen))
                    assert all(count == end == distinct for _, count, end, distinct in seen)
                    if int(line) >= (kill + 1) * 70:
                        break
                writer.kill()
        with start_writer(folder, last) as writer:
            assert writer.wait(timeout=120) == 0
    assert looks == sorted(looks)
    assert looks[-1] > 0
    with AuditReader(folder, SCHEMA) as reader:
        expected = [(GALLERY, p, row.offset, row.wire_sha256) for p in range(3) for row in rows(0, last, partition=p)]
        assert reader.wire_digests() == expected
        assert reader.query("SELECT * FROM audit.altered_rows")[1] == []


def test_the_schema_names_no_database_but_its_own() -> None:
    """What the grants cover is what there is."""
    made = re.findall(r"(?:TABLE|VIEW)(?: IF NOT EXISTS)? ([\w.]+)", "\n".join(SCHEMA))
    assert made
    assert all(name.startswith("audit.") for name in made)
