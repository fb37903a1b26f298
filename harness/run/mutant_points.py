# SPDX-License-Identifier: GPL-2.0-or-later
"""Systematic mutants: which scenarios reach a point is observed on the unmutated kernel, then each point is tried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from harness.artifacts import layout
from harness.artifacts.kernels.mutation_points import POINTS, Point, from_json, reached
from harness.artifacts.kernels.mutation_targets import Targets, load_targets
from harness.errors import UsageError
from harness.run.mutant_trials import Mutant, MutantTrials, Trial

REACHED = "capture/host/apf_reached.txt"
"""What the agent leaves of a kernel with points (harness/agent/host/points.py)."""
TARGETS = layout.KERNELS / "mutate.toml"
_QUICK = 1.6
"""So many times as long as the quickest of the scenarios that reach a point is still quick."""


def load_points(folder: Path, targets: Path = TARGETS) -> tuple[Mutant, ...]:
    """The mutants of a built kernel, without scenarios yet.

    :raise UsageError: the kernel was built without points.
    :raise CatalogError: the list of points or that of functions cannot be read.
    """
    path = folder / POINTS
    if not path.is_file():
        raise UsageError(f"{folder} has no {POINTS}: this kernel has no mutants in it", hint="see kernels/catalog.toml")
    told = load_targets(targets)
    seen: Counter[str] = Counter()
    found = []
    for point in from_json(path.read_text()):
        seen[point.name] += 1
        found.append(_mutant(point, seen[point.name], told))
    return tuple(found)


def _mutant(point: Point, nth: int, targets: Targets) -> Mutant:
    return Mutant(
        name=point.name,
        number=point.number,
        about=f"{point.file}:{point.line}",
        imitates=point.function,
        scenarios=(),
        rules=targets.rules_of(point),
        equivalent=targets.why_equivalent(point, nth),
        out_of_reach=targets.why_out_of_reach(point, nth),
    )


def try_points(
    trials: MutantTrials,
    mutants: Sequence[Mutant],
    scenarios: Sequence[str],
    *,
    tries: int,
    catches: int = 1,
    every: bool = False,
) -> tuple[tuple[Mutant, ...], bool]:
    """The unmutated kernel under all scenarios, then each mutant under those that reach it until enough name it.

    :param scenarios: ids of the scenarios to choose from.
    :param tries: scenarios for each mutant at most.
    :param catches: so many scenarios that name a mutant are enough.
    :return: the mutants with their scenarios, and whether all was performed (False: Ctrl-C).
    """
    if not trials.try_unmutated(scenarios):
        return tuple(mutants), False
    chosen = with_scenarios(trials, mutants, scenarios, tries)
    return chosen, trials.try_mutants(chosen, every=every, catches=catches)


def with_scenarios(
    trials: MutantTrials, mutants: Sequence[Mutant], scenarios: Sequence[str], tries: int
) -> tuple[Mutant, ...]:
    """The mutants with those of these scenarios under which the unmutated kernel was seen to reach them."""
    control = [t for t in trials.trials if t.mutant is None and t.scenario in scenarios]
    seen = {t.scenario: _reached(t) for t in control}
    seconds = {t.scenario: t.row.seconds if t.row else 0.0 for t in control}
    return tuple(
        m if not m.live else replace(m, scenarios=tuple(islice(choose_scenarios(m, mutants, seen, seconds), tries)))
        for m in mutants
    )


def choose_scenarios(
    mutant: Mutant,
    mutants: Sequence[Mutant],
    reached_by: Mapping[str, frozenset[int]],
    seconds: Mapping[str, float],
) -> Iterator[str]:
    """Scenarios that reach a point: of the quick ones the one that comes by most points of its function (where that is
    alike: by most points at all), then of all of them; then always the one that comes by most points that none before
    came by, because what differs most is likeliest to notice; the quickest where all that is alike."""
    able = sorted((s for s, points in reached_by.items() if mutant.number in points), key=lambda s: (seconds[s], s))
    of_function = frozenset(m.number for m in mutants if m.imitates == mutant.imitates)
    quick = [s for s in able if seconds[s] <= _QUICK * seconds[able[0]]]
    seen: frozenset[int] = frozenset()

    def worth(scenario: str) -> tuple[int, int]:
        return len(reached_by[scenario] & of_function), len(reached_by[scenario])

    for among in (quick, able):
        left = [s for s in among if s in able]
        if left:
            best = max(left, key=worth)
            able.remove(best)
            seen |= reached_by[best]
            yield best
    while able:
        best = max(able, key=lambda s: len(reached_by[s] - seen))
        able.remove(best)
        seen |= reached_by[best]
        yield best


def _reached(trial: Trial) -> frozenset[int]:
    """Only a scenario in which the unmutated kernel does as its model says, be it a known finding, can show what a
    mutant does wrong."""
    if trial.row is None or not trial.row.status.as_predicted:
        return frozenset()
    path = trial.folder / trial.row.folder / REACHED
    return reached(path.read_text()) if path.is_file() else frozenset()
