# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.contract.capture import CpuTraceStats, TraceStats
from harness.errors import CaptureDamaged
from harness.evidence.ftrace import complete_until, parse

HEADER = "# tracer: nop\n#\n# entries-in-buffer/entries-written: 2/2   #P:2\n#\n"
comms = st.sampled_from(
    ["CPU 0/KVM", "kworker/0:1-events", "a-b: c [1] (x)", "<...>", "qemu-system-x86", "kworker/u4:2"]
)


def line(comm: str, tid: int, cpu: int, us: int, event: str, text: str) -> str:
    return f"{comm:>16}-{tid:<7} [{cpu:03}] d..1. {us // 1_000_000:5}.{us % 1_000_000:06}: {event}: {text}"


@given(
    comms,
    st.integers(1, 4_000_000),
    st.integers(0, 255),
    st.integers(0, 10**12),
    st.text("abc =:()[]->x0123", max_size=60),
)
def test_a_line_gives_back_what_the_kernel_put_in(comm: str, tid: int, cpu: int, us: int, text: str) -> None:
    trace = parse(HEADER + line(comm, tid, cpu, us, "kvm_entry", text) + "\n")
    (found,) = trace.lines
    assert (found.comm.strip(), found.tid, found.cpu, found.t_ns) == (comm, tid, cpu, us * 1000)
    assert (found.event, found.number) == ("kvm_entry", 5)
    assert found.text.strip() == text.strip()


lines = st.builds(
    line,
    comms.filter(lambda comm: comm != "<...>") | st.text("a-1 [0]d:.()", min_size=1, max_size=15).filter(str.strip),
    st.sampled_from([1, 12, 4_000_000]),
    st.just(0) | st.integers(0, 2),
    st.sampled_from([1, 999_999_999, 10**12]),
    st.sampled_from(["kvm_entry", "kvm_exit"]),
    st.sampled_from(["", "vcpu 0", "b-1 [000] d..1. 1.000001: kvm_msr: x"]),
)


@given(st.lists(lines, max_size=8))
def test_a_line_says_the_same_behind_others_as_by_itself(told: list[str]) -> None:
    ordered = sorted(told, key=lambda raw: parse(raw + "\n").lines[0].t_ns)
    alone = [parse(raw + "\n").lines[0]._replace(number=n) for n, raw in enumerate(ordered, 1)]
    together = parse("".join(raw + "\n" for raw in ordered))
    assert list(together.lines) == alone


def test_a_tgid_column_is_skipped() -> None:
    (found,) = parse("  CPU 0/KVM-12  (     9) [001] d..1.  1.000002: kvm_exit: reason x\n").lines
    assert (found.comm, found.tid, found.cpu, found.t_ns) == ("CPU 0/KVM", 12, 1, 1_000_002_000)


def test_losses_are_counted_not_skipped() -> None:
    text = HEADER + "CPU:1 [LOST 17 EVENTS]\n" + line("x", 1, 1, 5, "kvm_entry", "vcpu 0") + "\nCPU:0 [LOST 2 EVENTS]\n"
    trace = parse(text)
    assert trace.lost == 19 and len(trace.lines) == 1


def test_what_is_complete_ends_with_the_last_event_of_a_cpu_that_dropped_some() -> None:
    trace = parse(HEADER + line("x", 1, 0, 5, "a", "") + "\n" + line("x", 1, 1, 7, "a", "") + "\n")
    whole, dropping = CpuTraceStats(1, 0, 0, 0), CpuTraceStats(1, 0, 0, 3)
    assert complete_until(trace, TraceStats({0: dropping, 1: whole})) == 5000
    assert complete_until(trace, TraceStats({0: dropping, 1: dropping})) == 5000
    assert complete_until(trace, TraceStats({0: whole, 1: dropping})) == 7000
    cut = CpuTraceStats(9, 0, 0, 0, left_out=8)  # at one moment, which is the last line's
    assert complete_until(trace, TraceStats({0: cut, 1: whole})) == 7000
    assert complete_until(trace, TraceStats({0: dropping, 1: cut})) == 5000
    for overwritten in (CpuTraceStats(1, 1, 0, 0), CpuTraceStats(1, 0, 1, 0)):
        assert complete_until(trace, TraceStats({0: dropping, 1: overwritten})) == 0


@pytest.mark.parametrize(
    "damaged",
    [
        "garbage",
        "CPU 0/KVM-12 [001] d..1. 1.0x2: kvm_exit: reason",
        line("x", 1, 0, 10, "a", "b") + "\n" + line("x", 1, 0, 9, "a", "b"),
    ],
)
def test_damage_is_named_with_its_line(damaged: str) -> None:
    with pytest.raises(CaptureDamaged, match=r"trace/events\.txt:\d+"):
        parse(HEADER + damaged + "\n")


def test_a_name_that_the_kernel_had_forgotten_is_told_by_other_lines() -> None:
    text = (
        "           <...>-156     [001] .....  1668.308296: work_start: (async_pf_execute+0x0/0x180)\n"
        "       CPU 2/KVM-1932    [001] d....  1668.308300: sched_switch: prev_comm=CPU 2/KVM prev_pid=1932"
        " prev_prio=120 prev_state=R ==> next_comm=kworker/1:2 next_pid=156 next_prio=120\n"
        "           <...>-14      [001] .....  1668.308461: block_bio_queue: 43,0 RA 7656 + 256 [kworker/0:1]\n"
        "           <...>-99      [001] .....  1668.308462: work_start: (async_pf_execute+0x0/0x180)\n"
    )
    assert [line.comm for line in parse(text).lines] == ["kworker/1:2", "CPU 2/KVM", "kworker/0:1", "<...>"]
