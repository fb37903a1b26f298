# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the time of a run went, step by step, as a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

REST = "hand-over and judging"
_SLOWEST = 5


@dataclass(frozen=True, slots=True)
class ScenarioTimes:
    """One verdict: all its time in seconds, and how long each step took."""

    name: str
    seconds: float
    steps: Mapping[str, float]


def profile_text(times: Sequence[ScenarioTimes], wall_s: float) -> str:
    """The steps by how much time they took in all, and the slowest scenarios with their longest step.

    :param wall_s: seconds that the whole run took, boots and builds included.
    """
    if not times:
        return "no scenario came so far that its steps have times"
    total = sum(t.seconds for t in times)
    steps: dict[str, list[float]] = {}
    for row in times:
        for step, seconds in row.steps.items():
            steps.setdefault(step, []).append(seconds)
    median, most = statistics.median(t.seconds for t in times), max(t.seconds for t in times)
    lines = [
        f"{len(times)} verdicts: {total:.1f} s of work in {wall_s:.1f} s; a verdict takes {median:.2f} s in the median,"
        f" {most:.2f} s at most",
        "",
        f"{'step':24} {'sum s':>8} {'share':>6} {'median s':>9} {'most s':>8} {'verdicts':>9}",
    ]
    for step, each in sorted(steps.items(), key=lambda item: -sum(item[1])):
        share = sum(each) / total if total else 0.0
        lines.append(
            f"{step:24} {sum(each):8.1f} {share:6.1%} {statistics.median(each):9.2f} {max(each):8.2f} {len(each):9}"
        )
    lines += ["", "slowest:"]
    for row in sorted(times, key=lambda t: -t.seconds)[:_SLOWEST]:
        step = max(row.steps, key=lambda name: row.steps[name])
        lines.append(f"  {row.seconds:7.2f} s  {row.name} ({row.steps[step]:.2f} s of it {step})")
    return "\n".join(lines)
