# SPDX-License-Identifier: GPL-2.0-or-later
"""Round trips are left out of a trace in bulk: what is left out is well-formed, and nothing else is hidden by it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import chain
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import CaptureDamaged
from harness.evidence import round_trips as module
from harness.evidence.decode import decode
from harness.evidence.ftrace import Line, Trace, parse
from harness.evidence.ram_address import ram_address
from harness.evidence.ram_page import ram_page
from harness.evidence.resets import add_inits, boots
from harness.evidence.round_trips import round_trips
from harness.evidence.trace_events import decode as events_of
from harness.evidence.trace_events import kinds
from harness.judge.blame import stopped
from harness.judge.episodes import split
from harness.judge.unfinished import unfinished
from harness.judge.verdict import judge
from harness.model.events import HEEDED_MSRS, HYPERVISOR_CALLBACK_VECTOR, MSR_ASYNC_PF_INT, Event
from harness.model.kernels import find_kernel
from harness.model.protocol.checker import Checker
from tests.unit.judge.golden import NAMES, load
from tests.unit.judge.packed import packed_capture

LINUX = ["enabled", "hidden", "nested-linux-lives", "nested-linux-panics"]
RESET = ["reset", "reset-followed", "nested-init-mended", "explored-reset-on-zram"]

NONE = f"info1 {0:#018x} info2 {0:#018x} intr_info {0:#010x} error_code {0:#010x}"


def line(us: int, text: str, head: str = "       CPU 0/KVM-203     [001]") -> str:
    return f"{head} d..1. {us // 1_000_000:5}.{us % 1_000_000:06}: {text}\n"


ENTRY, EXIT = "kvm_entry: vcpu 0, rip 0x431c325", f"kvm_exit: vcpu 0 reason npf rip 0x431c32d {NONE}"
MSR = "kvm_msr: msr_write 6e0 = 0x1f2e3d4c"
TWO = [ENTRY, EXIT, ENTRY, EXIT, MSR, ENTRY, EXIT]


def trips(*texts: str, rare: int = 1) -> list[range]:
    found = found_in("".join(line(10 * n, text) for n, text in enumerate(texts, 5)), rare)
    assert all([*range(numbers[0], numbers[-1] + 1)] == numbers for numbers in found)
    return [range(numbers[0], numbers[-1] + 1) for numbers in found]


def found_in(text: str, rare: int = 1) -> list[list[int]]:
    with patch.object(module, "_RARE", rare):
        return [list(numbers) for numbers in round_trips(text, text.splitlines()).lines]


def test_what_lies_between_an_entry_and_a_later_exit() -> None:
    assert trips(*TWO) == [range(1, 6)]


def test_few_lines_of_a_shape_are_not_looked_at() -> None:
    assert trips(*TWO, rare=4) == []


@pytest.mark.parametrize(
    "text",
    [
        EXIT.replace("intr_info 0x00000000", "intr_info 0x80000b0e"),  # while a #PF was being delivered
        EXIT.replace("npf", "EPT_VIOLATION").replace("info2 0x0", "info2 0x8"),
        EXIT.replace("npf", "hlt"),
        EXIT.replace("npf", "io").replace("info1 0x0000000000000000", "info1 0x0000000000e90000"),  # the guest's result
        EXIT.replace("npf", "IO_INSTRUCTION").replace("info1 0x0000000000000000", "info1 0x0000000000e90000"),
        EXIT.replace("kvm_exit", "kvm_nested_vmexit"),
        EXIT + " ",
        EXIT.replace("0x431c32d", "431c32d"),
        ENTRY,
        "kvm_page_fault: vcpu 0 rip 0x431c32d address 0x0000000001ae1000 error_code 0x100000006",
    ],
)
def test_an_exit_that_somebody_looks_at_is_none(text: str) -> None:
    assert trips(ENTRY, text, ENTRY, EXIT) == []
    assert trips(ENTRY, EXIT, ENTRY, text, ENTRY, EXIT, ENTRY, EXIT)[-1] == range(5, 7)
    assert not any(3 in trip for trip in trips(ENTRY, EXIT, ENTRY, text, ENTRY, EXIT, ENTRY, EXIT))


@pytest.mark.parametrize("reason", ["io", "IO_INSTRUCTION"])
def test_other_ports_are_not(reason: str) -> None:
    other = EXIT.replace("npf", reason).replace("info1 0x0000000000000000", "info1 0x0000000003f80000")
    assert trips(ENTRY, other, ENTRY, other) == [range(1, 3)]


@pytest.mark.parametrize("msr", sorted(HEEDED_MSRS))
def test_msrs_of_asynchronous_page_faults_are_looked_at(msr: int) -> None:
    assert trips(ENTRY, EXIT, f"kvm_msr: msr_write {msr:x} = 0x1", ENTRY, EXIT) == []
    assert trips(ENTRY, EXIT, f"kvm_msr: msr_read {msr:x} = 0x1", ENTRY, EXIT) == []


GIVEN, ACCEPTED = "kvm_inj_virq: IRQ 0xec", "kvm_apic_accept_irq: apicid 0 vec 236 (Fixed|edge)"


def test_interrupts_between_exit_and_entry() -> None:
    assert trips(ENTRY, EXIT, ACCEPTED, GIVEN, ENTRY, EXIT) == [range(1, 5)]
    assert trips(ENTRY, EXIT, GIVEN, ENTRY, EXIT.replace("npf", "hlt")) == [range(1, 4)]


@pytest.mark.parametrize(
    "text",
    [
        "kvm_inj_virq: IRQ 0xf3",
        "kvm_inj_virq: IRQ 0xec [reinjected]",
        "kvm_apic_accept_irq: apicid 0 vec 243 (Fixed|edge)",
        "kvm_apic_accept_irq: apicid 1 vec 236 (Fixed|edge)",  # of another vCPU, which it may wake up
        "kvm_apic_accept_irq: apicid 0 vec 0 (INIT|level)",
        "kvm_apic_accept_irq: apicid 0 vec 236 (Fixed|edge) (coalesced)",
    ],
)
def test_interrupts_that_somebody_looks_at(text: str) -> None:
    assert trips(ENTRY, EXIT, text, ENTRY, EXIT) == []


def test_the_vector_that_the_guest_wrote_is_looked_at() -> None:
    write = f"kvm_msr: msr_write {MSR_ASYNC_PF_INT:x} = 0xec"
    assert trips(write, ENTRY, EXIT, GIVEN, ENTRY, EXIT) == trips(write, ENTRY, EXIT, ACCEPTED, ENTRY, EXIT) == []


def test_a_thread_of_two_vcpus_has_no_interrupts_of_its_own() -> None:
    other = ENTRY.replace("vcpu 0", "vcpu 1")
    assert trips(other, EXIT, ENTRY, EXIT, ACCEPTED, ENTRY, EXIT) == [range(1, 3)]


def test_the_reset_vector_is_looked_for() -> None:
    assert trips(ENTRY, EXIT, "kvm_entry: vcpu 0, rip 0xfff0", EXIT) == []


ANOTHER, ELSEWHERE = "       CPU 1/KVM-204     [000]", "       CPU 0/KVM-203     [000]"
IDLE = "          <idle>-0       [000]"
HERE = "       CPU 1/KVM-204     [001]"


def between(*others: tuple[str, str]) -> list[list[int]]:
    """An entry, an exit, lines of others, an entry and an exit."""
    lines = [(None, ENTRY), (None, EXIT), *others, (None, ENTRY), (None, EXIT)]
    return found_in("".join(line(n, text, *filter(None, [head])) for n, (head, text) in enumerate(lines, 1)))


@pytest.mark.parametrize("other", [HERE, ELSEWHERE])
def test_another_thread_there_or_another_processor_of_its_own_between_ends_it(other: str) -> None:
    assert between((other, ENTRY), (other, EXIT)) == []


def test_round_trips_of_two_processors_may_be_mixed() -> None:
    other = ENTRY.replace("vcpu 0", "vcpu 1")
    assert between((ANOTHER, other), (ANOTHER, EXIT)) == [[1, 4]]
    left = (ANOTHER, EXIT.replace("vcpu 0", "vcpu 1"))
    assert between((ANOTHER, other), left, (ANOTHER, other), left) == [[1, 6], [3, 4]]


SWITCH = (
    "sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm={} next_pid={} next_prio=20"
)
WAKING = "sched_waking: comm={} pid={} prio=120 target_cpu=000"


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (IDLE, SWITCH.format("CPU 1/KVM", 204)),
        (IDLE, WAKING.format("CPU 1/KVM", 204)),
        (ANOTHER, "kvm_vcpu_wakeup: wait time 1 ns, polling valid"),
        (ANOTHER, EXIT.replace("vcpu 0 reason npf", "vcpu 1 reason hlt")),
        (ANOTHER, "kvm_inj_virq: IRQ 0xf3"),
    ],
)
def test_what_another_processor_does_of_its_own_may_stand_among_them(head: str, text: str) -> None:
    assert between((head, text)) == [[1, 3]]
    assert between((head.replace("[000]", "[001]"), text)) == []


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (IDLE, SWITCH.format("CPU 0/KVM", 203)),
        (IDLE, WAKING.format("CPU 0/KVM", 203)),
        (ELSEWHERE, EXIT.replace("npf", "hlt")),
        (ANOTHER, "kvm_msr: msr_write 4b564d02 = 0x1"),
        (ANOTHER, "kvm_apic_accept_irq: apicid 0 vec 236 (Fixed|edge)"),
        ("     kworker/0:1-17      [000]", "kvm_async_pf_completed: gva 0x1000 address 0x7f0000001000"),
        (IDLE, "sched_switch prev_comm=swapper/0"),
        (IDLE, "kvm_exits: vcpu 1"),
    ],
)
def test_what_concerns_the_thread_or_is_not_known_ends_it(head: str, text: str) -> None:
    assert between((head, text)) == []


def test_a_time_that_goes_backwards_is_left_to_the_reader_of_lines() -> None:
    text = line(5, ENTRY) + line(6, EXIT) + line(3, ENTRY) + line(7, EXIT)
    with patch.object(module, "_RARE", 1):
        assert not round_trips(text, text.splitlines()).lines


def test_a_trace_whose_processors_are_not_in_order_is_left_to_the_reader_of_lines() -> None:
    other = ENTRY.replace("vcpu 0", "vcpu 1")
    text = line(1, ENTRY) + line(2, EXIT) + line(4, other, ANOTHER) + line(3, ENTRY) + line(5, EXIT)
    assert found_in(text) == []
    assert found_in(text.replace("000004:", "000002:")) == [[1, 3]]


# --- traces of real runs


def trace_of(name: str) -> str:
    files = load(name) if name in NAMES else packed_capture(name)
    return files["trace/events.txt"].decode()


def folded(text: str) -> Trace:
    with patch.object(module, "_RARE", 1):
        return parse(text, fold=True)


def hidden(whole: Sequence[Line], left: Sequence[Line]) -> list[Line]:
    there = {line.number for line in left}
    return [line for line in whole if line.number not in there]


@pytest.mark.parametrize("name", [*LINUX, *RESET])
def test_what_is_left_out_is_unheeded_and_accounted_for(name: str) -> None:
    text = trace_of(name)
    whole, left = parse(text), folded(text)
    out = hidden(whole.lines, left.lines)
    assert sum(left.folded.values()) == len(out) > 0
    assert set(left.lines) <= set(whole.lines)
    for event in events_of(out, vcpu_tids := sorted({line.tid for line in out}), range(9)):
        assert event.kind in kinds(left.folded_events) and not event.flag
        assert event.vcpu >= 0 and len(vcpu_tids) < 9
        assert (
            event.value not in (*HEEDED_MSRS, HYPERVISOR_CALLBACK_VECTOR)
            and "info1 0x0000000000e9" not in event.text
            and "hlt" not in event.text
        )


@pytest.mark.long
@pytest.mark.parametrize("name", [*NAMES, *LINUX, *RESET])
def test_whoever_goes_through_a_trace_finds_the_same_without_them(name: str) -> None:
    text = trace_of(name)
    tids = sorted({line.tid for line in parse(text).lines if line.event == "kvm_entry"})
    whole, left = (add_inits(list(events_of(t.lines, tids, range(len(tids))))) for t in (parse(text), folded(text)))
    assert said(whole, len(tids)) == said(left, len(tids))


def said(events: Sequence[Event], vcpus: int) -> tuple[object, ...]:
    """What those who go through the events of a Linux guest make of them."""
    kernel = find_kernel("nowait-6.1")
    checker = Checker(kernel, vcpus)
    broken = list(chain.from_iterable(map(checker.feed, events)))
    return (
        broken,
        checker.finish(),
        checker.counts,
        [*split(events)],
        [*stopped(events, vcpus)],
        unfinished(events, 0),
        ram_page(events),
        ram_address(events),
        boots(events),
    )


@pytest.mark.parametrize("name", LINUX)
def test_a_linux_guest_is_judged_alike(name: str) -> None:
    files = packed_capture(name)
    with patch.object(module, "_RARE", 1):
        left = decode(files)
    with patch("harness.evidence.ftrace.round_trips", return_value=module.RoundTrips()):
        whole = decode(files)
    assert left.folded and not whole.folded
    assert len(left.events) < len(whole.events)
    assert left.recorded() == whole.events
    kernel = find_kernel("nowait-6.1")
    assert judge(left, kernel) == judge(whole, kernel)


# --- damage


@cache
def few(name: str) -> list[str]:
    """Some lines of a real trace with round trips in them."""
    lines = [raw for raw in trace_of(name).splitlines() if not raw.startswith("#")]
    longest = max(found_in("".join(raw + "\n" for raw in lines)), key=len)
    first, last = longest[0], longest[-1]
    chosen = lines[first - 5 : first + 20] + lines[last - 4 : last + 6]
    assert found_in("".join(raw + "\n" for raw in chosen))
    return chosen


MIXED = "reset-followed"
"""Round trips of its vCPUs stand among each other."""
FEW = pytest.mark.parametrize("name", ["nested-linux-panics", MIXED])


def test_round_trips_of_a_real_trace_stand_among_each_other() -> None:
    assert any(numbers[-1] - numbers[0] >= 2 * len(numbers) for numbers in found_in(trace_of(MIXED)))


def read(text: str, *, fold: bool) -> list[str]:
    """What is wrong with the trace, or else its events but those of round trips."""
    try:
        trace = folded(text) if fold else parse(text)
        events = [repr(e) for e in events_of(trace.lines, [], [])]
    except CaptureDamaged as exc:
        return [exc.message]
    out = hidden(parse(text).lines, trace.lines)
    return sorted([*events, *(repr(e) for e in events_of(out, [], []))]) if fold else sorted(events)


def test_no_digit_or_letter_can_be_another_unseen() -> None:
    """Of a line that would be left out, behind one of its shape that is as it was."""
    whole = [line(10 * n, text)[:-1] for n, text in enumerate([*TWO, *TWO], 5)]
    hidden_ = 0
    for number in (7, 8, 11):
        for at, old in enumerate(whole[number]):
            for new in {"7", "e", "x"} - {old}:
                lines = whole[:]
                lines[number] = whole[number][:at] + new + whole[number][at + 1 :]
                text = "".join(raw + "\n" for raw in lines)
                assert read(text, fold=True) == read(text, fold=False), lines[number]
                with patch.object(module, "_RARE", 1):
                    hidden_ += any(number in trip for trip in round_trips(text, lines).lines)
    assert hidden_ > 50  # another address, another time: still a round trip


@FEW
@given(data=st.data())
def test_no_damage_is_hidden(name: str, data: st.DataObject) -> None:
    lines = few(name)[:]
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(0, len(lines) - 1))
        raw = lines[number]
        at = data.draw(st.integers(0, max(0, len(raw) - 1)))
        new = data.draw(st.sampled_from("0123456789abcdef xK:=,.-[]#\t\r\v\x1c\u00e9\u0663"))
        lines[number] = raw[:at] + new + raw[at + data.draw(st.integers(0, 1)) :]
    text = "".join(raw + "\n" for raw in lines)
    assert read(text, fold=True) == read(text, fold=False)


@FEW
@given(data=st.data())
def test_nor_where_lines_changed_places(name: str, data: st.DataObject) -> None:
    lines = few(name)[:]
    a, b = (data.draw(st.integers(0, len(lines) - 1)) for _ in range(2))
    lines[a], lines[b] = lines[b], lines[a]
    text = "".join(raw + "\n" for raw in lines)
    assert read(text, fold=True) == read(text, fold=False)
