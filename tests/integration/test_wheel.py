"""What ships is tested: the wheel carries schemas, SQL, policy, model card and pom, and the command starts from it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import infra

pytestmark = pytest.mark.any_broker
ROOT = Path(infra.__file__).resolve().parent.parent
LOAD_ALL = """
import sys
from pathlib import Path
from infra import agreements, assets, brokers, clickhouse, settings, wiring
from infra.brokers.apache import pinned_jars
from schemas.topics import TOPICS
assert assets.__file__.startswith(sys.argv[1]), assets.__file__
assert TOPICS and clickhouse.load_schema() and pinned_jars()
assert assets.load_card(assets.DEFAULT_CARD).recogniser.dimension
policy = wiring.policy(settings.load_settings())
assert policy.probes.prohibited_sources
assert all(agreements.text_of(*agreement, Path("none")) for agreement in policy.users.agreements.items())
"""


def test_the_wheel_carries_everything_that_the_code_reads(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    rooms = ("schemas/", "processors/", "connectors/", "streams/", "infra/")
    missing = [path for path in tracked if path.startswith(rooms) and not (unpacked / path).is_file()]
    assert missing == [] or not (ROOT / missing[0]).exists(), missing
    # Isolated from the checkout: only the unpacked wheel and the installed libraries are on the path.
    code = f"import sys; sys.path.insert(0, {str(unpacked)!r})\n{LOAD_ALL}"
    subprocess.run([sys.executable, "-P", "-c", code, str(unpacked)], cwd=tmp_path, check=True)


def test_the_command_of_the_readme_starts() -> None:
    said = subprocess.run([Path(sys.executable).parent / "leadstream", "--help"], check=True, capture_output=True)
    for command in (b"init", b"up", b"demo", b"book", b"probe", b"audit", b"user", b"publisher", b"topics", b"assets"):
        assert command in said.stdout
