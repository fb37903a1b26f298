# SPDX-License-Identifier: GPL-2.0-or-later
"""Damage to what the real simulation emits is caught by the right rule too: a second, independent source of traces."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from harness.judge.predict import situation_of
from harness.model.events import MSR_ASYNC_PF_EN, Event, Kind
from harness.model.kernels import find_kernel
from harness.model.protocol import Checker, Context
from harness.model.protocol_types import FaultState
from harness.model.simulate import TIMINGS
from harness.model.simulate_run import run_once
from harness.model.situation import with_timing
from harness.scenario import plan as p
from tests.unit.model.test_protocol import DAMAGE, at, still_live_at_entry
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
    context = Context(faults=faults, shared_unreadable=dict.fromkeys(range(plan.guest.vcpus), ()))
    checker = Checker(KERNEL, plan.guest.vcpus, int_vec=0, first_id=1, context=context, recorded=EMITTED)
    found = list(checker.feed_all(trace))
    return {v.rule for v in (*found, *checker.finish()) if v.rule not in ("D29", "D36", "D40")}


@pytest.mark.parametrize("name", CHOSEN)
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(plan=plans(), timing=st.sampled_from(TIMINGS), number=st.integers(0, 1000))
def test_damage_to_a_simulated_run_is_caught(name: str, plan: p.Plan, timing: object, number: int) -> None:
    choose, damage, expected = DAMAGE[name]
    plan = p.changed(
        plan,
        guest=p.changed(plan.guest, vcpus=2),
        items=tuple(p.changed(i, vcpu=i.vcpu % 2) for i in plan.items if i.op not in (p.Op.WRMSR, p.Op.PAGING)),
    )
    trace = run_once(with_timing(situation_of(plan, KERNEL), timing)).world.events  # type: ignore[arg-type]
    assert judge(trace, plan) == set()
    place = at(trace, choose, number)
    assume(place is not None)
    assert place is not None
    assume(name != "second token for a live page" or still_live_at_entry(trace, place))
    assert expected & judge(damage(list(trace), place), plan), f"{trace[place]}"


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
        swap=p.Swap(delay_ms=50, page_cluster=3), pages=pages, items=items, deadline_s=20,
    )  # fmt: skip
    trace = run_once(situation_of(plan, KERNEL)).world.events
    seen |= {event.kind for event in trace}
    assert {Kind.TRY, Kind.NP, Kind.REP, Kind.DONE, Kind.RDY, Kind.INJ, Kind.ACC} <= seen
    assert any(e.kind is Kind.WRMSR and e.value == MSR_ASYNC_PF_EN for e in trace)
    assert judge(trace, plan) == set()
