# SPDX-License-Identifier: GPL-2.0-or-later
"""Host page faults of the vCPU threads on guest memory that no plan names."""

from __future__ import annotations

from dataclasses import dataclass

from harness.contract.plan import POOL_GPA, GuestKind
from harness.evidence.decode import Evidence
from harness.evidence.ram_page import ram_page
from harness.evidence.resets import boots
from harness.judge.align import in_boot
from harness.model.events import Kind
from harness.model.walk.flags import VM_FAULT_ERROR, FaultFlag, VmFault


@dataclass(frozen=True, slots=True)
class OwnFaults:
    """How often they were counted in min_flt and maj_flt of the threads."""

    minor: int = 0
    major: int = 0


def own_faults(evidence: Evidence) -> OwnFaults:
    """They come at any time: writeback write-protects the pages of a RAM file, and the next to write is the guest, or
    KVM, which writes to the shared area (arch/x86/kvm/x86.c:apf_put_user_notpresent, apf_put_user_ready); while
    firmware boots the guest again QEMU's devices write in its vCPU threads.

    A call that was retried is a major fault, whatever it found (mm/memory.c:mm_account_fault, FAULT_FLAG_TRIED).
    None of a Linux guest, whose pages no plan names, nor where the calls of handle_mm_fault were not recorded.
    """
    plan = evidence.plan
    if plan.guest.kind is not GuestKind.PROBE or evidence.facts is None or not evidence.facts.has_mm_fault:
        return OwnFaults()
    planned, top = {page.gpa >> 12 for page in plan.pages}, plan.guest.memory_mib << 20 >> 12
    booted = boots(evidence.of(Kind.CLEAR, Kind.WRMSR))
    first = ram_page(evidence.of(Kind.DONE, Kind.PF, Kind.MM_FAULT, Kind.ENTRY))
    faulting: dict[int, tuple[int, bool]] = {}
    minor = major = 0
    for event in evidence.of(Kind.MM_FAULT, Kind.MM_FAULT_RET):
        if event.kind is Kind.MM_FAULT:
            faulting[event.tid] = (event.hva >> 12) - first, bool(event.value & FaultFlag.TRIED)
        elif event.vcpu >= 0 and event.tid in faulting:
            page, again = faulting.pop(event.tid)
            counted = not event.value & (VmFault.RETRY | VM_FAULT_ERROR)
            anyones = page < POOL_GPA >> 12 or in_boot(booted, event)
            if counted and anyones and 0 <= page < top and page not in planned:
                hard = again or bool(event.value & VmFault.MAJOR)
                major += hard
                minor += not hard
    return OwnFaults(minor, major)
