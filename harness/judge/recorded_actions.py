# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent wrote down of its own steps: when the guest was let go, each host action, the end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harness.model.simulation.recorded import RecordedAction


def progress(text: str) -> tuple[int, int, tuple[RecordedAction, ...]]:
    """(go, end of the recording, host actions): the first on the trace clock, the others relative to it; go -1:
    unknown."""
    go, end, found = -1, -1, []
    open_: dict[tuple[str, int, int, int], list[int]] = {}
    for line in text.splitlines():
        step = json.loads(line)
        t_ns = int(step["mono"] * 1e9)
        if step["step"] == "go":
            go = t_ns
        elif step["step"] == "collect":
            end = t_ns
        elif step["step"] == "host-action":
            open_.setdefault(_action(step), []).append(t_ns)
        elif step["step"] == "host-action-done":
            do, arg, host, timed = key = _action(step)
            begun = open_.get(key)
            found.append(RecordedAction(do, arg, (begun.pop(0) if begun else t_ns) - go, t_ns - go, host, timed))
    never_done = (
        RecordedAction(do, arg, begun - go, end - go, host, timed)
        for (do, arg, host, timed), all_ in open_.items()
        for begun in all_
    )
    return go, end - go, (*found, *never_done)


def _action(step: Mapping[str, Any]) -> tuple[str, int, int, int]:
    """Word and argument of a host-action, and where in the plan it stands."""
    return step["do"], int(step.get("arg") or 0), int(step.get("host", -1)), int(step.get("timed", -1))
