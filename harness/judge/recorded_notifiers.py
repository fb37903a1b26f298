# SPDX-License-Identifier: GPL-2.0-or-later
"""When mmu notifiers ran: kvm_unmap_hva_range tells that one began, and no event that it ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Set
from dataclasses import dataclass, field, replace

from harness.model.events import Event
from harness.model.simulation.recorded import FaultCall


@dataclass(frozen=True, slots=True)
class _Open:
    """The last notifier of a thread.  ``hva``, ``end_hva``: what it was told of; ``counts``: see Notifiers.ended."""

    hva: int
    end_hva: int
    since_ns: int
    counts: bool


@dataclass(slots=True)
class Notifiers:
    """Fed with the trace in order, in ns since the guest was let go.

    :ivar ran: each; until the thread is seen at something else, by which it was over at the latest, as far as anything
        tells that.
    :ivar unmapped: by guest page, when one began that was no thread's of KVM.
    :ivar ended: those of the plan's pages of which it is certain that they were over then: the thread began another
        one, of other memory, or came back from handle_mm_fault.  (One inside another, when a huge page is split, is of
        the same memory.)  Each has moved mmu_invalidate_seq by then (virt/kvm/kvm_main.c:
        kvm_mmu_notifier_invalidate_range_end; before 6.1 mmu_notifier_seq).
    """

    ran: list[FaultCall] = field(default_factory=list)
    unmapped: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    ended: list[FaultCall] = field(default_factory=list)
    _newest: dict[int, int] = field(default_factory=dict)  # by thread: its last in ``ran``
    _open: dict[int, _Open] = field(default_factory=dict)  # by thread

    def see(self, event: Event, t_ns: int) -> None:
        """Any event of a thread that is none of KVM's: what it was at before is over."""
        if (at := self._newest.pop(event.tid, -1)) >= 0:
            self.ran[at] = replace(self.ran[at], end_ns=t_ns)

    def begin(self, event: Event, t_ns: int, pages: Set[int]) -> None:
        """kvm_unmap_hva_range; ``pages``: the plan's among its memory."""
        before = self._open.get(event.tid)
        if before is not None and before.counts and not (before.hva < event.data and event.hva < before.end_hva):
            self.ended.append(FaultCall(before.since_ns, t_ns, event.tid))
        self._open[event.tid] = _Open(event.hva, event.data, t_ns, counts=bool(pages))
        self._newest[event.tid] = len(self.ran)
        self.ran.append(FaultCall(t_ns, t_ns, event.tid))
        for gfn in pages if event.vcpu < 0 and not event.worker else ():
            self.unmapped[gfn].append(t_ns)

    def returned(self, thread: int, since_ns: int, t_ns: int) -> None:
        """A thread came back from handle_mm_fault, in which it was since then."""
        at, open_ = self._newest.pop(thread, -1), self._open.get(thread)
        if at >= 0 and self.ran[at].start_ns >= since_ns:
            self.ran[at] = replace(self.ran[at], end_ns=t_ns)
        if open_ is not None and open_.since_ns >= since_ns:
            del self._open[thread]
            if open_.counts:
                self.ended.append(FaultCall(open_.since_ns, t_ns, thread))
