# SPDX-License-Identifier: GPL-2.0-or-later
"""The trace against what a thread can do: one thing after the other, on the processor that runs it.

Whatever a kernel does wrong, its tracepoints stand in one function after another: a trace that has them otherwise was
cut, edited, or merged by another hand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from harness.model.events import (
    MSR_ASYNC_PF_ACK,
    MSR_ASYNC_PF_EN,
    MSR_ASYNC_PF_INT,
    Event,
    Kind,
)

_BEFORE_ENTRY = frozenset({Kind.PF, Kind.TRY, Kind.NP, Kind.REP, Kind.RDY, Kind.INJ, Kind.VIRQ, Kind.USER_EXIT,
                           Kind.MM_FAULT})  # fmt: skip
"""A vCPU thread does them between an exit and the next entry (arch/x86/kvm/x86.c:vcpu_enter_guest, vcpu_run)."""
_NOT_IN_FAULT = _BEFORE_ENTRY | {Kind.ENTRY, Kind.EXIT, Kind.DONE, Kind.WORK, Kind.WORK_END}
"""Nothing of handle_mm_fault does them, nor an interrupt that comes meanwhile; nor does it call itself."""
_IN_AND_OUT = frozenset({Kind.ENTRY, Kind.EXIT, Kind.MM_FAULT, Kind.MM_FAULT_RET, Kind.WORK, Kind.WORK_END, Kind.DONE})
"""Of the guest, of handle_mm_fault, and of async_pf_execute."""
_NO_FASTPATH = frozenset({MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT, MSR_ASYNC_PF_ACK})
"""MSRs that are not written before the exit is traced (x86.c:handle_fastpath_set_msr_irqoff)."""
_NONE = -1


def order_problems(events: Sequence[Event], later: Collection[int] = (), *, works_end: bool = True) -> Iterator[str]:
    """The first contradiction, in words; nothing where there is none.

    What was before the recording is unknown: a thread may be anywhere until an event of its own says where.

    :param later: threads of vCPUs that were plugged in: sched_switch of each is recorded from some time after its
        begin on.
    :param works_end: the end of async_pf_execute was recorded.
    """
    threads: dict[int, _Thread] = {}
    runs: dict[int, int] = {}  # by processor: the vCPU thread that it runs
    out, in_ = Kind.OUT, Kind.IN  # a member of an enum takes its time to look up
    for event in events:
        kind, tid, cpu = event.kind, event.tid, event.cpu
        if not event.line or tid in later:
            continue
        thread = threads.get(tid)
        if thread is None:
            thread = threads[tid] = _Thread(works_end)
        if kind is in_ or kind is out:
            problem = thread.switch(event)
            if kind is in_ and problem is None and runs.get(cpu, tid) != tid:
                problem = f"gets CPU {cpu}, where thread {runs[cpu]} runs"
            runs[cpu] = tid
            if kind is out:
                del runs[cpu]
        elif thread.cpu is not None and thread.cpu != cpu:
            problem = f"does something on CPU {cpu}, {_where(thread.cpu)}"
        elif runs.get(cpu, tid) != tid:
            problem = f"does something on CPU {cpu}, where thread {runs[cpu]} runs"
        else:
            problem = thread.does(event)
        if problem is not None:
            yield f"trace/events.txt:{event.line}: thread {tid} {problem}"
            return


def _name(event: Event) -> str:
    return event.text.partition(":")[0]


def _where(cpu: int) -> str:
    return f"and runs on CPU {cpu}" if cpu >= 0 else "and runs on none"


@dataclass(slots=True)
class _Thread:
    """``cpu``: that runs it; _NONE: none does; None: unknown.  ``entered``: the guest, and no exit was traced since;
    None: unknown.  ``works``: in async_pf_execute, likewise.  ``fault``: in handle_mm_fault."""

    works_end: bool
    cpu: int | None = None
    entered: bool | None = None
    works: bool | None = None
    fault: bool = False

    def switch(self, event: Event) -> str | None:
        """It gets a processor, or leaves it."""
        was = self.cpu
        if event.kind is Kind.IN:
            self.cpu = event.cpu
            return None if was is None or was < 0 else f"gets CPU {event.cpu}, {_where(was)}"
        self.cpu = _NONE
        return None if was is None or was == event.cpu else f"leaves CPU {event.cpu}, {_where(was)}"

    def does(self, event: Event) -> str | None:
        """Any other event of this thread."""
        kind = event.kind
        if self.fault and kind in _NOT_IN_FAULT:
            return f"is in handle_mm_fault, and traces {_name(event)}"
        if self.entered and (kind in _BEFORE_ENTRY or (kind is Kind.WRMSR and event.value in _NO_FASTPATH)):
            return f"is in the guest, and traces {_name(event)}"
        if kind not in _IN_AND_OUT:
            return None
        if kind is Kind.ENTRY:
            self.entered = True
        elif kind is Kind.EXIT:
            if self.entered is False:
                return "leaves the guest, which it has not entered"
            self.entered = False
        elif kind is Kind.MM_FAULT:
            self.fault = True
        elif kind is Kind.MM_FAULT_RET:
            self.fault = False
        elif kind is not Kind.DONE or event.worker:
            return self._works(kind, _name(event))
        return None

    def _works(self, kind: Kind, name: str) -> str | None:
        began = kind is Kind.WORK
        if self.works is began and self.works_end:
            return f"is {'' if began else 'not '}in async_pf_execute, and traces {name}"
        if kind is not Kind.DONE:
            self.works = began
        return None
