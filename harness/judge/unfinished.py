# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that were still being read when the recording ended: what KVM owes for them cannot have come yet.

A probe guest has ended all its accesses by then.  A Linux guest goes on running after its result, and may touch a
missing page of its own a moment before the recording stops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from harness.model.events import Event, Kind


def unfinished(events: Iterable[Event], device: int) -> frozenset[int]:
    """Lines of the kvm_async_pf_not_present events whose work had not completed when the recording ended, if a read of
    the device had not ended either.  Empty when all reads had: then a work without completion is the kernel's fault.

    Where the ends of reads are not recorded nothing is excused.

    :param device: whose reads bring the pages, as in Event.dev.
    """
    reading: Counter[int] = Counter()
    open_works: dict[int, list[int]] = {}
    ends = False
    for event in events:
        match event.kind:
            case Kind.BIO if event.flag and event.dev == device:
                reading[event.value] += 1
            case Kind.BIO_END if event.flag and event.dev == device:
                ends = True
                _end(reading, event)
            case Kind.NP:
                open_works.setdefault(event.gpa >> 12, []).append(event.line)
            case Kind.DONE:
                lines = open_works.get(event.gpa >> 12)
                if lines:
                    lines.pop(0)
            case _:
                pass
    if not ends or not any(reading.values()):
        return frozenset()
    return frozenset(line for lines in open_works.values() for line in lines)


def _end(reading: Counter[int], end: Event) -> None:
    """One completion may be of several merged bios: all that lie in it have ended."""
    for sector in [s for s, n in reading.items() if n and end.value <= s < end.value + max(1, end.data)]:
        reading[sector] -= 1
