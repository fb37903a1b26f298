# SPDX-License-Identifier: GPL-2.0-or-later
"""How many random scenarios it takes until a deliberate mistake of a kernel is noticed."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.artifacts.kernels import built_kernel
from harness.artifacts.store import Store
from harness.contract.structure import to_json
from harness.results import Key, Row
from harness.run.ending import saved_at_the_end
from harness.run.exploration import ExploreOrder, Scenarios
from harness.run.mutant_catalog import require_mutants
from harness.run.mutant_trials import PARAMETER, Catch, Mutant, Trial
from harness.run.one_performer import one_performer
from harness.run.request import Observer, Request
from harness.run.run_folder import RunFolder
from harness.run.selection import Job
from harness.scenario.schema import Scenario


@dataclass(frozen=True, slots=True)
class Hunt:
    """What became of one mutant.

    :ivar scenarios: how many were performed with it and judged, so that they could have noticed it.
    :ivar caught_by: the scenario that the kernel failed with the mistake, and passed without; empty if none did.
    :ivar named: a rule that names the fault was broken.
    :ivar false_alarms: scenarios that it failed without the mistake, too.
    :ivar undecided: what else was performed, with or without the mistake, and what came of it instead of a judgement.
    """

    mutant: str
    number: int
    scenarios: int = 0
    caught_by: str = ""
    rule: str = ""
    named: bool = False
    false_alarms: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()

    @property
    def catch(self) -> Catch:
        """In one word.  A mutant has survived only what could have caught it."""
        if self.caught_by:
            return Catch.NAMED if self.named else Catch.OTHERWISE
        return Catch.SURVIVED if self.scenarios else Catch.UNDECIDED


@dataclass(frozen=True, slots=True)
class Hunts:
    """All of them, as mutants.json has them."""

    seed: int
    hunts: tuple[Hunt, ...] = ()
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0: each was caught; 1: not all; 130: interrupted."""
        if self.interrupted:
            return 130
        return 0 if self.hunts and all(hunt.caught_by for hunt in self.hunts) else 1


def explore_mutants(
    order: ExploreOrder, mutants: Sequence[Mutant], request: Request, observer: Observer
) -> tuple[Hunts, Path]:
    """Each mutant under the same scenarios, one after the other, until one catches it or ``order.plans`` have not.

    Ctrl-C ends it in order; the result says so.

    :raise UsageError: the kernel has no mistakes in it.
    """
    store = Store(progress=observer.progress)
    for name in request.kernels:
        require_mutants(request.kernel(name))
        if request.fleet is None:
            require_mutants(request.kernel(name), built_kernel.kernel(store, request.kernel(name), observer.progress))
    folder = RunFolder.create(request.results, datetime.datetime.now())
    scenarios = Scenarios(order, request)
    found = Hunts(order.seed)

    def save(interrupted: bool = False) -> None:
        nonlocal found
        observer.scope("")
        found = replace(found, interrupted=interrupted)
        folder.write_text("mutants.json", to_json(found))

    with saved_at_the_end(save), one_performer(request.names[0], request, folder, observer) as perform:
        for mutant in mutants:
            hunt = _hunt(mutant, scenarios, order, perform, folder, observer)
            found = replace(found, hunts=(*found.hunts, hunt))
            save()
    return found, folder.path


def _hunt(
    mutant: Mutant,
    scenarios: Scenarios,
    order: ExploreOrder,
    perform: Callable[[Job], Row],
    folder: RunFolder,
    observer: Observer,
) -> Hunt:
    hunt = Hunt(mutant.name, mutant.number)

    def trial(scenario: Scenario, of: Mutant | None) -> Row:
        name = of.id_under(scenario.id) if of is not None else f"{scenario.id}@none-{mutant.number}"
        params = {**scenario.kernel_params, PARAMETER: str(of.number if of is not None else 0)}
        job = Job(Key(name, scenarios.kernel), replace(scenario, id=name, kernel_params=params))
        row = perform(job)
        folder.finish(row)
        observer.verdict(row)
        return row

    for number in range(order.plans):
        scenario = scenarios.at(number)
        row = trial(scenario, mutant)
        seen = Trial(mutant, scenario.id, row, folder.path)
        if row.status.as_predicted:
            hunt = replace(hunt, scenarios=hunt.scenarios + 1)
            continue
        if seen.caught:
            row = trial(scenario, None)
            if row.status.as_predicted:
                judged = hunt.scenarios + 1
                return replace(hunt, scenarios=judged, caught_by=scenario.id, rule=seen.rule, named=seen.named)
            if Trial(None, scenario.id, row, folder.path).caught:
                hunt = replace(hunt, false_alarms=(*hunt.false_alarms, scenario.id))
                continue
        told = f"{row.key.scenario}: {row.status}: {row.verdict.reason}"
        hunt = replace(hunt, undecided=(*hunt.undecided, told))
    return hunt
