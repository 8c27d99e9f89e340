"""What an operator decides: frozen, read once at the edge; from the environment, then from the data folder's file.

Secrets are not settings: keys live in files of their own in the data folder (`infra/data_folder.py`) or are named here
by path. `leadstream config show` prints everything here.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from schemas.errors import UsageError
from schemas.topics import GALLERY

PREFIX = "LEADSTREAM_"
DEFAULT_DATA = "leadstream-data"
SETTINGS_FILE = "leadstream.toml"


def default_assets() -> Path:
    """Return where fetched models, photos and jars are kept: under XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leadstream"


class Settings(BaseSettings):
    """Everything that can be set, with its default.

    An environment variable is the name in capitals behind LEADSTREAM_, e.g. LEADSTREAM_KAFKA_BOOTSTRAP.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    data: Annotated[Path, Field(description="Data folder of this machine.")] = Path(DEFAULT_DATA)
    kafka_bootstrap: Annotated[
        str | None,
        Field(description="Kafka servers, host:port, comma-separated; empty: the broker that `leadstream up` started."),
    ] = None
    kafka_port: Annotated[
        int | None,
        Field(description="Port of the broker that `leadstream up` starts; empty: a free one.", gt=0),
    ] = None
    metrics_port: Annotated[
        int | None,
        Field(
            description="Port on 127.0.0.1 of a role's /metrics, /healthz and /readyz; 0: a free one, written to "
            "run/<role>.json; empty: none. `leadstream up` takes a free one for each role.",
            ge=0,
            le=65535,
        ),
    ] = None
    object_store: Annotated[
        str | None,
        Field(description="fsspec address of the object store; empty: a folder in the data folder."),
    ] = None
    clickhouse: Annotated[
        str | None,
        Field(description="DSN of a ClickHouse server; empty: the ClickHouse engine in process, in the data folder."),
    ] = None
    master_key: Annotated[Path | None, Field(description="File of the master key; empty: in the data folder.")] = None
    administrator_key: Annotated[
        str | None,
        Field(description="Ed25519 public key of the first administrator, 64 hex digits; empty: as `init` made it."),
    ] = None
    policy: Annotated[Path | None, Field(description="Policy file; empty: the default policy.")] = None
    model_card: Annotated[
        Path | None,
        Field(description="Model card of a pack of your own, or the name of a shipped one; empty: the default."),
    ] = None
    gallery_topic: Annotated[
        str,
        Field(description="Topic of the gallery generation of that pack; `leadstream generation list` shows them."),
    ] = GALLERY
    next_model_card: Annotated[
        Path | None,
        Field(description="Model card of a pack to change to: its generation is kept beside the other."),
    ] = None
    assets: Annotated[Path, Field(description="Where fetched models, photos and jars are kept.")] = Field(
        default_factory=default_assets,
    )
    extraction_processes: Annotated[
        int, Field(description="Processes of a worker that extract templates: one a core.", gt=0)
    ] = 2
    extraction_limit_s: Annotated[
        float, Field(description="Processor time that one image may take, seconds; past it the image is refused.", gt=0)
    ] = 20.0
    search_threads: Annotated[int, Field(description="Threads that one search of the gallery uses.", gt=0)] = 2
    barrier_limit_s: Annotated[
        float,
        Field(description="How long a probe may wait at the read barrier, seconds.", gt=0),
    ] = 10.0
    dead_letter_limit: Annotated[
        int,
        Field(description="Dead letters of one stage since the start, past which the worker stops.", gt=0),
    ] = 100
    snapshot_every_s: Annotated[
        float, Field(description="How often a worker writes a snapshot of its gallery, seconds.", gt=0)
    ] = 900.0
    withdrawn_kept_s: Annotated[
        float,
        Field(description="How long withdrawn templates may stay in a worker's memory and snapshots, seconds.", gt=0),
    ] = 14_400.0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Field(description="Least severe log line that is written."),
    ] = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: command line, environment, file of the data folder, defaults."""
        del dotenv_settings, file_secret_settings  # Not sources of ours.
        data = init_settings().get("data") or os.environ.get(f"{PREFIX}DATA") or DEFAULT_DATA
        file = TomlConfigSettingsSource(settings_cls, toml_file=Path(str(data)) / SETTINGS_FILE)
        return init_settings, env_settings, file


def load_settings(data: Path | None = None) -> Settings:
    """Read the settings for a data folder.

    Raises:
        UsageError: a setting is unknown or of the wrong kind; the text names it.
    """
    given: dict[str, Any] = {} if data is None else {"data": data}
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise UsageError(f"Settings: {problems}. See `leadstream config show` for names and defaults.") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"Settings: {SETTINGS_FILE} is no TOML: {error}") from None


def described(model: type[BaseModel]) -> dict[str, str]:
    """Return setting -> what it is for."""
    return {name: field.description or "" for name, field in model.model_fields.items()}
