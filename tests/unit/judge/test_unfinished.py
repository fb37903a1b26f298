# SPDX-License-Identifier: GPL-2.0-or-later
"""A page that is still being read when the recording ends is owed nothing yet; one that was read is."""

from __future__ import annotations

from itertools import count

import pytest

from harness.contract.capture import GateLog, GateRead, ReadEnd
from harness.judge.unfinished import unfinished
from harness.model.events import Event, Kind

DEVICE = 254 << 20
RAM = 0x7F0000000000
LINES = count(100)
PLACES = {5: 64, 6: 72}
"""The pages 5 and 6 lie next to each other on the device."""


def np(line: int, gpa: int) -> Event:
    return Event(Kind.NP, 0, gpa=gpa, line=line)


def bio(kind: Kind, sector: int, sectors: int = 8, dev: int = DEVICE, tid: int = 31) -> Event:
    return Event(kind, value=sector, data=sectors, flag=True, dev=dev, tid=tid)


def fault(gpa: int, *reads: int, tid: int = 31, returns: bool = False) -> list[Event]:
    """A worker's handle_mm_fault and the sectors that it asks for."""
    call = Event(Kind.MM_FAULT, hva=RAM + gpa, worker=True, tid=tid, line=next(LINES))
    back = [Event(Kind.MM_FAULT_RET, worker=True, tid=tid, line=next(LINES))]
    return [call, *(bio(Kind.BIO, sector, tid=tid) for sector in reads), *(back if returns else [])]


FIRST = (*fault(0x3000, 800, returns=True), bio(Kind.BIO_END, 800), np(5, 0x3000),
         Event(Kind.DONE, gpa=0x3000, hva=RAM + 0x3000))  # fmt: skip
ELSEWHERE = [np(9, 0x5000), *fault(0x9000, 96, tid=32)]
"""The page's worker has not come, and another page is read."""


def test_a_read_in_flight_excuses_its_work() -> None:
    assert unfinished([*FIRST, np(9, 0x5000), bio(Kind.BIO, 64)], DEVICE, PLACES) == {9}


def test_no_read_has_to_end_where_ends_are_recorded() -> None:
    """A device that is frozen throughout."""
    held = [np(9, 0x5000), bio(Kind.BIO, 64)]
    assert not unfinished(held, DEVICE, PLACES)
    assert unfinished(held, DEVICE, PLACES, ends_known=True) == {9}


def test_the_read_of_another_page_excuses_nothing() -> None:
    assert not unfinished([*FIRST, np(9, 0x5000), bio(Kind.BIO, 72)], DEVICE, PLACES)


def test_when_all_reads_have_ended_nothing_is_excused() -> None:
    ended = [np(9, 0x5000), bio(Kind.BIO, 64), bio(Kind.BIO_END, 64)]
    assert not unfinished([*FIRST, *ended], DEVICE, PLACES)


def test_a_merged_request_ends_all_its_bios() -> None:
    merged = [np(9, 0x5000), np(10, 0x6000), bio(Kind.BIO, 64), bio(Kind.BIO, 72)]
    assert unfinished([*FIRST, *merged], DEVICE, PLACES) == {9, 10}
    assert not unfinished([*FIRST, *merged, bio(Kind.BIO_END, 64, 16)], DEVICE, PLACES)


def test_reads_of_another_device_excuse_nothing() -> None:
    assert not unfinished([*FIRST, np(9, 0x5000), bio(Kind.BIO, 64, dev=1)], DEVICE, PLACES)


def test_where_no_end_is_recorded_nothing_is_excused() -> None:
    assert not unfinished([np(9, 0x5000), bio(Kind.BIO, 64)], DEVICE, PLACES)


def test_a_completed_work_is_not_unfinished() -> None:
    done = Event(Kind.DONE, gpa=0x5000, hva=RAM + 0x5000)
    assert not unfinished([*FIRST, np(9, 0x5000), bio(Kind.BIO, 64), done], DEVICE, PLACES)


def test_of_a_page_in_no_plan_the_reads_of_its_own_fault_count() -> None:
    own = [*FIRST, np(9, 0x5000), *fault(0x5000, 64, 72)]
    assert unfinished(own, DEVICE) == {9}
    assert unfinished([*own, bio(Kind.BIO_END, 64)], DEVICE) == {9}  # which of the two was its own nobody can tell
    over = [*own, bio(Kind.BIO_END, 64), bio(Kind.BIO_END, 72)]
    assert not unfinished(over, DEVICE)
    assert not unfinished([*over, *fault(0x9000, 96, tid=32)], DEVICE)


@pytest.mark.parametrize(("beside", "excused"), [((), set()), ((104,), {9})])
def test_a_page_that_nobody_read_for_itself_may_have_been_read_ahead(
    beside: tuple[int, ...], excused: set[int]
) -> None:
    ahead = [bio(Kind.BIO, sector, tid=32) for sector in beside]
    assert unfinished([*FIRST, *ELSEWHERE, *ahead], DEVICE) == excused


def completed(at_ns: int) -> list[Event]:
    return [
        Event(Kind.NP, 0, 100, gpa=0x5000, line=9),
        Event(Kind.DONE, t_ns=at_ns, gpa=0x5000, hva=RAM + 0x5000),
    ]


@pytest.mark.parametrize(("state", "excused"), [("R", {9}), ("S", set()), ("D", set())])
def test_a_vcpu_that_could_run_and_had_no_turn_owes_nothing(state: str, excused: set[int]) -> None:
    out = Event(Kind.OUT, 0, 110, value=ord(state))
    assert unfinished([*completed(120)[:1], out, *completed(120)[1:]], DEVICE) == excused


def test_a_vcpu_that_ran_after_the_completion_owes_it() -> None:
    np, done = completed(120)
    out, back = Event(Kind.OUT, 0, 110, value=ord("R")), Event(Kind.IN, 0, 130)
    assert not unfinished([np, out, done, back], DEVICE)
    assert not unfinished([np, done, Event(Kind.OUT, 0, 130, value=ord("R"))], DEVICE)


@pytest.mark.parametrize(("done_ns", "ends", "excused"), [(120, (), {9}), (90, (), set()), (120, (72,), set())])
def test_a_vcpu_that_sleeps_for_another_page_owes_nothing(
    done_ns: int, ends: tuple[int, ...], excused: set[int]
) -> None:
    """Its thread has been in handle_mm_fault since 100, and looks at no work that completes before its read ends."""
    np, done = completed(done_ns)
    call = Event(Kind.MM_FAULT, 0, 100, hva=RAM + 0x6000, tid=31, line=10)
    out = Event(Kind.OUT, 0, 110, value=ord("D"), tid=31)
    over = [bio(Kind.BIO_END, sector) for sector in ends]
    assert unfinished([*FIRST, np, call, bio(Kind.BIO, 72), out, done, *over], DEVICE, PLACES) == excused


@pytest.mark.parametrize(("answered", "excused"), [((), {9}), ((6,), set())])
def test_a_vcpu_that_sleeps_for_a_page_that_is_held(answered: tuple[int, ...], excused: set[int]) -> None:
    """From 6.2 on its thread sleeps in handle_userfault as in a halt."""
    np, done = completed(120)
    call = Event(Kind.MM_FAULT, 0, 100, hva=RAM + 0x6000, tid=31, line=10)
    out = Event(Kind.OUT, 0, 110, value=ord("S"), tid=31)
    reads = (GateRead(0, 0, 0, 8, answered, ReadEnd.OPEN, 0),) if answered else ()
    assert unfinished([*FIRST, np, call, out, done], DEVICE, manager=GateLog(reads, 1)) == excused


@pytest.mark.parametrize(("ended_ns", "excused"), [(None, set()), (121, set()), (120, {9}), (90, {9})])
def test_nobody_waits_for_what_completes_after_the_guests_result(ended_ns: int | None, excused: set[int]) -> None:
    assert unfinished(completed(120), DEVICE, ended_ns=ended_ns) == excused


@pytest.mark.parametrize(("ended_ns", "excused"), [(None, set()), (200, set()), (150, {9}), (50, {9})])
def test_a_read_that_ends_after_the_guests_result_is_as_one_in_flight(ended_ns: int | None, excused: set[int]) -> None:
    end = Event(Kind.BIO_END, t_ns=160, value=64, data=8, flag=True, dev=DEVICE)
    trace = [*FIRST, completed(0)[0], bio(Kind.BIO, 64), end]
    assert unfinished(trace, DEVICE, PLACES, ended_ns) == excused


@pytest.mark.parametrize(("answered", "held", "excused"), [((), 2, {9, 10}), ((5,), 1, {10}), ((), 1, set())])
def test_a_page_that_the_manager_of_a_userfaultfd_holds(
    answered: tuple[int, ...], held: int, excused: set[int]
) -> None:
    """It has been asked for so many; where more are missing, some worker has not asked."""
    reads = (GateRead(0, 0, 0, 8, answered, ReadEnd.OPEN, 0),) if answered else ()
    works = [np(9, 0x5000), np(10, 0x6000)]
    assert unfinished(works, DEVICE, manager=GateLog(reads, held)) == excused
