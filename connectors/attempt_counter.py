"""Count, across crashes of the process, how often native work on a record was begun and never ended.

An image that makes native code abort takes the whole worker with it; the record was not acknowledged, so the restarted
worker would begin it again for ever. So each attempt leaves a mark in the worker's own folder until it has ended: a
small file whose length is the number of attempts. A mark of two is enough (DESIGN 7: POISON).

Nothing is synchronised to the disk: what a process has written outlives it. A power cut may lose a mark, which costs
one more attempt. Native code that never returns is not noticed here.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from schemas.errors import DomainFault, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from schemas.positions import SourcePosition

POISON = "POISON"
MAX_ATTEMPTS = 2


class AttemptCounter:
    """The marks of one worker; safe to use from several threads.

    Args:
        folder: where the marks are; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._turn = _Turn()

    @contextmanager
    def attempt(self, position: SourcePosition, number: int) -> Iterator[None]:
        """Do native work on one image of a record inside this block.

        An image that may have crashed the process is worked on alone, so that no other is blamed for it again.

        Args:
            position: where the record stands.
            number: which image of the record.

        Raises:
            DomainFault: POISON, it was begun twice and never ended.
            TransientError: the folder cannot be written.
        """
        mark = self._folder / f"{position.topic}-{position.partition}-{position.offset}-{number}"
        with self._disk():
            earlier = mark.stat().st_size if mark.exists() else 0
        if earlier >= MAX_ATTEMPTS:
            raise DomainFault(
                POISON,
                f"The worker ended {earlier} times while it read image {number + 1} of the record. Do not send it "
                "again; look at the original with care.",
            )
        with self._turn.alone() if earlier else self._turn.with_others():
            with self._disk(), mark.open("ab") as file:
                file.write(b".")
            try:
                yield
            finally:
                with self._disk():
                    mark.unlink()

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TransientError(
                f"{self._folder} cannot be used: {error.strerror}. Make room or mend the disk.",
            ) from None


class _Turn:
    """Many at once, or one alone; who waits to be alone goes first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._working = 0
        self._want_to_be_alone = 0

    @contextmanager
    def with_others(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._want_to_be_alone)
            self._working += 1
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._want_to_be_alone += 1
            self._changed.wait_for(lambda: not self._working)
            self._working += 1
        try:
            yield
        finally:
            with self._changed:
                self._want_to_be_alone -= 1
            self._leave()

    def _leave(self) -> None:
        with self._changed:
            self._working -= 1
            self._changed.notify_all()
