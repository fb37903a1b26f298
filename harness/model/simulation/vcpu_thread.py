# SPDX-License-Identifier: GPL-2.0-or-later
"""One vCPU as a process: the probe guest's program over KVM's run loop (simulate_kvm.py)."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import NoReturn

from harness.contract.probe_abi import VEC_TIMER
from harness.contract.words import Op
from harness.model import delivery as d
from harness.model.events import (
    MSR_ASYNC_PF_ACK,
    MSR_ASYNC_PF_EN,
    MSR_ASYNC_PF_INT,
    WAKE_ALL_TOKEN,
    Event,
    Kind,
)
from harness.model.simulation import l2_halt, l2_run, lapic_switches
from harness.model.simulation.accesses import clears_late, deliver, faults_later, mapped_by_another, unmapped_before
from harness.model.simulation.engine import Latch, Process, Signal, Wait
from harness.model.simulation.kicked import ejected
from harness.model.simulation.kvm_vcpu import KvmVcpu
from harness.model.simulation.lapic_timer import LapicTimer
from harness.model.simulation.probe_vcpu import ProbeVcpu, Task
from harness.model.simulation.recorded import RecordedEvent
from harness.model.simulation.replay import BOOT, INTERRUPTS
from harness.model.simulation.situation import ModelStep, Step
from harness.model.simulation.turns import come_past, waits_for

RESCHEDULE_VECTOR = 0xFD  # arch/x86/include/asm/irq_vectors.h: tells a CPU that a task came to it
AREA_ITEM = -1  # log index of the accesses that the guest makes to its shared area


@dataclass(slots=True, eq=False)
class Vcpu:
    """Guest and host side of one vCPU.  ``host``: called for a HOST item, returns what says that it is over.

    ``reset``: of the machine, asked for by the guest; ``init``: of another vCPU, over when that runs again.
    """

    kvm: KvmVcpu
    probe: ProbeVcpu
    host: Callable[[Step], Latch]
    finished: Signal
    reset: Callable[[], None] = lambda: None
    init: Callable[[int], Latch] = lambda _: Latch(over=True)
    ready_vectors: set[int] = field(default_factory=lambda: {0xF3})
    timer: LapicTimer = field(init=False)
    peers: list[Vcpu] = field(default_factory=list)
    host_end: Latch | None = None  # the HOST item that the guest waits in ends with this
    host_interrupts: bool = True  # its IF
    idle: bool = False  # it can do nothing but take interrupts
    in_timer: bool = False  # in the handler that never returns
    ended: bool = False

    def __post_init__(self) -> None:
        self.timer = LapicTimer(self.kvm)

    # --- the guest's program
    def run(self) -> Process:
        """The whole life of the vCPU from the moment the guest is let go."""
        yield from self._boot()
        while True:
            yield from () if self.probe.keeps_off else self._window()
            come_past(self)
            task = self.probe.resume()
            if task is not None:
                yield from self._log("wake", task.step.index)
                yield from self._touch(task)
                continue
            step = self.probe.next_step()
            if step is None:
                if self.probe.finished:
                    break
                yield from self._idle()
            elif self.probe.pauses_first(step):
                self.probe.paused = step.index
                yield from self._pause(step.pause_ns)
            elif (other := waits_for(self, step)) is not None:
                self._mode(cpl=0, interrupts=True)
                yield from self._wait_until(-1, other)
            else:
                if step.kind is not Op.WAIT:  # that has no record
                    yield from self._log("start", step.index)
                task = self.probe.start(step)
                yield from self._touch(task) if step.kind is Op.TOUCH else self._perform(task)
        self.ended = True
        self._mode(cpl=0, interrupts=False)
        self.kvm.world.engine.fire(self.finished)
        yield from self._halt_for_ever()

    def _boot(self) -> Process:
        """ops.c:apf_setup: INT, then EN, then the APIC if it was off."""
        s, start = self.kvm.state, self.kvm.world.situation.guest
        self._mode(cpl=0, interrupts=False)
        s.lapic_sw = start.lapic_enabled
        if start.vector:
            self.ready_vectors.add(start.vector)
            yield from self._wrmsr(MSR_ASYNC_PF_INT, start.vector)
        if start.en_flags:
            yield from self._wrmsr(MSR_ASYNC_PF_EN, start.en_flags, area_ok=start.area_ok)
        if not start.lapic_enabled:
            yield from self._lapic(1)
        yield from self._exit()
        if self.host_end:  # the machine was reset while the guest waited in a HOST item
            yield from self._host_wait(self.host_end, interrupts=self.host_interrupts)
            yield from self._log("end")
            self.host_end = None

    # --- guest mode
    def _mode(self, *, cpl: int, interrupts: bool, shadow: bool = False) -> None:
        s = self.kvm.state
        s.cpl, s.interrupts, s.shadow = cpl, interrupts, shadow

    def _exit(self) -> Generator[Wait, None, None]:
        """One exit and the way back into the guest."""
        yield from self.kvm.enter()

    def _window(self) -> Generator[Wait, None, None]:
        """sti; cli: requests of KVM are served and interrupts taken."""
        self._mode(cpl=0, interrupts=True)
        yield from self._settle()
        come_past(self)
        yield from self._logged()
        self._mode(cpl=0, interrupts=False)

    def _logged(self) -> Generator[Wait, None, None]:
        """Of a recorded run: wait for the interrupts that the guest's log has before anything else it did."""
        kvm = self.kvm
        replay = kvm.world.replay
        while replay is not None and replay.logged(kvm.index) in INTERRUPTS:
            mark = replay.peek(kvm.index)
            if mark is None or mark.kind not in (Kind.RDY, Kind.VIRQ):
                return
            yield from self._until(mark)
            if replay.peek(kvm.index) is mark:
                return

    def _until(self, mark: RecordedEvent) -> Generator[Wait, None, None]:
        """Let the time of the thread's next event come.  A ready event is begun as soon as the vCPU is told of it: its
        page may be mapped long before its line."""
        kvm = self.kvm
        replay, engine = kvm.world.replay, kvm.world.engine
        signals = (kvm.wake,) if mark.kind is Kind.RDY else ()
        while True:
            yield Wait(until_ns=mark.start_ns, signals=signals)
            yield from self._settle()
            if engine.now >= mark.start_ns or replay is None or replay.peek(kvm.index) is not mark:
                return

    def _comes_first(self, kind: Kind, key: int, *, write: bool | None = None) -> Generator[Wait, None, bool]:
        """Whether a recorded run had something else before the guest did this; it has happened then."""
        kvm = self.kvm
        replay = kvm.world.replay
        mark = replay.peek(kvm.index, kind, key) if replay else None
        if replay is None or mark is None or mark.fits(kind, key, write=write):
            return False
        yield from self._until(mark)
        return replay.peek(kvm.index, kind, key) is not mark

    def _settle(self) -> Generator[Wait, None, None]:
        """Serve everything that ends guest mode now, and take the interrupts that can be taken."""
        s = self.kvm.state
        while True:
            ready = s.req_ready and self.kvm.serves()
            if ready or s.req_halt or s.halted or s.nmi_pending or self.kvm.stopped or self.kvm.error:
                yield from self._exit()
                continue
            vector = self.kvm.deliverable()
            if not vector or not self._takes(vector):
                return
            l2s = l2_run.interrupt_exits(self.kvm)
            yield from self._exit_of_l2(l2_run.intr_vmexit) if l2s else self._interrupt(vector)

    def _exit_of_l2(self, leave: Callable[[KvmVcpu], None]) -> Generator[Wait, None, None]:
        """L1 has its L2 back for an interrupt, reads its area's words, opens a window and runs L2 on (l2.c:l2_run)."""
        s = self.kvm.state
        before = s.cpl, s.interrupts
        leave(self.kvm)
        yield from self._touch_area(write=False)
        yield from self._window()
        self._mode(cpl=before[0], interrupts=before[1])
        s.guest_mode = True
        self.kvm.world.emit(Event(Kind.L2_ENTRY, self.kvm.index))

    def _takes(self, vector: int) -> bool:
        """The interrupt is taken here, and not in a later window of the guest that the recording shows."""
        replay = self.kvm.world.replay
        mark = replay.peek(self.kvm.index) if replay else None
        if replay is None or mark is None:
            return True
        word = replay.logged(self.kvm.index)
        if self.idle:
            # At once, but for one that was accepted in another's handler, or that it took when it had left its idling.
            return word != "idle" and (mark.fits(Kind.VIRQ, vector) or mark.start_ns <= self.kvm.world.engine.now)
        begun = mark.fits(Kind.VIRQ, vector) or l2_run.intr_vmexit_is_next(self.kvm)
        return begun and word in ("", BOOT, *INTERRUPTS)  # BOOT: before its handler had logged

    def _interrupt(self, vector: int) -> Generator[Wait, None, None]:
        """The handler, IF=0; what it interrupted goes on afterwards."""
        s, start = self.kvm.state, self.kvm.world.situation.guest
        before = s.cpl, s.interrupts
        yield from self.kvm.reach(Kind.VIRQ, vector, f"the interrupt {vector:#x}")
        self.kvm.irr.discard(vector)  # until now one more of the same vector is the same interrupt
        yield from deliver(self.kvm, self.probe.gates)
        self._mode(cpl=0, interrupts=False)
        self.kvm.leave()
        yield from self._log("irq" if vector == VEC_TIMER else "ready")
        self.kvm.world.emit(Event(Kind.VIRQ, self.kvm.index, value=vector))
        yield from self._exit()
        if vector in self.ready_vectors:
            yield from self._touch_area(write=False)
            self.probe.ready(s.token)
            for first in (True, False):
                if start.zero_token and not first:
                    yield from self._touch_area(write=True)
                    yield from clears_late(self.kvm, self._wait_until, acked=start.ack and not start.ack_first)
                    s.token = 0
                if start.ack and start.ack_first is first:
                    yield from self._wrmsr(MSR_ASYNC_PF_ACK, 1, reads_back=False)
        elif vector == VEC_TIMER and start.timer_never_returns and not self.in_timer:
            self.in_timer = True
            while True:
                yield from self._idle()
        self._mode(cpl=before[0], interrupts=before[1])

    def _log(self, word: str, number: int = -1) -> Generator[Wait, None, None]:
        """The guest has come to what it writes down with this word; not if a recorded run was reset before."""
        replay = self.kvm.world.replay
        if replay is not None and not replay.log(self.kvm.index, word, number):
            yield from self._till_death()

    def _till_death(self) -> Generator[Wait, None, NoReturn]:
        """A recorded run was reset before it came to what is next: the next life has a process of its own."""
        self._mode(cpl=0, interrupts=True)
        while True:
            yield from self._wait_until(-1)

    def _wait_until(self, until_ns: int, *signals: Signal) -> Generator[Wait, None, bool]:
        """The guest loops without exits until a time or a signal; False: something else ended guest mode."""
        replay, now = self.kvm.world.replay, self.kvm.world.engine.now
        mark, wake_ns = replay.peek(self.kvm.index) if replay else None, until_ns
        if mark is not None and mark.kind in (Kind.RDY, Kind.VIRQ) and mark.start_ns > now:
            wake_ns = mark.start_ns if until_ns < 0 else min(until_ns, mark.start_ns)
        yield Wait(until_ns=wake_ns, signals=(self.kvm.wake, *signals))
        yield from self._settle()
        return 0 <= until_ns <= self.kvm.world.engine.now

    def _pause(self, length_ns: int, *, interrupts: bool = True) -> Generator[Wait, None, None]:
        until = self.kvm.world.engine.now + length_ns
        self._mode(cpl=0, interrupts=interrupts)
        yield from self._settle()
        if (replay := self.kvm.world.replay) is not None:
            yield from self._logged()
            while until > replay.recorded.end_ns and not replay.logged(self.kvm.index):  # it was not over then
                yield from self._wait_until(-1)
            until = self.kvm.world.engine.now  # how long it was is the guest's matter; what came meanwhile is recorded
        while self.kvm.world.engine.now < until:
            yield from self._wait_until(until)
        self._mode(cpl=0, interrupts=False)

    def _idle(self) -> Generator[Wait, None, None]:
        """sched.c:idle: HLT with IF=1, or a loop, until an item is runnable."""
        self.idle = True
        replay = self.kvm.world.replay
        if not self.in_timer:
            yield from self._log("idle")
        while not self.probe.runnable:
            self._mode(cpl=0, interrupts=True)
            if replay is not None:
                replay.only_interrupts(self.kvm.index, self.kvm.world.engine.now)
            if self.kvm.world.situation.guest.idle == "hlt" and self.kvm.state.hlt_exits:
                yield from self._settle()
                if self.probe.runnable:
                    break
                mark = replay.peek(self.kvm.index) if replay and self.kvm.deliverable() else None
                if replay and mark is not None:  # pending, and not taken yet
                    if mark.start_ns <= self.kvm.world.engine.now:
                        replay.part(self.kvm.index, self.kvm.world.engine.now, mark, "an interrupt of an idle guest")
                    yield Wait(until_ns=mark.start_ns, signals=(self.kvm.wake,))  # or it is reset before
                    continue
                self.kvm.state.hlt = True
                yield from self._exit()
                yield from self._settle()
            else:
                yield from self._settle()
                if not self.probe.runnable:
                    yield from self._wait_until(-1)
        yield from self._logged()  # what came between HLT and CLI
        self.idle = False
        if not self.in_timer:
            yield from self._log("idle")
        self._mode(cpl=0, interrupts=False)

    def _halt_for_ever(self) -> Process:
        """cli; hlt: ready events are still consumed, interrupts stay pending."""
        while True:
            self.kvm.state.hlt = True
            yield from self._exit()

    # --- items
    def _touch(self, task: Task) -> Generator[Wait, None, None]:
        """Run the access until it retires or gets a token."""
        kvm, step = self.kvm, task.step
        s = kvm.state
        if step.no_paging and d.set_paging(s, False):
            yield from kvm.clear(by_paging=True)
        self._mode(cpl=0 if step.no_paging else step.cpl, interrupts=step.interrupts or step.shadow, shadow=step.shadow)
        s.l2 = step.l2
        while True:
            l2_run.vmrun(kvm, step)
            if not step.shadow or kvm.world.item(step.index).faults:
                yield from self._settle()
            if (yield from l2_run.executes_nothing(kvm)):
                continue
            if l2_run.window_ends_l2(kvm):  # l2.c:l2_run: sti; cli
                yield from self._exit_of_l2(l2_run.leave_for_window)
                continue
            if kvm.memory.mapped(step.gpa, write=step.write, guest_mode=step.nested):
                if (mark := faults_later(kvm, step)) is not None:
                    yield from unmapped_before(kvm, step, mark, self._until)
                    continue
                yield from self._logged()  # interrupts that came with the entry behind the fault are taken first
                break
            if (yield from mapped_by_another(kvm, step)):
                continue
            if (yield from self._comes_first(Kind.PF, step.gpa >> 12, write=step.write)) or l2_run.is_kept_out(kvm):
                continue
            s.event_injected = step.in_delivery
            yield from kvm.page_fault(step)
            s.event_injected = False
            yield from kvm.enter()
            if kvm.emulated:
                kvm.emulated = False
                break
            if l2_halt.left(kvm, nested=step.nested):
                self._mode(cpl=step.cpl, interrupts=step.interrupts)
                yield from self._exit_of_l2(lambda _: None)
                continue
            if l2_run.given_to_l2(kvm, step):
                yield from self._l2_fault(step)
                continue
            if kvm.token is not None:
                token, kvm.token = kvm.token.token, None
                if (behind := self.probe.behind(task)) is not None:
                    yield from deliver(kvm, behind)
                yield from self._log("token", token)
                yield from self._touch_area(write=False)
                yield from self._touch_area(write=True)
                s.flags = 0
                self.probe.put_aside(task, token)
                s.guest_mode = False
                if behind is not None:  # sched.c:begin_context
                    yield from self._log("start", behind.index)
                    yield from self._ends(self.probe.start(behind))
                if not step.no_paging:
                    self._mode(cpl=0, interrupts=False)
                    return
                while task.token:
                    yield from self._await_token(task)
                self._mode(cpl=0, interrupts=step.interrupts)
        if l2_run.vmexit(kvm, step):
            yield from self._touch_area(write=False)
        self._mode(cpl=0, interrupts=False)
        yield from self._ends(task)
        if step.no_paging:
            if d.set_paging(s, True):
                yield from kvm.clear(by_paging=True)
            yield from self._exit()

    def _ends(self, task: Task) -> Generator[Wait, None, None]:
        yield from self._log("end", task.step.index)
        task.ended = self.kvm.world.item(task.step.index).ended = True

    def _l2_fault(self, step: Step) -> Generator[Wait, None, None]:
        """L2's handler finds L1's flags word set and says VMMCALL; L1 makes its L2 begin the access again (l2.c)."""
        yield from self._touch_area(write=False, nested=True)
        l2_run.vmexit(self.kvm, step)
        yield from self._touch_area(write=False)
        self._mode(cpl=step.cpl, interrupts=step.interrupts)

    def _touch_area(self, *, write: bool, nested: bool = False) -> Generator[Wait, None, None]:
        """The guest's own access to its shared area, with IF=0: a fault if nothing maps it (yet, or any more)."""
        gpa = self.kvm.area.page
        if not gpa:
            return
        self._mode(cpl=0, interrupts=False)
        while not self.kvm.memory.mapped(gpa, write=write, guest_mode=nested) and not self.kvm.error:
            if (yield from self._comes_first(Kind.PF, gpa >> 12, write=write)):
                continue  # a page that was ready before the entry behind its token, say
            step = Step(AREA_ITEM, Op.TOUCH, gpa=gpa, write=write, cpl=0, interrupts=False, nested=nested)
            yield from self.kvm.page_fault(step)
            yield from self._exit()

    def _await_token(self, task: Task) -> Generator[Wait, None, None]:
        """trap32.c:await_ready: with paging off the handler itself waits."""
        self._mode(cpl=0, interrupts=True)
        self.kvm.state.hlt = True
        yield from self._exit()
        yield from self._settle()
        if not task.token and task in self.probe.runnable:
            self.probe.runnable.remove(task)

    def _perform(self, task: Task) -> Generator[Wait, None, None]:
        """The ops that end where they start (ops.c:perform), with IF=0 except where they say otherwise."""
        kvm, step = self.kvm, task.step
        s, world = kvm.state, kvm.world
        if step.kind is Op.WRMSR:
            good = yield from self._wrmsr(step.msr, step.value, area_ok=step.area_ok)
            world.item(step.index).gp = not good
        elif step.kind is Op.LAPIC:
            yield from self._lapic(step.value)
        elif step.kind is Op.PAGING:
            if d.set_paging(s, False):
                yield from kvm.clear(by_paging=True)
            # trap32.c:job32: with interrupts on, sti and cli, whatever there is to do between.
            yield from self._pause(0 if step.value else step.pause_ns, interrupts=step.interrupts)
            if d.set_paging(s, True):
                yield from kvm.clear(by_paging=True)
            yield from self._exit()
        elif step.kind is Op.TIMER:
            self.timer.start(step.value * 1000)
        elif step.kind is Op.PAGE_FAULT:  # trap.c: its handler looks at the flags
            yield from self._touch_area(write=False)
        elif step.kind is Op.CLEAR_TOKEN:
            yield from clears_late(kvm, self._wait_until)
            yield from self._touch_area(write=True)
            s.token = 0
        elif step.kind is Op.PAUSE:
            yield from self._pause(step.pause_ns, interrupts=step.interrupts)
        elif step.kind is ModelStep.OFFLINE:
            yield from self._wrmsr(MSR_ASYNC_PF_EN, 0)
            peer = self.peers[step.value]
            peer.probe.adopt(self.probe.give_away())
            peer.kvm.timer_tick(RESCHEDULE_VECTOR)
        elif step.kind is Op.HOST:
            yield from self._host_wait(self.host(step), interrupts=step.interrupts)
        elif step.kind is Op.EJECT:
            yield from ejected(kvm, self.peers[step.value].kvm, self._until)
        elif step.kind is Op.INIT:  # cpu.c:vcpu_start: a loop until the other vCPU has begun anew
            yield from self._exit()
            begun = self.init(step.value)
            while not begun.over:
                yield from self._wait_until(-1, begun.signal)
        elif step.kind is Op.RESET:
            task.ended = world.item(step.index).ended = True
            yield Wait(until_ns=world.replay.shutdown_ns(self.kvm.index, world.engine.now) if world.replay else 0)
            self.reset()
            yield from self._exit()  # the VMM stops all vCPUs, and starts them anew
        if step.kind is not Op.WAIT:
            yield from self._log("end", step.index)
        self.host_end = None  # not before: a reset may come though the agent is done, and the next life ends the step
        task.ended = world.item(step.index).ended = True

    def _host_wait(self, end: Latch, *, interrupts: bool) -> Generator[Wait, None, None]:
        """ops.c:host_wait: a loop until the agent hands back."""
        self.host_end, self.host_interrupts = end, interrupts
        self._mode(cpl=0, interrupts=interrupts)
        yield from self._settle()
        while not end.over:
            yield from self._wait_until(-1, end.signal)
        if interrupts:
            yield from self._logged()  # what came before the guest saw that the agent was done
        self._mode(cpl=0, interrupts=False)

    def _wrmsr(
        self, msr: int, value: int, *, area_ok: bool = True, reads_back: bool = True
    ) -> Generator[Wait, None, bool]:
        """ops.c:write_msr; a guest that disables EN wakes its own waiting items, as Linux does.

        ``reads_back``: the program's writes are read back; those of the ready interrupt's handler are not.
        """
        while (yield from self._comes_first(Kind.WRMSR, msr)):
            pass
        good = yield from self.kvm.write_msr(msr, value, area_ok=area_ok)
        if reads_back and not d.can_read_msr(self.kvm.state, msr):
            self.kvm.world.count("GP")
        if msr == MSR_ASYNC_PF_INT and good and value & 0xFF >= 32:
            self.ready_vectors.add(value & 0xFF)
        if msr == MSR_ASYNC_PF_EN and good and not d.kvm_pv_async_pf_enabled(value):
            self.probe.ready(WAKE_ALL_TOKEN)
        yield from self._exit()
        return good

    def _lapic(self, value: int) -> Generator[Wait, None, None]:
        """cpu.c:apic_enable, apic_base (lapic_switches.py); the LVT timer is masked while SPIV bit 8 is clear."""
        on = bool(value & 1)
        for write in lapic_switches.writes(value, x2apic=self.kvm.world.situation.guest.x2apic):
            while write.traced and (yield from self._comes_first(Kind.WRMSR, write.msr)):
                pass
            if write.traced:
                yield from self.kvm.reach(Kind.WRMSR, write.msr, write.about)
            self.kvm.leave()
            if write.traced:
                self.kvm.world.emit(Event(Kind.WRMSR, self.kvm.index, value=write.msr, data=write.data))
            write.effect(self.kvm.state, on)
            yield from self._exit()
