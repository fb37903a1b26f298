# SPDX-License-Identifier: GPL-2.0-or-later
"""Swap that others use on this host: what of the host's counters is theirs, and whose pages lie on our device.

pswpin and pswpout of /proc/vmstat count every swap area (mm/page_io.c).  Of one device its own statistics count the
same pages, 8 sectors each (Documentation/block/stat.rst); what is left is of the others.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from harness.agent.host.kernel_files import key_values, read_text
from harness.agent.host.read_counters import refresh
from harness.contract.probe_abi import SECTORS_PER_PAGE

_SLOTS_KEPT = 128
"""Slots that each CPU may have taken without a page in them: SWAP_SLOTS_CACHE_SIZE for its two caches (mm/swap_slots.c,
up to 6.13)."""


@dataclass(frozen=True, slots=True)
class SwappedByOthers:
    """Pages since the boot, in and out, of all swap but our device's."""

    pages_in: int
    pages_out: int

    @staticmethod
    def now(device: str) -> SwappedByOthers:
        """``device``: path of ours; empty: what is counted is all of others."""
        refresh()
        vmstat = key_values(read_text("/proc/vmstat"))
        ours_in = ours_out = 0
        if device:
            fields = read_text(f"/sys/class/block/{os.path.basename(os.path.realpath(device))}/stat").split()
            ours_in, ours_out = int(fields[2]) // SECTORS_PER_PAGE, int(fields[6]) // SECTORS_PER_PAGE
        return SwappedByOthers(vmstat["pswpin"] - ours_in, vmstat["pswpout"] - ours_out)

    def since(self, before: SwappedByOthers) -> str:
        """What others have swapped since then, in words; empty: nothing."""
        pages_in, pages_out = self.pages_in - before.pages_in, self.pages_out - before.pages_out
        if not pages_in and not pages_out:
            return ""
        return f"{pages_in} pages in and {pages_out} out"


def used_pages(device: str) -> int:
    """Pages of a swap device that are taken; 0 when it is none."""
    for line in read_text("/proc/swaps").splitlines()[1:]:
        fields = line.split()
        if os.path.realpath(fields[0]) == os.path.realpath(device):
            return int(fields[3]) // 4
    return 0


def highest_priority() -> int:
    """Of the swap areas that are in use; -3, which none has, without any."""
    return max((int(line.split()[4]) for line in read_text("/proc/swaps").splitlines()[1:]), default=-3)


def misplaced(device: str, own_pages: int) -> str:
    """Why the pages on our device cannot be just those of our cgroup, in words; empty: they may be.

    :param own_pages: that the cgroup has swapped out.
    """
    used = used_pages(device)
    if used < own_pages:
        return f"{own_pages - used} of our {own_pages} swapped pages lie on another swap area than {device}"
    more = used - own_pages - _SLOTS_KEPT * (os.cpu_count() or 1)
    return f"{more} pages of others at least lie on {device}" if more > 0 else ""
