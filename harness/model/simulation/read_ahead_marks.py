# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a page of the swap cache had its PG_readahead yet when another thread found it there.

Who reads ahead adds the page, submits its read, and only then sets the flag and counts SWAP_RA (mm/swap_state.c:
swap_vma_readahead, swap_cluster_readahead).  Who finds it between counts no hit, and nobody does later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.model.pages import HostPage

if TYPE_CHECKING:
    from harness.model.simulation.host_memory import Memory


def marked_late(memory: Memory, page: HostPage) -> bool:
    """The running thread found it without, as far as a recorded run leaves that open."""
    replay, watch, now = memory.world.replay, memory.watch, memory.world.engine.now
    if replay is None or watch is None:
        return False
    read = replay.last_read(page.index, now)
    if read is None or read.thread == watch.thread or now >= replay.next_of_reader(read):
        return False
    return replay.choices.maybe(f"whether {page.index:#x} had no PG_readahead yet", page.index)
