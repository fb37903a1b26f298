# SPDX-License-Identifier: GPL-2.0-or-later
"""When all is over, reclaim takes the pages that the guest has written, and they are read again: what is in them must
come back.

A page that the guest has written and the host takes for clean is thrown away (mm/vmscan.c:shrink_folio_list): since
6.13 KVM says that it is dirty when it maps it, and at no other time (kvm_release_faultin_page).
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace

from harness.agent.host import syscalls
from harness.agent.host.kernel_files import PAGE
from harness.agent.host.syscalls import empty_lru_batches
from harness.agent.pages.final_state import word_at
from harness.agent.pages.guest_memory import GuestMemory
from harness.agent.pages.pagemap import PageMap
from harness.agent.pages.pageout import on_one_cpu
from harness.contract.capture import FinalState
from harness.contract.plan import Access, Op, Plan, SwapKind

_ROUNDS = 3
"""Kernels as old as 6.1 leave alone what is in use (mm/vmscan.c:reclaim_page_list, ignore_references), and clear KVM's
accessed bit as they look, so that they take it the next time."""


def can_be_taken(plan: Plan) -> frozenset[int]:
    """Addresses of the pages that a program writes, if reads of its device end at once and none fails."""
    if plan.swap.kind not in (SwapKind.GATED, SwapKind.ZRAM) or plan.swap.error:
        return frozenset()
    return frozenset(i.gpa & -PAGE for i in plan.items if i.op is Op.TOUCH and i.access is Access.WRITE)


def taken_again(pid: int, memory: GuestMemory, final: FinalState, pages: Collection[int]) -> FinalState:
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
    # What is still being written is in the cache, as it should be: only what was thrown away comes from the device.
    again = {gpa: replace(final.pages[gpa], again=word_at(memory, gpa)) for gpa in taken}
    return replace(final, pages={**final.pages, **again})
