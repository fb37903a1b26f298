# SPDX-License-Identifier: GPL-2.0-or-later
"""Damage to what the real simulation emits is caught by the right rule too: a second, independent source of traces."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.contract import plan as p
from harness.model.events import MSR_ASYNC_PF_EN, Event, Kind
from harness.model.kernels import find_kernel
from harness.model.protocol.checker import Checker, RuleContext
from harness.model.protocol.rules import FaultState
from harness.model.simulation.machine import run_once
from harness.model.simulation.simulate import TIMINGS
from harness.model.simulation.situation import Timing, with_timing
from harness.prediction import situation_of
from tests.unit.model.protocol.test_checker import DAMAGE, at, still_live_at_entry
from tests.unit.model.protocol_notation import feed_all
from tests.unit.model.test_simulate_protocol import EMITTED, plans

KERNEL = find_kernel("nowait-6.1")
CHOSEN = [
    name for name in DAMAGE if "wake-all" not in name and name not in ("DONE before NP", "NP with another offset")
]
"""The probe guest touches pages at offset 0 only, and with several vCPUs a DONE may be another one's."""


def judge(trace: list[Event], plan: p.Plan) -> set[str]:
    faults: dict[tuple[int, int], tuple[FaultState, ...]] = {}
    for item in plan.items:
        if item.op is p.Op.TOUCH:
            key = (item.vcpu, item.gpa >> 12)
            faults[key] = (*faults.get(key, ()), FaultState(item.cpl, item.interrupts, item.shadow, not item.no_paging))
    context = RuleContext(faults=faults, area_stays=True)
    checker = Checker(KERNEL, plan.guest.vcpus, int_vec=0, first_id=1, context=context, recorded=EMITTED)
    found = list(feed_all(checker, trace))
    return {v.rule for v in (*found, *checker.finish()) if v.rule not in ("D29", "D40")}


@settings(max_examples=60, derandomize=True, suppress_health_check=list(HealthCheck))
@given(plan=plans(), timing=st.sampled_from(TIMINGS), number=st.integers(0, 1000))
def damage_one_run(caught: Counter[str], plan: p.Plan, timing: Timing, number: int) -> None:
    """Every damage that has a place in this run, one after the other."""
    plan = p.changed(
        plan,
        guest=p.changed(plan.guest, vcpus=2),
        items=tuple(p.changed(i, vcpu=i.vcpu % 2) for i in plan.items if i.op not in (p.Op.WRMSR, p.Op.PAGING)),
    )
    trace = run_once(with_timing(situation_of(plan, KERNEL), timing)).world.events
    assert judge(trace, plan) == set()
    for name in CHOSEN:
        choose, damage, expected = DAMAGE[name]
        place = at(trace, choose, number)
        if place is None or (name == "second token for a live page" and not still_live_at_entry(trace, place)):
            continue
        if name == "drop REP" and not enters_again(trace, place):
            continue  # the run was cut there: a TRY whose blocking GUP still sleeps is legal
        assert expected & judge(damage(list(trace), place), plan), f"{name}: {trace[place]}"
        caught[name] += 1


def enters_again(trace: list[Event], place: int) -> bool:
    """The vCPU goes on after this event: it is not asleep when the deadline cuts the run."""
    return any(e.kind is Kind.ENTRY and e.vcpu == trace[place].vcpu for e in trace[place:])


def test_damage_to_a_simulated_run_is_caught() -> None:
    caught: Counter[str] = Counter()
    damage_one_run(caught)
    assert [name for name in CHOSEN if not caught[name]] == [], "damage that had a place in none of the runs"


def test_the_simulated_runs_have_what_is_damaged() -> None:
    """Else the test above would be idle: most runs must have tokens, halts, repeated faults between them."""
    seen: set[Kind] = set()
    pages = tuple(p.Page(p.POOL_GPA + n * p.PAGE_SIZE, p.PageStart.SWAPPED, f"f[{n}]") for n in range(16))
    touches = [(0, 3), (0, 0), (5, 3), (5, 3), (10, 0)]
    items = tuple(
        p.Item(index=n, op=p.Op.TOUCH, gpa=p.POOL_GPA + page * p.PAGE_SIZE, cpl=cpl)
        for n, (page, cpl) in enumerate(touches)
    )
    plan = p.Plan(
        scenario="fixed", title="", nonce=1, guest=p.Guest(vcpus=1), memory=p.Memory(),
        swap=p.Swap(p.SwapKind.DELAY, delay_ms=50, page_cluster=3), pages=pages, items=items, deadline_s=20,
    )  # fmt: skip
    trace = run_once(situation_of(plan, KERNEL)).world.events
    seen |= {event.kind for event in trace}
    assert {Kind.TRY, Kind.NP, Kind.REP, Kind.DONE, Kind.RDY, Kind.INJ, Kind.ACC} <= seen
    assert any(e.kind is Kind.WRMSR and e.value == MSR_ASYNC_PF_EN for e in trace)
    assert judge(trace, plan) == set()
