# SPDX-License-Identifier: GPL-2.0-or-later
"""Anonymous pages that are in the swap cache when all is over, although the fault that mapped them has freed their
slot, or are not, although it has not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.contract.capture import FinalState
from harness.contract.plan import Backing, GuestKind, HostWord, PageStart, Plan, SwapKind
from harness.evidence.decode import Evidence
from harness.evidence.ram_page import ram_page
from harness.judge.align import FOR_EVER
from harness.model.events import Event, Kind
from harness.model.kernels import KernelModel
from harness.model.simulation.swap_space import KEPT_BACK
from harness.model.walk.flags import VM_FAULT_ERROR, FaultFlag, VmFault

ON_THE_DEVICE = {PageStart.SWAPCACHE, PageStart.SWAPPED, PageStart.ZERO_SWAPPED}
_BY_THE_SWAP_CACHE = {SwapKind.GATED, SwapKind.DELAY}
_OTHERS = {HostWord.LOCK_READ, HostWord.RECLAIM, HostWord.SAVEVM, HostWord.LOADVM}
"""Others than vCPU threads and workers read pages, or take them away."""
_UNMAPPED = VmFault.RETRY | VM_FAULT_ERROR
_Call = tuple[Event, Event]
"""Of handle_mm_fault, with its return."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a capture shows: calls by page of the guest; pages that were in the swap cache before; by thread where it
    was given a processor; and how far from the page of a call read-ahead reads at most, in pages (-1: anywhere, of a
    device that reads aligned clusters)."""

    calls: Mapping[int, list[_Call]]
    written_out: set[int]
    places: Mapping[int, list[Event]]
    window: int


def leaves_the_swap_cache(plan: Plan, kernel: KernelModel) -> bool:
    """Whether only the fault that maps a page decides about its slot: it is anonymous, on a device of which half is
    surely free (include/linux/swap.h:vm_swap_full): its first slot holds the header, and what processors keep in
    reserve counts as used.  Of a device that reads at once (zram, SWP_SYNCHRONOUS_IO), with which kernels before 7.0 do
    without the swap cache, the fault frees it in any case."""
    lists = (*plan.host_actions, *(timed.actions for timed in plan.timed))
    acts = {action.do for actions in lists for action in actions}
    usable = (plan.swap.size_mib << 8) - 1
    full = 2 * (usable - len(plan.pages) - KEPT_BACK) < usable
    decides = plan.swap.kind in _BY_THE_SWAP_CACHE and not full
    decides |= plan.swap.kind is SwapKind.ZRAM and kernel.sync_swapin_shared
    return plan.memory.backing is Backing.ANON and decides and not acts & _OTHERS


def swap_slots(evidence: Evidence, kernel: KernelModel) -> tuple[str, ...] | None:
    """The fault that maps a page from swap frees its slot if it is a write's (mm/memory.c:should_try_to_free_swap) and
    nobody else has a reference to the page; else the page stays in the swap cache.  So it does when it is written
    later, since 5.19: who had it alone before has it still (do_wp_page, pte_swp_exclusive).  Before 5.18 that write
    makes a copy.

    A CPU that has read the page, or has looked it up, may have a reference in its batches for the LRU lists;
    do_swap_page empties those of its own CPU (lru_add_drain).  Who waits for the page's lock has one, too.

    :return: in words, one for each page; None: nobody can tell.
    """
    plan, facts, after = evidence.plan, evidence.facts, evidence.after
    if after is None or facts is None or not facts.has_mm_fault or plan.guest.kind is not GuestKind.PROBE:
        return None
    if not leaves_the_swap_cache(plan, kernel) or evidence.lost:
        return None
    found = {p.gpa >> 12 for p in plan.pages if p.start in ON_THE_DEVICE}
    if plan.swap.kind is SwapKind.ZRAM:
        calls = _calls(evidence)
        return tuple(said for gfn in sorted(found) for said in _kept(gfn, calls.get(gfn, ()), after))
    # Whoever ended the write-back of a page that is in the cache still has it in a batch (folio_rotate_reclaimable).
    written_out = {p.gpa >> 12 for p in plan.pages if p.start is PageStart.SWAPCACHE}
    seen = _Seen(
        _calls(evidence), written_out, _places(evidence), -1 if plan.swap.rotational else 1 << plan.swap.page_cluster
    )
    return tuple(
        said
        for gfn in sorted(found)
        if (page := after.pages.get(gfn << 12)) is not None and page.swap_cache is not None
        for said in _contradicts(gfn, page.swap_cache, seen, kernel)
    )


def clean_pages(evidence: Evidence, kernel: KernelModel) -> tuple[int, ...] | None:
    """Pages that have come from swap, have no slot any more, and are not dirty: who drops them finds nothing to write.

    What takes a page out of the swap cache marks it (mm/swapfile.c:folio_free_swap, before 5.17 try_to_free_swap;
    mm/shmem.c:shmem_swapin_folio).  A copy that a kernel before 5.18 makes is dirty in its page table alone.

    :return: frames; None: nobody can tell.
    """
    plan, after = evidence.plan, evidence.after
    anonymous = plan.memory.backing is Backing.ANON
    if after is None or plan.swap.kind not in _BY_THE_SWAP_CACHE or (anonymous and kernel.wp_counts_references):
        return None
    came = {p.gpa for p in plan.pages if p.start in ON_THE_DEVICE}
    left = {gpa: page for gpa, page in after.pages.items() if gpa in came and page.swap_cache is False}
    return tuple(sorted(gpa >> 12 for gpa, page in left.items() if page.dirty is False))


def _kept(gfn: int, calls: Sequence[_Call], after: FinalState) -> Iterator[str]:
    """A page of a device that reads at once which the fault that mapped it has left in the swap cache."""
    page = after.pages.get(gfn << 12)
    mapped = [call for call, end in calls if not end.value & _UNMAPPED]
    if mapped and page is not None and page.swap_cache:
        yield f"page {gfn:#x} is in the swap cache, and its device reads at once (trace line {mapped[0].line})"


def _contradicts(gfn: int, cached: bool, seen: _Seen, kernel: KernelModel) -> Iterator[str]:
    mapping = sorted((c for c in seen.calls.get(gfn, ()) if not c[1].value & _UNMAPPED), key=lambda call: call[1].t_ns)
    if not mapping:
        return
    call, end = mapping[0]
    if any(other.t_ns < end.t_ns for other, _ in mapping[1:]):
        return  # either may have mapped it
    by = f"(trace line {call.line})"
    if call.value & FaultFlag.WRITE:
        if cached and _alone(gfn, mapping[0], seen):
            yield f"page {gfn:#x} is in the swap cache, and the fault that mapped it was a write's {by}"
        return
    written = any(other.value & FaultFlag.WRITE for other, _ in mapping[1:])
    copied = written and kernel.wp_counts_references
    if cached and copied:
        yield f"page {gfn:#x} is in the swap cache, and was copied when it was written {by}"
    elif not cached and not written:
        yield f"page {gfn:#x} is not in the swap cache, and the fault that mapped it was a read's {by}"
    elif not cached and kernel.swap_pte_exclusive:
        yield f"page {gfn:#x} is not in the swap cache, and was mapped by a read's fault before it was written {by}"


def _alone(gfn: int, mapping: _Call, seen: _Seen) -> bool:
    """Whether nobody else can have a reference to the page: all calls until then that looked it up, or may have read it
    with its neighbours, were made on the CPU on which this one came to its end, and are over."""
    if gfn in seen.written_out:
        return False
    call, end = mapping
    near = (of_page for other, of_page in seen.calls.items() if seen.window < 0 or abs(other - gfn) < seen.window)
    before = [other for of_page in near for other in of_page if other[0].t_ns < end.t_ns and other[0] is not call]
    if any(over.t_ns > call.t_ns for _, over in before):
        return False  # who waits for the page's read has one
    on = {event.cpu for event, _ in before} | {call.cpu, end.cpu}
    on |= {event.cpu for event in seen.places.get(call.tid, ()) if call.t_ns < event.t_ns < end.t_ns}
    return len(on) == 1


def _calls(evidence: Evidence) -> Mapping[int, list[_Call]]:
    """By page of the guest; those that are not over have mapped nothing yet."""
    first = ram_page(evidence.of(Kind.DONE, Kind.PF, Kind.MM_FAULT, Kind.ENTRY))
    called: dict[int, Event] = {}
    calls: dict[int, list[_Call]] = {}
    for event in evidence.of(Kind.MM_FAULT, Kind.MM_FAULT_RET):
        if event.kind is Kind.MM_FAULT:
            called[event.tid] = event
        elif (call := called.pop(event.tid, None)) is not None:
            calls.setdefault((call.hva >> 12) - first, []).append((call, event))
    for call in called.values():
        calls.setdefault((call.hva >> 12) - first, []).append((call, replace(call, t_ns=FOR_EVER, value=VmFault.RETRY)))
    return calls


def _places(evidence: Evidence) -> Mapping[int, list[Event]]:
    """By thread, where it was given a processor."""
    places: dict[int, list[Event]] = {}
    for event in evidence.of(Kind.IN):
        places.setdefault(event.tid, []).append(event)
    return places
