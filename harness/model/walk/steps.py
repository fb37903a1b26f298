# SPDX-License-Identifier: GPL-2.0-or-later
"""What a walk through the kernel's functions is made of: steps, waits, reads, counters, the context that records them.

A step function is a generator under the kernel function's name.  It yields a WalkWait where the kernel would sleep and
goes on when the page has changed; so one walk can be suspended, and several can interleave.  Nothing here knows time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from operator import add, attrgetter
from types import GeneratorType
from typing import NamedTuple, ParamSpec, TypeVar

from harness.contract.words import Thread as Thread
from harness.errors import ModelError
from harness.model.file_folios import FileFolios, bring
from harness.model.kernels import KernelModel
from harness.model.outcomes import Outcome
from harness.model.pages import HostPage, Lock
from harness.model.readahead import AllMissing, Neighbours, ReadaheadState, Window
from harness.model.walk.flags import VmFault
from harness.model.walk.function_names import name_in

P = ParamSpec("P")
T = TypeVar("T")

MAX_STEPS = 2_000
"""A walk takes some thirty; one that takes so many goes round in a circle."""


class WaitKind(StrEnum):
    OWN_READ = "own-read"  # a read that this very walk submitted
    OTHERS_READ = "others-read"  # a read in flight that somebody else (or an earlier walk) submitted
    PAGE_LOCK = "page-lock"  # PG_locked held for another reason
    MIGRATION = "migration"  # migration_entry_wait
    USERFAULT = "userfault"  # handle_userfault
    HELD_UP = "held-up"  # no sleep: this thread gets to its read later than to the look before it
    CALL = "call"  # no sleep: a call of handle_mm_fault begins, of a run that was recorded
    RETURN = "return"  # no sleep: it is over


@dataclass(frozen=True, slots=True)
class WalkWait:
    """The thread sleeps.  ``mmap_lock_held``: for read, over the whole sleep; ``state``: as sched_switch shows it."""

    kind: WaitKind
    function: str
    mmap_lock_held: bool
    state: str = "D"  # "S" where the sleep is interruptible


@dataclass(frozen=True, slots=True)
class Read:
    """Pages read from a device, submitted by ``thread``.

    ``pages`` are in ``unit``: "vpn" (swap, VMA mode), "slot" (swap, cluster mode), "index" (file).  ``synchronous``:
    it is over when the step that submitted it goes on.  ``bio``: whether a block_bio_queue event is emitted.
    ``folios``: of a read-ahead of a file; None: single pages.
    """

    thread: Thread
    unit: str
    target: int
    pages: tuple[int, ...]
    flagged: tuple[int, ...] = ()
    synchronous: bool = False
    bio: bool = True
    folios: FileFolios | None = None


@dataclass(frozen=True, slots=True)
class Fill:
    """Neighbours of a target that come into the cache, uptodate and unlocked, without any I/O; units as in Read."""

    unit: str
    pages: tuple[int, ...]
    flagged: tuple[int, ...] = ()
    folios: FileFolios | None = None


@dataclass(frozen=True, slots=True)
class Counters:
    """Counters moved by one thread: its own maj and min; the others are vmstat events that it caused."""

    maj: int = 0
    min: int = 0
    pgfault: int = 0
    pgmaj: int = 0
    pswpin: int = 0
    ra: int = 0  # swap_ra
    rah: int = 0  # swap_ra_hit
    swpin_zero: int = 0
    reclaims: int = 0  # charges of one page that found memory.max reached

    def __add__(self, other: Counters) -> Counters:
        return Counters(*map(add, _values(self), _values(other)))


_values = attrgetter(*(f.name for f in fields(Counters)))


class Mark(StrEnum):
    """Steps that decide."""

    NONE = ""
    REFUSED = "refused"  # the fault handler gave no page: refused, retry, error
    GATE = "gate"  # KVM's choice between token, halt and blocking


class WalkStep(NamedTuple):
    """One thing that one kernel function did: what it tested, with which result, and why it went on as it did."""

    function: str
    tested: str
    result: str
    why: str
    citation: str
    thread: Thread
    mark: Mark = Mark.NONE
    calls: tuple[tuple[int, str], ...] = ()  # (serial, function) of the calls that are open, outermost first

    @property
    def depth(self) -> int:
        """How deep the call is nested, from 0."""
        return len(self.calls) - 1


class End(StrEnum):
    """How a walk ends."""

    MAPPED = "mapped"  # GUP gave the page (for W: the page is there)
    STALE = "stale"  # RET_PF_RETRY: GUP gave the page, and a notifier ran meanwhile: the guest faults again
    ASYNC = "async"  # *async == true: V would like an async page fault
    ERROR = "error"  # no page: error pfn, KVM_RUN returns errno
    SIGBUS = "sigbus"  # hwpoison: SIGBUS BUS_MCEERR_AR to V, the fault is retried
    SIGNAL = "signal"  # -EINTR, KVM_PFN_ERR_SIGPENDING
    OOPS = "oops"  # NULL dereference in V (v7's own bug)
    EMUL = "emul"  # no memslot, or write to a read-only one: MMIO, no GUP
    TOKEN = "token"  # try_async_pf: work queued, "page not present" injected
    HALT = "halt"  # work queued, or repeated fault: KVM_REQ_APF_HALT
    REPEATED = "repeated"


@dataclass(frozen=True, slots=True)
class Environment:
    """What is around the page.  Defaults are Linux defaults.

    ``vma_readahead``: vma_ra_enabled and no rotational swap device active.  ``signal_pending``: SIGKILL is pending.
    ``memcg_full``: memory.current is at memory.max, so that each charge reclaims first, in the thread that charges.
    """

    page_cluster: int = 3
    vma_readahead: bool = True
    ra_pages: int = 32
    last_slot: int | None = None
    fault_around: bool = True
    congested: bool = False
    signal_pending: bool = False
    memcg_full: bool = False
    neighbours: Neighbours = field(default_factory=AllMissing)
    finished: Callable[[HostPage], bool] | None = None  # the read just submitted is over before its submitter looks
    refused: Callable[[HostPage], bool] | None = None  # the device has not taken the read-ahead just submitted
    # others may come between this thread's look and its read (of a window: unit, numbers)
    held_up: Callable[[HostPage, str, tuple[int, ...]], bool] | None = None
    chooses_late: Callable[[HostPage], bool] | None = None  # others come before this thread chooses its window
    chooses_early: Callable[[HostPage], bool] | None = None  # and this one, which is held up, had chosen its own before
    # around which page the window was chosen that this thread reads, which has chosen that one around its own
    chosen_around: Callable[[HostPage, Collection[int]], int] | None = None
    # the next of a window (unit, numbers) that this thread puts into the cache before it goes on with its page
    submits: Callable[[str, Collection[int]], int | None] | None = None
    fills_late: Callable[[HostPage], bool] | None = (
        None  # others come before this thread has filled the page with zeros
    )
    # others map the page that this one has filled, or (True) found, and not locked
    maps_late: Callable[[HostPage, bool], bool] | None = None
    asks_late: Callable[[HostPage], bool] | None = None  # others come before page_mkwrite of this thread locks the page
    taken: Callable[[str, int], bool] | None = None  # another thread reads this page (unit, number) meanwhile
    contended: Callable[[HostPage], bool] | None = None  # another thread in handle_mm_fault holds the page's lock
    passed_by: Callable[[HostPage], bool] | None = None  # ... of a page that is only mapped along with another
    swap_full: Callable[[], bool] | None = None  # mm/memcontrol.c:mem_cgroup_swap_full
    in_batch: Callable[[HostPage], bool] | None = None  # the page that was read waits in a CPU's batch for its LRU list
    marked_late: Callable[[HostPage], bool] | None = None  # its reader has not set PG_readahead yet
    told: Callable[[], bool] | None = None  # a signal that is not fatal is pending for this thread
    paced: bool = False  # when each call of handle_mm_fault began and ended was recorded
    came_back: Callable[[HostPage, VmFault], None] | None = None  # ... and what it returned


@dataclass(frozen=True, slots=True)
class VcpuView:
    """What KVM knows of the vCPU when it decides between token, halt and blocking (behaviour.md B.4, B.5)."""

    can_do: bool = True  # kvm_can_do_async_pf
    can_deliver: bool = True  # kvm_can_deliver_async_pf, and the write of flags succeeds
    live: bool = False  # gfn is in the vCPU's gfn set
    setup_fails: bool = False  # 64 queued, hva error or no memory for the work
    why: str = ""  # of can_do / can_deliver, for people


class Place(NamedTuple):
    """A kernel function of a release."""

    file: str
    name: str
    citation: str


class OpenCall(NamedTuple):
    """A kernel function that is running, until its generator has ended.  ``calls``: (serial, function) of all that are,
    with this one."""

    place: Place
    running: GeneratorType[WalkWait, None, object]
    calls: tuple[tuple[int, str], ...]


@dataclass(slots=True)
class Context:
    """The state of one walk; page and read-ahead state are those of the moment."""

    kernel: KernelModel
    env: Environment
    thread: Thread
    write: bool
    page: HostPage
    readahead: ReadaheadState
    vcpu: VcpuView = field(default_factory=VcpuView)
    stack: list[OpenCall] = field(default_factory=list)  # outermost first; those that have returned go with the next
    serial: int = 0
    steps: list[WalkStep] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    waits: list[WalkWait] = field(default_factory=list)
    around: list[HostPage] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    counters: Counters = field(default_factory=Counters)
    is_async: bool = False  # *async
    errno: int = 0  # negative errno of the last GUP, 0 if none
    faults: int = 0  # handle_mm_fault calls that ended without RETRY and error
    attempts: int = 0  # handle_mm_fault calls
    major: bool = False  # one of them was VM_FAULT_MAJOR
    writable: bool = False  # the SPTE may be writable
    own_read: bool = False  # the read in flight was submitted by this walk
    huge: bool = False  # 2 MiB SPTE
    invalidated: bool = False  # GUP replaced a present PTE: mmu_notifier_invalidate_range has zapped the SPTE
    end: End | None = None

    def step(self, tested: str, result: str, why: str, mark: Mark = Mark.NONE, *, holds: bool | None = None) -> None:
        """Record one step of the kernel function that is running.

        :param holds: where ``tested`` is a condition and ``result`` what comes of it: its truth value.
        :raise ModelError: the model of this kernel does not come to an end here.
        """
        call = self.stack[-1]
        while not call.running.gi_running:  # it has returned
            self.stack.pop()
            call = self.stack[-1]
        if holds is not None:
            result = f"{'yes' if holds else 'no'}: {result}"
        if len(self.steps) >= MAX_STEPS:
            raise ModelError(f"the walk goes round in a circle in {call.place[2]}", hint=f"last: {tested}: {result}")
        (_, name, citation), _, calls = call
        self.steps.append(WalkStep(name, tested, result, why, citation, self.thread, mark, calls))

    def enter(self, place: Place, running: GeneratorType[WalkWait, None, object]) -> None:
        """A kernel function is called; nothing, where in this release its code stands in the caller."""
        stack = self.stack
        while stack and not stack[-1].running.gi_running:
            stack.pop()
        if not stack:
            outer: tuple[tuple[int, str], ...] = ()
        elif stack[-1].place == place:
            return
        else:
            outer = stack[-1].calls
        self.serial += 1
        stack.append(OpenCall(place, running, (*outer, (self.serial, place[1]))))

    @property
    def function(self) -> str:
        """The kernel function that is running."""
        while not self.stack[-1].running.gi_running:
            self.stack.pop()
        return self.stack[-1].place.name

    def sleep(self, kind: WaitKind, *, mmap_lock_held: bool, state: str = "D") -> WalkWait:
        """The WalkWait to yield; recorded."""
        wait = WalkWait(kind, self.function, mmap_lock_held, state)
        self.waits.append(wait)
        return wait

    def read(self, read: Read) -> None:
        self.reads.append(read)

    def fill(self, unit: str, window: Window, pages: tuple[int, ...]) -> None:
        """These pages of the window need no I/O."""
        others = tuple(p for p in pages if p != window.target)
        if others:
            self.fills.append(Fill(unit, others, tuple(p for p in window.flagged if p in others)))

    def folios_of(self, window: Window) -> FileFolios:
        """Those that read_file brings; the page of this walk knows itself whether it has blocks."""
        around, own = self.env.neighbours, self.page

        def place(index: int) -> int | None:
            found = around.file_place(index)
            if index != own.index:
                return found
            return None if own.hole else index if found is None else found

        return bring(window, place)

    def read_file(self, window: Window, folios: FileFolios | None = None) -> None:
        """Submit the window.  Folios without blocks are zero-filled and unlocked at once."""
        folios = folios or self.folios_of(window)
        others = tuple(p for p in folios.zeroed if p != window.target)
        if others:
            self.fills.append(Fill("index", others, tuple(p for p in folios.flagged if p in others), folios))
        if folios.bios:
            self.read(Read(self.thread, "index", window.target, folios.read, folios.flagged, folios=folios))

    def count(self, **moved: int) -> None:
        self.counters = self.counters + Counters(**moved)

    def charge(self, pages: int = 1) -> bool:
        """mem_cgroup_charge (5.10, 6.1, 6.12) of so many pages; False: -ENOMEM."""
        if self.page.charge_fails:
            return False
        if self.env.memcg_full:
            self.count(reclaims=pages)
            self.step("memory.max is reached", "try_to_free_mem_cgroup_pages", "reclaim, in the thread that charges")
        return True

    def map_neighbour(self, page: HostPage) -> None:
        """Another page of the VMA, mapped or changed by this walk."""
        self.around.append(page)

    def neighbour(self, vpn: int) -> HostPage | None:
        """The page of the VMA at this page number as this walk has left it; None: nothing of it is in memory."""
        changed = (page for page in reversed(self.around) if page.vpn == vpn)
        return self.page if vpn == self.page.vpn else next(changed, None) or self.env.neighbours.mapped_by(vpn)

    def held_up(self, unit: str = "", window: tuple[int, ...] = ()) -> bool:
        """Whether time passes between this thread's miss in the cache and its own read, so that others may come.

        ``window``: what it is about to read, where it has chosen that already.
        """
        return self.env.held_up is not None and self.env.held_up(self.page, unit, window)

    def choose_late(self) -> Generator[WalkWait, None, None]:
        """Time may pass before this thread looks at what read-ahead remembers."""
        if self.env.chooses_late is not None and self.env.chooses_late(self.page):
            yield WalkWait(WaitKind.HELD_UP, "swapin_readahead", mmap_lock_held=True, state="R")

    def ask_late(self) -> Generator[WalkWait, None, None]:
        """Time may pass in the file system's page_mkwrite before it locks the page."""
        if self.env.asks_late is not None and self.env.asks_late(self.page):
            yield WalkWait(WaitKind.HELD_UP, "do_page_mkwrite", mmap_lock_held=True, state="R")

    def lock_late(self, *, mmap_lock_held: bool) -> Generator[WalkWait, None, None]:
        """Time may pass between this thread's look into the cache, which has found the page, and folio_trylock."""
        if self.env.maps_late is not None and self.env.maps_late(self.page, True):
            yield WalkWait(WaitKind.HELD_UP, self.function, mmap_lock_held, state="R")

    def meet_holder(self) -> None:
        """Before folio_trylock: another thread may have the lock while it handles its own fault on the page."""
        folio = self.page.folio
        unlocked = folio is not None and folio.lock is Lock.NO
        if folio is not None and unlocked and self.env.contended is not None and self.env.contended(self.page):
            self.page = replace(self.page, folio=replace(folio, lock=Lock.OTHER))

    def passes_by(self, page: HostPage) -> bool:
        """Another thread has the lock of a neighbour while it handles its own fault there: it is not mapped around."""
        return self.env.passed_by is not None and self.env.passed_by(page)

    def still_missing(self, unit: str, window: Window) -> Window:
        """The window without what others have brought, or bring, since it was chosen."""
        around = self.env.neighbours
        missing = {"vpn": around.swap_entry_uncached, "slot": around.slot_used_uncached, "index": around.file_uncached}
        pages = tuple(
            p
            for p in window.pages
            if (self.page.folio is None if p == window.target else missing[unit](p))
            and not (p != window.target and self.env.taken is not None and self.env.taken(unit, p))
        )
        return replace(window, pages=pages, flagged=tuple(p for p in window.flagged if p in pages))

    def told(self) -> bool:
        """signal_pending: the VMM wants this thread back, to stop it for one."""
        return self.env.told is not None and self.env.told()

    def pace(self, kind: WaitKind) -> Generator[WalkWait, None, None]:
        """A call of handle_mm_fault begins or has ended, which is at a time of its own in a run that was recorded."""
        if self.env.paced:
            yield WalkWait(kind, self.function, mmap_lock_held=True, state="R")

    def finished(self) -> bool:
        """Whether the device was faster than this thread's look at the page whose read it has just submitted."""
        return self.env.finished is not None and self.env.finished(self.page)

    def refused(self) -> bool:
        """Whether the device has not taken the read-ahead that this thread has just submitted, and ended it at once."""
        return self.env.refused is not None and self.env.refused(self.page)

    def change(self, **fields_: object) -> None:
        """The page changes."""
        self.page = replace(self.page, **fields_)  # type: ignore[arg-type]


Steps = Generator[WalkWait, None, T]
"""A step function: yields where it sleeps, returns what the kernel function returns."""

STEP_FUNCTIONS: dict[tuple[str, str], set[str]] = {}
"""(file, kernel function) of every step function, what a walk can visit, and the modules that have it."""


def _place(kernel: KernelModel, file: str, name: str) -> Place:
    there, called = name_in(kernel, file, name)
    return Place(there, called, f"{there}:{called} ({kernel.version})")


def kernel_function(file: str, name: str = "") -> Callable[[Callable[P, Steps[T]]], Callable[P, Steps[T]]]:
    """Decorate a step function (first argument: the Context): names it in the steps it records.  Who calls it goes
    through it at once (``yield from``).

    :param file: file, with ``name`` (Python's, if not given) the function; ``function_names`` has the other names that
        it bears in some releases.
    """

    def decorate(function: Callable[P, Steps[T]]) -> Callable[P, Steps[T]]:
        here = (file, name or function.__name__)
        STEP_FUNCTIONS.setdefault(here, set()).add(function.__module__)
        places: dict[str, Place] = {}  # by version

        # No generator around the generator: each sleep would go through twice as many.
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> Steps[T]:
            ctx = args[0]
            assert isinstance(ctx, Context)
            version = ctx.kernel.version
            place = places.get(version)
            if place is None:
                place = places[version] = _place(ctx.kernel, *here)
            steps = function(*args, **kwargs)
            assert isinstance(steps, GeneratorType)
            ctx.enter(place, steps)
            return steps

        return run

    return decorate


@dataclass(frozen=True, slots=True)
class Leg:
    """A walk from its start or wake-up to its next sleep or its end.

    ``wait``: why it sleeps, None if it ended.  ``end``, ``outcome``, ``errno``, ``is_async``, ``writable`` count only
    when it ended.  ``reads``, ``counters``, ``steps`` are those of this leg alone.  ``invalidated``: the walk has up to
    here replaced a present PTE, so that KVM refuses the mapping as stale.  ``around``: neighbours that fault-around has
    mapped, as they are now.
    """

    page: HostPage
    readahead: ReadaheadState
    steps: tuple[WalkStep, ...]
    reads: tuple[Read, ...]
    counters: Counters
    wait: WalkWait | None = None
    end: End | None = None
    outcome: Outcome | None = None
    errno: int = 0
    is_async: bool = False
    writable: bool = False
    huge: bool = False
    major: bool = False
    invalidated: bool = False
    around: tuple[HostPage, ...] = ()
    fills: tuple[Fill, ...] = ()
