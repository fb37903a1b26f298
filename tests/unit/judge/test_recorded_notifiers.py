# SPDX-License-Identifier: GPL-2.0-or-later
"""When notifiers of the VMM's memory ran, and which had certainly ended."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.judge.recorded_notifiers import Notifiers
from harness.model.events import Event, Kind
from harness.model.simulation.recorded import FaultCall

PAGE = 0x1000


def _unmap(hva: int, tid: int = 50, *, pages: int = 1, vcpu: int = -1) -> Event:
    return Event(Kind.UNMAP, vcpu, tid=tid, hva=hva, data=hva + pages * PAGE)


def test_one_of_other_memory_says_that_the_one_before_is_over() -> None:
    notifiers = Notifiers()
    notifiers.begin(_unmap(0x10000), 100, {16})
    assert not notifiers.ended
    notifiers.begin(_unmap(0x20000), 200, {32})
    assert notifiers.ended == [FaultCall(100, 200, 50)]
    assert notifiers.unmapped == {16: [100], 32: [200]}


def test_one_inside_another_says_nothing_of_it() -> None:
    """A huge page is split while a part of it is unmapped (mm/huge_memory.c:__split_huge_pmd)."""
    notifiers = Notifiers()
    notifiers.begin(_unmap(0x10000, pages=4), 100, {16})
    notifiers.begin(_unmap(0x10000, pages=512), 110, {16})
    assert not notifiers.ended
    notifiers.begin(_unmap(0x800000), 300, {7})
    assert notifiers.ended == [FaultCall(110, 300, 50)]


def test_another_thread_says_nothing_of_it() -> None:
    notifiers = Notifiers()
    notifiers.begin(_unmap(0x10000, 50), 100, {16})
    notifiers.begin(_unmap(0x20000, 51), 200, {32})
    notifiers.returned(51, 150, 250)
    assert notifiers.ended == [FaultCall(200, 250, 51)]


def test_memory_that_is_not_the_plans_may_have_no_memslot() -> None:
    notifiers = Notifiers()
    notifiers.begin(_unmap(0x10000), 100, set())
    notifiers.begin(_unmap(0x20000), 200, {32})
    assert not notifiers.ended
    assert notifiers.ran == [FaultCall(100, 100, 50), FaultCall(200, 200, 50)]


def test_a_copy_of_a_page_is_over_when_its_thread_comes_back() -> None:
    notifiers = Notifiers()
    notifiers.begin(_unmap(0x10000, vcpu=0), 100, {16})
    notifiers.returned(50, 90, 120)
    assert notifiers.ran == notifiers.ended == [FaultCall(100, 120, 50)]
    assert not notifiers.unmapped  # by a thread of KVM's
    notifiers.begin(_unmap(0x20000, vcpu=0), 200, {32})
    notifiers.returned(50, 210, 220)  # a call that began behind it
    assert len(notifiers.ended) == 1


def test_what_its_thread_does_next_may_be_inside_it() -> None:
    notifiers = Notifiers()
    notifiers.begin(_unmap(0x10000), 100, {16})
    notifiers.see(Event(Kind.BIO, -1, tid=50), 140)
    assert notifiers.ran == [FaultCall(100, 140, 50)] and not notifiers.ended


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(1, 4), st.booleans()), max_size=30))
def test_none_has_ended_before_it_began_nor_without_one(seen: list[tuple[int, int, int, bool]]) -> None:
    notifiers = Notifiers()
    for t, (tid, first, pages, back) in enumerate(seen):
        if back:
            notifiers.returned(tid, 0, t)
        else:
            notifiers.begin(_unmap(first * PAGE, tid, pages=pages), t, {first})
    begun = {(ran.thread, ran.start_ns) for ran in notifiers.ran}
    assert all((e.thread, e.start_ns) in begun and e.start_ns < e.end_ns for e in notifiers.ended)
    assert len({(e.thread, e.start_ns) for e in notifiers.ended}) == len(notifiers.ended)
