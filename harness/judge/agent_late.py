# SPDX-License-Identifier: GPL-2.0-or-later
"""A deadline that came while the agent still waited for what the trace had long shown: a host without processor time.

Nothing can be said of the guest then, which waits for what the agent would have done next.  Words whose condition no
trace tells (wait-settled is known by the gate alone) excuse nothing, nor do those that act: a reset that never comes to
its end is the kernel's affair.  One does: while QEMU writes a snapshot the machine stands (migration/savevm.c:
save_snapshot), so that no vCPU is where it could be given what is owed to it.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.contract.capture import AgentStep
from harness.contract.words import EndStatus, HostWord
from harness.evidence.agent_steps import ProgressStep
from harness.evidence.decode import Evidence
from harness.model.events import WAKE_ALL_TOKEN, Event, Kind

NS = 1_000_000_000
LATE_NS = NS
"""Long after any look of the agent, which looks every 10 ms (harness/agent/guest/actions.py)."""


def agent_late(evidence: Evidence) -> str:
    """What the agent did not see in time, in words; empty: there is no such thing."""
    if evidence.end.status is not EndStatus.GUEST_TIMEOUT or evidence.lost:
        return ""
    for word, arg, begun_ns, end_ns in _open(evidence.steps):
        if word == HostWord.SAVEVM:
            return f"QEMU wrote its snapshot still, {(end_ns - begun_ns) / NS:.1f} s after it was told to"
        met = _met_ns(evidence.events, word, arg)
        if met is not None and end_ns - max(met, begun_ns) >= LATE_NS:
            wait = (end_ns - max(met, begun_ns)) / NS
            return f"the agent's {word} did not see in {wait:.1f} s what the trace has: its host had no processor time"
    return ""


def _open(steps: Iterable[ProgressStep]) -> Iterable[tuple[HostWord, int, int, int]]:
    """Actions that had begun and were not over at the guest's end: word, argument, begin and the end of the guest."""
    begun: dict[tuple[HostWord, int], int] = {}
    for step in steps:
        if step.step is AgentStep.GUEST_ENDED:
            yield from ((word, arg, since, step.t_ns) for (word, arg), since in begun.items())
            return
        if step.action is None:
            continue
        key = step.action.do, step.action.arg
        if step.step is AgentStep.HOST_ACTION:
            begun[key] = step.t_ns
        else:
            begun.pop(key, None)


def _met_ns(events: Iterable[Event], word: str, arg: int) -> int | None:
    """Since when the trace has what the word waits for, to its end; None: it has not, or no trace tells."""
    outstanding: dict[int, set[int]] = {}
    undone, dozing = 0, set[int]()
    since: int | None = None
    for e in events:
        if e.kind is Kind.NP:
            outstanding.setdefault(e.vcpu, set()).add(e.token)
            undone += 1
        elif e.kind is Kind.RDY and e.token != WAKE_ALL_TOKEN:
            outstanding.get(e.vcpu, set()).discard(e.token)
        elif e.kind is Kind.DONE:
            undone -= 1
        elif e.kind is Kind.CLEAR:
            outstanding.pop(e.vcpu, None)
        elif e.kind is Kind.OUT and chr(e.value) == "S":
            dozing.add(e.vcpu)
        elif e.kind is Kind.IN:
            dozing.discard(e.vcpu)
        match word:
            case HostWord.WAIT_NP:
                met = sum(map(len, outstanding.values())) >= arg
            case HostWord.WAIT_DONE:
                met = undone <= 0
            case HostWord.WAIT_HALTED:
                met = sum(bool(outstanding.get(v)) for v in dozing) >= arg
            case _:
                return None
        since = (since if since is not None else e.t_ns) if met else None
    return since
