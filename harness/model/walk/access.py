# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole walk of one access with nobody else around: V's fault, the worker, the prefetch, the guest's retry.

Each wait is over when nothing else can happen; so a walk has an order, no times.  What interleaves with others is the
business of the simulation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.model.kernels import KernelModel
from harness.model.outcomes import Outcome
from harness.model.pages import HostPage
from harness.model.readahead import ReadaheadState
from harness.model.walk.gup import Walk, fault_walk, in_flight, prefetch_attempt, wake, worker_attempt
from harness.model.walk.steps import Counters, End, Environment, Leg, Read, Thread, VcpuView, WalkStep, WalkWait

APF = (Outcome.TOKEN, Outcome.HALT)


@dataclass(frozen=True, slots=True)
class Phase:
    """One walk, driven to its end: who, what for, its legs."""

    title: str
    thread: Thread
    legs: tuple[Leg, ...]

    @property
    def end(self) -> Leg:
        return self.legs[-1]

    @property
    def steps(self) -> tuple[WalkStep, ...]:
        return tuple(s for leg in self.legs for s in leg.steps)

    @property
    def reads(self) -> tuple[Read, ...]:
        return tuple(r for leg in self.legs for r in leg.reads)

    @property
    def waits(self) -> tuple[WalkWait, ...]:
        return tuple(leg.wait for leg in self.legs if leg.wait)

    @property
    def counters(self) -> Counters:
        return sum((leg.counters for leg in self.legs), Counters())


@dataclass(frozen=True, slots=True)
class AccessWalk:
    """The phases in order.  ``outcome``: of the access; ``fault``: V's first phase, where it is decided."""

    outcome: Outcome
    phases: tuple[Phase, ...]

    @property
    def fault(self) -> Phase:
        return self.phases[0]

    @property
    def page(self) -> HostPage:
        """The page when all is over."""
        return self.phases[-1].end.page

    @property
    def readahead(self) -> ReadaheadState:
        return self.phases[-1].end.readahead

    def counters(self, thread: Thread) -> Counters:
        return sum((a.counters for a in self.phases if a.thread is thread), Counters())

    def reads(self, thread: Thread) -> tuple[Read, ...]:
        return tuple(r for a in self.phases if a.thread is thread for r in a.reads)


def play(title: str, walk: Walk, page: HostPage, readahead: ReadaheadState) -> Phase:
    """Drive one walk to its end; each time it sleeps, what it waits for happens."""
    leg = walk.run(page, readahead)
    legs = [leg]
    while leg.wait:
        leg = walk.run(wake(leg.page, leg), leg.readahead)
        legs.append(leg)
    return Phase(title, walk.thread, tuple(legs))


def walk_access(
    kernel: KernelModel, page: HostPage, *, write: bool, vcpu: VcpuView | None = None,
    env: Environment | None = None, readahead: ReadaheadState | None = None,
) -> AccessWalk:  # fmt: skip
    """The walk of one access to ``page``.

    LOOP: the worker fails, the guest's retry wants another async page fault, and the page is no nearer.
    :raise ModelError: this kernel cannot have such a page.
    """
    vcpu = vcpu or VcpuView()
    fault = play("the guest's fault", fault_walk(kernel, write=write, vcpu=vcpu, env=env), page,
                readahead or ReadaheadState())  # fmt: skip
    first = fault.end.outcome
    assert first is not None
    phases = [fault]
    if fault.end.end is End.STALE:
        again = fault_walk(kernel, write=write, vcpu=vcpu, env=env)
        phases.append(play("the guest's second fault", again, fault.end.page, fault.end.readahead))
    if first not in APF:
        return AccessWalk(first, tuple(phases))
    for title, walk in (
        ("the worker", worker_attempt(kernel, env=env)),
        ("the prefetch when the page is announced", prefetch_attempt(kernel, write=write, env=env)),
    ):
        now = phases[-1].end
        phases.append(play(title, walk, now.page, now.readahead))
    now = phases[-1].end
    retry = play("the guest's retry", fault_walk(kernel, write=write, vcpu=replace(vcpu, live=False), env=env),
                now.page, now.readahead)  # fmt: skip
    phases.append(retry)
    hopeless = retry.end.outcome in APF and phases[1].end.end is End.ERROR and in_flight(retry.end.page) is None
    return AccessWalk(Outcome.LOOP if hopeless else first, tuple(phases))
