"""Where long-lived secrets are kept: files that hold keys, and the master key that wraps every data key.

The object store asks a `KeyWrapper` to wrap the data key of a booking or probe. `FileMasterKey` does it with a key from
a file; a key management service stands behind the same two methods. Nothing here knows what a data key protects.

Source: NIST SP 800-38D (GCM), SP 800-57 part 1 (key wrapping keys).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from typing import TYPE_CHECKING, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

MASTER_KEY_BYTES = 32

_SECRET_MODE = 0o600
_SECRET_FOLDER_MODE = 0o700
_OTHERS_MAY_TOUCH = 0o077
_MAX_SECRET_FILE_BYTES = 16 * 1024

_WRAP_VERSION = b"\x01"
_KEY_ID_BYTES = 8
_NONCE_BYTES = 12


class KeyWrapper(Protocol):
    """Encrypts data keys under a key that never leaves it."""

    def wrap(self, data_key: bytes, context: bytes) -> bytes:
        """Encrypt a data key so that it opens only with the same context; the result names the wrapping key.

        Raises:
            TransientError: the wrapping key is away.
        """
        ...

    def unwrap(self, wrapped_key: bytes, context: bytes) -> bytes:
        """Give back the data key.

        Raises:
            IntegrityError: altered, from another context, or wrapped under another key.
            TransientError: the wrapping key is away.
        """
        ...


class FileMasterKey:
    """A master key from a file: AES-256-GCM with the context as associated data.

    A wrapped key is version (1 byte), key id (8), nonce (12), ciphertext and tag. The key id says which master key is
    needed, so that a later rotation can tell old from new.
    """

    __slots__ = ("_cipher", "_key_id")

    def __init__(self, master_key: bytes) -> None:
        if len(master_key) != MASTER_KEY_BYTES:
            raise UsageError(f"a master key has {MASTER_KEY_BYTES} bytes, this one has {len(master_key)}")
        self._cipher = AESGCM(master_key)
        self._key_id = hashlib.sha256(b"leadstream master key id v1\x00" + master_key).digest()[:_KEY_ID_BYTES]

    @classmethod
    def load(cls, path: Path) -> FileMasterKey:
        """Read the master key.

        Raises:
            UsageError: no such file, others may read it, or it does not hold 32 bytes.
        """
        master_key = read_secret_file(path)
        if len(master_key) != MASTER_KEY_BYTES:
            raise UsageError(
                f"{path} is not a master key: it holds {len(master_key)} bytes, not {MASTER_KEY_BYTES}. "
                "Put the right file there; a new key cannot open what an older one protects."
            )
        return cls(master_key)

    @property
    def key_id(self) -> str:
        """Name of the master key in hexadecimal; says nothing about its bytes."""
        return self._key_id.hex()

    def wrap(self, data_key: bytes, context: bytes) -> bytes:
        """Encrypt a data key so that it opens only under this master key and with the same context."""
        prefix = _WRAP_VERSION + self._key_id
        nonce = os.urandom(_NONCE_BYTES)
        return prefix + nonce + self._cipher.encrypt(nonce, data_key, prefix + context)

    def unwrap(self, wrapped_key: bytes, context: bytes) -> bytes:
        """Give back the data key.

        Raises:
            IntegrityError: altered, from another context, or wrapped under another master key.
        """
        prefix_bytes = len(_WRAP_VERSION) + _KEY_ID_BYTES
        prefix, body = wrapped_key[:prefix_bytes], wrapped_key[prefix_bytes:]
        if not wrapped_key.startswith(_WRAP_VERSION) or len(prefix) != prefix_bytes:
            raise IntegrityError("a wrapped data key is not in a known form; restore the store's keys folder")
        wrapped_under = prefix[len(_WRAP_VERSION) :]
        if wrapped_under != self._key_id:
            raise IntegrityError(
                f"a data key is wrapped under master key {wrapped_under.hex()}, but this is master key {self.key_id}; "
                "start with the master key file that belongs to this object store"
            )
        try:
            return self._cipher.decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], prefix + context)
        except (InvalidTag, ValueError) as error:
            raise IntegrityError("a wrapped data key was altered or belongs to another scope") from error

    def __repr__(self) -> str:
        return f"FileMasterKey(key_id={self.key_id!r})"


def create_master_key(path: Path) -> None:
    """Write a new random master key that only its owner can read.

    Raises:
        UsageError: the file exists (a master key is never overwritten), or the folder cannot be written.
    """
    create_secret_file(path, AESGCM.generate_key(bit_length=8 * MASTER_KEY_BYTES))


def read_secret_file(path: Path) -> bytes:
    """Read a file that holds a secret, only if nobody but its owner may touch it.

    Raises:
        UsageError: missing, not a regular file, too large for a key, or open to others.
    """
    try:
        # Not blocking: a pipe in the place of a key must be refused, not waited for.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise UsageError(f"{path} is not a regular file; point to the file that holds the key")
            if facts.st_mode & _OTHERS_MAY_TOUCH:
                raise UsageError(f"others may read or change {path}; run: chmod 600 {path}")
            secret = file.read(_MAX_SECRET_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read the key file {path}: {error.strerror}") from error
    if len(secret) > _MAX_SECRET_FILE_BYTES:
        raise UsageError(f"{path} is too large to be a key; point to the file that holds the key")
    return secret


def create_secret_file(path: Path, secret: bytes) -> None:
    """Write a new file with mode 0600, whole or not at all, in a folder made with mode 0700 if there is none.

    Raises:
        UsageError: the file exists, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(mode=_SECRET_FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {path.parent}: {error.strerror}") from error
    try:
        create_file_durably(path, secret, aside=path.with_name(f".{path.name}.{os.urandom(8).hex()}"))
    except FileExistsError as error:
        raise UsageError(f"{path} exists and is not overwritten; what it protects would be lost") from error
    except OSError as error:
        raise UsageError(f"cannot write the key file {path}: {error.strerror}") from error


def create_file_durably(path: Path, data: bytes, *, aside: Path) -> None:
    """Make a file appear whole under its name, once, and be there after a power cut.

    `aside` is an unused name on the same file system. Of several processes that create one path, one wins.

    Raises:
        FileExistsError: the name is taken.
        OSError: as the file system says (full, away, not permitted).
    """
    write_aside(aside, data)
    try:
        # Not a rename: a link refuses to replace what another process has just put there.
        os.link(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_aside(aside: Path, data: bytes) -> None:
    """Write data to the disk under a name nobody reads yet, with mode 0600; leaves nothing when it fails.

    Raises:
        OSError: as the file system says.
    """
    try:
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _SECRET_MODE), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut.

    Raises:
        OSError: as the file system says.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
