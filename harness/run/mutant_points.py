# SPDX-License-Identifier: GPL-2.0-or-later
"""Systematic mutants: which scenarios reach a point is observed on the unmutated kernel, then each point is tried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from harness.artifacts import layout
from harness.artifacts.kernels.mutation_points import POINTS, Point, from_json, reached
from harness.artifacts.kernels.mutation_targets import Targets, load_targets
from harness.errors import UsageError
from harness.run.mutant_order import Reach, for_a_first_catch, for_another_catch
from harness.run.mutant_trials import Mutant, MutantTrials, Trial

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
        alone=targets.why_alone(point, nth),
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

    What is tried next is chosen from what all trials so far have shown.

    :param scenarios: ids of the scenarios to choose from.
    :param tries: scenarios for each catch of a mutant at most.
    :param catches: so many kinds of scenarios that name a mutant are enough.
    :return: the mutants with their scenarios, and whether all was performed (False: Ctrl-C).
    """
    if not trials.try_unmutated(scenarios):
        return tuple(mutants), False
    while True:
        chosen = with_scenarios(trials, mutants, scenarios, tries, catches)
        wanted = trials.wanted(chosen, every=every, catches=catches)
        if not wanted:
            return chosen, True
        if not trials.perform(wanted):
            return with_scenarios(trials, mutants, scenarios, tries, catches), False


def with_scenarios(
    trials: MutantTrials, mutants: Sequence[Mutant], scenarios: Sequence[str], tries: int, catches: int = 1
) -> tuple[Mutant, ...]:
    """The mutants with scenarios under which the unmutated kernel was seen to reach them: those tried already, and then
    those to be tried next, all together ``tries`` for each of the ``catches`` at most."""
    control = [t for t in trials.trials if t.mutant is None and t.scenario in scenarios]
    reach = Reach(
        {t.scenario: _reached(t) for t in control}, {t.scenario: t.row.seconds if t.row else 0.0 for t in control}
    )
    of_number: dict[int, list[Trial]] = {}
    for trial in trials.trials:
        if trial.mutant is not None:
            of_number.setdefault(trial.mutant.number, []).append(trial)

    def chosen(mutant: Mutant) -> Iterator[str]:
        mine = of_number.get(mutant.number, ())
        named = [t.scenario for t in mine if t.named]
        able = set(reach.able(mutant))
        yield from (t.scenario for t in mine if t.scenario in able)
        if named:
            yield from for_another_catch(mutant, named, reach)
        else:
            yield from for_a_first_catch(mutant, mutants, reach)

    return tuple(
        m if not m.live else replace(m, scenarios=tuple(islice(dict.fromkeys(chosen(m)), tries * catches)))
        for m in mutants
    )


def _reached(trial: Trial) -> frozenset[int]:
    """Only a scenario in which the unmutated kernel does as its model says, be it a known finding, can show what a
    mutant does wrong."""
    if trial.row is None or not trial.row.status.as_predicted:
        return frozenset()
    path = trial.folder / trial.row.folder / REACHED
    return reached(path.read_text()) if path.is_file() else frozenset()
