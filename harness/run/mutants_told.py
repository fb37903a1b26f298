# SPDX-License-Identifier: GPL-2.0-or-later
"""Trials that a page of the documentation tells of: the captures of earlier runs may be gone, what they showed is not.

A section says which kernel was tried and what each scenario was like then; of another kernel, or a scenario that has
changed since, it tells nothing.  Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from harness.judge.verdict_types import Finding, Verdict
from harness.report.mutants_text import MADE_FROM, SCENARIOS, code_of, section_of, table_cells
from harness.results import Key, Row
from harness.run.mutant_trials import Mutant, Trial
from harness.scenario.dump import dump
from harness.scenario.schema import Scenario
from harness.status import Status

_FUNCTION = re.compile(r"### (?P<function>\S+) \((?P<file>\S+)\): \d+ of \d+")
_CELL = re.compile(rf"(?P<scenario>\S+?)(?P<at_go> at go)? (?P<status>{'|'.join(Status)})(?: \((?P<names>[^)]*)\))?")
_NOT_NAMED = ", not named"
_COLUMNS = 4  # line, made wrong, by scenario, what became of it


def scenario_digest(scenario: Scenario) -> str:
    """Short, and another one when something else is set up or done; not for other words, tags or patience."""
    bare = replace(scenario, title="", why="", catalogue="", tags=(), variants=(), deadline_s=60, repeats=1)
    return hashlib.sha256(dump(bare).encode()).hexdigest()[:8]


def trials_told(
    page: str, kernel: str, identity: str, mutants: Sequence[Mutant], scenarios: Iterable[Scenario]
) -> list[Trial]:
    """The trials in a kernel's section of a page (mutants_page), in its order.

    Of a finding only its name is told.  A trial without a judgement counts where the mutant was selected at go because
    of it; of any other nobody can say how far it came.

    :param identity: BuiltKernel.identity of the kernel of today.
    :param scenarios: those of today.
    """
    section = section_of(page, kernel)
    if MADE_FROM.format(identity) not in " ".join(section):
        return []
    then = dict(_digests(section))
    same = {s.id for s in scenarios if then.get(s.id) == scenario_digest(s)}
    numbered = _by_place(mutants)
    seen: Counter[tuple[str, str]] = Counter()
    place, trials = "", []
    for line in section:
        if heading := _FUNCTION.fullmatch(line):
            place = heading["file"]
        cells = table_cells(line)
        if len(cells) != _COLUMNS or not place:
            continue
        point = (f"{place}:{cells[0]}", cells[1])
        seen[point] += 1
        mutant = numbered.get((*point, seen[point]))
        if mutant is not None:
            trials += [t for t in _of_row(cells[2], mutant, kernel) if t.scenario in same]
    return trials


def _by_place(mutants: Sequence[Mutant]) -> Mapping[tuple[str, str, int], Mutant]:
    """Place, what is made wrong, and which of those that are called the same there."""
    seen: Counter[tuple[str, str]] = Counter()
    found = {}
    for mutant in mutants:
        point = (mutant.about, code_of(mutant.name))
        seen[point] += 1
        found[*point, seen[point]] = mutant
    return found


def _digests(section: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What follows the heading SCENARIOS: "S23 0123abcd, ..."."""
    if SCENARIOS not in section:
        return
    words = " ".join(section[section.index(SCENARIOS) + 1 :]).strip().removesuffix(".")
    for told in words.split(", "):
        scenario, _, digest = told.partition(" ")
        yield scenario, digest


def _of_row(text: str, mutant: Mutant, kernel: str) -> list[Trial]:
    told = [found for part in text.split("; ") if (found := _CELL.fullmatch(part))]
    late = any(found["at_go"] for found in told)
    trials = [_trial(found, mutant, kernel) for found in told]
    return [t for t in trials if late or not t.undecided]


def _trial(told: re.Match[str], mutant: Mutant, kernel: str) -> Trial:
    scenario, at_go = told["scenario"], told["at_go"] is not None
    names = (told["names"] or "").removesuffix(_NOT_NAMED).split()
    key = Key(mutant.id_under(scenario, at_go), kernel)
    verdict = Verdict(
        scenario=key.scenario,
        status=Status(told["status"]),
        findings=tuple(Finding(rule, "", about=about) for rule, _, about in (n.partition(":") for n in names)),
    )
    return Trial(mutant, scenario, Row(key, verdict), at_go=at_go)
