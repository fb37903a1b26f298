# SPDX-License-Identifier: GPL-2.0-or-later
"""The protocol checker against random legal traces, and against each kind of damage to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import ModelError
from harness.model.events import WAKE_ALL_TOKEN, Event, Kind
from harness.model.kernels import find_kernel
from harness.model.protocol.checker import Checker, InitialVcpu, Obligation, RuleContext, Violation
from tests.unit.model.protocol_notation import feed_all
from tests.unit.model.reference_kvm import CALM, ReferenceKvm

KERNEL = find_kernel("nowait-6.1")
STEP = st.tuples(st.integers(0, 10_000), st.integers(0, 1), st.integers(0, 255))
SCRIPT = st.lists(STEP, max_size=150)
QUICK = settings(max_examples=25, derandomize=True, suppress_health_check=list(HealthCheck))


def check(trace: list[Event], context: RuleContext, vcpus: int = 2, **kwargs) -> tuple[list[Violation], list]:
    checker = Checker(KERNEL, vcpus, int_vec=0, first_id=1, context=context, **kwargs)
    found = list(feed_all(checker, trace))
    return found, checker.finish()


def rules_of(trace: list[Event], context: RuleContext, vcpus: int = 2) -> set[str]:
    found, left = check(trace, context, vcpus)
    return {item.rule for item in (*found, *left)}


def make(script: list, actions: tuple[str, ...] = CALM, vcpus: int = 2) -> tuple[list[Event], RuleContext]:
    """A legal trace in which everything that began has ended."""
    reference = ReferenceKvm(vcpus)
    reference.play(script, actions)
    reference.drain()
    return reference.trace, reference.context()


@QUICK
@given(SCRIPT)
def test_a_legal_trace_breaks_nothing_and_owes_nothing(script):
    reference = ReferenceKvm()
    reference.play(script)
    reference.drain()
    found, left = check(reference.trace, reference.context())
    assert [v for v in found if v.rule != "D40"] == []  # soft: the reference may touch a page often
    assert left == []


@QUICK
@given(SCRIPT)
def test_a_legal_trace_cut_off_anywhere_owes_exactly_the_live_works(script):
    reference = ReferenceKvm()
    reference.play(script)
    found, left = check(reference.trace, reference.context())
    assert [v for v in found if v.strict] == []
    owed = sorted(o.event.token for o in left if isinstance(o, Obligation) and o.rule == "D05")
    assert owed == sorted(w["token"] for v in reference.vcpus for w in v.queue if w["gpa"] is not None)


@QUICK
@given(SCRIPT, st.integers(0, 300))
def test_a_trace_that_begins_in_the_middle_is_no_violation(script, begin):
    """Nothing is known of the time before: neither EN, nor ids, nor what is live."""
    reference = ReferenceKvm()
    reference.play(script)
    unknown = InitialVcpu(en=None, int_vec=0xF3, last_id=None, live=None, wakeup=None)
    checker = Checker(KERNEL, 2, initial=[unknown] * 2)
    found = list(feed_all(checker, reference.trace[begin:]))
    # DONEs of works from before the trace cannot be told from surplus ones: that alone may be reported
    assert {v.rule for v in found if v.strict} <= {"D12", "D10", "D42"}


def at(trace: list[Event], choose: Callable[[Event], bool], number: int) -> int | None:
    places = [i for i, event in enumerate(trace) if choose(event)]
    return places[number % len(places)] if places else None


def is_kind(*kinds: Kind) -> Callable[[Event], bool]:
    return lambda event: event.kind in kinds and event.token != WAKE_ALL_TOKEN


def drop(trace: list[Event], i: int) -> list[Event]:
    return trace[:i] + trace[i + 1 :]


def duplicate(trace: list[Event], i: int) -> list[Event]:
    return [*trace[: i + 1], replace(trace[i]), *trace[i + 1 :]]


def change(trace: list[Event], i: int, **fields: object) -> list[Event]:
    return [*trace[:i], replace(trace[i], **fields), *trace[i + 1 :]]


def swap_with_next(trace: list[Event], i: int) -> list[Event]:
    j = next(j for j in range(i + 1, len(trace)) if trace[j].vcpu == trace[i].vcpu)
    out = list(trace)
    out[i], out[j] = out[j], out[i]
    return out


def swap_with_previous(trace: list[Event], i: int) -> list[Event]:
    return swap_with_next(trace, max(j for j in range(i) if trace[j].vcpu == trace[i].vcpu))


def past_the_entry(trace: list[Event], i: int) -> list[Event]:
    j = next(j for j in range(i + 1, len(trace)) if trace[j].kind is Kind.ENTRY and trace[j].vcpu == trace[i].vcpu)
    return [*trace[:i], *trace[i + 1 : j + 1], trace[i], *trace[j + 1 :]]


def before_the_np(trace: list[Event], i: int) -> list[Event]:
    j = max(j for j in range(i) if trace[j].kind is Kind.NP and trace[j].gpa == trace[i].gpa)
    return [*trace[:j], trace[i], *trace[j:i], *trace[i + 1 :]]


def second_token(trace: list[Event], i: int) -> list[Event]:
    """After the ENTRY that follows the NP, the page faults again and gets another token instead of REP."""
    np = trace[i]
    j = next(j for j in range(i + 1, len(trace)) if trace[j].kind is Kind.ENTRY and trace[j].vcpu == np.vcpu)
    again = [Event(Kind.EXIT, np.vcpu), Event(Kind.TRY, np.vcpu, gpa=np.gpa), replace(np, token=np.token + 0x1000)]
    return [*trace[: j + 1], *again, Event(Kind.INJ, np.vcpu), Event(Kind.ENTRY, np.vcpu), *trace[j + 1 :]]


def still_live_at_entry(trace: list[Event], i: int) -> bool:
    j = next(j for j in range(i + 1, len(trace)) if trace[j].kind is Kind.ENTRY and trace[j].vcpu == trace[i].vcpu)
    return not any(event.kind is Kind.RDY and event.token == trace[i].token for event in trace[i:j])


DAMAGE: dict[str, tuple[Callable[[Event], bool], Callable[[list[Event], int], list[Event]], set[str]]] = {
    "drop NP": (is_kind(Kind.NP), drop, {"D01"}),
    "drop TRY": (is_kind(Kind.TRY), drop, {"D01"}),
    "drop REP": (is_kind(Kind.REP), drop, {"D01"}),
    "drop RDY": (is_kind(Kind.RDY), drop, {"D05"}),
    "drop DONE": (is_kind(Kind.DONE), drop, {"D11"}),
    "drop INJ": (is_kind(Kind.INJ), drop, {"D13"}),
    "drop ACC": (is_kind(Kind.ACC), drop, {"D15"}),
    "drop the wake-all": (lambda e: e.token == WAKE_ALL_TOKEN, drop, {"D20"}),
    "duplicate NP": (is_kind(Kind.NP), duplicate, {"D07"}),
    "duplicate TRY": (is_kind(Kind.TRY), duplicate, {"D01"}),
    "duplicate RDY": (is_kind(Kind.RDY), duplicate, {"D05"}),
    "duplicate DONE": (is_kind(Kind.DONE), duplicate, {"D12"}),
    "duplicate INJ": (is_kind(Kind.INJ), duplicate, {"D13"}),
    "duplicate ACC": (is_kind(Kind.ACC), duplicate, {"D15"}),
    "duplicate the wake-all": (lambda e: e.token == WAKE_ALL_TOKEN, duplicate, {"D20"}),
    "swap TRY and NP": (is_kind(Kind.NP), swap_with_previous, {"D01"}),
    "swap RDY and ACC": (is_kind(Kind.ACC), swap_with_previous, {"D15"}),
    "swap INJ and ENTRY": (is_kind(Kind.INJ), swap_with_next, {"D13"}),
    "token 0": (is_kind(Kind.NP), lambda t, i: change(t, i, token=0), {"D03"}),
    "token with id 0": (is_kind(Kind.NP), lambda t, i: change(t, i, token=t[i].vcpu), {"D03"}),
    "token of another vCPU": (is_kind(Kind.NP), lambda t, i: change(t, i, token=t[i].token ^ 1), {"D03"}),
    "token out of turn": (is_kind(Kind.NP), lambda t, i: change(t, i, token=t[i].token + 0x5000), {"D04"}),
    "RDY of a token never given": (is_kind(Kind.RDY), lambda t, i: change(t, i, token=0xABCDE000), {"D06"}),
    "RDY with another address": (is_kind(Kind.RDY), lambda t, i: change(t, i, gpa=t[i].gpa + 8), {"D06"}),
    "NP with another offset": (is_kind(Kind.NP), lambda t, i: change(t, i, gpa=t[i].gpa + 0x800), {"D38"}),
    "NP on another vCPU": (is_kind(Kind.NP), lambda t, i: change(t, i, vcpu=1 - t[i].vcpu), {"D03"}),
    "NP by another thread": (is_kind(Kind.NP), lambda t, i: change(t, i, vcpu=-1), {"D02"}),
    "RDY on another vCPU": (is_kind(Kind.RDY), lambda t, i: change(t, i, vcpu=1 - t[i].vcpu), {"D02"}),
    "INJ on another vCPU": (is_kind(Kind.INJ), lambda t, i: change(t, i, vcpu=1 - t[i].vcpu), {"D13"}),
    "DONE by a vCPU thread": (is_kind(Kind.DONE), lambda t, i: change(t, i, vcpu=0, worker=False), {"D02"}),
    "RDY past the entry": (is_kind(Kind.RDY), past_the_entry, {"D02"}),
    "NP past the entry": (is_kind(Kind.NP), past_the_entry, {"D02"}),
    "INJ past the entry": (is_kind(Kind.INJ), past_the_entry, {"D13"}),
    "DONE before NP": (is_kind(Kind.DONE), before_the_np, {"D10"}),
    "wrong vector": (is_kind(Kind.ACC), lambda t, i: change(t, i, value=0x31), {"D15"}),
    "second token for a live page": (is_kind(Kind.NP), second_token, {"D07"}),
}


@pytest.mark.parametrize("name", DAMAGE)
@QUICK
@given(SCRIPT, st.integers(0, 1000))
def test_damage_is_caught_by_the_right_rule(name, script, number):
    choose, damage, expected = DAMAGE[name]
    # a base that has each kind of event, so that no example is idle
    base = [
        (0, 0, 0),
        (0, 0, 1),
        (6, 0, 1),
        (6, 0, 1),
        (8, 0, 0),
        (10, 0, 0),
        (0, 1, 2),
        (0, 1, 3),
        (16, 1, 0),
        (0, 1, 3),
    ]
    # with two vCPUs the DONE may belong to either's work for the page: its order is then not determined
    vcpus = 1 if name == "DONE before NP" else 2
    trace, context = make(base + script, vcpus=vcpus)
    place = at(trace, choose, number)
    assert place is not None
    if name == "second token for a live page" and not still_live_at_entry(trace, place):
        return
    assert expected & rules_of(damage(trace, place), context, vcpus), f"line {trace[place].line}"


@QUICK
@given(SCRIPT, st.integers(0, 1000))
def test_a_token_injected_at_cpl0_is_caught(script, number):
    trace, context = make([(0, 0, 1), (0, 1, 1), *script])
    injected = {trace[i - 1].token for i, event in enumerate(trace) if event.kind is Kind.INJ}
    halts = [
        i
        for i, event in enumerate(trace)
        if event.kind is Kind.NP and event.gpa >> 12 & 1 and event.token not in injected
    ]
    place = halts[number % len(halts)]
    trace.insert(place + 1, Event(Kind.INJ, trace[place].vcpu, t_ns=trace[place].t_ns))
    found, _ = check(trace, context)
    assert found[0].rule == "D22"


def many_live(count: int) -> tuple[ReferenceKvm, RuleContext]:
    reference = ReferenceKvm(1, pages=200)
    for page in range(0, 2 * count, 2):
        reference.ack(reference.vcpus[0], 0)
        reference.touch(reference.vcpus[0], page)
    return reference, reference.context()


def test_64_live_works_and_then_a_blocking_fault_are_legal():
    reference, context = many_live(66)
    checker = Checker(KERNEL, 1, int_vec=0, first_id=1, context=context)
    assert list(feed_all(checker, reference.trace)) == []
    assert (checker.total.np, checker.total.fail) == (64, 2)
    reference.complete(reference.vcpus[0], 0)
    reference.kick(reference.vcpus[0], 0)
    before = len(reference.trace)
    reference.touch(reference.vcpus[0], 150)
    assert [e.token >> 12 for e in reference.trace[before:] if e.kind is Kind.NP] == [67]  # FAILs use up ids


def test_the_65th_live_work_is_caught():
    reference, context = many_live(64)
    v = reference.vcpus[0]
    gpa = 0x1000000 + 170 * 4096
    for kind, fields in ((Kind.EXIT, {}), (Kind.TRY, {"gpa": gpa}), (Kind.NP, {"gpa": gpa, "token": 65 << 12})):
        reference.emit(kind, v, **fields)
    found, _ = check(reference.trace, context, 1)
    assert [violation.rule for violation in found] == ["D09"]


def test_a_pending_wake_all_counts_for_the_limit():
    reference, context = many_live(63)
    v = reference.vcpus[0]
    v.slot = 0x1000  # the guest does not take the next token, so the wake-all stays queued
    reference.enable(v, 0)
    reference.touch(v, 150)
    checker = Checker(KERNEL, 1, int_vec=0, first_id=1, context=context)
    assert list(feed_all(checker, reference.trace)) == []
    assert checker.total.fail == 1


def test_the_token_id_wraps_to_1():
    reference = ReferenceKvm(1)
    reference.vcpus[0].ident = 0xFFFFE
    for page in (0, 2):
        reference.touch(reference.vcpus[0], page)
    start = InitialVcpu(en=0, last_id=0xFFFFE)
    checker = Checker(KERNEL, 1, initial=[start], context=reference.context())
    assert list(feed_all(checker, reference.trace)) == []
    assert [e.token >> 12 for e in reference.trace if e.kind is Kind.NP] == [0xFFFFF, 1]


def test_counts_of_a_trace():
    reference = ReferenceKvm(1)
    v = reference.vcpus[0]
    reference.ack(v, 0)
    for page in (0, 1):
        reference.touch(v, page)
    reference.interrupt(v, 0)
    reference.touch(v, 1)
    reference.drain()
    checker = Checker(KERNEL, 1, int_vec=0, first_id=1, context=reference.context())
    assert list(feed_all(checker, reference.trace)) == []
    counts = checker.total
    assert (counts.try_, counts.np, counts.npt, counts.nph, counts.rep, counts.fail) == (3, 2, 1, 1, 1, 0)
    assert (counts.done, counts.rdy, counts.rdy_wake_all, counts.inj, counts.acc, counts.pf) == (2, 2, 1, 1, 2, 3)
    assert checker.counts[0].np == 2


def test_an_event_of_an_unknown_vcpu_is_an_error():
    with pytest.raises(ModelError, match="vCPU 7"):
        Checker(KERNEL, 1).feed(Event(Kind.ENTRY, 7))


def test_initial_states_must_match_the_vcpus():
    with pytest.raises(ModelError):
        Checker(KERNEL, 2, initial=[InitialVcpu()])


def test_rules_without_context_are_named_as_unchecked():
    unchecked = {u.rule: u for u in Checker(KERNEL, 1).unchecked}
    assert "pf_guest" in unchecked["D14"].reason
    assert unchecked["D22"].partly
    assert "D04" not in unchecked
    recorded = frozenset(Kind) - {Kind.INJ}
    assert "INJ" in {u.rule: u for u in Checker(KERNEL, 1, recorded=recorded).unchecked}["D13"].reason
    assert "does not hold" in {u.rule: u for u in Checker(find_kernel("noio-6.1"), 1).unchecked}["D32"].reason
