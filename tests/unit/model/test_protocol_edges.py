# SPDX-License-Identifier: GPL-2.0-or-later
"""Traces that are near a rule: what it must not hit, and how the checker gets by with little knowledge."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.model.events import CR0_WRITTEN, Kind
from harness.model.kernels import find_kernel
from harness.model.protocol.checker import ALL_KINDS, Checker, InitialVcpu, Obligation, RuleContext
from harness.model.protocol.rules import FaultState
from harness.model.pv_features import PvFeatures
from tests.unit.model.protocol_notation import (
    ACKED,
    BOTH,
    FAILED_ENABLE,
    GFN,
    KERNEL_FAULT,
    SET_UP,
    STANDARD,
    TOKEN_FAULT,
    feed_all,
    halt,
    page,
    ready,
    run,
    token,
    trace_of,
)


def test_done_must_come_from_a_kworker():
    trace = trace_of(f"{SET_UP} {BOTH}")
    for event in trace:
        if event.kind is Kind.DONE:
            event.worker = False
    checker = Checker(STANDARD, 1, int_vec=0, first_id=1)
    assert {v.rule for v in feed_all(checker, trace)} == {"D02"}


def test_no_interrupt_is_due_while_apf_is_disabled():
    """With EN=0 every missing page halts, and its RDY has no interrupt."""
    text = f"ENTRY EXIT WRMSR:INT=0xf3 ENTRY {halt(1, 0)} DONE:0 RDY:1@0 "
    assert run(text + "ENTRY", {}, STANDARD) == (set(), set())
    assert run(text + "ACC ENTRY", {}, STANDARD)[0] == {"D15"}


def test_no_fault_is_asynchronous_while_an_event_is_delivered():
    """kvm_event_needs_reinjection: whatever the page is touched with otherwise."""
    for context in ({}, {"faults": TOKEN_FAULT}):
        trace = trace_of(f"{SET_UP} {token(1, 0)} {ready(1, 0)}")
        next(e for e in trace if e.kind is Kind.EXIT and trace[trace.index(e) + 1].kind is Kind.PF).flag = True
        checker = Checker(STANDARD, 1, int_vec=0, first_id=1, context=RuleContext(**context))
        assert [v.rule for v in feed_all(checker, trace)] == ["D21"]


@pytest.mark.parametrize("late", [0, 1])
def test_what_waited_when_the_guest_freed_the_slot_waits_to_the_end(late):
    """Nothing has asked KVM to look again; what is completed behind that asks itself."""
    trace = trace_of(f"{SET_UP} {token(1, 0)} DONE:0 ENTRY EXIT ENTRY")
    for number, event in enumerate(trace):
        event.t_ns = number
    (done,) = (event for event in trace if event.kind is Kind.DONE)
    checker = Checker(STANDARD, 1, int_vec=0, first_id=1, context=RuleContext(slot_freed={0: done.t_ns - late}))
    assert list(feed_all(checker, trace)) == []
    assert [(o.rule, o.suspended) for o in checker.finish() if isinstance(o, Obligation)] == [("D05", not late)]


@pytest.mark.parametrize(("asked", "waits"), [("", True), ("WRMSR:ACK=1 ", False), ("WRMSR:SPIV=0x1ff ", False)])
def test_what_waited_when_the_guest_named_an_area_that_can_be_read_waits_to_the_end(asked, waits):
    """kvm_async_pf_wakeup_all asks for nothing where something waits; an ACK does, and a LAPIC that is enabled."""
    text = f"ENTRY {FAILED_ENABLE}{halt(1, 0)} DONE:0 ENTRY EXIT WRMSR:EN=0x801009 {asked}ENTRY EXIT ENTRY"
    trace = trace_of(text)
    for number, event in enumerate(trace):
        event.t_ns = number
    checker = Checker(STANDARD, 1, int_vec=0, first_id=1)
    list(feed_all(checker, trace))
    assert [(o.rule, o.suspended) for o in checker.finish() if isinstance(o, Obligation)] == [("D05", waits)]


def test_obligations_are_suspended_while_the_shared_area_cannot_be_read():
    checker = Checker(STANDARD, 1, int_vec=0, first_id=1)
    assert list(feed_all(checker, trace_of(f"ENTRY {FAILED_ENABLE}{halt(1, 0)} VIRQ ENTRY"))) == []
    assert [(o.rule, o.suspended) for o in checker.finish() if isinstance(o, Obligation)] == [("D05", True)]


def test_reserved_bits_in_en_change_nothing():
    text = f"{SET_UP} EXIT WRMSR_GP:EN=0x30 ENTRY {token(1, 0)} {ready(1, 0)}"
    assert run(text, {"faults": TOKEN_FAULT}, STANDARD) == (set(), set())


def test_a_rewrite_of_en_clears_nothing():
    text = f"{SET_UP} {token(1, 0)} EXIT WRMSR:EN=0x80100b ENTRY {ready(1, 0)}"
    assert run(text, {}, STANDARD) == (set(), set())


def test_a_wake_all_after_a_rewrite_with_live_works_is_possible_but_not_owed():
    enable = f"{SET_UP} {token(1, 0)} EXIT WRMSR:EN=0x801009"
    assert run(f"{enable} ALL ACC ENTRY {ACKED} {ready(1, 0)}", {}, STANDARD) == (set(), set())
    done_before = f"{SET_UP} {token(1, 0)} DONE:0 EXIT WRMSR:EN=0x801009 ALL ACC ENTRY"
    assert run(done_before, {}, STANDARD)[0] == {"D20"}


def test_kernels_that_do_not_flush_may_trace_done_later():
    old = replace(STANDARD, always_flush_work=False)
    text = f"{SET_UP} {token(1, 0)} EXIT RDY:1@0 ACC ENTRY DONE:0"
    assert run(text, {}, old) == (set(), set())
    assert run(text + " DONE:0", {}, old)[0] == {"D12"}
    assert run(text.replace(" DONE:0", ""), {}, old) == (set(), {"D12"})


def test_a_token_with_paging_off_is_legal_on_5_10():
    context = {"faults": {(0, GFN): (FaultState(paging=False),)}}
    assert run(f"{SET_UP} {token(1, 0)}", context, find_kernel("nowait-5.10"))[0] == set()


def test_a_halt_where_a_token_was_due_is_caught():
    text = f"{SET_UP} {halt(1, 0)} DONE:0 RDY:1@0 ENTRY"
    assert run(text, {"faults": TOKEN_FAULT, "area_stays": True}, STANDARD)[0] == {"D13"}
    assert run(text, {"faults": TOKEN_FAULT}, STANDARD)[0] == set()


def test_the_rip_of_a_fault_tells_its_cpl():
    rip = {"kernel_rip": 1 << 63}
    text = f"{SET_UP} {token(1, 0)}"
    assert run(text.replace("PF:0", "PF:0=0x401000"), rip, STANDARD)[0] == set()
    assert run(text.replace("PF:0", "PF:0=0xffffffff81000000"), rip, STANDARD)[0] == {"D22"}


def test_an_interrupt_may_end_an_l2_whose_token_halts():
    """A Linux guest that has booted before the trace: its first token tells that it has enabled, and it asks for #PF
    exits if it is offered them.  Its L2 has left by the entry where a halt is judged."""
    start = InitialVcpu(en=None, int_vec=None, last_id=None, live=None, wakeup=None)
    text = f"ENTRY {token(5, 0)} {ready(5, 0)} EXIT L2_ENTRY ENTRY EXIT L2_OUT PF:1=0x401000 TRY:1 NP:6@1 L2_EXIT ENTRY"

    def found(kernel: str, *, offered: bool) -> list[str]:
        context = RuleContext(kernel_rip=1 << 63, enabled_before=True, features=PvFeatures(vmexit=offered))
        checker = Checker(find_kernel(kernel), 1, initial=[start], context=context)
        return [v.rule for v in feed_all(checker, trace_of(text.replace("PF:0", "PF:0=0x401000")))]

    assert found("nowait-7.3", offered=False) == []
    assert found("nowait-7.3", offered=True) == ["D45"]


def test_a_page_fault_of_l2s_own_tables_is_no_token():
    """An L1 without nested paging intercepts #PF."""
    trace = trace_of(f"{SET_UP} EXIT L2_ENTRY ENTRY EXIT L2_OUT L2_EXIT:0x14=5 ENTRY")
    out = next(event for event in trace if event.kind is Kind.L2_OUT)

    def found(*, by_the_processor: bool) -> set[str]:
        out.flag = by_the_processor
        return {v.rule for v in feed_all(Checker(STANDARD, 1, int_vec=0, first_id=1), trace)}

    assert found(by_the_processor=True) == set()
    assert found(by_the_processor=False) == {"D45"}


def test_all_works_of_a_page_are_done_when_as_many_have_ended():
    """Which DONE is whose does not matter: one that cannot be told makes each halt end at once (B.8)."""
    text = (
        "ENTRY EXIT PF:0 TRY:0 NP:1@0 SLEEP ENTRY/1 EXIT/1 PF/1:0 TRY/1:0 NP/1:1@0 SLEEP/1 DONE:0 WAKING=1 {} IN/1"
        " RDY/1:1@0 ENTRY/1 IN ENTRY EXIT PF:1 TRY:1 NP:2@1 ENTRY EXIT PF:1 TRY:1 REP:1 ENTRY"
    )
    assert run(text.format("DONE:0"), {"faults": KERNEL_FAULT}, STANDARD)[0] == set()
    assert run(text.format(""), {"faults": KERNEL_FAULT}, STANDARD)[0] == {"D24"}


def test_what_is_unknown_at_the_start_is_learned():
    """A Linux guest that has booted before the trace: EN and the vector are seen at the first token."""
    text = f"ENTRY {token(5, 0)} {ready(5, 0)} {token(6, 1)} EXIT DONE:1 RDY:6@1 "
    start = InitialVcpu(en=None, int_vec=None, last_id=None, live=None, wakeup=None)

    def found(end: str) -> list[str]:
        checker = Checker(STANDARD, 1, initial=[start])
        violations = list(feed_all(checker, trace_of(text + end)))
        assert {"D01", "D08"} <= {u.rule for u in checker.unchecked if u.partly}
        assert checker.counts[0].acc == 2 - len(violations)
        return [v.rule for v in violations]

    assert found("ACC ENTRY") == []
    assert found("ENTRY") == ["D15"]


def test_the_vector_is_learned_from_a_page_that_was_ready_before_its_token():
    """NP, DONE, RDY, interrupt, #PF, ENTRY: the worker was done before the vCPU entered (S74), and nobody knows yet
    that the interrupt is the feature's.  A halt, and the timer that ends it, teach nothing."""
    start = InitialVcpu(en=None, int_vec=None, last_id=None, live=None, wakeup=None)

    def found(text: str) -> tuple[list[str], int]:
        checker = Checker(STANDARD, 1, initial=[start])
        return [v.rule for v in feed_all(checker, trace_of(text))], checker.counts[0].acc

    early = f"ENTRY {token(5, 0)} EXIT PF:1 TRY:1 NP:6@1 DONE:1 RDY:6@1 ACC INJ ENTRY {ACKED} "
    assert found(early) == ([], 1)
    assert found(early.replace("ACC ", "")) == (["D15"], 0)
    assert found(early + "EXIT DONE:0 RDY:5@0 ACC ENTRY") == ([], 2), "the vector is known by then"
    assert found(early + "EXIT DONE:0 RDY:5@0 ACC=0xf4 ENTRY") == (["D15"], 1)
    assert found(f"ENTRY {halt(5, 0)} DONE:0 RDY:5@0 ACC=0xec ENTRY") == ([], 0)


def test_send_always_allows_tokens_at_cpl0():
    enable = "ENTRY EXIT WRMSR:INT=0xf3 ENTRY EXIT WRMSR:EN=0x80100b ALL ACC ENTRY"
    assert run(f"{enable} {token(1, 0)}", {"faults": KERNEL_FAULT}, STANDARD)[0] == set()


def test_a_reset_between_np_and_entry_needs_no_injection():
    text = f"{SET_UP} EXIT PF:0 TRY:0 NP:1@0 CLEAR ENTRY DONE:0"
    assert run(text, {"faults": TOKEN_FAULT}, STANDARD) == (set(), set())


def test_ids_are_not_restarted_by_a_reset():
    text = f"{SET_UP} {token(1, 0)} EXIT CLEAR ENTRY {halt(2, 1)} ENTRY"
    assert run(text, {}, STANDARD)[0] == set()
    assert run(text.replace("NP:2@1", "NP:1@1"), {}, STANDARD)[0] == {"D04"}


def test_two_vcpus_with_the_same_page_need_a_done_each():
    text = "ENTRY/0 ENTRY/1 EXIT/0 TRY/0:0 NP/0:1@0 SLEEP/0 IN/0 EXIT/1 TRY/1:0 NP/1:1@0 SLEEP/1 IN/1 "
    once = text + "DONE:0 RDY/0:1@0 RDY/1:1@0 ENTRY/0 "
    assert run(once + "DONE:0 ENTRY/1", {}, STANDARD) == (set(), set())
    assert run(once + "ENTRY/1", {}, STANDARD) == ({"D11"}, {"D12"})


def test_pages_told_to_be_unresolvable_are_no_loop():
    loop = " ".join(f"{token(i, 0)} {ready(i, 0)}".replace("PF:0 ", "") for i in range(1, 20))
    assert run(f"{SET_UP} {loop}", {"loops": frozenset({GFN})}, STANDARD)[0] == set()


def test_missing_events_are_not_judged_by_d13():
    checker = Checker(STANDARD, 1, int_vec=0, first_id=1, recorded=ALL_KINDS - {Kind.OUT})
    assert list(feed_all(checker, trace_of(f"{SET_UP} EXIT PF:0 TRY:0 NP:1@0 ENTRY"))) == []
    assert "D13" in {u.rule for u in checker.unchecked}


def test_live_works_from_before_the_trace():
    start = InitialVcpu(en=0x801009, int_vec=0xF3, last_id=1, live=((0x1000, page("0")),))
    checker = Checker(STANDARD, 1, initial=[start])
    assert list(feed_all(checker, trace_of(f"ENTRY EXIT DONE:0 RDY:1@0 ENTRY {token(2, 0)}"))) == []


def test_an_injection_owed_at_the_end():
    assert run(f"{SET_UP} EXIT PF:0 TRY:0 NP:1@0 INJ", {}, STANDARD) == (set(), {"D05", "D13"})


def test_the_context_may_be_told_at_the_end():
    checker = Checker(STANDARD, 1, int_vec=0, first_id=1)
    assert list(feed_all(checker, trace_of(f"{SET_UP} {BOTH}"))) == []
    assert [v.rule for v in checker.finish(RuleContext(pf_guest=5))] == ["D14"]
    assert checker.finish(RuleContext(pf_guest=1)) == []


def test_rules_that_a_kernel_or_guest_makes_void():
    old = Checker(replace(STANDARD, always_flush_work=False), 1)
    assert "does not hold" in {u.rule: u.reason for u in old.unchecked}["D11"]


def test_the_x2apic_spiv_disables_the_lapic_too():
    text = f"{SET_UP} {token(1, 0)} DONE:0 EXIT WRMSR:SPIV=0x0ff RDY:1@0 ACC ENTRY"
    assert run(text, {}, STANDARD)[0] == {"D37"}
    assert run(text.replace("0x0ff", "0x1ff"), {}, STANDARD)[0] == set()
    lapic_off = f"{SET_UP} {token(1, 0)} DONE:0 EXIT WRMSR:SPIV=0x0ff ENTRY"
    assert run(lapic_off, {}, STANDARD) == (set(), set())  # the RDY is owed, but suspended


def test_two_tries_without_an_outcome_are_two_fails():
    text = f"{SET_UP} EXIT PF:0 TRY:0 PF:1 TRY:1 ENTRY {token(3, 2)}"
    checker = Checker(STANDARD, 1, int_vec=0, first_id=1)
    assert [v.rule for v in feed_all(checker, trace_of(text))] == ["D01", "D01"]
    assert checker.total.fail == 2


def test_a_try_pending_when_works_are_consumed_was_a_fail():
    text = f"{SET_UP} {token(1, 0)} EXIT PF:1 TRY:1 DONE:0 RDY:1@0 ACC ENTRY"
    assert run(text, {}, STANDARD)[0] == {"D01"}


def test_two_nps_or_a_rep_without_an_entry_between():
    first = f"{SET_UP} EXIT PF:0 TRY:0 NP:1@0"
    assert run(f"{first} TRY:1 NP:2@1 INJ ENTRY", {}, STANDARD)[0] == {"D13"}
    assert run(f"{first} TRY:0 REP:0 SLEEP IN ENTRY", {}, STANDARD)[0] == {"D13"}


def test_reinjections_and_page_faults_of_the_guest_are_no_tokens():
    events = trace_of(f"{SET_UP} {token(1, 0)} EXIT INJ INJ=0x2 ENTRY")
    events[-3].flag = True
    checker = Checker(STANDARD, 1, int_vec=0, first_id=1)
    assert list(feed_all(checker, events)) == []
    assert (checker.total.inj, checker.total.inj_reinjected) == (1, 1)


def test_events_of_unknown_threads_are_no_ones():
    text = f"{SET_UP} EXIT ENTRY"
    for name in ("TRY:0", "NP:1@0", "REP:0", "INJ", "RDY:1@0"):
        (event,) = trace_of(name)
        event.vcpu = -1
        checker = Checker(STANDARD, 1, int_vec=0, first_id=1)
        assert [v.rule for v in feed_all(checker, [*trace_of(text), event])] == ["D02"]


def test_an_interrupt_that_was_never_entered_with_is_owed():
    assert run(f"{SET_UP} {token(1, 0)} EXIT DONE:0 RDY:1@0 ACC", {}, STANDARD) == (set(), {"D16"})


def test_invalidations_of_pages_never_seen():
    assert run(f"{SET_UP} UNMAP:7 {BOTH}", {}, STANDARD) == (set(), set())


def test_pages_locked_by_others_are_no_business_of_d30():
    context = {"read_devices": frozenset({253 << 20}), "slots": {GFN: 0, GFN + 1: 8}, "single_toucher": True}
    read_by_neighbour = "EXIT PF:0 READ:0 READ:1 TRY:0 NP:1@0 INJ ENTRY EXIT PF:1 TRY:1 NP:2@1 INJ ENTRY"
    assert run(f"{SET_UP} {read_by_neighbour}", context, STANDARD)[0] == set()
    assert run(f"{SET_UP} {read_by_neighbour}".replace("READ:1 ", ""), context, STANDARD)[0] == {"D30"}
    context["userfaultfd"] = True
    assert run(f"{SET_UP} {read_by_neighbour}".replace("READ:1 ", ""), context, STANDARD)[0] == set()


def test_a_page_that_another_thread_has_added_and_not_submitted_is_locked_all_the_same():
    context = {"read_devices": frozenset({253 << 20}), "slots": {GFN: 0}, "single_toucher": True}
    added = "EXIT MM_FAULT:9 EXIT/1 ENTRY/1 PF:0 MM_FAULT MM_FAULT_RET TRY:0 NP:1@0 INJ ENTRY"
    assert run(f"{SET_UP} {added} READ:0@9 MM_FAULT_RET:9", context, STANDARD)[0] == set()
    assert run(f"{SET_UP} {added} READ:0@8 MM_FAULT_RET:9", context, STANDARD)[0] == {"D30"}, "by another"
    assert run(f"{SET_UP} {added} READ:1@9 MM_FAULT_RET:9 READ:0@9", context, STANDARD)[0] == {"D30"}, "too late"
    assert run(f"{SET_UP} {added}", context, STANDARD)[0] == {"D30"}, "never"


def test_a_halt_that_a_reset_or_the_end_of_the_trace_cuts_off_is_counted() -> None:
    for left in (f"{halt(1, 0)} USER_EXIT=10 DONE:0 CLEAR", halt(1, 0)):
        checker = Checker(STANDARD, 1, int_vec=0, first_id=1)
        assert not [v for event in trace_of(f"{SET_UP} {left}") for v in checker.feed(event)]
        checker.finish()
        assert (checker.total.nph, checker.total.npt) == (1, 0)


def test_what_a_reset_overtakes_before_the_entry_is_a_token_or_a_halt() -> None:
    """kvm_vcpu_reset drops a queued exception that pf_guest has counted already."""
    text = f"{SET_UP} {token(1, 0)} EXIT PF:1 TRY:1 NP:2@1 USER_EXIT=10 SLEEP IN CLEAR ENTRY DONE:0 DONE:1"
    for grown, rules in ((0, {"D14"}), (1, set()), (2, set()), (3, {"D14"})):
        checker = Checker(STANDARD, 1, int_vec=0, first_id=1)
        assert not [v for event in trace_of(text) for v in checker.feed(event)]
        assert {v.rule for v in checker.finish(RuleContext(pf_guest=grown))} == rules
        assert (checker.total.npt, checker.total.nph, checker.total.undecided) == (1, 0, 1)


def test_an_enable_that_the_features_refuse_stores_nothing() -> None:
    """guest_pv_has fails before msr_en_val is written: APF stays off, so the halt's RDY needs no shared area."""
    hidden = RuleContext(features=PvFeatures(interrupt=False, enforced=True))
    left = f"ENTRY EXIT WRMSR_GP:EN=0x801009 ENTRY {halt(1, 0)} DONE:0 RDY:1@0 ENTRY"
    for context, rules in ((hidden, set()), (RuleContext(), {"D44"})):
        checker = Checker(STANDARD, 1, int_vec=0, first_id=1, context=context)
        assert {v.rule for event in trace_of(left) for v in checker.feed(event)} == rules


def test_the_area_is_looked_up_again_only_behind_the_change_of_the_slots() -> None:
    """A snapshot excuses no ready event that was there before it."""
    unbound = trace_of(f"ENTRY EXIT WRMSR_GP:EN=0x801009 ENTRY {halt(1, 0)} DONE:0 RDY:1@0 ENTRY")
    ready = next(event.t_ns for event in unbound if event.kind is Kind.RDY)
    for changed_ns, rules in ((None, {"D44"}), (ready + 1, {"D44"}), (ready, set())):
        checker = Checker(STANDARD, 1, int_vec=0, first_id=1, context=RuleContext(slots_change_ns=changed_ns))
        assert {v.rule for event in unbound for v in checker.feed(event)} == rules


def test_a_thread_that_sleeps_behind_its_try_waits_for_the_page_itself() -> None:
    """Also at the end of a trace: the TRY has failed, and is counted."""
    checker = Checker(STANDARD, 1, int_vec=0, first_id=1)
    assert list(feed_all(checker, trace_of(f"{SET_UP} EXIT PF:0 TRY:0"))) == []
    assert checker.total.fail == 0
    assert [v.rule for v in feed_all(checker, trace_of("SLEEP"))] == ["D01"]
    assert checker.total.fail == 1


def test_a_write_of_cr0_in_a_program_that_flips_paging_drops_what_is_queued():
    """Up to 6.1.159 and 6.12.63 (B.10); whoever had not begun is dropped without a DONE."""

    def found(kernel: str, *, written: bool, flips: bool) -> set[str]:
        trace = trace_of(f"{SET_UP} {token(1, 0)} EXIT ENTRY {token(2, 0)}")
        left = [event for event in trace if event.kind is Kind.EXIT][-2]
        left.value = CR0_WRITTEN if written else 0
        checker = Checker(find_kernel(kernel), 1, int_vec=0, first_id=1, context=RuleContext(paging_flips=flips))
        return {v.rule for v in feed_all(checker, trace)}

    assert found("nowait-5.10", written=True, flips=True) == set()
    assert found("nowait-5.10", written=True, flips=False) == {"D07"}
    assert found("nowait-7.3", written=True, flips=True) == {"D07"}
    assert found("nowait-5.10", written=False, flips=True) == {"D07"}


def test_a_wake_all_is_owed_if_each_work_ended_after_the_write() -> None:
    enabled = "EXIT WRMSR:EN=0x801009 ENTRY"
    told = f"DONE:0 EXIT RDY:1@0 ACC ENTRY {ACKED}"
    owed = f"{SET_UP} {token(1, 0)} {enabled} MM_FAULT_RET:0 {told}"
    assert run(owed, {}, STANDARD) == (set(), {"D20"})
    assert run(f"{SET_UP} {token(1, 0)} MM_FAULT_RET:0 {enabled} {told}", {}, STANDARD) == (set(), set()), "before"
    assert run(f"{SET_UP} {token(1, 0)} {enabled} {told}", {}, STANDARD) == (set(), set()), "nobody knows when"
    both = f"{SET_UP} {token(1, 0)} {token(2, 1)} {enabled} MM_FAULT_RET:0 {told}"
    assert run(f"{both} MM_FAULT_RET:1 DONE:1 EXIT RDY:2@1 ACC ENTRY", {}, STANDARD) == (set(), {"D20"})
    assert run(f"{both} DONE:1 EXIT RDY:2@1 ACC ENTRY", {}, STANDARD) == (set(), set()), "one of two is enough"
    queued = f"{SET_UP} {token(1, 0)} EXIT WRMSR:EN=0x801009 ALL ACC ENTRY {ACKED} MM_FAULT_RET:0 {told}"
    assert run(queued, {}, STANDARD) == (set(), set())
    assert run(f"{owed} EXIT WRMSR:EN=0 ENTRY", {}, STANDARD) == (set(), set()), "and dropped"


def test_an_init_leaves_the_vector_and_a_reset_does_not() -> None:
    again = "ENTRY EXIT WRMSR:EN=0x801009 ALL ACC ENTRY"
    assert run(f"{SET_UP} EXIT CLEAR=2 {again}", {}, STANDARD)[0] == set()
    assert run(f"{SET_UP} EXIT CLEAR {again}", {}, STANDARD)[0] == {"D42"}


def test_a_ready_interrupt_is_edge_triggered() -> None:
    for level, rules in {False: set(), True: {"D15"}}.items():
        trace = trace_of(f"{SET_UP} {token(1, 0)} {ready(1, 0)}")
        for event in trace:
            if event.kind is Kind.ACC:
                event.flag = level
        checker = Checker(STANDARD, 1, int_vec=0, first_id=1)
        assert {v.rule for v in feed_all(checker, trace)} == rules


@pytest.mark.parametrize(("fixable", "rules"), [(2, set()), (1, {"D35"}), (None, set())])
def test_no_more_entries_are_fixed_than_there_can_be(fixable: int | None, rules: set[str]) -> None:
    stats = {"pf_taken": 2, "pf_fixed": 2, "pf_spurious": 0, "pf_emulate": 0}
    assert run(f"{SET_UP} {BOTH}", {"kvm_stats": stats, "fixable": fixable}, STANDARD)[0] == rules
