# SPDX-License-Identifier: GPL-2.0-or-later
"""Swap-in of 5.10, 6.1 and 6.12: do_swap_page and what it calls (mm/memory.c, mm/swap_state.c, mm/page_io.c)."""

from __future__ import annotations

from dataclasses import replace

from harness.model import readahead as ra
from harness.model.pages import Backing, Folio, Lock, Pte, SwapSlot, read_completed, read_submitted
from harness.model.walk.flags import FaultFlag, VmFault, fault_flag_allow_retry_first
from harness.model.walk.page_waits import wait_until_migrated, wait_until_unlocked
from harness.model.walk.steps import Context, Mark, Read, Steps, WaitKind, WalkWait, kernel_function
from harness.model.walk.write_protect import do_wp_page

REFUSED = VmFault.MAJOR | VmFault.OOM | VmFault.SIGBUS | VmFault.SIGSEGV | VmFault.HWPOISON | (
    VmFault.HWPOISON_LARGE | VmFault.FALLBACK
)  # fmt: skip
"""VM_FAULT_MAJOR | VM_FAULT_ERROR: what the noio series returns for a refused major fault; ERROR is a mask."""


def slot(ctx: Context) -> SwapSlot:
    """The page's swap slot, where the caller knows that there is one."""
    assert ctx.page.swap is not None
    return ctx.page.swap


@kernel_function("mm/memory.c")
def do_swap_page(ctx: Context, flags: FaultFlag) -> Steps[VmFault]:
    """The PTE is not present and not empty: a swap entry, or something that only looks like one."""
    if ctx.page.pte is Pte.MIGRATION:
        yield from migration_entry_wait(ctx)
        return VmFault(0)
    if ctx.page.pte is Pte.HWPOISON:
        ctx.step(
            "is_hwpoison_entry", "VM_FAULT_HWPOISON", "the page was poisoned: nothing to read", Mark.REFUSED, holds=True
        )
        return VmFault.HWPOISON
    ret = VmFault(0)
    cached = yield from swap_cache_get_folio(ctx, vma_mode=ctx.env.vma_readahead)
    if not cached:
        if FaultFlag.MINOR in flags:
            ctx.step(
                "FAULT_FLAG_MINOR and not in the swap cache", "VM_FAULT_MAJOR|VM_FAULT_ERROR",
                "a major fault is refused before the read and before PGMAJFAULT", Mark.REFUSED, holds=True,
            )  # fmt: skip
            return REFUSED
        if slot(ctx).synchronous and (slot(ctx).count == 1 or ctx.kernel.sync_swapin_shared):
            present = yield from swapin_sync(ctx)
        else:
            present = yield from swapin_readahead(ctx)
        if not present:
            ctx.step("folio == NULL", "VM_FAULT_OOM", "no page could be allocated or charged", Mark.REFUSED, holds=True)
            return VmFault.OOM
        ret = VmFault.MAJOR
        ctx.count(pgmaj=1)
        ctx.step("had to read the page from the swap area", "VM_FAULT_MAJOR, PGMAJFAULT+1",
                 "counted where the read is submitted, in this thread")  # fmt: skip
    else:
        ctx.step("folio found in the swap cache", "not major", "no read to submit")
        if not ctx.kernel.hwpoison_after_lock and _poisoned(ctx):
            return VmFault.HWPOISON
        yield from ctx.lock_late(mmap_lock_held=True)
    if not (yield from folio_lock_or_retry(ctx, flags)):
        return ret | VmFault.RETRY
    if ctx.page.pte is not Pte.SWAP or ctx.page.folio is None:
        ctx.step("pte_same", "no", "somebody else has handled the fault meanwhile")
        return ret
    if ctx.kernel.hwpoison_after_lock and _poisoned(ctx):
        return VmFault.HWPOISON
    if not ctx.page.folio.uptodate:
        ctx.step("folio_test_uptodate", "no: VM_FAULT_SIGBUS", "the read failed", Mark.REFUSED)
        return VmFault.SIGBUS
    return ret | (yield from _map_swapped(ctx, flags))


def _poisoned(ctx: Context) -> bool:
    """A folio of the swap cache that memory_failure has found bad."""
    poisoned = ctx.page.folio is not None and ctx.page.folio.hwpoison
    if poisoned:
        ctx.step("PageHWPoison", "VM_FAULT_HWPOISON", "the cached page is poisoned", Mark.REFUSED, holds=True)
    return poisoned


def _map_swapped(ctx: Context, flags: FaultFlag) -> Steps[VmFault]:
    """The tail of do_swap_page: the PTE is made, for a write by way of do_wp_page where the page is not exclusive."""
    folio, swap = ctx.page.folio, slot(ctx)
    assert folio is not None
    write = FaultFlag.WRITE in flags
    kept = Folio(writeback=folio.writeback, ksm=swap.ksm)
    exclusive = swap.count == 1 and not swap.ksm
    if write and exclusive and ctx.page.vma.writable:
        # folio_free_swap refuses while the folio is under writeback.
        ctx.change(pte=Pte.WRITABLE, folio=kept, swap=swap if folio.writeback else None)
        ctx.step("exclusive, write fault", "mapped writable", "the slot is freed" if not folio.writeback else
                 "under writeback: the slot is kept")  # fmt: skip
        return VmFault(0)
    past_the_cache = swap.synchronous and swap.count == 1
    freed = swap.count == 1 and not folio.writeback and ctx.env.swap_full is not None and ctx.env.swap_full()
    left = None if past_the_cache or freed else swap
    slot_left = "vm_swap_full: the slot is freed" if freed else "the slot and the swap cache are kept"
    if exclusive and ctx.page.vma.writable and ctx.kernel.swapin_read_writable:
        ctx.change(pte=Pte.WRITABLE, folio=kept, swap=left)
        ctx.step("exclusive, read fault", "pte_mkwrite: mapped writable", slot_left)
        return VmFault(0)
    ctx.change(pte=Pte.READ_ONLY, folio=kept, swap=left)
    ctx.step("write fault on an exclusive folio", "no: mapped read-only", slot_left)
    if write:
        return (yield from do_wp_page(ctx, flags))
    return VmFault(0)


@kernel_function("mm/migrate.c")
def migration_entry_wait(ctx: Context) -> Steps[None]:
    """Sleeps until the entry is a PTE again; FAULT_FLAG_RETRY_NOWAIT is not consulted."""
    ctx.step("is_migration_entry", "wait", "the flags are not consulted here")
    yield from wait_until_migrated(ctx)


@kernel_function("mm/swap_state.c")
def swap_cache_get_folio(ctx: Context, *, vma_mode: bool) -> Steps[bool]:
    """Look into the swap cache; a hit keeps the read-ahead statistics (5.10: lookup_swap_cache)."""
    yield from ()
    folio = ctx.page.folio
    if folio is None:
        ctx.step("folio in the swap cache?", "miss", "it is only on the device")
        return False
    vpn = ctx.page.vpn if vma_mode and ctx.page.vma.backing is not Backing.SHMEM else None
    flagged = folio.readahead and not (ctx.env.marked_late is not None and ctx.env.marked_late(ctx.page))
    ctx.readahead = ra.cache_hit(ctx.readahead, vpn=vpn, flagged=flagged)
    if flagged:
        ctx.count(rah=1)
        ctx.change(folio=replace(folio, readahead=False))
    ctx.step("folio in the swap cache?", "hit" + (" with PG_readahead" if flagged else ""),
             "one hit for the next window" if flagged else "no hit is counted")  # fmt: skip
    return True


@kernel_function("mm/swap_state.c")
def swapin_sync(ctx: Context) -> Steps[bool]:
    """SWP_SYNCHRONOUS_IO: the page alone is read, in this thread, and the flags are not consulted.

    Before 7.0 only for a swap count of 1, and past the swap cache; since then through it, whatever the count.
    """
    if ctx.held_up():
        yield WalkWait(WaitKind.HELD_UP, "do_swap_page", mmap_lock_held=True, state="R")
    if not ctx.charge():
        return False
    if ctx.page.pte is not Pte.SWAP:
        ctx.step("SWP_SYNCHRONOUS_IO", "a page of its own is read", "another thread has mapped the page meanwhile")
        ctx.count(pswpin=1)
        return True
    what = "a large folio is possible" if ctx.kernel.large_folio_swapin else "one page"
    if ctx.kernel.sync_swapin_shared:
        ctx.step("SWP_SYNCHRONOUS_IO", "no read-ahead", what, holds=True)
    else:
        ctx.step("SWP_SYNCHRONOUS_IO and __swap_count == 1", "skip the swap cache", what, holds=True)
    ctx.change(folio=Folio(uptodate=False, lock=Lock.READ))
    yield from swap_readpage(ctx, ra.Window(1, (ctx.page.vpn,), ctx.page.vpn), "vpn", slot(ctx), synchronous=True)
    return True


@kernel_function("mm/swap_state.c")
def swapin_readahead(ctx: Context) -> Steps[bool]:
    """Choose the mode: per-VMA unless a rotational device is active or the system says no."""
    mode = "swap_vma_readahead" if ctx.env.vma_readahead else "swap_cluster_readahead"
    ctx.step("swap_use_vma_readahead()", str(ctx.env.vma_readahead), mode)
    if ctx.env.vma_readahead:
        return (yield from swap_vma_readahead(ctx))
    return (yield from swap_cluster_readahead(ctx))


@kernel_function("mm/swap_state.c")
def swap_vma_readahead(ctx: Context) -> Steps[bool]:
    """Read the swapped pages around the address."""
    swap = slot(ctx)
    yield from ctx.choose_late()
    page, env = ctx.page, ctx.env
    window, ctx.readahead = ra.vma_window(
        ctx.readahead, page.vpn, env.page_cluster, env.neighbours, vma_start=page.vma.start, vma_end=page.vma.end
    )
    return (yield from _read_window(ctx, window, "vpn", swap))


@kernel_function("mm/swap_state.c")
def swap_cluster_readahead(ctx: Context) -> Steps[bool]:
    """Read the aligned block of slots around the entry."""
    swap = slot(ctx)
    yield from ctx.choose_late()
    env = ctx.env
    window, ctx.readahead = ra.cluster_window(
        ctx.readahead, swap.offset, env.page_cluster, env.neighbours, last_slot=env.last_slot
    )
    if ctx.kernel.congested_single_page and env.congested and window.size > 1:
        ctx.step("inode_read_congested", "yes", "only the target is read, and that synchronously")
        window = ra.Window(1, (swap.offset,), swap.offset)
    return (yield from _read_window(ctx, window, "slot", swap))


def _read_window(ctx: Context, window: ra.Window, unit: str, swap: SwapSlot) -> Steps[bool]:
    """``swap``: the target's slot, which another thread may free meanwhile, when it maps the page."""
    if not ctx.charge(len(window.pages)):
        return False
    held_up = ctx.held_up(unit, window.pages)
    if held_up:
        yield from _read_first(ctx, window, unit, swap)
        yield WalkWait(WaitKind.HELD_UP, "__read_swap_cache_async", mmap_lock_held=True, state="R")
    window = ctx.still_missing(unit, window)  # another may read the rest when this one has read its own page
    if ctx.page.folio is not None:
        ctx.step("swapcache_prepare", "-EEXIST: found", "another thread has read it since the look before")
        ctx.count(ra=len(window.flagged))
        yield from swap_readpage(ctx, window, unit, swap, synchronous=False)
        return True
    poll = ctx.kernel.do_poll and window.size == 1
    ctx.step("read-ahead window", f"{window.size} page(s), {len(window.pages)} to read",
             "do_poll: a single page is read synchronously" if poll else "read_swap_cache_async for each")  # fmt: skip
    ctx.page = read_submitted(ctx.page)
    ctx.own_read = True
    ctx.count(ra=len(window.flagged))
    yield from swap_readpage(ctx, window, unit, swap, synchronous=poll)
    return True


def _read_first(ctx: Context, window: ra.Window, unit: str, swap: SwapSlot) -> Steps[None]:
    """Those pages of the window that this thread puts into the cache, one by one, before others come."""
    left = set(window.pages) - {window.target}
    while ctx.env.submits is not None and (page := ctx.env.submits(unit, left)) is not None:
        yield WalkWait(WaitKind.HELD_UP, "__read_swap_cache_async", mmap_lock_held=True, state="R")
        left.remove(page)
        flagged = (page,) if page in window.flagged else ()
        ctx.count(ra=len(flagged))
        yield from swap_readpage(ctx, replace(window, pages=(page,), flagged=flagged), unit, swap, synchronous=False)


@kernel_function("mm/page_io.c")
def swap_read_folio_zeromap(ctx: Context, window: ra.Window, unit: str, swap: SwapSlot) -> Steps[tuple[int, ...]]:
    """6.12: pages in the zero map are cleared and unlocked at once, each by itself.  Returns those left to read."""
    yield from ()
    target_zero, zero = swap.zero, ctx.env.neighbours.zero_on_swap
    told = {p: None if p == window.target else zero(unit, p) for p in window.pages}
    left = tuple(p for p, is_zero in told.items() if not (target_zero if is_zero is None else is_zero))
    ctx.count(swpin_zero=len(window.pages) - len(left))
    if target_zero and window.target in window.pages:
        if ctx.env.fills_late is not None and ctx.env.fills_late(ctx.page):
            yield WalkWait(WaitKind.HELD_UP, "swap_read_folio_zeromap", mmap_lock_held=True, state="R")
        ctx.page = read_completed(ctx.page, by_device=False)
    if len(left) < len(window.pages):
        ctx.step("zero map", f"{len(window.pages) - len(left)} all-zero page(s)", "cleared and unlocked: no I/O")
    return left


@kernel_function("mm/page_io.c")
def swap_readpage(ctx: Context, window: ra.Window, unit: str, swap: SwapSlot, *, synchronous: bool) -> Steps[None]:
    """Submit the reads (6.12: swap_read_folio); the target's folio is locked until its end_io handler has run.

    :param swap: the target's slot.
    """
    zero_map = ctx.kernel.zero_map
    pages = (yield from swap_read_folio_zeromap(ctx, window, unit, swap)) if zero_map else window.pages
    n, target_read = len(pages), window.target in pages
    ctx.fill(unit, window, tuple(p for p in window.pages if p not in pages))
    if not n:
        return
    ctx.own_read = ctx.own_read or target_read
    if swap.zswap:
        if target_read:
            ctx.page = read_completed(ctx.page, by_device=False)
        ctx.fill(unit, window, pages)
        ctx.step("zswap has the page", "decompressed and unlocked", "no I/O, PSWPIN is not counted")
        return
    ctx.count(pswpin=n)
    bio = not (swap.synchronous and ctx.kernel.bdev_rw_page)
    done = swap.synchronous or swap.fast or (target_read and not synchronous and ctx.finished())
    ctx.read(Read(ctx.thread, unit, window.target, pages, window.flagged, synchronous or done, bio))
    if not target_read:
        ctx.step("submit", f"{n} neighbour(s) in flight", "the target itself needs no read")
    elif done:
        ctx.page = read_completed(ctx.page)
        ctx.step("submit", "finished at once", "the device has done it before submission returns")
    elif synchronous:
        ctx.step("synchronous (do_poll)", "submit and poll", "TASK_UNINTERRUPTIBLE until the end_io handler has run; "
                 "FAULT_FLAG_RETRY_NOWAIT is not consulted")  # fmt: skip
        yield from wait_until_unlocked(ctx, mmap_lock_held=True)
    else:
        ctx.step("submit", f"{n} page(s) in flight", "the folio stays locked until the read has ended")


@kernel_function("mm/filemap.c")
def folio_lock_or_retry(ctx: Context, flags: FaultFlag) -> Steps[bool]:
    """Lock the folio, or say that the fault is to be retried (5.10: lock_page_or_retry)."""
    ctx.meet_holder()
    if not ctx.page.locked:
        ctx.step("folio_trylock", "locked", "nobody held it")
        return True
    if fault_flag_allow_retry_first(flags):
        if FaultFlag.RETRY_NOWAIT in flags:
            ctx.step("folio_trylock fails, FAULT_FLAG_RETRY_NOWAIT", "VM_FAULT_RETRY",
                     "V does not wait and keeps mmap_lock: GUP returns 0 pages", Mark.REFUSED)  # fmt: skip
            return False
        ctx.step("folio_trylock fails, FAULT_FLAG_ALLOW_RETRY", "wait, then VM_FAULT_RETRY", "mmap_lock is dropped")
        yield from wait_until_unlocked(ctx, mmap_lock_held=False)
        return False
    ctx.step("folio_trylock fails, no retry allowed", "__folio_lock", "mmap_lock is held while it waits")
    yield from wait_until_unlocked(ctx, mmap_lock_held=True)
    return True
