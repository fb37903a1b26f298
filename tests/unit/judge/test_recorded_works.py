# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kworker ran which of several works of one page."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.judge.recorded_drafts import Call
from harness.judge.recorded_works import LiveWork, PageWork, QueuedWork, complete, work_runs
from harness.model.simulation.recorded import FaultCall

PAGE = 0x1000


def run(start: int, thread: int, end: int) -> PageWork:
    """``end``: of its page fault."""
    return PageWork(start, thread, [Call(PAGE, FaultCall(start + 1, end))], end + 5)


def work(queued: int, start: int, end: int, ready: int, thread: int) -> QueuedWork:
    """A work and the run that began first after it was queued."""
    return QueuedWork(PAGE, queued, run(start, thread, end), ready)


def test_a_run_that_ended_after_the_ready_event_was_that_of_another_work() -> None:
    late, early = work(0, 10, 90, 60, thread=7), work(5, 20, 50, 100, thread=8)
    found = work_runs({(0, 1): late, (1, 2): early}, [[(0, 1)], [(1, 2)]])
    assert [found[key].thread for key in ((0, 1), (1, 2))] == [8, 7]
    assert found[0, 1].completed_ns < 60 and 90 <= found[1, 2].completed_ns < 100


def test_runs_that_fit_stay_and_those_that_cannot_be_told_apart_too() -> None:
    first, second = work(0, 10, 50, 60, thread=7), work(5, 20, 70, 100, thread=8)
    found = work_runs({(0, 1): first, (1, 2): second}, [[(0, 1)], [(1, 2)]])
    assert [found[key].thread for key in ((0, 1), (1, 2))] == [7, 8]
    impossible = work(0, 10, 90, 60, thread=7)
    assert work_runs({(0, 1): impossible}, [[(0, 1)]])[0, 1].thread == 7, "nobody else's: what is wrong is told later"


def test_a_run_is_kept_for_the_one_work_that_it_fits() -> None:
    """The run of thread 8 began before the last work was queued, so the first must leave it the other one."""
    works = {
        (0, 1): work(0, 10, 95, 60, thread=7),
        (1, 2): work(5, 20, 40, 100, thread=8),
        (2, 3): work(25, 30, 30, 50, thread=9),
    }
    found = work_runs(works, [[(0, 1)], [(1, 2)], [(2, 3)]])
    assert [found[key].thread for key in works] == [8, 7, 9]


def test_a_run_is_that_of_the_work_whose_address_its_completion_tells() -> None:
    """Both fit by their times: a read of the page's first bytes, and a write of what is behind them."""
    reads, writes = work(0, 10, 50, 60, thread=7), work(5, 12, 70, 100, thread=8)
    reads.address, writes.address = PAGE << 12, (PAGE << 12) + 8
    reads.run.address, writes.run.address = writes.address, reads.address
    reads.ready = writes.ready = 100
    found = work_runs({(0, 1): reads, (1, 2): writes}, [[(0, 1)], [(1, 2)]])
    assert [found[key].thread for key in ((0, 1), (1, 2))] == [8, 7]


def test_a_work_that_nobody_has_begun_gets_the_run_that_completed_its_address() -> None:
    """The older one was taken from the queue before any kworker came to it."""
    live = [LiveWork(0, 1, PAGE << 12, 0, cpu=0, begun=True), LiveWork(1, 2, (PAGE << 12) + 8, 5, cpu=1)]
    older = work(0, 10, 50, -1, thread=7)
    older.address = live[0].address
    works = {live[0].key: older}
    complete(works, live, live[0].key, live[1].address, 55)
    assert [w.begun for w in live] == [False, True]
    assert list(works) == [live[1].key] and works[live[1].key].run.thread == 7 and works[live[1].key].run.done == 55


@given(st.permutations(range(6)), st.integers(0, 5))
def test_each_work_has_a_run_of_its_own_that_fits_where_that_can_be(order: list[int], spread: int) -> None:
    """Six works, queued one after the other, run by workers that were given them in another order."""
    ends = [100 + 10 * n for n in range(6)]
    works = {
        (v, v): QueuedWork(PAGE, v, run(50 + v, order[v], ends[order[v]]), ends[v] + spread + 1)
        for v in range(6)
    }  # fmt: skip
    found = work_runs(works, [[(v, v)] for v in range(6)])
    assert sorted(run.thread for run in found.values()) == list(range(6))
    assert all(found[v, v].windows[-1].end_ns <= ends[v] + spread for v in range(6))
