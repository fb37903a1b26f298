# SPDX-License-Identifier: GPL-2.0-or-later
"""One page of a file that a process has mapped leaves memory, and what was written is on the disk."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import pytest

from harness.agent.host import syscalls
from harness.agent.pages.pagemap import PageMap
from harness.agent.pages.reclaim_page import reclaim_page

PAGE = 4096


def _in_memory(path: Path, offset: int) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        return bool(syscalls.mincore_file(fd, offset, 1)[0] & 1)
    finally:
        os.close(fd)


@pytest.mark.skipif(os.geteuid() != 0, reason="reclaim of another process's pages needs root")
def test_a_dirty_page_is_written_back_unmapped_and_freed(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.touch()
    os.truncate(path, 8 * PAGE)  # a hole, so that each page comes by a fault of its own, and in a folio of its own
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 8 * PAGE) as ram:
        for n in range(8):
            ram[n * PAGE] = 7
        base = ctypes.addressof(ctypes.c_char.from_buffer(ram))
        reclaim_page(str(path), os.getpid(), base, 5 * PAGE)
        with PageMap(os.getpid()) as pagemap:
            present = [pagemap.entry(base + n * PAGE).present for n in range(8)]
        assert present == [n != 5 for n in range(8)]
        assert [_in_memory(path, n * PAGE) for n in range(8)] == present
        assert ram[5 * PAGE] == 7  # read from the disk again
        reclaim_page(str(path), os.getpid(), base, 5 * PAGE)  # and once more, clean
        assert not _in_memory(path, 5 * PAGE)
