"""The encrypted object store: photos, fingerprint images, probes and the originals of dead letters.

Objects live in scopes: one scope a booking, a probe or a dead letter, with a data key of its own that a master key
wraps. Destroying that key makes everything in the scope unreadable at once and for ever. The store is a folder, or a
bucket by URL (`s3://bucket/prefix`), through fsspec. Who may read what is not decided here.

    leadstream-object-store                                    says that this is a store, and under which master key
    keys/<2>/<digest of scope>                                 the wrapped data key, later a tombstone in its place
    objects/<2>/<digest of scope>/<digest of object id>        form, nonce, ciphertext and tag
    aside/                                                     writes under way (folders only)

Names on disk are digests: no id can point outside the store, and a booking number is not readable from a listing.
Data keys are never cached, so that a destroyed key is destroyed for every process.

What the operator must see to: a bucket keeps no old versions under `keys/`, and backups of `keys/` expire within the
deadline for expungements; else an old copy of a wrapped key outlives its destruction. A bucket must honour
`If-None-Match: *` (Amazon S3 does) and allow `s3:ListBucket`, or a missing object looks like a refused one.

Source: NIST SP 800-38D (GCM), SP 800-88 (cryptographic erase).
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote, unquote

import fsspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fsspec.implementations.local import LocalFileSystem

from connectors.key_custody import create_file_durably, sync_folder, write_aside
from schemas.errors import DomainFault, IntegrityError, TransientError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.key_custody import KeyWrapper

MAX_OBJECT_BYTES: Final = 64 * 1024 * 1024
MAX_NAME_BYTES: Final = 256

_MARKER_PATH = "leadstream-object-store"
_MARKER = b"leadstream object store, layout 1\n"
_OBJECT_FORM = b"LSO1"
_KEY_FORM = b"LSK1"
_TOMBSTONE = b"LSX1 this data key was destroyed on purpose\n"

_DATA_KEY_BITS = 256
_NONCE_BYTES = 12
_OVERHEAD_BYTES = len(_OBJECT_FORM) + _NONCE_BYTES + 16
_MAX_KEY_FILE_BYTES = 16 * 1024

_REFERENCE = re.compile(r"object:v1:([A-Za-z0-9_.~%/-]+):([A-Za-z0-9_.~%-]+)", re.ASCII)
_ASIDE_KEPT_S = 3600
# These create an object only if it is not there, in one step; a backend that cannot would let two writers overwrite
# each other's data key.
_PROTOCOLS_WITH_EXCLUSIVE_CREATE = frozenset({"s3", "s3a", "memory"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """Where an object is and what it is.

    `reference` is ASCII without secrets; `sha256` is of the bytes as given, in lower-case hexadecimal; `size` in bytes.
    """

    reference: str
    sha256: str
    size: int


def format_reference(scope: str, object_id: str) -> str:
    """Write the reference of an object: both names percent-encoded, so that any characters survive.

    Raises:
        DomainFault: OBJECT_NAME_INVALID: a name is empty, longer than 256 bytes in UTF-8, or not Unicode text.
    """
    for name in (scope, object_id):
        try:
            length = len(name.encode())
        except UnicodeEncodeError as error:
            raise DomainFault("OBJECT_NAME_INVALID", "a scope or object id is not valid Unicode text") from error
        if not 0 < length <= MAX_NAME_BYTES:
            raise DomainFault(
                "OBJECT_NAME_INVALID", f"a scope or object id has {length} bytes; 1 to {MAX_NAME_BYTES} are allowed"
            )
    return f"object:v1:{quote(scope, safe='/')}:{quote(object_id, safe='')}"


def parse_reference(reference: str) -> tuple[str, str]:
    """Read scope and object id from a reference; the inverse of `format_reference`.

    Raises:
        DomainFault: REFERENCE_UNRESOLVED: not a reference that this store ever gave out.
    """
    parts = _REFERENCE.fullmatch(reference)
    if parts is not None:
        with suppress(UnicodeDecodeError, DomainFault):
            scope, object_id = (unquote(part, errors="strict") for part in parts.groups())
            if format_reference(scope, object_id) == reference:
                return scope, object_id
    # Not quoted: what came instead of a reference may be anything, an image too (G10).
    raise DomainFault("REFERENCE_UNRESOLVED", f"not an object reference ({len(reference)} characters)")


class ObjectStore:
    """Puts and gets encrypted objects and destroys the keys of scopes.

    `create` makes a store where there is none; without it a store that is not there counts as away, so that an
    unmounted disk is never taken for an empty store. Safe to use from several threads and processes.

    Raises:
        UsageError: the kind of URL cannot be used.
        TransientError: the store is away.
        IntegrityError: the store belongs to another master key.
    """

    def __init__(
        self,
        url_or_path: str | Path,
        wrapper: KeyWrapper,
        *,
        max_object_bytes: int = MAX_OBJECT_BYTES,
        create: bool = True,
    ) -> None:
        self._wrapper = wrapper
        self._max_object_bytes = max_object_bytes
        self._backend = _open_backend(str(url_or_path))
        if create:
            self._backend.prepare()
            self._backend.create(_MARKER_PATH, _MARKER + wrapper.wrap(os.urandom(_DATA_KEY_BITS // 8), _MARKER))
        marker = self._backend.read(_MARKER_PATH, _MAX_KEY_FILE_BYTES)
        if marker is None:
            raise _store_is_away()
        # Found out now: a wrong master key would serve new scopes and lose the old ones.
        wrapper.unwrap(marker[len(_MARKER) :], _MARKER)

    def put(self, scope: str, object_id: str, data: bytes) -> StoredObject:
        """Store bytes under an id; putting the same bytes again changes nothing and gives the same answer.

        Raises:
            DomainFault: OBJECT_EXISTS (other bytes are stored under this id), KEY_DESTROYED (nothing can be stored in
                this scope ever again), OBJECT_TOO_LARGE, OBJECT_NAME_INVALID.
            TransientError: the store is away or full.
            IntegrityError: what is stored was altered.
        """
        reference = format_reference(scope, object_id)
        if len(data) > self._max_object_bytes:
            raise self._too_large(reference, len(data))
        data_key = self._find_data_key(scope) or self._create_data_key(scope)
        nonce = os.urandom(_NONCE_BYTES)
        ciphertext = AESGCM(data_key).encrypt(nonce, data, _binding(_OBJECT_FORM, scope, object_id))
        path = _object_path(scope, object_id)
        if not self._backend.create(path, _OBJECT_FORM + nonce + ciphertext):
            try:
                stored = self._backend.read(path, len(data) + _OVERHEAD_BYTES)
            except _TooLargeError:
                stored = None
            if stored is None or _decrypt(stored, data_key, scope, object_id) != data:
                raise DomainFault("OBJECT_EXISTS", f"other bytes are already stored as {reference}; use a new id")
        return StoredObject(reference=reference, sha256=hashlib.sha256(data).hexdigest(), size=len(data))

    def get(self, reference: str, expected_sha256: str, *, scope: str | None = None) -> bytes:
        """Read the bytes that a record refers to, and only those.

        Args:
            reference: as `put` gave it.
            expected_sha256: of the bytes, lower-case hexadecimal, from the record.
            scope: the record's own; a reference into another scope, such as a sealed booking's, is not followed.

        Raises:
            DomainFault: REFERENCE_UNRESOLVED, KEY_DESTROYED, OBJECT_TOO_LARGE (before it is read), DIGEST_MISMATCH.
            TransientError: the store is away.
            IntegrityError: the stored bytes or their key were altered.
        """
        data = self._read(reference, scope)
        if hashlib.sha256(data).hexdigest() != expected_sha256:
            raise DomainFault("DIGEST_MISMATCH", f"{reference} is not the object that the record describes")
        return data

    def fetch(self, reference: str, *, scope: str) -> bytes:
        """Read the bytes under a reference whose record does not say their digest.

        They are what was put there, by whoever had the master key: the encryption binds them to scope and id.

        Raises:
            DomainFault: as `get`, except DIGEST_MISMATCH.
            TransientError: the store is away.
            IntegrityError: the stored bytes or their key were altered.
        """
        return self._read(reference, scope)

    def _read(self, reference: str, own_scope: str | None) -> bytes:
        scope, object_id = parse_reference(reference)
        if own_scope is not None and scope != own_scope:
            raise DomainFault("REFERENCE_UNRESOLVED", "the reference points at an object of another record")
        data_key = self._find_data_key(scope)
        stored = None
        if data_key is not None:
            try:
                stored = self._backend.read(_object_path(scope, object_id), self._max_object_bytes + _OVERHEAD_BYTES)
            except _TooLargeError as error:
                raise self._too_large(reference, error.size - _OVERHEAD_BYTES) from error
        if data_key is None or stored is None:
            self._require_store()
            raise DomainFault("REFERENCE_UNRESOLVED", f"nothing is stored as {reference}; was it sent to this store?")
        return _decrypt(stored, data_key, scope, object_id)

    def exists(self, reference: str) -> bool:
        """Tell whether an object is stored and its key not destroyed.

        Raises:
            TransientError: the store is away.
            IntegrityError: the key was altered.
        """
        try:
            scope, object_id = parse_reference(reference)
            return self._find_data_key(scope) is not None and self._backend.exists(_object_path(scope, object_id))
        except DomainFault:
            return False

    def destroy_key(self, scope: str) -> None:
        """Make everything in a scope unreadable for ever, and the scope unusable; also when nothing is in it yet.

        When this returns, the wrapped key is gone from the store; doing it again changes nothing.

        Raises:
            DomainFault: OBJECT_NAME_INVALID.
            TransientError: the store is away; the key may still be there.
        """
        format_reference(scope, "any")
        self._require_store()
        # The tombstone takes the key's own name: a key that is being created at this moment loses against it.
        self._backend.replace(_key_path(scope), _TOMBSTONE)

    def _find_data_key(self, scope: str) -> bytes | None:
        try:
            content = self._backend.read(_key_path(scope), _MAX_KEY_FILE_BYTES)
        except _TooLargeError as error:
            raise IntegrityError("a data key in the object store was altered: it is far too long") from error
        if content is None:
            self._require_store()
            return None
        if content.startswith(_TOMBSTONE):
            raise DomainFault(
                "KEY_DESTROYED", f"the data key of {scope!r} was destroyed; its objects are gone for good"
            )
        if not content.startswith(_KEY_FORM):
            raise IntegrityError("a data key in the object store was altered: its form is unknown")
        return self._wrapper.unwrap(content[len(_KEY_FORM) :], _binding(_KEY_FORM, scope))

    def _create_data_key(self, scope: str) -> bytes:
        data_key = AESGCM.generate_key(bit_length=_DATA_KEY_BITS)
        wrapped_key = self._wrapper.wrap(data_key, _binding(_KEY_FORM, scope))
        if self._backend.create(_key_path(scope), _KEY_FORM + wrapped_key):
            return data_key
        winners_key = self._find_data_key(scope)
        if winners_key is None:
            raise IntegrityError("a data key vanished from the object store without a tombstone")
        return winners_key

    def _require_store(self) -> None:
        if not self._backend.exists(_MARKER_PATH):
            raise _store_is_away()

    def _too_large(self, reference: str, size: int) -> DomainFault:
        return DomainFault(
            "OBJECT_TOO_LARGE", f"{reference} has {size} bytes; the limit is {self._max_object_bytes} bytes"
        )


def _store_is_away() -> TransientError:
    return TransientError(
        f"the object store is away, or was never created, or has lost its file {_MARKER_PATH}; "
        "check the mount or the bucket, and that the setting names the right place"
    )


def _decrypt(stored: bytes, data_key: bytes, scope: str, object_id: str) -> bytes:
    nonce = stored[len(_OBJECT_FORM) : len(_OBJECT_FORM) + _NONCE_BYTES]
    if not stored.startswith(_OBJECT_FORM) or len(stored) < _OVERHEAD_BYTES:
        raise IntegrityError(f"{format_reference(scope, object_id)} was altered: its form is unknown")
    try:
        ciphertext = memoryview(stored)[len(_OBJECT_FORM) + _NONCE_BYTES :]
        return AESGCM(data_key).decrypt(nonce, ciphertext, _binding(_OBJECT_FORM, scope, object_id))
    except InvalidTag as error:
        raise IntegrityError(f"{format_reference(scope, object_id)} was altered or put in another's place") from error


def _binding(form: bytes, *names: str) -> bytes:
    """Say which object or key a ciphertext belongs to; lengths keep ("a", "bc") apart from ("ab", "c")."""
    encoded = [name.encode() for name in names]
    return form + b"".join(len(name).to_bytes(4, "big") + name for name in encoded)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _key_path(scope: str) -> str:
    return f"keys/{_digest(scope)[:2]}/{_digest(scope)}"


def _object_path(scope: str, object_id: str) -> str:
    return f"objects/{_digest(scope)[:2]}/{_digest(scope)}/{_digest(object_id)}"


class _TooLargeError(Exception):
    """A stored file is larger than the reader allows; never leaves this module."""

    def __init__(self, size: int) -> None:
        super().__init__("too large")
        self.size = size


class _Backend(Protocol):
    """Files by relative path; every method turns trouble with the place itself into TransientError."""

    def prepare(self) -> None:
        """Make the place if it is not there."""
        ...

    def read(self, path: str, limit_bytes: int) -> bytes | None:
        """Read a file, None if there is none; raises _TooLargeError before reading more than the limit."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Write a whole new file, durably; False, and no change, if there is one."""
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Put a file in the place of whatever is there, durably and in one step."""
        ...

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file."""
        ...


def _open_backend(url_or_path: str) -> _Backend:
    protocol = url_or_path.split("://", 1)[0] if "://" in url_or_path else "file"
    if protocol not in _PROTOCOLS_WITH_EXCLUSIVE_CREATE | {"file", "local"}:
        raise UsageError(f"the object store cannot live at {protocol}://; use a folder or s3://bucket/prefix")
    try:
        # No listing cache: it would show this process a state that others have changed.
        options = {} if protocol in {"file", "local"} else {"use_listings_cache": False}
        filesystem, root = fsspec.core.url_to_fs(url_or_path, **options)
    except ImportError as error:
        raise UsageError(f"{protocol}:// needs a library that is not installed; run: pip install s3fs") from error
    if isinstance(filesystem, LocalFileSystem):
        return _Folder(Path(root))
    return _Bucket(filesystem, root.rstrip("/"))


class _Folder:
    """A folder on this machine or on a mounted disk; files 0600, folders 0700."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def prepare(self) -> None:
        with self._trouble_is_transient():
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_folder(self._root / "aside")
            self._sweep()

    def read(self, path: str, limit_bytes: int) -> bytes | None:
        with self._trouble_is_transient():
            try:
                with (self._root / path).open("rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    if size > limit_bytes:
                        raise _TooLargeError(size)
                    return file.read(limit_bytes)
            except FileNotFoundError:
                return None

    def create(self, path: str, data: bytes) -> bool:
        target = self._root / path
        with self._trouble_is_transient():
            if target.exists():
                return False
            self._make_folder(target.parent)
            try:
                create_file_durably(target, data, aside=self._aside(target))
            except FileExistsError:
                return False
        return True

    def replace(self, path: str, data: bytes) -> None:
        target = self._root / path
        with self._trouble_is_transient():
            self._make_folder(target.parent)
            try:
                replaced = target.open("r+b", buffering=0)
            except FileNotFoundError:
                replaced = None
            with replaced or nullcontext():
                aside = self._aside(target)
                write_aside(aside, data)
                aside.replace(target)
                sync_folder(target.parent)
                # A writer killed at the wrong moment leaves a second name for what it wrote.
                for leftover in (self._root / "aside").glob(f"{target.name}.*"):
                    leftover.unlink(missing_ok=True)
                sync_folder(self._root / "aside")
                if replaced is not None:
                    # The bytes that lost their name would stay readable in free blocks of the disk.
                    replaced.write(data.ljust(os.fstat(replaced.fileno()).st_size, b"\x00"))
                    os.fsync(replaced.fileno())

    def exists(self, path: str) -> bool:
        with self._trouble_is_transient():
            return (self._root / path).exists()

    def _aside(self, target: Path) -> Path:
        return self._root / "aside" / f"{target.name}.{os.urandom(8).hex()}"

    def _sweep(self) -> None:
        """Remove what killed writers left, once no living one can still be at it."""
        for leftover in (self._root / "aside").iterdir():
            with suppress(FileNotFoundError):
                if time.time() - leftover.stat().st_mtime > _ASIDE_KEPT_S:
                    leftover.unlink()

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and those above it, but never the root: if that is gone, the store is away."""
        if folder == self._root or folder.is_dir():
            return
        self._make_folder(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        sync_folder(folder.parent)

    @contextmanager
    def _trouble_is_transient(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TransientError(
                f"the object store in {self._root} cannot be used now: {error.strerror}; check the mount, the free "
                "space, and that this user may read and write there"
            ) from error


class _Bucket:
    """A bucket behind fsspec; one request writes an object whole or not at all."""

    # fsspec ships no types; every value that crosses is annotated here.
    def __init__(self, filesystem: fsspec.AbstractFileSystem, root: str) -> None:
        self._filesystem = filesystem
        self._root = root

    def prepare(self) -> None:
        """Do nothing: making a bucket, with its policy, is the operator's."""

    def read(self, path: str, limit_bytes: int) -> bytes | None:
        with self._trouble_is_transient():
            try:
                size: int = self._filesystem.info(self._at(path))["size"]
                if size > limit_bytes:
                    raise _TooLargeError(size)
                if size == 0:
                    return b""  # a range of nothing is an error to S3
                content: bytes = self._filesystem.cat_file(self._at(path), start=0, end=size)
            except FileNotFoundError:
                return None
        return content

    def create(self, path: str, data: bytes) -> bool:
        with self._trouble_is_transient():
            try:
                self._filesystem.pipe_file(self._at(path), data, mode="create")
            except FileExistsError:
                return False
            except OSError:
                # Some servers report the failed condition in words that fsspec does not know.
                if self.exists(path):
                    return False
                raise
        return True

    def replace(self, path: str, data: bytes) -> None:
        with self._trouble_is_transient():
            self._filesystem.pipe_file(self._at(path), data)

    def exists(self, path: str) -> bool:
        with self._trouble_is_transient():
            try:
                self._filesystem.info(self._at(path))
            except FileNotFoundError:
                return False
        return True

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    @contextmanager
    def _trouble_is_transient(self) -> Iterator[None]:
        try:
            yield
        except (_TooLargeError, TransientError):
            raise
        # Clients below fsspec raise what they like (connection, credentials, throttling); all of it is the world.
        except Exception as error:
            raise TransientError(
                f"the object store at {self._root} cannot be used now ({type(error).__name__}); check the address, the "
                "credentials and the network"
            ) from error
