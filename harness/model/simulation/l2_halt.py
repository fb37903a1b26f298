# SPDX-License-Identifier: GPL-2.0-or-later
"""An L2 in an artificial halt whose L1 is given an interrupt (arch/x86/kvm/x86.c:kvm_vcpu_running, before 6.1)."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from harness.model.events import Event, Kind
from harness.model.simulation.engine import Wait

if TYPE_CHECKING:
    from harness.model.simulation.kvm_vcpu import KvmVcpu


def look(kvm: KvmVcpu) -> Generator[Wait, None, None]:
    """The vCPU thread, which is halted, asks whether it has anything to do.

    kvm_vcpu_running calls check_nested_events there (5.10.262; not 6.1.192): the L2 exits to its L1, which has GIF = 0
    behind VMRUN and so can be given no interrupt, and apf.halted stays until the page is ready.
    """
    s, replay, engine = kvm.state, kvm.world.replay, kvm.world.engine
    if not (s.kernel.running_checks_nested and s.halted and s.guest_mode and s.l2.intercept_interrupts):
        return
    if not kvm.deliverable():
        return
    if replay is not None:
        mark = replay.peek(kvm.index, Kind.L2_INTR, 0)
        if mark is None or not mark.fits(Kind.L2_INTR, 0):
            return
        replay.take(kvm.index, mark)
        yield Wait(until_ns=max(engine.now, mark.start_ns))
    kvm.world.emit(Event(Kind.L2_INTR, kvm.index))
    s.guest_mode = s.interrupts = False
    kvm.world.emit(Event(Kind.L2_EXIT, kvm.index))


def left(kvm: KvmVcpu, *, nested: bool) -> bool:
    """Whether the L2 that made this access has exited to its L1 in a halt, and not by a token."""
    return nested and not kvm.state.guest_mode and kvm.token is None
