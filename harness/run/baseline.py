# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel against a run that was captured before: for hosts that have one kernel, and bases that need no new run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.contract.plan import Plan, from_json
from harness.errors import UsageError
from harness.judge.comparison import Comparison, compare
from harness.judge.verdict_types import Stage
from harness.results import Key, Row, RunResult
from harness.run.report_folder import read_run
from harness.run.request import Observer, Request
from harness.run.runner import perform_jobs
from harness.run.scenario_sources import ScenarioFiles, default_scenarios, read_scenarios
from harness.run.selection import check_allowed, plan_jobs, select
from harness.run.setup import find_variants
from harness.status import Status


@dataclass(frozen=True, slots=True)
class Baseline:
    """What an earlier run says of one kernel: the first verdict of each scenario that was judged."""

    folder: Path
    kernel: str
    rows: Mapping[str, Row]

    def plan(self, scenario: str) -> Plan:
        """What was performed then."""
        return from_json(Plan, (self.folder / self.rows[scenario].folder / "plan.json").read_text())


@dataclass(frozen=True, slots=True)
class AgainstBaseline:
    """``left_out``: scenarios that could not be compared, and why."""

    result: RunResult
    folder: Path
    comparisons: tuple[Comparison, ...]
    left_out: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0: everything is green and nothing differs that the models do not predict."""
        if self.result.exit_code:
            return self.result.exit_code
        return 0 if self.comparisons and not self.left_out and all(c.green for c in self.comparisons) else 1


def read_baseline(folder: Path, kernel: str = "") -> Baseline:
    """A run as a baseline.

    :param kernel: the kernel of the run that is meant; empty: the only one.
    :raise UsageError: it is no run, has no such kernel, or several.
    """
    result = read_run(folder)
    kernels = sorted({row.key.kernel for row in result.rows})
    if not kernel and len(kernels) == 1:
        kernel = kernels[0]
    if kernel not in kernels:
        raise UsageError(
            f"{folder} has {'no kernel' if kernel else 'several kernels,'} {kernel or 'so --base says which is meant'}",
            hint=f"it has {', '.join(kernels) or 'no verdict'}",
        )
    rows = {
        row.key.scenario: row
        for row in reversed(result.rows)
        if row.key.kernel == kernel and row.verdict.stage is Stage.JUDGE and row.status is not Status.ERROR
    }
    return Baseline(folder.resolve(), kernel, rows)


def compare_with_baseline(request: Request, baseline: Baseline, observer: Observer) -> AgainstBaseline:
    """Run the baseline's scenarios on the request's kernel, and compare.

    :raise UsageError: more than one kernel, no scenario in common, or the request cannot be carried out.
    """
    if len(request.names) != 1:
        raise UsageError("one kernel is held against a baseline")
    known = read_scenarios(request.scenario_paths or (default_scenarios(),))
    check_allowed(request.allow_unsupported, ScenarioFiles(known, ()))
    chosen = select(known, request.patterns)
    common = [scenario for scenario in chosen if scenario.id in baseline.rows]
    if not common:
        raise UsageError(f"{baseline.folder} has judged none of these scenarios on {baseline.kernel}")
    jobs = plan_jobs(common, find_variants(request), 1)
    result, folder = perform_jobs(jobs, request, observer)
    comparisons, left_out = [], []
    for key in result.planned:
        row = result.row(key)
        why = _why_not(row)
        if row is not None and not why:
            then, now = baseline.plan(key.scenario), _plan(folder, key)
            if replace(then, nonce=now.nonce) == now:
                comparisons.append(compare(now, baseline.rows[key.scenario].verdict, row.verdict))
                continue
            why = "its plan is another than in the baseline"
        left_out.append(f"{key.scenario}: not compared: {why}")
    return AgainstBaseline(result, folder, tuple(comparisons), tuple(left_out))


def _why_not(row: Row | None) -> str:
    if row is None:
        return "it has no verdict"
    if row.verdict.stage is not Stage.JUDGE or row.status is Status.ERROR:
        return f"{row.status.value}: {row.verdict.reason}"
    return ""


def _plan(folder: Path, key: Key) -> Plan:
    return from_json(Plan, (folder / key.folder / "plan.json").read_text())
