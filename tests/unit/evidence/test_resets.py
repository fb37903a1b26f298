# SPDX-License-Identifier: GPL-2.0-or-later
"""The clear of a reset, which no tracepoint shows, is put where it happened."""

from __future__ import annotations

import json

import pytest

from harness.errors import CaptureDamaged
from harness.evidence.resets import Boot, Reset, add_clears, boots, parse_resets
from harness.model.events import MSR_ASYNC_PF_EN, Event, Kind

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
