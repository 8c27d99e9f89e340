"""Stopping and starting: a second start on the same data folder finds the same gallery and audit; workers hand over."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from bureaus import LIMIT_S, REQUEST, Bureau, new_bureau, until

from connectors.bookings import Photo
from infra import roles, wiring
from infra.local_system import LocalSystem
from schemas.errors import UsageError
from schemas.events import CandidateListIssued
from schemas.topics import GALLERY

if TYPE_CHECKING:
    from pathlib import Path

    from infra.brokers import Kind


def probe(bureau: Bureau, photo: bytes) -> CandidateListIssued:
    with bureau.investigator() as investigator:
        outcome = investigator.await_outcome(investigator.submit(photo, **REQUEST), LIMIT_S)
    assert isinstance(outcome, CandidateListIssued), outcome
    return outcome


def said_of_snapshots(bureau: Bureau) -> set[str]:
    """Return what a worker said of snapshots when it started, in the whole log."""
    lines = (bureau.folder.logs / "worker-1.log").read_text(encoding="utf-8").splitlines()
    events = {json.loads(line)["event"] for line in lines if line.startswith("{")}
    return events & {"snapshot read", "snapshot refused"}


# Starts a system three times: on the embedded broker, which keeps two cores busy by itself, that takes a minute.
@pytest.mark.kafka
def test_a_second_start_finds_the_same_gallery_and_audit(
    tmp_path: Path, broker_kind: Kind, photos: dict[str, bytes]
) -> None:
    """G2, G7: the same probe gets the same candidates from the same gallery, byte for byte."""
    bureau = new_bureau(tmp_path / "data")
    with LocalSystem(bureau.settings, broker=broker_kind) as system:
        bureau.found()
        with bureau.jail() as jail:
            published = [
                jail.publish_booking(booking_number=name, booked_at=wiring.now(), photos=[Photo(data=photos[name])])
                for name in ("A1", "B1", "C1", "D1")
            ]
            list(jail.await_outcomes(published, LIMIT_S))
        before = probe(bureau, photos["B2"])
        records = bureau.audited()
        with pytest.raises(UsageError, match="uses"):
            LocalSystem(bureau.settings, broker=broker_kind).start()
        assert set(system.children) == {roles.SINK, roles.CLERK, "worker-1"}
        pids = [child.pid for child in system.children.values()]
    assert not any(_runs(pid) for pid in pids)
    with LocalSystem(bureau.settings, broker=broker_kind):
        assert said_of_snapshots(bureau) == {"snapshot read"}
        after = probe(bureau, photos["B2"])
        assert after.candidates == before.candidates
        assert after.gallery_watermark == before.gallery_watermark
        assert after.model_digest == before.model_digest
        assert set(bureau.audited()) > set(records)
    for segment in (bureau.folder.worker("worker-1") / "snapshots" / GALLERY).glob("*.segment"):
        segment.write_bytes(segment.read_bytes()[:-1])
    with LocalSystem(bureau.settings, broker=broker_kind):
        assert "snapshot refused" in said_of_snapshots(bureau)
        assert probe(bureau, photos["B2"]).candidates == before.candidates


@pytest.mark.kafka
def test_two_workers_share_the_work_and_one_hands_over_cleanly(tmp_path: Path, photos: dict[str, bytes]) -> None:
    """G1: while a worker leaves, every probe gets exactly one effective outcome."""
    bureau = new_bureau(tmp_path / "data")
    with LocalSystem(bureau.settings, broker="apache", workers=2) as system, ExitStack() as stack:
        bureau.found()
        with bureau.jail() as jail:
            for name in ("A1", "B1"):
                published = jail.publish_booking(
                    booking_number=name, booked_at=wiring.now(), photos=[Photo(data=photos[name])]
                )
                jail.await_outcome(published, LIMIT_S)
        investigator = stack.enter_context(bureau.investigator())
        submitted = [investigator.submit(photos["A2"], **REQUEST) for _ in range(30)]
        until(lambda: decided_by(bureau, "worker-2"), "the worker that will leave has a part in the work")
        leaving = threading.Thread(target=lambda: system.children.pop("worker-2").stop(LIMIT_S))
        leaving.start()
        submitted += [investigator.submit(photos["B2"], **REQUEST) for _ in range(30)]
        outcomes = [investigator.await_outcome(each, LIMIT_S) for each in submitted]
        leaving.join()
        assert all(isinstance(outcome, CandidateListIssued) for outcome in outcomes)
        bureau.audited()
        sql = (
            "SELECT uniqExact(probe_id), countIf(outcome = 'ISSUED') FROM audit.searches "
            "WHERE code NOT IN ('REPLICA_BEHIND')"
        )
        assert bureau.audit(sql) == [(60, 60)]
        (decided,) = bureau.audit(
            "SELECT count() FROM audit.events WHERE event_type IN ('CandidateListIssued', 'ProbeRefused')"
        )
        assert decided == (60,)
        assert all(decided_by(bureau, name) for name in ("worker-1", "worker-2")), "both workers decided probes"


def decided_by(bureau: Bureau, worker: str) -> int:
    return (bureau.folder.logs / f"{worker}.log").read_text(encoding="utf-8").count('"event": "probe decided"')


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:  # noqa: PTH123
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
