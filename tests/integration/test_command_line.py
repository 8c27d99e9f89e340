"""The command line is a contract: exit codes 0 done, 1 refused, 2 usage, 3 something is away; never a stack trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from infra import cli
from infra.cli import AWAY, DONE, REFUSED, USAGE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    assert cli.run(["init", "--data", str(tmp_path / "data")]) == DONE
    return tmp_path / "data"


@pytest.mark.parametrize(
    "words",
    [
        ["nosuch"],
        ["book"],
        ["up", "--broker", "rabbit"],
        ["probe", "photo.jpg", "--user", "x"],
        ["audit", "query"],
        ["user", "register", "x"],
        ["user", "corrective-action", "open", "x", "--effect", "FINE"],
        ["user", "override", "--as", "x"],
    ],
)
def test_wrong_words_are_a_usage_error_with_the_usage_shown(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(words) == USAGE
    said = capfd.readouterr().err
    assert "Usage" in said
    assert "Traceback" not in said
    assert "UNEXPECTED" not in said


def test_a_folder_that_was_not_made_is_named_with_what_to_do(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["up", "--data", str(tmp_path / "none")]) == USAGE
    assert "leadstream init" in capfd.readouterr().err


def test_keys_are_never_made_anew_over_old_ones(data: Path) -> None:
    before = (data / "keys" / "master.key").read_bytes()
    assert cli.run(["init", "--data", str(data)]) == USAGE
    assert (data / "keys" / "master.key").read_bytes() == before


def test_without_a_running_system_a_command_says_how_to_start_one(
    data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["topics", "diff", "--data", str(data)]) == USAGE
    assert "leadstream up" in capfd.readouterr().err


def test_a_broker_that_does_not_answer_is_away(
    data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEADSTREAM_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    assert cli.run(["topics", "diff", "--data", str(data)]) == AWAY
    assert "Traceback" not in capfd.readouterr().err


def test_help_and_settings_are_done(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == DONE
    assert cli.run(["config", "show", "--json", "--data", str(data)]) == DONE
    assert '"dead_letter_limit"' in capfd.readouterr().out


def test_a_changed_asset_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEADSTREAM_ASSETS", str(tmp_path))
    assert cli.run(["assets", "verify"]) == REFUSED
    assert "missing" in capfd.readouterr().out
