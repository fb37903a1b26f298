# SPDX-License-Identifier: GPL-2.0-or-later
"""What an ENTRY decides: token or halt (behaviour.md B.15), interrupts due or not, completions that must have been.

Called only when something happened since the vCPU's last ENTRY, so most ENTRIES cost nothing.
"""

from __future__ import annotations

from harness.model.delivery import EN_DELIVERY_AS_PF_VMEXIT, EN_EFFECTIVE, EN_SEND_ALWAYS
from harness.model.events import LOWEST_VECTOR, Event, Kind
from harness.model.protocol.l2_rules import area_handled, judge_ready, lost, untold
from harness.model.protocol.ready_rules import Announced, compare
from harness.model.protocol.saved_tokens import entered_with
from harness.model.protocol.token_rules import handed
from harness.model.protocol.vcpu_rules import SeenVcpu
from harness.model.protocol.wake_all import WakeAll
from harness.model.protocol.work_rules import SeenWork

_HALT_EVIDENCE = frozenset({Kind.OUT, Kind.VIRQ, Kind.USER_EXIT})


def judge_entry(vcpu: SeenVcpu, entry: Event) -> None:
    """Judge everything since the last ENTRY of this vCPU, and forget it."""
    if vcpu.trial is not None:
        vcpu.failed()
    judge_ready(vcpu, entry)
    entered_with(vcpu)
    if vcpu.fresh is not None:
        if vcpu.inj is not None:
            _token(vcpu, vcpu.fresh, vcpu.inj)
        else:
            _halt(vcpu, vcpu.fresh, entry)
    elif vcpu.rep is not None:
        if not _awake(vcpu):
            vcpu.unwoken(entry, "the vCPU enters after REP, and nothing has ended its halt", vcpu.rep)
        _wakeup_due(vcpu, entry)
    if vcpu.batch:
        _batch(vcpu, entry)
    vcpu._idle()
    vcpu.started = True


def _token(vcpu: SeenVcpu, work: SeenWork, inj: Event) -> None:
    """An NP with its injection was a token: D13 (it did not halt), D22, D39."""
    work.tokened = True
    vcpu.counts.npt += 1
    kernel, states = vcpu.shared.kernel, vcpu.states(work.gpa)
    always = vcpu.en is not None and bool(vcpu.en & EN_SEND_ALWAYS)
    if vcpu.en is None:
        # So it was enabled; what else was set is not known, but a guest asks for no more than it is offered.
        vcpu.en = EN_EFFECTIVE | EN_SEND_ALWAYS | (EN_DELIVERY_AS_PF_VMEXIT if vcpu.context.features.vmexit else 0)
    elif vcpu.enabled is False:
        vcpu.say("D22", inj, "token injected, but APF is not enabled", work.np)
    elif states and not always and all(state.cpl == 0 for state in states):
        vcpu.say("D22", inj, f"token injected at CPL0 for {work.gpa:#x} without SEND_ALWAYS", work.np)
    elif states and not kernel.token_with_paging_off and not any(state.paging for state in states):
        vcpu.say("D22", inj, f"token injected with CR0.PG=0 for {work.gpa:#x}", work.np)
    elif vcpu.slept and not vcpu.left:
        vcpu.say("D13", inj, "token injected for an NP that halted the vCPU", work.np)
    if work.guest_mode:
        if inj.kind is Kind.INJ:
            lost(vcpu, work)
            return
        if vcpu.en is not None and not vcpu.en & EN_DELIVERY_AS_PF_VMEXIT:
            vcpu.say("D22", inj, "a token as an exit of L2, which L1 has not enabled", work.np)
    area_handled(vcpu)
    handed(vcpu, work, inj)


def _halt(vcpu: SeenVcpu, work: SeenWork, entry: Event) -> None:
    """An NP without injection was a halt: D13 (a token was due), D23, D24, D25."""
    work.tokened = False
    states = vcpu.states(work.gpa)
    barred = vcpu.enabled is False or (bool(states) and not any(vcpu.deliverable(s) for s in states))
    deliverable = bool(states) and all(vcpu.deliverable(s) for s in states)
    due = deliverable and _readable(vcpu, work)
    # Where the area moves nobody knows whether it could be written; if it could not, the vCPU has slept.
    maybe = deliverable and bool(vcpu.enabled) and not vcpu.context.area_stays
    # Of a page that is touched in several ways nobody knows which this was; a halt would have had to be ended.
    any_way = any(vcpu.deliverable(s) for s in states) and bool(vcpu.enabled)
    maybe = maybe or (work.guest_mode and any_way and not _awake(vcpu))
    expected = vcpu.context.enabled_before and bool(states) and all(state.cpl == 3 for state in states)
    expected = expected and (not work.guest_mode or vcpu.context.features.vmexit)
    if untold(vcpu, work, entry, due=due or expected or maybe):
        return
    vcpu.counts.nph += 1
    unwritten = any_way and not vcpu.shared_ok  # a token that could not be told (apf_put_user_notpresent)
    if vcpu.context.hlt_exits is False and not unwritten:
        vcpu.say("D23", entry, f"NP of {work.gpa:#x} halted a vCPU whose HLT exits are disabled", work.np)
    elif not _awake(vcpu) and Kind.INJ in vcpu.shared.recorded:
        if barred:
            vcpu.unwoken(entry, "the vCPU enters after a halt NP, and nothing has ended its halt", work.np)
        else:
            vcpu.say("D13", entry, f"NP of token {work.token:#x} was neither injected nor did it halt", work.np)
    elif due or expected:
        vcpu.say("D13", entry, f"a token was due for {work.gpa:#x}, but none was injected", work.np)
    _wakeup_due(vcpu, entry)


def _readable(vcpu: SeenVcpu, work: SeenWork) -> bool:
    """Whether APF was surely enabled, with a shared area that can be written, at the NP."""
    return bool(vcpu.enabled and vcpu.shared_ok and vcpu.context.area_stays and work.np is not None)


def _awake(vcpu: SeenVcpu) -> bool:
    """Whether anything has ended a halt, or the trace cannot tell."""
    if vcpu.slept or vcpu.woken or vcpu.left or not vcpu.shared.recorded >= _HALT_EVIDENCE:
        return True
    # A completed work that cannot be dequeued keeps the vCPU runnable (behaviour.md B.8, last line).  Its DONE may be
    # traced late; that matters only while a token waits to be read by the guest, or the LAPIC is off.
    off = vcpu.shared.kernel.lapic_disabled_defers and (vcpu.apic_sw is False or vcpu.apic_hw is False)
    held_back = off or (vcpu.irq_seq > 0 and not vcpu.acked)
    waits = held_back and len(vcpu.live) > (vcpu.fresh is not None)
    return waits or vcpu.wake_all is not WakeAll.NO or any(work.completed for work in vcpu.live.values())


def _wakeup_due(vcpu: SeenVcpu, entry: Event) -> None:
    """D25 of a kernel whose halts go through kvm_vcpu_block, which traces their end (5.10)."""
    polls = vcpu.shared.kernel.halt_polls and Kind.WAKEUP in vcpu.shared.recorded
    if polls and vcpu.slept and not vcpu.left and not vcpu.wakeups:
        vcpu.say("D25", entry, "the vCPU slept for a missing page, and there was no kvm_vcpu_wakeup")


def _batch(vcpu: SeenVcpu, entry: Event) -> None:
    """The RDYs since the last ENTRY: D15, D18, and of each work D11; of the one with interrupt D19, D39."""
    interrupts = {Kind.ACC} <= vcpu.shared.recorded
    behind: Event | None = None
    flushed = vcpu.shared.kernel.always_flush_work and Kind.DONE in vcpu.shared.recorded
    for ready in vcpu.batch:
        work, event = ready.work, ready.event
        wake_all = event.token == 0xFFFFFFFF
        tokened = True if wake_all else work.tokened if work is not None else None
        if tokened and ready.irq is None and ready.maybe is not None:
            vcpu.int_vec = ready.maybe.value
            vcpu.interrupted(ready, ready.maybe)
        if interrupts and tokened is not None and ready.enabled is not None:
            due = tokened and ready.enabled
            if due and ready.irq is None:
                vcpu.say("D15", event, f"no interrupt for RDY of token {event.token:#x}", work.np if work else None)
            elif ready.irq is not None and not due:
                why = "its NP was a halt" if ready.enabled else "APF is not enabled"
                vcpu.say("D15", ready.irq, f"interrupt for RDY of token {event.token:#x}, but {why}", event)
            elif behind is not None and ready.irq is None:
                vcpu.say("D18", event, "RDY after one with interrupt, and the vCPU has not entered between", behind)
        if ready.irq is not None:
            behind = event
            given = ready.irq.value >= LOWEST_VECTOR and not ready.lost
            _interrupt(vcpu, event, work, Announced(event, ready.irq, ready.injected) if given else None)
            vcpu.irq_seq, vcpu.acked = ready.seq, False
        if work is not None:
            late = vcpu.shared.ledger.settle(work, entry, event, flushed=flushed)
            if late is not None:
                vcpu.shared.found.append(late)


def _interrupt(vcpu: SeenVcpu, event: Event, work: SeenWork | None, told: Announced | None) -> None:
    """A RDY was told by an interrupt: D19, D39.  ``told``: the guest is given it once it takes any."""
    if vcpu.irq_seq and not vcpu.acked and work is not None and 0 < work.done_seq < vcpu.irq_seq:
        message = "second RDY with interrupt without ACK, though its work was done before the first"
        vcpu.say("D19", event, message, work.np)
    if told is not None:
        compare(vcpu)  # the token word was free: the one before was taken
        vcpu.told = told
