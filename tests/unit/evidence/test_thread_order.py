# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace in which a thread did what no thread can do."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from harness.errors import CaptureDamaged
from harness.evidence.decode import decode
from harness.evidence.thread_order import order_problems
from harness.model.events import MSR_ASYNC_PF_ACK, MSR_ASYNC_PF_EN, Event, Kind
from tests.unit.judge.golden import NAMES, edit_trace, load
from tests.unit.judge.packed import packed_capture

TIMER = 0x6E0
IN, OUT, ENTRY, EXIT, FAULT, BACK = Kind.IN, Kind.OUT, Kind.ENTRY, Kind.EXIT, Kind.MM_FAULT, Kind.MM_FAULT_RET
ONLY_IN_ORDER = (
    ("kvm_entry", "kvm_exit"), ("kvm_page_fault", "mm_fault"), ("mm_fault_ret", "kvm_try_async_get_page"),
    ("kvm_inj_virq", "kvm_entry"), ("kvm_inj_exception", "kvm_entry"),
    ("mm_fault_ret", "kvm_async_pf_completed"), ("kvm_async_pf_completed", "work_end"),
)  # fmt: skip
"""Events of one thread, of which the second stands behind the first and is no other function's."""


def trace(*events: tuple[Kind, int, int] | tuple[Kind, int, int, int]) -> list[Event]:
    """Of kind, thread, processor, and value."""
    return [
        Event(kind, tid=tid, cpu=cpu, value=value[0] if value else 0, line=n, worker=tid > 2, text=f"{kind.name}:")
        for n, (kind, tid, cpu, *value) in enumerate(events, 1)
    ]


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ([(EXIT, 1, 0), (ENTRY, 1, 0), (EXIT, 1, 0)], ""),
        ([(ENTRY, 1, 0), (ENTRY, 1, 0), (EXIT, 1, 0)], ""),  # svm_vcpu_run again, by the fastpath
        ([(EXIT, 1, 0), (EXIT, 1, 0)], "leaves the guest, which it has not entered"),
        ([(ENTRY, 1, 0), (Kind.PF, 1, 0)], "is in the guest, and traces PF"),
        ([(ENTRY, 1, 0), (Kind.WRMSR, 1, 0, TIMER)], ""),
        ([(ENTRY, 1, 0), (Kind.WRMSR, 1, 0, MSR_ASYNC_PF_ACK)], "is in the guest, and traces WRMSR"),
        ([(ENTRY, 1, 0), (EXIT, 1, 0), (Kind.WRMSR, 1, 0, MSR_ASYNC_PF_EN)], ""),
        ([(FAULT, 1, 0), (Kind.BIO, 1, 0), (OUT, 1, 0), (IN, 1, 1), (BACK, 1, 1), (Kind.TRY, 1, 1)], ""),
        ([(FAULT, 1, 0), (Kind.TRY, 1, 0)], "is in handle_mm_fault, and traces TRY"),
        ([(FAULT, 1, 0), (FAULT, 2, 1), (FAULT, 1, 0)], "thread 1 is in handle_mm_fault, and traces MM_FAULT"),
        ([(IN, 1, 0), (IN, 2, 0)], "thread 2 gets CPU 0, where thread 1 runs"),
        ([(IN, 1, 0), (IN, 1, 1)], "gets CPU 1, and runs on CPU 0"),
        ([(IN, 1, 0), (OUT, 1, 0), (IN, 2, 0), (OUT, 2, 0), (IN, 1, 0)], ""),
        ([(IN, 1, 0), (OUT, 1, 1)], "leaves CPU 1, and runs on CPU 0"),
        ([(OUT, 1, 0), (ENTRY, 1, 0)], "does something on CPU 0, and runs on none"),
        ([(IN, 1, 0), (ENTRY, 1, 1)], "does something on CPU 1, and runs on CPU 0"),
        ([(IN, 1, 0), (Kind.WORK, 3, 0)], "thread 3 does something on CPU 0, where thread 1 runs"),
        ([(IN, 1, 0), (OUT, 1, 0), (Kind.WORK, 3, 0), (Kind.DONE, 3, 0), (Kind.WORK_END, 3, 0)], ""),
        ([(Kind.DONE, 3, 0), (Kind.WORK_END, 3, 0), (Kind.WORK, 3, 0), (Kind.WORK_END, 3, 0)], ""),
        ([(Kind.WORK, 3, 0), (Kind.WORK, 3, 0)], "is in async_pf_execute, and traces WORK"),
        ([(Kind.WORK_END, 3, 0), (Kind.DONE, 3, 0)], "is not in async_pf_execute, and traces DONE"),
    ],
)  # fmt: skip
def test_what_a_thread_cannot_do(events: list[tuple[Kind, int, int]], problem: str) -> None:
    found = list(order_problems(trace(*events)))
    assert len(found) == bool(problem)
    assert all(f"trace/events.txt:{len(events)}: thread " in text and text.endswith(problem) for text in found)


def test_who_was_plugged_in_later_was_not_followed_from_the_beginning() -> None:
    events = trace((OUT, 1, 0), (ENTRY, 1, 1))
    assert list(order_problems(events)) and not list(order_problems(events, {1}))


def test_an_older_trace_has_no_ends_of_works() -> None:
    events = trace((Kind.WORK, 3, 0), (Kind.DONE, 3, 0), (Kind.WORK, 3, 0))
    assert list(order_problems(events)) and not list(order_problems(events, works_end=False))


def swapped(lines: list[str], at: int) -> list[str]:
    """The line and the next change places, and their times with them."""
    time = re.compile(r" (\d+\.\d+): ")
    first, second = lines[at], lines[at + 1]
    one, other = time.search(first), time.search(second)
    assert one is not None and other is not None
    pair = [second.replace(other[0], one[0], 1), first.replace(one[0], other[0], 1)]
    return [*lines[:at], *pair, *lines[at + 2 :]]


@pytest.mark.parametrize("pair", ONLY_IN_ORDER, ids=", ".join)
def test_events_that_changed_places_are_damage(pair: tuple[str, str]) -> None:
    """Each passed before, in most places: the counts and the times are those of the kernel."""
    places = 0
    for files in (*map(load, NAMES), packed_capture("explored-let-go-while-qemu-waits")):
        lines = files["trace/events.txt"].decode().splitlines()
        of = [(re.search(r"-(\d+) ", line), re.search(r": (\w+): ", line)) for line in lines]
        for n, ((tid, event), (after, next_event)) in enumerate(pairwise(of)):
            if tid is None or event is None or after is None or next_event is None or tid[1] != after[1]:
                continue
            if (event[1], next_event[1]) == pair and places < 12:
                places += 1
                with pytest.raises(CaptureDamaged):
                    decode(edit_trace(files, lambda whole, n=n: swapped(whole, n), recount=False))
    assert places
