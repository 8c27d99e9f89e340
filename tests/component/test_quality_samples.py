"""What the unified score is fitted to: sample photos, as taken and spoiled, through the production extraction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infra.quality_samples import FRONTAL, OTHER, SPOILED, collect

if TYPE_CHECKING:
    from pathlib import Path

    from infra.assets import Assets


def test_every_photo_is_taken_and_some_are_spoiled_in_every_way(
    assets: Assets, photos: dict[str, bytes], tmp_path: Path
) -> None:
    for name in ("C1", "C2", "C3", "C4", "D1"):
        (tmp_path / name[0]).mkdir(exist_ok=True)
        (tmp_path / name[0] / f"{'frontal' if name != 'D1' else 'side'}_{name}.jpg").write_bytes(photos[name])
    told: list[tuple[int, int]] = []
    samples, without = collect(
        tmp_path, "frontal_*", assets.card, assets.pack_dir, threads=2, tell=lambda *done: told.append(done)
    )
    expected = 5 + len(SPOILED)
    assert len(samples) + without == expected
    assert told[-1] == (expected, expected)
    kinds = [sample.kind for sample in samples]
    assert (kinds.count(FRONTAL), kinds.count(OTHER)) == (4, 1)
    assert {sample.photo for sample in samples if sample.kind in SPOILED} == {"frontal_C4.jpg"}
    taken = next(sample for sample in samples if sample.photo == "frontal_C4.jpg" and sample.kind == FRONTAL)
    for sample in samples:
        if sample.kind in {"blur .06", "motion .3"}:
            assert sample.vector_length < taken.vector_length
            assert not np.array_equal(sample.template, taken.template)
