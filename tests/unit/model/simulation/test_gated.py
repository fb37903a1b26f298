# SPDX-License-Identifier: GPL-2.0-or-later
"""A gated device in the simulation: what is predicted without a clock is what long delays lead to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract import plan as p
from harness.model.events import Kind
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


DELAYED = p.Swap(p.SwapKind.DELAY, delay_ms=400)
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


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_page_whose_worker_sleeps_is_in_flight_for_sure(kernel: str) -> None:
    """Without the wait the neighbour comes before or after the worker's read; with it, always after."""
    host = (p.HostAction(p.HostWord.WAIT_SETTLED),)
    plan = window(touch(8), p.Item(0, p.Op.HOST, value=0), touch(9), swap=gated("np:2"))
    answer = predict(replace(plan, host_actions=(host,)), find_kernel(kernel))
    assert answer.ends
    of_the_host = ("PGMAJ_HOST", "PGMAJ_REST")
    assert all(count.low == count.high for name, count in answer.totals.items() if name not in of_the_host)
    assert answer.items[2].outcome is (Outcome.BLOCK if kernel == "noio-6.1" else Outcome.TOKEN)


@pytest.mark.parametrize("interrupts", [True, False])
def test_both_complete_while_the_guest_waits(interrupts: bool) -> None:
    """Without an acknowledgement the second waits; with interrupts on the first is taken inside the HOST item."""
    host = (p.HostAction(p.HostWord.RELEASE), p.HostAction(p.HostWord.WAIT_DONE))
    items = (touch(4), touch(12), p.Item(0, p.Op.HOST, value=0, interrupts=interrupts), p.Item(0, p.Op.WAIT))
    plan = replace(window(*items, swap=replace(gated("step"), page_cluster=1)), host_actions=(host,))
    answer = predict(plan, find_kernel("nowait-6.12"))
    assert answer.ends and answer.totals["DONE"].low == answer.totals["RDY"].low == 2


@pytest.mark.parametrize("kind", [p.SwapKind.GATED, p.SwapKind.USERFAULT])
@pytest.mark.parametrize("rule", ["np", "np:3", "halted", "step"])
def test_a_snapshot_brings_what_nobody_has_touched(rule: str, kind: p.SwapKind) -> None:
    """By QEMU's own thread, whatever a fault of the guest would have to wait for; only a release holds it."""
    host = (p.HostAction(p.HostWord.STOP), p.HostAction(p.HostWord.SAVEVM), p.HostAction(p.HostWord.CONT))
    plan = window(p.Item(0, p.Op.HOST, value=0), touch(8, cpl=0), touch(3), swap=p.Swap(kind, release=rule))
    if kind is p.SwapKind.USERFAULT:
        plan = replace(plan, pages=tuple(replace(page, start=p.PageStart.UNTOUCHED) for page in plan.pages))
    answer = predict(replace(plan, host_actions=(host,)), find_kernel("nowait-6.1"))
    assert answer.ends is (rule != "step")
    assert rule == "step" or answer.totals["TRY"].high == 0


def test_a_read_that_nobody_lets_go_does_not_end() -> None:
    answer = predict(window(touch(8), p.Item(0, p.Op.WAIT), swap=gated("step")), find_kernel("nowait-6.1"))
    assert not answer.ends and answer.items[0].outcome is Outcome.TOKEN


def test_a_sleeping_vcpu_waits_for_no_word() -> None:
    """The only vCPU sleeps: nothing that the rule waits for can come."""
    for rule in ("step", "repeated", "np:3"):
        plan = window(touch(8, cpl=0, interrupts=False), swap=gated(rule))
        answer = predict(plan, find_kernel("nowait-6.1"))
        assert answer.ends and answer.items[0].outcome is Outcome.SYNC


def test_all_that_may_end_at_one_moment_ends() -> None:
    """Both vCPUs sleep, each for a page of its own: both reads are let go, though after one has ended a vCPU runs."""
    off = {"cpl": 0, "interrupts": False}
    items = (touch(0, **off), replace(touch(15, **off), vcpu=1))
    swap = replace(gated("np:3"), page_cluster=0)
    answer = predict(window(*items, swap=swap, vcpus=2), find_kernel("nowait-6.1"))
    assert answer.ends and [i.outcome for i in answer.items] == [Outcome.SYNC] * 2


def test_a_failed_read_of_a_neighbour_concerns_nobody() -> None:
    plan = window(touch(8, wait=True), swap=replace(gated("np"), error=("f[9]",)))
    answer = predict(plan, find_kernel("nowait-6.1"))
    assert answer.ends and answer.totals["RDY"].low == 1


def test_a_failed_read_ends_kvm_run_where_nothing_is_asynchronous() -> None:
    plan = window(touch(8, cpl=0, interrupts=False), swap=replace(gated("np"), error=("f[8]",)))
    answer = predict(plan, find_kernel("nowait-6.1"))
    assert not answer.ends and answer.items[0].outcome is Outcome.ERROR


MISSING = p.Swap(kind=p.SwapKind.USERFAULT, release="np:2", order=p.ReadOrder.REVERSE)


@pytest.mark.parametrize("memory", [p.Memory(), p.Memory(p.Backing.MEMFD, share=True)])
@pytest.mark.parametrize("kernel", [*KERNELS, "nowait-7.3"])
def test_missing_pages_come_by_the_same_rule(kernel: str, memory: p.Memory) -> None:
    """Nobody reads, and no thread has a complete fault to count: each ends in VM_FAULT_RETRY, or P2's SIGBUS."""
    plan = window(touch(3), touch(7), p.Item(0, p.Op.WAIT), swap=MISSING)
    pages = tuple(replace(page, start=p.PageStart.UNTOUCHED) for page in plan.pages)
    answer = predict(replace(plan, pages=pages, memory=memory), find_kernel(kernel))
    assert answer.ends and [i.issuer for i in answer.items[:2]] == ["", ""]
    wanted = {"NPt": 2, "DONE": 2, "RDY": 2, "BIO_V": 0, "BIO_W": 0, "MAJ_V": 0, "MIN_V": 0, "MAJ_W": 0, "MIN_W": 0}
    assert {name: counts(answer)[name] for name in wanted} == {name: (n, n) for name, n in wanted.items()}


def test_a_missing_page_that_nobody_puts_there_does_not_come() -> None:
    plan = window(touch(3), p.Item(0, p.Op.WAIT), swap=replace(MISSING, release="step"))
    pages = tuple(replace(page, start=p.PageStart.UNTOUCHED) for page in plan.pages)
    assert not predict(replace(plan, pages=pages), find_kernel("nowait-6.1")).ends


@pytest.mark.parametrize(("kernel", "state"), [("nowait-6.1", "D"), ("nowait-6.12", "S")])
def test_the_vcpu_thread_itself_waits_for_a_missing_page(kernel: str, state: str) -> None:
    """Interruptible from 6.2 on (FOLL_INTERRUPTIBLE): that it sleeps is seen in either state."""
    plan = window(touch(3, cpl=0, interrupts=False, wait=True), swap=replace(MISSING, release="asleep"))
    pages = tuple(replace(page, start=p.PageStart.UNTOUCHED) for page in plan.pages)
    answer = predict(replace(plan, pages=pages), find_kernel(kernel))
    assert answer.ends and answer.items[0].outcome is Outcome.BLOCK
    assert [e.value for e in answer.events if e.kind is Kind.OUT][:1] == [ord(state)]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_page_that_a_worker_waits_for_a_second_time_is_not_the_first_work(kernel: str) -> None:
    """What became of the work before is told before the next one sleeps: else its read would never end."""
    plan = replace(
        window(touch(0, wait=True), p.Item(0, p.Op.HOST, value=0), touch(0, wait=True), swap=gated("np")),
        memory=p.Memory(p.Backing.FILE, share=True),
        pages=(p.Page(POOL, p.PageStart.DROPPED, "f[0]"),),
        host_actions=((p.HostAction(p.HostWord.RECLAIM, POOL),),),
    )
    answer = predict(plan, find_kernel(kernel))
    assert answer.ends, answer.notes
    assert [i.outcome for i in answer.items if plan.items[i.index].op is p.Op.TOUCH] == [Outcome.TOKEN] * 2


@pytest.mark.parametrize(("release", "after_ns"), [("after", 300_000_000), ("open", 0)])
def test_missing_pages_come_by_the_clock_or_at_once(release: str, after_ns: int) -> None:
    """No rule holds them: each is copied so long after a thread has asked for it."""
    source = p.Swap(p.SwapKind.USERFAULT, release=release, delay_ms=300 if after_ns else p.Swap().delay_ms)
    plan = window(touch(3), touch(7, interrupts=False, cpl=0), p.Item(0, p.Op.WAIT), swap=source)
    pages = tuple(replace(page, start=p.PageStart.UNTOUCHED) for page in plan.pages)
    answer = predict(replace(plan, pages=pages), find_kernel("nowait-6.1"))
    assert answer.ends and [i.outcome for i in answer.items[:2]] == [Outcome.TOKEN, Outcome.BLOCK]
    told = [e.t_ns for kind in (Kind.NP, Kind.DONE) for e in answer.events if e.kind is kind]
    assert after_ns <= told[1] - told[0] < after_ns + 1_000_000


@pytest.mark.parametrize("kind", [p.SwapKind.GATED, p.SwapKind.USERFAULT])
def test_what_takes_its_time_does_not_end_while_it_is_frozen(kind: p.SwapKind) -> None:
    """A delay device lets go of all that it holds when its table is changed; the agent's server holds it."""
    host = (p.HostAction(p.HostWord.FREEZE), p.HostAction(p.HostWord.SLEEP, arg=500), p.HostAction(p.HostWord.THAW))
    plan = window(touch(8), p.Item(0, p.Op.HOST, value=0), swap=p.Swap(kind, release="after", delay_ms=100))
    if kind is p.SwapKind.USERFAULT:
        plan = replace(plan, pages=tuple(replace(page, start=p.PageStart.UNTOUCHED) for page in plan.pages))
    answer = predict(replace(plan, host_actions=(host,)), find_kernel("nowait-6.1"))
    announced, done = (next(e.t_ns for e in answer.events if e.kind is kind) for kind in (Kind.NP, Kind.DONE))
    assert answer.ends and done - announced >= 500_000_000
