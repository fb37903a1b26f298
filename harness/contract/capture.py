# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent writes into a capture folder and the evidence reads from it, as dataclasses.

docs/formats/capture.md says which file holds which, and harness/contract/structure.py how a dataclass is JSON.
``FORMAT`` counts changes of what is written; ``end.json`` carries it.  Format 1, which did not carry one, is read by
harness/evidence/format_1.py.  Until format 2 no record but that one said of which run it is; since format 4 there is
left.json; since format 5 host/dmesg.txt says of which run it is, too; since format 7 the probe guest keeps each step of
its program in the control page; since format 8 it says which features KVM offers it.  Keys that came later: SINCE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.contract.structure import plain
from harness.contract.words import EndStatus, HostWord, PageStart, ReadEnd

FORMAT, UNTIED, WITHOUT_LEFT, WITHOUT_MARKS, WAITS_NOT_KEPT, FEATURES_NOT_READ = 8, 2, 3, 4, 6, 7
SINCE: Mapping[str, int] = {"compaction": 5, "word": 5, "opened": 6, "works": 7, "locked": 7, "unlisted": 7,
                            "on_list": 7, "charged": 7, "uptodate": 7, "swap_backed": 7, "again": 7,
                            "cached": 7, "slots": 7, "contexts": 9}  # fmt: skip
"""Keys of the records that came with a format; the others are as old as their records, or were never due.  What came
within a format is due from the next one on."""
TRACE_DAT, NO_TRACE_DAT = "trace/trace.dat", "trace/no-trace-dat.txt"
"""The trace for trace-cmd and KernelShark, where it was asked for, or why there is none."""
TRACEBACK = "host/traceback.txt"
"""Of an error of the agent that nobody has foreseen."""


def log_marks(nonce: int) -> tuple[str, str]:
    """What the agent writes into the host's kernel log when it begins with a run, and when it has undone everything:
    what the log says of the run stands between them."""
    return f"apf: begin {nonce:016x}", f"apf: end {nonce:016x}"


MESSAGES_LOST = "[messages lost]"
"""A line of host/dmesg.txt: here the kernel's log was overrun before it was read."""


@dataclass(frozen=True, slots=True)
class OfRun:
    """A record that a run leaves.  ``nonce``: of its plan; None: up to format UNTIED, which did not say it."""

    nonce: int | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class RunEnd:
    """end.json, written last: how the agent's work ended.  ``undone`` false: the reason says what is left."""

    format: int
    nonce: int
    status: EndStatus
    reason: str
    undone: bool


EMULATED = "apf.emulated=1"
"""On the kernel's command line of a virtual host whose processor is QEMU's TCG (harness/hosts/virtual/vm.py)."""
EMULATOR = "apf.emulator="
"""... and which version of QEMU that is."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the host offers, asked of the kernel itself."""

    release: str
    kernel_version: str
    cmdline: str
    cpus: int
    memory_kib: int
    kvm_device: bool
    kvm_modules: tuple[str, ...]
    kvm_parameters: Mapping[str, str]
    tracefs: str  # where it is mounted, "" if it is not
    kvm_events: tuple[str, ...]
    kprobe_events: bool
    debugfs: str
    cgroup2: str
    cgroup_memory: bool
    memory_reclaim: bool
    process_madvise: bool
    vm_event_counters: bool
    dm_delay: bool
    zram: bool
    thp: str
    lru_gen: str
    swap_in_use: tuple[str, ...]
    mkfs_ext4: bool
    nbd: bool = False
    compaction: bool = False  # the batches of its CPUs can be emptied (/proc/sys/vm/compact_memory)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known once QEMU runs.  Devices are "major,minor"."""

    accel: str
    qemu_pid: int
    qemu_version: str
    vcpu_tids: tuple[int, ...]  # thread ids in vCPU order
    trace_clock: str
    trace_events: tuple[str, ...]  # "system/event" of what is recorded
    mm_fault_probe: bool
    io_dev: str | None  # the device whose reads are the pages' own reads: of the swap or of the RAM file
    backing_device: str | None  # the disk below the delay device
    page_cluster: int
    swappiness: int
    later_tids: tuple[tuple[int, int], ...] = ()  # (vCPU, thread id) of each that was plugged in again


@dataclass(frozen=True, slots=True)
class Facts(OfRun):
    """facts.json.  ``run``: absent where the run ended before QEMU could be asked."""

    host: HostFacts
    run: RunFacts | None = None

    @property
    def release(self) -> str:
        """The kernel release that the host ran."""
        return self.host.release


@dataclass(frozen=True, slots=True)
class PageProof:
    """One planned page just before go.  ``problem``: why it is not in its state, "" if it is.

    ``cached``: in the page cache or the swap cache.  ``hole``: of a memfd or file: never allocated there.  ``sector``:
    first 512-byte sector of a page of a RAM file on the device.  None: there is no such thing for this page.
    """

    gpa: int
    name: str
    start: PageStart
    present: bool
    swapped: bool
    cached: bool
    swap_type: int | None = None
    swap_offset: int | None = None
    hole: bool | None = None
    sector: int | None = None
    problem: str = ""


def out_of_state(page: PageProof, *, in_page_table: bool) -> str:
    """What keeps a page from being in its state, "" if nothing: the agent's own proof, and the judge's look at it.

    :param in_page_table: a page that is out has a swap entry in QEMU's page table (anonymous memory).
    """
    if page.start is PageStart.POPULATED:
        return "" if page.present else "not in the page table"
    if page.present:
        return "still in the page table"
    if page.start is PageStart.UNTOUCHED:
        allocated = page.swapped if in_page_table else page.cached or page.hole is False
        return "allocated" if allocated else ""
    if page.start is PageStart.DROPPED:
        return "in the page cache" if page.cached else "no data on the disk" if page.hole else ""
    if in_page_table and not page.swapped:
        return "no swap entry"
    if not in_page_table and page.hole:
        return "was never written"
    if page.start is PageStart.SWAPCACHE:
        return "" if page.cached else "not in the swap cache"
    return "in the swap cache" if page.cached else ""


def workload_not_out(pages: int, totals: Mapping[str, int]) -> str:
    """Why a run of a workload of so many pages (0: it only boots) would prove nothing; empty if it does."""
    swapped, cached = totals.get("swapped", 0), totals.get("swap_cached", 0)
    if cached:
        return f"{cached} pages are in the swap cache"
    if not pages:
        return f"{swapped} pages of the guest are swapped out before it boots" if swapped else ""
    return f"the workload has {pages} pages, and only {swapped} of the VM are swapped out" if swapped < pages else ""


@dataclass(frozen=True, slots=True)
class OutsidePage:
    """A page of QEMU that is swapped out although no plan says so.  ``gpa``: None where it is not guest RAM."""

    address: int
    gpa: int | None
    region: str


@dataclass(frozen=True, slots=True)
class Precondition(OfRun):
    """precondition.json.  ``reached``: each planned page is in its state, and no other page is swapped out.

    ``totals`` are for people: of pages and of the host.  Linux guests have no planned pages.
    """

    reached: bool
    reason: str
    totals: Mapping[str, int]
    outside: tuple[OutsidePage, ...]
    pages: Mapping[int, PageProof]  # by guest physical address


@dataclass(frozen=True, slots=True)
class PageLeft:
    """A planned page after the run.  ``dirty``, ``swap_cache``: flags of its folio, ``large``: which has several pages,
    ``word``: its bytes 8 to 15 as a number, ``on_list``: it is on a list from which reclaim takes pages,
    ``charged``: to the scenario's cgroup, ``uptodate``, ``swap_backed``: more flags of its folio, ``again``: its word
    once more, when reclaim had taken it and it was read again (these five came within format 6); None: not present, or
    captured by an agent that did not look; of these five: or nobody can tell.
    """

    name: str
    present: bool
    dirty: bool | None = None
    swap_cache: bool | None = None
    large: bool | None = None
    word: int | None = None
    on_list: bool | None = None
    charged: bool | None = None
    uptodate: bool | None = None
    swap_backed: bool | None = None
    again: int | None = None


@dataclass(frozen=True, slots=True)
class AreaLeft:
    """A shared area after the run."""

    flags: int
    token: int
    tail_zero: bool


@dataclass(frozen=True, slots=True)
class FinalState(OfRun):
    """after.json.  By vCPU, of its own shared area (struct kvm_vcpu_pv_apf_data): ``shared_flags`` and ``shared_token``
    are bytes 0..3 and 4..7 as numbers, ``shared_tail_zero`` says that bytes 8..63 are zero.  ``areas``: the same, by
    guest physical address, of the other areas that the plan's writes of EN name; None: by an agent that did not look.
    """

    shared_tail_zero: Mapping[int, bool]
    shared_flags: Mapping[int, int]
    shared_token: Mapping[int, int]
    pages: Mapping[int, PageLeft]  # by guest physical address
    areas: Mapping[int, AreaLeft] | None = None


@dataclass(frozen=True, slots=True)
class MemoryLeft(OfRun):
    """left.json: what is charged to the scenario's cgroup once QEMU was reaped, in pages; None: nobody can tell.

    :ivar mapped: anonymous pages in a page table: of an address space that is still there.
    :ivar listed: pages on the lists of anonymous memory, mapped or not, that are of no file, and pages of the RAM file
        that the page cache does not give away: somebody has a reference.
    :ivar opened: the RAM file is open for writing still (since format 6; before, nobody looked).
    :ivar works: how many objects of KVM's slab of works are in use (came within format 6).
    :ivar locked: somebody holds the lock of the RAM file that faults take (came within format 6).
    :ivar unlisted: pages on no list that are not the kernel's own, page tables, and pages that are counted as shared
        memory without being there (came within format 6).
    :ivar cached: pages that are counted as being in the swap cache (came within format 6).
    :ivar slots: slots of the swap device that are taken (came within format 6).
    :ivar contexts: contexts of userfaultfds that nobody has open (came within format 8).
    """

    mapped: int | None
    listed: int | None
    opened: bool = False
    works: int | None = None
    locked: bool = False
    unlisted: int | None = None
    cached: int | None = None
    slots: int | None = None
    contexts: int | None = None


@dataclass(frozen=True, slots=True)
class ThreadFaults:
    """A thread of QEMU: fields of /proc/<pid>/task/<tid>/stat.  ``vcpu``: -1 where it runs none."""

    name: str
    state: str
    min_flt: int
    maj_flt: int
    vcpu: int


KVM_STATS = (
    "exits", "pf_guest", "pf_taken", "pf_fixed", "pf_spurious", "pf_emulate", "halt_exits", "halt_attempted_poll",
)  # fmt: skip
"""The statistics of a VM that are recorded, by their names in debugfs (arch/x86/kvm/x86.c:kvm_vcpu_stats_desc)."""


@dataclass(frozen=True, slots=True)
class CounterSnapshot(OfRun):
    """counters/before.json and counters/after.json."""

    vmstat: Mapping[str, int]
    memory_stat: Mapping[str, int]  # of the scenario's cgroup, empty without one
    threads: Mapping[int, ThreadFaults]  # by thread id
    kvm: Mapping[str, int]  # KVM_STATS of the VM, as far as its kernel has them; empty without debugfs
    anon_pages: int | None  # of QEMU, in guest RAM
    swaps: str = ""
    interrupts: str = ""
    other_majors: tuple[int, int] | None = None  # of all other processes, before and after the rest was read


@dataclass(frozen=True, slots=True)
class CpuTraceStats:
    """per_cpu/cpuN/stats of the trace instance.

    :ivar left_out: how many of the entries, the last ones, the agent did not save, because the trace was too long.
    """

    entries: int
    overrun: int
    commit_overrun: int
    dropped_events: int
    left_out: int = 0

    @property
    def lost(self) -> int:
        """Events of this CPU that are not in the trace."""
        return self.overrun + self.commit_overrun + self.dropped_events + self.left_out


@dataclass(frozen=True, slots=True)
class TraceStats(OfRun):
    """trace/stats.json, by CPU."""

    cpus: Mapping[int, CpuTraceStats]

    @property
    def entries(self) -> int:
        """Events in the trace."""
        return sum(cpu.entries for cpu in self.cpus.values())

    @property
    def lost(self) -> int:
        """Events that are not in the trace."""
        return sum(cpu.lost for cpu in self.cpus.values())


@dataclass(frozen=True, slots=True)
class GateRead:
    """One read of the gated device, from request to answer (gate.json).  Times: nanoseconds of the trace clock.

    :ivar answered_ns: it was decided to answer it.
    :ivar ended_ns: it had been given: of a userfaultfd, UFFDIO_COPY had returned; 0: not known (older captures).
    """

    at_ns: int
    answered_ns: int
    sector: int  # of 512 bytes
    sectors: int
    pages: tuple[int, ...]  # guest frame numbers of the planned pages in it
    why: ReadEnd
    error: int  # errno it ended with, 0: none
    ended_ns: int = 0


@dataclass(frozen=True, slots=True)
class GateLog(OfRun):
    """gate.json: every read that was answered, in that order; ``held``: how many were not."""

    reads: tuple[GateRead, ...]
    held: int = 0


class AgentStep(StrEnum):
    """Steps of the agent as progress.jsonl and its reader know them."""

    PREPARE_HOST = "prepare-host"
    START_GUEST = "start-guest"
    GUEST_READY = "guest-ready"
    PREPARE_PAGES = "prepare-pages"
    SWAP_OUT = "swap-out"  # Linux guests
    PRECONDITION = "precondition"
    GO = "go"
    HOST_ACTION = "host-action"
    HOST_ACTION_DONE = "host-action-done"
    GUEST_ENDED = "guest-ended"
    COLLECT = "collect"
    UNDO = "undo"
    END = "end"


@dataclass(frozen=True, slots=True)
class StepDetails:
    """What a step may have to say besides its name; what is None is not written."""

    tsc_khz: int | None = None
    pages: int | None = None
    anon: int | None = None  # bytes
    reached: bool | None = None
    totals: Mapping[str, int] | None = None
    do: HostWord | None = None
    arg: int | None = None
    host: int | None = None  # which of the plan's host_actions it belongs to
    timed: int | None = None  # ... or of its timed entries
    status: EndStatus | None = None
    reason: str | None = None
    undone: bool | None = None


NO_DETAILS = StepDetails()


@dataclass(frozen=True, slots=True)
class ProgressLine:
    """A line of progress.jsonl: ``t`` seconds after the capture began, ``mono`` seconds of the trace clock."""

    t: float
    mono: float
    step: AgentStep
    details: StepDetails = field(default_factory=StepDetails)

    def as_line(self) -> dict[str, object]:
        """Flat, as JSON objects are written: the details beside the rest, without those that are None."""
        details = {key: value for key, value in plain(self.details).items() if value is not None}
        return {"t": self.t, "mono": self.mono, "step": self.step.value, **details}


@dataclass(frozen=True, slots=True)
class Touched:
    """``TOUCHED <pages> pages <wrong> wrong <us> us``: one byte was read of each page."""

    pages: int
    wrong: int
    us: int


@dataclass(frozen=True, slots=True)
class GuestFaults:
    """``FAULTS <major> major <minor> minor``: of the toucher, in the guest's own accounting."""

    major: int
    minor: int


@dataclass(frozen=True, slots=True)
class LinuxResult:
    """guest/result.txt: what a Linux guest says (guest-images/linux/README.md).

    ``hyp``: the rows HYP of /proc/interrupts in the order in which they were told, each its counts in CPU order; None
    where there is no such row.  ``touched`` and ``faults``: of the workload "touch".
    """

    workload: str
    release: str
    cpus: int
    hyp: tuple[tuple[int, ...] | None, ...]
    touched: Touched | None = None
    faults: GuestFaults | None = None
