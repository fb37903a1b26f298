# SPDX-License-Identifier: GPL-2.0-or-later
"""Two files of one capture that do not say the same."""

from __future__ import annotations

import dataclasses

import pytest

from harness.errors import UsageError
from harness.evidence import agreement
from harness.evidence.agent_steps import read_progress
from harness.evidence.decode import decode
from harness.model.events import Event, Kind
from tests.unit.judge.golden import load
from tests.unit.judge.packed import packed_capture

FILES = load("S29")
E = decode(FILES)
STEPS = read_progress(FILES["progress.jsonl"])


def test_items_that_the_plan_has_not() -> None:
    changed = dataclasses.replace(E.plan.items[0], pause_us=E.plan.items[0].pause_us + 1)
    other = dataclasses.replace(E.plan, items=(changed, *E.plan.items[1:]))
    assert not list(agreement.program_problems(E.plan, FILES["guest/items.bin"]))
    assert "item 0" in next(agreement.program_problems(other, FILES["guest/items.bin"]))
    fewer = dataclasses.replace(E.plan, items=E.plan.items[:-1])
    assert "number of items" in next(agreement.program_problems(fewer, FILES["guest/items.bin"]))


def test_a_clock_that_was_shifted() -> None:
    assert not list(agreement.clock_problems(STEPS, E.events, probe=True))
    for shift in (-10.0, 10.0):
        moved = [dataclasses.replace(s, mono=s.mono + shift) for s in STEPS]
        assert list(agreement.clock_problems(moved, E.events, probe=True))


def test_a_busy_host_records_until_its_evidence_is_saved() -> None:
    """The recording ends within the step that collects, however long that takes."""
    last = max(e.t_ns for e in E.events) / 1e9
    late = [dataclasses.replace(s, mono=last - 9.0 if s.step == "collect" else s.mono) for s in STEPS]
    assert not list(agreement.clock_problems(late, E.events, probe=True))


def test_steps_out_of_order_missing_or_of_another_end() -> None:
    assert not list(agreement.progress_problems(STEPS, E.end, E.guest, E.plan))
    for steps in (STEPS[1:], STEPS[:-1], (*STEPS, STEPS[-1]), STEPS[::-1],
                  [dataclasses.replace(s, status="error") for s in STEPS],
                  [dataclasses.replace(s, t=s.t * 2) for s in STEPS],
                  [dataclasses.replace(s, tsc_khz=1) for s in STEPS]):  # fmt: skip
        assert list(agreement.progress_problems(steps, E.end, E.guest, E.plan))


def test_a_step_that_stands_there_twice_and_an_undo_that_does_not() -> None:
    for n, step in enumerate(STEPS):
        twice = (*STEPS[: n + 1], *STEPS[n:])
        assert list(agreement.progress_problems(twice, E.end, E.guest, E.plan)), step
    without = [s for s in STEPS if s.step != "undo"]
    assert list(agreement.progress_problems(without, E.end, E.guest, E.plan))


def test_an_action_that_ended_more_often_than_it_began() -> None:
    acts = decode(packed_capture("explored-let-go-while-qemu-waits"))
    assert not list(agreement.progress_problems(acts.steps, acts.end, acts.guest, acts.plan))
    at = next(n for n, s in enumerate(acts.steps) if s.step == "host-action-done")
    twice = (*acts.steps[: at + 1], *acts.steps[at:])
    (problem,) = agreement.progress_problems(twice, acts.end, acts.guest, acts.plan)
    assert "ended more often than it began" in problem


@pytest.mark.parametrize(
    "line", [b"[]", b"{}", b'{"t": 1e999, "mono": 1, "step": "go"}', b"\xff", b'{"t": 1, "mono": 2']
)
def test_a_line_that_the_agent_does_not_write(line: bytes) -> None:
    with pytest.raises(UsageError, match="line 1"):
        read_progress(line)


def test_a_vcpu_thread_of_another_run() -> None:
    assert not list(agreement.thread_problems(E.events, probe=True))
    strangers = [dataclasses.replace(e, vcpu=-1) for e in E.events]
    assert "another run" in next(agreement.thread_problems(strangers, probe=True))


def test_the_boot_cpu_of_a_linux_guest_that_sleeps_throughout() -> None:
    """Its workload is a task of another vCPU, and without a tick nothing ends its HLT."""
    other = [dataclasses.replace(e, vcpu=1) for e in E.events if e.vcpu == 0]
    assert list(agreement.thread_problems(other, probe=True)) == ["vCPU 0 was never entered in the trace"]
    assert not list(agreement.thread_problems(other, probe=False))
    idle = [e for e in other if e.kind is not Kind.ENTRY]
    assert list(agreement.thread_problems(idle, probe=False)) == ["no vCPU was entered in the trace"]


def test_a_register_that_was_written_or_read_otherwise() -> None:
    assert E.guest is not None and not list(agreement.register_problems(E.plan, E.guest, E.events))
    for kind in (Kind.WRMSR, Kind.RDMSR):
        changed = [dataclasses.replace(e, data=e.data ^ 1) if e.kind is kind else e for e in E.events]
        assert list(agreement.register_problems(E.plan, E.guest, changed)), kind


def test_totals_that_contradict_the_pages() -> None:
    seen = E.precondition
    assert seen is not None and not list(agreement.precondition_problems(seen, E.plan))
    for name in ("pages", "present", "swapped"):
        wrong = dataclasses.replace(seen, totals={**seen.totals, name: seen.totals[name] + 1})
        assert name in next(agreement.precondition_problems(wrong, E.plan))
    assert len(list(agreement.precondition_problems(dataclasses.replace(seen, totals={}), E.plan))) == 3


@pytest.mark.parametrize("offset", [-1, 0, 1 << 70])
def test_a_slot_that_no_page_can_have(offset: int) -> None:
    seen = E.precondition
    assert seen is not None
    gpa, page = next((gpa, page) for gpa, page in seen.pages.items() if page.swapped)
    wrong = dataclasses.replace(seen, pages={**seen.pages, gpa: dataclasses.replace(page, swap_offset=offset)})
    assert "where no page lies" in next(agreement.precondition_problems(wrong, E.plan))


@pytest.mark.parametrize(
    "line",
    [
        b'{"t": 1, "mono": 1e300, "step": "go"}',
        b'{"t": -2e9, "mono": 1, "step": "go"}',
        b'{"t": 1, "mono": 1, "step": "host-action"}',
        b'{"t": 1, "mono": 1, "step": "host-action-done", "do": "stop", "host": "1"}',
    ],
)
def test_a_step_at_no_time_or_an_action_without_a_word(line: bytes) -> None:
    with pytest.raises(UsageError, match="line 1"):
        read_progress(line)


def _switches(*kinds: str, tid: int = 20) -> list[Event]:
    """OUT in state S, IN, WAKING and ENTRY of one thread."""
    made = []
    for line, name in enumerate(kinds, 1):
        kind = Kind[name]
        woken = kind is Kind.WAKING
        made.append(Event(kind, -1 if woken else 0, value=ord("S") * (kind is Kind.OUT), data=tid * woken, tid=tid,
                          line=line))  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("kinds", "problems"),
    [
        (("ENTRY", "OUT", "WAKING", "IN"), 0),
        (("ENTRY", "WAKING", "OUT", "IN"), 0),  # before it had left its CPU
        (("ENTRY", "OUT", "IN"), 1),
        (("WAKING", "ENTRY", "OUT", "IN"), 1),  # that was of the sleep before
        (("ENTRY", "OUT", "WAKING", "WAKING", "IN"), 1),
        (("ENTRY", "WAKING", "OUT", "WAKING", "IN"), 0),  # it went on, and fell asleep again
        (("ENTRY", "OUT", "WAKING", "IN", "OUT", "WAKING", "IN"), 0),
        (("ENTRY", "IN", "OUT"), 0),
    ],
)
def test_who_slept_and_runs_again_was_woken_once(kinds: tuple[str, ...], problems: int) -> None:
    assert len(list(agreement.wake_problems(_switches(*kinds)))) == problems


def test_who_sleeps_in_kvm_run_with_a_signal_pending_is_woken_by_nobody() -> None:
    """A kernel that lets no signal end a halt: schedule() comes back at once (signal_pending_state)."""
    events = _switches("ENTRY", "OUT", "IN", "OUT", "IN")
    assert len(list(agreement.wake_problems(events))) == 2
    assert not list(agreement.wake_problems(events, (), 0))
    late = [dataclasses.replace(event, t_ns=event.line) for event in events]
    assert len(list(agreement.wake_problems(late, (), 3))) == 1, "the first was before"


def test_who_is_told_in_an_interruptible_fault_makes_it_again_and_is_woken_by_nobody() -> None:
    """S443: a thread that makes its fault again with a signal pending is switched out as one that sleeps."""
    events = _switches("MM_FAULT", "OUT", "IN", "MM_FAULT_RET", "OUT", "IN")
    assert len(list(agreement.wake_problems(events))) == 2, "FAULT_FLAG_INTERRUPTIBLE is not set"
    events[0] = dataclasses.replace(events[0], value=0x234)
    assert len(list(agreement.wake_problems(events))) == 1, "behind the call it was not pending"


def test_a_vcpu_that_was_plugged_in_is_followed_from_some_time_on() -> None:
    """S186 beside loops: its first sleep was seen only because another vCPU got the CPU."""
    events = _switches("OUT", "IN", "OUT", "WAKING", "IN", "OUT", "IN")
    assert len(list(agreement.wake_problems(events, {20}))) == 1
    assert len(list(agreement.wake_problems(events))) == 2
