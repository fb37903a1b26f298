# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows of the catalogue that are no scenario file (yet): plans made here, counts from the catalogue or behaviour.md."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract import plan as p
from harness.contract.capture import PageProof, Precondition
from harness.errors import ModelError
from harness.model.events import MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT, Kind
from harness.model.kernels import find_kernel
from harness.model.outcomes import UNBOUNDED, Count, Outcome
from harness.model.simulation.linux_guest import LinuxGuest, predict_linux
from harness.model.simulation.simulate import simulate
from harness.model.simulation.situation import Prediction, Situation
from harness.prediction import predict, situation_of

N61, N612, NIO, P1 = "nowait-6.1", "nowait-6.12", "noio-6.1", "noio-6.1-p1"
OWN = 0x801000
STRIDE = 256
FILE = p.Memory(p.Backing.FILE, share=True)


def gpa(n: int) -> int:
    return p.POOL_GPA + n * STRIDE * p.PAGE_SIZE


def touch(n: int, **fields: object) -> p.Item:
    return p.Item(0, p.Op.TOUCH, gpa=gpa(n), page=f"f[{n}]", **fields)  # type: ignore[arg-type]


def op(kind: p.Op, **fields: object) -> p.Item:
    return p.Item(0, kind, **fields)  # type: ignore[arg-type]


def plan(
    *items: p.Item, pages: int = 3, start: p.PageStart = p.PageStart.DROPPED, memory: p.Memory = FILE,
    guest: p.Guest | None = None, apf: p.Apf | None = None, swap: p.Swap | None = None,
    actions: tuple[tuple[p.HostAction, ...], ...] = (), timed: tuple[p.TimedAction, ...] = (),
) -> p.Plan:  # fmt: skip
    guest = guest or p.Guest(memory_mib=256)
    return p.Plan(
        scenario="row", title="", nonce=7, guest=replace(guest, memory_mib=256, apf=apf or p.Apf()), memory=memory,
        swap=swap or p.Swap(p.SwapKind.DELAY, delay_ms=400),
        items=tuple(p.changed(i, index=n) for n, i in enumerate(items)),
        pages=tuple(p.Page(gpa(n), start, f"f[{n}]") for n in range(pages)), host_actions=actions, timed=timed,
    )  # fmt: skip


def ask(the_plan: p.Plan, kernel: str = N61) -> Prediction:
    return predict(the_plan, find_kernel(kernel))


def totals(answer: Prediction, **want: int) -> None:
    got = {name: answer.totals[name] for name in want}
    assert got == {name: Count.exactly(n) for name, n in want.items()}


def test_s05_userspace_lapic() -> None:
    answer = ask(plan(touch(0), guest=p.Guest(irqchip="off")))
    totals(answer, TRY=0, SYNC=1, MAJ_V=1, RDY_ALL=0, ACC=0)
    assert "APIC" in answer.items[0].why


def test_s07_hlt_exits_disabled() -> None:
    items = (touch(0), touch(0, pause_us=50_000), touch(1, cpl=0))
    answer = ask(plan(*items, guest=p.Guest(cpu_pm=True, idle="spin")))
    totals(answer, NPt=1, NPh=0, REP=1, SYNC=1)
    assert [i.outcome for i in answer.items] == [Outcome.TOKEN, Outcome.REPEATED, Outcome.SYNC]


def test_a_token_has_kvms_id_of_its_vcpu() -> None:
    """vCPU 3 of sockets of three cores (S380)."""
    tokens = {
        cores: ask(plan(touch(0, vcpu=3), guest=p.Guest(vcpus=4, cores=cores))).items[0].tokens for cores in (0, 3)
    }
    assert tokens == {0: (0x1003,), 3: (0x1004,)}


@pytest.mark.parametrize("realtime", [False, True])
def test_s295_of_a_realtime_vcpu_no_worker_begins_before_it_sleeps(realtime: bool) -> None:
    off = op(p.Op.WRMSR, msr=MSR_ASYNC_PF_EN, value=0, pause_us=20_000)
    answer = ask(plan(touch(0), off, touch(0, cpl=0), guest=p.Guest(realtime=realtime)))
    totals(answer, NPt=1, DONE=1)
    assert (answer.totals["NPh"].low, answer.totals["NPh"].high) == (0, int(realtime))


def test_s08_enabled_without_delivery_as_interrupt() -> None:
    totals(ask(plan(touch(0), apf=p.Apf(en_flags=1))), NPh=1, NPt=0, RDY=1, RDY_ALL=0, ACC=0)
    totals(ask(plan(touch(0), apf=p.Apf(en_flags=9))), NPh=0, NPt=1, RDY=1, RDY_ALL=1, ACC=2)


@pytest.mark.parametrize(
    ("msr", "value", "gp"),
    [(MSR_ASYNC_PF_EN, OWN | 0x19, True), (MSR_ASYNC_PF_EN, OWN | 0x29, True), (MSR_ASYNC_PF_INT, 0x1F3, True),
     (MSR_ASYNC_PF_EN, OWN | 9, False), (MSR_ASYNC_PF_EN, (1 << 40) | 9, True)],
)  # fmt: skip
def test_s09_general_protection(msr: int, value: int, gp: bool) -> None:
    answer = ask(plan(op(p.Op.WRMSR, msr=msr, value=value)))
    assert answer.items[0].gp is gp


def test_s10_area_without_memory() -> None:
    """Halts, DONE, never READY; the retry maps the page once it is resident."""
    answer = ask(plan(touch(0), touch(1), apf=p.Apf(en_gpa=1 << 40)))
    totals(answer, NPt=0, NPh=2, DONE=2, RDY=0, RDY_ALL=0)
    assert answer.ends
    assert answer.totals["REP"].high == UNBOUNDED, "with done stuck, a halt is a busy loop"


def test_s10_recovery_takes_a_valid_write_and_an_ack() -> None:
    """async_pf.c:kvm_async_pf_wakeup_all requests nothing while done is not empty; the ACK write looks at done."""
    valid = op(p.Op.WRMSR, msr=MSR_ASYNC_PF_EN, value=OWN | 9)
    ack = op(p.Op.WRMSR, msr=0x4B564D07, value=1)
    totals(ask(plan(touch(0), valid, apf=p.Apf(en_gpa=1 << 40))), RDY=0, RDY_ALL=0, DONE=1)
    totals(ask(plan(touch(0), valid, ack, apf=p.Apf(en_gpa=1 << 40))), RDY=1, RDY_ALL=0, DONE=1)
    disable = op(p.Op.WRMSR, msr=MSR_ASYNC_PF_EN, value=0)
    pause = op(p.Op.PAUSE, pause_us=1000)
    totals(ask(plan(touch(0), disable, valid, pause, apf=p.Apf(en_gpa=1 << 40))), RDY=0, RDY_ALL=1, DONE=1)


def test_s12_vector_zero_is_never_delivered() -> None:
    """The wake-all raises vector 0, which is never above the processor priority: the token word stays busy."""
    answer = ask(plan(touch(0), apf=p.Apf(vector=0)))
    totals(answer, RDY_ALL=1, NPt=1, RDY=0, ACC=1, ACK=0)
    assert not answer.ends


@pytest.mark.parametrize(
    ("kernel", "want"),
    [(N612, {"TRY": 0, "MAJ_V": 3, "SWPIN_ZERO": 3, "PSWPIN": 0, "BIO_V": 0}),
     (N61, {"TRY": 0, "MAJ_V": 3, "PSWPIN": 3, "SWPIN_ZERO": 0}), (NIO, {"NPt": 3, "MAJ_V": 0, "PSWPIN": 3})],
)  # fmt: skip
def test_s33_pages_of_zeroes(kernel: str, want: dict[str, int]) -> None:
    the_plan = plan(*(touch(n, wait=True) for n in range(3)), start=p.PageStart.ZERO_SWAPPED, memory=p.Memory(),
                    swap=p.Swap(p.SwapKind.DELAY, delay_ms=50, page_cluster=0))  # fmt: skip
    answer = ask(the_plan, kernel)
    totals(answer, **want)
    assert [i.value for i in answer.items] == [0, 0, 0]


@pytest.mark.parametrize("kernel", [N61, N612, P1])
def test_s35_memfd_neighbour_in_flight(kernel: str) -> None:
    memory = p.Memory(p.Backing.MEMFD, share=True)
    items = (touch(0, vcpu=0), touch(1, vcpu=1, pause_us=50_000))
    the_plan = plan(*items, start=p.PageStart.SWAPPED, memory=memory, guest=p.Guest(vcpus=2),
                    swap=p.Swap(p.SwapKind.DELAY, delay_ms=400, page_cluster=3))  # fmt: skip
    answer = ask(the_plan, kernel)
    assert answer.totals["TRY"] == Count.exactly(0)
    assert answer.items[0].outcome is Outcome.SYNC
    assert answer.items[1].outcome is Outcome.BLOCK


def test_s35_noio() -> None:
    memory = p.Memory(p.Backing.MEMFD, share=True)
    items = (touch(0, vcpu=0), touch(1, vcpu=1, pause_us=50_000))
    the_plan = plan(*items, start=p.PageStart.SWAPPED, memory=memory, guest=p.Guest(vcpus=2),
                    swap=p.Swap(p.SwapKind.DELAY, delay_ms=400, page_cluster=3))  # fmt: skip
    answer = ask(the_plan, NIO)
    assert [i.outcome for i in answer.items] == [Outcome.TOKEN, Outcome.BLOCK]


@pytest.mark.parametrize(
    ("kernel", "want"),
    [(N61, {"NPt": 1, "PGMAJ": 0, "BIO_V": 0, "BLOCK": 0}), (NIO, {"TRY": 0, "BLOCK": 1, "BIO_V": 0, "BIO_W": 0})],
)
def test_s38_another_process_reads_the_page(kernel: str, want: dict[str, int]) -> None:
    lock = ((p.HostAction(p.HostWord.LOCK_READ, gpa(0)),),)
    totals(ask(plan(op(p.Op.HOST, value=0), touch(0), actions=lock), kernel), **want)


def test_s39_private_file_mapping() -> None:
    answer = ask(plan(touch(0), touch(1), memory=p.Memory(p.Backing.FILE, share=False)))
    totals(answer, NPt=2, PGMAJ=2, MAJ_V=0)


@pytest.mark.parametrize("kernel", [N61, NIO])
def test_s47_an_unreadable_page_is_an_endless_cycle(kernel: str) -> None:
    situation = _with_page(situation_of(plan(touch(0)), find_kernel(kernel)), read_fails=True)
    answer = simulate(situation)
    assert not answer.ends
    assert answer.totals["NPt"].low > 3
    assert answer.totals["NPt"].high == UNBOUNDED
    assert answer.totals["RDY"].high == UNBOUNDED


def test_s47_with_interrupts_off_the_vmm_gets_the_error() -> None:
    situation = _with_page(situation_of(plan(touch(0, interrupts=False)), find_kernel(N61)), read_fails=True)
    answer = simulate(situation)
    assert not answer.ends
    assert answer.items[0].outcome is Outcome.ERROR
    totals(answer, TRY=0, NP=0)


def _with_page(situation: Situation, **fields: object) -> Situation:
    first = situation.pages[0]
    changed = replace(first, page=replace(first.page, **fields))  # type: ignore[arg-type]
    return replace(situation, pages=(changed, *situation.pages[1:]))


@pytest.mark.parametrize(
    ("kernel", "want"), [(N61, {"TRY": 0, "MAJ_V": 1, "PSWPIN": 0}), (NIO, {"NPt": 1, "MAJ_V": 0, "PSWPIN": 0})]
)
def test_s32_zswap(kernel: str, want: dict[str, int]) -> None:
    the_plan = plan(
        touch(0), start=p.PageStart.SWAPPED, memory=p.Memory(), swap=p.Swap(p.SwapKind.DELAY, page_cluster=0)
    )
    situation = situation_of(the_plan, find_kernel(kernel))
    slot = situation.pages[0].page.swap
    assert slot is not None
    totals(simulate(_with_page(situation, swap=replace(slot, zswap=True))), **want)


def test_s71_ack_before_zeroing_does_not_deliver_the_second() -> None:
    """Both complete with interrupts off; the first READY's ACK comes while the token word is busy."""
    items = (touch(0), touch(1), op(p.Op.PAUSE, interrupts=False, pause_us=600_000), op(p.Op.PAUSE, pause_us=300_000),
             op(p.Op.WRMSR, msr=0x4B564D07, value=1))  # fmt: skip
    answer = ask(plan(*items, apf=p.Apf(ack_first=True)))
    totals(answer, NPt=2, RDY=2, ACC=3, ACK=4)
    without = ask(plan(*items[:-1], apf=p.Apf(ack_first=True)))
    totals(without, NPt=2, RDY=1)
    assert not without.ends


def test_s73_no_memory_for_the_work() -> None:
    situation = replace(situation_of(plan(touch(0), touch(1, wait=True)), find_kernel(N61)), failing_setups=(0,))
    answer = simulate(situation)
    totals(answer, TRY=2, NP=1, NPh=0, FAIL=1, SYNC=1)
    assert answer.items[1].tokens == (0x2000,), "the failed set-up consumed an id"


def test_s76_halt_and_external_interrupts() -> None:
    items = (op(p.Op.TIMER, value=50_000), touch(0, cpl=0, wait=True), op(p.Op.TIMER, value=0))
    answer = ask(plan(*items, swap=p.Swap(p.SwapKind.DELAY, delay_ms=425)))
    totals(answer, NPh=1, REP=8, RDY=1)


def test_s77_a_timer_handler_that_never_returns() -> None:
    """READY ends the handler's HLT without an interrupt; nothing re-executes the access, so nothing is repeated."""
    situation = situation_of(plan(op(p.Op.TIMER, value=50_000), touch(0, cpl=0)), find_kernel(N61))
    answer = simulate(replace(situation, guest=replace(situation.guest, timer_never_returns=True)))
    totals(answer, NPh=1, NPt=0, REP=0, DONE=1, RDY=1, ACC=1)
    assert not answer.items[1].ends


@pytest.mark.parametrize("kernel", [N61, N612])
def test_s93_reset_with_tokens_live(kernel: str) -> None:
    """Running workers end (DONE), nothing is READY, EN is set again by the new boot, ids go on."""
    items = (touch(0), touch(1), op(p.Op.HOST, value=0, pause_us=50_000), touch(2, wait=True))
    answer = ask(plan(*items, actions=((p.HostAction(p.HostWord.RESET),),)), kernel)
    totals(answer, NPt=3, DONE=3, RDY=1, RDY_ALL=2, ACC=3)
    assert answer.items[3].tokens == (0x3000,)


def test_s95_stopped_vm_has_no_ready() -> None:
    actions = (p.HostAction(p.HostWord.STOP), p.HostAction(p.HostWord.SLEEP, 1000), p.HostAction(p.HostWord.CONT))
    for item in (touch(0), touch(0, cpl=0)):
        answer = ask(plan(item, timed=(p.TimedAction(100, actions),)))
        totals(answer, NP=1, DONE=1, RDY=1, REP=0)
        times = {e.kind: e.t_ns for e in answer.events}
        assert times[Kind.DONE] < 1_000_000_000 < times[Kind.RDY]


def test_s91_enabling_again_after_disabling() -> None:
    items = (op(p.Op.WRMSR, msr=MSR_ASYNC_PF_EN, value=0), op(p.Op.WRMSR, msr=MSR_ASYNC_PF_EN, value=OWN | 9),
             op(p.Op.PAUSE, pause_us=10_000))  # fmt: skip
    totals(ask(plan(*items)), RDY_ALL=2, ACC=2, ACK=2)


def test_s66_5_10_injects_a_token_with_paging_off() -> None:
    """With SEND_ALWAYS, since the access is at CPL 0; the guest's 32-bit handler itself waits for READY."""
    the_plan = plan(touch(0, cpl=0, no_paging=True, wait=True), touch(1), apf=p.Apf(en_flags=0b1011))
    answer = ask(the_plan, "nowait-5.10")
    totals(answer, NPt=2, NPh=0, RDY=2, ACC=3)
    assert answer.ends
    totals(ask(the_plan, N61), NPt=1, NPh=1, RDY=2, ACC=2)


def test_frozen_device_and_thaw_when_enough_is_outstanding() -> None:
    actions = (
        (p.HostAction(p.HostWord.FREEZE),),
        (p.HostAction(p.HostWord.WAIT_NP, 2), p.HostAction(p.HostWord.SLEEP, 1000), p.HostAction(p.HostWord.THAW)),
    )
    items = (op(p.Op.HOST, value=0), touch(0), touch(1), op(p.Op.HOST, value=1))
    answer = ask(plan(*items, actions=actions))
    totals(answer, NPt=2, RDY=2)
    assert answer.ends
    first_done = next(e.t_ns for e in answer.events if e.kind is Kind.DONE)
    assert first_done > 1_000_000_000


def test_a_read_behind_a_thaw_takes_as_long_as_any() -> None:
    """What was held goes out with the new table, and holds up nobody (drivers/md/dm-delay.c:delay_presuspend)."""
    actions = ((p.HostAction(p.HostWord.FREEZE),), (p.HostAction(p.HostWord.SLEEP, 50), p.HostAction(p.HostWord.THAW)))
    items = (op(p.Op.HOST, value=0), touch(0), op(p.Op.HOST, value=1), touch(1, wait=True), touch(2, cpl=0))
    answer = ask(plan(*items, actions=actions))
    assert answer.ends
    totals(answer, NPt=2, NPh=1, RDY=3)


def test_what_the_simulation_does_not_know_is_refused() -> None:
    with pytest.raises(ModelError, match="not read from a file"):
        ask(plan(touch(0), memory=p.Memory(), start=p.PageStart.DROPPED))


def test_paging_off_for_a_while_holds_the_ready_event_of_nobody() -> None:
    items = (touch(0), op(p.Op.PAGING, value=0, pause_us=600_000), op(p.Op.WAIT))
    answer = ask(plan(*items))
    totals(answer, NPt=1, RDY=1, ACC=2)
    assert answer.ends


def test_swap_offsets_of_a_capture_decide_the_cluster() -> None:
    """Cluster mode reads the aligned block of slots: neighbours on the device, wherever they are in memory."""
    the_plan = plan(touch(0, wait=True), touch(1, wait=True, pause_us=30_000), pages=2, start=p.PageStart.SWAPPED,
                    memory=p.Memory(),
                    swap=p.Swap(p.SwapKind.DELAY, delay_ms=50, page_cluster=3, rotational=True))  # fmt: skip

    def proof(*offsets: int) -> Precondition:
        pages = [
            PageProof(gpa(n), f"f[{n}]", p.PageStart.SWAPPED, present=False, swapped=True, cached=False, swap_offset=o)
            for n, o in enumerate(offsets)
        ]
        return Precondition(True, "", {}, (), {page.gpa: page for page in pages})

    together = predict(the_plan, find_kernel(N61), proof(16, 17))
    apart = predict(the_plan, find_kernel(N61), proof(16, 64))
    assert (together.totals["PGMAJ"].low, together.totals["PGMAJ"].high) == (1, 2)
    assert "0 hits" in together.totals["PGMAJ"].reason, "what the host's read-ahead remembers is not known"
    assert together.totals["PSWPIN"] == Count.exactly(2)
    assert apart.totals["PGMAJ"] == Count.exactly(2)


@pytest.mark.parametrize(
    ("fields", "kernel", "fault"),
    [
        ({}, N61, "F2"),
        ({}, "nowait-5.10", "F4"),
        ({}, N612, ""),
        ({"vmexit_offered": False}, N61, ""),
        ({"enables": False}, N61, ""),
        ({"runs_l2": False}, N61, ""),
        ({"synchronous_device": True}, N61, ""),  # nothing is asynchronous
    ],
)
def test_a_linux_guest_that_runs_an_l2(fields: dict[str, bool], kernel: str, fault: str) -> None:
    guest = replace(LinuxGuest(swaps=True, pages=64, runs_l2=True, vmexit_offered=True), **fields)  # type: ignore[arg-type]
    found = predict_linux(guest, find_kernel(kernel))
    assert found.known_faults == ((fault,) if fault else ()) and found.ends is not bool(fault)
    assert found.totals["PF"].low == (0 if fault else 64)


@pytest.mark.parametrize(
    ("guest", "kernel", "never"),
    [
        (LinuxGuest(), N61, "nothing is swapped"),
        (LinuxGuest(swaps=True), "sync-6.1", "no async"),
        (LinuxGuest(swaps=True, lapic_in_kernel=False), N61, "APIC"),
        (LinuxGuest(swaps=True, synchronous_device=True), N61, "synchronous"),
        (LinuxGuest(swaps=True, synchronous_device=True), NIO, ""),
        (LinuxGuest(swaps=True, anonymous=False), N61, "shmem"),
        (LinuxGuest(swaps=True, anonymous=False), P1, "shmem"),
        (LinuxGuest(swaps=True, anonymous=False), NIO, ""),
        (LinuxGuest(swaps=True, page_cluster=0), N61, "single-page"),
        (LinuxGuest(swaps=True, page_cluster=0), N612, ""),
        (LinuxGuest(swaps=True, page_cluster=0, vcpus=2), N61, ""),
        (LinuxGuest(swaps=True, hlt_exits=False), N61, ""),
    ],
)
def test_linux_guests(guest: LinuxGuest, kernel: str, never: str) -> None:
    found = predict_linux(guest, find_kernel(kernel))
    assert found.totals["RDY_ALL"] == Count.exactly(guest.vcpus)
    if never:
        assert never in found.notes[0]
        assert found.totals["TRY"].high == 0
    else:
        assert found.totals["TRY"].low == 1
    if not guest.hlt_exits:
        assert found.totals["NPh"].high == 0


@pytest.mark.parametrize(
    ("fields", "kernel", "possible"),
    [
        ({"vcpus": 2}, N61, True),
        ({"vcpus": 2, "page_cluster": 0}, N61, False),  # nothing is read but the page
        ({"vcpus": 2, "page_cluster": 0}, "nowait-7.3", True),  # through the swap cache
        ({"vcpus": 2, "anonymous": False}, N61, False),
        ({}, N61, False),
        ({}, "nowait-7.3", False),
    ],
)
def test_a_slot_of_zram_that_another_vcpu_frees_makes_read_ahead(
    fields: dict[str, int], kernel: str, possible: bool
) -> None:
    """mm/memory.c:do_swap_page: a swap count that is not 1 any more (seen on 5.10, 6.1 and 7.3)."""
    found = predict_linux(LinuxGuest(swaps=True, synchronous_device=True, pages=64, **fields), find_kernel(kernel))
    assert found.totals["TRY"].low == 0 and (found.totals["TRY"].high > 0) is possible
    assert (found.totals["ACC"].high > fields.get("vcpus", 1)) is possible
    assert (not found.notes) is possible
    assert found.totals["MAJ_V"].low > 0


@pytest.mark.parametrize(
    ("fields", "kernel", "windows"),
    [
        ({}, N61, 64),  # 512 / 8
        ({"page_cluster": 7}, N61, 16),  # per-VMA windows end at 32 pages
        ({"page_cluster": 7, "rotational": True}, N61, 4),
        ({"page_cluster": 0}, N61, 512),
        ({"synchronous_device": True}, N61, 512),
        ({"synchronous_device": True}, N612, 1),  # large folios
        ({"lapic_in_kernel": False, "enables": False}, N61, 64),
    ],
)
def test_what_must_happen_when_a_linux_guest_touches_what_was_swapped_out(
    fields: dict[str, bool | int], kernel: str, windows: int
) -> None:
    guest = LinuxGuest(swaps=True, pages=520, resident_pages=8, traced_from_boot=False, **fields)  # type: ignore[arg-type]
    totals = predict_linux(guest, find_kernel(kernel)).totals
    assert totals["RDY_ALL"] == Count.exactly(0), "the trace begins after the boot"
    assert totals["PF"].low == totals["PSWPIN"].low == 512
    assert totals["PGMAJ"].low == totals["WAITED"].low == windows
    never = totals["TRY"].high == 0
    assert ("ASYNC" in totals) is not never and (never or totals["ASYNC"].low == windows)
    assert totals["SYNC"].low == totals["MAJ_V"].low == (windows if never else 0)
    booting = replace(guest, swaps=False, pages=0, traced_from_boot=True)
    assert predict_linux(booting, find_kernel(kernel)).totals["WAITED"].low == 0
