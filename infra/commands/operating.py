"""`topics`, `config`, `assets`: what an operator looks at before and between runs."""

from __future__ import annotations

from dataclasses import asdict

import typer

from connectors.topic_admin import TopicAdmin, TopicChange
from infra import assets as fetched
from infra import wiring
from infra.commands.common import Data, Json, out, print_json, say, table
from infra.settings import Settings, described, load_settings

topics = typer.Typer(help="The topics of schemas/topics.toml and those of the broker.", no_args_is_help=True)
config = typer.Typer(help="Settings.", no_args_is_help=True)
assets = typer.Typer(help="Models and sample photos from pinned packages.", no_args_is_help=True)
DIFFERENT = 1


@topics.command("apply")
def apply_topics(data: Data = None, as_json: Json = False) -> None:
    """Create what is missing and correct settings; a partition count is never changed."""
    settings = load_settings(data)
    changes = TopicAdmin(_bootstrap(settings)).apply(wiring.topic_specs(settings))
    _show_changes(changes, as_json=as_json, done="applied")


@topics.command("diff")
def diff_topics(data: Data = None, as_json: Json = False) -> int:
    """Show how the broker's topics differ; exit code 1 when they do."""
    settings = load_settings(data)
    changes = TopicAdmin(_bootstrap(settings)).diff(wiring.topic_specs(settings))
    _show_changes(changes, as_json=as_json, done="needed")
    return DIFFERENT if changes else 0


@config.command("show")
def show_config(data: Data = None, as_json: Json = False) -> None:
    """Show every setting in force; secrets are no settings, so none is shown."""
    settings = load_settings(data)
    words = described(Settings)
    values = {name: _shown(name, value) for name, value in settings.model_dump(mode="json").items()}
    if as_json:
        print_json(values)
        return
    rows = [
        (name, value, "set" if name in settings.model_fields_set else "default", words[name])
        for name, value in values.items()
    ]
    out.print(table("Settings", ("name", "value", "from", "what for"), rows))


@assets.command("fetch")
def fetch_assets(data: Data = None) -> None:
    """Fetch and check the default model pack and the sample photos; what is there and right is not fetched again."""
    fetched.fetch(load_settings(data).assets, say)


@assets.command("verify")
def verify_assets(data: Data = None, as_json: Json = False) -> int:
    """Compare every fetched file with its pinned SHA-256; exit code 1 when one is missing or changed."""
    checks = fetched.verify(load_settings(data).assets)
    if as_json:
        print_json([{"path": str(check.path), "state": check.state} for check in checks])
    else:
        out.print(table("Assets", ("file", "state"), [(check.path, check.state) for check in checks]))
    return 0 if all(check.state is fetched.AssetState.OK for check in checks) else DIFFERENT


def _show_changes(changes: list[TopicChange], *, as_json: bool, done: str) -> None:
    if as_json:
        print_json([{**asdict(change), "line": str(change)} for change in changes])
    elif changes:
        out.print(table(f"Changes {done}", ("change",), [(str(change),) for change in changes]))
    else:
        say("The broker's topics are as schemas/topics.toml describes them.")


def _bootstrap(settings: Settings) -> str:
    return str(wiring.kafka_config(settings)["bootstrap.servers"])


def _shown(name: str, value: object) -> object:
    # A DSN may carry a password.
    return "(set, not shown)" if name == "clickhouse" and value else value
