# SPDX-License-Identifier: GPL-2.0-or-later
"""One vCPU's KVM_RUN thread in the simulation: faults, workers, ready events, artificial halts.

virt/kvm/async_pf.c and arch/x86/kvm/{x86.c,mmu/mmu.c} as behaviour.md B.4-B.10 describe them; what is decided is in
harness.model.delivery, what the host's memory does in harness.model.simulate_memory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace

from harness.contract.words import Thread
from harness.model import delivery as d
from harness.model.delivery import ApfState, Setup, Work, WorkState
from harness.model.events import INIT, LOWEST_VECTOR, MSR_ASYNC_PF_EN, WAKE_ALL_TOKEN, Event, Kind
from harness.model.kernels import Variant
from harness.model.outcomes import Outcome
from harness.model.simulation import busy_halts, held_up, l2_halt, lapic_switches
from harness.model.simulation.engine import Process, Signal, Wait
from harness.model.simulation.host_memory import Memory, Resolution
from harness.model.simulation.l2_token import entry_ns, tell
from harness.model.simulation.lost_mapping import may_be_lost
from harness.model.simulation.moving_area import SharedArea, cannot_tell, why_halted
from harness.model.simulation.page_watch import PageWatch
from harness.model.simulation.recorded import RecordedEvent
from harness.model.simulation.situation import Step
from harness.model.simulation.world import Fault, World
from harness.model.walk import gup
from harness.model.walk.steps import End

_EACH_ROUND = ("PF", "TRY", "NP", "NPt", "NPh", "DONE", "RDY", "INJ", "ACC", "ACK", "PF_GUEST", "WAITED", "REP")
_LOOP_AFTER = 8
"""Cycles of token and ready for one access without a mapping after which it is called endless."""
_IN_A_LOOP = (
    "PF", "TRY", "NP", "NPt", "NPh", "REP", "DONE", "RDY", "INJ", "ACC", "ACK", "PF_GUEST", "WAITED",
)  # fmt: skip
"""What has no upper bound then."""
_WAITED = (Outcome.SYNC, Outcome.BLOCK)


@dataclass(slots=True, eq=False)
class KvmVcpu:
    """The host's side of one vCPU.  ``irr``: interrupts that the LAPIC holds; ``kick`` ends guest mode."""

    world: World
    memory: Memory
    state: ApfState
    index: int
    area: SharedArea
    irr: set[int] = field(default_factory=set)
    wake: Signal = field(default_factory=Signal)
    flushed: Signal = field(default_factory=Signal)
    stopped: bool = False
    parked: bool = False  # of no machine: what the VMM does to all vCPUs is not done to it
    error: str = ""  # KVM_RUN failed: the VMM stops
    token: Work | None = None  # its "page not present" waits for injection
    np_mark: RecordedEvent | None = None  # the NP of that, until it is told
    tries: int = 0
    overtaken: RecordedEvent | None = None  # that NP, if a reset comes before it enters with the token
    given_init: Callable[[], None] | None = None  # an INIT that came while the thread slept for a page
    halted_for: int = -1  # the item whose page fault ended in the newest halt
    spins: int = 0
    in_guest: bool = False
    emulated: bool = False  # the last fault was MMIO: the VMM did the access
    unresolved: Step | None = None  # the access whose fault this thread is in
    first: Resolution | None = None  # ... and how its first attempt ended

    # --- a recording
    def reach(
        self, kind: Kind, key: int, what: str, page: int = -1, *, write: bool | None = None
    ) -> Generator[Wait, None, RecordedEvent | None]:
        """Let the time come at which this thread did that, about ``page``; without a recording at once.

        What was not recorded any more happens, if at all, after the recording's end.
        """
        replay, engine = self.world.replay, self.world.engine
        if replay is None:
            return None
        mark = replay.peek(self.index, kind, key)
        if mark is None:
            for_good = self.world.failed or self.index in replay.recorded.unstarted
            yield Wait(until_ns=-1 if for_good else replay.recorded.end_ns)
            return None
        while mark.kind is Kind.CLEAR:  # the vCPU was reset before it came to this
            yield Wait()
        if not mark.fits(kind, key, write=write):
            replay.part(self.index, engine.now, mark, what, page)
        if kind is Kind.RDY and engine.now > mark.start_ns:  # its page was looked at before the work was completed
            late = engine.now - mark.start_ns
            replay.part(self.index, engine.now, mark, f"{what} only {late} ns later", page)
        replay.take(self.index, mark)
        if kind is Kind.RDY and held_up.looked_early(self.world, self.index, page, mark):
            mark = replace(mark, start_ns=max(engine.now, mark.since_ns))
        yield Wait(until_ns=mark.start_ns)
        return mark

    def watch(self, mark: RecordedEvent | None) -> PageWatch | None:
        """The moments of the page fault, or of the look before a ready event, that this mark stands for."""
        replay = self.world.replay
        if replay is None or mark is None:
            return None
        thread = replay.recorded.threads[self.index]
        return PageWatch(mark.start_ns, max(mark.until_ns, mark.end_ns), mark.windows, thread, cut=mark.cut)

    def serves(self) -> bool:
        """KVM_REQ_APF_READY is served at this entry: always, unless the recording shows that it came a little later."""
        replay, s = self.world.replay, self.state
        if replay is None or not s.done or not d.kvm_arch_can_dequeue_async_page_present(s):
            return True
        mark = replay.peek(self.index)
        return mark is None or mark.kind is Kind.RDY

    def _through(self, watch: PageWatch | None) -> Generator[Wait, None, None]:
        """The thread is still in its page fault, so that what comes meanwhile is served at the entry behind it."""
        if watch is not None:
            yield Wait(until_ns=watch.left_ns)

    def _maps(
        self, step: Step, got: Resolution, mark: RecordedEvent | None, watch: PageWatch | None, *, why: str
    ) -> Generator[Wait, None, None]:
        """The end of a fault.  Others may use the mapping before the thread is back in the guest: it may be preempted
        between the two (arch/x86/kvm/mmu/mmu.c:direct_page_fault, arch/x86/kvm/x86.c:vcpu_enter_guest)."""
        may_be_lost(self.world, self.memory, self.index, step.gpa, got, mark, guest_mode=step.nested)
        early = (
            got.end is End.MAPPED and not got.stale and held_up.mapped_early(self.world, self.index, step.gpa, watch)
        )
        if early:
            self._resolved(step, got, why=why)
        yield from self._through(watch)
        if not early:
            self._resolved(step, got, why=why)

    def park(self) -> None:
        """The VMM calls KVM_RUN no more."""
        self.stopped = self.parked = True
        self.world.engine.fire(self.wake)

    # --- faults
    def page_fault(self, step: Step) -> Generator[Wait, None, None]:
        """kvm_page_fault and what follows, up to the return to the run loop."""
        what, gfn = f"a {'write' if step.write else 'read'} fault on {step.gpa:#x}", step.gpa >> 12
        mark = yield from self.reach(Kind.PF, gfn, what, gfn, write=step.write)
        watch = self.watch(mark)
        self.unresolved, self.first = step, None
        yield from self._handled(step, mark, watch)
        self.unresolved = None
        self.memory.followed.through(watch, step.gpa)

    def cut_short(self) -> None:
        """All is over while the thread sleeps in a page fault: what is known of it by now."""
        step, now = self.unresolved, self.memory.asleep.get(self.index)
        if step is None or now is None:
            return
        own = any(part is not None and (part.read_target or part.major) for part in (self.first, now))
        read = any(part is not None and part.read_target for part in (self.first, now))
        fault = Fault(
            Outcome.SYNC if own else Outcome.BLOCK, Thread.V if read else "", 0, "A.8", f"{now.why()} for ever"
        )
        self.world.item(step.index).faults.append(fault)

    def _handled(self, step: Step, mark: RecordedEvent | None, watch: PageWatch | None) -> Generator[Wait, None, None]:
        """direct_page_fault."""
        world, s = self.world, self.state
        self.leave()
        world.emit(Event(Kind.PF, self.index, gpa=step.gpa, value=2 if step.write else 0))
        log = world.item(step.index).faults
        if world.situation.kernel.variant is Variant.SYNC:
            got = yield from self._blocking(step, None, watch)
            yield from self._maps(step, got, mark, watch, why=f"no async page faults; {got.why()}")
            return
        walk = gup.vcpu_attempt(s.kernel, write=step.write, env=self.memory.env)
        first = yield from self.memory.perform(walk, step.gpa, Thread.V, self.index, watch)
        yield from held_up.until_the_end(self.world, watch)
        self.first = first
        if first.end is not End.ASYNC:
            yield from self._maps(step, first, mark, watch, why=first.why())
            return
        how = first.why()
        refused = d.why_not_async(s)
        if not refused:
            world.emit(Event(Kind.TRY, self.index, gpa=step.gpa))
            self.tries += 1
            flags = s.flags
            setup, work = self._setup(step)
            if setup is Setup.REPEATED:
                yield from self.reach(Kind.REP, step.gpa >> 12, f"a repeated fault on {step.gpa:#x}", step.gpa >> 12)
                world.emit(Event(Kind.REP, self.index, gpa=step.gpa))
                world.count("WAITED")
                self.halted_for = step.index
                log.append(Fault(Outcome.REPEATED, "", 0, "D08", "the gfn has live work on this vCPU: halt, no token"))
                return
            if work is not None:
                what = f"the token {work.token:#x} for {step.gpa:#x}"
                told = yield from self.reach(Kind.NP, work.token, what, step.gpa >> 12)
                self.np_mark = told
                self.overtaken = told if told is not None and not told.entered else None
                world.emit(Event(Kind.NP, self.index, token=work.token, gpa=step.gpa))
                if d.kvm_can_deliver_async_pf(s) and not (yield from self.area_access(write=True)):  # put notpresent
                    setup = cannot_tell(s, work, flags)
                self._queued(step, setup, work, first)  # schedule_work comes later
                return
            world.count("FAIL")
            refused = "64 works are queued or no memory for the work"
        got = yield from self._blocking(step, first, watch)
        yield from self._maps(step, got, mark, watch, why=f"{how}; not asynchronous: {refused}; {got.why()}")

    def _setup(self, step: Step) -> tuple[Setup, Work | None]:
        if self.tries - 1 in self.world.situation.failing_setups and step.gpa >> 12 not in self.state.gfns:
            d.alloc_apf_token(self.state)
            return Setup.FAILED, None
        return d.kvm_setup_async_pf(self.state, step.gpa, write=step.write, item=step.index)

    def _queued(self, step: Step, setup: Setup, work: Work, first: Resolution) -> None:
        world = self.world
        world.count("NPt" if setup is Setup.TOKEN else "NPh")
        world.count("WAITED")
        issuer = Thread.V if first.read_target else ""
        self.halted_for = step.index
        outcome, why = Outcome.HALT, f"{why_halted(self.state)}: the vCPU halts"
        if setup is Setup.TOKEN:
            world.count("PF_GUEST")  # x86.c:kvm_inject_page_fault; a reset may still drop what it queued
            self.token = work
            outcome, why = Outcome.TOKEN, "kvm_can_deliver_async_pf: a token"
        fault = Fault(outcome, issuer, work.token, "B.4", f"{first.why()}; {why}")
        item = world.item(step.index)
        item.faults.append(fault)
        item.queued += 1
        if item.queued > _LOOP_AFTER:
            fault.outcome, fault.rule = Outcome.LOOP, "D40"
            for name in _EACH_ROUND:
                world.unbounded[name] = "an access that no GUP can resolve: token and ready for ever (A.9 Q9)"
            if world.replay is None or world.replay.work(self.index, work.token) is None:  # a recording ends
                return
        world.engine.spawn(self._worker(work, fault), world.pace.worker_ns(self.index, work.gpa >> 12))

    def _blocking(
        self, step: Step, first: Resolution | None, watch: PageWatch | None = None
    ) -> Generator[Wait, None, Resolution]:
        own = first is not None and first.read_target
        walk = gup.blocking_attempt(self.state.kernel, write=step.write, env=self.memory.env, own_read=own)
        got = yield from self.memory.perform(walk, step.gpa, Thread.V, self.index, watch)
        yield from held_up.until_the_end(self.world, watch)
        if first is not None and (first.read_target or first.major):
            got.read_target = first.read_target
            if got.end in (End.MAPPED, End.SIGNAL) and (got.waited or first.waited):
                got.outcome = Outcome.SYNC
        if first is not None and got.outcome is Outcome.FAST:  # mapped since its call of handle_mm_fault
            got.outcome = Outcome.MINOR
        return got

    def _resolved(self, step: Step, got: Resolution, *, why: str) -> None:
        if got.end is End.ERROR:
            self.error = f"KVM_RUN fails with errno {got.errno}"
        elif got.end in (End.SIGBUS, End.OOPS):
            self.error = str(got.end)
        if self.error and not self.world.failed:
            self.world.failed = True
            self.world.stop_all()
        self.emulated = got.end is End.EMUL
        self.memory.install(step.gpa, got, guest_mode=step.nested)
        if got.end is End.MAPPED and got.stale:
            why += "; the notifier ran: the fault is stale, RET_PF_RETRY, and the guest faults again"
        if got.outcome in (Outcome.FAST, Outcome.MINOR, *_WAITED):
            self.world.count(got.outcome.name)
            self.world.count("WAITED", int(got.outcome in _WAITED))
        self.world.item(step.index).faults.append(
            Fault(got.outcome, Thread.V if got.read_target else "", 0, "A.8", why)
        )

    # --- workers and ready events
    def area_access(self, *, write: bool) -> Generator[Wait, None, bool]:
        """kvm_{read,write}_guest_offset_cached, in this thread; False: there is nothing to be read or written."""
        return (yield from self.area.access(self.memory, self.state, self.index, write=write))

    def _worker(self, work: Work, fault: Fault) -> Process:
        replay = self.world.replay
        seen = replay.work(self.index, work.token) if replay else None
        if replay is not None:  # one that never began is still to begin when the recording ends, unless it is cancelled
            yield Wait(until_ns=seen.start_ns if seen else replay.recorded.end_ns)
        if work.state is WorkState.DONE or work not in self.state.queue:
            return
        work.state = WorkState.RUNNING
        self.memory.worker_starts(work.gpa)
        walk = gup.worker_attempt(self.state.kernel, env=self.memory.env)
        watch = None
        if seen is not None:
            watch = PageWatch(seen.start_ns, max(seen.completed_ns, seen.start_ns), seen.windows, seen.thread)
        got = yield from self.memory.perform(walk, work.gpa, Thread.W, watch=watch)
        fault.issuer = fault.issuer or (Thread.W if got.read_target else "")
        self.memory.followed.through(watch, work.gpa)
        if replay is not None:
            done = seen.completed_ns if seen else -1
            yield Wait(until_ns=done if done >= 0 else replay.recorded.end_ns)
        elif late := self.world.pace.done_ns(self.index, work.gpa >> 12):
            yield Wait(until_ns=self.world.engine.now + late)
        held_up.asks(self.state, work)
        self.world.emit(Event(Kind.DONE, gpa=work.gpa, hva=self.memory.vpn(work.gpa) << 12, worker=True))
        self.world.engine.fire(self.flushed)
        self.world.engine.fire(self.wake)

    def check_completion(self) -> Generator[Wait, None, None]:
        """kvm_check_async_pf_completion: everything on the done list that can be presented."""
        s, world = self.state, self.world
        if s.done and d.reads_token(s) and not (yield from self.area_access(write=False)):
            return  # apf_pageready_slot_free: no word could be read
        first = True
        while (first or self.serves()) and (work := d.dequeue(s)) is not None:
            first = False
            token = WAKE_ALL_TOKEN if work.wakeup_all else work.token
            mark = yield from self.reach(Kind.RDY, token, f"the ready event of {token:#x}", work.gpa >> 12)
            in_l2 = s.guest_mode if mark is None else mark.guest_mode
            if d.wants_prefetch(s, work, guest_mode=in_l2):
                write = work.write and s.kernel.prefetch_keeps_error_code
                walk = gup.prefetch_attempt(s.kernel, write=write, env=self.memory.env)
                watch = self.watch(mark)
                got = yield from self.memory.perform(walk, work.gpa, Thread.V, self.index, watch)
                self.memory.followed.through(watch, work.gpa)
                may_be_lost(world, self.memory, self.index, work.gpa, got, mark, guest_mode=in_l2)
                got.stale = got.stale or world.pace.prefetch_lost(self.index, work.gpa >> 12)
                self.memory.install(work.gpa, got, guest_mode=in_l2, prefetch=True)
            if mark is not None:
                yield Wait(until_ns=mark.end_ns)
            ready = d.kvm_arch_async_page_present(s, work)
            world.emit(Event(Kind.RDY, self.index, token=ready.token, gpa=ready.gpa))
            world.count("RDY_ALL" if work.wakeup_all else "RDY")
            self.spins = 0
            if ready.irq:
                yield from self.area_access(write=True)  # apf_put_user_ready
                self.raise_irq(s.vec)
        if not first and not self.serves():
            s.req_ready = True  # what is left was put on the list after this look at it

    def raise_irq(self, vector: int) -> None:
        """__apic_accept_irq of a fixed interrupt; one that is pending already is merged."""
        self.world.emit(Event(Kind.ACC, self.index, value=vector))
        self.world.count("ACC")
        self.irr.add(vector)
        self.state.req_event = True

    def timer_tick(self, vector: int) -> None:
        """The LAPIC timer expired; ticks that cannot be taken in time are one (lapic_timer.pending)."""
        if self.state.lapic_hw and self.state.lapic_sw:
            self.irr.add(vector)
            self.state.req_event = True
            self.world.engine.fire(self.wake)

    def deliverable(self) -> int:
        """The pending interrupt that the guest can be given now, highest vector first; 0: none."""
        usable = [v for v in self.irr if v >= LOWEST_VECTOR]
        allowed = d.interrupt_allowed(self.state) if self.state.guest_mode else self.state.interrupts
        if not usable or not allowed or not lapic_switches.gives_interrupts(self.state):
            return 0
        return max(usable)

    # --- the run loop
    def enter(self) -> Generator[Wait, None, None]:
        """vcpu_run up to kvm_entry: stops, halts, requests, injection."""
        s, world = self.state, self.world
        self.leave()
        if world.replay is None:
            yield Wait(until_ns=world.engine.now + world.pace.exit_ns(self.index))
        blocked = False
        while True:
            while self.stopped or self.error:
                yield Wait(signals=(self.wake,))
            if self.overtaken is not None and (
                yield from held_up.until_reset(world, s, self.index, self.overtaken, self.wake)
            ):
                continue
            if s.halted or s.hlt:
                yield from self._block()
                blocked = True
                continue
            if s.req_halt:
                s.req_halt = False
                s.halted = True
                continue
            stopped = world.replay.stopped_ns(self.index, world.engine.now) if world.replay is not None else -1
            if stopped >= 0:
                yield Wait(until_ns=stopped + 1)
                continue
            if s.req_ready and (blocked or self.serves()):
                s.req_ready = False
                yield from self.check_completion()
                continue
            if self.given_init is not None:
                self.given_init()
                continue
            if (
                (s.exception_vmexit or s.exception_pending)
                and self.np_mark is not None
                and (until := entry_ns(self.world, self.index, self.np_mark))
            ):
                yield Wait(until_ns=until, signals=(self.wake,))
                continue
            break
        if s.exception_vmexit:
            self.token = tell(self.world, s, self.index, self.token, self.np_mark)
        elif s.exception_pending:
            yield from held_up.injected(world, s, self.index)
        self.np_mark = None
        if s.nmi_pending:  # the handler goes back to where it came: there the next one is injected
            world.count("NMI", min(s.nmi_pending, d.NMIS_AT_ONCE))
            s.nmi_pending = 0
        world.emit(Event(Kind.ENTRY, self.index))
        self.in_guest = True

    def leave(self) -> None:
        """kvm_exit, if the vCPU is in guest mode."""
        if self.in_guest:
            self.world.emit(Event(Kind.EXIT, self.index))
        self.in_guest = False

    def _block(self) -> Generator[Wait, None, None]:
        """vcpu_block: asleep until something makes the vCPU runnable."""
        s, world = self.state, self.world
        polled, slept = s.halted and s.kernel.halt_polls, False
        yield from l2_halt.look(self)
        while not d.kvm_vcpu_has_events(s, irq=self.deliverable() > 0) and not self.stopped:
            if not slept:
                world.emit(Event(Kind.OUT, self.index, value=ord("S")))
            slept = True
            yield from held_up.until_listed(world, s, self.index, self.wake)
            yield from l2_halt.look(self)
        if slept:
            yield from held_up.let_run(world, self.index, self.wake, lambda: self.stopped)
            world.emit(Event(Kind.IN, self.index))
        left = world.replay.stopped_ns(self.index, world.engine.now) if world.replay is not None else -1
        if left >= 0:  # what woke the model's vCPU came when its thread had left KVM_RUN
            yield Wait(until_ns=left + 1)
        if self.stopped:
            return  # -EINTR: apf.halted and the mp_state stay as they are
        if polled or s.hlt:
            world.emit(Event(Kind.WAKEUP, self.index))
        if s.done and not (s.req_ready or s.exception_pending or self.deliverable()):
            self.spins += 1
            yield from busy_halts.goes_round(self)
        s.halted = False
        s.hlt = False

    def clear(
        self,
        *,
        by_paging: bool = False,
        by_msr: bool = False,
        destroyed: bool = False,
        by_init: bool = False,
        mark: RecordedEvent | None = None,
    ) -> Generator[Wait, None, None]:
        """kvm_clear_async_pf_completion_queue in this thread: sleeps until the running workers have finished."""
        if self.world.replay is not None:
            # A worker that ran before the write was over had begun when it was cancelled; so has, where the end of the
            # write is not recorded, one that ran at all: what cancel_work_sync takes from the queue never runs.
            for work in self.state.queue:
                seen = self.world.replay.work(self.index, work.token)
                began = seen is not None and (mark is None or seen.start_ns <= mark.end_ns)
                if work.state is WorkState.QUEUED and began:
                    work.state = WorkState.RUNNING
        slept = False
        while d.begin_clear(self.state) is not None:
            if not slept:
                self.world.emit(Event(Kind.OUT, self.index, value=ord("D")))  # flush_work: wait_for_completion
            slept = True
            self.world.deaf.add(self.index)
            yield Wait(signals=(self.flushed,))
        if slept:
            self.world.deaf.discard(self.index)
            self.world.engine.fire(self.world.changed)
            self.world.emit(Event(Kind.IN, self.index))
        d.end_clear(self.state, vm_destroyed=destroyed)
        if not by_msr:
            self.world.emit(Event(Kind.CLEAR, self.index, value=INIT if by_init else 0, flag=by_paging))

    def write_msr(self, msr: int, value: int, *, area_ok: bool = True) -> Generator[Wait, None, bool]:
        """A guest's or the VMM's MSR write; False: it got a general protection fault."""
        mark = yield from self.reach(Kind.WRMSR, msr, f"a write of MSR {msr:#x}")
        self.leave()
        if msr == MSR_ASYNC_PF_EN and d.kvm_pv_async_pf_enabled(value):
            yield from held_up.until_written(self.world, self.state, self.index, mark)
        result = d.write_msr(self.state, msr, value, area_ok=area_ok)
        if msr == MSR_ASYNC_PF_EN and not result.gp and d.kvm_pv_async_pf_enabled(value):
            self.area.move(self.state, value)
        if result.clear:
            yield from self.clear(by_msr=True, mark=mark)
        if result.check:
            self.world.count("ACK")
            if not self.state.done:
                yield from held_up.until_looked(self.world, self.index, mark)
            yield from self.check_completion()
        if mark is not None:
            yield Wait(until_ns=mark.end_ns)
        # kvm_emulate_wrmsr traces the write when it is done: after RDYs of an ACK, after the wait of a clear.
        self.world.emit(Event(Kind.WRMSR, self.index, value=msr, data=value, flag=result.gp))
        self.world.count("GP", int(result.gp))
        if msr == MSR_ASYNC_PF_EN and not result.gp:
            self.spins = 0
        return not result.gp
