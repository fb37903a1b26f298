# SPDX-License-Identifier: GPL-2.0-or-later
"""Read-ahead that device mapper does not take."""

from __future__ import annotations

from dataclasses import replace

from harness.evidence.agent_steps import read_progress
from harness.evidence.decode import decode
from harness.judge.recording import recording
from harness.judge.refused_reads import device_errors
from harness.judge.rules_context import places
from harness.judge.verdict import judge_capture
from harness.judge.verdict_types import Status
from harness.model.events import Kind
from harness.model.kernels import find_kernel
from tests.unit.judge.golden import edit_trace
from tests.unit.judge.packed import packed_capture


def test_device_mapper_refuses_only_while_a_table_is_loaded() -> None:
    evidence = decode(packed_capture("explored-refused-read-ahead"))
    found = recording(evidence, places(evidence))
    assert found is not None
    assert found.refused
    assert all(end in found.read_ends[gfn] for gfn, end in found.refused)
    steps = evidence.files["progress.jsonl"]
    for word in (b"freeze", b"thaw", b"delay"):
        steps = steps.replace(b'"do": "%s"' % word, b'"do": "sleep"')
    quiet = replace(evidence, steps=read_progress(steps))
    other = recording(quiet, places(quiet))
    assert other is not None
    assert not other.refused


def test_read_ahead_that_is_refused_is_no_error_of_the_device() -> None:
    evidence = decode(packed_capture("explored-refused-read-ahead"))
    assert evidence.facts is not None
    failed = [e for e in evidence.events if e.kind is Kind.BIO_END and e.token]
    assert failed
    assert list(device_errors(evidence.plan, evidence.events, evidence.facts.swap_dev)) == []
    wanted = [replace(e, text=e.text.replace(" RA ", " R ")) for e in evidence.events]
    found = device_errors(evidence.plan, wanted, evidence.facts.swap_dev)
    assert [e.line for e in found] == [e.line for e in failed]


def test_a_read_that_fails_by_itself_is_the_machines_fault() -> None:
    def fails(lines: list[str]) -> list[str]:
        at = next(n for n, line in enumerate(lines) if "block_bio_complete" in line and line.endswith("[0]"))
        return [*lines[:at], lines[at].removesuffix("[0]") + "[-5]", *lines[at + 1 :]]

    files = packed_capture("explored-refused-read-ahead")
    kernel = find_kernel("nowait-6.1")
    assert judge_capture(files, kernel).status is Status.PASS
    verdict = judge_capture(edit_trace(files, fails), kernel)
    assert verdict.status is Status.INCONCLUSIVE
    assert "a read failed that the plan lets succeed" in verdict.reason
