# SPDX-License-Identifier: GPL-2.0-or-later
"""The gated device in the simulation: reads that are held, and the release rule told what happens in the run."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.contract.gate import Rule, Seen
from harness.model.delivery import kvm_pv_async_pf_enabled
from harness.model.events import INIT, MSR_ASYNC_PF_EN, WAKE_ALL_TOKEN, Event, Kind
from harness.model.simulation.engine import Process, Signal, Wait
from harness.model.simulation.world import World

_TOLD = frozenset((Kind.PF, Kind.NP, Kind.REP, Kind.RDY, Kind.DONE, Kind.OUT, Kind.IN, Kind.WRMSR, Kind.CLEAR))


@dataclass(slots=True, eq=False)
class HeldRead:
    """A read that has not ended: the guest frame numbers that it brings.

    ``answered``: it was let go, together with all that might end at that moment, whatever becomes of its condition.
    """

    pages: frozenset[int]
    answered: bool = False


@dataclass(slots=True)
class GatedReads:
    """The rule sees the run's own events, as the agent's server sees the kernel's (harness/agent/gate/keeper.py)."""

    world: World
    rule: Rule
    held: list[HeldRead] = field(default_factory=list)
    frozen: bool = False
    saving: bool = False  # QEMU reads all of the guest's memory
    _seen: Seen = field(init=False)
    _next: int = 0  # of world.events
    _last_end_ns: int = 0
    _looked: bool = False  # which of the held reads may end now is known, and nothing has happened since

    def __post_init__(self) -> None:
        self._seen = Seen(self.rule, self.world.situation.vcpus)

    def let_go(self) -> None:
        """The host word "release"."""
        self._looked = False
        self._seen.let_go()

    def vcpu_asks(self, vcpu: int, page: int) -> None:
        """The vCPU thread is about to sleep on this page."""
        self._look()
        self._looked = False
        self._seen.asks(vcpu, page)

    def worker_sleeps(self, page: int) -> None:
        """The worker of an announced fault waits for its page; pages and workers are one and the same here."""
        self._look()  # what an earlier work on this page came to is told first
        self._looked = False
        self._seen.work(page, page)
        self._seen.work_sleeps(page)
        self.world.engine.fire(self.world.changed)

    def begins_anew(self, vcpu: int) -> None:
        """The VMM has reset this vCPU: its queue is empty before it resets the next one."""
        self._look()
        self._looked = False
        self._seen.begins_anew(vcpu)
        self.world.engine.fire(self.world.changed)

    def settled(self) -> bool:
        """The host word "wait-settled": the worker of each announced fault sleeps on its page."""
        self._look()
        return self._seen.settled

    def halted(self) -> int:
        """How many vCPU threads sleep in a halt with a page outstanding."""
        self._look()
        return self._seen.halted

    def hold(self, pages: frozenset[int], loaded: Signal) -> Process:
        """A read of these pages, until the rule says that it ends; ``loaded``: the host has said something about it."""
        held = HeldRead(pages)
        self.held.append(held)
        self._looked = False
        late_ns = self.world.pace.timing.gate_ns
        if late_ns:
            yield Wait(until_ns=self.world.engine.now + late_ns)
        while not self.ends(held) and not self._saved(held):
            yield Wait(signals=(self.world.changed, loaded))
            if late_ns:
                yield Wait(until_ns=self.world.engine.now + late_ns)
        self.held.remove(held)
        self._looked = False
        end_ns, gap_ns = (
            self.world.engine.now + self.world.pace.read_ns(min(pages)),
            self.world.pace.timing.device_gap_ns,
        )
        if gap_ns:
            end_ns = self._last_end_ns = max(end_ns, self._last_end_ns + gap_ns)
        yield Wait(until_ns=end_ns)

    def ends(self, read: HeldRead) -> bool:
        """Whether the read may end now."""
        self._look()
        if not self._looked and not self.frozen:  # each event is a question about all reads that are held
            self._looked = True
            self._answer([self.held[position] for position, _ in self._seen.due([r.pages for r in self.held])])
        return read.answered

    def _answer(self, due: list[HeldRead]) -> None:
        """All that may end at one moment are let go at once, as the server does."""
        new = [read for read in due if not read.answered]
        for read in new:
            read.answered = True
        if new:
            self.world.engine.fire(self.world.changed)

    def _saved(self, read: HeldRead) -> bool:
        """A snapshot is taken, for which QEMU reads the page itself."""
        return self.saving and self._seen.passes and not self.frozen and not read.pages & self._seen.awaited

    def _look(self) -> None:
        events = self.world.events
        if self._next == len(events):
            return
        for event in events[self._next :]:
            if event.kind in _TOLD:
                self._tell(event)
                self._looked = False
        self._next = len(events)

    def _tell(self, event: Event) -> None:
        seen, vcpu, page = self._seen, event.vcpu, event.gpa >> 12
        match event.kind:
            case Kind.PF:
                seen.fault(vcpu, page)
            case Kind.NP:
                seen.announced(vcpu, page)
            case Kind.REP:
                seen.repeated(vcpu)
            case Kind.RDY if event.token != WAKE_ALL_TOKEN:
                seen.ready(vcpu, page)
            case Kind.DONE:
                seen.work_done(page)
            case Kind.WRMSR if event.value == MSR_ASYNC_PF_EN and not event.flag:
                (seen.enabled if kvm_pv_async_pf_enabled(event.data) else seen.disabled)(vcpu)
            case Kind.CLEAR if event.value == INIT:
                seen.given_init(vcpu)
            case Kind.CLEAR if not event.flag:  # by the VMM, one vCPU after another
                seen.begins_anew(vcpu)
            case Kind.CLEAR:
                seen.cr0_written(vcpu)
            case Kind.OUT:
                seen.sleeps(vcpu, interruptible=event.value == ord("S"))
            case Kind.IN:
                seen.wakes(vcpu)
            case _:
                pass
