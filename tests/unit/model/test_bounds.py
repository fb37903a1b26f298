# SPDX-License-Identifier: GPL-2.0-or-later
"""What does not come to an end is an error of the model or of the plan, not a machine that runs out of memory."""

from __future__ import annotations

import pytest

from harness.contract import plan as p
from harness.errors import ModelError
from harness.model.kernels import find_kernel
from harness.model.readahead import ReadaheadState
from harness.model.simulation.engine import Engine, Process, Wait
from harness.model.simulation.machine import run_once
from harness.model.walk.gup import Walk
from harness.model.walk.page_states import page_in_state
from harness.model.walk.steps import MAX_STEPS, Context, End, Steps, Thread, kernel_function
from harness.prediction import situation_of

KERNEL = find_kernel("nowait-6.1")


def test_a_walk_in_a_circle_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.model.walk.steps.STEP_FUNCTIONS", {})

    @kernel_function("mm/nowhere.c")
    def endless(ctx: Context) -> Steps[End]:
        yield from ()
        while True:
            ctx.step("again?", "yes", "no function of the kernel")

    walk = Walk(KERNEL, endless, Thread.V, write=False, env=None)
    with pytest.raises(ModelError, match=r"circle in mm/nowhere\.c:endless") as caught:
        walk.run(page_in_state("anon", "untouched"), ReadaheadState())
    assert caught.value.hint == "last: again?: yes"
    assert MAX_STEPS > 10 * 32, "the longest walk of all scenarios has 32 steps"


def test_time_that_stands_still_is_noticed() -> None:
    engine = Engine()

    def spin() -> Process:
        while True:
            yield Wait(until_ns=engine.now)

    engine.spawn(spin(), 7)
    with pytest.raises(ModelError, match="at 7 ns"):
        engine.run(1_000)


def test_a_process_that_lets_time_pass_may_go_on_for_ever() -> None:
    engine, turns = Engine(), []

    def tick() -> Process:
        while True:
            turns.append(engine.now)
            yield Wait(until_ns=engine.now + 1)

    engine.spawn(tick())
    engine.run(150_000)
    assert len(turns) == 150_001


def test_a_timer_that_leaves_the_guest_no_time_is_refused() -> None:
    items = (
        p.Item(index=0, op=p.Op.TIMER, value=1),  # every microsecond
        p.Item(index=1, op=p.Op.PAUSE, pause_us=30_000_000),
    )
    plan = p.Plan(
        scenario="ticks", title="", nonce=1, guest=p.Guest(vcpus=1), memory=p.Memory(), swap=p.Swap(p.SwapKind.DELAY),
        pages=(), items=items, deadline_s=60,
    )  # fmt: skip
    with pytest.raises(ModelError, match="more than 50000 events"):
        run_once(situation_of(plan, KERNEL))
