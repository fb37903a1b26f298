# SPDX-License-Identifier: GPL-2.0-or-later
"""A known fault that is gone, one that is there after all, and divergences that have nothing to do with one."""

from __future__ import annotations

from harness.judge.fault_shown import in_light_of_known_faults
from harness.judge.verdict_types import Finding, KnownFaultRow, Verdict
from harness.model.kernels import KernelModel, find_kernel
from harness.model.known_faults import KNOWN_FAULTS, RunWith, with_fixes
from harness.status import Status

N61 = find_kernel("nowait-6.1")
FIXED = with_fixes(N61, ["F1"])
FAIL = Verdict(scenario="S1", status=Status.FAIL, reason="D05: owed", findings=(Finding("D05", "owed"),))
SHOWN = Verdict(scenario="S1", status=Status.FINDING, known_faults=(KnownFaultRow("F1", predicted=True, shown=True),))
PASS = Verdict(scenario="S1", status=Status.PASS)


def never(kernel: KernelModel) -> Verdict:
    raise AssertionError(f"{kernel.name} was asked")


def test_what_agrees_with_its_model_is_left_alone() -> None:
    for verdict in (PASS, SHOWN):
        assert in_light_of_known_faults(verdict, ("F1",), N61, never) is verdict


def test_a_fault_that_is_gone_is_the_first_thing_to_be_told() -> None:
    def judge_by(kernel: KernelModel) -> Verdict:
        assert not kernel.reset_keeps_halt
        return PASS

    told = in_light_of_known_faults(FAIL, ("F1",), N61, judge_by)
    assert told.status is Status.FAIL and told.reason.startswith("finding F1 is not reproduced any more")
    assert [f.rule for f in told.findings] == ["F1", "D05"]
    assert told.known_faults == (KnownFaultRow("F1", predicted=True, shown=False),) and told.shown_faults == ()


def test_a_fault_on_a_kernel_that_is_described_as_fixed() -> None:
    told = in_light_of_known_faults(FAIL, (), FIXED, lambda kernel: SHOWN if kernel.reset_keeps_halt else FAIL)
    assert told.status is Status.FAIL and told.reason.startswith("this is finding F1")
    assert told.shown_faults == ("F1",)


def test_a_new_fault_is_not_taken_for_a_known_one() -> None:
    def without_others(kernel: KernelModel) -> Verdict:
        assert kernel.reset_keeps_halt, "N61 has F1: whether it is there after all is no question"
        return FAIL

    assert in_light_of_known_faults(FAIL, (), N61, without_others) is FAIL  # nothing known had to show
    assert in_light_of_known_faults(FAIL, ("F1",), N61, lambda _: FAIL) is FAIL
    assert in_light_of_known_faults(FAIL, (), FIXED, lambda _: FAIL) is FAIL
    assert in_light_of_known_faults(FAIL, (), FIXED, lambda _: PASS) is FAIL


def test_a_fault_is_not_looked_for_where_nothing_can_show_it() -> None:
    sound = with_fixes(N61, ["F1", "F2", "F3"])
    asked: list[str] = []

    def judge_by(kernel: KernelModel) -> Verdict:
        asked.append(kernel.name.rpartition(" ")[2])
        return FAIL

    assert in_light_of_known_faults(FAIL, (), sound, judge_by, {RunWith.RESET}) is FAIL
    assert asked == ["F1"]
    asked.clear()
    assert in_light_of_known_faults(FAIL, (), sound, judge_by, {RunWith.RESET, RunWith.PROGRAM}) is FAIL
    assert asked == ["F1", "F9"]
    asked.clear()
    assert in_light_of_known_faults(FAIL, (), sound, judge_by, ()) is FAIL
    assert asked == []
    asked.clear()
    assert in_light_of_known_faults(FAIL, (), sound, judge_by) is FAIL
    assert asked == [f.id for f in KNOWN_FAULTS.values() if not f.in_kernel(sound)]
