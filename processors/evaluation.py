"""What searches on a labelled set say about accuracy: arrays in, rates out.

Terms and definitions are those of ISO/IEC 19795-1 and of NIST FRTE 1:N (NIST IR 8271): FPIR is the share of non-mated
searches that return anybody at or above the threshold, FNIR the share of mated searches whose mate is not on the list
at or above it. A probe without a template returns nobody: it is a miss in FNIR and no false positive, and counts in
both denominators. An interval is a percentile interval over resamplings of persons with replacement, because two photos
of one person are not two independent observations. docs/evaluation.md has the protocol in words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from processors.candidates import SCORE_DECIMALS
from processors.scoring import joined_captures, person_scores, score_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from processors.scoring import Fusion
    from processors.trials import Trial

    Floats = NDArray[np.float64]
    Rows = NDArray[np.int64]
    Flags = NDArray[np.bool_]

LIST_LENGTH = 20
"""Candidates on a list of the open-set searches: what a probe asks for by default."""
INVESTIGATION_LIST_LENGTH = 50
FEW_EVENTS = 10
"""A rate that rests on fewer events than this is said to."""
CONFIDENCE = 0.95
_TAIL = (1.0 - CONFIDENCE) / 2.0
_STEP = 10.0**-SCORE_DECIMALS
_BLOCK = 1024


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Templates:
    """What came out of the photos of a labelled set, a row each."""

    values: NDArray[np.float32]
    """(n, d), L2-normalised; zero where there is none."""
    usable: Flags
    """(n,) whether the photo can be searched with."""
    enrollable: Flags
    """(n,) whether it can be enrolled; the same, unless a policy asks more of one use than of the other."""
    qualities: Floats
    """(n,) quality of the capture, higher is better; nan where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MatedSearches:
    """Searches for persons who are enrolled."""

    photos: Rows
    """(s,) row of the probe in the labelled set."""
    persons: Rows
    """(s,) number of the person."""
    scores: Floats
    """(s,) score of the mate; -inf where probe or mate has no template."""
    ranks: Rows
    """(s,) place of the mate, 1 is best; 0 where probe or mate has no template. Equal scores count against the mate."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NonMatedSearches:
    """Searches for persons who are not enrolled."""

    photos: Rows
    persons: Rows
    scores: Floats
    """(s,) score of the best candidate; -inf where the probe has no template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSetPoint:
    """Accuracy at one threshold."""

    threshold: float
    fpir: float
    fnir: float
    false_positives: int
    """Non-mated searches with a candidate at or above the threshold."""
    misses: int
    """Mated searches without their mate at or above it."""
    photos_of_false_positives: int
    """Distinct probes among them: a photo is searched with in several draws."""
    photos_of_misses: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verification:
    """Every pair of photos, compared one to one; a pair without two templates is never accepted."""

    mated_scores: Floats
    """(p,) of pairs of one person that have both templates."""
    mated_persons: Rows
    mated_qualities: Floats
    """(p,) the lesser quality of the two captures."""
    mated_pairs: Rows
    """(persons,) all pairs of each person, whether there are templates or not."""
    highest_non_mated: Floats
    """Highest scores of pairs of two persons, descending; as many as the highest false accept rate needs."""
    non_mated_pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationPoint:
    """Accuracy of one-to-one comparison at one threshold."""

    threshold: float
    tar: float
    false_accepts: int
    misses: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A percentile interval over resamplings of persons."""

    low: float
    high: float


def search(trial: Trial, templates: Templates, persons: Rows, fusion: Fusion) -> tuple[MatedSearches, NonMatedSearches]:
    """Search a trial's gallery with each of its probes; `persons` is the person's number for each photo `(n,)`."""
    captures, there = templates.values[trial.enrolled], templates.enrollable[trial.enrolled]
    gallery, usable = joined_captures(captures, there, templates.qualities[trial.enrolled], fusion)

    def scored(probes: Rows) -> Floats:
        found = person_scores(templates.values[probes], gallery, usable)
        return np.round(found, SCORE_DECIMALS)

    scores, ranks = np.full(len(trial.mated), -np.inf), np.zeros(len(trial.mated), dtype=np.int64)
    for part in _blocks(np.flatnonzero(templates.usable[trial.mated])):
        found = scored(trial.mated[part])
        mate = np.take_along_axis(found, trial.mates[part][:, np.newaxis], axis=1)
        at_least = (found >= mate).sum(axis=1)  # the mate itself is one of them
        scores[part] = mate[:, 0]
        ranks[part] = np.where(np.isfinite(mate[:, 0]), at_least, 0)
    best = np.full(len(trial.non_mated), -np.inf)
    for part in _blocks(np.flatnonzero(templates.usable[trial.non_mated])):
        best[part] = scored(trial.non_mated[part]).max(axis=1)
    return (
        MatedSearches(photos=trial.mated, persons=persons[trial.mated], scores=scores, ranks=ranks),
        NonMatedSearches(photos=trial.non_mated, persons=persons[trial.non_mated], scores=best),
    )


def pool_mated(searches: Sequence[MatedSearches]) -> MatedSearches:
    """Return the searches of several draws as one."""
    return MatedSearches(
        photos=np.concatenate([each.photos for each in searches]),
        persons=np.concatenate([each.persons for each in searches]),
        scores=np.concatenate([each.scores for each in searches]),
        ranks=np.concatenate([each.ranks for each in searches]),
    )


def pool_non_mated(searches: Sequence[NonMatedSearches]) -> NonMatedSearches:
    """Return the searches of several draws as one."""
    return NonMatedSearches(
        photos=np.concatenate([each.photos for each in searches]),
        persons=np.concatenate([each.persons for each in searches]),
        scores=np.concatenate([each.scores for each in searches]),
    )


def threshold_at(descending: Floats, *, rate: float, total: int) -> float:
    """Return the least score that at most the share `rate` of `total` comparisons with other persons reaches.

    `descending` holds the highest of their scores, rounded as lists are, at least `rate * total + 1` of them where
    there are as many. Of equal scores all or none lie above a threshold, so it is one step above the first that is one
    too many. -inf where every score may pass.
    """
    allowed = _allowed(rate, total)
    return _above(float(descending[allowed])) if allowed < len(descending) else -math.inf


def is_missed(mated: MatedSearches, threshold: float, list_length: int) -> Flags:
    """Return `(s,)` where the mate is not on the list at or above the threshold."""
    return ~((mated.ranks > 0) & (mated.ranks <= list_length) & (mated.scores >= threshold))


def is_false_positive(non_mated: NonMatedSearches, threshold: float) -> Flags:
    """Return `(s,)` where somebody is on the list at or above the threshold."""
    return np.isfinite(non_mated.scores) & (non_mated.scores >= threshold)


def open_set_point(
    mated: MatedSearches, non_mated: NonMatedSearches, *, threshold: float, list_length: int
) -> OpenSetPoint:
    """Count at one threshold; there is at least one search of each kind."""
    missed, found = is_missed(mated, threshold, list_length), is_false_positive(non_mated, threshold)
    return OpenSetPoint(
        threshold=threshold,
        fpir=float(found.mean()),
        fnir=float(missed.mean()),
        false_positives=int(found.sum()),
        misses=int(missed.sum()),
        photos_of_false_positives=len(np.unique(non_mated.photos[found])),
        photos_of_misses=len(np.unique(mated.photos[missed])),
    )


def det_curve(
    mated: MatedSearches, non_mated: NonMatedSearches, *, list_length: int, points: int = 300
) -> tuple[Floats, Floats]:
    """Return FPIR and FNIR `(q,)` along thresholds, FPIR ascending, evenly spaced on a logarithmic axis."""
    total = len(non_mated.scores)
    descending = np.sort(non_mated.scores)[::-1]
    counts = np.unique(np.round(np.geomspace(1, total, points)).astype(np.int64)) - 1
    thresholds = np.array([threshold_at(descending, rate=count / total, total=total) for count in counts])
    found = np.searchsorted(-descending[np.isfinite(descending)], -thresholds, side="right")
    listed = np.sort(_listed_scores(mated, list_length))
    missed = np.maximum(
        np.searchsorted(listed, thresholds, side="left"), np.searchsorted(listed, -np.inf, side="right")
    )
    return found / total, missed / len(listed)


def person_weights(persons: int, *, replicates: int, seed: int) -> Floats:
    """Return `(replicates, persons)`: how often each is drawn when as many persons are drawn with replacement."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, persons])))
    weights = np.empty((replicates, persons))
    for row in weights:
        row[:] = np.bincount(generator.integers(0, persons, persons), minlength=persons)
    return weights


def resampled_fnir(
    mated: MatedSearches, non_mated: NonMatedSearches, weights: Floats, *, fpirs: Sequence[float], list_length: int
) -> Floats:
    """Return FNIR at each FPIR for each resampling, `(replicates, len(fpirs))`; nan where a resampling has no search.

    Each resampling sets its own threshold, so that the interval holds what the threshold owes to chance. Persons are
    resampled as probes; the galleries stay as they were drawn.
    """
    by_score = np.argsort(-non_mated.scores, kind="stable")
    descending, others = non_mated.scores[by_score], non_mated.persons[by_score]
    listed = _listed_scores(mated, list_length)
    by_mate = np.argsort(listed, kind="stable")
    ascending, persons = listed[by_mate], mated.persons[by_mate]
    never = int(np.searchsorted(ascending, -np.inf, side="right"))
    fnirs = np.full((len(weights), len(fpirs)), np.nan)
    for replicate, weight in enumerate(weights):
        reached = np.cumsum(weight[others])
        missed = np.concatenate([[0.0], np.cumsum(weight[persons])])
        if missed[-1] == 0.0 or reached[-1] == 0.0:
            continue
        for column, rate in enumerate(fpirs):
            first = int(np.searchsorted(reached, _allowed(rate, int(reached[-1])), side="right"))
            threshold = _above(float(descending[first]))
            below = max(int(np.searchsorted(ascending, threshold, side="left")), never)
            fnirs[replicate, column] = missed[below] / missed[-1]
    return fnirs


def resampled_rate(events: Floats, chances: Floats, weights: Floats) -> Floats:
    """Return `(replicates,)` the rate of events, given `(persons,)` events and chances of each; nan without chances."""
    above, below = weights @ events, weights @ chances
    rates: Floats = np.divide(above, below, out=np.full(len(weights), np.nan), where=below > 0.0)
    return rates


def count_by_person(persons: Rows, flags: Flags | None, *, total: int) -> Floats:
    """Return `(total,)` how many rows each person has, or how many of them are flagged."""
    chosen = persons if flags is None else persons[flags]
    return np.bincount(chosen, minlength=total).astype(np.float64)


def interval_of(values: Floats, *, rate: float, persons: int) -> Interval | None:
    """Return the interval of a rate from its resampled values, or None where nothing can be said.

    Where no event was seen, or nothing else, resampling sees no spread; then the bound is the exact one (Clopper and
    Pearson 1934) for as many independent persons.
    """
    known = values[np.isfinite(values)]
    if not len(known) or not math.isfinite(rate):
        return None
    low, high = (float(np.quantile(known, share)) for share in (_TAIL, 1.0 - _TAIL))
    exact = _TAIL ** (1.0 / max(persons, 1))
    if rate <= 0.0:
        high = max(high, 1.0 - exact)
    if rate >= 1.0:
        low = min(low, exact)
    return Interval(low=low, high=high)


def ratio_of(rate: float, baseline: float) -> float:
    """Return rate / baseline; two rates of nothing are alike."""
    if rate == baseline:
        return 1.0
    return rate / baseline if baseline else math.inf


def paired_ratio(values: Floats, baseline: Floats) -> Interval | None:
    """Return the interval of the ratio of two error rates that were resampled with the same persons."""
    both = np.isfinite(values) & np.isfinite(baseline)
    ratios = np.array([ratio_of(float(new), float(old)) for new, old in zip(values[both], baseline[both], strict=True)])
    if not len(ratios):
        return None
    # An order statistic and no interpolation: next to an infinite ratio there is nothing in between.
    low, high = (float(np.quantile(ratios, share, method="nearest")) for share in (_TAIL, 1.0 - _TAIL))
    return Interval(low=low, high=high)


def paired_difference(values: Floats, baseline: Floats) -> Interval | None:
    """Return the interval of the difference of two rates that were resampled with the same persons."""
    differences = (values - baseline)[np.isfinite(values) & np.isfinite(baseline)]
    if not len(differences):
        return None
    return Interval(low=float(np.quantile(differences, _TAIL)), high=float(np.quantile(differences, 1.0 - _TAIL)))


def verify_pairs(templates: Templates, persons: Rows, *, highest_far: float) -> Verification:
    """Compare every photo with every later one; the earlier of the two is the probe."""
    rows = np.flatnonzero(templates.usable)
    values, person, quality = templates.values[rows], persons[rows], templates.qualities[rows]
    photos = np.bincount(persons)
    mated_pairs = photos * (photos - 1) // 2
    non_mated_pairs = len(persons) * (len(persons) - 1) // 2 - int(mated_pairs.sum())
    keep = _allowed(highest_far, non_mated_pairs) + 1
    mated: list[Floats] = []
    whose: list[Rows] = []
    lesser: list[Floats] = []
    highest = np.empty(0)
    for block in _blocks(np.arange(len(rows))):
        scores = score_matrix(values[block], values[block[0] :])
        later = np.arange(block[0], len(rows))[np.newaxis] > block[:, np.newaxis]
        same = person[block][:, np.newaxis] == person[np.newaxis, block[0] :]
        first, second = np.nonzero(later & same)
        mated.append(np.round(scores[first, second], SCORE_DECIMALS))
        whose.append(person[block[first]])
        lesser.append(np.minimum(quality[block[first]], quality[block[0] + second]))
        others = scores[later & ~same & (scores >= (highest.min() if len(highest) >= keep else -np.inf))]
        highest = np.concatenate([highest, others])
        if len(highest) > keep:
            highest = np.partition(highest, len(highest) - keep)[len(highest) - keep :]
    return Verification(
        mated_scores=np.concatenate([np.empty(0), *mated]),
        mated_persons=np.concatenate([np.empty(0, dtype=np.int64), *whose]),
        mated_qualities=np.concatenate([np.empty(0), *lesser]),
        mated_pairs=mated_pairs,
        highest_non_mated=np.round(np.sort(highest)[::-1], SCORE_DECIMALS),
        non_mated_pairs=non_mated_pairs,
    )


def verification_point(pairs: Verification, *, far: float) -> VerificationPoint:
    """Return the true accept rate at a false accept rate; there is at least one pair of each kind."""
    threshold = threshold_at(pairs.highest_non_mated, rate=far, total=pairs.non_mated_pairs)
    accepted = int((pairs.mated_scores >= threshold).sum())
    total = int(pairs.mated_pairs.sum())
    return VerificationPoint(
        threshold=threshold,
        tar=accepted / total,
        false_accepts=int((pairs.highest_non_mated >= threshold).sum()),
        misses=total - accepted,
    )


def error_versus_discard(qualities: Floats, errors: Flags, *, shares: Floats) -> Floats:
    """Return `(q,)` the rate of errors that is left when the given shares of lowest quality are discarded.

    After the error-versus-discard characteristic of ISO/IEC 29794-1. Of equal qualities those that are discarded are
    taken to hold errors as often as all of them.
    """
    levels, where = np.unique(qualities, return_inverse=True)
    gone = np.concatenate([[0.0], np.cumsum(np.bincount(where, minlength=len(levels)))])
    wrong = np.concatenate([[0.0], np.cumsum(np.bincount(where, weights=errors, minlength=len(levels)))])
    discarded = shares * len(qualities)
    left = len(qualities) - discarded
    remaining = wrong[-1] - np.interp(discarded, gone, wrong)
    rates: Floats = np.divide(remaining, left, out=np.zeros(len(shares)), where=left > 0.0)
    return rates


def _allowed(rate: float, total: int) -> int:
    """Return how many of `total` may pass; 0.003 of 1,000 are three, whatever binary fractions make of it."""
    return math.floor(rate * total + 1e-9)


def _above(score: float) -> float:
    """Return the next score that a list can carry."""
    return round(score + _STEP, SCORE_DECIMALS) if math.isfinite(score) else score


def _listed_scores(mated: MatedSearches, list_length: int) -> Floats:
    """Return the scores of mates, -inf where the mate is not on the list."""
    on_list = (mated.ranks > 0) & (mated.ranks <= list_length)
    scores: Floats = np.where(on_list, mated.scores, -np.inf)
    return scores


def _blocks(rows: Rows) -> list[Rows]:
    return [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
