"""What an operator sees and does: dead letters and the way back, status, metrics, health."""

from __future__ import annotations

import http.client
import json
import os
import pty
import stat
import subprocess
import sys
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from builders import probe_submitted
from bureaus import INVESTIGATOR, LIMIT_S, ORI, REQUEST, Bureau, new_bureau, until
from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families

from connectors.bookings import Photo
from infra import cli, overview, wiring
from infra.agreements import text_of
from infra.local_system import LocalSystem
from schemas.events import BookingOutcome, CandidateListIssued, ProbeRefused
from schemas.keys import partition_of
from schemas.positions import SourcePosition, derived_id
from schemas.topics import BOOKING_EVENTS, DEAD_LETTERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from infra.assets import Assets
    from infra.brokers import Kind

DONE, REFUSED, USAGE, AWAY = 0, 1, 2, 3
GARBAGE = b"nothing that any schema reads"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, broker_kind: Kind, assets: Assets) -> Iterator[LocalSystem]:
    """A system of this module's own: its worker is killed here."""
    assert assets.photos
    made = new_bureau(tmp_path_factory.mktemp("operator") / "data")
    with LocalSystem(made.settings, broker=broker_kind, say=print) as running:
        made.found()
        yield running


@pytest.fixture
def bureau(system: LocalSystem) -> Bureau:
    return Bureau(system._settings)


class Operator:
    """Who types `leadstream ...` at the terminal."""

    def __init__(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._data = data
        self._capsys = capsys

    def types(self, *words: str) -> tuple[int, str, str]:
        """Run a command line; return its exit code, standard output and standard error."""
        self._capsys.readouterr()
        code = cli.run([*words, "--data", str(self._data)])
        return (code, *self._capsys.readouterr())

    def asks(self, *words: str) -> tuple[int, Any]:
        """Run a command line with --json; return its exit code and its one document."""
        code, printed, _ = self.types(*words, "--json")
        return code, json.loads(printed)

    def user(self, user_id: str) -> dict[str, Any]:
        code, facts = self.asks("user", "show", user_id)
        assert code == DONE
        return dict(facts)

    def dead_letter(self, ident: UUID) -> dict[str, Any] | None:
        code, listed = self.asks("dead-letters", "list", "--all")
        assert code == DONE
        return next((letter for letter in listed["dead_letters"] if letter["id"] == str(ident)), None)


@pytest.fixture
def operator(bureau: Bureau, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(bureau.settings.data, capsys)


# Who may what.


def test_who_lacks_what_is_seen_and_what_is_accepted_was_shown(operator: Operator, bureau: Bureau) -> None:
    """G3."""
    asked = wiring.policy(bureau.settings).users
    operator.types("user", "register", "novice", "--ori", ORI, "--role", "EXAMINER")
    assert "never" in operator.types("user", "list", "--ori", ORI)[1]
    before = operator.user("novice")
    assert (before["standing"], before["last_logon"], before["courses_missing"]) == (
        "NOT_GRANTED",
        None,
        sorted(asked.courses),
    )
    assert {each["agreement"]: each["version"] for each in before["agreements_missing"]} == asked.agreements
    operator.types("user", "train", "novice")
    code, shown, _ = operator.types("user", "accept", "novice")
    assert code == DONE
    after = operator.user("novice")
    assert (after["courses_missing"], after["agreements_missing"]) == ([], [])
    digests = {each["agreement"]: each["document_sha256"] for each in after["agreements"]}
    texts = [text_of(*each, bureau.settings.data / "none") for each in asked.agreements.items()]
    assert shown.encode() == b"".join(texts)
    assert digests == {each: sha256(text).hexdigest() for each, text in zip(asked.agreements, texts, strict=True)}
    assert operator.user(INVESTIGATOR)["user_id"] == INVESTIGATOR


def test_a_registration_that_is_refused_leaves_no_key_behind(operator: Operator, bureau: Bureau) -> None:
    """A key that nobody registered would make `leadstream book` ask which publisher is meant."""
    keys = bureau.settings.data / "keys"
    before = sorted(keys.rglob("*.key"))
    assert operator.types("publisher", "register", "jail-9", "--ori", ORI, "--may", "Nothing")[0] == USAGE
    by_one_who_may_not = ("user", "register", "friend", "--ori", ORI, "--role", "EXAMINER", "--as", INVESTIGATOR)
    code, _, said = operator.types(*by_one_who_may_not)
    assert (code, said.split(":")[0]) == (REFUSED, "NOT_ALLOWED")
    assert sorted(keys.rglob("*.key")) == before
    code, _, said = operator.types("notice", "list", "--user", "friend")
    assert (code, "not registered" in said) == (USAGE, True), "who is unknown is not somebody without notices"


def test_an_agreement_of_which_there_is_no_text_is_not_accepted(operator: Operator, bureau: Bureau) -> None:
    operator.types("user", "register", "reader", "--ori", ORI, "--role", "EXAMINER")
    words = ("user", "accept", "reader", "--agreement", "COUNTY_POLICY", "--version", "3")
    assert operator.types(*words)[0] == USAGE
    own = bureau.settings.data / "agreements" / "COUNTY_POLICY-3.txt"
    own.parent.mkdir()
    own.write_text("The county's own words.")
    code, shown, _ = operator.types(*words)
    assert (code, shown) == (DONE, "The county's own words.\n")
    (accepted,) = operator.user("reader")["agreements"]
    assert accepted["document_sha256"] == sha256(b"The county's own words.").hexdigest()


def test_on_a_terminal_nothing_is_accepted_without_a_word(operator: Operator, bureau: Bureau) -> None:
    operator.types("user", "register", "doubter", "--ori", ORI, "--role", "EXAMINER")
    ours, terminal = pty.openpty()
    words = [sys.executable, "-m", "infra.cli", "user", "accept", "doubter", "--data", str(bureau.settings.data)]
    with subprocess.Popen(words, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE) as process:
        os.close(terminal)
        os.write(ours, b"n\n")
        said = process.communicate(timeout=LIMIT_S)[1]
    os.close(ours)
    assert process.returncode == REFUSED
    assert b"AGREEMENT_MISSING" in said
    assert operator.user("doubter")["agreements"] == []


def test_a_corrective_case_takes_access_at_once_and_gives_it_back_when_it_is_closed(operator: Operator) -> None:
    operator.types("user", "register", "accused", "--ori", ORI, "--role", "EXAMINER")
    operator.types("user", "grant", "accused", "--reason", "trained")
    case = ("user", "corrective-action")
    facts = ("--section", "Bureau policy, 5", "--facts", "searched for a neighbour", "--effect", "REVOKE")
    assert operator.types(*case, "open", "accused", *facts)[0] == DONE
    during = operator.user("accused")
    (opened,) = during["open_corrective_actions"]
    assert (during["standing"], opened["section"]) == ("REVOKED", "Bureau policy, 5")
    code, _, said = operator.types("user", "grant", "accused", "--reason", "again")
    assert (code, said.split(":")[0]) == (REFUSED, "CORRECTIVE_CASE_OPEN")
    close = (
        *case,
        "close",
        "accused",
        opened["corrective_case_id"],
        "--outcome",
        "NOT_SUSTAINED",
        "--findings",
        "none",
    )
    assert operator.types(*close, "--restore-access")[0] == DONE
    assert (operator.user("accused")["standing"], operator.user("accused")["open_corrective_actions"]) == (
        "GRANTED",
        [],
    )
    assert operator.types(*close)[2].startswith("CORRECTIVE_CASE_CLOSED")


def test_an_override_is_granted_by_a_supervisor_only(operator: Operator, bureau: Bureau, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"as it will be searched")
    operator.types("user", "register", "boss", "--ori", ORI, "--role", "SUPERVISOR")
    operator.types("user", "grant", "boss", "--reason", "appointed")
    words = ("--image", str(image), "--case", "26-04711", "--reason", "the only image there is")
    assert operator.types("user", "override", "--as", "boss", *words)[0] == DONE
    operator.types("user", "register", "other", "--ori", ORI, "--role", "EXAMINER")
    code, _, said = operator.types("user", "override", "--as", "other", *words)
    assert (code, said.split(":")[0]) == (REFUSED, "NOT_ALLOWED")
    request = probe_submitted(
        ori=ORI, case_number="26-04711", image_sha256=sha256(b"as it will be searched").hexdigest()
    )
    known = wiring.directory_as_published(bureau.settings)
    assert known.quality_override(request, wiring.now()) is not None


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def scrape(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return (name, labels) -> value, as Prometheus reads it."""
    status, page = get(port, "/metrics")
    assert status == http.client.OK
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value(port: int, name: str, **labels: str) -> float:
    return scrape(port).get((name, frozenset(labels.items())), 0.0)


def send_garbage(bureau: Bureau) -> SourcePosition:
    key = f"{ORI}/{uuid4()}".encode()
    partition, offsets = partition_of(BOOKING_EVENTS, key), []
    producer = Producer(bureau.config)
    producer.produce(
        BOOKING_EVENTS, GARBAGE, key, partition=partition, on_delivery=lambda _, sent: offsets.append(sent.offset())
    )
    producer.flush()
    return SourcePosition(topic=BOOKING_EVENTS, partition=partition, offset=offsets[0])


def test_a_dead_letter_is_listed_shown_replayed_and_listed_again_when_it_dies_again(
    bureau: Bureau, operator: Operator, tmp_path: Path
) -> None:
    """G12: the original bytes come back, and its history with them; G10: they are shown nowhere."""
    ident = derived_id(send_garbage(bureau), "dead-letter")
    first = until(lambda: operator.dead_letter(ident), "the garbage is listed")
    assert (first["state"], first["code"], first["stage"]) == ("OPEN", "CONTRACT", "bookings")
    assert (first["replay_count"], first["value_size_bytes"]) == (0, len(GARBAGE))

    kept = tmp_path / "original"
    code, shown = operator.asks("dead-letters", "show", str(ident)[:13], "--save", str(kept))
    assert code == DONE
    assert shown["original"]["readable"]
    assert GARBAGE.decode() not in json.dumps(shown)
    assert kept.read_bytes() == GARBAGE
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600

    code, replayed = operator.asks("dead-letters", "replay", str(ident))
    assert (code, replayed["replayed"]) == (DONE, 1)
    topic, partition, offset = replayed["dead_letters"][0]["replayed_as"].split("/")
    again = derived_id(SourcePosition(topic=topic, partition=int(partition), offset=int(offset)), "dead-letter")
    second = until(lambda: operator.dead_letter(again), "it died again")
    assert (second["state"], second["replay_count"]) == ("OPEN", 1)
    assert second["first_seen_at"] == first["first_seen_at"]
    before = operator.dead_letter(ident)
    assert before is not None
    assert (before["state"], before["next_id"]) == ("DEAD_AGAIN", str(again))

    code, _, said = operator.types("dead-letters", "replay", str(ident))
    assert code == REFUSED
    assert "NOT_OPEN" in said
    sql = "SELECT count() FROM audit.events WHERE topic = {topic:String} AND event_type = 'DeadLetterReplayed'"
    assert until(lambda: bureau.audit(sql, topic=DEAD_LETTERS) == [(1,)], "the replay is in the audit trail")
    for log in bureau.folder.logs.iterdir():
        assert GARBAGE not in log.read_bytes()


def test_every_dead_letter_of_a_code_is_replayed_unless_its_original_is_gone(
    bureau: Bureau, operator: Operator
) -> None:
    gone, there = (derived_id(send_garbage(bureau), "dead-letter") for _ in range(2))
    until(lambda: operator.dead_letter(gone) and operator.dead_letter(there), "both are listed")
    wiring.object_store(bureau.settings).destroy_key(f"dead-letter/{gone}")
    code, replayed = operator.asks("dead-letters", "replay", "--code", "CONTRACT")
    assert code == REFUSED
    results = {letter["id"]: letter["code"] for letter in replayed["dead_letters"]}
    assert (results[str(gone)], results[str(there)]) == ("ORIGINAL_GONE", None)
    code, shown = operator.asks("dead-letters", "show", str(gone))
    assert (code, shown["original"]["readable"]) == (DONE, False)


def test_metrics_show_what_was_decided_and_name_nobody(
    system: LocalSystem, bureau: Bureau, photos: dict[str, bytes]
) -> None:
    """G10: no person, case, agency or booking is in a metric."""
    with bureau.jail() as jail:
        booked = jail.publish_booking(
            booking_number="METRICS-A", booked_at=wiring.now(), photos=[Photo(data=photos["A1"])]
        )
        assert jail.await_outcome(booked, LIMIT_S).outcome is BookingOutcome.ENROLLED
    with bureau.investigator() as investigator:
        listed = investigator.await_outcome(investigator.submit(photos["A2"], **REQUEST), LIMIT_S)
        refused = investigator.submit(photos["A2"], **{**REQUEST, "case_number": ""})
        assert isinstance(investigator.await_outcome(refused, LIMIT_S), ProbeRefused)
    assert isinstance(listed, CandidateListIssued)
    ports = system.metrics_ports()
    worker, sink = ports["worker-1"], ports["sink"]
    # The answer is in Kafka an instant before it is counted.
    labels = {"stage": "probes", "outcome": "CandidateListIssued", "code": ""}
    until(lambda: value(worker, "leadstream_decided_total", **labels), "the probe is counted")
    labels = {"stage": "probes", "outcome": "ProbeRefused", "code": "CASE_NUMBER_MISSING"}
    until(lambda: value(worker, "leadstream_decided_total", **labels), "the refusal is counted by its code")
    assert value(worker, "leadstream_decided_total", stage="bookings", outcome="ENROLLED", code="") == 1
    assert value(worker, "leadstream_answer_age_seconds_count", stage="probes") == 2
    assert value(worker, "leadstream_barrier_wait_seconds_count") >= 3
    assert value(worker, "leadstream_gallery_templates") == 1
    # It looks at Kafka every few seconds, and waits no longer than that for an answer.
    until(lambda: value(worker, "leadstream_kafka_reachable") == 1, "the worker has looked at Kafka")
    until(lambda: value(worker, "leadstream_ready", role="worker-1") == 1, "it says that it is ready")
    until(lambda: value(sink, "leadstream_audit_rows_total") > 0, "the sink counts its rows")
    for port in (worker, sink):
        page = get(port, "/metrics")[1]
        secrets = (INVESTIGATOR, ORI, REQUEST["case_number"], "METRICS-A", str(listed.probe_id))
        assert not [secret for secret in secrets if secret in page]
        until(lambda at=port: get(at, "/readyz")[0] == http.client.OK, "all is well")
        assert [get(port, path)[0] for path in ("/healthz", "/")] == [200, 404]


def test_status_is_well_while_all_runs_and_says_what_is_away_when_not(
    system: LocalSystem, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last test of this module that needs the worker."""
    monkeypatch.setattr(overview, "ASK_TIMEOUT_S", LIMIT_S)

    def settled() -> dict[str, Any] | None:
        code, seen = operator.asks("status")
        assert code == (DONE if seen["well"] else AWAY)
        lags = [topic["lag_records"] for topic in seen["topics"]]
        return seen if seen["well"] and lags == [0, 0, 0] and seen["audit_lag_records"] == 0 else None

    seen = until(settled, "nothing is behind")
    states = {"clerk": "ready", "sink": "ready", "worker-1": "ready"}
    assert {role["name"]: role["state"] for role in seen["roles"]} == states
    assert seen["orders_behind_s"] < LIMIT_S, "G5: how long an order may have waited is known"
    assert seen["dead_letters_open"] == sum(seen["dead_letters_by_code"].values())
    code, printed, said = until(lambda: well if (well := operator.types("status"))[0] == DONE else None, "well again")
    assert "All is well." in said
    assert "booking.events.v1" in printed

    system.children.pop("worker-1").kill()
    code, seen = operator.asks("status")
    assert code == AWAY
    assert {role["name"]: role["state"] for role in seen["roles"]} == {**states, "worker-1": "gone"}
    assert any("worker-1" in line for line in seen["away"])


def test_status_on_a_folder_where_nothing_runs_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bureau = new_bureau(tmp_path / "data")
    code, seen = Operator(bureau.settings.data, capsys).asks("status")
    assert code == AWAY
    assert "leadstream up" in seen["away"][0]
    assert (seen["roles"], seen["kafka_reachable"]) == ([], False)
