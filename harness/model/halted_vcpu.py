# SPDX-License-Identifier: GPL-2.0-or-later
"""A vCPU in an artificial halt, and what becomes of it when userspace changes its state: delivery.py without a clock.

Sources: arch/x86/kvm/x86.c of 5.10.262, 6.1.192, 6.12.117, 7.2.13 and 7.3.4 (kvm_pv_enable_async_pf in msrs.c there):
vcpu_enter_guest, vcpu_block, kvm_vcpu_running, kvm_vcpu_has_events, kvm_vcpu_reset, kvm_arch_vcpu_ioctl_set_mpstate.
"""

from __future__ import annotations

from typing import assert_never

from harness.contract.host_program import HaltCase, HaltCause, RunsAgain, StateChange
from harness.errors import ModelError
from harness.model import delivery as d
from harness.model.case_prediction import CasePrediction
from harness.model.delivery import ApfState, Setup
from harness.model.events import MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT
from harness.model.kernels import KernelModel

_GPA = 0x10000
_VECTOR = 0xF3
_EN = {HaltCause.CPL0: d.EN_EFFECTIVE, HaltCause.OFF: 0, HaltCause.REPEATED: d.EN_EFFECTIVE | d.EN_SEND_ALWAYS}


def predict_halt(kernel: KernelModel, case: HaltCase) -> CasePrediction:
    """When a vCPU halted for this cause runs again after this change.

    :raise ModelError: the kernel has no asynchronous page faults, so that nothing is ever halted for one.
    """
    if not kernel.has_apf:
        raise ModelError(f"{kernel.name} has no asynchronous page faults")
    if case.change is StateChange.KICK_TOLD:
        return _kick_told(kernel, case)
    v = _halted(kernel, case.cause)
    if case.change is StateChange.KICK and kernel.kick_ends_halts:
        text = "pv_unhalted is cleared with an HLT alone: kvm_arch_vcpu_runnable is true, and vcpu_block ends each halt"
        return CasePrediction(case, RunsAgain.AGAIN, text, ("F10",))
    woken = _change(v, case)
    if woken:
        return CasePrediction(case, RunsAgain.AT_ONCE, woken)
    if not v.halted:
        return CasePrediction(case, RunsAgain.AT_ONCE, "apf.halted is cleared")
    if d.kvm_vcpu_has_events(v, irq=False):
        return CasePrediction(case, RunsAgain.AT_ONCE, "the done list is not empty: kvm_vcpu_has_events")
    if v.queue:
        return CasePrediction(case, RunsAgain.WITH_PAGE, "its work is queued: the ready event ends the halt")
    return CasePrediction(
        case, RunsAgain.NEVER, "apf.halted is set, and no work is left whose ready event would clear it", ("F1",)
    )


def _kick_told(kernel: KernelModel, case: HaltCase) -> CasePrediction:
    """A HLT of a vCPU that was kicked, and told of the wake-all of enabling behind that, if it has enabled."""
    if case.cause is not HaltCause.OFF and kernel.ready_clears_kick:
        text = "kvm_arch_async_page_present: kvm_set_mp_state has cleared pv_unhalted before the HLT"
        return CasePrediction(case, RunsAgain.NEVER, text, ("F9",))
    return CasePrediction(case, RunsAgain.AT_ONCE, "pv_unhalted: the HLT does not halt")


def _halted(kernel: KernelModel, cause: HaltCause) -> ApfState:
    v = ApfState(kernel, cpl=0)
    if cause is not HaltCause.OFF:
        _write_en(v, cause)
        wake_all = d.dequeue(v)
        if wake_all is None:
            raise ModelError("the wake-all of enabling is not presented")
        d.kvm_arch_async_page_present(v, wake_all)
        v.token, v.pageready_pending, v.req_ready = 0, False, False
    setup, _ = d.kvm_setup_async_pf(v, _GPA, write=False)
    if cause is HaltCause.REPEATED:
        v.exception_pending, v.flags = False, 0  # the guest took the token
        setup, _ = d.kvm_setup_async_pf(v, _GPA, write=False)
    if setup not in (Setup.HALT, Setup.REPEATED):
        raise ModelError(f"{cause} ends in {setup}, not in a halt")
    v.req_halt, v.halted = False, True
    return v


def _write_en(v: ApfState, cause: HaltCause) -> None:
    d.write_msr(v, MSR_ASYNC_PF_INT, _VECTOR)
    if d.write_msr(v, MSR_ASYNC_PF_EN, _EN[cause]).clear:
        _clear(v)


def _clear(v: ApfState) -> None:
    """kvm_clear_async_pf_completion_queue: running workers end before it does."""
    while (work := d.begin_clear(v)) is not None:
        d.complete(v, work)
    d.end_clear(v)


def _reset(v: ApfState) -> None:
    d.reset(v, init=False)
    _clear(v)


def _change(v: ApfState, case: HaltCase) -> str:
    """Do it; what makes the vCPU run whatever its state says, empty for nothing."""
    match case.change:
        case StateChange.RESET:
            _reset(v)
        case StateChange.EN0:
            if d.write_msr(v, MSR_ASYNC_PF_EN, 0).clear:
                _clear(v)
        case StateChange.LOADVM:
            _reset(v)
            _write_en(v, case.cause)
        case StateChange.MPSTATE:
            v.hlt = False  # kvm_arch_vcpu_ioctl_set_mpstate sets mp_state and nothing else
        case StateChange.STOP_CONT | StateChange.KICKED | StateChange.KICK:
            pass  # a kick ends a HLT, before the halt (vcpu_block clears pv_unhalted with it) or behind it
        case StateChange.READ_ONLY:
            pass  # the worker is refused (check_vma_flags); behind its halt the vCPU's thread waits for the page itself
        case StateChange.PV_WAIT:
            return "no halt: an interrupt that is off ends no HLT (kvm_vcpu_has_events), and a kick wakes who is in one"
        case StateChange.NMI | StateChange.NMI_IN_NMI:
            return "an NMI is an event: vcpu_block clears apf.halted"
        case StateChange.SMI:
            return "an SMI is an event: vcpu_block clears apf.halted"
        case StateChange.EXTINT:
            return "an interrupt of the 8259's is one as well (kvm_cpu_has_extint): vcpu_block clears apf.halted"
        case StateChange.REPLUG | StateChange.INIT_SIPI:
            if case.change is StateChange.REPLUG:
                _reset(v)
            d.reset(v, init=True)
            _clear(v)
        case StateChange.MIGRATE | StateChange.LISTED:
            return "the halt is in no state that is migrated"
        case StateChange.IN_SERVICE:
            return "no halt: kvm_apic_set_state forgets highest_isr_cache, so that the tick is above what is in service"
        case StateChange.WINDOW:
            return "no halt: the window opens with IF = 1, whatever the task priority (svm_set_vintr: V_INTR_PRIO = 15)"
        case StateChange.TICK:
            return "kvm_apic_set_state starts the timer, and its tick is an event: vcpu_block clears apf.halted"
        case StateChange.SHADOW:
            return "no halt: the shadow of STI, which KVM_GET_VCPU_EVENTS tells and KVM_SET_VCPU_EVENTS sets"
        case StateChange.KICK_TOLD:
            raise ModelError("a kick before a HLT is no change of a halted vCPU")
        case StateChange.FORBIDDEN:
            return "the worker gets no page, and the touch is an error: vma_is_valid is false"
        case _:
            assert_never(case.change)
    return ""
