# SPDX-License-Identifier: GPL-2.0-or-later
"""What a vCPU of the probe guest waits for another one for, in a loop with IF=1 (guest-images/probe/sched.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.contract.words import Op
from harness.model.simulation.engine import Signal
from harness.model.simulation.situation import Step

if TYPE_CHECKING:
    from harness.model.simulation.vcpu_thread import Vcpu


def waits_for(vcpu: Vcpu, step: Step) -> Signal | None:
    """What may let it begin the step; None: it can begin.

    HOST: one vCPU at a time speaks to the agent (ops.c:host_turn).  AFTER: another one is past a step (is_past).
    """
    others = [peer for peer in vcpu.peers if peer is not vcpu]
    if step.kind is Op.HOST:
        ends = (peer.host_end for peer in others)
        return next((end.signal for end in ends if end is not None and not end.over), None)
    if step.kind is Op.AFTER:
        owners = (peer.probe for peer in others if any(s.index == step.value for s in peer.probe.steps))
        return next((probe.progress for probe in owners if probe.past < step.value), None)
    return None


def come_past(vcpu: Vcpu) -> None:
    """sched.c:past: others that wait for a step of this vCPU may go on.

    In a recorded run this is before it waits for what its log has next: that may be an interrupt which came in the loop
    of a step that waits (sched.c:await_other), when the vCPU had long said how far it is.  Where the interrupt came
    before that, nobody begins early: each step that waits has a record of its own.
    """
    if vcpu.probe.comes_past():
        vcpu.kvm.world.engine.fire(vcpu.probe.progress)
