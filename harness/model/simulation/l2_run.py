# SPDX-License-Identifier: GPL-2.0-or-later
"""An L1 of the probe guest runs its L2, and has it back (guest-images/probe/l2.c)."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from harness.model.delivery import interrupt_allowed
from harness.model.events import LOWEST_VECTOR, Event, Kind
from harness.model.outcomes import Outcome
from harness.model.simulation import lapic_switches
from harness.model.simulation.engine import Wait
from harness.model.simulation.recorded import RecordedEvent
from harness.model.simulation.situation import Step

if TYPE_CHECKING:
    from harness.model.simulation.kvm_vcpu import KvmVcpu


def vmrun(kvm: KvmVcpu, step: Step) -> None:
    """l2.c:l2_run: L1 runs its L2 (again), if the item is one of L2's."""
    s = kvm.state
    if not step.nested or s.guest_mode:
        return
    s.guest_mode = True
    kvm.world.emit(Event(Kind.L2_ENTRY, kvm.index))
    if s.l2_tables_left:  # svm/nested.c:nested_svm_init_mmu_context: WARN_ON(mmu_is_nested(vcpu))
        s.l2_tables_left = False
        kvm.world.known_faults.append("F6")


def given_to_l2(kvm: KvmVcpu, step: Step) -> bool:
    """The entry behind this access's fault gave L2 the #PF that is L1's."""
    faults = kvm.world.item(step.index).faults
    return kvm.state.guest_mode and bool(faults) and faults[-1].outcome is Outcome.TO_L2


def vmexit(kvm: KvmVcpu, step: Step) -> bool:
    """L1 has its L2 back, for an interrupt or because it is done."""
    if not step.nested or not kvm.state.guest_mode:
        return False
    _exit(kvm)
    return True


def _exit(kvm: KvmVcpu) -> None:
    kvm.state.guest_mode = False
    kvm.world.emit(Event(Kind.L2_EXIT, kvm.index))


def interrupt_exits(kvm: KvmVcpu) -> bool:
    """Whether an interrupt for L1 is an exit of its L2 (nested_exit_on_intr)."""
    return kvm.state.guest_mode and kvm.state.l2.intercept_interrupts


def intr_vmexit_is_next(kvm: KvmVcpu) -> bool:
    """Such an exit is what a recorded run has next: L1 may fault for its shared area before it takes the interrupt."""
    return next_intr_vmexit(kvm) is not None


def next_intr_vmexit(kvm: KvmVcpu) -> RecordedEvent | None:
    """Such an exit, if it is what a recorded run has next."""
    replay = kvm.world.replay
    mark = replay.peek(kvm.index, Kind.L2_INTR, 0) if replay and interrupt_exits(kvm) else None
    return mark if mark is not None and mark.fits(Kind.L2_INTR, 0) else None


def intr_vmexit(kvm: KvmVcpu) -> None:
    """L1 has its L2 back for an interrupt (svm/nested.c:nested_svm_intr, vmx/nested.c:vmx_check_nested_events)."""
    replay, mark = kvm.world.replay, next_intr_vmexit(kvm)
    if replay is not None and mark is not None:
        replay.take(kvm.index, mark)
    kvm.world.emit(Event(Kind.L2_INTR, kvm.index))
    _exit(kvm)


def _pending(kvm: KvmVcpu) -> bool:
    return lapic_switches.gives_interrupts(kvm.state) and any(v >= LOWEST_VECTOR for v in kvm.irr)


def _may_spin(kvm: KvmVcpu) -> bool:
    s = kvm.state
    has_it = s.kernel.masked_interrupt_spins and s.guest_mode and s.l2.svm
    return has_it and s.l2.intercept_interrupts and not interrupt_allowed(s)


def executes_nothing(kvm: KvmVcpu) -> Generator[Wait, None, bool]:
    """Whether L2 executes nothing, until something else is to be done: for a pending interrupt that L1 intercepts
    svm_interrupt_allowed says -EBUSY before it looks whether L1 may be given it, and x86.c:inject_pending_event asks
    for an exit at once, at each entry.  Nothing more is recorded of the vCPU then, nor has its guest logged any."""
    replay = kvm.world.replay
    comes = replay is not None and replay.peek(kvm.index) is None and not replay.logged(kvm.index)
    if not _may_spin(kvm) or not (comes or _pending(kvm)):
        return False
    if _pending(kvm) and "F8" not in kvm.world.known_faults:
        kvm.world.known_faults.append("F8")
    yield Wait(signals=(kvm.wake,))
    return True


def window_ends_l2(kvm: KvmVcpu) -> bool:
    """Whether L1 has its L2 back for the interrupt window that KVM opens for itself while L2 runs with the interrupts
    of L1 off: by a virtual interrupt (svm_enable_irq_window, svm_set_vintr).

    An L1 that intercepts those gets the exit (recalc_intercepts).  Else the interrupt was L2's, until KVM asked for no
    window that can never come; L2's handler says so to L1 (l2.c:l2_fault).
    """
    s = kvm.state
    masked = s.l2.svm and s.l2.intr_masking and not s.l2.l1_interrupts
    if not (s.guest_mode and masked and s.interrupts and _pending(kvm)):
        return False
    return s.l2.intercept_vintr or s.kernel.window_is_l2s


def is_kept_out(kvm: KvmVcpu) -> bool:
    """Whether an interrupt of L1 keeps L2 from what it was about to do."""
    return (_may_spin(kvm) and _pending(kvm)) or window_ends_l2(kvm)


def leave_for_window(kvm: KvmVcpu) -> None:
    """L1 has its L2 back for that."""
    if not kvm.state.l2.intercept_vintr:
        kvm.world.known_faults.append("F7")
    _exit(kvm)
