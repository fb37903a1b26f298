# SPDX-License-Identifier: GPL-2.0-or-later
"""D74: threads that sleep for a page of a userfaultfd, in real captures and in what they are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.contract.plan import SwapKind
from harness.evidence.decode import Evidence, decode
from harness.judge.userfault_waits import userfault_waits
from harness.model.events import Event, Kind
from harness.model.walk.flags import FaultFlag, VmFault
from tests.unit.judge.packed import packed_capture


@pytest.fixture(scope="module")
def told() -> Evidence:
    """Workers sleep."""
    return decode(packed_capture("S49+noio-6.1"))


@pytest.fixture(scope="module")
def waited() -> Evidence:
    """The vCPU's thread does."""
    return decode(packed_capture("S49B+noio-7.3"))


def _given(evidence: Evidence, ns: int) -> Evidence:
    """The same run, had each page been given so much later."""
    assert evidence.gate is not None
    reads = tuple(replace(read, answered_ns=read.answered_ns + ns) for read in evidence.gate.reads)
    return replace(evidence, gate=replace(evidence.gate, reads=reads))


def _with(evidence: Evidence, changed: Callable[[Event], Event]) -> Evidence:
    return replace(evidence, events=tuple(changed(event) for event in evidence.events))


def test_who_sleeps_as_it_asks_to_and_finds_its_page_is_in_order(told: Evidence, waited: Evidence) -> None:
    assert userfault_waits(told) == () == userfault_waits(waited)


def test_a_worker_that_comes_back_before_its_page_is_there_was_woken_for_another(told: Evidence) -> None:
    early = userfault_waits(_given(told, 1_000_000_000))
    assert early and "came back before the page was given" in early[0]


def test_a_worker_that_has_a_fault_to_make_for_a_page_that_it_was_given(told: Evidence) -> None:
    def made(event: Event) -> Event:
        if event.kind is Kind.MM_FAULT and event.worker:
            return replace(event, value=event.value | FaultFlag.TRIED)
        if event.kind is Kind.MM_FAULT_RET and event.worker:
            return replace(event, value=event.value & ~VmFault.RETRY)
        return event

    assert told.gate is not None
    reads = tuple(replace(read, at_ns=read.at_ns - 1_000_000_000) for read in told.gate.reads)
    found = userfault_waits(_with(replace(told, gate=replace(told.gate, reads=reads)), made))
    assert found and "has a fault to make once more" in found[0]


def test_a_thread_that_no_signal_wakes_although_its_call_may_be_interrupted(waited: Evidence) -> None:
    def deaf(event: Event) -> Event:
        return replace(event, value=ord("D")) if event.kind is Kind.OUT else event

    found = userfault_waits(_with(waited, deaf))
    assert found and "no signal wakes it" in found[0]

    def asked_so(event: Event) -> Event:
        flags = event.value & ~FaultFlag.INTERRUPTIBLE
        return replace(event, value=flags) if event.kind is Kind.MM_FAULT else deaf(event)

    assert userfault_waits(_with(waited, asked_so)) == ()


def test_nobody_can_tell_without_a_userfaultfd_and_without_the_probes(told: Evidence) -> None:
    assert userfault_waits(replace(told, gate=None)) is None
    assert told.facts is not None
    assert userfault_waits(replace(told, facts=replace(told.facts, has_mm_fault=False))) is None
    plan = replace(told.plan, swap=replace(told.plan.swap, kind=SwapKind.GATED))
    assert userfault_waits(replace(told, plan=plan)) is None
