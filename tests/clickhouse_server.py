"""A ClickHouse server to test against: the real engine behind a socket, to be stopped, killed, started, or disturbed.

The engine is ClickHouse's own (chDB) and runs every statement on a folder that outlives it. The HTTP front is ours: as
much of ClickHouse's HTTP interface as its Python client uses, and the troubles of a network on demand. So what tables,
views, tokens and rights do here is ClickHouse's doing; what it does not show is a real server's own front, its users
and passwords, its native protocol, TLS, or replication.

`ClickHouse` starts it in a process of its own, since an engine holds one folder a process and does not survive a fork.
The process ends when its standard input does, so none is left behind.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

import chdb
import cramjam

from infra.brokers.process import free_port

if TYPE_CHECKING:
    from pathlib import Path

INSERT = r"INSERT INTO \S*events\b"
LEASE = r"FROM audit\.leases"
SESSION_IS_LOCKED, UNKNOWN = 373, 1002
_NOT_THERE = frozenset({46, 47, 60, 81})  # Unknown function, column, table, database: HTTP 404, as ClickHouse says it.
# What the HTTP front of ClickHouse takes for itself; everything else in the address is a setting.
_NO_SETTINGS = frozenset(
    {"query", "database", "session_id", "query_id", "wait_end_of_query", "client_protocol_version", "compress"}
)
_UNPACK = {"lz4": cramjam.lz4.decompress, "zstd": cramjam.zstd.decompress, "gzip": gzip.decompress}
STOP_LIMIT_S = 20.0

Trouble = Literal["mute", "late", "unanswered", "cut short"]


class ClickHouse:
    """A server on a folder and a port that stay the same over stops and starts; a `with` block ends it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[str] | None = None

    @property
    def dsn(self) -> str:
        """Its address."""
        return f"clickhouse://sink:hunter2@127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it; it answers on return."""
        command = [sys.executable, __file__, str(self._folder), str(self._port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._hears() == "ready"

    def stop(self) -> None:
        """Stop it in good order."""
        process, self._process = self._process, None
        if process is not None:
            process.communicate(timeout=STOP_LIMIT_S)
            assert process.returncode == 0

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        assert self._process is not None
        self._process.kill()
        self._process.communicate()
        self._process = None

    def trouble(self, what: Trouble | int, on: str, times: int = 1_000_000) -> None:
        """Disturb the next statements that a pattern finds.

        Args:
            what: "mute": neither run nor answered; "late": run when the trouble is over; "unanswered": run, then the
                connection closes; "cut short": run, and half of the answer sent; a number: refused with that ClickHouse
                error; a number behind a minus sign: that HTTP status, by something that is no ClickHouse.
            on: what the statement must match, e.g. `INSERT`.
            times: how many statements; the others go through.
        """
        assert self._says({"trouble": what, "on": on, "times": times}) == "so be it"

    def heal(self) -> None:
        """End every trouble; what was held back goes on."""
        assert self._says({"heal": True}) == "so be it"

    def arrived(self, on: str) -> list[str]:
        """Return the deduplication tokens of the statements that match, as they arrived; "" for those without."""
        return [token for _, token in json.loads(self._says({"arrived": on}))]

    def run(self, on: str) -> list[str]:
        """Return the same of those that the engine has run to their end, whoever heard of it."""
        return [token for _, token in json.loads(self._says({"run": on}))]

    def _says(self, order: dict[str, Any]) -> str:
        assert self._process is not None
        assert self._process.stdin is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return self._hears()

    def _hears(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Front(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: str, port: int) -> None:
        self.folder = folder
        self.troubles: list[dict[str, Any]] = []
        self.seen: dict[str, list[tuple[str, str]]] = {"arrived": [], "run": []}
        self.healed = threading.Event()
        self.sessions: set[str] = set()
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Statement)

    def trouble_for(self, statement: str, token: str) -> tuple[Any, threading.Event]:
        with self.lock:
            self.seen["arrived"].append((statement, token))
            for each in self.troubles:
                if each["times"] > 0 and re.search(each["on"], statement):
                    each["times"] -= 1
                    return each["trouble"], self.healed
        return None, self.healed

    def obey(self, order: dict[str, Any]) -> str:
        with self.lock:
            for stage in self.seen.keys() & order.keys():
                return json.dumps([each for each in self.seen[stage] if re.search(order[stage], each[0])])
            if "trouble" in order:
                self.troubles.append(order)
            else:
                self.troubles.clear()
                self.healed.set()
                self.healed = threading.Event()
        return "so be it"


class _Statement(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Front

    def do_POST(self) -> None:
        asked = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        body = _UNPACK.get(self.headers.get("Content-Encoding", ""), bytes)(self._body())
        statement = b"\n".join(part for part in (asked.get("query", "").encode(), bytes(body)) if part)
        session = asked.get("session_id")
        with self.server.lock:
            locked = session in self.server.sessions
            self.server.sessions |= {session} if session else set()
        if locked:
            self._refuse(SESSION_IS_LOCKED, f"Session {session} is locked by a concurrent client.")
            return
        try:
            self._serve(statement, asked)
        finally:
            with self.server.lock:
                self.server.sessions -= {session} if session else set()

    def do_GET(self) -> None:
        self.do_POST()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _serve(self, statement: bytes, asked: dict[str, str]) -> None:
        said = (statement[:2000].decode(errors="replace"), asked.get("insert_deduplication_token", ""))
        trouble, healed = self.server.trouble_for(*said)
        self.close_connection = trouble is not None
        if trouble in ("mute", "late"):
            healed.wait()
        if isinstance(trouble, int):
            self._refuse(trouble, "As the test wants it.")
        elif trouble != "mute":
            try:
                answer = self._run(statement, asked)
            except RuntimeError as error:  # chDB's kind of error; its text is ClickHouse's own.
                code = re.search(r"Code: (\d+)", str(error))
                self._refuse(int(code[1]) if code else UNKNOWN, str(error))
            else:
                self.server.seen["run"].append(said)
                if trouble != "unanswered":
                    self._answer(answer, asked, cut=trouble == "cut short")

    def _run(self, statement: bytes, asked: dict[str, str]) -> bytes:
        settings = {name: value for name, value in asked.items() if name not in _NO_SETTINGS and "param_" not in name}
        parameters = {name.removeprefix("param_"): value for name, value in asked.items() if "param_" in name}
        # A connection to the engine for each statement, as a request to a server has its settings to itself.
        with closing(chdb.connect(self.server.folder)) as engine:
            if asked.get("database"):
                engine.query(f"USE `{asked['database']}`")
            for name, value in sorted(settings.items(), key=lambda setting: setting[0] == "readonly"):
                engine.query(f"SET {name} = '{value}'")
            return bytes(engine.query(statement, "TabSeparated", params=parameters).bytes() or b"")

    def _answer(self, body: bytes, asked: dict[str, str], *, cut: bool) -> None:
        self.send_response(200)
        if asked.get("enable_http_compression") == "1" and "lz4" in self.headers.get("Accept-Encoding", ""):
            body = bytes(cramjam.lz4.compress(body))
            self.send_header("Content-Encoding", "lz4")
        self.send_header("X-ClickHouse-Server-Display-Name", "engine-behind-a-test-front")
        self.send_header("X-ClickHouse-Summary", "{}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)

    def _refuse(self, code: int, text: str) -> None:
        body = (text if text.startswith("Code:") else f"Code: {code}. DB::Exception: {text}").encode()
        self.send_response(-code if code < 0 else 404 if code in _NOT_THERE else 500)
        if code > 0:
            self.send_header("X-ClickHouse-Exception-Code", str(code))
        else:
            body = b"<html>no server available</html>"
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Serve a folder on a port until standard input ends; each line there is an order."""
    folder, port = sys.argv[1], int(sys.argv[2])
    with closing(chdb.connect(folder)), _Front(folder, port) as front:
        serving = threading.Thread(target=front.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        tell("ready")
        for line in sys.stdin:
            tell(front.obey(json.loads(line)))
        front.healed.set()
        front.shutdown()
        serving.join()


if __name__ == "__main__":
    main()
