"""What end-to-end tests share: a running bureau: broker, sink and worker as processes, on real models and photos."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bureaus import new_bureau

from infra.local_system import LocalSystem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bureaus import Bureau

    from infra.assets import Assets
    from infra.brokers import Kind


@pytest.fixture(scope="session", autouse=True)
def patient_workers() -> Iterator[None]:
    """Let no worker refuse a probe because a busy machine kept its replica waiting for ten seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEADSTREAM_BARRIER_LIMIT_S", "30")
        yield


@pytest.fixture(scope="session")
def bureau(tmp_path_factory: pytest.TempPathFactory, broker_kind: Kind, assets: Assets) -> Iterator[Bureau]:
    """A running bureau that all tests of the session share: use booking numbers of your own."""
    assert assets.photos
    made = new_bureau(tmp_path_factory.mktemp("bureau") / "data")
    with LocalSystem(made.settings, broker=broker_kind, say=print):
        made.found()
        yield made
