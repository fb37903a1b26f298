# SPDX-License-Identifier: GPL-2.0-or-later
"""handle_mm_fault of 5.10, 6.1 and 6.12, down to the handlers by kind of page (mm/memory.c, mm/hugetlb.c)."""

from __future__ import annotations

from harness.model.pages import PRESENT, Backing, Folio, Pte
from harness.model.walk.filemap import do_fault
from harness.model.walk.flags import VM_FAULT_ERROR, FaultFlag, VmFault, show
from harness.model.walk.steps import Context, Mark, Steps, WaitKind, kernel_function
from harness.model.walk.swap_in import do_swap_page
from harness.model.walk.write_protect import do_wp_page, handle_userfault, userfault_missing


@kernel_function("mm/memory.c")
def handle_mm_fault(ctx: Context, flags: FaultFlag) -> Steps[VmFault]:
    """Handle one fault of the VMM's address space and account for it."""
    ctx.attempts += 1
    yield from ctx.pace(WaitKind.CALL)
    ctx.step("flags", show("FAULT_FLAG_", flags), "handle the fault")
    if ctx.kernel.pgfault_counts_retry:
        ctx.count(pgfault=1)
    if ctx.page.vma.backing is Backing.HUGETLB:
        ret = yield from hugetlb_fault(ctx, flags)
    else:
        ret = yield from handle_pte_fault(ctx, flags)
    yield from mm_account_fault(ctx, flags, ret)
    ctx.step("result", show("VM_FAULT_", ret), "to the caller")
    if ctx.env.came_back is not None:
        ctx.env.came_back(ctx.page, ret)
    return ret


@kernel_function("mm/memory.c")
def mm_account_fault(ctx: Context, flags: FaultFlag, ret: VmFault) -> Steps[None]:
    """maj or min of the current thread; neither for RETRY and errors."""
    yield from ()
    if not ctx.kernel.pgfault_counts_retry and not ret & VmFault.RETRY:
        ctx.count(pgfault=1)
    ctx.major = ctx.major or VmFault.MAJOR in ret
    if ret & (VM_FAULT_ERROR | VmFault.RETRY):
        ctx.step("VM_FAULT_ERROR or VM_FAULT_RETRY", "not counted", "the fault is not complete", holds=True)
        return
    major = bool(ret & VmFault.MAJOR) or FaultFlag.TRIED in flags
    ctx.count(maj=int(major), min=int(not major))
    ctx.step("VM_FAULT_MAJOR or FAULT_FLAG_TRIED", "maj+1" if major else "min+1", "of the current thread", holds=major)


@kernel_function("mm/memory.c")
def handle_pte_fault(ctx: Context, flags: FaultFlag) -> Steps[VmFault]:
    """Choose the handler by the page table entry."""
    page = ctx.page
    if page.pte is Pte.NONE:
        if page.vma.backing is Backing.ANON:
            ctx.step("pte_none, vma_is_anonymous", "do_anonymous_page", "nothing was ever here", holds=True)
            return (yield from do_anonymous_page(ctx, flags))
        ctx.step("pte_none", "do_fault", "the VMA has a fault handler", holds=True)
        return (yield from do_fault(ctx, flags))
    if page.pte not in PRESENT:
        ctx.step("pte_present", "no", f"{page.pte} entry: do_swap_page")
        return (yield from do_swap_page(ctx, flags))
    if FaultFlag.WRITE in flags and page.pte is not Pte.WRITABLE:
        ctx.step("write, but not pte_write", "do_wp_page", "present but read-only", holds=True)
        return (yield from do_wp_page(ctx, flags))
    ctx.step("PTE", "already as wanted", "somebody else was faster")
    return VmFault(0)


@kernel_function("mm/memory.c")
def do_anonymous_page(ctx: Context, flags: FaultFlag) -> Steps[VmFault]:
    """First touch of anonymous memory: the zero page for a read, a new page for a write."""
    if FaultFlag.WRITE not in flags:
        if userfault_missing(ctx.page):
            return (yield from handle_userfault(ctx, flags))
        ctx.change(pte=Pte.ZERO)
        ctx.step("FAULT_FLAG_WRITE", "no: my_zero_pfn", "a read is given the zero page, read-only")
        return VmFault(0)
    if not ctx.charge():
        ctx.step("alloc and charge", "VM_FAULT_OOM", "no page could be allocated or charged", Mark.REFUSED)
        return VmFault.OOM
    if userfault_missing(ctx.page):
        return (yield from handle_userfault(ctx, flags))
    ctx.change(pte=Pte.WRITABLE, folio=Folio())
    ctx.step("FAULT_FLAG_WRITE", "a new page", "allocated and cleared: minor", holds=True)
    return VmFault(0)


@kernel_function("mm/hugetlb.c")
def hugetlb_fault(ctx: Context, flags: FaultFlag) -> Steps[VmFault]:
    """hugetlb: allocates from the pool; no swap, so never major."""
    if userfault_missing(ctx.page):
        return (yield from handle_userfault(ctx, flags))
    if ctx.page.charge_fails:  # the pool, which memory.max does not limit
        ctx.step("alloc_hugetlb_folio", "VM_FAULT_SIGBUS", "the pool is empty", Mark.REFUSED)
        return VmFault.SIGBUS
    ctx.change(pte=Pte.WRITABLE, folio=Folio(huge=True))
    ctx.step("pte_none", "a huge page of the pool", "minor")
    return VmFault(0)
