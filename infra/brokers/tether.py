"""Ties a child process to its parent and becomes the child's program: `tether.py PARENT_PID PROGRAM ARG...`.

Linux sends SIGTERM to the program when the parent dies, however it dies. The request is made here, in a fresh
single-threaded interpreter that then turns into the program (`execv` keeps the request, the process id and the open
files), because running Python between fork and exec in a parent that has threads can deadlock. Elsewhere than on Linux
nothing is tied. Not imported: run as a script, with the standard library only. Source: prctl(2), PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent_pid: int, command: list[str]) -> None:
    """Ask for SIGTERM on the parent's death, then become `command`; returns only if the parent is already gone."""
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() == parent_pid:  # else it died before the request, and nobody would send the signal
        os.execv(command[0], command)  # noqa: S606 - the command is the caller's own, made of no outside text


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
    sys.exit(1)
