"""The commands of the policy: what would change, why a search was refused, what would have been decided."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
from bureaus import INVESTIGATOR, REQUEST
from PIL import Image, ImageFilter

from infra import cli

if TYPE_CHECKING:
    from pathlib import Path

    from bureaus import Bureau

pytestmark = pytest.mark.any_broker

DONE, REFUSED, USAGE = 0, 1, 2
TAKEN_AT = datetime(2026, 2, 3, 4, 5, tzinfo=UTC)


class Terminal:
    def __init__(self, data: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self._data = data
        self._capfd = capfd

    def types(self, *words: str) -> tuple[int, str, str]:
        self._capfd.readouterr()
        code = cli.run([*words, "--data", str(self._data)])
        return (code, *self._capfd.readouterr())

    def asks(self, *words: str) -> Any:
        code, printed, said = self.types(*words, "--json")
        assert code in (DONE, REFUSED), said
        return json.loads(printed)

    def probes(self, image: Path, *words: str, text: str = str(REQUEST["reason_text"])) -> Any:
        """Probe as the command-line contract has it."""
        return self.asks(
            *("probe", str(image), "--user", INVESTIGATOR, "--reason", "FELONY_INVESTIGATION", "--text", text),
            *("--case", "26-04711", "--basis", "CRIMINAL_INVESTIGATION", "--source", "WITNESS_PHOTO", *words),
        )


@pytest.fixture
def terminal(bureau: Bureau, capfd: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(bureau.settings.data, capfd)


@pytest.fixture
def image(photos: dict[str, bytes], tmp_path: Path) -> Path:
    path = tmp_path / "probe.jpg"
    path.write_bytes(photos["A2"])
    os.utime(path, (TAKEN_AT.timestamp(), TAKEN_AT.timestamp()))
    return path


@pytest.fixture
def strict(tmp_path: Path) -> Path:
    shipped = files("infra").joinpath("policy", "default.toml").read_text(encoding="utf-8")
    text = shipped.replace('version = "2026.3"', 'version = "2099.1"', 1)
    text = text.replace("maximum_candidates = 50", "maximum_candidates = 19").replace(
        "default_candidates = 20", "default_candidates = 10"
    )
    path = tmp_path / "strict.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_decision_is_explained_and_replayed_as_the_rules_and_the_user_were_then(
    bureau: Bureau, terminal: Terminal, image: Path, strict: Path, tmp_path: Path
) -> None:
    begin = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    listed = terminal.probes(image)
    assert listed["record"] == "CandidateListIssued"
    empty = terminal.probes(image, text="investigation 26-04711")
    assert (empty["code"], empty["rule"]) == ("REASON_TEXT_SAYS_NOTHING", "probes.empty_reason_words")
    unstated = tmp_path / "edits.json"
    edited = {"tool": "editor 1", "operator": INVESTIGATOR, "performed_at": "2026-02-03T05:00:00Z", "description": "-"}
    digest = sha256(image.read_bytes()).hexdigest()
    unstated.write_text(
        json.dumps([{**edited, "operation": "EYES_OPENED", "before_sha256": "0" * 64, "after_sha256": digest}])
    )
    opened = terminal.probes(image, "--edits", str(unstated), "--collected-at", "2026-02-03T04:05:00")
    assert (opened["code"], opened["rule"]) == ("EDIT_OPERATION_PROHIBITED", "probes.prohibited_edit")
    edited_without_time = terminal.probes(image, "--edits", str(unstated))
    assert edited_without_time["code"] == "COLLECTED_AT_MISSING", (
        "the time of an edited file is not that of its original"
    )

    explained = terminal.asks("policy", "explain", listed["probe_id"])
    assert explained["outcome"] == {"code": "ISSUED", "rule": ""}
    assert {each["verdict"] for each in explained["rules"]} == {"kept", "not the reason"}
    explained = terminal.asks("policy", "explain", empty["probe_id"])
    assert [each["rule"] for each in explained["rules"] if each["verdict"] == "refused"] == [empty["rule"]]
    blurred = tmp_path / "blurred.png"
    Image.open(image).filter(ImageFilter.GaussianBlur(14)).save(blurred)
    smear = terminal.probes(blurred)
    explained_smear = terminal.asks("policy", "explain", smear["probe_id"])["rules"]
    refused = [(each["rule"], each["code"]) for each in explained_smear if each["verdict"] == "refused"]
    assert refused == [("model card", "FACE_TOO_BLURRED")], "the models cannot use it; no rule of the policy was asked"
    with bureau.administration() as acts:
        acts.revoke(user_id=INVESTIGATOR, reason="what came after changes no explanation")
        acts.grant(user_id=INVESTIGATOR, reason="test is over")
    assert terminal.asks("policy", "explain", empty["probe_id"]) == explained

    replayed = terminal.asks("policy", "replay", str(strict), "--since", begin)
    after = {each["probe_id"]: (each["before"], each["after"], each["rule"]) for each in replayed["changed"]}
    assert after[listed["probe_id"]] == ("ISSUED", "CANDIDATE_COUNT_OUT_OF_RANGE", "probes.candidates")
    assert empty["probe_id"] not in after
    assert replayed["searches"] == sum(each["searches"] for each in replayed["counts"]) >= 4
    code, printed, said = terminal.types("policy", "replay", str(strict), "--since", begin)
    assert code == DONE
    assert "CANDIDATE_COUNT_OUT_OF_RANGE" in printed
    assert "would have been decided otherwise" in said


def test_what_the_command_line_states_for_who_states_nothing_is_shown(
    terminal: Terminal, image: Path, tmp_path: Path
) -> None:
    _, _, said = terminal.types(
        *("probe", str(image), "--user", INVESTIGATOR, "--reason", "FELONY_INVESTIGATION", "--text", "test test test"),
        *("--case", "26-04711", "--basis", "CRIMINAL_INVESTIGATION", "--source", "WITNESS_PHOTO"),
    )
    words = " ".join(said.split())
    assert "What every rule said: leadstream policy explain" in words
    assert f"collected by {INVESTIGATOR}, at {TAKEN_AT.isoformat()}, on the basis CONSENT" in words
    code, printed, _ = terminal.types(
        *("probe", str(image), "--user", INVESTIGATOR, "--reason", "FELONY_INVESTIGATION", "--case", "26-04711"),
        *("--basis", "CRIMINAL_INVESTIGATION", "--source", "WITNESS_PHOTO", "--json"),
    )
    assert (code, json.loads(printed)["code"]) == (REFUSED, "REASON_TEXT_MISSING"), "a search without words is audited"
    wrong = tmp_path / "wrong.json"
    wrong.write_text('[{"tool": "editor"}]')
    code, _, said = terminal.types(
        *("probe", str(image), "--user", INVESTIGATOR, "--reason", "R", "--text", "T", "--edits", str(wrong)),
        *("--case", "1", "--basis", "B", "--source", "S"),
    )
    assert (code, "operator" in said) == (USAGE, True)


def test_a_policy_is_checked_activated_for_later_and_shown(terminal: Terminal, strict: Path, tmp_path: Path) -> None:
    checked = terminal.asks("policy", "check", str(strict))
    assert (checked["version"], checked["compared_with"]) == ("2099.1", "2026.3")
    assert {"entry": "probes.maximum_candidates", "before": 50, "after": 19, "effect": "stricter"} in checked["changes"]
    code, printed, said = terminal.types("policy", "check", str(strict))
    assert (code, "stricter" in printed, "1 stricter, 0 looser, 2 other" in " ".join(said.split())) == (
        DONE,
        True,
        True,
    )
    unevaluated = tmp_path / "unevaluated.toml"
    unevaluated.write_text(strict.read_text() + "\n[probes.maximum_age]\nyears = 1\n")
    code, _, said = terminal.types("policy", "check", str(unevaluated))
    assert (code, said.startswith("CONTRACT: "), "maximum_age" in said) == (REFUSED, True, True)

    assert terminal.types("policy", "activate", str(strict), "--from", "2000-01-01")[0] == USAGE
    code, _, said = terminal.types("policy", "activate", str(strict), "--from", "2099-01-01")
    assert (code, "2099-01-01T00:00:00.000000Z" in said) == (DONE, True)
    shown = terminal.asks("policy", "show")
    assert shown["version"] == "2026.3"
    assert {"version": "2099.1", "effective_from": "2099-01-01T00:00:00.000000Z"} in shown["coming"]
    other = tmp_path / "other.toml"
    other.write_text(strict.read_text().replace("maximum_candidates = 19", "maximum_candidates = 18"))
    code, _, said = terminal.types("policy", "activate", str(other), "--from", "2099-01-01")
    assert (code, "version of its own" in " ".join(said.split())) == (USAGE, True)
