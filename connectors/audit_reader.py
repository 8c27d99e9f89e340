"""The audit trail for those who ask: live, while a sink writes or while none runs, and unable to change anything.

Embedded, the sink's engine has its folder to itself. So this opens an engine of its own on a temporary folder, with a
table over the sink's data files on a read-only disk and the same views; then it gives up every right but SELECT. A row
is seen at most a second after the sink appended it.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from connectors.audit_store import ENGINE_FOLDER, apply_schema
from connectors.clickhouse_client import (
    NOT_ALLOWED,
    READONLY,
    ClickHouseServer,
    code_of,
    connect_embedded,
    connect_server,
    translated,
)
from schemas.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

READER_RIGHTS = ("SELECT ON audit.*",)
_EVENTS = "CREATE TABLE IF NOT EXISTS audit.events"
_READ_ONLY_DISK = (
    "SETTINGS table_disk = 1, refresh_parts_interval = 1, disk = disk(readonly = true, type = object_storage, "
    "object_storage_type = local_blob_storage, metadata_type = plain, path = '{path}')"
)
_WIRE_DIGESTS = "SELECT topic, partition, offset, wire_sha256 FROM audit.events ORDER BY topic, partition, offset"


class AuditReader:
    """The trail, open for questions; close it, or use it in a `with` block.

    Args:
        place: the sink's audit folder, or a server.
        schema: the statements of the tables and views.

    Raises:
        UsageError: there is no trail in the folder yet, or this process has another folder open.
        TransientError: ClickHouse is away.
    """

    def __init__(self, place: Path | ClickHouseServer, schema: Sequence[str]) -> None:
        with ExitStack() as undo:
            if isinstance(place, ClickHouseServer):
                self._client = connect_server(place, read_only=True)
            else:
                data = _data_folder(place)
                own = Path(undo.enter_context(TemporaryDirectory(prefix="leadstream-audit-")))
                with connect_embedded(own) as owner:
                    apply_schema(owner, _read_only(schema, data))
                self._client = connect_embedded(own, rights=READER_RIGHTS, show_derived=True)
            undo.callback(self._client.close)
            self._undo = undo.pop_all()

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Return column names and rows of one SELECT, SHOW, DESCRIBE or EXPLAIN.

        Parameters stand in the text as `{name:Type}`, e.g. `{user:String}`.

        Raises:
            UsageError: ClickHouse refuses the query, and says why.
            TransientError: ClickHouse is away.
        """
        # The one thing that a SELECT can write is a file, and no right forbids it.
        if "outfile" in sql.lower():
            raise UsageError("INTO OUTFILE is not available here; for text with that word use a parameter.")
        with translated("ask the audit trail"):
            try:
                result = self._client.query(sql, parameters=dict(parameters or {}))
            except OperationalError:
                raise
            except DatabaseError as error:
                if code_of(error) in {NOT_ALLOWED, READONLY}:
                    raise UsageError(
                        "The trail can be read and nothing else: SELECT from what is in `audit`."
                    ) from None
                raise UsageError(f"ClickHouse does not take this query: {error}") from None
        return list(result.column_names), [tuple(row) for row in result.result_rows]

    def wire_digests(self) -> list[tuple[str, int, int, str]]:
        """Return (topic, partition, offset, SHA-256 of the value) of every row, in order: G2 compares it with Kafka."""
        _, rows = self.query(_WIRE_DIGESTS)
        return [(topic, partition, offset, digest) for topic, partition, offset, digest in rows]

    def close(self) -> None:
        """Let go of the engine and remove its temporary folder."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _data_folder(folder: Path) -> Path:
    """Return where the sink's engine keeps the files of `audit.events`."""
    engine = folder / ENGINE_FOLDER
    link = engine / "data" / "audit" / "events"
    if not link.is_symlink():
        raise UsageError(f"there is no audit trail in {folder} yet: start `leadstream up` or `leadstream sink` first.")
    # The link is absolute; its last two parts still hold when the folder was moved or mounted elsewhere.
    *_, prefix, table = link.readlink().parts
    return (engine / "store" / prefix / table).resolve()


def _read_only(schema: Sequence[str], data: Path) -> list[str]:
    """Return the statements with `audit.events` over the sink's files; tables that only the sink needs are left out."""
    quoted = f"{data}/".replace("\\", "\\\\").replace("'", "\\'")
    statements = []
    for statement in schema:
        if statement.startswith(_EVENTS):
            statements.append(statement.partition("SETTINGS")[0] + _READ_ONLY_DISK.format(path=quoted))
        elif not statement.startswith("CREATE TABLE"):
            statements.append(statement)
    return statements
