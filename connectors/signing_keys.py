"""A publisher's private key: made, read from its file, and used to sign what it publishes.

Any Ed25519 key that other tools made (PKCS8 PEM without a passphrase, or the 32 raw bytes) can be used. Checking
signatures is `schemas/signing.py`; who may publish what is the registry of publishers.

Source: RFC 8032 (Ed25519), RFC 8410 (Ed25519 in PKCS8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from connectors.key_custody import create_secret_file, read_secret_file
from schemas.errors import UsageError
from schemas.signing import HEADER_KEY_ID, HEADER_SIGNATURE, key_id, signed_message

if TYPE_CHECKING:
    from pathlib import Path

_PEM_START = b"-----BEGIN "
_RAW_KEY_BYTES = 32


class SigningKey:
    """An Ed25519 private key; shows its public half only."""

    __slots__ = ("_key_id", "_private_key", "_public_key")

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self._public_key = private_key.public_key().public_bytes_raw()
        self._key_id = key_id(self._public_key)

    @classmethod
    def create(cls, path: Path) -> SigningKey:
        """Make a new key and write it as PKCS8 PEM with mode 0600, in a folder made with mode 0700 if there is none.

        Raises:
            UsageError: the file exists (a signing key is never overwritten), or the folder cannot be written.
        """
        private_key = Ed25519PrivateKey.generate()
        create_secret_file(path, private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return cls(private_key)

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Read a key from a PKCS8 PEM file or a file of 32 raw bytes.

        Raises:
            UsageError: no such file, others may read it, or it holds no Ed25519 private key.
        """
        return cls(_private_key(read_secret_file(path), path))

    @property
    def public_key(self) -> bytes:
        """The public half, 32 raw bytes: what an administrator registers."""
        return self._public_key

    @property
    def key_id(self) -> str:
        """The name of the public half that signed records carry."""
        return self._key_id

    def sign(self, topic: str, key: bytes, value: bytes) -> list[tuple[str, bytes]]:
        """Sign one record and return the Kafka headers to send with it."""
        return [
            (HEADER_KEY_ID, self._key_id.encode("ascii")),
            (HEADER_SIGNATURE, self._private_key.sign(signed_message(topic, key, value))),
        ]

    def __repr__(self) -> str:
        return f"SigningKey(key_id={self._key_id!r})"


def _private_key(content: bytes, path: Path) -> Ed25519PrivateKey:
    if len(content) == _RAW_KEY_BYTES:
        return Ed25519PrivateKey.from_private_bytes(content)
    if not content.lstrip().startswith(_PEM_START):
        raise UsageError(f"{path} holds no Ed25519 private key: give a PKCS8 PEM file or {_RAW_KEY_BYTES} raw bytes")
    try:
        private_key = load_pem_private_key(content, password=None)
    except TypeError as error:
        raise UsageError(f"{path} is locked with a passphrase; store the key without one, with mode 600") from error
    except (ValueError, UnsupportedAlgorithm):
        # The parser's own text is dropped: it may quote what it read.
        raise UsageError(f"{path} holds no readable private key; make one or restore it") from None
    if not isinstance(private_key, Ed25519PrivateKey):
        raise UsageError(f"{path} holds a private key of another kind; records are signed with Ed25519")
    return private_key
