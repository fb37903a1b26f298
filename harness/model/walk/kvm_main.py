# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM's side of a guest page fault in 5.10, 6.1 and 6.12, and in the noio ports to 6.1.

virt/kvm/kvm_main.c from __gfn_to_pfn_memslot down; the x86 part and the worker are in gup_x86.  ``asynchronous`` says
whether the async pointer is given; the pointer selects the mode, and ``*async`` is false until hva_to_pfn says true.
"""

from __future__ import annotations

from harness.model.kernels import Port, Variant
from harness.model.pages import Backing, Pte
from harness.model.walk.flags import EFAULT, EHWPOISON, EINTR, Foll612
from harness.model.walk.function_names import KVM
from harness.model.walk.gup_core import (
    Gup,
    fixup_user_fault,
    foll_of,
    get_user_page_fast_only,
    get_user_pages_noio,
    get_user_pages_unlocked,
    map_present,
)  # fmt: skip
from harness.model.walk.steps import Context, End, Steps, kernel_function


@kernel_function(KVM)
def __gfn_to_pfn_memslot(ctx: Context, *, asynchronous: bool) -> Steps[End]:
    """gfn to pfn, through the host's page tables."""
    ctx.is_async = False
    page = ctx.page
    if page.vma.backing is Backing.NO_SLOT:
        ctx.step("memslot", "none: KVM_PFN_NOSLOT", "MMIO: async is left alone (false), no GUP")
        return End.EMUL
    if ctx.write and page.read_only_slot:
        ctx.step(
            "write to a KVM_MEM_READONLY slot", "KVM_PFN_ERR_RO_FAULT", "emulated as an MMIO write, no GUP", holds=True
        )
        return End.EMUL
    ctx.step("memslot", "found", f"async pointer {'given' if asynchronous else 'NULL'}")
    return (yield from hva_to_pfn(ctx, asynchronous=asynchronous))


@kernel_function(KVM)
def hva_to_pfn(ctx: Context, *, asynchronous: bool) -> Steps[End]:
    """Fast, slow, and what a failure means."""
    if (yield from hva_to_pfn_fast(ctx)):
        return End.MAPPED
    npages = yield from hva_to_pfn_slow(ctx, asynchronous=asynchronous)
    ctx.errno = min(npages, 0)
    if npages == 1:
        return End.MAPPED
    if npages == -EINTR and ctx.kernel.sigpending_pfn:
        ctx.step("npages == -EINTR", "KVM_PFN_ERR_SIGPENDING", "KVM_RUN returns -EINTR", holds=True)
        return End.SIGNAL
    if npages == -EHWPOISON:
        ctx.step("npages == -EHWPOISON", "KVM_PFN_ERR_HWPOISON", "SIGBUS to V; async stays false", holds=True)
        return End.SIGBUS
    vma = ctx.page.vma
    if vma.backing is Backing.NO_VMA:
        ctx.step("vma_lookup", "none: KVM_PFN_ERR_FAULT", "async stays false")
        ctx.errno = -EFAULT
        return End.ERROR
    if vma.backing is Backing.PFNMAP:
        ctx.step("VM_IO | VM_PFNMAP", "hva_to_pfn_remapped", "blocking, never async", holds=True)
        return (yield from hva_to_pfn_remapped(ctx))
    if asynchronous and (yield from vma_is_valid(ctx)):
        ctx.is_async = True
        reason = f"errno {npages}" if npages else "0 pages"
        ctx.step(f"get_user_pages failed ({reason}), async pointer given", "*async = true",
                 "whatever the reason of the failure")  # fmt: skip
        return End.ASYNC
    ctx.step("get_user_pages failed", "KVM_PFN_ERR_FAULT", "KVM_RUN returns -EFAULT")
    ctx.errno = -EFAULT
    return End.ERROR


@kernel_function(KVM)
def hva_to_pfn_fast(ctx: Context) -> Steps[bool]:
    """Only what is mapped writable; tried for reads too, because a writable mapping is welcome."""
    if not ctx.write and ctx.page.read_only_slot:
        ctx.step("write fault or writable != NULL", "no", "read-only slot: not tried")
        return False
    if (yield from get_user_page_fast_only(ctx, write=True)):
        map_present(ctx)
        ctx.step("get_user_page_fast_only", "1 page", "mapped writable")
        return True
    ctx.step("get_user_page_fast_only", "0 pages", "hva_to_pfn_slow")
    return False


@kernel_function(KVM)
def hva_to_pfn_slow(ctx: Context, *, asynchronous: bool) -> Steps[int]:
    """GUP proper: NOWAIT (merged) or MINOR (noio) if the caller can be asynchronous."""
    foll = foll_of(ctx.kernel)
    flags: Gup = foll.HWPOISON
    if foll is Foll612:
        flags |= Foll612.HONOR_NUMA_FAULT
    if ctx.write:
        flags |= foll.WRITE
    minor = asynchronous and ctx.kernel.variant is Variant.NOIO
    if minor and ctx.kernel.port is Port.P1:
        flags |= foll.MINOR
    elif asynchronous and not minor:
        flags |= foll.NOWAIT
    elif not asynchronous and ctx.kernel.interruptible_gup:
        flags |= Foll612.INTERRUPTIBLE
    if minor and ctx.kernel.port is Port.P2:
        ctx.step("async", "get_user_pages_noio", "mmap_read_lock around the call")
        npages = yield from get_user_pages_noio(ctx, flags)
    else:
        npages = yield from get_user_pages_unlocked(ctx, flags)
    if npages != 1:
        ctx.step("get_user_pages", f"{npages}", "not one page")
        return npages
    map_present(ctx)
    if not ctx.write and not ctx.page.read_only_slot:
        ctx.writable = bool((yield from get_user_page_fast_only(ctx, write=True)))
        ctx.step("map it writable after a read fault?", str(ctx.writable), f"the PTE is {ctx.page.pte}")
    return 1


@kernel_function(KVM)
def hva_to_pfn_remapped(ctx: Context) -> Steps[End]:
    """PFNMAP: the pfn of the PTE; a missing one is faulted in, blocking."""
    if ctx.page.pte is Pte.NONE:
        ctx.step("follow_pte", "no PTE", "fixup_user_fault")
        err = yield from fixup_user_fault(ctx, write=ctx.write)
        if err:
            ctx.errno = err
            return End.ERROR
    if ctx.write and ctx.page.pte is not Pte.WRITABLE:
        ctx.step("pte_write", "no: KVM_PFN_ERR_RO_FAULT", "a write to a read-only mapping")
        return End.EMUL
    map_present(ctx)
    ctx.step("follow_pte", "pfn", "computed from the PTE, no struct page")
    return End.MAPPED


@kernel_function(KVM)
def vma_is_valid(ctx: Context) -> Steps[bool]:
    """VM_READ, and VM_WRITE for a write fault: otherwise an async page fault could never help."""
    yield from ()
    vma = ctx.page.vma
    ok = vma.readable and (vma.writable or not ctx.write)
    ctx.step("VM_READ" + (" and VM_WRITE" if ctx.write else ""), str(ok), "asynchronous only where access is allowed")
    return ok
