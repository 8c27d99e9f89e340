"""Who said it: the bytes a publisher signs, the headers that carry the signature, and the check.

Every record from outside is signed with Ed25519 over topic, key and value, so that a valid record can be neither
altered nor replayed under another key or on another topic. What a key may publish is not decided here: that is the
registry of publishers. Private keys are never seen here (`connectors/signing_keys.py`).

Source: RFC 8032 (Ed25519).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

if TYPE_CHECKING:
    from collections.abc import Iterable

HEADER_KEY_ID = "ls-key-id"
HEADER_SIGNATURE = "ls-signature"

PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
KEY_ID_CHARS = 32

# Nothing else that an Ed25519 key may ever sign begins like this; a new layout takes a new number.
_DOMAIN = b"leadstream signed record v1\x00"
_LENGTH_BYTES = 8

_FIELD_PRIME = 2**255 - 19
_SIGN_BIT = 1 << 255
_ORDER_8_Y = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
# The y coordinates of the eight points whose order divides 8. Under such a "public key" anyone can make a signature
# that OpenSSL accepts, so it says nothing about who spoke.
_SMALL_ORDER_Y = frozenset({0, 1, _FIELD_PRIME - 1, _ORDER_8_Y, _FIELD_PRIME - _ORDER_8_Y})


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureHeaders:
    """The two headers of a signed record.

    `key_id` is 32 lower-case hexadecimal characters, `signature` 64 bytes.
    """

    key_id: str
    signature: bytes


def signed_message(topic: str, key: bytes, value: bytes) -> bytes:
    """Join topic, key and value so that no other three give the same bytes.

    A fixed domain, then each part behind its length (8 bytes, big-endian); the topic as UTF-8.

    Raises:
        UnicodeEncodeError: the topic holds a lone surrogate; no Kafka topic does.
    """
    parts = (topic.encode(), key, value)
    return _DOMAIN + b"".join(len(part).to_bytes(_LENGTH_BYTES, "big") + part for part in parts)


def key_id(public_key: bytes) -> str:
    """Name a raw 32-byte Ed25519 public key: the first half of its SHA-256 in hexadecimal."""
    return hashlib.sha256(public_key).hexdigest()[:KEY_ID_CHARS]


def is_usable_public_key(public_key: bytes) -> bool:
    """Tell whether signatures under this key can prove anything; ask before registering a publisher."""
    if len(public_key) != PUBLIC_KEY_BYTES:
        return False
    y = (int.from_bytes(public_key, "little") & ~_SIGN_BIT) % _FIELD_PRIME
    return y not in _SMALL_ORDER_Y


def verify(public_key: bytes, topic: str, key: bytes, value: bytes, signature: bytes) -> bool:
    """Tell whether the owner of this key signed exactly this value, under this key, on this topic.

    Whatever the arguments hold, the answer is a truth value and never an exception.
    """
    try:
        if not is_usable_public_key(public_key):
            return False
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed_message(topic, key, value))
    except (InvalidSignature, ValueError, TypeError, AttributeError):
        return False
    return True


def read_headers(headers: Iterable[tuple[str, bytes | None]] | None) -> SignatureHeaders | None:
    """Read the signature headers of a record, or None unless each is there exactly once and well formed."""
    found: dict[str, bytes] = {}
    for name, value in headers or ():
        if name not in (HEADER_KEY_ID, HEADER_SIGNATURE):
            continue
        # A second header of the same name would let two readers verify two different signatures.
        if name in found or not isinstance(value, bytes):
            return None
        found[name] = value
    signature = found.get(HEADER_SIGNATURE, b"")
    key_name = found.get(HEADER_KEY_ID, b"")
    if len(signature) != SIGNATURE_BYTES or len(key_name) != KEY_ID_CHARS or key_name.strip(b"0123456789abcdef"):
        return None
    return SignatureHeaders(key_id=key_name.decode("ascii"), signature=signature)
