"""What every test may use.

One broker for the whole session, the embedded one unless LEADSTREAM_TEST_BROKER=apache, and the pinned assets, fetched
once into the cache that every run of the tests uses.

Property tests judge neither how quick the machine is nor, by default, examples that nobody has seen: what they draw is
the same in every run, so that a run tells of what was changed. `make test-long` draws new ones.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from infra.assets import Assets, fetch
from infra.brokers import KINDS, Broker, Kind, make_broker
from infra.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Without these, Hypothesis fails an example that takes more than 200 ms, and a test whose examples are slow to draw.
settings.register_profile("new examples", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same examples", settings.get_profile("new examples"), derandomize=True)
settings.load_profile("same examples")


@pytest.fixture(scope="session")
def broker_kind() -> Kind:
    """The broker that this session tests on."""
    wanted = os.environ.get("LEADSTREAM_TEST_BROKER", "embedded")
    for kind in KINDS:
        if kind == wanted:
            return kind
    raise pytest.UsageError(f"LEADSTREAM_TEST_BROKER is {wanted!r}: use one of {', '.join(KINDS)}")


@pytest.fixture(scope="session")
def broker(broker_kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A running broker that all tests share: use topics and groups of your own, and leave it running."""
    with make_broker(broker_kind, tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="session")
def bootstrap(broker: Broker) -> str:
    """`host:port` of the shared broker."""
    return broker.bootstrap


@pytest.fixture(scope="session")
def asset_cache() -> Path:
    """The folder of fetched models and photos."""
    return load_settings().assets


@pytest.fixture(scope="session")
def assets(asset_cache: Path) -> Assets:
    """The default model pack and the sample photos."""
    return fetch(asset_cache, print)


@pytest.fixture(scope="session")
def photos(assets: Assets) -> dict[str, bytes]:
    """The sample photos by neutral name: "A1" is subject A's first."""
    return {f"{photo.subject}{photo.number}": photo.path.read_bytes() for photo in assets.photos}
