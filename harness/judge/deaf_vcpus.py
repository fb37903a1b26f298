# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads of vCPUs that do not leave KVM_RUN although their VMM waits for that."""

from __future__ import annotations

from collections.abc import Iterator

from harness.contract.plan import GuestKind
from harness.evidence.agent_steps import signalled_ns
from harness.evidence.decode import Evidence
from harness.model.events import Event, Kind

_INTERRUPTIBLE = ord("S")


def deaf_vcpus(evidence: Evidence) -> tuple[str, ...] | None:
    """For what QEMU never comes to an end with it wants each vCPU out of KVM_RUN, and sends its thread a signal (its
    cpus.c:qemu_cpu_kick).  Who is in a halt looks for one when it is about to sleep, and ends the halt (virt/kvm/
    kvm_main.c:kvm_vcpu_check_block, signal_pending), and one that comes later wakes it.  Who goes to sleep
    interruptibly with a signal pending all the same stays runnable (kernel/sched/core.c:__schedule,
    signal_pending_state): it is traced as asleep where another gets its processor, and runs again though nobody has
    woken it.  In handle_mm_fault that is in order (fs/userfaultfd.c:handle_userfault): the signal is looked for behind
    it.

    :return: in words, one for each vCPU that does so; None: nobody can tell.
    """
    facts = evidence.facts
    if facts is None or not facts.has_mm_fault or evidence.plan.guest.kind is not GuestKind.PROBE or evidence.lost:
        return None
    asked = signalled_ns(evidence.steps)
    if asked is None or not evidence.has(Kind.WAKING):
        return ()
    return tuple(
        f"vCPU {vcpu} goes to sleep in KVM_RUN with a signal pending, and its VMM wants it out (trace line {line})"
        for vcpu, tid in enumerate(facts.vcpu_tids)
        for line in list(_unwoken(evidence.events, tid, asked))[:1]
    )


def _unwoken(events: tuple[Event, ...], tid: int, asked: int) -> Iterator[int]:
    """Lines with which the thread falls asleep in KVM_RUN, and nobody wakes it before it runs again."""
    inside = in_fault = False
    slept = did = woken = 0
    for event in events:
        if event.kind is Kind.WAKING:
            woken = event.line if event.data == tid else woken
            continue
        if event.tid != tid:
            continue
        match event.kind:
            case Kind.ENTRY | Kind.EXIT:
                inside = True
            case Kind.USER_EXIT:
                inside = False
            case Kind.MM_FAULT | Kind.MM_FAULT_RET:
                in_fault = event.kind is Kind.MM_FAULT
            case Kind.OUT:
                asleep = inside and not in_fault and event.value == _INTERRUPTIBLE and event.t_ns >= asked
                slept = event.line if asleep else 0
            case Kind.IN if slept and woken <= did:
                yield slept
            case _:
                pass
        if event.kind not in (Kind.OUT, Kind.ACC):
            did = event.line
