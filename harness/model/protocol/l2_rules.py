# SPDX-License-Identifier: GPL-2.0-or-later
"""A vCPU whose guest runs an L2: who is given a token, and what a ready interrupt does (rules D45, D47, D48).

Between two ENTRIES of a thread that has left L2: EXIT, L2_OUT, PF, TRY, NP | (blocked) | RDY, ACC | L2_EXIT | ENTRY.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.contract.probe_abi import PAGE_SIZE, PROGRAM_GPA, SHARED_GPA
from harness.model.events import Event, Kind
from harness.model.protocol.work_rules import SeenWork

if TYPE_CHECKING:
    from harness.model.protocol.vcpu_rules import SeenVcpu

_AREA_BYTES = 64
"""What struct kvm_vcpu_pv_apf_data is aligned to: the bits of EN below are flags."""
_RECORDED = frozenset({Kind.L2_ENTRY, Kind.L2_EXIT})


def entered_l2(vcpu: SeenVcpu) -> None:
    """kvm_nested_vmenter: nested_run_pending until the next exit, so that no event is looked at before."""
    vcpu.guest_mode = vcpu.busy = True
    vcpu.unfinished_run = 1


def out_of_l2(vcpu: SeenVcpu, event: Event) -> None:
    """kvm_nested_vmexit: whether by a #PF that L2's own tables made, which an L1 that shadows them gets as an exit."""
    vcpu.l2_fault = event.flag


def left_l2(vcpu: SeenVcpu, event: Event) -> None:
    """kvm_nested_vmexit_inject: D45."""
    vcpu.guest_mode = False
    vcpu.busy = True
    if not event.flag or vcpu.l2_fault:
        return
    fresh = vcpu.fresh
    if fresh is None or not fresh.guest_mode:
        vcpu.say("D45", event, "L1 is given a #PF exit, and no NP of its L2 waits for one")
    elif vcpu.inj is not None:
        vcpu.say("D45", event, "the token has been given to L2 before", vcpu.inj)
    else:
        vcpu.inj = fresh.inj = event
        if event.token != fresh.token or event.data:
            message = f"the #PF exit says code {event.data:#x} and {event.token:#x}, the token is {fresh.token:#x}"
            vcpu.say("D45", event, message, fresh.np)


def _rewritten(vcpu: SeenVcpu) -> bool:
    """The VMM may have read and written the vCPU's events since its last exit."""
    return vcpu.left and vcpu.context.rewrites and vcpu.shared.kernel.sync_loses_vmexit


def judge_injection(vcpu: SeenVcpu, event: Event) -> None:
    """kvm_inj_exception of #PF with code 0 while L2 runs: D47."""
    if vcpu.shared.kernel.l2_gets_no_token and not _rewritten(vcpu):
        vcpu.say("D47", event, "a #PF is given to L2", vcpu.fresh.np if vcpu.fresh else None)


def untold(vcpu: SeenVcpu, work: SeenWork, entry: Event, *, due: bool) -> bool:
    """D45, at an ENTRY after an NP of an L2 that nobody was told of: whether it was lost, and is no halt.

    :param due: a token could be delivered, and the shared area written.
    """
    if not work.guest_mode or not due or vcpu.slept:
        return False
    lost(vcpu, work)
    vcpu.counts.npt += 1
    if vcpu.shared.kernel.l2_tokens_exit:
        vcpu.say("D45", entry, f"the vCPU enters, and L1 was not told of token {work.token:#x} of its L2", work.np)
    return True


def lost(vcpu: SeenVcpu, work: SeenWork) -> None:
    """L1 was not told: flags = 1 stays in its shared area."""
    work.tokened = True
    vcpu.untold += 1
    vcpu.areas[_area(vcpu)] = True


def area_handled(vcpu: SeenVcpu) -> None:
    """L1 was told of a token: its handler zeroes the flags word."""
    vcpu.areas[_area(vcpu)] = False


def area_zeroed(vcpu: SeenVcpu, *, one: bool) -> None:
    """A probe guest starts anew and zeroes what is in its vCPUs' own areas, or, behind an INIT, in this one's."""
    for area in [_own(vcpu.index)] if one else [at for at in vcpu.areas if at < PROGRAM_GPA]:
        vcpu.areas.pop(area, None)


def _area(vcpu: SeenVcpu) -> int:
    """Where EN has the host write flags."""
    return _own(vcpu.index) if vcpu.en is None else vcpu.en & -_AREA_BYTES


def _own(index: int) -> int:
    return SHARED_GPA + PAGE_SIZE * index


def judge_ready(vcpu: SeenVcpu, entry: Event) -> None:
    """D48, at an ENTRY behind a ready interrupt: L2 runs on only as long as what L1 has begun is not through."""
    if vcpu.unfinished_run:
        vcpu.unfinished_run -= 1
        return
    known = vcpu.context.l2_always_exits and vcpu.shared.recorded >= _RECORDED
    if known and vcpu.guest_mode and vcpu.batch_irq is not None:
        vcpu.say("D48", entry, "L2 is entered, and a ready interrupt was accepted", vcpu.batch_irq)
