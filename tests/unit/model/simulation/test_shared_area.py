# SPDX-License-Identifier: GPL-2.0-or-later
"""The shared area in a page of the pool: KVM's own accesses fault it in in the vCPU thread, the guest's by EPT."""

from __future__ import annotations

import pytest

from harness.contract import plan as p
from harness.errors import ModelError
from harness.model.events import MSR_ASYNC_PF_ACK, MSR_ASYNC_PF_EN
from harness.model.kernels import find_kernel
from harness.model.outcomes import Count
from harness.model.simulation.situation import Prediction
from harness.prediction import predict

AREA = p.POOL_GPA + 400 * p.PAGE_SIZE
PAGE = p.POOL_GPA


def plan(start: p.PageStart | None, *more: p.Item, en_gpa: int = AREA, vcpus: int = 1) -> p.Plan:
    pages = [p.Page(PAGE, p.PageStart.SWAPPED, "f[0]")] + ([p.Page(AREA, start, "area")] if start else [])
    items = (p.Item(0, p.Op.TOUCH, gpa=PAGE, page="f[0]"), *more)
    return p.Plan(
        scenario="area", title="", nonce=7, memory=p.Memory(),
        swap=p.Swap(p.SwapKind.DELAY, delay_ms=200), pages=tuple(pages),
        guest=p.Guest(memory_mib=96, idle="spin", vcpus=vcpus, apf=p.Apf(en_gpa=en_gpa)), items=items, deadline_s=5,
    )  # fmt: skip


def ask(start: p.PageStart | None, *more: p.Item) -> Prediction:
    return predict(plan(start, *more), find_kernel("nowait-6.12"))


def exact(answer: Prediction, **want: int) -> None:
    assert {n: answer.totals[n] for n in want} == {n: Count.exactly(v) for n, v in want.items()}


@pytest.mark.parametrize("start", [None, p.PageStart.UNTOUCHED])
def test_an_untouched_area_is_read_as_the_zero_page_then_written(start: p.PageStart | None) -> None:
    """apf_pageready_slot_free maps the zero page, apf_put_user_ready copies it: two minor faults of V, no TRY."""
    exact(ask(start), PF=2, TRY=1, NPt=1, RDY=1, RDY_ALL=1, MIN_V=2, MAJ_V=0)


def test_a_swapped_out_area_is_a_major_fault_of_the_vcpu_thread() -> None:
    """6.12: the zero map fills it without I/O, and do_swap_page maps it writable at once."""
    exact(ask(p.PageStart.ZERO_SWAPPED), PF=2, TRY=1, RDY=1, RDY_ALL=1, MAJ_V=1, MIN_V=0, SWPIN_ZERO=1)


def test_a_token_word_that_nobody_has_zeroed_holds_everything_back() -> None:
    stuck = ask(p.PageStart.POPULATED)
    assert not stuck.ends
    exact(stuck, NPt=1, DONE=1, RDY=0, RDY_ALL=0, ACC=0)
    clear = (p.Item(1, p.Op.PAUSE, pause_us=400_000), p.Item(2, p.Op.CLEAR_TOKEN),
             p.Item(3, p.Op.WRMSR, msr=MSR_ASYNC_PF_ACK, value=1))  # fmt: skip
    freed = ask(p.PageStart.POPULATED, *clear)
    assert freed.ends
    exact(freed, NPt=1, RDY=1, RDY_ALL=1, ACC=2)


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (plan(None, vcpus=2), "several vCPUs"),
        (plan(None, p.Item(1, p.Op.TOUCH, gpa=AREA, page="area")), "an item touches"),
        (plan(p.PageStart.SWAPPED, en_gpa=AREA + 64), "behind the first 64 bytes"),
        (plan(None, p.Item(1, p.Op.WRMSR, msr=MSR_ASYNC_PF_EN, value=AREA | 9)), "puts the shared area into the pool"),
    ],
)
def test_what_is_not_modelled_is_refused(refused: p.Plan, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        predict(refused, find_kernel("nowait-6.1"))
