# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls of handle_mm_fault for the VMM's memory that its cgroup does not count as page faults."""

from __future__ import annotations

from harness.evidence.decode import Evidence
from harness.model.events import Kind
from harness.model.kernels import KernelModel
from harness.model.walk.flags import VmFault


def uncounted_faults(evidence: Evidence, kernel: KernelModel) -> tuple[str, ...] | None:
    """Each call counts PGFAULT for the cgroup of the mm, whoever makes it and whatever it comes back with, but for one
    that is to be repeated, which newer kernels leave to the repetition (mm/memory.c:handle_mm_fault, mm_account_fault).
    The VMM's other threads have faults that no trace shows: there may be more.

    :return: in words; None: nobody can tell.
    """
    counted = evidence.counters.get("PGFAULT")
    if evidence.facts is None or not evidence.facts.has_mm_fault or kernel.memcg_events_batched or counted is None:
        return None
    calls = sum(
        1
        for event in evidence.of(Kind.MM_FAULT_RET)
        if (event.worker or event.vcpu >= 0) and not event.value & VmFault.RETRY
    )
    return (
        (f"{calls} calls of handle_mm_fault were made, and {counted} faults were counted",) if counted < calls else ()
    )
