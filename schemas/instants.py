"""Instants: always UTC, always whole microseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from schemas.errors import ContractError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
FIRST_MICROS = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
"""The earliest instant there is, in microseconds since the epoch."""
LAST_MICROS = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
"""The latest."""


def utc(instant: datetime) -> datetime:
    """Return the instant in UTC.

    Raises:
        ContractError: the instant names no time zone; guessing one would falsify evidence.
    """
    if instant.tzinfo is None:
        raise ContractError("An instant without a time zone cannot be an event's time; give it in UTC.")
    return instant.astimezone(UTC)


def iso(instant: datetime) -> str:
    """Return the instant as ISO 8601 in UTC with six digits of a second, e.g. 2026-11-23T09:30:00.000000Z."""
    return utc(instant).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if instant.year >= 1000 else utc(instant).isoformat()  # noqa: PLR2004


def to_micros(instant: datetime) -> int:
    """Return the instant as microseconds since the epoch."""
    return (utc(instant) - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the instant that is so many microseconds since the epoch."""
    return _EPOCH + micros * _MICROSECOND
