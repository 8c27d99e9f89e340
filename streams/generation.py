"""A gallery generation: the templates of one model pack, in a topic of their own, with what extracts and searches them.

A worker has one, or two while a bureau changes from one pack to another. Every booking and order goes into all of them;
probes are searched in the one that was activated last. Templates of different packs are never compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from processors.gallery import GalleryLedger

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.ports import Extractor, SnapshotGallery


@dataclass(slots=True, kw_only=True, eq=False)
class Generation:
    """One generation as one worker holds it."""

    topic: str
    """Topic of its templates and withdrawals."""
    gallery: SnapshotGallery
    extractor: Extractor
    dimension: int
    """Length of a template."""
    threshold_of: Callable[[int], float]
    """Gallery size in templates -> the pack's published cosine threshold."""
    expected_of: Callable[[float, int], float | None] = lambda *_: None
    """Score and gallery size in templates -> templates of other persons expected to score as much; None: not known."""
    ledger: GalleryLedger = field(default_factory=GalleryLedger)
    """What counts for each booking; replaced by that of a snapshot, before anything is applied."""

    @property
    def model_digest(self) -> str:
        """Digest of the pack and recipe."""
        return self.gallery.model_digest
