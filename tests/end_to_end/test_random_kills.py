"""A hundred kills at random instants, of workers, sink and broker, under a mixed load: nothing lost, nothing twice.

In `make test-long` only. LEADSTREAM_KILLS and LEADSTREAM_SEED vary or repeat a run.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections import Counter
from functools import partial
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Self

import pytest
from bureaus import LIMIT_S, ORI, REQUEST, Bureau, new_bureau, until
from test_kills import kill, outcomes, start_again

from connectors.bookings import Photo
from connectors.kafka_log import KafkaLog
from infra import roles, wiring
from infra.local_system import LocalSystem
from schemas.codec import decode
from schemas.errors import TransientError
from schemas.events import CandidateListIssued, ProbeSubmitted
from schemas.topics import PROBE_REQUESTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from uuid import UUID

    from connectors.probes import ProbeClient

pytestmark = [pytest.mark.kafka, pytest.mark.long]
KILLS = int(os.environ.get("LEADSTREAM_KILLS", "100"))
SEED = int(os.environ.get("LEADSTREAM_SEED", "20261124"))
WORKERS = ("worker-1", "worker-2")
VICTIMS = ((WORKERS[0],), (WORKERS[1],), WORKERS, (roles.SINK,), (roles.SINK, WORKERS[0]))
"""Who is killed at once."""
BROKER_EVERY = 10
LONGEST_PAUSE_S = 2.0
PROBES_A_BOOKING = 2
FACES = ("A1", "B1", "C1", "D1", "E1")

log = logging.getLogger(__name__)


class Load:
    """Bookings, seals and probes, one after the other, until told to stop; what was not acknowledged is sent again."""

    def __init__(self, bureau: Bureau, photos: dict[str, bytes]) -> None:
        self._bureau = bureau
        self._photos = photos
        self._stop = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self.booked: list[str] = []
        self.sealed: list[str] = []
        self.failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(LIMIT_S)

    def _run(self) -> None:
        try:
            with self._bureau.jail() as jail, self._bureau.investigator() as investigator:
                while not self._stop.is_set():
                    number = f"R-{len(self.booked)}"
                    photo = Photo(data=self._photos[FACES[len(self.booked) % len(FACES)]])
                    # The same facts each time, so that what is sent again is the same event.
                    facts: dict[str, Any] = {
                        "booking_number": number,
                        "booked_at": wiring.now(),
                        "photos": [photo],
                    }
                    self._insist(partial(jail.publish_booking, **facts))
                    self.booked.append(number)
                    if len(self.booked) % 3 == 0:
                        self._insist(partial(jail.publish_order, booking_number=number, **seal(number)))
                        self.sealed.append(number)
                    for _ in range(PROBES_A_BOOKING):
                        self._insist(partial(investigator.submit, self._photos["A2"], **REQUEST))
                    # No faster than the workers: a backlog of hours would prove no more.
                    self._insist(partial(self._ask, investigator))
        except BaseException as error:  # noqa: BLE001 - told by the test
            self.failure = error

    def _ask(self, investigator: ProbeClient) -> None:
        investigator.await_outcome(investigator.submit(self._photos["A2"], **REQUEST), LIMIT_S)

    def _insist(self, send: Callable[[], object]) -> None:
        while not self._stop.is_set():
            try:
                send()
            except TransientError:
                continue
            return


def seal(number: str) -> dict[str, Any]:
    return {
        "order": "SEAL",
        "statute": "CA PC 851.91",
        "court": "Superior Court",
        "order_number": number,
        "ordered_at": wiring.now(),
    }


def requests(bureau: Bureau) -> set[UUID]:
    """Return every probe in the topic of requests, also what got there without an acknowledgement."""
    kafka = KafkaLog(bureau.config)
    return {
        event.probe_id
        for (topic, partition), end in kafka.end_offsets([PROBE_REQUESTS]).items()
        for record in kafka.read(topic, partition, 0, end)
        if isinstance(event := decode(record.value), ProbeSubmitted)
    }


def kill_one_after_another(system: LocalSystem, load: Load) -> None:
    chance = random.Random(SEED)  # noqa: S311 - dice, so that a run can be repeated
    killed: Counter[str] = Counter()
    for count in range(1, KILLS + 1):
        at = time.monotonic() + chance.uniform(0, LONGEST_PAUSE_S)
        until(lambda at=at: time.monotonic() >= at, "the next kill is due")
        victims = chance.choice(VICTIMS)
        for victim in victims:
            kill(system, victim)
        if count % BROKER_EVERY == 0:
            system.broker.kill()
            system.broker.start()
        for victim in victims:
            if victim == roles.SINK:
                system.start_role(roles.SINK, "sink")
                system.wait_until_ready(roles.SINK)
            else:
                start_again(system, victim)
        killed.update(victims)
        log.info("%s of %s: %s; %s booked, %s sealed", count, KILLS, dict(killed), len(load.booked), len(load.sealed))
        assert load.failure is None


def test_a_hundred_kills_at_random_instants_lose_nothing_and_decide_nothing_twice(
    tmp_path: Path, photos: dict[str, bytes]
) -> None:
    """G1, G2, G5, G11: also while a killed worker's peers share its partitions anew, and while it comes back."""
    bureau = new_bureau(tmp_path / "data")
    with LocalSystem(bureau.settings, broker="apache", workers=len(WORKERS)) as system:
        bureau.found()
        with Load(bureau, photos) as load:
            kill_one_after_another(system, load)
        assert load.failure is None
        asked = requests(bureau)
        until(lambda: outcomes(bureau).keys() >= asked, "every probe is decided", 10 * LIMIT_S)
        with bureau.jail() as jail, bureau.investigator() as investigator:
            last = jail.publish_booking(
                booking_number="LAST", booked_at=wiring.now(), photos=[Photo(data=photos["A1"])]
            )
            jail.await_outcome(last, LIMIT_S)
            probe = investigator.submit(photos["A2"], **{**REQUEST, "requested_candidates": 50})
            listed = investigator.await_outcome(probe, LIMIT_S)
        found = outcomes(bureau)
        repeated = [decided for decided in found.values() if len(decided) > 1]
        log.info("%s probes, %s decided again after a kill", len(found), len(repeated))
        assert found.keys() == {*asked, probe.probe_id}
        assert isinstance(listed, CandidateListIssued)
        on_the_list = {each.person for each in listed.candidates}
        assert not on_the_list & {f"booking:{ORI}/{number}" for number in load.sealed}
        assert f"booking:{ORI}/LAST" in on_the_list
        kafka = bureau.audited()
        log.info("%s records in Kafka, each in the audit trail once", len(kafka))
        assert bureau.audit("SELECT count(), uniqExact(probe_id) FROM audit.searches") == [(len(found), len(found))]
