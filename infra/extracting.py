"""Extract the templates of many photos with the code that enrols and searches, on all cores.

In the processes in which a worker extracts, one a core. Templates stay in memory and are never written.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from connectors.extraction_processes import ExtractionProcesses
from connectors.image_decoder import DecodeLimits
from infra import assets
from processors.evaluation import Templates
from processors.quality_rules import Use, judge_by_policy
from processors.refusals import Refusal
from schemas.errors import DomainFault, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from infra.settings import Settings
    from processors.extraction import ExtractedFace
    from processors.model_card import DetectorCard, ModelCard, RecogniserCard
    from processors.policy import Policy

UNREADABLE = "UNREADABLE"
"""A file that the disk does not give; beside the codes of `processors/refusals.py`."""
_LIMITS = DecodeLimits()
_THREADS_A_PROCESS = 2
"""While one photo is extracted, the next one is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A model card and the folder of its files, under the name by which it was asked for."""

    name: str
    card: ModelCard
    pack_dir: Path


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Extracted:
    """What a recipe made of the photos, a row each."""

    templates: Templates = field(repr=False)
    failures: Mapping[int, str]
    """Row -> refusal code, or UNREADABLE."""
    refused: Mapping[Use, Mapping[int, str]]
    """Use -> row -> refusal code: photos with a template that the policy finds too poor for that use."""
    digests: Sequence[bytes]
    """SHA-256 of each photo; empty where it could not be read."""


class _Found(NamedTuple):
    digest: bytes
    face: ExtractedFace | str
    """Or the code of what is wrong with the photo."""


def find_recipe(wanted: str | None, settings: Settings) -> Recipe:
    """Return the recipe of that name, or of that card; of the worker's own card if none is wanted.

    Raises:
        UsageError: there is no such card.
        ContractError: it is no valid card.
    """
    if wanted is None and settings.model_card is not None:
        wanted = str(settings.model_card)
    shipped = assets.recipe_names()
    name = wanted or shipped[0]
    path = assets.DEFAULT_CARD.with_name(f"{name}.toml") if name in shipped else Path(name)
    if not path.is_file():
        known = ", ".join(shipped)
        raise UsageError(f"There is no recipe {name!r}: name one of {known}, or the file of a model card.")
    card = assets.load_card(path)
    fetched = {part.sha256 for each in shipped for part in _models_of(assets.recipe_card(each))}
    of_fetched = {part.sha256 for part in _models_of(card)} <= fetched
    if not of_fetched or all((path.parent / part.file).is_file() for part in _models_of(card)):
        return Recipe(name=name, card=card, pack_dir=path.parent)
    # A card beside no models of its own is another way to use those that are fetched.
    pack = assets.fetch(settings.assets, lambda _: None, samples=False).pack_dir
    return Recipe(name=name, card=card, pack_dir=pack)


def _models_of(card: ModelCard) -> tuple[DetectorCard, RecogniserCard]:
    return card.detector, card.recogniser


def extract_photos(
    recipe: Recipe,
    paths: Sequence[Path],
    policy: Policy,
    *,
    processes: int,
    limit_s: float,
    progress: Callable[[int], None],
) -> Extracted:
    """Extract every photo and see what the policy would make of it; `progress` is told how many are done.

    Raises:
        IntegrityError, ContractError: the pack is not the card's.
    """
    found: list[_Found] = []
    processes = min(processes, len(paths))
    pack = ExtractionProcesses(recipe.card, recipe.pack_dir, processes=processes, limit_s=limit_s)
    with closing(pack) as faces, ThreadPoolExecutor(_THREADS_A_PROCESS * processes) as threads:
        waiting = [threads.submit(_extract, faces, path) for path in paths]
        try:
            for one in waiting:
                found.append(one.result())
                progress(len(found))
        finally:
            threads.shutdown(cancel_futures=True)
    return _joined(found, recipe.card.recogniser.dimension, policy)


def under_policy(extracted: Extracted) -> Extracted:
    """Return what is left when the policy's refusals count as failures, each for its use."""
    templates, refused = extracted.templates, extracted.refused
    usable, enrollable = templates.usable.copy(), templates.enrollable.copy()
    usable[list(refused[Use.PROBE])] = False
    enrollable[list(refused[Use.ENROLMENT])] = False
    return replace(
        extracted,
        templates=replace(templates, usable=usable, enrollable=enrollable),
        failures={**extracted.failures, **refused[Use.ENROLMENT]},
    )


def _joined(found: Sequence[_Found], dimension: int, policy: Policy) -> Extracted:
    values, qualities = np.zeros((len(found), dimension), dtype=np.float32), np.full(len(found), np.nan)
    refused: dict[Use, dict[int, str]] = {use: {} for use in Use}
    failures = {}
    for row, (_, face) in enumerate(found):
        if isinstance(face, str):
            failures[row] = face
            continue
        values[row] = face.template
        qualities[row] = face.quality
        for rules in (policy.enrolment_quality, policy.probe_quality):
            judged = judge_by_policy(face, rules, policy.version)
            if isinstance(judged, Refusal):
                refused[rules.use][row] = judged.code
    usable = np.array([not isinstance(face, str) for _, face in found])
    return Extracted(
        templates=Templates(values=values, usable=usable, enrollable=usable, qualities=qualities),
        failures=failures,
        refused=refused,
        digests=[one.digest for one in found],
    )


def _extract(faces: ExtractionProcesses, path: Path) -> _Found:
    try:
        with path.open("rb") as file:
            photo = file.read(_LIMITS.max_bytes + 1)
    except OSError:
        return _Found(b"", UNREADABLE)
    digest = hashlib.sha256(photo).digest()
    try:
        extraction = faces.extract(photo)
    except DomainFault as fault:  # It ended its process, or did what nobody foresaw: no template, as in production.
        return _Found(digest, fault.code)
    return _Found(digest, str(extraction.code) if isinstance(extraction, Refusal) else extraction)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))
