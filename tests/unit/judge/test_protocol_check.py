# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules and the machine under the kernel: what an emulated processor's own fault excuses, and what it cannot."""

from __future__ import annotations

from collections.abc import Callable

from harness.judge.verdict import judge_capture
from harness.model.kernels import find_kernel
from harness.status import Status
from tests.unit.judge.golden import edit_trace, load

N61 = find_kernel("nowait-6.1")


def changed(*changes: tuple[str, str, str, int]) -> Callable[[list[str]], list[str]]:
    """In the line that has the first word, for the so-manyth time from 0, the second word becomes the third."""

    def change(lines: list[str]) -> list[str]:
        for where, old, new, number in changes:
            at = [n for n, line in enumerate(lines) if where in line and old in line][number]
            lines[at] = lines[at].replace(old, new)
        return lines

    return change


def judged(*changes: tuple[str, str, str, int]) -> tuple[Status, str]:
    verdict = judge_capture(edit_trace(load("S61"), changed(*changes)), N61)
    return verdict.status, verdict.reason


def twice(number: int) -> tuple[str, str, str, int]:
    """An exit that says that an interrupt was delivered again, as an exception."""
    return "kvm_exit", "intr_info 0x", "intr_info 0x80000340 and not 0x", number


def wrong_vcpu(number: int) -> tuple[str, str, str, int]:
    """A token that names another vCPU: D03."""
    return "kvm_async_pf_not_present", "000 gva", "007 gva", number


def test_a_run_in_which_an_interrupt_came_twice_proves_nothing() -> None:
    status, reason = judged(twice(-1))
    assert status is Status.INCONCLUSIVE and "delivered interrupt 0x40 a second time" in reason


def test_a_rule_that_was_broken_before_stays_broken() -> None:
    status, reason = judged(twice(-1), wrong_vcpu(0))
    assert status is Status.FAIL
    assert reason.startswith("D03") and "later emulator" in reason


def test_a_rule_that_was_broken_behind_it_may_be_its_consequence() -> None:
    status, reason = judged(twice(0), wrong_vcpu(0))
    assert status is Status.INCONCLUSIVE and "did not do its part" in reason


def test_what_only_the_whole_run_shows_is_no_proof() -> None:
    """The prediction follows the whole run, and what is owed at its end may be so because of the fault."""
    status, _ = judged(twice(-1), ("kvm_async_pf_ready", "kvm_async_pf_ready", "kvm_async_pf_gone", -1))
    assert status is Status.INCONCLUSIVE
