# SPDX-License-Identifier: GPL-2.0-or-later
"""An L2 in an artificial halt whose L1 is given an interrupt (arch/x86/kvm/x86.c:kvm_vcpu_running, before 6.1)."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from harness.model.simulation import l2_run
from harness.model.simulation.engine import Wait

if TYPE_CHECKING:
    from harness.model.simulation.kvm_vcpu import KvmVcpu


def look(kvm: KvmVcpu) -> Generator[Wait, None, None]:
    """The vCPU thread, which is halted, asks whether it has anything to do.

    kvm_vcpu_running calls check_nested_events there (5.10.262; not 6.1.192): the L2 exits to its L1, which has GIF = 0
    behind VMRUN and so can be given no interrupt, and apf.halted stays until the page is ready.
    """
    s = kvm.state
    if not (s.kernel.running_checks_nested and s.halted and l2_run.interrupt_exits(kvm) and kvm.deliverable()):
        return
    if kvm.world.replay is not None:
        mark = l2_run.next_intr_vmexit(kvm)
        if mark is None:
            return
        yield Wait(until_ns=max(kvm.world.engine.now, mark.start_ns))
    l2_run.intr_vmexit(kvm)
    s.interrupts = False


def left(kvm: KvmVcpu, *, nested: bool) -> bool:
    """Whether the L2 that made this access has exited to its L1 in a halt, and not by a token."""
    return nested and not kvm.state.guest_mode and kvm.token is None
