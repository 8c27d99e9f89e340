"""Searches that wait are made as one batch, and one that fails fails alone."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from schemas.errors import ContractError
from schemas.events import Consolidation
from streams.search_queue import SearchQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt


LIMIT_S = 30
BEST, FUSED = Consolidation.BEST_CAPTURE, Consolidation.FUSED_CAPTURES


class CountingGallery:
    """Finds for each template its own first number; holds the first batch back until told."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.consolidations: list[Consolidation] = []
        self.began, self.may_go_on = threading.Event(), threading.Event()

    def search_batch(
        self, templates: npt.NDArray[np.float32], lengths: Sequence[int], consolidation: Consolidation, /
    ) -> list[Any]:
        self.batches.append(len(templates))
        self.consolidations.append(consolidation)
        self.began.set()
        assert self.may_go_on.wait(LIMIT_S)
        if any(template[0] < 0 for template in templates):
            raise ContractError("No direction.")
        return [(float(template[0]), length) for template, length in zip(templates, lengths, strict=True)]


async def ask(queue: SearchQueue, gallery: Any, number: float, consolidation: Consolidation = BEST) -> Any:
    return await queue.search(gallery, np.array([number], dtype=np.float32), int(number), consolidation)


def test_what_comes_while_a_batch_runs_is_the_next_batch() -> None:
    async def run() -> None:
        gallery, other = CountingGallery(), CountingGallery()
        other.may_go_on.set()
        with ThreadPoolExecutor(1) as executor:
            queue = SearchQueue(executor)
            asked = [asyncio.create_task(ask(queue, gallery, 0))]
            assert await asyncio.to_thread(gallery.began.wait, LIMIT_S)
            asked += [asyncio.create_task(ask(queue, gallery, number)) for number in range(1, 6)]
            asked += [asyncio.create_task(ask(queue, other, 6))]
            await asyncio.sleep(0)
            asked[3].cancel()
            gallery.may_go_on.set()
            results = await asyncio.gather(*asked, return_exceptions=True)
        assert gallery.batches == [1, 4], "who gave up is not searched for"
        assert other.batches == [1], "two galleries are never one batch"
        assert [result for n, result in enumerate(results) if n != 3] == [(n, n) for n in (0, 1, 2, 4, 5, 6)]

    asyncio.run(run())


def test_searches_under_policies_that_consolidate_otherwise_are_never_one_batch() -> None:
    async def run() -> None:
        gallery = CountingGallery()
        gallery.may_go_on.set()
        with ThreadPoolExecutor(1) as executor:
            queue = SearchQueue(executor)
            asked = [ask(queue, gallery, number, how) for number, how in enumerate((BEST, FUSED, BEST))]
            assert await asyncio.gather(*asked) == [(0, 0), (1, 1), (2, 2)]
        assert list(zip(gallery.batches, gallery.consolidations, strict=True)) == [(2, BEST), (1, FUSED)]

    asyncio.run(run())


def test_one_that_cannot_be_searched_fails_alone() -> None:
    async def run() -> None:
        gallery = CountingGallery()
        gallery.may_go_on.set()
        with ThreadPoolExecutor(1) as executor:
            queue = SearchQueue(executor)
            results = await asyncio.gather(
                *(ask(queue, gallery, number) for number in (1, -2, 3)), return_exceptions=True
            )
        assert (results[0], results[2]) == ((1, 1), (3, 3))
        with pytest.raises(ContractError):
            raise results[1]

    asyncio.run(run())
