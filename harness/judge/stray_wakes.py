# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads of vCPUs that a worker has woken although they do not sleep for it."""

from __future__ import annotations

from harness.contract.plan import GuestKind, SwapKind
from harness.evidence.decode import Evidence
from harness.evidence.ram_page import ram_page
from harness.model.events import Event, Kind


def stray_wakes(evidence: Evidence) -> tuple[str, ...] | None:
    """What a worker wakes its vCPU by (virt/kvm/async_pf.c:async_pf_execute: kvm_vcpu_kick, then __kvm_vcpu_wake_up)
    wakes a thread that sleeps in vcpu_block, and no other: it leaves vcpu->wait when it is through with that (virt/kvm/
    kvm_main.c:kvm_vcpu_block, finish_rcuwait).  One that sleeps in handle_mm_fault while its page's read is not
    answered has nobody else who would wake it.

    :return: in words, one for each such wake-up; None: nobody can tell, as there is no gated device, no probe, or no
        plan that names the pages.
    """
    plan, facts = evidence.plan, evidence.facts
    if evidence.gate is None or facts is None or not facts.has_mm_fault or "apf/work_end" not in facts.trace_events:
        return None
    if plan.guest.kind is not GuestKind.PROBE or plan.swap.kind is SwapKind.USERFAULT:
        return None
    reads: dict[int, list[tuple[int, int]]] = {}
    for read in evidence.gate.reads:
        for page in read.pages:
            reads.setdefault(page, []).append((read.at_ns, read.answered_ns))
    first = ram_page(evidence.of(Kind.DONE, Kind.PF, Kind.MM_FAULT, Kind.ENTRY))
    inside: dict[int, Event] = {}
    at_work: set[int] = set()
    found: list[str] = []
    for event in evidence.of(Kind.MM_FAULT, Kind.MM_FAULT_RET, Kind.WORK, Kind.WORK_END, Kind.WAKING):
        match event.kind:
            case Kind.MM_FAULT:
                inside[event.tid] = event
            case Kind.MM_FAULT_RET:
                inside.pop(event.tid, None)
            case Kind.WORK:
                at_work.add(event.tid)
            case Kind.WORK_END:
                at_work.discard(event.tid)
            case _ if event.tid in at_work and (call := inside.get(event.data)) is not None:
                gfn = (call.hva >> 12) - first
                if any(at <= event.t_ns < answered for at, answered in reads.get(gfn, ())):
                    found.append(
                        f"a worker wakes vCPU {event.value}, which sleeps in handle_mm_fault for page {gfn:#x}, whose"
                        f" read is not answered (trace line {event.line})"
                    )
    return tuple(found)
