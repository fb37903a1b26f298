# SPDX-License-Identifier: GPL-2.0-or-later
"""The seed's call chain: KVM of 2.6.3x before the series (``sync``) and with its version 7 (``noio``).

arch/x86/kvm/mmu.c and virt/kvm/kvm_main.c as v7 02/12 changes them, get_user_pages as v6 01/12 does.  Every GUP of this
KVM is for writing.  ``async`` is a pointer: given or NULL; ``*async`` is written false first.
"""

from __future__ import annotations

from harness.model.kernels import Variant
from harness.model.pages import Backing, Pte
from harness.model.walk.flags import (
    EFAULT,
    ENOMEM,
    ERESTARTSYS,
    VM_FAULT_ERROR_2010,
    FaultFlag2010,
    Foll2010,
    VmFault2010,
)
from harness.model.walk.flags import show as show_flags
from harness.model.walk.memory_2010 import handle_mm_fault, hugetlb_no_page
from harness.model.walk.steps import Context, End, Mark, Steps, kernel_function

KVM = "virt/kvm/kvm_main.c"
MMU = "arch/x86/kvm/mmu.c"


@kernel_function(MMU)
def tdp_page_fault(ctx: Context, *, prefetch: bool = False) -> Steps[End]:
    """A fault of the nested page table."""
    ctx.step("mmu_seq", "= mmu_notifier_seq, smp_rmb", "the snapshot that mmu_notifier_retry is asked about at the end")
    if ctx.kernel.variant is Variant.SYNC:
        end = yield from gfn_to_pfn(ctx)
    else:
        end = yield from try_async_pf(ctx, prefetch=prefetch)
    if end in (End.TOKEN, End.HALT, End.REPEATED):
        ctx.step("try_async_pf", "true", "return 0: nothing is mapped")
    elif end is End.MAPPED and ctx.invalidated:
        ctx.step("mmu_notifier_retry", "yes", "this fault's own GUP has replaced a present PTE: the guest faults again")
        return End.STALE
    elif end is End.MAPPED:
        ctx.step("is_error_pfn", "no", "__direct_map, writable")
    elif end is not End.OOPS:
        ctx.step("is_error_pfn", f"{end}", "kvm_handle_bad_page" if end is not End.EMUL else "mmio", holds=True)
    return end


@kernel_function(MMU)
def try_async_pf(ctx: Context, *, prefetch: bool) -> Steps[End]:
    """v7 02/12: true (TOKEN, HALT, REPEATED) if the page is left to a work item."""
    end = yield from gfn_to_pfn_async(ctx)
    if end is End.OOPS:
        return end
    if end is not End.ASYNC:
        ctx.step("async", "false", "return false: the pfn is used")
        return end
    vcpu = ctx.vcpu
    ctx.step("async", "true", "put_page(fault_page)")
    if prefetch or not vcpu.can_do:
        ctx.step("!no_apf && can_do_async_pf", "false" + (f": {vcpu.why}" if vcpu.why else ""), "gfn_to_pfn, blocking",
                 Mark.GATE)  # fmt: skip
    elif vcpu.live:
        ctx.step("kvm_find_async_pf_gfn", "live", "trace kvm_async_pf_doublefault; KVM_REQ_APF_HALT", Mark.GATE)
        return End.REPEATED
    elif vcpu.setup_fails:
        ctx.step("kvm_arch_setup_async_pf", "false", "gfn_to_pfn, blocking", Mark.GATE)
    else:
        how = "token" if vcpu.can_deliver else "KVM_REQ_APF_HALT"
        ctx.step("kvm_arch_setup_async_pf", f"true: {how}", vcpu.why, Mark.GATE)
        return End.TOKEN if vcpu.can_deliver else End.HALT
    return (yield from gfn_to_pfn(ctx))


@kernel_function(KVM)
def gfn_to_pfn(ctx: Context) -> Steps[End]:
    """Synchronous: major faults are allowed."""
    ctx.step("__gfn_to_pfn(atomic=false, async=NULL)", "synchronous", "may do I/O and wait for it")
    return (yield from __gfn_to_pfn(ctx, asynchronous=False))


@kernel_function(KVM)
def gfn_to_pfn_async(ctx: Context) -> Steps[End]:
    """v7: with the async pointer."""
    ctx.step("__gfn_to_pfn(atomic=false, &async)", "asynchronous if it must be", "the pointer selects the mode")
    return (yield from __gfn_to_pfn(ctx, asynchronous=True))


@kernel_function(KVM)
def __gfn_to_pfn(ctx: Context, *, asynchronous: bool) -> Steps[End]:
    """atomic is false in this chain."""
    ctx.is_async = False
    ctx.step("async", "*async = false" if asynchronous else "NULL", "atomic is false")
    if not (yield from gfn_to_hva(ctx)):
        return End.EMUL
    return (yield from hva_to_pfn(ctx, asynchronous=asynchronous))


@kernel_function(KVM)
def gfn_to_hva(ctx: Context) -> Steps[bool]:
    """gfn_to_hva_many, gfn_to_hva_memslot."""
    yield from ()
    found = ctx.page.vma.backing is not Backing.NO_SLOT
    ctx.step("memslot", "found" if found else "none: bad page", "" if found else "MMIO, *async stays false")
    return found


@kernel_function(KVM)
def hva_to_pfn(ctx: Context, *, asynchronous: bool) -> Steps[End]:
    """v7 02/12; without async as before the series."""
    npages = 0
    if ctx.kernel.variant is not Variant.SYNC:
        ctx.step("BUG_ON(atomic && async)", "no", "either atomically or asynchronously, not both; atomic is false")
    if asynchronous:
        npages = yield from __get_user_pages_fast(ctx)
    if npages != 1:
        npages = yield from (get_user_pages_noio(ctx) if asynchronous else get_user_pages_fast(ctx))
    if npages == 1:
        ctx.writable = True
        return End.MAPPED
    ctx.errno = npages
    page = ctx.page
    if page.pte is Pte.HWPOISON or (page.folio is not None and page.folio.hwpoison):
        ctx.step("is_hwpoison_address", "yes: hwpoison_page", "SIGBUS to V; *async stays false")
        return End.SIGBUS
    if page.vma.backing is Backing.PFNMAP:
        ctx.step(
            "vma->vm_flags & VM_PFNMAP",
            "yes",
            "pfn computed from vm_pgoff; BUG_ON(!kvm_is_mmio_pfn(pfn)): no; *async stays false",
        )
        ctx.errno = 0
        ctx.writable = True
        return End.MAPPED
    return (yield from _failed(ctx, asynchronous=asynchronous))


def _failed(ctx: Context, *, asynchronous: bool) -> Steps[End]:
    """The branch in which v7 sets *async, and in which it trusts find_vma too much."""
    yield from ()
    vma, kernel = ctx.page.vma, ctx.kernel
    if vma.backing is Backing.NO_VMA:
        if asynchronous and kernel.v7_bugs:
            if vma.next_writable is None:
                ctx.step("vma == NULL, then vma->vm_flags", "NULL dereference", "v7 reads the flags of no VMA: oops",
                         Mark.REFUSED)  # fmt: skip
                return End.OOPS
            writable = vma.next_writable
            ctx.step("vm_flags of the VMA above the address", "VM_WRITE" if writable else "no VM_WRITE",
                     "v7 tests the flags of another VMA")  # fmt: skip
        else:
            writable = False
            ctx.step("find_vma", "no VMA at this address", "fault_page")
    else:
        writable = vma.writable
    if asynchronous and writable:
        ctx.is_async = True
        ctx.step("async && !(VM_PFNMAP) && VM_WRITE", f"*async = true (GUP said {ctx.errno})", "whatever it was",
                 holds=True)  # fmt: skip
        ctx.step("return_fault_page", "get_page(fault_page)", "the caller asks *async before it looks at the page")
        return End.ASYNC
    if asynchronous:
        ctx.step("async && !(VM_PFNMAP) && VM_WRITE", "*async stays false", "no write access: nothing to wait for",
                 holds=False)  # fmt: skip
    ctx.errno = -EFAULT
    ctx.step("return_fault_page", "get_page(fault_page): -EFAULT", "KVM_RUN fails")
    return End.ERROR


@kernel_function("arch/x86/mm/gup.c")
def __get_user_pages_fast(ctx: Context) -> Steps[int]:
    """Interrupts off, page tables only; does not fall back."""
    yield from ()
    ok = ctx.page.pte is Pte.WRITABLE and ctx.page.vma.backing is not Backing.PFNMAP
    ctx.step("fast path, write=1", f"{ctx.page.pte}: {'1 page' if ok else '0 pages'}", "IRQ-safe: no fall-back")
    return int(ok)


@kernel_function("arch/x86/mm/gup.c")
def get_user_pages_fast(ctx: Context) -> Steps[int]:
    """The same walk, then get_user_pages under mmap_sem."""
    if ctx.page.pte is Pte.WRITABLE and ctx.page.vma.backing is not Backing.PFNMAP:
        ctx.step("fast path, write=1", "1 page", "present and writable")
        return 1
    ctx.step("fast path, write=1", f"{ctx.page.pte}: 0 pages", "falls back to get_user_pages, mmap_sem held for read")
    return (yield from get_user_pages(ctx))


@kernel_function("mm/memory.c")
def get_user_pages(ctx: Context) -> Steps[int]:
    """All faults allowed."""
    ctx.step("FOLL_MINOR, FOLL_FORCE", "not passed", "major faults are handled, in this thread; force is 0")
    return (yield from __get_user_pages(ctx, Foll2010.TOUCH | Foll2010.GET | Foll2010.WRITE))


@kernel_function("mm/memory.c")
def get_user_pages_noio(ctx: Context) -> Steps[int]:
    """v6 01/12: only minor faults; mmap_sem is held for read around the whole call."""
    ctx.step("FOLL_MINOR", "passed; FOLL_FORCE not, force is 0", "down_read(mmap_sem) around the whole call")
    return (yield from __get_user_pages(ctx, Foll2010.TOUCH | Foll2010.MINOR | Foll2010.GET | Foll2010.WRITE))


@kernel_function("mm/memory.c")
def __get_user_pages(ctx: Context, flags: Foll2010) -> Steps[int]:
    """Look at the page table, fault in, look again."""
    vma = ctx.page.vma
    ctx.step("gup_flags", show_flags("FOLL_", flags), "one page")
    if vma.backing is Backing.NO_VMA or vma.backing is Backing.PFNMAP or not vma.writable:
        ctx.step("vma, VM_IO | VM_PFNMAP, VM_WRITE", f"{vma.backing}, {'writable' if vma.writable else 'read-only'}",
                 "-EFAULT", Mark.REFUSED)  # fmt: skip
        return -EFAULT
    fault = FaultFlag2010.WRITE
    if Foll2010.MINOR in flags:
        fault |= FaultFlag2010.MINOR
    while True:
        if ctx.env.signal_pending:
            ctx.step("fatal_signal_pending", "-ERESTARTSYS", "the process is being killed", Mark.REFUSED)
            return -ERESTARTSYS
        if (yield from follow_page(ctx)):
            return 1
        if vma.backing is Backing.HUGETLB:
            ret = yield from hugetlb_no_page(ctx)
        else:
            ret = yield from handle_mm_fault(ctx, fault)
        if ret & VM_FAULT_ERROR_2010:
            if ret & VmFault2010.OOM:
                ctx.step(show_flags("VM_FAULT_", ret), "-ENOMEM", "VM_FAULT_OOM is tested first")
                return -ENOMEM
            ctx.step(show_flags("VM_FAULT_", ret), "-EFAULT", "VM_FAULT_HWPOISON or VM_FAULT_SIGBUS")
            return -EFAULT
        if vma.backing is Backing.HUGETLB:
            continue  # follow_hugetlb_page does not account
        major = bool(ret & VmFault2010.MAJOR)
        ctx.major = ctx.major or major
        ctx.count(maj=int(major), min=int(not major))
        ctx.step("VM_FAULT_MAJOR", "tsk->maj_flt++" if major else "tsk->min_flt++", "look again", holds=major)


@kernel_function("mm/memory.c")
def follow_page(ctx: Context) -> Steps[bool]:
    """The page of the PTE if it is present and writable (FOLL_WRITE)."""
    yield from ()
    ok = ctx.page.pte is Pte.WRITABLE
    ctx.step("pte_present && pte_write", f"{ctx.page.pte}: {'yes' if ok else 'no'}",
             "take a reference" if ok else "handle_mm_fault")  # fmt: skip
    return ok


@kernel_function(MMU)
def kvm_arch_async_page_ready(ctx: Context) -> Steps[End]:
    """v7: fault the page in again in V (no_apf), error code 0."""
    ctx.step("mmu.page_fault(gva, 0, no_apf)", "prefetch", "the result is ignored")
    return (yield from tdp_page_fault(ctx, prefetch=True))


@kernel_function("virt/kvm/async_pf.c")
def async_pf_execute(ctx: Context) -> Steps[End]:
    """v7 worker: get_user_pages(write=1), without FOLL_MINOR."""
    ctx.step("use_mm, down_read(mmap_sem)", "get_user_pages(write=1)", "the read is issued and waited for here")
    npages = yield from get_user_pages(ctx)
    ctx.errno = min(npages, 0)
    ctx.step("get_user_pages", f"{npages}", "trace kvm_async_pf_completed, wake the vCPU")
    return End.MAPPED if npages == 1 else End.ERROR
