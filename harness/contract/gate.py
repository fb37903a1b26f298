# SPDX-License-Identifier: GPL-2.0-or-later
"""When a read of the gated device may end: the plan's release rule, and what must have been seen for it.

Pure, and the one place that knows: the agent's server asks it with what it sees in the trace
(harness/agent/gate/keeper.py), the simulation with the events that it makes (harness/model/simulation/gated.py).
Pages are guest frame numbers; vCPUs are counted from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from harness.errors import UsageError


class Release(StrEnum):
    """What the reads of a plan wait for.

    But for ``step``, ``after`` and ``open``, a read ends only when its fault is settled: KVM has announced it
    (kvm_async_pf_not_present), or the vCPU thread sleeps on it.  Until then whoever submitted it may still look at the
    page, and would find it read or not by luck.
    """

    NP = "np"  # count settled faults wait; default: one, so each read ends as soon as its fault is settled
    REPEATED = "repeated"  # count kvm_async_pf_repeated_fault were seen
    ASLEEP = "asleep"  # count vCPU threads sleep on reads that are held
    STEP = "step"  # the host word "release"
    AFTER = "after"  # swap.delay_ms, where time is the subject
    OPEN = "open"  # nothing: reads are answered as they come


COUNTED = (Release.NP, Release.REPEATED, Release.ASLEEP)


@dataclass(frozen=True, slots=True)
class Rule:
    """A release rule.  Once it was met, the plan goes on with the default rule, ``np``."""

    release: Release = Release.NP
    count: int = 1


def parse_rule(text: str) -> Rule:
    """``np``, ``np:2``, ``repeated:3``, ``step``, ... :raise UsageError: it is none."""
    word, colon, number = text.partition(":")
    try:
        release = Release(word)
    except ValueError:
        raise UsageError(f"{text!r}: {word!r} is not one of {', '.join(Release)}") from None
    if not colon:
        return Rule(release)
    if release not in COUNTED or not number.isdecimal() or int(number) < 1:
        raise UsageError(f"{text!r}: a count goes with {', '.join(COUNTED)}, and is at least 1")
    return Rule(release, int(number))


class Why(StrEnum):
    """Why a read was let go."""

    ANNOUNCED = "announced"  # KVM announced the fault
    ASLEEP = "asleep"  # the vCPU thread sleeps on it
    STEP = "step"  # the host word "release"
    AFTER = "after"  # its time was over
    OPEN = "open"  # the gate was open
    NOT_PLANNED = "not-planned"  # it holds no page of the plan
    LATE = "late"  # nothing that it waits for came: the run proves nothing


@dataclass(slots=True)
class Seen:
    """What the rule looks at, told in the order in which it happened."""

    rule: Rule = field(default_factory=Rule)
    vcpus: int = 1
    met: bool = False
    repeats: int = 0
    outstanding: set[tuple[int, int]] = field(default_factory=set)  # (vCPU, page) announced and not ready
    wanted: dict[int, int] = field(default_factory=dict)  # vCPU -> page of a fault that is not settled
    asleep: set[int] = field(default_factory=set)  # vCPUs whose thread is in TASK_UNINTERRUPTIBLE

    def fault(self, vcpu: int, page: int) -> None:
        """kvm_page_fault."""
        self.wanted[vcpu] = page

    def announced(self, vcpu: int, page: int) -> None:
        """kvm_async_pf_not_present."""
        self.outstanding.add((vcpu, page))
        self.wanted.pop(vcpu, None)

    def repeated(self, vcpu: int) -> None:
        """kvm_async_pf_repeated_fault."""
        self.repeats += 1
        self.wanted.pop(vcpu, None)

    def ready(self, vcpu: int, page: int) -> None:
        """kvm_async_pf_ready."""
        self.outstanding.discard((vcpu, page))

    def sleeps(self, vcpu: int) -> None:
        """The vCPU thread left its CPU in TASK_UNINTERRUPTIBLE."""
        self.asleep.add(vcpu)

    def wakes(self, vcpu: int) -> None:
        """It runs again."""
        self.asleep.discard(vcpu)

    @property
    def announced_pages(self) -> frozenset[int]:
        """Pages of faults that were announced and are not ready."""
        return frozenset(page for _, page in self.outstanding)

    def due(self, held: Sequence[frozenset[int]]) -> list[tuple[int, Why]]:
        """Which of the reads that are held, each with the pages that it brings, may end now, and why."""
        found = []
        sleepers = {v for v in self.asleep if any(self.wanted.get(v) in pages for pages in held)}
        announced = self.announced_pages
        slept_on = {self.wanted[v] for v in sleepers}
        self.met = self.met or self._is_met(sleepers)
        if self.met:
            for position, pages in enumerate(held):
                if pages & announced:
                    found.append((position, Why.ANNOUNCED))
                elif pages & slept_on:
                    found.append((position, Why.ASLEEP))
        return found

    def _is_met(self, sleepers: set[int]) -> bool:
        if len(sleepers) == self.vcpus and self.rule.release in COUNTED:
            return True  # no vCPU can go on, so nothing else can come
        match self.rule.release:
            case Release.NP:
                return len(self.outstanding) + len(sleepers) >= self.rule.count
            case Release.REPEATED:
                return self.repeats >= self.rule.count
            case Release.ASLEEP:
                return len(sleepers) >= self.rule.count
            case Release.STEP | Release.AFTER | Release.OPEN:
                return False
