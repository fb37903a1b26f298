# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a page that was read still waits in some CPU's batch of pages for the LRU lists (mm/swap.c:lru_cache_add).

A batch has up to 15 pages, of whatever process, and holds a reference to each.  Read-ahead empties that of its CPU at
its end (mm/swap_state.c:swap_vma_readahead), the read of a single page and one past the swap cache do not.  Until 5.18
do_wp_page copies what has more than one reference; from then on it looks for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.model.events import Kind
from harness.model.pages import HostPage

if TYPE_CHECKING:
    from harness.model.simulation.host_memory import Memory


def in_batch(memory: Memory, page: HostPage) -> bool:
    """Whether it waits there as the running thread writes to it.

    Of a recorded run most likely if its vCPU faults once more: the notifier of the copy takes the page from the guest.
    """
    replay = memory.world.replay
    if replay is None:
        return memory.world.situation.timing.batched
    mark = replay.next_of_guest(memory.running) if memory.running >= 0 else None
    why = f"whether {page.index:#x} waited in a CPU's batch for its LRU list"
    likely = mark is not None and mark.fits(Kind.PF, page.index, write=True)
    return replay.choices.maybe(why, page.index, likely=likely)
