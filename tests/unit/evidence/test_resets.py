# SPDX-License-Identifier: GPL-2.0-or-later
"""The clear of a reset, which no tracepoint shows, is put where it happened."""

from __future__ import annotations

import json

import pytest

from harness.errors import CaptureDamaged
from harness.evidence.resets import (
    Boot,
    Load,
    Reset,
    add_clears,
    add_inits,
    add_loads,
    add_plugs,
    boots,
    parse_loads,
    parse_resets,
    under_first_threads,
)
from harness.model.events import INIT, MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT, Event, Kind

S = 1_000_000_000


def line(t: float, **message: object) -> str:
    return json.dumps({"t": t, "dir": "in", "message": message})


def entry(vcpu: int, t_ns: int, rip: str = "0x101134") -> Event:
    return Event(Kind.ENTRY, vcpu, t_ns, text=f"kvm_entry: vcpu {vcpu}, rip {rip}")


def kinds(events: tuple[Event, ...]) -> list[tuple[str, int]]:
    return [(e.kind.name, e.vcpu) for e in events]


def test_resets_of_the_agent_and_of_the_guest() -> None:
    log = "\n".join([
        line(1, execute="system_reset", id="a"), line(1.5, event="RESET", data={}), line(2, **{"return": {}}),
        line(3, event="RESET", data={"guest": True}),
    ])  # fmt: skip
    assert parse_resets(log) == (Reset(S, S + S // 2), Reset(0, 3 * S))


def test_a_reset_before_a_load_is_none_while_the_machine_stands() -> None:
    log = [
        line(1, execute="system_reset", id="a"), line(2, event="RESET", data={}), line(3, execute="stop", id="b"),
        line(4, execute="system_reset", id="c"), line(5, event="RESET", data={}),
    ]  # fmt: skip
    load = line(6, execute="human-monitor-command", arguments={"command-line": "loadvm apf"}, id="d")
    assert [reset.seen_ns for reset in parse_resets("\n".join([*log, load]))] == [2 * S]
    cont = line(5.5, execute="cont", id="e")
    assert [reset.seen_ns for reset in parse_resets("\n".join([*log, cont, load]))] == [2 * S, 5 * S]


@pytest.mark.parametrize("bad", ["{", "[1]", '{"t": 1}', '{"t": "x", "message": {}}', '{"t": 1, "message": 3}'])
def test_a_damaged_log_is_a_damaged_capture(bad: str) -> None:
    with pytest.raises(CaptureDamaged, match=r"qmp.jsonl line 1"):
        parse_resets(bad)


def test_the_boot_cpu_is_cleared_at_the_reset_vector_the_others_at_their_first_event() -> None:
    """The RESET event is read late: the boot CPU runs firmware already.  What came before the pause stays before."""
    before = [entry(0, S + 1), entry(1, S + 2), Event(Kind.DONE, -1, S + 3), Event(Kind.USER_EXIT, 1, S + 4)]
    after = [entry(0, S + 5, "0xfff0"), Event(Kind.OUT, 1, S + 6), Event(Kind.ENTRY, 0, S + 7), entry(1, S + 8, "0x0")]
    seen = add_clears([*before, *after], [Reset(S, S + 50)], 2)
    assert kinds(seen) == [
        ("ENTRY", 0), ("ENTRY", 1), ("DONE", -1), ("USER_EXIT", 1), ("CLEAR", 0), ("ENTRY", 0), ("OUT", 1),
        ("ENTRY", 0), ("CLEAR", 1), ("ENTRY", 1),
    ]  # fmt: skip


def test_each_of_several_resets_within_a_second_has_its_own_restart() -> None:
    """The first instruction of firmware faults and is entered again; that is no restart."""
    life = [entry(0, S + 1, "0xfff0"), entry(0, S + 2, "0xfff0"), entry(0, S + 3)]
    next_life = [entry(0, S + 400, "0xfff0"), entry(0, S + 401)]
    seen = add_clears([entry(0, S), *life, *next_life], [Reset(0, S + 20), Reset(0, S + 410)], 1)
    assert kinds(seen) == [
        ("ENTRY", 0), ("CLEAR", 0), ("ENTRY", 0), ("ENTRY", 0), ("ENTRY", 0), ("CLEAR", 0), ("ENTRY", 0), ("ENTRY", 0),
    ]  # fmt: skip


def test_a_reset_before_which_the_machine_had_not_run_again_does_not_take_the_restart_of_the_next() -> None:
    events = [entry(0, S), Event(Kind.DONE, -1, S + 50), entry(0, S + 400, "0xfff0"), entry(0, S + 401)]
    seen = add_clears(events, [Reset(S + 10, S + 20), Reset(S + 100, S + 110)], 1)
    assert kinds(seen) == [("ENTRY", 0), ("CLEAR", 0), ("DONE", -1), ("CLEAR", 0), ("ENTRY", 0), ("ENTRY", 0)]


def test_a_machine_that_never_runs_again_is_cleared_when_the_event_was_read() -> None:
    events = [entry(0, S + 1), Event(Kind.DONE, -1, 2 * S), Event(Kind.OUT, 0, 9 * S)]
    assert kinds(add_clears(events, [Reset(S, 3 * S)], 1)) == [("ENTRY", 0), ("DONE", -1), ("CLEAR", 0), ("OUT", 0)]
    assert kinds(add_clears(events[:2], [Reset(S, 3 * S)], 1))[-1] == ("CLEAR", 0)
    assert add_clears(events, [], 1) == tuple(events)


def test_a_boot_lasts_until_async_page_faults_are_set_up() -> None:
    events = [
        Event(Kind.CLEAR, 0, 5), Event(Kind.CLEAR, 1, 6), Event(Kind.PF, 0, 7),
        Event(Kind.WRMSR, 0, 9, value=MSR_ASYNC_PF_EN), Event(Kind.CLEAR, 0, 10, flag=True),
    ]  # fmt: skip
    assert boots(events) == (Boot(0, 5, 9), Boot(1, 6, 1 << 62))


def test_an_init_that_comes_before_they_are_set_up_begins_another_boot() -> None:
    """The guest's log has both; of a reset and the INIT behind it, it has one."""
    cleared = [Event(Kind.CLEAR, 1, t_ns, value=value) for t_ns, value in ((5, 0), (6, INIT), (8, INIT))]
    events = [*cleared, Event(Kind.WRMSR, 1, 9, value=MSR_ASYNC_PF_EN)]
    assert boots(events) == (Boot(1, 6, 8), Boot(1, 8, 9))


def monitor(t: float, command: str, ident: str) -> str:
    return line(t, execute="human-monitor-command", arguments={"command-line": command}, id=ident)


def test_a_load_is_known_by_its_command_and_its_answer() -> None:
    log = "\n".join([
        monitor(1, "savevm apf", "a"), line(2, **{"return": ""}, id="a"), monitor(3, "loadvm apf", "b"),
        line(3.5, event="STOP"), line(4, **{"return": ""}, id="b"), monitor(5, "loadvm apf", "c"),
    ])  # fmt: skip
    assert parse_loads(log) == (Load(2 * S, 3 * S, 4 * S),)
    with pytest.raises(CaptureDamaged, match=r"qmp.jsonl line 1"):
        parse_loads(line(1, execute="human-monitor-command", id="a"))


def wrmsr(vcpu: int, t_ns: int, msr: int, value: int) -> Event:
    return Event(Kind.WRMSR, vcpu, t_ns, value=msr, data=value, line=1)


def test_a_load_clears_each_vcpu_and_puts_what_was_written_before_the_snapshot() -> None:
    """What is written behind it is not put, nor the 0 that a vCPU has which wrote nothing."""
    before = [wrmsr(0, 1, MSR_ASYNC_PF_INT, 0xF3), wrmsr(0, 2, MSR_ASYNC_PF_EN, 9), wrmsr(0, 25, MSR_ASYNC_PF_EN, 0)]
    after = [Event(Kind.DONE, -1, 35), Event(Kind.OUT, 0, 36), entry(0, 45), entry(1, 46)]
    seen = add_loads([*before, *after], [Load(20, 30, 40)], 2)
    assert kinds(seen) == [
        ("WRMSR", 0), ("WRMSR", 0), ("WRMSR", 0), ("DONE", -1), ("OUT", 0), ("CLEAR", 0), ("WRMSR", 0), ("WRMSR", 0),
        ("ENTRY", 0), ("CLEAR", 1), ("ENTRY", 1),
    ]  # fmt: skip
    assert [(e.value, e.data) for e in seen[6:8]] == [(MSR_ASYNC_PF_INT, 0xF3), (MSR_ASYNC_PF_EN, 9)]
    assert all(e.line == 0 for e in seen[5:8])


def test_a_machine_that_never_runs_again_is_loaded_at_the_end() -> None:
    assert kinds(add_loads([entry(0, 1), Event(Kind.OUT, 0, 50)], [Load(20, 30, 40)], 1)) == [
        ("ENTRY", 0), ("OUT", 0), ("CLEAR", 0),
    ]  # fmt: skip


def test_an_init_clears_before_the_next_entry() -> None:
    """The acceptance of the SIPI, and all that comes before the entry, is none."""
    init = Event(Kind.ACC, 1, 10, token=INIT)
    sipi = Event(Kind.ACC, 1, 20, text="kvm_apic_accept_irq: apicid 1 vec 8 (SIPI|edge)")
    events = [entry(1, 1), init, entry(0, 15), sipi, Event(Kind.IN, 1, 21), entry(1, 22, "0x0"), entry(1, 23)]
    assert kinds(add_inits(events)) == [
        ("ENTRY", 1), ("ACC", 1), ("ENTRY", 0), ("ACC", 1), ("IN", 1), ("CLEAR", 1), ("ENTRY", 1), ("ENTRY", 1),
    ]  # fmt: skip


def test_a_vcpu_runs_on_until_the_init_that_was_traced_is_pending() -> None:
    """The thread that sends it is preempted between the trace and pending_events."""
    init, sipi = (Event(Kind.ACC, 1, t_ns, token=token) for t_ns, token in ((10, INIT), (20, 0)))
    events = [
        entry(1, 1, "0x101130"),
        init,
        entry(1, 11, "0x101130"),
        sipi,
        entry(1, 22, "0x0"),
        entry(1, 23, "0x10"),
        entry(1, 24, "0x0"),
    ]
    assert kinds(add_inits(events)) == [
        ("ENTRY", 1), ("ACC", 1), ("ENTRY", 1), ("ACC", 1), ("CLEAR", 1), ("ENTRY", 1), ("ENTRY", 1), ("ENTRY", 1),
    ]  # fmt: skip
    long = [
        entry(1, 1, "0x0000000000000010"),
        init,
        entry(1, 11, "0x0000000000000010"),
        entry(1, 12, "0x0000000000000000"),
    ]
    assert [kind for kind, _ in kinds(add_inits(long))] == ["ENTRY", "ACC", "ENTRY", "CLEAR", "ENTRY"]


def test_a_vcpu_that_was_plugged_in_again_is_cleared_before_its_new_thread_does_anything() -> None:
    events = [Event(Kind.OUT, 1, 5, tid=11), Event(Kind.IN, 1, 9, tid=12), Event(Kind.ENTRY, 1, 10, tid=12)]
    assert kinds(add_plugs(events, [(1, 12)])) == [("OUT", 1), ("CLEAR", 1), ("IN", 1), ("ENTRY", 1)]
    assert add_plugs(events, [(1, 13)]) == tuple(events), "it was never seen"


def test_the_thread_of_a_vcpu_that_was_plugged_in_again_goes_on_as_the_first() -> None:
    """Else its own reads would be another's."""
    events = [Event(Kind.OUT, 1, 5, tid=11), Event(Kind.MM_FAULT, 1, 9, tid=12), Event(Kind.BIO, t_ns=10, tid=13)]
    assert [e.tid for e in under_first_threads(events, [10, 11], [(1, 12)])] == [11, 11, 13]
