# SPDX-License-Identifier: GPL-2.0-or-later
"""What was under way when a deadline cut a run off whose program never ends: the next step of it was somebody's turn.

A guest that loops on a page which cannot be read has works at every moment.  Who has to take the next step, and whether
it was held up by nothing but the end, is told by what each processor did last; no time is measured.
"""

from __future__ import annotations

import errno
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from harness.contract.words import EndStatus
from harness.evidence.decode import Evidence
from harness.evidence.ram_address import ADDRESSED, ram_address
from harness.judge.episodes import Episode
from harness.model.events import Event, Kind

_RUNNABLE = ord("R")
"""prev_state of a thread that was switched out although it could run (include/trace/events/sched.h)."""
_IDLE = "next_comm=swapper/"


@dataclass(slots=True, eq=False)
class _Work:
    """A page that KVM fetches for a vCPU, of which the guest was not told."""

    np: Event
    begun: Event | None = None  # its worker asks for the page
    read: int = 0  # line of the end of the page's read behind that; 0: not seen
    done: Event | None = None
    turn: bool = False  # its vCPU's thread, which had been switched out, ran behind that
    entered: bool = False  # ... and entered the guest
    cpu: int = 0  # the processor that has to come to what is next: the kworker, or behind ``done`` the vCPU's thread
    idle: bool = False  # it had nothing to do meanwhile

    @property
    def gfn(self) -> int:
        return self.np.gpa >> 12


@dataclass(slots=True)
class _Machine:
    """The host, as the trace goes on."""

    ram: int
    open: dict[tuple[int, int], _Work] = field(default_factory=dict)  # by vCPU and token, oldest first
    last_on: dict[int, Event] = field(default_factory=dict)  # of each processor
    last_of: dict[int, Event] = field(default_factory=dict)  # of each vCPU's thread
    last_by: dict[int, Event] = field(default_factory=dict)  # of each thread
    places: Mapping[int, int] = field(default_factory=dict)
    told: dict[int, int] = field(default_factory=dict)  # by processor: line of the newest NP there that was told

    def see(self, event: Event) -> None:
        self.last_on[event.cpu] = self.last_by[event.tid] = event
        if event.vcpu >= 0 and event.kind is not Kind.ACC:
            self.last_of[event.vcpu] = event
        match event.kind:
            case Kind.NP:
                self.open[event.vcpu, event.token] = _Work(event, cpu=event.cpu)
            case Kind.RDY:
                work = self.open.pop((event.vcpu, event.token), None)
                if work is not None:
                    self.told[work.np.cpu] = max(work.np.line, self.told.get(work.np.cpu, 0))
            case Kind.CLEAR:  # a reset, or an INIT: these works are owed to nobody
                self.open = {key: work for key, work in self.open.items() if key[0] != event.vcpu}
            case Kind.MM_FAULT if event.worker:
                gfn = (event.hva - self.ram) >> 12
                first = next((w for w in self.open.values() if w.gfn == gfn and w.done is None), None)
                if first is not None:
                    first.begun = event
            case Kind.BIO_END if event.flag:
                over = range(event.value, event.value + max(1, event.data))
                for work in self.open.values():
                    if work.begun is not None and work.done is None and self.places.get(work.gfn, -1) in over:
                        work.read, work.cpu, work.idle = event.line, work.begun.cpu, False
            case Kind.DONE:
                of_page = [w for w in self.open.values() if w.gfn == event.gpa >> 12 and w.done is None]
                asked = [w for w in of_page if w.np.gpa == event.gpa]  # the trace has the very address (cr2_or_gpa)
                first = next(iter(asked or of_page), None)
                if first is not None:
                    first.done, first.cpu, first.idle = event, self.last_of[first.np.vcpu].cpu, False
            case Kind.OUT if _IDLE in event.text:
                for work in self.open.values():
                    work.idle = work.idle or work.cpu == event.cpu
            case Kind.IN | Kind.ENTRY:
                for work in self.open.values():
                    if work.np.vcpu == event.vcpu and work.done is not None:
                        work.turn, work.entered = True, work.entered or event.kind is Kind.ENTRY
            case _:
                pass

    def under_way(self, work: _Work) -> bool:
        """Whether nothing but the end kept the next step of this work away."""
        if work.done is not None:  # its vCPU tells it before it enters the guest, once it is awake, and has its turn
            last = self.last_of[work.np.vcpu]
            awake = last.kind is not Kind.OUT or last.value == _RUNNABLE
            return not work.entered and (awake or not (work.idle or work.turn))
        if work.begun is not None:
            worker = work.begun.tid  # which sleeps for its page, and has had no processor since that is there, or runs
            waits = self.last_by[worker].line < work.read and not work.idle
            return waits or self.last_on[work.begun.cpu].tid == worker
        # The works of one processor begin in the order in which they were queued, when it comes to its kworker.
        return not work.idle and self.told.get(work.np.cpu, 0) < work.np.line


def deadline_cuts(evidence: Evidence) -> bool:
    """Whether a deadline ended a program that does not end by itself."""
    return guest_runs_on(evidence) and bool(evidence.plan.swap.error)


def guest_runs_on(evidence: Evidence) -> bool:
    """Whether the recording ended while the guest went on, for its deadline or because the trace was full: a page fault
    may be under way then, of a vCPU that goes round in a halt of which nothing comes (B.8) as well."""
    return evidence.end.status is EndStatus.GUEST_TIMEOUT


def kvm_run_failed(events: Iterable[Event]) -> int:
    """When KVM_RUN of a vCPU first failed (-EFAULT), in ns on the trace's clock; -1: it did not.  The VMM stops all
    vCPUs (QEMU's accel/kvm/kvm-all.c:kvm_cpu_exec), whose threads sleep in it then, as in a halt."""
    return next((e.t_ns for e in events if e.kind is Kind.USER_EXIT and e.value == errno.EFAULT), -1)


def cut_off(events: Iterable[Event], places: Mapping[int, int]) -> frozenset[int]:
    """Lines of the kvm_async_pf_not_present events whose works were under way when the recording ended.

    :param places: gfn to the first sector of the page on its device, as far as that is known.
    """
    events = tuple(events)
    machine = _Machine(ram_address(e for e in events if e.kind in ADDRESSED), places=places)
    for event in events:
        machine.see(event)
    return frozenset(work.np.line for work in machine.open.values() if machine.under_way(work))


def cut_faults(episodes: Iterable[Episode], events: Iterable[Event]) -> frozenset[int]:
    """Lines of the kvm_page_fault events of which the recording has no outcome: it ended while their threads were still
    at it, and did not sleep, or had a read of their own in flight.  (One that goes round in the kernel for ever is the
    watchdog's, not the trace's.)"""
    in_flight: dict[int, range] = {}
    for event in events:
        if event.kind is Kind.BIO and event.flag:
            in_flight[event.line] = range(event.value, event.value + max(1, event.data))
        elif event.kind is Kind.BIO_END and event.flag:
            over = range(event.value, event.value + max(1, event.data))
            in_flight = {line: sectors for line, sectors in in_flight.items() if sectors.start not in over}
    return frozenset(episode.start.line for episode in episodes if _is_cut(episode, in_flight))


def _is_cut(episode: Episode, in_flight: Container[int]) -> bool:
    known = (Kind.NP, Kind.REP, Kind.USER_EXIT, Kind.CLEAR)
    if episode.end is not None or any(event.kind in known for event in episode.events):
        return False
    asleep = any(event.kind is Kind.OUT and event.value != _RUNNABLE for event in episode.events[-1:])
    return not asleep or any(event.kind is Kind.BIO and event.line in in_flight for event in episode.events)
