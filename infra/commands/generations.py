"""`generation`: change to another model pack: build its gallery beside the running one, switch, switch back, remove."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from connectors.topic_admin import TopicAdmin
from infra import generations, wiring
from infra.commands.administration import Actor, acting
from infra.commands.common import Data, Json, err, out, print_json, say, table
from infra.settings import load_settings
from processors.access import ROOT_ADMINISTRATOR
from schemas.errors import DomainFault
from schemas.topics import spec_of
from streams.rebuild import Tally

generation = typer.Typer(help="Gallery generations: one model pack, one gallery.", no_args_is_help=True)
DONE, REFUSED = 0, 1

Which = Annotated[str, typer.Argument(help="Model digest, or its beginning; `generation list` shows them.")]


@generation.command("list")
def list_generations(data: Data = None, as_json: Json = False) -> None:
    """Show the generations of the model cards that are set: which is active, and what each lacks."""
    seen = generations.look(load_settings(data))
    if as_json:
        print_json([each.to_json() for each in seen])
        return
    rows = [
        (each.model_digest[:16], each.state, each.bookings, each.missing, "yes" if each.audited else "no", each.topic)
        for each in seen
    ]
    out.print(table("Gallery generations", ("model", "state", "bookings", "missing", "audited", "topic"), rows))


@generation.command("build")
def build(data: Data = None, as_json: Json = False) -> int:
    """Extract every enrolled booking anew for `next_model_card`; stop it and start it again as you like."""
    settings = load_settings(data)
    with (
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=err,
        ) as bar,
        generations.rebuilding(settings) as rebuild,
    ):
        total = Tally()
        while missing := rebuild.missing():
            task = bar.add_task("bookings", total=len(missing), rate="")

            def show(tally: Tally, task: int = int(task)) -> None:
                speed = bar.tasks[task].speed or 0.0
                bar.update(bar.tasks[task].id, completed=tally.done, rate=f"{speed:.1f}/s")

            total.add(rebuild.run(missing, show))
    if as_json:
        print_json(asdict(total))
        return DONE
    rows = [(total.enrolled, total.not_enrolled, total.withdrawn)]
    out.print(table("Built", ("enrolled", "no usable photo", "withdrawn"), rows))
    say("Complete. Next: leadstream generation activate DIGEST")
    return DONE


@generation.command("activate")
def activate(which: Which, data: Data = None, actor: Actor = ROOT_ADMINISTRATOR) -> None:
    """Search this generation from now on; refused while it lacks anything or is not audited."""
    settings = load_settings(data)
    target = generations.find(settings, which)
    former = wiring.active_generation(settings, wiring.directory_as_published(settings))
    generations.require_complete(settings, target)
    with acting(data, actor) as (acts, _):
        acts.activate_generation(model_digest=target.model_digest, gallery_topic=target.topic)
        try:
            generations.require_nothing_missed(settings, former, target)
        except DomainFault:
            acts.activate_generation(model_digest=former.model_digest, gallery_topic=former.topic)
            raise
    say(f"Generation {target.model_digest[:16]} is searched from now on.")


@generation.command("remove")
def remove(which: Which, data: Data = None, actor: Actor = ROOT_ADMINISTRATOR) -> None:
    """Erase the templates of a generation that is not active; it cannot be undone."""
    settings = load_settings(data)
    target = generations.find(settings, which)
    with acting(data, actor) as (acts, _):
        acts.remove_generation(model_digest=target.model_digest, gallery_topic=target.topic)
    # What is not audited yet must be, before it is gone (G2).
    generations.require_audited(settings, target)
    TopicAdmin(str(wiring.kafka_config(settings)["bootstrap.servers"])).erase(spec_of(target.topic))
    say(f"The templates of generation {target.model_digest[:16]} are erased from {target.topic}.")
    say("Run this once more in a minute, for what a worker was just writing.")
    say("Then take its model card out of the settings and restart the workers.")
