# SPDX-License-Identifier: GPL-2.0-or-later
"""Events of the vCPU threads -> what each vCPU did when.  Traces and the model's own events alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.model.events import Event, Kind
from harness.report.timeline.drawing import Lane, Look, Moment, Span

_MARKED = {
    Kind.PF: "kvm_page_fault at {gpa:#x}",
    Kind.INJ: "#PF injected: page not present",
    Kind.REP: "repeated fault at {gpa:#x}: its work is already queued",
    Kind.USER_EXIT: "exit to userspace, reason {value}",
}


@dataclass(slots=True)
class _Thread:
    """One vCPU thread.  ``halting``: its last fault was answered with KVM_REQ_APF_HALT, and it has not been entered."""

    vcpu: int
    look: Look | None = None
    since_ns: int = 0
    line: int = 0
    halting: bool = False
    spans: list[Span] = field(default_factory=list)
    marks: list[Moment] = field(default_factory=list)

    def to(self, look: Look, t_ns: int, line: int) -> None:
        self.close(t_ns)
        self.look, self.since_ns, self.line = look, t_ns, line

    def close(self, t_ns: int) -> None:
        if self.look is not None and t_ns > self.since_ns:
            self.spans.append(Span(self.since_ns, t_ns, self.look, "", self.line))

    def feed(self, e: Event) -> None:
        match e.kind:
            case Kind.ENTRY:
                self.halting = False
                self.to(Look.GUEST, e.t_ns, e.line)
            case Kind.EXIT:
                self.to(Look.KVM, e.t_ns, e.line)
            case Kind.IN:
                self.to(Look.KVM, e.t_ns, e.line)
            case Kind.OUT:
                self.to(self._asleep(chr(e.value)), e.t_ns, e.line)
            case Kind.NP | Kind.REP:
                self.halting = True
            case Kind.INJ:
                self.halting = False
            case _:
                pass
        if e.kind in _MARKED and not (e.kind is Kind.INJ and e.flag):
            self.marks.append(Moment(e.t_ns, _MARKED[e.kind].format(gpa=e.gpa, value=e.value), e.line))

    def _asleep(self, state: str) -> Look:
        if state == "R":
            return Look.RUNNABLE
        if state == "D":
            return Look.BLOCKED
        return Look.HALTED if self.halting else Look.IDLE


def vcpu_lanes(events: Iterable[Event], vcpus: int, end_ns: int) -> tuple[Lane, ...]:
    """One lane for each vCPU, from its first event on; ``events`` in order of time."""
    threads = [_Thread(v) for v in range(vcpus)]
    for event in events:
        if 0 <= event.vcpu < vcpus and event.kind is not Kind.ACC:  # an IPI is accepted on its sender's thread
            threads[event.vcpu].feed(event)
    for thread in threads:
        thread.close(end_ns)
    return tuple(Lane(f"v{t.vcpu}", f"vCPU {t.vcpu}", tuple(t.spans), tuple(t.marks)) for t in threads)
