# SPDX-License-Identifier: GPL-2.0-or-later
"""Can a missing page be asynchronous, and how is that told to the guest: KVM's per-vCPU async-PF state.

Sources: arch/x86/kvm/x86.c (kvm_can_do_async_pf, kvm_can_deliver_async_pf, kvm_arch_async_page_not_present,
kvm_arch_async_page_present, kvm_pv_enable_async_pf), arch/x86/kvm/mmu/mmu.c (alloc_apf_token) and
virt/kvm/async_pf.c, as of 5.10.262, 6.1.192 and 6.12.117; behaviour.md B.1-B.12.  The functions carry the kernel's
names and change the state vector that they are given; time and threads are the simulation's (simulate_kvm.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from harness.errors import ModelError
from harness.model.events import MSR_ASYNC_PF_ACK, MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT, WAKE_ALL_TOKEN
from harness.model.kernels import KernelModel
from harness.model.pv_features import PvFeatures

ASYNC_PF_PER_VCPU = 64
"""Works that one vCPU may have queued (arch/x86/include/asm/kvm_host.h)."""
NMIS_AT_ONCE = 2  # one that is given and one behind it, however many were queued (x86.c:process_nmi)
EN_ENABLED = 1 << 0
EN_SEND_ALWAYS = 1 << 1
EN_DELIVERY_AS_PF_VMEXIT = 1 << 2
EN_DELIVERY_AS_INT = 1 << 3
EN_RESERVED = 0b110000
EN_EFFECTIVE = EN_ENABLED | EN_DELIVERY_AS_INT
REASON_PAGE_NOT_PRESENT = 1
"""KVM_PV_REASON_PAGE_NOT_PRESENT, the flags word of the shared area (arch/x86/include/uapi/asm/kvm_para.h)."""
_ID_BITS = 20


class WorkState(StrEnum):
    """Where struct kvm_async_pf is: waiting for a kworker, in async_pf_execute, or on the done list."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


@dataclass(slots=True, eq=False)
class Work:
    """struct kvm_async_pf: one outstanding page of one vCPU, or the synthetic one of kvm_async_pf_wakeup_all."""

    token: int
    gpa: int
    write: bool = False
    wakeup_all: bool = False
    notpresent_injected: bool = False
    paging: bool = True  # arch.direct_map stand-in: CR0.PG when it was set up
    guest_mode: bool = False  # set up for an L2: arch.direct_map is false, arch.cr3 that of the tables shadowed for it
    state: WorkState = WorkState.QUEUED
    item: int = -1  # index of the program item that faulted, for people

    @property
    def gfn(self) -> int:
        return self.gpa >> 12


@dataclass(frozen=True, slots=True)
class L2Controls:
    """What an L1 asks for when it runs an L2, as far as it decides about asynchronous page faults.

    ``svm``: AMD's rules (svm.c:svm_interrupt_blocked), else Intel's (vmx.c:vmx_interrupt_blocked).
    """

    svm: bool = False
    intercept_interrupts: bool = True  # L1 exits on external interrupts
    intercept_pf: bool = False
    intr_masking: bool = True  # V_INTR_MASKING: RFLAGS.IF of L1 masks physical interrupts, not L2's
    l1_interrupts: bool = True  # RFLAGS.IF of L1 at VMRUN
    npt: bool = True  # nested paging
    intercept_vintr: bool = False  # L1 exits on virtual interrupts


@dataclass(slots=True)
class ApfState:
    """The state vector of behaviour.md B.3: what decides about asynchronous page faults of one vCPU."""

    kernel: KernelModel
    vcpu_id: int = 0
    features: PvFeatures = field(default_factory=PvFeatures)
    lapic_in_kernel: bool = True
    hlt_exits: bool = True  # False: KVM_X86_DISABLE_EXITS_HLT (-overcommit cpu-pm=on)
    en_val: int = 0
    int_vec: int = 0  # arch.apf.msr_int_val
    vec: int = 0  # arch.apf.vec, what a ready interrupt has: an INIT zeroes msr_int_val alone
    send_user_only: bool = False
    delivery_as_pf_vmexit: bool = False
    shared_ok: bool = False  # the cached mapping of the shared area can be read and written
    area_bound: bool = False  # an EN was accepted, whose address the cache keeps
    id: int = 0  # arch.apf.id, never reset
    queue: list[Work] = field(default_factory=list)  # every queued work except wake-alls, in order of set-up
    done: list[Work] = field(default_factory=list)
    gfns: set[int] = field(default_factory=set)
    queued: int = 0
    halted: bool = False  # arch.apf.halted
    hlt: bool = False  # mp_state is HALTED
    pageready_pending: bool = False
    req_halt: bool = False  # KVM_REQ_APF_HALT
    req_ready: bool = False  # KVM_REQ_APF_READY
    flags: int = 0  # the guest's shared area, offset 0
    token: int = 0  # the guest's shared area, offset 4
    lapic_hw: bool = True
    lapic_sw: bool = True
    interrupts: bool = True  # RFLAGS.IF of the level that runs
    shadow: bool = False  # STI or MOV SS shadow
    event_injected: bool = False  # exception, interrupt or NMI that needs re-injection
    exception_pending: bool = False
    cpl: int = 0
    paging: bool = True
    tdp: bool = True  # nested or extended page tables
    guest_mode: bool = False  # L2 runs
    l2: L2Controls = field(default_factory=L2Controls)
    exception_vmexit: bool = False  # arch.exception_vmexit.pending; 5.10: arch.exception.nested_apf
    nmi_pending: int = 0  # KVM_REQ_NMI, arch.nmi_queued and nmi_pending
    l2_tables_left: bool = False  # arch.walk_mmu is still nested_mmu, and no L2 runs (F6)
    req_event: bool = False  # KVM_REQ_EVENT, as far as something asks for it while exception_vmexit is pending


def kvm_pv_async_pf_enabled(en: int) -> bool:
    """x86.c: whether MSR_KVM_ASYNC_PF_EN enables, which takes both bit 0 and bit 3."""
    return en & EN_EFFECTIVE == EN_EFFECTIVE


def interrupt_allowed(v: ApfState) -> bool:
    """kvm_x86_ops.interrupt_allowed; in L2, an L1 that intercepts interrupts is given one whatever the shadow says.

    Intel: and whatever IF says.  AMD: if IF of L1 at VMRUN (V_INTR_MASKING), or of L2, is set.
    """
    if not v.guest_mode:
        return v.interrupts and not v.shadow
    if not v.l2.svm:
        return v.l2.intercept_interrupts or (v.interrupts and not v.shadow)
    if not (v.l2.l1_interrupts if v.l2.intr_masking else v.interrupts):
        return False
    return v.l2.intercept_interrupts or not v.shadow


def kvm_can_deliver_async_pf(v: ApfState) -> bool:
    """x86.c:kvm_can_deliver_async_pf: may "page not present" be injected into the guest as it is now?"""
    if not kvm_pv_async_pf_enabled(v.en_val):
        return False
    if v.send_user_only and v.cpl == 0:
        return False
    if v.guest_mode:
        return v.delivery_as_pf_vmexit
    return v.paging or v.kernel.token_with_paging_off


def kvm_can_do_async_pf(v: ApfState) -> bool:
    """x86.c:kvm_can_do_async_pf: may the fault be handed to a worker at all, with a token or a halt?"""
    return why_not_async(v) == ""


def why_not_async(v: ApfState) -> str:
    """The test of kvm_can_do_async_pf that fails, in its order; empty when none does."""
    if not v.lapic_in_kernel:
        return "the local APIC is not in the kernel"
    if v.event_injected:
        return "an event needs re-injection: the fault came during its delivery"
    if v.exception_pending or v.exception_vmexit:
        return "an exception is pending"
    if not v.hlt_exits and not kvm_can_deliver_async_pf(v):
        return "HLT exits are disabled and a token cannot be delivered"
    if not interrupt_allowed(v):
        return f"interrupts are not allowed: {_what_masks(v)}"
    return ""


def _what_masks(v: ApfState) -> str:
    if v.guest_mode and v.l2.svm and v.l2.intr_masking and not v.l2.l1_interrupts:
        return "IF=0 of L1"
    return "STI/MOV SS shadow" if v.interrupts else "IF=0"


def alloc_apf_token(v: ApfState) -> int:
    """mmu.c:alloc_apf_token: consume an id; the token is id << 12 | vcpu_id in 32 bits.

    5.10 before 5.10.103 used the counter before it incremented it and did not skip id 0.
    """
    mask = (1 << _ID_BITS) - 1
    if not v.kernel.token_never_zero:
        used, v.id = v.id, (v.id + 1) & mask
        return (used << 12) | v.vcpu_id
    v.id = (v.id + 1) & mask or 1
    return (v.id << 12) | v.vcpu_id


class Setup(StrEnum):
    """What became of a missing page in kvm_faultin_pfn / try_async_pf after the asynchronous GUP gave up."""

    TOKEN = "token"
    HALT = "halt"
    REPEATED = "repeated"
    FAILED = "failed"  # TRY without NP or REP: queue full or no memory for the work; blocking GUP follows


def kvm_setup_async_pf(v: ApfState, gpa: int, *, write: bool, item: int = -1) -> tuple[Setup, Work | None]:
    """Steps 6-8 of behaviour.md B.4 for a fault that kvm_can_do_async_pf allowed.

    mmu.c:kvm_arch_setup_async_pf, async_pf.c:kvm_setup_async_pf, x86.c:kvm_arch_async_page_not_present.
    """
    if not kvm_can_do_async_pf(v):
        raise ModelError("kvm_setup_async_pf without kvm_can_do_async_pf")
    if gpa >> 12 in v.gfns:
        v.req_halt = True
        return Setup.REPEATED, None
    token = alloc_apf_token(v)
    if v.queued >= ASYNC_PF_PER_VCPU:
        return Setup.FAILED, None
    work = Work(token, gpa, write, paging=v.paging, guest_mode=v.guest_mode, item=item)
    v.queue.append(work)
    v.queued += 1
    v.gfns.add(work.gfn)
    if kvm_can_deliver_async_pf(v) and v.shared_ok:  # apf_put_user_notpresent fails without the area
        v.flags = REASON_PAGE_NOT_PRESENT
        if v.guest_mode:
            v.exception_vmexit = True
            v.req_event = not v.kernel.vmexit_needs_request
        else:
            v.exception_pending = True
        work.notpresent_injected = True
        return Setup.TOKEN, work
    v.req_halt = True
    return Setup.HALT, work


def complete(v: ApfState, work: Work) -> None:
    """The tail of async_pf.c:async_pf_execute: append to done, request APF_READY if done was empty."""
    if not v.done:
        v.req_ready = True
    work.state = WorkState.DONE
    v.done.append(work)


def kvm_arch_can_dequeue_async_page_present(v: ApfState) -> bool:
    """x86.c: with async PF on, the LAPIC must be enabled and the guest must have zeroed the token."""
    return not kvm_pv_async_pf_enabled(v.en_val) or (reads_token(v) and v.shared_ok and v.token == 0)


def reads_token(v: ApfState) -> bool:
    """Whether it gets to the guest's word (apf_pageready_slot_free): kvm_lapic_enabled is asked before."""
    return kvm_pv_async_pf_enabled(v.en_val) and ((v.lapic_hw and v.lapic_sw) or not v.kernel.lapic_disabled_defers)


def dequeue(v: ApfState) -> Work | None:
    """One turn of the loop of async_pf.c:kvm_check_async_pf_completion: the next work to present, or None."""
    if not v.done or not kvm_arch_can_dequeue_async_page_present(v):
        return None
    return v.done.pop(0)


def wants_prefetch(v: ApfState, work: Work, *, guest_mode: bool = False) -> bool:
    """mmu.c:kvm_arch_async_page_ready: map the page now, unless it is a wake-all.

    The test that the MMU is as direct as it was holds always with TDP, whatever CR0.PG is (init_kvm_tdp_mmu); but the
    tables for an L2 with nested paging are shadowed, those for its L1 are not.  ``guest_mode``: an L2 runs now, for
    which the page is mapped then, whoever wanted it.
    """
    shadowed = (work.guest_mode and v.l2.npt, guest_mode and v.l2.npt)
    same = shadowed[0] == shadowed[1] and (v.tdp or work.paging == v.paging)
    return not work.wakeup_all and same


@dataclass(frozen=True, slots=True)
class Ready:
    """What kvm_async_pf_ready traces, and whether the interrupt was raised."""

    token: int
    gpa: int
    irq: bool


def kvm_arch_async_page_present(v: ApfState, work: Work) -> Ready:
    """x86.c: forget the gfn, put the token and raise the interrupt if the guest knows it, end any halt."""
    if work.wakeup_all:
        work.token = WAKE_ALL_TOKEN
    else:
        v.gfns.discard(work.gfn)
        v.queue.remove(work)
    told = work.wakeup_all or work.notpresent_injected
    irq = told and kvm_pv_async_pf_enabled(v.en_val) and v.shared_ok
    if irq:
        v.token = work.token
        v.pageready_pending = True
    v.halted = False
    v.hlt = False
    v.queued -= 1
    return Ready(work.token, 0 if work.wakeup_all else work.gpa, irq)


def kvm_async_pf_wakeup_all(v: ApfState) -> bool:
    """async_pf.c: queue the synthetic work, unless something is on the done list already."""
    if v.done:
        return False
    v.done.append(Work(WAKE_ALL_TOKEN, 0, wakeup_all=True, state=WorkState.DONE))
    v.queued += 1
    v.req_ready = True
    return True


@dataclass(frozen=True, slots=True)
class MsrWrite:
    """What a write did: ``gp`` a general protection fault; ``clear`` the caller must run clear_queue next.

    ``check`` the caller must run kvm_check_async_pf_completion in this exit; ``why`` for people.
    """

    gp: bool = False
    clear: bool = False
    check: bool = False
    why: str = ""


def write_msr(v: ApfState, msr: int, value: int, *, area_ok: bool = True) -> MsrWrite:
    """x86.c:kvm_set_msr_common for the three async-PF MSRs (host-initiated writes take the same code).

    ``area_ok``: the address in an EN value lies in a memslot.
    """
    if msr == MSR_ASYNC_PF_EN:
        return kvm_pv_enable_async_pf(v, value, area_ok=area_ok)
    if msr == MSR_ASYNC_PF_INT:
        if not v.features.has_interrupt():
            return MsrWrite(gp=True, why="ASYNC_PF_INT is not offered")
        if value >> 8:
            return MsrWrite(gp=True, why="INT: reserved bits")
        if not v.lapic_in_kernel:
            return MsrWrite(gp=True, why="the local APIC is not in the kernel")
        v.int_vec = v.vec = value
        return MsrWrite()
    if msr == MSR_ASYNC_PF_ACK:
        if not v.features.has_interrupt():
            return MsrWrite(gp=True, why="ASYNC_PF_INT is not offered")
        if value & 1:
            v.pageready_pending = False
            return MsrWrite(check=True)
        return MsrWrite()
    raise ModelError(f"MSR {msr:#x} is not one of the async page fault MSRs")


def can_read_msr(v: ApfState, msr: int) -> bool:
    """x86.c:kvm_get_msr_common: one of the three that is not offered is no MSR; reading it is a #GP."""
    return v.features.has_async_pf() if msr == MSR_ASYNC_PF_EN else v.features.has_interrupt()


def why_en_refused(features: PvFeatures, value: int) -> str:
    """Why a write of EN is a #GP before its value is stored; empty if it is stored (given a LAPIC in the kernel)."""
    if not features.has_async_pf():
        return "ASYNC_PF is not offered"
    if value & EN_RESERVED:
        return "EN: reserved bits"
    if value & EN_DELIVERY_AS_PF_VMEXIT and not features.has_vmexit():
        return "EN: delivery as #PF vmexit is not offered"
    if value & EN_DELIVERY_AS_INT and not features.has_interrupt():
        return "EN: delivery as interrupt is not offered"
    return ""


def kvm_pv_enable_async_pf(v: ApfState, value: int, *, area_ok: bool) -> MsrWrite:
    """x86.c:kvm_pv_enable_async_pf (behaviour.md B.2)."""
    if refused := why_en_refused(v.features, value):
        return MsrWrite(gp=True, why=refused)
    if not v.lapic_in_kernel:
        return MsrWrite(gp=bool(value), why="the local APIC is not in the kernel" if value else "")
    if v.kernel.en_needs_shared_area and kvm_pv_async_pf_enabled(value) and not area_ok:
        v.shared_ok = False  # __kvm_gfn_to_hva_cache_init leaves KVM_HVA_ERR_BAD in the cache of the old area too
        return MsrWrite(gp=True, why="EN: no memslot at the address; the MSR stays as it was")
    v.en_val = value
    if not kvm_pv_async_pf_enabled(v.en_val):
        if not v.kernel.reset_keeps_halt:
            v.halted = v.req_halt = False
        return MsrWrite(clear=True, why="EN disables: the completion queue is cleared")
    v.shared_ok = area_ok
    v.area_bound = v.area_bound or area_ok
    if not area_ok:
        return MsrWrite(gp=True, why="EN: no memslot at the address; the value stays stored")
    v.send_user_only = not value & EN_SEND_ALWAYS
    v.delivery_as_pf_vmexit = bool(value & EN_DELIVERY_AS_PF_VMEXIT)
    kvm_async_pf_wakeup_all(v)
    return MsrWrite()


class L2Exception(StrEnum):
    """What becomes of an asynchronous #PF that was queued while an L2 ran, at the next entry."""

    VMEXIT = "vmexit"  # L1 is given it, as an exit of its L2
    TO_L2 = "to-l2"  # L2 is given it
    LOST = "lost"  # nobody: L2 runs on, and its next exit wipes it


def kvm_check_nested_events(v: ApfState, *, rewritten: bool, wiped: bool = False) -> tuple[L2Exception, str]:
    """svm/nested.c:svm_check_nested_events, if the entry looks at events at all; and the finding that it shows.

    ``rewritten``: the VMM has read the vCPU's events and written them back since (x86.c:
    kvm_vcpu_ioctl_x86_get_vcpu_events and _set_): what was to be a vmexit is a #PF like any other then, which
    kvm_arch_vcpu_ioctl_run makes a vmexit again if L1 intercepts #PF, and KVM_REQ_EVENT is requested.  ``wiped``: with
    F2, an entry was cancelled before anything asked for KVM_REQ_EVENT: svm_cancel_injection wipes what is queued too.
    """
    kernel, l2 = v.kernel, v.l2
    v.exception_vmexit = False
    if kernel.needs_pf_intercept and l2.svm:  # nested_exit_on_exception
        return (L2Exception.VMEXIT, "") if l2.intercept_pf else (L2Exception.TO_L2, "F4")
    if kernel.vmexit_needs_request and (wiped or not (v.req_event or rewritten)):
        return L2Exception.LOST, "F2"  # vcpu_enter_guest has no KVM_REQ_EVENT; svm_complete_interrupts
    if rewritten and kernel.sync_loses_vmexit and not l2.intercept_pf:
        return L2Exception.TO_L2, "F3"
    return L2Exception.VMEXIT, ""


def begin_clear(v: ApfState) -> Work | None:
    """First loop of kvm_clear_async_pf_completion_queue: what has not started is cancelled (no DONE, no RDY), one work
    after another, up to the next whose worker runs, for which cancel_work_sync sleeps.  Those behind may start then."""
    while v.queue and v.queue[0].state is not WorkState.RUNNING:
        v.queue.pop(0)
    return v.queue[0] if v.queue else None


def end_clear(v: ApfState, *, vm_destroyed: bool = False) -> int:
    """Second half: free the done list without RDY.  Returns how many finished works were dropped.

    Neither the token counter nor pageready_pending is reset; at VM destruction the gfn set is not either.
    """
    dropped = sum(1 for w in v.done if not w.wakeup_all)
    v.queue.clear()
    v.done.clear()
    v.queued = 0
    if not vm_destroyed:
        v.gfns.clear()
    return dropped


def reset(v: ApfState, *, init: bool = True, by_vmm: bool = False) -> None:
    """EN and INT are zeroed, the id counter is not; the caller's clear_queue comes next.

    ``init``: the vCPU is given an INIT (x86.c:kvm_vcpu_reset, which clears apf.halted).  Else the VMM has reset it, by
    KVM_SET_MSRS and KVM_SET_MP_STATE = RUNNABLE: neither kvm_pv_enable_async_pf nor kvm_arch_vcpu_ioctl_set_mpstate
    clears apf.halted (finding F1; 5.10.262, 6.1.192, 6.12.117, 7.3.4).  ``by_vmm``: it has written INT, the vector.
    """
    v.en_val = v.int_vec = 0
    v.vec = v.vec if init and not by_vmm else 0
    v.halted = v.halted and not init and v.kernel.reset_keeps_halt
    v.req_halt = v.req_halt and v.kernel.reset_keeps_halt
    v.hlt = False
    v.nmi_pending = 0  # x86.c:kvm_vcpu_reset, and KVM_SET_VCPU_EVENTS, which takes the queued ones first
    v.guest_mode = v.exception_vmexit = False  # kvm_leave_nested, by KVM_SET_NESTED_STATE or EFER


def init_of_l2(v: ApfState) -> None:
    """An INIT that the vCPU accepts, before its reset(): what 5.10 leaves where an L2 runs (F6).

    svm.c:init_vmcb clears hflags before svm_set_efer could leave nested mode (nested_svm_uninit_mmu_context).
    """
    v.l2_tables_left = v.guest_mode and v.l2.svm and v.l2.npt and v.kernel.init_keeps_l2_tables


def set_lapic_software_enable(v: ApfState, on: bool) -> None:
    """lapic.c:apic_set_spiv: each write with bit 8 requests APF_READY, also where that was set (5.10 to 7.3)."""
    v.req_ready = v.req_ready or on
    v.lapic_sw = on


def set_paging(v: ApfState, on: bool) -> bool:
    """x86.c:kvm_post_set_cr0 on a CR0.PG change.  True: the caller must clear the queue (older kernels)."""
    if on == v.paging:
        return False
    v.paging = on
    if v.kernel.cr0_pg_clears_queue:
        return True
    if on and v.kernel.cr0_pg_set_requests_ready:
        v.req_ready = True
    return False


def kvm_vcpu_has_events(v: ApfState, *, irq: bool) -> bool:
    """x86.c: what makes a blocked vCPU runnable; ``irq`` an interrupt that could be delivered now."""
    return bool(v.done) or v.exception_pending or v.exception_vmexit or v.nmi_pending > 0 or irq
