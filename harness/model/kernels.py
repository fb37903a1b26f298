# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel behaviours as data: one KernelModel per kernel that the model knows, each difference a named field.

The variant says how KVM asks the memory management for a page (``sync``, ``noio``, ``nowait``); the other fields are
the version differences that change a prediction.  Trees read: Debian 5.10.262, 6.1.192 and 6.12.117; the 2.6.3x era
with the v5-v7 patches of the mailing list.  Nothing outside this file compares versions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.errors import ModelError


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
    P2 = "P2"  # faithful port to 6.1: plain GUP under mmap_lock without retry, shmem hook


@dataclass(frozen=True, slots=True)
class KernelModel:
    """Everything that the model asks about a kernel.  ``release`` is the stable release, e.g. (6, 1, 192)."""

    name: str
    variant: Variant
    release: tuple[int, ...]
    port: Port = Port.NONE
    v7_bugs: bool = False  # reproduce v7's hva_to_pfn: vma == NULL dereference, flags of the next VMA (A.0.8)

    # --- how GUP is called and what it can do
    era_2010: bool = False  # mm of 2.6.3x: unconditional lock_page, no retry, no KSM/THP/userfaultfd of today's kind
    always_write_gup: bool = False  # KVM's GUP is write=1 for guest reads too (before 2.6.38)
    gup_retry: bool = True  # the async attempt passes `locked`: ALLOW_RETRY|KILLABLE (not v7, not P2)
    shmem_minor_hook: bool = False  # FAULT_FLAG_MINOR is looked at on a shmem swap-cache miss (v7, P2)
    interruptible_gup: bool = False  # the blocking GUP passes FOLL_INTERRUPTIBLE (6.12)
    sigpending_pfn: bool = False  # -EINTR from GUP becomes KVM_PFN_ERR_SIGPENDING, not async (6.12)

    # --- swap and accounting
    do_poll: bool = False  # a read-ahead window of one page is read synchronously (mm/page_io.c:swap_readpage)
    zero_map: bool = False  # all-zero pages are not written out: the zero map answers the read (6.12)
    fixed_swap_window: bool = False  # swap read-ahead always 2^page_cluster, no state (2.6.3x)
    congested_single_page: bool = False  # cluster mode: congested device reads one page synchronously (5.10)
    large_folio_swapin: bool = False  # synchronous devices may swap in a large folio (6.12)
    pgfault_counts_retry: bool = True  # PGFAULT at each handle_mm_fault entry, RETRY attempts too (not 6.12)
    wp_counts_references: bool = False  # do_wp_page reuses only if page_count is 1: not while in the swap cache (5.10)
    memcg_events_batched: bool = False  # memory.stat shows an event only when a CPU has 33 of them (5.10)

    # --- the async page fault protocol (behaviour.md B.18)
    repeated_fault_event: str = "kvm_async_pf_repeated_fault"
    token_with_paging_off: bool = False  # kvm_can_deliver_async_pf does not test CR0.PG (5.10)
    cr0_pg_clears_queue: bool = False  # a CR0.PG change clears the completion queue
    cr0_pg_set_requests_ready: bool = True  # CR0.PG 0 -> 1 requests KVM_REQ_APF_READY
    halt_polls: bool = False  # an APF halt goes through halt polling and emits kvm_vcpu_wakeup (5.10)
    prefetch_keeps_error_code: bool = False  # kvm_arch_async_page_ready faults with the original error code (6.12)
    work_holds_mm: bool = True  # a queued work holds mm_users (5.10, 6.1)
    token_never_zero: bool = True  # alloc_apf_token skips id<<12 == 0
    lapic_disabled_defers: bool = True  # no ready event while the LAPIC is disabled
    always_flush_work: bool = True  # the consumer flushes each work before freeing it
    can_do_checks_vmexit: bool = True  # kvm_can_do_async_pf also looks at exception_vmexit and triple fault (6.1+)
    gup_retries_invalidation: bool = False  # in-progress mmu-notifier invalidation: retry before GUP (6.12)
    guest_nmi_leaves_flags: bool = False  # a guest #PF in NMI leaves apf_reason.flags alone (6.12.115)
    swap_readahead_hits: bool = True  # swap_cache_get_folio keeps hits and PG_readahead in the window state

    @property
    def has_apf(self) -> bool:
        """Whether async page fault events can exist at all."""
        return self.variant is not Variant.SYNC

    @property
    def foll_minor(self) -> bool:
        """Whether V's async attempt is made with FOLL_MINOR (noio) rather than FOLL_NOWAIT."""
        return self.variant is Variant.NOIO


_MM_2010 = {
    "era_2010": True, "always_write_gup": True, "gup_retry": False, "fixed_swap_window": True,
    "swap_readahead_hits": False, "lapic_disabled_defers": False, "always_flush_work": False,
    "token_never_zero": False, "token_with_paging_off": True, "cr0_pg_clears_queue": True,
    "cr0_pg_set_requests_ready": False, "halt_polls": False, "can_do_checks_vmexit": False,
    "repeated_fault_event": "kvm_async_pf_doublefault",
}  # fmt: skip


def _base(variant: Variant, name: str, release: tuple[int, ...], **fields: object) -> KernelModel:
    return replace(KernelModel(name=name, variant=variant, release=release), **fields)  # type: ignore[arg-type]


def _nowait_5_10(sub: int) -> KernelModel:
    return KernelModel(
        name="nowait-5.10", variant=Variant.NOWAIT, release=(5, 10, sub), do_poll=True, congested_single_page=True,
        wp_counts_references=True, memcg_events_batched=True,
        repeated_fault_event="kvm_async_pf_doublefault", token_with_paging_off=True, cr0_pg_clears_queue=True,
        cr0_pg_set_requests_ready=False, halt_polls=True, can_do_checks_vmexit=False, token_never_zero=sub >= 103,
        lapic_disabled_defers=sub >= 119, always_flush_work=sub >= 215,
    )  # fmt: skip


def _nowait_6_1(sub: int) -> KernelModel:
    return KernelModel(
        name="nowait-6.1", variant=Variant.NOWAIT, release=(6, 1, sub), do_poll=True,
        cr0_pg_clears_queue=sub < 160, cr0_pg_set_requests_ready=sub >= 160, always_flush_work=sub >= 84,
    )  # fmt: skip


def _nowait_6_12(sub: int) -> KernelModel:
    return KernelModel(
        name="nowait-6.12", variant=Variant.NOWAIT, release=(6, 12, sub), zero_map=True, large_folio_swapin=True,
        interruptible_gup=True, sigpending_pfn=True, pgfault_counts_retry=False, prefetch_keeps_error_code=True,
        work_holds_mm=False, cr0_pg_clears_queue=sub < 64, cr0_pg_set_requests_ready=sub >= 64,
        gup_retries_invalidation=True, guest_nmi_leaves_flags=sub >= 115,
    )  # fmt: skip


_SERIES = {(5, 10): _nowait_5_10, (6, 1): _nowait_6_1, (6, 12): _nowait_6_12}
_READ = {(5, 10): 262, (6, 1): 192, (6, 12): 117}
"""The stable levels that were read, taken when a release string does not tell its own."""


def _noio_6_1(sub: int, port: Port) -> KernelModel:
    name = "noio-6.1" if port is Port.P2 else "noio-6.1-p1"
    return replace(
        _nowait_6_1(sub), name=name, variant=Variant.NOIO, port=port,
        gup_retry=port is Port.P1, shmem_minor_hook=port is Port.P2,
    )  # fmt: skip


def _noio_v7(bugs: bool) -> KernelModel:
    name = "noio-v7-bugs" if bugs else "noio-v7"
    return _base(Variant.NOIO, name, (2, 6, 37), port=Port.V7, v7_bugs=bugs, shmem_minor_hook=True, **_MM_2010)


_KNOWN = {
    k.name: k
    for k in (
        _base(Variant.SYNC, "sync-2010", (2, 6, 37), **_MM_2010),
        replace(_nowait_6_1(_READ[6, 1]), name="sync-6.1", variant=Variant.SYNC),
        _noio_v7(bugs=False),
        _noio_v7(bugs=True),
        _noio_6_1(_READ[6, 1], Port.P2),
        _noio_6_1(_READ[6, 1], Port.P1),
        _nowait_5_10(_READ[5, 10]),
        _nowait_6_1(_READ[6, 1]),
        _nowait_6_12(_READ[6, 12]),
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
    exact = re.search(r"\((\d+)\.(\d+)\.(\d+)\b", text) or re.search(r"Debian (\d+)\.(\d+)\.(\d+)\b", text)
    found = exact or re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    if found is None:
        raise ModelError(f"no kernel release in {text!r}", hint="expected something like 6.1.192")
    major, minor = int(found[1]), int(found[2])
    abi_name = exact is None and (found[3] is None or re.match(r"\d+\.\d+\.0-\d+", text[found.start() :]) is not None)
    sub = _READ.get((major, minor), 0) if abi_name else int(found[3])
    return major, minor, sub


def kernel_for(variant: Variant | str, release: str, *, port: Port = Port.NONE) -> KernelModel:
    """The model of a kernel of this variant and release, with the differences of its stable level.

    :raise ModelError: unknown variant, or a release whose behaviour is not described (known: 2.6, 5.10, 6.1, 6.12).
    """
    try:
        variant = Variant(variant)
    except ValueError:
        raise ModelError(f"unknown variant {variant!r}", hint=f"known: {', '.join(Variant)}") from None
    major, minor, sub = parse_release(release)
    if (major, minor) == (2, 6) and variant is not Variant.NOWAIT:
        return find_kernel("sync-2010" if variant is Variant.SYNC else "noio-v7")
    if (major, minor) not in _SERIES:
        known = ", ".join(f"{a}.{b}" for a, b in _SERIES)
        raise ModelError(f"the behaviour of Linux {major}.{minor} is not described", hint=f"described: {known}")
    base = _SERIES[major, minor](sub)
    if variant is Variant.NOWAIT:
        return base
    if variant is Variant.SYNC:
        return replace(base, name=f"sync-{major}.{minor}", variant=Variant.SYNC)
    if (major, minor) != (6, 1):
        raise ModelError(f"there is no noio port to {major}.{minor}", hint="the series is ported to 6.1 only")
    return _noio_6_1(sub, port or Port.P2)
