# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdicts of one run about two kernels, laid beside each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from harness.contract.plan import Plan
from harness.judge.comparison import Comparison, compare
from harness.judge.verdict_types import Stage
from harness.results import Key, Row, RunResult
from harness.status import Status


def compare_results(result: RunResult, plan_of: Callable[[Key], Plan], a: str, b: str) -> tuple[Comparison, ...]:
    """Compare what a run found: scenarios that were judged on both kernels (first repeats only)."""
    found = []
    for key in result.planned:
        if key.kernel != a or key.repeat != 1:
            continue
        left, right = (result.row(replace(key, kernel=kernel)) for kernel in (a, b))
        if left is not None and right is not None and _judged(left) and _judged(right):
            found.append(compare(plan_of(key), left.verdict, right.verdict))
    return tuple(found)


def _judged(row: Row) -> bool:
    return row.verdict.stage is Stage.JUDGE and row.status is not Status.ERROR
