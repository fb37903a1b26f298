# SPDX-License-Identifier: GPL-2.0-or-later
"""The harness tried on kernels that are known to be wrong: each mutant must be caught, the unmutated kernel be green.

One kernel holds many mutants, written by hand (kernels/patches/mutants) or made systematically (kernels/mutate.toml).
The parameter kvm.apf_mutant selects one at run time, so a mutant is a scenario with one more kernel parameter.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.artifacts import layout
from harness.errors import CatalogError, UsageError
from harness.judge.verdict_types import Stage
from harness.model.protocol.rules import RULES
from harness.results import Key, Row
from harness.run.request import Observer, Request
from harness.run.runner import perform_jobs
from harness.run.scenario_sources import default_scenarios, read_scenarios
from harness.run.selection import Job
from harness.scenario.schema import Scenario
from harness.status import Status

KERNEL = "mutants-6.1"
PARAMETER = "kvm.apf_mutant"
CATALOG = layout.KERNELS / "patches/mutants/MUTANTS.toml"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake.  ``scenarios``: those that should catch it, the likeliest first; ``rules``: those that name it."""

    name: str
    number: int
    about: str
    imitates: str
    scenarios: tuple[str, ...]
    rules: tuple[str, ...]
    hangs: bool = False
    equivalent: str = ""  # why nobody can notice it

    @property
    def label(self) -> str:
        """Short, and fit for the id of a scenario."""
        return self.name if self.name.isidentifier() else str(self.number)


class Catch(StrEnum):
    """What became of a mutant."""

    NAMED = "caught"  # by a rule that names the fault
    OTHERWISE = "caught otherwise"  # a FAIL, but by nothing that names the fault
    SURVIVED = "SURVIVED"
    NOT_RUN = "not run"  # no scenario reaches it, or none got a verdict


@dataclass(frozen=True, slots=True)
class Trial:
    """A mutant (None: the unmutated kernel) under one scenario."""

    mutant: Mutant | None
    scenario: str
    row: Row | None  # None: no verdict

    @property
    def caught(self) -> bool:
        """A FAIL that is no accident of ours: an INCONCLUSIVE or ERROR proves nothing, nor does a host that died while
        it booted: no mistake is selected yet."""
        return self.row is not None and self.row.status is Status.FAIL and self.row.verdict.stage is not Stage.BOOT

    @property
    def rules(self) -> tuple[str, ...]:
        """What the verdict's findings are about, each once, the first divergence first; "host" for trouble of the host
        that ended the scenario.  Empty if not caught."""
        if self.row is None or not self.caught:
            return ()
        return tuple(dict.fromkeys(finding.rule for finding in self.row.verdict.findings)) or ("host",)

    @property
    def rule(self) -> str:
        """The protocol rules that were broken, or else what the first divergence is about; empty if not caught."""
        return " ".join(rule for rule in self.rules if rule in RULES) or next(iter(self.rules), "")

    @property
    def named(self) -> bool:
        """Caught by a rule that names the fault."""
        return self.mutant is not None and not _rules_meant(self.mutant.rules).isdisjoint(self.rules)


def _rules_meant(words: Sequence[str]) -> frozenset[str]:
    """The rules that MUTANTS.toml names by its own words: "count" is any prediction of counts or outcomes, "timeout" a
    program that never ends."""
    wider = {"count": ("item", "total", "value"), "timeout": ("ending", "item", "host")}
    return frozenset(rule for word in words for rule in wider.get(word, (word,)))


def catch_of(mutant: Mutant, trials: Sequence[Trial]) -> Catch:
    """The best that any of the trials says of a mutant."""
    mine = [t for t in trials if t.mutant is not None and t.mutant.number == mutant.number]
    if any(t.named for t in mine):
        return Catch.NAMED
    if any(t.caught for t in mine):
        return Catch.OTHERWISE
    return Catch.SURVIVED if any(t.row is not None for t in mine) else Catch.NOT_RUN


def load_mutants(path: Path = CATALOG) -> tuple[Mutant, ...]:
    """:raise CatalogError: the file cannot be read, or an entry lacks something."""
    try:
        raw: dict[str, Any] = tomllib.loads(path.read_text())
        return tuple(
            Mutant(
                name,
                e["number"],
                e["about"],
                e["imitates"],
                tuple(e["scenarios"]),
                tuple(e["rules"]),
                e.get("hangs", False),
            )
            for name, e in raw.items()
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as exc:
        raise CatalogError(f"{path}: {exc!r}") from exc


def choose(mutants: Sequence[Mutant], names: Sequence[str]) -> tuple[Mutant, ...]:
    """Those named by name or number; all without names.

    :raise UsageError: a name that none has.
    """
    known = {m.name: m for m in mutants} | {str(m.number): m for m in mutants}
    wrong = [n for n in names if n not in known]
    if wrong:
        raise UsageError(
            f"no mutant is called {', '.join(wrong)}", hint=f"known are {', '.join(m.name for m in mutants)}"
        )
    return tuple(known[n] for n in names) if names else tuple(mutants)


def run_mutants(
    request: Request,
    observer: Observer,
    mutants: Sequence[Mutant],
    *,
    every: bool,
    control: bool = True,
    only_control: bool = False,
    kernel: str = KERNEL,
) -> tuple[list[Trial], list[Path], bool]:
    """First the unmutated kernel under all scenarios concerned, then each mutant until it is caught by name.

    :param every: do not stop at the first catch: the whole table.
    :param only_control: the unmutated kernel alone.
    :param kernel: which kernel has the mutants.
    :return: the trials, the folders of the runs, and whether all were performed (False: Ctrl-C).
    """
    known = {s.id: s for s in read_scenarios(request.scenario_paths or (default_scenarios(),))}
    trials: list[Trial] = []
    folders: list[Path] = []

    def perform(wanted: Sequence[tuple[Mutant | None, Scenario]]) -> bool:
        jobs = {_job(m, s, kernel).key: (m, s, _job(m, s, kernel)) for m, s in wanted}
        result, folder = perform_jobs([job for _, _, job in jobs.values()], request, observer)
        folders.append(folder)
        rows = {row.key: row for row in result.rows}
        trials.extend(Trial(m, s.id, rows.get(key)) for key, (m, s, _) in jobs.items())
        return not result.interrupted

    absent = sorted({s for m in mutants for s in m.scenarios if s not in known})
    if absent:
        raise CatalogError(f"the mutants name scenarios that do not exist: {', '.join(absent)}")
    queue = {m.name: [known[s] for s in m.scenarios] for m in mutants}
    if control:
        concerned = list(dict.fromkeys(s.id for chosen in queue.values() for s in chosen))
        if not perform([(None, known[name]) for name in concerned]):
            return trials, folders, False
    if only_control:
        return trials, folders, True
    while True:
        caught = {t.mutant.name for t in trials if t.mutant is not None and t.named}
        wanted: list[tuple[Mutant | None, Scenario]] = []
        for mutant in mutants:
            if mutant.name in caught and not every:
                continue
            take = queue[mutant.name] if every else queue[mutant.name][:1]
            queue[mutant.name] = queue[mutant.name][len(take) :]
            wanted += [(mutant, s) for s in take]
        if not wanted:
            return trials, folders, True
        if not perform(wanted):
            return trials, folders, False


def _job(mutant: Mutant | None, scenario: Scenario, kernel: str) -> Job:
    if mutant is None:
        return Job(Key(scenario.id, kernel), scenario)
    name = f"{scenario.id}@{mutant.label}"
    changed = replace(scenario, id=name, kernel_params={**scenario.kernel_params, PARAMETER: str(mutant.number)})
    return Job(Key(name, kernel), changed)
