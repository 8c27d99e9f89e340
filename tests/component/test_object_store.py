"""The object store: what it keeps, what it destroys, and what it never shows (G10, G12).

One contract runs on a folder and on a bucket (fsspec's in-memory file system); what only a folder can do is below it.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import resource
import signal
import stat
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, cast

import fsspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from connectors.key_custody import FileMasterKey
from connectors.object_store import (
    MAX_NAME_BYTES,
    ObjectStore,
    StoredObject,
    format_reference,
    parse_reference,
)
from schemas.errors import DomainFault, IntegrityError, LeadstreamError, TransientError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Barrier

LIMIT_S = 120.0
MASTER = bytes(range(32))
BOOKING = "booking/CA0190000/B-1"
OTHER_BOOKING = "booking/CA0190000/B-2"
PHOTO = b"PLAINTEXT-OF-A-PHOTO " * 500
OTHER_PHOTO = b"ANOTHER-PHOTO " * 500

hostile_names = st.one_of(
    st.text(min_size=1, max_size=40),
    st.text(alphabet="./\\%:~\x00 \u2215\uff0e", min_size=1, max_size=12),
    st.sampled_from(
        ["..", ".", "/", "../..", "/etc/passwd", "~", "a\x00b", "C:\\x", "%2e%2e%2f", "a:b", "é", "e\u0301"]
    ),
    st.text(min_size=200, max_size=400),
).filter(lambda name: len(name.encode("utf-8", "surrogatepass")) <= 4 * MAX_NAME_BYTES)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(params=["folder", "bucket"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "folder":
        yield str(tmp_path / "store")
        return
    address = f"memory://store-{uuid.uuid4().hex}"
    yield address
    if stored_files(address):
        fsspec.filesystem("memory").rm(address, recursive=True)


@pytest.fixture
def store(url: str) -> ObjectStore:
    return ObjectStore(url, FileMasterKey(MASTER))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def folder_store(folder: Path) -> ObjectStore:
    return ObjectStore(folder, FileMasterKey(MASTER))


def stored_files(url: str, under: str = "") -> dict[str, bytes]:
    """Every file of a store with its bytes, as an intruder would see it."""
    filesystem, root = fsspec.core.url_to_fs(url)
    place = f"{root}/{under}" if under else root
    return {path: filesystem.cat_file(path) for path in filesystem.find(place)}


def overwrite(path: str, url: str, data: bytes) -> None:
    fsspec.core.url_to_fs(url)[0].pipe_file(path, data)


def fault_of(action: Callable[[], object]) -> str:
    with pytest.raises(DomainFault) as fault:
        action()
    return fault.value.code


class TestEveryStore:
    def test_what_is_put_comes_back_with_its_digest_and_size(self, store: ObjectStore) -> None:
        stored = store.put(BOOKING, "capture-1", PHOTO)
        assert stored == StoredObject(
            reference="object:v1:booking/CA0190000/B-1:capture-1", sha256=digest(PHOTO), size=len(PHOTO)
        )
        assert store.get(stored.reference, stored.sha256) == PHOTO
        assert store.exists(stored.reference)

    @pytest.mark.parametrize("data", [b"", b"\x00", os.urandom(1 << 20)], ids=["empty", "one byte", "a megabyte"])
    def test_any_size_comes_back(self, store: ObjectStore, data: bytes) -> None:
        stored = store.put(BOOKING, "capture-1", data)
        assert store.get(stored.reference, stored.sha256) == data

    def test_another_process_with_the_same_master_key_reads_it(self, store: ObjectStore, url: str) -> None:
        stored = store.put(BOOKING, "capture-1", PHOTO)
        later = ObjectStore(url, FileMasterKey(MASTER), create=False)
        assert later.get(stored.reference, stored.sha256) == PHOTO

    def test_two_bookings_may_hold_the_same_photo_and_destroying_one_keeps_the_other(self, store: ObjectStore) -> None:
        one, other = store.put(BOOKING, "capture-1", PHOTO), store.put(OTHER_BOOKING, "capture-1", PHOTO)
        assert one.reference != other.reference
        store.destroy_key(BOOKING)
        assert store.get(other.reference, other.sha256) == PHOTO

    def test_putting_the_same_bytes_again_changes_nothing(self, store: ObjectStore, url: str) -> None:
        first = store.put(BOOKING, "capture-1", PHOTO)
        before = stored_files(url)
        assert store.put(BOOKING, "capture-1", PHOTO) == first
        assert stored_files(url) == before

    @pytest.mark.parametrize("other", [OTHER_PHOTO, PHOTO + b"x", PHOTO[:-1], b""])
    def test_an_id_never_changes_its_bytes(self, store: ObjectStore, url: str, other: bytes) -> None:
        stored = store.put(BOOKING, "capture-1", PHOTO)
        before = stored_files(url)
        assert fault_of(lambda: store.put(BOOKING, "capture-1", other)) == "OBJECT_EXISTS"
        assert stored_files(url) == before
        assert store.get(stored.reference, stored.sha256) == PHOTO

    def test_a_record_that_describes_another_object_is_a_fault(self, store: ObjectStore) -> None:
        stored = store.put(BOOKING, "capture-1", PHOTO)
        assert fault_of(lambda: store.get(stored.reference, digest(OTHER_PHOTO))) == "DIGEST_MISMATCH"

    @pytest.mark.parametrize(
        "reference",
        [format_reference(BOOKING, "capture-2"), format_reference("probe/none", "image")],
        ids=["known scope", "unknown scope"],
    )
    def test_a_reference_to_nothing_is_a_fault(self, store: ObjectStore, reference: str) -> None:
        store.put(BOOKING, "capture-1", PHOTO)
        assert fault_of(lambda: store.get(reference, digest(PHOTO))) == "REFERENCE_UNRESOLVED"
        assert not store.exists(reference)

    def test_asking_for_nothing_leaves_nothing_behind(self, store: ObjectStore, url: str) -> None:
        before = stored_files(url)
        store.exists(format_reference("probe/none", "image"))
        fault_of(lambda: store.get(format_reference("probe/none", "image"), digest(PHOTO)))
        assert stored_files(url) == before

    def test_a_destroyed_scope_cannot_be_read_again_and_says_so(self, store: ObjectStore, url: str) -> None:
        captures = [store.put(BOOKING, name, PHOTO) for name in ("capture-1", "finger-1", "original")]
        store.destroy_key(BOOKING)
        later = ObjectStore(url, FileMasterKey(MASTER))
        for capture in captures:
            for reader in (store, later):
                assert fault_of(lambda: reader.get(capture.reference, capture.sha256)) == "KEY_DESTROYED"  # noqa: B023 -- called at once
                assert not reader.exists(capture.reference)
        assert fault_of(lambda: store.get(format_reference(BOOKING, "never"), digest(PHOTO))) == "KEY_DESTROYED"

    def test_a_destroyed_scope_is_never_resurrected(self, store: ObjectStore, url: str) -> None:
        store.put(BOOKING, "capture-1", PHOTO)
        store.destroy_key(BOOKING)
        before = stored_files(url)
        for name in ("capture-1", "capture-2"):
            assert fault_of(lambda: store.put(BOOKING, name, PHOTO)) == "KEY_DESTROYED"  # noqa: B023 -- called at once
        assert stored_files(url) == before

    def test_a_scope_can_be_destroyed_before_anything_is_in_it_and_again_after(self, store: ObjectStore) -> None:
        store.destroy_key(BOOKING)
        store.destroy_key(BOOKING)
        assert fault_of(lambda: store.put(BOOKING, "capture-1", PHOTO)) == "KEY_DESTROYED"

    def test_destruction_removes_the_wrapped_key_from_every_file(self, store: ObjectStore, url: str) -> None:
        store.put(BOOKING, "capture-1", PHOTO)
        [wrapped_key] = stored_files(url, "keys").values()
        store.destroy_key(BOOKING)
        # Version and name of the master key (9 bytes) stand at its start; the random rest must be nowhere.
        secret_part = wrapped_key[-60:]
        assert all(secret_part not in content for content in stored_files(url).values())

    def test_no_plaintext_name_or_key_is_in_any_file_of_the_store(self, store: ObjectStore, url: str) -> None:
        stored = store.put("booking/CA0190000/NUMBER-77", "capture-NAME", PHOTO)
        for path, content in stored_files(url).items():
            for secret in (PHOTO[:21], PHOTO[-21:], MASTER, stored.sha256.encode(), bytes.fromhex(stored.sha256)):
                assert secret not in content, path
            for name in ("NUMBER-77", "capture-NAME", stored.sha256):
                assert name not in path.removeprefix(url)
                assert name.encode() not in content

    def test_the_same_bytes_are_never_encrypted_to_the_same_bytes(self, store: ObjectStore, url: str) -> None:
        for name in ("capture-1", "capture-2"):
            store.put(BOOKING, name, PHOTO)
        store.put(OTHER_BOOKING, "capture-1", PHOTO)
        contents = list(stored_files(url, "objects").values())
        assert len({content[4:16] for content in contents}) == 3
        assert len({content[16:] for content in contents}) == 3

    def test_every_altered_part_of_an_object_is_noticed(self, store: ObjectStore, url: str) -> None:
        stored = store.put(BOOKING, "capture-1", b"photo")
        [(path, content)] = stored_files(url, "objects").items()
        altered = [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in range(len(content))]
        for wrong in [*altered, *(content[:end] for end in range(len(content))), content + b"\x00"]:
            overwrite(path, url, wrong)
            with pytest.raises(IntegrityError):
                store.get(stored.reference, stored.sha256)
        overwrite(path, url, altered[-1])
        with pytest.raises(IntegrityError):
            store.put(BOOKING, "capture-1", b"photo")

    @pytest.mark.parametrize("other_scope", [BOOKING, OTHER_BOOKING])
    def test_objects_cannot_be_swapped_within_or_between_scopes(
        self, store: ObjectStore, url: str, other_scope: str
    ) -> None:
        one = store.put(BOOKING, "capture-1", PHOTO)
        [(path, _)] = stored_files(url, "objects").items()
        store.put(other_scope, "capture-2", PHOTO)
        [foreign] = [content for at, content in stored_files(url, "objects").items() if at != path]
        overwrite(path, url, foreign)
        with pytest.raises(IntegrityError, match="altered or put in another's place"):
            store.get(one.reference, one.sha256)

    def test_keys_cannot_be_swapped_between_scopes(self, store: ObjectStore, url: str) -> None:
        one = store.put(BOOKING, "capture-1", PHOTO)
        [(path, _)] = stored_files(url, "keys").items()
        store.put(OTHER_BOOKING, "capture-1", PHOTO)
        [foreign] = [content for at, content in stored_files(url, "keys").items() if at != path]
        overwrite(path, url, foreign)
        # A new photo under the other booking's key would outlive the destruction of its own.
        for action in (lambda: store.put(BOOKING, "capture-2", PHOTO), lambda: store.get(one.reference, one.sha256)):
            with pytest.raises(IntegrityError, match="wrapped data key was altered or belongs to another scope"):
                action()

    @pytest.mark.parametrize("content", [b"", b"LSK1", b"rubbish", bytes(100_000)])
    def test_an_altered_key_is_noticed(self, store: ObjectStore, url: str, content: bytes) -> None:
        stored = store.put(BOOKING, "capture-1", PHOTO)
        [path] = stored_files(url, "keys")
        overwrite(path, url, content)
        for action in (lambda: store.get(stored.reference, stored.sha256), lambda: store.put(BOOKING, "x", PHOTO)):
            with pytest.raises(IntegrityError):
                action()

    def test_a_wrong_master_key_is_found_when_the_store_is_opened(self, store: ObjectStore, url: str) -> None:
        store.put(BOOKING, "capture-1", PHOTO)
        for create in (True, False):
            with pytest.raises(IntegrityError, match="start with the master key file that belongs to this"):
                ObjectStore(url, FileMasterKey(bytes(32)), create=create)

    def test_an_object_over_the_limit_is_refused_in_both_directions(self, store: ObjectStore, url: str) -> None:
        stored = store.put(BOOKING, "capture-1", PHOTO)
        exact = ObjectStore(url, FileMasterKey(MASTER), max_object_bytes=len(PHOTO))
        small = ObjectStore(url, FileMasterKey(MASTER), max_object_bytes=len(PHOTO) - 1)
        assert exact.get(stored.reference, stored.sha256) == PHOTO
        assert fault_of(lambda: small.get(stored.reference, stored.sha256)) == "OBJECT_TOO_LARGE"
        assert fault_of(lambda: small.put(BOOKING, "capture-2", PHOTO)) == "OBJECT_TOO_LARGE"
        assert fault_of(lambda: small.put(BOOKING, "capture-1", b"small")) == "OBJECT_EXISTS"

    def test_a_store_that_was_never_made_counts_as_away(self, url: str) -> None:
        with pytest.raises(TransientError, match="away, or was never created"):
            ObjectStore(url, FileMasterKey(MASTER), create=False)
        assert ObjectStore(url, FileMasterKey(MASTER)).put(BOOKING, "capture-1", PHOTO)

    def test_a_store_that_lost_its_marker_is_away_and_never_an_empty_store(self, store: ObjectStore, url: str) -> None:
        stored = store.put(BOOKING, "capture-1", PHOTO)
        filesystem, root = fsspec.core.url_to_fs(url)
        for path in stored_files(url):
            filesystem.rm(path)
        assert not stored_files(url)
        for action in (
            lambda: store.get(stored.reference, stored.sha256),
            lambda: store.exists(stored.reference),
            lambda: store.put(BOOKING, "capture-2", PHOTO),
            lambda: store.put(OTHER_BOOKING, "capture-1", PHOTO),
            lambda: store.destroy_key(BOOKING),
        ):
            with pytest.raises(TransientError, match="away"):
                action()
        assert not stored_files(f"{filesystem.protocol[0]}://{root}")

    def test_no_error_text_shows_image_bytes_or_keys(self, store: ObjectStore, url: str) -> None:
        stored = store.put(BOOKING, "capture-1", PHOTO)
        errors: list[LeadstreamError] = []

        def collect(action: Callable[[], object]) -> None:
            with pytest.raises(LeadstreamError) as fault:
                action()
            errors.append(fault.value)

        collect(lambda: store.put(BOOKING, "capture-1", OTHER_PHOTO))
        collect(lambda: store.get(stored.reference, digest(OTHER_PHOTO)))
        collect(lambda: store.get(PHOTO.decode(), stored.sha256))
        [path] = stored_files(url, "objects")
        overwrite(path, url, PHOTO)
        collect(lambda: store.get(stored.reference, stored.sha256))
        store.destroy_key(BOOKING)
        collect(lambda: store.get(stored.reference, stored.sha256))
        for error in errors:
            for text in (str(error), repr(error), repr(error.__cause__)):
                assert "PHOTO" not in text
                assert MASTER.hex() not in text
                assert repr(MASTER)[2:-1] not in text


class TestReferences:
    @given(hostile_names, hostile_names)
    @example("..", "..")
    @example("/", "\x00")
    @example("a" * 5000, "x")
    @example("\ud800", "x")
    def test_a_reference_is_the_inverse_of_its_names_or_is_refused(self, scope: str, object_id: str) -> None:
        try:
            reference = format_reference(scope, object_id)
        except DomainFault as fault:
            assert fault.code == "OBJECT_NAME_INVALID"  # noqa: PT017 -- some of these names are rightly refused
            return
        assert reference.isascii()
        assert reference.isprintable()
        assert " " not in reference
        assert parse_reference(reference) == (scope, object_id)

    @given(st.text(max_size=80) | st.from_regex(r"object:v1:[a-z%0-9:/.]{1,30}", fullmatch=True))
    @example("object:v1:a:%61")
    @example("object:v1:a:%2E%2E")
    @example("object:v1:a:%ff")
    @example("object:v1:a:%e9\n")
    @example("object:v1::x")
    @example("object:v1:a:b:c")
    @example("object:v1:" + "a" * 10_000 + ":x")
    def test_text_is_a_reference_only_in_the_one_form_that_the_store_gives_out(self, text: str) -> None:
        try:
            scope, object_id = parse_reference(text)
        except DomainFault as fault:
            assert fault.code == "REFERENCE_UNRESOLVED"  # noqa: PT017 -- some of these texts are references
            return
        assert format_reference(scope, object_id) == text

    @pytest.mark.parametrize("name", ["", "a" * (MAX_NAME_BYTES + 1), "é" * (MAX_NAME_BYTES // 2 + 1), "\udcff"])
    def test_names_that_cannot_be_kept_are_refused(self, store: ObjectStore, name: str) -> None:
        assert fault_of(lambda: store.put(name, "capture", PHOTO)) == "OBJECT_NAME_INVALID"
        assert fault_of(lambda: store.put(BOOKING, name, PHOTO)) == "OBJECT_NAME_INVALID"
        assert fault_of(lambda: store.destroy_key(name)) == "OBJECT_NAME_INVALID"

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(hostile_names, hostile_names)
    @example("../../..", "../../../escaped")
    @example("/escaped", "/escaped")
    def test_no_name_leads_out_of_the_store(
        self, tmp_path: Path, folder: Path, folder_store: ObjectStore, scope: str, object_id: str
    ) -> None:
        try:
            stored = folder_store.put(scope, object_id, b"data")
        except DomainFault as fault:
            assert fault.code == "OBJECT_NAME_INVALID"  # noqa: PT017 -- some of these names are rightly refused
        else:
            assert folder_store.get(stored.reference, stored.sha256) == b"data"
        assert [entry.name for entry in tmp_path.iterdir()] == [folder.name]
        names = {entry.name for entry in folder.iterdir()}
        assert names <= {"leadstream-object-store", "keys", "objects", "aside"}
        for path in (*folder.glob("keys/**/*"), *folder.glob("objects/**/*")):
            assert set(path.name) <= set("0123456789abcdef")

    @pytest.mark.parametrize("url", ["http://example.org/x", "ftp://example.org/x", "zip://x::file:///y"], ids=str)
    def test_a_place_without_exclusive_creation_is_refused(self, url: str) -> None:
        with pytest.raises(UsageError, match="use a folder or s3://"):
            ObjectStore(url, FileMasterKey(MASTER))


def put_when_all_are_ready(folder: str, number: int, ready: Barrier, answers: Queue[str]) -> None:
    store = ObjectStore(folder, FileMasterKey(MASTER))
    for round_number in range(20):
        ready.wait(timeout=LIMIT_S)
        stored = store.put(f"booking/{round_number}", f"of-{number}", PHOTO)
        answers.put(stored.reference)


def put_until_killed(folder: str, started: Queue[int]) -> None:
    store = ObjectStore(folder, FileMasterKey(MASTER))
    number = 0
    while True:
        store.put(f"booking/{number}", "capture", PHOTO * 20)
        number += 1
        started.put(number)


def put_with_little_space(folder: str, answers: Queue[str]) -> None:
    store = ObjectStore(folder, FileMasterKey(MASTER))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    try:
        store.put(BOOKING, "capture-1", PHOTO)
    except TransientError as error:
        answers.put(str(error))
    else:
        answers.put("stored")


class TestFolder:
    def test_threads_that_put_at_once_agree_on_one_key_and_one_object(
        self, folder: Path, folder_store: ObjectStore
    ) -> None:
        start = threading.Barrier(8)

        def put(number: int) -> StoredObject:
            start.wait(timeout=LIMIT_S)
            folder_store.put(BOOKING, f"own-{number}", PHOTO)
            return folder_store.put(BOOKING, "shared", PHOTO)

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(put, range(8)))) == 1
        assert len(stored_files(str(folder), "keys")) == 1
        for number in range(8):
            assert folder_store.get(format_reference(BOOKING, f"own-{number}"), digest(PHOTO)) == PHOTO

    def test_two_processes_that_create_a_scope_at_once_share_one_key(self, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        ready, answers = context.Barrier(2), cast("Queue[str]", context.Queue())
        processes = [
            context.Process(target=put_when_all_are_ready, args=(str(folder), number, ready, answers), daemon=True)
            for number in range(2)
        ]
        for process in processes:
            process.start()
        references = [answers.get(timeout=LIMIT_S) for _ in range(40)]
        for process in processes:
            process.join(timeout=LIMIT_S)
            assert process.exitcode == 0
        store = ObjectStore(folder, FileMasterKey(MASTER), create=False)
        assert len(set(references)) == 40
        for reference in references:
            assert store.get(reference, digest(PHOTO)) == PHOTO
        assert len(stored_files(str(folder), "keys")) == 20
        assert not list((folder / "aside").iterdir())

    def test_a_killed_writer_leaves_whole_objects_only(self, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        started = cast("Queue[int]", context.Queue())
        process = context.Process(target=put_until_killed, args=(str(folder), started), daemon=True)
        process.start()
        while started.get(timeout=LIMIT_S) < 5:
            pass
        process.kill()
        process.join(timeout=LIMIT_S)
        assert process.exitcode == -signal.SIGKILL
        store = ObjectStore(folder, FileMasterKey(MASTER))
        whole = 0
        while store.exists(reference := format_reference(f"booking/{whole}", "capture")):
            assert store.get(reference, digest(PHOTO * 20)) == PHOTO * 20
            whole += 1
        assert whole >= 5
        assert store.put(f"booking/{whole}", "capture", PHOTO).size == len(PHOTO)

    def test_a_half_written_aside_file_is_no_object_and_is_swept_in_time(
        self, folder: Path, folder_store: ObjectStore
    ) -> None:
        stored = folder_store.put(BOOKING, "capture-1", PHOTO)
        [path] = stored_files(str(folder), "objects")
        content = Path(path).read_bytes()
        Path(path).unlink()
        old, fresh = (folder / "aside" / f"{Path(path).name}.{suffix}" for suffix in ("0" * 16, "1" * 16))
        for aside in (old, fresh):
            aside.write_bytes(content[: len(content) // 2])
        long_ago = time.time() - 7200
        os.utime(old, (long_ago, long_ago))
        assert not folder_store.exists(stored.reference)
        assert folder_store.put(BOOKING, "capture-1", PHOTO) == stored
        reopened = ObjectStore(folder, FileMasterKey(MASTER))
        assert reopened.get(stored.reference, stored.sha256) == PHOTO
        assert not old.exists()
        assert fresh.exists(), "a writer may still be at it"

    def test_a_second_name_for_a_key_left_by_a_killed_writer_is_destroyed_with_it(
        self, folder: Path, folder_store: ObjectStore
    ) -> None:
        folder_store.put(BOOKING, "capture-1", PHOTO)
        [path] = stored_files(str(folder), "keys")
        secret_part = Path(path).read_bytes()[-60:]
        # A kill between link and unlink leaves this; the other name stands for a block the disk has not reused.
        os.link(path, folder / "aside" / f"{Path(path).name}.0011223344556677")
        os.link(path, folder / "aside" / "seen-by-a-disk-editor")
        folder_store.destroy_key(BOOKING)
        assert [entry.name for entry in (folder / "aside").iterdir()] == ["seen-by-a-disk-editor"]
        assert all(secret_part not in content for content in stored_files(str(folder)).values())

    def test_only_the_owner_may_look_into_the_store(self, folder: Path) -> None:
        before = os.umask(0)
        try:
            ObjectStore(folder, FileMasterKey(MASTER)).put(BOOKING, "capture-1", PHOTO)
        finally:
            os.umask(before)
        for path in (folder, *folder.rglob("*")):
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path

    def test_a_folder_that_is_gone_is_waited_for(self, folder: Path, folder_store: ObjectStore) -> None:
        stored = folder_store.put(BOOKING, "capture-1", PHOTO)
        folder.rename(folder.with_name("unmounted"))
        for action in (
            lambda: folder_store.get(stored.reference, stored.sha256),
            lambda: folder_store.put(BOOKING, "capture-2", PHOTO),
            lambda: folder_store.destroy_key(BOOKING),
        ):
            with pytest.raises(TransientError):
                action()
        assert not folder.exists()
        folder.with_name("unmounted").rename(folder)
        assert folder_store.get(stored.reference, stored.sha256) == PHOTO

    def test_a_place_that_cannot_be_a_folder_says_what_to_check(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(TransientError, match="check the mount, the free space"):
            ObjectStore(tmp_path / "file", FileMasterKey(MASTER))

    def test_a_full_disk_is_waited_for_and_leaves_nothing_half_written(self, folder: Path) -> None:
        # A limit on the size of files makes the system call fail in the middle, as a full disk does.
        context = multiprocessing.get_context("spawn")
        answers = cast("Queue[str]", context.Queue())
        process = context.Process(target=put_with_little_space, args=(str(folder), answers), daemon=True)
        process.start()
        answer = answers.get(timeout=LIMIT_S)
        process.join(timeout=LIMIT_S)
        assert "free space" in answer
        assert not stored_files(str(folder), "objects")
        assert not list((folder / "aside").iterdir())
        store = ObjectStore(folder, FileMasterKey(MASTER))
        stored = store.put(BOOKING, "capture-1", PHOTO)
        assert store.get(stored.reference, stored.sha256) == PHOTO

    def test_a_key_that_is_being_created_while_it_is_destroyed_stays_destroyed(self, folder: Path) -> None:
        store = ObjectStore(folder, FileMasterKey(MASTER))
        for round_number in range(30):
            scope, start = f"booking/{round_number}", threading.Barrier(2)

            def put(scope: str = scope, start: threading.Barrier = start) -> None:
                start.wait(timeout=LIMIT_S)
                try:
                    store.put(scope, "capture", PHOTO)
                except (DomainFault, TransientError):
                    return

            with ThreadPoolExecutor(1) as pool:
                putting = pool.submit(put)
                start.wait(timeout=LIMIT_S)
                store.destroy_key(scope)
                putting.result(timeout=LIMIT_S)
            reference = format_reference(scope, "capture")
            assert fault_of(lambda: store.get(reference, digest(PHOTO))) == "KEY_DESTROYED"  # noqa: B023 -- called at once
        tombstones = stored_files(str(folder), "keys").values()
        assert len(tombstones) == 30
        assert len(set(tombstones)) == 1


def test_a_reference_into_the_scope_of_another_record_is_not_followed(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "objects", FileMasterKey(bytes(range(32))))
    stored = store.put("booking/CA0190000/sealed", "photo", b"photo")
    assert store.get(stored.reference, stored.sha256, scope="booking/CA0190000/sealed") == b"photo"
    with pytest.raises(DomainFault) as caught:
        store.get(stored.reference, stored.sha256, scope="probe/1")
    assert caught.value.code == "REFERENCE_UNRESOLVED"
