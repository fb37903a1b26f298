# SPDX-License-Identifier: GPL-2.0-or-later
"""Host actions as the agent has written them down."""

from __future__ import annotations

from harness.contract.capture import AgentStep
from harness.contract.words import HostWord
from harness.evidence.agent_steps import PerformedAction, ProgressStep
from harness.judge.recorded_actions import progress


def test_what_the_agent_was_not_done_with_is_told_from_what_ended_last() -> None:
    """The trace may go on behind the agent's last line: where an action ends says nothing of whether it did."""
    word = PerformedAction(HostWord.CHANGE_MM, host=1)
    said = [
        (1.0, AgentStep.GO, None),
        (2.0, AgentStep.HOST_ACTION, word),
        (2.5, AgentStep.HOST_ACTION_DONE, word),
        (3.0, AgentStep.HOST_ACTION, word),
        (4.0, AgentStep.COLLECT, None),
    ]
    steps = [ProgressStep(at, at, step, "", action, None) for at, step, action in said]
    go, end, actions = progress(steps)
    assert (go, end) == (1_000_000_000, 3_000_000_000)
    assert [(a.start_ns, a.end_ns, a.done) for a in actions] == [
        (1_000_000_000, 1_500_000_000, True),
        (2_000_000_000, 3_000_000_000, False),
    ]
