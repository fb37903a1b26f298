# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest RAM in a file on the delay device: made before QEMU starts, dropped from the page cache page by page."""

from __future__ import annotations

import os
from collections.abc import Iterator

from harness.agent.host import syscalls
from harness.agent.host.kernel_files import PAGE
from harness.agent.host.swap import Device, mount_ext4
from harness.agent.host.undo import Journal
from harness.agent.pages.extents import Extent, written_extents
from harness.agent.pages.page_content import page_content, planned_content
from harness.agent.ram.guest_ram import GuestRam
from harness.contract.plan import POOL_GPA, RAM_FILE_DATA_AFTER, RAM_FILE_DATA_BEFORE, PageStart, Plan
from harness.contract.probe_abi import LOG_BYTES, LOG_GPA

_HUGE = 2 << 20
READ_AROUND = 32
"""Pages that a miss reads, half of them before it (mm/filemap.c:do_sync_mmap_readahead, 128 KiB of read-ahead)."""


class FileRam(GuestRam):
    """memory-backend-file.  The plan's device carries its file system.

    QEMU advises MADV_HUGEPAGE for all RAM, and file read-ahead takes that for a wish to read 4 MiB at a time even with
    huge pages off (mm/filemap.c:do_sync_mmap_readahead, since 5.18).
    """

    advice = (syscalls.MADV_NOHUGEPAGE,)

    def set_up(self, journal: Journal, device: Device, plan: Plan, folder: str) -> str:
        # A write-back by the flusher would write-protect the guest's own pages in the middle of the run.
        journal.write("/proc/sys/vm/dirty_writeback_centisecs", "0")
        mount_ext4(journal, device, folder)
        path = f"{folder}/ram"
        # Unlinked before the unmount: then what the guest wrote need not go to the disk.
        journal.change("file", path=path)
        make_ram_file(path, plan)
        return path

    def qemu_object(self, path: str) -> tuple[str, str]:
        return "memory-backend-file", f",mem-path={path}"

    def open(self, pid: int, path: str) -> int:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def extents(self, fd: int) -> tuple[Extent, ...] | None:
        return written_extents(fd)


def make_ram_file(path: str, plan: Plan) -> None:
    """The RAM file: a hole below the pool, then space for all of it in one go, so that it lies in one piece; what lies
    between two holes might be anywhere (fs/ext4/mballoc.c has a group of its own for small files and their pieces), so
    that they are put into it afterwards.

    Really written are the planned pages and what read-ahead around them can reach: the read-around of a miss, and one
    window more.  Holes: pages planned ``untouched``.  The rest of the pool is unwritten space, which reads as zeroes.

    Nothing stays in the page cache but pages planned ``populated``.  What was written in one go may lie there in large
    folios (fs/ext4/inode.c:ext4_write_begin, since 6.16), which are dropped, written back and write-protected as a
    whole; these pages are written one by one, so that each has a folio of its own.
    :raise OSError: no space.
    """
    end = plan.guest.memory_mib << 20
    holes = {p.gpa for p in plan.pages if p.start is PageStart.UNTOUCHED}
    planned = {p.gpa for p in plan.pages}
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.posix_fallocate(fd, POOL_GPA, end - len(holes) * PAGE - POOL_GPA)
        for gpa in sorted(holes):
            if gpa < os.fstat(fd).st_size:
                syscalls.insert_hole(fd, gpa, PAGE)
        os.ftruncate(fd, end)
        filler = page_content(0, plan.nonce)
        for first, last in windows(plan, RAM_FILE_DATA_BEFORE, RAM_FILE_DATA_AFTER):
            for start, stop in pieces((first, last), holes):
                gpas = range(start, stop, PAGE)
                os.pwrite(fd, b"".join(planned_content(plan, g) if g in planned else filler for g in gpas), start)
        os.fsync(fd)
        drop_pages(fd, [(0, end)])
        for page in plan.pages:
            if page.start is PageStart.POPULATED:
                os.pwrite(fd, planned_content(plan, page.gpa), page.gpa)
        os.fsync(fd)
    finally:
        os.close(fd)


def windows(plan: Plan, before: int, after: int, least: int = POOL_GPA) -> list[tuple[int, int]]:
    """[first, last) byte ranges from ``before`` pages before to ``after`` pages from each planned page that is to hold
    data, none of it below ``least``; where they overlap, as one."""
    end = plan.guest.memory_mib << 20
    merged: list[tuple[int, int]] = []
    for page in sorted(plan.pages, key=lambda p: p.gpa):
        if page.start is PageStart.UNTOUCHED:
            continue
        first, last = max(least, page.gpa - before * PAGE), min(end, page.gpa + after * PAGE)
        if merged and first <= merged[-1][1]:
            first = merged.pop()[0]
        merged.append((first, last))
    return merged


def unused_below_pool(plan: Plan) -> int:
    """The first address from which on nothing below the pool is the probe's own, nor in one large folio with it; the
    pool's where there is no such.  QEMU asks for huge pages (MADV_HUGEPAGE), so that the probe's memory was read in
    windows of 2 MiB, each with the next one (mm/filemap.c:do_sync_mmap_readahead)."""
    own_end = LOG_GPA + plan.guest.vcpus * LOG_BYTES
    return min(POOL_GPA, -(-own_end // _HUGE) * _HUGE)


def pieces(whole: tuple[int, int], holes: set[int]) -> Iterator[tuple[int, int]]:
    """The byte range without the pages (addresses) that lie in it."""
    first, end = whole
    for gpa in sorted(h for h in holes if whole[0] <= h < whole[1]):
        if first < gpa:
            yield first, gpa
        first = gpa + PAGE
    if first < end:
        yield first, end


def drop_pages(fd: int, ranges: list[tuple[int, int]]) -> None:
    """Drop clean, unmapped pages of [first, last) byte ranges from the page cache (mm/fadvise.c:generic_fadvise)."""
    for first, last in ranges:
        os.posix_fadvise(fd, first, last - first, os.POSIX_FADV_DONTNEED)
