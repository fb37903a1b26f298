# SPDX-License-Identifier: GPL-2.0-or-later
"""The same scenarios on two kernels, each judged against its own model, then laid beside each other."""

from __future__ import annotations

from pathlib import Path

from harness.artifacts.kernels import built_kernel
from harness.artifacts.store import Store
from harness.contract.plan import Plan, from_json
from harness.errors import UsageError
from harness.judge.comparison import Comparison
from harness.results import Key, RunResult
from harness.run.compare_results import compare_results
from harness.run.request import Observer, Request
from harness.run.runner import run
from harness.run.scenario_sources import default_scenarios, read_scenario_files
from harness.run.selection import choose
from harness.run.setup import find_variants


def compare_kernels(request: Request, observer: Observer) -> tuple[RunResult, Path, tuple[Comparison, ...]]:
    """Run the scenarios on the request's two kernels and compare.

    :raise UsageError: not two different kernels, or the request cannot be carried out.
    """
    if len(set(request.kernels)) != 2:
        raise UsageError(f"two different kernels are compared, not {', '.join(request.kernels) or 'none'}")
    a, b = request.kernels
    result, folder = run(request, observer)

    def plan_of(key: Key) -> Plan:
        return from_json(Plan, (folder / key.folder / "plan.json").read_text())

    return result, folder, compare_results(result, plan_of, a, b)


def make_first(request: Request, name: str, observer: Observer) -> None:
    """Build one kernel of a request before anything is performed, so that its failure is told alone.

    :raise UsageError: the request cannot be carried out as written; nothing was built.
    :raise BuildFailed: it does not build, or a patch does not apply.
    """
    choose(read_scenario_files(request.scenario_paths or (default_scenarios(),)), request.patterns)
    find_variants(request)
    if request.place.boots:
        built_kernel.kernel(Store(progress=observer.progress), request.kernel(name), observer.progress)


def missing(result: RunResult, comparisons: tuple[Comparison, ...]) -> tuple[str, ...]:
    """Scenarios that could not be compared: one side left no capture, cannot do it, or was not to."""
    done = {c.scenario for c in comparisons}
    return tuple(dict.fromkeys(k.scenario for k in result.planned if k.scenario not in done))


def compared_code(result: RunResult, comparisons: tuple[Comparison, ...]) -> int:
    """The exit code: 0 where all is green, something was compared, and nothing differs but as the models predict."""
    return result.exit_code or int(not comparisons or not all(c.green for c in comparisons))
