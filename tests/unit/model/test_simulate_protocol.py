# SPDX-License-Identifier: GPL-2.0-or-later
"""Random plans, simulated: the events of every run obey the protocol rules, and the totals obey their laws."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.contract import plan as p
from harness.model.events import MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT, Kind
from harness.model.kernels import KernelModel, find_kernel, kernel_for
from harness.model.protocol.checker import Checker, RuleContext, Violation
from harness.model.simulation.machine import Machine, run_once
from harness.model.simulation.simulate import TIMINGS
from harness.model.simulation.situation import Situation, with_timing
from harness.prediction import situation_of

KERNELS = (
    *(find_kernel(n) for n in ("nowait-5.10", "nowait-6.1", "nowait-6.12", "noio-6.1", "noio-6.1-p1")),
    kernel_for("nowait", "6.1.158"),
)
EMITTED = frozenset(
    (Kind.PF, Kind.TRY, Kind.NP, Kind.REP, Kind.DONE, Kind.RDY, Kind.INJ, Kind.ACC, Kind.ENTRY, Kind.EXIT, Kind.WRMSR,
     Kind.OUT, Kind.IN, Kind.BIO, Kind.WAKEUP, Kind.USER_EXIT, Kind.VIRQ, Kind.CLEAR)
)  # fmt: skip
OWN = 0x801000
PAGES = 24

_touches = st.builds(
    p.Item,
    index=st.just(0),
    op=st.just(p.Op.TOUCH),
    gpa=st.integers(0, PAGES - 1).map(lambda n: p.POOL_GPA + n * p.PAGE_SIZE),
    access=st.sampled_from(p.Access),
    cpl=st.sampled_from((0, 3, 3)),
    interrupts=st.sampled_from((True, True, True, False)),
    shadow=st.sampled_from((False, False, False, True)),
    wait=st.booleans(),
    pause_us=st.sampled_from((0, 0, 0, 10_000, 70_000)),
)
_others = st.one_of(
    st.builds(p.Item, index=st.just(0), op=st.just(p.Op.PAUSE), pause_us=st.sampled_from((1_000, 30_000))),
    st.builds(p.Item, index=st.just(0), op=st.just(p.Op.WAIT)),
    st.builds(p.Item, index=st.just(0), op=st.just(p.Op.WRMSR), msr=st.just(MSR_ASYNC_PF_EN),
              value=st.sampled_from((OWN | 9, OWN | 0xB, 0, OWN | 1))),
    st.builds(p.Item, index=st.just(0), op=st.just(p.Op.WRMSR), msr=st.just(MSR_ASYNC_PF_INT),
              value=st.sampled_from((0xF3, 0xF4, 0x1F3))),
    st.builds(p.Item, index=st.just(0), op=st.just(p.Op.TIMER), value=st.sampled_from((0, 15_000))),
    st.builds(p.Item, index=st.just(0), op=st.just(p.Op.PAGING), value=st.just(1)),
    st.builds(p.Item, index=st.just(0), op=st.just(p.Op.HOST), value=st.integers(0, 2)),
)  # fmt: skip
_HOST = (
    (p.HostAction(p.HostWord.STOP), p.HostAction(p.HostWord.SLEEP, 80), p.HostAction(p.HostWord.CONT)),
    (p.HostAction(p.HostWord.FREEZE), p.HostAction(p.HostWord.SLEEP, 5), p.HostAction(p.HostWord.THAW)),
    (p.HostAction(p.HostWord.DELAY, 20),),
)


@st.composite
def plans(draw: st.DrawFn) -> p.Plan:
    vcpus = draw(st.integers(1, 3))
    items = draw(st.lists(st.one_of(_touches, _touches, _touches, _others), min_size=1, max_size=14))
    starts = st.sampled_from((*[p.PageStart.SWAPPED] * 6, p.PageStart.SWAPCACHE, p.PageStart.POPULATED,
                              p.PageStart.UNTOUCHED))  # fmt: skip
    pages = tuple(p.Page(p.POOL_GPA + n * p.PAGE_SIZE, draw(starts), f"f[{n}]") for n in range(PAGES))
    return p.Plan(
        scenario="random",
        title="",
        nonce=1,
        guest=p.Guest(vcpus=vcpus, idle=draw(st.sampled_from(("hlt", "spin")))),
        memory=p.Memory(),
        swap=p.Swap(
            kind=p.SwapKind.DELAY, delay_ms=50, page_cluster=draw(st.integers(0, 3)), rotational=draw(st.booleans())
        ),
        pages=pages,
        items=tuple(
            p.changed(i, index=n, vcpu=0 if i.op is p.Op.HOST else draw(st.integers(0, vcpus - 1)))
            for n, i in enumerate(items)
        ),
        host_actions=_HOST,
        deadline_s=20,
    )


def check_run(situation: Situation, kernel: KernelModel) -> Machine:
    machine = run_once(situation)
    checker = Checker(kernel, situation.vcpus, int_vec=0, en=0, first_id=1, context=RuleContext(), recorded=EMITTED)
    found = [v for e in machine.world.events for v in checker.feed(e)] + checker.finish()
    wrong = [v for v in found if not isinstance(v, Violation) or v.strict]
    assert not wrong, [(v.rule, v.message) for v in wrong]
    return machine


@settings(max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(plan=plans(), kernel=st.sampled_from(KERNELS), timing=st.sampled_from(TIMINGS))
def test_random_plans_obey_the_protocol(plan: p.Plan, kernel: KernelModel, timing: object) -> None:
    situation = with_timing(situation_of(plan, kernel), timing)  # type: ignore[arg-type]
    machine = check_run(situation, kernel)
    flips = any(i.op is p.Op.PAGING for i in plan.items)
    if not (flips and kernel.cr0_pg_clears_queue):  # there the clear loses tokens that the guest still waits for
        assert machine.ended, "the program did not come to its end"
    t = machine.world.totals
    assert t["TRY"] == t["NP"] + t["REP"] + t["FAIL"]
    assert t["PF"] == t["FAST"] + t["MINOR"] + t["SYNC"] + t["BLOCK"] + t["NP"] + t["REP"]
    assert t["INJ"] == t["NPt"] == t["PF_GUEST"]
    assert t["RDY"] <= t["NP"]
    assert t["ACK"] <= t["ACC"]
    assert t["READ_V"] + t["READ_W"] == t["PSWPIN"]
    assert t["PGMAJ"] == t["PSWPIN"] - t["RA"]
