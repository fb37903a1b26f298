# SPDX-License-Identifier: GPL-2.0-or-later
"""D35: how many entries of KVM's page tables faults can have fixed."""

from __future__ import annotations

from dataclasses import replace

from harness.contract.plan import Op
from harness.evidence.decode import decode
from harness.judge.fixed_entries import fixed_entries_bound
from harness.model.events import Event, Kind
from tests.unit.judge.packed import packed_capture


def test_a_page_is_mapped_for_a_read_and_made_writable_and_again_when_it_was_taken() -> None:
    evidence = decode(packed_capture("read-then-written"))
    page = 0x1000
    faults = [Event(Kind.PF, vcpu=v, gpa=page * n) for v in range(4) for n in (1, 2)]
    quiet = replace(evidence, events=faults)
    assert fixed_entries_bound(quiet) == 4, "whoever else waits for them fixes nothing"
    taken = Event(Kind.UNMAP, hva=7 * page, data=8 * page)
    assert fixed_entries_bound(replace(quiet, events=[*faults, taken])) == 6
    assert fixed_entries_bound(replace(quiet, events=[*faults, replace(taken, data=99 * page)])) == 8, "of two pages"
    ready = Event(Kind.RDY, gpa=page, token=0x1000)
    assert fixed_entries_bound(replace(quiet, events=[*faults, ready])) == 6, "without the accessed bit"


def test_nobody_knows_what_a_new_root_or_a_snapshot_takes() -> None:
    evidence = decode(packed_capture("read-then-written"))
    plan = evidence.plan
    for other in (
        replace(plan, items=(replace(plan.items[0], op=Op.PAGING), *plan.items[1:])),
        replace(plan, items=(replace(plan.items[0], level=2), *plan.items[1:])),
        replace(plan, items=(replace(plan.items[0], op=Op.RESET), *plan.items[1:])),
    ):
        assert fixed_entries_bound(replace(evidence, plan=other)) is None
