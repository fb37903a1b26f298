# SPDX-License-Identifier: GPL-2.0-or-later
"""get_user_pages of 5.10, 6.1 and 6.12, for one page (mm/gup.c).

Return values are those of the kernel: 1 page, 0, or a negative errno.  ``Locked`` is the kernel's ``int *locked``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from harness.model.kernels import KernelModel
from harness.model.pages import PRESENT, Backing, Folio, Pte
from harness.model.walk.flags import (
    EBUSY,
    EFAULT,
    EINTR,
    VM_FAULT_ERROR,
    FaultFlag,
    Foll,
    Foll612,
    VmFault,
    show,
    vm_fault_to_errno,
)  # fmt: skip
from harness.model.walk.mm_memory import handle_mm_fault, hugetlb_fault
from harness.model.walk.steps import Context, Mark, Steps, WaitKind, kernel_function

Gup = Foll | Foll612
"""gup_flags, in the layout of the kernel at hand."""


@dataclass(slots=True)
class Locked:
    """``int *locked``: whether mmap_lock is still held."""

    held: bool = True


def foll_of(kernel: KernelModel) -> type[Foll] | type[Foll612]:
    """The FOLL_* layout of this kernel."""
    return Foll612 if kernel.foll_renumbered else Foll


@kernel_function("include/linux/mm.h")
def get_user_page_fast_only(ctx: Context, *, write: bool) -> Steps[int]:
    """Walk the page tables without mmap_lock; takes only what is there."""
    yield from ()
    ok = _followable(ctx, write=write)
    ctx.step(f"PTE present{' and writable' if write else ''}?", f"{ctx.page.pte}: {'1 page' if ok else '0 pages'}",
             "interrupts off, no lock, no fault")  # fmt: skip
    return int(ok)


def _followable(ctx: Context, *, write: bool) -> bool:
    page = ctx.page
    if page.vma.backing is Backing.PFNMAP:
        return False  # pte_special: no struct page
    return page.pte is Pte.WRITABLE if write else page.pte in PRESENT


@kernel_function("mm/gup.c")
def get_user_pages_unlocked(ctx: Context, flags: Gup) -> Steps[int]:
    """Takes mmap_lock for read; may drop it to wait."""
    ctx.step("gup_flags", show("FOLL_", flags), "mmap_read_lock; locked is passed, so a fault may drop it")
    return (yield from __get_user_pages_locked(ctx, flags | foll_of(ctx.kernel).TOUCH, Locked()))


@kernel_function("mm/gup.c")
def get_user_pages_noio(ctx: Context, flags: Gup) -> Steps[int]:
    """The faithful port (P2): the caller holds mmap_lock for read; without locked no fault may drop it."""
    foll = foll_of(ctx.kernel)
    flags |= foll.TOUCH | foll.GET | foll.MINOR
    ctx.step("gup_flags", show("FOLL_", flags), "locked is NULL, as in v7: no fault may drop mmap_lock")
    return (yield from __get_user_pages(ctx, flags, None))


@kernel_function("mm/gup.c")
def get_user_pages_remote(ctx: Context, flags: Gup) -> Steps[int]:
    """As get_user_pages, of another process, with locked: what the worker uses."""
    foll = foll_of(ctx.kernel)
    ctx.step("gup_flags", show("FOLL_", flags), "neither FOLL_NOWAIT nor FOLL_MINOR: waits for what it needs")
    return (yield from __get_user_pages_locked(ctx, flags | foll.TOUCH | foll.REMOTE, Locked()))


@kernel_function("mm/gup.c")
def __get_user_pages_locked(ctx: Context, flags: Gup, locked: Locked) -> Steps[int]:
    """Repeat with FOLL_TRIED when a fault has dropped mmap_lock."""
    ret = yield from __get_user_pages(ctx, flags, locked)
    while not locked.held and ret == 0:
        yield from ctx.pace(WaitKind.RETURN)
        if ctx.env.signal_pending:
            ctx.step("fatal_signal_pending", "-EINTR", "no retry", Mark.REFUSED)
            return -EINTR
        if isinstance(flags, Foll612) and Foll612.INTERRUPTIBLE in flags and ctx.told():
            ctx.step("gup_signal_pending", "-EINTR", "FOLL_INTERRUPTIBLE: no retry", holds=True)
            return -EINTR
        ctx.step("mmap_lock was dropped", "take it again, FOLL_TRIED", "the page should be there now")
        locked.held = True
        ret = yield from __get_user_pages(ctx, flags | foll_of(ctx.kernel).TRIED, locked)
    return ret


@kernel_function("mm/gup.c")
def __get_user_pages(ctx: Context, flags: Gup, locked: Locked | None) -> Steps[int]:
    """Look at the page table; fault the page in until it is there as wanted."""
    vma = ctx.page.vma
    write = foll_of(ctx.kernel).WRITE in flags
    if vma.backing is Backing.NO_VMA:
        ctx.step("find_vma", "none here", "-EFAULT", Mark.REFUSED)
        return -EFAULT
    if vma.backing is Backing.PFNMAP:
        ctx.step("check_vma_flags: VM_IO | VM_PFNMAP", "-EFAULT", "there is no struct page", Mark.REFUSED, holds=True)
        return -EFAULT
    if not (vma.writable if write else vma.readable):
        ctx.step(f"check_vma_flags: {'VM_WRITE' if write else 'VM_READ'}", "missing: -EFAULT", "not allowed",
                 Mark.REFUSED)  # fmt: skip
        return -EFAULT
    while True:
        if ctx.env.signal_pending:
            ctx.step("fatal_signal_pending", "-EINTR", "the process is being killed", Mark.REFUSED, holds=True)
            return -EINTR
        if (yield from follow_page_mask(ctx, write=write)):
            return 1
        ret = yield from faultin_page(ctx, flags, locked)
        if ret == -EBUSY:
            ctx.step("faultin_page", "-EBUSY: 0 pages", "the fault handler said VM_FAULT_RETRY")
            return 0
        if ret:
            return ret
        yield from ctx.pace(WaitKind.RETURN)


@kernel_function("mm/gup.c")
def follow_page_mask(ctx: Context, *, write: bool) -> Steps[bool]:
    """The page of the PTE, if it may be used for this access."""
    yield from ()
    ok = _followable(ctx, write=write)
    ctx.step(f"PTE usable for {'write' if write else 'read'}?", f"{ctx.page.pte}: {'yes' if ok else 'no'}",
             "take a reference" if ok else "faultin_page")  # fmt: skip
    return ok


@functools.cache
def _fault_flags(foll: type[Foll] | type[Foll612], flags: Gup, *, locked: bool) -> FaultFlag:
    """What faultin_page makes of FOLL_*."""
    fault = FaultFlag(0)
    if foll.WRITE in flags:
        fault |= FaultFlag.WRITE
    if foll.REMOTE in flags:
        fault |= FaultFlag.REMOTE
    if locked:
        fault |= FaultFlag.ALLOW_RETRY | FaultFlag.KILLABLE
        if isinstance(flags, Foll612) and Foll612.INTERRUPTIBLE in flags:
            fault |= FaultFlag.INTERRUPTIBLE
    if foll.NOWAIT in flags:
        fault |= FaultFlag.ALLOW_RETRY | FaultFlag.RETRY_NOWAIT
    if foll.TRIED in flags:
        fault |= FaultFlag.TRIED
    if foll.MINOR in flags:
        fault |= FaultFlag.MINOR
    return fault


@kernel_function("mm/gup.c")
def faultin_page(ctx: Context, flags: Gup, locked: Locked | None) -> Steps[int]:
    """Translate FOLL_* to FAULT_FLAG_*, handle the fault, translate VM_FAULT_* back."""
    foll = foll_of(ctx.kernel)
    fault = _fault_flags(foll, flags, locked=locked is not None)
    ctx.step(show("FOLL_", flags), show("FAULT_FLAG_", fault), "handle_mm_fault")
    if ctx.page.vma.backing is Backing.HUGETLB and ctx.kernel.gup_hugetlb_apart:
        # follow_hugetlb_page calls hugetlb_fault itself: no PGFAULT, no maj or min, FOLL_MINOR is not translated.
        ctx.attempts += 1
        ret = yield from hugetlb_fault(ctx, fault & ~FaultFlag.MINOR)
    else:
        ret = yield from handle_mm_fault(ctx, fault)
    if ret & VM_FAULT_ERROR:
        err = vm_fault_to_errno(ret, foll_hwpoison=foll.HWPOISON in flags)
        ctx.step(show("VM_FAULT_", ret), f"errno {err}", "vm_fault_to_errno tests OOM, then HWPOISON, then SIGBUS")
        return err
    if ret & VmFault.RETRY:
        if locked is not None and FaultFlag.RETRY_NOWAIT not in fault:
            locked.held = False
        ctx.step("VM_FAULT_RETRY", "-EBUSY", "mmap_lock was dropped" if locked and not locked.held else
                 "FAULT_FLAG_RETRY_NOWAIT: mmap_lock is still held")  # fmt: skip
        return -EBUSY
    return 0


@kernel_function("mm/gup.c")
def fixup_user_fault(ctx: Context, *, write: bool) -> Steps[int]:
    """Fault a page in that GUP cannot give, blocking."""
    fault = FaultFlag.ALLOW_RETRY | FaultFlag.KILLABLE | (FaultFlag.WRITE if write else FaultFlag(0))
    ret = yield from handle_mm_fault(ctx, fault)
    err = vm_fault_to_errno(ret, foll_hwpoison=False)
    ctx.step(show("VM_FAULT_", ret), f"{err}", "waits for whatever the driver waits for")
    return err


def map_present(ctx: Context) -> None:
    """Record what KVM may map: 2 MiB if the folio is huge, writable if the PTE is."""
    folio = ctx.page.folio or Folio()
    ctx.huge = folio.huge
    ctx.writable = ctx.page.pte is Pte.WRITABLE
