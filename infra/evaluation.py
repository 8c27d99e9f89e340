"""Measure the accuracy of recipes on a labelled set, as docs/evaluation.md describes."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from infra.extracting import extract_photos, under_policy
from processors import evaluation as rates
from processors.candidates import LEAD_NOTICE
from processors.evaluation import FEW_EVENTS, INVESTIGATION_LIST_LENGTH, LIST_LENGTH
from processors.model_card import model_digest
from processors.trials import draw_trials, number_persons
from schemas.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from infra.extracting import Extracted, Recipe
    from infra.labelled_set import LabelledSet
    from processors.evaluation import Interval, MatedSearches, NonMatedSearches, Verification
    from processors.policy import Policy
    from processors.scoring import Fusion
    from processors.trials import Draw

    Floats = NDArray[np.float64]
    Rows = NDArray[np.int64]
    Flags = NDArray[np.bool_]

Report = dict[str, Any]
Tell = Callable[[str, int, int], None]
"""Is told what is being done, how much of it is done, and of how much."""

RANKS = (1, 20, 50)
FPIRS = {"0.01": 0.01, "0.003": 0.003, "0.001": 0.001}
FARS = {"1e-3": 1e-3, "1e-4": 1e-4, "1e-5": 1e-5}
DISCARD_FAR = "1e-4"
DISCARDED_SHARES = np.linspace(0.0, 0.3, 61)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curves:
    """What is drawn of a recipe."""

    recipe: str
    fpir: Floats
    fnir: Floats
    discarded: Floats
    false_non_match: Floats
    """Of the pairs that are left when that share is discarded; empty where there is no pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The report as one document, and the curves."""

    report: Report
    curves: Sequence[Curves]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Measured:
    """A recipe's part of the report, and what a comparison with another needs."""

    report: Report
    curves: Curves
    errors: Mapping[str, tuple[float, Floats]]
    """Name of an error rate -> the rate, and its resampled values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What to measure."""

    labelled: LabelledSet
    recipes: Sequence[Recipe]
    """With `fusions`, each recipe with each fusion is measured; the first of all is the baseline of the others."""
    enrol: int
    draws: int
    seed: int
    fusions: Sequence[Fusion]
    replicates: int
    processes: int
    limit_s: float
    """Processor time that one photo may take."""
    policy: Policy
    policy_applies: bool
    """Whether a photo that the policy finds too poor is refused, as in production, or only counted."""

    def run(self, progress: Tell) -> Outcome:
        """Extract with every recipe and measure.

        Raises:
            UsageError: nobody has enough photos.
        """
        photos = self.labelled.photos
        labels = [photo.person for photo in photos]
        names, persons = number_persons(labels)
        counts = np.bincount(persons)
        if not (counts > self.enrol).any():
            raise UsageError(
                f"Nobody has more than {self.enrol} photos: one has to be left to search with. Take a smaller --enrol."
            )
        draws = draw_trials(labels, [p.name for p in photos], enrol=self.enrol, count=self.draws, seed=self.seed)
        weights = rates.person_weights(len(names), replicates=self.replicates, seed=self.seed)
        groups = {
            kind: np.array([of[name] for name in names], dtype=np.str_) for kind, of in self.labelled.groups.items()
        }
        extractions: dict[object, Extracted] = {}
        measured = []
        for recipe, fusion in itertools.product(self.recipes, self.fusions):
            started = time.perf_counter()
            same = (model_digest(recipe.card), recipe.card.quality)  # what decides on a template, or that there is none
            if same not in extractions:
                extractions[same] = self._extract(recipe, progress)
            took_s = time.perf_counter() - started
            part = _Measuring(
                recipe=recipe,
                fusion=fusion,
                name=recipe.name if len(self.fusions) == 1 else f"{recipe.name}, {fusion}",
                extracted=extractions[same],
                draws=draws,
                persons=persons,
                weights=weights,
                groups=groups,
                policy_applies=self.policy_applies,
                progress=progress,
            ).run()
            part.report["seconds"] = {
                "extraction": round(took_s, 1),
                "measuring": round(time.perf_counter() - started - took_s, 1),
            }
            measured.append(part)
        extracted = next(iter(extractions.values()))
        warnings = [*self.labelled.warnings, *_repeated_photos(extracted.digests, persons)]
        too_few = int((counts <= self.enrol).sum())
        return Outcome(
            report=_cleaned(
                {
                    "notice": LEAD_NOTICE,
                    "persons": len(names),
                    "images": len(photos),
                    "persons_never_enrolled": too_few,
                    "enrol": self.enrol,
                    "draws": self.draws,
                    "seed": self.seed,
                    "bootstrap_replicates": self.replicates,
                    "policy_version": self.policy.version,
                    "policy_applies": self.policy_applies,
                    **measured[0].report,
                    "recipes": [part.report for part in measured],
                    "comparisons": [_compared(part, measured[0]) for part in measured[1:]],
                    "warnings": warnings,
                }
            ),
            curves=[part.curves for part in measured],
        )

    def _extract(self, recipe: Recipe, progress: Tell) -> Extracted:
        paths = [photo.path for photo in self.labelled.photos]
        what = f"extracting, {recipe.name}"
        return extract_photos(
            recipe,
            paths,
            self.policy,
            processes=self.processes,
            limit_s=self.limit_s,
            progress=lambda done: progress(what, done, len(paths)),
        )


@dataclass(slots=True, kw_only=True, eq=False)
class _Measuring:
    """One recipe on the trials; intervals, events and errors fill up on the way."""

    recipe: Recipe
    fusion: Fusion
    name: str
    """Of the recipe, and of the fusion where several are measured."""
    extracted: Extracted
    draws: Sequence[Draw]
    persons: Rows
    weights: Floats
    groups: Mapping[str, NDArray[np.str_]]
    policy_applies: bool
    progress: Tell
    intervals: dict[str, Interval | None] = field(default_factory=dict)
    events: dict[str, dict[str, int]] = field(default_factory=dict)
    errors: dict[str, tuple[float, Floats]] = field(default_factory=dict)

    def run(self) -> _Measured:
        if self.policy_applies:
            self.extracted = under_policy(self.extracted)
        closed, mated, non_mated = self._searched()
        pairs = self._verified()
        top: Report = {}
        open_set, investigation = self._open_set(mated, non_mated, top), self._investigation(mated)
        closed_set, verification = self._closed_set(closed, top), self._verification(pairs, top)
        failures = self._failures(top)
        thresholds = {name: point["threshold"] for name, point in open_set["at_fpir"].items()}
        report: Report = {
            "recipe": self.name,
            "fusion": self.fusion.value,
            "model_digest": model_digest(self.recipe.card),
            **top,
            "closed_set": closed_set,
            "open_set": open_set,
            "investigation": investigation,
            "verification": verification,
            **failures,
            "intervals": self.intervals,
            "events": self.events,
            "few_events": sorted(name for name, of in self.events.items() if min(of.values()) < FEW_EVENTS),
            "groups": {kind: self._grouped(of, mated, non_mated, thresholds) for kind, of in self.groups.items()},
        }
        return _Measured(report=report, curves=self._curves(mated, non_mated, pairs), errors=self.errors)

    def _searched(self) -> tuple[MatedSearches, MatedSearches, NonMatedSearches]:
        closed, mated, non_mated = [], [], []
        what = f"searching, {self.name}"
        for number, draw in enumerate(self.draws):
            self.progress(what, number, len(self.draws))
            for trial in (draw.closed_set, draw.open_set):
                own, others = rates.search(trial, self.extracted.templates, self.persons, self.fusion)
                if trial is draw.closed_set:
                    closed.append(own)
                else:
                    mated.append(own)
                    non_mated.append(others)
        self.progress(what, len(self.draws), len(self.draws))
        return rates.pool_mated(closed), rates.pool_mated(mated), rates.pool_non_mated(non_mated)

    def _verified(self) -> Verification:
        what = f"comparing pairs, {self.name}"
        self.progress(what, 0, 1)
        pairs = rates.verify_pairs(self.extracted.templates, self.persons, highest_far=max(FARS.values()))
        self.progress(what, 1, 1)
        return pairs

    def _closed_set(self, searches: MatedSearches, top: Report) -> Report:
        for rank in RANKS:
            missed = rates.is_missed(searches, -math.inf, rank)
            self._rated(f"rank_{rank}", searches.persons, ~missed, top)
            self.events[f"rank_{rank}"] = {"misses": len(np.unique(searches.photos[missed]))}
        return {"gallery_persons": len(self.draws[0].closed_set.enrolled), "searches": len(searches.ranks)}

    def _open_set(self, mated: MatedSearches, non_mated: NonMatedSearches, top: Report) -> Report:
        report: Report = {
            "gallery_persons": len(self.draws[0].open_set.enrolled),
            "list_length": LIST_LENGTH,
            "mated_searches": len(mated.scores),
            "non_mated_searches": len(non_mated.scores),
            "at_fpir": {},
        }
        names = {name: f"fnir_at_fpir_{name}" for name in FPIRS}
        if not len(non_mated.scores):
            top |= dict.fromkeys(names.values())
            self.events.update({key: {"false_positives": 0} for key in names.values()})
            return report
        resampled = rates.resampled_fnir(
            mated, non_mated, self.weights, fpirs=list(FPIRS.values()), list_length=LIST_LENGTH
        )
        descending = np.sort(non_mated.scores)[::-1]
        for column, (name, rate) in enumerate(FPIRS.items()):
            key = names[name]
            point = rates.open_set_point(
                mated,
                non_mated,
                threshold=rates.threshold_at(descending, rate=rate, total=len(descending)),
                list_length=LIST_LENGTH,
            )
            report["at_fpir"][name] = asdict(point)
            top[key] = point.fnir
            self.errors[key] = (point.fnir, resampled[:, column])
            self.intervals[key] = rates.interval_of(
                resampled[:, column], rate=point.fnir, persons=len(np.unique(mated.persons))
            )
            self.events[key] = {
                "false_positives": point.photos_of_false_positives,
                "misses": point.photos_of_misses,
            }
        return report

    def _investigation(self, mated: MatedSearches) -> Report:
        report: Report = {
            "threshold": 0,
            "list_length": INVESTIGATION_LIST_LENGTH,
            "gallery_persons": len(self.draws[0].open_set.enrolled),
            "searches": len(mated.ranks),
        }
        for rank in (1, INVESTIGATION_LIST_LENGTH):
            key = f"investigation_fnir_rank_{rank}"
            missed = rates.is_missed(mated, -math.inf, rank)
            values = self._rated(key, mated.persons, missed, report, name=f"fnir_rank_{rank}")
            self.errors[key] = (report[f"fnir_rank_{rank}"], values)
            self.events[key] = {"misses": len(np.unique(mated.photos[missed]))}
        return report

    def _verification(self, pairs: Verification, top: Report) -> Report:
        mated = int(pairs.mated_pairs.sum())
        report: Report = {"mated_pairs": mated, "non_mated_pairs": pairs.non_mated_pairs, "at_far": {}}
        for name, rate in FARS.items():
            key = f"tar_at_far_{name}"
            if not mated or not pairs.non_mated_pairs:
                top[key] = None
                self.events[key] = {"misses": 0}
                continue
            point = rates.verification_point(pairs, far=rate)
            report["at_far"][name] = asdict(point)
            top[key] = point.tar
            accepted = rates.count_by_person(
                pairs.mated_persons, pairs.mated_scores >= point.threshold, total=len(pairs.mated_pairs)
            )
            self.intervals[key] = rates.interval_of(
                rates.resampled_rate(accepted, pairs.mated_pairs.astype(np.float64), self.weights),
                rate=point.tar,
                persons=int((pairs.mated_pairs > 0).sum()),
            )
            self.events[key] = {"false_accepts": point.false_accepts, "misses": point.misses}
        return report

    def _failures(self, top: Report) -> Report:
        failed = ~self.extracted.templates.enrollable
        self._rated("failure_to_enrol", self.persons, failed, top)
        self.events["failure_to_enrol"] = {"failures": int(failed.sum())}
        return {
            "failures": _counted(self.extracted.failures.values()),
            "refused_by_policy": {
                str(use): _counted(refused.values()) for use, refused in self.extracted.refused.items()
            },
        }

    def _rated(self, key: str, persons: Rows, flags: Flags, into: Report, *, name: str | None = None) -> Floats:
        """Put the share of flagged rows in the report and its interval beside; return the resampled shares."""
        total = self.weights.shape[1]
        events = rates.count_by_person(persons, flags, total=total)
        chances = rates.count_by_person(persons, None, total=total)
        rate = float(events.sum() / chances.sum())
        values = rates.resampled_rate(events, chances, self.weights)
        into[name or key] = rate
        self.intervals[key] = rates.interval_of(values, rate=rate, persons=int((chances > 0).sum()))
        return values

    def _grouped(
        self,
        of: NDArray[np.str_],
        mated: MatedSearches,
        non_mated: NonMatedSearches,
        thresholds: Mapping[str, float],
    ) -> list[Report]:
        """Return a row a group: who is in it, and its rates at the thresholds that hold for all."""
        failed = ~self.extracted.templates.enrollable
        table = []
        for group in sorted(set(of.tolist())):
            members = of == group
            row: Report = {
                "group": group,
                "persons": int(members.sum()),
                "images": int(members[self.persons].sum()),
                "mated_searches": int(members[mated.persons].sum()),
                "non_mated_searches": int(members[non_mated.persons].sum()),
                "failure_to_enrol": self._rate_of(members, self.persons, np.arange(len(failed)), failed),
                "at_fpir": {},
            }
            for name, threshold in thresholds.items():
                missed = rates.is_missed(mated, threshold, LIST_LENGTH)
                found = rates.is_false_positive(non_mated, threshold)
                row["at_fpir"][name] = {
                    "threshold": threshold,
                    "fnir": self._rate_of(members, mated.persons, mated.photos, missed),
                    "fpir": self._rate_of(members, non_mated.persons, non_mated.photos, found),
                }
            table.append(row)
        return table

    def _rate_of(self, members: Flags, persons: Rows, photos: Rows, flags: Flags) -> Report:
        """Return the rate among members, its interval, and on how many distinct photos it rests."""
        total = self.weights.shape[1]
        events = rates.count_by_person(persons, flags, total=total) * members
        chances = rates.count_by_person(persons, None, total=total) * members
        if not chances.sum():
            return {"rate": None, "interval": None, "photos": 0, "few_events": True}
        rate = float(events.sum() / chances.sum())
        values = rates.resampled_rate(events, chances, self.weights)
        photos_of_events = len(np.unique(photos[flags & members[persons]]))
        return {
            "rate": rate,
            "interval": rates.interval_of(values, rate=rate, persons=int((chances > 0).sum())),
            "photos": photos_of_events,
            "few_events": photos_of_events < FEW_EVENTS,
        }

    def _curves(self, mated: MatedSearches, non_mated: NonMatedSearches, pairs: Verification) -> Curves:
        nothing = np.empty(0)
        fpir, fnir = (
            rates.det_curve(mated, non_mated, list_length=LIST_LENGTH) if len(non_mated.scores) else (nothing, nothing)
        )
        left = nothing
        if len(pairs.mated_scores) and pairs.non_mated_pairs:
            threshold = rates.verification_point(pairs, far=FARS[DISCARD_FAR]).threshold
            left = rates.error_versus_discard(
                pairs.mated_qualities, pairs.mated_scores < threshold, shares=DISCARDED_SHARES
            )
        return Curves(recipe=self.name, fpir=fpir, fnir=fnir, discarded=DISCARDED_SHARES, false_non_match=left)


def _counted(codes: Iterable[str]) -> dict[str, int]:
    """Count codes, the most frequent first."""
    return dict(sorted(Counter(codes).items(), key=lambda item: (-item[1], item[0])))


def _compared(new: _Measured, baseline: _Measured) -> Report:
    """Set a recipe beside the baseline, on the same persons in every resampling."""
    table: Report = {}
    for name, (rate, values) in new.errors.items():
        old_rate, old_values = baseline.errors[name]
        table[name] = {
            "baseline": old_rate,
            "recipe": rate,
            "ratio": rates.ratio_of(rate, old_rate),
            "ratio_interval": rates.paired_ratio(values, old_values),
            "difference": rate - old_rate,
            "difference_interval": rates.paired_difference(values, old_values),
            "few_events": any(name in each.report["few_events"] for each in (new, baseline)),
        }
    return {"recipe": new.report["recipe"], "baseline": baseline.report["recipe"], "errors": table}


def _repeated_photos(digests: Sequence[bytes], persons: Rows) -> list[str]:
    """Say where one photo stands in several places: a mated search with the enrolled photo itself measures nothing."""
    whose: dict[bytes, list[int]] = {}
    for digest, person in zip(digests, persons.tolist(), strict=True):
        if digest:
            whose.setdefault(digest, []).append(person)
    within = sum(len(of) - len(set(of)) for of in whose.values())
    across = sum(len(set(of)) > 1 for of in whose.values())
    warnings = []
    if within:
        warnings.append(f"Copies of another photo of the same person: {within}; the rates flatter.")
    if across:
        warnings.append(f"Photos that stand in the folders of several persons: {across}; labels are wrong there.")
    return warnings


def _cleaned(value: Any) -> Any:
    """Write intervals as pairs, and what is no number as null, for JSON."""
    if isinstance(value, rates.Interval):
        return [_cleaned(value.low), _cleaned(value.high)]
    if isinstance(value, dict):
        return {key: _cleaned(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cleaned(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
