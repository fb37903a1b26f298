# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's TSC on the trace clock.

The two clocks are not read together anywhere, but causes come before effects: the guest logs TOKEN after KVM has
injected it, READY after KVM has written it, MSR after KVM has answered the read; and it logs START before KVM sees the
fault of that item.  Between the latest of the first and the earliest of the second lies the offset.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.contract.plan import Op, Plan
from harness.contract.probe_abi import Record
from harness.evidence.guestlog import GuestRecord
from harness.model.events import WAKE_ALL_TOKEN, Event, Kind

_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class GuestClock:
    """Trace clock = TSC / khz * 10^6 + offset, in nanoseconds.

    :ivar known_to_ns: how far the offset may be off by what is recorded; -1: only one side of it is known.
    """

    khz: int
    offset_ns: int
    known_to_ns: int

    def trace_ns(self, tsc: int) -> int:
        """When the guest read this TSC."""
        return tsc * 1_000_000 // self.khz + self.offset_ns


def boots_in(records: Sequence[GuestRecord]) -> Iterator[Sequence[GuestRecord]]:
    """A vCPU's records from one BOOT to the next: a reset sets the TSC back."""
    begin = 0
    for n, record in enumerate(records):
        if record.kind is Record.BOOT and n > begin:
            yield records[begin:n]
            begin = n
    if records:
        yield records[begin:]


def find_clock(
    plan: Plan, records: Sequence[GuestRecord], events: Sequence[Event], vcpu: int, khz: int
) -> GuestClock | None:
    """The clock of one vCPU between two boots; None when nothing ties it to the trace.

    :param events: all of the trace, in order of time.
    """
    if khz <= 0:
        return None
    mine = [e for e in events if e.vcpu == vcpu]
    low = [t - tsc * 1_000_000 // khz for t, tsc in _after(records, mine)]
    high = [t - tsc * 1_000_000 // khz for t, tsc in _before(plan, records, mine)]
    if not low and not high:
        return None
    if not low or not high:
        return GuestClock(khz, max(low) if low else min(high), -1)
    lowest, highest = max(low), min(high)
    if lowest <= highest:
        return GuestClock(khz, lowest, highest - lowest)
    return GuestClock(khz, (lowest + highest) // 2, lowest - highest)


def _after(records: Sequence[GuestRecord], events: Sequence[Event]) -> Iterator[tuple[int, int]]:
    """(trace clock, TSC) of a record that came after the event."""
    tokens = {e.token: e.t_ns for e in reversed(events) if e.kind is Kind.NP}
    ready = {e.token: e.t_ns for e in reversed(events) if e.kind is Kind.RDY and e.token != WAKE_ALL_TOKEN}
    for r in records:
        at = tokens.get(r.a & _MASK) if r.kind is Record.TOKEN else None
        at = ready.get(r.a & _MASK) if r.kind is Record.READY else at
        if at is not None:
            yield at, r.tsc
    reads = [e for e in events if e.kind is Kind.RDMSR]
    for e, r in zip(reads, (r for r in records if r.kind is Record.MSR), strict=False):
        if e.value != r.a:
            return
        yield e.t_ns, r.tsc


def _before(plan: Plan, records: Sequence[GuestRecord], events: Sequence[Event]) -> Iterator[tuple[int, int]]:
    """(trace clock, TSC) of a record that came before the event: the first fault on a page, and its first item."""
    faults: dict[int, int] = {}
    for e in events:
        if e.kind is Kind.PF:
            faults.setdefault(e.gpa >> 12, e.t_ns)
    told: set[int] = set()
    for r in records:
        if r.kind is not Record.START or not 0 <= r.item < len(plan.items) or plan.items[r.item].op is not Op.TOUCH:
            continue
        page = plan.items[r.item].gpa >> 12
        if page not in told and page in faults:
            yield faults[page], r.tsc
        told.add(page)
