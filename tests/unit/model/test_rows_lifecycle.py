# SPDX-License-Identifier: GPL-2.0-or-later
"""Catalogue rows about the life of machine, memory and VMM (E4), nested guests, event delivery and the shared area.

What no plan can ask for is put into the Situation; counts are the catalogue's, or are derived where the test says how.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract import plan as p
from harness.contract.words import Op
from harness.model.delivery import L2Controls
from harness.model.events import MSR_ASYNC_PF_ACK, MSR_ASYNC_PF_EN, WAKE_ALL_TOKEN, Kind
from harness.model.kernels import find_kernel
from harness.model.outcomes import Count, Outcome
from harness.model.pv_features import PvFeatures
from harness.model.simulation.machine import run_once
from harness.model.simulation.simulate import simulate
from harness.model.simulation.situation import ModelStep, ModelWord, Prediction, Situation, Step, Timing, with_timing
from harness.prediction import situation_of

N510, N61, N612, NIO = "nowait-5.10", "nowait-6.1", "nowait-6.12", "noio-6.1"
ALL = (N510, N61, N612, NIO)
MS = 1_000_000
OWN = 0x801000
FILE = p.Memory(p.Backing.FILE, share=True)


def gpa(n: int) -> int:
    return p.POOL_GPA + n * 256 * p.PAGE_SIZE


def touch(n: int, **fields: object) -> p.Item:
    return p.Item(0, p.Op.TOUCH, gpa=gpa(n), page=f"f[{n}]", **fields)  # type: ignore[arg-type]


def op(kind: p.Op, **fields: object) -> p.Item:
    return p.Item(0, kind, **fields)  # type: ignore[arg-type]


def host(n: int, **fields: object) -> p.Item:
    return op(p.Op.HOST, value=n, **fields)


def do(*actions: tuple[str, int] | str) -> tuple[p.HostAction, ...]:
    """Actions by the value of their word: words that only the model knows go through a plan's types here."""
    pairs = ((a, 0) if isinstance(a, str) else a for a in actions)
    return tuple(p.HostAction(_word(word), arg) for word, arg in pairs)  # type: ignore[arg-type]


def _word(value: str) -> p.HostWord | ModelWord:
    return p.HostWord(value) if value in list(p.HostWord) else ModelWord(value)


def ask(
    *items: p.Item, kernel: str = N61, actions: tuple[tuple[p.HostAction, ...], ...] = (), delay_ms: int = 400,
    timed: tuple[tuple[int, tuple[p.HostAction, ...]], ...] = (), anon: bool = False, vcpus: int = 1,
    apf: p.Apf | None = None, starts: dict[int, p.PageStart] | None = None, deadline_s: int = 60,
) -> Situation:  # fmt: skip
    start = p.PageStart.SWAPPED if anon else p.PageStart.DROPPED
    made = p.Plan(
        scenario="row", title="", nonce=7, guest=p.Guest(vcpus=vcpus, memory_mib=256, apf=apf or p.Apf()),
        memory=p.Memory() if anon else FILE, swap=p.Swap(p.SwapKind.DELAY, delay_ms=delay_ms), deadline_s=deadline_s,
        items=tuple(p.changed(i, index=n) for n, i in enumerate(items)), host_actions=actions,
        pages=tuple(p.Page(gpa(n), (starts or {}).get(n, start), f"f[{n}]") for n in range(5)),
        timed=tuple(p.TimedAction(at, what) for at, what in timed),
    )  # fmt: skip
    return situation_of(made, find_kernel(kernel))


def totals(answer: Prediction, **want: int) -> None:
    got = {name: answer.totals[name] for name in want}
    assert got == {name: Count.exactly(n) for name, n in want.items()}


def times(answer: Prediction, kind: Kind) -> list[int]:
    return [e.t_ns for e in answer.events if e.kind is kind and e.token != WAKE_ALL_TOKEN]


def steps(situation: Situation, **fields: object) -> Situation:
    """Every touch of the program is made in another way."""
    changed = (replace(s, **fields) if s.kind is Op.TOUCH else s for s in situation.steps)  # type: ignore[arg-type]
    return replace(situation, steps=tuple(changed))


# --- E3


@pytest.mark.parametrize("kernel", ALL)
def test_s65_fault_during_event_delivery(kernel: str) -> None:
    answer = simulate(steps(ask(touch(0), kernel=kernel), in_delivery=True))
    totals(answer, TRY=0, NP=0, SYNC=1, INJ=0)
    assert "re-injection" in answer.items[0].why
    totals(simulate(ask(touch(0), kernel=kernel)), TRY=1, NP=1, SYNC=0)


@pytest.mark.parametrize("kernel", ALL)
def test_s383_the_stack_of_a_tokens_fault_is_missing(kernel: str) -> None:
    """It is read before the guest has seen the token, and nothing is taken between the two items."""
    stack = touch(1, by=p.By.TOKEN, access=p.Access.WRITE)
    answer = simulate(ask(touch(0), stack, touch(2), kernel=kernel))
    totals(answer, TRY=2, NP=2, NPt=2, SYNC=1, INJ=2, MAJ_V=1)
    assert [item.outcome for item in answer.items] == [Outcome.TOKEN, Outcome.SYNC, Outcome.TOKEN]
    faults = [e.gpa >> 20 for e in answer.events if e.kind is Kind.PF]
    assert faults == [16, 17, 18]
    at_zero = simulate(ask(touch(0, cpl=0), stack, kernel=kernel))  # no token: an exception of the guest's own
    totals(at_zero, NPh=1, NPt=0, SYNC=1, INJ=0)
    ready = simulate(
        ask(touch(0), touch(1, by=p.By.TOKEN, access=p.Access.WRITE), kernel=kernel, starts={1: p.PageStart.POPULATED})
    )
    totals(ready, TRY=1, NPt=1, SYNC=0, PF=2)


def _area_swapped(kernel: str, **fields: object) -> Prediction:
    """Page 4 is the shared area; it is swapped out while the guest waits in item 0."""
    situation = ask(host(0), touch(0, **fields), kernel=kernel, actions=(do(("reclaim", gpa(4))),), anon=True,
                    starts={4: p.PageStart.POPULATED})  # fmt: skip
    device = replace(situation.device, page_cluster=3)
    return simulate(replace(situation, guest=replace(situation.guest, area_gpa=gpa(4)), device=device))


def test_s67_shared_area_swapped_out() -> None:
    """copy_to_user reads it in V between NP and INJ: maj+1; the guest's handler then faults it in again (GUP-fast).
    The handler of the wake-all has done so before: the page was populated, but not yet mapped for the guest."""
    answer = _area_swapped(N612)
    totals(answer, NPt=1, NPh=0, MAJ_V=1, RDY=1, ACC=2, INJ=1, PF=3)
    assert answer.totals["FAST"].low + answer.totals["MINOR"].low == 2
    assert times(answer, Kind.INJ)[0] - times(answer, Kind.NP)[0] >= 400 * MS
    resident = simulate(ask(touch(0), kernel=N612, anon=True))
    totals(resident, NPt=1, MAJ_V=0, RDY=1)
    assert times(resident, Kind.INJ)[0] - times(resident, Kind.NP)[0] < 400 * MS


def test_s67_with_a_halt_the_token_word_is_read_when_the_page_is_ready() -> None:
    """apf_pageready_slot_free reads the area in V: maj+1 between DONE and RDY."""
    answer = _area_swapped(N612, cpl=0)
    totals(answer, NPt=0, NPh=1, MAJ_V=1, RDY=1, ACC=1)
    assert times(answer, Kind.RDY)[0] - times(answer, Kind.DONE)[0] >= 400 * MS


@pytest.mark.parametrize("kernel", ALL)
def test_s68_memslot_of_the_shared_area_removed(kernel: str) -> None:
    """As S10: halt, DONE, no RDY until EN is bound again and something looks at done (the ACK)."""
    gone = do(("area-slot", 0))
    answer = simulate(ask(host(0), touch(0), kernel=kernel, actions=(gone,)))
    totals(answer, NPt=0, NPh=1, DONE=1, RDY=0, RDY_ALL=1, ACC=1)
    assert answer.ends
    bound = (op(p.Op.WRMSR, msr=MSR_ASYNC_PF_EN, value=OWN | 9), op(p.Op.WRMSR, msr=MSR_ASYNC_PF_ACK, value=1))
    totals(simulate(ask(host(0), touch(0), *bound, kernel=kernel, actions=(gone,))), NPh=1, RDY=1, ACC=1)
    back = (host(1), op(p.Op.WRMSR, msr=MSR_ASYNC_PF_ACK, value=1))
    totals(simulate(ask(host(0), touch(0), *back, kernel=kernel, actions=(gone, do(("area-slot", 1))))), NPh=1, RDY=1)


def test_s86_a_second_task_runs_only_in_token_mode() -> None:
    """The second item is the spinning task: it starts at once behind a token, after the page behind a halt."""
    marker = op(p.Op.WRMSR, msr=MSR_ASYNC_PF_ACK, value=1)

    def start_of_spinner(answer: Prediction) -> int:
        return next(e.t_ns for e in answer.events if e.kind is Kind.WRMSR and e.value == MSR_ASYNC_PF_ACK
                    and e.t_ns > times(answer, Kind.NP)[0])  # fmt: skip

    token = simulate(ask(touch(0), marker, delay_ms=100))
    assert start_of_spinner(token) < times(token, Kind.DONE)[0]
    totals(token, NPt=1, NPh=0, REP=0)
    timer = (op(p.Op.TIMER, value=30_000), touch(0, wait=True), op(p.Op.TIMER, value=0), marker)
    halt = simulate(ask(*timer, delay_ms=100, apf=p.Apf(en_flags=0)))
    assert start_of_spinner(halt) >= times(halt, Kind.DONE)[0]
    totals(halt, NPt=0, NPh=1, REP=3)  # ticks at 30, 60 and 90 of 100 ms


# --- E4: CPU hotplug


def _offline(kernel: str, *, worker_ns: int = 5_000, busy_ms: int = 900) -> Situation:
    """Two tokens live on vCPU 0, which goes offline; vCPU 1 takes its tasks over."""
    busy = op(p.Op.PAUSE, vcpu=1, pause_us=busy_ms * 1000)
    situation = ask(touch(0), touch(1), op(p.Op.PAUSE, pause_us=50_000), busy, kernel=kernel, vcpus=2)
    offline = Step(4, ModelStep.OFFLINE, vcpu=0, value=1)
    return with_timing(replace(situation, steps=(*situation.steps, offline)), Timing(worker_ns=worker_ns))


@pytest.mark.parametrize("kernel", ALL)
def test_s90_offline_with_running_workers(kernel: str) -> None:
    """cancel_work_sync waits for both workers: DONE, no RDY.  The pages are resident when vCPU 1 faults."""
    machine = run_once(_offline(kernel))
    t = machine.world.totals
    assert machine.ended
    assert (t["NPt"], t["DONE"], t["RDY"], t["RDY_ALL"], t["REP"]) == (2, 2, 0, 2, 0)
    again = [e for e in machine.world.events if e.kind is Kind.PF and e.vcpu == 1]
    assert sorted(e.gpa for e in again) == [gpa(0), gpa(1)]
    assert t["FAST"] + t["MINOR"] == 2


@pytest.mark.parametrize("kernel", ALL)
def test_s90_offline_before_the_workers_have_started(kernel: str) -> None:
    """They are cancelled without DONE; the tasks fault on vCPU 1: new tokens there, no REP."""
    machine = run_once(_offline(kernel, worker_ns=100 * MS, busy_ms=100))
    t = machine.world.totals
    assert machine.ended
    tokens = [(e.vcpu, e.token) for e in machine.world.events if e.kind is Kind.NP]
    assert tokens == [(0, 0x1000), (0, 0x2000), (1, 0x1001), (1, 0x2001)]
    assert (t["NPt"], t["DONE"], t["RDY"], t["REP"]) == (4, 2, 2, 0)


def test_s91_online_again() -> None:
    """One wake-all and one interrupt more than the two of the boot."""
    situation = _offline(N61)
    online = Step(5, Op.WRMSR, vcpu=0, msr=MSR_ASYNC_PF_EN, value=OWN | 9)
    pause = Step(6, Op.PAUSE, vcpu=0, pause_ns=10 * MS)
    totals(simulate(replace(situation, steps=(*situation.steps, online, pause))), RDY=0, RDY_ALL=3, ACC=3)


@pytest.mark.parametrize("kernel", ALL)
def test_s92_vcpu_unplugged_and_plugged_again(kernel: str) -> None:
    """Parked: DONE, nothing READY.  The fd that is used again is reset and goes on counting ids."""
    items = (touch(0, vcpu=1), touch(1, vcpu=1), op(p.Op.PAUSE, vcpu=1, pause_us=300_000), touch(2, vcpu=1, wait=True),
             op(p.Op.PAUSE, pause_us=2_000_000))  # fmt: skip
    timed = ((100, do(("unplug", 1))), (1000, do(("replug", 1))))
    answer = simulate(ask(*items, kernel=kernel, vcpus=2, timed=timed))
    totals(answer, NPt=3, DONE=3, RDY=1, RDY_ALL=3, ACC=4)
    assert [e.token for e in answer.events if e.kind is Kind.NP] == [0x1001, 0x2001, 0x3001]
    assert times(answer, Kind.DONE)[1] < 1000 * MS < times(answer, Kind.RDY)[0]


# --- E4: reset, stop, restore


@pytest.mark.parametrize("kernel", ALL)
@pytest.mark.parametrize("k", [1, 3])
def test_s93_s94_reset_waits_for_running_workers(kernel: str, k: int) -> None:
    """k tokens live, D = 10 s: k DONE, the new boot's EN after them, no RDY but wake-alls; ids go on."""
    items = (*(touch(n) for n in range(k)), host(0, pause_us=50_000), touch(4, wait=True))
    answer = simulate(ask(*items, kernel=kernel, actions=(do("reset"),), delay_ms=10_000))
    totals(answer, NPt=k + 1, DONE=k + 1, RDY=1, RDY_ALL=2, ACC=3)
    enables = [e.t_ns for e in answer.events if e.kind is Kind.WRMSR and e.value == MSR_ASYNC_PF_EN]
    assert len(enables) == 2
    assert enables[1] > times(answer, Kind.DONE)[k - 1] >= 10_000 * MS
    assert answer.items[-1].tokens == ((k + 1) << 12,)


def test_s94_no_vcpu_boots_before_all_are_reset() -> None:
    """Only vCPU 1 has live work, D = 10 s: the new boot of vCPU 0 waits for it too."""
    items = (host(0, pause_us=50_000), touch(0, vcpu=1))
    answer = simulate(ask(*items, actions=(do("reset"),), delay_ms=10_000, vcpus=2))
    totals(answer, NPt=1, DONE=1, RDY=0, RDY_ALL=4, ACC=4)
    enables = {v: [e.t_ns for e in answer.events if e.kind is Kind.WRMSR and e.value == MSR_ASYNC_PF_EN and e.vcpu == v]
               for v in range(2)}  # fmt: skip
    assert all(len(at) == 2 and at[1] >= times(answer, Kind.DONE)[0] for at in enables.values())


@pytest.mark.parametrize(("word", "token"), [("migrate", 0x1000), ("loadvm", 0x3000)])
@pytest.mark.parametrize("kernel", ALL)
def test_s96_s97_restore_with_two_live(kernel: str, word: str, token: int) -> None:
    """The wake-all wakes both sleepers, whose pages are resident: no NP.  Ids: anew in a new VM, else they go on."""
    items = (touch(0), touch(1), op(p.Op.WAIT), host(0), touch(2, wait=True))
    situation = ask(*items, kernel=kernel, actions=(do(("reclaim", gpa(2))),), timed=((100, do(word)),))
    answer = simulate(situation)
    totals(answer, NPt=3, NPh=0, DONE=3, RDY=1, RDY_ALL=2, ACC=3, REP=0)
    assert answer.ends
    assert answer.items[4].tokens == (token,)
    restored = next(e.t_ns for e in answer.events if e.kind is Kind.CLEAR)
    assert times(answer, Kind.DONE)[1] <= restored < times(answer, Kind.RDY)[0]
    again = [e.gpa for e in answer.events if e.kind is Kind.PF and e.t_ns > restored]
    assert sorted(again) == [gpa(0), gpa(1), gpa(2)]


# --- E4: the VMM dies


@pytest.mark.parametrize("kernel", ALL)
def test_s98_s99_sigkill_with_running_workers(kernel: str) -> None:
    """D = 20 s: the VM is destroyed after the last worker; DONE, never READY; nothing is left (S99)."""
    machine = run_once(ask(touch(0), touch(1), kernel=kernel, delay_ms=20_000, timed=((500, do("sigkill")),)))
    world = machine.world
    assert (world.totals["NPt"], world.totals["DONE"], world.totals["RDY"]) == (2, 2, 0)
    last = max(e.t_ns for e in world.events if e.kind is Kind.DONE)
    assert world.vm_gone_ns >= last >= 20_000 * MS
    state = machine.host.vcpus[0].kvm.state
    assert (state.queue, state.done, state.queued) == ([], [], 0)


@pytest.mark.parametrize("kernel", ALL)
def test_s98_sigkill_before_the_workers_have_started(kernel: str) -> None:
    """They are cancelled: no DONE, and no delay by D."""
    situation = ask(touch(0), touch(1), kernel=kernel, delay_ms=20_000, timed=((500, do("sigkill")),))
    machine = run_once(with_timing(situation, Timing(worker_ns=1000 * MS)))
    assert (machine.world.totals["NPt"], machine.world.totals["DONE"], machine.world.totals["RDY"]) == (2, 0, 0)
    assert 500 * MS <= machine.world.vm_gone_ns < 1000 * MS


# --- E4: memory goes away


@pytest.mark.parametrize("kernel", ALL)
def test_s100_memslot_deleted(kernel: str) -> None:
    """The worker knows the host address and ends; the prefetch finds no slot; the access becomes MMIO."""
    answer = simulate(ask(touch(0), kernel=kernel, timed=((100, do(("delete-slot", gpa(0)))),)))
    totals(answer, NPt=1, DONE=1, RDY=1, ACC=2, PF=2, FAST=0, MINOR=0)
    assert answer.ends
    machine = run_once(ask(touch(0), kernel=kernel, timed=((100, do(("delete-slot", gpa(0)))),)))
    assert [f.outcome for f in machine.world.items[0].faults] == [Outcome.TOKEN, Outcome.EMUL]


@pytest.mark.parametrize("kernel", ALL)
def test_s101_munmap(kernel: str) -> None:
    """The worker's GUP fails, which nobody looks at: DONE, RDY; the next access is the VMM's -EFAULT."""
    situation = ask(touch(0), kernel=kernel, timed=((100, do(("munmap", gpa(0)))),), deadline_s=5)
    answer = simulate(situation)
    totals(answer, NPt=1, DONE=1, RDY=1, PF=2)
    assert not answer.ends
    machine = run_once(situation)
    assert machine.host.vcpus[0].kvm.error == "KVM_RUN fails with errno -14"
    assert [f.outcome for f in machine.world.items[0].faults] == [Outcome.TOKEN, Outcome.ERROR]


@pytest.mark.parametrize("kernel", ALL)
def test_s103_postcopy_destination(kernel: str) -> None:
    """A page that has not come yet: token, W waits in handle_userfault (so its pid is in the message), then RDY."""
    arrivals = ((100, do(("resolve-userfault", gpa(1)))), (200, do(("resolve-userfault", gpa(0)))))
    untouched = dict.fromkeys(range(5), p.PageStart.UNTOUCHED)
    situation = ask(touch(0), touch(1), kernel=kernel, anon=True, timed=arrivals, starts=untouched)
    vma = replace(situation.vma, userfaultfd=True)
    pages = tuple(replace(pool, page=replace(pool.page, vma=vma)) for pool in situation.pages)
    answer = simulate(replace(situation, vma=vma, pages=pages))
    totals(answer, NPt=2, DONE=2, RDY=2, MAJ_V=0, BIO_V=0, BIO_W=0)
    ready = [e.gpa for e in answer.events if e.kind is Kind.RDY and e.token != WAKE_ALL_TOKEN]
    assert ready == [gpa(1), gpa(0)], "the order of resolution"


@pytest.mark.parametrize("kernel", [N612, NIO])
def test_s104_swapoff(kernel: str) -> None:
    """Both in flight: swapoff finds their folios (noio: W's) and waits; pages 2 to 4 it reads itself."""
    items = (touch(0), touch(1), op(p.Op.PAUSE, pause_us=3_000_000))
    machine = run_once(ask(*items, kernel=kernel, anon=True, timed=((100, do("swapoff")),)))
    t = machine.world.totals
    assert machine.ended
    assert (t["NPt"], t["DONE"], t["RDY"], t["ACC"]) == (2, 2, 2, 3)
    assert all(page.swap is None for page in machine.memory.pages.values())
    assert (t["READ_V"] + t["READ_W"], t["READ_OTHER"]) == (2, 3)


@pytest.mark.parametrize("kernel", ALL)
def test_s105_freezer(kernel: str) -> None:
    answer = simulate(ask(touch(0), touch(1), kernel=kernel,
                          timed=((100, do("freeze-vmm", ("sleep", 1000), "thaw-vmm")),)))  # fmt: skip
    totals(answer, NPt=2, DONE=2, RDY=2, REP=0, ACC=3)
    assert max(times(answer, Kind.DONE)) < 1000 * MS < min(times(answer, Kind.RDY))


# --- E5: nested


def _nested(kernel: str, *, flags: int, features: PvFeatures | None = None, **fields: object) -> Prediction:
    of_intel = {"l2": L2Controls(), **fields}
    situation = steps(ask(touch(0), kernel=kernel, apf=p.Apf(en_flags=flags)), nested=True, **of_intel)
    guest = replace(situation.guest, features=features or PvFeatures())
    return simulate(replace(situation, guest=guest))


@pytest.mark.parametrize("kernel", ALL)
def test_s110_token_as_a_page_fault_vmexit(kernel: str) -> None:
    """pf_guest counts it (kvm_inject_page_fault), kvm_inj_exception does not show it."""
    totals(_nested(kernel, flags=0b1101), NPt=1, NPh=0, INJ=0, PF_GUEST=1, RDY=1, ACC=2)


@pytest.mark.parametrize("kernel", ALL)
def test_s111_l2_kernel(kernel: str) -> None:
    totals(_nested(kernel, flags=0b1101, cpl=0), NPt=0, NPh=1, INJ=0, RDY=1, ACC=1)


@pytest.mark.parametrize("kernel", ALL)
def test_s112_without_bit_2(kernel: str) -> None:
    totals(_nested(kernel, flags=0b1001), NPt=0, NPh=1, INJ=0, RDY=1, ACC=1)
    hidden = _nested(kernel, flags=0b1101, features=PvFeatures(vmexit=False, enforced=True))
    totals(hidden, NPt=0, NPh=1, RDY_ALL=0)  # the EN write got #GP: nothing is enabled


@pytest.mark.parametrize("kernel", ALL)
def test_s113_interrupts_off_in_l2(kernel: str) -> None:
    """L1 intercepts interrupts, so one can always be given; otherwise L2's IF counts."""
    totals(_nested(kernel, flags=0b1101, interrupts=False), NPt=1, NPh=0, RDY=1)
    totals(_nested(kernel, flags=0b1001, interrupts=False), NPt=0, NPh=1, RDY=1)
    totals(_nested(kernel, flags=0b1101, interrupts=False, l2=L2Controls(intercept_interrupts=False)), TRY=0, SYNC=1)
    totals(simulate(ask(touch(0, interrupts=False), kernel=kernel)), TRY=0, SYNC=1)


def test_s113_interrupts_reach_l1_during_the_halt() -> None:
    """Each tick ends the halt by a vmexit to L1, L2 goes on and repeats its fault: ticks at 50 to 350 of 375 ms."""
    items = (op(p.Op.TIMER, value=50_000), touch(0, interrupts=False, wait=True), op(p.Op.TIMER, value=0))
    answer = simulate(steps(ask(*items, delay_ms=375), nested=True))
    totals(answer, NPh=1, REP=7, RDY=1)
