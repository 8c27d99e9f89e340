"""What every test may use: one broker for the whole session, the embedded one unless LEADSTREAM_TEST_BROKER=apache."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from infra.brokers import KINDS, Broker, Kind, make_broker

if TYPE_CHECKING:
    from collections.abc import Iterator


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
