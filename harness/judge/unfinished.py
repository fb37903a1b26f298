# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that were still being read when the recording ended: what KVM owes for them cannot have come yet.

A probe guest has ended all its accesses by then.  A Linux guest goes on running after its result, and may touch a
missing page of its own a moment before the recording stops.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from harness.judge.recording import ram_address
from harness.model.events import Event, Kind

_PAGE_SECTORS = 8


@dataclass(slots=True, eq=False)
class _Read:
    """A bio.  ``since``: line of the call of handle_mm_fault that submitted it; 0: none did."""

    sector: int
    sectors: int
    since: int

    def has(self, sector: int) -> bool:
        return self.sector <= sector < self.sector + max(1, self.sectors)


@dataclass(slots=True)
class _Reads:
    """Reads of the device as the trace goes on."""

    ram: int
    in_flight: list[_Read] = field(default_factory=list)
    ends: bool = False  # an end was recorded at all
    inside: dict[int, tuple[int, int]] = field(default_factory=dict)  # thread -> (gfn, line) of its handle_mm_fault
    calls: dict[int, int] = field(default_factory=dict)  # gfn -> line of the newest call that read for it
    brought: dict[int, int] = field(default_factory=dict)  # line of a call -> pages that it read

    def submit(self, bio: Event) -> None:
        gfn, line = self.inside.get(bio.tid, (-1, 0))
        self.in_flight.append(_Read(bio.value, bio.data, line))
        if line:
            self.calls[gfn] = line
            self.brought[line] = self.brought.get(line, 0) + max(1, bio.data // _PAGE_SECTORS)

    def end(self, end: Event) -> None:
        """One completion may be of several merged bios: all that lie in it have ended."""
        self.ends = True
        over = range(end.value, end.value + max(1, end.data))
        self.in_flight = [read for read in self.in_flight if read.sector not in over]

    def reading(self, gfn: int, sector: int | None) -> bool:
        """The page's own read has not ended.

        :param sector: where the page lies; None: nobody but the kernel knows.  Then its read is one of those that a
            fault on this page submitted; if none did, one of those that a fault on another page submitted beside its
            own (read-ahead).
        """
        if sector is not None:
            return any(read.has(sector) for read in self.in_flight)
        call = self.calls.get(gfn)
        if call is not None:
            return any(read.since == call for read in self.in_flight)
        return any(read.since and self.brought[read.since] > 1 for read in self.in_flight)


def unfinished(events: Iterable[Event], device: int, places: Mapping[int, int] | None = None) -> frozenset[int]:
    """Lines of the kvm_async_pf_not_present events whose work had not completed when the recording ended, because the
    read of its page had not.  A work whose page is read and which has not completed is the kernel's fault.

    Where the ends of reads are not recorded nothing is excused.

    :param device: whose reads bring the pages, as in Event.dev.
    :param places: gfn to the first sector of the page on it, as far as that is known.
    """
    events = tuple(events)
    reads = _Reads(ram_address(events))
    open_works: dict[int, list[int]] = {}
    for event in events:
        match event.kind:
            case Kind.BIO if event.flag and event.dev == device:
                reads.submit(event)
            case Kind.BIO_END if event.flag and event.dev == device:
                reads.end(event)
            case Kind.MM_FAULT:
                reads.inside[event.tid] = (event.hva - reads.ram) >> 12, event.line
            case Kind.MM_FAULT_RET:
                reads.inside.pop(event.tid, None)
            case Kind.NP:
                open_works.setdefault(event.gpa >> 12, []).append(event.line)
            case Kind.DONE:
                lines = open_works.get(event.gpa >> 12)
                if lines:
                    lines.pop(0)
            case _:
                pass
    if not reads.ends:
        return frozenset()
    known = places or {}
    return frozenset(
        line for gfn, lines in open_works.items() if lines and reads.reading(gfn, known.get(gfn)) for line in lines
    )
