# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from harness.contract.plan import POOL_GPA, SHARED_GPA, Access, HostAction, HostWord, Op
from harness.scenario.build import build_plan
from harness.scenario.load import load_text

TEXT = """
id = "X"
title = "t"
[guest]
vcpus = 2
[pages.f]
groups = 2
run = 2
start = "dropped"
[memory]
backing = "file"
[[steps]]
touch = ["f[2:4]", "f[0]"]
access = "write"
cpl = 0
then = "wait"
pause_us = 7
[[steps]]
wrmsr = "EN"
value = "own|0b1001"
vcpu = 1
[[steps]]
wrmsr = "0x4b564d06"
value = 0xf4
[[steps]]
host = [{do = "freeze"}, {do = "lock-read", page = "f[1]"}]
[[steps]]
host = [{do = "thaw"}]
[[steps]]
paging = "flip"
[[steps]]
lapic = "off"
[[steps]]
timer_us = 100
[[steps]]
wait_all = true
[[timed]]
at_ms = 5
host = [{do = "sleep", arg = 3}]
"""


def test_steps_become_items_in_order_with_everything_resolved() -> None:
    (scenario,) = load_text("x", TEXT)
    plan = build_plan(scenario, nonce=99)
    assert [i.index for i in plan.items] == list(range(len(plan.items)))
    touches = plan.items[:3]
    assert [(i.page, i.gpa) for i in touches] == [
        ("f[2]", POOL_GPA + 64 * 4096),
        ("f[3]", POOL_GPA + 65 * 4096),
        ("f[0]", POOL_GPA),
    ]
    assert all(i.access is Access.WRITE and i.cpl == 0 and i.wait and i.pause_us == 7 for i in touches)
    en, vector, host1, host2, paging, lapic, timer, wait = plan.items[3:]
    assert (en.op, en.msr, en.value, en.vcpu) == (Op.WRMSR, 0x4B564D02, SHARED_GPA + 4096 + 9, 1)
    assert (vector.msr, vector.value) == (0x4B564D06, 0xF4)
    assert plan.host_actions[host1.value] == (
        HostAction(HostWord.FREEZE),
        HostAction(HostWord.LOCK_READ, POOL_GPA + 4096),
    )
    assert plan.host_actions[host2.value] == (HostAction(HostWord.THAW),)
    assert (paging.op, paging.value, lapic.op, lapic.value) == (Op.PAGING, 1, Op.LAPIC, 0)
    assert (timer.op, timer.value, wait.op) == (Op.TIMER, 100, Op.WAIT)
    assert plan.timed[0].at_ms == 5 and plan.timed[0].actions == (HostAction(HostWord.SLEEP, 3),)
    assert plan.nonce == 99 and plan.guest.vcpus == 2


@pytest.mark.parametrize(("word", "value"), [("off", 0), ("on", 1), ("base-off", 2), ("base-on", 3)])
def test_a_lapic_is_switched_in_spiv_or_in_its_base(word: str, value: int) -> None:
    off = '[[steps]]\nlapic = "base-off"\n' if word == "base-on" else ""
    (scenario,) = load_text("x", f'id = "X"\ntitle = "t"\n{off}[[steps]]\nlapic = "{word}"\n')
    assert build_plan(scenario, nonce=1).items[-1].value == value


def test_the_same_scenario_and_nonce_give_the_same_plan() -> None:
    (scenario,) = load_text("x", TEXT)
    assert build_plan(scenario, 1) == build_plan(scenario, 1) != build_plan(scenario, 2)


@pytest.mark.parametrize(("word", "value"), [("off", 0), ("flip", 1), ("flip-wp", 2)])
def test_each_way_to_change_paging_has_its_number(word: str, value: int) -> None:
    (scenario,) = load_text("x", TEXT.replace('paging = "flip"', f'paging = "{word}"'))
    (step,) = (item for item in build_plan(scenario, nonce=99).items if item.op is Op.PAGING)
    assert step.value == value
