# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of file and shmem mappings from 5.10 on (mm/memory.c:do_fault, mm/filemap.c, mm/shmem.c)."""

from __future__ import annotations

from dataclasses import replace

from harness.model import readahead as ra
from harness.model.pages import (
    Backing,
    Folio,
    HostPage,
    Lock,
    Pte,
    Vma,
    next_uptodate_folio,
    read_completed,
    read_submitted,
    zero_filled,
)
from harness.model.walk.flags import VM_FAULT_ERROR, FaultFlag, VmFault, fault_flag_allow_retry_first
from harness.model.walk.page_waits import wait_until_unlocked
from harness.model.walk.steps import Context, Mark, Read, Steps, WaitKind, WalkWait, kernel_function
from harness.model.walk.swap_in import REFUSED, slot, swap_cache_get_folio, swap_cluster_readahead, swap_readpage
from harness.model.walk.write_protect import (
    do_page_mkwrite,
    fault_dirty_shared_page,
    handle_userfault,
    userfault_missing,
)

DONE = VM_FAULT_ERROR | VmFault.NOPAGE | VmFault.RETRY


@kernel_function("mm/memory.c")
def do_fault(ctx: Context, flags: FaultFlag) -> Steps[VmFault]:
    """Read, private write or shared write."""
    if ctx.page.vma.backing is Backing.PFNMAP:
        ctx.change(pte=Pte.WRITABLE if ctx.page.vma.writable else Pte.READ_ONLY)
        ctx.step("the driver's fault handler", "inserts the PFN", "may sleep; the flags do not reach it here")
        return VmFault.NOPAGE
    if FaultFlag.WRITE not in flags:
        return (yield from do_read_fault(ctx, flags))
    if ctx.page.vma.backing is Backing.FILE_PRIVATE:
        return (yield from do_cow_fault(ctx, flags))
    return (yield from do_shared_fault(ctx, flags))


@kernel_function("mm/memory.c")
def do_read_fault(ctx: Context, flags: FaultFlag) -> Steps[VmFault]:
    """Map what the cache has around the address; else ask the VMA's fault handler."""
    around = ctx.env.fault_around and not ctx.page.vma.userfaultfd
    ctx.step("should_fault_around", "yes" if around else "no", "what is cached is mapped" if around else "fault")
    if around:
        ret = yield from do_fault_around(ctx, flags)
        if ret:
            return ret
    ret = yield from __do_fault(ctx, flags)
    if ret & DONE:
        return ret
    yield from finish_fault(ctx, _read_pte(ctx.page.vma))
    return ret


@kernel_function("mm/memory.c")
def finish_fault(ctx: Context, pte: Pte) -> Steps[None]:
    """Map the page; from 6.18 on all of a large folio, if none of it is mapped."""
    yield from ()
    span = _whole_folio(ctx, ctx.page) if ctx.kernel.fault_maps_folio else None
    mates = [] if span is None else [page for vpn in span if (page := ctx.neighbour(vpn)) is not None]
    if len(mates) > 1 and all(page.pte is Pte.NONE for page in mates):
        for page in mates:
            if page.vpn != ctx.page.vpn:
                ctx.map_neighbour(replace(page, pte=pte))
        ctx.step("folio_nr_pages", f"{len(mates)}, none of them mapped", "the whole folio is mapped")
    if ctx.page.pte is Pte.NONE:  # else somebody else was faster
        ctx.change(pte=pte)
    ctx.step("finish_fault", "mapped", "for writing" if pte is Pte.WRITABLE else "for reading")


def _folio(page: HostPage) -> range:
    """Page numbers of all of its folio."""
    move = page.vpn - page.index
    return range(page.folio_indices.start + move, page.folio_indices.stop + move)


def _whole_folio(ctx: Context, page: HostPage) -> range | None:
    """Page numbers of a large folio that lies in the file, in the VMA and in one page table; else None."""
    span, vma = _folio(page), page.vma
    inside = vma.start <= span.start and span.stop <= vma.end and page.index + span.stop - page.vpn <= _last_index(page)
    return span if inside and span.start // ra.PMD_PAGES == (span.stop - 1) // ra.PMD_PAGES else None


def _read_pte(vma: Vma) -> Pte:
    """vm_page_prot: read-only for a private mapping, and where the file system wants to hear of the first write."""
    plain = vma.backing is Backing.SHMEM or (vma.backing is Backing.FILE_SHARED and not vma.page_mkwrite)
    return Pte.WRITABLE if plain and vma.writable else Pte.READ_ONLY


@kernel_function("mm/memory.c")
def do_fault_around(ctx: Context, flags: FaultFlag) -> Steps[VmFault]:
    """The aligned block of fault_around_bytes around the address, clipped to the VMA and the page table."""
    vma = ctx.page.vma
    block = ra.fault_around_range(ctx.page.vpn, vma_start=vma.start, vma_end=vma.end)
    ctx.step("fault_around_bytes", f"{len(block)} page(s)", "map_pages")
    return (yield from filemap_map_pages(ctx, flags, block))


@kernel_function("mm/filemap.c")
def filemap_map_pages(ctx: Context, flags: FaultFlag, block: range) -> Steps[VmFault]:
    """Map each page of the block that is cached and ready; each takes a miss back (mmap_miss), from 7.2 on only the one
    that was touched, and not on a retry.  From 6.18 on a large folio is mapped whole, also outside the block."""
    yield from ()
    ctx.meet_holder()
    mapped = cached = 0
    for vpn in _with_whole_folios(ctx, block):
        page = ctx.neighbour(vpn)
        if page is None or not next_uptodate_folio(page):
            continue
        missing = page.pte is Pte.NONE and page is not ctx.page
        if missing and ctx.passes_by(page):
            continue
        cached += 1
        if missing:
            ctx.map_neighbour(replace(page, pte=_read_pte(page.vma)))
            mapped += 1
    maps_it = next_uptodate_folio(ctx.page) and ctx.page.pte is Pte.NONE
    if ctx.kernel.fault_around_one_hit:
        cached = int(maps_it and FaultFlag.TRIED not in flags)
    ctx.readahead = ra.fault_around_hits(ctx.readahead, cached)
    words = f"{mapped} neighbour(s), mmap_miss-{cached}"
    if maps_it:
        ctx.change(pte=_read_pte(ctx.page.vma))
        ctx.step("next_uptodate_folio", f"VM_FAULT_NOPAGE; {words}", "uptodate and unlocked in the page cache: mapped")
        return VmFault.NOPAGE
    ctx.step("next_uptodate_folio", f"not this page; {words}", "not uptodate, locked, PG_readahead, or not cached")
    return VmFault(0)


def _with_whole_folios(ctx: Context, block: range) -> list[int]:
    """The block's page numbers, and those of the rest of the large folios at its ends."""
    if not ctx.kernel.fault_maps_folio:
        return list(block)
    ends = (ctx.neighbour(block.start), ctx.neighbour(block.stop - 1))
    ready = (page for page in ends if page is not None and next_uptodate_folio(page))
    whole = (span for page in ready if (span := _whole_folio(ctx, page)) is not None)
    return sorted(set(block).union(*whole))


@kernel_function("mm/memory.c")
def do_cow_fault(ctx: Context, flags: FaultFlag) -> Steps[VmFault]:
    """Private write: copy the file's page to a new anonymous one."""
    if not ctx.charge():
        ctx.step("alloc and charge the copy", "VM_FAULT_OOM", "no page could be allocated or charged", Mark.REFUSED)
        return VmFault.OOM
    ret = yield from __do_fault(ctx, flags)
    if ret & DONE:
        return ret
    if ctx.page.pte is not Pte.NONE:
        ctx.step("PTE", "no longer empty", "somebody else was faster")
        return ret
    ctx.change(pte=Pte.WRITABLE, folio=Folio())
    ctx.step("copy_user_highpage", "private anonymous copy", "the mapping is private and the access a write")
    return ret


@kernel_function("mm/memory.c")
def do_shared_fault(ctx: Context, flags: FaultFlag) -> Steps[VmFault]:
    """Shared write: page_mkwrite, then map writable."""
    ret = yield from __do_fault(ctx, flags)
    if ret & DONE:
        return ret
    ctx.step("write to a shared mapping", "do_page_mkwrite", "then mapped writable")
    if ctx.page.vma.page_mkwrite and ctx.page.vma.backing is Backing.FILE_SHARED:
        yield from do_page_mkwrite(ctx)
    if ctx.page.pte is not Pte.NONE:
        ctx.step("finish_fault", "the PTE has changed: VM_FAULT_NOPAGE", "another thread has mapped it meanwhile")
        return ret | VmFault.NOPAGE
    yield from finish_fault(ctx, Pte.WRITABLE)
    return ret | fault_dirty_shared_page(ctx, flags)


@kernel_function("mm/memory.c")
def __do_fault(ctx: Context, flags: FaultFlag) -> Steps[VmFault]:
    """vma->vm_ops->fault."""
    shmem = ctx.page.vma.backing is Backing.SHMEM
    ret = yield from (shmem_fault(ctx, flags) if shmem else filemap_fault(ctx, flags))
    if not ret & DONE and ctx.page.folio is not None and ctx.page.folio.hwpoison:
        ctx.step("PageHWPoison", "VM_FAULT_HWPOISON", "the page of the cache is poisoned", Mark.REFUSED)
        return VmFault.HWPOISON
    return ret


@kernel_function("mm/filemap.c")
def filemap_fault(ctx: Context, flags: FaultFlag) -> Steps[VmFault]:
    """Find the page in the page cache, or read it."""
    if ctx.page.beyond_eof:
        ctx.step("index beyond i_size", "VM_FAULT_SIGBUS", "the file was truncated", Mark.REFUSED)
        return VmFault.SIGBUS
    ret, dropped = VmFault(0), False
    if ctx.page.folio is not None:
        ctx.step("filemap_get_folio", "hit", "not major")
        if FaultFlag.TRIED not in flags:
            dropped = yield from do_async_mmap_readahead(ctx, flags)
        yield from ctx.lock_late(mmap_lock_held=not dropped)
    else:
        if FaultFlag.MINOR in flags:
            ctx.step("FAULT_FLAG_MINOR and not in the page cache", "VM_FAULT_MAJOR|VM_FAULT_ERROR",
                     "a major fault is refused before the read-ahead and before PGMAJFAULT", Mark.REFUSED)  # fmt: skip
            return REFUSED
        ret = VmFault.MAJOR
        ctx.count(pgmaj=1)
        ctx.step("filemap_get_folio", "miss: VM_FAULT_MAJOR, PGMAJFAULT+1", "do_sync_mmap_readahead")
        dropped = yield from do_sync_mmap_readahead(ctx, flags)
        if ctx.page.folio is None:
            if not ctx.charge():
                ctx.step("__filemap_get_folio(FGP_CREAT)", "VM_FAULT_OOM", "no page for the page cache", Mark.REFUSED)
                return VmFault.RETRY if dropped else VmFault.OOM
            ctx.change(folio=Folio(uptodate=False))
            ctx.step("__filemap_get_folio(FGP_CREAT)", "new, unlocked, not uptodate", "no read-ahead was done")
    while True:
        locked, dropped = yield from lock_folio_maybe_drop_mmap(ctx, flags, dropped)
        if not locked:
            return ret | VmFault.RETRY
        folio = ctx.page.folio
        if folio is None:
            ctx.step("folio->mapping", "truncated meanwhile", "the fault is taken again")
            return VmFault.RETRY if dropped else VmFault(0)
        if folio.uptodate:
            break
        done = yield from filemap_read_folio(ctx, flags, dropped)
        if done is not None:
            return ret | done
    if dropped:
        ctx.step("mmap_lock was dropped", "VM_FAULT_RETRY", "the VMA may have changed")
        return ret | VmFault.RETRY
    ctx.step("folio uptodate and locked", "VM_FAULT_LOCKED", "to be mapped")
    return ret | VmFault.LOCKED


@kernel_function("mm/filemap.c")
def do_sync_mmap_readahead(ctx: Context, flags: FaultFlag) -> Steps[bool]:
    """Read around a miss, from this thread.  True if mmap_lock was dropped for it.

    ra->start is written before mmap_lock is dropped and read behind it, without a lock of its own: of two threads here
    at once one may read the window of the other.
    """
    vma, env, own = ctx.page.vma, ctx.env, ctx.page.index

    def choose(around: int) -> tuple[ra.Window, ra.ReadaheadState]:
        return ra.file_window(
            ctx.readahead, own, env.neighbours, ra_pages=env.ra_pages, rand_read=vma.rand_read, seq_read=vma.seq_read,
            last_index=_last_index(ctx.page), order=_orders(ctx).of_read_around(env.ra_pages), around_index=around,
        )  # fmt: skip

    around = env.chosen_around(ctx.page, choose(own)[0].pages) if env.chosen_around is not None else own
    held_up = around == own and ctx.held_up()
    early = held_up and env.chooses_early is not None and env.chooses_early(ctx.page)
    if held_up and not early:
        yield WalkWait(WaitKind.HELD_UP, "do_sync_mmap_readahead", mmap_lock_held=True, state="R")
    window, ctx.readahead = choose(around)
    if not window.size:
        ctx.step("VM_RAND_READ, ra_pages == 0 or mmap_miss > MMAP_LOTSAMISS", "no read-ahead", "mmap_lock stays held")
        return False
    dropped = fault_flag_allow_retry_first(flags) and FaultFlag.RETRY_NOWAIT not in flags
    if early:
        window = yield from _read_in_front(ctx, window)
    window = ctx.still_missing("index", window)
    if ctx.page.folio is not None:
        ctx.step("filemap_add_folio", "-EEXIST", "another thread has brought the page since the miss")
        ctx.read_file(window)
    elif own not in window.pages:
        ctx.step("file->f_ra", f"the window around {around:#x}", "another thread has written it since this one has")
        if ctx.charge(len(window.pages)):
            ctx.read_file(window)
    elif ctx.charge(len(window.pages)):
        folios = ctx.folios_of(window)
        order = folios.orders.get(own, 0)
        ctx.own_read = own not in folios.zeroed
        ctx.page = (read_submitted if ctx.own_read else zero_filled)(ctx.page, order=order)
        ctx.read_file(window, folios)
        if ctx.own_read and ctx.refused():
            yield WalkWait(WaitKind.HELD_UP, "dm_submit_bio", mmap_lock_held=not dropped, state="R")
            ctx.step("dm_submit_bio", "-EIO: not uptodate", "no read-ahead while a table is loaded (REQ_RAHEAD)")
        elif ctx.own_read and ctx.finished():
            ctx.page = read_completed(ctx.page)
            ctx.step("submit", "finished at once", "the device has done it before this thread looks at the page")
        elif not ctx.own_read and env.maps_late is not None and env.maps_late(ctx.page, False):
            yield WalkWait(WaitKind.HELD_UP, "read_pages", mmap_lock_held=not dropped, state="R")
    if around != own and env.submits is not None:
        env.submits("index", ())
        yield WalkWait(WaitKind.HELD_UP, "read_pages", mmap_lock_held=not dropped, state="R")
    ctx.step("read-around", f"{len(window.pages)} page(s) in flight",
             "mmap_lock is dropped first" if dropped else "mmap_lock stays held")  # fmt: skip
    return dropped


def _read_in_front(ctx: Context, window: ra.Window) -> Steps[ra.Window]:
    """Those pages of the window that stand before its own, which another thread has added, and that no other has: this
    thread adds page after page (mm/readahead.c:page_cache_ra_unbounded), and is held up behind them, perhaps more than
    once: what it finds cached parts its bios, and when each page was there is asked where another looks for it.
    Returns those that are left."""
    taken = [p for p in window.pages if ctx.env.taken is not None and ctx.env.taken("index", p)]
    front = tuple(p for p in window.pages if p < window.target and p not in taken) if taken else ()
    if front and ctx.charge(len(front)):
        ctx.read_file(replace(window, pages=front, flagged=tuple(p for p in window.flagged if p in front)))
        left = tuple(p for p in window.pages if p not in front)
        window = replace(window, pages=left, flagged=tuple(p for p in window.flagged if p in left))
    yield WalkWait(WaitKind.HELD_UP, "page_cache_ra_unbounded", mmap_lock_held=True, state="R")
    return window


@kernel_function("mm/filemap.c")
def do_async_mmap_readahead(ctx: Context, flags: FaultFlag) -> Steps[bool]:
    """A hit takes a miss back; on PG_readahead the next window is submitted.  True if mmap_lock was dropped for it."""
    yield from ()
    folio, env = ctx.page.folio, ctx.env
    assert folio is not None
    if ctx.page.vma.rand_read or not env.ra_pages:
        ctx.step("VM_RAND_READ or ra_pages == 0", "nothing", "read-ahead is off")
        return False
    keeps = ctx.page.locked and ctx.kernel.locked_hit_keeps_miss
    if not keeps:
        ctx.readahead = ra.file_hit(ctx.readahead, tried=False)
    if not folio.readahead:
        ctx.step("folio_test_readahead", "no", "locked: mmap_miss stays" if keeps else "mmap_miss-1")
        return False
    for vpn in _folio(ctx.page):
        mate = ctx.neighbour(vpn)
        if vpn != ctx.page.vpn and mate is not None and mate.folio is not None:
            ctx.map_neighbour(replace(mate, folio=replace(mate.folio, readahead=False)))
    ctx.change(folio=replace(folio, readahead=False))
    behind = ctx.neighbour(ctx.page.vpn + 1)
    window, ctx.readahead = ra.file_marker_hit(
        ctx.readahead, ctx.page.index, env.neighbours, ra_pages=env.ra_pages, last_index=_last_index(ctx.page),
        folio_order=folio.order, next_folio_start=None if behind is None else behind.folio_indices.start,
        orders=_orders(ctx),
    )  # fmt: skip
    window = ctx.still_missing("index", window)
    if window.pages:
        ctx.read_file(window)
    dropped = fault_flag_allow_retry_first(flags) and FaultFlag.RETRY_NOWAIT not in flags
    ctx.step("folio_test_readahead", f"{len(window.pages)} page(s) in flight", "submitted here, not waited for")
    return dropped


def _orders(ctx: Context) -> ra.FolioOrders:
    kernel = ctx.kernel
    return ra.FolioOrders(
        kernel.ext4_large_folios,
        kernel.read_around_single,
        not kernel.next_miss_tells_none,
        not kernel.marker_is_expected,
    )


def _last_index(page: HostPage) -> int:
    """The last page of the file, which ends with the VMA."""
    return page.index + page.vma.end - 1 - page.vpn


@kernel_function("mm/filemap.c")
def lock_folio_maybe_drop_mmap(ctx: Context, flags: FaultFlag, dropped: bool) -> Steps[tuple[bool, bool]]:
    """Lock the folio; returns (locked, mmap_lock dropped)."""
    ctx.meet_holder()
    if not ctx.page.locked:
        ctx.step("folio_trylock", "locked", "nobody held it")
        return True, dropped
    if FaultFlag.RETRY_NOWAIT in flags:
        ctx.step("folio_trylock fails, FAULT_FLAG_RETRY_NOWAIT", "VM_FAULT_RETRY", "V does not want to wait",
                 Mark.REFUSED)  # fmt: skip
        return False, dropped
    dropped = dropped or fault_flag_allow_retry_first(flags)
    ctx.step("folio_trylock fails", "__folio_lock", "mmap_lock is dropped" if dropped else "mmap_lock is held")
    yield from wait_until_unlocked(ctx, mmap_lock_held=not dropped)
    return True, dropped


@kernel_function("mm/filemap.c")
def filemap_read_folio(ctx: Context, flags: FaultFlag, dropped: bool) -> Steps[VmFault | None]:
    """page_not_uptodate: read this one page and wait, whatever the flags say.  None: look at the page again."""
    dropped = dropped or (fault_flag_allow_retry_first(flags) and FaultFlag.RETRY_NOWAIT not in flags)
    if ctx.page.hole:
        ctx.page = zero_filled(ctx.page)
        ctx.step("folio not uptodate", "zero-filled", "no block: nothing to read")
        return VmFault.RETRY if dropped else None
    ctx.page = read_submitted(ctx.page)
    ctx.own_read = True
    index = ctx.page.index
    ctx.read(Read(ctx.thread, "index", index, (index,), synchronous=True))
    ctx.step("folio not uptodate", "read it and wait", "FAULT_FLAG_RETRY_NOWAIT is not consulted here")
    yield from wait_until_unlocked(ctx, mmap_lock_held=not dropped)
    if dropped:
        return VmFault.RETRY
    if ctx.page.folio is not None and not ctx.page.folio.uptodate:
        ctx.step("the read failed", "VM_FAULT_SIGBUS", "nothing to map", Mark.REFUSED)
        return VmFault.SIGBUS
    return None


@kernel_function("mm/shmem.c")
def shmem_fault(ctx: Context, flags: FaultFlag) -> Steps[VmFault]:
    """shmem_get_folio_gfp: page cache, swap, or a new page; waits for locks whatever the flags say."""
    if ctx.page.beyond_eof:
        ctx.step("index beyond i_size", "VM_FAULT_SIGBUS", "the file was truncated", Mark.REFUSED)
        return VmFault.SIGBUS
    if ctx.page.swap is not None:
        return (yield from shmem_swapin_folio(ctx, flags))
    if ctx.page.folio is not None:
        ctx.meet_holder()
        ctx.step("page cache", "hit", "folio_lock, which waits unconditionally")
        yield from wait_until_unlocked(ctx, mmap_lock_held=True)
        return VmFault.LOCKED
    if userfault_missing(ctx.page):
        return (yield from handle_userfault(ctx, flags))
    if not ctx.charge():
        ctx.step("shmem_alloc_and_acct_folio", "VM_FAULT_OOM", "no page could be allocated or charged", Mark.REFUSED)
        return VmFault.OOM
    ctx.change(folio=Folio())
    ctx.step("hole", "a new page", "allocated, for a read too: minor")
    return VmFault.LOCKED


@kernel_function("mm/shmem.c")
def shmem_swapin_folio(ctx: Context, flags: FaultFlag) -> Steps[VmFault]:
    """A swapped page of shmem (5.10: shmem_swapin_page): always cluster mode, from 6.14 on but for synchronous devices;
    and a blocking lock."""
    ret = VmFault(0)
    if not (yield from swap_cache_get_folio(ctx, vma_mode=False)):
        if FaultFlag.MINOR in flags and ctx.kernel.shmem_minor_hook:
            ctx.step("FAULT_FLAG_MINOR and not in the swap cache", "VM_FAULT_MAJOR|VM_FAULT_ERROR",
                     "the series' hook in shmem refuses", Mark.REFUSED)  # fmt: skip
            return REFUSED
        ret = VmFault.MAJOR
        ctx.count(pgmaj=1)
        ctx.step("not in the swap cache", "VM_FAULT_MAJOR, PGMAJFAULT+1", "shmem_swapin")
        alone = slot(ctx).synchronous and ctx.kernel.shmem_swapin_sync
        if not (yield from shmem_swap_alloc_folio(ctx) if alone else swap_cluster_readahead(ctx)):
            ctx.step("shmem_swapin", "-ENOMEM: VM_FAULT_OOM", "no page could be allocated or charged", Mark.REFUSED)
            return VmFault.OOM
    ctx.meet_holder()
    ctx.step("folio_lock", "waits if it must", "the fault flags are not consulted: never VM_FAULT_RETRY")
    yield from wait_until_unlocked(ctx, mmap_lock_held=True)
    folio = ctx.page.folio
    if folio is not None and not folio.uptodate:
        ctx.step("folio_test_uptodate", "-EIO: VM_FAULT_SIGBUS", "the read failed", Mark.REFUSED)
        return ret | VmFault.SIGBUS
    if folio is not None:
        ctx.change(folio=replace(folio, readahead=False), swap=None)
        ctx.step("shmem_add_to_page_cache", "in the page cache", "the slot is freed")
    return ret | VmFault.LOCKED


@kernel_function("mm/shmem.c")
def shmem_swap_alloc_folio(ctx: Context) -> Steps[bool]:
    """SWP_SYNCHRONOUS_IO: the page alone is read, in this thread."""
    if not ctx.charge():
        return False
    ctx.step("SWP_SYNCHRONOUS_IO", "no read-ahead", "one page", holds=True)
    window = ra.Window(1, (ctx.page.vpn,), ctx.page.vpn)
    ctx.change(folio=Folio(uptodate=False, lock=Lock.READ))
    yield from swap_readpage(ctx, window, "vpn", slot(ctx), synchronous=True)
    return True
