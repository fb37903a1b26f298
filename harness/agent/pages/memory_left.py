# SPDX-License-Identifier: GPL-2.0-or-later
"""What of QEMU's memory is still there when QEMU is not: left.json."""

from __future__ import annotations

import os
import time

from harness.agent.host.cgroup import ScenarioCgroup, reclaim
from harness.agent.host.kernel_files import COMPACT, PAGE
from harness.agent.pages.pageout import drain_lru_batches
from harness.contract.capture import MemoryLeft

SECONDS = 3.0
"""How long the last worker, which has published its completion, may take to give its reference to the mm back."""
_LOOK_AGAIN_SECONDS = 0.02
_LISTS = ("inactive_anon", "active_anon", "unevictable")
"""Pages of files of a tmpfs are on them, too: those that there are (shmem), such as QEMU's console, are no leak."""


def memory_left(group: ScenarioCgroup | None) -> MemoryLeft:
    """To be called when QEMU was reaped: all that it had is given back by then, or soon after.

    A page of the swap cache whose slot was freed while somebody had its lock stays until it is reclaimed, though nobody
    has a reference (mm/swapfile.c:__try_to_reclaim_swap gives up).  So what is in no page table is reclaimed: a page
    with a reference too many is kept (mm/vmscan.c:pageout, is_page_cache_freeable).
    """
    if group is None:
        return MemoryLeft(None, None)
    end = time.monotonic() + SECONDS
    while True:
        stat = group.vmm_stat()
        mapped = stat["anon"] // PAGE
        listed = max(0, sum(stat[name] for name in _LISTS) - stat["shmem"]) // PAGE
        if not (mapped or listed) or time.monotonic() >= end:
            return MemoryLeft(mapped, listed if os.path.exists(COMPACT) else None)
        drain_lru_batches()
        if not mapped:
            reclaim(group.path, listed * PAGE)
        time.sleep(_LOOK_AGAIN_SECONDS)
