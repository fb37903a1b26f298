# SPDX-License-Identifier: GPL-2.0-or-later
"""An L2 that touches a missing page, and who is told of it: delivery.py without a clock (behaviour.md B.12).

Sources: arch/x86/kvm/x86.c and svm/nested.c of 5.10.262, 6.1.192, 6.12.117, 7.2.13 and 7.3.4: kvm_inject_page_fault,
vcpu_enter_guest, kvm_vcpu_ioctl_x86_get_vcpu_events and _set_, svm_check_nested_events.
"""

from __future__ import annotations

from harness.contract.host_program import Between, TokenCase, Told
from harness.errors import ModelError
from harness.model import delivery as d
from harness.model.case_prediction import CasePrediction
from harness.model.delivery import ApfState, L2Controls, L2Exception, Setup
from harness.model.kernels import KernelModel

_GPA = 0x10000
_EN = d.EN_EFFECTIVE | d.EN_SEND_ALWAYS | d.EN_DELIVERY_AS_PF_VMEXIT
_TOLD = {L2Exception.VMEXIT: Told.L1, L2Exception.TO_L2: Told.TO_L2, L2Exception.LOST: Told.LEFT}
_WHY = {
    L2Exception.VMEXIT: "it is a #PF exit, whatever L1 intercepts",
    L2Exception.TO_L2: "the #PF exit has become a #PF of L2",
    L2Exception.LOST: "no KVM_REQ_EVENT: L2 is entered, and its next exit wipes the #PF exit",
}


def predict_token(kernel: KernelModel, case: TokenCase) -> CasePrediction:
    """Who is told of the token of an L2 after this; of EXIT, that the page of L1's own is there;
    of INJECT, of one that L1 gives its L2; of ACKED, of a wake-all; of SHADOW and UNMAPPED, that there is none.

    :raise ModelError: the kernel has no asynchronous page faults, so that there is no token.
    """
    if not kernel.has_apf:
        raise ModelError(f"{kernel.name} has no asynchronous page faults")
    if case.between is Between.EXIT:
        return CasePrediction(case, Told.L1, "KVM_REQ_APF_READY outlives an exit of L2: the next entry looks at it")
    if case.between is Between.ACKED:
        return CasePrediction(case, Told.L1, "an ACK has KVM look at what waits, whoever runs (kvm_set_msr_common)")
    if case.between is Between.SHADOW:
        return CasePrediction(case, Told.HALT, "no shadow keeps L2 from its exit (svm_interrupt_blocked)")
    if case.between is Between.UNMAPPED:
        return CasePrediction(case, Told.HALT, "nobody is told of a prefetch that finds no page (FNAME(page_fault))")
    if case.between is Between.NMI:
        return CasePrediction(case, Told.L1, "a #PF exit comes before an NMI's (svm_check_nested_events)")
    if case.between is Between.INJECT:
        return CasePrediction(case, Told.TO_L2, "nested_run_pending: no exit to L1 before what it injects is delivered")
    controls = L2Controls(svm=True, intercept_pf=case.intercept, intr_masking=False)
    v = ApfState(kernel, cpl=0, guest_mode=True, l2=controls, shared_ok=True, en_val=_EN, delivery_as_pf_vmexit=True)
    setup, _ = d.kvm_setup_async_pf(v, _GPA, write=False)
    if setup is not Setup.TOKEN:
        raise ModelError(f"a touch of an L2 ends in {setup}, not in a token")
    what, finding = d.kvm_check_nested_events(v, rewritten=case.between in (Between.STATE, Between.OWN_FAULT))
    return CasePrediction(case, _TOLD[what], _WHY[what], (finding,) if finding else ())
