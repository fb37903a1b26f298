# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that is not as most guests are, or a VMM, asks for a missing page (behaviour.md B.4).

Sources: arch/x86/kvm/x86.c:kvm_can_deliver_async_pf, mmu/mmu.c:kvm_arch_setup_async_pf, kvm_tdp_map_page,
mmu/spte.c:make_spte, virt/kvm/kvm_main.c:hva_to_pfn of 6.1.192, 6.12.117 and 7.3.4.
"""

from __future__ import annotations

from harness.contract.host_program import Found, GuestCase, OddGuest
from harness.errors import ModelError
from harness.model.case_prediction import CasePrediction
from harness.model.kernels import KernelModel

_RIGHT = {
    OddGuest.RING1: (Found.TOLD, "without SEND_ALWAYS it is CPL 0 alone that is not told"),
    OddGuest.PAGING32: (Found.TOLD, "CR0.PG is 1: nothing asks for long mode (is_paging)"),
    OddGuest.LOGGED: (Found.TOLD, "what maps a page writable logs it, for a ready event too (make_spte)"),
    OddGuest.IN_NMI: (Found.TOLD, "that NMIs are masked is not asked, only whether interrupts are"),
    OddGuest.ROM_PAGE: (
        Found.WAITED,
        "kvm_vcpu_gfn_to_hva is for a write, which the slot refuses: kvm_setup_async_pf",
    ),
    OddGuest.PRE_FAULT: (Found.WAITED, "kvm_tdp_map_page is a prefetch, of which none is asynchronous"),
    OddGuest.POISONED: (Found.BUS_ERROR, "-EHWPOISON is KVM_PFN_ERR_HWPOISON at the first look (hva_to_pfn)"),
}


def predict_guest(kernel: KernelModel, case: GuestCase) -> CasePrediction:
    """How this guest comes by its page.

    :raise ModelError: the kernel has no asynchronous page faults.
    """
    if not kernel.has_apf:
        raise ModelError(f"{kernel.name} has no asynchronous page faults")
    if case.kind is OddGuest.PRE_FAULT and not kernel.pre_fault_memory:
        return CasePrediction(case, Found.UNKNOWN, "KVM_PRE_FAULT_MEMORY came later")
    outcome, why = _RIGHT[case.kind]
    return CasePrediction(case, outcome, why)
