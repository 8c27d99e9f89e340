"""Templates from processes of their own: the same as in this one, and no image harms any but its own (G7, G10, G12)."""

from __future__ import annotations

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import hostile_child
import pytest

from connectors import extraction_processes
from connectors.extraction_processes import ExtractionProcesses
from processors.extraction import ExtractedFace
from processors.refusals import Refusal, RefusalCode
from schemas.errors import DomainFault, IntegrityError

if TYPE_CHECKING:
    from connectors.face_extractor import FaceExtractor
    from infra.assets import Assets

LIMIT_S = 2.0
"""Of processor time: fifty times what a sample photo takes, however busy the machine is."""


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use children whose decoder harms them."""
    script = str(Path(hostile_child.__file__))
    monkeypatch.setattr(extraction_processes, "CHILD", (sys.executable, script))


def test_a_template_is_the_same_as_in_this_process_byte_for_byte(
    extractor: FaceExtractor, assets: Assets, photos: dict[str, bytes]
) -> None:
    """G7."""
    with (
        closing(ExtractionProcesses(assets.card, assets.pack_dir, processes=2, limit_s=60.0)) as processes,
        ThreadPoolExecutor(4) as threads,
    ):
        found = dict(zip(photos, threads.map(processes.extract, photos.values()), strict=True))
        refused = processes.extract(b"no photo")
    for name, photo in photos.items():
        here, there = extractor.extract(photo), found[name]
        assert isinstance(here, ExtractedFace)
        assert isinstance(there, ExtractedFace)
        assert there.template.tobytes() == here.template.tobytes()
        assert not there.template.flags.writeable
        assert (there.measurements, there.box_px, there.model_digest) == (
            here.measurements,
            here.box_px,
            here.model_digest,
        )
    assert refused == extractor.extract(b"no photo")


@pytest.mark.usefixtures("hostile")
def test_an_image_that_harms_its_process_is_set_aside_or_refused_and_the_others_are_read(
    assets: Assets, photos: dict[str, bytes]
) -> None:
    """G12: native code that aborts is poison; that never returns, too much work; neither is tried for ever."""
    with (
        closing(ExtractionProcesses(assets.card, assets.pack_dir, processes=2, limit_s=LIMIT_S)) as processes,
        ThreadPoolExecutor(4) as threads,
    ):
        before = set(processes.process_ids)
        never = threads.submit(processes.extract, hostile_child.NEVER_RETURNS)
        aborts = threads.submit(processes.extract, hostile_child.ABORTS)
        good = [threads.submit(processes.extract, photo) for photo in photos.values()]
        assert all(isinstance(each.result(), ExtractedFace) for each in good)

        refused = never.result()
        assert isinstance(refused, Refusal)
        assert refused.code is RefusalCode.UNDECODABLE
        assert "more than 2 s" in refused.message
        with pytest.raises(DomainFault, match="2 processes ended") as fault:
            aborts.result()
        assert fault.value.code == "POISON"
        assert isinstance(processes.extract(photos["A1"]), ExtractedFace)
        assert before != set(processes.process_ids)


@pytest.mark.usefixtures("hostile")
def test_an_image_that_only_waits_is_ended_by_the_clock(assets: Assets) -> None:
    one = {"processes": 1, "limit_s": 60.0, "clock_limit_s": 1.0}
    with closing(ExtractionProcesses(assets.card, assets.pack_dir, **one)) as processes:
        with pytest.raises(DomainFault, match="2 processes ended") as fault:
            processes.extract(hostile_child.WAITS_FOR_EVER)
        assert fault.value.code == "POISON"


@pytest.mark.usefixtures("hostile")
def test_an_image_that_shakes_the_clock_off_is_ended_from_outside(
    assets: Assets, photos: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction_processes, "_STOP_LIMIT_S", 0.5)
    one = {"processes": 1, "limit_s": 60.0, "clock_limit_s": 1.0}
    with (
        closing(ExtractionProcesses(assets.card, assets.pack_dir, **one)) as processes,
        pytest.raises(DomainFault, match="2 processes ended"),
    ):
        processes.extract(hostile_child.SHAKES_OFF_THE_CLOCK)
    with closing(ExtractionProcesses(assets.card, assets.pack_dir, processes=1, limit_s=60.0)) as processes:
        assert isinstance(processes.extract(photos["A1"]), ExtractedFace)


@pytest.mark.usefixtures("hostile")
def test_an_image_that_takes_its_process_over_does_not_get_into_the_worker(
    assets: Assets, photos: dict[str, bytes], tmp_path: Path
) -> None:
    made = tmp_path / "made by the worker"
    with closing(ExtractionProcesses(assets.card, assets.pack_dir, processes=1, limit_s=60.0)) as processes:
        with pytest.raises(DomainFault, match="2 processes ended"):
            processes.extract(hostile_child.TAKES_OVER + str(made).encode())
        assert not made.exists()
        assert isinstance(processes.extract(photos["A1"]), ExtractedFace)


@pytest.mark.usefixtures("hostile")
def test_an_exception_that_nobody_foresaw_is_told_without_its_text(assets: Assets, photos: dict[str, bytes]) -> None:
    """G10: its text may quote the image."""
    with closing(ExtractionProcesses(assets.card, assets.pack_dir, processes=1, limit_s=60.0)) as processes:
        with pytest.raises(DomainFault, match=r"^ArithmeticError at decode_or_harm:\d+\.$") as fault:
            processes.extract(hostile_child.RAISES)
        assert fault.value.code == "UNEXPECTED"
        assert isinstance(processes.extract(photos["A1"]), ExtractedFace)


def test_a_pack_that_is_not_the_cards_is_told_at_the_start(assets: Assets, tmp_path: Path) -> None:
    pack = shutil.copytree(assets.pack_dir, tmp_path / "pack")
    model = pack / assets.card.recogniser.file
    model.write_bytes(model.read_bytes() + b"\x00")
    with pytest.raises(IntegrityError, match="not the one in the model card"):
        ExtractionProcesses(assets.card, pack, processes=2, limit_s=60.0)
