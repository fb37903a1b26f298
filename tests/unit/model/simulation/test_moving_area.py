# SPDX-License-Identifier: GPL-2.0-or-later
"""A shared area that is moved while something is to be told, that cannot be read, or that a userfaultfd fills."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract import plan as p
from harness.contract.probe_abi import SHARED_GPA
from harness.model.events import MSR_ASYNC_PF_ACK, MSR_ASYNC_PF_EN
from harness.model.kernels import find_kernel
from harness.model.outcomes import Count
from harness.model.simulation.situation import Prediction
from harness.prediction import predict

AREA = p.POOL_GPA + 400 * p.PAGE_SIZE
PAGES = tuple(p.Page(p.POOL_GPA + 64 * n * p.PAGE_SIZE, p.PageStart.SWAPPED, f"f[{n}]") for n in range(3))
KERNELS = ("nowait-5.10", "nowait-6.1", "nowait-6.12", "nowait-7.3", "noio-6.1")


def ask(kernel: str, swap: p.Swap, apf: p.Apf, start: p.PageStart, *ops: p.Item) -> Prediction:
    pages = tuple(replace(page, start=start) for page in (*PAGES, p.Page(AREA, start, "s[0]")))
    items = tuple(replace(item, index=n) for n, item in enumerate(ops))
    plan = p.Plan(
        scenario="area", title="", nonce=7, memory=p.Memory(), swap=swap, pages=pages,
        guest=p.Guest(memory_mib=96, idle="spin", apf=apf), items=items, deadline_s=5,
    )  # fmt: skip
    return predict(plan, find_kernel(kernel))


def touch(n: int, *, wait: bool = False) -> p.Item:
    return p.Item(0, p.Op.TOUCH, gpa=PAGES[n].gpa, page=PAGES[n].name, wait=wait)


def enable(area: int) -> p.Item:
    return p.Item(0, p.Op.WRMSR, msr=MSR_ASYNC_PF_EN, value=area | 9)


ACK = p.Item(0, p.Op.WRMSR, msr=MSR_ASYNC_PF_ACK, value=1)
PAUSE = p.Item(0, p.Op.PAUSE, pause_us=600_000)
CLEAR = p.Item(0, p.Op.CLEAR_TOKEN)
DEVICE = p.Swap(p.SwapKind.DELAY, delay_ms=200, page_cluster=3)
MISSING = p.Swap(p.SwapKind.USERFAULT)


def exact(answer: Prediction, **want: int) -> None:
    assert {n: answer.totals[n] for n in want} == {n: Count.exactly(v) for n, v in want.items()}


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_an_area_with_data_kept_back_is_told_to_the_next(kernel: str) -> None:
    """kvm_pv_enable_async_pf looks the address up again: the token word is that of the new area, which is 0."""
    told = ask(
        kernel, DEVICE, p.Apf(en_gpa=AREA), p.PageStart.SWAPPED,
        touch(0), PAUSE, enable(SHARED_GPA), ACK, PAUSE,
    )  # fmt: skip
    assert told.ends
    exact(told, NPt=1, DONE=1, RDY=1, RDY_ALL=1)
    assert not ask(kernel, DEVICE, p.Apf(en_gpa=AREA), p.PageStart.SWAPPED, touch(0), PAUSE, ACK, PAUSE).ends


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_word_that_was_left_is_there_when_the_area_comes_back(kernel: str) -> None:
    """The guest clears no token: a second ready event needs another area, and a third one more."""
    start, other = (touch(0), PAUSE, touch(1), PAUSE), SHARED_GPA + 64
    apf = p.Apf(zero_token=False)
    stuck = ask(kernel, MISSING, apf, p.PageStart.UNTOUCHED, *start, enable(SHARED_GPA), ACK, PAUSE)
    assert not stuck.ends
    assert ask(
        kernel, MISSING, apf, p.PageStart.UNTOUCHED, CLEAR, ACK,
        *start, enable(other), ACK, PAUSE, enable(other + 64), ACK, PAUSE,
    ).ends  # fmt: skip
    back = (enable(other), ACK, PAUSE, enable(SHARED_GPA), ACK, PAUSE)
    assert not ask(kernel, MISSING, apf, p.PageStart.UNTOUCHED, *start, *back).ends


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_page_that_cannot_be_read_has_no_words(kernel: str) -> None:
    """apf_put_user_notpresent fails: a halt at CPL 3; apf_pageready_slot_free fails: no ready event at all."""
    swap = p.Swap(p.SwapKind.GATED, page_cluster=3, error=("s[0]",))
    halted = ask(kernel, swap, p.Apf(en_gpa=AREA), p.PageStart.SWAPPED, touch(0, wait=True))
    assert halted.ends
    exact(halted, NPt=0, NPh=1, RDY=0, RDY_ALL=0, INJ=0)
    told = ask(
        kernel, swap, p.Apf(en_gpa=AREA), p.PageStart.SWAPPED, touch(0, wait=True), enable(SHARED_GPA), ACK, PAUSE
    )
    exact(told, NPt=0, RDY_ALL=1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_page_that_the_manager_copies_holds_data(kernel: str) -> None:
    """The agent puts there what a page of the plan holds: its token word is not 0."""
    start = (p.Apf(en_gpa=AREA), p.PageStart.UNTOUCHED, touch(0), PAUSE)
    assert not ask(kernel, MISSING, *start, CLEAR, PAUSE).ends
    assert ask(kernel, MISSING, *start, CLEAR, ACK, PAUSE).ends
