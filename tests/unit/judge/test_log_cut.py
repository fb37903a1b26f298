# SPDX-License-Identifier: GPL-2.0-or-later
"""How far the log of a guest counts that was stopped by its deadline."""

from __future__ import annotations

from dataclasses import replace

from harness.contract.words import EndStatus
from harness.evidence.decode import decode
from harness.judge.log_cut import within_the_trace
from tests.unit.judge.packed import packed_capture


def test_what_was_written_after_the_trace_is_left_out() -> None:
    """The trace goes to 12.65 s after go; item 65 began 9.49 s after item 64's page was copied, and ended at 13.9 s."""
    evidence = decode(packed_capture("explored-log-after-the-trace"))
    log = within_the_trace(evidence)
    assert evidence.guest is not None and log is not None
    whole, cut = evidence.guest.vcpus[0], log.vcpus[0]
    assert cut == whole[: len(cut)]
    assert max(e.item for e in whole) > 65 and max(e.item for e in cut) == 65
    assert sum(e.item == 65 for e in cut) == 1, "its begin, not its end"


def test_the_log_of_a_guest_that_came_to_its_end_is_whole() -> None:
    evidence = decode(packed_capture("explored-log-after-the-trace"))
    assert within_the_trace(replace(evidence, end=replace(evidence.end, status=EndStatus.DONE))) == evidence.guest


def test_without_an_interrupt_of_both_clocks_nothing_is_left_out() -> None:
    evidence = decode(packed_capture("explored-log-after-the-trace"))
    assert within_the_trace(replace(evidence, events=())) == evidence.guest


def test_a_vcpu_that_panics_stops_no_other() -> None:
    evidence = decode(packed_capture("explored-log-after-the-trace"))
    panicked = replace(evidence, end=replace(evidence.end, status=EndStatus.GUEST_PANIC))
    assert within_the_trace(panicked) == evidence.guest, "the only vCPU"
    two = replace(evidence.plan, guest=replace(evidence.plan.guest, vcpus=2))
    assert within_the_trace(replace(panicked, plan=two)) == within_the_trace(evidence) != evidence.guest
