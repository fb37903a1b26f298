# SPDX-License-Identifier: GPL-2.0-or-later
"""The release rule: which reads may end after what was seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.contract.gate import COUNTED, Rule, Seen, parse_rule
from harness.contract.words import ReadEnd, Release
from harness.errors import UsageError


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("np", Rule()),
        ("np:2", Rule(Release.NP, 2)),
        ("repeated:3", Rule(Release.REPEATED, 3)),
        ("asleep", Rule(Release.ASLEEP)),
        ("halted:2", Rule(Release.HALTED, 2)),
        ("step", Rule(Release.STEP)),
    ],
)
def test_words(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize("text", ["", "never", "np:", "np:0", "np:-1", "np:x", "step:2", "open:1"])
def test_no_words(text: str) -> None:
    with pytest.raises(UsageError):
        parse_rule(text)


def fresh(text: str = "np", vcpus: int = 2) -> Seen:
    return Seen(parse_rule(text), vcpus)


READ = [frozenset({8, 9})]


def announce(seen: Seen, vcpu: int, page: int) -> None:
    """KVM announces the fault; its worker (one for each page, here) falls asleep on it."""
    seen.announced(vcpu, page)
    seen.work(page, page)
    seen.work_sleeps(page)


def test_a_read_that_nobody_settled_stays() -> None:
    seen = fresh()
    seen.fault(0, 8)
    assert seen.due(READ) == []  # its submitter has not looked at the page yet


def test_settled_when_each_announced_page_has_a_worker_asleep() -> None:
    seen = fresh()
    assert seen.settled  # nothing is outstanding
    seen.fault(0, 8)
    seen.announced(0, 8)
    assert not seen.settled
    seen.work(31, 8)
    assert not seen.settled
    seen.work_sleeps(31)
    announce(seen, 1, 9)
    assert seen.settled
    seen.work(31, 8)  # woken, it asks again
    assert not seen.settled
    seen.work_done(31)
    seen.ready(0, 8)
    assert seen.settled


def test_a_work_that_completed_and_is_never_ready_is_settled() -> None:
    """An INIT clears the vCPU's done list.  Of two works for one page both have to be through."""
    seen = fresh(vcpus=2)
    seen.announced(0, 8)
    seen.announced(1, 8)
    seen.work(30, 8)
    seen.work_sleeps(30)
    assert seen.settled
    seen.work_done(30)
    assert not seen.settled  # the other's is yet to begin
    seen.work(31, 8)
    seen.work_done(31)
    assert seen.settled
    seen.fault(0, 8)
    seen.fault(1, 8)
    seen.announced(0, 8)
    assert not seen.settled  # that was another work


def test_no_halt_is_waited_for_that_nobody_is_left_for() -> None:
    """One sleeps in a fault until a read ends, the other in a halt: there never are two halts."""
    seen = fresh("halted:2")
    seen.fault(0, 8)
    announce(seen, 0, 8)
    seen.sleeps(0, interruptible=True)
    assert seen.due(READ) == []
    seen.fault(1, 9)
    seen.sleeps(1)
    assert seen.due(READ) == [(0, ReadEnd.ANNOUNCED)] and not seen.met
    three = fresh("halted:2", vcpus=3)
    three.fault(1, 9)
    three.sleeps(1)
    assert three.due(READ) == []


def test_halted_counts_vcpus_that_wait_for_a_page_in_a_halt() -> None:
    seen = fresh("halted", vcpus=2)
    seen.sleeps(1, interruptible=True)  # idle, with nothing outstanding
    announce(seen, 0, 8)
    assert seen.due(READ) == []
    seen.sleeps(0, interruptible=True)
    assert seen.due(READ) == [(0, ReadEnd.ANNOUNCED)]


def test_announced() -> None:
    seen = fresh()
    seen.fault(0, 8)
    announce(seen, 0, 8)
    assert seen.due([*READ, frozenset({20})]) == [(0, ReadEnd.ANNOUNCED)]


def test_announced_and_the_worker_has_not_looked_yet() -> None:
    seen = fresh()
    seen.announced(0, 8)
    assert seen.due(READ) == []
    seen.work(40, 8)
    assert seen.due(READ) == []
    seen.work_sleeps(40)
    assert seen.due(READ) == [(0, ReadEnd.ANNOUNCED)]


def test_all_workers_of_a_read_must_sleep() -> None:
    seen = fresh()
    announce(seen, 0, 8)
    seen.announced(0, 9)
    assert seen.due(READ) == []
    announce(seen, 0, 9)
    assert seen.due(READ) == [(0, ReadEnd.ANNOUNCED)]


def test_what_was_announced_and_forgotten() -> None:
    """EN was cleared before the work began; then the page is touched again."""
    seen = fresh()
    announce(seen, 0, 8)
    seen.work_done(8)
    seen.fault(0, 8)
    assert seen.due(READ) == []


def test_asleep_on_the_page_of_its_fault_only() -> None:
    seen = fresh()
    seen.fault(0, 8)
    seen.sleeps(0)
    assert seen.due([frozenset({20}), *READ]) == [(1, ReadEnd.ASLEEP)]
    seen.wakes(0)
    assert seen.due(READ) == []


def test_asleep_for_another_reason_after_its_fault_was_announced() -> None:
    seen = fresh("np:2")
    seen.fault(0, 8)
    announce(seen, 0, 8)
    seen.sleeps(0)
    assert seen.due(READ) == []


def test_two_on_one_page() -> None:
    seen = fresh("np:2", vcpus=3)
    for vcpu in (0, 1):
        assert seen.due(READ) == []
        seen.fault(vcpu, 8)
        announce(seen, vcpu, 8)
    assert seen.due(READ) == [(0, ReadEnd.ANNOUNCED)]


def test_once_met_the_default_rule_holds() -> None:
    seen = fresh("repeated")
    seen.fault(0, 8)
    announce(seen, 0, 8)
    assert seen.due(READ) == []
    seen.fault(0, 8)
    seen.repeated(0)
    assert seen.due(READ) == [(0, ReadEnd.ANNOUNCED)]
    seen.ready(0, 8)
    seen.fault(0, 30)
    announce(seen, 0, 30)
    assert seen.due([frozenset({30})]) == [(0, ReadEnd.ANNOUNCED)]


@pytest.mark.parametrize("text", ["step", "after", "open"])
def test_words_that_no_fault_meets(text: str) -> None:
    seen = fresh(text)
    seen.fault(0, 8)
    seen.sleeps(0)
    announce(seen, 1, 8)
    assert seen.due(READ) == []


def test_a_vcpu_that_sleeps_on_a_worker_is_stuck_too() -> None:
    seen = fresh("step", vcpus=1)
    announce(seen, 0, 8)
    assert seen.due(READ) == []
    seen.sleeps(0)
    assert seen.due(READ) == [(0, ReadEnd.ANNOUNCED)]


@pytest.mark.parametrize("text", ["np:64", "repeated", "step"])
def test_a_vcpu_is_not_stuck_before_each_worker_has_come_to_its_page(text: str) -> None:
    """The reads of one that comes later would be held for something that its vCPU has gone past."""
    seen = fresh(text, vcpus=1)
    held = [frozenset({8}), frozenset({12}), frozenset({16})]
    announce(seen, 0, 8)
    seen.announced(0, 12)  # its kworker has not begun
    seen.fault(0, 16)
    seen.sleeps(0)
    assert seen.due(held) == []
    seen.work(12, 12)
    assert seen.due(held) == []
    seen.work_sleeps(12)
    assert [position for position, _ in seen.due(held)] == [0, 1, 2]


pages = st.integers(0, 5)
vcpu = st.integers(0, 2)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("fault"), vcpu, pages),
        st.tuples(st.just("announced"), vcpu, pages),
        st.tuples(st.just("ready"), vcpu, pages),
        st.tuples(st.just("repeated"), vcpu),
        st.tuples(st.just("sleeps"), vcpu),
        st.tuples(st.just("wakes"), vcpu),
        st.tuples(st.just("work"), pages, pages),
        st.tuples(st.just("work_sleeps"), pages),
        st.tuples(st.just("work_done"), pages),
    ),
    max_size=30,
)
rules = st.builds(Rule, st.sampled_from(COUNTED), st.integers(1, 3))
reads = st.lists(st.frozensets(pages, min_size=1), max_size=4)


def tell(seen: Seen, told: list[tuple[object, ...]]) -> None:
    for name, *args in told:
        getattr(seen, str(name))(*args)


@given(rules, steps, reads)
def test_only_reads_with_a_settled_fault_end(
    rule: Rule, told: list[tuple[object, ...]], held: list[frozenset[int]]
) -> None:
    seen = Seen(rule, 3)
    tell(seen, told)
    due = seen.due(held)
    settled = {page for _, page in (*seen.outstanding, *seen.faulted)}
    settled |= {seen.wanted[v] for v in seen.asleep if v in seen.wanted}
    for position, _ in due:
        assert held[position] & settled


def test_a_vcpu_that_faults_again_and_again_is_waited_for_at_any_moment() -> None:
    """An artificial halt that does not last: nobody knows in which part of the loop the server looks."""
    seen = fresh()
    announce(seen, 0, 8)
    for tell_more in (lambda: seen.fault(0, 8), lambda: seen.asks(0, 8), lambda: seen.repeated(0)):
        tell_more()
        assert seen.due(READ) == [(0, ReadEnd.ANNOUNCED)]


def test_who_faults_anew_waits_for_nobody_elses_worker() -> None:
    """vCPU 0's queue was cleared; the worker that sleeps is vCPU 1's."""
    seen = Seen(Rule(Release.NP, 2), 2)
    seen.announced(0, 8)
    announce(seen, 1, 8)
    seen.fault(0, 8)
    assert seen.due(READ) == []
    seen.announced(0, 8)
    seen.work(101, 8)
    seen.work_sleeps(101)
    assert seen.due(READ) == [(0, ReadEnd.ANNOUNCED)]


@given(rules, reads.filter(bool))
def test_no_read_stays_when_every_vcpu_sleeps_on_one(rule: Rule, held: list[frozenset[int]]) -> None:
    seen = Seen(rule, 3)
    for v in range(3):
        seen.fault(v, min(held[v % len(held)]))
        seen.sleeps(v)
    wanted = set(seen.wanted.values())
    assert [p for p, _ in seen.due(held)] == [p for p, pages in enumerate(held) if pages & wanted]


@given(rules, steps, steps, reads)
def test_what_was_met_stays_met(
    rule: Rule, before: list[tuple[object, ...]], after: list[tuple[object, ...]], held: list[frozenset[int]]
) -> None:
    seen = Seen(rule, 3)
    tell(seen, before)
    seen.due(held)
    met = seen.met
    tell(seen, after)
    seen.due(held)
    assert seen.met or not met


def test_a_reset_empties_the_queues_of_those_before_who_sleeps_in_it() -> None:
    """vCPU 0's work had not begun, and never will; vCPU 1 waits for the worker of its own, whose page comes with it."""
    seen = fresh()
    seen.announced(0, 8)
    announce(seen, 1, 9)
    assert seen.due(READ) == []
    seen.given_reset()
    assert seen.due(READ) == []  # vCPU 0 is not known to have been reset, and its worker may still begin
    seen.sleeps(1)
    assert seen.due(READ) == [(0, ReadEnd.ANNOUNCED)]


def test_who_sleeps_when_a_reset_is_told_waits_in_it() -> None:
    seen = fresh()
    seen.announced(0, 8)
    announce(seen, 1, 9)
    seen.sleeps(1)
    assert seen.due(READ) == []
    seen.given_reset()
    assert seen.due(READ) == [(0, ReadEnd.ANNOUNCED)]


def test_who_sleeps_in_a_reset_is_in_no_fault_whatever_it_touched_last() -> None:
    """A fault that finds its page there is told when it begins, and not when it ends."""
    seen = fresh()
    seen.announced(0, 8)
    announce(seen, 1, 9)
    seen.fault(1, 7)
    seen.given_reset()
    assert seen.due(READ) == []
    seen.sleeps(1)
    assert seen.due(READ) == [(0, ReadEnd.ANNOUNCED)]


def test_the_boot_cpu_that_is_given_no_init_begins_anew_when_it_enables() -> None:
    seen = fresh()
    seen.announced(0, 8)
    seen.given_reset()
    seen.enabled(0)
    seen.asks(0, 9)
    seen.sleeps(0)
    assert seen.due(READ) == [(0, ReadEnd.ASLEEP)]
    seen.announced(0, 9)
    seen.enabled(0)  # once more, in the same life
    assert seen.announced_pages == {9}


def test_nothing_is_outstanding_behind_a_load() -> None:
    seen = fresh()
    seen.announced(0, 8)
    seen.announced(1, 9)
    seen.loaded()
    assert not seen.announced_pages and seen.settled
    seen.announced(1, 9)
    seen.enabled(1)
    assert seen.announced_pages == {9}


def test_what_stands_before_the_work_that_an_emptied_queue_waits_for_was_cancelled() -> None:
    """The vCPU empties its queue from the head: a work that had not begun is gone, the next one runs."""
    seen = fresh()
    seen.announced(1, 8)
    announce(seen, 1, 9)
    assert seen.due(READ) == [] and not seen.settled
    seen.sleeps(1)
    assert seen.due(READ) == [(0, ReadEnd.ANNOUNCED)] and seen.settled


def test_what_stands_behind_it_may_still_begin() -> None:
    seen = fresh()
    announce(seen, 1, 8)
    seen.announced(1, 9)
    seen.sleeps(1)
    assert seen.due(READ) == []
    seen.work(9, 9)
    seen.work_sleeps(9)
    assert seen.due(READ) == [(0, ReadEnd.ANNOUNCED)]


def test_who_sleeps_for_a_page_of_its_own_empties_no_queue() -> None:
    seen = fresh()
    seen.announced(1, 8)
    announce(seen, 1, 9)
    seen.asks(1, 7)
    seen.sleeps(1)
    assert seen.due(READ) == []


def test_a_work_that_had_not_begun_when_cr0_was_written_holds_nothing_up() -> None:
    """Another vCPU wants one of the two pages anew; nobody asks for the other one, whose work was cancelled."""
    seen = fresh()
    seen.announced(1, 8)
    seen.announced(1, 9)
    announce(seen, 0, 9)
    assert seen.due(READ) == [] and not seen.settled
    seen.cr0_written(1)
    assert seen.due(READ) == [(0, ReadEnd.ANNOUNCED)] and seen.settled


def test_a_work_that_begins_behind_a_write_of_cr0_counts() -> None:
    """A kernel that leaves its queue alone when CR0.PG changes."""
    seen = fresh()
    seen.announced(1, 9)
    seen.cr0_written(1)
    assert seen.due(READ) == []
    seen.work(9, 9)
    assert not seen.settled and seen.due(READ) == []
    seen.work_sleeps(9)
    assert seen.settled and seen.due(READ) == [(0, ReadEnd.ANNOUNCED)]


@pytest.mark.parametrize("again", ["announced", "repeated"])
def test_what_is_found_to_be_out_behind_a_write_of_cr0_is_waited_for(again: str) -> None:
    seen = fresh()
    seen.announced(1, 9)
    seen.cr0_written(1)
    seen.fault(1, 9)
    seen.announced(1, 9) if again == "announced" else seen.repeated(1)
    assert not seen.settled
    seen.work(9, 9)
    seen.work_sleeps(9)
    assert seen.settled


def test_cr0_of_one_vcpu_is_nothing_to_another() -> None:
    seen = fresh()
    seen.announced(1, 9)
    seen.cr0_written(0)
    assert not seen.settled
