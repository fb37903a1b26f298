# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens on the host besides KVM: the agent's actions, at a HOST item or at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from harness.errors import ModelError
from harness.model.events import Event, Kind
from harness.model.simulation import lifecycle as life
from harness.model.simulation.engine import MS, Latch, Process, Wait
from harness.model.simulation.host_memory import Memory
from harness.model.simulation.situation import HostDo
from harness.model.simulation.vcpu_thread import Vcpu
from harness.model.simulation.world import World
from harness.model.walk.steps import WaitKind
from harness.model.walk.user_access import user_access

_FROZEN_NS = 3_600_000 * MS
"""The agent freezes the device by a read delay of an hour (harness/agent/host/dm.py)."""
KVM_EXIT_INTR = 10
_PAGE_EVENTS = {"resolve-userfault": WaitKind.USERFAULT, "end-migration": WaitKind.MIGRATION}
_ACCESSES = {"read": ("OTHER", False), "write": ("OTHER", True), "kvm-read": ("V", False), "kvm-write": ("V", True)}


@dataclass(slots=True)
class HostSide:
    """Performs HostDo; ``restart`` boots a vCPU anew after a reset."""

    world: World
    memory: Memory
    vcpus: list[Vcpu] = field(default_factory=list)
    restart: Callable[[Latch], None] = lambda _: None
    restart_one: Callable[[int], None] = lambda _: None  # a parked vCPU comes back

    def perform(self, actions: tuple[HostDo, ...], end: Latch | None = None) -> Process:
        """All actions in order, then fire ``end``."""
        for action in actions:
            yield Wait(until_ns=self.world.engine.now + self.world.situation.timing.host_ns)
            yield from self._do(action, end)
        if end is not None:
            yield Wait(until_ns=self.world.engine.now + self.world.situation.timing.host_ns)
            end.over = True
            self.world.engine.fire(end.signal)

    def _do(self, action: HostDo, end: Latch | None) -> Process:
        do, arg, device = action.do, action.arg, self.memory.device
        if do == "freeze":
            self._load_table(_FROZEN_NS)
        elif do == "thaw":
            self._load_table(device.normal_ns)
        elif do == "delay":
            device.normal_ns = arg * MS
            self._load_table(arg * MS)
        elif do == "sleep":
            yield Wait(until_ns=self.world.engine.now + arg * MS)
        elif do in ("stop", "freeze-vmm"):  # the freezer gets a thread out of KVM_RUN by a signal, like a stop
            for vcpu in self.vcpus:
                vcpu.kvm.stopped = True
                self.world.engine.fire(vcpu.kvm.wake)
                self.world.emit(Event(Kind.USER_EXIT, vcpu.kvm.index, value=KVM_EXIT_INTR))
        elif do in ("cont", "thaw-vmm"):
            for vcpu in self.vcpus:
                vcpu.kvm.stopped = False
                self.world.engine.fire(vcpu.kvm.wake)
        elif do == "wait-np":
            while sum(len(v.kvm.state.queue) for v in self.vcpus) < arg:
                yield Wait(signals=(self.world.changed,))
        elif do == "lock-read":
            self.memory.read_by_other(arg)
        elif do in _PAGE_EVENTS:
            self.memory.happen(arg, _PAGE_EVENTS[do])
        elif do == "truncate":
            self.memory.truncate(arg)
        elif do in _ACCESSES:
            who, write = _ACCESSES[do]
            walk = user_access(self.world.situation.kernel, write=write, env=self.memory.env)
            yield from self.memory.perform(walk, arg, who)
        elif do == "reset":
            self.restart(end or Latch(over=True))
        elif do == "reclaim":
            life.reclaim(self.memory, arg)
        elif do == "area-slot":
            for vcpu in self.vcpus:
                vcpu.kvm.state.shared_ok = bool(arg)  # the next access sees another memslot generation
        elif do == "delete-slot":
            life.delete_slot(self.memory, arg)
        elif do == "munmap":
            life.munmap(self.memory, arg)
        elif do == "swapoff":
            yield from life.swapoff(self.memory)
        elif do == "unplug":
            life.unplug(self.vcpus[arg])
        elif do == "replug":
            self.restart_one(arg)
        elif do in ("loadvm", "migrate"):
            yield from life.restore(self.world, self.memory, self.vcpus, same_process=do == "loadvm")
        elif do == "sigkill":
            yield from life.sigkill(self.world, self.vcpus)
        else:
            raise ModelError(f"the simulation knows no host action {do!r}")

    def _load_table(self, delay_ns: int) -> None:
        """A new dm-delay table: what is held goes out at once, later reads take ``delay_ns``."""
        self.memory.device.delay_ns = delay_ns
        self.world.engine.fire(self.memory.device.loaded)
