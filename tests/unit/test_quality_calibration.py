"""The fit of the unified score and its curve, on persons whose errors are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from infra.quality_calibration import (
    DISCARDED,
    compare,
    curve,
    fit_logistic,
    found_share,
    report,
    score_per_halving,
    signals_of,
)
from infra.quality_samples import FRONTAL, OTHER, Sample
from processors.templates import to_template

PERSONS = 30


def sample(person: int, photo: str, kind: str, noise: float, rng: np.random.Generator) -> Sample:
    """A photo whose template is the person's and as much noise; the models say of it what the noise deserves."""
    mean = np.random.default_rng(person).normal(size=64)
    return Sample(
        person=f"{person:03}",
        photo=photo,
        kind=kind,
        template=to_template(mean + noise * rng.normal(size=64)),
        face_score=float(0.95 - 0.02 * noise + 0.002 * rng.normal()),
        face_share_percent=100.0,
        vector_length=float(13.0 - 2.0 * noise + 0.1 * rng.normal()),
    )


def people(*, told: bool = True) -> list[Sample]:
    rng = np.random.default_rng(5)
    noises = {"f1": 0.3, "f2": 0.5, "f3": 0.7, "f4": 1.0}
    samples = [sample(who, name, FRONTAL, noise, rng) for who in range(PERSONS) for name, noise in noises.items()]
    samples += [sample(who, "p1", OTHER, 1.6, rng) for who in range(PERSONS)]
    samples += [sample(who, "f1", "blur", 2.2, rng) for who in range(PERSONS)]
    if told:
        return samples
    said = rng.permutation(len(samples))
    return [
        Sample(
            person=one.person,
            photo=one.photo,
            kind=one.kind,
            template=one.template,
            face_score=samples[other].face_score,
            face_share_percent=one.face_share_percent,
            vector_length=samples[other].vector_length,
        )
        for one, other in zip(samples, said, strict=True)
    ]


def test_a_photo_is_compared_with_the_frontal_photos_of_its_person_and_never_with_itself() -> None:
    samples = people()
    found = compare(samples, 0.5)
    for one, two in zip(found.one, found.two, strict=True):
        assert samples[one].person == samples[two].person
        assert samples[one].photo != samples[two].photo
        assert samples[two].kind == FRONTAL
    assert len(found.one) == PERSONS * (4 * 3 + 4 + 3)


def test_the_share_that_is_found_is_counted_by_photo() -> None:
    samples = people()[:4]
    everything, nothing = (found_share(compare(samples, threshold), 4) for threshold in (-1.1, 1.1))
    np.testing.assert_array_equal(everything, 1.0)
    np.testing.assert_array_equal(nothing, 0.0)


def test_a_fit_finds_the_numbers_that_made_the_shares() -> None:
    signals = np.random.default_rng(1).normal(size=(4000, 2)) * [0.02, 1.5] + [0.94, 12.0]
    shares = 1.0 / (1.0 + np.exp(-(-30.0 + signals @ [25.0, 0.7])))
    fit = fit_logistic(signals, shares, np.ones(len(signals)))
    assert fit == pytest.approx([-30.0, 25.0, 0.7], rel=0.01)


def test_what_a_border_takes_from_the_detectors_score_is_framing_and_is_given_back() -> None:
    samples = people()
    framed = [
        replace(one, kind="border x 1", face_share_percent=25.0, face_score=one.face_score - 0.04)
        for one in samples
        if one.kind == FRONTAL
    ]
    assert score_per_halving(samples) == 0.0
    assert score_per_halving(samples + framed) == pytest.approx(0.02)
    signals = signals_of(samples + framed)
    taken = [index for index, one in enumerate(samples) if one.kind == FRONTAL]
    np.testing.assert_allclose(signals[taken], signals[len(samples) :])


def test_leaving_out_the_worst_first_lowers_the_error_and_the_best_first_raises_it() -> None:
    missed = np.arange(1000) < 100
    falling, rising = curve(np.arange(1000.0), missed), curve(-np.arange(1000.0), missed)
    assert falling == sorted(falling, reverse=True)
    assert falling[0] == rising[0] == pytest.approx(0.1)
    assert falling[DISCARDED.index(0.1)] == 0.0
    assert rising == sorted(rising)


def test_weights_count_like_repetitions() -> None:
    rng = np.random.default_rng(2)
    quality, missed, times = rng.permutation(200) * 1.0, rng.random(200) < 0.2, rng.integers(0, 4, 200)
    weighed = curve(quality, missed, times.astype(np.float64))
    repeated = curve(np.repeat(quality, times), np.repeat(missed, times))
    assert weighed == pytest.approx(repeated, abs=0.02)


def test_a_score_that_predicts_errors_shows_it_and_one_that_does_not_shows_that() -> None:
    good, blind = (report(people(told=told), 0.4)["fnmr"]["all"] for told in (True, False))
    at = DISCARDED.index(0.2)
    assert good["oracle"][at] <= good["unified"][at] < 0.8 * good["unified"][0]
    assert blind["unified"][at] > 0.9 * blind["unified"][0]
    low, high = good["unified relative to none discarded, 95 %"]
    assert low[at] <= good["unified"][at] / good["unified"][0] <= high[at] < 1.0
