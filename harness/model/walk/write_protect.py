# SPDX-License-Identifier: GPL-2.0-or-later
"""Write to a page whose PTE is read-only (mm/memory.c:do_wp_page), and userfaultfd (fs/userfaultfd.c)."""

from __future__ import annotations

from harness.model.pages import Backing, Folio, HostPage, Pte
from harness.model.walk.flags import FaultFlag, VmFault, fault_flag_allow_retry_first
from harness.model.walk.page_waits import wait_until_unlocked
from harness.model.walk.steps import Context, Mark, Steps, WaitKind, kernel_function

SHARED = (Backing.SHMEM, Backing.FILE_SHARED)


@kernel_function("mm/memory.c")
def do_wp_page(ctx: Context, flags: FaultFlag) -> Steps[VmFault]:
    """Reuse or copy the page, so that it can be written."""
    assert FaultFlag.WRITE in flags
    page = ctx.page
    if page.vma.backing in SHARED:
        return (yield from wp_page_shared(ctx, flags))
    swap, folio = page.swap, page.folio
    alone = swap is None or (swap.count == 1 and not ctx.kernel.wp_counts_references)
    if folio is not None and not folio.ksm and alone and page.vma.backing is Backing.ANON:
        if ctx.kernel.wp_counts_references and ctx.env.in_batch is not None and ctx.env.in_batch(page):
            ctx.step("page_count(page) != 1", "copy", "a CPU's batch of pages for the LRU lists has a reference, too")
            return (yield from wp_page_copy(ctx))
        kept = folio.writeback or ctx.kernel.swap_pte_exclusive  # PageAnonExclusive: nobody asks for references
        ctx.change(pte=Pte.WRITABLE, swap=swap if kept else None)
        ctx.step("the only user of an anonymous folio", "reuse", "the PTE becomes writable")
        return VmFault.WRITE
    return (yield from wp_page_copy(ctx))


@kernel_function("mm/memory.c")
def wp_page_copy(ctx: Context) -> Steps[VmFault]:
    """Copy to a new anonymous page; the present PTE is replaced between the two calls of the mmu notifier."""
    yield from ()
    what = "zero page" if ctx.page.pte is Pte.ZERO else "page shared with others"
    if not ctx.charge():
        ctx.step(what, "VM_FAULT_OOM", "no page could be allocated or charged", Mark.REFUSED)
        return VmFault.OOM
    ctx.change(pte=Pte.WRITABLE, folio=Folio(), swap=None)
    ctx.invalidated = True
    ctx.step(what, "copied", "a private anonymous page of its own; mmu_notifier_invalidate_range: KVM zaps the SPTE")
    return VmFault.WRITE


@kernel_function("mm/memory.c")
def wp_page_shared(ctx: Context, flags: FaultFlag) -> Steps[VmFault]:
    """Shared mapping: the file system is asked (page_mkwrite, which may sleep whatever the flags say), no copy."""
    before = ctx.page.pte
    asked = ctx.page.vma.page_mkwrite and ctx.page.vma.backing is Backing.FILE_SHARED
    ctx.step("shared mapping", "page_mkwrite" if asked else "reuse", "the page is dirtied, not copied")
    if asked:
        yield from do_page_mkwrite(ctx)
    if ctx.page.pte is not before:
        ctx.step("finish_mkwrite_fault", "pte_same: no: VM_FAULT_NOPAGE", "another thread has mapped it meanwhile")
        return VmFault.NOPAGE
    ctx.change(pte=Pte.WRITABLE)
    return VmFault.WRITE | fault_dirty_shared_page(ctx, flags)


def fault_dirty_shared_page(ctx: Context, flags: FaultFlag) -> VmFault:
    """mm/memory.c: balance_dirty_pages_ratelimited without mmap_lock, if that may be dropped (from 6.0 on:
    VM_FAULT_COMPLETED)."""
    if not ctx.kernel.dirtying_retries or FaultFlag.RETRY_NOWAIT in flags or not fault_flag_allow_retry_first(flags):
        return VmFault(0)
    ctx.step("maybe_unlock_mmap_for_io", "VM_FAULT_RETRY", "the page is mapped; mmap_lock was dropped")
    return VmFault.RETRY


@kernel_function("mm/memory.c")
def do_page_mkwrite(ctx: Context) -> Steps[None]:
    """vma->vm_ops->page_mkwrite locks the page (fs/buffer.c:block_page_mkwrite), and waits for whoever has it."""
    yield from ctx.ask_late()
    ctx.meet_holder()
    if not ctx.page.locked:
        ctx.step("lock_page", "locked", "nobody held it")
    else:
        ctx.step("lock_page", "sleep", "another thread holds the lock; mmap_lock is held meanwhile")
        yield from wait_until_unlocked(ctx, mmap_lock_held=True)


@kernel_function("fs/userfaultfd.c")
def handle_userfault(ctx: Context, flags: FaultFlag) -> Steps[VmFault]:
    """A missing page in a registered range."""
    if FaultFlag.ALLOW_RETRY not in flags:
        ctx.step("FAULT_FLAG_ALLOW_RETRY", "no: VM_FAULT_SIGBUS", "mmap_lock cannot be dropped",
                 Mark.REFUSED)  # fmt: skip
        return VmFault.SIGBUS
    if FaultFlag.RETRY_NOWAIT in flags:
        ctx.step("FAULT_FLAG_RETRY_NOWAIT", "VM_FAULT_RETRY", "the caller does not want to wait", Mark.REFUSED)
        return VmFault.RETRY
    state = "S" if FaultFlag.INTERRUPTIBLE in flags else "D"
    ctx.step("wait for UFFDIO_COPY", "sleep", "mmap_lock is dropped; then VM_FAULT_RETRY")
    before = ctx.page
    while userfault_missing(ctx.page) and ctx.page == before:
        yield ctx.sleep(WaitKind.USERFAULT, mmap_lock_held=False, state=state)
        if state == "S" and userfault_missing(ctx.page) and ctx.told():
            ctx.step("signal_pending", "VM_FAULT_RETRY", "the page is still missing")
            break
    return VmFault.RETRY


def userfault_missing(page: HostPage) -> bool:
    """userfaultfd_missing(vma), of a page that is not there."""
    return page.vma.userfaultfd and page.pte is Pte.NONE and page.folio is None and page.swap is None
