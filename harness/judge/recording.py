# SPDX-License-Identifier: GPL-2.0-or-later
"""Evidence -> Recorded: the times and orders that drive the model through the very run that was seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from harness.contract.capture import GateLog
from harness.contract.plan import Backing, GuestKind, HostWord, PageStart, Plan, SwapKind, says
from harness.contract.probe_abi import POOL_GPA, SECTORS_PER_PAGE, VEC_TIMER
from harness.evidence.decode import Evidence
from harness.evidence.resets import under_first_threads
from harness.judge.cut_off import cut_faults, cut_off, deadline_cuts, guest_runs_on, kvm_run_failed
from harness.judge.episodes import split
from harness.judge.ready_vectors import ready_vectors
from harness.judge.recorded_actions import progress
from harness.judge.recorded_drafts import Call, Draft, L2Tracker
from harness.judge.recorded_lives import LivesTracker
from harness.judge.recorded_notifiers import Notifiers
from harness.judge.recorded_places import with_neighbours
from harness.judge.recorded_words import words_of
from harness.judge.recorded_works import LiveWork, PageWork, QueuedWork, complete, work_runs
from harness.judge.refused_reads import refused_reads
from harness.model.events import (
    MSR_ASYNC_PF_ACK,
    MSR_ASYNC_PF_EN,
    MSR_ASYNC_PF_INT,
    MSR_IA32_APICBASE,
    MSR_X2APIC_SPIV,
    WAKE_ALL_TOKEN,
    Event,
    Kind,
)
from harness.model.simulation.recorded import FaultCall, PageChange, Recorded, RecordedAction, RecordedEvent, Stay
from harness.model.walk.flags import VM_FAULT_ERROR, FaultFlag, VmFault

_NEEDED = ("block/block_bio_queue", "apf/mm_fault", "apf/mm_fault_ret")
_UNMAPS = {"kvm/kvm_unmap_hva_range", "apf/unmap_hva_range"}  # the event of x86 since 5.13, or our probe there
_ENDS = {SwapKind.GATED: "block/block_rq_complete"}
_MSRS = (MSR_ASYNC_PF_EN, MSR_ASYNC_PF_INT, MSR_ASYNC_PF_ACK)
# What kvm_page_fault has of the access: SVM's error code (arch/x86/include/asm/kvm_host.h:PFERR_*), or VMX's exit
# qualification (SDM volume 3, table 29-7), which has bits 7 and 8 for an address that was translated.
_WRITE, _PFERR_GUEST_FINAL, _EPT_TRANSLATED = 1 << 1, 1 << 32, 1 << 7 | 1 << 8
_PAGE_MASK = ~0xFFF


def recording(evidence: Evidence, places: Mapping[int, int] | None) -> Recorded | None:
    """The recording of a probe guest's run; None where it lacks what the choices are read from.

    :param places: gfn to the first sector of the page on its device.
    """
    facts, plan = evidence.facts, evidence.plan
    if facts is None or evidence.guest is None or plan.guest.kind is not GuestKind.PROBE or evidence.lost:
        return None
    if any(name not in facts.trace_events for name in _NEEDED):
        return None
    ram_hva = evidence.ram_hva()
    known = dict(places or {})
    if not _all_placed(plan, known):
        learned = _single_reads(evidence.events, facts.swap_dev, ram_hva)
        if learned is None:
            return None
        known = learned
    if plan.memory.backing is Backing.FILE:
        known = with_neighbours(known, {page.gpa >> 12 for page in plan.pages})
    start_ns, end_ns, host = progress(evidence.steps)
    if start_ns < 0:
        return None
    ends_known = ends_recorded(plan, facts.trace_events)
    cut = cut_faults(split(evidence.events, ram_hva), evidence.events) if guest_runs_on(evidence) else frozenset()
    reader = _Reader(plan, facts.swap_dev, ram_hva, known, start_ns, ends_known, cut)
    if plan.swap.kind is SwapKind.USERFAULT and evidence.gate is not None:
        reader.copied(evidence.gate)
    for event in under_first_threads(evidence.events, facts.vcpu_tids, facts.later_tids):
        reader.feed(event)
    last_ns = max((event.t_ns for event in evidence.events), default=start_ns) - start_ns
    # The agent says that it collects, and stops the recording then: a guest that never ends goes on meanwhile.
    found = reader.result(facts.vcpu_tids, host, words_of(evidence.guest, plan), max(end_ns, last_ns))
    refused = refused_reads(plan, evidence.events, facts.swap_dev, known, start_ns, host)
    under_way = deadline_cuts(evidence) and cut_off(evidence.events, known)
    failed_ns = kvm_run_failed(evidence.events)
    found = replace(found, asleep=found.asleep and not under_way and failed_ns < 0, refused=refused)
    failed_ns = failed_ns - start_ns if failed_ns >= 0 else -1
    return replace(found, unmaps_known=not _UNMAPS.isdisjoint(facts.trace_events), failed_ns=failed_ns)


def ends_recorded(plan: Plan, trace_events: Collection[str]) -> bool:
    """Whether the trace has the end of each read of the pages' device; ``trace_events``: "system/event" recorded."""
    return _ENDS.get(plan.swap.kind, "block/block_bio_complete") in trace_events


def _all_placed(plan: Plan, places: Mapping[int, int]) -> bool:
    """Where each page that may be read lies is known, or no read takes time."""
    if plan.swap.kind in (SwapKind.NONE, SwapKind.ZRAM, SwapKind.USERFAULT):
        return True
    read = (PageStart.SWAPPED, PageStart.DROPPED, PageStart.ZERO_SWAPPED)
    return all(page.gpa >> 12 in places for page in plan.pages if page.start in read)


def _single_reads(events: Iterable[Event], dev: int, ram_hva: int) -> dict[int, int] | None:
    """gfn to sector, if each read was of one page while its thread handled a fault on that page; else None.

    Of shmem nobody outside the kernel can tell where a page is on the swap device.
    """
    found: dict[int, int] = {}
    inside: dict[int, tuple[int, list[Event]]] = {}
    for event in events:
        if event.kind is Kind.MM_FAULT:
            inside[event.tid] = event.hva - ram_hva >> 12, []
        elif event.kind is Kind.BIO and event.flag and event.dev == dev:
            if event.tid not in inside:
                return None
            inside[event.tid][1].append(event)
        elif event.kind is Kind.MM_FAULT_RET and event.tid in inside:
            gfn, reads = inside.pop(event.tid)
            if len(reads) > 1 or any(read.data != SECTORS_PER_PAGE for read in reads):
                return None
            for read in reads:
                found.setdefault(gfn, read.value)
    return found


@dataclass(slots=True)
class _Thread:
    """A thread that handles host page faults: those it has handled for what it does now."""

    hva: int = 0
    since: int = -1  # it is in handle_mm_fault since then
    slept: bool = False  # ... and has slept there
    woke: int = -1  # ... until then
    writes: bool = False
    calls: list[Call] = field(default_factory=list)
    begun: int = -1  # a worker: async_pf_execute was entered
    work: tuple[int, int] | None = None


@dataclass(slots=True)
class _VcpuReader:
    drafts: list[Draft] = field(default_factory=list)
    fault: Draft | None = None
    exit_ns: int = 0
    exit_at: int = 0
    last_ns: int = 0  # what it did last, or slept before
    preempted: bool = False
    asleep: bool = False  # TASK_INTERRUPTIBLE, as in a halt, and not seen since
    thread: _Thread = field(default_factory=_Thread)
    busy: list[Stay] = field(default_factory=list)
    ticks: list[int] = field(default_factory=list)
    accepted: set[int] = field(default_factory=set)  # interrupts that the LAPIC has accepted so far
    l2: L2Tracker = field(default_factory=L2Tracker)
    lives: LivesTracker = field(init=False)

    def __post_init__(self) -> None:
        self.lives = LivesTracker(self.drafts)


@dataclass(slots=True)
class _Bios:
    """Reads that one thread submitted in one call of handle_mm_fault."""

    thread: int
    since: int
    gfns: set[int] = field(default_factory=set)
    sent: bool = False  # the delay is over, the disk below has it


class _Reader:
    """Takes the events of the trace in order."""

    def __init__(
        self,
        plan: Plan,
        dev: int,
        ram_hva: int,
        places: dict[int, int],
        start_ns: int,
        ends_known: bool,
        cut: Collection[int] = (),
    ) -> None:
        self._cut = cut
        self._dev, self._ram, self._start, self._ends_known = dev, ram_hva, start_ns, ends_known
        self._top = plan.guest.memory_mib << 20
        self._gfn_of = {sector: gfn for gfn, sector in places.items()}
        self._vcpus = [_VcpuReader() for _ in range(plan.guest.vcpus)]
        for v in self._vcpus:
            v.lives.peers = [each.lives for each in self._vcpus]
        self._vectors = ready_vectors(plan) | {VEC_TIMER}
        self._gfns = {p.gpa >> 12 for p in plan.pages}
        self._syncs = says(plan, HostWord.SYNC)
        self._workers: dict[int, _Thread] = defaultdict(_Thread)
        self._live: list[LiveWork] = []
        self._works: dict[tuple[int, int], QueuedWork] = {}
        self._order: list[list[tuple[int, int]]] = [[] for _ in self._vcpus]
        self._ends: dict[int, list[int]] = defaultdict(list)
        self._changes: dict[int, list[PageChange]] = defaultdict(list)
        self._reads: dict[int, list[FaultCall]] = defaultdict(list)
        self._calls: dict[int, list[FaultCall]] = defaultdict(list)
        self._notifiers = Notifiers()
        self._ending: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        self._over: dict[tuple[int, int], int] = {}
        self._before: dict[tuple[int, int], int] = {}
        self._in_flight: list[_Bios] = []  # where the ends of reads were not recorded

    def copied(self, log: GateLog) -> None:
        """What the manager of a userfaultfd has answered: no event of the kernel tells when the page came, only that it
        was between the decision and the return of UFFDIO_COPY."""
        for copy in log.reads:
            decided, ended = copy.answered_ns - self._start, max(copy.answered_ns, copy.ended_ns) - self._start
            for gfn in copy.pages:
                self._ends[gfn].append(decided)
                self._changes[gfn].append(PageChange(decided, 0))
                self._over[gfn, decided] = max(ended, self._over.get((gfn, decided), 0))  # threads ask more than once

    def feed(self, event: Event) -> None:
        """One event."""
        if event.kind is Kind.KICK:  # D69 alone is about it
            return
        t = event.t_ns - self._start
        # An end is traced before it is told to the bio: it is over when this CPU is seen to do something else.
        for gfn, told in self._ending.pop(event.cpu, ()):
            self._over[gfn, told] = t
        if event.vcpu < 0 and not event.worker and event.kind is not Kind.BIO_END:
            self._notifiers.see(event, t)
        if event.kind in (Kind.BIO, Kind.BIO_END):
            self._block(event, t)
        elif event.kind is Kind.UNMAP:
            pages = range(self._gfn(event.hva), self._gfn(event.data - 1) + 1)
            self._notifiers.begin(event, t, self._gfns.intersection(pages))
        elif event.vcpu >= 0:
            self._of_vcpu(event, t)
        elif (event.worker and event.kind is not Kind.WORK_END) or event.kind in (Kind.DONE, Kind.WORK):
            self._of_worker(event, t)

    # --- device and workers
    def _block(self, event: Event, t: int) -> None:
        if not event.flag:
            return
        sectors = range(event.value, event.value + event.data, SECTORS_PER_PAGE)
        gfns = [self._gfn_of[sector] for sector in sectors if sector in self._gfn_of]
        if event.dev != self._dev:  # the disk below: what was delayed is on its way
            for bios in self._in_flight:
                bios.sent = bios.sent or not bios.gfns.isdisjoint(gfns)
            return
        thread = self._vcpus[event.vcpu].thread if event.vcpu >= 0 else self._workers.get(event.tid)
        since = thread.since if thread and thread.since >= 0 else t
        if not self._ends_known:
            last = self._in_flight[-1] if self._in_flight else None
            thread = thread or self._workers[event.tid]
            if last is None or (last.thread, last.since) != (event.tid, thread.since):
                last = _Bios(event.tid, thread.since)
                self._in_flight.append(last)
            last.gfns.update(gfns)
        for before, gfn in zip((-1, *gfns), gfns, strict=False):
            self._changes[gfn].append(PageChange(t, 0 if event.kind is Kind.BIO_END else event.tid))
            if event.kind is Kind.BIO_END:
                self._ends[gfn].append(t)
                self._ending[event.cpu].append((gfn, t))
                self._before[gfn, t] = before
            else:
                self._reads[gfn].append(FaultCall(since, t, event.tid))

    def _of_worker(self, event: Event, t: int) -> None:
        thread = self._workers[event.tid]
        if event.kind is Kind.WORK:
            self._workers[event.tid] = _Thread(begun=t)
        elif event.kind in (Kind.MM_FAULT, Kind.MM_FAULT_RET):
            self._mm_fault(thread, event, t)
            gfn = self._gfn(event.hva) if event.kind is Kind.MM_FAULT else -1
            if thread.work is None and gfn in self._gfns:
                self._begins(thread, gfn, t, event.tid, event.cpu)
        elif event.kind is Kind.DONE:
            if thread.work is None:
                self._begins(thread, event.gpa >> 12, t, event.tid, event.cpu)
            if thread.work is not None:
                complete(self._works, self._live, thread.work, event.gpa, t)
            del self._workers[event.tid]

    def _begins(self, thread: _Thread, gfn: int, t: int, tid: int, cpu: int) -> None:
        """The oldest work of this page that no worker has begun; of this CPU, if there is one: schedule_work takes the
        kworker of the CPU that submits (kernel/workqueue.c:__queue_work)."""
        found = [w for w in self._live if w.gfn == gfn and not w.begun]
        live = next((w for w in found if w.cpu == cpu), found[0] if found else None)
        if live is None:
            return
        live.begun = True
        thread.work = live.key
        run = PageWork(thread.begun if thread.begun >= 0 else t, tid, thread.calls)
        self._works[live.key] = QueuedWork(gfn, live.queued, run, address=live.address)

    def _mm_fault(self, thread: _Thread, event: Event, t: int) -> None:
        if event.kind is Kind.MM_FAULT:
            thread.hva, thread.since, thread.slept, thread.woke = event.hva, t, False, -1
            thread.writes = bool(event.value & FaultFlag.WRITE)
        elif thread.since >= 0:
            retried, major = bool(event.value & VmFault.RETRY), bool(event.value & VmFault.MAJOR)
            gfn, error = self._gfn(thread.hva), event.value & VM_FAULT_ERROR
            call = FaultCall(
                thread.since, t, event.tid, retried, thread.slept, thread.woke, major, thread.writes,
                failed=bool(error), refused=error == VM_FAULT_ERROR,
            )  # fmt: skip
            thread.calls.append(Call(gfn, call))
            self._calls[gfn].append(call)
            self._notifiers.returned(event.tid, call.start_ns, t)
            thread.since = -1
            self._changes[gfn].append(PageChange(t, event.tid))
            if event.worker and not self._ends_known:
                self._waited(gfn, t)

    def _waited(self, gfn: int, t: int) -> None:
        """A worker that came back from the page had slept until its read ended; what the disk had by then is over too.

        A guess, for captures of before the ends were recorded.
        """
        if not any(gfn in bios.gfns for bios in self._in_flight):
            return
        for over in [bios for bios in self._in_flight if bios.sent or gfn in bios.gfns]:
            self._in_flight.remove(over)
            for other in over.gfns:
                self._ends[other].append(t - 1)
                self._changes[other].append(PageChange(t - 1, 0))

    def _gfn(self, hva: int) -> int:
        return hva - self._ram >> 12 if hva >= self._ram else -1

    # --- vCPU threads
    def _of_vcpu(self, event: Event, t: int) -> None:
        v, kind = self._vcpus[event.vcpu], event.kind
        v.l2.feed(event, t, rewrites=self._syncs)
        v.lives.feed(event, t)
        if kind in (Kind.MM_FAULT, Kind.MM_FAULT_RET):
            self._mm_fault(v.thread, event, t)
            return
        if kind is Kind.PF:
            self._fault(v, event, t)
        elif kind in (Kind.TRY, Kind.NP, Kind.REP, Kind.ENTRY, Kind.USER_EXIT):
            self._leaves_fault(v, event, t)
        elif kind is Kind.EXIT:
            v.thread = _Thread()
            v.exit_ns, v.exit_at = t, len(v.drafts)
        elif kind is Kind.WRMSR:
            self._wrmsr(v, event, t)
        elif kind is Kind.RDY:
            self._ready(v, event, t)
        elif kind is Kind.VIRQ and event.value in self._vectors & v.accepted and not event.flag:
            self._resolved(v, t)
            v.drafts.append(Draft(RecordedEvent(kind, event.value, t, t, event.line)))
        elif kind is Kind.ACC:
            v.accepted.add(event.value)
            if event.value == VEC_TIMER:
                v.ticks.append(t)
        elif kind is Kind.L2_INTR:
            v.drafts.append(Draft(RecordedEvent(kind, 0, t, t, event.line, optional=True)))
        elif kind is Kind.CLEAR:
            self._cleared(event.vcpu)
        # A thread that was preempted goes on with what it was at: it may have been done with it before.
        if event.line:  # else it was inferred of the VMM
            v.asleep = kind is Kind.OUT and chr(event.value) == "S"
        if kind is Kind.OUT:
            v.preempted = chr(event.value) == "R"
            v.thread.slept = v.thread.slept or not v.preempted
        elif kind is Kind.IN and not v.preempted:
            v.thread.woke = t
        if not (v.preempted and kind in (Kind.OUT, Kind.IN)):
            v.last_ns = t

    def _fault(self, v: _VcpuReader, event: Event, t: int) -> None:
        v.thread = _Thread()
        gfn = event.gpa >> 12
        # The guest's own memory may be unmapped from it at any time, by the writeback of its file for one.
        # Above the RAM there is what the VMM emulates, such as a LAPIC in user space.
        own = not POOL_GPA <= event.gpa < self._top and gfn not in self._gfns
        # A walk of the guest's tables may be told as a write (APM volume 2, 15.25.6).
        final = event.value & _PFERR_GUEST_FINAL or event.value & _EPT_TRANSLATED == _EPT_TRANSLATED
        write = bool(event.value & _WRITE) if final else None
        mark = RecordedEvent(Kind.PF, gfn, t, t, event.line, v.last_ns, t, optional=own, write=write)
        v.fault = Draft(mark, v.thread.calls)
        v.drafts.append(v.fault)

    def _leaves_fault(self, v: _VcpuReader, event: Event, t: int) -> None:
        if v.fault is not None:
            if v.fault.mark.until_ns == v.fault.mark.start_ns:
                v.fault.mark = replace(v.fault.mark, until_ns=t)
            if event.kind is not Kind.TRY:
                v.busy.append(Stay(v.fault.mark.start_ns, t, v.fault.mark.key))
                v.fault = None
                v.thread = _Thread()
        if event.kind is Kind.NP:
            v.drafts.append(Draft(RecordedEvent(Kind.NP, event.token, t, t, event.line)))
            v.l2.token_of(v.drafts[-1])
            self._live = [w for w in self._live if (w.vcpu, w.gfn) != (event.vcpu, event.gpa >> 12)]
            self._live.append(LiveWork(event.vcpu, event.token, event.gpa, t, event.cpu))
        elif event.kind is Kind.REP:
            v.drafts.append(Draft(RecordedEvent(Kind.REP, event.gpa >> 12, t, t, event.line)))

    def _wrmsr(self, v: _VcpuReader, event: Event, t: int) -> None:
        switch = event.value in (MSR_IA32_APICBASE, MSR_X2APIC_SPIV)  # written by a guest that boots, too
        if (event.value not in _MSRS and not switch) or not event.line:  # 0: by the VMM
            return
        mark = RecordedEvent(Kind.WRMSR, event.value, v.exit_ns, t, event.line, optional=switch)
        v.drafts.insert(v.exit_at, Draft(mark))
        if event.value == MSR_ASYNC_PF_EN and event.data & 0b1001 != 0b1001 and not event.flag:
            self._cleared(event.vcpu)

    def _ready(self, v: _VcpuReader, event: Event, t: int) -> None:
        calls = self._prefetch(v, event.gpa >> 12, t)
        first = calls[0].window.start_ns if calls else t
        mark = RecordedEvent(Kind.RDY, event.token, first, t, event.line, v.last_ns, t, guest_mode=v.l2.guest_mode)
        v.drafts.append(Draft(mark, calls))
        v.busy.append(Stay(min(v.last_ns, first), t, event.gpa >> 12))
        v.thread = _Thread()
        if event.token != WAKE_ALL_TOKEN:
            key = (event.vcpu, event.token)
            self._order[event.vcpu].append(key)
            self._live = [w for w in self._live if w.key != key]
            if key in self._works:
                self._works[key].ready = first

    def _prefetch(self, v: _VcpuReader, gfn: int, t: int) -> list[Call]:
        """The calls of kvm_arch_async_page_ready; those before them were of a fault that has no entry yet."""
        calls, fault = v.thread.calls, v.fault
        own = [call for call in calls if call.gfn == gfn]
        if fault is None:
            return own
        own = [call for call in own if call.gfn != fault.mark.key]
        fault.calls = [call for call in calls if call not in own]
        self._resolved(v, own[0].window.start_ns if own else t)
        return own

    def _resolved(self, v: _VcpuReader, t: int) -> None:
        """What comes now is of the way back into the guest: the fault, if there is one, is over.

        It may have found its page present, without a call of handle_mm_fault or behind its last, at any time till then.
        """
        fault, v.fault = v.fault, None
        if fault is not None:
            fault.mark = replace(fault.mark, until_ns=t)
            v.busy.append(Stay(fault.mark.start_ns, t, fault.mark.key))

    def _cleared(self, vcpu: int) -> None:
        self._live = [w for w in self._live if w.vcpu != vcpu]

    def _all_wait(self, log: tuple[tuple[tuple[str, int], ...], ...]) -> bool:
        """Each vCPU slept as in a halt at last, or its guest idled."""
        return all(v.asleep or (words and words[-1][0] == "idle") for v, words in zip(self._vcpus, log, strict=True))

    def _cut_short(self, v: _VcpuReader, end: int) -> None:
        """The thread is in its page fault when the recording ends, maybe in a call of handle_mm_fault."""
        fault, thread = v.fault, v.thread
        if fault is None or fault.mark.line not in self._cut or fault.mark.until_ns > fault.mark.start_ns:
            return  # behind kvm_try_async_get_page the next is an event of its own
        fault.mark = replace(fault.mark, cut=True)
        if thread.since >= 0:
            call = FaultCall(thread.since, end, slept=thread.slept, woke_ns=thread.woke, writes=thread.writes)
            fault.calls.append(Call(self._gfn(thread.hva), call))

    # --- all together
    def result(
        self,
        tids: tuple[int, ...],
        host: tuple[RecordedAction, ...],
        log: tuple[tuple[tuple[str, int], ...], ...],
        end: int,
    ) -> Recorded:
        """The recording."""
        for v in self._vcpus:
            v.lives.over()
            self._cut_short(v, end)
        return Recorded(
            marks=tuple(tuple(d.freeze() for d in v.drafts) for v in self._vcpus),
            threads=tids,
            works=work_runs(self._works, self._order),
            read_ends={gfn: tuple(ends) for gfn, ends in self._ends.items()},
            changes={gfn: tuple(found) for gfn, found in self._changes.items()},
            busy=tuple(tuple(v.busy) for v in self._vcpus),
            unmaps=tuple(self._notifiers.ran), invalidations=tuple(self._notifiers.ended),
            unmapped={gfn: tuple(found) for gfn, found in self._notifiers.unmapped.items()},
            ticks=tuple(tuple(v.ticks) for v in self._vcpus),
            host=host, log=log, end_ns=end,
            reads={gfn: tuple(found) for gfn, found in self._reads.items()},
            calls={gfn: tuple(found) for gfn, found in self._calls.items()},
            ends_known=self._ends_known, over=self._over, before=self._before, asleep=self._all_wait(log),
            exits=tuple(tuple(v.lives.exits) for v in self._vcpus),
            entered=tuple(tuple(v.lives.entered) for v in self._vcpus),
            irets=tuple(tuple(v.lives.irets) for v in self._vcpus),
            last=tuple(v.last_ns for v in self._vcpus),
            unstarted=frozenset(n for n, v in enumerate(self._vcpus) if v.lives.unstarted),
        )  # fmt: skip
