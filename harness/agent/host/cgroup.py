# SPDX-License-Identifier: GPL-2.0-or-later
"""The scenario's own memory cgroup (version 2): QEMU in one child of it, the pages to be swapped out in another.

A third child, empty, is where the agent goes for a moment to make the kernel fold its counters in.

A page belongs to the group its process was in when the page was allocated, and stays there when the process moves
(Documentation/admin-guide/cgroup-v2.rst, Memory Ownership).  So QEMU is moved to ``pool`` only while the agent fills
the planned pages, and memory.reclaim on ``pool`` cannot touch anything else of QEMU or the guest.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.agent.host.kernel_files import find_mount, key_values, read_text, write_text
from harness.agent.host.undo import Journal
from harness.errors import InfraFault, Unsupported

_SHOWS_SECONDS = 10
"""Each try takes some milliseconds, and the first one is nearly always enough."""


@dataclass(frozen=True, slots=True)
class ScenarioCgroup:
    """Paths of the group and its two children."""

    path: str

    @property
    def qemu(self) -> str:
        return f"{self.path}/qemu"

    @property
    def pool(self) -> str:
        return f"{self.path}/pool"

    @property
    def scratch(self) -> str:
        return f"{self.path}/scratch"

    def stat(self) -> dict[str, int]:
        """memory.stat of the whole scenario (children included), exact.

        memory.stat alone may be two seconds old (mm/memcontrol.c:mem_cgroup_flush_stats).  Up to 6.15 reading cpu.stat
        folds in what every controller has per CPU (kernel/cgroup/rstat.c:cgroup_rstat_flush_locked); from 6.16 on each
        controller has a tree of its own, and memory.stat folds in when enough has changed: so that much is changed.

        :raise InfraFault: what is changed does not show.
        """
        read_text(f"{self.path}/cpu.stat")
        if flushed_by_cpu_stat(os.uname().release):
            return key_values(read_text(f"{self.path}/memory.stat"))
        deadline = time.monotonic() + _SHOWS_SECONDS
        while time.monotonic() < deadline:
            with _many_pages(self.scratch) as size:
                with_them = key_values(read_text(f"{self.path}/memory.stat"))
            without = key_values(read_text(f"{self.path}/memory.stat"))
            if with_them["shmem"] - without["shmem"] >= size:
                return without
            # A group that may be folded in tells those above of no change any more (memcg_rstat_updated).  Who folds
            # all in every two seconds takes one CPU after the other, and may leave ``scratch`` so, and what is above
            # not.  It is folded in by reading its own.
            read_text(f"{self.scratch}/memory.stat")
        raise InfraFault(f"memory.stat of {self.path} does not show what its groups allocate and free")

    def vmm_stat(self) -> dict[str, int]:
        """The same without ``scratch``: who enters it, to change much, may be charged for a page of its own there."""
        whole = self.stat()
        ours = key_values(read_text(f"{self.scratch}/memory.stat"))  # as it was folded in for the whole
        return {name: value - ours.get(name, 0) for name, value in whole.items()}

    def charged(self) -> int:
        """Bytes that are charged to the whole scenario without ``scratch``, with what CPUs have taken in advance."""
        whole, ours = (int(read_text(f"{path}/memory.current")) for path in (self.path, self.scratch))
        return whole - ours

    def give_back(self) -> None:
        """Have the CPUs give back what they have taken in advance, each up to 64 pages (mm/memcontrol.c:try_charge).

        Who writes a memory.high that is exceeded asks them to, before it reclaims (memory_high_write,
        drain_all_stock); they may do it a moment later.
        """
        try:
            write_text(f"{self.path}/memory.high", str(max(int(read_text(f"{self.path}/memory.current")) - 4096, 0)))
        finally:
            write_text(f"{self.path}/memory.high", "max")

    def swapped_pages(self) -> int:
        """memory.swap.current of the whole scenario: pages that have a swap slot."""
        return int(read_text(f"{self.path}/memory.swap.current")) >> 12


def make_cgroup(journal: Journal, name: str) -> ScenarioCgroup:
    """Make the group and its children with the memory controller.

    :raise Unsupported: no cgroup v2 with the memory controller on this host.
    """
    root = find_mount("cgroup2")
    if not root or "memory" not in read_text(f"{root}/cgroup.controllers").split():
        raise Unsupported("the host has no cgroup v2 hierarchy with the memory controller")
    _enable_memory(journal, root)
    group = ScenarioCgroup(f"{root}/{name}")
    journal.change("cgroup", path=group.path)
    os.mkdir(group.path)
    write_text(f"{group.path}/cgroup.subtree_control", "+memory")
    os.mkdir(group.qemu)
    os.mkdir(group.pool)
    os.mkdir(group.scratch)
    return group


def flushed_by_cpu_stat(release: str) -> bool:
    """Whether cpu.stat and memory.stat share a tree of per-CPU parts: until "cgroup: use separate rstat trees for each
    subsystem" (6.16).  Taken from the release (as in uname -r) because no file of cgroupfs tells."""
    major, minor = (int(part) for part in re.findall(r"\d+", release)[:2])
    return (major, minor) < (6, 16)


@contextmanager
def _many_pages(path: str) -> Iterator[int]:
    """Pages that a group has meanwhile, so many that its counters and those above are folded in when next read, both
    when they have come and when they have gone; how many bytes.

    mm/memcontrol.c:memcg_rstat_updated hands changes on in batches of MEMCG_CHARGE_BATCH, 64, of each CPU, and
    memcg_vmstats_needs_flush asks for more than 64 for each online CPU.  We may be moved to another CPU on the way.
    """
    size = ((os.cpu_count() or 1) + 2) * 64 * 4096
    pages = os.memfd_create("apf-scratch")
    try:
        home = _own_group()
        enter(path, os.getpid())
        try:
            os.posix_fallocate(pages, 0, size)
        finally:
            enter(home, os.getpid())
        yield size
    finally:
        os.close(pages)


def _own_group() -> str:
    """The cgroup v2 folder of this process."""
    line = next(line for line in read_text("/proc/self/cgroup").splitlines() if line.startswith("0::"))
    return f"{find_mount('cgroup2')}{line.removeprefix('0::')}"


def _enable_memory(journal: Journal, root: str) -> None:
    control = f"{root}/cgroup.subtree_control"
    if "memory" not in read_text(control).split():
        journal.change("write", path=control, old="-memory")
        write_text(control, "+memory")


def enter(path: str, pid: int) -> None:
    """Move a process, with all its threads, into a group. :raise OSError:"""
    write_text(f"{path}/cgroup.procs", str(pid))


def reclaim(path: str, byte_count: int) -> bool:
    """memory.reclaim (5.19; mm/memcontrol.c:memory_reclaim): True when the kernel says it got that much.

    Before 5.19 a memory.high below the usage: mm/memcontrol.c:memory_high_write reclaims in the thread that writes it.
    """
    if not os.path.exists(f"{path}/memory.reclaim"):
        return _reclaim_by_high(path, byte_count)
    try:
        write_text(f"{path}/memory.reclaim", str(byte_count))
    except OSError as exc:
        if exc.errno != errno.EAGAIN:
            raise
        return False
    return True


def _reclaim_by_high(path: str, byte_count: int) -> bool:
    goal = max(int(read_text(f"{path}/memory.current")) - byte_count, 0)
    try:
        write_text(f"{path}/memory.high", str(goal))
        return int(read_text(f"{path}/memory.current")) <= goal
    finally:
        write_text(f"{path}/memory.high", "max")
