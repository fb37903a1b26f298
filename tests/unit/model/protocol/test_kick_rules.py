# SPDX-License-Identifier: GPL-2.0-or-later
"""Whom a worker has to kick (D69), and what excuses it."""

from __future__ import annotations

import pytest

from harness.model.events import Kind
from harness.model.protocol.checker import ALL_KINDS, Checker
from harness.model.protocol.rule_context import RuleContext
from tests.unit.model.protocol_notation import ACKED, KNOWN, OWES, STANDARD, TOLD, feed_all, run, token, trace_of

TELLS = "EXIT RDY:1@0 ACC VIRQ=0xf3 ENTRY"
LOST = f"EXIT WRMSR:INT=0x0 ENTRY {token(1, 0)} EXIT WORK:0 KICK:0 DONE:0 RDY:1@0 ENTRY"
ON_AGAIN = "EXIT WRMSR:EN=0 WRMSR:EN=0x801009 ENTRY"

UNKICKED = {
    "in the guest": (f"{token(1, 0)} WORK:0 DONE:0 {TELLS}", True),
    "in its sleep": (f"{token(1, 0)} EXIT SLEEP WORK:0 DONE:0 WAKEN:0@0 IN RDY:1@0 ACC VIRQ=0xf3 ENTRY", True),
    "behind an ACK": (f"{OWES} {ACKED} {token(2, 1)} WORK:1 DONE:1 EXIT", True),
    "that was before its page": (f"{token(1, 0)} WORK:0 KICK:0 MM_FAULT:0 MM_FAULT_RET:0 DONE:0 {TELLS}", True),
    "by another worker": (f"{token(1, 0)} WORK:0 KICK:5 DONE:0 {TELLS}", True),
    "nor has begun to our knowledge": (f"{token(1, 0)} DONE:0 {TELLS}", False),
    "with an ACK owed": (f"{OWES} {token(2, 1)} WORK:1 DONE:1 EXIT", False),
    "with an ACK owed until a moment ago": (f"{OWES} {token(2, 1)} WORK:1 {ACKED} DONE:1 EXIT", False),
    "with an ACK owed for what was lost": (f"{LOST} EXIT WRMSR:INT=0xf3 ENTRY {token(2, 1)} WORK:1 DONE:1", False),
    "while another is told": (
        f"{token(1, 0)} {token(2, 1)} WORK:0 KICK:0 DONE:0 EXIT RDY:1@0 WORK:1 DONE:1 ACC VIRQ=0xf3 ENTRY",
        False,  # S28R on 6.1: 0.4 ms between kvm_async_pf_ready and the interrupt
    ),
    "which was told meanwhile": (f"{token(1, 0)} WORK:0 EXIT RDY:1@0 ACC VIRQ=0xf3 ENTRY DONE:0", False),
    "while another's page may have come": (f"{token(1, 0)} {token(2, 1)} WORK:1 WORK:0 DONE:0 EXIT", False),
    "behind a wake-all that waits": (f"{ON_AGAIN} {token(1, 0)} WORK:0 DONE:0 EXIT", False),
    "behind a state that was loaded": (f"EXIT CLEAR ENTRY {token(1, 0)} WORK:0 DONE:0 EXIT", False),
}


@pytest.mark.parametrize("name", UNKICKED)
def test_a_worker_kicks_the_vcpu(name: str) -> None:
    text, broken = UNKICKED[name]
    assert ("D69" in run(f"{TOLD} {text}", KNOWN, STANDARD)[0]) is broken
    assert "D69" not in run(f"{TOLD} {text}", {**KNOWN, "faults": None}, STANDARD)[0], (
        "a Linux guest's boot is not seen"
    )


def test_without_the_probe_nobody_is_owed_a_kick() -> None:
    checker = Checker(
        STANDARD, 2, int_vec=0, first_id=1,
        context=RuleContext(**KNOWN),  # type: ignore[arg-type]
        recorded=ALL_KINDS - {Kind.KICK},
    )  # fmt: skip
    assert not list(feed_all(checker, trace_of(f"{TOLD} {UNKICKED['in the guest'][0]}")))
    assert "D69" in {unchecked.rule for unchecked in checker.unchecked}
