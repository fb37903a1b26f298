# SPDX-License-Identifier: GPL-2.0-or-later
"""An access to the VMM's address space that is no guest page fault.

A VMM thread touches guest memory, or KVM itself does so in the vCPU's thread (kvm_read_guest, emulation:
copy_from_user faults).  Either is an ordinary page fault of that thread, arch/x86/mm/fault.c:do_user_addr_fault
(5.10, 6.1, 6.12): no memslot, no async pointer, no FOLL flag.
"""

from __future__ import annotations

from harness.errors import ModelError
from harness.model.kernels import KernelModel
from harness.model.pages import PRESENT, Pte
from harness.model.walk.flags import VM_FAULT_ERROR, FaultFlag, VmFault
from harness.model.walk.gup import Walk
from harness.model.walk.mm_memory import handle_mm_fault
from harness.model.walk.steps import Context, End, Environment, Steps, Thread, WaitKind, WalkWait
from harness.model.walk.write_protect import userfault_missing


def user_access(kernel: KernelModel, *, write: bool, env: Environment | None = None) -> Walk:
    """The walk of such an access; ends MAPPED (the PTE allows it), or ERROR (SIGBUS or -EFAULT for the thread).

    :raise ModelError: a kernel of 2.6.3x, whose do_page_fault is not modelled.
    """
    if kernel.era_2010:
        raise ModelError(f"{kernel.name} is of 2.6.3x: an access that is no guest page fault is not modelled there")
    return Walk(kernel, _do_user_addr_fault, Thread.V, write=write, env=env)


def _do_user_addr_fault(ctx: Context) -> Steps[End]:
    """FAULT_FLAG_DEFAULT: may wait without mmap_lock, then once more with FAULT_FLAG_TRIED."""
    flags = FaultFlag.ALLOW_RETRY | FaultFlag.KILLABLE | FaultFlag.INTERRUPTIBLE
    if ctx.write:
        flags |= FaultFlag.WRITE
    while not _mapped(ctx):
        ret = yield from handle_mm_fault(ctx, flags)
        if ret & VM_FAULT_ERROR:
            return End.ERROR
        if ret & VmFault.RETRY:
            yield from _with_a_signal_pending(ctx)
            flags |= FaultFlag.TRIED
            yield from _once_more(ctx, flags)
    return End.MAPPED


def _with_a_signal_pending(ctx: Context) -> Steps[None]:
    """fault_signal_pending (include/linux/sched/signal.h, 5.10 to 7.3) asks for fatal signals alone where the access is
    the kernel's own: with any other handle_mm_fault is called again and again, each time VM_FAULT_RETRY at once, until
    the page is there."""
    while userfault_missing(ctx.page) and ctx.told():
        yield WalkWait(WaitKind.USERFAULT, "fault_signal_pending", mmap_lock_held=False, state="R")


def _once_more(ctx: Context, flags: FaultFlag) -> Steps[None]:
    """A fault that ended in VM_FAULT_RETRY is made again although the page is mapped by now: it counts as major."""
    yield from ()
    if _mapped(ctx):
        yield from handle_mm_fault(ctx, flags)


def _mapped(ctx: Context) -> bool:
    return ctx.page.pte is Pte.WRITABLE or (not ctx.write and ctx.page.pte in PRESENT)
