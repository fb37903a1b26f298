# SPDX-License-Identifier: GPL-2.0-or-later
"""The same scenarios on two kernels, each judged against its own model, then laid beside each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.errors import CaptureDamaged, UsageError
from harness.evidence.decode import read_plan
from harness.judge.comparison import Comparison, compare
from harness.judge.verdict import judge_capture
from harness.results import Key, RunResult
from harness.run.judge_folder import model_of, read_capture
from harness.run.request import Observer, Request
from harness.run.runner import run
from harness.status import Status


def compare_kernels(request: Request, observer: Observer) -> tuple[RunResult, Path, tuple[Comparison, ...]]:
    """Run the scenarios on the request's two kernels and compare.

    :raise UsageError: not two different kernels, or the request cannot be carried out.
    """
    if len(set(request.kernels)) != 2:
        raise UsageError(f"two different kernels are compared, not {', '.join(request.kernels) or 'none'}")
    a, b = request.kernels
    result, folder = run(request, observer)
    variants = {name: request.kernel(name).variant for name in request.kernels}
    return result, folder, compare_folder(folder, result, a, b, variants)


def compare_folder(folder: Path, result: RunResult, a: str, b: str, variants: dict[str, str]) -> tuple[Comparison, ...]:
    """Compare what a run left: scenarios that were performed on both kernels (first repeats only)."""
    found = []
    for key in result.planned:
        if key.kernel != a or key.repeat != 1:
            continue
        sides = []
        for kernel in (a, b):
            try:
                files = read_capture(folder / replace(key, kernel=kernel).folder / "capture")
                plan = read_plan(files)
                sides.append(judge_capture(files, model_of(files, variants[kernel])))
            except CaptureDamaged:
                break
            if sides[-1].status is Status.UNSUPPORTED:
                break
        if len(sides) == 2:
            found.append(compare(plan, *sides))
    return tuple(found)


def missing(result: RunResult, comparisons: tuple[Comparison, ...], a: str) -> tuple[Key, ...]:
    """Scenarios that could not be compared: one side left no capture, or cannot do it."""
    done = {c.scenario for c in comparisons}
    return tuple(k for k in result.planned if k.kernel == a and k.repeat == 1 and k.scenario not in done)
