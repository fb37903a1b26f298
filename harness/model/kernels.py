# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel behaviours as data: a KernelModel for each kernel from 5.10 up, each difference in behaviour a named field.

The variant says how KVM asks the memory management for a page (``sync``, ``noio``, ``nowait``); the other fields are
the differences that change a prediction or a citation, and ``kernel_changes`` is their history.  Beside that the 2.6.3x
era with the v5-v7 patches of the mailing list.  Nothing outside this module compares releases.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

from harness.errors import ModelError
from harness.model.kernel_changes import CHANGES, READ_RELEASES, Change, Release

_T = TypeVar("_T")


class Variant(StrEnum):
    """How the vCPU thread asks for a page."""

    SYNC = "sync"  # before the series: gfn_to_pfn, everything in the vCPU thread
    NOIO = "noio"  # the mailing-list series: get_user_pages_noio / FOLL_MINOR refuses before any I/O
    NOWAIT = "nowait"  # merged: FOLL_NOWAIT starts the I/O and does not wait for it


class Port(StrEnum):
    """Which form of the noio series; NONE for the other variants."""

    NONE = ""
    V7 = "v7"  # on its own base, 2.6.3x
    P1 = "P1"  # minimal port to 6.1: FOLL_MINOR through get_user_pages_unlocked, no shmem hook
    P2 = "P2"  # faithful port to 6.1 and 7.3: plain GUP under mmap_lock without retry, shmem hook


@dataclass(frozen=True, slots=True)
class KernelModel:
    """Everything that the model asks about a kernel; the values below are those of 5.10.

    Each field is one difference in behaviour; ``kernel_changes.CHANGES`` says which release brought it.  ``release``
    is the stable release, for instance (6, 1, 192); nothing but this module compares it.
    """

    name: str
    variant: Variant
    release: Release
    port: Port = Port.NONE
    v7_bugs: bool = False  # reproduce v7's hva_to_pfn: vma == NULL dereference, flags of the next VMA (A.0.8)

    # --- how KVM asks for the page, and what get_user_pages is and can do
    era_2010: bool = False  # mm of 2.6.3x: unconditional lock_page, no retry, no KSM/THP/userfaultfd of today's kind
    shmem_minor_hook: bool = False  # FAULT_FLAG_MINOR is looked at on a shmem swap-cache miss (v7, P2)
    faultin_split: bool = False  # kvm_faultin_pfn itself handles error pfns; __kvm_faultin_pfn gets the page
    stale_before_lock: bool = False  # kvm_faultin_pfn asks whether the mmu notifier ran, before mmu_lock is taken
    foll_renumbered: bool = False  # FOLL_* has new bits, some of them internal to mm/
    gup_hugetlb_apart: bool = True  # follow_hugetlb_page calls hugetlb_fault itself, without handle_mm_fault
    interruptible_gup: bool = False  # the blocking GUP passes FOLL_INTERRUPTIBLE
    sigpending_pfn: bool = False  # -EINTR from GUP becomes KVM_PFN_ERR_SIGPENDING, not async

    tdp_mmu: bool = False  # the TDP MMU maps pages of L1: no __direct_pte_prefetch of their neighbours
    prefetches_last_run: bool = False  # __direct_pte_prefetch fills a run that reaches the end of the aligned eight

    # --- swap and accounting
    do_poll: bool = True  # a read-ahead window of one page is read synchronously (mm/page_io.c:swap_readpage)
    bdev_rw_page: bool = True  # a synchronous swap device is read by bdev_read_page: no bio
    zero_map: bool = False  # all-zero pages are not written out: the zero map answers the read
    congested_single_page: bool = True  # cluster mode: congested device reads one page synchronously
    swapin_read_writable: bool = False  # do_swap_page maps an exclusive page writable for a read too
    shmem_swapin_sync: bool = False  # shmem reads a page of a synchronous swap device alone, without read-ahead
    large_folio_swapin: bool = False  # synchronous devices may swap in a large folio
    pgfault_counts_retry: bool = True  # PGFAULT at each handle_mm_fault entry, RETRY attempts too
    wp_counts_references: bool = True  # do_wp_page reuses only if page_count is 1: not while in the swap cache
    swap_pte_exclusive: bool = False  # a page that comes from swap is its VMM's alone as before: a write asks no more
    dirtying_retries: bool = True  # fault_dirty_shared_page drops mmap_lock: VM_FAULT_RETRY, though the page is mapped
    memcg_events_batched: bool = True  # memory.stat shows an event only when a CPU has 33 of them

    hwpoison_after_lock: bool = False  # do_swap_page locks a folio of the swap cache before it looks for poison
    swap_reads_joined: bool = False  # pages of one read-ahead that follow on each other on the device are one bio
    locked_hit_keeps_miss: bool = False  # do_async_mmap_readahead takes no miss back for a folio that is locked
    prefetch_keeps_entry: bool = False  # a ready event's prefetch leaves a read-only entry of the page as it is
    fault_around_one_hit: bool = False  # filemap_map_pages takes one miss back, for the page that was touched
    marker_is_expected: bool = False  # a marker just behind the last window is somebody else's
    next_miss_tells_none: bool = False  # a marker before 32 cached pages reads nothing, no longer what is behind them
    ext4_large_folios: bool = False  # read-ahead of a file on ext4 may bring folios of several pages
    read_around_single: bool = False  # page_cache_ra_order no longer adds two to the order: a read-around has order 0
    fault_maps_folio: bool = False  # filemap_map_pages and finish_fault map all of a large folio, not only their block
    sync_swapin_shared: bool = False  # SWP_SYNCHRONOUS_IO passes by the read-ahead whatever the slot's count

    # --- the async page fault protocol
    repeated_fault_event: str = "kvm_async_pf_doublefault"
    token_with_paging_off: bool = True  # kvm_can_deliver_async_pf does not test CR0.PG
    cr0_pg_clears_queue: bool = True  # a CR0.PG change clears the completion queue
    cr0_pg_set_requests_ready: bool = False  # CR0.PG 0 -> 1 requests KVM_REQ_APF_READY
    reset_keeps_halt: bool = True  # F1: EN=0 and KVM_SET_MP_STATE of a VMM's reset leave apf.halted set
    halt_polls: bool = True  # an APF halt goes through halt polling and emits kvm_vcpu_wakeup
    running_checks_nested: bool = True  # kvm_vcpu_running has an L2 exit to its L1 from within a halt, which goes on
    prefetch_keeps_error_code: bool = False  # kvm_arch_async_page_ready faults with the original error code
    token_never_zero: bool = False  # alloc_apf_token skips id<<12 == 0
    lapic_disabled_defers: bool = False  # no ready event while the LAPIC is disabled
    always_flush_work: bool = False  # the consumer flushes each work before freeing it
    pre_fault_memory: bool = False  # KVM_PRE_FAULT_MEMORY: a VMM asks for guest memory, and waits for it
    pf_taken_statistic: bool = False  # the VM counts pf_taken, pf_fixed, pf_spurious and pf_emulate of every fault
    needs_pf_intercept: bool = True  # F4: AMD: an async #PF of an L2 is L1's only if L1 intercepts #PF
    vmexit_needs_request: bool = False  # F2: a #PF vmexit is queued without KVM_REQ_EVENT
    sync_loses_vmexit: bool = False  # F3: reading and writing a vCPU's events makes a #PF vmexit a #PF of L2
    init_keeps_l2_tables: bool = True  # F6: AMD: an INIT ends guest mode, and leaves the tables for L2 in use
    ready_clears_kick: bool = False  # F9: a ready event clears pv_unhalted of a vCPU that runs
    kick_ends_halts: bool = True  # F10: no halt lasts behind a kick in an artificial one, as no HLT uses it
    masked_interrupt_spins: bool = True  # F8: AMD: an L2 executes nothing while an interrupt that L1 masks is pending
    window_is_l2s: bool = True  # F7: AMD: KVM's window for an interrupt of L1, which has IF=0, is an interrupt of L2
    en_needs_shared_area: bool = False  # a write of EN with an area that cannot be bound leaves the MSR as it was

    @property
    def has_apf(self) -> bool:
        """Whether async page fault events can exist at all."""
        return self.variant is not Variant.SYNC

    @property
    def l2_tokens_exit(self) -> bool:
        """A token of an L2 is an exit to L1 before anything else, unless the VMM comes between."""
        return not (self.needs_pf_intercept or self.vmexit_needs_request)

    @property
    def l2_gets_no_token(self) -> bool:
        """It is at no time given to L2, unless the VMM comes between."""
        return not self.needs_pf_intercept

    @property
    def version(self) -> str:
        """The release for people: "6.1.192", "2.6.3x"."""
        return "2.6.3x" if self.era_2010 else _dotted(self.release)

    def as_of(self, history: tuple[tuple[Release, _T], ...]) -> _T:
        """The newest entry of a history, oldest first, that is not above this kernel's release.

        :raise ModelError: all entries are.
        """
        found = [entry for since, entry in history if self.release[: len(since)] >= since]
        if not found:
            raise ModelError(f"{self.name}: what the model asks for came with {history[0][0]} only")
        return found[-1]


@functools.cache
def _dotted(release: Release) -> str:
    return ".".join(str(n) for n in release)


_READ = {release[:2]: release[2] for release in READ_RELEASES}
"""The stable levels that were read, taken when a release string does not tell its own."""
OLDEST = (5, 10)
_PORTED = ((6, 1), (7, 3))
"""The series to which noio was ported: kernels/patches."""


def _described(variant: Variant, release: Release) -> KernelModel:
    """A kernel of 5.10 or later: 5.10 and what came after it."""
    later = {change.field: change.value for change in CHANGES if change.in_release(release)}
    series = f"{release[0]}.{release[1]}"
    return replace(KernelModel(f"{variant}-{series}", variant, release), **later)  # type: ignore[arg-type]


def _read(variant: Variant, *series: int) -> KernelModel:
    return _described(variant, (*series, _READ[series[0], series[1]]))


def _noio_port(release: Release, port: Port) -> KernelModel:
    name = f"noio-{release[0]}.{release[1]}" + ("" if port is Port.P2 else "-p1")
    return replace(_described(Variant.NOIO, release), name=name, port=port, shmem_minor_hook=port is Port.P2)


def _of_2010(name: str, variant: Variant, port: Port = Port.NONE, *, v7_bugs: bool = False) -> KernelModel:
    """2.6.3x; for its own walk (memory_2010.py) only what is said here counts."""
    return KernelModel(
        name, variant, (2, 6, 37), port, v7_bugs, era_2010=True, shmem_minor_hook=port is Port.V7,
        do_poll=False, congested_single_page=False, wp_counts_references=False, memcg_events_batched=False,
        halt_polls=False,
    )  # fmt: skip


_KNOWN = {
    k.name: k
    for k in (
        _of_2010("sync-2010", Variant.SYNC),
        _read(Variant.SYNC, 6, 1),
        _of_2010("noio-v7", Variant.NOIO, Port.V7),
        _of_2010("noio-v7-bugs", Variant.NOIO, Port.V7, v7_bugs=True),
        _noio_port((6, 1, _READ[6, 1]), Port.P2),
        _noio_port((6, 1, _READ[6, 1]), Port.P1),
        _noio_port((7, 3, _READ[7, 3]), Port.P2),
        *(_read(Variant.NOWAIT, *series) for series in _READ),
    )
}
_SHORT = {"sync": "sync-2010", "noio": "noio-v7", "nowait": "nowait-6.1", "noio-6.1-p2": "noio-6.1"}

KERNEL_NAMES: tuple[str, ...] = tuple(_KNOWN)


def find_kernel(name: str) -> KernelModel:
    """The model of a kernel by its name (or a short name: sync, noio, nowait).

    :raise ModelError: no such kernel; the message lists the known names.
    """
    kernel = _KNOWN.get(_SHORT.get(name, name))
    if kernel is None:
        raise ModelError(f"unknown kernel {name!r}", hint=f"known: {', '.join(_KNOWN)}; short: {', '.join(_SHORT)}")
    return kernel


def parse_release(text: str) -> tuple[int, int, int]:
    """The upstream stable release in a uname string.

    Debian's ``uname -r`` says 6.1.0-56 for a 6.1.192; so a release in parentheses or after "Debian" wins.  When only
    such an ABI name is there, the sublevel is that of the tree that was read.
    :raise ModelError: no release in the text.
    """
    candidate = re.search(r"(\d+)\.(\d+)(?:\.0)?[-~]rc\d", text)  # 7.3-rc7, Debian's 7.3~rc7: before 7.3.1
    if candidate is not None:
        return int(candidate[1]), int(candidate[2]), 0
    exact = re.search(r"\((\d+)\.(\d+)\.(\d+)\b", text) or re.search(r"Debian (\d+)\.(\d+)\.(\d+)\b", text)
    found = exact or re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    if found is None:
        raise ModelError(f"no kernel release in {text!r}", hint="expected something like 6.1.192")
    major, minor = int(found[1]), int(found[2])
    abi_name = exact is None and (found[3] is None or re.match(r"\d+\.\d+\.0-\d+", text[found.start() :]) is not None)
    sub = _READ.get((major, minor), 0) if abi_name else int(found[3])
    return major, minor, sub


def kernel_for(variant: Variant | str, release: str, *, port: Port = Port.NONE) -> KernelModel:
    """The model of a kernel of this variant and release: 5.10 and every change up to it, backports included.

    A release that nobody has read, newer or in between, is described by the changes that are known to be in it.

    :raise ModelError: unknown variant; a release before 5.10 (but 2.6.3x); a noio kernel of a series without a port.
    """
    try:
        variant = Variant(variant)
    except ValueError:
        raise ModelError(f"unknown variant {variant!r}", hint=f"known: {', '.join(Variant)}") from None
    exact = parse_release(release)
    series = f"{exact[0]}.{exact[1]}"
    if exact[:2] == (2, 6) and variant is not Variant.NOWAIT:
        return find_kernel("sync-2010" if variant is Variant.SYNC else "noio-v7")
    if exact[:2] < OLDEST:
        raise ModelError(f"the behaviour of Linux {series} is not described", hint="described: 5.10 and later")
    if variant is not Variant.NOIO:
        return _described(variant, exact)
    if exact[:2] not in _PORTED:
        ported = " and ".join(f"{major}.{minor}" for major, minor in _PORTED)
        raise ModelError(f"there is no noio port to {series}", hint=f"the series is ported to {ported}")
    return _noio_port(exact, port or Port.P2)


def changes_between(a: KernelModel, b: KernelModel, field: str) -> tuple[Change, ...]:
    """The changes of this field that one of two kernels has and the other has not, oldest first."""
    return tuple(c for c in CHANGES if c.field == field and c.in_release(a.release) != c.in_release(b.release))
