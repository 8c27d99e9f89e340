"""The exceptions of Leadstream and what each one makes the system do.

    LeadstreamError
    ├── ContractError    bytes or schema are wrong          -> dead letter at once
    ├── DomainFault      a rule was broken upstream          -> dead letter with its reason
    ├── TransientError   the world is away                   -> wait and retry in place, never a dead letter
    ├── IntegrityError   evidence is wrong                   -> stop the worker
    └── UsageError       an operator or caller asked wrongly -> say what to do, exit code 2

A refusal that a user can cause (quality, policy, sealed) is a value and an event, not an exception. One place,
`streams/guard.py`, turns exceptions into these actions; the command line turns them into exit codes.
"""

from __future__ import annotations


class LeadstreamError(Exception):
    """Root of every error that Leadstream raises on purpose; its text is safe to log and to show."""


class ContractError(LeadstreamError):
    """Bytes or a schema do not keep the contract; retrying cannot help."""


class DomainFault(LeadstreamError):
    """A rule was broken upstream.

    `code` is stable and lands in the dead letter beside the text.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class TransientError(LeadstreamError):
    """Something outside is away for now; the same call may succeed later."""


class IntegrityError(LeadstreamError):
    """Evidence contradicts itself; going on would hide it."""


class UsageError(LeadstreamError):
    """The caller asked for something that cannot be done as asked."""


def place_of(error: BaseException) -> str:
    """Return where an exception was raised, without its text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}" if trace else "an unknown place"
