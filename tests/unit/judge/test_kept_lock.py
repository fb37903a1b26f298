# SPDX-License-Identifier: GPL-2.0-or-later
"""D72: who waits for a page's read has let go of mmap_lock."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from harness.contract.words import EndStatus
from harness.evidence.agent_steps import read_progress
from harness.evidence.decode import Evidence, decode
from harness.judge.kept_lock import kept_lock
from tests.unit.judge.packed import packed_capture


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return decode(packed_capture("read-then-written"))


def _said(
    evidence: Evidence, *steps: tuple[str, str], status: EndStatus = EndStatus.GUEST_TIMEOUT
) -> tuple[str, ...] | None:
    lines = [
        json.dumps({"t": float(n), "mono": float(n), "step": step, "do": do, "arg": 0, "host": 0})
        for n, (step, do) in enumerate(steps)
    ]
    end = replace(evidence.end, status=status)
    return kept_lock(replace(evidence, end=end, steps=read_progress("\n".join(lines).encode())))


def test_a_lock_that_was_not_to_be_had_is_told(evidence: Evidence) -> None:
    whole = [("host-action", "change-mm"), ("host-action-done", "change-mm")]
    assert _said(evidence, *whole) == ()
    assert _said(evidence, ("host-action", "wait-np")) == (), "another word's affair"
    found = _said(evidence, *whole, ("host-action", "change-mm"))
    assert found is not None and len(found) == 1 and "2.000 s" in found[0]
    assert _said(evidence, ("host-action", "change-mm"), status=EndStatus.QEMU_DIED) == (), "not waited for"
    assert kept_lock(evidence) == ()
    assert kept_lock(replace(evidence, lost=7)) is None
