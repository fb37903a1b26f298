# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the time of a run went: what each scenario's agent noted when a step of it began."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from harness.errors import UsageError
from harness.evidence.agent_steps import read_progress
from harness.report.profile_text import REST, ScenarioTimes
from harness.results import Row


def step_times(folder: Path, rows: Iterable[Row]) -> Iterator[ScenarioTimes]:
    """Of each row whose capture has progress.jsonl, in seconds of the host's clock; the time of a step is until the
    next one begins.  What the agent did not see (hand-over, judging) is the rest of the row's own time.

    :param folder: of the run.
    """
    for row in rows:
        try:
            steps = read_progress((folder / row.folder / "capture" / "progress.jsonl").read_bytes())
        except (OSError, UsageError):
            continue  # it never came so far, or was cut off
        times: dict[str, float] = {}
        for old, new in pairwise(steps):
            times[old.step] = times.get(old.step, 0.0) + new.t - old.t
        inside = steps[-1].t if steps else 0.0
        yield ScenarioTimes(str(row.key), row.seconds, {**times, REST: max(0.0, row.seconds - inside)})
