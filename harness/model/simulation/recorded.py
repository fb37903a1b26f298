# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run's evidence says of the choices that its kernel was free to make: when, and which of two first.

Only times and orders, never what came of them: that follows from the model.  Times are nanoseconds since the guest was
let go, as in the simulation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from harness.model.events import Kind
from harness.model.simulation.thread_spans import ThreadSpans


@dataclass(frozen=True, slots=True)
class FaultCall:
    """A thread was in handle_mm_fault from ``start_ns`` to ``end_ns``: somewhere between it tried the page's lock.

    ``retried``: it came back with VM_FAULT_RETRY; ``failed``: with an error; ``refused``: with all of VM_FAULT_ERROR,
    as one of our own port does that would have to wait; ``major``: with VM_FAULT_MAJOR; ``slept``: it slept meanwhile;
    ``woke_ns``: when it ran again after the last sleep, -1: not known.  These are outcomes and decide nothing: they say
    only which of the orders that are possible is tried first.  ``writes``: it asked for a page to write to.
    """

    start_ns: int
    end_ns: int
    thread: int = 0
    retried: bool = False
    slept: bool = False
    woke_ns: int = -1
    major: bool = False
    writes: bool = False
    failed: bool = False
    refused: bool = False

    @property
    def missed(self) -> bool:
        """It did not find the page, or found it locked.  Other errors are of one whose read has failed."""
        return self.retried or self.refused

    @property
    def asked(self) -> bool:
        """Of a page of a userfaultfd, which nobody reads: it was not there (handle_userfault: VM_FAULT_SIGBUS without
        FAULT_FLAG_ALLOW_RETRY)."""
        return self.retried or self.failed


@dataclass(frozen=True, slots=True)
class Stay:
    """A vCPU thread was in KVM's MMU to map the page ``gfn``."""

    start_ns: int
    end_ns: int
    gfn: int


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event of a vCPU thread that the simulation has too.  ``key``: gfn (PF, REP), token (NP, RDY), vector or MSR.

    ``start_ns``: the earliest moment at which its effect can have come (an MSR write: its exit; a ready event: the
    look at the page before it); ``end_ns``: its line.  ``since_ns``: the event of the thread before ``start_ns``;
    ``until_ns``: what follows it (a page fault's TRY or ENTRY).  ``optional``: may be passed over.
    ``guest_mode``: an L2 ran (RDY).  ``rewritten``: the VMM had the thread before its next entry, to read and write its
    state; ``told``: L1 or L2 was given the #PF before it (NP of an L2); ``entered``: no reset came before it (NP), or
    it came to the program behind it (CLEAR);
    ``injected``: one did, behind the injection of the token; ``slept``: ... when the thread had slept in a halt.
    ``write``: of which access a page fault is; None: of a walk of the guest's tables, or unknown.
    ``cut``: the recording ends while the thread, which does not sleep, is still in this page fault.
    """

    kind: Kind
    key: int
    start_ns: int
    end_ns: int
    line: int = 0
    since_ns: int = 0
    until_ns: int = 0
    windows: tuple[FaultCall, ...] = ()
    optional: bool = False
    guest_mode: bool = False
    rewritten: bool = False
    told: bool = False
    entered: bool = True
    injected: bool = False
    slept: bool = False
    write: bool | None = None
    cut: bool = False

    def fits(self, kind: Kind, key: int, *, write: bool | None = None) -> bool:
        """It is that event; ``write``: of which access, None: of either."""
        return self.kind is kind and self.key == key and (write is None or self.write in (None, write))


@dataclass(frozen=True, slots=True)
class WorkRun:
    """async_pf_execute of one work, for the page ``gfn``.  ``completed_ns``: of its entry in the done list, or -1."""

    start_ns: int
    windows: tuple[FaultCall, ...] = ()
    completed_ns: int = -1
    thread: int = 0
    gfn: int = -1


@dataclass(frozen=True, slots=True)
class PageChange:
    """Another moment at which a page may have changed: its read ended, or a thread came back from handling it."""

    t_ns: int
    thread: int  # 0: the device


@dataclass(frozen=True, slots=True)
class RecordedAction:
    """A host action, from the agent's own record."""

    do: str
    arg: int
    start_ns: int
    end_ns: int
    host: int = -1  # which of the plan's host_actions it belongs to; -1: none, or the capture does not say
    timed: int = -1  # ... or of its timed entries
    done: bool = True  # False: the recording ends before it did


@dataclass(frozen=True, slots=True)
class Recorded:
    """The recording of a run.  Tuples are indexed by vCPU.

    ``works``: by (vCPU, token); ``read_ends``: by gfn, the ends of reads that held its page; ``changes``: by gfn;
    ``busy``: when each vCPU thread was in KVM's MMU; ``unmaps``: when a notifier ran (in a call of
    handle_mm_fault: until that was over, at the latest); ``invalidations``: ... that had certainly ended by then, of
    memory that has a memslot; ``ticks``: when the LAPIC timer's
    interrupt was accepted; ``log``: what the guest wrote down, (word, number); ``end_ns``: the recording was stopped;
    ``reads``: by gfn, who submitted its page to be read, from the begin of that call to the submission; ``calls``: by
    gfn, all of handle_mm_fault; ``over``: by (gfn, end of a read), when the CPU that traced the end did something else;
    ``before``: ... the gfn in front of it on the device that the same event ended, -1: none;
    ``asleep``: every vCPU thread slept as in a halt when the recording was stopped, or its guest idled, and no page was
    on its way to one of them by a thread that had yet to get a processor; ``exits``: when
    each vCPU thread left KVM_RUN for the VMM, or its LAPIC accepted an INIT; ``entered``: of each of these, when the
    thread had last entered the guest before, -1: it had not; ``refused``: of ``read_ends``, by (gfn, end), those of
    read-ahead that the device did not take; ``irets``: when each vCPU left the guest as its NMI handler was over, where
    the processor tells that.

    Looked up from these: ``brought``: by (thread, submission), the gfns of ``reads``; ``in_fault``: of ``calls``.
    """

    marks: tuple[tuple[RecordedEvent, ...], ...]
    threads: tuple[int, ...]
    works: Mapping[tuple[int, int], WorkRun]
    read_ends: Mapping[int, tuple[int, ...]]
    changes: Mapping[int, tuple[PageChange, ...]]
    busy: tuple[tuple[Stay, ...], ...]
    unmaps: tuple[FaultCall, ...]
    ticks: tuple[tuple[int, ...], ...]
    host: tuple[RecordedAction, ...]
    log: tuple[tuple[tuple[str, int], ...], ...]
    end_ns: int
    reads: Mapping[int, tuple[FaultCall, ...]] = field(default_factory=dict)
    calls: Mapping[int, tuple[FaultCall, ...]] = field(default_factory=dict)
    invalidations: tuple[FaultCall, ...] = ()
    unmaps_known: bool = True  # else nothing tells of notifiers
    unmapped: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  # gfn: when notifiers ran, no thread of KVM's
    ends_known: bool = True  # else ``read_ends`` is no more than a guess
    over: Mapping[tuple[int, int], int] = field(default_factory=dict)
    before: Mapping[tuple[int, int], int] = field(default_factory=dict)
    asleep: bool = True
    exits: tuple[tuple[int, ...], ...] = ()
    entered: tuple[tuple[int, ...], ...] = ()
    irets: tuple[tuple[int, ...], ...] = ()
    last: tuple[int, ...] = ()  # of each vCPU's thread: its last event, but for those of being preempted
    refused: Set[tuple[int, int]] = frozenset()
    ended_ns: int = 0  # when the program had come to its end; 0: it had not
    # vCPUs that ran an L2, accepted an INIT, and never began anew: L1 has GIF = 0 around each run of its L2, where an
    # INIT waits and the SIPI behind it is dropped (arch/x86/kvm/lapic.c:kvm_apic_accept_events).
    unstarted: Set[int] = frozenset()
    failed_ns: int = -1  # when KVM_RUN of a vCPU failed, for which the VMM stops all; -1: it did not
    brought: Mapping[tuple[int, int], Set[int]] = field(init=False, repr=False, compare=False)
    in_fault: ThreadSpans = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        brought: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
        for gfn, reads in self.reads.items():
            for read in reads:
                brought[read.thread, read.end_ns].add(gfn)
        calls = (call for of_page in self.calls.values() for call in of_page)
        object.__setattr__(self, "brought", dict(brought))
        object.__setattr__(self, "in_fault", ThreadSpans.of((c.thread, c.start_ns, c.end_ns) for c in calls))

    @property
    def length(self) -> int:
        """How many events of vCPU threads it has."""
        return sum(map(len, self.marks))
