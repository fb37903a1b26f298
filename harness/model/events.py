# SPDX-License-Identifier: GPL-2.0-or-later
"""The events that the protocol is stated in: one slotted class, so that checking is cheap.

The simulation emits them, the evidence decoder produces them from a trace, the protocol automaton consumes them.
Each is one line of a KVM, block or sched tracepoint (behaviour.md B.13 for the formats), with the thread that
emitted it already resolved to a role.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

WAKE_ALL_TOKEN = 0xFFFFFFFF
"""The token of kvm_async_pf_wakeup_all (virt/kvm/async_pf.c)."""

MSR_ASYNC_PF_EN = 0x4B564D02
MSR_ASYNC_PF_INT = 0x4B564D06
MSR_ASYNC_PF_ACK = 0x4B564D07
MSR_IA32_APICBASE = 0x1B
MSR_X2APIC_SPIV = 0x80F
HEEDED_MSRS = frozenset((MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT, MSR_ASYNC_PF_ACK, MSR_IA32_APICBASE, MSR_X2APIC_SPIV))
"""Of others it says nothing about asynchronous page faults that they were read or written."""
HYPERVISOR_CALLBACK_VECTOR = 0xF3
"""A Linux guest's vector of MSR_ASYNC_PF_INT (arch/x86/include/asm/irq_vectors.h)."""
LOWEST_VECTOR = 16
"""arch/x86/kvm/lapic.c:apic_has_interrupt_for_ppr: the class of a pending vector must be above that of the processor
priority; class 0 never is, so a vector below 16 stays in the IRR for good."""


class Kind(IntEnum):
    """What happened; the comment names the tracepoint and which Event fields it fills."""

    PF = 1  # kvm_page_fault: gpa, value = error code, data = rip (0 on 5.10, which does not print it)
    TRY = 2  # kvm_try_async_get_page: gpa (gfn << 12 where the gva is not printed)
    NP = 3  # kvm_async_pf_not_present: token, gpa
    REP = 4  # kvm_async_pf_repeated_fault / kvm_async_pf_doublefault: gpa
    DONE = 5  # kvm_async_pf_completed: gpa, hva
    RDY = 6  # kvm_async_pf_ready: token, gpa
    INJ = 7  # kvm_inj_exception of #PF: value = error code, flag = reinjected (other vectors: INJ_OTHER)
    # kvm_inj_exception of any other vector, which is in the text; flag = reinjected, or the way into a triple fault
    INJ_OTHER = 8
    # kvm_apic_accept_irq: value = vector, flag = level-triggered, token = 0: an interrupt of delivery mode Fixed; INIT;
    # SIPI; 1: an NMI, whose vector is none, as of those two
    ACC = 9
    ENTRY = 10  # kvm_entry
    # kvm_exit: flag = of a page fault while an event was being delivered, value: CR0_WRITTEN, or 0
    EXIT = 11
    WRMSR = 12  # kvm_msr msr_write: value = msr, data, flag = #GP
    RDMSR = 13  # kvm_msr msr_read: value = msr, data, flag = #GP
    OUT = 14  # sched_switch, this vCPU thread leaves the CPU: value = ord(prev_state[0]) ('R','S','D')
    IN = 15  # sched_switch, this vCPU thread gets the CPU
    BIO = 16  # block_bio_queue: dev, value = sector, data = sectors, flag = read
    WAKEUP = 17  # kvm_vcpu_wakeup
    USER_EXIT = 18  # kvm_userspace_exit: value = reason number
    VIRQ = 19  # kvm_inj_virq: value = vector, flag = reinjected
    EOI = 20  # kvm_eoi: value = vector
    UNMAP = 21  # kvm_unmap_hva_range: hva = start, data = end
    MM_FAULT = 22  # probe on handle_mm_fault: hva, value = FAULT_FLAG_*
    MM_FAULT_RET = 23  # its return: value = VM_FAULT_*
    # kvm_clear_async_pf_completion_queue ran for this vCPU: added by the decoder.
    # flag: by a CR0.PG change, so that the MSRs stay; else by reset, INIT or VM destruction.  value: LOADED, by a
    # loadvm of the state that the vCPU is in, so that an L2 runs on, and the guest's memory is as it was; INIT, by one
    # of the guest, which zeroes EN and INT, and leaves the vector that KVM took from INT (arch.apf.vec).
    CLEAR = 24
    # block_bio_complete, block_rq_complete: dev, value = sector, data = sectors, flag = read, token = errno
    # (0: none); then pages are unlocked.
    BIO_END = 25
    WORK = 26  # probe on async_pf_execute: a worker has begun, so cancel_work_sync has to wait for it
    L2_ENTRY = 27  # kvm_nested_vmenter (5.10: kvm_nested_vmrun): L1 has executed VMRUN
    L2_OUT = 28  # kvm_nested_vmexit: an exit of L2, to the host; flag = "PF excp"
    # kvm_nested_vmexit_inject: an exit of L2 that L1 gets.  text has the reason, flag = "PF excp", data = ext_inf1 (the
    # error code), token = ext_inf2 (CR2, or the token).
    L2_EXIT = 29
    L2_INTR = 30  # kvm_nested_intr_vmexit: an interrupt becomes an exit to L1
    # sched_waking of a vCPU's thread: value = that vCPU, data = its thread id; vcpu = -1, tid: of who wakes it, or was
    # interrupted for it
    WAKING = 31
    WORK_END = 32  # probe on the return of async_pf_execute: its vCPU has been asked, kicked and woken
    KICK = 33  # probe on kvm_vcpu_kick (later __kvm_vcpu_kick), of kworkers


LOADED = 1
INIT = 2
"""Of a CLEAR; and of an ACC, which comes before its CLEAR."""
SIPI = 3
"""Of an ACC."""
CR0_WRITTEN = 1
"""Of an EXIT: a write of CR0 that leaves the guest."""


@dataclass(slots=True)
class Event:
    """One event.  ``vcpu`` is the index of the vCPU whose KVM_RUN thread emitted it, -1 for any other thread."""

    kind: Kind
    vcpu: int = -1
    t_ns: int = 0  # trace clock, nanoseconds
    token: int = 0
    gpa: int = 0  # the tracepoint's gva field: for TDP the faulting GPA, offset bits included
    value: int = 0
    data: int = 0
    hva: int = 0
    flag: bool = False
    worker: bool = False  # emitted by a kworker
    dev: int = 0  # major << 20 | minor
    tid: int = 0
    cpu: int = 0
    line: int = 0  # line number in trace/events.txt, 0 for simulated events
    text: str = ""  # the tracepoint's own text, for people
