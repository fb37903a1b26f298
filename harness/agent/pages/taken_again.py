# SPDX-License-Identifier: GPL-2.0-or-later
"""When all is over, reclaim takes the pages that the guest has written, and they are read again: what is in them must
come back.

A page that the guest has written and the host takes for clean is thrown away (mm/vmscan.c:shrink_folio_list): since
6.13 KVM says that it is dirty when it maps it, and at no other time (kvm_release_faultin_page).  And one that is
written out to a slot that it had before comes back as what that slot is said to hold (mm/page_io.c:swap_writepage).
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import replace

from harness.agent.host import syscalls
from harness.agent.host.cgroup import ScenarioCgroup, reclaim
from harness.agent.host.kernel_files import PAGE
from harness.agent.host.read_counters import swap_cached_pages
from harness.agent.host.syscalls import empty_lru_batches
from harness.agent.pages.final_state import word_at
from harness.agent.pages.guest_memory import GuestMemory
from harness.agent.pages.pagemap import PageMap
from harness.agent.pages.pageout import drain_lru_batches, on_one_cpu
from harness.contract.capture import FinalState
from harness.contract.plan import Access, Op, Plan, SwapKind

_ROUNDS = 3
"""Kernels as old as 6.1 leave alone what is in use (mm/vmscan.c:reclaim_page_list, ignore_references), and clear KVM's
accessed bit as they look, so that they take it the next time."""
SECONDS = 2.0
"""How long what is taken may stay in the swap cache, which it leaves when it was written; what stays says little."""


def can_be_taken(plan: Plan) -> frozenset[int]:
    """Addresses of the pages that a program writes, if reads of its device end at once and none fails."""
    if plan.swap.kind not in (SwapKind.GATED, SwapKind.ZRAM) or plan.swap.error:
        return frozenset()
    return frozenset(i.gpa & -PAGE for i in plan.items if i.op is Op.TOUCH and i.access is Access.WRITE)


def taken_again(
    pid: int, memory: GuestMemory, final: FinalState, pages: Collection[int], group: ScenarioCgroup | None = None
) -> FinalState:
    """The same with ``again`` of each of these pages that reclaim has taken (MADV_PAGEOUT); what stays says nothing.

    The guest's program is over, and the device holds nothing.
    :raise OSError: QEMU is gone.
    """
    left = words = [gpa for gpa, page in final.pages.items() if page.word is not None and gpa in pages]
    if left:
        empty_lru_batches()  # reclaim does not find what a CPU has in one
    pidfd = os.pidfd_open(pid)
    try:
        # What stays goes into the batch of this CPU, which the next round empties (mm/madvise.c:madvise_pageout).
        with PageMap(pid) as pagemap, on_one_cpu():
            for _ in range(_ROUNDS):
                if not left:
                    break
                syscalls.process_madvise(pidfd, [(memory.base + gpa, PAGE) for gpa in left], syscalls.MADV_PAGEOUT)
                left = [gpa for gpa in left if pagemap.entry(memory.base + gpa).present]
    finally:
        os.close(pidfd)
    taken = [gpa for gpa in words if gpa not in left]
    if taken and group is not None:
        _write_out(group)
    again = {gpa: replace(final.pages[gpa], again=word_at(memory, gpa)) for gpa in taken}
    return replace(final, pages={**final.pages, **again})


def _write_out(group: ScenarioCgroup) -> None:
    """What is taken is in the swap cache until it is written and reclaimed once more; then it comes from the device."""
    end = time.monotonic() + SECONDS
    while (cached := swap_cached_pages(group)) and time.monotonic() < end:
        if not reclaim(group.pool, cached * PAGE):
            drain_lru_batches()
            time.sleep(0.01)
