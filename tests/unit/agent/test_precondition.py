# SPDX-License-Identifier: GPL-2.0-or-later
"""What counts as reached, state by state."""

from __future__ import annotations

import pytest

from harness.agent.pagemap import PageEntry
from harness.agent.precondition import _problem
from harness.scenario.plan import Backing, PageStart

PRESENT = PageEntry(True, False, 0, 0, False)
SWAPPED = PageEntry(False, True, 0, 7, False)
NOTHING = PageEntry(False, False, 0, 0, False)


@pytest.mark.parametrize(
    ("backing", "start", "entry", "cached", "hole", "problem"),
    [
        (Backing.ANON, PageStart.UNTOUCHED, NOTHING, False, False, ""),
        (Backing.ANON, PageStart.UNTOUCHED, SWAPPED, False, False, "allocated"),
        (Backing.ANON, PageStart.UNTOUCHED, PRESENT, False, False, "still in the page table"),
        (Backing.ANON, PageStart.POPULATED, PRESENT, False, False, ""),
        (Backing.ANON, PageStart.POPULATED, SWAPPED, False, False, "not in the page table"),
        (Backing.ANON, PageStart.SWAPPED, SWAPPED, False, False, ""),
        (Backing.ANON, PageStart.SWAPPED, SWAPPED, True, False, "in the swap cache"),
        (Backing.ANON, PageStart.SWAPPED, NOTHING, False, False, "no swap entry"),
        (Backing.ANON, PageStart.ZERO_SWAPPED, PRESENT, False, False, "still in the page table"),
        (Backing.ANON, PageStart.SWAPCACHE, SWAPPED, True, False, ""),
        (Backing.ANON, PageStart.SWAPCACHE, SWAPPED, False, False, "not in the swap cache"),
        (Backing.MEMFD, PageStart.SWAPPED, NOTHING, False, False, ""),
        (Backing.MEMFD, PageStart.SWAPPED, NOTHING, True, False, "in the swap cache"),
        (Backing.MEMFD, PageStart.SWAPPED, NOTHING, False, True, "was never written"),
        (Backing.MEMFD, PageStart.UNTOUCHED, NOTHING, False, True, ""),
        (Backing.MEMFD, PageStart.UNTOUCHED, NOTHING, False, False, "allocated"),
        (Backing.FILE, PageStart.DROPPED, NOTHING, False, False, ""),
        (Backing.FILE, PageStart.DROPPED, NOTHING, True, False, "in the page cache"),
        (Backing.FILE, PageStart.DROPPED, NOTHING, False, True, "no data on the disk"),
        (Backing.FILE, PageStart.DROPPED, PRESENT, True, False, "still in the page table"),
    ],
)
def test_problem(backing: Backing, start: PageStart, entry: PageEntry, cached: bool, hole: bool, problem: str) -> None:
    assert _problem(backing, start, entry, cached, hole) == problem
