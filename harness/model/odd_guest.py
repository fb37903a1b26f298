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
    OddGuest.FETCH: (Found.TOLD, "a fetch is as any access (kvm_faultin_pfn)"),
    OddGuest.TABLE: (Found.TOLD, "PFERR_GUEST_PAGE_MASK is not asked for: the processor's own read is as any access"),
    OddGuest.HIGH: (Found.TOLD, "cr2_or_gpa has 64 bits, by which the page is mapped for its ready event"),
    OddGuest.LAST: (Found.TOLD, "an invalidation reaches the end of its slot (kvm_handle_hva_range)"),
    OddGuest.UNCONSUMED: (Found.TOLD, "the flags word is not read before it is written (apf_put_user_notpresent)"),
    OddGuest.DEBUGGED: (Found.TOLD, "guest_debug is not asked for"),
    OddGuest.DIRTY_RING: (Found.TOLD, "what KVM writes and maps writable is pushed (mark_page_dirty_in_slot)"),
    OddGuest.NO_PAYLOAD: (Found.TOLD, "its #PF is told as injected, and CR2 has the token already"),
    OddGuest.SYNC_REGS: (Found.TOLD, "sync_regs is KVM_SET_VCPU_EVENTS"),
    OddGuest.SMM: (Found.HALTED, "no paging there: a halt, and the worker goes by that mode's slots"),
    OddGuest.AREA_FORBIDDEN: (
        Found.HALTED,
        "the token word can be read and not written: the event is dropped (kvm_arch_async_page_present)",
    ),
    OddGuest.SMM_TAKEN: (Found.HALTED, "an invalidation goes through the slots of each address space"),
    OddGuest.PAGING_ON: (Found.AT_HAND, "CR0.PG leaves what is outstanding (kvm_post_set_cr0)"),
    OddGuest.LOADED_IRR: (Found.TOLD, "KVM_SET_LAPIC asks for KVM_REQ_EVENT"),
    OddGuest.MAPPED_TWICE: (Found.TOLD, "an invalidation goes through all that maps a page (kvm_zap_rmapp)"),
    OddGuest.RESTORED: (Found.TOLD, "KVM_SET_VCPU_EVENTS asks for KVM_REQ_EVENT, as process_nmi does"),
    OddGuest.PV_EOI: (Found.TOLD, "no PV EOI while another interrupt waits (apic_sync_pv_eoi_to_guest)"),
    OddGuest.ROM_PAGE: (
        Found.WAITED,
        "kvm_vcpu_gfn_to_hva is for a write, which the slot refuses: kvm_setup_async_pf",
    ),
    OddGuest.ROM_WRITTEN: (Found.FOR_VMM, "what such a slot has is mapped for reading (__gfn_to_pfn_memslot)"),
    OddGuest.ASKED_TWICE: (
        Found.WAITED,
        "interrupts are off, and a page that comes wakes all who sleep for it (__wake_userfault)",
    ),
    OddGuest.HOLE: (Found.FAILED, "who has no VMA is not to be waited for (hva_to_pfn: vma_lookup)"),
    OddGuest.ALIASED: (Found.TOLD, "an invalidation goes through each slot of its range (__kvm_handle_hva_range)"),
    OddGuest.HUGE: (Found.TOLD, "a ready event's prefetch maps as large as a fault does (kvm_mmu_hugepage_adjust)"),
    OddGuest.HUGE_LOGGED: (Found.TOLD, "a slot with a log has small entries (kvm_mmu_hugepage_adjust)"),
    OddGuest.ZERO_PAGE: (Found.AT_HAND, "who copies the zero page has an invalidation go before (wp_page_copy)"),
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
    if case.kind is OddGuest.PAGING_ON and kernel.cr0_pg_clears_queue:
        return CasePrediction(case, Found.WAITED, "CR0.PG drops the work, and waits for its worker (cancel_work_sync)")
    outcome, why = _RIGHT[case.kind]
    return CasePrediction(case, outcome, why)
