# SPDX-License-Identifier: GPL-2.0-or-later
"""Where pages of a file lie on its device that the plan does not name, and read-ahead brings all the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from harness.contract.probe_abi import SECTORS_PER_PAGE

_READAHEAD_PAGES = 32  # VM_READAHEAD_PAGES (include/linux/mm.h), 128 KiB


def with_neighbours(places: Mapping[int, int], named: Collection[int]) -> dict[int, int]:
    """Pages that the plan does not name, as far as a read-ahead of a named one may reach: a file lies in one piece
    around each page up to the next that the plan names, which may have been written at another time, or be a hole."""
    known, taken = dict(places), set(places.values())
    for step in (-1, 1):
        for gfn, sector in places.items():
            for distance in range(step, step * _READAHEAD_PAGES, step):
                other = sector + distance * SECTORS_PER_PAGE
                if gfn + distance in known or gfn + distance in named or other in taken or other < 0:
                    break
                known[gfn + distance] = other
                taken.add(other)
    return known
