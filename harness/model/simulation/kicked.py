# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals that the VMM sends to vCPU threads (QEMU: qemu_cpu_kick), and what sleeps they end.

A thread that waits for a page in KVM_RUN wakes for one only where its wait is interruptible: from 6.2 on in
handle_userfault (virt/kvm/kvm_main.c:hva_to_pfn_slow passes FOLL_INTERRUPTIBLE).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from harness.contract.words import HostWord
from harness.model.events import Kind
from harness.model.simulation.engine import Wait
from harness.model.simulation.page_watch import PageWatch

if TYPE_CHECKING:
    from harness.model.simulation.host_memory import Memory
    from harness.model.simulation.kvm_vcpu import KvmVcpu
    from harness.model.simulation.recorded import RecordedEvent
    from harness.model.simulation.replay import Replay

INTERRUPTIBLE = "S"


def told(memory: Memory) -> bool:
    """Whether the running thread is a vCPU's that the VMM has told to leave KVM_RUN."""
    vcpu, world = memory.running, memory.world
    if world.replay is not None:
        return vcpu >= 0 and memory.followed.told()
    return vcpu >= 0 and (world.stopped or vcpu in world.told)


def interrupted_ns(memory: Memory, watch: PageWatch | None, state: str) -> int:
    """When a signal ended the sleep of the thread in its recorded call of handle_mm_fault, its last for this fault; -1:
    none did."""
    replay, window = memory.world.replay, watch.window if watch is not None else None
    if replay is None or watch is None or window is None or state != INTERRUPTIBLE or watch.calls_again:
        return -1
    return window.end_ns if window.retried and replay.tells(memory.running, window.end_ns, watch.left_ns) else -1


def interrupted(memory: Memory, vcpu: int, state: str, until_ns: int) -> bool:
    """Whether a signal has ended the sleep of that vCPU's thread; ``until_ns``: as interrupted_ns."""
    world = memory.world
    if world.replay is not None:
        return 0 <= until_ns <= world.engine.now
    return state == INTERRUPTIBLE and vcpu >= 0 and (world.stopped or vcpu in world.told)


def left_ns(replay: Replay, vcpu: int, now_ns: int, *, nmi: bool = False) -> int:
    """When the vCPU's thread left KVM_RUN for the agent's action that is under way; now, if it did not.

    Another action at the same time gets it out as well.  For an NMI it is the last time before the guest's handler was
    over, as far as the processor tells that (arch/x86/kvm/svm/svm.c:svm_inject_nmi intercepts IRET).
    """
    actions = (a for a in replay.recorded.host if a.start_ns <= now_ns <= a.end_ns and a.do is not HostWord.SLEEP)
    until_ns = max((a.end_ns for a in actions), default=-1)
    exits = [t for t in replay.recorded.exits[vcpu] if now_ns <= t <= until_ns]
    taken_ns = next((t for t in replay.recorded.irets[vcpu] if t >= now_ns), -1) if nmi else -1
    return next(iter([t for t in exits if t < taken_ns][-1:] or exits), now_ns)


def out_of_kvm_run(memory: Memory, vcpu: int) -> Generator[Wait, None, None]:
    """The VMM has the vCPU's thread do something, or ends it, and waits for that (QEMU: run_on_cpu, cpu_remove_sync):
    a thread that waits for a page does it after that."""
    world = memory.world
    if vcpu in memory.asleep:
        world.told.add(vcpu)
        world.engine.fire(world.signal)
    while vcpu in memory.asleep or vcpu in world.deaf:
        yield Wait(signals=(world.changed,))
    world.told.discard(vcpu)


def ejected(
    kvm: KvmVcpu, peer: KvmVcpu, until: Callable[[RecordedEvent], Generator[Wait, None, None]]
) -> Generator[Wait, None, None]:
    """The vCPU has the hotplug controller take another out, whose thread leaves KVM_RUN for the last time then.

    It writes three times to the controller (ops.c:eject), and each write leaves KVM_RUN: behind the first two the vCPU
    may be told of its pages (arch/x86/kvm/x86.c:vcpu_enter_guest) before it waits for the other.

    :param until: lets the time of the vCPU's next event come.
    """
    replay, now = kvm.world.replay, kvm.world.engine.now
    gone = replay.end_of_life(peer.index) if replay is not None else None
    if replay is None:
        yield from kvm.enter()
        yield from kvm.enter()
    elif gone is not None:  # it comes back
        paused_ns = replay.paused_ns(peer.index, now, gone)
        while (mark := replay.peek(kvm.index)) is not None and mark.kind is Kind.RDY and mark.start_ns < paused_ns:
            yield from until(mark)
            if replay.peek(kvm.index) is mark:
                break
        yield Wait(until_ns=paused_ns)
    peer.park()
    if gone is None:  # not recorded: it may have waited for ever
        yield from out_of_kvm_run(peer.memory, peer.index)
