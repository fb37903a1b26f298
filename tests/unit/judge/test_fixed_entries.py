# SPDX-License-Identifier: GPL-2.0-or-later
"""D35: how many entries of KVM's page tables faults can have fixed."""

from __future__ import annotations

from dataclasses import replace

from harness.contract.plan import Op
from harness.evidence.decode import decode
from harness.judge.fixed_entries import fixed_entries_bound, fixed_for_ready_bound, unfixed_bound
from harness.model.events import WAKE_ALL_TOKEN, Event, Kind
from harness.model.kernels import find_kernel
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


def test_of_the_ready_events_of_one_page_the_first_alone_maps_it_until_it_is_taken() -> None:
    evidence, kernel = decode(packed_capture("read-then-written")), find_kernel("nowait-7.3")
    page = 0x1000
    told = [Event(Kind.RDY, vcpu=v, gpa=page * n, token=0x1000 + v) for v in range(3) for n in (1, 2)]
    came = [Event(Kind.DONE, gpa=page * n, hva=page * (n + 100)) for n in (1, 2)]
    quiet = replace(evidence, events=[*came, *told])
    assert fixed_for_ready_bound(quiet, kernel) == 2, "whoever else is told of it finds it mapped"
    assert fixed_for_ready_bound(quiet, find_kernel("nowait-6.12")) is None, "an entry may be replaced"
    taken = Event(Kind.UNMAP, hva=101 * page, data=102 * page)
    assert fixed_for_ready_bound(replace(quiet, events=[*came, *told, taken]), kernel) == 3
    assert fixed_for_ready_bound(replace(quiet, events=[*told, taken]), kernel) == 4, "nobody knows where it lies"
    wake_all = replace(told[0], gpa=0, token=WAKE_ALL_TOKEN)
    assert fixed_for_ready_bound(replace(quiet, events=[*came, *told, wake_all]), kernel) == 2
    plan = replace(evidence.plan, items=(replace(evidence.plan.items[0], level=2),))
    assert fixed_for_ready_bound(replace(quiet, plan=plan), kernel) is None


def test_of_the_faults_of_a_page_all_but_one_can_have_left_no_entry() -> None:
    evidence = decode(packed_capture("read-then-written"))
    page = 0x1000
    faults = [Event(Kind.PF, vcpu=v, gpa=page * n) for v in range(4) for n in (1, 2)]
    quiet = replace(evidence, events=faults)
    assert unfixed_bound(quiet) == 6
    asynchronous = [Event(kind, vcpu=v, gpa=page) for v in range(2) for kind in (Kind.NP, Kind.REP)]
    assert unfixed_bound(replace(quiet, events=[*faults, *asynchronous])) == 7, "none of the first page was its own"
    ready = Event(Kind.RDY, gpa=page, token=0x1000)
    assert unfixed_bound(replace(quiet, events=[*faults, ready])) == 7, "it may have mapped the page"
    plan = replace(evidence.plan, items=(replace(evidence.plan.items[0], level=2),))
    assert unfixed_bound(replace(quiet, plan=plan)) is None
