# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of steps, and the steps that wait for those."""

from __future__ import annotations

from collections.abc import Iterator

from harness.scenario import bounds
from harness.scenario.schema import Scenario


def check_names(s: Scenario) -> Iterator[str]:
    """Problems of ``name`` and ``after``, as "$.path: text".

    A step waits for one that stands above it, so that no two can wait for each other.
    """
    above: dict[str, int] = {}  # name: its vCPU
    everywhere = {step.name for step in s.steps}
    for i, step in enumerate(s.steps):
        name, after = step.name, step.after
        if after and after not in above:
            why = "stands below this one" if after in everywhere else "has no such name"
            yield f"$.steps[{i}].after: {after[: bounds.MAX_NAME]!r}: a step that {why}; name one that stands above"
        elif after and above[after] == step.vcpu:
            yield f"$.steps[{i}].after: {after!r} is of vCPU {step.vcpu}, too, whose steps are in order anyway"
        if name in above:
            yield f"$.steps[{i}].name: {name[: bounds.MAX_NAME]!r} is the name of a step above"
        if name:
            yield from bounds.prose(f"$.steps[{i}].name", name, bounds.MAX_NAME)
            above[name] = step.vcpu
