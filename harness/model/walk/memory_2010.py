# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory management of 2.6.3x with v6 01/12: handle_mm_fault and its handlers (mm/memory.c, mm/filemap.c, mm/shmem.c).

No retry, no interruptible waits: every lock_page sleeps uninterruptibly with mmap_sem held for read.
KVM's GUP is always for writing here, so a handler that is reached has FAULT_FLAG_WRITE.
"""

from __future__ import annotations

from dataclasses import replace

from harness.model import readahead as ra
from harness.model.pages import Backing, Folio, Pte, SwapSlot, read_completed, read_submitted
from harness.model.walk.flags import VM_FAULT_ERROR_2010, FaultFlag2010, VmFault2010, show
from harness.model.walk.page_waits import wait_until_migrated, wait_until_unlocked
from harness.model.walk.steps import Context, Mark, Read, Steps, kernel_function

REFUSED = VmFault2010.MAJOR | VM_FAULT_ERROR_2010
"""VM_FAULT_MAJOR | VM_FAULT_ERROR, where VM_FAULT_ERROR is the mask OOM | SIGBUS | HWPOISON."""


@kernel_function("mm/memory.c")
def handle_mm_fault(ctx: Context, flags: FaultFlag2010) -> Steps[VmFault2010]:
    """Choose the handler by the page table entry (handle_pte_fault)."""
    ctx.attempts += 1
    ctx.count(pgfault=1)
    page = ctx.page
    if page.pte is Pte.NONE:
        name = "do_anonymous_page" if page.vma.backing is Backing.ANON else "do_linear_fault"
    elif page.pte in (Pte.SWAP, Pte.MIGRATION, Pte.HWPOISON):
        name = "do_swap_page"
    else:
        name = "do_wp_page"
    ctx.step(f"{show('FAULT_FLAG_', flags)}, PTE {page.pte}", name, "handle_pte_fault")
    handler = {"do_anonymous_page": do_anonymous_page, "do_linear_fault": do_linear_fault,
               "do_swap_page": do_swap_page, "do_wp_page": do_wp_page}[name]  # fmt: skip
    ret = yield from handler(ctx, flags)
    ctx.step("result", show("VM_FAULT_", ret), "to __get_user_pages")
    return ret


@kernel_function("mm/memory.c")
def do_anonymous_page(ctx: Context, flags: FaultFlag2010) -> Steps[VmFault2010]:
    """Always a write: a new page."""
    yield from ()
    if ctx.page.charge_fails:
        ctx.step("alloc_zeroed_user_highpage, charge", "VM_FAULT_OOM", "no memory", Mark.REFUSED)
        return VmFault2010.OOM
    ctx.change(pte=Pte.WRITABLE, folio=Folio())
    ctx.step("FAULT_FLAG_WRITE", "a new page, not pte_mkspecial of my_zero_pfn",
             "allocated and cleared: minor, allowed with FAULT_FLAG_MINOR", holds=True)  # fmt: skip
    return VmFault2010(0)


@kernel_function("mm/memory.c")
def do_wp_page(ctx: Context, flags: FaultFlag2010) -> Steps[VmFault2010]:
    """Reuse an unshared page, ask the file system of a shared one, copy the rest."""
    page = ctx.page
    if page.vma.backing in (Backing.SHMEM, Backing.FILE_SHARED):
        ctx.change(pte=Pte.WRITABLE)
        ctx.step("VM_SHARED", "page_mkwrite, reuse", "the page is dirtied", holds=True)
        return VmFault2010.WRITE
    alone = page.folio is not None and not page.folio.ksm and (page.swap is None or page.swap.count == 1)
    if alone and page.vma.backing is Backing.ANON:
        yield from wait_until_unlocked(ctx, mmap_lock_held=True)
        ctx.change(pte=Pte.WRITABLE, swap=None)
        ctx.step("reuse_swap_page", "the only user", "reused")
        return VmFault2010.WRITE
    if page.charge_fails:
        ctx.step("alloc, charge", "VM_FAULT_OOM", "no memory for the copy", Mark.REFUSED)
        return VmFault2010.OOM
    ctx.change(pte=Pte.WRITABLE, folio=Folio(), swap=None)
    ctx.invalidated = True
    ctx.step("cow", "copied", "a private page of its own; ptep_clear_flush_notify: KVM zaps the SPTE")
    return VmFault2010.WRITE


@kernel_function("mm/memory.c")
def do_swap_page(ctx: Context, flags: FaultFlag2010) -> Steps[VmFault2010]:
    """v6 01/12 refuses a major fault between lookup_swap_cache and swapin_readahead."""
    if ctx.page.pte is Pte.MIGRATION:
        ctx.step("is_migration_entry", "migration_entry_wait", "sleeps, the flags are not consulted")
        yield from wait_until_migrated(ctx)
        return VmFault2010(0)
    if ctx.page.pte is Pte.HWPOISON:
        ctx.step("is_hwpoison_entry", "VM_FAULT_HWPOISON", "poisoned", Mark.REFUSED)
        return VmFault2010.HWPOISON
    ret = VmFault2010(0)
    ctx.step("delayacct_set_flag", "DELAYACCT_PF_SWAPIN", "what V waits for from here on counts as swap-in delay")
    if (yield from lookup_swap_cache(ctx)):
        ctx.step("lookup_swap_cache", "hit", "not major: also allowed with FAULT_FLAG_MINOR")
    else:
        if FaultFlag2010.MINOR in flags:
            ctx.step("!page && FAULT_FLAG_MINOR", "VM_FAULT_MAJOR|VM_FAULT_ERROR",
                     "before grab_swap_token, the read and PGMAJFAULT", Mark.REFUSED, holds=True)  # fmt: skip
            return REFUSED
        if ctx.page.charge_fails:
            ctx.step("swapin_readahead", "NULL: VM_FAULT_OOM", "no memory", Mark.REFUSED)
            return VmFault2010.OOM
        ret = VmFault2010.MAJOR
        ctx.step("grab_swap_token", "contend for the token", "before the read, after the series' refusal")
        yield from swapin_readahead(ctx)
        ctx.count(pgmaj=1)
        ctx.step("had to read the page", "VM_FAULT_MAJOR, PGMAJFAULT+1", "counted in this thread")
    ctx.step("lock_page", "waits" if ctx.page.locked else "at once", "unconditional, uninterruptible, mmap_sem held")
    yield from wait_until_unlocked(ctx, mmap_lock_held=True)
    if ctx.page.pte is not Pte.SWAP or ctx.page.folio is None:
        ctx.step("pte_same", "no", "somebody else has handled the fault")
        return ret
    if not ctx.page.folio.uptodate:
        ctx.step("PageUptodate", "no: VM_FAULT_SIGBUS", "the read failed", Mark.REFUSED)
        return ret | VmFault2010.SIGBUS
    swap = ctx.page.swap
    assert swap is not None
    ctx.change(pte=Pte.READ_ONLY, folio=Folio(writeback=ctx.page.folio.writeback, ksm=swap.ksm))
    if swap.count == 1 and not swap.ksm:
        ctx.change(pte=Pte.WRITABLE, swap=None)
        ctx.step("reuse_swap_page", "the only user", "mapped writable, the slot is freed")
        return ret
    return ret | (yield from do_wp_page(ctx, flags))


@kernel_function("mm/swap_state.c")
def lookup_swap_cache(ctx: Context) -> Steps[bool]:
    """No read-ahead statistics in this era."""
    yield from ()
    found = ctx.page.in_swap_cache
    ctx.step("swap cache", "hit" if found else "miss", "no read-ahead statistics in this era")
    return found


@kernel_function("mm/swap_state.c")
def swapin_readahead(ctx: Context) -> Steps[None]:
    """A fixed window of 2^page_cluster slots; the device decides whether the read has ended on return."""
    yield from ()
    swap = ctx.page.swap
    assert isinstance(swap, SwapSlot)
    window = ra.fixed_window(swap.offset, ctx.env.page_cluster, ctx.env.neighbours)
    ctx.page = read_submitted(ctx.page)
    ctx.own_read = True
    ctx.count(pswpin=len(window.pages))
    done = swap.synchronous or swap.fast
    ctx.read(Read(ctx.thread, "slot", window.target, window.pages, synchronous=done))
    if done:
        ctx.page = read_completed(ctx.page)
    ctx.step("valid_swaphandles", f"{len(window.pages)} slot(s)", "read_swap_cache_async for each")


@kernel_function("mm/memory.c")
def do_linear_fault(ctx: Context, flags: FaultFlag2010) -> Steps[VmFault2010]:
    """__do_fault: vma->vm_ops->fault, then copy (private) or page_mkwrite (shared)."""
    vma = ctx.page.vma
    shmem = vma.backing is Backing.SHMEM
    ret = yield from (shmem_getpage(ctx, flags) if shmem else filemap_fault(ctx, flags))
    if ret & (VM_FAULT_ERROR_2010 | VmFault2010.NOPAGE):
        return ret
    if ctx.page.folio is not None and ctx.page.folio.hwpoison:
        ctx.step("PageHWPoison", "VM_FAULT_HWPOISON", "poisoned page of the cache", Mark.REFUSED)
        return VmFault2010.HWPOISON
    if ctx.page.pte is not Pte.NONE:
        ctx.step("pte_same", "no", "somebody else has handled the fault")
        return ret
    if vma.backing is Backing.FILE_PRIVATE:
        if ctx.page.charge_fails:
            ctx.step("alloc the copy", "VM_FAULT_OOM", "no memory", Mark.REFUSED)
            return VmFault2010.OOM
        ctx.change(pte=Pte.WRITABLE, folio=Folio())
        ctx.step("FAULT_FLAG_WRITE, private", "copied", "although the guest may only have read")
        return ret
    ctx.change(pte=Pte.WRITABLE)
    ctx.step("FAULT_FLAG_WRITE, shared", "page_mkwrite" if vma.page_mkwrite else "mapped", "mapped writable")
    return ret


@kernel_function("mm/filemap.c")
def filemap_fault(ctx: Context, flags: FaultFlag2010) -> Steps[VmFault2010]:
    """v6 01/12 refuses on a page-cache miss; a page that is not uptodate is read whatever the flags say."""
    if ctx.page.beyond_eof:
        ctx.step("offset >= size", "VM_FAULT_SIGBUS", "the file was truncated", Mark.REFUSED, holds=True)
        return VmFault2010.SIGBUS
    ret = VmFault2010(0)
    if ctx.page.folio is not None:
        ctx.step("find_get_page", "hit", "not major: also allowed with FAULT_FLAG_MINOR")
        yield from do_async_mmap_readahead(ctx)
    else:
        if FaultFlag2010.MINOR in flags:
            ctx.step("miss && FAULT_FLAG_MINOR", "VM_FAULT_MAJOR|VM_FAULT_ERROR", "before read-ahead and PGMAJFAULT",
                     Mark.REFUSED, holds=True)  # fmt: skip
            return REFUSED
        ret = VmFault2010.MAJOR
        ctx.count(pgmaj=1)
        ctx.step("find_get_page", "miss: VM_FAULT_MAJOR, PGMAJFAULT+1", "do_sync_mmap_readahead")
        if ctx.page.charge_fails:
            ctx.step("page_cache_read", "-ENOMEM: VM_FAULT_OOM", "no memory", Mark.REFUSED)
            return VmFault2010.OOM
        yield from do_sync_mmap_readahead(ctx)
    yield from wait_until_unlocked(ctx, mmap_lock_held=True)
    if ctx.page.folio is not None and not ctx.page.folio.uptodate:
        index = ctx.page.index
        ctx.page = read_submitted(ctx.page)
        ctx.own_read = True
        ctx.read(Read(ctx.thread, "index", index, (index,)))
        ctx.step("page_not_uptodate", "readpage, wait_on_page_locked", "FAULT_FLAG_MINOR is not consulted")
        yield from wait_until_unlocked(ctx, mmap_lock_held=True)
        if ctx.page.folio is not None and not ctx.page.folio.uptodate:
            ctx.step("PageUptodate", "no: VM_FAULT_SIGBUS", "the read failed", Mark.REFUSED)
            return VmFault2010.SIGBUS
    ctx.step("page uptodate", "VM_FAULT_LOCKED", "to be mapped")
    return ret | VmFault2010.LOCKED


@kernel_function("mm/filemap.c")
def do_sync_mmap_readahead(ctx: Context) -> Steps[None]:
    """Read around the miss; without read-ahead page_cache_read reads the one page."""
    yield from ()
    vma, env, index = ctx.page.vma, ctx.env, ctx.page.index
    window, ctx.readahead = ra.file_window(
        ctx.readahead, index, env.neighbours, ra_pages=env.ra_pages, rand_read=vma.rand_read, seq_read=vma.seq_read
    )
    if not window.size:
        window = ra.Window(1, (index,), index)
        ctx.step("find_get_page, again", "no_cached_page", "no read-ahead was done: page_cache_read reads the one page")
    ctx.page = read_submitted(ctx.page)
    ctx.own_read = True
    ctx.read_file(window)
    ctx.step("read-around", f"{len(window.pages)} page(s) in flight", "in this thread")


@kernel_function("mm/filemap.c")
def do_async_mmap_readahead(ctx: Context) -> Steps[None]:
    """On PG_readahead the next window is submitted, in V too, even with FAULT_FLAG_MINOR."""
    yield from ()
    folio, env = ctx.page.folio, ctx.env
    assert folio is not None
    if ctx.page.vma.rand_read or not env.ra_pages:
        ctx.step("VM_RandomReadHint or ra_pages == 0", "nothing", "read-ahead is off", holds=True)
        return
    ctx.readahead = ra.file_hit(ctx.readahead, tried=False)
    if not folio.readahead:
        ctx.step("PageReadahead", "no", "mmap_miss-1")
        return
    ctx.change(folio=replace(folio, readahead=False))
    window, ctx.readahead = ra.file_marker_hit(ctx.readahead, ctx.page.index, env.neighbours, ra_pages=env.ra_pages)
    if window.pages:
        ctx.read_file(window)
    ctx.step("PageReadahead", f"{len(window.pages)} page(s) in flight", "submitted here, not waited for")


@kernel_function("mm/shmem.c")
def shmem_getpage(ctx: Context, flags: FaultFlag2010) -> Steps[VmFault2010]:
    """The series' fifth file: vmf->flags arrive through ``type``; a swap-cache miss is refused."""
    if ctx.page.beyond_eof:
        ctx.step("idx beyond i_size", "VM_FAULT_SIGBUS", "the file was truncated", Mark.REFUSED)
        return VmFault2010.SIGBUS
    ret = VmFault2010(0)
    if ctx.page.swapped_out:
        if FaultFlag2010.MINOR in flags:
            ctx.step("swap entry, not cached, FAULT_FLAG_MINOR", "VM_FAULT_MAJOR|VM_FAULT_ERROR", "goto failed",
                     Mark.REFUSED)  # fmt: skip
            return REFUSED
        if ctx.page.charge_fails:
            ctx.step("shmem_swapin", "-ENOMEM: VM_FAULT_OOM", "no memory", Mark.REFUSED)
            return VmFault2010.OOM
        ret = VmFault2010.MAJOR
        ctx.count(pgmaj=1)
        yield from swapin_readahead(ctx)
        ctx.step("swap entry, not cached", "VM_FAULT_MAJOR", "shmem_swapin")
    if ctx.page.folio is not None:
        ctx.step("page", "locked" if ctx.page.locked else "unlocked", "wait_on_page_locked, blocking")
        yield from wait_until_unlocked(ctx, mmap_lock_held=True)
        if not ctx.page.folio.uptodate:
            ctx.step("PageUptodate", "no: -EIO", "VM_FAULT_SIGBUS", Mark.REFUSED)
            return VmFault2010.SIGBUS
        ctx.change(swap=None)
        return ret | VmFault2010.LOCKED
    if ctx.page.charge_fails:
        ctx.step("hole", "VM_FAULT_OOM", "no memory", Mark.REFUSED)
        return VmFault2010.OOM
    ctx.change(folio=Folio())
    ctx.step("hole", "a new page", "allocated: minor")
    return VmFault2010.LOCKED


@kernel_function("mm/hugetlb.c")
def hugetlb_no_page(ctx: Context) -> Steps[VmFault2010]:
    """follow_hugetlb_page faults itself; FOLL_MINOR is not translated there."""
    yield from ()
    ctx.attempts += 1
    if ctx.page.charge_fails:
        ctx.step("alloc_huge_page", "VM_FAULT_SIGBUS", "the pool is empty", Mark.REFUSED)
        return VmFault2010.SIGBUS
    ctx.change(pte=Pte.WRITABLE, folio=Folio(huge=True))
    ctx.step("follow_hugetlb_page", "a huge page of the pool", "minor")
    return VmFault2010(0)
