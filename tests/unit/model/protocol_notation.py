# SPDX-License-Identifier: GPL-2.0-or-later
"""A small notation for traces: one word for each event, of vCPU 0 unless it says otherwise.

``TRY:0`` is TRY of page 0, ``NP:1@0`` is NP with id 1 of page 0, ``DONE:0#5`` is DONE of page 0 at 5 ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from harness.model.events import INIT, SIPI, WAKE_ALL_TOKEN, Event, Kind
from harness.model.kernels import KernelModel, find_kernel
from harness.model.protocol.checker import Checker, Obligation, RuleContext, Violation
from harness.model.protocol.rules import FaultState

POOL, GFN, HVA = 0x1000000, 0x1000, 0x7F0000000000
EN, INT, ACK, APICBASE, SPIV = 0x4B564D02, 0x4B564D06, 0x4B564D07, 0x1B, 0x80F
TOKEN_FAULT = {(0, GFN + page): (FaultState(cpl=3),) for page in range(70)}
KERNEL_FAULT = {(0, GFN + page): (FaultState(cpl=0),) for page in range(70)}
STANDARD = find_kernel("nowait-6.1")


def feed_all(checker: Checker, events: Iterable[Event]) -> Iterator[Violation]:
    """What many events break, lazily."""
    for event in events:
        yield from checker.feed(event)


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
            return replace(event, kind=Kind.DONE, vcpu=-1, worker=True, tid=1000 + int(argument), gpa=page(argument),
                           hva=HVA + page(argument))  # fmt: skip
        case "WORK" | "WORK_END" | "KICK" | "MM_FAULT" | "MM_FAULT_RET" if argument:  # of the worker of a page
            return replace(event, kind=Kind[name], vcpu=-1, worker=True, tid=1000 + int(argument))
        case "ASKS":  # for a page, by the vCPU's thread
            return replace(event, kind=Kind.MM_FAULT, hva=HVA + page(argument))
        case "WAKEN":  # of a vCPU, by a worker
            return replace(
                event, kind=Kind.WAKING, vcpu=-1, worker=True, tid=1000 + int(place or 0), value=int(argument)
            )
        case "ACC" | "INIT" | "SIPI":
            code = {"ACC": 0, "INIT": INIT, "SIPI": SIPI}[name]
            return replace(event, kind=Kind.ACC, value=0 if code else value or 0xF3, token=code)
        case "SLEEP":
            return replace(event, kind=Kind.OUT, value=ord("S"))
        case "WRMSR" | "WRMSR_GP":
            msr = {"EN": EN, "INT": INT, "ACK": ACK, "APICBASE": APICBASE, "SPIV": SPIV}[argument]
            return replace(event, kind=Kind.WRMSR, value=msr, data=value, flag=name == "WRMSR_GP")
        case "READ":  # block_bio_queue of the page's eight sectors; @: by the worker of a page
            tid = 1000 + int(place) if place else 0
            return replace(event, kind=Kind.BIO, tid=tid, value=8 * int(argument), data=8, flag=True, dev=253 << 20)
        case "L2_EXIT":  # =id: a #PF with that token, :code its error code; without: any other exit
            token, code = value << 12 | event.vcpu if number else 0, int(argument, 0) if argument else 0
            return replace(event, kind=Kind.L2_EXIT, token=token, flag=bool(number), data=code)
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


L2_FAULT = {(0, GFN + page): (FaultState(cpl=3, guest_mode=True),) for page in range(70)}
L2_TOKEN = "EXIT L2_ENTRY ENTRY EXIT L2_OUT PF:{p} TRY:{p} NP:{i}@{p} L2_EXIT={i} ENTRY"
L2_LOST = "EXIT L2_ENTRY ENTRY EXIT L2_OUT PF:{p} TRY:{p} NP:{i}@{p} ENTRY"


def l2_token(i: int, p: int) -> str:
    """A token NP of an L2, told to its L1."""
    return L2_TOKEN.format(i=i, p=p)


SET_UP = "ENTRY EXIT WRMSR:INT=0xf3 ENTRY EXIT WRMSR:EN=0x801009 ALL ACC ENTRY " + ACKED
TOLD = SET_UP.replace("ALL ACC", "ALL ACC VIRQ=0xf3")
KNOWN = {"lapic_stays": True, "area_stays": True, "faults": TOKEN_FAULT, "ticks": False}
AGAIN = "VIRQ=0x40 ENTRY EXIT DONE:0 RDY:1@0 ACC VIRQ=0xf3 ENTRY"
OWES = f"{token(1, 0)} EXIT DONE:0 RDY:1@0 ACC VIRQ=0xf3 ENTRY"
"""The guest has not acknowledged."""
LATE_ACK = "ENTRY EXIT RDY:2@1 ACC WRMSR:ACK=1 VIRQ=0xf3 ENTRY"
PROMPT = {
    "D50": (  # one entry was under way
        f"{token(1, 0)} EXIT DONE:0 ENTRY EXIT RDY:1@0 ACC VIRQ=0xf3 ENTRY",
        f"{token(1, 0)} DONE:0 EXIT ENTRY EXIT RDY:1@0 ACC VIRQ=0xf3 ENTRY",
    ),
    "D51": (
        f"{token(1, 0)} EXIT DONE:0 RDY:1@0 ACC ENTRY EXIT VIRQ=0xf3 ENTRY {ACKED} {token(2, 1)}",
        f"{token(1, 0)} EXIT DONE:0 RDY:1@0 ACC ENTRY {token(2, 1)} EXIT VIRQ=0xf3 ENTRY {ACKED}",
    ),
    "D52": (
        f"{token(1, 0)} EXIT SLEEP DONE:0 WAKING=0 IN RDY:1@0 ACC VIRQ=0xf3 ENTRY",
        f"{token(1, 0)} EXIT SLEEP DONE:0 WAKING=0 IN SLEEP WAKING=0 IN RDY:1@0 ACC VIRQ=0xf3 ENTRY",
    ),
    "D53": (
        f"{token(1, 0)} EXIT SLEEP DONE:0 WAKING=0 MM_FAULT:0 IN RDY:1@0 ACC VIRQ=0xf3 ENTRY",
        f"{token(1, 0)} EXIT SLEEP DONE:0 MM_FAULT:0 WAKING=0 IN RDY:1@0 ACC VIRQ=0xf3 ENTRY",
    ),
    "D54": (
        f"{token(1, 0)} EXIT PF:0 TRY:0 REP:0 SLEEP ACC=0x40 WAKING=0 IN {AGAIN}",
        f"{token(1, 0)} ACC=0x40 EXIT PF:0 TRY:0 REP:0 SLEEP WAKING=0 IN {AGAIN}",
    ),
    "D56": (  # the page was reclaimed before its ready event
        f"{token(1, 0)} EXIT DONE:0 ASKS:0 RDY:1@0 ASKS:1 ACC VIRQ=0xf3 ENTRY",
        f"{token(1, 0)} EXIT DONE:0 RDY:1@0 ASKS:0 ACC VIRQ=0xf3 ENTRY",
    ),
    "D69": (
        f"{token(1, 0)} WORK:0 KICK:0 DONE:0 EXIT RDY:1@0 ACC VIRQ=0xf3 ENTRY",
        f"{token(1, 0)} KICK:0 WORK:0 DONE:0 EXIT RDY:1@0 ACC VIRQ=0xf3 ENTRY",
    ),
    "D55": (
        f"{OWES} {token(2, 1)} EXIT SLEEP WORK:1 DONE:1 WAKEN:0@1 WORK_END:1 IN {LATE_ACK}",
        f"{OWES} {token(2, 1)} EXIT SLEEP WORK:1 WAKEN:0@1 DONE:1 WORK_END:1 IN {LATE_ACK}",
    ),
}
"""After TOLD, with KNOWN: a trace that keeps the rule, and one that breaks only it."""
BOTH = f"{token(1, 0)} {ready(1, 0)} {halt(2, 1)} DONE:1 RDY:2@1 ENTRY"


VMEXITS = "EXIT WRMSR:EN=0x80100d ALL ACC ENTRY"
ALWAYS = "EXIT WRMSR:EN=0x80100b ALL ACC ENTRY"
FAILED_ENABLE = "EXIT WRMSR_GP:EN=0xfffffffff009 ENTRY "


def run(text: str, context: Mapping[str, object], kernel: KernelModel) -> tuple[set[str], set[str]]:
    """Rules violated, and rules with obligations that are not suspended."""
    checker = Checker(kernel, 2, int_vec=0, first_id=1, context=RuleContext(**context))  # type: ignore[arg-type]
    found = list(feed_all(checker, trace_of(text)))
    left = checker.finish()
    violated = {v.rule for v in found} | {v.rule for v in left if not isinstance(v, Obligation)}
    return violated, {o.rule for o in left if isinstance(o, Obligation) and not o.suspended}
