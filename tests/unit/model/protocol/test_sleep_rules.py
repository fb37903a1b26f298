# SPDX-License-Identifier: GPL-2.0-or-later
"""A vCPU that sleeps in vcpu_block, and who wakes it: what keeps D52 and D53 although it looks like a breach."""

from __future__ import annotations

import pytest

from harness.model.events import Kind
from harness.model.protocol.checker import ALL_KINDS, Checker
from harness.model.protocol.rule_context import RuleContext
from tests.unit.model.protocol_notation import KNOWN, STANDARD, TOLD, feed_all, run, token, trace_of

TOLD_IT = "RDY:1@0 ACC VIRQ=0xf3 ENTRY"
KEPT = {
    "it looked before the work was listed": f"{token(1, 0)} EXIT DONE:0 SLEEP WAKING=0 IN {TOLD_IT}",
    "QEMU sleeps": f"{token(1, 0)} EXIT DONE:0 USER_EXIT IN SLEEP IN {TOLD_IT}",
    "it sleeps for a page": f"{token(1, 0)} DONE:0 EXIT MM_FAULT SLEEP WAKING=0 IN MM_FAULT_RET {TOLD_IT}",
    "the worker is slow, and a tick wakes it": f"{token(1, 0)} EXIT SLEEP DONE:0 WAKING=0 IN {TOLD_IT} MM_FAULT:0",
    "it was told before it had left its CPU": f"{token(1, 0)} EXIT WAKING=0 SLEEP DONE:0 MM_FAULT:0 IN {TOLD_IT}",
    "it did not sleep": f"{token(1, 0)} EXIT DONE:0 MM_FAULT:0 {TOLD_IT}",
    "the kick before DONE woke it": f"{token(1, 0)} EXIT SLEEP WAKING=0 DONE:0 MM_FAULT:0 IN {TOLD_IT}",
}
BROKEN = {
    "D52": f"{token(1, 0)} DONE:0 EXIT SLEEP WAKING=0 IN {TOLD_IT}",
    "D53": f"{token(1, 0)} EXIT SLEEP DONE:0 WAKING=1 MM_FAULT:0 WAKING=0 IN {TOLD_IT}",  # another vCPU
}
ENDED = f"{token(1, 0)} EXIT SLEEP DONE:0"


@pytest.mark.parametrize("name", KEPT)
def test_what_keeps_them(name: str) -> None:
    assert run(f"{TOLD} {KEPT[name]}", KNOWN, STANDARD)[0] == set()


@pytest.mark.parametrize("rule", BROKEN)
def test_what_breaks_one(rule: str) -> None:
    assert run(f"{TOLD} {BROKEN[rule]}", KNOWN, STANDARD)[0] == {rule}


def test_a_worker_that_has_come_to_its_end_has_woken_its_vcpu() -> None:
    """Also one that does nothing else, while the vCPU sleeps to the end of the recording, as in S367."""
    assert run(f"{TOLD} {ENDED} WAKING=0 WORK_END:0 IN {TOLD_IT}", KNOWN, STANDARD)[0] == set()
    assert "D53" in run(f"{TOLD} {ENDED} WORK_END:0", KNOWN, STANDARD)[0]
    assert "D53" not in run(f"{TOLD} {ENDED}", KNOWN, STANDARD)[0], "it may be held up"


def test_without_sched_waking_nobody_is_owed_one() -> None:
    checker = Checker(
        STANDARD, 2, int_vec=0, first_id=1,
        context=RuleContext(**KNOWN),  # type: ignore[arg-type]
        recorded=ALL_KINDS - {Kind.WAKING},
    )  # fmt: skip
    text = f"{TOLD} {token(1, 0)} EXIT SLEEP DONE:0 MM_FAULT:0 IN {TOLD_IT}"
    assert not list(feed_all(checker, trace_of(text)))
    assert "D53" in {unchecked.rule for unchecked in checker.unchecked}
