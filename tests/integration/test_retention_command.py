"""`leadstream retention`: it shows what is due and what keeps the rest, and a clerk on the broker deletes it."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from builders import list_issued
from bureaus import until
from structlog.testing import capture_logs

from connectors.access import AccessAdministration
from connectors.clock import now
from connectors.key_custody import FileMasterKey
from connectors.object_store import ObjectStore
from connectors.record_sender import RecordSender
from connectors.topic_admin import TopicAdmin
from infra import cli, wiring
from infra.cli import DONE
from infra.data_folder import DataFolder, initialise
from infra.settings import load_settings
from schemas.errors import DomainFault
from schemas.keys import probe_scope
from schemas.topics import TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.any_broker


@pytest.fixture
def data(bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("LEADSTREAM_KAFKA_BOOTSTRAP", bootstrap)
    TopicAdmin(bootstrap).apply(TOPICS.values())
    folder = DataFolder(tmp_path)
    initialise(folder)
    ObjectStore(folder.objects, FileMasterKey.load(folder.master_key))
    with capture_logs():  # The clerk works in this process, and says so on standard output.
        yield tmp_path


def asked(words: list[str], data: Path, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert cli.run(["retention", *words, "--json", "--data", str(data)]) == DONE
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def test_what_is_due_is_shown_and_then_deleted(
    data: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, probe, ahead = load_settings(data), uuid4(), [timedelta(0)]
    monkeypatch.setattr(wiring, "now", lambda: now() + ahead[0])
    monkeypatch.setitem(AccessAdministration.__init__.__kwdefaults__, "clock", lambda: now() + ahead[0])
    objects = wiring.object_store(settings)
    reference = objects.put(probe_scope(probe), "image", b"an image").reference
    RecordSender(wiring.kafka_config(settings)).send_all([list_issued("B-1", probe_id=probe)])

    def due(*words: str) -> set[str]:
        return {each["probe_id"] for each in asked([*words], data, capfd)["due"]}

    stop, clerk = threading.Event(), wiring.clerk(settings)
    working = threading.Thread(target=clerk.run, args=(stop,))
    working.start()
    try:
        until(lambda: clerk._retention_at > 0, "the clerk has looked by itself, and does not for an hour")
        assert str(probe) not in due("list")
        ahead[0] = timedelta(days=wiring.policy(settings).retention.probe_image_days)
        assert str(probe) in due("list")
        assert str(probe) in due("run", "--dry-run")
        assert objects.fetch(reference, scope=probe_scope(probe)) == b"an image"
        assert asked(["run"], data, capfd)["deleted"] > 0
    finally:
        stop.set()
        working.join()
    assert str(probe) not in due("list")
    with pytest.raises(DomainFault):
        objects.fetch(reference, scope=probe_scope(probe))
    assert asked(["run"], data, capfd) == {"deleted": 0}
