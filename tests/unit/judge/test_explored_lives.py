# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures of sound kernels whose guest begins a life anew, or whose pages are read more than once."""

from __future__ import annotations

import pytest

from harness.judge.verdict import judge_capture
from harness.run.judge_folder import model_of
from harness.status import Status
from tests.unit.judge.packed import packed_capture

SETTLED = {
    "area-not-read-while-the-lapic-is-off": "a work is completed while the LAPIC is off and the area's page away: the"
    " token word is not read (kvm_arch_can_dequeue_async_page_present asks kvm_lapic_enabled first)",
    "area-copied-under-userfaultfd": "KVM reads a token word whose page comes by a userfaultfd: the fault is made again"
    " though the page is there by then, and counts as major (arch/x86/mm/fault.c:do_user_addr_fault)",
    "lapic-on-again": "SPIV is written with bit 8 while it is set: apic_set_spiv asks for APF_READY, and what no ACK"
    " had looked at is told",
    "area-looked-up-again": "a refused EN leaves the address of the area before; a snapshot gives the memory slots"
    " another generation, and that area is looked up again (__kvm_gfn_to_hva_cache_init)",
    "snapshot-in-order-of-addresses": "QEMU reads the pages for a snapshot in the order of their addresses, in whatever"
    " order the sets stand in the scenario's file",
    "announced-before-queued": "a vCPU is preempted between a work's trace and schedule_work, so that another's work of"
    " the same page begins first (virt/kvm/async_pf.c:kvm_setup_async_pf; 7.3)",
    "read-for-a-later-fault": "what another process has read is reclaimed before the guest is told, and read by the"
    " vCPU's thread in the second fault of the access (7.3)",
    "timer-behind-an-init": "a vCPU that has its LAPIC's timer set is given an INIT: the guest sets it again (7.3)",
    "init-long-before-it-is-pending": "a vCPU that sends an INIT is preempted for 29 ms behind its trace: the other"
    " runs on, under a timer, and faults on its page again (5.10; arch/x86/kvm/lapic.c:__apic_accept_irq)",
    "tick-before-a-reset": "a tick of the timer is accepted while a vCPU sleeps in HLT, and the machine is reset"
    " before it is taken (a q35 with a split irqchip; 7.3)",
    "nmi-beside-a-reading": "inject-nmi waits in QEMU for info registers, which gets each vCPU out of KVM_RUN before it"
    " is given its NMI, and that ends its halt (6.12)",
    "past-before-it-is-told": "a vCPU waits for another one in a step, when it is past those before, and is told of its"
    " page in that loop: a third, which waits for it, has gone on long before (6.12; guest-images/probe/sched.c)",
    "past-while-stopped": "the same, where the machine is stopped between, and the vCPU is told behind it (6.12)",
    "left-when-another-failed": "KVM_RUN of a vCPU fails while another sleeps for its page, which leaves KVM_RUN when"
    " it has that, and is stopped (arch/x86/kvm/x86.c:vcpu_run; 6.1)",
    "ejected-thread-frees-its-own": "an ejected vCPU's thread unmaps its stack behind its last page fault (5.10)",
    "slept-for-mmap-lock": "an ejected vCPU's thread unmaps its stack, and another vCPU sleeps for mmap_lock before it"
    " asks for its page (mm/gup.c:get_user_pages_unlocked; 5.10)",
    "init-of-who-was-reset": "a machine is reset, of which each AP is given an INIT, and one another before it has"
    " written down its wake-all, as in the life behind that (5.10)",
    "second-init-at-once": "a vCPU that has begun anew is given another INIT before it writes INT or EN (7.3)",
    "completed-for-who-was-ejected": "a vCPU is plugged, and works of before run on while its queue is emptied:"
    " one completes for a page that another vCPU waits for, too (7.3)",
    "init-behind-its-last-wait": "a vCPU has ended with a wait for all of its touches, and is given an INIT: what is"
    " over is not performed again (6.12, zram; guest-images/probe/sched.c)",
    "vcpus-in-a-ring": "four vCPUs, each `after` the one before: one is past its touch while its token waits (6.1)",
}


@pytest.mark.parametrize("name", SETTLED)
def test_a_sound_kernel_agrees(name: str) -> None:
    files = packed_capture(f"explored-{name}")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.PASS, verdict.reason


def test_a_vcpu_waits_for_the_end_of_a_work_before_it_enters_and_not_for_its_page() -> None:
    """debian-6.1: L2 faults again on a page that has come, and KVM, which tells L1 of it, waits for its kworker."""
    files = packed_capture("explored-work-waited-for")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.word == "FINDING F2", verdict.reason


def test_a_guest_that_is_reset_writes_the_nested_tables_of_its_l2_anew() -> None:
    """debian-5.10: L2 faults on what L1 has mapped, once for all pages below an entry of its tables
    (arch/x86/kvm/mmu/mmu.c:kvm_mmu_pte_write)."""
    files = packed_capture("explored-nested-tables-anew")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.word == "FINDING F4", verdict.reason
