# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of a kernel, planted into sound captures, that an excuse could hide."""

from __future__ import annotations

import re

import pytest

from harness.evidence.decode import read_release
from harness.judge.verdict import judge_capture
from harness.model.kernels import KernelModel, find_kernel
from harness.status import Status
from tests.unit.judge.golden import Files, load
from tests.unit.judge.packed import packed_capture
from tests.unit.judge.planted import enters_before, faults_again, injects_later


def kernel_of(files: Files) -> KernelModel:
    release = read_release(files)
    series = re.match(r"\d+\.\d+", release)
    assert series is not None
    return find_kernel(f"{'noio' if 'noio' in release else 'nowait'}-{series[0]}")


def lines_of(files: Files) -> list[str]:
    return files["trace/events.txt"].decode().splitlines()


def thread_of(line: str) -> int:
    match = re.search(r"-(\d+) ", line)
    assert match is not None
    return int(match[1])


@pytest.mark.parametrize(
    ("name", "ready"),
    [("explored-chosen-late", 261), ("explored-chosen-late", 311), ("explored-found-by-the-second", 115),
     ("explored-hole-filled-meanwhile", 284), ("explored-mapped-around", 210), ("explored-mapped-before-its-end", 175)],
)  # fmt: skip
@pytest.mark.long  # a search for an order that agrees, in vain
def test_a_mapping_is_not_lost_to_a_vcpu_that_maps_elsewhere(name: str, ready: int) -> None:
    """Another vCPU was in the MMU, for a page whose page-table page was linked long ago."""
    files = packed_capture(name)
    lines = lines_of(files)
    assert "kvm_async_pf_ready" in lines[ready]
    damaged = faults_again(files, thread_of(lines[ready]), ready)
    assert damaged is not None
    verdict = judge_capture(damaged, kernel_of(files))
    assert verdict.status is Status.FAIL, verdict.reason


@pytest.mark.parametrize("name", ["S36", "S61", "S64"])
def test_a_ready_event_is_told_at_the_next_entry(name: str) -> None:
    """40 entries between DONE and RDY passed before."""
    files = load(name)
    lines = lines_of(files)
    told = [n for n, line in enumerate(lines) if "kvm_async_pf_ready: token 0x" in line and "0xffffffff" not in line]
    assert told
    for ready in told[:4]:
        verdict = judge_capture(enters_before(files, thread_of(lines[ready]), ready), kernel_of(files))
        assert verdict.status is Status.FAIL and "D50" in {f.rule for f in verdict.findings}, verdict.reason


@pytest.mark.parametrize("name", ["S23", "S61"])
def test_an_interrupt_is_injected_before_the_guest_runs_on(name: str) -> None:
    files = load(name)
    lines = lines_of(files)
    interrupts = [n for n, line in enumerate(lines) if "kvm_inj_virq" in line]
    found = 0
    for interrupt in interrupts[:-1]:
        verdict = judge_capture(injects_later(files, thread_of(lines[interrupt]), interrupt), kernel_of(files))
        found += verdict.status is Status.FAIL and "D51" in {f.rule for f in verdict.findings}
    assert found >= len(interrupts) // 2, (found, len(interrupts))
