# SPDX-License-Identifier: GPL-2.0-or-later
"""Every scenario on every kernel, one kernel at a time; what was performed before, and is still the same, is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from harness.contract.plan import Plan, from_json
from harness.errors import ModelError, UsageError
from harness.judge.verdict_types import Verdict
from harness.model.kernels import KernelModel, kernel_for
from harness.report.matrix_text import Cell, Column, KernelStep, MatrixRow
from harness.results import Key, Row, RunResult
from harness.run.judge_again import CAPTURE, judged_anew
from harness.run.model_effects import differing, shown_by
from harness.run.request import Observer, Request
from harness.run.runner import perform_jobs
from harness.run.scenario_sources import ScenarioFiles, default_scenarios, read_scenarios
from harness.run.selection import check_allowed, plan_jobs, select
from harness.run.setup import find_variants, running_build
from harness.scenario.build import build_plan
from harness.scenario.schema import Scenario
from harness.status import Status

_NONCE = 0x5EED_0000_0000_0001
"""Only the value that a read returns depends on it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A verdict of an earlier run, and where its evidence is."""

    verdict: Verdict
    folder: Path
    release: str
    identity: str


@dataclass(frozen=True, slots=True)
class Matrix:
    """What matrix_text() prints.

    :ivar result: its cells as if one run had performed them: what they are worth, by the rules of `apf run`.
    """

    columns: tuple[Column, ...]
    rows: tuple[MatrixRow, ...]
    steps: tuple[KernelStep, ...]
    result: RunResult

    @property
    def complete(self) -> bool:
        """Every cell has a verdict."""
        return not self.result.missing

    @property
    def interrupted(self) -> bool:
        """Ctrl-C ended it early."""
        return self.result.interrupted

    @property
    def exit_code(self) -> int:
        """As that of a run: RunResult.exit_code."""
        return self.result.exit_code


def run_matrix(request: Request, observer: Observer, *, perform: bool = True, judge_again: bool = False) -> Matrix:
    """Perform what is missing below ``request.results``, kernel by kernel, and lay everything beside each other.

    :param perform: False: only lay beside each other what is there.
    :param judge_again: hold the kept captures against today's model.
    :raise UsageError: the request cannot be carried out as written; nothing was started.
    """
    known = read_scenarios(request.scenario_paths or (default_scenarios(),))
    scenarios = select(known, request.patterns)
    check_allowed(request.allow_unsupported, ScenarioFiles(known, ()))
    variants = find_variants(request)
    ended = RunResult("matrix", request.command, (), (), allowed=request.allow_unsupported, accepted=request.accepted)
    runs = running_build(request, observer) if perform and not request.kernels else ""
    new = dict.fromkeys(request.names, frozenset[str]())
    for name in request.names:
        there = kept(request.results, name, scenarios, runs)
        missing = [s for s in scenarios if s.id not in there and _is_meant(s, variants[name])]
        if not missing or not perform:
            continue
        observer.line(f"{name}: {len(missing)} of {len(scenarios)} scenarios to perform")
        result, _ = perform_jobs(plan_jobs(missing, {name: variants[name]}, 1), request, observer)
        new[name] = frozenset(s.id for s in missing)
        ended = replace(ended, troubles=(*ended.troubles, *result.troubles), interrupted=result.interrupted)
        if result.interrupted:
            observer.line("interrupted: the page is written from what is there; the same command goes on from here")
            break
    found = {name: kept(request.results, name, scenarios, runs) for name in request.names}
    if judge_again and not ended.interrupted:
        for name, cells in found.items():  # what was performed just now has been judged by today's model
            old = {s: _again(k, variants[name], observer) for s, k in cells.items() if s not in new[name]}
            found[name] = cells | old
    return _laid_out(request, scenarios, variants, found, observer, ended)


def _is_meant(scenario: Scenario, variant: str) -> bool:
    return not scenario.variants or variant in scenario.variants


def kept(results: Path, kernel: str, scenarios: Sequence[Scenario], identity: str = "") -> dict[str, Kept]:
    """The newest verdict of each scenario on a kernel below a results folder, by scenario.

    :param identity: only of this build; empty: of the newest run's.

    What was performed with another plan than the scenario's present one does not count, nor an ERROR, nor a verdict on
    another level of the kernel than the newest run's.
    """
    wanted = {scenario.id: scenario for scenario in scenarios}
    plans: dict[str, Plan] = {}
    found: dict[str, Kept] = {}
    for path in sorted(results.glob("*/results.json"), reverse=True):
        if path.parent.is_symlink():
            continue
        run = json.loads(path.read_text())
        made_from = _identity(run["facts"], kernel)
        for entry in run["verdicts"]:
            if entry["kernel"] != kernel or entry["repeat"] != 1 or entry["scenario"] not in wanted:
                continue
            if entry["scenario"] in found or entry["verdict"] == Status.ERROR or (identity and made_from != identity):
                continue
            folder = path.parent / entry["folder"]
            plan = plans.get(entry["scenario"]) or build_plan(wanted[entry["scenario"]], _NONCE)
            plans[entry["scenario"]] = plan
            if _is_same_plan(folder, plan):
                verdict = Verdict.from_json((folder / "verdict.json").read_text())
                release = run["facts"].get(f"{kernel} release", "")
                found[entry["scenario"]] = Kept(verdict, folder, release, made_from)
                identity = identity or made_from
    return found


def _identity(facts: Mapping[str, str], kernel: str) -> str:
    """What tells builds of one name apart: what a kernel was made from, or ``uname -v`` of a host's own."""
    return facts.get(f"{kernel} made from") or facts.get(f"{kernel} kernel", "")


def _is_same_plan(folder: Path, plan: Plan) -> bool:
    """Whether this plan was performed there, whatever its nonce was."""
    try:
        performed = from_json(Plan, (folder / "plan.json").read_text())
    except (OSError, UsageError):
        return False
    return replace(performed, nonce=plan.nonce) == plan


def _again(cell: Kept, variant: str, observer: Observer) -> Kept:
    observer.progress(f"judging {cell.folder.name}")
    return replace(cell, verdict=judged_anew(cell.folder / CAPTURE, cell.verdict, variant))


def _laid_out(
    request: Request, scenarios: Sequence[Scenario], variants: Mapping[str, str],
    found: Mapping[str, Mapping[str, Kept]], observer: Observer, ended: RunResult,
) -> Matrix:  # fmt: skip
    """:param ended: what came of performing what was missing, as far as it is about no cell."""
    columns = tuple(_column(name, variants[name], found[name]) for name in request.names)
    rows = []
    planned: list[Key] = []
    results: list[Row] = []
    for scenario in scenarios:
        cells: list[Cell | None] = []
        for name in request.names:
            key, cell = Key(scenario.id, name), found[name].get(scenario.id)
            if cell is not None or _is_meant(scenario, variants[name]):
                planned.append(key)
            if cell is not None:
                results.append(Row(key, cell.verdict, scenario.title))
            cells.append(Cell(cell.verdict, _where(cell)) if cell is not None else None)
        rows.append(MatrixRow(scenario.id, scenario.title, tuple(cells)))
    result = replace(ended, planned=tuple(planned), rows=tuple(results))
    return Matrix(columns, tuple(rows), tuple(_steps(columns, scenarios, observer)), result)


def _column(name: str, variant: str, cells: Mapping[str, Kept]) -> Column:
    some = next(iter(cells.values()), None)
    runs = tuple(sorted({cell.folder.parent.name for cell in cells.values()}))
    return Column(name, some.release if some else "", some.identity if some else "", _model(some, variant), runs)


def _model(cell: Kept | None, variant: str) -> KernelModel | None:
    """The model of the kernel that was run: its package's version tells the stable level."""
    if cell is None:
        return None
    version = cell.identity if "Debian " in cell.identity else ""  # uname -v
    for text in (f"({cell.identity.rpartition(' ')[2]})", version, cell.release):
        try:
            return kernel_for(variant, text)
        except ModelError:
            continue
    return None


def _where(cell: Kept) -> str:
    return f"{cell.folder.parent.name}/{cell.folder.name}"


def _steps(columns: Sequence[Column], scenarios: Sequence[Scenario], observer: Observer) -> Iterator[KernelStep]:
    """From each kernel to the next of its variant: what the model says has changed, and which scenarios show it."""
    plans = {scenario.id: build_plan(scenario, _NONCE) for scenario in scenarios}
    variants = dict.fromkeys(column.model.variant for column in columns if column.model is not None)
    lines = [[c for c in columns if c.model is not None and c.model.variant is variant] for variant in variants]
    for a, b in (pair for line in lines for pair in pairwise(line)):
        assert a.model is not None and b.model is not None
        shown: dict[str, list[str]] = {name: [] for name in differing(a.model, b.model)}
        if shown:
            observer.progress(f"which scenarios show what changed from {a.name} to {b.name}")
            for scenario, plan in plans.items():
                for name in shown_by(plan, a.model, b.model):
                    shown[name].append(scenario)
        yield KernelStep(a.name, b.name, {name: tuple(ids) for name, ids in shown.items()})
