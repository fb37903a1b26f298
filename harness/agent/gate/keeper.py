# SPDX-License-Identifier: GPL-2.0-or-later
"""Which held reads are answered now: requests, trace lines and host words in, answers and the log out.  Pure.

One fault reads several pages, each by a request of its own (queue/nomerges is 2): they end together.  So each request
belongs to a batch: the bios that one thread queued since its last kvm_page_fault, or a kworker since the last work it
completed.  Which page a read brings is known from the plan's table; of memory whose place on the device nobody can tell
(shmem) from the thread: a vCPU thread reads for the fault that it is in, and a kworker for one that was announced
(virt/kvm/async_pf.c:kvm_setup_async_pf queues its work).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from harness.agent.gate.in_order import InOrder
from harness.agent.gate.watch import Sight, What
from harness.contract.capture import GateLog, GateRead
from harness.contract.gate import Rule, Seen
from harness.contract.probe_abi import MOVED_GPA, PAGE_SIZE, SECTORS_PER_PAGE
from harness.contract.words import ReadEnd, ReadOrder, Release

LATE_SECONDS = 20.0
"""A read that is held so long is let go, so that the run comes to an end; the verdict is INCONCLUSIVE then."""
_SECTOR = 512
_DONE_BY_ITSELF = frozenset({What.FAULT, What.ANNOUNCED, What.REPEATED, What.READY, What.WORK, What.CR0})
_MOVED = MOVED_GPA // PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Orders:
    """What the plan wants.  ``pages``: first sector on the device -> guest frame number, of the planned pages."""

    rule: Rule = field(default_factory=Rule)
    order: ReadOrder = ReadOrder.TARGET_LAST
    tids: tuple[int, ...] = ()  # vCPU threads, in vCPU order
    pages: Mapping[int, int] = field(default_factory=dict)
    errors: frozenset[int] = frozenset()  # guest frame numbers whose reads end with EIO
    after_s: float = 0.0
    ram_hva: int = -1  # address in QEMU of guest physical address 0; -1: what workers do is not in the trace
    apic_ids: tuple[int, ...] = ()  # of the vCPUs, in their order
    moved: bool = False  # an L2 has its pages MOVED_GPA above where they are, and KVM traces its addresses

    def page_of(self, page: int) -> int:
        """The guest's own number of a page that KVM's trace names."""
        return page - _MOVED if self.moved and page >= _MOVED else page


@dataclass(slots=True, eq=False)
class Batch:
    """Reads that end together."""

    targets: frozenset[int] = frozenset()  # page of the fault in which a vCPU thread queued them
    worker: bool = False
    coming: set[int] = field(default_factory=set)  # sectors of bios whose requests have not come yet
    why: ReadEnd | None = None  # why they end, once they do: requests that come later end with them


@dataclass(slots=True, eq=False)
class Held:
    """A read that is not answered yet.  ``offset``, ``length`` in bytes; ``at``: CLOCK_MONOTONIC seconds."""

    handle: int
    offset: int
    length: int
    at: float
    pages: frozenset[int]  # its own planned pages
    batch: Batch


@dataclass(frozen=True, slots=True)
class Answer:
    handle: int
    offset: int
    length: int
    error: int  # errno, 0: the data


@dataclass(slots=True)
class Keeper:
    """``armed``: the plan's orders hold; before that, and after ``open``, reads are answered as they come."""

    orders: Orders = field(default_factory=Orders)
    armed: bool = False
    frozen: bool = False
    saving: bool = False  # a snapshot is taken: QEMU reads all of the guest's memory in a thread of its own
    held: list[Held] = field(default_factory=list)
    log: list[GateRead] = field(default_factory=list)
    _told: InOrder = field(default_factory=InOrder)
    _vcpus: dict[int, int] = field(default_factory=dict)  # tid -> vCPU
    _switched: dict[int, float] = field(default_factory=dict)  # tid -> time of its newest switch
    _current: dict[int, Batch] = field(default_factory=dict)  # tid -> what it queues now
    _batches: dict[int, Batch] = field(default_factory=dict)  # sector -> batch of its newest bio

    @property
    def _seen(self) -> Seen:
        return self._told.seen

    # --- words
    def arm(self, orders: Orders) -> None:
        """From now on reads end as the plan says."""
        self.orders, self.armed, self.frozen, self.saving = orders, True, False, False
        self._told = InOrder(Seen(orders.rule, max(1, len(orders.tids)), workers_seen=orders.ram_hva >= 0))
        self._vcpus = {tid: n for n, tid in enumerate(orders.tids)}
        for memory in (self._switched, self._current, self._batches):
            memory.clear()
        self.log.clear()

    def new_thread(self, vcpu: int, tid: int) -> None:
        """The vCPU runs in another thread from now on, and waits for nothing."""
        self._vcpus = {own: n for own, n in self._vcpus.items() if n != vcpu} | {tid: vcpu}
        self._told.tell(self._told.newest, Seen.begins_anew, vcpu)

    def reset(self, at: float) -> None:
        """The machine was reset then (CLOCK_MONOTONIC seconds), and no vCPU ran."""
        self._told.tell_late(at, Seen.given_reset)

    def loaded(self) -> None:
        """A snapshot was loaded: nothing of before is outstanding."""
        self._told.tell(self._told.newest, Seen.loaded)

    def open(self) -> None:
        """Reads held so far and all later ones are answered as they come."""
        self.armed = self.frozen = False

    def freeze(self, frozen: bool) -> None:
        """Hold everything, whatever the rule says; or go on as the rule says."""
        self.frozen = frozen

    def let_go(self) -> None:
        """The host word "release"."""
        self._told.tell(self._told.newest, Seen.let_go)

    def save(self, saving: bool) -> None:
        """A snapshot begins, or has ended."""
        self.saving = saving

    @property
    def settled(self) -> bool:
        """Whether the worker of each outstanding fault sleeps on its page."""
        return self._seen.settled

    @property
    def halted(self) -> int:
        """How many vCPU threads sleep in a halt with a page outstanding."""
        return self._seen.halted

    # --- what happens
    def request(self, handle: int, offset: int, length: int, now: float) -> None:
        """A read came; the trace line of its bio was seen before."""
        first, end = offset // _SECTOR, (offset + length) // _SECTOR
        found = (self.orders.pages.get(s) for s in range(first - first % SECTORS_PER_PAGE, end, SECTORS_PER_PAGE))
        batch = self._batches.get(first) or Batch()
        batch.coming.discard(first)
        self.held.append(Held(handle, offset, length, now, frozenset(p for p in found if p is not None), batch))

    def see(self, sight: Sight) -> None:
        """A line of the trace was read."""
        match sight.what:
            case What.READ:
                batch = self._current.setdefault(sight.tid, Batch(worker=sight.worker))
                batch.coming.add(sight.sector)
                self._batches[sight.sector] = batch
                return
            case What.FAULT:
                self._current[sight.tid] = Batch(frozenset({self.orders.page_of(sight.page)}))
            case What.COMPLETED:
                self._current.pop(sight.tid, None)
                self._told.tell(sight.at, Seen.work_done, sight.tid)
            case What.WORK if sight.tid not in self._vcpus:
                self._told.tell(sight.at, Seen.work, sight.tid, (sight.address - self.orders.ram_hva) >> 12)
            case What.OUT if sight.tid not in self._vcpus:
                self._told.tell(sight.at, Seen.work_sleeps, sight.tid)
            case What.INIT if sight.apic in self.orders.apic_ids:
                self._told.tell(sight.at, Seen.given_init, self.orders.apic_ids.index(sight.apic))
                return
        vcpu = self._vcpus.get(sight.tid)
        if vcpu is not None:
            self._tell(sight, vcpu)

    def _tell(self, sight: Sight, vcpu: int) -> None:
        if sight.what in _DONE_BY_ITSELF and sight.at >= self._switched.get(sight.tid, 0.0):
            self._told.tell(sight.at, Seen.runs, vcpu)
        match sight.what:
            case What.FAULT:
                self._told.tell(sight.at, Seen.fault, vcpu, self.orders.page_of(sight.page))
            case What.ANNOUNCED:
                self._told.tell(sight.at, Seen.announced, vcpu, self.orders.page_of(sight.page))
            case What.READY:
                self._told.tell(sight.at, Seen.ready, vcpu, self.orders.page_of(sight.page))
            case What.WORK:
                self._told.tell(sight.at, Seen.asks, vcpu, (sight.address - self.orders.ram_hva) >> 12)
            case What.REPEATED:
                self._told.tell(sight.at, Seen.repeated, vcpu)
            case What.ENABLED:
                self._told.tell(sight.at, Seen.enabled, vcpu)
            case What.DISABLED:
                self._told.tell(sight.at, Seen.disabled, vcpu)
            case What.CR0:
                self._told.tell(sight.at, Seen.cr0_written, vcpu)
            case What.OUT | What.DOZE | What.WOKEN:
                # Lines of two CPUs may come out of order when the thread moved meanwhile.
                if sight.at < self._switched.get(sight.tid, 0.0):
                    return
                self._switched[sight.tid] = sight.at
                if sight.what is What.WOKEN:
                    self._told.tell(sight.at, Seen.wakes, vcpu)
                else:
                    self._told.tell(sight.at, Seen.sleeps, vcpu, interruptible=sight.what is What.DOZE)

    # --- answers
    def answers(self, now: float) -> list[Answer]:
        """The reads that end now, in the order in which they are to be answered."""
        due = self._due(now)
        match self.orders.order:
            case ReadOrder.TARGET_LAST:
                awaited = self._seen.awaited
                due.sort(key=lambda entry: bool(entry[0].pages & awaited))
            case ReadOrder.REVERSE:
                due.reverse()
            case ReadOrder.GIVEN:
                pass
        for read, why in due:
            self.held.remove(read)
            if self.armed:
                self.log.append(self._entry(read, why, now))
        return [Answer(read.handle, read.offset, read.length, self._error(read)) for read, _ in due]

    def answered(self, answer: Answer, now: float) -> None:
        """An answer has been given: on a busy machine long after it was decided on."""
        at = next((n for n in range(len(self.log) - 1, -1, -1) if self.log[n].sector == answer.offset // _SECTOR), -1)
        if at >= 0 and not self.log[at].ended_ns:
            self.log[at] = replace(self.log[at], ended_ns=round(now * 1e9))

    def _due(self, now: float) -> list[tuple[Held, ReadEnd]]:
        if not self.armed or (self.orders.rule.word is Release.OPEN and not self.frozen):
            return [(read, ReadEnd.OPEN) for read in self.held]
        if self.frozen:
            return []
        brought = self._brought()
        pages = [brought[read.batch] for read in self.held]
        for position, why in self._seen.due(pages):
            batch = self.held[position].batch
            if not batch.coming and batch.why is None:
                batch.why = why
        reasons = (read.batch.why or self._otherwise(read, pages[n], now) for n, read in enumerate(self.held))
        return [(read, why) for read, why in zip(self.held, reasons, strict=True) if why is not None]

    def _otherwise(self, read: Held, pages: frozenset[int], now: float) -> ReadEnd | None:
        """Reasons that have nothing to do with a fault on the read's pages."""
        if self.orders.rule.word is Release.AFTER:
            return ReadEnd.AFTER if now - read.at >= self.orders.after_s else None
        if not pages:
            return ReadEnd.NOT_PLANNED
        if self.saving and self._seen.passes and not pages & self._seen.awaited:
            return ReadEnd.SAVED
        if self.orders.rule.word is Release.STEP:
            return None  # until the plan says so
        return ReadEnd.LATE if now - read.at >= LATE_SECONDS else None

    def _brought(self) -> dict[Batch, frozenset[int]]:
        """Pages that the reads of each batch bring, as far as anybody knows."""
        found: dict[Batch, frozenset[int]] = {}
        for read in self.held:
            found[read.batch] = found.get(read.batch, read.batch.targets) | read.pages
        announced = self._seen.announced_pages
        return {batch: announced if batch.worker and not pages else pages for batch, pages in found.items()}

    def _error(self, read: Held) -> int:
        return errno.EIO if self.armed and read.pages & self.orders.errors else 0

    def _entry(self, read: Held, why: ReadEnd, now: float) -> GateRead:
        return GateRead(
            round(read.at * 1e9), round(now * 1e9), read.offset // _SECTOR, read.length // _SECTOR,
            tuple(sorted(read.pages)), why, self._error(read),
        )  # fmt: skip

    @property
    def evidence(self) -> GateLog:
        """What became of each read since ``arm``."""
        return GateLog(tuple(self.log), len(self.held))
