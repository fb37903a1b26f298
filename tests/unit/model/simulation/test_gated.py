# SPDX-License-Identifier: GPL-2.0-or-later
"""A gated device in the simulation: what is predicted without a clock is what long delays lead to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract import plan as p
from harness.model.kernels import find_kernel
from harness.model.outcomes import Outcome
from harness.model.simulation.situation import Prediction
from harness.prediction import predict

POOL = p.POOL_GPA + 0x200000
KERNELS = ("nowait-5.10", "nowait-6.1", "nowait-6.12", "noio-6.1")


def window(*items: p.Item, swap: p.Swap, vcpus: int = 1) -> p.Plan:
    """Sixteen adjacent pages on swap."""
    pages = tuple(p.Page(POOL + 4096 * n, p.PageStart.SWAPPED, f"f[{n}]") for n in range(16))
    return p.Plan(
        scenario="T", title="a test", nonce=1, guest=p.Guest(vcpus=vcpus), memory=p.Memory(), swap=swap, pages=pages,
        items=tuple(p.changed(i, index=n) for n, i in enumerate(items)), deadline_s=20,
    )  # fmt: skip


def touch(n: int, *, cpl: int = 3, interrupts: bool = True, wait: bool = False, pause_us: int = 0) -> p.Item:
    gpa = POOL + 4096 * n
    return p.Item(0, p.Op.TOUCH, gpa=gpa, cpl=cpl, interrupts=interrupts, wait=wait, pause_us=pause_us)


def gated(rule: str) -> p.Swap:
    return p.Swap(kind=p.SwapKind.GATED, release=rule)


DELAYED = p.Swap(kind=p.SwapKind.DELAY, delay_ms=400)
PLANS = {
    "token": ("np", (touch(8, wait=True), touch(9, wait=True, pause_us=50_000))),
    "halt": ("np", (touch(8, cpl=0, wait=True),)),
    "sync": ("np", (touch(8, cpl=0, interrupts=False),)),
    "neighbour": ("np:2", (touch(8), touch(9))),
    "again": ("repeated", (touch(8), touch(8, pause_us=10_000))),
    "word": ("step", (touch(8), p.Item(0, p.Op.HOST, value=0), p.Item(0, p.Op.WAIT))),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", PLANS)
def test_the_same_as_with_a_long_delay(name: str, kernel: str) -> None:
    rule, items = PLANS[name]
    plan = window(*items, swap=gated(rule))
    if name == "word":
        held = replace(plan, host_actions=((p.HostAction(p.HostWord.RELEASE),),))
        delayed = replace(plan, swap=DELAYED, host_actions=((p.HostAction(p.HostWord.SLEEP, 1),),))
    else:
        held, delayed = plan, replace(plan, swap=DELAYED)
    here, there = (predict(x, find_kernel(kernel)) for x in (held, delayed))
    assert here.ends and there.ends
    assert counts(here) == counts(there)


def counts(answer: Prediction) -> dict[str, tuple[int, int]]:
    return {name: (count.low, count.high) for name, count in answer.totals.items()}


def test_a_read_that_nobody_lets_go_does_not_end() -> None:
    answer = predict(window(touch(8), p.Item(0, p.Op.WAIT), swap=gated("step")), find_kernel("nowait-6.1"))
    assert not answer.ends and answer.items[0].outcome is Outcome.TOKEN


def test_a_sleeping_vcpu_waits_for_no_word() -> None:
    """The only vCPU sleeps: nothing that the rule waits for can come."""
    for rule in ("step", "repeated", "np:3"):
        plan = window(touch(8, cpl=0, interrupts=False), swap=gated(rule))
        answer = predict(plan, find_kernel("nowait-6.1"))
        assert answer.ends and answer.items[0].outcome is Outcome.SYNC


def test_a_failed_read_of_a_neighbour_concerns_nobody() -> None:
    plan = window(touch(8, wait=True), swap=replace(gated("np"), error=("f[9]",)))
    answer = predict(plan, find_kernel("nowait-6.1"))
    assert answer.ends and answer.totals["RDY"].low == 1


def test_a_failed_read_ends_kvm_run_where_nothing_is_asynchronous() -> None:
    plan = window(touch(8, cpl=0, interrupts=False), swap=replace(gated("np"), error=("f[8]",)))
    answer = predict(plan, find_kernel("nowait-6.1"))
    assert not answer.ends and answer.items[0].outcome is Outcome.ERROR
