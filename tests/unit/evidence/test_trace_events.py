# SPDX-License-Identifier: GPL-2.0-or-later
"""Each tracepoint in the spelling of each kernel (behaviour.md B.13)."""

from __future__ import annotations

import pytest

from harness.errors import CaptureDamaged
from harness.evidence.ftrace import Line
from harness.evidence.trace_events import decode, kinds_of
from harness.model.events import CR0_WRITTEN, INIT, Event, Kind

VCPUS = (100, 101)
IDS = (0, 1)


def one(event: str, text: str, *, tid: int = 100, comm: str = "CPU 0/KVM") -> Event:
    (found,) = decode([Line(7, comm, tid, 1, 12345, event, text)], VCPUS, IDS)
    return found


NPF = "vcpu 0 reason npf rip 0xffffffff81073916 info1 0x06 info2 0x00000000{} intr_info 0x{} error_code 0x0"


@pytest.mark.parametrize(
    ("event", "text", "kind", "fields"),
    [
        ("kvm_page_fault", "vcpu 0 rip 0x101234 address 0x0000000001000008 error_code 0x100000004", Kind.PF,
         {"gpa": 0x1000008, "value": 0x100000004, "data": 0x101234}),
        ("kvm_page_fault", "vcpu 0 rip 0xffffffff81000000 address 0x0000000001000008 error_code 0x4", Kind.PF,
         {"gpa": 0x1000008, "value": 4, "data": 0xFFFFFFFF81000000}),
        ("kvm_page_fault", "address 1000008 error_code 4", Kind.PF, {"gpa": 0x1000008, "value": 4, "data": 0}),
        ("kvm_try_async_get_page", "gva = 0x1000000, gfn = 0x1000", Kind.TRY, {"gpa": 0x1000000}),
        ("kvm_async_pf_repeated_fault", "gva = 0x1000000, gfn = 0x1000", Kind.REP, {"gpa": 0x1000000}),
        ("kvm_async_pf_doublefault", "gva = 0x1000000, gfn = 0x1000", Kind.REP, {"gpa": 0x1000000}),
        ("kvm_async_pf_not_present", "token 0x1000 gva 0x1000000", Kind.NP, {"token": 0x1000, "gpa": 0x1000000}),
        ("kvm_async_pf_ready", "token 0xffffffff gva 0x0", Kind.RDY, {"token": 0xFFFFFFFF, "gpa": 0}),
        ("kvm_async_pf_completed", "gva 0x1000000 address 0x7f0001000000", Kind.DONE,
         {"gpa": 0x1000000, "hva": 0x7F0001000000}),
        ("kvm_inj_exception", "#PF (0x0)", Kind.INJ, {"value": 0, "flag": False}),
        ("kvm_inj_exception", "#PF (0x0) [reinjected]", Kind.INJ, {"flag": True}),
        ("kvm_inj_exception", "#GP (0x0)", Kind.INJ_OTHER, {"flag": False}),
        ("kvm_inj_exception", "#UD", Kind.INJ_OTHER, {"flag": False}),
        ("kvm_apic_accept_irq", "apicid 1 vec 243 (Fixed|edge)", Kind.ACC,
         {"value": 243, "vcpu": 1, "flag": False, "token": 0}),
        ("kvm_apic_accept_irq", "apicid 1 vec 0 (INIT|edge)", Kind.ACC, {"value": 0, "vcpu": 1, "token": INIT}),
        ("kvm_apic_accept_irq", "apicid 1 vec 243 (Fixed|level) (coalesced)", Kind.ACC, {"value": 243, "flag": True}),
        *(
            ("kvm_exit", f"vcpu 0 reason {reason} rip 0x1011aa info1 {info1} info2 0x0", Kind.EXIT, {"value": written})
            for reason, info1, written in (
                ("cr0_sel_write", "0x0000000000000000", CR0_WRITTEN), ("write_cr0", "0x8000000000000000", CR0_WRITTEN),
                ("CR_ACCESS", "0x0000000000000000", CR0_WRITTEN), ("CR_ACCESS", "0x0000000000000103", 0),
                ("msr", "0x0000000000000000", 0),
            )
        ),
        ("kvm_msr", "msr_write 4b564d07 = 0x1", Kind.WRMSR, {"value": 0x4B564D07, "data": 1, "flag": False}),
        ("kvm_msr", "msr_write 4b564d02 = 0x10 (#GP)", Kind.WRMSR, {"flag": True, "data": 0x10}),
        ("kvm_msr", "msr_read 4b564d02 = 0x9", Kind.RDMSR, {"data": 9}),
        ("block_bio_queue", "253,0 R 2048 + 8 [CPU 0/KVM]", Kind.BIO,
         {"dev": 253 << 20, "flag": True, "value": 2048, "data": 8}),
        ("block_bio_queue", "253,1 RA 16 + 64 [kworker/0:1]", Kind.BIO, {"dev": 253 << 20 | 1, "flag": True}),
        ("block_bio_queue", "253,0 WS 16 + 8 [kworker/0:1]", Kind.BIO, {"flag": False}),
        ("block_bio_complete", "253,0 RA 104 + 128 [0]", Kind.BIO_END,
         {"dev": 253 << 20, "flag": True, "value": 104, "data": 128}),
        ("block_rq_complete", "43,0 R () 131144 + 8 [0]", Kind.BIO_END,
         {"dev": 43 << 20, "flag": True, "value": 131144, "data": 8}),
        ("block_rq_complete", "43,0 RA () 1256 + 256 none,0,0 [-5]", Kind.BIO_END,
         {"value": 1256, "data": 256, "token": 5}),
        ("block_bio_complete", "252,0 RA 1000 + 256 [-5]", Kind.BIO_END, {"token": 5}),
        ("work_start", "(async_pf_execute+0x0/0x1f0 [kvm])", Kind.WORK, {}),
        ("work_end", "(process_one_work+0x1/0x2 <- async_pf_execute)", Kind.WORK_END, {}),
        ("kick", "(kvm_vcpu_kick+0x0/0x90)", Kind.KICK, {}),
        ("kvm_userspace_exit", "reason restart (4)", Kind.USER_EXIT, {"value": 4}),
        ("kvm_userspace_exit", "reason error (14)", Kind.USER_EXIT, {"value": 14}),
        ("kvm_userspace_exit", "reason KVM_EXIT_IO (2)", Kind.USER_EXIT, {"value": 2}),
        ("kvm_inj_virq", "IRQ 0xf3", Kind.VIRQ, {"value": 0xF3, "flag": False}),
        ("kvm_inj_virq", "irq 243", Kind.VIRQ, {"value": 243}),
        ("kvm_inj_virq", "IRQ 0xf3 [reinjected]", Kind.VIRQ, {"value": 0xF3, "flag": True}),
        ("kvm_eoi", "apicid 0 vector 243", Kind.EOI, {"value": 243}),
        ("kvm_eoi", "apicid 0 vector -1", Kind.EOI, {"value": -1}),
        ("kvm_unmap_hva_range", "mmu notifier unmap range: 0x7f0000001000 -- 0x7f0000002000", Kind.UNMAP,
         {"hva": 0x7F0000001000, "data": 0x7F0000002000}),
        ("unmap_hva_range", "(kvm_mmu_notifier_invalidate_range_start+0x0/0xa0 [kvm]) start=0x5565d6b93000"
         " end=0x5565d6b94000", Kind.UNMAP, {"hva": 0x5565D6B93000, "data": 0x5565D6B94000}),
        ("mm_fault", "(handle_mm_fault+0x0/0x290) addr=0x7f0001000000 flags=0x1c", Kind.MM_FAULT,
         {"hva": 0x7F0001000000, "value": 0x1C}),
        ("mm_fault_ret", "(__get_user_pages+0x100/0x500 <- handle_mm_fault) ret=0x400", Kind.MM_FAULT_RET,
         {"value": 0x400}),
        ("kvm_entry", "vcpu 0, rip 0x101234", Kind.ENTRY, {"vcpu": 0}),
        ("kvm_exit", "vcpu 0 reason npf rip 0x1", Kind.EXIT, {"vcpu": 0}),
        ("kvm_exit", NPF.format(0, "800000ec"), Kind.EXIT, {"flag": True}),
        ("kvm_exit", NPF.format(0, "80000202"), Kind.EXIT, {"flag": True}),  # an NMI
        ("kvm_exit", NPF.format(0, "8000030e"), Kind.EXIT, {"flag": True}),  # #PF
        ("kvm_exit", NPF.format(0, "80000303"), Kind.EXIT, {"flag": False}),  # INT3 is executed again
        ("kvm_exit", NPF.format("80000000", "00000000"), Kind.EXIT, {"flag": False}),  # info2 is the address
        ("kvm_exit", NPF.replace("npf", "EPT_VIOLATION").format("800000ec", 0), Kind.EXIT, {"flag": True}),
        ("kvm_exit", NPF.replace("npf", "interrupt").format(0, "800000ec"), Kind.EXIT, {"flag": False}),
        ("kvm_vcpu_wakeup", "wait time 123 ns, polling valid", Kind.WAKEUP, {}),
    ],
)  # fmt: skip
def test_fields(event: str, text: str, kind: Kind, fields: dict[str, object]) -> None:
    found = one(event, text)
    assert found.kind is kind
    assert {name: getattr(found, name) for name in fields} == fields
    assert found.line == 7 and found.t_ns == 12345


def test_roles() -> None:
    assert one("kvm_entry", "vcpu 1, rip 0x0", tid=101).vcpu == 1
    assert one("kvm_async_pf_completed", "gva 0x0 address 0x0", tid=33, comm="kworker/0:1").worker
    other = one("block_bio_queue", "253,0 R 1 + 8 [dd]", tid=34, comm="dd")
    assert other.vcpu == -1 and not other.worker


def test_a_switch_between_two_vcpus_is_two_events() -> None:
    text = (
        "prev_comm=CPU 0/KVM prev_pid=100 prev_prio=120 prev_state=D|W ==> "
        "next_comm=CPU 1/KVM next_pid=101 next_prio=120"
    )
    out, into = decode([Line(1, "CPU 0/KVM", 100, 0, 5, "sched_switch", text)], VCPUS, IDS)
    assert (out.kind, out.vcpu, chr(out.value)) == (Kind.OUT, 0, "D")
    assert (into.kind, into.vcpu) == (Kind.IN, 1)


def test_who_is_woken_and_who_wakes() -> None:
    text = "comm=CPU 1/KVM pid=101 prio=120 target_cpu=001"
    of_another = text.replace("101", "999")
    lines = [Line(n, "kworker/0:1", 7, 0, n, "sched_waking", each) for n, each in enumerate((of_another, text))]
    (woken,) = decode(lines, VCPUS, IDS)
    assert (woken.kind, woken.value, woken.data, woken.vcpu, woken.tid) == (Kind.WAKING, 1, 101, -1, 7)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ("kvm_async_pf_ready", "token gva 0x0"),
        ("kvm_strange_thing", "x"),
        ("sched_switch", "prev_comm=x"),
        ("sched_switch", "prev_comm=x prev_pid=4 prev_prio=120 prev_state=S ==> next_comm=y next_pid=5 next_prio=120"),
        ("kvm_inj_exception", "#PF (7x0)"),
        ("sched_waking", "comm=x pid=y"),
    ],
)
def test_what_cannot_be_accounted_for_is_damage(event: str, text: str) -> None:
    with pytest.raises(CaptureDamaged, match=r"events\.txt:7"):
        one(event, text)


def test_kinds_that_a_trace_can_have() -> None:
    got = kinds_of(["kvm/kvm_entry", "kvm/kvm_msr", "sched/sched_switch", "apf/mm_fault_ret", "kvm/of_tomorrow"])
    assert got == {Kind.ENTRY, Kind.WRMSR, Kind.RDMSR, Kind.OUT, Kind.IN, Kind.MM_FAULT_RET, Kind.CLEAR}


def test_a_thread_that_came_later_is_its_vcpus() -> None:
    lines = [
        Line(n, "CPU 1/KVM", tid, 1, n, "kvm_entry", "vcpu 1, rip 0x1") for n, tid in enumerate((VCPUS[1], 900, 901))
    ]
    assert [e.vcpu for e in decode(lines, VCPUS, IDS, [(1, 900)])] == [1, 1, -1]
    accept = Line(1, "x", 5, 1, 1, "kvm_apic_accept_irq", f"apicid {len(VCPUS)} vec 1 (Fixed|edge)")
    (event,) = decode([accept], VCPUS, IDS, [(1, 900)])
    assert event.vcpu == -1, "there are no more vCPUs by it"


@pytest.mark.parametrize(("apic_id", "vcpu"), [(0, 0), (1, 1), (2, 2), (3, 1), (4, 3), (5, 1)])
def test_an_interrupt_is_that_vcpus_whose_apic_id_it_names(apic_id: int, vcpu: int) -> None:
    """An id that no vCPU has leaves it with its thread."""
    accept = Line(1, "CPU 1/KVM", 101, 1, 1, "kvm_apic_accept_irq", f"apicid {apic_id:x} vec 243 (Fixed|edge)")
    (event,) = decode([accept], (100, 101, 102, 103), (0, 1, 2, 4))
    assert event.vcpu == vcpu
