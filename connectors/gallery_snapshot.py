"""The gallery on disk: a file of plain arrays for each segment, and a manifest that makes a snapshot of them.

Segments never change, so a segment that an earlier snapshot wrote is not written again. Everything is written aside,
flushed and renamed, the manifest last: a folder holds the old snapshot or the new one, whenever the power goes. Nothing
is ever executed or unpickled. Every array carries its CRC-32, which finds any flipped bit and reads 2.5 GB/s on one
core (SHA-256 1.1, BLAKE2b 0.5). It protects from damage, not from forgery: the folder belongs to the worker alone.

Not here: when to take a snapshot, and what else a worker must remember with it; that travels along as `beside`.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from dataclasses import dataclass, fields
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from connectors.gallery_ids import Identities
from connectors.gallery_search import Piece
from connectors.gallery_segment import ROWS_A_BLOCK, Segment, block_bytes, fast_codes, room_for_codes
from schemas.errors import ContractError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from io import FileIO
    from pathlib import Path

    from numpy.typing import NDArray

    from connectors.gallery_search import Crew
    from processors.quantiser import Codebook

FORMAT = 1
MANIFEST = "gallery.json"
_MAGIC = b"LSGALLERY1\n"
_ALIGNMENT = 64
_WORD = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GalleryState:
    """What is searchable at one moment; never changed."""

    pieces: tuple[Piece, ...]
    watermark: Mapping[int, int]
    """Gallery partition -> next offset to apply."""
    templates: int
    persons: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a folder held."""

    state: GalleryState
    beside: Mapping[str, bytes]
    """What the writer gave along."""


def save(
    folder: Path,
    state: GalleryState,
    *,
    model_digest: str,
    codebook: Codebook,
    beside: Mapping[str, bytes] | None = None,
) -> None:
    """Make the folder a snapshot of a state; files of the snapshot before that it does not share are removed.

    Raises:
        OSError: the disk is full or away; the snapshot before is still whole.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = [_save_segment(folder, piece.segment, model_digest, codebook) for piece in state.pieces]
    body: dict[str, Any] = {
        "format": FORMAT,
        "model_digest": model_digest,
        "codebook_digest": codebook.digest,
        "dimension": codebook.dimension,
        "watermark": sorted(state.watermark.items()),
        "templates": state.templates,
        "persons": state.persons,
        "segments": [
            {"file": name, "rows": len(piece.segment), "withdrawn": _text(piece.withdrawn)}
            for name, piece in zip(names, state.pieces, strict=True)
        ],
        "beside": {name: _save_beside(folder, name, data) for name, data in (beside or {}).items()},
    }
    line = json.dumps(body, separators=(",", ":")).encode()
    _write_aside(folder / MANIFEST, [b"%08x\n" % zlib.crc32(line), line, b"\n"])
    names += [fact["file"] for fact in body["beside"].values()]
    for path in folder.iterdir():
        if path.suffix in {".segment", ".beside", ".part"} and path.name not in names:
            path.unlink()


def load(folder: Path, *, model_digest: str, codebook: Codebook, crew: Crew) -> Snapshot | None:
    """Read the snapshot of a folder, or None where there is none.

    Raises:
        ContractError: it is of another model, codebook or format.
        IntegrityError: it is damaged; the text names the file. Rebuild from Kafka.
    """
    try:
        manifest = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    checksum, _, line = manifest.partition(b"\n")
    line = line.removesuffix(b"\n")
    if checksum != b"%08x" % zlib.crc32(line):
        raise IntegrityError(f"The gallery snapshot {folder / MANIFEST} is damaged: its checksum does not fit.")
    body = json.loads(line)
    _check_origin(folder / MANIFEST, body, model_digest, codebook)
    files: list[Callable[[], Any]] = [
        *(partial(_load_piece, folder, entry, model_digest, codebook) for entry in body["segments"]),
        *(partial(_load_beside, folder, fact) for fact in body["beside"].values()),
    ]
    loaded = crew.each(lambda load_file: load_file(), files, body["templates"])
    pieces: list[Piece] = loaded[: len(body["segments"])]
    state = GalleryState(
        pieces=tuple(pieces),
        watermark=MappingProxyType({int(partition): int(offset) for partition, offset in body["watermark"]}),
        templates=body["templates"],
        persons=body["persons"],
    )
    if sum(len(piece.segment) - piece.gone for piece in pieces) != state.templates:
        raise IntegrityError(f"The gallery snapshot {folder} does not hold as many templates as it says.")
    return Snapshot(
        state=state,
        beside=MappingProxyType(dict(zip(body["beside"], loaded[len(pieces) :], strict=True))),
    )


def _save_beside(folder: Path, name: str, data: bytes) -> dict[str, Any]:
    fact = {"crc32": zlib.crc32(data), "size": len(data)}
    file = f"{name}-{fact['size']}-{fact['crc32']:08x}.beside"
    if not (folder / file).exists():
        _write_aside(folder / file, [data])
    return {"file": file, **fact}


def _load_beside(folder: Path, fact: Mapping[str, Any]) -> bytes:
    path = folder / str(fact["file"])
    try:
        data = path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"The gallery snapshot {path} cannot be read: {error.strerror}.") from None
    if len(data) != fact["size"] or zlib.crc32(data) != fact["crc32"]:
        raise IntegrityError(f"The gallery snapshot {path} is damaged: its checksum does not fit.")
    return data


def _save_segment(folder: Path, segment: Segment, model_digest: str, codebook: Codebook) -> str:
    """Write a segment, unless an earlier snapshot did; return the name of its file."""
    arrays = [(name, np.ascontiguousarray(array)) for name, array in _arrays(segment)]
    facts: list[dict[str, Any]] = []
    place = 0
    for name, array in arrays:
        place = _aligned(place)
        facts.append(
            {
                "name": name,
                "dtype": array.dtype.str,
                "shape": array.shape,
                "place": place,
                "crc32": zlib.crc32(_bytes_of(array)),
            }
        )
        place += array.nbytes
    header = json.dumps(
        {
            "format": FORMAT,
            "model_digest": model_digest,
            "codebook_digest": codebook.digest,
            "dimension": codebook.dimension,
            "agencies": segment.ids.agencies,
            "arrays": facts,
        },
        separators=(",", ":"),
    ).encode()
    # Equal contents have equal headers, so the name says what is in the file.
    name = f"{len(segment)}-{zlib.crc32(header):08x}-{facts[0]['crc32']:08x}.segment"
    if not (folder / name).exists():
        start = len(_MAGIC) + 2 * _WORD + len(header)
        chunks: list[bytes | memoryview] = [
            _MAGIC,
            len(header).to_bytes(_WORD, "little"),
            zlib.crc32(header).to_bytes(_WORD, "little"),
            header,
            bytes(_aligned(start) - start),
        ]
        written = 0
        for fact, (_, array) in zip(facts, arrays, strict=True):
            chunks += [bytes(fact["place"] - written), _bytes_of(array)]
            written = fact["place"] + array.nbytes
        _write_aside(folder / name, chunks)
    return name


def _load_piece(folder: Path, entry: Mapping[str, Any], model_digest: str, codebook: Codebook) -> Piece:
    return Piece(
        segment=_load_segment(folder / entry["file"], entry["rows"], model_digest, codebook),
        withdrawn=_bits(entry["withdrawn"]),
    )


def _load_segment(path: Path, rows: int, model_digest: str, codebook: Codebook) -> Segment:
    try:
        with path.open("rb", buffering=0) as file:
            header = _header(path, file)
            _check_origin(path, header, model_digest, codebook)
            start = _aligned(file.tell())
            codes = room_for_codes(rows, codebook)
            arrays: dict[str, NDArray[Any]] = {}
            for fact in header["arrays"]:
                shape = tuple(int(side) for side in fact["shape"])
                array = (
                    block_bytes(codes) if fact["name"] == "codes" else np.empty(shape, dtype=np.dtype(fact["dtype"]))
                )
                if array.shape != shape:
                    raise IntegrityError(f"The gallery snapshot {path} is damaged: its codes are not of {rows} rows.")
                file.seek(start + fact["place"])
                _fill(path, file, array, fact["crc32"])
                arrays[fact["name"]] = array
    except OSError as error:
        raise IntegrityError(f"The gallery snapshot {path} cannot be read: {error.strerror}.") from None
    templates = arrays.pop("templates")
    laid_out = arrays.pop("codes")
    # What FAISS lays out today must be what the file holds, or scores by codes would be nonsense.
    today = fast_codes(codebook.encode(templates[:ROWS_A_BLOCK]), codebook)
    if len(templates) != rows or not np.array_equal(block_bytes(today), laid_out[: len(block_bytes(today))]):
        raise ContractError(f"The gallery snapshot {path} has its codes in another order; FAISS has changed.")
    ids = Identities(agencies=tuple(header["agencies"]), **arrays)
    return Segment(ids=ids, templates=templates, codes=codes)


def _arrays(segment: Segment) -> Iterator[tuple[str, NDArray[Any]]]:
    yield "templates", segment.templates
    yield "codes", block_bytes(segment.codes)
    for each in fields(Identities):
        if each.name != "agencies":
            yield each.name, getattr(segment.ids, each.name)


def _header(path: Path, file: FileIO) -> dict[str, Any]:
    start = file.read(len(_MAGIC) + 2 * _WORD)
    length = int.from_bytes(start[len(_MAGIC) : -_WORD], "little")
    data = file.read(length) if start.startswith(_MAGIC) else b""
    if not data or zlib.crc32(data) != int.from_bytes(start[-_WORD:], "little"):
        raise IntegrityError(f"The gallery snapshot {path} is damaged: its header does not fit its checksum.")
    header: dict[str, Any] = json.loads(data)
    return header


def _fill(path: Path, file: FileIO, array: NDArray[Any], crc32: int) -> None:
    """Read an array's bytes straight into its place."""
    view = _bytes_of(array)
    done = 0
    while done < len(view):
        got = file.readinto(view[done:])
        if not got:
            raise IntegrityError(f"The gallery snapshot {path} is cut short.")
        done += got
    if zlib.crc32(view) != crc32:
        raise IntegrityError(f"The gallery snapshot {path} is damaged: a checksum does not fit.")


def _check_origin(path: Path, facts: Mapping[str, Any], model_digest: str, codebook: Codebook) -> None:
    if facts["format"] != FORMAT:
        raise ContractError(f"The gallery snapshot {path} has format {facts['format']}; this program reads {FORMAT}.")
    if facts["model_digest"] != model_digest:
        raise ContractError(
            f"The gallery snapshot {path} is of model {facts['model_digest'][:12]}, the gallery of "
            f"{model_digest[:12]}.",
        )
    if facts["codebook_digest"] != codebook.digest or facts["dimension"] != codebook.dimension:
        raise ContractError(
            f"The gallery snapshot {path} has codes of another codebook: the card's statistics changed."
        )


def _write_aside(path: Path, chunks: Sequence[bytes | memoryview]) -> None:
    aside = path.with_name(path.name + ".part")
    with aside.open("wb", buffering=0) as file:
        for chunk in chunks:
            left = memoryview(chunk)
            while left:
                left = left[file.write(left) :]
        os.fsync(file.fileno())
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _bytes_of(array: NDArray[Any]) -> memoryview:
    """Return the memory of an array."""
    return array.reshape(-1).view(np.uint8).data if array.nbytes else memoryview(b"")


def _aligned(place: int) -> int:
    return -(-place // _ALIGNMENT) * _ALIGNMENT


def _text(withdrawn: NDArray[np.uint8] | None) -> str | None:
    return None if withdrawn is None else base64.b64encode(withdrawn.tobytes()).decode()


def _bits(text: str | None) -> NDArray[np.uint8] | None:
    return None if text is None else np.frombuffer(base64.b64decode(text), dtype=np.uint8)
