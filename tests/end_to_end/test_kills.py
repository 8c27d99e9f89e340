"""kill -9 of a worker, of one of two, of a sink, of the broker: nothing is lost, nothing decided twice (G1, G2, G5)."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest
from bureaus import INVESTIGATOR, LIMIT_S, ORI, REQUEST, Bureau, new_bureau, paused, until
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from connectors.bookings import Photo
from connectors.kafka_log import KafkaLog
from infra import roles, wiring
from infra.local_system import LocalSystem
from schemas.codec import decode
from schemas.events import CandidateListIssued, ProbeRefused
from schemas.topics import PROBE_OUTCOMES, PROBE_REQUESTS, TOPICS
from streams.worker import GROUP

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from connectors.probes import SubmittedProbe

pytestmark = pytest.mark.kafka
WORKER = "worker-1"
Outcome = CandidateListIssued | ProbeRefused


@pytest.fixture
def founded(tmp_path: Path, photos: dict[str, bytes]) -> Bureau:
    assert photos
    return new_bureau(tmp_path / "data")


def book(bureau: Bureau, *names: str, photos: dict[str, bytes]) -> None:
    with bureau.jail() as jail:
        published = [
            jail.publish_booking(booking_number=name, booked_at=wiring.now(), photos=[Photo(data=photos[name[:2]])])
            for name in names
        ]
        list(jail.await_outcomes(published, LIMIT_S))


def outcomes(bureau: Bureau) -> dict[UUID, list[Outcome]]:
    """Return every outcome in the topic, in order, by probe."""
    log = KafkaLog(bureau.config)
    found: dict[UUID, list[Outcome]] = defaultdict(list)
    for (topic, partition), end in log.end_offsets([PROBE_OUTCOMES]).items():
        for record in log.read(topic, partition, 0, end):
            outcome = decode(record.value)
            assert isinstance(outcome, (CandidateListIssued, ProbeRefused))
            found[outcome.probe_id].append(outcome)
    return found


def committed(bureau: Bureau) -> dict[int, int]:
    """Return request partition -> the offset that the workers committed."""
    admin = AdminClient(bureau.config)
    asked = [TopicPartition(PROBE_REQUESTS, number) for number in range(TOPICS[PROBE_REQUESTS].partitions)]
    (answer,) = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(GROUP, asked)]).values()
    return {at.partition: max(0, at.offset) for at in answer.result().topic_partitions}


def submit(bureau: Bureau, photo: bytes, count: int) -> list[SubmittedProbe]:
    with bureau.investigator() as investigator:
        return [investigator.submit(photo, **REQUEST) for _ in range(count)]


def kill(system: LocalSystem, name: str) -> None:
    system.children[name].kill()


def start_again(system: LocalSystem, name: str) -> None:
    system.start_role(name, "worker", "--name", name)
    system.wait_until_ready(name)


def effects(decided: list[Outcome]) -> set[object]:
    """Return what distinct effects the outcomes of one probe had."""
    return {
        (outcome.code if isinstance(outcome, ProbeRefused) else outcome.candidates, type(outcome))
        for outcome in decided
    }


def test_after_a_kill_amid_the_work_every_probe_has_one_effective_outcome(
    founded: Bureau, photos: dict[str, bytes]
) -> None:
    """G1: at least 10 done, at least 10 waiting, at least one outcome produced whose request was not committed."""
    with LocalSystem(founded.settings, broker="apache", say=print) as system:
        founded.found()
        book(founded, "A1", "B1", photos=photos)
        submitted = []
        for _ in range(10):
            with paused(system, WORKER):
                submitted += submit(founded, photos["A2"], 150)
            enough = len(submitted) - 140
            until(lambda enough=enough: len(outcomes(founded)) >= enough, "some probes are decided")
            kill(system, WORKER)
            done = outcomes(founded)
            at = committed(founded)
            uncommitted = [
                each.probe_id
                for each in submitted
                if each.probe_id in done and each.position.offset >= at[each.position.partition]
            ]
            seen = len(done) >= 10 and len(submitted) - len(done) >= 10 and uncommitted
            start_again(system, WORKER)
            every = len(submitted)
            until(lambda every=every: len(outcomes(founded)) == every, "every probe is decided")
            if seen:
                break
        else:
            pytest.fail("in ten kills none came between an outcome and its commit")
        found = outcomes(founded)
        assert set(found) == {each.probe_id for each in submitted}
        for probe_id, decided in found.items():
            assert len(effects(decided)) == 1, f"{probe_id} was decided twice with different effects"
        # What the worker before had decided was read back, so it was not decided again.
        assert all(len(found[probe_id]) == 1 for probe_id in uncommitted)
        founded.audited()
        assert founded.audit("SELECT count(), countIf(outcome = 'ISSUED') FROM audit.searches") == [
            (len(submitted), len(submitted))
        ]


def test_orders_hold_whatever_kills_come_between(founded: Bureau, photos: dict[str, bytes]) -> None:
    """G5: bookings and orders interleaved with kills; no sealed record comes back."""
    names = [f"A1-{number}" for number in range(12)]
    with LocalSystem(founded.settings, broker="apache") as system:
        founded.found()
        book(founded, "B1", photos=photos)
        for round_ in range(3):
            part = names[4 * round_ : 4 * round_ + 4]
            with founded.jail() as jail:
                published = [
                    jail.publish_booking(booking_number=name, booked_at=wiring.now(), photos=[Photo(data=photos["A1"])])
                    for name in part
                ]
                published += [
                    jail.publish_order(
                        booking_number=name,
                        order="SEAL",
                        statute="CA PC 851.91",
                        court="Superior Court",
                        order_number=name,
                        ordered_at=wiring.now(),
                    )
                    for name in part[:2]
                ]
                next(jail.await_outcomes(published[: round_ + 1], LIMIT_S))
                kill(system, WORKER)
                start_again(system, WORKER)
                list(jail.await_outcomes(published, LIMIT_S))
        with founded.investigator() as investigator:
            outcome = investigator.await_outcome(
                investigator.submit(photos["A2"], **{**REQUEST, "requested_candidates": 50}), LIMIT_S
            )
        assert isinstance(outcome, CandidateListIssued)
        listed = {each.person for each in outcome.candidates}
        sealed = {f"booking:{ORI}/{name}" for round_ in range(3) for name in names[4 * round_ : 4 * round_ + 2]}
        assert not listed & sealed
        assert listed >= {f"booking:{ORI}/{name}" for name in names} - sealed
        founded.audited()


def test_when_one_of_two_workers_is_killed_the_other_takes_over_within_the_session_timeout(
    founded: Bureau, photos: dict[str, bytes]
) -> None:
    with LocalSystem(founded.settings, broker="apache", workers=2) as system:
        founded.found()
        book(founded, "A1", photos=photos)
        submit(founded, photos["A2"], 20)
        kill(system, "worker-2")
        killed_at = time.monotonic()
        submitted = submit(founded, photos["A2"], 20)
        with founded.investigator() as investigator:
            for each in submitted:
                investigator.await_outcome(each, LIMIT_S)
        # The session timeout is 10 s; the rest is joining, reading back and deciding on a busy machine.
        assert time.monotonic() - killed_at < LIMIT_S
        until(lambda: len(outcomes(founded)) == 40, "every probe is decided")
        assert all(len(effects(decided)) == 1 for decided in outcomes(founded).values())
        del system.children["worker-2"]


def test_a_second_sink_is_refused_while_the_first_goes_on(founded: Bureau, photos: dict[str, bytes]) -> None:
    with LocalSystem(founded.settings, broker="apache") as system:
        founded.found()
        system.start_role("second", "sink")
        second = system.children.pop("second")
        assert until(lambda: second.poll() is not None, "the second sink ends")
        assert second.poll() == 2
        said = (founded.folder.logs / "second.log").read_text()
        assert "another sink" in said.lower()
        assert system.children[roles.SINK].poll() is None
        book(founded, "A1", photos=photos)
        founded.audited()


def test_a_sink_that_is_killed_again_and_again_loses_and_doubles_nothing(
    founded: Bureau, photos: dict[str, bytes]
) -> None:
    """G2, with the short count of `make test-kafka`; the long one is in `make test-long`."""
    kill_the_sink_under_load(founded, photos, kills=5)


@pytest.mark.long
def test_a_sink_that_is_killed_fifty_times_loses_and_doubles_nothing(founded: Bureau, photos: dict[str, bytes]) -> None:
    """G2."""
    kill_the_sink_under_load(founded, photos, kills=50)


def kill_the_sink_under_load(bureau: Bureau, photos: dict[str, bytes], kills: int) -> None:
    with LocalSystem(bureau.settings, broker="apache") as system:
        bureau.found()
        book(bureau, "A1", photos=photos)
        for _ in range(kills):
            submit(bureau, photos["A2"], 5)
            kill(system, roles.SINK)
            system.start_role(roles.SINK, "sink")
            system.wait_until_ready(roles.SINK)
        until(lambda: len(outcomes(bureau)) == 5 * kills, "every probe is decided")
        bureau.audited()
        assert bureau.audit("SELECT uniqExact(probe_id), count() FROM audit.searches") == [(5 * kills, 5 * kills)]


def test_the_broker_may_be_killed_and_come_back(founded: Bureau, photos: dict[str, bytes]) -> None:
    with LocalSystem(founded.settings, broker="apache") as system:
        founded.found()
        book(founded, "A1", photos=photos)
        before = submit(founded, photos["A2"], 20)
        system.broker.kill()
        system.broker.restart()
        after = submit(founded, photos["A2"], 5)
        with founded.investigator() as investigator:
            for each in (*before, *after):
                assert isinstance(investigator.await_outcome(each, LIMIT_S), CandidateListIssued)
        assert all(child.poll() is None for child in system.children.values())
        assert all(len(effects(decided)) == 1 for decided in outcomes(founded).values())
        founded.audited()
        assert founded.audit("SELECT count() FROM audit.searches WHERE user_id = {u:String}", u=INVESTIGATOR) == [(25,)]
