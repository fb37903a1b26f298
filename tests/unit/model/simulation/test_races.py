# SPDX-License-Identifier: GPL-2.0-or-later
"""Two vCPUs on one page of zram, and endings that hang by timing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract import plan as p
from harness.model.kernels import find_kernel
from harness.model.outcomes import Outcome
from harness.model.simulation import simulate as s
from harness.model.simulation.races import racing_touches, widen_late
from harness.prediction import predict, situation_of

N61, NIO = find_kernel("nowait-6.1"), find_kernel("noio-6.1")


def zram(second_pause_us: int = 0, pages: int = 3) -> p.Plan:
    gpas = [p.POOL_GPA + n * 64 * p.PAGE_SIZE for n in range(pages)]
    items = [p.Item(n, p.Op.TOUCH, vcpu=n // pages, gpa=gpas[n % pages], wait=True, page=f"f[{n % pages}]",
                    pause_us=second_pause_us * (n == pages)) for n in range(2 * pages)]  # fmt: skip
    return p.Plan(
        scenario="race", title="", nonce=7, guest=p.Guest(memory_mib=96, vcpus=2), memory=p.Memory(),
        swap=p.Swap(kind=p.SwapKind.ZRAM, page_cluster=0), items=tuple(items),
        pages=tuple(p.Page(g, p.PageStart.SWAPPED, f"f[{n}]") for n, g in enumerate(gpas)),
    )  # fmt: skip


def test_a_race_is_a_set_of_outcomes_and_each_page_is_read_at_least_once() -> None:
    answer = predict(zram(), N61)
    for item in answer.items:
        assert {item.outcome, *item.also} >= {Outcome.SYNC, Outcome.BLOCK, Outcome.NONE, Outcome.FAST, Outcome.MINOR}
    assert (answer.totals["SYNC"].low, answer.totals["SYNC"].high) == (3, 6)
    assert answer.totals["TRY"].high == 0
    noio = predict(zram(), NIO)
    assert all(Outcome.TOKEN in (i.outcome, *i.also) for i in noio.items) and noio.totals["NP"].low == 3


def test_who_reads_a_page_hangs_by_who_comes_first_where_only_one_may_be_told() -> None:
    """Seen on noio-6.1 with sixteen vCPUs: of eight pages that one touches with IF=0, others' workers had read four."""
    plan = zram()
    masked = replace(plan, items=tuple(replace(i, interrupts=i.vcpu == 0) for i in plan.items))
    answer = predict(masked, NIO)
    for name in ("SYNC", "MAJ_V", "NP", "TRY", "DONE", "RDY"):
        assert (answer.totals[name].low, name) == (0, name)
    assert answer.totals["NP"].high >= 3 <= answer.totals["SYNC"].high and answer.totals["PSWPIN"].low == 3
    for item in answer.items:
        assert {item.outcome, *item.also} >= {Outcome.SYNC, Outcome.TOKEN, Outcome.HALT}
    assert predict(masked, N61).totals["SYNC"].low == 3  # it is never asynchronous
    nobody = replace(plan, items=tuple(replace(i, interrupts=False) for i in plan.items))
    assert predict(nobody, NIO).totals["MAJ_V"].low == 3
    one = replace(plan, items=tuple(replace(i, interrupts=i.index != 3) for i in plan.items))
    assert predict(one, NIO).totals["NP"].low == 2


def test_touches_of_which_one_is_after_the_other_do_not_race() -> None:
    plan = zram()
    items = (
        *plan.items[:3],
        p.Item(3, p.Op.AFTER, vcpu=1, value=2),
        *(p.replace_index(i, i.index + 1) for i in plan.items[3:]),
    )
    ordered = replace(plan, items=items)
    assert racing_touches(situation_of(plan, N61)) == {0, 1, 2, 3, 4, 5}
    assert not racing_touches(situation_of(ordered, N61))
    goes_on = replace(ordered, items=tuple(replace(i, wait=False) for i in items))
    assert not racing_touches(situation_of(goes_on, N61))
    assert racing_touches(situation_of(goes_on, NIO)) == {0, 1, 2, 4, 5, 6}  # a kworker may read a page still
    assert not racing_touches(situation_of(ordered, NIO))
    for kernel in (N61, find_kernel("nowait-5.10"), find_kernel("nowait-7.3")):
        answer = predict(ordered, kernel)
        assert [i.outcome for i in answer.items] == [Outcome.SYNC] * 3 + [Outcome.NONE] * 4 and answer.ends
        assert not any(i.also for i in answer.items)


def test_touches_that_are_well_apart_do_not_race() -> None:
    assert not racing_touches(situation_of(zram(second_pause_us=500_000), N61))
    assert not predict(zram(second_pause_us=500_000), N61).items[0].also


@pytest.mark.parametrize("first_ends", [True, False])
def test_an_end_that_hangs_by_timing_is_said(first_ends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline lies between what a quick and a slow device take."""
    gpa = p.POOL_GPA
    plan = p.Plan(scenario="end", title="", nonce=7, guest=p.Guest(memory_mib=96),
                  swap=p.Swap(p.SwapKind.DELAY, delay_ms=990),
                  memory=p.Memory(p.Backing.FILE, share=True), pages=(p.Page(gpa, p.PageStart.DROPPED, "f[0]"),),
                  items=(p.Item(0, p.Op.TOUCH, gpa=gpa, page="f[0]"),), deadline_s=1)  # fmt: skip
    timings = (s.TIMINGS[0], replace(s.TIMINGS[3], device_ns=400_000_000))
    monkeypatch.setattr(s, "TIMINGS", timings if first_ends else timings[::-1])
    answer = predict(plan, N61)
    assert answer.ends is first_ends and not answer.items[0].end_known
    assert answer.undecided_end in answer.notes and "1 works are outstanding" in answer.undecided_end
    assert predict(replace(plan, deadline_s=5), N61).undecided_end == ""


def test_a_work_that_is_cancelled_before_it_has_begun_holds_no_window() -> None:
    """EN is written 0 while two pages of a window are outstanding, which slow workers have not looked at yet."""
    first, second = p.POOL_GPA, p.POOL_GPA + 4096
    pages = (p.Page(first, p.PageStart.SWAPPED, "f[0]"), p.Page(second, p.PageStart.SWAPPED, "f[1]"))
    touches = [p.Item(0, p.Op.TOUCH, gpa=page.gpa, page=page.name) for page in pages]
    writes = [p.Item(0, p.Op.WRMSR, msr=0x4B564D02, value=p.SHARED_GPA + flags) for flags in (0, 9)]
    plan = p.Plan(scenario="cancelled", title="", nonce=7, guest=p.Guest(memory_mib=96),
                  swap=p.Swap(p.SwapKind.GATED, page_cluster=1), memory=p.Memory(), pages=pages,
                  items=(*touches, *writes), deadline_s=5)  # fmt: skip
    answer = predict(plan, N61)
    assert answer.ends and not answer.undecided_end


@pytest.mark.parametrize("acks", [1, 2])
def test_an_end_that_hangs_by_how_quick_the_agent_is_is_said(acks: int) -> None:
    """No handler acknowledges, and the program does so after a pause: in vain, where the pages come later than that."""
    pages = tuple(p.Page(p.POOL_GPA + 4096 * n, p.PageStart.UNTOUCHED, f"u[{n}]") for n in (0, 2))
    touches = [p.Item(0, p.Op.TOUCH, vcpu=1, gpa=page.gpa, page=page.name) for page in pages]
    acked = [p.Item(0, p.Op.WRMSR, vcpu=1, msr=0x4B564D07, value=1, pause_us=100_000)] * acks
    items = [replace(each, index=n) for n, each in enumerate((*touches, p.Item(0, p.Op.HOST, value=0), *acked))]
    host = (p.HostAction(p.HostWord.WAIT_NP, arg=2), p.HostAction(p.HostWord.RELEASE))
    plan = p.Plan(scenario="late", title="", nonce=7, memory=p.Memory(), pages=pages, deadline_s=5,
                  guest=p.Guest(memory_mib=96, vcpus=2, apf=p.Apf(ack=False)),
                  swap=p.Swap(p.SwapKind.USERFAULT, release="step"),
                  items=tuple(items), host_actions=(host,))  # fmt: skip
    answer = predict(plan, N61, orders=1)
    assert answer.ends and "an agent slower than the pauses" in answer.undecided_end


def _two_on_each_page(**more: object) -> p.Plan:
    plan = zram()
    items = tuple(replace(i, interrupts=False) for i in plan.items)
    pages = tuple(replace(page, start=p.PageStart.DROPPED) for page in plan.pages)
    return replace(plan, items=items, pages=pages, memory=p.Memory(p.Backing.FILE, share=True),
                   swap=p.Swap(p.SwapKind.DELAY), **more)  # type: ignore[arg-type] # fmt: skip


def test_who_comes_behind_another_vcpu_on_any_device_may_find_the_page_mapped() -> None:
    """S456: GUP-fast found what had just been copied, where each order that was tried had it mapped or waited for."""
    said = predict(_two_on_each_page(), N61, orders=1)
    late = [item for item in said.items if Outcome.BLOCK in (item.outcome, *item.also)]
    assert late and all({Outcome.FAST, Outcome.NONE} <= {item.outcome, *item.also} for item in late)
    assert said.totals["FAST"].high >= len(late) and all(item.faults.low == 0 for item in late)


def test_one_vcpu_comes_behind_nobody() -> None:
    plan = _two_on_each_page()
    alone = replace(plan, guest=replace(plan.guest, vcpus=1), items=plan.items[:3])
    said = predict(alone, N61, orders=1)
    assert widen_late(said, situation_of(alone, N61)) == said
