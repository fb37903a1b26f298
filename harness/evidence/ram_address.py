# SPDX-License-Identifier: GPL-2.0-or-later
"""Where QEMU has the guest's RAM, from the trace alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from harness.model.events import Event, Kind

_PAGE = ~0xFFF
ADDRESSED = (Kind.PF, Kind.MM_FAULT, Kind.ENTRY, Kind.DONE)
"""What ram_address() looks at."""


def ram_address(events: Iterable[Event]) -> int:
    """Where QEMU has the RAM: a fault of a vCPU thread as KVM and as handle_mm_fault have it; 0: unknown."""
    found: Counter[int] = Counter()
    faults: dict[int, int] = {}
    for event in events:
        if event.kind is Kind.PF:
            faults[event.tid] = event.gpa
        elif event.kind is Kind.MM_FAULT and event.tid in faults:
            found[(event.hva & _PAGE) - (faults.pop(event.tid) & _PAGE)] += 1
        elif event.kind is Kind.ENTRY:
            faults.pop(event.tid, None)
        elif event.kind is Kind.DONE:
            found[(event.hva & _PAGE) - (event.gpa & _PAGE)] += 1
    return found.most_common(1)[0][0] if found else 0
