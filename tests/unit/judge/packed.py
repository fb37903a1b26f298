# SPDX-License-Identifier: GPL-2.0-or-later
"""Real captures of debian-6.1 that are kept packed, because their traces are long or there are many."""

from __future__ import annotations

import tarfile
from pathlib import Path

DATA = Path(__file__).parents[2] / "data" / "packed"


def packed_capture(name: str) -> dict[str, bytes]:
    """The files of tests/data/packed/<name>.tar.xz by their path in the capture folder."""
    with tarfile.open(DATA / f"{name}.tar.xz") as tar:
        files = {m.name.removeprefix("./"): tar.extractfile(m) for m in tar.getmembers() if m.isfile()}
        return {path: file.read() for path, file in files.items() if file is not None}
