"""Apache Kafka on this machine: its own jars, fetched by Maven, checked, run in KRaft mode as one combined node.

For failure tests, benchmarks and a pilot. A record is acknowledged when it is in the page cache: it survives a kill of
the broker, not a power cut; production has replicas for that. Source of the settings: infra/kafka/server.properties.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from infra.brokers.process import LOOPBACK, ChildProcess, free_port, tail
from schemas.errors import IntegrityError, TransientError, UsageError

if TYPE_CHECKING:
    from infra.brokers.broker import Kind

_KAFKA = Path(__file__).parent.parent / "kafka"
_FETCH_TIMEOUT_S = 900
_FORMAT_TIMEOUT_S = 60
# The quick compiler only: it halves the processor time of a start (8 s to 4.5 s), and 600,000 records of 1 kB cost the
# broker no more with it than with both (5.3 s against 6.8 s).
_JVM = ("-Xms256m", "-Xmx512m", "-XX:+ExitOnOutOfMemoryError", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")


class ApacheKafka:
    """Recipe for Apache Kafka; `jars` is the folder that keeps its jars, by default one in the cache folder."""

    kind: Kind = "apache"
    start_timeout_s = 90.0
    stop_timeout_s = 30.0
    advice = "It needs Java 17 or newer (`java -version`), about 600 MB of memory and a disk that is not full."

    def __init__(self, jars: Path | None = None) -> None:
        self._jars = jars if jars is not None else default_jars_folder()

    def prepare(self, data: Path) -> None:
        """Fetch what is missing of the jars, and format the storage the first time.

        Raises:
            UsageError: `java`, or `mvn` while jars are missing, is not installed.
            TransientError: Maven could not fetch the jars; or the storage could not be formatted.
            IntegrityError: a fetched jar is not the pinned one.
        """
        _java()
        fetch_jars(self._jars)
        if not (data / self.kind / "meta.properties").exists():
            self._format(data)

    def command(self, data: Path, port: int) -> list[str]:
        """Write the settings for this start; return the command that runs with them."""
        settings = self._write_settings(data, port)
        logging_options = [f"-Dlog4j2.configurationFile={_KAFKA / 'log4j2.xml'}", f"-Dleadstream.data={data}"]
        return [*self._java_command(), *logging_options, "kafka.Kafka", str(settings)]

    def _java_command(self) -> list[str]:
        # Jar by jar from the pinned list: a file that somebody put beside them is not on the class path.
        class_path = os.pathsep.join(str(self._jars / jar) for jar in pinned_jars())
        return [_java(), *_JVM, "-cp", class_path]

    def _write_settings(self, data: Path, port: int) -> Path:
        # The controller needs a port of its own although nobody but this process talks to it.
        while (controller_port := free_port()) == port:
            pass
        settings = data / "server.properties"
        fixed = (_KAFKA / "server.properties").read_text(encoding="utf-8")
        here = {
            "log.dirs": _escaped(data / self.kind),
            "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
            "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
        }
        lines = "".join(f"{name}={value}\n" for name, value in here.items())
        settings.write_text(f"{fixed}\n# Added at this start.\n{lines}", encoding="utf-8")
        return settings

    def _format(self, data: Path) -> None:
        # A cluster id of its own for each data folder, kept in its meta.properties: a client that comes back sees at
        # once when it reached another cluster.
        settings = self._write_settings(data, free_port())
        tool = ["kafka.tools.StorageTool", "format", "--cluster-id", _cluster_id(), "--config", str(settings)]
        log = data / "console.log"
        since = log.stat().st_size if log.exists() else 0
        child = ChildProcess([*self._java_command(), *tool], folder=data, console=log)
        try:
            child.start()
            child.wait(_FORMAT_TIMEOUT_S)
        finally:
            child.kill()
        if child.poll() != 0:
            raise TransientError(f"Kafka's storage could not be formatted. {self.advice}\n{tail(log, since=since)}")


def default_jars_folder() -> Path:
    """Return the cache folder of this Kafka version: below LEADSTREAM_ASSETS if set, else ~/.cache/leadstream."""
    assets = os.environ.get("LEADSTREAM_ASSETS")
    return (Path(assets) if assets else Path.home() / ".cache" / "leadstream") / f"kafka-{kafka_version()}"


def kafka_version() -> str:
    """Return the pinned version of Kafka, e.g. 4.4.0."""
    prefix = "kafka_2.13-"
    return next(jar for jar in pinned_jars() if jar.startswith(prefix)).removeprefix(prefix).removesuffix(".jar")


def pinned_jars() -> dict[str, str]:
    """Return every jar that the broker runs with and its SHA-256 (hexadecimal), from infra/kafka/jars.sha256."""
    lines = (_KAFKA / "jars.sha256").read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def fetch_jars(folder: Path) -> None:
    """Make sure that `folder` holds every pinned jar; runs Maven only if one is missing or differs.

    Raises:
        UsageError: Maven is needed and not installed.
        TransientError: Maven could not fetch them.
        IntegrityError: a fetched jar is not the pinned one.
    """
    if not _wrong_jars(folder):
        return
    maven = shutil.which("mvn")
    if maven is None:
        raise UsageError(
            f"Kafka's jars are not in {folder} and Maven is not installed to fetch them: install it"
            " (Debian: apt-get install maven), or use the embedded broker",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="kafka-fetch-") as fetched:
        command = [maven, "--batch-mode", "--quiet", "--file", str(_KAFKA / "pom.xml"), f"-Djars={fetched}"]
        done = subprocess.run(  # noqa: S603 - our own command
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_FETCH_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            said = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
            raise TransientError(f"Maven could not fetch Kafka's jars: is the network there? It said:\n{said}")
        if wrong := _wrong_jars(Path(fetched)):
            raise IntegrityError(
                f"Maven fetched jars that are not the pinned ones, nothing was kept: {', '.join(wrong)}."
                " Do not run them; compare infra/kafka/jars.sha256 and pom.xml with a fresh copy of Leadstream",
            )
        for jar in pinned_jars():
            Path(fetched, jar).replace(folder / jar)


def _wrong_jars(folder: Path) -> list[str]:
    return [jar for jar, digest in pinned_jars().items() if _sha256(folder / jar) != digest]


def _sha256(file: Path) -> str | None:
    if not file.is_file():
        return None
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=Path(home, "bin")) if home else None
    java = java or shutil.which("java")
    if java is None:
        raise UsageError(
            "Apache Kafka needs Java 17 or newer: install it (Debian: apt-get install openjdk-17-jre-headless),"
            " or use the embedded broker",
        )
    return java


def _cluster_id() -> str:
    """Return 16 random bytes in Kafka's base64 form; an id that starts like an option is drawn again."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes)[:22].decode()).startswith("-"):
        pass
    return text


def _escaped(path: Path) -> str:
    # A properties file takes a backslash for an escape, and log.dirs a comma for a list.
    if "," in str(path):
        raise UsageError(f"Kafka cannot use a data folder with a comma in its name: {path}")
    return str(path).replace("\\", "\\\\")
