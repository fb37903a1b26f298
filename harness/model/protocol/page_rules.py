# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules about pages: D29 (prefetch worked), D30, D31 (who read it), D32-D34 (none expected), D40 (endless cycle).

State is kept for the last pages only, so that memory does not grow with the trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from harness.contract.probe_abi import SECTORS_PER_PAGE
from harness.model.events import Event, Kind
from harness.model.kernels import KernelModel, Variant
from harness.model.protocol.checker_types import Violation
from harness.model.protocol.rules import RuleContext
from harness.model.protocol.work_rules import SeenWork

LOOP_LIMIT = 16
"""So many NPs of one page without an invalidation between them are an endless cycle (D40)."""

_SEEN_MAX = 256
_READS_MAX = 4096
_SCAN = 64  # pages; longer invalidations are compared with each page seen
VM_FAULT_MAJOR = 0x4
VM_FAULT_NOT_COUNTED = 0x400 | 0x873  # VM_FAULT_RETRY and VM_FAULT_ERROR: mm/memory.c:mm_account_fault


@dataclass(slots=True)
class _Seen:
    hva: int
    nps: int = 0
    told: bool = False
    ready: dict[int, Event] = field(default_factory=dict)  # vCPU to the RDY after which the page is mapped


@dataclass(slots=True)
class _Unsubmitted:
    """A TRY of a page that nobody had submitted to be read; ``inside``: threads that may have it in the cache."""

    sector: int
    inside: set[int]
    violation: Violation


class Pages:
    """What is remembered of pages, over all vCPUs."""

    __slots__ = (
        "_by_hva",
        "_context",
        "_inside",
        "_kernel",
        "_reads",
        "_recorded",
        "_report",
        "_unsubmitted",
        "_wanted",
        "none_expected",
        "seen",
        "touched",
    )

    def __init__(
        self, kernel: KernelModel, context: RuleContext, recorded: frozenset[Kind], report: Callable[[Violation], None]
    ) -> None:
        self.seen: dict[int, _Seen] = {}
        self._by_hva: dict[int, int] = {}
        self._reads: dict[int, None] = {}
        self._inside: set[int] = set()  # threads in handle_mm_fault
        self._unsubmitted: list[_Unsubmitted] = []
        self._kernel = kernel
        self._context = context
        self._recorded = recorded
        self._report = report
        self._wanted = (context.private_file or frozenset()) | frozenset(context.pages_after or ())
        self.touched: frozenset[int] = frozenset()
        self.none_expected = _none_expected(kernel, context)

    def fault(self, event: Event, vcpu: int) -> None:
        """kvm_page_fault on a page that is in ``seen``."""
        gfn = event.gpa >> 12
        rdy = self.seen[gfn].ready.pop(vcpu, None)
        if rdy is not None and Kind.UNMAP in self._recorded and gfn not in self._context.loops:
            message = f"fault on {event.gpa:#x} after its RDY, no invalidation between"
            self._report(Violation("D29", event, message, (rdy,), vcpu))

    def tried(self, event: Event, vcpu: int, pf: Event | None, bio: Event | None) -> None:
        """TRY: was it possible at all, and was the page being read?"""
        context, gfn = self._context, event.gpa >> 12
        if self.none_expected and gfn not in context.loops:  # an error of handle_mm_fault is asynchronous, whatever
            rule, why = self.none_expected
            self._report(Violation(rule, event, f"TRY of {event.gpa:#x} although {why}", (), vcpu))
        if self._kernel.variant is not Variant.NOWAIT or pf is None or bio is not None or gfn in context.loops:
            return
        if context.slots is None or not context.single_toucher or context.read_devices is None:
            return
        if Kind.BIO not in self._recorded or context.userfaultfd:
            return
        sector = context.slots.get(gfn)
        if sector is not None and sector not in self._reads:
            message = f"TRY of {event.gpa:#x}, but nobody had submitted a read of its sector {sector}"
            violation = Violation("D30", event, message, (pf,), vcpu)
            # Read-ahead puts each page into the cache, locked, well before it submits them together
            # (mm/readahead.c:page_cache_ra_unbounded, mm/swap_state.c:__read_swap_cache_async).
            if inside := self._inside - {event.tid}:
                self._unsubmitted.append(_Unsubmitted(sector, inside, violation))
            else:
                self._report(violation)

    def begins(self, event: Event) -> None:
        """handle_mm_fault is called."""
        self._inside.add(event.tid)

    def returns(self, event: Event) -> None:
        """handle_mm_fault is over: what this thread has not submitted by now it did not have in the cache."""
        self._inside.discard(event.tid)
        for doubt in self._unsubmitted:
            doubt.inside.discard(event.tid)
        over = [doubt.violation for doubt in self._unsubmitted if not doubt.inside]
        self._unsubmitted = [doubt for doubt in self._unsubmitted if doubt.inside]
        for violation in over:
            self._report(violation)

    def unsubmitted(self) -> Iterator[Violation]:
        """The trace ended: D30 of what nobody has submitted."""
        return (doubt.violation for doubt in self._unsubmitted)

    def not_present(self, event: Event, vcpu: int, pf: Event | None, bio: Event | None, major: Event | None) -> None:
        """NP: who read, what was counted, and how often already."""
        if self._kernel.variant is Variant.NOIO and pf is not None and bio is not None:
            message = f"the vCPU thread itself read before NP of {event.gpa:#x}"
            self._report(Violation("D30", event, message, (pf, bio), vcpu))
        if major is not None:
            message = f"the fault on {event.gpa:#x} was counted as major, and became NP all the same"
            self._report(Violation("D31", event, message, (major,), vcpu))
        gfn = event.gpa >> 12
        seen = self.seen.get(gfn)
        if seen is None:
            seen = self.seen[gfn] = _Seen(0)
            if len(self.seen) > _SEEN_MAX:
                old = self.seen.pop(next(iter(self.seen)))
                self._by_hva.pop(old.hva >> 12, None)
        seen.nps += 1
        seen.ready.pop(vcpu, None)
        if seen.nps >= LOOP_LIMIT and not seen.told and gfn not in self._context.loops:
            seen.told = True
            message = f"{seen.nps} NPs of {event.gpa:#x} and no invalidation between them: the page cannot be resolved"
            self._report(Violation("D40", event, message, (), vcpu))

    def completed(self, event: Event) -> None:
        """DONE: async_pf_execute has come back from get_user_pages_remote(FOLL_WRITE), whether RDY comes or not."""
        gfn = event.gpa >> 12
        if gfn in self._wanted and gfn not in self.touched:
            self.touched |= {gfn}

    def ready(self, event: Event, work: SeenWork, *, prefetched: bool) -> None:
        """RDY: the prefetch has mapped the page, where ``prefetched`` says so."""
        seen = self.seen.get(work.gpa >> 12)
        if seen is not None and work.hva and prefetched:
            seen.hva = work.hva
            seen.ready[work.vcpu] = event
            self._by_hva[work.hva >> 12] = work.gpa >> 12

    def read(self, event: Event) -> None:
        """A read was submitted, by anybody."""
        if self._context.slots is None:
            return
        sectors = range(event.value, event.value + event.data, SECTORS_PER_PAGE)
        self._reads.update(dict.fromkeys(sectors))
        self._unsubmitted = [
            doubt for doubt in self._unsubmitted if doubt.sector not in sectors or event.tid not in doubt.inside
        ]
        while len(self._reads) > _READS_MAX:
            del self._reads[next(iter(self._reads))]

    def unmapped(self, event: Event) -> None:
        """kvm_unmap_hva_range: the pages in it are no longer mapped for the guest."""
        first, last = event.hva >> 12, (event.data - 1) >> 12
        if last - first < _SCAN:
            gfns = [self._by_hva[page] for page in range(first, last + 1) if page in self._by_hva]
        else:
            gfns = [gfn for page, gfn in self._by_hva.items() if first <= page <= last]
        for gfn in gfns:
            seen = self.seen.get(gfn)
            if seen is not None:
                seen.nps, seen.told = 0, False
                seen.ready.clear()


def _none_expected(kernel: KernelModel, context: RuleContext) -> tuple[str, str] | None:
    """The rule by which this situation has no TRY at all, and why."""
    if kernel.variant is not Variant.NOWAIT or context.userfaultfd is not False:
        return None
    if context.memory == "shmem":
        return "D33", "shmem waits for the page lock whatever the fault flags say"
    if context.memory != "anon" or not context.single_toucher:
        return None
    if context.swap_synchronous:
        return "D34", "the swap device is synchronous"
    if context.page_cluster == 0 and kernel.do_poll:
        return "D32", "with page-cluster 0 the page is read synchronously"
    return None
