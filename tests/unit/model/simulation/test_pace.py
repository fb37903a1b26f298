# SPDX-License-Identifier: GPL-2.0-or-later
"""What is late in a run that follows no recording, and the orders that come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.contract import plan as p
from harness.errors import EndlessError
from harness.model.kernels import find_kernel
from harness.model.outcomes import UNBOUNDED, Outcome
from harness.model.simulation import simulate
from harness.model.simulation.choices import Choices
from harness.model.simulation.machine import Machine, run_once
from harness.model.simulation.pace import _LATE_NS, Pace
from harness.model.simulation.replay import Replay
from harness.model.simulation.situation import Situation, Timing
from harness.prediction import predict
from harness.run.scenario_sources import default_scenarios, read_scenario_files
from harness.scenario.build import build_plan
from tests.unit.scenarios import plan_of

N61, NIO = find_kernel("nowait-6.1"), find_kernel("noio-6.1")
LATENCIES: tuple[Callable[[Pace], int], ...] = (
    lambda pace: pace.start_ns(1),
    lambda pace: pace.exit_ns(1),
    lambda pace: pace.wake_ns(1),
    lambda pace: pace.worker_ns(1, 5),
    lambda pace: pace.done_ns(1, 5),
    lambda pace: pace.read_ns(5),
    lambda pace: pace.neighbour_ns(5),
    lambda pace: pace.vmm_ns(),
    lambda pace: pace.host_ns(),
)


@pytest.mark.parametrize("latency", LATENCIES)
def test_each_time_by_itself_may_be_late(latency: Callable[[Pace], int]) -> None:
    choices = Choices()
    pace = Pace(Timing(), choices)
    usual = [latency(pace), latency(pace)]
    assert usual == [latency(Pace(Timing()))] * 2 and usual[0] < _LATE_NS
    assert len(choices.asked) == 2 and choices.options == [2, 2]
    late = Pace(Timing(), Choices({choices.asked[1]: 1}))
    assert [latency(late), latency(late), latency(late)] == [usual[0], _LATE_NS, usual[0]]


def test_a_race_that_there_cannot_be_is_not_asked_about() -> None:
    """A gate ends no read before its fault is settled, and nobody else maps what a lone vCPU's ready event maps."""
    choices = Choices()
    nobody = Pace(Timing(), choices, races_device=False, races_vcpus=False)
    assert not nobody.may_read_first and not nobody.reads_first(5) and not nobody.prefetch_lost(0, 5)
    assert not choices.asked
    both = Pace(Timing(), choices)
    assert both.may_read_first and not both.reads_first(5) and not both.prefetch_lost(0, 5)
    assert len(choices.asked) == 2
    assert not Pace(Timing()).may_read_first and Pace(Timing(reads_first=True, prefetch_lost=True)).prefetch_lost(0, 5)


def test_an_order_that_goes_round_until_its_deadline_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a timer beside a plug that waits for a read which only the word behind it lets go."""

    def endless(situation: Situation, replay: Replay | None = None, choices: Choices | None = None) -> Machine:
        machine = run_once(situation, replay, choices)
        if choices is not None and any(why.startswith("a work of") for why, _ in choices.chosen):
            raise EndlessError("more than 50000 events")
        return machine

    plan = plan_of("S61")
    whole = predict(plan, N61, orders=20)
    monkeypatch.setattr(simulate, "run_once", endless)
    found = predict(plan, N61, orders=20)
    assert "left out: with a work of vCPU 0" in found.orders and "left out" not in whole.orders
    assert [i.outcome for i in found.items] == [i.outcome for i in whole.items]


@pytest.mark.parametrize(("name", "most"), [("S144", 1), ("S128", 10)])
def test_a_halt_ends_for_each_page_that_comes_before_its_own(name: str, most: int) -> None:
    """Seen: six repeated faults in S128, one in S144, where all reads ended at once in every order that was tried."""
    repeats = predict(plan_of(name), N61, orders=1).totals["REP"]
    assert repeats.low <= 1 and repeats.high >= most


@pytest.mark.parametrize(("name", "page"), [("S451", "f[88]"), ("S360", "f[100]")])
def test_the_gate_lets_go_together_what_one_fault_has_brought(name: str, page: str) -> None:
    """Seen: what a mark has read ahead was there when it was touched, as it came with the page that had the mark."""
    touched = next(item for item in predict(plan_of(name), N61).items if item.page == page)
    assert touched.outcome is Outcome.MINOR and not touched.also


def test_an_init_waits_for_a_thread_that_sleeps_for_a_page_and_is_told_of_another_before() -> None:
    """Seen in each run of S416: vcpu_enter_guest serves KVM_REQ_APF_READY before it accepts the INIT."""
    totals = predict(plan_of("S416"), N61, orders=1).totals
    assert totals["RDY"].allows(2) and totals["ACC"].allows(5)


def test_whoever_is_not_reset_by_kvm_itself_runs_on_until_the_vmm_has_stopped_it() -> None:
    """Seen in each run of S245: the reset waits for a read, and when it comes another vCPU is told of its own."""
    totals = predict(plan_of("S245"), N61, orders=1).totals
    assert totals["ACC"].allows(5) and totals["NP"].allows(5)


def test_how_often_a_busy_loop_goes_round_is_not_known() -> None:
    """S306: done is not empty, nothing asks for it, and the halt ends at once until the page is there."""
    answer = predict(plan_of("S306"), N61, orders=1)
    assert answer.totals["REP"].high >= UNBOUNDED
    assert [item.index for item in answer.items if item.repeats.high >= UNBOUNDED] == [3]


def test_what_is_late_is_later_than_the_pauses_of_the_guest() -> None:
    """S441: a page that was read ahead is still read behind a pause of 300 ms."""
    said = predict(plan_of("S441"), N61, orders=40)
    last = next(item for item in reversed(said.items) if item.page == "f[72]")
    assert {Outcome.MINOR, Outcome.TOKEN} <= {last.outcome, *last.also}


def test_an_order_that_the_model_cannot_tell_is_left_out_and_named() -> None:
    """S441: where reads are slower than the first pause, the agent comes to a page that is still read."""
    said = predict(plan_of("S441"), N61, orders=1)
    assert "which is being read, and so left out: with reads slower than the pauses of the guest" in said.orders


def test_without_choices_all_is_as_the_timing_says() -> None:
    timing = Timing(
        exit_ns=7, wake_ns=6, worker_ns=8, done_ns=12, device_ns=9, neighbour_ns=10, vmm_ns=13, host_ns=11, first=0
    )
    pace = Pace(timing)
    assert [latency(pace) for latency in LATENCIES] == [_LATE_NS, 7, 6, 8, 12, 9, 10, 13, 11] and pace.start_ns(0) == 0


def _touched_again(*between: p.Item, host: tuple[tuple[p.HostAction, ...], ...] = ()) -> p.Plan:
    """Two files' pages, and the second of them again, whose fault is to let both reads end."""
    pages = tuple(p.Page(p.POOL_GPA + 0x100000 * n, p.PageStart.DROPPED, f"f[{n}]") for n in (0, 1))
    first, second = (p.Item(0, p.Op.TOUCH, gpa=page.gpa, page=page.name) for page in pages)
    items = (first, second, *between, second)
    return p.Plan(
        scenario="again", title="", nonce=7, guest=p.Guest(memory_mib=96), deadline_s=5, pages=pages,
        memory=p.Memory(p.Backing.FILE, share=True), swap=p.Swap(p.SwapKind.GATED, release="repeated"),
        items=tuple(replace(item, index=n) for n, item in enumerate(items)), host_actions=host,
    )  # fmt: skip


def test_a_hang_that_only_one_order_has_is_said() -> None:
    """Under noio the second touch sleeps, and lets the second page's read end, as nothing else can come.  A work that
    begins only then holds the first page for ever: no fault is repeated any more."""
    assert predict(_touched_again(), NIO).undecided_end == ""
    answer = predict(_touched_again(), NIO, orders=100)
    assert answer.ends and answer.undecided_end in answer.notes
    assert "not with a work of vCPU 0 for gfn 0x1000 begins late" in answer.undecided_end


def test_a_hang_of_a_vcpu_that_finds_two_pages_when_it_wakes_up_is_said() -> None:
    """The handler acknowledges nothing: the second is told if it comes when the list is empty again, and else never."""
    pages = tuple(p.Page(p.POOL_GPA + 0x100000 * n, p.PageStart.DROPPED, f"f[{n}]") for n in (0, 1))
    plan = p.Plan(
        scenario="unacknowledged", title="", nonce=7, deadline_s=5, pages=pages,
        guest=p.Guest(memory_mib=96, apf=p.Apf(ack=False)),
        memory=p.Memory(p.Backing.FILE, share=True), swap=p.Swap(p.SwapKind.GATED),
        items=tuple(p.Item(n, p.Op.TOUCH, gpa=page.gpa, page=page.name) for n, page in enumerate(pages)),
    )  # fmt: skip
    assert predict(plan, NIO).ends and not predict(plan, NIO).undecided_end
    assert (
        "not with vCPUs that wake up when all that they wait for is there" in predict(plan, NIO, orders=1).undecided_end
    )


def test_a_vcpu_that_wakes_up_late_is_not_late_any_more_in_its_next_life() -> None:
    """S381: vCPU 3 sleeps in HLT when it is given an INIT, and its new life sleeps until its works are over."""
    (scenario,) = read_scenario_files([default_scenarios() / "S381.toml"]).scenarios
    answer = predict(build_plan(scenario, 7), NIO, orders=1)
    assert answer.ends and not answer.undecided_end


def test_a_plan_that_waits_for_it_ends_in_each_order() -> None:
    waits = (p.HostAction(p.HostWord.WAIT_NP, arg=2), p.HostAction(p.HostWord.WAIT_SETTLED))
    answer = predict(_touched_again(p.Item(0, p.Op.HOST, value=0), host=(waits,)), NIO, orders=100)
    assert answer.ends and not answer.undecided_end


def _told(orders: int) -> str:
    plan = p.Plan(
        scenario="told", title="", nonce=7, guest=p.Guest(memory_mib=96), deadline_s=5, pages=(), items=(),
        memory=p.Memory(p.Backing.FILE, share=True), swap=p.Swap(p.SwapKind.GATED),
    )  # fmt: skip
    return predict(plan, N61, orders=orders).orders


def test_how_far_the_orders_were_gone_through_is_said() -> None:
    """Of a program without touches each thing may be late or not, whatever the others are."""
    some = _told(5)
    free = int(some.split()[2])
    assert some == f"4 of {free} things that may be late were, each by itself"
    assert _told(free + 5) == f"each of {free} things that may be late was by itself, and up to 2 together in 4 orders"
    assert _told(2**free + 1) == f"all of what may come in any order was tried: {2**free} orders"
    assert _told(0) == ""


def test_no_more_orders_are_tried_once_those_before_made_many_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that goes round until its deadline makes thousands of events in each: nobody waits for a hundred."""
    assert "orders" in predict(_touched_again(), NIO, orders=100).orders
    monkeypatch.setattr(simulate, "_ORDER_EVENTS", 0)
    assert predict(_touched_again(), NIO, orders=100).orders.startswith("0 of ")
