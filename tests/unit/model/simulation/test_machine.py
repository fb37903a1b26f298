# SPDX-License-Identifier: GPL-2.0-or-later
"""Resets of the machine while pages are missing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract import plan as p
from harness.model.events import MSR_IA32_APICBASE, MSR_X2APIC_SPIV, WAKE_ALL_TOKEN, Kind
from harness.model.kernels import find_kernel
from harness.model.outcomes import Count, Outcome
from harness.model.simulation.simulate import simulate
from harness.prediction import predict, situation_of

KERNELS = ("nowait-5.10", "nowait-6.1", "nowait-6.12", "noio-6.1")


def reset_in_a_halt(vcpu: int) -> p.Plan:
    """The read takes 2 s; the vCPU halts for it, the machine is reset at 0.7 s; each vCPU has one more page to read."""
    pages = tuple(p.Page(p.POOL_GPA + n * 160 * p.PAGE_SIZE, p.PageStart.DROPPED, f"f[{n}]") for n in range(3))
    items = [p.Item(0, p.Op.TOUCH, vcpu=vcpu, gpa=pages[0].gpa, cpl=0, wait=True, page="f[0]")]
    items += [p.Item(1 + n, p.Op.TOUCH, vcpu=n, gpa=pages[1 + n].gpa, wait=True, pause_us=3_000_000 * (n != vcpu),
                     page=f"f[{n + 1}]") for n in range(2)]  # fmt: skip
    return p.Plan(
        scenario="reset", title="", nonce=7, guest=p.Guest(memory_mib=96, vcpus=2),
        swap=p.Swap(p.SwapKind.DELAY, delay_ms=2000),
        memory=p.Memory(p.Backing.FILE, share=True), items=tuple(items), pages=pages,
        timed=(p.TimedAction(700, (p.HostAction(p.HostWord.RESET),)),),
    )  # fmt: skip


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_boot_cpu_never_leaves_a_halt_that_a_reset_has_orphaned(kernel: str) -> None:
    """F1: kvm_pv_enable_async_pf and kvm_arch_vcpu_ioctl_set_mpstate leave apf.halted; nobody starts vCPU 1 either."""
    answer = simulate(situation_of(reset_in_a_halt(0), find_kernel(kernel)))
    assert not answer.ends and answer.known_faults == ("F1",)
    assert [i.outcome for i in answer.items] == [Outcome.HALT, Outcome.NONE, Outcome.NONE]
    assert answer.totals["RDY"] == Count.exactly(0) and answer.totals["RDY_ALL"] == Count.exactly(2)


@pytest.mark.parametrize("kernel", KERNELS)
def test_another_vcpu_is_given_an_init_which_ends_the_halt(kernel: str) -> None:
    answer = simulate(situation_of(reset_in_a_halt(1), find_kernel(kernel)))
    assert answer.ends and not answer.known_faults
    assert [i.outcome for i in answer.items] == [Outcome.HALT, Outcome.TOKEN, Outcome.TOKEN]


def test_a_kernel_without_the_fault_boots_again() -> None:
    mended = replace(find_kernel("nowait-6.1"), reset_keeps_halt=False)
    answer = simulate(situation_of(reset_in_a_halt(0), mended))
    assert answer.ends and not answer.known_faults


def halted(en_flags: int, *actions: p.HostWord, release: str = "step") -> p.Plan:
    """One vCPU halts for a page of anonymous memory, whose read waits for "release"; then these actions."""
    pages = tuple(p.Page(p.POOL_GPA + n * p.PAGE_SIZE, p.PageStart.SWAPPED, f"f[{n}]") for n in range(2))
    words = (p.HostAction(p.HostWord.WAIT_HALTED, 1), *(p.HostAction(word) for word in actions))
    return p.Plan(
        scenario="halted", title="", nonce=7, guest=p.Guest(apf=p.Apf(en_flags=en_flags)),
        memory=p.Memory(), swap=p.Swap(release=release, page_cluster=1), pages=pages,
        items=(p.Item(0, p.Op.TOUCH, gpa=pages[0].gpa, cpl=0, wait=True, page="f[0]"),),
        timed=(p.TimedAction(0, words),), deadline_s=8,
    )  # fmt: skip


LOAD = (
    p.HostWord.STOP, p.HostWord.RELEASE, p.HostWord.WAIT_DONE, p.HostWord.SAVEVM, p.HostWord.LOADVM, p.HostWord.CONT,
)  # fmt: skip


@pytest.mark.parametrize("kernel", [k for k in KERNELS if not k.startswith("noio")])  # which blocks in the second touch
@pytest.mark.parametrize("en_flags", [9, 0])
def test_an_nmi_ends_a_halt_which_begins_again(kernel: str, en_flags: int) -> None:
    answer = simulate(situation_of(halted(en_flags, p.HostWord.NMI, p.HostWord.WAIT_HALTED, p.HostWord.RELEASE),
                                   find_kernel(kernel)))  # fmt: skip
    (item,) = answer.items
    assert answer.ends and item.outcome is Outcome.HALT and item.later == (Outcome.REPEATED,)
    assert answer.totals["NMI"] == answer.totals["REP"] == Count.exactly(1)


@pytest.mark.parametrize("kernel", [k for k in KERNELS if not k.startswith("noio")])
@pytest.mark.parametrize(("nmis", "taken"), [(1, 1), (2, 2), (5, 2)])
def test_nmis_of_a_standing_machine_are_two_at_most(kernel: str, nmis: int, taken: int) -> None:
    """process_nmi: one is given, one waits behind it; the access faults once more when both handlers are through."""
    words = (p.HostWord.STOP, *[p.HostWord.NMI] * nmis, p.HostWord.CONT, p.HostWord.WAIT_HALTED, p.HostWord.RELEASE)
    answer = simulate(situation_of(halted(9, *words), find_kernel(kernel)))
    assert answer.ends
    assert answer.totals["NMI"] == Count.exactly(taken)
    assert answer.totals["REP"] == Count.exactly(1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_nmi_for_a_standing_machine_that_is_loaded_is_lost(kernel: str) -> None:
    """QEMU read the vCPU's events before it queued the NMI, and a load writes them as they were."""
    at = LOAD.index(p.HostWord.SAVEVM)
    words = (*LOAD[:at], p.HostWord.NMI, *LOAD[at:])
    answer = simulate(situation_of(halted(9, *words), find_kernel(kernel)))
    assert answer.ends and answer.totals["NMI"] == Count.exactly(0)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("word", [p.HostWord.STOP, p.HostWord.NMI, p.HostWord.SYNC])
def test_who_needs_the_thread_of_a_vcpu_interrupts_its_wait_or_waits_too(kernel: str, word: p.HostWord) -> None:
    """From 6.2 on (FOLL_INTERRUPTIBLE) a signal ends a sleep in handle_userfault, and the access faults once more."""
    plan = halted(9)
    words = (*[p.HostAction(word, 1)] * (1 + (word is p.HostWord.STOP)), p.HostAction(p.HostWord.CONT))
    plan = replace(
        plan, swap=p.Swap(p.SwapKind.USERFAULT, release="step"),
        guest=replace(plan.guest, vcpus=2),
        pages=tuple(replace(page, start=p.PageStart.UNTOUCHED) for page in plan.pages),
        items=(replace(plan.items[0], interrupts=False),),
        timed=(p.TimedAction(500, words[1:] if len(words) > 2 else words[:1]),
               p.TimedAction(2000, (p.HostAction(p.HostWord.RELEASE),))),
    )  # fmt: skip
    model = find_kernel(kernel)
    answer = simulate(situation_of(plan, model))
    cut = model.interruptible_gup
    assert answer.ends and answer.totals["BLOCK"] == Count.exactly(1 + cut)
    assert answer.totals["NMI"] == Count.exactly(2 * (word is p.HostWord.NMI))


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_nmi_does_not_come_before_a_release_that_stands_behind_it(kernel: str) -> None:
    """QEMU injects it in each vCPU's thread, and one of them sleeps for the page."""
    plan = halted(9, p.HostWord.NMI, p.HostWord.RELEASE)
    (timed,), (item,) = plan.timed, plan.items
    plan = replace(
        plan, guest=replace(plan.guest, vcpus=2), items=(replace(item, interrupts=False),),
        timed=(replace(timed, actions=timed.actions[1:]),),
    )  # fmt: skip
    assert not simulate(situation_of(plan, find_kernel(kernel))).ends


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_load_writes_en_and_its_wake_all_ends_the_halt(kernel: str) -> None:
    answer = simulate(situation_of(halted(9, *LOAD), find_kernel(kernel)))
    assert answer.ends and not answer.known_faults
    assert answer.totals["RDY"] == Count.exactly(0) and answer.totals["RDY_ALL"] == Count.exactly(2)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_snapshot_reads_a_page_that_nobody_has_touched(kernel: str) -> None:
    """f[2] is on the device and in nobody's window: QEMU's own thread reads it, and its read waits for no fault."""
    plan = halted(9, *LOAD)
    far = p.Page(p.POOL_GPA + 512 * p.PAGE_SIZE, p.PageStart.SWAPPED, "f[2]")
    plan = replace(plan, pages=(*plan.pages, far))
    answer = simulate(situation_of(plan, find_kernel(kernel)))
    assert answer.ends
    assert answer.totals["MAJ_OTHER"] == Count.exactly(1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_load_without_en_leaves_a_halt_for_ever(kernel: str) -> None:
    """F1 once more: the reset of loadvm drops the work, and nothing wakes the vCPU."""
    answer = simulate(situation_of(halted(0, *LOAD), find_kernel(kernel)))
    assert not answer.ends and answer.known_faults == ("F1",)
    mended = replace(find_kernel(kernel), reset_keeps_halt=False)
    answer = simulate(situation_of(halted(0, *LOAD), mended))
    assert answer.ends and not answer.known_faults


@pytest.mark.parametrize("replug", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_an_init_by_another_vcpu_starts_it_anew(kernel: str, replug: bool) -> None:
    """Its item is cut off, its program goes on behind it, and the INIT's sender waits until then.  ``replug``: it was
    ejected before, and plugged in again once its work was done; that alone does not let it run."""
    pages = tuple(p.Page(p.POOL_GPA + n * 160 * p.PAGE_SIZE, p.PageStart.DROPPED, f"f[{n}]") for n in range(2))
    words = (p.HostWord.RELEASE, p.HostWord.WAIT_DONE)
    plug = (*(p.HostAction(word) for word in words), p.HostAction(p.HostWord.PLUG, 1))
    between = (p.Item(3, p.Op.EJECT, value=1), p.Item(4, p.Op.HOST, value=1))[: 2 * replug]
    release = "step" if replug else "asleep"
    plan = p.Plan(
        scenario="init", title="", nonce=7, guest=p.Guest(memory_mib=96, vcpus=2), swap=p.Swap(release=release),
        memory=p.Memory(p.Backing.FILE, share=True), pages=pages,
        items=(
            p.Item(0, p.Op.TOUCH, vcpu=1, gpa=pages[0].gpa, cpl=0, wait=True, page="f[0]"),
            p.Item(1, p.Op.TOUCH, vcpu=1, gpa=pages[1].gpa, wait=True, page="f[1]"),
            p.Item(2, p.Op.HOST, value=0), *between, p.Item(3 + len(between), p.Op.INIT, value=1),
        ),
        host_actions=((p.HostAction(p.HostWord.WAIT_HALTED, 1),), plug),
    )  # fmt: skip
    answer = simulate(situation_of(plan, find_kernel(kernel)))
    assert answer.ends and not answer.known_faults
    assert [i.ends for i in answer.items] == [False, *(True for _ in plan.items[1:])]
    assert [i.outcome for i in answer.items[:2]] == [Outcome.HALT, Outcome.TOKEN]
    assert answer.totals["RDY_ALL"] == Count.exactly(3)


@pytest.mark.parametrize("cpu", ["host", "host,-x2apic"])
def test_a_lapic_whose_registers_are_memory_is_switched_without_an_event(cpu: str) -> None:
    """The write is emulated, not a write of MSR 80f: what it does is the same."""
    pages = (p.Page(p.POOL_GPA, p.PageStart.SWAPPED, "f[0]"), p.Page(p.POOL_GPA + p.PAGE_SIZE, p.PageStart.SWAPPED, ""))
    words = (p.HostWord.WAIT_NP, p.HostWord.RELEASE, p.HostWord.WAIT_DONE)
    plan = p.Plan(
        scenario="mmio", title="", nonce=7, guest=p.Guest(cpu=cpu), memory=p.Memory(), swap=p.Swap(release="step"),
        pages=pages,
        items=(
            p.Item(0, p.Op.TOUCH, gpa=pages[0].gpa, page="f[0]"), p.Item(1, p.Op.LAPIC, value=0),
            p.Item(2, p.Op.HOST, value=0), p.Item(3, p.Op.LAPIC, value=1),
        ),
        host_actions=(tuple(p.HostAction(word, int(word is p.HostWord.WAIT_NP)) for word in words),),
    )  # fmt: skip
    answer = simulate(situation_of(plan, find_kernel("nowait-6.1")))
    assert answer.ends and answer.totals["RDY"] == Count.exactly(1)
    switched = [e for e in answer.events if e.kind is Kind.WRMSR and e.value == MSR_X2APIC_SPIV]
    assert len(switched) == (2 if cpu == "host" else 0)


@pytest.mark.parametrize(("cpu", "writes"), [("host", (0xC00,)), ("host,-x2apic", ())])
def test_no_ready_event_comes_while_a_lapic_is_off_by_its_base(cpu: str, writes: tuple[int, ...]) -> None:
    """arch/x86/kvm/lapic.c:kvm_lapic_set_base asks for a look at the queue when it is on again."""
    page = p.Page(p.POOL_GPA, p.PageStart.DROPPED, "f[0]")
    words = (p.HostWord.WAIT_NP, p.HostWord.RELEASE, p.HostWord.WAIT_DONE)
    plan = p.Plan(
        scenario="base", title="", nonce=7, guest=p.Guest(cpu=cpu), memory=p.Memory(backing=p.Backing.FILE, share=True),
        swap=p.Swap(release="step"), pages=(page,),
        items=(
            p.Item(0, p.Op.TOUCH, gpa=page.gpa, page="f[0]"), p.Item(1, p.Op.LAPIC, value=2),
            p.Item(2, p.Op.HOST, value=0), p.Item(3, p.Op.LAPIC, value=3), p.Item(4, p.Op.WAIT),
        ),
        host_actions=(tuple(p.HostAction(word, int(word is p.HostWord.WAIT_NP)) for word in words),),
    )  # fmt: skip
    answer = simulate(situation_of(plan, find_kernel("nowait-6.1")))
    assert answer.ends and answer.totals["RDY"] == Count.exactly(1)
    seen = [e for e in answer.events if e.kind is Kind.RDY or (e.kind is Kind.WRMSR and e.value == MSR_IA32_APICBASE)]
    order = [e.data if e.kind is Kind.WRMSR else e.token for e in seen]
    assert order == [WAKE_ALL_TOKEN, 0, 0x800, 0x1000, *writes]


def _file_plan(*steps: p.Item, vcpus: int) -> p.Plan:
    """Neighbours in a shared file, which one read brings."""
    pages = tuple(p.Page(p.POOL_GPA + 0x1000 * n, p.PageStart.DROPPED, f"f[{n}]") for n in range(3))
    return p.Plan(
        scenario="reset", title="", nonce=7, guest=p.Guest(memory_mib=96, vcpus=vcpus), deadline_s=5, pages=pages,
        memory=p.Memory(p.Backing.FILE, share=True), swap=p.Swap(p.SwapKind.GATED),
        items=tuple(replace(step, index=n) for n, step in enumerate(steps)),
    )  # fmt: skip


def _touch(vcpu: int, page: int) -> p.Item:
    return p.Item(0, p.Op.TOUCH, vcpu=vcpu, gpa=p.POOL_GPA + 0x1000 * page, page=f"f[{page}]")


_RESET = p.Item(0, p.Op.RESET)
_RESETS = {
    "the boot CPU's work is cancelled, and its page comes with another of the next life": _file_plan(
        _touch(0, 0), _RESET, _touch(0, 1), vcpus=1
    ),
    "a work behind one that runs begins while the reset waits for that": _file_plan(
        _touch(1, 0), _touch(1, 1), _touch(0, 2), _RESET, _touch(0, 2), vcpus=2
    ),
    "another vCPU's work is cancelled, and its page comes with one that a reset waits for": _file_plan(
        _touch(1, 0), _touch(2, 1), replace(_RESET, pause_us=5000), _touch(0, 2), vcpus=3
    ),
}


@pytest.mark.parametrize("plan", _RESETS.values(), ids=_RESETS)
@pytest.mark.parametrize("kernel", ["nowait-5.10", "nowait-6.1", "nowait-6.12", "noio-6.1"])
def test_a_reset_ends_however_slow_workers_are(plan: p.Plan, kernel: str) -> None:
    answer = predict(plan, find_kernel(kernel), orders=60)
    assert answer.ends and not answer.undecided_end
