"""Fit the unified quality score of a model pack and show whether it predicts errors.

`python -m infra.quality_calibration FOLDER --frontal 'frontal_*'` prints the numbers of `[quality.unified]`, what
the score promises beside what came, and the error-versus-discard curve: the share of a person's own comparisons that
stay below a threshold (FNMR), after the comparisons with the lowest quality have been left out. The quality of a
comparison is that of its worse photo. Scores of the curve are cross-validated: a person's photos are scored by a fit to
other persons.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from infra.assets import fetch
from infra.quality_samples import FRAMED, FRONTAL, OTHER, collect
from infra.settings import load_settings
from processors.model_card import parse_model_card, published_threshold
from processors.quality import halvings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infra.quality_samples import Sample

DISCARDED = (0.0, 0.01, 0.02, 0.05, 0.10, 0.20, 0.30)
_FOLDS = 5
_SEED = 20_261_124
_DRAWS = 500
_STEPS = 50
_RIDGE = 1e-3

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparisons:
    """Mated comparisons of each photo with each frontal photo, as taken, of the same person; none with itself.

    `one` and `two` are `(n,)` indices of samples, `missed` whether the cosine stayed below the threshold.
    """

    one: NDArray[np.int64]
    two: NDArray[np.int64]
    missed: NDArray[np.bool_]
    scores: Numbers


def compare(samples: Sequence[Sample], threshold: float) -> Comparisons:
    """Compare every sample with every frontal photo of its person; two frontal photos once in each direction."""
    templates = np.stack([sample.template for sample in samples]).astype(np.float64)
    person = np.unique([sample.person for sample in samples], return_inverse=True)[1]
    photo = np.array([sample.photo for sample in samples])
    frontal = np.flatnonzero([sample.kind == FRONTAL for sample in samples])
    ones, twos = [], []
    for index in range(len(samples)):
        mates = frontal[(person[frontal] == person[index]) & (photo[frontal] != photo[index])]
        ones.append(np.full(len(mates), index))
        twos.append(mates)
    one, two = np.concatenate(ones), np.concatenate(twos)
    scores = np.einsum("ij,ij->i", templates[one], templates[two])
    return Comparisons(one=one, two=two, missed=scores < threshold, scores=scores)


def found_share(comparisons: Comparisons, count: int) -> Numbers:
    """Return for each sample `(count,)` the share of its comparisons that reached the threshold; NaN without any."""
    total = np.bincount(comparisons.one, minlength=count).astype(np.float64)
    found = np.bincount(comparisons.one, weights=~comparisons.missed, minlength=count)
    shares: Numbers = np.divide(found, total, out=np.full(count, np.nan), where=total > 0)
    return shares


def fit_logistic(signals: Numbers, shares: Numbers, weights: Numbers) -> Numbers:
    """Return bias and coefficients `(1 + k,)` of a logistic of `signals` `(n, k)` for shares `(n,)` (Newton)."""
    scale = signals.std(axis=0)
    design = np.column_stack([np.ones(len(signals)), (signals - signals.mean(axis=0)) / scale])
    found = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        told = 1.0 / (1.0 + np.exp(-design @ found))
        slope = design.T @ (weights * (shares - told)) - _RIDGE * found
        curvature = (design * (weights * told * (1.0 - told))[:, None]).T @ design + _RIDGE * np.eye(len(found))
        found = found + np.linalg.solve(curvature, slope)
    coefficients = found[1:] / scale
    return np.concatenate([[found[0] - coefficients @ signals.mean(axis=0)], coefficients])


def curve(quality: Numbers, missed: NDArray[np.bool_], weights: Numbers | None = None) -> list[float]:
    """Return FNMR after the worst `DISCARDED` shares of comparisons were left out, by their `quality` `(n,)`."""
    order = np.argsort(quality, kind="stable")
    counted = np.ones(len(order)) if weights is None else weights[order]
    errors = counted * missed[order]
    below = np.concatenate([[0.0], np.cumsum(counted)])
    starts = [int(np.searchsorted(below, share * below[-1], side="left")) for share in DISCARDED]
    return [float(errors[start:].sum() / counted[start:].sum()) for start in starts]


def score_per_halving(samples: Sequence[Sample]) -> float:
    """Return by how much the detector's score falls when a face takes half the share of its photo; 0 if unknown.

    The slope over the pairs of a frontal photo and the same photo with a border.
    """
    taken = {(sample.person, sample.photo): sample for sample in samples if sample.kind == FRONTAL}
    pairs = [
        (taken[sample.person, sample.photo], sample)
        for sample in samples
        if sample.kind in FRAMED and (sample.person, sample.photo) in taken
    ]
    smaller = np.array([halvings(two.face_share_percent) - halvings(one.face_share_percent) for one, two in pairs])
    fallen = np.array([one.face_score - two.face_score for one, two in pairs])
    return float(smaller @ fallen / (smaller @ smaller)) if (smaller != 0.0).any() else 0.0


def signals_of(samples: Sequence[Sample]) -> Numbers:
    """Return `(n, 2)`: the detector's score as if the face filled the photo, and the length of the answer."""
    slope = score_per_halving(samples)
    return np.array([[one.face_score + slope * halvings(one.face_share_percent), one.vector_length] for one in samples])


def cross_validated(samples: Sequence[Sample], shares: Numbers, weights: Numbers) -> tuple[Numbers, Numbers]:
    """Return the drive of the logistic for each sample by a fit to other persons, and the fits `(folds, 3)`."""
    signals = signals_of(samples)
    fold = np.unique([sample.person for sample in samples], return_inverse=True)[1] % _FOLDS
    known = np.isfinite(shares)
    drive, fits = np.zeros(len(samples)), []
    for number in range(_FOLDS):
        rows = known & (fold != number)
        fits.append(fit_logistic(signals[rows], shares[rows], weights[rows]))
        drive[fold == number] = fits[-1][0] + signals[fold == number] @ fits[-1][1:]
    return drive, np.array(fits)


def equal_weights(samples: Sequence[Sample]) -> Numbers:
    """Weigh frontal, other and spoiled photos so that each of the three groups counts the same."""
    groups = np.array([sample.kind if sample.kind in {FRONTAL, OTHER} else "spoiled" for sample in samples])
    counts = dict(zip(*np.unique(groups, return_counts=True), strict=True))
    return np.array([len(samples) / len(counts) / counts[group] for group in groups])


def report(samples: Sequence[Sample], threshold: float) -> dict[str, Any]:
    """Return fit, calibration and curves as a document."""
    comparisons = compare(samples, threshold)
    shares, weights, signals = found_share(comparisons, len(samples)), equal_weights(samples), signals_of(samples)
    known = np.isfinite(shares)
    fit = fit_logistic(signals[known], shares[known], weights[known])
    drive, fits = cross_validated(samples, shares, weights)
    kinds = np.array([sample.kind for sample in samples])
    sets = {"frontal": [FRONTAL], "frontal and other": [FRONTAL, OTHER], "all": sorted(set(kinds))}
    judges = {
        "unified": drive,
        "vector length": signals[:, 1],
        "face score": signals[:, 0],
        "random": np.random.default_rng(_SEED).random(len(samples)),
        "oracle": shares,
    }
    return {
        "threshold": threshold,
        "samples": len(samples),
        "bias": float(fit[0]),
        "per_face_score": float(fit[1]),
        "face_score_per_halving": score_per_halving(samples),
        "per_vector_length": float(fit[2]),
        "fits_of_folds": fits.round(3).tolist(),
        "told_and_found": _told_and_found(100.0 / (1.0 + np.exp(-drive)), shares, kinds),
        "discarded": DISCARDED,
        "fnmr": {name: _curves(comparisons, kinds, wanted, judges, samples) for name, wanted in sets.items()},
    }


def _curves(
    comparisons: Comparisons,
    kinds: NDArray[np.str_],
    wanted: Sequence[str],
    judges: dict[str, Numbers],
    samples: Sequence[Sample],
) -> dict[str, Any]:
    once = (kinds[comparisons.one] != FRONTAL) | (comparisons.one < comparisons.two)
    rows = once & np.isin(kinds[comparisons.one], wanted)
    one, two, missed = comparisons.one[rows], comparisons.two[rows], comparisons.missed[rows]
    found: dict[str, Any] = {"comparisons": len(one)}
    worse = {name: np.minimum(judge[one], judge[two]) for name, judge in judges.items()}
    found |= {name: curve(quality, missed) for name, quality in worse.items()}
    person = np.unique([sample.person for sample in samples], return_inverse=True)[1][one]
    draws = np.random.default_rng(_SEED).integers(0, person.max() + 1, (_DRAWS, person.max() + 1))
    many = []
    for draw in draws:
        weights = np.bincount(draw, minlength=len(draw))[person].astype(np.float64)
        errors = np.array(curve(worse["unified"], missed, weights))
        many.append(errors / max(errors[0], np.finfo(np.float64).tiny))
    found["unified relative to none discarded, 95 %"] = np.percentile(many, [2.5, 97.5], axis=0).tolist()
    return found


def _told_and_found(told: Numbers, shares: Numbers, kinds: NDArray[np.str_]) -> dict[str, list[float]]:
    """Return by kind, and by tenths of the score, how many photos there are, what the score tells and what came."""
    known = np.isfinite(shares)
    groups = {str(kind): kinds == kind for kind in dict.fromkeys(kinds)}
    groups |= {f"{low} to {low + 10}": (told >= low) & (told < low + 10) for low in range(0, 100, 10)}
    return {
        name: [int(rows.sum()), float(told[rows].mean()), float(100.0 * shares[rows].mean())]
        for name, group in groups.items()
        if (rows := group & known).any()
    }


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m infra.quality_calibration", description=__doc__)
    parser.add_argument("folder", type=Path, help="one folder a person")
    parser.add_argument("--frontal", default="*", help="pattern of the photos that others are compared with")
    parser.add_argument("--card", type=Path, help="model card; default: that of the default pack")
    parser.add_argument("--pack", type=Path, help="folder with the card's files")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    wanted = parser.parse_args()
    assets = fetch(load_settings().assets, lambda _: None, samples=False)
    card = parse_model_card(tomllib.loads(wanted.card.read_text(encoding="utf-8"))) if wanted.card else assets.card
    samples, without = collect(
        wanted.folder, wanted.frontal, card, wanted.pack or assets.pack_dir, threads=wanted.threads, tell=_tell
    )
    threshold = published_threshold(card, gallery_size=1_000, fpir=0.01).cosine
    sys.stderr.write("\n")
    sys.stdout.write(json.dumps({"without_template": without} | report(samples, threshold), indent=1) + "\n")
    return 0


def _tell(done: int, of: int) -> None:
    sys.stderr.write(f"\r{done} of {of} photos")


if __name__ == "__main__":
    sys.exit(main())
