# SPDX-License-Identifier: GPL-2.0-or-later
"""Sleep in vcpu_block, and who ends it: D52 to D55.

async_pf_execute (virt/kvm/async_pf.c) puts its work on the done list, traces DONE, and wakes the vCPU
(__kvm_vcpu_wake_up; kvm_vcpu_wake_up, 6.12).  A vCPU whose done list is not empty has something to do
(arch/x86/kvm/x86.c:kvm_vcpu_has_events), and does not fall asleep.  Where either is wrong, whatever else wakes the
vCPU, such as a tick of its timer, brings the page, late.

An NMI, and an interrupt that can be given, keep it awake as well.  That the VMM has given a vCPU an NMI no event tells:
its thread does so itself, out of KVM_RUN (QEMU 7.2, hw/i386/kvm/apic.c:do_inject_external_nmi), before the VMM answers
the agent.  Nor can a thread that sleeps behind it be seen to be in KVM_RUN again; but a worker wakes none elsewhere
(rcuwait_wake_up).

Before DONE a worker wakes its vCPU by a kick alone, which it gives if the list was empty and no ACK is owed (x86.c:
kvm_arch_async_page_present_queued).  A vCPU that is woken before the work is on the list may look and sleep on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.model.events import INIT, LOWEST_VECTOR, SIPI, Event
from harness.model.protocol.checker_types import Violation
from harness.model.protocol.wake_all import WakeAll

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
    :ivar away: its sched_switch, since when it sleeps, in KVM_RUN or out of it.
    :ivar entered_ns: when it last entered the guest, or was started anew: it had no NMI before that any more.
    :ivar enabled: the write of EN that has queued its wake-all.
    :ivar pending: by vector: when its LAPIC accepted the interrupt, which it was not given yet.
    :ivar owes: the ready interrupt that its guest has to acknowledge (apf.pageready_pending).
    :ivar init: an INIT that its LAPIC has accepted, and of which no CLEAR has told yet.
    :ivar sipi: the SIPI that it has accepted behind one, and has not entered the guest for yet; ``started``: line at
        which whoever sent it has woken the thread for it.
    """

    asleep: Event | None = None
    in_fault: bool = False
    ran: int = 0
    woken: int = 0
    away: Event | None = None
    entered_ns: int = -1
    enabled: Event | None = None
    pending: dict[int, Event] = field(default_factory=dict)
    owes: Event | None = None
    init: Event | None = None
    sipi: Event | None = None
    started: int = 0

    def begins(self, vcpu: SeenVcpu, out: Event) -> None:
        """sched_switch away from the thread: D52, D54.

        A work may have been completed behind the thread's last look at the list: only one that was before the thread
        last ran, or last left the guest, counts.  An INIT may have been served up to the last moment: it empties the
        lists and the LAPIC in the vCPU's own thread (arch/x86/kvm/lapic.c:kvm_apic_accept_events), of which nothing
        tells, and which sleeps in vcpu_block then until its SIPI comes.
        """
        self.away = out if out.value == _SLEEPS and not self.in_fault and vcpu.started else None
        if self.away is None or vcpu.left:
            return
        if self.sipi is not None and 0 < self.started < self.ran and not vcpu.guest_mode:
            vcpu.say("D54", out, "the vCPU falls asleep behind the SIPI that was to start it", self.sipi)
            self.sipi = None
        if self.init is not None:
            return
        self.asleep = out if self.woken < self.ran else None
        completed = [*vcpu.prompt.exited, *((w, d) for w, d in vcpu.prompt.completed if d.line < self.ran)]
        for work, done in completed:
            if vcpu.live.get(work.token) is work:
                message = f"the vCPU falls asleep, and token {work.token:#x}, which was completed before, has no RDY"
                vcpu.say("D52", out, message, work.np, done)
        if vcpu.wake_all is WakeAll.SURELY and self.enabled is not None and self.enabled.line < self.ran:
            vcpu.say("D52", out, "the vCPU falls asleep, and its wake-all has no RDY", self.enabled)
        halted = (vcpu.fresh is not None and vcpu.inj is None) or vcpu.rep is not None  # which needs IF=1
        # Behind an L2's, its L1 may have been given the interrupt as an exit, which masks all further ones (5.10:
        # arch/x86/kvm/x86.c:kvm_vcpu_running calls check_nested_events, and the vCPU stays halted).
        if halted and not vcpu.pf_of_l2 and _hears(vcpu):
            for vector, accepted in self.pending.items():
                if accepted.line < self.ran:
                    message = f"the vCPU falls asleep in a halt, and the interrupt {vector:#x} waits for it"
                    vcpu.say("D54", out, message, accepted)

    def ends(self, event: Event) -> None:
        """sched_switch to the thread."""
        self.asleep = self.away = None
        self.ran = event.line

    def wakes(self, vcpu: SeenVcpu, event: Event, *, at_work: bool) -> None:
        """sched_waking of the thread, perhaps by a worker that has begun a work and not completed it: D54, D55.

        It slept in vcpu_block when the VMM had answered, and so had its NMI before it fell asleep.
        """
        if event.worker and self.away is not None and _hears(vcpu):
            nmis = (n for n in vcpu.context.nmis if self.entered_ns < n[0] and n[1] <= event.t_ns)
            if next(nmis, None) is not None:
                message = "a worker had to wake the vCPU, which had been given an NMI before it fell asleep"
                vcpu.say("D54", event, message, self.away)
        if at_work and self.asleep is not None and self.owes is not None and vcpu.context.ticks is False:
            message = (
                "a worker wakes the vCPU before it has completed its work, and an ACK is owed, so that it may not kick"
            )
            vcpu.say("D55", event, message, self.owes)
        if self.sipi is not None and event.tid == self.sipi.tid:
            self.started = event.line
        self.asleep = self.away = None
        self.woken = event.line

    def acknowledges(self) -> None:
        """A write of ACK, traced after its effect: what it has had told since the exit owes an ACK of its own
        (arch/x86/kvm/x86.c:kvm_set_msr_common, kvm_check_async_pf_completion)."""
        if self.owes is not None and self.owes.line < self.ran:
            self.owes = None

    def enters(self, event: Event) -> None:
        """The vCPU enters the guest: it has no NMI any more, or will have it now."""
        self.entered_ns = event.t_ns
        self.sipi = None

    def begins_anew(self, event: Event) -> None:
        """The vCPU is reset: nothing waits for it any more."""
        self.enters(event)
        self.init = None
        self.pending.clear()

    def accepted(self, event: Event) -> None:
        """kvm_apic_accept_irq of an interrupt for this vCPU."""
        if event.token == INIT:
            self.init = event
        elif event.token == SIPI:
            self.sipi, self.started = (event, 0) if self.init is not None else (None, 0)
        elif event.value >= LOWEST_VECTOR and not event.token:
            self.pending.setdefault(event.value, event)


def _hears(vcpu: SeenVcpu) -> bool:
    """Its LAPIC is on throughout, and its handlers end an interrupt before interrupts are on again (ready.h)."""
    return bool(vcpu.context.lapic_stays) and vcpu.context.faults is not None


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
