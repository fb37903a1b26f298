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
from harness.model.walk.access import Act, Story, tell
from harness.model.walk.steps import Environment, Mark, Step, VcpuView


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

    def ask(self, kernel: KernelModel) -> Story:
        """:raise ModelError: this kernel cannot have such a page."""
        return tell(kernel, self.page, write=self.write, vcpu=self.vcpu.view(kernel), env=self.env,
                    readahead=self.readahead)  # fmt: skip


def deciding_steps(story: Story) -> tuple[Step, ...]:
    """The steps of V's fault that made it end as it did, in order.

    Where the fault handler refused and what KVM made of it; where V went to sleep; else the innermost step.
    """
    steps, legs = story.fault.steps, story.fault.legs
    if story.outcome is Outcome.LOOP:
        steps = story.acts[-1].steps  # the retry: what it finds is what keeps the loop going
    gates = [s for s in steps if s.mark is Mark.GATE][-1:]
    refused = [s for s in steps if s.mark is Mark.REFUSED]
    if story.outcome in (Outcome.SYNC, Outcome.BLOCK):
        asleep = [legs[0].steps[-1]] if story.fault.waits else []
        return tuple(gates + asleep) or (_innermost(steps),)
    return tuple(refused[-1:] + gates) or (_innermost(steps),)


def _innermost(steps: tuple[Step, ...]) -> Step:
    deepest = max(s.depth for s in steps)
    return next(s for s in steps if s.depth == deepest)


@dataclass(frozen=True, slots=True)
class Parting:
    """Where the walks of two kernels part.

    ``difference``: the first steps that differ in anything (None: none differs); ``ways``: the first ones in
    different functions; ``effects``: what an observer sees: name, first, second;
    ``decided``: the deciding steps of each.
    """

    difference: tuple[Step, Step] | None
    ways: tuple[Step | None, Step | None] | None
    effects: tuple[tuple[str, str, str], ...]
    decided: tuple[tuple[Step, ...], tuple[Step, ...]]


def compare(first: Story, second: Story) -> Parting:
    """Hold two stories of the same question against each other."""
    a, b = first.fault.steps, second.fault.steps
    same = _common(a, b, lambda s: (s.function, s.tested, s.result))
    path = _common(a, b, lambda s: s.function)
    difference = (a[same], b[same]) if same < min(len(a), len(b)) else None
    ways = None
    if path < max(len(a), len(b)):
        ways = (a[path] if path < len(a) else None, b[path] if path < len(b) else None)
    effects = tuple((n, x, y) for (n, x), (_, y) in zip(_effects(first), _effects(second), strict=True) if x != y)
    return Parting(difference, ways, effects, (deciding_steps(first), deciding_steps(second)))


def _common(a: tuple[Step, ...], b: tuple[Step, ...], key: Callable[[Step], object]) -> int:
    return sum(1 for _ in takewhile(lambda pair: key(pair[0]) == key(pair[1]), zip(a, b, strict=False)))


def _effects(story: Story) -> list[tuple[str, str]]:
    worker = story.acts[1] if len(story.acts) > 1 else None
    return [
        ("outcome", story.outcome.value),
        ("reads submitted by V", _reads(story.fault)),
        ("reads submitted by the worker", _reads(worker)),
        ("V waits", _waits(story.fault)),
        ("the worker waits", _waits(worker)),
        ("counters moved by V", moved(story.fault)),
        ("counters moved by the worker", moved(worker)),
        ("errno of V's last GUP", str(story.fault.end.errno)),
        ("PTE afterwards", story.page.pte.value),
    ]


def _reads(act: Act | None) -> str:
    if act is None or not act.reads:
        return "none"
    return ", ".join(f"{len(r.pages)} page(s)" + (" synchronously" if r.synchronous else "") for r in act.reads)


def _waits(act: Act | None) -> str:
    if act is None or not act.waits:
        return "no"
    return ", ".join(
        f"{w.kind} in {w.function} ({w.state}, mmap_lock {'held' if w.mmap_lock_held else 'dropped'})"
        for w in act.waits
    )


def moved(act: Act | None) -> str:
    """The counters of an act that moved, as "maj+1 pgmaj+1"; "none"."""
    counters = asdict(act.counters) if act else {}
    return " ".join(f"{name}+{n}" for name, n in counters.items() if n) or "none"
