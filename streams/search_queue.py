"""Searches that wait are made as one batch: while one batch runs in a thread, the next one gathers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import numpy.typing as npt

    from processors.candidates import SearchResult
    from schemas.events import Consolidation
    from streams.ports import Gallery

LARGEST_BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    gallery: Gallery
    template: npt.NDArray[np.float32]
    length: int
    consolidation: Consolidation
    result: asyncio.Future[SearchResult]

    @property
    def kind(self) -> tuple[Gallery, Consolidation]:
        """What all searches of a batch have in common."""
        return self.gallery, self.consolidation


class SearchQueue:
    """Makes searches in an executor, those of one kind together; a list is the same alone and in a batch (G7).

    Args:
        executor: one thread; a gallery uses several by itself.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._waiting: list[_Waiting] = []
        self._working: asyncio.Task[None] | None = None

    async def search(
        self, gallery: Gallery, template: npt.NDArray[np.float32], length: int, consolidation: Consolidation
    ) -> SearchResult:
        """Compare (dimension,) float32 with every template of a gallery, with whatever else waits for it."""
        mine = _Waiting(gallery, template, length, consolidation, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return await mine.result

    async def _work(self) -> None:
        while self._waiting:
            kind = self._waiting[0].kind
            batch = [each for each in self._waiting if each.kind == kind][:LARGEST_BATCH]
            self._waiting = [each for each in self._waiting if each not in batch]
            await self._search([each for each in batch if not each.result.cancelled()])

    async def _search(self, batch: list[_Waiting]) -> None:
        if not batch:
            return
        run = asyncio.get_running_loop().run_in_executor
        try:
            templates, lengths = np.stack([each.template for each in batch]), [each.length for each in batch]
            gallery, consolidation = batch[0].kind
            results = await run(self._executor, gallery.search_batch, templates, lengths, consolidation)
        except Exception as error:  # noqa: BLE001 - told to whoever asked, who deals with it
            if len(batch) == 1:
                _settle(batch[0], error)
                return
            # One that cannot be searched must not fail the others.
            for each in batch:
                await self._search([each])
        else:
            for each, result in zip(batch, results, strict=True):
                _settle(each, result)


def _settle(waiting: _Waiting, result: SearchResult | Exception) -> None:
    if waiting.result.done():  # Whoever asked was cancelled meanwhile.
        return
    if isinstance(result, Exception):
        waiting.result.set_exception(result)
    else:
        waiting.result.set_result(result)
