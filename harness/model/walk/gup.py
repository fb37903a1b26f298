# SPDX-License-Identifier: GPL-2.0-or-later
"""Resolve a guest access on the host: walks through the seed's call chain, by thread and purpose.

    walk = vcpu_attempt(kernel, write=False)           # V, with the async pointer (sync kernels: without)
    leg = walk.run(page, readahead)                    # until it ends or sleeps
    while leg.wait:                                    # the simulation lets time pass, then
        leg = walk.run(page_now, readahead_now)        # goes on with the page as it is then
    leg.end, leg.outcome, leg.page, leg.counters, leg.reads

The step functions carry the kernel's names.  gup_2010 and gup_2010_mm: the seed's own chain (2.6.3x, ``sync`` and
``noio`` v7).  gup_x86 (arch/x86/kvm, the worker), gup_kvm (virt/kvm), gup_core (mm/gup.c), gup_memory, gup_swap,
gup_wp, gup_file (mm/): 5.10, 6.1, 6.12 and the ports.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from harness.errors import ModelError
from harness.model.kernels import KernelModel, Variant
from harness.model.outcomes import Outcome
from harness.model.pages import Backing, HostPage, Lock, migrated, read_completed, unlocked, userfault_resolved
from harness.model.readahead import ReadaheadState
from harness.model.walk import gup_2010, kvm_main, x86_mmu
from harness.model.walk.function_names import name_in
from harness.model.walk.steps import (
    STEP_FUNCTIONS,
    Context,
    Counters,
    End,
    Environment,
    Leg,
    Steps,
    Thread,
    VcpuView,
    WaitKind,
)

_DEFAULT_ENV = Environment()


_PORTED = ("mm/gup.c", "get_user_pages_noio")
"""Of the noio series: in no released kernel."""


def cited_functions(kernel: KernelModel) -> frozenset[tuple[str, str]]:
    """(file, function) of all that walks cite in a kernel from 5.10 up, with the names that they have there."""
    found = set()
    for here, modules in STEP_FUNCTIONS.items():
        if here != _PORTED and not all(module.endswith("_2010") for module in modules):
            with suppress(ModelError):  # a function of later releases
                found.add(name_in(kernel, *here))
    return frozenset(found)


class Walk:
    """One walk of one thread; :meth:`run` starts it and, after each wait, goes on with it."""

    def __init__(
        self, kernel: KernelModel, entry: Callable[[Context], Steps[End]], thread: Thread, *, write: bool,
        env: Environment | None, vcpu: VcpuView | None = None, own_read: bool = False,
    ) -> None:  # fmt: skip
        self._kernel, self._entry, self._thread, self._write = kernel, entry, thread, write
        self._env, self._vcpu, self._own_read = env or _DEFAULT_ENV, vcpu or VcpuView(), own_read
        self._ctx: Context | None = None
        self._steps: Steps[End] | None = None

    @property
    def thread(self) -> Thread:
        return self._thread

    def run(self, page: HostPage, readahead: ReadaheadState) -> Leg:
        """Go on until the thread sleeps or the walk ends.

        :raise ModelError: the walk has already ended, or this kernel cannot have such a page.
        """
        check_page(self._kernel, page)
        ctx = self._ctx
        if ctx is None:
            ctx = self._ctx = Context(self._kernel, self._env, self._thread, self._write, page, readahead, self._vcpu)
            ctx.own_read = self._own_read
            self._steps = self._entry(ctx)
        elif self._steps is None:
            raise ModelError("this walk has already ended")
        assert self._steps is not None
        ctx.page, ctx.readahead = page, readahead
        first_step, first_read, before = len(ctx.steps), len(ctx.reads), ctx.counters
        ctx.around.clear()
        ctx.fills.clear()
        ctx.counters = Counters()
        wait = None
        try:
            wait = next(self._steps)
        except StopIteration as stop:
            ctx.end = stop.value
            self._steps = None
        moved, ctx.counters = ctx.counters, before + ctx.counters
        return Leg(
            page=ctx.page, readahead=ctx.readahead, steps=tuple(ctx.steps[first_step:]),
            reads=tuple(ctx.reads[first_read:]), counters=moved, wait=wait, end=ctx.end, outcome=_outcome(ctx),
            errno=ctx.errno, is_async=ctx.is_async, writable=ctx.writable, huge=ctx.huge, major=ctx.major,
            invalidated=ctx.invalidated, around=tuple(ctx.around), fills=tuple(ctx.fills),
        )  # fmt: skip


_ENDS = {
    End.ERROR: Outcome.ERROR, End.SIGBUS: Outcome.ERROR, End.SIGNAL: Outcome.ERROR, End.OOPS: Outcome.ERROR,
    End.EMUL: Outcome.EMUL, End.TOKEN: Outcome.TOKEN, End.HALT: Outcome.HALT, End.REPEATED: Outcome.REPEATED,
}  # fmt: skip


def _outcome(ctx: Context) -> Outcome | None:
    """What the walk comes to; None while it sleeps, or if it wants an async page fault."""
    left = ctx.end is End.SIGNAL and ctx.waits  # the access is made anew when KVM_RUN is called again
    if ctx.end not in (End.MAPPED, End.STALE) and not left:
        return _ENDS.get(ctx.end) if ctx.end else None
    waited = {w.kind for w in ctx.waits}
    if ctx.major or WaitKind.OWN_READ in waited:
        return Outcome.SYNC
    if waited:
        return Outcome.BLOCK
    return Outcome.MINOR if ctx.attempts else Outcome.FAST


def check_page(kernel: KernelModel, page: HostPage) -> None:
    """Refuse what this kernel does not have.

    :raise ModelError: naming the kernel and the thing.
    """
    if not kernel.era_2010:
        return
    hugetlb = page.vma.backing is Backing.HUGETLB
    for there, what in (
        (page.vma.userfaultfd, "userfaultfd"),
        (page.swap is not None and page.swap.zswap, "zswap"),
        (page.folio is not None and page.folio.huge and not hugetlb, "transparent huge page"),
        (page.read_only_slot, "read-only memslot"),
    ):
        if there:
            raise ModelError(f"{kernel.name} is of 2.6.3x, which has no {what}")


def _vcpu_async(ctx: Context) -> Steps[End]:
    kernel = ctx.kernel
    if kernel.era_2010:
        return gup_2010.gfn_to_pfn(ctx) if kernel.variant is Variant.SYNC else gup_2010.gfn_to_pfn_async(ctx)
    return kvm_main.__gfn_to_pfn_memslot(ctx, asynchronous=kernel.variant is not Variant.SYNC)


def _vcpu_blocking(ctx: Context) -> Steps[End]:
    if ctx.kernel.era_2010:
        return gup_2010.gfn_to_pfn(ctx)
    return kvm_main.__gfn_to_pfn_memslot(ctx, asynchronous=False)


def _fault(ctx: Context) -> Steps[End]:
    return gup_2010.tdp_page_fault(ctx) if ctx.kernel.era_2010 else x86_mmu.direct_page_fault(ctx)


def _prefetch(ctx: Context) -> Steps[End]:
    if ctx.kernel.era_2010:
        return gup_2010.kvm_arch_async_page_ready(ctx)
    return x86_mmu.kvm_arch_async_page_ready(ctx)


def _worker(ctx: Context) -> Steps[End]:
    return gup_2010.async_pf_execute(ctx) if ctx.kernel.era_2010 else x86_mmu.async_pf_execute(ctx)


def vcpu_attempt(kernel: KernelModel, *, write: bool, env: Environment | None = None) -> Walk:
    """V asks for the page with the async pointer; ends MAPPED, ASYNC, ERROR, SIGBUS, EMUL, OOPS or SIGNAL."""
    return Walk(kernel, _vcpu_async, Thread.V, write=write, env=env)


def blocking_attempt(
    kernel: KernelModel, *, write: bool, env: Environment | None = None, own_read: bool = False
) -> Walk:
    """V asks without the async pointer: sync kernels, not kvm_can_do_async_pf, queue full.

    :param own_read: the read in flight, if any, was submitted by V's attempt just before (outcome SYNC, not BLOCK).
    """
    return Walk(kernel, _vcpu_blocking, Thread.V, write=write, env=env, own_read=own_read)


def prefetch_attempt(kernel: KernelModel, *, write: bool, env: Environment | None = None) -> Walk:
    """kvm_arch_async_page_ready in V: async attempt, then blocking (behaviour.md B.7); write: of the original fault."""
    return Walk(kernel, _prefetch, Thread.V, write=write, env=env)


def worker_attempt(kernel: KernelModel, *, env: Environment | None = None) -> Walk:
    """W: async_pf_execute, FOLL_WRITE always; ends MAPPED or ERROR, and either means DONE."""
    return Walk(kernel, _worker, Thread.W, write=True, env=env)


def fault_walk(kernel: KernelModel, *, write: bool, vcpu: VcpuView, env: Environment | None = None) -> Walk:
    """The whole page fault of V, with the decision token / halt / repeated / blocking (behaviour.md B.4)."""
    return Walk(kernel, _fault, Thread.V, write=write, env=env, vcpu=vcpu)


def wake(page: HostPage, leg: Leg) -> HostPage:
    """The page when what ``leg.wait`` waits for has happened: read completed, lock released, migrated, copied.

    :raise ModelError: the walk does not wait.
    """
    if leg.wait is None:
        raise ModelError("the walk does not wait for anything")
    return settle(page, leg.wait.kind)


def settle(page: HostPage, kind: WaitKind) -> HostPage:
    """The page when the event of this kind has happened."""
    happens: dict[WaitKind, Callable[[HostPage], HostPage]] = {
        WaitKind.OWN_READ: read_completed, WaitKind.OTHERS_READ: read_completed, WaitKind.PAGE_LOCK: unlocked,
        WaitKind.MIGRATION: migrated, WaitKind.USERFAULT: userfault_resolved,
    }  # fmt: skip
    return happens[kind](page)


def in_flight(page: HostPage) -> WaitKind | None:
    """What will happen to the page by itself: a read in flight ends."""
    return WaitKind.OTHERS_READ if page.folio is not None and page.folio.lock is Lock.READ else None
