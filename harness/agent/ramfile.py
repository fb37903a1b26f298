# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest RAM in a file: made before QEMU starts, dropped from the page cache page by page, and the memfd of QEMU."""

from __future__ import annotations

import os

from harness.agent import syscalls
from harness.agent.files import PAGE
from harness.agent.items import page_content
from harness.errors import InfraFault
from harness.scenario.plan import POOL_GPA, PageStart, Plan


def make_ram_file(path: str, plan: Plan) -> None:
    """The RAM file: a hole below the pool, then a page with content for every pool page that is not planned otherwise.

    All of the pool is really on the disk (no holes, no unwritten extents), so that read-ahead around a planned page
    reads from the device as well.  Holes: pages planned ``untouched``.  Zeroes: none.
    :raise OSError: no space.
    """
    end = plan.guest.memory_mib << 20
    holes = {p.gpa for p in plan.pages if p.start is PageStart.UNTOUCHED}
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(fd, end)
        gpa = POOL_GPA
        while gpa < end:
            first, content = gpa, bytearray()
            while gpa < end and gpa not in holes and len(content) < 1 << 20:
                content += page_content(gpa, plan.nonce)
                gpa += PAGE
            if content:
                os.pwrite(fd, content, first)
            else:
                gpa += PAGE
        os.fsync(fd)
    finally:
        os.close(fd)


def drop_pages(fd: int, ranges: list[tuple[int, int]]) -> None:
    """Drop clean, unmapped pages of [first, last) byte ranges from the page cache (mm/fadvise.c:generic_fadvise)."""
    for first, last in ranges:
        os.posix_fadvise(fd, first, last - first, os.POSIX_FADV_DONTNEED)


def cached_pages(fd: int, size: int) -> bytes:
    """One byte per page of the file: bit 0 says that it is in the page cache (shmem: or in the swap cache)."""
    return syscalls.mincore_file(fd, 0, size // PAGE)


def is_hole(fd: int, offset: int) -> bool:
    """Whether the page was never allocated (a swapped-out page of a memfd is data)."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= offset + PAGE
    except OSError:
        return True  # ENXIO: no data from here to the end


def open_memfd(pid: int) -> int:
    """QEMU's memory-backend-memfd, opened anew. :raise InfraFault: it has none."""
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{entry}").startswith("/memfd:memory-backend-memfd"):
                return os.open(f"/proc/{pid}/fd/{entry}", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
    raise InfraFault("QEMU holds no memfd")
