# SPDX-License-Identifier: GPL-2.0-or-later
"""Which page-table pages KVM's faults have linked, and whether two that map at once can be in each other's way.

Only of the TDP MMU, which maps under mmu_lock held for reading (from 5.15 on; arch/x86/kvm/mmu/mmu.c:direct_page_fault,
6.12: kvm_tdp_mmu_page_fault): there each entry is put by a cmpxchg, and who finds that another has changed it since it
was read gives up with RET_PF_RETRY (tdp_mmu.c:tdp_mmu_set_spte_atomic, tdp_mmu_link_sp, kvm_tdp_mmu_map; 5.15, 6.1,
6.12).  That is the entry of the page itself, or one above it that was still to be linked.  Every other MMU holds the
lock for writing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

_LEVELS = (9, 18, 27, 36)
"""Bits of a guest frame number below an entry of level 2, 3, 4 and 5: a page-table page has 512 entries."""


@dataclass(slots=True)
class PageTables:
    """By (level, place, L2's): since when the table below that entry is there.

    What the guest's own code and stack have linked is not here: fewer are known than there are.
    """

    linked: dict[tuple[int, int, bool], int] = field(default_factory=dict)

    def link(self, gfn: int, *, guest_mode: bool, now_ns: int, huge: bool = False) -> None:
        """A fault has mapped the page; ``huge``: by an entry of level 2, below which there is no table."""
        for bits in _LEVELS[1:] if huge else _LEVELS:
            self.linked.setdefault((bits, gfn >> bits, guest_mode), now_ns)

    def forget(self) -> None:
        """A memory slot was deleted: all roots are zapped (arch/x86/kvm/mmu/mmu.c:kvm_mmu_zap_all_fast)."""
        self.linked.clear()

    def forget_l2s(self) -> None:
        """The tables of an L1 for its L2s are written anew: what shadows them is zapped."""
        self.linked = {place: since for place, since in self.linked.items() if not place[2]}

    def may_collide(self, gfn: int, others: Iterable[int], *, guest_mode: bool, since_ns: int) -> bool:
        """Whether an entry that the fault on ``gfn``, which began at ``since_ns``, has to put was one that a fault on
        one of ``others``, at the same time, puts too."""
        for other in others:
            if other == gfn:
                return True
            for bits in _LEVELS:
                linked_ns = self.linked.get((bits, gfn >> bits, guest_mode), since_ns)
                if gfn >> bits == other >> bits and linked_ns >= since_ns:
                    return True
        return False
