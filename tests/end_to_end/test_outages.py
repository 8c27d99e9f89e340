"""Broker, object store or audit trail away for a while: the roles wait, say so now and then, go on, and lose nothing.

The short forms end an outage as soon as every role has noticed it; the long ones keep it up for two minutes and are in
`make test-long`, with full disks. ClickHouse as a server: `tests/integration/test_clickhouse_outages.py`.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from contextlib import contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
from bureaus import INVESTIGATOR, LIMIT_S, ORI, REQUEST, Bureau, new_bureau, paused, until
from confluent_kafka import Producer

from connectors.bookings import Photo
from connectors.probes import ProbeClient
from connectors.publishing import SignedPublisher
from connectors.signing_keys import SigningKey
from infra import roles, wiring
from infra.local_system import LocalSystem
from schemas.errors import TransientError
from schemas.events import BookingOutcome, CandidateListIssued, ProbeRefused
from schemas.keys import partition_of
from schemas.topics import BOOKING_EVENTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from connectors.bookings import PublishedBooking
    from connectors.probes import SubmittedProbe

pytestmark = pytest.mark.kafka
WORKER = "worker-1"
SAID_EVERY_S = 30.0
TWO_MINUTES_S = 120.0
AUDIT_LIMIT_S = 30
"""Of the policy that these tests run under, so that they need not wait a minute."""


@pytest.fixture
def founded(tmp_path: Path, photos: dict[str, bytes]) -> Bureau:
    assert photos
    return new_bureau(tmp_path / "data")


def said(bureau: Bureau, role: str, event: str) -> list[dict[str, Any]]:
    """Return the log lines of a role that say one thing."""
    lines = (bureau.folder.logs / f"{role}.log").read_text(encoding="utf-8").splitlines()
    parsed = [json.loads(line) for line in lines if line.startswith("{")]
    return [line for line in parsed if line["event"] == event]


def is_said_now_and_then(bureau: Bureau, role: str, event: str, outage_s: float) -> None:
    """Once a period and place, and not once a message or try."""
    lines = said(bureau, role, event)
    places = {(line.get("stage"), line.get("position")) for line in lines}
    assert 1 <= len(lines) <= (1 + outage_s / SAID_EVERY_S) * len(places), f"{role} said {event} {len(lines)} times"


def submit(bureau: Bureau, photo: bytes, count: int) -> list[SubmittedProbe]:
    with bureau.investigator() as investigator:
        return [investigator.submit(photo, **REQUEST) for _ in range(count)]


def publish(bureau: Bureau, photo: bytes, *numbers: str) -> list[PublishedBooking]:
    with bureau.jail() as jail:
        return [
            jail.publish_booking(booking_number=number, booked_at=wiring.now(), photos=[Photo(data=photo)])
            for number in numbers
        ]


def are_enrolled(bureau: Bureau, published: list[PublishedBooking]) -> None:
    with bureau.jail() as jail:
        for answer in jail.await_outcomes(published, LIMIT_S):
            assert answer.outcome is BookingOutcome.ENROLLED


def are_issued(bureau: Bureau, submitted: list[SubmittedProbe]) -> None:
    with bureau.investigator() as investigator:
        for each in submitted:
            assert isinstance(investigator.await_outcome(each, LIMIT_S), CandidateListIssued)


def refusal_of_one_probe(bureau: Bureau, photo: bytes) -> str | None:
    (probe,) = submit(bureau, photo, 1)
    with bureau.investigator() as investigator:
        outcome = investigator.await_outcome(probe, LIMIT_S)
    return str(outcome.code) if isinstance(outcome, ProbeRefused) else None


def all_run(system: LocalSystem) -> None:
    assert all(child.poll() is None for child in system.children.values())


def pass_time(system: LocalSystem, began_at: float, outage_s: float) -> None:
    """Wait until an outage has lasted, and see that nobody gives up meanwhile."""

    def has_lasted() -> bool:
        all_run(system)
        return time.monotonic() - began_at >= outage_s

    until(has_lasted, "the outage lasts", outage_s + LIMIT_S)


@pytest.mark.parametrize("outage_s", [0.0, pytest.param(TWO_MINUTES_S, marks=pytest.mark.long)])
def test_while_the_broker_is_away_everybody_waits_and_then_goes_on(
    founded: Bureau, photos: dict[str, bytes], outage_s: float
) -> None:
    """G1, G2: what was asked before, during and after is answered once."""
    with LocalSystem(founded.settings, broker="apache") as system:
        founded.found()
        are_enrolled(founded, publish(founded, photos["A1"], "A"))
        before = submit(founded, photos["A2"], 30)
        system.broker.kill()
        began_at = time.monotonic()
        until(lambda: said(founded, roles.SINK, "audit sink waits"), "the sink notices")
        until(lambda: said(founded, WORKER, "follower waits for Kafka"), "the worker notices")
        with pytest.raises(TransientError):
            impatient(founded, photos["A2"])
        pass_time(system, began_at, outage_s)
        system.broker.start()
        after = submit(founded, photos["A2"], 5)
        are_issued(founded, [*before, *after])
        are_enrolled(founded, publish(founded, photos["B1"], "B"))
        all_run(system)
        # The outage is over for everybody only now: the start of a broker takes a busy machine half a minute.
        lasted_s = time.monotonic() - began_at
        is_said_now_and_then(founded, roles.SINK, "audit sink waits", lasted_s)
        is_said_now_and_then(founded, WORKER, "follower waits for Kafka", lasted_s)
        founded.audited()
        issued = founded.audit("SELECT count(), countIf(outcome = 'ISSUED') FROM audit.searches")
        assert issued == [(len(before) + len(after), len(before) + len(after))]


def impatient(bureau: Bureau, photo: bytes) -> list[SubmittedProbe]:
    """Submit a probe that has a few seconds to reach Kafka; whoever sends it is told when it did not."""
    key = SigningKey.load(bureau.folder.user_key(INVESTIGATOR))
    with SignedPublisher(bureau.config, key, timeout_s=3) as publisher:
        return [
            ProbeClient(publisher, wiring.object_store(bureau.settings), INVESTIGATOR, ORI).submit(photo, **REQUEST)
        ]


@pytest.mark.parametrize("outage_s", [0.0, pytest.param(TWO_MINUTES_S, marks=pytest.mark.long)])
def test_while_the_object_store_is_away_bookings_and_probes_wait_in_their_place(
    founded: Bureau, photos: dict[str, bytes], outage_s: float
) -> None:
    """G12: an image that cannot be had for now is no refusal and no dead letter."""
    with LocalSystem(founded.settings, broker="apache") as system:
        founded.found()
        are_enrolled(founded, publish(founded, photos["A1"], "A"))
        with paused(system, WORKER):
            booked = publish(founded, photos["B1"], *(f"B-{number}" for number in range(4)))
            submitted = submit(founded, photos["A2"], 4)
            store, away = founded.folder.objects, founded.folder.root / "unmounted"
            store.rename(away)
        began_at = time.monotonic()
        until(lambda: len({line["stage"] for line in said(founded, WORKER, "waiting")}) == 2, "both stages wait")
        with pytest.raises(TransientError, match="object store"):
            publish(founded, photos["A1"], "C")
        with pytest.raises(TransientError, match="object store"):
            submit(founded, photos["A2"], 1)
        pass_time(system, began_at, outage_s)
        is_said_now_and_then(founded, WORKER, "waiting", time.monotonic() - began_at)
        away.rename(store)
        are_enrolled(founded, booked)
        are_issued(founded, submitted)
        # The answer is in Kafka an instant before the worker says so.
        until(lambda: len(said(founded, WORKER, "going on")) >= 2, "both stages say that they go on")
        founded.audited()
        assert founded.audit("SELECT count() FROM audit.dead_letters") == [(0,)]


def test_while_the_audit_trail_is_away_no_search_is_made_and_bookings_go_on(
    founded: Bureau, photos: dict[str, bytes], tmp_path: Path
) -> None:
    """What cannot be audited is not searched; when the sink is back, searches are too, and nothing is missing (G2)."""
    bureau = Bureau(founded.settings.model_copy(update={"policy": strict_about_the_audit(tmp_path)}))
    (bureau.settings.data / "leadstream.toml").write_text(f'policy = "{bureau.settings.policy}"\n', encoding="utf-8")
    with LocalSystem(bureau.settings, broker="apache") as system:
        bureau.found()
        are_enrolled(bureau, publish(bureau, photos["A1"], "A"))
        are_issued(bureau, submit(bureau, photos["A2"], 3))
        system.children[roles.SINK].kill()
        stopped = until(lambda: refusal_of_one_probe(bureau, photos["A2"]), "searches stop")
        assert stopped == "AUDIT_BEHIND"
        are_enrolled(bureau, publish(bureau, photos["B1"], "B"))
        system.start_role(roles.SINK, "sink")
        until(lambda: refusal_of_one_probe(bureau, photos["A2"]) is None, "searches are made again")
        all_run(system)
        bureau.audited()
        ((refused,),) = bureau.audit("SELECT countIf(code = 'AUDIT_BEHIND') FROM audit.searches")
        assert refused >= 1, "who was refused is in the trail as well"


def strict_about_the_audit(folder: Path) -> Path:
    shipped = files("infra").joinpath("policy", "default.toml").read_text(encoding="utf-8")
    asked = (
        "[audit]\n# Past this many seconds no search is made: what cannot be audited is not done.\nmaximum_lag_s = 60\n"
    )
    assert shipped.count(asked) == 1
    strict = shipped.replace(asked, f"[audit]\nmaximum_lag_s = {AUDIT_LIMIT_S}\n")
    policy = folder / "policy.toml"
    policy.write_text(strict, encoding="utf-8")
    return policy


@contextmanager
def small_disk(folder: Path, size_mb: int) -> Iterator[None]:
    """Put a folder on a file system of its own, in memory and small."""
    folder.mkdir(mode=0o700, parents=True)
    options = f"size={size_mb}m,mode=0700"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.fail("This test mounts a file system: run it as root, or under `unshare --map-root-user --mount`.")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Fill the disk of a folder to its last byte for a while."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        file.writelines(itertools.repeat(bytes(4096)))
    try:
        yield
    finally:
        ballast.unlink()


@pytest.fixture
def cramped(tmp_path: Path, photos: dict[str, bytes]) -> Iterator[Bureau]:
    """A bureau whose three stores are on small disks."""
    assert photos
    data = tmp_path / "data"
    with small_disk(data / "objects", 32), small_disk(data / "audit", 128), small_disk(data / "kafka", 256):
        yield new_bureau(data)


@pytest.mark.long
def test_on_a_full_disk_of_the_object_store_nothing_is_half_stored_and_a_dead_letter_waits(
    cramped: Bureau, photos: dict[str, bytes]
) -> None:
    """G12."""
    with LocalSystem(cramped.settings, broker="apache") as system:
        cramped.found()
        are_enrolled(cramped, publish(cramped, photos["A1"], "A"))
        with filled(cramped.folder.objects):
            with pytest.raises(TransientError, match="No space left"):
                publish(cramped, photos["B1"], "B")
            send_garbage(cramped)
            until(lambda: said(cramped, WORKER, "waiting"), "the worker notices")
        until(lambda: said(cramped, WORKER, "dead letter"), "the dead letter is kept")
        are_enrolled(cramped, publish(cramped, photos["B1"], "B"))
        are_issued(cramped, submit(cramped, photos["A2"], 3))
        all_run(system)
        cramped.audited()


@pytest.mark.long
def test_on_a_full_disk_of_the_audit_trail_the_sink_waits_and_then_has_everything(
    cramped: Bureau, photos: dict[str, bytes]
) -> None:
    """G2."""
    with LocalSystem(cramped.settings, broker="apache") as system:
        cramped.found()
        are_enrolled(cramped, publish(cramped, photos["A1"], "A"))
        cramped.audited()
        with filled(cramped.folder.audit):
            submitted = submit(cramped, photos["A2"], 20)
            until(lambda: said(cramped, roles.SINK, "audit sink waits"), "the sink notices")
            are_issued(cramped, submitted)
            all_run(system)
        are_issued(cramped, submit(cramped, photos["A2"], 3))
        cramped.audited()
        all_run(system)
        assert len(said(cramped, roles.SINK, "audit sink waits")) <= 2


@pytest.mark.long
def test_on_a_full_disk_of_the_broker_senders_are_told_and_after_its_restart_all_goes_on(
    cramped: Bureau, photos: dict[str, bytes]
) -> None:
    """G1, G2: Apache Kafka ends itself when it can no longer write."""
    with LocalSystem(cramped.settings, broker="apache") as system:
        cramped.found()
        are_enrolled(cramped, publish(cramped, photos["A1"], "A"))
        submitted: list[SubmittedProbe] = []
        with filled(cramped.folder.kafka):

            def is_full() -> bool:
                try:
                    submitted.extend(impatient(cramped, photos["A2"]))
                except TransientError:
                    return True
                return False

            until(is_full, "the broker takes no more")
            all_run(system)
        system.broker.restart()
        are_issued(cramped, [*submitted, *submit(cramped, photos["A2"], 5)])
        all_run(system)
        cramped.audited()


def send_garbage(bureau: Bureau) -> None:
    producer = Producer(bureau.config)
    key = f"{ORI}/GARBAGE".encode()
    producer.produce(BOOKING_EVENTS, b"nothing that any schema reads", key, partition=partition_of(BOOKING_EVENTS, key))
    assert producer.flush(LIMIT_S) == 0
