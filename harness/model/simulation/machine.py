# SPDX-License-Identifier: GPL-2.0-or-later
"""One run of a Situation under one Timing: the parts are put together, the clock runs, what happened is returned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from harness.model.delivery import ApfState, init_of_l2, reset
from harness.model.simulation.bios import uncount_reads_in_flight
from harness.model.simulation.choices import Choices
from harness.model.simulation.engine import Latch, Process, Signal, Wait
from harness.model.simulation.host_memory import Memory
from harness.model.simulation.host_words import HostSide
from harness.model.simulation.kvm_vcpu import KvmVcpu
from harness.model.simulation.moving_area import SharedArea
from harness.model.simulation.pace import Pace
from harness.model.simulation.probe_vcpu import ProbeVcpu
from harness.model.simulation.replay import Replay
from harness.model.simulation.situation import Situation, Step
from harness.model.simulation.vcpu_thread import Vcpu
from harness.model.simulation.world import World


@dataclass(slots=True)
class Machine:
    """The virtual machine and its host in one run."""

    world: World
    memory: Memory
    host: HostSide
    finished: Signal
    end_ns: int = -1
    ended: bool = False  # the guest's program came to its end before the deadline

    @property
    def stands(self) -> bool:
        """No vCPU has anything of the program left to do."""
        for vcpu in self.host.vcpus:  # asked after each step of the clock  # noqa: SIM110
            if not vcpu.ended:
                return False
        return True


def run_once(situation: Situation, replay: Replay | None = None, choices: Choices | None = None) -> Machine:
    """Simulate from "go" to the end of the program (or the deadline) and the settling after it.

    :param replay: the recording of a run that is to be followed.
    :param choices: of a run that follows none: what is late in it; None: all is as the situation's timing says.
    :raise Diverged: it cannot be followed.
    """
    world = World(situation, Pace.of(situation, choices), replay)
    memory = Memory(world)
    machine = Machine(world, memory, HostSide(world, memory), Signal())
    world.stop_all = machine.host.failed
    world.recording = True
    for index in range(situation.vcpus):
        state = ApfState(
            situation.kernel,
            vcpu_id=situation.vcpu_ids[index] if situation.vcpu_ids else index,
            features=situation.guest.features,
            lapic_in_kernel=situation.guest.lapic_in_kernel,
            hlt_exits=situation.guest.hlt_exits,
        )
        state.flags, state.token = situation.guest.area_words
        steps = tuple(s for s in situation.steps if s.vcpu == index)
        vcpu = Vcpu(
            KvmVcpu(world, memory, state, index, SharedArea.of(situation.guest, index)),
            ProbeVcpu(steps),
            _starter(machine),
            machine.finished,
            partial(_shuts_down, machine, index),
            _initializer(machine),
            peers=machine.host.vcpus,
        )
        machine.host.vcpus.append(vcpu)
        world.engine.spawn(vcpu.run(), world.pace.start_ns(index))
    machine.host.restart = lambda end: _restart(machine, end)
    machine.host.restart_one = lambda index: _restart_one(machine, index, None)
    for number, (at_ns, actions) in sorted(enumerate(situation.timed), key=lambda entry: entry[1][0]):
        seen = replay.timed([(a.do, a.arg) for a in actions], at_ns, number) if replay is not None else None
        world.engine.spawn(machine.host.perform(actions, timed=seen), at_ns if replay is None else 0)
    # What the agent needs for host steps is none of the program's time (harness/agent/guest/guest_wait.py).
    deadline_ns = situation.deadline_ns
    if replay is not None:  # whose end may come before, where KVM_RUN has failed or a host word waited in vain
        end_ns, ended_ns = replay.recorded.end_ns, replay.recorded.ended_ns
        deadline_ns = max(deadline_ns, ended_ns) if ended_ns else min(deadline_ns, end_ns - 1)
    while not machine.stands and world.engine.step(deadline_ns):
        pass
    machine.end_ns, machine.ended = world.engine.now, machine.stands
    # Where a vCPU was still at something when the recording ended, nobody has seen what came of it.  Where all were
    # asleep, nothing came: whoever goes on in the model was forgotten by the kernel.
    cut = replay is not None and not machine.ended and not replay.recorded.asleep
    if replay is not None:
        world.engine.run(max(replay.recorded.end_ns, machine.end_ns) - int(cut))
    if not cut:
        world.engine.run(world.engine.now + situation.settle_ns)
    for vcpu in machine.host.vcpus:
        vcpu.kvm.cut_short()
    uncount_reads_in_flight(memory)
    return machine


@dataclass(slots=True)
class _Barrier:
    """A reset pauses all vCPUs and resumes none before each is reset (runstate.c:main_loop_should_exit, QEMU 7.2).

    ``boot_cpu``: over once vCPU 0 runs again; it starts the others by INIT and SIPI, and waits for each (main.c).
    ``together``: only then it lets them go on, by an interrupt, for which their LAPICs have to be enabled.
    ``turn``: who is reset now, one after another (cpus.c:cpu_synchronize_all_post_reset, run_on_cpu): while one sleeps
    until its workers are through, works of those behind it begin that it has not come to.
    """

    world: World
    missing: int
    signal: Signal = field(default_factory=Signal)
    boot_cpu: Latch = field(default_factory=Latch)
    others: int = 0  # that have not started
    together: bool = True
    turn: int = 0

    def come_to(self, vcpu: int) -> Process:
        """Those before it have been reset."""
        while self.turn < vcpu:
            yield Wait(signals=(self.signal,))

    def start(self, vcpu: int) -> Process:
        """One vCPU runs again; the boot CPU goes on when all do, and mostly the others do, too."""
        self.others -= vcpu > 0
        self.world.engine.fire(self.signal)
        while (vcpu == 0 or self.together) and self.others:
            yield Wait(signals=(self.signal,))

    def wait(self) -> Process:
        """One vCPU is ready; wait for the others."""
        self.missing -= 1
        self.turn += 1
        self.world.engine.fire(self.signal)
        while self.missing:
            yield Wait(signals=(self.signal,))


def _starter(machine: Machine) -> Callable[[Step], Latch]:
    def start(step: Step) -> Latch:
        end = Latch()
        machine.world.engine.spawn(machine.host.perform(step.actions, end, number=step.value))
        return end

    return start


def _initializer(machine: Machine) -> Callable[[int], Latch]:
    def init(index: int) -> Latch:
        begun, replay = Latch(), machine.world.replay
        if replay is None and index in machine.memory.asleep:
            machine.host.vcpus[index].kvm.given_init = partial(_restart_one, machine, index, None, begun=begun)
        elif replay is None:
            _restart_one(machine, index, None, begun=begun)
        else:
            machine.world.engine.spawn(_restart_recorded(machine, replay, index, None, None, begun))
        return begun

    return init


def _restart(machine: Machine, end: Latch) -> None:
    """QMP system_reset: every vCPU's MSRs are zeroed by its own thread, then the guest boots and goes on."""
    together = machine.world.situation.guest.lapic_enabled
    barrier = _Barrier(machine.world, len(machine.host.vcpus), others=len(machine.host.vcpus) - 1, together=together)
    if machine.world.replay is None:
        _boots_anew(machine)
    for n in range(len(machine.host.vcpus)):
        if machine.world.replay is None:
            _restart_one(machine, n, end, barrier)
        else:
            machine.world.engine.spawn(_restart_recorded(machine, machine.world.replay, n, end, barrier))


def _shuts_down(machine: Machine, index: int) -> None:
    """The guest resets the machine, by a triple fault: KVM resets that vCPU itself, while the others run on, and then
    tells the VMM (arch/x86/kvm/svm/svm.c:shutdown_interception)."""
    if machine.world.replay is None:
        machine.world.engine.spawn(_reset_by_guest(machine, index))
    else:
        _restart(machine, Latch(over=True))


def _reset_by_guest(machine: Machine, index: int) -> Process:
    kvm, world = machine.host.vcpus[index].kvm, machine.world
    kvm.stopped = True
    reset(kvm.state, init=True)
    yield from kvm.clear(by_init=True)
    yield Wait(until_ns=world.engine.now + world.pace.vmm_ns())
    _restart(machine, Latch(over=True))


def _boots_anew(machine: Machine) -> None:
    """What a boot of the guest does to KVM's tables.

    A PC's firmware has its memory below 1 MiB unlocked and locked (PAM), for which the VMM deletes memory slots: KVM
    forgets all mappings then (arch/x86/kvm/x86.c:kvm_arch_flush_shadow_memslot, mmu.c:kvm_mmu_zap_all_fast).  And the
    guest zeroes the nested page tables of its L2s before it builds them anew (boot.S, l2.c:l2_build_tables), which are
    write-protected: KVM zaps what shadows them, and what hangs below for L2s alone (mmu.c:kvm_mmu_pte_write,
    kvm_mmu_prepare_zap_page, mmu_page_zap_pte).
    """
    memory = machine.memory
    if machine.world.situation.guest.firmware:
        memory.forget_mappings()
    if memory.l2_npt:
        memory.tables.forget_l2s()
        memory.linked = {link for link in memory.linked if not link[1]}
        if memory.l2_spte is not memory.spte:
            memory.l2_spte.clear()


def _restart_recorded(
    machine: Machine,
    replay: Replay,
    n: int,
    end: Latch | None,
    barrier: _Barrier | None,
    begun: Latch | None = None,
) -> Process:
    """Where a recorded run has it: the vCPU runs on until it is paused, and lives again from its next entry on."""
    mark = replay.ask_for_reset(n)
    if mark is None:
        if barrier is not None and n > 0:  # it starts after the INIT that it sleeps in
            barrier.others -= 1
        return
    yield Wait(until_ns=replay.paused_ns(n, machine.world.engine.now, mark))
    machine.host.vcpus[n].kvm.park()
    yield Wait(until_ns=mark.end_ns - 1)
    replay.next_life(n, mark)
    if barrier is not None and n == 0:
        _boots_anew(machine)
    _restart_one(machine, n, end, barrier, begun)


def _restart_one(
    machine: Machine, n: int, end: Latch | None, barrier: _Barrier | None = None, begun: Latch | None = None
) -> None:
    """The same for one vCPU; also that of a parked fd that is used again (kvm_get_vcpu of QEMU, then a reset), and of
    one that is given an INIT (arch/x86/kvm/lapic.c:kvm_apic_accept_events).  ``begun``: over once it runs."""
    old = machine.host.vcpus[n]
    old.kvm.stopped = True
    machine.world.engine.fire(old.kvm.wake)
    kvm = KvmVcpu(
        machine.world, machine.memory, old.kvm.state, n, old.kvm.area, wake=old.kvm.wake, flushed=old.kvm.flushed
    )
    waits_for_host = old.host_end is not None
    old.probe.lose_tasks()
    old.timer.reset()
    vcpu = Vcpu(kvm, old.probe, old.host, machine.finished, old.reset, old.init, peers=machine.host.vcpus)
    vcpu.host_interrupts = old.host_interrupts
    if barrier is None:  # the guest knows of its timer, as its memory is as it was
        vcpu.timer.period_ns = old.timer.period_ns
    machine.host.vcpus[n] = vcpu
    machine.world.engine.spawn(_reborn(vcpu, end if waits_for_host else None, barrier, begun))


def _reborn(vcpu: Vcpu, end: Latch | None, barrier: _Barrier | None, begun: Latch | None) -> Process:
    state, world = vcpu.kvm.state, vcpu.kvm.world
    if begun is None:
        world.unbounded["MIN_V"] = "QEMU's devices fault in the vCPU threads while firmware boots the guest again"
    if begun is not None:
        init_of_l2(state)
    given_init = barrier is None or vcpu.kvm.index > 0  # the boot CPU of a machine that is reset is given none
    if barrier is not None and world.replay is None:
        yield from barrier.come_to(vcpu.kvm.index)
    reset(state, init=given_init, by_vmm=begun is None)
    yield from vcpu.kvm.clear(by_init=given_init)
    if begun is None and vcpu.kvm.memory.gate is not None:
        vcpu.kvm.memory.gate.begins_anew(vcpu.kvm.index)
    if barrier is not None:
        if world.replay is None:
            yield from barrier.wait()
        while vcpu.kvm.index > 0 and not barrier.boot_cpu.over:
            yield Wait(signals=(barrier.boot_cpu.signal,))
        if state.halted or state.req_halt:
            world.known_faults.append("F1")
            yield from vcpu.kvm.enter()
        barrier.boot_cpu.over = True
        world.engine.fire(barrier.boot_cpu.signal)
        yield from barrier.start(vcpu.kvm.index)
    vcpu.kvm.area.start_anew(state)
    state.req_halt = state.req_ready = state.exception_pending = False
    state.paging = True
    state.lapic_hw, state.lapic_sw = True, False
    if end is not None:
        vcpu.host_end = end
    if begun is not None:
        begun.over = True
        world.engine.fire(begun.signal)
        vcpu.timer.start(vcpu.timer.period_ns)  # cpu.c:apic_enable
    yield from vcpu.run()
