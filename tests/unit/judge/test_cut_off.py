# SPDX-License-Identifier: GPL-2.0-or-later
"""What a deadline cut off in the middle is owed to nobody; what stood still before is."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from harness.contract.words import EndStatus, Op
from harness.evidence.decode import decode
from harness.judge.cut_off import cut_faults, cut_off, deadline_cuts, guest_runs_on
from harness.judge.episodes import split
from harness.model.events import Event, Kind
from tests.unit.judge.golden import load

RAM = 0x7F0000000000
PAGE, TOKEN = 0x5000, 0x1000
WORKER = 40
PLACES = {PAGE >> 12: 16}


def trace(*events: Event) -> list[Event]:
    """Numbered, behind a fault that tells where the RAM is."""
    lines = count(10)
    before = [
        Event(Kind.PF, 0, gpa=PAGE, tid=20),
        Event(Kind.MM_FAULT, 0, hva=RAM + PAGE, tid=20),
        Event(Kind.NP, 0, token=TOKEN, gpa=PAGE, tid=20, line=9),
    ]
    for event, line in zip(events, lines, strict=False):
        event.line = line
    return [*before, *events]


def out(state: str, following: str = "kworker/0:1", cpu: int = 0, vcpu: int = 0) -> Event:
    return Event(Kind.OUT, vcpu, value=ord(state), cpu=cpu, tid=20 + vcpu, text=f"==> next_comm={following} next_pid=1")


def asks(cpu: int = 0) -> list[Event]:
    return [
        Event(Kind.MM_FAULT, hva=RAM + PAGE, worker=True, tid=WORKER, cpu=cpu),
        Event(Kind.MM_FAULT_RET, worker=True, tid=WORKER, cpu=cpu),
    ]


def done() -> Event:
    return Event(Kind.DONE, gpa=PAGE + 8, hva=RAM + PAGE, worker=True, tid=WORKER)


def other(kind: Kind, **fields: int) -> Event:
    """Of another vCPU's thread on the same processor."""
    return Event(kind, 1, tid=21, **fields)


def sleeps(following: str = "CPU 1/KVM") -> Event:
    return Event(Kind.OUT, worker=True, tid=WORKER, value=ord("D"), text=f"==> next_comm={following} next_pid=1")


def read() -> Event:
    return Event(Kind.BIO_END, flag=True, tid=50, value=16, data=8, cpu=1)


UNDER_WAY = {
    "just queued": [],
    "its kworker is next": [out("S")],
    "its kworker waits for a busy processor": [out("R", "CPU 1/KVM"), other(Kind.IN), other(Kind.EXIT)],
    "its worker is at it": [out("S"), *asks()],
    "its worker's processor is busy since the read ended": [out("S"), *asks(), sleeps(), read(), other(Kind.EXIT)],
    "just completed": [out("S"), *asks(), done()],
    "its vCPU was preempted before": [out("R"), *asks(), done()],
    "its vCPU was preempted behind it, too": [out("R"), *asks(), done(), Event(Kind.IN, 0, tid=20), out("R")],
    "its vCPU looks at the page": [out("S"), *asks(), done(), Event(Kind.IN, 0, tid=20)],
    "its vCPU waits for a busy processor": [out("S"), *asks(), done(), other(Kind.IN), other(Kind.ENTRY)],
}
STANDS_STILL = {
    "nobody began it": [out("S", "swapper/0")],
    "one that was queued later is told": [
        out("R"), other(Kind.IN), other(Kind.NP, token=0x1001, gpa=0x9000), other(Kind.RDY, token=0x1001),
    ],
    "its worker left the processor to others": [out("S"), *asks(), other(Kind.IN)],
    "its worker's processor had nothing to do since the read ended": [
        out("S"), *asks(), sleeps(), read(), out("S", "swapper/0", vcpu=1),
    ],
    "its worker ran since the read ended": [
        out("S"), *asks(), sleeps(), read(), *asks()[1:], sleeps(), other(Kind.IN),
    ],
    "its vCPU entered the guest instead": [out("R"), *asks(), done(), Event(Kind.IN, 0, tid=20), Event(Kind.ENTRY, 0)],
    "its vCPU slept again": [out("R"), *asks(), done(), Event(Kind.IN, 0, tid=20), out("S")],
    "nobody woke its vCPU": [out("S"), *asks(), done(), other(Kind.IN), out("S", "swapper/0", vcpu=1)],
}  # fmt: skip


@pytest.mark.parametrize("case", UNDER_WAY)
def test_what_was_under_way_is_owed_to_nobody(case: str) -> None:
    assert cut_off(trace(*UNDER_WAY[case]), PLACES) == {9}


@pytest.mark.parametrize("case", STANDS_STILL)
def test_what_stood_still_is_owed(case: str) -> None:
    assert 9 not in cut_off(trace(*STANDS_STILL[case]), PLACES)


def test_what_was_told_is_not_under_way() -> None:
    assert not cut_off(trace(out("S"), *asks(), done(), Event(Kind.RDY, 0, token=TOKEN, gpa=PAGE)), PLACES)


def test_what_a_reset_has_dropped_is_not_under_way() -> None:
    under_way = [*asks(), done(), out("R")]
    assert cut_off(trace(*under_way), PLACES) == {9}
    assert cut_off(trace(*under_way, Event(Kind.CLEAR, 1, tid=21)), PLACES) == {9}, "of another vCPU"
    assert not cut_off(trace(*under_way, Event(Kind.CLEAR, 0, tid=20)), PLACES)
    again = Event(Kind.NP, 0, token=TOKEN + 0x1000, gpa=PAGE, tid=20)
    begun = trace(*under_way, Event(Kind.CLEAR, 0, tid=20), again)
    assert cut_off(begun, PLACES) == {again.line}


READ = Event(Kind.BIO, 0, flag=True, tid=20, value=16, data=8, line=12)
FAULT = [Event(Kind.MM_FAULT, 0, hva=RAM + PAGE, tid=20, line=11), READ]
TRIED = Event(Kind.TRY, 0, gpa=PAGE, tid=20, line=13)
TOLD = Event(Kind.NP, 0, token=TOKEN, gpa=PAGE, tid=20, line=14)


@pytest.mark.parametrize(
    ("last", "cut"),
    [
        ([], True),
        (FAULT, True),
        ([*FAULT, out("R")], True),
        ([*FAULT, TRIED], True),
        ([*FAULT, out("D")], True),  # for its own read
        ([*FAULT, read(), out("D")], False),  # that had ended
        ([*FAULT[:1], out("D")], False),
        ([*FAULT, TRIED, TOLD], False),
        ([*FAULT, Event(Kind.ENTRY, 0, tid=20)], False),
    ],
)
def test_a_fault_is_cut_while_its_thread_is_at_it(last: list[Event], *, cut: bool) -> None:
    events = [Event(Kind.PF, 0, gpa=PAGE, tid=20, line=10), *last]
    assert cut_faults(split(events, RAM), events) == (frozenset({10}) if cut else frozenset())


def test_a_guest_that_is_stopped_may_be_in_a_page_fault_whatever_it_reads() -> None:
    """A halt that is a busy loop fills the trace, which may end behind any of its events (S306)."""
    done = decode(load("S29"))
    stopped = replace(done, end=replace(done.end, status=EndStatus.GUEST_TIMEOUT, reason="its trace was full"))
    assert guest_runs_on(stopped) and not deadline_cuts(stopped)
    assert not guest_runs_on(done)
    reset = replace(stopped.plan.items[0], op=Op.RESET)
    began_anew = replace(stopped.plan, items=(*stopped.plan.items, reset))
    unreadable = replace(began_anew, swap=replace(began_anew.swap, error=(PAGE,)))
    assert guest_runs_on(replace(stopped, plan=began_anew)), "where the program may reset the machine, too"
    assert deadline_cuts(replace(stopped, plan=unreadable))
