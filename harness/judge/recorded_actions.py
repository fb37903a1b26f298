# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent wrote down of its own steps: when the guest was let go, each host action, the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from harness.contract.capture import AgentStep
from harness.evidence.agent_steps import PerformedAction, ProgressStep
from harness.model.simulation.recorded import RecordedAction


def progress(steps: Iterable[ProgressStep]) -> tuple[int, int, tuple[RecordedAction, ...]]:
    """(go, end of the recording, host actions): the first on the trace clock, the others relative to it; go -1:
    unknown."""
    go, end, found = -1, -1, []
    open_: dict[PerformedAction, list[int]] = {}
    for step in steps:
        if step.step is AgentStep.GO:
            go = step.t_ns
        elif step.step is AgentStep.COLLECT:
            end = step.t_ns
        elif step.action is None:
            continue
        elif step.step is AgentStep.HOST_ACTION:
            open_.setdefault(step.action, []).append(step.t_ns)
        else:
            begun = open_.get(step.action)
            found.append(_recorded(step.action, (begun.pop(0) if begun else step.t_ns) - go, step.t_ns - go))
    never_done = (
        replace(_recorded(action, begun - go, end - go), done=False) for action, all_ in open_.items() for begun in all_
    )
    return go, end - go, (*found, *never_done)


def _recorded(action: PerformedAction, start_ns: int, end_ns: int) -> RecordedAction:
    return RecordedAction(action.do, action.arg, start_ns, end_ns, action.host, action.timed)
