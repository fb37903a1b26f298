# SPDX-License-Identifier: GPL-2.0-or-later
"""Large folios of which reclaim has taken a page."""

from __future__ import annotations

from collections.abc import Set

from harness.contract.plan import PAGE_SIZE
from harness.evidence.decode import Evidence
from harness.model.events import Kind

_LARGEST = 2 << 20


def in_one_folio(evidence: Evidence, gpas: Set[int]) -> frozenset[int]:
    """Pages that were written back and unmapped with those: reclaim does so with a folio as a whole, before it splits
    it to take one of its pages (mm/rmap.c:try_to_unmap_one, mm/madvise.c:madvise_cold_or_pageout_pte_range)."""
    ram, found = evidence.ram_hva(), set[int]()
    for event in evidence.of(Kind.UNMAP) if gpas else ():
        size, first = event.data - event.hva, event.hva - ram
        if event.vcpu < 0 and not event.worker and 0 < size <= _LARGEST and first % size == 0:
            pages = range(first, first + size, PAGE_SIZE)
            found.update(pages if not gpas.isdisjoint(pages) else ())
    return frozenset(found)
