# SPDX-License-Identifier: GPL-2.0-or-later
"""Fields of the trace that no rule of the protocol is about: what they say must fit what the guest did.

Guest RAM from the pool on is one memory slot, so one distance leads from a guest physical address to the VMM's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from harness.contract.plan import EN_RESERVED, PAGE_SIZE, POOL_GPA, Access, Op, further_areas, says
from harness.contract.probe_abi import Record
from harness.contract.words import EndStatus, HostWord
from harness.evidence.decode import Evidence
from harness.judge.match import View
from harness.judge.verdict_types import Finding, touch_words
from harness.model.events import MSR_ASYNC_PF_ACK, MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT, Event, Kind
from harness.model.kernels import KernelModel, Variant
from harness.model.simulation.situation import Prediction

PFERR_WRITE = 0x2
"""Bit 1 of kvm_page_fault's error code, of AMD's page faults and of Intel's EPT violations alike."""
FAULT_FLAG_WRITE, FAULT_FLAG_ALLOW_RETRY, FAULT_FLAG_RETRY_NOWAIT, FAULT_FLAG_INTERRUPTIBLE = 0x1, 0x4, 0x8, 0x200
FAULT_FLAG_KILLABLE, FAULT_FLAG_USER, FAULT_FLAG_REMOTE = 0x10, 0x40, 0x80
"""enum fault_flag, include/linux/mm_types.h (5.10: include/linux/mm.h), the same to 7.3."""
VM_FAULT_ERROR = 0x1 | 0x2 | 0x10 | 0x20 | 0x40
"""OOM, SIGBUS, HWPOISON, HWPOISON_LARGE, SIGSEGV: enum vm_fault_reason, include/linux/mm_types.h (5.10 to 7.3)."""


def field_findings(view: View, prediction: Prediction, kernel: KernelModel) -> Iterator[Finding]:
    """One finding for each event with a field that fits nothing."""
    yield from _addresses(view, kernel)
    yield from _results(view, prediction)
    yield from _writes(view)
    yield from _registers(view)


def _addresses(view: View, kernel: KernelModel) -> Iterator[Finding]:
    """A page's address in the VMM: what async_pf_execute read (kvm_vcpu_gfn_to_hva: its beginning), and what the
    touch's own thread faulted in first."""
    top = view.plan.guest.memory_mib << 20
    told = [(e, e.gpa) for e in view.events if e.kind is Kind.DONE and POOL_GPA <= e.gpa < top]
    for seen in view.alignment.items:
        for episode in seen.episodes:
            first = episode.first(Kind.MM_FAULT)
            if first is not None:
                told.append((first, episode.gpa))
    if not told:
        return
    ((base, _),) = Counter(_base(e, gpa) for e, gpa in told).most_common(1)
    for e, gpa in told:
        if _base(e, gpa) != base or (e.kind is Kind.DONE and e.hva % PAGE_SIZE):
            page = base + (gpa & -PAGE_SIZE)
            yield Finding("unexplained", f"{e.text}: the page of {gpa:#x} lies at {page:#x} in the VMM", line=e.line,
                          about="address")  # fmt: skip

    yield from _flags(view, base, kernel)


def _flags(view: View, base: int, kernel: KernelModel) -> Iterator[Finding]:
    """FAULT_FLAG_* of a touch's own faults, of what its thread asks for besides (a ready event's prefetch), and of what
    a kworker does for one of the pages.

    hva_to_pfn_slow asks to write where the guest does, and under nowait without waiting (FOLL_NOWAIT) before all else;
    where it waits then, a signal ends that from 6.2 on (FOLL_INTERRUPTIBLE; check_user_page_hwpoison asks without
    FAULT_FLAG_ALLOW_RETRY).  async_pf_execute (FOLL_WRITE, and it may sleep) always writes, and hands GUP its
    ``locked``, so that no fault waits for a read with the VMM's mmap_lock; the memory is another's (FOLL_REMOTE).  Who
    may let go of mmap_lock may be killed (faultin_page: FOLL_UNLOCKABLE).
    """
    asks_first = kernel.variant is Variant.NOWAIT
    for seen in view.alignment.items:
        for episode in seen.episodes:
            first = episode.first(Kind.MM_FAULT)
            for e in episode.of(Kind.MM_FAULT):
                again = asks_first and first is not None and e is not first and e.hva == first.hva
                waits = again and e.value & (FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_RETRY_NOWAIT) == FAULT_FLAG_ALLOW_RETRY
                if waits and e.value & FAULT_FLAG_INTERRUPTIBLE and not kernel.interruptible_gup:
                    how = "the vCPU thread may be ended by a signal"
                    yield Finding("unexplained", f"{e.text}: {how}", line=e.line, about="flags")
            if first is not None and bool(first.value & FAULT_FLAG_WRITE) != bool(episode.start.value & PFERR_WRITE):
                yield Finding("unexplained", f"{first.text}: the guest's access was the other", line=first.line,
                              about="flags")  # fmt: skip
            elif first is not None and asks_first and not first.value & FAULT_FLAG_RETRY_NOWAIT:
                yield Finding("unexplained", f"{first.text}: the vCPU thread waits before it has asked without waiting",
                              line=first.line, about="flags")  # fmt: skip
    low, high = base + POOL_GPA, base + (view.plan.guest.memory_mib << 20)
    for e in view.events:
        if e.kind is not Kind.MM_FAULT or e.value & FAULT_FLAG_USER or not low <= e.hva < high:
            continue
        if not e.worker and e.vcpu < 0:
            continue
        if e.value & (FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_KILLABLE) == FAULT_FLAG_ALLOW_RETRY:
            yield Finding("unexplained", f"{e.text}: not even a fatal signal ends it", line=e.line, about="flags")
        if bool(e.value & FAULT_FLAG_REMOTE) is not e.worker:
            whose = "the VMM's memory is another's for a kworker" if e.worker else "the thread's memory is its own"
            yield Finding("unexplained", f"{e.text}: {whose}", line=e.line, about="flags")
        if not e.worker:
            waits = e.value & (FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_RETRY_NOWAIT) == FAULT_FLAG_ALLOW_RETRY
            if waits and kernel.interruptible_gup and not e.value & FAULT_FLAG_INTERRUPTIBLE:
                how = "the vCPU thread waits where no signal can end it"
                yield Finding("unexplained", f"{e.text}: {how}", line=e.line, about="flags")
            continue
        if not e.value & FAULT_FLAG_ALLOW_RETRY:
            yield Finding(
                "unexplained", f"{e.text}: a kworker keeps mmap_lock while it waits", line=e.line, about="flags"
            )
        elif e.value & (FAULT_FLAG_WRITE | FAULT_FLAG_RETRY_NOWAIT) != FAULT_FLAG_WRITE:
            yield Finding("unexplained", f"{e.text}: a kworker faults for writing, and waits for the read", line=e.line,
                          about="flags")  # fmt: skip


def _base(e: Event, gpa: int) -> int:
    return (e.hva & -PAGE_SIZE) - (gpa & -PAGE_SIZE)


def _results(view: View, prediction: Prediction) -> Iterator[Finding]:
    """A kworker's handle_mm_fault gives an error only where the page cannot be had."""
    if view.plan.swap.error or prediction.may_fail:
        return
    for e in view.events:
        if e.kind is Kind.MM_FAULT_RET and e.worker and e.value & VM_FAULT_ERROR:
            yield Finding("unexplained", f"{e.text}: a kworker's fault ended in an error", line=e.line,
                          about="error")  # fmt: skip


def _writes(view: View) -> Iterator[Finding]:
    """A fault of a touch says read or write as the touch is; the walk of the guest's tables is of its own memory."""
    for item, seen in zip(view.plan.items, view.alignment.items, strict=True):
        for episode in seen.episodes:
            writes = bool(episode.start.value & PFERR_WRITE)
            if writes != (item.access is Access.WRITE):
                yield Finding(
                    "item",
                    f"item {item.index} ({touch_words(item)}): its fault says {'write' if writes else 'read'}",
                    item.index,
                    episode.start.line,
                    about="access",
                )


def _registers(view: View) -> Iterator[Finding]:
    """EN and INT read as they were written, and behind a reset or an INIT as 0; ACK as 0 (arch/x86/kvm/x86.c:
    kvm_get_msr_common, kvm_vcpu_reset).

    A write of EN that got a #GP for its reserved bits changed nothing; one for its address was stored before it.
    """
    written: dict[tuple[int, int], int] = {}
    for e in view.events:
        if e.kind is Kind.CLEAR and not e.flag:  # what a loadvm puts follows
            written[e.vcpu, MSR_ASYNC_PF_EN] = written[e.vcpu, MSR_ASYNC_PF_INT] = 0
        if e.value not in (MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT, MSR_ASYNC_PF_ACK):
            continue
        if e.flag:
            if e.kind is Kind.WRMSR and e.value == MSR_ASYNC_PF_EN and not e.data & EN_RESERVED:
                written.pop((e.vcpu, e.value), None)
        elif e.kind is Kind.WRMSR:
            written[e.vcpu, e.value] = 0 if e.value == MSR_ASYNC_PF_ACK else e.data
        elif e.kind is Kind.RDMSR and written.get((e.vcpu, e.value), e.data) != e.data:
            yield Finding(
                "value",
                f"vCPU {e.vcpu}: {e.text}: it is {written[e.vcpu, e.value]:#x}",
                line=e.line,
                about="msr",
            )


def token_findings(evidence: Evidence, prediction: Prediction) -> Iterator[Finding]:
    """The token word that is left in each shared area: KVM writes one with a ready interrupt only, and the guest's
    handler takes it (arch/x86/kvm/x86.c:kvm_arch_async_page_present, apf_put_user_ready).  Not of a guest that gave up
    or moves its area."""
    after, plan = evidence.after, evidence.plan
    if after is None or evidence.end.status is not EndStatus.DONE or evidence.lost or further_areas(plan):
        return
    for vcpu, token in enumerate(prediction.tokens_left):
        left = after.shared_token.get(vcpu, token)
        if left != token and token >= 0:
            yield Finding(
                "value",
                f"vCPU {vcpu}: the token word of its shared area is {left:#x} in the end, and was to be {token:#x}",
                about="token",
            )


def written_findings(evidence: Evidence) -> Iterator[Finding]:
    """What the guest's writes left in its pages, as QEMU has them: each writes its address and the run's nonce
    (guest-images/probe/sched.c:start_touch), so that a page has the same of all.  KVM may have mapped another page than
    QEMU's for a write (virt/kvm/kvm_main.c:hva_to_pfn), or lost the copy.  Not of a snapshot's older pages."""
    after, plan = evidence.after, evidence.plan
    if after is None or evidence.guest is None or says(plan, HostWord.LOADVM):
        return
    ended = {record.item for record in evidence.guest.all() if record.kind is Record.END}
    for item in plan.items:
        if item.op is not Op.TOUCH or item.access is not Access.WRITE or item.index not in ended:
            continue
        left, written = after.pages.get(item.gpa), item.gpa ^ plan.nonce
        if left is not None and left.word is not None and left.word != written:
            message = f"item {item.index} ({touch_words(item)}): the page has {left.word:#x}, and it wrote {written:#x}"
            yield Finding("value", message, item.index, about="written")


def read_findings(evidence: Evidence, prediction: Prediction) -> Iterator[Finding]:
    """What the guest has read, by its log alone, of pages that its program does not write: they hold the same in every
    order of events.  Where the trace is whole, match.py compares each value."""
    plan = evidence.plan
    written = {i.gpa >> 12 for i in plan.items if i.op is Op.TOUCH and i.access is Access.WRITE}
    expected = {
        item.index: predicted.value
        for item, predicted in zip(plan.items, prediction.items, strict=True)
        if item.op is Op.TOUCH and item.access is Access.READ and item.gpa >> 12 not in written
    }
    for record in evidence.guest.all() if evidence.guest is not None else ():
        value = expected.get(record.item) if record.kind is Record.END else None
        if value is not None and record.a != value:
            name = f"item {record.item} ({touch_words(plan.items[record.item])})"
            message = f"{name}: the guest read {record.a:#x}, the page holds {value:#x}"
            yield Finding("value", message, record.item, about="page")
