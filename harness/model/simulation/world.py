# SPDX-License-Identifier: GPL-2.0-or-later
"""What the parts of the simulation share: clock, event stream, totals, the swap device, the log of what items met."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.errors import EndlessError
from harness.model.events import Event, Kind
from harness.model.outcomes import Outcome
from harness.model.simulation.engine import MS, Engine, Process, Signal, Wait
from harness.model.simulation.pace import Pace
from harness.model.simulation.replay import Replay
from harness.model.simulation.situation import Device, Situation

MAX_EVENTS = 50_000
"""Some forty times what the largest scenario has; a prediction holds up to nine runs in memory."""
_FOR_EACH = 20
"""Of a recorded run: so many for each event that it has, if that is more."""

TOTAL_OF_KIND = {
    Kind.PF: "PF",
    Kind.TRY: "TRY",
    Kind.NP: "NP",
    Kind.REP: "REP",
    Kind.DONE: "DONE",
    Kind.INJ: "INJ",
}
TOTALS = (
    "PF", "TRY", "NP", "NPt", "NPh", "REP", "FAIL", "DONE", "RDY", "RDY_ALL", "INJ", "ACC", "ACK", "PF_GUEST",
    "MAJ_V", "MIN_V", "MAJ_W", "MIN_W", "PGMAJ", "PSWPIN", "RA", "RAH", "SWPIN_ZERO", "BIO_V", "BIO_W", "BIO_OTHER",
    "READ_V", "READ_W", "READ_OTHER", "FAST", "MINOR", "SYNC", "BLOCK", "MAJ_OTHER", "RECLAIM_V", "RECLAIM_W", "GP",
    "WAITED", "NMI",
)  # fmt: skip
"""Every key of Prediction.totals but PGMAJ_HOST and PGMAJ_REST, PGMAJ as /proc/vmstat shows it (of the whole host, and
without the other processes), and of Linux guests ASYNC: WAITED without the SYNC and BLOCK that could have been
asynchronous (at CPL 3, when no event was being delivered, and the queue had room).

READ_*: pages read from the device by vCPU threads (V), kworkers (W) and others; BIO_*: their bios.  ACC: interrupts of
the ready vector, those of wake-alls (RDY_ALL) included; RDY: without these.  FAST, MINOR, SYNC, BLOCK: page faults by
what became of them in V.  MAJ_OTHER: of threads of the VMM that are no vCPU.  RECLAIM_*: charges of one page that found
memory.max reached, so that this thread reclaimed (each one at least one mm_vmscan_memcg_reclaim_begin).  GP: general
protection faults that the guest is given for its MSR accesses.  WAITED: page faults that did not just map a page: NP,
REP, SYNC and BLOCK.  NMI: those that the guest took.
"""


@dataclass(slots=True, eq=False)
class Fault:
    """One kvm_page_fault of an item: what became of it, who reads the page, which test decided."""

    outcome: Outcome
    issuer: str = ""
    token: int = 0
    rule: str = ""
    why: str = ""


@dataclass(slots=True)
class ItemLog:
    """What one item met, in order."""

    faults: list[Fault] = field(default_factory=list)
    queued: int = 0  # of these, faults for which a work was queued
    goes_round: bool = False  # a busy loop of halts: how many faults there are is a matter of time
    ended: bool = False
    gp: bool = False


@dataclass(slots=True)
class DelayDevice:
    """Reads end ``delay_ns`` after submission, any number at once, or when another table is loaded.

    What the agent serves (a gated source with release "after" or "open") has no table: nothing ends while it is frozen.
    """

    device: Device
    delay_ns: int
    normal_ns: int
    loaded: Signal = field(default_factory=Signal)
    last_end_ns: int = -(1 << 62)
    frozen: bool = False

    def over(self, end_ns: int) -> Process:
        """A read that is to end then."""
        if self.device.rule is None:
            yield Wait(until_ns=end_ns, signals=(self.loaded,))
            return
        yield Wait(until_ns=end_ns)
        while self.frozen:
            yield Wait(signals=(self.loaded,))


@dataclass(slots=True)
class World:
    """Shared state of one run."""

    situation: Situation
    pace: Pace  # of what no recording says
    replay: Replay | None = None  # the recording that says when and which first; None: before a run
    engine: Engine = field(default_factory=Engine)
    events: list[Event] = field(default_factory=list)
    totals: Counter[str] = field(default_factory=Counter)
    items: dict[int, ItemLog] = field(default_factory=dict)
    recording: bool = False  # False while the guest boots: nothing is counted
    unbounded: dict[str, str] = field(default_factory=dict)  # total -> why it has no upper bound
    may_be_more: Counter[str] = field(default_factory=Counter)  # total -> by how much, if kworkers are held up
    may_be_less: Counter[str] = field(default_factory=Counter)  # total -> by how much, if reads are joined
    notes: list[str] = field(default_factory=list)
    known_faults: list[str] = field(default_factory=list)  # ids of known_faults.py that made a difference in this run
    vm_gone_ns: int = -1  # when kvm_destroy_vm was through and the address space gone; -1: it was not called
    stopped: bool = False  # the VMM has told its vCPU threads to leave KVM_RUN
    failed: bool = False  # KVM_RUN has failed on a vCPU: the VMM stops all (QEMU: RUN_STATE_INTERNAL_ERROR)
    deaf: set[int] = field(default_factory=set)  # vCPUs whose thread sleeps in cancel_work_sync, or for mmap_lock
    stop_all: Callable[[], None] = lambda: None  # what the VMM does then
    told: set[int] = field(default_factory=set)  # vCPUs whose thread it has sent a signal, asleep in a page fault
    signal: Signal = field(default_factory=Signal)  # it has sent one
    changed: Signal = field(default_factory=Signal)  # anything that a waiting host action may look at

    def emit(self, event: Event) -> None:
        """Append an event with the time of now, and count it.

        :raise EndlessError: more events than any plan is meant to have.
        """
        if not self.recording:
            return
        most = MAX_EVENTS if self.replay is None else max(MAX_EVENTS, _FOR_EACH * self.replay.recorded.length)
        if len(self.events) >= most:
            raise EndlessError(
                f"more than {most} events in the first {self.engine.now // MS} ms",
                hint="a timer of a shorter period than its handling, or a pause of many periods?",
            )
        event.t_ns = self.engine.now
        self.events.append(event)
        name = TOTAL_OF_KIND.get(event.kind)
        if name:
            self.totals[name] += 1
        if self.changed.waiters:
            self.engine.fire(self.changed)

    def count(self, name: str, n: int = 1) -> None:
        """Move a total that has no event of its own."""
        if self.recording:
            self.totals[name] += n

    def item(self, index: int) -> ItemLog:
        """The log of an item."""
        return self.items.setdefault(index, ItemLog())
