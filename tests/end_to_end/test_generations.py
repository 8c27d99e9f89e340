"""From one model pack to another: built beside the running gallery, switched by one event, both ways, then removed."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
from bureaus import LIMIT_S, ORI, REQUEST, Bureau, new_bureau, until
from confluent_kafka import Consumer, TopicPartition

from connectors.bookings import Photo
from connectors.log_reader import read_everything
from infra import cli, wiring
from infra.local_system import LocalSystem
from infra.settings import load_settings
from schemas.events import BookingOutcome, CandidateListIssued
from schemas.topics import GALLERY, TOPICS, generation_topic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from infra.assets import Assets
    from infra.brokers import Kind

# Starts systems of its own: on the embedded broker, which keeps two cores busy by itself, that takes minutes.
pytestmark = pytest.mark.kafka
DONE, REFUSED = 0, 1


@pytest.fixture
def other_card(tmp_path: Path, assets: Assets) -> Path:
    """A pack with another recipe: the same models, but faces are looked for at one size only."""
    text = files("infra").joinpath("models", "sface-yunet.toml").read_text(encoding="utf-8")
    assert text.count("sides_px = [320, 640]") == 1
    folder = tmp_path / "other-pack"
    shutil.copytree(assets.pack_dir, folder)
    card = folder / "card.toml"
    card.write_text(text.replace("sides_px = [320, 640]", "sides_px = [640]"), encoding="utf-8")
    return card


class Operator:
    """Who changes the pack at the terminal."""

    def __init__(self, bureau: Bureau, capsys: pytest.CaptureFixture[str]) -> None:
        self.bureau = bureau
        self._capsys = capsys

    def set(self, **settings: str) -> None:
        lines = [f'{name} = "{value}"\n' for name, value in settings.items()]
        (self.bureau.settings.data / "leadstream.toml").write_text("".join(lines), encoding="utf-8")
        self.bureau = Bureau(load_settings(self.bureau.settings.data))

    def types(self, *words: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = cli.run([*words, "--data", str(self.bureau.settings.data)])
        return (code, *self._capsys.readouterr())

    def generations(self) -> dict[str, dict[str, Any]]:
        code, printed, _ = self.types("generation", "list", "--json")
        assert code == DONE
        return {each["topic"]: each for each in json.loads(printed)}


def book(bureau: Bureau, photo: bytes, *numbers: str) -> None:
    with bureau.jail() as jail:
        published = [
            jail.publish_booking(booking_number=number, booked_at=wiring.now(), photos=[Photo(data=photo)])
            for number in numbers
        ]
        for answer in jail.await_outcomes(published, LIMIT_S):
            assert answer.outcome is BookingOutcome.ENROLLED


def seal(bureau: Bureau, number: str) -> None:
    order = {"order": "SEAL", "statute": "CA PC 851.91", "court": "Superior Court", "order_number": "S-1"}
    with bureau.jail() as jail:
        sent = jail.publish_order(booking_number=number, ordered_at=wiring.now(), **order)
        assert jail.await_outcome(sent, LIMIT_S).outcome is BookingOutcome.WITHDRAWN


def search(bureau: Bureau, photo: bytes) -> tuple[str, list[str]]:
    """Return the model that searched and the booking numbers on the list."""
    with bureau.investigator() as investigator:
        issued = investigator.await_outcome(investigator.submit(photo, **REQUEST), LIMIT_S)
    assert isinstance(issued, CandidateListIssued)
    return issued.model_digest, [candidate.booking_number for candidate in issued.candidates]


def bounds(bureau: Bureau, topic: str) -> list[tuple[int, int]]:
    asker = Consumer({**bureau.config, "group.id": "bounds"})
    try:
        places = [TopicPartition(topic, number) for number in range(TOPICS[GALLERY].partitions)]
        return [asker.get_watermark_offsets(place, timeout=LIMIT_S) for place in places]
    finally:
        asker.close()


@dataclass
class Change:
    """A change of packs that is under way: both generations are kept, the new one is complete and audited."""

    operator: Operator
    first: str
    second: str

    @property
    def bureau(self) -> Bureau:
        return self.operator.bureau

    @property
    def topic(self) -> str:
        return generation_topic(self.second)

    def activate(self, model_digest: str) -> int:
        return self.operator.types("generation", "activate", model_digest)[0]


@pytest.fixture
def change(
    tmp_path: Path, photos: dict[str, bytes], other_card: Path, broker_kind: Kind, capsys: pytest.CaptureFixture[str]
) -> Iterator[Change]:
    operator = Operator(new_bureau(tmp_path / "data"), capsys)
    with LocalSystem(operator.bureau.settings, broker=broker_kind):
        operator.bureau.found()
        book(operator.bureau, photos["A1"], "A-before", "A-sealed-before")
        book(operator.bureau, photos["B1"], "B-before")
        seal(operator.bureau, "A-sealed-before")
        first, listed = search(operator.bureau, photos["A2"])
        assert listed[0] == "A-before"
    operator.set(next_model_card=str(other_card))
    with LocalSystem(operator.bureau.settings, broker=broker_kind):
        (second,) = {each["model_digest"] for each in operator.generations().values()} - {first}
        change = Change(operator, first, second)
        assert operator.generations()[change.topic]["missing"] == 3
        assert change.activate(second) == REFUSED, "it lacks what was booked before"
        book(operator.bureau, photos["A1"], "A-sealed-amid")
        book(operator.bureau, photos["C1"], "C-amid")
        assert search(operator.bureau, photos["A2"])[0] == first, "the running generation is not disturbed"
        code, printed, _ = operator.types("generation", "build", "--json")
        assert (code, json.loads(printed)) == (DONE, {"enrolled": 2, "not_enrolled": 0, "withdrawn": 1})
        assert operator.generations()[change.topic]["missing"] == 0
        until(lambda: operator.generations()[change.topic]["audited"], "the sink audits the new generation")
        yield change


def test_a_bureau_changes_to_another_pack_by_one_event_and_back_by_another(
    change: Change, photos: dict[str, bytes]
) -> None:
    """G5: what is sealed stays out of both; templates of different packs are never compared."""
    seal(change.bureau, "A-sealed-amid")
    assert change.activate(change.second) == DONE
    model, listed = search(change.bureau, photos["A2"])
    assert (model, listed[0], sorted(listed)) == (change.second, "A-before", ["A-before", "B-before", "C-amid"])
    book(change.bureau, photos["D1"], "D-after")
    assert change.activate(change.first[:12]) == DONE
    model, listed = search(change.bureau, photos["A2"])
    assert (model, sorted(listed)) == (change.first, ["A-before", "B-before", "C-amid", "D-after"])
    kafka = set(read_everything(change.bureau.config, [*TOPICS, change.topic]))
    until(lambda: audited(change.bureau) == kafka, "every record of both generations is in the trail (G2)")


@pytest.mark.kafka
def test_the_templates_of_an_old_generation_leave_kafka_when_it_is_removed(
    change: Change, photos: dict[str, bytes]
) -> None:
    assert change.operator.types("generation", "remove", change.first)[0] == REFUSED, "it is searched"
    assert change.activate(change.second) == DONE
    assert change.operator.types("generation", "remove", change.first)[0] == DONE
    assert all(low == high for low, high in bounds(change.bureau, GALLERY))
    book(change.bureau, photos["E1"], "E-after")
    assert all(low == high for low, high in bounds(change.bureau, GALLERY)), "none comes after them"
    assert change.activate(change.first) == REFUSED
    kafka = set(read_everything(change.bureau.config, [*TOPICS, change.topic]))
    until(lambda: audited(change.bureau) >= kafka, "every record is in the trail (G2)")
    assert {topic for topic, *_ in audited(change.bureau) - kafka} == {GALLERY}, "and what was erased still is"


def audited(bureau: Bureau) -> set[tuple[str, int, int, str]]:
    with wiring.audit_reader(bureau.settings) as reader:
        return set(reader.wire_digests())


def test_a_worker_without_the_active_pack_stops_and_says_what_to_set(
    tmp_path: Path, photos: dict[str, bytes], other_card: Path, capsys: pytest.CaptureFixture[str], broker_kind: Kind
) -> None:
    operator = Operator(new_bureau(tmp_path / "data"), capsys)
    with LocalSystem(operator.bureau.settings, broker=broker_kind) as system:
        operator.bureau.found()
        assert photos
        operator.set(next_model_card=str(other_card))
        assert operator.types("topics", "apply")[0] == DONE
        (second,) = [each for topic, each in operator.generations().items() if topic != GALLERY]
        until(lambda: operator.generations()[second["topic"]]["audited"], "the sink finds it")
        assert operator.types("generation", "activate", second["model_digest"])[0] == DONE
        with operator.bureau.investigator() as investigator:
            investigator.submit(photos["A2"], **REQUEST)
        worker = system.children.pop("worker-1")
        until(lambda: worker.poll() is not None, "the worker stops")
        assert worker.poll() == REFUSED
        said = (operator.bureau.folder.logs / "worker-1.log").read_text()
        assert "next_model_card" in said
        assert ORI
