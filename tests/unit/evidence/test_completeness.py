# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host is said to have and the capture has not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from harness.contract.capture import CounterSnapshot, CpuTraceStats, TraceStats
from harness.evidence.completeness import HostHas, counter_problems, event_problems, trace_problems
from harness.evidence.ftrace import Line, Trace

HAS = HostHas("6.1.0-9", 2, ("kvm_entry", "kvm_eoi"), debugfs=True, cgroup_memory=True, vm_event_counters=True)
EVENTS = (
    "kvm/kvm_entry", "kvm/kvm_exit", "kvm/kvm_page_fault", "kvm/kvm_try_async_get_page",
    "kvm/kvm_async_pf_not_present", "kvm/kvm_async_pf_repeated_fault", "kvm/kvm_async_pf_ready",
    "kvm/kvm_async_pf_completed", "kvm/kvm_inj_exception", "kvm/kvm_apic_accept_irq", "kvm/kvm_msr", "kvm/kvm_eoi",
    "block/block_bio_queue", "sched/sched_switch", "apf/mm_fault", "apf/mm_fault_ret",
)  # fmt: skip


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_that_was_not_recorded(event: str) -> None:
    assert not list(event_problems(HAS, EVENTS, True, EVENTS, False))
    rest = [e for e in EVENTS if e != event]
    assert list(event_problems(HAS, rest, True, (), False))
    assert event in " ".join(event_problems(HAS, EVENTS, True, rest, False))


def test_events_that_a_booting_guest_is_not_traced_with() -> None:
    few = [e for e in EVENTS if e not in ("kvm/kvm_page_fault", "kvm/kvm_eoi", "apf/mm_fault", "apf/mm_fault_ret")]
    assert not list(event_problems(HAS, few, True, EVENTS, True))
    assert list(event_problems(HAS, few, True, EVENTS, False))


VMSTAT = {"pgmajfault": 1, "pswpin": 2, "swap_ra": 3, "swap_ra_hit": 4}
KVM = dict.fromkeys(
    ("pf_fixed", "pf_guest", "halt_exits", "halt_attempted_poll", "pf_taken", "pf_spurious", "pf_emulate"), 1
)


def snapshot(**parts: Mapping[str, int]) -> CounterSnapshot:
    whole = {"vmstat": VMSTAT, "memory_stat": {"pgmajfault": 1}, "kvm": KVM, **parts}
    return CounterSnapshot(threads={}, anon_pages=1, **whole)  # type: ignore[arg-type]


def moved(**parts: Mapping[str, int]) -> CounterSnapshot:
    return snapshot(**{"vmstat": {**VMSTAT, "pswpin": 9}, "kvm": {**KVM, "pf_fixed": 9}, **parts})


@pytest.mark.parametrize("section", ["vmstat", "memory_stat", "kvm"])
def test_a_section_or_a_counter_that_is_missing(section: str) -> None:
    assert not list(counter_problems(HAS, snapshot(), moved()))
    whole = getattr(moved(), section)
    for part in ({}, *({k: v for k, v in whole.items() if k != gone} for gone in whole)):
        assert list(counter_problems(HAS, snapshot(**{section: part}), moved(**{section: part}))), part
        assert list(counter_problems(HAS, snapshot(), moved(**{section: part}))), part


def test_a_host_without_them_need_not_show_them() -> None:
    bare = HostHas("5.10.0", 2, (), debugfs=False, cgroup_memory=False, vm_event_counters=False)
    assert not list(counter_problems(bare, snapshot(vmstat={"a": 1}, memory_stat={}, kvm={}),
                                     snapshot(vmstat={"a": 2}, memory_stat={}, kvm={})))  # fmt: skip
    old = dataclasses.replace(HAS, release="5.10.0-40")
    few = {k: v for k, v in KVM.items() if k not in ("pf_taken", "pf_spurious", "pf_emulate")}
    assert not list(counter_problems(old, snapshot(kvm=few), moved(kvm={**few, "pf_fixed": 9})))


def test_counters_that_did_not_move() -> None:
    assert "the same" in " ".join(counter_problems(HAS, snapshot(), snapshot()))
    assert "the same" in " ".join(counter_problems(HAS, snapshot(), moved(kvm=KVM)))
    lost = dataclasses.replace(moved(), anon_pages=None)
    assert "anon_pages" in " ".join(counter_problems(HAS, snapshot(), lost))


def line(cpu: int, t_ns: int, event: str = "kvm_entry") -> Line:
    return Line(1, "CPU 0/KVM", 7, cpu, t_ns, event, "")


def stats(*entries: int, overrun: int = 0) -> TraceStats:
    return TraceStats({n: CpuTraceStats(e, overrun, 0, 0) for n, e in enumerate(entries)})


LINES = (line(0, 1), line(1, 2), line(0, 3))


@pytest.mark.parametrize(
    ("trace", "counted", "words"),
    [
        (Trace(LINES, 0, (3, 3)), stats(2, 1), ""),
        (Trace(LINES, 0, (3, 3)), stats(1, 2), "cut or edited"),
        (Trace(LINES, 0, (8, 8)), TraceStats({0: CpuTraceStats(5, 0, 0, 0, 3), 1: CpuTraceStats(3, 0, 0, 0, 2)}), ""),
        (
            Trace(LINES, 0, (8, 8)),
            TraceStats({0: CpuTraceStats(5, 0, 0, 0, 3), 1: CpuTraceStats(3, 0, 0, 0)}),
            "edited",
        ),
        (Trace(LINES, 0, (3, 3)), TraceStats({0: CpuTraceStats(1, 0, 0, 0, -1), 1: CpuTraceStats(1, 0, 0, 0)}), "zero"),
        (Trace(LINES, 0, (3, 3)), stats(2), "has no CPU 1"),
        (Trace(LINES[:1], 0, (1, 1)), stats(1), "the host has 2"),
        (Trace(LINES, 0, (3, 3)), stats(2, 1, -1), "below zero"),
        (Trace(LINES, 0, (4, 4)), stats(2, 1), "events are there"),
        (Trace(LINES, 0, (3, 3)), stats(2, 1, overrun=1), "overwritten"),
        (Trace(LINES, 0), stats(2, 1), "no line says"),
        (Trace((line(0, 2), line(1, 1)), 0, (2, 2)), stats(1, 1), "merged by another hand"),
        (Trace((line(0, 2, "kvm_fish"),), 0, (1, 1)), stats(1, 0), "kvm_fish"),
    ],
)
def test_lines_against_counts(trace: Trace, counted: TraceStats, words: str) -> None:
    found = " ".join(trace_problems(HAS, trace, counted, EVENTS))
    assert words in found and bool(words) == bool(found)
