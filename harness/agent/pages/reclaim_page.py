# SPDX-License-Identifier: GPL-2.0-or-later
"""Take one page of a running guest's RAM file out of memory, as reclaim does when memory is short."""

from __future__ import annotations

import errno
import os
import time

from harness.agent.host import syscalls
from harness.agent.host.kernel_files import PAGE, find_mount, write_text
from harness.errors import InfraFault

_SECONDS = 5.0


def _split_folio(path: str, index: int) -> None:
    """Split the large folio that has this page of the file, if one has (mm/huge_memory.c:split_huge_pages_in_file).

    :raise OSError: the kernel refused, for another reason than that it splits none of a file's (up to 5.12).
    """
    control = f"{find_mount('debugfs')}/split_huge_pages"
    if not os.path.exists(control):  # the kernel knows no large folios
        return
    try:
        write_text(control, f"{path},{index:#x},{index + 1:#x}")
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise


def reclaim_page(path: str, pid: int, base: int, gpa: int) -> None:
    """Write the page back, unmap and free it.

    MADV_PAGEOUT (mm/madvise.c) leaves a page alone that is dirty (mm/vmscan.c:shrink_folio_list), that nobody has
    mapped, or that waits in a processor's batch for its LRU list.  POSIX_FADV_DONTNEED frees one that is not mapped,
    and has all batches drained where it could not (mm/fadvise.c:generic_fadvise).  Neither touches another page.
    Neither takes a part of a large folio (POSIX_FADV_DONTNEED), or one that is not mapped just there (MADV_PAGEOUT), so
    that a large folio is split before, as reclaim splits one: its other pages stay in memory, mapped nowhere.

    :param path: the RAM file.
    :param pid: QEMU's.
    :param base: where guest physical address 0 is in QEMU.
    :raise InfraFault: the page stays in memory.
    :raise OSError: the file cannot be written back, or QEMU is gone.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    pidfd = os.pidfd_open(pid)
    try:
        end = time.monotonic() + _SECONDS
        while syscalls.mincore_file(fd, gpa, 1)[0] & 1:
            if time.monotonic() > end:
                raise InfraFault(f"the page {gpa:#x} of {path} stays in memory")
            syscalls.sync_file_range(fd, gpa, PAGE)
            _split_folio(path, gpa // PAGE)
            os.posix_fadvise(fd, gpa, PAGE, os.POSIX_FADV_DONTNEED)
            syscalls.process_madvise(pidfd, [(base + gpa, PAGE)], syscalls.MADV_PAGEOUT)
    finally:
        os.close(pidfd)
        os.close(fd)
