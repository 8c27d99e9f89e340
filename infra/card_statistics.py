"""Measure what a model card states about its scores: `[statistics]` and `[thresholds]`, ready to be put in the card.

`python -m infra.card_statistics FOLDER --glob 'frontal_*.jpg' --recipe NAME` extracts a labelled set (one folder a
person) with the recipe as production does, and compares every photo with every other. For whoever mounts a pack of
their own, or changes a recipe.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from infra import wiring
from infra.extracting import cores, extract_photos, find_recipe
from infra.labelled_set import read_labelled_set
from infra.settings import load_settings
from schemas.errors import LeadstreamError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

TAIL_SHARE = 1e-5
"""Of the pairs of different persons: the quantile that `tail_sd` reproduces."""
GALLERY_SIZES = (1_000, 5_000, 20_000, 100_000, 1_000_000)
FPIRS = (0.003, 0.01)
_FEWEST_IN_THE_TAIL = 10
_NUMBERS_A_LINE = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoreStatistics:
    """Cosines of templates of different persons (non-mated) and of the same person (mated)."""

    photos: int
    persons: int
    non_mated: int
    mated: int
    non_mated_mean: float
    non_mated_sd: float
    tail_quantile: float
    """The score that TAIL_SHARE of the non-mated pairs reach."""
    tail_sd: float
    """Of the Gaussian round the non-mated mean that has this quantile."""
    mated_mean: float
    mated_sd: float
    mean_template: NDArray[np.float64]
    """(d,)."""


def measure(templates: NDArray[np.float32], persons: NDArray[np.intp]) -> ScoreStatistics:
    """Compare all templates (n, d) of persons (n,) with each other.

    Raises:
        UsageError: there are too few pairs to speak of a tail, or no person with two photos.
    """
    exact = templates.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    rows, columns = np.triu_indices(len(exact), 1)
    scores = (exact @ exact.T)[rows, columns]
    same = persons[rows] == persons[columns]
    other, mated = scores[~same], scores[same]
    if len(other) * TAIL_SHARE < _FEWEST_IN_THE_TAIL or not len(mated):
        raise UsageError(
            f"{len(other)} pairs of different persons and {len(mated)} of the same: a tail needs "
            f"{_FEWEST_IN_THE_TAIL / TAIL_SHARE:,.0f} pairs, some 1,500 photos, and persons with two photos."
        )
    mean, quantile = float(other.mean()), float(np.quantile(other, 1.0 - TAIL_SHARE))
    return ScoreStatistics(
        photos=len(exact),
        persons=len(np.unique(persons)),
        non_mated=len(other),
        mated=len(mated),
        non_mated_mean=mean,
        non_mated_sd=float(other.std()),
        tail_quantile=quantile,
        tail_sd=(quantile - mean) / NormalDist().inv_cdf(1.0 - TAIL_SHARE),
        mated_mean=float(mated.mean()),
        mated_sd=float(mated.std()),
        mean_template=exact.mean(axis=0),
    )


def threshold_for(gallery_size: int, fpir: float, *, mean: float, tail_sd: float) -> float:
    """Return the cosine that one of so many other persons, taken as independent, reaches with probability `fpir`."""
    share = 1.0 - (1.0 - fpir) ** (1.0 / gallery_size)
    return mean + tail_sd * NormalDist().inv_cdf(1.0 - share)


def as_toml(found: ScoreStatistics) -> str:
    """Write the numbers as they stand in a card."""
    mean, tail = round(found.non_mated_mean, 4), round(found.tail_sd, 4)
    pairs = f"{found.non_mated:,} non-mated and {found.mated:,} mated pairs"
    measured_on = f"{found.photos:,} photos of {found.persons:,} persons: {pairs}"
    lines = [
        "[statistics]",
        f'measured_on = "{measured_on}"',
        f"non_mated_mean = {mean:.4f}",
        f"non_mated_sd = {found.non_mated_sd:.4f}",
        f"# The measured 1e-5 quantile is {found.tail_quantile:.4f}.",
        f"tail_sd = {tail:.4f}",
        f"mated_mean = {found.mated_mean:.4f}",
        f"mated_sd = {found.mated_sd:.4f}",
        "mean_template = [",
        *_in_lines(f"{number:.4f}" for number in found.mean_template.tolist()),
        "]",
        "",
        "[thresholds]",
        "at = [",
        *(
            f"    {{ gallery_size = {size:_}, fpir = {fpir}, cosine = "
            f"{round(threshold_for(size, fpir, mean=mean, tail_sd=tail), 3)} }},"
            for size in GALLERY_SIZES
            for fpir in FPIRS
        ),
        "]",
    ]
    return "\n".join(lines) + "\n"


def _in_lines(numbers: Iterable[str]) -> list[str]:
    listed = list(numbers)
    starts = range(0, len(listed), _NUMBERS_A_LINE)
    return ["    " + ", ".join(listed[start : start + _NUMBERS_A_LINE]) + "," for start in starts]


def _tell(done: int, of: int) -> None:
    sys.stderr.write(f"\r{done} of {of} photos")


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m infra.card_statistics", description=__doc__)
    parser.add_argument("folder", type=Path, help="one folder a person")
    parser.add_argument("--glob", dest="pattern", help="which files of a person's folder")
    parser.add_argument("--recipe", help="name of a shipped card, or the file of one; default: the worker's own")
    wanted = parser.parse_args()
    settings = load_settings()
    try:
        photos = read_labelled_set(wanted.folder, pattern=wanted.pattern, groups=None).photos
        recipe = find_recipe(wanted.recipe, settings)
        extracted = extract_photos(
            recipe,
            [photo.path for photo in photos],
            wiring.policy(settings),
            processes=cores(),
            limit_s=settings.extraction_limit_s,
            progress=lambda done: _tell(done, len(photos)),
        )
        sys.stderr.write("\n")
        usable = extracted.templates.usable
        persons = np.unique([photo.person for photo in photos], return_inverse=True)[1]
        sys.stdout.write(as_toml(measure(extracted.templates.values[usable], persons[usable])))
    except LeadstreamError as error:
        sys.stderr.write(f"{error}\n")
        return 2 if isinstance(error, UsageError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
