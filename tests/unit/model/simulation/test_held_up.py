# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads that lost their processor between two of their events."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from harness.model.delivery import ApfState, WorkState, kvm_setup_async_pf
from harness.model.events import Kind
from harness.model.kernels import find_kernel
from harness.model.simulation.engine import Signal
from harness.model.simulation.held_up import asks, until_listed
from harness.model.simulation.recorded import FaultCall, Recorded, RecordedEvent, WorkRun
from harness.model.simulation.replay import Replay

RUN = WorkRun(110, (FaultCall(112, 120, 12),), 300, thread=12, gfn=7)
AGAIN = RecordedEvent(Kind.PF, 7, 210, 215, since_ns=190)


def _halted(run: WorkRun, following: RecordedEvent, now: int = 105) -> tuple[Any, ApfState]:
    """A vCPU in the halt of one work, whose worker runs, and the world in which it is."""
    state = ApfState(find_kernel("nowait-7.3"), halted=True)
    _, work = kvm_setup_async_pf(state, 7 << 12, write=False, item=0)
    assert work is not None
    work.state = WorkState.RUNNING
    recorded = Recorded(
        marks=((following,),), threads=(10,), works={(0, work.token): run}, read_ends={}, changes={}, busy=((),),
        unmaps=(), ticks=((),), host=(), log=((),), end_ns=1000,
    )  # fmt: skip
    return SimpleNamespace(replay=Replay(recorded), engine=SimpleNamespace(now=now)), state


def test_a_worker_that_is_held_up_has_listed_its_work_before_it_asks() -> None:
    """Explored (Y05) on 7.3: a kworker was preempted in async_pf_execute behind list_add_tail, and the vCPU went round
    in halts that ended at once, fifteen times, until it asked for KVM_REQ_APF_READY."""
    world, state = _halted(RUN, AGAIN)
    waits = until_listed(world, state, 0, Signal())
    assert next(waits).until_ns == 190
    world.engine.now = 190
    assert next(waits, None) is None
    [work] = state.done
    assert work.state is WorkState.DONE and not state.req_ready
    asks(state, work)
    assert state.req_ready and state.done == [work]


def test_nothing_is_listed_while_its_fault_lasts_behind_its_trace_or_where_the_halt_goes_on() -> None:
    asleep = RecordedEvent(Kind.RDY, 0x1000, 310, 311)
    for run, following in (
        (RUN, asleep),
        (WorkRun(110, (FaultCall(112, 220),), 300), AGAIN),
        (WorkRun(110, (), 200), AGAIN),
    ):
        world, state = _halted(run, following)
        assert next(until_listed(world, state, 0, Signal())).until_ns == -1


def test_what_woke_the_vcpu_before_lists_nothing_and_a_clear_takes_it_from_the_list() -> None:
    world, state = _halted(RUN, AGAIN)
    waits = until_listed(world, state, 0, Signal())
    next(waits)
    world.engine.now = 150
    assert next(waits, None) is None and not state.done
    [work] = state.queue
    work.state = WorkState.DONE
    asks(state, work)
    assert not state.req_ready and not state.done
