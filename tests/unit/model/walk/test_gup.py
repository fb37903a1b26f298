# SPDX-License-Identifier: GPL-2.0-or-later
"""Walks as a simulation uses them: suspended and resumed, interleaved, with counters and reads where they belong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.errors import ModelError
from harness.model.kernels import KERNEL_NAMES, find_kernel
from harness.model.outcomes import Outcome
from harness.model.pages import Folio, HostPage, Lock, Pte, SwapSlot, read_completed
from harness.model.readahead import AllMissing, ReadaheadState
from harness.model.walk import flags as f
from harness.model.walk.access import walk_access
from harness.model.walk.gup import blocking_attempt, prefetch_attempt, settle, vcpu_attempt, wake, worker_attempt
from harness.model.walk.page_states import page_in_state
from harness.model.walk.steps import Counters, End, Environment, Mark, Thread, VcpuView, WaitKind

RA = ReadaheadState()
N61, N510, N612 = find_kernel("nowait-6.1"), find_kernel("nowait-5.10"), find_kernel("nowait-6.12")
P2, P1, V7 = find_kernel("noio-6.1"), find_kernel("noio-6.1-p1"), find_kernel("noio-v7")
SWAPPED = page_in_state("anon", "swapped")


def test_v_submits_w_waits_and_both_account() -> None:
    """A.10, nowait with a slow device: V maj+0 min+0 PGMAJ+1; W's first attempt is not counted, its second is major."""
    leg = vcpu_attempt(N61, write=False).run(SWAPPED, RA)
    assert leg.end is End.ASYNC and leg.is_async and leg.wait is None and leg.outcome is None
    assert leg.counters == Counters(pgfault=1, pgmaj=1, pswpin=8, ra=7)
    (read,) = leg.reads
    assert (read.thread, read.unit, read.synchronous, read.bio) == (Thread.V, "vpn", False, True)
    worker = worker_attempt(N61)
    first = worker.run(leg.page, leg.readahead)
    assert first.wait and first.wait.kind is WaitKind.OTHERS_READ and not first.wait.mmap_lock_held
    assert first.counters == Counters(pgfault=1) and not first.reads
    second = worker.run(wake(first.page, first), first.readahead)
    assert second.end is End.MAPPED and second.counters == Counters(maj=1, pgfault=1)
    assert second.page.pte is Pte.WRITABLE and second.page.swap is None, "D43: W's FOLL_WRITE frees the slot"


def test_worker_after_the_read_has_ended_counts_minor() -> None:
    leg = vcpu_attempt(N61, write=False).run(SWAPPED, RA)
    assert worker_attempt(N61).run(read_completed(leg.page), leg.readahead).counters.min == 1


def test_blocking_attempt_after_nowait_started_the_read() -> None:
    """A.10: waits, TRIED, maj(V)+1 and no PGMAJ; if the read has ended meanwhile, min(V)+1."""
    leg = vcpu_attempt(N61, write=False).run(SWAPPED, RA)
    walk = blocking_attempt(N61, write=False, own_read=True)
    first = walk.run(leg.page, leg.readahead)
    assert first.wait and first.wait.kind is WaitKind.OWN_READ
    last = walk.run(wake(first.page, first), first.readahead)
    assert (last.outcome, last.counters.maj, last.counters.pgmaj) == (Outcome.SYNC, 1, 0)
    assert last.page.pte is Pte.READ_ONLY, "a read resolved in V stays read-only"
    done = blocking_attempt(N61, write=False, own_read=True).run(read_completed(leg.page), leg.readahead)
    assert (done.outcome, done.counters.min, done.counters.maj) == (Outcome.MINOR, 1, 0)


def test_same_gfn_again_under_noio_blocks_until_the_worker_is_done() -> None:
    """Q1, X9: V sleeps in lock_page with mmap_lock held; W maps the page first, V finds the PTE changed."""
    worker = worker_attempt(P2)
    started = worker.run(SWAPPED, RA)
    assert started.wait and [r.thread for r in started.reads] == [Thread.W]
    second = vcpu_attempt(P2, write=False)
    blocked = second.run(started.page, started.readahead)
    assert blocked.wait and (blocked.wait.kind, blocked.wait.mmap_lock_held) == (WaitKind.OTHERS_READ, True)
    mapped = worker.run(wake(started.page, started), started.readahead)
    assert mapped.end is End.MAPPED
    over = second.run(mapped.page, mapped.readahead)
    assert over.outcome is Outcome.BLOCK and over.counters.min == 1 and not over.is_async


def test_same_gfn_again_under_nowait_is_async_again() -> None:
    leg = vcpu_attempt(N61, write=False).run(SWAPPED, RA)
    again = vcpu_attempt(N61, write=True).run(leg.page, leg.readahead)
    assert again.is_async and not again.reads and again.counters == Counters(pgfault=1)


def test_the_prefetch_uses_error_code_0_before_6_12() -> None:
    """B.7: a read, whatever the fault was; with error code 0 the zero page is what a write would find."""
    page = page_in_state("anon", "untouched")
    assert prefetch_attempt(N61, write=True).run(page, RA).page.pte is Pte.ZERO
    assert prefetch_attempt(N612, write=True).run(page, RA).page.pte is Pte.WRITABLE


def test_the_prefetch_blocks_if_the_page_went_away_again() -> None:
    for kernel in (N61, P2, V7):
        leg = prefetch_attempt(kernel, write=False).run(SWAPPED, RA)
        assert leg.wait and leg.wait.kind is WaitKind.OWN_READ
        assert [s.mark for s in leg.steps].count(Mark.GATE) == 1, "asked with the async pointer, then without"


def test_a_page_that_is_reclaimed_while_a_walk_sleeps_is_read_again() -> None:
    walk = blocking_attempt(N61, write=False)
    leg = walk.run(SWAPPED, RA)
    assert leg.wait
    again = walk.run(SWAPPED, leg.readahead)  # as if it had been reclaimed at once
    assert again.wait and len(again.reads) == 1


def test_truncated_while_waiting() -> None:
    """filemap_fault: the page has left the mapping; the fault is taken again and finds the file too short."""
    page = page_in_state("file", "cache-locked")
    for kernel in (N61, P2):
        walk = blocking_attempt(kernel, write=False)
        leg = walk.run(page, RA)
        assert leg.wait
        over = walk.run(replace(page, folio=None, beyond_eof=True), leg.readahead)
        assert over.end is End.ERROR and over.errno == -14


def test_others_map_the_page_meanwhile() -> None:
    """finish_fault and do_cow_fault leave a PTE alone that somebody else has made."""
    for backing, write in (("file", False), ("file-private", True), ("file", True), ("memfd", False)):
        page = page_in_state(backing, "cached")
        locked = replace(page, folio=Folio(lock=Lock.OTHER))
        for kernel in (N61, P2, P1, V7, find_kernel("sync-2010")):
            walk = blocking_attempt(kernel, write=write)
            leg = walk.run(locked, RA)
            assert leg.wait and leg.wait.kind is WaitKind.PAGE_LOCK, (kernel.name, backing)
            over = walk.run(replace(page, pte=Pte.WRITABLE), leg.readahead)
            assert over.end is End.MAPPED and over.page.pte is Pte.WRITABLE and over.outcome is Outcome.BLOCK


def test_write_under_writeback_keeps_the_slot() -> None:
    page = page_in_state("anon", "swapcache-writeback")
    leg = vcpu_attempt(N61, write=True).run(page, RA)
    assert leg.page.pte is Pte.WRITABLE and leg.page.swap is not None
    read = vcpu_attempt(N61, write=False).run(page, RA)
    assert read.page.pte is Pte.READ_ONLY and not read.writable


def test_shared_swap_slot_is_copied_for_a_write() -> None:
    page = page_in_state("anon", "swapcache", swap_count=2)
    for kernel in (N61, V7):
        leg = vcpu_attempt(kernel, write=True).run(page, RA)
        assert leg.page.pte is Pte.WRITABLE and leg.page.swap is None
    assert vcpu_attempt(N61, write=False).run(page, RA).page.pte is Pte.READ_ONLY
    short = replace(page, charge_fails=True)
    assert vcpu_attempt(N61, write=True).run(short, RA).errno == -f.ENOMEM
    assert vcpu_attempt(V7, write=True).run(short, RA).errno == -f.ENOMEM


@pytest.mark.parametrize("kernel", KERNEL_NAMES)
def test_a_pending_sigkill(kernel: str) -> None:
    """B.18: async on 5.10 and 6.1, SIGPENDING from 6.2 on; -ERESTARTSYS in 2.6.3x."""
    env = Environment(signal_pending=True)
    leg = vcpu_attempt(find_kernel(kernel), write=False, env=env).run(SWAPPED, RA)
    if find_kernel(kernel).sigpending_pfn:
        assert (leg.end, leg.outcome, leg.errno) == (End.SIGNAL, Outcome.ERROR, -f.EINTR)
    elif kernel.startswith("sync"):
        assert leg.end is End.ERROR
    else:
        assert leg.is_async


def test_sigkill_while_waiting_ends_the_retry() -> None:
    env = Environment()
    walk = blocking_attempt(N61, write=False, env=env)
    leg = walk.run(SWAPPED, RA)
    assert leg.wait
    walk._ctx.env = replace(env, signal_pending=True)  # type: ignore[union-attr]
    over = walk.run(wake(leg.page, leg), leg.readahead)
    assert over.end is End.ERROR and not over.is_async
    assert any(s.function == "__get_user_pages_locked" and s.result == "-EINTR" for s in over.steps)
    told = walk_access(N612, SWAPPED, write=False, env=Environment(signal_pending=True))
    assert told.outcome is Outcome.ERROR and told.fault.steps[-1].result == "-EINTR"


def test_a_signal_ends_an_interruptible_wait_when_the_page_is_there() -> None:
    """FOLL_INTERRUPTIBLE, 6.2 and later: VM_FAULT_RETRY, gup_signal_pending, KVM_PFN_ERR_SIGPENDING."""
    env = Environment(told=lambda: True)
    for kernel, ends in ((N612, End.SIGNAL), (N61, End.MAPPED)):
        walk = blocking_attempt(kernel, write=False, env=env)
        leg = walk.run(SWAPPED, RA)
        assert leg.wait
        over = walk.run(wake(leg.page, leg), leg.readahead)
        assert (over.end, over.outcome) == (ends, Outcome.SYNC)


def test_userfaultfd() -> None:
    """handle_userfault: RETRY under NOWAIT, SIGBUS without ALLOW_RETRY, else it sleeps; S only if interruptible."""
    for backing in ("anon", "memfd", "hugetlb"):
        page = page_in_state(backing, "untouched", userfaultfd=True)
        assert vcpu_attempt(N61, write=True).run(page, RA).is_async
        for kernel, state in ((N61, "D"), (N612, "S")):
            walk = blocking_attempt(kernel, write=True)
            leg = walk.run(page, RA)
            assert leg.wait and (leg.wait.kind, leg.wait.state) == (WaitKind.USERFAULT, state)
            over = walk.run(wake(leg.page, leg), leg.readahead)
            assert over.end is End.MAPPED and over.outcome is Outcome.BLOCK
    assert vcpu_attempt(P2, write=False).run(page_in_state("anon", "untouched", userfaultfd=True), RA).errno == -14


@pytest.mark.parametrize(("kernel", "counted"), [("nowait-5.10", 0), ("nowait-6.1", 0), ("nowait-6.12", 1)])
def test_hugetlb_is_accounted_where_it_goes_through_handle_mm_fault(kernel: str, counted: int) -> None:
    leg = vcpu_attempt(find_kernel(kernel), write=True).run(page_in_state("hugetlb", "untouched"), RA)
    assert leg.counters == Counters(min=counted, pgfault=counted) and leg.huge


def test_hugetlb_pool_is_empty() -> None:
    page = page_in_state("hugetlb", "untouched", charge_fails=True)
    for kernel in (N61, N612, P2, V7):
        assert walk_access(kernel, page, write=True).outcome is Outcome.LOOP
    assert walk_access(N61, page, write=True, vcpu=VcpuView(can_do=False)).fault.end.errno == -14


def test_no_memory_everywhere() -> None:
    """A.8 row 41 for each place that allocates."""
    for backing, state, write in (
        ("anon", "zero-page", True), ("memfd", "untouched", False), ("memfd", "swapped", False),
        ("file", "dropped", False), ("file-private", "dropped", True), ("file-private", "cached", True),
        ("anon", "untouched", True), ("anon", "ksm", True),
    ):  # fmt: skip
        page = page_in_state(backing, state, charge_fails=True)
        for kernel in (N510, N61, N612, P2, P1, V7):
            assert walk_access(kernel, page, write=write).outcome is Outcome.LOOP, (backing, state, kernel.name)
    fast_zram = page_in_state("anon", "swapped", synchronous=True, charge_fails=True)
    leg = vcpu_attempt(N61, write=False).run(fast_zram, RA)
    assert leg.errno == -f.ENOMEM and not leg.reads and leg.counters.pgmaj == 0


def test_zero_read_only_and_pfnmap_corners() -> None:
    slot = page_in_state("anon", "read-only", read_only_slot=True)
    leg = vcpu_attempt(N61, write=False).run(slot, RA)
    assert leg.end is End.MAPPED and not leg.writable
    assert all(s.function != "get_user_page_fast_only" for s in leg.steps), "writable is NULL: not tried"
    pfn = page_in_state("pfnmap", "untouched", read_only_vma=True)
    assert vcpu_attempt(N61, write=True).run(pfn, RA).end is End.EMUL
    unread = replace(SWAPPED, vma=replace(SWAPPED.vma, readable=False))
    leg = vcpu_attempt(N61, write=False).run(unread, RA)
    assert leg.end is End.ERROR and not leg.is_async, "vma_is_valid wants VM_READ"


def test_poisoned_pages_of_caches() -> None:
    page = replace(page_in_state("anon", "swapcache"), folio=Folio(hwpoison=True))
    assert vcpu_attempt(N61, write=False).run(page, RA).end is End.SIGBUS
    shared = page_in_state("file", "hwpoison")
    for kernel in (N61, P2, V7):
        assert vcpu_attempt(kernel, write=False).run(shared, RA).end is End.SIGBUS


def test_ksm_copy_and_file_read_only_write() -> None:
    for backing in ("file", "memfd", "file-private"):
        page = page_in_state(backing, "read-only")
        for kernel in (N61, P2, V7, find_kernel("sync-2010")):
            leg = vcpu_attempt(kernel, write=True).run(page, RA)
            assert leg.outcome is Outcome.MINOR and leg.page.pte is Pte.WRITABLE


def test_reuse_waits_for_the_lock_in_2010() -> None:
    page = replace(page_in_state("anon", "read-only"), folio=Folio(lock=Lock.OTHER))
    walk = vcpu_attempt(V7, write=True)
    leg = walk.run(page, RA)
    assert leg.wait and leg.wait.kind is WaitKind.PAGE_LOCK
    assert walk.run(wake(leg.page, leg), RA).end is End.MAPPED


def test_failed_reads_in_2010() -> None:
    for backing, state in (("anon", "swapped"), ("memfd", "swapped"), ("file", "not-uptodate")):
        told = walk_access(V7, page_in_state(backing, state, read_fails=True), write=False, vcpu=VcpuView(can_do=False))
        assert told.fault.end.errno == -14, (backing, state)


def test_the_congested_device_of_5_10() -> None:
    """A.4: in cluster mode a congested device also takes the single-page synchronous branch."""
    env = Environment(vma_readahead=False, congested=True)
    assert walk_access(N510, SWAPPED, write=False, env=env).outcome is Outcome.SYNC
    assert walk_access(N61, SWAPPED, write=False, env=env).outcome is Outcome.TOKEN


def test_zero_map_is_asked_page_by_page() -> None:
    class NextIsZero(AllMissing):
        def zero_on_swap(self, unit: str, number: int) -> bool | None:
            return unit == "vpn" and number == SWAPPED.vpn + 1

    env = Environment(neighbours=NextIsZero())
    leg = vcpu_attempt(N612, write=False, env=env).run(SWAPPED, RA)
    assert leg.is_async and (leg.counters.swpin_zero, leg.counters.pswpin) == (1, 7)
    zero = page_in_state("anon", "zero-swapped")
    leg = vcpu_attempt(N612, write=False, env=env).run(zero, RA)
    assert leg.outcome is Outcome.SYNC and (leg.counters.swpin_zero, leg.counters.pswpin) == (2, 6)
    assert leg.reads[0].target not in leg.reads[0].pages


def test_256_touches_at_stride_64() -> None:
    """A.5: 5.10 and 6.1 only the first three isolated faults of a fresh VMA can be async at page-cluster 3."""
    for kernel, expected in ((N510, 3), (N61, 3), (N612, 256), (P2, 256)):
        state, tokens = RA, 0
        for i in range(256):
            page = replace(SWAPPED, vpn=SWAPPED.vma.start + 64 * i, swap=SwapSlot(offset=64 * i + 8))
            walk = vcpu_attempt(kernel, write=False)
            leg = walk.run(page, state)
            while leg.wait:
                leg = walk.run(wake(leg.page, leg), leg.readahead)
            tokens, state = tokens + leg.is_async, leg.readahead
        assert tokens == expected, kernel.name


def test_a_hundred_file_misses_without_apf_stop_read_around() -> None:
    """A.6: a write miss without APF adds up, after 100 of them single pages are read; the retry of a read goes through
    filemap_map_pages, which takes the miss back; with APF the worker's hit does."""
    for name, write, windows in (("sync-6.1", True, 100), ("sync-6.1", False, 120), ("nowait-6.1", True, 120)):
        kernel, state, around = find_kernel(name), RA, 0
        for i in range(120):
            page = replace(page_in_state("file", "dropped"), index=1000 * i)
            told = walk_access(kernel, page, write=write, readahead=state)
            state = told.readahead
            around += sum(len(r.pages) > 1 for r in told.reads(Thread.V))
        assert around == windows, name


def test_a_hit_on_the_marker_submits_the_next_window() -> None:
    """A.6 F1, DF7f: from V, whatever the flags; nothing is waited for, unless mmap_lock had to be dropped."""
    page = page_in_state("file", "cached-readahead")
    behind = replace(RA, file_start=page.index - 24, file_size=32, file_async=8, mmap_miss=5)
    expected = tuple(range(page.index + 8, page.index + 40))
    for kernel in (N61, N612, P2, V7):
        leg = vcpu_attempt(kernel, write=True).run(page, behind)
        (read,) = leg.reads
        assert (leg.end, leg.outcome, leg.counters.pgmaj) == (End.MAPPED, Outcome.MINOR, 0)
        assert (read.thread, read.pages, read.flagged) == (Thread.V, expected, expected[:1])
        assert leg.page.folio == Folio() and leg.readahead.mmap_miss == 4
        quiet = vcpu_attempt(kernel, write=True, env=Environment(ra_pages=0)).run(page, behind)
        assert quiet.end is End.MAPPED and not quiet.reads
    retried = blocking_attempt(N61, write=True).run(page, behind)
    assert retried.counters == Counters(maj=1, pgfault=2), "mmap_lock was dropped: FAULT_FLAG_TRIED counts as major"


@pytest.mark.parametrize("kernel", KERNEL_NAMES)
def test_what_2_6_3x_does_not_have(kernel: str) -> None:
    known = find_kernel(kernel)
    for backing, state, options in (
        ("anon", "untouched", {"userfaultfd": True}), ("anon", "zswapped", {}), ("anon", "thp", {}),
        ("anon", "populated", {"read_only_slot": True}),
    ):  # fmt: skip
        walk = vcpu_attempt(known, write=False)
        page = page_in_state(backing, state, **options)
        if known.era_2010:
            with pytest.raises(ModelError, match=kernel):
                walk.run(page, RA)
        else:
            walk.run(page, RA)


def test_misuse_is_refused() -> None:
    walk = vcpu_attempt(N61, write=False)
    leg = walk.run(HostPage(), RA)
    with pytest.raises(ModelError, match="already ended"):
        walk.run(leg.page, RA)
    with pytest.raises(ModelError, match="does not wait"):
        wake(leg.page, leg)
    for kind, message in (
        (WaitKind.OWN_READ, "no read"), (WaitKind.PAGE_LOCK, "nobody"), (WaitKind.MIGRATION, "not being migrated"),
        (WaitKind.USERFAULT, "no userfaultfd"),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=message):
            settle(HostPage(), kind)


def test_setup_that_fails_ends_in_a_blocking_gup() -> None:
    for kernel in (N61, V7):
        told = walk_access(kernel, SWAPPED, write=False, vcpu=VcpuView(setup_fails=True))
        assert told.outcome is Outcome.SYNC
        told = walk_access(kernel, SWAPPED, write=False, vcpu=VcpuView(live=True))
        assert told.outcome is Outcome.REPEATED and len(told.phases) == 1
        assert walk_access(kernel, SWAPPED, write=False, vcpu=VcpuView(can_deliver=False)).outcome is Outcome.HALT


# --- flags: the bits, and what follows from them --------------------------------------------------------------------


def test_bits_that_the_specification_names() -> None:
    assert (f.Foll2010.MINOR, f.FaultFlag2010.MINOR) == (0x20, 0x08)
    assert (f.Foll.NOWAIT, f.FaultFlag.RETRY_NOWAIT) == (0x20, 0x08), "A port has to choose other bits"
    assert not f.Foll.MINOR & (f.Foll.NOWAIT | f.Foll.TRIED | f.Foll.HWPOISON)


def test_errno_order() -> None:
    to = f.vm_fault_to_errno
    assert to(f.VmFault.MAJOR | f.VM_FAULT_ERROR, foll_hwpoison=True) == -f.ENOMEM
    assert to(f.VmFault.HWPOISON | f.VmFault.SIGBUS, foll_hwpoison=True) == -f.EHWPOISON
    assert to(f.VmFault.HWPOISON_LARGE, foll_hwpoison=False) == -f.EFAULT
    assert to(f.VmFault.SIGSEGV, foll_hwpoison=True) == -f.EFAULT
    assert to(f.VmFault.MAJOR, foll_hwpoison=True) == 0, "A.0.5: MAJOR alone is no error"
    assert f.show("VM_FAULT_", f.VmFault(0)) == "0"
