# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be said of a Linux guest beforehand: whether it enables async page faults, and what can then be seen.

arch/x86/kernel/kvm.c of 5.10 to 6.12 (behaviour.md C).  Which of its own pages such a guest touches, and where it is
interrupted, nobody knows: those counts are ranges that start at what must happen; the protocol rules bind them.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.model.kernels import KernelModel, Variant
from harness.model.outcomes import UNBOUNDED, Count
from harness.model.readahead import MAX_VMA_ORDER, PMD_PAGES
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
    rotational: bool = False
    pages: int = 0  # that the workload touches again
    resident_pages: int = 0  # of the VM's, after everything was swapped out (precondition.json)
    runs_l2: bool = False  # an L2 of it touches the workload's pages, at CPL 3
    vmexit_offered: bool = False  # KVM_FEATURE_ASYNC_PF_VMEXIT: it asks for its L2's tokens (kvm_guest_cpu_init)
    traced_from_boot: bool = True  # False: the trace begins when the guest has booted and was swapped out

    @property
    def missing(self) -> int:
        """So many pages of the workload are surely on the swap device when it touches them."""
        return max(0, self.pages - self.resident_pages) if self.swaps else 0

    def slots_are_freed(self, kernel: KernelModel) -> bool:
        """Whether another vCPU may free the slot that one has found on a synchronous device, whose count is not 1 then
        (mm/memory.c:do_swap_page): that one reads ahead, and others find the neighbours locked in the swap cache for a
        moment.  From 7.0 on every read of such a device goes through the swap cache.
        """
        raced = self.synchronous_device and self.anonymous and self.vcpus > 1 and kernel.variant is Variant.NOWAIT
        return raced and (self.page_cluster > 0 or kernel.sync_swapin_shared)

    def window(self, kernel: KernelModel) -> int:
        """No swap-in brings more pages than this (mm/swap_state.c:__swapin_nr_pages; SWP_SYNCHRONOUS_IO: one, but 6.12
        may swap in a large folio of up to 2 MiB: mm/memory.c:alloc_swap_folio)."""
        if self.synchronous_device and self.anonymous:
            alone = PMD_PAGES if kernel.large_folio_swapin else 1
            return max(alone, self.vcpus << self.page_cluster if self.slots_are_freed(kernel) else 1)
        order = self.page_cluster if self.rotational or not self.anonymous else min(self.page_cluster, MAX_VMA_ORDER)
        return 1 << order


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


def _swapped_in(guest: LinuxGuest, kernel: KernelModel, never: str) -> dict[str, Count]:
    """What must at least happen for the workload's pages to come back: each is unmapped for the guest, so each is a
    fault; each is read once; and each read-ahead window has a first touch, which somebody waits for."""
    missing = guest.missing
    if not missing:
        return {}
    waits = -(-missing // guest.window(kernel))
    text = f"{missing} pages of the workload are swapped out"
    each, windows = Count(missing, UNBOUNDED, text), Count(waits, UNBOUNDED, f"{text}, no read brings more than "
                                                           f"{guest.window(kernel)}")  # fmt: skip
    found = {"PF": each, "PSWPIN": each, "PGMAJ": windows, "WAITED": windows}
    if never:
        found["MAJ_V"] = found["SYNC"] = windows
    else:
        found["ASYNC"] = windows  # at CPL 3 nothing else stands in the way
    return found


_PANICS = "the guest panics, or its L2 dies, at the first token of the L2"


def _lost_to_l2(guest: LinuxGuest, kernel: KernelModel) -> str:
    """The finding by which this guest is not told of its L2's tokens; empty if it is told, or never meant to be.

    The next page fault in its kernel finds flags = 1 (exc_page_fault: __kvm_handle_async_pf panics).  With F4 its L2 is
    given a #PF first.
    """
    if not (guest.runs_l2 and guest.enables and guest.vmexit_offered):
        return ""
    if kernel.needs_pf_intercept:
        return "F4"
    return "F2" if kernel.vmexit_needs_request else ""


def predict_linux(guest: LinuxGuest, kernel: KernelModel) -> Prediction:
    """The totals of a Linux guest from its boot, or from the moment it was swapped out, to the end of its workload."""
    open_end = Count(0, UNBOUNDED, _OWN)
    totals = dict.fromkeys(TOTALS, open_end)
    wake_alls = guest.vcpus if guest.enables and guest.traced_from_boot else 0
    never = why_never_async(guest, kernel)
    perhaps = guest.slots_are_freed(kernel)
    none = Count(0, UNBOUNDED, "a slot may be freed by another vCPU") if perhaps else Count(0, 0, never)
    some = Count(1, UNBOUNDED, _OWN)
    totals["RDY_ALL"] = Count.exactly(wake_alls)
    if never:
        totals.update(dict.fromkeys(_APF, none))
        totals["ACC"] = totals["ACK"] = (
            Count(wake_alls, UNBOUNDED, none.reason) if perhaps else Count.exactly(wake_alls)
        )
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
    totals |= _swapped_in(guest, kernel, never)
    lost = _lost_to_l2(guest, kernel) if not never else ""
    if lost:  # it comes no further than its first token
        totals.update({name: Count(0, count.high, _PANICS) for name, count in totals.items()})
        return Prediction(
            kernel=kernel.name, items=(), totals=totals, events=(), ends=False, notes=(_PANICS,), known_faults=(lost,)
        )
    if not guest.hlt_exits:
        totals["NPh"] = Count(0, 0, "HLT exits are disabled: no artificial halt without delivery")
    return Prediction(
        kernel=kernel.name, items=(), totals=totals, events=(), notes=(never,) if never and not perhaps else ()
    )
