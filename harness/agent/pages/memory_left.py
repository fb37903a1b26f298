# SPDX-License-Identifier: GPL-2.0-or-later
"""What of QEMU's memory, and of KVM's works for it, is still there when QEMU is not: left.json."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Mapping

from harness.agent.host import syscalls
from harness.agent.host.bounded import within
from harness.agent.host.cgroup import ScenarioCgroup, flushed_by_cpu_stat, reclaim
from harness.agent.host.kernel_files import COMPACT, PAGE
from harness.agent.pages.pageout import drain_lru_batches
from harness.agent.pages.works_left import contexts_left, works_left
from harness.agent.ram.guest_ram import cached_pages
from harness.contract.capture import MemoryLeft
from harness.contract.plan import POOL_GPA

SECONDS = 3.0
"""How long the last worker, which has published its completion, may take to give its reference to the mm back."""
_LOOK_AGAIN_SECONDS = 0.02
_FIRST_BIT = bytes(byte & 1 for byte in range(256))
_LISTS = ("inactive_anon", "active_anon", "unevictable")
"""Pages of files of a tmpfs are on them, too: those that there are (shmem), such as QEMU's console, are no leak."""
_ALL_LISTS = (*_LISTS, "inactive_file", "active_file")


def memory_left(group: ScenarioCgroup | None, ram_path: str = "", debugfs: str = "") -> MemoryLeft:
    """To be called when QEMU was reaped: all that it had is given back by then, or soon after.  Unlinks the RAM file.

    A page of the swap cache whose slot was freed while somebody had its lock stays until it is reclaimed, though nobody
    has a reference (mm/swapfile.c:__try_to_reclaim_swap gives up).  So what is in no page table is reclaimed: a page
    with a reference too many is kept (mm/vmscan.c:pageout, is_page_cache_freeable).

    :param ram_path: the RAM file, whose pages stay in the page cache when nobody maps them; "" where there is none.
    :param debugfs: where it is mounted; "": it is not, and nobody can tell how many works are left.
    :raise OSError: the file cannot be written back, or the slab of the works not shrunk.
    """
    if group is None:
        return MemoryLeft(None, None)
    end = time.monotonic() + SECONDS
    while True:
        stat = group.vmm_stat()
        mapped = stat["anon"] // PAGE
        listed = max(0, sum(stat[name] for name in _LISTS) - stat["shmem"]) // PAGE
        kept = 0 if mapped or not ram_path else _kept_of_file(ram_path)
        opened = bool(ram_path) and _opened(ram_path)
        works, contexts = works_left(debugfs), contexts_left()
        unlisted = _unlisted(group.charged(), stat)
        cached = stat["swapcached"] // PAGE if "swapcached" in stat else None
        left = mapped or listed or kept or opened or works or contexts or unlisted or cached
        if not left or time.monotonic() >= end:
            locked = bool(ram_path) and _locked(ram_path)
            if not os.path.exists(COMPACT):
                return MemoryLeft(mapped, None, opened, works, locked, contexts=contexts)
            return MemoryLeft(mapped, listed + kept, opened, works, locked, unlisted, cached, contexts=contexts)
        drain_lru_batches()
        if unlisted:
            group.give_back()
        if listed and not mapped:
            reclaim(group.path, listed * PAGE)
        time.sleep(_LOOK_AGAIN_SECONDS)


def _unlisted(charged: int, stat: Mapping[str, int]) -> int | None:
    """Pages that are charged, are no memory of the kernel's own, and are on no list: a fault has allocated them, and
    did not come to map them (mm/memory.c:do_cow_fault).  And page tables: no address space is there any more.  And what
    is counted as shared memory and is not there: it was counted twice (mm/shmem.c:shmem_add_to_page_cache).

    :return: None: this kernel does not say how much memory of its own is charged (before 5.18); or from 6.16 on, where
        Debian's 7.3 had one page more than memory.stat names in two runs of 15, for no reason that is known.
    """
    if "kernel" not in stat or not flushed_by_cpu_stat(os.uname().release):
        return None
    named = sum(stat[name] for name in (*_ALL_LISTS, "kernel")) + stat.get("sock", 0)
    uncounted = max(0, stat["shmem"] - sum(stat[name] for name in _LISTS))
    return (max(0, charged - named) + uncounted + stat.get("pagetables", 0)) // PAGE


def _kept_of_file(path: str) -> int:
    """Pages of the pool that the page cache does not give away: written back and in no page table, somebody has a
    reference (mm/vmscan.c:__remove_mapping).  A page whose read is still under way does not count
    (mm/mincore.c:mincore_page: only what is up to date)."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        end = os.fstat(fd).st_size
        syscalls.sync_file_range(fd, POOL_GPA, end - POOL_GPA)
        os.posix_fadvise(fd, POOL_GPA, end - POOL_GPA, os.POSIX_FADV_DONTNEED)
        return cached_pages(fd, end)[POOL_GPA // PAGE :].translate(_FIRST_BIT).count(1)
    finally:
        os.close(fd)


def _opened(path: str) -> bool:
    """Whether somebody has the file open for writing: a read lease is refused then (fs/locks.c:check_conflicting_open).

    A fault that lets go of mmap_lock has a reference to the file of its VMA until it comes back
    (mm/internal.h:maybe_unlock_mmap_for_io); a process that is gone has none.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as exc:
        if exc.errno != errno.EAGAIN:
            raise
        return True
    finally:
        os.close(fd)
    return False


def _locked(path: str) -> bool:
    """Whether somebody holds the lock that a fault takes where a page may have to be read (mm/filemap.c:filemap_fault,
    invalidate_lock; before 5.15 ext4's i_mmap_sem): no hole can be punched then (fs/ext4/inode.c:ext4_punch_hole).

    Who punches it has the inode's lock meanwhile, which unlink(2) takes, too: the file is unlinked first.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.unlink(path)
        within(SECONDS, lambda: _punch(fd), f"a hole in {path}")
    except TimeoutError:
        return True
    finally:
        os.close(fd)
    return False


def _punch(fd: int) -> None:
    """In a process of its own, which nothing ends that waits for the lock: it keeps nothing else of ours open.  The
    first page lies below the pool, and is a hole."""
    os.closerange(0, fd)
    os.closerange(fd + 1, os.sysconf("SC_OPEN_MAX"))
    syscalls.punch_hole(fd, 0, PAGE)
