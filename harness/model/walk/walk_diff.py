# SPDX-License-Identifier: GPL-2.0-or-later
"""Questions to the model: what becomes of this access to this page on this kernel, why, and where two kernels part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import takewhile

from harness.model.delivery import (
    EN_EFFECTIVE,
    EN_SEND_ALWAYS,
    ApfState,
    kvm_can_deliver_async_pf,
    kvm_can_do_async_pf,
    why_not_async,
)
from harness.model.kernels import KernelModel
from harness.model.outcomes import Outcome
from harness.model.pages import HostPage
from harness.model.readahead import ReadaheadState
from harness.model.walk.access import AccessWalk, Phase, walk_access
from harness.model.walk.deciding import deciding_steps
from harness.model.walk.steps import Environment, VcpuView, WalkStep


@dataclass(frozen=True, slots=True)
class VcpuState:
    """The vCPU at the moment of the access, as a person says it."""

    cpl: int = 3
    interrupts: bool = True
    shadow: bool = False
    apf_enabled: bool = True  # EN bits 0 and 3
    send_always: bool = False
    paging: bool = True
    lapic_in_kernel: bool = True
    hlt_exits: bool = True
    event_injected: bool = False
    live: bool = False  # an async page fault of this page is outstanding
    queue_full: bool = False  # 64 of them are outstanding

    def view(self, kernel: KernelModel) -> VcpuView:
        """What KVM decides from it, by kvm_can_do_async_pf and kvm_can_deliver_async_pf."""
        en = EN_EFFECTIVE | (EN_SEND_ALWAYS if self.send_always else 0)
        state = ApfState(
            kernel, en_val=en if self.apf_enabled else 0, send_user_only=not self.send_always, shared_ok=True,
            cpl=self.cpl, interrupts=self.interrupts, shadow=self.shadow, paging=self.paging,
            lapic_in_kernel=self.lapic_in_kernel, hlt_exits=self.hlt_exits, event_injected=self.event_injected,
        )  # fmt: skip
        deliver = kvm_can_deliver_async_pf(state)
        return VcpuView(
            can_do=kvm_can_do_async_pf(state), can_deliver=deliver, live=self.live, setup_fails=self.queue_full,
            why=why_not_async(state) or ("" if deliver else self._why_not_deliver()),
        )  # fmt: skip

    def _why_not_deliver(self) -> str:
        if not self.apf_enabled:
            return "EN has not both bit 0 and bit 3"
        if self.cpl == 0 and not self.send_always:
            return "CPL 0 and no SEND_ALWAYS"
        return "CR0.PG=0"


@dataclass(frozen=True, slots=True)
class Question:
    """One access, complete but for the kernel."""

    page: HostPage
    write: bool = False
    vcpu: VcpuState = field(default_factory=VcpuState)
    env: Environment = field(default_factory=Environment)
    readahead: ReadaheadState = field(default_factory=ReadaheadState)

    def ask(self, kernel: KernelModel) -> AccessWalk:
        """:raise ModelError: this kernel cannot have such a page."""
        return walk_access(kernel, self.page, write=self.write, vcpu=self.vcpu.view(kernel), env=self.env,
                    readahead=self.readahead)  # fmt: skip


def decided_by(walk: AccessWalk) -> tuple[WalkStep, ...]:
    """The steps of the vCPU thread's fault that made it end as it did; of an endless cycle, those of the retry."""
    fault = walk.fault
    steps = walk.phases[-1].steps if walk.outcome is Outcome.LOOP else fault.steps
    return deciding_steps(steps, walk.outcome, fault.legs[0].steps[-1] if fault.waits else None)


@dataclass(frozen=True, slots=True)
class WalkDiff:
    """Where the walks of one access on two kernels differ.

    ``difference``: the first steps that differ in anything (None: none differs); ``ways``: the first ones in
    different functions; ``effects``: what an observer sees: name, first, second;
    ``decided``: the deciding steps of each.
    """

    difference: tuple[WalkStep, WalkStep] | None
    ways: tuple[WalkStep | None, WalkStep | None] | None
    effects: tuple[tuple[str, str, str], ...]
    decided: tuple[tuple[WalkStep, ...], tuple[WalkStep, ...]]


def compare(first: AccessWalk, second: AccessWalk) -> WalkDiff:
    """Compare two walks of the same access."""
    a, b = first.fault.steps, second.fault.steps
    same = _common(a, b, lambda s: (s.function, s.tested, s.result))
    path = _common(a, b, lambda s: s.function)
    difference = (a[same], b[same]) if same < min(len(a), len(b)) else None
    ways = None
    if path < max(len(a), len(b)):
        ways = (a[path] if path < len(a) else None, b[path] if path < len(b) else None)
    effects = tuple((n, x, y) for (n, x), (_, y) in zip(_effects(first), _effects(second), strict=True) if x != y)
    return WalkDiff(difference, ways, effects, (decided_by(first), decided_by(second)))


def _common(a: tuple[WalkStep, ...], b: tuple[WalkStep, ...], key: Callable[[WalkStep], object]) -> int:
    return sum(1 for _ in takewhile(lambda pair: key(pair[0]) == key(pair[1]), zip(a, b, strict=False)))


def _effects(walk: AccessWalk) -> list[tuple[str, str]]:
    worker = walk.phases[1] if len(walk.phases) > 1 else None
    return [
        ("outcome", walk.outcome.value),
        ("reads submitted by V", _reads(walk.fault)),
        ("reads submitted by the worker", _reads(worker)),
        ("V waits", _waits(walk.fault)),
        ("the worker waits", _waits(worker)),
        ("counters moved by V", moved(walk.fault)),
        ("counters moved by the worker", moved(worker)),
        ("errno of V's last GUP", str(walk.fault.end.errno)),
        ("PTE afterwards", walk.page.pte.value),
    ]


def _reads(phase: Phase | None) -> str:
    if phase is None or not phase.reads:
        return "none"
    return ", ".join(f"{len(r.pages)} page(s)" + (" synchronously" if r.synchronous else "") for r in phase.reads)


def _waits(phase: Phase | None) -> str:
    if phase is None or not phase.waits:
        return "no"
    return ", ".join(
        f"{w.kind} in {w.function} ({w.state}, mmap_lock {'held' if w.mmap_lock_held else 'dropped'})"
        for w in phase.waits
    )


def moved(phase: Phase | None) -> str:
    """The counters of an phase that moved, as "maj+1 pgmaj+1"; "none"."""
    counters = asdict(phase.counters) if phase else {}
    return " ".join(f"{name}+{n}" for name, n in counters.items() if n) or "none"
