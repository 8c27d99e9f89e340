"""Two hundred probes in flight while records are sealed, users revoked and a worker killed: what the law asks holds."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bureaus import LIMIT_S, REQUEST, Bureau, new_bureau, until
from test_kills import kill, outcomes, start_again

from connectors.bookings import Photo
from connectors.kafka_log import KafkaLog
from infra import wiring
from infra.local_system import LocalSystem
from schemas.codec import decode
from schemas.events import (
    CandidateListIssued,
    ProbeRefused,
    RecordOrderReceived,
    SealedRecordNotice,
    TemplatesWithdrawn,
)
from schemas.keys import booking_key
from schemas.topics import BOOKING_EVENTS, GALLERY, NOTICES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from connectors.probes import SubmittedProbe
    from schemas.records import LogRecord

pytestmark = pytest.mark.kafka
WORKERS = ("worker-1", "worker-2")
BOOKED, SEALED, PROBES = 24, 20, 200
KILLED_IN = 2
LEAVERS = tuple(f"leaver.{number}" for number in range(5))
STAYER = "stayer"
FACES = ("A1", "B1", "C1", "D1", "E1")
WITHDRAWN_WITHIN_S = 5.0
RECOUNT = Path(__file__).with_name("recount_receivers.py")

log = logging.getLogger(__name__)


def records(bureau: Bureau, topic: str) -> Iterator[LogRecord]:
    kafka = KafkaLog(bureau.config)
    for (name, partition), end in kafka.end_offsets([topic]).items():
        yield from kafka.read(name, partition, 0, end)


def seal(number: int) -> dict[str, Any]:
    return {
        "booking_number": f"L-{number}",
        "order": "SEAL",
        "statute": "CA PC 851.91",
        "court": "Superior Court",
        "order_number": str(number),
        "ordered_at": wiring.now(),
    }


def notices(bureau: Bureau) -> list[SealedRecordNotice]:
    return [
        event for record in records(bureau, NOTICES) if isinstance(event := decode(record.value), SealedRecordNotice)
    ]


def test_with_probes_in_flight_orders_revocations_and_a_kill_are_honoured_and_everyone_is_told(
    tmp_path: Path, photos: dict[str, bytes]
) -> None:
    """G1, G3, G5, G6; the notices are compared with a count from the raw events that shares no code with the clerk."""
    bureau = new_bureau(tmp_path / "data")
    with LocalSystem(bureau.settings, broker="apache", workers=len(WORKERS)) as system:
        bureau.found()
        for user in (STAYER, *LEAVERS):
            bureau.enlist(user, "SUBMITTER")
        with bureau.jail() as jail:
            published = [
                jail.publish_booking(
                    booking_number=f"L-{number}",
                    booked_at=wiring.now(),
                    photos=[Photo(data=photos[FACES[number % len(FACES)]])],
                )
                for number in range(BOOKED)
            ]
            assert len(list(jail.await_outcomes(published, LIMIT_S))) == BOOKED
        ask = {**REQUEST, "requested_candidates": 50}
        submitted: list[SubmittedProbe] = []

        def submit(count: int) -> None:
            for user in (STAYER, *LEAVERS):
                with bureau.investigator(user_id=user) as client:
                    submitted.extend(client.submit(photos["A2"], **ask) for _ in range(count))

        submit(2)
        until(lambda: len(outcomes(bureau)) == len(submitted), "the first lists are there")
        revoked: dict[str, int] = {}
        with bureau.jail() as jail, bureau.administration() as acts:
            orders = []
            share = -(-(PROBES - len(submitted)) // (6 * 5))
            for round_ in range(5):
                submit(share)
                if round_ == KILLED_IN:
                    kill(system, WORKERS[0])
                orders += [jail.publish_order(**seal(4 * round_ + number)) for number in range(4)]
                revoked[LEAVERS[round_]] = acts.revoke(user_id=LEAVERS[round_], reason="left the agency").offset
                if round_ == KILLED_IN:
                    start_again(system, WORKERS[0])
            assert len(list(jail.await_outcomes(orders, LIMIT_S))) == SEALED
        assert len(submitted) >= PROBES
        until(lambda: len(outcomes(bureau)) == len(submitted), "every probe is decided")
        found = outcomes(bureau)
        assert set(found) == {each.probe_id for each in submitted}
        first = {probe: decided[0] for probe, decided in found.items()}
        assert_nobody_searched_after_a_revocation(first, revoked)
        assert_no_list_has_what_was_withdrawn_before_it(bureau, first)
        assert_orders_were_quick(bureau)

        def recounted() -> set[tuple[str, str, str]]:
            printed = subprocess.run(
                [sys.executable, str(RECOUNT), str(bureau.config["bootstrap.servers"])],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            return {(order, user, probe) for order, user, probe in json.loads(printed)}

        due = recounted()
        assert len({order for order, _, _ in due}) == SEALED
        until(lambda: len(notices(bureau)) >= len(due), "everyone was told")
        sent = [(str(each.order_event_id), each.user_id, str(each.probe_id)) for each in notices(bureau)]
        assert set(sent) == due
        assert len(sent) == len(due)
        bureau.audited()
        log.info("%s probes, %s notices", len(found), len(due))


def assert_nobody_searched_after_a_revocation(
    first: dict[UUID, CandidateListIssued | ProbeRefused], revoked: dict[str, int]
) -> None:
    """G3: by the applied access offset that each outcome names."""
    by_code: dict[str, int] = defaultdict(int)
    for outcome in first.values():
        refused = isinstance(outcome, ProbeRefused)
        by_code[outcome.code if isinstance(outcome, ProbeRefused) else "ISSUED"] += 1
        at = revoked.get(outcome.user_id)
        is_later = at is not None and outcome.access_watermark[0] > at
        assert refused is is_later, outcome
        assert not isinstance(outcome, ProbeRefused) or outcome.code == "ACCESS_REVOKED"
    assert by_code["ISSUED"]
    assert by_code["ACCESS_REVOKED"]


def first_withdrawals(bureau: Bureau) -> dict[str, LogRecord]:
    """Return the first withdrawal of each booking; what is obeyed ahead of its turn is obeyed again in its turn."""
    found: dict[str, LogRecord] = {}
    for record in records(bureau, GALLERY):
        if isinstance(event := decode(record.value), TemplatesWithdrawn):
            found.setdefault(booking_key(event.ori, event.booking_number), record)
    return found


def assert_no_list_has_what_was_withdrawn_before_it(
    bureau: Bureau, first: dict[UUID, CandidateListIssued | ProbeRefused]
) -> None:
    """G5: by the applied gallery offsets that each list names."""
    withdrawn = {key: (record.partition, record.offset) for key, record in first_withdrawals(bureau).items()}
    assert len(withdrawn) == SEALED
    lists = [outcome for outcome in first.values() if isinstance(outcome, CandidateListIssued)]
    listed = 0
    for outcome in lists:
        for candidate in outcome.candidates:
            place = withdrawn.get(booking_key(candidate.ori, candidate.booking_number))
            listed += place is not None
            assert place is None or outcome.gallery_watermark[place[0]] <= place[1], candidate.booking_number
    # Otherwise nobody would have anything to be told.
    assert listed


def assert_orders_were_quick(bureau: Bureau) -> None:
    """G5: the time from order to withdrawal, both by the broker's clock."""
    ordered = {
        booking_key(event.ori, event.booking_number): record.timestamp_ms
        for record in records(bureau, BOOKING_EVENTS)
        if isinstance(event := decode(record.value), RecordOrderReceived)
    }
    took_s = sorted((record.timestamp_ms - ordered[key]) / 1000 for key, record in first_withdrawals(bureau).items())
    log.info("order to withdrawal: median %.2f s, longest %.2f s", took_s[len(took_s) // 2], took_s[-1])
    assert took_s[-1] < WITHDRAWN_WITHIN_S, took_s
