# SPDX-License-Identifier: GPL-2.0-or-later
"""The probe guest's scheduling rules of docs/formats/probe.md section 5."""

from __future__ import annotations

import pytest

from harness.contract.words import Op
from harness.model.events import WAKE_ALL_TOKEN
from harness.model.simulation.probe_vcpu import ProbeVcpu
from harness.model.simulation.situation import Step


def program(*steps: Step) -> ProbeVcpu:
    return ProbeVcpu(tuple(steps))


def touch(index: int, **fields: bool) -> Step:
    return Step(index, Op.TOUCH, **fields)  # type: ignore[arg-type]


def begin(v: ProbeVcpu) -> int:
    step = v.next_step()
    assert step is not None
    v.start(step)
    return step.index


def test_items_start_in_order_and_a_token_lets_the_next_one_start() -> None:
    v = program(touch(0), touch(1))
    assert begin(v) == 0
    v.put_aside(v.tasks[0], 0x1000)
    assert begin(v) == 1
    assert v.waiting
    assert not v.finished


def test_wait_holds_the_items_behind_it() -> None:
    v = program(touch(0, wait=True), touch(1))
    begin(v)
    v.put_aside(v.tasks[0], 0x1000)
    assert v.next_step() is None
    v.ready(0x1000)
    assert v.resume() is v.tasks[0]
    v.tasks[0].ended = True
    assert begin(v) == 1


def test_the_oldest_runnable_item_runs_first() -> None:
    v = program(touch(0), touch(1), touch(2))
    for n in range(3):
        begin(v)
        v.put_aside(v.tasks[n], 0x1000 * (n + 1))
    v.ready(0x3000)
    v.ready(0x1000)
    assert [t.step.index for t in (v.resume(), v.resume()) if t] == [0, 2]
    assert v.resume() is None


def test_wait_all_starts_when_nothing_is_put_aside() -> None:
    v = program(touch(0), Step(1, Op.WAIT), touch(2))
    begin(v)
    v.put_aside(v.tasks[0], 0x1000)
    assert v.next_step() is None
    v.ready(0x1000)
    v.resume()
    v.tasks[0].ended = True
    assert begin(v) == 1


def test_wake_all_wakes_all() -> None:
    v = program(touch(0), touch(1))
    for n in range(2):
        begin(v)
        v.put_aside(v.tasks[n], 0x1000 * (n + 1))
    v.ready(WAKE_ALL_TOKEN)
    assert len(v.runnable) == 2
    assert not v.early


def test_ready_before_its_token_is_remembered() -> None:
    v = program(touch(0))
    v.ready(0x1000)
    begin(v)
    v.put_aside(v.tasks[0], 0x1000)
    assert v.resume() is v.tasks[0]
    assert not v.waiting
    v.ready(0)
    assert not v.early, "a cleared token word names no item"


def test_a_reset_loses_what_was_put_aside() -> None:
    v = program(touch(0), touch(1))
    begin(v)
    v.put_aside(v.tasks[0], 0x1000)
    v.lose_tasks()
    assert begin(v) == 1
    v.tasks[1].ended = True
    assert v.finished


@pytest.mark.parametrize("op", [Op.WRMSR, Op.LAPIC])
def test_a_write_without_interrupts_begins_before_what_waits(op: Op) -> None:
    steps = [Step(0, Op.TOUCH), Step(1, op, interrupts=False), Step(2, op)]
    probe = ProbeVcpu(tuple(steps))
    assert not probe.keeps_off
    task = probe.start(steps[0])
    assert probe.keeps_off
    probe.put_aside(task, 0x1000)
    probe.ready(0x1000)
    assert not probe.keeps_off, "what is runnable is resumed first"
    assert probe.resume() is task
    probe.start(steps[1])
    assert not probe.keeps_off


def test_a_vcpu_is_past_what_has_ended_or_was_put_aside() -> None:
    v = program(touch(0), touch(2, wait=True), touch(5))
    assert not v.comes_past() and v.past == -1
    begin(v)
    v.put_aside(v.tasks[0], 0x1000)
    assert v.comes_past() and v.past == 0
    assert not v.comes_past()
    begin(v)
    v.put_aside(v.tasks[1], 0x2000)
    assert not v.comes_past() and v.past == 0, "it says wait"
    v.ready(0x2000)
    assert not v.comes_past(), "it is runnable, and has not ended"
    assert v.resume() is v.tasks[1]
    v.tasks[1].ended = True
    assert v.comes_past() and v.past == 2
