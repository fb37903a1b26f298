# SPDX-License-Identifier: GPL-2.0-or-later
"""D60: which pages are in the swap cache when all is over, in a real capture and in what it is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract.plan import PageStart, SwapKind
from harness.evidence.decode import Evidence, decode
from harness.judge.swap_slots import clean_pages, swap_slots
from harness.model.events import Kind
from harness.model.kernels import find_kernel
from harness.model.walk.flags import FaultFlag, VmFault
from tests.unit.judge.packed import packed_capture

NOIO = find_kernel("noio-6.1")
READ_THEN_WRITTEN = 0x1008 << 12
"""S104 on noio-6.1: f[8], read with interrupts off, then written."""
BY_A_WORKER = 0x1048 << 12
"""Its page that a worker asked for, which was written later."""


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """As it was, but for the processors: all was done on one."""
    evidence = decode(packed_capture("read-then-written"))
    return replace(evidence, events=tuple(replace(event, cpu=1) for event in evidence.events))


def _turned(evidence: Evidence, gpa: int) -> Evidence:
    """The same run, had the page been in the swap cache where it was not, or not where it was."""
    assert evidence.after is not None
    page = evidence.after.pages[gpa]
    pages = {**evidence.after.pages, gpa: replace(page, swap_cache=not page.swap_cache)}
    return replace(evidence, after=replace(evidence.after, pages=pages))


def test_a_write_s_fault_frees_the_slot_and_no_later_write_does(evidence: Evidence) -> None:
    assert evidence.after is not None
    pages = evidence.after.pages
    assert (pages[READ_THEN_WRITTEN].swap_cache, pages[BY_A_WORKER].swap_cache) == (True, False)
    assert swap_slots(evidence, NOIO) == ()


def test_a_slot_that_is_freed_by_a_later_write_or_kept_by_the_first_is_named(evidence: Evidence) -> None:
    (freed,) = swap_slots(_turned(evidence, READ_THEN_WRITTEN), NOIO) or ()
    assert "0x1008 is not in the swap cache, and was mapped by a read's fault before it was written" in freed
    (kept,) = swap_slots(_turned(evidence, BY_A_WORKER), NOIO) or ()
    assert "0x1048 is in the swap cache, and the fault that mapped it was a write's" in kept and "trace line" in kept


def test_a_kernel_before_5_18_copies_what_was_read_and_is_written(evidence: Evidence) -> None:
    old = find_kernel("nowait-5.10")
    (said,) = swap_slots(evidence, old) or ()
    assert "copied when it was written" in said
    assert swap_slots(_turned(evidence, READ_THEN_WRITTEN), old) == ()
    assert swap_slots(_turned(evidence, READ_THEN_WRITTEN), replace(old, wp_counts_references=False)) == (), "5.18"


def test_another_cpu_s_look_may_have_left_a_reference(evidence: Evidence) -> None:
    calls = [event for event in evidence.events if event.kind is Kind.MM_FAULT]
    near = next(event for event in calls if event.hva & 0xFF000 == BY_A_WORKER & 0xFF000)
    for other, said in ((near, 0), (calls[0], 1)):  # the first call is of a page too far to be read with this one
        events = tuple(replace(e, cpu=e.cpu + 1) if e is other else e for e in evidence.events)
        assert len(swap_slots(_turned(replace(evidence, events=events), BY_A_WORKER), NOIO) or ()) == said


@pytest.mark.parametrize(("kernel", "named"), [("nowait-7.3", True), ("nowait-6.12", False)])
def test_a_device_that_reads_at_once_keeps_no_slot(evidence: Evidence, kernel: str, named: bool) -> None:
    plan = evidence.plan
    zram = replace(evidence, plan=replace(plan, swap=replace(plan.swap, kind=SwapKind.ZRAM)))
    kept = swap_slots(zram, find_kernel(kernel)) or ()
    assert any("0x1008 is in the swap cache, and its device reads at once" in said for said in kept) is named
    assert not any("0x1048" in said for said in kept), "it has left the swap cache"


@pytest.mark.parametrize("is_over", [True, False])
def test_who_waits_for_the_page_has_a_reference(evidence: Evidence, is_over: bool) -> None:
    """S276 on 6.12: another vCPU's worker slept in its call for the same page."""
    calls = [e for e in evidence.events if e.hva & 0xFF000 == BY_A_WORKER & 0xFF000 and e.kind is Kind.MM_FAULT]
    call = next(e for e in calls if e.worker and e.value & FaultFlag.TRIED)
    end = next(e for e in evidence.of(Kind.MM_FAULT_RET) if e.tid == call.tid and e.t_ns > call.t_ns)
    waits = [replace(call, tid=1, t_ns=call.t_ns - 1)]
    if is_over:
        waits.append(replace(end, tid=1, t_ns=end.t_ns + 1, value=VmFault.RETRY))
    events = tuple(sorted((*evidence.events, *waits), key=lambda e: e.t_ns))
    assert swap_slots(_turned(evidence, BY_A_WORKER), NOIO), "alone"
    assert swap_slots(_turned(replace(evidence, events=events), BY_A_WORKER), NOIO) == ()


def test_who_ended_the_write_back_of_a_page_may_have_a_reference(evidence: Evidence) -> None:
    plan = evidence.plan
    pages = tuple(replace(p, start=PageStart.SWAPCACHE) if p.gpa == BY_A_WORKER else p for p in plan.pages)
    cached = replace(_turned(evidence, BY_A_WORKER), plan=replace(plan, pages=pages))
    assert swap_slots(cached, NOIO) == ()
    assert swap_slots(decode(packed_capture("explored-told-to-stop")), find_kernel("nowait-6.12")) == ()


def test_a_page_that_is_only_read_stays(evidence: Evidence) -> None:
    """Had its write fault not been."""
    low = 0xFF000
    events = tuple(
        e for e in evidence.events
        if e.kind is not Kind.MM_FAULT or not e.value & FaultFlag.WRITE or e.hva & low != READ_THEN_WRITTEN & low
    )  # fmt: skip
    only_read = replace(evidence, events=events)
    assert swap_slots(only_read, NOIO) == ()
    (gone,) = swap_slots(_turned(only_read, READ_THEN_WRITTEN), NOIO) or ()
    assert "0x1008 is not in the swap cache, and the fault that mapped it was a read's" in gone


def test_nobody_can_tell_where_another_thing_decides(evidence: Evidence) -> None:
    plan = evidence.plan
    zram = replace(plan, swap=replace(plan.swap, kind=SwapKind.ZRAM))
    small = replace(plan, swap=replace(plan.swap, size_mib=0))
    assert [swap_slots(replace(evidence, plan=other), NOIO) for other in (zram, small)] == [None, None]
    assert evidence.facts is not None
    assert swap_slots(replace(evidence, facts=replace(evidence.facts, has_mm_fault=False)), NOIO) is None
    assert swap_slots(replace(evidence, after=None), NOIO) is None


def test_two_calls_at_once_may_both_have_mapped_it(evidence: Evidence) -> None:
    """A call of another thread that begins before the first has come to its end."""
    calls = [e for e in evidence.events if e.kind in (Kind.MM_FAULT, Kind.MM_FAULT_RET)]
    call = next(e for e in calls if e.kind is Kind.MM_FAULT and e.value & FaultFlag.WRITE and e.worker)
    begun = max((e for e in calls if e.kind is Kind.MM_FAULT and e.hva >> 12 == call.hva >> 12 and e.worker),
                key=lambda e: e.t_ns)  # fmt: skip
    end = next(e for e in calls if e.kind is Kind.MM_FAULT_RET and e.tid == begun.tid and e.t_ns > begun.t_ns)
    other = (replace(begun, tid=1, t_ns=begun.t_ns + 1), replace(end, tid=1, t_ns=end.t_ns + 1))
    events = tuple(sorted((*evidence.events, *other), key=lambda e: e.t_ns))
    assert swap_slots(_turned(replace(evidence, events=events), BY_A_WORKER), NOIO) == ()


def test_what_has_no_slot_any_more_is_dirty(evidence: Evidence) -> None:
    assert evidence.after is not None
    assert clean_pages(evidence, NOIO) == ()
    pages = {gpa: replace(page, dirty=page.dirty and False) for gpa, page in evidence.after.pages.items()}
    clean = replace(evidence, after=replace(evidence.after, pages=pages))
    assert clean_pages(clean, NOIO) == (BY_A_WORKER >> 12,), "the other one has its slot still"
    assert clean_pages(clean, find_kernel("nowait-5.10")) is None, "it may be a copy"
    zram = replace(evidence.plan, swap=replace(evidence.plan.swap, kind=SwapKind.ZRAM))
    assert clean_pages(replace(clean, plan=zram), NOIO) is None
    assert clean_pages(replace(clean, after=None), NOIO) is None
