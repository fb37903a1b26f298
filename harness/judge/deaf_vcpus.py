# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads of vCPUs that do not leave KVM_RUN although their VMM waits for that."""

from __future__ import annotations

from harness.contract.plan import GuestKind
from harness.evidence.decode import Evidence
from harness.evidence.signalled import signalled_ns
from harness.model.events import Event, Kind

_UNINTERRUPTIBLE = ord("D")
_RUNS = (Kind.ENTRY, Kind.EXIT, Kind.USER_EXIT, Kind.OUT, Kind.IN, Kind.WAKING, Kind.MM_FAULT, Kind.MM_FAULT_RET)


def deaf_vcpus(evidence: Evidence) -> tuple[str, ...] | None:
    """For what QEMU never comes to an end with it wants each vCPU out of KVM_RUN, and sends its thread a signal (its
    cpus.c:qemu_cpu_kick).  Who sleeps in a halt ends that (virt/kvm/kvm_main.c:
    kvm_vcpu_check_block, signal_pending), who is in the guest leaves it: KVM_RUN comes back with EINTR.  Only a thread
    that sleeps for a page, or for a worker, does not.

    :return: in words, one for each thread that was woken from outside and has run since, and is in KVM_RUN still; None:
        nobody can tell.
    """
    facts = evidence.facts
    if facts is None or not facts.has_mm_fault or evidence.plan.guest.kind is not GuestKind.PROBE or evidence.lost:
        return None
    asked = signalled_ns(evidence.text("progress.jsonl"))
    if asked is None:
        return ()
    vcpus = {tid: vcpu for vcpu, tid in enumerate(facts.vcpu_tids)}
    states = {tid: _Thread() for tid in vcpus}
    for event in evidence.of(*_RUNS):
        if event.kind is Kind.WAKING and event.data in states and event.tid not in states and not event.worker:
            states[event.data].woken |= event.t_ns >= asked
        elif event.tid in states:
            states[event.tid].see(event, asked)
    return tuple(
        f"vCPU {vcpus[tid]} is in KVM_RUN still, although its VMM wants it out and it has run since (trace line"
        f" {state.ran})"
        for tid, state in states.items()
        if state.inside and state.ran and state.woken and not state.sleeps
    )


class _Thread:
    """``inside``: in KVM_RUN; ``sleeps``: for a page, or uninterruptibly; ``ran``: the line behind which it was given
    its first processor since it was woken."""

    __slots__ = ("in_fault", "inside", "out", "ran", "woken")

    def __init__(self) -> None:
        self.inside = self.in_fault = self.woken = False
        self.out = self.ran = 0

    @property
    def sleeps(self) -> bool:
        return self.in_fault or self.out == _UNINTERRUPTIBLE

    def see(self, event: Event, asked: int) -> None:
        match event.kind:
            case Kind.ENTRY | Kind.EXIT:
                self.inside = True
            case Kind.USER_EXIT:
                self.inside = False
            case Kind.MM_FAULT | Kind.MM_FAULT_RET:
                self.in_fault = event.kind is Kind.MM_FAULT
            case Kind.OUT:
                self.out = event.value
            case Kind.IN if event.t_ns >= asked and self.woken and not self.ran:
                self.ran = event.line
            case _:
                pass
