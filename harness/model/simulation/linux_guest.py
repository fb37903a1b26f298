# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be said of a Linux guest beforehand: whether it enables async page faults, and what can then be seen.

arch/x86/kernel/kvm.c of 5.10 to 6.12 (behaviour.md C).  Which of its own pages such a guest touches, and where it is
interrupted, nobody knows: those counts are ranges that start at what must happen; the protocol rules bind them.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.model.kernels import KernelModel, Variant
from harness.model.outcomes import UNBOUNDED, Count
from harness.model.simulation.situation import Prediction
from harness.model.simulation.world import TOTALS

_APF = ("TRY", "NP", "NPt", "NPh", "REP", "FAIL", "DONE", "RDY", "INJ", "PF_GUEST")
_TOKENS = ("NPt", "INJ", "PF_GUEST")
_OWN = "a Linux guest's own text and data are missing too"


@dataclass(frozen=True, slots=True)
class LinuxGuest:
    """A Linux guest.  ``enables``: it is offered kvm-asyncpf-int and not booted with no-kvmapf."""

    vcpus: int = 1
    enables: bool = True
    lapic_in_kernel: bool = True
    hlt_exits: bool = True
    swaps: bool = False  # its memory is swapped out and touched again
    anonymous: bool = True
    synchronous_device: bool = False
    page_cluster: int = 3
    pages: int = 0


def why_never_async(guest: LinuxGuest, kernel: KernelModel) -> str:
    """Why no fault of this guest can become asynchronous; empty if some can."""
    if not guest.swaps:
        return "nothing is swapped out"
    if kernel.variant is Variant.SYNC:
        return "the kernel has no async page faults"
    if not guest.lapic_in_kernel:
        return "the local APIC is not in the kernel (B.5)"
    if kernel.variant is Variant.NOIO and (guest.anonymous or kernel.shmem_minor_hook):
        return ""
    if guest.synchronous_device:
        return "the swap device is synchronous (A.8 row 11)"
    if not guest.anonymous:
        return "shmem takes the page lock whatever the fault flags say (A.7)"
    if kernel.do_poll and guest.page_cluster == 0 and guest.vcpus == 1:
        return "single-page windows are read synchronously (A.5)"
    return ""


def predict_linux(guest: LinuxGuest, kernel: KernelModel) -> Prediction:
    """The totals of a Linux guest from its boot to the end of its workload."""
    open_end = Count(0, UNBOUNDED, _OWN)
    totals = dict.fromkeys(TOTALS, open_end)
    wake_alls = guest.vcpus if guest.enables else 0
    never = why_never_async(guest, kernel)
    none = Count(0, 0, never)
    some = Count(1, UNBOUNDED, _OWN)
    totals["RDY_ALL"] = Count.exactly(wake_alls)
    if never:
        totals.update(dict.fromkeys(_APF, none))
        totals["ACC"] = totals["ACK"] = Count.exactly(wake_alls)
    else:
        for name in ("TRY", "NP", "DONE", "RDY"):
            totals[name] = some
        tokens = open_end if guest.enables else Count(0, 0, "EN is never written: can_deliver is false (B.5)")
        totals.update(dict.fromkeys(_TOKENS, tokens))
        if not guest.enables:
            totals["NPh"] = some
            totals["ACC"] = totals["ACK"] = Count.exactly(0)
        else:
            totals["ACC"] = totals["ACK"] = Count(wake_alls, UNBOUNDED, "one for each token besides the wake-alls")
    if not guest.hlt_exits:
        totals["NPh"] = Count(0, 0, "HLT exits are disabled: no artificial halt without delivery")
    return Prediction(kernel=kernel.name, items=(), totals=totals, events=(), notes=(never,) if never else ())
