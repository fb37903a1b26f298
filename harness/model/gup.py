# SPDX-License-Identifier: GPL-2.0-or-later
"""Resolve a guest access on the host: walks through the seed's call chain, by thread and purpose.

    walk = vcpu_attempt(kernel, write=False)           # V, with the async pointer (sync kernels: without)
    leg = walk.run(page, readahead)                    # until it ends or sleeps
    while leg.wait:                                    # the simulation lets time pass, then
        leg = walk.run(page_now, readahead_now)        # goes on with the page as it is then
    leg.end, leg.outcome, leg.page, leg.counters, leg.reads

The step functions are in gup_kvm (virt/kvm, arch/x86/kvm), gup_core (mm/gup.c), gup_fault (mm/memory.c), gup_file
(mm/filemap.c, mm/shmem.c) under the kernel's names.
"""

from __future__ import annotations

from harness.model.kernels import KernelModel
from harness.model.pages import HostPage
from harness.model.readahead import ReadaheadState
from harness.model.walk import Environment, Leg, VcpuView


class Walk:
    """One walk of one thread; :meth:`run` starts it and, after each wait, goes on with it."""

    def run(self, page: HostPage, readahead: ReadaheadState) -> Leg:
        """Go on until the thread sleeps or the walk ends.

        :raise ModelError: the walk has already ended.
        """
        raise NotImplementedError


def vcpu_attempt(kernel: KernelModel, *, write: bool, env: Environment | None = None) -> Walk:
    """V asks for the page with the async pointer; ends MAPPED, ASYNC, ERROR, SIGBUS, EMUL, OOPS or SIGNAL."""
    raise NotImplementedError


def blocking_attempt(kernel: KernelModel, *, write: bool, env: Environment | None = None) -> Walk:
    """V asks without the async pointer (sync kernels, not kvm_can_do_async_pf, queue full, prefetch's second try)."""
    raise NotImplementedError


def prefetch_attempt(kernel: KernelModel, *, write: bool, env: Environment | None = None) -> Walk:
    """kvm_arch_async_page_ready in V: async attempt, then blocking (behaviour.md B.7); write: of the original fault."""
    raise NotImplementedError


def worker_attempt(kernel: KernelModel, *, env: Environment | None = None) -> Walk:
    """W: async_pf_execute, FOLL_WRITE always; any end means DONE."""
    raise NotImplementedError


def fault_walk(kernel: KernelModel, *, write: bool, vcpu: VcpuView, env: Environment | None = None) -> Walk:
    """The whole tdp_page_fault of V, with the decision token / halt / repeated / blocking (behaviour.md B.4)."""
    raise NotImplementedError


def wake(page: HostPage, leg: Leg) -> HostPage:
    """The page when what ``leg.wait`` waits for has happened: read completed, lock released, migrated, copied."""
    raise NotImplementedError
