# SPDX-License-Identifier: GPL-2.0-or-later
"""D57: faults that were to be repeated before their page was there, in a real capture and in what it is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract.plan import SwapKind
from harness.evidence.decode import Evidence, decode
from harness.judge.early_retries import asked_again, early_retries, forbidden_retries
from harness.model.events import Event, Kind
from harness.model.walk.flags import FaultFlag
from tests.unit.judge.packed import packed_capture


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return decode(packed_capture("acknowledged-late"))


def _answered_later(evidence: Evidence, ns: int) -> Evidence:
    """The same run, had the calls come back so much earlier."""
    assert evidence.gate is not None
    reads = tuple(replace(read, answered_ns=read.answered_ns + ns) for read in evidence.gate.reads)
    return replace(evidence, gate=replace(evidence.gate, reads=reads))


def test_a_fault_is_repeated_when_its_page_is_there(evidence: Evidence) -> None:
    assert early_retries(evidence) == ()


def test_one_that_comes_back_while_its_read_is_under_way_has_not_waited(evidence: Evidence) -> None:
    early = early_retries(_answered_later(evidence, 1_000_000_000))
    assert early and "came back to be repeated" in early[0] and "trace line" in early[0]


def test_a_read_that_was_submitted_later_is_another_one(evidence: Evidence) -> None:
    assert evidence.gate is not None
    again = tuple(replace(r, at_ns=r.answered_ns + 10**9, answered_ns=r.answered_ns + 2 * 10**9, sector=r.sector + 1)
                  for r in evidence.gate.reads)  # fmt: skip
    both = replace(evidence.gate, reads=(*evidence.gate.reads, *again))
    assert early_retries(replace(evidence, gate=both)) == ()


def test_nobody_can_tell_without_a_gate_and_without_the_probes(evidence: Evidence) -> None:
    assert early_retries(replace(evidence, gate=None)) is None
    assert evidence.facts is not None
    assert early_retries(replace(evidence, facts=replace(evidence.facts, has_mm_fault=False))) is None
    plan = replace(evidence.plan, swap=replace(evidence.plan.swap, kind=SwapKind.USERFAULT))
    assert early_retries(replace(evidence, plan=plan)) is None


def _asked_otherwise(evidence: Evidence) -> Evidence:
    """The same run, had nobody been able to repeat a fault."""
    events = tuple(
        replace(event, value=event.value & ~FaultFlag.ALLOW_RETRY) if event.kind is Kind.MM_FAULT else event
        for event in evidence.events
    )
    return replace(evidence, events=events)


def test_only_who_can_repeat_a_fault_is_asked_to(evidence: Evidence) -> None:
    assert forbidden_retries(evidence) == ()
    forbidden = forbidden_retries(_asked_otherwise(evidence))
    assert forbidden and "do not allow" in forbidden[0] and "trace line" in forbidden[0]
    assert evidence.facts is not None
    assert forbidden_retries(replace(evidence, facts=replace(evidence.facts, has_mm_fault=False))) is None


def _calls(evidence: Evidence, *lines: tuple[Kind, int]) -> Evidence:
    """A vCPU thread's calls of handle_mm_fault for one page: flags, and what they came back with."""
    events = [Event(kind, 0, tid=7, hva=0x1000, value=value, line=n) for n, (kind, value) in enumerate(lines, 1)]
    return replace(evidence, events=tuple(events))


NOWAIT, WAITS, REPEATED, NOIO = 0x1C, 0x214, 0x234, 0x1000
ASKED = (Kind.MM_FAULT, NOWAIT), (Kind.MM_FAULT_RET, 0x404)
MINOR = (Kind.MM_FAULT, NOIO), (Kind.MM_FAULT_RET, 0x6)
WAITED = (Kind.MM_FAULT, WAITS), (Kind.MM_FAULT_RET, 0x400)
CAME = (Kind.MM_FAULT, REPEATED), (Kind.MM_FAULT_RET, 0)
CAME_BACK = (Kind.MM_FAULT, REPEATED), (Kind.MM_FAULT_RET, 0x400)
FAULT = (Kind.PF, 0)


@pytest.mark.parametrize(
    ("calls", "found"),
    [
        ((*ASKED, *WAITED, *CAME), 0),
        ((*ASKED, *ASKED), 1),
        ((*MINOR, *MINOR, *WAITED), 1),
        ((*MINOR, *ASKED, *WAITED), 0),
        ((*ASKED, FAULT, *ASKED), 0),
        ((*ASKED, (Kind.ENTRY, 0), *ASKED), 0),
        ((*MINOR, (Kind.TRY, 0), *MINOR), 0),
        (((Kind.MM_FAULT, NOWAIT), (Kind.MM_FAULT_RET, 0), *ASKED), 0),
        ((*WAITED, *WAITED), 0),
        ((*WAITED, *CAME_BACK, *CAME), 1),
        ((*WAITED, *CAME_BACK), 0),  # a fatal signal
    ],
)
def test_who_does_not_want_to_wait_asks_once(
    evidence: Evidence, calls: tuple[tuple[Kind, int], ...], found: int
) -> None:
    """D71."""
    assert len(asked_again(_calls(evidence, *calls)) or ()) == found
    assert evidence.facts is not None
    assert asked_again(replace(evidence, facts=replace(evidence.facts, has_mm_fault=False))) is None


def test_a_userfaultfd_lets_go_of_the_lock_each_time(evidence: Evidence) -> None:
    plan = replace(evidence.plan, swap=replace(evidence.plan.swap, kind=SwapKind.USERFAULT))
    assert asked_again(_calls(replace(evidence, plan=plan), *WAITED, *CAME_BACK, *CAME)) == ()
    assert asked_again(evidence) == ()
