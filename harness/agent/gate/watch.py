# SPDX-License-Identifier: GPL-2.0-or-later
"""What the server reads in the trace: which events, and each line as a value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

WATCHED_KVM = (
    "kvm_page_fault", "kvm_async_pf_not_present", "kvm_async_pf_ready", "kvm_async_pf_repeated_fault",
    "kvm_async_pf_doublefault", "kvm_async_pf_completed", "kvm_msr", "kvm_apic_accept_irq", "kvm_exit",
)  # fmt: skip
_EN, _ENABLED = 0x4B564D02, 9
"""arch/x86/include/uapi/asm/kvm_para.h: MSR_KVM_ASYNC_PF_EN; what arch/x86/kvm/x86.c:kvm_pv_async_pf_enabled asks of
it, KVM_ASYNC_PF_ENABLED and KVM_ASYNC_PF_DELIVERY_AS_INT."""
WORKER_FAULT = "apf/mm_fault"
_SCHED = ("sched/sched_switch", "sched/sched_wakeup")
WATCHED = (*(f"kvm/{e}" for e in WATCHED_KVM), *_SCHED, "block/block_bio_queue", WORKER_FAULT)


def filters(tids: Sequence[int], device: str | None) -> dict[str, str]:
    """Filter of each event: vCPU threads, kworkers that fall asleep or fault, reads of ``device`` ("major,minor").

    A vCPU thread that is preempted concerns nobody here: vCPUs that spin, more of them than there are processors, would
    have this process read of nothing else, and it would never come to what the reads wait for.
    """
    major, minor = device.split(",") if device else ("0", "0")
    vcpus = " || ".join(f"common_pid == {t}" for t in tids)
    leaves = " || ".join(f"prev_pid == {t}" for t in tids)
    return {
        **{f"kvm/{e}": vcpus for e in WATCHED_KVM if e != "kvm_async_pf_completed"},
        "kvm/kvm_msr": f"ecx == {_EN} && write == 1 && ({vcpus})",
        "kvm/kvm_apic_accept_irq": f"dm == {_INIT} && ({vcpus})",
        "kvm/kvm_exit": f"({_WRITES_CR0}) && ({vcpus})",
        "block/block_bio_queue": f"dev == {int(major) << 20 | int(minor)}",
        "sched/sched_switch": f"(({leaves}) && prev_state & {_INTERRUPTIBLE | _UNINTERRUPTIBLE})"
        f' || (prev_comm ~ "kworker*" && prev_state & {_UNINTERRUPTIBLE})',
        "sched/sched_wakeup": " || ".join(f"pid == {t}" for t in tids),
        WORKER_FAULT: f'comm ~ "kworker*" || (!(flags & {_TRIED}) && ({vcpus}))',
    }


_INIT = 0x500
"""arch/x86/include/asm/apicdef.h:APIC_DM_INIT, as kvm_apic_accept_irq has it"""
_WRITES_CR0 = "(isa == 2 && (exit_reason == 0x65 || exit_reason == 0x10)) || (isa == 1 && exit_reason == 28)"
"""arch/x86/include/uapi/asm/svm.h:SVM_EXIT_CR0_SEL_WRITE, SVM_EXIT_WRITE_CR0, vmx.h:EXIT_REASON_CR_ACCESS; ``isa`` is
arch/x86/kvm/trace.h's KVM_ISA_SVM and KVM_ISA_VMX.  VMX tells of all control registers alike."""
_TRIED = 0x20
"""include/linux/mm_types.h:FAULT_FLAG_TRIED: the thread asks for the same page again, with a signal pending as often as
it can (fs/userfaultfd.c:handle_userfault)"""
_INTERRUPTIBLE, _UNINTERRUPTIBLE = 1, 2
"""include/linux/sched.h:TASK_INTERRUPTIBLE, TASK_UNINTERRUPTIBLE, as sched_switch has them"""


class What(Enum):
    FAULT = auto()  # kvm_page_fault on ``page``
    ANNOUNCED = auto()  # kvm_async_pf_not_present
    READY = auto()  # kvm_async_pf_ready, not of a wake-all
    REPEATED = auto()  # kvm_async_pf_repeated_fault
    COMPLETED = auto()  # kvm_async_pf_completed: the worker is through with one work
    ENABLED = auto()  # kvm_msr: EN was written, and async page faults are on
    DISABLED = auto()  # ... are off
    CR0 = auto()  # kvm_exit: the guest writes CR0
    INIT = auto()  # kvm_apic_accept_irq: the LAPIC ``apic`` was sent an INIT
    WORK = auto()  # handle_mm_fault in a kworker or a vCPU thread, at ``address`` of QEMU
    READ = auto()  # block_bio_queue of a read at ``sector``
    OUT = auto()  # the thread left its CPU in TASK_UNINTERRUPTIBLE
    DOZE = auto()  # in TASK_INTERRUPTIBLE
    WOKEN = auto()  # sched_wakeup: the thread is runnable again.  It is traced behind the switch by which it slept, for
    # try_to_wake_up waits until the thread has left its CPU (kernel/sched/core.c); sched_waking is not


@dataclass(frozen=True, slots=True)
class Sight:
    """One trace line.  ``tid``: the thread that it is about; ``at``: seconds, CLOCK_MONOTONIC; ``page``: a guest frame
    number; ``sector``: of 512 bytes, on the device; ``worker``: the thread is a kworker; ``apic``: an APIC id."""

    what: What
    tid: int
    at: float
    page: int = 0
    sector: int = 0
    address: int = 0
    worker: bool = False
    apic: int = 0


_LINE = re.compile(r"^\s*(.*)-(\d+)\s+(?:\(\s*[-\d]+\)\s+)?\[\d+\]\s+\S+\s+(\d+\.\d+): (\w+): ?(.*)$")
_ADDRESS = re.compile(r"address (?:0x)?([0-9a-f]+)")
_TOKEN = re.compile(r"token 0x([0-9a-f]+) gva (?:0x)?([0-9a-f]+)")
_BIO = re.compile(r"\d+,\d+ (\w+) (\d+) \+ \d+")
_MSR_WRITE = re.compile(r"msr_write ([0-9a-f]+) = 0x([0-9a-f]+)")
_CR0_WRITE = re.compile(r"reason (?:cr0_sel_write|write_cr0|CR_ACCESS .*info1 0x[0-9a-f]*0) ")
_ACCEPTS_INIT = re.compile(r"apicid ([0-9a-f]+) vec \d+ \(INIT\|")
_MM_FAULT = re.compile(r"addr=0x([0-9a-f]+)")
_SWITCH = re.compile(r"prev_pid=(\d+) .*prev_state=(\S+) ==> ")
_ASLEEP = {"D": What.OUT, "S": What.DOZE}
_WAKEUP = re.compile(r" pid=(\d+) prio=")
_WAKE_ALL = 0xFFFFFFFF


def read_line(line: str) -> list[Sight]:
    """What a line of trace_pipe says: nothing for comments and for what does not concern the gate."""
    match = _LINE.search(line)
    if match is None:
        return []
    comm, tid, at, event, text = match[1], int(match[2]), float(match[3]), match[4], match[5]
    match event:
        case "kvm_page_fault":
            address = _ADDRESS.search(text)
            return [Sight(What.FAULT, tid, at, page=int(address[1], 16) >> 12)] if address else []
        case "kvm_async_pf_not_present" | "kvm_async_pf_ready":
            found = _TOKEN.search(text)
            if found is None or int(found[1], 16) == _WAKE_ALL:
                return []
            what = What.ANNOUNCED if event == "kvm_async_pf_not_present" else What.READY
            return [Sight(what, tid, at, page=int(found[2], 16) >> 12)]
        case "kvm_async_pf_repeated_fault" | "kvm_async_pf_doublefault":
            return [Sight(What.REPEATED, tid, at)]
        case "kvm_async_pf_completed":
            return [Sight(What.COMPLETED, tid, at)]
        case "kvm_msr":
            write = _MSR_WRITE.search(text)
            if write is None or int(write[1], 16) != _EN or "#GP" in text:
                return []
            return [Sight(What.ENABLED if int(write[2], 16) & _ENABLED == _ENABLED else What.DISABLED, tid, at)]
        case "kvm_exit":
            return [Sight(What.CR0, tid, at)] if _CR0_WRITE.search(text) else []
        case "kvm_apic_accept_irq":
            init = _ACCEPTS_INIT.search(text)
            return [Sight(What.INIT, tid, at, apic=int(init[1], 16))] if init else []
        case "mm_fault":
            fault = _MM_FAULT.search(text)
            return [Sight(What.WORK, tid, at, address=int(fault[1], 16))] if fault else []
        case "block_bio_queue":
            bio = _BIO.search(text)
            if bio is None or "R" not in bio[1]:
                return []
            return [Sight(What.READ, tid, at, sector=int(bio[2]), worker=comm.startswith("kworker"))]
        case "sched_switch":
            found = _SWITCH.search(text)
            asleep = _ASLEEP.get(found[2][:1]) if found else None
            return [Sight(asleep, int(found[1]), at)] if found and asleep else []
        case "sched_wakeup":
            found = _WAKEUP.search(text)
            return [Sight(What.WOKEN, int(found[1]), at)] if found else []
        case _:
            return []
