# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures of real runs with gated sources of pages: orders, failed reads, copies, and what proves nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from harness.evidence.decode import decode
from harness.judge.verdict import judge_capture
from harness.judge.verdict_types import Verdict
from harness.model.events import WAKE_ALL_TOKEN, Kind
from harness.model.kernels import find_kernel
from harness.status import Status
from tests.unit.judge.packed import packed_capture

NAMES = ("S28R+noio-6.1", "S47+noio-6.1", "S49+noio-6.1", "S49M+noio-6.1", "S49B+noio-7.3")
COPIED = tuple(name for name in NAMES if name.startswith("S49"))


def judged(name: str, change: Callable[[dict[str, Any]], None] | None = None) -> Verdict:
    """The verdict on a capture, whose gate.json was changed before."""
    files = packed_capture(name)
    if change is not None:
        log = json.loads(files["gate.json"])
        change(log)
        files["gate.json"] = json.dumps(log).encode()
    return judge_capture(files, find_kernel(name.rpartition("+")[2]))


@pytest.mark.parametrize("name", NAMES)
def test_a_real_capture_passes(name: str) -> None:
    verdict = judged(name)
    assert verdict.status is Status.PASS, verdict.findings


@pytest.mark.parametrize("name", NAMES)
def test_what_was_let_go_for_want_of_anything_proves_nothing(name: str) -> None:
    def late(log: dict[str, Any]) -> None:
        log["reads"][0]["why"] = "late"

    verdict = judged(name, late)
    assert verdict.status is Status.INCONCLUSIVE and "gate.json" in verdict.reason


@pytest.mark.parametrize("name", NAMES)
def test_a_gated_run_without_its_log_is_no_evidence(name: str) -> None:
    files = packed_capture(name)
    del files["gate.json"]
    assert judge_capture(files, find_kernel("noio-6.1")).status is Status.INCONCLUSIVE


def test_reads_ended_in_reverse_order() -> None:
    """All reads of the window were held until both faults were settled, then the newest ended first."""
    evidence = decode(packed_capture("S28R+noio-6.1"))
    assert evidence.gate is not None and len(evidence.gate.reads) == 8
    asked = [read.at_ns for read in evidence.gate.reads]
    assert asked == sorted(asked, reverse=True)
    assert max(asked) <= min(read.answered_ns for read in evidence.gate.reads)


def test_the_planned_page_failed_and_no_other() -> None:
    evidence = decode(packed_capture("S47+noio-6.1"))
    assert evidence.gate is not None
    page = next(p.gpa >> 12 for p in evidence.plan.pages if p.name in evidence.plan.swap.error)
    assert {read.pages for read in evidence.gate.reads if read.error} == {(page,)}


def test_missing_pages_were_ready_in_the_order_in_which_they_were_copied() -> None:
    evidence = decode(packed_capture("S49+noio-6.1"))
    assert evidence.gate is not None
    copied = [page for read in evidence.gate.reads for page in read.pages]
    faulted = [e.gpa >> 12 for e in evidence.events if e.kind is Kind.NP]
    ready = [e.gpa >> 12 for e in evidence.events if e.kind is Kind.RDY and e.token != WAKE_ALL_TOKEN]
    assert set(copied) == set(faulted) and ready == faulted[::-1]


@pytest.mark.parametrize("name", COPIED)
def test_a_page_that_came_although_nobody_copied_it_is_wrong(name: str) -> None:
    assert judged(name, lambda log: log["reads"].pop(0)).status is Status.FAIL


@pytest.mark.parametrize("name", COPIED)
def test_a_page_that_was_ready_before_it_was_copied_is_wrong(name: str) -> None:
    def later(log: dict[str, Any]) -> None:
        log["reads"][0]["answered_ns"] += 10**9

    assert judged(name, later).status is Status.FAIL
