"""Logs of a role: one JSON object a line on standard error, UTC, never a stack trace, never an image or a template."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter

import structlog

REPEAT_AFTER_S = 30.0
REMEMBERED_LINES = 1000
QUIET = ("faust", "mode", "aiokafka", "kafka")
"""Libraries whose own lines matter only from warning on."""
SILENT = ("clickhouse_connect", "urllib3")
"""Libraries that warn of each attempt that fails, beside the error that they raise: an outage is said once, by us."""


def configure(level: str, role: str) -> None:
    """Send our own lines and those of the libraries to standard error, each with the role that wrote it."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_trace,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(sort_keys=True)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(sort_keys=True),
            ],
        ),
    )
    root = logging.getLogger()
    handler.addFilter(OncePeriod())
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in SILENT:
        logging.getLogger(name).setLevel(logging.ERROR)


class OncePeriod(logging.Filter):
    """Lets each line of a library through once a period, with how often it came meanwhile.

    A Kafka client that finds no broker says so a hundred times a second; two hours of that would fill the disk.
    """

    def __init__(self, period_s: float = REPEAT_AFTER_S) -> None:
        super().__init__()
        self._period_s = period_s
        self._let_through: dict[tuple[str, int, str], float] = {}
        self._held_back: Counter[tuple[str, int, str]] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to write a line; alike are errors of one text, and others of one text before any values."""
        text = record.getMessage() if record.levelno >= logging.ERROR else str(record.msg)
        line, now = (record.name, record.levelno, text), time.monotonic()
        if now - self._let_through.get(line, -self._period_s) < self._period_s:
            self._held_back[line] += 1
            return False
        if len(self._let_through) >= REMEMBERED_LINES:
            self._let_through.clear()
            self._held_back.clear()
        self._let_through[line] = now
        if more := self._held_back.pop(line, 0):
            record.msg, record.args = f"{record.getMessage()} (and {more} times more before)", None
        return True


def _without_trace(
    _logger: object,
    _method: str,
    line: structlog.typing.EventDict,
) -> structlog.typing.EventDict:
    """Drop stack traces: their lines may quote a record (G10). The kind of the exception stays."""
    info = line.pop("exc_info", None)
    line.pop("stack_info", None)
    if isinstance(info, BaseException):
        line["exception"] = type(info).__name__
    elif isinstance(info, tuple) and info[0] is not None:
        line["exception"] = info[0].__name__
    return line
