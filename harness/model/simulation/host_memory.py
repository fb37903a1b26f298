# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's memory in the simulation: pages, SPTEs, read-ahead, reads in flight; walks of threads through gup.py.

Threads are told apart by their role only: any vCPU thread is Thread.V.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace

from harness.errors import ModelError
from harness.model.events import Event, Kind
from harness.model.file_folios import FileFolios
from harness.model.outcomes import Outcome
from harness.model.pages import Backing, HostPage, Lock, Pte, read_completed, read_submitted, uncached, zero_filled
from harness.model.readahead import ReadaheadState
from harness.model.simulation.bios import fail_together, lengths_of_bios
from harness.model.simulation.engine import Process, Signal, Wait
from harness.model.simulation.followed_threads import FollowedThreads
from harness.model.simulation.gated import GatedReads
from harness.model.simulation.kicked import interrupted, interrupted_ns, told
from harness.model.simulation.lru_batches import in_batch
from harness.model.simulation.mmap_lock import MmapLock
from harness.model.simulation.page_arrivals import PageArrivals
from harness.model.simulation.page_tables import PageTables
from harness.model.simulation.page_watch import PageWatch
from harness.model.simulation.pte_prefetch import direct_pte_prefetch
from harness.model.simulation.read_ahead_marks import marked_late
from harness.model.simulation.swap_space import swap_full
from harness.model.simulation.user_copies import copied
from harness.model.simulation.world import DelayDevice, World
from harness.model.walk.deciding import deciding_steps, in_words
from harness.model.walk.gup import Walk, settle
from harness.model.walk.steps import Counters, End, Environment, Leg, Read, Thread, WaitKind, WalkStep
from harness.model.walk.write_protect import userfault_missing

_PAGE = 4096
ONE_PAGE_EACH = FileFolios(())
_COUNTERS = {"pgmaj": "PGMAJ", "pswpin": "PSWPIN", "ra": "RA", "rah": "RAH", "swpin_zero": "SWPIN_ZERO"}
_HUGE_GFNS = 512
_HELD_UP_NS = 100_000_000
"""So long a kworker may be preempted where processors are fewer than runnable threads (seen: 55 ms)."""


@dataclass(slots=True)
class Resolution:
    """How a walk ended, over all its legs."""

    end: End
    outcome: Outcome
    errno: int = 0
    writable: bool = False
    huge: bool = False  # a 2 MiB SPTE
    waited: bool = False
    stale: bool = False  # a notifier ran during the walk: nothing is mapped, the guest faults again
    read_target: bool = False  # this walk submitted the read of the page
    major: bool = False  # VM_FAULT_MAJOR came back, whoever read in the end
    steps: list[WalkStep] = field(default_factory=list)
    asleep: WalkStep | None = None  # after which it slept first
    state: str = ""  # in which it sleeps: "D", or "S" if a signal ends it
    slept: str = ""  # where, and what it waited for

    def why(self) -> str:
        """The steps that decided, as `apf explain` names them, for people."""
        decided = in_words(deciding_steps(self.steps, self.outcome, self.asleep))
        return f"{decided}; {self.slept}" if self.slept else decided


@dataclass(slots=True)
class Memory:
    """All pages of guest RAM that the run can touch or read, by page number in the VMM (vpn)."""

    world: World
    pages: dict[int, HostPage] = field(default_factory=dict)
    spte: dict[int, bool] = field(default_factory=dict)  # gfn -> writable
    l2_spte: dict[int, bool] = field(default_factory=dict)  # the same, of the tables for L2s
    invalidate_seq: int = 0  # mmu_invalidate_seq: a fault during which it moved maps nothing (is_page_fault_stale)
    l2_npt: bool = False  # L1 gives them nested page tables, which are shadowed
    tables: PageTables = field(default_factory=PageTables)
    linked: set[tuple[int, bool]] = field(default_factory=set)  # (2 MiB of gfns, L2's) that a fault has mapped in
    readahead: ReadaheadState = field(default_factory=ReadaheadState)
    signals: dict[int, Signal] = field(default_factory=lambda: defaultdict(Signal))
    mapping: Signal = field(default_factory=Signal)  # the guest was given a mapping
    device: DelayDevice = field(init=False)
    gate: GatedReads | None = None
    env: Environment = field(init=False)
    worker_reads: dict[int, int] = field(default_factory=dict)  # vpn -> when a kworker submitted its read
    no_slot: set[int] = field(default_factory=set)  # gfns whose memslot was deleted
    _chosen: set[int] = field(default_factory=set)  # vCPUs that have read ahead
    _asked: set[int] = field(default_factory=set)  # pages whose userfault the manager has been told of
    watch: PageWatch | None = None  # of the thread that runs now
    running: int = -1  # its vCPU, if it is a vCPU's thread
    asleep: dict[int, Resolution] = field(default_factory=dict)  # vCPU -> its walk, as long as it sleeps in it
    followed: FollowedThreads = field(init=False)
    arrivals: PageArrivals = field(init=False)
    lock: MmapLock = field(init=False)
    gfn_to_vpn: dict[int, int] = field(default_factory=dict)
    slots: dict[int, int] = field(default_factory=dict)  # swap offset -> vpn
    _indices: dict[int, int] = field(default_factory=dict)  # file index -> vpn

    def __post_init__(self) -> None:
        self.followed, self.arrivals, self.lock = FollowedThreads(self), PageArrivals(self), MmapLock(self.world)
        situation = self.world.situation
        self.l2_npt = any(step.nested and step.l2.npt for step in situation.steps)
        # kvm_mmu_get_page: the direct tables of both have one role, as the shadow's is computed before guest mode is
        # entered (5.10; svm/nested.c:nested_prepare_vmcb_control).  Without nested paging L2's is another.
        if not situation.kernel.tdp_mmu and self.l2_npt:
            self.l2_spte = self.spte
        for pool in situation.pages:
            self.gfn_to_vpn[pool.gpa // _PAGE] = pool.page.vpn
            self._indices[pool.page.index] = pool.page.vpn
            if pool.page.swap is not None:
                self.slots[pool.page.swap.offset] = pool.page.vpn
            self.pages[pool.page.vpn] = pool.page
        self.readahead = situation.readahead
        device = situation.device
        self.device = DelayDevice(device, device.delay_ns, device.delay_ns)
        if device.rule is not None and device.gated:
            self.gate = GatedReads(self.world, device.rule)
        env = Environment(
            page_cluster=device.page_cluster,
            vma_readahead=device.vma_readahead,
            ra_pages=device.ra_pages,
            memcg_full=situation.memcg_full,
            neighbours=self,
            finished=self.followed.finished if self.world.pace.may_read_first else None,
            told=lambda: told(self),
            swap_full=lambda: swap_full(self),
            in_batch=lambda page: in_batch(self, page),
            marked_late=lambda page: marked_late(self, page),
        )
        self.env = self.followed.answering(env) if self.world.replay else env

    # --- Neighbours, for read-ahead
    def swap_entry_uncached(self, vpn: int) -> bool:
        """The PTE of this page is a swap entry whose page is not in the swap cache."""
        page = self.pages.get(vpn)
        return page is not None and page.pte is Pte.SWAP and page.folio is None and not self.arrivals.added(vpn)

    def slot_used_uncached(self, offset: int) -> bool:
        """The swap slot is in use and its page is not in the swap cache."""
        vpn = self.slots.get(offset)
        return vpn is not None and self.pages[vpn].swapped_out and not self.arrivals.added(vpn)

    def file_uncached(self, index: int) -> bool:
        """The page of the file exists and is not in the page cache."""
        vpn = self._indices.get(index)
        if vpn is None:
            rest = self.world.situation.ram_file
            return rest is not None and rest.first <= index < rest.end
        if self.pages[vpn].folio is not None or self.pages[vpn].beyond_eof:
            return False
        return not self.arrivals.read(vpn) and not self.arrivals.added(vpn)

    def file_place(self, index: int) -> int | None:
        """Where on the device the page of the file has written blocks, in pages."""
        vpn, ram = self._indices.get(index), self.world.situation.ram_file
        if self.pages[vpn].hole if vpn is not None else ram is None or not ram.has_blocks(index):
            return None
        return ram.place(index) if ram is not None else index

    def mapped_by(self, vpn: int) -> HostPage | None:
        """The page at this page number, if it is one that the run can touch or has read."""
        self.arrivals.pass_by(vpn)
        return self.pages.get(vpn)

    def zero_on_swap(self, unit: str, number: int) -> bool | None:
        """The page at this slot or page number held only zero bytes when it was written out."""
        page = self.pages.get(number if unit == "vpn" else self.slots.get(number, -1))
        return page is not None and page.swap is not None and page.swap.zero

    # --- the guest's mapping
    def mapped(self, gpa: int, *, write: bool, guest_mode: bool = False) -> bool:
        """The access does not leave the guest; ``guest_mode``: L2's."""
        gfn = gpa // _PAGE
        if not self.world.situation.kernel.tdp_mmu and (gfn // _HUGE_GFNS, guest_mode) not in self.linked:
            return False
        writable = (self.l2_spte if guest_mode else self.spte).get(gfn)
        return writable is not None and (writable or not write)

    def vpn(self, gpa: int) -> int:
        """Where the VMM has the guest page."""
        return self.gfn_to_vpn[gpa // _PAGE]

    def page(self, gpa: int) -> HostPage:
        """The host page of a guest address, as it is now."""
        return self.pages[self.vpn(gpa)]

    def unmap(self, gpa: int) -> None:
        """kvm_mmu_notifier_invalidate_range_start and _end for a page."""
        self.invalidate_seq += 1
        self.spte.pop(gpa // _PAGE, None)
        self.l2_spte.pop(gpa // _PAGE, None)

    def forget_mappings(self) -> None:
        """A memory slot was deleted (arch/x86/kvm/x86.c:kvm_arch_flush_shadow_memslot)."""
        self.spte.clear()
        self.l2_spte.clear()
        self.tables.forget()

    def collides(self, gpa: int, others: Iterable[int], *, guest_mode: bool, since_ns: int) -> bool:
        """A fault that began then may lose an entry to one on another page (page_tables.py)."""
        if not self.world.situation.kernel.tdp_mmu or (guest_mode and self.l2_npt):
            return False
        return self.tables.may_collide(gpa // _PAGE, others, guest_mode=guest_mode, since_ns=since_ns)

    def install(self, gpa: int, resolution: Resolution, *, guest_mode: bool = False, prefetch: bool = False) -> bool:
        """Map what GUP gave; False if it gave nothing, or is_page_fault_stale says RET_PF_RETRY.

        ``prefetch``: for a ready event, by a fault that only reads.
        """
        if resolution.end is not End.MAPPED or resolution.stale:
            return False
        gfn, tables = gpa // _PAGE, self.l2_spte if guest_mode else self.spte
        if prefetch and gfn in tables and self.world.situation.kernel.prefetch_keeps_entry:
            return True
        self.linked.add((gfn // _HUGE_GFNS, guest_mode))
        self.tables.link(gfn, guest_mode=guest_mode, now_ns=self.world.engine.now, huge=resolution.huge)
        if resolution.huge:  # kvm_mmu_hugepage_adjust: the whole of the aligned 2 MiB
            base = gfn - gfn % _HUGE_GFNS
            tables.update(dict.fromkeys(range(base, base + _HUGE_GFNS), resolution.writable))
        else:
            tables[gfn] = resolution.writable
            # L1's tables for its L2 have entries of 2 MiB, so that those that shadow them are direct.
            if (guest_mode and self.l2_npt) or not self.world.situation.kernel.tdp_mmu:
                direct_pte_prefetch(self, tables, gfn)
        self.world.engine.fire(self.mapping)
        return True

    # --- threads
    def perform(
        self, walk: Walk, gpa: int, who: Thread, vcpu: int = -1, watch: PageWatch | None = None
    ) -> Generator[Wait, None, Resolution]:
        """Run a walk to its end, sleeping where it sleeps; ``watch``: when it ran, in a run that was recorded."""
        vpn = self.vpn(gpa)
        yield from self.lock.read(self.pages[vpn].pte, vcpu)
        result = Resolution(End.ERROR, Outcome.ERROR)
        inside = resumed = slept = False
        seq = self.invalidate_seq
        while True:
            if who is Thread.V and gpa // _PAGE in self.no_slot:
                vma = replace(self.pages[vpn].vma, backing=Backing.NO_SLOT)
                gone = walk.run(HostPage(vpn=vpn, vma=vma), self.readahead)
                result.end, result.outcome = gone.end or End.EMUL, gone.outcome or Outcome.EMUL
                result.steps += gone.steps
                return result
            if watch is not None and not resumed:
                yield from self.followed.moment(watch, gpa // _PAGE, inside=inside)
            self.watch, self.running = watch, vcpu
            found = self.arrivals.look(vpn, again=resumed) if inside else self.pages[vpn]
            remembered = self.followed.remembered(found) if inside else self._remembered(vcpu)
            leg = walk.run(found, remembered)
            if self.world.situation.timing.at_once and leg.readahead != remembered:
                self._chosen.add(vcpu)
            before = self.pages[vpn]
            self._apply(leg, vpn, who, vcpu)
            self.watch = None
            if watch is not None and inside and leg.page.pte is not before.pte:
                yield from self.followed.mapped(watch, vpn, before)
            if leg.invalidated:
                yield from self.followed.unmaps(watch, gpa // _PAGE)
                self.unmap(gpa)
            result.steps += leg.steps
            result.major = result.major or leg.major
            result.read_target = result.read_target or any(vpn in self.vpns(r.unit, r.pages) for r in leg.reads)
            if leg.wait is None:
                if watch is not None and inside:
                    self.followed.returned(watch, gpa)
                result.end, result.outcome = leg.end or End.ERROR, leg.outcome or Outcome.ERROR
                result.errno, result.writable, result.stale = leg.errno, leg.writable, leg.invalidated
                if self.world.replay is None:  # else the recording says when a notifier ran (lost_mapping.py)
                    result.stale = seq != self.invalidate_seq
                result.huge = leg.huge
                return result
            if resumed := leg.wait.kind is WaitKind.HELD_UP:
                yield Wait(until_ns=self.followed.resumes_ns)
                continue
            if leg.wait.kind in (WaitKind.CALL, WaitKind.RETURN):
                inside = leg.wait.kind is WaitKind.CALL
                if watch is not None:
                    self.followed.paced(watch, gpa, inside=inside, slept=slept if vcpu >= 0 else None)
                slept = False
                continue
            result.waited = slept = True
            if result.asleep is None:
                result.asleep = result.steps[-1]
                result.slept = f"sleeps in {leg.wait.function} ({leg.wait.kind})"
            if vcpu >= 0:
                if self.gate is not None:
                    self.gate.vcpu_asks(vcpu, gpa // _PAGE)
                self.world.emit(Event(Kind.OUT, vcpu, value=ord(leg.wait.state)))
            elif self.gate is not None and who is Thread.W:
                self.gate.worker_sleeps(gpa // _PAGE)
            if leg.wait.kind is WaitKind.USERFAULT and (self.device.device.rule is not None or self.world.replay):
                self._ask_manager(gpa)
            self.asleep[vcpu], result.state = result, leg.wait.state
            self.lock.sleeps(leg.wait)
            until_ns = interrupted_ns(self, watch, leg.wait.state)
            while self._busy(vpn) and not interrupted(self, vcpu, leg.wait.state, until_ns):
                yield Wait(until_ns=until_ns, signals=(self.signals[vpn], self.world.signal))
            if watch is not None and inside:
                yield from self.followed.wakes(watch, gpa // _PAGE)
            timing = self.world.pace.timing
            late_ns = timing.worker_wake_ns if vcpu < 0 else timing.wake_ns
            if late_ns and self.world.replay is None:
                yield Wait(until_ns=self.world.engine.now + late_ns)
            self.lock.wakes(leg.wait)
            self.asleep.pop(vcpu, None)  # workers have one number together
            if vcpu >= 0:
                self.world.emit(Event(Kind.IN, vcpu))

    def _remembered(self, vcpu: int) -> ReadaheadState:
        """The read-ahead's state as the thread finds it; another that began at once has noted nothing yet."""
        at_once = self.world.situation.timing.at_once and vcpu >= 0 and vcpu not in self._chosen
        return self.world.situation.readahead if at_once else self.readahead

    def worker_starts(self, gpa: int) -> None:
        """A work for the page begins while a read of it is in flight: it finds the folio, unless the kworker that reads
        was held up between its own look-up and the read.  Then both have missed, and each counts PGMAJFAULT."""
        if self.world.replay is not None:
            return
        vpn = self.vpn(gpa)
        since = self.worker_reads.get(vpn)
        if self.pages[vpn].locked and since is not None and self.world.engine.now - since < _HELD_UP_NS:
            self.world.may_be_more["PGMAJ"] += 1

    def read_by_other(self, gpa: int) -> None:
        """Another process reads the page of the file: it is locked until the read ends.

        :raise ModelError: the page is in the page cache by then: the agent's process is to sleep on the device.
        """
        vpn = self.vpn(gpa)
        if self.pages[vpn].folio is not None:
            name = next((p.name for p in self.world.situation.pages if p.gpa == gpa), f"{gpa:#x}")
            raise ModelError(f"lock-read of {name}, which is in the page cache by then", hint="put it first")
        self.pages[vpn] = read_submitted(self.pages[vpn])
        index = self.pages[vpn].index
        self._submit(Read(Thread.W, "index", index, (index,)), Thread.OTHER, -1, vpn)

    def read_slot_by_other(self, vpn: int) -> None:
        """Another process reads a page from the swap device into the swap cache."""
        swap = self.pages[vpn].swap
        if swap is None:
            raise ModelError("the page is not on swap")
        self.slots[swap.offset] = vpn
        self.pages[vpn] = read_submitted(self.pages[vpn])
        self.world.count("PSWPIN")
        self._submit(Read(Thread.W, "slot", swap.offset, (swap.offset,)), Thread.OTHER, -1, vpn)

    def _busy(self, vpn: int) -> bool:
        page = self.pages[vpn]
        return page.locked or page.pte is Pte.MIGRATION or userfault_missing(page)

    # --- what others do to a page
    def happen(self, gpa: int, kind: WaitKind) -> None:
        """The event has come that a thread waits for, or would: UFFDIO_COPY, the end of a migration.

        :raise ModelError: the page is not in a state that this event ends.
        """
        vpn = self.vpn(gpa)
        self.pages[vpn] = settle(self.pages[vpn], kind)
        self.world.engine.fire(self.signals[vpn])

    def _ask_manager(self, gpa: int) -> None:  # a message for whoever holds the userfaultfd; it answers each page once
        if gpa not in self._asked:
            self._asked.add(gpa)
            self.world.engine.spawn(copied(self, gpa))

    def _apply(self, leg: Leg, vpn: int, who: Thread, vcpu: int) -> None:
        self.pages[vpn] = leg.page
        if leg.page.folio is not None:
            self.arrivals.added_by_itself(vpn)
        self.pages.update((page.vpn, page) for page in leg.around)
        self.followed.chose(leg.readahead)
        self.readahead = leg.readahead
        self._account(leg.counters, who)
        for fill in leg.fills:
            flagged = set(self.vpns(fill.unit, fill.flagged))
            for other in self.vpns(fill.unit, fill.pages):
                page, folios = self.pages[other], fill.folios or ONE_PAGE_EACH
                order = folios.orders.get(page.index, 0)
                self.arrivals.bring(zero_filled(page, readahead=other in flagged, order=order))
        for read in leg.reads:
            # A poll or a wait for the read just submitted: it lasts as long as the device takes.
            at_once = read.synchronous and leg.wait is None
            self._submit(replace(read, synchronous=at_once), who, vcpu, vpn)

    def _account(self, moved: Counters, who: Thread) -> None:
        self.world.count(f"MAJ_{who}", moved.maj)
        self.world.count(f"MIN_{who}", moved.min)
        self.world.count(f"RECLAIM_{who}", moved.reclaims)
        for name, total in _COUNTERS.items():
            self.world.count(total, getattr(moved, name))

    def vpns(self, unit: str, pages: tuple[int, ...]) -> list[int]:
        """Page numbers of pages that a read names by slot, file index or page number, as far as the run knows them."""
        where = {"slot": self.slots, "index": self._indices}.get(unit)
        if where is None:
            return list(pages)
        if unit == "index":
            for index in pages:
                self._know(index)
        return [where[p] for p in pages if p in where]

    def _know(self, index: int) -> None:
        """A page of the RAM file that no PoolPage names comes into the page cache."""
        if index in self._indices or not self.file_uncached(index):
            return
        vma = self.world.situation.vma
        vpn = vma.start + index
        self.pages[vpn] = uncached(vpn, vma, index, hole=self.file_place(index) is None)
        self._indices[index] = vpn

    def _submit(self, read: Read, who: Thread, vcpu: int, target: int) -> None:
        folios = read.folios or ONE_PAGE_EACH
        vpns, riders = (self.vpns(read.unit, pages) for pages in (read.pages, folios.riders))
        flagged = set(self.vpns(read.unit, read.flagged))
        for vpn in vpns + riders:
            if vpn != target:
                order = folios.orders.get(self.pages[vpn].index, 0)
                submitted = read_submitted(self.pages[vpn], readahead=vpn in flagged, order=order)
                at_once = read.synchronous and not self._recorded(vpn)
                self.arrivals.bring(read_completed(submitted) if at_once else submitted)
        if self.watch is not None:
            self.watch.read |= {self.pages[vpn].index for vpn in vpns}
        if who is Thread.W:
            self.worker_reads.update(dict.fromkeys(vpns, self.world.engine.now))
        if read.unit != "index":
            fail_together(self, vpns)
        if read.bio and self.device.device.issues_bios:
            for pages, begins in lengths_of_bios(self, read, vpns, who):
                self.world.count(f"BIO_{who}", int(begins))
                self.world.count(f"READ_{who}", pages)
                if begins:
                    self.world.emit(Event(Kind.BIO, vcpu, data=8 * pages, flag=True, worker=who is Thread.W))
        vpns += riders
        if self.world.replay is not None:
            for vpn in vpns:
                if not read.synchronous or self._recorded(vpn):
                    self.world.engine.spawn(self._read_recorded(vpn))
        elif not read.synchronous and self.gate is not None:
            self.world.engine.spawn(self._gated_read(self.gate, vpns, target, asked=[target] if vcpu >= 0 else []))
        elif not read.synchronous:
            pace, device = self.world.pace, self.device
            end = self.world.engine.now + device.delay_ns + pace.read_ns(target)
            end = device.last_end_ns = max(end, device.last_end_ns + pace.timing.device_gap_ns)
            self.world.engine.spawn(self._read([v for v in vpns if v == target], end))
            self.world.engine.spawn(self._read([v for v in vpns if v != target], end + pace.neighbour_ns(target)))

    def _gated_read(self, gate: GatedReads, vpns: list[int], target: int, asked: list[int]) -> Process:
        """Ends when the rule says so, read-ahead before its target.

        :param asked: the page of the vCPU's fault in which it was submitted: the gate lets go what one brings together
            (harness/agent/gate/keeper.py).
        """
        gfns = frozenset(gfn for gfn, vpn in self.gfn_to_vpn.items() if vpn in vpns + asked)
        yield from gate.hold(gfns, self.device.loaded)
        self._complete([v for v in vpns if v != target] + [v for v in vpns if v == target])

    def _recorded(self, vpn: int) -> bool:
        return self._recorded_end(vpn) >= 0

    def _recorded_end(self, vpn: int) -> int:
        """When the folio's read ended that is in flight now, the last of its bios; -1: not while it was recorded.

        Of a page that the plan does not name nobody knows where it is on the device, but of others of its folio.
        """
        page, replay, now = self.arrivals.final(vpn), self.world.replay, self.world.engine.now
        named = (n for n in page.folio_indices if n in self.gfn_to_vpn and self.file_place(n) is not None)
        ends = [replay.read_end(n, now) for n in (tuple(named) or (page.index,))] if replay else [-1]
        return max(ends) if min(ends) >= 0 else -1

    def _read_recorded(self, vpn: int) -> Process:
        """The read ends when it ended; what was not seen to end has not: the device may take as long as it will."""
        replay, end = self.world.replay, self._recorded_end(vpn)
        if end < 0:
            return
        yield Wait(until_ns=end)
        index = self.pages[vpn].index
        if replay and (unlocked := replay.unlocked(index, end)) > end:
            yield Wait(until_ns=unlocked)
        page = self.pages[vpn]
        if page.folio is not None and page.folio.lock is Lock.READ:
            refused = replay is not None and (index, end) in replay.recorded.refused
            self.pages[vpn] = read_completed(page, refused=refused)
        self.world.engine.fire(self.signals[vpn])

    def _read(self, vpns: list[int], end_ns: int) -> Process:
        yield from self.device.over(end_ns)
        self._complete(vpns)

    def _complete(self, vpns: list[int]) -> None:
        for vpn in vpns:
            page = self.pages[vpn]
            if page.folio is not None and page.folio.lock is Lock.READ:
                self.pages[vpn] = read_completed(page)
            self.world.engine.fire(self.signals[vpn])
