# SPDX-License-Identifier: GPL-2.0-or-later
"""What is made of the evidence for whichever prediction it is held against: a search holds many against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from harness.contract.plan import starts_anew
from harness.contract.words import EndStatus, HostWord
from harness.errors import CaptureDamaged
from harness.evidence.agreement import times_of_writes
from harness.evidence.decode import Evidence
from harness.evidence.resets import boots
from harness.judge.align import align, host_waits
from harness.judge.cut_off import cut_faults, guest_runs_on
from harness.judge.episodes import split
from harness.judge.match import View
from harness.judge.protocol_check import Checked, check
from harness.judge.recorded_actions import progress
from harness.judge.rules_context import Expected, places
from harness.judge.seen_totals import seen_totals
from harness.judge.unexplained import INTERRUPTING
from harness.model.events import Kind
from harness.model.kernels import KernelModel

_IN_EPISODES = {Kind.ENTRY, Kind.EXIT, Kind.OUT, Kind.IN}
"""Most of a long trace; the comparison looks at them in the episodes only."""


@dataclass(slots=True)
class SeenOnce:
    """Each part is made when it is first asked for."""

    evidence: Evidence
    kernel: KernelModel
    _checked: dict[Expected, tuple[Checked, dict[str, int]]] = field(default_factory=dict)
    _view: View | None = None

    def checked(self, expected: Expected) -> tuple[Checked, dict[str, int]]:
        """What the rules say, and the totals; they are told little of a prediction, and most tell them the same."""
        if expected not in self._checked:
            checked = check(self.evidence, self.kernel, expected)
            self._checked[expected] = checked, seen_totals(self.evidence, checked.counts, self.kernel)
        return self._checked[expected]

    def view(self) -> View:
        """What happened to each item of the plan.

        :raise CaptureDamaged: it cannot be told.
        """
        if self._view is None:
            self._view = _view(self.evidence)
        return self._view


def _view(evidence: Evidence) -> View:
    if evidence.facts is None or evidence.guest is None:
        raise CaptureDamaged("the run reached the guest's program, but facts or guest log are missing")
    go, _, actions = progress(evidence.steps)
    acted = [replace(a, start_ns=go + a.start_ns, end_ns=go + a.end_ns) for a in actions] if go >= 0 else []
    booted = boots(evidence.of(Kind.CLEAR, Kind.WRMSR))
    episodes = list(split(evidence.events, evidence.ram_hva()))
    cut = cut_faults(episodes, evidence.events) if guest_runs_on(evidence) else frozenset()
    written = times_of_writes(evidence.plan, evidence.guest, list(evidence.of(Kind.WRMSR)))
    times = host_waits(evidence.plan, acted) | {item: (t_ns, t_ns) for item, t_ns in written.items()}
    alignment = align(evidence.plan, evidence.guest, episodes, booted, times)
    return View(
        evidence.plan, alignment, tuple(evidence.of(*set(Kind) - _IN_EPISODES)), evidence.facts.swap_dev,
        evidence.facts.has_mm_fault, kicks=tuple((a.start_ns, a.end_ns) for a in acted if a.do in INTERRUPTING),
        places=_places(evidence, {a.do for a in acted}), runs_on=evidence.end.status is EndStatus.GUEST_TIMEOUT,
        cut=cut,
    )  # fmt: skip


def _places(evidence: Evidence, acts: set[str]) -> Mapping[int, int]:
    """Where the pages lie as long as none is swapped out anew."""
    moved = starts_anew(evidence.plan) or HostWord.RECLAIM in acts
    return {} if moved else places(evidence) or {}
