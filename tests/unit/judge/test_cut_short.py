# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that never ends is cut off by its deadline wherever it may be: no place is the kernel's fault."""

from __future__ import annotations

import json
import re

import pytest

from harness.judge.verdict import judge_capture
from harness.run.judge_folder import model_of
from harness.status import Status
from tests.unit.judge.golden import Files, edit_trace
from tests.unit.judge.packed import packed_capture

_TIME = re.compile(r" (\d+\.\d+): ")
_AFTER_S = 0.0001  # the agent's word "collect" behind the last event
_DEADLINE_S = 1.0
PAGES = ("0x0000000001000000", "0x0000000001040000", "0x0000000001080000")


def _cuts(files: Files) -> range:
    """After each line from the one on by which all three vCPUs have faulted."""
    lines = files["trace/events.txt"].decode().splitlines()
    faults = {page: f"kvm_page_fault: .* address {page} " for page in PAGES}
    first = [next(n for n, line in enumerate(lines) if re.search(fault, line)) for fault in faults.values()]
    return range(max(first) + 1, len(lines))


def cut_short(files: Files, lines: int) -> Files:
    """The capture as it is if the deadline comes behind so many lines of the trace."""
    cut = edit_trace(files, lambda all_: all_[:lines])
    stamps = _TIME.findall(cut["trace/events.txt"].decode())
    last_s = float(stamps[-1])
    steps = [json.loads(line) for line in files["progress.jsonl"].decode().splitlines()]
    for step in steps:
        if step["step"] == "go":
            step["mono"] = min(step["mono"], last_s - _DEADLINE_S - _AFTER_S)
        elif step["step"] == "collect":
            step["mono"] = last_s + _AFTER_S
    gate = json.loads(files["gate.json"])
    asked = [read for read in gate["reads"] if read["at_ns"] <= last_s * 1e9]
    answered = [read for read in asked if read["answered_ns"] <= last_s * 1e9]
    gate.update(reads=answered, held=len(asked) - len(answered))
    progress = "".join(json.dumps(step) + "\n" for step in steps).encode()
    return {**cut, "progress.jsonl": progress, "gate.json": json.dumps(gate).encode()}


@pytest.mark.parametrize("name", ["cut-in-a-fault", "cut-before-its-worker", "cut-anywhere"])
@pytest.mark.long  # a search for an order that agrees, in vain
def test_wherever_the_deadline_comes(name: str) -> None:
    files = packed_capture(f"explored-{name}")
    found = {}
    for lines in _cuts(files):
        cut = cut_short(files, lines)
        verdict = judge_capture(cut, model_of(cut, "nowait"))
        found[lines] = verdict.status, verdict.reason
    assert len(found) > 10
    assert not {lines: why for lines, (status, why) in found.items() if status is not Status.PASS}


def _all_but(text: str, lines: list[str]) -> list[str]:
    at = max(n for n, line in enumerate(lines) if text in line)
    return [line for n, line in enumerate(lines) if n != at]


@pytest.mark.parametrize("lost", ["kvm_async_pf_not_present", "kvm_try_async_get_page"])
def test_what_came_before_the_end_is_demanded(lost: str) -> None:
    """A thread that has slept in its halt since had told its page before."""
    files = packed_capture("explored-cut-before-its-worker")
    files = edit_trace(files, lambda lines: _all_but(lost, lines))
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.FAIL


def test_a_pause_that_is_not_over_when_the_recording_ends_is_followed_by_nothing() -> None:
    """A host word waits in vain for 30 s, in a pause of 60 s of another vCPU: the model went on behind that (6.1)."""
    files = packed_capture("explored-in-a-pause")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.INCONCLUSIVE and "did not come to its end" in verdict.reason


@pytest.mark.parametrize(
    "name",
    [
        "cut-off-before-its-injection",  # 7.3: a token was queued, the entry that injects it is not recorded
        "asleep-in-the-vmm",  # 5.10: all vCPU threads sleep at last, where the VMM has stopped them
    ],
)
def test_so_does_the_kvm_run_that_fails(name: str) -> None:
    files = packed_capture(f"explored-{name}")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.PASS, verdict.reason


@pytest.mark.parametrize("name", ["guest/log.bin", "after.json", "trace/events.txt"])
def test_what_the_agent_has_collected_is_there(name: str) -> None:
    """A program that the model lets never end is as predicted only by what is recorded of it."""
    files = packed_capture("explored-cut-anywhere")
    assert judge_capture(files, model_of(files, "nowait")).status is Status.PASS
    del files[name]
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.INCONCLUSIVE and verdict.taints
