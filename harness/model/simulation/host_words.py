# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens on the host besides KVM: the agent's actions, at a HOST item or at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from harness.contract.plan import loads_behind
from harness.contract.words import HostWord, Thread
from harness.errors import ModelError
from harness.model.delivery import WorkState
from harness.model.events import Event, Kind
from harness.model.simulation import lifecycle as life
from harness.model.simulation.engine import MS, Latch, Process, Wait
from harness.model.simulation.gated import GatedReads
from harness.model.simulation.host_memory import Memory
from harness.model.simulation.kicked import left_ns, out_of_kvm_run
from harness.model.simulation.recorded import RecordedAction
from harness.model.simulation.replay import Replay
from harness.model.simulation.situation import HostDo, ModelWord
from harness.model.simulation.vcpu_thread import Vcpu
from harness.model.simulation.world import World
from harness.model.walk.steps import WaitKind
from harness.model.walk.user_access import user_access

_FROZEN_NS = 3_600_000 * MS
"""The agent freezes the device by a read delay of an hour (harness/agent/host/dm.py)."""
KVM_EXIT_INTR = 10
_ACCESSES = {
    ModelWord.READ: (Thread.OTHER, False),
    ModelWord.WRITE: (Thread.OTHER, True),
    ModelWord.KVM_READ: (Thread.V, False),
    ModelWord.KVM_WRITE: (Thread.V, True),
}


@dataclass(slots=True)
class HostSide:
    """Performs HostDo; ``restart`` boots a vCPU anew after a reset."""

    world: World
    memory: Memory
    vcpus: list[Vcpu] = field(default_factory=list)
    restart: Callable[[Latch], None] = lambda _: None
    restart_one: Callable[[int], None] = lambda _: None  # a parked vCPU comes back

    def perform(
        self,
        actions: tuple[HostDo, ...],
        end: Latch | None = None,
        timed: Sequence[RecordedAction | None] | None = None,
        number: int = -1,
    ) -> Process:
        """All actions in order, then fire ``end``; ``timed``: their records, of a timed entry of a recorded run;
        ``number``: which of the plan's host steps they are."""
        replay = self.world.replay
        for n, action in enumerate(actions):
            seen = timed[n] if timed is not None else replay.host(action.do, action.arg, number) if replay else None
            if replay is not None and seen is None:  # the agent did not come to it
                yield Wait(until_ns=replay.recorded.end_ns)
                return
            wait = seen.start_ns if seen else self.world.engine.now + self.world.pace.host_ns()
            yield Wait(until_ns=wait)
            happens = seen is None or action.do is not HostWord.SLEEP
            if replay is not None and seen is not None and action.do is HostWord.LOCK_READ:
                read_ns = replay.read_by_agent(action.arg >> 12, seen)
                happens = read_ns >= 0
                yield Wait(until_ns=read_ns if happens else seen.start_ns)
            if replay is not None and seen is not None and action.do is HostWord.RECLAIM:
                yield from self._until_taken_away(replay, action.arg, seen)
            if seen is not None and action.do is HostWord.STOP:  # until QMP says that all are paused, a vCPU may run on
                yield Wait(until_ns=seen.end_ns)
            if happens and action.do is HostWord.RESET and loads_behind([a.do for a in actions], n):
                for vcpu in self._plugged():  # nobody lives anew before the snapshot is loaded
                    yield from vcpu.kvm.clear()
            elif happens:
                yield from self._do(action, end)
            if seen is not None:
                yield Wait(until_ns=seen.end_ns)
                if not seen.done:
                    return
        if end is not None and replay is None:
            yield Wait(until_ns=self.world.engine.now + self.world.pace.host_ns())
        if end is not None:
            end.over = True
            self.world.engine.fire(end.signal)

    def _until_taken_away(self, replay: Replay, gpa: int, seen: RecordedAction) -> Process:
        """Reclaim up to the notifier behind which it frees the page; one before that has cleaned or unmapped it."""
        gfn = gpa >> 12
        notified = [t for t in replay.recorded.unmapped.get(gfn, ()) if seen.start_ns <= t <= seen.end_ns]
        moments = [*reversed(notified), seen.start_ns]  # most likely the last (mm/vmscan.c:shrink_folio_list)
        taken_ns = replay.choices.moment(moments, f"when {gfn:#x} was taken away", gfn)
        for notified_ns in notified:
            if notified_ns < taken_ns:
                yield Wait(until_ns=notified_ns)
                life.let_go(self.memory, gpa)
        yield Wait(until_ns=taken_ns)

    def _do(self, action: HostDo, end: Latch | None) -> Process:
        if isinstance(action.do, HostWord):
            yield from self._agent(action.do, action.arg, end)
        elif isinstance(action.do, ModelWord):
            yield from self._other(action.do, action.arg)
        else:
            assert_never(action.do)

    def _agent(self, do: HostWord, arg: int, end: Latch | None) -> Process:
        """What the agent does (harness/agent/guest/actions.py)."""
        device = self.memory.device
        match do:
            case HostWord.FREEZE | HostWord.THAW:
                self._freeze(do is HostWord.FREEZE)
            case HostWord.RELEASE:
                self._gate().let_go()
                self.world.engine.fire(device.loaded)
            case HostWord.DELAY:
                device.normal_ns = arg * MS
                self._load_table(arg * MS)
            case HostWord.CHANGE_MM:
                yield from self.memory.lock.write()
            case HostWord.SLEEP:
                yield Wait(until_ns=self.world.engine.now + arg * MS)
            case HostWord.STOP:
                self.stop()
                for vcpu in self._plugged():
                    yield from self._out_of_kvm_run(vcpu)
            case HostWord.CONT:
                self._cont()
            case HostWord.NMI:
                for vcpu in self._plugged():
                    yield from self._out_of_kvm_run(vcpu, nmi=True)
                    self._nmi(vcpu)
            case HostWord.PLUG:
                yield from life.plug(self.vcpus[arg])
            case HostWord.SAVEVM:
                yield from self._save()
            case HostWord.LOADVM:
                yield from life.restore(self.world, self.memory, self._plugged(), same_process=True)
            case HostWord.WAIT_NP:
                while sum(len(v.kvm.state.queue) for v in self.vcpus) < arg:
                    yield Wait(signals=(self.world.changed,))
            case HostWord.WAIT_DONE:
                while any(w.state is not WorkState.DONE for v in self.vcpus for w in v.kvm.state.queue):
                    yield Wait(signals=(self.world.changed,))
            case HostWord.WAIT_SETTLED:
                while self.world.replay is None and not self._gate().settled():
                    yield Wait(signals=(self.world.changed,))
            case HostWord.WAIT_HALTED:
                while self.world.replay is None and self._gate().halted() < arg:
                    yield Wait(signals=(self.world.changed,))
            case HostWord.LOCK_READ:
                self.memory.read_by_other(arg)
            case HostWord.RECLAIM:
                life.reclaim(self.memory, arg)
            case HostWord.SYNC:  # what it does to a vCPU is known where it was seen: KvmVcpu.rewritten()
                for vcpu in self._plugged() * arg:
                    yield from self._out_of_kvm_run(vcpu)
                    if self.world.replay is None:
                        yield Wait(until_ns=self.world.engine.now + self.world.pace.host_ns())
            case HostWord.RESET:
                self.restart(end or Latch(over=True))
            case _:
                assert_never(do)

    def _other(self, do: ModelWord, arg: int) -> Process:
        """What no plan asks for."""
        match do:
            case ModelWord.FREEZE_VMM:  # the freezer gets a thread out of KVM_RUN by a signal, like a stop
                self.stop()
            case ModelWord.THAW_VMM:
                self._cont()
            case ModelWord.RESOLVE_USERFAULT:
                self.memory.happen(arg, WaitKind.USERFAULT)
            case ModelWord.END_MIGRATION:
                self.memory.happen(arg, WaitKind.MIGRATION)
            case ModelWord.TRUNCATE:
                life.truncate(self.memory, arg)
            case ModelWord.READ | ModelWord.WRITE | ModelWord.KVM_READ | ModelWord.KVM_WRITE:
                who, write = _ACCESSES[do]
                walk = user_access(self.world.situation.kernel, write=write, env=self.memory.env)
                yield from self.memory.perform(walk, arg, who)
            case ModelWord.AREA_SLOT:
                for vcpu in self.vcpus:
                    vcpu.kvm.state.shared_ok = bool(arg)  # the next access sees another memslot generation
            case ModelWord.DELETE_SLOT:
                life.delete_slot(self.memory, arg)
            case ModelWord.MUNMAP:
                life.munmap(self.memory, arg)
            case ModelWord.SWAPOFF:
                yield from life.swapoff(self.memory)
            case ModelWord.UNPLUG:
                life.unplug(self.vcpus[arg])
            case ModelWord.REPLUG:
                self.restart_one(arg)
            case ModelWord.MIGRATE:
                yield from life.restore(self.world, self.memory, self.vcpus, same_process=False)
            case ModelWord.SIGKILL:
                yield from life.sigkill(self.world, self.vcpus)
            case _:
                assert_never(do)

    def _plugged(self) -> list[Vcpu]:
        """Those that the VMM knows (QEMU's CPU_FOREACH): not one that was ejected, until it runs again."""
        return [vcpu for vcpu in self.vcpus if not vcpu.kvm.parked]

    def stop(self) -> None:
        self.world.stopped = True
        self.world.engine.fire(self.world.signal)
        for vcpu in self._plugged():
            vcpu.kvm.stopped = True
            self.world.engine.fire(vcpu.kvm.wake)
            self.world.emit(Event(Kind.USER_EXIT, vcpu.kvm.index, value=KVM_EXIT_INTR))

    def failed(self) -> None:
        """KVM_RUN of a vCPU has failed, and the VMM stops them all for good: each leaves when a recording says so."""
        replay = self.world.replay
        if replay is None:
            self.stop()
            return
        for vcpu in self._plugged():
            left_ns = replay.left_for_good_ns(vcpu.kvm.index)
            if left_ns >= 0:
                self.world.engine.spawn(self._leaves(vcpu), max(0, left_ns - self.world.engine.now))

    def _leaves(self, vcpu: Vcpu) -> Process:
        vcpu.kvm.stopped = True
        self.world.engine.fire(vcpu.kvm.wake)
        yield from ()

    def _out_of_kvm_run(self, vcpu: Vcpu, *, nmi: bool = False) -> Process:
        """Until the thread has left KVM_RUN, for whoever waits for it (QEMU 7.2, cpus-common.c:do_run_on_cpu)."""
        replay, now = self.world.replay, self.world.engine.now
        if replay is None:
            yield from out_of_kvm_run(self.memory, vcpu.kvm.index)
        elif (left := left_ns(replay, vcpu.kvm.index, now, nmi=nmi)) > now:
            yield Wait(until_ns=left)

    def _cont(self) -> None:
        if self.world.failed and self.world.replay is None:
            return  # QEMU refuses it (runstate_needs_reset)
        self.world.stopped = False
        for vcpu in self._plugged():
            vcpu.kvm.stopped = False
            self.world.engine.fire(vcpu.kvm.wake)

    def _save(self) -> Process:
        """migration/ram.c:ram_save_host_page looks at each page of the guest, in the order of their addresses and in a
        thread of QEMU's own."""
        kernel = self.world.situation.kernel
        gate = self.memory.gate
        if gate is not None:
            gate.saving = True
        for pool in sorted(self.world.situation.pages, key=lambda pool: pool.gpa):
            yield from self.memory.perform(
                user_access(kernel, write=False, env=self.memory.env), pool.gpa, Thread.OTHER
            )
        if gate is not None:
            gate.saving = False
        life.write_protect(self.memory)
        # The slots have another generation: kvm_read_guest_offset_cached looks up the address of the last EN that was
        # accepted (virt/kvm/kvm_main.c:__kvm_gfn_to_hva_cache_init keeps it where it finds no slot).
        for state in (vcpu.kvm.state for vcpu in self.vcpus):
            state.shared_ok = state.shared_ok or state.area_bound

    def _nmi(self, vcpu: Vcpu) -> None:
        """KVM_NMI in the vCPU's thread, which leaves KVM_RUN for it (arch/x86/kvm/x86.c:kvm_inject_nmi).

        QEMU looks at LINT1 first (hw/i386/kvm/apic.c:do_inject_external_nmi), which is masked while the LAPIC is
        software-disabled (lapic.c:apic_set_spiv; guest-images/probe/cpu.c:apic_enable sets it again).
        """
        vcpu.kvm.state.nmi_pending += vcpu.kvm.state.lapic_sw
        self.world.engine.fire(vcpu.kvm.wake)
        self.world.emit(Event(Kind.USER_EXIT, vcpu.kvm.index, value=KVM_EXIT_INTR))

    def _freeze(self, frozen: bool) -> None:
        """Hold every read, or go on as before."""
        device = self.memory.device
        if device.device.rule is None:
            self._load_table(_FROZEN_NS if frozen else device.normal_ns)
        else:
            (device if self.memory.gate is None else self.memory.gate).frozen = frozen
            self.world.engine.fire(device.loaded)

    def _gate(self) -> GatedReads:
        if self.memory.gate is None:
            raise ModelError("release, wait-settled and wait-halted are for a gated source")
        return self.memory.gate

    def _load_table(self, delay_ns: int) -> None:
        """A new dm-delay table: what is held goes out at once, later reads take ``delay_ns``."""
        device = self.memory.device
        device.delay_ns, device.last_end_ns = delay_ns, min(device.last_end_ns, self.world.engine.now)
        self.world.engine.fire(self.memory.device.loaded)
