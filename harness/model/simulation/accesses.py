# SPDX-License-Identifier: GPL-2.0-or-later
"""When a vCPU of a recorded run made an access of which no event tells, because its page was mapped."""

from __future__ import annotations

from collections.abc import Callable, Generator

from harness.model.events import Kind
from harness.model.simulation.engine import Wait
from harness.model.simulation.kvm_vcpu import KvmVcpu
from harness.model.simulation.recorded import RecordedEvent
from harness.model.simulation.situation import Step


def mapped_by_another(kvm: KvmVcpu, step: Step) -> Generator[Wait, None, bool]:
    """This access did not fault, and its page is not mapped: another vCPU maps it before it is made."""
    replay, gfn = kvm.world.replay, step.gpa >> 12
    mark = replay.peek(kvm.index, Kind.PF, gfn) if replay else None
    if replay is None or (mark is not None and _is_its_fault(kvm, step, mark)):
        return False
    until = replay.recorded.end_ns if mark is None else mark.start_ns
    while kvm.world.engine.now < until and not kvm.memory.mapped(step.gpa, write=step.write, guest_mode=step.nested):
        yield Wait(until_ns=until, signals=(kvm.memory.mapping,))
    return kvm.memory.mapped(step.gpa, write=step.write, guest_mode=step.nested)


def _is_its_fault(kvm: KvmVcpu, step: Step, mark: RecordedEvent) -> bool:
    """Whether what the vCPU has next is the fault of this access.

    One for the same page may be that of a later access: this one was made when another vCPU, which faulted for the page
    as well, had mapped it, and before it was taken away again.
    """
    replay, gfn = kvm.world.replay, step.gpa >> 12
    if replay is None or not mark.fits(Kind.PF, gfn, write=step.write):
        return False
    own = (s for s in kvm.world.situation.steps if s.vcpu == kvm.index and s.index != step.index)
    others = (m for v, marks in enumerate(replay.recorded.marks) if v != kvm.index for m in marks)
    again = any(s.gpa >> 12 == gfn for s in own)
    if not again or not any(m.kind is Kind.PF and m.key == gfn and m.start_ns < mark.start_ns for m in others):
        return True
    return replay.choices.ask(2, f"whether another vCPU had mapped {gfn:#x} when it was used", gfn) == 0


def faults_later(kvm: KvmVcpu, step: Step) -> RecordedEvent | None:
    """The page is mapped, but what the guest was seen to do next of its own is a fault of just this access: it did not
    come to it while the mapping was there, as its thread was preempted, or stopped.  None: it did, and the fault is
    that of a later access.
    """
    world = kvm.world
    mark = world.replay.next_of_guest(kvm.index) if world.replay is not None else None
    if world.replay is None or mark is None or mark.start_ns <= world.engine.now:
        return None
    if not mark.fits(Kind.PF, step.gpa >> 12, write=step.write):
        return None
    why = f"whether {step.gpa >> 12:#x} was used before it was taken away"
    return mark if world.replay.choices.ask(2, why, step.gpa >> 12) == 1 else None


def unmapped_before(
    kvm: KvmVcpu, step: Step, mark: RecordedEvent, until: Callable[[RecordedEvent], Generator[Wait, None, None]]
) -> Generator[Wait, None, None]:
    """Let the time come at which the page of this access is no longer mapped, for ``mark`` is its fault.

    :param until: lets the time of an event of this vCPU come.
    :raise Diverged: it is mapped all the time.
    """
    replay, engine = kvm.world.replay, kvm.world.engine
    while replay is not None and kvm.memory.mapped(step.gpa, write=step.write, guest_mode=step.nested):
        found = replay.peek(kvm.index) or mark
        if found is mark and engine.now >= mark.start_ns:
            replay.part(kvm.index, engine.now, mark, "its page mapped", mark.key)
        yield from until(found)
        if replay.peek(kvm.index) is found and found is not mark:  # the VMM, or KVM, has to come to it
            if engine.now >= found.end_ns:
                replay.part(kvm.index, engine.now, found, "nothing that was told to it", mark.key)
            yield Wait(until_ns=found.end_ns, signals=(kvm.wake,))


def clears_late(
    kvm: KvmVcpu, loop_until: Callable[[int], Generator[Wait, None, bool]], *, acked: bool = False
) -> Generator[Wait, None, None]:
    """Let the time come at which the guest clears its token word, of which no event tells: before or behind a work that
    was completed up to its next event, for which KVM looks at the word once (arch/x86/kvm/x86.c:
    kvm_check_async_pf_completion).

    :param loop_until: the guest loops up to a time.
    :param acked: an ACK comes behind it, which has KVM look again.
    """
    replay, engine = kvm.world.replay, kvm.world.engine
    if replay is None or not kvm.state.token or acked:
        return
    mark = replay.peek(kvm.index)
    until, works = replay.recorded.end_ns if mark is None else mark.start_ns, replay.recorded.works.items()
    done = sorted(run.completed_ns for (v, _), run in works if v == kvm.index and engine.now < run.completed_ns < until)
    moments = [engine.now, *(t + 1 for t in done)]
    chosen = replay.choices.moment(moments, f"when vCPU {kvm.index} cleared its token word", -1)
    while engine.now < chosen:
        yield from loop_until(chosen)


def deliver(kvm: KvmVcpu, step: Step | None) -> Generator[Wait, None, None]:
    """The processor delivers the event that KVM has injected, and needs this page for it, if any: while the page is
    missing the vCPU is where it was, and the event is injected once more behind each fault (arch/x86/kvm/svm/svm.c:
    svm_complete_interrupts, arch/x86/kvm/vmx/vmx.c:vmx_complete_interrupts)."""
    while step is not None and not kvm.memory.mapped(step.gpa, write=step.write) and not kvm.error:
        if (yield from mapped_by_another(kvm, step)):
            return
        kvm.state.event_injected = True
        yield from kvm.page_fault(step)
        kvm.state.event_injected = False
        yield from kvm.enter()
