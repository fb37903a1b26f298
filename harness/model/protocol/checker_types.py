# SPDX-License-Identifier: GPL-2.0-or-later
"""What the protocol checker is told besides the trace, and what it says: plain data.

A trace alone does not tell the CPL of a fault or the counters of the guest.  Each field of ``Context`` that stays None
makes the rules that need it "not checked" (listed by ``Checker.unchecked``), never silently passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.model.events import Event
from harness.model.outcomes import Count
from harness.model.protocol.rules import RULES

Interval = tuple[int, int]
"""[start, end] in nanoseconds of the trace clock."""


@dataclass(frozen=True, slots=True)
class FaultState:
    """The state of a vCPU when it touches a page (behaviour.md B.5)."""

    cpl: int = 3
    interrupts: bool = True  # RFLAGS.IF
    shadow: bool = False  # in the shadow of STI or MOV SS, or during event delivery
    paging: bool = True  # CR0.PG


@dataclass(frozen=True, slots=True)
class PageAfter:
    """A page that the guest only read, after the run.  ``writable``: dirty in the host, swap slot freed."""

    writable: bool


@dataclass(frozen=True, slots=True)
class InitialVcpu:
    """A vCPU at the first event of the trace.

    :param en: MSR_KVM_ASYNC_PF_EN; None: unknown, rules about it wait for the first write.
    :param int_vec: MSR_KVM_ASYNC_PF_INT; None: unknown, the first interrupt of a RDY tells it.
    :param last_id: id of the last token given out (0: none yet, the next is 1); None: unknown.
    :param live: (token, gpa) of the works queued; None: unknown, RDYs of older tokens are let pass.
    :param wakeup: whether a wake-all is queued; None: unknown.
    """

    en: int | None = 0
    int_vec: int | None = None
    last_id: int | None = None
    live: tuple[tuple[int, int], ...] | None = ()
    wakeup: bool | None = False


@dataclass(frozen=True, slots=True)
class Context:
    """What the trace does not say; None: not known.  Mappings without a noted key have the vCPU index as key."""

    # --- known before the run is judged
    faults: Mapping[tuple[int, int], tuple[FaultState, ...]] | None = None
    """By (vCPU, gfn): all states in which that vCPU touches the page."""
    kernel_rip: int | None = None
    """A fault whose rip (Event.data of PF, 0 where it is not printed) is at or above this comes from CPL0."""
    lapic_in_kernel: bool | None = None
    hlt_exits: bool | None = None
    """False with ``-overcommit cpu-pm=on``."""
    nested: bool = False
    """The guest runs guests: tokens may leave as nested exits, so D13 is not checked."""
    allocation_may_fail: bool = False
    """The host is so short of memory that GFP_NOWAIT allocations fail: D01 accepts any FAIL."""
    stopped: tuple[Interval, ...] | None = None
    """From the QMP answer to stop until cont was sent."""
    lapic_off: Mapping[int, tuple[Interval, ...]] | None = None
    shared_unreadable: Mapping[int, tuple[Interval, ...]] | None = None
    memory: str | None = None
    """What guest RAM is: ``anon``, ``shmem`` or ``file``."""
    userfaultfd: bool | None = None
    single_toucher: bool | None = None
    """Each page is touched by one vCPU only, and nothing else touches, reclaims or migrates pages meanwhile."""
    page_cluster: int | None = None
    swap_synchronous: bool | None = None
    """The swap device is SWP_SYNCHRONOUS_IO (zram, brd, pmem)."""
    read_devices: frozenset[int] | None = None
    """Device numbers (as in Event.dev) from which a missing page is read."""
    slots: Mapping[int, int] | None = None
    """gfn to the first 512-byte sector of the page on its device."""
    loops: frozenset[int] = frozenset()
    """gfns that are meant to be unresolvable."""

    # --- observed in the run
    guest_tokens: Mapping[int, tuple[tuple[int, int], ...]] | None = None
    """(token, flags word) in the order in which the guest's #PF handler saw them."""
    guest_readies: Mapping[int, tuple[int, ...]] | None = None
    """Token words in the order in which the guest's interrupt handler saw them, wake-alls included."""
    shared_tail_zero: Mapping[int, bool] | None = None
    """Whether bytes 8..63 of the shared area were still zero at the end."""
    hyp: Mapping[int, int] | None = None
    """Growth of the guest's count of hypervisor callback interrupts."""
    pf_guest: int | None = None
    """Growth of the VM's pf_guest statistic."""
    kvm_stats: Mapping[str, int] | None = None
    """Growth of the VM's statistics, by debugfs file name."""
    retries: int | None = None
    """Faults that ended in RET_PF_RETRY for another reason than APF (stale memslot or invalidation)."""
    guest_hlts: int | None = None
    """HLT instructions that the guest executed."""
    major_faults: Mapping[int, int] | None = None
    """Growth of maj_flt of the vCPU threads."""
    sync_majors: Mapping[int, Count] | None = None
    """What the model predicts for it: the majors of faults that did not become NP."""
    private_file: frozenset[int] | None = None
    """gfns in a private file mapping."""
    rss_anon_pages: int | None = None
    """Growth of QEMU's RssAnon, in pages."""
    pages_after: Mapping[int, PageAfter] | None = None
    """By gfn."""
    guest_log: tuple[str, ...] | None = None
    host_log: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule was broken.  ``event`` is the first event that shows it; None for counters at the end."""

    rule: str
    event: Event | None
    message: str
    related: tuple[Event, ...] = ()
    vcpu: int = -1

    @property
    def strict(self) -> bool:
        """False: a hint, no proof."""
        return RULES[self.rule].strict


@dataclass(frozen=True, slots=True)
class Obligation:
    """Something that still had to happen when the trace ended: NP without RDY, INJ without ENTRY, DONE missing.

    ``suspended``: the rules allow it to stay open (the shared area is unreadable, D44).
    """

    rule: str
    event: Event | None
    message: str
    vcpu: int = -1
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class Unchecked:
    """A rule that was not, or only in part, checked, and why."""

    rule: str
    reason: str
    partly: bool = False


@dataclass(slots=True)
class Counts:
    """How often each thing happened on one vCPU (or in the VM: ``Counts.sum``).  DONE is known for the VM only."""

    pf: int = 0
    try_: int = 0
    np: int = 0
    npt: int = 0  # NP that ended in token injection
    nph: int = 0  # NP that ended in artificial halt
    rep: int = 0
    fail: int = 0  # TRY with neither NP nor REP
    done: int = 0
    rdy: int = 0  # wake-alls not included
    rdy_wake_all: int = 0
    inj: int = 0  # #PF with code 0, not reinjected
    inj_reinjected: int = 0
    acc: int = 0  # the current int_vec accepted by the vCPU's own thread
    ack: int = 0  # ACK writes with bit 0

    def add(self, other: Counts) -> None:
        """Add another's counts to these."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
