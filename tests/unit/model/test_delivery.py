# SPDX-License-Identifier: GPL-2.0-or-later
"""Table B.5 and the MSR, token, queue and clearing rules of behaviour.md as data over harness.model.delivery."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from harness.errors import ModelError
from harness.model import delivery as d
from harness.model.events import MSR_ASYNC_PF_ACK, MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT, WAKE_ALL_TOKEN
from harness.model.kernels import find_kernel, kernel_for
from harness.model.pv_features import PvFeatures
from harness.model.simulation.lapic_switches import set_base

ALL_KERNELS = ("nowait-5.10", "nowait-6.1", "nowait-6.12", "noio-6.1", "noio-6.1-p1")
AREA = 0x801000


def make(kernel: str = "nowait-6.1", **fields: object) -> d.ApfState:
    v = d.ApfState(find_kernel(kernel), en_val=AREA | 9, int_vec=0xF3, send_user_only=True, shared_ok=True, cpl=3)
    for name, value in fields.items():
        setattr(v, name, value)
    return v


def outcome(v: d.ApfState, gpa: int = 0x1000000) -> str:
    if not d.kvm_can_do_async_pf(v):
        return "sync"
    return d.kvm_setup_async_pf(v, gpa, write=False)[0].value


# behaviour.md B.5: CPL, IF, STI/MOVSS shadow, SEND_ALWAYS, EN, PG -> result; None: any
B5 = [
    (3, 1, 0, None, "on", 1, "token"),
    (0, 1, 0, 0, "on", 1, "halt"),
    (0, 1, 0, 1, "on", 1, "token"),
    (None, 0, None, None, None, None, "sync"),
    (None, 1, 1, None, None, None, "sync"),
    (None, 1, 0, None, "off", None, "halt"),
    (None, 1, 0, None, "no-int", None, "halt"),
]


def _expand(row: tuple[object, ...]) -> list[tuple[object, ...]]:
    domain: list[list[object]] = [[0, 3], [0, 1], [0, 1], [0, 1], ["on", "off", "no-int"], [0, 1]]
    return list(itertools.product(*([x] if x is not None else dom for x, dom in zip(row[:6], domain, strict=True))))


@pytest.mark.parametrize("kernel", ALL_KERNELS)
@pytest.mark.parametrize("row", B5)
def test_table_b5(kernel: str, row: tuple[object, ...]) -> None:
    for cpl, iflag, shadow, always, en, paging in _expand(row):
        value = {"on": 9, "off": 8, "no-int": 1}[str(en)] | (2 if always else 0)
        v = make(kernel, cpl=cpl, interrupts=bool(iflag), shadow=bool(shadow), en_val=AREA | value,
                 send_user_only=not always, paging=bool(paging))  # fmt: skip
        assert outcome(v) == row[6], (cpl, iflag, shadow, always, en, paging)


@pytest.mark.parametrize(("kernel", "want"), [("5.10", "token"), ("6.1", "halt"), ("6.12", "halt")])
def test_paging_off(kernel: str, want: str) -> None:
    kernel = f"nowait-{kernel}"
    assert outcome(make(kernel, paging=False)) == want
    assert outcome(make(kernel, paging=False, cpl=0)) == "halt"


def test_hlt_exits_disabled() -> None:
    assert outcome(make(hlt_exits=False)) == "token"
    assert outcome(make(hlt_exits=False, cpl=0)) == "sync"
    assert outcome(make(hlt_exits=False, en_val=0)) == "sync"


def test_no_lapic_or_event_delivery() -> None:
    assert outcome(make(lapic_in_kernel=False)) == "sync"
    assert outcome(make(event_injected=True)) == "sync"
    assert outcome(make(exception_pending=True)) == "sync"


def test_nested() -> None:
    deliver = make(guest_mode=True, delivery_as_pf_vmexit=True)
    assert outcome(deliver) == "token"
    assert outcome(make(guest_mode=True, delivery_as_pf_vmexit=True, cpl=0)) == "halt"
    assert outcome(make(guest_mode=True)) == "halt"
    assert outcome(make(guest_mode=True, interrupts=False)) == "halt", "L1 intercepts interrupts: still async"
    assert outcome(make(guest_mode=True, interrupts=False, l2=d.L2Controls(intercept_interrupts=False))) == "sync"


@pytest.mark.parametrize(
    ("l2", "interrupts", "want"),
    [
        (d.L2Controls(svm=True), False, "token"),  # V_INTR_MASKING: IF of L1 at VMRUN
        (d.L2Controls(svm=True, l1_interrupts=False), True, "sync"),
        (d.L2Controls(svm=True, intr_masking=False), True, "token"),  # IF of L2
        (d.L2Controls(svm=True, intr_masking=False), False, "sync"),
        (d.L2Controls(svm=True, intr_masking=False, intercept_interrupts=False), True, "token"),
        (d.L2Controls(svm=True, intr_masking=False, l1_interrupts=False), True, "token"),
    ],
)
def test_interrupts_in_an_l2_of_amd(l2: d.L2Controls, interrupts: bool, want: str) -> None:
    assert outcome(make(guest_mode=True, delivery_as_pf_vmexit=True, interrupts=interrupts, l2=l2)) == want


INTERCEPTED = d.L2Controls(svm=True, intercept_pf=True)
OPEN = d.L2Controls(svm=True)


@pytest.mark.parametrize(
    ("kernel", "l2", "asked", "rewritten", "want"),
    [
        ("5.10", OPEN, False, False, ("to-l2", "F4")),
        ("5.10", OPEN, True, False, ("to-l2", "F4")),
        ("5.10", INTERCEPTED, False, False, ("vmexit", "")),
        ("5.10", INTERCEPTED, False, True, ("vmexit", "")),
        ("5.10", d.L2Controls(), False, False, ("vmexit", "")),  # Intel: nested_vmx_check_exception knows nested_apf
        ("6.1", OPEN, False, False, ("lost", "F2")),
        ("6.1", INTERCEPTED, False, False, ("lost", "F2")),
        ("6.1", OPEN, True, False, ("vmexit", "")),  # an interrupt was accepted: KVM_REQ_EVENT
        ("6.1", OPEN, False, True, ("to-l2", "F3")),
        ("6.1", INTERCEPTED, False, True, ("vmexit", "")),  # KVM_SET_VCPU_EVENTS requests it
        ("7.2", OPEN, False, False, ("lost", "F2")),
        ("6.12", OPEN, False, False, ("vmexit", "")),
        ("6.12", OPEN, False, True, ("to-l2", "F3")),
        ("6.12", INTERCEPTED, False, True, ("vmexit", "")),
        ("7.3", OPEN, False, False, ("vmexit", "")),
        ("7.3", OPEN, False, True, ("to-l2", "F3")),
    ],
)  # fmt: skip
def test_who_gets_the_token_of_an_l2(
    kernel: str, l2: d.L2Controls, asked: bool, rewritten: bool, want: tuple[str, str]
) -> None:
    v = make(f"nowait-{kernel}", guest_mode=True, delivery_as_pf_vmexit=True, l2=l2)
    assert outcome(v) == "token" and v.exception_vmexit and not v.exception_pending
    assert v.flags == 1, "the word is written before anybody is told"
    v.req_event = v.req_event or asked
    assert d.kvm_check_nested_events(v, rewritten=rewritten) == want
    assert not v.exception_vmexit


def test_a_page_of_an_l2_is_mapped_early_only_if_its_tables_are_in_use() -> None:
    for of_l2 in (False, True):
        work = d.Work(1, 0x1000, guest_mode=of_l2)
        assert [d.wants_prefetch(make(), work, guest_mode=now) for now in (False, True)] == [not of_l2, of_l2]


def test_why_not_async_names_the_test_that_fails() -> None:
    assert "IF=0" in d.why_not_async(make(interrupts=False))
    assert "shadow" in d.why_not_async(make(shadow=True))
    with pytest.raises(ModelError):
        d.kvm_setup_async_pf(make(shadow=True), 0x1000, write=False)


def test_tokens_start_at_one_and_wrap_to_one() -> None:
    v = make(vcpu_id=5)
    assert d.alloc_apf_token(v) == 0x1005
    v.id = 0xFFFFE
    assert [d.alloc_apf_token(v) for _ in range(3)] == [0xFFFFF005, 0x1005, 0x2005]


def test_token_zero_before_5_10_103() -> None:
    old = d.ApfState(kernel_for("nowait", "5.10.102"))
    assert d.alloc_apf_token(old) == 0
    assert d.alloc_apf_token(old) == 0x1000
    assert d.alloc_apf_token(d.ApfState(kernel_for("nowait", "5.10.103"))) == 0x1000


def test_repeated_fault_is_a_halt_and_takes_no_token() -> None:
    v = make()
    assert outcome(v, 0x1000) == "token"
    v.exception_pending = False
    assert outcome(v, 0x1008) == "repeated"
    assert v.req_halt
    assert v.id == 1


def test_queue_holds_64_and_a_failed_setup_takes_a_token() -> None:
    v = make(cpl=0)
    got = [outcome(v, i << 12) for i in range(66)]
    assert got == ["halt"] * 64 + ["failed"] * 2
    assert v.id == 66
    assert v.queued == 64
    d.complete(v, v.queue[0])
    work = d.dequeue(v)
    assert work is not None
    d.kvm_arch_async_page_present(v, work)
    assert outcome(v, 65 << 12) == "halt"
    assert v.id == 67


def test_wake_all_takes_a_place_in_the_queue() -> None:
    v = make(cpl=0)
    assert d.kvm_async_pf_wakeup_all(v)
    assert [outcome(v, i << 12) for i in range(64)].count("halt") == 63


@pytest.mark.parametrize(
    ("value", "gp"),
    [(AREA | 9, False), (AREA | 1, False), (0, False), (AREA | 0x19, True), (AREA | 0x29, True), (AREA | 0xD, False)],
)
def test_en_reserved_bits(value: int, gp: bool) -> None:
    v = d.ApfState(find_kernel("nowait-6.1"), en_val=0x42)
    assert d.write_msr(v, MSR_ASYNC_PF_EN, value).gp is gp
    assert v.en_val == (0x42 if gp else value)


def test_hidden_features_gp_only_when_enforced() -> None:
    hidden = PvFeatures(async_pf=True, vmexit=False, interrupt=False, enforced=True)
    v = d.ApfState(find_kernel("nowait-6.1"), features=hidden)
    assert d.write_msr(v, MSR_ASYNC_PF_EN, AREA | 9).gp
    assert d.write_msr(v, MSR_ASYNC_PF_EN, AREA | 5).gp
    assert d.write_msr(v, MSR_ASYNC_PF_INT, 0xF3).gp
    assert d.write_msr(v, MSR_ASYNC_PF_ACK, 1).gp
    hidden.async_pf = False
    assert d.write_msr(v, MSR_ASYNC_PF_EN, AREA | 1).gp
    hidden.enforced = False
    assert not d.write_msr(v, MSR_ASYNC_PF_EN, AREA | 0xD).gp
    assert not d.write_msr(v, MSR_ASYNC_PF_INT, 0xF3).gp


def test_int_reserved_bits_and_unknown_msr() -> None:
    v = make()
    assert d.write_msr(v, MSR_ASYNC_PF_INT, 0x1F3).gp
    assert v.int_vec == 0xF3
    assert not d.write_msr(v, MSR_ASYNC_PF_INT, 0xF4).gp
    assert v.int_vec == 0xF4
    with pytest.raises(ModelError):
        d.write_msr(v, 0x10, 0)


def test_userspace_lapic() -> None:
    v = d.ApfState(find_kernel("nowait-6.1"), lapic_in_kernel=False)
    assert d.write_msr(v, MSR_ASYNC_PF_EN, AREA | 9).gp
    assert not d.write_msr(v, MSR_ASYNC_PF_EN, 0).gp
    assert d.write_msr(v, MSR_ASYNC_PF_INT, 0xF3).gp
    assert v.en_val == 0


def test_enable_without_bit3_is_accepted_and_disabled() -> None:
    v = make()
    assert d.write_msr(v, MSR_ASYNC_PF_EN, AREA | 1).clear
    assert not d.kvm_pv_async_pf_enabled(v.en_val)
    assert not v.done
    assert not d.write_msr(v, MSR_ASYNC_PF_EN, AREA | 0xB).clear
    assert [w.wakeup_all for w in v.done] == [True]
    assert not v.send_user_only


def test_enable_with_no_memory_behind_it() -> None:
    """S10: #GP, but the value stays, tokens cannot be written and ready events never come."""
    v = d.ApfState(find_kernel("nowait-6.1"), cpl=3)
    assert d.write_msr(v, MSR_ASYNC_PF_EN, (1 << 40) | 9, area_ok=False).gp
    assert d.kvm_pv_async_pf_enabled(v.en_val)
    assert outcome(v) == "halt"
    d.complete(v, v.queue[0])
    assert d.dequeue(v) is None
    assert not d.write_msr(v, MSR_ASYNC_PF_EN, AREA | 9).gp
    assert d.dequeue(v) is not None
    assert not v.done, "the done list was not empty, so no wake-all was queued"


def test_ready_of_a_token_raises_the_interrupt_and_of_a_halt_does_not() -> None:
    v = make()
    outcome(v, 0x1000)
    v.exception_pending = False
    v.cpl = 0
    outcome(v, 0x2000)
    v.halted = v.hlt = True
    halt, token = v.queue[1], v.queue[0]
    d.complete(v, halt)
    d.complete(v, token)
    first = d.dequeue(v)
    assert first is halt
    assert d.kvm_arch_async_page_present(v, first) == d.Ready(0x2000, 0x2000, irq=False)
    assert not v.halted and not v.hlt
    second = d.dequeue(v)
    assert second is token
    assert d.kvm_arch_async_page_present(v, second) == d.Ready(0x1000, 0x1000, irq=True)
    assert v.token == 0x1000
    assert v.pageready_pending
    assert v.queued == 0


@pytest.mark.parametrize("switch", [d.set_lapic_software_enable, set_base])
def test_busy_token_slot_and_lapic_hold_the_done_list(switch: Callable[[d.ApfState, bool], None]) -> None:
    v = make()
    outcome(v)
    d.complete(v, v.queue[0])
    v.token = 0x7000
    assert d.dequeue(v) is None
    v.token = 0
    switch(v, False)
    v.req_ready = False
    assert d.dequeue(v) is None
    switch(v, True)
    assert v.req_ready
    assert d.dequeue(v) is not None


@pytest.mark.parametrize(("switch", "asks"), [(d.set_lapic_software_enable, True), (set_base, False)])
def test_a_lapic_that_is_on_is_switched_on_again(switch: Callable[[d.ApfState, bool], None], asks: bool) -> None:
    """apic_set_spiv asks at each write, kvm_lapic_set_base where MSR_IA32_APICBASE_ENABLE changes."""
    v = make()
    v.req_ready = False
    switch(v, True)
    assert v.req_ready is asks


def test_lapic_does_not_defer_before_5_10_119() -> None:
    old = make()
    old.kernel = kernel_for("nowait", "5.10.118")
    outcome(old)
    d.complete(old, old.queue[0])
    old.lapic_sw = False
    assert d.dequeue(old) is not None


def test_a_completion_requests_ready_and_an_ack_of_one_pending_checks() -> None:
    v = make(pageready_pending=True)
    outcome(v)
    d.complete(v, v.queue[0])
    assert v.req_ready
    assert d.write_msr(v, MSR_ASYNC_PF_ACK, 1).check
    assert not v.pageready_pending
    v.pageready_pending = True
    assert not d.write_msr(v, MSR_ASYNC_PF_ACK, 0).check
    assert v.pageready_pending


def test_wake_all_only_on_an_empty_done_list() -> None:
    v = make()
    assert not d.write_msr(v, MSR_ASYNC_PF_EN, AREA | 9).clear
    assert len(v.done) == 1
    d.write_msr(v, MSR_ASYNC_PF_EN, AREA | 9)
    assert len(v.done) == 1
    work = d.dequeue(v)
    assert work is not None
    assert not d.wants_prefetch(v, work)
    assert d.kvm_arch_async_page_present(v, work) == d.Ready(WAKE_ALL_TOKEN, 0, irq=True)


def test_clear_cancels_what_waits_up_to_what_runs_and_waits_for_that() -> None:
    v = make(cpl=0)
    for i in range(4):
        outcome(v, i << 12)
    v.queue[1].state = d.WorkState.RUNNING
    finished = v.queue[2]
    d.complete(v, finished)
    running = d.begin_clear(v)
    assert running is not None
    assert [w.gfn for w in v.queue] == [1, 2, 3]  # what is behind the one that runs may start meanwhile
    d.complete(v, running)
    assert d.begin_clear(v) is None
    assert d.end_clear(v) == 2
    assert (v.queued, v.queue, v.done, v.gfns, v.id) == (0, [], [], set(), 4)


def test_vm_destruction_leaves_the_gfn_set() -> None:
    v = make()
    outcome(v)
    d.begin_clear(v)
    d.end_clear(v, vm_destroyed=True)
    assert len(v.gfns) == 1


def test_reset_zeroes_the_msrs_and_keeps_the_counter() -> None:
    v = make(pageready_pending=True, halted=True, hlt=True)
    outcome(v)
    d.reset(v)
    assert (v.en_val, v.int_vec, v.halted, v.hlt, v.id, v.pageready_pending) == (0, 0, False, False, 1, True)


def test_an_init_leaves_the_vector_and_a_write_of_the_vmm_does_not() -> None:
    v = make()
    d.write_msr(v, d.MSR_ASYNC_PF_INT, 0xF4)
    d.reset(v)
    assert (v.int_vec, v.vec) == (0, 0xF4)
    d.reset(v, by_vmm=True)
    assert v.vec == 0


@pytest.mark.parametrize(
    ("release", "clears", "requests"),
    [("5.10.262", True, False), ("6.1.159", True, False), ("6.1.160", False, True), ("6.12.64", False, True)],
)
def test_paging_flip(release: str, clears: bool, requests: bool) -> None:
    v = make()
    v.kernel = kernel_for("nowait", release)
    assert not d.set_paging(v, True), "no change"
    assert d.set_paging(v, False) is clears
    assert not v.req_ready
    assert d.set_paging(v, True) is clears
    assert v.req_ready is requests


def test_prefetch_is_skipped_after_a_paging_mode_change_with_shadow_paging() -> None:
    v = make(tdp=False)
    outcome(v)
    assert d.wants_prefetch(v, v.queue[0])
    v.paging = False
    assert not d.wants_prefetch(v, v.queue[0])
    v.tdp = True
    assert d.wants_prefetch(v, v.queue[0])


def test_what_wakes_a_blocked_vcpu() -> None:
    v = make()
    assert not d.kvm_vcpu_has_events(v, irq=False)
    assert d.kvm_vcpu_has_events(v, irq=True)
    outcome(v)
    assert d.kvm_vcpu_has_events(v, irq=False), "an exception is pending"
    v.exception_pending = False
    d.complete(v, v.queue[0])
    assert d.kvm_vcpu_has_events(v, irq=False)
