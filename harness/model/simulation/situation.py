# SPDX-License-Identifier: GPL-2.0-or-later
"""What the simulation starts from and what it ends in: plain values, no behaviour.

A Situation is a plan in the model's own words: host pages as harness.model.pages knows them, one swap device, the probe
guest's vCPUs with their steps, a kernel.  A Prediction says what must be seen, item by item and in total.
Times are nanoseconds from the moment the guest is let go; addresses are guest physical, in bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from enum import StrEnum
from operator import itemgetter

from harness.contract.gate import Rule
from harness.contract.words import HostWord, Op, Release
from harness.errors import ModelError
from harness.model.delivery import L2Controls
from harness.model.events import Event
from harness.model.kernels import KernelModel
from harness.model.outcomes import Count, Outcome
from harness.model.pages import HostPage, Vma
from harness.model.pv_features import PvFeatures
from harness.model.readahead import ReadaheadState

_ZERO = Count(0, 0)


class ModelStep(StrEnum):
    """Steps of a guest's program that only the model knows, besides those of a plan (contract/words.py:Op)."""

    OFFLINE = "offline"  # CPU hotplug: EN=0, then what was put aside goes on on vCPU `value`


class ModelWord(StrEnum):
    """What happens on a host besides what the agent does in a plan; ``arg`` of HostDo as said."""

    RESOLVE_USERFAULT = "resolve-userfault"  # gpa
    END_MIGRATION = "end-migration"  # gpa
    TRUNCATE = "truncate"  # gpa
    READ = "read"  # gpa, by a thread of the VMM
    WRITE = "write"
    KVM_READ = "kvm-read"  # gpa, by KVM in a vCPU's thread
    KVM_WRITE = "kvm-write"
    FREEZE_VMM = "freeze-vmm"  # the cgroup freezer
    THAW_VMM = "thaw-vmm"
    AREA_SLOT = "area-slot"  # 0: the memslot of the shared areas is gone, 1: it is back
    DELETE_SLOT = "delete-slot"  # gpa
    MUNMAP = "munmap"  # gpa
    SWAPOFF = "swapoff"
    UNPLUG = "unplug"  # vCPU
    REPLUG = "replug"  # vCPU
    MIGRATE = "migrate"
    SIGKILL = "sigkill"


@dataclass(frozen=True, slots=True)
class HostDo:
    """Something done on the host: by the agent, or what only the model knows.  ``arg``: see the word."""

    do: HostWord | ModelWord
    arg: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One program item of one vCPU.  ``wait``: no later item of the vCPU starts before this one has ended."""

    index: int
    kind: Op | ModelStep
    vcpu: int = 0
    gpa: int = 0
    write: bool = False
    cpl: int = 3
    interrupts: bool = True
    shadow: bool = False
    no_paging: bool = False
    wait: bool = False
    pause_ns: int = 0
    msr: int = 0
    value: int = 0
    area_ok: bool = True  # WRMSR of EN: its address lies in a memslot
    actions: tuple[HostDo, ...] = ()
    page: str = ""
    in_delivery: bool = False  # made by the CPU while it delivers an event (IDT, stack): re-injection is needed
    by_token: bool = False  # ... which is the token of the vCPU's step before, if that gets one
    nested: bool = False  # made by an L2 guest of this vCPU; cpl and interrupts are L2's
    l2: L2Controls = field(default_factory=L2Controls)  # nested: how L1 runs it


@dataclass(frozen=True, slots=True)
class PoolPage:
    """A page of guest memory: where it is, how the host holds it, the 8 bytes a read must return."""

    name: str
    gpa: int
    page: HostPage
    content: int = 0


_first_of = itemgetter(0)


@dataclass(frozen=True, slots=True)
class RamFile:
    """The part of a RAM file [first, end), in page numbers, of which no page is cached that no PoolPage names.

    ``data``: [first, end) ranges with written blocks, in order and apart; the rest is holes and unwritten extents.
    ``holes``: what is not allocated, in order.  All else lies on the device in one piece.
    """

    first: int
    end: int
    data: tuple[tuple[int, int], ...]
    holes: tuple[int, ...] = ()

    def has_blocks(self, index: int) -> bool:
        at = bisect_right(self.data, index, key=_first_of) - 1
        return at >= 0 and index < self.data[at][1]

    def place(self, index: int) -> int:
        """Where an allocated page lies on the device, in pages, from anywhere."""
        return index - bisect_right(self.holes, index)


@dataclass(frozen=True, slots=True)
class Device:
    """The device under the pages.  ``synchronous``: SWP_SYNCHRONOUS_IO (zram): a read ends inside its submission.
    ``rule``: a gated device, whose reads end by it (release "after": by ``delay_ns``, as without)."""

    delay_ns: int = 200_000_000
    synchronous: bool = False
    issues_bios: bool = True  # reads show as block_bio_queue (zram's rw_page on 5.10/6.1 does not)
    page_cluster: int = 3
    vma_readahead: bool = True  # no rotational swap device is active (nr_rotate_swap == 0)
    ra_pages: int = 32  # file: bdi read-ahead, in pages
    swap_pages: int = 0  # of the swap area; 0: so large that it is never half full
    rule: Rule | None = None

    @property
    def gated(self) -> bool:
        """Reads end by what happens, not by the clock."""
        return self.rule is not None and self.rule.word not in (Release.AFTER, Release.OPEN)


@dataclass(frozen=True, slots=True)
class GuestStart:
    """How every vCPU programmed async page faults before its program, and what it runs on."""

    en_flags: int = 0b1001  # 0: EN never written
    vector: int = 0xF3  # 0: INT never written
    area_ok: bool = True
    en_gpa: int = -1  # the address of the shared area; -1: the vCPU's own
    area_gpa: int = 0  # the pool page that holds the shared area; 0: a page that is always resident and mapped
    area_words: tuple[int, int] = (0, 0)  # what flags and token word hold before anybody writes them
    lapic_enabled: bool = True  # False: SPIV bit 8 is still clear when EN is written and when the program starts
    zero_token: bool = True
    ack: bool = True
    ack_first: bool = False
    idle: str = "hlt"  # or "spin"
    timer_never_returns: bool = False  # the timer handler stays in sti;hlt (S77)
    features: PvFeatures = field(default_factory=PvFeatures)
    lapic_in_kernel: bool = True
    x2apic: bool = True  # False: the LAPIC's registers are memory, and no event tells of a write
    hlt_exits: bool = True
    firmware: bool = False  # a PC's, which moves memory slots when it boots: each deletion zaps all SPTEs


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations that the model does not know: small against the device's delay, different on each machine."""

    name: str = "quick"
    exit_ns: int = 20_000  # one exit, its handling and the entry
    worker_ns: int = 5_000  # from schedule_work to the worker's first instruction
    worker_wake_ns: int = 0  # from the end of a worker's sleep for its page to its next instruction
    done_ns: int = 0  # from a worker's last look at its page to its entry in the list of what is done
    device_ns: int = 0  # what a read takes longer than the device's delay
    device_gap_ns: int = 0  # no read ends sooner than this after the one submitted before it
    gate_ns: int = 0  # from what happens to when the server of a gated device looks at it
    neighbour_ns: int = 0  # the other pages of a read-ahead end so much later than the one that was asked for
    vmm_ns: int = 1_000_000  # from a triple fault to when the VMM has stopped all vCPUs
    host_ns: int = 1_000_000  # the agent between two host actions
    reads_first: bool = False  # whoever submits a read finds it over when it tries the page's lock
    rewritten: bool = False  # the VMM reads and writes a vCPU's state between each token of its L2 and the next entry
    ticks_between: bool = False  # a tick of L1's timer is accepted between each token of its L2 and the next entry
    at_once: bool = False  # each vCPU chooses its first window before the others have noted any
    prefetch_lost: bool = False  # the mapping before each ready event loses a race: RET_PF_RETRY
    first: int = -1  # this vCPU begins its program before all others; -1: all begin at once
    wake_ns: int = 0  # from what ends the sleep of a vCPU's thread, in a halt or for a page, to its next instruction
    batched: bool = False  # each page that was read waits in a CPU's batch for its LRU list when it is written


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that the simulation looks at."""

    kernel: KernelModel
    vma: Vma
    pages: tuple[PoolPage, ...]
    steps: tuple[Step, ...]
    vcpus: int = 1
    vcpu_ids: tuple[int, ...] = ()  # KVM's, by vCPU; empty: their numbers
    guest: GuestStart = field(default_factory=GuestStart)
    device: Device = field(default_factory=Device)
    readahead: ReadaheadState = field(default_factory=ReadaheadState)
    timed: tuple[tuple[int, tuple[HostDo, ...]], ...] = ()  # (ns, actions)
    timing: Timing = field(default_factory=Timing)
    deadline_ns: int = 60_000_000_000
    settle_ns: int = 300_000_000
    swap_offsets_known: bool = False
    memcg_full: bool = False  # memory.current is at memory.max: each charge reclaims in the thread that charges
    ram_file: RamFile | None = None
    before_run: bool = False  # nothing was performed yet: what is said is to allow whatever any host may do
    realtime: bool = False  # no worker begins before the vCPU's thread sleeps
    failing_setups: tuple[int, ...] = ()  # TRYs (counted from 0) whose work cannot be allocated (S73)


@dataclass(frozen=True, slots=True)
class ItemPrediction:
    """What becomes of one program item.

    ``outcome``: of its first fault, or of the access when it does not fault; ``also``: other outcomes that are just as
    legal, with the reason in ``why``.  ``later``: of all its faults behind the first; None: under another timing they
    are others, or it is not known how many there are.  ``issuer``: who submits the read of its page: "V", "W", "other"
    or ""; for which of its faults, from 0: ``read_at``.
    """

    index: int
    vcpu: int
    page: str
    outcome: Outcome
    also: tuple[Outcome, ...] = ()
    later: tuple[Outcome, ...] | None = None
    faults: Count = _ZERO
    repeats: Count = _ZERO
    halts: Count = _ZERO
    tokens: tuple[int, ...] = ()
    issuer: str = ""
    read_at: int = 0
    value: int | None = None
    ends: bool = True
    end_known: bool = True  # False: under another timing it is the other way round
    gp: bool = False
    rule: str = ""
    why: str = ""

    def __post_init__(self) -> None:
        if self.later is None:
            return
        exact = (self.faults.low, self.faults.high)
        if exact != (len(self.later) + 1,) * 2 and (self.later or exact != (0, 0)):
            raise ModelError(f"item {self.index}: {self.faults} faults, but later ones {self.later}")


@dataclass(frozen=True, slots=True)
class Prediction:
    """The model's answer.  ``events`` are those of the first timing; counts cover all timings that were run.

    ``tokens_left``: of the first timing, by vCPU, the token word of its shared area when all is over; -1: it hangs by
    works that are still outstanding.
    """

    kernel: str
    items: tuple[ItemPrediction, ...]
    totals: dict[str, Count]
    events: tuple[Event, ...]
    ends: bool = True  # the guest's program comes to its end
    undecided_end: str = ""  # why, when that hangs by timings that the model does not know
    notes: tuple[str, ...] = ()
    known_faults: tuple[str, ...] = ()  # ids of known_faults.py that the kernel shows here
    tokens_left: tuple[int, ...] = ()
    orders: str = ""  # how far the orders were gone through that the kernel is free to choose

    @property
    def may_fail(self) -> bool:
        """KVM_RUN may fail for some access: at its first fault, or at one behind a wait that a signal has ended."""
        return any(Outcome.ERROR in (i.outcome, *i.also, *(i.later or ())) for i in self.items)


def with_timing(situation: Situation, timing: Timing) -> Situation:
    """The same situation on a machine with other latencies."""
    return replace(situation, timing=timing)
