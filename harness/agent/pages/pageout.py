# SPDX-License-Identifier: GPL-2.0-or-later
"""Bring each planned page into its start state, while the guest is stopped.

How a page gets onto the swap device only: MADV_PAGEOUT unmaps and writes it, but reclaim keeps a folio under writeback
(mm/vmscan.c:shrink_folio_list), so it stays in the swap cache; memory.reclaim on the pages' own cgroup then frees it.
New pages wait in a per-CPU batch before they are on the LRU list (mm/swap.c:folio_add_lru), and MADV_PAGEOUT drains
only its own CPU's batch: so all of this is done on one CPU.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from harness.agent.host import syscalls
from harness.agent.host.cgroup import ScenarioCgroup, enter, reclaim
from harness.agent.host.kernel_files import PAGE, wait_until, write_text
from harness.agent.host.read_counters import swap_cached_pages, writeback_pages
from harness.agent.pages.guest_memory import GuestMemory
from harness.agent.pages.page_content import planned_content
from harness.agent.pages.pagemap import PageMap, Region
from harness.agent.ram.file import drop_pages, pieces, unused_below_pool
from harness.agent.ram.guest_ram import GuestRam
from harness.contract.plan import Backing, Page, PageStart, Plan
from harness.errors import ApfError, DeadlineExpired

WRITEBACK_SECONDS = 30.0
FREE_SECONDS = 30.0
PAGEOUT_ROUNDS = 10
_SWAP_STARTS = (PageStart.SWAPPED, PageStart.ZERO_SWAPPED)


class PreconditionFailed(ApfError):
    """A planned page could not be brought into its state."""


@dataclass(frozen=True, slots=True)
class Target:
    """The stopped guest whose pages are prepared."""

    plan: Plan
    pid: int
    memory: GuestMemory
    group: ScenarioCgroup | None
    ram: GuestRam
    ram_fd: int  # the memfd or RAM file, -1 for anonymous memory

    def address(self, page: Page) -> int:
        return self.memory.base + page.gpa


def prepare_pages(target: Target) -> None:
    """All pages into their states. :raise PreconditionFailed: which, and why not."""
    by_start: dict[PageStart, list[Page]] = {start: [] for start in PageStart}
    for page in target.plan.pages:
        by_start[page.start].append(page)
    with on_one_cpu():
        swapped = [p for p in target.plan.pages if p.start in _SWAP_STARTS]
        if swapped:
            _fill_in_pool(target, swapped)
            _page_out(target, swapped)
            _free_swap_cache(target)
        if by_start[PageStart.SWAPCACHE]:
            _fill_in_pool(target, by_start[PageStart.SWAPCACHE])
            _page_out(target, by_start[PageStart.SWAPCACHE])
        for page in by_start[PageStart.POPULATED]:
            target.memory.write_page(page.gpa, planned_content(target.plan, page.gpa))
        if target.plan.memory.backing is Backing.FILE:
            first = unused_below_pool(target.plan)
            keep = {p.gpa for p in by_start[PageStart.POPULATED]}
            drop_pages(target.ram_fd, list(pieces((first, target.plan.guest.memory_mib << 20), keep)))
    restore_pages_outside_plan(target)


def _fill_in_pool(target: Target, pages: Sequence[Page]) -> None:
    """Write the pages while QEMU is in the pool group, so that they are charged to it, and nothing else is."""
    foldable = any(parameter == "zswap.enabled" for parameter, _ in target.plan.kernel_params)
    with _in_pool(target):
        for page in pages:
            zero = page.start is PageStart.ZERO_SWAPPED
            content = bytes(PAGE) if zero else planned_content(target.plan, page.gpa, foldable=foldable)
            target.memory.write_page(page.gpa, content)


@contextmanager
def _in_pool(target: Target) -> Iterator[None]:
    if target.group is None:
        yield
        return
    enter(target.group.pool, target.pid)
    try:
        yield
    finally:
        enter(target.group.qemu, target.pid)


def _page_out(target: Target, pages: Sequence[Page]) -> None:
    """MADV_PAGEOUT until none of the pages is mapped, then wait for the writes."""
    pidfd = os.pidfd_open(target.pid)
    try:
        with PageMap(target.pid) as pagemap:
            for _ in range(PAGEOUT_ROUNDS):
                left = [target.address(p) for p in pages if pagemap.entry(target.address(p)).present]
                if not left:
                    break
                syscalls.process_madvise(pidfd, [(a, PAGE) for a in left], syscalls.MADV_PAGEOUT)
            else:
                raise PreconditionFailed(f"{len(left)} of {len(pages)} pages stay mapped after MADV_PAGEOUT")
    except OSError as exc:
        raise PreconditionFailed(f"MADV_PAGEOUT: {exc}") from exc
    finally:
        os.close(pidfd)
    try:
        wait_until(lambda: writeback_pages() == 0, WRITEBACK_SECONDS, "the end of writeback")
    except DeadlineExpired as exc:
        raise PreconditionFailed(str(exc)) from exc


def _free_swap_cache(target: Target) -> None:
    """Small reclaims of the pool group until the swap cache is empty."""
    if target.group is None:
        raise PreconditionFailed("pages cannot be freed from the swap cache without a memory cgroup")
    end = time.monotonic() + FREE_SECONDS
    while cached := swap_cached_pages(target.group):
        if time.monotonic() > end:
            raise PreconditionFailed(f"{cached} pages stay in the swap cache")
        if not reclaim(target.group.pool, cached * PAGE):
            drain_lru_batches()
            time.sleep(0.01)


def drain_lru_batches() -> None:
    """Every CPU's batches of folios on their way to an LRU list, each a reference (mm/swap.c:lru_add_drain_all).

    nbd ends a write in a kworker on any CPU, and on 5.10 the end of write-back puts the page into that CPU's batch for
    rotation, where it stays.  /proc/sys/vm/compact_memory is the one file that drains them all.
    """
    with suppress(FileNotFoundError):
        write_text("/proc/sys/vm/compact_memory", "1")


def restore_pages_outside_plan(target: Target, rounds: int = 5) -> int:
    """Bring every page of QEMU that was swapped out without being planned back, writable, off the swap device.

    Each is written with its own bytes while QEMU is stopped by SIGSTOP, so no thread of it can come between: a write
    fault frees the swap slot (mm/memory.c:should_try_to_free_swap), a mere read would leave it in the swap cache.
    Returns how many there were. :raise PreconditionFailed: they do not stay.
    """
    found = 0
    for _ in range(rounds):
        outside = pages_outside_plan(target)
        if not outside:
            return found
        found += len(outside)
        with held_still(target.pid):
            for _region, address in outside:
                with suppress(OSError):  # unmapped in the meantime
                    target.memory.memory.write(address, target.memory.memory.read(address, PAGE))
    raise PreconditionFailed(
        f"{len(pages_outside_plan(target))} pages outside the plan are swapped out again and again"
    )


@contextmanager
def held_still(pid: int) -> Iterator[None]:
    """No thread of this process runs meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def pages_outside_plan(target: Target) -> list[tuple[Region, int]]:
    """Pages of QEMU that are swap entries but not planned to be."""
    planned = {target.address(p) for p in target.plan.pages if p.start in (*_SWAP_STARTS, PageStart.SWAPCACHE)}
    with PageMap(target.pid) as pagemap:
        return [(region, a) for region, a in pagemap.swapped_addresses() if a not in planned]


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """Keep the calling thread on one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def swap_everything_out(group: ScenarioCgroup, seconds: float = 60.0) -> int:
    """Linux guests: reclaim the whole group until nothing more goes and the swap cache is empty.

    The caller holds QEMU still: what a thread of it reads stays in the swap cache while it is mapped, and one that
    wakes up by a timer brings it back as often as it is taken.  Returns the bytes that stay in memory.
    :raise PreconditionFailed: the swap cache is not empty in time.
    """
    end = time.monotonic() + seconds
    idle_rounds = 0
    while True:
        before = _in_memory(group)
        reclaim(group.path, max(before, PAGE * 32))
        wait_until(lambda: writeback_pages() == 0, WRITEBACK_SECONDS, "the end of writeback")
        left = _in_memory(group)
        idle_rounds = idle_rounds + 1 if left >= before - PAGE * 32 else 0
        if swap_cached_pages(group) == 0 and idle_rounds >= 2:
            return left
        if time.monotonic() > end:
            raise PreconditionFailed(f"{swap_cached_pages(group)} pages stay in the swap cache, {left} bytes in memory")


def _in_memory(group: ScenarioCgroup) -> int:
    """Bytes that could be swapped out: anonymous memory and shmem (a memfd)."""
    stat = group.stat()
    return stat.get("anon", 0) + stat.get("shmem", 0)
