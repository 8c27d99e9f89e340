"""The data folder of one machine: where everything lies, and how it comes to be (`leadstream init`)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from connectors.key_custody import create_master_key
from connectors.signing_keys import SigningKey
from processors.access import ROOT_ADMINISTRATOR
from schemas.errors import TransientError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path
    from uuid import UUID


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Names of the files and folders below one root."""

    root: Path

    @property
    def keys(self) -> Path:
        """Private keys; readable by the owner only."""
        return self.root / "keys"

    @property
    def master_key(self) -> Path:
        """Wraps the data keys of the object store."""
        return self.keys / "master.key"

    @property
    def administrator_public_key(self) -> Path:
        """The root of trust in the directory, 64 hex digits."""
        return self.keys / "administrator.pub"

    @property
    def objects(self) -> Path:
        """The object store, unless it is elsewhere."""
        return self.root / "objects"

    @property
    def audit(self) -> Path:
        """The ClickHouse engine's files, unless a server holds them."""
        return self.root / "audit"

    @property
    def kafka(self) -> Path:
        """The broker's files, if it runs here."""
        return self.root / "kafka"

    @property
    def logs(self) -> Path:
        """What the roles say."""
        return self.root / "logs"

    @property
    def agreements(self) -> Path:
        """Texts of agreements that stand in place of the shipped ones: <agreement>-<version>.txt."""
        return self.root / "agreements"

    @property
    def sheets(self) -> Path:
        """Sheets of reviews, a folder for each examiner; readable by the owner only."""
        return self.root / "sheets"

    @property
    def run(self) -> Path:
        """What is true only while it runs: addresses, ready marks."""
        return self.root / "run"

    def worker(self, name: str) -> Path:
        """A worker's own folder."""
        return self.root / "workers" / name

    def sheet(self, user_id: str, review_id: UUID) -> Path:
        """The sheet of one review."""
        return self.sheets / _file_name(user_id) / f"{review_id}.html"

    def destroy_sheets(self, reviews: Collection[UUID]) -> None:
        """Delete the sheets of some reviews, where they are on this machine.

        Raises:
            TransientError: one cannot be deleted; the text says why.
        """
        for review_id in reviews:
            for path in self.sheets.glob(f"*/{review_id}.html"):
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    raise TransientError(f"{path} cannot be deleted: {error.strerror}; delete it.") from None

    def user_key(self, user_id: str) -> Path:
        """Private key of a person who works at this machine's command line."""
        return self.keys / "users" / f"{_file_name(user_id)}.key"

    def publisher_key(self, publisher_id: str) -> Path:
        """Private key of a publisher that runs on this machine."""
        return self.keys / "publishers" / f"{_file_name(publisher_id)}.key"

    def require(self) -> None:
        """Make sure the folder was made by `init`.

        Raises:
            UsageError: it was not.
        """
        if not self.administrator_public_key.is_file():
            raise UsageError(f"{self.root} is no data folder yet; run `leadstream init --data {self.root}` first.")

    def root_public_key(self, pinned: str | None) -> bytes:
        """Return the first administrator's public key, as pinned by a setting or as `init` made it.

        Raises:
            UsageError: there is none, or it is no key.
        """
        if pinned is None:
            self.require()
            pinned = self.administrator_public_key.read_text(encoding="ascii").strip()
        try:
            return bytes.fromhex(pinned)
        except ValueError:
            raise UsageError("The administrator's public key must be 64 hexadecimal digits.") from None

    def announce(self, name: str, facts: dict[str, str | int]) -> None:
        """Write facts that hold while a role runs, whole or not at all."""
        self.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = self.run / f".{name}.{os.getpid()}"
        aside.write_text(json.dumps(facts), encoding="utf-8")
        aside.replace(self.run / f"{name}.json")

    def announced(self, name: str) -> dict[str, str | int] | None:
        """Return the facts that a role announced, or None."""
        try:
            facts: dict[str, str | int] = json.loads((self.run / f"{name}.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return facts

    def withdraw(self, name: str) -> None:
        """Forget what a role announced."""
        (self.run / f"{name}.json").unlink(missing_ok=True)


def _file_name(ident: str) -> str:
    if not ident or not all(char.isalnum() or char in "-_.@" for char in ident) or ident.startswith("."):
        raise UsageError(f"{ident!r} cannot name a key here; use letters, digits and - _ . @")
    return ident


def initialise(folder: DataFolder) -> bytes:
    """Make a data folder: master key and the first administrator's key, once. Return that key's public half.

    Raises:
        UsageError: it was made before; keys are never made anew over old ones.
    """
    if folder.keys.exists() and any(folder.keys.iterdir()):
        raise UsageError(f"{folder.root} has keys already; nothing was changed.")
    folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.keys.mkdir(mode=0o700, exist_ok=True)
    create_master_key(folder.master_key)
    administrator = SigningKey.create(folder.user_key(ROOT_ADMINISTRATOR))
    # Last, and whole: what has this file was made completely.
    aside = folder.administrator_public_key.with_suffix(".aside")
    aside.write_text(administrator.public_key.hex() + "\n", encoding="ascii")
    aside.replace(folder.administrator_public_key)
    return administrator.public_key
