# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kworker ran which work, and when each work was completed, as far as a recording tells.

A kworker says which page it works on, and when it has completed, which address was asked for.  Where several vCPUs wait
for one page there are several works of it, and they need not begin in the order in which they were announced: each
worker pool has its own processor, and a vCPU may be preempted between the trace and schedule_work
(virt/kvm/async_pf.c:kvm_setup_async_pf).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.judge.recorded_drafts import Call
from harness.model.simulation.recorded import WorkRun

Key = tuple[int, int]
"""(vCPU, token)."""


@dataclass(slots=True)
class LiveWork:
    """A work from its "not present" until it is ready or cleared.  ``address``: what was asked for (cr2_or_gpa)."""

    vcpu: int
    token: int
    address: int
    queued: int
    cpu: int
    begun: bool = False

    @property
    def key(self) -> Key:
        """Whose it is."""
        return self.vcpu, self.token

    @property
    def gfn(self) -> int:
        """Its page."""
        return self.address >> 12


@dataclass(slots=True)
class PageWork:
    """A kworker's work on a page, in nanoseconds since go: begun, with its page faults, and completed by its trace,
    which has the address that was asked for (virt/kvm/async_pf.c:async_pf_execute); -1: not yet."""

    start: int
    thread: int
    calls: list[Call] = field(default_factory=list)
    done: int = -1
    address: int = -1

    @property
    def least(self) -> int:
        """It was not completed before."""
        return self.calls[-1].window.end_ns if self.calls else self.start


@dataclass(slots=True)
class QueuedWork:
    """A work, from its "not present" on, and the run that is taken for its own."""

    gfn: int
    queued: int
    run: PageWork
    ready: int = -1  # when its page was first looked at for the ready event
    address: int = -1  # as in LiveWork; -1: not known

    def fits(self, run: PageWork) -> bool:
        """Whether that may have been its run."""
        if -1 not in (run.address, self.address) and run.address != self.address:
            return False
        return run.start >= self.queued and (self.ready < 0 or run.least < self.ready)


def complete(works: dict[Key, QueuedWork], live: Sequence[LiveWork], key: Key, address: int, t: int) -> None:
    """The run that was taken for that of ``key`` is over, by its trace of ``address``: where another work that nobody
    has begun was asked for just that, it was its own."""
    work = works[key]
    work.run.done, work.run.address = t, address
    other = next((w for w in live if not w.begun and w.address == address), None)
    if work.fits(work.run) or other is None:
        return
    for mine in live:
        mine.begun = mine.begun and mine.key != key
    other.begun = True
    del works[key]
    works[other.key] = QueuedWork(other.gfn, other.queued, work.run, address=address)


def work_runs(works: Mapping[Key, QueuedWork], order: Sequence[Sequence[Key]]) -> dict[Key, WorkRun]:
    """When each work began and came on the done list: between its page fault's return and its trace, which comes later;
    and as the list is first in first out, before that of the next one that was ready, as far as that is possible.

    :param order: of each vCPU, its works as they became ready.
    """
    works = _own_runs(works)
    completed: dict[Key, int] = {}
    for of_vcpu in order:
        later = -1
        for key in reversed(of_vcpu):
            work = works.get(key)
            if work is None or (work.run.done < 0 and work.ready < 0):
                continue
            before = work.ready - 1 if work.ready >= 0 else -1
            limits = [t for t in (work.run.done, before, later - 1) if t >= 0]
            later = completed[key] = max(min(limits), work.run.least)
    return {
        key: WorkRun(
            w.run.start, tuple(c.window for c in w.run.calls), completed.get(key, w.run.done), w.run.thread, w.gfn
        )
        for key, w in works.items()
    }  # fmt: skip


def _own_runs(works: Mapping[Key, QueuedWork]) -> Mapping[Key, QueuedWork]:
    """Runs exchanged among the works of one page where one cannot have been that of its work."""
    of_page: dict[int, list[Key]] = defaultdict(list)
    for key, work in works.items():
        of_page[work.gfn].append(key)
    changed = dict(works)
    for keys in of_page.values():
        if all(works[key].fits(works[key].run) for key in keys):
            continue
        runs = sorted((works[key].run for key in keys), key=lambda run: run.least)
        first = sorted(keys, key=lambda k: (works[k].ready < 0, works[k].ready))
        found = _matched([[n for n, run in enumerate(runs) if works[key].fits(run)] for key in first])
        changed |= {first[at]: replace(works[first[at]], run=runs[n]) for n, at in found.items()}
    return changed


def _matched(fitting: Sequence[Sequence[int]]) -> dict[int, int]:
    """Run -> work, each work with one of the runs that fit it, the first where that can be; empty where no assignment
    serves them all (Kuhn's algorithm)."""
    owner: dict[int, int] = {}

    def place(work: int, tried: set[int]) -> bool:
        for run in fitting[work]:
            if run not in tried:
                tried.add(run)
                if run not in owner or place(owner[run], tried):
                    owner[run] = work
                    return True
        return False

    return owner if all(place(work, set()) for work in range(len(fitting))) else {}
