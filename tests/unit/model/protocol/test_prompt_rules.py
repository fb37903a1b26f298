# SPDX-License-Identifier: GPL-2.0-or-later
"""What is told at the next entry, and what need not be: a trace that keeps the rule, and one that breaks only it."""

from __future__ import annotations

import pytest

from tests.unit.model.protocol_notation import ACKED, KNOWN, STANDARD, TOLD, run, token

TWO_TOLD = f"{token(1, 0)} {token(2, 1)} DONE:0 DONE:1 EXIT RDY:1@0 ACC VIRQ=0xf3 ENTRY"
CASES = {
    "D50 slot": (
        f"{TWO_TOLD} EXIT ENTRY EXIT RDY:2@1 ACC VIRQ=0xf3 WRMSR:ACK=1 ENTRY",
        f"{TWO_TOLD} EXIT ENTRY {ACKED} EXIT RDY:2@1 ACC VIRQ=0xf3 ENTRY",
    ),
    "D50 acknowledged late": (  # S79 on noio-6.1: the word was cleared, and the next one came before the ACK
        f"{token(1, 0)} {token(2, 1)} {token(3, 2)} DONE:0 EXIT RDY:1@0 ACC VIRQ=0xf3 ENTRY DONE:1 EXIT RDY:2@1 ACC"
        f" ENTRY DONE:2 {ACKED} EXIT VIRQ=0xf3 ENTRY EXIT RDY:3@2 ACC WRMSR:ACK=1 ENTRY",
        f"{token(1, 0)} {token(2, 1)} {token(3, 2)} DONE:0 EXIT RDY:1@0 ACC VIRQ=0xf3 ENTRY DONE:1 EXIT RDY:2@1 ACC"
        f" ENTRY DONE:2 {ACKED} EXIT VIRQ=0xf3 ENTRY {ACKED} EXIT RDY:3@2 ACC ENTRY",
    ),
    "D50 LAPIC": (
        f"{token(1, 0)} DONE:0 EXIT WRMSR:SPIV=0xff ENTRY EXIT ENTRY EXIT WRMSR:SPIV=0x1ff RDY:1@0 ACC VIRQ=0xf3 ENTRY",
        f"{token(1, 0)} DONE:0 EXIT WRMSR:SPIV=0x1ff ENTRY EXIT RDY:1@0 ACC VIRQ=0xf3 ENTRY",
    ),
    "D50 another first": (  # on the done list, so that its worker asks for both, which is held up before it does
        f"{token(1, 0)} {token(2, 1)} WORK:0 MM_FAULT_RET:0 DONE:1 EXIT ENTRY EXIT ENTRY DONE:0 EXIT RDY:1@0 ACC"
        f" VIRQ=0xf3 ENTRY {ACKED} EXIT RDY:2@1 ACC VIRQ=0xf3 ENTRY",
        f"{token(1, 0)} {token(2, 1)} WORK:0 DONE:1 EXIT ENTRY EXIT ENTRY MM_FAULT_RET:0 DONE:0 EXIT RDY:2@1 ACC"
        f" VIRQ=0xf3 ENTRY {ACKED} EXIT RDY:1@0 ACC VIRQ=0xf3 ENTRY",
    ),
    "D56 the VMM asks": (  # its thread is in QEMU
        f"{token(1, 0)} EXIT DONE:0 RDY:1@0 ACC USER_EXIT ASKS:0 VIRQ=0xf3 ENTRY",
        f"{token(1, 0)} EXIT DONE:0 RDY:1@0 ACC ASKS:0 USER_EXIT VIRQ=0xf3 ENTRY",
    ),
    "D56 the area's page": (
        f"EXIT WRMSR:EN=0 ENTRY EXIT WRMSR:EN=0x1000009 ALL ACC VIRQ=0xf3 ENTRY {ACKED} {token(1, 0)} EXIT DONE:0"
        " RDY:1@0 ASKS:0 ACC VIRQ=0xf3 ENTRY",
        f"{token(1, 0)} EXIT DONE:0 RDY:1@0 ASKS:0 ACC VIRQ=0xf3 ENTRY",
    ),
    "D51 with an exception": (
        f"{token(1, 0)} EXIT DONE:0 RDY:1@0 ACC INJ_OTHER ENTRY {token(2, 1)} EXIT VIRQ=0xf3 ENTRY {ACKED}",
        f"{token(1, 0)} EXIT DONE:0 RDY:1@0 ACC INJ_OTHER ENTRY EXIT ENTRY {token(2, 1)} EXIT VIRQ=0xf3 ENTRY {ACKED}",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_keeps_it_and_one_breaks_it(name: str) -> None:
    good, bad = CASES[name]
    assert run(f"{TOLD} {good}", KNOWN, STANDARD)[0] == set()
    assert run(f"{TOLD} {bad}", KNOWN, STANDARD)[0] == {name[:3]}


@pytest.mark.parametrize("unknown", ["lapic_stays", "area_stays"])
def test_what_is_not_known_is_not_judged(unknown: str) -> None:
    late = f"{TOLD} {token(1, 0)} DONE:0 EXIT ENTRY EXIT RDY:1@0 ACC VIRQ=0xf3 ENTRY"
    assert run(late, KNOWN, STANDARD)[0] == {"D50"}
    assert run(late, {**KNOWN, unknown: None}, STANDARD)[0] == set()
