"""A child of `connectors/extraction_processes.py` whose decoder harms it; the product has no such switch."""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import struct
import sys
import threading
from typing import TYPE_CHECKING

from connectors import extraction_processes, face_extractor

if TYPE_CHECKING:
    from connectors.image_decoder import DecodedPhoto, DecodeLimits
    from processors.refusals import Refusal

ABORTS, NEVER_RETURNS, WAITS_FOR_EVER, RAISES = b"aborts", b"never returns", b"waits for ever", b"raises"
SHAKES_OFF_THE_CLOCK = b"shakes off the clock"
TAKES_OVER = b"takes over and runs: "
"""And then the path of a file: what a process that an image has taken over might want of the worker is to make it."""


class _RunsWhereItIsRead:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (self.path, "w")


decode_photo = face_extractor.decode_photo


def decode_or_harm(data: bytes, limits: DecodeLimits, *, enough_px: int | None) -> DecodedPhoto | Refusal:
    if data == ABORTS:
        os.abort()
    if data == NEVER_RETURNS:
        hashlib.pbkdf2_hmac("sha256", b"native", b"code", 2**31 - 1)
    if data == SHAKES_OFF_THE_CLOCK:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
    if data in (WAITS_FOR_EVER, SHAKES_OFF_THE_CLOCK):
        threading.Event().wait()
    if data.startswith(TAKES_OVER):
        harmful = pickle.dumps(_RunsWhereItIsRead(data.removeprefix(TAKES_OVER).decode()))
        os.write(int(sys.argv[-1]), struct.pack("!i", len(harmful)) + harmful)
    if data == RAISES:
        raise ArithmeticError("secret text of a photo")
    return decode_photo(data, limits, enough_px=enough_px)


if __name__ == "__main__":
    face_extractor.decode_photo = decode_or_harm
    extraction_processes.serve()
