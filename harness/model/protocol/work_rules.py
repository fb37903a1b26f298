# SPDX-License-Identifier: GPL-2.0-or-later
"""Works, and the ledger that matches DONE events to them: rules D10, D11, D12 and the DONE half of D27.

DONE carries neither token nor vCPU, only the address, and may be traced after the RDY of its work (the worker appends
to the done list before it traces, virt/kvm/async_pf.c:async_pf_execute).  So DONEs are kept as credit per address, and
a work takes its credit at the latest moment at which it must have it: the first ENTRY after its RDY.

An example, all of one address (w1, w2: works; c: credit of the address):

    NP w1         waits: w1        c=0
    DONE          waits: w1        c=1    w1's, for w1 is the only one
    RDY w1        waits: w1        c=1
    NP w2         waits: w1, w2    c=1    another vCPU's, or the page was reclaimed again
    ENTRY         waits: w2        c=0    settle(w1) takes the credit
    RDY w2        waits: w2        c=0    its worker has put it on the done list, the DONE is not traced yet
    DONE          waits: w2        c=1
    ENTRY         waits: nothing   c=0    settle(w2); without that DONE D11, and the work is ``late``
    DONE          ``early``: of no work.  Of the next NP, then D10, or of none, then D12

A clear removes works; where it is not known whether the DONE of one came before it, the address has ``slack``: one DONE
that may come or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.model.events import Event
from harness.model.protocol.checker_types import Obligation, Violation

_EARLY_MAX = 256
_CLEARED_MAX = 256


@dataclass(slots=True, eq=False)
class SeenWork:
    """One queued struct kvm_async_pf, from NP to RDY."""

    token: int
    gpa: int
    vcpu: int
    np: Event | None  # None: from before the trace
    seq: int = 0  # number of the NP event
    tokened: bool | None = None  # None until the first ENTRY tells token from halt (behaviour.md B.15)
    inj: Event | None = None
    done_seq: int = 0  # number of its DONE event; 0: none yet, or the address has several works
    done_t: int = 0
    completed: bool = False  # as many DONEs of its address have come as it has works
    gup_end_t: int = 0  # its worker was surely not through with the page before this: it was completed later
    hva: int = 0
    guest_mode: bool = False  # of an L2


@dataclass(slots=True)
class _Tally:
    works: list[SeenWork] = field(default_factory=list)
    credit: int = 0  # DONEs not yet taken by a work
    late: int = 0  # works that were reported by D11 and whose DONE may still come
    slack: int = 0  # DONEs that may or may not come, for cancelled works
    early: Event | None = None  # a DONE that came before any NP of its own

    def complete(self) -> None:
        """As many DONEs have come as there are works, and none of them is a cancelled one's."""
        if self.credit == len(self.works) and not self.slack:
            for work in self.works:
                work.completed = True


class Ledger:
    """All works of a VM whose DONE is not yet accounted for.  Its size is that of the live works, not of the trace."""

    __slots__ = ("_cleared", "_early", "_slack", "_tallies")

    def __init__(self) -> None:
        self._tallies: dict[int, _Tally] = {}
        self._early: dict[int, Event] = {}
        self._cleared: dict[int, Event | None] = {}
        self._slack: dict[int, None] = {}  # addresses whose tally has slack, oldest first

    def not_present(self, work: SeenWork) -> None:
        """A work was queued."""
        tally = self._tallies.get(work.gpa)
        if tally is None:
            tally = self._tallies[work.gpa] = _Tally()
        tally.works.append(work)
        self._cleared.pop(work.gpa, None)
        if self._early and work.gpa in self._early:
            tally.early = self._early.pop(work.gpa)

    def done(self, event: Event, seq: int, gup_end_t: int = 0) -> list[Violation]:
        """A worker ended: D12 (more DONEs than works), D27 (after a clear that had to wait for it).

        :param gup_end_t: when this worker last came back from a page fault; 0: that was not recorded.
        """
        tally = self._tallies.get(event.gpa)
        found: list[Violation] = []
        if tally is not None and tally.credit < len(tally.works):
            if (only := self.only(event.gpa)) is not None:
                only.done_seq, only.done_t, only.hva = seq, event.t_ns, event.hva
                only.gup_end_t = max(gup_end_t, only.np.t_ns if only.np is not None else 0)
            tally.credit += 1
            tally.complete()
            if tally.early is not None:
                found.append(_surplus(tally.early))
                tally.early = None
            if tally.late:
                tally.late -= 1
                self._take(tally, tally.works[0])
            return found
        if tally is not None and tally.slack:
            tally.slack -= 1
            tally.complete()
            self._tidy(event.gpa, tally)
            return found
        if event.gpa in self._cleared:
            clear = self._cleared.pop(event.gpa)
            message = f"DONE of {event.gpa:#x} after the clear that had to wait for its worker"
            return [Violation("D27", event, message, (clear,) if clear is not None else ())]
        if event.gpa in self._early:
            found.append(_surplus(self._early.pop(event.gpa)))
        self._early[event.gpa] = event
        if len(self._early) > _EARLY_MAX:
            found.append(_surplus(self._early.pop(next(iter(self._early)))))
        return found

    def waiting(self, gpa: int) -> tuple[SeenWork, ...]:
        """The works of an address that are not settled."""
        tally = self._tallies.get(gpa)
        return tuple(tally.works) if tally is not None else ()

    def only(self, gpa: int) -> SeenWork | None:
        """The one work that a DONE of this address is of.  None: there are several, or one that was cancelled while its
        worker ran may have its DONE yet."""
        tally = self._tallies.get(gpa)
        return tally.works[0] if tally is not None and len(tally.works) == 1 and not tally.slack else None

    def settle(self, work: SeenWork, entry: Event, rdy: Event, *, flushed: bool) -> Violation | None:
        """The vCPU ENTERs after the work's RDY: now its DONE must have been there (D11), and after its NP (D10).

        ``flushed``: the kernel flushes each work before it frees it; without that DONE may come later.
        """
        tally = self._tallies.get(work.gpa)
        if tally is None:
            return None
        if tally.credit:
            self._take(tally, work)
            return None
        if tally.early is not None:
            early, tally.early = tally.early, None
            tally.credit += 1
            self._take(tally, work)
            message = f"DONE of {work.gpa:#x} came before the NP that queued its work"
            return Violation("D10", early, message, _some(work.np), work.vcpu)
        tally.late += 1
        if not flushed:
            return None
        message = f"the vCPU enters after RDY of token {work.token:#x}, but no DONE of {work.gpa:#x} was seen"
        return Violation("D11", entry, message, (*_some(work.np), rdy), work.vcpu)

    def cancel(self, work: SeenWork, clear: Event | None, done_may_follow: bool) -> None:
        """The work was cleared.  ``done_may_follow``: the clear's exact place among the DONEs is not known."""
        tally = self._tallies.get(work.gpa)
        if tally is None:
            return
        if work in tally.works:
            tally.works.remove(work)
        if done_may_follow and not tally.credit:
            self._allow(work.gpa, tally)
        elif tally.credit > len(tally.works):
            tally.credit = len(tally.works)
        elif tally.credit:
            self._allow(work.gpa, tally)  # the credit may have been the cancelled work's
        if not tally.works and not tally.slack:
            self._cleared[work.gpa] = clear
            if len(self._cleared) > _CLEARED_MAX:
                del self._cleared[next(iter(self._cleared))]
        self._tidy(work.gpa, tally)

    def finish(self, live: set[int]) -> Iterator[Violation | Obligation]:
        """What is left: D12.  ``live``: ids of the works that still wait for RDY, they may wait for DONE too."""
        for event in self._early.values():
            yield _surplus(event)
        for tally in self._tallies.values():
            if tally.early is not None:
                yield _surplus(tally.early)
            missing = [work for work in tally.works if id(work) not in live][tally.credit :]
            for work in missing:
                message = f"RDY of token {work.token:#x} was seen, but never DONE of {work.gpa:#x}"
                yield Obligation("D12", work.np, message, work.vcpu)

    def _allow(self, gpa: int, tally: _Tally) -> None:
        tally.slack += 1
        self._slack[gpa] = None
        if len(self._slack) > _CLEARED_MAX:
            oldest = next(iter(self._slack))
            del self._slack[oldest]
            if oldest in self._tallies:
                self._tallies[oldest].slack = 0
                self._tidy(oldest, self._tallies[oldest])

    def _take(self, tally: _Tally, work: SeenWork) -> None:
        tally.credit -= 1
        if work in tally.works:
            tally.works.remove(work)
        self._tidy(work.gpa, tally)

    def _tidy(self, gpa: int, tally: _Tally) -> None:
        if not tally.works and not tally.slack and tally.early is None:
            self._tallies.pop(gpa, None)


def _some(event: Event | None) -> tuple[Event, ...]:
    return (event,) if event is not None else ()


def _surplus(event: Event) -> Violation:
    return Violation("D12", event, f"DONE of {event.gpa:#x} belongs to no NP: more DONEs than works")
