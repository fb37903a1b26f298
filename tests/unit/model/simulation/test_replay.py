# SPDX-License-Identifier: GPL-2.0-or-later
"""What a recording is asked by the simulation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.model.events import Kind
from harness.model.simulation.recorded import (
    FaultCall,
    PageChange,
    Recorded,
    RecordedAction,
    RecordedEvent,
    Stay,
    WorkRun,
)
from harness.model.simulation.replay import BOOT, Diverged, Replay

EMPTY = Recorded(
    marks=((), ()), threads=(10, 11), works={}, read_ends={}, changes={}, busy=((), ()), unmaps=(), ticks=((), ()),
    host=(), log=((), ()), end_ns=1000,
)  # fmt: skip
SPIV = RecordedEvent(Kind.WRMSR, 0x80F, 5, 6, optional=True)
FAULT = RecordedEvent(Kind.PF, 7, 20, 20, line=3)
READY = RecordedEvent(Kind.RDY, 0x1000, 30, 31)


def test_marks_in_order_and_optional_ones_only_when_asked_for() -> None:
    replay = Replay(replace(EMPTY, marks=((SPIV, FAULT, READY), ())))
    assert replay.peek(0) is FAULT
    assert replay.peek(0, Kind.WRMSR, 0x80F) is SPIV
    replay.take(0, FAULT)
    assert replay.peek(0) is READY
    replay.take(0, READY)
    assert replay.peek(0) is None
    assert replay.peek(1) is None


def test_parting_names_line_and_both_sides() -> None:
    with pytest.raises(Diverged, match=r"vCPU 0: PF 0x7 is recorded, where the model has a token") as caught:
        Replay(EMPTY).part(0, 15, FAULT, "a token")
    assert (caught.value.line, caught.value.t_ns) == (3, 20)


def test_a_look_is_behind_its_own_read_and_not_moved_by_its_own_doing() -> None:
    changes = (PageChange(5, 0), PageChange(10, 99), PageChange(12, 10), PageChange(14, 0))
    replay = Replay(replace(EMPTY, changes={7: changes}))
    assert replay.cuts(7, 10, 4, 20) == [5, 10]  # thread 10 read it at 12
    assert replay.cuts(7, 99, 5, 20) == []  # it read at 10; what was at 5 is over
    assert replay.cuts(7, 50, 11, 13) == [12]
    assert replay.cuts(8, 10, 0, 100) == []


def test_a_fault_around_a_neighbour_may_have_changed_the_page() -> None:
    replay = Replay(replace(EMPTY, calls={8: (FaultCall(3, 9, 99),), 9: (FaultCall(3, 30, 99),)}))
    assert replay.cuts(7, 10, 0, 20) == []
    assert replay.cuts(7, 10, 0, 20, around=(7, 8, 9)) == [9]
    assert replay.cuts(7, 99, 0, 20, around=(8,)) == []  # its own
    assert replay.calls_beside((7, 8), 10, 0, 5)
    assert not replay.calls_beside((7,), 10, 0, 5)


def test_a_mapping_is_refused_only_if_a_notifier_came_between() -> None:
    replay = Replay(replace(EMPTY, unmaps=(FaultCall(20, 60),)))  # mmu_invalidate_seq moves at the notifier's end
    assert replay.invalidated(0, 30, 70) and replay.invalidated(0, 60, 61)
    assert not replay.invalidated(0, 61, 70) and not replay.invalidated(0, 0, 19)
    calls = {7: (FaultCall(0, 100, 10), FaultCall(200, 300, 99))}
    assert not Replay(replace(EMPTY, calls=calls)).invalidated(0, 250, 260)
    untold = Replay(replace(EMPTY, calls=calls, unmaps_known=False))
    assert untold.invalidated(0, 250, 260) and untold.invalidated(1, 50, 60) and not untold.invalidated(0, 50, 60)


def test_what_others_map_meanwhile() -> None:
    replay = Replay(replace(EMPTY, busy=((Stay(0, 100, 7),), (Stay(40, 50, 8), Stay(50, 60, 9)))))
    assert replay.mapped_beside(0, 45, 60) == {8, 9} and replay.mapped_beside(0, 50, 51) == {8, 9}
    assert replay.mapped_beside(0, 51, 60) == {9}  # its own stay does not count
    assert replay.mapped_beside(1, 60, 61) == {7} and replay.mapped_beside(0, 0, 39) == set()


def test_a_read_ends_at_its_next_end() -> None:
    replay = Replay(replace(EMPTY, read_ends={7: (10, 90)}))
    assert [replay.read_end(7, since) for since in (0, 10, 11, 91)] == [10, 10, 90, -1]


def test_each_host_action_is_used_once() -> None:
    steps = (RecordedAction("freeze", 0, 1, 2), RecordedAction("thaw", 0, 3, 4), RecordedAction("freeze", 0, 5, 6))
    replay = Replay(replace(EMPTY, host=steps))
    assert replay.host("freeze", 0) == steps[0]
    assert replay.host("freeze", 0) == steps[2]
    assert replay.host("freeze", 0) is None
    assert replay.host("thaw", 1) is None


def test_the_guest_log_is_followed() -> None:
    replay = Replay(replace(EMPTY, log=((("start", 0), ("ready", 4096), ("wake", 0)), ())))
    assert replay.logged(0) == "start"
    replay.log(0, "start", 5)  # not there: nothing moves
    assert replay.logged(0) == "start"
    replay.log(0, "start", 0)
    replay.log(0, "ready")
    assert replay.logged(0) == "wake"
    assert replay.logged(1) == ""


RESET = RecordedEvent(Kind.CLEAR, 0, 500, 500)


def test_a_life_ends_where_the_vcpu_was_paused_and_another_begins_where_it_was_seen() -> None:
    replay = Replay(replace(EMPTY, marks=((FAULT, RESET, READY), ()), exits=((10, 40, 60), ())))
    assert replay.end_of_life(0) is RESET and replay.end_of_life(1) is None
    assert replay.paused_ns(0, 5, RESET) == 40  # at 10 it was still to fault
    assert replay.paused_ns(0, 50, RESET) == 60
    assert replay.paused_ns(0, 100, RESET) == 499  # it never left KVM_RUN
    with pytest.raises(Diverged, match="PF 0x7 is recorded, where the model has a reset"):
        replay.next_life(0, RESET)
    replay.take(0, FAULT)
    replay.next_life(0, RESET)
    assert replay.peek(0) is READY and replay.end_of_life(0) is None


@pytest.mark.parametrize(
    ("now", "entered", "left", "following", "stopped"),
    [
        (30, 20, 40, 70, 60),
        (30, 30, 40, 70, -1),  # it was in the guest before it left
        (45, 20, 40, 70, 60),  # it has left, and the stop waits for others
        (30, 20, 40, 55, -1),  # it went on before all were stopped: left for something else
        (30, 20, 35, 70, -1),  # before the stop was asked for
    ],
)
def test_a_thread_that_was_stopped_does_nothing_before_cont(
    now: int, entered: int, left: int, following: int, stopped: int
) -> None:
    next_ = replace(READY, start_ns=following, end_ns=following)
    host = (RecordedAction("sleep", 7, 0, 100), RecordedAction("stop", 0, 38, 60))
    recorded = replace(EMPTY, marks=((next_,), ()), exits=((left,), ()), entered=((entered,), ()), host=host)
    assert Replay(recorded).stopped_ns(0, now) == stopped
    assert Replay(recorded).stopped_ns(1, now) == -1


def test_a_thread_that_has_entered_since_it_left_is_not_stopped_by_that() -> None:
    next_ = replace(READY, start_ns=70, end_ns=70)
    host = (RecordedAction("stop", 0, 38, 60),)
    recorded = replace(EMPTY, marks=((next_,), ()), exits=((40, 65), ()), entered=((20, 42), ()), host=host)
    assert Replay(recorded).stopped_ns(0, 41) == 60
    assert Replay(recorded).stopped_ns(0, 45) == -1


def test_a_timed_entry_has_the_records_of_its_time() -> None:
    host = tuple(RecordedAction("release", 0, t, t + 5) for t in (100, 300))
    host = (host[0], RecordedAction("sleep", 7, 110, 120), host[1])
    replay = Replay(replace(EMPTY, host=host))
    assert replay.timed([("release", 0)], 290) == [host[2]]
    assert replay.timed([("release", 0), ("sleep", 7), ("cont", 0), ("sleep", 7)], 90) == [*host[:2], None, None]
    assert replay.host("release", 0) is None


def test_each_reset_of_a_vcpu_is_that_of_one_who_asked() -> None:
    """The machine is reset while a vCPU sleeps in the reset of an INIT."""
    init, machine = RecordedEvent(Kind.CLEAR, 0, 100, 100), RESET
    replay = Replay(replace(EMPTY, marks=((init, machine), ()), exits=((90, 490), ())))
    assert replay.ask_for_reset(0) is init and replay.ask_for_reset(0) is machine
    assert replay.ask_for_reset(0) is None and replay.ask_for_reset(1) is None
    assert replay.end_of_life(0) is init and replay.shutdown_ns(0, 5) == 90
    replay.next_life(0, init)
    assert replay.shutdown_ns(0, 100) == 490 and replay.shutdown_ns(1, 7) == 7


def test_what_the_guest_wrote_down_in_its_next_life_is_not_of_this_one() -> None:
    log = (("start", 0), (BOOT, 0), ("start", 1), ("end", 1))
    replay = Replay(replace(EMPTY, marks=((RESET,), ()), log=(log, ())))
    assert replay.log(0, "start", 0)
    assert not replay.log(0, "start", 1)
    assert not replay.log(0, "idle")
    replay.next_life(0, RESET)
    assert replay.log(0, "start", 1) and replay.log(0, "idle")


def test_a_page_that_kvm_reads_first_is_not_read_by_the_agent() -> None:
    action = RecordedAction("lock-read", 0x7000, 100, 200)
    own, late, worker = FaultCall(90, 150, 99), FaultCall(90, 150, 10), FaultCall(90, 150, 12)
    works = {(0, 1): WorkRun(80, thread=12)}
    for reads, at in (((), 100), ((own,), 150), ((late,), -1), ((worker,), -1), ((late, own), 150)):
        assert Replay(replace(EMPTY, reads={7: reads}, works=works)).read_by_agent(7, action) == at


def test_a_timed_entry_that_was_not_come_to_has_no_record_of_a_host_step() -> None:
    """The step that had it then waited for ever."""
    in_step = RecordedAction("release", 0, 100, 105, host=1)
    other = RecordedAction("release", 0, 90, 95, host=0)
    at_2500 = RecordedAction("release", 0, 2500, 2505, timed=0)
    replay = Replay(replace(EMPTY, host=(other, in_step, at_2500)))
    assert replay.timed([("release", 0)], 120, 1) == [None]
    assert replay.timed([("release", 0)], 2400, 0) == [at_2500]
    assert replay.host("release", 0, 1) == in_step
    assert replay.host("release", 0, 0) == other
