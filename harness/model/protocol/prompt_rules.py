# SPDX-License-Identifier: GPL-2.0-or-later
"""What is ready is told at the next entry, behind its prefetch, and given as soon as the guest takes it: D50, D51, D56.

No time is measured: an entry of the vCPU behind an exit of its own that came later decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from math import inf
from typing import TYPE_CHECKING

from harness.model.events import Event, Kind
from harness.model.protocol.work_rules import SeenWork

if TYPE_CHECKING:
    from harness.model.protocol.vcpu_rules import SeenVcpu


class Slot(IntEnum):
    """The token word of the shared area, by what the trace shows: a guest clears it between the last two."""

    FREE = 0
    TAKEN = 1  # a ready event with interrupt
    HANDLED = 2  # that interrupt was injected
    # From an ACK on it is free.  One that was written before the interrupt was injected is of the interrupt before.


@dataclass(slots=True)
class Prompt:
    """Of one vCPU.

    :ivar completed: works that were completed and have no RDY yet, each with its DONE.
    :ivar exited: of these, those whose vCPU has left the guest since.
    :ivar injected: an exception, of whatever kind, was injected before the entry that comes, or came last.
    :ivar virqs: interrupts are traced when they are injected.
    :ivar out: line at which the thread last left KVM_RUN.
    :ivar bound: when a write of EN gave it an area, where it had one that KVM could not read; nothing has asked
        KVM since to look at what waited then (kvm_async_pf_wakeup_all does not, where something waits).
    """

    completed: list[tuple[SeenWork, Event]] = field(default_factory=list)
    exited: list[tuple[SeenWork, Event]] = field(default_factory=list)
    injecting: bool = False
    injected: bool = False
    virqs: bool = False
    out: int = 0
    bound: float = -inf
    slot: Slot = Slot.FREE

    def interrupts(self) -> None:
        """kvm_apic_accept_irq of a ready event."""
        self.slot = Slot.TAKEN

    def interrupted(self, *, ready: bool) -> None:
        """kvm_inj_virq."""
        self.virqs = True
        if ready and self.slot is Slot.TAKEN:
            self.slot = Slot.HANDLED

    def acknowledged(self) -> None:
        """kvm_msr: a write of MSR_KVM_ASYNC_PF_ACK."""
        self.bound = -inf
        if self.slot is Slot.HANDLED:
            self.slot = Slot.FREE

    def leaves(self) -> None:
        """kvm_exit: KVM looks at its requests before it enters again."""
        self.exited += self.completed
        self.completed.clear()

    def enters(self, vcpu: SeenVcpu, entry: Event) -> None:
        """kvm_entry, before what has gathered since the last one is forgotten: D50.

        The request is made before DONE is traced (virt/kvm/async_pf.c:async_pf_execute), and looked at behind each exit
        (arch/x86/kvm/x86.c:vcpu_enter_guest).  One entry may have been under way when it was made.  Only the worker
        of the first work on the done list makes it, and may be held up before that (doubts.py).
        """
        self.injected, self.injecting = self.injecting, False
        if not self.exited:
            return
        self.exited = [(work, done) for work, done in self.exited if vcpu.live.get(work.token) is work]
        if self.exited and _must_be_told(vcpu):
            for work, done in self.exited:
                message = f"the vCPU enters, and token {work.token:#x}, completed before its last exit, has no RDY"
                vcpu.unasked(entry, message, work, done)
            self.exited.clear()

    def faults(self, vcpu: SeenVcpu, event: Event) -> None:
        """kvm_page_fault of an access with interrupts on: D51."""
        told = vcpu.told
        if (
            told is None
            or told.injected
            or told.said
            or self.injected
            or not self.virqs
            or vcpu.delivering
            or vcpu.guest_mode
        ):
            return
        states = vcpu.states(event.gpa)
        if states and all(s.interrupts and not s.shadow and not s.guest_mode for s in states) and _lapic_on(vcpu):
            message = f"the guest runs with interrupts on, and {told.irq.value:#x} was not injected at its last entry"
            vcpu.say("D51", event, message, told.ready, told.irq)
            told.said = True


def asked_again(vcpu: SeenVcpu, event: Event) -> None:
    """handle_mm_fault, of the vCPU's thread: D56.

    kvm_check_async_pf_completion maps a page (kvm_arch_async_page_ready) before it is traced as ready and the guest is
    told; behind that nothing asks for the page before the guest runs, or the VMM does.  But KVM itself writes to the
    shared area there (apf_put_user_ready).
    """
    for ready in vcpu.batch if event.hva else ():  # since the last entry
        work, area = ready.work, (vcpu.en or 0) >> 12
        if work is None or work.hva >> 12 != event.hva >> 12 or ready.event.gpa >> 12 == area:
            continue
        if ready.event.line > vcpu.prompt.out:
            message = f"the page of token {work.token:#x} is asked for behind its ready event, not before it"
            vcpu.say("D56", event, message, ready.event)


def _must_be_told(vcpu: SeenVcpu) -> bool:
    """kvm_arch_can_dequeue_async_page_present holds, as far as is known."""
    context, kernel = vcpu.context, vcpu.shared.kernel
    if kernel.era_2010 or not vcpu.enabled or not vcpu.shared_ok or not _lapic_on(vcpu):
        return False
    if not context.area_stays or vcpu.index in {*context.slot_taken, *context.slot_freed}:
        return False
    if context.paging_flips and kernel.cr0_pg_clears_queue:
        return False
    taken = vcpu.prompt.slot is not Slot.FREE or any(r.irq is not None or r.maybe is not None for r in vcpu.batch)
    return not taken and not vcpu.wake_all and vcpu.shared.recorded >= {Kind.ACC, Kind.VIRQ, Kind.WRMSR}


def _lapic_on(vcpu: SeenVcpu) -> bool:
    return bool(vcpu.context.lapic_stays) and vcpu.apic_hw is not False and vcpu.apic_sw is not False
