# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows S41-S55 of the catalogue that no plan can say: situations made here, counts from the catalogue and A.8, A.10.

Where the catalogue leaves a count to the model, the reasoning is beside it.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract.words import Op
from harness.errors import ModelError
from harness.model.events import Kind
from harness.model.kernels import find_kernel
from harness.model.outcomes import UNBOUNDED, Count, Outcome
from harness.model.pages import Backing, Folio, HostPage, Pte, SwapSlot, Vma
from harness.model.simulation.machine import run_once
from harness.model.simulation.simulate import simulate, variations
from harness.model.simulation.situation import (
    Device,
    HostDo,
    ModelWord,
    PoolPage,
    Prediction,
    Situation,
    Step,
)
from harness.model.walk.access import walk_access
from harness.model.walk.steps import Environment, Thread
from harness.model.walk.user_access import user_access

N510, N61, N612, NIO, P1, SYNC = (
    "nowait-5.10", "nowait-6.1", "nowait-6.12", "noio-6.1", "noio-6.1-p1", "sync-6.1",
)  # fmt: skip
NOWAIT = (N510, N61, N612)
APF = (*NOWAIT, NIO, P1)
ALL = (*APF, SYNC)
MS = 1_000_000
DELAY = 200 * MS
GPA = 0x4000000
STRIDE = 256  # pages: two of them are never in one read-ahead window
ANON, FILE, HUGE = Vma(), Vma(Backing.FILE_SHARED), Vma(Backing.HUGETLB)


def gpa(page: int) -> int:
    """Guest address of the page so many pages above the first; GPA and the VMA are aligned to 2 MiB."""
    return GPA + page * 4096


def swapped(vma: Vma, page: int, **slot: bool) -> HostPage:
    return HostPage(vma.start + page, vma, Pte.SWAP, swap=SwapSlot(offset=64 + page, **slot))


def dropped(vma: Vma, page: int = 0) -> HostPage:
    return HostPage(vma.start + page, vma, index=page)


def touch(page: int = 0, **fields: object) -> Step:
    return Step(0, Op.TOUCH, gpa=gpa(page), **fields)  # type: ignore[arg-type]


def host(*actions: HostDo) -> Step:
    return Step(0, Op.HOST, actions=actions)


def situation(kernel: str, pages: list[HostPage], *steps: Step, **fields: object) -> Situation:
    vma = pages[0].vma
    pool = tuple(PoolPage(f"p{p.vpn - vma.start}", gpa(p.vpn - vma.start), p) for p in pages)
    numbered = tuple(replace(s, index=n) for n, s in enumerate(steps))
    return Situation(find_kernel(kernel), vma, pool, numbered, **fields)  # type: ignore[arg-type]


def totals(answer: Prediction, **want: int) -> None:
    assert {n: answer.totals[n] for n in want} == {n: Count.exactly(c) for n, c in want.items()}


def at(answer: Prediction, kind: Kind) -> int:
    """When the first event of this kind that has an address came, in nanoseconds."""
    return next(e.t_ns for e in answer.events if e.kind is kind and e.gpa)


def cycles(answer: Prediction) -> None:
    """LOOP: token and ready for ever."""
    assert not answer.ends
    for name in ("TRY", "NPt", "DONE", "RDY"):
        assert answer.totals[name].low > 3
        assert answer.totals[name].high == UNBOUNDED
    totals(answer, BIO_V=0, BIO_W=0)


# --- S41: VMA without VM_WRITE

READ_ONLY = replace(FILE, writable=False)


@pytest.mark.parametrize("kernel", APF)
def test_s41_ready_comes_out_of_a_blocked_prefetch(kernel: str) -> None:
    """W's FOLL_WRITE fails in check_vma_flags, so it reads nothing; V waits inside the prefetch, TRIED: maj(V)+1.

    The read is V's in every variant: nowait submits it before NP, noio in the blocking half of the prefetch.
    """
    answer = simulate(situation(kernel, [dropped(READ_ONLY)], touch()))
    totals(answer, PF=1, TRY=1, NPt=1, DONE=1, RDY=1, ACC=2, INJ=1)
    totals(answer, MAJ_V=1, MAJ_W=0, MIN_W=0, PGMAJ=1, BIO_V=1, BIO_W=0)
    assert at(answer, Kind.DONE) - at(answer, Kind.NP) < 1 * MS
    assert DELAY <= at(answer, Kind.RDY) - at(answer, Kind.NP) < DELAY + 1 * MS
    done, ready = at(answer, Kind.DONE), at(answer, Kind.RDY)
    asleep = [e for e in answer.events if e.kind is Kind.OUT and e.value == ord("D") and done <= e.t_ns < ready]
    assert len(asleep) == 1
    order = [e.kind for e in answer.events if e.kind in (Kind.BIO, Kind.DONE) or (e.kind is Kind.NP and e.gpa)]
    assert order == ([Kind.BIO, Kind.NP, Kind.DONE] if kernel in NOWAIT else [Kind.NP, Kind.DONE, Kind.BIO])


@pytest.mark.parametrize("kernel", ALL)
def test_s41_write_is_the_vmms_error(kernel: str) -> None:
    row = situation(kernel, [dropped(READ_ONLY)], touch(write=True))
    answer = simulate(row)
    totals(answer, PF=1, TRY=0, NP=0, BIO_V=0)
    assert answer.items[0].outcome is Outcome.ERROR
    assert not answer.ends
    assert "errno -14" in run_once(row).host.vcpus[0].kvm.error


# --- S42, S43: huge pages


@pytest.mark.parametrize("kernel", ALL)
def test_s42_hugetlb(kernel: str) -> None:
    """Two touches in a resident huge page: one 2 MiB SPTE, FAST; a page of the pool is taken for the first touch.

    Before 6.12 follow_hugetlb_page calls hugetlb_fault past handle_mm_fault: no min_flt.
    """
    resident = [HostPage(HUGE.start + n, HUGE, Pte.WRITABLE, Folio(huge=True)) for n in (0, 1)]
    fresh = [HostPage(HUGE.start + n, HUGE) for n in (512, 513)]
    answer = simulate(situation(kernel, resident + fresh, touch(0), touch(1), touch(512, write=True), touch(513)))
    totals(answer, PF=2, TRY=0, FAST=1, MINOR=1, MAJ_V=0, MIN_V=1 if kernel == N612 else 0, BIO_V=0, BIO_W=0)


@pytest.mark.parametrize("kernel", ALL)
def test_s43_one_fault_maps_2_mib(kernel: str) -> None:
    pages = [HostPage(ANON.start + n, ANON, Pte.WRITABLE, Folio(huge=True)) for n in (0, 1, 511, 512)]
    answer = simulate(situation(kernel, pages, touch(1), touch(0), touch(511, write=True), touch(512)))
    totals(answer, PF=2, FAST=2, TRY=0, MIN_V=0, MAJ_V=0)
    assert [i.faults.low for i in answer.items] == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("kernel", "want"),
    [*((k, {"NPt": 3, "MAJ_V": 2, "BIO_W": 0}) for k in (N510, N61)), (N612, {"NPt": 5, "MAJ_V": 0, "BIO_V": 5}),
     (NIO, {"NPt": 5, "MAJ_V": 0, "BIO_W": 5}), (SYNC, {"TRY": 0, "MAJ_V": 5})],
)  # fmt: skip
def test_s43_freed_is_4k_pages(kernel: str, want: dict[str, int]) -> None:
    """As S24: windows 8, 4, 2, 1, 1; the two of one page are polled for on 5.10 and 6.1."""
    pages = [swapped(ANON, n * STRIDE) for n in range(5)]
    answer = simulate(situation(kernel, pages, *(touch(n * STRIDE, wait=True) for n in range(5))))
    totals(answer, PF=5, **want)


def test_a_huge_page_is_what_makes_it_one_fault() -> None:
    pages = [HostPage(ANON.start + n, ANON, Pte.WRITABLE, Folio()) for n in (0, 1)]
    totals(simulate(situation(N61, pages, touch(0), touch(1))), PF=2, FAST=2)


# --- S44: KSM


@pytest.mark.parametrize("kernel", ALL)
def test_s44_resident(kernel: str) -> None:
    """Read: the present PTE, no fault of the VMM, read-only SPTE.  Write: a copy, min+1.

    The notifier runs while it is made: that fault is stale, and the guest's next one finds the copy.
    """
    page = HostPage(ANON.start, ANON, Pte.READ_ONLY, Folio(ksm=True))
    answer = simulate(situation(kernel, [page], touch(), touch(write=True)))
    totals(answer, PF=3, TRY=0, FAST=2, MIN_V=1, MAJ_V=0)
    assert [i.faults.low for i in answer.items] == [1, 2]


@pytest.mark.parametrize(
    ("kernel", "cluster", "want"),
    [  # V polls, and has the KSM page mapped read-only: the write copies it, as above
     *((k, 0, {"PF": 3, "TRY": 0, "MAJ_V": 1, "MIN_V": 1, "BIO_V": 1}) for k in (N510, N61)),
     (SYNC, 3, {"PF": 3, "TRY": 0, "MAJ_V": 1, "MIN_V": 1, "BIO_V": 1}),
     # W's write fault copies, so that the guest's write needs no further fault
     *((k, 3, {"PF": 1, "NPt": 1, "MAJ_V": 0, "MIN_V": 0, "BIO_V": 1}) for k in NOWAIT),
     (N612, 0, {"PF": 1, "NPt": 1, "MAJ_V": 0, "MIN_V": 0, "BIO_V": 1}),
     *((k, c, {"PF": 1, "NPt": 1, "MAJ_V": 0, "MIN_V": 0, "BIO_W": 1}) for k in (NIO, P1) for c in (0, 3))],
)  # fmt: skip
def test_s44_swapped(kernel: str, cluster: int, want: dict[str, int]) -> None:
    row = situation(kernel, [swapped(ANON, 0, ksm=True)], touch(wait=True), touch(write=True),
                    device=Device(page_cluster=cluster))  # fmt: skip
    totals(simulate(row), PSWPIN=1, PGMAJ=1, **want)


# --- S46, S48: pages that cannot be had


@pytest.mark.parametrize("kernel", ALL)
def test_s46_hwpoison(kernel: str) -> None:
    row = situation(kernel, [HostPage(ANON.start, ANON, Pte.HWPOISON)], touch())
    answer = simulate(row)
    totals(answer, PF=1, TRY=0, NP=0, MAJ_V=0, MIN_V=0)
    assert run_once(row).host.vcpus[0].kvm.error == "sigbus"


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("kernel", APF)
def test_s48_truncated_under_the_guest(kernel: str, write: bool) -> None:
    cached = HostPage(FILE.start, FILE, folio=Folio())
    cut = host(HostDo(ModelWord.TRUNCATE, gpa(0)))
    answer = simulate(situation(kernel, [cached], touch(write=write), cut, touch(write=write)))
    assert answer.items[0].outcome is Outcome.MINOR
    cycles(answer)


@pytest.mark.parametrize(("kernel", "interrupts"), [*((k, False) for k in APF), (SYNC, True)])
def test_s48_without_async_page_faults(kernel: str, interrupts: bool) -> None:
    cached = HostPage(FILE.start, FILE, folio=Folio())
    cut = host(HostDo(ModelWord.TRUNCATE, gpa(0)))
    row = situation(kernel, [cached], touch(), cut, touch(interrupts=interrupts))
    totals(simulate(row), PF=2, TRY=0, NP=0, BIO_V=0)
    assert "errno -14" in run_once(row).host.vcpus[0].kvm.error


# --- S49: userfaultfd

MISSING = replace(ANON, userfaultfd=True)
COPIES = tuple((n * 100 * MS, (HostDo(ModelWord.RESOLVE_USERFAULT, gpa(4 - n)),)) for n in range(1, 5))
"""Four pages, the last one first, 100 ms apart."""


def userfault(kernel: str) -> Prediction:
    pages = [HostPage(MISSING.start + n, MISSING) for n in range(4)]
    return simulate(situation(kernel, pages, *(touch(n) for n in range(4)), timed=COPIES))


@pytest.mark.parametrize("kernel", [*NOWAIT, NIO])
def test_s49_ready_in_the_order_of_resolution(kernel: str) -> None:
    """No thread has a complete fault to count: each one ends in RETRY (or P2's SIGBUS), then the PTE is there."""
    answer = userfault(kernel)
    totals(answer, PF=4, NPt=4, RDY=4, ACC=5, DONE=4, REP=0, MAJ_V=0, MIN_V=0, MAJ_W=0, MIN_W=0, BIO_V=0, BIO_W=0)
    assert [e.gpa for e in answer.events if e.kind is Kind.RDY and e.gpa] == [gpa(n) for n in (3, 2, 1, 0)]


@pytest.mark.parametrize("kernel", [P1, SYNC])
def test_s49_v_blocks_on_the_first(kernel: str) -> None:
    """Until the last copy, which is the first page's; the others are there by then."""
    answer = userfault(kernel)
    totals(answer, PF=4, TRY=0, BLOCK=1, FAST=3, MAJ_V=0)
    assert [i.outcome for i in answer.items] == [Outcome.BLOCK, Outcome.FAST, Outcome.FAST, Outcome.FAST]
    asleep = [e.t_ns for e in answer.events if e.kind in (Kind.OUT, Kind.IN)]
    assert asleep[0] < 100 * MS
    assert asleep[1] >= 400 * MS


def test_s49_a_page_is_resolved_once() -> None:
    timed = ((100 * MS, (HostDo(ModelWord.RESOLVE_USERFAULT, gpa(0)),)),)
    with pytest.raises(ModelError, match="no userfaultfd"):
        simulate(situation(N61, [HostPage(ANON.start, ANON)], touch(), timed=timed))


# --- S50, S55: memory.max


@pytest.mark.parametrize(("kernel", "by_v"), [*((k, 1) for k in NOWAIT), (NIO, 0), (P1, 0)])
def test_s50_who_reclaims(kernel: str, by_v: int) -> None:
    """Each page read into the swap cache is charged once, where the read is submitted; t as S24."""
    pages = [swapped(ANON, n * STRIDE) for n in range(3)]
    row = situation(kernel, pages, *(touch(n * STRIDE, wait=True) for n in range(3)), memcg_full=True)
    totals(simulate(row), NPt=3, RECLAIM_V=3 * by_v, RECLAIM_W=3 * (1 - by_v), MAJ_V=0)
    totals(simulate(replace(row, memcg_full=False)), NPt=3, RECLAIM_V=0, RECLAIM_W=0)


@pytest.mark.parametrize(("kernel", "first"), [*((k, Thread.V) for k in NOWAIT), (NIO, Thread.W), (P1, Thread.W)])
def test_s50_s55_before_or_after_not_present(kernel: str, first: Thread) -> None:
    """nowait: in V's fault, so before NP; noio: nothing there, the worker is the first that charges."""
    full = walk_access(find_kernel(kernel), swapped(ANON, 0), write=False, env=Environment(memcg_full=True))
    assert next(a.thread for a in full.phases if a.counters.reclaims) is first
    oom = walk_access(find_kernel(kernel), replace(swapped(ANON, 0), charge_fails=True), write=False)
    assert next(a.thread for a in oom.phases if any(s.tested == "folio == NULL" for s in a.steps)) is first
    assert oom.outcome is Outcome.LOOP


@pytest.mark.parametrize("kernel", APF)
def test_s55_nothing_is_killed(kernel: str) -> None:
    cycles(simulate(situation(kernel, [replace(swapped(ANON, 0), charge_fails=True)], touch())))


# --- S51: migration entry


@pytest.mark.parametrize("kernel", ALL)
def test_s51_migration(kernel: str) -> None:
    timed = ((50 * MS, (HostDo(ModelWord.END_MIGRATION, gpa(0)),)),)
    answer = simulate(situation(kernel, [HostPage(ANON.start, ANON, Pte.MIGRATION)], touch(), timed=timed))
    totals(answer, PF=1, TRY=0, BLOCK=1, MIN_V=1, MAJ_V=0)
    out = next(e for e in answer.events if e.kind is Kind.OUT)
    assert out.value == ord("D")
    assert next(e.t_ns for e in answer.events if e.kind is Kind.IN) >= 50 * MS


# --- S52: a device without delay


@pytest.mark.parametrize("kernel", NOWAIT)
def test_s52_any_split(kernel: str) -> None:
    pages = [swapped(ANON, n * STRIDE) for n in range(3)]
    row = situation(kernel, pages, *(touch(n * STRIDE, wait=True) for n in range(3)), device=Device(delay_ns=0))
    answer = simulate(row)
    for name in ("NPt", "TRY", "DONE", "RDY", "MAJ_V"):
        assert (answer.totals[name].low, answer.totals[name].high) == (0, 3), name
    assert answer.items[0].outcome is Outcome.TOKEN
    assert answer.items[0].also == (Outcome.SYNC,)
    for _, varied in variations(row):  # D31: maj(V) does not move for a fault that became NP
        found = run_once(varied).world.totals
        assert found["NPt"] + found["MAJ_V"] == 3
    slow = simulate(replace(row, device=Device()))
    totals(slow, NPt=3, MAJ_V=0)


def test_s52_noio_is_not_in_that_race() -> None:
    """X14: refused before anything is read, however fast the device."""
    pages = [swapped(ANON, n * STRIDE) for n in range(3)]
    row = situation(NIO, pages, *(touch(n * STRIDE, wait=True) for n in range(3)), device=Device(delay_ns=0))
    totals(simulate(row), NPt=3, MAJ_V=0, BIO_V=0)


# --- S53, S54: accesses that are no guest page faults


@pytest.mark.parametrize("cluster", [0, 3])
@pytest.mark.parametrize("kernel", ALL)
@pytest.mark.parametrize(("do", "write"), [("read", False), ("write", True)])
def test_s53_a_thread_of_the_vmm(kernel: str, cluster: int, do: str, write: bool) -> None:
    """The guest then finds the PTE: FAST."""
    row = situation(kernel, [swapped(ANON, 0)], host(HostDo(ModelWord(do), gpa(0))), touch(write=write),
                    device=Device(page_cluster=cluster))  # fmt: skip
    totals(simulate(row), PF=1, FAST=1, TRY=0, MAJ_OTHER=1, MAJ_V=0, MIN_V=0, BIO_OTHER=1, BIO_V=0, PGMAJ=1)


@pytest.mark.parametrize("cluster", [0, 3])
@pytest.mark.parametrize("kernel", ALL)
@pytest.mark.parametrize("do", ["kvm-read", "kvm-write"])
def test_s54_kvm_itself(kernel: str, cluster: int, do: str) -> None:
    row = situation(
        kernel, [swapped(ANON, 0)], host(HostDo(ModelWord(do), gpa(0))), device=Device(page_cluster=cluster)
    )
    totals(simulate(row), PF=0, TRY=0, MAJ_V=1, MAJ_OTHER=0, BIO_V=1, BIO_W=0, PGMAJ=1)


def test_s53_a_page_that_cannot_be_had_ends_the_access() -> None:
    leg = user_access(find_kernel(N61), write=True).run(replace(HostPage(), charge_fails=True), situation(
        N61, [HostPage()]).readahead)  # fmt: skip
    assert (leg.end, leg.outcome) == ("error", Outcome.ERROR)
    with pytest.raises(ModelError, match=r"2\.6\.3x"):
        user_access(find_kernel("noio-v7"), write=True)
