# SPDX-License-Identifier: GPL-2.0-or-later
"""Which scenarios a person means, and the jobs that follow from them."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.errors import UsageError
from harness.judge.verdict_types import Verdict
from harness.results import Key, Row
from harness.run.scenario_sources import ScenarioFiles
from harness.scenario.load import Refusal, refused_error
from harness.scenario.schema import Scenario


@dataclass(frozen=True, slots=True)
class Job:
    """One performance: a scenario on a kernel, for the ``key.repeat``-th time."""

    key: Key
    scenario: Scenario

    def row(self, verdict: Verdict, seconds: float = 0.0) -> Row:
        """The line of the run's results for this verdict."""
        return Row(self.key, verdict, self.scenario.title, seconds)


APART = "apart"


class _Named(Protocol):
    """What a pattern may name."""

    @property
    def id(self) -> str: ...
    @property
    def tags(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is meant: scenarios; files that would hold more of them and were refused; refused files of others."""

    scenarios: tuple[Scenario, ...]
    refused: tuple[Refusal, ...]
    others: tuple[Refusal, ...]


def choose(files: ScenarioFiles, patterns: Iterable[str]) -> Chosen:
    """Like select(), where a bad file takes nothing but its own scenarios away.

    :raise UsageError: a pattern names nothing.
    :raise ScenarioError: nothing is left, because all that is meant was refused.
    """
    given = list(patterns)
    refused = tuple(r for r in files.refused if not given or any(_matches(r, pattern) for pattern in given))
    left = [pattern for pattern in given if not any(_matches(r, pattern) for r in refused)]
    names_good = [pattern for pattern in given if any(_matches(s, pattern) for s in files.scenarios)]
    wanted = list(dict.fromkeys((*left, *names_good)))
    found = select(files.scenarios, wanted) if wanted or not given else ()
    if not found and refused:
        raise refused_error(refused)
    return Chosen(found, refused, tuple(r for r in files.refused if r not in refused))


def select(scenarios: Sequence[Scenario], patterns: Iterable[str]) -> tuple[Scenario, ...]:
    """The scenarios that any pattern names, in the order of the files.

    When there is no pattern: all of them but those with the tag "apart", which need what a run has not by itself.

    A pattern is an id, a glob ("S2*"), a tag ("tag:smoke"), or the id of a matrix file (all its combinations).

    :raise UsageError: a pattern names nothing; the message has the nearest ids.
    """
    wanted: set[str] = set()
    given = list(patterns)
    for pattern in given:
        found = {s.id for s in scenarios if _matches(s, pattern)}
        if not found:
            near = difflib.get_close_matches(pattern, [s.id for s in scenarios], n=5, cutoff=0.4)
            if Path(pattern).exists():
                raise UsageError(
                    f"no scenario is called {pattern!r}", hint=f"for a file or folder: --scenarios {pattern}"
                )
            raise UsageError(
                f"no scenario is called {pattern!r}",
                hint=f"did you mean {', '.join(near)}?" if near else "`apf list` shows all of them",
            )
        wanted |= found
    return tuple(s for s in scenarios if (s.id in wanted if given else APART not in s.tags))


def _matches(named: _Named, pattern: str) -> bool:
    if pattern.startswith("tag:"):
        return pattern[4:] in named.tags
    return fnmatch.fnmatchcase(named.id, pattern) or fnmatch.fnmatchcase(named.id.partition("/")[0], pattern)


def plan_jobs(scenarios: Sequence[Scenario], kernels: Mapping[str, str], repeats: int = 0) -> tuple[Job, ...]:
    """The jobs, kernel by kernel, so that one boot of a host serves many.

    :param kernels: variant by kernel id; a scenario that names variants is planned only for kernels of those.
    :param repeats: how often each; 0: as often as the scenario says.
    :raise UsageError: none of the scenarios is for any of the kernels.
    """
    jobs = tuple(
        Job(Key(scenario.id, kernel, n), scenario)
        for kernel, variant in kernels.items()
        for scenario in scenarios
        if not scenario.variants or variant in scenario.variants
        for n in range(1, (repeats or scenario.repeats) + 1)
    )
    if not jobs:
        raise UsageError("none of these scenarios is meant for the variants of these kernels")
    folders: dict[str, Key] = {}
    for job in jobs:
        other = folders.setdefault(job.key.folder, job.key)
        if other != job.key:
            raise UsageError(f"{other} and {job.key} would share the folder {job.key.folder}: rename one of them")
    return jobs


def check_allowed(names: Iterable[str], files: ScenarioFiles) -> None:
    """Hold the scenarios that may be UNSUPPORTED against those that there are.

    :raise UsageError: one of them is none.
    """
    known = {s.id for s in files.scenarios} | {r.id for r in files.refused}
    for name in sorted(names):
        if name not in known:
            raise UsageError(f"--allow-unsupported {name}: there is no such scenario")
