# SPDX-License-Identifier: GPL-2.0-or-later
"""Which held reads are answered now: requests, trace lines and host words in, answers and the log out.  Pure.

One fault reads several pages, each by a request of its own (queue/nomerges is 2): they end together.  So each request
belongs to a batch: the bios that one thread queued since its last kvm_page_fault, or a kworker since the last work it
completed.  A request is matched with its bio by its sector.  Which page a read brings is known from the plan's table;
of memory whose place on the device nobody can tell (shmem) from the thread: a vCPU thread reads for the fault that it
is in, and a kworker for one that was announced (virt/kvm/async_pf.c:kvm_setup_async_pf queues its work).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from harness.agent.gate.watch import Sight, What
from harness.contract.gate import Release, Rule, Seen, Why

LATE_SECONDS = 20.0
"""A read that is held so long is let go, so that the run comes to an end; the verdict is INCONCLUSIVE then."""
_SECTOR = 512
_PAGE_SECTORS = 8


Batch = tuple[int, int]
"""(thread, how many faults or works it had behind it when it queued the bio)."""


class Order(StrEnum):
    """In which order reads are answered that may end at the same moment."""

    GIVEN = "given"  # as they came
    REVERSE = "reverse"


@dataclass(frozen=True, slots=True)
class Orders:
    """What the plan wants.  ``pages``: first sector on the device -> guest frame number, of the planned pages."""

    rule: Rule = field(default_factory=Rule)
    order: Order = Order.GIVEN
    tids: tuple[int, ...] = ()  # vCPU threads, in vCPU order
    pages: Mapping[int, int] = field(default_factory=dict)
    errors: frozenset[int] = frozenset()  # guest frame numbers whose reads end with EIO
    after_s: float = 0.0


@dataclass(slots=True)
class Held:
    """A read that is not answered yet.  ``offset``, ``length`` in bytes; ``at``: CLOCK_MONOTONIC seconds."""

    handle: int
    offset: int
    length: int
    at: float
    pages: frozenset[int]  # its own planned pages


@dataclass(frozen=True, slots=True)
class Answer:
    handle: int
    offset: int
    length: int
    error: int  # errno, 0: the data


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the log: one read, from request to answer, in the trace's clock (seconds)."""

    at: float
    sector: int
    sectors: int
    pages: tuple[int, ...]
    answered: float
    why: Why
    error: int


@dataclass(slots=True)
class Keeper:
    """``armed``: the plan's orders hold; before that, and after ``open``, reads are answered as they come."""

    orders: Orders = field(default_factory=Orders)
    armed: bool = False
    frozen: bool = False
    held: list[Held] = field(default_factory=list)
    log: list[Entry] = field(default_factory=list)
    _seen: Seen = field(default_factory=Seen)
    _vcpus: dict[int, int] = field(default_factory=dict)  # tid -> vCPU
    _last: dict[int, float] = field(default_factory=dict)  # tid -> time of its newest switch
    _turn: dict[int, int] = field(default_factory=dict)  # tid -> how many faults or works it has behind it
    _batch: dict[int, Batch] = field(default_factory=dict)  # sector -> batch of its newest bio
    _target: dict[Batch, int] = field(default_factory=dict)  # page of the fault in which a vCPU thread queued them
    _by_worker: set[Batch] = field(default_factory=set)
    _gone: dict[Batch, Why] = field(default_factory=dict)  # batches that end, of which more requests may still come
    _step: bool = False

    # --- words
    def arm(self, orders: Orders) -> None:
        """From now on reads end as the plan says."""
        self.orders, self.armed, self.frozen = orders, True, False
        self._seen = Seen(orders.rule, max(1, len(orders.tids)))
        self._vcpus = {tid: n for n, tid in enumerate(orders.tids)}
        for memory in (self._last, self._turn, self._batch, self._target, self._by_worker, self._gone):
            memory.clear()
        self.log.clear()

    def open(self) -> None:
        """Reads held so far and all later ones are answered as they come."""
        self.armed = self.frozen = False

    def freeze(self, frozen: bool) -> None:
        """Hold everything, whatever the rule says; or go on as the rule says."""
        self.frozen = frozen

    def step(self) -> None:
        """Answer what is held at this moment."""
        self._step = True

    # --- what happens
    def request(self, handle: int, offset: int, length: int, now: float) -> None:
        """A read came."""
        first, end = offset // _SECTOR, (offset + length) // _SECTOR
        wanted = (self.orders.pages.get(s) for s in range(first - first % _PAGE_SECTORS, end, _PAGE_SECTORS))
        self.held.append(Held(handle, offset, length, now, frozenset(p for p in wanted if p is not None)))

    def see(self, sight: Sight) -> None:
        """A line of the trace was read."""
        if sight.what is What.READ:
            batch = self._batch[sight.sector] = (sight.tid, self._turn.get(sight.tid, 0))
            if sight.worker:
                self._by_worker.add(batch)
            return
        if sight.what in (What.FAULT, What.COMPLETED):
            turn = self._turn[sight.tid] = self._turn.get(sight.tid, 0) + 1
            if sight.what is What.FAULT:
                self._target[sight.tid, turn] = sight.page
        vcpu = self._vcpus.get(sight.tid)
        if vcpu is None:
            return
        match sight.what:
            case What.FAULT:
                self._seen.fault(vcpu, sight.page)
            case What.ANNOUNCED:
                self._seen.announced(vcpu, sight.page)
            case What.READY:
                self._seen.ready(vcpu, sight.page)
            case What.REPEATED:
                self._seen.repeated(vcpu)
            case What.OUT | What.IN:
                # Lines of two CPUs may come out of order when the thread moved meanwhile.
                if sight.at >= self._last.get(sight.tid, 0.0):
                    self._last[sight.tid] = sight.at
                    (self._seen.sleeps if sight.what is What.OUT else self._seen.wakes)(vcpu)
            case What.COMPLETED:
                pass

    # --- answers
    def answers(self, now: float) -> list[Answer]:
        """The reads that end now, in the order in which they are to be answered."""
        due = self._due(now)
        self._step = False
        if self.orders.order is Order.REVERSE:
            due.reverse()
        for read, why in due:
            self.held.remove(read)
            if self.armed:
                self.log.append(self._entry(read, why, now))
        return [Answer(read.handle, read.offset, read.length, self._error(read)) for read, _ in due]

    def _due(self, now: float) -> list[tuple[Held, Why]]:
        if not self.armed or (self.orders.rule.release is Release.OPEN and not self.frozen):
            return [(read, Why.OPEN) for read in self.held]
        if self._step:
            return [(read, Why.STEP) for read in self.held]
        if self.frozen:
            return []
        together = [self._pages_of_batch(read) for read in self.held]
        settled = dict(self._seen.due(together))
        for position, reason in settled.items():
            batch = self._batch_of(self.held[position])
            if batch is not None:
                self._gone.setdefault(batch, reason)
        found = []
        for position, read in enumerate(self.held):
            why = settled.get(position) or self._gone_with(read) or self._otherwise(read, together[position], now)
            if why is not None:
                found.append((read, why))
        return found

    def _otherwise(self, read: Held, together: frozenset[int], now: float) -> Why | None:
        """Reasons that have nothing to do with a fault on the read's pages."""
        if not together:
            return Why.NOT_PLANNED
        match self.orders.rule.release:
            case Release.AFTER:
                return Why.AFTER if now - read.at >= self.orders.after_s else None
            case Release.STEP:
                return None  # until the plan says so
            case _:
                return Why.LATE if now - read.at >= LATE_SECONDS else None

    def _batch_of(self, read: Held) -> Batch | None:
        return self._batch.get(read.offset // _SECTOR)

    def _gone_with(self, read: Held) -> Why | None:
        batch = self._batch_of(read)
        return self._gone.get(batch) if batch is not None else None

    def _pages_of_batch(self, read: Held) -> frozenset[int]:
        """Pages of the plan in all held reads that were queued together with this one."""
        batch = self._batch_of(read)
        if batch is None:
            return read.pages
        pages = read.pages.union(*(r.pages for r in self.held if self._batch_of(r) == batch))
        if batch in self._target:
            pages |= {self._target[batch]}
        if not pages and batch in self._by_worker:
            return self._seen.announced_pages
        return pages

    def _error(self, read: Held) -> int:
        return errno.EIO if self.armed and read.pages & self.orders.errors else 0

    def _entry(self, read: Held, why: Why, now: float) -> Entry:
        return Entry(
            round(read.at, 6), read.offset // _SECTOR, read.length // _SECTOR, tuple(sorted(read.pages)),
            round(now, 6), why, self._error(read),
        )  # fmt: skip

    def evidence(self) -> list[dict[str, Any]]:
        """The log, as JSON values; reads that are still held are no part of it."""
        return [asdict(entry) for entry in self.log]
