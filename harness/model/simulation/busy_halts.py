# SPDX-License-Identifier: GPL-2.0-or-later
"""Artificial halts that end at once, as something is done and nobody asks for it: the vCPU faults, halts, and faults
again, until something changes (arch/x86/kvm/x86.c:kvm_vcpu_has_events)."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from harness.model.events import Kind
from harness.model.simulation.engine import Wait

if TYPE_CHECKING:
    from harness.model.simulation.kvm_vcpu import KvmVcpu

_SPINS = 8
"""Turns of a busy loop that are simulated before the rest is left out."""
_EACH_TURN = ("PF", "TRY", "REP", "WAITED")


def goes_round(kvm: KvmVcpu) -> Generator[Wait, None, None]:
    """A halt of the vCPU has ended for nothing, as often as ``kvm.spins`` says.

    How many turns it takes until something changes is a matter of how fast the machine is.
    """
    replay = kvm.world.replay
    if kvm.spins > 1 and replay is None:
        _as_often_as_it_takes(kvm)
        if kvm.state.halted:
            kvm.world.item(kvm.halted_for).goes_round = True
    if kvm.spins <= _SPINS:
        return
    # A recording says how often: what comes next is one more fault that ends in a halt.
    mark = replay.peek(kvm.index) if replay is not None and kvm.state.halted else None
    if mark is None or mark.kind is not Kind.PF:
        _as_often_as_it_takes(kvm)
        yield Wait(signals=(kvm.wake, *kvm.memory.signals.values()))


def _as_often_as_it_takes(kvm: KvmVcpu) -> None:
    if kvm.state.halted:
        for name in _EACH_TURN:
            kvm.world.unbounded[name] = "done is stuck (B.8): the artificial halt is a busy loop"
