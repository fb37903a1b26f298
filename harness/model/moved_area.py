# SPDX-License-Identifier: GPL-2.0-or-later
"""The shared area's memory slot changes, or EN is written again, and a token is written there (behaviour.md B.2).

Source: virt/kvm/kvm_main.c:kvm_write_guest_offset_cached (6.1.192): the area is looked up anew where the generation of
the slots is another one, and its page is marked dirty in the slot found then.
"""

from __future__ import annotations

from harness.contract.host_program import AreaCase, AreaChange, Written
from harness.errors import ModelError
from harness.model.case_prediction import CasePrediction
from harness.model.kernels import KernelModel

_WHY = {
    AreaChange.KEPT: "the area lies where EN has had it looked up",
    AreaChange.MOVED: "the slots have another generation: the area is looked up anew",
    AreaChange.LOGGED: "the slots have another generation, and mark_page_dirty_in_slot has the bitmap of the new one",
    AreaChange.ENABLED: "each write of EN that enables makes a wake-all, whatever EN was (kvm_pv_enable_async_pf)",
    AreaChange.PLUGGED: "the SPTE that says that there is no memory is of another generation (check_mmio_spte)",
    AreaChange.CLEARED: "what makes the page writable for the guest again logs it (fast_pf_fix_direct_spte)",
    AreaChange.LOADED: "apic_set_spiv asks for a look at what waits, whoever enables the LAPIC",
    AreaChange.BASED: "kvm_lapic_set_base asks for a look at what waits, whoever enables the LAPIC",
    AreaChange.HIGH: "EN has 58 bits of an address",
    AreaChange.ROM: "EN is refused: a slot that is read-only has no address to write to (__gfn_to_hva_many)",
    AreaChange.ACKED: "a write of ACK has KVM look at what waits, whoever writes it (kvm_set_msr_common)",
    AreaChange.UNPLUGGED: "each write of EN that enables has the area looked up (kvm_gfn_to_hva_cache_init)",
    AreaChange.ENFORCED: "what is enforced is what KVM_SET_CPUID2 says, behind it as before it (kvm_update_pv_runtime)",
}


def predict_area(kernel: KernelModel, case: AreaCase) -> CasePrediction:
    """Where the token of a wake-all is written after this.

    :raise ModelError: the kernel has no asynchronous page faults, so that there is none.
    """
    if not kernel.has_apf:
        raise ModelError(f"{kernel.name} has no asynchronous page faults")
    outcome = Written.REFUSED if case.change in (AreaChange.ROM, AreaChange.UNPLUGGED) else Written.THERE
    return CasePrediction(case, outcome, _WHY[case.change])
