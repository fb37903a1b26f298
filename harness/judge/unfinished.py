# SPDX-License-Identifier: GPL-2.0-or-later
"""What cannot have come yet when the recording ended: a page was still being read, or its vCPU never ran again.

A probe guest has ended all its accesses by then.  A Linux guest goes on running after its result, and may touch a
missing page of its own a moment before QEMU is ended: what is owed to it from its result on nobody waits for.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from harness.contract.capture import GateLog
from harness.contract.probe_abi import SECTORS_PER_PAGE
from harness.evidence.ram_address import ADDRESSED, ram_address
from harness.model.events import Event, Kind


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
    inside: dict[int, tuple[int, Event]] = field(default_factory=dict)  # thread -> gfn and begin of its handle_mm_fault
    calls: dict[int, int] = field(default_factory=dict)  # gfn -> line of the newest call that read for it
    brought: dict[int, int] = field(default_factory=dict)  # line of a call -> pages that it read

    def submit(self, bio: Event) -> None:
        gfn, call = self.inside.get(bio.tid, (-1, None))
        line = call.line if call is not None else 0
        self.in_flight.append(_Read(bio.value, bio.data, line))
        if line:
            self.calls[gfn] = line
            self.brought[line] = self.brought.get(line, 0) + max(1, bio.data // SECTORS_PER_PAGE)

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


_PREEMPTED = ord("R")
"""prev_state of a thread that was switched out although it could run (include/trace/events/sched.h)."""

_FOLLOWED = frozenset({
    Kind.BIO, Kind.BIO_END, Kind.MM_FAULT, Kind.MM_FAULT_RET, Kind.NP, Kind.DONE, Kind.ENTRY, Kind.USER_EXIT,
})  # fmt: skip


@dataclass(slots=True)
class _Work:
    """A page that KVM fetches for a vCPU.  ``done_ns``: when it completed, -1 if it has not."""

    line: int
    vcpu: int
    np_ns: int
    done_ns: int = -1


@dataclass(slots=True)
class _Works:
    """The works of a trace by the page that they fetch, oldest first, and what each vCPU did last."""

    open: dict[int, list[_Work]] = field(default_factory=dict)
    completed: list[_Work] = field(default_factory=list)
    last: dict[int, Event] = field(default_factory=dict)  # of each vCPU's thread
    entered: dict[int, int] = field(default_factory=dict)  # of each vCPU, when its guest ran on for the last time
    failed: int = -1  # the vCPU whose KVM_RUN has failed, and that has not run since

    def begin(self, np: Event) -> None:
        self.open.setdefault(np.gpa >> 12, []).append(_Work(np.line, np.vcpu, np.t_ns))

    def complete(self, done: Event) -> None:
        works = self.open.get(done.gpa >> 12)
        if works:
            work = works.pop(0)
            work.done_ns = done.t_ns
            self.completed.append(work)

    def enter(self, entry: Event) -> None:
        self.entered[entry.vcpu] = entry.t_ns
        if entry.vcpu == self.failed:
            self.failed = -1

    def undelivered(self, ended_ns: int | None, asleep: Mapping[int, int]) -> Iterator[_Work]:
        """Completed works whose vCPU had no turn since, or whose guest had told its result before, or whose vCPU never
        entered its guest again because some vCPU's KVM_RUN has failed: the VMM stops them all then (QEMU's
        accel/kvm/kvm-all.c:kvm_cpu_exec), and each looks at its works before it enters (arch/x86/kvm/x86.c:
        vcpu_enter_guest).

        :param asleep: vCPUs whose threads wait for a page, to the end, and since when they have looked at no work.
        """
        last = self.last.items()
        no_turn = {vcpu: e.t_ns for vcpu, e in last if e.kind is Kind.OUT and e.value == _PREEMPTED} | dict(asleep)
        for work in self.completed:
            late = ended_ns is not None and work.done_ns >= ended_ns
            stopped = self.failed >= 0 and self.entered.get(work.vcpu, -1) <= work.done_ns
            if late or stopped or 0 <= no_turn.get(work.vcpu, -1) <= work.done_ns:
                yield work


def unfinished(
    events: Iterable[Event],
    device: int,
    places: Mapping[int, int] | None = None,
    ended_ns: int | None = None,
    *,
    ends_known: bool = False,
    manager: GateLog | None = None,
) -> frozenset[int]:
    """Lines of the kvm_async_pf_not_present events that the kernel could not follow up before the recording ended: the
    page's read had not ended, or the work had completed and the vCPU's thread, which was ready to run, had no turn
    since, or slept in handle_mm_fault for another page whose read had not ended, or KVM_RUN had failed.  A work whose
    page is read and which has not completed is the kernel's fault.

    Where the ends of reads are not recorded the first of the two excuses nothing; ``ends_known``: they are, although
    none may have come, as of a device that is frozen throughout.

    :param device: whose reads bring the pages, as in Event.dev.
    :param places: gfn to the first sector of the page on it, as far as that is known.
    :param manager: of a userfaultfd, what it has answered: a page that it holds is not there yet.
    :param ended_ns: trace clock at which a guest had told its result and may be ended at any time; None: never.
    """
    events = tuple(events)
    reads, works = _Reads(ram_address(e for e in events if e.kind in ADDRESSED), ends=ends_known), _Works()
    # Of each vCPU's thread, which is not that of each interrupt that it accepts.
    works.last.update((e.vcpu, e) for e in events if e.vcpu >= 0 and e.kind is not Kind.ACC)
    for event in events:
        if event.kind not in _FOLLOWED:
            continue
        match event.kind:
            case Kind.BIO if event.flag and event.dev == device:
                reads.submit(event)
            case Kind.BIO_END if event.flag and event.dev == device:
                if ended_ns is None or event.t_ns < ended_ns:
                    reads.end(event)
            case Kind.MM_FAULT:
                reads.inside[event.tid] = (event.hva - reads.ram) >> 12, event
            case Kind.MM_FAULT_RET:
                reads.inside.pop(event.tid, None)
            case Kind.NP:
                works.begin(event)
            case Kind.DONE:
                works.complete(event)
            case Kind.ENTRY:
                works.enter(event)
            case Kind.USER_EXIT if event.value == errno.EFAULT:
                works.failed = event.vcpu
            case _:
                pass
    places = places or {}
    answered = {page for copy in manager.reads for page in copy.pages} if manager is not None else set()

    def missing(gfn: int) -> bool:
        held = manager is not None and manager.held > 0 and gfn not in answered
        return held or (reads.ends and reads.reading(gfn, places.get(gfn)))

    outs = {e.tid: vcpu for vcpu, e in works.last.items() if e.kind is Kind.OUT}
    asleep = {outs[tid]: call.t_ns for tid, (gfn, call) in reads.inside.items() if tid in outs and missing(gfn)}
    found = {work.line for work in works.undelivered(ended_ns, asleep)}
    for gfn, left in works.open.items():
        found.update(work.line for work in left if ended_ns is not None and work.np_ns >= ended_ns)
        if left and reads.ends and reads.reading(gfn, places.get(gfn)):
            found.update(work.line for work in left)
    held = [left for gfn, left in works.open.items() if left and gfn not in answered]
    if manager is not None and len(held) <= manager.held:  # else some worker has not asked
        found.update(work.line for left in held for work in left)
    return frozenset(found)
