# SPDX-License-Identifier: GPL-2.0-or-later
"""D72: who waits for a page's read has let go of mmap_lock."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from harness.contract.words import Backing, EndStatus
from harness.evidence.agent_steps import read_progress
from harness.evidence.decode import Evidence, decode
from harness.judge.kept_lock import kept_lock
from harness.model.events import Event, Kind
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
    assert evidence.facts is not None
    unseen = replace(evidence, facts=replace(evidence.facts, has_mm_fault=False))
    assert _said(unseen, ("host-action", "change-mm")) is None, "who has the lock is not known"
    assert _said(unseen, *whole) == ()


FIRST, NOWAIT, SECOND, NO_RETRY = 0x95, 0x1C, 0xB5, 0x11
READ = Event(Kind.BIO, 0, 600, tid=7, dev=5, value=8, data=8, flag=True)


@pytest.mark.parametrize(
    ("backing", "events", "kept"),
    [
        (Backing.ANON, [], 1),
        (Backing.ANON, [Event(Kind.MM_FAULT, 0, 500, tid=7, value=FIRST)], 1),
        (Backing.ANON, [Event(Kind.MM_FAULT, 0, 500, tid=7, value=SECOND)], 0),
        (Backing.FILE, [Event(Kind.MM_FAULT, 0, 500, tid=7, value=NO_RETRY)], 0),
        (Backing.ANON, [Event(Kind.MM_FAULT, 0, 500, tid=7, value=FIRST), READ], 0),
        (Backing.FILE, [Event(Kind.MM_FAULT, 0, 500, tid=7, value=FIRST), READ], 1),
        (Backing.FILE, [Event(Kind.MM_FAULT, 0, 500, tid=7, value=NOWAIT), READ], 0),
        (Backing.FILE, [Event(Kind.MM_FAULT, 0, 500, tid=7, value=NOWAIT), replace(READ, data=64)], 1),
        (Backing.FILE, [Event(Kind.MM_FAULT, 0, 500, tid=7, value=NOWAIT)], 1),
        (Backing.ANON, [Event(Kind.MM_FAULT, 0, 500, tid=7, value=FIRST), replace(READ, data=64)], 1),
        (Backing.ANON, [Event(Kind.MM_FAULT, 0, 500, tid=7, value=SECOND), Event(Kind.MM_FAULT_RET, 0, 900, tid=7)], 1),
        (Backing.ANON, [Event(Kind.MM_FAULT, 0, 1_000_001, tid=7, value=SECOND)], 1),
    ],
)
def test_a_call_that_keeps_the_lock_while_it_waits_is_no_fault(
    evidence: Evidence, backing: Backing, events: list[Event], kept: int
) -> None:
    """A second call, one that may not let go of it, one that polls for a single page of swap (S23), and one that was
    not to wait and reads a single page of a file (S500)."""
    assert evidence.facts is not None
    plan = replace(evidence.plan, memory=replace(evidence.plan.memory, backing=backing))
    begun = json.dumps({"t": 0.001, "mono": 0.001, "step": "host-action", "do": "change-mm", "arg": 0, "host": 0})
    seen = replace(
        evidence, plan=plan, events=tuple(events), facts=replace(evidence.facts, swap_dev=5),
        end=replace(evidence.end, status=EndStatus.GUEST_TIMEOUT), steps=read_progress(begun.encode()),
    )  # fmt: skip
    found = kept_lock(seen)
    assert found is not None and len(found) == kept
