# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests, trace lines and words in, answers out."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.agent.gate.keeper import LATE_SECONDS, Keeper, Orders
from harness.agent.gate.watch import Sight, What
from harness.contract.gate import parse_rule
from harness.contract.probe_abi import MOVED_GPA
from harness.contract.words import ReadEnd, ReadOrder

V, W = 812, 40
PAGE = 4096
RAM = 0x7F0000000000


def armed(rule: str = "np", order: ReadOrder = ReadOrder.TARGET_LAST, errors: frozenset[int] = frozenset()) -> Keeper:
    """One vCPU; page 100 + n of the guest at sector 8 * n."""
    keeper = Keeper()
    pages = {8 * n: 100 + n for n in range(1, 20)}
    keeper.arm(Orders(parse_rule(rule), order, (V,), pages, errors, ram_hva=RAM))
    return keeper


def announce(keeper: Keeper, page: int, tid: int = W) -> None:
    """KVM announces the fault; its worker asks for the page and falls asleep."""
    keeper.see(Sight(What.ANNOUNCED, V, 1.0, page=page))
    keeper.see(Sight(What.WORK, tid, 1.0, address=RAM + page * PAGE + 8))
    keeper.see(Sight(What.OUT, tid, 1.0))


def read(keeper: Keeper, *numbers: int, tid: int = V, at: float = 1.0) -> None:
    """Bios of pages 100 + n, then their requests; the handle is n."""
    for n in numbers:
        keeper.see(Sight(What.READ, tid, at, sector=8 * n))
    for n in numbers:
        keeper.request(n, n * PAGE, PAGE, at)


def handles(keeper: Keeper, now: float = 1.1) -> list[int]:
    return [a.handle for a in keeper.answers(now)]


def test_unarmed_answers_at_once_and_logs_nothing() -> None:
    keeper = Keeper()
    keeper.request(1, 0, PAGE, 0.0)
    assert handles(keeper) == [1]
    assert keeper.log == []


def test_what_kvm_itself_asks_for_ends_when_its_thread_sleeps() -> None:
    """The shared area, say: no page fault of the guest, and one that was is long over."""
    keeper = armed()
    keeper.see(Sight(What.FAULT, V, 0.8, page=119))
    keeper.see(Sight(What.WORK, V, 0.9, address=RAM + 102 * PAGE + 16))
    read(keeper, 2)
    assert handles(keeper) == []
    keeper.see(Sight(What.OUT, V, 1.0))
    assert handles(keeper) == [2]
    assert [e.why for e in keeper.log] == [ReadEnd.ASLEEP]


@pytest.mark.parametrize("rule", ["np", "asleep", "step"])
def test_what_qemu_reads_for_a_snapshot_waits_for_no_fault_of_the_guest(rule: str) -> None:
    """migration/ram.c reads each page in a thread that is no vCPU's; a page that a fault waits for ends by its rule."""
    keeper = armed(rule)
    keeper.see(Sight(What.FAULT, V, 0.9, page=105))
    read(keeper, 5)
    keeper.see(Sight(What.ANNOUNCED, V, 1.0, page=105))
    read(keeper, 1, 2, tid=77)
    assert handles(keeper) == [], "nobody has said that a snapshot is taken"
    keeper.save(True)
    keeper.freeze(True)
    assert handles(keeper) == []
    keeper.freeze(False)
    assert handles(keeper) == ([] if rule == "step" else [1, 2])
    keeper.let_go()
    assert handles(keeper) == ([1, 2] if rule == "step" else [])
    assert [e.why for e in keeper.log] == [ReadEnd.SAVED, ReadEnd.SAVED]
    keeper.save(False)
    announce(keeper, 105)
    assert handles(keeper) == [5]


def test_read_ahead_ends_with_its_target() -> None:
    keeper = armed()
    keeper.see(Sight(What.FAULT, V, 0.9, page=102))
    read(keeper, 1, 2, 3)
    assert handles(keeper) == []
    announce(keeper, 102)
    assert handles(keeper) == [1, 3, 2]  # its target last
    assert {e.why for e in keeper.log} == {ReadEnd.ANNOUNCED}


def test_nothing_ends_before_all_that_was_queued_with_it_has_come() -> None:
    keeper = armed()
    keeper.see(Sight(What.FAULT, V, 0.9, page=101))
    for n in (1, 2):
        keeper.see(Sight(What.READ, V, 1.0, sector=8 * n))
    announce(keeper, 101)
    keeper.request(1, PAGE, PAGE, 1.0)
    assert handles(keeper) == []
    keeper.request(2, 2 * PAGE, PAGE, 1.2)
    assert handles(keeper) == [2, 1]


def test_what_was_queued_later_ends_with_it() -> None:
    keeper = armed()
    keeper.see(Sight(What.FAULT, V, 0.9, page=101))
    announce(keeper, 101)
    read(keeper, 1, tid=W)
    assert handles(keeper) == [1]
    keeper.see(Sight(What.READY, V, 1.1, page=101))
    read(keeper, 2, tid=W)
    assert handles(keeper) == [2]


def test_a_worker_that_has_not_looked_yet() -> None:
    keeper = armed()
    keeper.see(Sight(What.FAULT, V, 0.9, page=101))
    read(keeper, 1)
    keeper.see(Sight(What.ANNOUNCED, V, 1.0, page=101))
    keeper.see(Sight(What.OUT, W, 1.0))  # for a reason of its own
    assert handles(keeper) == []
    keeper.see(Sight(What.WORK, W, 1.0, address=RAM + 101 * PAGE))
    assert handles(keeper) == []
    keeper.see(Sight(What.OUT, W, 1.0))
    assert handles(keeper) == [1]


def test_a_work_that_is_cancelled_before_it_has_begun_holds_no_window() -> None:
    """EN is written 0, which tells nobody of it; its page is not asked for again before its neighbour has come."""
    keeper = armed()
    keeper.see(Sight(What.FAULT, V, 0.9, page=101))
    for n in (1, 2):
        keeper.see(Sight(What.READ, V, 1.0, sector=8 * n))
    keeper.see(Sight(What.ANNOUNCED, V, 1.0, page=101))
    keeper.see(Sight(What.FAULT, V, 1.1, page=102))
    keeper.see(Sight(What.ANNOUNCED, V, 1.1, page=102))
    for n in (1, 2):
        keeper.request(n, n * PAGE, PAGE, 1.2)
    keeper.see(Sight(What.DISABLED, V, 1.3))
    assert handles(keeper) == []
    keeper.see(Sight(What.FAULT, V, 1.4, page=101))
    announce(keeper, 101)
    assert sorted(handles(keeper)) == [1, 2]


def test_a_work_that_a_write_of_cr0_may_have_cancelled_holds_up_no_other_vcpu() -> None:
    """arch/x86/kvm/x86.c:kvm_set_cr0 of 5.10; its page is in the window that the other one's work sleeps on."""
    keeper = armed()
    keeper.see(Sight(What.FAULT, V, 0.9, page=101))
    for n in (1, 2):
        keeper.see(Sight(What.READ, V, 1.0, sector=8 * n))
    for at, page in ((1.0, 101), (1.1, 102)):
        keeper.see(Sight(What.FAULT, V, at, page=page))
        keeper.see(Sight(What.ANNOUNCED, V, at, page=page))
    for n in (1, 2):
        keeper.request(n, n * PAGE, PAGE, 1.2)
    keeper.see(Sight(What.WORK, 99, 1.3, address=RAM + 101 * PAGE))
    keeper.see(Sight(What.OUT, 99, 1.3))
    assert handles(keeper) == []
    keeper.see(Sight(What.CR0, V, 1.4))
    assert sorted(handles(keeper)) == [1, 2]


def test_what_an_init_has_dropped_is_waited_for_no_more() -> None:
    """virt/kvm/async_pf.c:kvm_clear_async_pf_completion_queue cancels a work that has not begun: no worker ever sleeps
    for it.  That the INIT is over the vCPU's next write of EN says; the one before it may be of its old life."""
    keeper = armed("np:1")
    keeper.arm(replace(keeper.orders, apic_ids=(5,)))
    keeper.see(Sight(What.FAULT, V, 0.9, page=101))
    read(keeper, 1)
    keeper.see(Sight(What.ANNOUNCED, V, 1.0, page=101))
    keeper.see(Sight(What.ENABLED, V, 1.0))
    assert handles(keeper) == [] and not keeper.settled
    keeper.see(Sight(What.INIT, 99, 1.1, apic=4))
    keeper.see(Sight(What.ENABLED, V, 1.1))
    assert not keeper.settled, "another's INIT"
    keeper.see(Sight(What.INIT, 99, 1.2, apic=5))
    assert not keeper.settled, "it may not have been served"
    keeper.see(Sight(What.ENABLED, V, 1.3))
    assert keeper.settled


def test_pages_that_an_l2_has_elsewhere_are_known_by_their_own_numbers() -> None:
    """KVM traces the address that the L2 has of the page; the worker's call of handle_mm_fault has QEMU's."""
    moved = MOVED_GPA // PAGE
    for knows, answered in ((True, [1]), (False, [])):
        keeper = armed()
        keeper.arm(replace(keeper.orders, moved=knows))
        keeper.see(Sight(What.FAULT, V, 0.9, page=moved + 101))
        read(keeper, 1)
        keeper.see(Sight(What.ANNOUNCED, V, 1.0, page=moved + 101))
        keeper.see(Sight(What.WORK, W, 1.0, address=RAM + 101 * PAGE))
        keeper.see(Sight(What.OUT, W, 1.0))
        assert handles(keeper) == answered
    keeper.arm(replace(keeper.orders, moved=True))
    announce(keeper, 101)
    keeper.see(Sight(What.READY, V, 1.2, page=moved + 101))
    assert keeper.settled


def test_without_probes_announced_is_enough() -> None:
    keeper = armed()
    keeper.arm(replace(keeper.orders, ram_hva=-1))
    keeper.see(Sight(What.FAULT, V, 0.9, page=101))
    read(keeper, 1)
    keeper.see(Sight(What.ANNOUNCED, V, 1.0, page=101))
    assert handles(keeper) == [1]


def test_the_read_of_the_next_fault_stays() -> None:
    keeper = armed()
    keeper.see(Sight(What.FAULT, V, 0.9, page=101))
    read(keeper, 1)
    announce(keeper, 101)
    keeper.see(Sight(What.FAULT, V, 1.0, page=105))
    read(keeper, 5)
    assert handles(keeper) == [1]


def test_a_worker_reads_for_a_fault_that_was_announced() -> None:
    keeper = armed()
    keeper.see(Sight(What.FAULT, V, 0.9, page=101))
    announce(keeper, 101)
    read(keeper, 1, 2, tid=W)
    assert handles(keeper) == [2, 1]
    keeper.see(Sight(What.COMPLETED, W, 1.1))
    read(keeper, 3, tid=W)
    assert handles(keeper) == []


def test_pages_whose_place_on_the_device_is_not_known() -> None:
    """Shmem: sectors 8 * 30 and up are in no table."""
    keeper = armed()
    keeper.see(Sight(What.FAULT, V, 0.9, page=7))
    read(keeper, 30)
    assert handles(keeper) == []
    keeper.see(Sight(What.OUT, V, 1.0))
    assert handles(keeper) == [30]
    keeper.see(Sight(What.FAULT, V, 1.0, page=9))
    announce(keeper, 9)
    keeper.see(Sight(What.READ, W, 1.0, sector=8 * 31, worker=True))
    keeper.request(31, 31 * PAGE, PAGE, 1.0)
    assert handles(keeper) == [31]
    assert [e.why for e in keeper.log] == [ReadEnd.ASLEEP, ReadEnd.ANNOUNCED]


def test_asleep_on_a_worker_that_waits_for_the_read() -> None:
    """flush_work when EN is cleared: the vCPU thread sleeps, and its fault was announced long ago."""
    keeper = armed("asleep")
    keeper.see(Sight(What.FAULT, V, 0.9, page=101))
    read(keeper, 1)
    announce(keeper, 101)
    assert handles(keeper) == []
    keeper.see(Sight(What.OUT, V, 1.0))
    assert handles(keeper) == [1]


def test_asleep_and_a_switch_that_comes_out_of_order() -> None:
    keeper = armed()
    keeper.see(Sight(What.FAULT, V, 0.9, page=101))
    read(keeper, 1)
    keeper.see(Sight(What.WOKEN, V, 1.2))
    keeper.see(Sight(What.OUT, V, 1.1))
    assert handles(keeper) == []
    keeper.see(Sight(What.OUT, V, 1.3))
    assert handles(keeper) == [1]
    assert keeper.log[0].why is ReadEnd.ASLEEP


def test_words() -> None:
    keeper = armed("step")
    keeper.see(Sight(What.FAULT, V, 0.9, page=101))
    read(keeper, 1)
    announce(keeper, 101)
    assert handles(keeper, 1000.0) == []
    keeper.let_go()
    assert handles(keeper) == [1]
    read(keeper, 2, tid=W)
    assert handles(keeper) == []
    keeper.open()
    assert handles(keeper) == [2]


def test_frozen_holds_what_the_rule_would_let_go() -> None:
    keeper = armed()
    keeper.freeze(True)
    keeper.see(Sight(What.FAULT, V, 0.9, page=101))
    read(keeper, 1, 30)
    announce(keeper, 101)
    assert handles(keeper, 100.0) == []
    keeper.freeze(False)
    assert sorted(handles(keeper)) == [1, 30]


def test_after_its_time() -> None:
    keeper = armed("after")
    keeper.orders = replace(keeper.orders, after_s=0.3)
    read(keeper, 1, at=1.0)
    assert handles(keeper, 1.2) == []
    assert handles(keeper, 1.31) == [1]
    assert keeper.log[0].why is ReadEnd.AFTER


def test_the_last_resort_is_told() -> None:
    keeper = armed()
    read(keeper, 1, at=1.0)
    assert handles(keeper, 0.9 + LATE_SECONDS) == []
    assert handles(keeper, 1.0 + LATE_SECONDS) == [1]
    assert [e.why for e in keeper.log] == [ReadEnd.LATE]


def test_errors_and_reverse_order() -> None:
    keeper = armed(order=ReadOrder.REVERSE, errors=frozenset({102}))
    keeper.see(Sight(What.FAULT, V, 0.9, page=101))
    read(keeper, 1, 2, 3)
    announce(keeper, 101)
    answers = keeper.answers(1.1)
    assert [(a.handle, a.error) for a in answers] == [(3, 0), (2, errno.EIO), (1, 0)]
    assert [e.error for e in keeper.log] == [0, errno.EIO, 0]


@given(st.lists(st.tuples(st.integers(1, 19), st.booleans()), max_size=20, unique_by=lambda t: t[0]))
def test_every_read_is_answered_once_and_logged(numbers: list[tuple[int, bool]]) -> None:
    keeper = armed()
    answered: list[int] = []
    for n, announced in numbers:
        keeper.see(Sight(What.FAULT, V, 1.0, page=100 + n))
        read(keeper, n)
        if announced:
            announce(keeper, 100 + n)
        answered += handles(keeper)
    assert answered == [n for n, announced in numbers if announced]
    answered += handles(keeper, 1.0 + LATE_SECONDS)
    assert sorted(answered) == sorted(n for n, _ in numbers)
    assert len(keeper.log) == len(numbers) and keeper.held == []


def test_a_vcpu_in_a_new_thread_waits_for_nothing_of_the_old_one() -> None:
    """What was outstanding is forgotten with the old thread, and the new one's reads end like any other's."""
    keeper = armed()
    read(keeper, 1)
    announce(keeper, 101)
    assert handles(keeper, 5.0) == [1]
    keeper.see(Sight(What.DOZE, V, 2.0))
    assert keeper.halted == 1
    keeper.new_thread(0, 900)
    assert keeper.halted == 0 and keeper.settled
    keeper.see(Sight(What.DOZE, V, 3.0))
    assert keeper.halted == 0, "the old thread is nobody's"
    read(keeper, 2, tid=900, at=4.0)
    assert handles(keeper, 5.0) == []
    keeper.see(Sight(What.ANNOUNCED, 900, 4.0, page=102))
    keeper.see(Sight(What.WORK, W, 4.0, address=RAM + 102 * PAGE))
    keeper.see(Sight(What.OUT, W, 4.0))
    assert handles(keeper, 5.0) == [2]


@pytest.mark.parametrize("word", ["reset", "loaded"])
def test_what_was_outstanding_before_a_reset_or_a_load_holds_nothing(word: str) -> None:
    """Its work had not begun, and was cancelled, which no trace tells of the VMM's own writes of EN."""
    keeper = armed()
    keeper.see(Sight(What.ANNOUNCED, V, 1.0, page=101))
    assert not keeper.settled
    keeper.reset(1.5) if word == "reset" else keeper.loaded()
    keeper.see(Sight(What.ENABLED, V, 2.0))
    assert keeper.settled


@pytest.mark.parametrize("told", [2, 5, 6], ids=["at once", "in its first fault", "asleep"])
def test_a_reset_is_told_when_the_vcpu_waits_for_a_page_in_its_next_life(told: int) -> None:
    """Seen on a busy machine (6.1, a triple fault): QEMU's event was read 90 ms behind the reset, and 52 ms behind the
    page fault; the fault was forgotten with those of before, and the read held for 20 s."""
    keeper = armed()
    sights = [
        Sight(What.ANNOUNCED, V, 1.0, page=101),  # its work never begins
        Sight(What.FAULT, V, 1.1, page=103),
        Sight(What.ENABLED, V, 2.0),
        Sight(What.FAULT, V, 2.1, page=102),
        Sight(What.READ, V, 2.2, sector=16),
        Sight(What.OUT, V, 2.3),
    ]
    for number, sight in enumerate(sights, 1):
        keeper.see(sight)
        if sight.what is What.READ:
            keeper.request(2, 2 * PAGE, PAGE, 2.2)
        if number == told:
            keeper.reset(1.5)
    assert keeper.settled
    assert handles(keeper, 2.4) == [2]


def test_what_kvm_itself_asks_for_ends_although_a_signal_has_woken_its_thread() -> None:
    """No signal takes it out of copy_from_user: it asks again and again (S443)."""
    keeper = armed("step")
    keeper.see(Sight(What.WORK, V, 1.0, address=RAM + 101 * PAGE))
    read(keeper, 1)
    keeper.see(Sight(What.DOZE, V, 1.1))
    keeper.see(Sight(What.WOKEN, V, 1.2))
    keeper.let_go()
    assert handles(keeper) == [1]


def test_whom_a_signal_takes_out_of_a_page_fault_waits_for_nothing() -> None:
    """FOLL_INTERRUPTIBLE: it is back in the VMM."""
    keeper = armed("step")
    keeper.see(Sight(What.FAULT, V, 1.0, page=101))
    keeper.see(Sight(What.WORK, V, 1.0, address=RAM + 101 * PAGE))
    read(keeper, 1)
    keeper.see(Sight(What.DOZE, V, 1.1))
    keeper.see(Sight(What.WOKEN, V, 1.2))
    keeper.let_go()
    assert handles(keeper) == []


def test_who_does_something_does_not_sleep() -> None:
    """Preempted with a signal pending it was traced as one that falls asleep, and nobody has woken it since."""
    keeper = armed()
    keeper.see(Sight(What.DOZE, V, 1.0))
    keeper.see(Sight(What.FAULT, V, 1.1, page=101))
    read(keeper, 1)
    assert handles(keeper) == []
    keeper.see(Sight(What.OUT, V, 1.2))
    keeper.see(Sight(What.FAULT, V, 1.1, page=101))  # of another CPU's buffer: it was before
    assert handles(keeper) == [1]
