"""Galleries and probes of persons who do not exist, with given statistics, for measurements.

The statistics are those of the default model card, or of a file in NumPy's .npz with `mean` (d,), `covariance` (d, d),
`mated_cosine_mean` and `mated_cosine_std`. A template is a Gaussian of that mean and covariance, normalised and rounded
as every template is. A probe has a mate at a drawn cosine; its other part is the direction of a stranger.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

from processors.candidates import EnrolledTemplate, GalleryChange
from processors.templates import to_template
from schemas.errors import UsageError
from schemas.keys import booking_key

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from processors.model_card import StatisticsCard

ORI = "CA0190000"
_CHUNK_ROWS = 1 << 16
_LOW_MATES = 0.05
"""Share of mates in the low tail, which is heavier than a Gaussian's: cosines evenly from 0.1 to 0.35."""
_LOW_COSINES = (0.1, 0.35)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Population:
    """Where templates lie, and how like each other two of one person are."""

    described: str
    mean: NDArray[np.float64]
    """(d,)."""
    root: NDArray[np.float64]
    """(d, d) a root of the covariance."""
    mated_mean: float
    mated_sd: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Probes:
    """Probes and who their mates are."""

    templates: NDArray[np.float32]
    """(n, d) float32."""
    mates: NDArray[np.int64]
    """(n,) row of each mate in the gallery."""
    cosines: NDArray[np.float64]
    """(n,) with the mate."""


def of_card(card: StatisticsCard, dimension: int | None) -> Population:
    """Return the population of a card: its mean, and the same spread in all directions.

    Of another dimension than the card's there is no mean template; a direction that favours no number stands for it.
    """
    own = len(card.mean_template)
    size = dimension or own
    mean = np.array(card.mean_template) if size == own else np.ones(size)
    shared = max(card.non_mated_mean, 0.0)
    return Population(
        described=f"model card, {card.measured_on[:60]}",
        mean=mean * np.sqrt(shared) / np.linalg.norm(mean),
        root=np.eye(size) * np.sqrt((1.0 - shared) / size),
        mated_mean=card.mated_mean,
        mated_sd=card.mated_sd,
    )


def of_file(path: Path, dimension: int | None) -> Population:
    """Read a population.

    Raises:
        UsageError: the file is none, or is of another dimension.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            mean, covariance = file["mean"].astype(np.float64), file["covariance"].astype(np.float64)
            mated = float(file["mated_cosine_mean"]), float(file["mated_cosine_std"])
        values, vectors = np.linalg.eigh(covariance)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, np.linalg.LinAlgError) as error:
        raise UsageError(f"{path} holds no statistics of templates: {error}.") from None
    if len(mean) != (dimension or len(mean)) or covariance.shape != (len(mean), len(mean)):
        raise UsageError(f"{path} is about templates of {len(mean)} numbers; leave --dimension out or give that.")
    return Population(
        described=path.name,
        mean=mean,
        root=vectors * np.sqrt(np.maximum(values, 0.0)),
        mated_mean=mated[0],
        mated_sd=mated[1],
    )


def templates(population: Population, count: int, seed: int) -> NDArray[np.float16]:
    """Return `(count, d)` float16 templates, a pure function of the arguments."""
    generator = np.random.Generator(np.random.PCG64(seed))
    made = np.empty((count, len(population.mean)), dtype=np.float16)
    root, mean = population.root.T.astype(np.float32), population.mean.astype(np.float32)
    for start in range(0, count, _CHUNK_ROWS):
        part = made[start : start + _CHUNK_ROWS]
        noise = generator.standard_normal(part.shape, dtype=np.float32)
        part[:] = to_template(noise @ root + mean)
    return made


def probes(population: Population, gallery: NDArray[np.float16], count: int, seed: int) -> Probes:
    """Return probes with mates in the gallery, some of them very unlike their mates."""
    generator = np.random.Generator(np.random.PCG64(seed))
    mates = generator.choice(len(gallery), count, replace=False)
    cosines = generator.normal(population.mated_mean, population.mated_sd, count)
    low = generator.random(count) < _LOW_MATES
    cosines[low] = generator.uniform(*_LOW_COSINES, int(low.sum()))
    cosines = np.clip(cosines, 0.0, 0.99)
    own = to_template(gallery[mates].astype(np.float32)).astype(np.float64)
    strange = templates(population, count, seed + 1).astype(np.float64)
    strange -= np.einsum("ij,ij->i", strange, own)[:, np.newaxis] * own
    strange /= np.linalg.norm(strange, axis=1, keepdims=True)
    mixed = cosines[:, np.newaxis] * own + np.sqrt(1.0 - cosines**2)[:, np.newaxis] * strange
    return Probes(templates=to_template(mixed), mates=mates, cosines=cosines)


def enrolment(row: int, template: NDArray[np.float32]) -> GalleryChange:
    """Return a booking with one capture of a person with a SID: what takes the most memory a template."""
    number = booking_number(row)
    one = EnrolledTemplate(
        person=f"sid:A{row:08d}",
        ori=ORI,
        booking_number=number,
        capture_id=UUID(int=row * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128),
        synthetic=True,
        template=template,
    )
    return GalleryChange(booking=booking_key(ORI, number), templates=(one,))


def booking_number(row: int) -> str:
    """Return the booking number of a row of the gallery."""
    return f"26-{row:07d}"
