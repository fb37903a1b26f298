# SPDX-License-Identifier: GPL-2.0-or-later
"""What another process reads of the guest's RAM file, by this machine's own page cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.agent.guest.actions import open_for_single_reads
from harness.agent.host import syscalls
from harness.agent.host.kernel_files import PAGE

_PAGES = 128
_CACHED = 16  # pages that a stream would have left behind


def _plain(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _cached_after_a_read(path: Path, opened: Callable[[str], int]) -> list[int]:
    """The pages behind the first ones that are in the page cache when the next one has been read."""
    path.write_bytes(os.urandom(PAGE * _PAGES))
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        if any(page & 1 for page in syscalls.mincore_file(fd, 0, _PAGES)):
            pytest.skip("this file system keeps its pages")
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        for page in range(_CACHED):
            os.pread(fd, PAGE, PAGE * page)
        reader = opened(str(path))
        try:
            os.pread(reader, PAGE, PAGE * _CACHED)
        finally:
            os.close(reader)
        return [n for n, page in enumerate(syscalls.mincore_file(fd, 0, _PAGES)) if page & 1 and n >= _CACHED]
    finally:
        os.close(fd)


def test_lock_read_brings_its_page_and_no_other(tmp_path: Path) -> None:
    assert _cached_after_a_read(tmp_path / "single", open_for_single_reads) == [_CACHED]


def test_another_reader_would_be_taken_for_a_stream(tmp_path: Path) -> None:
    assert len(_cached_after_a_read(tmp_path / "stream", _plain)) > 1
