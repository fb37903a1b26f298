# SPDX-License-Identifier: GPL-2.0-or-later
"""Where QEMU has guest RAM in its address space, from the trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from harness.model.events import Event, Kind

_PAGE_SHIFT = 12


def ram_page(events: Iterable[Event]) -> int:
    """The page number in QEMU of guest physical address 0; 0 where the trace does not say.

    A kvm_async_pf_completed has both addresses; after a kvm_page_fault the first handle_mm_fault of the thread is of
    that page.  A thread may fault on memory of its own in between: what most events say counts.
    """
    seen: Counter[int] = Counter()
    faulting: dict[int, int] = {}
    for event in events:
        if event.kind is Kind.DONE and event.hva:
            seen[(event.hva >> _PAGE_SHIFT) - (event.gpa >> _PAGE_SHIFT)] += 1
        elif event.vcpu >= 0 and event.kind is Kind.PF:
            faulting[event.vcpu] = event.gpa >> _PAGE_SHIFT
        elif event.vcpu >= 0 and event.kind is Kind.MM_FAULT and event.vcpu in faulting:
            seen[(event.hva >> _PAGE_SHIFT) - faulting.pop(event.vcpu)] += 1
        elif event.kind is Kind.ENTRY:
            faulting.pop(event.vcpu, None)
    return max(seen, key=lambda page: (seen[page], page), default=0)
