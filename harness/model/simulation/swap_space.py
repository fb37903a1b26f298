# SPDX-License-Identifier: GPL-2.0-or-later
"""How full the swap device is: mm/memcontrol.c:mem_cgroup_swap_full, include/linux/swap.h:vm_swap_full.

When more than half is used, who maps a page frees its slot (mm/memory.c:do_swap_page): it is dirty from then on, and
not in the swap cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.model.simulation.host_memory import Memory

KEPT_BACK = 3 * 2 * 64
"""Slots that processors hold in reserve, two caches of SWAP_SLOTS_CACHE_SIZE each (mm/swap_slots.c, up to 6.13): they
count as used, and how many there are nobody outside the kernel knows."""


def swap_full(memory: Memory) -> bool:
    """Whether nr_swap_pages * 2 < total_swap_pages."""
    usable, replay = memory.world.situation.device.swap_pages - 1, memory.world.replay  # the first holds the header
    if usable <= 0:
        return False
    used = sum(page.swap is not None for page in memory.pages.values())
    if (usable - used) * 2 < usable:
        return True
    if (usable - used - KEPT_BACK) * 2 >= usable or replay is None:
        return False
    return replay.choices.maybe("whether more than half of the swap slots were used", -1)
