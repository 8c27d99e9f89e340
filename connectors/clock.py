"""The wall clock: what the clients put into `occurred_at` unless they are given another clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Tells the time as an aware instant; injected, so that a test can choose it."""


def now() -> datetime:
    """Return the current instant in UTC."""
    return datetime.now(UTC)
