# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host does not count: page faults of the VMM's memory, and pages that come from swap."""

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


def uncounted_pages(evidence: Evidence) -> tuple[str, ...] | None:
    """A page of the swap cache is one of a file's to the host (NR_FILE_PAGES) as long as it is there: it is counted
    when it comes and when it leaves (mm/swap_state.c:add_to_swap_cache, __delete_from_swap_cache; of 7.3
    __swap_cache_alloc).

    :return: in words; None: nobody can tell, also where others use the machine, whose pages come and go while its
        counters are read.
    """
    lacking = evidence.counters.get("FILE_LACKING")
    if lacking is None or evidence.facts is None or not evidence.facts.has.emulated:
        return None
    return (f"the host has {lacking} pages of files or of its swap cache that it does not count",) if lacking else ()
