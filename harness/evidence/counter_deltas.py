# SPDX-License-Identifier: GPL-2.0-or-later
"""counters/before.json and after.json -> what moved while the guest's program ran.

Names of the totals are those of the prediction (model/simulate.py).  What a kernel does not have is absent, never 0:
a kernel without VM_EVENT_COUNTERS has no pswpin, 5.10 has no pf_taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.errors import CaptureDamaged

_VMSTAT = {
    "PGMAJ_HOST": "pgmajfault",
    "PSWPIN": "pswpin",
    "RA": "swap_ra",
    "RAH": "swap_ra_hit",
    "SWPIN_ZERO": "swpin_zero",
}
_MEMCG = {"PGMAJ": "pgmajfault"}
_KVM = {
    "PF_GUEST": "pf_guest",
    "PF_TAKEN": "pf_taken",
    "PF_FIXED": "pf_fixed",
    "PF_SPURIOUS": "pf_spurious",
    "PF_EMULATE": "pf_emulate",
    "HALT_EXITS": "halt_exits",
    "HALT_ATTEMPTED_POLL": "halt_attempted_poll",
}


def deltas(before: Mapping[str, Any], after: Mapping[str, Any], vcpu_tids: Iterable[int]) -> dict[str, int]:
    """Total name -> how far it moved; MAJ_V and MIN_V are summed over the vCPU threads.

    :raise CaptureDamaged: a vCPU thread is missing, or a counter went backwards.
    """
    found: dict[str, int] = {}
    for section, names in (("vmstat", _VMSTAT), ("memory_stat", _MEMCG), ("kvm", _KVM)):
        old, new = before.get(section) or {}, after.get(section) or {}
        for total, name in names.items():
            if name in old and name in new:
                found[total] = int(new[name]) - int(old[name])
    for total, name in (("MAJ_V", "maj_flt"), ("MIN_V", "min_flt")):
        found[total] = 0
        for tid in vcpu_tids:
            try:
                found[total] += int(after["threads"][str(tid)][name]) - int(before["threads"][str(tid)][name])
            except KeyError:
                raise CaptureDamaged(f"counters: the vCPU thread {tid} has no {name}") from None
    backwards = [name for name, delta in found.items() if delta < 0]
    if backwards:
        raise CaptureDamaged(f"counters: went backwards: {', '.join(sorted(backwards))}")
    return found
