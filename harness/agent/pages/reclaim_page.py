# SPDX-License-Identifier: GPL-2.0-or-later
"""Take one page of a running guest's RAM file out of memory, as reclaim does when memory is short."""

from __future__ import annotations

import os
import time

from harness.agent.host import syscalls
from harness.agent.host.kernel_files import PAGE
from harness.agent.pages.pageout import drain_lru_batches
from harness.errors import InfraFault

_SECONDS = 5.0


def reclaim_page(path: str, pid: int, base: int, gpa: int) -> None:
    """Write the page back, unmap and free it: MADV_PAGEOUT (mm/madvise.c) leaves a dirty page of a file where it is
    (mm/vmscan.c:shrink_folio_list), and one that waits in a CPU's batch for its LRU list.

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
            drain_lru_batches()
            syscalls.process_madvise(pidfd, [(base + gpa, PAGE)], syscalls.MADV_PAGEOUT)
    finally:
        os.close(pidfd)
        os.close(fd)
