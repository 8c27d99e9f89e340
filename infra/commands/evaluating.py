"""`evaluate`: how accurate the models are on a labelled set of photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import MofNCompleteColumn, ProgressColumn, TimeRemainingColumn
from rich.text import Text

from infra import wiring
from infra.commands.common import Data, Json, out, print_json, progress_bars, say, table
from infra.evaluation import Evaluation
from infra.evaluation_tables import listings
from infra.extracting import cores, find_recipe
from infra.labelled_set import read_labelled_set
from infra.settings import load_settings
from processors.scoring import Fusion
from schemas.events import Consolidation

if TYPE_CHECKING:
    from rich.progress import Task

_CONSOLIDATIONS = {Consolidation.BEST_CAPTURE: Fusion.BEST, Consolidation.FUSED_CAPTURES: Fusion.FUSED}


def evaluate(
    folder: Annotated[Path, typer.Argument(help="Labelled set: one folder a person, photos in it.")],
    enrol: Annotated[int, typer.Option(help="Photos that are enrolled of a person.", min=1)] = 1,
    draws: Annotated[int, typer.Option(help="How often persons and photos are drawn by lot.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Of the lots; the same seed gives the same trials.", min=0)] = 0,
    pattern: Annotated[
        str | None,
        typer.Option("--glob", help="Which files of a person's folder, e.g. 'frontal/*.jpg'; default: all photos."),
    ] = None,
    groups: Annotated[
        Path | None, typer.Option(help="CSV of person,group...; default: groups.csv in the folder, if there.")
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="Name of a shipped model card, or the file of one; the first is compared with the others."),
    ] = None,
    fusion: Annotated[
        list[Fusion] | None,
        typer.Option(help="How several photos of a person become one score; default: as the policy says."),
    ] = None,
    apply_policy: Annotated[
        bool,
        typer.Option("--apply-policy", help="Refuse photos that the policy finds too poor, as in production."),
    ] = False,
    resamples: Annotated[int, typer.Option(help="Resamplings of persons behind an interval.", min=100)] = 1000,
    report: Annotated[Path | None, typer.Option(help="Folder for report.html and the plots.")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Measure accuracy on a labelled set, with the code that enrols and searches (docs/evaluation.md)."""
    if report is not None:
        # Drawing needs a large library that nothing else does. What is wrong with the folder is said before the work.
        from infra.evaluation_report import make_folder, write_report  # noqa: PLC0415

        make_folder(report)
    settings = load_settings(data)
    labelled = read_labelled_set(folder, pattern=pattern, groups=groups)
    for warning in labelled.warnings:
        say(warning)
    policy = wiring.policy(settings)
    recipes = [find_recipe(wanted, settings) for wanted in recipe or (None,)]
    with progress_bars(MofNCompleteColumn(), _Rate(), TimeRemainingColumn()) as progress:
        outcome = Evaluation(
            labelled=labelled,
            recipes=recipes,
            enrol=enrol,
            draws=draws,
            seed=seed,
            fusions=fusion or [_CONSOLIDATIONS[policy.probes.consolidation]],
            replicates=resamples,
            processes=cores(),
            limit_s=settings.extraction_limit_s,
            policy=policy,
            policy_applies=apply_policy,
        ).run(progress)
    for warning in outcome.report["warnings"][len(labelled.warnings) :]:
        say(warning)
    for part in outcome.report["recipes"]:
        took = part["seconds"]
        say(f"{part['recipe']}: extracted in {took['extraction']} s, measured in {took['measuring']} s")
    if report is not None:
        say(f"report: {write_report(outcome, report)}")
    if as_json:
        print_json(outcome.report)
    else:
        for listing in listings(outcome.report):
            out.print(table(listing.title, listing.columns, listing.rows))


class _Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s")
