# SPDX-License-Identifier: GPL-2.0-or-later
"""What a rule may need to know besides the trace: RuleContext, and what it consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.model.outcomes import Count
from harness.model.pv_features import PvFeatures

Interval = tuple[int, int]
"""[start, end] in nanoseconds of the trace clock."""


@dataclass(frozen=True, slots=True)
class FaultState:
    """The state of a vCPU when it touches a page (behaviour.md B.5)."""

    cpl: int = 3
    interrupts: bool = True  # RFLAGS.IF
    shadow: bool = False  # in the shadow of STI or MOV SS, or during event delivery
    paging: bool = True  # CR0.PG
    guest_mode: bool = False  # an L2 of the vCPU touches it: cpl is L2's, interrupts whether KVM could give it one


@dataclass(frozen=True, slots=True)
class PageAfter:
    """A page that the guest only read, after the run.  ``writable``: dirty in the host."""

    writable: bool


@dataclass(frozen=True, slots=True)
class LoggedStart:
    """A start of a vCPU in the guest's log: how many records of its #PF handler (``guest_tokens``), and of its
    interrupt handler (``guest_readies``), are before it."""

    tokens: int = 0
    readies: int = 0


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
class RuleContext:
    """What the trace does not say, such as the CPL of a fault or the counters of the guest.

    None: not known; the rules that need it are then "not checked" (``Checker.unchecked``), never silently passed.
    Mappings without a noted key have the vCPU index as key.
    """

    # --- known before the run is judged
    faults: Mapping[tuple[int, int], tuple[FaultState, ...]] | None = None
    """By (vCPU, gfn): all states in which that vCPU touches the page."""
    kernel_rip: int | None = None
    """A fault whose rip (Event.data of PF, 0 where it is not printed) is at or above this comes from CPL0."""
    features: PvFeatures = field(default_factory=PvFeatures)
    """Which of async page faults' features the guest is offered, and whether KVM insists."""
    lapic_in_kernel: bool | None = None
    hlt_exits: bool | None = None
    """False with ``-overcommit cpu-pm=on``."""
    l2_always_exits: bool = False
    """L1 exits on every interrupt that comes while its L2 runs, and masks none: D48."""
    rewrites: bool = False
    """The VMM reads and writes the state of vCPUs while they run (KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS)."""
    paging_flips: bool = False
    """The guest changes CR0.PG, on which some kernels clear the queue; no event shows it."""
    stopped: tuple[Interval, ...] | None = None
    """From the QMP answer to stop until cont was sent."""
    ticks: bool | None = None
    """The LAPIC timer of a vCPU may expire, which wakes it in the middle of whatever thread that CPU runs."""
    nmis: tuple[Interval, ...] = ()
    """From when to when the VMM gave each vCPU an NMI, for which its thread left KVM_RUN."""
    lapic_stays: bool | None = None
    """Each vCPU's LAPIC is on for the whole run.  None: it may be turned off, which writes of SPIV and the APIC base
    show."""
    area_stays: bool | None = None
    """Each vCPU's shared area can be read and written for the whole run.  None: it may be moved to where it cannot."""
    slots_change_ns: int | None = None
    """From when on (trace clock) the memory slots have changed, as a snapshot is written: the area of before a refused
    EN is looked up again (__kvm_gfn_to_hva_cache_init).  None: they never do."""
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
    unfinished: int = 0
    """NPs whose page was still being read when the recording ended; the counters are read a moment later."""

    enabled_before: bool = False
    """APF was enabled on all vCPUs when the trace began, is never disabled, and its areas can always be written."""

    # --- observed in the run
    guest_tokens: Mapping[int, tuple[tuple[int, int], ...]] | None = None
    """(token, flags word) in the order in which the guest's #PF handler saw them."""
    guest_readies: Mapping[int, tuple[int, ...]] | None = None
    """Token words in the order in which the guest's interrupt handler saw them, wake-alls included."""
    guest_boots: Mapping[int, tuple[LoggedStart, ...]] | None = None
    """Each start of the vCPU in the guest's log, the first of all included."""
    slot_taken: frozenset[int] = frozenset()
    """vCPUs whose guest still holds the slot of the last ready event: KVM can present no other (D05)."""
    slot_freed: Mapping[int, float] = field(default_factory=dict)
    """By when (in ns, on the trace's clock) the guest of a vCPU had cleared a token word that held something, if
    nothing has asked KVM to look at it since: what waited then waits to the end (D05, D20)."""
    shared_tail_zero: Mapping[int, bool] | None = None
    """Whether bytes 8..63 of the shared area were still zero at the end."""
    shared_flags: Mapping[int, int] | None = None
    """The flags word at the end of a guest that clears it in the handler of each token, and has come to its end."""
    guest_flags: Mapping[int, tuple[str, ...]] | None = None
    """In words: where the guest found a flags word that is not 0, though no token was being handled: at an exit of its
    L2 that is no #PF, at a #PF of its own."""
    other_areas: Mapping[int, tuple[int, bool]] | None = None
    """The same two of the areas to which a guest moved its own, by guest physical address: (flags word, tail zero)."""
    area_of_data: int | None = None
    """Of these the one that lies in a page of the plan: before its first token its flags word is what the page held."""
    guest_ended: bool = False
    """The guest was at its end, and never reset: all that was injected is in its lists."""
    log_ends_first: bool = True  # false: the guest ran on between the end of the trace and the reading of its log
    hyp: Mapping[int, int] | None = None
    """Growth of the guest's count of hypervisor callback interrupts."""
    pf_guest: int | None = None  # growth of the VM's statistic
    kvm_stats: Mapping[str, int] | None = None
    """Growth of the VM's statistics, by debugfs file name."""
    all_recorded: bool = False
    """All page faults between the two readings of the statistics are recorded: a Linux guest makes some before."""
    guest_hlts: int | None = None
    """HLT instructions that the guest executed, as long as the trace goes."""
    halts: int | None = None
    """Calls of kvm_vcpu_halt, as long as the trace goes, each of which polls once at most (virt/kvm/kvm_main.c).  They
    may be more than the HLTs: a vCPU that cannot be given what woke it halts again."""
    hlts_end: bool = True  # none came between the trace's end and the reading of the counters
    major_faults: Mapping[int, int] | None = None
    """Growth of maj_flt of the vCPU threads."""
    sync_majors: Mapping[int, Count] | None = None
    """What the model predicts for it: the majors of faults that did not become NP."""
    private_file: frozenset[int] | None = None
    """gfns in a private file mapping."""
    rss_anon_pages: int | None = None
    """How many anonymous pages QEMU has more in guest RAM (in captures of before 2026-11-28: in all)."""
    pages_after: Mapping[int, PageAfter] | None = None
    """By gfn."""
    early_retries: tuple[str, ...] | None = None
    """Faults that were to be repeated before the read of their page had ended, in words."""
    forbidden_retries: tuple[str, ...] | None = None
    """Faults that were to be repeated although their flags do not allow it, in words."""
    userfault_waits: tuple[str, ...] | None = None
    """Calls for pages of a userfaultfd that sleep otherwise than they ask to, or find something else, in words."""
    asked_again: tuple[str, ...] | None = None
    """Looks that were made once more although they were refused, and faults that were repeated twice, in words."""
    kept_lock: tuple[str, ...] | None = None
    """That mmap_lock of the VMM was not to be had while reads were held, in words."""
    uncounted_faults: tuple[str, ...] | None = None
    """Calls of handle_mm_fault that the VMM's cgroup has not counted, in words; None: nobody can tell (D73)."""
    uncounted_pages: tuple[str, ...] | None = None
    """Pages that the host has and does not count, in words; None: nobody can tell (D75)."""
    stray_wakes: tuple[str, ...] | None = None
    """Threads that a worker woke although they sleep for the page of a fault, in words."""
    deaf_vcpus: tuple[str, ...] | None = None
    """vCPUs that go to sleep in KVM_RUN with a signal pending, in words."""
    swap_slots: tuple[str, ...] | None = None
    """Pages that are in the swap cache, or are not, against what the fault did that mapped them, in words."""
    clean_pages: tuple[int, ...] | None = None
    """gfns of pages that have come from swap, have no slot any more, and are not dirty."""
    unlisted_pages: tuple[int, ...] | None = None
    """gfns of pages that are mapped, and on no list from which reclaim takes pages."""
    lost_refaults: tuple[str, ...] | None = None
    """Reads from swap that are no refault, in words."""
    pages_of_others: tuple[int, ...] | None = None
    """gfns of pages that are mapped, and not charged to the VMM's cgroup."""
    misflagged_pages: tuple[str, ...] | None = None
    """Pages that are mapped and not up to date, or not of the kind that they are, in words."""
    lost_words: tuple[str, ...] | None = None
    """Pages in which something else is when reclaim has taken them and they were read again, in words."""
    fixable: int | None = None
    """How many entries of KVM's page tables faults can have fixed, at most; None: nobody can tell."""
    fixed_for_ready: int | None = None
    """How many of these were fixed for ready events, at most; None: as many as there were."""
    unfixed: int | None = None
    """How many faults can have ended with no entry, at most; None: nobody can tell."""
    events_left: tuple[str, ...] | None = None
    """Exits of an L2 behind which its L1 finds an event that L2 was given, in words."""
    memory_left: int | None = None
    """Pages that are still charged to the VMM when it is gone."""
    ram_file_open: bool = False
    """Its RAM file is open then: a reference of a fault was not given back."""
    ram_file_locked: bool = False
    """Somebody holds a lock of its RAM file then: a fault has not let it go."""
    slots_left: int | None = None
    """Slots of the swap device that are taken then: a page that has left the swap cache has not freed its own."""
    works_left: int | None = None
    """Works of asynchronous page faults that were not freed then."""
    contexts_left: int | None = None
    """Contexts of userfaultfds that nobody has open, and that were not freed then."""
    guest_panics: bool = False
    """The guest must panic, because of a finding: then its log has to say so (D28)."""
    host_warns: tuple[str, ...] = ()
    """Parts of lines that the host's log must have, because of findings (D28)."""
    overwritten_tokens: tuple[str, ...] | None = None
    """Tokens that the guest had found, not zeroed, and not found again; None: its log would not tell (D70)."""
    warn_once_cleared: bool = True
    """The host told anew of each WARN_ON_ONCE that an earlier run of its boot had reached (clear_warn_once of debugfs);
    else it need not warn again."""
    guest_trouble: tuple[str, ...] | None = None
    host_trouble: tuple[str, ...] | None = None
    """What the log of a Linux guest and the host's say against the kernel."""
