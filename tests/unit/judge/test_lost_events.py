# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace that lost events acquits nobody, and convicts by nothing of which a sound kernel may have been the cause."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from harness.contract.plan import Op
from harness.contract.probe_abi import Record
from harness.evidence.decode import decode
from harness.judge.verdict import judge_capture
from harness.status import Status
from tests.unit.judge.golden import Files, edit_trace, load, recounted
from tests.unit.judge.packed import packed_capture
from tests.unit.judge.test_verdict import change_json, edit, model

TIMEOUT = "60 s"


def cut_after(pattern: str, lost: int = 3) -> Files:
    """As if the buffer of that line's CPU had been full from there on."""
    files = load("S29")
    lines = files["trace/events.txt"].decode().splitlines()
    at = next(i for i, x in enumerate(lines) if re.search(pattern, x))
    kept, counted = recounted(lines[: at + 1], files["trace/stats.json"])
    stats = json.loads(counted)
    for cpu, row in stats.items():
        row["dropped events"] = lost if f"[{int(cpu.removeprefix('cpu')):03}]" in kept[-1] else 0
    return {
        **files,
        "trace/events.txt": "\n".join(kept).encode() + b"\n",
        "trace/stats.json": json.dumps(stats).encode(),
    }


def test_a_cut_trace_never_acquits_but_convicts_by_what_comes_before_the_cut() -> None:
    clean = judge_capture(cut_after("kvm_async_pf_completed"), model())
    assert clean.status is Status.INCONCLUSIVE and "lost" in clean.reason
    broken = edit_trace(
        cut_after("kvm_async_pf_completed"), edit("not_present: token 0x1000", "not_present: token 0x0")
    )
    verdict = judge_capture(broken, model())
    assert verdict.status is Status.FAIL and verdict.findings[0].rule == "D03"


def timed_out(files: Files) -> Files:
    return change_json(files, "end.json", lambda r: r.update(status="guest-timeout", reason=TIMEOUT))


def with_value(files: Files, wrong: int) -> Files:
    """As if the guest had read another word than its first page holds."""
    log = decode(files).guest
    assert log is not None
    touch = next(item for item in decode(files).plan.items if item.op is Op.TOUCH)
    read = next(r for r in log.all() if r.kind is Record.END and r.item == touch.index)
    raw = files["guest/log.bin"]
    word = read.a.to_bytes(8, "little")
    assert word in raw
    return {**files, "guest/log.bin": raw.replace(word, wrong.to_bytes(8, "little"))}


def test_a_deadline_convicts_the_kernel_of_a_probe_guest() -> None:
    """Its run is ended long before its buffer is full, unless a vCPU goes round without end."""
    verdict = judge_capture(timed_out(cut_after("kvm_async_pf_completed")), model())
    assert verdict.status is Status.FAIL and verdict.taints
    assert "lost 3 trace events" in verdict.reason and TIMEOUT in verdict.reason
    assert [f.rule for f in verdict.findings] == ["ending"]


def test_a_deadline_alone_does_not_convict_the_kernel_of_a_linux_guest() -> None:
    """A slow machine ends a run so, too: of a whole trace that is told apart, of one with a hole it cannot be."""
    files = timed_out(packed_capture("enabled"))
    stats = json.loads(files["trace/stats.json"])
    next(iter(stats.values()))["dropped events"] = 3
    verdict = judge_capture({**files, "trace/stats.json": json.dumps(stats).encode()}, model())
    assert verdict.status is Status.INCONCLUSIVE and verdict.taints
    assert "lost 3 trace events" in verdict.reason and TIMEOUT in verdict.reason
    assert [f.rule for f in verdict.findings] == ["ending"]


@pytest.mark.parametrize("ended", [lambda files: files, timed_out])
def test_what_the_guest_has_read_convicts_without_any_trace(ended: Callable[[Files], Files]) -> None:
    files = ended(with_value(cut_after("kvm_async_pf_completed"), 0x1234))
    verdict = judge_capture(files, model())
    assert verdict.status is Status.FAIL
    assert verdict.findings[0].rule == "value" and "read 0x1234" in verdict.findings[0].message


def test_what_the_machine_did_not_do_convicts_nobody() -> None:
    """As where the trace is whole."""
    files = edit_trace(cut_after("kvm_async_pf_completed"), edit("not_present: token 0x1000", "not_present: token 0x0"))
    line = "Out of memory: Killed process 412 (qemu-system-x86)"
    files["host/dmesg.txt"] += f"[   12.000000] {line}\n".encode()
    verdict = judge_capture(files, model())
    assert verdict.status is Status.INCONCLUSIVE and line in verdict.reason
    assert verdict.findings[0].rule == "D03"
