# SPDX-License-Identifier: GPL-2.0-or-later
"""Systematic mutants: which scenarios reach a point is observed on the unmutated kernel, then each point is tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.artifacts import layout
from harness.artifacts.kernels.mutation_points import POINTS, Point, Targets, from_json, load_targets, reached
from harness.errors import UsageError
from harness.run.mutant_trials import Mutant, Trial, run_mutants
from harness.run.request import Observer, Request
from harness.status import Status

REACHED = "capture/host/apf_reached.txt"
"""What the agent leaves of a kernel with points (harness/agent/host/points.py)."""
TARGETS = layout.KERNELS / "mutate.toml"


def load_points(folder: Path, targets: Path = TARGETS) -> tuple[Mutant, ...]:
    """The mutants of a built kernel, without scenarios yet.

    :raise UsageError: the kernel was built without points.
    :raise CatalogError: the list of points or that of functions cannot be read.
    """
    path = folder / POINTS
    if not path.is_file():
        raise UsageError(f"{folder} has no {POINTS}: this kernel has no mutants in it", hint="see kernels/catalog.toml")
    told = load_targets(targets)
    return tuple(_mutant(point, told) for point in from_json(path.read_text()))


def _mutant(point: Point, targets: Targets) -> Mutant:
    return Mutant(
        name=point.name,
        number=point.number,
        about=f"{point.file}:{point.line}",
        imitates=point.function,
        scenarios=(),
        rules=targets.rules.get(point.function, ()),
        equivalent=targets.why_equivalent(point),
    )


def run_points(
    request: Request, observer: Observer, mutants: Sequence[Mutant], scenarios: Sequence[str], kernel: str, tries: int
) -> tuple[tuple[Mutant, ...], list[Trial], list[Path], bool]:
    """The unmutated kernel under all scenarios, then each mutant under those that reach it until one names it.

    :param scenarios: ids of the scenarios to choose from.
    :param tries: scenarios for each mutant at most.
    :return: the mutants with their scenarios, and what run_mutants returns.
    """
    every_scenario = Mutant("unmutated", 0, "", "", tuple(scenarios), ())
    control, folders, complete = run_mutants(
        request, observer, (every_scenario,), every=True, control=True, only_control=True, kernel=kernel
    )
    seen = {t.scenario: _reached(folders[0], t) for t in control}
    seconds = {t.scenario: t.row.seconds if t.row else 0.0 for t in control}
    chosen = tuple(
        replace(m, scenarios=() if m.equivalent else choose_scenarios(m.number, seen, seconds)[:tries]) for m in mutants
    )
    if not complete:
        return chosen, control, folders, False
    trials, more, complete = run_mutants(request, observer, chosen, every=False, control=False, kernel=kernel)
    return chosen, control + trials, folders + more, complete


def choose_scenarios(number: int, reached_by: dict[str, frozenset[int]], seconds: dict[str, float]) -> tuple[str, ...]:
    """Scenarios that reach a point: the quickest first, then the one that comes by most points, then by time."""
    able = sorted((s for s, points in reached_by.items() if number in points), key=lambda s: (seconds[s], s))
    if len(able) < 2:
        return tuple(able)
    widest = max(able[1:], key=lambda s: len(reached_by[s]))
    return (able[0], widest, *(s for s in able[1:] if s != widest))


def _reached(folder: Path, trial: Trial) -> frozenset[int]:
    """Only a green scenario of the unmutated kernel can show what a mutant does wrong."""
    if trial.row is None or trial.row.status is not Status.PASS:
        return frozenset()
    path = folder / trial.row.folder / REACHED
    return reached(path.read_text()) if path.is_file() else frozenset()
