# SPDX-License-Identifier: GPL-2.0-or-later
"""A vCPU thread, or a worker, of a recorded run that lost its processor inside KVM, between two of its events."""

from __future__ import annotations

from collections.abc import Callable, Generator

from harness.model.delivery import ApfState, Work, WorkState, complete
from harness.model.events import Event, Kind
from harness.model.simulation.engine import Signal, Wait
from harness.model.simulation.page_watch import PageWatch
from harness.model.simulation.recorded import RecordedEvent
from harness.model.simulation.world import World


def wanted_by_others(world: World, vcpu: int, page: int) -> bool:
    """Whether another vCPU touches the guest page of this number."""
    return any(s.vcpu != vcpu and s.gpa >> 12 == page for s in world.situation.steps)


def until_the_end(world: World, watch: PageWatch | None) -> Generator[Wait, None, None]:
    """What a look at a page leads to is not seen where the recording ended before."""
    if world.replay is not None and watch is not None and watch.at_the_end:
        yield Wait(until_ns=world.replay.recorded.end_ns)


def injected(world: World, state: ApfState, vcpu: int) -> Generator[Wait, None, None]:
    """A #PF is injected, which is not seen where the recording ends behind its kvm_async_pf_not_present."""
    recorded = world.replay.recorded if world.replay is not None else None
    if recorded is not None and not recorded.ended_ns and recorded.last and recorded.last[vcpu] <= world.engine.now:
        yield Wait(until_ns=recorded.end_ns)
    state.exception_pending = False
    world.emit(Event(Kind.INJ, vcpu))


def looked_early(world: World, vcpu: int, page: int, mark: RecordedEvent) -> bool:
    """Whether kvm_arch_async_page_ready mapped the page well before its event ``mark``: where it called nobody, it
    may have done so at any time since the thread's event before; open where another vCPU that wants it ran then."""
    replay = world.replay
    if replay is None or mark.windows or not replay.others_run(vcpu, mark.since_ns, mark.start_ns):
        return False
    if not wanted_by_others(world, vcpu, page):
        return False
    return replay.choices.ask(2, f"whether {page:#x} was mapped well before its ready event", page) == 1


def until_looked(world: World, vcpu: int, mark: RecordedEvent | None) -> Generator[Wait, None, None]:
    """An acknowledgement, the write of an MSR ``mark``, looks at the done list between its exit and its line: where a
    ready event stands between them and nothing was done at the exit, the thread was held up until something was."""
    following = world.replay.peek(vcpu) if world.replay and mark else None
    if following is None or mark is None or following.kind is not Kind.RDY:
        return
    if following.end_ns <= mark.end_ns:
        yield Wait(until_ns=following.start_ns)


def until_written(world: World, state: ApfState, vcpu: int, mark: RecordedEvent | None) -> Generator[Wait, None, None]:
    """A write of EN ``mark`` looks at the done list between its exit and its line, too (kvm_async_pf_wakeup_all, which
    queues nothing where there is something): before or behind what was completed meanwhile."""
    if world.replay is None or mark is None or state.done:
        return
    runs = (world.replay.work(vcpu, work.token) for work in state.queue)
    completed = sorted(run.completed_ns + 1 for run in runs if run is not None)
    now = world.engine.now
    moments = [now, *(t for t in completed if now < t <= mark.end_ns)]
    yield Wait(until_ns=world.replay.choices.moment(moments, "when EN was written", -1))


def let_run(world: World, vcpu: int, wake: Signal, stopped: Callable[[], bool]) -> Generator[Wait, None, None]:
    """A vCPU's thread that was woken waits for a processor; a recording says itself when it had one.

    ``stopped``: whether a signal of the VMM's has ended this sleep; what the thread does next is another process's in
    the model then, such as a new life of the vCPU's.
    """
    until = world.engine.now + (world.pace.wake_ns(vcpu) if world.replay is None and not stopped() else 0)
    while world.engine.now < until and not stopped():
        yield Wait(until_ns=until, signals=(wake,))


def until_listed(world: World, state: ApfState, vcpu: int, wake: Signal) -> Generator[Wait, None, None]:
    """A halt, until something wakes the vCPU, or is on its done list without a word: async_pf_execute
    (virt/kvm/async_pf.c, 5.10 to 7.3) puts its work there before it asks for KVM_REQ_APF_READY.  A worker that is held
    up between the two, its page's fault over and its DONE not traced, shows by the vCPU's next fault behind the halt.
    """
    mark = world.replay.peek(vcpu) if world.replay is not None and state.halted else None
    found: tuple[int, Work] | None = None
    if world.replay is not None and mark is not None and mark.kind is Kind.PF:
        for work in state.queue if not state.done else ():
            run = world.replay.work(vcpu, work.token)
            if run is None:
                continue
            back_ns = run.windows[-1].end_ns if run.windows else run.start_ns
            at_ns = max(world.engine.now, back_ns, mark.since_ns)
            if at_ns <= mark.start_ns < run.completed_ns and (found is None or at_ns < found[0]):
                found = at_ns, work
    yield Wait(until_ns=found[0] if found else -1, signals=(wake,))
    if found and not state.done and found[1].state is WorkState.RUNNING and world.engine.now >= found[0]:
        found[1].state = WorkState.DONE
        state.done.append(found[1])


def asks(state: ApfState, work: Work) -> None:
    """The worker is through with its work, which may be on the done list by now; a clear has taken it from there."""
    if work.state is not WorkState.DONE:
        complete(state, work)
    elif work in state.done:
        state.req_ready = True


def until_reset(
    world: World, state: ApfState, vcpu: int, np: RecordedEvent, wake: Signal
) -> Generator[Wait, None, bool]:
    """The thread of ``np`` leaves KVM_RUN for a reset before it enters: a token that is queued is dropped, a halt that
    is requested is not (F1).  False: a page is ready before that.

    A thread that has not slept may have left before it came to vcpu_enter_guest, so that KVM_REQ_APF_HALT is pending:
    unlike apf.halted an INIT does not clear that (kvm_vcpu_reset).  The token may be injected for an entry which a
    signal prevents (kvm_vcpu_exit_request).
    """
    following, until_ns = world.replay.peek(vcpu) if world.replay is not None else None, -1
    if following is not None and following.kind is Kind.RDY:
        if state.done:
            return False
        until_ns = following.start_ns if following.start_ns > world.engine.now else -1
    elif np.injected and state.exception_pending:
        state.exception_pending = False
        world.emit(Event(Kind.INJ, vcpu))
    elif state.req_halt and world.replay is not None:
        why = f"whether vCPU {vcpu} had come to its halt"
        if np.slept or world.replay.choices.ask(2, why) == 1:
            state.req_halt, state.halted = False, True
    yield Wait(until_ns=until_ns, signals=(wake,))
    return True


def mapped_early(world: World, vcpu: int, gpa: int, watch: PageWatch | None) -> bool:
    """Whether a fault's page was mapped well before the entry; open where another vCPU that wants it ran meanwhile."""
    replay = world.replay
    if replay is None or watch is None or not replay.others_run(vcpu, watch.start_ns, watch.left_ns):
        return False
    if not wanted_by_others(world, vcpu, gpa >> 12):
        return False
    return replay.choices.ask(2, f"whether {gpa:#x} was mapped well before the entry", gpa >> 12) == 1
