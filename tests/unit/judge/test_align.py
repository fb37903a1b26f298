# SPDX-License-Identifier: GPL-2.0-or-later
"""Episodes find their items by order, page and token."""

from __future__ import annotations

from dataclasses import replace

from harness.contract.plan import (
    POOL_GPA,
    Access,
    Apf,
    By,
    Guest,
    HostAction,
    Item,
    Memory,
    Op,
    Plan,
    Swap,
    TimedAction,
)
from harness.contract.probe_abi import SHARED_GPA, Record
from harness.contract.words import HostWord
from harness.evidence.agreement import times_of_writes
from harness.evidence.guestlog import GuestLog, GuestRecord
from harness.evidence.resets import Boot
from harness.judge.align import Alignment, align, host_waits
from harness.judge.episodes import split
from harness.model.events import MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT, Event, Kind
from harness.model.simulation.recorded import RecordedAction

A, B = POOL_GPA, POOL_GPA + 4096
RECLAIM = HostAction(HostWord.RECLAIM, A)


def plan(*gpas: int) -> Plan:
    items = tuple(Item(i, Op.TOUCH, gpa=g) if g else Item(i, Op.PAUSE) for i, g in enumerate(gpas))
    return Plan("s", "t", 1, Guest(), Memory(), Swap(), (), items)


def log(*entries: tuple[Record, int, int]) -> GuestLog:
    return GuestLog(1, 4, True, 0, (tuple(GuestRecord(kind, 0, 0, item, a, 1) for kind, item, a in entries),))


def fault(gpa: int, token: int = 0) -> list[Event]:
    inside = [Event(Kind.NP, 0, token=token, gpa=gpa), Event(Kind.INJ, 0)] if token else [Event(Kind.REP, 0, gpa=gpa)]
    return [Event(Kind.PF, 0, gpa=gpa), *inside, Event(Kind.ENTRY, 0)]


def run(p: Plan, g: GuestLog, *faults: list[Event]) -> Alignment:
    return align(p, g, split([e for f in faults for e in f]))


def test_the_same_page_twice_goes_to_the_item_whose_token_it_was() -> None:
    found = run(
        plan(A, A),
        log((Record.START, 0, A), (Record.TOKEN, 0, 0x1000), (Record.START, 1, A), (Record.END, 1, 0),
            (Record.WAKE, 0, 0x1000), (Record.END, 0, 0)),
        fault(A, 0x1000), fault(A), fault(A),
    )  # fmt: skip
    assert [len(i.episodes) for i in found.items] == [1, 2]
    assert all(i.started and i.ended for i in found.items)
    assert found.items[0].tokens == [0x1000] and not found.strangers


def test_a_write_right_after_a_read_of_the_page_has_the_fault_with_the_w_bit() -> None:
    """The read was synchronous and left the page read-only: both touches fault, and no token tells them apart."""
    reads, writes = Item(0, Op.TOUCH, gpa=A), Item(1, Op.TOUCH, gpa=A, access=Access.WRITE)
    both = Plan("s", "t", 1, Guest(), Memory(), Swap(), (), (reads, writes))
    write_fault = [Event(Kind.PF, 0, gpa=A + 8, value=0x7), Event(Kind.ENTRY, 0)]
    read_fault = [Event(Kind.PF, 0, gpa=A, value=0x4), Event(Kind.ENTRY, 0)]
    entries = log((Record.START, 0, A), (Record.END, 0, 0), (Record.START, 1, A), (Record.END, 1, 0))
    found = run(both, entries, read_fault, write_fault)
    assert [[e.gpa for e in i.episodes] for i in found.items] == [[A], [A + 8]]
    only = run(both, entries, write_fault)
    assert [len(i.episodes) for i in only.items] == [0, 1]


def test_a_page_that_no_running_item_touches_is_a_stranger_and_own_pages_are_apart() -> None:
    found = run(plan(A), log((Record.START, 0, A), (Record.END, 0, 0)), fault(B), fault(0x800000), fault(A))
    assert [e.gpa for e in found.strangers] == [B]
    assert [e.gpa for e in found.own] == [0x800000]
    assert len(found.items[0].episodes) == 1


def test_an_item_that_never_faulted_keeps_its_end_and_value() -> None:
    found = run(
        plan(A, 0, B), log((Record.START, 0, A), (Record.END, 0, 7), (Record.START, 2, B), (Record.END, 2, 9)), fault(B)
    )
    assert found.items[0].value == 7 and not found.items[0].episodes
    assert not found.items[1].started
    assert found.items[2].value == 9 and len(found.items[2].episodes) == 1


def test_contradictions_in_the_guest_log_are_named() -> None:
    found = run(
        plan(A),
        log((Record.START, 0, A), (Record.START, 0, A), (Record.END, 0, 0), (Record.END, 0, 0), (Record.TOKEN, 5, 1)),
    )
    text = "\n".join(found.problems)
    assert "starts twice" in text and "ends twice" in text and "names item 5" in text


def test_a_wait_that_a_reset_cut_off_starts_again() -> None:
    """sched.c:run_program: it had not ended, so that the program goes on with it; what was performed starts once."""
    p = Plan("s", "t", 1, Guest(), Memory(), Swap(), (), (Item(0, Op.WAIT), Item(1, Op.TOUCH, gpa=A)))
    begun, boot = (Record.START, 0, 0), (Record.BOOT, -1, 0)
    rest = ((Record.END, 0, 0), (Record.START, 1, A))
    assert run(p, log(boot, begun, boot, begun, *rest)).problems == ()
    assert run(p, log(boot, begun, begun, *rest)).problems == ("guest log: item 0 starts twice",)
    again = run(p, log(boot, begun, *rest, boot, (Record.START, 1, A)))
    assert again.problems == ("guest log: item 1 starts twice",)


def test_a_set_up_that_got_a_general_protection_fault_is_no_contradiction() -> None:
    entries = tuple(GuestRecord(Record.END, 0, 0, -1, 0x801009, b) for b in (13, 0))
    found = align(plan(A), GuestLog(1, 4, True, 0, (entries,)), [])
    assert found.problems == ("guest log: END names item -1, the plan has 1",)


def test_a_fault_after_the_agent_acted_is_not_of_what_ran_before() -> None:
    """Three accesses to one page; between the last two the guest waits for the agent, which takes the page away."""
    touch, again = Item(0, Op.TOUCH, gpa=A), Item(1, Op.TOUCH, gpa=A)
    waits = Item(2, Op.HOST)
    p = Plan("s", "t", 1, Guest(), Memory(), Swap(), (), (touch, again, waits, Item(3, Op.TOUCH, gpa=A)), ((RECLAIM,),))
    g = log(*((kind, n, 0) for n in range(4) for kind in (Record.START, Record.END)))
    first, second = [Event(Kind.PF, 0, 10, gpa=A), Event(Kind.ENTRY, 0)], [Event(Kind.PF, 0, 90, gpa=A)]
    acted = RecordedAction("reclaim", A, 40, 60)
    found = align(p, g, split([*first, *second]), (), host_waits(p, [acted]))
    assert [[e.start.t_ns for e in i.episodes] for i in found.items] == [[10], [], [], [90]]
    assert [[e.start.t_ns for e in i.episodes] for i in run(p, g, first, second).items] == [[10, 90], [], [], []]
    timed = replace(p, timed=(TimedAction(1, (RECLAIM,)),))
    assert host_waits(timed, [acted]) == {}, "whose action is it?"
    known = [replace(acted, timed=0), replace(acted, start_ns=70, end_ns=80, host=0)]
    assert host_waits(timed, known) == {2: (70, 80)}
    assert host_waits(timed, known[:1]) == {}
    assert host_waits(p, []) == {}, "the run ended before"


def test_a_fault_behind_a_write_of_en_is_not_of_what_ran_before() -> None:
    """An access that did not fault, a write of EN, and one that did: the first to the page is not the one."""
    off = Item(1, Op.WRMSR, msr=MSR_ASYNC_PF_EN, value=0)
    p = Plan(
        "s", "t", 1, Guest(apf=Apf(en_flags=9, vector=0xF3)), Memory(), Swap(), (),
        (Item(0, Op.TOUCH, gpa=A), off, Item(2, Op.TOUCH, gpa=A)),
    )  # fmt: skip
    g = log(*((kind, n, 0) for n in range(3) for kind in (Record.START, Record.END)))
    set_up = [Event(Kind.WRMSR, 0, 1, value=MSR_ASYNC_PF_INT, data=0xF3)]
    set_up += [Event(Kind.WRMSR, 0, 2, value=MSR_ASYNC_PF_EN, data=SHARED_GPA | 9)]
    written = times_of_writes(p, g, [*set_up, Event(Kind.WRMSR, 0, 50, value=MSR_ASYNC_PF_EN)])
    assert written == {1: 50}
    faults = split([Event(Kind.PF, 0, 90, gpa=A)])
    found = align(p, g, faults, (), {item: (t, t) for item, t in written.items()})
    assert [len(i.episodes) for i in found.items] == [0, 0, 1]
    assert times_of_writes(p, g, set_up) == {}, "another number of writes: a reset, or a load"


def test_a_token_s_delivery_that_a_reset_cut_off_had_touched_its_page() -> None:
    """S416: its handler never logged it; in the next life the item starts by an exception of its own."""
    told, stack = Item(0, Op.TOUCH, gpa=A), Item(1, Op.TOUCH, gpa=B, access=Access.WRITE, by=By.TOKEN)
    both = Plan("s", "t", 1, Guest(), Memory(), Swap(), (), (told, stack))
    begun = (Record.BOOT, -1, 0), (Record.START, 0, A)
    anew = (Record.BOOT, -1, 0), (Record.START, 1, B), (Record.END, 1, 0)
    pushed = [Event(Kind.PF, 0, gpa=B, value=0x6), Event(Kind.ENTRY, 0)]
    boots = [Boot(0, 5, 6)]

    def at(events: list[Event], ns: int) -> list[Event]:
        return [replace(event, t_ns=ns) for event in events]

    faults = split([*at(fault(A, 0x1000), 1), *at(pushed, 2)])
    found = align(both, log(*begun, *anew), faults, boots)
    assert [len(item.episodes) for item in found.items] == [1, 1] and not found.strangers
    handled = log(*begun, (Record.TOKEN, 0, 0x1000), *anew)
    assert len(align(both, handled, split(at(pushed, 2)), boots).strangers) == 1, "it would have logged the item, too"
