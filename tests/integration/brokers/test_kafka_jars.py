"""Apache Kafka's jars: pinned, checked, fetched once; no network needed here."""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import infra
from infra.brokers import apache
from infra.brokers.apache import ApacheKafka, default_jars_folder, fetch_jars, kafka_version, pinned_jars
from schemas.errors import IntegrityError, TransientError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

KAFKA = Path(infra.__file__).parent / "kafka"
CONTENT = {"kafka_2.13-4.4.0.jar": b"the broker", "other-1.jar": b"its dependency"}


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small jars in place of Kafka's."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
    monkeypatch.setattr(apache, "pinned_jars", lambda: digests)


@pytest.fixture
def maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a `mvn` on the path that runs a script ($jars is where to write); returns the file that counts its runs."""

    def install(script: str) -> Path:
        folder, runs = tmp_path / "bin", tmp_path / "runs"
        folder.mkdir(exist_ok=True)
        program = folder / "mvn"
        body = f'echo run >> "{runs}"\nfor last; do :; done\njars="${{last#-Djars=}}"\n{script}\n'
        program.write_text(f"#!/bin/sh\n{body}", encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        return runs

    return install


WRITES_BOTH = 'printf "the broker" > "$jars/kafka_2.13-4.4.0.jar"; printf "its dependency" > "$jars/other-1.jar"'


@pytest.mark.usefixtures("pinned")
def test_jars_are_fetched_once_and_again_only_when_one_differs(tmp_path: Path, maven: Callable[[str], Path]) -> None:
    runs = maven(WRITES_BOTH)
    cache = tmp_path / "cache" / "kafka"
    fetch_jars(cache)
    fetch_jars(cache)
    assert runs.read_text(encoding="ascii").splitlines() == ["run"]
    (cache / "other-1.jar").write_bytes(b"somebody else's")
    fetch_jars(cache)
    assert runs.read_text(encoding="ascii").splitlines() == ["run"] * 2
    assert {file.name: file.read_bytes() for file in cache.iterdir()} == CONTENT
    assert [file.name for file in cache.parent.iterdir()] == ["kafka"], "what was fetched is not left lying about"


@pytest.mark.usefixtures("pinned")
def test_a_fetched_jar_that_is_not_the_pinned_one_is_not_kept(tmp_path: Path, maven: Callable[[str], Path]) -> None:
    maven(WRITES_BOTH.replace("its dependency", "a changed dependency"))
    cache = tmp_path / "cache" / "kafka"
    with pytest.raises(IntegrityError, match=r"not the pinned ones, nothing was kept: other-1\.jar"):
        fetch_jars(cache)
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("pinned")
def test_a_fetch_that_fails_says_what_maven_said(tmp_path: Path, maven: Callable[[str], Path]) -> None:
    maven("echo no route to anywhere; exit 1")
    with pytest.raises(TransientError, match=r"is the network there(?s:.*)no route to anywhere"):
        fetch_jars(tmp_path / "kafka")


@pytest.mark.usefixtures("pinned")
def test_without_maven_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="apt-get install maven"):
        fetch_jars(tmp_path / "kafka")


@pytest.mark.usefixtures("pinned")
def test_with_the_jars_there_maven_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setenv("PATH", "")
    fetch_jars(tmp_path)


def test_without_java_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(UsageError, match=r"Java 17 or newer.*apt-get install"):
        ApacheKafka(tmp_path).prepare(tmp_path)


def test_the_pom_and_the_pinned_digests_name_the_same_kafka() -> None:
    pom = ET.parse(KAFKA / "pom.xml")  # noqa: S314 - our own file
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    version = pom.findtext("m:properties/m:kafka.version", namespaces=space)
    assert version == kafka_version()
    log4j = pom.findtext("m:properties/m:log4j.version", namespaces=space)
    assert {f"log4j-core-{log4j}.jar", f"log4j-slf4j-impl-{log4j}.jar"} <= set(pinned_jars())
    assert pom.find("m:repositories", space) is None
    assert pom.find("m:pluginRepositories", space) is None


def test_every_pinned_jar_has_a_sha256() -> None:
    assert len(pinned_jars()) > 40
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in pinned_jars().values())


def test_the_cache_folder_is_one_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADSTREAM_ASSETS", str(tmp_path))
    assert default_jars_folder() == tmp_path / f"kafka-{kafka_version()}"
