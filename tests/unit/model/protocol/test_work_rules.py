# SPDX-License-Identifier: GPL-2.0-or-later
"""DONE events without token and vCPU: which work they may belong to, and how much of that is remembered."""

from __future__ import annotations

from harness.model.events import Event, Kind
from harness.model.kernels import find_kernel
from harness.model.protocol.checker import Checker, Obligation
from harness.model.protocol.work_rules import Ledger, SeenWork
from tests.unit.model.protocol_notation import feed_all, run, trace_of

STANDARD = find_kernel("nowait-6.1")


def done(gpa: int, seq: int = 1) -> tuple[Event, int]:
    return Event(Kind.DONE, gpa=gpa, worker=True), seq


def work(gpa: int = 0x1000, vcpu: int = 0) -> SeenWork:
    return SeenWork(0x1000 | vcpu, gpa, vcpu, Event(Kind.NP, vcpu, token=0x1000 | vcpu, gpa=gpa))


def left(ledger: Ledger, live: set[int] | None = None) -> list[str]:
    return [item.rule for item in ledger.finish(live or set())]


def test_each_work_needs_a_done_of_its_address():
    ledger = Ledger()
    for vcpu in (0, 1):
        ledger.not_present(work(vcpu=vcpu))
    assert ledger.done(*done(0x1000)) == []
    assert left(ledger) == ["D12"]
    assert ledger.done(*done(0x1000)) == []
    assert left(ledger) == []
    assert ledger.done(*done(0x1000)) == []  # it may still be one that came early
    assert left(ledger) == ["D12"]


def test_a_live_work_may_still_wait_for_its_done():
    ledger = Ledger()
    live = work()
    ledger.not_present(live)
    assert left(ledger, {id(live)}) == []


def test_a_surplus_done_is_told_when_the_next_one_comes():
    ledger = Ledger()
    ledger.done(*done(0x1000))
    assert [v.rule for v in ledger.done(*done(0x1000))] == ["D12"]


def test_a_surplus_done_is_no_early_one_when_the_next_work_has_its_own():
    ledger = Ledger()
    ledger.done(*done(0x1000))
    ledger.not_present(work())
    assert [v.rule for v in ledger.done(*done(0x1000))] == ["D12"]
    assert left(ledger) == []


def test_an_early_done_without_entry_is_told_at_the_end():
    ledger = Ledger()
    ledger.done(*done(0x1000))
    live = work()
    ledger.not_present(live)
    assert left(ledger, {id(live)}) == ["D12"]


def test_only_so_many_early_dones_are_kept():
    ledger = Ledger()
    found = [v for n in range(300) for v in ledger.done(*done(n << 12))]
    assert [v.rule for v in found] == ["D12"] * (300 - 256)


def test_a_cancelled_work_may_have_been_done_or_not():
    """Two vCPUs wait for the page, one is cleared: the one DONE before that may be either's."""
    for more in (0, 1):
        ledger, first, second = Ledger(), work(), work(vcpu=1)
        ledger.not_present(first)
        ledger.not_present(second)
        ledger.done(*done(0x1000))
        ledger.cancel(first, None, done_may_follow=False)
        for _ in range(more):
            assert ledger.done(*done(0x1000)) == []
        assert ledger.settle(second, Event(Kind.ENTRY), Event(Kind.RDY), flushed=True) is None
        assert left(ledger) == []


def test_a_done_that_may_be_of_a_cancelled_work_is_not_taken_for_another_s():
    """A vCPU that is plugged empties its queue: its worker was still at the page that another vCPU waits for, too."""
    ledger, cancelled, other = Ledger(), work(), work(vcpu=1)
    ledger.not_present(cancelled)
    ledger.not_present(other)
    ledger.cancel(cancelled, None, done_may_follow=True)
    ledger.done(*done(0x1000))
    assert (other.done_seq, other.completed) == (0, False)
    ledger.done(*done(0x1000, seq=2))
    assert other.completed
    assert left(ledger) == []


def test_after_a_reset_a_done_may_follow_but_only_one():
    ledger, cancelled = Ledger(), work()
    ledger.not_present(cancelled)
    ledger.cancel(cancelled, None, done_may_follow=True)
    assert ledger.done(*done(0x1000)) == []
    assert left(ledger) == []
    ledger.done(*done(0x1000))
    assert left(ledger) == ["D12"]


def test_after_a_disabling_write_no_done_may_follow():
    ledger, cancelled = Ledger(), work()
    ledger.not_present(cancelled)
    ledger.cancel(cancelled, Event(Kind.WRMSR), done_may_follow=False)
    assert [v.rule for v in ledger.done(*done(0x1000))] == ["D27"]


def test_what_may_follow_is_forgotten_in_the_end():
    ledger = Ledger()
    for n in range(400):
        cancelled = work(n << 12)
        ledger.not_present(cancelled)
        ledger.cancel(cancelled, None, done_may_follow=True)
    assert [v.rule for n in (0, 399) for v in ledger.done(*done(n << 12))] == []
    assert left(ledger) == ["D12"]  # that of the first is forgotten, the last one's is not


def test_two_vcpus_one_disabled():
    text = "ENTRY/0 ENTRY/1 EXIT/0 TRY/0:0 NP/0:1@0 SLEEP/0 IN/0 EXIT/1 TRY/1:0 NP/1:1@0 SLEEP/1 IN/1 VIRQ/0 ENTRY/0 "
    text += "EXIT/0 DONE:0 WRMSR/0:EN=0 ENTRY/0 "
    assert run(text + "RDY/1:1@0 ENTRY/1", {}, STANDARD) == (set(), set())
    assert run(text + "DONE:0 RDY/1:1@0 ENTRY/1", {}, STANDARD) == (set(), set())
    assert run(text + "DONE:0 DONE:0 RDY/1:1@0 ENTRY/1", {}, STANDARD) == ({"D12"}, set())


def test_the_hva_of_a_done_finds_the_page_of_an_invalidation():
    """A long invalidation is compared page by page, a short one looked up; both end the D29 obligation."""
    for pages in (1, 200):
        checker = Checker(STANDARD, 1, int_vec=0xF3, en=9, first_id=1)
        events = trace_of("ENTRY EXIT TRY:3 NP:1@3 INJ ENTRY EXIT DONE:3 RDY:1@3 ACC ENTRY UNMAP:3 EXIT PF:3 ENTRY")
        unmap = next(e for e in events if e.kind is Kind.UNMAP)
        unmap.data = unmap.hva + 4096 * pages
        assert list(feed_all(checker, events)) == []
        assert [i for i in checker.finish() if not isinstance(i, Obligation)] == []
