# SPDX-License-Identifier: GPL-2.0-or-later
"""Sleep in vcpu_block, and who ends it: D52, D53.

async_pf_execute (virt/kvm/async_pf.c) puts its work on the done list, traces DONE, and wakes the vCPU
(__kvm_vcpu_wake_up; kvm_vcpu_wake_up, 6.12).  A vCPU whose done list is not empty has something to do
(arch/x86/kvm/x86.c:kvm_vcpu_has_events), and does not fall asleep.  Where either is wrong, whatever else wakes the
vCPU, such as a tick of its timer, brings the page, late.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.model.events import Event
from harness.model.protocol.checker_types import Violation

if TYPE_CHECKING:
    from harness.model.protocol.vcpu_rules import SeenVcpu

_SLEEPS = ord("S")


@dataclass(slots=True)
class Sleep:
    """Of one vCPU's thread.

    :ivar asleep: its sched_switch, since when it sleeps in vcpu_block, and nobody has begun to wake it.
    :ivar in_fault: it is in handle_mm_fault, where it may sleep too (fs/userfaultfd.c:handle_userfault).
    :ivar ran: line since which it has run, or been out of the guest.
    :ivar woken: line of the last sched_waking of it, which may stand before the sched_switch: who is about to sleep is
        woken before it leaves its CPU (kernel/sched/core.c:try_to_wake_up).
    """

    asleep: Event | None = None
    in_fault: bool = False
    ran: int = 0
    woken: int = 0

    def begins(self, vcpu: SeenVcpu, out: Event) -> None:
        """sched_switch away from the thread: D52.

        A work may have been completed behind the thread's last look at the list: only one that was before the thread
        last ran, or last left the guest, counts.
        """
        if out.value != _SLEEPS or vcpu.left or self.in_fault or not vcpu.started:
            return
        self.asleep = out if self.woken < self.ran else None
        completed = [*vcpu.prompt.exited, *((w, d) for w, d in vcpu.prompt.completed if d.line < self.ran)]
        for work, done in completed:
            if vcpu.live.get(work.token) is work:
                message = f"the vCPU falls asleep, and token {work.token:#x}, which was completed before, has no RDY"
                vcpu.say("D52", out, message, work.np, done)

    def ends(self, event: Event) -> None:
        """sched_switch to the thread."""
        self.asleep = None
        self.ran = event.line

    def wakes(self, event: Event) -> None:
        """sched_waking of the thread."""
        self.asleep = None
        self.woken = event.line


@dataclass(slots=True)
class _Due:
    """A worker that has completed a work has to wake one of these vCPUs."""

    done: Event
    vcpus: frozenset[int]


@dataclass(slots=True)
class WakeUps:
    """What workers owe, by their thread ids."""

    due: dict[int, _Due] = field(default_factory=dict)

    def completed(self, done: Event, waiting: Iterable[SeenVcpu]) -> None:
        """kvm_async_pf_completed of a page that works of these vCPUs wait for; if all of them sleep one is woken."""
        vcpus = list(waiting)
        if vcpus and all(vcpu.sleep.asleep is not None for vcpu in vcpus):
            self.due[done.tid] = _Due(done, frozenset(vcpu.index for vcpu in vcpus))

    def woken(self, vcpu: int) -> None:
        """sched_waking of the vCPU's thread; or it was dropped what it waited for."""
        if self.due:
            self.due = {tid: due for tid, due in self.due.items() if vcpu not in due.vcpus}

    def goes_on(self, event: Event) -> Iterator[Violation]:
        """A worker does something else, or has come to its end: D53."""
        due = self.due.pop(event.tid, None)
        if due is not None:
            who = " or ".join(f"vCPU {vcpu}" for vcpu in sorted(due.vcpus))
            message = f"{who} sleeps, its page {due.done.gpa:#x} was completed, and the worker has not woken it"
            yield Violation("D53", event, message, (due.done,), min(due.vcpus))
