# SPDX-License-Identifier: GPL-2.0-or-later
"""With one entry, every MMU but the TDP MMU fills its neighbours that are not there yet."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from harness.model.pages import Pte

if TYPE_CHECKING:
    from harness.model.simulation.host_memory import Memory

_PREFETCHED = 8  # arch/x86/kvm/mmu/mmu_internal.h: PTE_PREFETCH_NUM


def direct_pte_prefetch(memory: Memory, tables: dict[int, bool], gfn: int) -> None:
    """arch/x86/kvm/mmu/mmu.c:__direct_pte_prefetch: each run of others in the aligned eight that are not there yet is
    filled, up to the first page of it that GUP-fast does not find for writing; the first run of which it finds none
    ends it."""
    first, start = gfn - gfn % _PREFETCHED, -1
    for other in range(first, first + _PREFETCHED + memory.world.situation.kernel.prefetches_last_run):
        if other < first + _PREFETCHED and other != gfn and other not in tables:
            start = other if start < 0 else start
        elif start >= 0:
            found = list(takewhile(lambda one: _found_by_gup_fast(memory, one), range(start, other)))
            if not found:
                return
            tables.update(dict.fromkeys(found, True))
            start = -1


def prefetched_with(memory: Memory, gfn: int) -> set[int]:
    """Guest pages whose faults in KVM look at the host's PTE of this one: itself, and its aligned eight where an MMU
    fills them."""
    situation = memory.world.situation
    if situation.kernel.tdp_mmu and not memory.l2_npt:
        return {gfn}
    first = gfn - gfn % _PREFETCHED
    return set(range(first, first + _PREFETCHED))


def _found_by_gup_fast(memory: Memory, gfn: int) -> bool:
    page = memory.pages.get(memory.gfn_to_vpn.get(gfn, -1))
    return page is not None and page.pte is Pte.WRITABLE and gfn not in memory.no_slot
