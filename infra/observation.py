"""The operator's port of a role: /metrics for Prometheus, /healthz and /readyz for whoever restarts it.

On this machine only (127.0.0.1), without a password: what is shown here names nobody and nothing that was searched.
Nothing here waits for Kafka or ClickHouse: the pages show what the role itself knew last.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Protocol, Self

from connectors.metrics import CONTENT_TYPE
from schemas.errors import TransientError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors.group_progress import Progress

LOOPBACK = "127.0.0.1"
FROZEN_AFTER_S = 60.0
LOOK_EVERY_S = 5.0
LAST_LOOK_S = 2.0
REQUEST_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What a role says about itself."""

    role: str
    live: bool
    """The process turns; where not, restart it."""
    ready: bool
    """It does its work, or would if there were any."""
    why: str = ""
    """Why not, in words."""


class Pulse:
    """When the role turned last; asked from another thread."""

    def __init__(self) -> None:
        self._beat_at = time.monotonic()

    def beat(self) -> None:
        """Say that the role turns."""
        self._beat_at = time.monotonic()

    @property
    def is_fresh(self) -> bool:
        """Whether it turned lately."""
        return time.monotonic() - self._beat_at < FROZEN_AFTER_S


class Page(Protocol):
    """Who writes the metrics page."""

    def page(self) -> bytes:
        """Return it."""
        ...


class OperatorPort:
    """Serves the three pages in a thread; a `with` block closes it.

    Args:
        port: on 127.0.0.1; 0 for a free one.
        metrics: what /metrics shows.
        health: what /healthz and /readyz show.

    Raises:
        UsageError: the port is taken.
    """

    def __init__(self, port: int, metrics: Page, health: Callable[[], Health]) -> None:
        class Pages(_Pages):
            pass

        Pages.metrics, Pages.health = metrics, staticmethod(health)
        try:
            self._server = ThreadingHTTPServer((LOOPBACK, port), Pages)
        except OSError as error:
            raise UsageError(
                f"The metrics port {LOOPBACK}:{port} cannot be used ({error.strerror}); set another metrics_port."
            ) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="operator-port", daemon=True
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Pages(BaseHTTPRequestHandler):
    metrics: Page
    health: Callable[[], Health]
    server_version, sys_version = "leadstream", ""
    timeout = REQUEST_TIMEOUT_S

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self._send(HTTPStatus.OK, CONTENT_TYPE, self.metrics.page())
        elif self.path in ("/healthz", "/readyz"):
            health = self.health()
            good = health.live if self.path == "/healthz" else health.live and health.ready
            body = json.dumps(asdict(health)).encode() + b"\n"
            self._send(HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE, "application/json", body)
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"/metrics, /healthz, /readyz\n")

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: a scrape every few seconds is no news."""


class Lookout:
    """Looks at Kafka every few seconds in a thread of its own; a `with` block stops it.

    Args:
        look: asks Kafka; may block.
    """

    def __init__(self, look: Callable[[], Progress]) -> None:
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lookout", daemon=True)
        self.newest: Progress | None = None
        """None while Kafka does not answer."""

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.newest = self._look()
            except TransientError:
                self.newest = None
            self._stop.wait(LOOK_EVERY_S)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        # Not for long: it may be asking a Kafka that is away, and it holds nothing.
        self._thread.join(LAST_LOOK_S)
