# SPDX-License-Identifier: GPL-2.0-or-later
"""A vCPU that sleeps in vcpu_block, and who wakes it: what keeps D52 to D55 although it looks like a breach."""

from __future__ import annotations

import pytest

from harness.model.events import Kind
from harness.model.protocol.checker import ALL_KINDS, Checker
from harness.model.protocol.rule_context import RuleContext
from tests.unit.model.protocol_notation import (
    ACKED,
    KERNEL_FAULT,
    KNOWN,
    OWES,
    STANDARD,
    TOLD,
    feed_all,
    run,
    token,
    trace_of,
)

OFF = "EXIT WRMSR:EN=0 ENTRY"
TOLD_IT = "RDY:1@0 ACC VIRQ=0xf3 ENTRY"
KEPT = {
    "it looked before the work was listed": f"{token(1, 0)} EXIT DONE:0 SLEEP WAKING=0 IN {TOLD_IT}",
    "QEMU sleeps": f"{token(1, 0)} EXIT DONE:0 USER_EXIT IN SLEEP IN {TOLD_IT}",
    "it sleeps for a page": f"{token(1, 0)} DONE:0 EXIT MM_FAULT SLEEP WAKING=0 IN MM_FAULT_RET {TOLD_IT}",
    "the worker is slow, and a tick wakes it": f"{token(1, 0)} EXIT SLEEP DONE:0 WAKING=0 IN {TOLD_IT} MM_FAULT:0",
    "it was told before it had left its CPU": f"{token(1, 0)} EXIT WAKING=0 SLEEP DONE:0 MM_FAULT:0 IN {TOLD_IT}",
    "an INIT has dropped it": f"{token(1, 0)} INIT EXIT DONE:0 IN SLEEP WAKING=0 IN CLEAR ENTRY",
    "an INIT may have, while it ran": f"{token(1, 0)} DONE:0 EXIT IN INIT SLEEP WAKING=0 IN CLEAR ENTRY",
    "it did not sleep": f"{token(1, 0)} EXIT DONE:0 MM_FAULT:0 {TOLD_IT}",
    "the wake-all is queued when it looks": f"{OFF} EXIT WRMSR:EN=0x801009 SLEEP WAKING=0 IN ALL ACC VIRQ=0xf3 ENTRY",
    "the kick before DONE woke it": f"{token(1, 0)} EXIT SLEEP WAKING=0 DONE:0 MM_FAULT:0 IN {TOLD_IT}",
}
BROKEN = {
    "D52": f"{token(1, 0)} DONE:0 EXIT SLEEP WAKING=0 IN {TOLD_IT}",
    "D53": f"{token(1, 0)} EXIT SLEEP DONE:0 WAKING=1 MM_FAULT:0 WAKING=0 IN {TOLD_IT}",  # another vCPU
}
LATE = f"{OFF} EXIT WRMSR:EN=0x801009 ENTRY EXIT SLEEP WAKING=0 IN ALL ACC VIRQ=0xf3 ENTRY"
ENDED = f"{token(1, 0)} EXIT SLEEP DONE:0"


BY_ACK = f"{token(2, 1)} EXIT DONE:1 ENTRY EXIT RDY:2@1 ACC WRMSR:ACK=1 VIRQ=0xf3 ENTRY {token(3, 2)}"
"""The write of ACK has the second told."""


@pytest.mark.parametrize("name", KEPT)
def test_what_keeps_them(name: str) -> None:
    assert run(f"{TOLD} {KEPT[name]}", KNOWN, STANDARD)[0] == set()


@pytest.mark.parametrize("rule", BROKEN)
def test_what_breaks_one(rule: str) -> None:
    assert run(f"{TOLD} {BROKEN[rule]}", KNOWN, STANDARD)[0] == {rule.strip()}


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


def test_a_vcpu_does_not_sleep_with_a_wake_all_queued() -> None:
    assert "D52" in run(f"{TOLD} {LATE}", KNOWN, STANDARD)[0]


HALTED = {**KNOWN, "faults": KERNEL_FAULT, "nmis": ((50_000_000, 60_000_000),)}
"""The agent gave the NMI between 50 and 60 ms."""
HALT = "EXIT#20 PF:0#21 TRY:0#21 NP:1@0#22"
OUT = "WAKING=0#55 IN#56 USER_EXIT#57"
OVER = "RDY:1@0#92 ENTRY#93"
NMI = {
    "it is woken by its NMI": (f"{HALT} SLEEP#23 {OUT} ENTRY#65 EXIT#80 DONE:0#90 {OVER}", False),
    "it sleeps on": (f"{HALT} SLEEP#23 {OUT} SLEEP#58 DONE:0#90 WAKEN:0#91 IN#92 {OVER}", True),
    "it falls asleep behind the answer": (
        f"{HALT} SLEEP#23 {OUT} SLEEP#62 DONE:0#90 WAKEN:0#91 IN#92 {OVER}", True,
    ),
    "the VMM wakes it": (
        f"{HALT} SLEEP#23 {OUT} SLEEP#58 WAKING=0#61 IN#62 ENTRY#65 EXIT#66 DONE:0#90 {OVER}", False,
    ),
    "its page comes before the answer": (
        f"{HALT} SLEEP#23 WAKING=0#51 IN#51 USER_EXIT#52 SLEEP#53 DONE:0#54 WAKEN:0#54 IN#55 RDY:1@0#55 ENTRY#56",
        False,
    ),
    "it was in the guest meanwhile": (
        f"EXIT#20 ENTRY#52 EXIT#53 PF:0#53 TRY:0#54 NP:1@0#55 SLEEP#56 DONE:0#90 WAKEN:0#91 IN#92 {OVER}", False,
    ),
    "it was reset": (
        f"{HALT} SLEEP#23 {OUT} CLEAR#58 SLEEP#59 WAKEN:0#91 IN#92 ENTRY#93", False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NMI)
def test_an_nmi_keeps_its_vcpu_awake(name: str) -> None:
    text, broken = NMI[name]
    assert ("D54" in run(f"{TOLD.replace(' ', '#1 ')}#2 {text}", HALTED, STANDARD)[0]) is broken
    assert "D54" not in run(f"{TOLD.replace(' ', '#1 ')}#2 {text}", {**HALTED, "nmis": ()}, STANDARD)[0]
    off = {**HALTED, "lapic_stays": None}
    assert "D54" not in run(f"{TOLD.replace(' ', '#1 ')}#2 {text}", off, STANDARD)[0]


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        (f"ACC=0x40 {HALT} SLEEP WAKING=0 IN", True),
        (f"{HALT} ACC=0x40 SLEEP WAKING=0 IN", False),  # behind its look at the LAPIC
        (f"ACC=0x40 EXIT VIRQ=0x40 ENTRY {HALT} SLEEP WAKING=0 IN", False),
        ("ACC=0x40 EXIT SLEEP WAKING=0 IN", False),  # in its own HLT, perhaps with IF=0
        (f"ACC=0x40 EXIT L2_ENTRY ENTRY EXIT L2_OUT {HALT[8:]} SLEEP WAKING=0 IN", False),  # of an L2
        (f"ACC=0x40 EXIT CLEAR ENTRY {HALT} SLEEP WAKING=0 IN", False),
        (f"ACC=0x40 {HALT} INIT IN SLEEP WAKING=0 IN CLEAR ENTRY", False),
    ],
)
def test_an_interrupt_that_waits_keeps_a_halted_vcpu_awake(text: str, broken: bool) -> None:
    line = f"{TOLD} {text}".replace("#20", "").replace("#21", "").replace("#22", "")
    assert ("D54" in run(line, HALTED, STANDARD)[0]) is broken
    assert "D54" not in run(line, {**HALTED, "lapic_stays": None}, STANDARD)[0]


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("INIT WAKING=0 IN SLEEP SIPI WAKING=0 IN SLEEP WAKING=0 IN CLEAR ENTRY", True),
        ("INIT WAKING=0 IN SLEEP SIPI WAKING=0 IN CLEAR ENTRY", False),
        ("INIT WAKING=0 IN SIPI SLEEP WAKING=0 IN CLEAR ENTRY", False),  # who sends it has not come so far
        ("INIT WAKING=0 IN SLEEP SIPI WAKEN:0@1 IN SLEEP WAKING=0 IN CLEAR ENTRY", False),  # nor here
        ("INIT WAKING=0 IN CLEAR ENTRY EXIT SLEEP WAKING=0 IN ENTRY", False),
        ("SIPI WAKING=0 IN SLEEP WAKING=0 IN CLEAR ENTRY", False),  # without an INIT it is dropped
        ("INIT WAKING=0 IN SLEEP SIPI WAKING=0 IN USER_EXIT SLEEP WAKING=0 IN CLEAR ENTRY", False),  # the VMM sleeps
    ],
)
def test_a_sipi_starts_its_vcpu(text: str, broken: bool) -> None:
    assert ("D54" in run(f"{TOLD} EXIT SLEEP {text}", HALTED, STANDARD)[0]) is broken


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        (f"{OWES} {token(2, 1)} EXIT SLEEP WORK:1 WAKEN:0@1 DONE:1 IN", True),
        (f"{OWES} {token(2, 1)} EXIT SLEEP WORK:1 DONE:1 WAKEN:0@1 IN", False),
        (f"{OWES} {ACKED} {token(2, 1)} EXIT SLEEP WORK:1 WAKEN:0@1 DONE:1 IN", False),  # the kick
        (f"{OWES} {BY_ACK} EXIT SLEEP WORK:2 WAKEN:0@2 DONE:2 IN", True),
        (f"{OWES} {BY_ACK} {ACKED} EXIT SLEEP WORK:2 WAKEN:0@2 DONE:2 IN", False),
        (f"{OWES} {token(2, 1)} EXIT USER_EXIT SLEEP WORK:1 WAKEN:0@1 DONE:1 IN", False),
        (f"{OWES} {token(2, 1)} EXIT SLEEP WORK:1 WAKING=0 DONE:1 IN", False),  # by another thread
    ],
)
def test_who_owes_an_ack_is_not_woken_before_the_work_is_listed(text: str, broken: bool) -> None:
    assert ("D55" in run(f"{TOLD} {text}", KNOWN, STANDARD)[0]) is broken
    assert "D55" not in run(f"{TOLD} {text}", {**KNOWN, "ticks": True}, STANDARD)[0]
