# SPDX-License-Identifier: GPL-2.0-or-later
"""What breaks a rule unless a worker was held up: D24, D50.

async_pf_execute (virt/kvm/async_pf.c) puts its work on the done list, asks for KVM_REQ_APF_READY if it is the first
there, and then traces DONE.  Where it is preempted between, the vCPU is runnable, so that its halts end at once; what
others complete meanwhile is not the first, so that nobody asks for it.  Its DONE tells, later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from harness.model.delivery import ASYNC_PF_PER_VCPU
from harness.model.protocol.checker_types import Violation


@dataclass(slots=True)
class Doubt:
    """A violation, unless one of ``works`` (by token) was on the done list at ``by_ns``."""

    violation: Violation
    works: set[int]
    by_ns: int


@dataclass(slots=True)
class Doubts:
    """Of one vCPU."""

    open: list[Doubt] = field(default_factory=list)

    def add(self, violation: Violation, works: Iterable[int], by_ns: int) -> None:
        """What explains a doubt explains all that are later, so that the first ones stand for them: a guest that goes
        round in halts that end at once has hundreds while the worker is held up."""
        if len(self.open) < ASYNC_PF_PER_VCPU:
            self.open.append(Doubt(violation, set(works), by_ns))

    def worker_done(self, token: int, returned_t: int, *, sure: bool) -> Iterator[Violation]:
        """A worker of a live work ended, which came back from its page at ``returned_t`` (ns; 0: not recorded).

        ``sure``: it was this work's; else several wait for the page.
        """
        left, self.open = self.open, []
        for doubt in left:
            if returned_t and doubt.by_ns >= returned_t:
                continue
            if sure and returned_t:
                doubt.works.discard(token)
            if doubt.works or not sure:
                self.open.append(doubt)
            else:
                yield doubt.violation

    def cleared(self) -> None:
        """All works were dropped: whoever was held up is waited for (cancel_work_sync), and its DONE is nobody's."""
        self.open.clear()

    def left(self) -> Iterator[Violation]:
        """The trace ended: what no DONE has explained."""
        return (doubt.violation for doubt in self.open)
