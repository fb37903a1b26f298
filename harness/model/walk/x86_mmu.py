# SPDX-License-Identifier: GPL-2.0-or-later
"""The x86 part of a guest page fault, the decision of behaviour.md B.4, the prefetch, and the worker.

arch/x86/kvm/mmu/mmu.c and virt/kvm/async_pf.c, from 5.10 on.
"""

from __future__ import annotations

from harness.model.kernels import Variant
from harness.model.walk.flags import EFAULT
from harness.model.walk.function_names import MMU
from harness.model.walk.gup_core import foll_of, get_user_pages_remote
from harness.model.walk.kvm_main import __gfn_to_pfn_memslot
from harness.model.walk.steps import Context, End, Mark, Steps, kernel_function

_ERRORS = (End.ERROR, End.SIGBUS, End.SIGNAL, End.OOPS)


@kernel_function(MMU)
def direct_page_fault(ctx: Context, *, prefetch: bool = False) -> Steps[End]:
    """A fault of the guest's nested page table: get the pfn, map it, or leave it to an async page fault."""
    kernel = ctx.kernel
    if kernel.faultin_split:
        end = yield from kvm_faultin_pfn(ctx, prefetch=prefetch)
    else:
        end = yield from __kvm_faultin_pfn(ctx, prefetch=prefetch)
        if end in _ERRORS:
            yield from kvm_handle_error_pfn(ctx, end)
    if end is End.MAPPED and not kernel.stale_before_lock and (yield from is_page_fault_stale(ctx)):
        end = End.STALE
    if end is End.MAPPED:
        size = "2 MiB" if ctx.huge else "4 KiB"
        ctx.step("pfn", f"{size} SPTE, {'writable' if ctx.writable else 'read-only'}", "the guest goes on")
    elif end is End.STALE:
        ctx.step("RET_PF_RETRY", "back to the guest", "it faults again, and GUP-fast finds the new page")
    elif end in (End.TOKEN, End.HALT, End.REPEATED):
        ctx.step("RET_PF_RETRY", "back to the run loop", "nothing is mapped")
    return end


@kernel_function(MMU)
def kvm_faultin_pfn(ctx: Context, *, prefetch: bool) -> Steps[End]:
    """Get the pfn, handle an error pfn, and ask whether the mmu notifier ran meanwhile."""
    end = yield from __kvm_faultin_pfn(ctx, prefetch=prefetch)
    if end in _ERRORS:
        yield from kvm_handle_error_pfn(ctx, end)
    elif end is End.MAPPED and ctx.kernel.stale_before_lock and (yield from is_page_fault_stale(ctx)):
        return End.STALE
    return end


@kernel_function(MMU)
def is_page_fault_stale(ctx: Context) -> Steps[bool]:
    """Whether the mmu notifier ran since its sequence number was read: what GUP gave may be gone.

    Before 5.16 mmu_notifier_retry: any invalidation of the VMM's address space counts.  Later one that has ended counts
    whatever its range, if it touched a memslot.
    """
    yield from ()
    if ctx.invalidated:
        ctx.step("the notifier's sequence number != mmu_seq", "yes", "this fault's own GUP has replaced a present PTE")
    return ctx.invalidated


@kernel_function(MMU)
def kvm_handle_error_pfn(ctx: Context, end: End) -> Steps[None]:
    """The error pfn becomes what KVM_RUN returns."""
    yield from ()
    if end is End.SIGBUS:
        ctx.step("KVM_PFN_ERR_HWPOISON", "SIGBUS BUS_MCEERR_AR to V", "the fault is retried")
    elif end is End.SIGNAL:
        ctx.step("KVM_PFN_ERR_SIGPENDING", "-EINTR", "KVM_RUN returns, to be called again")
    else:
        ctx.step("is_error_pfn", f"{ctx.errno or -EFAULT}", "KVM_RUN fails, the VMM stops the guest")


@kernel_function(MMU)
def __kvm_faultin_pfn(ctx: Context, *, prefetch: bool) -> Steps[End]:
    """Ask for the page with the async pointer, and decide what becomes of it if it would take I/O."""
    if ctx.kernel.variant is Variant.SYNC:
        ctx.step("async page faults", "not in this kernel", "gfn_to_pfn without the async pointer")
        return (yield from __gfn_to_pfn_memslot(ctx, asynchronous=False))
    end = yield from __gfn_to_pfn_memslot(ctx, asynchronous=True)
    if end is not End.ASYNC:
        ctx.step("async", "false", "no async page fault: map it, or report the error")
        return end
    vcpu = ctx.vcpu
    if prefetch:
        ctx.step("prefetch", "yes", "a prefetch is never asynchronous itself: blocking GUP", Mark.GATE)
    elif not vcpu.can_do:
        ctx.step("kvm_can_do_async_pf", "false" + (f": {vcpu.why}" if vcpu.why else ""), "blocking GUP in V", Mark.GATE)
    elif vcpu.live:
        ctx.step("kvm_find_async_pf_gfn", "live", f"trace kvm_try_async_get_page, {ctx.kernel.repeated_fault_event}; "
                 "KVM_REQ_APF_HALT", Mark.GATE)  # fmt: skip
        return End.REPEATED
    else:
        ctx.step("kvm_can_do_async_pf", "true", "trace kvm_try_async_get_page")
        queued = yield from kvm_setup_async_pf(ctx)
        if queued is not None:
            return queued
    return (yield from __gfn_to_pfn_memslot(ctx, asynchronous=False))


@kernel_function("virt/kvm/async_pf.c")
def kvm_setup_async_pf(ctx: Context) -> Steps[End | None]:
    """Queue a work item and tell the guest; None if it cannot be queued."""
    if ctx.vcpu.setup_fails:
        ctx.step("64 queued, bad hva or no memory", "false", "the id is consumed; blocking GUP in V", Mark.GATE)
        return None
    ctx.step("queue async_pf_execute", "true", "the work starts after kvm_async_pf_not_present was traced")
    return (yield from kvm_arch_async_page_not_present(ctx))


@kernel_function("arch/x86/kvm/x86.c")
def kvm_arch_async_page_not_present(ctx: Context) -> Steps[End]:
    """Token or halt."""
    yield from ()
    why = f": {ctx.vcpu.why}" if ctx.vcpu.why else ""
    if ctx.vcpu.can_deliver:
        ctx.step("kvm_can_deliver_async_pf", f"true{why}", "#PF with CR2 = token is injected", Mark.GATE)
        return End.TOKEN
    ctx.step("kvm_can_deliver_async_pf", f"false{why}", "KVM_REQ_APF_HALT: the vCPU sleeps, interruptibly", Mark.GATE)
    return End.HALT


@kernel_function(MMU)
def kvm_arch_async_page_ready(ctx: Context) -> Steps[End]:
    """The page is announced as ready: fault it in once more, in V, so that the guest finds it mapped."""
    code = "the original error code" if ctx.kernel.prefetch_keeps_error_code else "error code 0"
    ctx.step("prefetch fault", code, "the result is ignored")
    if not ctx.kernel.prefetch_keeps_error_code:
        ctx.write = False
    return (yield from direct_page_fault(ctx, prefetch=True))


@kernel_function("virt/kvm/async_pf.c")
def async_pf_execute(ctx: Context) -> Steps[End]:
    """The worker: the page is brought in, for writing, and the work is put on the done list whatever came of it."""
    ctx.write = True
    npages = yield from get_user_pages_remote(ctx, foll_of(ctx.kernel).WRITE)
    ctx.errno = min(npages, 0)
    ctx.step("get_user_pages_remote", f"{npages}", "the result is ignored; trace kvm_async_pf_completed, wake the vCPU")
    return End.MAPPED if npages == 1 else End.ERROR
