# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a recording has the end of one life of a vCPU and the begin of the next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.judge.recorded_drafts import Draft
from harness.judge.recorded_lives import LivesTracker
from harness.model.events import INIT, LOADED, MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT, Event, Kind
from harness.model.simulation.recorded import RecordedEvent

FIRMWARE = st.sampled_from([Kind.PF, Kind.RDY, Kind.VIRQ])


def mark(tracker: LivesTracker, kind: Kind, t: int) -> None:
    """An event that leaves a mark."""
    tracker.feed(Event(kind, 0, line=t), t)
    tracker.drafts.append(Draft(RecordedEvent(kind, 1, t, t, t)))


@given(before=st.lists(FIRMWARE), boot=st.lists(FIRMWARE), after=st.lists(FIRMWARE), msr=st.sampled_from([
    MSR_ASYNC_PF_INT, MSR_ASYNC_PF_EN]), again=st.booleans())  # fmt: skip
def test_a_boot_leaves_one_mark(before: list[Kind], boot: list[Kind], after: list[Kind], msr: int, again: bool) -> None:
    tracker = LivesTracker([])
    for t, kind in enumerate(before):
        mark(tracker, kind, t)
    tracker.feed(Event(Kind.CLEAR, 0), 100)
    for t, kind in enumerate(boot):
        mark(tracker, kind, 101 + t)
    if again:  # the INIT that the boot CPU sends to each other one
        tracker.feed(Event(Kind.CLEAR, 0), 200)
    tracker.feed(Event(Kind.WRMSR, 0, value=msr, line=300), 300)
    for t, kind in enumerate(after):
        mark(tracker, kind, 301 + t)
    tracker.over()
    kinds = [d.mark.kind for d in tracker.drafts]
    assert kinds == [*before, Kind.CLEAR, *after]
    assert tracker.drafts[len(before)].mark.start_ns == 100


def test_a_boot_that_never_ends_leaves_nothing_more_and_neither_paging_nor_loadvm_is_one() -> None:
    tracker = LivesTracker([])
    tracker.feed(Event(Kind.CLEAR, 0, flag=True), 1)
    tracker.feed(Event(Kind.CLEAR, 0, value=LOADED), 2)
    assert tracker.drafts == []
    tracker.feed(Event(Kind.CLEAR, 0), 3)
    mark(tracker, Kind.PF, 4)
    tracker.feed(Event(Kind.WRMSR, 0, value=MSR_ASYNC_PF_EN), 5)  # by the VMM: no line
    tracker.over()
    assert [d.mark.kind for d in tracker.drafts] == [Kind.CLEAR]


def test_exits_are_those_for_the_vmm_and_accepted_inits() -> None:
    tracker = LivesTracker([])
    tracker.feed(Event(Kind.USER_EXIT, 0), 7)
    tracker.feed(Event(Kind.ACC, 0, token=INIT), 8)
    tracker.feed(Event(Kind.ACC, 0, text="apicid 1 vec 243 (Fixed|edge)"), 9)
    assert tracker.exits == [7, 8]


def _init(tracker: LivesTracker, sender: int, t: int) -> None:
    """It is given an INIT, and begins a life with its next entry."""
    tracker.feed(Event(Kind.ACC, 1, tid=sender, token=INIT), t)
    tracker.feed(Event(Kind.CLEAR, 1), t + 1)
    tracker.feed(Event(Kind.ENTRY, 1, tid=11), t + 1)


def test_an_init_by_a_program_begins_a_life_also_where_the_one_before_had_not_come_to_its_own() -> None:
    boot, other = LivesTracker([]), LivesTracker([])
    boot.peers = other.peers = [boot, other]
    for tracker in (boot, other):
        tracker.feed(Event(Kind.CLEAR, 0), 1)
    boot.feed(Event(Kind.ENTRY, 0, tid=10), 2)
    _init(other, 10, 3)  # the boot CPU's start-up code
    boot.feed(Event(Kind.WRMSR, 0, value=MSR_ASYNC_PF_INT, line=5), 5)
    _init(other, 10, 6)  # its program
    other.feed(Event(Kind.WRMSR, 1, value=MSR_ASYNC_PF_INT, line=8), 8)
    assert [d.mark.start_ns for d in other.drafts] == [1, 7]


def test_a_life_that_came_to_its_program_is_known() -> None:
    tracker = LivesTracker([])
    tracker.feed(Event(Kind.CLEAR, 0), 1)
    tracker.feed(Event(Kind.WRMSR, 0, value=MSR_ASYNC_PF_INT, line=2), 2)
    tracker.feed(Event(Kind.CLEAR, 0), 3)  # and its next did not, before all was over
    tracker.over()
    assert [d.mark.entered for d in tracker.drafts] == [True, False]
