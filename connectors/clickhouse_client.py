"""Connections to ClickHouse: the engine inside this process (chDB) on a folder, or a server by its address.

What may be done over a connection is the engine's decision: embedded, a users file grants exactly what is named here;
on a server, the operator's user does. chDB knows one folder a process, so one connection must be closed before another
folder is opened, and a process must not fork while one is open.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

import clickhouse_connect
from clickhouse_connect.driver.exceptions import Error as ClickHouseError
from clickhouse_connect.driver.exceptions import OperationalError, ProgrammingError

from schemas.errors import IntegrityError, LeadstreamError, TransientError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from clickhouse_connect.driver import Client

READONLY, NOT_ALLOWED = 164, 497
# Memory, disk, connections, time, quotas, a server that stops or lacks its replicas: the same statement may succeed
# later. Source: ClickHouse, src/Common/ErrorCodes.cpp.
_PASSING = frozenset(
    {74, 75, 76, 77, 88, 159, 160, 173, 201, 202, 203, 209, 210, 225, 236, 241, 242, 243, 252, 279, 285, 286, 319}
    | {394, 425, 439, 499, 745, 999}
)
_CODE = re.compile(r"[Cc]ode: (\d+)")
# Said by something that stands before ClickHouse, when there is no ClickHouse behind it.
_NO_SERVER = re.compile(r"HTTP status 5\d\d")

_SETTINGS = {"async_insert": 0}
_TLS = frozenset({"clickhouses", "https"})

CONNECT_LIMIT_S = 10
# An append takes well under a second, most of it the disk's; a long query is kept alive by its progress. So who is
# silent for this long is away: waiting is said aloud and the statement sent again, which is harmless. Half of the
# minute after which a role that does not turn counts as frozen. The client's own limit is five minutes.
ANSWER_LIMIT_S = 30

_CONFIG = "<clickhouse><users_config>{users}</users_config></clickhouse>\n"
_USERS = """\
<clickhouse>
  <profiles><default>
    <async_insert>0</async_insert>
    <asterisk_include_materialized_columns>{show_derived}</asterisk_include_materialized_columns>
  </default></profiles>
  <quotas><default/></quotas>
  <users><default>
    <password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
    <grants>{grants}</grants>
  </default></users>
</clickhouse>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickHouseServer:
    """A ClickHouse server, e.g. `clickhouses://user:password@host:8443`; never shown, for the password in it."""

    dsn: str = field(repr=False)
    answer_limit_s: int = ANSWER_LIMIT_S
    """How long it may be silent, amid a statement, before it counts as away."""


def connect_embedded(folder: Path, *, rights: Sequence[str] | None = None, show_derived: bool = False) -> Client:
    """Open the engine on a folder, with every right or with the given ones, e.g. `SELECT ON audit.*`.

    `show_derived` makes `SELECT *` return derived columns too.

    Raises:
        UsageError: this process has the engine open on another folder.
        TransientError: it does not open for now, e.g. the disk is full.
        IntegrityError: it does not open.
    """
    with translated(f"open the engine on {folder}"):
        options = (
            {} if rights is None else {"config-file": str(_write_rights(folder, rights, show_derived=show_derived))}
        )
        return clickhouse_connect.get_client(
            interface="chdb", path=str(folder), chdb_options=options, settings=_SETTINGS, tz_mode="aware"
        )


def _write_rights(folder: Path, rights: Sequence[str], *, show_derived: bool) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    users, config = folder.resolve() / "rights.xml", folder.resolve() / "engine.xml"
    # Without the last two the client cannot ask for the version and the settings.
    granted = (*rights, "SHOW ON *.*", "SELECT ON system.*")
    grants = "".join(f"<query>{escape(f'GRANT {right}')}</query>" for right in granted)
    users.write_text(_USERS.format(grants=grants, show_derived=int(show_derived)), encoding="utf-8")
    config.write_text(_CONFIG.format(users=escape(str(users))), encoding="utf-8")
    return config


def connect_server(server: ClickHouseServer, *, read_only: bool = False) -> Client:
    """Connect to a server.

    Raises:
        TransientError: it does not answer.
        IntegrityError: it answers with a refusal.
    """
    settings = {"readonly": 2, "asterisk_include_materialized_columns": 1} if read_only else _SETTINGS
    with translated("connect to the ClickHouse server"):
        return clickhouse_connect.get_client(
            dsn=server.dsn,
            # By itself the client goes by the port alone, and would send the password in the clear to any other.
            secure=urlsplit(server.dsn).scheme in _TLS,
            settings=settings,
            tz_mode="aware",
            connect_timeout=CONNECT_LIMIT_S,
            send_receive_timeout=server.answer_limit_s,
            # A session is locked while the server still works on a statement that the client has given up: sent again,
            # it would be refused. Nothing here needs one.
            autogenerate_session_id=False,
        )


@contextmanager
def translated(attempt: str) -> Iterator[None]:
    """Turn the client's errors into ours; the texts never quote values, which may be evidence."""
    try:
        yield
    except LeadstreamError:
        raise
    except ProgrammingError as error:
        # The driver's own words about how it is used; no statement went to the engine.
        raise UsageError(f"Cannot {attempt}: {error}") from None
    except ClickHouseError as error:
        code = code_of(error)
        if code in _PASSING or (code and isinstance(error, OperationalError)):
            raise TransientError(f"Cannot {attempt} for now: ClickHouse error {code}. Check it and its disk.") from None
        if isinstance(error, OperationalError) or (not code and _NO_SERVER.search(str(error))):
            raise TransientError(
                f"Cannot {attempt} for now: ClickHouse does not answer. Check it and the way to it."
            ) from None
        raise IntegrityError(f"Cannot {attempt}: ClickHouse refused with error {code}.") from None
    except OSError as error:
        raise TransientError(f"Cannot {attempt} for now: {type(error).__name__} {error.errno}.") from None


def code_of(error: ClickHouseError) -> int:
    """Return ClickHouse's error number, or 0 when there is none."""
    found = _CODE.search(str(error))
    return int(found[1]) if found else 0
