# SPDX-License-Identifier: GPL-2.0-or-later
"""Systematic mutants: which scenarios are chosen.  What performs them is a stand-in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.artifacts.kernels.mutation_points import FIRST, Point, PointKind, to_json
from harness.errors import UsageError
from harness.results import RunResult
from harness.run import mutant_trials
from harness.run.mutant_points import REACHED, load_points, try_points
from harness.run.mutant_trials import Catch, MutantTrials, catch_of, kinds_that_name
from harness.run.request import Request
from harness.run.selection import Job
from harness.status import Status
from tests.unit.rows import row_of
from tests.unit.run.test_bad_luck import Listener

POINTS = (
    Point(FIRST, "virt/kvm/async_pf.c", "kvm_setup_async_pf", 190, PointKind.NOT, "(queued)"),
    Point(FIRST + 1, "virt/kvm/async_pf.c", "async_pf_execute", 88, PointKind.SKIP, "apf->vcpu = NULL;"),
)


def built(folder: Path) -> Path:
    (folder / "points.json").write_text(to_json(POINTS))
    return folder


def test_points_become_mutants_with_the_rules_of_their_function(tmp_path: Path) -> None:
    setup, unread = load_points(built(tmp_path))
    assert "D09" in setup.rules and setup.about == "virt/kvm/async_pf.c:190" and not setup.equivalent
    assert unread.equivalent, "nobody reads the field any more"


def test_a_kernel_without_points_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no mutants"):
        load_points(tmp_path)


class Runs:
    """Stands in for the hosts: the unmutated kernel passes and leaves what it reached; the mutant fails on S29."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs: list[list[str]] = []

    def __call__(self, jobs: Sequence[Job], request: Request, observer: object) -> tuple[RunResult, Path]:
        self.runs.append([job.key.scenario for job in jobs])
        rows = []
        for job in jobs:
            if "@" not in job.key.scenario:
                path = self.folder / job.key.folder / REACHED
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(self.reached(job))
            status = self.verdict(job)
            rows.append(row_of(job.key, status, "D09: too many" if status is Status.FAIL else ""))
        return RunResult("r", "", tuple(job.key for job in jobs), tuple(rows)), self.folder

    def verdict(self, job: Job) -> Status:
        return Status.FAIL if job.key.scenario.startswith("S29@") else Status.PASS

    def reached(self, job: Job) -> str:
        return "1\n" if job.key.scenario == "S29" else "0\n"


def test_each_mutant_runs_where_its_point_was_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(tmp_path)
    monkeypatch.setattr(mutant_trials, "perform_jobs", runs)
    mutants = load_points(built(tmp_path))
    trials = MutantTrials(Request(), Listener(""), "points-6.1")
    chosen, complete = try_points(trials, mutants, ("S23", "S29"), tries=3)
    assert complete and runs.runs == [["S23", "S29"], [f"S29@{FIRST}"]]
    assert [m.scenarios for m in chosen] == [("S29",), ()]
    assert catch_of(chosen[0], trials.trials) is Catch.NAMED
    assert catch_of(chosen[1], trials.trials) is Catch.EQUIVALENT


def test_what_is_known_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutant_trials, "perform_jobs", Runs(tmp_path))
    mutants = load_points(built(tmp_path))
    first = MutantTrials(Request(), Listener(""), "points-6.1")
    try_points(first, mutants, ("S23", "S29"), tries=3)
    nothing_left = Runs(tmp_path)
    monkeypatch.setattr(mutant_trials, "perform_jobs", nothing_left)
    second = MutantTrials(Request(), Listener(""), "points-6.1", first.trials)
    chosen, complete = try_points(second, mutants, ("S23", "S29"), tries=3)
    assert complete and nothing_left.runs == [] and second.folders == []
    assert catch_of(chosen[0], second.trials) is Catch.NAMED


def test_a_second_catch_is_by_another_kind_of_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Caught(Runs):
        """Every scenario reaches the first point, and S29, S60 and S60M notice it."""

        def verdict(self, job: Job) -> Status:
            noticed = "@" in job.key.scenario and job.key.scenario.startswith(("S29@", "S60"))
            return Status.FAIL if noticed else Status.PASS

        def reached(self, job: Job) -> str:
            return "1\n"

    runs = Caught(tmp_path)
    monkeypatch.setattr(mutant_trials, "perform_jobs", runs)
    setup = load_points(built(tmp_path))[:1]
    trials = MutantTrials(Request(), Listener(""), "points-6.1")
    chosen, complete = try_points(trials, setup, ("S29", "S60", "S60M"), tries=2, catches=2)
    assert complete and kinds_that_name(setup[0], trials.trials) == {"S29", "S60"}
    assert len(runs.runs) == 3 and set(chosen[0].scenarios) >= {t.scenario for t in trials.trials if t.mutant}
    alone = MutantTrials(Request(), Listener(""), "points-6.1")
    _, complete = try_points(alone, setup, ("S60", "S60M"), tries=2, catches=2)
    assert complete and len([t for t in alone.trials if t.mutant]) == 1, "S60M is no other kind than S60"
