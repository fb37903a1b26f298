# SPDX-License-Identifier: GPL-2.0-or-later
"""Each rule: a trace that keeps it, and one that breaks it and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from harness.model.events import WAKE_ALL_TOKEN
from harness.model.kernels import KernelModel, find_kernel
from harness.model.outcomes import Count
from harness.model.protocol.rules import RULES, FaultState, LoggedStart, PageAfter
from tests.unit.model.protocol_notation import (
    ACKED,
    ALWAYS,
    BOTH,
    FAILED_ENABLE,
    GFN,
    KERNEL_FAULT,
    KNOWN,
    L2_FAULT,
    L2_LOST,
    PROMPT,
    SET_UP,
    STANDARD,
    TOKEN_FAULT,
    TOLD,
    VMEXITS,
    halt,
    l2_token,
    ready,
    run,
    token,
)

CLASS_0 = f"ENTRY EXIT WRMSR:INT=0x7 ENTRY EXIT WRMSR:EN=0x801009 ALL ACC=0x7 ENTRY {ACKED}"
BOOTED = f"EXIT CLEAR ENTRY EXIT WRMSR:INT=0xf3 ENTRY EXIT WRMSR:EN=0x801009 ALL ACC VIRQ=0xf3 ENTRY {ACKED}"
RESET_BEFORE_IT = f"{token(1, 0)} EXIT DONE:0 RDY:1@0 ACC ENTRY {BOOTED}"
TWICE = {"hyp": {0: 2}, "guest_readies": {0: (WAKE_ALL_TOKEN,) * 2}}  # the second of them in the next life, or not
BEFORE_IT, BEHIND_IT = ({**TWICE, "guest_boots": {0: (LoggedStart(), LoggedStart(readies=n))}} for n in (1, 2))
IN_ITS_HANDLER = f"EXIT WRMSR:EN=0x801009 ALL ACC VIRQ=0xf3 ENTRY {BOOTED}"
RESET_BEHIND_IT = f"{token(1, 0)} EXIT DONE:0 RDY:1@0 ACC VIRQ=0xf3 ENTRY {BOOTED}"
ROUNDS = "EXIT PF:0 TRY:0 REP:0 ENTRY " * 99  # halts that end at once, more often than works can be queued
LEFT = ("ram_file_open", "ram_file_locked", "works_left", "slots_left", "contexts_left")
TOLD_BY_THE_EVIDENCE = {"D65": "lost_refaults", "D66": "misflagged_pages", "D64": "pages_of_others",
    "D57": "early_retries", "D58": "forbidden_retries", "D59": "stray_wakes", "D63": "deaf_vcpus", "D60": "swap_slots",
    "D61": "unlisted_pages", "D62": "clean_pages", "D67": "events_left", "D68": "lost_words",
    "D70": "overwritten_tokens", "D71": "asked_again", "D72": "kept_lock", "D73": "uncounted_faults",
    "D74": "userfault_waits", "D75": "uncounted_pages"}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """``good`` and ``bad`` are traces after SET_UP; the contexts default to the common one."""

    good: str
    bad: str
    good_context: Mapping[str, object] = field(default_factory=dict)
    bad_context: Mapping[str, object] | None = None
    kernel: KernelModel = STANDARD
    owed: bool = False  # the violation is an obligation at the end
    set_up: str = SET_UP


def both(**fields: object) -> dict[str, Mapping[str, object]]:
    return {"good_context": fields, "bad_context": fields}


def many(count: int, first: int = 1) -> str:
    return " ".join(token(i, i) for i in range(first, first + count))


PANIC = "Kernel panic - not syncing: Host injected async #PF in kernel mode"
WARNED = "WARNING: CPU: 0 PID: 1 at arch/x86/kernel/kvm.c:200 kvm_async_pf_task_wake"
DUE = {"guest_panics": True, "guest_trouble": (PANIC,)}
CASES: dict[str, Case] = {
    "D01": Case(BOTH, f"EXIT PF:0 TRY:0 ENTRY {token(2, 1)}"),
    "D02": Case(
        token(1, 0) + " EXIT RDY:1@0 DONE:0 ACC ENTRY", token(1, 0) + " EXIT ENTRY DONE:0 RDY:1@0 ACC EXIT ENTRY"
    ),
    "D03": Case(token(1, 0), "EXIT PF:0 TRY:0 NP:0@0 INJ ENTRY"),
    "D04": Case(token(1, 0) + " " + token(2, 1), token(1, 0) + " " + token(3, 1)),
    "D05": Case(BOTH, token(1, 0), owed=True),
    "D06": Case(BOTH, f"{token(1, 0)} EXIT DONE:0 RDY:1@0 ACC ENTRY EXIT RDY:9@3 ENTRY"),
    "D07": Case(f"{token(1, 0)} {ready(1, 0)} UNMAP:0 {token(2, 0)}", f"{token(1, 0)} {token(2, 0)}"),
    "D08": Case(
        f"{token(1, 0)} EXIT PF:0 TRY:0 REP:0 SLEEP IN DONE:0 RDY:1@0 ACC ENTRY",
        f"{token(1, 0)} EXIT PF:0 TRY:0 REP:0 SLEEP INJ IN DONE:0 RDY:1@0 ACC ENTRY",
    ),
    "D09": Case(many(64), many(65)),
    "D10": Case(BOTH, "EXIT DONE:0 PF:0 TRY:0 NP:1@0 INJ ENTRY EXIT RDY:1@0 ACC ENTRY"),
    "D11": Case(
        f"{token(1, 0)} EXIT RDY:1@0 ACC DONE:0 ENTRY",
        f"{token(1, 0)} EXIT RDY:1@0 ACC ENTRY DONE:0",
    ),
    "D12": Case(BOTH, f"{token(1, 0)} EXIT DONE:0 DONE:0 RDY:1@0 ACC ENTRY"),
    "D13": Case(BOTH, "EXIT PF:0 TRY:0 NP:1@0 ENTRY EXIT DONE:0 RDY:1@0 ENTRY"),
    "D14": Case(BOTH, BOTH, {"pf_guest": 1}, {"pf_guest": 2}),
    "D15": Case(BOTH, f"{token(1, 0)} EXIT DONE:0 RDY:1@0 ENTRY"),
    "D16": Case(BOTH, BOTH, {"hyp": {0: 2}}, {"hyp": {0: 3}}),
    "D17": Case(
        f"{token(1, 0)} {token(2, 2)} DONE:0 DONE:2 EXIT RDY:1@0 ACC ENTRY EXIT RDY:2@2 ACC WRMSR:ACK=1 ENTRY",
        f"{token(1, 0)} {token(2, 2)} DONE:0 EXIT RDY:1@0 ACC DONE:2 RDY:2@2 ACC ENTRY",
    ),
    "D18": Case(
        f"{token(1, 0)} {halt(2, 1)} DONE:1 DONE:0 RDY:2@1 RDY:1@0 ACC ENTRY",
        f"{token(1, 0)} {halt(2, 1)} DONE:0 DONE:1 RDY:1@0 ACC RDY:2@1 ENTRY",
    ),
    "D19": Case(
        f"{token(1, 0)} {token(2, 2)} DONE:0 EXIT RDY:1@0 ACC ENTRY DONE:2 EXIT RDY:2@2 ACC ENTRY",
        f"{token(1, 0)} {token(2, 2)} DONE:0 DONE:2 EXIT RDY:1@0 ACC ENTRY EXIT RDY:2@2 ACC ENTRY",
    ),
    "D20": Case("EXIT WRMSR:EN=0x80100b ALL ACC ENTRY", "EXIT ALL ACC ENTRY"),
    "D21": Case(
        token(1, 0),
        token(1, 0),
        {"faults": {(0, GFN): (FaultState(interrupts=False), FaultState())}},
        {"faults": {(0, GFN): (FaultState(interrupts=False), FaultState(shadow=True))}},
    ),
    "D22": Case(token(1, 0), token(1, 0), {"faults": TOKEN_FAULT}, {"faults": KERNEL_FAULT}),
    "D23": Case(token(1, 0), halt(1, 0) + " DONE:0 RDY:1@0 ENTRY", {"hlt_exits": False}, {"hlt_exits": False}),
    "D24": Case(
        f"{token(1, 0)} EXIT PF:0 TRY:0 REP:0 SLEEP IN ENTRY",
        f"{token(1, 0)} EXIT PF:0 TRY:0 REP:0 ENTRY",
    ),
    "D25": Case(
        halt(1, 0) + " DONE:0 RDY:1@0 ENTRY EXIT WAKEUP ENTRY",
        "EXIT PF:0 TRY:0 NP:1@0 SLEEP IN WAKEUP DONE:0 RDY:1@0 ENTRY",
    ),
    "D26": Case(
        f"{token(1, 0)} DONE:0 EXIT RDY:1@0#7 ACC ENTRY",
        f"{token(1, 0)} DONE:0 EXIT RDY:1@0#5 ACC ENTRY",
        **both(stopped=((4_000_000, 6_000_000),)),
    ),
    "D27": Case(
        f"{token(1, 0)} EXIT DONE:0 WRMSR:EN=0 ENTRY",
        f"{token(1, 0)} EXIT WRMSR:EN=0 ENTRY DONE:0",
    ),
    "D28": Case(BOTH, BOTH, {"guest_trouble": (), "host_trouble": ()}, {"guest_trouble": (WARNED,)}),
    "D29": Case(
        f"{token(1, 0)} {ready(1, 0)} UNMAP:0 EXIT PF:0 ENTRY",
        f"{token(1, 0)} {ready(1, 0)} EXIT PF:0 ENTRY",
    ),
    "D30": Case(
        "EXIT PF:0 READ:0 TRY:0 NP:1@0 INJ ENTRY",
        token(1, 0),
        **both(read_devices=frozenset({253 << 20}), slots={GFN: 0}, single_toucher=True),
    ),
    "D31": Case(
        "EXIT PF:0 MM_FAULT_RET=0x404 TRY:0 NP:1@0 INJ ENTRY",
        "EXIT PF:0 MM_FAULT_RET=0x4 TRY:0 NP:1@0 INJ ENTRY",
    ),
    "D32": Case(
        token(1, 0),
        token(1, 0),
        {"memory": "anon", "single_toucher": True, "page_cluster": 1, "userfaultfd": False},
        {"memory": "anon", "single_toucher": True, "page_cluster": 0, "userfaultfd": False},
    ),
    "D33": Case(
        token(1, 0),
        token(1, 0),
        {"memory": "shmem", "userfaultfd": True},
        {"memory": "shmem", "userfaultfd": False},
    ),
    "D34": Case(
        token(1, 0),
        token(1, 0),
        {"memory": "anon", "single_toucher": True, "swap_synchronous": False, "userfaultfd": False},
        {"memory": "anon", "single_toucher": True, "swap_synchronous": True, "userfaultfd": False},
    ),
    "D35": Case(
        BOTH,
        BOTH,
        {"kvm_stats": {"pf_taken": 2, "pf_fixed": 2, "pf_spurious": 0, "pf_emulate": 0}},
        {"kvm_stats": {"pf_taken": 2, "pf_fixed": 3, "pf_spurious": 0, "pf_emulate": 0}},
    ),
    "D36": Case(
        f"{halt(1, 0)} INT {halt(2, 1)} MM_FAULT_RET:1#4 DONE:0#5 DONE:1#45 RDY:2@1 RDY:1@0 ENTRY".replace(
            "INT", "VIRQ ENTRY"
        ),
        f"{halt(1, 0)} INT {halt(2, 1)} DONE:0#5 MM_FAULT_RET:1#5.001 DONE:1#5.002 RDY:2@1 RDY:1@0 ENTRY".replace(
            "INT", "VIRQ ENTRY"
        ),
    ),
    "D37": Case(
        f"{token(1, 0)} DONE:0 EXIT WRMSR:APICBASE=0x100 WRMSR:APICBASE=0x900 RDY:1@0 ACC ENTRY",
        f"{token(1, 0)} DONE:0 EXIT WRMSR:APICBASE=0x100 RDY:1@0 ACC ENTRY",
    ),
    "D38": Case("EXIT TRY:0=0x1000 NP:1@0 INJ ENTRY", "EXIT TRY:0=0x1001 NP:1@0 INJ ENTRY"),
    "D39": Case(
        f"{token(1, 0)} {ready(1, 0)}",
        f"{token(1, 0)} {ready(1, 0)}",
        {
            "guest_tokens": {0: ((0x1000, 1),)},
            "guest_readies": {0: (WAKE_ALL_TOKEN, 0x1000)},
            "shared_tail_zero": {0: True},
        },
        {
            "guest_tokens": {0: ((0x1000, 3),)},
            "guest_readies": {0: (WAKE_ALL_TOKEN, 0x1000)},
            "shared_tail_zero": {0: True},
        },
    ),
    "D40": Case(
        " ".join(f"{token(i, 0)} {ready(i, 0)} UNMAP:0" for i in range(1, 20)),
        " ".join(f"{token(i, 0)} {ready(i, 0)}".replace("PF:0 ", "") for i in range(1, 20)),
    ),
    "D41": Case(
        f"{token(1, 0)} {ready(1, 0)}",
        f"{token(1, 0)} {ready(1, 0)}",
        {"private_file": frozenset({GFN}), "rss_anon_pages": 1},
        {"private_file": frozenset({GFN}), "rss_anon_pages": 0},
    ),
    "D42": Case(
        f"{token(1, 0)} EXIT WRMSR:INT=0xf4 ENTRY EXIT DONE:0 RDY:1@0 ACC=0xf4 ENTRY",
        f"{token(1, 0)} EXIT WRMSR:INT=0xf4 ENTRY EXIT DONE:0 RDY:1@0 ACC=0xf3 ENTRY",
    ),
    "D43": Case(
        f"{token(1, 0)} {ready(1, 0)} EXIT PF:3 ENTRY",
        f"{token(1, 0)} {ready(1, 0)} EXIT PF:3 ENTRY",
        {"pages_after": {GFN: PageAfter(True), GFN + 3: PageAfter(False)}},
        {"pages_after": {GFN: PageAfter(True), GFN + 3: PageAfter(True)}},
    ),
    "D49": Case(BOTH, BOTH, {"memory_left": 0}, {"memory_left": 1}),
    **{rule: Case(BOTH, BOTH, {told: ()}, {told: (GFN,)}) for rule, told in TOLD_BY_THE_EVIDENCE.items()},
    "D44": Case(
        f"{token(1, 0)} {ready(1, 0)}",
        f"{halt(1, 0)} DONE:0 RDY:1@0 ENTRY",
        set_up="ENTRY EXIT WRMSR:INT=0xf3 ENTRY",
    ),
    "D45": Case(
        f"{l2_token(1, 0)} {ready(1, 0)}",
        f"{L2_LOST.format(i=1, p=0)} {ready(1, 0)}",
        {"faults": L2_FAULT, "area_stays": True},
        kernel=find_kernel("nowait-7.3"),
        set_up=f"{SET_UP} {VMEXITS}",
    ),
    "D46": Case(
        f"{l2_token(1, 0)} {ready(1, 0)}",
        f"{l2_token(1, 0)} {ready(1, 0)}",
        {"guest_flags": {0: ()}, "shared_flags": {0: 0}},
        {"guest_flags": {0: ("item 1: flags 0x1",)}, "shared_flags": {0: 0}},
        set_up=f"{SET_UP} {VMEXITS}",
    ),
    "D47": Case(
        f"{l2_token(1, 0)} {ready(1, 0)}",
        f"{L2_LOST.format(i=1, p=0).replace('@0 ENTRY', '@0 INJ ENTRY')} {ready(1, 0)}",
        {"faults": L2_FAULT},
        set_up=f"{SET_UP} {VMEXITS}",
    ),
    "D48": Case(
        f"{token(1, 0)} EXIT L2_ENTRY DONE:0 RDY:1@0 ACC ENTRY EXIT L2_INTR L2_EXIT ENTRY {ACKED}",
        f"{token(1, 0)} EXIT L2_ENTRY ENTRY EXIT L2_OUT DONE:0 RDY:1@0 ACC ENTRY {ACKED}",
        {"l2_always_exits": True},
        set_up=f"{SET_UP} {VMEXITS}",
    ),
}
CASES |= {rule: Case(good, bad, KNOWN, set_up=TOLD) for rule, (good, bad) in PROMPT.items()}
MORE: dict[str, Case] = {
    **{f"D49 {k}": Case(BOTH, BOTH, {k: 0}, {k: 1}) for k in LEFT},
    "D08 not live": Case(BOTH, "EXIT PF:0 TRY:0 REP:0 SLEEP IN ENTRY"),
    "D13 halt of a program": Case(
        f"{halt(1, 0)} DONE:0 RDY:1@0 ENTRY",
        f"{halt(1, 0)} DONE:0 RDY:1@0 ENTRY",
        {"enabled_before": True, "faults": KERNEL_FAULT},
        {"enabled_before": True, "faults": {(0, GFN): (FaultState(cpl=3),)}},
        set_up="ENTRY",
    ),
    "D15 halt": Case(BOTH, halt(1, 0) + " DONE:0 RDY:1@0 ACC ENTRY"),
    "D16 too few": Case(BOTH, BOTH, {"hyp": {0: 2}}, {"hyp": {0: 1}}),
    "D20 owed": Case("EXIT WRMSR:EN=0x801009 ALL ACC ENTRY", "EXIT WRMSR:EN=0x801009 ENTRY", owed=True),
    "D20 address": Case("EXIT WRMSR:EN=0x801009 ALL ACC ENTRY", "EXIT WRMSR:EN=0x801009 ALL=0x1000 ACC ENTRY"),
    "D22 paging off": Case(
        token(1, 0),
        token(1, 0),
        {"faults": {(0, GFN): (FaultState(paging=True),)}},
        {"faults": {(0, GFN): (FaultState(paging=False),)}},
    ),
    "D22 disabled": Case(BOTH, token(1, 0), set_up=SET_UP + " EXIT WRMSR:EN=0 ENTRY"),
    "D23 user-space LAPIC": Case(token(1, 0), token(1, 0), {"lapic_in_kernel": True}, {"lapic_in_kernel": False}),
    "D23 REP": Case(
        f"{ALWAYS} {token(1, 0)} EXIT PF:0 TRY:0 REP:0 SLEEP IN ENTRY",
        f"{ALWAYS} {token(1, 0)} EXIT WRMSR:EN=0x801009 ENTRY EXIT PF:0 TRY:0 REP:0 SLEEP IN ENTRY",
        **both(hlt_exits=False, faults=KERNEL_FAULT),
    ),
    "D24 halt": Case(
        halt(1, 0) + " ENTRY", "EXIT PF:0 TRY:0 NP:1@0 ENTRY", {"faults": KERNEL_FAULT}, {"faults": KERNEL_FAULT}
    ),
    # async_pf_execute: the work is on the done list, and the worker held up before it traces that.
    "D24 done": Case(
        "EXIT PF:0 TRY:0 NP:1@0 MM_FAULT_RET:0 KICK:0 ENTRY EXIT PF:0 TRY:0 REP:0 ENTRY DONE:0 EXIT RDY:1@0 ENTRY",
        "EXIT PF:0 TRY:0 NP:1@0 ENTRY EXIT PF:0 TRY:0 REP:0 ENTRY MM_FAULT_RET:0 KICK:0 DONE:0 EXIT RDY:1@0 ENTRY",
        {"faults": KERNEL_FAULT},
        {"faults": KERNEL_FAULT},
    ),
    "D24 for long": Case(
        f"EXIT PF:0 TRY:0 NP:1@0 MM_FAULT_RET:0 KICK:0 ENTRY {ROUNDS}DONE:0 EXIT RDY:1@0 ENTRY",
        f"EXIT PF:0 TRY:0 NP:1@0 ENTRY {ROUNDS}MM_FAULT_RET:0 KICK:0 DONE:0 EXIT RDY:1@0 ENTRY",
        {"faults": KERNEL_FAULT},
        {"faults": KERNEL_FAULT},
    ),
    "D25 5.10": Case(
        "EXIT PF:0 TRY:0 NP:1@0 SLEEP IN WAKEUP ENTRY",
        "EXIT PF:0 TRY:0 NP:1@0 SLEEP IN ENTRY",
        kernel=find_kernel("nowait-5.10"),
    ),
    "D25 halt_exits": Case(
        BOTH, BOTH, {"kvm_stats": {"halt_exits": 3}, "guest_hlts": 3}, {"kvm_stats": {"halt_exits": 4}, "guest_hlts": 3}
    ),
    "D25 a HLT that was traced": Case(
        BOTH,
        BOTH,
        {"kvm_stats": {"halt_exits": 9}, "guest_hlts": 3, "hlts_end": False},
        {"kvm_stats": {"halt_exits": 2}, "guest_hlts": 3, "hlts_end": False},
    ),
    "D25 polls": Case(
        BOTH,
        BOTH,
        {"kvm_stats": {"halt_attempted_poll": 3}, "guest_hlts": 2, "halts": 3},
        {"kvm_stats": {"halt_attempted_poll": 4}, "guest_hlts": 3, "halts": 3},
    ),
    "D27 RDY": Case(
        f"{token(1, 0)} EXIT DONE:0 WRMSR:EN=0 ENTRY", f"{token(1, 0)} EXIT DONE:0 WRMSR:EN=0 ENTRY EXIT RDY:1@0 ENTRY"
    ),
    "D28 host": Case(
        BOTH,
        BOTH,
        {"host_trouble": ()},
        {"host_trouble": ("WARNING: CPU: 1 PID: 7 at kvm_del_async_pf_gfn+0x12",)},
    ),
    "D30 noio": Case(
        token(1, 0),
        "EXIT PF:0 READ:0 TRY:0 NP:1@0 INJ ENTRY",
        **both(read_devices=frozenset({253 << 20}), slots={GFN: 0}, single_toucher=True),
        kernel=find_kernel("noio-6.1"),
    ),
    "D31 total": Case(
        BOTH,
        BOTH,
        {"major_faults": {0: 3}, "sync_majors": {0: Count(2, 3, "race")}},
        {"major_faults": {0: 4}, "sync_majors": {0: Count(2, 3, "race")}},
    ),
    "D28 a panic that is due": Case(BOTH, BOTH, DUE, {**DUE, "guest_trouble": (WARNED, "Host injected async #PF")}),
    "D28 beside one": Case(BOTH, BOTH, DUE, {**DUE, "guest_trouble": (WARNED, PANIC)}),
    "D28 a warning that is due": Case(
        BOTH,
        BOTH,
        {"host_warns": ("at_fault",), "host_trouble": ("WARNING: CPU: 1 PID: 7 at x.c:1 at_fault+0x12",)},
        {"host_warns": ("at_fault",), "host_trouble": ()},
    ),
    "D28 a warning beside it": Case(
        BOTH,
        BOTH,
        {"host_warns": ("at_fault",), "host_trouble": ("WARNING: CPU: 1 PID: 7 at x.c:1 at_fault+0x12",)},
        {
            "host_warns": ("at_fault",),
            "host_trouble": (
                "WARNING: CPU: 1 PID: 7 at x.c:1 at_fault+0x12",
                "WARNING: CPU: 1 PID: 7 at x.c:1 another+0x12",
            ),
        },
    ),
    "D38 of an L2": Case(  # whose address is not that of its L1
        "EXIT L2_ENTRY ENTRY EXIT L2_OUT TRY:0=0x1001 NP:1@0 L2_EXIT=1 ENTRY",
        "EXIT L2_ENTRY L2_EXIT ENTRY EXIT TRY:0=0x1001 NP:1@0 INJ ENTRY",
        set_up=f"{SET_UP} {VMEXITS}",
    ),
    "D38 NP": Case(BOTH, "EXIT PF:0 TRY:3 NP:1@0 INJ ENTRY"),
    "D39 ready": Case(
        f"{token(1, 0)} {ready(1, 0)}",
        f"{token(1, 0)} {ready(1, 0)}",
        {"guest_readies": {0: (WAKE_ALL_TOKEN, 0x1000)}},
        {"guest_readies": {0: (WAKE_ALL_TOKEN, 0x2000)}},
    ),
    "D39 vector of class 0": Case(  # EN before INT: the wake-all is announced with a vector that is never taken
        f"{token(1, 0)} EXIT WRMSR:INT=0xf3 ENTRY {ready(1, 0)}",
        f"{token(1, 0)} EXIT WRMSR:INT=0xf3 ENTRY {ready(1, 0)}",
        {"guest_readies": {0: (0x1000,)}, "hyp": {0: 1}},
        {"guest_readies": {0: (WAKE_ALL_TOKEN, 0x1000)}, "hyp": {0: 1}},
        set_up=CLASS_0,
    ),
    "D16 vector of class 0": Case(
        f"{token(1, 0)} EXIT WRMSR:INT=0xf3 ENTRY {ready(1, 0)}",
        f"{token(1, 0)} EXIT WRMSR:INT=0xf3 ENTRY {ready(1, 0)}",
        {"hyp": {0: 1}},
        {"hyp": {0: 2}},
        set_up=CLASS_0,
    ),
    "D16 taken away by a reset": Case(RESET_BEFORE_IT, RESET_BEFORE_IT, {"hyp": {0: 2}}, {"hyp": {0: 3}}),
    "D16 injected before a reset": Case(RESET_BEHIND_IT, RESET_BEHIND_IT, {"hyp": {0: 3}}, {"hyp": {0: 2}}),
    "D16 taken from its handler": Case(IN_ITS_HANDLER, IN_ITS_HANDLER, BEFORE_IT, BEHIND_IT),
    "D39 taken away by a reset": Case(
        RESET_BEFORE_IT,
        RESET_BEFORE_IT,
        {"guest_readies": {0: (WAKE_ALL_TOKEN, WAKE_ALL_TOKEN)}},
        {"guest_readies": {0: (WAKE_ALL_TOKEN, 0x1000, WAKE_ALL_TOKEN)}},
    ),
    "D39 surplus": Case(
        f"{token(1, 0)} {ready(1, 0)}",
        f"{token(1, 0)} {ready(1, 0)}",
        {"guest_tokens": {0: ((0x1000, 1),)}},
        {"guest_tokens": {0: ((0x1000, 1), (0x2000, 1))}},
    ),
    "D39 surplus ready": Case(
        BOTH, BOTH, {"guest_readies": {0: ()}}, {"guest_readies": {0: (WAKE_ALL_TOKEN, 0x1000, 0x1000)}}
    ),
    "D39 a log that goes on": Case(
        BOTH,
        BOTH,
        {"guest_readies": {0: (WAKE_ALL_TOKEN, 0x1000, 0x1000)}, "log_ends_first": False},
        {"guest_readies": {0: (WAKE_ALL_TOKEN, 0x1000, 0x1000)}},
    ),
    "D39 flags": Case(BOTH, BOTH, {"shared_flags": {0: 0}}, {"shared_flags": {0: 1}}),
    "D39 tail": Case(BOTH, BOTH, {"shared_tail_zero": {0: True}}, {"shared_tail_zero": {0: False}}),
    "D39 flags of a moved area": Case(
        BOTH, BOTH, {"other_areas": {0x801040: (0, True)}}, {"other_areas": {0x801040: (1, True)}}
    ),
    "D39 tail of a moved area": Case(
        BOTH, BOTH, {"other_areas": {0x801040: (0, True)}}, {"other_areas": {0x801040: (0, False)}}
    ),
    "D43 not written": Case(
        f"{token(1, 0)} {ready(1, 0)}",
        f"{token(1, 0)} {ready(1, 0)}",
        {"pages_after": {GFN: PageAfter(True)}},
        {"pages_after": {GFN: PageAfter(False)}},
    ),
    "D43 never ready": Case(
        f"{token(1, 0)} DONE:0",
        f"{token(1, 0)} DONE:0",
        {"pages_after": {GFN: PageAfter(True)}},
        {"pages_after": {GFN: PageAfter(False)}},
    ),
    "D45 another token": Case(
        l2_token(1, 0),
        l2_token(1, 0).replace("L2_EXIT=1", "L2_EXIT=2"),
        {"faults": L2_FAULT},
        set_up=f"{SET_UP} {VMEXITS}",
        kernel=find_kernel("nowait-7.3"),
    ),
    "D45 code": Case(
        l2_token(1, 0),
        l2_token(1, 0).replace("L2_EXIT=1", "L2_EXIT:4=1"),
        {"faults": L2_FAULT},
        set_up=f"{SET_UP} {VMEXITS}",
        kernel=find_kernel("nowait-7.3"),
    ),
    "D45 for nothing": Case(
        "EXIT L2_ENTRY ENTRY EXIT L2_EXIT ENTRY",
        "EXIT L2_ENTRY ENTRY EXIT L2_EXIT=1 ENTRY",
        set_up=f"{SET_UP} {VMEXITS}",
    ),
    "D46 cleared": Case(  # a kernel that is known to lose it leaves the flag for good
        L2_LOST.format(i=1, p=0),
        L2_LOST.format(i=1, p=0),
        {"faults": L2_FAULT, "area_stays": True, "shared_flags": {0: 1}, "guest_flags": {0: ("item 0",)}},
        {"faults": L2_FAULT, "area_stays": True, "shared_flags": {0: 0}},
        set_up=f"{SET_UP} {VMEXITS}",
    ),
}


@pytest.mark.parametrize("name", [*CASES, *MORE])
def test_a_rule_is_kept_by_one_trace_and_broken_by_the_other_and_only_it(name):
    case = CASES.get(name) or MORE[name]
    rule = name[:3]
    good_set_up = bad_set_up = case.set_up
    if name == "D44":
        good_set_up, bad_set_up = SET_UP, case.set_up + " " + FAILED_ENABLE
    if name == "D22 disabled":
        good_set_up = SET_UP
    violated, owed = run(f"{good_set_up} {case.good}", case.good_context, case.kernel)
    assert violated == set()
    if case.owed:
        assert rule not in owed
    context = case.good_context if case.bad_context is None else case.bad_context
    violated, owed = run(f"{bad_set_up} {case.bad}", context, case.kernel)
    assert (owed if case.owed else violated) == {rule}


def test_every_rule_has_a_case():
    assert set(CASES) == set(RULES)
    assert list(RULES) == [f"D{n:02}" for n in range(1, 76)]
