# SPDX-License-Identifier: GPL-2.0-or-later
"""Swap read-ahead that a plan does not decide."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract import plan as p
from harness.model.kernels import find_kernel
from harness.model.outcomes import Count, Outcome
from harness.model.simulation import simulate as module_of_runs
from harness.model.simulation import unknown_readahead as module
from harness.model.simulation.machine import run_once
from harness.model.simulation.situation import Situation, Timing, with_timing
from harness.model.simulation.unknown_readahead import unknown_readahead, unknown_slots, widen_windows
from harness.prediction import predict, situation_of

MS = 1_000_000
N61 = find_kernel("nowait-6.1")


def memfd(page_cluster: int) -> p.Plan:
    """Eight pages in a row on swap, each touched."""
    pages = tuple(p.Page(p.POOL_GPA + n * p.PAGE_SIZE, p.PageStart.SWAPPED, f"f[{n}]") for n in range(8))
    items = tuple(p.Item(n, p.Op.TOUCH, gpa=page.gpa, wait=True, page=page.name) for n, page in enumerate(pages))
    return p.Plan(
        scenario="slots", title="", nonce=7, guest=p.Guest(memory_mib=96), items=items, pages=pages,
        memory=p.Memory(p.Backing.MEMFD, share=True), swap=p.Swap(page_cluster=page_cluster),
    )  # fmt: skip


def two_vcpus(page_cluster: int = 3, pause_us: int = 0, kind: p.SwapKind = p.SwapKind.DELAY) -> p.Plan:
    """Each touches four pages of its own, far apart."""
    pages = tuple(p.Page(p.POOL_GPA + n * 64 * p.PAGE_SIZE, p.PageStart.SWAPPED, f"f[{n}]") for n in range(8))
    items = tuple(
        p.Item(n, p.Op.TOUCH, vcpu=n // 4, gpa=page.gpa, wait=True, page=page.name, pause_us=pause_us * (n == 4))
        for n, page in enumerate(pages)
    )
    return p.Plan(
        scenario="windows", title="", nonce=7, guest=p.Guest(memory_mib=96, vcpus=2), items=items, pages=pages,
        memory=p.Memory(), swap=p.Swap(kind=kind, page_cluster=page_cluster),
    )  # fmt: skip


def _situation(plan: p.Plan) -> Situation:
    return situation_of(plan, N61)


@pytest.mark.parametrize(("page_cluster", "places"), [(0, 0), (1, 1), (2, 3), (3, 7), (4, 15), (6, 63)])
def test_each_place_in_a_block_is_tried(page_cluster: int, places: int) -> None:
    situation = _situation(memfd(page_cluster))
    found = unknown_slots(situation)
    first = [each.pages[0].page.swap for _, each in found]
    assert {slot.offset for slot in first if slot} == set(range(2, 2 + places))
    if 0 < page_cluster <= 3:
        assert len(found) == places * (1 + len(unknown_readahead(situation)))
    for _, each in found:
        slots = [page.page.swap.offset for page in each.pages if page.page.swap]
        assert slots == list(range(slots[0], slots[0] + 8)), "they stay as they lie to each other"


def test_slots_that_are_known_and_windows_without_them_are_left_alone() -> None:
    situation = _situation(memfd(2))
    assert unknown_slots(replace(situation, swap_offsets_known=True)) == []
    assert unknown_slots(_situation(two_vcpus())) == [], "swap_vma_readahead goes by addresses"


def test_whoever_begins_a_block_is_not_known_before_the_run() -> None:
    """S489, seen on 6.1 and noio-6.1: a page began a block that had been said to be read with the one before it."""
    said = predict(memfd(2), N61, orders=1)
    for item in said.items[1:]:
        assert {Outcome.SYNC, Outcome.MINOR} <= {item.outcome, *item.also}, item


def test_two_vcpus_share_the_read_ahead_of_their_memory() -> None:
    """S276: which pages are read alone hung on which vCPU came when."""
    said = predict(two_vcpus(), N61, orders=1)
    sets = [{item.outcome, *item.also} for item in said.items]
    assert all(found == sets[0] for found in sets) and len(sets[0]) > 1
    assert any("share the read-ahead" in note for note in said.notes)


def test_vcpus_that_read_ahead_for_the_first_time_at_once_have_the_same_window() -> None:
    """swap_vma_readahead: who comes second finds the hits gone, unless the first has not noted that yet."""
    situation = _situation(two_vcpus(1))
    firsts = []
    for at_once in (False, True):
        machine = run_once(with_timing(situation, Timing(at_once=at_once)))
        firsts.append([machine.world.items[n].faults[0].outcome for n in (0, 4)])
    assert firsts == [[Outcome.TOKEN, Outcome.SYNC], [Outcome.TOKEN, Outcome.TOKEN]]


def test_who_reads_its_page_alone_counts_where_no_order_that_was_tried_had_it() -> None:
    situation = _situation(two_vcpus())
    said = predict(two_vcpus(), N61, orders=1)
    none = replace(said, totals={**said.totals, "MAJ_V": Count(0, 0), "NMI": Count(0, 0)})
    opened = widen_windows(none, situation).totals
    assert (opened["MAJ_V"].low, opened["NMI"].high) == (0, 0)
    assert opened["MAJ_V"].high == len(situation.steps), "each of them may"


def test_who_would_read_its_page_itself_may_find_that_another_reads_it() -> None:
    """A fresh situation on 6.1 and 6.12: a touch with interrupts off of the last page of another vCPU's window."""
    situation = _situation(two_vcpus())
    said = predict(two_vcpus(), N61, orders=1)
    reader = replace(said.items[0], outcome=Outcome.SYNC, also=())
    known = [replace(i, outcome=Outcome.TOKEN, also=()) for i in said.items[1:]]
    for first, expected in ((reader, True), (replace(reader, outcome=Outcome.TOKEN), False)):
        opened = widen_windows(replace(said, items=(first, *known)), situation)
        assert all((Outcome.BLOCK in (i.outcome, *i.also)) is expected for i in opened.items)


def test_what_else_may_be_late_may_be_with_windows_that_are_chosen_at_once() -> None:
    """A fresh situation on 6.1: EN=0 before the worker had begun, and three windows wider than one page each."""
    timings = (Timing(), Timing("slow workers", worker_ns=MS))
    alone, *both = module_of_runs._at_once(timings)
    assert (alone.at_once, alone.worker_ns) == (True, Timing().worker_ns)
    assert [(t.at_once, t.worker_ns) for t in both] == [(True, t.worker_ns) for t in timings]
    assert len({t.name for t in (alone, *both)}) == 3


def test_what_is_too_much_to_compare_may_come_behind_all_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = two_vcpus()
    whole = predict(plan, N61, orders=1)
    monkeypatch.setattr(module, "_MANY", 6)  # four touches of vCPU 0, and two of vCPU 1 that race with them
    assert [i.also for i in predict(plan, N61, orders=1).items] == [i.also for i in whole.items]


@pytest.mark.parametrize(
    "plan", [two_vcpus(0), two_vcpus(pause_us=900_000), two_vcpus(kind=p.SwapKind.ZRAM)], ids=["alone", "apart", "zram"]
)
def test_what_is_read_alone_or_in_order_or_at_once_is_not(plan: p.Plan) -> None:
    situation = _situation(plan)
    said = predict(plan, N61)
    assert widen_windows(said, situation) == said
