# SPDX-License-Identifier: GPL-2.0-or-later
"""D63: who does not leave KVM_RUN for a host action that never comes to its end."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from harness.evidence.agent_steps import read_progress, signalled_ns
from harness.evidence.decode import Evidence, decode
from harness.judge.deaf_vcpus import deaf_vcpus
from harness.model.events import Event, Kind
from tests.unit.judge.packed import packed_capture

S, D = ord("S"), ord("D")
QEMU = 4000


def _step(step: str, mono: float, do: str = "stop") -> str:
    return json.dumps({"t": mono, "mono": mono, "step": step, "do": do, "arg": 0, "timed": 0})


@pytest.mark.parametrize(
    ("lines", "asked"),
    [
        ([], None),
        ([_step("host-action", 5.0)], 5_000_000_000),
        ([_step("host-action", 5.0), _step("host-action-done", 6.0)], None),
        ([_step("host-action", 5.0, "release")], None),  # for which no vCPU is wanted
    ],
)
def test_since_when_it_waits(lines: list[str], asked: int | None) -> None:
    assert signalled_ns(read_progress("\n".join(lines).encode())) == asked


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return decode(packed_capture("read-then-written"))


def _run(evidence: Evidence, *kinds: str, out: int = S) -> tuple[str, ...] | None:
    """A vCPU that was entered, and this behind a stop that is never over."""
    assert evidence.facts is not None
    tid, at = evidence.facts.vcpu_tids[0], 2_000_000_000
    events = [Event(Kind.ENTRY, 0, t_ns=at - 1, tid=tid, line=1), Event(Kind.EXIT, 0, t_ns=at - 1, tid=tid, line=2)]
    for line, name in enumerate(kinds, 3):
        kind = Kind[name]
        of_other = kind is Kind.WAKING
        events.append(Event(kind, -1 if of_other else 0, t_ns=at + line, tid=QEMU if of_other else tid, line=line,
                            data=tid * of_other, value=out * (kind is Kind.OUT)))  # fmt: skip
    events.append(Event(Kind.WAKING, -1, t_ns=at + 99, tid=QEMU, line=99, data=QEMU))  # of another thread
    steps = read_progress(_step("host-action", 2.0).encode())
    return deaf_vcpus(replace(evidence, events=tuple(events), steps=steps))


@pytest.mark.parametrize(
    ("kinds", "named"),
    [
        (("OUT", "IN"), 1),
        (("OUT", "WAKING", "IN"), 0),
        (("WAKING", "OUT", "IN"), 0),  # it was about to sleep
        (("OUT", "WAKING", "IN", "OUT", "IN", "OUT"), 1),
        (("USER_EXIT", "OUT", "IN"), 0),  # QEMU's locks are its own affair
        (("MM_FAULT", "OUT", "IN", "MM_FAULT_RET"), 0),
        (("MM_FAULT", "MM_FAULT_RET", "OUT", "IN"), 1),
    ],
)
def test_who_goes_to_sleep_with_a_signal_pending(evidence: Evidence, kinds: tuple[str, ...], named: int) -> None:
    found = _run(evidence, *kinds)
    assert found is not None and len(found) == named
    assert not named or "vCPU 0 goes to sleep in KVM_RUN with a signal pending" in found[0]


def test_who_sleeps_uninterruptibly_heeds_none(evidence: Evidence) -> None:
    assert _run(evidence, "OUT", "IN", out=D) == ()


def test_a_trace_without_wakings_tells_nothing(evidence: Evidence) -> None:
    events = tuple(event for event in evidence.events if event.kind is not Kind.WAKING)
    steps = read_progress(_step("host-action", 0.0).encode())
    assert deaf_vcpus(replace(evidence, events=events, steps=steps)) == ()


def test_nothing_is_wrong_where_everything_came_to_its_end(evidence: Evidence) -> None:
    assert deaf_vcpus(evidence) == ()
    assert evidence.facts is not None
    assert deaf_vcpus(replace(evidence, facts=replace(evidence.facts, has_mm_fault=False))) is None
