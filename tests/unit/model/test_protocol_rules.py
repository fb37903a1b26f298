# SPDX-License-Identifier: GPL-2.0-or-later
"""Each rule D01..D44: a trace that keeps it, and one that breaks it and nothing else.

Traces are written in a small notation, one word for each event of the thread "v" (vCPU 0) unless it says otherwise:
``TRY:0`` is TRY of page 0, ``NP:1@0`` is NP with id 1 of page 0; see ``trace_of``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from harness.model.events import WAKE_ALL_TOKEN, Event, Kind
from harness.model.kernels import KernelModel, find_kernel
from harness.model.outcomes import Count
from harness.model.protocol import ALL_KINDS, Checker, Context, InitialVcpu, Obligation
from harness.model.protocol_types import FaultState, PageAfter
from harness.model.rules import RULES

POOL, GFN, HVA = 0x1000000, 0x1000, 0x7F0000000000
EN, INT, ACK, APICBASE, SPIV = 0x4B564D02, 0x4B564D06, 0x4B564D07, 0x1B, 0x80F
TOKEN_FAULT = {(0, GFN + page): (FaultState(cpl=3),) for page in range(70)}
KERNEL_FAULT = {(0, GFN + page): (FaultState(cpl=0),) for page in range(70)}
STANDARD = find_kernel("nowait-6.1")


def page(text: str) -> int:
    return POOL + 4096 * int(text) + 16


def trace_of(text: str) -> list[Event]:
    """The events of a line of words: KIND[/vcpu][:argument][@page][=value][#t_ms]."""
    out: list[Event] = []
    for word in text.split():
        head, _, when = word.partition("#")
        head, _, number = head.partition("=")
        head, _, place = head.partition("@")
        head, _, argument = head.partition(":")
        name, _, vcpu = head.partition("/")
        line = len(out) + 1
        event = Event(Kind.ENTRY, int(vcpu or 0), t_ns=int(float(when) * 1e6) if when else line * 1000, line=line)
        out.append(_fill(event, name, argument, place, number))
    return out


def _fill(event: Event, name: str, argument: str, place: str, number: str) -> Event:
    value = int(number, 0) if number else 0
    match name:
        case "TRY" | "PF":  # = gfn, = rip
            return replace(event, kind=Kind[name], gpa=page(argument), data=value)
        case "REP":
            return replace(event, kind=Kind[name], gpa=page(argument), value=value)
        case "NP" | "RDY":
            return replace(event, kind=Kind[name], token=int(argument, 0) << 12 | event.vcpu, gpa=page(place))
        case "ALL":
            return replace(event, kind=Kind.RDY, token=WAKE_ALL_TOKEN, gpa=value)
        case "DONE":
            return replace(event, kind=Kind.DONE, vcpu=-1, worker=True, gpa=page(argument), hva=HVA + page(argument))
        case "ACC":
            return replace(event, kind=Kind.ACC, value=value or 0xF3)
        case "SLEEP":
            return replace(event, kind=Kind.OUT, value=ord("S"))
        case "WRMSR" | "WRMSR_GP":
            msr = {"EN": EN, "INT": INT, "ACK": ACK, "APICBASE": APICBASE, "SPIV": SPIV}[argument]
            return replace(event, kind=Kind.WRMSR, value=msr, data=value, flag=name == "WRMSR_GP")
        case "READ":  # block_bio_queue of the page's eight sectors
            return replace(event, kind=Kind.BIO, value=8 * int(argument), data=8, flag=True, dev=253 << 20)
        case "UNMAP":
            hva = HVA + POOL + 4096 * int(argument)
            return replace(event, kind=Kind.UNMAP, vcpu=-1, hva=hva, data=hva + 4096)
        case _:
            return replace(event, kind=Kind[name], value=value)


TOKEN = "EXIT PF:{p} TRY:{p} NP:{i}@{p} INJ ENTRY"
HALT = "EXIT PF:{p} TRY:{p} NP:{i}@{p} SLEEP IN"
ACKED = "EXIT WRMSR:ACK=1 ENTRY"


def token(i: int, p: int) -> str:
    """A token NP of page p with id i, entered."""
    return TOKEN.format(i=i, p=p)


def halt(i: int, p: int) -> str:
    """A halt NP, slept and woken, not entered."""
    return HALT.format(i=i, p=p)


def ready(i: int, p: int) -> str:
    """Its completion with interrupt, from an exit to the ENTRY."""
    return f"EXIT DONE:{p} RDY:{i}@{p} ACC ENTRY {ACKED}"


SET_UP = "ENTRY EXIT WRMSR:INT=0xf3 ENTRY EXIT WRMSR:EN=0x801009 ALL ACC ENTRY " + ACKED
BOTH = f"{token(1, 0)} {ready(1, 0)} {halt(2, 1)} DONE:1 RDY:2@1 ENTRY"


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


OFF = {"lapic_off": {0: ((0, 100),)}}
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
    "D28": Case(
        BOTH,
        BOTH,
        {"guest_log": ("booting",), "host_log": ("WARNING: CPU: 0 at mm/other.c",)},
        {"guest_log": ("Kernel panic: Host injected async #PF in kernel mode",)},
    ),
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
        {"kvm_stats": {"pf_taken": 2, "pf_fixed": 2, "pf_spurious": 0, "pf_emulate": 0}, "retries": 0},
        {"kvm_stats": {"pf_taken": 2, "pf_fixed": 3, "pf_spurious": 0, "pf_emulate": 0}, "retries": 0},
    ),
    "D36": Case(
        f"{halt(1, 0)} INT {halt(2, 1)} DONE:0#5 DONE:1#45 RDY:1@0 RDY:2@1 ENTRY".replace("INT", "VIRQ ENTRY"),
        f"{halt(1, 0)} INT {halt(2, 1)} DONE:0#5 DONE:1#45 RDY:2@1 RDY:1@0 ENTRY".replace("INT", "VIRQ ENTRY"),
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
    "D44": Case(
        f"{token(1, 0)} {ready(1, 0)}",
        f"{halt(1, 0)} DONE:0 RDY:1@0 ENTRY",
        set_up="ENTRY EXIT WRMSR:INT=0xf3 ENTRY",
    ),
}
ALWAYS = "EXIT WRMSR:EN=0x80100b ALL ACC ENTRY"
FAILED_ENABLE = "EXIT WRMSR_GP:EN=0xfffffffff009 ENTRY "
MORE: dict[str, Case] = {
    "D08 not live": Case(BOTH, "EXIT PF:0 TRY:0 REP:0 SLEEP IN ENTRY"),
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
    "D25 5.10": Case(
        "EXIT PF:0 TRY:0 NP:1@0 SLEEP IN WAKEUP ENTRY",
        "EXIT PF:0 TRY:0 NP:1@0 SLEEP IN ENTRY",
        kernel=find_kernel("nowait-5.10"),
    ),
    "D25 halt_exits": Case(
        BOTH, BOTH, {"kvm_stats": {"halt_exits": 3}, "guest_hlts": 3}, {"kvm_stats": {"halt_exits": 4}, "guest_hlts": 3}
    ),
    "D25 polls": Case(
        BOTH,
        BOTH,
        {"kvm_stats": {"halt_attempted_poll": 3}, "guest_hlts": 3},
        {"kvm_stats": {"halt_attempted_poll": 4}, "guest_hlts": 3},
    ),
    "D27 RDY": Case(
        f"{token(1, 0)} EXIT DONE:0 WRMSR:EN=0 ENTRY", f"{token(1, 0)} EXIT DONE:0 WRMSR:EN=0 ENTRY EXIT RDY:1@0 ENTRY"
    ),
    "D28 host": Case(BOTH, BOTH, {"host_log": ()}, {"host_log": ("WARNING: CPU: 1 at kvm_del_async_pf_gfn+0x12",)}),
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
    "D35 upper": Case(
        BOTH,
        BOTH,
        {"kvm_stats": {"pf_taken": 4, "pf_fixed": 2, "pf_spurious": 0, "pf_emulate": 0}, "retries": 0},
        {"kvm_stats": {"pf_taken": 5, "pf_fixed": 2, "pf_spurious": 0, "pf_emulate": 0}, "retries": 0},
    ),
    "D37 told": Case(BOTH, f"{token(1, 0)} EXIT DONE:0 RDY:1@0#0 ACC ENTRY", {"lapic_off": {0: ()}}, OFF),
    "D38 NP": Case(BOTH, "EXIT PF:0 TRY:3 NP:1@0 INJ ENTRY"),
    "D39 ready": Case(
        f"{token(1, 0)} {ready(1, 0)}",
        f"{token(1, 0)} {ready(1, 0)}",
        {"guest_readies": {0: (WAKE_ALL_TOKEN, 0x1000)}},
        {"guest_readies": {0: (WAKE_ALL_TOKEN, 0x2000)}},
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
    "D39 tail": Case(BOTH, BOTH, {"shared_tail_zero": {0: True}}, {"shared_tail_zero": {0: False}}),
    "D43 not written": Case(
        f"{token(1, 0)} {ready(1, 0)}",
        f"{token(1, 0)} {ready(1, 0)}",
        {"pages_after": {GFN: PageAfter(True)}},
        {"pages_after": {GFN: PageAfter(False)}},
    ),
    "D44 told": Case(
        f"{token(1, 0)} {ready(1, 0)}",
        f"{token(1, 0)} EXIT DONE:0 RDY:1@0#0 ACC ENTRY",
        {"shared_unreadable": {0: ((0, 1),)}},
        {"shared_unreadable": {0: ((0, 1),)}},
    ),
}


def run(text: str, context: Mapping[str, object], kernel: KernelModel) -> tuple[set[str], set[str]]:
    """Rules violated, and rules with obligations that are not suspended."""
    checker = Checker(kernel, 2, int_vec=0, first_id=1, context=Context(**context))  # type: ignore[arg-type]
    found = list(checker.feed_all(trace_of(text)))
    left = checker.finish()
    violated = {v.rule for v in found} | {v.rule for v in left if not isinstance(v, Obligation)}
    return violated, {o.rule for o in left if isinstance(o, Obligation) and not o.suspended}


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
    assert list(RULES) == [f"D{n:02}" for n in range(1, 45)]


def test_done_must_come_from_a_kworker():
    trace = trace_of(f"{SET_UP} {BOTH}")
    for event in trace:
        if event.kind is Kind.DONE:
            event.worker = False
    checker = Checker(STANDARD, 1, int_vec=0, first_id=1)
    assert {v.rule for v in checker.feed_all(trace)} == {"D02"}


def test_no_interrupt_is_due_while_apf_is_disabled():
    """With EN=0 every missing page halts, and its RDY has no interrupt."""
    text = f"ENTRY EXIT WRMSR:INT=0xf3 ENTRY {halt(1, 0)} DONE:0 RDY:1@0 "
    assert run(text + "ENTRY", {}, STANDARD) == (set(), set())
    assert run(text + "ACC ENTRY", {}, STANDARD)[0] == {"D15"}


def test_obligations_are_suspended_while_the_shared_area_cannot_be_read():
    checker = Checker(STANDARD, 1, int_vec=0, first_id=1)
    assert list(checker.feed_all(trace_of(f"ENTRY {FAILED_ENABLE}{halt(1, 0)} VIRQ ENTRY"))) == []
    assert [(o.rule, o.suspended) for o in checker.finish() if isinstance(o, Obligation)] == [("D05", True)]


def test_reserved_bits_in_en_change_nothing():
    text = f"{SET_UP} EXIT WRMSR_GP:EN=0x30 ENTRY {token(1, 0)} {ready(1, 0)}"
    assert run(text, {"faults": TOKEN_FAULT}, STANDARD) == (set(), set())


def test_a_rewrite_of_en_clears_nothing():
    text = f"{SET_UP} {token(1, 0)} EXIT WRMSR:EN=0x80100b ENTRY {ready(1, 0)}"
    assert run(text, {}, STANDARD) == (set(), set())


def test_a_wake_all_after_a_rewrite_with_live_works_is_possible_but_not_owed():
    enable = f"{SET_UP} {token(1, 0)} EXIT WRMSR:EN=0x801009"
    assert run(f"{enable} ALL ACC ENTRY {ACKED} {ready(1, 0)}", {}, STANDARD) == (set(), set())
    done_before = f"{SET_UP} {token(1, 0)} DONE:0 EXIT WRMSR:EN=0x801009 ALL ACC ENTRY"
    assert run(done_before, {}, STANDARD)[0] == {"D20"}


def test_kernels_that_do_not_flush_may_trace_done_later():
    old = replace(STANDARD, always_flush_work=False)
    text = f"{SET_UP} {token(1, 0)} EXIT RDY:1@0 ACC ENTRY DONE:0"
    assert run(text, {}, old) == (set(), set())
    assert run(text + " DONE:0", {}, old)[0] == {"D12"}
    assert run(text.replace(" DONE:0", ""), {}, old) == (set(), {"D12"})


def test_a_token_with_paging_off_is_legal_on_5_10():
    context = {"faults": {(0, GFN): (FaultState(paging=False),)}}
    assert run(f"{SET_UP} {token(1, 0)}", context, find_kernel("nowait-5.10"))[0] == set()


def test_a_halt_where_a_token_was_due_is_caught():
    text = f"{SET_UP} {halt(1, 0)} DONE:0 RDY:1@0 ENTRY"
    assert run(text, {"faults": TOKEN_FAULT, "shared_unreadable": {0: ()}}, STANDARD)[0] == {"D13"}
    assert run(text, {"faults": TOKEN_FAULT, "shared_unreadable": {0: ((0, 10**9),)}}, STANDARD)[0] == {"D44"}
    assert run(text, {"faults": TOKEN_FAULT}, STANDARD)[0] == set()


def test_the_rip_of_a_fault_tells_its_cpl():
    rip = {"kernel_rip": 1 << 63}
    text = f"{SET_UP} {token(1, 0)}"
    assert run(text.replace("PF:0", "PF:0=0x401000"), rip, STANDARD)[0] == set()
    assert run(text.replace("PF:0", "PF:0=0xffffffff81000000"), rip, STANDARD)[0] == {"D22"}


def test_what_is_unknown_at_the_start_is_learned():
    """A Linux guest that has booted before the trace: EN and the vector are seen at the first token."""
    text = f"ENTRY {token(5, 0)} {ready(5, 0)} {token(6, 1)} EXIT DONE:1 RDY:6@1 "
    start = InitialVcpu(en=None, int_vec=None, last_id=None, live=None, wakeup=None)

    def found(end: str) -> list[str]:
        checker = Checker(STANDARD, 1, initial=[start])
        violations = list(checker.feed_all(trace_of(text + end)))
        assert {"D01", "D08"} <= {u.rule for u in checker.unchecked if u.partly}
        assert checker.counts[0].acc == 2 - len(violations)
        return [v.rule for v in violations]

    assert found("ACC ENTRY") == []
    assert found("ENTRY") == ["D15"]


def test_send_always_allows_tokens_at_cpl0():
    enable = "ENTRY EXIT WRMSR:INT=0xf3 ENTRY EXIT WRMSR:EN=0x80100b ALL ACC ENTRY"
    assert run(f"{enable} {token(1, 0)}", {"faults": KERNEL_FAULT}, STANDARD)[0] == set()


def test_a_reset_between_np_and_entry_needs_no_injection():
    text = f"{SET_UP} EXIT PF:0 TRY:0 NP:1@0 CLEAR ENTRY DONE:0"
    assert run(text, {"faults": TOKEN_FAULT}, STANDARD) == (set(), set())


def test_ids_are_not_restarted_by_a_reset():
    text = f"{SET_UP} {token(1, 0)} EXIT CLEAR ENTRY {halt(2, 1)} ENTRY"
    assert run(text, {}, STANDARD)[0] == set()
    assert run(text.replace("NP:2@1", "NP:1@1"), {}, STANDARD)[0] == {"D04"}


def test_two_vcpus_with_the_same_page_need_a_done_each():
    text = "ENTRY/0 ENTRY/1 EXIT/0 TRY/0:0 NP/0:1@0 SLEEP/0 IN/0 EXIT/1 TRY/1:0 NP/1:1@0 SLEEP/1 IN/1 "
    once = text + "DONE:0 RDY/0:1@0 RDY/1:1@0 ENTRY/0 "
    assert run(once + "DONE:0 ENTRY/1", {}, STANDARD) == (set(), set())
    assert run(once + "ENTRY/1", {}, STANDARD) == ({"D11"}, {"D12"})


def test_pages_told_to_be_unresolvable_are_no_loop():
    loop = " ".join(f"{token(i, 0)} {ready(i, 0)}".replace("PF:0 ", "") for i in range(1, 20))
    assert run(f"{SET_UP} {loop}", {"loops": frozenset({GFN})}, STANDARD)[0] == set()


def test_nested_guests_and_missing_events_are_not_judged_by_d13():
    text = f"{SET_UP} EXIT PF:0 TRY:0 NP:1@0 ENTRY"
    assert run(text, {"nested": True}, STANDARD)[0] == set()
    checker = Checker(STANDARD, 1, int_vec=0, first_id=1, recorded=ALL_KINDS - {Kind.OUT})
    assert list(checker.feed_all(trace_of(text))) == []
    assert "D13" in {u.rule for u in checker.unchecked}


def test_an_allocation_failure_explains_a_fail():
    text = f"{SET_UP} EXIT PF:0 TRY:0 ENTRY {token(2, 1)}"
    assert run(text, {"allocation_may_fail": True}, STANDARD)[0] == set()


def test_live_works_from_before_the_trace():
    start = InitialVcpu(en=0x801009, int_vec=0xF3, last_id=1, live=((0x1000, page("0")),))
    checker = Checker(STANDARD, 1, initial=[start])
    assert list(checker.feed_all(trace_of(f"ENTRY EXIT DONE:0 RDY:1@0 ENTRY {token(2, 0)}"))) == []


def test_an_injection_owed_at_the_end():
    assert run(f"{SET_UP} EXIT PF:0 TRY:0 NP:1@0 INJ", {}, STANDARD) == (set(), {"D05", "D13"})


def test_the_context_may_be_told_at_the_end():
    checker = Checker(STANDARD, 1, int_vec=0, first_id=1)
    assert list(checker.feed_all(trace_of(f"{SET_UP} {BOTH}"))) == []
    assert [v.rule for v in checker.finish(Context(pf_guest=5))] == ["D14"]
    assert checker.finish(Context(pf_guest=1)) == []


def test_rules_that_a_kernel_or_guest_makes_void():
    old = Checker(replace(STANDARD, always_flush_work=False), 1, context=Context(nested=True))
    reasons = {u.rule: u.reason for u in old.unchecked}
    assert "does not flush" in reasons["D11"]
    assert "nested" in reasons["D13"]


def test_the_x2apic_spiv_disables_the_lapic_too():
    text = f"{SET_UP} {token(1, 0)} DONE:0 EXIT WRMSR:SPIV=0x0ff RDY:1@0 ACC ENTRY"
    assert run(text, {}, STANDARD)[0] == {"D37"}
    assert run(text.replace("0x0ff", "0x1ff"), {}, STANDARD)[0] == set()
    lapic_off = f"{SET_UP} {token(1, 0)} DONE:0 EXIT WRMSR:SPIV=0x0ff ENTRY"
    assert run(lapic_off, {}, STANDARD) == (set(), set())  # the RDY is owed, but suspended


def test_two_tries_without_an_outcome_are_two_fails():
    text = f"{SET_UP} EXIT PF:0 TRY:0 PF:1 TRY:1 ENTRY {token(3, 2)}"
    checker = Checker(STANDARD, 1, int_vec=0, first_id=1)
    assert [v.rule for v in checker.feed_all(trace_of(text))] == ["D01", "D01"]
    assert checker.total.fail == 2


def test_a_try_pending_when_works_are_consumed_was_a_fail():
    text = f"{SET_UP} {token(1, 0)} EXIT PF:1 TRY:1 DONE:0 RDY:1@0 ACC ENTRY"
    assert run(text, {}, STANDARD)[0] == {"D01"}


def test_two_nps_or_a_rep_without_an_entry_between():
    first = f"{SET_UP} EXIT PF:0 TRY:0 NP:1@0"
    assert run(f"{first} TRY:1 NP:2@1 INJ ENTRY", {}, STANDARD)[0] == {"D13"}
    assert run(f"{first} TRY:0 REP:0 SLEEP IN ENTRY", {}, STANDARD)[0] == {"D13"}


def test_reinjections_and_page_faults_of_the_guest_are_no_tokens():
    events = trace_of(f"{SET_UP} {token(1, 0)} EXIT INJ INJ=0x2 ENTRY")
    events[-3].flag = True
    checker = Checker(STANDARD, 1, int_vec=0, first_id=1)
    assert list(checker.feed_all(events)) == []
    assert (checker.total.inj, checker.total.inj_reinjected) == (1, 1)


def test_events_of_unknown_threads_are_no_ones():
    text = f"{SET_UP} EXIT ENTRY"
    for name in ("TRY:0", "NP:1@0", "REP:0", "INJ", "RDY:1@0"):
        (event,) = trace_of(name)
        event.vcpu = -1
        checker = Checker(STANDARD, 1, int_vec=0, first_id=1)
        assert [v.rule for v in checker.feed_all([*trace_of(text), event])] == ["D02"]


def test_an_interrupt_that_was_never_entered_with_is_owed():
    assert run(f"{SET_UP} {token(1, 0)} EXIT DONE:0 RDY:1@0 ACC", {}, STANDARD) == (set(), {"D16"})


def test_invalidations_of_pages_never_seen():
    assert run(f"{SET_UP} UNMAP:7 {BOTH}", {}, STANDARD) == (set(), set())


def test_pages_locked_by_others_are_no_business_of_d30():
    context = {"read_devices": frozenset({253 << 20}), "slots": {GFN: 0, GFN + 1: 8}, "single_toucher": True}
    read_by_neighbour = "EXIT PF:0 READ:0 READ:1 TRY:0 NP:1@0 INJ ENTRY EXIT PF:1 TRY:1 NP:2@1 INJ ENTRY"
    assert run(f"{SET_UP} {read_by_neighbour}", context, STANDARD)[0] == set()
    assert run(f"{SET_UP} {read_by_neighbour}".replace("READ:1 ", ""), context, STANDARD)[0] == {"D30"}
    context["userfaultfd"] = True
    assert run(f"{SET_UP} {read_by_neighbour}".replace("READ:1 ", ""), context, STANDARD)[0] == set()
