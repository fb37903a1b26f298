# SPDX-License-Identifier: GPL-2.0-or-later
"""What was under way when a deadline cut a run off whose program never ends: the next step of it was somebody's turn.

A guest that loops on a page which cannot be read has works at every moment.  Who has to take the next step, and whether
it was held up by nothing but the end, is told by what each processor did last; no time is measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.evidence.ram_address import ADDRESSED, ram_address
from harness.model.events import Event, Kind

_RUNNABLE = ord("R")
"""prev_state of a thread that was switched out although it could run (include/trace/events/sched.h)."""
_IDLE = "next_comm=swapper/"


@dataclass(slots=True, eq=False)
class _Work:
    """A page that KVM fetches for a vCPU, of which the guest was not told."""

    np: Event
    begun: Event | None = None  # its worker asks for the page
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
    told: dict[int, int] = field(default_factory=dict)  # by processor: line of the newest NP there that was told

    def see(self, event: Event) -> None:
        self.last_on[event.cpu] = event
        if event.vcpu >= 0 and event.kind is not Kind.ACC:
            self.last_of[event.vcpu] = event
        match event.kind:
            case Kind.NP:
                self.open[event.vcpu, event.token] = _Work(event, cpu=event.cpu)
            case Kind.RDY:
                work = self.open.pop((event.vcpu, event.token), None)
                if work is not None:
                    self.told[work.np.cpu] = max(work.np.line, self.told.get(work.np.cpu, 0))
            case Kind.MM_FAULT if event.worker:
                gfn = (event.hva - self.ram) >> 12
                first = next((w for w in self.open.values() if w.gfn == gfn and w.done is None), None)
                if first is not None:
                    first.begun = event
            case Kind.DONE:
                of_page = (w for w in self.open.values() if w.gfn == event.gpa >> 12 and w.done is None)
                first = next(of_page, None)
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
            return self.last_on[work.begun.cpu].tid == work.begun.tid
        # The works of one processor begin in the order in which they were queued, when it comes to its kworker.
        return not work.idle and self.told.get(work.np.cpu, 0) < work.np.line


def cut_off(events: Iterable[Event]) -> frozenset[int]:
    """Lines of the kvm_async_pf_not_present events whose works were under way when the recording ended."""
    events = tuple(events)
    machine = _Machine(ram_address(e for e in events if e.kind in ADDRESSED))
    for event in events:
        machine.see(event)
    return frozenset(work.np.line for work in machine.open.values() if machine.under_way(work))
