"""Who said it: what a signature binds, and what never passes for one (G12: bad input is a refusal, never a crash)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from connectors.signing_keys import SigningKey
from schemas.signing import (
    HEADER_KEY_ID,
    HEADER_SIGNATURE,
    SignatureHeaders,
    is_usable_public_key,
    key_id,
    read_headers,
    signed_message,
    verify,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TOPIC = "booking.events.v1"
KEY = b"CA0190000/B-1"
VALUE = b"the exact wire bytes"

# RFC 8032, section 7.1, test 2.
RFC_SECRET = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
RFC_PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
RFC_SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)

GOOD_ID = b"0123456789abcdef0123456789abcdef"
GOOD_SIGNATURE = bytes(range(64))

topics = st.text(max_size=20)
parts = st.binary(max_size=40)
records = st.tuples(topics, parts, parts)


def signer() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.from_private_bytes(RFC_SECRET))


def signature_of(headers: list[tuple[str, bytes]]) -> bytes:
    return dict(headers)[HEADER_SIGNATURE]


@given(records, records)
def test_different_records_never_share_the_signed_bytes(
    one: tuple[str, bytes, bytes], other: tuple[str, bytes, bytes]
) -> None:
    assert (signed_message(*one) == signed_message(*other)) == (one == other)


@given(st.binary(min_size=1, max_size=30), st.integers(0, 30), st.integers(0, 30))
def test_moving_bytes_between_key_and_value_changes_the_signed_bytes(content: bytes, one: int, other: int) -> None:
    one, other = min(one, len(content)), min(other, len(content))
    same = signed_message(TOPIC, content[:one], content[one:]) == signed_message(
        TOPIC, content[:other], content[other:]
    )
    assert same == (one == other)


def test_the_layout_of_the_signed_bytes_is_frozen() -> None:
    assert signed_message("t", b"k", b"vv") == (
        b"leadstream signed record v1\x00"
        b"\x00\x00\x00\x00\x00\x00\x00\x01t"
        b"\x00\x00\x00\x00\x00\x00\x00\x01k"
        b"\x00\x00\x00\x00\x00\x00\x00\x02vv"
    )


def test_the_signature_scheme_is_the_one_of_rfc_8032() -> None:
    key = Ed25519PrivateKey.from_private_bytes(RFC_SECRET)
    assert key.public_key().public_bytes_raw() == RFC_PUBLIC == signer().public_key
    assert key.sign(b"\x72") == RFC_SIGNATURE
    headers = signer().sign(TOPIC, KEY, VALUE)
    assert signature_of(headers) == key.sign(signed_message(TOPIC, KEY, VALUE))


def test_a_bare_signature_over_other_bytes_is_not_a_signature_of_a_record() -> None:
    # The RFC's signature is right for the message 0x72; without our domain it proves nothing about a record.
    assert not verify(RFC_PUBLIC, "", b"", b"\x72", RFC_SIGNATURE)


def test_the_key_id_is_the_first_half_of_the_digest_of_the_public_key() -> None:
    assert key_id(RFC_PUBLIC) == hashlib.sha256(RFC_PUBLIC).digest()[:16].hex() == signer().key_id


@given(records)
def test_what_a_publisher_signs_verifies_from_its_headers(record: tuple[str, bytes, bytes]) -> None:
    headers = read_headers(signer().sign(*record))
    assert headers is not None
    assert headers.key_id == key_id(RFC_PUBLIC)
    assert verify(RFC_PUBLIC, *record, headers.signature)


@given(records, records)
def test_a_signature_cannot_be_replayed_on_another_topic_key_or_value(
    signed: tuple[str, bytes, bytes], replayed: tuple[str, bytes, bytes]
) -> None:
    signature = signature_of(signer().sign(*signed))
    assert verify(RFC_PUBLIC, *replayed, signature) == (signed == replayed)


@pytest.mark.parametrize("record", [("probe.requests.v1", KEY, VALUE), (TOPIC, b"CA0190000/B-2", VALUE)])
def test_a_replay_under_another_key_or_on_another_topic_fails(record: tuple[str, bytes, bytes]) -> None:
    signature = signature_of(signer().sign(TOPIC, KEY, VALUE))
    assert verify(RFC_PUBLIC, TOPIC, KEY, VALUE, signature)
    assert not verify(RFC_PUBLIC, *record, signature)


def test_every_flipped_bit_of_value_signature_or_public_key_is_noticed() -> None:
    signature = signature_of(signer().sign(TOPIC, KEY, VALUE))

    def flipped(data: bytes) -> list[bytes]:
        return [
            data[: bit // 8] + bytes([data[bit // 8] ^ (1 << bit % 8)]) + data[bit // 8 + 1 :]
            for bit in range(8 * len(data))
        ]

    assert not any(verify(RFC_PUBLIC, TOPIC, KEY, value, signature) for value in flipped(VALUE))
    assert not any(verify(RFC_PUBLIC, TOPIC, KEY, VALUE, wrong) for wrong in flipped(signature))
    assert not any(verify(public, TOPIC, KEY, VALUE, signature) for public in flipped(RFC_PUBLIC))


def test_another_publishers_key_does_not_verify() -> None:
    other = SigningKey(Ed25519PrivateKey.generate())
    assert not verify(other.public_key, TOPIC, KEY, VALUE, signature_of(signer().sign(TOPIC, KEY, VALUE)))


@given(st.binary(max_size=70), st.text(max_size=9), parts, parts, st.binary(max_size=130))
def test_garbage_is_refused_and_never_raises(
    public: bytes, topic: str, key: bytes, value: bytes, signature: bytes
) -> None:
    assert verify(public, topic, key, value, signature) is False


@pytest.mark.parametrize("nothing", [None, 7, "text"])
def test_arguments_of_the_wrong_kind_are_refused_and_never_raise(nothing: object) -> None:
    good = signature_of(signer().sign(TOPIC, KEY, VALUE))
    for position in range(5):
        arguments: list[object] = [RFC_PUBLIC, TOPIC, KEY, VALUE, good]
        arguments[position] = nothing
        call: Callable[..., bool] = verify
        assert call(*arguments) is False
    assert verify(RFC_PUBLIC, "lone \ud800 surrogate", KEY, VALUE, good) is False


def points_of_small_order() -> list[bytes]:
    """Every encoding of a point P of the curve with 8 P = 0, canonical or not, found from the curve's equation."""
    prime = 2**255 - 19
    d = -121665 * pow(121666, -1, prime) % prime

    def roots(square: int) -> list[int]:
        root = pow(square, (prime + 3) // 8, prime)
        candidates = {root, root * pow(2, (prime - 1) // 4, prime) % prime}
        return [value % prime for base in candidates if (base * base - square) % prime == 0 for value in (base, -base)]

    # y = 1 (order 1), -1 (order 2), 0 (order 4); order 8 doubles to y = 0, so x^2 = -y^2 and d y^4 + 2 y^2 - 1 = 0.
    ys = {1, prime - 1, 0}
    for discriminant in roots((4 + 4 * d) % prime):
        ys |= set(roots((discriminant - 2) * pow(2 * d, -1, prime) % prime))
    assert len(ys) == 5
    encodings = {y | sign << 255 for y in ys for sign in (0, 1)}
    encodings |= {y + prime | sign << 255 for y in ys if y + prime < 2**255 for sign in (0, 1)}
    return [encoding.to_bytes(32, "little") for encoding in sorted(encodings)]


def test_nobody_can_register_a_key_under_which_anyone_can_sign() -> None:
    forged = (1).to_bytes(32, "little") + bytes(32)
    weak = points_of_small_order()
    assert len(weak) == 14
    for public in weak:
        assert not is_usable_public_key(public)
        assert not any(verify(public, TOPIC, KEY, b"message %d" % attempt, forged) for attempt in range(40))
    assert is_usable_public_key(RFC_PUBLIC)


def test_the_headers_are_found_among_others_in_any_order() -> None:
    headers = [("trace", b"x"), (HEADER_SIGNATURE, GOOD_SIGNATURE), ("other", None), (HEADER_KEY_ID, GOOD_ID)]
    assert read_headers(headers) == SignatureHeaders(key_id=GOOD_ID.decode(), signature=GOOD_SIGNATURE)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(None, id="no headers"),
        pytest.param([], id="empty headers"),
        pytest.param([(HEADER_KEY_ID, GOOD_ID)], id="signature missing"),
        pytest.param([(HEADER_SIGNATURE, GOOD_SIGNATURE)], id="key id missing"),
        pytest.param([(HEADER_KEY_ID, GOOD_ID), (HEADER_SIGNATURE, None)], id="signature null"),
        pytest.param([(HEADER_KEY_ID, GOOD_ID.decode()), (HEADER_SIGNATURE, GOOD_SIGNATURE)], id="key id is text"),
        pytest.param([(HEADER_KEY_ID, GOOD_ID), (HEADER_SIGNATURE, GOOD_SIGNATURE)] * 2, id="all twice"),
        pytest.param(
            [(HEADER_KEY_ID, GOOD_ID), (HEADER_SIGNATURE, GOOD_SIGNATURE), (HEADER_SIGNATURE, GOOD_SIGNATURE)],
            id="signature twice",
        ),
        pytest.param(
            [(HEADER_KEY_ID, GOOD_ID), (HEADER_KEY_ID, None), (HEADER_SIGNATURE, GOOD_SIGNATURE)], id="key id twice"
        ),
        pytest.param([(HEADER_KEY_ID, GOOD_ID), (HEADER_SIGNATURE, GOOD_SIGNATURE + b"\x00")], id="signature long"),
        pytest.param([(HEADER_KEY_ID, GOOD_ID), (HEADER_SIGNATURE, bytes(10**6))], id="signature huge"),
        pytest.param([(HEADER_KEY_ID, GOOD_ID * 4096), (HEADER_SIGNATURE, GOOD_SIGNATURE)], id="key id huge"),
        pytest.param([(HEADER_KEY_ID, GOOD_ID.upper()), (HEADER_SIGNATURE, GOOD_SIGNATURE)], id="key id upper case"),
        pytest.param([(HEADER_KEY_ID, b"\xff" * 32), (HEADER_SIGNATURE, GOOD_SIGNATURE)], id="key id not hexadecimal"),
        pytest.param(
            [(HEADER_KEY_ID, b"0" * 16 + b"-" + b"0" * 15), (HEADER_SIGNATURE, GOOD_SIGNATURE)],
            id="key id not hexadecimal inside",
        ),
    ],
)
def test_headers_that_are_missing_doubled_or_malformed_count_as_unsigned(
    headers: list[tuple[str, bytes | None]],
) -> None:
    assert read_headers(headers) is None


@given(st.lists(st.tuples(st.sampled_from([HEADER_KEY_ID, HEADER_SIGNATURE, "x"]), st.none() | st.binary(max_size=80))))
def test_any_headers_are_read_or_refused_but_never_raise(headers: list[tuple[str, bytes | None]]) -> None:
    assert read_headers(headers) is None
