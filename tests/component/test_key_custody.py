"""The master key and the signing keys: who may read them, what they open, and what they never show (G10)."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from connectors.key_custody import FileMasterKey, create_master_key, create_secret_file
from connectors.signing_keys import SigningKey
from schemas.errors import IntegrityError, UsageError
from schemas.signing import read_headers, verify

if TYPE_CHECKING:
    from pathlib import Path

DATA_KEY = bytes(range(32))
CONTEXT = b"booking/CA0190000/B-1"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


class TestMasterKey:
    def test_a_new_master_key_is_readable_by_its_owner_only(self, tmp_path: Path) -> None:
        path = tmp_path / "keys" / "master.key"
        create_master_key(path)
        assert mode_of(path) == 0o600
        assert mode_of(path.parent) == 0o700
        assert len(path.read_bytes()) == 32
        assert [entry.name for entry in path.parent.iterdir()] == ["master.key"]

    def test_two_master_keys_differ(self, tmp_path: Path) -> None:
        create_master_key(tmp_path / "one")
        create_master_key(tmp_path / "two")
        assert (tmp_path / "one").read_bytes() != (tmp_path / "two").read_bytes()
        assert FileMasterKey.load(tmp_path / "one").key_id != FileMasterKey.load(tmp_path / "two").key_id

    def test_a_master_key_is_never_overwritten(self, tmp_path: Path) -> None:
        path = tmp_path / "master.key"
        create_master_key(path)
        before = path.read_bytes()
        with pytest.raises(UsageError, match="not overwritten"):
            create_master_key(path)
        assert path.read_bytes() == before
        assert [entry.name for entry in tmp_path.iterdir()] == ["master.key"]

    def test_a_master_key_that_cannot_be_written_says_why(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(UsageError, match="cannot make the folder"):
            create_master_key(tmp_path / "file" / "master.key")

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o610])
    def test_a_master_key_that_others_may_touch_is_refused(self, tmp_path: Path, mode: int) -> None:
        path = written(tmp_path / "master.key", os.urandom(32), mode)
        with pytest.raises(UsageError, match=f"chmod 600 {path}"):
            FileMasterKey.load(path)

    @pytest.mark.parametrize("mode", [0o600, 0o400])
    def test_a_master_key_that_only_its_owner_may_read_is_taken(self, tmp_path: Path, mode: int) -> None:
        path = written(tmp_path / "master.key", os.urandom(32), mode)
        assert FileMasterKey.load(path).key_id

    @pytest.mark.parametrize("size", [0, 16, 31, 33, 64, 20_000])
    def test_a_file_that_is_no_master_key_is_refused(self, tmp_path: Path, size: int) -> None:
        content = os.urandom(size)
        with pytest.raises(UsageError, match=r"not a master key|too large") as refusal:
            FileMasterKey.load(written(tmp_path / "master.key", content))
        assert not content or content[:8].hex() not in str(refusal.value)

    def test_a_missing_file_a_folder_and_a_pipe_are_refused(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe", 0o600)
        (tmp_path / "folder").mkdir(mode=0o700)
        for name in ("missing", "folder", "pipe"):
            with pytest.raises(UsageError, match=name):
                FileMasterKey.load(tmp_path / name)

    def test_a_constructor_refuses_a_key_of_another_length(self) -> None:
        with pytest.raises(UsageError):
            FileMasterKey(b"short")

    @given(st.binary(min_size=32, max_size=32), st.binary(max_size=64), st.binary(max_size=64))
    def test_what_is_wrapped_unwraps_with_the_same_context(self, master: bytes, data: bytes, context: bytes) -> None:
        assert FileMasterKey(master).unwrap(FileMasterKey(master).wrap(data, context), context) == data

    def test_two_wraps_of_one_key_differ(self) -> None:
        master = FileMasterKey(bytes(32))
        assert master.wrap(DATA_KEY, CONTEXT) != master.wrap(DATA_KEY, CONTEXT)

    def test_a_wrapped_key_does_not_open_in_another_context(self) -> None:
        master = FileMasterKey(bytes(32))
        with pytest.raises(IntegrityError, match="another scope"):
            master.unwrap(master.wrap(DATA_KEY, CONTEXT), CONTEXT + b"x")

    def test_a_wrapped_key_names_its_master_key_and_another_says_which_one_is_needed(self) -> None:
        one, other = FileMasterKey(bytes(32)), FileMasterKey(b"\x01" * 32)
        wrapped = one.wrap(DATA_KEY, CONTEXT)
        assert bytes.fromhex(one.key_id) in wrapped
        with pytest.raises(IntegrityError, match=rf"(?s){one.key_id}.*{other.key_id}"):
            other.unwrap(wrapped, CONTEXT)

    def test_every_altered_byte_and_every_cut_of_a_wrapped_key_is_noticed(self) -> None:
        master = FileMasterKey(bytes(32))
        wrapped = master.wrap(DATA_KEY, CONTEXT)
        altered = [wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :] for at in range(len(wrapped))]
        for wrong in altered + [wrapped[:end] for end in range(len(wrapped))] + [wrapped + b"\x00"]:
            with pytest.raises(IntegrityError):
                master.unwrap(wrong, CONTEXT)

    def test_neither_repr_nor_errors_show_a_key(self) -> None:
        secret = os.urandom(32)
        master = FileMasterKey(secret)
        wrapped = master.wrap(DATA_KEY, CONTEXT)
        assert DATA_KEY not in wrapped
        with pytest.raises(IntegrityError) as fault:
            master.unwrap(wrapped, b"wrong")
        for text in (repr(master), str(fault.value), repr(fault.value)):
            assert secret.hex() not in text
            assert repr(secret)[2:-1] not in text
            assert DATA_KEY.hex() not in text
        assert master.key_id in repr(master)


def test_a_killed_writer_leaves_no_half_key_and_does_not_stand_in_the_way(tmp_path: Path) -> None:
    # What a kill between write and rename leaves: part of a key under a name that nobody reads.
    written(tmp_path / ".master.key.0011223344556677", b"half")
    with pytest.raises(UsageError, match="cannot read"):
        FileMasterKey.load(tmp_path / "master.key")
    create_master_key(tmp_path / "master.key")
    assert FileMasterKey.load(tmp_path / "master.key").key_id


def test_a_secret_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create_secret_file(tmp_path / "new" / "secret", b"s")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "new" / "secret") == 0o600
    assert mode_of(tmp_path / "new") == 0o700


class TestSigningKey:
    def test_a_created_key_is_private_and_loads_as_the_same_key(self, tmp_path: Path) -> None:
        path = tmp_path / "publisher" / "signing.pem"
        created, loaded = SigningKey.create(path), SigningKey.load(path)
        assert mode_of(path) == 0o600
        assert mode_of(path.parent) == 0o700
        assert created.public_key == loaded.public_key
        assert len(loaded.public_key) == 32
        assert created.key_id == loaded.key_id
        headers = read_headers(loaded.sign("topic", b"key", b"value"))
        assert headers is not None
        assert headers.key_id == created.key_id
        assert verify(created.public_key, "topic", b"key", b"value", headers.signature)

    def test_a_signing_key_is_never_overwritten(self, tmp_path: Path) -> None:
        path = tmp_path / "signing.pem"
        key = SigningKey.create(path)
        with pytest.raises(UsageError, match="not overwritten"):
            SigningKey.create(path)
        assert SigningKey.load(path).key_id == key.key_id

    def test_raw_and_pem_files_of_one_key_are_one_key(self, tmp_path: Path) -> None:
        private = Ed25519PrivateKey.generate()
        raw = written(tmp_path / "raw", private.private_bytes_raw())
        pem = written(tmp_path / "pem", private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        assert SigningKey.load(raw).public_key == SigningKey.load(pem).public_key

    def test_other_tools_read_the_file(self, tmp_path: Path) -> None:
        openssl = shutil.which("openssl")
        assert openssl is not None, "install openssl: operators use it to look at keys"
        key = SigningKey.create(tmp_path / "signing.pem")
        command = [openssl, "pkey", "-in", str(tmp_path / "signing.pem"), "-pubout", "-outform", "DER"]
        public = subprocess.run(command, check=True, capture_output=True).stdout
        assert public.endswith(key.public_key)

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
    def test_a_signing_key_that_others_may_read_is_refused(self, tmp_path: Path, mode: int) -> None:
        path = written(tmp_path / "signing.pem", os.urandom(32), mode)
        with pytest.raises(UsageError, match=f"chmod 600 {path}"):
            SigningKey.load(path)

    def test_files_that_hold_no_usable_key_are_refused_without_being_quoted(self, tmp_path: Path) -> None:
        private = Ed25519PrivateKey.generate()
        other_kind = generate_private_key(SECP256R1())
        pem, pkcs8, plain = Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        contents = {
            "passphrase": private.private_bytes(pem, pkcs8, BestAvailableEncryption(b"word")),
            "another kind": other_kind.private_bytes(pem, pkcs8, plain),
            "no readable": private.public_key().public_bytes(pem, PublicFormat.SubjectPublicKeyInfo),
            "no Ed25519": b"SECRET-LOOKING-TEXT-THAT-IS-NO-KEY-AT-ALL",
            "no readable private": b"-----BEGIN PRIVATE KEY-----\nSECRETLOOKING\n-----END PRIVATE KEY-----\n",
        }
        for wording, content in contents.items():
            with pytest.raises(UsageError, match=wording) as refusal:
                SigningKey.load(written(tmp_path / "signing.pem", content))
            assert "SECRET" not in str(refusal.value)

    def test_repr_shows_the_public_half_only(self) -> None:
        private = Ed25519PrivateKey.generate()
        key = SigningKey(private)
        assert key.key_id in repr(key)
        assert private.private_bytes_raw().hex() not in repr(key)
        assert len(repr(key)) < 70
