# SPDX-License-Identifier: GPL-2.0-or-later
"""counters/before.json and after.json -> what moved while the guest's program ran.

Names of the totals are those of the prediction (model/simulate.py).  What a kernel does not have is absent, never 0:
a kernel without VM_EVENT_COUNTERS has no pswpin, 5.10 has no pf_taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.contract.capture import CounterSnapshot
from harness.errors import CaptureDamaged

_VMSTAT = {
    "PGMAJ_HOST": "pgmajfault",
    "PSWPIN": "pswpin",
    "RA": "swap_ra",
    "RAH": "swap_ra_hit",
    "SWPIN_ZERO": "swpin_zero",
}
_MEMCG = {"PGMAJ": "pgmajfault", "PGFAULT": "pgfault", "REFAULT": "workingset_refault_anon"}
_FILE_LISTS = ("nr_active_file", "nr_inactive_file", "nr_isolated_file", "nr_shmem", "nr_swapcached")
_KVM = {
    "PF_GUEST": "pf_guest",
    "PF_TAKEN": "pf_taken",
    "PF_FIXED": "pf_fixed",
    "PF_SPURIOUS": "pf_spurious",
    "PF_EMULATE": "pf_emulate",
    "HALT_EXITS": "halt_exits",
    "HALT_ATTEMPTED_POLL": "halt_attempted_poll",
}


def deltas(
    before: CounterSnapshot,
    after: CounterSnapshot,
    vcpu_tids: Iterable[int],
    later_tids: Iterable[tuple[int, int]] = (),
) -> dict[str, int]:
    """Total name -> how far it moved; MAJ_V and MIN_V are summed over the vCPU threads, and absent where one of them
    has ended meanwhile (``later_tids``: another came for its vCPU), because its counters went with it.

    :raise CaptureDamaged: a vCPU thread is missing, or a counter went backwards.
    """
    found: dict[str, int] = {}
    for old, new, names in (
        (before.vmstat, after.vmstat, _VMSTAT),
        (before.memory_stat, after.memory_stat, _MEMCG),
        (before.kvm, after.kvm, _KVM),
    ):
        for total, name in names.items():
            if name in old and name in new:
                found[total] = new[name] - old[name]
    if "PGMAJ_HOST" in found and before.other_majors is not None and after.other_majors is not None:
        others = after.other_majors[1] - before.other_majors[0]
        if others >= 0:  # else one has ended whose parent ignores SIGCHLD: its faults are counted for nobody
            found["PGMAJ_REST"] = max(0, found["PGMAJ_HOST"] - others)
    lacking = [file_pages_lacking(snapshot.vmstat) for snapshot in (before, after)]
    if lacking[0] is not None and lacking[1] is not None:
        found["FILE_LACKING"] = max(0, lacking[1] - lacking[0])
    gone = any(True for _ in later_tids)
    if not gone:
        found["MAJ_V"] = found["MIN_V"] = 0
    for tid in () if gone else vcpu_tids:
        if tid not in before.threads or tid not in after.threads:
            raise CaptureDamaged(f"counters: the vCPU thread {tid} is missing")
        found["MAJ_V"] += after.threads[tid].maj_flt - before.threads[tid].maj_flt
        found["MIN_V"] += after.threads[tid].min_flt - before.threads[tid].min_flt
    backwards = [name for name, delta in found.items() if delta < 0]
    if backwards:
        raise CaptureDamaged(f"counters: went backwards: {', '.join(sorted(backwards))}")
    return found


def file_pages_lacking(vmstat: Mapping[str, int]) -> int | None:
    """How many pages the host has on its lists of files' pages, as shared memory and in its swap cache that it does not
    count as pages of files (nr_file_pages, which has all of these); 0: none.

    What is in a CPU's batch for a list is counted, and on none: there may be more.  A page that MADV_FREE gives up is
    anonymous, and is on a list of files (mm/swap.c:lru_lazyfree).

    :return: None: the kernel does not count its swap cache (before 5.12), or somebody has had such pages.
    """
    if vmstat.get("pglazyfree", 0) or not vmstat.keys() >= {"nr_file_pages", *_FILE_LISTS}:
        return None
    return max(0, sum(vmstat[name] for name in _FILE_LISTS) - vmstat["nr_file_pages"])


def anon_growth(before: CounterSnapshot, after: CounterSnapshot) -> int | None:
    """How many anonymous pages QEMU has more; None where they were not counted."""
    if before.anon_pages is None or after.anon_pages is None:
        return None
    return after.anon_pages - before.anon_pages
