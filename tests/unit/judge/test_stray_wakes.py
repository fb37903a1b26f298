# SPDX-License-Identifier: GPL-2.0-or-later
"""D59: who is woken by a worker, in a real capture and in what it is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract.plan import SwapKind
from harness.evidence.decode import Evidence, decode
from harness.evidence.ram_page import ram_page
from harness.judge.stray_wakes import stray_wakes
from harness.model.events import Event, Kind
from tests.unit.judge.packed import packed_capture

VCPU, WORKER = 70001, 70002


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    found = decode(packed_capture("acknowledged-late"))
    assert found.facts is not None
    return replace(found, facts=replace(found.facts, trace_events=(*found.facts.trace_events, "apf/work_end")))


def _woken(evidence: Evidence, wakes: Event, late_ns: int = 0) -> Evidence:
    """A thread asks for the page of the first read, and is woken between the begin and the end of it, or later."""
    assert evidence.gate is not None
    read = evidence.gate.reads[0]
    first = ram_page(evidence.of(Kind.DONE, Kind.PF, Kind.MM_FAULT, Kind.ENTRY))
    at = max(evidence.events[-1].t_ns, read.at_ns)
    reads = (replace(read, answered_ns=at + 100), *evidence.gate.reads[1:])
    events = (
        Event(Kind.MM_FAULT, 0, at + 1, hva=(first + read.pages[0]) << 12, tid=VCPU),
        Event(Kind.WORK, -1, at + 2, worker=True, tid=WORKER),
        replace(wakes, t_ns=at + 3 + late_ns),
        Event(Kind.WORK_END, -1, at + 4 + late_ns, worker=True, tid=WORKER),
    )
    return replace(evidence, events=(*evidence.events, *events), gate=replace(evidence.gate, reads=reads))


BY_WORKER = Event(Kind.WAKING, -1, value=0, data=VCPU, worker=True, tid=WORKER)


def test_a_worker_wakes_nobody_who_sleeps_for_a_page(evidence: Evidence) -> None:
    assert stray_wakes(evidence) == ()
    (stray,) = stray_wakes(_woken(evidence, BY_WORKER)) or ()
    assert "wakes vCPU 0" in stray


def test_others_may_and_so_may_the_end_of_the_read(evidence: Evidence) -> None:
    assert stray_wakes(_woken(evidence, replace(BY_WORKER, tid=WORKER + 1))) == (), "another thread"
    assert stray_wakes(_woken(evidence, replace(BY_WORKER, data=VCPU + 1))) == (), "one that is in no fault"
    assert stray_wakes(_woken(evidence, BY_WORKER, late_ns=1000)) == (), "its page was answered"


def test_nobody_can_tell_without_a_gate_and_without_the_probes(evidence: Evidence) -> None:
    assert stray_wakes(replace(evidence, gate=None)) is None
    assert evidence.facts is not None
    assert stray_wakes(replace(evidence, facts=replace(evidence.facts, trace_events=()))) is None
    plan = replace(evidence.plan, swap=replace(evidence.plan.swap, kind=SwapKind.USERFAULT))
    assert stray_wakes(replace(evidence, plan=plan)) is None
